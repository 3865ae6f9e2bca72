"""Notifications, with a real receiver, one that hangs and one that refuses."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.plugin_utils import forms, history, notifications

SECRET = "t7Hq2Lw9Zx4Nv6Bk8Mr3"


class Receiver(BaseHTTPRequestHandler):
    """Keeps what it gets, and answers as the path says."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
        last = self.path.rpartition("/")[2]
        self.send_response(int(last) if last.isdecimal() else 204)
        self.send_header("Location", "/moved")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    """A webhook's receiver at http://127.0.0.1:<port>."""
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    server.requests = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def bound_port(*, listens: bool) -> Iterator[str]:
    """The address of a port that takes connections and never answers, or refuses them."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        if listens:
            held.listen()
        yield f"127.0.0.1:{held.getsockname()[1]}"


def report(playbook: str = "deploy", **fields: Any) -> dict[str, Any]:
    """The report of a run, as far as it matters here."""
    return {
        "playbook": playbook,
        "inventory": ["inventories/shop"],
        "check_mode": False,
        "started": "2026-11-22T22:11:38Z",
        "finished": "2026-11-22T22:12:20Z",
        "duration_s": 41.7,
        "result": "ok",
        "changed": [],
        "failed": [],
        **fields,
    }


def message_of(found: dict[str, Any]) -> dict[str, Any]:
    return notifications.message(found, history.entry(found, "ops", "laptop", interrupted=False), "shop")


RELEASED = {"version": "1.1.0", "wanted": "1.1.0", "previous": "1.0.0", "outcome": "released", "prober": {"failed": 0}}
FAILURE = [{"host": "app1", "task": "Wait", "role": "", "message": "x" * 9000}]


@pytest.mark.parametrize(
    ("playbook", "fields", "expected"),
    [
        *[("deploy", {"outcome": outcome}, True) for outcome in ("released", "rolled_back", "unchanged", "refused", "unfinished")],
        ("rollback", {"outcome": "released"}, True),
        # A run of site.yml that released nothing is not a release; one that failed, or ended an earlier one, is notified.
        ("site", {"outcome": "unchanged"}, False),
        ("site", {}, False),
        ("site", {"outcome": "unchanged", "recovered": "undo"}, True),
        ("site", {"outcome": "released"}, True),
        ("site", {"result": "failed"}, True),
        ("backup", {}, False),
        ("backup", {"result": "failed"}, True),
        ("drill", {}, False),
        ("drill", {"result": "failed"}, True),
        ("rotate", {}, True),
        ("rotate", {"result": "failed"}, True),
        ("status", {"result": "failed"}, False),
        ("deploy", {"outcome": "released", "check_mode": True}, False),
    ],
)
def test_releases_rotations_and_failures_are_notified(playbook: str, fields: dict[str, Any], expected: bool):
    assert notifications.is_sent(report(playbook, **fields)) == expected


def test_a_message_of_a_release():
    found = message_of(report(**RELEASED))
    assert found["title"] == "shop: release 1.1.0 released"
    assert found["text"].splitlines() == [
        "deploy.yml ended after 42 s (inventories/shop).",
        "Version 1.1.0 serves, before 1.0.0.",
        "0 requests lost.",
        "By ops on laptop, 2026-11-22T22:12:20Z.",
    ]
    assert (found["event"], found["outcome"], found["requests_lost"], found["user"]) == ("release", "released", 0, "ops")


@pytest.mark.parametrize("last", ["unchanged", "released"])
def test_a_message_of_a_rotation_says_how_it_ended_and_not_its_last_release(last: str):
    found = message_of(report("rotate", **{**RELEASED, "outcome": last}))
    assert (found["title"], found["outcome"]) == ("shop: rotation ok", "ok")
    failed = message_of(report("rotate", result="failed", **{**RELEASED, "outcome": "refused"}))
    assert failed["title"] == "shop: rotation failed"


def test_a_message_says_what_failed_and_stays_short():
    found = message_of(report(result="failed", outcome="rolled_back", failed=FAILURE * 9, changed=[{"host": "app1"}]))
    assert found["title"] == "shop: release rolled back"
    assert [entry["host"] for entry in found["failed"]] == ["app1"] * 3
    assert len(json.dumps(found)) < 5000


def test_the_next_run_says_what_became_of_a_killed_one():
    assert (
        "The run first undid the release of an earlier run that was interrupted."
        in message_of(report(**RELEASED, recovered="undo"))["text"]
    )


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [([], "refused"), ([{"host": "app1"}], "failed")],
)
def test_a_run_that_ended_before_it_knew_the_version_has_an_outcome_too(changed: list[Any], outcome: str):
    assert message_of(report(result="failed", changed=changed))["outcome"] == outcome


def test_all_fields_of_a_message_are_documented(root: Path):
    text = (root / "docs/notifications.md").read_text()
    assert [field for field in message_of(report(**RELEASED)) if f"`{field}`" not in text] == []


@pytest.mark.usefixtures("programs")
def test_a_webhook_gets_the_message_as_json(receiver: HTTPServer):
    message = message_of(report(**RELEASED))
    host = receiver.url.removeprefix("http://")
    assert notifications.send([f"{receiver.url}/a?token=x#part", f"http://ops:p%40ss@{host}/b"], message, seconds=60.0) == {}
    first, second = sorted(receiver.requests, key=lambda request: request["path"])
    assert json.loads(first["body"]) == json.loads(second["body"]) == message
    assert (first["path"], second["path"]) == ("/a?token=x", "/b")
    assert first["headers"]["Content-Type"] == "application/json"
    assert second["headers"]["Authorization"] == "Basic b3BzOnBAc3M="


@pytest.mark.parametrize(
    ("given", "sent"), [("/ä%20b?t=€&c=%C3%A4", "/%C3%A4%20b?t=%E2%82%AC&c=%C3%A4"), ("/a,(b)'~?x=[1]", "/a,(b)'~?x=[1]")]
)
def test_a_url_is_sent_as_a_browser_encodes_it(receiver: HTTPServer, given: str, sent: str):
    assert notifications._post(receiver.url.replace("//", "//öps:pw@") + given, message_of(report()), 5.0) == ""
    (request,) = receiver.requests
    assert (request["path"], request["headers"]["Authorization"]) == (sent, "Basic w7Zwczpwdw==")


@pytest.mark.usefixtures("programs")
def test_a_target_that_is_away_keeps_the_others_from_nothing(receiver: HTTPServer):
    with bound_port(listens=True) as hangs, bound_port(listens=False) as refuses:
        targets = [
            f"http://{hangs}/{SECRET}",
            f"http://{refuses}/{SECRET}",
            f"{receiver.url}/500",
            f"{receiver.url}/302",
            f"{receiver.url}/ok",
        ]
        failed = notifications.send(targets, message_of(report(**RELEASED)), seconds=60.0)
    assert failed == {0: "no answer within 3 s", 1: "Connection refused", 2: "status 500", 3: "status 302"}
    # Neither was the redirect followed, nor did a reason take the address along.
    assert sorted(request["path"] for request in receiver.requests) == ["/302", "/500", "/ok"]


@pytest.mark.usefixtures("programs")
def test_sending_ends_in_time_whatever_the_target_does():
    with bound_port(listens=True) as hangs:
        assert notifications.send([f"http://{hangs}"], message_of(report()), seconds=0.1) == {0: "no answer within 0.1 s"}


def test_without_targets_no_process_is_started(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(notifications.subprocess, "Popen", None)
    assert notifications.send([], message_of(report())) == {}


@pytest.mark.usefixtures("programs")
def test_apprise_sends_title_and_text(receiver: HTTPServer):
    pytest.importorskip("apprise")
    host = receiver.url.removeprefix("http://")
    assert notifications.send([f"json://{host}/own"], message_of(report(**RELEASED)), seconds=120.0) == {}
    (request,) = receiver.requests
    body = json.loads(request["body"])
    assert (body["title"], body["type"]) == ("shop: release 1.1.0 released", "success")
    assert "Version 1.1.0 serves, before 1.0.0." in body["message"]


@pytest.mark.usefixtures("programs")
def test_a_target_of_apprise_that_refuses_says_how_to_try_it():
    pytest.importorskip("apprise")
    with bound_port(listens=False) as refuses:
        (reason,) = notifications.send([f"json://{SECRET}@{refuses}"], message_of(report()), seconds=120.0).values()
    assert reason == "apprise could not deliver it; try `apprise --body=test <URL>` on the controller"


FORM = forms.parsed({"list": "notification_url"})


def sentence(value: Any) -> str:
    (wrong,) = forms.problems(FORM, value)
    assert wrong.secret
    return wrong.sentence


@pytest.mark.parametrize(
    "url", ["https://hooks.example.com/x", "http://127.0.0.1:8080", "HTTPS://u:p@h/x", "json://localhost", "mailto://u:p@h.example"]
)
def test_urls_of_known_kinds_are_taken(url: str):
    pytest.importorskip("apprise")
    assert list(forms.problems(FORM, [url])) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"nosuch://{SECRET}", "or of a kind that apprise knows, which nosuch:// is not"),
        (f"slack://{SECRET}", "a complete URL of apprise's kind slack://; try it by `apprise --body=test <URL>`"),
        (f"https://{SECRET} x", "must be the URL of a webhook, as https://hooks.example.com/x, or one of apprise"),
        (f"https://h:{SECRET}/", "must be the URL of a webhook, as https://hooks.example.com/x, or one of apprise"),
        (SECRET, "or one of apprise, as slack://… or mailto://…"),
        (f"{SECRET}/{SECRET}://x", "or one of apprise, as slack://… or mailto://…"),
        (f"slack://{SECRET}\n", "must be the URL of a webhook"),
    ],
)  # fmt: skip
def test_other_urls_are_refused_without_their_secret(
    url: str, said: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    pytest.importorskip("apprise")
    assert said in sentence([url])
    assert SECRET not in sentence([url]) + "".join(capfd.readouterr()) + caplog.text


@pytest.mark.parametrize("value", [f"slack://{SECRET}", {"url": SECRET}, [{"url": SECRET}], [[SECRET]]])
def test_a_value_of_another_type_is_not_shown_either(value: Any):
    assert SECRET not in sentence(value)


def test_without_apprise_its_urls_alone_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert list(forms.problems(FORM, ["https://hooks.example.com/x"])) == []
    assert sentence([f"slack://{SECRET}"]) == (
        "must be the URL of a webhook, as https://hooks.example.com/x, unless the controller has the package apprise, "
        "which sends to slack://: `python3 -m pip install apprise`"
    )


@pytest.fixture
def run(checkout: Path, play: Any):
    """Run tasks as a playbook that sends notifications, and return what it printed."""

    def run(variables: dict[str, Any], tasks: list[dict[str, Any]], playbook: str = "deploy") -> Any:
        (checkout / "inventories/test/group_vars/all/own.yml").write_text(json.dumps({"slipway_stack": "shop", **variables}))
        (checkout / f"playbooks/{playbook}.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        return play(playbook)

    return run


FAIL = [{"name": "Wait", "ansible.builtin.fail": {"msg": "no {{ vault_token }} here"}, "when": "inventory_hostname == 'two'"}]


def test_a_run_notifies_whom_its_inventory_names(receiver: HTTPServer, run: Any, checkout: Path):
    variables = {"vault_hook": f"{receiver.url}/{SECRET}", "vault_token": SECRET, "slipway_notify": ["{{ vault_hook }}"]}
    done = run(variables, FAIL)
    (request,) = receiver.requests
    body = json.loads(request["body"])
    assert (body["stack"], body["event"], body["outcome"]) == ("shop", "release", "refused")
    assert body["failed"] == [{"host": "two", "task": "Wait", "message": "no (secret) here"}]
    assert SECRET not in request["body"].decode() + done.stderr + (checkout / "reports/deploy-latest.json").read_text()
    assert "WARNING" not in done.stderr


def test_a_target_that_refuses_is_a_warning_and_the_run_ends_as_it_did(run: Any):
    with bound_port(listens=False) as refuses:
        done = run({"slipway_notify": [f"http://{refuses}/{SECRET}"]}, [{"ansible.builtin.debug": {"msg": "x"}}])
    assert done.returncode == 0
    assert "slipway_notify[0] (http) was not notified: Connection refused" in " ".join(done.stderr.split())
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("urls", ["{{ vault_missing }}", ["{{ vault_missing }}"], f"slack://{SECRET}"])
def test_urls_that_cannot_be_read_do_not_fail_the_end_of_a_run(run: Any, urls: Any):
    done = run({"slipway_notify": urls}, [{"ansible.builtin.debug": {"msg": "x"}}])
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
