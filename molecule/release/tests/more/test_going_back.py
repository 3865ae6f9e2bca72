"""What a rollback finds, and what it leaves behind when it fails."""

from __future__ import annotations

import pytest
from slipway_lab import wait_until
from slipway_release import QUICK, Fleet


@pytest.fixture(scope="module", autouse=True)
def small(fleet: Fleet) -> None:
    """Begin with the small product, and with one to go back to."""
    fleet.begin_small()


def kept(fleet: Fleet) -> dict[str, tuple[str, str]]:
    """Return by host the backend of the slot before, and when it was started last."""
    slot = fleet.records()[0]["previous"]["slot"]
    found = {}
    for host in fleet.app:
        (backend,) = [container.inspect for container in host.containers() if container.service == f"backend-{slot}-1"]
        found[host.name] = (backend["Id"], backend["State"]["StartedAt"])
    return found


def test_a_rollback_starts_what_was_kept(fleet: Fleet):
    before, to = kept(fleet), fleet.other()
    fleet.check(to, fleet.rollback(**QUICK))
    slot = fleet.records()[0]["slot"]
    for host in fleet.app:
        (backend,) = [container.inspect for container in host.containers() if container.service == f"backend-{slot}-1"]
        identity, started = before[host.name]
        assert backend["Id"] == identity
        assert backend["State"]["StartedAt"] > started


@pytest.mark.extended("release-ways")
def test_a_rollback_that_fails_leaves_what_was_kept(fleet: Fleet):
    """So that the next one, once its cause is fixed, finds it."""
    serving, before, to = fleet.version, kept(fleet), fleet.other()
    run = fleet.refused("", "rollback", **QUICK, app_service_overrides={"backend": {"version_field": "instance"}}, release_gate_seconds=2)
    assert f"instead of {to}" in run.output, run.excerpt
    fleet.check(serving, run)
    assert {name: identity for name, (identity, _started) in kept(fleet).items()} == {
        name: identity for name, (identity, _started) in before.items()
    }
    fleet.check(to, fleet.rollback(**QUICK))


@pytest.mark.extended("release-ways")
def test_a_version_that_stands_by_is_switched_to(fleet: Fleet):
    before, wanted = fleet.version, fleet.other()
    run = fleet.deploy(wanted, **QUICK, app_standby=True)
    fleet.check(wanted, run, standby=True)
    waiting = kept(fleet)
    slot = fleet.records()[0]["previous"]["slot"]
    wait_until(lambda: all(host.service(f"backend-{slot}-1").health == "healthy" for host in fleet.app), 60, f"slot {slot} stands by")
    run = fleet.rollback(**QUICK, app_standby=True)
    # The version that was rolled back is stopped: no rollback leads to it.
    fleet.check(before, run)
    for host in fleet.app:
        (backend,) = [container.inspect for container in host.containers() if container.service == f"backend-{slot}-1"]
        assert (backend["Id"], backend["State"]["StartedAt"]) == waiting[host.name]


@pytest.mark.parametrize("playbook", ["deploy", "rollback"])
def test_a_version_that_is_not_available_is_refused_before_anything_is_touched(fleet: Fleet, playbook: str):
    serving, before = fleet.version, kept(fleet)
    run = fleet.refused("9.9.9", playbook, **QUICK)
    said = " ".join(run.output.split())
    assert "version 9.9.9 is not available: image support-desk/backend:9.9.9 (app_services.backend.image) is not on the host" in said
    assert "build the version (make image VERSION=9.9.9)" in said
    assert "release: lock" not in run.output
    # A plan was made for a rollback only: a release is refused before that, by preflight.
    assert run.report.get("outcome", "refused") == "refused"
    fleet.check(serving)
    assert kept(fleet) == before
