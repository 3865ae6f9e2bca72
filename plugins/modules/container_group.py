#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start, stop or remove all containers of an owner at once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_group
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Start, stop or remove all containers of an owner at once
description:
  - A slot of a release starts, retires or goes as a whole. One call does it, all containers at the same time, where a call for each
    would make the slot's last container wait for all others.
  - A stop gives each container the time of its own stop timeout. Volumes are never removed.
options:
  stack:
    description: Name of the stack.
    type: str
    required: true
  owner:
    description: Values of the label C(slipway.owner) of the containers.
    type: list
    elements: str
    required: true
  services:
    description: Services of the product whose containers are meant; by default all, and with an empty list none.
    type: list
    elements: str
  except_services:
    description: Services of the product whose containers are not meant.
    type: list
    elements: str
    default: []
  names:
    description: Names of the containers that are meant; by default all of the owner's, and with an empty list none.
    type: list
    elements: str
  writes_to:
    description: Volumes of which a container must be able to write to one; by default, it need not.
    type: list
    elements: str
  journal:
    description:
      - File on the host with the names of the containers that V(stopped) stops. It is written before the first stops. A run that finds
        one of the same O(journal_of) leaves it as it is, because an interrupted run has stopped some of them.
      - V(started) starts the containers that it names, and removes it. Without one of the same O(journal_of), it starts none.
    type: path
    default: ""
  journal_of:
    description: What O(journal) belongs to, such as the number of a release. One that belongs to something else is out of date.
    type: str
    default: ""
  version:
    description: Value of the label C(slipway.version) of the containers; empty takes all.
    type: str
    default: ""
  cpu_shares:
    description:
      - Weight of the containers while processors are busy, set before one starts, and on those that run. V(0) leaves it as it is.
        The engine's default is V(1024).
    type: int
    default: 0
  state:
    description: What becomes of them. V(absent) stops running ones first.
    type: str
    choices: [started, stopped, absent]
    required: true
attributes:
  check_mode:
    description: Says which containers it would change.
    support: full
"""

EXAMPLES = r"""
- name: Retire slot blue
  slipway.stack.container_group:
    stack: slipway
    owner: app-blue
    state: stopped
"""

RETURN = r"""
containers:
  description: Names of the containers that changed, or would change.
  returned: success
  type: list
  elements: str
"""

import contextlib
import json
import os
import threading
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.config_files import make_folder, write_file
from ansible_collections.slipway.stack.plugins.module_utils.containers import CPU_SHARES, JOB_LABEL, RUNNING, service_of
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError


def is_running(inspected: dict[str, t.Any]) -> bool:
    """Return whether a container runs, as its engine describes it."""
    return inspected["State"]["Status"] in RUNNING


def cpu_shares(inspected: dict[str, t.Any]) -> int:
    """Return the weight of a container, as its engine describes it, which says 0 for its default."""
    return int(inspected["HostConfig"].get("CpuShares") or CPU_SHARES)


def act(engine: Engine, inspected: dict[str, t.Any], state: str, shares: int = 0) -> None:
    """Bring one container into a state, with a weight unless that is 0."""
    identity = inspected["Id"]
    if shares and shares != cpu_shares(inspected):
        engine.request("POST", f"/containers/{identity}/update", body={"CpuShares": shares})
    if state == "started":
        if is_running(inspected):
            return
        engine.request("POST", f"/containers/{identity}/start")
        return
    engine.stop(inspected)
    if state == "absent":
        engine.remove(identity)


def journaled(options: dict[str, t.Any]) -> list[str] | None:
    """Return the names in the journal; None where there is none, or one of something else."""
    try:
        with open(options["journal"], encoding="utf-8") as file:
            journal = json.load(file)
    except (OSError, ValueError):
        return None
    return t.cast("list[str]", journal["containers"]) if journal["of"] == options["journal_of"] else None


def write_journal(options: dict[str, t.Any], names: list[str]) -> None:
    """Note what is about to be stopped, unless an interrupted run has."""
    if journaled(options) is None:
        make_folder(os.path.dirname(options["journal"]), 0o700)
        write_file(options["journal"], json.dumps({"of": options["journal_of"], "containers": names}), 0o600)


def containers_to_change(engine: Engine, options: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    """Return the descriptions of the group's containers that are not in the state asked for."""
    found: list[dict[str, t.Any]] = []
    for short in engine.containers():
        labels = short.get("Labels") or {}
        if labels.get("slipway.stack") != options["stack"] or labels.get("slipway.owner") not in options["owner"]:
            continue
        if options["version"] and labels.get("slipway.version") != options["version"]:
            continue
        # A job's container is there to be copied.
        if options["state"] == "started" and labels.get(JOB_LABEL):
            continue
        service = service_of({"labels": labels})
        if service in options["except_services"] or (options["services"] is not None and service not in options["services"]):
            continue
        if options["names"] is not None and short["Names"][0].lstrip("/") not in options["names"]:
            continue
        differs = options["state"] == "absent" or (short["State"] in RUNNING) != (options["state"] == "started")
        written = {mount.get("Name") for mount in short.get("Mounts") or [] if mount.get("RW")}
        if options["writes_to"] is not None and not written.intersection(options["writes_to"]):
            continue
        if (differs or options["cpu_shares"]) and (inspected := engine.inspect(short["Id"])):
            found += [inspected] if differs or cpu_shares(inspected) != options["cpu_shares"] else []
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "owner": {"type": "list", "elements": "str", "required": True},
            "services": {"type": "list", "elements": "str"},
            "except_services": {"type": "list", "elements": "str", "default": []},
            "names": {"type": "list", "elements": "str"},
            "writes_to": {"type": "list", "elements": "str"},
            "journal": {"type": "path", "default": ""},
            "journal_of": {"type": "str", "default": ""},
            "version": {"type": "str", "default": ""},
            "cpu_shares": {"type": "int", "default": 0},
            "state": {"type": "str", "required": True, "choices": ["started", "stopped", "absent"]},
        },
        supports_check_mode=True,
    )
    options, engine = module.params, Engine()
    returning = bool(options["journal"]) and options["state"] == "started"
    if returning:
        options["names"] = journaled(options) or []
    try:
        changing = containers_to_change(engine, options)
    except EngineError as error:
        module.fail_json(msg=str(error))
    names = sorted(item["Name"].lstrip("/") for item in changing)
    if module.check_mode:
        module.exit_json(changed=bool(changing), containers=names)
    if options["journal"] and options["state"] == "stopped":
        write_journal(options, names)
    errors: list[str] = []

    def run(item: dict[str, t.Any]) -> None:
        try:
            act(engine, item, options["state"], options["cpu_shares"])
        except EngineError as error:
            if error.status not in (304, 404):
                errors.append(f"{item['Name'].lstrip('/')}: {error}")

    threads = [threading.Thread(target=run, args=(item,)) for item in changing]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        module.fail_json(msg="; ".join(sorted(errors)), containers=names)
    if returning:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(options["journal"])
    module.exit_json(changed=bool(changing), containers=names)


if __name__ == "__main__":
    main()
