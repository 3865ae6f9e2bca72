# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release knows of its hosts: what was read from them, and the services that they run in the version that is to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.slipway.stack.plugins.plugin_utils import app_services
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import STATE, TASK_VARIABLES, HostView, RoleFiles
from ansible_collections.slipway.stack.plugins.plugin_utils.release_decision import Host, Inputs

COMPARED = "container_service_plan"


class ReleaseHosts:
    """The hosts of a release, seen from one task on the controller."""

    def __init__(self, task_vars: Mapping[str, Any], loader: Any, version: str) -> None:
        """Take the variables of the task, and the version that services are described in."""
        self._hostvars, self._loader = task_vars["hostvars"], loader
        self._defaults = RoleFiles().defaults(["release"])
        self._extra = {name: task_vars[name] for name in TASK_VARIABLES if name in task_vars} | {"app_version": version}

    def product(self, host: str) -> Mapping[str, Any]:
        """Return the services of the product as a host's variables describe them."""
        found: Mapping[str, Any] = HostView(self._hostvars.raw_get(host), self._defaults, self._extra, self._loader).templated(
            "release_services"
        )
        return found

    def seen(self, names: Iterable[str], inputs: Inputs) -> dict[str, Host]:
        """Return what is known of hosts; those that were not read are left out."""
        found = {}
        for name in names:
            raw = self._hostvars.raw_get(name)
            state = raw.get(STATE)
            if not state or "files" not in state:
                continue
            product = self.product(name) if name in inputs.app_hosts else {}
            here = app_services.here(product, raw["group_names"]) if product else {}
            found[name] = Host(state, here, raw.get(COMPARED) or {}, app_services.images(product))
        return found
