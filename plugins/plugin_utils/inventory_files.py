# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an inventory that Ansible cannot read, or leaves out: which file, what is wrong with it, and what to do."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.inventory.data import InventoryData
from ansible.inventory.manager import IGNORED
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultHelper
from ansible.plugins.loader import inventory_loader

from ansible_collections.slipway.stack.plugins.plugin_utils.ansible_names import connection_variables, reserved_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import RoleFiles, near, place_of
from ansible_collections.slipway.stack.plugins.plugin_utils.input_names import MOST, SHORT, distance, nearest
from ansible_collections.slipway.stack.plugins.plugin_utils.topology import services

YAML = (".yml", ".yaml", ".json")
#: What the name of a file of hosts ends in. The folder of an inventory may hold other files, such as certificates.
HOSTS = ("", ".ini", ".toml", *YAML)
#: Folders of an environment that hold other files than hosts, whether ansible.cfg has Ansible leave them out or not.
NO_HOSTS = ("pki", "tls", "hooks", "files", "rules")
#: What a group in a file of hosts consists of.
SECTIONS = ("hosts", "children", "vars")
#: The folders of variables, and what their files are named after.
FOLDERS = {"group_vars": "group", "host_vars": "host"}
#: Files of settings of other programs, which Ansible does not read variables from.
OTHER_SETTINGS = (".ini", ".toml", ".env", ".cfg", ".conf", ".properties")
#: Endings of other formats that are nearly one of these.
LIKE_YAML = (".xml", ".eml", ".bson")
#: Files that belong into the folder of all hosts, by what those are called there: their names are no groups that may have gone.
OF_ALL_HOSTS = re.compile(r"\d+_.*|vault|secrets|vars|variables|main")
#: What a host may be called: a pattern of Ansible with another character selects something else, or nothing.
HOST_NAME = re.compile(r"(?![.~-])[\w.:%-]+")
BYTE_ORDER_MARK = "\ufeff"
#: Characters that are seen as a blank, or not at all, and that YAML takes for letters.
LIKE_BLANKS = {
    BYTE_ORDER_MARK: "byte order mark", "\u00a0": "no-break space", "\u2003": "em space", "\u2007": "figure space",
    "\u200b": "zero-width space", "\u202f": "narrow no-break space", "\u3000": "ideographic space",
}  # fmt: skip
_MERGE = "tag:yaml.org,2002:merge"
#: What YAML reads a key as that is the name of a variable, or that brings the keys of another dictionary.
_TAGS_OF_NAMES = ("tag:yaml.org,2002:str", _MERGE)
#: A host or group, a variable, and the value that it gets.
_Assignment = tuple[Any, Any, Any]
HEADER = re.compile(rb"\$ANSIBLE_VAULT;1\.[12];AES256(?:;[^\r\n]*)?\r?\n")
#: How the password of a vault is given.
GIVE_PASSWORD = "export SLIPWAY_VAULT_PASSWORD, write the password into .vault-password, or give --vault-password-file"  # noqa: S105 - advice
RESTORE = "restore it from version control or a copy; without one, move it away and run playbooks/secrets.yml, which writes new secrets"


def file_problem(path: Path, error: Exception) -> str:
    """Return what is wrong with a file that Ansible cannot read, and what to do."""
    message = " ".join(str(error).split())
    try:
        data = path.read_bytes()
    except OSError as failure:
        return f"{near(path)} cannot be read: {failure.strerror}; correct its owner or mode"
    path = near(path)
    if data.startswith(b"$ANSIBLE_VAULT"):
        return _vault_problem(path, data)
    if encoding := _encoding_problem(path, data):
        return encoding
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__  # type: ignore[assignment]
    mark = getattr(cause, "problem_mark", None)
    place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
    found = re.search(r"YAML parsing failed: (.*?)(?: Origin: .*)?$", message)
    # What YAML lacks on a line it may only miss on the next one.
    hint = _like_blank(data.decode().splitlines()[max(mark.line - 1, 0) : mark.line + 1]) if mark is not None else ""
    return f"{place} is not valid YAML: {(found[1] if found else message).rstrip('.')}{hint}; correct it"


