#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, where Ansible looks for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_status
short_description: Say whether a fleet is well, and what needs attention first
version_added: 0.1.0
description:
  - Works on the controller alone, on what M(slipway.stack.host_state) has read from every host of the play, and on what
    M(slipway.stack.fleet_plan) says of it. A host that was not read is down; the task does not fail for it.
  - docs/operate.md says what is judged. Values of secrets are taken out of all texts.
options:
  stack:
    description: Name of the stack.
    type: str
    required: true
  folder:
    description: Folder of the release's records and lock on the hosts.
    type: str
    required: true
  plan:
    description: What M(slipway.stack.fleet_plan) returned, also where it failed, or an empty dictionary where it was not called.
    type: dict
    required: true
  unknown:
    description: Why it failed, or was not called.
    type: str
    default: ""
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
  - slipway.stack.attributes.nothing_to_show
author:
  - The Slipway authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Judge what was read
  slipway.stack.fleet_status:
    stack: slipway
    folder: /etc/slipway/slipway/release
    plan: "{{ fleet }}"
  register: found
  run_once: true
"""

RETURN = r"""
status:
  description: The state of the fleet, its problems, and a row for all that was looked at; docs/reports.md describes the fields.
  type: dict
  returned: success
exit_status:
  description: V(0) for a fleet that is well, V(1) for one that needs attention, V(2) for one that is down.
  type: int
  returned: success
lines:
  description: The same for a terminal, each with its C(text) and C(color).
  type: list
  elements: dict
  returned: success
page:
  description: The same as one HTML page that needs no other file.
  type: str
  returned: success
"""
