#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until containers do what they are for, and say why when they do not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_wait
short_description: Wait until containers are healthy, or a command in them succeeds
version_added: 0.1.0
description:
  - Looks several times a second, runs the health check of containers that are starting itself, and ends as soon as all containers
    are healthy or one cannot become so any more.
  - A failure names the container, its state, the output of its last health check, and its last log lines.
options:
  containers:
    description: Names of the containers.
    type: list
    elements: str
    required: true
  command:
    description: Command that must succeed in each container; empty waits for the container's health check.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait at most.
    type: float
    default: 120
  timeouts:
    description: Seconds to wait at most, by container, for those that have another limit.
    type: dict
    default: {}
  log_lines:
    description: Number of log lines that a failure shows.
    type: int
    default: 20
attributes:
  check_mode:
    description: Reads only, so check mode makes no difference.
    support: full
author:
  - The Slipway authors
"""

EXAMPLES = r"""
- name: Wait until Redis is healthy
  slipway.stack.container_wait:
    containers: [slipway-redis]
    timeout: 60
"""

RETURN = r"""
seconds:
  description: Seconds waited.
  returned: always
  type: float
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError

INTERVAL = 0.2
#: Restarts under the restart policy, within one wait, that show a service which cannot start.
RESTARTS_MEANING_FAILURE = 3


class NeverError(Exception):
    """A container cannot become what is waited for."""


def is_ready(engine: Engine, name: str, command: list[str], restarts_before: int) -> bool:
    """Return whether a container is healthy, or the command succeeds in it.

    Raises:
        NeverError: it is gone, has ended, restarts again and again, or is unhealthy.
    """
    inspected = engine.inspect(name)
    if inspected is None:
        raise NeverError("does not exist")
    state = inspected["State"]
    if inspected.get("RestartCount", 0) - restarts_before >= RESTARTS_MEANING_FAILURE:
        raise NeverError(f"restarts again and again, last with exit status {state.get('ExitCode')}")
    if state["Status"] in ("exited", "dead", "created"):
        ended = f" with exit status {state.get('ExitCode')}" if state["Status"] == "exited" else ""
        killed = ", killed at its memory limit" if state.get("OOMKilled") else ""
        raise NeverError(f"is {state['Status']}{ended}{killed}")
    if state["Status"] != "running":
        return False
    if command:
        return engine.execute(name, command)[0] == 0
    health = (state.get("Health") or {}).get("Status", "none")
    if health == "unhealthy":
        raise NeverError("is unhealthy")
    return health in ("healthy", "none") or passes_now(engine, name, inspected["Config"].get("Healthcheck") or {})


def passes_now(engine: Engine, name: str, check: dict[str, t.Any]) -> bool:
    """Return whether a starting container passes its own health check, which the engine asks for only at its interval."""
    kind, *test = check.get("Test") or ["NONE"]
    argv = test if kind == "CMD" else ["/bin/sh", "-c", *test]
    if kind == "NONE":
        return False
    try:
        return engine.execute(name, argv, timeout=check.get("Timeout", 0) / 1e9 or 30)[0] == 0
    except EngineError:
        # It ended meanwhile, or the check takes too long; the next look tells.
        return False


def restarting(engine: Engine, name: str) -> str:
    """Return the end of a sentence for a container that ends again and again, more seldom each time, or nothing."""
    inspected = engine.inspect(name) or {}
    state = inspected.get("State", {})
    if state.get("Status") != "restarting" and inspected.get("RestartCount", 0) < RESTARTS_MEANING_FAILURE:
        return ""
    return f": it restarted {inspected['RestartCount']} times, last after exit status {state.get('ExitCode')}"


def explain(engine: Engine, name: str, why: str, lines: int) -> str:
    """Return what a person needs to mend a container that did not come up."""
    parts = [f"{name} {why}."]
    inspected = engine.inspect(name)
    if inspected is not None:
        checks = (inspected["State"].get("Health") or {}).get("Log") or []
        if checks:
            parts.append(f"Last health check (status {checks[-1]['ExitCode']}): {checks[-1]['Output'].strip()[-500:]}")
        parts.append(f"Last log lines:\n{engine.logs(name, lines).rstrip()}")
    parts.append(f"Look further with: docker logs {name}; docker inspect {name}")
    return "\n".join(parts)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "containers": {"type": "list", "elements": "str", "required": True},
            "command": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 120},
            "timeouts": {"type": "dict", "default": {}},
            "log_lines": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    options, engine = module.params, Engine()
    started = time.monotonic()
    waiting: list[str] = list(options["containers"])
    failure: tuple[str, str] | None = None
    restarts: dict[str, t.Any] = {}
    try:
        for name in waiting:
            restarts[name] = (engine.inspect(name) or {}).get("RestartCount", 0)
        while waiting and failure is None:
            name = waiting[0]
            try:
                if is_ready(engine, name, options["command"], restarts[name]):
                    waiting.pop(0)
                    continue
            except NeverError as error:
                failure = (name, str(error))
                break
            timeout = float(options["timeouts"].get(name, options["timeout"]))
            if time.monotonic() - started > timeout:
                wanted = "ready" if options["command"] else "healthy"
                failure = (name, f"did not become {wanted} within {timeout:g} s{restarting(engine, name)}")
                break
            time.sleep(INTERVAL)
        seconds = round(time.monotonic() - started, 2)
        if failure:
            module.fail_json(msg=explain(engine, *failure, options["log_lines"]), seconds=seconds)
    except EngineError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, seconds=seconds)


if __name__ == "__main__":
    main()
