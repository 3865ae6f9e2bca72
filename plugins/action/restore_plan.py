# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what a run of restore.yml does. See the documentation of restore_plan."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils import restore


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; no host is asked or changed."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the decision, or what follows from it for a host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={
                "point": {"type": "str", "default": ""},
                "target_time": {"type": "str", "default": ""},
                "stores": {"type": "raw", "default": ""},
                "into": {"type": "str", "default": "place"},
                "list": {"type": "bool", "default": False},
                "remove": {"type": "bool", "default": False},
                "undo": {"type": "bool", "default": False},
                "discard_old": {"type": "bool", "default": False},
                "known_stores": {"type": "list", "elements": "str", "default": []},
                "plan": {"type": "dict"},
                "data": {"type": "list", "elements": "dict"},
                "left": {"type": "list", "elements": "str", "default": []},
                "left_by_undo": {"type": "bool", "default": False},
                "serving": {"type": "bool", "default": True},
                "staged": {"type": "list", "elements": "str", "default": []},
            },
        )
        variables = task_vars or {}
        result["changed"] = False
        try:
            if options["plan"] is None:
                asked = restore.Asked(**{name: options[name] for name in restore.Asked._fields})
                decision = restore.decide(asked, options["known_stores"], limited=bool(variables.get("ansible_limit")))
                result.update(decision._asdict(), in_place=decision.in_place)
            else:
                decision = restore.Decision(**{name: options["plan"][name] for name in restore.Decision._fields})
                plan = restore.host_plan(
                    decision,
                    variables["inventory_hostname"],
                    options["data"] or [],
                    left=[PurePath(path).stem for path in options["left"]],
                    left_by_undo=options["left_by_undo"],
                    serving=options["serving"],
                    staged=options["staged"],
                )
                result.update(plan._asdict())
        except restore.RestoreError as error:
            result.update(failed=True, msg=str(error))
        return result
