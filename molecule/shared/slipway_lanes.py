"""Which tests of the Molecule scenarios run: the main lane with every commit, and one of the shards of the rest, which take turns.

A test is of the main lane unless it is marked `@pytest.mark.extended("<shard>")`; with `scenario="<name>"` the mark holds in that scenario
only. SLIPWAY_LANE says what runs: `main` (the default), names of shards, several with blanks between them, or `all`.

A pytest plugin that slipway_lab loads, and a program: `slipway_lanes.py shard` prints the shard of the commit that is checked out,
`slipway_lanes.py scenarios` those scenarios that have a test to run, `slipway_lanes.py steps <scenario>` the folders of each verify step,
and `slipway_lanes.py environment <scenario>` what Molecule sets for them.
"""

from __future__ import annotations

import ast
import os
import shlex
import string
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

MOLECULE = Path(__file__).resolve().parents[1]
MAIN, ALL = "main", "all"
#: Each in the time that CI has left after the main lane. One shard is of one scenario, whose lab is up by then.
SHARDS = (
    "release-faults",
    "release-kills",
    "release-recovery",
    "release-ways",
    "release-jobs",
    "release-load",
    "backup-runs",
    "backup-losses",
    "drill",
    "restore",
    "restore-again",
    "restore-hosts",
    "cluster",
    "mesh",
    "mesh-rotation",
    "images",
    "default",
    "monitoring",
    "plan",
    "managers",
    "tls",
    "walkthrough",
    "gallery",
    "adopt",
    "release-rotation",
    "release-rotation-keys",
    "release-rotation-undo",
)
MARK = "extended"


@dataclass(frozen=True)
class Mark:
    """What a mark says: the shard, and the scenario that it holds in ("" in all of them)."""

    shard: str
    scenario: str = ""


@dataclass(frozen=True)
class Test:
    """A test function of a scenario; `sometimes` are marks of some of its parameters."""

    scenario: str
    file: Path
    name: str
    marks: tuple[Mark, ...]
    sometimes: tuple[Mark, ...] = ()


def lanes_of(value: str) -> set[str]:
    """Return the lanes that SLIPWAY_LANE asks for.

    Raises:
        ValueError: one of them is unknown.
    """
    lanes = set(value.split()) or {MAIN}
    unknown = lanes - {MAIN, ALL, *SHARDS}
    if unknown:
        raise ValueError(f"SLIPWAY_LANE: unknown: {', '.join(sorted(unknown))}; known are {MAIN}, {ALL}, {', '.join(SHARDS)}")
    return lanes


def lane_of(marks: tuple[Mark, ...], scenario: str) -> str:
    """Return the one lane of a test with these marks; the innermost mark counts, and comes first."""
    return next((mark.shard for mark in marks if mark.scenario in {"", scenario}), MAIN)


def runs(marks: tuple[Mark, ...], scenario: str, lanes: set[str]) -> bool:
    return ALL in lanes or lane_of(marks, scenario) in lanes


def shard_of(number: int) -> str:
    """Return the shard of a commit that has so many before it: the next commit takes the next one."""
    return SHARDS[number % len(SHARDS)]


def shard_of_checkout() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=MOLECULE, capture_output=True, text=True, check=True).stdout.strip()

    # A shallow clone has always the same number of commits.
    shallow = git("rev-parse", "--is-shallow-repository") == "true"
    return shard_of(int(git("rev-parse", "HEAD")[:8], 16) if shallow else int(git("rev-list", "--count", "HEAD")))


# What the files say, without running them: a lab need not be up.


def _marks(node: ast.AST) -> Iterator[Mark]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == MARK:
            (shard,) = (ast.literal_eval(argument) for argument in call.args)
            yield Mark(shard, **{str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords})


