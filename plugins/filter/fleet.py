# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the hosts of a fleet, and of what runs on them."""

from __future__ import annotations

import typing as t
from urllib.parse import urlsplit

from ansible_collections.slipway.stack.plugins.plugin_utils import plan, release_decision
from ansible_collections.slipway.stack.plugins.plugin_utils.release import images_that_run
from ansible_collections.slipway.stack.plugins.plugin_utils.server_names import concrete_server_name


def site_name(names: t.Sequence[str], url: str = "") -> str:
    """Return the name by which clients ask for the site, or "" where none is known.

    Args:
        names: names as ``server_name`` of nginx takes them. Those that stand for many, such as ``*.example.com``, come last.
        url: the site's address, whose host counts where no name is exact.
    """
    try:
        host = urlsplit(str(url)).hostname or ""
        return concrete_server_name(names, "", known="" if ":" in host else host)
    except ValueError:
        # A name or an address that is not valid is reported as such.
        return ""


def moved_hosts(hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Any], slot: str, others: t.Collection[str]) -> list[str]:
    """Return what the function of that name in release_decision.py returns for hosts as they were read last."""
    return release_decision.moved_hosts({host: hostvars[host]["container_service_host_state"] for host in hosts}, slot, others)


def left_behind(hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Any]) -> list[str]:
    """Return what the function of that name in plan.py returns for hosts as they were compared last."""
    plans = {host: hostvars[host]["container_service_plan"] for host in hosts if "container_service_plan" in hostvars[host]}
    return plan.left_behind(
        {host: found.get("volumes_left", {}) for host, found in plans.items()},
        {host: found.get("volumes_of_data", {}) for host, found in plans.items()},
    )


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {
            "fleet_batches": release_decision.batches,
            "images_that_run": images_that_run,
            "left_behind": left_behind,
            "moved_hosts": moved_hosts,
            "site_name": site_name,
            "slot_containers": release_decision.slot_containers,
        }
