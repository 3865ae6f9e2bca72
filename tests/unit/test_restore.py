# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of restore.yml decides to do, for all hosts and for each."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.slipway.stack.plugins.plugin_utils.restore import (
    Asked,
    Chosen,
    Decision,
    HostPlan,
    RestoreError,
    choose_restore,
    decide,
    host_plan,
)
from conftest import Run

KNOWN = ["postgres", "redis", "chroma", "volumes"]
MOMENT = "2026-11-23T02:15:00+00:00"


@pytest.mark.parametrize(
    ("asked", "decided"),
    [
        (Asked(list=True), Decision("list", KNOWN, "latest", "")),
        # A list is harmless, whatever else was typed before.
        (Asked(list=True, point="latest"), Decision("list", KNOWN, "latest", "")),
        (Asked(point="latest"), Decision("replace", KNOWN, "latest", "")),
        (Asked(point="p", stores="redis, chroma"), Decision("replace", ["redis", "chroma"], "p", "")),
        (Asked(point="p", stores=["volumes"]), Decision("replace", ["volumes"], "p", "")),
        (Asked(target_time=MOMENT), Decision("replace", ["postgres"], "latest", MOMENT)),
        # Named with a point, a moment concerns all stores.
        (Asked(target_time="end", point="p"), Decision("replace", KNOWN, "p", "end")),
        (Asked(target_time="end", stores="postgres,redis"), Decision("replace", ["postgres", "redis"], "latest", "end")),
        (Asked(point="latest", into="inspect"), Decision("inspect", KNOWN, "latest", "")),
        (Asked(into="inspect", remove=True), Decision("end_inspection", KNOWN, "latest", "")),
        (Asked(undo=True, stores="redis"), Decision("undo", ["redis"], "latest", "")),
        (Asked(discard_old=True), Decision("discard_old", KNOWN, "latest", "")),
    ],
)
def test_what_was_asked_for_is_done(asked: Asked, decided: Decision):
    assert decide(asked, KNOWN, limited=False) == decided
    assert decided.in_place == (decided.mode in ("replace", "undo"))


@pytest.mark.parametrize(
    "asked",
    [
        Asked(),
        Asked(stores="redis"),
        Asked(into="inspect"),
        Asked(into="elsewhere", point="latest"),
        Asked(point="latest", stores="mysql"),
        Asked(point="latest", remove=True),
        Asked(list=True, into="inspect", remove=True),
        Asked(target_time="end", stores="redis"),
        # Whose data is it to replace?
        Asked(undo=True),
        # What it would set aside it would remove.
        Asked(point="latest", discard_old=True),
        *(
            Asked(undo=True, stores="postgres", **more)
            for more in ({"discard_old": True}, {"into": "inspect"}, {"list": True}, {"point": "p"})
        ),
        *(Asked(discard_old=True, **more) for more in ({"into": "inspect"}, {"list": True}, {"target_time": "end"})),
    ],
)
def test_options_that_cannot_be_combined_are_refused(asked: Asked):
    with pytest.raises(RestoreError, match=r"^Nothing was touched[.] Choose one of: .* -e stores=postgres,redis,chroma,volumes or some"):
        decide(asked, KNOWN, limited=False)


def test_a_stack_without_a_database_has_no_moment_to_go_to():
    with pytest.raises(RestoreError, match="a target_time needs postgres"):
        decide(Asked(target_time="end"), ["redis"], limited=False)


def test_what_changes_all_hosts_needs_all_hosts():
    for asked in (Asked(point="latest"), Asked(undo=True, stores="redis")):
        with pytest.raises(RestoreError, match="run it without --limit"):
            decide(asked, KNOWN, limited=True)
    for asked in (Asked(list=True), Asked(point="latest", into="inspect"), Asked(discard_old=True)):
        decide(asked, KNOWN, limited=True)


def item(store: str, key: str, journal: str) -> dict[str, Any]:
    return {"store": store, "key": key, "journal": journal, "role": {"volumes": "volume_server"}.get(store, store)}


POSTGRES = item("postgres", "postgres", "postgres")
REDIS = item("redis", "redis", "redis")
UPLOADS = item("volumes", "volumes/app1/uploads", "volumes.uploads")
AVATARS = item("volumes", "volumes/app1/a.b", "volumes.a.b")
REPLACE = Decision("replace", ["postgres", "volumes"], "p", "")
UNDO = Decision("undo", ["postgres", "volumes"], "latest", "")


