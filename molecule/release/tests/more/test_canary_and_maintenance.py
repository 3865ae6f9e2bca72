"""A new version may get a share of the requests first, and a product may be taken away for a while."""

from __future__ import annotations

from collections import Counter

from slipway_lab import wait_until
from slipway_release import QUICK, Fleet


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
    assert done.returncode == 0, done.output[-6000:]
    assert done.report["steps"]["canary"] >= 10
    fleet.check(version, done)


def test_a_maintenance_page_is_served_for_a_while(fleet: Fleet):
    version = fleet.version
    running = {container.name: container.inspect["Id"] for host in fleet.app for container in host.containers()}
    done = fleet.start("maintenance", state="on").end()
    assert done.returncode == 0, done.output[-6000:]
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
    assert done.returncode == 0, done.output[-6000:]
    fleet.check(version)
