# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The values of a container's environment, as those who wrote them in an inventory mean them. No Ansible in here."""

from __future__ import annotations

import json
import typing as t


def environment_text(value: t.Any) -> str:
    """Return a value as the text that a program finds in its environment.

    Strings are as they are, booleans true or false, lists and dictionaries JSON. What YAML may have changed on the way, such as 1.10, is
    refused before anything gets here.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return str(value)


def environment_of(values: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Return an environment; a variable that is null is not in it."""
    return {str(name): environment_text(value) for name, value in values.items() if value is not None}
