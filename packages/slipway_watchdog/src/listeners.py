# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports of this host that other hosts may reach, unless a firewall stops them, and that the last run did not know.

What firewalls let through only another host can say: exposure.yml tries it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path

from ansible_collections.slipway.stack.plugins.module_utils import listening, sockets
from container_metrics import escaped

JSON = dict[str, t.Any]

METRIC = "slipway_undeclared_port"
HELP = "A port that listens where other hosts may reach it, and that is not declared."
#: The ports that the kernel gives to those who ask for none: of UDP, clients that wait for an answer.
CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def addresses() -> list[str]:
    """Return the addresses of this host that others may reach."""
    shown = subprocess.run(["ip", "-json", "address", "show", "up"], capture_output=True, text=True, check=True)
    return listening.outward_addresses(json.loads(shown.stdout))


def is_undeclared(port: JSON, own: t.Collection[str], declared: t.Iterable[JSON]) -> bool:
    """Return whether a port listens on one of the host's own addresses for which it is not declared."""
    meant = [item["address"] for item in declared if (item["protocol"], item["port"]) == (port["protocol"], port["port"])]
    reached = [address for address in own if sockets.leads_to(address, port["address"])]
    return any(not any(sockets.leads_to(address, bound) for bound in meant) for address in reached)


def texts(stack: str, declared: t.Collection[JSON], containers: list[JSON]) -> dict[str, str]:
    """Return the figures by the name of the file that node_exporter reads them from, or nothing where they are unknown.

    Args:
        stack: the stack's name.
        declared: what may listen, each with ``protocol``, ``port`` and ``address``, "" for all.
        containers: those that run, as the engine lists them.
    """
    try:
        own = addresses()
        first, last = map(int, CLIENTS.read_text().split())
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"which ports are open and not declared is unknown: {error}", file=sys.stderr)
        return {}

    def is_wanted(port: JSON) -> bool:
        of_client = port["protocol"] == "udp" and "inode" in port and first <= port["port"] <= last
        return not of_client and is_undeclared(port, own, declared)

    found = sorted({(port["protocol"], port["port"], port["owner"]) for port in listening.ports(containers, is_wanted)})
    samples = (
        f'{METRIC}{{stack="{escaped(stack)}",protocol="{protocol}",port="{number}",owner="{escaped(owner)}"}} 1\n'
        for protocol, number, owner in found
    )
    return {"listeners.prom": f"# HELP {METRIC} {HELP}\n# TYPE {METRIC} gauge\n{''.join(samples)}"}
