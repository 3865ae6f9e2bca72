"""Releases in a row under load: no client notices."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from slipway_lab import ROOT
from slipway_release import PRODUCT, Fleet, Load

WEBSOCKETS = 50


@pytest.fixture(autouse=True)
def product(fleet: Fleet) -> None:
    """Begin with a version of the support desk, which the load knows."""
    if fleet.version not in PRODUCT:
        fleet.deploy(PRODUCT[0])


@pytest.mark.parametrize(
    ("releases", "rate", "requests"),
    # Two cores that are slow do not answer 200 requests a second while they start containers.
    [pytest.param(2, 100, 2_000, id="two"), pytest.param(10, 200, 20_000, id="ten", marks=pytest.mark.extended("release-load"))],
)
def test_releases_under_load_lose_nothing(fleet: Fleet, load: Callable[..., Load], releases: int, rate: int, requests: int):
    """Deploys and rollbacks alternate between two versions; requests, WebSockets and what each run reports are counted."""
    began, clients, runs = time.monotonic(), load(arguments=("@tests/load/support_desk.txt", f"--rate={rate}")), []
    version = fleet.version
    for number in range(releases):
        # Two ways to each version: rollback.yml to the one before, and deploy.yml to one that is named.
        run = fleet.rollback() if number % 2 else fleet.deploy(fleet.other(PRODUCT))
        previous, version = version, PRODUCT[1] if version == PRODUCT[0] else PRODUCT[0]
        runs.append(run.report)
        assert (run.report["version"], run.report["previous"], run.report["outcome"]) == (version, previous, "released"), run.report
        assert set(run.report["slots"]) == {host.name for host in fleet.app}
        assert len(set(run.report["slots"].values())) == 1
        assert set(run.report["digests"]) == {host.name for host in fleet.app}
        assert all(seconds >= 0 for seconds in run.report["steps"].values())
        assert {"preflight", "start", "gate", "switch", "probe", "retire"} <= set(run.report["steps"])
        assert run.report["prober"]["failed"] == run.report["prober"]["websockets_cut"] == 0, str(run.report["prober"])
        # It looked at something.
        assert run.report["prober"]["requests"] > 0
        assert run.report["prober"]["websockets"] > 0
        # To this moment a restore can go back; a rollback migrates nothing.
        marked = run.report["restore_point"]
        assert marked.get("name", "").startswith(f"before-{version}-") != bool(number % 2), marked
    numbers = clients.end()
    report = {
        "seconds": round(time.monotonic() - began, 1),
        "load": {key: numbers[key] for key in sorted(numbers) if key != "failures"},
        "releases": [{key: item[key] for key in ("playbook", "version", "duration_s", "steps")} for item in runs],
    }
    (ROOT / "reports").mkdir(exist_ok=True)
    (ROOT / "reports/release-load-latest.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))
    assert numbers["failed"] == 0, numbers["failures"]
    assert numbers["requests"] >= requests
    # It was the load that is asked for: half of it over HTTP/2, and half POST, whose answers have no version.
    assert numbers["requests"] >= 0.95 * rate * numbers["seconds"]
    halves = {protocol: counts["requests"] for protocol, counts in numbers["clients"].items()}
    halves["GET"] = sum(seen["answers"] for seen in numbers["versions"].values())
    assert set(halves) == {"http1", "http2", "GET"}
    assert all(0.45 <= half / numbers["requests"] <= 0.55 for half in halves.values()), halves
    assert numbers["websockets_cut"] == numbers["websockets_refused"] == 0, numbers["failures"]
    assert numbers["in_flight"] == 0
    # Each release closes all of them in order, and each comes back.
    assert numbers["websockets_closed"] == {"1012": numbers["websockets_reconnected"]}, numbers["websockets_closed"]
    assert numbers["websockets_reconnected"] == releases * WEBSOCKETS
    assert {key for key, seen in numbers["versions"].items() if seen["answers"]} == set(PRODUCT)
    fleet.check(version)
