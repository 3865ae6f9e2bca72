"""Secrets are in the files of their services, and in no other place."""

from __future__ import annotations

import uuid

import pytest
import slipway_leaks
from slipway_lab import ROOT, Lab

# On hosts that share the tiers these hold as on one that has all of them.
pytestmark = pytest.mark.extended("cluster", scenario="cluster")


def test_no_secret_is_outside_the_secret_folders(lab: Lab):
    texts = slipway_leaks.needles(lab)
    seen: set[str] = set()
    for host in lab.hosts.values():
        outside, inside, looked = slipway_leaks.leaks(host, texts)
        assert not outside, "\n".join(outside)
        assert looked["process"] > 10
        assert looked["file"] > 100
        running = len([container for container in host.containers() if container.running])
        if running:
            assert looked["layer"] >= running
            assert looked["memory"] >= running
            assert looked["inspect"] > 0
            assert looked["image"] > 0
        seen |= set(inside)
    # The search finds every secret that exists: all but the superuser's key of the authority, which stays on the controller.
    expected = {
        "vault_postgres_app_password",
        "vault_redis_app_password",
        "vault_redis_admin_password",
        "vault_app_secret_key",
        "vault_postgres_backup_password",
        "vault_redis_backup_password",
        "vault_backup_offsite_password",
        "pki/server.key",
    }
    assert expected <= seen
    assert "pki/ca.key" not in seen


def test_search_sees_what_a_container_wrote(lab: Lab):
    text = uuid.uuid4().hex
    host = lab.balancer
    host.run(f"docker create --name slipway-probe $(docker inspect --format {{{{.Image}}}} slipway-nginx) && echo {text} >/tmp/{text}")
    try:
        host.run(f"docker cp --quiet /tmp/{text} slipway-probe:/by-hand && rm /tmp/{text}")
        outside, _, _ = slipway_leaks.leaks(host, {"probe": [text]})
    finally:
        host.run("docker rm slipway-probe")
    assert any("/by-hand" in place and "layer " in place for place in outside), outside


def test_files_of_the_controller_hold_no_secret(lab: Lab):
    texts = slipway_leaks.needles(lab)
    texts = {name: many for name, many in texts.items() if not name.startswith("pki/")}
    places = [*lab.inventory.rglob("*"), *(ROOT / "reports").glob("*"), *lab.reports.glob("*")]
    found = {str(path): slipway_leaks.shown(path.read_text(encoding="utf-8", errors="replace"), texts) for path in places if path.is_file()}
    assert found
    assert not {path: names for path, names in found.items() if names}


def test_vault_is_encrypted(lab: Lab):
    text = (lab.inventory / "group_vars/all/vault.yml").read_text(encoding="utf-8")
    assert text.startswith("$ANSIBLE_VAULT;")
