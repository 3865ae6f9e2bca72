# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What plan.yml says of each change, and which changes of a store wait for an accepted restart."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils import engine_options
from ansible_collections.slipway.stack.plugins.plugin_utils import outlook
from ansible_collections.slipway.stack.plugins.plugin_utils.plan import DESCRIBED, plan_services
from ansible_collections.slipway.stack.plugins.plugin_utils.release_decision import Host, Inputs, lock_reason, mode
from test_plan import DECLARED, KEY, NETWORKS, agreeing_state

STORE: dict[str, Any] = {**DECLARED, "volumes": [{"name": "redis_data", "path": "/data", "data": True}], "ports": []}
#: What is edited, as path and value; what happens to the service; and a part of the reason.
EDITS: list[tuple[tuple[str, ...], Any, str, str]] = [
    (("memory_mb",), 256, "reload", "memory limit 128 MiB becomes 256 MiB"),
    (("cpu_shares",), 512, "reload", "CPU shares 1024 become 512"),
    (("networks",), ["database", "backend"], "reload", "joins network slipway-backend"),
    (("config", "runtime.conf", "content"), "maxmemory 2mb\n", "reload", "runtime.conf differs"),
    (("secrets", "users.acl", "content"), "user default on", "reload", "users.acl differs"),
    (("healthy_timeout",), 60, "nothing", ""),
    (("reload",), ["redis-reload", "now"], "nothing", ""),
    (("cpus",), 2, "restart", "CPU limit 1 becomes 2"),
    (("image",), "redis:7.4-alpine", "restart", "image redis:7-alpine becomes redis:7.4-alpine"),
    (("image",), "redis:8-alpine", "restart", "image redis:7-alpine becomes redis:8-alpine"),
    (("pids",), 512, "restart", "pids_limit 256 becomes 512"),
    (("stop_timeout",), 30, "restart", "stop_timeout 10 becomes 30"),
    (("command",), ["redis-server"], "restart", 'command ["redis-server", "/etc/slipway/current/redis.conf"] becomes ["redis-server"]'),
    (("environment",), {"LEVEL": "debug"}, "restart", "the environment's LEVEL changes"),
    (("tmpfs",), {"/run": ""}, "restart", "tmpfs "),
    (("ulimits",), {"nofile": 1024}, "restart", 'ulimits (none) becomes ["nofile:1024:1024"]'),
    (("shm_size_mb",), 64, "restart", "shm_size (none) becomes 64M"),
    (("capabilities",), ["SYS_NICE"], "restart", 'capabilities [] becomes ["SYS_NICE"]'),
    (("hardening_exceptions",), [{"what": "read_only", "why": "it writes"}], "restart", "read_only true becomes false"),
    (("config", "redis.conf", "content"), "port 6380\n", "restart", "redis.conf differs"),
    (("healthcheck", "interval"), 60, "restart", "healthcheck "),
    (("user",), "999", "restart", "user redis becomes 999"),
]


