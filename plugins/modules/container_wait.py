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
  - Looks several times a second, and ends as soon as all containers are healthy or one cannot become so any more.
  - Runs the health check of a starting container itself too, at once and then more seldom, as engines before 25 ask only at its interval.
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
extends_documentation_fragment:
  - slipway.stack.options.log_lines
  - slipway.stack.attributes.reads
author:
  - The Slipway authors (!UNKNOWN)
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

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.health import INTERVAL, NeverError, Watch


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
    failure: tuple[Watch, str] | None = None
    try:
        waiting = [Watch(engine, name, options["command"]) for name in options["containers"]]
        while waiting and failure is None:
            watch = waiting[0]
            try:
                if watch.ready():
                    waiting.pop(0)
                    continue
            except NeverError as error:
                failure = (watch, str(error))
                break
            timeout = float(options["timeouts"].get(watch.name, options["timeout"]))
            if time.monotonic() - started > timeout:
                wanted = "ready" if options["command"] else "healthy"
                failure = (watch, f"did not become {wanted} within {timeout:g} s{watch.restarting()}")
                break
            time.sleep(INTERVAL)
        seconds = round(time.monotonic() - started, 2)
        if failure:
            module.fail_json(msg=failure[0].explain(failure[1], options["log_lines"]), seconds=seconds)
    except EngineError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, seconds=seconds)


if __name__ == "__main__":
    main()