def tests_in(scenario: str, file: Path) -> Iterator[Test]:
    """Yield the test functions of a file."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    assigned = [node for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"]
    module = tuple(mark for node in assigned for mark in _marks(node))
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            own: list[Mark] = []
            sometimes: list[Mark] = []
            for decorator in node.decorator_list:
                (sometimes if "pytest.param(" in ast.unparse(decorator) else own).extend(_marks(decorator))
            yield Test(scenario, file, node.name, (*own, *module), tuple(sometimes))


def settings_of(scenario: str) -> dict[str, Any]:
    return dict(yaml.safe_load((MOLECULE / scenario / "molecule.yml").read_text(encoding="utf-8")))


def steps_of(scenario: str) -> list[list[Path]]:
    """Return the folders of each verify step of a scenario, in its order."""
    steps = [str(step).split() for step in settings_of(scenario)["scenario"]["test_sequence"]]
    return [[(MOLECULE / scenario / path).resolve() for path in step[1:]] for step in steps if step[0] == "verify"]


def environment_of(scenario: str) -> dict[str, str]:
    """Return the variables that Molecule sets for the tests of a scenario."""
    shared = yaml.safe_load((MOLECULE.parent / ".config/molecule/config.yml").read_text(encoding="utf-8"))
    found = {"MOLECULE_SCENARIO_NAME": scenario, "MOLECULE_PROJECT_DIRECTORY": str(MOLECULE.parent)}
    for settings in (shared, settings_of(scenario)):
        for part in ("provisioner", "verifier"):
            found |= {
                name: string.Template(str(value)).safe_substitute(found) for name, value in settings.get(part, {}).get("env", {}).items()
            }
    return found


def scenarios() -> list[str]:
    return sorted(file.parent.name for file in MOLECULE.glob("*/molecule.yml"))


def tests() -> list[Test]:
    """Return all tests of all scenarios."""
    return [
        test
        for scenario in scenarios()
        for step in steps_of(scenario)
        for folder in step
        for file in sorted(folder.rglob("test_*.py"))
        for test in tests_in(scenario, file)
    ]


def scenarios_with_tests(lanes: set[str]) -> list[str]:
    """Return the scenarios that have a test in one of these lanes."""
    found = {
        test.scenario
        for test in tests()
        if runs(test.marks, test.scenario, lanes) or any(runs((mark,), test.scenario, lanes) for mark in test.sometimes)
    }
    return sorted(found)


# The plugin

ALL_LEFT = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}(shard, scenario=''): not of the main lane, but of this shard")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lanes = lanes_of(os.environ.get("SLIPWAY_LANE", MAIN))
    scenario = os.environ.get("MOLECULE_SCENARIO_NAME", "")
    kept, left = [], []
    for item in items:
        marks = tuple(Mark(*mark.args, **mark.kwargs) for mark in item.iter_markers(MARK))
        unknown = {mark.shard for mark in marks} - set(SHARDS)
        if unknown:
            raise pytest.UsageError(f"{item.nodeid}: no shard is named {', '.join(unknown)}")
        (kept if runs(marks, scenario, lanes) else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept
    config.stash[ALL_LEFT] = bool(left) and not kept


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A step of a scenario all of whose tests are of other lanes has nothing to do. One that has no tests at all has failed."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.stash.get(ALL_LEFT, False):
        session.exitstatus = pytest.ExitCode.OK


def main(arguments: list[str]) -> int:
    """Print what a script asks for."""
    try:
        lanes = lanes_of(os.environ.get("SLIPWAY_LANE", MAIN))
    except ValueError as error:
        sys.exit(str(error))
    match arguments:
        case ["shard"]:
            print(shard_of_checkout())
        case ["shards"]:
            print("\n".join(SHARDS))
        case ["scenarios"]:
            print("\n".join(scenarios_with_tests(lanes)))
        case ["steps", scenario]:
            print("\n".join(shlex.join(map(str, step)) for step in steps_of(scenario)))
        case ["environment", scenario]:
            print("\n".join(f"{name}={value}" for name, value in environment_of(scenario).items()))
        case _:
            sys.exit("say one of: shard, shards, scenarios, steps SCENARIO, environment SCENARIO")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
