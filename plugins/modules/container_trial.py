#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Try a container's new image, options, configuration and secrets in a throw-away container, without its data and without a network."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_trial
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Try what is to take a running container's place, in a throw-away container
description:
  - Makes a container of the new image with the new options, configuration and secrets, without volumes, network and published ports, runs a
    command in it that shows whether they are good, and removes it and its files. Nothing else on the host changes.
  - Fails with what the container wrote when the command fails, when the engine refuses an option, when the image would run as root, or
    when a volume holds data of another user.
  - What an earlier call that was killed has left under the same name is removed first.
options:
  container:
    description: Name of the container that is to be replaced; the throw-away one has C(-trial) behind it.
    type: str
    required: true
  volumes:
    description: Volumes whose root the container's user must own, or which are empty.
    type: list
    elements: str
    default: []
  options:
    description: Options of M(community.docker.docker_container), as M(slipway.stack.service_plan) returns them.
    type: dict
    required: true
  command:
    description: >-
      Command that shows whether all is good; C({revision}) stands for the revision's name. Without one, the service's own program is
      started and ended at once, which shows whether the engine takes its options, and whether the program is in the image.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that the command may take.
    type: float
    default: 60
extends_documentation_fragment:
  - slipway.stack.options.log_lines
  - slipway.stack.options.service_files
  - slipway.stack.attributes.not_in_check_mode
