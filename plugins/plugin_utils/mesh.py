# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The encrypted network between the hosts of a stack: addresses, peers, what is wrong with them, and what differs on a host.

Pure functions: what the topology says of a host's tunnel, and what host_state read, go in. Topology.mesh() documents a tunnel.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.slipway.stack.plugins.module_utils.mesh import (
    PEERS,
    PRIVATE_KEY,
    PROGRAM,
    PUBLIC_KEY,
    SECRET_ID,
    address_lines,
    folder_of,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.digest import keyed_digest
from ansible_collections.slipway.stack.plugins.plugin_utils.preflight import Problem

#: A tunnel that carries keepalives has a handshake every two minutes; one without is closed after three.
HANDSHAKE_SECONDS = 190
#: Clocks that differ by more are named where a handshake fails.
CLOCK_SECONDS = 30
#: The smallest range: addresses are taken from it by a digest of the host's name, and few hosts must not share one.
WIDEST_PREFIX = 24
#: What to do where the inventory has other addresses than hosts.
SET_BACK = "set slipway_mesh_range and slipway_mesh_address as they were"
#: Addresses that the Internet has not: private ones (RFC 1918), those of providers (RFC 6598), and those of benchmarks (RFC 2544).
UNROUTED = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15")


def address_in(network: str, host: str) -> str:
    """Return the address of a host in a range. It depends on these two alone, so other hosts may come and go.

    Raises:
        ValueError: The range is not an IPv4 network.
    """
    found = ipaddress.IPv4Network(network)
    # Neither the first address nor the last one, which mean the network and all of its hosts.
    number = int.from_bytes(hashlib.sha256(host.encode()).digest()[:8], "big") % (found.num_addresses - 2)
    return str(found[number + 1])


def range_problem(network: Any) -> str:
    """Return why a value cannot be the range of the mesh, or ""."""
    try:
        found = ipaddress.IPv4Network(network)
    except ValueError as error:
        return f"must be an IPv4 network such as 10.210.0.0/16: {error}"
    if found.prefixlen > WIDEST_PREFIX:
        return f"must be a network of /{WIDEST_PREFIX} or larger, such as {found.supernet(new_prefix=16)}"
    if not any(found.subnet_of(ipaddress.IPv4Network(unrouted)) for unrouted in UNROUTED):
        return f"must be within {', '.join(UNROUTED[:-1])} or {UNROUTED[-1]}: hosts reach no other machine at addresses of the mesh"
    return ""


def address_problems(network: str, addresses: Mapping[str, str]) -> list[Problem]:
    """Return which addresses of hosts are not in the range, or those of two hosts."""
    found = ipaddress.IPv4Network(network)
    problems = []
    seen: dict[str, str] = {}
    for host, address in addresses.items():
        parsed = ipaddress.IPv4Address(address)
        if parsed not in found or parsed in (found.network_address, found.broadcast_address):
            problems.append(Problem(host, f"slipway_mesh_address is {address}, must be that of a host in {network} (slipway_mesh_range)"))
        elif seen.setdefault(address, host) != host:
            free = next(str(other) for other in found.hosts() if str(other) not in addresses.values())
            problems.append(
                Problem(
                    host,
                    f"has the mesh address {address}, as host {seen[address]} does; set slipway_mesh_address of the one that has no mesh "
                    f"yet, as {free}",
                )
            )
    return problems


def overlap_problems(host: str, state: Mapping[str, Any], network: str, interface: str) -> list[Problem]:
    """Return the routes and container networks of a host that the range of the mesh overlaps.

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        network: The range.
        interface: Name of the mesh's own interface, which has a route to the range.
    """
    wanted = ipaddress.IPv4Network(network)
    taken = {
        route["network"]: f"the route to {route['network']} over {route['interface']}"
        for route in (state.get("host") or {}).get("routes") or ()
        if route["interface"] != interface
    }
    for name, described in (state.get("networks") or {}).items():
        # One over the route of its bridge, as it says which network that is.
        taken |= {subnet: f"the container network {name} ({subnet})" for subnet in described.get("subnets") or () if ":" not in subnet}
    return [
        Problem(host, f"slipway_mesh_range {network} overlaps {what}: set slipway_mesh_range to a range that no host uses")
        for subnet, what in taken.items()
        if subnet and (other := ipaddress.IPv4Network(subnet, strict=False)).prefixlen and other.overlaps(wanted)
    ]


