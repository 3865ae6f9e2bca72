# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program: ``python -m slipway_prober --config FILE``.

It outlives the task that started it, and always ends: by its stop file, by a signal, at its deadline, or with its parent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .control import Control, remove_folder, write_json
from .http1 import Http1Load
from .meter import Meter, timestamp
from .schedule import POLL_SECONDS, pace
from .settings import Settings, SettingsError
from .websocket import WebSocketLoad

WRITE_SECONDS = 0.25
PARENT_SECONDS = 0.5


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
        # Connections break while they are being closed.
        loop.set_exception_handler(lambda _loop, _context: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, signal.Signals(number).name)
        self._write()
        self._websockets.start()
        await asyncio.gather(self._watch(), pace(self._settings.rate, self._meter, [self._requests.submit], self._stopped))
        patience = 0.5 if self._reason == "parent gone" else self._settings.timeout_seconds
        await asyncio.gather(self._requests.finish(patience), self._websockets.finish(min(patience, 2.0)))
        self._write(self._reason)
        return self._reason


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

    if asyncio.run(Prober(settings, control).run()) == "parent gone":
        # The parent that would read the results and clean up has ended.
        remove_folder(path.parent)
    return 0


if __name__ == "__main__":
    # A program of its own on the controller.
    sys.exit(main())  # pylint: disable=ansible-bad-function
