# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole run: capture all stores, write the point, copy it off-site, prune."""

from __future__ import annotations

import contextlib
import shutil
import time
import typing as t
from datetime import datetime, timedelta, timezone
from pathlib import Path

from slipway_backup import chroma, exchange, offsite, postgres, redis, report, volumes
from slipway_backup.common import (
    JSON,
    NAME_FORMAT,
    PARTIAL,
    Config,
    StepError,
    execute,
    now,
    point_name,
    read_json,
    say,
    stamp,
    sync_folder,
    sync_tree,
    write_json,
)
from slipway_backup.points import (
    MANIFEST,
    SCHEMA_VERSION,
    describe_files,
    file_faults,
    find_point,
    kept,
    own_bytes,
    read_points,
    remove_partial,
    to_keep,
)

#: What the disk must hold beyond the database's own size for a full base backup.
ROOM_FACTOR = 1.2
ROOM_MINIMUM = 64 * 2**20

Sharing = t.Callable[[], t.ContextManager[None]]


class PartialError(StepError):
    """The point was made, and is not off-site yet, or lacks a volume."""


def clean_up(config: Config) -> None:
    """Remove what runs that died left behind: half points, and base backups that belong to no point."""
    for name in remove_partial(config):
        say(f"run: removed the incomplete point {name} of an interrupted run")
    shutil.rmtree(config.data / "staging", ignore_errors=True)
    if config.postgres:
        needed = {backup for point in read_points(config) for backup in point.chain}
        for backup in postgres.remove_unknown(config, needed):
            say(f"run: removed the base backup {backup}, which belongs to no point")


def room_needed(config: Config) -> int:
    """Return how many bytes a run may write: the database's size, unless the last base backup says more."""
    needed = ROOM_MINIMUM
    if config.postgres:
        connection = postgres.connect(config)
        try:
            size = postgres.database_bytes(connection)
        finally:
            connection.close()
        needed += int(size * ROOM_FACTOR)
    points = read_points(config)
    if points:
        needed += own_bytes(points[-1]) + sum(told["new_bytes"] for told in volumes.sets_of(points[-1]).values())
    return needed


def make_room(config: Config) -> None:
    """Prune before the disk fills, and refuse a run that would fill it.

    Raises:
        StepError: there is not enough room even then.
    """
    needed = room_needed(config)

    def missing() -> int:
        usage = shutil.disk_usage(config.data)
        return needed + int(usage.total * config.minimum_free_percent / 100) - usage.free

    if missing() > 0:
        say("run: low disk space, pruning first")
        prune_here(config)
    if missing() > 0:
        usage = shutil.disk_usage(config.data)
        raise StepError(
            f"the backup disk has {usage.free / 2**20:.0f} MB free; a run needs up to {needed / 2**20:.0f} MB, and "
            f"{config.minimum_free_percent:g} % must stay free: give {config.data} a larger disk, or keep fewer points (backup_retention)"
        )


def known_of_controller(config: Config) -> JSON:
    """Return what a controller last reported of the inventory and of running images, for runs of the timer."""
    newest: JSON = max(read_points(config), key=lambda point: point.name).manifest["settings"] if read_points(config) else {}
    return {key: newest.get(key) for key in ("inventory_sha256", "inventory_read", "version", "image_digests")}


