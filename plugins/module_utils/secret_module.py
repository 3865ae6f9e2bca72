# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that are given secrets."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.parameters import remove_values


class SecretModule(AnsibleModule):  # type: ignore[misc]
    """A module with ``no_log`` options, whose result is what it has found.

    Ansible keeps such options out of the host's journal, and replaces each occurrence of their values in all that a module returns: of a
    password ``registry`` in the name of an image, of ``{}`` in the text of a file, of ``1`` in numbers. Decisions would be made of that. So
    what a success has found is returned as it is, and must hold no secret. In what only people read, a failure among it, the values are
    replaced.
    """

    #: Values of the options that are not logged.
    no_log_values: set[str]

    def exit_json(self, **result: t.Any) -> None:
        """Return a success."""
        shown = {"invocation": {"module_args": self.params}, **({"diff": result["diff"]} if "diff" in result else {})}
        result |= remove_values(shown, self.no_log_values)
        self.no_log_values = set()
        super().exit_json(**result)
