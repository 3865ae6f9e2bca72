"""What the product has written into a volume, and what an extra service prints, is in each point, proven by drills, and comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from slipway_lab import Lab, LabHost, wait_until

HOST_PROGRAM = "python3 /etc/slipway/slipway/backup/config/current/slipway_backup_host.py"
PROGRAM = "docker exec slipway-backup slipway-backup"
NAME = "lab1/uploads"
LETTERS = "/uploads/letters"
DUMP = "lab1/cache_dump"


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    (found,) = lab.groups["backup"]
    return found


@pytest.fixture
def point(lab: Lab, host: LabHost) -> dict[str, Any]:
    """The manifest of a new point that holds an upload, and a dump."""
    lab.service("cache").execute("redis-cli", "set", "kept", "before")
    lab.in_product(f"mkdir -p {LETTERS} && echo Dear > {LETTERS}/one && chmod 0640 {LETTERS}/one && ln -sf one {LETTERS}/newest")
    host.run(f"{HOST_PROGRAM} run --wait 300")
    return dict(json.loads(host.run(f"{PROGRAM} --json show latest")))


@pytest.fixture
def flipped(host: LabHost, point: dict[str, Any]) -> Iterator[str]:
    """A point in which a byte of the upload is another one, with size and time as they were."""
    path = f"/backup/points/{point['name']}/trees/{NAME}/letters/one"
    keep, give_back = f"touch -r {path} /tmp/time", f"touch -r /tmp/time {path}"

    def flip(byte: str) -> None:
        host.run(f"docker exec slipway-backup sh -c '{keep} && printf {byte} | dd of={path} bs=1 conv=notrunc && {give_back}'")

    flip("d")
    yield point["name"]
    flip("D")
    # Proven again.
    host.run(f"{HOST_PROGRAM} drill {point['name']}")


@pytest.mark.extended("drill")
def test_an_upload_comes_back_from_a_proven_point(lab: Lab, host: LabHost, point: dict[str, Any]):
    told = point["stores"]["volumes"]
    assert told["missing"] == {}
    assert (told["sets"][NAME]["files"], told["sets"][NAME]["bytes"]) == (2, 5)
    drill = lab.playbook("drill")
    assert drill.returncode == 0, drill.excerpt
    results = {check["name"]: check["result"] for check in drill.report["drill"]["checks"]}
    assert [results[f"volume {name}"] for name in (NAME, DUMP)] == ["passed", "passed"]
    look = f"cd {LETTERS} && stat -c '%n %F %a %u:%g %Y' one && readlink newest && cat one"
    before = lab.in_product(look)
    lab.in_product(f"echo spam > {LETTERS}/one && rm {LETTERS}/newest && echo two > {LETTERS}/two")
    lab.service("cache").execute("redis-cli", "set", "kept", "after")
    restored = lab.playbook("restore", variables={"point": point["name"], "stores": "volumes", "restore_confirm": "slipway"})
    assert restored.returncode == 0, restored.excerpt
    lab.wait_until_healthy()
    assert lab.in_product(look) == before
    assert lab.in_product(f"ls {LETTERS}").split() == ["newest", "one"]
    assert lab.service("cache").execute("redis-cli", "get", "kept").strip() == "before"
    assert host.wait_for_backups() == "inactive"
    # What was written since is not lost.
    undone = lab.playbook("restore", variables={"restore_undo": True, "stores": "volumes", "restore_confirm": "slipway"})
    assert undone.returncode == 0, undone.excerpt
    assert lab.in_product(f"cat {LETTERS}/one {LETTERS}/two").split() == ["spam", "two"]
    assert lab.service("cache").execute("redis-cli", "get", "kept").strip() == "after"
    assert host.wait_for_backups() == "inactive"


def test_the_product_is_quiet_while_its_volume_is_copied(lab: Lab, host: LabHost, point: dict[str, Any]):
    assert "quiet" in host.run(f"docker exec slipway-backup ls /backup/points/{point['name']}/trees/{NAME}").split()
    wait_until(lambda: "quiet" not in lab.in_product("ls /uploads").split(), 30, "the product goes on")


@pytest.mark.extended("drill")
def test_a_drill_finds_a_byte_that_differs(lab: Lab, flipped: str):
    run = lab.playbook("drill", variables={"point": flipped})
    assert run.returncode != 0
    assert f"volumes/{NAME}: letters/one is damaged: sha256 differs" in run.excerpt


@pytest.mark.extended("drill")
def test_a_volume_that_cannot_be_read_is_named_and_costs_nothing_else(host: LabHost, point: dict[str, Any]):
    host.run("docker stop slipway-volume-server")
    try:
        code = host.testinfra.run(f"{HOST_PROGRAM} run").rc
    finally:
        host.run("docker start slipway-volume-server")
    assert code == 2
    made = json.loads(host.run(f"{PROGRAM} --json show latest"))
    assert made["name"] > point["name"]
    assert set(made["stores"]["volumes"]["missing"]) == {NAME, DUMP}
    assert set(made["stores"]) == set(point["stores"])
    alerts = json.loads(host.run(f"{PROGRAM} --json report").splitlines()[0])["alerts"]
    (alert,) = [alert for alert in alerts if alert.startswith("the last recovery point lacks the volumes")]
    refused = host.testinfra.run(f"{HOST_PROGRAM} stage latest")
    assert "lacks the volumes" in refused.stdout
    assert all(name in told for name in (NAME, DUMP) for told in (alert, refused.stdout))
    assert f"-e point={point['name']}" in refused.stdout
    host.run(f"{HOST_PROGRAM} run --wait 300")
