# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a release goes: for what was read from the hosts, the mode, the order, what each host does, and how it is undone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.plugin_utils import release
from ansible_collections.slipway.stack.plugins.plugin_utils.release_decision import (
    Host,
    Inputs,
    batches,
    decide,
    lock_seconds,
    mistakes,
    mode,
    moved_hosts,
    reasons,
    slot_containers,
    slot_memory,
)

PRODUCT = {
    "app_services": {
        "api": {"image": "shop/api:1.1", "port": 8000, "routes": [{"path": "/api/"}], "ready_path": "/ready"},
        "page": {"image": "shop/page:1.1", "port": 3000, "routes": [{"path": "/assets/", "cache": "immutable"}]},
        "mailer": {"image": "shop/api:1.1"},
        "clock": {"image": "shop/api:1.1", "retire": "before"},
    }
}
RECORD = {
    "serial": 1,
    "slot": "blue",
    "version": "1.0",
    "declared": "1.0",
    "previous": {"slot": "green", "version": "1.1"},
    "history": ["1.0"],
}
NOTHING: dict[str, Any] = {"services": [], "needed": [], "stale": [], "stale_running": [], "stale_folders": []}
FOLDER = "/etc/slipway/s/release"


def planned(record: dict[str, Any] | None = RECORD, version: str = "1.1", **more: Any) -> dict[str, Any]:
    """Return what release_plan says of a fleet with this record."""
    live = record["slot"] if record else "blue"
    return {
        "record": record,
        "version": version,
        "live": {"slot": live, "version": record["version"] if record else ""},
        "idle": {"slot": release.other(live), "version": version},
        "next_record": release.next_record(record, release.other(live), version, version, 3),
        "kept_record": release.next_record(record, live, version, version, 3),
        "revisions": {"lb": "r1"},
        "kept": [],
        "locked_on": "",
        "held_until": "",
        "recover": "",
        **more,
    }


def container(service: str, slot: str, running: bool, version: str = "1.1", memory: int = 0) -> dict[str, Any]:
    labels = {"slipway.service": f"{service}-{slot}-1", "slipway.version": version}
    return {"owner": f"app-{slot}", "labels": labels, "running": running, "memory_used": memory * 2**20}


def host(
    compared: dict[str, Any] | None = None, containers: dict[str, Any] | None = None, record: Any = RECORD, product: Any = PRODUCT
) -> Host:
    images = {name: {"id": "x"} for name in ("shop/api:1.1", "shop/page:1.1")}
    files = {f"{FOLDER}/state.json": {"content": json.dumps(record)}} if record else {}
    state = {"containers": containers or {}, "images": images, "files": files}
    return Host(state, product, compared or {})


def needed(name: str, **more: Any) -> dict[str, Any]:
    return {
        "container": name, "wait_only": False, "files": [], "make": [], "converge": False, "wait": True, "healthy_timeout": 90, **more,
    }  # fmt: skip


RECREATED = {**NOTHING, "services": [{"recreate": True, "by_hand": False}], "needed": [needed("x")]}
BY_HAND = {**NOTHING, "services": [{"recreate": True, "by_hand": True}], "needed": [needed("x")]}


