"""What app instances share through Redis: cached answers and live events. Each works alone while Redis is away."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import random
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = logging.getLogger("support_desk.shared")

ANSWER_SECONDS = 24 * 3600
LOCAL_ANSWERS = 512
# After a failure Redis is left alone for so long: a request must not wait for a time-out each time.
PAUSE_SECONDS = 3.0
CHANNEL = "support_desk:session:"
KEEPALIVE_CHANNEL = "support_desk:instances"
#: Queue of the names of articles that a worker has to make searchable.
NEW_ARTICLES = "support_desk:articles:new"
_FAILURES = (RedisError, OSError, TimeoutError)


def answer_key(question: str, *parts: str) -> str:
    """Return the cache key of a question: case, spacing and punctuation do not make it another one."""
    normalised = re.sub(r"[^\w]+", " ", question.casefold()).strip()
    return "support_desk:answer:" + hashlib.sha256("\n".join([normalised, *parts]).encode()).hexdigest()


class Store:
    """The connection to Redis, or none."""

    def __init__(self, url: str | None) -> None:
        """Prepare the connection; the first command connects."""
        self.redis: Redis | None = None
        self._paused_until = 0.0
        if url:
            self.redis = Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=2.0,
                socket_connect_timeout=1.0,
                health_check_interval=30,
                retry=Retry(NoBackoff(), 1),
                client_name="support_desk",
            )

    @property
    def state(self) -> str:
        """Return `ok`, `away`, or `off` where no Redis is named."""
        if self.redis is None:
            return "off"
        return "away" if time.monotonic() < self._paused_until else "ok"

    async def run[Result](self, command: Callable[[Redis], Awaitable[Result]]) -> tuple[bool, Result | None]:
        """Run a command; the first value says whether Redis answered."""
        if self.redis is None or self.state == "away":
            return False, None
        try:
            return True, await command(self.redis)
        except _FAILURES as error:
            self.failed(error)
            return False, None

    def failed(self, error: BaseException) -> None:
        """Leave Redis alone for a while."""
        if self.state == "ok":
            log.warning("Redis is away (%s): each instance works on its own", type(error).__name__)
        self._paused_until = time.monotonic() + PAUSE_SECONDS

    async def check(self) -> None:
        """Ask Redis now, whatever is remembered of it; raises what the client raises."""
        if self.redis is None:
            return
        try:
            await self.redis.ping()
        except _FAILURES as error:
            self.failed(error)
            raise
        self._paused_until = 0.0

    async def close(self) -> None:
        """Give the connections back."""
        if self.redis is not None:
            with contextlib.suppress(*_FAILURES):
                await self.redis.aclose()


class AnswerCache:
    """Answers by question, in Redis; in this process while Redis is away."""

    def __init__(self, store: Store) -> None:
        """Start with nothing in memory."""
        self._store = store
        self._local: OrderedDict[str, tuple[float, str]] = OrderedDict()

    async def get(self, key: str) -> dict[str, Any] | None:
        """Return the answer, or None."""
        answered, text = await self._store.run(lambda redis: redis.get(key))
        if not answered:
            expires, text = self._local.get(key, (0.0, None))
            if expires <= time.monotonic():
                self._local.pop(key, None)
                return None
            self._local.move_to_end(key)
        return json.loads(text) if text else None

    async def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep the answer for a day."""
        text = json.dumps(answer)
        await self._store.run(lambda redis: redis.set(key, text, ex=ANSWER_SECONDS))
        # Also here, so that the fallback is warm when it is needed.
        self._local[key] = (time.monotonic() + ANSWER_SECONDS, text)
        self._local.move_to_end(key)
        while len(self._local) > LOCAL_ANSWERS:
            self._local.popitem(last=False)


class Client:
    """One open WebSocket; events wait here until they can be sent."""

    def __init__(self) -> None:
        """Start with an empty queue."""
        self.queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=512)
        self.overflowed = asyncio.Event()

    def offer(self, event: dict[str, Any]) -> None:
        """Queue an event; a client that does not read must not hold up the others."""
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            self.overflowed.set()


class Hub:
    """Brings events of a session to its clients, on this instance and on all others."""

    def __init__(self, store: Store) -> None:
        """Start without clients."""
        self._store = store
        self._origin = uuid.uuid4().hex
        self._clients: dict[str, set[Client]] = {}
        self._pubsub: Any = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen to the other instances."""
        if self._store.redis is not None:
            self._task = asyncio.create_task(self._listen(), name="hub")

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def listening(self) -> bool:
        """True while events of other instances are received."""
        return self._pubsub is not None

    async def join(self, session_id: str, client: Client) -> None:
        """Send this client the events of a session from now on."""
        members = self._clients.setdefault(session_id, set())
        members.add(client)
        if len(members) == 1:
            await self._subscription("subscribe", session_id)

    async def leave(self, session_id: str, client: Client) -> None:
        """Send this client no more events of a session."""
        members = self._clients.get(session_id, set())
        members.discard(client)
        if not members and self._clients.pop(session_id, None) is not None:
            await self._subscription("unsubscribe", session_id)

    async def publish(self, session_id: str, event: dict[str, Any]) -> None:
        """Send an event to all clients of a session, here at once and elsewhere through Redis."""
        self._deliver(session_id, event)
        text = json.dumps({"origin": self._origin, "event": event})
        await self._store.run(lambda redis: redis.publish(CHANNEL + session_id, text))

    def _deliver(self, session_id: str, event: dict[str, Any]) -> None:
        for client in self._clients.get(session_id, ()):
            client.offer(event)

    async def _subscription(self, action: str, session_id: str) -> None:
        if self._pubsub is None:
            return
        # Not connected: the listener subscribes to all that is wanted when it connects again.
        with contextlib.suppress(*_FAILURES, AttributeError):
            await getattr(self._pubsub, action)(CHANNEL + session_id)

    async def _listen(self) -> None:
        assert self._store.redis is not None  # noqa: S101 - start() checked it
        while True:
            pubsub = self._store.redis.pubsub(ignore_subscribe_messages=True)
            try:
                # One channel that is never left keeps the connection when no client is here.
                await pubsub.subscribe(KEEPALIVE_CHANNEL, *(CHANNEL + session_id for session_id in self._clients))
                self._pubsub = pubsub
                # Clients that came while the line above waited.
                await pubsub.subscribe(KEEPALIVE_CHANNEL, *(CHANNEL + session_id for session_id in self._clients))
                asked = time.monotonic()
                while True:
                    message = await pubsub.get_message(timeout=10.0)
                    # None stands for the pong too, so the clock decides, or each pong would bring on the next ping.
                    if message is None:
                        if time.monotonic() - asked >= 10.0:
                            asked = time.monotonic()
                            await pubsub.ping()
                    elif message["type"] == "message":
                        self._receive(message["channel"], message["data"])
            except _FAILURES as error:
                self._store.failed(error)
            finally:
                self._pubsub = None
                with contextlib.suppress(*_FAILURES):
                    await pubsub.aclose()
            await asyncio.sleep(1.0 + random.random())  # noqa: S311 - spreads the reconnects, guards nothing

    def _receive(self, channel: str, data: str) -> None:
        try:
            envelope = json.loads(data)
            origin, event = envelope["origin"], envelope["event"]
        except (ValueError, KeyError, TypeError):
            log.warning("dropped an event that is none, on %s", channel)
            return
        if origin != self._origin:
            self._deliver(channel.removeprefix(CHANNEL), event)
