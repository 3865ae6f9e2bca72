# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a store's data together from a recovery point, in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path

from slipway_backup import postgres
from slipway_backup.common import JSON, Config, StepError, parse_stamp, say
from slipway_backup.points import Point, file_faults, find_point, read_points

STORES = ("postgres", "redis", "chroma", "settings")
END = "end"
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
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise StepError(f"{text!r} is no time such as 2026-11-23T02:15:00+00:00") from error
    if ":" not in text:
        # Of a date, a space and a time, -e passes on the date alone.
        raise StepError(f"{text!r} is a day: write the moment as one word, such as 2026-11-23T02:15:00+00:00")
    if moment.tzinfo is None:
        raise StepError(f"{text!r} does not say its time zone: write {moment.isoformat()}+00:00 for UTC")
    return moment


def extract(config: Config, store: str, name: str, folder: Path, target_time: str = "", owner: str = "") -> JSON:
    """Put a store's data together.

    Args:
        config: names the data.
        store: postgres, redis, chroma or settings.
        name: of the point, or latest.
        folder: an empty folder; it need not be there.
        target_time: PostgreSQL only: a moment with its time zone, or ``end`` for all that has arrived.
        owner: number of the user and the group that get it, as 70:70.

    Returns:
        ``point``, ``seconds``, and for PostgreSQL ``target``.

    Raises:
        StepError: the point is damaged, or something is in the way.
    """
    if store not in STORES:
        raise StepError(f"{store!r} is none of {', '.join(STORES)}")
    if folder.is_dir() and any(entry.name != "lost+found" for entry in folder.iterdir()):
        raise StepError(f"{folder} is not empty")
    began = time.monotonic()
    point = choose_point(config, name, target_time if store == "postgres" else "")
    if store not in point.manifest["stores"] and store != "settings":
        raise StepError(f"the point {point.name} does not hold {store}")
    folder.mkdir(parents=True, exist_ok=True)
    told: JSON = {"point": point.name}
    if store == "postgres":
        told["target"] = extract_postgres(config, point, folder, target_time)
    else:
        faults = [fault for fault in file_faults(point) if fault.startswith(f"{store}/")]
        if faults:
            raise StepError(f"the point {point.name} is damaged: {'; '.join(faults)}")
        shutil.copytree(point.folder / store, folder, dirs_exist_ok=True)
    if owner:
        give(folder, owner)
    told["seconds"] = round(time.monotonic() - began, 1)
    return told


def extract_postgres(config: Config, point: Point, folder: Path, target_time: str) -> str:
    """Write a data folder that recovers to its target when a server starts on it; return the target in words."""
    manifest = point.manifest["stores"]["postgres"]
    arguments = ["--no-get-wal", "--partial-wal", "--jobs", str(max(1, len(os.sched_getaffinity(0))))]
    # The point's own history: others, begun by restores to a moment before it, may have been given up again.
    timeline = str(manifest["timeline"])
    if target_time == END:
        # Named here too: Barman looks for the segment that is still arriving on the newest timeline otherwise, and leaves it out.
        arguments += ["--target-tli", timeline]
        target = "all that has arrived"
    elif target_time:
        moment = parse_time(target_time)
        arguments += ["--target-time", moment.isoformat(sep=" "), "--target-action", "promote", "--target-tli", timeline]
        target = moment.isoformat(sep=" ")
    else:
        arguments += ["--target-name", manifest["restore_point"], "--target-action", "promote", "--target-tli", timeline]
        target = manifest["restore_point"]
    say(f"postgres: putting {point.name} together, up to {target}")
    postgres.barman(config, "restore", *arguments, postgres.SERVER, manifest["backup_id"], str(folder), what=f"restore {point.name}")
    wal = folder / "barman_wal"
    if not wal.is_dir():
        # Without a target Barman leaves a server that goes on where the old one was; on a timeline of its own, what follows cannot be
        # taken for what was there.
        wal = folder / "pg_wal"
        (folder / "recovery.signal").touch()
        with (folder / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
            file.write(f"restore_command = 'false'\nrecovery_target_timeline = '{timeline}'\n")
    if target_time:
        copy_superseded(config.barman / postgres.SERVER / postgres.SUPERSEDED, wal, int(timeline))
    copy_histories(config.barman / postgres.SERVER / "wals", wal)
    folder.chmod(0o700)
    return target


def copy_superseded(source: Path, target: Path, timeline: int) -> None:
    """Give the restored server the segment that was arriving when a restore ended that timeline: Barman knows what arrives now only."""
    for path in source.glob(f"{timeline:08X}*.partial"):
        segment = target / path.name.removesuffix(".partial")
        if not segment.exists():
            shutil.copyfile(path, segment)


def copy_histories(source: Path, target: Path) -> None:
    """Tell the restored server which timelines there are, so that it takes a number of its own."""
    for path in source.glob("*.history"):
        content = path.read_bytes()
        if content.startswith(ZSTD_MAGIC):
            content = execute_bytes(["zstd", "-q", "-d", "-c", str(path)])
        (target / path.name).write_bytes(content)


def execute_bytes(command: list[str]) -> bytes:
    """Run a program and return the bytes that it printed.

    Raises:
        StepError: it failed.
    """
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise StepError(f"{command[-1]} cannot be read: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


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
        raise StepError(f"{folder} cannot be given to {owner}: {error}") from error
