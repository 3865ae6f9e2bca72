"""Make published articles searchable: `python -m support_desk.worker`.

Waits for names of articles in a queue in Redis, and puts each into the knowledge base. What the queue lost is found in the database. On
SIGTERM, the article at hand is finished first. Several workers may run at once: putting an article twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import select, update

from support_desk.commands import failed
from support_desk.database import AWAY, Database
from support_desk.knowledge import Article, Knowledge, KnowledgeAwayError, open_knowledge
from support_desk.models import PublishedArticle, now
from support_desk.settings import SettingsError, load_settings
from support_desk.shared import NEW_ARTICLES, Store

log = logging.getLogger("support_desk.worker")

#: Seconds between two looks into the database for articles that no queue named, and for which one wait for the queue lasts.
SWEEP_SECONDS = 60.0
QUEUE_SECONDS = 1
#: Seconds until a store that was away is asked again.
AWAY_SECONDS = 2.0
#: Touched while it goes on, at least every few seconds: a health check looks how old it is.
ALIVE = Path(tempfile.gettempdir()) / "support_desk_worker"


class Worker:
    """Takes articles from the queue, one after the other."""

    def __init__(self, database: Database, store: Store, knowledge: Knowledge) -> None:
        """Take the stores; nothing is asked yet."""
        self._database = database
        self._store = store
        self._knowledge = knowledge
        self._swept_at = 0.0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Finish the article at hand, then end."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop` is called."""
        while not self._stopping.is_set():
            ALIVE.touch()
            try:
                for slug in await self._next():
                    await self.embed(slug)
                    ALIVE.touch()
            except (KnowledgeAwayError, *AWAY) as error:
                log.warning("a store is away (%s), trying again", type(error).__name__)
                # Whatever was taken from the queue is found in the database.
                self._swept_at = 0.0
                await self._pause(AWAY_SECONDS)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _next(self) -> list[str]:
        """Return the names of articles that wait, after a second at the latest."""
        if time.monotonic() - self._swept_at >= SWEEP_SECONDS:
            waiting = await self.waiting()
            self._swept_at = time.monotonic()
            if waiting:
                return waiting
        answered, taken = await self._store.run(lambda redis: redis.blpop([NEW_ARTICLES], timeout=QUEUE_SECONDS))
        if not answered:
            await self._pause(QUEUE_SECONDS)
        return [taken[1]] if taken else []

    async def waiting(self) -> list[str]:
        """Return the articles that are not searchable yet, the oldest first."""
        query = select(PublishedArticle.slug).where(PublishedArticle.embedded_at.is_(None)).order_by(PublishedArticle.published_at)
        async with self._database.sessions() as session:
            return list(await session.scalars(query))

    async def embed(self, slug: str) -> None:
        """Make one article searchable."""
        async with self._database.sessions() as session:
            found = await session.get(PublishedArticle, slug)
        if found is None:
            return
        await self._knowledge.add(Article(found.slug, found.title, found.keywords, found.body))
        # Not where it was published again in the meantime: that text waits in the queue.
        done = update(PublishedArticle).where(PublishedArticle.slug == slug, PublishedArticle.published_at == found.published_at)
        async with self._database.sessions() as session, session.begin():
            await session.execute(done.values(embedded_at=now()))
        log.info("article %s can be found", slug)


async def _run() -> None:
    settings = load_settings(needs_secret_key=False)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stdout)
    for name in ("httpx", "httpcore", "chromadb"):
        logging.getLogger(name).setLevel(logging.WARNING)
    database, store, knowledge = Database(settings.database_url), Store(settings.redis_url), open_knowledge(settings.chroma_url)
    worker = Worker(database, store, knowledge)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)
    log.info("version %s on %s, waiting for articles", settings.app_version, settings.instance)
    try:
        await worker.run()
    finally:
        await knowledge.close()
        await store.close()
        await database.close()
    log.info("stopped")


def main() -> int:
    """Run the worker; returns its exit status."""
    try:
        asyncio.run(_run())
    except SettingsError as error:
        return failed("work", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
