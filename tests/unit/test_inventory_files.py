"""Files of variables that cannot be read: which one, and what to do, before anything is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.slipway.stack.plugins.callback.report import refusals
from ansible_collections.slipway.stack.plugins.plugin_utils.inventory_files import unreadable
from conftest import Run

VAULT = VaultLib().encrypt("vault_a: 1\n", VaultSecret(b"right"))


def loader(password: bytes = b"right") -> DataLoader:
    made = DataLoader()
    made.set_vault_secrets([("default", VaultSecret(password))])
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "inventories/x/group_vars/all/own.yml"
    path.parent.mkdir(parents=True)
    (tmp_path / "inventories/x/hosts.yml").write_text("all:\n")
    return path


def problems_of(file: Path, data: bytes, password: bytes = b"right") -> list[str]:
    file.write_bytes(data)
    return [text.replace(f"{file}", "FILE") for text in unreadable(loader(password), [str(file.parents[2] / "hosts.yml")])]


@pytest.mark.parametrize(
    "data", [b"", b"---\n", b"a: 1\n", b"a: '{{ b }}'\n", VAULT, b"a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6161\n"]
)
def test_files_that_ansible_reads_are_no_problem(file: Path, data: bytes):
    assert problems_of(file, data) == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a:\n\tb: 1\n", "FILE:2 is not valid YAML: "),
        (b"a: [1\nb: 2\n", "FILE:2 is not valid YAML: "),
        (b"a: b: c\n", "FILE:1 is not valid YAML: "),
        (b"a: 1\nb: 'x\x00'\n", "FILE:2 holds a NUL byte"),
        (VAULT[:-20], "FILE is damaged: "),
        (VAULT[:-21], "FILE is damaged: "),
        (b"$ANSIBLE_VAULT;1.1;AES256\ngarbage\n", "FILE is damaged: "),
        (b"$ANSIBLE_VAULT", "FILE is damaged: "),
        (b"$ANSIBLE_VAULT;9.9;ROT13\n6161\n", "FILE is damaged: "),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_what_to_do(file: Path, data: bytes, text: str):
    (line,) = problems_of(file, data)
    assert line.startswith(text)
    assert "; correct it" in line or "restore it from version control" in line


def test_a_wrong_password_is_distinguished_from_a_damaged_file(file: Path):
    (line,) = problems_of(file, VAULT, b"wrong")
    assert line.startswith("FILE cannot be decrypted with the vault password of this run; export SLIPWAY_VAULT_PASSWORD")


def test_a_run_that_would_leave_out_its_checks_does_not_begin():
    (line,) = refusals(loader(), {"start_at_task": "Run PostgreSQL", "inventory": ()})
    assert line.startswith("--start-at-task leaves out the tasks that check")
    assert refusals(loader(), {"start_at_task": None, "inventory": ("/dev/null",)}) == []


def test_a_run_ends_before_its_first_play(play: Run, checkout: Path):
    (checkout / "inventories/test/group_vars/all/own.yml").write_text("a:\n\tb: 1\n")
    done = play("secrets")
    assert done.returncode == 2
    assert "PLAY [" not in done.stdout
    assert "own.yml:2 is not valid YAML" in done.stderr
    assert "interrupted" not in done.stdout
