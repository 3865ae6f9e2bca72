"""What plan.yml says is what site.yml does: of each edit of the inventory, and of what was changed by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from slipway_lab import Container, Lab, Run

pytestmark = pytest.mark.extended("plan")
MAILER: dict[str, Any] = {
    "image": "redis:7-alpine",
    "user": "redis",
    "command": ["redis-server", "--save", ""],
    "healthcheck": ["CMD", "redis-cli", "ping"],
    "memory_mb": 64,
}
WORKER: dict[str, Any] = {"worker": {"memory_mb": 300}}
DEBUG: dict[str, Any] = {"worker": {"memory_mb": 300, "environment": {"LOG_LEVEL": "DEBUG"}}}
ROUTES = [{"path": "/"}, {"path": "/assets/", "cache": "immutable"}, {"path": "/docs/", "cache": "no-store"}]
#: Each is made on top of those before it; without actions, it changes nothing.
EDITS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("a setting that Redis reloads", {"redis_maxmemory_mb": 90}, {"reload"}),
    ("the same as a string", {"redis_maxmemory_mb": "90"}, set()),
    ("a default, written out", {"watchdog_restarts_per_hour": 3}, set()),
    ("memory of a store", {"redis_memory_mb": 200}, {"reload"}),
    ("processes of a store", {"redis_pids": 80}, {"restart"}),
    ("memory of Chroma", {"chroma_memory_mb": 600}, {"reload"}),
    ("cores of Chroma, and a setting of Redis", {"chroma_cpus": "1.5", "redis_maxmemory_policy": "noeviction"}, {"restart", "reload"}),
    ("a setting that PostgreSQL reloads", {"postgres_settings": {"log_min_duration_statement": "500ms"}}, {"reload"}),
    ("a setting that PostgreSQL restarts for", {"postgres_max_connections": 120}, {"restart"}),
    ("a limit of nginx", {"nginx_client_max_body_size_mb": 12}, {"reload"}),
    ("a file that nginx serves", {"nginx_robots_txt": "User-agent: *\nDisallow: /\n"}, {"reload"}),
    ("memory of nginx", {"nginx_memory_mb": 300}, {"reload"}),
    ("a timer of the backups", {"backup_schedule": "*-*-* 03:15:00"}, {"reload"}),
    ("memory of the backups", {"backup_memory_mb": 600}, {"reload"}),
    ("the watchdog", {"watchdog_unhealthy_seconds": 60}, {"reload"}),
    ("memory of the product", {"app_service_overrides": WORKER}, {"reload"}),
    ("the environment of the product", {"app_service_overrides": DEBUG}, {"blue_green", "reload"}),
    ("a route", {"app_service_overrides": {**DEBUG, "frontend": {"routes": ROUTES}}}, {"reload"}),
    ("a service that is new", {"slipway_extra_services": {"mailer": MAILER}}, {"create"}),
    ("the command of that service", {"slipway_extra_services": {"mailer": {**MAILER, "command": ["redis-server"]}}}, {"restart"}),
    ("its end", {"slipway_extra_services": {}}, {"remove"}),
    ("a time that only a release waits", {"release_settle_seconds": 7}, set()),
    ("one more container of the product", {"app_service_overrides": {"worker": {**DEBUG["worker"], "replicas": 2}}}, {"create", "reload"}),
    ("one less", {"app_service_overrides": DEBUG}, {"blue_green", "remove", "reload"}),
]
#: What is done by hand to a container of a kind, and what a run then does to which kinds.
BY_HAND = [
    ("docker rm --force", "frontend", {"frontend": "create", "migrate": "create"}),
    ("docker stop", "worker", {"worker": "start"}),
    ("docker rm --force", "redis", {"redis": "create"}),
    ("docker stop", "chroma", {"chroma": "start"}),
    ("docker rm --force", "nginx", {"nginx": "create"}),
    ("docker update --memory 100m --memory-swap 100m", "nginx", {"nginx": "reload"}),
    ("docker network disconnect slipway-database", "redis", {"redis": "reload"}),
]
#: A run reports all that belongs to a release as this role's.
REPORTED_AS = {"app": "release", "nginx": "release"}
Row = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def deployed(lab: Lab) -> None:
    lab.site()


@pytest.fixture(autouse=True)
def as_it_was(lab: Lab) -> Iterator[None]:
    yield
    lab.site()


def to_do(lab: Lab, variables: dict[str, Any]) -> list[Row]:
    """Return the rows of a plan that say that something is done, now or once it is accepted."""
    run = lab.playbook("plan", variables=variables)
    assert run.returncode == 0, run.excerpt
    assert run.report["plan"], "nothing was compared"
    return [row for row in run.report["plan"] if row["action"] != "nothing"]


def slot(lab: Lab) -> str:
    return str(json.loads(lab.balancer.run("cat /etc/slipway/slipway/release/state.json"))["slot"])


def balancer_revision(lab: Lab) -> str:
    """Return the configuration that the balancer runs with."""
    return lab.balancer.run("readlink /etc/slipway/slipway/nginx/config/current").strip()


def snapshot(lab: Lab) -> tuple[str, dict[str, Container]]:
    """Return the slot that serves, and the containers by service."""
    return slot(lab), {item.service: item for item in lab.containers() if not item.of_job}


def done(run: Run, before: tuple[str, dict[str, Container]], after: tuple[str, dict[str, Container]]) -> dict[str, str]:
    """Return what a run has done to containers, by service; in a release the product moves as a whole."""
    (slot_before, there), (slot_after, here) = before, after
    found = dict.fromkeys(here.keys() - there.keys(), "create") | dict.fromkeys(there.keys() - here.keys(), "remove")
    for name in here.keys() & there.keys():
        old, new = there[name].inspect, here[name].inspect
        if (old["Id"], old["State"]["StartedAt"]) != (new["Id"], new["State"]["StartedAt"]):
            found[name] = "restart" if there[name].running else "start"
    if slot_before != slot_after:
        found = {name: what for name, what in found.items() if not (there | here)[name].owner.startswith("app-")} | {
            "product": "blue_green"
        }
    # It is gone when it has ended.
    migrated = any("migrate-" in entry["task"] for entry in run.report["changed"])
    return found | ({"migration": "run"} if migrated else {})


def planned(rows: list[Row]) -> dict[str, str]:
    """Return the same of a plan's rows."""
    moves = any(row["action"] == "blue_green" for row in rows)
    found = {row["service"]: row["action"] for row in rows if row["action"] != "reload" and not (moves and row["role"] == "app")}
    migrations = [row["service"] for row in rows if row["service"].startswith("migrate-")]
    found = {name: action for name, action in found.items() if name not in migrations}
    return found | ({"product": "blue_green"} if moves else {}) | ({"migration": "run"} if migrations else {})


