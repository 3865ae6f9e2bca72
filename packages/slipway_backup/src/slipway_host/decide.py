# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What decides, without touching anything: which point to restore, and whether what came out is what went in."""

from __future__ import annotations

import json
import re
import typing as t
from datetime import datetime

from slipway_host.sandbox import JSON, AbsentError, HostError, PointError

END = "end"
#: ``volumes`` are those of the product, of all hosts.
STORES = ("postgres", "redis", "chroma", "volumes")
#: How far counts may be off, for each transaction that was in progress at the moment of the point, and as a share.
ROWS_IN_FLIGHT = 100
SHARE_IN_FLIGHT = 0.01
#: A moment, as module_utils/moments.py has it, which host programs cannot read.
MOMENT = re.compile(r"(?a:(\d{4}-\d\d-\d\d)[T ]((?:[01]\d|2[0-3]):\d\d)(:\d\d)?(?:[.](\d{1,9}))?\s?(?:(Z)|([+-]\d\d):?(\d\d)?)?)")
#: Bytes of the disk that a restore leaves free, as the module restored_volume does.
RESTORE_RESERVE = 2**30


def plain(text: str) -> str:
    """Return a moment as Python 3.10 reads it: it takes neither +00 nor a tenth of a second."""
    found = MOMENT.fullmatch(text)
    if not found:
        return text
    day, minute, second, fraction, utc, hours, minutes = found.groups("")
    zone = "+00:00" if utc else f"{hours}:{minutes or '00'}" if hours else ""
    return f"{day}T{minute}{second or ':00'}.{fraction[:6]:0<6}{zone}"


def parse_time(text: str) -> datetime:
    """Return a moment that a person wrote; it must say its time zone.

    Raises:
        HostError: it is none.
    """
    try:
        moment = datetime.fromisoformat(plain(text.strip()))
    except ValueError as error:
        raise HostError(f"{text!r} is not a time such as 2026-11-23T02:15:00+00:00") from error
    if ":" not in text:
        # Of a date, a space and a time, -e passes on the date alone.
        raise HostError(f"{text!r} has no time of day: write the time as one word, such as 2026-11-23T02:15:00+00:00")
    if moment.tzinfo is None:
        raise HostError(f"{text!r} has no time zone: write {moment.isoformat()}+00:00 for UTC")
    return moment


def offer(points: t.Sequence[JSON], name: str, target_time: str, wanted: t.Sequence[str] = ()) -> str:
    """Return what to restore instead of a point, as an operator types it: the newest one before it that no drill has failed.

    A point that lacks volumes is not offered where these are wanted.
    """
    volumes = not wanted or "volumes" in wanted
    before = [point for point in points if point["name"] < name and point["verified"] != "failed" and not (volumes and point["missing"])]
    if not before:
        return "There is no earlier point that can be restored; check the off-site points: -e list=true"
    best = before[-1]
    # One word: of a date, a space and a time, -e passes on the date alone.
    target = target_time if target_time in {"", END} else parse_time(target_time).isoformat()
    how = f"-e point={best['name']}" + (f" -e target_time={target}" if target else "")
    # Named with a point, a moment concerns all stores.
    how += f" -e stores={','.join(wanted)}" if wanted and set(wanted) != set(best["stores"]) else ""
    return f"Restore the previous point, {'verified' if best['verified'] else 'not yet verified'}, of {best['moment']}: {how}"


