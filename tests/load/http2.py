"""Requests over HTTP/2 for tests and benchmarks: a few connections that carry many requests at once.

A connection that the server says goodbye to (GOAWAY) finishes the requests that the server took; those that it did not
take may be sent again elsewhere (RFC 9113, sections 6.8 and 8.7). They are counted apart and are no retries.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import Mapping
from typing import Any

from slipway_prober.answers import KEPT_BODY_BYTES, explained, version_in
from slipway_prober.meter import Meter
from slipway_prober.schedule import Job, Planner
from slipway_prober.settings import Settings, Target

try:
    import h2.config
    import h2.connection
    import h2.errors
    import h2.events
    import h2.exceptions
except ImportError as error:  # pragma: no cover - reported to the user of the command line
    raise SystemExit("HTTP/2 needs the Python package h2 (it comes with httpx[http2])") from error


@dataclasses.dataclass
class Stream:
    """A request under way on a connection."""

    job: Job
    connection: Http2Connection | None = None
    timer: asyncio.TimerHandle | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytearray = dataclasses.field(default_factory=bytearray)


def lasting_connection() -> h2.connection.H2Connection:
    """Return a client connection on which streams go on after a GOAWAY.

    The library ends its own state with the first GOAWAY, and with it streams that the server still answers.
    """
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    machine = connection.state_machine
    state = h2.connection.ConnectionState.CLIENT_OPEN
    machine._transitions = {**machine._transitions, (state, h2.connection.ConnectionInputs.RECV_GOAWAY): (None, state)}
    return connection


class Http2Connection(asyncio.Protocol):
    """One connection; its load hears of every request's end."""

    def __init__(self, load: Http2Load, target: Target) -> None:
        self._load = load
        self._target = target
        self._h2 = lasting_connection()
        self._transport: asyncio.Transport | None = None
        self.streams: dict[int, Stream] = {}
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._h2.initiate_connection()
        self._flush()

    @property
    def room(self) -> bool:
        """Whether one more request may begin here."""
        return self.usable and self._h2.open_outbound_streams < self._h2.remote_settings.max_concurrent_streams

    def begin(self, stream: Stream, headers: list[tuple[str, str]]) -> None:
        """Write a request."""
        number = self._h2.get_next_available_stream_id()
        self.streams[number] = stream
        stream.connection = self
        self._h2.send_headers(number, headers, end_stream=not stream.job.body)
        if stream.job.body:
            self._h2.send_data(number, stream.job.body, end_stream=True)
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self._end(f"HTTP/2: {error}")
            return
        for event in events:
            self._handle(event)
        self._flush()
        if not self.usable and not self.streams:
            self.close()

    def _handle(self, event: Any) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self._goodbye(event.last_stream_id or 0)
            return
        stream = self.streams.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if stream is not None and len(stream.body) < KEPT_BODY_BYTES:
                stream.body += event.data
        elif stream is None:
            return
        elif isinstance(event, h2.events.ResponseReceived):
            stream.headers = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            del self.streams[event.stream_id]
            self._load.answered(stream)
        elif isinstance(event, h2.events.StreamReset):
            del self.streams[event.stream_id]
            if event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM:
                self._load.again(stream, "resent_after_refusal")
            else:
                self._load.lost(stream, f"stream reset, code {int(event.error_code)}")

    def _goodbye(self, last: int) -> None:
        self.usable = False
        for number in [number for number in self.streams if number > last]:
            self._load.again(self.streams.pop(number), "resent_after_goaway")

    def forget(self, stream: Stream) -> None:
        """Give a request up and reset it at the server, so that its place is free again."""
        for number in [number for number, mine in self.streams.items() if mine is stream]:
            del self.streams[number]
            self._h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
        self._flush()

    def retire(self) -> None:
        """Take no more requests, and close when those under way are answered."""
        self.usable = False
        if not self.streams:
            self.close()

    def eof_received(self) -> bool:
        self._end("connection closed before an answer")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"{explained(error) if error else 'connection closed'} before an answer")

    def _end(self, reason: str) -> None:
        self.usable = False
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            self._load.lost(stream, reason)
        self.close()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.close()


class Slot:
    """A place for one connection at a time; an old one may still finish meanwhile."""

    def __init__(self) -> None:
        self.connection: Http2Connection | None = None
        self.waiting: list[Stream] = []
        self.connecting: asyncio.Task[None] | None = None


