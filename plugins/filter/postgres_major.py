# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about major versions of PostgreSQL. Each has its documentation in a file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.slipway.stack.plugins.plugin_utils import postgres


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "postgres_data_major": postgres.data_major,
            "postgres_major_mistakes": postgres.major_mistakes,
        }
