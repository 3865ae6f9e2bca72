# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Enables slipway.stack.report for the playbooks next to it, those of an installed collection too, without a line in ansible.cfg.

A run needs it for more than its report: it checks the files of the inventory, shows what a playbook has found, and sets the exit status.
"""

from __future__ import annotations

from ansible_collections.slipway.stack.plugins.callback import report

#: Ansible reads the options from it.
DOCUMENTATION = report.DOCUMENTATION


class CallbackModule(report.CallbackModule):
    """The callback of the collection; where callbacks_enabled names that one too, one of both acts."""

    CALLBACK_NEEDS_ENABLED = False
