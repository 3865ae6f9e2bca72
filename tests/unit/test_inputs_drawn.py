"""The cases that tests/inputs gives to a lab: that they are well formed, and that a seed draws the same ones each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

INPUTS = Path(__file__).resolve().parents[1] / "inputs"
PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"


@pytest.fixture(scope="module")
def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((INPUTS / "cases.yml").read_text(encoding="utf-8"))
    return found


def test_listed_inputs_are_well_formed(listed: list[dict[str, Any]]):
    names = [case["id"] for case in listed]
    assert len(set(names)) == len(names)
    for case in listed:
        assert (PLAYBOOKS / f"{case.get('playbook', 'site')}.yml").exists(), case
        assert case["expect"] in {"refused", "accepted", "either"}, case
        # What a message must say: the name of a variable, or what the case says itself.
        assert case["expect"] != "refused" or {"variables", "inventory", "says"} & set(case), case
        assert set(case) & {"variables", "inventory", "files", "edits", "arguments"}, case


def test_destroy_is_only_tried_as_a_dry_run(listed: list[dict[str, Any]]):
    assert all(case.get("dry") for case in listed if case.get("playbook") == "destroy")


def test_a_seed_draws_the_same_inputs_each_time():
    program = "import inputs_generator as g; print([(c.id, c.expect) for c in g.Generator({}).cases(60)])"
    path = f"import sys; sys.path[:0] = {[str(INPUTS), str(PLAYBOOKS.parent / 'molecule/shared')]!r}; "

    def drawn(seed: int) -> str:
        done = subprocess.run([sys.executable, "-c", path + program.format(seed)], capture_output=True, text=True, check=True)
        return done.stdout

    first = drawn(3)
    assert drawn(3) == first
    assert drawn(4) != first
    assert "'refused'" in first
    assert "'either'" in first
