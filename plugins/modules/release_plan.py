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
  app_hosts:
    description: Hosts that run the product, in the inventory's order. Hosts that were not read are left out.
    type: list
    elements: str
    required: true
  balancers:
    description: Hosts that run the balancers, which keep records, too.
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
  takeover:
    description: Whether this run takes the fleet's lock whoever holds it.
    type: bool
    default: false
  kept:
    description: How many versions before the running one are remembered.
    type: int
    default: 3
  data:
    description: Which hosts hold the stack's data, as the record is to say, by service of a store and by volume. By default, as before.
    type: dict
  release:
    description: How the product is released. With it, the task says what the release needs, too.
    type: dict
    suboptions:
      stack:
        description: Name of the stack.
        type: str
        required: true
      rolling:
        description: Whether batches of hosts stop the old slot before they start the new one.
        type: bool
        required: true
      batch:
        description: Number of hosts in a batch.
        type: int
        required: true
      canary_weight:
        description: Per cent of the requests that the new slot gets first.
        type: int
        required: true
      minimum_memory_mb:
        description: Memory that a second slot needs; 0 for what the serving one takes.
        type: int
        required: true
      digests:
        description: Images that builds have recorded, by version.
        type: dict
        required: true
      host_header:
        description: Name of the site, which clients ask for, or empty.
        type: str
        required: true
      lock_lifetime:
        description: Seconds that the lock stands beyond what the release waits for.
        type: int
        required: true
      canary_seconds:
        description: Seconds that the canary takes.
        type: int
        required: true
      gate_seconds:
        description: Seconds that a batch may take to answer once it is healthy, and to drain.
        type: int
        required: true
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
"""

EXAMPLES = r"""
- name: Determine the live and the requested version
  slipway.stack.release_plan:
    app_hosts: [app1, app2]
    balancers: [lb1]
    folder: /etc/slipway/slipway/release
    version: 1.1.0
  register: release_plan
"""

RETURN = r"""
record:
  description: What the fleet serves, or none before its first release.
  returned: success
  type: dict
seen:
  description: Whether any host of the fleet was read, so that RV(record) is known.
  returned: success
  type: bool
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
held_until:
  description: When the fleet's lock expires, where another run has it that may still be under way; else empty.
  returned: success
  type: str
locked_on:
  description: Host that holds the fleet's lock, or empty.
  returned: success
  type: str
lock_seconds:
  description: How long the lock stands, as no step of a release renews it.
  returned: with O(release)
  type: int
lock_host:
  description: That host, or the one on which a run takes the lock.
  returned: success
  type: str
inputs:
  description: What M(slipway.stack.release_decision) has to know of the task.
  returned: with O(release)
  type: dict
services:
  description: Names of services by what a release does with them, and whether one migrates.
  returned: with O(release)
  type: dict
paths:
  description: What a client may ask a balancer for.
  returned: with O(release)
  type: dict
moves:
  description: Whether another version is to run than the one that serves.
  returned: with O(release)
  type: bool
images:
  description: By app host, the images of the version, C(all) and those that are missing, C(recorded) by a build or only C(named).
  returned: with O(release)
  type: dict
mistakes:
  description: What is wrong with the inputs.
  returned: with O(release)
  type: list
  elements: str
reasons:
  description: By host, what there is to do in addition to the containers.
  returned: with O(release)
  type: dict
kept:
  description: Of a rollback, app hosts on which the slot to go back to still holds containers of that version.
  returned: with O(release)
  type: list
  elements: str
report:
  description: >-
    What the run's report says as long as nothing has moved: C(version), C(wanted), C(previous), and by app host C(slots) and C(digests).
  returned: success
  type: dict
"""
