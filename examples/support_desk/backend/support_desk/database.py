"""The engine, and what readiness wants to know about the database."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

MIGRATIONS = Path(__file__).parent / "migrations"
# What the driver and the pool raise when the server is away, rather than when a statement is wrong.
AWAY = (OperationalError, InterfaceError, PoolTimeoutError)
# Any number, as long as nothing else in this database takes the same.
MIGRATION_LOCK = 7_041_776_201
MIGRATION_LOCK_SECONDS = 120


class SchemaBehindError(Exception):
    """The database answers, but its tables are older than this version of the application."""


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


class Database:
    """Connections of one application process."""

    def __init__(self, url: URL) -> None:
        """Prepare the pool; nothing is connected yet."""
        options: dict[str, object] = {"pool_pre_ping": True}
        if url.get_backend_name() == "postgresql":
            options |= {"pool_size": 5, "max_overflow": 5, "pool_timeout": 5, "pool_recycle": 1800}
            options["connect_args"] = {"connect_timeout": 3, "application_name": "support_desk"}
        self.engine: AsyncEngine = create_async_engine(url, **options)
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(self.engine, expire_on_commit=False)
        if url.get_backend_name() == "sqlite":
            # SQLite ignores foreign keys unless asked, once a connection.
            event.listen(self.engine.sync_engine, "connect", _enforce_foreign_keys)
        self._known = [script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions()]

    async def schema(self) -> str:
        """Return the revision of the tables.

        A revision that this version does not know belongs to a newer release, whose migrations keep older versions
        working: during a release, and after a rollback, both run on it.

        Raises:
            SchemaBehindError: the tables are missing or older than this version needs.
        """
        async with self.engine.connect() as connection:
            try:
                revision = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
            except (ProgrammingError, OperationalError) as error:
                if "alembic_version" not in str(error.orig):
                    raise
                revision = None
        if revision is None or (revision in self._known and revision != self._known[0]):
            raise SchemaBehindError(f"schema {revision or 'missing'}, needs {self._known[0]}")
        return str(revision)

    async def ping(self) -> None:
        """Ask for the simplest thing; raises what the driver raises."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    @contextlib.asynccontextmanager
    async def migration_lock(self) -> AsyncIterator[AsyncConnection]:
        """Hand over a connection while no other process migrates this database."""
        async with self.engine.connect() as connection:
            postgres = connection.dialect.name == "postgresql"
            if postgres:
                await connection.execute(text(f"SET lock_timeout = '{MIGRATION_LOCK_SECONDS}s'"))
                await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
                # While a change waits for a table, every query on it waits behind: give up soon instead.
                await connection.execute(text("SET lock_timeout = '10s'"))
                await connection.commit()
            try:
                yield connection
            finally:
                if postgres:
                    # Closed rather than returned: its end frees the lock, whatever state it is in.
                    await connection.invalidate()

    async def upgrade(self, connection: AsyncConnection) -> str:
        """Bring the tables to the newest revision this version knows, and return the one they are at.

        A database that a newer release migrated stays as it is: a rollback must not undo what was added.
        """
        await connection.run_sync(self._upgrade)
        await connection.commit()
        return await self.schema()

    def _upgrade(self, connection: Connection) -> None:
        current = MigrationContext.configure(connection).get_current_revision()
        if current is None or current in self._known:
            config = _alembic()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    async def close(self) -> None:
        """Give the connections back."""
        await self.engine.dispose()


def _enforce_foreign_keys(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
