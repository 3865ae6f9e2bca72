"""Inputs against a lab that is up, which LAB names: see run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "molecule/shared")]

from inputs_generator import Generator  # noqa: E402 - found by the path above
from inputs_judge import Case, Judge  # noqa: E402

#: In the main lane, half of them of cases.yml and half drawn; in the lane of all tests, all of cases.yml and this many drawn.
MAIN, ALL = 40, 300


def wanted() -> list[Case]:
    """Return the cases of this run.

    SLIPWAY_INPUTS is how many, in all, or by default what SLIPWAY_LANE asks for; SLIPWAY_INPUTS_SEED is what the drawing begins with, by
    default the same each time; SLIPWAY_INPUTS_FROM is `cases` or `drawn` for one kind alone.
    """
    listed = [Case.of(item) for item in yaml.safe_load((HERE / "cases.yml").read_text(encoding="utf-8"))]
    seed = int(os.environ.get("SLIPWAY_INPUTS_SEED", "11"))
    origin = os.environ.get("SLIPWAY_INPUTS_FROM", "")
    everything = os.environ.get("SLIPWAY_LANE", "main") == "all"
    count = int(os.environ.get("SLIPWAY_INPUTS") or (len(listed) + ALL if everything else MAIN))
    if origin == "cases":
        return sample(listed, count, seed)
    drawn = count if origin == "drawn" else max(count - len(listed), (count + 1) // 2)
    return sample(listed, count - drawn, seed) + list(Generator(seed).cases(drawn))


def sample(cases: list[Case], count: int, seed: int) -> list[Case]:
    """Return this many of the cases, another part of them with another seed, in their own order."""
    if count >= len(cases):
        return cases
    step = len(cases) / count if count else 1
    return [cases[(int(number * step) + seed) % len(cases)] for number in range(count)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        found = wanted()
        metafunc.parametrize("case", found, ids=[case.id.encode("ascii", "backslashreplace").decode() for case in found])


def is_up(lab: str) -> bool:
    """Return whether the hosts of a lab run, and an inventory reaches them."""
    found = subprocess.run(
        ["docker", "ps", "--quiet", "--filter", f"label=slipway.lab.name={lab}"], capture_output=True, text=True, check=False
    )
    return bool(found.stdout.strip()) and (ROOT / "inventories" / lab / "hosts.yml").exists()


@pytest.fixture(scope="session")
def judge() -> Iterator[Judge]:
    name = os.environ.get("LAB", "")
    if not name or not is_up(name):
        pytest.skip(f"no lab is up: LAB names '{name}'")
    from slipway_lab import Lab  # noqa: PLC0415 - it is only there with a lab

    made = Judge(Lab(name))
    yield made
    made.restore()
    write(made.summary())


def write(summary: dict[str, Any]) -> None:
    """Write the numbers of a run, and print the short ones."""
    path = ROOT / "reports/inputs-latest.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(f"\ninputs: {json.dumps({name: value for name, value in summary.items() if name != 'wrong'})}")
