"""What must not break a release: after each fault all hosts serve one version, nothing is left over, and the next release works.

Each test begins with the fleet as begin_small leaves it, whichever ran before; in their order one whose release fails is mostly followed by
one whose release succeeds, which is the next release. The product is a small one, and nothing is under load, so nothing has to be drained:
tests/load is about that.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
from slipway_lab import Run, wait_until
from slipway_release import FOLDER, QUICK, STEPS, Fleet

#: From here on the new version stands, and an interrupted release is finished.
COMMITTED = ("record", "retire")


@pytest.fixture(scope="module", autouse=True)
def small(fleet: Fleet) -> None:
    """Begin with two versions of the small product, so that one of them is kept."""
    fleet.begin_small()


def message(run: Run) -> str:
    return " ".join(entry["message"] for entry in run.report["failed"])


def fails_and_goes_back(fleet: Fleet, wanted: str, **variables: Any) -> Run:
    """Release what cannot be released; return the run once the fleet has been looked at."""
    before = fleet.records()[0]
    run = fleet.refused(wanted, **{**QUICK, **variables})
    found = {key: run.report.get(key) for key in ("outcome", "wanted", "result", "version")}
    assert found == {"outcome": "rolled_back", "wanted": wanted, "result": "failed", "version": before["version"]}, run.excerpt
    fleet.check(before["version"], run)
    assert fleet.records()[0] == before
    return run


def strand(fleet: Fleet, seconds: float) -> None:
    """Leave the lock of a run on another machine, whose end cannot be seen from here; it expires after these seconds."""
    lock = {
        "run": "20260101T000000-4711", "since": "2026-01-01T00:00:00Z", "step": "prepare", "journal": {},
        "holder": {"user": "alice", "controller": "ci-7", "pid": 4711, "boot_id": "another-machine"},
        "expires": time.time() + seconds, "expires_at": "2026-01-01T00:15:00Z",
    }  # fmt: skip
    fleet.app[0].python("open(V['path'], 'w').write(json.dumps(V['lock'])); print('null')", path=f"{FOLDER}/lock.json", lock=lock)


def killed_in(fleet: Fleet, step: str, version: str) -> None:
    """Begin a release of this version, and kill it in the middle of a step."""
    canary: dict[str, Any] = {"app_canary_weight": 20, "app_canary_seconds": 3} if step == "canary" else {}
    run = fleet.start("deploy", version, **QUICK, **canary)
    run.wait_for(f"release: {step}")
    # A step begins with a line, and then asks the hosts.
    time.sleep(0.4)
    run.kill()


def killed_once_committed(fleet: Fleet, step: str) -> None:
    """Kill a release in a step behind its commit: the same command finds it done but for the end, which it brings."""
    version = fleet.other()
    killed_in(fleet, step, version)
    run = fleet.deploy(version, **QUICK)
    assert (run.report["outcome"], run.report["recovered"]) == ("unchanged", "finish")
    fleet.check(version, run)


def test_an_image_that_one_host_of_two_does_not_have(fleet: Fleet):
    version = fleet.version
    for tier in ("backend", "frontend"):
        fleet.app[0].run(f"docker tag support-desk/{tier}:{version} support-desk/{tier}:6.0.0")
    run = fleet.refused("6.0.0", **QUICK)
    assert "support-desk/backend:6.0.0" in message(run)
    assert fleet.app[1].name in message(run)
    fleet.check(version)


@pytest.mark.extended("release-faults")
def test_a_host_without_room_for_a_second_slot(fleet: Fleet):
    run = fails_and_goes_back(fleet, fleet.other(), release_minimum_memory_mb=1_000_000)
    assert "but a second slot needs" in message(run)
    assert "app_release_strategy to rolling" in message(run)
    assert "pull" not in run.report["steps"]


def test_two_releases_started_together(fleet: Fleet):
    before, other = fleet.version, fleet.other()
    first = fleet.start("deploy", other, **QUICK)
    first.wait_for("release: pull")
    second = fleet.refused("5.0.0-large", **QUICK)
    assert (second.report["outcome"], second.report["version"]) == ("refused", before)
    assert f"(process {first.process.pid}) holds the lock since 20" in message(second)
    done = first.end()
    assert done.returncode == 0, done.excerpt
    fleet.check(other, done)


@pytest.mark.extended("release-faults")
def test_a_disk_that_fills_during_the_pull(fleet: Fleet):
    """An engine collects layers in a folder before it unpacks them; that folder is made too small for one."""
    host = fleet.app[1]
    host.run("mount -t tmpfs -o size=4m tmpfs /var/lib/docker/tmp")
    try:
        run = fails_and_goes_back(fleet, "5.0.0-large")
    finally:
        host.run("umount /var/lib/docker/tmp")
    # The lab's registry is a mirror, so the last thing that the engine reports is that the registry itself is out of reach.
    assert "no space left on device" in host.run("journalctl --unit docker --since -3min")
    assert "Error pulling support-desk/" in message(run)
    assert "start" not in run.report["steps"]


@pytest.mark.extended("release-faults")
def test_a_lock_whose_holder_is_gone_is_taken_on_demand(fleet: Fleet):
    strand(fleet, 600)
    version, other = fleet.version, fleet.other()
    run = fleet.refused(other, **QUICK)
    assert "alice on ci-7 (process 4711) holds the lock since 2026-01-01T00:00:00Z" in message(run)
    assert "release_lock_takeover=true" in message(run)
    assert (run.report["outcome"], run.report["version"]) == ("refused", version)
    fleet.check(other, fleet.deploy(other, release_lock_takeover=True, **QUICK))


def test_a_migration_that_fails(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-migration-fails")
    assert "relation customers has no column fax" in message(run)
    assert "start" not in run.report["steps"]


@pytest.mark.extended("release-faults")
def test_a_lock_whose_holder_is_gone_expires(fleet: Fleet):
    strand(fleet, -1)
    other = fleet.other()
    fleet.check(other, fleet.deploy(other, **QUICK))


@pytest.mark.extended("release-faults")
def test_a_migration_that_hangs(fleet: Fleet):
    migrate = {"command": ["python", "-m", "support_desk.migrate"], "seconds": 3}
    run = fails_and_goes_back(fleet, "5.0.0-migration-hangs", app_service_overrides={"backend": {"migrate": migrate}})
    assert "has not ended within 3 s" in message(run)
    assert "waiting for a lock on customers" in message(run)


@pytest.mark.extended("release-faults")
def test_a_canary_gets_its_share(fleet: Fleet):
    before, version = fleet.version, fleet.other()
    run = fleet.start("deploy", version, app_canary_weight=25, app_canary_seconds=10, **QUICK)
    run.wait_for("release: canary")
    with fleet.lab.client() as client:
        wait_until(lambda: client.get("/api/version").json()["version"] == version, 20, "the canary gets requests")
        seen = Counter(client.get("/api/version").json()["version"] for _ in range(200))
    assert "release: switch" not in run.lines, "the canary was over before its requests were"
    assert set(seen) == {before, version}
    assert 30 <= seen[version] <= 70, seen
    done = run.end()
    assert done.returncode == 0, done.excerpt
    assert done.report["steps"]["canary"] >= 10
    fleet.check(version, done)


@pytest.mark.extended("release-faults")
def test_a_container_that_never_becomes_healthy(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-never-healthy", app_service_overrides={"backend": {"start_seconds": 6}})
    assert "did not become healthy within 6 s" in message(run)
    assert "switch" not in run.report["steps"]


@pytest.mark.extended("release-faults")
def test_images_of_versions_that_are_not_kept_go(fleet: Fleet):
    serving, version = fleet.version, fleet.other()
    for wanted in ("5.0.0-large", serving):
        fleet.deploy(wanted, **QUICK)
    record = fleet.records()[0]
    gone = set(record["history"]) - {serving, version}
    assert "5.0.0-large" in gone, record
    fleet.check(version, fleet.deploy(version, app_releases_kept=1, **QUICK))
    assert fleet.records()[0]["history"] == [version, record["version"]]
    for host in fleet.app:
        there = set(host.run("docker image ls --format '{{.Repository}}:{{.Tag}}'").split())
        for tier in ("backend", "frontend"):
            assert {f"support-desk/{tier}:{kept}" for kept in (version, record["version"])} <= there, host
            assert not {f"support-desk/{tier}:{old}" for old in gone} & there, host


@pytest.mark.extended("release-faults")
def test_a_version_that_is_healthy_and_never_ready(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-unready", release_gate_seconds=5)
    assert "/ready answers 503" in message(run)
    assert "switch" not in run.report["steps"]


@pytest.mark.extended("release-kills")
def test_killed_in_each_step_then_the_same_command_again(fleet: Fleet):
    """Each run is killed in a later step than the one before, so each puts right what that one left, and gets further."""
    before, version = fleet.version, fleet.other()
    for step in STEPS[: STEPS.index("record")]:
        killed_in(fleet, step, version)
        with fleet.lab.client() as client:
            answers = {client.get("/api/version").status_code for _ in range(10)}
        assert answers == {200}, step
    run = fleet.deploy(version, **QUICK)
    assert (run.report["outcome"], run.report["recovered"], run.report["previous"]) == ("released", "undo", before)
    fleet.check(version, run)


@pytest.mark.extended("release-faults")
def test_a_container_that_is_healthy_and_dies_before_the_switch(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-dies")
    assert "has died since it was ready" in message(run) or "does not answer" in message(run)


@pytest.mark.extended("release-faults")
def test_a_worker_that_dies_at_once(fleet: Fleet):
    """Requests would be answered; what they leave to the worker would not be done."""
    run = fails_and_goes_back(fleet, "5.0.0-worker-dies")
    assert "worker-" in message(run)
    assert "restarts repeatedly, last with exit status 1" in message(run)
    assert "no broker" in message(run)
    assert "switch" not in run.report["steps"]


@pytest.mark.extended("release-faults")
def test_a_host_that_is_lost_is_put_back_by_the_next_run(fleet: Fleet):
    before, lost = fleet.version, fleet.app[-1]
    run = fleet.start("deploy", "5.0.0-sours", **{**QUICK, "release_probe_seconds": 15})
    run.wait_for("release: probe")
    with lost.unreachable():
        done = run.end()
    assert done.returncode != 0
    assert f"not all of the release was undone on {lost.name}. The next run does that" in " ".join(done.output.split())
    # As a CI job finds it, which cannot see that the process of the run is gone.
    found = fleet.app[0].python(
        "lock = json.load(open(V['path'])); lock['holder']['boot_id'] = 'another-machine'; json.dump(lock, open(V['path'], 'w'));"
        "print(json.dumps(lock))",
        path=f"{FOLDER}/lock.json",
    )
    assert found["step"] == "switch", found
    with fleet.lab.client() as client:
        assert {client.get("/api/version").json()["version"] for _ in range(10)} == {before}
    again = fleet.rollback(**QUICK)
    assert again.report["recovered"] == "undo"
    fleet.check(before, again)


@pytest.mark.extended("release-kills")
def test_killed_in_retire_then_the_same_command_again(fleet: Fleet):
    killed_once_committed(fleet, "retire")


def test_a_version_that_answers_errors_after_the_switch(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-errors")
    assert "answers 500" in message(run)
    assert "probe" in run.report["steps"]


@pytest.mark.extended("release-kills")
def test_killed_in_record_then_the_same_command_again(fleet: Fleet):
    killed_once_committed(fleet, "record")


@pytest.mark.extended("release-faults")
def test_a_version_that_answers_errors_to_its_canary(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-errors", app_canary_weight=50, app_canary_seconds=2)
    assert "switch" not in run.report["steps"]
    assert run.report["prober"]["failed"] > 0


@pytest.mark.extended("release-recovery")
def test_a_rollback_that_died_is_done_by_the_same_command(fleet: Fleet):
    version = fleet.other()
    fleet.deploy(version, **QUICK)
    previous = fleet.records()[0]["previous"]["version"]
    run = fleet.start("rollback", **QUICK)
    run.wait_for("release: switch")
    time.sleep(0.4)
    run.kill()
    fleet.check(previous, fleet.rollback(**QUICK))


def test_lines_of_a_route_that_nginx_refuses(fleet: Fleet):
    """Only nginx can judge them, and it does before the migration."""
    routes = [{"path": "/api/", "extra_lines": ["no_such_directive on;"]}]
    run = fails_and_goes_back(fleet, fleet.other(), app_service_overrides={"backend": {"routes": routes}})
    assert "no_such_directive" in message(run)
    assert "extra_lines of the route /api/ of backend" in message(run)
    assert "migrate" not in run.report["steps"]


@pytest.mark.extended("release-faults")
def test_the_version_that_runs_is_not_released_again(fleet: Fleet):
    version = fleet.other()
    fleet.check(version, fleet.deploy(version, **QUICK))
    before = {container.name: container.inspect["Id"] for host in fleet.app for container in host.containers()}
    run = fleet.deploy(version)
    assert (run.report["outcome"], run.report["wanted"]) == ("unchanged", version)
    assert f"unchanged: version {version} serves" in run.output
    assert run.changed == []
    assert {container.name: container.inspect["Id"] for host in fleet.app for container in host.containers()} == before
    fleet.check(version, run)


@pytest.mark.extended("release-faults")
def test_an_image_that_reports_another_version_than_its_name(fleet: Fleet):
    run = fails_and_goes_back(fleet, "5.0.0-other-version", release_gate_seconds=5)
    assert "reports version 0.0.0 instead of 5.0.0-other-version" in message(run)
    assert "switch" not in run.report["steps"]


# One step for each state that a run leaves which dies: the lock, a migration, a slot, a share of the requests, all of them, a new version.
@pytest.mark.parametrize("step", ["preflight", "migrate", "start", "canary", "probe", "retire"])
@pytest.mark.extended("release-recovery")
def test_killed_then_a_rollback_instead(fleet: Fleet, step: str):
    """Whoever takes back a release that died wants what served before it, however far it came."""
    before, version = fleet.version, fleet.other()
    killed_in(fleet, step, version)
    recovers = "finish" if step in COMMITTED else "undo"
    plan = fleet.lab.playbook("plan").report["plan"]
    assert {row["action"] for row in plan if row["role"] == "release"} == {recovers}, plan
    run = fleet.rollback(**QUICK)
    assert run.report["recovered"] == recovers
    fleet.check(before, run)


@pytest.mark.extended("release-faults")
def test_a_version_that_turns_bad_once_it_serves(fleet: Fleet):
    """The probe finds it good; it is the prober that counts what clients lose then."""
    run = fails_and_goes_back(fleet, "5.0.0-sours", release_probe_seconds=15)
    assert "more requests failed than release_failure_budget" in message(run)
    assert run.report["prober"]["failed"] > 3


def test_a_maintenance_page_is_served_for_a_while(fleet: Fleet):
    version = fleet.version
    running = {container.name: container.inspect["Id"] for host in fleet.app for container in host.containers()}
    done = fleet.start("maintenance", state="on").end()
    assert done.returncode == 0, done.excerpt
    with fleet.lab.client() as client:
        for path in ("/", "/api/version", "/assets/anything.js"):
            answer = client.get(path)
            assert answer.status_code == 503, path
            assert int(answer.headers["retry-after"]) > 0
            assert answer.headers["cache-control"] == "no-store"
            assert "<html" in answer.text
        # The balancer itself is well, and says so.
        assert (client.get("/health").status_code, client.get("/health").text) == (200, "healthy\n")
    assert {container.name: container.inspect["Id"] for host in fleet.app for container in host.containers()} == running
    done = fleet.start("maintenance", state="off").end()
    assert done.returncode == 0, done.excerpt
    fleet.check(version)
    done = fleet.start("maintenance", state="on").end()
    assert done.returncode == 0, done.excerpt
    other = fleet.other()
    # A release ends it, and cannot count what clients lose, who got nothing before it either.
    run = fleet.deploy(other, **QUICK)
    fleet.check(other, run)
    assert not run.report["prober"]
