# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter memory_share."""

from __future__ import annotations

DOCUMENTATION = r"""
name: memory_share
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Take a share of a host's memory for a container's limit
description:
  - The result is a multiple of 16 MB, so that the few megabytes by which a kernel update changes the memory that a host reports
    seldom change a limit.
options:
  _input:
    description: Memory of the host in MB.
    type: int
    required: true
  share:
    description: Share of it, above 0 and at most 1.
    type: float
    required: true
  floor_mb:
    description: Least result in MB, for hosts that are too small for the share.
    type: int
    default: 64
"""

EXAMPLES = r"""
- name: Give a quarter of 7,950 MB
  ansible.builtin.debug:
    msg: "{{ 7950 | slipway.stack.memory_share(0.25, floor_mb=256) }}" # 1984
"""

RETURN = r"""
_value:
  description: Memory in MB.
  type: int
"""

from collections.abc import Callable

from ansible.errors import AnsibleFilterError

STEP_MB = 16


def memory_share(total_mb: float, share: float, floor_mb: int = 64) -> int:
    """Return a share of memory in MB, rounded down to a multiple of 16, and at least the floor.

    Args:
        total_mb: Memory of the host in MB, above 0.
        share: Above 0, at most 1.
        floor_mb: Least result in MB.

    Raises:
        AnsibleFilterError: An argument is not a number, or out of its range.
    """
    try:
        total, part, floor = float(total_mb), float(share), int(floor_mb)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"memory_share needs numbers, not {(total_mb, share, floor_mb)!r}") from error
    if total <= 0:
        raise AnsibleFilterError(f"memory_share: the host's memory must be above 0 MB, not {total_mb}")
    if not 0 < part <= 1:
        raise AnsibleFilterError(f"memory_share: the share must be above 0 and at most 1, not {share}")
    return max(floor, int(total * part) // STEP_MB * STEP_MB)


class FilterModule:
    """What Ansible asks for the filters of this file."""

    def filters(self) -> dict[str, Callable[..., int]]:
        """Return the filters by name."""
        return {"memory_share": memory_share}
