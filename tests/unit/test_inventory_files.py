"""Files of an inventory that Ansible cannot read, or leaves out: which one, and what to do, before anything is touched."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret, VaultSecretsContext

from ansible_collections.slipway.stack.plugins.callback.report import checked, names_given, refusals
from ansible_collections.slipway.stack.plugins.plugin_utils import inventory_files
from ansible_collections.slipway.stack.plugins.plugin_utils.inventory_files import repeated_arguments, unreadable
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
def refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], list[str]]]:
    """Have files in an inventory, and return its problems and the warnings about it."""
    monkeypatch.setattr(VaultSecretsContext, "_current", VaultSecretsContext([("default", VaultSecret(b"right"))]))
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
    ("data", "text"),
    [
        (b"# own\n---\nredis_port=6380\n", "FILE:3: the file holds a string, not variables; write `redis_port: 6380`"),
        (b"redis_port:6380\n", "FILE:1: the file holds a string, not variables; write `redis_port: 6380`"),
        (b"- redis_port: 6380\n", "FILE:1: the file holds a list, not variables; write `redis_port: 6380`"),
        (b"- redis_port\n", "FILE:1: the file holds a list, not variables; write each as `name: value`"),
        (b"6380\n", "FILE:1: the file holds a value, not variables; write each as `name: value`"),
        ("redis_port:\u00a06380\n".encode(), "FILE:1: the file holds a string, not variables (there is a no-break space: write a blank"),
        (b"\xef\xbb\xbf" + VAULT, "FILE has a byte order mark before $ANSIBLE_VAULT, so that Ansible does not decrypt it; remove it"),
        (b"\n" + VAULT, "FILE has a blank or an empty line before $ANSIBLE_VAULT, so that Ansible does not decrypt it; remove it"),
        (b"a: 1\n1: 2\n", "FILE:2: 1 is not the name of a variable, as YAML reads no string; rename it"),
        (b"a: 1\non: 2\n", "FILE:2: on is not the name of a variable, as YAML reads no string; rename it"),
        (b"a: {b: 1}\nc: x\n2026-01-01: 2\n", "FILE:3: 2026-01-01 is not the name of a variable"),
        (b"a: 1\ngroups: [b]\n", "FILE:2: groups is set by Ansible itself, so that this value is left out; remove or rename it"),
        (b"inventory_hostname: b\n", "FILE:1: inventory_hostname is set by Ansible itself"),
        (b"ansible_limit: b\n", "FILE:1: ansible_limit is set by Ansible itself"),
        (b"ansible_check_mode: true\n", "FILE:1: ansible_check_mode is set by Ansible itself"),
        (b"vars:\n  redis_port: 6380\n", "FILE:1: vars is only a part of a group in a hosts file; in a file of variables, write what"),
        (b"lookup: b\n", "FILE:1: lookup is a function of templates, which a variable of this name hides from Slipway's; rename it"),
        (b"namespace: b\n", "FILE:1: namespace is a function of templates"),
        (b"a: 1\n# f\xfcr\n", "FILE:2 is not text in UTF-8 (byte 0xfc); save the file in UTF-8"),
        ("a: 1\n".encode("utf-16"), "FILE:1 holds a NUL byte"),
    ],
)
def test_a_file_that_holds_no_variables_is_named_with_what_to_write(file: Path, data: bytes, text: str):
    (line,) = problems_of(file, data)
    assert line.startswith(text)


def test_a_blank_that_yaml_takes_for_a_letter_is_named(file: Path):
    (line,) = problems_of(file, "a: 1\nb:\u00a02\n".encode())
    assert "(there is a no-break space: write a blank instead); correct it" in line
    assert problems_of(file, "a: 10\u00a0000 km\nb: für\n".encode()) == problems_of(file, b"\xef\xbb\xbfa: 1\r\n") == []


def test_two_files_that_differ_in_their_ending_alone_are_refused(file: Path):
    other = file.with_suffix(".yaml")
    file.write_text("a: 1\n")
    other.write_text("a: 2\n")
    (line,) = unreadable(loader(), [other, file])
    assert line == f"{other} and {file} are both read and both have a, and the latter holds where they differ; put both into one"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("@{file}", ["{file}:2: a is there a second time, after line 1, so Ansible leaves out the first; remove or rename one of them"]),
        ("@{file}.gone", []),
        ("{{a: 1, b: 2, a: 3}}", ["-e:1: a is there a second time, after line 1, so Ansible leaves out the first; remove or rename"]),
        ("a=1 a=2", []),
    ],
)
def test_a_key_that_is_given_twice_is_refused(file: Path, text: str, found: list[str]):
    file.write_text("a: 1\na: 2\n")
    problems = repeated_arguments([text.format(file=file)])
    assert len(problems) == len(found)
    assert all(line.startswith(start.format(file=file)) for line, start in zip(problems, found, strict=True))


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a: 1\nb: 2\na: 3\n", {3: 1}),
        (b"services:\n  web: {port: 1}\n  api: {port: 2}\n  web: {port: 3}\n", {4: 2}),
        (b"routes:\n- path: /\n  path: /api\n", {3: 2}),
        (b"a: {b: 1, b: 2}\n", {1: 1}),
        (b"a: 1\na: 2\na: 3\n", {2: 1, 3: 1}),
        (b"a: &x {b: 1}\nc: {<<: *x, b: 2}\nd: *x\ne: {b: 3}\n", {}),
        (b"a: [1, 1]\n", {}),
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
        ("hosts.ini", "\ufeff[app]\nweb1\n", "hosts.ini:1 begins with a byte order mark, which Ansible takes for"),
        ("hosts", "\ufeffweb1\n", "hosts:1 begins with a byte order mark"),
        ("hosts.yml", "app:\n  hosts:\n    web1:\n    ansible_host: 10.0.0.1\n", "hosts.yml:4: ansible_host is a variable among hosts"),
        ("hosts.yml", "app:\n  hosts:\n    web1:\n    slipway_address:\n", "hosts.yml:4: slipway_address is a variable among hosts"),
        ("hosts.yml", "app:\n  hosts:\n    web1: 10.0.0.1\n", "hosts.yml:3: the host web1 has a value; write its variables below it"),
        ("hosts.yml", "app:\n  hosts:\n    7:\n  children:\n    b: {hosts: {7: }}\n", "hosts.yml: the name of the host 7 is not a string"),
        ("hosts.yml", "all:\n  vars:\n    a: 1\n    app:\n      hosts:\n        web1:\n", "hosts.yml:4: app is a group among variables"),
        ("hosts", "[app]\nweb1\nansible_user=ops\n", "hosts:3: ansible_user=ops is taken for a host; write a variable behind its host"),
        ("hosts.yml", "app:\n  hosts:\n    web 1:\n", "hosts.yml:3: the host 'web 1' has a name that is a pattern"),
        ("hosts.yml", "app:\n  hosts:\n    web*:\n", "hosts.yml:3: the host 'web*' has a name that is a pattern"),
        ("hosts.yml", "app:\n  hosts:\n    ops@web1:\n", "hosts.yml:3: the host 'ops@web1' has a name"),
        ("hosts.yml", "app:\n  hosts:\n    web1,web2:\n", "hosts.yml:3: the host 'web1,web2' has a name"),
        ("hosts.yml", "app:\n  hosts:\n    app:\n    web1:\n", "app is a host and also a group, of other hosts"),
        ("hosts.yml", "app:\n  hosts:\n    web1:\nredis:\n  hosts:\n    app:\n", "app is a host and also a group, of other hosts"),
        ("hosts.yml", "app:\n  hosts:\n    web1: {namespace: b}\n", "hosts.yml:3: namespace is a function of templates"),
        ("hosts.yml", "app:\n  vars:\n    groups: b\n  hosts:\n    web1:\n", "hosts.yml:3: groups is set by Ansible itself"),
        ("hosts", "[app]\nweb1 hostvars=b\n", "hosts:2: hostvars is set by Ansible itself"),
        (
            "hosts.yml",
            "app:\n  hosts:\n    web1: {ansible_host: 10.0.0.1}\nredis:\n  hosts:\n    web1: {ansible_host: 10.0.0.2}\n",
            "hosts.yml:6: web1 has ansible_host a second time, after ",
        ),
        (
            "hosts.yml",
            "app:\n  hosts: {web1: }\n  vars: {a: 1}\nredis:\n  children:\n    app: {vars: {a: 2}}\n",
            "hosts.yml:6: app has a a second time, after ",
        ),
        ("hosts", "[app]\nweb1 ansible_host=10.0.0.1\n[redis]\nweb1 ansible_host=10.0.0.2\n", "hosts:4: web1 has ansible_host a"),
        ("hosts.ini", "[app]\nweb1\n[all:vars]\na=1\na=2\n", "hosts.ini:5: all has a a second time, after hosts.ini:4, with another"),
        ("vault.yml", "vault_a: x\nvault_b: y\n", "vault.yml holds variables, such as vault_a, and Ansible"),
        ("own.yml", "app_services:\n  web: {image: a}\nmine: 1\n", "own.yml holds variables, such as app_services, and Ansible"),
        ("nosuch", None, "The inventory nosuch does not exist; give the folder of an environment"),
        ("host.yml", None, "The inventory host.yml does not exist (did you mean hosts.yml?)"),
    ],
)  # fmt: skip
def test_hosts_that_cannot_be_read_are_named_with_file_and_line(refused: Any, name: str, data: str | None, text: str):
    (line,), _warnings = refused({} if data is None else {name: data}, name)
    assert text in line
    assert re.search("; (correct it|write|give|run|export|save|indent|quote|name it|rename|remove|move it) ?", line)


def test_of_a_folder_of_hosts_one_file_that_cannot_be_read_is_enough(refused: Any):
    assert refused({"more": "[stores]\ndb1\n", "server.pem": "-----BEGIN CERTIFICATE-----\n", "notes.md": "a b\n"}) == ([], [])
    ((line,), _warnings) = refused({"more": "[stores]\ndb1 10.0.0.3\n"})
    assert line.startswith("more:2 is not a valid line of an inventory")


@pytest.mark.parametrize("name", ["web1", "Web-01.example.org", "wëb", "10.0.0.1", "2001:db8::1", "web_1", "web1:2222", "app2"])
def test_names_that_hosts_have_are_accepted(refused: Any, name: str):
    assert refused({"hosts.yml": f"app:\n  hosts:\n    '{name}':\nredis:\n  hosts:\n    redis:\n"}) == ([], [])


def test_a_host_that_is_given_the_same_twice_is_accepted(refused: Any):
    assert refused({"hosts.yml": "app:\n  hosts:\n    web1: {a: 1}\nredis:\n  vars: {a: 2}\n  hosts:\n    web1: {a: 1}\n"}) == ([], [])
    assert refused({"hosts.ini": "[app]\nweb1 a=1\nweb2 a=2\n[redis]\nweb1 a=1\n"}, "hosts.ini") == ([], [])


def test_two_files_of_hosts_that_differ_in_their_ending_alone_are_refused(refused: Any):
    ((line,), _warnings) = refused({"hosts": "[app]\nweb1 ansible_host=10.0.0.9\n"})
    assert line == "hosts and hosts.yml are both read and both have web1, and the latter holds where they differ; put both into one"


@pytest.mark.parametrize("name", ["hosts.txt", "hosts.cfg", "inventory.txt"])
def test_a_file_of_hosts_that_ansible_leaves_out_is_named(refused: Any, name: str):
    ((line,), _warnings) = refused({f"empty/{name}": "[app]\nweb1\n"}, "empty")
    assert f"empty has no file of hosts: Ansible leaves out empty/{name}" in line
    assert line.endswith("; rename it to hosts.yml, or to hosts where it is in the form of INI")


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
        ("host_var/web1.yml", "host_var is not read (did you mean host_vars?); rename it"),
        ("group_vars/vault.yml", "it belongs to no group; move it to group_vars/all, the folder for all hosts"),
        ("group_vars/20_product.yml", "it belongs to no group; move it to group_vars/all"),
        ("group_vars/group_vars/all.yml", "it is in a folder in group_vars; move group_vars/group_vars next to the hosts file"),
        ("group_vars/host_vars/web1.yml", "it is in a folder in group_vars; move group_vars/host_vars next to the hosts file"),
        ("group_vars/app.ini", "Ansible reads variables from YAML and JSON alone; write it as a file that ends in .yml"),
        ("host_vars/web1.env", "Ansible reads variables from YAML and JSON alone"),
        ("host_vars", "it is a file; make it a folder, and this file all.yml in it"),
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


@pytest.mark.parametrize("others", [{}, {"group_vars/all/vault.yml": "b: 1\n"}, {"group_vars/all/10_environment.yml": "a: 1\n"}])
def test_a_file_that_may_be_of_another_environments_group_is_accepted_where_all_hosts_have_theirs(refused: Any, others: dict[str, str]):
    problems, warnings = refused({"group_vars/vault.yml": "a: 1\n", **others}, "hosts.yml")
    assert (len(problems), len(warnings)) == ((0, 1) if others else (1, 0))
    assert "move it to group_vars/all" in problems[0] if not others else "the inventory has no group vault; rename it" in warnings[0]


def test_a_link_to_nothing_is_named(refused: Any, file: Path):
    file.symlink_to("../../gone.yml")
    assert refused({}) == (["group_vars/all/own.yml is not read: it is a link to ../../gone.yml, which does not exist; correct it"], [])


def test_other_files_and_those_that_ansible_reads_are_no_matter(refused: Any):
    names = ["all/deeper/a.json", "all/b", "app.yaml", "all/README.md", "all/.c.yml.swp", "all/d.yml~", "ungrouped.yml"]
    files = {f"group_vars/{name}": "a: 1\n" if "json" not in name else "{}" for name in names}
    assert refused({**files, "host_vars/web2.example.org": "", "host_vars/web1/a.yml": "", "host_vars/localhost.yml": ""}) == ([], [])


ENCRYPTED = "!vault |\n          $ANSIBLE_VAULT;1.1;AES256\n          6161\n"
MADE = "plugin: ansible.builtin.constructed\nstrict: false\ngroups: {big: inventory_hostname is match('web')}\n"
ADDRESSES = ("10.0.0.1", "10.0.0.2", "web.prod.eu", "web.prod.us")
PRINTED = {
    "app": {"hosts": ["i-0a1b"], "vars": {"a": 1}},
    "_meta": {"hostvars": {"i-0a1b": {"tags": {"Name": "web", "aws:ec2:x": "y"}, "ansible_host": "10.0.0.1"}}},
}
#: Inventories that a team has, by what is special about each.
LEGITIMATE = {
    "hosts named as addresses and domains, with files of theirs without an ending": {
        "hosts.yml": "app:\n  hosts:\n" + "".join(f"    {host}:\n" for host in ADDRESSES),
        **{f"host_vars/{host}": "a: 1\n" for host in ADDRESSES},
    },
    "files of one name that share no variable": {"group_vars/all/data.json": '{"a": 1}', "group_vars/all/data.yml": "b: 1\n"},
    "hosts and the settings of a plugin with one name": {"prod.ini": "[app]\nweb7\n", "prod.yml": MADE},
    "two static files of one name with other hosts": {"prod.ini": "[app]\nweb7\n", "prod.yml": "redis:\n  hosts:\n    db7:\n"},
    "JSON as a program writes it": {"group_vars/all/a.json": r'{"title": "\ud83d\ude00", "path": "a\/b"}', "group_vars/app.json": "{}"},
    "JSON with tabs": {"group_vars/all/a.json": '{\n\t"a": {\n\t\t"b": 1\n\t}\n}\n'},
    "one encrypted value for a host in two groups": {
        "hosts.yml": f"app:\n  hosts:\n    web1:\n      a: {ENCRYPTED}redis:\n  hosts:\n    web1:\n      a: {ENCRYPTED}"
    },
    "encrypted members of a host in two groups": {
        "hosts.yml": f"app:\n  hosts:\n    web1:\n      a: {{c: 1}}\n      b:\n        - {ENCRYPTED}"
        f"redis:\n  hosts:\n    web1:\n      b:\n        - {ENCRYPTED}"
    },
    "hosts named like variables": {
        "hosts.yml": "app:\n  hosts:\n    vault_1: {ansible_host: 10.0.0.1}\n    vault_2:\n    ansible_controller: {a: 1}\n"
        "redis:\n  hosts:\n    vault_1:\n    ansible_controller:\n"
    },
    "variables that look like a group": {
        "hosts.yml": "app:\n  vars:\n    endpoints: {hosts: {a: 1}}\n    dns: {hosts: {a: }, ttl: 60}\n  hosts:\n    web1:\n"
    },
    "other names in groups that Slipway does not touch": {
        "hosts.yml": "app:\n  hosts:\n    web1:\noffice:\n  hosts:\n    'Printer (2nd floor)':\n    office:\n    other:\n"
    },
    "copies of an editor and files of other formats": {
        "group_vars/#all.yml#": "a: 1\n", "group_vars/app/#x.yml#": "", "group_vars/all/pom.xml": "<a/>", "host_vars/web1/nginx.conf": "a",
        "host_vars/web1/app.env": "A=1\n",
    },
    "several merges into one dictionary": {"group_vars/all/a.yml": "a: &a {x: 1}\nb: &b {y: 1}\nc:\n  <<: *a\n  <<: *b\n"},
    "ranges": {
        "hosts.yml": "app:\n  hosts:\n    web[01:30].example.org:\n      ansible_user: ops\nredis:\n  hosts:\n    db-[a:c]:\n",
        "host_vars/web07.example.org.yml": "a: 1\n",
        "host_vars/db-b/own.yml": "a: 1\n",
    },
    "ranges in INI with children and variables": {
        "hosts.yml": "",
        "more": "[app]\nweb[01:30] ansible_port=2222\n[balancers]\nlb1 # the first\n[prod:children]\napp\nbalancers\n"
        "[prod:vars]\nansible_ssh_common_args='-o ProxyJump=ops@bastion -o ServerAliveInterval=30'\n; a note\n",
        "group_vars/prod.yml": "a: 1\n",
    },
    "a constructed inventory behind hosts": {"zz_constructed.yml": MADE, "group_vars/big.yml": "a: 1\n"},
    "an inventory of a program": {
        "inventory.py": "#!/bin/sh\necho '" + json.dumps(PRINTED) + "'\n",
        "host_vars/i-0a1b.yml": "a: 1\n",
    },
    "tags and groups of a cloud": {
        "hosts.yml": "tag_Name_web:\n  hosts:\n    ip-10-0-0-1.eu-west-1.compute.internal: {tags: {Name: web, 'k8s.io/role': a}}\n"
        "app:\n  children:\n    tag_Name_web:\n",
        "group_vars/tag_Name_web.yml": "a: 1\n",
    },
    "values of connections that are templates or secrets": {
        "hosts.yml": "app:\n  hosts:\n    web1:\n      ansible_host: '{{ inventory_hostname }}.{{ domain }}'\n      "
        f"ansible_python_interpreter: auto_silent\n      ansible_become_password: '{{{{ vault_sudo }}}}'\n"
        f"      ansible_ssh_pass: {ENCRYPTED}",
        "group_vars/all/own.yml": "domain: example.org\nansible_ssh_common_args: >\n  -o ProxyJump=bastion\n  -o ControlPersist=60s\n",
        "group_vars/all/vault.yml": f"vault_sudo: {ENCRYPTED}",
    },
    "groups of groups, empty ones and a host in many": {
        "hosts.yml": "all:\n  children:\n    eu:\n      children:\n        app:\n          hosts:\n            web1:\n        redis: {}\n"
        "    maintenance:\n    app:\n    backup:\n      hosts:\n        web1:\n  vars:\n    a: {b: {hosts: [x]}}\n",
        "group_vars/eu/a.yml": "a: 1\n", "group_vars/maintenance.yml": "a: 1\n",
    },
    "delegated variables": {
        "hosts.yml": "app:\n  hosts:\n    web1: {bastion: \"{{ hostvars['bastion1'].ansible_host }}\"}\n"
        "bastions:\n  hosts:\n    bastion1: {ansible_host: 10.0.0.1}\n    localhost: {ansible_connection: local}\n",
        "host_vars/localhost.yml": "ansible_python_interpreter: '{{ ansible_playbook_python }}'\n",
    },
    "a file of hosts in JSON": {"hosts.yml": "", "a.json": '{"app": {"hosts": {"web1": null, "web2": {"a": 1}}, "vars": {"b": [1, 1]}}}'},
    "a file of hosts in TOML": {"hosts.yml": "", "a.toml": "[app.hosts]\nweb1 = {}\n[app.hosts.web2]\nansible_host = '10.0.0.2'\n"},
    "names of other roles in files of variables": {"group_vars/all/own.yml": "ssh_port: 2222\nssh_user: ops\nconnection: x\nport: 1\n"},
}  # fmt: skip


@pytest.mark.parametrize("name", LEGITIMATE)
def test_an_inventory_that_ansible_reads_as_it_is_meant_is_accepted(refused: Any, name: str):
    if "TOML" in name:
        pytest.importorskip("tomllib")
    assert refused(LEGITIMATE[name]) == ([], [])


def test_several_inventories_of_which_each_has_its_part_are_accepted(refused: Any, file: Path):
    refused({"fleet/hosts.yml": "app:\n  hosts:\n    web1: {a: 1}\n", "fleet/group_vars/app.yml": "b: 1\n", "group_vars/app.yml": "b: 2\n"})
    sources = [str(file.parents[2]), str(file.parents[2] / "fleet/hosts.yml"), "web8,web9"]
    assert refusals(loader(), {"inventory": sources}, InventoryManager(loader(), sources)) == ([], [])


def test_a_program_that_may_be_run_and_not_read_is_accepted(refused: Any, monkeypatch: pytest.MonkeyPatch):
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "inventory.sh":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert refused({"inventory.sh": '#!/bin/sh\necho \'{"app": {"hosts": ["web9"]}}\'\n'}) == ([], [])


def test_files_of_hosts_are_searched_for_a_line_only_where_something_is_wrong(refused: Any, monkeypatch: pytest.MonkeyPatch):
    searched: list[Path] = []
    monkeypatch.setattr(inventory_files, "_line_of", lambda *_arguments: searched.append(Path()) or "")
    assert refused({"hosts.yml": "app:\n  hosts:\n    web[1:99]:\n"}) == ([], [])
    assert searched == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"title": "\\ud83d\\ude00"}', []),
        ('{"title": "\\ud83d\\ude00", "a": {"b": 1, "b": 2}}', ["-e: b is there 2 times in one dictionary, so Ansible takes the last"]),
        ("{1: 2}", ["1 is not the name of a variable, as YAML reads no string; correct it after -e"]),
        ("{on: 2}", ["True is not the name of a variable, as YAML reads no string; correct it after -e"]),
    ],
)
def test_json_after_e_is_read_as_ansible_reads_it(text: str, said: list[str]):
    found, warnings = refusals(loader(), {"inventory": (), "extra_vars": (text,)}, InventoryManager(loader(), []))
    found += names_given(loader().load(text))
    assert [line[: len(start)] for line, start in zip(found, said, strict=True)] == said
    assert warnings == []


def test_a_check_that_fails_shows_no_value():
    def check(value: str) -> None:
        raise ValueError(value)

    warnings: list[str] = []
    assert checked(warnings, check, "secret") == []
    (warning,) = warnings
    assert warning.startswith("The check check of the inventory failed (ValueError in test_inventory_files.py, line ")
    assert "secret" not in warning


def test_a_misspelled_folder_in_a_source_that_is_a_folder_has_one_message(refused: Any):
    files = {"groups_vars/app.yml": "redis_port: 1\n", "groups_vars/redis.yml": "redis_port: 1\nredis_user: a\n"}
    assert refused(files) == (["groups_vars is not read (did you mean group_vars?); rename it"], [])


def test_a_check_that_fails_itself_is_named_and_ends_no_run(play: Run, checkout: Path):
    """Ansible would warn that the callback failed, and leave out all checks and the report."""
    path = checkout / "plugins/plugin_utils/inventory_files.py"
    path.write_text(path.read_text().replace("def host_problems(inventory: Any)", "def host_problems()"))
    done = play("secrets")
    assert done.returncode == 0
    said = " ".join(done.stderr.split())
    assert "The check host_problems of the inventory failed (TypeError in report.py, line " in said
    assert "and the run goes on without it; report it" in said


def test_a_run_that_would_leave_out_its_checks_does_not_begin():
    ((line,), _warnings) = refusals(loader(), {"start_at_task": "Run PostgreSQL", "inventory": ()}, InventoryManager(loader(), []))
    assert line.startswith("--start-at-task leaves out the tasks that check")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"subset": "web1,wbe2"}, "--limit has wbe2, and the inventory has neither such a host nor such a group"),
        ({"subset": "wen1"}, "(did you mean web1?); correct it"),
        ({"subset": "app:!apps"}, "--limit has apps, and the inventory has neither such a host nor such a group (did you mean app?)"),
        ({"subset": "idle"}, "--limit has idle, and this group has no host; add one to it, or leave it out"),
        ({"subset": "app:&idle"}, "--limit has idle, and this group has no host"),
        ({"subset": ""}, "--limit is empty, so that all hosts would be selected; name hosts or groups in it, or leave it out"),
        ({"subset": " "}, "--limit is empty"),
        ({"skip_tags": ("always",)}, "--skip-tags always leaves out the tasks that check the inputs"),
        ({"skip_tags": ("mine", "all")}, "--skip-tags all leaves out"),
    ],
)
def test_options_that_leave_out_checks_or_hosts_are_refused(file: Path, options: dict[str, Any], said: str):
    inventory = InventoryManager(loader(), [str(file.parents[2])])
    inventory.add_group("idle")
    ((line,), _warnings) = refusals(loader(), {"inventory": (), **options}, inventory)
    assert said in line


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subset": None},
        {"skip_tags": ("mine",)},
        *({"subset": limit} for limit in ("web1", "app", "all", "web*", "app:!web1", "localhost,web1", "all:!idle")),
    ],
)
def test_other_options_are_accepted(file: Path, options: dict[str, Any]):
    inventory = InventoryManager(loader(), [str(file.parents[2])])
    inventory.add_group("idle")
    assert refusals(loader(), {"inventory": (), **options}, inventory) == ([], [])


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
