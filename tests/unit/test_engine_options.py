# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the engine: checked before, taken over without a restart where that is enough, and taken back where it does not come up."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.utils.vars import merge_hash

from ansible_collections.slipway.stack.plugins.module_utils import engine_options as known_before
from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError
from ansible_collections.slipway.stack.plugins.module_utils.engine import EngineError
from ansible_collections.slipway.stack.plugins.module_utils.engine_options import UNNAMED
from ansible_collections.slipway.stack.plugins.modules import engine_options
from ansible_collections.slipway.stack.plugins.plugin_utils import outlook, preflight
from conftest import ROOT, role_task

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="writes files as root")


class Machine:
    """A host whose engine reads its file when it is restarted or reloaded, and does not start with some options."""

    def __init__(
        self, path: Path, *, bad: str = "", policy: str = "no", swarm: str = "inactive", runs: bool = True, more: Any = None
    ) -> None:
        self.path, self.bad, self.policy, self.swarm, self.up = path, bad, policy, swarm, runs
        #: What its description and that of its container contain in addition, and the number of its process.
        self.info: dict[str, Any] = {}
        self.container: dict[str, Any] = more or {}
        self.pid = str(os.getpid())
        self.loaded: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.did: list[str] = []
        #: Whether containers were stopped by a restart.
        self.stopped = False

    def run(self, *argv: str) -> tuple[int, str]:
        if argv[:2] == ("systemctl", "show"):
            return 0, self.pid
        if argv[0] == "/usr/bin/dockerd":
            return (1, "the following directives don't match: nonsense") if "nonsense" in Path(argv[-1][14:]).read_text() else (0, "OK")
        if argv[0] == "systemctl" and argv[1] in ("reload", "restart", "start"):
            self.did.append(argv[1])
            before, self.loaded = self.loaded, json.loads(self.path.read_text()) if self.path.exists() else {}
            if argv[1] == "reload":
                # What the file does not name stays.
                self.loaded = {**{name: value for name, value in before.items() if name in UNNAMED}, **self.loaded}
            elif not (before.get("live-restore") and self.loaded.get("live-restore")):
                self.stopped = True
            self.up = not self.bad or self.bad not in self.loaded
            return 0 if self.up else 1, ""
        return 0, ""

    def version(self) -> dict[str, str]:
        if not self.up:
            raise EngineError("no engine answers")
        return {}

    def get(self, _path: str) -> dict[str, Any]:
        info = {"LiveRestoreEnabled": bool(self.loaded.get("live-restore")), "Swarm": {"LocalNodeState": self.swarm}}
        return {**info, "DockerRootDir": "/var/lib/docker", **self.info}

    def containers(self) -> list[dict[str, Any]]:
        return [{"Id": "1"}]

    def inspect(self, _name: str) -> dict[str, Any]:
        found = {"Id": "1", "Name": "/old-shop", "State": {"Running": True}, "HostConfig": {"RestartPolicy": {"Name": self.policy}}}
        return {**found, "Config": {"Labels": None}, "NetworkSettings": {}, **self.container}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(engine_options, "ANSWER_TIMEOUT", 0)
    monkeypatch.setattr(engine_options.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(known_before.shutil, "which", lambda *_args, **_more: "/usr/bin/dockerd")
    place = tmp_path / "daemon.json"
    place.write_text('{"labels": ["a=b"]}')
    return place


def change(machine: Machine, options: dict[str, Any], accept: str = "nothing") -> str:
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
    assert not machine.stopped


@pytest.mark.parametrize(("more", "did"), [({}, ["reload"]), ({"userland-proxy": False}, ["restart", "reload"])])
@pytest.mark.parametrize("wanted", [{}, {"live-restore": False}], ids=["not named", "off"])
def test_containers_live_on_when_their_engine_is_to_be_without_live_restore(
    path: Path, wanted: dict[str, Any], more: dict[str, Any], did: list[str]
):
    """An engine that came back without it stopped all containers, which nothing started again."""
    path.write_text('{"labels": ["a=b"]}')
    machine = Machine(path)
    assert change(machine, {"live-restore": True}) == "reloaded"
    machine.did.clear()
    assert change(machine, {**wanted, **more}) == ("restarted" if more else "reloaded")
    assert (machine.did, machine.stopped) == (did, False)
    assert not machine.loaded["live-restore"]
    assert json.loads(path.read_text()) == {"labels": ["a=b"], **wanted, **more}
    assert change(machine, {**wanted, **more}) == "nothing"


def test_live_restore_by_a_flag_stays(path: Path, monkeypatch: pytest.MonkeyPatch):
    """The engine does not start with both."""
    machine = Machine(path)
    machine.info = {"LiveRestoreEnabled": True}
    monkeypatch.setattr(engine_options, "flags_of", lambda _run: ["--host=fd://", "--live-restore"])
    assert change(machine, {"userland-proxy": False}) == "restarted"
    assert (machine.did, machine.loaded) == (["restart"], {"labels": ["a=b"], "userland-proxy": False})


def test_a_container_that_nothing_starts_again_is_not_stopped_without_consent(path: Path):
    machine, before = Machine(path), path.read_text()
    with pytest.raises(RefusedError, match=r"old-shop \(restart policy no\).*host_accept_engine_restart: true"):
        change(machine, {"userland-proxy": False})
    assert (machine.did, path.read_text()) == ([], before)
    with pytest.raises(RefusedError, match="host_accept_engine_restart"):
        change(machine, {"userland-proxy": False}, accept="restart")
    assert change(machine, {"userland-proxy": False}, accept="stop") == "restarted"


def test_containers_that_come_back_are_stopped_with_consent_only(path: Path):
    """All stores of all hosts would stop at once, and the plan reported a reload."""
    machine, before = Machine(path, policy="always"), path.read_text()
    with pytest.raises(RefusedError, match=r"stops its containers meanwhile \(1 run\).*-e accept=restart"):
        change(machine, {"userland-proxy": False})
    assert (machine.did, path.read_text()) == ([], before)
    assert change(machine, {"userland-proxy": False}, accept="restart") == "restarted"


def test_the_next_host_waits_until_the_containers_of_this_one_are_healthy(path: Path, monkeypatch: pytest.MonkeyPatch):
    health, pauses = iter(["starting", "starting", "healthy"]), []
    machine = Machine(path, policy="always")
    monkeypatch.setattr(machine, "inspect", lambda _name: {
        "Id": "1", "Name": "/db", "State": {"Running": True, **({"Health": {"Status": next(health)}} if machine.did else {})},
        "HostConfig": {"RestartPolicy": {"Name": "always"}}, "Config": {}, "NetworkSettings": {},
    })  # fmt: skip
    monkeypatch.setattr(engine_options.time, "sleep", pauses.append)
    assert change(machine, {"userland-proxy": False}, accept="restart") == "restarted"
    assert pauses == [1, 1]
    assert next(health, None) is None


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
        engine_options.apply({}, str(path), "nothing", None)
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
        ({"userland-proxy": False}, {"policy": "always"}, "-e accept=restart"),
        ({"userland-proxy": False, "live-restore": True}, {}, ""),
        ({"iptables": False, "live-restore": True}, {}, "the engine has iptables: false"),
        ({"firewall-backend": "nftables", "live-restore": True}, {}, "the engine has firewall-backend: nftables"),
        ({"log-opts": {"gelf-address": "udp://x:1"}, "live-restore": True}, {}, "log driver json-file has no option gelf-address"),
        ({"log-opts": {"cache-disabled": "true", "mode": "non-blocking"}, "live-restore": True}, {}, ""),
        ({"labels": ["c=d"]}, {}, ""),
        ({"labels": ["a=b"]}, {"swarm": "active"}, ""),
    ],
)
def test_what_is_refused_is_known_before_a_run_touches_anything(path: Path, options: dict[str, Any], machine: dict[str, Any], said: str):
    """With the state of the host, so that no other host and no lock has been touched either."""
    there, before = Machine(path, **machine), path.read_text()
    refused = known_before.refused_change(options, there, "nothing", str(path), there.run)
    assert said in refused
    assert bool(refused) == bool(said)
    assert (there.did, path.read_text()) == ([], before)
    problems = preflight.check_engine_options("one", {"engine": {"options_refused": refused}})
    assert [(problem.host, said in problem.text, "\n" in problem.text) for problem in problems] == ([("one", True, False)] if said else [])


