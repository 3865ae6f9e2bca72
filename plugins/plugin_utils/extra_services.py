# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services that belong to no version of the product, as an inventory describes them in slipway_extra_services.

They have the keys of the product's services, but for those in NOT_OF_EXTRA_SERVICES, and ``backup`` on top.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ansible_collections.slipway.stack.plugins.module_utils.containers import BEFORE, NEXT, TRIAL
from ansible_collections.slipway.stack.plugins.plugin_utils.app_services import (
    BACKUP_PATH,
    BACKUP_SCRIPT,
    CURRENT,
    Service,
    common_declaration,
    container_mistakes,
    enabled,
    is_kept,
    mapping,
    service_declaration,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.quoting import shell_word

VARIABLE = "slipway_extra_services"
#: Where the keys of the product's services have another default: what listens on a port need not speak HTTP.
DEFAULTS = {"health_path": ""}
#: Keys that an extra service cannot have, each with what to do.
NOT_OF_EXTRA_SERVICES = {
    "build": "name an image that a registry has",
    "routes": "nginx serves services of the product alone, so describe it in app_services, or remove the routes",
    "replicas": "it runs once on a host",
    **dict.fromkeys(("schedule", "concurrency", "deadline_seconds"), "describe a job in app_services"),
    **dict.fromkeys(("ready_path", "version_path", "version_field", "retire", "migrate"), "no release moves it"),
}
#: Seconds that a backup command may take.
DUMP_SECONDS = 600
#: Names that no service may have, in addition to those of roles: folders of a stack.
OWN_NAMES = ("release", "restore")
#: What the folder of a service has in it.
PARTS_OF_FOLDER = ("config", "secrets", "trial", "undo")
#: Names that containers of the product have, or a container has while it takes another's place.
TAKEN_ENDINGS = re.compile(rf"-(?:blue|green)(?:-\d+)?$|(?:{BEFORE}|{NEXT}|{TRIAL})$")


def services(described: Mapping[str, Any] | None) -> dict[str, Service]:
    """Return the extra services by name, without those that are not enabled.

    Args:
        described: The value of VARIABLE.
    """
    return enabled(Service(name, [DEFAULTS, mapping(keys)], [f"{VARIABLE}.{name}"] * 2) for name, keys in mapping(described).items())


def declarations(
    described: Mapping[str, Any], group_names: Collection[str], ports: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the extra services of a host, as container_service takes them.

    Args:
        described: The value of VARIABLE.
        group_names: Groups of the inventory that the host is in.
        ports: What the host publishes for them, as the topology has it.
        settings: start_script, backup_script, and host, what was read of it.
    """
    found = [service for service in services(described).values() if service["hosts"] in group_names]
    declared = []
    for service in found:
        published = [port for port in ports if port["service"] == service.name]
        common = common_declaration(service, {"slot": "", "version": "", **settings}, len(found))
        declared.append(
            {
                **common,
                **dump_declaration(service, common, settings["backup_script"]),
                **service_declaration(service, {"host_header": ""}),
                "name": service.name,
                "labels": {},
                "ports": [{key: port[key] for key in ("address", "port", "container_port", "variable")} for port in published],
                # A port is published from a network that is not internal.
                "networks": [*service["networks"], *(["peers"] if published and "peers" not in service["networks"] else [])],
            }
        )
    return declared


def dump_volume(service: Service) -> str:
    """Return the name of the volume with what a service's backup command prints, or "" where it has no such command."""
    backup = service["backup"]
    return str(backup.get("volume") or f"{service.name}_dump") if backup.get("command") else ""


def dump_declaration(service: Service, common: Mapping[str, Any], script: str) -> dict[str, Any]:
    """Return what a service with a backup command has in addition: a script that runs it when the server of the volumes asks for a dump.

    Args:
        service: The service.
        common: Its declaration so far.
        script: The script.
    """
    if not dump_volume(service):
        return {}
    command = " ".join(shell_word(word, f"{service.path}.backup.command") for word in service["backup"]["command"])
    volume = {"name": dump_volume(service), "path": BACKUP_PATH, "variable": f"{service.path}.backup.volume"}
    return {
        "wrapper": [*common["wrapper"], "/bin/sh", f"{CURRENT}/{BACKUP_SCRIPT}", command],
        "config": {**common["config"], BACKUP_SCRIPT: {"content": script, "on_change": "restart"}},
        "volumes": [*common["volumes"], volume],
    }


def kept_volumes(service: Service) -> list[dict[str, Any]]:
    """Return the volumes that recovery points hold: those that a service writes to, or what its key backup names.

    Each has its ``name``, and that of a dump the ``seconds`` that its command may take.
    """
    backup = service["backup"]
    dump = [{"name": dump_volume(service), "seconds": service.backup_seconds(DUMP_SECONDS)}] if dump_volume(service) else []
    paths = backup.get("paths", [] if dump else None)
    return dump + [
        {"name": volume["name"]}
        for volume in service.written_volumes
        if (volume["path"] in paths if isinstance(paths, list) else is_kept(volume))
    ]


def keeps_data(service: Service) -> bool:
    """Return whether recovery points hold anything of a service."""
    return bool(kept_volumes(service))


def own_names(roles: Collection[str]) -> set[str]:
    """Return the names that no extra service may have, with those of roles that run a service."""
    return {*OWN_NAMES, *(role.replace("_", "-") for role in roles)}


def leftovers(state: Mapping[str, Any], stack: str, declared: Collection[str], roles: Collection[str]) -> list[str]:
    """Return the folders on a host of services that are not described any more, and whose containers never came: they hold secrets.

    Args:
        state: What was read of the host.
        stack: Name of the stack.
        declared: Names of the host's extra services.
        roles: Roles that run a service, each named as it.
    """
    pattern = re.compile(rf"/etc/slipway/{re.escape(stack)}/([^/]+)/(?:{'|'.join(PARTS_OF_FOLDER)})(?:/|$)")
    found = {match[1] for path in state["files"] if (match := pattern.match(path))} - own_names(roles) - set(declared)
    return sorted(name for name in found if not TAKEN_ENDINGS.search(name) and f"{stack}-{name}" not in state["containers"])


def mistakes(described: Mapping[str, Any], product: Collection[str], roles: Collection[str]) -> list[tuple[str, str]]:
    """Return what is wrong with extra services, each with where it is.

    Args:
        described: The value of VARIABLE, which has its form.
        product: Names of the product's services.
        roles: Roles that run a service, each named as it.
    """
    found = services(described)
    own = own_names(roles)
    problems: list[tuple[str, str]] = []
    volumes: dict[str, str] = {}
    for name, service in found.items():
        texts = [text for _key, text in container_mistakes(service)]
        if name in product:
            texts.append("has the name of a service in app_services: give it another")
        if name in own or TAKEN_ENDINGS.search(name):
            texts.append("has a name that the stack uses itself: give it another")
        texts += [
            f"has {key}, which an extra service cannot have: {how}" for key, how in NOT_OF_EXTRA_SERVICES.items() if service.sets(key)
        ]
        if any(key in service["backup"] for key in ("before", "after")):
            texts.append("has before or after in backup, which only a service in app_services has: name a command that prints a dump")
        mounted = [volume["path"] for volume in service["volumes"]]
        texts += [
            f"has the path {path} in backup, where it has no volume; it has {', '.join(mounted) or 'none'}"
            for path in service["backup"].get("paths") or ()
            if path not in mounted
        ]
        texts += [
            f"has the path {volume['path']} in backup, whose volume has {wrong}: remove one of them"
            for volume in service["volumes"]
            for wrong, is_so in (("backup: false", not is_kept(volume)), ("mode: ro", volume not in service.written_volumes))
            if is_so and volume["path"] in (service["backup"].get("paths") or ())
        ]
        lacking = [key for key in ("restore_command", "volume", "seconds") if key in service["backup"]]
        if lacking and not dump_volume(service):
            texts.append(f"has {' and '.join(lacking)} in backup and no command: add the command that prints a dump, or remove them")
        for volume in [volume["name"] for volume in service["volumes"]] + [dump_volume(service)]:
            if volume and volumes.setdefault(volume, name) != name:
                texts.append(f"has the volume {volume}, which {volumes[volume]} has too: two services on one volume destroy its data")
        problems += [(service.path, text) for text in texts]
    return problems
