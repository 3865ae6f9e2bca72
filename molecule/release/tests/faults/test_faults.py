"""What must not break a release: after each fault all hosts serve one version, nothing is left over, and the next release works.

The product is a small one, and nothing is under load, so nothing has to be drained: tests/load is about that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from slipway_lab import Run
from slipway_release import FOLDER, QUICK, SMALL, Fleet


@pytest.fixture(scope="module", autouse=True)
def small(fleet: Fleet) -> None:
    """Begin with two versions of the small product, so that one of them is kept."""
    for version in SMALL:
        fleet.check(version, fleet.deploy(version, **QUICK))


@pytest.fixture(autouse=True)
def next_release_works(small: None, fleet: Fleet) -> Iterator[None]:  # noqa: ARG001 - begins after it
    """After each fault, a release of the other version."""
    yield
    version = fleet.other()
    fleet.check(version, fleet.deploy(version, **QUICK))


def message(run: Run) -> str:
    return " ".join(entry["message"] for entry in run.report["failed"])


def fails_and_goes_back(fleet: Fleet, wanted: str, **variables: Any) -> Run:
    """Release what cannot be released; return the run once the fleet has been looked at."""
    before = fleet.records()[0]
    run = fleet.refused(wanted, **QUICK, **variables)
    found = {key: run.report.get(key) for key in ("outcome", "wanted", "result", "version")}
    assert found == {"outcome": "rolled_back", "wanted": wanted, "result": "failed", "version": before["version"]}, run.output[-6000:]
    fleet.check(before["version"], run)
    assert fleet.records()[0] == before
    return run


def test_an_image_that_one_host_of_two_does_not_have(fleet: Fleet):
    version = fleet.version
    for tier in ("backend", "frontend"):
        fleet.app[0].run(f"docker tag support-desk/{tier}:{version} support-desk/{tier}:6.0.0")
    run = fleet.refused("6.0.0", **QUICK)
    assert "support-desk/backend:6.0.0" in message(run)
    assert fleet.app[1].name in message(run)
    fleet.check(version)


def test_a_disk_that_fills_during_the_pull(fleet: Fleet):
    """An engine collects layers in a folder before it unpacks them; that folder is made too small for one."""
    host = fleet.app[1]
    host.run("mount -t tmpfs -o size=4m tmpfs /var/lib/docker/tmp")
    try:
        run = fails_and_goes_back(fleet, "5.0.0-large")
    finally:
        host.run("umount /var/lib/docker/tmp")
    # The lab's registry is a mirror, so the last thing that the engine tells is that the registry itself is out of reach.
    assert "no space left on device" in host.run("journalctl --unit docker --since -3min")
    assert "Error pulling support-desk/" in message(run)
    assert "start" not in run.report["steps"]


def test_a_migration_that_fails(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-migration-fails")
    assert "relation customers has no column fax" in message(run)
    assert "start" not in run.report["steps"]


def test_a_migration_that_hangs(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-migration-hangs", app_migrate_seconds=3)
    assert "has not ended within 3 s" in message(run)
    assert "waiting for a lock on customers" in message(run)


def test_a_container_that_never_becomes_healthy(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-never-healthy", app_backend_start_seconds=6)
    assert "did not become healthy within 6 s" in message(run)
    assert "switch" not in run.report["steps"]


def test_a_container_that_is_healthy_and_dies_before_the_switch(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-dies")
    assert "has died since it was ready" in message(run) or "does not answer" in message(run)


def test_a_version_that_answers_errors_after_the_switch(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-errors")
    assert "answers 500" in message(run)
    assert "probe" in run.report["steps"]


def test_a_version_that_answers_errors_to_its_canary(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-errors", app_canary_weight=50, app_canary_seconds=2)
    assert "switch" not in run.report["steps"]
    assert run.report["prober"]["failed"] > 0


def test_a_balancer_whose_configuration_does_not_validate(fleet: Fleet):
    run = fails_and_goes_back(fleet, fleet.other(), nginx_server_extra="no_such_directive on;")
    assert "no_such_directive" in message(run)
    assert "probe" not in run.report["steps"]


def test_the_version_that_runs_is_not_released_again(fleet: Fleet):
    before = {container.name: container.inspect["Id"] for host in fleet.app for container in host.containers()}
    version = fleet.version
    run = fleet.deploy(version)
    assert (run.report["outcome"], run.report["wanted"]) == ("unchanged", version)
    assert f"unchanged: version {version} serves" in run.output
    assert run.changed == []
    assert {container.name: container.inspect["Id"] for host in fleet.app for container in host.containers()} == before
    fleet.check(version, run)


def test_two_releases_started_together(fleet: Fleet):
    before, other = fleet.version, fleet.other()
    first = fleet.start("deploy", other, **QUICK)
    first.wait_for("release: pull")
    second = fleet.refused("5.0.0-large", **QUICK)
    assert (second.report["outcome"], second.report["version"]) == ("refused", before)
    assert f"(process {first.process.pid}) has held the lock since 20" in message(second)
    done = first.end()
    assert done.returncode == 0, done.output[-6000:]
    fleet.check(other, done)


def strand(fleet: Fleet, seconds: float) -> None:
    """Leave the lock of a run on another machine, whose end nobody here can see; it expires after these seconds."""
    lock = {
        "run": "20260101T000000-4711", "since": "2026-01-01T00:00:00Z", "step": "prepare", "journal": {},
        "holder": {"user": "alice", "controller": "ci-7", "pid": 4711, "boot_id": "another-machine"},
        "expires": time.time() + seconds, "expires_at": "2026-01-01T00:15:00Z",
    }  # fmt: skip
    fleet.app[0].python("open(V['path'], 'w').write(json.dumps(V['lock'])); print('null')", path=f"{FOLDER}/lock.json", lock=lock)


def test_a_lock_whose_holder_is_gone_is_taken_or_expires(fleet: Fleet):
    strand(fleet, 600)
    version, other = fleet.version, fleet.other()
    run = fleet.refused(other, **QUICK)
    assert "alice on ci-7 (process 4711) has held the lock since 2026-01-01T00:00:00Z" in message(run)
    assert "release_lock_takeover=true" in message(run)
    assert (run.report["outcome"], run.report["version"]) == ("refused", version)
    fleet.check(other, fleet.deploy(other, release_lock_takeover=True, **QUICK))
    # The release that follows each test finds one that has expired.
    strand(fleet, -1)