def _encoding_problem(path: Path, data: bytes) -> str:
    """Return why a file is not text in UTF-8, or ""."""
    if b"\x00" in data:
        line = data[: data.index(b"\x00")].count(b"\n") + 1
        return f"{path}:{line} holds a NUL byte, so it is not plain text; write it again, or restore it from version control"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return f"{path}:{line} is not text in UTF-8 (byte 0x{data[error.start]:02x}); save the file in UTF-8"
    return ""


def _like_blank(lines: Iterable[str]) -> str:
    """Return which character that looks like a blank is in some lines, for a message, or ""."""
    found = next((name for line in lines for character, name in LIKE_BLANKS.items() if character in line), "")
    return f" (there is a {found}: write a blank instead)" if found else ""


def _not_variables(path: Path, content: Any) -> list[str]:
    """Return why what a file holds is not a dictionary of variables; Ansible would end in words of its own."""
    if not content or isinstance(content, Mapping):
        return []
    text = path.read_text(encoding="utf-8")
    if text.lstrip(f"{BYTE_ORDER_MARK} \t\r\n").startswith("$ANSIBLE_VAULT"):
        what = "a byte order mark" if text.startswith(BYTE_ORDER_MARK) else "a blank or an empty line"
        return [f"{near(path)} has {what} before $ANSIBLE_VAULT, so that Ansible does not decrypt it; remove it"]
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and not re.match(r"\s*#|---", line)]
    number, line = lines[0] if lines else (1, "")
    name, sign, value = re.match(r"[\s-]*([^\s=:]*)\s*([=:]?)\s*(.*)", line).groups()  # type: ignore[union-attr]
    how = f"write `{name}: {value}`" if sign and name else "write each as `name: value`"
    kind = "list" if isinstance(content, list) else "string" if isinstance(content, str) else "value"
    return [f"{near(path)}:{number}: the file holds a {kind}, not variables{_like_blank([line])}; {how}"]


def _vault_problem(path: Path, data: bytes) -> str:
    """Return what is wrong with a file of Ansible Vault."""
    header = HEADER.match(data)
    body = re.sub(rb"\s", b"", data[header.end() :]) if header else b""
    if not header or not _is_whole(body):
        return f"{path} is damaged: it begins as a file of Ansible Vault, and the rest is not one; {RESTORE}"
    return f"{path} cannot be decrypted with the vault password of this run; {GIVE_PASSWORD}"


def _is_whole(body: bytes) -> bool:
    """Return whether what follows a vault's header is a salt, a checksum and blocks of a cipher."""
    if not re.fullmatch(rb"(?:[0-9a-f]{2})+", body):
        return False
    parts = bytes.fromhex(body.decode()).split(b"\n")
    return len(parts) == 3 and len(parts[2]) % 32 == 0


def unreadable(loader: Any, files: Iterable[Path]) -> list[str]:
    """Return what is wrong with files of variables.

    They are read as Ansible reads them a moment later, which then finds them in the loader's cache.

    Args:
        loader: Ansible's loader, which knows the vault passwords.
        files: The files.
    """
    problems = []
    names: dict[Path, set[Any]] = {}
    for path in files:
        try:
            content = loader.load_from_file(str(path), cache="all", unsafe=True, trusted_as_template=True)
        except (AnsibleError, UnicodeDecodeError) as error:
            problems.append(file_problem(path, error))
        else:
            problems += _not_variables(path, content) or _not_names(path, content) + repeated_keys(path.read_bytes(), str(near(path)))
            names[path] = set(content) if isinstance(content, Mapping) else set()
    return problems + _twins(names, YAML, names.__getitem__)


