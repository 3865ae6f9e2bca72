#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what the containers of a stack on a host have logged, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_logs
short_description: Read what the containers of a stack have logged
version_added: 0.1.0
description:
  - Returns the last lines that the containers of a stack wrote, those that do not run too, in the order of time.
options:
  stack:
    description: Name of the stack.
    type: str
    required: true
  service:
    description: A service, with or without slot and number, or all of them if empty.
    type: str
    default: ""
  since:
    description: A time span such as V(10m), V(2h) or V(3d), or a date and time in RFC 3339; of the host's clock.
    type: str
    default: 10m
  grep:
    description: A regular expression; lines without a match are left out.
    type: str
    default: ""
  lines:
    description: At most this many lines, the newest. V(0) reads none.
    type: int
    default: 1000
extends_documentation_fragment:
  - slipway.stack.attributes.reads
author:
  - The Slipway authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Read what the backends have logged
  slipway.stack.container_logs:
    stack: slipway
    service: backend
    since: 10m
    grep: timeout|refused
  register: logs
"""

RETURN = r"""
containers:
  description: The containers that were read, with their services, slot and number included.
  returned: always
  type: dict
services:
  description: All services of the stack that have a container here, without slot and number.
  returned: always
  type: list
  elements: str
since:
  description: The beginning, in seconds since 1970.
  returned: always
  type: float
entries:
  description: The lines, each a list of time, service and text.
  returned: always
  type: list
  elements: list
"""

import re
import time
import typing as t
from datetime import timezone

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.containers import replica_of
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError, lines_of
from ansible_collections.slipway.stack.plugins.module_utils.moments import parse_moment

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# A longer line is cut, also before it is searched.
LINE_LIMIT = 4000


def beginning(text: str, now: float) -> float:
    """Return a time span before now, or a date and time, in seconds since 1970; without a zone it is UTC.

    Raises:
        ValueError: it is neither.
    """
    span = re.fullmatch(r"(\d+)([smhd])", text)
    if span:
        return now - int(span[1]) * UNITS[span[2]]
    moment = parse_moment(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def entries_of(log: str, service: str, pattern: re.Pattern[str]) -> list[list[str]]:
    """Return the lines of a log with timestamps in which a pattern is found."""
    found = []
    for line in lines_of(log):
        stamp, _blank, text = line.partition(" ")
        if pattern.search(text[:LINE_LIMIT]):
            found.append([stamp, service, text[:LINE_LIMIT]])
    return found


def read(engine: Engine, options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the module's result.

    Raises:
        EngineError: no engine answers.
        ValueError: O(since) or O(grep) cannot be read.
    """
    pattern, since = re.compile(options["grep"]), beginning(options["since"], time.time())
    containers, services = {}, set()
    for container in engine.containers():
        labels = container.get("Labels") or {}
        if labels.get("slipway.stack") == options["stack"] and container["Names"]:
            name, full = container["Names"][0].lstrip("/"), labels.get("slipway.service", "")
            service = replica_of(name, labels)
            services.add(service)
            if options["service"] in ("", service, full):
                containers[name] = full
    entries = []
    for name, full in containers.items() if options["lines"] else ():
        # What a search leaves out is not among the last lines.
        lines = "all" if options["grep"] else options["lines"]
        entries += entries_of(engine.logs(name, lines, since=f"{since:.3f}", timestamps=1), full, pattern)
    return {"containers": containers, "services": sorted(services), "since": since, "entries": sorted(entries)[-options["lines"] :]}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "service": {"type": "str", "default": ""},
            "since": {"type": "str", "default": "10m"},
            "grep": {"type": "str", "default": ""},
            "lines": {"type": "int", "default": 1000},
        },
        supports_check_mode=True,
    )
    try:
        found = read(Engine(), module.params)
    except (EngineError, ValueError, re.error) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
