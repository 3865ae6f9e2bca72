# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the callback of the collection follows a run. Without it, checks, output, exit status, history and notifications are missing."""

from __future__ import annotations

from typing import Any

NAME = "slipway.stack.report"
NOT_FOLLOWED = (
    f"the callback {NAME} does not follow this run, without which the files of the inventory are not checked, and output, exit status, "
    "report and history are missing; Ansible warns above if it cannot load it, and else needs callbacks_enabled = "
    f"{NAME} below [defaults] in ansible.cfg"
)
_followers: list[Any] = []


def follow(callback: Any) -> bool:
    """Note that a callback follows this run, and return whether it is the first: others would say the same twice."""
    if not _followers:
        _followers.append(callback)
    return _followers[0] is callback


def is_followed() -> bool:
    """Return whether a callback follows this run. Ansible's workers know it, as they are forked later."""
    return bool(_followers)
