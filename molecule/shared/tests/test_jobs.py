"""The product's nightly job: its container waits for its time, and a run does what it is for."""

from __future__ import annotations

import json

import httpx
from slipway_lab import JOBS_PROGRAM, Lab, sql


def test_each_app_host_waits_for_the_time_of_the_job(lab: Lab):
    for host in lab.groups["app"]:
        assert host.run("systemctl is-active slipway-slipway-job.prune.timer").strip() == "active"
        (container,) = [item for item in host.containers() if item.of_job]
        assert (container.kind, container.inspect["State"]["Status"]) == ("prune", "created")


def test_the_job_deletes_old_conversations_and_no_other(lab: Lab, client: httpx.Client):
    old, fresh = (client.post("/api/sessions", json={"title": title}).json()["id"] for title in ("old", "fresh"))
    sql(lab.service("postgres"), f"update sessions set updated_at = now() - interval '91 days' where id = '{old}'")
    host = lab.groups["app"][-1]
    said = host.run(f"{JOBS_PROGRAM} run prune")
    assert "succeeded" in said, said
    answers = {name: client.get(f"/api/sessions/{name}/messages").status_code for name in (old, fresh)}
    assert answers == {old: 404, fresh: 200}
    state = json.loads(host.run("cat /etc/slipway/slipway/jobs/state/prune.json"))
    assert (state["result"], state["version"]) == ("succeeded", client.get("/api/version").json()["version"])
    assert not [item.name for item in host.containers() if item.of_job and item.running], "a run leaves nothing behind"
