"""The host is lost with all that was on it, and comes back from the off-site repository, the inventory and the vault's password."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
import slipway_marks as marks
import yaml
from slipway_elsewhere import Repository
from slipway_lab import ROOT, Lab, LabHost

pytestmark = pytest.mark.extended("backup-losses")

PROGRAM = "docker exec slipway-backup slipway-backup"


def report(host: LabHost) -> dict[str, Any]:
    return dict(json.loads(host.run(f"{PROGRAM} --json report")))


def recreated(lab: Lab, host: LabHost) -> Lab:
    """Destroy a host with its disk, and return the lab with a new one of that name."""
    container = f"{lab.name}-{host.name}"
    subprocess.run(["docker", "rm", "--force", "--volumes", container], check=True, capture_output=True)
    subprocess.run(["docker", "volume", "rm", f"{container}-docker"], check=True, capture_output=True)
    ports = {"LAB_HTTPS_PORT": str(lab.https_port), "LAB_HTTP_PORT": str(lab.http_port), "LAB_SSH_BASE": str(host.port)}
    up = subprocess.run(
        ["lab/up"], cwd=ROOT, env={**os.environ, "LAB": lab.name, "TOPOLOGY": "one", **ports}, capture_output=True, text=True, check=False
    )
    assert up.returncode == 0, up.stdout + up.stderr
    return Lab(lab.name)


def test_everything_comes_back_onto_a_new_host_from_what_is_off_site(lab: Lab, s3: Repository):
    (host,) = lab.groups["backup"]
    inputs = {"backup_offsite_volume": "", "backup_offsite_repository": s3.address, "backup_offsite_environment": s3.environment}
    settings = lab.inventory / "group_vars/all/60_elsewhere.yml"
    settings.write_text(yaml.safe_dump(inputs, explicit_start=True), encoding="utf-8")
    lab.encrypt(settings)
    # One point is enough to be carried there.
    host.run("docker exec slipway-backup sh -c 'rm -rf /backup/points/2*'")
    lab.site()
    with lab.client() as client:
        session = client.post("/api/sessions", json={"title": "before the disaster"}).json()
        asked = client.post(f"/api/sessions/{session['id']}/messages", json={"content": "How do I reset my password?"})
        asked.raise_for_status()
        said = client.get(f"/api/sessions/{session['id']}/messages").json()
        articles = client.get("/api/search", params={"q": "password"}).json()
    marks.leave(lab, "before")
    lab.in_product("echo before > /uploads/disaster")
    left = marks.found(lab)
    done = lab.playbook("backup")
    assert done.returncode == 0, done.excerpt
    point = done.report["backup"]["last_point"]["name"]

    new = recreated(lab, host)
    (host,) = new.groups["backup"]
    assert not host.run("docker ps --all --quiet; docker volume ls --quiet; ls -A /etc/slipway 2>/dev/null || true").strip()
    new.site()
    restored = new.playbook("restore", variables={"point": "latest", "restore_confirm": "slipway"})
    assert restored.returncode == 0, restored.excerpt
    assert restored.report["restore"]["point"] == point
    assert marks.found(new) == left
    new.wait_until_healthy()
    assert new.in_product("cat /uploads/disaster") == "before"
    with new.client() as client:
        assert client.get(f"/api/sessions/{session['id']}").json()["title"] == "before the disaster"
        assert client.get(f"/api/sessions/{session['id']}/messages").json() == said
        assert client.get("/api/search", params={"q": "password"}).json() == articles
    # And is kept again: the run that the restore has begun makes a point, which is proven and off-site.
    host.wait_for_backups()
    told = report(host)
    assert told["alerts"] == []
    assert told["last_verified"]["name"] == told["last_point"]["name"] > point
    assert told["offsite"]["pending"] == []
    assert new.site().changed == []
