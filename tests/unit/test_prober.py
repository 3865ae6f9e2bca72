"""The prober, its action and the load generator against a server that misbehaves on request, through TLS."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.slipway.stack.plugins.action.release_probe import SETTINGS
from ansible_collections.slipway.stack.plugins.module_utils import prober
from ansible_collections.slipway.stack.plugins.module_utils.prober import Answer, AnswerError, Meter, Settings, SettingsError
from conftest import ROOT

PROBER = ROOT / "plugins/module_utils/prober.py"


def write_certificate(path: Path) -> Path:
    """Write a self-signed certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.timezone.utc)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + private)
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


class Server:
    """Answers each path in its own way, and counts what it read."""

    def __init__(self, certificate: Path) -> None:
        self.certificate = certificate
        self.port = 0
        self.seen: list[str] = []
        self.connections = 0
        self.websockets: list[asyncio.StreamWriter] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.status = 200
        self.idle_seconds = 60.0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()

    def settings(self, **options: Any) -> Settings:
        target = {"address": "127.0.0.1", "port": self.port, "server_name": "localhost"}
        return Settings.parse({"targets": [target], "ca_file": str(self.certificate), "timeout_seconds": 2, **options})

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), self.idle_seconds)).decode()
                method, path, _ = head.split("\r\n")[0].split(" ")
                headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in head.split("\r\n")[1:]}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.seen.append(f"{method} {path} {body.decode()}".strip())
                if headers.get("upgrade") == "websocket" and path != "/none":
                    await self._websocket(headers["sec-websocket-key"], reader, writer)
                    return
                if not await self._answer(path, writer):
                    return
        except (asyncio.IncompleteReadError, asyncio.TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> bool:
        """Answer, and return whether the connection goes on."""
        await self.gate.wait()
        body = b'{"build": {"version": "1.2.3"}}'
        status = 404 if path == "/none" else self.status
        plain = b"HTTP/1.1 %d X\r\nX-Instance: blue\r\nContent-Length: %d\r\n" % (status, len(body))
        if path == "/reset":
            writer.transport.abort()
            return False
        if path == "/half":
            writer.write(plain + b"\r\n" + body[:5])
            return False
        if path == "/close":
            writer.write(plain + b"Connection: close\r\n\r\n" + body)
            return False
        if path == "/chunked":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhel")
            await asyncio.sleep(0.01)
            writer.write(b"lo\r\n0\r\nTrailer: x\r\n\r\n")
            return True
        writer.write(plain + b"\r\n" + body)
        return True

    async def _websocket(self, key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        head = f"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        writer.write(head.encode())
        self.websockets.append(writer)
        try:
            while True:
                first, second = await reader.readexactly(2)
                mask = await reader.readexactly(4)
                payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(await reader.readexactly(second & 0x7F)))
                self.seen.append(f"frame {first & 0xF:x} {payload!r}")
                if first & 0xF == 8:
                    writer.write(bytes([0x88, len(payload)]) + payload)
                    return
                if first & 0xF == 9 and self.gate.is_set():
                    writer.write(bytes([0x8A, len(payload)]) + payload)
        finally:
            if writer in self.websockets:
                self.websockets.remove(writer)


Scene = Callable[[Server, Meter], Awaitable[None]]


def probed(
    certificate: Path,
    seconds: float,
    scene: Scene | None = None,
    *,
    setup: Callable[[Server], None] | None = None,
    patience: float = 2,
    **options: Any,
):
    """Run clients for a time against a new server, while a scene plays; return the numbers and the server.

    WebSockets get `patience` seconds to end in order.
    """

    async def run() -> tuple[dict[str, Any], Server]:
        server = Server(certificate)
        if setup:
            setup(server)
        async with server:
            settings = server.settings(**options)
            meter = Meter()
            load, websockets = prober.Http1Load(settings, meter), prober.WebSocketLoad(settings, meter)
            stopped = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, stopped.set)
            websockets.start()
            playing = asyncio.ensure_future(scene(server, meter)) if scene else None
            await prober.pace(settings.rate, meter, [load.submit], stopped)
            meter.stop()
            await asyncio.gather(load.finish(settings.timeout_seconds), websockets.finish(patience))
            if playing:
                await playing
            return meter.snapshot(), server

    return asyncio.run(run())


