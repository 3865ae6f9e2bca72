# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The encrypted network between hosts: addresses, keys, what differs on a host, and inputs that cannot work."""

from __future__ import annotations

import base64
import configparser
import copy
import ipaddress
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ansible_collections.slipway.stack.plugins.module_utils import mesh as mesh_utils
from ansible_collections.slipway.stack.plugins.module_utils.mesh import (
    INTERFACE_LENGTH,
    NEXT_KEY,
    PEERS,
    PRIVATE_KEY,
    PROGRAM,
    PUBLIC_KEY,
    SECRET_ID,
    MeshError,
    folder_of,
    interface_of,
    kernel_has_wireguard,
    parse_dump,
    peer_blocks,
    peers_to_set,
    preshared_keys,
    with_address_moved,
    with_preshared_keys,
)
from ansible_collections.slipway.stack.plugins.modules import mesh_follow, mesh_key, mesh_peers, mesh_switch
from ansible_collections.slipway.stack.plugins.modules.host_state import own_routes
from ansible_collections.slipway.stack.plugins.plugin_utils import mesh
from ansible_collections.slipway.stack.plugins.plugin_utils.digest import keyed_digest
from conftest import ROOT, role_task, role_variable

RANGE = "10.210.0.0/16"
SECRET = "a secret of thirty-two characters"
KEYS = {host: base64.b64encode(host.encode() * 8).decode() for host in ("app1", "db1", "lb1")}
SECRETS = dict.fromkeys(KEYS, SECRET)
UNIT = "/etc/systemd/system/slipway-shop-mesh.service"
FILES = {UNIT: "unit", f"{folder_of('shop')}/tunnel": "program"}


def end(number: int, host: str) -> dict[str, Any]:
    return {"host": host, "address": mesh.address_in(RANGE, host), "endpoint": f"10.0.0.{number}", "port": 51820}


ENDS = [end(number, host) for number, host in enumerate(sorted(KEYS), 1)]
APP1, DB1, LB1 = ENDS


def tunnel(here: dict[str, Any]) -> dict[str, Any]:
    peers = [peer for peer in ENDS if peer is not here]
    return {"stack": "shop", "interface": "sw-shop", "prefix": 16, **here, "peers": peers}


def pair(secret: str, one: str, other: str) -> str:
    return mesh.pair_key({one: secret, other: secret})


def state_of(here: dict[str, Any]) -> dict[str, Any]:
    """Return what is read of a host whose mesh is as it is to be."""
    own = tunnel(here)
    address = own["address"]
    peers = mesh.peers_text(own, KEYS, SECRETS)
    return {
        "host": {"addresses": [own["endpoint"], address]},
        "files": {
            **{path: {"content": text} for path, text in FILES.items()},
            f"{folder_of('shop')}/{PUBLIC_KEY}": {"content": f"{KEYS[own['host']]}\n"},
            f"{folder_of('shop')}/{PRIVATE_KEY}": {"digest": "-", "mode": "0600", "uid": 0},
            f"{folder_of('shop')}/{PEERS}": {"digest": keyed_digest("key", peers), "mode": "0600", "uid": 0},
        },
        "mesh": {
            "kernel": True,
            "interface": {
                "public_key": KEYS[own["host"]],
                "port": 51820,
                "peers": {KEYS[peer["host"]]: {"addresses": [peer["address"]], "handshake_s": 100} for peer in own["peers"]},
                "rules": [f"-A PREROUTING -d {address}/32 ! -i sw-shop -j DROP", "-A FORWARD -o sw-shop -j TCPMSS --clamp-mss-to-pmtu"],
            },
        },
    }


def differences(state: dict[str, Any], own: dict[str, Any] | None = None, secret: str = SECRET, **keys: str) -> list[str]:
    return mesh.differences(
        tunnel(APP1) if own is None else own, state, {**KEYS, **keys}, dict.fromkeys(KEYS, secret), FILES, list(KEYS), "key"
    )


# Addresses

#: Those of the Internet, of one host, of one link, of groups, reserved ones, and those that are more than private ones.
NOT_PRIVATE = (
    *("0.0.0.0/0", "0.0.0.0/8", "8.8.0.0/16", "100.0.0.0/8", "127.0.0.0/8", "128.0.0.0/1", "169.254.0.0/16", "168.0.0.0/5"),
    *("172.0.0.0/8", "198.0.0.0/8", "224.0.0.0/3", "224.0.0.0/16", "240.0.0.0/16"),
)


def test_an_address_follows_from_the_name_alone_and_is_that_of_a_host():
    names = [f"app{number}" for number in range(300)]
    network = ipaddress.IPv4Network("10.210.0.0/24")
    found = [ipaddress.IPv4Address(mesh.address_in(str(network), name)) for name in names]
    assert all(address in network and address not in (network.network_address, network.broadcast_address) for address in found)
    # A change of the formula would give all hosts of all fleets another address.
    assert mesh.address_in(RANGE, "app1") == "10.210.121.17"
    assert len({mesh.address_in(RANGE, name) for name in names[:30]}) == 30


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("10.210.0.1/16", "has host bits set"),
        ("fd00::/64", "must be an IPv4 network"),
        ("mesh", "must be an IPv4 network"),
        (None, "must be an IPv4 network"),
        ("10.210.0.0/25", "must be a network of /24 or larger"),
        ("10.210.7.128/25", "such as 10.210.0.0/16"),
        *((other, "must be within 10.0.0.0/8, ") for other in NOT_PRIVATE),
        (RANGE, ""),
        ("10.210.7.0/24", ""),
        ("10.0.0.0/8", ""),
        ("172.31.0.0/16", ""),
        ("192.168.3.0/24", ""),
        ("100.127.0.0/16", ""),
        ("198.19.0.0/16", ""),
    ],
)
def test_a_range_is_a_network_with_room(network: Any, said: str):
    assert said in mesh.range_problem(network)
    assert bool(said) is bool(mesh.range_problem(network))


def test_two_hosts_with_one_address_are_named_with_a_free_one():
    (problem,) = mesh.address_problems(RANGE, {"app1": "10.210.0.1", "app2": "10.210.0.2", "db1": "10.210.0.1"})
    assert problem.host == "db1"
    assert (
        problem.text
        == "has the mesh address 10.210.0.1, as host app1 does; set slipway_mesh_address of the one that has no mesh yet, as 10.210.0.3"
    )


@pytest.mark.parametrize("address", ["10.211.0.1", "10.210.0.0", "10.210.255.255"])
def test_an_address_outside_of_the_range_is_named(address: str):
    (problem,) = mesh.address_problems(RANGE, {"app1": address})
    assert address in problem.text
    assert RANGE in problem.text


