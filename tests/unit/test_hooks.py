"""The user's own tasks before and after what a playbook does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play import Play
from ansible.vars.manager import VariableManager

from ansible_collections.slipway.stack.plugins.plugin_utils import forms, hook_files
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import plain_yaml
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import shared_forms

FORM = shared_forms()["slipway_hooks"]
SECRET = "t7Hq2Lw9Zx4Nv6Bk8Mr3"
# The only task of a hook's file.
SAY = [{"ansible.builtin.debug": {"msg": "hook {{ slipway_hook | to_json }} on {{ inventory_hostname }}"}}]


@pytest.fixture
def run(checkout: Path, play: Any):
    """Run a playbook that calls one hook between two tasks, and return what it printed and its report."""

    def run(
        hooks: dict[str, str], hook: str = "before_release", arguments: tuple[str, ...] = (), **facts: Any
    ) -> tuple[Any, dict[str, Any]]:
        (checkout / "inventories/test/group_vars/all/own.yml").write_text(json.dumps({"slipway_hooks": hooks}))
        imported = {"name": "slipway.stack.container_service", "tasks_from": "hook.yml", "rolespec_validate": False}
        variables = {"container_service_hook": hook, "container_service_hook_facts": facts}
        tasks = [
            {"name": "Hook", "ansible.builtin.import_role": imported, "vars": variables},
            {"name": "Hook again", "ansible.builtin.import_role": imported, "vars": variables},
            {"name": "Go on", "ansible.builtin.debug": {"msg": "went on on {{ inventory_hostname }}"}},
        ]
        playbook = [{"hosts": "all", "gather_facts": False, "any_errors_fatal": True, "tasks": tasks}]
        (checkout / "playbooks/test.yml").write_text(json.dumps(playbook))
        done = play("test", *arguments)
        return done, json.loads((checkout / "reports/test-latest.json").read_text())

    return run


def tasks_file(checkout: Path, tasks: Any) -> str:
    path = checkout / "inventories/test/hooks/own.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(tasks))
    return str(path)


def test_a_run_without_the_hook_has_no_task_more(run: Any):
    for hooks in ({}, {"after_release": "/missing.yml"}):
        done, report = run(hooks)
        assert done.returncode == 0
        assert {host: numbers["ok"] + numbers["skipped"] for host, numbers in report["hosts"].items()} == {"one": 1, "two": 1}
        assert "[slipway.stack.container_service : hook" not in done.stdout


def test_a_hook_runs_once_on_all_hosts_and_knows_the_run(run: Any, checkout: Path):
    done, _report = run({"before_release": tasks_file(checkout, SAY)}, version="1.1.0")
    assert done.returncode == 0
    assert sorted(re.findall(r"hook (\{.*\}) on (\w+)", done.stdout.replace("\\", ""))) == [
        ('{"name": "before_release", "version": "1.1.0"}', host) for host in ("one", "two")
    ]
    assert done.stdout.count("went on on") == 2


def test_a_relative_path_begins_where_the_run_was_started_and_files_lie_next_to_it(run: Any, checkout: Path):
    path = Path(tasks_file(checkout, [{"ansible.builtin.debug": {"msg": "{{ lookup('ansible.builtin.template', 'own.j2') }}"}}]))
    (path.parent / "own.j2").write_text("from next to it")
    done, _report = run({"before_release": str(path.relative_to(checkout))})
    assert (done.returncode, done.stdout.count("from next to it")) == (0, 2)


@pytest.mark.parametrize(
    ("hook", "said"), [("before_release", "nothing was touched"), ("after_release", "The release itself stays as it is")]
)
def test_a_hook_that_fails_ends_the_run_and_says_what_that_means(run: Any, checkout: Path, hook: str, said: str):
    task = {"name": "Try", "ansible.builtin.fail": {"msg": SECRET}, "no_log": True, "when": "inventory_hostname == 'two'"}
    path = tasks_file(checkout, [task])
    done, report = run({hook: path}, hook)
    assert done.returncode == 2
    assert "went on" not in done.stdout
    assert report["result"] == "failed"
    assert any(entry["message"].startswith(f"The hook {hook} ({path}) failed") and said in entry["message"] for entry in report["failed"])
    # Ansible itself shows it where the task has failed.
    assert SECRET not in json.dumps(report)


def test_check_mode_runs_none(run: Any, checkout: Path):
    done, _report = run({"before_release": tasks_file(checkout, SAY)}, arguments=("--check",))
    assert done.returncode == 0
    assert "hook {" not in done.stdout


def wrong(hooks: Any) -> list[str]:
    return [f"{problem.path} {problem.sentence}" for problem in forms.problems(FORM, hooks)]


@pytest.fixture
def why(tmp_path: Path):
    """Return what is wrong with a hook's file of this text, next to further files."""

    def why(text: str, further: dict[str, str] | None = None) -> str:
        for name, content in {"own.yml": text, **(further or {})}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        loader = DataLoader()
        # Roles are looked for below it.
        loader.set_basedir(str(tmp_path))
        variables = VariableManager(loader, InventoryManager(loader, ["one,"]))
        play = Play.load({"hosts": "all", "gather_facts": False}, variables, loader)
        return hook_files.problem(str(tmp_path / "own.yml"), play, loader).replace(f"{tmp_path}/", "")

    return why


