"""WebSocket clients against a server that misbehaves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from misbehaving import Server, probed

from slipway_prober.meter import Meter
from slipway_prober.websocket import WebSocketClient

pytest_plugins = ["prober_fixtures"]


def test_websockets_that_are_closed_with_going_away_reconnect_and_are_not_cut(certificate: Path):
    async def retires(server: Server, _: Meter) -> None:
        await asyncio.sleep(0.7)
        assert len(server.websockets) == 5
        for writer in list(server.websockets):
            writer.write(b"\x88\x02" + (1012).to_bytes(2, "big"))

    numbers, server = probed(
        certificate, 1.5, retires, rate=0, websockets=5, websocket_ping_seconds=0.1, websocket_reconnect_seconds=[0.1, 0.3]
    )
    assert numbers["websockets_closed"] == {"1012": 5}
    assert numbers["websockets_cut"] == numbers["websockets_refused"] == numbers["websockets_open"] == 0
    assert numbers["websockets"] == numbers["websockets_reconnected"] == 5
    assert numbers["websockets_opened"] == 10
    assert 100 <= numbers["longest_websocket_absence_ms"] <= 500
    assert "frame 9 b'slipway'" in server.seen
    # Our own goodbye at the end says why, and counts as nothing.
    assert server.seen.count("frame 8 b'\\x03\\xe8'") == 5


def test_websockets_that_end_without_a_close_frame_are_cut(certificate: Path):
    async def cuts(server: Server, _: Meter) -> None:
        await asyncio.sleep(0.7)
        first, second, third = server.websockets
        first.transport.abort()
        second.close()
        third.write(b"\x88\x00")

    numbers, _ = probed(certificate, 1.0, cuts, rate=0, websockets=3, websocket_reconnect_seconds=[5, 5], patience=0.1)
    assert numbers["websockets_cut"] == 2
    assert numbers["websockets_closed"] == {"1005": 1}
    assert all("cut without a close frame" in failure["reason"] for failure in numbers["failures"])
    assert numbers["failed"] == 0


def test_a_product_without_websockets_is_not_asked_for_them_again_and_again(certificate: Path):
    numbers, _ = probed(certificate, 1.0, rate=0, websockets=2, websocket_path="/none", websocket_reconnect_seconds=[0.05, 0.1])
    assert (numbers["websockets_refused"], numbers["websockets"], numbers["websockets_cut"], numbers["failed"]) == (2, 0, 0, 0)
    assert {failure["reason"] for failure in numbers["failures"]} == {"status 404"}


def test_a_websocket_that_answers_no_ping_is_cut(certificate: Path):
    async def hangs(server: Server, _: Meter) -> None:
        await asyncio.sleep(0.2)
        server.gate.clear()

    numbers, _ = probed(
        certificate,
        1.2,
        hangs,
        rate=0,
        websockets=1,
        websocket_ping_seconds=0.1,
        timeout_seconds=0.3,
        websocket_reconnect_seconds=[5, 5],
        patience=0.1,
    )
    assert numbers["websockets_cut"] == 1
    assert numbers["failures"][0]["reason"] == "no pong within 0.3 s"


def websocket_with(certificate: Path, greeting: bytes = b"", handshake: bytes | None = None) -> tuple[dict[str, Any], Server]:
    """Open one WebSocket, which gets this with the answer to its handshake or instead of that; return the numbers once it has ended."""

    async def run() -> tuple[dict[str, Any], Server]:
        async with Server(certificate) as server:
            server.greeting, server.handshake = greeting, handshake
            settings, meter = server.settings(websocket_reconnect_seconds=[60, 60]), Meter()
            client = WebSocketClient(settings, settings.context(), meter, settings.targets[0])
            running = asyncio.ensure_future(client.run(0))
            numbers: dict[str, Any] = {}
            for _ in range(1000):
                numbers = meter.snapshot()
                if numbers["websockets_closed"] or numbers["websockets_cut"] or numbers["websockets_refused"]:
                    break
                await asyncio.sleep(0.01)
            # What the client wrote last is still read by the server.
            await asyncio.sleep(0.05)
            running.cancel()
            return numbers, server

    return asyncio.run(run())


CLOSE = b"\x88\x02\x03\xf4"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x88\x00", 1005),
        (b"\x88\x02\x03\xe8", 1000),
        (b"\x88\x06\x03\xe9away", 1001),
        (b"\x88\x02\x03\xf3", 1011),
        (CLOSE, 1012),
        (b"\x88\x02\x0b\xb8", 3000),
        (b"\x01\x03par\x80\x02ts" + CLOSE, 1012),
        (b"\x82\x7e\x02\x00" + b"x" * 512 + CLOSE, 1012),
        (b"\x82\x7f" + (200_000).to_bytes(8, "big") + b"x" * 200_000 + CLOSE, 1012),
        (b"\x8a\x07unasked" + CLOSE, 1012),
    ],
    ids=["no code", "1000", "1001 with a reason", "1011", "1012", "3000", "fragments", "16 bits long", "64 bits long", "pong"],
)
def test_a_close_frame_ends_a_websocket_in_order_and_is_answered(certificate: Path, frame: bytes, code: int):
    numbers, server = websocket_with(certificate, frame)
    assert numbers["websockets_closed"] == {str(code): 1}, numbers
    assert (numbers["websockets_cut"], numbers["websockets_refused"], numbers["websockets_open"]) == (0, 0, 0)
    assert [seen[:7] for seen in server.seen if seen.startswith("frame")] == ["frame 8"]


def test_a_ping_between_fragments_is_answered_with_its_payload(certificate: Path):
    numbers, server = websocket_with(certificate, b"\x01\x03par\x89\x02hi\x80\x02ts" + CLOSE)
    assert numbers["websockets_closed"] == {"1012": 1}
    assert server.seen[1:] == ["frame a b'hi'", "frame 8 b'\\x03\\xf4'"]


@pytest.mark.parametrize(
    "frame",
    [
        b"\x81\x81aaaa\x00",
        b"\xc1\x01x",
        b"\x83\x00",
        b"\x89\x7e\x01\x00" + b"x" * 256,
        b"\x09\x00",
        b"\x80\x01x",
        b"\x88\x01x",
        b"\x81\x01\xff",
    ],
    ids=["masked", "reserved bit", "opcode", "long ping", "ping in fragments", "no beginning", "half a code", "no UTF-8"],
)
def test_frames_that_break_the_protocol_cut_a_websocket(certificate: Path, frame: bytes):
    numbers, _ = websocket_with(certificate, frame)
    assert (numbers["websockets_cut"], numbers["websockets_closed"]) == (1, {}), numbers
    assert numbers["failures"][0]["reason"].startswith("a WebSocket frame breaks the protocol: ")


UPGRADED = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "


@pytest.mark.parametrize(
    ("handshake", "reason"),
    [
        (b"", "cut during the handshake"),
        (b"HTTP/1.1 101 X\r\nUpgrade: webs", "cut during the handshake"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "status 200"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", "status 503"),
        (b"SSH-2.0-x\r\n\r\n", "no valid answer to the handshake: "),
        (UPGRADED + b"x\r\n\r\n", "no valid answer to the handshake: Bad accept token"),
        (UPGRADED + b"x" * 70_000, "no valid answer to the handshake: "),
    ],
    ids=["nothing", "half", "page", "error", "garbage", "accept", "head"],
)
def test_a_handshake_without_a_valid_answer_is_refused(certificate: Path, handshake: bytes, reason: str):
    numbers, _ = websocket_with(certificate, handshake=handshake)
    assert (numbers["websockets_refused"], numbers["websockets_opened"], numbers["websockets_cut"]) == (1, 0, 0), numbers
    assert numbers["failures"][0]["reason"].startswith(reason)