# Routes


@pytest.mark.parametrize(
    ("network", "interface", "named"),
    [
        ("10.0.0.0/8", "eth1", "the route to 10.0.0.0/8 over eth1"),
        ("10.210.7.0/24", "eth1", "the route to 10.210.7.0/24 over eth1"),
        (RANGE, "sw-shop", ""),
        (RANGE, "sw-other", f"the route to {RANGE} over sw-other"),
        ("10.211.0.0/16", "eth1", ""),
    ],
)
def test_a_range_that_a_route_needs_is_refused_with_the_route(network: str, interface: str, named: str):
    state = {"host": {"routes": [{"network": network, "interface": interface}]}}
    problems = mesh.overlap_problems("app1", state, RANGE, "sw-shop")
    assert [named in problem.text for problem in problems] == ([True] if named else [])


def test_a_range_that_a_container_network_has_is_refused_once_by_its_name():
    state = {
        "host": {"routes": [{"network": "10.210.1.0/24", "interface": "br-1"}]},
        "networks": {"build": {"subnets": ["10.210.1.0/24", "fd00::/64"]}, "bridge": {"subnets": ["172.17.0.0/16"]}},
    }
    (problem,) = mesh.overlap_problems("app1", state, RANGE, "sw-shop")
    assert "the container network build (10.210.1.0/24)" in problem.text


def test_routes_are_read_without_default_ones(tmp_path: Path):
    table = tmp_path / "route"
    table.write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth1\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n"
        "eth0\t0000D20A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    assert own_routes(str(table)) == [{"network": "10.0.0.0/8", "interface": "eth1"}, {"network": RANGE, "interface": "eth0"}]


def test_a_host_that_can_have_no_interface_is_named():
    (problem,) = mesh.support_problems("app1", {"mesh": {"kernel": False, "tun": False}})
    assert "/dev/net/tun" in problem.text
    assert not mesh.support_problems("app1", {"mesh": {"kernel": False, "tun": True}})
    assert not mesh.support_problems("app1", {"mesh": {"kernel": True, "tun": False}})


# A stack that has the mesh by default alone, and one that does not have it yet

OUTER, INNER = "10.0.0.2", DB1["address"]
PORTS = [{"port": 5432, "address": INNER, "peers": []}, {"port": 443}]


def found(
    *served: str, host: str = "db1", address: str = INNER, there: bool = False, chosen: bool = False, container: str = "shop-postgres"
) -> mesh.Found:
    """Return a host with a container that is published at some addresses."""
    containers = {container: {"ports": {"5432/tcp": list(served)}}} if container else {}
    return mesh.Found(host, {"containers": containers, "files": program(INNER) if there else {}}, "shop", OUTER, address, PORTS, chosen)


def program(address: str) -> dict[str, Any]:
    """Return what is read of the program of a host with an address in the mesh, as the role renders it."""
    state = {"mesh": {"kernel": True}}
    text = role_variable("mesh", "__mesh_program_content", {"__mesh_tunnel": {**tunnel(DB1), "address": address}, "__mesh_state": state})
    return {f"{folder_of('shop')}/{PROGRAM}": {"content": text}}


def test_services_that_serve_without_a_mesh_are_not_moved_unasked():
    (problem,) = mesh.unasked_problems([found(f"{OUTER}:5432"), found(f"{INNER}:5432", host="app1")])
    assert problem.text.startswith(
        "this stack runs without a mesh, which stacks of several hosts have by default (shop-postgres on db1 would"
    )
    assert "slipway_mesh: false in group_vars/all to keep it" in problem.text
    assert "or true to turn the mesh on, which is a planned change" in problem.text


@pytest.mark.parametrize(
    "end",
    [
        found(f"{OUTER}:5432", chosen=True),
        found(f"{OUTER}:5432", address=OUTER),
        found(f"{INNER}:5432", there=True),
        # A stack of one host that gets a second one, and one that does not exist yet.
        found(),
        found(container=""),
        # What stays where it is.
        found(f"{OUTER}:443", "0.0.0.0:5432"),
    ],
    ids=["asked for", "off", "moved", "not published", "new", "another port"],
)
def test_a_mesh_comes_where_it_was_asked_for_or_moves_nothing(end: mesh.Found):
    assert mesh.unasked_problems([end]) == []


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([found()], "this stack runs without a mesh, which stacks of several hosts have by default: set slipway_mesh: false"),
        ([found(chosen=True)], "db1: has no mesh yet, which site.yml brings up: run site.yml first, or set slipway_mesh: false until then"),
        ([found(there=True, host="app1"), found()], "db1: has no mesh yet"),
        ([found(there=True, address=OUTER)], "db1: still has the mesh, which site.yml takes down"),
        (
            [found(there=True, address="10.210.0.9")],
            f"db1: has the address {INNER} in the mesh and is to have 10.210.0.9, which site.yml changes: run site.yml first, or ",
        ),
        ([found(there=True)], ""),
        ([found(address=OUTER)], ""),
        ([found(container="")], ""),
    ],
)
def test_a_run_that_brings_no_mesh_needs_it_as_the_inventory_has_it(ends: list[mesh.Found], said: str):
    lines = [f"{problem.host}: {problem.text}".removeprefix(": ") for problem in mesh.pending_problems(ends)]
    assert len(lines) == bool(said)
    assert all(line.startswith(said) for line in lines)


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([found(there=True, address="10.210.0.9")], f"addresses in the mesh change (db1 from {INNER} to 10.210.0.9), and hosts reach no"),
        # Others find a host that publishes nothing itself by its address too: their firewalls know it.
        (
            [found(there=True, address="10.210.0.9", container=""), found(there=True, host="app1")],
            f"addresses in the mesh change (db1 from {INNER} to 10.210.0.9), and hosts reach no",
        ),
        ([found(there=True)], ""),
        # Where nothing runs, where there is none yet, and where it is turned off.
        ([found(there=True, address="10.210.0.9", container="")], ""),
        ([found(address="10.210.0.9")], ""),
        ([found(there=True, address=OUTER)], ""),
    ],
)
def test_hosts_whose_services_run_keep_their_addresses_unless_asked(ends: list[mesh.Found], said: str):
    problems = mesh.moved_problems(ends)
    assert len(problems) == bool(said)
    assert all(problem.text.startswith(said) and problem.text.endswith("-e accept=restart (docs/mesh.md)") for problem in problems)