"""

EXAMPLES = r"""
- name: Try nginx's new image
  slipway.stack.container_trial:
    container: slipway-nginx
    folder: /etc/slipway/slipway/nginx
    image: nginx:1-alpine
    revision: 0123456789ab
    config: {nginx.conf: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"}
    options: "{{ container_service_plan.services[0].options }}"
    command: [nginx, -t, -c, "/etc/slipway/{revision}/nginx.conf"]
"""

RETURN = r"""
uid:
  description: Number of the container's user.
  returned: success
  type: int
gid:
  description: Number of the container's group.
  returned: success
  type: int
entrypoint:
  description: Entrypoint of the image.
  returned: success
  type: list
  elements: str
command:
  description: Command of the image.
  returned: success
  type: list
  elements: str
seconds:
  description: Seconds that the trial took.
  returned: success
  type: float
"""

import contextlib
import json
import os
import re
import shutil
import time
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.config_files import (
    SERVICE_FILES,
    RefusedError,
    container_user,
    lines_named,
    look_at,
    make_folder,
    volume_to_give,
    write_file,
)
from ansible_collections.slipway.stack.plugins.module_utils.containers import YIELDING_CPU_SHARES
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.secret_module import SecretModule

INTERVAL = 0.1
#: By these a trial that was killed is found.
KEPT_LABELS = ("slipway.stack", "slipway.owner", "slipway.version")
#: What the engine says of an option, and how the names of the inputs end that it comes from.
ABOUT = (
    (re.compile(r"no program|no command|exec format|entrypoint"), ("entrypoint", "command")),
    (re.compile(r"\b(user|group|passwd)\b"), ("user",)),
    (re.compile(r"rlimit|ulimit"), ("ulimits",)),
    (re.compile(r"memory", re.IGNORECASE), ("memory_mb",)),
    (re.compile(r"\bcpus?\b", re.IGNORECASE), ("cpus",)),
    (re.compile(r"mount|tmpfs|volume"), ("tmpfs", "volumes")),
)
PROGRAM = re.compile(r'exec: "(?P<program>[^"]*)": (?P<why>.*?)(: unknown)?$')


class EngineRefusedError(RefusedError):
    """The engine does not make or start the container."""


def inputs_about(text: str, inputs: list[str]) -> list[str]:
    """Return those of the inputs that a message of the engine is about, or all where it does not say."""
    for pattern, ends in ABOUT:
        found = [name for name in inputs if re.search(rf"[_.]({'|'.join(ends)})$", name)]
        if pattern.search(text) and found:
            return found
    return inputs


def refused(what: str, image: str, error: EngineError) -> EngineRefusedError:
    """Return what to say of a container that the engine does not make or start."""
    found = PROGRAM.search(str(error))
    if found:
        why = f"image {image} has no program {found['program']!r} that its user may run ({found['why']}): name another, or its whole path"
        return EngineRefusedError(f"{what} cannot be started: {why}")
    return EngineRefusedError(f"{what} cannot be started: {str(error).rpartition('container init: ')[2].removesuffix(': unknown')}")


def megabytes(size: str) -> int:
    """Return the bytes of a size as container_options writes it, such as ``256M``."""
    return int(size[:-1]) * 2**20


def without_data(options: dict[str, t.Any], uid: int, gid: int) -> dict[str, str]:
    """Return what lies in memory, by path: what does so in the container, and an empty place of its user's for each volume."""
    volumes = [mount.split(":")[1] for mount in options.get("volumes", []) if not mount.startswith("/")]
    empty = dict.fromkeys(volumes, f"noexec,nosuid,nodev,size=64m,mode=0700,uid={uid},gid={gid}")
    return empty | dict(item.split(":", 1) for item in options.get("tmpfs", []))


def request_body(
    options: dict[str, t.Any], entrypoint: list[str], command: list[str], binds: list[str], uid: int, gid: int
) -> dict[str, t.Any]:
    """Return what the engine is asked for: the container of these options without data, network, ports, health check and restarts."""
    ulimits = [limit.split(":") for limit in options.get("ulimits", [])]
    labels = {name: value for name, value in options.get("labels", {}).items() if name in KEPT_LABELS}
    return {
        "Image": options["image"],
        "User": options.get("user", ""),
        # Of the image where none is given; an entrypoint that is given stands without the image's command.
        **({"Entrypoint": entrypoint} if entrypoint else {}),
        **({"Cmd": command} if command or entrypoint else {}),
        "Env": [f"{name}={value}" for name, value in options.get("env", {}).items()],
        "Labels": labels,
        "NetworkDisabled": True,
        "HostConfig": {
            "NetworkMode": "none",
            "Binds": binds,
            "Tmpfs": without_data(options, uid, gid),
            "Memory": megabytes(options["memory"]),
            "MemorySwap": megabytes(options["memory"]),
            "NanoCpus": round(float(options["cpus"]) * 1e9),
            "CpuShares": YIELDING_CPU_SHARES,
            "PidsLimit": int(options["pids_limit"]),
            "ShmSize": megabytes(options["shm_size"]) if options.get("shm_size") else 0,
            "CapDrop": options["cap_drop"],
            "CapAdd": options["capabilities"],
            "SecurityOpt": options["security_opts"],
            "ReadonlyRootfs": bool(options["read_only"]),
            "Ulimits": [{"Name": name, "Soft": int(soft), "Hard": int(hard)} for name, soft, hard in ulimits],
            "LogConfig": {"Type": "json-file", "Config": {}},
        },
    }


def write_trial(place: str, options: dict[str, t.Any], uid: int, gid: int) -> list[str]:
    """Write configuration and secrets next to those in use; return how they are mounted."""
    binds = []
    if options["revision"]:
        for name, content in options["config"].items():
            write_file(os.path.join(place, "config", options["revision"], name), content, 0o644)
        os.symlink(options["revision"], os.path.join(place, "config", "current"))
        binds.append(f"{place}/config:/etc/slipway:ro")
    if options["secrets"]:
        make_folder(os.path.join(place, "secrets"), 0o500, uid, gid)
        for name, content in options["secrets"].items():
            write_file(os.path.join(place, "secrets", name), content, 0o400, uid, gid)
        binds.append(f"{place}/secrets:/run/secrets:ro")
    return binds


def run_to_end(engine: Engine, container: str, what: str, timeout: float, log_lines: int) -> None:
    """Wait for the end of a container that was started.

    Raises:
        RefusedError: it fails, or takes too long; the message holds what it wrote.
    """
    deadline = time.monotonic() + timeout
    while True:
        state = (engine.inspect(container) or {"State": {"Status": "gone"}})["State"]
        if state["Status"] not in ("running", "created"):
            break
        if time.monotonic() > deadline:
            raise RefusedError(f"{what} has not ended within {timeout:g} s:\n{engine.logs(container, log_lines).rstrip()}")
        time.sleep(INTERVAL)
    if state.get("ExitCode") or state.get("OOMKilled"):
        killed = ", killed at its memory limit" if state.get("OOMKilled") else ""
        raise RefusedError(f"{what} ended with status {state.get('ExitCode')}{killed}:\n{engine.logs(container, log_lines).rstrip()}")


def remove(engine: Engine, container: str) -> None:
    """Remove a container that may not be there."""
    with contextlib.suppress(EngineError):
        engine.remove(container, volumes=True)


def programs(options: dict[str, t.Any], command: list[str]) -> list[tuple[list[str], list[str]]]:
    """Return what is to be started, each as entrypoint and command: what shows whether all is good, or the service's own program."""
    if command:
        return [(command[:1], command[1:])]
    own = (options.get("entrypoint", []), options.get("command", []))
    # A wrapper would become the program only once it runs.
    return [(options["wrapper"], []), own] if "wrapper" in options else [own]


def attempt(options: dict[str, t.Any], engine: Engine) -> tuple[int, int]:
    """Do what the module's documentation says; return the numbers of the container's user and group.

    Raises:
        RefusedError: something is wrong with what was to be tried.
        EngineRefusedError: the engine refuses an option, or the program.
    """
    name, place = f"{options['container']}-trial", os.path.join(options["folder"], "trial")
    what = f"The trial of the new {options['container']}"
    try:
        uid, gid = container_user(engine, options["image"], options["user"], options["non_root"])
    except EngineError as error:
        raise EngineRefusedError(f"{what} cannot be made: {error}. Nothing was changed") from error
    for volume in options["volumes"]:
        volume_to_give(engine, volume, uid)
    remove(engine, name)
    shutil.rmtree(place, ignore_errors=True)
    try:
        make_folder(place)
        command = [part.replace("{revision}", options["revision"]) for part in options["command"]]
        binds = write_trial(place, options, uid, gid)
        for entrypoint, arguments in programs(options["options"], command):
            remove(engine, name)
            body = request_body(options["options"], entrypoint, arguments, binds, uid, gid)
            try:
                made = json.loads(engine.request("POST", "/containers/create", {"name": name}, body))
                engine.request("POST", f"/containers/{made['Id']}/start")
            except EngineError as error:
                raise refused(what, options["image"], error) from error
            if command:
                run_to_end(engine, made["Id"], what, options["timeout"], options["log_lines"])
    except RefusedError as error:
        raise type(error)(f"{error}\nNothing was changed: what runs goes on as it is.") from error
    finally:
        remove(engine, name)
        shutil.rmtree(place, ignore_errors=True)
        # A service that is new has no folder yet.
        with contextlib.suppress(OSError):
            os.rmdir(options["folder"])
    return uid, gid


def main() -> None:
    """Run the module."""
    module = SecretModule(
        argument_spec={
            **SERVICE_FILES,
            "container": {"type": "str", "required": True},
            "volumes": {"type": "list", "elements": "str", "default": []},
            "options": {"type": "dict", "required": True},
            "command": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 60},
            "log_lines": {"type": "int", "default": 20},
        }
    )
    began = time.monotonic()
    try:
        engine = Engine()
        uid, gid = attempt(module.params, engine)
        entrypoint, command = engine.image_command(module.params["image"])
    except RefusedError as error:
        judged, named = module.params["judged_inputs"], lines_named(str(error), module.params["config"])
        inputs = inputs_about(str(error), judged) if isinstance(error, EngineRefusedError) else judged
        module.fail_json(msg=f"{error}{named}{look_at(inputs)}")
    except (EngineError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, uid=uid, gid=gid, entrypoint=entrypoint, command=command, seconds=round(time.monotonic() - began, 2))


if __name__ == "__main__":
    main()
