"""What the stores promise: who may do what, and that what was asked for was done."""

from __future__ import annotations

import shlex
import uuid

import httpx
import pytest
from slipway_lab import APP, STORES, Container, Lab, Stranger, sql, wait_until


@pytest.fixture(scope="module")
def postgres(lab: Lab) -> Container:
    return lab.service("postgres")


@pytest.fixture(scope="module")
def redis(lab: Lab) -> Container:
    return lab.service("redis")


def redis_cli(redis: Container, user: str, *command: str) -> str:
    secret = {"app": "app_password", "admin": "admin_password"}[user]
    line = f"REDISCLI_AUTH=$(cat /run/secrets/{secret}) redis-cli -e --user {user} --no-auth-warning {shlex.join(command)}"
    return redis.execute("sh", "-c", line).strip()


def test_data_has_checksums_and_extensions(postgres: Container):
    assert sql(postgres, "show data_checksums") == "on"
    assert sql(postgres, "select 1 from pg_extension where extname = 'uuid-ossp'") == "1"
    assert len(sql(postgres, "select uuid_generate_v4()", APP)) == 36


def test_application_may_do_what_it_needs(postgres: Container):
    # Rolled back: what a test writes is gone.
    done = sql(
        postgres,
        "begin; create table public.probe (id int); insert into public.probe values (7); select id from public.probe; rollback",
        APP,
    )
    assert done == "7"


@pytest.mark.parametrize(
    "statement",
    [
        "create role intruder",
        "create database intruder",
        "create schema intruder",
        "create extension dblink",
        "alter role app superuser",
        "set role app_owner",
        "select * from pg_authid",
        "drop table sessions",
        "copy sessions to program 'true'",
    ],
)
def test_application_may_do_no_more(postgres: Container, statement: str):
    said = sql(postgres, statement, APP, check=False)
    assert "ERROR" in said, f"{statement} was done"
    assert "permission denied" in said or "must be" in said or "Only roles" in said, said


def test_tables_belong_to_the_owner(postgres: Container):
    owners = sql(postgres, "select distinct tableowner from pg_tables where schemaname = 'public'")
    assert owners == "app_owner"


def test_passwords_are_kept_as_scram_verifiers(postgres: Container):
    verifiers = sql(
        postgres, "select rolname || ' ' || left(coalesce(rolpassword, 'none'), 14) from pg_authid where rolcanlogin order by 1"
    ).splitlines()
    assert {line.split()[0] for line in verifiers} >= {"app", "app_owner", "postgres"}
    assert {line.split()[1] for line in verifiers} == {"SCRAM-SHA-256$"}


def test_no_user_logs_in_without_a_password(postgres: Container):
    methods = sql(postgres, "select type || ' ' || auth_method from pg_hba_file_rules").splitlines()
    assert methods
    assert {method for method in methods if method.startswith("host")} <= {"host scram-sha-256", "hostssl scram-sha-256"}
    assert {method for method in methods if method.startswith("local")} <= {"local peer"}
    refused = postgres.execute(
        "env", "PGPASSWORD=wrong-password", "psql", "-X", "-w", "-d", "host=127.0.0.1 user=app dbname=app", "-c", "select 1", check=False
    )
    assert "password authentication failed" in refused
    unasked = postgres.execute(
        "psql", "-X", "-w", "-d", "host=127.0.0.1 user=app dbname=app passfile=/missing", "-c", "select 1", check=False
    )
    assert "no password supplied" in unasked
    unknown = postgres.execute("psql", "-X", "-w", "-d", "host=127.0.0.1 user=postgres dbname=postgres", "-c", "select 1", check=False)
    assert "no pg_hba.conf entry" in unknown


def test_memory_of_the_container_sets_shared_buffers(postgres: Container):
    shared = int(sql(postgres, "select setting::bigint * 8192 from pg_settings where name = 'shared_buffers'"))
    limit = postgres.inspect["HostConfig"]["Memory"]
    assert 0.2 * limit <= shared <= 0.3 * limit


def test_redis_health_check_needs_the_right_login(redis: Container):
    # The trap: redis-cli succeeds where the server refuses.
    answer = redis.execute("redis-cli", "PING")
    assert "NOAUTH" in answer
    check = ["sh", "/etc/slipway/current/health.sh", "6379"]
    assert redis.host.succeeds(f"docker exec {redis.name} {shlex.join([*check, 'app'])}")
    assert not redis.host.succeeds(f"docker exec {redis.name} {shlex.join([*check, 'nobody'])}")
    # The file's password, but not that user's.
    assert not redis.host.succeeds(f"docker exec {redis.name} {shlex.join([*check, 'admin'])}")
    assert redis.inspect["Config"]["Healthcheck"]["Test"] == ["CMD", *check, "app"]


