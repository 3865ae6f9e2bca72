# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide how a release goes, from its plan and what hosts are like now. See the documentation of release_decision."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils.release_decision import Inputs, decide
from ansible_collections.slipway.stack.plugins.plugin_utils.release_hosts import ReleaseHosts


class ActionModule(ActionBase):  # type: ignore[misc]
    """Looks at what was read before; asks no host."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the decision."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(argument_spec={"plan": {"type": "dict", "required": True}})
        plan = options["plan"]
        inputs = Inputs(**plan["inputs"])
        # Those of this run, in the inventory's order.
        names = [*inputs.app_hosts, *(name for name in task_vars["ansible_play_hosts_all"] if name not in inputs.app_hosts)]
        hosts = ReleaseHosts(task_vars, self._loader, plan["version"]).seen(names, inputs)
        result.update(decide(hosts, plan, inputs), changed=False)
        return result
