"""Bring database and knowledge base to this version: `python -m support_desk.migrate`.

Runs once a release, before the new version starts and while the one before still serves. DATABASE_URL names the owner
of the tables. Running it again changes nothing; two at once wait for each other.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from support_desk.commands import failed, reason
from support_desk.database import AWAY, Database, SchemaBehindError
from support_desk.knowledge import Article, KnowledgeAwayError, open_knowledge, packaged_articles
from support_desk.models import PublishedArticle
from support_desk.settings import SettingsError, load_settings


class MigrationError(Exception):
    """The migration did not happen; the text says which part and why."""


async def _patiently[Result](
    what: str, seconds: float, retried: tuple[type[Exception], ...], act: Callable[[], Awaitable[Result]]
) -> Result:
    """Try until it works or the time is over: stores may still be starting."""
    deadline = time.monotonic() + seconds
    told = False
    while True:
        try:
            return await act()
        except retried as error:
            why = reason(error)
            # Waiting helps with a server that starts, not with a password.
            if "authentication failed" in why or time.monotonic() >= deadline:
                raise MigrationError(f"{what}: {why}") from error
            if not told:
                sys.stdout.write(f"{what} does not answer yet, waiting up to {seconds:.0f} s\n")
                sys.stdout.flush()
                told = True
            await asyncio.sleep(1.0)


async def published_articles(database: Database) -> list[Article]:
    """Return the articles that were published after a release, except where the package has one of the same name by now."""
    packaged = {article.slug for article in packaged_articles()}
    async with database.sessions() as session:
        found = await session.scalars(select(PublishedArticle))
        return [Article(item.slug, item.title, item.keywords, item.body) for item in found if item.slug not in packaged]


async def migrate(wait_seconds: float) -> None:
    """Migrate the database, then load the articles.

    Raises:
        SettingsError: the environment cannot be used.
        MigrationError: a store did not answer in time, or refused.
    """
    settings = load_settings(needs_secret_key=False)
    database = Database(settings.database_url)
    knowledge = open_knowledge(settings.chroma_url)
    try:
        await _patiently("database", wait_seconds, AWAY, database.ping)
        async with database.migration_lock() as connection:
            sys.stdout.write(f"database: at revision {await database.upgrade(connection)}\n")
            if settings.chroma_url is None:
                sys.stdout.write("knowledge base: CHROMA_URL is not set, nothing to load\n")
                return
            articles = [*packaged_articles(), *await published_articles(database)]
            result = await _patiently("knowledge base", wait_seconds, (KnowledgeAwayError,), lambda: knowledge.load(articles))
        sys.stdout.write(
            f"knowledge base: {result.total} articles, {result.written} written, {result.removed} removed, version {result.version}\n"
        )
    except (SQLAlchemyError, SchemaBehindError) as error:
        raise MigrationError(f"database: {reason(error)}") from error
    finally:
        await knowledge.close()
        await database.close()


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m support_desk.migrate", description=__doc__)
    parser.add_argument("--wait", type=float, default=30.0, metavar="SECONDS", help="how long to wait for each store")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    try:
        asyncio.run(migrate(arguments.wait))
    except (SettingsError, MigrationError) as error:
        return failed("migrate", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
