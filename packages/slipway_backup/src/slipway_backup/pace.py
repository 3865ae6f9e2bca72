# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a program that has no such option from reading faster than others can bear."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
import typing as t
from pathlib import Path

#: Seconds between two looks at what was read.
LOOK_SECONDS = 0.05
#: Longest time in seconds for which the program is stopped at once: peers at the other end of its connections must not give it up.
STOP_SECONDS = 1.0
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, even where it is stopped then; for ``preexec_fn``."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def bytes_read(pid: int) -> int:
    """Return how many bytes a process has read so far, from wherever: ``rchar`` of proc_pid_io(5).

    Raises:
        OSError: it is gone, or the kernel does not say.
    """
    return int(Path(f"/proc/{pid}/io").read_text().split()[1])


def rest(read: int, seconds: float, rate: float) -> float:
    """Return for how many seconds a program must stand still that has read that much in that time, at a rate in bytes a second."""
    return min(max(read / rate - seconds, 0), STOP_SECONDS)


@contextlib.contextmanager
def limited(pid: int, rate: float) -> t.Iterator[None]:
    """Keep a child from reading faster than that, by stopping it (SIGSTOP) for as long as it is ahead.

    Args:
        pid: the child; it may end within the context.
        rate: bytes a second; 0 for no limit.
    """
    if not rate:
        yield
        return
    over = threading.Event()
    # Unlike its number, never another process.
    child = os.pidfd_open(pid)

    def watch() -> None:
        began = time.monotonic()
        # If the kernel does not report it, or the process has ended, nothing is delayed.
        with contextlib.suppress(OSError, ValueError):
            while not over.wait(LOOK_SECONDS):
                pause = rest(bytes_read(pid), time.monotonic() - began, rate)
                if pause > 0:
                    signal.pidfd_send_signal(child, signal.SIGSTOP)
                    try:
                        over.wait(pause)
                    finally:
                        signal.pidfd_send_signal(child, signal.SIGCONT)

    watcher = threading.Thread(target=watch, name="pace", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        os.close(child)
