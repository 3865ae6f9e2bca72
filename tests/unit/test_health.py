# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a container counts as healthy, and how often it is asked while it boots."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils import health
from ansible_collections.slipway.stack.plugins.module_utils.health import NeverError, Watch
from ansible_collections.slipway.stack.plugins.modules.http_answers import Asker, GoneError

SECOND = 10**9


class Engine:
    """An engine with one container, whose state a test sets, and which counts the commands that run in it."""

    def __init__(self, health_status: str = "starting", start_interval: float = 0, passes: bool = False) -> None:
        self.state: dict[str, Any] = {"Status": "running", "Running": True, "Health": {"Status": health_status, "Log": []}}
        check = {"Test": ["CMD", "check"], "StartInterval": int(start_interval * SECOND), "Timeout": SECOND}
        self.container: dict[str, Any] = {
            "State": self.state, "Config": {"Healthcheck": check}, "RestartCount": 0, "NetworkSettings": {"Ports": {}, "Networks": {}},
        }  # fmt: skip
        self.passes = passes
        self.commands = 0

    def inspect(self, _name: str) -> dict[str, Any]:
        return self.container

    def execute(self, _name: str, _argv: list[str], **_options: Any) -> tuple[int, str, str]:
        self.commands += 1
        return (0 if self.passes else 1), "", ""

    def image_id(self, _image: str) -> str:
        return "sha256:new"

    def logs(self, _name: str, _lines: int) -> str:
        return "the last line"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time that the module sees, in a list of one."""
    now = [100.0]
    monkeypatch.setattr(health.time, "monotonic", lambda: now[0])
    return now


def looks(watch: Watch, clock: list[float], seconds: float) -> list[bool]:
    """Return what a watch says when it looks as often as the modules do."""
    said = []
    for _ in range(int(seconds / health.INTERVAL)):
        said.append(watch.ready())
        clock[0] += health.INTERVAL
    return said


def test_the_engines_word_is_enough(clock: list[float]):
    engine = Engine("healthy")
    assert looks(Watch(engine, "a"), clock, 0.2) == [True]
    assert engine.commands == 0


@pytest.mark.parametrize(("seconds", "ready"), [(1, False), (health.STEADY_SECONDS + 1, True)])
def test_what_has_no_health_check_must_have_run_for_a_while(seconds: float, ready: bool):
    """A worker that ends at once is running at most moments: its restart policy starts it again."""
    engine = Engine("none")
    engine.state["StartedAt"] = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)).isoformat().replace("+00:00", "123Z")
    assert Watch(engine, "a").ready() is ready


def test_a_service_that_starts_at_once_is_not_waited_for():
    """The engine asks after its interval only, which is a second at best."""
    engine = Engine(start_interval=1, passes=True)
    assert Watch(engine, "a").ready()
    assert engine.commands == 1


def test_a_service_that_boots_is_not_kept_from_it(clock: list[float]):
    """Each check starts processes; an engine that asks each second needs no second asker for long, an older one does."""
    often, seldom = Engine(start_interval=1), Engine()
    assert not any(looks(Watch(often, "a"), clock, 20))
    assert 2 <= often.commands <= 4
    assert not any(looks(Watch(seldom, "a"), clock, 20))
    assert 15 <= seldom.commands <= 25


def test_a_command_is_asked_for_again_and_again(clock: list[float]):
    engine = Engine("healthy", start_interval=1)
    assert not any(looks(Watch(engine, "a", ["ready"]), clock, 20))
    assert 15 <= engine.commands <= 25


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Status": "exited", "ExitCode": 3}, "exited with exit status 3"),
        ({"Status": "exited", "ExitCode": 137, "OOMKilled": True}, "killed at its memory limit"),
        ({"Health": {"Status": "unhealthy"}}, "unhealthy"),
    ],
)
def test_what_cannot_become_healthy_is_not_waited_for(change: dict[str, Any], said: str):
    engine = Engine()
    watch = Watch(engine, "a")
    engine.state.update(change)
    with pytest.raises(NeverError, match=said):
        watch.ready()


def test_a_container_that_restarts_again_and_again_never_becomes_healthy():
    engine = Engine()
    engine.container["RestartCount"] = 7
    watch = Watch(engine, "a")
    assert not watch.ready()
    engine.container["RestartCount"] = 7 + health.RESTARTS_MEANING_FAILURE
    with pytest.raises(NeverError, match="restarts repeatedly"):
        watch.ready()


@contextlib.contextmanager
def server(version: str) -> Iterator[int]:
    """Serve an application's readiness on a port, which is yielded."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f'{{"version": "{version}"}}'.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Be quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_port
        running.shutdown()


@contextlib.contextmanager
def pages(answers: dict[str, tuple[int, str]], name: str = "") -> Iterator[int]:
    """Serve pages by path, and 404 otherwise; with a name, 400 to who asks for another one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, "")) if not name or self.headers["Host"] == name else (400, "")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_arguments: object) -> None:
            """Be quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_port
        running.shutdown()


