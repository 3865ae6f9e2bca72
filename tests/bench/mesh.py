# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what the mesh costs: TCP between two hosts of a lab through it, and over the network below it, in turns."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Callable
from typing import Any

from lab import BenchError, Lab

PORT = 5999
MEGABYTE = 1024 * 1024
ROUND_TRIPS = 200
UNIT = "slipway-bench"
#: Answers each byte of a connection, or takes all of it and answers when it has ended.
SERVER = f"""
import socket
server = socket.create_server(("0.0.0.0", {PORT}), backlog=8)
while True:
    connection = server.accept()[0]
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    echo = connection.recv(1) == b"e"
    while part := connection.recv({MEGABYTE}):
        if echo:
            connection.sendall(part)
    connection.sendall(b".")
    connection.close()
"""
#: Prints the seconds that so many megabytes took to arrive, and those of each round trip.
CLIENT = f"""
import json, socket, sys, time
address, megabytes = sys.argv[1], int(sys.argv[2])
def connect(kind):
    connection = socket.create_connection((address, {PORT}), 20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(kind)
    return connection
connection, trips = connect(b"e"), []
for _ in range({ROUND_TRIPS}):
    began = time.perf_counter()
    connection.sendall(b"x")
    connection.recv(1)
    trips.append(time.perf_counter() - began)
connection.close()
connection, block, began = connect(b"d"), bytes({MEGABYTE}), time.perf_counter()
for _ in range(megabytes):
    connection.sendall(block)
connection.shutdown(socket.SHUT_WR)
connection.recv(1)
print(json.dumps([time.perf_counter() - began, trips]))
"""


def mesh_address(lab: Lab, host: str) -> str:
    """Return a host's address in the mesh.

    Raises:
        BenchError: It has none.
    """
    found = lab.read(host, "ip -4 -json address show dev sw-slipway 2>/dev/null || true").strip()
    if not found:
        raise BenchError(f"{host} has no mesh")
    return str(json.loads(found)[0]["addr_info"][0]["local"])


def transfer(lab: Lab, client: str, address: str, megabytes: int) -> dict[str, float]:
    """Return the throughput in MB/s and the median round trip in ms from a host to an address."""
    seconds, trips = json.loads(lab.read(client, f"python3 -c {shlex.quote(CLIENT)} {address} {megabytes}"))
    return {"mb_s": megabytes / seconds, "round_trip_ms": 1000 * statistics.median(trips)}


def measure(lab: Lab, rounds: int, megabytes: int, measured: dict[str, Any], say: Callable[[str], None]) -> None:
    """Add the figures of both ways between an app host and that of the database, once the lab has a mesh."""
    client, server = "app1", "db1"
    ways = {"outside": str(lab.variables[server]["slipway_address"]), "mesh": mesh_address(lab, server)}
    # Of packets to an address of the mesh, the firewall lets only those through that come out of it; Docker's chains are not concerned.
    lab.read(server, f"systemd-run --unit {UNIT} --collect --quiet python3 -c {shlex.quote(SERVER)}")
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    try:
        for number in range(1, rounds + 1):
            say(f"mesh: {megabytes} MB through it and outside, {number} of {rounds}")
            for way, address in ways.items():
                found[way].append(transfer(lab, client, address, megabytes))
    finally:
        lab.read(server, f"systemctl stop {UNIT}")
    measured |= {
        way: {name: round(statistics.median(each[name] for each in transfers), 3) for name in ("mb_s", "round_trip_ms")}
        for way, transfers in found.items()
    }
    measured["kernel"] = lab.read(server, "ip -details link show dev sw-slipway").partition("wireguard")[1] != ""
