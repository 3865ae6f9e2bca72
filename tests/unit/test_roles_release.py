# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release asks of a product that lacks something, and what it does without its prober."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader

from ansible_collections.slipway.stack.plugins.module_utils.containers import CPU_SHARES, YIELDING_CPU_SHARES
from ansible_collections.slipway.stack.plugins.plugin_utils.app_services import public_paths, summary
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import names_used
from ansible_collections.slipway.stack.plugins.plugin_utils.release_decision import Host, Inputs, missing_images
from conftest import ROOT, role_file, role_task, role_variables

PATHS = {"versions": [{"path": "/api/version", "field": "version"}], "websockets": [], "page": "/"}
PLAN = {"run": "r", "live": {"slot": "blue", "version": "1.0"}, "idle": {"slot": "green", "version": "1.1"}, "kept": [], "paths": PATHS}
GATE = "gate | main | Wait until the new slot is healthy, and its services report ready and the requested version"
THROUGH = "probe | main | Check the version through every balancer"
RECORD = {"serial": 1, "slot": "blue", "version": "1.0"}
HOSTS = {"release_app_hosts": ["one", "two"], "release_balancer_hosts": ["lb"]}
API = {
    "image": "shop/api:1.1", "port": 8000, "replicas": 2, "routes": [{"path": "/"}], "ready_path": "/ready", "version_path": "/api/version",
}  # fmt: skip
PRODUCT = {
    "app_version": "1.1",
    "release_services": {"app_services": {"api": API, "mailer": {"image": "shop/api:1.1"}}},
    "release_plan": PLAN,
    **HOSTS,
}


def test_variables_of_the_role_are_constants() -> None:
    """What changes while a run goes on is a registered result or a fact with a name of its own."""
    assert names_used(role_file("release", "vars")) <= {"release_stack"}


def runs(file: str, name: str, **inputs: Any) -> bool:
    """Return whether a task of the role runs, a member of a block too."""
    tasks = DataLoader().load_from_file(str(ROOT / "roles/release/tasks" / file), trusted_as_template=True)
    tasks += [task for block in tasks for part in ("block", "always") for task in block.get(part, ())]
    (found,) = [task for task in tasks if task["name"] == name]
    conditions = found["when"] if isinstance(found["when"], list) else [found["when"]]
    templar, _ = role_variables("release", {**(found.get("vars") or {}), **PRODUCT, **inputs})
    return all(templar.evaluate_conditional(condition) for condition in conditions)


@pytest.mark.parametrize(
    ("mode", "check", "shown"),
    [
        ("blue_green", True, True),
        ("rolling", True, True),
        ("blue_green", False, False),
        ("in_place", True, False),
        ("nothing", True, False),
    ],
)
def test_a_dry_run_says_that_it_would_release(mode: str, check: bool, shown: bool) -> None:
    name = "Show the release of version {{ release_plan.version }}"
    assert runs("main.yml", name, release_decision={"mode": mode}, ansible_check_mode=check) is shown


def asked(file: str, name: str, **inputs: Any) -> dict[str, Any]:
    """Return what http_answers is given by a task, when two containers are to become healthy."""
    needed = [{"container": f"slipway-api-green-{number}", "healthy_timeout": 90, "wait": True} for number in (1, 2)]
    plan = {"container_service_plan": {"needed": [*needed, {"container": "slipway-x", "healthy_timeout": 1, "wait": False}]}}
    decided = {"release_decision": {"hosts": {"one": {"ready": False, "awaited": {}}}}}
    known = {**PRODUCT, **plan, **decided, **inputs}
    seen = role_task("release", "start/slot.yml", "start | slot | Record what the gate waits for", "ansible.builtin.set_fact", known)
    checked = {"release_decision": {"hosts": {"one": {"checked": summary(PRODUCT["release_services"], "slipway", "green")["checked"]}}}}
    return dict(role_task("release", file, name, "slipway.stack.http_answers", {**known, **seen, **checked}))


