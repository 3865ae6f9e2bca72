"""A role from a folder of its own (examples/roles/search) runs a store in the stack: no file of the collection knows of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator

import pytest
from slipway_lab import ROOT, Lab, LabHost, Run, Stranger

pytestmark = pytest.mark.extended("default")
PORT = 7700
KEY = "Ck7pW2mRx9Tz4LqV8sNd"
Play = Callable[..., Run]


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    return lab.balancer


@pytest.fixture(scope="module")
def friend(lab: Lab) -> Iterator[Stranger]:
    """A machine that the inventory names, as one that reads from the store; Slipway runs nothing there."""
    made = Stranger(lab, "friend")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def play(lab: Lab, host: LabHost, friend: Stranger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    """Run a playbook with the role and an inventory that has a host for it; at the end the stack is as it was."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(ROOT / "examples/roles/search", folder / "roles/search")
    description = folder / "roles/search/meta/service.yml"
    description.write_text(description.read_text(encoding="utf-8").replace("peers: [app]", "peers: [app, reader]"), encoding="utf-8")
    reader = folder / "roles/reader/meta"
    reader.mkdir(parents=True)
    (reader / "service.yml").write_text(json.dumps({"group": "readers", "turn": 90, "changed_by": "build"}), encoding="utf-8")
    (reader / "argument_specs.yml").write_text(json.dumps({"argument_specs": {"main": {"options": {}}}}), encoding="utf-8")
    groups = {"search": {"hosts": {host.name: {}}}, "readers": {"hosts": {"friend": {"slipway_address": friend.address}}}}
    (folder / "hosts.yml").write_text(json.dumps({"all": {"children": groups}}), encoding="utf-8")

    def run(playbook: str, *arguments: str, **variables: object) -> Run:
        given = {"vault_search_key": KEY, **variables}
        return lab.playbook(playbook, "-i", str(folder / "hosts.yml"), *arguments, variables=given, roles=folder / "roles")

    yield run
    host.run("docker rm --force slipway-search && docker volume rm --force search_data && rm -rf /etc/slipway/slipway/search")
    lab.site()


@pytest.fixture(scope="module")
def deployed(play: Play) -> Run:
    run = play("site")
    assert run.returncode == 0, run.excerpt
    return run


def test_preflight_looks_at_its_port_and_its_memory(play: Play, host: LabHost):
    host.run(f"systemd-run --unit slipway-squatter --quiet python3 -m http.server {PORT}")
    try:
        run = play("site", search_memory_mb=1_000_000)
    finally:
        host.run("systemctl stop slipway-squatter")
    assert run.returncode != 0
    assert f"port {PORT} (search_port) is taken by python3" in run.output, run.excerpt
    assert "search_memory_mb asks for 1000000 MB of memory" in run.output, run.excerpt
    assert run.changed == []


@pytest.mark.usefixtures("deployed")
def test_those_who_need_it_reach_it_and_no_others(host: LabHost, friend: Stranger, stranger: Stranger):
    store = host.service("search")
    assert store.health == "healthy"
    assert [mount["Destination"] for mount in store.inspect["Mounts"] if mount.get("Name") == "search_data"] == ["/data"]
    assert KEY not in json.dumps(store.inspect)
    clients = {item.kind: item.pid for item in host.containers() if item.running}
    inside = store.networks["slipway-database"]
    assert host.can_connect(inside, PORT, pid=clients["backend"])
    assert not host.can_connect(inside, PORT, pid=clients["frontend"])
    # Published on the host's address, where the firewall admits the one that the inventory names.
    assert friend.can_connect(host.address, PORT)
    assert stranger.can_connect(host.address, 443)
    assert not stranger.can_connect(host.address, PORT)


@pytest.mark.usefixtures("deployed")
def test_a_second_run_changes_nothing(play: Play):
    run = play("site")
    assert (run.returncode, run.changed) == (0, []), run.excerpt
    assert set(run.report["remote_calls"].values()) == {1}


@pytest.mark.usefixtures("deployed")
def test_it_goes_with_the_stack_and_its_volume_stays(play: Play, host: LabHost):
    run = play("destroy", "--check", "-v", "--limit", host.name, slipway_destroy="slipway")
    assert run.returncode == 0, run.excerpt
    assert "slipway-search" in run.output
    assert "search_data" in run.output
