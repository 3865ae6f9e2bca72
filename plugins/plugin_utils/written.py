# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a value is written in its file: YAML reads 1.10 as 1.1, 0755 as 493, 12:30 as 750 and on as true, without a word."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from ansible_collections.slipway.stack.plugins.plugin_utils.forms import DECIMALS, ENCRYPTED
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import is_template

try:
    # Says which file, line and column hold a value. Internal to Ansible, so checks do without it where it is not found.
    from ansible._internal._datatag._tags import Origin
except ImportError:
    Origin = None

#: An anchor or a tag before a value.
_MARKS = re.compile(r"(?:[&!]\S*\s+)*")
_WORD = re.compile(r"[^\s,\]}#]*")
_AFTER_KEY = re.compile(r"[\"']?\s*:(?=\s|$)\s*(?:[&!]\S*\s+)*([^\s,\]}#]*)")


@functools.lru_cache(maxsize=256)
def _lines(path: str) -> tuple[str, ...]:
    """Return the lines of a file; none where it cannot be read as text, as one in Ansible Vault."""
    try:
        lines = tuple(Path(path).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return ()
    return () if lines and lines[0].startswith("$ANSIBLE_VAULT") else lines


@functools.lru_cache(maxsize=256)
def _is_encrypted(path: str) -> bool:
    """Return whether all of a file is in Ansible Vault."""
    try:
        with open(path, "rb") as file:
            return file.read(14) == b"$ANSIBLE_VAULT"
    except OSError:
        return False


def in_clear_text(value: Any) -> tuple[Path, int | None] | None:
    """Return the file that holds a string as it is, with the line where it is known (of JSON it is not).

    None for a template, a string that is encrypted or empty, and one that no file holds.
    """
    origin = Origin.get_tag(value) if Origin and isinstance(value, str) else None
    if origin is None or not origin.path or not value.strip() or is_template(value) or not _lines(str(origin.path)):
        return None
    return Path(origin.path), origin.line_num or None


def _rest_of_line(value: Any) -> str | None:
    """Return what the file has from a value on; None where that is not known."""
    origin = Origin.get_tag(value) if Origin else None
    if origin is None or not origin.path or not origin.line_num or not origin.col_num:
        return None
    lines = _lines(str(origin.path))
    return lines[origin.line_num - 1][origin.col_num - 1 :] if origin.line_num <= len(lines) else None


def _word_after(key: Any) -> str | None:
    """Return the word that the file has after a name and its colon; None where that is not known."""
    line = (_rest_of_line(key) or "").lstrip("\"'")
    found = _AFTER_KEY.match(line, len(str(key))) if line.startswith(str(key)) else None
    return found[1] if found else None


def places(folder: Path, name: str) -> list[str]:
    """Return the files and lines below a folder that set a variable, by their text: null and booleans bear no mark of where they stand."""
    line = re.compile(rf"\s*[\"']?{re.escape(name)}[\"']?\s*:(?:\s|$)")
    return [
        f"{path}:{number}"
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".yml", ".yaml", ".json") and path.is_file())
        for number, text in enumerate(_lines(str(path)), 1)
        if line.match(text)
    ]


def is_of_a_group(place: str, name: str) -> bool:
    """Return whether a line of a hosts file sets a variable of a group, and not of a host; so also where no line is known.

    Args:
        place: The file and line.
        name: The variable.
    """
    path, _unused, number = place.rpartition(":")
    lines = _lines(path) if path and number.isdigit() else ()
    if not 0 < int(number if lines else 0) <= len(lines):
        return True
    line = lines[int(number) - 1]
    if Path(path).suffix not in (".yml", ".yaml", ".json"):
        # Behind a host, or in a section of variables.
        return line.lstrip().startswith(name)
    indent = len(line) - len(line.lstrip())
    outer = (above for above in reversed(lines[: int(number) - 1]) if above.strip() and len(above) - len(above.lstrip()) < indent)
    parent = next((above for above in outer if not above.lstrip().startswith("#")), "")
    return bool(re.match(r"\s*[\"']?vars[\"']?\s*:", parent) or re.search(rf"\bvars[\"']?\s*:.*\b{re.escape(name)}\b", line))


def changed_by_yaml(key: Any, value: Any) -> str | None:
    """Return how a number or boolean was written where that is another text than Ansible's; None where it is the same.

    A number whose writing is not known may have been changed: one with decimals, and one in an encrypted file.

    Args:
        key: The name in the dictionary that holds the value; None for a member of a list.
        value: The value.
    """
    if isinstance(value, bool):
        word = _word_after(key)
        return word if word and word.lower() in ("on", "off", "yes", "no", "y", "n") else None
    if isinstance(value, (int, float)):
        rest = _rest_of_line(value)
        if rest is None:
            origin = Origin.get_tag(value) if Origin else None
            encrypted = origin is not None and origin.path and _is_encrypted(str(origin.path))
            return DECIMALS if isinstance(value, float) else ENCRYPTED if encrypted else None
        found = _WORD.match(rest, _MARKS.match(rest).end())  # type: ignore[union-attr]
        # A key ends with a colon.
        word = found[0].rstrip(":") if found else ""
        # Of a template nothing is known.
        return word if word and word[0] in "+-.0123456789" and word != str(value) else None
    return None
