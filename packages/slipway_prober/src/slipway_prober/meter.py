# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts what all clients see, in windows between marks. Durations are seconds when they are counted, and milliseconds in results."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

KEPT_FAILURES = 50
KEPT_VERSIONS = 50
KEPT_MARKS = 40
# Latencies are counted in buckets that are 2 % apart: memory stays bounded and percentiles are that exact.
_BUCKET = math.log(1.02)


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
            "retried_idle_closes": counts["retried_idle_closes"],
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
