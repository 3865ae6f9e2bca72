"""What is counted, and in which window."""

from __future__ import annotations

import pytest

from slipway_prober.meter import KEPT_FAILURES, KEPT_VERSIONS, Meter


def test_only_the_first_failures_and_versions_are_kept():
    meter = Meter()
    for number in range(200):
        meter.failed("status 500", f"target {number}", version=f"v{number}")
    numbers = meter.snapshot()
    assert numbers["failed"] == 200
    assert [failure["target"] for failure in numbers["failures"]] == [f"target {number}" for number in range(KEPT_FAILURES)]
    assert len(numbers["versions"]) == KEPT_VERSIONS + 1
    assert numbers["versions"]["others"]["failed"] == 200 - KEPT_VERSIONS


def test_gaps_belong_to_windows_and_an_open_one_counts():
    now = [100.0]
    meter = Meter(clock=lambda: now[0], wall=lambda: 1_000_000.0 + now[0])
    now[0] = 100.1
    meter.succeeded(0.01)
    now[0] = 103.1
    meter.mark("late")
    now[0] = 104.1
    open_gap = meter.snapshot()
    assert open_gap["longest_gap_ms"] == open_gap["marks"][0]["since"]["longest_gap_ms"] == 4000
    meter.succeeded(0.02)
    meter.mark("well")
    now[0] = 104.2
    meter.succeeded(0.03)
    meter.stop()
    now[0] = 200.0
    numbers = meter.snapshot()
    assert numbers["longest_gap_ms"] == 4000
    assert [mark["since"]["longest_gap_ms"] for mark in numbers["marks"]] == [4000, 100]
    assert numbers["seconds"] == pytest.approx(4.2)
    assert numbers["first_success"] == "1970-01-12T13:48:20.100Z"
    assert numbers["latency_ms"]["p50"] == pytest.approx(20, rel=0.02)
    assert numbers["latency_ms"]["max"] == 30
