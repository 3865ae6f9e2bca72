#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, where Ansible looks for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_exposure
short_description: Compare what is open on the hosts of a fleet with what is declared
version_added: 0.1.0
description:
  - Without O(tried) says which ports to try. With it, tries them from the controller as well, and says which are open and not declared, or
    open to a host that they are not meant for.
options:
  listening:
    description: What M(slipway.stack.listening_ports) returned, by host.
    type: dict
    required: true
  declared:
    description: >-
      What may be open, by host; each with C(protocol), C(port), C(address) unless all are meant, and C(peers) unless everybody may connect.
    type: dict
    required: true
  named:
    description: Addresses and names at which each host is reached, by host. What NAT maps to a host is tried there, too.
    type: dict
    required: true
  resolved:
    description: >-
      The addresses of the names in O(named), as this module returned them without O(tried). Otherwise the controller resolves them.
    type: dict
  tried:
    description: What M(slipway.stack.reachable_ports) returned, by the host that tried.
    type: dict
  timeout:
    description: Seconds to wait for each port that is tried from the controller.
    type: float
    default: 3
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
  - slipway.stack.attributes.nothing_to_show
author:
  - The Slipway authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Decide what to try
  slipway.stack.fleet_exposure:
    listening: "{{ listening }}"
    declared: "{{ lookup('slipway.stack.topology', 'declared_ports') }}"
    named: "{{ lookup('slipway.stack.topology', 'named_addresses') }}"
  register: exposure
  run_once: true
"""

RETURN = r"""
targets:
  description: For each host of the play the ports to try, as M(slipway.stack.reachable_ports) takes them; without O(tried).
  type: dict
  returned: success
resolved:
  description: The addresses of the names in O(named); without O(tried).
  type: dict
  returned: success
problems:
  description: What is wrong, each with C(host) and C(text), and of ports with C(protocol), C(port), C(owner), C(addresses) and C(sources).
  type: list
  elements: dict
  returned: success
unknown:
  description: >-
    What is not known to be closed and not a problem either, because others could look at it, or because it is private. Each has its
    C(text), and the C(addresses) and C(sources) concerned.
  type: list
  elements: dict
  returned: success
ending:
  description: How the run ends, with the C(lines) to show and the C(exit_status).
  type: dict
  returned: success
"""