def edited(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    declared = copy.deepcopy(STORE)
    place = declared
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return declared


def state() -> dict[str, Any]:
    found = agreeing_state(STORE)
    found["containers"]["slipway-redis"]["labels"]["slipway.owner"] = "redis"
    found["containers"]["slipway-redis"].update(ports={}, volumes={"redis_data": {"path": "/data", "mode": "rw"}})
    found["networks"]["slipway-backend"] = {"internal": False, "labels": {}}
    for name in ("redis:7.4-alpine", "redis:8-alpine"):
        found["images"][name] = {"id": f"sha256:{name}"}
    return found


def rows(declared: dict[str, Any], there: dict[str, Any], *, accept: bool = True) -> list[outlook.Row]:
    plan = plan_services(
        [declared],
        there,
        stack="slipway",
        root="/etc/slipway",
        owner="redis",
        key=KEY,
        networks=NETWORKS,
        adopt=False,
        accept_restart=accept,
    )
    # The row is what is done.
    (item,) = plan["services"]
    (row,) = found = outlook.rows("db1", "redis", plan, there["containers"])
    assert (row["action"] != outlook.NOTHING and not row["waits"]) is item["needed"]
    assert (row["action"] == outlook.RESTART) is (item["keep"] or item["restart"])
    return found


@pytest.mark.parametrize(("path", "value", "action", "reason"), EDITS, ids=[f"{edit[0][-1]}-{edit[2]}" for edit in EDITS])
def test_the_plan_of_an_edit_is_what_is_done(path: tuple[str, ...], value: Any, action: str, reason: str):
    (row,) = rows(edited(path, value), state())
    assert row["action"] == action, row
    assert reason in "; ".join(row["reasons"])
    assert bool(row["downtime_s"]) is (action == "restart")
    assert row["waits"] is False


@pytest.mark.parametrize(("path", "value", "action", "reason"), EDITS, ids=[f"{edit[0][-1]}-{edit[2]}" for edit in EDITS])
def test_a_store_that_serves_is_restarted_only_if_that_is_accepted(path: tuple[str, ...], value: Any, action: str, reason: str):
    (row,) = rows(edited(path, value), state(), accept=False)
    assert row["waits"] is (action == "restart")
    assert (row["action"], reason in "; ".join(row["reasons"])) == (action, True)
    if row["waits"]:
        text = outlook.waiting_text(row)
        assert text.startswith("waits for a restart, of at most ")
        assert "-e accept=restart" in text


@pytest.mark.parametrize(
    ("change", "action"),
    [
        ({"running": False, "status": "exited"}, "start"),
        ({"health": "unhealthy"}, "restart"),
        ({"running": False, "status": "exited", "image": "redis:6-alpine"}, "start"),
        ({"health": "unhealthy", "image": "redis:6-alpine"}, "start"),
    ],
)
def test_a_store_that_does_not_serve_waits_for_nothing(change: dict[str, Any], action: str):
    there = state()
    there["containers"]["slipway-redis"].update(change)
    (row,) = rows(STORE, there, accept=False)
    assert (row["action"], row["waits"]) == (action, False)


def test_a_first_deployment_waits_for_nothing():
    there = state()
    there["containers"], there["files"] = {}, {}
    (row,) = rows(STORE, there, accept=False)
    assert (row["action"], row["waits"], row["downtime_s"]) == ("create", False, 0)


def test_a_service_without_data_waits_for_nothing():
    plain = {**STORE, "volumes": []}
    there = agreeing_state(plain)
    there["containers"]["slipway-redis"].update(ports={}, volumes={})
    (row,) = rows({**plain, "pids": 512}, there, accept=False)
    assert (row["action"], row["waits"]) == ("restart", False)


@pytest.mark.parametrize(("image", "data"), [("redis:7.4-alpine", False), ("redis:8-alpine", True)])
def test_another_major_version_is_a_risk(image: str, data: bool):
    (row,) = rows(edited(("image",), image), state())
    assert row["data"] is data


def test_another_volume_is_a_risk():
    there = state()
    there["volumes"]["redis_other"] = {"labels": {"slipway.stack": "slipway"}, "mountpoint": "/w", "driver": "local", "empty": False}
    (row,) = rows(edited(("volumes",), [{"name": "redis_other", "path": "/data", "data": True}]), there)
    assert (row["action"], row["data"]) == ("restart", True)


def test_a_restart_names_what_could_be_changed_without_one_too():
    declared = edited(("pids",), 512)
    declared["memory_mb"] = 256
    (row,) = rows(declared, state())
    assert row["action"] == "restart"
    assert {"pids_limit 256 becomes 512" in reason for reason in row["reasons"]} == {True, False}
    assert "memory limit 128 MiB becomes 256 MiB" in row["reasons"]


@pytest.mark.parametrize(("there", "hides"), [([], True), (["10.0.0.1:6379"], False)])
def test_a_store_that_waits_and_that_other_hosts_cannot_reach_yet_is_noticed(there: list[str], hides: bool):
    found = state()
    found["containers"]["slipway-redis"]["ports"] = {"6379/tcp": there}
    found["host"] = {"addresses": ["10.0.0.1"]}
    declared = edited(("ports",), [{"address": "10.0.0.1", "port": 6379, "container_port": 6379}])
    (row,) = rows(declared, found, accept=False)
    assert (row["waits"], row["holds_back"]) == (True, ["a port for other hosts"] if hides else [])


def test_a_password_that_waits_with_a_store_is_noticed():
    declared = edited(("pids",), 512)
    declared["secrets"]["users.acl"]["content"] = "user app on"
    (row,) = rows(declared, state(), accept=False)
    assert (row["waits"], row["holds_back"]) == (True, ["passwords"])
    (row,) = rows(declared, state())
    assert row["holds_back"] == []


def test_no_value_of_the_environment_and_no_file_is_in_a_label():
    there = agreeing_state({**STORE, "environment": {"TOKEN": "t7Hq2Lw9Zx4Nv6Bk8Mr3"}})
    label = there["containers"]["slipway-redis"]["labels"][DESCRIBED]
    assert "t7Hq2Lw9" not in label
    assert "users.acl" not in label
    assert json.loads(label)["the environment's TOKEN"].startswith("sha256:")


def row(service: str, action: str, role: str = "app", **more: Any) -> outlook.Row:
    return {**outlook.simple_row("app1", role, service, action, []), **more}


UNLOCKED = {"locked_on": "", "held_until": "", "recover": "", "interrupted": {}}


def release(moves: bool = False, rolling: bool = False, **more: Any) -> dict[str, Any]:
    """Return what release_plan says of a fleet that serves 1.0."""
    return {
        "inputs": {"rolling": rolling, "batch": 1, "gate_seconds": 30, "app_hosts": ["app0", "app1"]},
        "record": {"version": "1.0"},
        "moves": moves,
        "version": "1.1" if moves else "1.0",
        "images": {},
        "services": {"first": [], "workers": [], "stop_seconds": 40, "start_seconds": 120},
        **UNLOCKED,
        **more,
    }


@pytest.mark.parametrize(
    ("moves", "rolling", "compared", "actions"),
    [
        (False, False, [row("backend-blue-1", "reload", reasons=["x"])], ["reload"]),
        (
            False,
            False,
            [row("api-blue-1", "restart", reasons=["x"], downtime_s=9, moves=True), row("job-blue-1", "nothing")],
            ["blue_green"] * 2,
        ),
        (
            False,
            False,
            [row("api-blue-1", "restart", reasons=["the container is unhealthy"]), row("job-blue-1", "nothing")],
            ["restart", "nothing"],
        ),
        (True, False, [row("backend-blue-1", "nothing")], ["blue_green"]),
        (True, True, [row("backend-blue-1", "nothing")], ["rolling"]),
        (False, False, [row("new-blue-1", "create"), row("old-blue-1", "remove", moves=True)], ["blue_green", "remove"]),
        (False, False, [row("new-blue-1", "create"), row("old-blue-1", "remove")], ["create", "remove"]),
        (False, False, [row("new-blue-1", "create"), row("old", "remove", "redis", moves=True)], ["create", "remove"]),
        (True, True, [row("redis", "restart", "redis", reasons=["x"])], ["restart"]),
        (True, False, [row("old", "remove", reasons=["is no longer declared"])], ["remove"]),
    ],
)
def test_the_product_moves_as_a_whole_where_one_of_its_containers_is_replaced(
    moves: bool, rolling: bool, compared: Any, actions: list[str]
):
    found = outlook.outlook(compared, {"release": {"app1": ["version 1.0 becomes 1.1"]}} if moves else {}, release(moves, rolling))
    assert [item["action"] for item in found] == actions
    assert all(outlook.PRIVATE.isdisjoint(item) for item in found)
    assert all(item["downtime_s"] == 0 for item in found if item["action"] in ("rolling", "blue_green"))
    if moves and found[0]["action"] in ("rolling", "blue_green"):
        assert found[0]["reasons"] == ["version 1.0 becomes 1.1"]


#: Services of the product.
WEB: dict[str, Any] = {**DECLARED, "name": "web-blue-1", "volumes": [], "secrets": {}}
MIGRATION: dict[str, Any] = {"name": "migrate-blue", "image": "redis:7-alpine", "memory_mb": 64, "cpus": 1, "one_shot": True}
JOB: dict[str, Any] = {"name": "prune-blue", "image": "redis:7-alpine", "memory_mb": 128, "cpus": 1, "container": "created"}
BY_HAND: dict[str, Any] = {"labels": {}}
#: What is edited of WEB; what differs of its container, None where it is gone; and what is planned for web-blue-1 and for the migration.
PRODUCTS: list[tuple[dict[str, Any], dict[str, Any] | None, str, str]] = [
    ({}, {}, "nothing", ""),
    ({}, None, "create", "create"),
    ({"pids": 512}, None, "create", "create"),
    ({"pids": 512}, {}, "blue_green", "blue_green"),
    ({"pids": 512}, {"running": False, "status": "exited"}, "blue_green", "blue_green"),
    ({"pids": 512}, {"health": "unhealthy"}, "blue_green", "blue_green"),
    ({"memory_mb": 256}, {}, "reload", ""),
    ({"memory_mb": 256}, {"running": False, "status": "exited"}, "start", ""),
    ({}, {"running": False, "status": "exited"}, "start", ""),
    ({}, {"health": "unhealthy"}, "restart", ""),
    ({}, BY_HAND, "restart", "create"),
]


def host_with_web(change: dict[str, Any] | None) -> dict[str, Any]:
    """Return the state of a host that runs WEB, with what differs of its container."""
    there = agreeing_state(WEB)
    container = there["containers"].pop("slipway-web-blue-1")
    if change is not None:
        there["containers"]["slipway-web-blue-1"] = {**container, "ports": {}, "volumes": {}, **change}
    return there


def compare(declared: list[dict[str, Any]], there: dict[str, Any]) -> dict[str, Any]:
    return plan_services(declared, there, stack="slipway", root="/etc/slipway", owner="redis", key=KEY, networks=NETWORKS, adopt=False)


def product_rows(declared: list[dict[str, Any]], there: dict[str, Any], **more: Any) -> list[outlook.Row]:
    """Return what is shown of the product's services on a host."""
    return outlook.outlook(outlook.rows("app1", "app", compare(declared, there), there["containers"]), {}, release(**more))


@pytest.mark.parametrize(("edit", "there", "action", "migration"), PRODUCTS)
def test_the_product_is_planned_as_a_release_decides(edit: dict[str, Any], there: dict[str, Any] | None, action: str, migration: str):
    web, state = {**WEB, **edit}, host_with_web(there)
    found = {item["service"]: item["action"] for item in product_rows([MIGRATION, web], state)}
    assert found == {"web-blue-1": action} | ({"migrate-blue": migration} if migration else {})
    # A release compares without its migration.
    decided = mode([Host(state, compared=compare([web], state))], release(), Inputs(app_hosts=["app1"]))
    assert decided == {"blue_green": "blue_green", "nothing": "nothing"}.get(action, "in_place")


def test_a_job_is_created_and_a_change_of_it_is_a_release():
    state = host_with_web({})
    assert [item["action"] for item in product_rows([WEB, JOB], state)] == ["nothing", "create"]
    created = {"running": False, "status": "created", "health": "none", "restart_policy": "no"}
    state["containers"]["slipway-prune-blue"] = {**state["containers"]["slipway-web-blue-1"], **created}
    assert [item["action"] for item in product_rows([WEB, JOB], state)] == ["blue_green", "blue_green"]


@pytest.mark.parametrize(("built", "action"), [("sha256:1", "nothing"), ("sha256:2", "blue_green")])
def test_a_version_that_was_built_again_is_released(built: str, action: str):
    pulled = {"name": "redis:7-alpine", "id": built, "digest": "sha256:d", "other": True}
    (found,) = product_rows([WEB], host_with_web({}), images={"app1": {"recorded": [pulled]}, "app2": {}})
    assert found["action"] == action
    assert found["reasons"] == ([] if action == "nothing" else ["image redis:7-alpine was built again"])


def test_a_service_that_is_removed_has_one_row():
    state = host_with_web({})
    plan = compare([], state)
    assert (plan["stale"], plan["stale_folders"]) == (["slipway-web-blue-1"], ["web-blue-1"])
    reasons = {"app": {"app1": ["slipway-web-blue-1: is no longer declared", "folder web-blue-1: its service has no container"]}}
    (removed,) = outlook.outlook(outlook.rows("app1", "app", plan, state["containers"]), reasons, release(record=None))
    assert (removed["service"], removed["action"], removed["reasons"]) == ("web-blue-1", "remove", ["is no longer declared"])


def test_what_an_interrupted_run_has_left_is_not_taken_for_its_service():
    state = host_with_web({})
    state["containers"]["slipway-web-blue-1-next"] = state["containers"]["slipway-web-blue-1"]
    found = {item["service"]: item["action"] for item in product_rows([WEB], state)}
    assert found == {"web-blue-1": "nothing", "slipway-web-blue-1-next": "remove"}


def test_what_else_differs_has_a_row_of_its_own():
    compared = [row("redis", "reload", "redis", reasons=["memory limit 1 MiB becomes 2 MiB"])]
    found = outlook.outlook(compared, {"redis": {"app1": ["redis: memory limit 1 MiB becomes 2 MiB", "the timer differs"]}}, release())
    assert [(item["service"], item["action"], item["reasons"]) for item in found] == [
        ("redis", "reload", ["memory limit 1 MiB becomes 2 MiB"]),
        ("redis", "reload", ["the timer differs"]),
    ]
    assert "the timer differs" in outlook.lines(found)[2]["text"]


def engine_reasons(**options: Any) -> list[str]:
    """Return what role host says of options that the engine of a host with running containers has not."""
    return engine_options.reasons({"runs": True, "containers_live_on": False}, options)


#: By what the engine does, what differs of WEB and of its container, what is planned for it, and for how long it is away: it stops in 10 s
#: and is healthy in 120 s, the slowest container of the host stops in 40 s, and an engine must answer within 60 s.
@pytest.mark.parametrize(
    ("options", "edit", "there", "action", "away"),
    [
        ({"log-driver": "local"}, {}, {}, "restart", 40 + 60 + 120),
        ({"log-driver": "local"}, {"memory_mb": 256}, {}, "restart", 40 + 60 + 120),
        ({"log-driver": "local"}, {}, {"health": "unhealthy"}, "restart", 40 + 60 + 120 + 130),
        ({"log-driver": "local"}, {"pids": 512}, {}, "blue_green", 40 + 60 + 120),
        ({"log-driver": "local"}, {}, {"running": False, "status": "exited"}, "start", 0),
        ({"log-driver": "local"}, {}, None, "create", 0),
        ({"log-driver": "local", "live-restore": True}, {}, {}, "nothing", 0),
        ({"debug": True}, {}, {}, "nothing", 0),
    ],
)
def test_a_restart_of_the_engine_is_one_of_each_service_that_it_stops(
    options: dict[str, Any], edit: dict[str, Any], there: dict[str, Any] | None, action: str, away: int
):
    state = host_with_web(there)
    slow = {**row("postgres", "nothing", "postgres"), "runs": True, "stop_s": 40, "healthy_s": 60}
    elsewhere = {**slow, "host": "app2"}
    compared = [*outlook.rows("app1", "app", compare([{**WEB, **edit}], state), state["containers"]), slow, elsewhere]
    reasons = engine_reasons(**options)
    shown = outlook.outlook(compared, {"host": {"app1": reasons}}, release())
    found = {(item["host"], item["service"]): item for item in shown}
    web, host = found["app1", "web-blue-1"], found["app1", "host"]
    assert (web["action"], web["downtime_s"]) == (action, away)
    assert (reasons[0] in web["reasons"]) is (away > 0)
    stops = "stop meanwhile" in reasons[0]
    store = found["app1", "postgres"]
    assert (store["action"], store["downtime_s"]) == (("restart", 40 + 60 + 60) if stops else ("nothing", 0))
    assert host["action"] == ("reload" if options == {"debug": True} else "restart")
    assert host["downtime_s"] == max(away, store["downtime_s"])
    assert found["app2", "postgres"]["action"] == "nothing"


@pytest.mark.parametrize(
    ("moves", "compared", "expected"),
    [
        (True, row("nginx", "nothing", "nginx"), ("reload", [outlook.SWITCHES])),
        (True, row("nginx", "reload", "nginx", reasons=["x"]), ("reload", ["x", outlook.SWITCHES])),
        (True, row("nginx", "restart", "nginx", reasons=["x"]), ("restart", ["x", outlook.SWITCHES])),
        (True, row("nginx", "remove", "nginx", reasons=["x"]), ("remove", ["x"])),
        (False, row("nginx", "nothing", "nginx"), ("nothing", [])),
        (True, row("redis", "nothing", "redis"), ("nothing", [])),
    ],
)
def test_a_release_reloads_the_balancers(moves: bool, compared: Any, expected: tuple[str, list[str]]):
    product = row("web-blue-1", "nothing", moves=moves)
    _product, found = outlook.outlook([product, compared], {}, release())
    assert (found["action"], found["reasons"]) == expected


#: The services that stop before the new slot starts, and all workers; and for how long the worker of the first and of the second host is
#: away: all stop within 40 s, a batch takes 30 s for its requests and its gate, others start within 120 s, and this one within 60 s.
@pytest.mark.parametrize(
    ("first", "workers", "rolling", "away"),
    [
        (["worker"], ["worker"], False, [40 + 60] * 2),
        ([], ["worker"], False, [0, 0]),
        ([], ["worker"], True, [40 + 60] * 2),
        (["worker"], ["worker"], True, [40 + 30 + 40 + 60, 40 + (30 + 40 + 120) + 30 + 40 + 60]),
        ([], [], True, [0, 0]),
    ],
)
def test_a_release_says_what_it_stops_before_the_other_slot_has_it(first: list[str], workers: list[str], rolling: bool, away: list[int]):
    runs = {"of": "worker", "runs": True, "stop_s": 10, "healthy_s": 60}
    compared = [{**row("worker-blue-1", "nothing"), **runs, "host": host} for host in ("app0", "app1")]
    compared += [row("worker-blue-2", "create", of="worker", runs=False)]
    services = {"first": first, "workers": workers, "stop_seconds": 40, "start_seconds": 120}
    found = outlook.outlook(compared, {}, release(moves=True, rolling=rolling, services=services))
    assert [item["downtime_s"] for item in found] == [*away, 0]


def test_a_row_names_the_products_service():
    labels = {"slipway.slot": "blue", "slipway.version": "1.0"}
    declared = {**WEB, "name": "mail-worker-blue-2", "labels": labels}
    (found,) = outlook.rows("app1", "app", compare([declared], host_with_web(None)), {})
    assert (found["of"], found["runs"]) == ("mail-worker", False)


LEFT = {
    "locked_on": "app1",
    "interrupted": {"from": {"slot": "blue", "version": "1.0"}, "to": {"slot": "green", "version": "1.1"}},
}
UNDONE = "an interrupted release is undone: version 1.1 in slot green becomes 1.0 in slot blue"
FINISHED = "an interrupted release is finished: version 1.0 in slot blue becomes 1.1 in slot green"


@pytest.mark.parametrize(
    ("lock", "moves", "product", "of_release"),
    [
        ({"recover": "undo"}, False, "undo", ("undo", UNDONE)),
        ({"recover": "finish"}, False, "finish", ("finish", FINISHED)),
        # It is released again then.
        ({"recover": "undo"}, True, "blue_green", ("undo", UNDONE)),
        ({"recover": ""}, False, "nothing", ("reload", "an interrupted run has left the fleet's lock on app1")),
        (
            {"recover": "undo", "held_until": "2026-12-01T01:00:00Z"},
            False,
            "nothing",
            ("refused", "another run holds the fleet's lock on app1"),
        ),
        (
            {"recover": "", "held_until": "2026-12-01T01:00:00Z"},
            True,
            "blue_green",
            ("refused", "another run holds the fleet's lock on app1"),
        ),
    ],
)
def test_what_an_interrupted_release_needs_comes_first(lock: dict[str, Any], moves: bool, product: str, of_release: tuple[str, str]):
    plan = release(moves=moves, **LEFT | lock)
    said = ["version 1.0 becomes 1.1"] if moves else []
    compared = [
        row("web-blue-1", "nothing"),
        row("clock-blue-1", "start", reasons=["the container is exited"]),
        row("redis", "nothing", "redis"),
    ]
    web, clock, redis, found = outlook.outlook(compared, {"release": {"app1": [lock_reason(plan), *said]}}, plan)
    assert web["action"] == product
    assert (clock["action"], redis["action"]) == ("blue_green" if moves else "start", "nothing")
    if product in ("undo", "finish"):
        assert web["reasons"] == [of_release[1]]
    assert (found["host"], found["service"], found["action"]) == ("app1", "release", of_release[0])
    (reason,) = found["reasons"]
    assert reason.startswith(of_release[1])
