# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL through Barman: base backups, restore points, and what is counted at them."""

from __future__ import annotations

import getpass
import os
import random
import shutil
import time
import typing as t
from datetime import datetime
from pathlib import Path

from slipway_backup.common import JSON, Config, StepError, execute, now, read_json, say, size_of, stamp, write_atomically, write_json

SERVER = "postgres"
#: Name of the receiver among the server's standbys; the role postgres names it in synchronous_standby_names.
RECEIVER = "slipway_backup"
SLOT = "slipway_backup"
#: Folder next to Barman's own, for segments that were still arriving when their timeline was abandoned.
SUPERSEDED = "superseded"
#: initdb's default.
SEGMENT_BYTES = 16 * 2**20
#: Barman's list of the WAL that is archived, in the folder of the WAL.
WAL_LIST = f"{SERVER}-xlog.db"
#: How Barman names the description of a backup, behind its identifier.
INFO = "-backup.info"
CONNECT_SECONDS = 10
#: How long to look for a moment at which no transaction is in progress, and how often.
QUIET_SECONDS = 2.0
QUIET_ATTEMPTS = 60
#: Transactions that have written something and not ended.
ACTIVE = """
select backend_xid::text from pg_stat_activity where backend_xid is not null
union select transaction::text from pg_prepared_xacts
"""
#: How often to look, within a second, whether statements are in progress, and from which share of the looks on a server counts as busy.
LOOKS = 20
BUSY_SHARE = 0.5
WAL_SECONDS = 300
COUNT_SECONDS = 300
DUMP_JOBS = 2


class Snapshot(t.NamedTuple):
    """What PostgreSQL says of transactions in progress, as pg_current_snapshot() prints it."""

    xmin: int
    xmax: int
    running: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Return the snapshot that a string like ``10:12:10,11`` describes."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), tuple(int(number) for number in running.split(",") if number))


def in_flight(before: Snapshot, after: Snapshot, active: t.Iterable[int]) -> int:
    """Return how many transactions may have ended between two snapshots, at most; 0 says that both see the same rows.

    Args:
        before: the first snapshot.
        after: the second one.
        active: transactions in progress right before the second one. A snapshot does not list those that began after the last one
            that ended, and one whose commit is in the WAL may still wait for a standby.
    """
    low = 2**32
    return len({number % low for number in (*before.running, *active)}) + after.xmax - before.xmax


