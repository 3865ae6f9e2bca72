# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container that takes the place of another: what runs after each way in which it can fail, and after a run that was killed."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils import health
from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError, keep_files, switch, undo_folder
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.modules import container_replace, container_trial
from ansible_collections.slipway.stack.plugins.plugin_utils.plan import container_options, normalize
from conftest import needs_engine

OLD, NEW = {"Id": "old", "Name": "s-redis"}, {"Id": "new", "Name": "s-redis-next"}


class KilledError(BaseException):
    """Ends a run as SIGKILL would, as far as nothing of the run's own takes note of it."""


class FakeEngine:
    """Holds containers by id, with their names and states; may refuse a start, and may kill the run at a request."""

    def __init__(self, *containers: dict[str, Any], unstartable: str = "", states: list[str] | None = None, kill_at: int = 0) -> None:
        self.containers = {item["Id"]: {"State": {"Status": "created"}, "Config": {}, **item} for item in containers}
        self.unstartable, self.states, self.left = unstartable, states or ["healthy"], kill_at
        if "old" in self.containers and self.containers["old"]["Name"] == "s-redis":
            self.containers["old"]["State"] = {"Status": "running", "Health": {"Status": "healthy"}}

    def find(self, name: str) -> dict[str, Any] | None:
        return next((item for item in self.containers.values() if name in (item["Name"], item["Id"])), None)

    def inspect(self, name: str) -> dict[str, Any] | None:
        found = self.find(name)
        if found and found["Id"] == "new" and found["State"]["Status"] == "running":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            if state == "exited":
                return {**found, "State": {"Status": "exited", "ExitCode": 78}}
            if state == "restarting":
                return {**found, "RestartCount": 3, "State": {"Status": "restarting", "ExitCode": 1}}
            found["State"]["Health"] = {"Status": state}
        return found

    def act(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError

    def stop(self, inspected: dict[str, Any]) -> None:
        self.act()
        self.containers[inspected["Id"]]["State"] = {"Status": "exited", "ExitCode": 0}

    def request(self, method: str, path: str, query: dict[str, Any] | None = None, *_rest: Any) -> bytes:
        self.act()
        identity = path.split("/")[2]
        found = self.find(identity)
        if found is None:
            raise EngineError(f"No such container: {identity}", 404)
        if method == "DELETE":
            del self.containers[found["Id"]]
        elif path.endswith("/rename"):
            assert self.find((query or {})["name"]) is None, "the name is taken"
            found["Name"] = (query or {})["name"]
        elif path.endswith("/start"):
            if found["Id"] == self.unstartable:
                raise EngineError("bind: cannot assign requested address", 500)
            found["State"] = {"Status": "running", "Health": {"Status": "healthy"}}
        return b""

    remove = Engine.remove

    def logs(self, _name: str, _lines: int) -> str:
        return "what it wrote\n"

    def running(self) -> dict[str, str]:
        return {item["Name"]: item["Id"] for item in self.containers.values() if item["State"]["Status"] == "running"}


@pytest.fixture
def item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A service whose files have changed for the container that is to come."""
    monkeypatch.setattr(health, "LOG_FOLDER", str(tmp_path / "log"))
    folder = tmp_path / "redis"
    for name in ("a", "b"):
        (folder / "config" / name).mkdir(parents=True)
    switch(str(folder / "config"), "a")
    keep_files(str(folder))
    switch(str(folder / "config"), "b")
    return {"name": "s-redis", "folder": str(folder), "ready": [], "timeout": 0.5, "returns": True}


def live(item: dict[str, Any]) -> str:
    return os.readlink(Path(item["folder"], "config/current"))


as_root = pytest.mark.skipif(os.getuid() != 0, reason="writes files as root")


@as_root
def test_a_container_that_comes_up_takes_the_place(item: dict[str, Any]):
    engine = FakeEngine(OLD, NEW, states=["starting", "healthy"])
    container_replace.replace(engine, item, 20)
    assert engine.running() == {"s-redis": "new"}
    assert list(engine.containers) == ["new"]
    assert live(item) == "b"
    assert not os.path.exists(undo_folder(item["folder"]))


@as_root
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"unstartable": "new"}, "cannot be started: bind: cannot assign requested address"),
        ({"states": ["starting", "exited"]}, r"(?s)is exited with exit status 78.*what it wrote"),
        ({"states": ["starting", "restarting"]}, "restarts repeatedly, last with exit status 1"),
        ({"states": ["starting", "unhealthy"]}, "is unhealthy"),
        ({"states": ["starting"]}, r"did not come up within 0\.5 s"),
    ],
)
def test_one_that_does_not_come_up_leaves_the_former_one_with_its_files(item: dict[str, Any], more: dict[str, Any], message: str):
    engine = FakeEngine(OLD, NEW, **more)
    with pytest.raises(RefusedError, match=message) as raised:
        container_replace.replace(engine, item, 20)
    assert "The former s-redis is back in its place and runs" in str(raised.value)
    assert engine.running() == {"s-redis": "old"}
    assert list(engine.containers) == ["old"]
    assert live(item) == "a"


def failing(engine: FakeEngine, method: str, times: int, only: str = "") -> None:
    """Have calls of an engine fail, once there is a container ``new`` that runs."""
    answer, left = getattr(engine, method), [times]

    def call(*arguments: Any, **more: Any) -> Any:
        if engine.containers["new"]["State"]["Status"] == "running" and left[0] > 0 and only in (str(arguments[0]), ""):
            left[0] -= 1
            raise EngineError("container 1f is not running", 409)
        return answer(*arguments, **more)

    setattr(engine, method, call)


@as_root
@pytest.mark.parametrize("method", ["inspect", "execute"])
def test_an_engine_that_fails_while_the_new_one_comes_up_is_asked_again(item: dict[str, Any], method: str):
    """As with a command in a container between two restarts, or one that takes too long."""
    engine = FakeEngine(OLD, NEW, states=["healthy"])
    engine.execute = lambda *_arguments, **_more: (0, "", "")  # type: ignore[attr-defined]
    failing(engine, method, 2)
    container_replace.replace(engine, {**item, "ready": ["ping"], "timeout": 5}, 20)
    assert engine.running() == {"s-redis": "new"}
    assert list(engine.containers) == ["new"]


@as_root
@pytest.mark.parametrize(("method", "ready"), [("execute", ["ping"]), ("inspect", [])])
def test_an_engine_that_goes_on_failing_has_the_former_one_put_back(item: dict[str, Any], method: str, ready: list[str]):
    engine = FakeEngine(OLD, NEW)
    engine.execute = lambda *_arguments, **_more: (0, "", "")  # type: ignore[attr-defined]
    failing(engine, method, 10**6, only="s-redis")
    with pytest.raises(RefusedError, match=r"(?s)did not come up within 0\.5 s.*The former s-redis is back in its place"):
        container_replace.replace(engine, {**item, "ready": ready}, 20)
    assert engine.running() == {"s-redis": "old"}
    assert live(item) == "a"


@as_root
def test_a_name_that_the_new_one_does_not_get_leaves_the_former_one_running(item: dict[str, Any]):
    engine = FakeEngine(OLD, NEW)
    answer = engine.request
    refuse = lambda *arguments: arguments[:2] == ("POST", "/containers/new/rename")  # noqa: E731

    def request(*arguments: Any, **more: Any) -> bytes:
        if refuse(*arguments):
            raise EngineError("timed out")
        return answer(*arguments, **more)

    engine.request = request  # type: ignore[method-assign]
    with pytest.raises(RefusedError, match="timed out"):
        container_replace.replace(engine, item, 20)
    assert engine.running() == {"s-redis": "old"}


BEGUN = ({**OLD, "Name": "s-redis-before"}, {**NEW, "Name": "s-redis"})


@as_root
def test_a_successor_that_was_not_waited_for_to_the_end_is_waited_for_again(item: dict[str, Any]):
    """The run before it ended meanwhile, so what it has declared is all there, and nothing is made for it."""
    engine = FakeEngine(*BEGUN, states=["starting", "healthy"])
    container_replace.replace(engine, item, 20)
    assert engine.running() == {"s-redis": "new"}
    assert list(engine.containers) == ["new"]
    assert live(item) == "b"


@as_root
def test_a_successor_that_does_not_come_up_now_either_gives_its_place_back(item: dict[str, Any]):
    engine = FakeEngine(*BEGUN, states=["unhealthy"])
    with pytest.raises(RefusedError, match="The former s-redis is back in its place"):
        container_replace.replace(engine, item, 20)
    assert engine.running() == {"s-redis": "old"}
    assert live(item) == "a"
    engine = FakeEngine(*BEGUN, states=["unhealthy"])
    with pytest.raises(RefusedError, match="may have changed its data"):
        container_replace.replace(engine, {**item, "returns": False}, 20)


@as_root
def test_a_successor_that_was_not_up_is_not_what_returns_after_the_next_one(item: dict[str, Any]):
    newer = {"Id": "newer", "Name": "s-redis-next"}
    engine = FakeEngine(*BEGUN, newer, states=["unhealthy"], unstartable="newer")
    engine.containers["new"]["State"] = {"Status": "running"}
    with pytest.raises(RefusedError, match="is back in its place"):
        container_replace.replace(engine, item, 20)
    assert engine.running() == {"s-redis": "old"}
    assert list(engine.containers) == ["old"]


@as_root
def test_the_log_of_one_that_is_removed_is_kept(item: dict[str, Any], tmp_path: Path):
    with pytest.raises(RefusedError, match=r"The log is kept on the host in .*/log/s-redis\.log"):
        container_replace.replace(FakeEngine(OLD, NEW, states=["exited"]), item, 20)
    kept = tmp_path / "log/s-redis.log"
    assert kept.read_text() == "what it wrote\n"
    assert kept.stat().st_mode & 0o777 == 0o600


@as_root
def test_another_major_version_that_has_run_is_not_followed_by_the_former_one(item: dict[str, Any]):
    mounts = {"Mounts": [{"Type": "volume", "Name": "data", "Source": "/nonexistent", "RW": True}]}
    engine = FakeEngine({**OLD, **mounts}, {**NEW, **mounts}, states=["exited"])
    with pytest.raises(RefusedError, match="may have changed its data"):
        container_replace.replace(engine, {**item, "returns": False}, 20)
    assert engine.find("s-redis-before")["Id"] == "old"
    # One that never ran has changed nothing.
    engine = FakeEngine(OLD, NEW, unstartable="new")
    with pytest.raises(RefusedError, match="is back in its place"):
        container_replace.replace(engine, {**item, "returns": False}, 20)
    assert engine.running() == {"s-redis": "old"}


@as_root
@pytest.mark.parametrize(
    ("before", "after", "shared", "returns"),
    [
        ("17", "17", True, True),
        ("17", "18", True, False),
        ("17", "", True, False),
        # No cluster of PostgreSQL: nothing says whether the data was left as it was.
        ("", "", True, False),
        ("", "18", True, False),
        # A volume of its own.
        ("17", "17", False, True),
        ("", "", False, True),
    ],
)
def test_the_former_one_runs_again_on_data_that_was_left_as_it_was(
    item: dict[str, Any], tmp_path: Path, before: str, after: str, shared: bool, returns: bool
):
    """Whatever the names of both images say."""

    class Server(FakeEngine):
        def request(self, method: str, path: str, *rest: Any) -> bytes:
            if path == "/containers/new/start":
                write(after)
            return super().request(method, path, *rest)

    def write(version: str) -> None:
        (tmp_path / "data/PG_VERSION").unlink(missing_ok=True)
        if version:
            (tmp_path / "data/PG_VERSION").write_text(f"{version}\n")

    (tmp_path / "data").mkdir()
    write(before)
    mounts = [{"Type": "volume", "Name": "data", "Source": str(tmp_path / "data"), "RW": True}]
    logs = {"Type": "bind", "Source": str(tmp_path), "RW": False}
    others = mounts if shared else [{**mounts[0], "Source": str(tmp_path / "other")}]
    engine = Server({**OLD, "Mounts": [*mounts, logs]}, {**NEW, "Mounts": [*others, logs]}, states=["exited"])
    with pytest.raises(RefusedError, match="is back in its place" if returns else "may have changed its data"):
        container_replace.replace(engine, {**item, "returns": False}, 20)
    assert engine.running() == ({"s-redis": "old"} if returns else {"s-redis": "new"})


@as_root
@pytest.mark.parametrize("step", range(1, 6))
def test_a_replacement_that_was_killed_is_finished_by_the_next(item: dict[str, Any], step: int):
    engine = FakeEngine(OLD, NEW, kill_at=step)
    with pytest.raises(KilledError):
        container_replace.replace(engine, item, 20)
    # The next run removes what is left under the name of the next one, and makes it again.
    if engine.find("s-redis-next"):
        engine.containers.pop("new")
    engine.containers["newer"] = {"Id": "newer", "Name": "s-redis-next", "State": {"Status": "created"}, "Config": {}}
    container_replace.replace(engine, item, 20)
    assert engine.running() == {"s-redis": "newer"}
    assert list(engine.containers) == ["newer"]


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Options that try a Redis; nothing of it must be left."""
    name = f"trial{uuid.uuid4().hex[:8]}"
    declared = {
        "name": "redis",
        "image": "redis:7-alpine",
        "user": "redis",
        "memory_mb": 64,
        "cpus": 0.5,
        "healthcheck": {"test": ["NONE"]},
        "volumes": [{"name": "no_such_volume", "path": "/data"}],
    }
    script = "redis-server $0 --dir /data --port 0 --unixsocket /tmp/s & until redis-cli -s /tmp/s ping; do kill -0 $!; sleep 0.1; done"
    options = {
        "container": f"{name}-redis",
        "folder": str(tmp_path / "redis"),
        "image": "redis:7-alpine",
        "user": "redis",
        "non_root": True,
        "revision": "abc",
        "config": {"redis.conf": "aclfile /run/secrets/users.acl\n"},
        "volumes": [],
        "timeout": 30,
        "log_lines": 20,
        "secrets": {"users.acl": "user default on nopass ~* +@all\n"},
        "options": container_options(normalize(declared), name, str(tmp_path), "redis", "1.45"),
        "command": ["sh", "-ec", script, "/etc/slipway/current/redis.conf"],
    }
    yield options
    left = subprocess.run(["docker", "ps", "-aq", "--filter", f"name={name}"], capture_output=True, text=True, check=True).stdout
    assert left == ""
    assert not list(tmp_path.iterdir())


@needs_engine
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        ({"secrets": {"users.acl": "user x +@nosuch\n"}}, r"(?s)ended with status 1:.*users\.acl:1.*Nothing was changed"),
        ({"config": {"redis.conf": "nonsense\n"}}, "Bad directive"),
        ({"command": ["nosuchprogram"]}, "cannot be started: image redis:7-alpine has no program 'nosuchprogram' that its user may run"),
        ({"user": "nobody_knows"}, "has no user 'nobody_knows'"),
        ({"user": "root"}, "would run as root"),
        ({"command": ["sleep", "60"], "timeout": 0.5}, "has not ended within"),
    ],
)
def test_a_trial_finds_what_a_start_would_meet(trial: dict[str, Any], change: dict[str, Any], message: str):
    if not message:
        assert container_trial.attempt({**trial, **change}, Engine()) == (999, 1000)
        return
    with pytest.raises((RefusedError, EngineError), match=message):
        container_trial.attempt({**trial, **change}, Engine())