def _not_names(path: Path, content: Mapping[Any, Any] | None) -> list[str]:
    """Return the keys of a file of variables that no variable can have as its name."""
    problems = [
        f"{place_of(name) or near(path)}: {wrong}" for name in content or () if isinstance(name, str) and (wrong := reserved_problem(name))
    ]
    if all(isinstance(name, str) for name in content or ()):
        return problems
    no_string = "is not the name of a variable, as YAML reads no string; rename it"
    root = _node(path.read_bytes())
    keys = [key for key, _value in root.value if key.tag not in _TAGS_OF_NAMES] if isinstance(root, yaml.MappingNode) else []
    # Of a file that is encrypted as a whole the lines are not known.
    return problems + (
        [f"{near(path)}:{key.start_mark.line + 1}: {key.value} {no_string}" for key in keys] or [f"{near(path)}: a key {no_string}"]
    )


def _twins(files: Iterable[Path], endings: Collection[str], names_in: Callable[[Path], Collection[Any]]) -> list[str]:
    """Return which files differ in the ending of their names alone and set the same: Ansible reads both, in the order of their names.

    Args:
        files: The files.
        endings: The endings by which they may differ: of 10.0.0.1 the last number is none.
        names_in: Returns what a file sets; asked only for files that have a twin.
    """
    alike: dict[Path, list[Path]] = {}
    for path in files:
        alike.setdefault(path.with_suffix("") if path.suffix in endings else path, []).append(path)
    pairs = [pair for twins in alike.values() for pair in itertools.combinations(twins, 2)]
    both = [(near(one), near(other), set(names_in(one)) & set(names_in(other))) for one, other in pairs]
    return [
        f"{one} and {other} are both read and both have {min(map(str, same))}, and the latter holds where they differ; put both into one"
        for one, other, same in both
        if same
    ]


