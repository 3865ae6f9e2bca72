# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the processes that were killed at the memory limits of containers, from pass to pass.

The kernel counts those of a control group, and that one ends with the main process of its container. If that process is killed, and the
engine starts the container again, only the engine's events have it.
"""

from __future__ import annotations

import json
import typing as t
from collections import Counter
from pathlib import Path

import state_files
from ansible_collections.slipway.stack.plugins.module_utils import control_groups
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine

JSON = dict[str, t.Any]


class Kills:
    """What earlier passes have counted, by container; a file that is missing or damaged is as none."""

    def __init__(self, path: Path) -> None:
        """Read the file."""
        self._path = path
        try:
            written = json.loads(path.read_text())
            self._until: float | None = float(written["until"])
            self._groups = {str(name): (str(started), int(count)) for name, (started, count) in written["groups"].items()}
            self.totals = {str(name): int(count) for name, count in written["totals"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._until, self._groups, self.totals = None, {}, {}

    def see(self, engine: Engine, stack: str, found: t.Iterable[JSON], now: float) -> None:
        """Add what was killed since the last pass; forget containers that are gone.

        Of a pass it is the larger one of both counts, as most kills are in both. One that happens during a pass may count twice.

        Raises:
            EngineError: the engine does not answer.
        """
        events = reported(engine, stack, now if self._until is None else min(self._until, now), now)
        groups, totals = {}, {}
        for inspected in found:
            name, state = str(inspected["Name"]).lstrip("/"), inspected["State"]
            group = (str(state.get("StartedAt")), control_groups.oom_kills(state["Pid"]) if state.get("Pid") else 0)
            before = self._groups.get(name, ("", 0))
            in_group = group[1] - (before[1] if before[0] == group[0] else 0)
            groups[name] = group
            totals[name] = self.totals.get(name, 0) + max(in_group, events[name], 0)
        self._until, self._groups, self.totals = now, groups, totals

    def write(self) -> None:
        """Replace the file."""
        state_files.write(self._path, json.dumps({"until": self._until, "groups": self._groups, "totals": self.totals}))


def reported(engine: Engine, stack: str, since: float, until: float) -> Counter[str]:
    """Return how many kills the engine has reported, by container, between two moments in seconds since 1970.

    Raises:
        EngineError: the engine does not answer.
    """
    filters = json.dumps({"type": ["container"], "event": ["oom"], "label": [f"slipway.stack={stack}"]})
    stream = engine.request("GET", "/events", {"since": f"{since:.6f}", "until": f"{until:.6f}", "filters": filters})
    return Counter(str(json.loads(line)["Actor"]["Attributes"]["name"]) for line in stream.splitlines() if line)
