"""What clients get from nginx with the role's configuration, in front of a server that behaves as products do.

Both run in containers on a network of their own, nginx with the limits that the role declares.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import re
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import edge_requests
from ansible_collections.slipway.stack.packages.slipway_prober.src.slipway_prober.settings import Settings
from ansible_collections.slipway.stack.plugins.action.release_probe import is_missing
from ansible_collections.slipway.stack.plugins.modules.http_answers import ask
from conftest import ROOT, balanced, role_variable
from test_roles_nginx import self_signed

NGINX, PYTHON = "nginx:1-alpine", "python:3.13-slim"
MB = 2**20
# Long, and with what nginx and its regular expressions read as something else.
PROBE_KEY = '~.0123456789abcdef$A\\E\\\\("[{;' + 64 * "k"
# Bodies are counted, streams go on once the next request asks for it, and a number in the path is the size of a header.
PRODUCT = """
import asyncio, re

go_on = asyncio.Event()
lost = {}

async def serve(reader, writer):
    try:
        while head := await reader.readuntil(b"\\r\\n\\r\\n"):
            path = head.split()[1].decode()
            length = int((re.search(rb"content-length: (\\d+)", head.lower()) or [0, 0])[1])
            read = 0
            while read < length and (part := await reader.read(min(65536, length - read))):
                read += len(part)
            extra, body = b"", b"%d %s" % (read, path.encode())
            if "/head" in path:
                body = head
            if "/header" in path:
                extra = b"Set-Cookie: a=" + b"x" * int(path.split("/")[-1]) + b"\\r\\n"
                body = b"%d" % len(head)
            if "stream" in path:
                extra = b"X-Accel-Buffering: no\\r\\n" if "unbuffered" in path else b""
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\nConnection: close\\r\\n" + extra + b"\\r\\nfirst")
                await writer.drain()
                await asyncio.wait_for(go_on.wait(), 20)
                go_on.clear()
                writer.write(b"last")
                await writer.drain()
                break
            if path.endswith("/lost"):
                lost[path] = lost.get(path, 0) + 1
                break
            if path.endswith("/lost/count"):
                body = b"%d" % lost[path.removesuffix("/count")]
            if path == "/go-on":
                go_on.set()
            length = b"Content-Length: %d\\r\\n\\r\\n" % len(body)
            status = b"404 Not Found" if "/gone" in path else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\\r\\nContent-Type: text/plain\\r\\n" + extra + length + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        pass
    writer.close()

