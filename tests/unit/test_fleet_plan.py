# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is compared in one task for a whole fleet: the roles that have something to do, why, and mistakes of all hosts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader

from ansible_collections.slipway.stack.plugins.filter.scram_sha_256 import scram_sha_256
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import HostView
from conftest import ansible

STATE: dict[str, Any] = {
    "host": {"memory_mb": 8000, "cores": 4},
    "engine": {"api_version": "1.45", "available": True},
    "containers": {},
    "foreign_containers": {},
    "files": {},
    "images": {},
    "volumes": {},
    "networks": {},
    "queries": {},
}
PLAYBOOK = """
- hosts: all
  gather_facts: false
  connection: local
  tasks:
    - slipway.stack.fleet_plan:
        roles:
          - {group: all, role: redis}
          - {group: empty, role: chroma}
          - {group: postgres, role: postgres}
        variables: {redis: {redis_memory_mb: 512}}
        release: "{{ released | default(omit) }}"
      run_once: true
      register: fleet
    - ansible.builtin.copy: {content: "{{ fleet | to_json }}", dest: "{{ playbook_dir }}/fleet.json"}
      run_once: true
      delegate_to: localhost
"""
INVENTORY = "[redis]\none\ntwo\n[postgres]\ntwo\n"
INPUTS = {
    "container_service_host_state": STATE,
    "redis_app_password": "x" * 32,
    "redis_admin_password": "y" * 32,
    "postgres_superuser_password": "x" * 32,
    "postgres_owner_password": "y" * 32,
    "postgres_app_password": "z" * 32,
}


def compare(checkout: Path, **inputs: Any) -> tuple[dict[str, Any], str]:
    """Return what the task found on two hosts on which nothing runs, and all that was printed."""
    (checkout / "fleet.yml").write_text(PLAYBOOK)
    (checkout / "fleet.ini").write_text(INVENTORY)
    given = {name: value for name, value in (INPUTS | inputs).items() if value is not None}
    done = ansible("ansible-playbook", "fleet.yml", "-i", "fleet.ini", "-e", json.dumps(given), cwd=checkout)
    file = checkout / "fleet.json"
    return json.loads(file.read_text()) if file.exists() else {}, done.stdout + done.stderr


def test_roles_with_something_to_do_are_named_with_the_reasons(checkout: Path) -> None:
    """In the order given, each with the hosts it concerns; a role whose group has no host is not asked."""
    found, output = compare(checkout)
    assert found, output
    assert found["roles"] == ["redis", "postgres"]
    assert found["reasons"]["redis"] == {
        "one": ["redis: the container does not exist"],
        "two": ["redis: the container does not exist"],
    }
    assert list(found["reasons"]["postgres"]) == ["two"]
    assert not found["changed"]
    for value in ("x" * 32, "y" * 32, "z" * 32):
        assert value not in json.dumps(found)


def test_mistakes_end_the_run_before_anything_is_touched(checkout: Path) -> None:
    """The message names the host and the variable."""
    found, output = compare(checkout, postgres_app_name="postgres")
    assert not found
    assert "two: the names of PostgreSQL's roles are postgres, slipway_reader, app_owner, postgres" in " ".join(output.split())


def test_a_role_that_would_lose_the_password_of_the_product_ends_the_run_before_anything_is_touched(checkout: Path) -> None:
    """As with the values that a manager has after a rotation; the message holds no password."""
    new = "n" * 32
    made = hashlib.sha256(scram_sha_256(new, salt="app/app").encode()).hexdigest()[:8]
    state = {
        **STATE,
        "containers": {"shop-postgres": {"image": "postgres:17", "volumes": {}}},
        "queries": {"shop-postgres": {"rc": 0, "answer": {"password_ids": {"app": made}}}},
    }
    found, output = compare(checkout, container_service_host_state=state, postgres_second_logins=[{"role": "app", "password": new}])
    assert not found
    assert "two: PostgreSQL's role app already has the new password" in " ".join(output.split())
    assert new not in output


def test_obstacles_of_all_hosts_are_reported_at_once(checkout: Path) -> None:
    """As when a second stack comes to a host: both stores' volumes are the first one's."""
    volumes = {name: {"labels": {"slipway.stack": "shop"}} for name in ("redis_data", "postgres_data")}
    found, output = compare(checkout, container_service_host_state={**STATE, "volumes": volumes})
    assert not found
    for host, variable in (("one", "redis_volume"), ("two", "redis_volume"), ("two", "postgres_volume")):
        name = variable.replace("volume", "data")
        assert f"{host}: volume {name} exists and is that of the stack shop: name another in {variable}" in " ".join(output.split())


def test_an_obstacle_is_reported_with_the_place_of_the_input_to_change(checkout: Path) -> None:
    own = checkout / "host_vars/one.yml"
    own.parent.mkdir()
    own.write_text("---\nredis_volume: orders\n")
    volumes = {"orders": {"labels": {"slipway.stack": "shop"}}}
    found, output = compare(checkout, container_service_host_state={**STATE, "volumes": volumes})
    assert not found
    told = "one: volume orders exists and is that of the stack shop: name another in redis_volume (host_vars/one.yml:2)"
    assert told in " ".join(output.split())


