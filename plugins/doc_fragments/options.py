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

    LOGIN = r"""
options:
  login:
    description: Login to a registry, which is stored on no host; without a O(login.username), that of the Docker client or engine is used.
    type: dict
    default: {}
    suboptions:
      username:
        description: Name of the user; empty for no login.
        type: str
        default: ""
      password:
        description: Its password or token.
        type: str
        default: ""
      registry:
        description: Registry as image names begin with it, empty for Docker Hub. No other one is shown the login.
        type: str
        default: ""
"""

    SERVICE_FILES = r"""
options:
  folder:
    description: Folder of the service on the host.
    type: path
    required: true
  image:
    description: Image of the service, which is on the host.
    type: str
    required: true
  user:
    description: User of the container, by name or number; empty takes the image's own.
    type: str
    default: ""
  non_root:
    description: Whether to refuse root.
    type: bool
    default: true
  revision:
    description: Name of the configuration's revision; empty when the service has none.
    type: str
    default: ""
  config:
    description: Text of each config file, by its name relative to the revision.
    type: dict
    default: {}
  secrets:
    description: Text of each secret, by its file name.
    type: dict
    default: {}
  judged_inputs:
    description: Inputs that only the service itself can judge; a refusal names them.
    type: list
    elements: str
    default: []
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

    STACK_FOLDER = r"""
options:
  stack:
    description: Name of the stack.
    type: str
    required: true
  root:
    description: Folder in which each stack has its own.
    type: path
    default: /etc/slipway
"""
