# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a job of the product at its time: on one host of all, in the version that serves, and never twice for one time.

Timers call ``fire``, which starts ``run`` in a unit of its own: the timer is free for the next time. docs/product.md describes jobs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
import typing as t
from datetime import datetime, timezone
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import claims  # noqa: E402 - all of them are in this file's folder
from ansible_collections.slipway.stack.plugins.module_utils import config_files, container_copy  # noqa: E402
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError  # noqa: E402
from ansible_collections.slipway.stack.plugins.module_utils.json_files import JOB, json_object  # noqa: E402

JSON = dict[str, t.Any]
Answer = t.TypeVar("Answer")

CONFIG = Path(__file__).resolve().parent / "jobs.json"
UNITS = Path("/etc/systemd/system")
STACKS = Path("/etc/slipway")
#: Seconds for which a database or an engine that does not answer is asked again, and between two attempts.
ANSWER_SECONDS, ANSWER_PAUSE = 300.0, 5.0
#: Below the stack's folder, while a restore exchanges data.
RESTORE = "restore/under_way.json"
#: Seconds after which it is looked at again.
RESTORE_PAUSE = 5.0
#: Label of the containers that are runs.
OWNER = "app-job"
LOG_LINES = 20
#: Result where the host could not learn whether it has the claim.
UNCLAIMED = "unclaimed"
#: Results that do not replace that of a run for the same time or a later one.
UNENDED = ("interrupted", UNCLAIMED)
#: Results that need no attention.
GOOD = ("succeeded", "replaced")
#: How far back the last time of a calendar is looked for, in seconds.
WINDOWS = (60, 3600, 86400, 31 * 86400, 366 * 86400, 5 * 366 * 86400)
ITERATIONS = 100
#: The figure of which Prometheus knows that a job is late.
NEXT_RUN = "next_run_timestamp_seconds"


class JobError(Exception):
    """A job cannot be run; says why."""


class LeftOut(Exception):  # noqa: N818 - nothing has failed
    """A job is not run here for a moment; says why."""


def say(text: str) -> None:
    """Print what is being done, for the journal."""
    print(text, file=sys.stderr, flush=True)


def instant(moment: float) -> str:
    """Return a time as people read it."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def patiently(ask: t.Callable[[], Answer], seconds: float = ANSWER_SECONDS) -> Answer:
    """Return the answer of a database or an engine, which is asked again for so many seconds if there is none.

    Raises:
        ClaimError: The database has not answered.
        EngineError: The engine has not answered.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except (claims.ClaimError, EngineError) as error:
            if time.monotonic() > deadline:
                raise
            say(f"{error}; trying again")
            time.sleep(ANSWER_PAUSE)


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
        self.prefix = f"{self.stack}-{job}-"
        self.name = f"{self.prefix}{moment}"
        self.settings: JSON = config["jobs"][job]
        self.claims = claims.Claims(config, STACKS / self.stack / "jobs")
        self.restore = STACKS / self.stack / RESTORE
        self.engine = Engine()

    def attempt(self, folder: str) -> str:
        """Run the job in a folder that following() has yielded; return the result.

        Raises:
            LeftOut: It is not run here for this moment.
            ClaimError: The database has not answered.
            CopyError: No version serves on this host.
            EngineError: The engine has not answered.
        """
        self.wait_for_restore()
        container, version = container_copy.serving_container(str(STACKS), self.stack, self.job)
        if patiently(lambda: self.engine.inspect(container)) is None:
            raise LeftOut(f"version {version} has no job {self.job}, or {container} was removed, which site.yml creates again")
        answer = patiently(lambda: self.claims.claim(self.job, self.moment, self.settings["concurrency"]))
        if answer != claims.CLAIMED:
            raise LeftOut(answer)
        return self.carry_out(container, version, folder)

    def wait_for_restore(self) -> None:
        """Wait until no restore exchanges data, which the job would read and write in part.

        Raises:
            LeftOut: A run for a later time waits too.
        """
        if self.restore.exists():
            say(f"{self.name} waits for the end of a restore")
        while self.restore.exists():
            waiting = moments(self.prefix, container_copy.copy_folders(self.prefix))
            if max(waiting, default=0) > self.moment:
                raise LeftOut("a run for a later time waits for the end of the restore too")
            time.sleep(RESTORE_PAUSE)

    def carry_out(self, container: str, version: str, folder: str) -> str:
        """Run a copy of the container to its end, and keep what came of it; return the result."""
        labels = {
            "slipway.stack": self.stack,
            "slipway.owner": OWNER,
            "slipway.service": self.job,
            "slipway.job": self.job,
            "slipway.version": version,
        }
        began = time.monotonic()
        result: str = "interrupted"
        code: int | None = None
        errors: list[str] = []
        try:
            if self.takes_the_place_of_others():
                identity = container_copy.start_copy(self.engine, container, self.name, labels, folder)
                seconds = float(self.settings["deadline_seconds"])
                result, code = container_copy.follow_copy(self.engine, identity, seconds, self.is_replaced)
            else:
                result = "replaced"
        except (JobError, EngineError, container_copy.CopyError, claims.ClaimError, OSError) as error:
            result = "failed"
            errors = [str(error)]
        except SystemExit:
            say(f"{self.name} is stopped, as its program was asked to end")
        finish(self, {"result": result, "code": code, "seconds": round(time.monotonic() - began, 3), "version": version}, errors)
        return result

    def takes_the_place_of_others(self) -> bool:
        """Wait until the runs that this one replaces have ended; return False where another run replaces this one meanwhile.

        Raises:
            ClaimError: The database does not answer.
            JobError: A restore has begun meanwhile.
        """
        while self.settings["concurrency"] == "replace" and patiently(lambda: self.claims.others_run(self.job, self.moment)):
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


