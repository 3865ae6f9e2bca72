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

from ansible_collections.slipway.stack.plugins.module_utils import sockets

#: A datagram without an answer has reached a service, or was dropped by a firewall, and a proxy on the way may accept all connections. A
#: port on which nothing listens shows which: this one, or the next below that is free.
CONTROL_PORT = 61999
#: What came of a try, as sockets.reachable says it.
OPEN, SILENT, REFUSED = "open", "silent", "refused"
#: What a result says of a port; a datagram without an answer may leave it undecided.
CLOSED, UNDECIDED = "closed", "undecided"
#: In what it says of an address that the one who tries has no route to: that no firewall brings about.
NO_ROUTE = os.strerror(errno.ENETUNREACH)
#: In what it says where a firewall rejects a datagram in another way than a host on which nothing listens.
REJECTIONS = os.strerror(errno.EHOSTUNREACH), os.strerror(errno.EACCES)
#: The one who tries and is neither a host of the stack nor one of the group external_probes.
CONTROLLER = "the controller"

Port = Mapping[str, t.Any]


@dataclass(frozen=True)
class Host:
    """What is known of a host of the stack.

    Attributes:
        ports: What listens there, as listening_ports says it; None if it was not read.
        addresses: Those of its interfaces that others may reach.
        declared: What may be open, as the topology says it.
        error: Why it was not read, or "" where that is not known.
        named: Addresses at which the inventory says that it is reached. NAT may map one to the host, so that no interface has it.
        unresolved: Names at which the inventory says that it is reached, and that lead the controller to no address.
    """

    ports: Sequence[Port] | None
    addresses: Sequence[str] = ()
    declared: Sequence[Port] = field(default_factory=list)
    error: str = ""
    named: Sequence[str] = ()
    unresolved: Sequence[str] = ()


class Findings(t.NamedTuple):
    """What came of all tries.

    Attributes:
        problems: What is open and not declared, or could not be looked at, each with ``host`` and ``text``; of ports also ``protocol``,
            ``port``, ``addresses``, ``owner``, and who has found it (``sources``).
        unknown: What is not known to be closed, and not a problem either, each with ``text``, ``addresses`` and ``sources``; of ports also
            what problems of ports have.
        lines: The same for a terminal, each with its ``text`` and ``color``.
    """

    problems: list[dict[str, t.Any]]
    unknown: list[dict[str, t.Any]]
    lines: list[dict[str, str]]


def _leads_to(host: Host, address: str, bound: str) -> bool:
    """Return whether what comes to an address of a host, or to one that NAT maps to it, arrives at what is bound to an address."""
    # To which of its addresses NAT maps one, only NAT knows.
    return sockets.leads_to(address, bound) or (address not in host.addresses and bound in host.addresses)


def control_port(ports: Iterable[Port], protocol: str) -> int:
    """Return a port on which nothing listens."""
    taken = {port["port"] for port in ports if port["protocol"] == protocol}
    return next(number for number in range(CONTROL_PORT, 0, -1) if number not in taken)


def _owners(hosts: Mapping[str, Host]) -> dict[str, list[str]]:
    """Return by address the hosts that have it, or are reached at it."""
    found: dict[str, list[str]] = {}
    for name, host in hosts.items():
        for address in dict.fromkeys((*host.addresses, *host.named)):
            found.setdefault(address, []).append(name)
    return found


def targets(hosts: Mapping[str, Host]) -> list[dict[str, t.Any]]:
    """Return what to try from everywhere: each listening port on each address of its host, and for each protocol of them a control port.

    Returns:
        Each with ``host``, ``protocol``, ``address`` and ``port``.
    """
    found = []
    owners = _owners(hosts)
    for name, host in hosts.items():
        ports = host.ports or []
        mapped = [address for address in host.named if owners[address] == [name]]
        for address in dict.fromkeys((*host.addresses, *mapped)):
            numbers = dict.fromkeys((port["protocol"], port["port"]) for port in ports if _leads_to(host, address, port["address"]))
            for protocol in dict.fromkeys(protocol for protocol, _number in numbers):
                numbers[protocol, control_port(ports, protocol)] = None
            found += [{"host": name, "protocol": protocol, "address": address, "port": number} for protocol, number in numbers]
    return found


