# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what a run of restore.yml does. See the documentation of restore_plan."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils import restore


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; no host is asked or changed."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the decision, or what follows from it for a host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={
                "point": {"type": "str", "default": ""},
                "target_time": {"type": "str", "default": ""},
                "stores": {"type": "raw", "default": ""},
                "into": {"type": "str", "default": "place"},
                "list": {"type": "bool", "default": False},
                "remove": {"type": "bool", "default": False},
                "undo": {"type": "bool", "default": False},
                "discard_old": {"type": "bool", "default": False},
                "known_stores": {"type": "list", "elements": "str", "default": []},
                "plan": {"type": "dict"},
                "data": {"type": "list", "elements": "dict"},
                "left": {"type": "dict", "default": {}},
                "left_everywhere": {"type": "list", "elements": "dict"},
                "serving": {"type": "bool", "default": True},
                "kept": {"type": "list", "elements": "dict", "default": []},
                "returns": {"type": "dict", "default": {}},
                "staged": {"type": "list", "elements": "str", "default": []},
            },
        )
        variables = task_vars or {}
        result["changed"] = False
        try:
            if options["plan"] is None:
                asked = restore.Asked(**{name: options[name] for name in restore.Asked._fields})
                decision = restore.decide(asked, options["known_stores"], limited=bool(variables.get("ansible_limit")))
                result.update(decision._asdict(), in_place=decision.in_place)
                return result
            decision = restore.Decision(**{name: options["plan"][name] for name in restore.Decision._fields})
            kept = [{**found["item"], "restores": found["restores"]} for found in options["kept"]]
            if options["left_everywhere"] is not None:
                new = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
                result.update(restore.choose_restore(decision, new, options["left_everywhere"], kept)._asdict())
                return result
            plan = restore.host_plan(
                decision,
                variables["inventory_hostname"],
                options["data"] or [],
                left=options["left"],
                serving=options["serving"],
                staged=options["staged"],
                returns=options["returns"],
                kept={item["key"]: item["restores"] for item in kept},
            )
            result.update(plan._asdict(), left={} if plan.completed else options["left"])
        except restore.RestoreError as error:
            result.update(failed=True, msg=str(error))
        return result
