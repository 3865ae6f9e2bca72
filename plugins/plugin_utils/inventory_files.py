# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an inventory that Ansible cannot read, or leaves out: which file, what is wrong with it, and what to do."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.inventory.data import InventoryData
from ansible.inventory.manager import IGNORED
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader

from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import near, place_of
from ansible_collections.slipway.stack.plugins.plugin_utils.input_names import MOST, SHORT, distance, nearest

YAML = (".yml", ".yaml", ".json")
#: What the name of a file of hosts ends in. The folder of an inventory may hold other files, such as certificates.
HOSTS = ("", ".ini", ".toml", *YAML)
#: What a group in a file of hosts consists of.
SECTIONS = ("hosts", "children", "vars")
#: The folders of variables, and what their files are named after.
FOLDERS = {"group_vars": "group", "host_vars": "host"}
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
    if b"\x00" in data:
        line = data[: data.index(b"\x00")].count(b"\n") + 1
        return f"{path}:{line} holds a NUL byte, so it is not plain text; write it again, or restore it from version control"
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__  # type: ignore[assignment]
    mark = getattr(cause, "problem_mark", None)
    place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
    found = re.search(r"YAML parsing failed: (.*?)(?: Origin: .*)?$", message)
    return f"{place} is not valid YAML: {(found[1] if found else message).rstrip('.')}; correct it"


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
    for path in files:
        try:
            loader.load_from_file(str(path), cache="all", unsafe=True, trusted_as_template=True)
        except (AnsibleError, UnicodeDecodeError) as error:
            problems.append(file_problem(path, error))
        else:
            problems += repeated_keys(path)
    return problems


def repeated_keys(path: Path) -> list[str]:
    """Return which keys a file of YAML has twice in one dictionary: Ansible warns at most, and takes the last one alone.

    Args:
        path: A file that Ansible can read. One that is encrypted as a whole was written by a program, and is left out.
    """
    data = path.read_bytes()
    if data.startswith(b"$ANSIBLE_VAULT"):
        return []
    problems, seen = [], set()
    ahead = [yaml.compose(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))]
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
            if first is not key:
                what = f"{key.value} is there a second time, after line {first.start_mark.line + 1}, so Ansible leaves out the first"
                problems.append(f"{near(path)}:{key.start_mark.line + 1}: {what}; remove or rename one of them")
    return problems


# Hosts


def hosts_files(source: Path) -> Iterator[Path]:
    """Yield the files of a source in which Ansible looks for hosts."""
    if not source.is_dir():
        yield source
        return
    for path in sorted(source.iterdir()):
        if not IGNORED.search(os.fsencode(path.name)):
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
        files = list(hosts_files(source))
        if not files:
            problems.append(
                f"The inventory {near(source)} has no file of hosts; write {near(source)}/hosts.yml, as inventories/prod has one"
            )
        for path in files:
            if str(path) in parsed:
                problems += _left_out(loader, path)
            elif path == source or path.suffix in HOSTS:
                problems.append(_hosts_problem(loader, path))
    return problems


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
    else:
        plugin = "toml" if path.suffix == ".toml" else "ini"
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
    if not isinstance(content, Mapping) or "plugin" in content:
        return []
    problems = repeated_keys(path)
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
            for path in _files(folder / kind):
                if path not in read:
                    why, is_mistake = _why_ignored(path, folder / kind, names)
                    (mistakes if is_mistake else others).extend([f"{near(path)} is not read: {why}"] if why else [])
    return mistakes, others


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, without what Ansible takes for hidden or for an editor's copy."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.startswith(".") and not path.name.endswith("~"):
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
        endings = [ending for ending in YAML if distance(path.suffix.lower(), ending, 1) <= 1]
        if endings:
            return f"its name must end in {', '.join(YAML[:-1])} or {YAML[-1]}; rename it", True
        return ("its name does not end in .yml; move it away", False) if set(path.suffixes) & set(YAML) else ("", False)
    top = folder / path.relative_to(folder).parts[0]
    name = top.stem if top.suffix in YAML else top.name
    if name in names[folder.name]:
        if top != path:
            return f"Ansible reads no folder with a dot in its name; rename {near(path.parent)}", True
        instead = top.with_name(name) if top.with_name(name).exists() else top.with_suffix(YAML[0])
        return f"Ansible reads {near(instead)} instead; put both into one", True
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
