# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter scram_sha_256."""

from __future__ import annotations

DOCUMENTATION = r"""
name: scram_sha_256
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Turn a password into PostgreSQL's SCRAM-SHA-256 verifier
description:
  - The result is what PostgreSQL keeps in C(pg_authid.rolpassword), and what C(ALTER ROLE … PASSWORD) accepts
    in place of the password, so that the password itself never travels to the server.
  - The keys are those of RFC 5802 with the hash of RFC 7677. Text that is not ASCII is prepared by RFC 4013, and taken as it
    is where that forbids it, as PostgreSQL does.
options:
  _input:
    description: The password.
    type: str
    required: true
  salt:
    description:
      - Any text. The same password with the same text gives the same verifier. The salt is made of its first 16 bytes under SHA-256.
      - Without it the salt is random, and every call gives another verifier.
    type: str
  iterations:
    description: Rounds of PBKDF2.
    type: int
    default: 4096
"""

EXAMPLES = r"""
- name: Give a role its password without showing it to the server
  community.postgresql.postgresql_query:
    query: "ALTER ROLE app PASSWORD '{{ vault_app_password | slipway.stack.scram_sha_256(salt='prod/app') }}'"
  no_log: true
"""

RETURN = r"""
_value:
  description: The verifier, C(SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>), its parts in Base64.
  type: str
"""

import base64
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from collections.abc import Callable

from ansible.errors import AnsibleFilterError

SALT_BYTES = 16
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def _prepared(password: str) -> bytes:
    """Return the password as RFC 4013 prepares it, or its plain UTF-8 where that forbids it."""
    if password.isascii():
        return password.encode()
    mapped = "".join(" " if stringprep.in_table_c12(char) else char for char in password if not stringprep.in_table_b1(char))
    normal = unicodedata.normalize("NFKC", mapped)
    if not normal or any(table(char) for char in normal for table in _PROHIBITED):
        return password.encode()
    right_to_left = [stringprep.in_table_d1(char) for char in normal]
    mixed = any(right_to_left) and (not (right_to_left[0] and right_to_left[-1]) or any(stringprep.in_table_d2(char) for char in normal))
    return password.encode() if mixed else normal.encode()


def scram_sha_256(password: str, salt: str | None = None, iterations: int = 4096) -> str:
    """Return PostgreSQL's verifier of a password.

    Args:
        password: The password; must not be empty.
        salt: Text that the salt is derived from; random when None.
        iterations: Rounds of PBKDF2, at least 4096 (RFC 7677, section 4).

    Raises:
        AnsibleFilterError: The password is not a string or empty, or there are too few rounds. The message contains no password.
    """
    if not isinstance(password, str) or not password:
        raise AnsibleFilterError("scram_sha_256: the password must be a string that is not empty")
    if iterations < 4096:
        raise AnsibleFilterError(f"scram_sha_256 needs at least 4096 iterations (RFC 7677), not {iterations}")
    raw_salt = secrets.token_bytes(SALT_BYTES) if salt is None else hashlib.sha256(salt.encode()).digest()[:SALT_BYTES]
    return verifier(password, raw_salt, iterations)


def verifier(password: str, raw_salt: bytes, iterations: int) -> str:
    """Return the verifier of a password under the salt itself."""
    salted = hashlib.pbkdf2_hmac("sha256", _prepared(password), raw_salt, iterations)
    client_key = hmac.new(salted, b"Client Key", "sha256").digest()
    server_key = hmac.new(salted, b"Server Key", "sha256").digest()
    parts = (raw_salt, hashlib.sha256(client_key).digest(), server_key)
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in parts)
    return f"SCRAM-SHA-256${iterations}:{salt_text}${stored_text}:{server_text}"


class FilterModule:
    """What Ansible asks for the filters of this file."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filters by name."""
        return {"scram_sha_256": scram_sha_256}
