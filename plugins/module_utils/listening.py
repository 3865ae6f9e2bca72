# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ports of a host take connections or datagrams, and whose they are: those of processes, and those that containers publish."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils import sockets

Port = dict[str, t.Any]

#: Interfaces of container networks, as Docker names them.
_OF_CONTAINERS = re.compile(r"lo|docker0|docker_gwbridge|br-[0-9a-f]{12}|veth.*")
_ALL = {"": "0.0.0.0"}  # noqa: S104 - compared with, not bound to


def outward_addresses(interfaces: list[dict[str, t.Any]]) -> list[str]:
    """Return the addresses of a host that other hosts may reach.

    Args:
        interfaces: as ``ip -json address`` describes them.
    """
    # Of an interface that is down, ip prints an empty object.
    own = [interface for interface in interfaces if interface and not _OF_CONTAINERS.fullmatch(interface["ifname"])]
    return [item["local"] for interface in own for item in interface["addr_info"] if "local" in item and sockets.is_outward(item["local"])]


def of_containers(containers: list[dict[str, t.Any]]) -> list[Port]:
    """Return the ports that containers publish.

    Args:
        containers: as the engine lists them.
    """
    return [
        {
            "protocol": port["Type"],
            "address": _ALL.get(port.get("IP") or "", port.get("IP")),
            "port": port["PublicPort"],
            "owner": f"container {container['Names'][0].lstrip('/')}",
        }
        for container in containers
        for port in container.get("Ports") or []
        if port.get("PublicPort") and port["Type"] in ("tcp", "udp")
    ]


def without_proxies(listeners: list[sockets.Listener], published: list[Port]) -> list[sockets.Listener]:
    """Return the sockets without those of the engine's proxy, which has one at each address and port that a container publishes."""
    named = {(port["protocol"], port["address"], port["port"]) for port in published}
    return [item for item in listeners if (item.protocol, item.address, item.port) not in named]


def ports(containers: list[dict[str, t.Any]], is_wanted: t.Callable[[Port], bool] = bool) -> list[Port]:
    """Return the ports of this host that are not of this host alone, each with ``protocol``, ``address``, ``port`` and ``owner``.

    Args:
        containers: as the engine lists them.
        is_wanted: leaves out ports before their processes are looked for, which takes longest.
    """
    published = of_containers(containers)
    opened = without_proxies(sockets.listeners(), published)
    found = published + [{"protocol": item.protocol, "address": item.address, "port": item.port, "inode": item.inode} for item in opened]
    found = [port for port in found if sockets.is_outward(port["address"]) and is_wanted(port)]
    processes = sockets.processes({port["inode"] for port in found if "inode" in port})
    for port in found:
        if "inode" in port:
            inode = port.pop("inode")
            port["owner"] = f"process {processes[inode]}" if inode in processes else "an unknown process"
    return found
