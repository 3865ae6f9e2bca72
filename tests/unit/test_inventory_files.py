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
        (b"a: 1\non: 2\n", "FILE: True is not the name of a variable"),
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
    assert line == f"{other} and {file} are both read, and the latter holds where they differ; put both into one"


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
    assert line == "hosts and hosts.yml are both read, and the latter holds where they differ; put both into one"


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
        ("group_vars/all/own.env", "Ansible reads variables from YAML and JSON alone; write it as a file that ends in .yml"),
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


def test_a_misspelled_folder_in_a_source_that_is_a_folder_has_one_message(refused: Any):
    files = {"groups_vars/app.yml": "redis_port: 1\n", "groups_vars/redis.yml": "redis_port: 1\nredis_user: a\n"}
    assert refused(files) == (["groups_vars is not read (did you mean group_vars?); rename it"], [])


def test_a_run_does_not_begin_where_its_files_cannot_be_checked(play: Run, checkout: Path):
    """Ansible warns of a callback that fails, and goes on without what it would have found."""
    path = checkout / "plugins/plugin_utils/inventory_files.py"
    path.write_text(path.read_text().replace("def host_problems(inventory: Any)", "def host_problems()"))
    done = play("secrets")
    assert done.returncode == 2
    assert "Nothing was touched. The files of the inventory cannot be checked: TypeError" in done.stderr


def test_a_run_that_would_leave_out_its_checks_does_not_begin():
    ((line,), _warnings) = refusals(loader(), {"start_at_task": "Run PostgreSQL", "inventory": ()}, InventoryManager(loader(), []))
    assert line.startswith("--start-at-task leaves out the tasks that check")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"subset": "web1,wbe2"}, "--limit has wbe2, and the inventory has neither such a host nor such a group"),
        ({"subset": "wen1"}, "(did you mean web1?); correct it"),
        ({"subset": "app:!apps"}, "--limit has apps, and the inventory has neither such a host nor such a group (did you mean app?)"),
        ({"subset": ""}, "--limit is empty, so that all hosts would be selected; name hosts or groups in it, or leave it out"),
        ({"subset": " "}, "--limit is empty"),
        ({"skip_tags": ("always",)}, "--skip-tags always leaves out the tasks that check the inputs"),
        ({"skip_tags": ("mine", "all")}, "--skip-tags all leaves out"),
    ],
)
def test_options_that_leave_out_checks_or_hosts_are_refused(file: Path, options: dict[str, Any], said: str):
    inventory = InventoryManager(loader(), [str(file.parents[2])])
    ((line,), _warnings) = refusals(loader(), {"inventory": (), **options}, inventory)
    assert said in line


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subset": None},
        {"skip_tags": ("mine",)},
        *({"subset": limit} for limit in ("web1", "app", "all", "web*", "app:!web1", "localhost,web1")),
    ],
)
def test_other_options_are_accepted(file: Path, options: dict[str, Any]):
    inventory = InventoryManager(loader(), [str(file.parents[2])])
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
