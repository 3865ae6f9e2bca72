from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret, VaultSecretsContext

from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import hidden_of
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import (
    names_in,
    new_secret,
    secret_problem,
    spellings,
    with_new_secrets,
    without,
)

NAMES = ["vault_a_password", "vault_b_password"]


@pytest.fixture
def vault(checkout: Path) -> Path:
    """The test environment's vault file, still missing, with two secrets asked for."""
    folder = checkout / "inventories/test/group_vars/all"
    (folder / "names.yml").write_text(f"slipway_secrets: {NAMES}\n")
    return folder / "vault.yml"


def content(vault: Path, password: str) -> dict[str, str]:
    return yaml.safe_load(VaultLib([("default", VaultSecret(password.encode()))]).decrypt(vault.read_bytes()))


def password_of(vault: Path) -> str:
    return (vault.parents[4] / ".vault-password").read_text().strip()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "is not set"),
        (12345678901234567890, "must be a string, not int: quote the value"),
        ("t7Hq2Lw9Zx4Nv6Bk8Mr3\n", "begins or ends with a blank"),
        (" t7Hq2Lw9Zx4Nv6Bk8Mr3", "begins or ends with a blank"),
        ("t7Hq2Lw9Zx4Nv\t6Bk8Mr3", "holds a control character"),
        ("t7Hq2Lw9Zx4Nv\n6Bk8Mr3", "holds a control character"),
        ("", "is empty"),
        ("   ", "is empty"),
        ("CHANGE_ME", "is a placeholder"),
        ("changeme-changeme-changeme", "is a placeholder"),
        ("please-replace-me-with-a-secret", "is a placeholder"),
        ("an-example-that-is-long-enough", "is a placeholder"),
        ("<your secret goes here please>", "is a placeholder"),
        ("MyPassword1234567890", "is a placeholder"),
        ("x7Gk2pQ9", "is too short: 8 characters"),
        ("abababababababababab", "is too simple: 2 different"),
    ],
)
def test_bad_secrets_are_described_and_never_shown(value: object, problem: str):
    said = secret_problem(value)
    assert said is not None
    assert said.startswith(problem)
    if isinstance(value, str) and len(value) > 4:
        assert value not in said


def test_new_secrets_are_long_safe_and_each_other():
    made = {new_secret() for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(r"[A-Za-z0-9]{40}", value) for value in made)
    assert not any(secret_problem(value) for value in made)


def test_the_content_of_the_file_is_kept_to_the_letter():
    text = "---\n# why\nvault_a: 'x'  # mine\nnested:\n  vault_b: 1\n"
    assert names_in(text) == {"vault_a", "nested"}
    grown = with_new_secrets(text, ["vault_b"])
    assert grown.startswith(text)
    assert set(yaml.safe_load(grown)) == {"vault_a", "nested", "vault_b"}


@pytest.mark.parametrize("name", ["vault_a", "not a name", "a: b"])
def test_names_that_are_set_or_none_are_refused(name: str):
    with pytest.raises(ValueError, match=re.escape(name)):
        with_new_secrets("vault_a: x\n", [name])


def of_inventory(folder: Path, monkeypatch: pytest.MonkeyPatch, password: str) -> dict[str, object]:
    """Return variables of an inventory that write a secret in each way, read with a password."""
    clear = {name: f"{name}-4Nv6Bk8Mr3" for name in ("under_vault", "under_another", "in_a_dictionary", "in_a_list")}
    secret = {
        name: "!vault |\n" + VaultLib().encrypt(text, VaultSecret(b"of the run")).decode().replace("$", "    $", 1).replace("\n", "\n    ")
        for name, text in clear.items()
    }
    (folder / "all.yml").write_text(
        f"vault_a: {secret['under_vault']}\napp_token: {secret['under_another']}\n"
        f"app_environment:\n  TOKEN: {secret['in_a_dictionary']}\nslipway_notify:\n  - {secret['in_a_list']}\n"
        "vault_b: \"{{ lookup('ansible.builtin.env', 'OF_A_LOOKUP') }}\"\nvault_c: '{{ other }}'\nother: of_a_template-4Nv6\n"
        "vault_d: {key: in_a_mapping-4Nv6}\nvault_e: '{{ missing }}'\nvault_f: 12345678\nshown: this is shown\n"
    )
    monkeypatch.setenv("OF_A_LOOKUP", "of_a_lookup-4Nv6")
    monkeypatch.setattr(VaultSecretsContext, "_current", VaultSecretsContext([("default", VaultSecret(password.encode()))]))
    return DataLoader().load_from_file(str(folder / "all.yml"), trusted_as_template=True)


IN_CLEAR = {"of_a_lookup-4Nv6", "of_a_template-4Nv6", "in_a_mapping-4Nv6"}
INLINE = {"under_vault-4Nv6Bk8Mr3", "under_another-4Nv6Bk8Mr3", "in_a_dictionary-4Nv6Bk8Mr3", "in_a_list-4Nv6Bk8Mr3"}


@pytest.mark.parametrize(("password", "found"), [("of the run", IN_CLEAR | INLINE), ("another", IN_CLEAR)])
def test_a_secret_is_known_by_its_value_however_the_inventory_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str, found: set[str]
):
    assert set(hidden_of([of_inventory(tmp_path, monkeypatch, password)], {}, DataLoader())) == found


