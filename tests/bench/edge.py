# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that the balancer answers in a second, compared with those of an nginx without tuning, on the same host."""

from __future__ import annotations

import json
import re
import ssl
import statistics
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from lab import REPOSITORY, BenchError, Lab

NAME = "bench-edge"
FOLDER = "/var/lib/slipway-bench-edge"
#: Of the other nginx, on the host: one sends requests on, and one serves the same files itself.
UNTUNED_PORT = 18443
BARE_PORT = 18444
CONNECTIONS = 32
CONFIGURATION = f"""
server {{
    listen {UNTUNED_PORT} ssl;
    ssl_certificate {FOLDER}/server.pem;
    ssl_certificate_key {FOLDER}/server.key;
    location / {{ proxy_pass http://@SERVER@:3000; }}
}}
server {{
    listen {BARE_PORT} ssl;
    ssl_certificate {FOLDER}/server.pem;
    ssl_certificate_key {FOLDER}/server.key;
    root {FOLDER}/site;
}}
"""


def start(lab: Lab, host: str) -> None:
    """Run the other nginx, with the balancer's image, certificate and limits, on the network of the service that both ask."""
    stack = lab.variables[host]["slipway_stack"]
    balancer, server = f"{stack}-nginx", f"{stack}-frontend-blue-1"
    root = f"/etc/slipway/{stack}/nginx"
    limits = lab.read(host, f"docker inspect --format '{{{{.HostConfig.NanoCpus}}}} {{{{.Config.Image}}}}' {balancer}").split()
    lab.ssh(
        host,
        f"set -e; rm -rf {FOLDER}; mkdir -p {FOLDER}/site; docker cp {server}:/usr/share/nginx/html/. {FOLDER}/site; "
        f"cp {root}/config/current/server.pem {FOLDER}; cp {root}/secrets/*.key {FOLDER}/server.key; chmod -R a+rX {FOLDER}",
    )
    lab.write(host, f"{FOLDER}/default.conf", CONFIGURATION.replace("@SERVER@", "frontend-blue-1"))
    published = " ".join(f"--publish {port}:{port}" for port in (UNTUNED_PORT, BARE_PORT))
    lab.ssh(
        host,
        f"docker run --detach --rm --name {NAME} --network {stack}-frontend --cpus {int(limits[0]) / 1e9} {published} "
        f"--volume {FOLDER}:{FOLDER}:ro --volume {FOLDER}/default.conf:/etc/nginx/conf.d/default.conf:ro {limits[1]}",
    )


def stop(lab: Lab, host: str) -> None:
    """Remove it, if it is there."""
    lab.ssh(host, f"docker stop --time 1 {NAME} || true; rm -rf {FOLDER}")


def requests_a_second(url: str, name: str, seconds: int) -> float:
    """Return how many requests for a page are answered in a second, over connections that stay open.

    Raises:
        BenchError: An answer was an error, or there was none.
    """
    command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s", "--header", f"Host: {name}", url]
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    if not rate or "Non-2xx" in printed or "Socket errors" in printed:
        raise BenchError(f"{url}: wrk printed:\n{printed}")
    return float(rate[1])


def measure(lab: Lab, rounds: int, seconds: int, measured: dict[str, Any], say: Callable[[str], None]) -> None:
    """Add the requests a second of a page that is proxied and of a file, each of the balancer and of the other nginx, in turns."""
    host, site = lab.first, urlsplit(lab.url)
    name, address = site.hostname or "localhost", lab.variables[lab.first]["slipway_address"]
    start(lab, host)
    try:
        trusted = ssl.create_default_context(cafile=str(lab.inventory / "pki" / "ca.pem"))
        with urllib.request.urlopen(lab.url, context=trusted, timeout=10) as page:
            files = re.findall(r"/assets/[^\"']+\.js", page.read().decode())
        urls = {
            "proxied": f"https://{address}/",
            "proxied_untuned": f"https://{address}:{UNTUNED_PORT}/",
            "file": f"https://{address}{files[0]}",
            "file_bare": f"https://{address}:{BARE_PORT}{files[0]}",
        }
        rates: dict[str, list[float]] = defaultdict(list)
        for number in range(rounds):
            say(f"requests through the balancer, {number + 1} of {rounds}")
            for what, url in urls.items():
                rates[what].append(requests_a_second(url, name, seconds))
        measured["edge"] = {what: round(statistics.median(values), 1) for what, values in rates.items()}
    finally:
        stop(lab, host)


def measure_hostile(lab: Lab, count: int) -> dict[str, float]:
    """Return the p99 in ms of honest clients before and while hostile requests come, their ratio, and what became of their requests.

    Raises:
        BenchError: A hostile request was served, or nothing of an honest client was answered.
    """
    program = [sys.executable, str(REPOSITORY / "tests/load/hostile.py"), "--path", "/api/version", "--websocket-path", "/ws"]
    target = urlsplit(lab.url).netloc.replace("localhost", "127.0.0.1")
    done = subprocess.run([*program, "--target", target, "--count", str(count)], capture_output=True, text=True, check=False)
    if not done.stdout:
        raise BenchError(f"hostile requests: {done.stderr}")
    result = json.loads(done.stdout)
    if result["served"]:
        raise BenchError(f"hostile requests were served: {result['served']}")
    before, meanwhile = result["honest"]["before"], result["honest"]["meanwhile"]
    return {
        "p99_before_ms": before["latency_ms"]["p99"],
        "p99_ms": meanwhile["latency_ms"]["p99"],
        "p99_ratio": result["honest"]["p99_ratio"],
        "requests": meanwhile["requests"],
        "failed": meanwhile["failed"],
    }