GOOD = "- ansible.builtin.debug:\n"
MISSPELLED = "- name: Say\n  ansible.builtin.debgu:\n"
UNKNOWN = "couldn't resolve module/action 'ansible.builtin.debgu'"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # Of YAML
        ("- ansible.builtin.debug:\n    msg: [\n", "own.yml:3: YAML parsing failed"),
        ("\x00", "own.yml: "),
        ("---\n", "own.yml: it is not a list of tasks"),
        ("ansible.builtin.debug:\n", "own.yml:1: it is not a list of tasks"),
        (GOOD + "- debug\n", "own.yml:2: a task is a dictionary with a module"),
        (GOOD + "- {}\n", "own.yml:2: a task is a dictionary with a module"),
        # Of tasks
        (MISSPELLED, f"own.yml:1: {UNKNOWN}"),
        (GOOD + "- block:\n    - ansible.builtin.debug:\n  rescue:\n    - ansible.builtin.debgu:\n", f"own.yml:5: {UNKNOWN}"),
        (GOOD + "- ansible.builtin.debug:\n  ansible.builtin.copy: {}\n", "own.yml:2: conflicting action statements"),
        ("- name: Nothing\n", "own.yml:1: no module/action detected in task."),
        ("- block: [debug]\n", "own.yml:1: A malformed block was encountered"),
        ("- ansible.builtin.include_tasks: x.yml\n  become: true\n", "own.yml:1: 'become' is not a valid attribute for a TaskInclude"),
        ("- ansible.builtin.debug:\n  wen: x\n", "own.yml:1: conflicting action statements: ansible.builtin.debug, wen"),
        ("- hosts: all\n  tasks: []\n", "own.yml:1: "),
        ("- ansible.builtin.import_tasks: missing.yml\n", "own.yml"),
        ("- ansible.builtin.import_role: {name: missing}\n", "own.yml:1: The role 'missing' was not found"),
        # What Ansible raises when such a task runs
        ("- ansible.builtin.meta: end_play\n", "own.yml:1: meta: end_play would end the run"),
        ("- ansible.builtin.meta: flush\n", "own.yml:1: meta: flush would end the run"),
        ("- ansible.builtin.debug:\n  notify: Reload it\n", "own.yml:1: notify would end the run"),
    ],
)
def test_a_file_at_which_ansible_would_end_the_run_is_refused(why: Any, text: str, said: str):
    assert why(text).startswith(said)


@pytest.mark.parametrize(
    "how", ["include_tasks: sub/more.yml", "import_tasks: sub/more.yml", "include_tasks: {file: sub/more.yml, apply: {tags: x}}"]
)
def test_so_is_one_that_includes_such_a_file(why: Any, how: str):
    text = f"{GOOD}- ansible.builtin.{how}\n"
    assert why(text, {"sub/more.yml": "- ansible.builtin.include_tasks: last.yml\n", "sub/last.yml": GOOD}) == ""
    assert why(text, {"sub/last.yml": MISSPELLED}).startswith(f"sub/last.yml:1: {UNKNOWN}")
    assert why(text, {"sub/more.yml": "x: 1\n"}).startswith("sub/more.yml:1: ")