@pytest.mark.parametrize(
    ("plan", "compared", "rolling", "expected"),
    [
        # Nothing differs.
        (planned(version="1.0"), [NOTHING, NOTHING], False, "nothing"),
        (planned(version="1.0"), [NOTHING, NOTHING], True, "nothing"),
        # A fleet's first release has nothing to move from.
        (planned(None), [RECREATED, RECREATED], False, "in_place"),
        (planned(None), [RECREATED, RECREATED], True, "in_place"),
        # What is reloaded, what is no longer declared, and what its user replaces by hand.
        (planned(version="1.0"), [NOTHING, {**NOTHING, "needed": [needed("x")]}], False, "in_place"),
        (planned(version="1.0"), [{**NOTHING, "stale": ["x"]}, NOTHING], False, "in_place"),
        (planned(version="1.0"), [{**NOTHING, "stale_folders": ["x"]}, NOTHING], True, "in_place"),
        (planned(version="1.0"), [BY_HAND], False, "in_place"),
        # What is removed while balancers send it requests.
        (planned(version="1.0"), [NOTHING, {**NOTHING, "stale": ["x"], "stale_running": ["x"]}], False, "blue_green"),
        (planned(version="1.0"), [{**NOTHING, "stale": ["x"], "stale_running": ["x"]}], True, "rolling"),
        (planned(None), [{**NOTHING, "stale": ["x"], "stale_running": ["x"]}], False, "in_place"),
        # Other containers on any host, or another version whatever the hosts are like.
        (planned(version="1.0"), [NOTHING, RECREATED], False, "blue_green"),
        (planned(version="1.0"), [NOTHING, RECREATED], True, "rolling"),
        (planned(), [], False, "blue_green"),
        (planned(), [], True, "rolling"),
        (planned(), [NOTHING, NOTHING], False, "blue_green"),
    ],
)
def test_the_mode(plan: dict[str, Any], compared: list[dict[str, Any]], rolling: bool, expected: str) -> None:
    assert mode([host(item) for item in compared], plan, Inputs(["a", "b"], rolling=rolling)) == expected


@pytest.mark.parametrize(
    ("step", "recover", "version", "expected"),
    [
        # What died is taken back, and then released again, or left as it was.
        ("switch", "undo", "1.1", "blue_green"),
        ("switch", "undo", "1.0", "nothing"),
        # It was committed, so it is finished, and nothing remains.
        ("commit", "finish", "1.1", "nothing"),
    ],
)
def test_the_mode_after_an_interrupted_release(step: str, recover: str, version: str, expected: str) -> None:
    journal = {"to": {"slot": "green", "version": "1.1"}, "record": release.next_record(RECORD, "green", "1.1", "1.1", 3)}
    lock = {"run": "x", "step": step, "journal": journal}
    assert release.recovery(lock) == recover
    plan = planned(release.after_recovery(RECORD, lock), version)
    assert mode([host(NOTHING)], plan, Inputs(["a"])) == expected


@pytest.mark.parametrize(
    ("rolling", "batch", "expected"),
    [
        (False, 1, [["a", "b", "c"]]),
        (True, 1, [["a"], ["b"], ["c"]]),
        (True, 2, [["a", "b"], ["c"]]),
    ],
)
def test_the_order_is_the_inventorys(rolling: bool, batch: int, expected: list[list[str]]) -> None:
    hosts = {name: host() for name in ("lb", "c", "a", "b")}
    found = decide(hosts, planned(), Inputs(["a", "b", "c"], rolling=rolling, batch=batch))
    assert [turn["hosts"] for turn in found["batches"]] == expected
    # Only app hosts start something.
    assert list(found["hosts"]) == ["a", "b", "c"]


def test_without_hosts_there_are_no_batches() -> None:
    assert decide({}, planned(), Inputs(["a"]))["batches"] == []


@pytest.mark.parametrize(("rolling", "canary", "expected"), [(False, 0, True), (True, 0, False), (False, 10, False)])
def test_balancers_have_their_next_configuration_ready_where_nothing_comes_between(rolling: bool, canary: int, expected: bool) -> None:
    assert decide({"a": host()}, planned(), Inputs(["a", "b"], rolling=rolling, canary_weight=canary))["prepares"] is expected


STOPPED = {name: container(name, "green", running=False) for name in ("api", "mailer")}
STANDBY = {"api": container("api", "green", running=True), "mailer": container("mailer", "green", running=False)}
STARTS = {**NOTHING, "needed": [needed("api"), needed("mailer"), needed("page", wait_only=True)]}