def support_problems(host: str, state: Mapping[str, Any]) -> list[Problem]:
    """Return why a host cannot have an encrypted network: neither its kernel nor a program could make the interface."""
    mesh = state.get("mesh") or {}
    if mesh.get("kernel", True) or mesh.get("tun", True):
        return []
    return [
        Problem(host, "has neither WireGuard in its kernel nor /dev/net/tun for wireguard-go: load one of them, or set slipway_mesh: false")
    ]


def address_there(state: Mapping[str, Any], stack: str) -> str:
    """Return the address in the mesh that a host was given, "" where it has none."""
    program = (state.get("files") or {}).get(f"{folder_of(stack)}/{PROGRAM}") or {}
    found = re.search(r"^address=(\S+)$", program.get("content", ""), re.MULTILINE)
    return found[1] if found else ""


class Found(NamedTuple):
    """A host of the stack as a run found it.

    Attributes:
        host: Its name in the inventory.
        state: What host_state read there.
        stack: The stack's name.
        outer: Its address without the mesh.
        address: That at which its services are to listen for other hosts; another one where it is to have the mesh.
        ports: What it publishes, as the topology says.
        chosen: Whether the inventory says that it is to have the mesh, or not.
    """

    host: str
    state: Mapping[str, Any]
    stack: str
    outer: str
    address: str
    ports: Iterable[Mapping[str, Any]] = ()
    chosen: bool = True

    @property
    def wanted(self) -> bool:
        """Return whether it is to have the mesh."""
        return self.address != self.outer

    @property
    def there(self) -> bool:
        """Return whether it has the mesh, up or not."""
        return f"{folder_of(self.stack)}/{PROGRAM}" in self.state["files"]

    @property
    def leaves(self) -> str:
        """Return the address in the mesh that it has and is to change for another one, or ""."""
        address = address_there(self.state, self.stack)
        return address if self.wanted and address != self.address else ""

    @property
    def served_outside(self) -> list[str]:
        """Return the containers that serve other hosts without the mesh, and that the mesh would move."""
        moving = {f"{self.outer}:{port['port']}" for port in self.ports if port.get("address") == self.address}
        containers = self.state.get("containers") or {}
        return sorted(
            name for name, container in containers.items() if any(moving.intersection(ends) for ends in container["ports"].values())
        )


def unasked_problems(found: Iterable[Found]) -> list[Problem]:
    """Return the problem that site.yml would move services into a mesh that the stack has by default alone."""
    moved = {end.host: names for end in found if end.wanted and not end.chosen and (names := end.served_outside)}
    where = "; ".join(f"{', '.join(names)} on {host}" for host, names in moved.items())
    return [_unasked(f" ({where} would move, which restarts stores)")] if moved else []


def moved_problems(found: Iterable[Found]) -> list[Problem]:
    """Return the problem that site.yml would give hosts whose services run other addresses in the mesh.

    The interface changes before the services that are published there, so the product is without its stores meanwhile.
    """
    hosts = list(found)
    moved = [f"{end.host} from {end.leaves} to {end.address}" for end in hosts if end.leaves]
    if not moved or not any(end.state.get("containers") for end in hosts):
        return []
    return [
        Problem(
            "",
            f"addresses in the mesh change ({', '.join(moved)}), and hosts reach no services of each other until all have moved: "
            f"{SET_BACK}, or make it a planned change: playbooks/site.yml -e accept=restart (docs/mesh.md)",
        )
    ]


def pending_problems(found: Iterable[Found]) -> list[Problem]:
    """Return the problems that hosts have no mesh yet, or one still, for runs that leave that to site.yml."""
    hosts = list(found)
    if not any(end.state.get("containers") for end in hosts):
        # Its first run is that of site.yml, whatever it is to have.
        return []
    if any(end.wanted and not end.chosen for end in hosts) and not any(end.there for end in hosts):
        return [_unasked()]
    yet = "has no mesh yet, which site.yml brings up: run site.yml first, or set slipway_mesh: false until then"
    still = "still has the mesh, which site.yml takes down: run site.yml first, or set slipway_mesh: true until then"
    return [Problem(end.host, yet if end.wanted else still) for end in hosts if end.wanted != end.there] + [
        Problem(
            end.host,
            f"has the address {end.leaves} in the mesh and is to have {end.address}, which site.yml changes: run site.yml first, or "
            f"{SET_BACK}",
        )
        for end in hosts
        if end.leaves
    ]


