from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from fastapi.testclient import TestClient

from conftest import SECRET_KEY
from support_desk.app import create_app
from support_desk.settings import load_settings


class Model(httpx.AsyncBaseTransport):
    """Stands for the model's service: streams an answer in two parts, or fails with a status."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)

        async def stream() -> AsyncIterator[bytes]:
            for text in ("From the ", "model."):
                yield f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n".encode()
            yield b"data: [DONE]\n\n"

        return httpx.Response(self.status, content=stream(), request=request)


@pytest.fixture
def run(sqlite_url: str) -> Callable[[Model], TestClient]:
    def start(model: Model) -> TestClient:
        settings = load_settings(
            {
                "DATABASE_URL": sqlite_url,
                "SECRET_KEY": SECRET_KEY,
                "OPENAI_API_KEY": "sk-test",
                "OPENAI_BASE_URL": "https://model.example/v1/",
            }
        )
        app = create_app(settings)
        app.state.desk.assistant._http = httpx.AsyncClient(transport=model)
        return TestClient(app)

    return start


def ask(client: TestClient, question: str) -> dict:
    session = client.post("/api/sessions").json()["id"]
    return client.post(f"/api/sessions/{session}/messages", json={"content": question}).json()


def test_the_model_answers_from_the_articles(run: Callable[[Model], TestClient]) -> None:
    model = Model()
    with run(model) as client:
        answer = ask(client, "How do refunds work?")
        assert answer["content"] == "From the model."
        assert answer["sources"][0]["slug"] == "refunds"
        assert ask(client, "How do refunds work?")["cached"] is True
    (request,) = model.requests
    assert str(request.url) == "https://model.example/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-test"
    body = json.loads(request.content)
    assert "yearly plan can be refunded" in body["messages"][0]["content"]
    assert body["messages"][1] == {"role": "user", "content": "How do refunds work?"}


def test_what_was_written_for_one_visitor_is_not_shown_to_another(run: Callable[[Model], TestClient]) -> None:
    model = Model()
    with run(model) as client:
        ask(client, "Remember that my plan is yearly")
        ask(client, "How do refunds work?")
        assert "my plan is yearly" in json.loads(model.requests[0].content)["messages"][0]["content"]
        client.cookies.clear()
        assert ask(client, "How do refunds work?")["cached"] is False
        assert "my plan is yearly" not in json.loads(model.requests[1].content)["messages"][0]["content"]


def test_without_the_model_retrieval_answers_and_is_not_cached(run: Callable[[Model], TestClient]) -> None:
    model = Model(status=500)
    with run(model) as client:
        for _ in range(2):
            answer = ask(client, "How do refunds work?")
            assert "30 days of the charge" in answer["content"]
            assert answer["cached"] is False
    assert len(model.requests) == 2
