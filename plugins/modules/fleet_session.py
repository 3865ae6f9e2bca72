#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, where Ansible looks for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_session
short_description: Find the container in which a command of a service runs, or a session is opened
version_added: 0.1.0
description:
  - Works on the controller alone, on what M(slipway.stack.host_state) has read from every host of the play.
  - Fails if no container of the service runs, and names the services that there are.
options:
  folder:
    description: Folder of the release's records on the hosts.
    type: str
    required: true
  service:
    description: The service, with or without slot and number. Of a product's service it is the slot that serves.
    type: str
    required: true
  argv:
    description: The program in the container, with its arguments.
    type: list
    elements: str
    required: true
  interactive:
    description: Whether a session is opened in the terminal of the run.
    type: bool
    required: true
  writes:
    description: Whether the session may change something, so that the host's history gets a line.
    type: bool
    default: true
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
  - slipway.stack.attributes.nothing_to_show
author:
  - The Slipway authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Find the database
  slipway.stack.fleet_session:
    folder: /etc/slipway/slipway/release
    service: postgres
    argv: [psql, --dbname=app]
    interactive: false
  register: session
  run_once: true
"""

RETURN = r"""
host:
  description: The host that runs the container.
  type: str
  returned: success
argv:
  description: The command that runs the program in the container, with its standard input, on that host.
  type: list
  elements: str
  returned: success
ending:
  description: How the run ends, as the callback P(slipway.stack.report#callback) takes it from C(slipway_ending).
  type: dict
  returned: with O(interactive)
"""
