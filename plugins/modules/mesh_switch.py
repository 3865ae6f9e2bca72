#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Switch a host to its next key in the encrypted network between hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mesh_switch
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Switch a host to its next key for the encrypted network between hosts
description:
  - Puts the key that M(slipway.stack.mesh_key) has made in the place of the one in use, and waits until each peer has opened a session
    with it. All peers must know it already, and M(slipway.stack.mesh_follow) must run on them.
  - The pre-shared keys that belong to that key are set in the same moment.
  - Two hosts must not switch at the same time, as none would know the key that the other one has by then.
extends_documentation_fragment:
  - slipway.stack.options.stack_folder
options:
  peers:
    description: The peers as C(wg syncconf) reads them, with the pre-shared keys that they have once the host has switched; these are set.
    type: str
    required: true
  secret_id:
    description: Which pre-shared secret the next key belongs to, as the filter P(slipway.stack.mesh_secret_id#filter) says.
    type: str
    required: true
  timeout:
    description: Seconds until all peers must have a session.
    type: float
    default: 20
attributes:
  check_mode:
    description: Not called in check mode, as there is no next key.
    support: none
"""

EXAMPLES = r"""
- name: Switch one host after the other
  slipway.stack.mesh_switch:
    stack: slipway
    peers: "{{ __mesh_peers_switched }}"
    secret_id: "{{ mesh_preshared_secret | slipway.stack.mesh_secret_id }}"
  throttle: 1
  register: __mesh_switched
"""

RETURN = r"""
public_key:
  description: The public key that is in use now, in base64.
  returned: success
  type: str
secret_id:
  description: Which pre-shared secret that key belongs to.
  returned: success
  type: str
"""

import contextlib
import os
import socket
import time

from ansible_collections.slipway.stack.plugins.module_utils.config_files import read_text, write_file
from ansible_collections.slipway.stack.plugins.module_utils.mesh import (
    DISCARD_PORT,
    NEXT_KEY,
    PEERS,
    PRIVATE_KEY,
    PUBLIC_KEY,
    SECRET_ID,
    MeshError,
    call,
    folder_of,
    interface_of,
    latest_handshakes,
    only_writer,
    parse_dump,
    preshared_keys,
    set_keys,
    with_preshared_keys,
)
from ansible_collections.slipway.stack.plugins.module_utils.secret_module import SecretModule

INTERVAL_S = 0.1


def main() -> None:
    """Run the module."""
    module = SecretModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/etc/slipway"},
            "peers": {"type": "str", "required": True, "no_log": True},
            "secret_id": {"type": "str", "required": True, "no_log": False},
            "timeout": {"type": "float", "default": 20},
        },
    )
    options = module.params
    folder, interface = folder_of(options["stack"], options["root"]), interface_of(options["stack"])
    changed = os.path.exists(os.path.join(folder, NEXT_KEY))
    try:
        if changed:
            before = handshakes_of_past_seconds(interface)
            switch(interface, folder, options["peers"], options["secret_id"])
            open_sessions(interface, before, options["timeout"])
        public = call(["wg", "pubkey"], read_text(os.path.join(folder, PRIVATE_KEY)) or "").strip()
        secret_id = (read_text(os.path.join(folder, SECRET_ID)) or "").strip()
    except (MeshError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, public_key=public, secret_id=secret_id)


def switch(interface: str, folder: str, peers: str, secret_id: str) -> None:
    """Put the next key in the place of the one in use.

    Args:
        interface: Name of the interface.
        folder: The folder of the mesh.
        peers: The peers with the pre-shared keys that they have from now on.
        secret_id: Which secret the next key belongs to.

    Raises:
        MeshError: The key is none, or the interface does not take it.
        OSError: A file cannot be written.
    """
    private, following, path = (os.path.join(folder, name) for name in (PRIVATE_KEY, NEXT_KEY, PEERS))
    key = (read_text(following) or "").strip()
    public = call(["wg", "pubkey"], key).strip()
    with only_writer(path):
        before = read_text(path) or ""
        after = with_preshared_keys(before, preshared_keys(peers))
        # The private key after the public one, which can be computed again, and before the interface, which a boot sets by it.
        write_file(path, after, 0o600, 0, 0)
        write_file(os.path.join(folder, SECRET_ID), f"{secret_id}\n", 0o600, 0, 0)
        write_file(os.path.join(folder, PUBLIC_KEY), f"{public}\n", 0o644, 0, 0)
        os.replace(following, private)
        old = preshared_keys(before)
        set_keys(interface, key, {peer: value for peer, value in preshared_keys(after).items() if old[peer] != value})


def handshakes_of_past_seconds(interface: str) -> dict[str, int]:
    """Return what latest_handshakes does, once a later handshake of any peer has another time: WireGuard gives it in whole seconds.

    Raises:
        MeshError: The interface cannot be read.
    """
    while int(time.time()) in (found := latest_handshakes(interface)).values():
        time.sleep(INTERVAL_S)
    return found


def open_sessions(interface: str, before: dict[str, int], timeout: float) -> None:
    """Wait until each peer that has an address has had another handshake.

    Args:
        interface: Name of the interface.
        before: What latest_handshakes returned before.
        timeout: Seconds until all must have had one.

    Raises:
        MeshError: Not all have had one.
    """
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while True:
            # Each time, as a peer that has switched before may be given its address only now.
            peers = parse_dump(call(["wg", "show", interface, "dump"]), time.time())["peers"]
            found = latest_handshakes(interface)
            silent = sorted(address for key, peer in peers.items() if found.get(key) == before.get(key) for address in peer["addresses"])
            if not silent:
                return
            if time.monotonic() > deadline:
                raise MeshError(f"no handshake with {', '.join(silent)} within {timeout:.0f} s after the key was switched")
            for address in silent:
                # A packet makes WireGuard open a session at once.
                with contextlib.suppress(OSError):
                    sender.sendto(b"", (address, DISCARD_PORT))
            time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main()
