# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action restore_plan, which has no part that runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_plan
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Decide what a run of restore.yml does
description:
  - Works on the controller alone. Refuses options that cannot be combined before any host is asked.
  - With O(plan), its own answer, it says what the host of the task has to do.
options:
  point:
    description: Name of a recovery point, V(latest), or empty.
    type: str
    default: ""
  target_time:
    description: >-
      Moment up to which PostgreSQL is restored, V(end) for all that has arrived on the backup host, or empty for the point's moment.
    type: str
    default: ""
  stores:
    description: >-
      Stores that are restored, as a list or with commas between them; empty for all, or for PostgreSQL alone with O(target_time).
    type: raw
    default: ""
  into:
    description: V(place) exchanges the data of the running stack, V(inspect) restores into separate containers.
    type: str
    default: place
  list:
    description: Whether to list the recovery points.
    type: bool
    default: false
  remove:
    description: Whether to remove the containers of an inspection.
    type: bool
    default: false
  undo:
    description: Whether to bring back the data from before the last restore.
    type: bool
    default: false
  discard_old:
    description: Whether to remove the data that restores have kept.
    type: bool
    default: false
  known_stores:
    description: Stores of the stack.
    type: list
    elements: str
    default: []
  plan:
    description: What an earlier call has returned; what was asked for is not looked at again.
    type: dict
  data:
    description: >-
      Stores and volumes of the product on the host, each with C(store), C(journal), C(key) in a recovery point, and the C(role) that runs
      what uses it.
    type: list
    elements: dict
  left:
    description: Files that an earlier run has left in the folder of restores on the host, by their names without C(.json).
    type: dict
    default: {}
  left_everywhere:
    description: O(left) of all hosts with data. With it, the answer says which restore the run is, and which it undoes.
    type: list
    elements: dict
  serving:
    description: Whether the product is in service. Until it is, a restore whose data is complete has not completed.
    type: bool
    default: true
  kept:
    description: >-
      Of an undo, the results of M(slipway.stack.restored_volume) in the state V(kept) for all data of the stores. Of the host, or with
      O(left_everywhere) of all hosts.
    type: list
    elements: dict
    default: []
  returns:
    description: Of an undo, the restore whose old data is taken back, for each store.
    type: dict
    default: {}
  staged:
    description: Keys of the data that was restored next to the running stack.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
"""

EXAMPLES = r"""
- name: Decide what to restore
  slipway.stack.restore_plan:
    target_time: "2026-11-23T02:15:00+00:00"
    known_stores: [postgres, redis, chroma]
  register: restore_plan
"""

RETURN = r"""
mode:
  description: What the run does, V(list), V(inspect), V(end_inspection), V(replace), V(undo) or V(discard_old).
  returned: without O(plan)
  type: str
in_place:
  description: Whether the data of the running stack is exchanged.
  returned: without O(plan)
  type: bool
stores:
  description: Stores that are concerned.
  returned: without O(plan)
  type: list
  elements: str
point:
  description: Name of the recovery point, or V(latest).
  returned: without O(plan)
  type: str
target_time:
  description: Moment up to which PostgreSQL is restored; empty for the point's moment.
  returned: without O(plan)
  type: str
id:
  description: Name of the restore or undo that the run is; that of an earlier run if it continues it.
  returned: with O(left_everywhere)
  type: str
returns:
  description: Of an undo, the restore whose old data is taken back, for each store that has any.
  returned: with O(left_everywhere)
  type: dict
completed:
  description: Journals of a restore that has completed, to be removed.
  returned: with O(plan)
  type: list
  elements: str
left:
  description: O(left) without the journals of a restore that has completed.
  returned: with O(plan)
  type: dict
exchanges:
  description: Members of O(data) that are exchanged.
  returned: with O(plan)
  type: list
  elements: dict
roles:
  description: Roles that run what uses the concerned data.
  returned: with O(plan)
  type: list
  elements: str
"""