def differences(lab: Lab, rows: list[Row], variables: dict[str, Any]) -> list[str]:
    """Do a run, and return how it differs from these rows."""
    before, revision = snapshot(lab), balancer_revision(lab)
    run = lab.site(variables=variables)
    if revision != balancer_revision(lab) and all(row["role"] != "nginx" for row in rows):
        return ["the balancer has another configuration, and nothing was planned for it"]
    said, seen = planned(rows), done(run, before, snapshot(lab))
    roles = [{REPORTED_AS.get(item["role"], item["role"]) for item in items} for items in (rows, run.report["changed"])]
    print(said, seen, *roles, run.report["duration_s"])
    return [f"planned {said} by {roles[0]}, done {seen} by {roles[1]}"] if said != seen or roles[0] != roles[1] else []


def test_each_of_twenty_edits_is_done_as_planned(lab: Lab):
    made: dict[str, Any] = {"slipway_accept_restart": False}
    wrong = []
    for name, edit, actions in EDITS:
        print(name)
        made |= edit
        rows = to_do(lab, made)
        waiting = [row for row in rows if row["waits"]]
        found = [] if {row["action"] for row in rows} == actions else [f"planned {rows}"]
        if waiting != rows or not rows:
            found += differences(lab, [row for row in rows if not row["waits"]], made)
        if waiting:
            # As it waits, all of it, in a run that does the rest.
            found += [] if to_do(lab, made) == waiting else ["it waits no more"]
            found += differences(lab, waiting, {**made, "accept": "restart"})
        wrong += [f"{name}: {what}" for what in found]
    assert wrong == []


@pytest.mark.parametrize(("command", "kind", "actions"), BY_HAND)
def test_what_was_done_by_hand_is_undone_as_planned(lab: Lab, command: str, kind: str, actions: dict[str, str]):
    serves = f"-{slot(lab)}-"
    (container,) = [item for item in lab.containers() if item.kind == kind and (not item.slot or serves in item.name) and not item.of_job]
    container.host.run(f"{command} {container.name}")
    rows = to_do(lab, {})
    assert {row["service"].partition("-")[0]: row["action"] for row in rows} == actions
    assert differences(lab, rows, {}) == []