async def main():
    for port in (8000, 8001):
        server = await asyncio.start_server(serve, "0.0.0.0", port, limit=2**20, backlog=2048)
    print("up", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def docker(*arguments: str) -> str:
    """Return what a command prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def sent(answer: bytes, header: bytes) -> list[bytes]:
    """Return the values of a header that the product got, which answered with all of them."""
    fields = [line.partition(b":") for line in answer.split(b"\r\n\r\n", 1)[1].splitlines()]
    return [value.strip() for name, _colon, value in fields if name.lower() == header]


def hashed(*arguments: str) -> str:
    """Return a password as a command hashes it."""
    return subprocess.run(["openssl", "passwd", *arguments], capture_output=True, text=True, check=True).stdout.strip()


class Site:
    """The product behind nginx, at a port of the loopback."""

    def __init__(self, port: int, plain_port: int, proxied_port: int, folder: Path, container: str) -> None:
        self.port, self.plain_port, self.proxied_port, self.folder, self.container = port, plain_port, proxied_port, folder, container
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=self.context)

    def get(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of an answer."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()

    def raw(self, request: str) -> bytes:
        """Return all that comes for a request as it is until the connection ends."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        with self.context.wrap_socket(plain, server_hostname="localhost") as secure:
            secure.sendall(request.encode("latin-1"))
            return b"".join(iter(lambda: secure.recv(65536), b""))

    def certificate(self, name: str) -> str:
        """Return the certificate that a client gets that asks for a name."""
        with socket.create_connection(("127.0.0.1", self.port)) as plain, self.context.wrap_socket(plain, server_hostname=name) as secure:
            return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")

    def plain(self, path: str, name: str) -> tuple[int, bytes]:
        """Return status and body of an answer over plain HTTP."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.plain_port, timeout=60)) as connection:
            connection.request("GET", path, headers={"Host": name})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def proxied(self, path: str, announced: bytes) -> bytes:
        """Return an answer at the port for proxies, to which one has announced its client; b"" if the connection is refused."""
        with socket.create_connection(("127.0.0.1", self.proxied_port), timeout=60) as plain:
            plain.sendall(announced)
            with contextlib.suppress(ConnectionError, ssl.SSLError), self.context.wrap_socket(plain) as secure:
                secure.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1\r\nConnection: close\r\n\r\n".encode())
                return b"".join(iter(lambda: secure.recv(65536), b""))
        return b""

    def log(self) -> str:
        """Return what nginx has to complain about."""
        return subprocess.run(["docker", "logs", self.container], capture_output=True, text=True, check=False).stderr


@contextlib.contextmanager
def serving(folder: Path, inputs: dict[str, Any], routes: Sequence[dict[str, Any]] = (), ports: Sequence[int] = ()) -> Iterator[Site]:
    """Run nginx as the role declares it with these inputs, in front of the product: at a name, or at these ports of an address."""
    for image in (NGINX, PYTHON):
        if not shutil.which("docker") or subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            pytest.skip(f"no engine with {image}")
    name = f"slipway-served-{os.getpid()}-{folder.name}"
    for top in (folder, *list(folder.parents)[:2]):
        top.chmod(0o755)
    (folder / "product.py").write_text(PRODUCT)
    try:
        docker("network", "create", name)
        options = ["run", "--detach", "--network", name, "--read-only", "--cap-drop", "ALL"]
        product = [
            "--network-alias",
            "product",
            "-v",
            f"{folder}/product.py:/p.py:ro",
            "--entrypoint",
            "python3",
        ]
        docker(*options, "--name", f"{name}-product", *product, PYTHON, "/p.py")
        address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", f"{name}-product")
        servers = [f"{address}:{port}" for port in ports] or ["product:8000"]
        served = balanced([{"path": "/tokens/", "buffering": False, "request_buffering": False}, *routes], servers)
        served["__nginx_balanced"]["frontend"]["servers"] = ["product:8000"]
        (service,) = role_variable("nginx", "__nginx_services", {**served, **inputs})
        for kind, path in (("config", "etc/current"), ("secrets", "secrets"), ("", "log"), ("", "certificates")):
            (folder / path).mkdir(parents=True)
            for file, item in service.get(kind, {}).items():
                (folder / path / file).write_text(item["content"])
                (folder / path / file).chmod(0o444)
            (folder / path).chmod(0o777)
        tmpfs = ",".join(f"{where}:{what}" for where, what in service["tmpfs"].items())
        limits = ["--memory", f"{service['memory_mb']}m", "--pids-limit", "128", "--ulimit", "nofile=256:16384", "--tmpfs", tmpfs]
        mounts = ["-v", f"{folder}/etc:/etc/slipway:ro", "-v", f"{folder}/secrets:/run/secrets:ro", "-v", f"{folder}/log:/var/log/slipway"]
        mounts += ["-v", f"{folder}/certificates:/certificates:ro"]
        mounts += [
            "--publish",
            "127.0.0.1::8443",
            "--publish",
            "127.0.0.1::8080",
            "--publish",
            "127.0.0.1::8444",
            "--user",
            service["user"],
            "--entrypoint",
            service["entrypoint"][0],
        ]
        docker(*options, "--name", name, *limits, *mounts, NGINX, *service["entrypoint"][1:], *service["command"])
        ports = {inner: int(docker("port", name, str(inner)).splitlines()[0].rpartition(":")[2]) for inner in (8443, 8080, 8444)}
        running = Site(ports[8443], ports[8080], ports[8444], folder, name)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                # Where unknown names are refused, the address is one, and during maintenance all are.
                refusing = inputs.get("nginx_refuse_unknown_names") or inputs.get("nginx_maintenance")
                up = running.plain("/health", "localhost") if refusing else running.get("/api/up")
                if up[0] == 200 and docker("logs", f"{name}-product"):
                    break
            assert time.monotonic() < deadline, running.log()
            time.sleep(0.2)
        yield running
    finally:
        subprocess.run(["docker", "rm", "--force", name, f"{name}-product"], capture_output=True, check=False)
        subprocess.run(["docker", "network", "rm", name], capture_output=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    self_signed(folder / "k", folder / "c")
    inputs: dict[str, Any] = {
        "nginx_tls_certificate_file": str(folder / "c"),
        "nginx_tls_key_file": str(folder / "k"),
        "nginx_client_max_body_size_mb": 200,
        # One takes all connections, as on a host of one core.
        "nginx_worker_processes": 1,
    }
    with serving(folder, inputs) as running:
        yield running


def test_names_have_their_certificates_and_redirects(tmp_path_factory: pytest.TempPathFactory):
    """A redirect keeps path, query and method, and is the only one on the way from plain HTTP."""
    folder = tmp_path_factory.mktemp("names")
    for name in ("default", "docs"):
        self_signed(folder / f"{name}.key", folder / f"{name}.pem")
    inputs: dict[str, Any] = {
        "nginx_server_names": ["shop.example", "docs.example"],
        "nginx_redirects": [{"from": "*.shop.example", "to": "shop.example"}, {"from": "manual.example", "to": "docs.example"}],
        "nginx_tls_certificate_file": str(folder / "default.pem"),
        "nginx_tls_key_file": str(folder / "default.key"),
        "nginx_certificates": [
            {"names": ["docs.example", "manual.example"], "certificate": str(folder / "docs.pem"), "key": str(folder / "docs.key")}
        ],
        "nginx_hsts": "max-age=1",
    }

    with serving(folder, inputs) as running:
        certificates = {"shop.example": "default", "www.shop.example": "default", "docs.example": "docs", "manual.example": "docs"}
        for name, file in certificates.items():
            assert running.certificate(name) == (folder / f"{file}.pem").read_text(), name
        for name, target in {"www.shop.example": "shop.example", "manual.example": "docs.example"}.items():
            for body in (None, b"x"):
                status, headers, _ = running.get("/api/a%20b?c=d&e", body, Host=name)
                assert (status, headers["Location"]) == (308, f"https://{target}/api/a%20b?c=d&e")
                assert headers["Strict-Transport-Security"] == "max-age=1"
            assert running.get("/health", Host=name)[::2] == (200, b"healthy\n")
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.plain_port, timeout=60)) as connection:
                connection.request("GET", "/api/x?y", headers={"Host": name})
                assert connection.getresponse().headers["Location"] == f"https://{target}/api/x?y"
        for name in inputs["nginx_server_names"]:
            assert running.get("/api/x", Host=name)[::2] == (200, b"0 /api/x")


def test_each_request_is_counted_through_rotations_reloads_and_restarts(tmp_path: Path):
    self_signed(tmp_path / "k", tmp_path / "c")
    inputs: dict[str, Any] = {
        "nginx_tls_certificate_file": str(tmp_path / "c"),
        "nginx_tls_key_file": str(tmp_path / "k"),
        "nginx_metrics_log": True,
        "nginx_log_format": "main",
        "nginx_server_extra": "location = /broken { return 500; }",
    }
    container = {"Name": "/shop-nginx", "Mounts": [{"Source": str(tmp_path / "log"), "Destination": edge_requests.FOLDER}]}
    nginx = ["nginx", "-e", "stderr", "-c", "/etc/slipway/current/nginx.conf", "-s"]

    def counted() -> Counter[str]:
        # nginx writes within a second.
        time.sleep(1.5)
        text = edge_requests.texts("shop", tmp_path / "requests.json", [container])["edge.prom"]
        found = re.findall(r'requests_total\{stack="shop",method="(\w+)",status="(\w+)"\} (\d+)', text)
        return Counter({f"{method} {status}": int(count) for method, status, count in found if int(count)})

    with serving(tmp_path, inputs) as running:
        assert not counted(), "what came before the first pass is known"
        stop, sent = threading.Event(), Counter[str]()

        def ask() -> None:
            while not stop.is_set():
                for path, body, line in (("/api/x", None, "GET 2xx"), ("/api/gone", None, "GET 4xx"), ("/broken", b"x", "POST 5xx")):
                    running.get(path, body)
                    sent[line] += 1
                running.get("/health")

        client = threading.Thread(target=ask)
        client.start()
        log = tmp_path / "log" / edge_requests.NAME
        for number in (3, 2, 1):
            log.rename(log.with_name(f"{log.name}.{number}"))
            time.sleep(0.3)
            docker("exec", running.container, *nginx, "reopen")
            docker("exec", running.container, *nginx, "reload")
            counted()
        stop.set()
        client.join()
        docker("restart", running.container)
        assert min(sent.values()) > 10
        assert counted() == sent
        running.port = int(docker("port", running.container, "8443").splitlines()[0].rpartition(":")[2])
        running.get("/broken", b"x")
        assert counted() == sent + Counter(["POST 5xx"])


@pytest.mark.parametrize("maintenance", [False, True])
def test_challenges_are_answered_and_an_issued_certificate_takes_the_place_of_the_first(tmp_path: Path, maintenance: bool):
    """Neither the redirect to HTTPS, nor a redirected or unknown name, nor maintenance swallows a challenge."""
    for name in ("first", "issued"):
        self_signed(tmp_path / f"{name}.key", tmp_path / f"{name}.pem")
    inputs: dict[str, Any] = {
        "nginx_tls_mode": "acme",
        "nginx_acme_thumbprint": "Thumb-print_",
        "nginx_tls_certificate_file": str(tmp_path / "first.pem"),
        "nginx_tls_key_file": str(tmp_path / "first.key"),
        "nginx_server_names": ["shop.example"],
        "nginx_redirects": [{"from": "www.shop.example", "to": "shop.example"}],
        "nginx_refuse_unknown_names": True,
        "nginx_maintenance": maintenance,
    }
    names = ("shop.example", "www.shop.example")
    with serving(tmp_path, inputs) as running:
        for name in (*names, "other.example"):
            assert running.plain("/.well-known/acme-challenge/a_Token-1", name) == (200, b"a_Token-1.Thumb-print_"), name
        for path in ("/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/a.b", "/x/.well-known/acme-challenge/a"):
            assert running.plain(path, "shop.example")[0] == 308, path
        assert {running.certificate(name) for name in names} == {(tmp_path / "first.pem").read_text()}

        revision = tmp_path / "certificates/r1"
        revision.mkdir()
        for kind in ("pem", "key"):
            (revision / f"server.{kind}").write_bytes((tmp_path / f"issued.{kind}").read_bytes())
        (revision / "tls.conf").write_text(
            "ssl_certificate /certificates/current/server.pem;\nssl_certificate_key /certificates/current/server.key;\n"
        )
        (tmp_path / "certificates/current").symlink_to("r1")
        docker("exec", running.container, *role_variable("nginx", "__nginx_reload_command", {}))
        deadline = time.monotonic() + 30
        while {running.certificate(name) for name in names} != {(tmp_path / "issued.pem").read_text()}:
            assert time.monotonic() < deadline, running.log()
            time.sleep(0.1)


@pytest.mark.parametrize("maintenance", [False, True])
def test_pages_of_ones_own_are_served_with_their_status(tmp_path: Path, maintenance: bool):
    """Where no server answers, and during maintenance; what the product answers itself is left alone."""
    self_signed(tmp_path / "k", tmp_path / "c")
    (tmp_path / "down.html").write_text("<p>Down: ä</p>\n")
    (tmp_path / "closed.html").write_text("<p>Closed</p>\n")
    inputs: dict[str, Any] = {
        "nginx_tls_certificate_file": str(tmp_path / "c"),
        "nginx_tls_key_file": str(tmp_path / "k"),
        "nginx_error_pages": [{"codes": [502, 504], "file": str(tmp_path / "down.html")}],
        "nginx_maintenance_page": str(tmp_path / "closed.html"),
        "nginx_maintenance": maintenance,
        "nginx_robots_txt": "User-agent: *\nDisallow: /\n",
        "nginx_security_txt": "Contact: mailto:security@example.com\nExpires: 2099-01-01T00:00:00Z\n",
    }
    with serving(tmp_path, inputs) as running:
        assert running.get("/slipway-error-1.html")[0] == 404
        for path, text in (("/robots.txt", "nginx_robots_txt"), ("/.well-known/security.txt", "nginx_security_txt")):
            status, headers, body = running.get(path)
            assert (status, headers["Content-Type"], body.decode()) == (200, "text/plain; charset=utf-8", inputs[text])
            assert headers["X-Content-Type-Options"] == "nosniff"
        docker("rm", "--force", f"{running.container}-product")
        for path in ("/api/x", "/", "/ws", "/assets/x"):
            status, headers, body = running.get(path)
            expected = (503, "<p>Closed</p>") if maintenance else (502, "<p>Down: ä</p>")
            assert (status if status != 504 else 502, body.decode().strip()) == expected
            assert (headers["Content-Type"], headers["Cache-Control"]) == ("text/html; charset=utf-8", "no-store")
            assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("trusted", ["0.0.0.0/0", "203.0.113.0/24"])
def test_a_proxy_says_who_its_client_is_before_tls_begins(tmp_path: Path, trusted: str):
    """Only one that is trusted is believed, and only by what it says in its own header."""
    self_signed(tmp_path / "k", tmp_path / "c")
    inputs: dict[str, Any] = {
        "nginx_tls_certificate_file": str(tmp_path / "c"),
        "nginx_tls_key_file": str(tmp_path / "k"),
        "nginx_proxy_protocol_port": 8444,
        "nginx_trusted_proxies": [trusted],
    }

    def real_ip(head: bytes) -> str:
        return next(line.split(b": ")[1].decode() for line in head.lower().splitlines() if line.startswith(b"x-real-ip"))

    version_1 = b"PROXY TCP4 192.0.2.5 203.0.113.1 5000 443\r\n"
    # Signature, PROXY over TCP and IPv4, 12 bytes of addresses and ports.
    version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 6, 203, 0, 113, 1]) + (5000).to_bytes(2) + (443).to_bytes(2)
    with serving(tmp_path, inputs) as running:
        direct = real_ip(running.get("/api/head", None, **{"X-Forwarded-For": "198.51.100.1"})[2])
        believed = trusted == "0.0.0.0/0"
        assert (direct == "198.51.100.1") == believed, "at the other port a proxy says it in a header"
        assert direct != "192.0.2.5"
        expected = ["192.0.2.5", "192.0.2.6"] if believed else [direct] * 2
        assert [real_ip(running.proxied("/api/head", announced)) for announced in (version_1, version_2)] == expected
        assert running.proxied("/api/head", b"") == b"", "whoever connects there is a proxy"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with two names, of which one is for some clients alone, and none else."""
    folder = tmp_path_factory.mktemp("named")
    self_signed(folder / "k", folder / "c")
    inputs: dict[str, Any] = {
        "nginx_tls_certificate_file": str(folder / "c"),
        "nginx_tls_key_file": str(folder / "k"),
        "nginx_server_names": ["localhost", "Admin.example", "::1"],
        "nginx_refuse_unknown_names": True,
        "nginx_probe_key": PROBE_KEY,
    }
    routes = [{"path": path, "host": "admin.example", "allow": ["192.0.2.1"]} for path in ("/", "/api/", "/ws")]
    with serving(folder, inputs, routes) as running:
        yield running


@pytest.mark.parametrize("path", ["/head", "/api/head", "/ws/head", "/tokens/head"])
@pytest.mark.parametrize(
    ("line", "header", "seen"),
    [
        ("", "localhost", b"localhost"),
        ("", "LOCALHOST.:8443", b"localhost:8443"),
        ("", "[::1]", b"[::1]"),
        ("", "[::1]:8443", b"[::1]:8443"),
        ("https://localhost", "admin.example", b"localhost"),
        ("https://localhost:1", "admin.example:8443", b"localhost:8443"),
        ("http://LocalHost", "other.example", b"localhost"),
        ("https://other.example", "localhost", None),
        ("", "other.example", None),
    ],
)
def test_the_product_gets_the_name_whose_routes_hold(named: Site, path: str, line: str, header: str, seen: bytes | None):
    """The name of the request line takes precedence over the header Host, for nginx as for the product."""
    answer = named.raw(f"GET {line}{path} HTTP/1.1\r\nHost: {header}\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 " if seen else b"HTTP/1.1 404 "), answer
    assert not seen or sent(answer, b"host") == sent(answer, b"x-forwarded-host") == [seen]


@pytest.mark.parametrize("line", ["", "https://admin.example"])
@pytest.mark.parametrize("header", ["admin.example", "ADMIN.example.", "Admin.Example:8443", "localhost"])
def test_a_name_with_routes_of_its_own_is_restricted_however_it_is_written(named: Site, line: str, header: str):
    expected = b"200" if (line, header) == ("", "localhost") else b"403"
    assert named.raw(f"GET {line}/api/x HTTP/1.1\r\nHost: {header}\r\nConnection: close\r\n\r\n").split()[1] == expected


def test_a_request_without_a_name_gets_that_of_its_server(site: Site):
    """Of HTTP/1.0, where names may be missing."""
    assert sent(site.raw("GET /api/head HTTP/1.0\r\n\r\n"), b"host") == [b"_"]


CLAIMS = """Forwarded Client-IP Forwarded-For True-Client-IP X-Client-IP X-Cluster-Client-IP X-Real-IP X-Forwarded X-Forwarded-For
X-Forwarded-Host X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Proto X-Forwarded-Protocol X-Forwarded-Scheme X-Forwarded-Server
X-Forwarded-Ssl X-Original-URL X-Rewrite-URL X-Request-ID HTTP2-Settings"""


@pytest.mark.parametrize("path", ["/head", "/api/head", "/ws/head", "/tokens/head", "/assets/head"])
def test_a_product_sees_no_claim_of_its_client(site: Site, path: str):
    """Of its name, address, scheme or path; what products do not take from a proxy arrives."""
    claims = "".join(f"{name}: claimed\r\n{name.upper()}: claimed\r\n" for name in CLAIMS.split())
    answer = site.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{claims}X-Passed: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert sent(answer, b"x-passed") == [b"a"]
    assert b"claimed" not in answer.split(b"\r\n\r\n", 1)[1]


@pytest.mark.parametrize("path", ["/head", "/ws/head", "/tokens/head"])
@pytest.mark.parametrize(
    ("upgrade", "seen"),
    [
        (["h2c"], []),
        (["WebSocket"], [b"websocket"]),
        (["websocket, h2c"], []),
        (["websocket", "h2c"], []),
        (["websockets"], []),
        ([""], []),
    ],
)
def test_only_a_websocket_is_asked_for_another_protocol(site: Site, path: str, upgrade: list[str], seen: list[bytes]):
    """HTTP/2 without TLS, h2c, would be a tunnel through which requests pass that nginx does not see."""
    lines = "".join(f"Upgrade: {protocol}\r\n" for protocol in upgrade)
    head = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\n{lines}HTTP2-Settings: AAMAAABkAAQA\r\n"
    )
    answer = site.raw(f"{head}\r\n")
    assert sent(answer, b"upgrade") == (seen if path.startswith("/ws") else [])
    assert sent(answer, b"http2-settings") == []


