"""The load generator of tests and benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

pytest_plugins = ["prober_fixtures"]


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