def test_requests_are_sent_at_the_rate_over_connections_that_stay(certificate: Path):
    numbers, server = probed(
        certificate, 1.0, rate=100, connections=10, connections_max=10, post_share=0.25, post_path="/api", post_body='{"a":1}', path="/ok",
        version_json_field="build.version",
    )  # fmt: skip
    assert 60 <= numbers["requests"] <= 101
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


def test_a_connection_reset_after_the_post_was_read_is_one_failure_and_no_retry(certificate: Path):
    numbers, server = probed(certificate, 0.3, rate=4, connections=1, post_share=1, post_path="/reset", post_body="x")
    assert numbers["requests"] == numbers["failed"] == len(server.seen) == 2
    assert numbers["longest_gap_ms"] >= 290
    failure = numbers["failures"][0]
    assert failure["reason"] in {"connection reset before an answer", "connection closed before an answer"}
    assert failure["target"] == f"127.0.0.1:{server.port}"
    assert failure["request"] == "POST /reset"
    assert failure["time"].endswith("Z")


def test_an_answer_that_ends_too_early_is_a_failure(certificate: Path):
    numbers, _ = probed(certificate, 0.1, rate=10, path="/half")
    assert numbers["failed"] == numbers["requests"] == 1
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
        except prober.SettingsError:
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
            load = prober.Http1Load(server.settings(rate=20, connections=1, connections_max=1, timeout_seconds=30), meter)
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
        load = prober.Http1Load(settings, meter)
        asyncio.get_running_loop().call_later(0.2, stopped.set)
        await prober.pace(20, meter, [load.submit], stopped)
        await load.finish(1)
        return meter.snapshot()

    numbers = asyncio.run(refused())
    assert numbers["failed"] == numbers["requests"] >= 3
    assert numbers["failures"][0]["reason"] == "connection refused"
    # Without the server's CA, the machine's own list decides.
    numbers, _ = probed(certificate, 0.1, rate=10, ca_file="")
    assert numbers["failures"][0]["reason"].startswith("certificate: ")
    assert probed(certificate, 0.1, rate=10, ca_file="", verify=False)[0]["failed"] == 0


def test_only_the_first_failures_and_versions_are_kept():
    meter = Meter()
    for number in range(200):
        meter.failed("status 500", f"target {number}", version=f"v{number}")
    numbers = meter.snapshot()
    assert numbers["failed"] == 200
    assert [failure["target"] for failure in numbers["failures"]] == [f"target {number}" for number in range(prober.KEPT_FAILURES)]
    assert len(numbers["versions"]) == prober.KEPT_VERSIONS + 1
    assert numbers["versions"]["others"]["failed"] == 200 - prober.KEPT_VERSIONS


def test_websockets_that_are_closed_with_going_away_reconnect_and_are_not_cut(certificate: Path):
    async def retires(server: Server, _: Meter) -> None:
        await asyncio.sleep(0.7)
        assert len(server.websockets) == 5
        for writer in list(server.websockets):
            writer.write(b"\x88\x02" + (1012).to_bytes(2, "big"))

    numbers, server = probed(
        certificate, 1.5, retires, rate=0, websockets=5, websocket_ping_seconds=0.1, websocket_reconnect_seconds=[0.1, 0.3]
    )
    assert numbers["websockets_closed"] == {"1012": 5}
    assert numbers["websockets_cut"] == numbers["websockets_refused"] == numbers["websockets_open"] == 0
    assert numbers["websockets"] == numbers["websockets_reconnected"] == 5
    assert numbers["websockets_opened"] == 10
    assert 100 <= numbers["longest_websocket_absence_ms"] <= 500
    assert "frame 9 b'slipway'" in server.seen
    # Our own goodbye at the end says why, and counts as nothing.
    assert server.seen.count("frame 8 b'\\x03\\xe8'") == 5


def test_websockets_that_end_without_a_close_frame_are_cut(certificate: Path):
    async def cuts(server: Server, _: Meter) -> None:
        await asyncio.sleep(0.7)
        first, second, third = server.websockets
        first.transport.abort()
        second.close()
        third.write(b"\x88\x00")

    numbers, _ = probed(certificate, 1.0, cuts, rate=0, websockets=3, websocket_reconnect_seconds=[5, 5], patience=0.1)
    assert numbers["websockets_cut"] == 2
    assert numbers["websockets_closed"] == {"1005": 1}
    assert all("cut without a close frame" in failure["reason"] for failure in numbers["failures"])
    assert numbers["failed"] == 0


