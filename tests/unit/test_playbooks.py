# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all playbooks have in common: whether they keep away from a release that is under way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ROOT, Run

PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
LOCKS = {"hold.yml", "idle.yml"}


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


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_every_playbook_heeds_the_release_lock_or_says_why_not(path: Path) -> None:
    text = path.read_text()
    files = {file for role, file in map(included, tasks_of(yaml.safe_load(text))) if role == "release"}
    needless = "# Takes no release lock: " in text
    assert needless != bool(files & (LOCKS | {"main.yml"})) or "import_playbook" in text
    # What is taken is given back, in the same playbook.
    assert ("hold.yml" in files) <= ("let_go.yml" in files or path.stem == "destroy")


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
                                "members": ["one"],
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
