#!/usr/bin/env python3
"""Load for tests and benchmarks: the prober's HTTP/1.1 clients and WebSockets, and HTTP/2 clients, through TLS.

Prints one JSON summary. Sends to this machine and to private addresses only: it must not overload anything else.

    python tests/load/load.py --target 127.0.0.1:8443 --server-name localhost --ca-file ca.pem --rate 200 \
        --path /api/sessions --post-share 0.5 --post-path /api/sessions --post-body '{}' --websockets 50 --seconds 60 --strict
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "packages/slipway_prober/src"), str(Path(__file__).resolve().parent)]

# Found through the line above.
from slipway_prober.control import write_json  # noqa: E402
from slipway_prober.http1 import Http1Load  # noqa: E402
from slipway_prober.meter import Meter  # noqa: E402
from slipway_prober.schedule import pace  # noqa: E402
from slipway_prober.settings import Settings, SettingsError  # noqa: E402
from slipway_prober.websocket import WebSocketLoad  # noqa: E402

WRITE_SECONDS = 0.25


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        description=__doc__,
        epilog="@FILE stands for the arguments in a file, one a line: support_desk.txt is the load of the example in tests and benchmarks.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    add = top.add_argument
    add("--target", action="append", required=True, metavar="ADDRESS:PORT", help="where to send; repeat for several balancers")
    add("--server-name", default="localhost", help="name that is asked for (SNI, Host, certificate)")
    add("--ca-file", default="", help="CA that the certificate must come from")
    add("--insecure", action="store_true", help="accept any certificate")
    add("--rate", type=float, default=200, help="requests a second, over both protocols")
    add("--http2-share", type=float, default=0.5, help="share of the requests that go over HTTP/2")
    add("--connections", type=int, default=80, help="keep-alive HTTP/1.1 connections")
    add("--http2-connections", type=int, default=8)
    add("--path", default="/health")
    add("--post-share", type=float, default=0)
    add("--post-path", default="")
    add("--post-body", default="{}")
    add("--post-content-type", default="application/json")
    add("--header", action="append", default=[], metavar="NAME: VALUE")
    add("--accept", action="append", default=[], metavar="200-399", help="statuses that count as answers")
    add("--version-header", default="")
    add("--version-json-field", default="")
    add("--websockets", type=int, default=0)
    add("--websocket-path", default="/ws")
    add("--websocket-ping-seconds", type=float, default=5)
    add("--timeout-seconds", type=float, default=10)
    add("--seconds", type=float, required=True, help="the longest that it runs; SIGTERM or SIGINT ends it in order before that")
    add("--result-file", type=Path, help="also write the numbers here, four times a second")
    add("--strict", action="store_true", help="exit 1 when a request failed, a WebSocket was cut or nothing was answered")
    return top


def is_loopback_or_private(address: str) -> bool:
    """Return whether an address (not a name) belongs to this machine or a private network."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (found.is_loopback or found.is_private) and not found.is_unspecified


def settings_of(options: argparse.Namespace) -> Settings:
    """Return what to send.

    Raises:
        SettingsError: An option is wrong, or an address is neither this machine's nor private.
    """
    targets = []
    for text in options.target:
        address, _, port = text.rpartition(":")
        address = "127.0.0.1" if address == "localhost" else address.strip("[]")
        if not is_loopback_or_private(address):
            raise SettingsError(f"{address} is not a loopback or private address; load goes to those alone")
        targets.append({"address": address, "port": port, "server_name": options.server_name})
    names = [
        *("rate", "connections", "path", "post_share", "post_path", "post_body", "post_content_type", "ca_file", "timeout_seconds"),
        *("version_header", "version_json_field", "websockets", "websocket_path", "websocket_ping_seconds"),
    ]
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    given["headers"] = dict(header.split(":", 1) for header in options.header)
    given["headers"] = {name.strip(): value.strip() for name, value in given["headers"].items()}
    if options.accept:
        given["accepted_statuses"] = options.accept
    return Settings.parse({**given, "targets": targets, "verify": not options.insecure})


def turns(share: float, http1: Callable[[float], None], http2: Callable[[float], None]) -> list[Callable[[float], None]]:
    """Return twenty turns, of which HTTP/2 has its share, evenly spread."""
    return [http2 if int((turn + 1) * share) > int(turn * share) else http1 for turn in range(20)]


async def run(options: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Send until the time is over or a signal comes, and return what was counted."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    meter = Meter()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.call_later(options.seconds, stopped.set)

    http1 = Http1Load(settings, meter)
    loads: list[Any] = [http1]
    submits: list[Callable[[float], None]] = [http1.submit]
    if options.http2_share > 0:
        from http2 import Http2Load  # noqa: PLC0415 - its package is needed for HTTP/2 only

        http2 = Http2Load(settings, meter, options.http2_connections)
        loads.append(http2)
        submits = turns(options.http2_share, http1.submit, http2.submit)
    websockets = WebSocketLoad(settings, meter)
    websockets.start()

    async def report() -> None:
        while options.result_file and not stopped.is_set():
            write_json(options.result_file, meter.snapshot())
            await asyncio.sleep(WRITE_SECONDS)

    await asyncio.gather(pace(settings.rate, meter, submits, stopped), report())
    meter.stop()
    await asyncio.gather(*(load.finish(settings.timeout_seconds) for load in loads), websockets.finish(2.0))
    used = resource.getrusage(resource.RUSAGE_SELF)
    numbers = meter.snapshot()
    numbers.pop("marks")
    numbers["cpu_share"] = round((used.ru_utime + used.ru_stime) / max(numbers["seconds"], 0.001), 3)
    if options.result_file:
        write_json(options.result_file, numbers)
    return numbers


def main() -> int:
    """Return 0, 1 for losses under --strict, or 2 for wrong options."""
    options = parser().parse_args()
    try:
        settings = settings_of(options)
        settings.context()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    numbers = asyncio.run(run(options, settings))
    json.dump(numbers, sys.stdout, indent=2)
    sys.stdout.write("\n")
    bad = numbers["failed"] or numbers["websockets_cut"] or numbers["websockets_refused"] or not numbers["requests"] or numbers["in_flight"]
    return 1 if options.strict and bad else 0


if __name__ == "__main__":
    sys.exit(main())
