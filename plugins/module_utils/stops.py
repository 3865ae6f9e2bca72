# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a run that stops a container and the watchdog that restarts it apart.

A container that is being stopped stays unhealthy until it has ended. The engine takes a restart of it meanwhile: it ends the container
sooner, and starts it again after the stop has returned.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import typing as t

#: Of each container that is being stopped, by its id: a lock, and until when its stop may take. Gone with a reboot.
FOLDER = "/run/slipway-stops"


@contextlib.contextmanager
def _opened(identity: str) -> t.Iterator[t.IO[str]]:
    """Open the file of a container; that is also its lock."""
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    with open(os.path.join(FOLDER, identity), "a+", encoding="ascii") as file:
        yield file


@contextlib.contextmanager
def stopping(identity: str, seconds: float) -> t.Iterator[None]:
    """Wait for a restart by the watchdog that has begun, and allow none while the context lasts.

    Args:
        identity: the container's id.
        seconds: how long the engine may take: it goes on with a stop although the program that asked for it was killed.
    """
    with _opened(identity) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        # Seconds since the host was started, which no change of its time alters.
        file.write(str(time.monotonic() + seconds))
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.name)


@contextlib.contextmanager
def restarting(identity: str) -> t.Iterator[bool]:
    """Yield whether a container may be restarted: it is not being stopped, and no stop begins while the context lasts."""
    with _opened(identity) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        file.seek(0)
        yield float(file.read() or 0) < time.monotonic()
