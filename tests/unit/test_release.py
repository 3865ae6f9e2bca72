# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release decides from the fleet's records, and how its lock keeps two runs apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ansible_collections.slipway.stack.plugins.action import release_plan
from ansible_collections.slipway.stack.plugins.filter.firewall import firewall_rules
from ansible_collections.slipway.stack.plugins.module_utils.containers import SLOTS
from ansible_collections.slipway.stack.plugins.plugin_utils import release, release_decision
from ansible_collections.slipway.stack.plugins.plugin_utils.release import ReleaseError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "/etc/slipway/slipway/release"
FIRST = release.next_record(None, "blue", "1.0", "1.0", 3)


def state(**files: Any) -> dict[str, Any]:
    """Return what a host reports that holds these files in the folder of releases."""
    return {"files": {f"{FOLDER}/{name}.json": {"content": json.dumps(content)} for name, content in files.items()}}


def test_the_newest_record_of_any_host_counts():
    older, newer = FIRST, release.next_record(FIRST, "green", "1.1", "1.1", 3)
    assert release.fleet_record({"a": state(state=older), "b": state(state=newer), "new": state()}, FOLDER) == newer
    assert release.fleet_record({"new": state()}, FOLDER) is None


@pytest.mark.parametrize(
    "described",
    [
        {"content": "{"},
        {"content": ""},
        {"content": '{"a": ****}'},
        {"content": "[]"},
        {"content": '{"serial": "x"}'},
        {"content": '{"run": 1, "holder": "ann"}'},
        {},
    ],
)
def test_a_damaged_record_or_lock_is_not_taken_for_none(described: dict[str, Any]):
    """A fleet without a record is one that was never released, and one without a lock is free."""
    well = state(state=FIRST, lock={"run": "1"})
    for name, read, remedy in (("state", release.fleet_record, "Copy it"), ("lock", release.fleet_lock, "If no run is in progress")):
        files = {f"{FOLDER}/{name}.json": described}
        with pytest.raises(
            release.ReleaseError, match=rf"release/{name}\.json on two is damaged: it is not what a release writes\. {remedy}"
        ):
            read({"one": state(), "two": {"files": files}}, FOLDER)
    # A backup goes on without knowing the version.
    states = {"one": {**well, "containers": {}}, "two": {"files": {f"{FOLDER}/state.json": described}, "containers": {}}}
    assert release.images_that_run(states, FOLDER)["version"] == ""


def test_a_record_remembers_where_it_came_from_and_what_goes():
    record = FIRST
    for number, version in enumerate(["1.1", "1.2", "1.3", "1.4"]):
        record = release.next_record(record, SLOTS[(number + 1) % 2], version, version, 2)
    assert record["serial"] == 5
    assert record["previous"] == {"slot": "green", "version": "1.3"}
    assert record["history"] == ["1.4", "1.3", "1.2"]
    assert record["retired"] == ["1.1"]
    # The slot before has held the images of the last one, which were retired in vain.
    for number, version in enumerate(["1.5", "1.6"]):
        record = release.next_record(record, SLOTS[number % 2], version, version, 0)
    assert (record["history"], record["retired"]) == (["1.6"], ["1.5", "1.4"])


def test_a_record_says_which_hosts_hold_data():
    before = release.next_record(None, "blue", "1.0", "1.0", 3, {"postgres": ["db1"]})
    assert before["data"] == {"postgres": ["db1"]}
    assert release.next_record(before, "blue", "1.0", "1.0", 3, {"postgres": ["db2"]})["data"] == {"postgres": ["db2"]}
    # A playbook that does not say it leaves it as it is, and a record of an older version has none.
    assert release.next_record(before, "green", "1.1", "1.1", 3)["data"] == {"postgres": ["db1"]}
    assert FIRST["data"] is None


def test_a_record_says_in_which_volumes_there_was_something():
    data = {"redis": ["db1"], "uploads": ["app1", "app2", "app3"]}
    states = {
        "app1": {"volumes": {"uploads": {"empty": False}}},
        "app2": {"volumes": {"uploads": {"empty": True}}},
        # Of a driver that keeps it where the host cannot read it.
        "app3": {"volumes": {"uploads": {"empty": None}}},
    }
    assert release.filled_volumes(data, states, None) == {"uploads": ["app1", "app3"]}
    before = release.next_record(None, "blue", "1.0", "1.0", 3, data, {"uploads": ["app1", "app2"]})
    # Not read, and gone.
    assert release.filled_volumes(data, {"app1": {"volumes": {}}}, before) == {"uploads": ["app2"]}
    # It is noted with what is recorded anyway, and changes no host by itself.
    assert release_decision.is_recorded({"record": before, "kept_record": release.next_record(before, "blue", "1.0", "1.0", 3, data, {})})
    assert release.next_record(before, "green", "1.1", "1.1", 3)["filled"] == before["filled"]


