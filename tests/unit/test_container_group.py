# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which containers of a slot are started, stopped or removed together."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.modules.container_group import containers_to_change


class Engine:
    """An engine with containers of two slots, those of green stopped."""

    def containers(self) -> list[dict[str, Any]]:
        return [
            {
                "Id": f"{service}-{slot}",
                "Names": [f"/s-{service}-{slot}-1"],
                "State": "running" if slot == "blue" else "exited",
                "Labels": {"slipway.stack": "s", "slipway.owner": f"app-{slot}", "slipway.service": f"{service}-{slot}-1"},
            }
            for slot in ("blue", "green")
            for service in ("api", "api-v2", "worker")
        ]

    def inspect(self, identity: str) -> dict[str, Any]:
        return {"Id": identity}


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"owner": ["app-blue"], "state": "stopped"}, ["api-blue", "api-v2-blue", "worker-blue"]),
        ({"owner": ["app-blue"], "state": "stopped", "services": ["api"]}, ["api-blue"]),
        ({"owner": ["app-blue"], "state": "stopped", "except_services": ["api"]}, ["api-v2-blue", "worker-blue"]),
        ({"owner": ["app-blue", "app-green"], "state": "started", "services": ["worker"]}, ["worker-green"]),
        ({"owner": ["app-green"], "state": "absent", "services": ["api-v2"]}, ["api-v2-green"]),
    ],
)
def test_services_are_known_by_their_whole_name(options: dict[str, Any], changed: list[str]) -> None:
    """A service's name may begin as another's does."""
    asked = {"stack": "s", "version": "", "names": [], "services": [], "except_services": [], **options}
    assert [item["Id"] for item in containers_to_change(Engine(), asked)] == changed  # type: ignore[arg-type]
