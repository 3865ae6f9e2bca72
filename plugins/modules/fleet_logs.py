#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, where Ansible looks for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_logs
short_description: Merge the logs of all hosts by time
version_added: 0.1.0
description:
  - Works on the controller alone, on what M(slipway.stack.container_logs) has read from every host of the play.
  - Fails if no host could be read, and says why, or if none has a container of the service, and names the services that there are.
  - Hosts that could not be read are named behind the lines of the others, each with the reason.
  - Values of secrets are taken out of all lines.
options:
  read:
    description: Name of the variable in which each host's result of M(slipway.stack.container_logs) is registered.
    type: str
    required: true
  service:
    description: The service that was asked for.
    type: str
    default: ""
  lines:
    description: At most this many lines of all hosts, the newest.
    type: int
    required: true
  follow:
    description: Whether to return the commands that show what is logged from now on instead.
    type: bool
    default: false
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
  - slipway.stack.attributes.nothing_to_show
author:
  - The Slipway authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Merge the logs
  slipway.stack.fleet_logs:
    read: logs
    lines: 1000
  register: merged
  run_once: true
"""

RETURN = r"""
ending:
  description: How the run ends, as the callback P(slipway.stack.report#callback) takes it from C(slipway_ending).
  type: dict
  returned: success
"""
