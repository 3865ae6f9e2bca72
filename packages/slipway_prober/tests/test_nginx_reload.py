"""Clients of a real nginx whose configuration is reloaded under them: its old workers close connections that are idle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from misbehaving import eventually

from slipway_prober.http1 import Http1Load
from slipway_prober.meter import Meter
from slipway_prober.schedule import pace
from slipway_prober.settings import Settings

pytest_plugins = ["prober_fixtures"]

IMAGE = "nginx:1-alpine"
RELOADS = 20
CONFIGURATION = """
events {}
http {
  access_log off;
  server {
    listen 443 ssl;
    ssl_certificate /tls/server.pem;
    ssl_certificate_key /tls/server.pem;
    location / { return 200 ok; }
  }
}
"""


@pytest.fixture
def nginx(certificate: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A container with nginx that answers, and its address."""
    if not shutil.which("docker") or subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode:
        pytest.skip(f"needs Docker and the image {IMAGE}")
    (tmp_path / "nginx.conf").write_text(CONFIGURATION)
    mounts = [f"--volume={tmp_path}/nginx.conf:/etc/nginx/nginx.conf:ro", f"--volume={certificate.parent}:/tls:ro"]
    name = subprocess.run(["docker", "run", "--detach", "--rm", *mounts, IMAGE], check=True, capture_output=True, text=True).stdout.strip()
    try:
        inspected = json.loads(subprocess.run(["docker", "inspect", name], check=True, capture_output=True, text=True).stdout)
        address = inspected[0]["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        assert eventually(lambda: accepts(address)), "nginx did not start"
        yield name, address
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)


def accepts(address: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, 443), 1):
        return True
    return False


def test_no_get_fails_while_nginx_is_reloaded(nginx: tuple[str, str], certificate: Path):
    name, address = nginx
    target = {"address": address, "port": 443, "server_name": "localhost"}
    settings = Settings.parse({"targets": [target], "ca_file": str(certificate), "rate": 60, "connections": 20, "timeout_seconds": 60})

    async def run() -> Meter:
        meter, stopped = Meter(), asyncio.Event()
        load = Http1Load(settings, meter)
        pacing = asyncio.ensure_future(pace(settings.rate, meter, [load.submit], stopped))
        for _ in range(RELOADS):
            seen = meter.snapshot()["requests"]
            # Each connection carries a request between two reloads.
            while meter.snapshot()["requests"] < seen + settings.connections:
                await asyncio.sleep(0.02)
            reload = await asyncio.create_subprocess_exec("docker", "exec", name, "nginx", "-s", "reload", stderr=subprocess.DEVNULL)
            assert await reload.wait() == 0
        stopped.set()
        await pacing
        await load.finish(60)
        return meter

    numbers = asyncio.run(run()).snapshot()
    assert numbers["failed"] == 0, numbers["failures"]
    assert numbers["reopened"] >= RELOADS
