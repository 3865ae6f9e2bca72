# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which containers of a slot are started, stopped or removed together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils import engine as client
from ansible_collections.slipway.stack.plugins.modules.container_group import act, containers_to_change, journaled, write_journal


class Engine:
    """An engine with containers of two slots, those of green stopped."""

    def containers(self) -> list[dict[str, Any]]:
        return [
            {
                "Id": f"{service}-{slot}",
                "Names": [f"/s-{service}-{slot}-1"],
                "State": "running" if slot == "blue" else "exited",
                "Labels": {"slipway.stack": "s", "slipway.owner": f"app-{slot}", "slipway.service": f"{service}-{slot}-1"},
                "Mounts": [{"Name": "uploads", "RW": service == "worker"}, {"Type": "bind", "RW": True}],
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
        # As where a product has no service of the kind that is meant.
        ({"owner": ["app-green"], "state": "started", "services": []}, []),
        ({"owner": ["app-blue"], "state": "stopped", "names": []}, []),
        ({"owner": ["app-blue"], "state": "stopped", "writes_to": ["uploads"]}, ["worker-blue"]),
        ({"owner": ["app-blue"], "state": "stopped", "writes_to": ["other"]}, []),
    ],
)
def test_services_are_known_by_their_whole_name(options: dict[str, Any], changed: list[str]) -> None:
    """A service's name may begin as another's does."""
    asked = {"stack": "s", "version": "", "names": None, "services": None, "except_services": [], "cpu_shares": 0}
    asked |= {"writes_to": None, **options}
    assert [item["Id"] for item in containers_to_change(Engine(), asked)] == changed  # type: ignore[arg-type]


def test_what_an_interrupted_run_has_stopped_is_still_known_to_the_next(tmp_path: Path):
    options = {"journal": str(tmp_path / "restore/stopped"), "journal_of": "blue 1.0.0"}
    write_journal(options, ["s-api-blue-1", "s-page-green-1"])
    # It finds the rest, or none.
    write_journal(options, [])
    assert journaled(options) == ["s-api-blue-1", "s-page-green-1"]
    assert (tmp_path / "restore/stopped").stat().st_mode & 0o777 == 0o600


def test_containers_of_a_release_before_are_not_started_again(tmp_path: Path):
    options = {"journal": str(tmp_path / "stopped"), "journal_of": "blue 1.0.0"}
    write_journal(options, ["s-api-blue-1"])
    later = {**options, "journal_of": "green 1.1.0"}
    assert journaled(later) is None
    write_journal(later, ["s-api-green-1"])
    assert journaled(later) == ["s-api-green-1"]


class Weighing(Engine):
    """An engine whose containers of slot blue have been started with a smaller weight, but for the worker."""

    def __init__(self) -> None:
        self.requests: list[tuple[Any, ...]] = []

    def inspect(self, identity: str) -> dict[str, Any]:
        shares = 128 if identity in {"api-blue", "api-v2-blue"} else 0
        status = "running" if identity.endswith("blue") else "exited"
        return {"Id": identity, "State": {"Status": status}, "HostConfig": {"CpuShares": shares}}

    def request(self, method: str, path: str, **more: Any) -> bytes:
        self.requests.append((method, path, more.get("body")))
        return b""


@pytest.mark.parametrize(
    ("slot", "cpu_shares", "requests"),
    [
        ("blue", 1024, [("POST", f"/containers/{name}-blue/update", {"CpuShares": 1024}) for name in ("api", "api-v2")]),
        ("blue", 0, []),
        (
            "green",
            128,
            [
                request
                for name in ("api", "api-v2", "worker")
                for request in (
                    ("POST", f"/containers/{name}-green/update", {"CpuShares": 128}),
                    ("POST", f"/containers/{name}-green/start", None),
                )
            ],
        ),
    ],
)
def test_a_container_has_its_weight_before_it_starts(slot: str, cpu_shares: int, requests: list[tuple[Any, ...]]):
    engine = Weighing()
    asked = {"stack": "s", "version": "", "names": None, "services": None, "except_services": [], "owner": [f"app-{slot}"]}
    asked |= {"writes_to": None}
    for item in containers_to_change(engine, {**asked, "state": "started", "cpu_shares": cpu_shares}):  # type: ignore[arg-type]
        act(engine, item, "started", cpu_shares)  # type: ignore[arg-type]
    assert engine.requests == requests


class Removing(client.Engine):
    """An engine that refuses to remove a container, which is gone after so many looks."""

    def __init__(self, status: int, looks: int) -> None:
        super().__init__()
        self.status, self.looks = status, looks

    def request(self, method: str, *_rest: Any, **_more: Any) -> bytes:
        if method == "DELETE":
            raise client.EngineError("removal of container 0 is already in progress", self.status)
        return b""

    def inspect(self, container: str) -> dict[str, Any] | None:
        self.looks -= 1
        return {"Id": container} if self.looks >= 0 else None


@pytest.mark.parametrize(("status", "looks"), [(409, 3), (409, 0), (404, 0), (500, 0)])
def test_a_container_that_the_engine_removes_already_is_removed(status: int, looks: int):
    """A copy of a drill goes by itself when it is stopped."""
    act(Removing(status, looks), {"Id": "0", "Config": {}}, "absent")


@pytest.mark.parametrize(("status", "timeout"), [(500, 30.0), (409, 0.0)])
def test_a_container_that_stays_is_an_error(status: int, timeout: float):
    with pytest.raises(client.EngineError, match="already in progress"):
        Removing(status, 10**6).remove("0", timeout=timeout)
