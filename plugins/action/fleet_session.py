# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say where a command of a service runs, and how a session of it is opened. See the documentation of fleet_session."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils import release, sessions, terminal
from ansible_collections.slipway.stack.plugins.plugin_utils.become import BecomeError, become_of, in_terminal
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import states_of
from ansible_collections.slipway.stack.plugins.plugin_utils.tunnel import TunnelError


class ActionModule(ActionBase):  # type: ignore[misc]
    """Reads what was read before; asks no host."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the host, the container, the command, and how the run ends that opens a session."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={
                "folder": {"type": "str", "required": True},
                "service": {"type": "str", "required": True},
                "argv": {"type": "list", "elements": "str", "required": True},
                "interactive": {"type": "bool", "required": True},
                "writes": {"type": "bool", "default": True},
            }
        )
        states = states_of(task_vars)
        try:
            record = release.fleet_record({host: state for host, state in states.items() if "files" in state}, options["folder"]) or {}
            host, container = sessions.serving(states, options["service"], record.get("slot", ""))
            result.update(changed=False, host=host, argv=["docker", "exec", "--interactive", container, *options["argv"]])
            if options["interactive"]:
                argv = ["docker", "exec", "--interactive", "--tty", container, *options["argv"]]
                argv = in_terminal(become_of(host, task_vars["hostvars"], self._play_context), argv)
                session = terminal.on_host(host, argv, task_vars["hostvars"], self._play_context, *terminal.TERMINAL)
                result["ending"] = {"interact": session, "session_on": host if options["writes"] else ""}
        except (BecomeError, release.ReleaseError, sessions.SessionError, TunnelError) as error:
            result.update(failed=True, msg=str(error))
        return result
