"""Files of an inventory that Ansible cannot read, or leaves out: which one, and what to do, before anything is touched."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
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
    (tmp_path / "inventories/x/hosts.yml").write_text("app:\n  hosts:\n    web1:\n    web2.example.org:\n")
    return path


@pytest.fixture
def refused(file: Path) -> Callable[..., tuple[list[str], list[str]]]:
    """Have files in an inventory, and return its problems and the warnings about it."""
    inventory = file.parents[2]

    def ask(files: dict[str, str], source: str = ".") -> tuple[list[str], list[str]]:
        for name, text in files.items():
            (inventory / name).parent.mkdir(parents=True, exist_ok=True)
            (inventory / name).write_text(text)
            (inventory / name).chmod(0o755 if text.startswith("#!") else 0o644)
        sources = [str(inventory / source) if source != "." else str(inventory)]
        found = refusals(loader(), {"inventory": sources}, InventoryManager(loader(), sources))
        return tuple([text.replace(f"{inventory}/", "") for text in texts] for texts in found)  # type: ignore[return-value]

    return ask


def problems_of(file: Path, data: bytes, password: bytes = b"right") -> list[str]:
    file.write_bytes(data)
    return [text.replace(f"{file}", "FILE") for text in unreadable(loader(password), [file])]


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


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a: 1\nb: 2\na: 3\n", {3: 1}),
        (b"services:\n  web: {port: 1}\n  api: {port: 2}\n  web: {port: 3}\n", {4: 2}),
        (b"routes:\n- path: /\n  path: /api\n", {3: 2}),
        (b"a: {b: 1, b: 2}\n", {1: 1}),
        (b"a: 1\na: 2\na: 3\n", {2: 1, 3: 1}),
        (b"a: &x {b: 1}\nc: {<<: *x, b: 2}\nd: *x\ne: {b: 3}\n", {}),
        (b"- 1\n- 1\n", {}),
        (b"a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6161\n", {}),
        (b"", {}),
    ],
)
def test_a_key_that_is_there_twice_is_refused_as_ansible_would_take_the_last_alone(file: Path, data: bytes, lines: dict[int, int]):
    found = problems_of(file, data)
    assert [re.match(r"FILE:(\d+): \S+ is there a second time, after line (\d+)", text).groups() for text in found] == [  # type: ignore[union-attr]
        (str(second), str(first)) for second, first in lines.items()
    ]


def test_a_group_that_is_there_twice_is_refused(refused: Any):
    found, _warnings = refused({"hosts.yml": "app:\n  hosts:\n    one:\nother: {}\napp:\n  hosts:\n    two:\n"})
    assert found == ["hosts.yml:5: app is there a second time, after line 1, so Ansible leaves out the first; remove or rename one of them"]


def test_a_wrong_password_is_distinguished_from_a_damaged_file(file: Path):
    (line,) = problems_of(file, VAULT, b"wrong")
    assert line.startswith("FILE cannot be decrypted with the vault password of this run; export SLIPWAY_VAULT_PASSWORD")


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("hosts.yml", "all:\n\thosts:\n", "hosts.yml:2 is not valid YAML: Tabs are usually invalid"),
        ("hosts.yml", "- web1\n", "YAML inventory has invalid structure, it should be a dictionary, got: list;"),
        ("hosts.yml", "all:\n  hosts: [web1]\n", 'Invalid "hosts" entry for "all" group, requires a dictionary'),
        ("hosts.yml", "plugin: nosuch\n", "unknown plugin 'nosuch'"),
        ("hosts.yml", "app:\n  host:\n    web1:\n", "hosts.yml:2: host is not a part of the group app (did you mean hosts?)"),
        ("hosts.yml", "all:\n  children:\n    app:\n      redis_port: 1\n", "hosts.yml:4: redis_port is not a part of the group app"),
        ("hosts.yml", "redis_port: 1\nall:\n", "hosts.yml:1: redis_port is not a group"),
        ("hosts.yml", VaultLib().encrypt("all:", VaultSecret(b"wrong")).decode(), "hosts.yml cannot be decrypted with the vault password"),
        ("hosts", "[app]\nweb1\nweb2 10.0.0.2\n", "hosts:3 is not a valid line of an inventory: Expected key=value"),
        ("hosts", "[app]\nweb1 a='b\n", "hosts:2 is not a valid line of an inventory: Error parsing host definition"),
        ("hosts", "[app\nweb1\n", "hosts:1 is not a valid line of an inventory: a bracket is missing; correct it"),
        ("hosts.ini", "web1\n[app:hosst]\nweb1\n", "hosts.ini:2 is not a valid line of an inventory: Section [app:hosst] has unknown type"),
        ("hosts.ini", "web1\n[app:children]\nweb\n\n", "hosts.ini:3 is not a valid line of an inventory: Section [app:children] includes"),
        ("hosts.toml", "[app\n", "hosts.toml is not a valid inventory: "),
        ("hosts.sh", "#!/bin/sh\nexit 1\n", "hosts.sh is a program that prints no inventory"),
        ("nosuch", None, "The inventory nosuch does not exist; give the folder of an environment"),
        ("host.yml", None, "The inventory host.yml does not exist (did you mean hosts.yml?)"),
    ],
)  # fmt: skip
def test_hosts_that_cannot_be_read_are_named_with_file_and_line(refused: Any, name: str, data: str | None, text: str):
    (line,), _warnings = refused({} if data is None else {name: data}, name)
    assert text in line
    assert re.search("; (correct it|write|give|run|export) ?", line)


def test_of_a_folder_of_hosts_one_file_that_cannot_be_read_is_enough(refused: Any):
    assert refused({"more": "[stores]\ndb1\n", "server.pem": "-----BEGIN CERTIFICATE-----\n", "notes.md": "a b\n"}) == ([], [])
    ((line,), _warnings) = refused({"more": "[stores]\ndb1 10.0.0.3\n"})
    assert line.startswith("more:2 is not a valid line of an inventory")


def test_a_folder_without_hosts_is_named(refused: Any):
    ((line,), _warnings) = refused({"empty/group_vars/all.yml": ""}, "empty")
    assert "empty has no file of hosts; write " in line


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("group_vars/al.yml", "the inventory has no group al (did you mean all?); rename it, or add the group al to the hosts file"),
        ("group_vars/apps/own.yml", "the inventory has no group apps (did you mean app?)"),
        ("group_vars/App.yml", "the inventory has no group App (did you mean app?)"),
        ("host_vars/web11.yml", "the inventory has no host web11 (did you mean web1?)"),
        ("host_vars/web1.example.org.yml", "the inventory has no host web1.example.org (did you mean web1?)"),
        ("host_vars/web2.yml", "the inventory has no host web2 (did you mean web2.example.org?)"),
        ("host_vars/app.yml", "app is a group; move it to group_vars"),
        ("group_vars/web1.yml", "web1 is a host; move it to host_vars"),
        ("group_vars/all.yml", "Ansible reads group_vars/all instead; put both into one"),
        ("group_vars/all/own.ymal", "its name must end in .yml, .yaml or .json; rename it"),
        ("group_vars/app.YML", "its name must end in .yml, .yaml or .json; rename it"),
        ("group_vars/all/v1.2/own.yml", "Ansible reads no folder with a dot in its name; rename group_vars/all/v1.2"),
        ("groups_vars/all.yml", "groups_vars is not read (did you mean group_vars?); rename it"),
    ],
)
def test_a_file_of_variables_that_ansible_leaves_out_is_refused(refused: Any, name: str, text: str):
    (line,), _warnings = refused({name: "a: 1\n"}, "hosts.yml")
    assert text in line
    assert " is not read" in line


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("group_vars/berlin.yml", "the inventory has no group berlin; rename it, or add the group berlin to the hosts file"),
        ("host_vars/db1.yml", "the inventory has no host db1; rename it, or add the host db1 to the hosts file"),
        ("group_vars/all/own.yml.bak", "its name does not end in .yml; move it away"),
    ],
)
def test_a_file_of_variables_that_may_rest_is_warned_of(refused: Any, name: str, text: str):
    assert refused({name: "a: 1\n"}) == ([], [f"{name} is not read: {text}"])


def test_variables_of_a_numbered_host_that_is_gone_are_no_mistake(refused: Any):
    problems, (warning,) = refused({"host_vars/web1.yml": "a: 1\n", "host_vars/web3.yml": "a: 3\n"})
    assert problems == []
    assert warning.startswith("host_vars/web3.yml is not read: the inventory has no host web3;")


def test_a_link_to_nothing_is_named(refused: Any, file: Path):
    file.symlink_to("../../gone.yml")
    assert refused({}) == (["group_vars/all/own.yml is not read: it is a link to ../../gone.yml, which does not exist; correct it"], [])


def test_other_files_and_those_that_ansible_reads_are_no_matter(refused: Any):
    names = ["all/deeper/a.json", "all/b", "app.yaml", "all/README.md", "all/.c.yml.swp", "all/d.yml~", "ungrouped.yml"]
    files = {f"group_vars/{name}": "a: 1\n" if "json" not in name else "{}" for name in names}
    assert refused({**files, "host_vars/web2.example.org": "", "host_vars/web1/a.yml": "", "host_vars/localhost.yml": ""}) == ([], [])


def test_a_run_that_would_leave_out_its_checks_does_not_begin():
    ((line,), _warnings) = refusals(loader(), {"start_at_task": "Run PostgreSQL", "inventory": ()}, InventoryManager(loader(), []))
    assert line.startswith("--start-at-task leaves out the tasks that check")


def test_a_run_warns_of_a_file_that_it_goes_on_without(play: Run, checkout: Path):
    (checkout / "inventories/test/group_vars/berlin.yml").write_text("a: 1\n")
    assert "group_vars/berlin.yml is not read" in play("secrets").stderr


def test_a_run_ends_before_its_first_play(play: Run, checkout: Path):
    (checkout / "inventories/test/group_vars/all/own.yml").write_text("a:\n\tb: 1\n")
    done = play("secrets")
    assert done.returncode == 2
    assert "PLAY [" not in done.stdout
    assert "own.yml:2 is not valid YAML" in done.stderr
    assert "interrupted" not in done.stdout
