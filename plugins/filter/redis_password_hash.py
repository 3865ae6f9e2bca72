# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter redis_password_hash."""

from __future__ import annotations

DOCUMENTATION = r"""
name: redis_password_hash
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Turn a password into the form that a Redis ACL file takes
description:
  - Redis keeps C(#) and the SHA-256 of a password in its ACL file, see U(https://redis.io/docs/latest/commands/acl-setuser/).
  - The hash has no salt, so it keeps a password secret only if that is long and random. C(ACL GETUSER) prints the same without C(#).
options:
  _input:
    description: The password.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show a line of an ACL file
  ansible.builtin.debug:
    msg: "user app on {{ 'secret' | slipway.stack.redis_password_hash }} ~* +@all -@admin"
"""

RETURN = r"""
_value:
  description: C(#) and 64 hexadecimal digits.
  type: str
"""

import hashlib
from collections.abc import Callable

from ansible.errors import AnsibleFilterError


def redis_password_hash(password: str) -> str:
    """Return '#' and the SHA-256 of a password in hexadecimal.

    Raises:
        AnsibleFilterError: The password is not a string, or empty.
    """
    if not isinstance(password, str) or not password:
        raise AnsibleFilterError("redis_password_hash: the password must be a string that is not empty")
    return "#" + hashlib.sha256(password.encode()).hexdigest()


class FilterModule:
    """What Ansible asks for the filters of this file."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filters by name."""
        return {"redis_password_hash": redis_password_hash}
