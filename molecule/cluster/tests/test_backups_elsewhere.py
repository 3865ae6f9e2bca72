"""A restore where the stores are on other hosts than the backups: the data goes to the hosts it is of, and to no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import slipway_marks as marks
from slipway_lab import Lab, LabHost, Stranger

HOST_PROGRAM = "python3 /etc/slipway/slipway/backup/config/current/slipway_backup_host.py"
REDIS_PORT = 8791
# Fetches an address without looking at its certificate; prints the status, and how many bytes came.
FETCH = """
import http.client, ssl
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
connection = http.client.HTTPSConnection({host!r}, {port}, timeout=10, context=context)
connection.request("GET", {path!r})
answer = connection.getresponse()
print(json.dumps([answer.status, len(answer.read())]))
"""


def kinds_of_volumes(lab: Lab) -> dict[str, set[str]]:
    """Return the volumes of each host, without the moment in the names of those that were set aside."""
    listed = {name: host.run("docker volume ls --format '{{.Name}}'").split() for name, host in lab.hosts.items()}
    return {name: {volume.partition("-before-")[0] for volume in volumes} for name, volumes in listed.items()}


@pytest.fixture(scope="module")
def point(lab: Lab) -> str:
    """A point that holds a mark, with another one written since."""
    marks.leave(lab, "before")
    done = lab.playbook("backup")
    assert done.returncode == 0, done.excerpt
    return str(done.report["backup"]["last_point"]["name"])


@pytest.fixture
def offered(lab: Lab, point: str) -> Iterator[str]:
    """The address at which Redis' data is offered to the host of Redis, as a restore does."""
    backup = lab.hosts["backup1"]
    backup.run(f"{HOST_PROGRAM} stage {point} --stores redis")
    told = backup.run(f"{HOST_PROGRAM} hand-over redis {backup.address} {REDIS_PORT}")
    yield json.loads(told.strip().splitlines()[-1])["url"]
    backup.run(f"{HOST_PROGRAM} unstage")


def test_restored_data_is_offered_to_the_host_of_its_store_alone(lab: Lab, stranger: Stranger, offered: str):
    url = urlsplit(offered)
    address = str(url.hostname)

    def fetch(host: LabHost, path: str) -> list[int]:
        return list(host.python(FETCH.format(host=address, port=url.port, path=path)))

    # Whoever else knows the address does not get to it.
    for name in ("lb1", "app1", "app2", "db1"):
        assert not lab.hosts[name].can_connect(address, REDIS_PORT), name
    assert not stranger.can_connect(address, REDIS_PORT)
    cache = lab.hosts["cache1"]
    # Nor does that host itself without the word that the controller brings it.
    assert fetch(cache, "/")[0] == 404
    status, length = fetch(cache, url.path)
    assert status == 200
    assert length > 0
    assert not cache.can_connect(address, REDIS_PORT), "it is offered once"


def test_data_that_cannot_be_offered_leaves_the_product_in_service(lab: Lab, point: str):
    before = kinds_of_volumes(lab)
    backup = lab.hosts["backup1"]
    backup.run(f"systemd-run --unit obstacle --collect --quiet python3 -m http.server {REDIS_PORT}")
    try:
        failed = lab.playbook("restore", variables={"point": point, "stores": "redis", "restore_confirm": "slipway"})
    finally:
        backup.run("systemctl stop obstacle")
    assert failed.returncode != 0
    assert "Nothing was touched" in " ".join(failed.output.split())
    lab.wait_until_healthy()
    assert kinds_of_volumes(lab) == before, "nothing of the restored data is left"


@pytest.mark.extended("restore-hosts")
def test_a_restore_in_place_brings_each_store_its_data(lab: Lab, point: str):
    left = marks.found(lab)
    before = kinds_of_volumes(lab)
    marks.leave(lab, "since")
    assert marks.found(lab) != left
    restored = lab.playbook("restore", variables={"point": "latest", "restore_confirm": "slipway"})
    assert restored.returncode == 0, restored.excerpt
    assert restored.report["restore"]["point"] == point
    assert marks.found(lab) == left
    lab.wait_until_healthy()
    # With its drill, whose containers are no part of the stack.
    assert lab.hosts["backup1"].wait_for_backups() == "inactive"
    assert kinds_of_volumes(lab) == before, "no host has another's data, and nothing that was on its way is left"
    for port in range(8790, 8793):
        assert not lab.hosts["db1"].can_connect(lab.hosts["backup1"].address, port)
