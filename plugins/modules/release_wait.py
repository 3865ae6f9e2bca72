# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action release_wait, which has no part that runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_wait
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Wait on the controller
description:
  - Waits in the process of the task. No connection is opened and no program is started, so it works whatever an inventory says about
    how hosts are reached, and for a user of the controller who may not become another one.
options:
  seconds:
    description: How long to wait.
    type: float
    required: true
attributes:
  check_mode:
    description: Does not wait, as nothing was changed whose effect would have to be waited for.
    support: full
extends_documentation_fragment:
  - slipway.stack.attributes.controller
"""

EXAMPLES = r"""
- name: Wait for in-flight requests
  slipway.stack.release_wait:
    seconds: 5
  run_once: true
"""

RETURN = r""" # """
