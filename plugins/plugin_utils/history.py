# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of a fleet: one line for each run that changed something, on each host that it changed.

docs/operate.md describes the fields of a line.
"""

from __future__ import annotations

import json
import subprocess
import time
import typing as t
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.slipway.stack.plugins.module_utils.history_file import FILE, Row

#: For all hosts together: a host that is away holds up no run.
SECONDS = 10.0


def entry(report: Mapping[str, t.Any], user: str, controller: str, *, interrupted: bool) -> Row:
    """Return the line of a run.

    Args:
        report: The run's report.
        user: Who ran it.
        controller: Where.
        interrupted: Whether it ended by itself neither well nor with a failed task.
    """
    released = report.get("outcome") in ("released", "rolled_back", "unfinished")
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


def write(commands: Mapping[str, Sequence[str]]) -> list[str]:
    """Run the commands of the controller that add a line on hosts, all at once; return the hosts on which that failed."""
    quiet = subprocess.DEVNULL
    running = {host: subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) for host, command in commands.items()}
    deadline, failed = time.monotonic() + SECONDS, []
    for host, process in running.items():
        try:
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        failed += [host] if code else []
    return failed


def merged(states: Mapping[str, Row], folder: str) -> list[Row]:
    """Return the runs that all hosts remember, each once with its ``hosts``, the oldest first.

    Args:
        states: By host what host_state returned. A line that was cut off is left out.
        folder: The stack's folder on the hosts.
    """
    runs: dict[str, Row] = {}
    for host, state in states.items():
        for line in state["files"].get(f"{folder}/{FILE}", {}).get("content", "").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            runs.setdefault(line, {**row, "hosts": []})["hosts"].append(host)
    return sorted(runs.values(), key=lambda row: str(row["finished"]))


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
