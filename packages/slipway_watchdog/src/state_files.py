# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the files that a pass leaves for the next one and for Prometheus."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Replace a file at once. It need not outlast a crash of the host, as the next pass writes it again."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    os.replace(new, path)
