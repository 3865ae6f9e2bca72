# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check secrets, generate them, and add them to the text of a vault file. Independent of Ansible."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

MINIMUM_LENGTH = 16
GENERATED_LENGTH = 40
MINIMUM_DISTINCT = 6

# Letters and digits only: safe in URLs, shells, ACL files and connection strings, and never parsed as an option.
_ALPHABET = string.ascii_letters + string.digits

_PLACEHOLDER = re.compile(
    r"change[-_ ]?(me|this|it)|replace[-_ ]?(me|this|with)|placeholder|example|sample|todo|fixme|insert[-_ ]|your[-_ ]|dummy|default"
    r"|^<.*>$|passw[o0]rd",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
TOP_LEVEL_KEY = re.compile(r"""^(?P<quote>["']?)(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P=quote)\s*:(?:\s|$)""", re.MULTILINE)


def secret_problem(value: Any) -> str | None:
    """Return what is wrong with a secret, without showing it.

    Args:
        value: The variable's value; None if it is not set.

    Returns:
        The end of a sentence that starts with the variable's name, or None for a good secret.
    """
    if value is None:
        return "is not set"
    if not isinstance(value, str):
        # Ansible marks values with types of its own, which are made from Python's.
        kind = next(base.__name__ for base in type(value).__mro__ if base.__module__ == "builtins")
        return f"must be a string, not {kind}: quote the value"
    if not value.strip():
        return "is empty"
    if value != value.strip():
        return "begins or ends with a blank or the end of a line, which programs would cut off or not: remove it"
    if not value.isprintable():
        return "holds a control character or the end of a line: remove it"
    if _PLACEHOLDER.search(value):
        return "is a placeholder"
    if len(value) < MINIMUM_LENGTH:
        return f"is too short: {len(value)} characters, at least {MINIMUM_LENGTH} are required"
    if len(set(value)) < MINIMUM_DISTINCT:
        return f"is too simple: {len(set(value))} different characters, at least {MINIMUM_DISTINCT} are required"
    return None


def new_secret() -> str:
    """Return a random secret of 40 letters and digits (238 bits) that secret_problem finds nothing wrong with."""
    while True:
        value = "".join(secrets.choice(_ALPHABET) for _unused in range(GENERATED_LENGTH))
        if secret_problem(value) is None:
            return value


def names_in(text: str) -> set[str]:
    """Return the variables that the text of a YAML file sets at its top level, their values unread."""
    return {match["name"] for match in TOP_LEVEL_KEY.finditer(text)}


def with_new_secrets(text: str, names: list[str]) -> str:
    """Return the text of a vault file with a new secret for each name. The existing text is kept as it is.

    Raises:
        ValueError: A name is not a valid name of a variable, or the text already sets it.
    """
    present = names_in(text)
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a valid name of a variable")
        if name in present:
            raise ValueError(f"{name} is set already")
    head = text if text.strip() else "---\n"
    if not head.endswith("\n"):
        head += "\n"
    return head + "".join(f'{name}: "{new_secret()}"\n' for name in names)


def with_values(text: str, values: Mapping[str, str]) -> str:
    """Return the text of a vault file with other values of some secrets; one whose value is "" is left out. All else is kept as it is."""
    kept: list[str] = []
    written: set[str] = set()
    skipping = False
    for line in text.splitlines(keepends=True):
        found = TOP_LEVEL_KEY.match(line)
        # A value may go on in lines that are indented.
        skipping = found["name"] in values if found else skipping and line[:1] in " \t\n"
        if found and skipping and values[found["name"]] and found["name"] not in written:
            kept.append(_line(found["name"], values[found["name"]]))
            written.add(found["name"])
        elif not skipping:
            kept.append(line if line.endswith("\n") else f"{line}\n")
    return "".join(kept + [_line(name, value) for name, value in values.items() if value and name not in written])


def _line(name: str, value: str) -> str:
    """Return the line of YAML that sets a variable, to Ansible too, to which braces begin a template."""
    tag = "!unsafe " if is_template(value) else ""
    # YAML has no pairs of surrogates, as JSON writes characters beyond 16 bits without the argument.
    return f"{name}: {tag}{json.dumps(value, ensure_ascii=False)}\n"


def is_template(value: Any) -> bool:
    """Return whether Ansible takes a value for a template, unless it is marked as unsafe."""
    return isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#"))


def spellings(secrets: Iterable[Any], shortest: int = 4) -> list[str]:
    """Return all that a string may show of secrets, the longest first, as one may be part of another.

    Args:
        secrets: The values, or dictionaries and lists of them; only strings are looked for.
        shortest: Length of what is looked for at least, as a shorter string occurs in too many others.
    """
    found = set()
    for secret in map(str, _strings(secrets)):
        # As it is, as a member of something that is shown or logged, in a URL, on one line, and line by line.
        found |= {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe=""), " ".join(secret.split())}
        found |= {line.strip() for line in secret.splitlines() if not line.startswith("-----")}
    return sorted((text for text in found if len(text) >= shortest), key=lambda text: (-len(text), text))


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings(value.values())
    elif isinstance(value, Iterable):
        for member in value:
            yield from _strings(member)


def without(text: str, hidden: Iterable[str]) -> str:
    """Return a string without what spellings() has returned."""
    for secret in hidden:
        text = text.replace(secret, "(secret)")
    return text
