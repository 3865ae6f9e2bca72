# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what taking a stack off a host removes. See the documentation of destroy_plan."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils.destroy import destroy_plan, destroy_problems


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; no host is asked or changed."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check the inputs, and with a host's state name what goes."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={
                "stack": {"type": "raw", "required": True},
                "confirmed": {"type": "raw", "required": True},
                "volumes": {"type": "raw", "required": True},
                "state": {"type": "dict"},
            }
        )
        result["changed"] = False
        problems = destroy_problems(options["stack"], options["confirmed"], options["volumes"])
        if not problems and options["state"] is not None:
            result.update(destroy_plan(options["stack"], options["volumes"], options["state"]))
            problems = [f"{(task_vars or {})['inventory_hostname']}: {problem}" for problem in result.pop("problems")]
        if problems:
            result.update(failed=True, msg=f"Nothing was touched. {'; '.join(problems)}")
        return result