def _node(data: bytes) -> Any:
    """Return what some YAML is composed of; None of what is not YAML, as encrypted data and JSON that is none."""
    try:
        return yaml.compose(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None


def repeated_keys(data: bytes, place: str) -> list[str]:
    """Return which keys some YAML has twice in one dictionary: Ansible warns at most, and takes the last one alone.

    Args:
        data: What Ansible can read. What is encrypted as a whole was written by a program, and is left out.
        place: Where it stands.
    """
    if data.startswith(b"$ANSIBLE_VAULT"):
        return []
    problems, seen = [], set()
    root = _node(data)
    # Ansible reads JSON first, which may have characters as YAML has not, such as \ud83d\ude00.
    problems += _repeated_in_json(data, place) if root is None else []
    ahead = [root]
    while ahead:
        node = ahead.pop()
        # An alias is the node of its anchor.
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        ahead += reversed([part for item in node.value for part in (item if isinstance(item, tuple) else (item,))])
        firsts: dict[str, Any] = {}
        for key, _value in node.value if isinstance(node, yaml.MappingNode) else ():
            first = firsts.setdefault(str(key.value), key)
            if first is not key and key.tag != _MERGE:
                what = f"{key.value} is there a second time, after line {first.start_mark.line + 1}, so Ansible leaves out the first"
                problems.append(f"{place}:{key.start_mark.line + 1}: {what}; remove or rename one of them")
    return problems


def _repeated_in_json(data: bytes, place: str) -> list[str]:
    """Return which keys some JSON has twice in one dictionary; nothing of what is not JSON."""
    problems: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        counted = Counter(key for key, _value in pairs)
        problems.extend(
            f"{place}: {key} is there {number} times in one dictionary, so Ansible takes the last; remove or rename the others"
            for key, number in counted.items()
            if number > 1
        )

    with contextlib.suppress(ValueError):
        json.loads(data, object_pairs_hook=look)
    return problems


def repeated_arguments(texts: Iterable[str]) -> list[str]:
    """Return which keys were given twice by one -e, in a file or as YAML; Ansible has read them all."""
    problems = []
    for text in map(str, texts):
        if text.startswith("@"):
            path = Path(text[1:]).expanduser()
            problems += repeated_keys(path.read_bytes(), str(near(path))) if path.is_file() else []
        elif text.startswith("{"):
            problems += repeated_keys(text.encode(), "-e")
    return problems


# Hosts


def hosts_files(source: Path) -> Iterator[Path]:
    """Yield the files of a source in which Ansible looks for hosts."""
    if not source.is_dir():
        yield source
        return
    for path in sorted(source.iterdir()):
        if not IGNORED.search(os.fsencode(path.name)) and not (path.is_dir() and path.name in NO_HOSTS):
            yield from hosts_files(path)


def hosts_problems(loader: Any, sources: Iterable[str], parsed: Collection[str]) -> list[str]:
    """Return what is wrong with the sources of an inventory: Ansible warns of those that it cannot parse, and goes on without their hosts.

    Args:
        loader: Ansible's loader.
        sources: The files and folders that were given; a list of hosts with commas needs no file.
        parsed: The files that Ansible has parsed.
    """
    problems = []
    for source in (Path(source) for source in sources if "," not in source):
        if not source.exists():
            others = [path.name for path in source.parent.iterdir()] if source.parent.is_dir() else []
            how = "give the folder of an environment, as -i inventories/prod"
            problems.append(f"The inventory {near(source)} does not exist{nearest(source.name, others)}; {how}")
            continue
        # Of a folder of variables that is misspelled there is one message, not one for each file.
        files = [path for path in hosts_files(source) if not _is_below_misspelled(path, source)]
        if not files:
            problems.append(_no_hosts_file(source))
        static = [path for path in files if path.suffix in HOSTS and str(path) in parsed]
        problems += _twins(static, [ending for ending in HOSTS if ending], functools.partial(_hosts_in, loader))
        for path in files:
            if str(path) in parsed:
                problems += _left_out(loader, path)
            elif path == source or path.suffix in HOSTS:
                problems.append(_hosts_problem(loader, path))
    return problems


def _hosts_in(loader: Any, path: Path) -> list[str]:
    """Return the hosts that a file names itself; none for a program, and for the settings of a plugin."""
    plugin = {".toml": "toml", **dict.fromkeys(YAML, "yaml")}.get(path.suffix, "ini")
    found = InventoryData()
    try:
        inventory_loader.get(f"ansible.builtin.{plugin}").parse(found, loader, str(path))
    except AnsibleError:
        return []
    return list(found.hosts)


def _is_below_misspelled(path: Path, source: Path) -> bool:
    """Return whether a file is in a folder whose name was meant to be that of a folder of variables."""
    return path != source and len(parts := path.relative_to(source).parts) > 1 and bool(_near_name(parts[0], FOLDERS))


def _no_hosts_file(source: Path) -> str:
    """Return that a folder has no file of hosts, and what to do."""
    unread = [path.name for path in sorted(source.iterdir()) if path.is_file() and path.name.startswith(("host", "inventor"))]
    if unread:
        what = f"Ansible leaves out {near(source / unread[0])}, as it reads no hosts from files with such a name"
        how = "rename it to hosts.yml, or to hosts where it is in the form of INI"
        return f"The inventory {near(source)} has no file of hosts: {what}; {how}"
    return f"The inventory {near(source)} has no file of hosts; write {near(source)}/hosts.yml, as inventories/prod has one"


def _hosts_problem(loader: Any, path: Path) -> str:
    """Return what is wrong with a file of hosts that no plugin of Ansible has parsed."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return file_problem(path, error)
    if data.startswith(b"#!"):
        return f"{near(path)} is a program that prints no inventory; run `{near(path)} --list` to see why, and correct it"
    if data.startswith(b"$ANSIBLE_VAULT"):
        return _vault_problem(near(path), data)
    if path.suffix in YAML or data.lstrip().startswith(b"---"):
        try:
            content = loader.load_from_file(str(path), cache="none")
        except (AnsibleError, UnicodeDecodeError) as error:
            return file_problem(path, error)
        plugin = "auto" if isinstance(content, Mapping) and "plugin" in content else "yaml"
        if plugin == "yaml" and (misplaced := _misplaced(content, path)):
            return "; ".join(misplaced)
    else:
        plugin = "toml" if path.suffix == ".toml" else "ini"
    if encoding := _encoding_problem(near(path), data) or _mark_problem(path, data):
        return encoding
    reason = _parsing_error(plugin, path)
    # Ansible does not say in which line: the first with which the same is wrong.
    lines = data.splitlines(keepends=True) if plugin == "ini" else []
    with tempfile.NamedTemporaryFile() as part:
        for number, line in enumerate(lines, 1):
            part.write(line)
            part.flush()
            if _parsing_error(plugin, Path(part.name)) == reason:
                return f"{near(path)}:{number} is not a valid line of an inventory: {reason}; correct it"
    return f"{near(path)} is not a valid inventory: {reason}; correct it"


def _parsing_error(plugin: str, path: Path) -> str:
    """Return why a plugin of Ansible cannot parse a file of hosts, or "" where it can."""
    try:
        inventory_loader.get(f"ansible.builtin.{plugin}").parse(InventoryData(), DataLoader(), str(path))
    except AnsibleError as error:
        text = " ".join(str(error).split()).removeprefix("Failed to parse inventory: ").rstrip(".")
        if text.startswith("not enough values"):
            return "a bracket is missing"
        return re.sub(r"<class '[\w.]*\.(?:_AnsibleTagged)?(\w+)'>", lambda found: found[1].lower(), text)
    return ""


def _left_out(loader: Any, path: Path) -> list[str]:
    """Return what Ansible leaves out of a file of hosts that it has parsed, as it does not belong to a group."""
    try:
        content = loader.load_from_file(str(path), cache="all") if path.suffix in YAML else None
    except AnsibleError:
        # Whatever it is, another plugin has parsed it.
        return []
    try:
        data = path.read_bytes()
    except OSError:
        # Such as a program that may be run and not read.
        return []
    if not isinstance(content, Mapping) or "plugin" in content:
        is_ini = not content and not data.startswith(b"#!") and path.suffix in ("", ".ini")
        return (
            [_mark_problem(path, data)]
            if not content and _mark_problem(path, data)
            else _contradictions(_of_ini(path) if is_ini else [], path)
        )
    if not any(_is_group(group) for group in content.values()) and any(map(_is_variable, content)):
        what = f"{near(path)} holds variables, such as {next(filter(_is_variable, content))}, and Ansible reads it as a file of hosts"
        return [f"{what}; move it to the folder group_vars/all next to the hosts file"]
    problems = repeated_keys(data, str(near(path))) + _misplaced(content, path) + _contradictions(_of_yaml(content), path)
    ahead = list(content.items())
    while ahead:
        name, group = ahead.pop(0)
        if group is not None and not isinstance(group, Mapping):
            problems.append(f"{place_of(name) or near(path)}: {name} is not a group, so Ansible leaves it out; write variables below vars")
            continue
        for key, value in (group or {}).items():
            if key not in SECTIONS:
                what = f"{key} is not a part of the group {name}{nearest(str(key), SECTIONS)}, so Ansible leaves it out"
                problems.append(f"{place_of(key) or near(path)}: {what}; write hosts, children or vars, and variables below vars")
            elif key == "children" and isinstance(value, Mapping):
                ahead += value.items()
    return problems


def _mark_problem(path: Path, data: bytes) -> str:
    """Return that a file of hosts in the form of INI begins with a byte order mark, or ""."""
    if not data.startswith(BYTE_ORDER_MARK.encode()) or path.suffix in YAML:
        return ""
    return f"{near(path)}:1 begins with a byte order mark, which Ansible takes for a letter; save the file in UTF-8 without one"


def _is_group(value: Any) -> bool:
    """Return whether what a file of hosts has under a name can be a group."""
    return value is None or (isinstance(value, Mapping) and (not value or bool(set(value) & set(SECTIONS))))


def _is_variable(name: Any) -> bool:
    """Return whether a name is that of a variable, of Slipway or of Ansible, and not of a host or a group."""
    return str(name).startswith(("ansible_", "vault_")) or name in _inputs()


@functools.cache
def _inputs() -> set[str]:
    """Return all variables of Slipway that an inventory may set."""
    return set().union(*RoleFiles().known_names().values())


def _misplaced(content: Any, path: Path) -> list[str]:
    """Return what is indented wrongly in a file of hosts: variables among hosts, and groups among variables."""
    problems = []
    ahead = [content] if isinstance(content, Mapping) else []
    hosts = {str(name) for name, value in _hosts_of(content) if isinstance(value, Mapping)}
    while ahead:
        for group in ahead.pop(0).values():
            parts = {name: value for name, value in group.items() if isinstance(value, Mapping)} if isinstance(group, Mapping) else {}
            for name, value in parts.get("hosts", {}).items():
                place = place_of(name) or near(path)
                if _is_variable_among_hosts(name, value, hosts):
                    problems.append(f"{place}: {name} is a variable among hosts; indent it below its host, or below vars")
                elif not isinstance(name, str):
                    problems.append(f"{near(path)}: the name of the host {name} is not a string; quote it")
                elif value is not None and not isinstance(value, Mapping):
                    problems.append(f"{place}: the host {name} has a value; write its variables below it, or none")
            problems += [
                f"{place_of(name) or near(path)}: {name} is a group among variables, so its hosts are left out; write it below children"
                for name, value in parts.get("vars", {}).items()
                if _has_hosts(value) and not _is_variable(name)
            ]
            ahead += [parts["children"]] if "children" in parts else []
    # A host of several groups is named in each of them.
    return list(dict.fromkeys(problems))


def _hosts_of(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the hosts that the groups of a file of YAML have, with what is below each."""
    for group in content.values() if isinstance(content, Mapping) else ():
        parts = group if isinstance(group, Mapping) else {}
        yield from parts["hosts"].items() if isinstance(parts.get("hosts"), Mapping) else ()
        yield from _hosts_of(parts.get("children"))


def _is_variable_among_hosts(name: Any, value: Any, hosts: Collection[str]) -> bool:
    """Return whether a name among hosts is that of a variable.

    Args:
        name: The name.
        value: What is below it: a host has variables, or nothing.
        hosts: Hosts that have variables elsewhere in the file.
    """
    if value is None:
        return str(name) not in hosts and (name in _inputs() or name in connection_variables({}))
    return _is_variable(name) if not isinstance(value, Mapping) else name in _inputs()


def _has_hosts(value: Any) -> bool:
    """Return whether a value is a group with hosts, and nothing else: variables may have a key of that name."""
    hosts = value.get("hosts") if isinstance(value, Mapping) and set(value) <= set(SECTIONS) else None
    return bool(hosts) and isinstance(hosts, Mapping) and all(own is None or isinstance(own, Mapping) for own in hosts.values())


class _Assignments(InventoryData):  # type: ignore[misc]
    """An inventory that remembers what each file has set."""

    def __init__(self) -> None:
        """Begin without any."""
        super().__init__()
        self.made: list[_Assignment] = []

    def set_variable(self, entity: str, varname: str, value: Any) -> None:
        """Set a variable of a host or a group."""
        self.made.append((entity, varname, value))
        super().set_variable(entity, varname, value)


def _of_ini(path: Path) -> list[_Assignment]:
    """Return what a file in the form of INI sets; nothing where it is in another one."""
    found = _Assignments()
    try:
        inventory_loader.get("ansible.builtin.ini").parse(found, DataLoader(), str(path))
    except AnsibleError:
        return []
    return found.made


def _of_yaml(content: Mapping[Any, Any]) -> Iterator[_Assignment]:
    """Yield what the groups of a file of YAML set."""
    for name, group in content.items():
        parts = group if isinstance(group, Mapping) else {}
        entities = [(name, parts.get("vars")), *(parts["hosts"].items() if isinstance(parts.get("hosts"), Mapping) else ())]
        yield from ((entity, key, value) for entity, own in entities if isinstance(own, Mapping) for key, value in own.items())
        if isinstance(parts.get("children"), Mapping):
            yield from _of_yaml(parts["children"])


def _contradictions(assignments: Iterable[_Assignment], path: Path) -> list[str]:
    """Return which variables of a host or a group one file sets to two values, as where a host is in two groups: Ansible takes the last."""
    first: dict[tuple[Any, Any], tuple[Any, Any]] = {}
    problems = []
    for entity, name, value in assignments:
        known, key = first.setdefault((entity, name), (value, name))
        if not _is_same(known, value):
            other = f", after {place_of(key)}" if place_of(key) else ""
            what = f"{entity} has {name} a second time{other}, with another value, and Ansible takes the last one"
            problems.append(f"{place_of(name) or near(path)}: {what}; remove one of them")
    return problems


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal; of those that are encrypted, whether they were written so."""
    encrypted = [VaultHelper.get_ciphertext(value, with_tags=False) for value in (one, other)]
    if all(encrypted):
        return encrypted[0] == encrypted[1]
    try:
        return bool(one == other)
    except AnsibleError:
        # This run cannot decrypt one of them or of their members, so nothing says that they differ.
        return True


def host_problems(inventory: Any) -> list[str]:
    """Return which hosts have a name by which Ansible cannot select them, and them alone, and reserved names of variables in hosts files.

    Args:
        inventory: The inventory as Ansible has read it.
    """
    problems = []
    for entity in (*inventory.groups.values(), *inventory.hosts.values()):
        file = entity.vars.get("inventory_file")
        # Ansible itself notes these two.
        places = {str(key): place_of(key) for key in entity.vars if key not in ("inventory_dir", "inventory_file")}
        wrong = {key: text for key in places if (text := reserved_problem(key))}
        problems += [f"{_line_of(key, file, places[key])}{text}" for key, text in wrong.items()]
    ours = {group for service in services() for group in service.groups}
    for name, host in inventory.hosts.items():
        namesake = inventory.groups.get(name)
        # Others are of a plugin that knows more hosts than these, or of a file in the folder that holds other things, such as a key.
        is_ours = any(group.name in ours for group in host.get_groups())
        wrong_name = ""
        if "=" in name and (is_ours or _is_variable(name.partition("=")[0])):
            wrong_name = f"{name} is taken for a host; write a variable behind its host, or in a section such as [all:vars]"
        elif is_ours and not HOST_NAME.fullmatch(name):
            how = "name it with letters, digits, ., _ and -, and give its address by ansible_host"
            wrong_name = f"the host {name!r} has a name that is a pattern of Ansible, or none; {how}"
        elif namesake and (is_ours or name in ours) and [member.name for member in namesake.get_hosts()] != [name]:
            wrong_name = f"{name} is a host and also a group, of other hosts: Ansible takes either for both; rename the host"
        if wrong_name:
            problems.append(f"{_line_of(name, host.vars.get('inventory_file'))}{wrong_name}")
    return problems


def _line_of(name: str, file: str | None, known: str | None = None) -> str:
    """Return "<file>:<line>: " of the first line that has a name, where no other place of it is known, or ""."""
    if known:
        return f"{known}: "
    path = Path(file or "")
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    number = next((number for number, line in enumerate(lines, 1) if name in line), 0)
    return f"{near(path)}:{number}: " if number else f"{near(path)}: "


# Variables


def folders_of(sources: Iterable[str]) -> list[Path]:
    """Return the folders in which Ansible looks for the variables of inventories."""
    return list(dict.fromkeys(path if path.is_dir() else path.parent for path in map(Path, sources) if path.exists()))


def variable_files(loader: Any, folders: Iterable[Path], names: Mapping[str, Collection[str]]) -> list[Path]:
    """Return the files that Ansible reads variables from.

    Args:
        loader: Ansible's loader.
        folders: Folders of inventories.
        names: The groups and the hosts, by the folder that has their variables.
    """
    found = [
        Path(path)
        for folder in folders
        for kind in FOLDERS
        for name in names[kind]
        for path in loader.find_vars_files(str(folder / kind), name)
    ]
    return list(dict.fromkeys(found))


def ignored_files(folders: Iterable[Path], names: Mapping[str, Collection[str]], read: Collection[Path]) -> tuple[list[str], list[str]]:
    """Return why files of variables are not read: those that were meant to be, and those that may rest there.

    Args:
        folders: Folders of inventories.
        names: The groups and the hosts, by the folder that has their variables.
        read: The files that are read.
    """
    mistakes: list[str] = []
    others: list[str] = []
    for folder in folders:
        mistakes += [
            f"{near(path)} is not read (did you mean {meant}?); rename it"
            for path in sorted(folder.iterdir())
            if path.name not in FOLDERS and path.is_dir() and (meant := _near_name(path.name, FOLDERS))
        ]
        for kind in FOLDERS:
            if (folder / kind).is_file():
                mistakes.append(f"{near(folder / kind)} is not read: it is a file; make it a folder, and this file all.yml in it")
            for path in _files(folder / kind):
                if path not in read:
                    why, is_mistake = _why_ignored(path, folder / kind, names)
                    (mistakes if is_mistake else others).extend([f"{near(path)} is not read: {why}"] if why else [])
    return mistakes, others


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, without what Ansible takes for hidden or for an editor's copy."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.startswith((".", "#")) and not path.name.endswith("~"):
            yield from _files(path) if path.is_dir() else (path,)


def _why_ignored(path: Path, folder: Path, names: Mapping[str, Collection[str]]) -> tuple[str, bool]:
    """Return why a file of variables is not read and what to do, and whether it was meant to be; "" where it holds no variables.

    Args:
        path: The file.
        folder: The folder of variables that it is in.
        names: The groups and the hosts, by the folder that has their variables.
    """
    if not path.exists():
        return f"it is a link to {path.readlink()}, which does not exist; correct it", True
    if path.suffix and path.suffix not in YAML and path.name not in names[folder.name]:
        ending = path.suffix.lower()
        if ending not in LIKE_YAML and any(distance(ending, other, 1) <= 1 for other in YAML):
            return f"its name must end in {', '.join(YAML[:-1])} or {YAML[-1]}; rename it", True
        if path.suffix in OTHER_SETTINGS and path.parent == folder and path.stem in names[folder.name]:
            return "Ansible reads variables from YAML and JSON alone; write it as a file that ends in .yml", True
        return ("its name does not end in .yml; move it away", False) if set(path.suffixes) & set(YAML) else ("", False)
    top = folder / path.relative_to(folder).parts[0]
    name = top.stem if top.suffix in YAML else top.name
    if name in names[folder.name]:
        if top != path:
            return f"Ansible reads no folder with a dot in its name; rename {near(path.parent)}", True
        instead = top.with_name(name) if top.with_name(name).exists() else top.with_suffix(YAML[0])
        return f"Ansible reads {near(instead)} instead; put both into one", True
    if top.is_dir() and _near_name(name, FOLDERS):
        return f"it is in a folder in {folder.name}; move {near(top)} next to the hosts file", True
    for_all = any(_files(folder / "all")) or any((folder / f"all{ending}").exists() for ending in YAML)
    # Where all hosts have theirs, it may be of a group that another environment has.
    if folder.name == "group_vars" and OF_ALL_HOSTS.fullmatch(name) and (name[0].isdigit() or not for_all):
        return f"it belongs to no group; move it to {near(folder / 'all')}, the folder for all hosts", True
    for other, its in FOLDERS.items():
        if other != folder.name and name in names[other]:
            return f"{name} is a {its}; move it to {other}", True
    kind = FOLDERS[folder.name]
    add = f"rename it, or add the {kind} {name} to the hosts file"
    meant = _near_name(name, names[folder.name])
    # Of hosts with numbers one may be gone; where its neighbour has a file too, this one is not the neighbour's.
    numbered = re.sub(r"\d", "", meant) == re.sub(r"\d", "", name) and any((folder / (meant + end)).exists() for end in ("", *YAML))
    if meant and not numbered:
        return f"the inventory has no {kind} {name} (did you mean {meant}?); {add}", True
    return f"the inventory has no {kind} {name}; {add}", False


def _near_name(name: str, known: Iterable[str]) -> str:
    """Return the name that another was probably meant for, or ""."""
    short, *_unused = name.partition(".")
    for other in sorted(known):
        if short == other.partition(".")[0] and short in (name, other):
            return other
    most = 1 if len(name) < SHORT else MOST
    return next((other for other in sorted(known) if distance(name.lower(), other.lower(), most) <= most), "")