def test_a_product_without_websockets_is_not_asked_for_them_again_and_again(certificate: Path):
    numbers, _ = probed(certificate, 1.0, rate=0, websockets=2, websocket_path="/none", websocket_reconnect_seconds=[0.05, 0.1])
    assert (numbers["websockets_refused"], numbers["websockets"], numbers["websockets_cut"], numbers["failed"]) == (2, 0, 0, 0)
    assert {failure["reason"] for failure in numbers["failures"]} == {"status 404"}


def test_a_websocket_that_answers_no_ping_is_cut(certificate: Path):
    async def hangs(server: Server, _: Meter) -> None:
        await asyncio.sleep(0.2)
        server.gate.clear()

    numbers, _ = probed(
        certificate,
        1.2,
        hangs,
        rate=0,
        websockets=1,
        websocket_ping_seconds=0.1,
        timeout_seconds=0.3,
        websocket_reconnect_seconds=[5, 5],
        patience=0.1,
    )
    assert numbers["websockets_cut"] == 1
    assert numbers["failures"][0]["reason"] == "no pong within 0.3 s"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"SSH-2.0-x\r\n\r\n", "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "content-length cannot be 'x'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "more bytes than the answer has"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no chunk size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "a chunk is longer"),
        (b"x" * 70000, "head is too long"),
    ],
)
def test_a_malformed_answer_is_reported(data: bytes, problem: str):
    with pytest.raises(AnswerError, match=problem):
        Answer().feed(data)


def test_answers_are_read_byte_by_byte():
    answer = Answer()
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert [answer.feed(data[index : index + 1]) for index in range(len(data))] == [False] * (len(data) - 1) + [True]
    assert (answer.status, bytes(answer.body), answer.keep_alive) == (200, b"abcde", True)
    until_end = Answer()
    assert not until_end.feed(b"HTTP/1.1 200 OK\r\n\r\nall")
    assert until_end.end()
    assert bytes(until_end.body) == b"all"
    assert not Answer().end()


def test_gaps_belong_to_windows_and_an_open_one_counts():
    now = [100.0]
    meter = Meter(clock=lambda: now[0], wall=lambda: 1_000_000.0 + now[0])
    now[0] = 100.1
    meter.succeeded(0.01)
    now[0] = 103.1
    meter.mark("late")
    now[0] = 104.1
    open_gap = meter.snapshot()
    assert open_gap["longest_gap_ms"] == open_gap["marks"][0]["since"]["longest_gap_ms"] == 4000
    meter.succeeded(0.02)
    meter.mark("well")
    now[0] = 104.2
    meter.succeeded(0.03)
    meter.stop()
    now[0] = 200.0
    numbers = meter.snapshot()
    assert numbers["longest_gap_ms"] == 4000
    assert [mark["since"]["longest_gap_ms"] for mark in numbers["marks"]] == [4000, 100]
    assert numbers["seconds"] == pytest.approx(4.2)
    assert numbers["first_success"] == "1970-01-12T13:48:20.100Z"
    assert numbers["latency_ms"]["p50"] == pytest.approx(20, rel=0.02)
    assert numbers["latency_ms"]["max"] == 30


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"targets": []}, "targets"),
        ({"targets": [{"address": "127.0.0.1"}]}, "target"),
        ({"targets": [{"address": "127.0.0.1", "port": 70000}]}, "70000"),
        ({"rate": -1}, "rate"),
        ({"rate": "many"}, "rate cannot be .*many"),
        ({"post_share": 0.5}, "post_path"),
        ({"post_share": 2}, "post_share"),
        ({"path": "/x\r\nEvil: 1"}, "line break"),
        ({"accepted_statuses": ["2xx"]}, "2xx"),
        ({"speed": 3}, "unknown setting: speed"),
        ({"websocket_reconnect_seconds": [2, 1]}, "websocket_reconnect_seconds"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], named: str):
    with pytest.raises(SettingsError, match=named):
        Settings.parse({"targets": [{"address": "127.0.0.1", "port": 443}], **wrong})


# The program: how it is steered, and that it always ends.