def test_the_place_of_a_member_is_that_of_its_innermost_key(tmp_path: Path) -> None:
    path = tmp_path / "own.yml"
    path.write_text("slipway_extra_services:\n  search:\n    image: a:1\n    volumes:\n      - {name: x1, path: /x}\n")
    view = HostView(DataLoader().load_from_file(str(path)), {}, {}, None)
    for keys, line in ((".search.volumes", 4), (".search.user", 2), (".mails", 2)):
        assert view.place(f"slipway_extra_services{keys}") == f"{path}:{line}", keys


@pytest.mark.parametrize(
    "result", [{}, {"unreachable": True, "msg": "no route"}, {"failed": True, "msg": "no space"}, {"failed": True, "host": {}}]
)
def test_a_host_that_was_not_read_has_no_state_in_the_mesh_either(result: dict[str, Any]) -> None:
    view = HostView({"container_service_host_state": result, "slipway_mesh": True, "slipway_service_address": "10.0.0.1"}, {}, {}, None)
    assert view.state() is None


def test_volumes_are_taken_over_where_a_string_says_so(checkout: Path) -> None:
    """As after -e container_service_adopt_volumes=false: any text would be true for Python."""
    there = {**STATE, "volumes": {"redis_data": {"labels": {}}}}
    assert compare(checkout, container_service_host_state=there, container_service_adopt_volumes="true")[0]
    (checkout / "fleet.json").unlink()
    found, output = compare(checkout, container_service_host_state=there, container_service_adopt_volumes="false")
    assert not found
    assert "one: volume redis_data exists and is not of the stack" in " ".join(output.split())


def test_a_value_that_cannot_be_had_is_named(checkout: Path) -> None:
    """Host and variable are in the message."""
    found, output = compare(checkout, redis_maxmemory_policy="{{ not_there }}")
    assert not found
    assert "one: __redis_services cannot be evaluated" in " ".join(output.split())
    assert "not_there" in output


RECORDED = {"seen": True, "record": {"data": {"redis": ["one", "two"], "postgres": ["db0"]}}}


@pytest.mark.parametrize("there", [{}, {"redis_data": {"labels": {"slipway.stack": "slipway"}, "empty": True}}], ids=["missing", "empty"])
def test_a_store_does_not_begin_without_the_data_that_the_product_had(checkout: Path, there: dict[str, Any]) -> None:
    """The host that has it may be lost, or have left the inventory: it cannot be asked."""
    found, output = compare(checkout, container_service_host_state={**STATE, "volumes": there}, released=RECORDED)
    assert not found
    said = " ".join(output.split())
    assert f"one: the volume redis_data {'is empty' if there else 'does not exist'} here" in said
    assert "two: the volume postgres_data does not exist here, and the product that was released has had this data on db0" in said


def test_a_record_of_an_earlier_version_does_not_say_which_stores_there_were(checkout: Path) -> None:
    """Files of one on a host say it: the other may be new."""
    files = {"/etc/slipway/slipway/postgres/config/loaded": {"content": "a"}}
    older = {"seen": True, "record": {"data": None}}
    found, output = compare(checkout, container_service_host_state={**STATE, "files": files}, released=older)
    assert not found
    said = " ".join(output.split())
    assert "two: the volume postgres_data does not exist here, and the product that was released has had this data on one, two" in said
    assert "one: the volume redis_data does not exist here, and it is not known whether the product that was released has had" in said


@pytest.mark.parametrize(
    "more",
    [
        {"released": {"seen": True, "record": None}},
        {"released": {"seen": True, "record": {"data": {}}}},
        {"released": RECORDED, "accept": "empty"},
        {"released": RECORDED, "accept": "restart,empty"},
        {"released": {"seen": False, "record": None}, "accept": "empty"},
    ],
    ids=["first deployment", "new stores", "accepted", "both accepted", "accepted without the record"],
)
def test_a_store_may_begin_without_data(checkout: Path, more: dict[str, Any]) -> None:
    found, output = compare(checkout, **more)
    assert found, output
    assert found["roles"] == ["redis", "postgres"]


def test_a_run_that_leaves_out_who_knows_does_not_make_a_store(checkout: Path) -> None:
    found, output = compare(checkout, released={"seen": False, "record": None})
    assert not found
    assert "two: the volume postgres_data is empty, and this run leaves out the app hosts and balancers" in " ".join(output.split())


def test_a_store_does_not_leave_its_data_on_a_host_that_has_left_the_group(checkout: Path) -> None:
    """Its container is gone, as preflight has asked for."""
    there = {"labels": {"slipway.stack": "slipway"}, "empty": False}
    full = {**STATE, "volumes": {"postgres_data": there, "redis_data": there}}
    states = {"one": full, "two": {**STATE, "volumes": {"redis_data": there}}}
    for host, state in states.items():
        own = checkout / f"host_vars/{host}.json"
        own.parent.mkdir(exist_ok=True)
        own.write_text(json.dumps({"container_service_host_state": state}))
    found, output = compare(checkout, container_service_host_state=None)
    assert not found
    said = " ".join(output.split())
    assert "two: the volume postgres_data is empty here, and its data is on one, where no container uses it any more" in said
    assert "redis_data" not in said.partition("[ERROR]")[2]
    assert compare(checkout, container_service_host_state=None, accept="empty")[0]
