# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts of containers that stay unhealthy, which the engine never restarts by itself.

What was done is in a file, so that a pass knows of those before it: `unhealthy` has since when the checks of a container fail, by its
identity, `restarts` those of the last hour, `totals` all of a container by its name, and `gave_up` the names of containers that are
unhealthy and not restarted any more. Times are seconds since 1970. status.yml reads `restarts` and `gave_up`.
"""

from __future__ import annotations

import json
import os
import subprocess
import typing as t
from datetime import datetime, timezone
from pathlib import Path

import state_files
from ansible_collections.slipway.stack.plugins.module_utils import history_file, stops
from ansible_collections.slipway.stack.plugins.module_utils.containers import replica_of
from ansible_collections.slipway.stack.plugins.module_utils.engine import STOP_GRACE, Engine, EngineError
from container_metrics import is_expected

JSON = dict[str, t.Any]
HOUR = 3600
#: What hangs does not end by itself, and its clients wait.
STOP_SECONDS = 10
#: Owners of containers that write to volumes and are restarted, as they need nothing of what they wrote before they are healthy.
STATELESS = ("nginx", "registry", "volume_server")


class Limits(t.NamedTuple):
    """What role watchdog was given.

    Attributes:
        seconds: how long the health checks of a container may fail.
        per_hour: restarts of a container within an hour; 0 for none.
        stores: owners that are restarted although they keep data.
    """

    seconds: int
    per_hour: int
    stores: tuple[str, ...] = ()


class Memory:
    """What earlier passes have seen and done."""

    def __init__(self, path: Path) -> None:
        """Read the file; one that is missing or damaged is as none."""
        self._path = path
        try:
            self._written = json.loads(path.read_text())
            self.unhealthy = {str(name): float(since) for name, since in self._written["unhealthy"].items()}
            self.restarts = [(float(when), str(container), str(service)) for when, container, service in self._written["restarts"]]
            self.totals = {str(name): int(count) for name, count in self._written["totals"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._written, self.unhealthy, self.restarts, self.totals = {}, {}, [], {}
        self.gave_up: list[str] = []

    def see(self, found: t.Iterable[JSON], now: float) -> None:
        """Note which containers are unhealthy, and forget what is over; a clock that was set back makes nothing older."""
        containers = list(found)
        ill = {inspected["Id"]: failing_since(inspected, now) for inspected in containers if is_unhealthy(inspected)}
        self.unhealthy = {identity: min(self.unhealthy.get(identity, now), failing, now) for identity, failing in ill.items()}
        self.restarts = [item for item in self.restarts if 0 <= now - item[0] < HOUR]
        names = {name_of(inspected) for inspected in containers}
        self.totals = {name: count for name, count in self.totals.items() if name in names}

    def count(self, inspected: JSON) -> int:
        """Return how often a container was restarted within the last hour."""
        return sum(container == name_of(inspected) for _when, container, _service in self.restarts)

    def add(self, inspected: JSON, now: float) -> None:
        """Note a restart that is about to be made."""
        name = name_of(inspected)
        self.restarts.append((now, name, service_of(inspected)))
        self.totals[name] = self.totals.get(name, 0) + 1
        self.unhealthy.pop(inspected["Id"], None)

    def write(self) -> None:
        """Write the file where something is new."""
        wanted = {
            "unhealthy": self.unhealthy,
            "restarts": [list(item) for item in self.restarts],
            "totals": self.totals,
            "gave_up": self.gave_up,
        }
        if wanted != self._written:
            state_files.write(self._path, json.dumps(wanted))


def name_of(inspected: JSON) -> str:
    """Return the name of a container."""
    return str(inspected["Name"]).lstrip("/")


def service_of(inspected: JSON) -> str:
    """Return the name of the service that a container is of."""
    return replica_of(name_of(inspected), inspected["Config"].get("Labels") or {})


def is_unhealthy(inspected: JSON) -> bool:
    """Return whether a container runs and its health check fails."""
    state = inspected["State"]
    return bool(state["Status"] == "running" and (state.get("Health") or {}).get("Status") == "unhealthy")


def failing_since(inspected: JSON, now: float) -> float:
    """Return when the first of the checks that failed in a row began, as far as the engine remembers, which keeps the last five."""
    health = inspected["State"]["Health"]
    log = (health.get("Log") or [])[-max(1, health.get("FailingStreak") or 0) :]
    return min((moment(check["Start"]) for check in log), default=now)


def moment(text: str) -> float:
    """Return a time of the engine in seconds since 1970, without its nanoseconds, which are more than Python reads."""
    offset = text[-6:] if text[-6:-5] in ("+", "-") else "+00:00"
    return datetime.fromisoformat(text[:19] + offset).timestamp()


def may_restart(inspected: JSON, slot: str, stores: t.Container[str]) -> bool:
    """Return whether a restart of a container is safe: it is to run, and keeps no data.

    A database that replays its log is unhealthy meanwhile, and begins again after a restart, which also ends a backup that runs. Whatever
    role it is of, such a service writes to a volume.

    Args:
        inspected: the container, as the engine describes it.
        slot: the slot that serves, or "". Containers of another one belong to a release, which waits for them.
        stores: owners that are restarted although they keep data.
    """
    labels = inspected["Config"].get("Labels") or {}
    owner = labels.get("slipway.owner", "")
    if not is_expected(inspected, slot) or labels.get("slipway.slot", "") not in ("", slot):
        return False
    if owner in STATELESS or owner in stores or owner.startswith("app-"):
        return True
    return not any(mount["Type"] != "tmpfs" and mount["RW"] for mount in inspected.get("Mounts") or [])


def due(found: t.Iterable[JSON], memory: Memory, limits: Limits, slot: str, now: float) -> t.Iterator[JSON]:
    """Yield the containers that are due for a restart; a pass restarts the first of them that is not being stopped.

    Of the replicas of a service on this host one is restarted at a time, and the next one no sooner than `limits.seconds` later.
    """
    for inspected in found:
        since = memory.unhealthy.get(inspected["Id"])
        if since is None or now - since < limits.seconds or not may_restart(inspected, slot, limits.stores):
            continue
        service = service_of(inspected)
        recent = any(of == service and now - when < limits.seconds for when, _container, of in memory.restarts)
        if not recent and memory.count(inspected) < limits.per_hour:
            yield inspected


def figures(inspected: JSON, memory: Memory, limits: Limits, slot: str) -> dict[str, float]:
    """Return what is measured of a container that may be restarted, by name."""
    if not limits.per_hour or not may_restart(inspected, slot, limits.stores):
        return {}
    gave_up = is_unhealthy(inspected) and memory.count(inspected) >= limits.per_hour
    return {"watchdog_restarts_total": memory.totals.get(name_of(inspected), 0), "watchdog_gave_up": gave_up}


def restart(engine: Engine, stack: str, inspected: JSON, memory: Memory, now: float) -> str:
    """Restart a container that is still unhealthy, unless it is being stopped; return what came of it, "" for nothing.

    It is noted before it is done: a host that goes down meanwhile must not try for ever.
    """
    with stops.restarting(inspected["Id"]) as allowed:
        current = engine.inspect(inspected["Id"]) if allowed else None
        if not current or not is_unhealthy(current) or current["State"]["StartedAt"] != inspected["State"]["StartedAt"]:
            return ""
        seconds = now - memory.unhealthy[inspected["Id"]]
        memory.add(inspected, now)
        memory.write()
        seconds_to_end = min(current["Config"].get("StopTimeout") or STOP_SECONDS, STOP_SECONDS)
        try:
            engine.request("POST", f"/containers/{inspected['Id']}/restart", {"t": seconds_to_end}, timeout=seconds_to_end + STOP_GRACE)
            result, said = "restarted", ""
        except EngineError as error:
            result, said = "failed", f": {error}"
    row = history_row(name_of(inspected), result, now)
    subprocess.run(history_file.argv(stack, row, history_file.RESTARTS), check=False)
    return f"{name_of(inspected)} failed its health checks for {seconds:.0f} s: {result}{said}"


def history_row(container: str, result: str, now: float) -> history_file.Row:
    """Return the line of a restart in the history of the host."""
    at = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "started": at,
        "finished": at,
        "user": "watchdog",
        "controller": os.uname().nodename,
        "playbook": "watchdog",
        "version": container,
        "result": result,
        "changes": 1,
        "requests_lost": None,
    }
