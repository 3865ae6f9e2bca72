# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a job of the product at its time: on one host of all, in the version that serves, and never twice for one time.

Timers call ``fire``, which starts ``run`` in a unit of its own: the timer is free for the next time. docs/product.md describes jobs.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
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
from ansible_collections.slipway.stack.plugins.module_utils.container_copy import CopyError, remove_copy, start_copy  # noqa: E402
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError  # noqa: E402

JSON = dict[str, t.Any]

CONFIG = Path(__file__).resolve().parent / "jobs.json"
#: Of each run, while it lasts: its files, and a lock that says that its program lives.
RUNS = Path("/run/slipway-jobs")
UNITS = Path("/etc/systemd/system")
STACKS = Path("/etc/slipway")
#: Seconds between two signs of life of a run.
BEAT_SECONDS = 5.0
#: Seconds for which a claim is tried while the database does not answer, and between two attempts.
CLAIM_SECONDS, CLAIM_PAUSE = 300.0, 5.0
LOG_LINES = 20
#: How far back the last time of a calendar is looked for, in seconds.
WINDOWS = (60, 3600, 86400, 31 * 86400, 366 * 86400, 5 * 366 * 86400)
ITERATIONS = 100


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


def serving(stack: str) -> JSON:
    """Return the record of the release that serves, with slot and version.

    Raises:
        JobError: there is none.
    """
    try:
        record: JSON = json.loads((STACKS / stack / "release" / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise JobError("no version of the product serves on this host yet") from error
    return record


class Run:
    """One run of a job, for one moment."""

    def __init__(self, config: JSON, job: str, moment: int) -> None:
        """Take what the role rendered; nothing is done yet."""
        self.stack, self.job, self.moment = str(config["stack"]), job, moment
        self.name = f"{self.stack}-{job}-{moment}"
        self.folder = RUNS / self.name
        self.settings: JSON = config["jobs"][job]
        self.claims = claims.Claims(config, STACKS / self.stack / "jobs")
        self.engine = Engine()

    def lock(self) -> t.IO[str]:
        """Say that the program of this run lives, for as long as the file is open.

        Raises:
            BlockingIOError: another one does.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (self.folder / "lock").open("w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    def start(self, record: JSON) -> str:
        """Start the job's container; return its id."""
        labels = {
            "slipway.stack": self.stack,
            "slipway.owner": "app-job",
            "slipway.service": self.job,
            "slipway.job": self.job,
            "slipway.version": str(record["version"]),
        }
        return start_copy(self.engine, template(self.stack, self.job, record), self.name, labels, str(self.folder / "files"))

    def follow(self, identity: str) -> tuple[str, int | None]:
        """Wait for the end of the container; return the result and its exit code, None where it was stopped."""
        deadline = time.monotonic() + float(self.settings["deadline_seconds"])
        while True:
            left = deadline - time.monotonic()
            with contextlib.suppress(EngineError):
                # It answers at once when the container has ended, or not within this time.
                self.engine.request("POST", f"/containers/{identity}/wait", timeout=max(0.1, min(BEAT_SECONDS, left)))
            try:
                inspected = self.engine.inspect(identity)
            except EngineError as error:
                # An engine that restarts may let containers live on.
                say(str(error))
                time.sleep(1)
                inspected = {"State": {"Running": True}}
            if inspected is None:
                return "interrupted", None
            state = inspected["State"]
            if not state["Running"]:
                code = int(state["ExitCode"])
                return "failed" if code or state.get("OOMKilled") else "succeeded", code
            if left <= 0:
                return "deadline", None
            try:
                if self.claims.is_replaced(self.job, self.moment):
                    return "replaced", None
            except claims.ClaimError as error:
                # It goes on: what it was claimed for is not run by anybody else.
                say(str(error))


def template(stack: str, job: str, record: JSON) -> str:
    """Return the name of the container that a job's runs are copies of."""
    return f"{stack}-{job}-{record['slot']}-1"


def clean(config: JSON, job: str) -> None:
    """Remove what runs of a job left whose program was killed."""
    for folder in RUNS.glob(f"{config['stack']}-{job}-*"):
        moment = folder.name.rpartition("-")[2]
        if folder.name != f"{config['stack']}-{job}-{moment}" or not moment.isdigit():
            continue
        run = Run(config, job, int(moment))
        with contextlib.suppress(BlockingIOError), run.lock():
            say(f"{run.name} was left by a program that was killed: it is stopped")
            log = tail(run.engine, run.name)
            remove_copy(run.engine, run.name, str(folder))
            conclude(run, {"result": "interrupted", "code": None, "seconds": None, "log": log})


def tail(engine: Engine, container: str) -> list[str]:
    """Return the last lines that a container wrote, none where it does not exist."""
    with contextlib.suppress(EngineError):
        return engine.logs(container, LOG_LINES).splitlines()[-LOG_LINES:]
    return []


# What came of it


def write(path: Path, text: str) -> None:
    """Write a file at once, readable by all."""
    path.parent.mkdir(parents=True, exist_ok=True)
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
    write(folder / f"{run.job}.json", json.dumps(state, indent=2) + "\n")
    write(folder / f"{run.job}.prom", metrics(run, found))


def metrics(run: Run, found: JSON) -> str:
    """Return the result as Prometheus' node_exporter reads it from a file."""
    labels = f'{{stack="{run.stack}",job="{run.job}"}}'
    values = {
        "success": int(found["result"] == "succeeded"),
        "duration_seconds": found["seconds"],
        "timestamp_seconds": run.moment,
    }
    lines = [
        f"# TYPE slipway_job_last_run_{name} gauge\nslipway_job_last_run_{name}{labels} {value}\n"
        for name, value in values.items()
        if value is not None
    ]
    return "".join(lines)


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
    record = serving(run.stack)
    if run.engine.inspect(template(run.stack, run.job, record)) is None:
        say(f"version {record['version']} has no job {run.job}, or its container was removed, which site.yml makes again")
        return 0
    began = time.monotonic()
    with run.lock():
        try:
            answer = claim(run)
        except claims.ClaimError as error:
            conclude(run, {"result": "failed", "code": None, "seconds": None, "log": [str(error)], "version": record["version"]})
            raise JobError(f"{run.job} was not run for {instant(run.moment)}: {error}") from error
        if answer != claims.CLAIMED:
            say(f"{run.job} is not run here for {instant(run.moment)}: {answer}")
            remove_copy(run.engine, run.name, str(run.folder))
            return 0
        found = carry_out(run, record)
    found.update(seconds=round(time.monotonic() - began, 3), version=record["version"])
    conclude(run, found)
    say(f"{run.job} for {instant(run.moment)}: {found['result']}")
    return int(found["result"] not in ("succeeded", "replaced"))


def carry_out(run: Run, record: JSON) -> JSON:
    """Run the container to its end and remove it; return what came of it."""
    found: JSON = {"result": "interrupted", "code": None, "log": []}
    try:
        (run.folder / "files").mkdir()
        while run.settings["concurrency"] == "replace" and run.claims.others_run(run.job, run.moment):
            time.sleep(1)
        identity = run.start(record)
        found["result"], found["code"] = run.follow(identity)
    except (EngineError, CopyError, claims.ClaimError, OSError) as error:
        found.update(result="failed", log=[str(error)])
    except SystemExit:
        say(f"{run.name} is stopped, as its program was asked to end")
    with contextlib.suppress(EngineError):
        inspected = run.engine.inspect(run.name)
        if inspected is not None:
            run.engine.stop(inspected)
    found["log"] = (tail(run.engine, run.name) + found["log"])[-LOG_LINES:]
    remove_copy(run.engine, run.name, str(run.folder))
    return found


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
    made.add_argument("moment", type=int, help="in seconds since 1970")
    arguments = top.parse_args()
    config = json.loads(CONFIG.read_text())
    if arguments.job not in config["jobs"]:
        top.error(f"there is no job {arguments.job}; known are {', '.join(config['jobs']) or 'none'}")
    # What is ended from outside cleans up as after any failure.
    signal.signal(signal.SIGTERM, lambda *_unused: sys.exit(1))
    try:
        return int(arguments.action(config, arguments))
    except (JobError, EngineError) as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
