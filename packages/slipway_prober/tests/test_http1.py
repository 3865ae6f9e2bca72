"""HTTP/1.1 clients against a server that misbehaves."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import h11
import pytest
from misbehaving import Server, probed

from slipway_prober.answers import KEPT_BODY_BYTES, AnswerError
from slipway_prober.http1 import Http1Client, Http1Connection, Http1Load
from slipway_prober.meter import Meter
from slipway_prober.schedule import Job, pace
from slipway_prober.settings import SettingsError

pytest_plugins = ["prober_fixtures"]


def test_requests_are_sent_at_the_rate_over_connections_that_stay(certificate: Path):
    numbers, server = probed(
        certificate, 1.0, rate=100, connections=10, connections_max=10, post_share=0.25, post_path="/api", post_body='{"a":1}', path="/ok",
        version_json_field="build.version",
    )  # fmt: skip
    assert 60 <= numbers["requests"] <= 100 * numbers["seconds"] + 1
    assert numbers["failed"] == numbers["reopened"] == numbers["in_flight"] == 0
    assert server.connections == 10
    assert len(server.seen) == numbers["requests"]
    assert server.seen.count('POST /api {"a":1}') == numbers["requests"] // 4
    assert numbers["versions"] == {"1.2.3": {"answers": numbers["requests"], "failed": 0}}
    assert 0 < numbers["latency_ms"]["p50"] <= numbers["latency_ms"]["p99"] <= numbers["latency_ms"]["max"] < 1000


@pytest.mark.parametrize("path", ["/chunked", "/close", "/ok"])
def test_every_way_to_end_an_answer_is_understood(certificate: Path, path: str):
    numbers, _ = probed(certificate, 0.5, rate=40, connections=4, path=path)
    assert numbers["requests"] >= 10
    assert numbers["failed"] == 0, numbers["failures"]
    assert numbers["reopened"] == 0


def test_connections_that_the_server_closed_while_idle_are_opened_again_without_a_failure(certificate: Path):
    def impatient(server: Server) -> None:
        server.idle_seconds = 0.05

    # Each connection is used every 200 ms.
    numbers, server = probed(certificate, 1.0, setup=impatient, rate=20, connections=4, connections_max=4)
    assert numbers["failed"] == 0, numbers["failures"]
    assert numbers["reopened"] >= 6
    assert server.connections == numbers["reopened"] + 4


def served_by(certificate: Path, script: list[str], methods: list[str]) -> tuple[dict[str, Any], Server]:
    """Let one client send requests one after the other to a server that treats them as the script says."""

    async def run() -> tuple[dict[str, Any], Server]:
        async with Server(certificate) as server:
            server.script = script
            settings, meter = server.settings(post_body="x"), Meter()
            client = Http1Client(settings, settings.context(), meter, settings.targets[0])
            for method in methods:
                now = asyncio.get_running_loop().time()
                await client.serve(Job(now, settings.targets[0], method, "/ok", b"x" if method == "POST" else b""))
            client.drop()
            return meter.snapshot(), server

    return asyncio.run(run())


@pytest.mark.parametrize("end", ["/silence", "/reset"])
def test_a_kept_connection_that_is_closed_when_a_get_arrives_is_one_request_on_a_new_connection(certificate: Path, end: str):
    """RFC 9112, section 9.3.1."""
    numbers, server = served_by(certificate, ["/ok", end, "/ok", "/ok"], ["GET"] * 3)
    assert (numbers["requests"], numbers["failed"], numbers["retried_idle_closes"], numbers["reopened"]) == (3, 0, 1, 1), numbers
    assert (len(server.seen), server.connections) == (4, 2)


@pytest.mark.parametrize(
    ("script", "methods"),
    [
        pytest.param(["/silence"], ["GET"], id="a new connection"),
        pytest.param(["/reset"], ["GET"], id="a new connection that is reset"),
        pytest.param(["/close", "/silence"], ["GET", "GET"], id="a new connection after one that was used up"),
        pytest.param(["/ok", "/silence"], ["GET", "POST"], id="a method that may have changed something"),
        pytest.param(["/ok", "/byte"], ["GET", "GET"], id="an answer that had begun"),
    ],
)
def test_any_other_request_whose_connection_is_closed_is_a_failure_and_is_sent_once(
    certificate: Path, script: list[str], methods: list[str]
):
    sent = len(script)
    numbers, server = served_by(certificate, script, methods)
    assert (numbers["requests"], numbers["failed"], numbers["retried_idle_closes"]) == (sent, 1, 0), numbers
    assert len(server.seen) == sent


def test_a_retry_is_not_retried(certificate: Path):
    numbers, server = served_by(certificate, ["/ok", "/silence", "/silence", "/ok"], ["GET", "GET"])
    assert (numbers["failed"], numbers["retried_idle_closes"], server.connections, len(server.seen)) == (1, 1, 2, 3)
    assert numbers["failures"][0]["reason"] == "connection closed before an answer"


@pytest.mark.parametrize(("path", "failed"), [("/endless", 0), ("/endless-cut", 1), ("/cut", 0)])
def test_only_an_answer_of_unknown_length_needs_an_orderly_end_of_tls(certificate: Path, path: str, failed: int):
    """RFC 9112, section 9.8."""
    numbers, _ = served_by(certificate, [path], ["GET"])
    assert (numbers["requests"], numbers["failed"]) == (1, failed), numbers["failures"]


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Wire(asyncio.Transport):
    """Takes what is written."""

    def write(self, data: Any) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


def read(data: bytes, step: int, method: str = "GET", *, ends: bool = False) -> tuple[int, bytes, bool]:
    """Return status, body and whether the connection is kept, of an answer that arrives in steps of so many bytes."""

    async def run() -> tuple[int, bytes, bool]:
        connection = Http1Connection()
        connection.connection_made(Wire())
        exchange = asyncio.ensure_future(connection.exchange(h11.Request(method=method, target="/", headers=[("Host", "x")]), b""))
        await asyncio.sleep(0)
        for begin in range(0, len(data), step):
            connection.data_received(data[begin : begin + step])
        if ends:
            connection.eof_received()
        answer = await asyncio.wait_for(exchange, 5)
        return answer.status, bytes(answer.body), not connection.closed

    return asyncio.run(run())


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("method", "data", "ends", "expected"),
    [
        ("GET", OK + b"Content-Length: 3\r\n\r\nall", False, (200, b"all", True)),
        ("GET", OK + b"Content-Length: 3\r\nConnection: close\r\n\r\nall", False, (200, b"all", False)),
        ("GET", CHUNKED + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n", False, (200, b"abcde", True)),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
         False, (200, b"", True)),
        ("HEAD", OK + b"Content-Length: 300\r\n\r\n", False, (200, b"", True)),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", False, (204, b"", True)),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 300\r\n\r\n", False, (304, b"", True)),
        ("GET", b"HTTP/1.0 200 OK\r\n\r\nall", True, (200, b"all", False)),
        ("GET", OK + b"\r\nall", True, (200, b"all", False)),
        ("GET", OK + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000, False, (200, b"x" * KEPT_BODY_BYTES, True)),
    ],
    ids=["counted", "closing", "chunked", "interim", "HEAD", "204", "304", "HTTP/1.0", "until the end", "long"],
)  # fmt: skip
def test_answers_are_read_however_they_arrive(method: str, data: bytes, ends: bool, expected: tuple[int, bytes, bool], step: int):
    assert read(data, step if len(data) < 1000 else max(step, 1000), method, ends=ends) == expected


@pytest.mark.parametrize("step", [1, 100_000])
@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"SSH-2.0-x\r\n\r\n", "no valid HTTP/1.1 answer: illegal status line"),
        (OK + b"Content-Length: x\r\n\r\n", "no valid HTTP/1.1 answer: bad Content-Length"),
        (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "no valid HTTP/1.1 answer: conflicting Content-Length"),
        (CHUNKED + b"zz\r\n", "no valid HTTP/1.1 answer: illegal chunk header"),
        (CHUNKED + b"1\r\nabc\r\n", "no valid HTTP/1.1 answer"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "no valid HTTP/1.1 answer"),
        (OK + b"X: " + b"x" * 70_000, "no valid HTTP/1.1 answer: .*too"),
        (b"HTTP/1.1 200", "connection closed in the middle of the answer"),
        (OK + b"Content-Length: 3\r\n\r\nal", "connection closed in the middle of the answer"),
        (CHUNKED + b"3\r\nabc\r\n", "connection closed in the middle of the answer"),
        (b"", "connection closed before an answer"),
    ],
    ids=["garbage", "length", "lengths", "chunk size", "chunk", "upgrade", "head", "cut head", "cut body", "cut chunks", "nothing"],
)
def test_an_incomplete_or_invalid_answer_is_a_failure_that_says_why(data: bytes, problem: str, step: int):
    with pytest.raises(AnswerError, match=problem):
        read(data, step if len(data) < 1000 else max(step, 1000), ends=True)


def test_an_answer_that_goes_on_behind_its_end_is_a_failure():
    with pytest.raises(AnswerError, match="more bytes than the answer has"):
        read(OK + b"Content-Length: 1\r\n\r\nab", 100)


def test_a_connection_reset_after_the_post_was_read_is_one_failure_and_no_retry(certificate: Path):
    numbers, server = probed(certificate, 0.3, rate=4, connections=1, post_share=1, post_path="/reset", post_body="x")
    assert numbers["requests"] == numbers["failed"] == len(server.seen) >= 1
    assert numbers["longest_gap_ms"] >= 290
    failure = numbers["failures"][0]
    assert failure["reason"] in {"connection reset before an answer", "connection closed before an answer"}
    assert failure["target"] == f"127.0.0.1:{server.port}"
    assert failure["request"] == "POST /reset"
    assert failure["time"].endswith("Z")


def test_an_answer_that_ends_too_early_is_a_failure(certificate: Path):
    numbers, _ = probed(certificate, 0.1, rate=10, path="/half")
    assert numbers["failed"] == numbers["requests"] >= 1
    assert "in the middle of the answer" in numbers["failures"][0]["reason"]


def test_statuses_that_are_not_accepted_fail_and_keep_the_connection(certificate: Path):
    async def breaks(server: Server, _: Meter) -> None:
        await asyncio.sleep(0.5)
        server.status = 502

    numbers, server = probed(certificate, 1.0, breaks, rate=100, connections=2, connections_max=2, version_header="x-instance")
    assert 15 <= numbers["failed"] < numbers["requests"] - 15
    assert {failure["reason"] for failure in numbers["failures"]} == {"status 502"}
    assert server.connections == 2
    assert numbers["versions"]["blue"]["failed"] == numbers["failed"]
    assert numbers["longest_gap_ms"] >= 400
    assert probed(certificate, 0.2, breaks, rate=20, accepted_statuses=[502], setup=lambda it: setattr(it, "status", 502))[0]["failed"] == 0


def test_a_gap_is_measured_and_late_answers_do_not_slow_the_rate(certificate: Path):
    async def pauses(server: Server, meter: Meter) -> None:
        await asyncio.sleep(0.4)
        meter.mark("pause")
        server.gate.clear()
        await asyncio.sleep(0.5)
        server.gate.set()
        await asyncio.sleep(0.1)
        meter.mark("after")

    numbers, server = probed(certificate, 1.5, pauses, rate=100, connections=5, connections_max=100)
    assert numbers["failed"] == 0
    assert numbers["requests"] >= 100
    # Not at most: what is more than the server's pause is the machine's.
    assert numbers["longest_gap_ms"] >= 400
    assert numbers["latency_ms"]["max"] >= 400
    assert server.connections > 20, "late answers take further connections"
    pause, after = numbers["marks"]
    assert (pause["name"], after["name"]) == ("pause", "after")
    assert pause["since"]["longest_gap_ms"] == pause["until_next"]["longest_gap_ms"] == numbers["longest_gap_ms"]
    assert after["since"]["longest_gap_ms"] < numbers["longest_gap_ms"]
    assert numbers["requests"] > pause["since"]["requests"] > after["since"]["requests"] > 10
    assert pause["since"]["requests"] == pause["until_next"]["requests"] + after["since"]["requests"]


def test_connections_are_bounded_and_requests_wait_for_one(certificate: Path):
    async def hangs(server: Server, _: Meter) -> None:
        server.gate.clear()
        await asyncio.sleep(0.8)
        server.gate.set()

    numbers, server = probed(certificate, 0.5, hangs, rate=20, connections=2, connections_max=3, timeout_seconds=5)
    assert server.connections == 3
    assert numbers["failed"] == 0
    assert numbers["requests"] == len(server.seen) > 5
    # Time counts from when a request was due, not from when a connection was free.
    assert numbers["latency_ms"]["max"] >= 600


def test_requests_fail_when_their_time_is_over(certificate: Path):
    async def hangs(server: Server, _: Meter) -> None:
        server.gate.clear()
        await asyncio.sleep(1.5)
        server.gate.set()

    numbers, _ = probed(certificate, 0.5, hangs, rate=20, connections=2, connections_max=3, timeout_seconds=0.5)
    assert numbers["requests"] == numbers["failed"] > 5
    assert numbers["in_flight"] == 0
    assert {failure["reason"] for failure in numbers["failures"]} == {"no answer within 0.5 s"}
    assert numbers["last_success"] is None
    assert numbers["longest_gap_ms"] >= 490


@pytest.mark.parametrize("name", [".example.test", "*.example.test" + "x" * 70, "a" * 64 + ".test", "", "ü" * 70])
def test_a_name_that_cannot_be_asked_for_is_a_failure_of_each_request(certificate: Path, name: str):
    """Its error is not one of a connection, and must not take the client away with it."""
    target = {"address": "127.0.0.1", "port": 1, "server_name": name}
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        target["port"] = listening.getsockname()[1]
        try:
            numbers, _ = probed(certificate, 0.5, rate=20, connections=1, connections_max=1, timeout_seconds=0.5, targets=[target])
        except SettingsError:
            return
    assert numbers["in_flight"] == 0
    assert numbers["requests"] == numbers["failed"] > 5


def test_what_was_not_answered_when_it_ended_has_failed(certificate: Path):
    """Those that wait for a connection, too."""

    def stuck(server: Server) -> None:
        server.gate.clear()

    async def run() -> dict[str, Any]:
        server = Server(certificate)
        stuck(server)
        async with server:
            meter = Meter()
            load = Http1Load(server.settings(rate=20, connections=1, connections_max=1, timeout_seconds=30), meter)
            for _ in range(5):
                load.submit(asyncio.get_running_loop().time())
            await load.finish(0.3)
            server.gate.set()
            return meter.snapshot()

    numbers = asyncio.run(run())
    assert numbers["in_flight"] == 0
    assert numbers["requests"] == numbers["failed"] == 5
    assert {failure["reason"] for failure in numbers["failures"]} == {"no answer when the prober ended"}


def test_a_refused_connection_and_a_foreign_certificate_are_failures(certificate: Path):
    async def refused() -> dict[str, Any]:
        async with Server(certificate) as server:
            settings = server.settings(rate=20)
        meter, stopped = Meter(), asyncio.Event()
        load = Http1Load(settings, meter)
        asyncio.get_running_loop().call_later(0.2, stopped.set)
        await pace(20, meter, [load.submit], stopped)
        await load.finish(1)
        return meter.snapshot()

    numbers = asyncio.run(refused())
    assert numbers["failed"] == numbers["requests"] >= 3
    assert numbers["failures"][0]["reason"] == "connection refused"
    # Without the server's CA, the machine's own list decides.
    numbers, _ = probed(certificate, 0.1, rate=10, ca_file="")
    assert numbers["failures"][0]["reason"].startswith("certificate: ")
    assert probed(certificate, 0.1, rate=10, ca_file="", verify=False)[0]["failed"] == 0