def gate(engine: Engine, port: int, **more: Any) -> Asker:
    """Return what a release asks a backend of its new slot, published on a port."""
    engine.container["NetworkSettings"]["Ports"] = {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    asked = {"port": 8000, "path": "/ready", "version_path": more.pop("version_path", ""), "version_field": "version"}
    options = {
        "containers": {"a": asked}, "urls": [], "healthy": {"a": 30}, "path": "", "host_header": "", "version": "2.0",
        "version_field": "version", "times": 1, "restarts": {}, "timeout": 10.0, "log_lines": 20, **more,
    }  # fmt: skip
    return Asker(engine, "a", options)


def test_the_gate_needs_the_answer_the_version_and_the_health():
    with server("2.0") as port:
        engine = Engine(start_interval=1)
        asker = gate(engine, port)
        assert not asker.done()
        engine.state["Health"]["Status"] = "healthy"
        assert asker.done()
        assert asker.restarts == 0
        assert not gate(Engine("healthy"), port, version="3.0").done()


def test_a_backend_that_does_not_answer_is_not_asked_in_its_container_too(clock: list[float]):
    with server("1.0") as port:
        engine = Engine()
        asker = gate(engine, port)
        for _ in range(50):
            assert not asker.done()
            clock[0] += 0.1
        assert engine.commands == 0


def test_the_gate_says_what_was_missing(clock: list[float]):
    with server("1.0") as port:
        asker = gate(Engine("healthy"), port)
        assert not asker.done()
        clock[0] += 11
        with pytest.raises(GoneError, match=r"a /ready reports version 1\.0 instead of 2\.0 after 10 s.\nLast log lines:\nthe last line"):
            asker.done()
    asker = gate(Engine(), port)
    clock[0] += 31
    with pytest.raises(GoneError, match=r"a did not become healthy within 30 s\.\nLast log lines:\nthe last line"):
        asker.done()
    died = Engine()
    asker = gate(died, port)
    died.state.update(Status="exited", Running=False, ExitCode=1)
    with pytest.raises(GoneError, match="a is exited with exit status 1"):
        asker.done()


@pytest.mark.parametrize(
    ("answers", "path", "wrong"),
    [
        # Reported where it is ready, or on a path of its own.
        ({"/ready": (200, '{"version": "2.0"}')}, "/version", ""),
        ({"/ready": (200, "fine"), "/version": (200, '{"version": "2.0"}')}, "/version", ""),
        ({"/ready": (200, '{"version": "1.0"}')}, "/version", "/ready reports version 1.0 instead of 2.0"),
        ({"/ready": (200, "fine"), "/version": (200, '{"version": "1.0"}')}, "/version", "/version reports version 1.0 instead of 2.0"),
        ({"/ready": (200, "fine"), "/version": (200, "<html>")}, "/version", "set version_path in app_services to where"),
        ({"/ready": (200, "fine"), "/version": (302, "")}, "/version", "/version answers 302"),
        ({"/ready": (503, "")}, "/version", "/ready answers 503"),
    ],
)
def test_a_version_is_taken_from_where_the_product_reports_it(answers: dict[str, tuple[int, str]], path: str, wrong: str):
    with pages(answers) as port:
        asker = gate(Engine("healthy"), port, version_path=path)
        assert asker.done() is not bool(wrong)
        assert wrong in asker._wrong()
        assert not asker.unreported


@pytest.mark.parametrize("path", ["", "/version"])
@pytest.mark.parametrize(
    ("label", "image", "wrong"),
    [
        ("2.0", "sha256:new", ""),
        ("1.0", "sha256:new", "its container was made for version 1.0 instead of 2.0"),
        ("2.0", "sha256:old", "runs another image than shop:2.0 is now"),
    ],
)
def test_a_product_that_reports_no_version_is_judged_by_its_image(path: str, label: str, image: str, wrong: str):
    with pages({"/ready": (200, "fine")}) as port:
        engine = Engine("healthy")
        engine.container["Image"] = image
        engine.container["Config"] |= {"Image": "shop:2.0", "Labels": {"slipway.version": label}}
        asker = gate(engine, port, version_path=path)
        assert asker.done() is not bool(wrong)
        assert asker.unreported
        assert wrong in asker._wrong()


def test_a_product_that_answers_to_its_own_name_only_is_asked_by_it():
    with pages({"/ready": (200, '{"version": "2.0"}')}, name="shop.example") as port:
        assert gate(Engine("healthy"), port, host_header="shop.example").done()
        assert not gate(Engine("healthy"), port).done()


def test_a_backend_that_has_died_since_is_reported_at_once():
    with server("2.0") as port:
        engine = Engine("healthy")
        engine.container["RestartCount"] = 1
        with pytest.raises(GoneError, match="a has died since it was ready"):
            gate(engine, port, healthy={}, restarts={"a": 0}).done()


TRACEBACK = """\
Traceback (most recent call last):
  File "<string>", line 1, in <module>
    import socket; c = socket.create_connection(("127.0.0.1", 3000), 4)
                       ~~~~~~~~~~~~~~~~~~~~~~~~^^^^^^^^^^^^^^^^^^^^^^^^
ConnectionRefusedError: [Errno 111] Connection refused
http://127.0.0.1:3000/alive answered '', not 200 to 299
"""


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (TRACEBACK, "ConnectionRefusedError: [Errno 111] Connection refused\nhttp://127.0.0.1:3000/alive answered '', not 200 to 299"),
        ("  indented\nplain\n", "  indented\nplain"),
        ("", ""),
    ],
)
def test_a_health_check_is_reported_without_the_frames_of_a_traceback(monkeypatch: pytest.MonkeyPatch, output: str, expected: str):
    assert health.without_frames(output) == expected
    monkeypatch.setattr(health, "keep_log", lambda *_arguments: "")
    engine = Engine("unhealthy")
    engine.state["Health"]["Log"] = [{"ExitCode": 1, "Output": output}]
    engine.container["Config"]["Labels"] = {}
    assert Watch(engine, "api").explain("is unhealthy", 5) == (  # type: ignore[arg-type]
        f"api is unhealthy.\nLast health check (status 1): {expected.strip()}\nLast log lines:\nthe last line"
    )
