# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action preflight, which has no part that runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Stop a run before it touches a host with inputs that cannot work
description:
  - Looks at the variables of every host of the inventory at once, without asking a host, and fails with one message that names host,
    variable and remedy of every problem it found.
  - Run it once, before the first task that changes anything. With O(states) run it again after M(slipway.stack.host_state) has read
    the hosts.
  - Every input has a form, such as a port or the name of a volume, in C(meta/forms.yml) of its role. Names that are nearly those of inputs
    are refused too, in the inventory and after C(-e).
options:
  playbook:
    description: Name of the playbook, whose arguments are looked at too.
    type: str
    default: ""
  shared_variables:
    description: Whether the run needs the variables that all environments share, which the playbooks of the collection read.
    type: bool
    default: false
  works_on:
    description:
      - Groups on whose hosts the playbook works, or C(localhost). A run that reaches none of them, as by C(--limit), would do nothing.
    type: list
    elements: str
    default: []
  required_groups:
    description: Groups that need a host.
    type: list
    elements: str
    default: []
  optional_groups:
    description:
      - Groups that an inventory may leave out. One that is there under a name like it is refused, as it would be left out without a word.
    type: list
    elements: str
    default: []
  secrets:
    description: Variables that must hold a secret of at least 16 characters that is not a placeholder. Values are never shown.
    type: list
    elements: str
    default: []
  secrets_variable:
    description:
      - Variable that lists further secrets. It is evaluated here, so that an input that it is made of has a message of its own where that
        cannot be evaluated.
    type: str
    default: ""
  states:
    description:
      - Look at what C(host_state) read instead of at the inputs.
      - Hosts that were not read, as with C(--limit), are left out.
    type: bool
    default: false
  left_out:
    description: With O(states), whether to refuse what still runs on a host for one of O(roles) whose groups the host has left.
    type: bool
    default: false
  brings_mesh:
    description:
      - Whether the run brings up the mesh of a host before services move there, or takes it down after them, with O(states).
      - One that a stack has by default alone is refused where services serve other hosts without it, and other addresses in it are where
        restarts are not accepted. A run that brings none needs hosts that have it, or have none, as the inventory says.
    type: bool
    default: false
  mesh_only:
    description: With O(states), whether to look at nothing but the mesh.
    type: bool
    default: false
  ports:
    description:
      - Name of the variable that lists the ports that a host will publish, with O(states). Each has C(port), C(variable) and possibly
        C(address).
    type: str
    default: ""
  reach:
    description:
      - Name of the variable that lists the addresses that a host needs, with O(states). Each has C(address), C(port), C(variable), and
        C(group), the group whose hosts may serve it.
      - A refused connection is admitted only where a host of that group, which takes part in the run, has the address, and its service
        is not up or its firewall not open for this host yet.
    type: str
    default: ""
  images:
    description: Name of the variable that lists the images that a host needs, with O(states).
    type: str
    default: ""
  builds:
    description:
      - Images of the collection that are built where no registry has them, with O(states), each with C(name), C(variable) and C(folder).
        They are not missed.
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - slipway.stack.options.roles
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
attributes:
  diff_mode:
    support: none
    description: Nothing is changed.
notes:
  - The variables C(slipway_minimum_memory_mb) (1024) and C(slipway_minimum_disk_mb) (4096) of a host say what it needs, in MB.
"""

EXAMPLES = r"""
- name: Check the inventory
  slipway.stack.preflight:
    required_groups: [app]
    secrets: [vault_app_secret_key]
    roles:
      - {group: app, role: app}
  run_once: true

- name: Check the hosts
  slipway.stack.preflight:
    states: true
    roles:
      - {group: app, role: app}
    ports: slipway_published_ports
  run_once: true
"""

RETURN = r"""
to_build:
  description: >-
    Those of O(builds) that hosts lack and no registry is known to have, each with the names of these C(hosts) and their C(platform).
  returned: success
  type: list
  elements: dict
"""
