# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter file_changed."""

from __future__ import annotations

DOCUMENTATION = r"""
name: file_changed
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Whether a file of a host would get another content
description:
  - Compares digests under the key of this controller, so that it works for secrets, whose content is never read.
positional: path, content
options:
  _input:
    description: Files of the host, as M(slipway.stack.host_state) lists them.
    type: dict
    required: true
  path:
    description: Path of the file.
    type: str
    required: true
  content:
    description: What is to be in it.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show whether the password differs from the one on the host
  ansible.builtin.debug:
    msg: "{{ state.files | slipway.stack.file_changed('/etc/slipway/shop/backup/secrets/offsite_password', password) }}"
"""

RETURN = r"""
_value:
  description: Whether the file is there with another content; false where there is none.
  type: bool
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.slipway.stack.plugins.plugin_utils.digest import digest_key, keyed_digest
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import ansible_home


def file_changed(files: Mapping[str, Mapping[str, Any]], path: str, content: str) -> bool:
    """Return whether a file of a host is there and has another content.

    Args:
        files: the host's files, as ``host_state`` lists them.
        path: of the file.
        content: what is to be in it.
    """
    return path in files and files[path].get("digest") != keyed_digest(digest_key(str(ansible_home())), str(content))


class FilterModule:
    """What Ansible asks for the filters of this file."""

    def filters(self) -> dict[str, Callable[..., bool]]:
        """Return the filters by name."""
        return {"file_changed": file_changed}