def test_a_file_that_ansible_takes_for_another_is_refused(why: Any):
    assert why("- include_tasks: main.yml\n", {"main.yml": GOOD}).startswith("own.yml:1: main.yml is a file of Slipway")
    assert why("- import_tasks: main.yml\n", {"main.yml": GOOD}) == ""


@pytest.mark.parametrize("how", ["include_role", "import_role"])
def test_so_is_one_that_includes_a_role_with_such_a_file(why: Any, how: str):
    text, tasks = (
        f"- ansible.builtin.{how}: {{name: own}}\n",
        "- ansible.builtin.meta: end_role\n- ansible.builtin.include_tasks: more.yml\n",
    )
    handler = "- name: Reload it\n  ansible.builtin.debug:\n"
    good = {
        "roles/own/tasks/main.yml": tasks,
        "roles/own/tasks/more.yml": f"{GOOD}  notify: Reload it\n",
        "roles/own/handlers/main.yml": handler,
    }
    assert why(text, good) == ""
    assert why(text, {"roles/own/tasks/more.yml": MISSPELLED}).startswith(f"roles/own/tasks/more.yml:1: {UNKNOWN}")


@pytest.mark.parametrize(
    "text",
    [
        "- name: Say\n  ansible.builtin.debug:\n    msg: !unsafe '{{ x'\n",
        "- debug: msg={{ slipway_hook.name }}\n",
        "- block:\n    - ansible.builtin.debug:\n  rescue:\n    - ansible.builtin.debug:\n  always:\n    - ansible.builtin.debug:\n",
        "- ansible.builtin.meta: flush_handlers\n",
        # Known later
        "- ansible.builtin.include_tasks: '{{ ansible_os_family }}.yml'\n",
        "- ansible.builtin.include_role: {name: '{{ item }}'}\n  loop: [a]\n",
        # Whose failure a rescue handles
        "- ansible.builtin.include_tasks: missing.yml\n",
        "- ansible.builtin.include_role: {name: missing}\n",
        # Once more with another condition
        "- ansible.builtin.include_tasks: own.yml\n  when: false\n",
    ],
)
def test_any_other_file_of_tasks_is_taken(why: Any, text: str):
    assert why(text) == ""


def test_a_run_with_such_a_file_touches_nothing(checkout: Path, play: Any):
    hosts = checkout / "inventories/test/hosts.yml"
    hosts.write_text(hosts.read_text().replace("stores:", "redis:"))
    path = Path(tasks_file(checkout, []))
    path.write_text(MISSPELLED)
    (checkout / "inventories/test/group_vars/all/own.yml").write_text(json.dumps({"slipway_hooks": {"before_migrate": str(path)}}))
    done = play("logs")
    said = " ".join(done.stdout.split())
    assert (done.returncode, "Read the logs" in done.stdout) == (2, False)
    assert f"slipway_hooks.before_migrate names a file that Ansible cannot run, inventories/test/hooks/own.yml:1: {UNKNOWN}" in said


@pytest.mark.parametrize(
    ("hooks", "said"),
    [
        ({"before_release": "/missing.yml"}, ".before_release must be a file of tasks: No such file or directory"),
        ({"before_release": "/etc"}, ".before_release must be a file of tasks: Is a directory"),
        ({"before_release": ["x.yml"]}, ".before_release must be the path of a file of tasks"),
        ({"before_relase": "/x.yml"}, ".before_relase is unknown there (did you mean before_release?)"),
        (["x.yml"], " must be a dictionary"),
    ],
)
def test_what_is_not_a_hook_is_refused(hooks: Any, said: str):
    (found,) = wrong(hooks)
    assert found.startswith(said)


def test_each_hook_is_called_and_its_failure_has_a_meaning(root: Path):
    texts = "".join(path.read_text() for folder in ("roles", "playbooks") for path in (root / folder).rglob("tasks/**/*.yml"))
    called = set(re.findall(r"container_service_hook: (?:>-\s+)?.*?\b((?:before|after)_[a-z]+)", texts))
    meanings = yaml.safe_load((root / "roles/container_service/vars/main.yml").read_text())["__container_service_hooks_failed"]
    assert called == set(meanings) == set(FORM.fields) == set(plain_yaml(root / "meta/forms.yml")["shared"]["slipway_hooks"]["fields"])
