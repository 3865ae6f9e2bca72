"""Secrets of the product are replaced under load: no client notices, no login is refused, and the old ones are worth nothing afterwards."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from slipway_lab import Lab, sql
from slipway_marks import redis
from slipway_release import PRODUCT, Fleet, Load

OLD = {
    "redis": (
        "read -r REDISCLI_AUTH; export REDISCLI_AUTH; redis-cli -h 127.0.0.1 --user {user} --no-auth-warning PING 2>&1",
        "WRONGPASS",
    ),
    "postgres": (
        'read -r PGPASSWORD; export PGPASSWORD; psql -X -w -h 127.0.0.1 -U {user} -d app -c "select 1" 2>&1',
        "password authentication failed",
    ),
}
#: Who logs in where with a secret.
USERS = {
    "vault_redis_app_password": ("redis", "app"),
    "vault_redis_backup_password": ("redis", "backup"),
    "vault_postgres_app_password": ("postgres", "app"),
    "vault_postgres_owner_password": ("postgres", "app_owner"),
    "vault_postgres_backup_password": ("postgres", "backup"),
}
#: A login of the product that PostgreSQL has refused, and where it came from.
REFUSED = re.compile(r"user=app(?:_owner)?(?:_next)? .*client=(\S+) FATAL: .*(?:authentication failed|no pg_hba\.conf entry|not permitted)")
#: Printed once a stage, when the product has its secrets.
STAGE_STANDS = "PLAY [Wait until all services are healthy]"
#: Four releases, and all of the stages.
SECONDS = 800


def answer(fleet: Fleet, store: str, password: str, user: str = "app") -> str:
    """Return what a store answers to a login."""
    container = fleet.lab.service(store)
    return container.execute("sh", "-c", f"echo '{password}' | ({OLD[store][0].format(user=user)})", check=False)


def secrets(fleet: Fleet) -> dict[str, str]:
    return fleet.lab.secrets_of(fleet.lab.inventory)


def check_replaced(fleet: Fleet, variable: str, old: str, new: str) -> None:
    """Check that a store takes the new password alone."""
    store, user = USERS[variable]
    assert new != old
    assert OLD[store][1] in answer(fleet, store, old, user)
    assert OLD[store][1] not in answer(fleet, store, new, user)


def check_load(clients: Load) -> None:
    """End the load, and check that it lost nothing."""
    numbers = clients.end()
    assert numbers["failed"] == 0, numbers["failures"]
    assert numbers["requests"] > 0


class Logins:
    """The product's logins that the stores have refused since this was made."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._postgres = fleet, fleet.lab.service("postgres")
        self._since = self._postgres.host.run("date --utc +%Y-%m-%dT%H:%M:%SZ").strip()
        redis(fleet.lab, "ACL", "LOG", "RESET")

    def _of_redis(self) -> int:
        log: list[dict[str, Any]] = json.loads(redis(self._fleet.lab, "--json", "ACL", "LOG"))
        return sum(entry["count"] for entry in log if (entry["reason"], entry["username"]) == ("auth", "app"))

    def _of_postgres(self) -> list[str]:
        return REFUSED.findall(self._postgres.host.run(f"docker logs --since {self._since} {self._postgres.name} 2>&1"))

    def check(self, tried: int = 0) -> None:
        """Check that none was refused, but what a rotation tries at its end: so many times with Redis, and where PostgreSQL itself runs."""
        in_redis, in_postgres = self._of_redis(), self._of_postgres()
        assert in_redis == tried
        assert set(in_postgres) <= {"127.0.0.1"}, in_postgres
        # A refused login would have been found there.
        for store in OLD:
            answer(self._fleet, store, "none-of-its-passwords")
        assert self._of_redis() == in_redis + 1
        assert len(self._of_postgres()) == len(in_postgres) + 1


def begin_visit(lab: Lab) -> str:
    """Begin a conversation as a visitor without a cookie; return the cookie that the product gives."""
    with lab.client() as client:
        made = client.post("/api/sessions", json={})
        assert made.status_code == 201, made.text
        return made.headers["set-cookie"].partition(";")[0]