def test_a_restart_that_is_accepted_is_refused_by_no_one(path: Path):
    there = Machine(path)
    assert known_before.refused_change({"userland-proxy": False}, there, "stop", str(path), there.run) == ""


def test_a_host_without_an_engine_or_a_file_takes_what_its_program_takes(path: Path):
    run = Machine(path).run
    path.unlink()
    assert known_before.refused_change({"userland-proxy": False}, None, "nothing", str(path), run) == ""
    assert "refuses its options" in known_before.refused_change({"nonsense": 1}, None, "nothing", str(path), run)
    path.write_text("[]")
    assert "is not valid JSON" in known_before.refused_change({}, None, "nothing", str(path), run)


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


GELF = {"log-driver": "gelf", "log-opts": {"gelf-address": "udp://log:1"}}
FILES = {"log-driver": "json-file", "log-opts": {"max-file": "3", "max-size": "10m"}}


def test_options_of_another_log_driver_are_not_mixed_with_those_of_the_former_one(path: Path):
    """``dockerd --validate`` does not look at them, and the engine does not start."""
    path.write_text(json.dumps({**GELF, "labels": ["a=b"]}))
    machine = Machine(path)
    assert change(machine, {**FILES, "live-restore": True}) == "restarted"
    assert machine.loaded == {**FILES, "live-restore": True, "labels": ["a=b"]}
    assert change(machine, {"log-driver": "journald", "live-restore": True}) == "restarted"
    assert machine.loaded == {"log-driver": "journald", "live-restore": True, "labels": ["a=b"]}
    path.write_text(json.dumps(GELF))
    change(machine, {"log-driver": "local", "live-restore": True})
    assert machine.loaded == {"log-driver": "local", "live-restore": True}


