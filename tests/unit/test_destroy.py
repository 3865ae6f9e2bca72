# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What destroy.yml decides before anything is touched, and refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.slipway.stack.plugins.plugin_utils import destroy
from conftest import ROOT, Run

STATE: dict[str, Any] = {
    "engine": {"available": True, "error": ""},
    "tools": {"docker": True},
    "containers": {
        "shop-redis": {"owner": "redis", "labels": {"slipway.stack": "shop"}},
        "shop-nginx": {"owner": "", "labels": {}},
    },
    "foreign_containers": {"other": {"volumes": ["theirs"]}},
    "networks": {
        "shop-backend": {"labels": {"slipway.stack": "shop"}},
        "blog-backend": {"labels": {"slipway.stack": "blog"}},
        "bridge": {},
    },
    "volumes": {
        "redis_data": {"labels": {"slipway.stack": "shop"}},
        "blog_data": {"labels": {"slipway.stack": "blog"}},
        "theirs": {"labels": {}},
        "r": {"labels": {}},
        "e": {"labels": {}},
    },
}
EMPTY = {**STATE, "containers": {}, "networks": {}, "volumes": {}}


def test_names_come_from_what_was_read() -> None:
    plan = destroy.destroy_plan("shop", ["redis_data", "gone_before"], STATE)
    assert plan == {
        "problems": [],
        "owners": ["redis"],
        "containers": ["shop-nginx"],
        "networks": ["shop-backend"],
        "volumes": ["redis_data"],
        "kept_volumes": [],
        "others": ["blog"],
        "present": True,
    }
    assert destroy.destroy_plan("shop", [], STATE)["kept_volumes"] == ["redis_data"]
    assert not destroy.destroy_plan("shop", ["redis_data"], EMPTY)["present"]


@pytest.mark.parametrize(
    ("volume", "said"),
    [("blog_data", "belongs to the stack blog"), ("theirs", "is used by the container other")],
)
def test_a_foreign_volume_is_refused(volume: str, said: str) -> None:
    (problem,) = destroy.destroy_plan("shop", [volume], STATE)["problems"]
    assert volume in problem
    assert said in problem


def test_the_slot_that_is_dropped_is_that_of_the_backups() -> None:
    """And only once the server's clients are gone, but before the server is."""
    (slot,) = re.findall(r'^SLOT = "(.+)"$', (ROOT / "packages/slipway_backup/src/slipway_backup/postgres.py").read_text(), re.MULTILINE)
    assert set(re.findall(r"slot_name = '(.+?)'", (ROOT / "playbooks/files/drop_slot.sql").read_text())) == {slot}
    tasks = yaml.safe_load((ROOT / "playbooks/tasks/remove_stack.yml").read_text())
    owners = [str(task.get("slipway.stack.container_group", {}).get("owner", "slot" if "drop_slot" in str(task) else "")) for task in tasks]
    assert [owner for owner in owners if owner] == ["{{ __destroy_plan.owners | difference(['postgres']) }}", "slot", "['postgres']"]


def test_an_engine_that_does_not_answer_is_not_an_empty_host() -> None:
    state = {**EMPTY, "engine": {"available": False, "error": "connection refused"}}
    assert "connection refused" in destroy.destroy_plan("shop", [], state)["problems"][0]
    assert not destroy.destroy_plan("shop", [], {**state, "tools": {"docker": False, "dockerd": False}})["problems"]


@pytest.mark.parametrize(
    ("stack", "confirmed", "volumes", "said"),
    [
        ("..", "..", [], "slipway_stack is '..'"),
        ("", "", [], "slipway_stack is ''"),
        ("shop", "", [], "-e slipway_destroy=shop"),
        ("shop", "sho", [], "slipway_destroy is 'sho', and this inventory's stack is shop. To take"),
        ("shop", True, [], "-e slipway_destroy=shop"),
        ("shop", "shop", "redis_data", "must be a list, not a string"),
        ("shop", "shop", {"redis_data": 1}, "must be a list, not a dictionary"),
        ("shop", "shop", None, "must be a list, not null"),
        ("shop", "shop", ["../x"], "'../x', which is not the name of a volume"),
        ("shop", "shop", [""], "'', which is not the name of a volume"),
        ("shop", "shop", [1], "1, which is not the name of a volume"),
    ],
)
def test_inputs_are_checked_before_any_host_is_asked(stack: Any, confirmed: Any, volumes: Any, said: str) -> None:
    (problem,) = destroy.destroy_problems(stack, confirmed, volumes)
    assert said in problem


def test_right_inputs_pass() -> None:
    assert destroy.destroy_problems("shop", "shop", ["redis_data"]) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-e", '{"slipway_stack": ".."}', "-e", '{"slipway_destroy": ".."}'], "slipway_stack is '..'"),
        (["-e", '{"slipway_stack": ""}'], "slipway_stack is ''"),
        (["-e", "slipway_stack=shop"], "-e slipway_destroy=shop"),
        (
            ["-e", "slipway_stack=shop", "-e", "slipway_destroy=shop", "-e", "slipway_destroy_volumes=redis_data"],
            "slipway_destroy_volumes is 'redis_data', must be a list",
        ),
    ],
)
def test_the_playbook_refuses_before_it_reads_a_host(play: Run, checkout: Path, arguments: list[str], said: str) -> None:
    hosts = checkout / "inventories/test/hosts.yml"
    hosts.write_text(hosts.read_text().replace("stores:", "redis:"))
    done = play("destroy", *arguments)
    assert done.returncode != 0
    assert said in " ".join((done.stdout + done.stderr).split())
    assert "Read the state of the host" not in done.stdout
