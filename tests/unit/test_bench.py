# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark makes of what it has measured: a bar that is missed is reported."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests/bench"))
import bench

from lab import Sample

STEPS = {"lock": 0.5, "preflight": 1.0, "gate": 2.0, "switch": 1.5, "probe": 4.0, "retire": 9.0, "record": 1.0}


def sample(gap: float = 50.0, failed: int = 0, **steps: float) -> Sample:
    failures = [{"kind": "request", "request": "GET /", "reason": "HTTP 502"}] * failed
    prober = {"requests": 200, "failed": failed, "longest_gap_ms": gap, "failures": failures}
    return Sample(20.0, 3.0, 0.5, report={"steps": {**STEPS, **steps}, "prober": prober})


def test_a_release_is_measured_to_the_end_of_its_switch() -> None:
    made = bench.to_the_switch([sample(), sample(gate=5.0), sample(gap=90.0, failed=2)])
    assert (made["min_s"], made["median_s"], made["max_s"], made["run_s"]) == (5.0, 5.0, 8.0, 20.0)
    assert (made["requests"], made["failed"], made["longest_gap_ms"]) == (600, 2, 90.0)
    assert bench.lost({"release": made}) == ["", "Why requests failed", "         2  request GET /: HTTP 502"]
    assert bench.lost({"release": bench.to_the_switch([sample()])}) == []


def results(**changes: Any) -> dict[str, Any]:
    """Return figures that meet every bar, but for these changes."""
    noop = {"median_s": 2.0, "ssh_a_host": 2, "remote_calls_a_host": 1, "changed": 0}
    release = {"median_s": 12.0, "failed": 0, "requests": 900, "longest_gap_ms": 60.0}
    found: dict[str, Any] = {
        "one": {
            "noop": dict(noop),
            "status": {"median_s": 3.9},
            "floor_playbook": {"median_s": 0.6},
            "first": {"median_s": 50.0},
            "edit": {"median_s": 4.0, "touched": []},
            "hostile": {"p99_ratio": 1.4, "requests": 900, "failed": 0},
            "edge": {"proxied": 4000.0, "proxied_untuned": 2000.0, "file": 500.0, "file_bare": 600.0},
        },
        "cluster": {
            "noop": dict(noop),
            "status": {"median_s": 4.0},
            "floor_playbook": {"median_s": 0.8},
            "monitoring": {"memory_mb": 400.0, "cores": 0.1},
            "release": dict(release),
            "rollback": {**release, "median_s": 4.0},
        },
        "growth": {
            "few": {**noop, "cpu_s": 4.0},
            "many": {**noop, "median_s": 5.9, "cpu_s": 11.0},
        },
        "backup": {
            "data": {"database_bytes": 10**9},
            "throughput": {"dump_s": 30.0, "point_s": 12.0},
            "growth": {"added_bytes": 10**6},
            "restore": {"copy_s": 8.0, "restore_s": 14.0},
            "while_busy": {"fewer_percent": 4.0},
        },
    }
    for path, value in changes.items():
        topology, series, name = path.split("__")
        found[topology][series][name] = value
    return found


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, []),
        ({"one__noop__median_s": 4.1, "one__floor_playbook__median_s": 2.0}, ["no-op site.yml, one host"]),
        ({"one__floor_playbook__median_s": 0.5}, ["no-op site.yml, one host, as a multiple of an empty playbook"]),
        ({"cluster__floor_playbook__median_s": 0.3}, ["no-op site.yml, six hosts, as a multiple of an empty playbook"]),
        ({"one__edge__proxied": 3000.0}, ["requests/s for a page that is proxied, untuned nginx: 1"]),
        ({"one__edge__file_bare": 700.0}, ["requests/s for a file, untuned nginx: 1"]),
        ({"one__hostile__p99_ratio": 2.1}, ["p99 of honest clients while hostile requests come, as a multiple of that before"]),
        ({"one__hostile__failed": 1}, ["failed requests of 900 of theirs"]),
        ({"one__status__median_s": 4.01}, ["status.yml, one host, beyond a no-op"]),
        ({"cluster__status__median_s": 4.2}, ["status.yml, six hosts, beyond a no-op"]),
        ({"cluster__monitoring__memory_mb": 513.0}, ["memory of monitoring, six hosts"]),
        ({"cluster__monitoring__cores": 0.31}, ["cores that it uses"]),
        ({"cluster__noop__ssh_a_host": 4}, ["remote calls a host, no-op, six hosts"]),
        ({"cluster__noop__changed": 1}, ["changes of a no-op, six hosts"]),
        ({"growth__many__median_s": 6.1}, ["no-op site.yml, 20 app hosts, as a multiple of 5"]),
        ({"growth__many__cpu_s": 11.6}, ["processor time of a further app host"]),
        ({"growth__many__ssh_a_host": 4}, ["remote calls a host, no-op, 20 app hosts"]),
        ({"growth__many__changed": 1}, ["changes of a no-op, 20 app hosts"]),
        ({"one__first__median_s": 61.0}, ["first deploy, images present, one host"]),
        ({"one__edit__touched": ["slipway-redis"]}, ["other things touched by that"]),
        ({"backup__throughput__point_s": 15.5}, ["throughput of a full backup, as a multiple of pg_dump | gzip"]),
        ({"backup__growth__added_bytes": 21 * 10**6}, ["what an unchanged second backup adds off-site"]),
        ({"backup__restore__restore_s": 16.5}, ["restore, as a multiple of copying the files"]),
        ({"backup__while_busy__fewer_percent": 10.5}, ["fewer transactions/s while a backup runs"]),
        ({"cluster__release__median_s": 30.5}, ["release whose images are there, to the switch, two app hosts"]),
        ({"cluster__rollback__median_s": 5.1}, ["rollback to the kept slot, to the switch, two app hosts"]),
        ({"cluster__rollback__failed": 1}, ["failed requests of 900 of the prober in that"]),
        ({"cluster__release__longest_gap_ms": 251.0}, ["longest gap between two of its answers"]),
    ],
)
def test_a_missed_bar_is_reported(changes: dict[str, Any], missed: list[str]) -> None:
    bars = bench.judge(results(**changes))
    assert [bar["what"] for bar in bars if not bar["met"]] == missed
    assert len(bars) == 33


def test_what_the_load_lost_is_judged_too() -> None:
    clients = {"requests": 20000, "failed": 1, "websockets_cut": 0, "longest_gap_ms": 251.0}
    release = {"median_s": 31.0, "failed": 0, "requests": 900, "longest_gap_ms": 60.0, "clients": clients}
    bars = bench.judge({"cluster": {"release_loaded": release}})
    assert [bar["what"] for bar in bars if not bar["met"]] == [
        "release under load, to the switch, two app hosts",
        "failed requests of 20000 of the load",
        "longest gap between two of its answers",
    ]


def test_what_was_not_measured_has_no_bar() -> None:
    assert bench.judge({"one": {}, "cluster": {}}) == []
    assert bench.ratios({"one": {}}) == {}


def test_the_cost_of_the_mesh_is_shown_with_the_network_below_it() -> None:
    assert bench.mesh_table({}) == []
    ways = {"mesh": {"mb_s": 90.5, "round_trip_ms": 0.4}, "outside": {"mb_s": 910.0, "round_trip_ms": 0.1}}
    _blank, _head, inside, outside = bench.mesh_table({**ways, "kernel": False})
    assert inside.split()[:4] == ["90.5", "MB/s", "0.400", "ms"]
    assert inside.endswith("through the mesh (wireguard-go)")
    assert outside.endswith("910.0 MB/s    0.100 ms  without it")