def statuses(site: Site, path: str, count: int, **headers: str) -> list[int]:
    """Return the statuses of requests that are sent one after another."""
    return [site.get(path, None, **headers)[0] for _ in range(count)]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that limits its clients, in front of which a proxy says who they are."""
    folder = tmp_path_factory.mktemp("guarded")
    self_signed(folder / "k", folder / "c")
    routes = [
        {"path": "/slow/", "limit_req_rate": "6r/m", "limit_req_burst": 2},
        {"path": "/other/", "limit_req_rate": "6r/m", "limit_req_burst": 2},
        {"path": "/one/", "limit_conn": 1},
        {"path": "/door/", "auth_basic": "Staff only"},
        {"path": "/listed/", "allow": ["192.0.2.0/24", "2001:db8:1::/48", "127.0.0.0/8"], "deny": ["192.0.2.7", "2001:db8:1:2::/64"]},
        {"path": "/denied/", "deny": ["192.0.2.0/24"]},
        {"path": "/inside/", "internal": True},
    ]
    inputs: dict[str, Any] = {
        "nginx_tls_certificate_file": str(folder / "c"),
        "nginx_tls_key_file": str(folder / "k"),
        "nginx_trusted_proxies": ["0.0.0.0/0"],
        "nginx_auth_basic_users": {"Staff only": {"ann": hashed("-6", "a word"), "bob": hashed("-apr1", "apples")}},
        "nginx_probe_key": PROBE_KEY,
        "nginx_limit_req_rate": "1000r/s",
        "nginx_client_header_timeout": 5,
    }
    with serving(folder, inputs, routes) as running:
        yield running


def test_a_client_over_its_rate_gets_retry_after(guarded: Site):
    """Each client, and each route with a rate of its own, is counted by itself."""
    client = {"X-Forwarded-For": "198.51.100.1"}
    assert statuses(guarded, "/slow/x", 5, **client) == [200, 200, 200, 429, 429]
    status, headers, _ = guarded.get("/slow/x", None, **client)
    assert (status, headers["Retry-After"]) == (429, "10")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert guarded.get("/slow/x", None, Accept="text/event-stream", **client)[0] == 429
    assert statuses(guarded, "/other/x", 1, **client) + statuses(guarded, "/api/x", 20, **client) == [200] * 21
    assert guarded.get("/slow/x", None, **{"X-Forwarded-For": "198.51.100.2"})[0] == 200
    assert "Retry-After" not in guarded.get("/api/x")[1]


@pytest.mark.parametrize("start", ["2001:db8:a:b", "2001:db8:0:1", "2001:db8:"])
def test_a_network_of_ipv6_is_one_client(guarded: Site, start: str):
    """One subscriber has all addresses of a /64."""
    asked = [
        guarded.get("/slow/x", None, **{"X-Forwarded-For": f"{start}:{end}"})[0] for end in ("1:2:3:4", "0:0:0:1", "5:6:7:8", "0:0:0:9")
    ]
    assert asked == [200, 200, 200, 429]


def test_requests_of_a_client_at_one_time_are_limited(guarded: Site):
    client = {"X-Forwarded-For": "198.51.100.3"}
    with contextlib.closing(guarded.connect()) as connection:
        connection.request("GET", "/one/unbuffered/stream", headers=client)
        answer = connection.getresponse()
        assert answer.read1(5) == b"first"
        status, headers, _ = guarded.get("/one/x", None, **client)
        assert (status, headers["Retry-After"]) == (429, "1")
        assert guarded.get("/go-on")[0] == 200
        answer.read()
    assert guarded.get("/one/x", None, **client)[0] == 200


def test_a_password_is_asked_for_and_not_passed_on(guarded: Site):
    status, headers, _ = guarded.get("/door/x")
    assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="Staff only"')
    for user, word, expected in (("ann", "a word", 200), ("bob", "apples", 200), ("ann", "apples", 401), ("eve", "a word", 401)):
        credentials = base64.b64encode(f"{user}:{word}".encode()).decode()
        assert guarded.get("/door/x", None, Authorization=f"Basic {credentials}")[0] == expected
    credentials = base64.b64encode(b"ann:a word").decode()
    assert b"authorization" not in guarded.get("/door/head", None, Authorization=f"Basic {credentials}")[2].lower()
    assert b"authorization" in guarded.get("/api/head", None, Authorization="Bearer x")[2].lower(), "the product's own"


@pytest.mark.parametrize(
    ("address", "listed", "denied"),
    [
        ("192.0.2.5", 200, 403),
        ("192.0.2.7", 403, 403),
        ("198.51.100.1", 403, 200),
        ("2001:db8:1:1::5", 200, 200),
        ("2001:db8:1:2::5", 403, 200),
        ("2001:db8:2::5", 403, 200),
    ],
)
def test_the_smallest_network_that_holds_an_address_counts(guarded: Site, address: str, listed: int, denied: int):
    client = {"X-Forwarded-For": address}
    assert (guarded.get("/listed/x", None, **client)[0], guarded.get("/denied/x", None, **client)[0]) == (listed, denied)


def test_the_checks_of_a_release_pass_by_their_key(guarded: Site):
    """A wrong key is worth nothing, and none opens what is internal."""
    key = {"X-Slipway-Probe": PROBE_KEY, "X-Forwarded-For": "198.51.100.9"}
    assert statuses(guarded, "/slow/x", 6, **key) == [200] * 6
    assert [guarded.get(path, None, **key)[0] for path in ("/door/x", "/listed/x", "/inside/x")] == [200, 200, 403]
    for wrong in ("", "default", PROBE_KEY[:-1], PROBE_KEY.replace("~", "x"), PROBE_KEY.swapcase(), f"{PROBE_KEY}k"):
        assert guarded.get("/door/x", None, **{**key, "X-Slipway-Probe": wrong})[0] == 401
    assert b"slipway-probe" not in guarded.get("/api/head", None, **key)[2].lower()
    # As a release sends it: the check of a balancer, and the prober's question for a path.
    sent = {"X-Slipway-Probe": PROBE_KEY}
    assert ask(f"https://127.0.0.1:{guarded.port}", "/door/x", "", sent)[0] == 200
    target = {"address": "127.0.0.1", "port": guarded.port}
    for headers, missing in ((sent, True), ({}, False)):
        assert is_missing(Settings.parse({"targets": [target], "verify": False, "path": "/door/gone", "headers": headers})) is missing


def test_hostile_requests_are_refused_and_honest_ones_answered(guarded: Site):
    """Of the program that a scenario runs with 10,000: each kind, and connections that never end their header."""
    program = [sys.executable, str(ROOT / "tests/load/hostile.py"), "--target", f"127.0.0.1:{guarded.port}", "--path", "/api/x"]
    program += ["--echo-path", "/api/head"]
    run = subprocess.run(
        [*program, "--count", "400", "--slow", "20", "--quiet-seconds", "1", "--seed", "7"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout)
    assert sum(map(sum, (answers.values() for answers in result["answers"].values()))) == 460
    assert all(result["answers"][kind] for kind in ("smuggled", "outside", "malformed", "spoofed", "flooded", "slow"))
    assert result["answers"]["claimed"] == {"claim not passed on": 40}
    assert result["honest"]["meanwhile"]["requests"] > 0


@pytest.mark.parametrize(("method", "repeated"), [("GET", True), ("PUT", True), ("DELETE", True), ("POST", False), ("PATCH", False)])
def test_only_requests_that_may_be_repeated_are_sent_again(site: Site, method: str, repeated: bool):
    """By their method, where a server has the request and closes the connection."""
    with contextlib.closing(site.connect()) as connection:
        connection.request(method, f"/api/{method}/lost")
        assert connection.getresponse().status == 502
    assert (int(site.get(f"/api/{method}/lost/count")[2]) > 1) is repeated


def test_servers_that_are_all_taken_for_dead_are_tried_nevertheless(tmp_path: Path):
    """Some requests that none of them answers are not an outage for all other clients."""
    self_signed(tmp_path / "k", tmp_path / "c")
    inputs = {"nginx_tls_certificate_file": str(tmp_path / "c"), "nginx_tls_key_file": str(tmp_path / "k"), "nginx_worker_processes": 1}
    with serving(tmp_path, {**inputs, "nginx_upstream_fail_timeout": 60}, ports=(8000, 8001)) as running:
        for number in range(5):
            assert running.get(f"/api/{number}/lost")[0] == 502
        assert "upstream server temporarily disabled" in running.log()
        assert Counter(running.get("/api/x")[0] for _request in range(20)) == {200: 20}


def test_a_path_without_its_slash_is_redirected_to_where_the_client_came_from(site: Site):
    """The port that nginx listens on is one of the container's."""
    status, headers, _ = site.get("/api")
    assert (status, headers["Location"]) == (301, "/api/")