MARK = {"restore": "p", "id": "r1", "returns": {}}
UNDO_MARK = {"restore": "undo", "id": "u1", "returns": {"postgres": "r1", "volumes": "r1"}}


def on_host(
    decision: Decision,
    *journals: str,
    mark: dict[str, Any] | None = None,
    serving: bool = True,
    staged: tuple[str, ...] = (),
    kept: tuple[str, ...] = ("postgres", "redis", "volumes/app1/uploads", "volumes/app1/a.b"),
) -> HostPlan:
    """Return what a host does after a restore r1 that has kept old data."""
    left = {**{journal: {"phase": "place"} for journal in journals}, **({"under_way": mark} if mark else {})}
    data = [POSTGRES, REDIS, UPLOADS, AVATARS]
    restores = {key: ["r0", "r1"] if key in kept else ["r0"] for key in (item["key"] for item in data)}
    returns = dict.fromkeys(decision.stores, "r1") if decision.mode == "undo" else {}
    return host_plan(decision, "app1", data, left=left, serving=serving, staged=staged, returns=returns, kept=restores)


def test_a_host_exchanges_what_was_staged_for_it():
    plan = on_host(REPLACE, staged=("postgres", "volumes/app1/uploads", "volumes/app2/uploads"))
    assert plan == HostPlan([], [POSTGRES, UPLOADS], ["postgres", "volume_server"])


def test_an_undo_concerns_all_data_of_its_stores():
    assert on_host(UNDO) == HostPlan([], [POSTGRES, UPLOADS, AVATARS], ["postgres", "volume_server"])


def test_journals_without_the_mark_are_of_a_restore_that_has_completed():
    for decision in (REPLACE, UNDO, Decision("discard_old", KNOWN, "latest", "")):
        assert on_host(decision, "redis", "volumes.a.b").completed == ["redis", "volumes.a.b"]
    assert on_host(REPLACE, "postgres", mark=MARK).completed == []


def test_until_the_product_serves_a_restore_with_complete_data_goes_on():
    """Its data is in place, and the product's start failed: a repetition must not take it for the data from before."""
    for decision in (REPLACE, UNDO):
        assert on_host(decision, "postgres", "volumes.a.b", serving=False).completed == []
    # An undo brings back all, and leaves stores that it does not name.
    assert on_host(UNDO, "postgres", "redis", serving=False).exchanges == [POSTGRES, UPLOADS, AVATARS]


@pytest.mark.parametrize("journals", [("redis",), ("postgres", "redis"), ("redis", "volumes.a.b")])
def test_an_interrupted_restore_is_continued_with_all_of_its_stores(journals: tuple[str, ...]):
    begun = ", ".join(journals).replace("volumes.a.b", "volumes")
    for decision in (REPLACE, UNDO):
        with pytest.raises(RestoreError, match=rf"On app1, a restore was interrupted; it had begun with {begun}[.] Give all of these"):
            on_host(decision, *journals, mark=MARK)
    # To remove old data is refused by the module that finds the journal.
    assert on_host(Decision("discard_old", KNOWN, "latest", ""), *journals, mark=MARK).completed == []


def test_the_undo_of_an_interrupted_restore_leaves_data_that_was_not_moved():
    plan = on_host(UNDO, "volumes.a.b", mark=MARK, kept=("volumes/app1/a.b",))
    assert plan.exchanges == [AVATARS]
    assert plan.roles == ["postgres", "volume_server"], "what was stopped is started"
    # An undo that was interrupted goes on with all of its data.
    assert on_host(UNDO, "volumes.a.b", mark=UNDO_MARK).exchanges == [POSTGRES, UPLOADS, AVATARS]


def test_an_undo_leaves_data_that_the_restore_did_not_replace():
    """As of a volume that the point did not have yet: its old data is of an earlier restore, or there is none."""
    assert on_host(UNDO, kept=("postgres", "volumes/app1/uploads")).exchanges == [POSTGRES, UPLOADS]
    # What an interrupted undo has taken back already is not kept any more, and has a journal.
    assert on_host(UNDO, "postgres", mark=UNDO_MARK, kept=("volumes/app1/uploads",)).exchanges == [POSTGRES, UPLOADS]