def test_a_version_that_was_released_again_is_not_the_one_before():
    record = release.next_record(FIRST, "green", "1.1", "1.1", 3)
    for slot in ("blue", "green"):
        record = release.next_record(record, slot, "1.1", "1.1", 3)
    assert record["previous"] == {"slot": "blue", "version": "1.1"}
    assert release.version_before(record) == release.wanted_version(record, "1.1", explicit=False, rollback=True) == "1.0"
    again = release.next_record(FIRST, "green", "1.0", "1.0", 3)
    with pytest.raises(ReleaseError, match="no previous version to roll back to"):
        release.wanted_version(again, "1.0", explicit=False, rollback=True)


@pytest.mark.parametrize(
    ("record", "declared", "explicit", "rollback", "expected"),
    [
        (None, "1.0", False, False, "1.0"),
        (FIRST, "1.0", False, False, "1.0"),
        (FIRST, "2.0", False, False, "2.0"),
        (FIRST, "1.5", True, False, "1.5"),
        # What deploy.yml -e brought stays until the inventory's version changes.
        ({**FIRST, "version": "1.5"}, "1.0", False, False, "1.5"),
        ({**FIRST, "version": "1.5"}, "2.0", False, False, "2.0"),
        ({**FIRST, "version": "1.5", "declared": ""}, "1.0", False, False, "1.5"),
        ({**FIRST, "previous": {"slot": "green", "version": "0.9"}}, "1.0", False, True, "0.9"),
        ({**FIRST, "previous": {"slot": "green", "version": "0.9"}}, "0.8", True, True, "0.8"),
    ],
)
def test_which_version_is_wanted(record: Any, declared: str, explicit: bool, rollback: bool, expected: str):
    assert release.wanted_version(record, declared, explicit=explicit, rollback=rollback) == expected


@pytest.mark.parametrize(
    ("step", "was_rollback", "explicit", "expected"),
    [
        # A deploy that died: undoing it is what was asked for.
        ("prepare", False, False, "1.0"),
        ("switch", False, False, "1.0"),
        # A rollback that died: the same command again ends it.
        ("switch", True, False, "0.9"),
        # Committed, so it stands: the record is already that of the new version.
        ("commit", False, False, "0.9"),
        ("switch", False, True, "0.8"),
    ],
)
def test_what_a_rollback_after_an_interrupted_release_goes_back_to(step: str, was_rollback: bool, explicit: bool, expected: str):
    record = {**FIRST, "previous": {"slot": "green", "version": "0.9"}}
    lock = {"run": "x", "step": step, "journal": {"to": {"slot": "green", "version": "1.1"}, "record": record, "rollback": was_rollback}}
    declared = "0.8" if explicit else "1.0"
    assert release.wanted_version(record, declared, lock, explicit=explicit, rollback=True) == expected


def test_the_rollback_is_to_the_configuration_before_the_interrupted_release():
    states = {"lb1": {"files": {"/x/nginx/config/current": {"link": "after"}}}, "app1": {"files": {}}}
    assert release.revisions_before(states, "/x/nginx", None) == {"lb1": "after"}
    lock = {"run": "x", "step": "switch", "journal": {"to": {"slot": "green"}, "revisions": {"lb1": "before"}}}
    assert release.revisions_before(states, "/x/nginx", lock) == {"lb1": "before"}
    assert release.revisions_before(states, "/x/nginx", {**lock, "step": "commit"}) == {"lb1": "after"}


@pytest.mark.parametrize("record", [None, FIRST])
def test_there_is_nothing_to_go_back_to(record: Any):
    with pytest.raises(ReleaseError, match="no previous version to roll back to"):
        release.wanted_version(record, "1.0", explicit=False, rollback=True)


