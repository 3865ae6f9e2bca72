# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services of a product, as an inventory describes them in app_services, and what follows from them for hosts, balancers and releases.

roles/app/meta/argument_specs.yml, entry point service, says what a service may have. A service with a port is a web service, one with a
schedule a job, and any other a worker.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ansible_collections.slipway.stack.plugins.filter.http_healthcheck import http_healthcheck
from ansible_collections.slipway.stack.plugins.filter.memory_share import memory_share
from ansible_collections.slipway.stack.plugins.module_utils.containers import JOB_LABEL, SLOTS, slot_owner
from ansible_collections.slipway.stack.plugins.module_utils.engine import normal_reference
from ansible_collections.slipway.stack.plugins.module_utils.images import ImageError, login_server, registry_of
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import plain_yaml
from ansible_collections.slipway.stack.plugins.plugin_utils.forms import Form, parsed, typed
from ansible_collections.slipway.stack.plugins.plugin_utils.image_records import differing_images
from ansible_collections.slipway.stack.plugins.plugin_utils.quoting import QuotingError, shell_word
from ansible_collections.slipway.stack.plugins.plugin_utils.release import canary_weights
from ansible_collections.slipway.stack.plugins.plugin_utils.server_names import server_name

_META = Path(__file__).resolve().parents[2] / "roles/app/meta"
SPECIFICATION, FORMS = _META / "argument_specs.yml", _META / "forms.yml"
#: Variables that describe a product, as an inventory names them.
VARIABLES = ("app_services", "app_defaults", "app_service_overrides")
#: Share of a host's memory that the containers of a slot have together where it has no limit of its own, and what each has at least.
MEMORY_SHARE, LEAST_MEMORY_MB = 0.2, 256
#: Seconds between the end of a service's time to stop and the moment when it is killed.
KILLED_AFTER_SECONDS = 10
#: Added to the published ports of the second slot where app_slot_port_offset says nothing else.
SLOT_PORT_OFFSET = 100
#: Keys whose values only the engine can judge.
JUDGED = ("entrypoint", "command", "user", "volumes", "tmpfs", "memory_mb", "cpus", "pids")
#: Keys of web services alone, keys of jobs alone, and keys that a job cannot have.
WEB_KEYS = ("routes", "publish_port", "health_path", "ready_path", "version_path", "version_field")
JOB_KEYS = ("concurrency", "deadline_seconds")
NOT_OF_JOBS = ("port", *WEB_KEYS, "healthcheck", "start_seconds", "retire", "migrate", "backup")
#: Where a service finds what the server of the volumes asks of it, and seconds that its command before a copy may take.
BACKUP_PATH, QUIESCE_SECONDS = "/slipway/backup", 60
#: What a service of the product may say in backup.
QUIESCE_KEYS = ("before", "after", "seconds", "volume")
#: Folders of a container that hold what Slipway writes for it.
MOUNTED = {"/etc/slipway": "its configuration", "/run/secrets": "its secrets", BACKUP_PATH: "what backups ask of it"}
CURRENT = "/etc/slipway/current"
#: Scripts of Slipway among the files of a service, with names that none of its own can have.
START_SCRIPT, QUIESCE_SCRIPT, BACKUP_SCRIPT = ".entrypoint.sh", ".quiesce.sh", ".backup.sh"
#: Path on which a balancer says that it is alive.
BALANCER_PATH = "/health"
#: From here on nginx listens, for itself alone, for requests that wait for a name.
FIRST_WAIT_PORT = 8081
#: Networks that balancers are in.
BALANCER_NETWORKS = ("frontend", "backend")
#: Between two health checks of a container: role watchdog replaces one that hangs within 90 s.
HEALTH_SECONDS = 10
#: Seconds that a migration may take where it does not say.
MIGRATION_SECONDS = 600


@functools.cache
def known_keys() -> dict[str, dict[str, Any]]:
    """Return the keys that a service may have, as the specification describes them."""
    options: dict[str, dict[str, Any]] = plain_yaml(SPECIFICATION)["argument_specs"]["service"]["options"]
    return options


@functools.cache
def form_of_service() -> Form:
    """Return the form of a service, whose fields are its keys."""
    return parsed(plain_yaml(FORMS)["app_defaults"])


def merged(values: Sequence[Any]) -> Any:
    """Return the last value; of dictionaries, one with the members of all, those of later ones first. Null takes away what is before."""
    if not values or not isinstance(values[-1], Mapping):
        return values[-1] if values else None
    maps = list(itertools.takewhile(lambda value: isinstance(value, Mapping), reversed(values)))[::-1]
    return {
        name: merged([value[name] for value in maps if name in value]) for name in dict.fromkeys(name for value in maps for name in value)
    }


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a dictionary as it is, and for anything else, which the check of all inputs refuses, an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_served(host: Any) -> Any:
    """Return a host as nginx takes it, and one that is not valid, which the check of all inputs refuses, as it is."""
    with contextlib.suppress(QuotingError):
        return server_name(host, "host")
    return host


def is_kept(volume: Mapping[str, Any]) -> bool:
    """Return whether recovery points hold a volume that a service writes to."""
    return volume.get("backup") in (None, True)


def fits(value: Any, form: Mapping[str, Any]) -> bool:
    """Return whether a value can be read as the type that a form asks for; a string may be a number."""
    kind = form.get("type")
    if kind == "int":
        return isinstance(value, int) or str(value).strip().isdecimal()
    if kind == "str":
        return not isinstance(value, (list, Mapping))
    if kind == "dict":
        return isinstance(value, Mapping)
    if kind != "list":
        return True
    return isinstance(value, list) and (form.get("elements") != "dict" or all(isinstance(item, Mapping) for item in value))