@needs_engine
@pytest.mark.parametrize("option", [{"tmpfs": ["/tmp:size=-5m"]}, {"capabilities": ["NO_SUCH"]}, {"security_opts": ["nonsense"]}])
def test_a_trial_finds_options_that_the_engine_refuses(trial: dict[str, Any], option: dict[str, Any]):
    with pytest.raises(RefusedError, match=r"(?s)cannot be (made|started): .*Nothing was changed"):
        container_trial.attempt({**trial, "options": {**trial["options"], **option}}, Engine())


@needs_engine
@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({}, ""),
        ({"entrypoint": ["sleep"], "command": ["60"]}, ""),
        # Without the image's command, which its entrypoint would start.
        ({"wrapper": ["/bin/sh"], "command": ["redis-server"]}, ""),
        ({"entrypoint": ["../x"]}, r"no program '\.\./x' that its user may run \(.*no such file"),
        ({"entrypoint": ["nosuch"]}, r"no program 'nosuch' that its user may run \(executable file not found"),
        ({"entrypoint": ["/etc/passwd"]}, r"no program '/etc/passwd' that its user may run \(.*permission denied"),
        ({"wrapper": ["/bin/nosuch"]}, "no program '/bin/nosuch'"),
        ({"wrapper": ["/bin/sh"], "entrypoint": ["nosuch"]}, "no program 'nosuch'"),
        ({"ulimits": ["nofile:9999999999:9999999999"]}, "rlimit"),
        ({"volumes": ["v:/proc:rw"]}, "/proc"),
        ({"memory": "1M", "memory_swap": "1M"}, "Minimum memory limit"),
    ],
)
def test_a_trial_without_a_command_starts_the_services_own_program(trial: dict[str, Any], own: dict[str, Any], message: str):
    given = {**trial, "command": [], "options": {**trial["options"], **own}}
    if not message:
        assert container_trial.attempt(given, Engine()) == (999, 1000)
        return
    with pytest.raises(container_trial.EngineRefusedError, match=message):
        container_trial.attempt(given, Engine())


