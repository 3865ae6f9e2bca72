"""Delete conversations that were not continued for long: `python -m support_desk.prune --days 90`. Their messages go with them."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError

from support_desk.database import Database
from support_desk.models import Session, now
from support_desk.settings import SettingsError, exit_for_settings, load_settings


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
    except SettingsError as error:
        return exit_for_settings("prune", error)
    except SQLAlchemyError as error:
        sys.stderr.write(f"support_desk cannot prune: {str(getattr(error, 'orig', None) or error).strip().splitlines()[0]}\n")
        return 1
    sys.stdout.write(f"{deleted} sessions deleted\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