def conninfo(config: Config, database: str = "") -> str:
    """Return libpq's connection settings; the password is in a file."""

    def quoted(value: t.Any) -> str:
        text = str(value).replace("\\", "\\\\").replace("'", "\\'")
        return f"'{text}'"

    parts = {
        "host": config.postgres["host"],
        "port": config.postgres["port"],
        "user": config.postgres["user"],
        "passfile": config.secrets / "pgpass",
        "connect_timeout": CONNECT_SECONDS,
        "sslmode": config.postgres.get("sslmode", "prefer"),
        # A vanished server is noticed in a minute.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    if database:
        parts["dbname"] = database
    return " ".join(f"{name}={quoted(value)}" for name, value in parts.items())


def barman_config(config: Config) -> str:
    """Return Barman's configuration."""
    # What is stored is not compressed: restic finds blocks that it knows only in plain files, and a restore is a copy.
    return f"""[barman]
barman_user = {getpass.getuser()}
barman_home = {config.barman}
log_level = WARNING

[{SERVER}]
description = {config.stack}
conninfo = {conninfo(config, config.postgres["database"])}
streaming_conninfo = {conninfo(config)}
backup_method = postgres
streaming_archiver = on
streaming_archiver_name = {RECEIVER}
slot_name = {SLOT}
create_slot = manual
compression = zstd
immediate_checkpoint = true
minimum_redundancy = 0
check_timeout = 60
basebackup_retry_times = 0
staging_path = {config.data}/staging
staging_location = local
"""


def barman_command(config: Config, *arguments: str) -> list[str]:
    """Return the call of Barman, whose configuration is there then."""
    path = Path(os.environ.get("TMPDIR", "/tmp"), "barman.conf")  # noqa: S108 - a place of this container alone
    text = barman_config(config)
    if not path.exists() or path.read_text() != text:
        write_atomically(path, text)
    return ["barman", "-c", str(path), *arguments]


def barman(config: Config, *arguments: str, what: str, timeout: float | None = None) -> str:
    """Run Barman and return what it printed.

    Raises:
        StepError: it failed.
    """
    return execute(barman_command(config, *arguments), what, timeout=timeout).stdout


def connect(config: Config) -> t.Any:
    """Return a connection to the application's database, in autocommit mode.

    Raises:
        StepError: the server refuses the connection.
    """
    import psycopg2  # noqa: PLC0415 - the unit tests' Python has none

    try:
        connection = psycopg2.connect(conninfo(config, config.postgres["database"]), application_name="slipway-backup")
    except psycopg2.Error as error:
        raise StepError(f"PostgreSQL at {config.postgres['host']}:{config.postgres['port']}: {str(error).strip()}") from error
    connection.autocommit = True
    return connection


def ask(connection: t.Any, query: t.Any, parameters: t.Sequence[t.Any] | None = None) -> list[tuple[t.Any, ...]]:
    """Return the rows of a query.

    Raises:
        StepError: the server refuses it.
    """
    import psycopg2  # noqa: PLC0415 - see above

    try:
        with connection.cursor() as cursor:
            cursor.execute(query, parameters)
            return list(cursor.fetchall()) if cursor.description else []
    except psycopg2.Error as error:
        raise StepError(f"PostgreSQL refused: {str(error).strip()}") from error


def backups(config: Config) -> list[JSON]:
    """Return Barman's backups, oldest first.

    Each has ``id``, ``status``, ``parent`` (empty for a full one), ``system_id``, ``bytes``, ``begin_wal`` and ``segment_bytes``.
    Read from Barman's own descriptions, as asking it starts a program for each.
    """
    found = []
    for path in sorted((config.barman / SERVER / "meta").glob(f"*{INFO}")):
        info = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
        backup_id, parent = path.name.removesuffix(INFO), info.get("parent_backup_id", "None")
        found.append(
            {
                "id": backup_id,
                "status": info.get("status", ""),
                "parent": "" if parent == "None" else parent,
                "system_id": info.get("systemid", ""),
                "bytes": size_of(config.barman / SERVER / "base" / backup_id),
                "begin_wal": info.get("begin_wal", ""),
                "segment_bytes": int(info.get("xlog_segment_size", SEGMENT_BYTES)),
            }
        )
    return found


def chain_of(backup_id: str, known: t.Iterable[JSON]) -> list[str]:
    """Return the backups that one is put together from, the full one first."""
    parents = {backup["id"]: backup["parent"] for backup in known}
    chain = [backup_id]
    while parents.get(chain[0]):
        chain.insert(0, parents[chain[0]])
    return chain


def parent_for(known: t.Sequence[JSON], full_days: int, system_id: str, today: str) -> str:
    """Return the backup that the next one builds on; empty when it has to be a full one.

    Args:
        known: backups, oldest first.
        full_days: age in days from which a chain is not continued; 0 makes every backup a full one.
        system_id: the server's system identifier: backups of another cluster are no parents.
        today: the moment as Barman writes its identifiers, %Y%m%dT%H%M%S.
    """
    good = [backup for backup in known if backup["status"] == "DONE" and backup["system_id"] == system_id]
    if not good:
        return ""
    first = chain_of(good[-1]["id"], good)[0]
    age = time.mktime(time.strptime(today[:15], "%Y%m%dT%H%M%S")) - time.mktime(time.strptime(first[:15], "%Y%m%dT%H%M%S"))
    return str(good[-1]["id"]) if 0 <= age < full_days * 86400 else ""


def prune_superseded(config: Config, needed: t.Iterable[JSON]) -> list[str]:
    """Remove the ends of histories that were given up and that lead on from no point that is kept; return their names.

    Args:
        config: names the data.
        needed: what the manifests of the kept points say of PostgreSQL: ``timeline`` and ``wal``.
    """
    starts: dict[str, str] = {}
    for part in needed:
        timeline = f"{int(part['timeline']):08X}"
        starts[timeline] = min(starts.get(timeline, part["wal"]), part["wal"])
    removed = []
    for path in sorted((config.barman / SERVER / SUPERSEDED).glob("0*")):
        segment = path.name[:24]
        if segment < starts.get(segment[:8], "G"):
            path.unlink()
            removed.append(path.name)
    return removed


def identity_of(connection: t.Any) -> str:
    """Return the system identifier of the server's database cluster."""
    return str(ask(connection, "select system_identifier::text from pg_control_system()")[0][0])


def other_cluster(config: Config, connection: t.Any) -> str:
    """Return what to do where the server is another database cluster than the one whose backups are here; empty where it is the same.

    The two must not be mixed: segments of the same name would be each other's.
    """
    here = str(read_json(config.barman / SERVER / "identity.json", {}).get("systemid", ""))
    there = identity_of(connection)
    if not here or here == there:
        return ""
    return (
        f"PostgreSQL is another database cluster ({there}) than that of the existing points ({here}). Restore a point into it; "
        f"or, if the database was re-created on purpose, run playbooks/backup.yml -e backup_start_over={config.stack}, "
        "which moves the old points aside"
    )


def refuse_other_cluster(config: Config, connection: t.Any) -> None:
    """Refuse a server that is another database cluster.

    Raises:
        StepError: it is one.
    """
    if trouble := other_cluster(config, connection):
        raise StepError(trouble)


def database_bytes(connection: t.Any) -> int:
    """Return the size of all databases."""
    (size,) = ask(connection, "select sum(pg_database_size(oid))::bigint from pg_database where datallowconn")[0]
    return int(size)


def take_base_backup(config: Config, full: bool) -> JSON:
    """Take a base backup, block-incremental where the server offers it.

    Returns:
        ``backup_id``, ``chain``, ``bytes``, ``database_bytes``, ``seconds``, ``system_identifier``.

    Raises:
        StepError: it failed; nothing of it is left.
    """
    connection = connect(config)
    try:
        refuse_other_cluster(config, connection)
        system_id = identity_of(connection)
        size = database_bytes(connection)
        (summaries,) = ask(connection, "select coalesce(current_setting('summarize_wal', true), 'off')")[0]
    finally:
        connection.close()
    before = backups(config)
    refuse_old_clock(before, time.strftime("%Y%m%dT%H%M%S"))
    parent = ""
    gap = read_json(config.state / "wal.json", {}).get("gap", "")
    if not full and not gap and summaries == "on":
        parent = parent_for(before, int(config.postgres["full_days"]), system_id, time.strftime("%Y%m%dT%H%M%S"))
    prepare_wal(config)
    rate = busy_rate(config)
    # pg_basebackup knows kB.
    paced = ["--bwlimit", str(rate // 1000)] if rate else []
    slowly = f", at most {rate / 10**6:g} MB/s as the server is busy" if rate else ""
    began = time.monotonic()
    if parent:
        say(f"postgres: base backup, the blocks changed since {parent}{slowly}")
        try:
            barman(config, "backup", SERVER, *paced, "--incremental", parent, what="take an incremental base backup")
        except StepError as error:
            # A summary may be missing, as after a restore: take a full backup instead.
            say(f"postgres: {error}; taking a full one instead")
            remove_unknown(config, {backup["id"] for backup in before})
            parent = ""
    if not parent:
        say(f"postgres: full base backup{slowly}")
        try:
            barman(config, "backup", SERVER, *paced, what="take a base backup")
        except StepError:
            remove_unknown(config, {backup["id"] for backup in before})
            raise
    after = backups(config)
    new = [backup for backup in after if backup["id"] not in {old["id"] for old in before}]
    if not new or new[-1]["status"] not in {"DONE", "WAITING_FOR_WALS"}:
        remove_unknown(config, {backup["id"] for backup in before})
        raise StepError(f"the base backup failed: its status is {new[-1]['status'] if new else 'missing'}")
    return {
        "backup_id": new[-1]["id"],
        "chain": chain_of(new[-1]["id"], after),
        "bytes": new[-1]["bytes"],
        "database_bytes": size,
        "seconds": round(time.monotonic() - began, 1),
        "system_identifier": system_id,
    }


def refuse_old_clock(known: t.Sequence[JSON], today: str) -> None:
    """Refuse a base backup that would be the oldest by its identifier: Barman takes it for the first, and drops all WAL before it.

    Args:
        known: backups, oldest first.
        today: the moment as Barman writes its identifiers.

    Raises:
        StepError: the clock is wrong, or was when all others were made.
    """
    if known and today < known[0]["id"]:
        raise StepError(
            f"the clock of this host says {today}, before the oldest base backup {known[0]['id']}: set it. Barman would take the new one "
            "for the first, and drop the WAL of all others"
        )


def is_busy(connection: t.Any) -> bool:
    """Return whether clients keep the server busy more than half of the time."""
    query = """
    select exists (select from pg_stat_activity where state = 'active' and backend_type = 'client backend' and pid <> pg_backend_pid())
    """
    busy = 0
    for _unused in range(LOOKS):
        busy += ask(connection, query)[0][0]
        time.sleep(1 / LOOKS)
    return busy > LOOKS * BUSY_SHARE


def busy_rate(config: Config) -> int:
    """Return how many bytes a second may be read at most so that busy clients keep the server's disk and processors; 0 for no limit."""
    rate = int(config.postgres.get("busy_rate_mb", 0)) * 10**6
    if not rate:
        return 0
    connection = connect(config)
    try:
        return rate if is_busy(connection) else 0
    finally:
        connection.close()


def prepare_wal(config: Config) -> None:
    """Make sure that WAL streams and that a first segment has arrived; Barman refuses a backup before."""
    wait_for_receiver(config)
    if not any((config.barman / SERVER / "wals").glob("0*/0*")):
        barman(
            config, "switch-wal", "--force", "--archive", "--archive-timeout", "120", SERVER, what="fetch a first WAL segment", timeout=180
        )


def wait_for_receiver(config: Config, seconds: float = 60) -> None:
    """Wait until the server streams WAL to our slot.

    Raises:
        StepError: it does not; says what the server knows of the slot.
    """
    deadline = time.monotonic() + seconds
    connection = connect(config)
    try:
        while True:
            rows = ask(connection, "select active, wal_status from pg_replication_slots where slot_name = %s", [SLOT])
            if rows and rows[0][0] and rows[0][1] != "lost":
                return
            if time.monotonic() > deadline:
                slot = f"its slot is {rows[0][1] or 'new'} and not in use" if rows else "it has no slot"
                raise StepError(f"WAL is not streaming from PostgreSQL: {slot}; see the log of the backup container")
            time.sleep(0.5)
    finally:
        connection.close()


def in_order(known: t.Iterable[JSON]) -> bool:
    """Return whether backups with older identifiers also begin earlier in the WAL, as far as they are of one timeline."""
    last: dict[str, str] = {}
    for backup in known:
        wal = backup["begin_wal"] if backup["begin_wal"] != "None" else ""
        if wal and wal < last.get(wal[:8], ""):
            return False
        last[wal[:8]] = wal
    return True


def remove_unknown(config: Config, keep: t.Container[str]) -> list[str]:
    """Remove Barman's backups that nothing needs, newest first: one that others build on would take them along."""
    removed = []
    known = backups(config)
    home = config.barman / SERVER
    # Barman drops the WAL before what it takes for the next backup, going by the time in the names: after a clock that was wrong another
    # one may need that WAL. It goes with a later removal, when the order is right again.
    ordered = in_order(known)
    for backup in reversed(known):
        if backup["id"] not in keep:
            try:
                if ordered:
                    barman(config, "delete", SERVER, backup["id"], what=f"remove the base backup {backup['id']}")
            except StepError as error:
                # As on a full disk, where it cannot note what it is about to do.
                say(f"postgres: {error}; removing its files alone")
            shutil.rmtree(home / "base" / backup["id"], ignore_errors=True)
            (home / "meta" / f"{backup['id']}{INFO}").unlink(missing_ok=True)
            removed.append(str(backup["id"]))
    return removed


def count_tables(connection: t.Any) -> JSON:
    """Return for each table of the application its rows and its newest moment, as the open transaction sees them.

    A table that takes longer than COUNT_SECONDS has null for both. The moment is the greatest of the first column that holds
    one; a table without such a column is counted only.
    """
    from psycopg2 import sql  # noqa: PLC0415 - see above

    tables = ask(
        connection,
        """
        select nspname, relname, (
          select attname from pg_attribute
          where attrelid = pg_class.oid and attnum > 0 and not attisdropped
            and atttypid in ('timestamptz'::regtype, 'timestamp'::regtype)
          order by attnum limit 1
        )
        from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where relkind = 'r' and relpersistence = 'p' and nspname !~ '^pg_' and nspname <> 'information_schema'
          and not exists (select from pg_depend where classid = 'pg_class'::regclass and objid = pg_class.oid and deptype = 'e')
        order by nspname, relname
        """,
    )
    counted: JSON = {}
    for schema, table, column in tables:
        newest = sql.SQL("max({})::text").format(sql.Identifier(column)) if column else sql.SQL("null")
        query = sql.SQL("select count(*), {} from {}").format(newest, sql.Identifier(schema, table))
        ask(connection, "savepoint count")
        try:
            rows, latest = ask(connection, query)[0]
        except StepError as error:
            say(f"postgres: {schema}.{table} is not counted: {error}")
            rows = latest = None
            ask(connection, "rollback to savepoint count")
        counted[f"{schema}.{table}"] = {"rows": rows, "newest": latest, "column": column}
    return counted


def mark_by_name(config: Config, name: str) -> JSON:
    """Make a restore point in the WAL, as before a migration.

    Returns:
        ``name``, ``moment`` by the server's clock, to which a restore can go back, ``lsn``, and ``restorable``: whether there is a base
        backup from which one can begin.

    Raises:
        StepError: the server is away or refuses.
    """
    connection = connect(config)
    try:
        ((moment, lsn),) = ask(
            connection,
            "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US+00:00'), pg_create_restore_point(%s)::text",
            [name],
        )
        restorable = any(found["status"] in {"DONE", "WAITING_FOR_WALS"} for found in backups(config))
        return {"name": name, "moment": moment, "lsn": lsn, "restorable": restorable}
    finally:
        connection.close()


def mark_moment(config: Config, name: str) -> JSON:
    """Make a restore point in the WAL, and count what the database holds at it.

    The rows are counted in a snapshot taken just before the restore point. Where no transaction is in progress, and none has
    begun when the restore point is made, both show the same rows; such a moment is looked for a short while.

    Returns:
        The part of the manifest that describes the moment.

    Raises:
        StepError: the server is away or refuses.
    """
    reader, writer = connect(config), connect(config)
    try:
        began = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            restore_point = f"slipway-{name}-{attempt}"
            ask(reader, "begin isolation level repeatable read read only")
            before = Snapshot.parse(ask(reader, "select pg_current_snapshot()::text")[0][0])
            last = attempt >= QUIET_ATTEMPTS or time.monotonic() - began > QUIET_SECONDS
            if last or not ask(writer, ACTIVE):
                (lsn,) = ask(writer, "select pg_create_restore_point(%s)::text", [restore_point])[0]
                # In this order: what ends between the two is in the snapshot.
                active = [int(row[0]) for row in ask(writer, ACTIVE)]
                flights = in_flight(before, Snapshot.parse(ask(writer, "select pg_current_snapshot()::text")[0][0]), active)
                if last or flights == 0:
                    break
            ask(reader, "rollback")
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311 - only to not keep step with a writer
        (wal, timeline) = ask(writer, "select pg_walfile_name(%s::pg_lsn), timeline_id from pg_control_checkpoint()", [lsn])[0]
        ask(reader, f"set local statement_timeout = '{COUNT_SECONDS}s'")
        # One processor is enough: no client waits for this.
        ask(reader, "set local max_parallel_workers_per_gather = 0")
        tables = count_tables(reader)
        head = ""
        if config.postgres.get("migration_query"):
            head = ",".join(sorted(str(row[0]) for row in ask(reader, config.postgres["migration_query"])))
        ask(reader, "rollback")
        (version, number) = ask(writer, "select current_setting('server_version'), current_setting('server_version_num')::int")[0]
        return {
            "version": str(version).split()[0],
            "major": number // 10000,
            "timeline": timeline,
            "restore_point": restore_point,
            "lsn": lsn,
            "wal": wal,
            "exact": flights == 0,
            "in_flight": flights,
            "snapshot": f"{before.xmin}:{before.xmax}:{','.join(map(str, before.running))}",
            "migration_head": head,
            "databases": {config.postgres["database"]: tables},
        }
    finally:
        reader.close()
        writer.close()


def clock(config: Config) -> datetime:
    """Return what time it is by the server's clock.

    Raises:
        StepError: the server is away.
    """
    connection = connect(config)
    try:
        return t.cast("datetime", ask(connection, "select clock_timestamp()")[0][0])
    finally:
        connection.close()


def archived(config: Config, wal: str) -> Path:
    """Return where Barman keeps a WAL segment."""
    return config.barman / SERVER / "wals" / wal[:16] / wal


def collect_wal(config: Config, wal: str, backup_id: str) -> None:
    """Wait until a WAL segment has arrived and is archived, and with it all that a base backup needs.

    Raises:
        StepError: it does not arrive.
    """
    deadline = time.monotonic() + WAL_SECONDS
    connection = connect(config)
    try:
        ask(connection, "select pg_switch_wal()")
        # Barman leaves the last segment alone until the next one has begun; an idle server takes up to a quarter of a minute to do so.
        ask(connection, "select pg_create_restore_point('slipway-collected')")
    finally:
        connection.close()
    while not archived(config, wal).exists():
        if time.monotonic() > deadline:
            raise StepError(f"the WAL segment {wal} has not arrived after {WAL_SECONDS} s")
        # Asked only when there is something: starting Barman takes longer than a segment does to arrive.
        if (config.barman / SERVER / "streaming" / wal).exists():
            barman(config, "archive-wal", SERVER, what="archive WAL")
        time.sleep(0.1)
    # Makes Barman check the backup, which then counts as done, so that the next one can build on it.
    barman(config, "check-backup", SERVER, backup_id, what=f"check the base backup {backup_id}")
    status = next((backup["status"] for backup in backups(config) if backup["id"] == backup_id), "missing")
    if status != "DONE":
        raise StepError(f"the base backup {backup_id} is {status}")


def dump(config: Config, folder: Path) -> JSON:
    """Write a logical dump of the application's database, which another major version can read too.

    Returns:
        Seconds and bytes by database.
    """
    database = str(config.postgres["database"])
    target = folder / "postgres" / "dump" / database.replace("/", "_")
    target.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    execute(
        [
            "pg_dump",
            "--format=directory",
            "--compress=zstd",
            f"--jobs={DUMP_JOBS}",
            f"--file={target}",
            f"--dbname={conninfo(config, database)}",
        ],
        "write a logical dump",
    )
    return {database: {"folder": str(target.relative_to(folder)), "bytes": size_of(target), "seconds": round(time.monotonic() - began, 1)}}


def wal_status(config: Config) -> JSON:
    """Return how WAL streams, as far as the server says: ``streaming``, ``slot``, ``behind_bytes``, ``synchronous``, ``error``."""
    remembered = read_json(config.state / "wal.json", {})
    status: JSON = {
        "streaming": False,
        "slot": "",
        "behind_bytes": None,
        "synchronous": False,
        "clock_ahead_s": None,
        "gap": remembered.get("gap", ""),
        "error": "",
    }
    try:
        connection = connect(config)
    except StepError as error:
        return {**status, "error": str(error)}
    try:
        if trouble := other_cluster(config, connection):
            return {**status, "error": trouble}
        rows = ask(
            connection,
            """
            select slots.active, slots.wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(write_lsn, restart_lsn))::bigint,
              coalesce(sync_state in ('sync', 'quorum'), false), slots.safe_wal_size, clock_timestamp()
            from pg_replication_slots as slots left join pg_stat_replication on pid = active_pid
            where slot_name = %s
            """,
            [SLOT],
        )
    except StepError as error:
        return {**status, "error": str(error)}
    finally:
        connection.close()
    if not rows:
        return {**status, "error": f"the server has no slot {SLOT}"}
    active, slot, behind, synchronous, room, there = rows[0]
    return {
        **status,
        "streaming": bool(active),
        "slot": slot,
        "behind_bytes": behind,
        "synchronous": synchronous,
        "room_bytes": room,
        "clock_ahead_s": round((now() - there).total_seconds(), 1),
    }


def remember_gap(config: Config, moment: t.Any) -> None:
    """Note that WAL was lost, so that the next base backup is a full one and the report says it."""
    state = read_json(config.state / "wal.json", {})
    write_json(config.state / "wal.json", {**state, "gap": stamp(moment) if moment else ""})