def kept(**restores: list[str]) -> list[dict[str, Any]]:
    """Return what is kept of some data, here and on other hosts."""
    return [{"store": name.partition("_")[0], "key": name, "restores": names} for name, names in restores.items()]


def test_an_undo_returns_the_set_of_the_newest_restore_of_each_store():
    found = kept(postgres=["r1"], volumes_uploads=["r1", "r3"], volumes_reports=["r1"], volumes_new=[])
    assert choose_restore(UNDO, "u4", [{}, {}], found) == Chosen("u4", {"postgres": "r1", "volumes": "r3"})
    # Of a restore before there were names.
    assert choose_restore(UNDO, "u4", [{}], kept(postgres=[""], volumes_uploads=[""])).returns == {"postgres": "", "volumes": ""}


def test_an_undo_without_old_data_is_refused():
    with pytest.raises(RestoreError, match=r"Nothing was touched[.] No old data of volumes is kept: there is no restore to undo"):
        choose_restore(UNDO, "u1", [{}], kept(postgres=["r1"], volumes_uploads=[]))
    # A restore that was interrupted may have moved nothing of a store.
    found = kept(postgres=["r0", "r1"], volumes_uploads=["r0"])
    # Nor has it reached the other host.
    assert choose_restore(UNDO, "u1", [{}, {"under_way": MARK}], found) == Chosen("u1", {"postgres": "r1", "volumes": "r1"})


def test_an_interrupted_undo_goes_on_with_the_same_data():
    """What it has set aside so far is newer than what it returns."""
    found = kept(postgres=["u1"], volumes_uploads=["r1"])
    assert choose_restore(UNDO, "u2", [{}, {"under_way": UNDO_MARK}], found) == Chosen("u1", {"postgres": "r1", "volumes": "r1"})


@pytest.mark.parametrize(
    ("left", "continued"),
    [
        ([{}, {}], "r2"),
        ([{}, {"under_way": MARK}], "r1"),
        # Its data is complete, and the product did not start.
        ([{"postgres": {"phase": "place", "id": "r1"}}], "r1"),
        ([{"postgres": {"phase": "returned"}}], "r2"),
        ([{"postgres": {"phase": "aside", "source": "data-before-1", "id": "r1"}}, {"under_way": UNDO_MARK}], "r2"),
        ([{"under_way": {"restore": "p"}}], "r2"),
    ],
)
def test_what_an_interrupted_restore_sets_aside_is_of_one_restore(left: list[dict[str, Any]], continued: str):
    assert choose_restore(REPLACE, "r2", left, []) == Chosen(continued, {})


# In a playbook


def test_the_playbook_refuses_before_it_asks_a_host(play: Run, checkout: Path):
    hosts = {"all": {"vars": {"slipway_stack": "s", "ansible_host": "host.invalid"}, "children": {"backup": {"hosts": {"one": {}}}}}}
    (checkout / "inventories/test/hosts.yml").write_text(json.dumps(hosts))
    for arguments in (["-e", "stores=volumes"], ["-e", "restore_undo=true"]):
        run = play("restore", *arguments)
        assert run.returncode != 0
        assert "Nothing was touched. Choose one of" in " ".join(run.stdout.split())
        assert "unreachable=0" in run.stdout


def docker_log(checkout: Path, failing: str = "nothing") -> Path:
    """Create a program ``docker`` that records its arguments, and fails for some; return the file, which is in the program's folder."""
    log = checkout / "programs/log"
    log.parent.mkdir()
    log.touch()
    program = log.parent / "docker"
    program.write_text(f'#!/bin/sh\necho "docker $*" >>{log}\ncase "$*" in *{failing}*) echo "exit code 1: broken"; exit 1 ;; esac\n')
    program.chmod(0o755)
    return log


NO_TASKS = {"ansible.builtin.meta": "noop"}
STOP: dict[str, Any] = {
    "restore_stack": "s",
    "restore_plan": {"mode": "replace", "in_place": True},
    "restore_data_hosts": ["one"],
    "restore_product_hosts": ["one", "two"],
    "restore_backup_host": "two",
    "release_app_hosts": [],
    "release_balancer_hosts": [],
}


SERVES_AGAIN = "one: no port. No data was exchanged, and the product serves as before"


