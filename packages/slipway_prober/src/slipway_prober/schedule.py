# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which request is sent next, and when: at a steady rate, whatever became of those before."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Sequence

from .meter import Meter
from .settings import Settings, Target

POLL_SECONDS = 0.05
#: Methods whose requests a client may send again by itself (RFC 9110, section 9.2.2).
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


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
