# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about certificates of an ACME authority. Each has its documentation in a file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.slipway.stack.plugins.module_utils.json_files import RENEWAL, json_object
from ansible_collections.slipway.stack.plugins.plugin_utils import acme


def acme_account(secret: str) -> dict[str, str]:
    """Return the key and the thumbprint of the account that a secret stands for."""
    try:
        return acme.account(secret)
    except ValueError as error:
        raise AnsibleFilterError(f"acme_account: {error}") from error


def acme_renewal(text: str) -> dict[str, Any]:
    """Return what the last renewal has left, nothing where its file is damaged: then the certificate is renewed."""
    return json_object(text, RENEWAL) or {}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "acme_account": acme_account,
            "acme_mistakes": acme.mistakes,
            "acme_names": acme.names,
            "acme_obstacles": acme.obstacles,
            "acme_renewal": acme_renewal,
        }