@pytest.mark.parametrize(
    ("failing", "left", "said"),
    [
        ("restore/mark", {}, SERVES_AGAIN),
        ("restore/dump", {}, SERVES_AGAIN),
        # The product goes on serving.
        ("release/hold", {}, "msg: no port"),
        # Another run has taken the lock meanwhile, and may exchange data.
        ("release/renew", {}, "as it could not be started again (no port)"),
        # What an earlier run has exchanged is not what the product left.
        ("restore/dump", {"under_way": {"restore": "p"}, "redis": {"phase": "place"}}, "as an earlier run has exchanged some of its data"),
    ],
)
def test_what_fails_before_data_is_exchanged_leaves_the_product_in_service(
    play: Run, checkout: Path, failing: str, left: dict[str, Any], said: str
):
    """The mark guards the data. A lock that stays would keep others away for nothing, and so would a mark and the backups' record."""
    lock, folder, recorded = checkout / "lock", checkout / "restore", docker_log(checkout)
    steps = {
        "container_service/read": NO_TASKS,
        "release/plan": NO_TASKS,
        "release/hold": {"ansible.builtin.file": {"path": str(lock), "state": "touch"}, "run_once": True},
        "restore/dump": NO_TASKS,
        "release/renew": NO_TASKS,
        "release/unhold": {"ansible.builtin.file": {"path": str(lock), "state": "absent"}, "run_once": True},
    }
    mark = checkout / "roles/restore/tasks/mark.yml"
    fault = [{"ansible.builtin.fail": {"msg": "no port"}, "when": "inventory_hostname == 'one'"}]
    for step, task in steps.items():
        role, file = step.split("/")
        fails = {failing, *(["restore/dump"] if failing == "release/renew" else [])}
        (checkout / f"roles/{role}/tasks/{file}.yml").write_text(json.dumps([task, *(fault if step in fails else [])]))
    if failing == "restore/mark":
        mark.write_text(json.dumps([*yaml.safe_load(mark.read_text()), *fault]))
    include = {"name": "slipway.stack.restore", "tasks_from": "stop.yml", "rolespec_validate": False}
    tasks = [{"name": "Stop", "ansible.builtin.include_role": include}]
    variables = {**STOP, "restore_dump_services": True, "restore_plan": {**STOP["restore_plan"], "point": "p", "target_time": ""}}
    (checkout / "playbooks/stop.yml").write_text(
        json.dumps([{"hosts": "all", "gather_facts": False, "any_errors_fatal": True, "vars": variables, "tasks": tasks}])
    )
    known = {"__restore_folder": str(folder), "__restore_run": {"id": "r1", "returns": {}}, "__restore_earlier": {"left": left}}
    run = play("stop", "-e", json.dumps(known), PATH=f"{recorded.parent}:{os.environ['PATH']}")
    shown = " ".join(run.stdout.split())
    assert run.returncode != 0
    assert said in shown
    stays = bool(left) or failing == "release/renew"
    assert ("out of service" in shown) == stays
    assert not lock.exists()
    assert (folder / "under_way.json").exists() == stays
    steps_of_backups = [line.removeprefix("docker exec s-backup slipway-backup exchange ") for line in recorded.read_text().splitlines()]
    begun = {"release/hold": [], "restore/mark": ["end"], "restore/dump": ["begin"] if stays else ["begin", "end"]}
    assert steps_of_backups == begun.get(failing, ["begin"])


RUNS, HEALTHY = {"status": "running", "health": "none"}, {"status": "running", "health": "healthy"}