def test_a_slot_is_known_by_the_containers_that_run():
    def container(service: str, slot: str, running: bool) -> dict[str, Any]:
        return {"owner": f"app-{slot}", "labels": {"slipway.service": service}, "running": running, "image_id": f"sha256:{service}"}

    containers = {
        "a": container("backend-blue-1", "blue", True),
        "b": container("frontend-blue-1", "blue", True),
        "c": container("backend-green-1", "green", False),
    }
    found = release.serving_images({"app1": {"containers": containers}, "lb1": {"containers": {}}}, "blue")
    assert found == {"app1": {"backend": "sha256:backend-blue-1", "frontend": "sha256:frontend-blue-1"}}
    assert release.serving_images({"app1": {"containers": containers}}, "green") == {}


def test_a_recovery_point_keeps_what_serves():
    def container(owner: str, service: str, image: str, running: bool = True) -> dict[str, Any]:
        return {"owner": owner, "labels": {"slipway.service": service}, "running": running, "image": image, "image_id": f"id of {image}"}

    app = {
        "a": container("app-blue", "backend-blue-1", "desk/backend:1.1.0"),
        "b": container("app-green", "backend-green-1", "desk/backend:1.0.0"),
        "c": container("app-migrate", "migrate", "desk/backend:0.9.0"),
        "d": container("backup-drill", "drill-redis", "redis:6"),
        "e": container("nginx", "nginx", "nginx:1", running=False),
        "f": container("app-blue", "prune-blue-1", "desk/backend:1.1.0", running=False),
        "g": container("extra_services", "mail-relay", "relay:3"),
        "h": container("extra_services", "cache", "redis:6"),
    }
    app["f"]["labels"]["slipway.job"] = "prune"
    images = {"redis:7": {"id": "id of redis:7", "digests": ["redis@sha256:7"]}, "chroma:1": {"id": "of a newer one", "digests": ["x"]}}
    stores = {"redis": container("redis", "redis", "redis:7"), "chroma": container("chroma", "chroma", "chroma:1")}
    record = json.dumps({"serial": 2, "slot": "blue", "version": "1.1.0"})
    states = {
        "app1": {"containers": app, "images": {}, "files": {"/x/release/state.json": {"content": record}}},
        "data1": {"containers": stores, "images": images, "files": {}},
    }
    assert release.images_that_run(states, "/x/release") == {
        "version": "1.1.0",
        "image_digests": {
            "backend": "id of desk/backend:1.1.0",
            "cache": "id of redis:6",
            "chroma": "id of chroma:1",
            "mail-relay": "id of relay:3",
            "prune": "id of desk/backend:1.1.0",
            "redis": "redis@sha256:7",
        },
    }
    assert release.images_that_run({}, "/x/release") == {"version": "", "image_digests": {}}


def test_a_rollback_knows_what_was_kept():
    def backend(slot: str, version: str, number: int = 1) -> dict[str, Any]:
        labels = {"slipway.service": f"backend-{slot}-{number}", "slipway.version": version}
        return {"owner": f"app-{slot}", "labels": labels, "running": False}

    frontend = {**backend("green", "1.0"), "labels": {"slipway.service": "frontend-green-1", "slipway.version": "1.0"}}
    states = {
        "a": {"containers": {"one": backend("green", "1.0"), "two": backend("green", "1.0", 2), "three": backend("blue", "1.1")}},
        "b": {"containers": {"one": backend("green", "0.9"), "two": frontend}},
        "balancer": {"files": {}},
    }
    assert release.kept_hosts(states, "green", "1.0", None, ["backend"]) == ["a"]
    assert release.kept_hosts(states, "green", "1.2", None, ["backend"]) == []
    # What a release that died half-way made in its slot was not kept, and goes when it is undone.
    made = {"step": "switch", "journal": {"to": {"slot": "green", "version": "1.0"}, "kept": ["b"]}}
    assert release.kept_hosts(states, "green", "1.0", made, ["backend"]) == ["b"]
    # Nothing of another version is there, which it has replaced.
    assert release.kept_hosts(states, "green", "0.9", made, ["backend"]) == []
    assert release.kept_hosts(states, "blue", "1.0", made, ["backend"]) == []


