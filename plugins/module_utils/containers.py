# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What names and labels of containers say."""

from __future__ import annotations

import typing as t

#: Behind the name of a container: what is made to take its place, what it was while the new one is not up yet, and what is only tried.
NEXT = "-next"
BEFORE = "-before"
TRIAL = "-trial"
#: The label of a job's containers: of the one that is created in a slot, and of the copies that run.
JOB_LABEL = "slipway.job"
#: What the engine calls the state of a container that has a process, or is about to have one again.
RUNNING = ("running", "restarting", "paused")
#: Weights of containers while processors are busy: the engine's default, and that of one that gives way to what serves.
CPU_SHARES = 1024
YIELDING_CPU_SHARES = 128
#: The owner of containers that belong to no version of the product, which is the role that runs them.
EXTRA_SERVICES = "extra_services"
#: What the owners of the product's containers begin with: slots, migrations, and runs of jobs and commands.
PRODUCT_OWNERS = "app-"
#: Where the version that serves runs, and the one before or after it.
SLOTS = ("blue", "green")


def slot_owner(slot: str) -> str:
    """Return the owner of a slot's containers."""
    return f"{PRODUCT_OWNERS}{slot}"


def slot_owners(except_slot: str = "") -> list[str]:
    """Return the owners of the containers of all slots but one."""
    return [slot_owner(slot) for slot in SLOTS if slot != except_slot]


def is_of_product(owner: str) -> bool:
    """Return whether an owner's containers belong to the product."""
    return owner.startswith(PRODUCT_OWNERS)


def service_of(container: dict[str, t.Any]) -> str:
    """Return the product's service that a container belongs to: its label without slot and number."""
    return str(container["labels"].get("slipway.service", "")).rsplit("-", 2)[0]


def replica_of(name: str, labels: dict[str, str]) -> str:
    """Return the service that a container is a replica of, as people name it: the product's without slot and number."""
    if is_of_product(labels.get("slipway.owner", "")):
        return service_of({"labels": labels})
    return labels.get("slipway.service", name)