@pytest.mark.parametrize(
    ("message", "ends"),
    [
        ("cannot be started: image x has no program 'y' that its user may run (no such file): name another", {"entrypoint", "command"}),
        ("image x has no user 'y' in its /etc/passwd", {"user"}),
        ("Minimum memory limit allowed is 6MB", {"memory_mb"}),
        ("range of CPUs is from 0.01 to 2.00", {"cpus"}),
        ("error mounting tmpfs to rootfs", {"tmpfs", "volumes"}),
        ("something new", {"entrypoint", "command", "user", "volumes", "tmpfs", "memory_mb", "cpus"}),
    ],
)
def test_a_refusal_names_the_inputs_that_it_is_about(message: str, ends: set[str]):
    fields = ("entrypoint", "command", "user", "volumes", "tmpfs", "memory_mb", "cpus")
    for written in ("app_x_{}", "app_services.x.{}"):
        named = container_trial.inputs_about(message, [written.format(field) for field in fields])
        assert set(named) == {written.format(end) for end in ends}


@needs_engine
def test_a_trial_that_was_killed_does_not_block_the_next(trial: dict[str, Any]):
    Path(trial["folder"], "trial/secrets").mkdir(parents=True)
    Path(trial["folder"], "trial/secrets/old").write_text("left")
    Engine().request("POST", "/containers/create", {"name": f"{trial['container']}-trial"}, {"Image": "redis:7-alpine"})
    container_trial.attempt(trial, Engine())


def test_what_is_tried_has_no_data_and_no_network():
    declared = {"name": "redis", "image": "redis", "memory_mb": 64, "cpus": 0.5, "healthcheck": {"test": ["NONE"]}}
    declared |= {"volumes": [{"name": "redis_data", "path": "/data"}], "ports": [{"address": "10.0.0.1", "port": 1, "container_port": 1}]}
    options = container_options(normalize(declared), "s", "/etc/slipway", "redis", "1.45")
    body = container_trial.request_body(options, ["true"], [], [], 999, 1000)
    assert "redis_data" not in json.dumps(body)
    assert body["HostConfig"]["NetworkMode"] == "none"
    assert "PortBindings" not in body["HostConfig"]
    assert "uid=999" in body["HostConfig"]["Tmpfs"]["/data"]
    assert body["Labels"] == {"slipway.stack": "s", "slipway.owner": "redis"}
