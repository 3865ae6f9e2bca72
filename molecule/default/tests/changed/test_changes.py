"""What becomes of a running stack: changes by hand, changes in the inventory, a store away, an engine restarted, a host rebooted."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import slipway_leaks
import websockets
from slipway_lab import APP, Lab, LabHost, logged, sql, wait_until

# A login by a password that is on no command line.
LOGIN = r"""
import subprocess
inside = 'read -r PGPASSWORD; export PGPASSWORD; exec psql -X -A -t -q -w -d "$0" -c "$1" 2>&1'
command = ["docker", "exec", "--interactive", "slipway-postgres", "sh", "-c", inside, V["connection"], V["statement"]]
print(json.dumps(subprocess.run(command, input=V["password"] + "\n", stdout=subprocess.PIPE, text=True, check=False).stdout))
"""
NGINX = "/etc/slipway/slipway/nginx/config/current/servers.conf"


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    return lab.balancer


def reasons(output: str, host: LabHost) -> set[str]:
    """Return what a run says that differs."""
    return {line.strip().removeprefix(f"{host.name}: ") for line in output.splitlines() if line.startswith(f"  {host.name}: ")}


def ids(lab: Lab) -> dict[str, str]:
    return {container.service: container.inspect["Id"] for container in lab.containers()}


def running_backends(host: LabHost) -> list[str]:
    """Return the backends that run, of which one slot's are expected."""
    return [item.name for item in host.containers() if item.kind == "backend" and item.running]


def question(lab: Lab) -> dict[str, Any]:
    """Ask over HTTP, and return the answer."""
    with lab.client() as client:
        session = client.post("/api/sessions", json={"title": "kept"}).json()["id"]
        answer = client.post(f"/api/sessions/{session}/messages", json={"content": "Can I get a refund?"})
        assert answer.status_code == 201, answer.text
        return {"session": session, **answer.json()}


def test_nothing_to_do_is_nothing_done(lab: Lab):
    run = lab.site("--check", "--diff")
    assert run.changed == []
    assert max(run.report["remote_calls"].values()) <= 3, run.report["remote_calls"]


@pytest.mark.extended("default")
def test_a_store_is_restarted_only_where_that_is_accepted(lab: Lab):
    wanted: dict[str, Any] = {"slipway_accept_restart": False, "postgres_max_connections": 120, "redis_memory_mb": 200}
    before = ids(lab)
    planned = {row["service"]: (row["action"], row["waits"]) for row in lab.playbook("plan", variables=wanted).report["plan"]}
    assert {service: row for service, row in planned.items() if row[0] != "nothing"} == {
        "postgres": ("restart", True),
        "redis": ("reload", False),
    }
    run = lab.site(variables=wanted)
    assert len(run.report["waiting"]) == 1
    assert "postgres on " in run.report["waiting"][0]
    assert {change.rpartition(": ")[2] for change in run.changed} == {"redis"}
    assert ids(lab) == before
    again = lab.site(variables=wanted)
    assert (again.changed, again.report["waiting"]) == ([], run.report["waiting"])
    assert "waits for a restart" in lab.playbook("status", variables=wanted).output

    accepted = lab.site("-e", "accept=restart", variables=wanted)
    assert accepted.report["waiting"] == []
    assert {name for name, container in ids(lab).items() if container != before[name]} == {"postgres"}
    # The lab accepts restarts.
    assert lab.site().changed


@pytest.fixture
def other_version(host: LabHost) -> Iterator[str]:
    """The same images under another version, on the host alone."""
    names = [f"support-desk/{name}" for name in ("backend", "frontend")]
    host.run(" && ".join(f"docker tag {name}:1.0.0 {name}:1.0.9" for name in names))
    yield "1.0.9"
    host.run(f"docker rmi {' '.join(f'{name}:1.0.9' for name in names)}")


