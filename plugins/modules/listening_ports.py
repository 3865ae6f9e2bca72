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

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils import listening
from ansible_collections.slipway.stack.plugins.module_utils.engine import DEFAULT_SOCKET, Engine, EngineError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    program = module.get_bin_path("ip", required=True)
    _code, interfaces, _error = module.run_command([program, "-json", "address", "show", "up"], check_rc=True)
    try:
        # Before the first run a host has no engine. One that does not answer may have left its containers running.
        containers = Engine().get("/containers/json") if os.path.exists(DEFAULT_SOCKET) else []
    except EngineError as error:
        module.fail_json(msg=f"which ports containers publish is unknown: {error}; start the engine, and run again")
    module.exit_json(changed=False, ports=listening.ports(containers), addresses=listening.outward_addresses(json.loads(interfaces)))


if __name__ == "__main__":
    main()