@pytest.fixture(scope="module")
def served(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a server in a process of its own, which keeps nothing of what it was asked."""
    port = tmp_path_factory.mktemp("served") / "port"
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'tests/unit')!r}]\n"
        "import asyncio, conftest, test_prober, pathlib\n"
        "async def main():\n"
        f"    async with test_prober.Server(pathlib.Path({str(certificate)!r})) as server:\n"
        f"        pathlib.Path({str(port)!r}).write_text(str(server.port))\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        assert eventually(lambda: port.exists() and port.read_text()), "the server did not start"
        yield int(port.read_text())
    finally:
        process.kill()
        process.wait()


def eventually(check: Callable[[], Any], seconds: float = 15) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.02)
    return None


def program(folder: Path, certificate: Path, port: int, *, settings: dict[str, Any] | None = None, **control: Any) -> subprocess.Popen[str]:
    targets = [{"address": "127.0.0.1", "port": port, "server_name": "localhost"}]
    config = {
        "settings": {"targets": targets, "ca_file": str(certificate), "rate": 50, **(settings or {})},
        "control": {"deadline_seconds": 30, **control},
    }
    (folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-I", str(PROBER), "--config", str(folder / "config.json")]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    return json.loads(path.read_text()) if path.exists() else {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "probe"
    made.mkdir()
    return made


def test_the_program_writes_takes_marks_and_stops_by_its_file(certificate: Path, served: int, folder: Path):
    process = program(folder, certificate, served, settings={"websockets": 2})
    assert eventually(lambda: result(folder).get("requests", 0) > 10)
    with (folder / "marks").open("a") as marks:
        marks.write('{"name": "switch"}\nnonsense\n')
    assert eventually(lambda: result(folder)["marks"])
    assert oct((folder / "result.json").stat().st_mode & 0o777) == "0o600"
    (folder / "stop").touch()
    assert process.wait(10) == 0
    numbers = result(folder)
    assert numbers["ended"] == "stopped"
    assert numbers["failed"] == numbers["in_flight"] == numbers["websockets_cut"] == numbers["websockets_open"] == 0
    assert numbers["websockets_opened"] == 2
    assert numbers["marks"][0]["name"] == "switch"
    assert numbers["requests"] > numbers["marks"][0]["since"]["requests"]


@pytest.mark.parametrize(("ending", "said"), [("deadline", "deadline"), ("signal", "SIGTERM")])
def test_the_program_ends_in_order(certificate: Path, served: int, folder: Path, ending: str, said: str):
    process = program(folder, certificate, served, deadline_seconds=1.5 if ending == "deadline" else 30)
    assert eventually(lambda: result(folder).get("requests"))
    if ending == "signal":
        process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert result(folder)["ended"] == said
    assert result(folder)["failed"] == 0


def test_the_program_ends_with_its_parent_and_leaves_nothing(certificate: Path, served: int, folder: Path):
    parent = subprocess.Popen(["sleep", "60"])
    process = program(folder, certificate, served, parent_pid=parent.pid, parent_started=prober.process_started(parent.pid))
    try:
        assert eventually(lambda: result(folder).get("requests"))
        parent.kill()
        # Not waited for: a parent that is a zombie is gone as well.
        assert process.wait(5) == 0
        assert not folder.exists()
    finally:
        parent.kill()
        parent.wait()
        process.kill()


@pytest.mark.parametrize("control", [{"deadline_seconds": 0}, {"deadline_seconds": 1e9}, {"deadline_seconds": None}])
def test_the_program_refuses_to_run_without_an_end(certificate: Path, folder: Path, control: dict[str, Any]):
    process = program(folder, certificate, 1, **control)
    assert process.wait(10) == 2
    assert process.stderr
    assert process.stderr.read()
    assert not (folder / "result.json").exists()


# The action, from playbooks.

PLAY = """
- name: Probe
  hosts: one
  gather_facts: false
  tasks:
    - name: Start
      slipway.stack.release_probe:
        state: started
        targets: [{{address: 127.0.0.1, port: {port}, server_name: localhost}}]
        ca_file: {certificate}
        rate: 50
        websockets: 3
        version_header: X-Instance
        deadline_seconds: 60
        wait: {wait}
      register: probe
    - name: Write down where it is
      ansible.builtin.copy:
        content: "{{{{ probe.state_file }}}}"
        dest: {written}
        mode: "0600"
      when: not ansible_check_mode
{rest}
"""

REST = """
    - name: Mark
      slipway.stack.release_probe: {state: marked, state_file: "{{ probe.state_file }}", mark: switch}
      register: marked
    - name: Wait
      ansible.builtin.pause: {seconds: 1}
      when: not ansible_check_mode
    - name: Read
      slipway.stack.release_probe: {state: read, state_file: "{{ probe.state_file }}", mark: switch}
      register: read
    - name: Read a mark that was not made
      slipway.stack.release_probe: {state: read, state_file: "{{ probe.state_file }}", mark: nothing}
      register: unknown
      ignore_errors: true
    - name: Stop
      slipway.stack.release_probe: {state: stopped, state_file: "{{ probe.state_file }}"}
      register: totals
    - name: Stop again
      slipway.stack.release_probe: {state: stopped, state_file: "{{ probe.state_file }}"}
      register: again
    - name: Read what is over
      slipway.stack.release_probe: {state: read, state_file: "{{ probe.state_file }}"}
      register: over
      ignore_errors: true
    - name: Say all
      ansible.builtin.copy:
        content: "{{ [probe, marked, read, unknown, totals, again, over] | to_json }}"
        dest: "{{ playbook_dir }}/answers.json"
        mode: "0600"
      when: not ansible_check_mode
"""


def write_play(checkout: Path, certificate: Path, port: int, rest: str, wait: bool = True) -> tuple[Path, Path]:
    written = checkout / "written"
    path = checkout / "playbooks/probe.yml"
    path.write_text(PLAY.format(port=port, certificate=certificate, written=written, rest=rest, wait=str(wait).lower()))
    return path, written


@pytest.mark.parametrize("wait", [True, False])
def test_a_playbook_starts_marks_reads_and_stops(checkout: Path, play: Any, certificate: Path, served: int, wait: bool):
    path, written = write_play(checkout, certificate, served, REST, wait)
    run = play("probe")
    assert run.returncode == 0, run.stdout + run.stderr
    probe, marked, read, unknown, totals, again, over = json.loads((path.parent / "answers.json").read_text())
    assert probe["running"]
    if wait:
        assert probe["probe"]["requests"] >= 1
        assert probe["probe"]["websockets_opened"] == 3
    assert marked["since"]["requests"] <= 10
    assert 20 <= read["since"]["requests"] < read["probe"]["requests"]
    assert read["since"]["failed"] == 0
    assert read["since"]["versions"]["blue"]["answers"] == read["since"]["requests"]
    assert "knows no mark 'nothing'; it has: switch" in unknown["msg"]
    assert (totals["ended"], totals["running"]) == ("stopped", False)
    assert totals["probe"]["requests"] >= read["probe"]["requests"]
    assert totals["probe"]["websockets_cut"] == totals["probe"]["failed"] == 0
    assert again["ended"] == "not running"
    assert "was stopped since" in over["msg"]
    assert not any(answer["changed"] for answer in (probe, marked, read, totals, again))
    assert not Path(written.read_text()).parent.exists()
    assert prober.process_started(totals["probe"]["pid"]) is None


def test_check_mode_starts_nothing(checkout: Path, play: Any, certificate: Path):
    nothing = """
    - name: Compare
      ansible.builtin.assert:
        that:
          - answers | map(attribute='running') | select | length == 0
          - answers | map(attribute='probe') | select | length == 0
          - answers | map(attribute='state_file') | unique == ['']
      vars: {answers: "{{ [probe, marked, read, unknown, totals, again, over] }}"}
"""
    write_play(checkout, certificate, 1, REST + nothing)
    run = play("probe", "--check")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Compare" in run.stdout


def test_a_prober_ends_when_its_playbook_is_killed(checkout: Path, certificate: Path, served: int):
    path, written = write_play(checkout, certificate, served, "    - name: Wait\n      ansible.builtin.pause: {seconds: 60}\n")
    command = [str(Path(sys.executable).parent / "ansible-playbook"), str(path), "-i", "inventories/test"]
    run = subprocess.Popen(command, cwd=checkout, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        state_file = Path(eventually(lambda: written.exists() and written.read_text(), 60) or "missing")
        pid = json.loads(state_file.read_text())["pid"]
        assert prober.process_started(pid)
    finally:
        run.kill()
    assert eventually(lambda: prober.process_started(pid) is None, 10), "the prober outlived its playbook"
    assert not state_file.parent.exists()
    run.wait()


def test_a_prober_that_died_is_an_error(checkout: Path, play: Any, certificate: Path, served: int):
    rest = """
    - name: Kill it
      ansible.builtin.command: kill -9 {{ probe.probe.pid }}
      changed_when: true
    - name: Read
      slipway.stack.release_probe: {state: read, state_file: "{{ probe.state_file }}"}
      register: read
      ignore_errors: true
    - name: Stop
      slipway.stack.release_probe: {state: stopped, state_file: "{{ probe.state_file }}"}
      register: totals
    - name: Compare
      ansible.builtin.assert:
        that:
          - "'has died' in read.msg"
          - totals.ended == 'died'
          - totals.probe.requests > 0
          - totals.warnings | length == 1
"""
    _, written = write_play(checkout, certificate, served, rest)
    run = play("probe")
    assert run.returncode == 0, run.stdout + run.stderr
    assert not Path(written.read_text()).parent.exists()


WRONG = {
    "{state: started}": "targets",
    "{state: started, targets: [{address: a, port: 1}], rate: -2, deadline_seconds: 5}": "rate cannot be -2",
    "{state: started, targets: [{address: a, port: 1}], deadline_seconds: 0}": "deadline_seconds cannot be 0",
    "{state: started, targets: [{address: a, port: 1}], ca_file: /missing, deadline_seconds: 5}": "ca_file /missing cannot be read",
    "{state: read, state_file: /missing/state.json}": "no prober was started with the state file /missing/state.json",
    "{state: paused}": "paused",
}


def test_wrong_options_of_the_action_are_named(checkout: Path, play: Any):
    tasks = [
        f"    - name: Probe\n      slipway.stack.release_probe: {options}\n      ignore_errors: true\n      register: answer_{number}\n"
        for number, options in enumerate(WRONG)
    ]
    said = "{{ [" + ", ".join(f"answer_{number}" for number in range(len(WRONG))) + "] | to_json }}"
    write = f'    - name: Say\n      ansible.builtin.copy: {{content: "{said}", dest: {checkout}/answers.json, mode: "0600"}}\n'
    head = "- name: Probe\n  hosts: one\n  gather_facts: false\n  tasks:\n"
    (checkout / "playbooks/wrong.yml").write_text(head + "".join(tasks) + write)
    run = play("wrong")
    assert run.returncode == 0, run.stdout + run.stderr
    for answer, wanted in zip(json.loads((checkout / "answers.json").read_text()), WRONG.values(), strict=True):
        assert answer["failed"]
        assert wanted in answer["msg"]


def test_the_documentation_names_every_setting():
    fields = set(Settings.__dataclass_fields__)
    assert set(SETTINGS) == fields
    module = (ROOT / "plugins/modules/release_probe.py").read_text()
    assert not [name for name in fields if f"\n  {name}:\n" not in module]


# The load generator.

LOAD = ROOT / "tests/load/load.py"


def load(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(LOAD), *arguments], capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("address", ["93.184.216.34", "example.org", "0.0.0.0", "[2606:2800:220:1::1]"])
def test_load_to_a_public_address_is_refused(address: str):
    run = load("--target", f"{address}:443", "--seconds", "1", "--http2-share", "0")
    assert run.returncode == 2
    assert "not a loopback or private address" in run.stderr
    assert not run.stdout


def test_load_reports_and_strict_says_whether_anything_was_lost(certificate: Path, served: int):
    common = ["--target", f"127.0.0.1:{served}", "--ca-file", str(certificate), "--http2-share", "0", "--seconds", "1"]
    common += ["--rate", "60", "--strict"]
    run = load(*common, "--post-share", "0.5", "--post-path", "/api", "--websockets", "5")
    assert run.returncode == 0, run.stdout + run.stderr
    numbers = json.loads(run.stdout)
    assert numbers["requests"] >= 30
    assert numbers["websockets"] == 5
    assert numbers["failed"] == numbers["websockets_cut"] == 0
    run = load(*common, "--path", "/reset")
    assert run.returncode == 1
    assert json.loads(run.stdout)["failed"] >= 30
