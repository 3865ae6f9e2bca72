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
#: Asks the first process to begin anew; see the command of that name.
ANEW = "anew"
#: How often a monitor gets new figures between runs.
REPORT_SECONDS = 60
LONGEST_PAUSE = 30
#: A receiver that cannot log in ends sooner.
STEADY_SECONDS = 3
#: The health check takes an older word of ours for none.
STALE_SECONDS = 90
STOP_SECONDS = 10
REAP_SECONDS = 2
#: What the server says when there is no way on from the place that we ask for.
DEAD_END = ("has already been removed", "is not in this server's history")


class Supervisor:
    """Starts the receiver, starts it again when it ends, and tells how it is."""

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
        """Have the loop read its configuration anew, program included."""
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
            self.begin_anew(bool(rows))
            rows = []
        if not rows:
            postgres.barman(self.config, "receive-wal", "--create-slot", "--if-not-exists", postgres.SERVER, what="make a slot")
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

    def begin_anew(self, has_slot: bool) -> None:
        """Give up the place in the WAL that the server cannot go on from, and note that there is a gap.

        The server has dropped what we did not have (see max_slot_wal_keep_size), or it was restored to an earlier moment.
        """
        say("wal: the server cannot go on from where we are; beginning anew, and the next base backup is a full one")
        postgres.remember_gap(self.config, now())
        self.archive()
        if has_slot:
            postgres.barman(self.config, "receive-wal", "--drop-slot", postgres.SERVER, what="drop the slot")
        # Without them the receiver begins where the server is.
        home = self.config.barman / postgres.SERVER
        for path in (home / "streaming").glob("0*.partial"):
            # Kept: it may hold the last writes of a history that somebody wants back after all.
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
        """Begin anew where a restore asks for it, rather than wait for the server to refuse what we ask of it."""
        flag = self.config.state / ANEW
        if flag.exists():
            self.end_receiver()
            aside = flag.read_text().strip()
            if aside:
                set_aside(self.config, aside)
            else:
                self.begin_anew(False)
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
        """Tell whether the receiver has run for longer than a refused login takes."""
        return bool(self.receiver and self.receiver.poll() is None and time.monotonic() - self.began > STEADY_SECONDS)

    def tell(self) -> None:
        """Write down how it is, for the health check."""
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
        """Take leave of what a killed run has left to the first process: to restic, a lock is held as long as its process is there."""
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if self.receiver and ended.si_pid == self.receiver.pid:
                    return
                os.waitpid(ended.si_pid, 0)

    def loop(self) -> None:
        """Run until told to stop."""
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
                # A full disk is for the report to tell; streaming goes on when there is room.
                self.tell()
            self.stopping.wait(1)
        self.end_receiver()


def reap(group: int) -> None:
    """Take leave of what a receiver started: the first process of a container inherits it, and each one counts against the limit."""
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
    say(f"wal: the points there were are in {target}; beginning anew")


def prepare(config: Config) -> None:
    """Make the folders."""
    for folder in (config.points, config.barman, config.state, config.data / "metrics"):
        folder.mkdir(parents=True, exist_ok=True)


def serve(config: Config) -> None:
    """Keep WAL streaming until the process is told to stop; on SIGHUP begin anew with what the configuration says now."""
    prepare(config)
    supervisor = Supervisor(config)
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGINT, supervisor.stop)
    signal.signal(signal.SIGHUP, supervisor.take_over)
    supervisor.loop()
    if supervisor.reload:
        os.execvp("slipway-backup", ["slipway-backup", "serve"])  # noqa: S606 - this very program, as it is now


def wait_until_obeyed(config: Config, seconds: float = 60) -> None:
    """Wait until the first process has begun anew.

    Raises:
        StepError: it has not, as where it is busy with something else; it will not do so later either.
    """
    deadline, flag = time.monotonic() + seconds, config.state / ANEW
    try:
        while flag.exists():
            if time.monotonic() > deadline:
                raise StepError(
                    f"the receiver has not begun anew within {seconds:.0f} s, so nothing was set aside; see the backup container's log"
                )
            time.sleep(0.2)
    finally:
        # Obeyed when nobody expects it any more, it might set aside the backups of the right database.
        flag.unlink(missing_ok=True)


def health(config: Config) -> str:
    """Return what is wrong; an empty text when WAL streams, or where there is no database to stream from."""
    state = read_json(config.state / "wal.json", {})
    if not state or abs(time.monotonic() - state["uptime_s"]) > STALE_SECONDS:
        return "the receiver does not say how it is"
    if config.postgres and not state["receiving"]:
        return state["error"] or "WAL does not stream yet"
    return ""


def check_config(path: Path) -> None:
    """Read a configuration that is to replace the live one.

    Raises:
        StepError: it cannot be used.
    """
    load_config(path)
