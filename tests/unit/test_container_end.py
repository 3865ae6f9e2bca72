# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the end of a container that does one thing is judged."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.modules.container_end import failure_of


class FakeEngine:
    """Reports a container's states one after the other; the last one stays."""

    def __init__(self, *states: dict[str, Any] | None) -> None:
        self.states = list(states)

    def inspect(self, name: str) -> dict[str, Any] | None:
        assert name == "slipway-migrate-green"
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return None if state is None else {"State": state}


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
