from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets

from conftest import SECRET_KEY, answers_on, free_port, until

BACKEND = Path(__file__).parents[1]


@pytest.fixture
def server(sqlite_url: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", "support_desk.app:create_app", "--port", str(port)],
        cwd=BACKEND,
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": sqlite_url,
            "SECRET_KEY": SECRET_KEY,
            "PYTHONDONTWRITEBYTECODE": "1",
            "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": "20",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: answers_on(port), 30)
        yield process, f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


async def test_sigterm_ends_websockets_with_1012_and_finishes_requests(
    server: tuple[subprocess.Popen[bytes], str],
) -> None:
    process, address = server
    async with httpx.AsyncClient(base_url=f"http://{address}") as client, websockets.connect(f"ws://{address}/ws") as socket:
        assert json.loads(await socket.recv())["type"] == "hello"
        session = (await client.post("/api/sessions")).json()["id"]
        # About forty pieces with a pause after each: it runs when the signal comes.
        running = asyncio.create_task(client.post(f"/api/sessions/{session}/messages", json={"content": "Can I get a refund?"}))
        await asyncio.sleep(0.15)
        assert not running.done()
        process.send_signal(signal.SIGTERM)
        answer = await running
        assert answer.status_code == 201
        assert answer.json()["sources"][0]["slug"] == "refunds"
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert await asyncio.to_thread(process.wait, 20) in (0, -signal.SIGTERM)
