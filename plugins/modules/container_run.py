#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command in a copy of the container of a service that serves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_run
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Run a command in a new container of the version that serves
description:
  - The container is a copy of the service's first one, with its image, environment, secrets, networks, volumes and limits. It publishes no
    port, and is removed when the command has ended.
  - If the run ends before the command, as by Ctrl-C or a lost connection, the command is stopped within 5 s of the host noticing.
  - A container that an interrupted run has left is removed by the next run on that host.
options:
  service:
    description: Name of the service.
    type: str
    required: true
  command:
    description:
      - The command with its arguments, which the container's entrypoint gets.
      - A string is split into words as a shell does it; no shell runs it.
    type: raw
    required: true
  timeout:
    description: Seconds after which the command is stopped.
    type: float
    default: 3600
extends_documentation_fragment:
  - slipway.stack.options.stack_folder
  - slipway.stack.attributes.not_in_check_mode
"""

EXAMPLES = r"""
- name: Create an administrator
  slipway.stack.container_run:
    stack: slipway
    service: backend
    command: [python, -m, shop.admin, create]
"""

RETURN = r"""
container:
  description: Name of the container that the command ran in a copy of.
  returned: always
  type: str
result:
  description: V(succeeded), V(failed), V(deadline) or V(interrupted).
  returned: always
  type: str
code:
  description: Exit code of the command, or none where it was stopped.
  returned: always
  type: int
output:
  description: The last 10,000 lines that it wrote.
  returned: always
  type: list
  elements: str
"""

import contextlib
import select
import shlex
import signal
import typing as t
import uuid

from ansible_collections.slipway.stack.plugins.module_utils import container_copy
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.secret_module import SecretModule

OUTPUT_LINES = 10000
OWNER = "app-run"


def reader_is_gone(descriptor: int = 1) -> bool:
    """Return whether what is written to a descriptor has no reader any more, as after the end of the run, or of its connection."""
    poll = select.poll()
    # Both are always reported.
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _descriptor, event in poll.poll(0))


def run(engine: Engine, options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Run the command to its end; return what came of it.

    Raises:
        CopyError: no version serves, or it has no such container.
        EngineError: the engine refuses.
    """
    stack, service = options["stack"], options["service"]
    prefix = f"{stack}-run-{service}-"
    for left in container_copy.left_copies(engine, prefix, OWNER):
        with contextlib.suppress(BlockingIOError), container_copy.following(left):
            container_copy.end_copy(engine, left, 1)
    container, version = container_copy.serving_container(options["root"], stack, service)
    name = prefix + uuid.uuid4().hex[:8]
    labels = {"slipway.stack": stack, "slipway.owner": OWNER, "slipway.service": service, "slipway.version": version}
    output: list[str] = []
    result, code = "interrupted", None
    with container_copy.following(name) as folder:
        try:
            identity = container_copy.start_copy(engine, container, name, labels, folder, options["command"])
            result, code = container_copy.follow_copy(engine, identity, options["timeout"], reader_is_gone)
        finally:
            output = container_copy.end_copy(engine, name, OUTPUT_LINES)
    return {"container": container, "result": result, "code": code, "output": output}


def main() -> None:
    """Run the module."""
    module = SecretModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/etc/slipway"},
            "service": {"type": "str", "required": True},
            # It may hold a password, and modules write their options into the host's journal.
            "command": {"type": "raw", "required": True, "no_log": True},
            "timeout": {"type": "float", "default": 3600},
        }
    )
    command = module.params["command"]
    try:
        module.params["command"] = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    except ValueError as error:
        module.fail_json(msg=f"The command cannot be split into words: {error}. Nothing was run: close the quotes, or give a list")
    # A module that is ended removes its container first.
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_unused: module.fail_json(msg="The command was ended by a signal, and its container is removed"))
    try:
        done = run(Engine(), module.params)
    except (container_copy.CopyError, EngineError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, **done)


if __name__ == "__main__":
    main()
