# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs a job for which moment: a row for each, in PostgreSQL for several hosts, or in SQLite for one.

The row is unique, so a moment is claimed once, whatever happens to the program that claimed it. A run gives signs of life in its row;
one that has given none for a while does not prevent the next one.
"""

from __future__ import annotations

import contextlib
import sqlite3
import typing as t
import uuid

from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError

if t.TYPE_CHECKING:
    from pathlib import Path

JSON = dict[str, t.Any]

CLAIMED, TAKEN, BUSY, LATE = "claimed", "another host has it", "the run before has not ended", "a later run has begun"
#: Seconds after its last sign of life for which a run counts as running.
LEASE_SECONDS = 60
#: Seconds for which ended runs are kept.
KEPT_SECONDS = 90 * 86400
TABLE = """
create table if not exists runs (
  job text not null,
  moment bigint not null,
  host text not null,
  alive double precision not null,
  ended double precision,
  result text,
  stop integer not null default 0,
  primary key (job, moment)
)
"""
LOST = "update runs set ended = alive, result = 'lost' where job = ? and ended is null and alive <= ?"
END = "update runs set ended = ?, result = ? where job = ? and moment = ? and (ended is null or result = 'lost')"
OTHERS = "select 1 from runs where job = ? and moment <> ? and ended is null and alive > ?"
LATER = OTHERS.replace("<>", ">")


class ClaimError(Exception):
    """The claims cannot be read or written."""


class Rows:
    """The table in a transaction, whichever database holds it."""

    def __init__(self, cursor: t.Any, placeholder: str) -> None:
        """Take a cursor, and what stands for a value in its queries."""
        self._cursor, self._placeholder = cursor, placeholder

    def execute(self, query: str, *values: t.Any) -> None:
        """Run a query with a value for each question mark."""
        self._cursor.execute(query.replace("?", self._placeholder), values)

    def first(self, query: str, *values: t.Any) -> t.Any:
        """Return the first row of a query, or None."""
        self.execute(query, *values)
        return self._cursor.fetchone()


class Claims:
    """The claims of a stack's jobs."""

    def __init__(self, config: JSON, folder: Path) -> None:
        """Take what the role rendered.

        Args:
            config: jobs.json.
            folder: the folder of the stack's jobs.
        """
        self.folder = folder
        # An attempt whose answer was lost on its way is known by this, and made again.
        self.claimant = f"{config['host']} {uuid.uuid4().hex}"
        self.postgres: JSON = config["postgres"]
        self.container, self.network = str(config["postgres_container"]), str(config["postgres_network"])

    @contextlib.contextmanager
    def _transaction(self) -> t.Iterator[tuple[Rows, float]]:
        """Be alone with the rows; yields them, and the time of the database.

        Raises:
            ClaimError: the database does not answer, or refuses.
        """
        with contextlib.ExitStack() as stack:
            rows, clock = stack.enter_context(self._in_postgres() if self.postgres else self._in_sqlite())
            rows.execute(TABLE)
            yield rows, float(rows.first(clock)[0])

    @contextlib.contextmanager
    def _in_sqlite(self) -> t.Iterator[tuple[Rows, str]]:
        """Begin a transaction of a file."""
        try:
            self.folder.joinpath("state").mkdir(exist_ok=True)
            with contextlib.closing(
                sqlite3.connect(self.folder / "state" / "claims.sqlite", isolation_level=None, timeout=30)
            ) as connection:
                cursor = connection.cursor()
                cursor.execute("begin immediate")
                yield Rows(cursor, "?"), "select (julianday('now') - 2440587.5) * 86400"
                cursor.execute("commit")
        except (sqlite3.Error, OSError) as error:
            raise ClaimError(f"the claims of jobs cannot be read: {error}") from error

    @contextlib.contextmanager
    def _in_postgres(self) -> t.Iterator[tuple[Rows, str]]:
        """Begin a transaction of the product's database."""
        import psycopg2  # noqa: PLC0415 - where several hosts have jobs

        try:
            password = (self.folder / "secrets" / "postgres_password").read_text()
            known = {
                **self.postgres,
                "password": password,
                "host": self._address(),
                "connect_timeout": 5,
                "application_name": "slipway_jobs",
            }
            options = "-c statement_timeout=30000 -c search_path=slipway_jobs"
            with contextlib.closing(psycopg2.connect(**known, options=options)) as connection:
                cursor = connection.cursor()
                cursor.execute("select pg_advisory_xact_lock(hashtext('slipway_jobs'))")
                yield Rows(cursor, "%s"), "select extract(epoch from clock_timestamp())"
                connection.commit()
        except (psycopg2.Error, OSError, EngineError) as error:
            raise ClaimError(f"the claims of jobs cannot be read from PostgreSQL: {str(error).strip()}") from error

    def _address(self) -> str:
        """Return the address of the server: that of its container where that is on this host."""
        inspected = Engine().inspect(self.container) if self.container else None
        networks = inspected["NetworkSettings"]["Networks"] if inspected else {}
        return str(networks.get(self.network, {}).get("IPAddress") or self.postgres["host"])

    def claim(self, job: str, moment: int, concurrency: str) -> str:
        """Claim a moment of a job, until it is answered; return CLAIMED, or why not."""
        with self._transaction() as (rows, now):
            rows.execute("delete from runs where job = ? and moment = ? and host = ?", job, moment, self.claimant)
            if rows.first("select 1 from runs where job = ? and moment = ?", job, moment):
                return TAKEN
            rows.execute(LOST, job, now - LEASE_SECONDS)
            rows.execute("delete from runs where job = ? and moment < ?", job, moment - KEPT_SECONDS)
            prevents = {"forbid": (OTHERS, BUSY), "replace": (LATER, LATE)}.get(concurrency)
            prevented = prevents and rows.first(prevents[0], job, moment, now - LEASE_SECONDS)
            rows.execute(
                "insert into runs (job, moment, host, alive, ended, result) values (?, ?, ?, ?, ?, ?)",
                job,
                moment,
                self.claimant,
                now,
                now if prevented else None,
                "skipped" if prevented else None,
            )
            if prevents and prevented:
                return prevents[1]
            if concurrency == "replace":
                rows.execute("update runs set stop = 1 where job = ? and moment < ? and ended is null", job, moment)
            return CLAIMED

    def is_replaced(self, job: str, moment: int) -> bool:
        """Give a sign of life; return whether another run takes this one's place."""
        with self._transaction() as (rows, now):
            rows.execute("update runs set alive = ? where job = ? and moment = ?", now, job, moment)
            return bool((rows.first("select stop from runs where job = ? and moment = ?", job, moment) or [0])[0])

    def others_run(self, job: str, moment: int) -> bool:
        """Give a sign of life; return whether other runs of the job have not ended."""
        with self._transaction() as (rows, now):
            rows.execute("update runs set alive = ? where job = ? and moment = ?", now, job, moment)
            return bool(rows.first(OTHERS, job, moment, now - LEASE_SECONDS))

    def end(self, job: str, moment: int, result: str) -> None:
        """Note the end of a run, and what came of it, unless that is known."""
        with self._transaction() as (rows, now):
            rows.execute(END, now, result, job, moment)