def choose(points: t.Sequence[JSON], name: str, target_time: str = "", wanted: t.Sequence[str] = ()) -> JSON:
    """Return the point to restore from.

    Args:
        points: as ``slipway-backup --json list`` prints them, oldest first.
        name: of the point, or latest: the newest, or with a target time the newest that is not after it.
        target_time: a moment, or ``end`` for all that has arrived.
        wanted: stores, for what is offered instead; none for all.

    Raises:
        AbsentError: there is none.
        HostError: the newest drill failed it; says which one could be taken instead.
    """
    found = [point for point in points if name in {"latest", point["name"]}]
    if target_time and target_time != END:
        moment = parse_time(target_time)
        reachable = [point for point in found if parse_time(point["moment"]) <= moment]
        if found and not reachable:
            raise AbsentError(
                f"{target_time} is before {found[0]['name']}, whose moment is {found[0]['moment']}: WAL can only be replayed forward"
            )
        found = reachable
    if not found:
        names = ", ".join(point["name"] for point in points[-10:])
        there = f"there are {names}" if names else "there are none here: run playbooks/backup.yml"
        raise AbsentError(f"there is no recovery point{'' if name == 'latest' else ' ' + name}; {there}")
    point = found[-1]
    if point["verified"] == "failed":
        raise HostError(f"the drill of {point['name']} failed: {point['reason']}. {offer(points, point['name'], target_time, wanted)}")
    return point


def major_of(text: str) -> int:
    """Return PostgreSQL's major version from what ``postgres --version`` prints.

    Raises:
        HostError: it does not say.
    """
    found = re.search(r"\(PostgreSQL\) (\d+)", text)
    if not found:
        raise HostError(f"the PostgreSQL version of the image is unknown; it printed {text.strip()[:200]!r}")
    return int(found[1])


def refuse_major(point: str, major: int, image: str, image_major: int) -> None:
    """Refuse data that the image's server cannot read.

    Raises:
        HostError: the two majors differ.
    """
    if major != image_major:
        raise HostError(
            f"the point {point} has data of PostgreSQL {major}, which image {image} (PostgreSQL {image_major}) cannot read: "
            f"set postgres_image to version {major} and postgres_volume to a new name, run site.yml -e accept=restart, and restore "
            '(docs/backup.md, "Another major version of PostgreSQL")'
        )


def unread_wal(newest: str, reached: str, last_write: str) -> list[str]:
    """Return a warning where a recovery ended before the WAL that there is: PostgreSQL takes what it cannot read for the end.

    Args:
        newest: the last segment that the server was given.
        reached: the one that its recovery ended in, with the timeline that it goes on in.
        last_write: of the last transaction that it has; may be empty.
    """
    # Without the timeline.
    if newest[8:] <= reached[8:]:
        return []
    end = f"{newest[:8]}{reached[8:]}"
    warning = f"PostgreSQL could read its WAL up to segment {end} only, but WAL exists up to {newest}: a segment is missing or damaged, "
    warning += "or a transaction was in progress when the server died. "
    return [warning + f"Commits after {last_write or 'the base backup'} are missing"]


def count_query(tables: JSON) -> str:
    """Return the SQL that answers a line of JSON for each table of a manifest: rows, newest moment, and its age in seconds."""
    queries = []
    for name, expected in tables.items():
        schema, _unused, table = name.partition(".")
        column = identifier(expected["column"]) if expected["column"] else ""
        newest = f"max({column})" if column else "null::timestamptz"
        # An endless moment has no age.
        age = f"case when isfinite({newest}) then extract(epoch from now() - {newest}) end"
        same = f"coalesce({newest} = {literal(expected['newest'])}, false)" if column and expected["newest"] else f"{newest} is null"
        queries.append(
            f"select json_build_object('table', {literal(name)}, 'rows', count(*), 'newest', ({newest})::text, 'same', {same}, "  # noqa: S608 - quoted above
            f"'age_s', {age}) from {identifier(schema)}.{identifier(table)};"
        )
    return "\n".join(queries)


def identifier(name: str) -> str:
    """Return a name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a string as an SQL literal, whatever standard_conforming_strings is."""
    doubled = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{doubled}'"


def answers(output: str) -> dict[str, JSON]:
    """Return the lines that count_query's SQL answered, by table."""
    lines = (json.loads(line) for line in output.split("\n") if line.startswith("{"))
    return {line["table"]: line for line in lines}


