from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from conftest import RedisServer, migrate, until

Start = Callable[..., TestClient]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_url")
    urls = request.getfixturevalue("postgres")
    migrate(urls["owner"])
    return urls["app"]


def ask(client: TestClient, session: str, question: str) -> dict:
    response = client.post(f"/api/sessions/{session}/messages", json={"content": question})
    assert response.status_code == 201, response.text
    return response.json()


def new_session(client: TestClient) -> str:
    response = client.post("/api/sessions")
    assert response.status_code == 201, response.text
    return response.json()["id"]


def receive(socket, kind: str) -> dict:
    for _ in range(200):
        event = socket.receive_json()
        if event["type"] == kind:
            return event
    raise AssertionError(f"no {kind} among 200 events")


def test_a_conversation_is_kept(start: Start, database_url: str, redis_url: str) -> None:
    # The application user of PostgreSQL owns no table: outside development nothing is created at the start.
    environ = {"ENVIRONMENT": "test"} if database_url.startswith("postgresql") else {}
    client = start(DATABASE_URL=database_url, REDIS_URL=redis_url, INSTANCE="app1", **environ)
    session = new_session(client)
    answer = ask(client, session, "How do I reset my password?")
    assert answer["sources"][0]["slug"] == "reset-password"
    assert "Forgot password" in answer["content"]
    assert answer["instance"] == "app1"
    messages = client.get(f"/api/sessions/{session}/messages").json()
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[1] == answer
    assert client.get(f"/api/sessions/{session}").json()["title"] == "How do I reset my password?"
    assert [item["id"] for item in client.get("/api/sessions").json()] == [session]


def test_visitors_see_only_their_own_list(start: Start, sqlite_url: str) -> None:
    client = start(DATABASE_URL=sqlite_url)
    session = new_session(client)
    cookie = client.cookies["support_desk_visitor"]
    client.cookies.clear()
    assert client.get("/api/sessions").json() == []
    client.cookies.set("support_desk_visitor", f"{cookie.partition('.')[0]}.{'0' * 64}")
    assert client.get("/api/sessions").json() == []
    client.cookies.clear()
    client.cookies.set("support_desk_visitor", cookie)
    assert [item["id"] for item in client.get("/api/sessions").json()] == [session]


def test_the_same_question_is_answered_from_redis_on_another_instance(start: Start, tmp_path, redis_url: str) -> None:
    question = f"Where is my invoice {uuid4()}?"
    one = start(DATABASE_URL=f"sqlite:///{tmp_path}/one.db", REDIS_URL=redis_url)
    other = start(DATABASE_URL=f"sqlite:///{tmp_path}/other.db", REDIS_URL=redis_url)
    first = ask(one, new_session(one), question)
    second = ask(other, new_session(other), f"  {question.upper().replace('?', ' !')}")
    assert (first["cached"], second["cached"]) == (False, True)
    assert second["content"] == first["content"]
    assert second["sources"] == first["sources"]


def test_loss_of_redis_degrades_and_its_return_recovers(start: Start, sqlite_url: str, own_redis: RedisServer) -> None:
    client = start(DATABASE_URL=sqlite_url, REDIS_URL=own_redis.url)
    session = new_session(client)
    assert client.get("/ready").json()["status"] == "ready"
    own_redis.stop()
    away = client.get("/ready")
    assert away.status_code == 200
    assert away.json()["status"] == "degraded"
    assert away.json()["checks"]["redis"]["state"] == "away"
    assert [ask(client, session, "Can I get a refund?")["cached"] for _ in range(2)] == [False, True]
    own_redis.start()
    assert client.get("/ready").json()["status"] == "ready"
    # Nothing is in the new Redis: the answer there comes first from the articles again.
    assert [ask(client, session, "Can I get a refund?")["cached"] for _ in range(2)] == [False, True]


def test_answer_without_a_relevant_article_says_so(start: Start, sqlite_url: str) -> None:
    client = start(DATABASE_URL=sqlite_url)
    answer = ask(client, new_session(client), "Who won the world cup in 1998?")
    assert answer["sources"] == []
    assert "found nothing" in answer["content"]


