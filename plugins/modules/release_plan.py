# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action release_plan, which has no part that runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_plan
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Say what a fleet serves, what it is to serve, and what an interrupted release needs
description:
  - Works on the controller alone, on what M(slipway.stack.host_state) has read of the hosts.
options:
  members:
    description: Hosts that keep records, app hosts and balancers; those that were not read are left out.
    type: list
    elements: str
    required: true
  folder:
    description: Folder of records and lock on the hosts.
    type: str
    required: true
  version:
    description: Value of C(app_version) in this run, from the inventory or with C(-e). Required without O(lock_only).
    type: str
    default: ""
  first:
    description: Whether hosts of which none has a recorded version may get their first one. Otherwise the task fails.
    type: bool
    default: true
  lock_only:
    description: Whether to say no more than who holds the fleet's lock, for playbooks that are not a release.
    type: bool
    default: false
  rollback:
    description: Whether the version before is asked for.
    type: bool
    default: false
  kept:
    description: How many versions before the running one are remembered.
    type: int
    default: 3
  services:
    description: Services whose containers a release stops; where a slot still holds one of them, a rollback starts it again.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
"""

EXAMPLES = r"""
- name: Determine the live and the requested version
  slipway.stack.release_plan:
    members: [app1, app2, lb1]
    folder: /etc/slipway/slipway/release
    version: 1.1.0
  register: release_plan
"""

RETURN = r"""
record:
  description: What the fleet serves, or none before its first release.
  returned: success
  type: dict
version:
  description: Version that is to run.
  returned: success
  type: str
traffic:
  description: Slots that are C(live) and C(previous), for balancers.
  returned: success
  type: dict
recover:
  description: What an interrupted release needs, V(undo), V(finish), or nothing.
  returned: success
  type: str
kept:
  description: Of a rollback, app hosts on which the slot to go back to still holds containers of that version.
  returned: success
  type: list
  elements: str
report:
  description: >-
    What the run's report says as long as nothing has moved: C(version), C(wanted), C(previous), and by app host C(slots) and C(digests).
  returned: success
  type: dict
"""
