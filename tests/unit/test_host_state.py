# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What host_state takes for the stack's, and what for somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.slipway.stack.plugins.modules.host_state import of_the_stack


@pytest.mark.parametrize(
    ("name", "labels", "ours"),
    [
        ("anything", {"slipway.stack": "slipway"}, True),
        ("slipway-redis", {"slipway.stack": "another"}, False),
        # Made anew by hand, where Redis was deployed before.
        ("slipway-redis", {}, True),
        ("slipway-redis", {"maintainer": "somebody"}, True),
        # A name of ours on a host that never had the service, and names that only look alike.
        ("slipway-chroma", {}, False),
        ("redis", {}, False),
        ("slipway-", {}, False),
        ("another-redis", {}, False),
    ],
)
def test_a_container_is_ours_by_its_label_or_by_the_name_of_what_ran_here(tmp_path: Path, name: str, labels: dict[str, str], ours: bool):
    (tmp_path / "redis").mkdir()
    assert of_the_stack(name, labels, "slipway", str(tmp_path)) is ours
