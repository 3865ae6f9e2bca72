# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what is open on hosts, as others find it, with what is declared. Pure functions; docs/operate.md describes the checks."""

from __future__ import annotations

import errno
import ipaddress
import os
import typing as t
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

#: A datagram without an answer has reached a service, or was dropped by a firewall, and a proxy on the way may accept all connections. A
#: port on which nothing listens shows which: this one, or the next below that is free.
CONTROL_PORT = 61999
#: What came of a try, as sockets.reachable says it.
OPEN, SILENT, REFUSED = "open", "silent", "refused"
#: In what it says of an address that the one who tries has no route to: that no firewall brings about.
NO_ROUTE = os.strerror(errno.ENETUNREACH)

Port = Mapping[str, t.Any]


@dataclass(frozen=True)
class Host:
    """What is known of a host of the stack.

    Attributes:
        ports: What listens there, as listening_ports says it; None if it was not read.
        addresses: Its addresses that others may reach.
        declared: What may be open, as the topology says it.
        error: Why it was not read, or "" where that is not known.
    """

    ports: Sequence[Port] | None
    addresses: Sequence[str] = ()
    declared: Sequence[Port] = field(default_factory=list)
    error: str = ""


def _on(port: Port, address: str) -> bool:
    """Return whether something that listens is meant on an address."""
    if port["address"] == "::":
        return True
    return port["address"] == address or (port["address"] == "0.0.0.0" and ":" not in address)  # noqa: S104 - compared with, not bound to


def control_port(ports: Iterable[Port], protocol: str) -> int:
    """Return a port on which nothing listens."""
    taken = {port["port"] for port in ports if port["protocol"] == protocol}
    return next(number for number in range(CONTROL_PORT, 0, -1) if number not in taken)


def targets(hosts: Mapping[str, Host]) -> list[dict[str, t.Any]]:
    """Return what to try from everywhere: each listening port on each address of its host, and for each protocol of them a control port.

    Returns:
        Each with ``host``, ``protocol``, ``address`` and ``port``.
    """
    found = []
    for name, host in hosts.items():
        ports = host.ports or []
        for address in host.addresses:
            numbers = dict.fromkeys((port["protocol"], port["port"]) for port in ports if _on(port, address))
            for protocol in dict.fromkeys(protocol for protocol, _number in numbers):
                numbers[protocol, control_port(ports, protocol)] = None
            found += [{"host": name, "protocol": protocol, "address": address, "port": number} for protocol, number in numbers]
    return found


def is_open(target: Port, results: Mapping[tuple[str, str, int], str], control: int) -> bool:
    """Return whether a port was found open by one that tried all of them.

    Args:
        target: The port.
        results: What came of each try, by protocol, address and port.
        control: The port of its host and protocol on which nothing listens.
    """
    result, of_control = (results.get((target["protocol"], target["address"], port), "") for port in (target["port"], control))
    return (result == OPEN and (of_control != OPEN or target["protocol"] == "udp")) or (result == SILENT and of_control == REFUSED)


def _admits(declared: Port, source: str) -> bool:
    """Return whether a declared port is meant for an address."""
    if "peers" not in declared:
        return True
    networks = [ipaddress.ip_network(peer, strict=False) for peer in declared["peers"]]
    return bool(source) and any(ipaddress.ip_address(source) in network for network in networks)


def problems(hosts: Mapping[str, Host], tried: Mapping[str, Sequence[Port] | None]) -> list[dict[str, t.Any]]:
    """Return what is open and not declared, or not for whom it was found open; and what was not looked at.

    Args:
        hosts: The hosts of the stack.
        tried: By who tried, what came of each, as reachable_ports says it; None for one that could not try.

    Returns:
        Each with ``host`` and ``text``; of ports also ``protocol``, ``port``, ``addresses``, ``owner``, and who has found it (``sources``).
    """
    found: dict[tuple[t.Any, ...], dict[str, t.Any]] = {}
    unread = [
        {"host": name, "text": f"was not read, so what is open there is unknown{': ' * bool(host.error)}{host.error}"}
        for name, host in hosts.items()
        if host.ports is None
    ]
    unread += [
        {"host": name, "text": "could not try the ports of the others"}
        for name, results in tried.items()
        if results is None and not (name in hosts and hosts[name].ports is None)
    ]
    unread += [
        {"host": name, "text": f"has no route to any other host, so it proves nothing: {results[0]['result']}"}
        for name, results in tried.items()
        if results and all(NO_ROUTE in row["result"] for row in results)
    ]
    for source, rows in tried.items():
        results = {(row["protocol"], row["address"], row["port"]): row["result"] for row in rows or []}
        sources = {(row["protocol"], row["address"], row["port"]): row["source"] for row in rows or []}
        proxied = []
        for target in targets(hosts) if rows else []:
            name, protocol, address, number = (target[key] for key in ("host", "protocol", "address", "port"))
            host = hosts[name]
            control = control_port(host.ports or [], protocol)
            if number == control:
                proxied += [address] if protocol == "tcp" and results.get((protocol, address, number)) == OPEN else []
                continue
            if not is_open(target, results, control):
                continue
            # A controller may be one of the hosts.
            if sources[protocol, address, number] in host.addresses:
                continue
            declared = [
                port
                for port in host.declared
                if (port["protocol"], port["port"]) == (protocol, number) and port.get("address") in (None, "", address)
            ]
            if any(_admits(port, sources[protocol, address, number]) for port in declared):
                continue
            listening = next(
                port for port in host.ports or [] if (port["protocol"], port["port"]) == (protocol, number) and _on(port, address)
            )
            problem = found.setdefault(
                (name, protocol, number, bool(declared)),
                {"host": name, "protocol": protocol, "port": number, "owner": listening["owner"], "addresses": [], "sources": []},
            )
            for key, value in (("addresses", address), ("sources", source)):
                problem[key] += [value] if value not in problem[key] else []
            problem["text"] = _text(problem, declared)
        if proxied:
            where = f"a proxy on the way to {', '.join(proxied)} accepts every connection"
            unread.append(
                {"host": source, "text": f"{where}, so which ports are open there is unknown: run this from a machine without one"}
            )
    return unread + list(found.values())


def _text(problem: Mapping[str, t.Any], declared: Sequence[Port]) -> str:
    """Say what is wrong with an open port, and the remedy."""
    where = f"{problem['protocol']} port {problem['port']} of {problem['owner']} is open on {', '.join(problem['addresses'])}"
    by = f"to {', '.join(problem['sources'])}"
    if declared:
        peers = ", ".join(dict.fromkeys(str(peer) for port in declared for peer in port.get("peers", ())))
        return f"{where} {by}, but is meant for {peers}: run playbooks/site.yml, which loads the firewall's rules"
    entry = f"{{port: {problem['port']}{', protocol: udp' if problem['protocol'] == 'udp' else ''}}}"
    return f"{where} {by}, and not declared: stop it, let it listen on 127.0.0.1, or add {entry} to slipway_open_ports"


def lines(found: Sequence[Mapping[str, t.Any]], tried: Mapping[str, Sequence[Port] | None]) -> list[dict[str, str]]:
    """Return what a terminal shows, each line with its ``text`` and ``color``."""
    if found:
        return [{"text": f"{problem['host']}: {problem['text']}", "color": "red"} for problem in found]
    count = sum(len(rows or []) for rows in tried.values())
    return [{"text": f"No port is open that is not declared: {count} tries from {', '.join(tried)}", "color": "green"}]
