# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action release_decision, which has no part that runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_decision
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Decide how a release goes
description:
  - Works on the controller alone, once the slot that serves was compared. The function C(decide) in
    C(plugins/plugin_utils/release_decision.py) decides.
options:
  plan:
    description: What M(slipway.stack.release_plan) has returned, with O(slipway.stack.release_plan#module:release).
    type: dict
    required: true
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
"""

EXAMPLES = r"""
- name: Decide how the release goes
  slipway.stack.release_decision:
    plan: "{{ release_plan }}"
  register: release_decision
  run_once: true
"""

RETURN = r"""
mode:
  description: V(nothing), V(in_place), V(blue_green) or V(rolling).
  returned: success
  type: str
batches:
  description: In which app hosts start the new slot; each with its C(hosts), and those C(before) and C(after) it.
  returned: success
  type: list
  elements: dict
hosts:
  description: By app host, what it resumes, pulls, needs and answers on.
  returned: success
  type: dict
only_resumes:
  description: Whether all app hosts start what they have kept, and nothing else.
  returned: success
  type: bool
prepares:
  description: Whether balancers have their next configuration validated before the switch.
  returned: success
  type: bool
journal:
  description: What the next run must know if this one dies, how the release is undone, and the record of a release that succeeds.
  returned: success
  type: dict
record:
  description: The record if nothing moves.
  returned: success
  type: dict
record_hosts:
  description: Hosts that do not have it yet.
  returned: success
  type: list
  elements: str
"""
