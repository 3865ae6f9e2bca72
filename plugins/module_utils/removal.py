# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete below one folder only, and decide what destroying a stack removes from a host.

Whatever deletes goes through here: names are those that were read, paths are resolved, and nothing outside of its own folder is touched.
"""

from __future__ import annotations

import os
import re
import shutil
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.containers import SLOTS, slot_owner

STACK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
MOUNTS = "/proc/self/mountinfo"


class RemovalError(ValueError):
    """Something must not be deleted; nothing was."""


def stack_problem(name: t.Any) -> str:
    """Return why a value cannot be the name of a stack, or "" when it can; folders, containers and units are named after it."""
    if isinstance(name, str) and STACK_NAME.fullmatch(name):
        return ""
    how = "use at most 41 small letters, digits, - and _, beginning with a letter or digit"
    return f"slipway_stack is {name!r}, which cannot be part of a container's name; {how}"


def mount_points(path: str = MOUNTS) -> list[str]:
    """Return where file systems are mounted, as the kernel says."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            fields = [line.split(" ")[4] for line in file if line.count(" ") > 4]
    except OSError:
        return []
    return [re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field) for field in fields]


def inside(top: str, name: str) -> str:
    """Return the resolved path of an entry directly below a folder.

    Args:
        top: the folder, which may be a link itself.
        name: the entry's name, without any separator.

    Raises:
        RemovalError: the name leads elsewhere: it is empty, ``.`` or ``..``, has a separator, or is a link.
    """
    if not name or name in {os.curdir, os.pardir} or "/" in name or "\0" in name:
        raise RemovalError(f"{name!r} is not the name of an entry of {top}")
    folder = os.path.realpath(top)
    path = os.path.join(folder, name)
    if os.path.realpath(path) != path:
        raise RemovalError(f"{path} is a link to {os.path.realpath(path)}: remove the link, or what it leads to, by hand")
    return path


def removable(top: str, name: str) -> str:
    """Return the resolved path of an entry that may be deleted with all in it, or "" where there is none.

    Links below it are deleted as links, and never followed.

    Raises:
        RemovalError: it leads elsewhere, or a file system is mounted in it.
    """
    path = inside(top, name)
    if not os.path.lexists(path):
        return ""
    mounted = [point for point in mount_points() if point == path or point.startswith(f"{path}/")]
    if mounted:
        raise RemovalError(f"{mounted[0]} is a mount point below {path}: unmount it first")
    return path


def remove_entry(top: str, name: str) -> bool:
    """Delete an entry directly below a folder, with all in it; return whether there was one.

    Raises:
        RemovalError: it leads elsewhere, or a file system is mounted in it.
    """
    path = removable(top, name)
    if not path:
        return False
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
    return True


def folders_without_service(names: t.Iterable[str], containers: t.Container[str], stack: str, owner: str) -> list[str]:
    """Return the folders of a slot's services that have no container, such as those of a release that failed; they hold secrets.

    Args:
        names: names of the folders of a stack.
        containers: names of all containers.
        stack: name of the stack.
        owner: owner of the slot's containers; others than slots have no such folders.
    """
    slots = {slot_owner(slot): slot for slot in SLOTS}
    wanted = re.compile(rf".+-{slots[owner]}(-[0-9]+)?") if owner in slots else re.compile("(?!)")
    return sorted(name for name in names if wanted.fullmatch(name) and f"{stack}-{name}" not in containers)


def stack_units(stack: str, folder: str) -> list[str]:
    """Return the names of a stack's units in a folder of systemd's, as they are there."""
    kinds = r"acme|backup|drill|firewall|jobs|mesh(-rules)?|watchdog|job\.[a-z0-9-]+"
    wanted = re.compile(rf"slipway-{re.escape(stack)}-({kinds})\.(timer|service)")
    return sorted(name for name in (os.listdir(folder) if os.path.isdir(folder) else []) if wanted.fullmatch(name))


def kind(value: t.Any) -> str:
    """Return the type of a value as its author knows it; Ansible's own kinds of text and lists are still text and lists."""
    known = ((bool, "a boolean"), (str, "a string"), (dict, "a dictionary"), (list, "a list"), (type(None), "null"))
    return next((name for type_, name in known if isinstance(value, type_)), "a number")
