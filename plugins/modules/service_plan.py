#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, where Ansible looks for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_plan
short_description: Compare declared services with what a host has
version_added: 0.1.0
description:
  - Works on the controller alone, on the fact of M(slipway.stack.host_state).
  - Says for each service what differs and what makes it agree. In check mode a difference counts as a change, with its diff.
options:
  services:
    description: The declarations; docs/architecture.md describes them.
    type: list
    elements: dict
    required: true
  state:
    description: The fact C(container_service_host_state).
    type: dict
    required: true
  stack:
    description: Name of the stack.
    type: str
    required: true
  root:
    description: Folder on the host that holds the stacks' configuration.
    type: str
    default: /etc/slipway
  owner:
    description: Whose services these are; containers of this owner that are not declared are stale.
    type: str
    required: true
  networks:
    description: The networks that a service may name, each with the options of M(community.docker.docker_network).
    type: dict
    required: true
  adopt_volumes:
    description: Whether to take over volumes that exist without our label.
    type: bool
    default: false
  run_one_shots:
    description: Whether one-shot services are needed even where no other container is made.
    type: bool
    default: false
  accept_restart:
    description: Whether a store that serves may be stopped for a while. Otherwise it waits, and what differs of it stays as it is.
    type: bool
    default: true
  accept_empty:
    description: Whether an empty volume may take the place of one with data.
    type: bool
    default: false
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
attributes:
  diff_mode:
    description: Shows texts of config files, never of secrets.
    support: full
author:
  - The Slipway authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Compare the declarations with the host
  slipway.stack.service_plan:
    services: "{{ container_service_declarations }}"
    state: "{{ container_service_host_state }}"
    stack: slipway
    owner: redis
    networks: {database: {internal: true}}
  register: container_service_plan
"""

RETURN = r"""
services:
  description: The plan of each service.
  returned: success
  type: list
  elements: dict
needed:
  description: Those of them in which something differs.
  returned: success
  type: list
  elements: dict
begins_on:
  description: Volumes that services write to once they start, each with the containers that do.
  returned: success
  type: dict
handed_over:
  description: >-
    Containers that must stop before another one starts on their volume, each with C(container), C(volume) and the container that it is
    handed C(to).
  returned: success
  type: list
  elements: dict
stale:
  description: Names of containers that are no longer declared.
  returned: success
  type: list
  elements: str
stale_running:
  description: Those of them that run, without what interrupted runs have left.
  returned: success
  type: list
  elements: str
volumes_left:
  description: >-
    Volumes with data that are no longer declared by this owner, each with C(path) and C(container) of the running container that writes to
    it, which are empty for those of the stack that none writes to.
  returned: success
  type: dict
volumes_declared:
  description: Names of the volumes that are declared.
  returned: success
  type: list
  elements: str
volumes_of_data:
  description: >-
    Declared volumes of stores and of recovery points, each with C(path), C(variable), C(store), C(empty), C(used) and C(there). None with
    O(accept_empty).
  returned: success
  type: dict
stale_folders:
  description: Names of folders of the owner's services that have no container.
  returned: success
  type: list
  elements: str
reasons:
  description: What differs, a sentence each.
  returned: success
  type: list
  elements: str
"""