@pytest.mark.parametrize(
    ("containers", "said"),
    [
        ({"s-mails": RUNS, "s-search": {"status": "running", "health": "starting"}, "s-volume-server": HEALTHY}, []),
        (
            {"s-mails": {"status": "restarting", "health": "none"}, "s-volume-server": RUNS},
            ["s-mails of one is restarting", "s-search of one is not there"],
        ),
        (
            {
                "s-mails": {"status": "running", "health": "unhealthy"},
                "s-search": RUNS,
                "s-volume-server": {"status": "paused", "health": "healthy"},
            },
            ["s-mails of one is running unhealthy", "s-volume-server of one is paused healthy"],
        ),
    ],
    ids=["all run", "missing", "unhealthy"],
)
def test_a_service_that_cannot_dump_its_data_is_refused_before_the_restore(
    play: Run, checkout: Path, containers: dict[str, Any], said: list[str]
):
    """Not once the product is down, after hours of staging."""
    data = [
        {"store": "volumes", "key": f"volumes/one/{name}", "journal": f"volumes.{name}", "container": name, "restore_command": command}
        for name, command in {"mails": ["load"], "search": ["load"], "uploads": []}.items()
    ]
    variables = {
        **STOP,
        "restore_data": data,
        "restore_plan": {**STOP["restore_plan"], "stores": ["volumes"]},
        "__restore_earlier": {"left": {}},
        "container_service_host_state": {"containers": containers},
    }
    include = {"name": "slipway.stack.restore", "tasks_from": "dumping.yml", "rolespec_validate": False}
    tasks = [{"name": "Look", "ansible.builtin.include_role": include}]
    (checkout / "playbooks/dumping.yml").write_text(
        json.dumps([{"hosts": "one", "gather_facts": False, "vars": variables, "tasks": tasks}])
    )
    run = play("dumping")
    shown = " ".join(run.stdout.split())
    assert (run.returncode != 0) == bool(said), run.stdout
    assert set(re.findall(r"Nothing was touched\. ([^:]+): its data cannot be dumped", shown)) == set(said)


@pytest.mark.parametrize("failing", ["", "redis"])
def test_data_of_other_hosts_arrives_before_the_product_stops(play: Run, checkout: Path, failing: str):
    """However long a transfer takes, no other one waits for it with the product out of service, and one that fails costs nothing."""
    log = docker_log(checkout)

    def note(text: str) -> dict[str, Any]:
        return {"ansible.builtin.shell": f"echo {text} >>{log}"}

    fault = {"ansible.builtin.fail": {"msg": "no room"}, "when": "__restore_item.key == failing"}
    exchanges = [{"key": key, "role": key} for key in ("postgres", "redis")]
    steps: dict[str, list[dict[str, Any]]] = {step: [NO_TASKS] for step in ("choose", "mesh", "dumping", "stage", "exchange", "complete")}
    steps["check"] = [{"ansible.builtin.set_fact": {"__restore_host": {"exchanges": exchanges}}}]
    steps["transfer"] = [note("transfer {{ __restore_item.key }}"), fault]
    steps["stop"] = [{**note("stop"), "run_once": True}]
    for step, tasks in steps.items():
        (checkout / f"roles/restore/tasks/{step}.yml").write_text(json.dumps(tasks))
    staged = {"point": "p", "stores": ["postgres", "redis"], "volumes": {"postgres": "s-restore-postgres", "redis": "s-restore-redis"}}
    variables = {**STOP, "failing": failing, "__restore_stage": {"rc": 0, "stdout_lines": [json.dumps(staged)]}}
    tasks = [{"name": "Restore", "ansible.builtin.import_role": {"name": "slipway.stack.restore", "rolespec_validate": False}}]
    (checkout / "playbooks/all.yml").write_text(
        json.dumps([{"hosts": "all", "gather_facts": False, "any_errors_fatal": True, "vars": variables, "tasks": tasks}])
    )
    run = play("all", PATH=f"{log.parent}:{os.environ['PATH']}")
    done = log.read_text().splitlines()
    assert done[:2] == ["transfer postgres", "transfer redis"], run.stdout
    if failing:
        assert "Nothing was touched. one: no room" in " ".join(run.stdout.split())
        assert done[2:] == ["docker volume rm --force s-restore-postgres s-restore-redis"]
    else:
        assert run.returncode == 0, run.stdout
        assert done[2:] == ["stop"]


