from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.slipway.stack.plugins.plugin_utils.rotation import (
    OF_SECOND_LOGINS,
    SECRETS,
    RotationError,
    Values,
    advanced,
    begun,
    names_of,
    undone,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import with_values

OLD, NEW = "t7Hq2Lw9Zx4Nv6Bk8Mr3", "9Zx4Nv6Bk8Mr3t7Hq2Lw"


@pytest.mark.parametrize("name", SECRETS.values())
def test_a_rotation_goes_through_its_stages_and_ends(name: str):
    values, stages = begun(Values(OLD), lambda: NEW), []
    for _unused in range(4):
        # What a run that is repeated here does.
        assert begun(values, lambda: "another") == values or values.stage == "steady"
        stages.append(values.stage)
        assert OLD in (values.current, values.previous) or stages[-1] in ("settling", "steady")
        values = advanced(name, values)
    settling = ["settling"] if name in OF_SECOND_LOGINS else []
    assert stages[: 2 + len(settling)] == ["accepted", "used", *settling]
    assert values == Values(NEW)


def test_a_rotation_is_undone_as_long_as_the_old_secret_is_valid():
    accepted = Values(OLD, following=NEW)
    assert undone("x", accepted) == accepted
    assert undone("x", Values(NEW, previous=OLD)) == accepted
    with pytest.raises(RotationError, match="completes the rotation"):
        undone("x", Values(NEW, NEW))


def test_what_an_environment_does_not_have_is_not_rotated():
    assert names_of("all", ["vault_app_secret_key", "vault_other"]) == ["vault_app_secret_key"]
    with pytest.raises(RotationError, match="no vault_redis_app_password"):
        names_of("redis_app", ["vault_app_secret_key"])


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


def test_each_stage_is_written_encrypted_and_the_file_before_is_kept_to_the_end(rotating: Path, play):
    def stage(step: str, *more: str, **environment: str) -> dict[str, str]:
        done = play("step", "-e", "what=redis_app", "-e", f"step={step}", *more, SLIPWAY_VAULT_PASSWORD="of the run", **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        text = VaultLib([("default", VaultSecret(b"of the run"))]).decrypt(rotating.read_bytes()).decode()
        found = yaml.safe_load(text)
        assert found.pop("vault_app_secret_key") == f"{NEW}x"
        assert "# kept" in text
        assert not [value for value in found.values() if value in done.stdout + done.stderr]
        return found

    kept = rotating.with_name("vault.yml.before_rotation")
    before = rotating.read_bytes()
    assert stage("begin", "--check") == {"vault_redis_app_password": OLD}
    accepted = stage("begin")
    assert accepted["vault_redis_app_password"] == OLD
    assert stage("begin") == accepted
    used = stage("advance")
    assert used == {"vault_redis_app_password": accepted["vault_redis_app_password_next"], "vault_redis_app_password_previous": OLD}
    assert kept.read_bytes() == before
    assert stage("begin", "-e", "undo=true") == accepted
    assert stage("advance", "-e", "undo=true") == {"vault_redis_app_password": OLD}
    assert not kept.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["what=postgres_app"], "this environment has no vault_postgres_app_password"),
        (["what=redis_app", "vault_redis_app_password_next=x"], "vault_redis_app_password_next after -e would stay the same"),
        (["what=secret_key"], "the product has no secret that is made of slipway_secret_key_accepted"),
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
    assert rotating.read_bytes() == before
