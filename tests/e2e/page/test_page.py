"""A person's way through the page, in headless Chromium, through the balancer."""

from __future__ import annotations

import uuid
from pathlib import Path

from playwright.sync_api import Page, WebSocket, expect
from slipway_browser import violations

REPORTS = Path(__file__).resolve().parents[3] / "reports"
ANSWER_MS = 30_000


def test_a_question_is_answered_kept_and_answered_again_from_the_cache(place: tuple[str, Path], page: Page, complaints: list[str]):
    url = place[0]
    frames: list[str] = []

    def listen(line: WebSocket) -> None:
        line.on("framereceived", lambda frame: frames.append(str(frame)))

    page.on("websocket", listen)
    answer = page.goto(url)
    assert answer is not None
    assert answer.ok
    expect(page.get_by_test_id("health")).to_have_attribute("data-status", "ready", timeout=ANSWER_MS)
    expect(page.get_by_test_id("health")).to_have_attribute("data-link", "open", timeout=ANSWER_MS)

    # A question that was not asked before: the word changes nothing about the article that answers it.
    question = f"How do I reset my password? {uuid.uuid4().hex[:8]}"
    page.get_by_test_id("question-input").fill(question)
    page.get_by_test_id("ask-button").click()
    expect(page.get_by_test_id("question")).to_have_text([question], timeout=ANSWER_MS)
    expect(page.get_by_test_id("answer")).to_have_count(1, timeout=ANSWER_MS)
    expect(page.get_by_test_id("source").first).to_be_visible()
    text = page.get_by_test_id("answer").inner_text()
    assert text
    assert page.get_by_test_id("cached-badge").count() == 0
    assert any('"type":"answer"' in frame.replace(" ", "") for frame in frames), "the answer did not come over the WebSocket"

    page.reload()
    expect(page.get_by_test_id("answer")).to_have_text([text], timeout=ANSWER_MS)
    expect(page.get_by_test_id("session-item").first).to_be_visible()
    assert "session=" in page.url

    expect(page.get_by_test_id("health")).to_have_attribute("data-link", "open", timeout=ANSWER_MS)
    page.get_by_test_id("question-input").fill(question)
    page.get_by_test_id("question-input").press("Enter")
    expect(page.get_by_test_id("answer")).to_have_count(2, timeout=ANSWER_MS)
    expect(page.get_by_test_id("cached-badge")).to_have_text(["from cache"])
    assert page.get_by_test_id("answer").nth(1).inner_text() == text

    assert not violations(page)
    page.screenshot(path=REPORTS / "e2e-page.png")
    assert not complaints, complaints


def test_another_visitor_sees_no_ones_sessions(place: tuple[str, Path], page: Page, complaints: list[str]):
    # The list is empty before it is there, too.
    with page.expect_response(lambda answer: answer.url.endswith("/api/sessions"), timeout=ANSWER_MS) as listed:
        page.goto(place[0])
    assert listed.value.json() == []
    expect(page.get_by_test_id("health")).to_have_attribute("data-link", "open", timeout=ANSWER_MS)
    expect(page.get_by_test_id("session-item")).to_have_count(0)
    assert not complaints, complaints