def test_what_is_no_longer_wanted_goes_and_what_its_owner_wrote_stays(path: Path):
    path.write_text(json.dumps({"labels": ["a=b"], "log-opts": {"tag": "x"}, "dns": ["10.0.0.2"]}))
    machine = Machine(path)
    wanted = {"live-restore": True, "bip": "10.9.0.1/24", "debug": True, "log-opts": {"max-file": "3", "max-size": "10m"}}
    change(machine, wanted)
    # Changed by the owner since.
    path.write_text(json.dumps({**json.loads(path.read_text()), "debug": False}))
    change(machine, {"live-restore": True, "log-opts": {"max-size": "10m"}})
    assert machine.loaded == {
        "labels": ["a=b"],
        "dns": ["10.0.0.2"],
        "live-restore": True,
        "debug": False,
        "log-opts": {"tag": "x", "max-size": "10m"},
    }
    change(machine, {})
    own = {"labels": ["a=b"], "dns": ["10.0.0.2"], "debug": False, "log-opts": {"tag": "x"}}
    assert (json.loads(path.read_text()), machine.loaded) == (own, {**own, "live-restore": False})


class KilledError(Exception):
    """The run has ended here."""


def killed(machine: Machine, options: dict[str, Any], at: str, *, after: bool = False) -> None:
    """Change the options in a run that dies at a call of systemctl, or right after it."""

    def run(*argv: str) -> tuple[int, str]:
        dies = argv[:2] == ("systemctl", at)
        if dies and not after:
            raise KilledError
        done = machine.run(*argv)
        if dies:
            raise KilledError
        return done

    with pytest.raises(KilledError):
        engine_options.apply(options, str(machine.path), "stop", machine, run)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("at", "options"),
    [
        ("restart", {"live-restore": True, "log-driver": "local"}),
        ("restart", {"log-driver": "local"}),
        ("reload", {"live-restore": True, "log-driver": "local"}),
        ("reload", {"debug": True}),
        ("enable", {"live-restore": True, "log-driver": "local"}),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_the_next_run_finishes_what_a_killed_one_began(path: Path, at: str, options: dict[str, Any], after: bool, there: bool):
    if not there:
        path.unlink()
    machine = Machine(path)
    killed(machine, options, at, after=after)
    described = known_before.describe(machine, str(path))
    assert described["interrupted"]
    (reason,) = known_before.reasons(described, options)
    assert reason.endswith("an earlier change was interrupted")
    assert change(machine, options, "stop") in ("reloaded", "restarted")
    assert machine.loaded == {**({"labels": ["a=b"]} if there else {}), **options}
    assert change(machine, options) == "nothing"
    assert known_before.reasons(known_before.describe(machine, str(path)), options) == []


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", ["reload", "restart"])
@pytest.mark.parametrize("more", [{}, {"bip": "10.0.0.1/24"}], ids=["reloaded", "restarted"])
def test_the_next_run_finishes_what_a_killed_one_has_begun_to_take_away(path: Path, at: str, more: dict[str, Any], after: bool):
    machine = Machine(path)
    change(machine, {"live-restore": True, "debug": True, "insecure-registries": ["registry.test"]})
    if at == "restart" and not more:
        at = "reload"
    killed(machine, more, at, after=after)
    assert known_before.read_found(str(path)).interrupted
    assert change(machine, more) in ("reloaded", "restarted")
    assert json.loads(path.read_text()) == {"labels": ["a=b"], **more}
    assert not any(machine.loaded.get(name) for name in ("live-restore", "debug", "insecure-registries"))
    assert not machine.stopped
    assert change(machine, more) == "nothing"


def test_a_reload_takes_away_what_the_file_no_longer_names(path: Path):
    """An engine goes on with them otherwise, until it restarts."""
    path.write_text("{}")
    machine = Machine(path)
    wanted = {
        "labels": ["a=b"],
        "registry-mirrors": ["https://mirror.test"],
        "insecure-registries": ["registry.test"],
        "shutdown-timeout": 60,
    }
    assert change(machine, wanted) == "reloaded"
    assert change(machine, {}) == "reloaded"
    assert {name: machine.loaded[name] for name in wanted} == {name: UNNAMED[name] for name in wanted}
    assert json.loads(path.read_text()) == {}
    assert "restart" not in machine.did


def test_options_with_which_a_killed_run_left_no_engine_are_taken_back(path: Path):
    machine, before = Machine(path, bad="bip"), path.read_text()
    wanted = {"bip": "10.0.0.1/33", "live-restore": True}
    killed(machine, wanted, "restart", after=True)
    assert not machine.up
    with pytest.raises(RefusedError, match="has its former options"):
        change(machine, wanted)
    assert machine.up
    assert path.read_text() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["daemon.json"]


def test_a_change_that_is_not_wanted_any_more_after_a_killed_run_is_undone(path: Path):
    machine, former = Machine(path), json.loads(path.read_text())
    killed(machine, {"live-restore": True, "log-driver": "local"}, "restart", after=True)
    assert change(machine, {"live-restore": True}) == "restarted"
    assert machine.loaded == {**former, "live-restore": True}


def test_a_file_that_its_owner_has_edited_after_a_killed_run_is_the_owners(path: Path):
    machine = Machine(path)
    killed(machine, {"live-restore": True, "log-driver": "local"}, "restart")
    path.write_text('{"dns": ["10.0.0.2"]}')
    assert not known_before.describe(machine, str(path))["interrupted"]
    change(machine, {"live-restore": True})
    assert json.loads(path.read_text()) == {"dns": ["10.0.0.2"], "live-restore": True}


def test_an_engine_that_does_not_come_back_with_its_former_options_is_reported(path: Path):
    machine = Machine(path, bad="labels")
    with pytest.raises(RefusedError, match="does not run with its former options either"):
        change(machine, {"live-restore": True, "log-driver": "local"})


def test_a_program_that_hangs_does_not_hold_the_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(known_before, "PROGRAM_TIMEOUT", 0.1)
    assert known_before.run_program("sleep", "60") == (124, "sleep 60 has not ended after 0.1 s")
    assert known_before.run_program("echo", "yes") == (0, "yes")


def test_a_host_without_systemd_is_read_and_says_what_it_lacks(path: Path, monkeypatch: pytest.MonkeyPatch):
    """As with another init system: the options are looked at in each run."""
    monkeypatch.setenv("PATH", "/nonexistent")
    assert known_before.run_program("systemctl", "show") == (127, "systemctl: No such file or directory")
    monkeypatch.setattr(known_before.shutil, "which", lambda *_args, **_more: None)
    assert known_before.refused_change({"debug": True}, None, "nothing", str(path)) == ""
    with pytest.raises(RefusedError, match="systemctl: No such file or directory"):
        engine_options.apply({"debug": True}, str(path), "nothing", Machine(path, runs=False))


def test_log_driver_none_takes_any_options(path: Path):
    """As the engine does: those of the driver before may stay."""
    machine = Machine(path)
    assert change(machine, {"live-restore": True, "log-driver": "none", "log-opts": {"max-size": "10m"}}) == "restarted"


def test_what_is_known_of_options_holds_no_login(path: Path):
    """A changed login is a difference nevertheless; with -v all that a host says is shown."""
    path.unlink()
    machine = Machine(path)
    options = {"proxies": {"https-proxy": "http://u:of-the-proxy@proxy:3128"}, "live-restore": True}
    change(machine, options, "stop")
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    described = known_before.describe(machine, str(path))
    assert "of-the-proxy" not in json.dumps(described)
    assert known_before.reasons(described, options) == []
    other = {**options, "proxies": {"https-proxy": "http://u:another@proxy:3128"}}
    assert known_before.reasons(described, other) == ["the engine restarts for its options: proxies; containers keep running"]


def test_a_file_behind_a_link_keeps_its_place_and_its_mode(path: Path, tmp_path: Path):
    real = tmp_path / "managed" / "docker.json"
    real.parent.mkdir()
    real.write_text('{"proxies": {"http-proxy": "http://u:secret@proxy:3128"}}')
    real.chmod(0o600)
    os.chown(real, 7, 8)
    path.unlink()
    path.symlink_to(real)
    machine = Machine(path)
    change(machine, {"live-restore": True, "debug": True})
    info = real.stat()
    assert (path.is_symlink(), oct(info.st_mode & 0o777), info.st_uid, info.st_gid) == (True, "0o600", 7, 8)
    assert set(machine.loaded) == {"proxies", "live-restore", "debug"}
    assert {oct(file.stat().st_mode & 0o777) for file in path.parent.glob("daemon.json.*")} == {"0o600"}
    machine.bad = "bip"
    with pytest.raises(RefusedError, match="has its former options"):
        change(machine, {"live-restore": True, "debug": True, "bip": "10.0.0.1/33"})
    assert (path.is_symlink(), oct(real.stat().st_mode & 0o777)) == (True, "0o600")


@pytest.mark.parametrize("plugin", ["engine_options", "host_state"])
def test_options_are_not_written_to_the_hosts_journal(plugin: str):
    """As one string: hidden one by one, each 3 of a report would be hidden."""
    source = (ROOT / f"plugins/modules/{plugin}.py").read_text()
    assert re.search(r'"(engine_)?options": \{"type": "json", ("required": True, )?"no_log": True\}', source)
    tasks = (ROOT / "roles/host/tasks/prepare.yml").read_text() + (ROOT / "roles/host/tasks/read.yml").read_text()
    assert len(re.findall(r"options: \"\{\{ host_engine_options \| to_json \}\}\"", tasks)) == 2


def test_another_engine_than_the_one_of_its_unit_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch):
    machine, wanted = Machine(path), {"labels": ["a=b"]}

    def refused() -> str:
        return known_before.refused_change(wanted, machine, "nothing", str(path), machine.run)

    assert refused() == ""
    machine.pid = "0"
    assert "docker.service does not run" in refused()
    monkeypatch.setattr(known_before.shutil, "which", lambda *_args, **_more: None)
    assert "there is no program dockerd" in refused()
    machine.info = {"DockerRootDir": "/var/snap/docker/common/var-lib-docker"}
    assert "snap remove docker" in refused()
    assert known_before.refused_change(wanted, None, "nothing", str(path), machine.run) == ""


