# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a monitor reads: the report as JSON, and the same figures in Prometheus' text format."""

from __future__ import annotations

import shutil
import typing as t

from slipway_backup import offsite, postgres
from slipway_backup.common import JSON, Config, now, parse_stamp, read_json, stamp, write_atomically, write_json
from slipway_backup.points import read_points, summary

SCHEMA_VERSION = 1
#: From this on a report warns of WAL that the server keeps for us.
BEHIND_ALERT_BYTES = 256 * 2**20
CLOCK_ALERT_SECONDS = 60


def build(config: Config) -> JSON:
    """Return the report, from what is on the disk and what the server says now."""
    points = [summary(point) for point in read_points(config)]
    last_run = read_json(config.state / "run.json", {})
    usage = shutil.disk_usage(config.data)
    verified = [point for point in points if point["verified"] == "verified"]
    remembered = read_json(config.state / offsite.STATE, {})
    report: JSON = {
        "schema_version": SCHEMA_VERSION,
        "limits": {"maximum_age_hours": config.maximum_age_hours, "maximum_verified_age_hours": config.maximum_verified_age_hours},
        "stack": config.stack,
        "at": stamp(now()),
        "last_run": last_run,
        "last_point": points[-1] if points else None,
        "last_verified": verified[-1] if verified else None,
        "points": points,
        "disk": {"total_bytes": usage.total, "free_bytes": usage.free},
        "wal": postgres.wal_status(config) if config.postgres else None,
        "offsite": {
            "repository": str(config.offsite["repository"]),
            "points": sorted(remembered.get("shipped", {})),
            "pending": [point["name"] for point in points if point["name"] not in remembered.get("shipped", {})],
            "last_copy": remembered.get("at", ""),
            "added_bytes": remembered.get("added_bytes"),
            "error": remembered.get("error", ""),
        }
        if offsite.enabled(config)
        else None,
    }
    report["alerts"] = alerts(config, report)
    return report


def alerts(config: Config, report: JSON) -> list[str]:
    """Return the problems that need attention."""
    found = []
    if report["last_run"].get("result") == "failed":
        found.append(f"the last run failed: {report['last_run'].get('reason', '')}")
    found += point_alerts(report["last_point"], config.maximum_age_hours)
    found += verified_alerts(report["points"], report["last_verified"], config.maximum_verified_age_hours)
    disk = report["disk"]
    if disk["free_bytes"] * 100 < config.minimum_free_percent * disk["total_bytes"]:
        found.append(f"the backup disk has {disk['free_bytes'] * 100 / disk['total_bytes']:.0f} % free")
    if report["wal"]:
        found += wal_alerts(report["wal"], bool(config.postgres.get("synchronous")))
    away = report["offsite"]
    if away and (away["error"] or away["pending"]):
        found.append(f"off-site lacks {', '.join(away['pending']) or 'nothing'}{': ' if away['error'] else ''}{away['error']}")
    return found


def point_alerts(point: JSON | None, maximum_age_hours: float) -> list[str]:
    """Return what is wrong with the newest point."""
    if not point:
        return ["there is no recovery point"]
    found = []
    if 0 < maximum_age_hours * 3600 < point["age_s"]:
        found.append(f"the last recovery point is {point['age_s'] / 3600:.1f} h old")
    elif point["age_s"] < -CLOCK_ALERT_SECONDS:
        found.append("the last recovery point is in the future: the clock was, or is, wrong")
    if point["missing"]:
        found.append(f"the last recovery point lacks the volumes {', '.join(point['missing'])}")
    if point["verified"] == "failed":
        found.append(f"the drill of {point['name']} failed: {point['reason']}")
    return found


def verified_alerts(points: t.Sequence[JSON], verified: JSON | None, maximum_age_hours: float) -> list[str]:
    """Return whether the newest verified point is too old; where none is verified yet, whether the oldest point is."""
    judged = verified or next(iter(points), None)
    if not judged or not 0 < maximum_age_hours * 3600 < judged["age_s"]:
        return []
    return [f"the last verified recovery point is {judged['age_s'] / 3600:.1f} h old" if verified else "no recovery point was verified"]


