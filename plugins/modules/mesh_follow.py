#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follow peers in the encrypted network between hosts to the keys that they switch to."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mesh_follow
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Follow peers of a host to the keys that they switch to
description:
  - Waits until each peer has opened a session with its next key, and gives that key the peer's address at once. Until then the former key
    has it. What is changed is also written for the next boot.
  - Runs in the background while M(slipway.stack.mesh_switch) is called on one host after the other.
extends_documentation_fragment:
  - slipway.stack.options.stack_folder
options:
  keys:
    description: The next public key of each peer, by its address within the network. M(slipway.stack.mesh_peers) has added them.
    type: dict
    required: true
  timeout:
    description: Seconds until all must have switched.
    type: float
    required: true
attributes:
  check_mode:
    description: Not called in check mode, as no host switches then.
    support: none
"""

EXAMPLES = r"""
- name: Follow a peer
  slipway.stack.mesh_follow:
    stack: slipway
    keys:
      10.210.7.1: "{{ next_key }}"
    timeout: 120
  async: 150
  poll: 0
"""

RETURN = r""" # """

import os
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.config_files import read_text, write_file
from ansible_collections.slipway.stack.plugins.module_utils.mesh import (
    KEEPALIVE_SECONDS,
    PEERS,
    MeshError,
    call,
    folder_of,
    interface_of,
    latest_handshakes,
    only_writer,
    with_address_moved,
)

#: A peer that has switched is not heard until it is followed.
INTERVAL_S = 0.1


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/etc/slipway"},
            "keys": {"type": "dict", "required": True, "no_log": False},
            "timeout": {"type": "float", "required": True},
        },
    )
    options = module.params
    path = os.path.join(folder_of(options["stack"], options["root"]), PEERS)
    try:
        follow(interface_of(options["stack"]), options["keys"], path, options["timeout"])
    except (MeshError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True)


def follow(interface: str, keys: dict[str, str], path: str, timeout: float) -> None:
    """Give each key its address when it has a session.

    Args:
        interface: Name of the interface.
        keys: Public keys by address.
        path: The file of the peers, which is changed alike.
        timeout: Seconds until all must have one.

    Raises:
        MeshError: Not all have one in time, or another run has removed them.
        OSError: The file cannot be written.
    """
    waiting = dict(keys)
    deadline = time.monotonic() + timeout
    while True:
        handshakes = latest_handshakes(interface)
        for address, key in list(waiting.items()):
            if key not in handshakes:
                raise MeshError(f"the next key of {address} is not a peer any more: another run has changed the peers")
            if handshakes[key]:
                values = ["allowed-ips", f"{address}/32", "persistent-keepalive", str(KEEPALIVE_SECONDS)]
                with only_writer(path):
                    call(["wg", "set", interface, "peer", key, *values])
                    write_file(path, with_address_moved(read_text(path) or "", key, address), 0o600, 0, 0)
                del waiting[address]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise MeshError(f"not switched to their next keys within {timeout:.0f} s: {', '.join(sorted(waiting))}")
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main()