REMAP = {"userns-remap": "default"}
MAPS_USERS = {"SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=userns", "name=cgroupns"]}


@pytest.mark.parametrize("has", [False, True], ids=["not loaded", "loaded"])
@pytest.mark.parametrize("runs", [False, True], ids=["no engine", "engine"])
@pytest.mark.parametrize(
    ("file", "wanted", "refused"),
    [(REMAP, {}, True), ({}, REMAP, True), ({}, {"userns-remap": ""}, False), ({}, {"labels": ["a=b"]}, False)],
    ids=["file", "inventory", "taken back", "not asked for"],
)
def test_an_engine_that_maps_users_is_refused_before_its_containers_fail(
    path: Path, file: dict[str, Any], wanted: dict[str, Any], refused: bool, runs: bool, has: bool
):
    """The first container that reads a secret failed with Permission denied, and the remedy was another input."""
    path.write_text(json.dumps(file))
    machine = Machine(path)
    machine.info = MAPS_USERS if has else {}
    machine.containers = list  # type: ignore[method-assign]
    said = known_before.refused_change({"live-restore": True, **wanted}, machine if runs else None, "nothing", str(path), machine.run)
    # By a flag of the engine, or by an option that was removed and that it still has.
    by_a_flag = runs and has and "userns-remap" not in wanted
    assert ("the engine has userns-remap" in said) == (refused or by_a_flag)
    assert bool(said) == (refused or by_a_flag)