class Service(Mapping[str, Any]):
    """A service with the values of all its keys. Each is read when it is asked for: another's template may not be resolvable here."""

    def __init__(self, name: str, parts: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> None:
        """Take what describes the service, first what all services share, and later parts over earlier ones, and the path of each part."""
        self.name = name
        self.path = paths[1]
        self._parts, self._paths = parts, paths

    def __getitem__(self, key: str) -> Any:
        """Return a key's value with booleans and numbers as such, also where they came as text, or its default."""
        value, form = self._merged(key, self._parts), known_keys()[key]
        # The check of all inputs refuses what is of another type; the topology is asked before it.
        return form.get("default") if value is None or not fits(value, form) else typed(form_of_service().fields[key], value)

    @staticmethod
    def _merged(key: str, parts: Iterable[Mapping[str, Any]]) -> Any:
        """Return the value that some parts give a key. A key that is null is not set there; a member that is null takes one away."""
        return merged([part[key] for part in parts if part.get(key) is not None])

    def __iter__(self) -> Iterator[str]:
        """Yield all keys that a service may have."""
        return iter(known_keys())

    def __len__(self) -> int:
        """Return the number of these keys."""
        return len(known_keys())

    @property
    def port(self) -> int:
        """The port on which a web service listens in its container; 0 for any other."""
        return 0 if self.schedule else int(self["port"] or 0)

    @property
    def replicas(self) -> int:
        """Number of its containers on a host."""
        return int(self["replicas"])

    @property
    def routes(self) -> list[dict[str, Any]]:
        """The requests that it gets, each with its ``host`` as nginx takes it."""
        return [{**route, "host": as_served(route["host"])} if route.get("host") else dict(route) for route in self["routes"]]

    @property
    def schedule(self) -> list[str]:
        """When a job runs; empty for any other service."""
        value = self["schedule"]
        return [value] if isinstance(value, str) else list(value) if isinstance(value, list) else []

    @property
    def kind(self) -> str:
        """What it is: a web service, a worker or a job."""
        return "job" if self.schedule else "web service" if self.port else "worker"

    def sets(self, key: str) -> bool:
        """Return whether a key has a value of its own, and not one that all services share."""
        return self._merged(key, self._parts[1:]) is not None

    def problem(self, key: str, text: str, *, member: bool = False) -> tuple[str, str]:
        """Return what is wrong with a key's value, with the path of what gives it: a value may be one that all services share.

        Args:
            key: The key; of one without a value, the path is that of the service.
            text: What is wrong.
            member: Whether the text is about the key itself, which the path then ends with.
        """
        path = next((path for path, part in zip(self._paths[::-1], self._parts[::-1], strict=True) if part.get(key) is not None), self.path)
        return f"{path}.{key}" if member else path, text if self.name in path.split(".")[1:] else f"(for {self.name}) {text}"

    @property
    def written_volumes(self) -> list[Mapping[str, Any]]:
        """The volumes that it may write to."""
        volumes = [volume for volume in self["volumes"] if isinstance(volume, Mapping) and {"name", "path"} <= set(volume)]
        return [volume for volume in volumes if volume.get("mode", "rw") == "rw"]

    def backup_seconds(self, default: int) -> int:
        """Return the seconds that its command for backups may take."""
        value = self["backup"].get("seconds")
        return int(value) if str(value).isdecimal() else default

    @property
    def stop_timeout(self) -> int:
        """Seconds after which the engine kills a container that was asked to stop."""
        return int(self["grace_seconds"]) + KILLED_AFTER_SECONDS

    @property
    def lasts(self) -> bool:
        """Whether it runs on until the next release, for open pages that ask for files of their own version."""
        return self["retire"] == "next" and not self.schedule

    def published_port(self, slot: str, number: int, offset: int) -> int:
        """Return the port on which the host publishes one of its containers."""
        return int(self["publish_port"] or self.port) + (offset if slot == "green" else 0) + number - 1

    def containers(self, slot: str) -> list[str]:
        """Return the names of its containers in a slot, without the stack's."""
        return [f"{self.name}-{slot}-{number}" for number in range(1, self.replicas + 1)]


def enabled(described: Iterable[Service]) -> dict[str, Service]:
    """Return the services by name that an environment runs."""
    return {service.name: service for service in described if service["enabled"] is not False}


def services(product: Mapping[str, Any]) -> dict[str, Service]:
    """Return a product's services by name, without those that are not enabled.

    Args:
        product: The values of VARIABLES, or the variables of a host.
    """
    described, defaults, overrides = (mapping(product.get(name)) for name in VARIABLES)
    found = (
        Service(
            name,
            [defaults, mapping(described[name]), mapping(overrides.get(name))],
            ["app_defaults", f"app_services.{name}", f"app_service_overrides.{name}"],
        )
        for name in described
    )
    return enabled(found)


def runs(service: Service, group_names: Iterable[str]) -> bool:
    """Return whether a service runs on a host that is in these groups of the inventory."""
    return service["hosts"] in ("all", *group_names)


def here(product: Mapping[str, Any], group_names: Iterable[str]) -> dict[str, Any]:
    """Return a product with those of its services alone that run on a host.

    Args:
        product: The values of VARIABLES, and perhaps more.
        group_names: Groups of the inventory that the host is in.
    """
    names = {name for name, service in services(product).items() if runs(service, group_names)}
    return {**product, "app_services": {name: keys for name, keys in (product["app_services"] or {}).items() if name in names}}


def secret_files(service: Service, secrets: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return secrets as files of a declaration, and the variables that name them for the product."""
    files = {name: {"content": value, "on_change": "restart"} for name, value in secrets.items()}
    exported = bool(service["secrets_in_environment"])
    return files, {} if exported else {f"{name}_FILE": f"/run/secrets/{name}" for name in secrets}


def common_declaration(service: Service, settings: Mapping[str, Any], containers: int) -> dict[str, Any]:
    """Return what all containers of a service have, its migration too."""
    host, exported = settings["host"], bool(service["secrets_in_environment"])
    kept = [volume for volume in service.written_volumes if is_kept(volume)]
    config = {name: {"content": content, "on_change": "restart"} for name, content in service["files"].items()}
    if exported:
        config[START_SCRIPT] = {"content": settings["start_script"], "on_change": "restart"}
    return {
        "image": service["image"],
        "user": service["user"],
        "wrapper": ["/bin/sh", f"{CURRENT}/{START_SCRIPT}"] if exported else [],
        "entrypoint": service["entrypoint"],
        "config": config,
        "volumes": [{**volume, "kept": volume in kept, "variable": f"{service.path}.volumes"} for volume in service["volumes"]],
        "tmpfs": service["tmpfs"],
        "networks": service["networks"],
        "memory_mb": service["memory_mb"] or memory_share(host["memory_mb"], MEMORY_SHARE / containers, LEAST_MEMORY_MB),
        "cpus": service["cpus"] or host["cores"],
        "pids": service["pids"],
        "stop_signal": service["stop_signal"],
        "stop_timeout": service.stop_timeout,
        "labels": {
            "slipway.slot": settings["slot"],
            **({"slipway.version": settings["version"]} if settings["version"] else {}),
            **({JOB_LABEL: service.name} if service.kind == "job" else {}),
        },
        "hardening_exceptions": service["hardening_exceptions"],
        "judged_inputs": [f"{service.path}.{key}" for key in JUDGED],
    }


def declarations(product: Mapping[str, Any], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a slot runs on a host, as container_service takes it: the migration first, where this host runs one.

    Args:
        product: The values of VARIABLES.
        settings: slot, version, publish_address, slot_port_offset, host_header, start_script, quiesce_script, migrate, host, what was
            read of it, and starting_cpu_shares, the weight of what starts next to the slot that serves, 0 for none of its own.
    """
    found = services(product)
    number_of_containers = sum(service.replicas for service in found.values() if service.kind != "job") or 1
    common = {name: common_declaration(service, settings, number_of_containers) for name, service in found.items()}
    migrations = migration_declarations(found, common, settings) if settings["migrate"] else []
    return migrations + [
        {**common[name], **quiesce_declaration(service, common[name], settings), **service_declaration(service, settings), **container}
        for name, service in found.items()
        for container in container_declarations(service, settings)
    ]


def quiesce_volume(service: Service) -> str:
    """Return the name of the volume by which a service learns that its volumes are copied, or "" where it has no command for that."""
    copied = service.kind != "job" and any(is_kept(volume) for volume in service.written_volumes)
    return str(service["backup"].get("volume") or f"{service.name}_quiesce") if copied and service["backup"].get("before") else ""


def quiesce_declaration(service: Service, common: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a service with a command before the copy of its volumes has in addition: a script that runs it."""
    if not quiesce_volume(service):
        return {}
    backup = service["backup"]
    commands = [" ".join(shell_word(word, f"{service.path}.backup.{key}") for word in backup[key]) for key in ("before", "after")]
    volume = {"name": quiesce_volume(service), "path": BACKUP_PATH, "variable": f"{service.path}.backup.volume"}
    quiesce = ["/bin/sh", f"{CURRENT}/{QUIESCE_SCRIPT}", *commands]
    return {
        "wrapper": [*common["wrapper"], *quiesce],
        # A command of a run would hold up the copy for as long as it runs.
        "not_copied": {"wrapper_words": len(quiesce), "volumes": [volume["name"]]},
        "config": {**common["config"], QUIESCE_SCRIPT: {"content": settings["quiesce_script"], "on_change": "restart"}},
        "volumes": [*common["volumes"], volume],
    }


def container_declarations(service: Service, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what each container of a service has for itself: its name, and the port that the host publishes."""
    address, slot = settings["publish_address"], settings["slot"]
    publishes = bool(address and service.port)
    return [
        {
            "name": name,
            "ports": [
                {
                    "address": address,
                    "variable": "app_publish_address",
                    "container_port": service.port,
                    "port": service.published_port(slot, number, int(settings["slot_port_offset"])),
                }
            ]
            if publishes
            else [],
        }
        for number, name in enumerate(service.containers(slot), 1)
    ]


def health_test(service: Service, host_header: str) -> list[str]:
    """Return the health check of a service's containers, as the engine takes it."""
    if service["healthcheck"]:
        return list(service["healthcheck"])
    if service.port and service["health_path"]:
        return http_healthcheck(service.port, service["health_path"], host=host_header)
    return ["NONE"]


def service_declaration(service: Service, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the containers of a service have, and its migration has not."""
    secrets, variables = secret_files(service, service["secrets"])
    declared = {"command": service["command"], "environment": {**service["environment"], **variables}, "secrets": secrets}
    if service.kind == "job":
        # Each run has a copy of it, made by role jobs.
        return {**declared, "container": "created", "healthcheck": {"test": ["NONE"]}}
    return {
        **declared,
        "starting_cpu_shares": settings.get("starting_cpu_shares", 0),
        "healthcheck": {
            "test": health_test(service, settings["host_header"]),
            "interval": HEALTH_SECONDS,
            "start_period": service["start_seconds"],
        },
        "healthy_timeout": service["start_seconds"],
    }


def migrating(found: Mapping[str, Service]) -> list[Service]:
    """Return the services that have a migration; more than one is refused."""
    return [service for service in found.values() if (service["migrate"] or {}).get("command")]


def migration_seconds(service: Service) -> int:
    """Return the seconds that the migration of a service may take."""
    return int(service["migrate"].get("seconds") or MIGRATION_SECONDS)


def migrating_group(product: Mapping[str, Any]) -> str:
    """Return the group of hosts of which the first runs the product's migration."""
    return next((str(service["hosts"]) for service in migrating(services(product))), str(known_keys()["hosts"]["default"]))


def migration_declarations(
    found: Mapping[str, Service], common: Mapping[str, dict[str, Any]], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the product's migration, which runs in its service's image, or nothing."""
    declared = []
    for service in migrating(found):
        migration = service["migrate"]
        secrets, variables = secret_files(service, merged([service["secrets"], migration.get("secrets") or {}]))
        declared.append(
            {
                **common[service.name],
                "name": f"migrate-{settings['slot']}",
                "labels": {**common[service.name]["labels"], "slipway.migrates": service.name},
                "command": migration["command"],
                "environment": {**service["environment"], **(migration.get("environment") or {}), **variables},
                "secrets": secrets,
                "one_shot": True,
                **({"cpu_shares": settings["starting_cpu_shares"]} if settings.get("starting_cpu_shares") else {}),
                "healthy_timeout": migration_seconds(service),
            }
        )
    return declared


def images(product: Mapping[str, Any]) -> dict[str, str]:
    """Return the image of each service."""
    return {name: str(service["image"]) for name, service in services(product).items()}


def login_registries(product: Mapping[str, Any]) -> list[str]:
    """Return the registries that a login may be for which names none: those of the images that are built, or of all where none is.

    Each is named once, as an image names it: Docker Hub has several names.
    """
    built = {registry_of(build["name"]) for build in builds(product).values()}
    named = built or {registry_of(image) for image in images(product).values()}
    return sorted({login_server(registry): registry for registry in sorted(named)}.values())


def registry_login(product: Mapping[str, Any], login: Mapping[str, str]) -> dict[str, str]:
    """Return a login with the registry that it is for: that of the images that are built, or of all where none is.

    Args:
        product: The values of VARIABLES.
        login: The value of ``image_registry_login``.

    Raises:
        ImageError: The images are of several registries, and the login names none. input_checks.check_registry_login says so before.
    """
    if not login.get("username") or "registry" in login:
        return dict(login)
    registries = login_registries(product)
    if len(registries) > 1:
        raise ImageError(f"image_registry_login {unclear_login(registries)}")
    return {**login, "registry": registries[0] if registries else ""}


def unclear_login(registries: Iterable[str]) -> str:
    """Return what is wrong with a login that may be for several registries."""
    named = ", ".join(registry or "docker.io" for registry in registries)
    return f"does not say which registry it is for, and images of the product are of {named}: add registry: to it"


def image_ids(product: Mapping[str, Any], hosts: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return by host the id of the image of each service that runs there, as far as the host was seen to have it."""
    found = {}
    for host in hosts:
        known = hostvars[host]["container_service_host_state"]["images"]
        running = images(here(product, hostvars[host]["group_names"]))
        listed = {name: normal_reference(image) for name, image in running.items()}
        found[host] = {name: known[image]["id"] for name, image in listed.items() if image in known}
    return found


def image_differences(
    product: Mapping[str, Any], hosts: Iterable[str], hostvars: Mapping[str, Any], digests: Mapping[str, Any], version: Any
) -> list[str]:
    """Return what differing_images says of hosts as they were read last, for a version of the product."""
    running = {host: list(services(here(product, hostvars[host]["group_names"]))) for host in hosts}
    read = {host: hostvars[host]["container_service_host_state"]["images"] for host in running}
    return differing_images(images(product), (digests or {}).get(str(version)), running, read)


def published_ports(product: Mapping[str, Any], address: str, peers: Sequence[str]) -> list[dict[str, Any]]:
    """Return the ports that a host publishes for its containers, in both slots.

    Args:
        product: The variables of the host.
        address: Address that they are published on.
        peers: Addresses that may connect.
    """
    offset = int(product.get("app_slot_port_offset") or SLOT_PORT_OFFSET)
    return [
        {
            "address": address,
            "port": service.published_port(slot, number, offset),
            "peers": peers,
            # What to change where the port is in use: the port inside of a container is its image's.
            "variable": f"app_services.{name}.publish_port",
        }
        for name, service in services(product).items()
        if service.port
        for slot in SLOTS
        for number in range(1, service.replicas + 1)
    ]


def may_have(values: Mapping[str, Any], container: str, slot: str) -> bool:
    """Return whether a host may have a container of a slot; one that was not looked at may."""
    seen = values.get("container_service_host_state")
    if not seen:
        return True
    return any(item.get("owner") == slot_owner(slot) and name.endswith(f"-{container}") for name, item in seen["containers"].items())


def servers(
    hosts: Iterable[str], hostvars: Mapping[str, Any], here: str, name: str, slots: Mapping[str, str], *, there: bool = False
) -> list[str]:
    """Return ``host:port`` of each container of a service, as the balancer ``here`` reaches it.

    A container on the balancer's own host is named by its service name, one elsewhere by its host's ``slipway_service_address`` and the
    port it is published on.

    Args:
        hosts: Names of the app hosts that take requests.
        hostvars: Ansible's hostvars.
        here: Name of the balancer's host.
        name: Name of the service.
        slots: For each host the slot that answers there.
        there: Whether to leave out containers that a host was seen not to have.
    """
    found = []
    for host in hosts:
        values, slot = hostvars[host], slots[host]
        service = services(values).get(name)
        runs_there = service and runs(service, values["group_names"])
        for number, container in enumerate(service.containers(slot) if runs_there else [], 1):  # type: ignore[union-attr]
            if there and not may_have(values, container, slot):
                continue
            if host == here:
                found.append(f"{container}:{service.port}")  # type: ignore[union-attr]
            else:
                offset = int(values.get("app_slot_port_offset") or SLOT_PORT_OFFSET)
                found.append(f"{values['slipway_service_address']}:{service.published_port(slot, number, offset)}")  # type: ignore[union-attr]
    return found


def weighted(live: Sequence[str], canary: Sequence[str], weight: int) -> list[Any]:
    """Return the servers of two slots, each with the weight by which the second gets its share of the requests."""
    live_weight, new_weight = canary_weights(weight, len(live), len(canary))
    return [{"server": server, "weight": live_weight} for server in live] + [{"server": server, "weight": new_weight} for server in canary]


def balanced(hosts: Sequence[str], hostvars: Mapping[str, Any], here: str, traffic: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the web services that a balancer has to serve, each with its routes, its servers, and those of the slot before.

    Args:
        hosts: Names of the app hosts.
        hostvars: Ansible's hostvars.
        here: Name of the balancer's host.
        traffic: Where requests go: the slot that is ``live``, the one ``previous`` to it, the slot ``canary`` that gets ``weight`` per cent
            of the requests, hosts that serve from another slot already (``moved``), and those that get no requests (``drained``).
    """
    live, previous, canary = traffic["live"], traffic.get("previous") or "", traffic.get("canary") or ""
    weight, drained = int(traffic.get("weight") or 0), traffic.get("drained") or ()
    of_slot = {slot: dict.fromkeys(hosts, slot) for slot in SLOTS}
    moved = {**of_slot[live], **(traffic.get("moved") or {})}
    serving = [host for host in hosts if host not in drained]
    found = {}
    for name, service in services(hostvars[here]).items():
        if not service.port or not service.routes:
            continue
        # What lasts is small, serves old pages until the whole fleet has moved, and is switched at once.
        if service.lasts:
            entry = servers(hosts, hostvars, here, name, of_slot[live])
        else:
            entry = servers(serving, hostvars, here, name, moved)
            if canary and weight:
                entry = weighted(entry, servers(serving, hostvars, here, name, of_slot[canary]), weight)
        before = service.lasts and previous not in ("", live)
        found[name] = {
            "routes": service.routes,
            "servers": entry,
            # A release that failed has made room for itself there.
            "previous_servers": servers(hosts, hostvars, here, name, of_slot[previous], there=True) if before else [],
        }
    return found


#: Optional keys of a route, with what stands for them.
ROUTE_KEYS = {
    "host": "",
    "websocket": False,
    "client_max_body_size_mb": None,
    "read_timeout": None,
    "buffering": True,
    "request_buffering": True,
    "cache": "",
    "internal": False,
    "extra_lines": (),
}
#: Keys by which a route limits its clients, with values that allow all of them. Where it has none, the site's input nginx_<key> holds.
ACCESS_KEYS: dict[str, Any] = {"limit_req_rate": "", "limit_req_burst": 50, "limit_conn": 0, "auth_basic": "", "allow": (), "deny": ()}
#: Those of them that limit clients by themselves.
LIMITS = ("limit_req_rate", "limit_conn", "auth_basic", "allow", "deny")


def is_limited(access: Mapping[str, Any]) -> bool:
    """Return whether keys of a route, or inputs of the site without their nginx_, refuse requests of some clients."""
    # A number may come as text.
    return any(access.get(key) and access[key] != "0" for key in LIMITS)


def limits_clients(product: Mapping[str, Any]) -> bool:
    """Return whether a route of a product refuses requests of some clients."""
    # The check of all inputs, which refuses a route that is none, asks this before.
    return any(is_limited(mapping(route)) for service in services(product).values() for route in service["routes"])


def upstreams(balanced_services: Mapping[str, Mapping[str, Any]], max_fails: Any) -> dict[str, dict[str, Any]]:
    """Return the upstreams of nginx, sorted; a service with servers of the slot before has a second one, as no name has a _.

    Args:
        balanced_services: What ``balanced`` returns.
        max_fails: How many failed requests take a server for dead, where there is another one.

    Returns:
        For each upstream ``servers`` (each with ``server``, ``weight``, and whether it ``is_address`` rather than a name), ``max_fails``,
        ``wait_port``, and ``wait_for``: where only names serve, nginx has no address for the moment after a reload, and this is the name
        that a request then waits for, on that port. Otherwise "".
    """
    listed = {name: service["servers"] for name, service in balanced_services.items()}
    listed |= {f"{name}_previous": servers for name, service in balanced_services.items() if (servers := service["previous_servers"])}
    found = {}
    for port, name in enumerate(sorted(listed), FIRST_WAIT_PORT):
        members = [{"weight": 1, **(item if isinstance(item, Mapping) else {"server": item})} for item in listed[name]]
        for member in members:
            member["is_address"] = bool(re.match(r"([0-9.]+|\[.*\]):", member["server"]))
        found[name] = {
            "servers": members,
            # One server alone is never taken for dead: a fleet of one would answer 502 for as long.
            "max_fails": max_fails if len(members) > 1 else 0,
            "wait_port": port,
            "wait_for": members[0]["server"] if members and not any(member["is_address"] for member in members) else "",
        }
    return found


def by_certificate(names: Iterable[str], certificates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return names in groups that each have one ``certificate`` and ``key``, those of their own, or "" for the site's."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        own = [(str(item["certificate"]), str(item["key"])) for item in certificates if name in item["names"]]
        groups.setdefault(own[0] if own else ("", ""), []).append(name)
    return [{"names": members, "certificate": certificate, "key": key} for (certificate, key), members in groups.items()]


def sites(
    balanced_services: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    redirects: Sequence[Mapping[str, str]] = (),
    certificates: Sequence[Mapping[str, Any]] = (),
    access: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return the servers of nginx: for the site's names, for each name that has routes of its own on top of all others', and for redirects.

    A server has one certificate, so names with another are another server.

    Args:
        balanced_services: What :func:`balanced` returned.
        names: Names of the site.
        redirects: Names that lead to one of these, each with ``from`` and ``to``.
        certificates: Certificates of some of the names alone, each with ``names``, and with ``certificate`` and ``key`` as nginx has them.
        access: What holds for routes without keys of ACCESS_KEYS.

    Returns:
        Servers, each with ``names``, ``certificate`` and ``key`` (as :func:`by_certificate` has them), ``default`` (whether it answers
        other names too), ``redirect`` (the name that it leads to, or ""), and ``routes``, which have all of ROUTE_KEYS and ACCESS_KEYS,
        ``path``, ``service``, ``number``, ``has_previous``, ``limited`` (as :func:`is_limited`), and ``counted``, a number that routes
        share which count a client's requests together: 0 for those that have the site's values.
    """
    routes: list[dict[str, Any]] = []
    for name, service in balanced_services.items():
        for route in service["routes"]:
            own = {key: value for key, value in route.items() if value is not None}
            # Hosts of the stack alone ask for what is internal.
            whole = {**ROUTE_KEYS, **(ACCESS_KEYS if own.get("internal") or access is None else access), **own}
            whole |= {"service": name, "has_previous": bool(service["previous_servers"])}
            counted = len(routes) + 1 if ACCESS_KEYS.keys() & own or own.get("internal") else 0
            routes.append({**whole, "limited": is_limited(whole), "counted": counted})
    found: list[dict[str, Any]] = []
    for host in ["", *sorted({route["host"] for route in routes if route["host"]})]:
        served = {route["path"]: route for route in sorted(routes, key=lambda route: bool(route["host"])) if route["host"] in ("", host)}
        others = [name for name in names if name not in {route["host"] for route in routes}]
        numbered = [{**served[path], "number": number} for number, path in enumerate(sorted(served))]
        groups = by_certificate([host] if host else others, certificates)
        found += [{**group, "default": False, "redirect": "", "routes": numbered} for group in groups]
    # Those who ask for no name of the site get its first one.
    for site in ([site for site in found if {*names[:1]} & {*site["names"]}] or found)[:1]:
        site["default"] = True
    targets: dict[str, list[str]] = {}
    for redirect in redirects:
        targets.setdefault(server_name(redirect["to"], "nginx_redirects"), []).append(server_name(redirect["from"], "nginx_redirects"))
    return found + [
        {**group, "default": False, "redirect": target, "routes": []}
        for target, redirected in targets.items()
        for group in by_certificate(redirected, certificates)
    ]


def summary(product: Mapping[str, Any], stack: str, slot: str) -> dict[str, Any]:
    """Return what a release has to know of the services in one slot of a host.

    Args:
        product: The values of VARIABLES.
        stack: Name of the stack.
        slot: The slot.

    Returns:
        ``lasting`` (names of services that run on until the next release), ``web`` (of the other web services), ``workers``, of these
        ``first`` (stop before the new slot starts) and ``drained`` (stop once requests go to the new slot), ``checked`` (by container,
        what it answers on), ``start_seconds`` and ``stop_seconds`` (that the slowest of all may take to start, and to stop), ``migrates``,
        and ``migrate_seconds`` (that this may take).
    """
    found = services(product)
    return {
        "lasting": [name for name, service in found.items() if service.lasts],
        "web": [name for name, service in found.items() if service.port and not service.lasts],
        "workers": [name for name, service in found.items() if service.kind == "worker"],
        "first": [name for name, service in found.items() if service.kind == "worker" and service["retire"] == "before"],
        "drained": [name for name, service in found.items() if service.kind == "worker" and service["retire"] == "drain"],
        "checked": {
            f"{stack}-{container}": {
                "port": service.port,
                "path": service["ready_path"],
                "version_path": service["version_path"],
                "version_field": service["version_field"],
            }
            for service in found.values()
            if service.kind != "job"
            for container in service.containers(slot)
        },
        "start_seconds": max((int(service["start_seconds"]) for service in found.values()), default=0),
        "stop_seconds": max((service.stop_timeout for service in found.values()), default=0),
        "migrates": bool(migrating(found)),
        "migrate_seconds": max((migration_seconds(service) for service in migrating(found)), default=0),
    }


def jobs(product: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return when and how each job of a product runs."""
    return {
        name: {"schedule": service.schedule, "concurrency": service["concurrency"], "deadline_seconds": int(service["deadline_seconds"])}
        for name, service in services(product).items()
        if service.kind == "job"
    }


def command_service(product: Mapping[str, Any], name: str = "") -> dict[str, str]:
    """Return the service in whose container a command runs, its ``name`` and the group of its ``hosts``; empty where there is none.

    Args:
        product: The values of VARIABLES.
        name: The service; by default the one that migrates, else the first web service, else the first.
    """
    found = services(product)
    web = [service for service in found.values() if service.port]
    chosen = found.get(name) if name else next(iter([*migrating(found), *web, *found.values()]), None)
    return {"name": chosen.name, "hosts": str(chosen["hosts"])} if chosen else {}


def public_paths(product: Mapping[str, Any], host: str = "") -> dict[str, Any]:
    """Return what a client may ask a balancer for.

    Args:
        product: The values of VARIABLES.
        host: Name that the client asks for; routes of other names are left out.

    Returns:
        ``versions`` (paths that report the version, each with its field), ``websockets``, and ``page``, a path that a service answers.
    """
    found = services(product)
    routes = [
        (route["path"], bool(route.get("host")), name, bool(route.get("websocket")))
        for name, service in found.items()
        for route in service.routes
        if not route.get("internal") and route.get("host") in (None, "", host)
    ]

    def served(path: str) -> str:
        """Return the service that gets a request for a path, by the longest of the routes that it begins with once nginx has decoded it."""
        path = unquote(path.partition("?")[0])
        return max(((len(start), own, name) for start, own, name, _unused in routes if path.startswith(start)), default=(0, False, ""))[2]

    def public(key: str) -> list[Service]:
        """Return the services that clients reach on the path of a key."""
        return [service for name, service in found.items() if service[key] and served(service[key]) == name]

    pages = [service["health_path"] for service in public("health_path")] + [
        quote(start) for start, _own, _unused, websocket in routes if not websocket
    ]
    return {
        "versions": [{"path": service["version_path"], "field": service["version_field"]} for service in public("version_path")],
        "websockets": [quote(start) for start, _own, _unused, websocket in routes if websocket],
        "page": "/" if served("/") or not pages else pages[0],
    }


def builds(product: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return how the images of a product are built, each by the first of the services that say so and share it."""
    found: dict[str, dict[str, Any]] = {}
    for name, service in services(product).items():
        if service["build"] and service["image"] not in [build["name"] for build in found.values()]:
            found[name] = {"context": "", "dockerfile": "Dockerfile", "arguments": {}, **service["build"], "name": service["image"]}
    return found


def mistakes(product: Mapping[str, Any], publish_address: str = "", slot_port_offset: int = SLOT_PORT_OFFSET) -> list[tuple[str, str]]:
    """Return what is wrong with the services of a product to each other, each with where it is.

    Args:
        product: The values of VARIABLES, each of which has its form.
        publish_address: Address on which ports are published, or "".
        slot_port_offset: Distance of the second slot's ports.
    """
    found, described = services(product), product["app_services"] or {}
    problems = [
        ("app_service_overrides", f"names the service {name}, which app_services does not have; known are {', '.join(described) or 'none'}")
        for name in product.get("app_service_overrides") or {}
        if name not in described
    ]
    if not found:
        problems.append(("app_services", "has no service: describe the product's services, as docs/product.md shows"))
    for service in found.values():
        problems += [service.problem(key, text) for key, text in service_mistakes(service)]
        if publish_address and service.port and service.replicas > slot_port_offset:
            text = f"is {service.replicas}, more than app_slot_port_offset ({slot_port_offset}): ports of the two slots would meet"
            problems.append(service.problem("replicas", text, member=True))
    seen: dict[tuple[str, str], str] = {}
    for name, service in found.items():
        for route in service.routes:
            key = (str(route.get("host") or ""), str(route.get("path")))
            if key in seen:
                text = f"has the path {key[1]}, which {seen[key]} has already; remove one of them"
                problems.append(service.problem("routes", text, member=True))
            seen.setdefault(key, name)
    problems += unsettled_backups(found) + quiesced_by_data(found)
    migrations = [service.name for service in migrating(found)]
    if len(migrations) > 1:
        problems.append(("app_services", f"has a migration in {' and '.join(migrations)}: give the product one, in one of them"))
    return problems


def unsettled_backups(found: Mapping[str, Service]) -> list[tuple[str, str]]:
    """Return problems of volumes that one service wants in recovery points, and another one does not."""
    mounted = [(service, volume) for service in found.values() for volume in service["volumes"]]
    kept = {volume.get("name"): service.name for service, volume in mounted if is_kept(volume) and volume.get("mode", "rw") == "rw"}
    return [
        service.problem(
            "volumes",
            f"has {volume['name']} with backup: false, and {kept[volume['name']]} has it without: say it in both of them, or in neither",
            member=True,
        )
        for service, volume in mounted
        if not is_kept(volume) and volume.get("name") in kept
    ]


def quiesced_by_data(found: Mapping[str, Service]) -> list[tuple[str, str]]:
    """Return problems of volumes by which a service is to learn of a copy, and that another one has or the data is in."""
    used = [str(volume.get("name")) for service in found.values() for volume in service["volumes"]] + [
        quiesce_volume(service) for service in found.values()
    ]
    return [
        service.problem("backup", f"has the volume {volume} in backup, which the product has for something else: give it one of its own")
        for service in found.values()
        if (volume := service["backup"].get("volume")) and quiesce_volume(service) and used.count(str(volume)) > 1
    ]


def unreached(product: Mapping[str, Any], networks: Collection[str]) -> list[tuple[str, str]]:
    """Return the services with routes that nginx cannot reach, each with what to do.

    Args:
        product: The values of VARIABLES.
        networks: Networks of the stack; others are refused elsewhere.
    """
    how = f"where nginx is not: add {' or '.join(BALANCER_NETWORKS)} to networks"
    return [
        service.problem("networks", f"has routes and is in {' and '.join(service['networks'])} alone, {how}")
        for service in services(product).values()
        if service.port and service.routes and set(service["networks"]) <= {*networks} - {*BALANCER_NETWORKS}
    ]


def unclaimed_jobs(product: Mapping[str, Any], groups: Mapping[str, Sequence[str]], *, shared: bool) -> list[tuple[str, str]]:
    """Return the jobs that several hosts would run, each with what to do.

    Args:
        product: The values of VARIABLES.
        groups: The inventory's groups with their hosts.
        shared: Whether there is a database, in which one of the hosts claims each time of a job.
    """
    found = services(product)
    hosts = {name: groups.get(found[name]["hosts"]) or () for name in jobs(product)}
    text = "which each of {} would run, as no host is in group postgres, where one claims it: add one, or set hosts to a group of one host"
    return [
        found[name].problem("schedule", f"makes it a job, {text.format(', '.join(names))}", member=True)
        for name, names in hosts.items()
        if len(names) > 1 and not shared
    ]


def container_mistakes(service: Service) -> list[tuple[str, str]]:
    """Return what no container of a service could run with, each with the key that it is about."""
    problems = []
    if not service["image"]:
        problems.append(("image", "has no image: add the key image, as shop/api:{{ app_version }}"))
    double = sorted({name for name, value in service["environment"].items() if value is not None} & set(service["secrets"]))
    if double:
        problems.append(("secrets", f"has {', '.join(double)} in both environment and secrets: remove it from one of them"))
    volumes = [str(volume.get("path", "")).rstrip("/") for volume in service["volumes"]]
    folders = [*volumes, *(str(path).rstrip("/") for path in service["tmpfs"])]
    twice = sorted({path for path in folders if path and folders.count(path) > 1})
    problems += [("volumes", f"mounts {path} twice in volumes and tmpfs: give one of them another path") for path in twice]
    problems += [
        ("volumes" if path in volumes else "tmpfs", f"mounts {path}, and {own} holds {what}: choose another path")
        for own, what in MOUNTED.items()
        for path in folders
        if f"{path}/".startswith(f"{own}/")
    ]
    if "/tmp" in volumes:  # noqa: S108 - a place inside the container
        problems.append(("volumes", "has a volume at /tmp, which is in memory: choose another path, and name it in TMPDIR"))
    return problems


def service_mistakes(service: Service) -> list[tuple[str, str]]:
    """Return what is wrong with one service of a product, each with the key that it is about."""
    problems = container_mistakes(service)
    if service.kind == "job":
        return problems + job_mistakes(service)
    if service.sets("backup"):
        problems += [("backup", text) for text in backup_mistakes(service)]
    problems += [(key, f"has {key}, which only a job has: add a schedule, or remove it") for key in JOB_KEYS if service.sets(key)]
    problems += [
        (key, f"has {key} and no port: add the port that it listens on, or remove {key}, which a worker cannot have")
        for key in WEB_KEYS
        if not service.port and service.sets(key) and service[key]
    ]
    choices = ("drain", "next") if service.port else ("before", "drain", "after")
    if service["retire"] not in choices:
        text = f"has retire: {service['retire']}, which a {service.kind} cannot have: set {' or '.join(choices)}"
        problems.append(("retire", text))
    if service.sets("migrate") and service["migrate"] and not service["migrate"].get("command"):
        text = f"has migrate with {' and '.join(service['migrate'])} and no command: add the command that migrates, or remove it"
        problems.append(("migrate", text))
    if any(route.get("path") == BALANCER_PATH for route in service.routes):
        problems.append(("routes", f"has a route {BALANCER_PATH}, on which nginx itself answers: choose another path"))
    return problems + [
        ("routes", f"has the route {route.get('path')}, which {text}") for route in service.routes for text in route_mistakes(route)
    ]


def route_mistakes(route: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the keys of a route to each other."""
    problems = access_mistakes(route)
    if route.get("internal") and (route.get("allow") or route.get("deny")):
        problems.append("has internal: true and a list of addresses: remove one of them, as nginx_internal_networks says who gets in")
    return problems


def access_mistakes(access: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with keys of ACCESS_KEYS to each other."""
    allowed, denied = ({ip_network(item, strict=False) for item in access.get(key) or ()} for key in ("allow", "deny"))
    return [f"has {network} in both allow and deny: remove it from one of them" for network in sorted(allowed & denied, key=str)]


def backup_mistakes(service: Service) -> list[str]:
    """Return what is wrong with the commands that a service of the product runs around the copy of its volumes."""
    problems = [
        f"has {key} in backup, which only a service in slipway_extra_services has: set backup of its volumes instead"
        for key in service["backup"]
        if key not in QUIESCE_KEYS
    ]
    if bool(service["backup"].get("before")) != bool(service["backup"].get("after")):
        problems.append("has before or after in backup without the other one: add the command, or remove both")
    if unused := [key for key in ("seconds", "volume") if key in service["backup"] and not service["backup"].keys() & {"before", "after"}]:
        problems.append(f"has {' and '.join(unused)} in backup and no command: add before and after, or remove it")
    if not problems and not any(is_kept(volume) for volume in service.written_volumes):
        problems.append("has backup and no volume that recovery points hold: remove it")
    return problems


def job_mistakes(service: Service) -> list[tuple[str, str]]:
    """Return what a job has that a job cannot have, each with the key that it is about."""
    problems = [(key, f"has a schedule and {key}, which a job cannot have: remove one of them") for key in NOT_OF_JOBS if service.sets(key)]
    if service.replicas != 1:
        text = f"has replicas: {service.replicas}, and a job runs once for each time of its schedule: set replicas: 1"
        problems.append(("replicas", text))
    return problems
