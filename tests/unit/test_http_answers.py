# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate of a release takes for an answer, and where it asks."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils.engine import EngineError
from ansible_collections.slipway.stack.plugins.modules.http_answers import ask, container_url, judge


@pytest.mark.parametrize(
    ("status", "body", "version", "said"),
    [
        (200, '{"version": "1.1"}', "1.1", ""),
        # A number is a version too.
        (204, '{"version": 2}', "2", ""),
        (200, "fine", "", ""),
        (200, '{"version": "1.0"}', "1.1", "reports version 1.0 instead of 1.1"),
        (200, "{}", "1.1", "reports no version"),
        (200, "fine", "1.1", "reports no version: its answer is not a JSON object with the field version"),
        (200, '["1.1"]', "1.1", "reports no version"),
        (503, '{"version": "1.1"}', "1.1", 'answers 503: {"version": "1.1"}'),
        (301, "", "", "answers 301"),
    ],
)
def test_an_answer_counts_with_its_status_and_the_version_that_is_asked_for(status: int, body: str, version: str, said: str) -> None:
    found = judge(status, body, version, "version")
    assert found.startswith(said)
    assert bool(found) == bool(said)


def inspected(running: bool = True, bindings: Any = None, address: str = "172.18.0.5") -> dict[str, Any]:
    """Return what the engine says of a container."""
    networks = {"slipway-backend": {"IPAddress": address}}
    return {"State": {"Running": running}, "NetworkSettings": {"Ports": {"8000/tcp": bindings}, "Networks": networks}}


@pytest.mark.parametrize(
    ("bindings", "url"),
    [
        # Where balancers on other hosts reach it, so that what keeps them out keeps the gate shut.
        ([{"HostIp": "10.0.0.4", "HostPort": "8100"}], "http://10.0.0.4:8100"),
        ([{"HostIp": "0.0.0.0", "HostPort": "8100"}], "http://127.0.0.1:8100"),
        (None, "http://172.18.0.5:8000"),
    ],
)
def test_a_container_is_asked_where_it_is_published(bindings: Any, url: str) -> None:
    assert container_url(inspected(bindings=bindings), "backend", 8000) == url


@pytest.mark.parametrize("state", [None, inspected(running=False), inspected(address="")])
def test_a_container_that_cannot_be_asked_is_an_error(state: Any) -> None:
    with pytest.raises(EngineError):
        container_url(state, "backend", 8000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the name that it was asked by, with less than it promises, with something else than HTTP, or not at all."""

    def do_GET(self) -> None:
        body = self.headers["Host"].encode()
        if self.path == "/cut":
            return
        if self.path == "/other-protocol":
            self.wfile.write(b"SSH-2.0-x\r\n")
            return
        self.send_response(200 if self.path == "/ready" else 500)
        self.send_header("Content-Length", str(len(body) + (9 if self.path == "/half" else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def test_answers_are_read_as_they_come(server: str) -> None:
    assert ask(server, "/ready", "") == (200, server.removeprefix("http://"))
    assert ask(server, "/other", "shop.example") == (500, "shop.example")
    for path, said in (("/cut", "without response"), ("/other-protocol", "BadStatusLine"), ("/half", "9 bytes too early")):
        with pytest.raises(OSError, match=said):
            ask(server, path, "")


def test_a_refused_connection_is_an_error(server: str) -> None:
    # The server listens on one address of the machine only.
    with pytest.raises(OSError, match="refused"):
        ask(server.replace("127.0.0.1", "127.0.0.2"), "/ready", "")
