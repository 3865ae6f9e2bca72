# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""First process of the container: keeps WAL streaming, and archives what has arrived."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import threading
import time
import typing as t
from pathlib import Path

from slipway_backup import offsite, postgres, report
from slipway_backup.common import Config, StepError, load_config, now, read_json, say, stamp, write_json

ARCHIVE_SECONDS = 10
#: Asks the first process to start over; see the command start-over.
START_OVER = "start-over"
#: How often a monitor gets new figures between runs.
REPORT_SECONDS = 60
LONGEST_PAUSE = 30
#: A receiver that cannot log in ends sooner.
STEADY_SECONDS = 3
#: The health check ignores an older status.
STALE_SECONDS = 90
STOP_SECONDS = 10
REAP_SECONDS = 2
#: The server's messages when it cannot stream from the requested position.
DEAD_END = ("has already been removed", "is not in this server's history")


class Supervisor:
    """Starts the receiver, restarts it when it ends, and records its status."""

    def __init__(self, config: Config) -> None:
        """Take the configuration; nothing is started yet."""
        self.config = config
        self.stopping = threading.Event()
        self.reload = False
        self.receiver: subprocess.Popen[str] | None = None
        self.began = 0.0
        self.pause = 1
        self.retry_at = 0.0
        self.error = ""
        self.output: collections.deque[str] = collections.deque(maxlen=20)

    def stop(self, *_unused: object) -> None:
        """End the loop, and with it the process."""
        self.stopping.set()

    def take_over(self, *_unused: object) -> None:
        """Have the loop reload its configuration, program included."""
        self.reload = True
        self.stopping.set()

    def start(self) -> None:
        """Start the receiver, with a slot that it can use.

        Raises:
            StepError: the server is away or refuses.
        """
        connection = postgres.connect(self.config)
        try:
            postgres.refuse_other_cluster(self.config, connection)
            rows = postgres.ask(connection, "select wal_status from pg_replication_slots where slot_name = %s", [postgres.SLOT])
        finally:
            connection.close()
        said = "\n".join(self.output)
        if (rows and rows[0][0] == "lost") or any(text in said for text in DEAD_END):
            self.start_over(bool(rows))
            rows = []
        if not rows:
            postgres.barman(self.config, "receive-wal", "--create-slot", "--if-not-exists", postgres.SERVER, what="create a slot")
        self.output.clear()
        command = postgres.barman_command(self.config, "receive-wal", postgres.SERVER)
        # A group of its own: Barman starts PostgreSQL's receiver, and both have to end.
        self.receiver = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        threading.Thread(target=self.listen, args=[self.receiver.stdout], daemon=True).start()
        self.began = time.monotonic()
        say("wal: receiving")

    def listen(self, stream: t.IO[str]) -> None:
        """Pass on what the receiver says, and remember the end of it."""
        for line in stream:
            self.output.append(line)
            say(f"wal: {line.rstrip()}")

    def start_over(self, has_slot: bool) -> None:
        """Give up the position in the WAL from which the server cannot continue, and record the gap.

        The server has dropped WAL that had not arrived (see max_slot_wal_keep_size), or it was restored to an earlier moment.
        """
        say("wal: the server cannot continue from the last position; restarting, and the next base backup is a full one")
        postgres.remember_gap(self.config, now())
        self.archive()
        if has_slot:
            postgres.barman(self.config, "receive-wal", "--drop-slot", postgres.SERVER, what="drop the slot")
        # Without them the receiver begins where the server is.
        home = self.config.barman / postgres.SERVER
        for path in (home / "streaming").glob("0*.partial"):
            # Kept: it may contain the last writes of a timeline that may have to be restored.
            (home / postgres.SUPERSEDED).mkdir(exist_ok=True)
            path.rename(home / postgres.SUPERSEDED / path.name)

    def end_receiver(self) -> None:
        """End the receiver; it finishes what it has."""
        if not self.receiver:
            return
        for sign in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.receiver.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.receiver.wait(STOP_SECONDS)
                break
        reap(self.receiver.pid)
        self.receiver = None

    def obey(self) -> None:
        """Start over if a restore asks for it, without waiting for the server to refuse the old position."""
        flag = self.config.state / START_OVER
        if flag.exists():
            self.end_receiver()
            aside = flag.read_text().strip()
            if aside:
                set_aside(self.config, aside)
            else:
                self.start_over(False)
            flag.unlink(missing_ok=True)
            self.pause, self.retry_at = 1, 0.0

    def look(self) -> None:
        """Start the receiver where none runs, after a pause that grows as long as it does not help."""
        if self.receiver and self.receiver.poll() is None:
            if time.monotonic() - self.began > LONGEST_PAUSE:
                self.pause = 1
            return
        if self.receiver:
            self.error = f"the receiver ended with {self.receiver.returncode}"
            say(f"wal: {self.error}")
            # What Barman left running of it.
            self.end_receiver()
            self.retry_at = time.monotonic() + self.pause
            self.pause = min(self.pause * 2, LONGEST_PAUSE)
        if time.monotonic() < self.retry_at:
            return
        try:
            self.start()
        except StepError as error:
            if str(error) != self.error:
                say(f"wal: {error}")
            self.error = str(error)
            self.retry_at = time.monotonic() + self.pause
            self.pause = min(self.pause * 2, LONGEST_PAUSE)

    def is_steady(self) -> bool:
        """Return whether the receiver has run for longer than a refused login takes."""
        return bool(self.receiver and self.receiver.poll() is None and time.monotonic() - self.began > STEADY_SECONDS)

    def record_status(self) -> None:
        """Record the status, for the health check."""
        path = self.config.state / "wal.json"
        steady = self.is_steady()
        if steady:
            self.error = ""
        state = {**read_json(path, {}), "at": stamp(now()), "uptime_s": round(time.monotonic()), "receiving": steady, "error": self.error}
        write_json(path, state)

    def archive(self) -> None:
        """Move the segments that are complete from where they arrive to where they are kept."""
        streaming = self.config.barman / postgres.SERVER / "streaming"
        if not any(entry.suffix != ".partial" for entry in streaming.glob("0*")):
            return
        try:
            postgres.barman(self.config, "archive-wal", postgres.SERVER, what="archive WAL", timeout=600)
        except StepError as error:
            say(f"wal: {error}")

    def reap_zombies(self) -> None:
        """Reap what a killed run left to the first process: for restic, a lock is held as long as its process exists."""
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if self.receiver and ended.si_pid == self.receiver.pid:
                    return
                os.waitpid(ended.si_pid, 0)

    def loop(self) -> None:
        """Run until stopped."""
        due = report_due = 0.0
        while not self.stopping.is_set():
            if os.getpid() == 1:
                self.reap_zombies()
            if self.config.postgres:
                self.obey()
                self.look()
                if time.monotonic() >= due:
                    self.archive()
                    due = time.monotonic() + ARCHIVE_SECONDS
            if time.monotonic() >= report_due:
                with contextlib.suppress(OSError, StepError):
                    report.write(self.config)
                report_due = time.monotonic() + REPORT_SECONDS
            with contextlib.suppress(OSError):
                # The report says that the disk is full; streaming continues when there is space.
                self.record_status()
            self.stopping.wait(1)
        self.end_receiver()


