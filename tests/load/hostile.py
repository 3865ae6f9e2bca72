#!/usr/bin/env python3
"""Malformed and hostile requests to a balancer, and what honest clients notice of them.

Each request of the seed is refused: by a status of 4xx, by 501 or 505 where RFC 9110 has no other word for it, or by a closed connection.
With --echo-path, others claim another name or address than theirs: the product may answer them, and has not seen the claim.
Prints one JSON summary. Sends to this machine and to private addresses only.

    python tests/load/hostile.py --target 127.0.0.1:8443 --count 10000 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import ssl
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

# Found through the line above.
from load import is_loopback_or_private

#: Requests at a time, connections that send a header a byte at a time, seconds in which a refusal has come, and tries of what is served.
AT_ONCE, SLOW, PATIENCE, TRIES = 40, 500, 30.0, 5
#: RFC 9112, section 6.1, and RFC 9110, section 15.6.6.
UNKNOWN_CODING, UNKNOWN_VERSION = 501, 505
CLOSED, UNSEEN = "closed", "claim not passed on"
#: RFC 6455, section 5.2: the first byte of a frame that closes, and the length that two more bytes hold.
CLOSE_FRAME, LONG_FRAME = 0x88, 126
#: A name and an address that no request is for or from, and a header that the product gets as it is.
CLAIMED_NAME, CLAIMED_ADDRESS, PASSED = "claimed.example", "203.0.113.66", "X-Passed: as-it-is"
#: Headers by which products take name, address, scheme or path from a proxy; X-Forwarded-For is what proxies in front may say.
CLAIMS = (
    *("Client-IP", "Forwarded-For", "True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "X-Real-IP", "X-Forwarded", "X-Forwarded-Host"),
    *("X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Proto", "X-Forwarded-Protocol", "X-Forwarded-Scheme", "X-Forwarded-Server"),
    *("X-Forwarded-Ssl", "X-Original-URL", "X-Rewrite-URL", "Upgrade", "HTTP2-Settings", "X-Request-ID"),
)
#: Of honest clients: requests a second, seconds without any other, and the longest that they ask.
HONEST_RATE, QUIET_SECONDS, LONGEST = 20.0, 10.0, 1800


def request(path: str, *headers: str, method: str = "GET", version: str = "HTTP/1.1", host: str = "localhost", body: str = "") -> bytes:
    """Return the bytes of a request, whatever is in its parts."""
    head = [f"{method} {path} {version}", *([f"Host: {host}"] if host else []), *headers]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode("latin-1")


def smuggled(chance: random.Random) -> bytes:
    """Return a request whose length may be read in two ways."""
    hidden = request(f"/admin?{chance.randrange(10**6)}")
    length, chunked = f"Content-Length: {len(hidden)}", "Transfer-Encoding: chunked"
    framing = [
        (length, chunked),
        (chunked, length),
        (length, f"Content-Length: {len(hidden) + 1}"),
        (f"Content-Length: {chance.choice(['-1', '+5', '0x10', '1e3', '5, 5', '9' * 30])}",),
        (chunked, chunked),
        (f"Transfer-Encoding: {chance.choice(['xchunked', 'chunked, identity', 'identity, chunked', 'chunked;q=1'])}",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding: chunked\rX: y",),
    ]
    return request("/api/x", *chance.choice(framing), method="POST", body="0\r\n\r\n") + hidden


def outside(chance: random.Random) -> bytes:
    """Return a request for a path above the root, or with what no path may hold."""
    up = chance.choice(["../", "%2e%2e/", "..%2f", "%2e%2e%2f", ".%2e/"])
    target = chance.choice(["etc/passwd", "proc/self/environ", "run/secrets/", "etc/slipway/current/nginx.conf"])
    paths = ["/" + up * chance.randint(1, 12) + target, f"/api/{up * chance.randint(3, 9)}{target}", f"/{target}%00.html", "/%zz", "/%"]
    return request(chance.choice(["", "https://localhost"]) + chance.choice(paths))


def malformed(chance: random.Random) -> bytes:
    """Return bytes that are not HTTP/1.1."""
    noise = "".join(chr(chance.randrange(1, 256)) for _unused in range(chance.randint(4, 200)))
    return chance.choice(
        [
            lambda: b"\x16\x03" + noise.encode("latin-1") + b"\r\n\r\n",
            lambda: request("/", method=chance.choice(["G E T", "get", "GET\x00", "GÉT", "@"])),
            lambda: request("/", version=chance.choice(["HTTP/2.5", "HTTP/9.9", "HTTP/1.1.1", "HTP/1.1", "http/1.1"])),
            lambda: request(chance.choice(["x", "http://", "\x01", "*"])),
            lambda: request("/", f"X-{chance.randrange(99)}: a\x00b"),
            lambda: request("/", host=""),
        ]
    )()


def spoofed(chance: random.Random) -> bytes:
    """Return a request for an invalid name, with claims about where it comes from."""
    claims = [f"{name}: 127.0.0.1" for name in ("X-Forwarded-For", "X-Real-IP", "True-Client-IP")] + ["Forwarded: for=127.0.0.1"]
    invalid = ["a b", "a\tb", "loc\x01alhost", "[::1", "a..b"]
    if chance.random() < 0.3:
        return request(f"https://{chance.choice([*invalid, '', ':443'])}/", *claims)
    host = chance.choice([*invalid, "a/b", "localhost/../x", "a?b"])
    twice = chance.random() < 0.3
    return request("/", *claims, *(["Host: other.example"] if twice else []), host="localhost" if twice else host)


def claimed(chance: random.Random, path: str) -> bytes:
    """Return a request for a path of localhost whose headers claim another name or address."""
    line, host = chance.choice([("", "localhost"), ("https://localhost", f"{CLAIMED_NAME}:{chance.randint(1, 65535)}")])
    claims = [f"{name}: {chance.choice([CLAIMED_NAME, CLAIMED_ADDRESS])}" for name in chance.sample(CLAIMS, 5)]
    both = f"Forwarded: for={CLAIMED_ADDRESS};host={CLAIMED_NAME}"
    return request(line + path, PASSED, "Connection: close, Upgrade", both, *claims, host=host)


def flooded(chance: random.Random) -> bytes:
    """Return a request with more of something than is allowed."""
    return chance.choice(
        [
            lambda: request("/", "Cookie: " + "a" * chance.randint(33_000, 60_000)),
            lambda: request("/" + "a" * chance.randint(33_000, 60_000)),
            lambda: request("/", *(f"X-{number}: {'b' * 4000}" for number in range(40))),
            lambda: request("/api/x", f"Content-Length: {chance.randint(2**31, 2**60)}", method="POST", body="x" * 1000),
            lambda: request(
                "/api/x", "Transfer-Encoding: chunked", method="POST", body=chance.choice(["zz\r\nx\r\n", f"{'f' * 16}\r\nx", "-1\r\n"])
            ),
        ]
    )()


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "smuggled": smuggled,
    "outside": outside,
    "malformed": malformed,
    "spoofed": spoofed,
    "flooded": flooded,
}


def is_refused(answer: str) -> bool:
    """Return whether an answer, a status, CLOSED or UNSEEN, is what a hostile request should get."""
    if not answer.isdigit():
        return answer in (CLOSED, UNSEEN)
    return 400 <= int(answer) < 500 or int(answer) in (UNKNOWN_CODING, UNKNOWN_VERSION)


def believed(answer: bytes) -> str:
    """Return which claims are in an answer that shows the headers that the product got, UNSEEN where none is."""
    seen = [claim for claim in (CLAIMED_NAME, CLAIMED_ADDRESS) if claim.encode() in answer]
    return f"passed on {' and '.join(seen)}" if seen else UNSEEN if PASSED.encode() in answer else "does not show the headers"


class Hostile:
    """A run against one balancer."""

    def __init__(self, address: str, port: int, websocket_path: str, echo_path: str, seed: int) -> None:
        """Take the target, a path of WebSockets there, one whose answers show the request's headers, and the seed of all requests."""
        self.address, self.port, self.websocket_path, self.echo_path = address, port, websocket_path, echo_path
        self.chance = random.Random(seed)
        self.answers: dict[str, Counter[str]] = {name: Counter() for name in (*KINDS, "slow", "websocket", "claimed")}
        self.served: list[str] = []
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection; on a busy machine a handshake may take longer than the balancer waits, which says nothing about requests."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return await asyncio.open_connection(self.address, self.port, ssl=self.context)
                except ConnectionError:
                    await asyncio.sleep(0.1)

    async def _send(self, kind: str, data: bytes) -> None:
        """Send a request and note its first answer; the connection ends after it, or another could hide behind it."""
        reader, writer = await self._connected()
        answer = CLOSED
        try:
            writer.write(data)
            async with asyncio.timeout(PATIENCE):
                line = await reader.readline()
            answer = line.split()[1].decode() if line.startswith(b"HTTP/") else CLOSED if not line else repr(line)
        except ConnectionError:
            pass
        except TimeoutError:
            answer = "0"
        finally:
            writer.transport.abort()
        self._note(kind, answer, data)

    def _note(self, kind: str, answer: str, data: bytes) -> None:
        self.answers[kind][answer] += 1
        if not is_refused(answer) and len(self.served) < 20:
            self.served.append(f"{kind}: {answer}: {data[:200]!r}")

    async def _claim(self, data: bytes) -> None:
        """Send a request that is served, and note whether the product has seen what it claims."""
        received = b""
        # On a busy machine the balancer may give up waiting for the request, and closes without a word.
        for _try in range(TRIES):
            reader, writer = await self._connected()
            try:
                writer.write(data)
                async with asyncio.timeout(PATIENCE):
                    received = await reader.read(-1)
            except (ConnectionError, TimeoutError):
                pass
            finally:
                writer.transport.abort()
            if received:
                break
        answer = believed(received) if received else "0"
        self._note("claimed", answer, data)

    async def _slow(self, after: float) -> None:
        """Send the header of a request a byte at a time, from so many seconds on, until the connection is closed."""
        await asyncio.sleep(after)
        reader, writer = await self._connected()
        answer = "0"
        try:
            async with asyncio.timeout(3 * PATIENCE):
                ended = asyncio.create_task(reader.readline())
                for byte in request("/", "X-Slow: " + "s" * 1000):
                    writer.write(bytes([byte]))
                    await asyncio.wait([ended], timeout=1)
                    if ended.done():
                        answer = ended.result().split()[1].decode() if ended.result() else CLOSED
                        break
        except ConnectionError:
            answer = CLOSED
        except TimeoutError:
            pass
        finally:
            writer.transport.abort()
        self._note("slow", answer, b"a header, a byte a second")

    async def _websocket(self, frame: bytes) -> None:
        """Open a WebSocket, send a broken frame, and note whether the connection is closed."""
        reader, writer = await self._connected()
        answer = CLOSED
        upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
        try:
            writer.write(request(self.websocket_path, *upgrade))
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                answer = head.split()[1].decode()
                if answer == "101":
                    writer.write(frame)
                    # Until the end, or the frame that announces it; messages of the product's may come before.
                    while (head := await reader.readexactly(2))[0] != CLOSE_FRAME:
                        await reader.readexactly(head[1] if head[1] < LONG_FRAME else int.from_bytes(await reader.readexactly(2)))
                    answer = CLOSED
        except (ConnectionError, asyncio.IncompleteReadError):
            answer = CLOSED
        except TimeoutError:
            pass
        finally:
            writer.transport.abort()
        self._note("websocket", answer, frame)

    def _frames(self, count: int) -> list[bytes]:
        """Return what breaks RFC 6455: frames without a mask, of reserved kinds, pings in parts, and noise."""
        kinds = [b"\x81\x05hello", b"\xf1\x80\0\0\0\0", b"\x8f\x80\0\0\0\0", b"\x09\x80\0\0\0\0", b"\x80\x85\0\0\0\0hello"]
        return [self.chance.choice(kinds) + self.chance.randbytes(self.chance.randint(0, 50)) for _unused in range(count)]

    async def run(self, count: int, rate: float, slow: int) -> None:
        """Send all requests, so many a second, and return when each has its answer."""
        # Attackers have machines of their own: here their work must not take the cores of those that are measured.
        os.nice(19)
        at_once = asyncio.Semaphore(AT_ONCE)
        began = asyncio.get_running_loop().time()

        async def in_turn(number: int, work: Coroutine[Any, Any, None]) -> None:
            await asyncio.sleep(began + number / rate - asyncio.get_running_loop().time())
            async with at_once:
                await work

        names = [self.chance.choice(list(KINDS)) for _unused in range(count)]
        frames = self._frames(count // 100) if self.websocket_path else []
        claims = [claimed(self.chance, self.echo_path) for _unused in range(count // 10)] if self.echo_path else []
        await asyncio.gather(
            *(in_turn(number, self._send(name, KINDS[name](self.chance))) for number, name in enumerate(names)),
            *(in_turn(100 * number, self._websocket(frame)) for number, frame in enumerate(frames)),
            *(in_turn(10 * number, self._claim(claim)) for number, claim in enumerate(claims)),
            *(self._slow(number / rate) for number in range(slow)),
        )


async def honest(options: argparse.Namespace, work: Callable[[], Coroutine[Any, Any, None]]) -> dict[str, Any]:
    """Return what honest clients, whose first request has an answer, notice while something is done.

    They are a process of their own, which that does not slow.
    """
    load = [str(Path(__file__).with_name("load.py")), "--target", options.target, "--server-name", options.server_name, "--insecure"]
    what = ["--path", options.path, "--rate", str(HONEST_RATE), "--connections", "4", "--http2-share", "0", "--seconds", str(LONGEST)]
    with tempfile.TemporaryDirectory() as folder:
        counted = Path(folder) / "honest.json"
        clients = await asyncio.create_subprocess_exec(
            sys.executable, *load, *what, "--result-file", str(counted), stdout=subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(PATIENCE):
                # A signal before it listens for one would end it without a figure.
                while not (counted.exists() and json.loads(counted.read_text(encoding="utf-8"))["requests"]):
                    await asyncio.sleep(0.1)
            await work()
        finally:
            clients.terminate()
            await clients.wait()
        numbers = json.loads(counted.read_text(encoding="utf-8"))
    return {name: numbers[name] for name in ("requests", "failed", "latency_ms")}


async def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Return what became of hostile requests, and of honest ones before and meanwhile."""
    address, _, port = options.target.rpartition(":")
    if not is_loopback_or_private(address):
        raise SystemExit(f"{address} is not a loopback or private address; hostile requests go to those alone")
    before = await honest(options, lambda: asyncio.sleep(options.quiet_seconds))
    hostile = Hostile(address, int(port), options.websocket_path, options.echo_path, options.seed)
    meanwhile = await honest(options, lambda: hostile.run(options.count, options.rate, options.slow))
    ratio = round(meanwhile["latency_ms"]["p99"] / before["latency_ms"]["p99"], 2)
    return {
        "seed": options.seed,
        "answers": {kind: dict(sorted(counted.items())) for kind, counted in hostile.answers.items()},
        "served": hostile.served,
        "honest": {"before": before, "meanwhile": meanwhile, "p99_ratio": ratio},
    }


def main() -> int:
    """Return 0, or 1 where a hostile request was served, or an honest one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--server-name", default="localhost")
    parser.add_argument("--path", default="/", help="what honest clients ask for")
    parser.add_argument("--websocket-path", default="", help="path of WebSockets, or empty for none")
    parser.add_argument("--echo-path", default="", help="path that the product answers with the header of the request, or empty for none")
    parser.add_argument("--count", type=int, default=10_000, help="hostile requests")
    parser.add_argument(
        "--rate", type=float, default=100, help="of these a second; more would measure how fast this program takes the cores"
    )
    parser.add_argument("--slow", type=int, default=SLOW, help="connections that send a header a byte at a time")
    parser.add_argument("--quiet-seconds", type=float, default=QUIET_SECONDS, help="how long honest clients ask before")
    parser.add_argument("--seed", type=int, default=1)
    result = asyncio.run(measured(parser.parse_args()))
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 1 if result["served"] or result["honest"]["meanwhile"]["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
