# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is deleted: exact names that were read, below their own folder, and never what a link or a mount leads to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils import removal
from ansible_collections.slipway.stack.plugins.module_utils.removal import RemovalError
from conftest import ROOT

NAMES = [
    "",
    ".",
    "..",
    "../etc",
    "/etc",
    "a/b",
    "shop/",
    "-x",
    "Shop",
    "a b",
    "shop\n",
    "*",
    "${HOME}",
    None,
    7,
    True,
    ["shop"],
    {},
    "x" * 42,
]


def stack_files(top: Path, stack: Any, *, check: bool = False) -> dict[str, Any]:
    """Run the module stack_files as Ansible does, below a folder that stands for /etc."""
    folders = {"root": str(top / "slipway"), "units": str(top / "systemd"), "logrotate": str(top / "logrotate.d")}
    arguments = {"ANSIBLE_MODULE_ARGS": {"stack": stack, "_ansible_check_mode": check, **folders}}
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from ansible.module_utils import basic;"
        "basic._ANSIBLE_ARGS = sys.argv[2].encode(); basic._ANSIBLE_PROFILE = 'legacy';"
        "from ansible_collections.slipway.stack.plugins.modules import stack_files; stack_files.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "collections"), json.dumps(arguments)], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A folder like /etc, with two stacks and things of others."""
    top = tmp_path / "etc"
    for name in (
        "slipway/shop/redis/config/current.conf",
        "slipway/shop/release/state.json",
        "slipway/shop-2/redis/secrets/password",
        "slipway/redis/x",
        "systemd/slipway-shop-backup.timer",
        "systemd/slipway-shop-firewall.service",
        "systemd/slipway-shop-job.a-b.timer",
        "systemd/slipway-shop-jobs.service",
        "systemd/slipway-shop-watchdog.timer",
        "systemd/slipway-shop-2-backup.timer",
        "systemd/slipway-shop-2-job.a-b.timer",
        "systemd/slipway-shopXbackup.timer",
        "systemd/sshd.service",
        "logrotate.d/shop-nginx",
        "logrotate.d/shop-2-nginx",
        "passwd",
    ):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept")
    return top


def everything(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir()}


def test_a_stack_goes_and_its_neighbours_stay(etc: Path) -> None:
    before = everything(etc)
    looked = stack_files(etc, "shop", check=True)
    assert looked["changed"]
    assert everything(etc) == before
    gone = stack_files(etc, "shop")
    assert gone["removed"] == looked["removed"]
    names = ("backup.timer", "firewall.service", "job.a-b.timer", "jobs.service", "watchdog.timer")
    units = [f"slipway-shop-{name}" for name in names]
    assert gone["units"] == units
    files = {name for name in before if name.startswith("slipway/shop/")}
    assert before - everything(etc) == files | {f"systemd/{unit}" for unit in units} | {"logrotate.d/shop-nginx"}
    assert stack_files(etc, "shop") == {**gone, "changed": False, "removed": [], "units": []}


UNITS = sorted(path for kind in ("service", "timer") for path in ROOT.glob(f"roles/*/templates/*.{kind}.j2"))


@pytest.mark.parametrize("template", UNITS, ids=lambda path: path.name)
def test_each_unit_that_a_role_writes_goes_with_the_stack(template: Path, tmp_path: Path) -> None:
    """A timer that is left would go on to call a program that is gone."""
    kind, suffix, _j2 = template.name.split(".")
    unit = f"slipway-shop-{kind}{'.mail-digest' if kind == 'job' else ''}.{suffix}"
    (tmp_path / unit).touch()
    assert removal.stack_units("shop", str(tmp_path)) == [unit]
    assert removal.stack_units("sho", str(tmp_path)) == []


def test_a_role_that_writes_units_names_their_templates_after_them() -> None:
    """As the test above takes the names from there."""
    writes = re.compile(r"/etc/systemd/system/|slipway\.stack\.unit_files")
    written = {path.parts[-3] for path in ROOT.glob("roles/*/*/*") if path.is_file() and writes.search(path.read_text())}
    assert written - {"container_service"} == {path.parts[-3] for path in UNITS}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_elsewhere_deletes_nothing(etc: Path, name: Any) -> None:
    before = everything(etc)
    assert removal.stack_problem(name)
    answer = stack_files(etc, name)
    # A number is text for a module, and then the name of a stack that is not there.
    assert answer.get("failed") or not answer["removed"]
    assert everything(etc) == before


def test_a_link_in_the_place_of_the_folder_is_not_followed(etc: Path, tmp_path: Path) -> None:
    """Its target may be anything, and a link that is removed alone would leave the secrets."""
    elsewhere = tmp_path / "elsewhere"
    (etc / "slipway/shop").rename(elsewhere)
    (etc / "slipway/shop").symlink_to(elsewhere)
    for check in (True, False):
        answer = stack_files(etc, "shop", check=check)
        assert answer["failed"]
        assert str(elsewhere) in answer["msg"]
    assert (elsewhere / "release/state.json").exists()
    assert (etc / "systemd/slipway-shop-backup.timer").exists()


def test_links_inside_go_and_what_they_lead_to_stays(etc: Path) -> None:
    (etc / "slipway/shop/up").symlink_to("../..")
    (etc / "slipway/shop/file").symlink_to(etc / "passwd")
    (etc / "systemd/slipway-shop-drill.timer").symlink_to(etc / "passwd")
    assert stack_files(etc, "shop")["failed"]
    (etc / "systemd/slipway-shop-drill.timer").unlink()
    assert stack_files(etc, "shop")["changed"]
    assert (etc / "passwd").read_text() == "kept"
    assert not (etc / "slipway/shop").exists()


def test_a_root_that_is_a_link_is_the_folder_it_leads_to(etc: Path, tmp_path: Path) -> None:
    (etc / "slipway").rename(tmp_path / "srv")
    (etc / "slipway").symlink_to(tmp_path / "srv")
    assert str(tmp_path / "srv/shop") in stack_files(etc, "shop")["removed"]
    assert (tmp_path / "srv/shop-2").exists()


def test_what_is_mounted_inside_is_not_emptied(etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        f"36 35 98:0 / {etc}/slipway/shop/data rw,noatime master:1 - ext4 /dev/x rw\n40 35 0:1 / /mnt/a\\040b rw - tmpfs t rw\n"
    )
    assert removal.mount_points(str(table))[1] == "/mnt/a b"
    monkeypatch.setattr(removal, "mount_points", lambda: [f"{etc}/slipway/shop/data"])
    with pytest.raises(RemovalError, match="unmount it first"):
        removal.remove_entry(str(etc / "slipway"), "shop")
    assert removal.remove_entry(str(etc / "slipway"), "shop-2")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\0b"])
def test_an_entry_is_one_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(RemovalError):
        removal.remove_entry(str(tmp_path), name)
