# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is open on hosts is found, distinguished from what is not, and compared with what is declared."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.action import fleet_exposure
from ansible_collections.slipway.stack.plugins.module_utils import listening, sockets
from ansible_collections.slipway.stack.plugins.plugin_utils import exposure
from conftest import ansible

LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def bound(kind: socket.SocketKind, address: str = LOOPBACK) -> Iterator[int]:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as own:
        own.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            own.listen()
        yield own.getsockname()[1]


@pytest.mark.parametrize(("kind", "protocol"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")])
@pytest.mark.parametrize("address", [LOOPBACK, "0.0.0.0", "::1", "::"])
def test_what_listens_is_listed_with_its_process(kind: socket.SocketKind, protocol: str, address: str):
    with bound(kind, address) as port:
        (found,) = [item for item in sockets.listeners() if item.port == port and item.protocol == protocol]
        assert found.address == address
        assert sockets.processes({found.inode}) == {found.inode: Path(f"/proc/{os.getpid()}/comm").read_text().strip()}
    assert port not in [item.port for item in sockets.listeners(protocols=[protocol])]


def test_a_connected_socket_does_not_listen():
    with bound(socket.SOCK_DGRAM) as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((LOOPBACK, port))
        assert client.getsockname()[1] not in [item.port for item in sockets.listeners()]


def test_an_open_port_is_distinguished_from_one_that_refuses():
    with bound(socket.SOCK_STREAM) as tcp, bound(socket.SOCK_DGRAM) as udp:
        wanted = {("tcp", LOOPBACK, tcp), ("udp", LOOPBACK, udp), ("tcp", LOOPBACK, 1), ("udp", LOOPBACK, 1), ("tcp", "missing.invalid", 1)}
        found = sockets.reachable(wanted, 0.3)
    assert found["tcp", LOOPBACK, tcp] == ("open", LOOPBACK)
    # It takes the datagram, and answers nothing.
    assert found["udp", LOOPBACK, udp] == ("silent", LOOPBACK)
    assert found["tcp", LOOPBACK, 1] == found["udp", LOOPBACK, 1] == ("refused", "")
    assert found["tcp", "missing.invalid", 1][0].startswith("unreachable: ")


def test_addresses_of_containers_and_of_this_host_alone_are_not_outward():
    interfaces = [
        {"ifname": name, "addr_info": [{"local": address} for address in addresses] + [{}]}
        for name, addresses in {
            "lo": ["127.0.0.1", "::1"],
            "eth0": ["10.0.0.5", "fe80::1", "2001:db8::5"],
            "docker0": ["172.17.0.1"],
            "br-0123456789ab": ["172.18.0.1"],
            "br0": ["10.0.1.5"],
            "veth12": ["fe80::2"],
            "wg0": ["10.8.0.5"],
        }.items()
    ]
    assert listening.outward_addresses([{}, *interfaces]) == ["10.0.0.5", "2001:db8::5", "10.0.1.5", "10.8.0.5"]


def test_ports_of_containers_are_those_that_they_publish():
    ports = [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 90, "PublicPort": 9090, "Type": "udp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]
    assert listening.of_containers([{"Names": ["/shop"], "Ports": ports}, {"Names": ["/none"], "Ports": None}]) == [
        {"protocol": "tcp", "address": "0.0.0.0", "port": 8080, "owner": "container shop"},
        {"protocol": "udp", "address": "0.0.0.0", "port": 9090, "owner": "container shop"},
    ]


def test_a_socket_of_the_proxy_is_not_listed_twice_and_that_of_another_address_is():
    published = [{"protocol": "tcp", "address": "10.0.0.1", "port": 8080, "owner": "container shop"}]
    proxy, other = (sockets.Listener("tcp", address, 8080, "1") for address in ("10.0.0.1", "10.0.0.2"))
    assert listening.without_proxies([proxy, other], published) == [other]


def test_a_host_that_fails_is_reported_and_the_others_are_compared(checkout: Path):
    (checkout / "inventories/test/hosts.yml").write_text(
        "all:\n  vars: {ansible_connection: local, app_version: '1.0', app_services: {}}\n"
        f"  children:\n    balancers: {{hosts: {{one: {{ansible_host: missing.invalid, ansible_python_interpreter: {sys.executable}}}}}}}\n"
        "    app: {hosts: {two: {ansible_python_interpreter: /nonexistent}}}\n    redis: {hosts: {three: }}\n"
    )
    (checkout / "playbooks/try.yml").write_text(
        "- ansible.builtin.import_playbook: plays/exposure.yml\n  vars: {__exposure_wanted: true}\n"
    )
    run = ansible("ansible-playbook", "-i", "inventories/test", "playbooks/try.yml", "--limit", "one,two", cwd=checkout)
    assert "two: was not read, so what is open there is unknown: " in run.stdout, run.stdout + run.stderr
    assert "Unknown: missing.invalid of one: the controller cannot resolve it" in run.stdout, run.stdout
    assert "three" not in run.stdout
    assert run.returncode


def port(number: int, address: str = "0.0.0.0", protocol: str = "tcp") -> dict[str, Any]:
    return {"protocol": protocol, "address": address, "port": number, "owner": f"process p{number}"}


def host(*ports: dict[str, Any], declared: Any = (), addresses: Any = ("10.0.0.1",)) -> exposure.Host:
    return exposure.Host(ports, addresses, [{"protocol": "tcp", **item} for item in declared])


def tried(
    hosts: dict[str, exposure.Host], result: str = "open", source: str = "10.0.0.9", control: str = "refused"
) -> list[dict[str, Any]]:
    """Return what one finds that comes to each port with the same result."""
    rows = []
    for target in exposure.targets(hosts):
        is_control = target["port"] == exposure.CONTROL_PORT
        rows.append({**target, "result": control if is_control else result, "source": source})
    return rows


@pytest.mark.parametrize(
    ("ports", "addresses", "expected"),
    [
        ([port(80)], ["10.0.0.1", "2001:db8::1"], [("tcp", "10.0.0.1", 80)]),
        ([port(80, "::")], ["10.0.0.1", "2001:db8::1"], [("tcp", "10.0.0.1", 80), ("tcp", "2001:db8::1", 80)]),
        ([port(80, "10.0.0.1")], ["10.0.0.1", "10.0.0.2"], [("tcp", "10.0.0.1", 80)]),
        # The gateway of a container network.
        ([port(80, "172.18.0.1")], ["10.0.0.1"], []),
        ([port(80), port(80, "::")], ["10.0.0.1"], [("tcp", "10.0.0.1", 80)]),
        ([port(53, protocol="udp")], ["10.0.0.1"], [("udp", "10.0.0.1", 53), ("udp", "10.0.0.1", 61999)]),
        ([port(61999, protocol="udp")], ["10.0.0.1"], [("udp", "10.0.0.1", 61999), ("udp", "10.0.0.1", 61998)]),
    ],
)
def test_each_port_is_tried_on_each_address_that_it_listens_on(ports: Any, addresses: list[str], expected: list[Any]):
    found = exposure.targets({"one": host(*ports, addresses=addresses)})
    controls = [("tcp", address, exposure.CONTROL_PORT) for address in dict.fromkeys(item[1] for item in expected if item[0] == "tcp")]
    assert sorted((target["protocol"], target["address"], target["port"]) for target in found) == sorted(expected + controls)


@pytest.mark.parametrize(
    ("declared", "source", "wrong"),
    [
        ([], "10.0.0.9", "and not declared"),
        ([{"port": 5432}], "10.0.0.9", ""),
        ([{"port": 5432, "address": "10.0.0.1"}], "10.0.0.9", ""),
        ([{"port": 5432, "address": "10.0.0.2"}], "10.0.0.9", "and not declared"),
        ([{"port": 5432, "protocol": "udp"}], "10.0.0.9", "and not declared"),
        ([{"port": 5432, "peers": ["10.0.0.9"]}], "10.0.0.9", ""),
        ([{"port": 5432, "peers": ["10.0.0.0/24"]}], "10.0.0.9", ""),
        ([{"port": 5432, "peers": []}], "10.0.0.9", "is meant for no host: "),
        ([{"port": 5432, "peers": ["10.0.0.8"]}], "10.0.0.9", "is meant for 10.0.0.8: run playbooks/site.yml"),
        # The host itself, where the controller is one of the hosts.
        ([], "10.0.0.1", ""),
    ],
)
def test_an_open_port_must_be_declared_for_whom_it_is_open(declared: Any, source: str, wrong: str):
    hosts = {"one": host(port(5432), declared=declared)}
    found = exposure.compare(hosts, {"two": tried(hosts, source=source), "three": tried(hosts, "refused")}).problems
    assert [problem["text"] for problem in found if wrong in problem["text"]] == [problem["text"] for problem in found]
    assert bool(found) is bool(wrong)


@pytest.mark.parametrize(
    ("result", "control", "expected"),
    [
        ("open", "silent", "is open on"),
        ("silent", "refused", "is open on"),
        # Rejected by a firewall, as firewalld does.
        ("silent", f"unreachable: [Errno 113] {os.strerror(errno.EHOSTUNREACH)}", "is open on"),
        ("silent", "silent", "so whether it is open to them is unknown: stop it,"),
        ("refused", "refused", ""),
    ],
)
def test_a_udp_port_is_open_if_it_behaves_otherwise_than_one_that_is_closed(result: str, control: str, expected: str):
    hosts = {"one": host(port(123, protocol="udp"), port(22), declared=[{"port": 22}])}
    rows = tried(hosts, result, control=control)
    for row in rows:
        row["result"] = "refused" if row["protocol"] == "tcp" else row["result"]
    found = exposure.compare(hosts, {"two": rows})
    assert found.unknown == []
    assert [expected in problem["text"] for problem in found.problems] == [True] * bool(expected)
    assert all("add {port: 123, protocol: udp} to slipway_open_ports" in problem["text"] for problem in found.problems)


@pytest.mark.parametrize("declared", [[], [{"port": 123, "protocol": "udp", "peers": ["10.0.0.8"]}]])
def test_a_udp_port_that_one_could_decide_and_another_could_not_is_unknown(declared: list[dict[str, Any]]):
    hosts = {"one": host(port(123, protocol="udp"), port(22), declared=[{"port": 22}, *declared])}
    silent = [{**row, "result": "refused" if row["protocol"] == "tcp" else "silent"} for row in tried(hosts)]
    found = exposure.compare(hosts, {"two": tried(hosts, "refused"), "stranger": silent})
    assert found.problems == []
    (unknown,) = found.unknown
    assert (unknown["host"], unknown["port"], unknown["addresses"], unknown["sources"]) == ("one", 123, ["10.0.0.1"], ["stranger"])
    assert [line["color"] for line in found.lines] == ["green", "yellow"]
    assert found.lines[1]["text"].startswith("Unknown: one: udp port 123 of process p123 on 10.0.0.1 neither answers nor refuses")


def test_a_udp_port_meant_for_peers_that_is_undecided_is_unknown():
    hosts = {
        "one": host(port(123, protocol="udp"), port(22), declared=[{"port": 22}, {"port": 123, "protocol": "udp", "peers": ["10.0.0.8"]}])
    }
    silent = [{**row, "result": "refused" if row["protocol"] == "tcp" else "silent"} for row in tried(hosts)]
    found = exposure.compare(hosts, {"two": silent})
    assert (found.problems, [item["sources"] for item in found.unknown]) == ([], [["two"]])


PUBLIC, PUBLIC_TOO, PUBLIC_V6 = "198.51.99.7", "198.51.99.8", "2a01:4f8::7"
TIMED_OUT = "unreachable: timed out"
NO_ROUTE = f"unreachable: [Errno 101] {exposure.NO_ROUTE}"


def through(hosts: dict[str, exposure.Host], results: dict[str, str], source: str = "192.168.9.9") -> list[dict[str, Any]]:
    """Return what one finds that reaches the addresses that are named, and has a time-out at all others; a control port refuses."""
    rows = []
    for target in exposure.targets(hosts):
        result = results.get(target["address"], TIMED_OUT)
        answers = result in {"open", "refused", "silent"}
        is_control = target["port"] == exposure.CONTROL_PORT
        rows.append({**target, "result": "refused" if answers and is_control else result, "source": source if result == "open" else ""})
    return rows


def test_ports_are_tried_at_the_public_address_that_nat_maps_to_a_host():
    declared = [{"port": 22}, {"port": 5432, "address": "10.0.0.5", "peers": ["10.0.0.9", "192.168.9.9"]}]
    ports = [port(22), port(6379), port(5432, "10.0.0.5"), port(8080, "172.18.0.1")]
    behind = exposure.Host(ports, ["10.0.0.5"], [{"protocol": "tcp", **item} for item in declared], named=[PUBLIC, "10.0.0.5"])
    hosts = {"one": behind}
    at_public = [target["port"] for target in exposure.targets(hosts) if target["address"] == PUBLIC]
    assert sorted(at_public) == [22, 5432, 6379, exposure.CONTROL_PORT]
    found = exposure.compare(hosts, {"the controller": through(hosts, {PUBLIC: "open"})})
    (problem,) = found.problems
    assert (problem["port"], problem["addresses"], problem["sources"]) == (6379, [PUBLIC], ["the controller"])
    (unknown,) = found.unknown
    assert unknown["text"] == "10.0.0.5 (one) could not be reached from the controller: closed to them, or out of their reach"


def test_an_address_that_leads_to_several_hosts_is_unknown():
    hosts = {
        "one": exposure.Host([port(22)], ["10.0.0.1"], [{"protocol": "tcp", "port": 22}], named=[PUBLIC]),
        "two": exposure.Host([port(22)], ["10.0.0.2"], [{"protocol": "tcp", "port": 22}], named=[PUBLIC], unresolved=["alias"]),
    }
    assert {target["address"] for target in exposure.targets(hosts)} == {"10.0.0.1", "10.0.0.2"}
    found = exposure.compare(hosts, {"the controller": through(hosts, {"10.0.0.1": "open", "10.0.0.2": "open"})})
    assert found.problems == []
    assert [item["text"] for item in found.unknown] == [
        f"{PUBLIC} leads to one, two: whose ports are open there is unknown",
        "alias of two: the controller cannot resolve it, so no port was tried there",
    ]


def fleet(*addresses: str) -> dict[str, exposure.Host]:
    declared = [{"protocol": "tcp", "port": 22}]
    return {
        name: exposure.Host([port(22, "::")], [f"10.0.0.{at}", *addresses[at : at + 1]], declared) for at, name in enumerate(("one", "two"))
    }


@pytest.mark.parametrize(
    ("answers", "problems"),
    [
        # A private address may be out of reach.
        ({PUBLIC: "open", PUBLIC_TOO: "open"}, {}),
        # Of public addresses, one answers, so the other one's firewall drops all.
        ({PUBLIC: "refused", "10.0.0.1": "open"}, {}),
        ({PUBLIC: "open"}, {}),
        ({"10.0.0.0": "open", "10.0.0.1": "open"}, {"one": [PUBLIC], "two": [PUBLIC_TOO]}),
        ({PUBLIC: "open", PUBLIC_TOO: NO_ROUTE}, {"two": ["10.0.0.1", PUBLIC_TOO]}),
        ({}, {"one": ["10.0.0.0", PUBLIC], "two": ["10.0.0.1", PUBLIC_TOO]}),
    ],
)
def test_each_host_and_its_public_addresses_must_answer_one_of_those_who_try(answers: dict[str, str], problems: dict[str, list[str]]):
    hosts = fleet(PUBLIC, PUBLIC_TOO)
    found = exposure.compare(hosts, {"the controller": through(hosts, answers)})
    assert {problem["host"]: problem["addresses"] for problem in found.problems} == problems
    assert all("could not be reached from the controller, so nothing is known" in problem["text"] for problem in found.problems)
    said = {address for item in found.unknown for address in item["addresses"]} | {item for own in problems.values() for item in own}
    reached = {address for address, result in answers.items() if result in {"open", "refused"}}
    assert said == {address for item in hosts.values() for address in item.addresses} - reached


def test_who_has_no_ipv6_knows_nothing_of_what_is_open_there():
    hosts = fleet("", PUBLIC_V6)
    hosts = {name: exposure.Host(known.ports, [*filter(None, known.addresses)], known.declared) for name, known in hosts.items()}
    answers = {"10.0.0.0": "open", "10.0.0.1": "open", PUBLIC_V6: NO_ROUTE}
    (problem,) = exposure.compare(hosts, {"the controller": through(hosts, answers), "one": through(hosts, answers)}).problems
    assert (problem["host"], problem["addresses"], problem["sources"]) == ("two", [PUBLIC_V6], ["the controller", "one"])
    # One that has it is enough; the others are named.
    found = exposure.compare(
        hosts, {"the controller": through(hosts, answers), "stranger": through(hosts, {**answers, PUBLIC_V6: "refused"})}
    )
    assert found.problems == []
    assert [(item["addresses"], item["sources"]) for item in found.unknown] == [([PUBLIC_V6], ["the controller"])]


def test_a_host_with_a_public_address_of_its_own_distinguishes_a_firewall_from_a_missing_route():
    hosts = fleet(PUBLIC, PUBLIC_TOO)
    found = exposure.compare(hosts, {name: through(hosts, {"10.0.0.0": "open", "10.0.0.1": "open"}) for name in hosts})
    assert found.problems == []
    assert [(item["addresses"], item["sources"]) for item in found.unknown] == [([PUBLIC], ["two"]), ([PUBLIC_TOO], ["one"])]


@pytest.mark.parametrize("own", [True, False])
def test_a_controller_that_is_the_only_host_proves_nothing(own: bool):
    hosts = {"one": host(port(22), declared=[{"port": 22}])}
    found = exposure.compare(hosts, {"the controller": tried(hosts, source="10.0.0.1" if own else "10.0.0.9")})
    expected = (
        "10.0.0.1 was tried from no other machine, so nothing is known of what is open there: run this from a machine that reaches it,"
    )
    assert [problem["text"].startswith(expected) for problem in found.problems] == [True] * own


def test_an_address_that_the_one_who_tries_has_itself_is_not_that_of_the_host():
    hosts = {name: host(port(9000), addresses=[f"10.0.0.{at}", "192.168.122.1"]) for at, name in enumerate(("one", "two"))}
    rows = through(hosts, {"10.0.0.0": "refused", "10.0.0.1": "refused"})
    rows = [{**row, "result": "open", "source": "192.168.122.1"} if row["address"] == "192.168.122.1" else row for row in rows]
    assert exposure.compare(hosts, {"two": rows, "one": rows}).problems == []


def test_a_run_that_tried_nothing_does_not_say_that_nothing_is_open():
    found = exposure.compare({}, {"the controller": [], "stranger": []})
    assert [problem["text"] for problem in found.problems] == ["no port was tried, so nothing is known: no host of this run listens on one"]


def test_names_are_resolved_and_those_that_have_no_address_have_none():
    assert fleet_exposure.resolved(["127.0.0.1", "localhost", "missing.invalid", "2001:db8::1"]) == {
        "127.0.0.1": ["127.0.0.1"],
        "localhost": fleet_exposure.resolved(["localhost"])["localhost"],
        "missing.invalid": [],
        "2001:db8::1": ["2001:db8::1"],
    }


def test_a_proxy_that_accepts_every_connection_proves_nothing():
    hosts = {"one": host(port(5432), port(53, protocol="udp"), declared=[{"port": 53, "protocol": "udp"}])}
    (problem,) = exposure.compare(hosts, {"the controller": tried(hosts, control="open"), "two": tried(hosts, "refused")}).problems
    assert problem["host"] == "the controller"
    assert problem["text"].startswith("a proxy on the way to 10.0.0.1 accepts every connection, so which ports")


def test_one_port_is_one_problem_that_names_the_process_all_addresses_and_all_who_reach_it():
    hosts = {"one": host(port(9000, "::"), addresses=["10.0.0.1", "2001:db8::1"])}
    (problem,) = exposure.compare(hosts, {"two": tried(hosts), "the controller": tried(hosts, source="192.0.2.1")}).problems
    assert problem["text"] == (
        "tcp port 9000 of process p9000 is open on 10.0.0.1, 2001:db8::1 to two, the controller, and not declared: "
        "stop it, let it listen on 127.0.0.1, or add {port: 9000} to slipway_open_ports"
    )


def test_what_was_not_looked_at_is_a_problem():
    hosts = {"one": exposure.Host(None, error="no engine"), "two": host(port(22), declared=[{"port": 22}])}
    offline = tried(hosts, NO_ROUTE, control=NO_ROUTE)
    found = exposure.compare(hosts, {"one": None, "stranger": None, "the controller": tried(hosts), "offline": offline})
    assert [problem["host"] for problem in found.problems] == ["one", "stranger", "offline"]
    assert found.problems[0]["text"].endswith("unknown: no engine")
    assert [line["color"] for line in found.lines] == ["red"] * 3
