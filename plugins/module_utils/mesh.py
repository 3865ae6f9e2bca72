# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The encrypted network between the hosts of a stack, as it is on one of them: names, keys, and what the kernel knows of it."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
import typing as t

#: A name that the kernel takes for an interface has 15 characters at most, and a stack's name may have 41.
INTERFACE_LENGTH = 15
PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
#: Files of the mesh below its folder on a host.
PRIVATE_KEY = "secrets/private_key"
NEXT_KEY = "secrets/private_key.next"
PEERS = "secrets/peers.conf"
PUBLIC_KEY = "public_key"
#: What its unit calls to bring it up.
PROGRAM = "tunnel"


class MeshError(Exception):
    """A program of WireGuard failed; the message is what it printed."""


def interface_of(stack: str) -> str:
    """Return the name of a stack's interface."""
    name = f"sw-{stack}"
    return name if len(name) <= INTERFACE_LENGTH else f"sw-{hashlib.sha256(stack.encode()).hexdigest()[:12]}"


def folder_of(stack: str, root: str = "/etc/slipway") -> str:
    """Return the folder of a stack's mesh on a host."""
    return f"{root}/{stack}/mesh"


def call(argv: list[str], stdin: str = "") -> str:
    """Return what a program prints.

    Raises:
        MeshError: It failed, or is not installed.
    """
    environment = {**os.environ, "PATH": PATH}
    try:
        # Without AnsibleModule, whose log and messages would show keys.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            argv, input=stdin, capture_output=True, text=True, check=False, env=environment
        )
    except OSError as error:
        raise MeshError(f"{argv[0]}: {error.strerror}") from error
    if done.returncode:
        raise MeshError(f"{' '.join(argv[:2])}: {done.stderr.strip() or 'failed without a message'}")
    return done.stdout


def parse_dump(text: str, now: float) -> dict[str, t.Any]:
    """Return what ``wg show INTERFACE dump`` prints, without the private key and the pre-shared keys.

    Returns:
        ``public_key``, ``port``, and ``peers`` by public key, each with its ``addresses``, its ``endpoint`` and the seconds since its last
        handshake as ``handshake_s``, None if there was none.
    """
    own, *rows = [line.split("\t") for line in text.splitlines() if line]
    return {
        "public_key": own[1],
        "port": int(own[2]),
        "peers": {
            row[0]: {
                "addresses": [network.partition("/")[0] for network in row[3].split(",") if network != "(none)"],
                "endpoint": row[2],
                "handshake_s": max(0, int(now - int(row[4]))) if int(row[4]) else None,
            }
            for row in rows
        },
    }


def kernel_has_wireguard(root: str = "/") -> bool:
    """Return whether the kernel has WireGuard, built in, loaded, or as a module."""
    if os.path.isdir(os.path.join(root, "sys/module/wireguard")):
        return True
    for name in ("modules.dep", "modules.builtin"):
        try:
            with open(os.path.join(root, "lib/modules", platform.release(), name), encoding="utf-8") as file:
                if any("/wireguard.ko" in line for line in file):
                    return True
        except OSError:
            continue
    return False


def read_interface(interface: str) -> dict[str, t.Any]:
    """Return what a host knows of an interface: as parse_dump does, and its ``mtu`` and its ``rules``; empty if it is not there."""
    try:
        with open(f"/sys/class/net/{interface}/mtu", encoding="ascii") as file:
            mtu = int(file.read())
        found = parse_dump(call(["wg", "show", interface, "dump"]), time.time())
        rules = call(["iptables", "-w", "5", "-t", "mangle", "-S"]).splitlines()
    except (OSError, MeshError):
        return {}
    return {**found, "mtu": mtu, "rules": [rule for rule in rules if f" {interface} " in f"{rule} "]}


def silent_peers(interface: str, seconds: float) -> list[str]:
    """Return the addresses of peers without a handshake in the last seconds.

    Raises:
        MeshError: The interface cannot be read.
    """
    peers = parse_dump(call(["wg", "show", interface, "dump"]), time.time())["peers"].values()
    return sorted(
        address for peer in peers if peer["handshake_s"] is None or peer["handshake_s"] > seconds for address in peer["addresses"]
    )