def verdict(protocol: str, result: str, control: str) -> str:
    """Return whether a port is open, closed or undecided to one that tried it.

    Args:
        protocol: tcp or udp.
        result: What came of the try.
        control: What came of that of a port of the same address on which nothing listens.
    """
    if protocol == "tcp":
        return OPEN if result == OPEN and control != OPEN else CLOSED
    if result == SILENT:
        return OPEN if control == REFUSED or control.endswith(REJECTIONS) else UNDECIDED
    return OPEN if result == OPEN else CLOSED


class Tries:
    """What one has found that tried the ports of the hosts.

    Attributes:
        source: Who tried.
        targets: What it tried of others; a controller may be one of the hosts.
        addresses: Of these the hosts and their addresses.
        reached: Of these those that have answered or refused anything.
    """

    def __init__(self, source: str, hosts: Mapping[str, Host], rows: Iterable[Port]) -> None:
        """Take what reachable_ports says."""
        self.source = source
        self._rows = {(row["protocol"], row["address"], row["port"]): row for row in rows}
        tried = [target for target in targets(hosts) if target["host"] != source]
        own = {_place(target) for target in tried if self.origin(target) in (target["address"], *hosts[target["host"]].addresses)}
        self.targets = [target for target in tried if _place(target) not in own]
        self.addresses = list(dict.fromkeys(map(_place, self.targets)))
        self.reached = {_place(target) for target in self.targets if self.result(target) in (OPEN, REFUSED)}
        self._no_route = {_place(target) for target in self.targets if NO_ROUTE in self.result(target)}
        public = [*(hosts[source].addresses if source in hosts else ()), *(address for _host, address in self.reached)]
        self._families = {_family(address) for address in public if _is_public(address)}

    def result(self, target: Port, port: int = 0) -> str:
        """Return what came of a try, or of that of another port of the same address and protocol."""
        return str(self._row(target, port).get("result", ""))

    def origin(self, target: Port) -> str:
        """Return the address that a port was tried from, or "" where that is not known."""
        return str(self._row(target).get("source", ""))

    def knows(self, place: tuple[str, str]) -> bool:
        """Return whether its results prove something of an address.

        It has answered, or it is public, and so is an address that has answered, or one of the host that tries: then a firewall drops
        what comes to it. A try of another address may have ended on its way.
        """
        _host, address = place
        return place in self.reached or (_is_public(address) and _family(address) in self._families and place not in self._no_route)

    def _row(self, target: Port, port: int = 0) -> Port:
        return self._rows.get((target["protocol"], target["address"], port or target["port"]), {})


def _place(target: Port) -> tuple[str, str]:
    return target["host"], target["address"]


def _family(address: str) -> int:
    return ipaddress.ip_address(address).version


def _is_public(address: str) -> bool:
    return ipaddress.ip_address(address).is_global


def _admits(declared: Port, source: str) -> bool:
    """Return whether a declared port is meant for an address."""
    if "peers" not in declared:
        return True
    networks = [ipaddress.ip_network(peer, strict=False) for peer in declared["peers"]]
    return bool(source) and any(ipaddress.ip_address(source) in network for network in networks)


