"""Which tests of the Molecule scenarios run when: every one runs in one lane, and every lane has its turn."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "molecule/shared"))
import slipway_lanes as lanes

TESTS = lanes.tests()


def test_every_test_of_a_scenario_is_run_by_it():
    """A file that no verify step names would never run."""
    files = {file for folder in ("molecule", "tests/e2e", "tests/inputs") for file in (ROOT / folder).rglob("test_*.py")}
    assert {test.file for test in TESTS} == files
    written = {file: len(re.findall(r"^(?:async )?def test_", file.read_text(), flags=re.MULTILINE)) for file in files}
    found = Counter((test.scenario, test.file) for test in TESTS)
    assert all(count == written[file] for (_, file), count in found.items())


def test_main_lane_and_shards_are_all_tests_each_once():
    for test in TESTS:
        for marks in [test.marks, *((mark, *test.marks) for mark in test.sometimes)]:
            chosen = [lane for lane in (lanes.MAIN, *lanes.SHARDS) if lanes.runs(marks, test.scenario, {lane})]
            assert len(chosen) == 1, f"{test.file.name}: {test.name}"
            assert lanes.runs(marks, test.scenario, {lanes.ALL})


def test_every_scenario_has_tests_in_the_main_lane_or_is_one_shard():
    assert set(lanes.scenarios()) - set(lanes.scenarios_with_tests({lanes.MAIN})) == {"product"}


@pytest.mark.parametrize("shard", lanes.SHARDS)
def test_a_shard_has_tests_of_one_scenario(shard: str):
    assert len(lanes.scenarios_with_tests({shard})) == 1


def test_commits_take_turns_with_the_shards():
    assert {lanes.shard_of(number) for number in range(100, 100 + len(lanes.SHARDS))} == set(lanes.SHARDS)
    assert lanes.shard_of_checkout() in lanes.SHARDS


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", {"main"}), ("main", {"main"}), ("all", {"all"}), ("main restore", {"main", "restore"})],
)
def test_lanes_are_named(value: str, expected: set[str]):
    assert lanes.lanes_of(value) == expected


def test_an_unknown_lane_is_refused():
    with pytest.raises(ValueError, match="SLIPWAY_LANE: unknown: nightly; known are main, all, "):
        lanes.lanes_of("main nightly")


def test_marks_are_read_as_pytest_applies_them(tmp_path: Path):
    file = tmp_path / "test_marks.py"
    file.write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.extended('cluster', scenario='cluster')\n"
        "def test_of_its_module(): ...\n"
        "@pytest.mark.extended('restore')\n"
        "def test_of_its_own(): ...\n"
        "@pytest.mark.parametrize('n', [1, pytest.param(2, marks=pytest.mark.extended('default'))])\n"
        "def test_sometimes(n): ...\n"
    )
    plain, own, sometimes = lanes.tests_in("backup", file)
    assert (lanes.lane_of(plain.marks, "backup"), lanes.lane_of(plain.marks, "cluster")) == ("main", "cluster")
    assert lanes.lane_of(own.marks, "cluster") == "restore"
    assert [mark.shard for mark in sometimes.sometimes] == ["default"]


def test_what_molecule_sets_is_known():
    found = lanes.environment_of("backup")
    assert (found["LAB"], found["TOPOLOGY"], found["PYTEST_PLUGINS"]) == ("mol-backup", "one", "slipway_elsewhere")
    assert found["PYTHONPATH"] == str(ROOT / "molecule/shared")
