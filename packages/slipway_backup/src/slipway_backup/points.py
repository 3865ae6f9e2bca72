# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovery points: manifests, verification, and which of them are kept."""

from __future__ import annotations

import dataclasses
import os
import shutil
import typing as t
from datetime import datetime, timedelta
from pathlib import Path

from slipway_backup.common import JSON, PARTIAL, Config, StepError, now, parse_stamp, read_json, sha256_of, stamp, write_json

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
VERIFICATION = "verification.json"
#: Folder of a point with the files of volumes, each of which has a list of its own.
TREES = "trees"
VERIFICATIONS_KEPT = 20
#: A second point of a day does not push out the first: the newest may turn out to be the bad one.
RECENT = timedelta(days=1)


@dataclasses.dataclass(frozen=True)
class Point:
    """A recovery point on the backup host."""

    name: str
    folder: Path
    manifest: JSON
    verifications: list[JSON]

    @property
    def moment(self) -> datetime:
        """Every write acknowledged before it is in the point."""
        return parse_stamp(self.manifest["moment"])

    @property
    def chain(self) -> list[str]:
        """Barman's backups that the point is restored from."""
        return list(self.manifest["stores"].get("postgres", {}).get("chain", []))

    @property
    def missing(self) -> dict[str, str]:
        """Volumes that could not be copied, as host/volume, with the reasons."""
        return dict(self.manifest["stores"].get("volumes", {}).get("missing", {}))

    @property
    def verdict(self) -> str:
        """Result of the newest drill: verified, failed, or an empty string if none ran."""
        return str(self.verifications[0]["result"]) if self.verifications else ""


def read_points(config: Config) -> list[Point]:
    """Return the points, oldest first; a folder without a manifest is none."""
    found = []
    for manifest in sorted(config.points.glob(f"[0-9]*/{MANIFEST}")):
        content = read_json(manifest)
        if content and content.get("schema_version") == SCHEMA_VERSION:
            found.append(Point(manifest.parent.name, manifest.parent, content, read_json(manifest.parent / VERIFICATION, [])))
    return found


def find_point(config: Config, name: str) -> Point:
    """Return the point of that name; ``latest`` is the newest that no drill has failed.

    Raises:
        StepError: there is none; says which there are.
    """
    points = read_points(config)
    if name == "latest":
        good = [point for point in points if point.verdict != "failed"]
        if good:
            return good[-1]
        raise StepError("there is no recovery point that can be restored")
    for point in points:
        if point.name == name:
            return point
    there = f"give one of {', '.join(point.name for point in points[-10:])}" if points else "there are none yet: run playbooks/backup.yml"
    raise StepError(f"there is no recovery point {name}; {there}")


def describe_files(folder: Path) -> JSON:
    """Return size and digest of every file of a point, by its path in it; lists of volumes stand for the files in these."""
    files = sorted(
        Path(place, name) for top in folder.iterdir() if top.name != TREES for place, _unused, names in os.walk(top) for name in names
    )
    return {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in files
        if path.name not in {MANIFEST, VERIFICATION}
    }


def file_faults(point: Point) -> list[str]:
    """Return what is wrong with a point's files, compared with its manifest."""
    faults = []
    for name, declared in point.manifest["files"].items():
        path = point.folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif path.stat().st_size != declared["bytes"]:
            faults.append(f"{name} has {path.stat().st_size} bytes instead of {declared['bytes']}")
        elif sha256_of(path) != declared["sha256"]:
            faults.append(f"{name} is damaged: its digest differs")
    return faults


def record_verdict(config: Config, name: str, result: str, detail: JSON) -> None:
    """Put a drill's result before the earlier ones of a point.

    Raises:
        StepError: there is no such point, or the result is none.
    """
    if result not in {"verified", "failed"}:
        raise StepError(f"a drill's result is verified or failed, not {result!r}")
    point = find_point(config, name)
    entry = {"at": stamp(now()), "result": result, "reason": "", "seconds": None, "newest_age_s": None, "checks": [], **detail}
    write_json(point.folder / VERIFICATION, [entry, *point.verifications][:VERIFICATIONS_KEPT])


def remove_partial(config: Config) -> list[str]:
    """Remove what runs, and fetches, that died left behind; return the names."""
    names = []
    fetched = [folder for folder in config.points.glob("[0-9]*") if not (folder / MANIFEST).exists()]
    for folder in [*config.points.glob(f"{PARTIAL}*"), *fetched]:
        shutil.rmtree(folder)
        names.append(folder.name.removeprefix(PARTIAL))
    return sorted(names)


def kept(moments: t.Mapping[str, datetime], retention: t.Mapping[str, int]) -> set[str]:
    """Return the names to keep: all of the day before the newest, and the newest of each of the last days, weeks (ISO) and months with any.

    Args:
        moments: moment of each point, by name.
        retention: how many ``days``, ``weeks`` and ``months``.
    """
    newest_first = sorted(moments, key=lambda name: moments[name], reverse=True)
    periods: dict[str, t.Callable[[datetime], t.Any]] = {
        "days": lambda moment: moment.date(),
        "weeks": lambda moment: moment.isocalendar()[:2],
        "months": lambda moment: (moment.year, moment.month),
    }
    keep = {name for name in newest_first if moments[newest_first[0]] - moments[name] < RECENT}
    for period, key in periods.items():
        seen: set[t.Any] = set()
        for name in newest_first:
            if key(moments[name]) not in seen and len(seen) < retention.get(period, 0):
                seen.add(key(moments[name]))
                keep.add(name)
    return keep


def to_keep(points: t.Sequence[Point], retention: t.Mapping[str, int]) -> set[str]:
    """Return the names of the points that the retention keeps, the last verified one always among them.

    Points that a drill has failed, or that lack a volume, push out no other, and stay as long as they would otherwise: the fault may be
    the drill's.
    """
    good = kept({point.name: point.moment for point in points if point.verdict != "failed" and not point.missing}, retention)
    verified = [point.name for point in points if point.verdict == "verified" and not point.missing]
    return good | kept({point.name: point.moment for point in points}, retention) | set(verified[-1:])


def own_bytes(point: Point) -> int:
    """Return the bytes of a point's files, without base backups and volumes."""
    return sum(int(declared["bytes"]) for declared in point.manifest["files"].values())


def summary(point: Point) -> JSON:
    """Return what a list shows of a point."""
    stores = point.manifest["stores"]
    newest = point.verifications[0] if point.verifications else {}
    return {
        "name": point.name,
        "moment": point.manifest["moment"],
        "age_s": round((now() - point.moment).total_seconds()),
        "bytes": own_bytes(point) + sum(int(stores.get(store, {}).get("bytes", 0)) for store in ("postgres", "volumes")),
        "stores": sorted(stores),
        "missing": point.missing,
        # For how long a store took no writes while it was captured.
        "pause_seconds": max((store.get("pause_seconds", 0) for store in stores.values()), default=0),
        "verified": newest.get("result", ""),
        "verified_at": newest.get("at", ""),
        "reason": newest.get("reason", ""),
        "offsite": bool(read_json(point.folder.parent.parent / "state" / "offsite.json", {}).get("shipped", {}).get(point.name)),
    }
