# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sockets of a host listen and whose they are, and which addresses answer. On the host, without programs."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import select
import socket
import threading
import time
import typing as t

#: Tables of the kernel, and the state that a socket has there while it takes connections, or datagrams from anybody.
_TABLES = (("tcp", "tcp", "0A"), ("tcp", "tcp6", "0A"), ("udp", "udp", "07"), ("udp", "udp6", "07"))
#: Seconds between two datagrams: the first may wait for the address of its neighbour, and a host limits how often it refuses one.
_AGAIN = 0.5


class Listener(t.NamedTuple):
    """A socket that takes connections, or datagrams from anybody."""

    protocol: str
    address: str
    port: int
    inode: str


def address_of(raw: str) -> str:
    """Return the address that the kernel writes as hexadecimal words of four bytes, the last byte first."""
    words = [bytes.fromhex(raw[at : at + 8])[::-1] for at in range(0, len(raw), 8)]
    parsed = ipaddress.ip_address(b"".join(words))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def public_ipv6(path: str = "/proc/net/if_inet6") -> list[str]:
    """Return this host's IPv6 addresses that are not of one link or of itself alone."""
    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
        rows = [line.split() for line in file]
        return [str(ipaddress.IPv6Address(bytes.fromhex(row[0]))) for row in rows if row[3] == "00"]
    return []


def is_outward(address: str) -> bool:
    """Return whether an address can be reached from another host."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return not (parsed.is_loopback or parsed.is_link_local)


def leads_to(address: str, bound: str) -> bool:
    """Return whether what comes to an address of a host arrives at what is bound to an address, or to all (``""``, 0.0.0.0 or ::)."""
    return bound in {"", "::", address} or (bound == "0.0.0.0" and ":" not in address)  # noqa: S104 - compared with, not bound to


def listeners(folder: str = "/proc/net", protocols: t.Collection[str] = ("tcp", "udp")) -> list[Listener]:
    """Return the listening sockets of this host.

    Args:
        folder: where the kernel shows its tables.
        protocols: of which kinds.
    """
    found = []
    for protocol, table, state in _TABLES:
        if protocol not in protocols:
            continue
        with contextlib.suppress(OSError), open(os.path.join(folder, table), encoding="ascii") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                address, _colon, port = fields[1].rpartition(":")
                if fields[3] == state:
                    found.append(Listener(protocol, address_of(address), int(port, 16), fields[9]))
    return found


def processes(inodes: t.Collection[str]) -> dict[str, str]:
    """Return the names of the processes that hold sockets, by the sockets' inodes."""
    found: dict[str, str] = {}
    for process in filter(str.isdigit, os.listdir("/proc") if inodes else ()):
        # It may end meanwhile, or belong to another user.
        with contextlib.suppress(OSError), open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
            name = file.read().strip()
            for descriptor in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    inode = os.readlink(f"/proc/{process}/fd/{descriptor}")[8:-1]
                    if inode in inodes:
                        # The first is the one that opened it.
                        found.setdefault(inode, name)
    return found


def _try_tcp(address: str, port: int, timeout: float) -> tuple[str, str]:
    with socket.create_connection((address, port), timeout=timeout) as connection:
        return "open", connection.getsockname()[0]


def _try_udp(address: str, port: int, timeout: float) -> tuple[str, str]:
    """Send empty datagrams: whoever has no such socket says so, unless a firewall drops them; most services ignore them."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.connect((address, port))
        source = sender.getsockname()[0]
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            sender.send(b"")
            if select.select([sender], [], [], min(_AGAIN, left))[0]:
                sender.recv(1)
                return "open", source
    return "silent", source


def reachable(targets: t.Collection[tuple[str, str, int]], timeout: float) -> dict[tuple[str, str, int], tuple[str, str]]:
    """Try all targets at once.

    Args:
        targets: each with its protocol (tcp or udp), address and port.
        timeout: seconds to wait for each.

    Returns:
        What came of each, and the address that it was tried from where that is known: ``open``, ``refused`` (the address answers, but
        nothing listens or a firewall rejects it), ``silent`` (datagrams were neither answered nor refused), or ``unreachable`` and why.
    """
    results: dict[tuple[str, str, int], tuple[str, str]] = {}

    def attempt(target: tuple[str, str, int]) -> None:
        protocol, address, port = target
        try:
            results[target] = (_try_tcp if protocol == "tcp" else _try_udp)(address, port, timeout)
        except ConnectionRefusedError:
            results[target] = ("refused", "")
        except (OSError, ValueError, OverflowError) as error:
            results[target] = (f"unreachable: {error}", "")

    threads = [threading.Thread(target=attempt, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout + 2)
    return {target: results.get(target, ("unreachable: timed out", "")) for target in targets}
