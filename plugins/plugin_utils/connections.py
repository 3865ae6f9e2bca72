# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to hosts that are not a task's own; for action plugins, on the controller."""

from __future__ import annotations

import os
import typing as t

from ansible import constants as C
from ansible.plugins.loader import connection_loader

from ansible_collections.slipway.stack.plugins.plugin_utils.tunnel import TunnelError


def connection_to(host: str, hostvars: t.Mapping[str, t.Any], play_context: t.Any) -> t.Any:
    """Return an SSH connection to another host than the task's, as its inventory variables describe it.

    Raises:
        TunnelError: there is no such host.
    """
    if host not in hostvars:
        raise TunnelError(f"the inventory has no host {host!r}")
    variables = hostvars[host]
    names = C.config.get_plugin_vars("connection", "ssh")
    connection = connection_loader.get("ansible.builtin.ssh", play_context, os.devnull)
    connection.set_options(var_options={name: variables[name] for name in {*names, "inventory_hostname"} if name in variables})
    return connection
