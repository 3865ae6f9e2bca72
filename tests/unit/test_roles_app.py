# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the app role declares, and what its start script gives to a product."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import plan_of, role_task, role_variable

PRODUCT = {
    "app_version": "2.4",
    "app_services": {
        "backend": {"image": "shop/backend:2.4", "port": 8000, "routes": [{"path": "/api/"}]},
        "frontend": {"image": "shop/frontend:2.4", "port": 3000, "networks": ["frontend"], "routes": [{"path": "/"}]},
    },
}
SECRETS = {"DATABASE_URL": "postgresql://shop:pass word$1@db/shop", "SECRET_KEY": "two\nlines"}


def services(backend: dict[str, Any] | None = None, **inputs: Any) -> dict[str, dict[str, Any]]:
    """Return the role's declarations by name, as container_service gets them, with further keys of the backend."""
    overrides = {"app_service_overrides": {"backend": backend or {}}}
    listed = role_variable("app", "__app_services", {**PRODUCT, **overrides, **inputs})
    return {item["name"]: item for item in listed}


def plan(declared: dict[str, dict[str, Any]], containers: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the plan for the declarations on a host that has these containers of the stack."""
    return plan_of(list(declared.values()), containers)


def test_replicas_and_slots_have_names_and_ports_of_their_own() -> None:
    """Two slots of any number of replicas run side by side on one address."""
    seen = []
    for slot in ("blue", "green"):
        listed = services(app_slot=slot, app_defaults={"replicas": 2}, app_publish_address="10.0.0.1")
        assert list(listed) == [f"backend-{slot}-1", f"backend-{slot}-2", f"frontend-{slot}-1", f"frontend-{slot}-2"]
        seen += [(port["address"], port["port"], port["container_port"]) for item in listed.values() for port in item["ports"]]
    assert [port for _address, port, _inner in seen] == [8000, 8001, 3000, 3001, 8100, 8101, 3100, 3101]
    assert {address for address, _port, _inner in seen} == {"10.0.0.1"}
    assert {inner for _address, _port, inner in seen} == {8000, 3000}


def test_nothing_is_published_without_an_address() -> None:
    """On one host the proxy reaches the containers over their networks."""
    assert all(item["ports"] == [] for item in services().values())


def test_secrets_are_files_and_the_environment_names_them() -> None:
    """No value is in what docker inspect shows."""
    backend = services({"secrets": SECRETS, "environment": {"LOG_LEVEL": "INFO"}})["backend-blue-1"]
    assert {name: item["content"] for name, item in backend["secrets"].items()} == SECRETS
    assert {item["on_change"] for item in backend["secrets"].values()} == {"restart"}
    assert backend["environment"] == {
        "LOG_LEVEL": "INFO",
        "DATABASE_URL_FILE": "/run/secrets/DATABASE_URL",
        "SECRET_KEY_FILE": "/run/secrets/SECRET_KEY",
    }
    shown = json.dumps({name: value for name, value in backend.items() if name != "secrets"})
    assert not any(value in shown for value in SECRETS.values())


def test_start_script_gives_values_to_the_command_only(tmp_path: Path) -> None:
    """A product that reads plain variables gets each value byte for byte, and its own command."""
    backend = services({"secrets": SECRETS, "secrets_in_environment": True, "command": ["serve", "it"]})["backend-blue-1"]
    assert backend["environment"] == {}, "some images refuse NAME together with NAME_FILE"
    assert backend["wrapper"][-1] == "/etc/slipway/current/.entrypoint.sh"
    assert (backend["entrypoint"], backend["command"]) == ([], ["serve", "it"])
    script = backend["config"][".entrypoint.sh"]
    assert script["on_change"] == "restart"
    for name, value in SECRETS.items():
        (tmp_path / name).write_text(value)
    show = ["python3", "-c", "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))", "an argument", "*"]
    text = script["content"].replace("/run/secrets", str(tmp_path))
    done = subprocess.run(["/bin/sh", "-c", text, "sh", *show], capture_output=True, text=True, check=True)
    environment, arguments = json.loads(done.stdout)
    assert {name: environment[name] for name in SECRETS} == SECRETS
    assert arguments == ["an argument", "*"]
    assert not {"file", "value"} & set(environment)
    nothing = subprocess.run(["/bin/sh", "-c", text, "sh"], capture_output=True, text=True, check=False)
    assert (nothing.returncode, "set command of this service" in nothing.stderr) == (64, True)
    # Extra services have it too.
    assert "app_services" not in nothing.stderr


@pytest.mark.parametrize(
    ("declared", "started"),
    [
        ({}, ["/start", "serve"]),
        ({"command": ["other"]}, ["/start", "other"]),
        # An entrypoint of one's own puts the image's command away, as the engine does it.
        ({"entrypoint": ["/mine"]}, ["/mine"]),
        ({"entrypoint": ["/mine"], "command": ["other"]}, ["/mine", "other"]),
    ],
)
def test_a_start_script_starts_what_the_engine_would_have_started(declared: dict[str, Any], started: list[str]) -> None:
    options = {"wrapper": ["/bin/sh", "/w.sh"], **declared}
    inputs = {
        "item": "backend",
        "__container_service_made": [{"name": "backend", "options": options}],
        "__container_service_one": {"options": options},
        "__container_service_users": {"results": [{"item": "backend", "uid": 5, "entrypoint": ["/start"], "command": ["serve"]}]},
    }
    given = role_task("container_service", "container.yml", "container | Run", "vars", inputs)
    assert given["__container_service_wrapped"] == started


def test_migration_comes_first_with_the_owners_login() -> None:
    """It runs in the backend's image and networks, and has what it is given on top."""
    migrate = {"command": ["migrate"], "secrets": {"DATABASE_URL": "owner"}, "environment": {"TIMEOUT": 60}}
    listed = services({"secrets": SECRETS, "migrate": migrate})
    migration, backend = listed["migrate-blue"], listed["backend-blue-1"]
    assert next(iter(listed)) == "migrate-blue"
    assert migration["one_shot"] is True
    assert {name: item["content"] for name, item in migration["secrets"].items()} == {**SECRETS, "DATABASE_URL": "owner"}
    assert migration["environment"] == {**backend["environment"], "TIMEOUT": 60}
    assert (migration["image"], migration["networks"]) == (backend["image"], ["backend", "database"])
    assert "migrate-blue" not in services({"migrate": migrate}, app_migrate=False)
    assert "migrate-blue" not in services()


def test_declarations_pass_the_comparison_and_migrate_once() -> None:
    """The plan accepts every field, and needs the migration exactly while containers are to be made."""
    declared = services({"migrate": {"command": ["migrate"]}})
    first = plan(declared)
    # Imported once Ansible's loader knows the collection, which it does after services().
    from ansible_collections.slipway.stack.plugins.module_utils.engine import normal_reference  # noqa: PLC0415

    assert [item["name"] for item in first["needed"]] == ["migrate-blue", "backend-blue-1", "frontend-blue-1"]
    running = {
        item["container"]: {
            "labels": {**item["options"]["labels"], "slipway.uid": "1000"},
            "image": normal_reference(item["options"]["image"]),
            "image_id": "",
            "running": True,
            "status": "running",
            "health": "healthy",
            "memory": int(item["options"]["memory"][:-1]) * 2**20,
            "nano_cpus": round(item["options"]["cpus"] * 1e9),
            "cpu_shares": item["options"]["cpu_shares"],
            "restart_policy": "unless-stopped",
            "networks": {network["name"]: network["aliases"] for network in item["options"]["networks"]},
        }
        for item in first["services"]
        if not item["one_shot"]
    }
    second = plan(declared, running)
    assert [reason for item in second["needed"] for reason in item["reasons"]] == []
    del running["s-backend-blue-1"]
    third = plan(declared, running)
    assert [item["name"] for item in third["needed"]] == ["migrate-blue", "backend-blue-1"]


def test_a_slot_that_starts_next_to_another_is_made_with_its_own_weight() -> None:
    """Its migration keeps it, and a job's runs are copies of a container that has the weight of others."""
    listed = services({"migrate": {"command": ["migrate"]}}, app_starting_cpu_shares=128)
    assert {name: (item.get("cpu_shares"), item.get("starting_cpu_shares")) for name, item in listed.items()} == {
        "migrate-blue": (128, None),
        "backend-blue-1": (None, 128),
        "frontend-blue-1": (None, 128),
    }


def test_limits_share_the_host() -> None:
    """All containers of a slot have a fifth of the memory together, and each has time to finish before it is killed."""
    assert services()["backend-blue-1"]["memory_mb"] == 800
    assert services({"replicas": 3})["backend-blue-1"]["memory_mb"] == 400
    assert services({"memory_mb": 100})["backend-blue-1"]["memory_mb"] == 100
    assert services({"grace_seconds": 90})["backend-blue-1"]["stop_timeout"] == 100


def test_a_worker_has_neither_ports_nor_a_health_check() -> None:
    listed = services(app_services={"worker": {"image": "a:1"}}, app_service_overrides={}, app_publish_address="10.0.0.1")
    assert (listed["worker-blue-1"]["ports"], listed["worker-blue-1"]["healthcheck"]["test"]) == ([], ["NONE"])


def test_what_services_share_is_set_once_and_one_environment_changes_one_key() -> None:
    """Dictionaries are merged, everything else is replaced, and null takes a value back."""
    listed = services(
        {"environment": {"B": "3"}, "user": None},
        app_defaults={"environment": {"A": "1", "B": "1"}, "user": "5", "tmpfs": {"/x": ""}},
    )
    backend, frontend = listed["backend-blue-1"], listed["frontend-blue-1"]
    assert (backend["environment"], frontend["environment"]) == ({"A": "1", "B": "3"}, {"A": "1", "B": "1"})
    assert (backend["user"], frontend["user"], backend["tmpfs"]) == ("5", "5", {"/x": ""})
    assert backend["image"] == "shop/backend:2.4"


def test_files_are_delivered_read_only_and_restart_what_reads_them() -> None:
    assert services({"files": {"a.ini": "x = 1"}})["backend-blue-1"]["config"] == {"a.ini": {"content": "x = 1", "on_change": "restart"}}