def is_known(lab: Lab, cookie: str) -> bool:
    """Return whether the product accepts the signature of a cookie that it has given with a conversation."""
    with lab.client() as client:
        listed = client.get("/api/sessions", headers={"Cookie": cookie})
        assert listed.status_code == 200, listed.text
        return bool(listed.json())


@pytest.fixture
def product(fleet: Fleet) -> None:
    """Begin with a version of the support desk, and with another one to go back to."""
    if set(fleet.records()[0]["history"][:2]) != set(PRODUCT):
        for version in PRODUCT:
            fleet.deploy(version)


@pytest.fixture
def begin(fleet: Fleet, product: None, load: Callable[..., Load]) -> Callable[[], tuple[Load, Logins]]:  # noqa: ARG001 - the state
    """Start the load, at a rate for releases that follow each other on two slow cores, and count refused logins."""
    return lambda: (load(arguments=("@tests/load/support_desk.txt", "--rate=100")), Logins(fleet))


@pytest.mark.extended("release-load")
@pytest.mark.usefixtures("product")
@pytest.mark.parametrize("what", ["redis_app", "postgres_app"])
def test_a_rotation_loses_no_request_and_refuses_the_old_password(fleet: Fleet, load: Callable[[], Load], what: str):
    _serves, before = fleet.records()[0]["history"][:2]
    variable = f"vault_{what}_password"
    old = secrets(fleet)[variable]
    clients = load()
    run = fleet.lab.playbook("rotate", variables={"what": what})
    assert run.returncode == 0, run.excerpt
    # Not to the same version, which the rotation has released again.
    rolled_back = fleet.rollback()
    check_load(clients)
    assert rolled_back.report["prober"]["failed"] == 0
    check_replaced(fleet, variable, old, secrets(fleet)[variable])
    assert fleet.version == before


@pytest.mark.extended("release-load")
def test_the_backups_get_other_passwords_while_they_receive_wal_and_no_client_notices(fleet: Fleet, load: Callable[[], Load]):
    names = [f"vault_{store}_backup_password" for store in OLD]
    old = secrets(fleet)
    clients = load()
    run = fleet.lab.playbook("rotate", variables={"what": "backup"})
    assert run.returncode == 0, run.excerpt
    check_load(clients)
    new = secrets(fleet)
    for name in names:
        check_replaced(fleet, name, old[name], new[name])
    fleet.lab.wait_until_healthy()
    made = fleet.lab.playbook("backup")
    assert made.returncode == 0, made.excerpt


@pytest.mark.extended("release-rotation")
def test_a_rotation_of_all_that_is_killed_in_its_second_stage_is_ended_by_the_next_run(
    fleet: Fleet, begin: Callable[[], tuple[Load, Logins]]
):
    version, old, visitor = fleet.version, secrets(fleet), begin_visit(fleet.lab)
    clients, logins = begin()
    run = fleet.start("rotate", what="all")
    # Of the second stage's release: clients are served with the new secrets, and the slot with the old ones still runs.
    run.wait_for("release: probe", SECONDS, times=2)
    time.sleep(0.4)
    run.kill()
    stopped = secrets(fleet)
    for variable in [*USERS, "vault_app_secret_key"]:
        assert stopped[f"{variable}_previous"] == old[variable], variable
    assert is_known(fleet.lab, visitor)

    again = fleet.start("rotate", what="all").end(SECONDS)
    assert again.returncode == 0, again.excerpt
    check_load(clients)
    logins.check(tried=1)
    new = secrets(fleet)
    # What the killed run has made, and nothing of the rotation is left.
    assert new == {**old, **{variable: stopped[variable] for variable in [*USERS, "vault_app_secret_key"]}}
    for variable in USERS:
        check_replaced(fleet, variable, old[variable], new[variable])
    for user in ("app", "app_owner"):
        assert "FATAL" in answer(fleet, "postgres", new[f"vault_postgres_{user.removeprefix('app_')}_password"], f"{user}_next")
    assert new["vault_app_secret_key"] != old["vault_app_secret_key"]
    assert not is_known(fleet.lab, visitor)
    assert is_known(fleet.lab, begin_visit(fleet.lab))
    fleet.check(version)
    fleet.lab.wait_until_healthy()
    assert fleet.lab.site().changed == []