@pytest.mark.extended("default")
@pytest.mark.parametrize("moves", [False, True], ids=["settings", "version"])
def test_what_a_trial_of_the_product_shows_is_refused_before_a_store_changes(lab: Lab, host: LabHost, other_version: str, moves: bool):
    files = "find /etc/slipway/slipway/redis -type f -exec sha256sum {} +"
    before, written = ids(lab), host.run(files)
    wanted: dict[str, Any] = {"redis_memory_mb": 210, "app_service_overrides": {"backend": {"entrypoint": ["nosuchprogram"]}}}
    run = lab.playbook("site", variables={**wanted, "app_version": other_version} if moves else wanted)
    assert run.returncode != 0
    assert "has no program 'nosuchprogram' that its user may run" in " ".join(run.output.split())
    assert (ids(lab), host.run(files)) == (before, written)
    assert lab.site("--check").changed == []


def test_changes_by_hand_are_named_and_reverted_and_nothing_else_is(lab: Lab, host: LabHost):
    said = question(lab)
    before = ids(lab)
    host.run("docker stop slipway-postgres")
    host.run(f"sed -i 's/client_max_body_size/# by hand/; $ a # by hand' {NGINX}")
    host.run("docker network disconnect slipway-database slipway-chroma")
    # Recreated by hand: the same name, the stack's labels, and none of its options.
    host.run("docker rm --force slipway-redis && docker run --detach --name slipway-redis --network slipway-database --network-alias redis "
             "--label slipway.stack=slipway --label slipway.service=redis --label slipway.owner=redis redis:7-alpine")  # fmt: skip

    dry = lab.site("--check", "--diff")
    named = reasons(dry.output, host)
    assert {reason.partition(":")[0] for reason in named} == {"postgres", "nginx", "redis", "chroma"}, named
    assert "postgres: the container is exited" in named
    assert f"nginx: {NGINX} differs" in named
    assert "chroma: joins network slipway-database" in named
    assert "redis: its declaration changed" in named
    assert "-# by hand" in dry.output, "the diff shows the line that was added"
    assert ids(lab)["postgres"] == before["postgres"], "a dry run made something"

    fixed = lab.site()
    assert reasons(fixed.output, host) == named
    after = ids(lab)
    assert {service for service in after if after[service] != before[service]} == {"redis"}
    lab.wait_until_healthy(5)
    assert "by hand" not in host.run(f"cat {NGINX}")
    # The messages from before are still there: the volumes outlive their containers.
    with lab.client() as client:
        stored = client.get(f"/api/sessions/{said['session']}/messages").json()
    assert len(stored) == 2
    assert question(lab)["cached"] is True, "Redis lost its answers"
    again = lab.site()
    assert again.changed == []


@pytest.mark.extended("default")
def test_containers_recreated_by_hand_are_replaced_and_nothing_is_lost(lab: Lab, host: LabHost):
    """As a user in a hurry does it: no label of the stack, the default network, another image's command, the port of nginx taken."""
    said = question(lab)
    before = ids(lab)
    host.run("docker rm --force slipway-redis slipway-nginx")
    host.run("docker run --detach --name slipway-redis --volume redis_data:/data redis:7-alpine")
    host.run("docker run --detach --name slipway-nginx --publish 80:80 --publish 443:443 nginx:1-alpine")
    (live,) = running_backends(host)
    host.run(f"docker rm --force {live} && docker create --name {live} redis:7-alpine")

    dry = lab.site("--check", "--diff")
    names = {"redis", "nginx", live.removeprefix("slipway-")}
    assert {f"{name}: it was created by hand" for name in names} <= reasons(dry.output, host), dry.output
    lab.site()
    lab.wait_until_healthy(5)
    after = ids(lab)
    assert set(after) == set(before)
    assert {service for service in after if after[service] != before[service]} == names
    with lab.client() as client:
        assert len(client.get(f"/api/sessions/{said['session']}/messages").json()) == 2
    assert question(lab)["cached"] is True, "Redis lost its answers"
    assert lab.site().changed == []