# Keys and peers


def test_both_ends_derive_the_key_of_their_pair_and_no_other_pair_has_it():
    keys = {pair(SECRET, one, other) for one, other in (("app1", "db1"), ("db1", "app1"))}
    assert len(keys) == 1
    assert len(base64.b64decode(keys.pop())) == 32
    others = {pair(SECRET, "app1", "db2"), pair(f"{SECRET}x", "app1", "db1"), pair(SECRET, "app1d", "b1")}
    assert len(others | {pair(SECRET, "app1", "db1")}) == 4


def test_a_pair_key_is_hkdf_as_the_standard_has_it():
    hkdf = pytest.importorskip("cryptography.hazmat.primitives.kdf.hkdf")
    hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
    derived = hkdf.HKDF(hashes.SHA256(), 32, salt=None, info=b"slipway mesh pre-shared key\0app1\0db1").derive(SECRET.encode())
    assert pair(SECRET, "db1", "app1") == base64.b64encode(derived).decode()


def test_peers_have_their_own_address_and_the_key_of_the_pair():
    text = mesh.peers_text(tunnel(APP1), KEYS, SECRETS)
    assert text.count("[Peer]") == 2
    assert f"AllowedIPs = {DB1['address']}/32\nEndpoint = 10.0.0.2:51820" in text
    assert f"PresharedKey = {pair(SECRET, 'app1', 'db1')}" in text
    assert mesh.peers_text({**tunnel(APP1), "peers": [LB1, DB1]}, KEYS, SECRETS) == text
    assert mesh.peers_text(tunnel(APP1), {**KEYS, "db1": ""}, SECRETS).count("[Peer]") == 1


def test_a_key_of_this_run_is_newer_than_one_that_was_read_and_a_host_knows_its_absent_peers():
    hostvars: dict[str, dict[str, Any]] = {end["host"]: {"container_service_host_state": state_of(end)} for end in ENDS}
    hostvars["db1"]["__mesh_key"] = {"public_key": "new"}
    del hostvars["lb1"]["container_service_host_state"]
    assert mesh.public_keys(tunnel(APP1), hostvars) == {**KEYS, "db1": "new"}
    hostvars["app1"]["container_service_host_state"]["mesh"]["interface"] = {}
    assert mesh.public_keys(tunnel(APP1), hostvars)["lb1"] == ""
    assert mesh.public_keys({}, hostvars) == {}


@pytest.mark.parametrize("lost", [PUBLIC_KEY, PRIVATE_KEY])
def test_a_host_that_was_installed_again_has_no_key_although_its_peers_know_one(lost: str):
    hostvars: dict[str, dict[str, Any]] = {end["host"]: {"container_service_host_state": state_of(end)} for end in ENDS}
    del hostvars["db1"]["container_service_host_state"]["files"][f"{folder_of('shop')}/{lost}"]
    keys = mesh.public_keys(tunnel(APP1), hostvars)
    assert keys == {**KEYS, "db1": ""}
    assert differences(state_of(APP1), **keys)[0] == "keys of peers are not known yet: db1"


def test_a_run_with_a_limit_changes_only_what_needs_no_other_host():
    state = state_of(APP1)
    assert not mesh.limit_problems(tunnel(APP1), KEYS, ["app1"], state)
    (unknown,) = mesh.limit_problems(tunnel(APP1), {**KEYS, "db1": ""}, ["app1", "lb1"], state)
    assert "the key of db1" in unknown
    (new,) = mesh.limit_problems(tunnel(APP1), {**KEYS, "app1": ""}, ["app1", "lb1"], state)
    assert "db1 must know" in new
    assert not mesh.limit_problems(tunnel(APP1), {**KEYS, "app1": "", "db1": ""}, ["app1", "db1", "lb1"], state)
    assert not mesh.limit_problems({}, {}, ["app1"], state)
    (rotating,) = mesh.limit_problems(tunnel(APP1), KEYS, ["app1", "lb1"], state, rotating=True)
    assert "leaves out db1: run again without --limit" in rotating
    assert not mesh.limit_problems(tunnel(APP1), KEYS, list(KEYS), state, rotating=True)


@pytest.mark.parametrize(
    ("moved", "reached", "said"),
    [
        ("db1", ["app1", "lb1"], "the address of db1 in the mesh changes, and the run leaves out db1"),
        ("db1", ["app1", "db1"], "the address of db1 in the mesh changes, and the run leaves out lb1"),
        ("app1", ["app1"], "the address of app1 in the mesh changes, and the run leaves out db1, lb1"),
        ("db1", list(KEYS), ""),
        ("", ["app1"], ""),
    ],
)
def test_a_run_with_a_limit_changes_no_address(moved: str, reached: list[str], said: str):
    state = state_of(APP1)
    state["files"] |= program(APP1["address"])
    app1, *others = ({**end, "address": "10.210.0.9"} if end["host"] == moved else end for end in ENDS)
    own = {**tunnel(APP1), **app1, "peers": others}
    problems = mesh.limit_problems(own, KEYS, reached, state)
    assert [problem.partition(": run again")[0] for problem in problems] == ([said] if said else [])


@pytest.mark.parametrize("length", [1, 12, 13, 41])
def test_an_interface_has_a_name_that_the_kernel_takes(length: int):
    names = {interface_of("a" * length), interface_of("a" * (length - 1) + "b")}
    assert len(names) == 2
    assert all(name.startswith("sw-") and len(name) <= INTERFACE_LENGTH for name in names)


# What differs


def test_a_mesh_that_is_as_it_is_to_be_does_not_differ():
    assert differences(state_of(APP1)) == []


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("files", UNIT, "content"), "edited", f"{UNIT} differs"),
        (("files", f"{folder_of('shop')}/{PEERS}", "digest"), "another", "peers of the mesh differ"),
        (("files", f"{folder_of('shop')}/{PRIVATE_KEY}", "mode"), "0644", f"{folder_of('shop')}/{PRIVATE_KEY} has mode 0644 and owner 0"),
        (("files", f"{folder_of('shop')}/{PEERS}", "uid"), 7, f"{folder_of('shop')}/{PEERS} has mode 0600 and owner 7"),
        (("mesh", "interface"), {}, "the interface sw-shop is not up"),
        (("mesh", "interface", "port"), 1, "the interface sw-shop has another key, address or port"),
        (("mesh", "interface", "public_key"), "another", "the interface sw-shop has another key, address or port"),
        (("host", "addresses"), [], "the interface sw-shop has another key, address or port"),
        (("mesh", "interface", "rules"), [], "rules of the mesh are not loaded"),
        (("mesh", "interface", "peers", KEYS["db1"], "addresses"), [], "the interface sw-shop has other peers"),
        (("mesh", "interface", "peers", KEYS["db1"], "handshake_s"), None, "no handshake with db1"),
        (("mesh", "interface", "peers", KEYS["db1"], "handshake_s"), 200, "no handshake with db1"),
    ],
)
def test_what_was_changed_on_a_host_is_found(where: tuple[str, ...], value: Any, said: str):
    state = copy.deepcopy(state_of(APP1))
    *path, last = where
    part = state
    for name in path:
        part = part[name]
    part[last] = value
    assert differences(state) == [said]


