# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge what was read of a fleet, in one task. See the documentation of fleet_status."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils import history, release, status
from ansible_collections.slipway.stack.plugins.plugin_utils.connections import connection_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import HostView, hidden_of, states_of, topology_of
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import without
from ansible_collections.slipway.stack.plugins.plugin_utils.status_page import page
from ansible_collections.slipway.stack.plugins.plugin_utils.status_text import lines

SHOWN_RUNS = 5


class ActionModule(ActionBase):  # type: ignore[misc]
    """Reads what was read before; asks no host."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the state of the fleet, and how a run that found it ends."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={
                "stack": {"type": "str", "required": True},
                "folder": {"type": "str", "required": True},
                "plan": {"type": "dict", "required": True},
                "unknown": {"type": "str", "default": ""},
            }
        )
        raw = {host: task_vars["hostvars"].raw_get(host) for host in task_vars["ansible_play_hosts_all"]}
        states = {host: _with_reason(state, raw[host]) for host, state in states_of(task_vars).items()}
        read = {host: state for host, state in states.items() if "containers" in state}
        topology = topology_of(task_vars, self._loader)
        plan, unknown = options["plan"], options["unknown"]
        record = lock = None
        try:
            lock, record = release.fleet_lock(read, options["folder"]), release.fleet_record(read, options["folder"])
        except release.ReleaseError as error:
            unknown = unknown or str(error)
        found = status.judge(
            status.Fleet(
                stack=options["stack"],
                now=time.time(),
                states=states,
                services=[status.Service(**service) for service in topology.who_runs_what()],
                containers=plan.get("containers") or {},
                reasons=plan.get("reasons") or {},
                waiting=[row for row in plan.get("services") or () if row["waits"]],
                unknown=" ".join(unknown.split()),
                record=record,
                lock=lock,
                history=history.newest(history.merged(read, str(Path(options["folder"]).parent)), SHOWN_RUNS),
                reports={host: topology.reports(host) for host in states},
                connections={host: topology.connections(host) for host in states},
            )
        )
        # What programs report may hold anything.
        found = _without_secrets(found, hidden_of(raw.values(), task_vars["hostvars"], self._loader))
        exit_status = status.EXIT[found["state"]]
        return {**result, "changed": False, "status": found, "exit_status": exit_status, "lines": lines(found), "page": page(found)}


def _with_reason(state: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
    """Return what was read of a host, which of one that could not be read is what its inventory may have to do with it."""
    if "containers" in state or not state:
        return state
    view = HostView(variables, {}, {}, None)
    text, unreachable = str(state.get("msg", "")), bool(state.get("unreachable"))
    problem = connection_problem(text, lambda name: view.value(name)[0], view.place, reached=not unreachable)
    return {"msg": problem or text, "unreachable": unreachable}


def _without_secrets(value: Any, hidden: list[str]) -> Any:
    """Return a value of JSON whose strings show no secret."""
    if isinstance(value, dict):
        return {key: _without_secrets(member, hidden) for key, member in value.items()}
    if isinstance(value, list):
        return [_without_secrets(member, hidden) for member in value]
    return without(value, hidden) if isinstance(value, str) else value
