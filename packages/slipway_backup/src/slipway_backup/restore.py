# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a store's data together from a recovery point, in a folder."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from slipway_backup import postgres, volumes
from slipway_backup.common import JSON, Config, StepError, parse_stamp, say
from slipway_backup.points import Point, file_faults, find_point, read_points

STORES = ("postgres", "redis", "chroma", "settings")
END = "end"
#: Name of a segment: its timeline, and its number, which counts on from one timeline to the next.
SEGMENT = re.compile(r"[0-9A-F]{24}")
#: In the data folder, while it recovers.
WAL = "recovery_wal"
ARCHIVE_TRIES = 5
#: Bytes that a restore writes for each one in a point: Redis its append-only file too, Chroma what is compressed here, and its indexes.
WRITTEN = {"redis": 2, "chroma": 4, "volumes": 1}
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def choose_point(config: Config, name: str, target_time: str) -> Point:
    """Return the point to restore from: the named one, or the newest whose moment is not after the target.

    Raises:
        StepError: there is none.
    """
    if not target_time or name != "latest":
        return find_point(config, name)
    points = [point for point in read_points(config) if point.chain]
    if target_time != END:
        wanted = parse_time(target_time)
        # The base backup is older than its point's moment: WAL from there on leads to any later one.
        points = [point for point in points if parse_stamp(point.manifest["moment"]) <= wanted]
    if not points:
        raise StepError(f"no recovery point is old enough to reach {target_time}")
    return points[-1]


