# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes of the product in recovery points: what is in a list, what differs from it, and what a host that is away costs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.plugin_utils.topology import SERVER_NAME, SERVER_PORT
from conftest import role_variable
from slipway_backup import common, points, report, restore, run, volumes

NAME = "app1/uploads"
AWAY = "copy volume uploads of app2: connection refused"


@pytest.fixture
def config(tmp_path: Path) -> common.Config:
    """Two hosts with a volume each, and nothing else."""
    (tmp_path / "data/points").mkdir(parents=True)
    sources = [{"host": host, "name": "uploads", "address": host, "port": 8873} for host in ("app1", "app2")]
    return common.Config(
        stack="shop", data=tmp_path / "data", postgres={}, redis={}, chroma={}, volumes=sources, offsite={"repository": ""},
        retention={"days": 9}, minimum_free_percent=0, maximum_age_hours=26, maximum_verified_age_hours=192, settings={}, secrets=tmp_path,
    )  # fmt: skip


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path | str]:
    """The volume of each host, as a folder, or why it cannot be copied; hard links to unchanged files are made as rsync makes them."""
    hosts: dict[str, Path | str] = {}
    for host in ("app1", "app2"):
        folder = tmp_path / host
        (folder / "a").mkdir(parents=True)
        (folder / "a/one").write_text(f"one of {host}")
        hosts[host] = folder

    def copied(command: list[str], *_unused: Any, **_options: Any) -> None:
        source, target = command[-2:]
        place = hosts[source.split("@")[1].split(":")[0]]
        if isinstance(place, str):
            raise common.StepError(place)
        before = next((Path(option.partition("=")[2]) for option in command if option.startswith("--link-dest=")), None)
        for path in sorted(place.rglob("*")):
            there, old = Path(target, path.relative_to(place)), before and before / path.relative_to(place)
            if path.is_dir():
                there.mkdir()
            elif old and old.exists() and "--checksum" not in command and old.stat().st_size == path.stat().st_size:
                os.link(old, there)
            else:
                there.write_bytes(path.read_bytes())

    monkeypatch.setattr(volumes, "execute", copied)
    return hosts


@pytest.fixture
def make(config: common.Config, monkeypatch: pytest.MonkeyPatch) -> Callable[..., points.Point]:
    """A function that makes a point of a day."""

    def made(day: int) -> points.Point:
        moment = datetime(2026, 11, day, tzinfo=timezone.utc)
        for module in (run, points, report):
            monkeypatch.setattr(module, "now", lambda: moment)
        with contextlib.suppress(run.PartialError):
            run.run(config, "test")
        return points.read_points(config)[-1]

    return made


def test_a_list_says_what_is_in_a_folder_and_how_another_differs(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name / "a.b").mkdir(parents=True)
        (tmp_path / name / "a").mkdir()
        for path, text in {"a/last": "1", "a.b/first": "2", "kept": "3"}.items():
            (tmp_path / name / path).write_text(text)
            os.utime(tmp_path / name / path, (1, 1))
        (tmp_path / name / "link").symlink_to("/outside")
        (tmp_path / name / os.fsdecode(b"odd\xff\n")).symlink_to("/outside")
    one, two = tmp_path / "one", tmp_path / "two"
    listed = tmp_path / "list.jsonl.zst"
    common.write_lines(listed, volumes.entries(one))
    assert list(volumes.differences(common.read_lines(listed), volumes.entries(two))) == []
    (two / "a/last").write_text("x")
    os.utime(two / "a/last", (1, 1))
    (two / "a.b/first").unlink()
    (two / "a.b/new").write_text("")
    (two / "kept").chmod(0o600)
    (two / "link").unlink()
    (two / "link").symlink_to("/elsewhere")
    assert list(volumes.differences(common.read_lines(listed), volumes.entries(two))) == [
        "a/last is damaged: sha256 differs",
        "a.b/first is missing",
        "a.b/new is not of the point",
        "kept is damaged: mode differs",
        "link is damaged: target differs",
    ]


