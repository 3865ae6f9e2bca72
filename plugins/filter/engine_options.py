# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that compare the options of a host's engine."""

from __future__ import annotations

import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.engine_options import reasons, stops_containers


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {"engine_options_reasons": reasons, "engine_options_stop_containers": stops_containers}
