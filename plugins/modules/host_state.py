#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read in one call everything that decides what a run has to do on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_state
short_description: Read what a host really has and runs, in one call
version_added: 0.1.0
description:
  - Reads the containers, images, networks and volumes of a stack, the files of its configuration, and the facts of the host
    that decide anything. The role container_service registers them as C(container_service_host_state).
  - Changes nothing. Where containerd stores the engine's images, one that has no container yet gets one that is never started and removed
    at once, as its users cannot be read otherwise.
  - Needs Python 3 on the host and nothing else; without a Docker Engine the engine's part is empty.
  - Never returns the content of a secret, and digests of files only under a key of this very call.
options:
  stack:
    description: Name of the stack, the value of the label C(slipway.stack) on what it owns.
    type: str
    required: true
  root:
    description: Folder that holds the stacks' configuration.
    type: path
    default: /etc/slipway
  digest_key:
    description: Random string that keys the digests of files, so that they reveal nothing in a log. The action plugin sets it.
    type: str
    required: true
  images:
    description: Image references that this host needs; for each that it has not, the registry is asked whether it exists.
    type: list
    elements: str
    default: []
  ports:
    description: Port numbers for which to say who listens, by TCP and by UDP.
    type: list
    elements: int
    default: []
  reach:
    description: Addresses that this host must be able to reach, each C(address:port).
    type: list
    elements: str
    default: []
  reach_timeout:
    description: Seconds to wait for each of them.
    type: float
    default: 3
  files:
    description: >-
      Further files to describe in addition to those of the stack, with their text, by absolute path; shell patterns are expanded.
      C(volume:NAME/PATH), which is also its name in RV(files), is a file in a volume.
    type: list
    elements: str
    default: []
  contents:
    description: Whether to return the text of config files too, as a diff needs it.
    type: bool
    default: false
  engine_options:
    description:
      - Options that the engine is to have in addition to those of its C(daemon.json), as JSON; RV(engine) reports whether it can. Not
        logged, as a proxy may have a password.
    type: json
  accept_engine:
    description:
      - What a restart of the engine may stop; nothing (V(nothing)), containers that it starts again by their restart policy (V(restart)),
        or any container (V(stop)).
    type: str
    choices: [nothing, restart, stop]
    default: nothing
extends_documentation_fragment:
  - slipway.stack.options.login
  - slipway.stack.attributes.reads
author:
  - The Slipway authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Read the state of the host
  slipway.stack.host_state:
    stack: slipway
    images: [redis:7-alpine]
  register: container_service_host_state
"""

RETURN = r"""
host:
  description: >-
    The machine: C(hostname), C(machine_id), C(distribution), C(distribution_version), C(architecture), C(memory_mb), C(cores), C(root),
    whether the kernel has C(apparmor), the interpreter C(python) that modules run with,
    C(addresses), C(routes) with C(network) and C(interface), C(nonlocal_bind), C(uptime_s), its clock in seconds since 1970 as C(time_s),
    the folder of the engine's volumes as C(data_root), that of its images as C(image_root), which is another one where containerd stores
    them, and C(disks) with C(total_mb) and C(free_mb), of C(/) and of these folders.
  returned: always
  type: dict
engine:
  description: >-
    Whether an engine answers (C(available)), its C(version), C(api_version), or the C(error), why it cannot have O(engine_options)
    (C(options_refused)), and its C(options): those that it has C(accepted), those of the file now (C(current)), those that Slipway has
    C(written), whether a change was C(interrupted), and whether C(containers_live_on) while it restarts.
  returned: always
  type: dict
containers:
  description: >-
    The stack's containers by name, with image, state, health, labels, networks, limits and the memory and CPU time that they take; never
    their environment. One without labels that has the name of a service that was deployed here is among them.
  returned: always
  type: dict
foreign_containers:
  description: >-
    Other containers by name, with their published C(ports) as those of C(containers) have them, and the C(volumes) that they mount.
  returned: always
  type: dict
networks:
  description: All networks by name.
  returned: always
  type: dict
volumes:
  description: >-
    All volumes by name, with C(labels), C(mountpoint), the C(uid) that owns its root, whether it is C(empty), and the C(pg_version) of a
    PostgreSQL cluster; those that are not the stack's also with C(lock) and C(written_s), which show whether it is in use. One with a
    cluster that another program's container mounts has the C(superuser) that its variable POSTGRES_USER names.
  returned: always
  type: dict
