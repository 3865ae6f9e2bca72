# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name a service's configuration after its content, so that a host can check whether a folder still holds what was written."""

from __future__ import annotations

import hashlib
import json

LENGTH = 12


def revision_of_files(contents: dict[str, str]) -> str:
    """Return the name of the folder that holds these files, by their paths in it: a hexadecimal digest."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:LENGTH]
