# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that several modules and actions have."""

from __future__ import annotations


class ModuleDocFragment:
    """Options; each group is a fragment of its own."""

    LOG_LINES = r"""
options:
  log_lines:
    description: Number of log lines that a failure shows.
    type: int
    default: 20
"""

    REGISTRY = r"""
options:
  registry_host:
    description: Host of the inventory with Slipway's registry, which is used instead of the one in the image's name.
    type: str
    default: ""
  registry_port:
    description: Port of that registry on its host's loopback.
    type: int
    default: 5000
"""

    ROLES = r"""
options:
  roles:
    description: Which roles run on the hosts of which group.
    type: list
    elements: dict
    required: true
    suboptions:
      group:
        description: A group of the inventory. A group that does not exist has no hosts.
        type: str
        required: true
      role:
        description: A role of this collection, by its name in it.
        type: str
        required: true
"""