images:
  description: >-
    The images that are there, by tag and by digest, each with its C(id), and those of O(images) with the C(versions) of programs
    that they name in variables such as C(NGINX_VERSION) and in C(PG_MAJOR), their C(platform), the C(user) they run as, and the numbers of
    the C(users) that they know.
  returned: always
  type: dict
missing_images:
  description: Of O(images) those that are not there, each with the reason why it cannot be pulled; empty when it can.
  returned: always
  type: dict
files:
  description: Files of the stack by path, with C(digest), C(mode), C(uid) and C(gid), links with C(link).
  returned: always
  type: dict
listening:
  description: >-
    Of O(ports) those on which something listens, each with a list of who does: the C(protocol), the C(address), empty for all, the
    C(process) or C(container), and whether it is the stack's (C(ours)), as its mesh is.
  returned: always
  type: dict
reach:
  description: >-
    For each of O(reach) C(open), C(refused) (the address answers, but nothing listens or a firewall rejects it), or C(unreachable) with a
    reason.
  returned: always
  type: dict
queries:
  description: What the services say of the state they keep inside, by container.
  returned: always
  type: dict
mesh:
  description: >-
    The encrypted network between hosts: whether the C(kernel) has WireGuard, whether there is a device C(tun) for a program that has it,
    and the C(interface) of the stack with its public key, C(port), C(mtu), C(rules) and C(peers); never a private or pre-shared key.
  returned: always
  type: dict
firewall:
  description: >-
    Rules of the chain DOCKER-USER, what calls it, and rules of stacks' chains, whose names begin with SLIPWAY, in the kernel's order.
  returned: always
  type: list
  elements: str
tools:
  description: Which of the programs we need are there.
  returned: always
  type: dict
asked_s:
  description: The controller's clock when it began to ask, in seconds since 1970.
  returned: always
  type: float
answered_s:
  description: The same when it had the answer. The host's own C(time_s) was read in between.
  returned: always
  type: float
"""

import contextlib
import glob
import hashlib
import hmac
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils import sockets
from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError
from ansible_collections.slipway.stack.plugins.module_utils.containers import RUNNING
from ansible_collections.slipway.stack.plugins.module_utils.control_groups import (
    PROCESSES,
    cpu_seconds,
    memory_used,
    read_text,
)
from ansible_collections.slipway.stack.plugins.module_utils.engine import (
    Engine,
    EngineError,
    normal_reference,
)
from ansible_collections.slipway.stack.plugins.module_utils.engine_options import (
    ACCEPTED,
    ENGINE_OPTIONS,
    describe,
    read_options,
    refused_change,
)
from ansible_collections.slipway.stack.plugins.module_utils.images import registry_login
from ansible_collections.slipway.stack.plugins.module_utils.logins import LOGIN_HEADER, LOGIN_OPTIONS, host_login
from ansible_collections.slipway.stack.plugins.module_utils.mesh import interface_of, kernel_has_wireguard, read_interface
from ansible_collections.slipway.stack.plugins.module_utils.secret_module import SecretModule

# A config file larger than this is described without its text.
CONTENT_LIMIT = 65536
# The same for a file that decides something, such as the record of releases, or that was asked for, such as the report of the backups.
ASKED_LIMIT = 2**20
# By which servers say that they use a folder: PostgreSQL, and SQLite in Chroma while it is open.
LOCK_FILES = ("postmaster.pid", "chroma.sqlite3-wal", "chroma.sqlite3-shm")
# What Redis leaves in a volume.
REDIS_FILES = ("dump.rdb", "appendonlydir", "appendonly.aof")
# Of a foreign volume, at most this many files are checked.
ENTRIES_LOOKED_AT = 2000
#: Where an engine keeps its data unless an option says otherwise.
DATA_ROOT = "/var/lib/docker"
#: The same of the host's containerd, where that stores the engine's images, as it does for new installations from Docker 29 on.
CONTAINERD_ROOT = "/var/lib/containerd"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
SNAPSHOTTER = "io.containerd.snapshotter.v1"
#: Addresses that stand for all of a host.
ANY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
# What the name of a file in a volume begins with.
IN_VOLUME = "volume:"
# Where it lists the formats of programs that it hands to an emulator.
EMULATORS = "/proc/sys/fs/binfmt_misc"
# Platforms of images, the host's own first, by the machine's architecture.
PLATFORMS = {"x86_64": ["linux/amd64", "linux/386"], "aarch64": ["linux/arm64", "linux/arm"], "armv7l": ["linux/arm"]}


def roots(engine: Engine | None) -> tuple[str, str]:
    """Return the folders in which the engine keeps its data and its images, or, where none answers, will keep both."""
    with contextlib.suppress(EngineError, RefusedError):
        if engine is not None:
            info = engine.get("/info")
            root = info.get("DockerRootDir") or DATA_ROOT
            stored_by = dict(info.get("DriverStatus") or []).get("driver-type")
            # An engine that runs a containerd of its own has its data below the folder of the engine's.
            at = (info.get("Containerd") or {}).get("Address") or CONTAINERD_SOCKET
            return root, containerd_root() if stored_by == SNAPSHOTTER and at == CONTAINERD_SOCKET else root
        root = str(read_options(ENGINE_OPTIONS)[1].get("data-root") or DATA_ROOT)
        return root, root
    return DATA_ROOT, DATA_ROOT


def containerd_root(config: str = "/etc/containerd/config.toml") -> str:
    """Return the folder in which the host's containerd keeps images, as its configuration says before the first table."""
    top = re.split(r"^\s*\[", read_text(config), maxsplit=1, flags=re.MULTILINE)[0]
    found = re.search(r"^\s*root\s*=\s*([\"'])(.+?)\1", top, re.MULTILINE)
    return found[2] if found else CONTAINERD_ROOT


