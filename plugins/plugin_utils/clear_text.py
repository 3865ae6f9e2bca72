# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find secrets that a file of the inventory holds in clear text, where everybody who may read the inventory reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.slipway.stack.plugins.plugin_utils.forms import Form

#: Forms of values that belong in the vault.
SECRETS = ("secret", "secret_text", "credential", "private_key")
#: Of the environment of a program not every variable is secret; these names are.
_SECRET_NAME = re.compile(r"(?i)(?:secret|passw|token|credential)|key$")
#: Names that a line lists.
MOST_LISTED = 3


def secret_members(form: Form, value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a value that are secrets by their form, each with its path, their templates unresolved.

    Args:
        form: The form of the value.
        value: The value as the inventory has it. What a template makes of it has no parts yet.
        path: Its name.
    """
    if form.kind in SECRETS:
        yield path, value
    elif isinstance(value, Mapping):
        for name, member in value.items():
            inner = form.fields.get(name, form.members)
            if inner and (not path.endswith("_environment") or _SECRET_NAME.search(str(name))):
                yield from secret_members(inner, member, f"{path}.{name}")
    elif isinstance(value, (list, tuple)) and form.members:
        for number, member in enumerate(value):
            yield from secret_members(form.members, member, f"{path}[{number}]")


def vault_name(path: str) -> str:
    """Return a name for the variable of the vault that a secret moves to."""
    return "vault_" + re.sub(r"[^a-z0-9]+", "_", path.rpartition(".")[2].lower()).strip("_")


def some_of(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