@pytest.mark.parametrize(
    "shown",
    [
        "is {}",
        "the longer one {}-and-more",
        '"a\\"b/c d 4Nv6\\n" in a log of JSON',
        "redis://app:a%22b%2Fc%20d%204Nv6%0A@redis",
        "a line of a key: MIIEvQIBADANBg",
        "['{}', 'x']",
    ],
)
def test_no_spelling_of_a_secret_is_shown(shown: str):
    secrets = ["t7Hq2Lw9Zx4Nv6Bk8Mr3", {"longer": ["t7Hq2Lw9Zx4Nv6Bk8Mr3-and-more"]}, 'a"b/c d 4Nv6\n', None, 5, "abc"]
    hidden = spellings([*secrets, "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n"])
    text = without(shown.format(secrets[0]), hidden)
    assert "(secret)" in text
    assert not re.search("4Nv6|and-more|MIIE", text)
    assert without("abc of 5: -----BEGIN KEY-----", hidden) == "abc of 5: -----BEGIN KEY-----"


def test_missing_secrets_are_written_encrypted_once(vault: Path, play):
    first = play("secrets", "-vvv", "--diff")
    assert first.returncode == 0, first.stdout + first.stderr
    assert vault.read_bytes().startswith(b"$ANSIBLE_VAULT;1.1;AES256")
    assert vault.stat().st_mode & 0o777 == 0o600
    assert (vault.parents[4] / ".vault-password").stat().st_mode & 0o777 == 0o600
    written = content(vault, password_of(vault))
    assert list(written) == NAMES
    for shown in (*written.values(), password_of(vault)):
        assert shown not in first.stdout + first.stderr
    assert all(name in first.stdout for name in NAMES)

    before = vault.read_bytes()
    second = play("secrets", "--diff")
    assert re.search(r"changed=0\b", second.stdout), second.stdout
    assert vault.read_bytes() == before


def test_check_mode_says_what_it_would_write_and_writes_nothing(vault: Path, play):
    done = play("secrets", "--check", "--diff")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"changed=1\b", done.stdout)
    assert all(name in done.stdout for name in NAMES)
    assert not vault.exists()
    assert not (vault.parents[4] / ".vault-password").exists()


def test_a_new_name_joins_and_the_others_keep_their_values(vault: Path, play):
    environment = {"SLIPWAY_VAULT_PASSWORD": "of the run"}
    assert play("secrets", **environment).returncode == 0
    before = content(vault, "of the run")
    (vault.parent / "names.yml").write_text(f"slipway_secrets: {[*NAMES, 'vault_c', 'vault_mine']}\nvault_mine: set elsewhere\n")
    done = play("secrets", **environment)
    assert re.search(r"changed=1\b", done.stdout), done.stdout
    after = content(vault, "of the run")
    assert {name: after[name] for name in NAMES} == before
    assert set(after) == {*NAMES, "vault_c"}


def test_a_wrong_password_is_reported_and_nothing_is_written(vault: Path, play):
    assert play("secrets", SLIPWAY_VAULT_PASSWORD="right").returncode == 0
    before = vault.read_bytes()
    (vault.parent / "names.yml").write_text(f"slipway_secrets: {[*NAMES, 'vault_c']}\n")
    for environment in ({"SLIPWAY_VAULT_PASSWORD": "wrong"}, {}):
        done = play("secrets", **environment)
        assert done.returncode != 0
        assert f"{vault.name} cannot be decrypted with the vault password of this run" in " ".join(done.stderr.split())
        assert vault.read_bytes() == before
    # Without any password, the script says which file needs one, and how to give it.
    assert "export SLIPWAY_VAULT_PASSWORD" in done.stderr
    assert not (vault.parents[4] / ".vault-password").exists()


def test_no_second_password_is_made_for_an_encrypted_environment(vault: Path, play):
    other = vault.parents[3] / "prod/group_vars/all/vault.yml"
    other.parent.mkdir(parents=True)
    other.write_bytes(VaultLib().encrypt("---\n", VaultSecret(b"unknown here")))
    done = play("secrets")
    assert done.returncode != 0
    assert "no second one is created" in done.stdout
    assert not vault.exists()


def test_a_plain_file_becomes_an_encrypted_one(vault: Path, play):
    vault.write_text("---\n# mine\nvault_a_password: kept as it is, and long\n")
    done = play("secrets", SLIPWAY_VAULT_PASSWORD="of the run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert content(vault, "of the run")["vault_a_password"] == "kept as it is, and long"


def test_two_inventories_need_the_file_named(vault: Path, play, tmp_path: Path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/hosts.yml").write_text("all: {hosts: {three: }}\n")
    assert "slipway_secrets_file" in play("secrets", "-i", str(tmp_path / "other")).stdout
    named = tmp_path / "named.yml"
    done = play("secrets", "-i", str(tmp_path / "other"), "-e", f"slipway_secrets_file={named}", SLIPWAY_VAULT_PASSWORD="x")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(content(named, "x")) == set(NAMES)
    assert not vault.exists()


@pytest.mark.parametrize("has_all", [False, True])
def test_a_file_in_a_folder_that_is_not_there_is_refused(vault: Path, play, tmp_path: Path, has_all: bool):
    if has_all:
        assert play("secrets", SLIPWAY_VAULT_PASSWORD="x").returncode == 0
    before = vault.read_bytes() if has_all else b""
    done = play("secrets", "-e", f"slipway_secrets_file={tmp_path}/nosuch/vault.yml", SLIPWAY_VAULT_PASSWORD="x")
    assert done.returncode != 0
    assert f"there is no folder {tmp_path}/nosuch" in " ".join(done.stdout.split())
    assert not (tmp_path / "nosuch").exists()
    assert (vault.read_bytes() if has_all else b"") == before


def test_password_file_that_others_can_read_is_refused(checkout: Path):
    file = checkout / ".vault-password"
    file.write_text("secret\n")
    file.chmod(0o644)
    done = subprocess.run([checkout / "tools/vault-password"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "chmod 600" in done.stderr
    file.chmod(0o600)
    assert subprocess.run([checkout / "tools/vault-password"], capture_output=True, text=True, check=True).stdout == "secret\n"
