#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say which ports of a host take connections or datagrams, and whose they are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: listening_ports
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Say which ports of a host take connections or datagrams, and whose they are
description:
  - Lists sockets of processes as the kernel does, and ports that containers publish, which need no socket. TCP and UDP, IPv4 and IPv6.
  - Leaves out what listens on an address of this host alone, such as V(127.0.0.1).
options: {}
extends_documentation_fragment:
  - slipway.stack.attributes.reads
"""

EXAMPLES = r"""
- name: List the listening ports
  slipway.stack.listening_ports:
  register: listening
"""

RETURN = r"""
ports:
  description: Each with C(protocol), C(address) (V(0.0.0.0) or V(::) for all of the host), C(port), and C(owner).
  returned: always
  type: list
  elements: dict
addresses:
  description: Addresses of the host's interfaces, without those of container networks, of this host alone, and of one link.
  returned: always
  type: list
  elements: str
"""

import json
import os
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils import sockets
from ansible_collections.slipway.stack.plugins.module_utils.engine import DEFAULT_SOCKET, Engine, EngineError

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


def of_containers(containers: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
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


def without_proxies(listeners: list[sockets.Listener], published: list[dict[str, t.Any]]) -> list[sockets.Listener]:
    """Return the sockets without those of the engine's proxy, which has one at each address and port that a container publishes."""
    named = {(port["protocol"], port["address"], port["port"]) for port in published}
    return [item for item in listeners if (item.protocol, item.address, item.port) not in named]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    program = module.get_bin_path("ip", required=True)
    _code, interfaces, _error = module.run_command([program, "-json", "address", "show", "up"], check_rc=True)
    try:
        # Before the first run a host has no engine. One that does not answer may have left its containers running.
        published = of_containers(Engine().get("/containers/json")) if os.path.exists(DEFAULT_SOCKET) else []
    except EngineError as error:
        module.fail_json(msg=f"which ports containers publish is unknown: {error}; start the engine, and run again")
    sockets_of_processes = without_proxies(sockets.listeners(), published)
    processes = sockets.processes({item.inode for item in sockets_of_processes})
    ports = published + [
        {
            "protocol": item.protocol,
            "address": item.address,
            "port": item.port,
            "owner": f"process {processes[item.inode]}" if item.inode in processes else "an unknown process",
        }
        for item in sockets_of_processes
    ]
    ports = [port for port in ports if sockets.is_outward(port["address"])]
    module.exit_json(changed=False, ports=ports, addresses=outward_addresses(json.loads(interfaces)))


if __name__ == "__main__":
    main()
