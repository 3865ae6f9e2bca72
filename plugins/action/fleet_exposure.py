# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what is open on the hosts of a fleet with what is declared. See the documentation of fleet_exposure."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.module_utils import sockets
from ansible_collections.slipway.stack.plugins.plugin_utils import exposure


def _addresses(name: str) -> list[str]:
    """Return the addresses that a name leads the controller to, none if it cannot resolve it."""
    try:
        return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)))
    except (OSError, UnicodeError):
        return []


def resolved(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the addresses of names, all asked at once."""
    wanted = list(dict.fromkeys(names))
    with ThreadPoolExecutor(max_workers=32) as pool:
        return dict(zip(wanted, pool.map(_addresses, wanted), strict=True))


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
                "named": {"type": "dict", "required": True},
                "resolved": {"type": "dict"},
                "tried": {"type": "dict"},
                "timeout": {"type": "float", "default": 3},
            }
        )
        # A name may lead to other addresses a moment later.
        known = options["resolved"] or resolved(name for host in options["listening"] for name in options["named"][host])
        hosts = {
            host: exposure.Host(
                ports=read.get("ports"),
                addresses=read.get("addresses", ()),
                declared=options["declared"][host],
                error=" ".join(str(read.get("msg", "")).split()),
                named=[address for name in options["named"][host] for address in known[name] if sockets.is_outward(address)],
                unresolved=[name for name in options["named"][host] if not known[name]],
            )
            for host, read in options["listening"].items()
        }
        targets = exposure.targets(hosts)
        if options["tried"] is None:
            keys = ("protocol", "address", "port")
            of_others = {
                name: [{key: target[key] for key in keys} for target in targets if target["host"] != name]
                for name in task_vars["ansible_play_hosts_all"]
            }
            return {**result, "changed": False, "targets": of_others, "resolved": known}
        own = sockets.reachable({(target["protocol"], target["address"], target["port"]) for target in targets}, options["timeout"])
        here = [
            {"protocol": protocol, "address": address, "port": port, "result": said, "source": source}
            for (protocol, address, port), (said, source) in own.items()
        ]
        tried = {exposure.CONTROLLER: here, **{name: rows.get("tried") for name, rows in options["tried"].items()}}
        found = exposure.compare(hosts, tried)
        ending = {"lines": found.lines, "exit_status": 1 if found.problems else 0}
        return {**result, "changed": False, "problems": found.problems, "unknown": found.unknown, "ending": ending}