@pytest.mark.parametrize(("step", "expected"), [("prepare", "undo"), ("switch", "undo"), ("commit", "finish")])
def test_an_interrupted_release_is_undone_until_it_is_committed(step: str, expected: str):
    after = release.next_record(FIRST, "green", "1.1", "1.1", 3)
    lock = {"run": "x", "step": step, "journal": {"from": {}, "to": {"slot": "green", "version": "1.1"}, "record": after}}
    assert release.recovery(lock) == expected
    assert release.after_recovery(FIRST, lock) == (after if expected == "finish" else FIRST)
    assert release.recovery({"run": "x", "step": "in place", "journal": {}}) == ""
    assert release.recovery(None) == ""


@pytest.mark.parametrize(("weight", "live", "canary"), [(5, 2, 2), (10, 4, 4), (50, 1, 3)])
def test_a_canary_gets_its_share(weight: int, live: int, canary: int):
    live_weight, canary_weight = release.canary_weights(weight, live, canary)
    share = canary_weight * canary / (canary_weight * canary + live_weight * live)
    assert share == pytest.approx(weight / 100)


def lock_module(tmp_path: Path, **options: Any) -> dict[str, Any]:
    """Run the module release_lock as Ansible does, and return its answer."""
    arguments = {"ANSIBLE_MODULE_ARGS": {"path": str(tmp_path / "lock.json"), **options}}
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from ansible.module_utils import basic;"
        "basic._ANSIBLE_ARGS = sys.argv[2].encode(); basic._ANSIBLE_PROFILE = 'legacy';"
        "from ansible_collections.slipway.stack.plugins.modules import release_lock; release_lock.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "collections"), json.dumps(arguments)], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("held_on", "reached", "expected"),
    [
        ("", [*(f"app{number}" for number in reversed(range(20))), "lb"], "app0"),
        ("", ["app7", "app3", "lb"], "app3"),
        ("", ["lb"], "app0"),
        ("app5", ["app7", "app3", "lb"], "app5"),
    ],
)
def test_two_runs_take_the_lock_on_one_host(held_on: str, reached: list[str], expected: str) -> None:
    assert release.lock_host(held_on, [f"app{number}" for number in range(20)], reached) == expected


def test_a_lock_keeps_a_second_run_out_and_says_who_holds_it(tmp_path: Path):
    holder = {"user": "ada", "controller": "ci-7", "pid": 4711}
    assert lock_module(tmp_path, run="a", holder=holder, step="prepare")["changed"]
    refused = lock_module(tmp_path, run="b")
    assert refused["failed"]
    for part in ("ada", "ci-7", "4711", "prepare", "release_lock_takeover=true"):
        assert part in refused["msg"]
    # A step that is noted keeps who holds it, and another's lock is not given back.
    noted = lock_module(tmp_path, run="a", step="switch")["lock"]
    assert noted["holder"] == holder
    assert not lock_module(tmp_path, run="b", state="absent")["changed"]
    assert lock_module(tmp_path, run="a", state="absent")["changed"]
    assert not lock_module(tmp_path, run="b").get("failed")


def test_a_lock_that_went_with_its_stack_leaves_no_folder_behind(tmp_path: Path):
    assert not lock_module(tmp_path / "gone", run="a", state="absent")["changed"]
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("how", [{"stale": "a"}, {"takeover": True}])
def test_a_lock_whose_holder_is_gone_is_taken(tmp_path: Path, how: dict[str, Any]):
    lock_module(tmp_path, run="a", step="prepare")
    assert lock_module(tmp_path, run="b", **how)["lock"]["run"] == "b"


class Hosts(dict[str, dict[str, Any]]):
    """Ansible's hostvars, as far as a plan reads them."""

    raw_get = dict.__getitem__