def test_a_peer_that_the_run_leaves_out_may_be_down():
    state = copy.deepcopy(state_of(APP1))
    state["mesh"]["interface"]["peers"][KEYS["db1"]]["handshake_s"] = 9000
    assert mesh.differences(tunnel(APP1), state, KEYS, SECRETS, FILES, ["app1", "lb1"], "key") == []


def test_another_secret_is_another_key_of_each_pair():
    assert differences(state_of(APP1), secret="another secret of many characters") == ["peers of the mesh differ"]


def test_a_peer_without_a_key_is_waited_for_and_a_host_without_one_needs_all():
    assert differences(state_of(APP1), db1="")[0] == "keys of peers are not known yet: db1"
    assert differences(state_of(APP1), app1="") == ["it has no key for the mesh"]


def test_a_mesh_that_is_off_is_found_where_it_was_left():
    assert differences(state_of(APP1), {}) == ["the mesh is off"]
    assert differences({**state_of(APP1), "files": {}}, {}) == []


# Rotation

LATER = "another secret of many characters"
NEXT = {host: base64.b64encode(host.upper().encode() * 8).decode() for host in KEYS}
DURING = mesh.peers_text(tunnel(APP1), KEYS, SECRETS, NEXT, SECRET)


def interface_with(text: str) -> dict[str, Any]:
    """Return what is read of an interface that was given a configuration."""
    allowed = {
        key: [line.removeprefix("AllowedIPs = ").removesuffix("/32") for line in lines if line.startswith("AllowedIPs")]
        for key, lines in peer_blocks(text).items()
    }
    return {"public_key": "own", "peers": {key: {"addresses": addresses} for key, addresses in allowed.items()}}


def test_a_next_key_is_a_peer_that_has_the_key_of_the_pair_and_no_address_and_sends_nothing():
    blocks = peer_blocks(DURING)
    assert set(blocks) == {KEYS["db1"], KEYS["lb1"], NEXT["db1"], NEXT["lb1"]}
    assert blocks[NEXT["db1"]] == [
        "# db1",
        "[Peer]",
        f"PublicKey = {NEXT['db1']}",
        f"PresharedKey = {pair(SECRET, 'app1', 'db1')}",
        "Endpoint = 10.0.0.2:51820",
    ]


def test_a_peer_that_has_switched_takes_the_address_from_its_former_key():
    moved = with_address_moved(DURING, NEXT["db1"], DB1["address"])
    assert interface_with(moved)["peers"] == {
        KEYS["db1"]: {"addresses": []},
        NEXT["db1"]: {"addresses": [DB1["address"]]},
        KEYS["lb1"]: {"addresses": [LB1["address"]]},
        NEXT["lb1"]: {"addresses": []},
    }
    assert with_address_moved(moved, NEXT["db1"], DB1["address"]) == moved
    assert with_address_moved(DURING, "unknown", DB1["address"]) == DURING


def test_a_rotation_adds_peers_and_removes_peers_and_never_sets_one_that_serves():
    before = mesh.peers_text(tunnel(APP1), KEYS, SECRETS)
    blocks, gone = peers_to_set(DURING, before, interface_with(before))
    assert set(peer_blocks(blocks)) == {NEXT["db1"], NEXT["lb1"]}
    assert gone == []
    moved = with_address_moved(with_address_moved(DURING, NEXT["db1"], DB1["address"]), NEXT["lb1"], LB1["address"])
    after = mesh.peers_text(tunnel(APP1), NEXT, SECRETS)
    assert peers_to_set(after, moved, interface_with(moved)) == ("", sorted([KEYS["db1"], KEYS["lb1"]]))


def test_a_run_after_an_interrupted_one_keeps_the_sessions_that_there_are():
    moved = with_address_moved(DURING, NEXT["db1"], DB1["address"])
    # db1 has switched, and lb1 has not.
    wanted = mesh.peers_text(tunnel(APP1), {**KEYS, "db1": NEXT["db1"]}, SECRETS)
    assert peers_to_set(wanted, moved, interface_with(moved)) == ("", sorted([KEYS["db1"], NEXT["lb1"]]))
    # The host has died before it followed.
    blocks, gone = peers_to_set(wanted, DURING, interface_with(DURING))
    assert set(peer_blocks(blocks)) == {NEXT["db1"]}
    assert gone == sorted([KEYS["db1"], NEXT["lb1"]])


@pytest.mark.parametrize(
    ("file", "interface"),
    [
        (mesh.peers_text(tunnel(APP1), KEYS, dict.fromkeys(KEYS, "another secret")), mesh.peers_text(tunnel(APP1), KEYS, SECRETS)),
        (mesh.peers_text(tunnel(APP1), KEYS, SECRETS), DURING.replace("AllowedIPs", "# AllowedIPs")),
        (mesh.peers_text(tunnel(APP1), KEYS, SECRETS), with_address_moved(DURING, NEXT["db1"], DB1["address"])),
        ("", ""),
    ],
    ids=["another secret", "no address", "address of another key", "new"],
)
def test_peers_that_differ_in_the_file_or_in_the_kernel_are_set(file: str, interface: str):
    blocks, _gone = peers_to_set(mesh.peers_text(tunnel(APP1), KEYS, SECRETS), file, interface_with(interface))
    assert KEYS["db1"] in peer_blocks(blocks)


def refuse_files(argv: Sequence[str], descriptors: Sequence[int] = ()) -> None:
    """Fail as AppArmor's profile of wg does: outside of /etc/wireguard, it opens nothing but its input and pipes that it gets."""
    places = [word for word in argv if word.startswith("/") and word != "/dev/stdin"]
    assert places == [f"/dev/fd/{descriptor}" for descriptor in descriptors]
    assert all(stat.S_ISFIFO(os.fstat(descriptor).st_mode) for descriptor in descriptors)