def _unasked(moved: str = "") -> Problem:
    return Problem(
        "",
        f"this stack runs without a mesh, which stacks of several hosts have by default{moved}: set slipway_mesh: false in group_vars/all "
        "to keep it as it is, or true to turn the mesh on, which is a planned change (docs/mesh.md)",
    )


def _derived(secret: str, *context: str) -> bytes:
    """Return 32 bytes by HKDF with SHA-256 as RFC 5869 has it, without salt: they are its first block."""
    extracted = hmac.new(bytes(hashlib.sha256().digest_size), secret.encode(), hashlib.sha256).digest()
    return hmac.new(extracted, "\0".join(context).encode() + b"\x01", hashlib.sha256).digest()


def pair_key(secrets: Mapping[str, str]) -> str:
    """Return the pre-shared key of two hosts in base64, the same for both.

    Args:
        secrets: By the names of the two, the secret that the host's key belongs to. In a rotation these may be two.
    """
    names = sorted(secrets)
    one, other = (secrets[name] for name in names)
    return base64.b64encode(_derived(one if one == other else f"{one}\0{other}", "slipway mesh pre-shared key", *names)).decode()


def secret_id(secret: str) -> str:
    """Return a name of a secret, which does not disclose it."""
    return _derived(secret, "slipway mesh secret id")[:8].hex()


def secrets_in_use(
    tunnel: Mapping[str, Any], hostvars: Mapping[str, Any], keys: Mapping[str, str], values: Sequence[str]
) -> dict[str, str]:
    """Return the secret that the key of a host and those of its peers belong to, by host.

    Args:
        tunnel: What the topology says, empty for a host without a mesh.
        hostvars: The variables of all hosts.
        keys: Public keys by host, as public_keys returns them.
        values: The secret, and that of its ``_next``, ``_previous`` and ``_retired``; "" where there is none.
    """
    if not tunnel:
        return {}
    current, _following, previous, _retired = values
    by_id = {secret_id(value): value for value in values if value}
    found = {}
    for end in (tunnel, *tunnel["peers"]):
        host = hostvars[end["host"]]
        made = (host.get("__mesh_key") or {}).get("secret_id")
        files = (host.get("container_service_host_state") or {}).get("files") or {}
        noted = made or (files.get(f"{folder_of(tunnel['stack'])}/{SECRET_ID}") or {}).get("content", "").strip()
        # A key without a note is older than notes are, so no rotation has made it. One that is to be made belongs to the secret in use.
        without = (previous or current) if keys[end["host"]] else current
        found[end["host"]] = by_id.get(noted, current) if noted and keys[end["host"]] else without
    return found


def public_keys(tunnel: Mapping[str, Any], hostvars: Mapping[str, Any]) -> dict[str, str]:
    """Return the public keys of a host and of its peers, by host; "" where it is not known.

    A key that this run has made is newer than what was read before. Of a host that the run does not reach, its peer knows the key.
    """
    if not tunnel:
        return {}
    own = hostvars[tunnel["host"]]["container_service_host_state"]
    interface = (own.get("mesh") or {}).get("interface") or {}
    by_address = {address: key for key, peer in (interface.get("peers") or {}).items() for address in peer["addresses"]}
    found = {}
    for peer in [tunnel, *tunnel["peers"]]:
        values = hostvars[peer["host"]]
        made = (values.get("__mesh_key") or {}).get("public_key")
        files = (values.get("container_service_host_state") or {}).get("files")
        public, private = (f"{folder_of(tunnel['stack'])}/{name}" for name in (PUBLIC_KEY, PRIVATE_KEY))
        if files is None:
            known = by_address.get(peer["address"], "")
        else:
            # One that was read and has none was installed again: the key that its peers know is of no use.
            known = (files.get(public) or {}).get("content", "").strip() if private in files else ""
        found[peer["host"]] = made or known
    return found


