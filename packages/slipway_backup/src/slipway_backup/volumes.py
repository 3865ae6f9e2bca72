# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes of the product, one data set for each host and volume: copied by rsync, with a list of what is in them.

A file that has not changed since the point before is a hard link to that one's. Owners and modes are in rsync's extended attribute
(--fake-super), as the program is not root; symbolic links are files that hold their target.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
import typing as t
from pathlib import Path

from slipway_backup.common import JSON, Config, StepError, execute, read_lines, say, sha256_of, write_lines
from slipway_backup.points import TREES, Point, read_points

STORE = "volumes"
#: User of the volume server, which the role volume_server names.
USER = "backup"
CONNECT_SECONDS = 10
#: Without a byte, also while the other side reads folders.
SILENT_SECONDS = 600
#: What rsync keeps here: mode, device, user and group.
ATTRIBUTES = "user.rsync.%stat"
#: rsync's exit code when files were deleted while it copied.
VANISHED = 24
COPY = ["rsync", "--recursive", "--links", "--perms", "--times", "--group", "--owner", "--hard-links", "--sparse", "--numeric-ids"]
FAULTS_SHOWN = 5


def sets_of(point: Point) -> dict[str, JSON]:
    """Return the data sets of a point, by host/volume."""
    return dict(point.manifest["stores"].get(STORE, {}).get("sets", {}))


def tree_of(point: Point, name: str) -> Path:
    """Return the folder with the files of a data set."""
    return point.folder / TREES / name


def list_of(folder: Path, name: str) -> Path:
    """Return the file that lists a data set, in the folder of a point."""
    return folder / STORE / f"{name}.jsonl.zst"


def attributes(path: Path, found: os.stat_result) -> tuple[int, int, int]:
    """Return mode, user and group of an entry, as they were on its host."""
    try:
        mode, _device, owner = os.getxattr(path, ATTRIBUTES, follow_symlinks=False).decode().split()
    except OSError as error:
        if error.errno not in {errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM}:
            raise
        return found.st_mode, found.st_uid, found.st_gid
    user, group = owner.split(":")
    return int(mode, 8), int(user), int(group)


def entries(tree: Path, known: t.Mapping[int, str] | None = None) -> t.Iterator[JSON]:
    """Yield what is in a folder, itself first, in the order of the parts of the paths.

    Args:
        tree: the folder, of a point or restored.
        known: digests by the number of the inode, which spare reading the file.
    """

    def walk(path: Path, name: str) -> t.Iterator[JSON]:
        found = path.lstat()
        mode, user, group = attributes(path, found)
        entry: JSON = {"path": name, "mode": f"{stat.S_IMODE(mode):04o}", "user": user, "group": group}
        if stat.S_ISDIR(mode):
            yield {**entry, "type": "folder"}
            for child in sorted(os.listdir(path)):
                yield from walk(path / child, child if name == "." else f"{name}/{child}")
        elif stat.S_ISLNK(mode):
            target = os.readlink(path) if path.is_symlink() else os.fsdecode(path.read_bytes())
            yield {**entry, "type": "link", "target": target}
        else:
            digest = (known or {}).get(found.st_ino) or sha256_of(path)
            yield {**entry, "type": "file", "bytes": found.st_size, "modified": int(found.st_mtime), "sha256": digest}

    return walk(tree, ".")


def differences(expected: t.Iterator[JSON], actual: t.Iterator[JSON]) -> t.Iterator[str]:
    """Yield how entries that exist differ from a list; both are in the order of entries()."""

    def key(entry: JSON) -> list[str]:
        return str(entry["path"]).split("/")

    listed, there = next(expected, None), next(actual, None)
    while listed or there:
        if there is None or (listed and key(listed) < key(there)):
            yield f"{t.cast('JSON', listed)['path']} is missing"
            listed = next(expected, None)
        elif listed is None or key(there) < key(listed):
            yield f"{there['path']} is not of the point"
            there = next(actual, None)
        else:
            if other := sorted(name for name in {*listed, *there} if listed.get(name) != there.get(name)):
                yield f"{listed['path']} is damaged: {', '.join(other)} differ{'s' if len(other) == 1 else ''}"
            listed, there = next(expected, None), next(actual, None)


def faults(point: Point, name: str, tree: Path | None = None) -> list[str]:
    """Return what is wrong with a data set of a point, or with a restored copy of it; of many faults the first."""
    try:
        found = list(differences(read_lines(list_of(point.folder, name)), entries(tree or tree_of(point, name))))
    except (OSError, StepError) as error:
        found = [str(error)]
    more = [f"{len(found) - FAULTS_SHOWN} more"] if len(found) > FAULTS_SHOWN else []
    return [f"{STORE}/{name}: {fault}" for fault in found[:FAULTS_SHOWN] + more]