def test_memories(start: Start, sqlite_url: str) -> None:
    client = start(DATABASE_URL=sqlite_url)
    session = new_session(client)
    ask(client, session, "Remember that we are on the Business plan")
    kept = client.post("/api/memories", json={"content": "Our region is the EU"})
    assert kept.status_code == 201
    assert [item["content"] for item in client.get("/api/memories").json()] == [
        "we are on the Business plan",
        "Our region is the EU",
    ]
    assert "Business plan" in ask(client, session, "What do you remember about me?")["content"]
    assert client.delete(f"/api/memories/{kept.json()['id']}").status_code == 204
    assert len(client.get("/api/memories").json()) == 1
    client.cookies.clear()
    assert client.get("/api/memories").json() == []


def test_search(start: Start, sqlite_url: str) -> None:
    client = start(DATABASE_URL=sqlite_url)
    hits = client.get("/api/search", params={"q": "rate limit of the API", "limit": 3}).json()
    assert len(hits) == 3
    assert hits[0]["slug"] == "api-keys"
    assert hits[0]["score"] > hits[1]["score"]
    assert "429" in hits[0]["body"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", f"/api/sessions/{uuid4()}", None, 404),
        ("GET", f"/api/sessions/{uuid4()}/messages", None, 404),
        ("POST", f"/api/sessions/{uuid4()}/messages", {"content": "hello"}, 404),
        ("GET", "/api/sessions/not-an-id", None, 422),
        ("POST", f"/api/sessions/{uuid4()}/messages", {"content": "  "}, 422),
        ("POST", f"/api/sessions/{uuid4()}/messages", {"content": "x" * 2001}, 422),
        ("DELETE", f"/api/memories/{uuid4()}", None, 404),
        ("GET", "/api/search", None, 422),
    ],
)
def test_bad_requests(start: Start, sqlite_url: str, method: str, path: str, body: dict | None, status: int) -> None:
    assert start(DATABASE_URL=sqlite_url).request(method, path, json=body).status_code == status


def test_health_version_and_metrics(start: Start, sqlite_url: str) -> None:
    client = start(DATABASE_URL=sqlite_url, APP_VERSION="1.2.3", INSTANCE="app7")
    for prefix in ("", "/api"):
        assert client.get(f"{prefix}/health").json() == {"status": "healthy"}
        ready = client.get(f"{prefix}/ready").json()
        assert (ready["version"], ready["instance"]) == ("1.2.3", "app7")
        assert {name: check["state"] for name, check in ready["checks"].items()} == {
            "database": "ok",
            "redis": "off",
            "chroma": "in-process",
        }
    assert client.get("/api/version").json() == {"version": "1.2.3", "instance": "app7", "environment": "development"}
    ask(client, new_session(client), "Is my data encrypted?")
    metrics = client.get("/metrics").text
    assert 'route="/api/sessions/{session_id}/messages",status="201"' in metrics
    assert 'support_desk_answers_total{origin="retrieval"}' in metrics
    assert client.get("/openapi.json").status_code == 404


def test_not_ready_without_the_database_or_chroma(start: Start, sqlite_url: str) -> None:
    nowhere = "127.0.0.1:9"
    client = start(ENVIRONMENT="test", DATABASE_URL=f"postgresql://app:secret-word@{nowhere}/desk")
    ready = client.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["checks"]["database"]["state"] == "away"
    assert "secret-word" not in ready.text
    assert client.get("/health").status_code == 200
    refused = client.post("/api/sessions")
    assert refused.status_code == 503
    assert refused.json() == {"detail": "The database does not answer."}
    client = start(DATABASE_URL=sqlite_url, CHROMA_URL=f"http://{nowhere}")
    ready = client.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["checks"]["chroma"]["state"] == "away"
    session = new_session(client)
    assert client.post(f"/api/sessions/{session}/messages", json={"content": "refund?"}).status_code == 503


def test_not_ready_before_the_migration(start: Start, sqlite_url: str) -> None:
    client = start(ENVIRONMENT="test", DATABASE_URL=sqlite_url)
    ready = client.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["checks"]["database"] | {"milliseconds": 0} == {
        "state": "behind",
        "detail": "schema missing, needs 0003",
        "milliseconds": 0,
    }