def plan_of(state: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return what the action release_plan says of a host in this state."""
    args = {"app_hosts": ["a"], "balancers": [], "folder": FOLDER, "version": "1.0", **options}
    task = SimpleNamespace(args=args, check_mode=False, async_val=0, environment=None, diff=False)
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/none"))
    action = release_plan.ActionModule(cast("Any", task), cast("Any", connection), *[cast("Any", None)] * 4)
    hosts = Hosts(a={"container_service_host_state": state})
    return dict(action.run(task_vars={"hostvars": hosts, "ansible_play_hosts_all": ["a"]}))


@pytest.mark.parametrize(
    ("lock", "asks", "refused"),
    [
        ({"lifetime": 900}, {}, True),
        # It is of a run of this machine that is gone; its time is over; or it is to be taken all the same.
        ({"lifetime": 900, "holder": {"boot_id": release_plan.boot_id(), "pid": 0}}, {}, False),
        ({"lifetime": 900, "holder": {"boot_id": release_plan.boot_id(), "pid": os.getpid()}}, {}, True),
        ({"lifetime": -60}, {}, False),
        ({"lifetime": 900}, {"takeover": True}, False),
    ],
)
def test_a_plan_says_of_a_lock_what_the_host_will(tmp_path: Path, lock: dict[str, Any], asks: dict[str, Any], refused: bool):
    journal = {"from": {"slot": "blue", "version": "1.0"}, "to": {"slot": "green", "version": "1.1"}}
    taken = lock_module(tmp_path, run="a", step="switch", journal=journal, **lock)["lock"]
    plan = plan_of({**state(state=FIRST, lock=taken), "host": {"time_s": int(time.time())}}, **asks)
    assert (plan["locked_on"], plan["held_until"]) == ("a", taken["expires_at"] if refused else "")
    assert ("another run holds" in release_decision.lock_reason(plan)) is refused
    assert lock_module(tmp_path, run="b", stale=plan["stale"], **asks).get("refused", False) is refused


def test_a_fleet_that_no_run_has_locked_says_nothing_of_it():
    plan = plan_of(state(state=FIRST))
    assert (plan["locked_on"], plan["held_until"], plan["recover"], release_decision.lock_reason(plan)) == ("", "", "", "")


def test_another_playbook_waits_for_the_release_lock(tmp_path: Path):
    """With who holds the lock and what to do."""
    lock_module(tmp_path, run="a", holder={"user": "ada", "controller": "ci-7", "pid": 4711}, step="switch")
    refused = lock_module(tmp_path, run="m", purpose="maintenance.yml")
    assert refused["failed"]
    for part in ("A release is in progress", "ada on ci-7 (process 4711)", "step switch", "release_lock_takeover=true"):
        assert part in refused["msg"]
    assert json.loads((tmp_path / "lock.json").read_text())["run"] == "a"


def test_a_release_is_kept_out_by_a_playbook_that_changes_the_fleet(tmp_path: Path):
    lock_module(tmp_path, run="m", purpose="maintenance.yml")
    assert "maintenance.yml is in progress" in lock_module(tmp_path, run="a")["msg"]
    lock_module(tmp_path, run="m", state="absent")
    assert not lock_module(tmp_path, run="a").get("failed")


@pytest.mark.parametrize("died", [False, True])
def test_what_an_interrupted_release_has_left_is_kept_for_the_next(tmp_path: Path, died: bool):
    """Whether the playbook that held the lock meanwhile ends or dies: a release finds the journal and the step."""
    journal = {"from": {"slot": "blue"}, "to": {"slot": "green"}}
    lock_module(tmp_path, run="a", step="commit", journal=journal)
    lock_module(tmp_path, run="m", purpose="maintenance.yml", stale="a")
    if died:
        # And another one comes before a release does.
        lock_module(tmp_path, run="n", purpose="destroy.yml", stale="m")
        lock_module(tmp_path, run="n", state="absent")
    else:
        assert release.recovery(json.loads((tmp_path / "lock.json").read_text())) == "finish"
        lock_module(tmp_path, run="m", state="absent")
    left = json.loads((tmp_path / "lock.json").read_text())
    assert (left["run"], left["step"], left["journal"]) == ("a", "commit", journal)
    assert release.recovery(left) == "finish"


def test_a_run_whose_plan_is_out_of_date_gets_no_lock(tmp_path: Path):
    """Another run has released since it read the hosts, and has given the lock back."""
    (tmp_path / "state.json").write_text(json.dumps({"serial": 6, "version": "2"}))
    for found in (lock_module(tmp_path, run="a", serial=5), lock_module(tmp_path, run="a", serial=5, takeover=True)):
        assert found["refused"]
        assert "Another run has released version 2 since this one read the hosts" in found["msg"]
    assert not (tmp_path / "lock.json").exists()
    assert lock_module(tmp_path, run="b", serial=6)["changed"]
    # What it records itself does not refuse it its further steps.
    (tmp_path / "state.json").write_text(json.dumps({"serial": 7, "version": "3"}))
    assert lock_module(tmp_path, run="b", serial=6, step="commit")["lock"]["step"] == "commit"
    assert lock_module(tmp_path, run="c", serial=7)["refused"]
    assert lock_module(tmp_path, run="b", state="absent")["changed"]
    assert lock_module(tmp_path, run="m", purpose="maintenance.yml")["changed"]


@pytest.mark.parametrize("purpose", ["", "maintenance.yml"])
def test_no_run_gets_the_lock_while_a_restore_exchanges_data(tmp_path: Path, purpose: str) -> None:
    """One that has read the hosts before the restore began, and waited for its lock, would start what writes to the data."""
    mark = tmp_path / "under_way.json"
    wanted = {"run": "a", "purpose": purpose, "restore_mark": str(mark)}
    assert lock_module(tmp_path, **wanted)["changed"]
    mark.touch()
    # What it holds was not given to a restore.
    assert lock_module(tmp_path, **wanted)["changed"]
    lock_module(tmp_path, run="a", state="absent")
    for found in (lock_module(tmp_path, **wanted), lock_module(tmp_path, **wanted, takeover=True)):
        assert found["refused"]
        assert "A restore has begun and not ended: wait until it ends. If it was interrupted, run it again with" in found["msg"]
    # The restore itself.
    assert lock_module(tmp_path, run="r", purpose="restore.yml")["changed"]


def test_a_lock_is_renewed_by_the_run_that_has_it(tmp_path: Path) -> None:
    journal = {"from": {"slot": "blue"}, "to": {"slot": "green"}}
    lock_module(tmp_path, run="a", step="commit", journal=journal)
    held = lock_module(tmp_path, run="m", purpose="site.yml", stale="a", lifetime=1)["lock"]
    time.sleep(1.1)
    renewed = lock_module(tmp_path, run="m", purpose="site.yml", state="renewed", lifetime=60)["lock"]
    assert renewed["expires"] > held["expires"] + 50
    assert {**renewed, "expires": 0, "expires_at": ""} == {**held, "expires": 0, "expires_at": ""}


@pytest.mark.parametrize("ended", [False, True])
def test_a_lock_that_was_lost_is_not_renewed(tmp_path: Path, ended: bool) -> None:
    """Nor if the run that has taken it over, and has changed the fleet, has ended."""
    lock_module(tmp_path, run="m", purpose="site.yml", lifetime=-1)
    lock_module(tmp_path, run="b", holder={"user": "ada"})
    if ended:
        lock_module(tmp_path, run="b", state="absent")
    refused = lock_module(tmp_path, run="m", purpose="site.yml", state="renewed")
    assert refused["refused"]
    assert "The lock of this run had expired or was taken over, and another run has changed the fleet" in refused["msg"]
    assert ("ada" in refused["msg"], "The other run has ended: run this again" in refused["msg"]) == (not ended, ended)


def test_a_lock_expires(tmp_path: Path):
    lock_module(tmp_path, run="a", lifetime=1)
    time.sleep(1.1)
    assert lock_module(tmp_path, run="b")["lock"]["run"] == "b"


def test_a_run_that_could_not_undo_all_leaves_a_lock_that_the_next_takes_from_anywhere(tmp_path: Path):
    """Its message asks for the next run, which need not be on the same machine: a CI job has one of its own."""
    lock_module(tmp_path, run="a", lifetime=4000, step="prepare", journal={"from": {"slot": "blue"}, "to": {"slot": "green"}})
    lock_module(tmp_path, run="a", lifetime=0, step="switch")
    # A playbook that is not a release keeps it for one.
    assert lock_module(tmp_path, run="m", purpose="maintenance.yml")["changed"]
    lock_module(tmp_path, run="m", state="absent")
    assert release.recovery(json.loads((tmp_path / "lock.json").read_text())) == "undo"
    assert lock_module(tmp_path, run="b", step="switch")["lock"]["run"] == "b"


def test_ports_are_limited_to_their_peers():
    rules = firewall_rules([{"address": "10.0.0.1", "port": 8000, "peers": ["10.0.0.9"]}], "SLIPWAY-shop")
    match = "-p tcp -m conntrack --ctorigdst 10.0.0.1 --ctorigdstport 8000 --ctdir ORIGINAL"
    assert rules == [f"-A SLIPWAY-shop -s 10.0.0.9/32 {match} -j RETURN", f"-A SLIPWAY-shop {match} -j REJECT --reject-with tcp-reset"]
