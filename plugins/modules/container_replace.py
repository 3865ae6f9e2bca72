#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a container that was made into the place of one that runs, and put the former one back when it does not come up."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_replace
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Let a container take the place of one that runs, or put that one back
description:
  - Stops the running container and gives its name to the one that C(community.docker.docker_container) has made as C(NAME-next), starts
    that, and waits until it is up. Then the former one is removed.
  - When the new one cannot be started, ends, restarts again and again, is unhealthy or is not up in time, it is removed, and the
    former one runs again under its name, with the files that M(slipway.stack.config_tree) has kept. The module then fails, with the
    log lines of the one that failed.
  - A call that was killed is finished by the next; the former container is called C(NAME-before) meanwhile. Where there is none called
    C(NAME-next), the one that has its name already is started and waited for.
options:
  containers:
    description: The containers, one after the other.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the container.
        type: str
        required: true
      folder:
        description: Folder of the service on the host.
        type: path
        required: true
      ready:
        description: Command that succeeds in the container once it is up; empty waits for its health.
        type: list
        elements: str
        default: []
      timeout:
        description: Seconds until it must be up.
        type: float
        default: 120
      returns:
        description: >-
          Whether the former one may run on the data once the new one has been started. Where it may not, as another major version may have
          migrated the data, the new one stays, unless the data itself shows that it was left as it was: both have no volume in common that
          they write to, or each of these holds a PostgreSQL cluster of the same major version as before.
        type: bool
        default: true
extends_documentation_fragment:
  - slipway.stack.options.log_lines
  - slipway.stack.attributes.not_in_check_mode
"""

EXAMPLES = r"""
- name: Replace nginx
  slipway.stack.container_replace:
    containers:
      - {name: slipway-nginx, folder: /etc/slipway/slipway/nginx}
"""

RETURN = r"""
replaced:
  description: Names of the containers that were replaced.
  returned: success
  type: list
  elements: str
seconds:
  description: Seconds that each was away, from the stop of the former one to the start of the new one.
  returned: success
  type: dict
