# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows for a host from the services that belong to no version of the product."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.plugin_utils import app_services, extra_services
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import RoleFiles, shared_forms
from ansible_collections.slipway.stack.plugins.plugin_utils.plan import normalize
from ansible_collections.slipway.stack.plugins.plugin_utils.topology import services
from conftest import ROOT, role_variable

DESCRIBED: dict[str, Any] = {
    "search": {
        "image": "search:1",
        "port": 7700,
        "secrets": {"MASTER_KEY": "t7Hq2Lw9Zx4Nv6Bk8Mr3"},
        "volumes": [{"name": "search_data", "path": "/data"}, {"name": "search_tmp", "path": "/scratch", "backup": False}],
        "networks": ["database"],
    },
    "mails": {"image": "mails:1", "hosts": "extra"},
}
PORT = {"service": "search", "address": "10.0.0.1", "port": 17700, "container_port": 7700, "variable": "x", "peers": ["10.0.0.2"]}
SETTINGS: dict[str, Any] = {"host": {"memory_mb": 8000, "cores": 4}, "start_script": "start", "backup_script": "back up"}


def test_a_host_runs_the_services_of_its_groups_under_their_names():
    (search,) = extra_services.declarations(DESCRIBED, ["app"], [], SETTINGS)
    assert search["name"] == "search"
    assert search["volumes"][0] == {
        "name": "search_data",
        "path": "/data",
        "kept": True,
        "variable": "slipway_extra_services.search.volumes",
    }
    assert "slipway_extra_services.search.image" not in search["judged_inputs"]
    assert "slipway_extra_services.search.command" in search["judged_inputs"]
    assert search["labels"] == {}
    names = [item["name"] for item in extra_services.declarations(DESCRIBED, ["app", "extra"], [], SETTINGS)]
    assert names == ["search", "mails"]
    for declared in extra_services.declarations(DESCRIBED, ["app", "extra"], [PORT], SETTINGS):
        normalize(declared)


def test_a_port_is_published_from_a_network_that_is_not_internal():
    (alone,) = extra_services.declarations(DESCRIBED, ["app"], [], SETTINGS)
    assert (alone["ports"], alone["networks"]) == ([], ["database"])
    (published,) = extra_services.declarations(DESCRIBED, ["app"], [PORT], SETTINGS)
    assert published["ports"] == [{"address": "10.0.0.1", "port": 17700, "container_port": 7700, "variable": "x"}]
    assert published["networks"] == ["database", "peers"]


def test_a_service_that_names_no_health_check_need_not_speak_http():
    def test_of(**keys: Any) -> list[str]:
        (declared,) = extra_services.declarations({"search": {**DESCRIBED["search"], **keys}}, ["app"], [], SETTINGS)
        found: list[str] = declared["healthcheck"]["test"]
        return found

    assert test_of() == ["NONE"]
    assert test_of(healthcheck=["CMD", "true"]) == ["CMD", "true"]
    assert "/health" in test_of(health_path="/health")[1]


def test_recovery_points_hold_the_volumes_that_are_written_to_or_those_that_are_listed():
    def kept(**keys: Any) -> list[dict[str, Any]]:
        return extra_services.kept_volumes(extra_services.services({"search": {**DESCRIBED["search"], **keys}})["search"])

    assert kept() == [{"name": "search_data"}]
    assert kept(backup={"paths": ["/scratch"]}) == [{"name": "search_tmp"}]
    assert kept(backup={"paths": []}) == []
    assert kept(volumes=[{"name": "search_data", "path": "/data", "mode": "ro"}]) == []
    assert kept(backup={"command": ["dump"]}) == [{"name": "search_dump", "seconds": 600}]
    named = {"command": ["dump"], "paths": ["/data"], "volume": "dumps", "seconds": 5}
    assert kept(backup=named) == [{"name": "dumps", "seconds": 5}, {"name": "search_data"}]


@pytest.mark.parametrize(("keys", "wrong"), [({"mode": "ro"}, "mode: ro"), ({"backup": False}, "backup: false"), ({}, "")])
def test_a_path_that_no_recovery_point_would_hold_is_refused(keys: dict[str, Any], wrong: str):
    search = {**DESCRIBED["search"], "volumes": [{"name": "search_data", "path": "/data", **keys}], "backup": {"paths": ["/data"]}}
    found = extra_services.mistakes({"search": search}, [], [])
    assert [text for _path, text in found] == [f"has the path /data in backup, whose volume has {wrong}: remove one of them"] * bool(wrong)


