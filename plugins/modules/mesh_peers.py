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
  - If the interface is up, C(wg syncconf) changes what differs, and leaves the sessions of other peers alone. What WireGuard accepts is
    then written for the next boot.
extends_documentation_fragment:
  - slipway.stack.options.stack_folder
options:
  peers:
    description: The peers, as C(wg syncconf) reads them, with their pre-shared keys.
    type: str
    required: true
  next_key:
    description: Whether the host's next key, which M(slipway.stack.mesh_key) has made, takes the place of the one in use.
    type: bool
    default: false
  at:
    description: When to do so, in seconds since 1970 by the host's clock; all hosts at once, as a tunnel has two ends. At most 30 s ahead.
    type: float
    default: 0
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
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.config_files import read_text, write_file
from ansible_collections.slipway.stack.plugins.module_utils.mesh import (
    NEXT_KEY,
    PEERS,
    PRIVATE_KEY,
    PUBLIC_KEY,
    MeshError,
    call,
    folder_of,
    interface_of,
    read_interface,
)

LONGEST_WAIT_S = 30


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/etc/slipway"},
            "peers": {"type": "str", "required": True, "no_log": True},
            "next_key": {"type": "bool", "default": False, "no_log": False},
            "at": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    options = module.params
    folder, interface = folder_of(options["stack"], options["root"]), interface_of(options["stack"])
    private, following, peers = (os.path.join(folder, name) for name in (PRIVATE_KEY, NEXT_KEY, PEERS))
    promoted = options["next_key"] and os.path.exists(following)
    changed = promoted or read_text(peers) != options["peers"]
    if module.check_mode:
        module.exit_json(changed=changed)
    try:
        key = (read_text(following if promoted else private) or "").strip()
        public = call(["wg", "pubkey"], key).strip()
        up = read_interface(interface)
        time.sleep(max(0.0, min(LONGEST_WAIT_S, options["at"] - time.time())))
        if up:
            call(["wg", "syncconf", interface, "/dev/stdin"], settings(key, up["port"], options["peers"]))
        if promoted:
            os.replace(following, private)
            write_file(os.path.join(folder, PUBLIC_KEY), f"{public}\n", 0o644, 0, 0)
        write_file(peers, options["peers"], 0o600, 0, 0)
    except (MeshError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed)


def settings(key: str, port: int, peers: str) -> str:
    """Return the configuration of an interface as ``wg syncconf`` reads it."""
    return f"[Interface]\nPrivateKey = {key}\nListenPort = {port}\n\n{peers}"


if __name__ == "__main__":
    main()
