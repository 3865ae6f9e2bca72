"""Copies go to each kind of repository, come back from it, and damage there is found."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from slipway_elsewhere import Repository
from slipway_lab import Lab, LabHost

pytestmark = pytest.mark.extended("backup-losses")

PROGRAM = "docker exec slipway-backup slipway-backup"
FOLDER = "/root/offsite"
# Redis alone is enough of a point, so that each kind takes a few seconds. With the user and the rights that the role gives.
USER = "10002:10002"
TOOLS = (
    f"docker run --rm --network host --user {USER} --cap-drop ALL --env HOME=/tmp --volume {FOLDER}/data:/backup "
    f"--volume {FOLDER}/config:/config:ro "
    f"--volume {FOLDER}/secrets:/run/secrets:ro --volume /etc/slipway/slipway/backup/config:/etc/slipway:ro slipway/backup-tools:1 "
    "--config /config/backup.json"
)


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    (found,) = lab.groups["backup"]
    return found


@pytest.fixture
def program(host: LabHost) -> Iterator[Callable[..., Any]]:
    """A function that runs the program with a repository of its own, once it was given one; it returns what the program printed."""
    address = host.service("redis").networks["slipway-database"]
    config = json.loads(host.run("cat /etc/slipway/slipway/backup/config/current/backup.json"))
    config |= {"postgres": {}, "chroma": {}, "volumes": [], "minimum_free_percent": 0}
    config["redis"]["host"] = address

    def run(
        *arguments: str, offsite: dict[str, Any] | None = None, environment: dict[str, str] | None = None, key: str = "", code: int = 0
    ) -> str:
        if offsite:
            host.run(f"rm -rf {FOLDER} && mkdir -p {FOLDER}/data/points {FOLDER}/config")
            host.run(f"cp -r /etc/slipway/slipway/backup/secrets {FOLDER}/secrets")
            host.run(f"echo {shlex.quote(json.dumps(config | {'offsite': offsite}))} >{FOLDER}/config/backup.json")
            host.run(f"echo {shlex.quote(json.dumps(environment or {}))} >{FOLDER}/secrets/offsite_environment")
            if key:
                host.run(f"cp {key} {FOLDER}/secrets/offsite_ssh_key && chmod 0400 {FOLDER}/secrets/offsite_ssh_key")
            host.run(f"chown -R {USER} {FOLDER}")
        done = host.testinfra.run(f"{TOOLS} --json {shlex.join(arguments)}")
        assert done.rc == code, f"{shlex.join(arguments)} ended with {done.rc}:\n{done.stdout}{done.stderr}"
        return str(done.stdout + done.stderr)

    yield run
    host.run(f"rm -rf {FOLDER}")


def goes_there_and_comes_back(host: LabHost, program: Callable[..., Any], repository: str, **settings: Any) -> None:
    """Make a point with its copy off-site, lose the first, and bring it back."""
    program("run", "--quiet", offsite={"repository": repository, **settings.pop("offsite", {})}, **settings)
    (there,) = json.loads(program("list", "--offsite"))
    program("check", "--read-data", "100")
    host.run(f"rm -r {FOLDER}/data")
    host.run(f"install -d -o 10002 -g 10002 {FOLDER}/data {FOLDER}/data/points")
    assert json.loads(program("fetch", "latest")) == there["name"]
    program("verify", there["name"])


def test_a_repository_behind_ssh(host: LabHost, program: Callable[..., Any], sftp_server: Repository):
    goes_there_and_comes_back(host, program, sftp_server.address, offsite=sftp_server.settings, key=sftp_server.key)
    # Never with a host that is not the one that was named.
    another = host.run("cut -d' ' -f1,2 /root/key.pub").strip()
    named = {"known_hosts": f"{sftp_server.settings['known_hosts'].split()[0]} {another}"}
    with pytest.raises(AssertionError, match="Host key verification failed"):
        program("run", offsite={"repository": sftp_server.address, **named}, key=sftp_server.key)


def test_a_repository_of_the_rest_server(host: LabHost, program: Callable[..., Any], rest_server: Repository):
    goes_there_and_comes_back(host, program, rest_server.address, environment=rest_server.environment)
    with pytest.raises(AssertionError, match="401"):
        program(
            "run", offsite={"repository": rest_server.address}, environment=rest_server.environment | {"RESTIC_REST_PASSWORD": "another"}
        )


def test_a_repository_in_s3(host: LabHost, program: Callable[..., Any], s3: Repository):
    goes_there_and_comes_back(host, program, s3.address, environment=s3.environment)


@pytest.fixture
def folder(host: LabHost) -> Repository:
    """A folder, as of a disk that is mounted."""
    there, away = f"{FOLDER}/data/elsewhere", f"{FOLDER}/away"
    return Repository(
        "/backup/elsewhere", {}, lambda: host.run(f"mv {there} {away}"), lambda: host.run(f"mv {away} {there}"), "has vanished"
    )


@pytest.mark.parametrize("kind", ["folder", "rest_server", "s3", "sftp_server"])
def test_a_repository_that_was_away_gets_what_it_lacks(program: Callable[..., Any], request: pytest.FixtureRequest, kind: str):
    place: Repository = request.getfixturevalue(kind)
    settings = {"repository": place.address, "timeout": 8, **place.settings}
    program("run", "--quiet", offsite=settings, environment=place.environment, key=place.key)
    with place.away():
        said = program("run", "--quiet", code=2)
        assert place.says in said, "no second repository is made in its place"
        told = json.loads(program("report"))
    there, lacking = told["points"]
    assert (there["offsite"], lacking["offsite"]) == (True, False)
    assert told["offsite"]["pending"] == [lacking["name"]]
    assert told["last_run"]["result"] == "failed"
    assert told["last_run"]["reason"].startswith(f"the point {lacking['name']} is there, but: ")
    assert any(alert.startswith(f"off-site lacks {lacking['name']}") for alert in told["alerts"])
    program("verify", lacking["name"])
    program("run", "--quiet")
    told = json.loads(program("report"))
    assert told["offsite"]["pending"] == []
    assert told["alerts"] == []
    assert [point["name"] for point in json.loads(program("list", "--offsite"))] == [point["name"] for point in told["points"]]
    assert len(told["points"]) == 3


def test_damage_off_site_is_found(host: LabHost):
    pack = host.run("docker exec slipway-backup sh -c 'find /offsite/restic/data -type f -size +20k | head -n 1'").strip()
    host.run(f"docker exec slipway-backup sh -c 'cp -p {pack} /offsite/kept && chmod u+w {pack}'")
    try:
        host.run(f"docker exec slipway-backup sh -c 'printf damaged | dd of={pack} bs=1 seek=5000 conv=notrunc status=none'")
        said = host.run(f"{PROGRAM} check --read-data 100; echo code=$?", check=False)
        assert "code=1" in said
        assert "check the off-site repository" in said
    finally:
        host.run(f"docker exec slipway-backup sh -c 'cp -p /offsite/kept {pack} && rm /offsite/kept'")
    host.run(f"{PROGRAM} check --read-data 100")
