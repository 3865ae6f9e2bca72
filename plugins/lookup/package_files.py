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
  - Returns what a role installs of a program in the folder C(packages).
options:
  _terms:
    description: Names of packages.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the files of the backup program
  ansible.builtin.debug:
    msg: "{{ lookup('slipway.stack.package_files', 'slipway_backup').keys() }}"
"""

RETURN = r"""
_raw:
  description: For each package, the contents of its files by their paths below its folder C(src).
  type: list
  elements: dict
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

PACKAGES = Path(__file__).resolve().parents[2] / "packages"


class LookupModule(LookupBase):  # type: ignore[misc]
    """What Ansible asks for the lookup of this file."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, str]]:  # noqa: ARG002
        """Return the files of packages."""
        return [self._files(PACKAGES / name / "src") for name in terms]

    @staticmethod
    def _files(source: Path) -> dict[str, str]:
        paths = sorted(source.rglob("*.py"))
        if not paths:
            raise AnsibleLookupError(
                f"{source} has no Python files; known packages are {', '.join(sorted(p.name for p in PACKAGES.iterdir()))}"
            )
        return {str(path.relative_to(source)): path.read_text(encoding="utf-8") for path in paths}
