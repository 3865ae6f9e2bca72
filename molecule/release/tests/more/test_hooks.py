"""The user's own tasks around a release: when they run, what they know, and what their failure means."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from slipway_lab import Run
from slipway_release import QUICK, Fleet

pytestmark = pytest.mark.extended("release-ways")

RELEASE = ("before_release", "before_migrate", "after_migrate", "after_release")
SAY = [{"name": "Say", "ansible.builtin.debug": {"msg": "own {{ slipway_hook | to_json | b64encode }} end"}, "run_once": True}]
FAIL = [{"name": "Try", "ansible.builtin.fail": {"msg": "not now"}, "run_once": True}]


@pytest.fixture(autouse=True)
def small(fleet: Fleet) -> None:
    """Begin with the small product, and with one to go back to."""
    fleet.begin_small()


def hooks(folder: Path, *names: str, fails: str = "") -> dict[str, Any]:
    """Return inputs with these hooks, one of which fails."""
    for kind, tasks in (("say", SAY), ("fail", FAIL)):
        (folder / f"{kind}.yml").write_text(json.dumps(tasks))
    return {**QUICK, "slipway_hooks": {name: str(folder / ("fail.yml" if name == fails else "say.yml")) for name in names}}


def ran(run: Run) -> list[dict[str, Any]]:
    """Return what each hook that ran has known, in their order."""
    return [json.loads(base64.b64decode(text)) for text in re.findall(r"own\s+(\S+)\s+end", run.output)]


def test_hooks_run_around_a_release_and_know_it(fleet: Fleet, tmp_path: Path):
    before, wanted = fleet.version, fleet.other()
    run = fleet.deploy(wanted, **hooks(tmp_path, *RELEASE))
    fleet.check(wanted, run)
    known = {"version": wanted, "previous": before, "rollback": False}
    assert ran(run) == [{"name": name, **known, "outcome": "released" if name == "after_release" else ""} for name in RELEASE]
    # A rollback migrates nothing.
    run = fleet.rollback(**hooks(tmp_path, *RELEASE))
    fleet.check(before, run)
    assert [hook["name"] for hook in ran(run)] == ["before_release", "after_release"]


def test_a_run_with_nothing_to_do_runs_none(fleet: Fleet, tmp_path: Path):
    run = fleet.deploy(fleet.version, **hooks(tmp_path, *RELEASE))
    assert (run.report["outcome"], ran(run)) == ("unchanged", [])


@pytest.mark.parametrize("playbook", ["deploy", "site"])
def test_a_hook_before_a_release_that_fails_refuses_it(fleet: Fleet, tmp_path: Path, playbook: str):
    before, records = fleet.version, fleet.records()
    run = fleet.refused(fleet.other(), playbook, **hooks(tmp_path, *RELEASE, fails="before_release"))
    assert "nothing was touched" in run.output
    assert (run.report["outcome"], run.report["changed"], ran(run)) == ("refused", [], [])
    assert fleet.records() == records
    fleet.check(before, run)


def test_a_hook_before_a_migration_that_fails_rolls_the_release_back(fleet: Fleet, tmp_path: Path):
    before = fleet.version
    run = fleet.refused(fleet.other(), **hooks(tmp_path, *RELEASE, fails="before_migrate"))
    assert "The database was not migrated" in run.output
    assert [(hook["name"], hook["outcome"]) for hook in ran(run)] == [("before_release", ""), ("after_release", "rolled_back")]
    assert run.report["outcome"] == "rolled_back"
    fleet.check(before, run)


def test_after_a_release_a_hook_that_fails_changes_nothing(fleet: Fleet, tmp_path: Path):
    wanted = fleet.other()
    run = fleet.refused(wanted, **hooks(tmp_path, *RELEASE, fails="after_release"))
    assert "The release itself stays as it is" in run.output
    assert (run.report["result"], run.report["outcome"]) == ("failed", "released")
    fleet.check(wanted, run)
