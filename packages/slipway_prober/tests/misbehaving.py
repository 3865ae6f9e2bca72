"""A server that misbehaves on request, through TLS, and clients that are run against it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from slipway_prober.http1 import Http1Load
from slipway_prober.meter import Meter
from slipway_prober.schedule import pace
from slipway_prober.settings import Settings
from slipway_prober.websocket import WebSocketLoad


class Server:
    """Answers each path in its own way, and counts what it read."""

    def __init__(self, certificate: Path) -> None:
        self.certificate = certificate
        self.port = 0
        self.seen: list[str] = []
        self.connections = 0
        self.websockets: list[asyncio.StreamWriter] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.status = 200
        self.idle_seconds = 60.0
        # How the next requests are answered, instead of by their path.
        self.script: list[str] = []
        # What a WebSocket gets with the answer to its handshake, and instead of that answer.
        self.greeting = b""
        self.handshake: bytes | None = None
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()

    def settings(self, **options: Any) -> Settings:
        target = {"address": "127.0.0.1", "port": self.port, "server_name": "localhost"}
        return Settings.parse({"targets": [target], "ca_file": str(self.certificate), "timeout_seconds": 2, **options})

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), self.idle_seconds)).decode()
                method, path, _ = head.split("\r\n")[0].split(" ")
                headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in head.split("\r\n")[1:]}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.seen.append(f"{method} {path} {body.decode()}".strip())
                if headers.get("upgrade") == "websocket" and path != "/none":
                    await self._websocket(headers["sec-websocket-key"], reader, writer)
                    return
                if not await self._answer(self.script.pop(0) if self.script else path, writer):
                    return
        except (asyncio.IncompleteReadError, asyncio.TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> bool:
        """Answer, and return whether the connection goes on."""
        await self.gate.wait()
        body = b'{"build": {"version": "1.2.3"}}'
        status = 404 if path == "/none" else self.status
        plain = b"HTTP/1.1 %d X\r\nX-Instance: blue\r\nContent-Length: %d\r\n" % (status, len(body))
        if path == "/reset":
            writer.transport.abort()
            return False
        if path == "/silence":
            return False
        if path == "/byte":
            writer.write(b"H")
            return False
        if path in {"/endless", "/endless-cut"}:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nall")
        if path in {"/endless-cut", "/cut"}:
            writer.write(b"" if path == "/endless-cut" else plain + b"\r\n" + body)
            # Once that is on its way, the connection ends without close_notify.
            await asyncio.sleep(0.05)
            writer.transport.abort()
        if path in {"/endless", "/endless-cut", "/cut"}:
            return False
        if path == "/half":
            writer.write(plain + b"\r\n" + body[:5])
            return False
        if path == "/close":
            writer.write(plain + b"Connection: close\r\n\r\n" + body)
            return False
        if path == "/chunked":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhel")
            await asyncio.sleep(0.01)
            writer.write(b"lo\r\n0\r\nTrailer: x\r\n\r\n")
            return True
        writer.write(plain + b"\r\n" + body)
        return True

    async def _websocket(self, key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        head = f"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        writer.write(head.encode() + self.greeting if self.handshake is None else self.handshake)
        if self.handshake is not None:
            return
        self.websockets.append(writer)
        try:
            while True:
                first, second = await reader.readexactly(2)
                mask = await reader.readexactly(4)
                payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(await reader.readexactly(second & 0x7F)))
                self.seen.append(f"frame {first & 0xF:x} {payload!r}")
                if first & 0xF == 8:
                    writer.write(bytes([0x88, len(payload)]) + payload)
                    return
                if first & 0xF == 9 and self.gate.is_set():
                    writer.write(bytes([0x8A, len(payload)]) + payload)
        finally:
            if writer in self.websockets:
                self.websockets.remove(writer)


Scene = Callable[[Server, Meter], Awaitable[None]]


def probed(
    certificate: Path,
    seconds: float,
    scene: Scene | None = None,
    *,
    setup: Callable[[Server], None] | None = None,
    patience: float = 2,
    **options: Any,
):
    """Run clients for a time against a new server, while a scene plays; return the numbers and the server.

    WebSockets get `patience` seconds to end in order.
    """

    async def run() -> tuple[dict[str, Any], Server]:
        server = Server(certificate)
        if setup:
            setup(server)
        async with server:
            settings = server.settings(**options)
            meter = Meter()
            load, websockets = Http1Load(settings, meter), WebSocketLoad(settings, meter)
            stopped = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, stopped.set)
            websockets.start()
            playing = asyncio.ensure_future(scene(server, meter)) if scene else None
            await pace(settings.rate, meter, [load.submit], stopped)
            meter.stop()
            await asyncio.gather(load.finish(settings.timeout_seconds), websockets.finish(patience))
            if playing:
                await playing
            return meter.snapshot(), server

    return asyncio.run(run())


def eventually(check: Callable[[], Any], seconds: float = 15) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.02)
    return None
