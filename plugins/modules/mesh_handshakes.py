#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until a host has a session with each of its peers in the encrypted network between hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mesh_handshakes
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Wait until a host has a session with each of its peers
description:
  - Sends a packet to each peer, which begins a handshake where there is no session, and waits until all have answered.
  - A firewall that filters UDP on the way, a clock that was set back, or a peer without this host's key, make it wait in vain.
extends_documentation_fragment:
  - slipway.stack.options.stack_folder
  - slipway.stack.attributes.reads
options:
  addresses:
    description: Addresses of the peers within the network.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds until all must have answered.
    type: float
    default: 20
"""

EXAMPLES = r"""
- name: Try all tunnels
  slipway.stack.mesh_handshakes:
    stack: slipway
    addresses: [10.210.7.1]
"""

RETURN = r"""
silent:
  description: Addresses of the peers that did not answer.
  returned: success
  type: list
  elements: str
time_s:
  description: The host's clock when it began, in seconds since 1970.
  returned: success
  type: float
"""

import contextlib
import socket
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.mesh import DISCARD_PORT, MeshError, interface_of, silent_peers

#: A session ends so long after its handshake.
SESSION_S = 180
INTERVAL_S = 0.25


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/etc/slipway"},
            "addresses": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "float", "default": 20},
        },
        supports_check_mode=True,
    )
    options = module.params
    interface, began = interface_of(options["stack"]), time.time()
    deadline = time.monotonic() + options["timeout"]
    try:
        while True:
            silent = [address for address in silent_peers(interface, SESSION_S) if address in options["addresses"]]
            if not silent or time.monotonic() > deadline:
                break
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for address in silent:
                    # Of a peer that is not known yet, the kernel says so.
                    with contextlib.suppress(OSError):
                        sender.sendto(b"", (address, DISCARD_PORT))
            time.sleep(INTERVAL_S)
    except MeshError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, silent=silent, time_s=began)


if __name__ == "__main__":
    main()
