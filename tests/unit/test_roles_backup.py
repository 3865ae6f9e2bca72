# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backup role declares: a container that holds its secrets in files, and timers as they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.plugin_utils.digest import digest_key, keyed_digest
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import ansible_home
from conftest import ROOT, Run, role_variable

SECRETS = {
    "backup_postgres_password": "postgres:pass\\word-1",
    "backup_redis_password": "redis-password-1",
    "backup_offsite_password": "offsite-password-1",
    "backup_offsite_ssh_key": "private-key-1",
    "backup_offsite_environment": {"AWS_SECRET_ACCESS_KEY": "access-key-1"},
}
UNITS = "/etc/systemd/system/slipway-shop-"
ALL_STORES = {"backup_postgres_host": "postgres", "backup_redis_host": "10.0.0.4", "backup_chroma_url": "http://chroma:8000"}


def variable(name: str, **inputs: Any) -> Any:
    return role_variable("backup", name, {**SECRETS, "backup_stack": "shop", **inputs})


def declaration(**inputs: Any) -> dict[str, Any]:
    """Return the role's declaration as container_service gets it."""
    return dict(variable("__backup_services", **inputs)[0])


def config(**inputs: Any) -> dict[str, Any]:
    """Return what the program reads."""
    return dict(json.loads(declaration(**inputs)["config"]["backup.json"]["content"]))


def test_secrets_are_in_secret_files_only() -> None:
    service = declaration(**ALL_STORES)
    secrets = service.pop("secrets")
    rest = json.dumps(service)
    for value in (*[text for text in SECRETS.values() if isinstance(text, str)], "access-key-1"):
        assert json.dumps(value)[1:-1] not in rest
    assert secrets["pgpass"]["content"].strip() == "*:*:*:backup:postgres\\:pass\\\\word-1"
    assert json.loads(secrets["offsite_environment"]["content"]) == SECRETS["backup_offsite_environment"]


def test_the_whole_program_is_part_of_the_configuration() -> None:
    folder = ROOT / "packages/slipway_backup/src"
    program = {str(path.relative_to(folder)) for path in folder.rglob("*.py")}
    service = declaration()
    assert set(service["config"]) == {*program, "backup.json"}
    assert service["config"]["slipway_backup/run.py"]["content"] == (folder / "slipway_backup/run.py").read_text()


def test_a_store_without_an_address_is_left_out() -> None:
    assert [config()[store] for store in ("postgres", "redis", "chroma")] == [{}, {}, {}]
    told = config(**ALL_STORES)
    assert told["postgres"]["host"] == "postgres"
    assert told["redis"] == {"host": "10.0.0.4", "port": 6379, "user": "backup"}
    assert told["chroma"]["url"] == "http://chroma:8000"


@pytest.mark.parametrize(
    ("schedule", "drills", "units"),
    [
        ("*-*-* 02:15:00", "after", ["backup.service", "backup.timer", "drill.service"]),
        ("*-*-* 02:15:00", "Sun 04:00", ["backup.service", "backup.timer", "drill.service", "drill.timer"]),
        ("never", "never", ["backup.service", "drill.service"]),
    ],
)
def test_timers_are_those_that_are_asked_for(schedule: str, drills: str, units: list[str]) -> None:
    files = declaration(backup_schedule=schedule, backup_drill_schedule=drills)["host_files"]
    assert sorted(files) == [UNITS + unit for unit in units]
    start = next(line for line in files[f"{UNITS}backup.service"]["content"].splitlines() if line.startswith("ExecStart="))
    assert start.endswith("--drill") is (drills == "after")
    for unit in units:
        content = files[UNITS + unit]["content"]
        if unit.endswith(".timer"):
            assert f"OnCalendar={schedule if unit == 'backup.timer' else drills}" in content
            assert "Persistent=true" in content
            assert "RandomizedDelaySec=900" in content