@pytest.mark.parametrize(
    ("containers", "compared", "rolling", "expected"),
    [
        # All that lacks is to be started.
        (STOPPED, STARTS, False, {"resumes": True, "starts": True, "ready": True, "stands_by": False}),
        (STANDBY, {**NOTHING, "needed": [needed("mailer")]}, False, {"resumes": True, "starts": True, "ready": True, "stands_by": True}),
        # A container is gone; another has older secrets; one was added by the inventory since.
        ({"api": STOPPED["api"]}, STARTS, False, {"resumes": True, "ready": False}),
        (STOPPED, {**STARTS, "needed": [needed("api", files=["x"])]}, False, {"resumes": True, "ready": False}),
        (STOPPED, {**STARTS, "stale": ["x"]}, False, {"resumes": True, "ready": False}),
        # The slot holds another version.
        ({"api": container("api", "green", False, "0.9")}, {**NOTHING, "needed": [needed("api")]}, False, {"ready": False}),
        # A worker that must be alone starts once the one before has stopped.
        ({"clock": container("clock", "green", False)}, {**NOTHING, "needed": [needed("clock")]}, False, {"ready": False}),
        # A rolling release stops the old slot first.
        (STOPPED, {}, True, {"resumes": False, "starts": False, "ready": False}),
    ],
)
def test_a_rollback_starts_what_was_kept(containers: Any, compared: Any, rolling: bool, expected: dict[str, Any]) -> None:
    plan = planned(kept=["a"])
    found = decide({"a": host(compared, containers)}, plan, Inputs(["a"], rollback=True, rolling=rolling))
    assert expected.items() <= found["hosts"]["a"].items()
    assert found["only_resumes"] is not rolling
    # Whatever is compared in between, as the balancer of a host that has both: the gate waits for the health of what starts.
    assert found["hosts"]["a"]["awaited"] == {item["container"]: 90 for item in compared.get("needed", [])}


def test_a_host_that_has_kept_nothing_creates_the_slot_and_the_others_resume() -> None:
    found = decide({"a": host(STARTS, STOPPED), "b": host()}, planned(kept=["a"]), Inputs(["a", "b"], rollback=True))
    assert [found["hosts"][name]["resumes"] for name in "ab"] == [True, False]
    assert [found["hosts"][name]["ready"] for name in "ab"] == [True, False]
    assert not found["only_resumes"]


@pytest.mark.parametrize(
    ("said", "taken", "rollback", "expected"),
    [
        (0, 700, False, 700), (0, 0, False, 256), (100, 700, False, 100), (900, 700, False, 900),
        # The version that serves may be one that takes more and more.
        (0, 700, True, 256), (900, 700, True, 900),
    ],
)  # fmt: skip
def test_a_second_slot_needs_what_the_serving_one_takes_or_its_input(said: int, taken: int, rollback: bool, expected: int) -> None:
    containers = {"a": container("api", "blue", True, memory=taken), "b": container("api", "green", False, memory=1024)}
    found = decide({"a": host(None, containers)}, planned(), Inputs(["a"], rollback=rollback, minimum_memory_mb=said))
    assert found["hosts"]["a"]["memory_mb"] == expected


def test_a_host_pulls_what_it_lacks_by_digest_where_a_build_has_recorded_it() -> None:
    lacks = Host({**host().state, "images": {}}, PRODUCT)
    digests = {"1.1": {"api": {"digest": "sha256:1", "id": "i"}}}
    found = decide({"a": lacks}, planned(), Inputs(["a"], digests=digests))["hosts"]["a"]["images"]
    assert [item["name"] for item in found["recorded"]] == ["shop/api:1.1"]
    assert found["named"] == ["shop/page:1.1"]
    assert set(found["all"]) == {"api", "page", "mailer", "clock"}


def test_a_host_with_part_of_the_product_pulls_by_digest_what_a_service_of_other_hosts_records() -> None:
    """A build records an image once, and the service that it is recorded with may run elsewhere."""
    workers = {"app_services": {"mailer": {"image": "docker.io/shop/api:1.1"}, "tool": {"image": "docker.io/shop/tool"}}}
    lacks = Host({**host().state, "images": {}}, workers, images={"api": "shop/api:1.1", "page": "shop/page:1.1"})
    digests = {"1.1": {"api": {"digest": "sha256:1", "id": "i"}, "page": {"digest": "sha256:2", "id": "p"}}}
    found = decide({"a": lacks}, planned(), Inputs(["a"], digests=digests))["hosts"]["a"]["images"]
    assert [(item["name"], item["digest"]) for item in found["recorded"]] == [("docker.io/shop/api:1.1", "sha256:1")]
    assert found["named"] == ["shop/tool:latest"]
    there = Host({**host().state, "images": {"shop/api:1.1": {"id": "i"}, "shop/tool:latest": {"id": "t"}}}, workers, images=lacks.images)
    found = decide({"a": there}, planned(), Inputs(["a"], digests=digests))["hosts"]["a"]["images"]
    assert (found["recorded"], found["named"]) == ([], [])


