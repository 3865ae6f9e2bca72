"""Passwords of the product are replaced under load: no client notices, and the old ones are worth nothing afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
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


def answer(fleet: Fleet, store: str, password: str, user: str = "app") -> str:
    """Return what a store answers to a login."""
    container = fleet.lab.service(store)
    return container.execute("sh", "-c", f"echo '{password}' | ({OLD[store][0].format(user=user)})", check=False)


@pytest.mark.extended("release-load")
@pytest.mark.parametrize("what", ["redis_app", "postgres_app"])
def test_a_rotation_loses_no_request_and_refuses_the_old_password(fleet: Fleet, load: Callable[[], Load], what: str):
    if set(fleet.records()[0]["history"][:2]) != set(PRODUCT):
        for version in PRODUCT:
            fleet.deploy(version)
    _serves, before = fleet.records()[0]["history"][:2]
    store = what.removesuffix("_app")
    old = fleet.lab.secrets[f"vault_{what}_password"]
    clients = load()
    run = fleet.lab.playbook("rotate", variables={"what": what})
    assert run.returncode == 0, run.excerpt
    # Not to the same version, which the rotation has released again.
    rolled_back = fleet.rollback()
    numbers = clients.end()
    assert rolled_back.report["prober"]["failed"] == 0
    assert numbers["failed"] == 0, numbers["failures"]
    assert numbers["requests"] > 0
    new = fleet.lab.secrets_of(fleet.lab.inventory)[f"vault_{what}_password"]
    assert new != old
    assert OLD[store][1] in answer(fleet, store, old)
    assert OLD[store][1] not in answer(fleet, store, new)
    assert fleet.version == before


@pytest.mark.extended("release-load")
def test_the_backups_get_other_passwords_while_they_receive_wal_and_no_client_notices(fleet: Fleet, load: Callable[[], Load]):
    names = {store: f"vault_{store}_backup_password" for store in OLD}
    old = {store: fleet.lab.secrets_of(fleet.lab.inventory)[name] for store, name in names.items()}
    clients = load()
    run = fleet.lab.playbook("rotate", variables={"what": "backup"})
    assert run.returncode == 0, run.excerpt
    numbers = clients.end()
    assert numbers["failed"] == 0, numbers["failures"]
    assert numbers["requests"] > 0
    new = {store: fleet.lab.secrets_of(fleet.lab.inventory)[name] for store, name in names.items()}
    for store, (_login, refused) in OLD.items():
        assert new[store] != old[store]
        assert refused in answer(fleet, store, old[store], "backup")
        assert refused not in answer(fleet, store, new[store], "backup")
    fleet.lab.wait_until_healthy()
    made = fleet.lab.playbook("backup")
    assert made.returncode == 0, made.excerpt
