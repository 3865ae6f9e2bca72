# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup inventory_digest."""

from __future__ import annotations

DOCUMENTATION = r"""
name: inventory_digest
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: A digest of the files of the inventory in use
description:
  - Shows whether the inventory has changed since something was made with it. Includes the inventory's files and the folders C(group_vars)
    and C(host_vars) next to them, vault files as they are encrypted.
"""

EXAMPLES = r"""
- name: Show which inventory this is
  ansible.builtin.debug:
    msg: "{{ lookup('slipway.stack.inventory_digest') }}"
"""

RETURN = r"""
_raw:
  description: A SHA-256 in hexadecimal.
  type: list
  elements: str
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase


def files_of(source: Path) -> list[Path]:
    """Return the files of an inventory, and of the folders of variables next to them, without keys that a run creates there."""
    top = source if source.is_dir() else source.parent
    found = list(source.iterdir()) if source.is_dir() else [source]
    for folder in (top / "group_vars", top / "host_vars"):
        # Links are followed: environments share files that way.
        found += [Path(place, name) for place, _unused, names in os.walk(folder, followlinks=True) for name in names]
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def digest_of(sources: list[str]) -> str:
    """Return one digest of all files, by their names within the inventory and what they hold."""
    digest = hashlib.sha256()
    for source in sorted(Path(name) for name in sources):
        top = source if source.is_dir() else source.parent
        for path in files_of(source):
            digest.update(f"{path.relative_to(top)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


class LookupModule(LookupBase):  # type: ignore[misc]
    """What Ansible asks for the lookup of this file."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:  # noqa: ARG002
        """Return the digest."""
        return [digest_of([str(source) for source in (variables or {}).get("ansible_inventory_sources") or []])]