def compare_rows(tables: JSON, found: t.Mapping[str, JSON], in_flight: int) -> list[str]:
    """Return what differs between the tables of a manifest and those that were restored.

    Args:
        tables: of the manifest; a table that could not be counted has null for rows.
        found: as answers() gives it.
        in_flight: transactions in progress at the moment of the point; 0 says that the counts have to be the same.
    """
    faults = []
    for name, expected in tables.items():
        actual = found.get(name)
        if actual is None:
            faults.append(f"{name} cannot be read")
            continue
        if expected["rows"] is None:
            continue
        off = abs(actual["rows"] - expected["rows"])
        allowed = max(in_flight * ROWS_IN_FLIGHT, int(expected["rows"] * SHARE_IN_FLIGHT)) if in_flight else 0
        if off > allowed:
            faults.append(f"{name} has {actual['rows']} rows instead of {expected['rows']}")
        elif not in_flight and not actual["same"]:
            faults.append(f"the newest row of {name} is of {actual['newest']} instead of {expected['newest']}")
    return faults


def newest_age(found: t.Iterable[JSON]) -> float | None:
    """Return the age in seconds of the newest row of all tables; moments to come, such as an expiry, do not count."""
    ages = [line["age_s"] for line in found if line["age_s"] is not None and line["age_s"] >= 0]
    return round(min(ages), 1) if ages else None


def chroma_memory_mb(collections: t.Iterable[JSON]) -> int:
    """Return the memory in MB for a Chroma that takes in the collections of a manifest.

    It holds all vectors, four bytes a dimension, and their neighbours in memory: thrice their size, and a gigabyte for the rest.
    """
    vectors = sum(int(collection["records"]) * int(collection["dimension"] or 0) * 4 for collection in collections)
    return 1024 + 3 * vectors // 2**20


def redis_memory_mb(part: JSON, available_mb: int) -> int:
    """Return the memory in MB for a Redis that reads the file of a point.

    It is twice what the keys took when the point was made, as the server may copy pages while it writes its append-only file. Points that
    do not say it have the size of the file alone, which is compressed: they get most of what the host can spare.

    Args:
        part: of the manifest.
        available_mb: memory that the host can spare.
    """
    used = int(part.get("used_memory") or 0)
    return max(1024, 2 * used // 2**20 if used else available_mb * 3 // 4)


def refuse_full_disk(point: str, needed: int, disk: tuple[int, int], minimum_free_percent: float | None) -> None:
    """Refuse a restore that would fill the disk, before anything is written: the stack may write there too.

    Args:
        point: its name.
        needed: bytes that it may write.
        disk: bytes of the disk with the engine's volumes, and how many are free.
        minimum_free_percent: what must stay free; None for RESTORE_RESERVE, for a restore that a person waits for.

    Raises:
        HostError: there is not enough room.
    """
    total, free = disk
    if minimum_free_percent is None:
        reserve, what = RESTORE_RESERVE, f"{RESTORE_RESERVE / 2**20:.0f} MB must stay free"
    else:
        reserve = round(total * minimum_free_percent / 100)
        what = f"{minimum_free_percent:g} % must stay free (backup_minimum_free_percent)"
    if needed + reserve > free:
        raise HostError(
            f"the disk with Docker's volumes has {free / 2**20:.0f} MB free; restoring {point} takes up to {needed / 2**20:.0f} MB there, "
            f"and {what}: free some space, or give it a larger disk"
        )


def loaded_keys(info: str) -> int:
    """Return how many keys Redis read from its file, those whose time has passed since included.

    Raises:
        PointError: it does not say that it read one.
    """
    counts = dict(re.findall(r"^rdb_last_load_keys_(loaded|expired):(\d+)", info, re.MULTILINE))
    if len(counts) != 2:
        raise PointError("Redis did not report how many keys it has read")
    return int(counts["loaded"]) + int(counts["expired"])


def scalar(query: str) -> str:
    """Return a user's query as one whose only value is a string.

    A query with more rows or columns than one fails then.
    """
    return f"select ({query.strip().rstrip(';')})::text"
