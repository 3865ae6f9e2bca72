from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from conftest import RedisServer, migrate
from support_desk.database import Database
from support_desk.knowledge import Article, KnowledgeAwayError, LocalKnowledge
from support_desk.migrate import published_articles
from support_desk.models import Message, Session, now
from support_desk.prune import prune
from support_desk.publish import publish, slug_of
from support_desk.settings import load_settings
from support_desk.shared import NEW_ARTICLES, Store
from support_desk.worker import Worker

OFFLINE = Article(
    "working-offline", "Working offline", "aeroplane train tunnel", "Open the page once, and it goes on working in an aeroplane."
)


class Away(LocalKnowledge):
    """A knowledge base that does not answer at first."""

    failures = 2

    async def add(self, article: Article) -> None:
        if self.failures:
            self.failures -= 1
            raise KnowledgeAwayError("refused")
        await super().add(article)


@contextlib.asynccontextmanager
async def opened(url: str, redis_url: str | None) -> AsyncIterator[tuple[Database, Store]]:
    database, store = Database(load_settings({"DATABASE_URL": url}).database_url), Store(redis_url)
    yield database, store
    await store.close()
    await database.close()


async def found(knowledge: LocalKnowledge) -> list[str]:
    return [hit.slug for hit in await knowledge.search("can I use it in an aeroplane", 1)]


@contextlib.asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[None]:
    task = asyncio.create_task(worker.run())
    yield
    worker.stop()
    await asyncio.wait_for(task, 10)


async def until_embedded(worker: Worker) -> None:
    async with asyncio.timeout(20):
        while await worker.waiting():
            await asyncio.sleep(0.05)


@pytest.fixture(params=["queued", "lost by the queue"])
def redis_of_case(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("redis_url") if request.param == "queued" else None


async def test_a_published_article_is_found_by_its_words(sqlite_url: str, redis_of_case: str | None) -> None:
    await asyncio.to_thread(migrate, sqlite_url)
    knowledge = LocalKnowledge()
    async with opened(sqlite_url, redis_of_case) as (database, store):
        worker = Worker(database, store, knowledge)
        if redis_of_case:
            # It sweeps the empty database first, so that only the queue can name the article.
            async with working(worker):
                await asyncio.sleep(0.2)
                assert await publish(database, store, OFFLINE)
                await until_embedded(worker)
        else:
            assert not await publish(database, store, OFFLINE)
            async with working(worker):
                await until_embedded(worker)
        assert await found(knowledge) == [OFFLINE.slug]
        assert await published_articles(database) == [OFFLINE]


async def test_an_article_waits_for_a_knowledge_base_that_is_away(sqlite_url: str, own_redis: RedisServer) -> None:
    await asyncio.to_thread(migrate, sqlite_url)
    own_redis.start()
    knowledge = Away()
    async with opened(sqlite_url, own_redis.url) as (database, store):
        worker = Worker(database, store, knowledge)
        async with working(worker):
            await publish(database, store, OFFLINE)
            await until_embedded(worker)
        assert await found(knowledge) == [OFFLINE.slug]
        assert store.redis is not None
        assert await store.redis.llen(NEW_ARTICLES) == 0


async def test_publishing_again_replaces_the_text(sqlite_url: str) -> None:
    await asyncio.to_thread(migrate, sqlite_url)
    knowledge = LocalKnowledge()
    before = await knowledge.version()
    async with opened(sqlite_url, None) as (database, store):
        worker = Worker(database, store, knowledge)
        for body in ("It works in an aeroplane.", "It does not work in an aeroplane."):
            await publish(database, store, Article(OFFLINE.slug, OFFLINE.title, OFFLINE.keywords, body))
            assert await worker.waiting() == [OFFLINE.slug]
            await worker.embed(OFFLINE.slug)
        assert await worker.waiting() == []
    assert [hit.body for hit in await knowledge.search("aeroplane", 1)] == ["It does not work in an aeroplane."]
    assert await knowledge.version() != before


def test_titles_name_articles() -> None:
    assert slug_of("Working offline: a guide!") == "working-offline-a-guide"
    with pytest.raises(ValueError, match="no letter"):
        slug_of("???")
    with pytest.raises(ValueError, match="120 characters"):
        slug_of("a" * 121)


async def test_only_conversations_without_a_late_change_are_deleted(sqlite_url: str) -> None:
    await asyncio.to_thread(migrate, sqlite_url)
    async with opened(sqlite_url, None) as (database, _):
        async with database.sessions() as session, session.begin():
            for age in (1, 89, 91):
                then = now() - timedelta(days=age)
                made = Session(visitor_id=uuid4(), title=str(age), created_at=then, updated_at=then)
                session.add(made)
                await session.flush()
                session.add(Message(session_id=made.id, role="user", content="hello"))
        assert await prune(database, 90) == 1
        assert await prune(database, 90) == 0
        async with database.sessions() as session:
            assert set(await session.scalars(select(Session.title))) == {"1", "89"}
            assert await session.scalar(select(func.count()).select_from(Message)) == 2