@pytest.mark.parametrize(
    ("there", "repository", "accepted", "refused"),
    [
        ("offsite-password-1", "rest:there", False, False),
        ("offsite-password-0", "rest:there", False, True),
        ("offsite-password-0", "rest:there", True, False),
        ("offsite-password-0", "", False, False),
        # A new host, as after the loss of the former one.
        (None, "rest:there", False, False),
    ],
)
def test_the_password_of_off_site_copies_is_not_replaced(there: str | None, repository: str, accepted: bool, refused: bool) -> None:
    digest = keyed_digest(digest_key(str(ansible_home())), there or "")
    files = {"/etc/slipway/shop/backup/secrets/offsite_password": {"digest": digest}} if there else {}
    state = {"host": {"cores": 2}, "files": files}
    inputs = {"backup_offsite_repository": repository, "backup_accept_offsite_password": accepted}
    mistakes = variable("__backup_mistakes", container_service_host_state=state, **inputs)
    assert len(mistakes) == refused
    for text in mistakes:
        assert "copies in rest:there can be read" in text
        assert "-e backup_accept_offsite_password=true" in text
        assert "offsite-password-" not in text


def state_of(timers: list[str], loaded: str) -> dict[str, Any]:
    files: dict[str, Any] = {f"{UNITS}{timer}.timer": {} for timer in timers}
    files |= {f"/etc/systemd/system/timers.target.wants/slipway-shop-{timer}.timer": {"link": "…"} for timer in timers}
    return {"host": {"memory_mb": 8000, "cores": 2}, "files": {**files, "/etc/slipway/shop/backup/timers": {"link": loaded}}}


def test_timers_are_set_when_they_differ_and_only_then() -> None:
    def differs(state: dict[str, Any], **inputs: Any) -> bool:
        return bool(variable("__backup_timer_plan", container_service_host_state=state, **inputs)["differs"])

    loaded = str(variable("__backup_timer_plan", container_service_host_state=state_of([], ""))["units"])
    assert not differs(state_of(["backup"], loaded))
    assert differs(state_of(["backup"], "")), "systemd has not loaded them yet"
    assert differs(state_of([], loaded)), "someone has disabled it"
    assert differs(state_of(["backup"], loaded), backup_schedule_jitter=60)
    other = state_of(["backup", "drill"], loaded)
    assert differs(other), "a timer that is not wanted any more"
    assert variable("__backup_timer_plan", container_service_host_state=other)["stale"] == ["slipway-shop-drill.timer"]


def test_the_offsite_volume_is_mounted_where_one_is_named() -> None:
    assert [volume["path"] for volume in declaration()["volumes"]] == ["/backup"]
    volumes = declaration(backup_offsite_volume="elsewhere")["volumes"]
    assert volumes[1] == {"name": "elsewhere", "path": "/offsite", "variable": "backup_offsite_volume"}


@pytest.mark.parametrize(
    ("role", "file", "variables"),
    [
        ("backup", "run.yml", {}),
        ("backup", "run.yml", {"backup_start_over": "s"}),
        ("backup", "drill.yml", {}),
        ("restore", "list.yml", {"restore_offsite_repository": ""}),
    ],
    ids=["point", "start over", "drill", "list"],
)
def test_a_host_without_the_stack_has_no_points_and_makes_none(
    checkout: Path, play: Run, role: str, file: str, variables: dict[str, Any]
) -> None:
    (checkout / "inventories/test/hosts.yml").write_text("backup: {hosts: {one: {ansible_connection: local}}}\n")
    (checkout / "roles/container_service/tasks/read.yml").write_text("[]")
    task = {
        "name": "Run",
        "ansible.builtin.include_role": {"name": f"slipway.stack.{role}", "tasks_from": file, "rolespec_validate": False},
    }
    (checkout / "playbooks/point.yml").write_text(json.dumps([{"hosts": "backup", "gather_facts": False, "tasks": [task]}]))
    known = {"container_service_host_state": {"containers": {}, "files": {}, "images": {}}, "slipway_stack": "s"}
    run = play("point", "-e", json.dumps({**known, **variables}))
    assert run.returncode != 0
    assert "Nothing was touched: one makes no backups of the stack s yet. Run site.yml first" in " ".join(run.stdout.split())
    assert "changed=0" in run.stdout
