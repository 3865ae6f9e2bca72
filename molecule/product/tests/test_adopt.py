"""What docs/adopt.md leads through: a product that runs with docker compose moves to Slipway with its data, and back.

The commands are those of the page, in its order; only the name of the environment is another one.
"""

from __future__ import annotations

import re
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

pytestmark = pytest.mark.extended("adopt")
PRODUCTION = ROOT / "examples/guestbook/production"
FOLDER = "/srv/guestbook"
OLD_KEY = re.findall(r"SECRET_KEY: (\S+)", (PRODUCTION / "compose.yml").read_text())[0]
PAGE = ROOT / "docs/adopt.md"
#: What the page's command of an editor stands for.
WRITE_OLD_KEY = f"""EDITOR="sed -i 's/^vault_app_secret_key:.*/vault_app_secret_key: {OLD_KEY}/'" """
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
    host = prepared(environment)
    compose(host, "up --detach --quiet-pull")
    serve_entries(host)
    return host


def prepared(environment: Environment, *changes: tuple[str, str]) -> LabHost:
    """Return the host with the images, the certificate and the files of the old product, in whose compose.yml texts are replaced."""
    host = environment.empty_host()
    environment.run("ansible-playbook playbooks/build.yml -i inventories/shop")
    images = subprocess.Popen(["docker", "save", "guestbook/backend:1.0", "guestbook/frontend:1.0"], stdout=subprocess.PIPE)
    subprocess.run([*host.ssh(), "sudo docker load"], stdin=images.stdout, check=True, capture_output=True)
    assert images.wait() == 0
    host.need("docker-compose", "openssl")
    host.run(f"rm -rf {FOLDER} && mkdir -p {FOLDER}/tls && {CERTIFICATE}")
    for name in ("compose.yml", "nginx.conf"):
        text = (PRODUCTION / name).read_text()
        for old, new in changes if name == "compose.yml" else ():
            assert old in text
            text = text.replace(old, new)
        host.run(f"cat >{FOLDER}/{name} <<'END'\n{text}END")
    tls = environment.folder / "tls"
    shutil.rmtree(tls, ignore_errors=True)
    tls.mkdir()
    for name in ("site.pem", "site.key"):
        (tls / name).write_text(host.run(f"cat {FOLDER}/tls/{name}"))
    return host


def serve_entries(host: LabHost) -> None:
    """Make the tables of the old product, and cache a value."""
    wait_until(lambda: "OK" in compose(host, "exec -T backend python manage.py migrate --noinput", check=False), 60, "tables are there")
    compose(host, "exec -T cache redis-cli set greeting hello")
    compose(host, "exec -T cache redis-cli save")


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
        for item in page_commands(PAGE):
            if item in page_commands(PAGE, "## To another host"):
                continue
            run.append(item.command)
            if item.kind == "host":
                follow(old_host, item.command)
            else:
                if "playbooks/site.yml" in item.command:
                    assert not old_host.containers()
                environment.run((WRITE_OLD_KEY if item.command.startswith("ansible-vault edit") else "") + item.command)
            if "playbooks/secrets.yml" in item.command:
                # Too early: it says what is in the way, and the old product serves on.
                site_yml = "ansible-playbook playbooks/site.yml -i inventories/shop"
                refused = environment.run(site_yml, fails=True)
                assert "port 443 (nginx_https_port) is taken by container guestbook-proxy-1" in refused
                refused = environment.run(f"{site_yml} -e postgres_app_name=guestbook_admin", fails=True)
                said = "(POSTGRES_USER) is named guestbook_admin, as is a role of the inventory: set postgres_app_name to another name"
                assert said in " ".join(refused.split())
                assert site.get("/api/entries").json()["entries"] == entries
            if "playbooks/site.yml" in item.command:
                assert site.get("/api/entries").json()["entries"] == entries
                entries += [{"name": "Bob", "text": "after the move"}]
                assert site.post("/api/entries", json=entries[-1]).json()["entries"] == entries
                greeting = "REDISCLI_AUTH=$(cat /run/secrets/app_password) redis-cli --user app --no-auth-warning get greeting"
                assert old_host.run(f"docker exec slipway-redis sh -c '{greeting}'").strip() == "hello"
                assert environment.secrets()["vault_app_secret_key"] == OLD_KEY
                assert old_host.run("docker exec slipway-backend-blue-1 cat /run/secrets/SECRET_KEY").strip() == OLD_KEY
                # What was taken over is the stack's from now on.
                environment.run(item.command)
                assert environment.report("site")["changed"] == []
            if "playbooks/destroy.yml" in item.command:
                assert not old_host.containers()
    assert [part for part in ("site.yml", "drill.yml", "destroy.yml", "cp -a") if not any(part in command for command in run)] == []
    wait_until(lambda: serves(site), 60, "the old product serves again")
    assert site.get("/api/entries").json()["entries"] == entries
    assert compose(old_host, "exec -T cache redis-cli get greeting").strip() == "hello"
    assert statement(old_host, "guestbook_admin", "select count(*) from pg_replication_slots") == "0"
    compose(old_host, "down")
    # The same host stands for the new one, with a volume of another name there.
    (copy,) = page_commands(PAGE, "## To another host")
    here, there = copy.command.split(" | ssh root@new.example.com ")
    old_host.run(f"{here} | sh -c {there.replace('guestbook_db_data', 'copied_db_data')}")
    volumes = "/var/lib/docker/volumes"
    old_host.run(f"diff --recursive {volumes}/guestbook_db_data/_data {volumes}/copied_db_data/_data")
    owners = "find . -printf '%p %U %m\\n' | sort | sha256sum"
    first, second = (old_host.run(f"cd {volumes}/{name}/_data && {owners}") for name in ("guestbook_db_data", "copied_db_data"))
    assert first == second
    print(f"the product was away for {seconds[0]:.0f} s, with the move back")