def test_a_service_with_a_backup_command_runs_next_to_it():
    described = {"search": {**DESCRIBED["search"], "backup": {"command": ["dump", "--key", "a b"]}, "secrets_in_environment": True}}
    (declared,) = extra_services.declarations(described, ["app"], [], SETTINGS)
    # The command has the secrets too.
    start = ["/bin/sh", "/etc/slipway/current/.entrypoint.sh"]
    assert declared["wrapper"] == [*start, "/bin/sh", "/etc/slipway/current/.backup.sh", "dump --key 'a b'"]
    assert declared["config"][".backup.sh"]["content"] == "back up"
    assert [volume["name"] for volume in declared["volumes"]] == ["search_data", "search_tmp", "search_dump"]


@pytest.fixture
def dumps(tmp_path: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Return what asks a service with this backup command for a dump, as the server of volumes does, and returns code and output."""
    started: list[subprocess.Popen[bytes]] = []
    volume = tmp_path / "volumes/search_dump"
    volume.mkdir(parents=True)

    def ask(command: str, seconds: int = 30) -> tuple[int, str]:
        if command:
            script = (ROOT / "roles/extra_services/files/backup.sh").read_text().replace("/slipway/backup", str(volume))
            started.append(subprocess.Popen(["/bin/sh", "-c", script, "backup.sh", command, "sleep", "60"], start_new_session=True))
            while not (volume / "asked").is_dir():
                time.sleep(0.05)
        asked = role_variable("volume_server", "__volume_server_service", {"volume_server_dumps": {"search_dump": seconds}})
        script = asked["config"]["before_copy.sh"]["content"].replace('"/${RSYNC', f'"{tmp_path}/${{RSYNC')
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            env={**os.environ, "RSYNC_REQUEST": "volumes/search_dump/"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    yield ask
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_dump_is_what_the_backup_command_prints(tmp_path: Path, dumps: Callable[..., tuple[int, str]]):
    assert dumps("echo one; echo two >&2") == (0, "")
    assert (tmp_path / "volumes/search_dump/dump").read_text() == "one\n"
    assert not list((tmp_path / "volumes/search_dump/asked").iterdir())


def test_a_backup_command_that_fails_leaves_the_dump_before_and_says_why(tmp_path: Path, dumps: Callable[..., tuple[int, str]]):
    dump = tmp_path / "volumes/search_dump/dump"
    dump.write_text("before")
    assert dumps("echo half; echo no space >&2; exit 3") == (3, "its backup command ended with exit code 3: no space\n")
    assert dump.read_text() == "before"


def test_a_service_that_does_not_answer_has_no_dump(dumps: Callable[..., tuple[int, str]]):
    assert dumps("") == (1, "the service of the dump has never run\n")
    assert dumps("sleep 60", seconds=2) == (1, "its backup command did not end in time, or the service does not run\n")


def test_the_keys_are_those_of_the_products_services():
    form = shared_forms()[extra_services.VARIABLE]
    assert form == RoleFiles().forms("app")["app_services"]
    assert set(extra_services.NOT_OF_EXTRA_SERVICES) < set(app_services.known_keys())
    (description,) = RoleFiles().read("extra_services", "meta/argument_specs.yml")["argument_specs"]["main"]["description"][2:]
    told = description.partition("but for ")[2].partition(". ")[0]
    assert {word.strip("C(),.") for word in told.split()} - {"and"} == set(extra_services.NOT_OF_EXTRA_SERVICES)


def test_the_stack_keeps_the_names_of_its_services():
    names = [service.role.replace("_", "-") for service in services()] + ["api-blue-1", "migrate-green", "api-next"]
    found = extra_services.mistakes({name: {"image": "a:1"} for name in names}, [], [service.role for service in services()])
    assert [path for path, _text in found] == [f"slipway_extra_services.{name}" for name in names]


def test_what_was_written_for_a_service_that_never_came_is_left_over():
    paths = ["former/secrets/key", "renamed/trial/secrets/key", "search/config/current", "mails/secrets/key", "postgres/secrets/key"]
    paths += ["volume-server/config/loaded", "restore/redis.json", "api-blue-3/secrets/key", "kept-next/config/x"]
    paths += ["firewall.rules", "own/file"]
    files = {f"/etc/slipway/s/{path}": {} for path in paths} | {"/etc/slipway/s-2/other/secrets/key": {}, "/etc/docker/daemon.json": {}}
    # It may be about to be removed with its container.
    state = {"files": files, "containers": {"s-mails": {}}}
    roles = [service.role for service in services()]
    assert extra_services.leftovers(state, "s", ["search"], roles) == ["former", "renamed"]
    assert extra_services.leftovers(state, "s", ["search", "former", "renamed"], roles) == []