def test_an_engine_that_maps_users_does_not_lose_its_containers_by_going_without(path: Path):
    path.write_text(json.dumps(REMAP))
    machine = Machine(path)
    machine.info = MAPS_USERS
    said = known_before.refused_change({"userns-remap": ""}, machine, "stop", str(path), machine.run)
    assert "userns-remap in host_engine_options differs from daemon.json, and the engine has containers" in said
    assert machine.did == []


def published(address: str, own: str = "", labels: Any = None) -> dict[str, Any]:
    ports = {"80/tcp": [{"HostIp": address, "HostPort": "80"}], "81/tcp": None}
    return {"Config": {"Labels": labels}, "NetworkSettings": {"Ports": ports, "Networks": {"bridge": {"GlobalIPv6Address": own}}}}


@pytest.mark.parametrize(
    ("container", "public", "refused"),
    [
        (published("::"), True, True),
        (published("2001:db8::1"), True, True),
        (published("::"), False, False),
        (published("0.0.0.0"), True, False),
        (published("::", own="2001:db8::2"), True, False),
        (published("::", labels={"slipway.stack": "another"}), True, False),
    ],
)
def test_ports_of_others_are_not_cut_off_without_consent(
    path: Path, monkeypatch: pytest.MonkeyPatch, container: dict[str, Any], public: bool, refused: bool
):
    monkeypatch.setattr(known_before, "public_ipv6", lambda: ["2001:db8::1"] if public else [])
    machine, wanted = Machine(path, more=container), {"userland-proxy": False, "live-restore": True}
    said = known_before.refused_change(wanted, machine, "restart", str(path), machine.run)
    assert ("unreachable over IPv6" in said, "old-shop" in said) == (refused, refused)
    assert known_before.refused_change(wanted, machine, "stop", str(path), machine.run) == ""
    path.write_text(json.dumps({"userland-proxy": False}))
    assert known_before.refused_change(wanted, machine, "restart", str(path), machine.run) == ""