class Kernel:
    """Takes the place of ``wg``: notes what is set, and says when peers had their last handshakes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *handshakes: dict[str, int], text: str = DURING) -> None:
        self.answers, self.text = list(handshakes), text
        self.calls: list[tuple[list[str], str]] = []
        for module in (mesh_follow, mesh_switch, mesh_peers):
            monkeypatch.setattr(module, "call", self.call)
        monkeypatch.setattr(mesh_utils, "call", self.call)
        monkeypatch.setattr("time.sleep", lambda _seconds: None)

    def call(self, argv: list[str], stdin: str = "", descriptors: Sequence[int] = ()) -> str:
        refuse_files(argv, descriptors)
        if argv[-1] == "latest-handshakes":
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            return "".join(f"{key}\t{seconds}\n" for key, seconds in answer.items())
        if argv[-1] == "dump":
            rows = [f"{key}\tpsk\tend\t{','.join(peer['addresses']) or '(none)'}\t0\t0\t0\t25" for key, peer in self.peers]
            return "\n".join(["private\tpublic\t51820\toff", *rows, ""])
        self.calls.append((argv, stdin))
        return ""

    @property
    def peers(self) -> Any:
        return interface_with(self.text)["peers"].items()


def test_a_host_follows_a_peer_once_it_has_a_session_with_its_next_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    path = tmp_path / "peers.conf"
    path.write_text(DURING)
    monkeypatch.setattr(mesh_follow, "write_file", lambda path, text, *_rest: Path(path).write_text(text))
    none = dict.fromkeys([*KEYS.values(), *NEXT.values()], 0)
    kernel = Kernel(monkeypatch, none, {**none, NEXT["lb1"]: 7}, {**none, NEXT["lb1"]: 7, NEXT["db1"]: 8})
    mesh_follow.follow("sw-shop", {DB1["address"]: NEXT["db1"], LB1["address"]: NEXT["lb1"]}, str(path), 60)
    settings = ["persistent-keepalive", "25"]
    assert [argv for argv, _stdin in kernel.calls] == [
        ["wg", "set", "sw-shop", "peer", NEXT[end["host"]], "allowed-ips", f"{end['address']}/32", *settings] for end in (LB1, DB1)
    ]
    after = dict(interface_with(path.read_text())["peers"])
    assert after[NEXT["lb1"]] == {"addresses": [LB1["address"]]}
    assert after[KEYS["db1"]] == {"addresses": []}


@pytest.mark.parametrize(
    ("handshakes", "timeout", "said"),
    [
        ({NEXT["db1"]: 0}, 0, "not switched to their next keys within 0 s: "),
        # A run that came later has removed them, and must not get them back.
        ({KEYS["db1"]: 0}, 60, "is not a peer any more"),
    ],
)
def test_a_host_that_cannot_follow_says_so_and_changes_nothing(
    handshakes: dict[str, int], timeout: float, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    kernel = Kernel(monkeypatch, handshakes)
    with pytest.raises(MeshError, match=said):
        mesh_follow.follow("sw-shop", {DB1["address"]: NEXT["db1"]}, str(tmp_path / "peers.conf"), timeout)
    assert kernel.calls == []


def test_a_host_that_has_switched_waits_for_a_session_with_the_key_that_each_peer_has_now(monkeypatch: pytest.MonkeyPatch):
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr("socket.socket.sendto", lambda _socket, _data, address: sent.append(address))
    before = {**dict.fromkeys(KEYS.values(), 5), **dict.fromkeys(NEXT.values(), 0)}
    # db1 has switched before, lb1 has not.
    text = with_address_moved(DURING, NEXT["db1"], DB1["address"])
    Kernel(monkeypatch, before, {**before, NEXT["db1"]: 9}, {**before, NEXT["db1"]: 9, KEYS["lb1"]: 9}, text=text)
    mesh_switch.open_sessions("sw-shop", before, 60)
    assert sent == [(end["address"], 9) for end in sorted((DB1, LB1), key=lambda end: end["address"])] + [(LB1["address"], 9)]
    Kernel(monkeypatch, before, text=text)
    with pytest.raises(MeshError, match=f"no handshake with .*{LB1['address']}.* within 0 s"):
        mesh_switch.open_sessions("sw-shop", before, 0)


def test_a_peer_that_is_given_its_address_meanwhile_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("socket.socket.sendto", lambda *_unused: None)
    before = {**dict.fromkeys(KEYS.values(), 5), **dict.fromkeys(NEXT.values(), 0)}
    kernel = Kernel(monkeypatch, before, {**before, NEXT["db1"]: 9, KEYS["lb1"]: 9})

    def moved(_seconds: float) -> None:
        kernel.text = with_address_moved(DURING, NEXT["db1"], DB1["address"])

    monkeypatch.setattr("time.sleep", moved)
    mesh_switch.open_sessions("sw-shop", before, 0.5)


@pytest.mark.parametrize("following", [False, True])
def test_a_next_key_is_always_another_one_and_the_one_in_use_stays(following: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    left = Path(folder_of("shop", str(tmp_path))) / (NEXT_KEY if following else PRIVATE_KEY)
    left.parent.mkdir(parents=True)
    left.write_text("left\n")
    monkeypatch.setattr(mesh_key, "write_file", lambda path, text, *_rest: Path(path).write_text(text))
    monkeypatch.setattr(mesh_key, "call", lambda argv, stdin="": "made\n" if argv[1] == "genkey" else f"public of {stdin}\n")
    result: dict[str, Any] = {}
    module = SimpleNamespace(
        params={"stack": "shop", "root": str(tmp_path), "next": following, "secret_id": "7"}, exit_json=result.update, fail_json=pytest.fail
    )
    monkeypatch.setattr(mesh_key, "AnsibleModule", lambda **_unused: module)
    mesh_key.main()
    private = "made" if following else "left"
    assert left.read_text() == f"{private}\n"
    assert result["public_key"] == f"public of {private}"
    # The next one is noted when the host switches.
    assert (Path(folder_of("shop", str(tmp_path))) / SECRET_ID).exists() is not following


def test_what_a_boot_reads_is_the_next_key_before_the_interface_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    private, following, public, peers, noted = (tmp_path / name for name in (PRIVATE_KEY, NEXT_KEY, PUBLIC_KEY, PEERS, SECRET_ID))
    private.parent.mkdir()
    private.write_text("old\n")
    following.write_text("new\n")
    during = mesh.peers_text(tunnel(APP1), KEYS, SECRETS, NEXT, LATER)
    peers.write_text(during)
    after = mesh.peers_text(tunnel(APP1), KEYS, SECRETS, NEXT, LATER, switched=True)
    monkeypatch.setattr(mesh_switch, "write_file", lambda path, text, *_rest: Path(path).write_text(text))
    found: list[list[str]] = []
    given: dict[str, str] = {}

    def call(argv: list[str], stdin: str = "", descriptors: Sequence[int] = ()) -> str:
        refuse_files(argv, descriptors)
        found.append([*argv[:3], stdin, private.read_text(), public.read_text() if public.exists() else "", peers.read_text()])
        for name, place in zip(["private"] * bool(descriptors) + argv[6::4], argv[4::4], strict=True):
            given[name] = Path(place).read_text().strip()
        return "public\n"

    monkeypatch.setattr(mesh_switch, "call", call)
    monkeypatch.setattr(mesh_utils, "call", call)
    mesh_switch.switch("sw-shop", str(tmp_path), after, "7")
    assert found == [
        ["wg", "pubkey", "new", "old\n", "", during],
        ["wg", "set", "sw-shop", "", "new\n", "public\n", after],
    ]
    # In the call that sets the private key, so that no session is opened with one of them alone.
    assert given == {"private": "new", **preshared_keys(after)}
    assert noted.read_text() == "7\n"
    assert not following.exists()


def test_a_repair_gives_an_interface_the_key_that_a_boot_would(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A host whose interface has its former key is repaired by ``site.yml``."""
    private, peers = (Path(folder_of("shop", str(tmp_path))) / name for name in (PRIVATE_KEY, PEERS))
    private.parent.mkdir(parents=True)
    private.write_text("new\n")
    peers.write_text(DURING)
    given: list[tuple[list[str], str]] = []

    def call(argv: list[str], stdin: str = "", descriptors: Sequence[int] = ()) -> str:
        refuse_files(argv, descriptors)
        given.append((argv[:4], stdin or Path(argv[-1]).read_text()))
        return "public\n"

    monkeypatch.setattr(mesh_peers, "call", call)
    monkeypatch.setattr(mesh_utils, "call", call)
    monkeypatch.setattr(mesh_peers, "read_interface", lambda _name: {**interface_with(DURING), "public_key": "former"})
    monkeypatch.setattr(mesh_peers, "write_file", lambda path, text, *_rest: Path(path).write_text(text))
    module = SimpleNamespace(
        params={"stack": "shop", "root": str(tmp_path), "peers": DURING},
        check_mode=False,
        exit_json=lambda **_result: None,
        fail_json=pytest.fail,
    )
    monkeypatch.setattr(mesh_peers, "SecretModule", lambda **_unused: module)
    mesh_peers.main()
    assert given == [(["wg", "pubkey"], "new"), (["wg", "set", "sw-shop", "private-key"], "new\n")]


