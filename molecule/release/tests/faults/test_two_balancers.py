"""A fleet with two balancers moves at both or at none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from slipway_lab import LabHost
from slipway_release import QUICK, SMALL, Fleet


@pytest.fixture(scope="module", autouse=True)
def second(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """Make an app host a balancer too, by one more inventory."""
    host = fleet.app[-1]
    inventory: Path = tmp_path_factory.mktemp("second") / "hosts.yml"
    inventory.write_text(f"---\nbalancers:\n  hosts:\n    {host.name}:\n", encoding="utf-8")
    fleet.inventories.append(inventory)
    version = fleet.version if fleet.version in SMALL else SMALL[0]
    done = fleet.start("site", version, **QUICK).end()
    assert done.returncode == 0, done.output[-6000:]
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


def test_a_balancer_that_fails_puts_the_other_back(fleet: Fleet, second: LabHost):
    """Its configuration does not validate when the other has switched already."""
    before, wanted = fleet.version, fleet.other()
    broken = "{{ 'no_such_directive on;' if inventory_hostname == '" + second.name + "' else '' }}"
    run = fleet.refused(wanted, **QUICK, nginx_server_extra=broken)
    assert run.report["outcome"] == "rolled_back", run.output[-6000:]
    assert "no_such_directive" in run.output
    fleet.check(before, run)
    assert answers(second) == {before}
    fleet.check(wanted, fleet.deploy(wanted, **QUICK))
    assert answers(second) == {wanted}
