from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from conftest import free_port, until
from support_desk.embedding import embed, similarity
from support_desk.knowledge import (
    ChromaKnowledge,
    KnowledgeAwayError,
    LocalKnowledge,
    knowledge_version,
    packaged_articles,
    parse_article,
)


@pytest.mark.parametrize(
    ("question", "slug"),
    [
        ("I forgot my login", "reset-password"),
        ("can I get my money back?", "refunds"),
        ("where is my invoice", "invoices"),
        ("cancel my subscription", "cancel"),
        ("the page does not load", "slow-loading"),
        ("how to add a colleague", "invite-members"),
        ("lost my phone with two factor codes", "two-factor"),
        ("talk to a human", "opening-hours"),
        ("too many emails", "notifications"),
        ("SAML with okta", "sso"),
    ],
)
async def test_questions_find_their_article(question: str, slug: str) -> None:
    assert (await LocalKnowledge().search(question, 1))[0].slug == slug


def test_vectors_are_the_same_in_every_process() -> None:
    # Written down: another value here means another SCHEME, as stored vectors no longer fit.
    vector = embed("Reset a forgotten password")
    assert similarity(vector, vector) == pytest.approx(1.0)
    assert [index for index, value in enumerate(vector) if abs(value) > 0.3] == [65, 283, 455]
    assert not any(embed("what is it about?"))


def test_there_are_enough_articles_and_each_is_whole() -> None:
    articles = packaged_articles()
    assert len(articles) >= 12
    assert all(len(article.body) > 150 and article.title and article.keywords for article in articles)
    with pytest.raises(ValueError, match="'broken' needs title:"):
        parse_article("broken", "title: only a title\n")


def test_the_version_follows_the_content() -> None:
    articles = packaged_articles()
    changed = [replace(articles[0], body=articles[0].body + " More."), *articles[1:]]
    digests, others = ([article.digest for article in items] for items in (articles, changed))
    assert knowledge_version(digests) == knowledge_version(reversed(digests))
    assert knowledge_version(digests) != knowledge_version(others)


def beats(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/api/v2/heartbeat", timeout=2).status_code == 200
    return False


@pytest.fixture(scope="module")
def chroma_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if url := os.environ.get("TEST_CHROMA_URL"):
        # It may have been started a moment ago.
        until(lambda: beats(url), 60)
        yield url
        return
    program = shutil.which("chroma")
    if program is None:
        pytest.skip("needs a Chroma server: `chroma` on PATH or TEST_CHROMA_URL")
    folder: Path = tmp_path_factory.mktemp("chroma")
    port = free_port()
    server = subprocess.Popen(
        [program, "run", "--path", folder, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"ANONYMIZED_TELEMETRY": "false"},
    )
    until(lambda: beats(f"http://127.0.0.1:{port}"), 60)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(20)


async def test_loading_chroma_writes_only_what_changed(chroma_url: str) -> None:
    articles = packaged_articles()
    store = ChromaKnowledge(chroma_url, f"test_{uuid4().hex}")
    with pytest.raises(KnowledgeAwayError):
        await store.check()
    first = await store.load(articles)
    assert (first.total, first.written, first.removed) == (len(articles), len(articles), 0)
    again = await store.load(articles)
    assert (again.written, again.removed, again.version) == (0, 0, first.version)
    await store.check()
    hits = await store.search("How do I reset my password?", 2)
    local = await LocalKnowledge().search("How do I reset my password?", 2)
    assert [hit.slug for hit in hits] == [hit.slug for hit in local]
    assert hits[0].score == pytest.approx(local[0].score, abs=0.01)
    assert hits[0].body == local[0].body
    changed = [replace(articles[1], body=articles[1].body + " More."), *articles[2:]]
    third = await store.load(changed)
    assert (third.written, third.removed) == (1, 1)
    assert third.version != first.version
    assert await ChromaKnowledge(chroma_url, store._name).version() == third.version


async def test_an_added_article_is_as_if_it_had_been_loaded(chroma_url: str) -> None:
    *most, last = packaged_articles()
    store, other = (ChromaKnowledge(chroma_url, f"test_{uuid4().hex}") for _ in range(2))
    await store.load(most)
    for body in (last.body + " More.", last.body):
        await store.add(replace(last, body=body))
    loaded = await other.load([*most, last])
    # Another client's: the one that wrote may remember the version before for some seconds.
    assert await ChromaKnowledge(chroma_url, store._name).version() == loaded.version
    assert (await store.load([*most, last])).written == 0


async def test_a_recreated_store_is_found_again(chroma_url: str) -> None:
    name = f"test_{uuid4().hex}"
    store = ChromaKnowledge(chroma_url, name)
    await store.load(packaged_articles())
    await store.check()
    await (await store._connected()).delete_collection(name)
    with pytest.raises(KnowledgeAwayError):
        await store.check()
    # As a restore does it: the same name, another id.
    await ChromaKnowledge(chroma_url, name).load(packaged_articles())
    await store.check()
    assert (await store.search("refund", 1))[0].slug == "refunds"