def test_health_checks_write_nothing(postgres: Container, redis: Container):
    before = redis_cli(redis, "app", "DBSIZE"), sql(postgres, "select pg_current_wal_insert_lsn()")
    for container in (postgres, redis):
        test = container.inspect["Config"]["Healthcheck"]["Test"]
        assert test[0] == "CMD"
        for _ in range(3):
            container.execute(*test[1:])
    # A checkpoint or the product itself may write between two looks; health checks alone, three times over, would each time.
    for _ in range(3):
        if before == (redis_cli(redis, "app", "DBSIZE"), sql(postgres, "select pg_current_wal_insert_lsn()")):
            return
        before = redis_cli(redis, "app", "DBSIZE"), sql(postgres, "select pg_current_wal_insert_lsn()")
        for container in (postgres, redis):
            container.execute(*container.inspect["Config"]["Healthcheck"]["Test"][1:])
    pytest.fail("the stores change with every health check")


def test_redis_keeps_what_it_has_and_knows_its_limit(redis: Container):
    def setting(name: str) -> str:
        return redis_cli(redis, "admin", "CONFIG", "GET", name).splitlines()[1]

    assert setting("appendonly") == "yes"
    assert setting("maxmemory-policy") == "volatile-lru"
    assert 0 < int(setting("maxmemory")) < redis.inspect["HostConfig"]["Memory"]


@pytest.mark.parametrize("command", [["CONFIG", "GET", "maxmemory"], ["FLUSHALL"], ["KEYS", "*"], ["ACL", "LIST"], ["SHUTDOWN"]])
def test_application_is_not_an_administrator_of_redis(redis: Container, command: list[str]):
    line = f"REDISCLI_AUTH=$(cat /run/secrets/app_password) redis-cli --user app --no-auth-warning {shlex.join(command)}"
    assert "NOPERM" in redis.execute("sh", "-c", line)


def test_chroma_is_the_one_process_of_its_volume(lab: Lab):
    users = [
        container for container in lab.containers() if any(mount.get("Name") == "chroma_data" for mount in container.inspect["Mounts"])
    ]
    assert [container.service for container in users] == ["chroma"]


@pytest.mark.parametrize("store", STORES)
def test_stores_admit_neighbours_only(lab: Lab, stranger: Stranger, store: str):
    container, port = lab.service(store), STORES[store]
    assert stranger.can_connect(lab.balancer.address, 443), "the stranger reaches what is open to all"
    apps = lab.groups["app"]
    for host in lab.hosts.values():
        for other in host.containers():
            if other.kind in {"backend", "worker"}:
                address, at = (container.networks["slipway-database"], port) if host is container.host else (container.host.address, port)
                assert host.can_connect(address, at, pid=other.pid), f"{other.name} on {host} needs {store}"
            elif other.kind in {"nginx", "frontend"} and host is container.host:
                assert not host.can_connect(container.networks["slipway-database"], port, pid=other.pid), f"{other.name} reaches {store}"
    assert not stranger.can_connect(container.host.address, port), f"a stranger reaches {store}"
    for host in lab.hosts.values():
        if host is container.host:
            continue
        # The backup host takes the copies.
        expected = host in apps or host in lab.groups["backup"]
        assert host.can_connect(container.host.address, port) is expected, f"{host} and {store}"
    if len(lab.hosts) == 1:
        assert not container.host.can_connect(container.host.address, port)
        assert not container.host.can_connect("127.0.0.1", port)


def test_an_article_that_was_published_can_be_found(lab: Lab, client: httpx.Client):
    """The backend's host queues it in Redis; a worker on any of the app hosts puts it into Chroma."""
    word = f"quokka{uuid.uuid4().hex[:8]}"
    backend = next(item for item in lab.containers() if item.kind == "backend" and item.running)
    backend.host.run(f"docker exec {backend.name} python -m support_desk.publish --title {word} --body 'Everything about {word}.'")

    def found() -> bool:
        hits = client.get("/api/search", params={"q": word, "limit": 1}).json()
        return bool(hits) and hits[0]["title"] == word

    wait_until(found, 10, f"the article {word} is found")
