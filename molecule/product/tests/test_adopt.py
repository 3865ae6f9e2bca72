"""What docs/adopt.md leads through: a product that runs with docker compose moves to Slipway with its data, and back.

The commands are those of the page, in its order; only the name of the environment is another one.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from environment import Environment, page_commands
from slipway_lab import ROOT, Lab, LabHost, wait_until

pytestmark = pytest.mark.extended("product")
PRODUCTION = ROOT / "examples/guestbook/production"
FOLDER = "/srv/guestbook"
CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    f" -keyout {FOLDER}/tls/site.key -out {FOLDER}/tls/site.pem"
)


@pytest.fixture(scope="module")
def environment(lab: Lab) -> Iterator[Environment]:
    """An environment folder of the guestbook with Redis, as its old host has one, and no stack on that host."""
    made = Environment(lab, "adopt", without=("chroma",))
    try:
        made.run("cp examples/guestbook/slipway.yml inventories/shop/group_vars/all/20_product.yml")
        yield made
    finally:
        made.remove()


@pytest.fixture
def old_host(environment: Environment) -> LabHost:
    """The host as it is before: the guestbook runs with docker compose, and holds an entry and a cached value."""
    host = environment.empty_host()
    environment.run("ansible-playbook playbooks/build.yml -i inventories/shop")
    images = subprocess.Popen(["docker", "save", "guestbook/backend:1.0", "guestbook/frontend:1.0"], stdout=subprocess.PIPE)
    subprocess.run([*host.ssh(), "sudo docker load"], stdin=images.stdout, check=True, capture_output=True)
    assert images.wait() == 0
    host.need("docker-compose", "openssl")
    host.run(f"mkdir -p {FOLDER}/tls && {CERTIFICATE}")
    for name in ("compose.yml", "nginx.conf"):
        host.run(f"cat >{FOLDER}/{name} <<'END'\n{(PRODUCTION / name).read_text()}END")
    compose(host, "up --detach --quiet-pull")
    wait_until(lambda: "OK" in compose(host, "exec -T backend python manage.py migrate --noinput", check=False), 60, "tables are there")
    compose(host, "exec -T cache redis-cli set greeting hello")
    tls = environment.folder / "tls"
    shutil.rmtree(tls, ignore_errors=True)
    tls.mkdir()
    for name in ("site.pem", "site.key"):
        (tls / name).write_text(host.run(f"cat {FOLDER}/tls/{name}"))
    return host


def compose(host: LabHost, command: str, check: bool = True) -> str:
    """Run docker compose in the old product's folder."""
    return host.run(f"cd {FOLDER} && docker compose {command}", check=check)


def serves(site: httpx.Client) -> bool:
    """Return whether the product answers."""
    try:
        return site.get("/api/entries", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def away(site: httpx.Client) -> Iterator[list[float]]:
    """Give the seconds for which the product did not answer, at the end."""
    seconds: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        missed: list[float] = []
        while not ended.wait(0.2):
            if not serves(site):
                missed.append(time.monotonic())
        seconds.append(missed[-1] - missed[0] if missed else 0.0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seconds
    finally:
        ended.set()
        watcher.join()


def test_the_page_leads_from_compose_to_slipway_and_back(environment: Environment, old_host: LabHost):
    site = environment.site()
    site.post("/api/entries", json={"name": "Ada", "text": "before the move"}).raise_for_status()
    entries = [{"name": "Ada", "text": "before the move"}]
    run: list[str] = []
    with away(site) as seconds:
        for item in page_commands(ROOT / "docs/adopt.md"):
            run.append(item.command)
            if item.kind == "host":
                compose(old_host, item.command.removeprefix("docker compose "))
            else:
                if "playbooks/site.yml" in item.command:
                    assert not old_host.containers()
                environment.run(item.command)
            if "playbooks/secrets.yml" in item.command:
                # Too early: it says what is in the way, and the old product serves on.
                refused = environment.run("ansible-playbook playbooks/site.yml -i inventories/shop", fails=True)
                assert "port 443 (nginx_https_port) is taken by container guestbook-proxy-1" in refused
                assert site.get("/api/entries").json()["entries"] == entries
            if "playbooks/site.yml" in item.command:
                assert site.get("/api/entries").json()["entries"] == entries
                entries += [{"name": "Bob", "text": "after the move"}]
                assert site.post("/api/entries", json=entries[-1]).json()["entries"] == entries
                greeting = "REDISCLI_AUTH=$(cat /run/secrets/app_password) redis-cli --user app --no-auth-warning get greeting"
                assert old_host.run(f"docker exec slipway-redis sh -c '{greeting}'").strip() == "hello"
                # What was taken over is the stack's from now on.
                environment.run(item.command)
                assert environment.report("site")["changed"] == []
            if "playbooks/destroy.yml" in item.command:
                assert not old_host.containers()
    assert [part for part in ("site.yml", "drill.yml", "destroy.yml") if not any(part in command for command in run)] == []
    wait_until(lambda: serves(site), 60, "the old product serves again")
    assert site.get("/api/entries").json()["entries"] == entries
    assert compose(old_host, "exec -T cache redis-cli get greeting").strip() == "hello"
    compose(old_host, "down --volumes")
    print(f"the product was away for {seconds[0]:.0f} s, with the move back")