def test_a_program_reads_what_it_gets_through_pipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    program = tmp_path / "wg"
    program.write_text(f'#!/bin/sh\nshift 3\nfor word; do case $word in /*) cat "$word";; *) echo "$word";; esac; done > {tmp_path}/got\n')
    program.chmod(0o755)
    monkeypatch.setattr(mesh_utils, "PATH", f"{tmp_path}:{mesh_utils.PATH}")
    before = os.listdir("/proc/self/fd")
    mesh_utils.set_keys("sw-shop", "mine", {"b": "of b", "a": "of a"})
    got = (tmp_path / "got").read_text().splitlines()
    assert got == ["mine", "peer", "a", "preshared-key", "of a", "peer", "b", "preshared-key", "of b"]
    assert os.listdir("/proc/self/fd") == before


def test_the_script_of_the_unit_names_no_file_to_wg():
    text = (ROOT / "roles/mesh/templates/tunnel.sh.j2").read_text()
    calls = re.findall(r"\bwg (?:show|set|setconf|addconf|syncconf)\b[^\n;|]*", text)
    assert calls
    for line in calls:
        refuse_files([word for word in line.split() if ">" not in word])
        assert "folder" not in line


class Fleet:
    """The files of all hosts in a rotation, as tasks of the role write them, and what a run finds there."""

    def __init__(self) -> None:
        self.keys, self.secrets = dict(KEYS), dict(SECRETS)
        self.files = {end["host"]: mesh.peers_text(tunnel(end), self.keys, self.secrets) for end in ENDS}

    def begin(self, upcoming: dict[str, str], secret: str) -> Iterator[str]:
        """Rotate, and stop after each step, as a run that is killed there."""
        keys, secrets = dict(self.keys), dict(self.secrets)
        for end in ENDS:
            self.files[end["host"]] = mesh.peers_text(tunnel(end), keys, secrets, upcoming, secret)
            yield f"{end['host']} knows the next keys"
        for end in ENDS:
            host = end["host"]
            text = mesh.peers_text(tunnel(end), keys, secrets, upcoming, secret, switched=True)
            self.files[host] = with_preshared_keys(self.files[host], preshared_keys(text))
            self.keys[host], self.secrets[host] = upcoming[host], secret
            for other in set(self.files) - {host}:
                self.files[other] = with_address_moved(self.files[other], upcoming[host], end["address"])
            yield f"{host} has switched"

    def found_by(self, *values: str) -> dict[str, str]:
        """Return the peers of each host as site.yml wants them, with these values of the secret."""
        hostvars = {end["host"]: {"container_service_host_state": state_of(end)} for end in ENDS}
        for host, values_of in hostvars.items():
            note = {"content": f"{mesh.secret_id(self.secrets[host])}\n"}
            values_of["container_service_host_state"]["files"][f"{folder_of('shop')}/{SECRET_ID}"] = note
        secrets = mesh.secrets_in_use(tunnel(APP1), hostvars, self.keys, values)
        return {end["host"]: mesh.peers_text(tunnel(end), self.keys, secrets) for end in ENDS}

    def works(self) -> bool:
        """Return whether the two of each pair have one pre-shared key for the keys that they use."""
        found = {host: preshared_keys(text) for host, text in self.files.items()}
        return all(found[one][self.keys[other]] == found[other][self.keys[one]] for one in found for other in found if one != other)

    def keeps(self, *values: str) -> bool:
        """Return whether site.yml sets none of the peers that the hosts use, so that it may die at any point."""
        return all(
            peers_to_set(text, self.files[host], interface_with(self.files[host]))[0] == "" for host, text in self.found_by(*values).items()
        )


