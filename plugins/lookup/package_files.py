# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup package_files."""

from __future__ import annotations

DOCUMENTATION = r"""
name: package_files
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: The Python files of a program of this collection
description:
  - Returns what a role installs of a program in the folder C(packages), with the files of C(module_utils) that it imports.
options:
  _terms:
    description: Names of packages.
    type: list
    elements: str
    required: true
  on_change:
    description: What a change of a file does to the service that it belongs to, as its declaration takes it.
    type: str
    choices: [none, reload, restart]
    default: none
"""

EXAMPLES = r"""
- name: Show the files of the backup program
  ansible.builtin.debug:
    msg: "{{ lookup('slipway.stack.package_files', 'slipway_backup').keys() }}"
"""

RETURN = r"""
_raw:
  description: For each package, its files by their paths below its folder C(src), each with its C(content) and C(on_change).
  type: list
  elements: dict
"""

import ast
import functools
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "packages"
COLLECTION = "ansible_collections.slipway.stack"


class LookupModule(LookupBase):  # type: ignore[misc]
    """What Ansible asks for the lookup of this file."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, dict[str, str]]]:
        """Return the files of packages."""
        self.set_options(var_options=variables, direct=kwargs)
        on_change = self.get_option("on_change")
        return [{path: {"content": text, "on_change": on_change} for path, text in files(name).items()} for name in terms]


@functools.cache
def files(package: str) -> dict[str, str]:
    """Return the contents of a program's files by path."""
    source = PACKAGES / package / "src"
    found = {str(path.relative_to(source)): path.read_text(encoding="utf-8") for path in sorted(source.rglob("*.py"))}
    if not found:
        raise AnsibleLookupError(
            f"{source} has no Python files; known packages are {', '.join(sorted(p.name for p in PACKAGES.iterdir()))}"
        )
    for text in list(found.values()):
        add_imports(text, found)
    return found


def add_imports(text: str, found: dict[str, str]) -> None:
    """Add the collection's files that a file imports, and what these import, under the paths where Python looks for them."""
    for node in ast.walk(ast.parse(text)):
        module = (isinstance(node, ast.ImportFrom) and node.module) or ""
        if isinstance(node, ast.ImportFrom) and module.startswith(f"{COLLECTION}."):
            for name in [module, *(f"{module}.{item.name}" for item in node.names)]:
                path = f"{name.replace('.', '/')}.py"
                source = ROOT / path.removeprefix(f"{COLLECTION.replace('.', '/')}/")
                if path not in found and source.is_file():
                    found[path] = source.read_text(encoding="utf-8")
                    add_imports(found[path], found)
