# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the end of a container that does one thing is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils import health
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine
from ansible_collections.slipway.stack.plugins.modules.container_end import end, failure_of

LABELS = {"slipway.uid": "999", "slipway.owner": "app-migrate", "slipway.service": "migrate-green", "slipway.migrates": "api"}


class FakeEngine:
    """Reports a container's states one after the other; the last one stays."""

    def __init__(self, *states: dict[str, Any] | None) -> None:
        self.states = list(states)
        self.requests: list[str] = []

    def inspect(self, name: str) -> dict[str, Any] | None:
        assert name == "slipway-migrate-green"
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return None if state is None else {"State": state, "Config": {"Labels": LABELS}}

    def logs(self, _name: str, _lines: int) -> str:
        return "[Errno 30] Read-only file system: '/app/cache'\n"

    def request(self, method: str, path: str, _query: dict[str, Any]) -> None:
        self.requests.append(f"{method} {path}")

    remove = Engine.remove


RUNNING = {"Status": "running"}


@pytest.mark.parametrize(
    ("states", "failure"),
    [
        ([RUNNING, {"Status": "exited", "ExitCode": 0}], ""),
        ([RUNNING, {"Status": "exited", "ExitCode": 3}], "ended with status 3"),
        ([{"Status": "exited", "ExitCode": 137, "OOMKilled": True}], "ended with status 137, killed at its memory limit"),
        ([RUNNING, None], "was removed while it ran"),
        ([{"Status": "created"}, RUNNING], "has not ended within 0.3 s, and was killed"),
    ],
)
def test_the_end_of_a_container_is_judged(states: list[Any], failure: str):
    assert failure_of(FakeEngine(*states), "slipway-migrate-green", 0.3) == failure


def test_a_migration_that_fails_is_explained_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As a service that does not come up is: with the input that fixes it, and a log that outlives the container."""
    monkeypatch.setattr(health, "LOG_FOLDER", str(tmp_path))
    engine = FakeEngine({"Status": "exited", "ExitCode": 1})
    told = end(engine, "slipway-migrate-green", 1, 20)
    assert told.startswith("slipway-migrate-green ended with status 1.\n")
    assert "app_services:\n  api:\n    tmpfs:\n      /app/cache: size=16m,uid=999" in told
    assert str(tmp_path / "slipway-migrate-green.log") in told
    assert engine.requests == ["DELETE /containers/slipway-migrate-green"]