def test_an_upload_larger_than_memory_arrives(site: Site):
    """With a limit of 200 MB in 64 MB of /tmp."""
    assert site.get("/api/upload", b"x" * 100 * MB)[::2] == (200, b"%d /api/upload" % (100 * MB)), site.log()
    assert site.get("/tokens/upload", b"x" * 100 * MB)[::2] == (200, b"%d /tokens/upload" % (100 * MB)), site.log()


def test_ten_uploads_at_once_arrive_and_leave_nothing_behind(site: Site):
    body = b"x" * int(9.9 * MB)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda number: site.get(f"/api/{number}", body)[0], range(10)))
    assert answers == [200] * 10, site.log()
    assert docker("exec", site.container, "find", "/var/log/slipway/client_body", "-type", "f") == ""


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/tokens/stream", {}), ("/api/unbuffered/stream", {}), ("/unbuffered/stream", {}), ("/api/stream", {"Accept": "text/event-stream"})],
)
def test_a_stream_arrives_as_it_is_sent(site: Site, path: str, headers: dict[str, str]):
    """The product sends no more until the client, which has seen the beginning, asks for it."""
    with contextlib.closing(site.connect()) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert answer.read1(5) == b"first"
        assert site.get("/go-on")[0] == 200
        assert answer.read() == b"last"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_an_event_stream_may_be_asked_for_with_a_post(site: Site):
    with contextlib.closing(site.connect()) as connection:
        connection.request("POST", "/api/stream", b"question", {"Accept": "text/event-stream"})
        answer = connection.getresponse()
        assert answer.read1(5) == b"first"
        assert site.get("/go-on")[0] == 200
        assert answer.read() == b"last"