@pytest.mark.parametrize("kept", [0, 1, 3])
@pytest.mark.parametrize("origin", ["built", "pulled", "loaded"])
def test_only_the_images_that_a_rollback_needs_stay_on_a_host(origin: str, kept: int) -> None:
    """Whatever their number, and also those of versions that failed or that were only transferred; images in use go with their slot."""
    images: dict[str, Any] = {"redis:7": {"id": "r"}}
    slots: dict[str, str] = {}
    record = None

    def here(version: str) -> Host:
        containers = {slot: {**container("api", slot, True, there), "image": f"hub/shop/api:{there}"} for slot, there in slots.items()} | {
            "redis": {**container("redis", "", True), "owner": "redis", "image": "redis:7"}
        }
        seen = {"containers": containers, "images": images, "files": {}, "foreign_containers": {"other": {"image": "hub/shop/api:1.0.0"}}}
        return Host(seen, {"app_services": {"api": {"image": f"hub/shop/api:{version}", "port": 8000}}})

    for number in range(10):
        version = f"1.{number}.0"
        images[f"hub/shop/api:{version}"] = {"id": version, "digests": [f"hub/shop/api@{version}"] if origin == "pulled" else []}
        if number in (4, 7):
            # It failed, and its containers have gone.
            continue
        digests = {f"1.{earlier}.0": {"api": {"digest": f"d{earlier}", "id": f"1.{earlier}.0"}} for earlier in range(number + 1)}
        inputs = Inputs(["a"], digests=digests if origin == "built" else {})
        live = record["slot"] if record else "green"
        record = release.next_record(record, release.other(live), version, version, kept)
        plan = planned(version=version, idle={"slot": record["slot"], "version": version}, next_record=record)
        gone = decide({"a": here(version)}, plan, inputs)["hosts"]["a"]["unneeded_images"]
        slots[record["slot"]] = version
        needed = {*record["history"], *slots.values(), "1.0.0"}
        assert not needed & {name.rpartition(":")[2] for name in gone}
        for name in gone:
            del images[name]
        left = {name.rpartition(":")[2] for name in images} - {"7"}
        failed = {"1.4.0", "1.7.0"} if origin == "loaded" else set()
        assert left - failed == needed


@pytest.mark.parametrize(
    ("other", "runs", "goes"),
    [
        ('{"history": ["1.0", "0.9"]}', "hub/shop/api:1.0", ["0.8"]),
        ('{"history": ["1.0", "0.9"]}', "hub/desk/api:1.0", ["0.8", "0.9"]),
        # What it may go back to is not known.
        ("{", "hub/shop/api:1.0", []),
        ('{"serial": 1}', "hub/shop/api:1.0", []),
    ],
)
def test_images_that_another_stack_of_the_host_may_go_back_to_stay(other: str, runs: str, goes: list[str]) -> None:
    """As staging and production on one host have them: one that was loaded by hand cannot be pulled again."""
    record = {**RECORD, "version": "1.2", "history": ["1.2"], "retired": ["0.8", "0.9"]}
    state = {
        "containers": {},
        "images": {f"hub/shop/api:{version}": {"id": version, "digests": []} for version in ("0.8", "0.9", "1.0", "1.2")},
        "files": {"/etc/slipway/other/release/state.json": {"content": other}, f"{FOLDER}/state.json": {"content": json.dumps(record)}},
        "foreign_containers": {"other-api-blue-1": {"image": runs}},
    }
    here = Host(state, {"app_services": {"api": {"image": "hub/shop/api:1.2", "port": 8000}}})
    found = decide({"a": here}, planned(record, "1.2", next_record=record), Inputs(["a"], folder=FOLDER))["hosts"]["a"]["unneeded_images"]
    assert found == [f"hub/shop/api:{version}" for version in goes]


