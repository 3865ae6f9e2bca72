#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, where Ansible looks for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_history
short_description: Merge the history of all hosts
version_added: 0.1.0
description:
  - Works on the controller alone, on what M(slipway.stack.host_state) has read from every host of the play. The callback
    P(slipway.stack.report#callback) writes the history.
options:
  folder:
    description: The stack's folder on the hosts.
    type: str
    required: true
  lines:
    description: At most this many runs, and as many restarts by the watchdogs, the newest.
    type: int
    required: true
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
  - slipway.stack.attributes.nothing_to_show
author:
  - The Slipway authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Merge the history
  slipway.stack.fleet_history:
    folder: /etc/slipway/slipway
    lines: 50
  register: found
  run_once: true
"""

RETURN = r"""
runs:
  description: The runs, the oldest first; docs/operate.md describes the fields.
  type: list
  elements: dict
  returned: success
ending:
  description: How the run ends, as the callback P(slipway.stack.report#callback) takes it from C(slipway_ending).
  type: dict
  returned: success
"""