def served_certificate(lab: Lab) -> bytes:
    """Return the certificate that a new client gets."""
    with (
        socket.create_connection(("127.0.0.1", lab.https_port), 10) as plain,
        lab.tls().wrap_socket(plain, server_hostname="localhost") as line,
    ):
        return line.getpeercert(binary_form=True) or b""


@pytest.mark.extended("default")
def test_new_key_and_log_format_reach_clients_by_a_reload(lab: Lab):
    """As the page on operating says: the key's files are removed, and a run makes new ones. No connection is cut for it."""
    before, certificate = ids(lab), served_certificate(lab)
    for name in ("server.key", "server.pem"):
        (lab.inventory / "pki" / name).unlink()

    async def change_while_connected() -> None:
        async with websockets.connect(f"wss://localhost:{lab.https_port}/ws", ssl=lab.tls(), origin=lab.url, proxy=None) as line:
            await line.recv()
            await asyncio.to_thread(lab.site, variables={"nginx_log_format": "main"})
            # Over the same connection, which is refused where it was closed meanwhile.
            await asyncio.wait_for(await line.ping(), 10)

    asyncio.run(change_while_connected())
    renewed = served_certificate(lab)
    assert renewed != certificate, "clients get the old certificate"
    expected = ssl.PEM_cert_to_DER_cert(
        (lab.inventory / "pki/server.pem").read_text(encoding="utf-8").partition("-----END")[0] + "-----END CERTIFICATE-----\n"
    )
    assert renewed == expected
    marker = uuid.uuid4().hex
    with lab.client() as client:
        client.get(f"/api/version?{marker}", headers={"X-Forwarded-For": "203.0.113.9", "Referer": "https://elsewhere.example/"})
    (line,) = logged(lab, marker)
    request = rf'"GET /api/version\?{marker} HTTP/\S+" 200 \d+ "https://elsewhere\.example/" "[^"]+" "203\.0\.113\.9"'
    assert re.match(rf"^\S+ - - \[[^]]+\] {request} \w+ \S+ [\d.]+ [\d.]+$", line), line

    lab.site()
    assert served_certificate(lab) == renewed
    marker = uuid.uuid4().hex
    with lab.client() as client:
        client.get(f"/api/version?{marker}")
    assert json.loads(logged(lab, marker)[0])["status"] == 200
    assert ids(lab) == before, "a container was recreated for a setting of nginx"


@pytest.mark.extended("default")
def test_rotation_whose_release_fails_is_fixed_by_running_again(lab: Lab, host: LabHost):
    """The stores have the new passwords by then, and the version that goes on serving the old ones: what is connected stays so."""
    said = question(lab)
    before, old = ids(lab), running_backends(host)
    new = {name: f"again{index}-{lab.secrets[name][::-1]}" for index, name in enumerate(
        ["vault_postgres_app_password", "vault_redis_app_password"])}  # fmt: skip
    failed = lab.playbook("site", variables={**new, "app_service_overrides": {"backend": {"command": ["false"], "start_seconds": 30}}})
    assert failed.returncode != 0
    assert "was not released: all hosts serve version" in " ".join(failed.output.split())
    assert running_backends(host) == old
    assert ids(lab).items() <= before.items(), "something is there that was not before"
    for password, expected in [(lab.secrets["vault_postgres_app_password"], "password authentication failed"),
                               (new["vault_postgres_app_password"], "1")]:  # fmt: skip
        assert expected in host.python(LOGIN, connection="host=127.0.0.1 user=app dbname=app", statement="select 1", password=password)
    # The running product goes on with the connections that it has.
    with lab.client() as client:
        assert len(client.get(f"/api/sessions/{said['session']}/messages").json()) == 2

    lab.site(variables=new)
    assert len(running_backends(host)) == 1
    assert running_backends(host) != old, "the release did not take place"
    with lab.client() as client:
        assert client.get("/api/ready").json()["status"] == "ready"
        assert len(client.get(f"/api/sessions/{said['session']}/messages").json()) == 2
    assert question(lab)["content"]


