"""Copies go to each kind of repository, come back from it, and damage there is found."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from slipway_lab import NETWORK, ROOT, Lab, LabHost, wait_until

PROGRAM = "docker exec slipway-backup slipway-backup"
FOLDER = "/root/offsite"
# Redis alone is enough of a point, so that each kind takes a few seconds. As root of the container, as the folders are root's.
TOOLS = (
    f"docker run --rm --network host --user 0 --cap-drop ALL --volume {FOLDER}/data:/backup --volume {FOLDER}/config:/config:ro "
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
    config |= {"postgres": {}, "chroma": {}, "minimum_free_percent": 0}
    config["redis"]["host"] = address

    def run(*arguments: str, offsite: dict[str, Any] | None = None, environment: dict[str, str] | None = None, key: str = "") -> str:
        if offsite:
            host.run(f"rm -rf {FOLDER} && mkdir -p {FOLDER}/data/points {FOLDER}/config")
            host.run(f"cp -r /etc/slipway/slipway/backup/secrets {FOLDER}/secrets")
            host.run(f"chown -R 0:0 {FOLDER}")
            host.run(f"echo {shlex.quote(json.dumps(config | {'offsite': offsite}))} >{FOLDER}/config/backup.json")
            host.run(f"echo {shlex.quote(json.dumps(environment or {}))} >{FOLDER}/secrets/offsite_environment")
            if key:
                host.run(f"cp {key} {FOLDER}/secrets/offsite_ssh_key && chmod 0400 {FOLDER}/secrets/offsite_ssh_key")
        return host.run(f"{TOOLS} --json {shlex.join(arguments)}")

    yield run
    host.run(f"rm -rf {FOLDER}")


def goes_there_and_comes_back(host: LabHost, program: Callable[..., Any], repository: str, **settings: Any) -> None:
    """Make a point with its copy off-site, lose the first, and bring it back."""
    program("run", "--quiet", offsite={"repository": repository, **settings.pop("offsite", {})}, **settings)
    (there,) = json.loads(program("list", "--offsite"))
    program("check", "--read-data", "100")
    host.run(f"rm -r {FOLDER}/data")
    host.run(f"mkdir -p {FOLDER}/data/points")
    assert json.loads(program("fetch", "latest")) == there["name"]
    program("verify", there["name"])


def test_a_repository_behind_ssh(host: LabHost, program: Callable[..., Any]):
    host.run("test -e /root/key || ssh-keygen -q -t ed25519 -N '' -f /root/key")
    host.run("id keeper >/dev/null 2>&1 || useradd --create-home keeper")
    # Where the lab's sshd looks for them.
    host.run("install -m 0644 /root/key.pub /etc/ssh/authorized_keys/keeper")
    theirs, ours = (host.run(f"cut -d' ' -f1,2 {key}.pub").strip() for key in ("/etc/ssh/ssh_host_ed25519_key", "/root/key"))
    try:
        goes_there_and_comes_back(
            host, program, "sftp:keeper@127.0.0.1:restic", offsite={"known_hosts": f"127.0.0.1 {theirs}"}, key="/root/key"
        )
        # Never with a host that is not the one that was named.
        with pytest.raises(AssertionError, match=r"(?i)host key"):
            program("run", offsite={"repository": "sftp:keeper@127.0.0.1:other", "known_hosts": f"127.0.0.1 {ours}"}, key="/root/key")
    finally:
        host.run("userdel --remove keeper", check=False)


@pytest.fixture
def rest_server(host: LabHost) -> Iterator[str]:
    """The address of restic's REST server, which wants a login."""
    host.run("printf 'backup:{SHA}%s\n' \"$(printf rest-password-1 | openssl dgst -binary -sha1 | base64)\" >/root/htpasswd")
    host.run(
        "systemd-run --unit rest-server --collect --quiet --setenv=HOME=/root restic-rest-server --path /root/rest --listen 127.0.0.1:8791 "
        "--htpasswd-file /root/htpasswd --private-repos"
    )
    wait_until(lambda: host.can_connect("127.0.0.1", 8791), 20, "the REST server listens")
    yield "rest:http://127.0.0.1:8791/backup/"
    host.run("systemctl stop rest-server; rm -rf /root/rest /root/htpasswd", check=False)


def test_a_repository_of_the_rest_server(host: LabHost, program: Callable[..., Any], rest_server: str):
    login = {"RESTIC_REST_USERNAME": "backup", "RESTIC_REST_PASSWORD": "rest-password-1"}
    goes_there_and_comes_back(host, program, rest_server, environment=login)
    with pytest.raises(AssertionError, match="401"):
        program("run", offsite={"repository": rest_server}, environment=login | {"RESTIC_REST_PASSWORD": "another"})


@pytest.fixture
def s3(lab: Lab) -> Iterator[str]:
    """The address of a bucket, of a server that speaks S3; it runs where the tests do."""
    network = subprocess.run(["docker", "network", "inspect", NETWORK], capture_output=True, text=True, check=True)
    gateway = json.loads(network.stdout)[0]["IPAM"]["Config"][0]["Gateway"]
    with socket.socket() as probe:
        probe.bind((gateway, 0))
        port = probe.getsockname()[1]
    with (lab.state / "s3.log").open("w") as log:
        server = subprocess.Popen([str(ROOT / ".lab/s3/bin/moto_server"), "-H", gateway, "-p", str(port)], stdout=log, stderr=log)
    try:
        (host,) = lab.groups["backup"]
        wait_until(lambda: host.can_connect(gateway, port), 30, "the S3 server listens")
        httpx.put(f"http://{gateway}:{port}/backups", trust_env=False).raise_for_status()
        yield f"s3:http://{gateway}:{port}/backups/slipway"
    finally:
        server.terminate()
        server.wait(10)


def test_a_repository_in_s3(host: LabHost, program: Callable[..., Any], s3: str):
    goes_there_and_comes_back(host, program, s3, environment={"AWS_ACCESS_KEY_ID": "keeper", "AWS_SECRET_ACCESS_KEY": "s3-password-1"})


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
