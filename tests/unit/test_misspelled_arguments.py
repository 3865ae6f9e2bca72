# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A misspelled variable given with -e stops a playbook that would do something else without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("playbook", "given", "said"),
    [
        (
            "restore",
            ["point=latest", "store=postgres", "restore_confirm=slipway"],
            "store is not a variable of Slipway (did you mean stores?)",
        ),
        ("restore", ["target_tme=end"], "(did you mean target_time?)"),
        ("drill", ["piont=20260101T000000Z"], "(did you mean point?)"),
        ("backup", ["backup_start_ower=slipway"], "(did you mean backup_start_over?)"),
        (
            "drill",
            ["backup_drill_cheks=[]"],
            "backup_drill_cheks is not a variable of Slipway (did you mean backup_drill_checks?); correct the",
        ),
        ("restore", ["point=latest", "slipway_adress=x"], "slipway_adress is not a variable of Slipway (did you mean slipway_address?)"),
    ],
)
def test_a_misspelled_variable_is_refused(playbook: str, given: list[str], said: str, tmp_path: Path):
    """Before any host is asked: the host of this inventory cannot be."""
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(
        "---\nbackup:\n  vars:\n    slipway_secrets: []\n  hosts:\n    host.invalid:\n      slipway_address: 192.0.2.1\n", encoding="utf-8"
    )
    command = [str(Path(sys.executable).parent / "ansible-playbook"), f"playbooks/{playbook}.yml", "-i", str(inventory)]
    run = subprocess.run(
        command + [part for item in given for part in ("-e", item)],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    told = " ".join((run.stdout + run.stderr).split())
    assert run.returncode != 0, told
    assert said in told, told
    assert "nothing was touched" in told
    assert "unreachable=0" in told
