"""A product that is built once, behind a private CA and a proxy, and brought to two hosts in each of the ways there are.

Runs last in the scenario, as it releases other versions.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from slipway_lab import Lab, Run, wait_until

BASE = "1.0.0"
# Of the password below, for the registry's file of users.
USERS = "deploy:$2y$05$abcdefghijklmnopqrstuu/2rhj5a9/IlEXX0IrD./Rs8eisoBM3i\n"
PASSWORD = "right-horse-battery"
BACKEND = f"""\
FROM support-desk/backend:{BASE}
USER 0
ARG ORIGIN
COPY fetch /fetch
# What a package manager does: over TLS with a private authority, and through a proxy.
RUN --mount=type=secret,id=ca,target=/tmp/ca.pem python3 /fetch $ORIGIN/package /tmp/ca.pem /package
RUN python3 /fetch http://packages.invalid/other - /other
USER 10001:10001
COPY payload /payload
ARG APP_VERSION
ENV APP_VERSION=$APP_VERSION
"""
FRONTEND = f"FROM support-desk/frontend:{BASE}\nARG APP_VERSION\nENV APP_VERSION=$APP_VERSION\n"
FETCH = """\
import ssl, sys, urllib.request
url, authority, target = sys.argv[1:]
context = ssl.create_default_context(cafile=authority) if authority != "-" else None
open(target, "wb").write(urllib.request.urlopen(url, context=context).read())
"""


class Packages(http.server.BaseHTTPRequestHandler):
    """A server of packages, and the proxy to another one."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a package")

    def log_message(self, *_: Any) -> None:
        pass


