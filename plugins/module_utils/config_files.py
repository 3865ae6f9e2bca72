# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a service on its host: written atomically, in revisions of which one is current, and checked in the running container.

What a change replaces is kept until the service has accepted the change: in the folder ``undo`` of the service, with a copy of its
secrets and a note of the revision that was current. A run that dies leaves it there, for the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError, lines_of

#: Options of the modules that write a service's files, or try them; the documentation is the fragment ``options.service_files``.
SERVICE_FILES: dict[str, t.Any] = {
    "folder": {"type": "path", "required": True},
    "image": {"type": "str", "required": True},
    "user": {"type": "str", "default": ""},
    "non_root": {"type": "bool", "default": True},
    "revision": {"type": "str", "default": ""},
    "config": {"type": "dict", "default": {}},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "judged_inputs": {"type": "list", "elements": "str", "default": []},
}


class RefusedError(Exception):
    """There is an obstacle; the message says what, and how to fix it."""


def read_text(path: str) -> str | None:
    """Return a file's text, or None when there is none."""
    data = read_bytes(path)
    return None if data is None else data.decode("utf-8", "replace")


def read_bytes(path: str) -> bytes | None:
    """Return what a file holds as it is, or None when there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


#: Mode of a folder that a container's user reads.
FOLDER_MODE = 0o755
#: What the names of files begin with that are not written to their end yet.
TEMPORARY = ".slipway-"


def make_folder(path: str, mode: int = FOLDER_MODE, uid: int = 0, gid: int = 0) -> bool:
    """Make a folder, and those above it that are missing, with this mode whatever the umask; return whether it was missing.

    Those above it are root's, for everybody to read.
    """
    if os.path.isdir(path):
        return False
    parent = os.path.dirname(path.rstrip("/"))
    if parent and parent != path:
        make_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    if (uid, gid) != (0, 0):
        os.chown(path, uid, gid)
    # Not the mode of mkdir, from which the umask takes away: a container's user may not read its files where root's is 077.
    os.chmod(path, mode)
    return True


def write_file(path: str, content: str | bytes, mode: int, uid: int = 0, gid: int = 0) -> bool:
    """Make a file what is asked for, atomically; return whether anything changed."""
    data = content.encode() if isinstance(content, str) else content
    with contextlib.suppress(OSError):
        info = os.lstat(path)
        same = (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (mode, uid, gid)
        if same and not os.path.islink(path) and read_bytes(path) == data:
            return False
    folder = os.path.dirname(path)
    make_folder(folder)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chown(temporary, uid, gid)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return True


def switch(folder: str, revision: str) -> str:
    """Make the link ``current`` name a revision, atomically; return the revision it named before."""
    link = os.path.join(folder, "current")
    previous = os.readlink(link) if os.path.islink(link) else ""
    if previous != revision:
        # Its time says when it last became current, which prune goes by.
        with contextlib.suppress(FileNotFoundError):
            os.utime(os.path.join(folder, revision))
        temporary = os.path.join(folder, ".current-new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(revision, temporary)
        os.replace(temporary, link)
    return previous


def undo_folder(folder: str) -> str:
    """Return the place of what a change of a service's files replaces."""
    return os.path.join(folder, "undo")


def keep_files(folder: str) -> None:
    """Keep what the files of a service are, until ``forget_files`` or ``restore_files``.

    What a run that died has kept stays: the service has accepted that, and nothing since.
    """
    place, partial = undo_folder(folder), undo_folder(folder) + ".new"
    if os.path.isdir(place):
        return
    shutil.rmtree(partial, ignore_errors=True)
    secrets, link = os.path.join(folder, "secrets"), os.path.join(folder, "config", "current")
    make_folder(os.path.join(partial, "secrets"), 0o700)
    os.chmod(partial, 0o700)
    journal: dict[str, t.Any] = {"current": os.readlink(link) if os.path.islink(link) else "", "secrets": {}, "folder": []}
    journal["loaded"] = read_text(os.path.join(folder, "config", "loaded"))
    if os.path.isdir(secrets):
        info = os.lstat(secrets)
        journal["folder"] = [info.st_mode & 0o7777, info.st_uid, info.st_gid]
        for name in sorted(name for name in os.listdir(secrets) if not name.startswith(TEMPORARY)):
            info = os.lstat(os.path.join(secrets, name))
            journal["secrets"][name] = [info.st_mode & 0o7777, info.st_uid, info.st_gid]
            write_file(os.path.join(partial, "secrets", name), read_bytes(os.path.join(secrets, name)) or b"", 0o400)
    write_file(os.path.join(partial, "journal.json"), json.dumps(journal), 0o600)
    os.rename(partial, place)


