"""Certificates of an ACME authority on two balancers: the first one, renewals under load, and an authority that is away."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from slipway_lab import NETWORK, Lab, LabHost, wait_until

AUTHORITY = "slipway-lab/pebble:1"
NAMES = ["shop.example", "docs.example", "www.shop.example"]
SERVED = """
import socket, ssl, subprocess
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
found = {}
for name in V["names"]:
    with socket.create_connection(("127.0.0.1", 443), 10) as plain, context.wrap_socket(plain, server_hostname=name) as secure:
        pem = ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True))
    issuer = subprocess.run(["openssl", "x509", "-noout", "-issuer"], input=pem, capture_output=True, text=True, check=True).stdout
    found[name] = {"certificate": pem, "issuer": issuer}
print(json.dumps(found))
"""
STATE = "/etc/slipway/slipway/acme/state"

pytestmark = pytest.mark.extended("cluster")


class Authority:
    """Pebble on the lab's network, for which all names lead to one balancer."""

    def __init__(self, lab: Lab) -> None:
        self.name, self.lab = f"{lab.name}-pebble", lab

    def _docker(self, *arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self) -> None:
        self.stop()
        settings = {
            "listenAddress": "0.0.0.0:443",
            "managementListenAddress": "0.0.0.0:15000",
            "certificate": "/tmp/ca.pem",
            "privateKey": "/tmp/ca.key",
            "httpPort": 80,
            "tlsPort": 443,
        }
        script = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=pebble"
            ' -addext "subjectAltName=IP:$(hostname -i)" -keyout /tmp/ca.key -out /tmp/ca.pem 2>/dev/null'
            f" && echo '{json.dumps({'pebble': settings})}' >/tmp/pebble.json && exec pebble -config /tmp/pebble.json"
        )
        hosts = [part for name in NAMES for part in ("--add-host", f"{name}:{self.lab.balancer.address}")]
        # It refuses one nonce in twenty otherwise, and the client tries again once.
        self._docker(
            "run", "--detach", "--rm", "--name", self.name, "--network", NETWORK, "--label", f"slipway.lab.name={self.lab.name}", *hosts,
            "--env", "PEBBLE_VA_NOSLEEP=1", "--env", "PEBBLE_WFE_NONCEREJECT=0", AUTHORITY, "sh", "-c", script,
        )  # fmt: skip
        address = '{{(index .NetworkSettings.Networks "' + NETWORK + '").IPAddress}}'
        self.url = f"https://{self._docker('inspect', '--format', address, self.name)}/dir"
        wait_until(lambda: "Listening on" in self._docker("logs", self.name), 30, "pebble listens")
        self.ca = self._docker("exec", self.name, "cat", "/tmp/ca.pem")

    def stop(self) -> None:
        subprocess.run(["docker", "rm", "--force", self.name], capture_output=True, check=False)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Let it take requests and answer none."""
        self._docker("pause", self.name)
        try:
            yield
        finally:
            self._docker("unpause", self.name)


@pytest.fixture(scope="module")
def authority(lab: Lab) -> Iterator[Authority]:
    made = Authority(lab)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def balancers(lab: Lab, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LabHost]]:
    """Two balancers with certificates of the authority; at the end the lab has its own one again."""
    ca = tmp_path_factory.mktemp("acme") / "ca.pem"
    ca.write_text(authority.ca)
    own = {"names": ["localhost"], "certificate": "{{ inventory_dir }}/pki/server.pem", "key": "{{ inventory_dir }}/pki/server.key"}
    settings = {
        "nginx_tls_mode": "acme",
        "nginx_server_names": ["localhost", *NAMES[:2]],
        "nginx_certificates": [own],
        "nginx_redirects": [{"from": NAMES[2], "to": NAMES[0]}],
        "acme_directory_url": authority.url,
        "acme_ca_file": str(ca),
        # The names are known to the authority alone.
        "acme_check_from_controller": False,
    }
    written = {"acme.yml": {"balancers": {"hosts": {"app1": {}}}}, "group_vars/all/acme.yml": settings}
    for path, content in written.items():
        (lab.inventory / path).write_text(json.dumps(content))
    try:
        lab.playbook("secrets")
        lab.site()
        yield [lab.hosts["lb1"], lab.hosts["app1"]]
    finally:
        for path in written:
            (lab.inventory / path).unlink()
        lab.hosts["app1"].run(
            "systemctl disable --now slipway-slipway-acme.timer; rm -f /etc/systemd/system/slipway-slipway-acme.*; "
            "docker rm --force slipway-nginx slipway-acme; rm -rf /etc/slipway/slipway/nginx /etc/slipway/slipway/acme; "
            "docker volume rm nginx_certificates nginx_logs",
            check=False,
        )
        lab.site()
        lab.hosts["lb1"].run("docker volume rm nginx_certificates", check=False)


def served(host: LabHost) -> dict[str, dict[str, Any]]:
    """Return what a client that trusts everybody gets for each name: the certificate and its issuer."""
    return dict(host.python(SERVED, names=NAMES))


def test_every_balancer_has_a_certificate_of_its_own_for_all_names(lab: Lab, balancers: list[LabHost]):
    found = [served(host) for host in balancers]
    for certificates in found:
        assert len({item["certificate"] for item in certificates.values()}) == 1
        assert {"Pebble" in item["issuer"] for item in certificates.values()} == {True}, certificates
    assert found[0][NAMES[0]]["certificate"] != found[1][NAMES[0]]["certificate"]
    digest = "docker run --rm -v nginx_certificates:/c:ro --entrypoint sha256sum nginx:1-alpine /c/current/server.key"
    keys = {host.run(digest) for host in balancers}
    assert len(keys) == 2
    again = lab.site()
    assert again.changed == [], "what was issued is kept"


def test_a_renewal_cuts_no_connection(lab: Lab, balancers: list[LabHost]):
    """Half of the clients keep their connections, half make one for each request."""
    stop, failed, answered = threading.Event(), list[str](), [0]

    def ask(keep: bool) -> None:
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(lab.client())
            while not stop.is_set():
                try:
                    if not keep:
                        client = stack.enter_context(lab.client())
                    assert client.post("/api/sessions", json={}).status_code < 300
                    answered[0] += 1
                except (httpx.HTTPError, AssertionError) as error:
                    failed.append(repr(error))
                if not keep:
                    client.close()

    threads = [threading.Thread(target=ask, args=(keep,)) for keep in (True, True, False, False)]
    before = served(balancers[0])
    for thread in threads:
        thread.start()
    try:
        balancers[0].run(f"rm {STATE}/certificate.json && systemctl start slipway-slipway-acme.service")
        wait_until(lambda: served(balancers[0]) != before, 30, "the new certificate is served")
        seen = answered[0]
        wait_until(lambda: answered[0] > seen + 50, 30, "clients are answered by the new workers")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []


def test_an_authority_that_does_not_answer_leaves_what_is_served(lab: Lab, authority: Authority, balancers: list[LabHost]):
    before = served(balancers[0])
    balancers[0].run(f"rm {STATE}/certificate.json")
    with authority.silent():
        run = lab.playbook("site")
        assert run.returncode != 0
        assert f"{authority.url} does not answer as an ACME authority" in " ".join(run.output.split())
        status = lab.playbook("status")
        assert any("no certificate was issued" in item["what"] for item in status.report["status"]["problems"]), status.excerpt
    assert served(balancers[0]) == before
    assert lab.site().changed
    assert served(balancers[0]) != before