def serve(context: ssl.SSLContext | None = None) -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Packages)
    server.asked = []  # type: ignore[attr-defined]
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def command(*words: str | Path, **options: Any) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@dataclass
class Product:
    """A product of the tests' own, and how it is built."""

    lab: Lab
    folder: Path
    variables: dict[str, Any] = field(default_factory=dict)

    def commit(self, tag: str, payload: bytes) -> None:
        (self.folder / "backend/payload").write_bytes(payload)
        command("git", "-C", self.folder, "add", ".")
        command("git", "-C", self.folder, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", tag)
        command("git", "-C", self.folder, "tag", tag)

    def run(self, playbook: str, version: str, *arguments: str, **variables: Any) -> Run:
        return self.lab.playbook(playbook, *arguments, variables={**self.variables, "app_version": version, **variables})

    def build(self, version: str, *arguments: str, **variables: Any) -> Run:
        run = self.run("build", version, *arguments, **variables)
        assert run.returncode == 0, run.excerpt
        return run

    def ship(self, version: str) -> None:
        """Have a version on all app hosts, of the folder as it stands where none is recorded."""
        file = self.lab.inventory / "group_vars/all/30_images.yml"
        if not file.exists() or version not in file.read_text(encoding="utf-8"):
            self.commit(f"v{version}", os.urandom(200_000))
            self.build(version, ship=True)

    def recorded(self, version: str) -> dict[str, dict[str, str]]:
        file = self.lab.inventory / "group_vars/all/30_images.yml"
        found: dict[str, dict[str, str]] = yaml.safe_load(file.read_text(encoding="utf-8"))["image_digests"][version]
        return found

    def check_hosts(self, version: str, prefix: str = "") -> None:
        """Every app host must have exactly what was recorded, and no name of it that only a tunnel understood."""
        for tier, entry in self.recorded(version).items():
            for host in self.lab.groups["app"]:
                name = f"{prefix}tiny/{tier}:{version}"
                assert host.run(f"docker image inspect --format '{{{{.Id}}}}' {name}").strip() == entry["id"], f"{name} on {host}"
                names = host.run(f"docker image inspect --format '{{{{.RepoTags}}}} {{{{.RepoDigests}}}}' {name}")
                assert prefix or "127.0.0.1" not in names, names


@pytest.fixture(scope="module")
def product(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    top = tmp_path_factory.mktemp("build")
    folder = top / "product"
    for tier, recipe in (("backend", BACKEND), ("frontend", FRONTEND)):
        (folder / tier).mkdir(parents=True)
        (folder / tier / "Dockerfile").write_text(recipe)
    (folder / "backend/fetch").write_text(FETCH)
    command("git", "init", "--quiet", folder)
    command(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", top / "key.pem", "-out", top / "ca.pem",
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(top / "ca.pem", top / "key.pem")
    origin, proxy = serve(context), serve()
    # No version of it is recorded yet.
    (lab.inventory / "group_vars/all/30_images.yml").unlink(missing_ok=True)
    made = Product(lab, folder)
    made.variables = {
        "app_service_overrides": {
            "backend": {
                "image": "tiny/backend:{{ app_version }}",
                "build": {"arguments": {"ORIGIN": f"https://localhost:{origin.server_port}"}},
            },
            "worker": {"image": "tiny/backend:{{ app_version }}"},
            "prune": {"image": "tiny/backend:{{ app_version }}"},
            "frontend": {"image": "tiny/frontend:{{ app_version }}"},
        },
        "image_source": str(folder),
        "image_ca_file": str(top / "ca.pem"),
        "image_http_proxy": f"http://127.0.0.1:{proxy.server_port}",
    }
    yield made
    assert "/package" in origin.asked  # type: ignore[attr-defined]
    assert "http://packages.invalid/other" in proxy.asked  # type: ignore[attr-defined]
    for server in (origin, proxy):
        server.shutdown()
    names = command("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    mine = [name for name in names if re.search(r"(^|/)tiny/(backend|frontend):", name)]
    if mine:
        command("docker", "image", "rm", *mine)


def bytes_sent(run: Run) -> list[int]:
    return [int(number) for number in re.findall(r"bytes_sent: (\d+)", run.output)]


@pytest.mark.extended("images")
def test_without_the_authority_the_build_says_why_it_fails(product: Product):
    product.commit("v1.0.9", os.urandom(200_000))
    run = product.run("build", "1.0.9", image_ca_file=str(shutil.copy("/dev/null", product.folder.parent / "none.pem")))
    assert run.returncode != 0
    assert "the backend cannot be built from" in run.output
    assert re.search(r"SSL|CERTIFICATE", run.output), run.excerpt
    recorded = product.lab.inventory / "group_vars/all/30_images.yml"
    assert not recorded.exists() or "1.0.9" not in recorded.read_text(encoding="utf-8")


@pytest.mark.extended("images")
def test_a_folder_is_built_and_released_over_ssh(product: Product, client: httpx.Client):
    product.commit("v1.1.0", os.urandom(200_000))
    product.build("1.1.0")
    run = product.run("deploy", "1.1.0", "-v")
    assert run.returncode == 0, run.excerpt
    product.check_hosts("1.1.0")
    assert len(bytes_sent(run)) == 2
    answers = [client.get("/api/version").json() for _ in range(20)]
    assert {answer["version"] for answer in answers} == {"1.1.0"}
    assert len({answer["instance"] for answer in answers}) == 2
    ids = {tier: entry["id"] for tier, entry in product.recorded("1.1.0").items()}
    # Builds record an image once; the worker and the job share the backend's.
    ids["worker"] = ids["prune"] = ids["backend"]
    assert run.report["digests"] == {"app1": ids, "app2": ids}


@pytest.mark.extended("images")
def test_of_the_next_version_only_its_own_layer_travels(product: Product):
    product.ship("1.1.0")
    product.commit("v1.2.0", os.urandom(100_000))
    # What is not committed is not part of it.
    (product.folder / "backend/payload").write_bytes(os.urandom(5_000_000))
    run = product.build("1.2.0", "-v", image_source=f"file://{product.folder}", image_git_ref="v1.2.0", ship=True)
    product.check_hosts("1.2.0")
    sent = bytes_sent(run)
    assert len(sent) == 2
    assert all(100_000 < number < 160_000 for number in sent), sent
    assert re.findall(r"layers_moved: (\d+)", run.output).count("1") == 2, run.excerpt


@pytest.mark.extended("images")
def test_a_version_names_one_image_for_good(product: Product):
    product.ship("1.2.0")
    before = product.recorded("1.2.0")
    (product.folder / "backend/payload").write_bytes(os.urandom(100_000))
    run = product.run("build", "1.2.0")
    assert run.returncode != 0
    assert "version 1.2.0 of the backend is recorded with" in run.output
    assert "image_replace=true" in run.output
    assert product.recorded("1.2.0") == before


@pytest.fixture
def registry(product: Product, tmp_path: Path) -> Iterator[str]:
    """A registry with a login, which builder and hosts reach under one name: on their own loopback, by tunnels of the test's."""
    (tmp_path / "users").write_text(USERS)
    name = f"{product.lab.name}-users-registry"
    subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
    command(
        "docker", "run", "--detach", "--name", name, "--label", f"slipway.lab.name={product.lab.name}", "--publish", "127.0.0.1::5000",
        "--volume", f"{tmp_path}/users:/users:ro", "--env", "REGISTRY_AUTH=htpasswd", "--env", "REGISTRY_AUTH_HTPASSWD_REALM=tests",
        "--env", "REGISTRY_AUTH_HTPASSWD_PATH=/users", "registry:2",
    )  # fmt: skip
    address = command("docker", "port", name, "5000/tcp").splitlines()[0]
    port = address.rpartition(":")[2]
    with contextlib.ExitStack() as open_tunnels:
        for host in product.lab.groups["app"]:
            options = ["-N", "-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes"]
            ssh = host.ssh(*options, "-R", f"127.0.0.1:{port}:127.0.0.1:{port}")
            tunnel = subprocess.Popen(ssh, stderr=subprocess.DEVNULL)
            open_tunnels.callback(tunnel.terminate)
            wait_until(lambda host=host: host.can_connect("127.0.0.1", int(port)), 30, f"{host} reaches the registry")
        yield f"127.0.0.1:{port}"
    command("docker", "rm", "--force", "--volumes", name)


@pytest.mark.extended("images")
def test_a_registry_of_the_users_gets_and_gives_the_images(product: Product, registry: str, client: httpx.Client):
    product.commit("v1.3.0", os.urandom(100_000))
    serving = client.get("/api/version").json()["version"]

    def images_of(address: str) -> dict[str, Any]:
        services = product.variables["app_service_overrides"].items()
        overrides = {name: {**given, "image": f"{address}/{given['image']}"} for name, given in services}
        return {"app_service_overrides": overrides, "image_transport": "registry"}

    variables = images_of(registry)
    login = {"username": "deploy", "password": "wrong-password-of-the-test"}
    for arguments in ((), ("-vvv",)):
        run = product.run("build", "1.3.0", *arguments, **variables, image_registry_login=login)
        assert run.returncode != 0
        assert f"cannot be pushed to {registry}" in run.output
        assert "correct image_registry_login" in run.output
        assert login["password"] not in run.output
    login["password"] = PASSWORD
    run = product.build("1.3.0", "-vvv", **variables, image_registry_login=login, ship=True)
    assert PASSWORD not in run.output
    product.check_hosts("1.3.0", f"{registry}/")
    for host in product.lab.groups["app"]:
        assert not host.succeeds("grep -rqs deploy /root/.docker")
        host.run(f"docker image rm {registry}/tiny/backend:1.3.0")
    run = product.run("deploy", "1.3.0", **variables, image_registry_login={**login, "password": "another-wrong-one"})
    assert run.returncode != 0
    assert "the registry refuses the login" in run.output
    assert "another-wrong-one" not in run.output
    assert run.report["version"] == serving
    run = product.run("build", "1.3.1", **images_of("127.0.0.1:9"))
    assert run.returncode != 0
    assert "cannot be pushed to 127.0.0.1:9" in run.output


@pytest.fixture
def registry_host(lab: Lab) -> Iterator[None]:
    """Have the backup host in the group of the registry, and take the registry off it afterwards."""
    hosts = lab.inventory / "hosts.yml"
    before = hosts.read_text(encoding="utf-8")
    hosts.write_text(before + "    registry:\n      hosts:\n        backup1:\n", encoding="utf-8")
    yield
    hosts.write_text(before, encoding="utf-8")
    lab.hosts["backup1"].run("docker rm --force slipway-registry")


@pytest.mark.usefixtures("registry_host")
@pytest.mark.extended("images")
def test_a_registry_of_the_stack_is_reached_through_ssh_alone(product: Product):
    product.commit("v1.4.0", os.urandom(100_000))
    lab = product.lab
    run = product.build("1.4.0", image_transport="hosted", ship=True)
    assert [change for change in run.changed if change.startswith("backup1: container") and "registry" in change]
    product.check_hosts("1.4.0")
    address = lab.hosts["backup1"].address
    assert lab.hosts["backup1"].can_connect("127.0.0.1", 5000)
    assert not lab.hosts["app1"].can_connect(address, 5000)
