# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the engine: checked before, taken over without a restart where that is enough, and taken back where it does not come up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError
from ansible_collections.slipway.stack.plugins.module_utils.engine import EngineError
from ansible_collections.slipway.stack.plugins.modules import engine_options

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="writes files as root")


class Machine:
    """A host whose engine reads its file when it is restarted or reloaded, and does not start with some options."""

    def __init__(self, path: Path, *, bad: str = "", policy: str = "no", swarm: str = "inactive", runs: bool = True) -> None:
        self.path, self.bad, self.policy, self.swarm, self.up = path, bad, policy, swarm, runs
        self.loaded: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.did: list[str] = []

    def run(self, *argv: str) -> tuple[int, str]:
        if argv[:2] == ("systemctl", "show"):
            return 0, "0"
        if argv[0] == "dockerd":
            return (1, "the following directives don't match: nonsense") if "nonsense" in Path(argv[-1][14:]).read_text() else (0, "OK")
        if argv[0] == "systemctl" and argv[1] in ("reload", "restart", "start"):
            self.did.append(argv[1])
            self.loaded = json.loads(self.path.read_text()) if self.path.exists() else {}
            self.up = not self.bad or self.bad not in self.loaded
            return 0 if self.up else 1, ""
        return 0, ""

    def version(self) -> dict[str, str]:
        if not self.up:
            raise EngineError("no engine answers")
        return {}

    def get(self, _path: str) -> dict[str, Any]:
        return {"LiveRestoreEnabled": bool(self.loaded.get("live-restore")), "Swarm": {"LocalNodeState": self.swarm}}

    def containers(self) -> list[dict[str, Any]]:
        return [{"Id": "1"}]

    def inspect(self, _name: str) -> dict[str, Any]:
        return {"Name": "/old-shop", "State": {"Running": True}, "HostConfig": {"RestartPolicy": {"Name": self.policy}}}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(engine_options, "ANSWER_TIMEOUT", 0)
    monkeypatch.setattr(engine_options.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(engine_options.shutil, "which", lambda *_args, **_more: "/usr/bin/dockerd")
    place = tmp_path / "daemon.json"
    place.write_text('{"labels": ["a=b"]}')
    return place


def change(machine: Machine, options: dict[str, Any], accept: bool = False) -> str:
    return engine_options.apply(options, str(machine.path), accept, machine, machine.run)


def test_what_a_running_engine_can_take_over_needs_no_restart(path: Path):
    machine = Machine(path)
    assert change(machine, {"labels": ["a=b"], "registry-mirrors": ["https://mirror.example"]}) == "reloaded"
    assert machine.did == ["reload"]
    assert change(machine, machine.loaded) == "nothing"


def test_containers_live_on_while_the_engine_restarts(path: Path):
    machine = Machine(path)
    assert change(machine, {"labels": ["a=b"], "live-restore": True, "log-driver": "json-file"}) == "restarted"
    assert machine.did == ["reload", "restart"]
    assert machine.loaded["log-driver"] == "json-file"


def test_a_container_that_nothing_starts_again_is_not_stopped_without_consent(path: Path):
    machine, before = Machine(path), path.read_text()
    with pytest.raises(RefusedError, match=r"old-shop \(restart policy no\).*host_accept_engine_restart: true"):
        change(machine, {"userland-proxy": False})
    assert (machine.did, path.read_text()) == ([], before)
    assert change(machine, {"userland-proxy": False}, accept=True) == "restarted"
    assert change(Machine(path, policy="always"), {"userland-proxy": True}) == "restarted"


def test_options_that_the_engine_refuses_are_not_written(path: Path):
    machine, before = Machine(path), path.read_text()
    with pytest.raises(RefusedError, match=r"(?s)refuses its options: the following directives.*Correct host_engine_options"):
        change(machine, {"nonsense": 1})
    assert (machine.did, path.read_text()) == ([], before)


@pytest.mark.parametrize("there", [True, False])
def test_an_engine_that_does_not_come_up_runs_again_with_its_former_options(path: Path, there: bool):
    if not there:
        path.unlink()
    machine, before = Machine(path, bad="bip"), path.read_text() if there else ""
    with pytest.raises(RefusedError, match=r"(?s)does not run with its new options.*has its former options"):
        change(machine, {"bip": "10.0.0.1/33", "live-restore": True})
    assert machine.up
    assert machine.did == ["reload", "restart", "start"]
    assert (path.read_text() if path.exists() else "") == before


def test_a_swarm_is_refused_before_anything_is_touched(path: Path):
    machine, before = Machine(path, swarm="active"), path.read_text()
    with pytest.raises(RefusedError, match="node of a swarm"):
        change(machine, {"live-restore": True, "userland-proxy": False})
    assert (machine.did, path.read_text()) == ([], before)


def test_a_file_that_is_not_valid_is_the_owners_to_correct(path: Path):
    path.write_text("{")
    with pytest.raises(RefusedError, match="is not valid JSON"):
        engine_options.apply({}, str(path), False, None)
    assert path.read_text() == "{"


def test_an_engine_with_containers_does_not_lose_them_to_another_place(path: Path):
    machine, before = Machine(path), path.read_text()
    with pytest.raises(RefusedError, match="data-root in host_engine_options differs"):
        change(machine, {"data-root": "/srv/docker", "live-restore": True})
    assert (machine.did, path.read_text()) == ([], before)
