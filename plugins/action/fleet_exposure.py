# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what is open on the hosts of a fleet with what is declared. See the documentation of fleet_exposure."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.module_utils import sockets
from ansible_collections.slipway.stack.plugins.plugin_utils import exposure

CONTROLLER = "the controller"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Tries ports from the controller; asks no host by Ansible's connection."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what to try, or how the run ends that has tried it."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={
                "listening": {"type": "dict", "required": True},
                "declared": {"type": "dict", "required": True},
                "tried": {"type": "dict"},
                "timeout": {"type": "float", "default": 3},
            }
        )
        declared = options["declared"]
        hosts = {
            host: exposure.Host(read.get("ports"), read.get("addresses", ()), declared[host], " ".join(str(read.get("msg", "")).split()))
            for host, read in options["listening"].items()
        }
        targets = exposure.targets(hosts)
        if options["tried"] is None:
            keys = ("protocol", "address", "port")
            of_others = {
                name: [{key: target[key] for key in keys} for target in targets if target["host"] != name]
                for name in task_vars["ansible_play_hosts_all"]
            }
            return {**result, "changed": False, "targets": of_others}
        own = sockets.reachable({(target["protocol"], target["address"], target["port"]) for target in targets}, options["timeout"])
        here = [
            {"protocol": protocol, "address": address, "port": port, "result": said, "source": source}
            for (protocol, address, port), (said, source) in own.items()
        ]
        tried = {CONTROLLER: here, **{name: rows.get("tried") for name, rows in options["tried"].items()}}
        found = exposure.problems(hosts, tried)
        ending = {"lines": exposure.lines(found, tried), "exit_status": 1 if found else 0}
        return {**result, "changed": False, "problems": found, "ending": ending}
