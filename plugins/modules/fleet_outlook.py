#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, where Ansible looks for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_outlook
short_description: Say what a run would do to each service of a fleet
version_added: 0.1.0
description:
  - Works on the controller alone, on what M(slipway.stack.fleet_plan) and M(slipway.stack.release_plan) have found.
options:
  fleet:
    description: What M(slipway.stack.fleet_plan) returned.
    type: dict
    required: true
  release:
    description: What M(slipway.stack.release_plan) returned.
    type: dict
    required: true
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
  - slipway.stack.attributes.nothing_to_show
author:
  - The Slipway authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say what would be done to each service
  slipway.stack.fleet_outlook:
    fleet: "{{ slipway_fleet }}"
    release: "{{ release_plan }}"
  register: found
  run_once: true
"""

RETURN = r"""
rows:
  description: One for each service of each host; docs/deploy.md describes the fields.
  type: list
  elements: dict
  returned: success
lines:
  description: The same for a terminal, each with its C(text) and C(color).
  type: list
  elements: dict
  returned: success
"""
