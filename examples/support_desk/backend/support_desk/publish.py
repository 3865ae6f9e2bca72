"""Publish an article: `python -m support_desk.publish --title "Working offline" --keywords "plane train" --body "…"`.

The article is kept in the database and named in a queue in Redis; a worker (`support_desk.worker`) makes it searchable. One with the same
title takes the place of the one before.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys

from sqlalchemy.exc import SQLAlchemyError

from support_desk.commands import failed
from support_desk.database import Database
from support_desk.knowledge import Article
from support_desk.models import PublishedArticle, now
from support_desk.settings import SettingsError, load_settings
from support_desk.shared import NEW_ARTICLES, Store

TITLE_LENGTH = 120


def slug_of(title: str) -> str:
    """Return the name of an article, as its address would show it.

    Raises:
        ValueError: the title is longer than its column, or has no letter and no digit.
    """
    if len(title) > TITLE_LENGTH:
        raise ValueError(f"the title has more than {TITLE_LENGTH} characters")
    slug = re.sub(r"[^a-z0-9]+", "-", title.casefold()).strip("-")[:80]
    if not slug:
        raise ValueError(f"title {title!r} has no letter and no digit")
    return slug


async def publish(database: Database, store: Store, article: Article) -> bool:
    """Keep an article, and queue it. Returns false where the queue did not answer: workers then find it in the database, later."""
    async with database.sessions() as session, session.begin():
        await session.merge(
            PublishedArticle(
                slug=article.slug,
                title=article.title,
                keywords=article.keywords,
                body=article.body,
                published_at=now(),
                embedded_at=None,
            )
        )
    queued, _ = await store.run(lambda redis: redis.rpush(NEW_ARTICLES, article.slug))
    return queued


async def _run(article: Article) -> bool:
    settings = load_settings(needs_secret_key=False)
    database, store = Database(settings.database_url), Store(settings.redis_url)
    try:
        return await publish(database, store, article)
    finally:
        await store.close()
        await database.close()


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m support_desk.publish", description=__doc__)
    parser.add_argument("--title", required=True, help=f"at most {TITLE_LENGTH} characters")
    parser.add_argument("--keywords", default="", help="words that people use for it and that its text does not")
    parser.add_argument("--body", required=True)
    arguments = parser.parse_args()
    try:
        slug = slug_of(arguments.title)
        queued = asyncio.run(_run(Article(slug, arguments.title, arguments.keywords, arguments.body)))
    except (SettingsError, SQLAlchemyError, ValueError) as error:
        return failed("publish", error)
    sys.stdout.write(f"{slug}: published, {'queued' if queued else 'to be found by a worker within a minute, as Redis does not answer'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
