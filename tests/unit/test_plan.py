# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What service_plan finds when declared and actual differ, and that it finds nothing when they agree."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.filter.fleet import left_behind
from ansible_collections.slipway.stack.plugins.module_utils.engine import normal_reference
from ansible_collections.slipway.stack.plugins.plugin_utils import plan as plan_module
from ansible_collections.slipway.stack.plugins.plugin_utils.digest import keyed_digest
from ansible_collections.slipway.stack.plugins.plugin_utils.plan import DeclarationError, container_options, plan_services
from conftest import ROOT

KEY = "key-of-this-run"
NETWORKS: dict[str, Any] = {"database": {"internal": True}, "backend": {}}
DECLARED: dict[str, Any] = {
    "name": "redis",
    "image": "redis:7-alpine",
    "user": "redis",
    "command": ["redis-server", "/etc/slipway/current/redis.conf"],
    "config": {
        "redis.conf": {"content": "port 6379\n", "on_change": "restart"},
        "runtime.conf": {"content": "maxmemory 1mb\n", "on_change": "reload"},
    },
    "secrets": {"users.acl": {"content": "user default off", "on_change": "reload"}},
    "volumes": [{"name": "redis_data", "path": "/data"}],
    "networks": ["database"],
    "healthcheck": {"test": ["CMD", "true"]},
    "memory_mb": 128,
    "cpus": 1,
    "reload": ["redis-reload"],
}


def agreeing_state(declared: dict[str, Any], api_version: str = "1.45") -> dict[str, Any]:
    """Return what a host reports that has exactly what is declared, with an engine of that version."""
    service = plan_module.normalize(declared)
    options = container_options(service, "slipway", "/etc/slipway", "redis", api_version)
    folder = f"/etc/slipway/slipway/{service['name']}"
    revision = plan_module.revision_of(service)
    files: dict[str, Any] = {
        f"{folder}/config/current": {"mode": "0777", "uid": 0, "gid": 0, "link": revision},
        f"{folder}/config/loaded": {"mode": "0644", "uid": 0, "gid": 0, "digest": "", "content": revision + "\n"},
        f"{folder}/secrets": {"mode": "0500", "uid": 999, "gid": 999, "folder": True},
    }
    for name, item in service["config"].items():
        files[f"{folder}/config/{revision}/{name}"] = {
            "mode": "0644",
            "uid": 0,
            "gid": 0,
            "digest": keyed_digest(KEY, item["content"]),
            "content": item["content"],
        }
    for name, item in service["secrets"].items():
        files[f"{folder}/secrets/{name}"] = {"mode": "0400", "uid": 999, "gid": 999, "digest": keyed_digest(KEY, item["content"])}
    return {
        "engine": {"available": True, "version": "26.1", "api_version": api_version, "error": ""},
        "containers": {
            options["name"]: {
                "image": "redis:7-alpine",
                "image_id": "sha256:1",
                "status": "running",
                "running": True,
                "health": "healthy",
                "labels": {**options["labels"], "slipway.uid": "999"},
                "networks": {network["name"]: network["aliases"] for network in options["networks"]},
                "memory": 128 * 2**20,
                "nano_cpus": 10**9,
                "cpu_shares": 0,
                "restart_policy": "unless-stopped",
            }
        },
        "foreign_containers": {},
        "networks": {"slipway-database": {"internal": True, "labels": {}}},
        "volumes": {"redis_data": {"labels": {"slipway.stack": "slipway"}, "mountpoint": "/v", "driver": "local"}},
        "images": {"redis:7-alpine": {"id": "sha256:1"}},
        "files": files,
        "queries": {},
    }


