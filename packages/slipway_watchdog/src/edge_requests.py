# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the requests of the stack's balancer on this host, from the log that nginx writes for it (nginx_metrics_log of role nginx).

A line is `GET 200 0.004/0.017`: method, status, and of each server that was asked the time until the header of its answer and until the
end of it. What is measured is the time until an answer began, with that of servers that were asked in vain: neither a stream nor a client
that reads slowly makes a product slow, and a server that hangs does.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import typing as t
from collections import Counter
from itertools import product
from pathlib import Path

import state_files
from container_metrics import escaped

JSON = dict[str, t.Any]

#: Where nginx' container has the volume of its logs, and the file.
FOLDER, NAME = "/var/log/slipway", "requests.log"
LINE = re.compile(rb"(\S+) ([1-5])\d\d ([-\d.,: ]+)/([-\d.,: ]+)\n")
SECONDS = re.compile(rb"\d+\.\d+|-")
#: Clients may make methods up.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")
STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
#: Upper bounds in seconds. That of alert EdgeSlow is one of them, so that its quantile is exact there.
BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, float("inf"))
#: More than between two passes: the timer has not run for long, and when these requests came is not known.
LIMIT = 64 << 20

REQUESTS, DURATION = "slipway_edge_requests_total", "slipway_edge_response_seconds"
REQUESTS_HELP = "Requests that the balancer has answered."
DURATION_HELP = "Time until the answer of a service began, with that of servers that were asked in vain."


def log_of(stack: str, found: t.Iterable[JSON]) -> Path | None:
    """Return the log on the host, or None without a balancer; ``found`` are the stack's containers, as the engine describes them."""
    mounts = [mount for inspected in found if inspected["Name"].lstrip("/") == f"{stack}-nginx" for mount in inspected.get("Mounts") or []]
    return next((Path(mount["Source"]) / NAME for mount in mounts if mount["Destination"] == FOLDER), None)


def until_begun(header: bytes, response: bytes) -> float | None:
    """Return the seconds until an answer began, or None where no server was asked.

    >>> until_begun(b"-, 0.004", b"60.000, 0.017")
    60.004
    """
    asked = zip(SECONDS.findall(header), SECONDS.findall(response), strict=True)
    times = [float(end if begun == b"-" else begun) for begun, end in asked if end != b"-"]
    return sum(times) if times else None


class Requests:
    """What earlier passes have counted, and how far they have read; a file that is missing or damaged is as none."""

    def __init__(self, path: Path) -> None:
        """Read the file."""
        self._path = path
        self._inode: int | None = None
        self._offset, self._seconds = 0, 0.0
        self._counts = dict.fromkeys(product(METHODS, STATUSES), 0)
        self._buckets = dict.fromkeys(BOUNDS, 0)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            written = json.loads(path.read_text())
            counts = dict(zip(self._counts, map(int, written["counts"]), strict=True))
            buckets = dict(zip(BOUNDS, map(int, written["buckets"]), strict=True))
            seconds, inode, offset = float(written["seconds"]), int(written["inode"]), int(written["offset"])
            self._counts, self._buckets, self._seconds, self._inode, self._offset = counts, buckets, seconds, inode, offset

    def see(self, log: Path) -> bool:
        """Count what nginx has logged since the last pass, and return whether there is a log.

        It is rotated by its name, and what nginx wrote before it opened the new one is at the end of the old one.
        """
        with contextlib.suppress(OSError), opened(log) as file:
            inode = os.fstat(file.fileno()).st_ino
            if self._inode is None:
                # It may be a day old.
                self._offset = os.fstat(file.fileno()).st_size
            elif inode != self._inode:
                for path in log.parent.glob(f"{log.name}?*"):
                    with contextlib.suppress(OSError), opened(path) as rotated:
                        if os.fstat(rotated.fileno()).st_ino == self._inode:
                            self._count(rotated)
                self._offset = 0
            self._inode = inode
            self._count(file)
            return True
        return False

    def _count(self, file: t.BinaryIO) -> None:
        """Count whole lines from the offset on, and leave it behind the last of them."""
        size = os.fstat(file.fileno()).st_size
        if size < self._offset:
            # It was emptied.
            self._offset = 0
        if size - self._offset > LIMIT:
            self._offset = size
        file.seek(self._offset)
        lines = Counter(file)
        self._offset = file.tell() - sum(len(line) for line in lines if not line.endswith(b"\n"))
        for line, count in lines.items():
            if match := LINE.fullmatch(line):
                method = match[1].decode("utf-8", "replace")
                self._counts[method if method in METHODS else "other", f"{int(match[2])}xx"] += count
                with contextlib.suppress(ValueError):
                    if (seconds := until_begun(match[3], match[4])) is not None:
                        self._seconds += seconds * count
                        self._buckets[next(bound for bound in BOUNDS if seconds <= bound)] += count

    def write(self) -> None:
        """Replace the file."""
        counts, buckets = list(self._counts.values()), list(self._buckets.values())
        written = {"inode": self._inode, "offset": self._offset, "counts": counts, "buckets": buckets, "seconds": self._seconds}
        state_files.write(self._path, json.dumps(written))

    def lines(self, stack: str) -> t.Iterator[str]:
        """Yield all that was counted, in the text format of Prometheus."""
        label = f'stack="{escaped(stack)}"'
        yield f"# HELP {REQUESTS} {REQUESTS_HELP}\n# TYPE {REQUESTS} counter\n"
        for (method, status), count in self._counts.items():
            yield f'{REQUESTS}{{{label},method="{method}",status="{status}"}} {count}\n'
        yield f"# HELP {DURATION} {DURATION_HELP}\n# TYPE {DURATION} histogram\n"
        total = 0
        for bound, count in self._buckets.items():
            total += count
            yield f'{DURATION}_bucket{{{label},le="{"+Inf" if bound == BOUNDS[-1] else f"{bound:g}"}"}} {total}\n'
        yield f"{DURATION}_sum{{{label}}} {self._seconds:.15g}\n{DURATION}_count{{{label}}} {total}\n"


@contextlib.contextmanager
def opened(path: Path) -> t.Iterator[t.BinaryIO]:
    """Open a file of nginx' volume: one that takes nginx over may put a link or a pipe there.

    Raises:
        OSError: there is no such file, or it is a link or no file; of a pipe, as soon as it is read from an offset.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        yield file


def texts(stack: str, file: Path, found: t.Iterable[JSON]) -> dict[str, str]:
    """Return the figures by the name of the file that node_exporter reads them from, or nothing where nginx logs nothing for it.

    Args:
        stack: the stack's name.
        file: where counts are kept from pass to pass.
        found: the stack's containers, as the engine describes them.
    """
    log = log_of(stack, found)
    requests = Requests(file)
    if not log or not requests.see(log):
        return {}
    requests.write()
    return {"edge.prom": "".join(requests.lines(stack))}