def test_a_rotation_can_die_at_any_point_and_no_pair_has_two_pre_shared_keys():
    fleet = Fleet()
    for point in fleet.begin(NEXT, LATER):
        assert fleet.works(), point
        # Vault; a manager, which has the new one as the next one; undone, from the first stage on and after that.
        for values in ((LATER, "", SECRET, ""), (SECRET, LATER, "", ""), (SECRET, "", "", LATER)):
            assert fleet.keeps(*values), point
    assert set(fleet.secrets.values()) == {LATER}
    assert fleet.keeps(LATER, "", "", SECRET)
    assert fleet.keeps(LATER, "", "", "")


@pytest.mark.parametrize("killed_after", range(1, 7))
@pytest.mark.parametrize("secret", [SECRET, LATER])
def test_a_rotation_that_was_killed_is_ended_or_undone_by_another_one(killed_after: int, secret: str):
    fleet = Fleet()
    for _unused in zip(range(killed_after), fleet.begin(NEXT, LATER), strict=False):
        pass
    fleet.files = fleet.found_by(LATER, "", SECRET, "")
    third = {host: base64.b64encode(f"{host}3".encode() * 6).decode() for host in KEYS}
    for point in fleet.begin(third, secret):
        assert fleet.works(), point
        assert fleet.keeps(LATER, "", SECRET, ""), point
    assert set(fleet.secrets.values()) == {secret}


def test_the_secret_of_a_key_is_the_one_that_its_host_has_noted_or_the_one_before_notes():
    hostvars: dict[str, dict[str, Any]] = {end["host"]: {"container_service_host_state": state_of(end)} for end in ENDS}

    def secrets(*values: str, **keys: str) -> dict[str, str]:
        return mesh.secrets_in_use(tunnel(APP1), hostvars, {**KEYS, **keys}, values)

    # Of an older version.
    assert secrets(SECRET, "", "", "") == SECRETS
    assert secrets(LATER, "", SECRET, "") == SECRETS
    # A host that joins takes the one in use, and keeps it.
    assert secrets(LATER, "", SECRET, "", db1="") == {**SECRETS, "db1": LATER}
    hostvars["db1"]["__mesh_key"] = {"secret_id": mesh.secret_id(LATER)}
    assert secrets(LATER, "", SECRET, "") == {**SECRETS, "db1": LATER}
    # One that was changed without a rotation.
    assert secrets("a third secret", "", "", "") == dict.fromkeys(KEYS, "a third secret")
    assert mesh.secrets_in_use({}, hostvars, {}, ["", "", "", ""]) == {}


def test_a_host_that_an_interrupted_rotation_has_left_differs():
    state = state_of(APP1)
    state["files"][f"{folder_of('shop')}/{PEERS}"]["digest"] = keyed_digest("key", DURING)
    peers = state["mesh"]["interface"]["peers"]
    peers.update({NEXT[host]: {"addresses": [], "handshake_s": None} for host in ("db1", "lb1")})
    assert differences(state) == ["peers of the mesh differ", "the interface sw-shop has other peers"]


def test_a_host_switches_in_a_second_in_which_no_handshake_was(monkeypatch: pytest.MonkeyPatch):
    clock = iter([7.5, 7.9, 8.0])
    monkeypatch.setattr(mesh_switch, "time", SimpleNamespace(time=lambda: next(clock), sleep=lambda _seconds: None))
    Kernel(monkeypatch, {"one": 6, "other": 7})
    assert mesh_switch.handshakes_of_past_seconds("sw-shop") == {"one": 6, "other": 7}
    assert next(clock, None) is None


# Handshakes


def result(*silent: dict[str, Any], time_s: float = 1000.0) -> dict[str, Any]:
    return {"silent": [end["address"] for end in silent], "time_s": time_s}


def test_hosts_that_do_not_answer_each_other_are_named_once_a_pair():
    (sentence,) = mesh.silences(tunnel(APP1), {"app1": result(DB1), "db1": result(APP1), "lb1": result()})
    assert sentence.startswith("app1 (10.0.0.1:51820) and db1 (10.0.0.2:51820) have no handshake: allow UDP")


@pytest.mark.parametrize(("app1", "db1", "late"), [(1000.0, 700.0, "db1"), (700.0, 1000.0, "app1")])
def test_a_clock_that_was_set_back_is_named_where_a_handshake_fails(app1: float, db1: float, late: str):
    (sentence,) = mesh.silences(tunnel(LB1), {"app1": result(DB1, time_s=app1), "db1": result(APP1, time_s=db1)})
    assert f"the clock of {late} is 300 s behind" in sentence


def test_clocks_do_not_matter_where_all_answer():
    assert mesh.silences(tunnel(APP1), {"app1": result(), "db1": result(time_s=1.0)}) == []


# On a host


def test_private_and_pre_shared_keys_are_not_read_back():
    text = (
        "private\tpublic\t51820\toff\npeer1\tpsk\t10.0.0.2:51820\t10.210.0.2/32\t900\t1\t2\t25\npeer2\tpsk\t(none)\t(none)\t0\t0\t0\toff\n"
    )
    found = parse_dump(text, 1000)
    assert found["peers"]["peer1"] == {"addresses": ["10.210.0.2"], "endpoint": "10.0.0.2:51820", "handshake_s": 100}
    assert found["peers"]["peer2"]["handshake_s"] is None
    assert found["peers"]["peer2"]["addresses"] == []
    assert "private" not in str(found)
    assert "psk" not in str(found)


def test_a_kernel_has_wireguard_loaded_built_in_or_as_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.release", lambda: "6.1")
    assert not kernel_has_wireguard(str(tmp_path))
    folder = tmp_path / "lib/modules/6.1"
    folder.mkdir(parents=True)
    (folder / "modules.dep").write_text("kernel/drivers/net/tun.ko.xz:\n")
    assert not kernel_has_wireguard(str(tmp_path))
    (folder / "modules.builtin").write_text("kernel/drivers/net/wireguard/wireguard.ko\n")
    assert kernel_has_wireguard(str(tmp_path))


def inputs_of_role(*, kernel: bool) -> dict[str, Any]:
    return {
        "mesh_stack": "shop",
        "__mesh_tunnel": tunnel(APP1),
        "container_service_host_state": {"mesh": {"kernel": kernel}, "tools": {}},
    }


def role(name: str, *, kernel: bool) -> str:
    return str(role_variable("mesh", name, inputs_of_role(kernel=kernel)))


def role_units() -> dict[str, str]:
    """Return the text of the mesh's units by path."""
    rules = role_variable("mesh", "__mesh_rules_contents", inputs_of_role(kernel=True))
    return {UNIT: role("__mesh_unit_content", kernel=True), **rules}