def moments(prefix: str, names: t.Iterable[str]) -> list[int]:
    """Return the times that runs of a job are for, by their names; others, that begin so too, are of others."""
    return [int(name[len(prefix) :]) for name in names if name[len(prefix) :].isdigit()]


def clean(config: JSON, job: str) -> None:
    """Remove what runs of a job left whose program was killed, or whose host has stopped.

    Raises:
        EngineError: The engine does not answer.
    """
    engine, prefix = Engine(), f"{config['stack']}-{job}-"
    for moment in moments(prefix, container_copy.left_copies(engine, prefix, OWNER)):
        run = Run(config, job, moment)
        with contextlib.suppress(BlockingIOError), container_copy.following(run.name):
            inspected = engine.inspect(run.name)
            # Without a container nothing ran, and the claim may be another host's.
            if inspected is None:
                container_copy.end_copy(engine, run.name, LOG_LINES)
                continue
            say(f"{run.name} was left by a program that was killed: it is stopped")
            version = inspected["Config"]["Labels"].get("slipway.version")
            finish(run, {"result": "interrupted", "code": None, "seconds": None, "version": version})


# What came of it


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file at once, by default readable by all.

    Raises:
        FileNotFoundError: The folder of the jobs is gone, and with it the stack.
    """
    path.parent.mkdir(exist_ok=True)
    config_files.write_file(str(path), text, mode)


def finish(run: Run, found: JSON, errors: t.Sequence[str] = ()) -> None:
    """Remove the copy of a run and keep what came of it, before the program ends that is asked to."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        try:
            log = patiently(lambda: container_copy.end_copy(run.engine, run.name, LOG_LINES))
        except EngineError as error:
            log = [f"the container {run.name} cannot be removed, which the next run tries again: {error}"]
        conclude(run, {**found, "log": [*log, *errors][-LOG_LINES:]})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def conclude(run: Run, found: JSON) -> None:
    """Keep the result of a run: for the next run of a playbook, Prometheus, and the claims."""
    folder = STACKS / run.stack / "jobs" / "state"
    state = {"job": run.job, "moment": instant(run.moment), "finished": instant(time.time()), **found}
    # The stack may have been removed meanwhile; its folder would say that it is there.
    with contextlib.suppress(FileNotFoundError, claims.ClaimError):
        if found["result"] not in UNENDED or not is_known(state, folder / f"{run.job}.json"):
            # Its log may hold a secret, as those of the engine, which are readable for root alone.
            write(folder / f"{run.job}.json", json.dumps(state, indent=2) + "\n", 0o600)
            # Another host may have run it: then Prometheus learns it there, and otherwise that it is late.
            if found["result"] != UNCLAIMED:
                write(folder / f"{run.job}.prom", metrics(run, found))
        if found["result"] != UNCLAIMED:
            # Later it counts as lost anyway.
            patiently(lambda: run.claims.end(run.job, run.moment, found["result"]), claims.LEASE_SECONDS)


def is_known(state: JSON, path: Path) -> bool:
    """Return whether a file has the result of a run for the same time or a later one."""
    try:
        known = json_object(path.read_bytes(), JOB)
    except FileNotFoundError:
        return False
    # One of the future is of a clock that was wrong.
    return known is not None and known["result"] != UNCLAIMED and bool(state["moment"] <= known["moment"] <= state["finished"])


def metrics(run: Run, found: JSON) -> str:
    """Return the result as Prometheus' node_exporter reads it from a file."""
    values = {
        "last_run_success": int(found["result"] in GOOD),
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
    argv = ["systemd-run", "--collect", "--quiet", f"--unit={unit}-{moment}.service"]
    # At a shutdown it ends first, as it stops its container, and then keeps its result.
    argv += ["--property=After=docker.service", "--property=TimeoutStopSec=infinity"]
    done = subprocess.run(
        [*argv, sys.executable, str(Path(__file__).resolve()), "run", job, str(moment)], capture_output=True, text=True, check=False
    )
    if done.returncode and "already" not in done.stderr:
        raise JobError(f"{job} cannot be started: {done.stderr.strip()}")
    return 0


def do_run(config: JSON, arguments: argparse.Namespace) -> int:
    """Run the job for a moment, unless another host has that moment."""
    run = Run(config, arguments.job, arguments.moment)
    try:
        patiently(lambda: clean(config, run.job))
        with container_copy.following(run.name) as folder:
            result = run.attempt(folder)
    except BlockingIOError:
        say(f"{run.name} runs on this host already")
        return 0
    except LeftOut as reason:
        say(f"{run.job} is not run here for {instant(run.moment)}: {reason}")
        return 0
    except (claims.ClaimError, EngineError, SystemExit) as error:
        why = "its program was asked to end" if isinstance(error, SystemExit) else str(error)
        conclude(run, {"result": UNCLAIMED, "code": None, "seconds": None, "log": [why]})
        raise JobError(f"{run.job} for {instant(run.moment)}: {why}") from error
    say(f"{run.job} for {instant(run.moment)}: {result}")
    return int(result not in GOOD)


def do_clean(config: JSON, _arguments: argparse.Namespace) -> int:
    """Remove what runs of all jobs have left."""
    for job in config["jobs"]:
        patiently(functools.partial(clean, config, job))
    return 0


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
    made = commands.add_parser("clean", help="remove what runs have left whose program was killed, or whose host has stopped")
    made.set_defaults(action=do_clean, job=None)
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
