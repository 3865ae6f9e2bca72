# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a job of the product at its time: on one host of all, in the version that serves, and never twice for one time.

Timers call ``fire``, which starts ``run`` in a unit of its own: the timer is free for the next time. docs/product.md describes jobs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import typing as t
from datetime import datetime, timezone
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import claims  # noqa: E402 - all three are in this file's folder
from ansible_collections.slipway.stack.plugins.module_utils import container_copy  # noqa: E402
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError  # noqa: E402

JSON = dict[str, t.Any]

CONFIG = Path(__file__).resolve().parent / "jobs.json"
UNITS = Path("/etc/systemd/system")
STACKS = Path("/etc/slipway")
#: Seconds for which a claim is tried while the database does not answer, and between two attempts.
CLAIM_SECONDS, CLAIM_PAUSE = 300.0, 5.0
#: Below the stack's folder, while a restore exchanges data.
RESTORE = "restore/under_way.json"
#: Seconds after which it is looked at again.
RESTORE_PAUSE = 5.0
LOG_LINES = 20
#: How far back the last time of a calendar is looked for, in seconds.
WINDOWS = (60, 3600, 86400, 31 * 86400, 366 * 86400, 5 * 366 * 86400)
ITERATIONS = 100
#: The figure of which Prometheus knows that a job is late.
NEXT_RUN = "next_run_timestamp_seconds"


class JobError(Exception):
    """A job cannot be run; says why."""


def say(text: str) -> None:
    """Print what is being done, for the journal."""
    print(text, file=sys.stderr, flush=True)


