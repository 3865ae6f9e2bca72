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
from ansible.utils.vars import merge_hash

from ansible_collections.slipway.stack.plugins.module_utils import engine_options as known_before
from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError
from ansible_collections.slipway.stack.plugins.module_utils.engine import EngineError
from ansible_collections.slipway.stack.plugins.modules import engine_options
from ansible_collections.slipway.stack.plugins.plugin_utils import preflight

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
    monkeypatch.setattr(known_before.shutil, "which", lambda *_args, **_more: "/usr/bin/dockerd")
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


@pytest.mark.parametrize(
    ("options", "machine", "said"),
    [
        ({"nonsense": 1}, {}, "the engine refuses its options"),
        ({"data-root": "/srv/docker"}, {}, "data-root in host_engine_options differs"),
        ({"live-restore": True, "userland-proxy": False}, {"swarm": "active"}, "node of a swarm"),
        ({"userland-proxy": False}, {}, "old-shop (restart policy no)"),
        ({"userland-proxy": False}, {"policy": "always"}, ""),
        ({"labels": ["c=d"]}, {}, ""),
        ({"labels": ["a=b"]}, {"swarm": "active"}, ""),
    ],
)
def test_what_is_refused_is_known_before_a_run_touches_anything(path: Path, options: dict[str, Any], machine: dict[str, Any], said: str):
    """With the state of the host, so that no other host and no lock has been touched either."""
    there, before = Machine(path, **machine), path.read_text()
    refused = known_before.refused_change(options, there, False, str(path), there.run)
    assert said in refused
    assert bool(refused) == bool(said)
    assert (there.did, path.read_text()) == ([], before)
    problems = preflight.check_engine_options("one", {"engine": {"options_refused": refused}})
    assert [(problem.host, said in problem.text, "\n" in problem.text) for problem in problems] == ([("one", True, False)] if said else [])


def test_a_restart_that_is_accepted_is_refused_by_no_one(path: Path):
    there = Machine(path)
    assert known_before.refused_change({"userland-proxy": False}, there, True, str(path), there.run) == ""


def test_a_host_without_an_engine_or_a_file_takes_what_its_program_takes(path: Path):
    run = Machine(path).run
    path.unlink()
    assert known_before.refused_change({"userland-proxy": False}, None, False, str(path), run) == ""
    assert "refuses its options" in known_before.refused_change({"nonsense": 1}, None, False, str(path), run)
    path.write_text("[]")
    assert "is not valid JSON" in known_before.refused_change({}, None, False, str(path), run)


@pytest.mark.parametrize(
    ("former", "options"),
    [
        ({}, {"a": 1}),
        ({"log-opts": {"max-size": "1m", "tag": "x"}, "labels": ["a"]}, {"log-opts": {"max-size": "2m"}, "labels": ["b"]}),
        ({"a": {"b": {"c": 1, "d": 2}}, "e": 1}, {"a": {"b": {"c": 3}}, "e": {"f": 1}}),
        ({"a": {"b": 1}}, {"a": None}),
    ],
)
def test_options_are_laid_over_those_of_the_file_as_role_host_does(former: dict[str, Any], options: dict[str, Any]):
    assert known_before.merged(former, options) == merge_hash(former, options, recursive=True)
