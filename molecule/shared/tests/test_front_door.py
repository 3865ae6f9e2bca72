"""What clients get through the balancer."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import uuid
from typing import Any

import httpx
import pytest
import websockets
from slipway_lab import Lab, Stranger, access_log, logged, wait_until

# On hosts that share the tiers these hold as on one that has all of them.
pytestmark = pytest.mark.extended("cluster", scenario="cluster")

YEAR = "max-age=31536000"
HEADERS = {
    "x-frame-options": "deny",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def logged_requests(lab: Lab, marker: str) -> list[dict[str, Any]]:
    """Return what the access log says of requests with this marker in their address, once it does."""
    return [json.loads(line) for line in logged(lab, marker)]


@pytest.mark.parametrize("path", ["/", "/health-of-mine", "/api/version?a=b", "/ws"])
def test_plain_http_only_redirects(lab: Lab, path: str):
    answer = httpx.get(f"http://localhost:{lab.http_port}{path}", trust_env=False)
    assert answer.status_code == 308
    assert answer.headers["location"] == f"{lab.url}{path}"


def test_health_is_answered_on_both_ports_and_not_logged(lab: Lab, client: httpx.Client):
    marker = uuid.uuid4().hex
    for url in (f"http://localhost:{lab.http_port}", lab.url):
        answer = client.get(f"{url}/health?{marker}")
        assert (answer.status_code, answer.text.strip()) == (200, "healthy")
    client.get(f"/api/version?{marker}-end")
    lines = logged_requests(lab, f"{marker}-end")
    assert [line["uri"] for line in lines] == [f"/api/version?{marker}-end"]
    assert f"/health?{marker}" not in access_log(lab)


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/nothing-here", "asset", "/health"])
def test_security_headers_are_on_every_answer(client: httpx.Client, page_assets: list[str], path: str):
    answer = client.get(page_assets[0] if path == "asset" else path)
    for name, value in HEADERS.items():
        assert answer.headers.get_list(name) == [value], f"{name} of {path}"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["server"] == "nginx", "the version is not shown"
    assert "x-powered-by" not in answer.headers


@pytest.mark.parametrize(
    ("version", "accepted"), [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)]
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_versions(lab: Lab, version: ssl.TLSVersion, accepted: bool):
    context = lab.tls()
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version

    def connect() -> str | None:
        with (
            socket.create_connection(("127.0.0.1", lab.https_port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            return tls.version()

    if accepted:
        assert connect() == f"TLSv1.{3 if version == ssl.TLSVersion.TLSv1_3 else 2}"
    else:
        with pytest.raises(ssl.SSLError):
            connect()


def test_certificate_is_of_the_labs_own_authority(lab: Lab):
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(lab.url, trust_env=False)
    assert httpx.get(f"https://127.0.0.1:{lab.https_port}/health", verify=lab.tls(), trust_env=False).status_code == 200


def test_http2_is_spoken(lab: Lab):
    with lab.client(http2=True) as client:
        assert client.get("/").http_version == "HTTP/2"


def test_text_is_compressed_from_a_kilobyte_on(client: httpx.Client, page_assets: list[str]):
    script = next(path for path in page_assets if path.endswith(".js"))
    answer = client.get(script, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in answer.headers["vary"].lower()
    assert "content-encoding" not in client.get("/api/version", headers={"Accept-Encoding": "gzip"}).headers


def test_bodies_up_to_ten_megabytes_are_taken(client: httpx.Client):
    headers = {"Content-Type": "application/json"}
    assert client.post("/api/sessions", content=b" " * (10 * 2**20 + 1), headers=headers).status_code == 413
    assert client.post("/api/sessions", content=b" " * (10 * 2**20), headers=headers).status_code != 413


def test_assets_are_kept_for_a_year_and_errors_are_not(client: httpx.Client, page_assets: list[str]):
    for path in page_assets:
        answer = client.get(path)
        assert answer.status_code == 200
        assert YEAR in answer.headers["cache-control"]
        assert "immutable" in answer.headers["cache-control"]
    missing = client.get("/assets/never-built-0123abcd.js")
    assert missing.status_code == 404
    assert "immutable" not in missing.headers.get("cache-control", "")


def test_page_is_served_for_every_address_and_not_cached(client: httpx.Client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert YEAR not in page.headers.get("cache-control", "")
    deep = client.get("/some/place/of/the/app?session=1")
    assert (deep.status_code, deep.text) == (200, page.text)


def test_api_answers_are_not_kept(client: httpx.Client):
    assert "no-store" in client.get("/api/version").headers["cache-control"]


def test_websocket_carries_a_question_and_its_answer(lab: Lab, client: httpx.Client):
    session = client.post("/api/sessions", json={}).json()["id"]

    async def ask() -> dict[str, Any]:
        url = f"wss://localhost:{lab.https_port}/ws"
        async with websockets.connect(url, ssl=lab.tls(), origin=lab.url, proxy=None) as line:
            assert json.loads(await line.recv())["type"] == "hello"
            await line.send(json.dumps({"type": "ask", "session_id": session, "content": "How do I reset my password?"}))
            while (event := json.loads(await line.recv()))["type"] != "answer":
                assert event["type"] != "error", event
            return event

    event = asyncio.run(asyncio.wait_for(ask(), 60))
    assert event["message"]["content"]
    assert event["message"]["sources"]
    stored = client.get(f"/api/sessions/{session}/messages").json()
    assert [message["role"] for message in stored] == ["user", "assistant"]
    assert stored[1]["content"] == event["message"]["content"]


def test_websocket_of_another_sites_page_is_refused(lab: Lab):
    async def connect() -> None:
        async with websockets.connect(f"wss://localhost:{lab.https_port}/ws", ssl=lab.tls(), origin="https://evil.example", proxy=None):
            pass

    with pytest.raises(websockets.InvalidStatus, match="403"):
        asyncio.run(asyncio.wait_for(connect(), 20))


def test_log_holds_the_clients_own_address(lab: Lab, stranger: Stranger):
    marker = uuid.uuid4().hex
    done = stranger.run(
        "import ssl, urllib.request as u; context = ssl._create_unverified_context(); "
        f"request = u.Request('https://{lab.balancer.address}/api/version?{marker}', headers={{'X-Forwarded-For': '203.0.113.9'}}); "
        "print(u.urlopen(request, context=context, timeout=10).status)"
    )
    assert done.stdout.strip() == "200", done.stderr
    lines = logged_requests(lab, marker)
    assert len(lines) == 1
    assert lines[0]["remote_addr"] == stranger.address
    assert lines[0]["forwarded_for"] == "203.0.113.9"
    assert (lines[0]["status"], lines[0]["method"]) == (200, "GET")
    assert lines[0]["upstream"]
    # What the client claims of itself never reaches the product.
    backends = [container for container in lab.containers() if container.kind == "backend"]
    logged = "".join(container.host.run(f"docker logs {container.name} 2>&1 | grep {marker} || true") for container in backends)
    assert stranger.address in logged
    assert "203.0.113.9" not in logged


def test_rotated_logs_are_left_alone_and_new_ones_written(lab: Lab, client: httpx.Client):
    host = lab.balancer
    folder = host.run("docker volume inspect --format '{{.Mountpoint}}' nginx_logs").strip()
    before, after = uuid.uuid4().hex, uuid.uuid4().hex
    client.get(f"/api/version?{before}")
    logged(lab, before)
    host.run("logrotate --force /etc/logrotate.d/slipway-nginx")
    wait_until(lambda: client.get(f"/api/version?{after}").status_code == 200 and after in access_log(lab), 15, "nginx writes a new log")
    assert before not in access_log(lab)
    rotated = host.run(f"cat {folder}/access.log.1")
    assert before in rotated
    # Its end: nothing is written to the old file after the new one began.
    wait_until(lambda: host.run(f"stat -c %s {folder}/access.log.1").strip() == str(len(rotated.encode())), 5, "the old log is at rest")
