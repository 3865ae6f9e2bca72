"""What hostile requests get from the front door, and what they do to the stack behind it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from slipway_lab import ROOT, Lab

pytestmark = pytest.mark.extended("default")


def starts(lab: Lab) -> dict[str, tuple[str, int]]:
    """Return when each container that runs was started, and how often its restart policy did so."""
    return {item.name: (item.inspect["State"]["StartedAt"], item.inspect["RestartCount"]) for item in lab.containers() if item.running}


def test_ten_thousand_hostile_requests_are_refused_and_restart_nothing(lab: Lab):
    """The ratio of honest clients' p99 is printed and not judged: other work of the machine is in it."""
    before = starts(lab)
    program = [sys.executable, str(ROOT / "tests/load/hostile.py"), "--target", f"127.0.0.1:{lab.https_port}"]
    run = subprocess.run(
        [*program, "--path", "/api/version", "--websocket-path", "/ws", "--seed", "20261129"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr
    result = json.loads(run.stdout)
    print(json.dumps({"honest": result["honest"], "answers": result["answers"]}))
    assert sum(sum(answers.values()) for answers in result["answers"].values()) == 10_000 + 100 + 500
    assert starts(lab) == before
    lab.wait_until_healthy()
    with lab.client() as client:
        assert client.get("/api/version").status_code == 200
