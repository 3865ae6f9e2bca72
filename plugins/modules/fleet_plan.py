#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, where Ansible looks for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_plan
short_description: Compare what is declared for a whole fleet with what its hosts have
version_added: 0.1.0
description:
  - Works on the controller alone, on what M(slipway.stack.host_state) has read from every host of the play, in one task for all hosts
    and roles. A playbook then runs the roles that have something to do, and none of the others.
  - A role answers through variables in its C(vars/main.yml), all of them optional. C(__<role>_services) holds declarations of containers,
    which docs/architecture.md describes, and C(__<role>_owner) whose they are, the role's name by default. C(__<role>_reasons) is a list
    of sentences, each saying what else differs. C(__<role>_mistakes) is a list of sentences too, about inputs that cannot work together.
  - Any mistake fails the task, which names all of them, each with its host.
options:
  variables:
    description: For each role the variables that the playbook gives it, over those of the inventory.
    type: dict
    default: {}
  found:
    description: >-
      By role what was found before, in addition to the role's own variables: C(mistakes), and C(reasons) by host, as a release knows them.
    type: dict
    default: {}
  release:
    description: >-
      What M(slipway.stack.release_plan) has C(seen) and found as the C(record). By it a host that has lost its data, or a new one in the
      place of one that is not there any more, is distinguished from one that has none yet.
    type: dict
    suboptions:
      seen:
        description: Whether any host that may hold the record was read.
        type: bool
        required: true
      record:
        description: The record; none before the first release.
        type: dict
extends_documentation_fragment:
  - slipway.stack.options.roles
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
attributes:
  diff_mode:
    description: Changes nothing, and so shows nothing; the roles that run do.
    support: none
author:
  - The Slipway authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Compare all hosts with the inventory
  slipway.stack.fleet_plan:
    roles:
      - {group: redis, role: redis}
  register: fleet
  run_once: true
"""

RETURN = r"""
roles:
  description: Roles that have something to do on at least one host, in the order given.
  type: list
  elements: str
  returned: always
  sample: [redis]
reasons:
  description: For each of these roles, and each host on which something differs, what does.
  type: dict
  returned: always
  sample: {redis: {cache1: ["redis: the container is exited"]}}
containers:
  description: For each host that was read, the containers that are to run there, with their roles; not all of them where the task failed.
  type: dict
  returned: always
  sample: {cache1: {slipway-redis: redis}}
services:
  description: >-
    What a run would do for each service of each host: C(host), C(role), C(service), C(action), C(reasons), C(downtime_s), C(data),
    C(waits).
  type: list
  elements: dict
  returned: always
waiting:
  description: A sentence for each store that waits for a restart to be accepted; RV(reasons) has nothing of it.
  type: list
  elements: str
  returned: always
"""