def restore_files(folder: str) -> bool:
    """Make the files of a service what ``keep_files`` has kept; return whether there was any."""
    place, secrets, config = undo_folder(folder), os.path.join(folder, "secrets"), os.path.join(folder, "config")
    if not os.path.isdir(place):
        return False
    journal = json.loads(read_text(os.path.join(place, "journal.json")) or "{}")
    for name, (mode, uid, gid) in journal["secrets"].items():
        write_file(os.path.join(secrets, name), read_bytes(os.path.join(place, "secrets", name)) or b"", mode, uid, gid)
    if os.path.isdir(secrets):
        for name in set(os.listdir(secrets)) - set(journal["secrets"]):
            os.unlink(os.path.join(secrets, name))
        if journal["folder"]:
            mode, uid, gid = journal["folder"]
            os.chown(secrets, uid, gid)
            os.chmod(secrets, mode)
        else:
            os.rmdir(secrets)
    if journal["current"]:
        switch(config, journal["current"])
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(config, "current"))
    if journal["loaded"] is not None:
        write_file(os.path.join(config, "loaded"), journal["loaded"], 0o644)
    forget_files(folder)
    return True


def forget_files(folder: str) -> bool:
    """Drop what ``keep_files`` has kept, as the service has accepted what took its place; return whether there was any."""
    place, dropped = undo_folder(folder), undo_folder(folder) + ".old"
    for path in (dropped, place + ".new"):
        shutil.rmtree(path, ignore_errors=True)
    if not os.path.isdir(place):
        return False
    # In one step, as half of it cannot be undone.
    os.rename(place, dropped)
    shutil.rmtree(dropped, ignore_errors=True)
    return True


def another_owner(volume: str, owner: int, uid: int, asked_by: str = "") -> str:
    """Return what to say of a volume whose data is another user's than that of the container that is to have it.

    Args:
        volume: its name.
        owner: the number of the user whose data it holds.
        uid: the number of the container's user.
        asked_by: the input or key that gives that number, if none of the image's names is behind it.
    """
    if asked_by:
        return f"volume {volume} holds data of user {owner}, and {asked_by} is {uid}: set {asked_by} back to {owner}"
    return (
        f"volume {volume} holds data of user {owner}, but the image runs as user {uid}. Images of another family give their users other "
        "numbers (and sort text in another order, which corrupts indexes): go back to the image that made the data, or dump it and restore "
        "the dump into a new volume"
    )


def container_user(engine: Engine, image: str, user: str, non_root: bool) -> tuple[int, int]:
    """Return the numbers of user and group that a container of an image runs as.

    Raises:
        RefusedError: it is root, and must not be.
        EngineError: the image or the user does not exist.
    """
    uid, gid = engine.image_user(image, user)
    if uid == 0 and non_root:
        raise RefusedError(
            f"image {image} would run as root: give the service a user (its input …_user), "
            "or add non_root to its hardening exceptions, with the reason"
        )
    return uid, gid


def volume_to_give(engine: Engine, name: str, uid: int) -> str:
    """Return the folder of an empty volume whose root another user owns, or nothing where it is right as it is.

    Raises:
        RefusedError: the volume holds data of another user, which a change of image variant brings about.
    """
    try:
        place = str(engine.get(f"/volumes/{name}")["Mountpoint"])
        info = os.stat(place)
    except (EngineError, OSError):
        # Made by the engine at the container's start, or kept by a driver elsewhere.
        return ""
    if info.st_uid == uid:
        return ""
    if [entry for entry in os.listdir(place) if entry != "lost+found"]:
        raise RefusedError(another_owner(name, info.st_uid, uid))
    return place


def run_in_container(engine: Engine, container: str, argv: list[str], what: str, tries: int = 1) -> None:
    """Run a command in the container, up to so many times, a second apart.

    Raises:
        RefusedError: it fails; the message holds what it printed.
        EngineError: it cannot be run.
    """
    for left in reversed(range(tries)):
        try:
            code, out, err = engine.execute(container, argv)
        except EngineError:
            if not left:
                raise
        else:
            if code == 0:
                return
            if not left:
                printed = (err.strip() or out.strip())[-2000:]
                raise RefusedError(f"{what} ({' '.join(argv)}) ended with status {code} in {container}: {printed}")
        time.sleep(1)


def lines_named(text: str, config: dict[str, str]) -> str:
    """Return the lines of configuration that a program names by file and number, each as a line of its own; "" where it names none.

    Of a line, at most 300 characters.
    """
    found = dict.fromkeys((os.path.basename(file), int(number)) for file, number in re.findall(r"([^\s:\"']+):(\d+)", text))
    lines = {(file, number): lines_of(config[file])[number - 1 : number] for file, number in found if file in config and number > 0}
    return "".join(f"\nLine {number} of {file} is: {_start(line[0].strip())}" for (file, number), line in lines.items() if line)


def _start(line: str, longest: int = 300) -> str:
    return line if len(line) <= longest else f"{line[:longest]} …"


def look_at(inputs: list[str]) -> str:
    """Return what a refusal adds about the inputs that it may come from, as a line of its own; "" where there are none."""
    return f"\nCorrect what it names; it comes from {inputs[0] if len(inputs) == 1 else 'one of ' + ', '.join(inputs)}." if inputs else ""


def reload(engine: Engine, container: str, argv: list[str]) -> None:
    """Have the service take over what is current.

    Raises:
        RefusedError: it does not; the message holds what it printed.
        EngineError: it cannot be signalled.
    """
    # The current files were checked, so a refusal is temporary: a starting service cannot be signalled yet. nginx writes its pid to a
    # file that is empty until then, as its check makes it.
    run_in_container(engine, container, argv, "The reload", tries=3)