def test_an_address_of_one_link_or_of_the_host_itself_is_not_public(tmp_path: Path):
    table = tmp_path / "if_inet6"
    table.write_text("00000000000000000000000000000001 01 80 10 80 lo\nfe800000000000000000000000000001 02 40 20 80 eth0\n")
    assert known_before.public_ipv6(str(table)) == []
    table.write_text("20010db8000000000000000000000001 02 40 00 80 eth0\n")
    assert known_before.public_ipv6(str(table)) == ["2001:db8::1"]
    assert known_before.public_ipv6(str(tmp_path / "none")) == []


def test_the_plan_says_what_becomes_of_the_engine_and_of_its_containers(path: Path):
    described = known_before.describe(Machine(path), str(path))
    assert known_before.reasons(described, {"debug": True}) == ["the engine reloads its options: debug"]
    assert known_before.reasons(described, {"log-driver": "local"}) == [
        "the engine restarts for its options: log-driver; its containers stop meanwhile"
    ]
    lives = {"log-driver": "local", "live-restore": True}
    assert known_before.reasons(described, lives) == [
        "the engine restarts for its options: live-restore, log-driver; containers keep running"
    ]
    assert [known_before.stops_containers(described, options) for options in ({"log-driver": "local"}, lives, {"debug": True}, {})] == [
        *(True, False, False, False)
    ]
    assert known_before.reasons(known_before.describe(None, str(path)), {"debug": True}) == ["the engine starts with its options: debug"]
    release = {"inputs": {"rolling": False}, "record": None, "moves": False, "images": {}, "version": "1", "locked_on": ""}
    release |= {"held_until": "", "recover": ""}
    for options, action in ((lives, outlook.RESTART), ({"debug": True}, outlook.RELOAD)):
        (row,) = outlook.outlook([], {"host": {"db1": known_before.reasons(described, options)}}, release)
        assert (row["service"], row["action"]) == ("host", action)


def test_hosts_whose_containers_stop_take_their_turns() -> None:
    for described, throttle in (({"accepted": {}, "current": {}, "runs": True, "containers_live_on": False}, "1"), ({}, "0")):
        given = {"container_service_host_state": {"engine": {"options": described}}, "host_engine_options": {"log-driver": "local"}}
        assert str(role_task("host", "prepare.yml", "prepare | Run the engine with its options", "throttle", given)) == throttle