@pytest.mark.extended("release-rotation-keys")
def test_visitors_stay_known_until_the_old_secret_key_is_refused(fleet: Fleet, begin: Callable[[], tuple[Load, Logins]]):
    version, old, visitors = fleet.version, secrets(fleet), [begin_visit(fleet.lab)]
    clients, logins = begin()
    run = fleet.start("rotate", what="secret_key")
    for stage in (1, 2):
        run.wait_for(STAGE_STANDS, SECONDS, times=stage)
        assert [is_known(fleet.lab, visitor) for visitor in visitors] == [True] * stage
        visitors.append(begin_visit(fleet.lab))
    ended = run.end(SECONDS)
    assert ended.returncode == 0, ended.excerpt
    check_load(clients)
    logins.check()
    # Those of the old key, and the one who came when the new one signed.
    assert [is_known(fleet.lab, visitor) for visitor in visitors] == [False, False, True]
    new = secrets(fleet)
    assert {name for name in new | old if new.get(name) != old.get(name)} == {"vault_app_secret_key"}
    fleet.check(version)


@pytest.mark.extended("release-rotation-keys")
def test_the_owner_of_the_tables_gets_another_password_and_migrates_with_it(fleet: Fleet, begin: Callable[[], tuple[Load, Logins]]):
    variable, old = "vault_postgres_owner_password", secrets(fleet)
    clients, logins = begin()
    run = fleet.start("rotate", what="postgres_owner").end(SECONDS)
    assert run.returncode == 0, run.excerpt
    migrated = fleet.deploy(fleet.other(PRODUCT))
    check_load(clients)
    assert "migrate" in migrated.report["steps"]
    assert migrated.report["prober"]["failed"] == 0
    logins.check()
    new = secrets(fleet)
    assert {name for name in new | old if new.get(name) != old.get(name)} == {variable}
    check_replaced(fleet, variable, old[variable], new[variable])


@pytest.mark.extended("release-rotation-undo")
def test_a_rollback_in_the_middle_logs_in_and_the_rotation_is_undone(fleet: Fleet, begin: Callable[[], tuple[Load, Logins]]):
    def users() -> set[str]:
        """Return as whom the product is logged in, all of which runs by now."""
        begin_visit(fleet.lab)
        found = "select distinct usename from pg_stat_activity where application_name = 'support_desk'"
        return set(sql(fleet.lab.service("postgres"), found).splitlines())

    variable, old = "vault_postgres_app_password", secrets(fleet)
    _serves, before = fleet.records()[0]["history"][:2]
    clients, logins = begin()
    run = fleet.start("rotate", what="postgres_app")
    # Between the second stage and the third: no release is under way.
    run.wait_for(STAGE_STANDS, SECONDS, times=2)
    run.kill()
    stopped = secrets(fleet)
    assert stopped[f"{variable}_previous"] == old[variable]

    rolled_back = fleet.rollback()
    assert (rolled_back.report["version"], rolled_back.report["prober"]["failed"]) == (before, 0)
    assert users() == {"app_next"}
    # The rollback keeps the stage.
    assert secrets(fleet) == stopped

    undone = fleet.start("rotate", what="postgres_app", undo=True).end(SECONDS)
    assert undone.returncode == 0, undone.excerpt
    check_load(clients)
    logins.check()
    assert users() == {"app"}
    assert secrets(fleet) == old
    check_replaced(fleet, variable, stopped[variable], old[variable])
    assert "FATAL" in answer(fleet, "postgres", stopped[variable], "app_next")
    fleet.check(before)
    assert fleet.lab.site().changed == []
