"""The program: how it is steered, and that it always ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from misbehaving import eventually

import slipway_prober
from slipway_prober.control import process_started

pytest_plugins = ["prober_fixtures"]


def program(folder: Path, certificate: Path, port: int, *, settings: dict[str, Any] | None = None, **control: Any) -> subprocess.Popen[str]:
    targets = [{"address": "127.0.0.1", "port": port, "server_name": "localhost"}]
    config = {
        "settings": {"targets": targets, "ca_file": str(certificate), "rate": 50, **(settings or {})},
        "control": {"deadline_seconds": 30, **control},
    }
    (folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-P", "-m", "slipway_prober", "--config", str(folder / "config.json")]
    environment = {**os.environ, "PYTHONPATH": str(Path(slipway_prober.__file__).parents[1])}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


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
    process = program(folder, certificate, served, parent_pid=parent.pid, parent_started=process_started(parent.pid))
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
