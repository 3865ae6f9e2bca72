# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a copy of a service's container to its end: with its image, environment, limits, networks and volumes, and its files as they are now.

Jobs and one-off commands run so. A copy has a name, labels and files of its own, so a release neither stops it nor changes what it reads.
Needs Python 3 and nothing else: the program of role jobs brings this file along.
"""

from __future__ import annotations

import json
import os
import shutil
import typing as t
from urllib.parse import quote

from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine

JSON = dict[str, t.Any]

#: What a copy takes over of a container's configuration; the image brings the rest along.
TAKEN = ("User", "Env", "Entrypoint", "Cmd", "StopSignal", "StopTimeout")


class CopyError(Exception):
    """There is nothing to copy."""


def copy_tree(source: str, target: str) -> None:
    """Copy a folder with owners, modes and links."""
    info = os.lstat(source)
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.mkdir(target, 0o700)
        for name in os.listdir(source):
            copy_tree(os.path.join(source, name), os.path.join(target, name))
    else:
        with open(source, "rb") as read, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
            shutil.copyfileobj(read, written)
    os.chown(target, info.st_uid, info.st_gid)
    os.chmod(target, info.st_mode & 0o7777)


def copied_binds(binds: t.Iterable[str], folder: str) -> list[str]:
    """Copy the folders of the host that a container mounts, into a folder; return how the copy mounts them, and its volumes."""
    found = []
    for bind in binds:
        source, colon, rest = bind.partition(":")
        if source.startswith("/"):
            target = os.path.join(folder, os.path.basename(source))
            copy_tree(source, target)
            source = target
        found.append(source + colon + rest)
    return found


def body_of(inspected: JSON, binds: list[str], labels: dict[str, str], command: t.Sequence[str] = ()) -> JSON:
    """Return what the engine is asked for: a container that publishes nothing, has no health check and ends for good.

    Args:
        inspected: the engine's description of the container to copy.
        binds: what it mounts.
        labels: its labels.
        command: what to run instead of the container's own command.
    """
    config, networks = inspected["Config"], list(inspected["NetworkSettings"]["Networks"])
    taken = {key: config[key] for key in TAKEN if config.get(key) is not None}
    return {
        **taken,
        **({"Cmd": list(command)} if command else {}),
        # Not by name, which a build may have given to another image since.
        "Image": inspected["Image"],
        "Labels": labels,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **inspected["HostConfig"],
            "Binds": binds,
            "PortBindings": {},
            "RestartPolicy": {"Name": "no"},
            "NetworkMode": networks[0] if networks else "none",
        },
        "NetworkingConfig": {"EndpointsConfig": {name: {} for name in networks[:1]}},
    }


def start_copy(engine: Engine, container: str, name: str, labels: dict[str, str], folder: str, command: t.Sequence[str] = ()) -> str:
    """Start a copy of a container; return its id.

    Args:
        engine: the host's engine.
        container: name of the container to copy, which need not run.
        name: name of the copy.
        labels: labels of the copy.
        folder: an empty folder for its files.
        command: what to run instead of the container's own command.

    Raises:
        CopyError: there is no such container.
        EngineError: the engine refuses.
    """
    inspected = engine.inspect(container)
    if inspected is None:
        raise CopyError(f"the container {container}, which it is a copy of, does not exist")
    binds = copied_binds(inspected["HostConfig"].get("Binds") or [], folder)
    made = json.loads(engine.request("POST", "/containers/create", {"name": name}, body_of(inspected, binds, labels, command)))
    identity = str(made["Id"])
    for network in list(inspected["NetworkSettings"]["Networks"])[1:]:
        engine.request("POST", f"/networks/{quote(network)}/connect", body={"Container": identity})
    engine.request("POST", f"/containers/{identity}/start")
    return identity


def remove_copy(engine: Engine, identity: str, folder: str) -> None:
    """Stop a copy as its service wants it, if it runs, and remove it with its files."""
    inspected = engine.inspect(identity)
    if inspected is not None:
        engine.stop(inspected)
        engine.request("DELETE", f"/containers/{quote(identity)}", {"force": 1, "v": 1})
    shutil.rmtree(folder, ignore_errors=True)
