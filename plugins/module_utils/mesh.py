# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The encrypted network between the hosts of a stack, as it is on one of them: names, keys, and what the kernel knows of it."""

from __future__ import annotations

import contextlib
import fcntl
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
#: Which pre-shared secret the host's own key belongs to.
SECRET_ID = "secret_id"  # noqa: S105 - its name
#: What its unit calls to bring it up.
PROGRAM = "tunnel"
#: Seconds between packets that keep a tunnel open through firewalls and NAT, and its handshake recent.
KEEPALIVE_SECONDS = 25
#: Where nothing listens: the way of a packet to it is all that matters.
DISCARD_PORT = 9


class MeshError(Exception):
    """A program of WireGuard failed; the message is what it printed."""


def interface_of(stack: str) -> str:
    """Return the name of a stack's interface."""
    name = f"sw-{stack}"
    return name if len(name) <= INTERFACE_LENGTH else f"sw-{hashlib.sha256(stack.encode()).hexdigest()[:12]}"


def folder_of(stack: str, root: str = "/etc/slipway") -> str:
    """Return the folder of a stack's mesh on a host."""
    return f"{root}/{stack}/mesh"


@contextlib.contextmanager
def only_writer(path: str) -> t.Iterator[None]:
    """Wait until no other module changes the file of the peers, and the interface with it."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def call(argv: list[str], stdin: str = "", descriptors: t.Sequence[int] = ()) -> str:
    """Return what a program prints.

    Args:
        argv: The program and its arguments.
        stdin: What it reads.
        descriptors: Those of open files that it gets, as ``/dev/fd/N``.

    Raises:
        MeshError: It failed, or is not installed.
    """
    environment = {**os.environ, "PATH": PATH}
    try:
        # Without AnsibleModule, whose log and messages would show keys.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            argv, input=stdin, capture_output=True, text=True, check=False, env=environment, pass_fds=descriptors
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


def latest_handshakes(interface: str) -> dict[str, int]:
    """Return when each peer had its last handshake, in seconds since 1970 by public key; 0 if there was none.

    Raises:
        MeshError: The interface cannot be read.
    """
    rows = [line.split("\t") for line in call(["wg", "show", interface, "latest-handshakes"]).splitlines()]
    return {key: int(seconds) for key, seconds in rows}


def address_lines(address: str) -> list[str]:
    """Return the lines of a configuration that let a peer have an address, and keep its session open."""
    return [f"AllowedIPs = {address}/32", f"PersistentKeepalive = {KEEPALIVE_SECONDS}"]


def peer_blocks(text: str) -> dict[str, list[str]]:
    """Return the lines of each peer in a configuration, by public key."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.strip()]
    return {line.partition(" = ")[2]: block for block in blocks for line in block if line.startswith("PublicKey = ")}


def text_of(blocks: dict[str, list[str]]) -> str:
    """Return a configuration of peers, as peer_blocks takes it apart."""
    return "\n".join("\n".join(lines) + "\n" for lines in blocks.values())


def preshared_keys(text: str) -> dict[str, str]:
    """Return the pre-shared keys in a configuration of peers, by public key."""
    return {
        key: line.partition(" = ")[2] for key, lines in peer_blocks(text).items() for line in lines if line.startswith("PresharedKey = ")
    }


def with_preshared_keys(text: str, keys: dict[str, str]) -> str:
    """Return a configuration of peers with these pre-shared keys, by public key; other peers keep theirs."""
    blocks = peer_blocks(text)
    for key in set(blocks) & set(keys):
        blocks[key] = [f"PresharedKey = {keys[key]}" if line.startswith("PresharedKey = ") else line for line in blocks[key]]
    return text_of(blocks)


def pipe_with(text: str) -> int:
    """Return the descriptor of a pipe's end from which a short text can be read once."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="ascii") as file:
        file.write(text)
    return reader


def set_keys(interface: str, private: str, keys: dict[str, str] | None = None) -> None:
    """Give an interface its private key, and its peers their pre-shared keys, in one call.

    Args:
        interface: Name of the interface.
        private: The private key.
        keys: Pre-shared keys by public key.

    Raises:
        MeshError: The interface does not take them.
    """
    descriptors: list[int] = []

    def given(key: str) -> str:
        # `wg set` reads keys from files. AppArmor's profile of wg (Ubuntu 26.04) forbids files outside of /etc/wireguard, and no pipe.
        descriptors.append(pipe_with(f"{key}\n"))
        return f"/dev/fd/{descriptors[-1]}"

    try:
        argv = ["wg", "set", interface, "private-key", given(private)]
        for public, preshared in sorted((keys or {}).items()):
            # With `wg addconf`, a peer would be without its address for a moment.
            argv += ["peer", public, "preshared-key", given(preshared)]
        call(argv, descriptors=descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def peers_to_set(wanted: str, file: str, interface: dict[str, t.Any]) -> tuple[str, list[str]]:
    """Return what differs between the peers that an interface is to have and those that it has.

    Args:
        wanted: The configuration that it is to have.
        file: The one that it was given before.
        interface: What read_interface returns.

    Returns:
        The configuration of peers to add or to change, and the public keys of those to remove. Peers that stay are in neither: even a
        setting that is set to what it was costs them packets.
    """
    peers, before, after = interface["peers"], peer_blocks(file), peer_blocks(wanted)

    def differs(key: str, lines: list[str]) -> bool:
        if key not in peers or sorted(before.get(key, [])) != sorted(lines):
            return True
        return [f"AllowedIPs = {address}/32" for address in peers[key]["addresses"]] != [
            line for line in lines if line.startswith("AllowedIPs")
        ]

    return text_of({key: lines for key, lines in after.items() if differs(key, lines)}), sorted(set(peers) - set(after))


def with_address_moved(text: str, key: str, address: str) -> str:
    """Return a configuration in which the peer with a public key has an address, and no other one has it."""
    taken = address_lines(address)
    blocks = peer_blocks(text)
    if key not in blocks:
        return text
    for other, lines in blocks.items():
        if other == key:
            blocks[key] = [line for line in lines if line not in taken] + taken
        elif taken[0] in lines:
            blocks[other] = [line for line in lines if line not in taken]
    return text_of(blocks)