def test_what_undoing_needs_is_written_before_anything_moves() -> None:
    found = decide({"a": host()}, planned(kept=["a"]), Inputs(["a", "b"], rolling=True, rollback=True))["journal"]
    assert found["from"] == {"slot": "blue", "version": "1.0"}
    assert found["to"] == {"slot": "green", "version": "1.1"}
    assert (found["revisions"], found["rolling"], found["kept"], found["rollback"]) == ({"lb": "r1"}, True, ["a"], True)
    assert (found["record"]["version"], found["record"]["slot"]) == ("1.1", "green")
    assert "retired" not in found["record"]
    # What the next run reads of it says that this one is to be undone.
    assert release.recovery({"run": "x", "step": "prepare", "journal": found}) == "undo"
    assert release.journal_of({"run": "x", "step": "prepare", "journal": found}) == found


@pytest.mark.parametrize(
    ("plan", "record", "hosts", "serial"),
    [
        (planned(version="1.0"), RECORD, [], 1),
        # A host that is new, or whose record is torn or older, gets the fleet's.
        (planned(version="1.0"), {**RECORD, "serial": 0}, ["a", "lb"], 1),
        (planned(version="1.0"), None, ["a", "lb"], 1),
        # The inventory names another version for the first time, or there is no record yet.
        (planned({**RECORD, "declared": ""}, "1.0"), {**RECORD, "declared": ""}, ["a", "lb"], 2),
        (planned(None, "1.0"), None, ["a", "lb"], 1),
    ],
)
def test_what_is_recorded_where_nothing_moves(plan: dict[str, Any], record: Any, hosts: list[str], serial: int) -> None:
    found = decide({"a": host(record=record), "lb": host(record=record, product={})}, plan, Inputs(["a"], folder=FOLDER))
    assert found["record_hosts"] == hosts
    assert (found["record"]["serial"], found["record"]["version"]) == (serial, "1.0")


def test_a_run_says_by_host_what_it_will_do() -> None:
    lacks = Host({**host().state, "images": {}}, PRODUCT)
    recorded = {"api": {"digest": "sha256:1", "id": "x"}}
    inputs = Inputs(["a"], folder=FOLDER, digests={"1.0": recorded, "1.1": recorded})
    assert reasons({"a": host(), "lb": host(product={})}, planned(version="1.0"), inputs) == {"a": [], "lb": []}
    assert reasons({"a": lacks}, planned(version="1.0"), inputs) == {"a": ["shop/api:1.1 will be pulled by its digest"]}
    said = reasons({"a": lacks}, planned(locked_on="a"), inputs)["a"]
    assert said == [
        "an interrupted run has left the fleet's lock on a",
        "version 1.0 becomes 1.1",
        "version 1.1 will be recorded, with the hosts that hold data",
    ]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (Inputs(["a"]), ""),
        (Inputs(["a", "b"], rolling=True), ""),
        (Inputs(["a"], rolling=True), "takes app_release_batch (1) hosts out at a time, and group app has 1"),
        (Inputs(["a", "b"], rolling=True, batch=2), "takes app_release_batch (2) hosts out at a time, and group app has 2"),
        (Inputs(["a", "b"], batch=0), "app_release_batch must be 1 or more"),
        (Inputs(["a", "b"], rolling=True, canary_weight=5), "a rolling release has no canary"),
    ],
)
def test_inputs_that_cannot_work_together_are_named(inputs: Inputs, expected: str) -> None:
    assert expected in "; ".join(mistakes(inputs))
    assert bool(expected) == bool(mistakes(inputs))


