# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is open on hosts is found, distinguished from what is not, and compared with what is declared."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils import sockets
from ansible_collections.slipway.stack.plugins.modules import listening_ports
from ansible_collections.slipway.stack.plugins.plugin_utils import exposure
from conftest import ansible

LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def listening(kind: socket.SocketKind, address: str = LOOPBACK) -> Iterator[int]:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as own:
        own.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            own.listen()
        yield own.getsockname()[1]


@pytest.mark.parametrize(("kind", "protocol"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")])
@pytest.mark.parametrize("address", [LOOPBACK, "0.0.0.0", "::1", "::"])
def test_what_listens_is_listed_with_its_process(kind: socket.SocketKind, protocol: str, address: str):
    with listening(kind, address) as port:
        (found,) = [item for item in sockets.listeners() if item.port == port and item.protocol == protocol]
        assert found.address == address
        assert sockets.processes({found.inode}) == {found.inode: Path(f"/proc/{os.getpid()}/comm").read_text().strip()}
    assert port not in [item.port for item in sockets.listeners(protocols=[protocol])]


def test_a_connected_socket_does_not_listen():
    with listening(socket.SOCK_DGRAM) as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((LOOPBACK, port))
        assert client.getsockname()[1] not in [item.port for item in sockets.listeners()]


def test_an_open_port_is_distinguished_from_one_that_refuses():
    with listening(socket.SOCK_STREAM) as tcp, listening(socket.SOCK_DGRAM) as udp:
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
    assert listening_ports.outward_addresses([{}, *interfaces]) == ["10.0.0.5", "2001:db8::5", "10.0.1.5", "10.8.0.5"]


def test_ports_of_containers_are_those_that_they_publish():
    ports = [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 90, "PublicPort": 9090, "Type": "udp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]
    assert listening_ports.of_containers([{"Names": ["/shop"], "Ports": ports}, {"Names": ["/none"], "Ports": None}]) == [
        {"protocol": "tcp", "address": "0.0.0.0", "port": 8080, "owner": "container shop"},
        {"protocol": "udp", "address": "0.0.0.0", "port": 9090, "owner": "container shop"},
    ]


def test_a_socket_of_the_proxy_is_not_listed_twice_and_that_of_another_address_is():
    published = [{"protocol": "tcp", "address": "10.0.0.1", "port": 8080, "owner": "container shop"}]
    proxy, other = (sockets.Listener("tcp", address, 8080, "1") for address in ("10.0.0.1", "10.0.0.2"))
    assert listening_ports.without_proxies([proxy, other], published) == [other]


def test_a_host_that_fails_is_reported_and_the_others_are_compared(checkout: Path):
    (checkout / "inventories/test/hosts.yml").write_text(
        "all:\n  vars: {ansible_connection: local, app_version: '1.0', app_services: {}}\n"
        f"  children:\n    balancers: {{hosts: {{one: {{ansible_python_interpreter: {sys.executable}}}}}}}\n"
        "    app: {hosts: {two: {ansible_python_interpreter: /nonexistent}}}\n    redis: {hosts: {three: }}\n"
    )
    (checkout / "playbooks/try.yml").write_text(
        "- ansible.builtin.import_playbook: plays/exposure.yml\n  vars: {__exposure_wanted: true}\n"
    )
    run = ansible("ansible-playbook", "-i", "inventories/test", "playbooks/try.yml", "--limit", "one,two", cwd=checkout)
    assert "two: was not read, so what is open there is unknown: " in run.stdout, run.stdout + run.stderr
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
        ([{"port": 5432, "peers": ["10.0.0.8"]}], "10.0.0.9", "is meant for 10.0.0.8: run playbooks/site.yml"),
        # The host itself, where the controller is one of the hosts.
        ([], "10.0.0.1", ""),
    ],
)
def test_an_open_port_must_be_declared_for_whom_it_is_open(declared: Any, source: str, wrong: str):
    hosts = {"one": host(port(5432), declared=declared)}
    found = exposure.problems(hosts, {"two": tried(hosts, source=source)})
    assert [problem["text"] for problem in found if wrong in problem["text"]] == [problem["text"] for problem in found]
    assert bool(found) is bool(wrong)


@pytest.mark.parametrize(
    ("result", "control", "wrong"),
    [("open", "silent", True), ("silent", "refused", True), ("silent", "silent", False), ("refused", "refused", False)],
)
def test_a_udp_port_is_open_if_it_behaves_otherwise_than_one_that_is_closed(result: str, control: str, wrong: bool):
    hosts = {"one": host(port(123, protocol="udp"))}
    found = exposure.problems(hosts, {"two": tried(hosts, result, control=control)})
    assert bool(found) is wrong
    if wrong:
        assert "add {port: 123, protocol: udp} to slipway_open_ports" in found[0]["text"]


def test_a_proxy_that_accepts_every_connection_proves_nothing():
    hosts = {"one": host(port(5432), port(53, protocol="udp"), declared=[{"port": 53, "protocol": "udp"}])}
    (problem,) = exposure.problems(hosts, {"the controller": tried(hosts, control="open"), "two": tried(hosts, "refused")})
    assert problem["host"] == "the controller"
    assert problem["text"].startswith("a proxy on the way to 10.0.0.1 accepts every connection, so which ports")


def test_one_port_is_one_problem_that_names_the_process_all_addresses_and_all_who_reach_it():
    hosts = {"one": host(port(9000, "::"), addresses=["10.0.0.1", "2001:db8::1"])}
    (problem,) = exposure.problems(hosts, {"two": tried(hosts), "the controller": tried(hosts, source="192.0.2.1")})
    assert problem["text"] == (
        "tcp port 9000 of process p9000 is open on 10.0.0.1, 2001:db8::1 to two, the controller, and not declared: "
        "stop it, let it listen on 127.0.0.1, or add {port: 9000} to slipway_open_ports"
    )


def test_what_was_not_looked_at_is_a_problem():
    hosts = {"one": exposure.Host(None, error="no engine"), "two": host(port(22), declared=[{"port": 22}])}
    no_route = f"unreachable: [Errno 101] {exposure.NO_ROUTE}"
    offline = tried(hosts, no_route, control=no_route)
    found = exposure.problems(hosts, {"one": None, "stranger": None, "the controller": tried(hosts), "offline": offline})
    assert [problem["host"] for problem in found] == ["one", "stranger", "offline"]
    assert found[0]["text"].endswith("unknown: no engine")
    assert exposure.lines(found, {})[0]["color"] == "red"
