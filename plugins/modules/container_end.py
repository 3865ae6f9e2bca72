#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until a container has run to its end, remove it, and fail unless it ended well."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_end
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Wait until a container has run to its end, and remove it
description:
  - For containers that do one thing, such as a migration. Fails with the last log lines when it ends with another status than 0, or
    has not ended in time; then it is killed. It is removed in every case, its volumes are not.
options:
  container:
    description: Name of the container.
    type: str
    required: true
  folder:
    description: Folder of its configuration and secrets, which goes with it.
    type: path
    required: true
  timeout:
    description: Seconds that it may take.
    type: float
    required: true
extends_documentation_fragment:
  - slipway.stack.options.log_lines
  - slipway.stack.attributes.not_in_check_mode
"""

EXAMPLES = r"""
- name: Wait for the migration
  slipway.stack.container_end:
    container: slipway-migrate-green
    folder: /etc/slipway/slipway/migrate-green
    timeout: 600
"""

RETURN = r"""
seconds:
  description: Seconds waited.
  returned: always
  type: float
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.health import INTERVAL, Watch
from ansible_collections.slipway.stack.plugins.module_utils.removal import RemovalError, remove_entry


def failure_of(engine: Engine, name: str, timeout: float) -> str:
    """Wait for a container's end; return why it did not end well, or an empty string."""
    deadline = time.monotonic() + timeout
    while True:
        inspected = engine.inspect(name)
        if inspected is None:
            return "was removed while it ran"
        state = inspected["State"]
        if state["Status"] in ("exited", "dead"):
            killed = ", killed at its memory limit" if state.get("OOMKilled") else ""
            return f"ended with status {state.get('ExitCode')}{killed}" if state.get("ExitCode") or killed else ""
        if time.monotonic() > deadline:
            return f"has not ended within {timeout:g} s, and was killed"
        time.sleep(INTERVAL)


def end(engine: Engine, name: str, timeout: float, log_lines: int) -> str:
    """Wait for a container's end and remove it; return why it did not end well and how to fix it, or an empty string."""
    failure = failure_of(engine, name, timeout)
    explained = Watch(engine, name).explain(failure, log_lines) if failure else ""
    engine.remove(name)
    return explained


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "folder": {"type": "path", "required": True},
            "timeout": {"type": "float", "required": True},
            "log_lines": {"type": "int", "default": 20},
        }
    )
    began = time.monotonic()
    try:
        failure = end(Engine(), module.params["container"], module.params["timeout"], module.params["log_lines"])
        remove_entry(*os.path.split(module.params["folder"]))
    except (EngineError, RemovalError, OSError) as error:
        module.fail_json(msg=str(error))
    seconds = round(time.monotonic() - began, 2)
    if failure:
        module.fail_json(msg=failure, seconds=seconds)
    module.exit_json(changed=True, seconds=seconds)


if __name__ == "__main__":
    main()
