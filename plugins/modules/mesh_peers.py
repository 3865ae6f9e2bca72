#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set the peers of a host in the encrypted network between hosts, without a cut for those that stay."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mesh_peers
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Set the peers of a host in the encrypted network between hosts
description:
  - If the interface is up, peers that differ are set, and those that are gone are removed after that. Others keep their sessions, and lose
    no packet. What WireGuard accepts is then written for the next boot.
extends_documentation_fragment:
  - slipway.stack.options.stack_folder
options:
  peers:
    description: The peers, as C(wg syncconf) reads them, with their pre-shared keys.
    type: str
    required: true
attributes:
  check_mode:
    description: Says whether the file differs, and changes nothing.
    support: full
"""

EXAMPLES = r"""
- name: Set the peers
  slipway.stack.mesh_peers:
    stack: slipway
    peers: "{{ __mesh_peers }}"
"""

RETURN = r""" # """

import os

from ansible_collections.slipway.stack.plugins.module_utils.config_files import read_text, write_file
from ansible_collections.slipway.stack.plugins.module_utils.mesh import (
    PEERS,
    PRIVATE_KEY,
    MeshError,
    call,
    folder_of,
    interface_of,
    only_writer,
    peers_to_set,
    read_interface,
    set_keys,
)
from ansible_collections.slipway.stack.plugins.module_utils.secret_module import SecretModule


def main() -> None:
    """Run the module."""
    module = SecretModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/etc/slipway"},
            "peers": {"type": "str", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    folder, interface = folder_of(options["stack"], options["root"]), interface_of(options["stack"])
    path = os.path.join(folder, PEERS)
    changed = read_text(path) != options["peers"]
    if module.check_mode:
        module.exit_json(changed=changed)
    try:
        with only_writer(path):
            private = (read_text(os.path.join(folder, PRIVATE_KEY)) or "").strip()
            public = call(["wg", "pubkey"], private).strip()
            if up := read_interface(interface):
                if up["public_key"] != public:
                    set_keys(interface, private)
                blocks, gone = peers_to_set(options["peers"], read_text(path) or "", up)
                # In this order an address goes from one peer to the other, and always has one.
                if blocks:
                    call(["wg", "addconf", interface, "/dev/stdin"], blocks)
                for key in gone:
                    call(["wg", "set", interface, "peer", key, "remove"])
            write_file(path, options["peers"], 0o600, 0, 0)
    except (MeshError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
