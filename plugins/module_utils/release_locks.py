# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may take a fleet's release lock, as the host decides it, and as a plan says it before."""

from __future__ import annotations

import typing as t


def is_free(lock: t.Mapping[str, t.Any], runs: t.Collection[str], now: float) -> bool:
    """Return whether a lock can be taken.

    Args:
        lock: The lock.
        runs: The run that asks, and one that is known to be gone.
        now: The clock of the lock's host, in seconds since 1970.
    """
    held_by = lock.get("run", "")
    return not held_by or held_by in runs or lock.get("expires", 0) < now