def reap(group: int) -> None:
    """Reap what a receiver started: the first process of a container inherits it, and each zombie counts against the limit."""
    deadline = time.monotonic() + REAP_SECONDS
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if not os.waitpid(-group, os.WNOHANG)[0]:
                time.sleep(0.05)


def set_aside(config: Config, name: str) -> None:
    """Move all points and base backups with their WAL where they can still be restored from, and nothing else changes them.

    Args:
        config: names the data.
        name: of the folder below ``aside`` that gets them; what a process that died has moved already stays there.
    """
    target = config.data / "aside" / name
    for source in (config.barman / postgres.SERVER, *config.points.glob("[0-9]*")):
        if source.exists():
            place = target / source.relative_to(config.data)
            place.parent.mkdir(parents=True, exist_ok=True)
            source.rename(place)
    # Which of them are off-site.
    write_json(target / "state" / offsite.STATE, read_json(config.state / offsite.STATE, {}))
    # What it says of a gap is of the old one.
    postgres.remember_gap(config, None)
    say(f"wal: the old points are in {target}; starting over")


def prepare(config: Config) -> None:
    """Make the folders."""
    for folder in (config.points, config.barman, config.state, config.data / "metrics"):
        folder.mkdir(parents=True, exist_ok=True)


def serve(config: Config) -> None:
    """Keep WAL streaming until the process is stopped; on SIGHUP restart with the current configuration."""
    prepare(config)
    supervisor = Supervisor(config)
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGINT, supervisor.stop)
    signal.signal(signal.SIGHUP, supervisor.take_over)
    supervisor.loop()
    if supervisor.reload:
        os.execvp("slipway-backup", ["slipway-backup", "serve"])  # noqa: S606 - this very program, as it is now


def wait_until_obeyed(config: Config, seconds: float = 60) -> None:
    """Wait until the first process has started over.

    Raises:
        StepError: it has not, for example because it is busy; it will not do so later either.
    """
    deadline, flag = time.monotonic() + seconds, config.state / START_OVER
    try:
        while flag.exists():
            if time.monotonic() > deadline:
                raise StepError(
                    f"the receiver has not restarted within {seconds:.0f} s, so nothing was moved aside; see the backup container's log"
                )
            time.sleep(0.2)
    finally:
        # If it were obeyed later, it could move the backups of the right database aside.
        flag.unlink(missing_ok=True)


def health(config: Config) -> str:
    """Return what is wrong; an empty string if WAL streams, or there is no database to stream from."""
    state = read_json(config.state / "wal.json", {})
    if not state or abs(time.monotonic() - state["uptime_s"]) > STALE_SECONDS:
        return "the receiver reports no status"
    if config.postgres and not state["receiving"]:
        return state["error"] or "WAL is not streaming yet"
    return ""


def check_config(path: Path) -> None:
    """Read a configuration that is to replace the live one.

    Raises:
        StepError: it cannot be used.
    """
    load_config(path)