def digests(point: Point, name: str) -> dict[int, str]:
    """Return the digest of each file of a data set, by the number of its inode.

    Raises:
        StepError: its list is damaged.
    """
    tree = tree_of(point, name)
    files = (entry for entry in read_lines(list_of(point.folder, name)) if entry["type"] == "file")
    return {(tree / entry["path"]).lstat().st_ino: entry["sha256"] for entry in files}


def copy(config: Config, source: JSON, folder: Path) -> JSON:
    """Copy a volume from its host, and list it; return the part of the manifest that describes it.

    Raises:
        StepError: the host is away, refuses, or cannot read all of it.
    """
    name = f"{source['host']}/{source['name']}"
    began = time.monotonic()
    target = folder / TREES / name
    target.mkdir(parents=True)
    before = next((point for point in reversed(read_points(config)) if name in sets_of(point)), None)
    known: dict[int, str] = {}
    options = []
    if before:
        try:
            known = digests(before, name)
            options = [f"--link-dest={tree_of(before, name)}", *(["--checksum"] if before.verdict == "failed" else [])]
        except (OSError, StepError) as error:
            say(f"volumes: {name} is copied in full, as the copy of {before.name} cannot be used: {error}")
    execute(
        [
            *COPY, "--fake-super", *options, f"--contimeout={CONNECT_SECONDS}", f"--timeout={SILENT_SECONDS + source.get('seconds', 0)}",
            f"--password-file={config.secrets / 'volumes_password'}",
            f"rsync://{USER}@{source['address']}:{source['port']}/{STORE}/{source['name']}/", f"{target}/",
        ],
        f"copy volume {source['name']} of {source['host']}",
        codes=(0, VANISHED),
    )  # fmt: skip
    told = {"files": 0, "bytes": 0, "new_bytes": 0}

    def counted() -> t.Iterator[JSON]:
        for entry in entries(target, known):
            if entry["type"] == "file":
                told["files"] += 1
                told["bytes"] += entry["bytes"]
                told["new_bytes"] += 0 if (target / entry["path"]).lstat().st_ino in known else entry["bytes"]
            yield entry

    path = list_of(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, counted())
    return {**told, "seconds": round(time.monotonic() - began, 1)}


def capture(config: Config, folder: Path) -> JSON:
    """Copy all volumes into a point's folder; a host that is away costs its own data sets only.

    Returns:
        The part of the manifest that describes them: ``sets``, and ``missing`` with the reasons.

    Raises:
        StepError: the disk is full.
    """
    began = time.monotonic()
    sets: dict[str, JSON] = {}
    missing: dict[str, str] = {}
    for source in config.volumes:
        name = f"{source['host']}/{source['name']}"
        try:
            sets[name] = copy(config, source, folder)
        except StepError as error:
            if os.strerror(errno.ENOSPC) in str(error):
                raise
            say(f"volumes: {error}")
            missing[name] = str(error)
            shutil.rmtree(folder / TREES / name, ignore_errors=True)
    return {
        "sets": sets,
        "missing": missing,
        "bytes": sum(told["bytes"] for told in sets.values()),
        "seconds": round(time.monotonic() - began, 1),
    }


def refuse_missing(manifest: JSON) -> None:
    """Refuse to call a point whole that lacks a volume.

    Raises:
        StepError: it does; with the reasons.
    """
    missing = manifest["stores"].get(STORE, {}).get("missing")
    if missing:
        raise StepError("; ".join(missing.values()))


def extract(point: Point, name: str, folder: Path) -> None:
    """Write a data set into a folder, with its owners and modes, and compare all of it; needs the rights to give files away.

    Raises:
        StepError: the point has no such data set, it cannot be written, or it is damaged.
    """
    if name not in sets_of(point):
        there = ", ".join(sorted(sets_of(point))) or "none"
        raise StepError(f"the point {point.name} does not contain the volume {name}; it contains {there}")
    # Of the two ends of a local copy, only the source has its owners in attributes.
    execute([*COPY, "--fake-super", "--remote-option=--super", f"{tree_of(point, name)}/", f"{folder}/"], f"copy {STORE}/{name}")
    if found := faults(point, name, folder):
        raise StepError(f"the point {point.name} is damaged: {'; '.join(found)}")
