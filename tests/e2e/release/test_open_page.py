"""A page that was opened before a release goes on after it, in headless Chromium."""

from __future__ import annotations

import uuid
from pathlib import Path

from playwright.sync_api import Page, WebSocket, expect
from slipway_release import PRODUCT, Fleet

ANSWER_MS = 30_000
ASSETS = "[...document.querySelectorAll('script[src], link[rel=stylesheet]')].map((node) => node.src || node.href)"
# Past the browser's own cache, as a part of the page that is loaded later is asked for the first time.
FETCH = """async (address) => {
    const answer = await fetch(address, { cache: "reload" });
    return [answer.status, answer.headers.get("content-type"), (await answer.text()).length];
}"""


def ask(page: Page, text: str, answers: int) -> None:
    page.get_by_test_id("question-input").fill(text)
    page.get_by_test_id("ask-button").click()
    expect(page.get_by_test_id("answer")).to_have_count(answers, timeout=ANSWER_MS)


def test_a_page_opened_before_a_release_goes_on(place: tuple[str, Path], page: Page, complaints: list[str], fleet: Fleet):
    url = place[0]
    lines: list[WebSocket] = []

    def watch(line: WebSocket) -> None:
        lines.append(line)

    page.on("websocket", watch)
    if fleet.version not in PRODUCT:
        fleet.deploy(PRODUCT[0])
    version, other = fleet.version, fleet.other(PRODUCT)
    page.goto(url)
    health = page.get_by_test_id("health")
    expect(health).to_have_attribute("data-link", "open", timeout=ANSWER_MS)
    expect(page.get_by_test_id("version")).to_have_text(version)
    ask(page, f"How do I reset my password? {uuid.uuid4().hex[:8]}", 1)
    assets = page.evaluate(ASSETS)
    assert len(assets) >= 2
    before = [page.evaluate(FETCH, address) for address in assets]
    assert all(status == 200 for status, *_ in before), before

    fleet.deploy(other)

    # Its WebSocket was closed and came back, and what it asks now is answered by the new version.
    page.wait_for_timeout(500)
    expect(health).to_have_attribute("data-link", "open", timeout=ANSWER_MS)
    assert len(lines) >= 2
    assert lines[0].is_closed()
    assert not lines[-1].is_closed()
    ask(page, f"Can I get a refund? {uuid.uuid4().hex[:8]}", 2)
    expect(page.get_by_test_id("version")).to_have_text(other, timeout=ANSWER_MS)

    # The new page does not have them any more: it is the frontends of the version before that answer.
    fresh = page.context.new_page()
    fresh.goto(url)
    assert not set(fresh.evaluate(ASSETS)) & set(assets)
    assert [page.evaluate(FETCH, address) for address in assets] == before
    assert page.evaluate(FETCH, f"{url}/assets/never-there.js")[0] == 404
    complaints = [text for text in complaints if "404" not in text]
    assert not complaints, complaints
