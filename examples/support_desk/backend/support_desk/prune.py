"""Delete conversations that were not continued for long: `python -m support_desk.prune --days 90`. Their messages go with them."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError

from support_desk.commands import failed
from support_desk.database import Database
from support_desk.models import Session, now
from support_desk.settings import SettingsError, load_settings


async def prune(database: Database, days: int) -> int:
    """Delete sessions that were last changed so many days ago, and return how many."""
    async with database.sessions() as session, session.begin():
        result = await session.execute(delete(Session).where(Session.updated_at < now() - timedelta(days=days)))
    return int(result.rowcount)  # type: ignore[attr-defined]


async def _run(days: int) -> int:
    database = Database(load_settings(needs_secret_key=False).database_url)
    try:
        return await prune(database, days)
    finally:
        await database.close()


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m support_desk.prune", description=__doc__)
    parser.add_argument("--days", type=int, default=90, help="days without a change, by default 90, at least 1")
    arguments = parser.parse_args()
    if arguments.days < 1:
        parser.error("--days must be at least 1")
    try:
        deleted = asyncio.run(_run(arguments.days))
    except (SettingsError, SQLAlchemyError) as error:
        return failed("prune", error)
    sys.stdout.write(f"{deleted} sessions deleted\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