FAKE_VOLUMES = """
import json
from ansible.module_utils.basic import AnsibleModule
names = ("stack", "store", "container", "volume", "staged", "state", "returns")
module = AnsibleModule(argument_spec={name: {"type": "str"} for name in names}, supports_check_mode=True)
done = " ".join(module.params[name] for name in ("state", "volume", "returns") if module.params[name])
with open(LOG, "a") as log:
    log.write(done + (" checked" if module.check_mode else "") + chr(10))
module.exit_json(changed=False, restores=KEPT[module.params["volume"]], aside=[])
"""


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_undo_finds_on_all_hosts_what_the_restore_has_replaced(play: Run, checkout: Path, interrupted: bool):
    log, folder = checkout / "volumes.log", checkout / "restore"
    kept = {"uploads": ["r1", "r2"], "avatars": ["r1", "r2"], "reports": ["r1"]}
    if interrupted:
        folder.mkdir()
        mark = {"restore": "undo", "id": "u1", "returns": {"volumes": "r2"}}
        for name, content in {"under_way": mark, "volumes.uploads": {"phase": "returned"}}.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        kept["uploads"] = ["r1", "u1"]
    fake = FAKE_VOLUMES.replace("LOG", repr(str(log))).replace("KEPT", repr(kept))
    (checkout / "plugins/modules/restored_volume.py").write_text(fake)
    data = {
        host: [
            {
                "store": "volumes",
                "key": f"volumes/{host}/{name}",
                "journal": f"volumes.{name}",
                "container": "c",
                "volume": name,
                "role": "r",
            }
            for name in names
        ]
        for host, names in {"one": ["uploads"], "two": ["avatars", "reports"]}.items()
    }
    variables = {
        **STOP,
        "release_balancer_hosts": ["two"],
        "restore_data_hosts": ["one", "two"],
        "restore_data": "{{ data[inventory_hostname] }}",
        "data": data,
        "restore_known_stores": ["volumes"],
        "restore_stores": "volumes",
        "restore_undo": True,
    }
    include = {"name": "slipway.stack.restore", "rolespec_validate": False}
    tasks = [
        {"name": step, "ansible.builtin.include_role": {**include, "tasks_from": f"{step}.yml"}} for step in ("choose", "check", "mark")
    ]
    (checkout / "playbooks/undo.yml").write_text(
        json.dumps([{"hosts": "all", "gather_facts": False, "any_errors_fatal": True, "vars": variables, "tasks": tasks}])
    )
    run = play("undo", "-e", json.dumps({"__restore_folder": str(folder)}))
    assert run.returncode == 0, run.stdout
    done = log.read_text().splitlines()
    assert sorted(done) == sorted(
        ["kept uploads", "kept avatars", "kept reports", "returned uploads r2 checked", "returned avatars r2 checked"]
    )
    mark = json.loads((folder / "under_way.json").read_text())
    assert (mark["restore"], mark["returns"]) == ("undo", {"volumes": "r2"})
    assert (mark["id"] == "u1") == interrupted


@pytest.mark.parametrize("failing", ["nothing", "volumes/mails_dump/"])
def test_services_with_a_dump_make_one_of_the_data_that_is_replaced(play: Run, checkout: Path, failing: str):
    log = docker_log(checkout, failing)
    exchanges = [
        {
            "key": f"volumes/one/{name}",
            "journal": f"volumes.{name}",
            "container": name,
            "volume": f"{name}_dump",
            "restore_command": command,
        }
        for name, command in {"search": ["load"], "mails": ["load"], "begun": ["load"], "uploads": []}.items()
    ]
    variables = {
        **STOP,
        "restore_data": [{"store": "volumes", **item} for item in exchanges],
        "restore_plan": {**STOP["restore_plan"], "stores": ["volumes"]},
        "__restore_host": {"exchanges": [*exchanges, {"key": "postgres", "journal": "postgres"}]},
        "__restore_earlier": {"left": {"volumes.begun": {"phase": "place"}}},
    }
    include = {"name": "slipway.stack.restore", "tasks_from": "dump.yml", "rolespec_validate": False}
    tasks = [{"name": "Dump", "ansible.builtin.include_role": include}]
    (checkout / "playbooks/dump.yml").write_text(json.dumps([{"hosts": "one", "gather_facts": False, "vars": variables, "tasks": tasks}]))
    run = play("dump", PATH=f"{log.parent}:{os.environ['PATH']}")
    assert log.read_text().splitlines() == [
        f"docker exec --env RSYNC_REQUEST=volumes/{name}_dump/ s-volume-server /bin/sh /etc/slipway/current/before_copy.sh"
        for name in ("search", "mails")
    ]
    assert (run.returncode == 0) == (failing == "nothing")
    said = "no dump of mails can be made: exit code 1: broken. To replace its data all the same"
    assert (said in " ".join(run.stdout.split())) == (failing != "nothing")
