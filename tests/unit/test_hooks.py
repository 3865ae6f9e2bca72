"""The user's own tasks before and after what a playbook does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.slipway.stack.plugins.plugin_utils import forms
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- ansible.builtin.debug:\n    msg: [\n", "must be a file of tasks: line 3: "),
        ("---\n", "must be a file with a list of tasks"),
        ("ansible.builtin.debug:\n", "must be a file with a list of tasks"),
        ("- debug\n", "must be a file with a list of tasks"),
        ("\x00", "must be a file of tasks"),
    ],
)
def test_a_file_that_is_not_one_of_tasks_is_refused(tmp_path: Path, text: str, said: str):
    (tmp_path / "own.yml").write_text(text)
    (found,) = wrong({"before_release": str(tmp_path / "own.yml")})
    assert found.startswith(f".before_release {said}")


def test_a_file_of_tasks_is_taken_with_what_is_ansibles(tmp_path: Path):
    (tmp_path / "own.yml").write_text("- name: Say\n  ansible.builtin.debug:\n    msg: !unsafe '{{ x'\n")
    assert wrong({"after_restore": str(tmp_path / "own.yml")}) == []


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