def test_the_gate_asks_each_container_for_its_readiness_and_its_version() -> None:
    given = asked("gate/main.yml", GATE)
    asking = {"port": 8000, "path": "/ready", "version_path": "/api/version", "version_field": "version"}
    assert [given["containers"][f"slipway-api-green-{number}"] for number in (1, 2)] == [asking, asking]
    assert given["containers"]["slipway-mailer-green-1"]["port"] == 0
    assert given["healthy"] == {"slipway-api-green-1": 90, "slipway-api-green-2": 90}
    assert (given["version"], given["host_header"]) == ("1.1", "")


def test_the_gate_waits_for_a_kept_slot_whatever_was_compared_after_it() -> None:
    """On a host that balances too, the plan at hand is the balancer's by then."""
    given = asked("gate/main.yml", GATE, release_decision={"hosts": {"one": {"ready": True, "awaited": {"slipway-kept-1": 70}}}})
    assert given["healthy"] == {"slipway-kept-1": 70}


def test_the_gate_sends_the_name_of_the_site() -> None:
    assert asked("gate/main.yml", GATE, slipway_site_name="www.example.com")["host_header"] == "www.example.com"
    through = asked("probe/main.yml", THROUGH, slipway_site_name="www.example.com", item={"path": "/api/version", "field": "version"})
    assert (through["host_header"], through["path"]) == ("www.example.com", "/api/version")


@pytest.mark.parametrize("hosts", [{}, {"one": ["a"]}, {"one": [], "two": ["b", "c"]}])
def test_what_reports_no_version_to_the_gate_is_not_asked_for_it_through_the_balancers(hosts: dict[str, list[str]]) -> None:
    seen = {host: {"__release_gate": {"unreported": names, "restarts": {}}} for host, names in hosts.items()}
    inputs = {**PRODUCT, "hostvars": {"one": {}, "two": {}, **seen}, "ansible_play_hosts_all": ["one", "two", "lb"]}
    assert role_task("release", "probe/main.yml", THROUGH, "vars", inputs)["__release_unreported"] == [
        name for names in hosts.values() for name in names
    ]


@pytest.mark.parametrize(
    ("keys", "probed"), [({}, "/api/version"), ({"version_path": ""}, "/"), ({"version_path": "", "routes": [{"path": "/api/"}]}, "/api/")]
)
def test_the_prober_asks_for_the_version_or_for_a_page(keys: dict[str, Any], probed: str) -> None:
    """A prober without a path does not start, and a product need not report its version."""
    paths = public_paths({"app_services": {"api": {**API, **keys}}})
    inputs = {**PRODUCT, "release_plan": {**PLAN, "paths": paths}, "release_decision": {"only_resumes": False}}
    name = "preflight | prober | Start to count failed requests"
    given = role_task("release", "preflight/prober.yml", name, "slipway.stack.release_probe", inputs)
    assert (given["path"], given["websockets"]) == (probed, 0)


@pytest.mark.parametrize(("probing", "waits"), [(True, 4), (False, 6)])
def test_the_last_requests_of_the_old_slot_are_waited_for_with_and_without_a_prober(probing: bool, waits: int) -> None:
    """What the prober has watched since the switch is a part of it."""
    inputs = {**PRODUCT, "__release_probing": probing}
    given = role_task("release", "retire/main.yml", "retire | main | Wait for in-flight requests of the old slot", "vars", inputs)
    assert int(given["__release_wait_seconds"]) == waits


def judged(file: str, **inputs: Any) -> dict[str, Any]:
    """Return what a step concludes from the prober's first requests."""
    name = f"{file.removesuffix('.yml').replace('/', ' | ')} | Record whether failed requests are counted"
    return dict(role_task("release", file, name, "ansible.builtin.set_fact", {**PRODUCT, **inputs}))