def instant(moment: float) -> str:
    """Return a time as people read it."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


# When


def elapses(calendar: str, base: float) -> list[int]:
    """Return the next times of a calendar event after a moment, in seconds since 1970.

    Raises:
        JobError: systemd does not understand it.
    """
    argv = ["systemd-analyze", "calendar", f"--iterations={ITERATIONS}", f"--base-time=@{int(base)}", "--", calendar]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        raise JobError(f"systemd does not understand the time {calendar!r}: {done.stderr.strip()}")
    # Where the host's zone is another, each time is followed by the same in UTC.
    found = re.findall(r"(?:elapse|#\d+|UTC\)): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", done.stdout)
    return sorted({int(datetime.fromisoformat(f"{text}+00:00").timestamp()) for text in found})


def last_moment(calendars: t.Sequence[str], now: float) -> int | None:
    """Return the last time before now of calendar events, the same on every host; None where there was none for years."""
    for window in WINDOWS:
        found = [moment for calendar in calendars for moment in _latest(calendar, now - window, now)]
        if found:
            return max(found)
    return None


def next_moment(calendars: t.Sequence[str], now: float) -> int | None:
    """Return the next time after now of calendar events, or None where there is none."""
    return min((moment for calendar in calendars for moment in elapses(calendar, now)), default=None)


def _latest(calendar: str, base: float, now: float) -> list[int]:
    """Return the last time of a calendar event between two moments, or nothing."""
    found: list[int] = []
    while True:
        times = elapses(calendar, base)
        before = [moment for moment in times if moment <= now]
        found = before[-1:] or found
        if not before or len(before) < len(times):
            return found
        base = before[-1]


# What


class Run:
    """One run of a job, for one moment."""

    def __init__(self, config: JSON, job: str, moment: int) -> None:
        """Take what the role rendered; nothing is done yet."""
        self.stack, self.job, self.moment = str(config["stack"]), job, moment
        self.name = f"{self.stack}-{job}-{moment}"
        self.settings: JSON = config["jobs"][job]
        self.claims = claims.Claims(config, STACKS / self.stack / "jobs")
        self.restore = STACKS / self.stack / RESTORE
        self.engine = Engine()

    def wait_for_restore(self) -> None:
        """Wait until no restore exchanges data, which the job would read and write in part."""
        if self.restore.exists():
            say(f"{self.name} waits for the end of a restore")
        while self.restore.exists():
            time.sleep(RESTORE_PAUSE)

    def carry_out(self, container: str, version: str, folder: str) -> JSON:
        """Run a copy of the container to its end; return what came of it."""
        labels = {
            "slipway.stack": self.stack,
            "slipway.owner": "app-job",
            "slipway.service": self.job,
            "slipway.job": self.job,
            "slipway.version": version,
        }
        began = time.monotonic()
        found: JSON = {"result": "interrupted", "code": None}
        errors: list[str] = []
        try:
            if self.takes_the_place_of_others():
                identity = container_copy.start_copy(self.engine, container, self.name, labels, folder)
                seconds = float(self.settings["deadline_seconds"])
                found["result"], found["code"] = container_copy.follow_copy(self.engine, identity, seconds, self.is_replaced)
            else:
                found["result"] = "replaced"
        except (JobError, EngineError, container_copy.CopyError, claims.ClaimError, OSError) as error:
            found["result"] = "failed"
            errors = [str(error)]
        except SystemExit:
            say(f"{self.name} is stopped, as its program was asked to end")
        log = container_copy.end_copy(self.engine, self.name, LOG_LINES)
        return {**found, "seconds": round(time.monotonic() - began, 3), "version": version, "log": (log + errors)[-LOG_LINES:]}

    def takes_the_place_of_others(self) -> bool:
        """Wait until the runs that this one replaces have ended; return False where another run replaces this one meanwhile.

        Raises:
            ClaimError: The database does not answer.
            JobError: A restore has begun meanwhile.
        """
        while self.settings["concurrency"] == "replace" and self.claims.others_run(self.job, self.moment):
            # Both would wait for each other.
            if self.is_replaced():
                return False
            time.sleep(1)
        return True

    def is_replaced(self) -> bool:
        """Give a sign of life; return whether another run takes the place of this one.

        Raises:
            JobError: A restore has begun meanwhile.
        """
        if self.restore.exists():
            raise JobError("a restore has begun")
        try:
            return self.claims.is_replaced(self.job, self.moment)
        except claims.ClaimError as error:
            # It goes on: no other host runs the job for this moment.
            say(str(error))
            return False


def clean(config: JSON, job: str) -> None:
    """Remove what runs of a job left whose program was killed."""
    prefix = f"{config['stack']}-{job}-"
    for name in container_copy.left_copies(prefix):
        moment = name[len(prefix) :]
        if not moment.isdigit():
            continue
        run = Run(config, job, int(moment))
        with contextlib.suppress(BlockingIOError), container_copy.following(name):
            say(f"{name} was left by a program that was killed: it is stopped")
            log = container_copy.end_copy(run.engine, name, LOG_LINES)
            conclude(run, {"result": "interrupted", "code": None, "seconds": None, "log": log})


# What came of it


def write(path: Path, text: str) -> None:
    """Write a file at once, readable by all."""
    path.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False, encoding="utf-8") as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def conclude(run: Run, found: JSON) -> None:
    """Keep the result of a run: for the claims, the next run of a playbook, and Prometheus."""
    with contextlib.suppress(claims.ClaimError):
        run.claims.end(run.job, run.moment, found["result"])
    folder = STACKS / run.stack / "jobs" / "state"
    state = {"job": run.job, "moment": instant(run.moment), "finished": instant(time.time()), **found}
    # The stack may have been removed meanwhile; its folder would say that it is there.
    with contextlib.suppress(FileNotFoundError):
        write(folder / f"{run.job}.json", json.dumps(state, indent=2) + "\n")
        write(folder / f"{run.job}.prom", metrics(run, found))


def metrics(run: Run, found: JSON) -> str:
    """Return the result as Prometheus' node_exporter reads it from a file."""
    values = {
        "last_run_success": int(found["result"] == "succeeded"),
        "last_run_duration_seconds": found["seconds"],
        "last_run_timestamp_seconds": run.moment,
        NEXT_RUN: next_moment(run.settings["schedule"], time.time()),
    }
    return gauges(run.stack, run.job, values)


def gauges(stack: str, job: str, values: t.Mapping[str, float | None]) -> str:
    """Return figures of a job, without those that are None, in the text format of Prometheus."""
    labels = f'{{stack="{stack}",job="{job}"}}'
    return "".join(
        f"# TYPE slipway_job_{name} gauge\nslipway_job_{name}{labels} {value}\n" for name, value in values.items() if value is not None
    )


# Commands