def describe_host(root: str, images: str) -> dict[str, t.Any]:
    """Return the facts of the machine, whose engine keeps its data and its images in two folders; memory and disk in MiB."""
    release = {}
    for line in read_text("/etc/os-release").splitlines():
        key, equals, value = line.partition("=")
        if equals:
            release[key] = value.strip().strip("\"'")
    memory = {}
    for line in read_text("/proc/meminfo").splitlines():
        key, _colon, value = line.partition(":")
        memory[key] = int(value.split()[0]) // 1024 if value.split() else 0
    disks = {}
    for path in ("/", root, images):
        # Before the engine has made its folder, the disk that it will be on.
        existing = os.path.join("/", path)
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        usage = shutil.disk_usage(existing)
        disks[path] = {"total_mb": usage.total // 2**20, "free_mb": usage.free // 2**20}
    # A container or slice that holds this host may allow less than the kernel has.
    limit = read_text("/sys/fs/cgroup/memory.max").strip()
    total = memory.get("MemTotal", 0)
    return {
        "hostname": socket.gethostname(),
        "machine_id": read_text("/etc/machine-id").strip(),
        "distribution": release.get("ID", "unknown"),
        "distribution_version": release.get("VERSION_ID", ""),
        "distribution_codename": release.get("VERSION_CODENAME", ""),
        "architecture": platform.machine(),
        "platforms": platforms(),
        "kernel": platform.release(),
        "python": sys.executable,
        "memory_mb": min(total, int(limit) // 2**20) if limit.isdigit() else total,
        "memory_available_mb": memory.get("MemAvailable", 0),
        "cores": len(os.sched_getaffinity(0)),
        "root": os.geteuid() == 0,
        "apparmor": read_text("/sys/module/apparmor/parameters/enabled").startswith("Y"),
        "addresses": own_addresses(),
        "routes": own_routes(),
        # Addresses that another host may hand over can be bound before they are here.
        "nonlocal_bind": read_text("/proc/sys/net/ipv4/ip_nonlocal_bind").strip() == "1",
        "data_root": root,
        "image_root": images,
        "disks": disks,
        "uptime_s": int(float((read_text("/proc/uptime") or "0").split()[0])),
        "time_s": int(time.time()),
    }


def platforms() -> list[str]:
    """Return the platforms whose images run here; none where that is not known, as with an emulator."""
    with contextlib.suppress(OSError):
        if any(name.startswith(("qemu-", "rosetta")) for name in os.listdir(EMULATORS)):
            return []
    return PLATFORMS.get(platform.machine(), [])


def own_addresses() -> list[str]:
    """Return the IPv4 addresses of this host's interfaces, sorted, and the IPv6 addresses at which others reach it."""
    found = set()
    lines = read_text("/proc/net/fib_trie").splitlines()
    for number, line in enumerate(lines):
        if "/32 host LOCAL" in line and number:
            found.add(lines[number - 1].split()[-1])
    return sorted(found) + sockets.public_ipv6()


def own_routes(path: str = "/proc/net/route") -> list[dict[str, str]]:
    """Return this host's IPv4 routes, without default ones, by the interface that they lead over."""
    found = []
    for line in read_text(path).splitlines()[1:]:
        interface, destination, _gateway, _flags, _count, _use, _metric, mask, *_rest = line.split()
        bits = int(mask, 16).bit_count()
        if bits:
            found.append({"network": f"{socket.inet_ntoa(struct.pack('<L', int(destination, 16)))}/{bits}", "interface": interface})
    return found


def describe_container(inspected: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return of a container's description what comparison and status need; never its environment."""
    state, host, config = inspected["State"], inspected["HostConfig"], inspected["Config"]
    networks = inspected["NetworkSettings"]["Networks"] or {}
    health = state.get("Health") or {}
    return {
        "id": inspected["Id"],
        "image": normal_reference(config["Image"]),
        "image_id": inspected["Image"],
        "status": state["Status"],
        "running": state["Running"] and not state.get("Paused") and not state.get("Restarting"),
        "health": health.get("Status", "none"),
        "exit_code": state.get("ExitCode", 0),
        "oom_killed": state.get("OOMKilled", False),
        "restarts": inspected.get("RestartCount", 0),
        "started_at": state.get("StartedAt", ""),
        "labels": config.get("Labels") or {},
        "owner": (config.get("Labels") or {}).get("slipway.owner", ""),
        "version": (config.get("Labels") or {}).get("slipway.version", ""),
        "networks": {name: sorted((value or {}).get("Aliases") or []) for name, value in networks.items()},
        "memory": host.get("Memory", 0),
        "memory_used": memory_used(state["Pid"]) if state.get("Pid") else 0,
        "cpu_seconds": cpu_seconds(state["Pid"]) if state.get("Pid") else 0,
        "nano_cpus": host.get("NanoCpus", 0),
        "cpu_shares": host.get("CpuShares", 0),
        "pids": host.get("PidsLimit") or 0,
        "volumes": {
            mount["Name"]: {"path": mount.get("Destination", ""), "mode": "rw" if mount.get("RW") else "ro"}
            for mount in inspected.get("Mounts") or []
            if mount.get("Name")
        },
        "restart_policy": (host.get("RestartPolicy") or {}).get("Name", ""),
        "ports": {
            port: [f"{binding['HostIp']}:{binding['HostPort']}" for binding in bindings or []]
            for port, bindings in (host.get("PortBindings") or {}).items()
        },
    }


def listed_ports(ports: list[dict[str, t.Any]]) -> dict[str, list[str]]:
    """Return the published ports of a container as the engine lists them with it, in the form of :func:`describe_container`."""
    found: dict[str, list[str]] = {}
    for port in ports:
        if port.get("PublicPort"):
            found.setdefault(f"{port['PrivatePort']}/{port['Type']}", []).append(f"{port.get('IP', '')}:{port['PublicPort']}")
    return found


def of_the_stack(name: str, labels: dict[str, str], stack: str, folder: str) -> bool:
    """Return whether a container is the stack's: by its label, or re-created by hand under the name of a service that ran here.

    Args:
        name: the container's name.
        labels: the container's labels.
        stack: name of the stack.
        folder: the stack's folder, in which each service that was ever deployed has its own.
    """
    if "slipway.stack" in labels:
        return labels["slipway.stack"] == stack
    service = name.removeprefix(f"{stack}-")
    return service not in (name, "") and os.path.isdir(os.path.join(folder, service))


def read_engine(stack: str, folder: str) -> tuple[dict[str, t.Any], Engine | None]:
    """Return what the engine holds of the stack, whose files are in a folder, and the engine when one answers."""
    state: dict[str, t.Any] = {
        "engine": {"available": False, "version": "", "api_version": "", "error": ""},
        "containers": {},
        "foreign_containers": {},
        "networks": {},
        "volumes": {},
        "images": {},
        "queries": {},
    }
    engine = Engine()
    try:
        version = engine.version()
    except EngineError as error:
        state["engine"]["error"] = str(error)
        return state, None
    state["engine"].update(available=True, version=version["Version"], api_version=version["ApiVersion"])
    for short in engine.containers():
        name = short["Names"][0].lstrip("/") if short["Names"] else short["Id"][:12]
        if not of_the_stack(name, short.get("Labels") or {}, stack, folder):
            state["foreign_containers"][name] = {
                "ports": listed_ports(short.get("Ports") or []),
                "image": short.get("Image", ""),
                "status": short.get("State", ""),
                "running": short.get("State") in RUNNING,
                "mounts": short.get("Mounts") or [],
            }
            continue
        inspected = engine.inspect(short["Id"])
        if inspected is not None:
            state["containers"][name] = describe_container(inspected)
    for network in engine.get("/networks"):
        state["networks"][network["Name"]] = {
            "internal": network["Internal"],
            "labels": network.get("Labels") or {},
            "subnets": [item.get("Subnet", "") for item in (network.get("IPAM") or {}).get("Config") or []],
        }
    read_volumes(engine, stack, state)
    for image in engine.get("/images/json"):
        for reference in (image.get("RepoTags") or []) + (image.get("RepoDigests") or []):
            if "<none>" not in reference:
                state["images"][normal_reference(reference)] = {
                    "id": image["Id"],
                    "digests": sorted(image.get("RepoDigests") or []),
                }
    for name, container in state["containers"].items():
        argv = container["labels"].get("slipway.query")
        if argv and container["running"]:
            state["queries"][name] = run_query(engine, name, json.loads(argv))
    return state, engine


def read_volumes(engine: Engine, stack: str, state: dict[str, t.Any]) -> None:
    """Add to the state all volumes, and to each foreign container those that it mounts."""
    for volume in engine.get("/volumes").get("Volumes") or []:
        labels = volume.get("Labels") or {}
        state["volumes"][volume["Name"]] = {
            "labels": labels,
            "mountpoint": volume["Mountpoint"],
            "driver": volume["Driver"],
            **describe_volume(volume["Mountpoint"], ours=labels.get("slipway.stack") == stack),
        }
    places = {name: volume["mountpoint"] for name, volume in state["volumes"].items()}
    for name, container in state["foreign_containers"].items():
        container["volumes"] = volumes_of(container.pop("mounts"), places)
        for volume in (state["volumes"][mounted] for mounted in container["volumes"]):
            if volume["pg_version"] and (superuser := superuser_of(engine, name)):
                volume["superuser"] = superuser


def superuser_of(engine: Engine, container: str) -> str:
    """Return the superuser that a container of PostgreSQL's official image is to create its cluster with, if any."""
    environment = ((engine.inspect(container) or {}).get("Config") or {}).get("Env") or []
    return dict(item.split("=", 1) for item in environment if "=" in item).get("POSTGRES_USER", "")


def describe_volume(place: str, ours: bool) -> dict[str, t.Any]:
    """Return who owns a volume's root and what is in it; of a foreign one also whether it seems to be in use.

    ``written_s`` are the seconds since the last write that a look at the upper folders finds, or None where a server of this kind is known
    to have ended, and ``lock`` the file by which a server says that it runs, or that it ended in a crash.
    """
    try:
        info, names = os.stat(place), [name for name in os.listdir(place) if name != "lost+found"]
    except OSError:
        # Of a driver that keeps it elsewhere.
        return {"uid": None, "empty": None, "pg_version": ""}
    found: dict[str, t.Any] = {"uid": info.st_uid, "empty": not names, "pg_version": ""}
    if "PG_VERSION" in names:
        found["pg_version"] = read_text(os.path.join(place, "PG_VERSION")).strip()
    if not ours:
        found["lock"] = next((name for name in LOCK_FILES if name in names), "")
        if not found["lock"] and server_has_ended(place, names):
            return {**found, "written_s": None}
        newest, left = 0.0, ENTRIES_LOOKED_AT
        for folder, folders, files in os.walk(place):
            if folder.count("/") - place.count("/") >= 1:
                folders.clear()
            for name in files[:left]:
                with contextlib.suppress(OSError):
                    newest = max(newest, os.lstat(os.path.join(folder, name)).st_mtime)
            left -= min(left, len(files))
        found["written_s"] = max(0, int(time.time() - newest)) if newest else None
    return found


def server_has_ended(place: str, names: list[str]) -> bool:
    """Return whether no server runs on a volume without a lock file: PostgreSQL has one, and Redis works in the folder of its data."""
    if "PG_VERSION" in names:
        return True
    return any(name in names for name in REDIS_FILES) and not any(
        same_folder(place, f"{PROCESSES}/{process}/cwd") for process in os.listdir(PROCESSES) if process.isdigit()
    )


def same_folder(one: str, other: str) -> bool:
    """Return whether two paths lead to one folder, whatever a container calls it."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        # The process has ended meanwhile, or is one of the kernel.
        return False


def volumes_of(mounts: list[dict[str, t.Any]], places: dict[str, str]) -> dict[str, str]:
    """Return the volumes that a container mounts, by name or by their folders on the host, with ``rw`` or ``ro``."""
    found: dict[str, str] = {}
    for mount in mounts:
        source = mount.get("Source") or ""
        for name, place in places.items():
            if mount.get("Name") == name or source == place or source.startswith(place + "/"):
                found[name] = "rw" if mount.get("RW") or found.get(name) == "rw" else "ro"
    return found


def run_query(engine: Engine, container: str, argv: list[str]) -> dict[str, t.Any]:
    """Ask a service for the state it keeps inside; its answer is one JSON document."""
    try:
        code, out, err = engine.execute(container, argv)
        return {"rc": code, "answer": json.loads(out) if code == 0 else None, "error": err.strip()[-500:]}
    except (EngineError, ValueError) as error:
        return {"rc": 1, "answer": None, "error": str(error)}


def describe_images(engine: Engine, images: dict[str, t.Any], wanted: list[str], containers: dict[str, t.Any]) -> None:
    """Note of each wanted image that is there who it runs as, and the versions of programs that it names, as official ones do.

    Args:
        engine: the host's.
        images: those that it has, by name.
        wanted: names of images.
        containers: the stack's, by name.
    """
    known: dict[str, dict[str, int]] = {}
    by_image = {container["image_id"]: container["id"] for container in containers.values()}
    for reference in sorted({normal_reference(item) for item in wanted} & set(images)):
        inspected = engine.get(f"/images/{reference}/json")
        config = inspected.get("Config") or {}
        named = {name: value for name, _equals, value in (variable.partition("=") for variable in config.get("Env") or [])}
        images[reference]["versions"] = {name[:-8].lower(): value for name, value in named.items() if name.endswith("_VERSION")}
        if "PG_MAJOR" in named:
            # PostgreSQL's images name it apart, those that are built from them at times it alone.
            images[reference]["versions"]["pg_major"] = named["PG_MAJOR"]
        images[reference]["user"] = config.get("User") or "root"
        images[reference]["platform"] = f"{inspected.get('Os')}/{inspected.get('Architecture')}"
        layers, image = (inspected.get("GraphDriver") or {}).get("Data") or {}, images[reference]["id"]
        if image not in known:
            known[image] = users_of(layers) if "UpperDir" in layers else users_in(engine, reference, by_image.get(image, ""))
        images[reference]["users"] = known[image]


def users_of(layers: dict[str, str]) -> dict[str, int]:
    """Return the numbers of the users that an image knows, by name, from its files as they lie on the disk.

    Args:
        layers: folders of the image's layers as the engine's overlay driver names them, the last one first.
    """
    for layer in [layers.get("UpperDir", ""), *layers.get("LowerDir", "").split(":")]:
        found = user_numbers(read_text(os.path.join(layer, "etc/passwd")) if layer else "")
        if found:
            return found
    return {}


def users_in(engine: Engine, image: str, container: str) -> dict[str, int]:
    """Return the same from a container of the image, or a new one; none where the engine makes no container of it."""
    try:
        return user_numbers(engine.image_files(image, ["/etc/passwd"], container)[0])
    except EngineError:
        return {}


def user_numbers(passwd: str) -> dict[str, int]:
    """Return the numbers of the users in the text of /etc/passwd, by name."""
    rows = [line.split(":") for line in passwd.splitlines()]
    return {row[0]: int(row[2]) for row in rows if len(row) > 3 and row[2].isdigit()}


def missing_images(engine: Engine | None, images: dict[str, t.Any], wanted: list[str], own: dict[str, str] | None = None) -> dict[str, str]:
    """Return, for each wanted image that the host has not, why it cannot be pulled; an empty reason means that it can.

    Args:
        engine: the host's.
        images: those that it has, by name.
        wanted: names of images.
        own: login that the host does not have, to one registry.
    """
    found: dict[str, str] = {}
    if engine is None:
        return found
    for reference in sorted({normal_reference(item) for item in wanted} - set(images)):
        login = registry_login(own or {}, reference) or host_login(reference)
        try:
            login_header = {LOGIN_HEADER: login} if login else None
            answer = engine.request("GET", f"/distribution/{reference}/json", timeout=20, more_headers=login_header)
            found[reference] = wrong_platform(json.loads(answer), platforms())
        except EngineError as error:
            found[reference] = str(error)
    return found


def wrong_platform(offered: dict[str, t.Any], here: list[str]) -> str:
    """Return why no image that a registry offers under a name runs here, or "" where one does or that is not known."""
    known = sorted({f"{item['os']}/{item['architecture']}" for item in offered.get("Platforms") or [] if item.get("architecture")})
    if not known or not here or set(known) & set(here):
        return ""
    return f"it is for {', '.join(known)}, and this host runs {here[0]}"


def describe_file(path: str, key: bytes, contents: bool, limit: int = CONTENT_LIMIT) -> dict[str, t.Any] | None:
    """Return a file's keyed digest, mode and owner, and its text where that is asked for, within a limit, and no secret."""
    try:
        info = os.lstat(path)
        found: dict[str, t.Any] = {"mode": f"{info.st_mode & 0o7777:04o}", "uid": info.st_uid, "gid": info.st_gid}
        if os.path.islink(path):
            found["link"] = os.readlink(path)
            return found
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return None
    found["digest"] = hmac.new(key, data, hashlib.sha256).hexdigest()
    small_state = os.path.basename(path) == "loaded" or "/release/" in path or (path.endswith(".json") and "/state/" in path)
    if (contents or small_state) and "/secrets/" not in path and len(data) <= (ASKED_LIMIT if small_state else limit):
        found["content"] = data.decode("utf-8", "replace")
    return found


def describe_files_of_volumes(names: list[str], volumes: dict[str, t.Any], key: bytes) -> dict[str, dict[str, t.Any]]:
    """Describe those of the files ``volume:NAME/PATH`` that are there, under these names."""
    found = {}
    for name in names:
        volume, _slash, path = name[len(IN_VOLUME) :].partition("/")
        described = describe_file(os.path.join(volumes[volume]["mountpoint"], path), key, True, ASKED_LIMIT) if volume in volumes else None
        if described is not None:
            found[name] = described
    return found


def describe_files(top: str, extra: list[str], key: bytes, contents: bool) -> dict[str, dict[str, t.Any]]:
    """Describe every file and link below ``top``, its folders of secrets, and the further files."""
    found = {}
    expanded = {path for pattern in extra for path in glob.glob(pattern)}
    paths = list(expanded)
    for folder, folders, names in os.walk(top):
        paths += [os.path.join(folder, name) for name in names]
        paths += [os.path.join(folder, name) for name in folders if os.path.islink(os.path.join(folder, name))]
        if os.path.basename(folder) == "secrets":
            info = os.lstat(folder)
            found[folder] = {"mode": f"{info.st_mode & 0o7777:04o}", "uid": info.st_uid, "gid": info.st_gid, "folder": True}
    for path in sorted(paths):
        described = describe_file(path, key, True, ASKED_LIMIT) if path in expanded else describe_file(path, key, contents)
        if described is not None:
            found[path] = described
    return found


def listeners(ports: list[int], state: dict[str, t.Any]) -> dict[str, list[dict[str, t.Any]]]:
    """Return, for each of the ports on which something listens, on which address and who it is; on all addresses, the address is empty."""
    found: dict[str, list[dict[str, t.Any]]] = {}
    published = set()
    for kind in ("containers", "foreign_containers"):
        for name, container in state[kind].items():
            for protocol, address, number in published_on(container):
                if number in ports and container["status"] in RUNNING and (protocol, address, number, name) not in published:
                    published.add((protocol, address, number, name))
                    found.setdefault(str(number), []).append(
                        {"protocol": protocol, "address": address, "process": "", "container": name, "ours": kind == "containers"}
                    )
    # The engine, or a program of it, has a socket for each published port.
    of_containers = {(protocol, address, number) for protocol, address, number, _name in published}
    mesh_port = state["mesh"]["interface"].get("port")
    others = {}
    for listener in sockets.listeners():
        address = "" if listener.address in ANY_ADDRESS else listener.address
        if listener.port in ports and (listener.protocol, address, listener.port) not in of_containers:
            ours = listener.protocol == "udp" and listener.port == mesh_port
            others[listener.inode] = {"protocol": listener.protocol, "address": address, "process": "", "container": "", "ours": ours}
            found.setdefault(str(listener.port), []).append(others[listener.inode])
    for inode, process in sockets.processes(others).items():
        others[inode]["process"] = process
    return found


def published_on(container: dict[str, t.Any]) -> list[tuple[str, str, int]]:
    """Return the protocols, addresses and ports on which a container is reached; the address is empty for all."""
    bindings = [(port.rpartition("/")[2], *binding.rpartition(":")) for port, items in container["ports"].items() for binding in items]
    return [
        (protocol, "" if address in ANY_ADDRESS else address, int(number))
        for protocol, address, _colon, number in bindings
        if number.isdigit()
    ]


def reachable(targets: list[str], timeout: float) -> dict[str, str]:
    """Try all targets, each ``address:port``, and say of each what came of it."""
    parts = {target: target.rpartition(":") for target in targets}
    tried = {target: ("tcp", address, int(port)) for target, (address, _colon, port) in parts.items() if port.isdigit()}
    results = sockets.reachable(set(tried.values()), timeout)
    return {target: results[tried[target]][0] if target in tried else "unreachable: no port" for target in targets}


def firewall_rules() -> list[str]:
    """Return the rules of the chain DOCKER-USER, what calls it, and those of stacks' chains, as iptables lists them."""
    program = shutil.which("iptables", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if not program:
        return []
    # Without AnsibleModule, as other modules call it too.
    listed = subprocess.run(  # pylint: disable=ansible-bad-function
        [program, "-w", "5", "-S"], capture_output=True, text=True, check=False
    ).stdout
    return [line for line in listed.splitlines() if " SLIPWAY" in line or " DOCKER-USER" in line]


def main() -> None:
    """Run the module."""
    module = SecretModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/etc/slipway"},
            "digest_key": {"type": "str", "required": True, "no_log": True},
            "images": {"type": "list", "elements": "str", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "reach": {"type": "list", "elements": "str", "default": []},
            "reach_timeout": {"type": "float", "default": 3},
            "files": {"type": "list", "elements": "str", "default": []},
            "contents": {"type": "bool", "default": False},
            "engine_options": {"type": "json", "no_log": True},
            "accept_engine": {"type": "str", "choices": list(ACCEPTED), "default": ACCEPTED[0]},
            "login": {"type": "dict", "default": {}, "options": LOGIN_OPTIONS},
        },
        supports_check_mode=True,
    )
    options = module.params
    folder = os.path.join(options["root"], options["stack"])
    # Addresses are tried while the rest is read: they may cost a timeout, and nothing else waits for them.
    reach: dict[str, str] = {}
    prober = threading.Thread(target=lambda: reach.update(reachable(options["reach"], options["reach_timeout"])))
    prober.start()
    try:
        state, engine = read_engine(options["stack"], folder)
    except EngineError as error:
        module.fail_json(msg=f"Reading the Docker Engine failed: {error}")
    wanted = options["engine_options"]
    state["engine"]["options_refused"] = refused_change(json.loads(wanted), engine, options["accept_engine"]) if wanted else ""
    state["engine"]["options"] = describe(engine)
    key = options["digest_key"].encode()
    state["schema"] = 1
    state["host"] = describe_host(*roots(engine))
    of_volumes = [name for name in options["files"] if name.startswith(IN_VOLUME)]
    state["files"] = {
        **describe_files(folder, [name for name in options["files"] if name not in of_volumes], key, options["contents"]),
        **describe_files_of_volumes(of_volumes, state["volumes"], key),
    }
    if engine is not None:
        describe_images(engine, state["images"], options["images"], state["containers"])
    state["missing_images"] = missing_images(engine, state["images"], options["images"], options["login"])
    state["firewall"] = firewall_rules()
    state["mesh"] = {
        "kernel": kernel_has_wireguard(),
        "tun": os.path.exists("/dev/net/tun"),
        "interface": read_interface(interface_of(options["stack"])),
    }
    state["listening"] = listeners(options["ports"], state)
    state["tools"] = {
        **{name: importlib.util.find_spec(name) is not None for name in ("requests", "psycopg2")},
        **{
            name: shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin") is not None
            for name in ("docker", "dockerd", "ip", "iptables", "logrotate", "wg", "wireguard-go")
        },
    }
    prober.join()
    state["reach"] = reach
    module.exit_json(changed=False, **state)


if __name__ == "__main__":
    main()