@pytest.mark.parametrize(
    ("reasons", "only_resumes", "refused"),
    [
        ([], False, False),
        # What serves is broken, and a release may repair it.
        (["status 502", "status 503"], False, False),
        (["[Errno 111] Connection refused"], False, True),
        (["status 502", "no answer within 2 s"], False, True),
        # Where it goes on without being started, nothing was asked yet.
        ([], True, False),
    ],
)
def test_a_release_that_cannot_be_measured_is_refused(reasons: list[str], only_resumes: bool, refused: bool) -> None:
    probe = {"state_file": "/x", "probe": {"failed": len(reasons), "failures": [{"reason": reason} for reason in reasons]}}
    found = judged("preflight/prober.yml", __release_probe=probe)
    assert found["__release_probing"] is not bool(reasons)
    name = "preflight | prober | Refuse a release whose failed requests cannot be counted"
    assert runs("preflight/prober.yml", name, **found, release_decision={"only_resumes": only_resumes}) is refused


@pytest.mark.parametrize("probe", [{"skipped": True}, {"state_file": "/x", "probe": {}}])
def test_the_prober_of_a_quick_rollback_is_judged_by_what_it_knows_at_the_switch(probe: dict[str, Any]) -> None:
    assert judged("preflight/prober.yml", __release_probe=probe) == {
        "__release_probing": "state_file" in probe,
        "__release_probe_reasons": [],
    }
    for failed in (0, 2):
        assert judged("switch/main.yml", __release_switched={"probe": {"failed": failed}})["__release_probing"] is (failed == 0)