def follow(host: LabHost, command: str) -> None:
    """Run a command of the page in the old product's folder."""
    host.run(f"cd {FOLDER} && {command}")


def statement(host: LabHost, user: str, sql: str) -> str:
    """Return what the old database answers."""
    return compose(host, f'exec -T db psql -X -q -A -t -U {user} -d guestbook -c "{sql}"').strip()


def test_a_product_with_a_role_of_its_own_moves_and_returns(environment: Environment):
    """The superuser is the image's, postgres, and keeps its password; the product's role has its tables and privileges again."""
    url, admin = "postgresql://guestbook:of-the-product-2024@", "postgresql://guestbook_admin:only-on-the-old-host@"
    host = prepared(environment, ("      POSTGRES_USER: guestbook_admin\n", ""), (admin, url))
    environment.run("ansible-playbook playbooks/secrets.yml -i inventories/shop")
    environment.run(f"cp {PRODUCTION.relative_to(ROOT)}/slipway.yml inventories/shop/group_vars/all/30_old_host.yml")
    compose(host, "up --detach --quiet-pull db")
    wait_until(lambda: "accepting" in compose(host, "exec -T db pg_isready -h 127.0.0.1", check=False), 60, "the old database is up")
    statement(host, "postgres", "create role guestbook login password 'of-the-product-2024'")
    statement(host, "postgres", "alter database guestbook owner to guestbook")
    compose(host, "up --detach --quiet-pull")
    serve_entries(host)
    site = environment.site()
    entries = [{"name": "Ada", "text": "before the move"}, {"name": "Bob", "text": "after the move"}]
    wait_until(lambda: serves(site), 60, "the old product serves")
    site.post("/api/entries", json=entries[0]).raise_for_status()
    for item in [*page_commands(PAGE, "### 1. Stop the old product"), *page_commands(PAGE, "### 2. Data in folders of the host")]:
        follow(host, item.command)
    (deploy,) = page_commands(PAGE, "### 3. Deploy")
    environment.run(deploy.command)
    assert site.post("/api/entries", json=entries[1]).json()["entries"] == entries
    for item in page_commands(PAGE, "## Undo"):
        if item.kind == "host":
            follow(host, item.command.replace("-U guestbook_admin", "-U postgres").replace("to guestbook_admin", "to guestbook"))
        else:
            environment.run(item.command)
    wait_until(lambda: serves(site), 60, "the old product serves again")
    entries += [{"name": "Eve", "text": "after the undo"}]
    assert site.post("/api/entries", json=entries[-1]).json()["entries"] == entries
    compose(host, "exec -T backend python manage.py migrate --noinput")
    # Over the network, where the image asks for the password.
    compose(host, "exec -T -e PGPASSWORD=only-on-the-old-host db psql -h db -U postgres -c 'select 1'")
    compose(host, "down --volumes")
