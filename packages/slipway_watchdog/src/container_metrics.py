# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of containers, in the text format of Prometheus.

Reference: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import typing as t
from datetime import datetime

from ansible_collections.slipway.stack.plugins.module_utils import control_groups
from ansible_collections.slipway.stack.plugins.module_utils.containers import replica_of

JSON = dict[str, t.Any]
#: A metric's name, its labels and its value.
Sample = tuple[str, dict[str, str], float]

PREFIX = "slipway_container_"
#: Metrics of a container: what each is, for people. Names that end with _total are counters.
METRICS = {
    "state": "1 for the state of the container, as the engine calls it.",
    "health": "1 for the result of its health checks, as the engine calls it: starting, healthy, unhealthy or none.",
    "expected": "Whether it is to run: 0 in a slot that does not serve, and where it ends by itself.",
    "restarts_total": "Restarts by the engine since the container was created, or started by hand.",
    "start_time_seconds": "When it was started last, in seconds since 1970.",
    "memory_bytes": "Memory that it takes, without files that it read once.",
    "memory_limit_bytes": "Its memory limit.",
    "cpu_seconds_total": "CPU time since it was started.",
    "cpu_limit_cores": "Cores that it may use.",
    "cpu_throttled_seconds_total": "Time for which it waited because it had used its cores up.",
    "pids": "Its processes and threads.",
    "pids_limit": "How many it may have.",
    "oom_kills_total": "Processes that were killed at its memory limit since it was created.",
    "watchdog_restarts_total": "Restarts because it stayed unhealthy.",
    "watchdog_gave_up": "Whether it is unhealthy, and was restarted as often within an hour as is allowed.",
}


def labels_of(stack: str, inspected: JSON) -> dict[str, str]:
    """Return the labels of a container's metrics."""
    name, labels = inspected["Name"].lstrip("/"), inspected["Config"].get("Labels") or {}
    return {
        "stack": stack,
        "service": replica_of(name, labels),
        "slot": labels.get("slipway.slot", ""),
        "container": name,
        "version": labels.get("slipway.version", "") or inspected["Config"]["Image"].rpartition(":")[2],
    }


def is_expected(inspected: JSON, slot: str) -> bool:
    """Return whether a container is to run, where a slot serves, or none yet."""
    own = (inspected["Config"].get("Labels") or {}).get("slipway.slot", "")
    return inspected["HostConfig"]["RestartPolicy"]["Name"] not in ("", "no") and (not own or not slot or own == slot)


def samples(stack: str, inspected: JSON, slot: str, more: t.Mapping[str, float] | None = None) -> t.Iterator[Sample]:
    """Yield the figures of a container.

    Args:
        stack: the stack's name.
        inspected: the container, as the engine describes it.
        slot: the slot that serves, or "".
        more: further figures by name.
    """
    labels, state, limits = labels_of(stack, inspected), inspected["State"], inspected["HostConfig"]
    yield "state", {**labels, "state": state["Status"]}, 1
    yield "health", {**labels, "health": (state.get("Health") or {}).get("Status", "none")}, 1
    figures: dict[str, float] = {
        "expected": is_expected(inspected, slot),
        "restarts_total": inspected["RestartCount"],
        "memory_limit_bytes": limits.get("Memory") or 0,
        "cpu_limit_cores": (limits.get("NanoCpus") or 0) / 1e9,
        "pids_limit": limits.get("PidsLimit") or 0,
        **(usage(state) if state.get("Pid") else {}),
        **(more or {}),
    }
    for name, value in figures.items():
        # To the engine, 0 means unlimited.
        if value or not name.partition("_")[2].startswith("limit"):
            yield name, labels, value


def usage(state: JSON) -> dict[str, float]:
    """Return what a running container takes; nothing where it has ended meanwhile, as zeros would be figures."""
    pid = state["Pid"]
    found = {
        "start_time_seconds": started(state),
        "memory_bytes": control_groups.memory_used(pid),
        "cpu_seconds_total": control_groups.cpu_seconds(pid),
        "cpu_throttled_seconds_total": control_groups.throttled_seconds(pid),
        "pids": control_groups.pids(pid),
    }
    return found if control_groups.is_running(pid) else {}


def started(state: JSON) -> float:
    """Return when a container was started, in seconds since 1970; the engine writes nanoseconds, which are more than Python reads."""
    return datetime.fromisoformat(f"{state['StartedAt'][:19]}+00:00").timestamp()


def text(found: t.Iterable[Sample]) -> str:
    """Return samples as Prometheus' node_exporter reads them from a file."""
    lines: dict[str, list[str]] = {name: [] for name in METRICS}
    for name, labels, value in found:
        pairs = ",".join(f'{key}="{escaped(item)}"' for key, item in labels.items())
        lines[name].append(f"{PREFIX}{name}{{{pairs}}} {value:.15g}\n")
    kinds = {name: "counter" if name.endswith("_total") else "gauge" for name in METRICS}
    return "".join(
        f"# HELP {PREFIX}{name} {METRICS[name]}\n# TYPE {PREFIX}{name} {kinds[name]}\n{''.join(of_name)}"
        for name, of_name in lines.items()
        if of_name
    )


def escaped(value: str) -> str:
    """Return a label's value as it stands between quotes."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