def wal_alerts(wal: JSON, synchronous: bool) -> list[str]:
    """Return what is wrong with the streaming of WAL."""
    found = []
    if wal["error"]:
        found.append(wal["error"])
    elif not wal["streaming"]:
        found.append("WAL is not streaming")
    if wal["slot"] in {"unreserved", "lost", "extended"}:
        found.append(f"the WAL slot is {wal['slot']}: the database keeps too much WAL for the backup host, or has dropped it")
    if abs(wal["clock_ahead_s"] or 0) > CLOCK_ALERT_SECONDS:
        ahead = wal["clock_ahead_s"]
        side = "ahead of" if ahead > 0 else "behind"
        found.append(f"the clock of this host is {abs(ahead):.0f} s {side} the database's: one of the two is wrong")
    if (wal["behind_bytes"] or 0) > BEHIND_ALERT_BYTES:
        found.append(f"WAL is {wal['behind_bytes'] / 2**20:.0f} MB behind")
    if wal["gap"]:
        found.append(f"WAL was lost at {wal['gap']}: moments between there and the next full base backup cannot be restored")
    if synchronous and not wal["synchronous"] and not wal["error"]:
        found.append("commits do not wait for the backup host, although backup_wal_synchronous is set")
    return found


def metrics(report: JSON) -> str:
    """Return the figures for Prometheus' text file collector."""
    last, run = report["last_point"], report["last_run"]
    values: list[tuple[str, str, t.Any]] = [
        ("last_run_success", "Whether the last run did all it had to: 1 or 0.", int(run.get("result") == "ok") if run else None),
        ("last_run_duration_seconds", "Seconds that the last run took.", run.get("seconds")),
        ("last_run_timestamp_seconds", "When the last run ended.", epoch(run.get("finished"))),
        ("last_point_timestamp_seconds", "The moment that the newest recovery point holds.", epoch(last["moment"]) if last else None),
        ("last_point_bytes", "Bytes of the newest recovery point.", last["bytes"] if last else None),
        (
            "last_verified_timestamp_seconds",
            "The moment that the newest verified recovery point holds.",
            epoch(report["last_verified"]["moment"]) if report["last_verified"] else None,
        ),
        (
            "maximum_age_seconds",
            "Age of the newest recovery point from which it is too old; not there where any age is good.",
            report["limits"]["maximum_age_hours"] * 3600 or None,
        ),
        (
            "maximum_verified_age_seconds",
            "Age of the newest verified recovery point from which it is too old; not there where any age is good.",
            report["limits"]["maximum_verified_age_hours"] * 3600 or None,
        ),
        ("last_point_missing_volumes", "Volumes that the newest recovery point lacks.", len(last["missing"]) if last else None),
        ("points", "Number of recovery points.", len(report["points"])),
        ("disk_free_bytes", "Free bytes of the backup disk.", report["disk"]["free_bytes"]),
        ("alerts", "Number of problems that need attention.", len(report["alerts"])),
    ]
    if report["wal"]:
        values += [
            ("wal_streaming", "Whether WAL streams: 1 or 0.", int(report["wal"]["streaming"])),
            ("wal_behind_bytes", "WAL of the database that has not arrived on the backup host.", report["wal"]["behind_bytes"]),
        ]
    if report["offsite"]:
        values.append(("offsite_pending_points", "Recovery points that are not off-site yet.", len(report["offsite"]["pending"])))
    lines = []
    for name, meaning, value in values:
        if value is not None:
            full = f"slipway_backup_{name}"
            lines += [f"# HELP {full} {meaning}", f"# TYPE {full} gauge", f'{full}{{stack="{report["stack"]}"}} {value}']
    return "\n".join(lines) + "\n"


def epoch(text: str | None) -> float | None:
    """Return a stamp as seconds since 1970."""
    return parse_stamp(text).timestamp() if text else None


def write(config: Config) -> JSON:
    """Write report and metrics, and return the report."""
    report = build(config)
    write_json(config.data / "report.json", report)
    write_atomically(config.data / "metrics" / "slipway_backup.prom", metrics(report), mode=0o644)
    return report
