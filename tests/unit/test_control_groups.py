# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What control groups of both versions say of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.slipway.stack.plugins.module_utils import control_groups


@pytest.mark.parametrize(
    ("groups", "files", "used"),
    [
        ("0::/docker/1\n", {"docker/1/memory.current": "300\n", "docker/1/memory.stat": "anon 90\ninactive_file 100\n"}, 200),
        (
            "9:name=systemd:/docker/1\n4:memory:/docker/1\n0::/docker/1\n",
            {"memory/docker/1/memory.usage_in_bytes": "300\n", "memory/docker/1/memory.stat": "inactive_file 1\ntotal_inactive_file 90\n"},
            210,
        ),
        # A process that ended meanwhile, and a kernel that reports less.
        (None, {}, 0),
        ("0::/docker/1\n", {"docker/1/memory.current": "300\n", "docker/1/memory.stat": "anon 90\n"}, 0),
    ],
)
def test_memory_is_counted_without_files_that_were_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str | None, files: dict[str, str], used: int
):
    monkeypatch.setattr(control_groups, "PROCESSES", str(tmp_path / "proc"))
    monkeypatch.setattr(control_groups, "CONTROL_GROUPS", str(tmp_path / "groups"))
    contents = {f"groups/{name}": content for name, content in files.items()} | ({"proc/7/cgroup": groups} if groups else {})
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert control_groups.memory_used(7) == used


@pytest.mark.parametrize(
    ("groups", "file", "content", "figure", "taken"),
    [
        ("0::/docker/x\n", "docker/x/cpu.stat", "usage_usec 1500000\nuser_usec 1\n", "cpu_seconds", 1.5),
        ("4:cpu,cpuacct:/docker/x\n0::/\n", "cpu,cpuacct/docker/x/cpuacct.usage", "2500000000\n", "cpu_seconds", 2.5),
        ("0::/docker/x\n", "docker/x/cpu.stat", "usage_usec 1\nthrottled_usec 500000\n", "throttled_seconds", 0.5),
        ("4:cpu:/docker/x\n0::/\n", "cpu/docker/x/cpu.stat", "nr_periods 4\nthrottled_time 700000000\n", "throttled_seconds", 0.7),
        ("0::/docker/x\n", "docker/x/memory.events", "oom 3\noom_kill 2\n", "oom_kills", 2),
        ("4:memory:/docker/x\n0::/\n", "memory/docker/x/memory.oom_control", "under_oom 0\noom_kill 4\n", "oom_kills", 4),
        ("0::/docker/x\n", "docker/x/pids.current", "7\n", "pids", 7),
        ("4:pids:/docker/x\n0::/\n", "pids/docker/x/pids.current", "8\n", "pids", 8),
        *(("0::/docker/x\n", "other", "", figure, 0) for figure in ("cpu_seconds", "throttled_seconds", "oom_kills", "pids")),
    ],
)
def test_a_figure_is_that_of_the_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, file: str, content: str, figure: str, taken: float
):
    for path, text in (("proc/7/cgroup", groups), (f"groups/{file}", content)):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(control_groups, "PROCESSES", str(tmp_path / "proc"))
    monkeypatch.setattr(control_groups, "CONTROL_GROUPS", str(tmp_path / "groups"))
    assert getattr(control_groups, figure)(7) == taken


def test_a_process_that_has_ended_has_not_the_figures_of_the_whole_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control_groups, "PROCESSES", str(tmp_path / "proc"))
    monkeypatch.setattr(control_groups, "CONTROL_GROUPS", str(tmp_path))
    for name, content in {
        "cpu.stat": "usage_usec 9000000\nthrottled_usec 1\n",
        "memory.events": "oom_kill 4\n",
        "pids.current": "7\n",
    }.items():
        (tmp_path / name).write_text(content)
    figures = (control_groups.cpu_seconds, control_groups.throttled_seconds, control_groups.oom_kills, control_groups.pids)
    assert [figure(7) for figure in figures] == [0, 0, 0, 0]
