"""Off-site repositories of the tests, which can be away for a while.

A pytest plugin next to slipway_lab, loaded by the tests that need it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from slipway_lab import NETWORK, Lab, programs_of, wait_until

REST_PORT = 8791
SFTP_PORT = 8794


@dataclass
class Repository:
    """A place for copies, and how it goes away and comes back."""

    address: str
    environment: dict[str, str]
    leave: Callable[[], object]
    come_back: Callable[[], object]
    #: What a run says of it meanwhile.
    says: str
    #: Its settings other than the address, and the file of its key, on the backup host.
    settings: dict[str, Any] = field(default_factory=dict)
    key: str = ""

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        self.leave()
        try:
            yield
        finally:
            self.come_back()


@pytest.fixture
def rest_server(lab: Lab) -> Iterator[Repository]:
    """restic's REST server on the backup host, which wants a login; while it is away, connections are refused."""
    (host,) = lab.groups["backup"]
    host.need("restic-rest-server")
    host.run("printf 'backup:{SHA}%s\n' \"$(printf rest-password-1 | openssl dgst -binary -sha1 | base64)\" >/root/htpasswd")

    def start() -> None:
        host.run(
            "systemd-run --unit rest-server --collect --quiet --setenv=HOME=/root restic-rest-server --path /root/rest "
            f"--listen 127.0.0.1:{REST_PORT} --htpasswd-file /root/htpasswd --private-repos"
        )
        wait_until(lambda: host.can_connect("127.0.0.1", REST_PORT), 20, "the REST server listens")

    start()
    yield Repository(
        f"rest:http://127.0.0.1:{REST_PORT}/backup/",
        {"RESTIC_REST_USERNAME": "backup", "RESTIC_REST_PASSWORD": "rest-password-1"},
        lambda: host.run("systemctl stop rest-server"),
        start,
        "connection refused",
    )
    host.run("systemctl stop rest-server; rm -rf /root/rest /root/htpasswd", check=False)


@pytest.fixture
def sftp_server(lab: Lab) -> Iterator[Repository]:
    """An account behind an SSH server of its own on the backup host; while it is away, connections are refused."""
    (host,) = lab.groups["backup"]
    host.run("test -e /root/key || ssh-keygen -q -t ed25519 -N '' -f /root/key")
    host.run("id keeper >/dev/null 2>&1 || useradd --create-home keeper")
    # Where the lab's sshd looks for them.
    host.run("install -m 0644 /root/key.pub /etc/ssh/authorized_keys/keeper")
    theirs = host.run("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub").strip()

    def start() -> None:
        host.run(
            f"systemd-run --unit sftp-server --collect --quiet /usr/sbin/sshd -D -o ListenAddress=127.0.0.1:{SFTP_PORT} -o PidFile=none"
        )
        wait_until(lambda: host.can_connect("127.0.0.1", SFTP_PORT), 20, "the SSH server listens")

    start()
    yield Repository(
        f"sftp://keeper@127.0.0.1:{SFTP_PORT}/restic",
        {},
        lambda: host.run("systemctl stop sftp-server"),
        start,
        "Connection refused",
        {"known_hosts": f"[127.0.0.1]:{SFTP_PORT} {theirs}"},
        "/root/key",
    )
    host.run("systemctl stop sftp-server; userdel --remove keeper; rm /root/key /root/key.pub", check=False)


@pytest.fixture(scope="session")
def moto_server() -> Path:
    """A program that speaks S3, in an environment of its own."""
    return programs_of("s3") / "moto_server"


@pytest.fixture
def s3(lab: Lab, moto_server: Path) -> Iterator[Repository]:
    """A bucket of a server that speaks S3, outside of the lab's hosts; while it is away, it takes connections and says nothing."""
    network = subprocess.run(["docker", "network", "inspect", NETWORK], capture_output=True, text=True, check=True)
    gateway = json.loads(network.stdout)[0]["IPAM"]["Config"][0]["Gateway"]
    with socket.socket() as probe:
        probe.bind((gateway, 0))
        port = probe.getsockname()[1]
    with (lab.state / "s3.log").open("w") as log:
        server = subprocess.Popen([str(moto_server), "-H", gateway, "-p", str(port)], stdout=log, stderr=log)
    try:
        (host,) = lab.groups["backup"]
        wait_until(lambda: host.can_connect(gateway, port), 30, "the S3 server listens")
        httpx.put(f"http://{gateway}:{port}/backups", trust_env=False).raise_for_status()
        yield Repository(
            f"s3:http://{gateway}:{port}/backups/slipway",
            {"AWS_ACCESS_KEY_ID": "keeper", "AWS_SECRET_ACCESS_KEY": "s3-password-1"},
            lambda: server.send_signal(signal.SIGSTOP),
            lambda: server.send_signal(signal.SIGCONT),
            "restic was stopped after 8 s",
        )
    finally:
        server.send_signal(signal.SIGCONT)
        server.terminate()
        server.wait(10)
