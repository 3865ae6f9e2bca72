# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of a fleet: one line for each run that changed something, on each host that it changed.

docs/operate.md describes the fields of a line.
"""

from __future__ import annotations

import subprocess
import tempfile
import typing as t
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.slipway.stack.plugins.module_utils.history_file import FILE, RESTARTS, Row
from ansible_collections.slipway.stack.plugins.module_utils.json_files import json_object

#: For all hosts together: a host that is away holds up no run.
SECONDS = 10.0
#: Results of runs that moved a version, or tried to.
RELEASES = ("released", "rolled_back", "unfinished")
LINE = {
    **dict.fromkeys(("finished", "user", "controller", "playbook", "version", "result"), str),
    "changes": int,
    "requests_lost": (int, None),
}


def entry(report: Mapping[str, t.Any], user: str, controller: str, *, interrupted: bool) -> Row:
    """Return the line of a run.

    Args:
        report: The run's report.
        user: Who ran it.
        controller: Where.
        interrupted: Whether it ended by itself neither well nor with a failed task.
    """
    released = report.get("outcome") in RELEASES
    return {
        "started": report["started"],
        "finished": report["finished"],
        "user": user,
        "controller": controller,
        "playbook": report["playbook"],
        "version": str(report.get("version", "")),
        "result": "interrupted" if interrupted else report["outcome"] if released else report["result"],
        "changes": len(report["changed"]),
        "requests_lost": (report.get("prober") or {}).get("failed"),
    }


def write(commands: Mapping[str, tuple[Sequence[str], str]]) -> dict[str, str]:
    """Run the commands of the controller that add a line on hosts, all at once.

    Args:
        commands: By host, each with what it reads from its standard input.

    Returns:
        The hosts on which that failed, each with the reason.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(commands))) as pool:
        reasons = dict(zip(commands, pool.map(lambda command: _problem(*command), commands.values()), strict=True))
    return {host: reason for host, reason in reasons.items() if reason}


def _problem(command: Sequence[str], given: str) -> str:
    """Run a command; return the last line that it writes to its standard error where it fails, or "" where it succeeds."""
    # A file, as the connection that ssh keeps for later would hold a pipe open.
    with tempfile.TemporaryFile("w+", errors="replace") as err:
        try:
            code = subprocess.run(
                command, input=given, stdout=subprocess.DEVNULL, stderr=err, text=True, timeout=SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return f"no answer within {SECONDS:g} s"
        except OSError as error:
            return str(error)
        err.seek(0)
        lines = [line.strip() for line in err if line.strip()]
    return (lines or [f"exit status {code}"])[-1] if code else ""


def merged(states: Mapping[str, Row], folder: str, file: str = FILE) -> list[Row]:
    """Return the runs that all hosts remember, each once with its ``hosts``, the oldest first.

    Args:
        states: By host what host_state returned. What ``damaged`` counts is left out.
        folder: The stack's folder on the hosts.
        file: The file in it; that of restarts has lines of the same kind.
    """
    runs: dict[str, Row] = {}
    for host, state in states.items():
        for line, row in _read(state, f"{folder}/{file}"):
            if row is not None:
                runs.setdefault(line, {**row, "hosts": []})["hosts"].append(host)
    return sorted(runs.values(), key=lambda row: row["finished"])


def damaged(states: Mapping[str, Row], folder: str) -> list[str]:
    """Return a sentence for each file of ``merged`` with lines that cannot be read."""
    places = ((host, f"{folder}/{file}") for host in states for file in (FILE, RESTARTS))
    counts = ((host, path, sum(row is None for _line, row in _read(states[host], path))) for host, path in places)
    return [f"{path} on {host} is damaged: lines missing here: {count}" for host, path, count in counts if count]


def _read(state: Row, path: str) -> Iterator[tuple[str, Row | None]]:
    """Yield the lines of a host's file, each with what it holds, or None for one that is damaged."""
    for line in state["files"].get(path, {}).get("content", "").splitlines():
        yield line, json_object(line, LINE)


def with_restarts(states: Mapping[str, Row], folder: str, count: int) -> list[Row]:
    """Return so many of the newest runs, and as many of the newest restarts, in the order of time; see ``merged``."""
    kept = [row for file in (FILE, RESTARTS) for row in merged(states, folder, file)[-count:]]
    return sorted(kept, key=lambda row: row["finished"])


def newest(runs: Sequence[Row], count: int) -> list[Row]:
    """Return so many of the newest runs, and of the newest releases, which other runs must not push out."""
    kept = [*runs[-count:], *[run for run in runs if run["result"] in RELEASES][-count:]]
    return [run for run in runs if run in kept]


def lines(rows: Iterable[Row]) -> list[str]:
    """Return the lines as they are shown."""
    shown = []
    for row in rows:
        lost = "" if row["requests_lost"] is None else f", {row['requests_lost']} requests lost"
        version = f" {row['version']}" if row["version"] else ""
        changes = f"{row['changes']} change{'' if row['changes'] == 1 else 's'} on {', '.join(row['hosts'])}"
        run = f"{row['playbook']}{version}: {row['result']}"
        shown.append(f"{row['finished']}  {run}, {changes}{lost}  ({row['user']} on {row['controller']})")
    return shown
