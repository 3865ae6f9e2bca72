# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare declared services with the host's state, on the controller alone."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.slipway.stack.plugins.plugin_utils.digest import digest_key
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import ansible_home
from ansible_collections.slipway.stack.plugins.plugin_utils.plan import STACKS, DeclarationError, plan_services, stale_reasons

display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]
    """Return the plan; in check mode it counts as the change that the run would make."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the plan of all services of one owner, with a diff."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={
                "services": {"type": "list", "elements": "dict", "required": True},
                "state": {"type": "dict", "required": True},
                "stack": {"type": "str", "required": True},
                "root": {"type": "str", "default": STACKS},
                "owner": {"type": "str", "required": True},
                "networks": {"type": "dict", "required": True},
                "run_one_shots": {"type": "bool", "default": False},
                "adopt_volumes": {"type": "bool", "default": False},
                "accept_restart": {"type": "bool", "default": True},
                "accept_empty": {"type": "bool", "default": False},
            }
        )
        try:
            plan = plan_services(
                options["services"],
                options["state"],
                stack=options["stack"],
                root=options["root"],
                owner=options["owner"],
                key=digest_key(str(ansible_home())),
                networks=options["networks"],
                adopt=options["adopt_volumes"],
                run_one_shots=options["run_one_shots"],
                accept_restart=options["accept_restart"],
                accept_empty=options["accept_empty"],
            )
        except DeclarationError as error:
            raise AnsibleActionFail(f"{(task_vars or {}).get('inventory_hostname', '')}: {error}") from error
        differs = bool(plan["stale"] or plan["stale_folders"] or [item for item in plan["needed"] if not item["wait_only"]])
        sentences = [f"{item['name']}: {reason}" for item in plan["needed"] for reason in item["reasons"]]
        sentences += stale_reasons(plan)
        host = (task_vars or {}).get("inventory_hostname", "")
        for sentence in sentences:
            display.display(f"  {host}: {sentence}")
        result.update(plan, changed=differs and self._task.check_mode, reasons=sentences)
        if self._task.diff and self._task.check_mode:
            result["diff"] = [{"prepared": "".join(f"{sentence}\n" for sentence in sentences)}] if sentences else []
            result["diff"] += [part for item in plan["needed"] for part in item["diff"]]
        return result
