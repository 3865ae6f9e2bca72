# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action destroy_plan, which has no part that runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: destroy_plan
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Decide what taking a stack off a host removes
description:
  - Checks the inputs first, so that a name that is empty, leads elsewhere or was not confirmed never reaches a host. With O(state) it
    returns the exact names of what was read there.
options:
  stack:
    description: Name of the stack.
    type: raw
    required: true
  confirmed:
    description: The name that the user has typed to confirm it.
    type: raw
    required: true
  volumes:
    description: Names of the volumes to remove.
    type: raw
    required: true
  state:
    description: What M(slipway.stack.host_state) has read from the host. Without it the inputs alone are checked.
    type: dict
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
"""

EXAMPLES = r"""
- name: Check what is to be removed
  slipway.stack.destroy_plan:
    stack: "{{ slipway_stack }}"
    confirmed: "{{ slipway_destroy | default('') }}"
    volumes: "{{ slipway_destroy_volumes }}"
"""

RETURN = r"""
owners:
  description: Values of the label C(slipway.owner) of the stack's containers on the host.
  returned: with O(state)
  type: list
  elements: str
containers:
  description: Containers of the stack without its labels, which were created by hand under the name of a service.
  returned: with O(state)
  type: list
  elements: str
networks:
  description: Networks of the stack.
  returned: with O(state)
  type: list
  elements: str
volumes:
  description: Volumes of O(volumes) that are on the host.
  returned: with O(state)
  type: list
  elements: str
kept_volumes:
  description: Volumes of the stack that stay.
  returned: with O(state)
  type: list
  elements: str
others:
  description: Other stacks that have volumes or networks on the host.
  returned: with O(state)
  type: list
  elements: str
present:
  description: Whether the host has containers or networks of the stack, or one of O(volumes).
  returned: with O(state)
  type: bool
"""
