"""The commands of README.md and docs/ that are marked as safe do what a reader expects of them: they end well, and say something."""

from __future__ import annotations

import subprocess
import sys

import pytest
from slipway_lab import BIN, ROOT, Lab, operators_environment

sys.path.insert(0, str(ROOT / "tests"))
from docs_commands import Command, argv_in_lab, commands

SAFE = [item for item in commands() if "safe" in item.kind.split()]


@pytest.mark.parametrize("item", SAFE, ids=[f"{item.file.name}-{item.line}" for item in SAFE])
def test_documented_command_works(lab: Lab, item: Command):
    settings = operators_environment()
    done = subprocess.run(
        argv_in_lab(item, lab.name, lab.balancer.name, lab.https_port),
        cwd=ROOT,
        env={**settings, "PATH": f"{BIN}:{settings['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{item.command}\nended with {done.returncode}:\n{done.stdout[-3000:]}"
    # A log may be empty.
    assert done.stdout.strip() or "docker logs" in item.command, f"{item.command} says nothing"
