# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count failed requests while a product is released.

Requests go out at a steady rate over keep-alive HTTP/1.1 connections, together with open WebSockets; no client ever retries.
It is a program of its own (``python prober.py --config FILE``), so that it outlives the task that started it, and needs
nothing but the standard library. It always ends: by its stop file, by a signal, at its deadline, or with its parent.

Durations are seconds in settings and milliseconds in results.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import dataclasses
import datetime as dt
import hashlib
import ipaddress
import json
import math
import os
import random
import select
import signal
import ssl
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

KEPT_FAILURES = 50
KEPT_VERSIONS = 50
KEPT_MARKS = 40
# A body is read to its end but only this much of it is looked at.
KEPT_BODY_BYTES = 65536
LONGEST_HEAD = 65536
WRITE_SECONDS = 0.25
POLL_SECONDS = 0.05
PARENT_SECONDS = 0.5
# Latencies are counted in buckets that are 2 % apart: memory stays bounded and percentiles are that exact.
_BUCKET = math.log(1.02)
#: Shortest wait in seconds before a WebSocket is asked for again that was refused with a status of 400 to 499.
UNWELCOME_SECONDS = 5.0
_WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names it and its value."""


class AnswerError(Exception):
    """A request got no complete answer; the message says what happened to it."""


@dataclasses.dataclass(frozen=True)
class Target:
    """Where requests go: an address and port, and the name that is asked for there (SNI, Host, certificate)."""

    address: str
    port: int
    server_name: str

    def __str__(self) -> str:
        """Return address:port."""
        return f"{bracketed(self.address)}:{self.port}"


def bracketed(host: str) -> str:
    """Return a host as it is written in a URL or Host header: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is sent, where, how fast, and what counts as an answer."""

    targets: tuple[Target, ...]
    tls: bool = True
    verify: bool = True
    ca_file: str = ""
    rate: float = 10.0
    connections: int = 4
    connections_max: int = 0
    path: str = "/health"
    post_share: float = 0.0
    post_path: str = ""
    post_body: str = ""
    post_content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    accepted_statuses: tuple[tuple[int, int], ...] = ((200, 399),)
    timeout_seconds: float = 10.0
    version_header: str = ""
    version_json_field: str = ""
    websockets: int = 0
    websocket_path: str = "/ws"
    websocket_ping_seconds: float = 5.0
    websocket_reconnect_seconds: tuple[float, float] = (0.05, 1.0)

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Settings:
        """Return checked settings.

        Raises:
            SettingsError: A setting is unknown, missing, of a wrong type or out of range.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise SettingsError(f"unknown setting: {', '.join(unknown)}")
        values = {name: value for name, value in given.items() if value is not None}
        values["targets"] = tuple(_target(item) for item in values.get("targets") or [])
        values["headers"] = tuple((str(name), str(value)) for name, value in dict(values.get("headers") or {}).items())
        if "accepted_statuses" in values:
            values["accepted_statuses"] = tuple(_statuses(item) for item in values["accepted_statuses"])
        if "websocket_reconnect_seconds" in values:
            low, high = _numbers("websocket_reconnect_seconds", values["websocket_reconnect_seconds"], 2)
            values["websocket_reconnect_seconds"] = (low, high)
        for name, kind in (("rate", float), ("post_share", float), ("timeout_seconds", float), ("websocket_ping_seconds", float)):
            if name in values:
                values[name] = kind(_numbers(name, [values[name]], 1)[0])
        for name in ("connections", "connections_max", "websockets"):
            if name in values:
                values[name] = int(_numbers(name, [values[name]], 1)[0])
        settings = cls(**values)
        settings._check()
        return settings

    def _check(self) -> None:
        wrong = {
            "targets": not self.targets,
            "rate": not 0 <= self.rate <= 10_000,
            "connections": not 1 <= self.connections <= 10_000,
            "post_share": not 0 <= self.post_share <= 1,
            "post_path": self.post_share > 0 and not self.post_path.startswith("/"),
            "path": not self.path.startswith("/"),
            "websocket_path": not self.websocket_path.startswith("/"),
            "timeout_seconds": not 0 < self.timeout_seconds <= 600,
            "websockets": not 0 <= self.websockets <= 10_000,
            "websocket_ping_seconds": self.websocket_ping_seconds <= 0,
            "websocket_reconnect_seconds": not 0 <= self.websocket_reconnect_seconds[0] <= self.websocket_reconnect_seconds[1],
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise SettingsError(f"{name} cannot be {getattr(self, name)!r}")
        headers = [part for pair in self.headers for part in pair]
        for text in (self.path, self.post_path, self.websocket_path, self.post_content_type, *headers):
            if any(character in text for character in "\r\n\0"):
                raise SettingsError(f"a path or header cannot hold a line break: {text!r}")

    @property
    def most_connections(self) -> int:
        """Return how many connections there may be while answers are late."""
        return max(self.connections_max, self.connections) if self.connections_max else self.connections * 5

    def accepts(self, status: int) -> bool:
        """Return whether an answer with this status is a success."""
        return any(low <= status <= high for low, high in self.accepted_statuses)

    def context(self, *protocols: str) -> ssl.SSLContext | None:
        """Return what connections are encrypted with, or None for plain ones."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise SettingsError(f"ca_file {self.ca_file} cannot be read: {error}") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(list(protocols))
        return context


def _numbers(name: str, values: Any, count: int) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise SettingsError(f"{name} cannot be {values!r}")
    return numbers


def _target(item: Any) -> Target:
    try:
        target = Target(str(item["address"]), int(item["port"]), str(item.get("server_name") or item["address"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(f"a target needs an address, a port and a server_name; this one has not: {item!r}") from error
    if not 0 < target.port < 65536:
        raise SettingsError(f"a target's port cannot be {target.port}")
    return target


def _statuses(item: Any) -> tuple[int, int]:
    first, _unused, last = str(item).partition("-")
    try:
        return int(first), int(last or first)
    except ValueError as error:
        raise SettingsError(f"accepted_statuses cannot hold {item!r}; it takes 204 or 200-399") from error


def timestamp(wall: float | None) -> str | None:
    """Return a time in UTC with milliseconds, as reports show it."""
    if wall is None:
        return None
    return dt.datetime.fromtimestamp(wall, dt.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclasses.dataclass
class Window:
    """What was counted between two marks."""

    name: str
    began: float
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    closed: Counter[str] = dataclasses.field(default_factory=Counter)
    clients: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    versions: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    buckets: Counter[int] = dataclasses.field(default_factory=Counter)
    peaks: Counter[str] = dataclasses.field(default_factory=Counter)
    highest: dict[str, float] = dataclasses.field(default_factory=dict)
    first_success: float | None = None
    last_success: float | None = None

    def rise(self, name: str, value: float) -> None:
        """Keep the highest of a measure's values."""
        self.highest[name] = max(value, self.highest.get(name, 0.0))

    def add(self, other: Window) -> None:
        """Take in what a later window counted."""
        for mine, theirs in ((self.counts, other.counts), (self.closed, other.closed), (self.buckets, other.buckets)):
            mine.update(theirs)  # type: ignore[arg-type]
        for own, others in ((self.clients, other.clients), (self.versions, other.versions)):
            for key, counts in others.items():
                own.setdefault(key, Counter()).update(counts)
        for name, value in other.highest.items():
            self.rise(name, value)
        self.peaks |= other.peaks
        self.first_success = self.first_success if self.first_success is not None else other.first_success
        self.last_success = other.last_success if other.last_success is not None else self.last_success

    def percentile(self, share: float) -> float:
        """Return the latency that this share of the answers stayed below, in milliseconds."""
        wanted = share * sum(self.buckets.values())
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return min(math.exp((bucket + 0.5) * _BUCKET) / 1000, self.highest.get("latency", 0.0))
        return 0.0


class Meter:
    """Counts what all clients see, in windows between marks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        """Begin now; clock gives monotonic seconds, wall seconds since the epoch."""
        self._clock = clock
        self._wall_offset = wall() - clock()
        self.began = clock()
        self.stopped: float | None = None
        self._last_success = self.began
        self._windows = [Window("start", self.began)]
        self._failures: list[dict[str, Any]] = []
        self._open_websockets = 0
        self._versions: set[str] = set()
        self.in_flight = 0

    @property
    def _window(self) -> Window:
        return self._windows[-1]

    def _client(self, client: str) -> Counter[str]:
        return self._window.clients.setdefault(client, Counter())

    def count(self, name: str, amount: int = 1, client: str = "") -> None:
        """Count something that is neither success nor failure."""
        self._window.counts[name] += amount
        if client:
            self._client(client)[name] += amount

    def lag(self, seconds: float) -> None:
        """Note how late the prober itself was: a gap that long may be its own."""
        self._window.rise("lag", seconds * 1000)

    def succeeded(self, latency: float, version: str = "", client: str = "http1") -> None:
        """Count an accepted answer that came this many seconds after it was due."""
        now = self._clock()
        window = self._window
        self.count("requests", client=client)
        milliseconds = latency * 1000
        window.rise("latency", milliseconds)
        window.buckets[int(math.log(max(milliseconds * 1000, 1)) / _BUCKET)] += 1
        window.rise("gap", (now - self._last_success) * 1000)
        self._last_success = now
        window.last_success = now
        if window.first_success is None:
            window.first_success = now
        self._saw(version, "answers")

    def failed(self, reason: str, target: str, *, request: str = "", version: str = "", client: str = "http1") -> None:
        """Count a request that got no complete, accepted answer."""
        self.count("requests", client=client)
        self.count("failed", client=client)
        self._saw(version, "failed")
        self._keep("request", reason, target, request)

    def _saw(self, version: str, what: str) -> None:
        if not version:
            return
        name = version[:100]
        if name not in self._versions and len(self._versions) >= KEPT_VERSIONS:
            name = "others"
        self._versions.add(name)
        self._window.versions.setdefault(name, Counter())[what] += 1

    def _keep(self, kind: str, reason: str, target: str, request: str) -> None:
        if len(self._failures) < KEPT_FAILURES:
            self._failures.append(
                {"time": timestamp(self._clock() + self._wall_offset), "kind": kind, "reason": reason, "target": target, "request": request}
            )

    def websocket_opened(self, absence: float | None = None) -> None:
        """Count an open WebSocket; after a reconnect, with the seconds that it was away."""
        self._open_websockets += 1
        self.count("websockets_opened")
        if absence is not None:
            self.count("websockets_reconnected")
            self._window.rise("websocket_absence", absence * 1000)
        self._window.peaks["websockets"] = max(self._window.peaks["websockets"], self._open_websockets)

    def websocket_refused(self, reason: str, target: str) -> None:
        """Count a WebSocket that did not open."""
        self.count("websockets_refused")
        self._keep("websocket", reason, target, "")

    def websocket_closed(self, code: int | None, reason: str, target: str) -> None:
        """Count a WebSocket that the server ended: with a close frame's code, or cut (None)."""
        self._open_websockets -= 1
        if code is None:
            self.count("websockets_cut")
            self._keep("websocket", reason, target, "")
        else:
            self._window.closed[str(code)] += 1

    def websocket_left(self) -> None:
        """Note a WebSocket that we ended ourselves."""
        self._open_websockets -= 1

    def mark(self, name: str) -> None:
        """Begin a window of its own from now on."""
        if len(self._windows) > KEPT_MARKS:
            return
        now = self._clock()
        self._window.rise("gap", (min(now, self.stopped or now) - self._last_success) * 1000)
        window = Window(name, now)
        window.peaks["websockets"] = self._open_websockets
        self._windows.append(window)

    def stop(self) -> None:
        """Let no time count as a gap from now on: no more requests are sent."""
        self.stopped = self.stopped or self._clock()

    def snapshot(self) -> dict[str, Any]:
        """Return all that was counted, in total and since each mark."""
        now = self.stopped or self._clock()
        open_gap = (now - self._last_success) * 1000
        marks: list[dict[str, Any]] = []
        since = Window("", now)
        since.rise("gap", open_gap)
        for window in reversed(self._windows):
            merged = dataclasses.replace(
                window,
                counts=Counter(window.counts),
                closed=Counter(window.closed),
                clients={key: Counter(value) for key, value in window.clients.items()},
                versions={key: Counter(value) for key, value in window.versions.items()},
                buckets=Counter(window.buckets),
                peaks=Counter(window.peaks),
                highest=dict(window.highest),
            )
            merged.add(since)
            until_next = dataclasses.replace(window, highest=dict(window.highest))
            if window is self._windows[-1]:
                until_next.rise("gap", open_gap)
            since = merged
            marks.append(
                {
                    "name": window.name,
                    "time": timestamp(window.began + self._wall_offset),
                    "since": self._numbers(merged),
                    "until_next": self._numbers(until_next),
                }
            )
        return {
            **self._numbers(since),
            "started": timestamp(self.began + self._wall_offset),
            "seconds": round(now - self.began, 3),
            "in_flight": self.in_flight,
            "websockets_open": self._open_websockets,
            "failures": list(self._failures),
            "marks": marks[-2::-1],
        }

    def _numbers(self, window: Window) -> dict[str, Any]:
        def wall(monotonic: float | None) -> str | None:
            return None if monotonic is None else timestamp(monotonic + self._wall_offset)

        counts = window.counts
        return {
            "requests": counts["requests"],
            "failed": counts["failed"],
            "reopened": counts["reopened"],
            "longest_gap_ms": round(window.highest.get("gap", 0.0), 1),
            "longest_lag_ms": round(window.highest.get("lag", 0.0), 1),
            "latency_ms": {
                "p50": round(window.percentile(0.5), 2),
                "p99": round(window.percentile(0.99), 2),
                "max": round(window.highest.get("latency", 0.0), 2),
            },
            "first_success": wall(window.first_success),
            "last_success": wall(window.last_success),
            "versions": {name: {key: seen[key] for key in ("answers", "failed")} for name, seen in sorted(window.versions.items())},
            "clients": {name: dict(sorted(seen.items())) for name, seen in sorted(window.clients.items())},
            "websockets": window.peaks["websockets"],
            "websockets_opened": counts["websockets_opened"],
            "websockets_closed": dict(sorted(window.closed.items())),
            "websockets_cut": counts["websockets_cut"],
            "websockets_refused": counts["websockets_refused"],
            "websockets_reconnected": counts["websockets_reconnected"],
            "longest_websocket_absence_ms": round(window.highest.get("websocket_absence", 0.0), 1),
        }


class Answer:
    """Reads one HTTP/1.1 answer from bytes as they arrive (RFC 9112)."""

    def __init__(self) -> None:
        """Expect a status line."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.complete = False
        self.keep_alive = True
        self._buffer = bytearray()
        self._left: int | None = 0
        self._read: Callable[[], bool] = self._read_head

    def feed(self, data: bytes) -> bool:
        """Take bytes in and return whether the answer is complete.

        Raises:
            AnswerError: The bytes are no HTTP/1.1 answer, or go on behind its end.
        """
        self._buffer += data
        while not self.complete and self._read():
            pass
        if self.complete and self._buffer:
            raise AnswerError("more bytes than the answer has")
        return self.complete

    def end(self) -> bool:
        """Note the end of the stream and return whether it completed the answer."""
        if self._read == self._read_rest:
            self.complete = True
        return self.complete

    def _line(self) -> bytes | None:
        line, found, rest = self._buffer.partition(b"\n")
        if not found:
            if len(self._buffer) > LONGEST_HEAD:
                raise AnswerError("a line of the answer is too long")
            return None
        self._buffer = rest
        return bytes(line.rstrip(b"\r"))

    def _read_head(self) -> bool:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            if len(self._buffer) > LONGEST_HEAD:
                raise AnswerError("the answer's head is too long")
            return False
        self._buffer = rest
        lines = bytes(head).decode("latin-1").split("\r\n")
        version, _unused, status = lines[0].partition(" ")
        if version not in {"HTTP/1.1", "HTTP/1.0"} or not status[:3].isdigit():
            raise AnswerError(f"no HTTP answer: {lines[0][:60]!r}")
        self.status = int(status[:3])
        self.headers = {}
        for line in lines[1:]:
            name, _unused, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        if self.status < 200 and self.status != 101:
            # An interim answer; the real one follows.
            return True
        tokens = self.headers.get("connection", "").lower()
        self.keep_alive = version == "HTTP/1.1" and "close" not in tokens
        self._choose_body()
        return True

    def _choose_body(self) -> None:
        length = self.headers.get("content-length")
        if self.status in {101, 204, 304}:
            self.complete = True
        elif "chunked" in self.headers.get("transfer-encoding", "").lower():
            self._read = self._read_chunk_size
        elif length is None:
            self._read = self._read_rest
            self.keep_alive = False
        elif length.isdigit():
            self._left = int(length)
            self._read = self._read_counted
            self.complete = self._left == 0
        else:
            raise AnswerError(f"content-length cannot be {length[:40]!r}")

    def _take(self, amount: int) -> int:
        part = self._buffer[:amount]
        del self._buffer[:amount]
        room = KEPT_BODY_BYTES - len(self.body)
        if room > 0:
            self.body += part[:room]
        return len(part)

    def _read_counted(self) -> bool:
        self._left = (self._left or 0) - self._take(self._left or 0)
        self.complete = self._left == 0
        return False

    def _read_rest(self) -> bool:
        self._take(len(self._buffer))
        return False

    def _read_chunk_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        try:
            self._left = int(line.split(b";", maxsplit=1)[0], 16)
        except ValueError as error:
            raise AnswerError(f"no chunk size: {line[:40]!r}") from error
        self._read = self._read_chunk if self._left else self._read_trailer
        return True

    def _read_chunk(self) -> bool:
        self._left = (self._left or 0) - self._take(self._left or 0)
        if self._left:
            return False
        # The chunk's data ends with a line break of its own.
        self._read = self._read_chunk_end
        return True

    def _read_chunk_end(self) -> bool:
        line = self._line()
        if line is None:
            return False
        if line:
            raise AnswerError("a chunk is longer than its size")
        self._read = self._read_chunk_size
        return True

    def _read_trailer(self) -> bool:
        line = self._line()
        if line is None:
            return False
        self.complete = not line
        return not self.complete


def version_in(settings: Settings, headers: Mapping[str, str], body: bytes | bytearray) -> str:
    """Return what an answer says about the version that gave it, or nothing."""
    if settings.version_header:
        return headers.get(settings.version_header.lower(), "")
    if not settings.version_json_field:
        return ""
    try:
        value = json.loads(bytes(body))
        for part in settings.version_json_field.split("."):
            value = value[part]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(value)


def explained(error: BaseException) -> str:
    """Return what went wrong with a connection, in a few words."""
    if isinstance(error, AnswerError):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


@dataclasses.dataclass
class Job:
    """A request that is due."""

    due: float
    target: Target
    method: str
    path: str
    body: bytes = b""

    @property
    def name(self) -> str:
        """Return method and path."""
        return f"{self.method} {self.path}"


class Planner:
    """Says what the next request is: targets take turns, and each gets its share of POSTs."""

    def __init__(self, settings: Settings) -> None:
        """Begin with the first target."""
        self._settings = settings
        self._sent = 0

    def next(self, due: float) -> Job:
        """Return the next request."""
        settings = self._settings
        turn, place = divmod(self._sent, len(settings.targets))
        self._sent += 1
        # True as often as the share says, evenly spread.
        post = math.floor((turn + 1) * settings.post_share) > math.floor(turn * settings.post_share)
        if post:
            return Job(due, settings.targets[place], "POST", settings.post_path, settings.post_body.encode())
        return Job(due, settings.targets[place], "GET", settings.path)


def host_header(settings: Settings, target: Target) -> str:
    """Return what a browser would call this target."""
    default = 443 if settings.tls else 80
    name = bracketed(target.server_name)
    return name if target.port == default else f"{name}:{target.port}"


class Http1Connection(asyncio.Protocol):
    """A keep-alive connection that has one request under way at most."""

    def __init__(self) -> None:
        """Wait to be connected."""
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._answer = Answer()
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
        waiting = self._waiting
        if waiting is None or waiting.done():
            self.abort()
            return
        try:
            complete = self._answer.feed(data)
        except AnswerError as error:
            waiting.set_exception(error)
            self.abort()
            return
        if complete:
            waiting.set_result(self._answer)
            if not self._answer.keep_alive:
                self.close()

    def eof_received(self) -> bool:
        """Note that the server sends no more."""
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        self._ended(exc)

    def _ended(self, error: Exception | None) -> None:
        self.closed = True
        waiting = self._waiting
        if waiting is None or waiting.done():
            return
        if error is None and self._answer.end():
            waiting.set_result(self._answer)
            return
        begun = "in the middle of the answer" if self._answer.status else "before an answer"
        waiting.set_exception(AnswerError(f"{explained(error) if error else 'connection closed'} {begun}"))

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

    async def exchange(self, request: bytes) -> Answer:
        """Write a request and return its complete answer.

        Raises:
            AnswerError: There was none.
        """
        if self._transport is None or self.closed:
            raise AnswerError("connection closed before an answer")
        self._answer = Answer()
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
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
    """A client with one keep-alive connection, which it opens again when it was closed while idle. It never retries."""

    def __init__(self, settings: Settings, context: ssl.SSLContext | None, meter: Meter, target: Target) -> None:
        """Connect with the first request only."""
        self._settings = settings
        self._context = context
        self._meter = meter
        self._target = target
        self._connection: Http1Connection | None = None
        lines = [f"Host: {host_header(settings, target)}"]
        given = {name.lower() for name, _unused in settings.headers}
        if "user-agent" not in given:
            lines.append("User-Agent: slipway-prober")
        if "accept" not in given:
            lines.append("Accept: */*")
        lines += [f"{name}: {value}" for name, value in settings.headers]
        self._common = "\r\n".join(lines)

    def _request(self, job: Job) -> bytes:
        head = f"{job.method} {job.path} HTTP/1.1\r\n{self._common}\r\n"
        if job.method == "POST":
            head += f"Content-Type: {self._settings.post_content_type}\r\nContent-Length: {len(job.body)}\r\n"
        return head.encode("latin-1") + b"\r\n" + job.body

    async def _connected(self) -> Http1Connection:
        if self._connection is not None:
            if await self._connection.ready():
                return self._connection
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

    async def _exchange(self, job: Job) -> Answer:
        connection = await self._connected()
        return await connection.exchange(self._request(job))

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


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a final WebSocket frame as a client sends it: masked (RFC 6455, section 5)."""
    mask = os.urandom(4)
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
    elif length < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return opcode and payload of the next frame; of a data frame only how it begins.

    Raises:
        AnswerError: The frame breaks the protocol.
        asyncio.IncompleteReadError: The stream ended.
    """
    first, second = await reader.readexactly(2)
    opcode, length = first & 0x0F, second & 0x7F
    if second & 0x80 or first & 0x70 or (opcode & 0x08 and length > 125):
        raise AnswerError("a WebSocket frame breaks the protocol")
    if length == 126:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", await reader.readexactly(8))
    payload = b""
    while length:
        part = await reader.read(min(length, 65536))
        if not part:
            raise asyncio.IncompleteReadError(payload, length)
        length -= len(part)
        if len(payload) < 125:
            payload += part[:125]
    return opcode, payload


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
            except (AnswerError, OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                self._drop()
                reason = "cut during the handshake" if isinstance(error, asyncio.IncompleteReadError) else explained(error)
                self._meter.websocket_refused(reason, str(self._target))
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
        key = base64.b64encode(os.urandom(16)).decode()
        host = host_header(settings, target)
        lines = [
            f"GET {settings.websocket_path} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        if "origin" not in {name.lower() for name, _unused in settings.headers}:
            lines.append(f"Origin: {'https' if settings.tls else 'http'}://{host}")
        lines += [f"{name}: {value}" for name, value in settings.headers]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        answer = Answer()
        try:
            answer.feed(await self._reader.readuntil(b"\r\n\r\n"))
        except asyncio.LimitOverrunError as error:
            raise AnswerError("the answer's head is too long") from error
        # A product without such a path, or with a login before it: nothing to come back to at once.
        self._unwelcome = 400 <= answer.status < 500
        if answer.status != 101:
            raise AnswerError(f"status {answer.status}")
        wanted = base64.b64encode(hashlib.sha1((key + _WEBSOCKET_GUID).encode(), usedforsecurity=False).digest()).decode()
        if answer.headers.get("sec-websocket-accept") != wanted:
            raise AnswerError("the server's Sec-WebSocket-Accept does not belong to our key")

    async def _stay(self) -> None:
        """Read frames until the WebSocket ends, and count how it did."""
        pings = asyncio.get_running_loop().create_task(self._ping())
        code: int | None = None
        reason = "cut without a close frame"
        try:
            code = await self._read()
        except AnswerError as error:
            reason = str(error)
        except OSError as error:
            reason = f"cut without a close frame: {explained(error)}"
        except asyncio.IncompleteReadError:
            pass
        finally:
            silent = pings.done() and not pings.cancelled() and pings.exception() is None
            pings.cancel()
            self._drop()
            if self._leaving:
                self._meter.websocket_left()
            else:
                waited = self._settings.timeout_seconds
                self._meter.websocket_closed(code, f"no pong within {waited:g} s" if silent else reason, str(self._target))

    async def _read(self) -> int:
        """Return the code of the server's close frame; 1005 stands for none in it."""
        if self._reader is None:
            raise AssertionError("the connection is not open")
        while True:
            opcode, payload = await read_frame(self._reader)
            if opcode == 0x9:
                self._send(0xA, payload)
            elif opcode == 0xA:
                self._pong.set()
            elif opcode == 0x8:
                self._send(0x8, payload[:2])
                return struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005

    async def _ping(self) -> None:
        """Send pings, and drop the connection when one stays without a pong."""
        while True:
            # Not all clients at the same time.
            await asyncio.sleep(self._settings.websocket_ping_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            self._pong.clear()
            self._send(0x9, b"slipway")
            try:
                await asyncio.wait_for(self._pong.wait(), self._settings.timeout_seconds)
            except (asyncio.TimeoutError, TimeoutError):
                self._drop()
                return

    def _send(self, opcode: int, payload: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(opcode, payload))

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
        self._send(0x8, struct.pack("!H", 1000))


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


async def pace(rate: float, meter: Meter, submits: Sequence[Callable[[float], None]], stopped: asyncio.Event) -> None:
    """Call each of these in turn, so often a second, whatever happened to the calls before, until stopped."""
    loop = asyncio.get_running_loop()
    if not rate or not submits:
        await stopped.wait()
        return
    began = loop.time()
    sent = 0
    while not stopped.is_set():
        due = began + sent / rate
        wait = due - loop.time()
        if wait > 0:
            await asyncio.sleep(min(wait, POLL_SECONDS))
            continue
        meter.lag(-wait)
        submits[sent % len(submits)](due)
        sent += 1
        if sent % 50 == 0:
            # After a stall many are due at once; answers are read in between.
            await asyncio.sleep(0)


def process_started(pid: int) -> str | None:
    """Return what distinguishes a process from a later one with the same number; None if there is none, "" if it is not known.

    Linux knows the start in clock ticks; elsewhere only the number is looked at.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return ""
        return ""
    # The name in brackets may itself hold blanks and brackets.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields[19]


def write_json(path: Path, value: Any) -> None:
    """Replace a file at once, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(value, file)
    temporary.replace(path)


@dataclasses.dataclass(frozen=True)
class Control:
    """The files and limits by which a prober is steered.

    Attributes:
        folder: Private folder with ``result.json`` (written), ``marks`` (one JSON object a line) and ``stop`` (its presence ends the run).
        deadline_seconds: The longest that it runs.
        parent_pid: The process whose end ends the run too; 0 for none.
        parent_started: What process_started returned for that process.
    """

    folder: Path
    deadline_seconds: float
    parent_pid: int = 0
    parent_started: str = ""

    @property
    def result(self) -> Path:
        """Where numbers are written."""
        return self.folder / "result.json"

    @property
    def marks(self) -> Path:
        """Where the controller names moments."""
        return self.folder / "marks"

    @property
    def stop(self) -> Path:
        """The file that ends the run."""
        return self.folder / "stop"

    def parent_is_gone(self) -> bool:
        """Return whether the process that this run belongs to has ended."""
        if not self.parent_pid:
            return False
        started = process_started(self.parent_pid)
        return started is None or bool(self.parent_started and started and started != self.parent_started)


class Prober:
    """One run: clients, meter, and the files by which it is steered."""

    def __init__(self, settings: Settings, control: Control) -> None:
        """Prepare all clients; nothing is sent before run."""
        self._settings = settings
        self._control = control
        self._meter = Meter()
        self._requests = Http1Load(settings, self._meter)
        self._websockets = WebSocketLoad(settings, self._meter)
        self._stopped = asyncio.Event()
        self._reason = ""
        self._marks_read = 0
        self._changed = asyncio.Event()

    def _stop(self, reason: str) -> None:
        if not self._stopped.is_set():
            self._reason = reason
            self._meter.stop()
            self._stopped.set()

    def _write(self, ended: str | None = None) -> None:
        value = {**self._meter.snapshot(), "pid": os.getpid(), "written": timestamp(time.time()), "ended": ended}
        # A full disk or a folder that is gone must not end the clients; the next write may succeed.
        with contextlib.suppress(OSError):
            write_json(self._control.result, value)

    def _read_marks(self) -> bool:
        """Take new marks in and return whether there were any."""
        try:
            if self._control.marks.stat().st_size <= self._marks_read:
                return False
            with self._control.marks.open("rb") as file:
                file.seek(self._marks_read)
                data = file.read()
        except OSError:
            return False
        whole = data[: data.rfind(b"\n") + 1]
        self._marks_read += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._meter.mark(str(json.loads(line)["name"])[:200])
        return bool(whole)

    async def _watch(self) -> None:
        """Follow files, parent and deadline until the end."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        written = looked = began
        while not self._stopped.is_set():
            now = loop.time()
            if self._control.stop.exists():
                self._stop("stopped")
            elif now - began >= self._control.deadline_seconds:
                self._stop("deadline")
            elif now - looked >= PARENT_SECONDS:
                looked = now
                if self._control.parent_is_gone():
                    self._stop("parent gone")
            if self._read_marks() or now - written >= WRITE_SECONDS:
                written = now
                self._write()
            await asyncio.sleep(POLL_SECONDS)

    async def run(self) -> str:
        """Probe until something ends it, and return what did."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, signal.Signals(number).name)
        self._write()
        self._websockets.start()
        await asyncio.gather(self._watch(), pace(self._settings.rate, self._meter, [self._requests.submit], self._stopped))
        patience = 0.5 if self._reason == "parent gone" else self._settings.timeout_seconds
        await asyncio.gather(self._requests.finish(patience), self._websockets.finish(min(patience, 2.0)))
        self._write(self._reason)
        return self._reason


def run_bounded(main: Coroutine[Any, Any, str]) -> str:
    """Run to the end, quietly about connections that broke while they were being closed."""

    async def wrapped() -> str:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        return await main

    return asyncio.run(wrapped())


def remove_folder(folder: Path, names: Iterable[str] = ("config.json", "state.json", "result.json", "marks", "stop", "log")) -> None:
    """Remove the files that a run uses, and their folder if nothing else is in it."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def is_loopback_or_private(address: str) -> bool:
    """Return whether an address (not a name) belongs to this machine or a private network."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (found.is_loopback or found.is_private) and not found.is_unspecified


def main(arguments: Sequence[str] | None = None) -> int:
    """Probe as a config file says; 0 when it ended in order, 2 when the file is wrong."""
    parser = argparse.ArgumentParser(description="Send requests at a steady rate and count what is lost.")
    parser.add_argument("--config", required=True, type=Path, help="JSON file with settings and control; its folder takes the results")
    path: Path = parser.parse_args(arguments).config.resolve()
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        settings = Settings.parse(config["settings"])
        given = config["control"]
        control = Control(
            path.parent, float(given["deadline_seconds"]), int(given.get("parent_pid") or 0), str(given.get("parent_started") or "")
        )
        if not 0 < control.deadline_seconds <= 86400:
            raise SettingsError(f"deadline_seconds cannot be {control.deadline_seconds:g}; a run is bounded, by a day at most")
        settings.context()
    except (OSError, KeyError, TypeError, ValueError) as error:
        sys.stderr.write(f"{path}: {error!r}\n" if not isinstance(error, SettingsError) else f"{error}\n")
        return 2

    async def probe() -> str:
        return await Prober(settings, control).run()

    if run_bounded(probe()) == "parent gone":
        # The parent that would read the results and clean up has ended.
        remove_folder(path.parent)
    return 0


if __name__ == "__main__":
    # A program of its own on the controller.
    sys.exit(main())  # pylint: disable=ansible-bad-function