def peers_text(
    tunnel: Mapping[str, Any],
    keys: Mapping[str, str],
    secrets: Mapping[str, str],
    upcoming: Mapping[str, str] | None = None,
    upcoming_secret: str = "",
    *,
    switched: bool = False,
) -> str:
    """Return the peers of a host as ``wg syncconf`` reads them; those whose key is not known yet are left out.

    Args:
        tunnel: What the topology says.
        keys: Public keys by host, as public_keys returns them.
        secrets: What pre-shared keys are derived from, by host, as secrets_in_use returns it.
        upcoming: Public keys that hosts are about to use. Each is a second peer that may open a session, and has no address yet.
        upcoming_secret: The secret that these keys belong to.
        switched: Whether the host itself uses its upcoming key.
    """
    blocks = []
    own = upcoming_secret if switched else secrets.get(tunnel["host"], "")
    for peer in sorted(tunnel["peers"], key=lambda item: item["host"]):
        allowed, keepalive = address_lines(peer["address"])
        for key, secret, active in (
            (keys[peer["host"]], secrets[peer["host"]], True),
            ((upcoming or {}).get(peer["host"], ""), upcoming_secret, False),
        ):
            if key:
                lines = (
                    f"# {peer['host']}",
                    "[Peer]",
                    f"PublicKey = {key}",
                    f"PresharedKey = {pair_key({tunnel['host']: own, peer['host']: secret})}",
                    *([allowed] if active else []),
                    f"Endpoint = {peer['endpoint']}:{peer['port']}",
                    *([keepalive] if active else []),
                )
                blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def limit_problems(
    tunnel: Mapping[str, Any], keys: Mapping[str, str], reached: Collection[str], state: Mapping[str, Any], *, rotating: bool = False
) -> list[str]:
    """Return why a run that does not reach all hosts cannot bring the mesh to this one.

    Args:
        tunnel: What the topology says, empty for a host without one.
        keys: Public keys by host, as public_keys returns them.
        reached: The hosts of the run.
        state: What host_state read on this host.
        rotating: Whether hosts may have keys of two secrets.
    """
    left = [peer["host"] for peer in tunnel["peers"] if peer["host"] not in reached] if tunnel else []
    if left and rotating:
        return [f"the secret of the mesh is being rotated, and the run leaves out {', '.join(left)}: run again without --limit"]
    if left and (moved := _moved(tunnel, keys, state)):
        return [
            f"the address of {', '.join(moved)} in the mesh changes, and the run leaves out {', '.join(left)}: run again without --limit"
        ]
    unknown = [host for host in left if not keys[host]]
    if unknown:
        return [f"the key of {', '.join(unknown)} for the mesh is not known here, and the run leaves it out: run again without --limit"]
    if left and not keys[tunnel["host"]]:
        return [
            f"it gets a new key for the mesh, which {', '.join(left)} must know, and the run leaves them out: run again without --limit"
        ]
    return []


def _moved(tunnel: Mapping[str, Any], keys: Mapping[str, str], state: Mapping[str, Any]) -> list[str]:
    """Return the hosts that are known here at another address than the topology says."""
    peers = state["mesh"]["interface"].get("peers") or {}
    known = {end["host"]: (peers.get(keys[end["host"]]) or {}).get("addresses") or [] for end in tunnel["peers"]}
    known[tunnel["host"]] = list(filter(None, [address_there(state, tunnel["stack"])]))
    return sorted(end["host"] for end in (tunnel, *tunnel["peers"]) if known[end["host"]] and end["address"] not in known[end["host"]])


