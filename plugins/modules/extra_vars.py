# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action extra_vars, which has no part that runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: extra_vars
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Refuse a misspelt variable that was given with -e
description:
  - A playbook that asks for its arguments with C(-e) would go on without one whose name is wrong, and do another thing than was meant.
  - Inputs of our roles pass, and names that are like none of the known ones and do not begin as ours do, as an inventory may read them.
options:
  known:
    description: Names that the playbook reads.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - slipway.stack.attributes.reads
  - slipway.stack.attributes.controller
"""

EXAMPLES = r"""
- name: Refuse what is misspelt
  slipway.stack.extra_vars:
    known: [point, stores]
"""

RETURN = r""" # """