def compare(hosts: Mapping[str, Host], tried: Mapping[str, Sequence[Port] | None]) -> Findings:
    """Compare what is open with what is declared, and with what could be looked at.

    Args:
        hosts: The hosts of the stack.
        tried: By who tried, what came of each, as reachable_ports says it; None for one that could not try.
    """
    views = [Tries(source, hosts, rows) for source, rows in tried.items() if rows is not None]
    useless = [view for view in views if view.source not in (*hosts, CONTROLLER) and view.targets and not view.reached]
    views = [view for view in views if view not in useless]
    blind, unreached = _unreached(hosts, views)
    found, undecided = _open_ports(hosts, views)
    problems = [
        *(
            {"host": name, "text": f"was not read, so what is open there is unknown{': ' * bool(host.error)}{host.error}"}
            for name, host in hosts.items()
            if host.ports is None
        ),
        *(
            {"host": name, "text": "could not try the ports of the others"}
            for name, rows in tried.items()
            if rows is None and not (name in hosts and hosts[name].ports is None)
        ),
        *(
            {"host": view.source, "text": f"reached no other host, so it proves nothing: {view.result(view.targets[0])}"}
            for view in useless
        ),
        *blind,
        *(problem for view in views for problem in _proxies(hosts, view)),
        *found,
    ]
    unknown = [*_not_tried(hosts), *unreached, *undecided]
    counts = {view.source: sum(map(view.knows, map(_place, view.targets))) for view in views}
    if not problems and not any(counts.values()):
        problems = [{"host": CONTROLLER, "text": "no port was tried, so nothing is known: no host of this run listens on one"}]
    return Findings(problems, unknown, _lines(problems, unknown, counts))


def _not_tried(hosts: Mapping[str, Host]) -> list[dict[str, t.Any]]:
    """Return the addresses and names in the inventory at which no port was tried."""
    shared = {address: names for address, names in _owners(hosts).items() if len(names) > 1}
    named = {address for host in hosts.values() for address in host.named}
    return [
        {"text": f"{address} leads to {', '.join(names)}: whose ports are open there is unknown", "addresses": [address], "sources": []}
        for address, names in shared.items()
        if address in named and not all(address in hosts[name].addresses for name in names)
    ] + [
        {"text": f"{name} of {host}: the controller cannot resolve it, so no port was tried there", "addresses": [name], "sources": []}
        for host, known in hosts.items()
        for name in known.unresolved
    ]


def _unreached(hosts: Mapping[str, Host], views: Sequence[Tries]) -> tuple[list[dict[str, t.Any]], list[dict[str, t.Any]]]:
    """Return the addresses of which no view knows anything, by host; and the others, by those who got neither an answer nor a refusal."""
    aimed = dict.fromkeys(_place(target) for target in targets(hosts))
    known = {place for view in views for place in view.addresses if view.knows(place)}
    silent = {place: [view.source for view in views if place in view.addresses and place not in view.reached] for place in aimed}
    problems = []
    for name in hosts:
        own = [place for place in aimed if place[0] == name]
        # A private address may be out of reach, as long as another one of the host is not.
        blind = [place for place in own if place not in known and (_is_public(place[1]) or known.isdisjoint(own))]
        if not blind:
            continue
        addresses = [address for _host, address in blind]
        sources = list(dict.fromkeys(source for place in blind for source in silent.pop(place)))
        what = f"could not be reached from {', '.join(sources)}" if sources else "was tried from no other machine"
        remedy = "run this from a machine that reaches it, or add one to the group external_probes"
        text = f"{', '.join(addresses)} {what}, so nothing is known of what is open there: {remedy}"
        problems.append({"host": name, "text": text, "addresses": addresses, "sources": sources})
    groups: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for place, sources in silent.items():
        groups.setdefault(tuple(sources), []).append(place)
    unknown = []
    for by, places in groups.items():
        where = ", ".join(f"{address} ({name})" for name, address in places)
        text = f"{where} could not be reached from {', '.join(by)}: closed to them, or out of their reach"
        unknown += [{"text": text, "addresses": [address for _host, address in places], "sources": list(by)}] if by else []
    return problems, unknown


def _proxies(hosts: Mapping[str, Host], view: Tries) -> list[dict[str, t.Any]]:
    """Return what hides all ports from one that tried."""
    proxied = [
        target["address"]
        for target in view.targets
        if target["protocol"] == "tcp" and target["port"] == control_port(hosts[target["host"]].ports or [], "tcp")
        if view.result(target) == OPEN
    ]
    if not proxied:
        return []
    where = f"a proxy on the way to {', '.join(proxied)} accepts every connection"
    return [{"host": view.source, "text": f"{where}, so which ports are open there is unknown: run this from a machine without one"}]