def differences(
    tunnel: Mapping[str, Any],
    state: Mapping[str, Any],
    keys: Mapping[str, str],
    secrets: Mapping[str, str],
    files: Mapping[str, str],
    reached: Collection[str],
    key: str,
) -> list[str]:
    """Return what differs on a host from its tunnel, as sentences; of a host without one, that one is left there.

    Args:
        tunnel: What the topology says, empty for a host without one.
        state: What host_state read there.
        keys: Public keys by host, as public_keys returns them.
        secrets: What pre-shared keys are derived from, by host, as secrets_in_use returns it.
        files: The units and their program: their text by path.
        reached: The hosts of the run: others may be down, which a change of this host does not repair.
        key: The key of digests of files.
    """
    found_files, interface = state["files"], state["mesh"]["interface"]
    if not tunnel:
        return ["the mesh is off"] if any(path in found_files for path in files) else []
    if not keys[tunnel["host"]]:
        return ["it has no key for the mesh"]
    reasons = []
    peers = found_files.get(f"{folder_of(tunnel['stack'])}/{PEERS}") or {}
    unknown = sorted(peer["host"] for peer in tunnel["peers"] if not keys[peer["host"]])
    if unknown:
        reasons.append(f"keys of peers are not known yet: {', '.join(unknown)}")
    elif peers.get("digest") != keyed_digest(key, peers_text(tunnel, keys, secrets)):
        reasons.append("peers of the mesh differ")
    reasons += [f"{path} differs" for path, text in files.items() if (found_files.get(path) or {}).get("content") != text]
    # What the next boot starts counts as much as what runs: published ports would be open after it.
    wanted = {path: target for path, text in files.items() for target in re.findall(r"^WantedBy=(\S+)$", text, re.MULTILINE)}
    reasons += [
        f"{os.path.basename(path)} is not enabled"
        for path, target in wanted.items()
        if f"{os.path.dirname(path)}/{target}.wants/{os.path.basename(path)}" not in found_files
    ]
    private = [f"{folder_of(tunnel['stack'])}/{name}" for name in (PRIVATE_KEY, PEERS)]
    modes = {path: (found_files[path]["mode"], found_files[path]["uid"]) for path in private if path in found_files}
    reasons += [f"{path} has mode {mode} and owner {uid}" for path, (mode, uid) in modes.items() if (mode, uid) != ("0600", 0)]
    return reasons + _interface_differences(tunnel, interface, keys, (state.get("host") or {}).get("addresses") or (), reached)


def _interface_differences(
    tunnel: Mapping[str, Any], interface: Mapping[str, Any], keys: Mapping[str, str], addresses: Collection[str], reached: Collection[str]
) -> list[str]:
    """Return what differs in the kernel from a tunnel."""
    if not interface:
        return [f"the interface {tunnel['interface']} is not up"]
    reasons = []
    if interface["public_key"] != keys[tunnel["host"]] or tunnel["address"] not in addresses or interface["port"] != tunnel["port"]:
        reasons.append(f"the interface {tunnel['interface']} has another key, address or port")
    wanted = {keys[peer["host"]]: peer for peer in tunnel["peers"] if keys[peer["host"]]}
    if {key: [peer["address"]] for key, peer in wanted.items()} != {key: peer["addresses"] for key, peer in interface["peers"].items()}:
        reasons.append(f"the interface {tunnel['interface']} has other peers")
    if not any("TCPMSS" in rule for rule in interface["rules"]) or not any(
        f"-d {tunnel['address']}/32" in rule and rule.endswith("DROP") for rule in interface["rules"]
    ):
        reasons.append("rules of the mesh are not loaded")
    silent = sorted(
        peer["host"]
        for key, peer in wanted.items()
        if key in interface["peers"]
        and peer["host"] in reached
        and (interface["peers"][key]["handshake_s"] is None or interface["peers"][key]["handshake_s"] > HANDSHAKE_SECONDS)
    )
    return reasons + ([f"no handshake with {', '.join(silent)}"] if silent else [])


def silences(tunnel: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the pairs of hosts without a handshake, a sentence each.

    Args:
        tunnel: What the topology says of one of the hosts, and its peers.
        results: By host what mesh_handshakes returned: the ``silent`` addresses, and its clock as ``time_s``.
    """
    ends = {end["address"]: end for end in (tunnel, *tunnel["peers"])}
    pairs = {tuple(sorted((host, ends[address]["host"]))) for host, result in results.items() for address in result["silent"]}
    where = {end["host"]: f"{end['host']} ({end['endpoint']}:{end['port']})" for end in ends.values()}
    sentences = []
    for one, other in sorted(pairs):
        text = f"{where[one]} and {where[other]} have no handshake"
        apart = results[one]["time_s"] - results[other]["time_s"] if one in results and other in results else 0
        if abs(apart) > CLOCK_SECONDS:
            late, early = (other, one) if apart > 0 else (one, other)
            text += (
                f", and the clock of {late} is {abs(apart):.0f} s behind that of {early}: a clock that was set back makes handshakes fail; "
                "correct it (timedatectl set-ntp true)"
            )
        else:
            text += ": allow UDP between these addresses and ports, in both directions"
        sentences.append(text)
    return sentences