@pytest.mark.parametrize(
    ("inputs", "workers", "expected"),
    [
        (Inputs(["a", "b"], gate_seconds=70), {}, 900 + 600 + 120 + 70 + 40),
        (Inputs(["a", "b"], gate_seconds=70, canary_weight=5, canary_seconds=3600), {}, 900 + 600 + 3600 + 120 + 70 + 40),
        (Inputs(["a", "b", "c"], gate_seconds=70, rolling=True, batch=2), {}, 900 + 600 + 2 * (120 + 70 + 40) + 40),
        (Inputs(["a"], lock_lifetime=60, canary_seconds=3600), {}, 60 + 600 + 120 + 40),
        # Workers stop before the new slot starts, once it serves, or both.
        (Inputs(["a"]), {"first": ["clock"]}, 900 + 600 + 120 + 2 * 40),
        (Inputs(["a"]), {"drained": ["mailer"]}, 900 + 600 + 120 + 2 * 40),
        (Inputs(["a", "b"], rolling=True), {"first": ["clock"], "drained": ["mailer"]}, 900 + 600 + 2 * (120 + 40) + 3 * 40),
    ],
)
def test_a_lock_stands_for_as_long_as_a_release_may_wait(inputs: Inputs, workers: dict[str, list[str]], expected: int) -> None:
    services = {"migrate_seconds": 600, "start_seconds": 120, "stop_seconds": 40, "first": [], "drained": [], **workers}
    assert lock_seconds(services, inputs) == expected


def test_the_hosts_that_had_moved_go_back_the_last_one_first() -> None:
    old, files = container("api", "blue", running=False), container("page", "blue", running=False)
    states = {name: {"containers": containers} for name, containers in {"a": {"x": old}, "b": {"x": old}, "c": {"x": files}}.items()}
    assert moved_hosts(states, "blue", ["page"]) == ["b", "a"]


def test_a_host_whose_worker_was_stopped_for_all_hosts_has_not_moved() -> None:
    """Workers that must be alone stop before the first turn: a release that ends then leaves all hosts serving, and none goes back."""
    web, worker = container("api", "blue", running=True), container("clock", "blue", running=False)
    untouched = {"web": web, "worker": worker}
    stopped = {"web": container("api", "blue", running=False), "worker": worker}
    assert moved_hosts({"a": {"containers": untouched}, "b": {"containers": untouched}}, "blue", ["page", "clock"]) == []
    assert moved_hosts({"a": {"containers": stopped}, "b": {"containers": untouched}}, "blue", ["page", "clock"]) == ["a"]


def test_hosts_take_their_turn_in_batches() -> None:
    """Each batch knows who has moved before it and who has not yet; the last may be smaller."""
    turns = batches(["a", "b", "c"], 2)
    assert turns == [{"hosts": ["a", "b"], "before": [], "after": ["c"]}, {"hosts": ["c"], "before": ["a", "b"], "after": []}]
    assert batches([], 1) == []


def test_a_slots_containers_are_known_by_their_service():
    def container(service: str, slot: str = "blue", running: bool = True) -> dict[str, Any]:
        return {"owner": f"app-{slot}", "labels": {"slipway.service": f"{service}-{slot}-1"}, "running": running}

    containers = {"a": container("api"), "b": container("api-v2"), "c": container("page", running=False), "d": container("api", "green")}
    assert slot_containers(containers, "blue") == ["a", "b", "c"]
    assert slot_containers(containers, "blue", ["api"]) == ["a"]
    assert slot_containers(containers, "blue", []) == []
    assert slot_containers(containers, "blue", except_services=["api"]) == ["b", "c"]
    assert slot_containers(containers, "blue", running=False) == ["c"]


def test_a_slot_takes_what_its_containers_take():
    def container(owner: str, megabytes: float) -> dict[str, Any]:
        return {"owner": owner, "memory_used": int(megabytes * 2**20)}

    containers = {
        "a": container("app-blue", 300),
        "b": container("app-blue", 99.5),
        "c": container("app-green", 900),
        "d": container("", 9),
    }
    assert slot_memory(containers, "blue") == 400
    assert slot_memory({"a": container("app-blue", 20)}, "blue") == slot_memory({}, "blue") == 256