def do_fire(config: JSON, arguments: argparse.Namespace) -> int:
    """Start the run for the job's last time."""
    job = arguments.job
    moment = last_moment(config["jobs"][job]["schedule"], time.time())
    unit = f"slipway-{config['stack']}-job.{job}"
    # A timer that was missed fires at once, even where its schedule is newer than that.
    if moment is None or moment < int((UNITS / f"{unit}.timer").stat().st_mtime):
        say(f"{job} was not scheduled before now")
        return 0
    argv = ["systemd-run", "--collect", "--quiet", f"--unit={unit}-{moment}.service", "--property=TimeoutStopSec=infinity"]
    done = subprocess.run(
        [*argv, sys.executable, str(Path(__file__).resolve()), "run", job, str(moment)], capture_output=True, text=True, check=False
    )
    if done.returncode and "already" not in done.stderr:
        raise JobError(f"{job} cannot be started: {done.stderr.strip()}")
    return 0


def claim(run: Run) -> str:
    """Return what came of the claim, for which a database that does not answer is waited for a while.

    Raises:
        ClaimError: it has not answered.
    """
    deadline = time.monotonic() + CLAIM_SECONDS
    while True:
        try:
            return run.claims.claim(run.job, run.moment, run.settings["concurrency"])
        except claims.ClaimError as error:
            if time.monotonic() > deadline:
                raise
            say(f"{error}; trying again")
            time.sleep(CLAIM_PAUSE)


def do_run(config: JSON, arguments: argparse.Namespace) -> int:
    """Run the job for a moment, unless another host has that moment."""
    run = Run(config, arguments.job, arguments.moment)
    clean(config, run.job)
    run.wait_for_restore()
    container, version = container_copy.serving_container(str(STACKS), run.stack, run.job)
    if run.engine.inspect(container) is None:
        say(f"version {version} has no job {run.job}, or {container} was removed, which site.yml creates again")
        return 0
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(container_copy.following(run.name))
        except BlockingIOError:
            say(f"{run.name} runs on this host already")
            return 0
        try:
            answer = claim(run)
        except claims.ClaimError as error:
            conclude(run, {"result": "failed", "code": None, "seconds": None, "version": version, "log": [str(error)]})
            raise JobError(f"{run.job} was not run for {instant(run.moment)}: {error}") from error
        if answer != claims.CLAIMED:
            say(f"{run.job} is not run here for {instant(run.moment)}: {answer}")
            container_copy.end_copy(run.engine, run.name, LOG_LINES)
            return 0
        found = run.carry_out(container, version, folder)
        conclude(run, found)
    say(f"{run.job} for {instant(run.moment)}: {found['result']}")
    return int(found["result"] not in ("succeeded", "replaced"))


def do_reschedule(config: JSON, _arguments: argparse.Namespace) -> int:
    """Have Prometheus expect the next runs of all jobs as they are scheduled now, where it expects any."""
    for job, settings in config["jobs"].items():
        path = STACKS / str(config["stack"]) / "jobs" / "state" / f"{job}.prom"
        with contextlib.suppress(FileNotFoundError):
            kept = [line for line in path.read_text().splitlines(keepends=True) if NEXT_RUN not in line]
            write(path, "".join(kept) + gauges(config["stack"], job, {NEXT_RUN: next_moment(settings["schedule"], time.time())}))
    return 0


def main() -> int:
    """Run a command; return 0, or 1 where it failed."""
    top = argparse.ArgumentParser(description="Jobs of a stack; see docs/product.md.")
    commands = top.add_subparsers(dest="command", required=True)
    made = commands.add_parser("fire", help="start the run for the job's last time, as its timer does")
    made.set_defaults(action=do_fire)
    made.add_argument("job")
    made = commands.add_parser("run", help="run the job for a moment, unless another host has that moment")
    made.set_defaults(action=do_run)
    made.add_argument("job")
    made.add_argument("moment", type=int, nargs="?", default=int(time.time()), help="in seconds since 1970, by default now")
    made = commands.add_parser("reschedule", help="note for Prometheus when jobs run next, after a change of their schedules")
    made.set_defaults(action=do_reschedule, job=None)
    arguments = top.parse_args()
    config = json.loads(CONFIG.read_text())
    if arguments.job is not None and arguments.job not in config["jobs"]:
        top.error(f"there is no job {arguments.job}; known are {', '.join(config['jobs']) or 'none'}")
    # What is ended from outside cleans up as after any failure.
    signal.signal(signal.SIGTERM, lambda *_unused: sys.exit(1))
    try:
        return int(arguments.action(config, arguments))
    except (JobError, container_copy.CopyError, EngineError) as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
