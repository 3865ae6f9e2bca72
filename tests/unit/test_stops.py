# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stop of a container and a restart of the same one, at the same time."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils import stops
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from conftest import ROOT


class Stopping(Engine):
    """An engine that notes whether the watchdog may restart a container while it stops; it may refuse the stop."""

    def __init__(self, refusal: str = "") -> None:
        super().__init__()
        self.refusal = refusal
        self.allowed: list[bool] = []

    def request(self, *_rest: Any, **_more: Any) -> bytes:
        with stops.restarting("worker") as worker, stops.restarting("api") as api:
            self.allowed += [worker, api]
        if self.refusal:
            raise EngineError(self.refusal)
        return b""


def allowed(identity: str) -> bool:
    with stops.restarting(identity) as may:
        return may


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which stops are noted."""
    monkeypatch.setattr(stops, "FOLDER", str(tmp_path / "stops"))
    return tmp_path / "stops"


def test_a_container_may_not_be_restarted_while_it_stops(folder: Path) -> None:
    engine = Stopping()
    engine.stop({"Id": "worker", "Config": {"StopTimeout": 600}})
    assert engine.allowed == [False, True]
    assert allowed("worker")
    # A container has another id after each release.
    with stops.stopping("page", 10):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not (folder / "page").exists()


def test_a_stop_that_fails_forbids_nothing_afterwards() -> None:
    engine = Stopping("timed out")
    with pytest.raises(EngineError, match="timed out"):
        engine.stop({"Id": "worker", "Config": {}})
    assert engine.allowed == [False, True]
    assert allowed("worker")


def test_a_stop_waits_for_a_restart_that_has_begun() -> None:
    """The engine would start the container after the stop has returned."""
    engine = Stopping()
    stop = threading.Thread(target=engine.stop, args=({"Id": "worker", "Config": {}},))
    with stops.restarting("worker") as may:
        assert may
        stop.start()
        time.sleep(0.3)
        assert not engine.allowed
    stop.join(10)
    assert engine.allowed == [False, True]


@pytest.mark.parametrize(("seconds", "may"), [(30, False), (0, True)])
def test_the_engine_goes_on_with_a_stop_whose_program_was_killed(folder: Path, seconds: float, may: bool) -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from ansible_collections.slipway.stack.plugins.module_utils import stops\n"
        "stops.FOLDER = sys.argv[2]\n"
        "with stops.stopping('worker', float(sys.argv[3])): os.kill(os.getpid(), 9)"
    )
    argv = [sys.executable, "-c", script, str(ROOT / "collections"), str(folder), str(seconds)]
    assert subprocess.run(argv, check=False).returncode == -9
    assert allowed("worker") is may
    # The next stop of it is not kept waiting.
    Stopping().stop({"Id": "worker", "Config": {}})
    assert allowed("worker")


def test_nothing_else_asks_the_engine_to_stop_a_container() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("plugins", "packages")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"containers/[^ ]*/(stop|kill|restart)\b", path.read_text())
    }
    assert found == {"plugins/module_utils/engine.py", "packages/slipway_watchdog/src/restarts.py"}
