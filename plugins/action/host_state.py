# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of ``host_state``: adds the digest key and its clock, and asks for texts only where a diff is wanted."""

from __future__ import annotations

import time
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.module_utils.mesh import PROGRAM, PUBLIC_KEY, SECRET_ID, folder_of
from ansible_collections.slipway.stack.plugins.module_utils.removal import stack_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.digest import digest_key
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import ansible_home


class ActionModule(ActionBase):  # type: ignore[misc]
    """Run the module with what only the controller knows."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the module's result.

        Raises:
            AnsibleActionFail: the stack cannot be named so.
        """
        super().run(tmp, task_vars)
        # Here, as all playbooks read their hosts first: paths and names are built of it from now on.
        if problem := stack_problem(self._task.args.get("stack")):
            raise AnsibleActionFail(f"Nothing was touched. {problem}")
        options = {
            "contents": bool(self._task.diff),
            **self._task.args,
            "files": [
                "/etc/logrotate.d/*",
                "/etc/systemd/system/slipway-*",
                "/etc/systemd/system/timers.target.wants/slipway-*",
                "/etc/systemd/system/multi-user.target.wants/slipway-*",
                # What is loaded at the next boot.
                "/etc/slipway/*/firewall.rules",
                "/etc/slipway/*/firewall.sh",
                # Of other stacks, whose images stay.
                "/etc/slipway/*/release/state.json",
                f"{folder_of('*')}/{PROGRAM}",
                f"{folder_of('*')}/{PUBLIC_KEY}",
                f"{folder_of('*')}/{SECRET_ID}",
                *(self._task.args.get("files") or []),
            ],
            "digest_key": digest_key(str(ansible_home())),
        }
        asked = time.time()
        found: dict[str, t.Any] = self._execute_module(module_name="slipway.stack.host_state", module_args=options, task_vars=task_vars)
        return {**found, "asked_s": asked, "answered_s": time.time()}