def parse_time(text: str) -> datetime:
    """Return a moment that a person wrote; it must say its time zone.

    Raises:
        StepError: it is none.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise StepError(f"{text!r} is not a time such as 2026-11-23T02:15:00+00:00") from error
    if ":" not in text:
        # Of a date, a space and a time, -e passes on the date alone.
        raise StepError(f"{text!r} has no time of day: write the time as one word, such as 2026-11-23T02:15:00+00:00")
    if moment.tzinfo is None:
        raise StepError(f"{text!r} has no time zone: write {moment.isoformat()}+00:00 for UTC")
    return moment


def extract(config: Config, store: str, name: str, folder: Path, target_time: str = "", owner: str = "") -> JSON:
    """Put a store's data together.

    Args:
        config: names the data.
        store: postgres, redis, chroma, settings, or volumes/HOST/VOLUME.
        name: of the point, or latest.
        folder: an empty folder; it need not be there.
        target_time: PostgreSQL only: a moment with its time zone, or ``end`` for all that has arrived.
        owner: number of the user and the group that get it, as 70:70.

    Returns:
        ``point``, ``seconds``; for PostgreSQL ``target``, and for the target ``end`` ``newest_wal``: the last segment that there is.

    Raises:
        StepError: the point is damaged, or something is in the way.
    """
    kind, _unused, data_set = store.partition("/")
    if store not in STORES and (kind != volumes.STORE or not data_set):
        raise StepError(f"{store!r} is not one of {', '.join(STORES)}, and not {volumes.STORE}/HOST/VOLUME")
    if folder.is_dir() and any(entry.name != "lost+found" for entry in folder.iterdir()):
        raise StepError(f"{folder} is not empty")
    began = time.monotonic()
    point = choose_point(config, name, target_time if store == "postgres" else "")
    if kind not in point.manifest["stores"] and store != "settings":
        raise StepError(f"the point {point.name} does not contain {store}")
    folder.mkdir(parents=True, exist_ok=True)
    told: JSON = {"point": point.name}
    if store == "postgres":
        told |= extract_postgres(config, point, folder, target_time)
    elif data_set:
        volumes.extract(point, data_set, folder)
    else:
        faults = [fault for fault in file_faults(point) if fault.startswith(f"{store}/")]
        if faults:
            raise StepError(f"the point {point.name} is damaged: {'; '.join(faults)}")
        shutil.copytree(point.folder / store, folder, dirs_exist_ok=True)
    if owner:
        give(folder, owner)
    told["seconds"] = round(time.monotonic() - began, 1)
    return told


def room(config: Config, name: str, stores: t.Container[str], target_time: str = "") -> int:
    """Return how many bytes a restore of a point may write.

    Args:
        config: names the data.
        name: of the point.
        stores: those that are restored.
        target_time: PostgreSQL only, as in extract.
    """
    point = find_point(config, name)
    parts = {store: part for store, part in point.manifest["stores"].items() if store in stores}
    needed = sum(factor * int(parts.get(store, {}).get("bytes", 0)) for store, factor in WRITTEN.items())
    if "postgres" in parts:
        part, known = parts["postgres"], {backup["id"]: backup for backup in postgres.backups(config)}
        # One that is missing is found by the comparison of all files.
        chain = [known[backup] for backup in point.chain if backup in known]
        needed += int(part.get("database_bytes") or sum(backup["bytes"] for backup in chain))
        if chain:
            first, last = chain[-1]["begin_wal"], last_wal(config, part, target_time)
            needed += len(wanted_segments(config, int(part["timeline"]), first, last)) * int(chain[-1]["segment_bytes"])
    return needed


def last_wal(config: Config, manifest: JSON, target_time: str) -> str:
    """Return the last segment that a restore of PostgreSQL may need; empty for all that has arrived."""
    if not target_time:
        return str(manifest["wal"])
    return "" if target_time == END else last_segment(read_points(config), int(manifest["timeline"]), parse_time(target_time))


def extract_postgres(config: Config, point: Point, folder: Path, target_time: str) -> JSON:
    """Write a data folder that recovers to its target when a server starts on it; return ``target`` in words and ``newest_wal``."""
    manifest = point.manifest["stores"]["postgres"]
    # The point's own history: others, begun by restores to a moment before it, may have been given up again.
    timeline = int(manifest["timeline"])
    arguments = ["--jobs", str(processors()), "--target-tli", str(timeline)]
    # Barman would copy, and decompress, all WAL since the base backup, and stumble over a segment that the target does not need.
    arguments += ["--get-wal", "--restore-command", f"cp {WAL}/%f %p"]
    if target_time == END:
        target = "all that has arrived"
    elif target_time:
        moment = parse_time(target_time)
        arguments += ["--target-time", moment.isoformat(sep=" "), "--target-action", "promote"]
        target = moment.isoformat()
    else:
        arguments += ["--target-name", manifest["restore_point"], "--target-action", "promote"]
        target = manifest["restore_point"]
    say(f"postgres: restoring {point.name}, up to {target}")
    postgres.barman(config, "restore", *arguments, postgres.SERVER, manifest["backup_id"], str(folder), what=f"restore {point.name}")
    with (folder / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
        file.write(f"recovery_end_command = 'rm -rf {WAL}'\n")
    wal = folder / WAL
    wal.mkdir()
    base = next(backup for backup in postgres.backups(config) if backup["id"] == manifest["backup_id"])
    newest = lay_wal(config, wal, timeline, base, last_wal(config, manifest, target_time), strict=not target_time)
    copy_histories(config.barman / postgres.SERVER / "wals", wal)
    folder.chmod(0o700)
    return {"target": target, **({"newest_wal": newest} if target_time == END else {})}


def processors() -> int:
    """Return how many processors we may use."""
    return max(1, len(os.sched_getaffinity(0)))


def last_segment(points: t.Iterable[Point], timeline: int, moment: datetime) -> str:
    """Return the segment by whose end a moment has passed, as a point after it says; empty where there is none."""
    for point in points:
        manifest = point.manifest["stores"].get("postgres", {})
        if point.chain and manifest["timeline"] == timeline and parse_stamp(point.manifest["moment"]) > moment:
            return str(manifest["wal"])
    return ""


def known_segments(config: Config, timeline: int) -> dict[str, Path]:
    """Return where the segments of a timeline, and of those before it, are; those too that Barman has not archived."""
    home = config.barman / postgres.SERVER
    # A later timeline has more of a segment. Segments that are still arriving have their full size, with zeros after their content.
    places = [
        (home / postgres.SUPERSEDED, f"{timeline:08X}*"),
        (home / "streaming", "*"),
        (home / "wals", "*/*"),
    ]
    found = {}
    for place, pattern in places:
        for path in place.glob(pattern):
            name = path.name.removesuffix(".partial")
            if SEGMENT.fullmatch(name) and int(name[:8], 16) <= timeline:
                found[name] = path
    return found


def wanted_segments(config: Config, timeline: int, first: str, last: str) -> dict[str, Path]:
    """Return where the segments are that a server needs, from the first to the last; without a last, all that have arrived."""
    known = known_segments(config, timeline)
    return {name: path for name, path in known.items() if name >= first and (not last or name[8:] <= last[8:])}


def lay_wal(config: Config, folder: Path, timeline: int, base: JSON, last: str, strict: bool) -> str:
    """Give a server the WAL that it recovers from.

    Args:
        config: names the data.
        folder: gets the segments, under their names.
        timeline: the newest that they may be of.
        base: the backup that it continues: ``begin_wal`` and ``segment_bytes``.
        last: the last that may be needed; empty for all that has arrived.
        strict: whether all up to there are needed; else one that cannot be read is left out, and the server goes as far as it comes.

    Returns:
        The newest segment that there is up to there.

    Raises:
        StepError: one that is needed cannot be read, or is gone.
    """
    first, size = base["begin_wal"], base["segment_bytes"]
    known: dict[str, Path] = {}
    faults: dict[str, str] = {}
    for _unused in range(ARCHIVE_TRIES):
        known = wanted_segments(config, timeline, first, last)
        missing = {name: path for name, path in sorted(known.items()) if not (folder / name).exists()}
        with ThreadPoolExecutor(processors()) as pool:
            told = dict(zip(missing, pool.map(copy_segment, missing.values(), [folder] * len(missing)), strict=True))
        faults = {name: fault for name, fault in told.items() if fault}
        # One that was being archived meanwhile is somewhere else now.
        if all(known[name].exists() for name in faults):
            break
    for name, path in known.items():
        laid = folder / name
        if laid.exists() and laid.stat().st_size != size:
            laid.unlink()
            # One whose transfer has just begun is empty.
            if not path.name.endswith(".partial"):
                faults[name] = f"it has not the {size} bytes of a segment"
    needed = sorted(name for name in faults if strict or name == first)
    if needed or first not in known:
        bad = needed[0] if needed else first
        raise StepError(f"the WAL segment {bad} is damaged: {faults.get(bad, 'it is missing')}")
    for name, fault in faults.items():
        say(f"postgres: the WAL segment {name} is left out: {fault}")
    return max(known, key=lambda name: (name[8:], name))


def copy_segment(source: Path, folder: Path) -> str:
    """Copy a segment or a history, decompressed, under its own name; return what is wrong with it, or nothing."""
    scratch = folder / f".{source.name}"
    try:
        with source.open("rb") as file:
            compressed = file.read(len(ZSTD_MAGIC)) == ZSTD_MAGIC
        if compressed:
            with scratch.open("wb") as file:
                decompress(source, file)
        else:
            shutil.copyfile(source, scratch)
        scratch.rename(folder / source.name.removesuffix(".partial"))
    except (StepError, FileNotFoundError) as error:
        scratch.unlink(missing_ok=True)
        return str(error)
    return ""


def copy_histories(source: Path, target: Path) -> None:
    """Give the restored server the existing timelines, so that it takes a new number."""
    for path in source.glob("*.history"):
        if fault := copy_segment(path, target):
            raise StepError(fault)


def decompress(source: Path, target: t.IO[bytes]) -> None:
    """Write what a file of zstd holds.

    Raises:
        OSError: there is no room for it.
        StepError: it is damaged.
    """
    done = subprocess.run(["zstd", "-q", "-d", "-c", str(source)], stdout=target, stderr=subprocess.PIPE, check=False)
    if os.strerror(errno.ENOSPC).encode() in done.stderr:
        # Nothing is wrong with it, and nothing may be left out for that.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target.name)
    if done.returncode != 0:
        raise StepError(f"{source} cannot be read: {done.stderr.decode(errors='replace').strip()}")


def give(folder: Path, owner: str) -> None:
    """Give a folder and all in it to a user and a group, by number.

    Raises:
        StepError: the numbers are none, or we may not.
    """
    try:
        uid, gid = (int(part) for part in owner.split(":"))
        for place, folders, files in os.walk(folder):
            os.chown(place, uid, gid)
            for entry in [*folders, *files]:
                os.chown(Path(place, entry), uid, gid, follow_symlinks=False)
    except (ValueError, OSError) as error:
        raise StepError(f"the owner of {folder} cannot be changed to {owner}: {error}") from error
