"""The load generator's HTTP/2 clients against a server that says goodbye, refuses, resets and dies."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest

from conftest import ROOT
from slipway_prober.meter import Meter
from slipway_prober.schedule import pace
from slipway_prober.settings import Settings

sys.path.insert(0, str(ROOT / "tests/load"))
from http2 import Http2Load

pytest_plugins = ["prober_fixtures"]

Behaviour = Callable[[int], str]


class Peer(asyncio.Protocol):
    """A server that treats the n-th request as it is configured, counted over all connections."""

    def __init__(self, count: Iterator[int], behave: Behaviour, streams: int) -> None:
        self.most = streams
        self.count = count
        self.behave = behave

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.http.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self.most})
        self.http.initiate_connection()
        self.leaving = 0
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.http.data_to_send())

    def answer(self, stream: int) -> None:
        self.http.send_headers(stream, [(":status", "200"), ("content-length", "2")])
        self.http.send_data(stream, b"ok", end_stream=True)
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.http.receive_data(data):
            # A server that has sent GOAWAY takes no more requests.
            if isinstance(event, h2.events.StreamEnded) and not (self.leaving and event.stream_id > self.leaving):
                self.request(event.stream_id)
        self.flush()

    def leave(self, last: int) -> None:
        """Send GOAWAY: requests after this one were not taken. The library would end all of them, so the frame is built here."""
        self.leaving = max(last, 1)
        self.transport.write(self.http.data_to_send())
        self.transport.write(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + last.to_bytes(4, "big") + bytes(4))
        asyncio.get_running_loop().call_later(0.2, self.transport.close)

    def request(self, stream: int) -> None:
        what = self.behave(next(self.count))
        if what == "goodbye":
            # This request is still answered, a while after the goodbye; what came behind it was not taken.
            self.leave(stream)
            asyncio.get_running_loop().call_later(0.1, self.answer, stream)
        elif what == "untaken":
            self.leave(max(0, stream - 2))
        elif what == "refuse":
            self.http.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        elif what == "reset":
            self.http.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        elif what == "cut":
            self.transport.abort()
        elif what == "answer":
            self.answer(stream)


def http2_load(certificate: Path, behave: Behaviour, timeout_seconds: float = 2, streams: int = 100) -> dict[str, Any]:
    """Run HTTP/2 clients on one connection against such a server, and return the numbers."""

    async def run() -> dict[str, Any]:
        count = itertools.count(1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.set_alpn_protocols(["h2"])
        server = await asyncio.get_running_loop().create_server(lambda: Peer(count, behave, streams), "127.0.0.1", 0, ssl=context)
        target = {"address": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "server_name": "localhost"}
        given = {"rate": 100, "post_share": 0.5, "post_path": "/p", "post_body": "xyz", "timeout_seconds": timeout_seconds}
        settings = Settings.parse({"targets": [target], "ca_file": str(certificate), **given})
        meter, stopped = Meter(), asyncio.Event()
        clients = Http2Load(settings, meter, 1)
        asyncio.get_running_loop().call_later(0.8, stopped.set)
        await pace(settings.rate, meter, [clients.submit], stopped)
        await clients.finish(3)
        server.close()
        return meter.snapshot()

    return asyncio.run(run())


def test_http2_clients_follow_a_goodbye_without_a_loss(certificate: Path):
    numbers = http2_load(certificate, lambda number: "goodbye" if number % 25 == 0 else "answer")
    assert numbers["requests"] >= 45
    assert numbers["failed"] == numbers["in_flight"] == 0, numbers["failures"]
    assert numbers["clients"]["http2"]["reopened"] >= 1


@pytest.mark.parametrize(("what", "counted"), [("refuse", "resent_after_refusal"), ("untaken", "resent_after_goaway")])
def test_http2_requests_that_were_not_taken_are_sent_again_and_counted_apart(certificate: Path, what: str, counted: str):
    numbers = http2_load(certificate, lambda number: what if number in {10, 11, 40} else "answer")
    assert numbers["failed"] == numbers["in_flight"] == 0, numbers["failures"]
    assert numbers["requests"] >= 45
    assert numbers["clients"]["http2"][counted] >= 3


@pytest.mark.parametrize(("what", "reason"), [("reset", "stream reset, code 2"), ("cut", "before an answer")])
def test_http2_requests_that_were_taken_and_lost_are_failures(certificate: Path, what: str, reason: str):
    numbers = http2_load(certificate, lambda number: what if number == 10 else "answer")
    assert numbers["failed"] >= 1
    assert reason in numbers["failures"][0]["reason"]
    assert numbers["failed"] < numbers["requests"] / 2


def test_http2_requests_without_an_answer_fail_in_time_and_give_their_place_back(certificate: Path):
    numbers = http2_load(certificate, lambda number: "answer" if number % 2 else "silence", timeout_seconds=0.3, streams=30)
    assert numbers["in_flight"] == 0
    assert 10 <= numbers["failed"] < numbers["requests"] - 10
    assert "no answer within 0.3 s" in {failure["reason"] for failure in numbers["failures"]}