def capture(config: Config, name: str, partial: Path, full: bool, reason: str, facts: JSON) -> JSON:
    """Fill the folder of a point and return its manifest, written into it as the last file."""
    started = now()
    stores: JSON = {}
    base: JSON = {}
    last_exchange = exchange.state(config)
    if config.postgres:
        base = postgres.take_base_backup(config, full)
        exchange.refuse_mixed(config, last_exchange)
    # The WAL's times are by the server's clock; this host's may be wrong.
    moment = postgres.clock(config) if config.postgres else now()
    if config.postgres:
        say("postgres: restore point, and counting rows")
        stores["postgres"] = {**base, **postgres.mark_moment(config, name)}
    if config.redis:
        say("redis: copying")
        stores["redis"] = redis.capture(config, partial)
    if config.chroma:
        say("chroma: copying")
        stores["chroma"] = chroma.capture(config, partial)
    if config.volumes:
        # After the database's moment: a file is there before the row that names it.
        say("volumes: copying")
        stores[volumes.STORE] = volumes.capture(config, partial)
    if config.postgres:
        postgres.collect_wal(config, stores["postgres"]["wal"], base["backup_id"])
        stores["postgres"]["dumps"] = postgres.dump(config, partial) if config.postgres.get("logical_dump") else {}
        postgres.remember_gap(config, None)
    exchange.refuse_mixed(config, last_exchange)
    known = known_of_controller(config)
    # This host sees its own images only; a controller sees those of all.
    digests = {**(known["image_digests"] or {}), **facts.get("image_digests", {})}
    settings = {**config.settings, **known, **{key: value for key, value in facts.items() if value}, "image_digests": digests}
    write_json(partial / "settings" / "settings.json", settings)
    files = describe_files(partial)
    sync_tree(partial)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "stack": config.stack,
        "reason": reason,
        "started": stamp(started),
        "moment": stamp(moment),
        "finished": stamp(now()),
        "stores": stores,
        "settings": {
            **{key: settings.get(key) for key in ("inventory_sha256", "inventory_read", "version", "images", "image_digests")},
            "certificates": {address: found.get("sha256", "") for address, found in settings.get("certificates", {}).items()},
        },
        "files": files,
    }
    write_json(partial / MANIFEST, manifest)
    return manifest


def free_name(config: Config) -> str:
    """Return a name for a new point, later than all there are, here and off-site, so that a clock set back loses the order of none."""
    name = point_name(now())
    # Off-site too: there may be points that are not here any more.
    newest = max([*(point.name for point in read_points(config)), *offsite.shipped(config)], default="")
    if newest >= name:
        if newest > name:
            say(f"run: the clock says {name}, but there is a point {newest}: the clock is, or was, wrong")
        name = point_name(moment_of(newest) + timedelta(seconds=1))
    return name


def run(
    config: Config,
    reason: str,
    full: bool = False,
    facts: JSON | None = None,
    sharing: Sharing = contextlib.nullcontext,
) -> JSON:
    """Make a recovery point, copy it off-site, prune, and write the report; the lock is held by the caller.

    Args:
        config: names the stores.
        reason: kept in the manifest.
        full: whether to take a full base backup.
        facts: further settings to keep.
        sharing: a context in which others may read the data: a restore does not wait for a base backup, or for a copy, of hours.

    Returns:
        The manifest.

    Raises:
        PartialError: the point is there, and its copy, or a volume, is not.
        StepError: no point was made, and nothing of one is left.
    """
    began, started = time.monotonic(), now()
    result: JSON = {"name": "", "result": "failed", "reason": "", "started": stamp(started), "stores": {}}
    partial: Path | None = None
    try:
        clean_up(config)
        make_room(config)
        name = free_name(config)
        result["name"] = name
        partial = config.points / f"{PARTIAL}{name}"
        partial.mkdir(parents=True)
        try:
            with sharing():
                manifest = capture(config, name, partial, full, reason, facts or {})
                partial.rename(config.points / name)
                sync_folder(config.points)
                result["stores"] = {store: told.get("seconds") for store, told in manifest["stores"].items()}
                result["result"] = "ok"
                say(f"run: recovery point {name}")
                ship(config)
            prune(config, sharing)
            volumes.refuse_missing(manifest)
        except (StepError, OSError) as error:
            if result["result"] != "ok":
                raise
            result.update(result="failed", reason=f"the point {name} is there, but: {error}")
            raise PartialError(result["reason"]) from error
    except PartialError:
        raise
    except BaseException as error:
        result["reason"] = str(error) or type(error).__name__
        if partial:
            shutil.rmtree(partial, ignore_errors=True)
        leave_nothing(config)
        if isinstance(error, OSError):
            raise StepError(f"{error.filename or config.data}: {error.strerror}") from error
        raise
    finally:
        result.update(finished=stamp(now()), seconds=round(time.monotonic() - began, 1))
        finish(config, result)
    return manifest


