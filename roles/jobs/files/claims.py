# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs a job for which moment: a row for each, in SQLite.

The row is unique, so a moment is claimed once, whatever happens to the program that claimed it. A run gives signs of life in its row;
one that has given none for a while does not prevent the next one.
"""

from __future__ import annotations

import contextlib
import sqlite3
import typing as t

if t.TYPE_CHECKING:
    from pathlib import Path

JSON = dict[str, t.Any]

CLAIMED, TAKEN, BUSY = "claimed", "another host has it", "the run before has not ended"
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
OTHERS = "select 1 from runs where job = ? and moment <> ? and ended is null and alive > ?"


class ClaimError(Exception):
    """The claims cannot be read or written."""


class Claims:
    """The claims of a stack's jobs."""

    def __init__(self, config: JSON, folder: Path) -> None:
        """Take what the role rendered.

        Args:
            config: jobs.json.
            folder: the folder of the stack's jobs.
        """
        self.host, self.folder = str(config["host"]), folder

    @contextlib.contextmanager
    def _transaction(self) -> t.Iterator[tuple[t.Any, float]]:
        """Be alone with the rows; yields a cursor and the time.

        Raises:
            ClaimError: the database does not answer, or refuses.
        """
        self.folder.joinpath("state").mkdir(parents=True, exist_ok=True)
        try:
            connection = sqlite3.connect(self.folder / "state" / "claims.sqlite", isolation_level=None, timeout=30)
            with contextlib.closing(connection):
                cursor = connection.cursor()
                cursor.execute("begin immediate")
                cursor.execute(TABLE)
                yield cursor, float(cursor.execute("select (julianday('now') - 2440587.5) * 86400").fetchone()[0])
                cursor.execute("commit")
        except sqlite3.Error as error:
            raise ClaimError(f"the claims of jobs cannot be read: {error}") from error

    def claim(self, job: str, moment: int, concurrency: str) -> str:
        """Claim a moment of a job; return CLAIMED, or why not."""
        with self._transaction() as (cursor, now):
            if self._row(cursor, "select 1 from runs where job = ? and moment = ?", job, moment):
                return TAKEN
            cursor.execute(LOST, (job, now - LEASE_SECONDS))
            cursor.execute("delete from runs where job = ? and moment < ?", (job, moment - KEPT_SECONDS))
            busy = concurrency == "forbid" and self._row(cursor, OTHERS, job, moment, now - LEASE_SECONDS)
            cursor.execute(
                "insert into runs (job, moment, host, alive, ended, result) values (?, ?, ?, ?, ?, ?)",
                (job, moment, self.host, now, now if busy else None, "skipped" if busy else None),
            )
            if concurrency == "replace":
                cursor.execute("update runs set stop = 1 where job = ? and moment <> ? and ended is null", (job, moment))
            return BUSY if busy else CLAIMED

    def is_replaced(self, job: str, moment: int) -> bool:
        """Give a sign of life; return whether another run takes this one's place."""
        with self._transaction() as (cursor, now):
            cursor.execute("update runs set alive = ? where job = ? and moment = ?", (now, job, moment))
            return bool((self._row(cursor, "select stop from runs where job = ? and moment = ?", job, moment) or [0])[0])

    def others_run(self, job: str, moment: int) -> bool:
        """Give a sign of life; return whether other runs of the job have not ended."""
        with self._transaction() as (cursor, now):
            cursor.execute("update runs set alive = ? where job = ? and moment = ?", (now, job, moment))
            return bool(self._row(cursor, OTHERS, job, moment, now - LEASE_SECONDS))

    def end(self, job: str, moment: int, result: str) -> None:
        """Note the end of a run, and what came of it."""
        with self._transaction() as (cursor, now):
            cursor.execute("update runs set ended = ?, result = ? where job = ? and moment = ?", (now, result, job, moment))

    @staticmethod
    def _row(cursor: t.Any, query: str, *values: t.Any) -> t.Any:
        """Return the first row of a query, or None."""
        cursor.execute(query, values)
        return cursor.fetchone()
