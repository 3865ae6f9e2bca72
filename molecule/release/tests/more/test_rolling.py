"""A fleet without memory for two slots: hosts move one after the other, and go back in the same way."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from slipway_lab import LabHost
from slipway_release import QUICK, SMALL, Fleet

# Long enough for the last requests of nginx's old workers: their backends end while the release goes on.
ROLLING: dict[str, Any] = {**QUICK, "app_release_strategy": "rolling", "release_settle_seconds": 6}


def moment(stamp: str) -> datetime:
    """Return a time of the engine's, whose fractions have up to nine digits."""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}+00:00")


def live_backend(host: LabHost, fleet: Fleet) -> str:
    """Return when the backend that serves on a host has started."""
    slot = fleet.records()[0]["slot"]
    return next(item.inspect["State"]["StartedAt"] for item in host.containers() if item.kind == "backend" and item.slot == slot)


@pytest.fixture(scope="module", autouse=True)
def small(fleet: Fleet) -> None:
    """Begin with the small product."""
    if fleet.version not in SMALL:
        fleet.check(SMALL[0], fleet.deploy(SMALL[0], **QUICK))


def test_hosts_move_one_after_the_other(fleet: Fleet):
    """At no time are two slots' backends up on a host, and clients notice nothing."""
    version = fleet.other()
    run = fleet.deploy(version, **ROLLING)
    fleet.check(version, run)
    assert run.report["prober"]["failed"] == 0, str(run.report["prober"])
    assert run.output.count("release: roll took") == len(fleet.app)
    # Where a restore can go back to, as the hosts have noted too.
    assert run.report["restore_point"]["name"].startswith(f"before-{version}-"), run.report["restore_point"]
    assert run.report["restore_point"]["moment"]
    assert fleet.records()[0]["restore_point"] == run.report["restore_point"]
    for host in fleet.app:
        states = {container.slot: container.inspect["State"] for container in host.containers() if container.kind == "backend"}
        live, before = states.pop(run.report["slots"][host.name]), *states.values()
        assert moment(before["FinishedAt"]) <= moment(live["StartedAt"]), f"{host}: {before}, {live}"


@pytest.mark.extended("release-ways")
@pytest.mark.parametrize("failing", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("retire", ["drain", "before"])
def test_only_hosts_that_had_moved_go_back_when_one_fails(fleet: Fleet, failing: int, retire: str):
    before, wanted = fleet.version, fleet.other()
    ends = "{{ ['false'] if inventory_hostname == '" + fleet.app[failing].name + "' else [] }}"
    started = {host.name: live_backend(host, fleet) for host in fleet.app}
    overrides = {"backend": {"command": ends, "start_seconds": 15}, "worker": {"retire": retire}}
    run = fleet.refused(wanted, **ROLLING, app_service_overrides=overrides)
    assert (run.report["outcome"], run.report["wanted"]) == ("rolled_back", wanted), run.excerpt
    fleet.check(before, run)
    assert run.report["prober"]["failed"] == 0, str(run.report["prober"])
    stayed = {host.name for host in fleet.app if live_backend(host, fleet) == started[host.name]}
    assert stayed == {host.name for host in fleet.app[1:] if not failing}


@pytest.mark.extended("release-ways")
def test_a_run_killed_between_two_hosts_is_put_right(fleet: Fleet):
    before, wanted = fleet.version, fleet.other()
    running = fleet.start("deploy", wanted, **ROLLING)
    running.wait_for("release: gate")
    running.kill()
    fleet.check(wanted, fleet.deploy(wanted, **ROLLING))
    running = fleet.start("deploy", before, **ROLLING)
    running.wait_for("release: gate")
    running.kill()
    # Nothing had been committed, so what served before the run that died is what rollback leaves.
    fleet.check(wanted, fleet.rollback(**ROLLING))


@pytest.mark.extended("release-ways")
def test_a_batch_of_all_hosts_is_refused(fleet: Fleet):
    before = fleet.records()
    run = fleet.refused(fleet.other(), **{**ROLLING, "app_release_batch": len(fleet.app)})
    assert "app_release_batch" in run.output
    assert "blue_green" in run.output
    assert fleet.records() == before