@pytest.mark.extended("default")
def test_users_grants_and_passwords_reach_a_database_that_exists(lab: Lab, host: LabHost):
    """A user is added and three secrets are rotated, in a run as loud as can be; then the inventory's own values come back."""
    before = ids(lab)
    said = question(lab)
    new = {name: f"rotated{index}-{lab.secrets[name][::-1]}" for index, name in enumerate(
        ["vault_postgres_app_password", "vault_redis_app_password", "vault_app_secret_key"])}  # fmt: skip
    reader = f"reader-{lab.secrets['vault_postgres_owner_password'][::-1]}"
    users = [{"name": "reporting", "password": reader, "access": "read"}]
    run = lab.site("-vvv", "--diff", variables={**new, "postgres_users": users})
    texts = slipway_leaks.needles(lab, {**lab.secrets, **{f"new {name}": value for name, value in new.items()}, "reader": reader})
    assert not slipway_leaks.shown(run.output, texts)
    assert not slipway_leaks.shown(json.dumps(run.report), texts)
    lab.wait_until_healthy(5)
    after = ids(lab)
    assert after["postgres"] == before["postgres"], "the database was recreated for a password"
    assert after["nginx"] == before["nginx"]

    postgres = lab.service("postgres")
    assert sql(postgres, "select 1", APP) == "1"
    for connection, password, statement, expected in [
        ("host=127.0.0.1 user=reporting dbname=app", reader, "select count(*) > 0 from messages", "t"),
        ("host=127.0.0.1 user=reporting dbname=app", reader, "delete from messages", "permission denied"),
        ("host=127.0.0.1 user=app dbname=app", lab.secrets["vault_postgres_app_password"], "select 1", "password authentication failed"),
        ("host=127.0.0.1 user=app dbname=app", new["vault_postgres_app_password"], "select 1", "1"),
    ]:
        output = host.python(LOGIN, connection=connection, statement=statement, password=password)
        assert expected in output, output
    outside, _, _ = slipway_leaks.leaks(host, texts)
    assert not outside, "\n".join(outside)
    with lab.client() as client:
        assert len(client.get(f"/api/sessions/{said['session']}/messages").json()) == 2

    back = lab.site()
    assert back.changed
    postgres = lab.service("postgres")
    assert sql(postgres, "select 1 from pg_roles where rolname = 'reporting' and rolcanlogin") == "", (
        "a user that is not declared may log in"
    )
    assert sql(postgres, "select 1", APP) == "1"


def test_without_redis_the_product_answers(lab: Lab, host: LabHost):
    host.run("docker stop slipway-redis")
    try:
        with lab.client() as client:
            wait_until(lambda: client.get("/api/ready").json()["status"] == "degraded", 20, "the product says that it is degraded")
            assert client.get("/api/ready").status_code == 200
        assert question(lab)["content"]
    finally:
        host.run("docker start slipway-redis")
    with lab.client() as client:
        wait_until(lambda: client.get("/api/ready").json()["status"] == "ready", 30, "the product has Redis again")


@pytest.mark.extended("default")
def test_all_come_back_after_the_engine_restarts(lab: Lab, host: LabHost):
    before = ids(lab)
    host.run("systemctl restart docker")
    lab.wait_until_healthy(180)
    assert ids(lab) == before
    assert question(lab)["content"]


def test_all_come_back_after_a_reboot_and_nothing_is_left_to_do(lab: Lab, host: LabHost):
    said = question(lab)
    host.reboot()
    lab.wait_until_healthy(240)
    with lab.client() as client:
        assert len(client.get(f"/api/sessions/{said['session']}/messages").json()) == 2
    run = lab.site()
    assert run.changed == [], run.excerpt
