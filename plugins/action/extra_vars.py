# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuse a variable given with -e that is a misspelt one of a playbook's. See the documentation of extra_vars."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from ansible_collections.slipway.stack.plugins.module_utils.preflight import check_names, nearest
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import RoleFiles


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; no host is asked or changed."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compare what was given with what the playbook knows."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(argument_spec={"known": {"type": "list", "elements": "str", "required": True}})
        known = RoleFiles(self._loader).known_names()
        unknown = set(load_extra_vars(self._loader)) - set(options["known"]) - set().union(*known.values())
        likely = {name: meant for name in unknown if (meant := nearest(name, options["known"]))}
        wrong = [f"{name} is no variable of this playbook{meant}" for name, meant in sorted(likely.items())]
        # Others that begin as ours do are refused by all other playbooks, too.
        wrong += [problem.text for problem in check_names("", unknown - set(likely), known, lambda _name: "-e")]
        if wrong:
            return {**result, "failed": True, "msg": f"Nothing was touched. {'; '.join(wrong)}"}
        return {**result, "changed": False}
