# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller: who runs Ansible there, where files of an environment and of the user are, and how one is replaced."""

from __future__ import annotations

import functools
import getpass
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.utils.path import unfrackpath


@functools.cache
def plain_yaml(path: Path) -> Any:
    """Return what a YAML file of the collection holds, without Ansible's marks. It is read once a process, and nothing may change it."""
    return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}  # noqa: S506 - both are safe


def ansible_home() -> Path:
    """Return the folder in which Ansible keeps what belongs to the user who runs it."""
    return Path(unfrackpath(C.config.get_config_value("ANSIBLE_HOME")))


def user_name() -> str:
    """Return who runs Ansible, by number where the controller has no name for it, as in a container that runs as any user."""
    try:
        return getpass.getuser()
    # KeyError until Python 3.12.
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def environment_folder(sources: Iterable[str], *, further: bool = False) -> Path:
    """Return the folder of the inventory that a run was given.

    Args:
        sources: The inventories.
        further: Whether there may be others without group_vars, as one that puts hosts into groups.

    Raises:
        AnsibleActionFail: There is no inventory on disk, or more than one.
    """
    folders = {source if source.is_dir() else source.parent for source in map(Path, sources) if source.exists()}
    if further and len(folders) > 1:
        folders = {folder for folder in folders if (folder / "group_vars").is_dir()} or folders
    if len(folders) != 1:
        found = ", ".join(sorted(map(str, folders))) or "none"
        raise AnsibleActionFail(f"an environment is one folder with its group_vars, given with -i; found: {found}")
    return folders.pop()


def write_atomically(path: Path, data: bytes, mode: int) -> None:
    """Replace a file, or create it; a reader sees the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
