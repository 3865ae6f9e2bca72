"""The knowledge base: articles of the package, kept in Chroma and searched by vector."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from support_desk.embedding import SCHEME, embed, similarity

if TYPE_CHECKING:
    from chromadb.api import AsyncClientAPI
    from chromadb.api.models.AsyncCollection import AsyncCollection

COLLECTION = f"support_articles_{SCHEME}"
TIMEOUT = 5.0
# How long an instance may go on using the version of the articles that it last read.
VERSION_SECONDS = 10.0


class KnowledgeAwayError(Exception):
    """The store with the knowledge base does not answer, or was never loaded."""


@dataclass(frozen=True)
class Article:
    """One article; `keywords` are words that people use for it and that its text does not."""

    slug: str
    title: str
    keywords: str
    body: str

    @property
    def digest(self) -> str:
        """Return a hash of all that decides what is stored."""
        parts = json.dumps([SCHEME, self.slug, self.title, self.keywords, self.body])
        return hashlib.sha256(parts.encode()).hexdigest()

    def vector(self) -> list[float]:
        """Return the vector; the title counts as much as several sentences."""
        return embed(" ".join([self.title] * 3 + [self.keywords] * 2 + [self.body]))


@dataclass(frozen=True)
class Hit:
    """An article that was found, and how well it fits: 1 is the same text, 0 has nothing in common."""

    slug: str
    title: str
    body: str
    score: float

    def source(self) -> dict[str, Any]:
        """Return what an answer says about where it comes from."""
        return {"slug": self.slug, "title": self.title, "score": round(self.score, 3)}


@dataclass(frozen=True)
class LoadResult:
    """What loading the articles did."""

    total: int
    written: int
    removed: int
    version: str


class Knowledge(Protocol):
    """What the application needs of a knowledge base; both kinds below offer it."""

    kind: str

    async def search(self, question: str, limit: int) -> list[Hit]:
        """Return the best articles, best first."""

    async def version(self) -> str:
        """Return a value that changes whenever an article does."""

    async def check(self) -> None:
        """Raise `KnowledgeAwayError` unless the articles can be searched."""

    async def load(self, articles: Sequence[Article]) -> LoadResult:
        """Make the store hold exactly these articles."""

    async def add(self, article: Article) -> None:
        """Hold this article too, in place of one with its name."""

    async def close(self) -> None:
        """Give connections back."""


def parse_article(slug: str, text: str) -> Article:
    """Read an article: `title:` and `keywords:` lines, an empty line, the text.

    Raises:
        ValueError: a line is missing; names the article.
    """
    head, _, body = text.partition("\n\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    if not body.strip() or not {"title", "keywords"} <= fields.keys():
        raise ValueError(f"article {slug!r} needs title:, keywords:, an empty line and a body")
    return Article(slug, fields["title"].strip(), fields["keywords"].strip(), body.strip())


def packaged_articles() -> list[Article]:
    """Return the articles that this version ships, by name."""
    folder = resources.files("support_desk") / "articles"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".md")), key=lambda item: item.name)
    return [parse_article(item.name.removesuffix(".md"), item.read_text(encoding="utf-8")) for item in files]


def knowledge_version(digests: Iterable[str]) -> str:
    """Return a short hash over the digests of all articles."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:16]


class LocalKnowledge:
    """The packaged articles in memory: for a laptop without Chroma."""

    kind = "in-process"

    def __init__(self) -> None:
        """Embed the articles of the package."""
        self._articles: list[tuple[Article, list[float]]] = []
        self._version = ""
        self._fill(packaged_articles())

    def _fill(self, articles: Sequence[Article]) -> None:
        self._articles = [(article, article.vector()) for article in articles]
        self._version = knowledge_version(article.digest for article in articles)

    async def search(self, question: str, limit: int) -> list[Hit]:
        """Return the best articles, best first."""
        vector = embed(question)
        hits = [Hit(article.slug, article.title, article.body, similarity(vector, other)) for article, other in self._articles]
        return sorted(hits, key=lambda hit: -hit.score)[:limit]

    async def version(self) -> str:
        """Return the version of the articles in memory."""
        return self._version

    async def check(self) -> None:
        """Memory always answers."""

    async def load(self, articles: Sequence[Article]) -> LoadResult:
        """Take these articles."""
        self._fill(articles)
        return LoadResult(len(articles), len(articles), 0, self._version)

    async def add(self, article: Article) -> None:
        """Take this article too."""
        self._fill([*(other for other, _ in self._articles if other.slug != article.slug), article])

    async def close(self) -> None:
        """Nothing to give back."""


