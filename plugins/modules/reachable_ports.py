#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Try ports of other hosts from this one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: reachable_ports
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Try ports of other hosts from this one
description:
  - Opens a connection to each, all at once, and closes it; to UDP ports it sends empty datagrams, which no service answers that waits for a
    request.
options:
  targets:
    description: The ports.
    type: list
    elements: dict
    required: true
    suboptions:
      protocol:
        description: Whether it takes connections or datagrams.
        type: str
        choices: [tcp, udp]
        required: true
      address:
        description: An IPv4 or IPv6 address of the host.
        type: str
        required: true
      port:
        description: Its number.
        type: int
        required: true
  timeout:
    description: Seconds to wait for each.
    type: float
    default: 3
extends_documentation_fragment:
  - slipway.stack.attributes.reads
"""

EXAMPLES = r"""
- name: Try PostgreSQL from here
  slipway.stack.reachable_ports:
    targets:
      - {protocol: tcp, address: 192.0.2.7, port: 5432}
"""

RETURN = r"""
tried:
  description: >-
    O(targets), each with its C(result): V(open), V(refused), V(silent) (datagrams that are neither answered nor refused, so a service or a
    firewall takes them) or V(unreachable) with a reason; and the C(source) address that it was tried from, where it is open or silent.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils import sockets


def main() -> None:
    """Run the module."""
    target = {
        "protocol": {"type": "str", "choices": ["tcp", "udp"], "required": True},
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "targets": {"type": "list", "elements": "dict", "options": target, "required": True},
            "timeout": {"type": "float", "default": 3},
        },
        supports_check_mode=True,
    )
    results = sockets.reachable(
        {(item["protocol"], item["address"], item["port"]) for item in module.params["targets"]}, module.params["timeout"]
    )
    tried = [
        {"protocol": protocol, "address": address, "port": port, "result": result, "source": source}
        for (protocol, address, port), (result, source) in sorted(results.items())
    ]
    module.exit_json(changed=False, tried=tried)


if __name__ == "__main__":
    main()
