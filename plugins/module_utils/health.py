# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether containers are healthy yet, whether they can become so, and what to say when they do not."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.hints import described_at, hints

#: Seconds between two looks at a container's state, which cost next to nothing.
INTERVAL = 0.2
#: Seconds between two runs of a command in a container at most. Each starts processes, and takes the processor from a service that boots.
LONGEST_PAUSE = 1.0
#: Restarts under the restart policy, within one wait, that show a service which cannot start.
RESTARTS_MEANING_FAILURE = 3


#: Seconds that a container without a health check must have run since its last start: one that ends at once has restarted by then.
STEADY_SECONDS = 5


#: Where the logs of containers that failed are kept, and how many lines of each.
LOG_FOLDER = "/var/log/slipway"
KEPT_LINES = 2000


def without_frames(output: str) -> str:
    """Return what a health check printed without the frames of Python's tracebacks: the exceptions, and all that is not Python's."""
    kept, inside = [], False
    for line in output.splitlines():
        begins = line.startswith("Traceback (most recent call last)")
        inside = begins or (inside and line[:1].isspace())
        if not inside:
            kept.append(line)
    return "\n".join(kept)


def running_seconds(state: dict[str, t.Any]) -> float:
    """Return how long a container has run since its last start, by its state as the engine reports it."""
    # Nanoseconds are more than Python reads.
    started = dt.datetime.fromisoformat(f"{state['StartedAt'][:19]}+00:00")
    return (dt.datetime.now(dt.timezone.utc) - started).total_seconds()


class NeverError(Exception):
    """A container cannot become what is waited for."""


def keep_log(engine: Engine, name: str) -> str:
    """Write the end of a container's log to a file that only root can read; return its path, or nothing where it cannot be written.

    Each container has one such file, of its last failure.
    """
    path = os.path.join(LOG_FOLDER, f"{name}.log")
    with contextlib.suppress(OSError, EngineError):
        text = engine.logs(name, KEPT_LINES)
        os.makedirs(LOG_FOLDER, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        return path
    return ""


class Watch:
    """A container on its way to health.

    Attributes:
        name: the container's name.
        restarts: how often its restart policy had started it again when the watch began.
    """

    def __init__(self, engine: Engine, name: str, command: list[str] | None = None, restarts: int | None = None) -> None:
        """Begin to watch; with ``command``, for its success in the container instead of the container's health.

        With ``restarts``, the engine is not asked how often it had started the container again.
        """
        self.name = name
        self.restarts = int((engine.inspect(name) or {}).get("RestartCount", 0)) if restarts is None else restarts
        self._engine = engine
        self._command = command or []
        self._pause = INTERVAL
        self._next_run = 0.0

    def ready(self, run_check: bool = True) -> bool:
        """Return whether it is what is waited for by now.

        Args:
            run_check: whether its health check may be run where the engine has not done so yet.

        Raises:
            NeverError: it is gone, has ended, restarts again and again, or is unhealthy.
        """
        inspected = self._engine.inspect(self.name)
        if inspected is None:
            raise NeverError("does not exist")
        state = inspected["State"]
        if inspected.get("RestartCount", 0) - self.restarts >= RESTARTS_MEANING_FAILURE:
            raise NeverError(f"restarts repeatedly, last with exit status {state.get('ExitCode')}")
        if state["Status"] in ("exited", "dead", "created"):
            ended = f" with exit status {state.get('ExitCode')}" if state["Status"] == "exited" else ""
            killed = ", killed at its memory limit" if state.get("OOMKilled") else ""
            raise NeverError(f"is {state['Status']}{ended}{killed}")
        if state["Status"] != "running":
            return False
        if self._command:
            return self._may_run(until=None) and self._succeeds(self._command)
        health = (state.get("Health") or {}).get("Status", "none")
        if health == "unhealthy":
            raise NeverError("is unhealthy")
        if health == "none":
            return running_seconds(state) >= STEADY_SECONDS
        if health == "healthy":
            return True
        check = inspected["Config"].get("Healthcheck") or {}
        # An engine from 25 on checks a starting container as often as this would. These checks are additional at first, as most services
        # start at once.
        often = 0 < check.get("StartInterval", 0) / 1e9 <= LONGEST_PAUSE
        return run_check and self._may_run(until=LONGEST_PAUSE if often else None) and self._passes(check)

    def _may_run(self, until: float | None) -> bool:
        """Return whether it is time to run a command: seldom and more seldom, and not at all once the pause has grown to ``until``."""
        now = time.monotonic()
        if now < self._next_run or (until is not None and self._pause >= until):
            return False
        self._next_run = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return True

    def _passes(self, check: dict[str, t.Any]) -> bool:
        kind, *test = check.get("Test") or ["NONE"]
        if kind == "NONE":
            return False
        return self._succeeds(test if kind == "CMD" else ["/bin/sh", "-c", *test], check.get("Timeout", 0) / 1e9 or 30)

    def _succeeds(self, argv: list[str], timeout: float = 30) -> bool:
        try:
            return self._engine.execute(self.name, argv, timeout=timeout)[0] == 0
        except EngineError:
            # It ended in the meantime, or the command takes too long; the next look shows it.
            return False

    def restarting(self) -> str:
        """Return the end of a sentence for a container that ends again and again, more seldom each time, or nothing."""
        inspected = self._engine.inspect(self.name) or {}
        state = inspected.get("State", {})
        if state.get("Status") != "restarting" and inspected.get("RestartCount", 0) < RESTARTS_MEANING_FAILURE:
            return ""
        return f": it restarted {inspected['RestartCount']} times, last after exit status {state.get('ExitCode')}"

    def explain(self, why: str, lines: int) -> str:
        """Return what a person needs to fix a container that did not start, with its last ``lines`` log lines.

        Its log is kept in a file, because the caller may remove the container to roll back.
        """
        parts = [f"{self.name} {why}."]
        inspected = self._engine.inspect(self.name)
        if inspected is not None:
            checks = (inspected["State"].get("Health") or {}).get("Log") or []
            if checks:
                output = without_frames(checks[-1]["Output"]).strip()[-500:]
                parts.append(f"Last health check (status {checks[-1]['ExitCode']}): {output}")
            log = self._engine.logs(self.name, lines).rstrip()
            parts.append(f"Last log lines:\n{log}")
            labels = inspected["Config"].get("Labels") or {}
            service = described_at(labels)
            if service:
                parts += hints(log.splitlines(), checks[-1]["Output"] if checks else "", service, labels.get("slipway.uid", ""))
            kept = keep_log(self._engine, self.name)
            if kept:
                parts.append(f"The log is kept on the host in {kept}, even if the container is removed.")
        return "\n".join(parts)