def plan(state: dict[str, Any], declared: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return the plan of one declared service."""
    return plan_services(
        [declared or DECLARED],
        state,
        **{"stack": "slipway", "root": "/etc/slipway", "owner": "redis", "key": KEY, "networks": NETWORKS, "adopt": False, **more},
    )


@pytest.fixture
def state() -> dict[str, Any]:
    """What a host reports when all is as declared."""
    return copy.deepcopy(agreeing_state(DECLARED))


def test_a_change_of_files_that_was_interrupted_is_finished(state: dict[str, Any]) -> None:
    # Nothing else shows it of secrets: their files may be the new ones, and what the process has read the old ones.
    state["files"]["/etc/slipway/slipway/redis/undo/journal.json"] = {"mode": "0600", "uid": 0, "gid": 0, "digest": ""}
    (needed,) = plan(state)["needed"]
    assert needed["reasons"] == ["a change of its files was interrupted"]
    assert (needed["files"], needed["reload"]) == (True, True)


def test_nothing_is_needed_where_all_agrees(state: dict[str, Any]) -> None:
    assert plan(state)["needed"] == []
    assert plan(state)["stale"] == []


def test_an_empty_host_gets_everything(state: dict[str, Any]) -> None:
    for part in ("containers", "networks", "volumes", "images", "files"):
        state[part] = {}
    state["engine"] = {"available": False, "version": "", "api_version": "", "error": "no socket"}
    (needed,) = plan(state)["needed"]
    assert needed["pull"]
    assert needed["make"]
    assert needed["files"]
    assert not needed["recreate"]
    assert [network["name"] for network in needed["networks"]] == ["slipway-database"]
    assert needed["volumes"] == ["redis_data"]


CONTAINER_CHANGES = [
    ({"running": False, "status": "exited"}, "the container is exited", {"resume": True, "make": False, "wait": True}),
    ({"health": "unhealthy"}, "the container is unhealthy", {"restart": True, "recreate": False}),
    # Caught alive between two ends.
    ({"health": "starting", "restarts": 3}, "the container is restarting", {"restart": True, "reload": False, "wait": True}),
    ({"memory": 2**20}, "memory limit 1 MiB becomes 128 MiB", {"make": True, "recreate": False}),
    ({"nano_cpus": 2 * 10**9}, "CPU limit 2 becomes 1", {"make": True, "recreate": True}),
    ({"cpu_shares": 512}, "CPU shares 512 become 1024", {"make": True, "recreate": False}),
    ({"restart_policy": "no"}, "restart policy no becomes unless-stopped", {"make": True, "recreate": False}),
    ({"networks": {}}, "joins network slipway-database", {"make": True, "recreate": False}),
    ({"networks": {"slipway-database": ["redis"], "bridge": []}}, "leaves network bridge", {"make": True, "recreate": False}),
    ({"networks": {"slipway-database": []}}, "gets its names on network slipway-database again", {"make": True}),
    ({"image_id": "sha256:0"}, "image redis:7-alpine was updated", {"recreate": True}),
    ({"image": "redis:6"}, "image redis:6 becomes redis:7-alpine", {"recreate": True}),
    (
        {"labels": {"slipway.stack": "slipway", "slipway.owner": "redis", "slipway.uid": "999"}},
        "its declaration changed",
        {"recreate": True},
    ),
]


@pytest.mark.parametrize(("change", "reason", "expected"), CONTAINER_CHANGES, ids=[item[1] for item in CONTAINER_CHANGES])
def test_a_hand_on_the_container_is_found(state: dict[str, Any], change: dict[str, Any], reason: str, expected: dict[str, bool]) -> None:
    state["containers"]["slipway-redis"].update(change)
    (needed,) = plan(state)["needed"]
    assert reason in needed["reasons"]
    assert {key: needed[key] for key in expected} == expected


def test_who_waits_for_a_container_that_starts_sets_its_weight(state: dict[str, Any]) -> None:
    state["containers"]["slipway-redis"]["cpu_shares"] = 128
    assert plan(state, {**DECLARED, "starting_cpu_shares": 128})["needed"] == []


@pytest.mark.parametrize(
    ("path", "change", "reason"),
    [
        ("config/{revision}/redis.conf", {"digest": "x"}, "config/current/redis.conf differs"),
        ("config/{revision}/redis.conf", {"mode": "0666"}, "config/current/redis.conf has another mode"),
        ("secrets/users.acl", {"digest": "x"}, "secrets/users.acl differs"),
        ("secrets/users.acl", {"mode": "0444"}, "secrets/users.acl has another owner or mode"),
        ("secrets/users.acl", {"uid": 0}, "secrets/users.acl has another owner or mode"),
        ("secrets", {"mode": "0755"}, "secrets has another owner or mode"),
    ],
)
def test_a_hand_on_a_file_is_found_and_reloaded(state: dict[str, Any], path: str, change: dict[str, Any], reason: str) -> None:
    folder = "/etc/slipway/slipway/redis"
    revision = state["files"][f"{folder}/config/current"]["link"]
    state["files"][f"{folder}/{path.format(revision=revision)}"].update(change)
    (needed,) = plan(state)["needed"]
    assert needed["reasons"] == [f"{folder}/{reason}"]
    assert not needed["recreate"]
    assert needed["files"]


def test_a_file_put_there_by_hand_is_found(state: dict[str, Any]) -> None:
    state["files"]["/etc/slipway/slipway/redis/secrets/stray"] = {"mode": "0400", "uid": 999, "gid": 999, "digest": ""}
    (needed,) = plan(state)["needed"]
    assert needed["reasons"] == ["/etc/slipway/slipway/redis/secrets/stray is not declared"]


@pytest.mark.parametrize("check", [{}, {"interval": 5, "start_period": 300}], ids=["defaults", "own timing"])
@pytest.mark.parametrize("after", ["1.41", "1.43", "1.44", "1.52"])
@pytest.mark.parametrize("before", ["1.41", "1.43", "1.44", "1.52"])
def test_another_version_of_the_engine_replaces_no_container(before: str, after: str, check: dict[str, Any]) -> None:
    """A distribution's security update would make every store wait for a restart, and the whole product for a release."""
    declared = {**DECLARED, "healthcheck": {**DECLARED["healthcheck"], **check}}
    state = agreeing_state(declared, before)
    state["engine"]["api_version"] = after
    assert plan(state, declared)["needed"] == []
    # A change of the declaration is seen all the same.
    for field, value in (("pids", 99), ("healthcheck", {**declared["healthcheck"], "timeout": 9}), ("labels", {"by": "someone"})):
        (needed,) = plan(state, {**declared, field: value})["needed"]
        assert needed["recreate"], field


def test_a_container_that_is_replaced_gets_the_health_checks_that_the_engine_can_have() -> None:
    state = agreeing_state(DECLARED, "1.43")
    state["engine"]["api_version"] = "1.44"
    (needed,) = plan(state, {**DECLARED, "pids": 99})["needed"]
    assert needed["options"]["healthcheck"]["start_interval"] == "1s"
    assert any("healthcheck changes" in reason for reason in needed["reasons"])


def test_a_changed_restart_file_recreates_and_a_reload_file_reloads(state: dict[str, Any]) -> None:
    declared = copy.deepcopy(DECLARED)
    declared["config"]["redis.conf"]["content"] = "port 6380\n"
    (needed,) = plan(state, declared)["needed"]
    assert needed["recreate"]
    assert not needed["reload"]
    declared = copy.deepcopy(DECLARED)
    declared["config"]["runtime.conf"]["content"] = "maxmemory 2mb\n"
    (needed,) = plan(state, declared)["needed"]
    assert needed["reload"]
    assert not needed["recreate"]
    assert not needed["wait"]
    assert not needed["make"]
    assert not needed["resume"]
    assert needed["reasons"] == ["/etc/slipway/slipway/redis/config/current/runtime.conf differs"]
    assert "maxmemory 2mb" in needed["diff"][0]["prepared"]


def test_a_run_that_died_before_its_reload_is_finished(state: dict[str, Any]) -> None:
    state["files"]["/etc/slipway/slipway/redis/config/loaded"]["content"] = "another\n"
    (needed,) = plan(state)["needed"]
    assert needed["reload"]
    assert needed["reasons"] == ["its configuration was not loaded yet"]


def test_a_secret_is_in_no_plan() -> None:
    state = agreeing_state(DECLARED)
    declared = copy.deepcopy(DECLARED)
    declared["secrets"]["users.acl"] = {"content": "very-secret-value", "on_change": "restart"}
    result = plan(state, declared)
    assert "very-secret-value" not in str(result)


def test_inner_state_is_compared(state: dict[str, Any]) -> None:
    declared = {**DECLARED, "converge": {"query": ["state"], "desired": {"users": ["a"]}, "apply": ["mend"], "apply_input": "x"}}
    state = agreeing_state(declared)
    state["queries"]["slipway-redis"] = {"rc": 0, "answer": {"users": ["a"], "further": 1}, "error": ""}
    assert plan(state, declared)["needed"] == []
    state["queries"]["slipway-redis"]["answer"] = {"users": []}
    (needed,) = plan(state, declared)["needed"]
    assert needed["converge"]
    assert needed["reasons"] == ["its inner state differs in users"]
    assert not needed["make"]
    assert not needed["resume"]
    assert not needed["files"]


def test_a_container_that_is_starting_is_waited_for_and_counts_as_no_change(state: dict[str, Any]) -> None:
    state["containers"]["slipway-redis"]["health"] = "starting"
    (needed,) = plan(state)["needed"]
    assert needed["wait_only"]
    assert not needed["make"]
    assert not needed["resume"]
    assert not needed["files"]
    state["containers"]["slipway-redis"]["memory"] = 1
    assert not plan(state)["needed"][0]["wait_only"]


def test_stale_containers_of_the_owner_are_named(state: dict[str, Any]) -> None:
    state["containers"]["slipway-redis-2"] = {**state["containers"]["slipway-redis"]}
    state["containers"]["slipway-other"] = {**state["containers"]["slipway-redis"], "labels": {"slipway.owner": "other"}}
    assert plan(state)["stale"] == ["slipway-redis-2"]


def test_one_of_all_replicas_that_are_made_is_tried(state: dict[str, Any]) -> None:
    replica = {**DECLARED, "volumes": []}
    declared = [{**replica, "name": "web-1"}, {**replica, "name": "web-2"}, {**replica, "name": "api-1", "command": ["x"]}, DECLARED]
    arguments = {"stack": "slipway", "root": "/etc/slipway", "owner": "redis", "key": KEY, "networks": NETWORKS, "adopt": False}
    found = plan_services(declared, state, **arguments)["services"]
    assert {item["name"]: item["try"] for item in found} == {"web-1": True, "web-2": False, "api-1": True, "redis": False}


@pytest.mark.parametrize(
    ("folder", "owner", "goes"),
    [
        ("web-blue-2", "app-blue", True),
        ("migrate-blue", "app-blue", True),
        ("web-green-2", "app-blue", False),
        ("web-blue-2", "redis", False),
    ],
)
def test_folders_go_with_their_containers_and_of_a_slot_without_them(state: dict[str, Any], folder: str, owner: str, goes: bool) -> None:
    for name in (folder, "release"):
        state["files"][f"/etc/slipway/slipway/{name}/secrets/key"] = {"mode": "0400", "uid": 999}
    assert plan(state, owner=owner)["stale_folders"] == ([folder] if goes else [])
    state["containers"][f"slipway-{folder}"] = {**state["containers"]["slipway-redis"], "labels": {"slipway.owner": "app-green"}}
    assert plan(state, owner=owner)["stale_folders"] == []
    # In the same run as a container that is no longer declared.
    state["containers"][f"slipway-{folder}"]["labels"]["slipway.owner"] = owner
    assert plan(state, owner=owner)["stale_folders"] == [folder]


@pytest.mark.parametrize(("shared", "reasons"), [(False, ["volume redis_data belongs to another user"]), (True, [])])
def test_a_volume_of_another_user_is_given_to_the_container_unless_another_service_owns_it(
    state: dict[str, Any], shared: bool, reasons: list[str]
) -> None:
    state["volumes"]["redis_data"]["uid"] = 70
    (service,) = plan(state, {**DECLARED, "volumes": [{"name": "redis_data", "path": "/data", "shared": shared}]})["services"]
    assert service["reasons"] == reasons


def test_one_shot_runs_only_when_another_is_made(state: dict[str, Any]) -> None:
    migrate = {"name": "migrate", "image": "redis:7-alpine", "memory_mb": 64, "cpus": 1, "one_shot": True}
    arguments = {"stack": "slipway", "root": "/etc/slipway", "owner": "redis", "key": KEY, "networks": NETWORKS, "adopt": False}
    assert plan_services([migrate, DECLARED], state, **arguments)["needed"] == []
    del state["containers"]["slipway-redis"]
    needed = plan_services([migrate, DECLARED], state, **arguments)["needed"]
    assert [item["name"] for item in needed] == ["migrate", "redis"]


@pytest.mark.parametrize("another_is_made", [False, True])
def test_what_is_left_of_a_one_shot_goes_or_is_replaced(state: dict[str, Any], another_is_made: bool) -> None:
    left = {**state["containers"]["slipway-redis"], "running": False, "status": "exited"}
    state["containers"]["slipway-migrate"] = {**left, "labels": {**left["labels"], "slipway.owner": "redis"}}
    if another_is_made:
        del state["containers"]["slipway-redis"]
    migrate = {"name": "migrate", "image": "redis:7-alpine", "memory_mb": 64, "cpus": 1, "one_shot": True}
    found = plan_services(
        [migrate, DECLARED], state, stack="slipway", root="/etc/slipway", owner="redis", key=KEY, networks=NETWORKS, adopt=False
    )
    assert found["stale"] == ([] if another_is_made else ["slipway-migrate"])
    assert [item["name"] for item in found["needed"]] == (["migrate", "redis"] if another_is_made else [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imagee": "x"}, "unknown field imagee"),
        ({"image": ""}, "field image is missing"),
        ({"networks": ["lan"]}, "unknown network lan"),
        ({"networks": "database"}, "field networks must be a list"),
        ({"healthcheck": {}}, "healthcheck needs a test"),
        ({"hardening_exceptions": [{"what": "read_only"}]}, "hardening_exceptions needs what"),
        ({"reload": []}, "asks for a reload"),
    ],
)
def test_a_wrong_declaration_is_refused(state: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        plan(state, {**DECLARED, **change})


def test_a_container_made_by_hand_is_replaced_and_not_asked_anything(state: dict[str, Any]) -> None:
    state["containers"]["slipway-redis"]["labels"] = {}
    found = plan(state)["needed"][0]
    assert found["reasons"] == ["it was created by hand"]
    assert (found["recreate"], found["replaced"], found["by_hand"]) == (True, True, True)
    # Its files are written again, as it may have been made because they were lost; its image may be anything.
    assert found["files"]
    assert found["validate"] == []
    assert not found["reload"]


def test_what_is_not_the_stacks_is_not_touched(state: dict[str, Any]) -> None:
    state["foreign_containers"]["slipway-redis"] = {"ports": []}
    with pytest.raises(DeclarationError, match="not of the stack"):
        plan(state)
    del state["foreign_containers"]["slipway-redis"]
    state["volumes"]["redis_data"]["labels"] = {}
    with pytest.raises(DeclarationError, match="container_service_adopt_volumes"):
        plan(state)
    assert plan(state, adopt=True)["needed"] == []


def test_a_volume_that_was_taken_over_is_the_stacks(state: dict[str, Any]) -> None:
    """It cannot be given a label, and its server runs: only the container that was taken over with it shows whose it is."""
    state["volumes"]["redis_data"] |= {"labels": {}, "empty": False, "written_s": 0, "lock": "postmaster.pid"}
    state["containers"]["slipway-redis"]["volumes"] = {"redis_data": {"path": "/data", "mode": "rw"}}
    for adopt in (True, False):
        assert plan(state, STORE, adopt=adopt)["needed"] == []
    state["containers"]["slipway-redis"]["labels"] = {}
    with pytest.raises(DeclarationError, match="container_service_adopt_volumes"):
        plan(state, STORE)


def test_a_volume_of_another_stack_is_named_with_the_variable_to_change(state: dict[str, Any]) -> None:
    state["volumes"]["redis_data"]["labels"] = {"slipway.stack": "shop"}
    declared = {**DECLARED, "volumes": [{**DECLARED["volumes"][0], "variable": "redis_volume"}]}
    with pytest.raises(DeclarationError, match=r"redis_data exists and is that of the stack shop: name another in redis_volume$"):
        plan(state, declared)


def test_every_container_is_hardened() -> None:
    options = container_options(plan_module.normalize(DECLARED), "slipway", "/etc/slipway", "redis", "1.45")
    assert options["cap_drop"] == ["ALL"]
    assert options["capabilities"] == []
    assert options["security_opts"] == ["no-new-privileges:true"]
    assert options["read_only"]
    assert options["pids_limit"] == 256
    assert options["memory"] == options["memory_swap"] == "128M"
    assert options["log_options"]["max-size"] == "10m"
    exempt = {**DECLARED, "hardening_exceptions": [{"what": "read_only", "why": "writes next to its program"}]}
    assert not container_options(plan_module.normalize(exempt), "slipway", "/etc/slipway", "redis", "1.45")["read_only"]


@pytest.mark.parametrize(
    ("reference", "normal"),
    [
        ("redis", "redis:latest"),
        ("docker.io/library/redis:7", "redis:7"),
        ("docker.io/a/b:1", "a/b:1"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
        ("redis:7@sha256:ab", "redis@sha256:ab"),
    ],
)
def test_references_are_compared_as_the_engine_lists_them(reference: str, normal: str) -> None:
    assert normal_reference(reference) == normal


def test_a_container_that_runs_is_kept_until_its_successor_is_known_to_run(state: dict[str, Any]) -> None:
    (needed,) = plan(state, {**DECLARED, "pids": 300})["needed"]
    assert (needed["keep"], needed["replacement"]["returns"]) == (True, True)
    # There is nothing to go back to, or nothing that works.
    for change in ({"running": False, "status": "exited"}, {"health": "unhealthy"}):
        broken = copy.deepcopy(state)
        broken["containers"]["slipway-redis"] |= change
        assert not plan(broken, {**DECLARED, "pids": 300})["needed"][0]["keep"]
    assert not plan({**state, "containers": {}})["needed"][0]["keep"]


@pytest.mark.parametrize(
    ("change", "declared", "stop"),
    [
        ({"health": "unhealthy"}, {}, True),
        ({"health": "unhealthy"}, {"pids": 300}, True),
        ({"health": "unhealthy", "memory": 2**20}, {}, True),
        ({"status": "restarting"}, {"pids": 300}, True),
        # container_replace stops it.
        ({}, {"pids": 300}, False),
        ({"memory": 2**20}, {}, False),
        ({"running": False, "status": "exited"}, {"pids": 300}, False),
    ],
)
def test_a_container_that_fails_is_stopped_before_another_one_is_made(
    state: dict[str, Any], change: dict[str, Any], declared: dict[str, Any], stop: bool
) -> None:
    state["containers"]["slipway-redis"] |= change
    (needed,) = plan(state, {**DECLARED, **declared})["needed"]
    assert needed["stop"] is stop


def test_a_replacement_that_was_killed_between_its_renames_goes_on(state: dict[str, Any]) -> None:
    state["containers"]["slipway-redis-before"] = {**state["containers"].pop("slipway-redis"), "running": False, "status": "exited"}
    found = plan(state)
    assert found["needed"][0]["reasons"] == ["its replacement was interrupted"]
    assert (found["needed"][0]["keep"], found["needed"][0]["resume"], found["stale"]) == (True, False, [])


@pytest.mark.parametrize(
    "actual",
    [
        {"health": "unhealthy"},
        {"health": "starting"},
        {"health": "starting", "restarts": 9},
        {"running": False, "status": "exited"},
        {"running": False, "status": "created"},
    ],
)
def test_a_replacement_that_ended_before_its_successor_was_up_is_taken_up_again(state: dict[str, Any], actual: dict[str, Any]) -> None:
    """Nothing is made or written for it: what the former one needs to run again stays."""
    state["containers"]["slipway-redis-before"] = {**state["containers"]["slipway-redis"], "running": False, "status": "exited"}
    state["containers"]["slipway-redis"] |= actual
    state["files"]["/etc/slipway/slipway/redis/undo/journal.json"] = {}
    found = plan(state)
    (needed,) = found["needed"]
    assert (needed["taken_up"], needed["wait"], needed["replacement"]["returns"], found["stale"]) == (True, True, True, [])
    assert not any(needed[step] for step in ("keep", "make", "files", "resume", "stop", "reload", "restart", "wait_only"))
    assert "its replacement was interrupted" in needed["reasons"]
    # What is declared otherwise by now takes its place.
    (needed,) = plan(state, {**DECLARED, "command": ["redis-server", "--other"]})["needed"]
    assert (needed["taken_up"], needed["files"], needed["make"] or needed["keep"]) == (False, True, True)


def test_a_former_container_of_another_major_version_does_not_return(state: dict[str, Any]) -> None:
    state["containers"]["slipway-redis-before"] = {**state["containers"]["slipway-redis"], "image": "redis:6-alpine", "running": False}
    state["containers"]["slipway-redis"]["health"] = "unhealthy"
    (needed,) = plan(state, STORE)["needed"]
    assert (needed["taken_up"], needed["replacement"]["returns"]) == (True, False)


@pytest.mark.parametrize("suffix", ["-next", "-before", "-trial"])
def test_what_an_interrupted_replacement_has_left_goes(state: dict[str, Any], suffix: str) -> None:
    state["containers"][f"slipway-redis{suffix}"] = copy.deepcopy(state["containers"]["slipway-redis"])
    state["containers"][f"slipway-redis{suffix}"]["labels"]["slipway.owner"] = "redis"
    found = plan(state)
    assert (found["needed"], found["stale"]) == ([], [f"slipway-redis{suffix}"])
    assert plan_module.stale_reasons(found)[0].endswith("was left by an interrupted run")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("redis:7-alpine", "redis:7.4-alpine", True),
        ("postgres:17.2", "postgres:17.4", True),
        ("postgres:17-alpine", "postgres:18-alpine", False),
        ("chromadb/chroma:0.5.20", "chromadb/chroma:0.6.1", False),
        ("chromadb/chroma:1.0.0", "chromadb/chroma:1.5.9", True),
        ("redis:7-alpine", "valkey:7-alpine", False),
        ("registry:5000/redis:7", "registry:5000/redis:v7.1", True),
        ("redis@sha256:1", "redis@sha256:2", False),
        ("redis:latest", "redis:7", False),
    ],
)
def test_the_former_container_returns_to_data_of_its_own_major_version_only(one: str, other: str, same: bool) -> None:
    assert plan_module.same_major(one, other) is same


@pytest.mark.parametrize(
    ("address", "host", "refused"),
    [
        ("1.2.3.4", {"addresses": ["127.0.0.1", "10.0.0.1"]}, True),
        ("10.0.0.1", {"addresses": ["127.0.0.1", "10.0.0.1"]}, False),
        ("0.0.0.0", {"addresses": ["10.0.0.1"]}, False),
        ("127.0.0.2", {"addresses": ["10.0.0.1"]}, False),
        ("::", {"addresses": ["10.0.0.1"]}, False),
        # A virtual address that another host has now.
        ("1.2.3.4", {"addresses": ["10.0.0.1"], "nonlocal_bind": True}, False),
    ],
)
def test_a_port_on_an_address_that_the_host_has_not_is_refused(
    state: dict[str, Any], address: str, host: dict[str, Any], refused: bool
) -> None:
    declared = {**DECLARED, "ports": [{"address": address, "port": 6379, "container_port": 6379, "variable": "redis_publish_address"}]}
    if refused:
        with pytest.raises(DeclarationError, match=r"on 1\.2\.3\.4, which is none of .*10\.0\.0\.1\): change redis_publish_address"):
            plan({**state, "host": host}, declared)
    else:
        assert plan({**state, "host": host}, declared)["needed"]


STORE: dict[str, Any] = {**DECLARED, "volumes": [{"name": "redis_data", "path": "/data", "variable": "redis_volume", "data": True}]}


def foreign(status: str = "running", mode: str = "rw") -> dict[str, Any]:
    """Return a container of another owner that mounts the volume of Redis."""
    return {"ports": [], "status": status, "running": status == "running", "volumes": {"redis_data": mode}}


@pytest.mark.parametrize("status", ["running", "exited", "restarting"])
def test_a_volume_that_a_foreign_container_mounts_is_never_taken_over(state: dict[str, Any], status: str) -> None:
    state["volumes"]["redis_data"] |= {"labels": {}, "empty": False}
    state["foreign_containers"]["old-redis"] = foreign(status)
    with pytest.raises(
        DeclarationError, match=rf"redis_data is used by the container old-redis \({status}\).*docker rm -f old-redis.*redis_volume"
    ):
        plan(state, STORE, adopt=True)


@pytest.mark.parametrize(
    ("user", "refused"), [(foreign(), True), (foreign("exited"), False), (foreign(mode="ro"), False)], ids=["writes", "stopped", "reads"]
)
def test_a_second_server_on_our_own_volume_is_refused(state: dict[str, Any], user: dict[str, Any], refused: bool) -> None:
    state["foreign_containers"]["other"] = user
    if refused:
        with pytest.raises(DeclarationError, match="Two servers on one volume"):
            plan(state, STORE)
    else:
        assert plan(state, STORE)["needed"] == []


@pytest.mark.parametrize(
    ("there", "refused"),
    [
        ({"written_s": 5, "lock": ""}, "it may be in use: the last write was 5 s ago"),
        ({"written_s": 300, "lock": "postmaster.pid"}, r"its file postmaster\.pid says that a server uses it.*again 300 s later"),
        ({"written_s": 700, "lock": "postmaster.pid"}, ""),
        ({"written_s": 90, "lock": ""}, ""),
        ({"written_s": None, "lock": ""}, ""),
    ],
)
def test_a_volume_that_was_written_to_lately_is_not_taken_over(state: dict[str, Any], there: dict[str, Any], refused: str) -> None:
    state["volumes"]["redis_data"] |= {"labels": {}, "empty": False, **there}
    if refused:
        with pytest.raises(DeclarationError, match=refused):
            plan(state, STORE, adopt=True)
    else:
        assert plan(state, STORE, adopt=True)["needed"] == []


def test_data_of_another_user_is_refused_by_the_plan_and_so_in_check_mode(state: dict[str, Any]) -> None:
    # The alpine and Debian images differ in that number.
    state["volumes"]["redis_data"] |= {"uid": 70, "empty": False}
    state["images"]["redis:7-alpine"]["users"] = {"root": 0, "redis": 999}
    with pytest.raises(DeclarationError, match="volume redis_data holds data of user 70, but the image runs as user 999"):
        plan(state, STORE)
    with pytest.raises(DeclarationError, match=r"redis_data holds data of user 70, and redis_user is 7: set redis_user back to 70"):
        plan(state, {**STORE, "user": "7"})
    state["volumes"]["redis_data"]["empty"] = True
    plan(state, STORE)


def test_an_empty_volume_does_not_take_the_place_of_the_one_with_the_data(state: dict[str, Any]) -> None:
    state["containers"]["slipway-redis"]["volumes"] = {"redis_data": {"path": "/data", "mode": "rw"}}
    moved = {**STORE, "volumes": [{**STORE["volumes"][0], "name": "new"}]}
    with pytest.raises(DeclarationError, match=r"runs on the volume redis_data, and redis_volume names new, which is empty.*Set it back"):
        plan(state, moved)
    # Nothing says of each image which version it has, so that another one excuses nothing.
    for image in ("redis:8-alpine", "redis:7-alpine@sha256:" + "b" * 64, "registry.example.com/redis:7-alpine", "acme/redis:2.0.0"):
        with pytest.raises(DeclarationError, match=r"redis_volume names new, which is empty.*Set it back"):
            plan(state, {**moved, "image": image})
    assert plan(state, {**moved, "image": "redis:8-alpine"}, accept_empty=True)["needed"]
    # A volume with data, a stopped container, and a volume that is not for data may be meant.
    filled = copy.deepcopy(state)
    filled["volumes"]["new"] = {"labels": {"slipway.stack": "slipway"}, "empty": False}
    assert plan(filled, moved)["needed"]
    assert plan(state, {**moved, "volumes": [{**moved["volumes"][0], "data": False}]})["needed"]
    state["containers"]["slipway-redis"]["running"] = False
    assert plan(state, moved)["needed"]


PRODUCT_VOLUME = {"name": "uploads", "path": "/files", "kept": True, "variable": "app_services.files.volumes"}
PRODUCT = {**DECLARED, "name": "files-blue-1", "labels": {"slipway.slot": "blue"}, "volumes": [PRODUCT_VOLUME]}


def product_state(service: str = "files-blue-1", slot: str = "blue") -> dict[str, Any]:
    """What a host reports on which a service of the product runs with uploads in its volume."""
    found = agreeing_state({**PRODUCT, "name": service, "labels": {"slipway.slot": slot}})
    found["containers"][f"slipway-{service}"]["volumes"] = {"uploads": {"path": "/files", "mode": "rw"}}
    found["volumes"]["uploads"] = {"labels": {"slipway.stack": "slipway"}, "empty": False}
    return found


def renamed(**more: Any) -> dict[str, Any]:
    return {**PRODUCT, "volumes": [{**PRODUCT_VOLUME, "name": "new", **more}]}


# The slot that serves, the other one, which a release starts, and a service that was renamed with its volume.
@pytest.mark.parametrize(("service", "slot"), [("files-blue-1", "blue"), ("files-green-1", "green"), ("old-blue-1", "blue")])
@pytest.mark.parametrize("there", [None, {"labels": {"slipway.stack": "slipway"}, "empty": True}])
def test_an_empty_volume_does_not_take_the_place_of_the_one_with_the_products_files(service: str, slot: str, there: Any) -> None:
    found = product_state(service, slot)
    if there:
        found["volumes"]["new"] = there
    message = f"slipway-{service} runs on the volume uploads, and app_services.files.volumes names new, which is empty.*Set it back"
    with pytest.raises(DeclarationError, match=message):
        plan(found, renamed())


def test_another_volume_of_the_product_may_be_meant() -> None:
    found = product_state()
    # A cache, a second volume, one taken out, and one that an extra service has.
    assert plan(found, renamed(kept=False))["needed"]
    assert plan(found, {**PRODUCT, "volumes": [PRODUCT_VOLUME, {**PRODUCT_VOLUME, "name": "new", "path": "/more"}]})["needed"]
    assert plan(found, {**PRODUCT, "volumes": []})["needed"]
    assert plan(found, {**renamed(), "labels": {}}, owner="search")["needed"]
    filled, unused, stopped = (copy.deepcopy(found) for _ in range(3))
    filled["volumes"]["new"] = {"labels": {"slipway.stack": "slipway"}, "empty": False}
    unused["volumes"]["uploads"]["empty"] = True
    stopped["containers"]["slipway-files-blue-1"]["running"] = False
    for state_of_host in (filled, unused, stopped):
        assert plan(state_of_host, renamed())["needed"]


def test_a_service_does_not_leave_its_files_behind_on_another_host() -> None:
    left = {"one": plan(product_state(), DECLARED)["volumes_left"], "two": {}}
    empty = plan(agreeing_state(DECLARED), PRODUCT)["volumes_of_data"]
    hostvars = {host: {"container_service_plan": {"volumes_left": left[host]}} for host in left} | {"balancer": {}}
    hostvars["two"]["container_service_plan"]["volumes_of_data"] = empty
    assert left_behind(hostvars, hostvars) == plan_module.left_behind(left, {"two": empty})
    (said,) = plan_module.left_behind(left, {"two": empty})
    assert said.startswith("two: the volume uploads is empty here, and its data is on one, where slipway-files-blue-1 would be removed")
    # A further host begins with files of its own, and the host itself has them.
    assert not plan_module.left_behind({"one": plan_module.volumes_left([PRODUCT], product_state(), "slipway", "redis")}, {"two": empty})
    assert not plan_module.volumes_of_data([PRODUCT], product_state())["uploads"]["empty"]
    assert not plan_module.left_behind(left, {"one": empty})


@pytest.mark.parametrize("declared", [PRODUCT, STORE], ids=["product", "store"])
def test_data_is_not_left_behind_either_where_its_container_is_gone(declared: dict[str, Any]) -> None:
    (volume,) = declared["volumes"]
    name, there = volume["name"], {"labels": {"slipway.stack": "slipway"}, "empty": False}
    former = agreeing_state(DECLARED) | {"volumes": {name: there, "other": {**there, "labels": {}}}}
    left = {"one": plan_module.volumes_left([], former, "slipway", "redis")}
    assert set(left["one"]) == {name}, "and no volume that is not the stack's"
    new: dict[str, Any] = {**agreeing_state(declared), "containers": {}, "volumes": {}}
    wanted = plan_module.volumes_of_data([declared], new)
    (said,) = plan_module.left_behind(left, {"two": wanted})
    assert said.startswith(f"two: the volume {name} is empty here, and its data is on one, where no container uses it any more")
    assert said.endswith("playbooks/site.yml -e accept=empty")
    assert not plan_module.left_behind(left, {"two": wanted, "three": plan_module.volumes_of_data([declared], former)})
    # It was accepted once, and nothing was uploaded yet.
    running = {"running": True, "labels": {}, "volumes": {name: {"path": volume["path"], "mode": "rw"}}}
    new |= {"volumes": {name: {**there, "empty": True}}, "containers": {"slipway-redis": running}}
    assert not plan_module.left_behind(left, {"two": plan_module.volumes_of_data([declared], new)})


def test_a_message_names_the_playbook_that_takes_accept() -> None:
    """Others refuse the variable, and find the same."""
    texts = {path: " ".join(re.sub(r'" *\n *f?"', "", path.read_text()).split()) for path in (ROOT / "plugins").rglob("*.py")}
    said = {path: re.findall(r"(\S+) -e accept=", text) for path, text in texts.items() if "-e accept=" in text}
    assert len(said) >= 4
    assert all(word.endswith("playbooks/site.yml") for words in said.values() for word in words), said


def of_data(declared: dict[str, Any], **there: Any) -> dict[str, Any]:
    """What a host has of a service's volume; nothing runs there."""
    volumes = {declared["volumes"][0]["name"]: {"labels": {}, **there}} if there else {}
    return plan_module.volumes_of_data([declared], {"containers": {}, "volumes": volumes})


@pytest.mark.parametrize(("declared", "known"), [(STORE, "redis"), (PRODUCT, "uploads")], ids=["store", "product"])
def test_the_product_does_not_go_on_without_data_that_a_release_has_recorded(declared: dict[str, Any], known: str) -> None:
    name = declared["volumes"][0]["name"]
    (said,) = plan_module.begun_empty({"two": of_data(declared)}, {known: ["one"]})
    assert said.startswith(f"two: the volume {name} does not exist here, and the product that was released has had this data on one")
    assert said.endswith("playbooks/site.yml -e accept=empty")
    (said,) = plan_module.begun_empty({"two": of_data(declared, empty=True)}, {known: ["one"]})
    assert said.startswith(f"two: the volume {name} is empty here")
    assert plan_module.begun_empty({"one": of_data(declared)}, {known: ["one"]}), "the volume was removed"
    # The data was brought, the service is new, a host is added, and a host that has it may not have been read.
    assert not plan_module.begun_empty({"two": of_data(declared, empty=False)}, {known: ["one"]})
    assert not plan_module.begun_empty({"two": of_data(declared)}, {"another": ["one"]})
    assert not plan_module.begun_empty({"one": of_data(declared, empty=False), "two": of_data(declared)}, {known: ["one"]})
    assert not plan_module.begun_empty({"two": of_data(declared)}, {known: ["one"]}, {"one"})


def test_what_older_records_do_not_know_may_be_new() -> None:
    (said,) = plan_module.begun_empty({"two": of_data(STORE)}, {}, complete=False)
    assert said.startswith("two: the volume redis_data does not exist here, and it is not known whether the product that was released has")
    assert "If it is new, first run site.yml without it" in said
    assert said.endswith("-e accept=empty")
    # Something of it was seen, here or elsewhere.
    for host in ("one", "two"):
        (said,) = plan_module.begun_empty({"two": of_data(STORE)}, {"redis": [host]}, complete=False)
        assert f"has had this data on {host}: it would" in said
    assert not plan_module.begun_empty({"one": of_data(STORE, empty=False), "two": of_data(STORE)}, {}, complete=False)
    # Of the product nothing is known, also where a service has the name of a volume.
    assert not plan_module.begun_empty({"two": of_data(PRODUCT)}, {"uploads": ["two"]}, complete=False)


def test_what_is_left_of_a_service_says_that_it_was_there(state: dict[str, Any]) -> None:
    empty: dict[str, Any] = {"containers": {}, "files": {}}
    assert plan_module.services_there(empty, "slipway", "/etc/slipway") == set()
    container = {"containers": state["containers"], "files": {}}
    files = {"containers": {}, "files": {"/etc/slipway/slipway/redis/config/loaded": {}, "/etc/slipway/shop/chroma/config/loaded": {}}}
    for there in (container, files):
        assert plan_module.services_there(there, "slipway", "/etc/slipway") == {"redis"}
        assert plan_module.services_there(there, "other", "/etc/slipway") == set()


@pytest.mark.parametrize(("declared", "known"), [(STORE, "redis"), (PRODUCT, "uploads")], ids=["store", "product"])
def test_the_data_of_one_of_several_hosts_is_missing_whatever_others_have(declared: dict[str, Any], known: str) -> None:
    full, gone = of_data(declared, empty=False), of_data(declared)
    (said,) = plan_module.begun_empty({"one": full, "two": gone}, {known: ["one", "two"]})
    assert said.startswith("two: ")
    assert "has had this data on two: it would be without it" in said
    # In the place of one that is lost.
    (said,) = plan_module.begun_empty({"one": full, "three": gone}, {known: ["one", "two"]})
    assert said.startswith("three: ")
    assert "on two: it" in said
    # One that is added, one that may not have been read, and data that was brought to a new host when another one was added.
    assert not plan_module.begun_empty({"one": full, "two": full, "three": gone}, {known: ["one", "two"]})
    assert not plan_module.begun_empty({"one": full, "three": gone}, {known: ["one", "two"]}, {"two"})
    assert not plan_module.begun_empty({"three": full, "four": gone}, {known: ["one"]})


def test_a_volume_into_which_nothing_was_uploaded_yet_loses_nothing() -> None:
    there, everywhere = of_data(PRODUCT, empty=True), {"uploads": ["one"]}
    for filled in (None, {}, {"uploads": ["two"]}):
        assert not plan_module.begun_empty({"one": there}, everywhere, filled=filled)
    # It was made by hand, or by a run that was killed, in the place of one with files.
    assert plan_module.begun_empty({"one": there}, everywhere, filled=everywhere)
    assert plan_module.begun_empty({"one": of_data(STORE, empty=True)}, {"redis": ["one"]})


def test_an_empty_volume_can_be_accepted(state: dict[str, Any]) -> None:
    state["containers"]["slipway-redis"]["volumes"] = {"redis_data": {"path": "/data", "mode": "rw"}}
    moved = {**STORE, "volumes": [{**STORE["volumes"][0], "name": "new"}]}
    assert plan(state, moved, accept_empty=True)["needed"]
    assert plan(product_state(), renamed(), accept_empty=True)["needed"]
    assert plan(state, STORE, accept_empty=True)["volumes_of_data"] == {}


FILES = {"name": "files", "path": "/data", "variable": "slipway_extra_services.search.volumes", "kept": True}
SEARCH: dict[str, Any] = {**DECLARED, "name": "search", "volumes": [FILES]}


def with_former(state: dict[str, Any], name: str = "old", owner: str = "redis", mode: str = "rw", **labels: str) -> dict[str, Any]:
    """What a host reports on which another container runs on the volume of the service ``search``, which is not there yet."""
    former = {**state["containers"]["slipway-redis"], "volumes": {"files": {"path": "/data", "mode": mode}}}
    former["labels"] = {**former["labels"], "slipway.owner": owner, **labels}
    return {
        **state,
        "containers": {f"slipway-{name}": former},
        "volumes": {"files": {"labels": {"slipway.stack": "slipway"}, "empty": False}},
    }


def test_who_has_a_volume_stops_before_a_renamed_service_starts_on_it(state: dict[str, Any]) -> None:
    handed = {"container": "slipway-old", "volume": "files", "to": "slipway-search"}
    assert plan(with_former(state), SEARCH)["handed_over"] == [handed]
    stopped = with_former(state)
    stopped["containers"]["slipway-search"] = {**stopped["containers"]["slipway-old"], "running": False, "status": "exited"}
    assert handed in plan(stopped, SEARCH)["handed_over"], "the run before was interrupted"
    # Readers, slots of the product, which share a volume, and what does not run.
    assert not plan(with_former(state, mode="ro"), SEARCH)["handed_over"]
    assert not plan(with_former(state, **{"slipway.slot": "blue"}), {**SEARCH, "labels": {"slipway.slot": "blue"}})["handed_over"]
    stopped["containers"]["slipway-old"]["running"] = False
    assert not plan(stopped, SEARCH)["handed_over"]
    reader = {**SEARCH, "volumes": [{**FILES, "mode": "ro"}]}
    assert not plan(with_former(state), reader)["handed_over"]


def test_services_that_are_declared_do_not_exchange_a_volume_in_one_run(state: dict[str, Any]) -> None:
    """One of them failing would leave both on one volume."""
    found = with_former(state, name="redis")
    arguments = {"stack": "slipway", "root": "/etc/slipway", "owner": "redis", "key": KEY, "networks": NETWORKS, "adopt": False}
    with pytest.raises(DeclarationError, match="slipway-search is to write to the volume files, on which slipway-redis runs: two servers"):
        plan_services([DECLARED, SEARCH], found, **arguments)
    # They share it.
    assert plan_services([{**DECLARED, "volumes": [FILES]}, SEARCH], found, **arguments)["needed"]


@pytest.mark.parametrize("owner", ["app-blue", "app-green"])
def test_a_service_does_not_start_on_a_volume_that_another_owner_has(state: dict[str, Any], owner: str) -> None:
    """As a worker that becomes an extra service: these start before the release removes it."""
    found = with_former(state, "worker-blue-1", owner)
    starting = {"extra_services": plan(found, SEARCH, owner="extra_services")["begins_on"]}
    assert starting["extra_services"] == {"files": ["slipway-search"]}
    (said,) = plan_module.written_by_others(starting, {"app": {"uploads"}, "extra_services": {"files"}}, found)
    assert said.startswith("slipway-search is to write to the volume files, on which slipway-worker-blue-1 of app runs: two servers")
    # The product goes on sharing it.
    assert not plan_module.written_by_others(starting, {"app": {"files"}}, found)
    assert not plan_module.written_by_others({"app-blue": starting["extra_services"]}, {}, found)


def test_what_copies_keep_of_a_wrapper_makes_no_new_container(state: dict[str, Any]) -> None:
    wrapped = {**DECLARED, "wrapper": ["sh", "export", "sh", "quiesce"]}
    partly = {**wrapped, "not_copied": {"wrapper_words": 2, "volumes": ["redis_quiesce"]}}
    (whole,), (part,) = (plan(state, declared)["needed"] for declared in (wrapped, partly))
    assert whole["options"]["copied"] == {"wrapper": 4, "without": []}
    assert part["options"]["copied"] == {"wrapper": 2, "without": ["redis_quiesce"]}
    assert whole["options"]["labels"] == part["options"]["labels"]


def test_containers_that_run_and_go_are_not_what_interrupted_runs_have_left() -> None:
    found = product_state()
    for name, running in {"old": True, "stopped": False, "files-blue-1-next": True, "files-blue-1-before": True}.items():
        found["containers"][f"slipway-{name}"] = {**found["containers"]["slipway-files-blue-1"], "running": running}
    compared = plan(found, PRODUCT)
    assert {"slipway-old", "slipway-stopped"} <= set(compared["stale"])
    assert compared["stale_running"] == ["slipway-old"]


def test_all_clashes_come_at_once(state: dict[str, Any]) -> None:
    state["foreign_containers"]["old"] = {**foreign(), "volumes": {"redis_data": "rw", "more": "rw"}}
    state["volumes"]["redis_data"]["labels"] = {}
    state["volumes"]["more"] = {"labels": {}}
    second = {**STORE, "name": "second", "volumes": [{"name": "more", "path": "/data"}]}
    arguments = {"stack": "slipway", "root": "/etc/slipway", "owner": "redis", "key": KEY, "networks": NETWORKS, "adopt": True}
    with pytest.raises(DeclarationError) as raised:
        plan_services([STORE, second], state, **arguments)
    assert len(str(raised.value).splitlines()) == 2


def test_a_tmpfs_can_be_written_by_the_containers_user_and_limits_are_passed_on() -> None:
    declared = {**DECLARED, "tmpfs": {"/run": "", "/var/cache": "size=8m", "/x": "mode=0700"}, "ulimits": {"nofile": "65536"}}
    options = container_options(plan_module.normalize(declared), "slipway", "/etc/slipway", "redis", "1.45")
    assert options["tmpfs"] == [
        "/run:noexec,nosuid,nodev,mode=1777",
        "/tmp:noexec,nosuid,nodev,size=64m",
        "/var/cache:noexec,nosuid,nodev,size=8m,mode=1777",
        "/x:noexec,nosuid,nodev,mode=0700",
    ]
    assert options["ulimits"] == ["nofile:65536:65536"]
    assert "ulimits" not in container_options(plan_module.normalize(DECLARED), "slipway", "/etc/slipway", "redis", "1.45")