def leave_nothing(config: Config) -> None:
    """Remove the base backup of a run that failed; the next run does it where that fails too."""
    try:
        if config.postgres:
            postgres.remove_unknown(config, {backup for point in read_points(config) for backup in point.chain})
    except StepError as error:
        say(f"run: the next run removes what is left of this one: {error}")


def finish(config: Config, result: JSON) -> None:
    """Keep a run's result and write the report; a full disk must not hide why the run failed."""
    try:
        write_json(config.state / "run.json", result)
        report.write(config)
    except (OSError, StepError) as error:
        say(f"run: the report cannot be written: {error}")


def ship(config: Config) -> list[str]:
    """Copy off-site what is not there, where there is a repository; return the points' names.

    Raises:
        StepError: it is out of reach or refuses; the report says so from now on.
    """
    if not offsite.enabled(config):
        return []
    try:
        return offsite.ship(config)
    except StepError as error:
        offsite.remember(config, error=str(error))
        raise


def make_up(config: Config) -> list[str]:
    """Copy off-site what the last run could not, which is then all it had to do; return the points' names."""
    lacked = offsite.last_error(config)
    new = ship(config)
    last = read_json(config.state / "run.json", {})
    if lacked and lacked in last.get("reason", ""):
        write_json(config.state / "run.json", {**last, "result": "ok", "reason": ""})
    return new


def prune_here(config: Config) -> list[str]:
    """Remove the points of this host that the retention does not keep, with what only they needed; return their names."""
    points = read_points(config)
    keep = to_keep(points, config.retention)
    gone = [point for point in points if point.name not in keep]
    for point in gone:
        # None any more at once, should the rest take a while or fail.
        going = config.points / f"{PARTIAL}{point.name}"
        point.folder.rename(going)
        shutil.rmtree(going)
        say(f"prune: removed {point.name}")
    kept_points = [point for point in points if point.name in keep]
    if config.postgres and gone:
        postgres.remove_unknown(config, {backup for point in kept_points for backup in point.chain})
    if config.postgres:
        parts = [point.manifest["stores"]["postgres"] for point in kept_points if point.chain]
        for name in postgres.prune_superseded(config, parts):
            say(f"prune: removed {name}, the end of a timeline that no point needs")
    return [point.name for point in gone]


def moment_of(name: str) -> datetime:
    """Return when the point of that name was begun."""
    return datetime.strptime(name, NAME_FORMAT).replace(tzinfo=timezone.utc)


def prune(config: Config, sharing: Sharing = contextlib.nullcontext) -> list[str]:
    """Apply the retention, here and off-site; return what is gone here. Others may read while what is off-site goes."""
    gone = prune_here(config)
    if offsite.enabled(config):
        here = {point.name for point in read_points(config)}
        # What is only there, as after the loss of this host, is judged by the same rule.
        moments = {name: moment_of(name) for name in {*offsite.shipped(config), *here}}
        with sharing():
            offsite.forget(config, here | kept(moments, config.retention))
    return gone


def verify(config: Config, name: str) -> t.Iterator[str]:
    """Yield what is wrong with the files of a point and of the base backups that it needs."""
    point = find_point(config, name)
    yield from file_faults(point)
    for data_set in volumes.sets_of(point):
        yield from volumes.faults(point, data_set)
    for backup in point.chain:
        data = config.barman / postgres.SERVER / "base" / backup / "data"
        if not data.is_dir():
            yield f"the base backup {backup} is missing"
            continue
        try:
            execute(["pg_verifybackup", "--no-parse-wal", "--quiet", str(data)], f"verify the base backup {backup}")
        except StepError as error:
            yield str(error)
    postgres_part = point.manifest["stores"].get("postgres")
    if postgres_part and not postgres.archived(config, postgres_part["wal"]).exists():
        yield f"the WAL segment {postgres_part['wal']} is missing"