def _open_ports(hosts: Mapping[str, Host], views: Sequence[Tries]) -> tuple[list[dict[str, t.Any]], list[dict[str, t.Any]]]:
    """Return the ports that are open and not declared for whom they are, or undecided by all; and those that are undecided by some."""
    found: dict[tuple[t.Any, ...], dict[str, t.Any]] = {}
    decided = set()
    for view in views:
        for target in view.targets:
            name, protocol, address, number = (target[key] for key in ("host", "protocol", "address", "port"))
            host = hosts[name]
            control = control_port(host.ports or [], protocol)
            if number == control or not view.knows(_place(target)):
                continue
            said = verdict(protocol, view.result(target), view.result(target, control))
            if said != UNDECIDED:
                decided.add((name, protocol, number))
            declared = [port for port in _of(host.declared, target) if _leads_to(host, address, port.get("address") or "")]
            if said == CLOSED or any(_admits(port, view.origin(target)) for port in declared):
                continue
            owner = next(port["owner"] for port in _of(host.ports or [], target) if _leads_to(host, address, port["address"]))
            problem = found.setdefault(
                (name, protocol, number, said, bool(declared)),
                {"host": name, "protocol": protocol, "port": number, "owner": owner, "addresses": [], "sources": []},
            )
            for key, value in (("addresses", address), ("sources", view.source)):
                problem[key] += [value] if value not in problem[key] else []
            problem["text"] = _text(problem, declared, said)
    unknown = [
        problem for (*port, said, is_declared), problem in found.items() if said == UNDECIDED and (is_declared or tuple(port) in decided)
    ]
    return [problem for problem in found.values() if problem not in unknown], unknown


def _of(ports: Iterable[Port], target: Port) -> list[Port]:
    return [port for port in ports if (port["protocol"], port["port"]) == (target["protocol"], target["port"])]


def _text(problem: Mapping[str, t.Any], declared: Sequence[Port], said: str) -> str:
    """Say what is wrong with a port that is open or undecided, and the remedy."""
    port, where, by = (
        f"{problem['protocol']} port {problem['port']} of {problem['owner']}",
        ", ".join(problem["addresses"]),
        ", ".join(problem["sources"]),
    )
    entry = f"{{port: {problem['port']}{', protocol: udp' if problem['protocol'] == 'udp' else ''}}}"
    remedy = f"stop it, let it listen on 127.0.0.1, or add {entry} to slipway_open_ports"
    if said == UNDECIDED:
        undecided = f"{port} on {where} neither answers nor refuses datagrams from {by}, so whether it is open to them is unknown"
        return undecided if declared else f"{undecided}: {remedy}"
    if declared:
        peers = ", ".join(dict.fromkeys(str(peer) for port in declared for peer in port.get("peers", ()))) or "no host"
        return f"{port} is open on {where} to {by}, but is meant for {peers}: run playbooks/site.yml, which loads the firewall's rules"
    return f"{port} is open on {where} to {by}, and not declared: {remedy}"


def _lines(
    problems: Sequence[Mapping[str, t.Any]], unknown: Sequence[Mapping[str, t.Any]], counts: Mapping[str, int]
) -> list[dict[str, str]]:
    """Return what a terminal shows."""
    found = [{"text": f"{problem['host']}: {problem['text']}", "color": "red"} for problem in problems]
    if not problems:
        text = f"No port was found open that is not declared: {sum(counts.values())} tries from {', '.join(filter(counts.get, counts))}"
        found = [{"text": text, "color": "green"}]
    return found + [
        {"text": f"Unknown: {item['host'] + ': ' if 'host' in item else ''}{item['text']}", "color": "yellow"} for item in unknown
    ]
