# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of variables of an inventory that cannot be read: which file, what is wrong with it, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError

EXTENSIONS = ("", ".yml", ".yaml", ".json")
HEADER = re.compile(rb"\$ANSIBLE_VAULT;1\.[12];AES256(?:;[^\r\n]*)?\r?\n")
#: How the password of a vault is given.
GIVE_PASSWORD = "export SLIPWAY_VAULT_PASSWORD, write the password into .vault-password, or give --vault-password-file"  # noqa: S105 - advice
RESTORE = "restore it from version control or a copy; without one, move it away and run playbooks/secrets.yml, which writes new secrets"


def variable_files(sources: Iterable[str]) -> list[Path]:
    """Return the files of group_vars and host_vars of inventories, in the order in which Ansible reads them."""
    folders = dict.fromkeys(path if path.is_dir() else path.parent for path in map(Path, sources) if path.exists())
    return [
        path
        for folder in folders
        for kind in ("group_vars", "host_vars")
        for path in sorted((folder / kind).rglob("*"))
        if path.is_file() and path.suffix in EXTENSIONS and not path.name.startswith(".") and not path.name.endswith("~")
    ]


def file_problem(path: Path, error: Exception) -> str:
    """Return what is wrong with a file that Ansible cannot read, and what to do."""
    message = " ".join(str(error).split())
    try:
        data = path.read_bytes()
    except OSError as failure:
        return f"{path} cannot be read: {failure.strerror}; correct its owner or mode"
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


def unreadable(loader: Any, sources: Iterable[str]) -> list[str]:
    """Return what is wrong with the files of variables of inventories.

    They are read as Ansible reads them a moment later, which then finds them in the loader's cache.

    Args:
        loader: Ansible's loader, which knows the vault passwords.
        sources: The inventories.
    """
    problems = []
    for path in variable_files(sources):
        try:
            loader.load_from_file(str(path), cache="all", unsafe=True, trusted_as_template=True)
        except (AnsibleError, UnicodeDecodeError) as error:
            problems.append(file_problem(path, error))
    return problems
