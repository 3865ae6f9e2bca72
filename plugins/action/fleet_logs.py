# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Merge what was read of all hosts' logs, in one task. See the documentation of fleet_logs."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils.become import BecomeError, become_of, unattended
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import hidden_of
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import without
from ansible_collections.slipway.stack.plugins.plugin_utils.terminal import TERMINAL, log_line, on_host
from ansible_collections.slipway.stack.plugins.plugin_utils.tunnel import TunnelError

LONGEST_REASON = 300


def following(read: Mapping[str, Any]) -> list[str]:
    """Return the command that shows on a host what its containers log from now on, each line with its service."""
    since, shown = f"{read['since']:.3f}", []
    for name, service in read["containers"].items():
        logs = shlex.join(["docker", "logs", "--follow", "--timestamps", "--since", since, name])
        shown.append(f"{logs} 2>&1 | {shlex.join(['sed', '-u', f's/ / {service} /'])}")
    return ["sh", "-c", " & ".join([*shown, "wait"])]


def reason(read: Mapping[str, Any], hidden: Sequence[str]) -> str:
    """Return why a host could not be read, in a line without what is hidden."""
    # A secret that is cut would be found no more.
    return textwrap.shorten(without(str(read.get("msg") or "it gave no reason"), hidden), LONGEST_REASON, placeholder=" …")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Reads what was read before; asks no host."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return how the run ends: the lines of all hosts, or the commands that follow them."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={
                "read": {"type": "str", "required": True},
                "service": {"type": "str", "default": ""},
                "lines": {"type": "int", "required": True},
                "follow": {"type": "bool", "default": False},
            }
        )
        hostvars = task_vars["hostvars"]
        raw = {host: hostvars.raw_get(host) for host in task_vars["ansible_play_hosts_all"]}
        read = {host: variables[options["read"]] for host, variables in raw.items() if "entries" in variables.get(options["read"], {})}
        hidden = {host: hidden_of([variables], hostvars, self._loader) for host, variables in raw.items()}
        away = {host: reason(raw[host].get(options["read"], {}), hidden[host]) for host in raw if host not in read}
        if not read:
            why = "; ".join(f"{host}: {text}" for host, text in away.items())
            return {**result, "failed": True, "msg": f"the logs of no host could be read; {why}"}
        known = sorted({service for found in read.values() for service in found["services"]})
        if not any(found["containers"] for found in read.values()):
            of = f"{', '.join(away)} could not be read" if away else "all hosts were read"
            why = f"service is '{options['service']}', of which no host has a container; there are {', '.join(known) or 'none'} ({of})"
            return {**result, "failed": True, "msg": why}
        lines = [
            {"text": f"{host} could not be read, and its logs are missing here: {text}", "color": "red"} for host, text in away.items()
        ]
        if options["follow"]:
            try:
                commands = {
                    host: on_host(
                        host,
                        unattended(become_of(host, hostvars, self._play_context), following(found)),
                        hostvars,
                        self._play_context,
                        *TERMINAL,
                    )
                    for host, found in read.items()
                    if found["containers"]
                }
            except (BecomeError, TunnelError) as error:
                return {**result, "failed": True, "msg": f"The logs cannot be followed: {error}"}
            return {**result, "changed": False, "ending": {"lines": lines, "follow": commands}}
        entries = sorted((stamp, host, service, text) for host, found in read.items() for stamp, service, text in found["entries"])
        shown = [
            {"text": without(log_line(host, stamp, service, text), hidden[host]), "color": ""}
            for stamp, host, service, text in entries[-options["lines"] :]
        ]
        return {**result, "changed": False, "ending": {"lines": shown + lines}}
