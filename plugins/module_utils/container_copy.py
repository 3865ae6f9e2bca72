# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a copy of a service's container to its end: with its image, environment, limits, networks and volumes, and its files as they are now.

Jobs and one-off commands run so. A copy has a name, labels and files of its own, so a release neither stops it nor changes what it reads.
Needs Python 3 and nothing else: the program of role jobs brings this file along.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
import typing as t
from urllib.parse import quote

from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError, lines_of

JSON = dict[str, t.Any]

#: What a copy takes over of a container's configuration; the image brings the rest along.
TAKEN = ("User", "Env", "Entrypoint", "Cmd", "StopSignal", "StopTimeout")


#: The label of a container that starts its program through others, as JSON: how many words of its entrypoint copies keep (``wrapper``), the
#: entrypoint of its program (``entrypoint``), and the volumes that copies do without (``without``).
COPIED = "slipway.copied"
#: Of each copy, while it is there: its files, and a lock that says that the program which follows it lives. Gone with a reboot.
COPIES = "/run/slipway-copies"
#: Seconds between two looks at whether a copy is to be stopped.
LOOK_SECONDS = 5.0


class CopyError(Exception):
    """There is nothing to copy."""


@contextlib.contextmanager
def following(name: str) -> t.Iterator[str]:
    """Say, while the context lasts, that a program follows a copy; yields its folder, which goes where no copy came of it.

    Raises:
        BlockingIOError: another one does.
    """
    folder = os.path.join(COPIES, name)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield folder
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.listdir(folder) == ["lock"]:
                    shutil.rmtree(folder, ignore_errors=True)


def copy_folders(prefix: str) -> list[str]:
    """Return the names of copies that begin so, and that a program of this host has followed since its last reboot."""
    return sorted(name for name in (os.listdir(COPIES) if os.path.isdir(COPIES) else []) if name.startswith(prefix))


def left_copies(engine: Engine, prefix: str, owner: str) -> list[str]:
    """Return the names of copies that begin so, whose program was killed, has not ended, or ran before a reboot.

    Args:
        engine: the host's engine.
        prefix: how their names begin.
        owner: the label that their containers have.

    Raises:
        EngineError: the engine does not answer.
    """
    owned = [container for container in engine.containers() if (container.get("Labels") or {}).get("slipway.owner") == owner]
    names = {name.lstrip("/") for container in owned for name in container["Names"]}
    return sorted({name for name in names if name.startswith(prefix)} | set(copy_folders(prefix)))


def serving_container(root: str, stack: str, service: str) -> tuple[str, str]:
    """Return the container of a service in the slot that serves, and the version.

    Raises:
        CopyError: no version serves on this host.
    """
    path = os.path.join(root, stack, "release", "state.json")
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError) as error:
        raise CopyError("no version of the product serves on this host yet: run site.yml first") from error
    return f"{stack}-{service}-{record['slot']}-1", str(record["version"])


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


def copied_parts(inspected: JSON) -> JSON:
    """Return what the label COPIED of a container says; nothing of one without it."""
    return t.cast("JSON", json.loads((inspected["Config"].get("Labels") or {}).get(COPIED) or "{}"))


def body_of(inspected: JSON, binds: list[str], labels: dict[str, str], command: t.Sequence[str] = ()) -> JSON:
    """Return what the engine is asked for: a container that publishes nothing, has no health check and ends for good.

    Args:
        inspected: the engine's description of the container to copy.
        binds: what it mounts.
        labels: its labels.
        command: what to run instead of the container's own command.
    """
    config, networks, copied = inspected["Config"], list(inspected["NetworkSettings"]["Networks"]), copied_parts(inspected)
    taken = {key: config[key] for key in TAKEN if config.get(key) is not None}
    taken |= {"Cmd": list(command)} if command else {}
    if copied:
        words = [*config["Entrypoint"][: copied["wrapper"]], *(copied["entrypoint"] if command else []), *(taken.get("Cmd") or [])]
        # With an entrypoint, the engine adds nothing of the image's.
        taken |= {"Entrypoint": words[:1], "Cmd": words[1:]}
    return {
        **taken,
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


def start_copy(
    engine: Engine,
    container: str,
    name: str,
    labels: dict[str, str],
    folder: str,
    command: t.Sequence[str] = (),
    binds: t.Sequence[str] = (),
) -> str:
    """Start a copy of a container; return its id.

    Args:
        engine: the host's engine.
        container: name of the container to copy, which need not run.
        name: name of the copy.
        labels: labels of the copy.
        folder: the folder that following() has yielded.
        command: what to run instead of the container's own command.
        binds: what it mounts in addition.

    Raises:
        CopyError: there is no such container.
        EngineError: the engine refuses.
    """
    inspected = engine.inspect(container)
    if inspected is None:
        raise CopyError(f"the container {container}, which it is a copy of, does not exist: site.yml creates it")
    without = copied_parts(inspected).get("without", ())
    own = [bind for bind in inspected["HostConfig"].get("Binds") or [] if bind.partition(":")[0] not in without]
    mounts = [*copied_binds(own, folder), *binds]
    made = json.loads(engine.request("POST", "/containers/create", {"name": name}, body_of(inspected, mounts, labels, command)))
    identity = str(made["Id"])
    for network in list(inspected["NetworkSettings"]["Networks"])[1:]:
        engine.request("POST", f"/networks/{quote(network)}/connect", body={"Container": identity})
    engine.request("POST", f"/containers/{identity}/start")
    return identity


def follow_copy(engine: Engine, identity: str, seconds: float, stopped: t.Callable[[], bool] = lambda: False) -> tuple[str, int | None]:
    """Wait for the end of a copy.

    Args:
        engine: the host's engine, which may restart meanwhile.
        identity: the copy's id.
        seconds: after which it is not waited for any more.
        stopped: returns whether it is not to be waited for.

    Returns:
        ``succeeded`` or ``failed`` with its exit code; or without one ``deadline``, ``replaced`` where it is not to be waited for, and
        ``interrupted`` where it was removed.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        pause = max(0.1, min(LOOK_SECONDS, deadline - began))
        with contextlib.suppress(EngineError):
            # It answers at once when the container has ended, or not within this time.
            engine.request("POST", f"/containers/{identity}/wait", timeout=pause)
        with contextlib.suppress(EngineError):
            inspected = engine.inspect(identity)
            if inspected is None:
                return "interrupted", None
            state = inspected["State"]
            if not state["Running"]:
                code = int(state["ExitCode"])
                return "failed" if code or state.get("OOMKilled") else "succeeded", code
        # An engine that is away, or refuses, does so at once.
        time.sleep(max(0.0, began + pause - time.monotonic()))
        if began >= deadline:
            return "deadline", None
        if stopped():
            return "replaced", None


def end_copy(engine: Engine, name: str, lines: int) -> list[str]:
    """Stop a copy as its service wants it, if it runs, and remove it with its files; return the last lines that it wrote."""
    log: list[str] = []
    inspected = engine.inspect(name)
    if inspected is not None:
        try:
            engine.stop(inspected)
            log = lines_of(engine.logs(name, lines))[-lines:]
            engine.remove(name, volumes=True)
        except EngineError:
            # Whoever removes the stack, or restores its data, removes it too.
            left = engine.inspect(name)
            if left is not None and left["State"]["Status"] not in ("removing", "dead"):
                raise
    shutil.rmtree(os.path.join(COPIES, name), ignore_errors=True)
    return log
