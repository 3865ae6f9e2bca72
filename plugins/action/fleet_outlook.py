# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what a run would do to each service. See the documentation of fleet_outlook."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils import outlook


class ActionModule(ActionBase):  # type: ignore[misc]
    """Reads what was compared before; asks no host."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the rows, and the same for a terminal."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={"fleet": {"type": "dict", "required": True}, "release": {"type": "dict", "required": True}}
        )
        fleet = options["fleet"]
        rows = outlook.outlook(fleet["services"], fleet["reasons"], options["release"])
        return {**result, "changed": False, "rows": rows, "lines": outlook.lines(rows)}
