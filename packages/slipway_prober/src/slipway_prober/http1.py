# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep-alive clients of HTTP/1.1, which h11 parses."""

from __future__ import annotations

import asyncio
import dataclasses
import select
import ssl
from collections import deque

import h11

from .answers import KEPT_BODY_BYTES, AnswerError, UnansweredError, explained, version_in
from .meter import Meter
from .schedule import IDEMPOTENT_METHODS, Job, Planner
from .settings import Settings, Target

LONGEST_HEAD = 65536


@dataclasses.dataclass
class Answer:
    """What came back for a request."""

    status: int = 0
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytearray = dataclasses.field(default_factory=bytearray)


def ends_in_order(transport: asyncio.BaseTransport) -> bool:
    """Return whether a stream that has ended was not cut: one through TLS says so by close_notify (RFC 9112, section 9.8)."""
    encrypted = transport.get_extra_info("ssl_object")
    try:
        return encrypted is None or encrypted.read(1) == b""
    except ssl.SSLError:
        return False


class Http1Connection(asyncio.Protocol):
    """A keep-alive connection that has one request under way at most."""

    def __init__(self) -> None:
        """Wait to be connected."""
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD)
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._answer = Answer()
        # Whether a byte of the answer that is waited for has come.
        self._begun = False
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        self._transport = transport  # type: ignore[assignment]
        raw = transport.get_extra_info("socket")
        if raw is not None:
            self._poll = select.poll()
            self._poll.register(raw.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Read a part of the answer; unexpected bytes end the connection."""
        if self._waiting is None or self._waiting.done():
            self.abort()
            return
        self._begun = True
        self._read(data)

    def _read(self, data: bytes) -> None:
        """Take bytes of the answer in; none of them stand for the end of the stream."""
        if self._waiting is None:
            raise AssertionError("nothing was asked for")
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.Response):
                    self._answer.status = event.status_code
                    self._answer.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                elif isinstance(event, h11.Data):
                    # A body is read to its end, but only its beginning is looked at.
                    self._answer.body += event.data[: max(0, KEPT_BODY_BYTES - len(self._answer.body))]
                elif isinstance(event, h11.EndOfMessage):
                    break
                elif not isinstance(event, h11.InformationalResponse):
                    return
        except h11.RemoteProtocolError as error:
            self._waiting.set_exception(AnswerError(f"no valid HTTP/1.1 answer: {error}"))
            self.abort()
            return
        if self._http.trailing_data[0]:
            self._waiting.set_exception(AnswerError("more bytes than the answer has"))
            self.abort()
            return
        self._waiting.set_result(self._answer)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self.close()

    def eof_received(self) -> bool:
        """Note that the server sends no more, which completes an answer of unknown length."""
        waiting = self._waiting
        length_is_known = any(name in self._answer.headers for name in ("content-length", "transfer-encoding"))
        if (
            waiting
            and not waiting.done()
            and self._answer.status
            and not length_is_known
            and self._transport
            and ends_in_order(self._transport)
        ):
            self._read(b"")
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        self._ended(exc)

    def _ended(self, error: Exception | None) -> None:
        self.closed = True
        if self._waiting is None or self._waiting.done():
            return
        what = explained(error) if error else "connection closed"
        if self._begun:
            self._waiting.set_exception(AnswerError(f"{what} in the middle of the answer"))
        else:
            self._waiting.set_exception(UnansweredError(f"{what} before an answer"))

    async def ready(self) -> bool:
        """Return whether a request may be written.

        What the kernel already holds is read first: a close that arrived before the request counts as an idle one,
        as in any client that looks before it writes.
        """
        if not self.closed and self._poll is not None and self._poll.poll(0):
            # The loop looks at sockets between the two turns.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return not self.closed

    async def exchange(self, head: h11.Request, body: bytes) -> Answer:
        """Write a request and return its complete answer.

        Raises:
            AnswerError: There was none.
        """
        if self._transport is None or self.closed:
            raise UnansweredError("connection closed before an answer")
        self._answer = Answer()
        self._begun = False
        self._waiting = asyncio.get_running_loop().create_future()
        parts = (head, h11.Data(body), h11.EndOfMessage()) if body else (head, h11.EndOfMessage())
        self._transport.write(b"".join(self._http.send(part) or b"" for part in parts))
        return await self._waiting

    def close(self) -> None:
        """End the connection in order."""
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()


@dataclasses.dataclass
class Pool:
    """The clients of one target."""

    target: Target
    steady: int
    most: int
    clients: int = 0
    idle: deque[Http1Client] = dataclasses.field(default_factory=deque)
    late: deque[Job] = dataclasses.field(default_factory=deque)


class Http1Client:
    """A client with one keep-alive connection, which it opens again when it was closed while idle.

    A close may cross with a request on its way. So, as browsers do, a request is sent once more on a new connection, if the connection
    had carried requests before, was closed before a byte of this answer, and the method is idempotent (RFC 9112, section 9.3.1).
    Nothing else is sent twice. On a new connection, a close without an answer is a failed request.
    """

    def __init__(self, settings: Settings, context: ssl.SSLContext | None, meter: Meter, target: Target) -> None:
        """Connect with the first request only."""
        self._settings = settings
        self._context = context
        self._meter = meter
        self._target = target
        self._connection: Http1Connection | None = None
        self._heads: dict[str, h11.Request] = {}

    async def _exchange(self, job: Job) -> Answer:
        head = self._heads.get(job.name) or self._heads.setdefault(job.name, self._settings.request(self._target, job.method, job.path))
        if self._connection is not None and await self._connection.ready():
            try:
                return await self._connection.exchange(head, job.body)
            except UnansweredError:
                if job.method not in IDEMPOTENT_METHODS:
                    raise
            self._meter.count("retried_idle_closes", client="http1")
        return await (await self._connect()).exchange(head, job.body)

    async def _connect(self) -> Http1Connection:
        if self._connection is not None:
            self._connection.abort()
            self._meter.count("reopened", client="http1")
        loop = asyncio.get_running_loop()
        _unused, self._connection = await loop.create_connection(
            Http1Connection,
            self._target.address,
            self._target.port,
            ssl=self._context,
            server_hostname=self._target.server_name if self._context else None,
        )
        return self._connection

    async def serve(self, job: Job) -> None:
        """Send one request and count how it went. Time counts from when it was due."""
        loop = asyncio.get_running_loop()
        try:
            answer = await asyncio.wait_for(self._exchange(job), max(0.0, job.due + self._settings.timeout_seconds - loop.time()))
        # A name that cannot be asked for is a ValueError of the TLS library's.
        except (AnswerError, OSError, asyncio.TimeoutError, ValueError) as error:
            self.drop()
            reason = explained(error)
            if reason == "timeout":
                reason = f"no answer within {self._settings.timeout_seconds:g} s"
            self._meter.failed(reason, str(job.target), request=job.name)
            return
        if self._connection is not None and self._connection.closed:
            # The answer itself ends the connection.
            self._connection = None
        version = version_in(self._settings, answer.headers, answer.body)
        if self._settings.accepts(answer.status):
            self._meter.succeeded(loop.time() - job.due, version)
        else:
            self._meter.failed(f"status {answer.status}", str(job.target), request=job.name, version=version)

    def drop(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None


class Http1Load:
    """Spreads requests over clients; a late answer takes a further connection and never slows the rate."""

    def __init__(self, settings: Settings, meter: Meter) -> None:
        """Share the connections among the targets."""
        self._settings = settings
        self._meter = meter
        self._context = settings.context("http/1.1")
        self._planner = Planner(settings)
        count = len(settings.targets)
        steady = max(1, round(settings.connections / count))
        most = max(steady, settings.most_connections // count)
        self._pools = {target: Pool(target, steady, most) for target in settings.targets}
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, due: float) -> None:
        """Send the next request, due at this time of the loop."""
        job = self._planner.next(due)
        pool = self._pools[job.target]
        self._meter.in_flight += 1
        # As many clients as asked for take turns, so that all of them stay in use.
        if pool.clients < pool.steady or (not pool.idle and pool.clients < pool.most):
            pool.clients += 1
            self._run(pool, Http1Client(self._settings, self._context, self._meter, pool.target), job)
        elif pool.idle:
            self._run(pool, pool.idle.popleft(), job)
        else:
            pool.late.append(job)

    def _run(self, pool: Pool, client: Http1Client, job: Job) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(pool, client, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, pool: Pool, client: Http1Client, job: Job | None) -> None:
        while job is not None:
            try:
                await client.serve(job)
            except asyncio.CancelledError:
                self._unanswered(job)
                raise
            finally:
                self._meter.in_flight -= 1
            job = pool.late.popleft() if pool.late else None
        if pool.clients > pool.steady:
            pool.clients -= 1
            client.drop()
        else:
            pool.idle.append(client)

    def _unanswered(self, job: Job) -> None:
        """Count a request that had no answer when the prober ended: it may have been lost."""
        self._meter.failed("no answer when the prober ended", str(job.target), request=job.name)

    async def finish(self, seconds: float) -> None:
        """Wait for answers that are still due, then drop all connections; what was not answered has failed."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pool in self._pools.values():
            while pool.late:
                self._unanswered(pool.late.popleft())
                self._meter.in_flight -= 1
            for client in pool.idle:
                client.drop()