"""

import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError, forget_files, restore_files
from ansible_collections.slipway.stack.plugins.module_utils.containers import BEFORE, NEXT
from ansible_collections.slipway.stack.plugins.module_utils.control_groups import read_text
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.health import INTERVAL, NeverError, Watch


class NotUpError(RefusedError):
    """The new container did not come up, after the former one was stopped for it."""


def rename(engine: Engine, identity: str, name: str) -> None:
    """Give a container another name."""
    engine.request("POST", f"/containers/{identity}/rename", {"name": name})


def is_healthy(inspected: dict[str, t.Any]) -> bool:
    """Return whether a container is healthy, or runs without a health check."""
    state = inspected["State"]
    return bool(state["Status"] == "running" and (state.get("Health") or {}).get("Status", "healthy") == "healthy")


def is_up(watch: Watch) -> bool:
    """Return whether a container is up, as far as the engine says: one that is busy or restarts says nothing of it.

    Raises:
        NeverError: it cannot come up.
    """
    try:
        return watch.ready()
    except EngineError:
        return False


def explained(watch: Watch, why: str, log_lines: int, restarting: bool = False) -> str:
    """Return what a person needs to fix a container that is not up, as far as the engine says it."""
    try:
        return watch.explain(why + (watch.restarting() if restarting else ""), log_lines)
    except EngineError as error:
        return f"{watch.name} {why}. Its state cannot be read: {error}"


def wait_until_up(engine: Engine, item: dict[str, t.Any], log_lines: int) -> str:
    """Wait for a container that was started; return why it is not up, or an empty string."""
    # Counted from its start: a watch that begins later has not seen the first restarts.
    watch, deadline = Watch(engine, item["name"], item["ready"], restarts=0), time.monotonic() + item["timeout"]
    try:
        while not is_up(watch):
            if time.monotonic() > deadline:
                return explained(watch, f"did not come up within {item['timeout']:g} s", log_lines, restarting=True)
            time.sleep(INTERVAL)
    except NeverError as error:
        return explained(watch, str(error), log_lines)
    return ""


def clusters(one: dict[str, t.Any], other: dict[str, t.Any]) -> dict[str, str]:
    """Return by its folder the major version of PostgreSQL of each volume that two containers write to, "" for other data."""
    places = [{mount.get("Source") or "" for mount in item.get("Mounts") or [] if mount.get("RW")} for item in (one, other)]
    return {place: read_text(os.path.join(place, "PG_VERSION")).strip() if place else "" for place in places[0] & places[1]}


def replace(engine: Engine, item: dict[str, t.Any], log_lines: int) -> float:
    """Replace one container; return the seconds between the stop of the former one and the start of the new one.

    Raises:
        RefusedError: there is nothing to replace, or nothing to take its place.
        NotUpError: the new one does not come up; the message says what runs now.
    """
    name, following, former = item["name"], item["name"] + NEXT, item["name"] + BEFORE
    new, current, before = engine.inspect(following), engine.inspect(name), engine.inspect(former)
    began = time.monotonic()
    if new is None and current is not None and before is not None:
        # Of a call that ended while the new one came up.
        new = current
    elif new is None:
        raise RefusedError(f"there is no container {following} to take the place of {name}")
    elif current is not None and before is not None and not is_healthy(current):
        # Of a call that ended before the new one was up: what ran before that is what may have to return.
        engine.stop(current)
        engine.remove(name)
    elif current is not None:
        if before is not None:
            # Of a call that was killed when the new one was up.
            engine.remove(former)
        engine.stop(current)
        rename(engine, current["Id"], former)
        before = current
    elif before is None:
        raise RefusedError(f"there is no container {name} to be replaced")
    # Where a successor has run already, nothing shows what the data was before it.
    kept = clusters(before, new) if before is current else {"": ""}
    try:
        if new is not current:
            rename(engine, new["Id"], name)
        engine.request("POST", f"/containers/{new['Id']}/start")
    except EngineError as error:
        put_back(engine, item, before)
        raise NotUpError(f"The new {name} cannot be started: {error}\n{runs_again(name)}") from error
    away = round(time.monotonic() - began, 2)
    failure = wait_until_up(engine, item, log_lines)
    if failure and not item["returns"] and not (all(kept.values()) and kept == clusters(before, new)):
        raise NotUpError(
            f"{failure}\nThe former one, {former}, is not started again, because another version of the image may have changed its data. "
            "Fix the cause and run this again, or restore a recovery point."
        )
    if failure:
        put_back(engine, item, before)
        raise NotUpError(f"The new {failure}\n{runs_again(name)}")
    engine.remove(former)
    forget_files(item["folder"])
    return away


def runs_again(name: str) -> str:
    """Return the sentence that says what runs after a failure."""
    return f"The former {name} is back in its place and runs, with the files that it had."


def put_back(engine: Engine, item: dict[str, t.Any], before: dict[str, t.Any]) -> None:
    """Remove a container that did not come up, and let the former one run again."""
    engine.remove(item["name"])
    rename(engine, before["Id"], item["name"])
    restore_files(item["folder"])
    engine.request("POST", f"/containers/{before['Id']}/start")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "containers": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "folder": {"type": "path", "required": True},
                    "ready": {"type": "list", "elements": "str", "default": []},
                    "timeout": {"type": "float", "default": 120},
                    "returns": {"type": "bool", "default": True},
                },
            },
            "log_lines": {"type": "int", "default": 20},
        }
    )
    engine, seconds = Engine(), {}
    try:
        for item in module.params["containers"]:
            seconds[item["name"]] = replace(engine, item, module.params["log_lines"])
    except (RefusedError, EngineError, OSError) as error:
        changed = bool(seconds) or isinstance(error, NotUpError)
        module.fail_json(msg=str(error), changed=changed, replaced=list(seconds), seconds=seconds)
    module.exit_json(changed=bool(seconds), replaced=list(seconds), seconds=seconds)


if __name__ == "__main__":
    main()