def test_an_answer_streams_over_the_websocket(start: Start, sqlite_url: str) -> None:
    client = start(DATABASE_URL=sqlite_url, APP_VERSION="1.2.3", INSTANCE="app7")
    session = new_session(client)
    with client.websocket_connect("/ws") as socket:
        assert socket.receive_json() == {"type": "hello", "version": "1.2.3", "instance": "app7"}
        for cached in (False, True):
            socket.send_json({"type": "ask", "session_id": session, "content": "How do I cancel?"})
            assert receive(socket, "message")["message"]["content"] == "How do I cancel?"
            parts = []
            while (event := socket.receive_json())["type"] == "piece":
                parts.append(event["text"])
            assert event["type"] == "answer"
            assert event["cached"] is event["message"]["cached"] is cached
            assert "".join(parts) == event["message"]["content"]
            assert len(parts) == 1 if cached else len(parts) > 5
            assert event["message"]["sources"][0]["slug"] == "cancel"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "ask", "session_id": str(uuid4()), "content": "hello"}, "no_session"),
        ({"type": "join", "session_id": "nonsense"}, "no_session"),
        ({"type": "dance"}, "unknown"),
        ([], "unknown"),
    ],
)
def test_a_websocket_survives_bad_messages(start: Start, sqlite_url: str, message: object, code: str) -> None:
    with start(DATABASE_URL=sqlite_url).websocket_connect("/ws") as socket:
        socket.send_json(message)
        assert receive(socket, "error")["code"] == code
        socket.send_json({"type": "ping"})
        assert receive(socket, "pong") == {"type": "pong"}


def test_too_long_a_question_is_refused_on_the_websocket(start: Start, sqlite_url: str) -> None:
    client = start(DATABASE_URL=sqlite_url)
    session = new_session(client)
    with client.websocket_connect(f"/ws?session_id={session}") as socket:
        socket.send_json({"type": "ask", "session_id": session, "content": "x" * 2001})
        assert receive(socket, "error")["code"] == "invalid"


def test_pages_of_other_sites_get_no_websocket(start: Start, sqlite_url: str) -> None:
    client = start(DATABASE_URL=sqlite_url, CORS_ORIGINS="https://friend.example")
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws", headers={"Origin": "https://evil.example"}):
        pass
    for origin in ("https://friend.example", "https://testserver:8443"):
        with client.websocket_connect("/ws", headers={"Origin": origin}) as socket:
            assert socket.receive_json()["type"] == "hello"


def test_events_reach_clients_of_another_instance(start: Start, sqlite_url: str, redis_url: str) -> None:
    one = start(DATABASE_URL=sqlite_url, REDIS_URL=redis_url, INSTANCE="app1")
    other = start(DATABASE_URL=sqlite_url, REDIS_URL=redis_url, INSTANCE="app2")
    session = new_session(one)
    until(lambda: one.app.state.desk.hub.listening and other.app.state.desk.hub.listening)
    with one.websocket_connect("/ws") as asker, other.websocket_connect(f"/ws?session_id={session}") as watcher:
        receive(watcher, "joined")
        asker.send_json({"type": "ask", "session_id": session, "content": f"Which roles are there? {uuid4()}"})
        sent = receive(asker, "answer")
        assert receive(watcher, "message")["message"]["role"] == "user"
        assert receive(watcher, "piece")["message_id"] == sent["message"]["id"]
        assert receive(watcher, "answer") == sent
        assert sent["message"]["instance"] == "app1"
        # Whoever left hears no more; whoever stayed does, once.
        watcher.send_json({"type": "leave", "session_id": session})
        asker.send_json({"type": "ask", "session_id": session, "content": "And once more?"})
        receive(asker, "answer")
        watcher.send_json({"type": "ping"})
        assert watcher.receive_json() == {"type": "pong"}


def test_clients_of_one_instance_hear_of_each_other_without_redis(start: Start, sqlite_url: str) -> None:
    client = start(DATABASE_URL=sqlite_url)
    session = new_session(client)
    with client.websocket_connect(f"/ws?session_id={session}") as watcher:
        receive(watcher, "joined")
        answer = ask(client, session, "Is there a mobile app?")
        assert receive(watcher, "answer")["message"] == answer


def test_a_visitor_stays_known_while_the_key_is_rotated(start: Start, sqlite_url: str) -> None:
    old, new = ("old-" + "k3y9" * 8, "new-" + "q7w2" * 8)
    client = start(DATABASE_URL=sqlite_url, SECRET_KEY=old)
    session = new_session(client)
    cookie = client.cookies["support_desk_visitor"]
    for keys, known in [
        ({"SECRET_KEY": old, "SECRET_KEY_ACCEPTED": new}, [session]),
        ({"SECRET_KEY": new, "SECRET_KEY_ACCEPTED": old}, [session]),
        ({"SECRET_KEY": new}, []),
    ]:
        client = start(DATABASE_URL=sqlite_url, **keys)
        client.cookies.set("support_desk_visitor", cookie)
        assert [item["id"] for item in client.get("/api/sessions").json()] == known
