# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all playbooks have in common: they keep away from a release that is under way, and need no rights on the controller."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import BIN, ROOT, Run, role_task

PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))


def tasks_of(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the tasks of plays, or of a file of tasks, those in blocks too."""
    for item in items or []:
        sections = [key for key in ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always") if key in item]
        for section in sections:
            yield from tasks_of(item[section])
        if not sections:
            yield item


def included(task: dict[str, Any]) -> tuple[str, str]:
    """Return the role and the file of its tasks that a task includes, empty where it is none."""
    given = task.get("ansible.builtin.include_role") or task.get("ansible.builtin.import_role") or {}
    return given.get("name", "").rpartition(".")[2], given.get("tasks_from", "main.yml")


@pytest.mark.parametrize("path", [*PLAYBOOKS, *sorted((ROOT / "playbooks/plays").glob("*.yml"))], ids=lambda path: path.stem)
def test_a_playbook_that_goes_on_without_hosts_does_so_where_one_answers_and_cannot_be_read(path: Path):
    for play in yaml.safe_load(path.read_text()):
        if play.get("ignore_unreachable"):
            tasks = [task for task in tasks_of([play]) if included(task) == ("container_service", "read.yml")]
            assert not tasks, f"{path.name} reads hosts without tasks/read_hosts.yml"


@pytest.mark.parametrize("path", [*PLAYBOOKS, *sorted((ROOT / "playbooks/plays").glob("*.yml"))], ids=lambda path: path.stem)
def test_a_playbook_asks_the_topology_for_hosts_and_names_no_group(path: Path):
    """Only the role of a service names the group whose hosts run it."""
    named = [play["hosts"] for play in yaml.safe_load(path.read_text()) if "hosts" in play]
    assert [hosts for hosts in named if "{{" not in hosts and hosts != "localhost"] == []


@pytest.mark.parametrize(
    ("merge", "shown"),
    [
        (
            {"slipway.stack.fleet_history": {"folder": "/etc/slipway/none", "lines": 5}, "register": "merged", "run_once": True},
            "two could not be read: its history is missing here",
        ),
        (
            {
                "slipway.stack.fleet_status": {"stack": "none", "folder": "/etc/slipway/none/release", "plan": {}},
                "register": "merged",
                "run_once": True,
            },
            "down      two: could not be read: /nonexistent/python3 does not exist there",
        ),
    ],
    ids=["history", "status"],
)
def test_a_host_that_answers_and_cannot_be_read_is_named_and_the_run_goes_on(checkout: Path, play: Run, merge: dict[str, Any], shown: str):
    """As without Python, with a full disk, or where sudo is refused."""
    variables = checkout / "inventories/test/host_vars/two.yml"
    variables.parent.mkdir()
    variables.write_text(json.dumps({"ansible_python_interpreter": "/nonexistent/python3"}))
    lines = "{{ {'lines': merged.lines} if merged.lines is defined else merged.ending }}"
    end = {"ansible.builtin.set_stats": {"data": {"slipway_ending": lines}}, "run_once": True}
    tasks = [{"ansible.builtin.import_tasks": "tasks/read_hosts.yml", "vars": {"container_service_stack": "none"}}, merge, end]
    (checkout / "playbooks/test.yml").write_text(json.dumps([{"hosts": "two:one", "gather_facts": False, "tasks": tasks}]))
    done = play("test")
    assert shown in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def steps_of_releases(path: Path) -> set[str]:
    """Return the files of the role release that a playbook includes, itself or by another role."""
    called = [included(task) for task in tasks_of(yaml.safe_load(path.read_text()))]
    for role in {role for role, _file in called} - {"", "release"}:
        for file in (ROOT / "roles" / role / "tasks").rglob("*.yml"):
            called += [included(task) for task in tasks_of(yaml.safe_load(file.read_text()))]
    return {file for role, file in called if role == "release"}


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_every_playbook_heeds_the_release_lock_or_says_why_not(path: Path) -> None:
    text, files = path.read_text(), steps_of_releases(path)
    needless = "# Takes no release lock: " in text
    assert needless != bool(files & {"hold.yml", "main.yml"}) or path.stem == "rollback"
    # What is taken is given back, in the same run.
    assert ("hold.yml" in files) <= ("unhold.yml" in files)
    # A restore continues itself, and destroy.yml needs no data. All others would start what writes to it, or restart the engine.
    assert ("release_hold_in_restore: true" in text) == (path.stem == "destroy")


def test_a_run_that_has_lost_its_lock_while_it_prepared_hosts_touches_no_store() -> None:
    tasks = list(tasks_of(yaml.safe_load((ROOT / "playbooks/tasks/services.yml").read_text())))
    called = [included(task) for task in tasks]
    renewed = called.index(("release", "renew.yml"))
    assert max(called.index(("release", "start/before_stores.yml")), called.index(("host", "main.yml"))) < renewed
    assert renewed < min(number for number, task in enumerate(tasks) if "loop" in task)


def test_what_a_trial_shows_is_refused_before_a_store_is_touched() -> None:
    """Before anything is created by a first deployment: by nginx's configuration and by the product's containers."""
    tasks = list(tasks_of(yaml.safe_load((ROOT / "playbooks/tasks/services.yml").read_text())))
    called = [included(task) for task in tasks]
    stores = [number for number, task in enumerate(tasks) if "loop" in task]
    assert len(stores) == 2
    assert max(called.index(("nginx", "prepare.yml")), called.index(("release", "start/before_stores.yml"))) < min(stores)
    prepare = [task["name"] for task in yaml.safe_load((ROOT / "roles/container_service/tasks/prepare.yml").read_text())]
    assert prepare.index("prepare | Try the new containers") < prepare.index("prepare | Write configuration and secrets")


def test_a_release_needs_a_fleet_that_has_one(play: Run, checkout: Path) -> None:
    """The first is site.yml's, which runs the stores before the application migrates their data."""
    state = {"files": {}, "containers": {}, "images": {}}
    (checkout / "playbooks/plan.yml").write_text(
        json.dumps(
            [
                {
                    "hosts": "all",
                    "gather_facts": False,
                    "tasks": [
                        {
                            "name": "Plan",
                            "slipway.stack.release_plan": {
                                "app_hosts": ["one"],
                                "balancers": [],
                                "folder": "/etc/slipway/s/release",
                                "version": "1",
                                "first": "{{ first }}",
                            },
                            "run_once": True,
                        }
                    ],
                }
            ]
        )
    )
    known = json.dumps({"container_service_host_state": state})
    refused = play("plan", "-e", known, "-e", "first=false")
    assert refused.returncode != 0
    assert "Run site.yml first" in " ".join(refused.stdout.split())
    assert play("plan", "-e", known, "-e", "first=true").returncode == 0


@pytest.mark.parametrize(
    ("playbook", "arguments", "said"),
    [
        (
            "destroy",
            [],
            "no host is in any of the groups postgres, redis, chroma, backup, extra, app, balancers, monitoring, registry, on which",
        ),
        ("backup", [], "no host is in group backup, on which backup.yml works; add one in the inventory's hosts file"),
        ("restore", ["-e", "list=true"], "no host is in group backup, on which restore.yml works"),
        ("drill", ["--limit", "one"], "no host is in group backup, on which drill.yml works"),
        ("deploy", [], "no host is in any of the groups app, balancers, on which deploy.yml works"),
        (
            "secrets",
            ["--limit", "one"],
            "--limit one leaves out localhost, on which secrets.yml works; leave --limit out, or name localhost in it",
        ),
        ("build", ["--limit", "o*"], "--limit o* leaves out localhost, on which build.yml works"),
    ],
)
def test_a_run_that_would_reach_no_host_says_so(play: Run, playbook: str, arguments: list[str], said: str) -> None:
    run = play(playbook, *arguments)
    assert run.returncode != 0
    assert said in " ".join(run.stdout.split())


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_every_playbook_checks_its_inputs_first_and_says_where_it_works(path: Path) -> None:
    first = yaml.safe_load(path.read_text())[0]
    imported = first["ansible.builtin.import_playbook"]
    if path.stem == "rollback":
        assert imported == "deploy.yml"
        return
    assert imported == "plays/check_inputs.yml"
    assert first["vars"]["__check_playbook"] == path.stem
    assert first["vars"]["__check_works_on"]


def test_inputs_are_checked_with_limit_and_with_tags() -> None:
    (play,) = yaml.safe_load((ROOT / "playbooks/plays/check_inputs.yml").read_text())
    assert "ansible_limit is defined" in play["hosts"]
    assert play["tasks"][0]["slipway.stack.preflight"]["shared_variables"]
    assert play["tasks"][0]["tags"] == "always"


def test_what_is_applied_was_compared_right_before() -> None:
    """Roles share the result of a comparison: on a host that runs several, the last one may have been another's."""
    for path in [*PLAYBOOKS, *sorted((ROOT / "roles").glob("*/tasks/**/*.yml"))]:
        called = [included(task) for task in tasks_of(yaml.safe_load(path.read_text()))]
        assert ("container_service", "apply.yml") not in called, path.relative_to(ROOT)


# Tasks on the controller

CONTROLLER = {"ansible_become": False, "ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}


def on_the_controller(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield for what runs on localhost in a playbook or a file of tasks its name and the variables that are in force there."""

    def walk(items: list[dict[str, Any]], variables: dict[str, Any], here: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        for item in items or []:
            at = item.get("delegate_to", item.get("hosts"))
            known = {**variables, **(item.get("vars") or {})}
            inside = at == "localhost" or (here and at is None)
            blocks = [item[key] for key in ("pre_tasks", "tasks", "post_tasks", "block", "rescue", "always") if key in item]
            if inside or (isinstance(at, str) and "image_build_host" in at):
                yield str(item.get("name")), known
            for block in blocks:
                yield from walk(block, known, inside)

    yield from walk(yaml.safe_load(path.read_text()), {}, False)


def test_every_task_on_the_controller_says_how_it_is_reached() -> None:
    """Variables for all hosts of an inventory are localhost's, too, and stronger than the keywords become and connection."""
    found = 0
    for path in [*PLAYBOOKS, *sorted((ROOT / "roles").glob("*/tasks/**/*.yml"))]:
        for name, variables in on_the_controller(path):
            found += 1
            given = {key: variables.get(key) for key in CONTROLLER}
            # What may be another host says it by condition.
            if given != CONTROLLER:
                assert all("__image_here" in str(value) for value in given.values()), f"{path.relative_to(ROOT)}: {name}"
    assert found > 6
    for path in [*PLAYBOOKS, ROOT / "playbooks/plays/check_inputs.yml"]:
        for item in yaml.safe_load(path.read_text()):
            # Such as the path of a key next to the inventory.
            assert "localhost" not in item.get("hosts", "") or "ansible_ssh_private_key_file" in item["vars"], (
                f"{path.name}: {item['name']}"
            )


REACHED = {
    "ansible_become": True,
    "ansible_user": "deploy",
    "ansible_connection": "ssh",
    "ansible_ssh_private_key_file": "{{ inventory_dir }}/key",
    "ansible_python_interpreter": "/nonexistent/python3",
    "ansible_host": "{{ address_of_the_host }}",
}
NOBODY = 65534


@pytest.fixture
def theirs(checkout: Path) -> Iterator[Path]:
    """The checkout in a folder of another user's, who may not read pytest's own folders."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(shutil.move(checkout, folder))


@pytest.fixture
def plain_user(theirs: Path) -> Run:
    """Run a playbook as a user who may not become another one, where all hosts are reached over SSH and by sudo."""
    checkout = theirs
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        pytest.skip("needs root and setpriv, to become a user without rights")
    hosts = {"all": {"vars": {**REACHED, "slipway_stack": "s"}, "children": {"balancers": {"hosts": {"one": {}}}}}}
    (checkout / "inventories/test/hosts.yml").write_text(json.dumps(hosts))
    key = checkout / "inventories/test/key"
    key.write_text("-----BEGIN \n")
    key.chmod(0o600)
    home = checkout / "home"
    home.mkdir()
    for path in [checkout, *checkout.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    # It may read all, as the tools of this machine may lie in another user's home, and write what is its own.
    user = [
        setpriv,
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
    ]

    def run(playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "SLIPWAY_"))}
        environment |= {"HOME": str(home), "ANSIBLE_NOCOLOR": "1", "PATH": f"{BIN}:{environment['PATH']}"}
        command = [*user, str(BIN / "ansible-playbook"), f"playbooks/{playbook}.yml", "-i", "inventories/test", *arguments]
        return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_a_plain_user_writes_secrets_whatever_the_hosts_need(plain_user: Run, theirs: Path) -> None:
    done = plain_user("secrets", "-e", '{"slipway_secrets": ["vault_postgres_app_password"]}')
    assert done.returncode == 0, done.stdout + done.stderr
    vault = theirs / "inventories/test/group_vars/all/vault.yml"
    assert vault.read_text().startswith("$ANSIBLE_VAULT")
    assert vault.stat().st_uid == NOBODY


@pytest.mark.parametrize("playbook", ["site", "deploy"])
def test_a_plain_user_reads_about_the_inventory_and_not_about_sudo(plain_user: Run, playbook: str) -> None:
    """The first play has then done its work, without a connection."""
    done = plain_user(playbook, "--check", "-e", '{"slipway_secrets": []}')
    assert "group app has no host" in " ".join(done.stdout.split()), done.stdout + done.stderr


def test_a_plain_user_gets_a_certificate(plain_user: Run, theirs: Path) -> None:
    """On behalf of a host that is reached with other rights, another user and another interpreter."""
    variables = {
        "nginx_tls_ca_dir": str(theirs / "pki"),
        "nginx_server_names": ["shop.example.test"],
        "slipway_stack": "s",
        "container_service_host_state": {"files": {}, "containers": {}, "host": {"addresses": []}},
    }
    include = {"name": "slipway.stack.nginx", "tasks_from": "certificate.yml", "rolespec_validate": False}
    play = {"hosts": "balancers", "gather_facts": False, "tasks": [{"name": "Issue", "ansible.builtin.include_role": include}]}
    (theirs / "playbooks/certificate.yml").write_text(json.dumps([play]))
    done = plain_user("certificate", "-e", json.dumps(variables), "-e", "address_of_the_host=192.0.2.1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (theirs / "pki/server.pem").stat().st_uid == NOBODY


def test_at_the_end_all_services_are_asked_for_and_what_is_kept_next_to_them_is_not() -> None:
    """The other slot stays for a rollback, and a job has ended."""
    service = {"restart_policy": "unless-stopped", "owner": "redis"}
    containers = {
        "s-redis": service,
        "s-frontend-green-1": {**service, "owner": "app-green"},
        "s-backend-blue-1": {**service, "owner": "app-blue"},
        "s-migrate": {"restart_policy": "no", "owner": "app-migrate"},
    }
    record = {"/etc/slipway/s/release/state.json": {"content": '{"slot": "green"}'}}
    name = "healthy | Wait until all services are healthy"
    for files, asked in ((record, ["s-frontend-green-1", "s-redis"]), ({}, ["s-redis"])):
        state = {"containers": containers, "files": files}
        inputs = {"container_service_host_state": state, "container_service_stack": "s"}
        given = role_task("container_service", "healthy.yml", name, "vars", inputs)
        assert given["__container_service_serving"] == asked


@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/tasks/main.yml")), ids=lambda path: path.parent.parent.name)
def test_containers_have_the_owner_with_which_all_hosts_are_compared(path: Path) -> None:
    """Or each run would find them different: that of the role's variable, and without one the role's name."""
    role = path.parent.parent.name
    variables = path.parent.parent / "vars/main.yml"
    known = (yaml.safe_load(variables.read_text()) or {}) if variables.is_file() else {}
    given = [task.get("vars") or {} for task in tasks_of(yaml.safe_load(path.read_text()) or [])]
    owners = {each["container_service_owner"] for each in given if f"__{role}_services" in str(each.get("container_service_declarations"))}
    assert owners <= ({f"{{{{ __{role}_owner }}}}"} if f"__{role}_owner" in known else {role})
    assert owners or f"__{role}_services" not in known


def test_the_documentation_names_the_playbooks_that_hold_the_lock() -> None:
    files = [path for part in ("playbooks", "roles/*/tasks") for path in ROOT.glob(f"{part}/**/*.yml")]
    holding = {name for path in files for name in re.findall(r"^ *release_hold_purpose: (\S+)$", path.read_text(), re.MULTILINE)}
    assert "site.yml" in holding
    sentence = re.search(r"respects this lock\.([^()]*) hold it \(", (ROOT / "docs/architecture.md").read_text())
    assert sentence
    assert set(re.findall(r"`([^`]+)`", sentence[1])) == holding


def test_links_whose_targets_are_no_files_are_not_followed() -> None:
    """Ansible warns of them in every run, and a warning that means nothing hides those that do."""
    links = [
        (path, task["ansible.builtin.file"])
        for path in ROOT.glob("roles/*/tasks/**/*.yml")
        for task in tasks_of(yaml.safe_load(path.read_text()) or [])
        if isinstance(task.get("ansible.builtin.file"), dict) and task["ansible.builtin.file"].get("state") == "link"
    ]
    assert links
    assert [path for path, options in links if options.get("force") and options.get("follow") is not False] == []
