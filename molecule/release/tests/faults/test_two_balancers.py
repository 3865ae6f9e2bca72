"""A fleet with two balancers moves at both or at none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from slipway_lab import LabHost
from slipway_release import QUICK, SMALL, Fleet

pytestmark = pytest.mark.extended("release-ways")


@pytest.fixture(scope="module", autouse=True)
def second(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """Make an app host a balancer too, by one more inventory."""
    host = fleet.app[-1]
    inventory: Path = tmp_path_factory.mktemp("second") / "hosts.yml"
    inventory.write_text(f"---\nbalancers:\n  hosts:\n    {host.name}:\n", encoding="utf-8")
    fleet.inventories.append(inventory)
    version = fleet.version if fleet.version in SMALL else SMALL[0]
    done = fleet.start("site", version, **QUICK).end()
    assert done.returncode == 0, done.excerpt
    yield host
    fleet.inventories.clear()
    host.run("docker rm --force slipway-nginx")


def answers(host: LabHost) -> set[str]:
    """Return the versions that a balancer's own host gets from it."""
    return {json.loads(host.run("curl -sSk https://127.0.0.1/api/version"))["version"] for _ in range(5)}


def test_both_balancers_move(fleet: Fleet, second: LabHost):
    version = fleet.other()
    run = fleet.deploy(version, **QUICK)
    fleet.check(version, run)
    assert answers(second) == {version}


def taken_over(host: LabHost) -> str:
    """Return when a balancer has last taken a configuration over."""
    return host.run("stat --format %y /etc/slipway/slipway/nginx/config/loaded")


@pytest.mark.parametrize("canary", [0, 10])
def test_a_balancer_whose_configuration_is_not_valid_keeps_both_where_they_are(fleet: Fleet, second: LabHost, canary: int):
    """It is found before any of them switches, or begins with a canary."""
    first = fleet.lab.groups["balancers"][0]
    before, wanted = fleet.version, fleet.other()
    moment = taken_over(first)
    broken = "{{ 'no_such_directive on;' if inventory_hostname == '" + second.name + "' else '' }}"
    run = fleet.refused(wanted, **QUICK, nginx_server_extra=broken, app_canary_weight=canary, app_canary_seconds=1)
    assert run.report["outcome"] == "rolled_back", run.excerpt
    assert "no_such_directive" in run.output
    fleet.check(before, run)
    assert answers(second) == {before}
    assert taken_over(first) == moment


def test_a_balancer_that_is_lost_keeps_web_services_of_the_failed_version_and_no_workers(fleet: Fleet, second: LabHost):
    """It may still send them requests; of two generations of workers one runs."""
    before, record = fleet.version, fleet.records()[0]
    old, new = record["slot"], {"blue": "green", "green": "blue"}[record["slot"]]
    workers = {"app_service_overrides": {"worker": {"retire": "before"}}}
    run = fleet.start("deploy", "5.0.0-sours", **{**QUICK, **workers, "release_probe_seconds": 15})
    run.wait_for("release: probe")
    with second.unreachable():
        done = run.end()
    assert done.returncode != 0
    assert f"not all of the release was undone on {second.name}" in " ".join(done.output.split())
    running = {container.service for container in fleet.app[0].containers() if container.inspect["State"]["Running"]}
    assert {f"backend-{old}-1", f"worker-{old}-1", f"backend-{new}-1", f"frontend-{new}-1"} <= running
    assert f"worker-{new}-1" not in running
    again = fleet.rollback(**QUICK, **workers)
    assert again.report["recovered"] == "undo"
    fleet.check(before, again)
    assert answers(second) == {before}


def test_both_move_after_that(fleet: Fleet, second: LabHost):
    wanted = fleet.other()
    fleet.check(wanted, fleet.deploy(wanted, **QUICK))
    assert answers(second) == {wanted}
