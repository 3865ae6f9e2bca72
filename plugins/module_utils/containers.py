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


def service_of(container: dict[str, t.Any]) -> str:
    """Return the product's service that a container belongs to: its label without slot and number."""
    return str(container["labels"].get("slipway.service", "")).rsplit("-", 2)[0]


def replica_of(name: str, labels: dict[str, str]) -> str:
    """Return the service that a container is a replica of, as people name it: the product's without slot and number."""
    if labels.get("slipway.owner", "").startswith("app-"):
        return service_of({"labels": labels})
    return labels.get("slipway.service", name)
