# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services that run on a host, written down as a compose file: the same containers, made by someone else."""

from __future__ import annotations

import json
from typing import Any

FOLDER = "/var/lib/slipway-bench"
PROJECT = "bench"
#: What names of services begin with that need the stores, or the application.
AFTER_STORES = ("backend-", "frontend-", "worker-", "nginx")
NANOSECONDS = 1_000_000_000

Inspected = dict[str, Any]


def seconds(nanoseconds: int) -> str:
    """Return a duration as compose writes it."""
    return f"{nanoseconds / NANOSECONDS:g}s"


def healthcheck(inspected: Inspected) -> dict[str, Any]:
    """Return a container's health check; one that is off stays off."""
    check = inspected["Config"].get("Healthcheck") or {}
    if not check.get("Test"):
        return {"disable": True}
    named = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod", "start_interval": "StartInterval"}
    return {"test": check["Test"], "retries": check.get("Retries", 3)} | {
        ours: seconds(check[theirs]) for ours, theirs in named.items() if check.get(theirs)
    }


def mounts(inspected: Inspected, root: str) -> list[str | dict[str, Any]]:
    """Return a container's binds, those of our configuration from the copy, and its volumes under names of the bench's own."""
    result: list[str | dict[str, Any]] = []
    for mount in inspected["Mounts"]:
        if mount["Type"] == "volume":
            # The engine would give an empty volume the owner that the image's folder has.
            kept = {"type": "volume", "source": mount["Name"], "target": mount["Destination"], "volume": {"nocopy": True}}
            result.append(kept | {"read_only": not mount["RW"]})
        elif mount["Type"] == "bind":
            source = mount["Source"]
            mode = "rw" if mount["RW"] else "ro"
            result.append(f"{FOLDER + source if source.startswith(root) else source}:{mount['Destination']}:{mode}")
    return result


def service(inspected: Inspected, root: str) -> dict[str, Any]:
    """Return one running container as a service."""
    config, host = inspected["Config"], inspected["HostConfig"]
    ports = [
        f"{binding['HostIp'] + ':' if binding['HostIp'] else ''}{binding['HostPort']}:{inner}"
        for inner, bindings in (host["PortBindings"] or {}).items()
        for binding in bindings
    ]
    networks = {
        name: {"aliases": [alias for alias in attached["Aliases"] or [] if not inspected["Id"].startswith(alias)]}
        for name, attached in inspected["NetworkSettings"]["Networks"].items()
    }
    made = {
        "image": config["Image"],
        "user": config["User"],
        "entrypoint": config["Entrypoint"],
        "command": config["Cmd"],
        "environment": config["Env"],
        "volumes": mounts(inspected, root),
        "tmpfs": [f"{path}:{options}" for path, options in (host["Tmpfs"] or {}).items()],
        "networks": networks,
        "ports": ports,
        "healthcheck": healthcheck(inspected),
        "mem_limit": host["Memory"],
        "memswap_limit": host["MemorySwap"],
        "cpus": host["NanoCpus"] / NANOSECONDS,
        "pids_limit": host["PidsLimit"],
        "shm_size": host["ShmSize"],
        "cap_drop": host["CapDrop"],
        "cap_add": host["CapAdd"],
        "security_opt": host["SecurityOpt"],
        "read_only": host["ReadonlyRootfs"],
        "restart": host["RestartPolicy"]["Name"],
        "stop_signal": config.get("StopSignal"),
        "stop_grace_period": f"{config.get('StopTimeout') or 10}s",
        "logging": {"driver": host["LogConfig"]["Type"], "options": host["LogConfig"]["Config"]},
    }
    return {key: value for key, value in made.items() if value not in (None, [], {}, "")}


def compose_file(containers: list[Inspected], networks: list[dict[str, Any]], *, root: str, migrate: list[str], secrets: str) -> str:
    """Return a compose file of the containers, and of a migration that runs as the backend does.

    Args:
        containers: What ``docker inspect`` says about each container.
        networks: What ``docker network inspect`` says about each of their networks.
        root: Folder of their configuration, of which FOLDER holds a copy.
        migrate: Command of the migration.
        secrets: Folder of the migration's secrets.
    """
    services = {item["Config"]["Labels"]["slipway.service"]: service(item, root) for item in containers}
    backend = next(made for name, made in services.items() if name.startswith("backend-"))
    for name, made in services.items():
        if name == "nginx":
            # It resolves its upstreams when it starts.
            made["depends_on"] = sorted(other for other in services if other.startswith(("backend-", "frontend-")))
    # Never part of a plain `up`.
    services["migrate"] = {key: value for key, value in backend.items() if key not in {"healthcheck", "ports", "restart"}} | {
        "command": migrate,
        "profiles": ["migration"],
        "volumes": [f"{secrets}:/run/secrets:ro"],
    }
    volumes = {mount["Name"] for item in containers for mount in item["Mounts"] if mount["Type"] == "volume"}
    whole = {
        "name": PROJECT,
        "services": services,
        "networks": {item["Name"]: {"internal": item["Internal"], "driver_opts": item["Options"]} for item in networks},
        # Made and given to their users before, as compose cannot.
        "volumes": {name: {"external": True, "name": f"{PROJECT}_{name}"} for name in sorted(volumes)},
    }
    return json.dumps(whole, indent=1).replace("$", "$$")


def first_deploy(services: list[str], owners: dict[str, str]) -> str:
    """Return a script that brings the services up where there is nothing of them, as a careful deploy.sh does.

    Args:
        services: Names of all services.
        owners: User and group numbers of each volume.
    """
    stores = " ".join(sorted(name for name in services if not name.startswith(AFTER_STORES)))
    lines = ["set -e", f"cd {FOLDER}"]
    for name, owner in sorted(owners.items()):
        volume = f"{PROJECT}_{name}"
        lines.append(f"docker volume create {volume} >/dev/null")
        lines.append(f"chown {owner} $(docker volume inspect --format '{{{{.Mountpoint}}}}' {volume})")
    psql = "psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=postgres --file=-"
    lines += [
        f"docker compose up --detach --quiet-pull {stores}",
        "until docker compose exec -T postgres pg_isready --quiet; do sleep 0.1; done",
        f"docker compose exec -T postgres {psql} <converge.sql",
        f"docker compose up --detach --wait {stores}",
        "docker compose run --rm -T migrate",
        "docker compose up --detach --wait",
    ]
    return "\n".join(lines) + "\n"
