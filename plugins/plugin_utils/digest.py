# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's key for digests of files, among them secrets.

A plain digest of a password in a log could be guessed at offline. Hosts therefore digest their files under a key that is random,
stays on the controller, and is never printed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile


def digest_key(folder: str) -> str:
    """Return the key kept in ``folder``, made at its first use.

    Args:
        folder: a folder of the user who runs Ansible, such as Ansible's home.
    """
    path = os.path.join(folder, "slipway_digest_key")
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        pass
    os.makedirs(folder, mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    try:
        # A link fails where the name exists, so of several forks that get here at once one wins and all read its key.
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
    with open(path, encoding="ascii") as file:
        return file.read()


def keyed_digest(key: str, content: str) -> str:
    """Return the digest that ``host_state`` reports for a file with this content."""
    return hmac.new(key.encode(), content.encode(), hashlib.sha256).hexdigest()
