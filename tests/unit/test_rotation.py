from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.template import Templar

from ansible_collections.slipway.stack.plugins.plugin_utils.rotation import (
    NAMES,
    OF_SECOND_LOGINS,
    RotationError,
    Values,
    advanced,
    begun,
    ended,
    names_of,
    undone,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import with_values

OLD, NEW = "t7Hq2Lw9Zx4Nv6Bk8Mr3", "9Zx4Nv6Bk8Mr3t7Hq2Lw"


@pytest.mark.parametrize("name", NAMES)
def test_a_rotation_goes_through_its_stages_and_ends(name: str):
    values, stages = begun(Values(OLD), lambda: NEW), []
    for _unused in range(4):
        # What a run that is repeated here does.
        assert begun(values, lambda: "another") == values or values.stage == "steady"
        stages.append(values.stage)
        assert OLD in (values.current, values.previous) or values.retired == OLD
        values = advanced(name, values)
    settling = ["settling"] if name in OF_SECOND_LOGINS else []
    assert stages == ["accepted", "used", *settling, "retired", "retired"][:4]
    # To the end, so that a run that is repeated in the last stage tries the old one too.
    assert begun(values, lambda: "another") == values == Values(NEW, retired=OLD)
    assert ended(values) == Values(NEW)


def test_a_rotation_is_undone_as_long_as_the_old_secret_is_valid():
    accepted = Values(OLD, following=NEW)
    assert undone("x", accepted) == accepted
    assert undone("x", Values(NEW, previous=OLD)) == accepted
    assert advanced("x", accepted, undo=True) == Values(OLD, retired=NEW)
    for values in (Values(NEW, NEW, retired=OLD), Values(NEW, retired=OLD)):
        with pytest.raises(RotationError, match="completes the rotation"):
            undone("x", values)


def test_what_an_environment_does_not_have_is_not_rotated():
    assert names_of("all", ["vault_app_secret_key", "vault_other"]) == ["vault_app_secret_key"]
    with pytest.raises(RotationError, match="no vault_redis_app_password"):
        names_of("redis_app", ["vault_app_secret_key"])
    with pytest.raises(RotationError, match="no vault_mesh_preshared_secret, so there is no mesh to rotate"):
        names_of("mesh", ["vault_app_secret_key"])
    # A stack without Redis has backups too.
    assert names_of("backup", ["vault_postgres_backup_password"]) == ["vault_postgres_backup_password"]


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("---\n# why\nvault_a: 'x'  # mine\nvault_b: y\n", '---\n# why\nvault_a: "1"\nvault_b: y\nvault_c: "2"\n'),
        ("vault_a: !vault |\n  $ANSIBLE\n  6162\n\nvault_c: x\nvault_b: y", 'vault_a: "1"\nvault_c: "2"\nvault_b: y\n'),
        ("vault_d: z\nvault_b: y\n", 'vault_b: y\nvault_a: "1"\nvault_c: "2"\n'),
    ],
)
def test_values_of_a_vault_file_are_replaced_added_and_removed(text: str, after: str):
    assert with_values(text, {"vault_a": "1", "vault_c": "2", "vault_d": ""}) == after


@pytest.mark.parametrize("value", ["t7Hq2Lw9 Zx4Nv6\U0001f511é", 'quote " and \\ and #', "{{ lookup('pipe', 'id') }}", "a{%b{#c"])
def test_a_value_is_read_as_it_was_written(value: str):
    found = DataLoader().load(with_values("", {"vault_a": value}))
    assert found == {"vault_a": value}
    assert Templar(DataLoader(), variables=found).template(found["vault_a"]) == value