@pytest.mark.parametrize("path", ["/api/header", "/header", "/tokens/header"])
def test_large_headers_pass_in_both_directions(site: Site, path: str):
    status, headers, body = site.get(f"{path}/16000", Cookie="a=" + "x" * 16000)
    assert status == 200, site.log()
    assert len(headers["Set-Cookie"]) == 16002
    assert int(body) > 16000, "the product has got the cookie"


def test_more_connections_than_the_soft_limit_of_files(site: Site):
    """Some engines' is 1,024; it is 256 here, so that 400 connections are enough to see it."""
    count = 400
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * count:
        pytest.skip(f"this machine allows {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * count), hard))

    async def all_at_once() -> list[bytes]:
        at_once, opened = asyncio.Semaphore(20), []

        async def ask() -> bytes:
            async with at_once:
                reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=site.context)
                writer.write(b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
                opened.append(writer)
                return await reader.readline()

        async with asyncio.timeout(60):
            # Each connection stays open until all have their answer.
            answers = await asyncio.gather(*(ask() for _ in range(count)))
        for writer in opened:
            writer.transport.abort()
        return answers

    try:
        answers = asyncio.run(all_at_once())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answers == [b"HTTP/1.1 200 OK\r\n"] * count, site.log()[-2000:]
    assert "Too many open files" not in site.log()
