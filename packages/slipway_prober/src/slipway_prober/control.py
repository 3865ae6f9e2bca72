# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files and limits by which a prober is steered, and what the program that starts it needs to find it again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def process_started(pid: int) -> str | None:
    """Return what distinguishes a process from a later one with the same number; None if there is none, "" if it is not known.

    Linux knows the start in clock ticks; elsewhere only the number is looked at.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return ""
        return ""
    # The name in brackets may itself hold blanks and brackets.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields[19]


def write_json(path: Path, value: Any) -> None:
    """Replace a file at once, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(value, file)
    temporary.replace(path)


@dataclasses.dataclass(frozen=True)
class Control:
    """The files and limits by which a prober is steered.

    Attributes:
        folder: Private folder with ``result.json`` (written), ``marks`` (one JSON object a line) and ``stop`` (its presence ends the run).
        deadline_seconds: The longest that it runs.
        parent_pid: The process whose end ends the run too; 0 for none.
        parent_started: What process_started returned for that process.
    """

    folder: Path
    deadline_seconds: float
    parent_pid: int = 0
    parent_started: str = ""

    @property
    def result(self) -> Path:
        """Where numbers are written."""
        return self.folder / "result.json"

    @property
    def marks(self) -> Path:
        """Where the controller names moments."""
        return self.folder / "marks"

    @property
    def stop(self) -> Path:
        """The file that ends the run."""
        return self.folder / "stop"

    def parent_is_gone(self) -> bool:
        """Return whether the process that this run belongs to has ended."""
        if not self.parent_pid:
            return False
        started = process_started(self.parent_pid)
        return started is None or bool(self.parent_started and started and started != self.parent_started)


def remove_folder(folder: Path, names: Iterable[str] = ("config.json", "state.json", "result.json", "marks", "stop", "log")) -> None:
    """Remove the files that a run uses, and their folder if nothing else is in it."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
