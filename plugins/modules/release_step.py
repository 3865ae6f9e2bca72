# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action release_step, which has no part that runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_step
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Say where a release is, and keep the time of each step
description:
  - Works on the controller alone. With O(report) it ends the last step and returns the report, which the callback
    C(slipway.stack.report) puts into C(reports/<playbook>-latest.json).
options:
  run:
    description: Name of the run.
    type: str
    required: true
  name:
    description: Name of the step that begins.
    type: str
    required: true
  report:
    description: What to report in addition to the steps' seconds.
    type: dict
    default: {}
extends_documentation_fragment:
  - slipway.stack.attributes.controller
"""

EXAMPLES = r"""
- name: Begin to pull
  slipway.stack.release_step:
    run: "{{ release_plan.run }}"
    name: pull
"""

RETURN = r"""
step:
  description: Name of the step that began.
  returned: success
  type: str
report:
  description: The report with C(steps), the seconds of each, and C(seconds).
  returned: with O(report)
  type: dict
"""