class ChromaKnowledge:
    """The articles in a Chroma server that all app instances share."""

    kind = "chroma"

    def __init__(self, url: str, collection: str = COLLECTION) -> None:
        """Remember the address; the first use connects."""
        # Importing the client takes a second or two: now, rather than during the first request. A process that never
        # asks Chroma does not pay for it.
        import chromadb  # noqa: PLC0415

        self._connect = chromadb.AsyncHttpClient
        self._url = urlsplit(url)
        self._name = collection
        self._client: AsyncClientAPI | None = None
        self._collection: AsyncCollection | None = None
        self._version: tuple[float, str] | None = None
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def _guard(self) -> AsyncIterator[None]:
        """Bound the time, and forget the collection on a failure: a restored store gives it another id."""
        try:
            async with asyncio.timeout(TIMEOUT):
                yield
        except KnowledgeAwayError:
            raise
        except Exception as error:
            self._collection = None
            raise KnowledgeAwayError(f"{type(error).__name__}: {error}"[:300]) from error

    async def _connected(self) -> AsyncClientAPI:
        if self._client is None:
            from chromadb.config import Settings as ChromaSettings  # noqa: PLC0415

            secure = self._url.scheme == "https"
            settings = ChromaSettings(anonymized_telemetry=False)
            if secure and os.environ.get("SSL_CERT_FILE"):
                settings.chroma_server_ssl_verify = os.environ["SSL_CERT_FILE"]
            self._client = await self._connect(
                host=self._url.hostname or "localhost",
                port=self._url.port or (443 if secure else 8000),
                ssl=secure,
                settings=settings,
            )
        return self._client

    async def _articles(self) -> AsyncCollection:
        async with self._lock:
            if self._collection is None:
                client = await self._connected()
                # Never the client's default embedding function: it downloads a model.
                self._collection = await client.get_collection(self._name, embedding_function=None)
            return self._collection

    async def search(self, question: str, limit: int) -> list[Hit]:
        """Return the best articles, best first."""
        vector = embed(question)
        if not any(vector):
            return []
        async with self._guard():
            collection = await self._articles()
            found = await collection.query(query_embeddings=[vector], n_results=limit, include=["documents", "metadatas", "distances"])
        rows = zip(found["ids"][0], found["documents"][0], found["metadatas"][0], found["distances"][0], strict=True)
        return [Hit(slug, str(data["title"]), body, 1.0 - distance) for slug, body, data, distance in rows]

    async def version(self) -> str:
        """Return the version of the articles in the store, at most some seconds old."""
        known = self._version
        if known and time.monotonic() - known[0] < VERSION_SECONDS:
            return known[1]
        try:
            async with self._guard():
                client = await self._connected()
                collection = await client.get_collection(self._name, embedding_function=None)
        except KnowledgeAwayError:
            if known:
                # Answers that were cached for these articles are still right while the store is away.
                return known[1]
            raise
        version = str((collection.metadata or {}).get("version", ""))
        self._collection = collection
        self._version = (time.monotonic(), version)
        return version

    async def check(self) -> None:
        """Raise `KnowledgeAwayError` unless the store answers and holds articles."""
        async with self._guard():
            collection = await self._articles()
            if await collection.count() == 0:
                raise KnowledgeAwayError("the collection is empty: run the migration")

    async def load(self, articles: Sequence[Article]) -> LoadResult:
        """Make the store hold exactly these articles; what is unchanged is not written again."""
        async with self._guard():
            client = await self._connected()
            version = knowledge_version(article.digest for article in articles)
            collection = await client.get_or_create_collection(
                self._name, embedding_function=None, metadata={"hnsw:space": "cosine", "version": ""}
            )
            digests = await self._digests(collection)
            changed = [article for article in articles if digests.get(article.slug) != article.digest]
            gone = sorted(digests.keys() - {article.slug for article in articles})
            if changed:
                await self._write(collection, changed)
            if gone:
                await collection.delete(ids=gone)
            # Last, so that cached answers are dropped only when the new articles can be found.
            if (collection.metadata or {}).get("version") != version:
                await collection.modify(metadata={"version": version})
            return LoadResult(len(articles), len(changed), len(gone), version)

    async def add(self, article: Article) -> None:
        """Hold this article too."""
        async with self._guard():
            collection = await self._articles()
            await self._write(collection, [article])
            await collection.modify(metadata={"version": knowledge_version((await self._digests(collection)).values())})

    async def _digests(self, collection: AsyncCollection) -> dict[str, str]:
        """Return the digests of the stored articles by name."""
        stored = await collection.get(include=["metadatas"])
        return {slug: str((data or {}).get("digest")) for slug, data in zip(stored["ids"], stored["metadatas"], strict=True)}

    async def _write(self, collection: AsyncCollection, articles: Sequence[Article]) -> None:
        await collection.upsert(
            ids=[article.slug for article in articles],
            documents=[article.body for article in articles],
            embeddings=[article.vector() for article in articles],
            metadatas=[{"title": article.title, "digest": article.digest} for article in articles],
        )

    async def close(self) -> None:
        """Forget the client; its connections end with the process."""
        self._client = self._collection = None


def open_knowledge(url: str | None) -> Knowledge:
    """Return the shared store, or the articles in memory where none is named."""
    return ChromaKnowledge(url) if url else LocalKnowledge()