class Http2Load:
    """Spreads requests over a number of connections; counts as the HTTP/1.1 clients do."""

    def __init__(self, settings: Settings, meter: Meter, connections: int) -> None:
        self.settings = settings
        self._meter = meter
        context = settings.context("h2")
        if context is None:
            raise SystemExit("HTTP/2 is spoken through TLS only")
        self._context: ssl.SSLContext = context
        self._planner = Planner(settings)
        self._slots = {target: [Slot() for _ in range(max(1, connections // len(settings.targets)))] for target in settings.targets}
        self._turn = 0
        self._streams: dict[int, Stream] = {}

    def submit(self, due: float) -> None:
        """Send the next request, due at this time of the loop."""
        self._meter.in_flight += 1
        stream = Stream(self._planner.next(due))
        # Time runs while a request waits for a connection, too.
        stream.timer = asyncio.get_running_loop().call_at(due + self.settings.timeout_seconds, self._late, stream)
        self._begin(stream)

    def _begin(self, stream: Stream) -> None:
        slots = self._slots[stream.job.target]
        self._turn += 1
        slot = slots[self._turn % len(slots)]
        self._streams[id(stream)] = stream
        if slot.connection is not None and slot.connection.room:
            slot.connection.begin(stream, self._headers(stream.job))
            return
        slot.waiting.append(stream)
        if slot.connecting is None:
            slot.connecting = asyncio.get_running_loop().create_task(self._connect(slot, stream.job.target))

    async def _connect(self, slot: Slot, target: Target) -> None:
        """Open a slot's connection, and send what waits for it."""
        reason = ""
        if slot.connection is not None:
            # Either the server sent GOAWAY, or as many requests as it allows are under way.
            self._meter.count("reopened", client="http2")
            slot.connection.retire()
        try:
            _, slot.connection = await asyncio.wait_for(
                asyncio.get_running_loop().create_connection(
                    lambda: Http2Connection(self, target),
                    target.address,
                    target.port,
                    ssl=self._context,
                    server_hostname=target.server_name,
                ),
                self.settings.timeout_seconds,
            )
        except (OSError, asyncio.TimeoutError) as error:
            slot.connection = None
            reason = explained(error)
        finally:
            slot.connecting = None
        waiting, slot.waiting = slot.waiting, []
        for stream in waiting:
            if id(stream) not in self._streams:
                continue
            if reason:
                self.lost(stream, reason)
            elif slot.connection is not None and slot.connection.room:
                slot.connection.begin(stream, self._headers(stream.job))
            else:
                self._begin(stream)

    def _headers(self, job: Job) -> list[tuple[str, str]]:
        headers = [
            (":method", job.method),
            (":scheme", "https"),
            (":authority", self.settings.host_header(job.target)),
            (":path", job.path),
            ("user-agent", "slipway-load"),
        ]
        if job.method == "POST":
            headers += [("content-type", self.settings.post_content_type), ("content-length", str(len(job.body)))]
        return headers + [(name.lower(), value) for name, value in self.settings.headers]

    def _ended(self, stream: Stream) -> bool:
        """Take a request off the list, once."""
        if self._streams.pop(id(stream), None) is None:
            return False
        if stream.timer is not None:
            stream.timer.cancel()
        self._meter.in_flight -= 1
        return True

    def answered(self, stream: Stream) -> None:
        """Count a complete answer."""
        if not self._ended(stream):
            return
        headers: Mapping[str, str] = stream.headers
        status = int(headers.get(":status", "0"))
        version = version_in(self.settings, headers, stream.body)
        if self.settings.accepts(status):
            self._meter.succeeded(asyncio.get_running_loop().time() - stream.job.due, version, client="http2")
        else:
            self._fail(stream, f"status {status}", version)

    def lost(self, stream: Stream, reason: str) -> None:
        """Count a request without an answer."""
        if self._ended(stream):
            self._fail(stream, reason)

    def _late(self, stream: Stream) -> None:
        """Count a request whose answer did not come in time."""
        if stream.connection is not None:
            stream.connection.forget(stream)
        self.lost(stream, f"no answer within {self.settings.timeout_seconds:g} s")

    def again(self, stream: Stream, why: str) -> None:
        """Send a request that the server reported as not processed."""
        self._meter.count(why, client="http2")
        stream.connection, stream.headers, stream.body = None, {}, bytearray()
        if id(stream) in self._streams:
            self._begin(stream)

    def _fail(self, stream: Stream, reason: str, version: str = "") -> None:
        self._meter.failed(reason, str(stream.job.target), request=stream.job.name, version=version, client="http2")

    async def finish(self, seconds: float) -> None:
        """Wait for answers that are still due, then close all connections."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self._streams and loop.time() < end:
            await asyncio.sleep(0.02)
        for slots in self._slots.values():
            for slot in slots:
                if slot.connecting is not None:
                    slot.connecting.cancel()
                if slot.connection is not None:
                    slot.connection.close()
