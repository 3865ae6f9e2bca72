"""The controller dies in the middle of a release, in each of its steps: the next run undoes or finishes what it left."""

from __future__ import annotations

import time
from typing import Any

import pytest
from slipway_release import QUICK, STEPS, Fleet

#: From here on the new version stands, and an interrupted release is finished.
COMMITTED = ("retire", "record")


def killed_in(fleet: Fleet, step: str, version: str) -> None:
    """Begin a release of this version, and kill it in the middle of a step."""
    canary: dict[str, Any] = {"app_canary_weight": 20, "app_canary_seconds": 3} if step == "canary" else {}
    run = fleet.start("deploy", version, **QUICK, **canary)
    run.wait_for(f"release: {step}")
    # A step begins with a line, and then asks the hosts.
    time.sleep(0.4)
    run.kill()


def test_the_same_command_again(fleet: Fleet):
    """Each run is killed in a later step than the one before, so each puts right what that one left, and gets further."""
    before, version = fleet.version, fleet.other()
    for step in STEPS[: STEPS.index("retire")]:
        killed_in(fleet, step, version)
        with fleet.lab.client() as client:
            answers = {client.get("/api/version").status_code for _ in range(10)}
        assert answers == {200}, step
    run = fleet.deploy(version, **QUICK)
    assert (run.report["outcome"], run.report["recovered"], run.report["previous"]) == ("released", "undo", before)
    fleet.check(version, run)


@pytest.mark.parametrize("step", COMMITTED)
def test_the_same_command_again_after_the_new_version_stands(fleet: Fleet, step: str):
    version = fleet.other()
    killed_in(fleet, step, version)
    run = fleet.deploy(version, **QUICK)
    assert (run.report["outcome"], run.report["recovered"]) == ("unchanged", "finish")
    fleet.check(version, run)


@pytest.mark.parametrize("step", STEPS)
def test_a_rollback_instead(fleet: Fleet, step: str):
    """Whoever takes back a release that died wants what served before it, however far it came."""
    before, version = fleet.version, fleet.other()
    killed_in(fleet, step, version)
    run = fleet.rollback(**QUICK)
    assert run.report["recovered"] == ("finish" if step in COMMITTED else "undo")
    fleet.check(before, run)


def test_a_rollback_that_died_is_done_by_the_same_command(fleet: Fleet):
    version = fleet.other()
    fleet.deploy(version, **QUICK)
    previous = fleet.records()[0]["previous"]["version"]
    run = fleet.start("rollback", **QUICK)
    run.wait_for("release: switch")
    time.sleep(0.4)
    run.kill()
    fleet.check(previous, fleet.rollback(**QUICK))
