# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host knows which of its ports are not declared, by the rules of exposure.yml."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import listeners
from ansible_collections.slipway.stack.plugins.module_utils import sockets
from ansible_collections.slipway.stack.plugins.plugin_utils import exposure
from conftest import ROOT, role_variable

OWN = ["10.0.0.1", "192.0.2.1", "2001:db8::1"]


def declared(port: int, address: str = "", protocol: str = "tcp") -> dict[str, Any]:
    return {"protocol": protocol, "port": port, "address": address}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[sockets.Listener]:
    """Sockets of processes of a host, to be filled."""
    found: list[sockets.Listener] = []
    monkeypatch.setattr(sockets, "listeners", lambda: found)
    monkeypatch.setattr(sockets, "processes", lambda inodes: {inode: f"p{inode}" for inode in inodes if inode != "0"})
    monkeypatch.setattr(listeners, "addresses", lambda: OWN)
    return found


def measured(meant: list[dict[str, Any]], containers: list[dict[str, Any]] | None = None) -> list[tuple[str, str, str]]:
    """Return protocol, port and owner of each sample."""
    text = listeners.texts("shop", meant, containers or [])["listeners.prom"]
    pattern = re.compile(r'slipway_undeclared_port\{stack="shop",protocol="(\w+)",port="(\d+)",owner="(.*)"\} 1')
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples))
    return [match.groups() for match in map(pattern.fullmatch, samples) if match]  # type: ignore[misc]


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "10.0.0.1", "2001:db8::1", "172.18.0.1"])
@pytest.mark.parametrize(
    "meant",
    [
        [],
        [declared(9000)],
        [declared(9000, protocol="udp")],
        [declared(9001)],
        [declared(9000, "10.0.0.1")],
        [declared(9000, "2001:db8::1")],
        [declared(9000, "10.0.0.1"), declared(9000, "192.0.2.1")],
        [declared(9000, "0.0.0.0")],
    ],
)
def test_what_is_undeclared_here_is_a_problem_of_exposure_where_all_can_be_reached(bound: str, meant: list[dict[str, Any]]):
    port = {"protocol": "tcp", "address": bound, "port": 9000, "owner": "process p1"}
    host = exposure.Host([port], OWN, meant)
    tried = [
        {**target, "result": "refused" if target["port"] == exposure.CONTROL_PORT else "open", "source": "10.0.0.9"}
        for target in exposure.targets({"one": host})
    ]
    problems = [item for item in exposure.compare({"one": host}, {"two": tried}).problems if item.get("port") == 9000]
    assert listeners.is_undeclared(port, OWN, meant) == bool(problems)


def test_a_port_is_measured_once_with_its_process_and_none_that_is_declared_or_of_this_host_alone(opened: list[sockets.Listener]):
    opened += [
        sockets.Listener("tcp", "0.0.0.0", 9000, "1"),
        sockets.Listener("tcp", "::", 9000, "1"),
        sockets.Listener("tcp", "0.0.0.0", 22, "2"),
        sockets.Listener("tcp", "127.0.0.1", 9001, "3"),
        # The gateway of a container network.
        sockets.Listener("tcp", "172.18.0.1", 9002, "4"),
        # Of the kernel.
        sockets.Listener("udp", "0.0.0.0", 111, "0"),
    ]
    assert measured([declared(22)]) == [("tcp", "9000", "process p1"), ("udp", "111", "an unknown process")]
    assert measured([declared(22), declared(9000), declared(111, protocol="udp")]) == []


def test_a_container_of_anybody_is_measured_with_its_name_and_without_a_socket(opened: list[sockets.Listener]):
    ports = [{"IP": "0.0.0.0", "PrivatePort": 6379, "PublicPort": 6379, "Type": "tcp"}, {"PrivatePort": 80, "Type": "tcp"}]
    redis = [{"Names": ["/tmp-redis"], "Ports": ports}]
    assert measured([], redis) == [("tcp", "6379", "container tmp-redis")]
    # The engine's proxy.
    opened.append(sockets.Listener("tcp", "0.0.0.0", 6379, "1"))
    assert measured([], redis) == [("tcp", "6379", "container tmp-redis")]
    assert measured([declared(6379)], redis) == []


def test_a_port_that_the_kernel_gives_to_clients_counts_unless_it_may_be_that_of_one(
    opened: list[sockets.Listener], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "range").write_text("32768\t60999\n")
    monkeypatch.setattr(listeners, "CLIENTS", tmp_path / "range")
    opened += [sockets.Listener(protocol, "0.0.0.0", port, "1") for protocol in ("tcp", "udp") for port in (32767, 32768, 60999, 61000)]
    udp = [port for protocol, port, _owner in measured([]) if protocol == "udp"]
    assert udp == ["32767", "61000"]
    assert len([port for protocol, port, _owner in measured([]) if protocol == "tcp"]) == 4


def test_what_a_process_calls_itself_stays_in_its_label(opened: list[sockets.Listener], monkeypatch: pytest.MonkeyPatch):
    opened.append(sockets.Listener("tcp", "::", 9000, "1"))
    monkeypatch.setattr(sockets, "processes", lambda _inodes: {"1": 'a"} 1\n'})
    assert measured([]) == [("tcp", "9000", r"process a\"} 1\n")]


@pytest.mark.parametrize(
    "wrong", [FileNotFoundError("ip"), subprocess.CalledProcessError(1, "ip"), ValueError("Expecting value: line 1 column 1")]
)
def test_a_host_that_cannot_list_its_addresses_says_so_and_looks_after_its_containers(
    wrong: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def addresses() -> list[str]:
        raise wrong

    monkeypatch.setattr(listeners, "addresses", addresses)
    assert listeners.texts("shop", [], []) == {}
    assert str(wrong) in capsys.readouterr().err


def test_what_listens_on_this_machine_is_measured():
    own = listeners.addresses()
    if not own:
        pytest.skip("no other machine reaches this one")
    with socket.socket() as here, socket.socket() as alone:
        here.bind(("0.0.0.0", 0))
        alone.bind(("127.0.0.1", 0))
        here.listen()
        alone.listen()
        found = {(protocol, port) for protocol, port, _owner in measured([])}
        numbers = [str(item.getsockname()[1]) for item in (here, alone)]
    assert [("tcp", number) in found for number in numbers] == [True, False]


def test_a_host_gets_what_the_inventory_declares():
    shared = yaml.safe_load((ROOT / "group_vars/all.yml").read_text())
    inputs = {**shared, "watchdog_stack": "shop", "ansible_port": 2222, "groups": {"balancers": ["one"], "app": ["two"]}}
    given = role_variable("watchdog", "__watchdog_config", inputs)["declared"]
    assert [(item["protocol"], item["port"]) for item in given] == [
        *(("tcp", port) for port in (80, 443, 2222, 22)),
        *(("udp", port) for port in (68, 546)),
    ]
