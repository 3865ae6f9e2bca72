# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the state of a fleet, as status.judge returns it, as lines for a terminal."""

from __future__ import annotations

import typing as t

from ansible_collections.slipway.stack.plugins.plugin_utils.status import ATTENTION, DOWN, WELL, Row, distinct_disks, duration

COLORS = {WELL: "green", ATTENTION: "yellow", DOWN: "red"}


def lines(status: Row) -> list[dict[str, str]]:
    """Return the lines, each a ``text`` and its ``color``, "" for the terminal's own: what needs attention comes first."""
    found = [{"text": f"{status['stack']} at {status['at']}: {status['state']}", "color": COLORS[status["state"]]}]
    for problem in status["problems"]:
        where = " ".join(filter(None, [problem["host"], problem["service"]]))
        found.append({"text": f"  {problem['state']:<9} {where}: {problem['what']}".replace(" : ", " "), "color": COLORS[problem["state"]]})
    if status["not_read"]:
        found.append({"text": f"  Not read, as the run does not include them: {', '.join(status['not_read'])}", "color": ""})
    for table in tables(status):
        found.append({"text": "", "color": ""})
        widths = [max(len(text) for text in column) for column in zip(table.columns, *(cells for _state, cells in table.rows), strict=True)]
        for state, cells in [("", table.columns), *table.rows]:
            text = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
            found.append({"text": text, "color": COLORS.get(state, "")})
    return found


class Table(t.NamedTuple):
    """Rows of one kind, such as ``hosts``: the names of the columns, and of each row its state and the texts of its cells."""

    kind: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def tables(status: Row) -> list[Table]:
    """Return the tables that have a row."""
    return [
        Table(kind, list(columns), [(row["state"], [str(value(row)) for value in columns.values()]) for row in status[kind]])
        for kind, columns in COLUMNS.items()
        if status[kind]
    ]


def _share(used: float, limit: float, unit: str = "") -> str:
    """Return how much is used of a limit."""
    return f"{used:g} of {limit:g}{unit}" if limit else f"{used:g}{unit}"


def _disks(row: Row) -> str:
    own = distinct_disks(row["disks"])
    return ", ".join(f"{path} {disk['free_mb'] / 1024:.0f} of {disk['total_mb'] / 1024:.0f} GiB" for path, disk in own.items())


def _host(name: str, show: t.Callable[[Row], str]) -> t.Callable[[Row], str]:
    """Return a column of hosts, empty for one that does not answer."""
    return lambda row: show(row) if name in row else "-"


def _restarts(row: Row) -> str:
    """Return how often the engine has restarted a container, and the watchdog within the last hour."""
    by_watchdog = row["watchdog"]["restarts"]
    return f"{row.get('restarts', '-')}" + (f", watchdog {by_watchdog}" if by_watchdog else "")


def _point(name: str) -> t.Callable[[Row], str]:
    """Return a column of recovery points with their ages."""
    return lambda row: f"{row[name]['name']}, {duration(row[name]['age_s'])} old" if row[name] else "none"


#: Columns by kind of row, each with what it shows.
COLUMNS: dict[str, dict[str, t.Callable[[Row], t.Any]]] = {
    "hosts": {
        "HOST": lambda row: row["host"],
        "STATE": lambda row: row["state"],
        "UP": _host("uptime_s", lambda row: duration(row["uptime_s"])),
        "MEMORY": _host("memory_mb", lambda row: _share(row["memory_mb"] - row["memory_available_mb"], row["memory_mb"], " MiB")),
        "CORES": _host("cores", lambda row: row["cores"]),
        "FREE DISK": _host("disks", _disks),
        "ENGINE": _host("engine", lambda row: row["engine"]),
    },
    "services": {
        "SERVICE": lambda row: row["service"],
        "HOST": lambda row: row["host"],
        "STATE": lambda row: row["state"],
        "CONTAINER": lambda row: row["status"] if row.get("health", "none") == "none" else f"{row['status']}, {row['health']}",
        "VERSION": lambda row: row.get("version", "-"),
        "DIGEST": lambda row: row.get("digest", "-").removeprefix("sha256:")[:12],
        "UP": lambda row: duration(row["uptime_s"]) if row.get("uptime_s") else "-",
        "RESTARTS": _restarts,
        "MEMORY": lambda row: _share(row.get("memory_mb", 0), row.get("memory_limit_mb", 0), " MiB"),
        "CORES": lambda row: _share(row.get("cores", 0), row.get("cores_limit", 0)),
    },
    "releases": {"VERSION": lambda row: row["version"], "SLOT": lambda row: row["slot"], "BEFORE": lambda row: row["previous"] or "-"},
    "history": {
        "LAST RUNS": lambda row: row["finished"],
        "PLAYBOOK": lambda row: row["playbook"],
        "VERSION": lambda row: row["version"] or "-",
        "RESULT": lambda row: row["result"],
        "CHANGES": lambda row: row["changes"],
        "REQUESTS LOST": lambda row: "-" if row["requests_lost"] is None else row["requests_lost"],
        "BY": lambda row: f"{row['user']} on {row['controller']}",
    },
    "recovery": {
        "RECOVERY POINTS OF": lambda row: row["host"],
        "STATE": lambda row: row["state"],
        "LAST": _point("last_point"),
        "LAST VERIFIED": _point("last_verified"),
        "WAL BEHIND": lambda row: "-" if row["wal_behind_bytes"] is None else f"{row['wal_behind_bytes'] / 2**20:.0f} MiB",
    },
    "certificates": {
        "CERTIFICATE": lambda row: row["file"],
        "SERVICE": lambda row: row["service"],
        "HOST": lambda row: row["host"],
        "STATE": lambda row: row["state"],
        "DAYS LEFT": lambda row: row["days_left"],
    },
    "jobs": {
        "JOB": lambda row: row["service"],
        "HOST": lambda row: row["host"],
        "STATE": lambda row: row["state"],
        "LAST RUN": lambda row: f"{row['result']}, {row['finished']}",
    },
    "damaged": {
        "DAMAGED FILE": lambda row: row["file"],
        "SERVICE": lambda row: row["service"],
        "HOST": lambda row: row["host"],
    },
    "drift": {
        "SITE.YML WOULD CHANGE": lambda row: row["service"],
        "HOST": lambda row: row["host"],
        "WHY": lambda row: "; ".join(row["reasons"]),
    },
}
