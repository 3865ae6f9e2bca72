# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Merge the history that was read of all hosts, in one task. See the documentation of fleet_history."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils import history
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import states_of


class ActionModule(ActionBase):  # type: ignore[misc]
    """Reads what was read before; asks no host."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the runs, and how the run ends that shows them."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={"folder": {"type": "str", "required": True}, "lines": {"type": "int", "required": True}}
        )
        states = states_of(task_vars)
        read = {host: state for host, state in states.items() if "files" in state}
        runs = history.with_restarts(read, options["folder"], options["lines"])
        shown = [{"text": line, "color": ""} for line in history.lines(runs)] or [{"text": "No run has changed a host yet", "color": ""}]
        away = [{"text": f"{host} could not be read: its history is missing here", "color": "red"} for host in states if host not in read]
        damaged = [{"text": sentence, "color": "red"} for sentence in history.damaged(read, options["folder"])]
        return {**result, "changed": False, "runs": runs, "ending": {"lines": shown + away + damaged}}
