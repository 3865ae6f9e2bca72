# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service writes is whole while its volume is copied: its commands before and after, as the server of volumes asks for them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.plugin_utils import app_services, extra_services
from ansible_collections.slipway.stack.plugins.plugin_utils.forms import KINDS
from conftest import ROOT, role_variable

SCRIPT = (ROOT / "roles/app/files/quiesce.sh").read_text()
VOLUMES = [{"name": "uploads", "path": "/u"}]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Stage:
    """A volume by which services learn of a copy, containers of a service, and a server of volumes that copies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asking = self.quiesced_by("api")
        self.started: list[subprocess.Popen[Any]] = []

    def start(self, *command: str) -> subprocess.Popen[Any]:
        self.started.append(subprocess.Popen(command, start_new_session=True))
        return self.started[-1]

    def quiesced_by(self, service: str) -> Path:
        """Return the volume by which a service learns of a copy."""
        volume = self.folder / f"quiesced/{service}"
        volume.mkdir(parents=True, exist_ok=True)
        return volume

    def container(self, name: str, before: str, after: str, service: str = "api") -> None:
        """Start a container, and wait until it says that it runs."""
        asking = self.quiesced_by(service)
        (self.folder / name).write_text(name)
        script = SCRIPT.replace("/slipway/backup", str(asking)).replace("/etc/hostname", str(self.folder / name))
        self.start("/bin/sh", "-c", script, "quiesce.sh", before, after, "sleep", "600")
        wait_until((asking / "here" / name).exists)

    def ask(self, copier: int, seconds: int = 30, services: tuple[str, ...] = ("api",)) -> tuple[int, str]:
        """Ask for a copy as rsync does, as the process of this number; return code and output."""
        quiesced = {"uploads": {"services": {name: f"{name}_quiesce" for name in services}, "seconds": seconds}}
        asked = role_variable("volume_server", "__volume_server_service", {"volume_server_quiesced": quiesced})
        script = asked["config"]["before_copy.sh"]["content"].replace('"/quiesced/', f'"{self.folder}/quiesced/')
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            env={**os.environ, "RSYNC_REQUEST": "volumes/uploads/", "RSYNC_PID": str(copier)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def stop(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.stop()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_all_containers_are_quiesced_for_the_time_of_the_copy_however_it_ends(stage: Stage, tmp_path: Path, how: int):
    for name in ("one", "two"):
        stage.container(name, f"touch {tmp_path}/{name}.quiet", f"rm {tmp_path}/{name}.quiet")
    copier = stage.start("sleep", "600")
    assert stage.ask(copier.pid) == (0, "")
    quiet = [tmp_path / "one.quiet", tmp_path / "two.quiet"]
    assert all(path.exists() for path in quiet)
    os.kill(copier.pid, how)
    copier.wait()
    wait_until(lambda: not any(path.exists() for path in quiet))
    # Nothing is left of it, and the next copy is another one.
    wait_until(lambda: not list((stage.asking / "asked").iterdir()) and not list((stage.asking / "answers").iterdir()))
    second = stage.start("sleep", "600")
    assert stage.ask(second.pid) == (0, "")
    assert all(path.exists() for path in quiet)


def test_a_command_that_fails_refuses_the_copy_and_the_service_goes_on(stage: Stage, tmp_path: Path):
    stage.container("one", f"touch {tmp_path}/quiet; echo no lock >&2; exit 3", f"rm {tmp_path}/quiet")
    copier = stage.start("sleep", "600")
    assert stage.ask(copier.pid) == (1, "the command of api before a backup ended with exit code 3: no lock\n")
    wait_until(lambda: not (tmp_path / "quiet").exists())


def test_a_command_that_takes_too_long_refuses_the_copy(stage: Stage):
    stage.container("one", "sleep 600", "true")
    assert stage.ask(stage.start("sleep", "600").pid, seconds=2) == (1, "the command of api before a backup did not end in time\n")


SHARED = ("api", "worker")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_services_that_share_a_volume_are_quiesced_together(stage: Stage, tmp_path: Path, how: int):
    for name in SHARED:
        stage.container(name, f"touch {tmp_path}/{name}.quiet", f"rm {tmp_path}/{name}.quiet", service=name)
    copier = stage.start("sleep", "600")
    assert stage.ask(copier.pid, services=SHARED) == (0, "")
    quiet = [tmp_path / f"{name}.quiet" for name in SHARED]
    assert all(path.exists() for path in quiet)
    os.kill(copier.pid, how)
    copier.wait()
    wait_until(lambda: not any(path.exists() for path in quiet))
    # A volume that only one of them writes to leaves the other alone.
    assert stage.ask(stage.start("sleep", "600").pid) == (0, "")
    assert [path.exists() for path in quiet] == [True, False]


def test_one_of_the_services_of_a_volume_that_fails_refuses_the_copy_by_its_name(stage: Stage, tmp_path: Path):
    stage.container("one", f"touch {tmp_path}/quiet", f"rm {tmp_path}/quiet")
    stage.container("two", "echo busy >&2; exit 4", "true", service="worker")
    copier = stage.start("sleep", "600")
    assert stage.ask(copier.pid, services=SHARED) == (1, "the command of worker before a backup ended with exit code 4: busy\n")
    wait_until(lambda: not (tmp_path / "quiet").exists())


def test_of_services_that_share_a_volume_those_that_run_are_quiesced(stage: Stage, tmp_path: Path):
    stage.container("one", f"touch {tmp_path}/quiet", "true")
    assert stage.ask(stage.start("sleep", "600").pid, services=("worker", "api")) == (0, "")
    assert (tmp_path / "quiet").exists()


def test_a_service_that_does_not_run_needs_not_be_quiesced(stage: Stage):
    assert stage.ask(stage.start("sleep", "600").pid) == (0, "")


def declared(**keys: Any) -> dict[str, Any]:
    settings = {"slot": "blue", "version": "1", "publish_address": "", "slot_port_offset": 100, "host_header": "", "migrate": False}
    settings |= {"host": {"memory_mb": 8000, "cores": 4}, "start_script": "start", "quiesce_script": "quiesce"}
    product = {"app_services": {"api": {"image": "api:1", "port": 80, "volumes": VOLUMES, **keys}}}
    (found,) = app_services.declarations(product, settings)
    return found


def test_a_service_becomes_its_command_by_the_script():
    commands = {"before": ["manage", "freeze it"], "after": ["manage", "thaw"]}
    api = declared(backup=commands, secrets_in_environment=True)
    assert api["wrapper"][2:] == ["/bin/sh", "/etc/slipway/current/.quiesce.sh", "manage 'freeze it'", "manage thaw"]
    assert {".entrypoint.sh", ".quiesce.sh"} == set(api["config"])
    assert [volume["name"] for volume in api["volumes"]] == ["uploads", "api_quiesce"]
    # A command of run.yml does without it.
    assert api["wrapper"][: -api["not_copied"]["wrapper_words"]] == declared(secrets_in_environment=True)["wrapper"]
    assert api["not_copied"]["volumes"] == ["api_quiesce"]
    assert declared()["wrapper"] == []


def test_no_script_of_slipway_has_the_name_that_a_file_of_the_service_may_have():
    """`[sh, /etc/slipway/current/quiesce.sh]` as a command of the service would run that of Slipway, which never ends."""
    own = dict.fromkeys(("entrypoint.sh", "quiesce.sh", "backup.sh"), "mine")
    described: dict[str, Any] = {"files": own, "secrets_in_environment": True}
    commands = {"before": ["sh", "/etc/slipway/current/quiesce.sh"], "after": ["true"]}
    api = declared(**described, backup=commands)
    extra = {"api": {"image": "api:1", "hosts": "app", **described, "backup": {"command": ["sh", "/etc/slipway/current/backup.sh"]}}}
    settings = {"start_script": "start", "backup_script": "back up", "host": {"memory_mb": 8000, "cores": 4}}
    (search,) = extra_services.declarations(extra, ["app"], [], settings)
    is_file_name = KINDS["file_name"].test
    assert is_file_name
    for declaration in (api, search):
        contents = {name: item["content"] for name, item in declaration["config"].items()}
        assert {name: contents.pop(name) for name in own} == own
        assert len(contents) == 2
        assert not any(map(is_file_name, contents))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"backup": {"before": ["a"], "after": ["b"], "seconds": 5}}, ""),
        ({"backup": {"before": ["a"], "after": ["b"], "volume": "shop2_api"}}, ""),
        ({"backup": {"before": ["a"], "after": ["b"], "volume": "uploads"}}, "has the volume uploads in backup, which the product has for"),
        ({"backup": {"seconds": 5, "volume": "x1"}}, "has seconds and volume in backup and no command"),
        ({"backup": {"command": ["a"]}}, "has command in backup, which only a service in slipway_extra_services has"),
        ({"backup": {"after": ["b"]}}, "has before or after in backup without the other one"),
        ({"backup": {"before": ["a"], "after": ["b"]}, "volumes": []}, "has backup and no volume that recovery points hold"),
        (
            {"backup": {"before": ["a"], "after": ["b"]}, "port": 0, "schedule": "daily"},
            "has a schedule and backup, which a job cannot have",
        ),
    ],
)
def test_commands_that_nothing_would_run_are_refused(keys: dict[str, Any], said: str):
    problems = app_services.mistakes({"app_services": {"api": {"image": "api:1", "port": 80, "volumes": VOLUMES, **keys}}})
    assert any(text.startswith(said) for _where, text in problems) if said else not problems