@pytest.mark.parametrize(("wanted", "rollback"), [(False, False), (True, True), (True, False)])
def test_a_release_does_without_a_prober(checkout: Path, play: Any, wanted: bool, rollback: bool) -> None:
    """It is not started where it is not wanted. Where it reaches no balancer, as here, a release is refused, and a rollback goes on."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        target = {"address": "127.0.0.1", "port": closed.getsockname()[1], "server_name": "localhost"}
        included = {"name": "slipway.stack.release", "rolespec_validate": False, "public": True}
        told = "{{ {'probing': __release_probing, 'state_file': __release_probe.state_file | default('')} | to_json }}"
        tasks = [
            {"name": "Start the prober", "ansible.builtin.include_role": {**included, "tasks_from": "preflight/prober.yml"}},
            {
                "name": "Watch",
                "ansible.builtin.include_role": {**included, "tasks_from": "probe/watch.yml"},
                "vars": {"__release_watch_seconds": 2},
            },
            {"name": "Say all", "run_once": True, "ansible.builtin.copy": {"content": told, "dest": f"{checkout}/answers", "mode": "0600"}},
        ]
        variables = {
            **PRODUCT,
            "release_decision": {"only_resumes": False},
            "release_probe": wanted,
            "release_probe_targets": [target],
            "release_rollback": rollback,
        }
        play_of = {"name": "Play", "hosts": "all", "gather_facts": False, "vars": variables, "tasks": tasks}
        (checkout / "playbooks/release.yml").write_text(json.dumps([play_of]))
        run = play("release")
    if wanted and not rollback:
        assert run.returncode == 2
        assert "cannot reach the balancers, so failed requests would not be counted: connection refused" in " ".join(run.stdout.split())
        return
    assert run.returncode == 0, run.stdout + run.stderr
    said = json.loads((checkout / "answers").read_text())
    assert not said["probing"]
    assert bool(said["state_file"]) == wanted
    assert not wanted or not Path(said["state_file"]).parent.exists()
    # A canary's time is waited for all the same.
    spent = {task["task"]: task["seconds"] for task in json.loads((checkout / "reports/release-latest.json").read_text())["slowest_tasks"]}
    assert spent["probe | watch | Wait, in seconds 2"] >= 2


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"images": {}, "missing_images": {"desk/backend:1.9": "denied", "desk/frontend:1.9": "denied"}}, "(recorded versions: 1.0, 1.1)"),
        # A registry has them.
        ({"images": {}, "missing_images": {"desk/backend:1.9": "", "desk/frontend:1.9": ""}}, ""),
        ({"images": {"desk/backend:1.9": {"id": "a"}, "desk/frontend:1.9": {"id": "b"}}}, ""),
    ],
)
def test_a_version_that_is_not_available_is_refused(checkout: Path, play: Any, state: dict[str, Any], said: str) -> None:
    variables = {
        "app_version": "1.1",
        "release_services": {
            "app_services": {name: {"image": f"desk/{name}:{{{{ app_version }}}}"} for name in ("backend", "frontend")},
            "app_defaults": {"hosts": "stores"},
        },
        "release_digests": {"1.0": {}, "1.1": {}}, **HOSTS,
        "container_service_host_state": state,
    }  # fmt: skip
    product = {"app_services": {name: {"image": f"desk/{name}:1.9"} for name in ("backend", "frontend")}}
    missing = missing_images(Host(state, product), {"version": "1.9"}, Inputs(HOSTS["release_app_hosts"]))
    variables["release_plan"] = {**PLAN, "version": "1.9", "images": dict.fromkeys(HOSTS["release_app_hosts"], missing)}
    included = {"name": "slipway.stack.release", "tasks_from": "preflight/available.yml", "rolespec_validate": False}
    tasks = [{"name": "Look for the images", "ansible.builtin.include_role": included}]
    play_of = {"name": "Play", "hosts": "all", "gather_facts": False, "vars": variables, "tasks": tasks}
    (checkout / "playbooks/release.yml").write_text(json.dumps([play_of]))
    run = play("release")
    told = " ".join(run.stdout.split())
    assert (run.returncode != 0) == bool(said), told
    if said:
        assert said in told
        assert "Nothing was touched. two: version 1.9 is not available: image desk/backend:1.9 (app_services.backend.image)" in told
        assert "build the version (make image VERSION=1.9)" in told


@pytest.mark.parametrize(
    ("took", "holds"),
    [
        ({}, False),
        ({"__release_lock": {"failed": True, "msg": "alice holds the lock"}}, False),
        ({"__release_lock": {"lock": {"run": "r"}}}, True),
    ],
    ids=["nothing to change", "refused", "taken"],
)
def test_a_change_in_place_releases_the_lock_that_it_took(took: dict[str, Any], holds: bool) -> None:
    assert runs("in_place.yml", "in_place | Release the lock", **took) is holds


def test_images_are_compared_by_name_on_the_hosts_that_run_them() -> None:
    """Services share an image, and a host that runs none of them may have another by the name."""

    def host(group: str, image_id: str) -> dict[str, Any]:
        return {"group_names": ["app", group], "container_service_host_state": {"images": {"shop/api:1": {"id": image_id}}}}

    inputs = {
        "release_services": {
            "app_services": {"api": {"hosts": "web"}, "mailer": {"hosts": "mail"}},
            "app_defaults": {"image": "docker.io/shop/api:1"},
        },
        "release_app_hosts": ["one", "two", "three"],
        "release_digests": {},
        "app_version": "1",
        "ansible_play_hosts": ["one", "two", "three"],
        "hostvars": {"one": host("web", "a"), "two": host("mail", "b"), "three": host("other", "c")},
        "release_plan": PLAN,
    }

    def differences() -> list[str]:
        found = role_task("release", "pull/same.yml", "pull | same | Refuse different images under one name", "vars", inputs)
        return list(found["__release_differences"])

    (difference,) = differences()
    assert difference.startswith("shop/api:1 is not the same image on all app hosts: a on one; b on two; push it once")
    inputs["hostvars"]["two"] = host("mail", "a")
    assert differences() == []
    # One is listed by the digest of its manifest, and the other by that of its configuration.
    inputs["hostvars"]["two"] = host("mail", "b")
    inputs["release_digests"] = {"1": {"api": {"digest": "a", "id": "b"}}}
    assert differences() == []


@pytest.mark.parametrize(
    ("file", "then"),
    [
        # A release, a first deployment, and a host that joins.
        ("pull/main.yml", ""),
        ("start/before_stores.yml", "start | before_stores | Try the product's containers"),
        ("in_place.yml", "in_place | Run the application in slot {{ release_plan.live.slot }}"),
    ],
)
def test_images_are_compared_before_a_container_of_them_starts(file: str, then: str) -> None:
    tasks = DataLoader().load_from_file(str(ROOT / "roles/release/tasks" / file))
    order = [task.get("ansible.builtin.include_tasks", task["name"]) for outer in tasks for task in outer.get("block", [outer])]
    pulls = [place for place, task in enumerate(order) if task in ("pull/live.yml", "pull/host.yml", "pull/named.yml")]
    assert pulls
    assert max(pulls) < order.index("pull/same.yml") < (order.index(then) if then else len(order))


def test_every_pull_by_name_is_tried_again() -> None:
    """A registry that does not answer once fails no release."""
    files = [path for part in ("roles/*/tasks", "playbooks") for path in ROOT.glob(f"{part}/**/*.yml")]
    tasks = [
        task
        for path in files
        for task in DataLoader().load_from_file(str(path)) or []
        if "names" in task.get("slipway.stack.image_pull", {})
    ]
    assert len(tasks) == 2
    assert all(task["retries"] == 3 and "until" in task for task in tasks)


@pytest.mark.parametrize(
    ("record", "mode", "compared"),
    [({"version": "1.0"}, "in_place", True), ({"version": "1.0"}, "nothing", False), (None, "in_place", False)],
    ids=["joins", "nothing differs", "compared before the stores"],
)
def test_a_host_that_joins_has_its_images_compared(record: dict[str, str] | None, mode: str, compared: bool) -> None:
    plan = {**PLAN, "record": record, "version": "1.0", "images": {"one": {"named": ["shop/api:1.1"]}}}
    for name in ("in_place | Pull the images that no build has recorded", "in_place | Compare the images of all app hosts"):
        assert runs("in_place.yml", name, release_plan=plan, release_decision={"mode": mode}, ansible_check_mode=False) is compared


def test_weights_are_those_of_all_containers() -> None:
    _templar, variables = role_variables("release", PRODUCT)
    assert variables["__release_cpu_shares"] == {"starting": YIELDING_CPU_SHARES, "serving": CPU_SHARES}


@pytest.mark.parametrize(
    ("balancers", "kept", "left", "state"),
    [
        ({"lb": True, "lb2": True}, [], [], "absent"),
        ({"lb": True, "lb2": True}, ["one"], ["files"], "stopped"),
        # A balancer that was lost before it was put back may still send requests, but none to workers and to migrations.
        ({"lb": True, "lb2": None}, [], ["api", "files"], "absent"),
        ({"lb": True, "lb2": None}, ["one"], ["api", "files"], "stopped"),
        # Put back by the recovery of an interrupted release, and lost in this one.
        ({"lb": True, "lb2": False}, [], ["api", "files"], "absent"),
    ],
)
def test_an_undo_leaves_what_a_lost_balancer_may_ask_and_nothing_else(
    balancers: dict[str, bool | None], kept: list[str], left: list[str], state: str
) -> None:
    """Workers of the version that failed would run next to those that must be alone, which the undo starts again."""
    described = {"api": API, "files": {**API, "retire": "next"}, "mailer": {"image": "x"}, "clock": {"image": "x", "retire": "before"}}
    inputs = {
        **PRODUCT,
        "release_plan": {**PLAN, "services": summary({"app_services": described}, "slipway", "green")},
        "__release_undone": {"from": PLAN["live"], "to": PLAN["idle"], "kept": kept},
        "release_balancer_hosts": list(balancers),
        "ansible_play_hosts_all": ["one", "two", *balancers],
        "hostvars": {name: {} if back is None else {"__release_balancer_back": back} for name, back in balancers.items()},
    }
    name = "undo | main | Stop or remove the new slot, version {{ __release_undone.to.version }}"
    assert runs("undo/main.yml", name, **inputs, inventory_hostname="one")
    given = role_task("release", "undo/main.yml", name, "slipway.stack.container_group", inputs)
    assert (sorted(set(given["except_services"])), given["state"]) == (left, state)
    assert given["owner"] == ["app-green", "app-migrate"]


@pytest.mark.parametrize("lost", [[], ["two"]])
def test_the_lock_that_is_kept_for_the_next_run_has_expired(lost: list[str]) -> None:
    known = {"__release_not_back": lost, "release_decision": {"journal": {"to": PLAN["idle"]}}}
    assert runs("undo/rescue.yml", "undo | rescue | Release the lock", **known) is not bool(lost)
    name = "undo | rescue | Leave the lock to the next run"
    assert runs("undo/rescue.yml", name, **known) is bool(lost)
    plan = {**PLAN, "lock_seconds": 4000, "holder": {}, "record": RECORD}
    for step, seconds in (("undo | rescue | Take the lock again", 4000), (name, 0)):
        given = role_task("release", "undo/rescue.yml", step, "vars", {**PRODUCT, **known, "release_plan": plan})
        written = role_task(
            "release",
            "undo/lock.yml",
            "undo | lock | Write the fleet's lock again, to expire in seconds {{ __release_lock_seconds }}",
            "slipway.stack.release_lock",
            {**PRODUCT, **known, **given, "release_plan": plan},
        )
        assert (int(written["lifetime"]), written["journal"]) == (seconds, {"to": PLAN["idle"]})


@pytest.mark.parametrize(("again", "elsewhere"), [({"lock": {"run": "r"}}, False), ({"unreachable": True}, True)])
def test_a_lock_on_a_host_that_is_lost_is_taken_over_on_demand(again: dict[str, Any], elsewhere: bool) -> None:
    """It could not be written again, so it expires later."""
    failures = {"one": {"__release_failure": "Probe: 4 requests failed"}, "two": {}}
    known = {"__release_not_back": ["two"], "__release_lock_again": again, "ansible_play_hosts_all": ["one", "two"], "hostvars": failures}
    tasks = DataLoader().load_from_file(str(ROOT / "roles/release/tasks/undo/rescue.yml"), trusted_as_template=True)
    (told,) = [task for outer in tasks for task in outer.get("always", ())]
    templar, _ = role_variables("release", {**told["vars"], **PRODUCT, **known})
    message = " ".join(templar.template(told["ansible.builtin.fail"]["msg"]).split())
    assert "not all of the release was undone on two. The next run does that: run this again once they can be reached" in message
    assert ("on another controller with -e release_lock_takeover=true. Probe: 4 requests failed" in message) is elsewhere


@pytest.mark.parametrize(("said", "looks"), [({}, True), ({"release_hold_in_restore": True}, False)])
def test_what_starts_the_product_looks_for_the_mark_of_a_restore(said: dict[str, Any], looks: bool) -> None:
    mark = "/etc/slipway/s/restore/under_way.json"
    held = {"run": "r", "holder": {}, "stale": "", "lock_host": "one"}
    known = {"release_stack": "s", "release_hold_purpose": "x.yml", "__release_hold": held, **said}
    name = "hold | Take the fleet's lock for {{ release_hold_purpose }}"
    assert role_task("release", "hold.yml", name, "slipway.stack.release_lock", known)["restore_mark"] == (mark if looks else "")
    plan = {**PLAN, **held, "lock_seconds": 900, "record": RECORD}
    known = {**PRODUCT, "release_stack": "s", "__release_step": "prepare", "__release_journal": {}, "release_plan": plan}
    name = "lock | main | Take or update the fleet's lock, step {{ __release_step }}"
    assert role_task("release", "lock/main.yml", name, "slipway.stack.release_lock", known)["restore_mark"] == mark