@pytest.mark.parametrize("kernel", [True, False])
def test_the_interface_is_up_before_the_engine_and_by_a_program_that_a_shell_reads(kernel: bool, tmp_path: Path):
    unit = role("__mesh_unit_content", kernel=kernel)
    assert "Before=docker.service" in unit
    assert ("wireguard-go" in unit) is not kernel
    program = role("__mesh_program_content", kernel=kernel)
    assert f"address={APP1['address']}\n" in program
    path = tmp_path / "tunnel"
    path.write_text(program)
    assert subprocess.run(["/bin/sh", "-n", str(path)], check=False).returncode == 0


OTHERS = ["-P FORWARD ACCEPT", "-A FORWARD -o sw-shop2 -p tcp -j TCPMSS"]


class Rules:
    """A host's rules of the table mangle, and programs that change them as the real ones do."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, program = folder, folder / "rules", folder / "tunnel"
        program.write_text(role("__mesh_program_content", kernel=True))
        (folder / "iptables").write_text(
            '#!/bin/sh\nshift 4\ncase $1 in -S) cat "$RULES" ;; -A) echo "$*" >>"$RULES" ;;\n'
            '-C) shift; grep -qxF -e "-A $*" "$RULES" ;;\n'
            '-D) shift; grep -vxF -e "-A $*" "$RULES" >"$RULES.new"; mv "$RULES.new" "$RULES" ;; esac\n'
        )
        (folder / "ip").write_text('#!/bin/sh\n! [ -e "$RULES.down" ]\n')
        for name in ("iptables", "ip"):
            (folder / name).chmod(0o755)

    def run(self, step: str, rules: list[str], *, up: bool = True) -> list[str]:
        """Return the rules after the program's step; ``up`` is whether the interface is there."""
        self.file.write_text("".join(f"{rule}\n" for rule in rules))
        if not up:
            Path(f"{self.file}.down").touch()
        environment = {"PATH": f"{self.folder}:{os.environ['PATH']}", "RULES": str(self.file)}
        subprocess.run(["/bin/sh", str(self.folder / "tunnel"), step], env=environment, check=True)
        return self.file.read_text().splitlines()


def test_rules_of_an_address_of_before_go_with_the_interface(tmp_path: Path):
    own = ["-A PREROUTING -d 10.1.1.1/32 ! -i sw-shop -m addrtype ! --src-type LOCAL -j DROP", "-A FORWARD -o sw-shop -p tcp -j TCPMSS"]
    assert Rules(tmp_path).run("down", [*own, *OTHERS]) == OTHERS


def test_rules_that_others_have_removed_are_loaded_again(tmp_path: Path):
    """As a reload of nftables does, which begins with an empty ruleset."""
    host = Rules(tmp_path)
    forged, clamp = host.run("rules", [])
    assert forged == f"-A PREROUTING -d {APP1['address']}/32 ! -i sw-shop -m addrtype ! --src-type LOCAL -j DROP"
    assert clamp.startswith("-A FORWARD -o sw-shop ")
    assert clamp.endswith("-j TCPMSS --clamp-mss-to-pmtu")
    assert host.run("rules", [*OTHERS, forged, clamp]) == [*OTHERS, forged, clamp]
    assert host.run("rules", [clamp, *OTHERS]) == [clamp, *OTHERS, forged]
    # They are what the controller looks for, too.
    state = state_of(APP1)
    state["mesh"]["interface"]["rules"] = [forged, clamp]
    assert differences(state) == []
    # Without the interface, nothing would remove them.
    assert host.run("rules", OTHERS, up=False) == OTHERS


def unit_of(text: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    return unit


def test_rules_are_compared_every_ten_seconds_and_after_each_firewall_of_the_host_at_boot():
    contents = role_units()
    timer, service = (unit_of(contents[f"{UNIT.removesuffix('.service')}-rules.{kind}"]) for kind in ("timer", "service"))
    assert timer["Timer"]["OnCalendar"] == "*:*:0/10"
    assert timer["Install"]["WantedBy"] == "timers.target"
    assert service["Service"]["ExecStart"] == f"/bin/sh {folder_of('shop')}/tunnel rules"
    firewall = (ROOT / "roles/host/templates/firewall.service.j2").read_text()
    after = unit_of(contents[UNIT])["Unit"]["After"].split()
    assert set(after) == set(unit_of(firewall.partition("\n")[2])["Unit"]["After"].split())


@pytest.mark.parametrize("kind", ["timer", "service"])
def test_a_unit_that_the_next_boot_would_not_start_is_a_difference(kind: str):
    path = f"{UNIT.removesuffix('.service')}-rules.timer" if kind == "timer" else UNIT
    target = {"timer": "timers", "service": "multi-user"}[kind]
    state, text = state_of(APP1), role_units()[path]
    state["files"][path] = {"content": text}
    given = (tunnel(APP1), state, KEYS, SECRETS, {**FILES, path: text}, list(KEYS), "key")
    assert mesh.differences(*given) == [f"{Path(path).name} is not enabled"]
    state["files"][f"/etc/systemd/system/{target}.target.wants/{Path(path).name}"] = {"link": path}
    assert mesh.differences(*given) == []
    del state["files"][path]
    assert mesh.differences(*given) == [f"{path} differs"]


def test_what_keeps_the_rules_stops_before_the_interface_goes_and_its_files_go_too():
    units = role_variable("mesh", "__mesh_rules_units", inputs_of_role(kernel=True))
    stop, _down, remove = yaml.safe_load((ROOT / "roles/mesh/tasks/remove.yml").read_text())
    assert "__mesh_rules_units" in stop["loop"]
    assert [unit.rpartition(".")[2] for unit in units] == ["timer", "service"]
    left = {"mesh_stack": "shop", "__mesh_tunnel": {}, "container_service_host_state": {"mesh": {"kernel": True}, "files": {units[0]: {}}}}
    assert role_task("mesh", "remove.yml", stop["name"], "loop", left) == units[:1]
    assert set(role_task("mesh", "remove.yml", remove["name"], "loop", left)) == {folder_of("shop"), UNIT, *units}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("kernel", [True, False])
def test_systemd_takes_the_units(kernel: bool, tmp_path: Path):
    paths = [tmp_path / Path(unit).name for unit in role_units()]
    for path, text in zip(paths, role_units().values(), strict=True):
        path.write_text(role("__mesh_unit_content", kernel=kernel) if path.name == Path(UNIT).name else text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *map(str, paths)], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "slipway-shop-mesh" in line and "not executable" not in line]
    assert not said, done.stderr
