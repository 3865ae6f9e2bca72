# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the container of a service in which a command is run or a session opened. Pure functions."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible_collections.slipway.stack.plugins.module_utils.containers import JOB_LABEL, is_of_product, replica_of, slot_owner


class SessionError(ValueError):
    """No container of the service runs; nothing was touched."""


def serving(states: Mapping[str, dict[str, t.Any]], service: str, slot: str) -> tuple[str, str]:
    """Return the first host that runs a service, and its container there: of a product's service that of the slot that serves.

    Args:
        states: By host what host_state returned; without ``containers`` where it was not read.
        service: The service, with or without slot and number.
        slot: The slot that serves, or "".

    Raises:
        SessionError: There is none; the message names the services that there are.
    """
    known: dict[str, None] = {}
    stopped = []
    for host, state in states.items():
        for name, container in sorted(state.get("containers", {}).items()):
            labels, owner = container["labels"], container["owner"]
            if JOB_LABEL in labels or (is_of_product(owner) and owner != slot_owner(slot)):
                continue
            replica = replica_of(name, labels)
            known[replica] = None
            if service not in (replica, labels.get("slipway.service")):
                continue
            if container["running"]:
                return host, name
            stopped.append(f"{name} on {host} is {container['status']}")
    away = [f"{host} could not be read" for host, state in states.items() if "containers" not in state]
    if stopped:
        raise SessionError(f"Nothing was touched. {'; '.join(stopped)}: start it with site.yml")
    reason = f"service is '{service}', of which no container runs" if service else "no service was named: -e service=…"
    there = f"there are {', '.join(sorted(known)) or 'none'}"
    raise SessionError(f"Nothing was touched. {'; '.join([reason, there, *away])}")
