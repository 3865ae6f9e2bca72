# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that keep WebSockets open, which wsproto parses."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator

import h11
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Pong, RejectConnection, Request
from wsproto.utilities import RemoteProtocolError

from .answers import AnswerError, explained
from .meter import Meter
from .settings import Settings, Target

#: Shortest wait in seconds before a WebSocket is asked for again that was refused with a status of 400 to 499.
UNWELCOME_SECONDS = 5.0


class WebSocketClient:
    """Keeps one WebSocket open, sends a ping now and then, and comes back with jitter when it was ended."""

    def __init__(self, settings: Settings, context: ssl.SSLContext | None, meter: Meter, target: Target) -> None:
        """Connect when run."""
        self._settings = settings
        self._context = context
        self._meter = meter
        self._target = target
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._socket = WSConnection(ConnectionType.CLIENT)
        self._events: AsyncIterator[Event]
        self._pong = asyncio.Event()
        self._unwelcome = False
        self._leaving = False

    async def run(self, delay: float) -> None:
        """Open after a delay and stay open until the prober stops."""
        gone: float | None = None
        loop = asyncio.get_running_loop()
        while not self._leaving:
            await asyncio.sleep(delay)
            try:
                await asyncio.wait_for(self._open(), self._settings.timeout_seconds)
            except (AnswerError, OSError, asyncio.TimeoutError, ValueError) as error:
                self._drop()
                self._meter.websocket_refused(explained(error), str(self._target))
            else:
                self._meter.websocket_opened(None if gone is None else loop.time() - gone)
                await self._stay()
                gone = loop.time()
            low, high = (UNWELCOME_SECONDS, 2 * UNWELCOME_SECONDS) if self._unwelcome else self._settings.websocket_reconnect_seconds
            delay = random.uniform(low, high)  # noqa: S311 - jitter, no secret

    async def _open(self) -> None:
        target, settings = self._target, self._settings
        self._reader, self._writer = await asyncio.open_connection(
            target.address, target.port, ssl=self._context, server_hostname=target.server_name if self._context else None
        )
        self._socket = WSConnection(ConnectionType.CLIENT)
        self._events = self._received(self._reader, self._socket)
        host = settings.host_header(target)
        headers = [(name.encode(), value.encode("latin-1")) for name, value in settings.headers]
        if "origin" not in {name.lower() for name, _unused in settings.headers}:
            headers.append((b"Origin", f"{'https' if settings.tls else 'http'}://{host}".encode()))
        self._send(Request(host=host, target=settings.websocket_path, extra_headers=headers))
        answer = await anext(self._events, None)
        # A product without such a path, or with a login before it: nothing to come back to at once.
        self._unwelcome = isinstance(answer, RejectConnection) and 400 <= answer.status_code < 500
        if isinstance(answer, RejectConnection):
            raise AnswerError(f"status {answer.status_code}")
        if not isinstance(answer, AcceptConnection):
            raise AnswerError("cut during the handshake")

    @staticmethod
    async def _received(reader: asyncio.StreamReader, socket: WSConnection) -> AsyncIterator[Event]:
        """Yield what comes until the stream ends.

        Raises:
            AnswerError: It breaks the protocol.
        """
        while data := await reader.read(65536):
            try:
                socket.receive_data(data)
                for event in socket.events():
                    # The parser says so with a close of its own, which no server has sent.
                    if isinstance(event, CloseConnection) and socket.state is ConnectionState.OPEN:
                        raise AnswerError(f"a WebSocket frame breaks the protocol: {event.reason}")
                    yield event
            except (RemoteProtocolError, h11.RemoteProtocolError) as error:
                raise AnswerError(f"no valid answer to the handshake: {error}") from error

    async def _stay(self) -> None:
        """Read events until the WebSocket ends, and count how it did."""
        pings = asyncio.get_running_loop().create_task(self._ping())
        code: int | None = None
        reason = "cut without a close frame"
        try:
            code = await self._close_code()
        except AnswerError as error:
            reason = str(error)
        except OSError as error:
            reason = f"cut without a close frame: {explained(error)}"
        finally:
            silent = pings.done() and not pings.cancelled() and pings.exception() is None
            pings.cancel()
            self._drop()
            if self._leaving:
                self._meter.websocket_left()
            else:
                waited = self._settings.timeout_seconds
                self._meter.websocket_closed(code, f"no pong within {waited:g} s" if silent else reason, str(self._target))

    async def _close_code(self) -> int | None:
        """Return the code of the server's close frame, 1005 for none in it, and None where the stream ends without that frame."""
        async for event in self._events:
            if isinstance(event, Ping):
                self._send(event.response())
            elif isinstance(event, Pong):
                self._pong.set()
            elif isinstance(event, CloseConnection):
                if not self._leaving:
                    self._send(event.response())
                return int(event.code)
        return None

    async def _ping(self) -> None:
        """Send pings, and drop the connection when one stays without a pong."""
        while True:
            # Not all clients at the same time.
            await asyncio.sleep(self._settings.websocket_ping_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            self._pong.clear()
            self._send(Ping(b"slipway"))
            try:
                await asyncio.wait_for(self._pong.wait(), self._settings.timeout_seconds)
            except (asyncio.TimeoutError, TimeoutError):
                self._drop()
                return

    def _send(self, event: Event) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(self._socket.send(event))

    def _drop(self) -> None:
        if self._writer is not None:
            # What was written goes out first; a peer that takes nothing is not waited for.
            self._writer.close()
            asyncio.get_running_loop().call_later(1, self._writer.transport.abort)
        if self._reader is not None and not self._reader.at_eof():
            self._reader.feed_eof()

    def leave(self) -> None:
        """Say goodbye; the server's answer ends the task."""
        self._leaving = True
        if self._socket.state is ConnectionState.OPEN:
            self._send(CloseConnection(code=1000))


class WebSocketLoad:
    """Keeps a number of WebSockets open."""

    def __init__(self, settings: Settings, meter: Meter) -> None:
        """Share the WebSockets among the targets."""
        context = settings.context("http/1.1")
        targets = settings.targets
        self._count = settings.websockets
        self._clients = [WebSocketClient(settings, context, meter, targets[index % len(targets)]) for index in range(settings.websockets)]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Open them all, spread over half a second."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(client.run(0.5 * index / self._count)) for index, client in enumerate(self._clients)]

    async def finish(self, seconds: float) -> None:
        """Close them all in order and wait that long for the server's answers."""
        for client in self._clients:
            client.leave()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