@pytest.fixture
def rotating(checkout: Path) -> Path:
    """The vault file of the test environment, and a playbook that takes the secrets of a stage and shows how long they are."""
    folder = checkout / "inventories/test/group_vars/all"
    (folder / "names.yml").write_text("slipway_secrets: [vault_redis_app_password, vault_app_secret_key]\nslipway_fleet: {roles: []}\n")
    vault = folder / "vault.yml"
    vault.write_bytes(
        VaultLib().encrypt(f"---\n# kept\nvault_redis_app_password: {OLD}\nvault_app_secret_key: {NEW}x\n", VaultSecret(b"of the run"))
    )
    step = {"ansible.builtin.include_tasks": "tasks/rotate.yml", "vars": {"__rotate_step": "{{ step }}"}}
    (checkout / "playbooks/step.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [step]}]))
    return vault


def text_of(vault: Path) -> str:
    return VaultLib([("default", VaultSecret(b"of the run"))]).decrypt(vault.read_bytes()).decode()


def test_each_stage_is_written_encrypted_and_the_file_before_is_kept_to_the_end(rotating: Path, play):
    def stage(step: str, *more: str, **environment: str) -> dict[str, str]:
        done = play("step", "-e", "what=redis_app", "-e", f"step={step}", *more, SLIPWAY_VAULT_PASSWORD="of the run", **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        text = text_of(rotating)
        assert "is not read" not in done.stderr
        found = yaml.safe_load(text)
        assert found.pop("vault_app_secret_key") == f"{NEW}x"
        assert "# kept" in text
        assert not [value for value in found.values() if value in done.stdout + done.stderr]
        return found

    kept = rotating.with_name(".vault.yml.before_rotation")
    before = text_of(rotating)
    assert stage("begin", "--check") == {"vault_redis_app_password": OLD}
    accepted = stage("begin")
    assert accepted["vault_redis_app_password"] == OLD
    assert stage("begin") == accepted
    used = stage("advance")
    assert used == {"vault_redis_app_password": accepted["vault_redis_app_password_next"], "vault_redis_app_password_previous": OLD}
    assert text_of(kept) == before
    assert stage("begin", "-e", "undo=true") == accepted
    new = accepted["vault_redis_app_password_next"]
    undone = {"vault_redis_app_password": OLD, "vault_redis_app_password_retired": new}
    assert stage("advance", "-e", "undo=true") == undone
    # A run that was killed in the last stage goes on from there.
    assert stage("begin", "-e", '{"slipway_fleet": {"roles": ["redis"]}}') == undone
    assert kept.exists()
    assert stage("end") == {"vault_redis_app_password": OLD}
    assert not kept.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["what=postgres_app"], "this environment has no vault_postgres_app_password"),
        (["what=redis_app", "vault_redis_app_password_next=x"], "vault_redis_app_password_next after -e would stay the same"),
        (["what=secret_key"], "the product has no secret that is made of slipway_secret_key_accepted"),
        (["what=redis_app", "undo=true"], "no rotation of vault_redis_app_password is under way"),
        (["what=redis_app", '{"slipway_fleet": {"roles": ["nginx"]}}'], "hosts differ from the inventory"),
        (["what=redis_app", "slipway_secrets_source=age"], "slipway_secrets_age is not set"),
    ],
)
def test_what_cannot_be_rotated_is_refused_and_nothing_is_written(rotating: Path, play, arguments: list[str], said: str):
    before = rotating.read_bytes()
    given = [part for argument in ["step=begin", *arguments] for part in ("-e", argument)]
    done = play("step", *given, SLIPWAY_VAULT_PASSWORD="of the run")
    assert done.returncode != 0
    assert said in " ".join((done.stdout + done.stderr).split())
    # The summary, report and notification have the cause too.
    reports = rotating.parents[4] / "reports"
    assert (
        "slipway_secrets_source" in str(arguments) or said in json.loads((reports / "step-latest.json").read_text())["failed"][0]["message"]
    )
    assert rotating.read_bytes() == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([""], "add {0}_next, {1}_next to what slipway_secrets_command reads"),
        (["", "_next"], "{0}_next, {1}_next are each the value in use: add another one, or remove it. Nothing was touched"),
    ],
)
def test_all_new_values_that_a_manager_lacks_or_that_are_in_use_are_named_at_once(rotating: Path, play, given: list[str], said: str):
    names = ["vault_postgres_backup_password", "vault_redis_backup_password"]
    (rotating.parent / "names.yml").write_text(f"slipway_secrets: {names}\nslipway_fleet: {{roles: []}}\n")
    (rotating.parents[4] / "manager.json").write_text(json.dumps({name + end: OLD for name in names for end in given}))
    (rotating.parent / "20_secrets.yml").write_text("slipway_secrets_source: command\nslipway_secrets_command: [cat, ../../manager.json]\n")
    done = play("step", "-e", "step=begin", "-e", "what=backup", SLIPWAY_VAULT_PASSWORD="of the run")
    assert done.returncode != 0
    assert said.format(*names) in " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("more", "content", "said"),
    [
        ("", f"vault_redis_app_password: &same {OLD}\nvault_other: *same\n", "give each variable of it lines of its own"),
        (f"vault_redis_app_password: {NEW}\n", f"vault_redis_app_password: {OLD}\n", "vault_redis_app_password has another value than in"),
        (f"vault_redis_app_password_next: {NEW}\n", f"vault_redis_app_password: {OLD}\n", "vault_redis_app_password_next is not set in"),
    ],
    ids=["anchor", "overridden", "next elsewhere"],
)
def test_a_file_that_would_not_say_the_stage_is_not_written(rotating: Path, play, more: str, content: str, said: str):
    (rotating.parent / "zz_more.yml").write_text(f"---\n{more}")
    rotating.write_text(content)
    done = play("step", "-e", "step=begin", "-e", "what=redis_app", SLIPWAY_VAULT_PASSWORD="of the run")
    assert done.returncode != 0
    printed = " ".join((done.stdout + done.stderr).split())
    assert said in printed
    assert OLD not in printed
    assert NEW not in printed
    assert rotating.read_text() == content


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("echo 'WRONGPASS password authentication failed'; exit 2", ""),
        ("echo PONG", "Redis on one has not refused the old password of app. The product uses the new one; correct the cause"),
        ("echo 'no such container' >&2; exit 1", "The answer: no such container"),
        # After an undo: the second login had it. Once locked, it is not listed.
        ('case "$*" in *app_next*) echo 1;; *) echo "WRONGPASS password authentication failed";; esac', "the old password of app_next"),
        ('case "$*" in *owner_next*) echo 1;; *) echo "WRONGPASS password authentication failed";; esac', "the old password of owner_next"),
        ('case "$*" in *_next*) echo "no pg_hba.conf entry for host";; *) echo "WRONGPASS password authentication failed";; esac', ""),
    ],
)
def test_a_store_that_has_not_refused_the_old_password_fails_the_run_and_is_named(
    checkout: Path, play, tmp_path: Path, answer: str, said: str
):
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\nread -r given\necho "$given" >>{tmp_path}/given\n{answer}\n')
    docker.chmod(0o755)
    names = ["redis_app", "redis_backup", "postgres_app", "postgres_owner", "postgres_backup"]
    known = {
        "slipway_stack": "shop",
        "slipway_redis_hosts": ["one"],
        "slipway_postgres_hosts": ["one"],
        "redis_port": 6379,
        "postgres_port": 5432,
        "redis_app_name": "app",
        "postgres_app_name": "app",
        "postgres_owner_name": "owner",
        "postgres_database": "app",
        "redis_backup_user": {"name": "backup"},
        "postgres_backup_user": {"name": "backup"},
        "__rotate_old": {f"vault_{name}_password": OLD for name in names},
    }
    tasks = [{"ansible.builtin.include_tasks": "tasks/refused.yml"}]
    (checkout / "playbooks/step.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "vars": known, "tasks": tasks}]))
    done = play("step", PATH=f"{docker.parent}:{os.environ['PATH']}")
    assert (tmp_path / "given").read_text().split() == [OLD] * 7
    assert OLD not in done.stdout + done.stderr
    assert (done.returncode == 0) is (not said)
    printed = " ".join((done.stdout + done.stderr).split())
    assert said in printed
    if said:
        assert done.returncode == 2
        report = json.loads((checkout / "reports/step-latest.json").read_text())
        assert said in report["failed"][0]["message"]