def test_owners_and_links_are_read_as_they_were_on_their_host(tmp_path: Path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").write_text("/etc/passwd")
    (tree / "private").write_text("x")
    try:
        os.setxattr(tree / "link", volumes.ATTRIBUTES, b"120777 0,0 0:0")
        os.setxattr(tree / "private", volumes.ATTRIBUTES, b"100000 0,0 1000:1001")
    except OSError as error:
        pytest.skip(f"this file system keeps no extended attributes: {error}")
    _root, link, private = volumes.entries(tree)
    assert (link["type"], link["target"], link["user"]) == ("link", "/etc/passwd", 0)
    assert (private["mode"], private["user"], private["group"]) == ("0000", 1000, 1001)


@pytest.mark.usefixtures("fleet")
def test_a_file_that_did_not_change_is_kept_and_read_once(make: Callable[..., points.Point], monkeypatch: pytest.MonkeyPatch):
    first = make(1)
    read: list[Path] = []
    monkeypatch.setattr(volumes, "sha256_of", lambda path: read.append(path) or "")
    second = make(2)
    assert read == []
    trees = [volumes.tree_of(point, NAME) / "a/one" for point in (first, second)]
    assert trees[0].samefile(trees[1])
    told = volumes.sets_of(second)[NAME]
    assert (told["files"], told["bytes"], told["new_bytes"]) == (1, 11, 0)
    assert points.summary(second)["bytes"] >= 22


@pytest.mark.usefixtures("fleet")
def test_a_flipped_byte_is_found_and_not_carried_on(config: common.Config, make: Callable[..., points.Point]):
    first = make(1)
    assert list(run.verify(config, first.name)) == []
    tree = volumes.tree_of(first, NAME)
    stamp = (tree / "a/one").stat().st_mtime_ns
    (tree / "a/one").write_text("One of app1")
    os.utime(tree / "a/one", ns=(stamp, stamp))
    assert list(run.verify(config, first.name)) == [f"volumes/{NAME}: a/one is damaged: sha256 differs"]
    # Until a drill has seen it, the next point has it too; and says so.
    second = make(2)
    assert list(run.verify(config, second.name)) == [f"volumes/{NAME}: a/one is damaged: sha256 differs"]
    points.record_verdict(config, second.name, "failed", {})
    assert list(run.verify(config, make(3).name)) == []


def test_a_host_that_is_away_costs_its_own_volume_and_is_named(
    config: common.Config, make: Callable[..., points.Point], fleet: dict[str, Path | str]
):
    whole = make(1)
    fleet["app2"] = AWAY
    partial = make(2)
    assert list(volumes.sets_of(partial)) == [NAME]
    assert partial.missing == {"app2/uploads": AWAY}
    assert list(run.verify(config, partial.name)) == []
    alerts = report.build(config)["alerts"]
    assert [alert for alert in alerts if AWAY in alert], alerts
    assert "the last recovery point lacks the volumes app2/uploads" in alerts
    # It does not push out the one that has all.
    assert points.to_keep([whole, partial], {"days": 1}) == {whole.name, partial.name}
    with pytest.raises(common.StepError, match=r"does not contain the volume app2/uploads; it contains app1/uploads"):
        restore.extract(config, "volumes/app2/uploads", partial.name, config.data / "target")


def test_a_full_disk_makes_no_point(config: common.Config, fleet: dict[str, Path | str]):
    fleet["app2"] = "copy volume uploads of app2: write failed: No space left on device (28)"
    with pytest.raises(common.StepError, match="No space left"):
        run.run(config, "test")
    assert list(config.points.iterdir()) == []


def test_the_server_on_the_backup_hosts_own_host_is_where_it_is_looked_for():
    inputs = {"volume_server_volumes": ["uploads"], "container_service_host_state": {"host": {"cores": 2}}}
    (server,) = role_variable("volume_server", "__volume_server_services", inputs)
    assert server["name"] == SERVER_NAME
    assert f"--port={SERVER_PORT}" in server["command"]
