# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a service on its host: written atomically, in revisions of which one is current, and checked in the running container."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time

from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError


class RefusedError(Exception):
    """Something is in the way; the message says what and how to mend it."""


def read_text(path: str) -> str | None:
    """Return a file's text, or None when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def write_file(path: str, content: str, mode: int, uid: int = 0, gid: int = 0) -> bool:
    """Make a file what is asked for, atomically; return whether anything changed."""
    with contextlib.suppress(OSError):
        info = os.lstat(path)
        same = (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (mode, uid, gid)
        if same and not os.path.islink(path) and read_text(path) == content:
            return False
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".slipway-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
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


def reload(engine: Engine, container: str, argv: list[str]) -> None:
    """Have the service take over what is current.

    Raises:
        RefusedError: it does not; the message holds what it printed.
        EngineError: it cannot be told.
    """
    # What is current was checked, so a refusal passes: one that is starting cannot be told yet. nginx names its process in a file that is
    # empty until then, as its check makes it.
    run_in_container(engine, container, argv, "The reload", tries=3)
