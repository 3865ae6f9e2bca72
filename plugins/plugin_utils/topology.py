# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each service says of itself, and what follows from it for the hosts of an inventory.

A role that runs something describes it in C(meta/service.yml), which SPEC documents. Nothing else in roles and playbooks knows the
inventory's groups: who runs what, who reaches whom, what is published for whom, and which images and secrets are needed is computed here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.slipway.stack.plugins.module_utils.containers import EXTRA_SERVICES, slot_owners
from ansible_collections.slipway.stack.plugins.module_utils.mesh import interface_of
from ansible_collections.slipway.stack.plugins.plugin_utils import app_services, extra_services, mesh
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import plain_yaml
from ansible_collections.slipway.stack.plugins.plugin_utils.forms import STORES
from ansible_collections.slipway.stack.plugins.plugin_utils.server_names import concrete_server_name, names_of_certificates

ROLES = Path(__file__).resolve().parents[2] / "roles"
DESCRIPTION = "meta/service.yml"
#: Variables that a role gives to all hosts, and those of no role.
SHARED = "meta/shared.yml"
VALUES = ROLES.parent / "group_vars/all.yml"
#: The roles that prepare every host on which a service runs.
HOST_ROLES = ("mesh", "host")
#: The secret of the encrypted network between hosts, which belongs to no service.
MESH_SECRET = "vault_mesh_preshared_secret"  # noqa: S105 - its name
#: The role that runs the exporters of services, and its name on container networks.
EXPORTERS = "exporters"
#: The role of the hosts whose volumes the product writes to.
VOLUME_SERVER = "volume_server"
#: Its name and its port on its container network.
SERVER_NAME = "volume-server"
SERVER_PORT = 8873
#: Hosts of an inventory that are none of the stack's: from there, ports are tried as others would.
EXTERNAL_PROBES = "external_probes"
#: Where SSH listens if ansible_port does not say it.
SSH_PORT = 22
#: Ports of transfers of volumes begin so far behind restore_port.
VOLUME_PORTS = 10
SPEC: dict[str, Any] = {
    # Inventory group of the hosts that run it.
    "group": {"type": "str", "required": True},
    # Further groups whose hosts run it.
    "further_groups": {"type": "list", "elements": "str", "default": []},
    # Whether all hosts that run another service run it too.
    "everywhere": {"type": "bool", "default": False},
    # Whether no stack can do without it.
    "required": {"type": "bool", "default": False},
    # When its turn comes in site.yml; the lowest comes first.
    "turn": {"type": "int", "required": True},
    # What brings its changes to the hosts: its own role in its turn of site.yml, a release, or build.yml.
    "changed_by": {"type": "str", "choices": ["role", "release", "build"], "default": "role"},
    # Whether its failure ends a run at once; else after the product's own changes.
    "essential": {"type": "bool", "default": True},
    # Further roles whose inputs matter on its hosts.
    "roles": {"type": "list", "elements": "str", "default": []},
    # Variables that hold its image, or a list of images.
    "images": {"type": "list", "elements": "str", "default": []},
    # Of these variables, those whose image is built where no registry has it, each with the folder of the collection that it is built from.
    "builds": {"type": "dict", "default": {}},
    # Whether it also runs the images of all stores, as a drill does.
    "images_of_stores": {"type": "bool", "default": False},
    # What it publishes: a variable that holds a port, or a list of descriptions of ports, and the services whose hosts may connect.
    # Without these, everybody may, and it is published on all of the host's addresses; a variable that is 0 then is none.
    "ports": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"variable": {"type": "str", "required": True}, "peers": {"type": "list", "elements": "str", "default": []}},
    },
    # Container networks on which services of the same host reach it.
    "networks": {"type": "list", "elements": "str", "default": []},
    # Secrets of the vault; of one that some stacks do without, the service that it is for, or a variable that is empty in those.
    "secrets": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "needed_with": {"type": "str", "default": ""},
            "needed_if": {"type": "str", "default": ""},
        },
    },
    # What it says of itself to people and monitors: a JSON file in the volume that a variable names.
    "report": {
        "type": "dict",
        "options": {
            "volume": {"type": "str", "required": True},
            "file": {"type": "str", "required": True},
            # The same figures for Prometheus' node_exporter.
            "metrics": {"type": "str", "default": ""},
        },
    },
    # What Prometheus asks of it, in addition to the figures of its containers: a variable that holds the port, and one that holds the
    # exporter that runs on each of its hosts, as roles/exporters takes it ("" if the service answers itself, on a port that it publishes).
    "metrics": {
        "type": "dict",
        "options": {
            "port": {"type": "str", "required": True},
            "exporter": {"type": "str", "default": ""},
            "path": {"type": "str", "default": "/metrics"},
        },
    },
    # Of a service that holds data: the variable that names its volume, the file that is written last when data is complete ("" if there is
    # none), and whether recovery points hold it, which needs a source in the backup program.
    "store": {
        "type": "dict",
        "options": {
            "volume": {"type": "str", "required": True},
            "last_file": {"type": "str", "default": ""},
            "in_recovery_points": {"type": "bool", "default": False},
        },
    },
}


class Service(NamedTuple):
    """What a role says of the service that it runs; see SPEC for what is not explained here.

    Attributes:
        role: Name of the role and of its service: its container, its alias on networks, its folder on the host.
        name: Name by which a playbook includes the role.
        folder: The role's folder.
    """

    role: str
    name: str
    folder: Path
    group: str
    further_groups: list[str]
    everywhere: bool
    required: bool
    turn: int
    changed_by: str
    essential: bool
    roles: list[str]
    images: list[str]
    builds: dict[str, str]
    images_of_stores: bool
    ports: list[dict[str, Any]]
    networks: list[str]
    secrets: list[dict[str, str]]
    report: dict[str, str] | None
    metrics: dict[str, str] | None
    store: dict[str, Any] | None

    @property
    def groups(self) -> list[str]:
        """Groups whose hosts run it."""
        return [self.group, *self.further_groups]

    @property
    def peers(self) -> list[str]:
        """Services whose hosts reach this one over its published ports."""
        return list(dict.fromkeys(peer for port in self.ports for peer in port["peers"]))


def places() -> list[Path]:
    """Return the folders of roles: that of this collection, and those of Ansible's path of roles."""
    return list(dict.fromkeys([ROLES, *(Path(path).resolve() for path in C.DEFAULT_ROLES_PATH)]))


def shared_files() -> list[Path]:
    """Return the files with variables that all hosts have; what an inventory sets is stronger.

    A role that is not of this collection has one if it describes a service.
    """
    files = [path for place in places() for path in sorted(place.glob(f"*/{SHARED}"))]
    return [VALUES, *(path for path in files if path.is_relative_to(ROLES) or path.with_name(Path(DESCRIPTION).name).is_file())]


def described(folder: Path) -> Service:
    """Return what a role says of its service.

    Raises:
        AnsibleError: The description is not as SPEC says.
    """
    path = folder / DESCRIPTION
    try:
        content = plain_yaml(path)
    except yaml.YAMLError as error:
        raise AnsibleError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise AnsibleError(f"{path} must be a dictionary that describes the service, with its group and turn")
    result = ArgumentSpecValidator(SPEC).validate(content)
    if result.error_messages:
        raise AnsibleError(f"{path}: {'; '.join(result.error_messages)}")
    if (result.validated_parameters["store"] or {}).get("in_recovery_points") and folder.name not in STORES:
        raise AnsibleError(
            f"{path}: store.in_recovery_points must be false: the backup program cannot read the store {folder.name}. "
            "docs/developer/add-a-backup-source.md has what it needs; volumes of slipway_extra_services are in recovery points without it"
        )
    name = f"slipway.stack.{folder.name}" if folder.parent == ROLES else folder.name
    return Service(folder.name, name, folder, **result.validated_parameters)


@functools.cache
def services() -> tuple[Service, ...]:
    """Return the services of this collection, and those of roles in Ansible's path of roles, by their turns.

    Raises:
        AnsibleError: A description is wrong, or two roles have the same name.
    """
    found: dict[str, Service] = {}
    for place in places():
        for path in sorted(place.glob(f"*/{DESCRIPTION}")):
            service = described(path.parents[1])
            if found.setdefault(service.role, service) is not service:
                raise AnsibleError(f"{path} describes a second service {service.role}, after {found[service.role].folder}: rename the role")
    groups = list(dict.fromkeys(service.group for service in found.values() if service.changed_by != "build"))
    known = (service._replace(further_groups=groups) if service.everywhere else service for service in found.values())
    return tuple(sorted(known, key=lambda service: (service.turn, service.role)))


class Topology:
    """What follows for one host from the descriptions and the inventory.

    Only what is asked for is computed, as values may be templates of secrets that a run does not need.
    """

    def __init__(self, known: Iterable[Service], groups: Mapping[str, Iterable[str]], here: str, value: Callable[..., Any]) -> None:
        """Take what there is.

        Args:
            known: The services.
            groups: The inventory's groups with their hosts.
            here: The host.
            value: Returns the value of a variable on a host, with the roles' defaults below the inventory's. With ``lazy=True``, members
                are resolved when they are read, and what the inventory does not set is None.
        """
        self._services = {service.role: service for service in known}
        self._groups, self._here, self._value = groups, here, value
        self._volumes_on = functools.cache(self._read_volumes)

    # Who runs what

    def hosts(self, role: str, group: str = "") -> list[str]:
        """Return the hosts that run a service, of those in a group where one is named, in the inventory's order."""
        hosts = dict.fromkeys(host for name in self._service(role).groups for host in self._groups.get(name, ()))
        return [host for host in hosts if not group or host in self._groups.get(group, ())]

    def first(self, role: str, group: str = "") -> str:
        """Return the first host that runs a service, of those in a group where one is named, or "" where there is none."""
        return next(iter(self.hosts(role, group)), "")

    @staticmethod
    def slot_owners(except_slot: str = "") -> list[str]:
        """Return the owners of the containers of the product's slots, without that of one."""
        return slot_owners(except_slot)

    def memberships(self) -> list[str]:
        """Return the inventory's groups that this host is in."""
        return self._memberships(self._here)

    def members(self, *changed_by: str) -> list[str]:
        """Return the hosts that run a service.

        Args:
            changed_by: What brings its changes, as the descriptions have it; by default all but build.yml.
        """
        return list(dict.fromkeys(host for service in self._changed_by(*changed_by) for host in self.hosts(service.role)))

    def service_groups(self, *changed_by: str) -> list[str]:
        """Return the groups whose hosts run a service; the argument is that of members."""
        return list(dict.fromkeys(group for service in self._changed_by(*changed_by) for group in service.groups))

    def turns(self) -> list[dict[str, Any]]:
        """Return the services that site.yml brings by their roles, in their turns: the names, and whether the product needs them."""
        return [{"role": service.role, "name": service.name, "essential": service.essential} for service in self._changed_by("role")]

    def who_runs_what(self) -> list[dict[str, Any]]:
        """Return the services with a host: the role, whether the product needs it, and its hosts by group.

        ``always`` is whether each of these runs a container of it, whatever is declared: jobs have none, and extra services need not be
        on the hosts of the product.
        """
        found = []
        for service in self._changed_by():
            hosts = {group: list(self._groups[group]) for group in service.groups if self._groups.get(group)}
            always = bool(service.images) and not service.further_groups
            found += [{"role": service.role, "essential": service.essential, "hosts": hosts, "always": always}] if hosts else []
        return found

    def required_groups(self) -> list[str]:
        """Return the groups that need a host."""
        return list(dict.fromkeys(service.group for service in self._services.values() if service.required))

    def optional_groups(self) -> list[str]:
        """Return the groups that a stack may do without."""
        return [service.group for service in self._changed_by() if not service.required]

    def roles(self) -> list[dict[str, str]]:
        """Return which roles matter on the hosts of which group."""
        pairs = [(group, role) for group in self.service_groups() for role in HOST_ROLES]
        pairs += [(group, role) for service in self._changed_by() for group in service.groups for role in (service.role, *service.roles)]
        return [{"group": group, "role": role} for group, role in dict.fromkeys(pairs)]

    def groups(self) -> dict[str, list[str]]:
        """Return the inventory's groups of hosts that run services, with their hosts."""
        known = dict.fromkeys(service.group for service in self._services.values())
        return {name: list(self._groups[name]) for name in known if name in self._groups}

    def stores(self) -> list[str]:
        """Return the stores that recovery points are made of, those that the stack has; all volumes are one of them."""
        return [service.role for service in self._kept() if self.hosts(service.role)] + (["volumes"] if self.backup_volumes() else [])

    def backup_volumes(self) -> list[dict[str, Any]]:
        """Return the volumes of the product and of extra services that recovery points hold.

        Each has its ``host`` and ``name``, and as ``address`` and ``port`` where this host reaches the server of that host's volumes.
        That of an extra service also has its name as ``service``, and that of a dump the ``seconds`` that its command may take.
        """
        return [
            {"host": host, **volume, **self._volume_server(host)}
            for host in (self.hosts(VOLUME_SERVER) if self.hosts("backup") else ())
            for volume in self._volumes_on(host)
        ]

    def quiesced_volumes(self) -> dict[str, dict[str, Any]]:
        """Return by name the volumes of this host of which services run a command before they are copied.

        Each has by ``services`` the volumes by which these learn of a copy, all that write to it, and the ``seconds`` that they may take.
        """
        product = app_services.services({name: self._value(self._here, name, lazy=True) for name in app_services.VARIABLES})
        quiesced = [
            service
            for service in product.values()
            if app_services.runs(service, self.memberships()) and app_services.quiesce_volume(service)
        ]
        found = {}
        for name in (item["name"] for item in self._volumes_on(self._here)):
            if writers := [service for service in quiesced if name in {str(volume["name"]) for volume in service.written_volumes}]:
                found[name] = {
                    "services": {service.name: app_services.quiesce_volume(service) for service in writers},
                    "seconds": max(service.backup_seconds(app_services.QUIESCE_SECONDS) for service in writers),
                }
        return found

    def volume_transfers(self) -> list[dict[str, Any]]:
        """Return the volumes that recovery points hold, as a restore takes them; see volumes.

        Each has its ``host``, and that of a dump the ``restore_command`` of its service.
        """
        extra = extra_services.services(self._value(self._here, extra_services.VARIABLE, lazy=True))
        first = int(self._value(self._here, "restore_port")) + VOLUME_PORTS
        found = []
        for port, volume in enumerate(self.backup_volumes(), first):
            role = EXTRA_SERVICES if "service" in volume else VOLUME_SERVER
            backup = extra[volume["service"]]["backup"] if "seconds" in volume else {}
            named = {"store": "volumes", "key": f"volumes/{volume['host']}/{volume['name']}", "journal": f"volumes.{volume['name']}"}
            found.append(
                {
                    **named,
                    "container": volume.get("service", SERVER_NAME),
                    "last": "",
                    "host": volume["host"],
                    "role": self._service(role).name,
                    "restore_command": list(backup.get("restore_command") or ()),
                    "volume": volume["name"],
                    "port": port,
                }
            )
        return found

    def data(self) -> dict[str, list[str]]:
        """Return which hosts hold the stack's data, by the role of each store, and by each volume of the product and of extra services."""
        held = {store.role: set(self.hosts(store.role)) for store in self._stores() if self.hosts(store.role)}
        for host in self.hosts(VOLUME_SERVER):
            groups = self._memberships(host)
            product = app_services.services({name: self._value(host, name, lazy=True) for name in app_services.VARIABLES})
            extra = extra_services.services(self._value(host, extra_services.VARIABLE, lazy=True))
            for service in (service for service in (*product.values(), *extra.values()) if app_services.runs(service, groups)):
                for volume in service.written_volumes:
                    if "name" in volume and app_services.is_kept(volume):
                        held.setdefault(str(volume["name"]), set()).add(host)
        return {name: sorted(hosts) for name, hosts in sorted(held.items())}

    def data_hosts(self) -> list[str]:
        """Return the hosts with data that recovery points are made of: of stores, and of volumes of the product."""
        roles = [*(store.role for store in self._kept()), VOLUME_SERVER]
        return list(dict.fromkeys(host for role in roles for host in self.hosts(role)))

    def volumes(self) -> list[dict[str, Any]]:
        """Return the data of this host that recovery points are made of, as a restore takes it.

        Each has its volume, the file that is written last, the port of its transfer, the role that runs it, and its name as ``container``,
        as ``key`` (of its data in a point) and as ``journal``.
        """
        found = []
        for service in self._kept():
            if service.store and self._here in self.hosts(service.role):
                volume = self._value(self._here, service.store["volume"])
                named = dict.fromkeys(("store", "container", "key", "journal"), service.role)
                port = self.transfer_port(service.role)
                found.append({**named, "role": service.name, "volume": volume, "last": service.store["last_file"], "port": port})
        return found + [transfer for transfer in self.volume_transfers() if transfer["host"] == self._here]

    # Who reaches whom

    def several_hosts(self) -> bool:
        """Return whether more than one host runs a service of the stack."""
        return len(self.members()) > 1

    def meshed(self, host: str = "") -> bool:
        """Return whether a host, by default this one, reaches the others through an encrypted network."""
        here = host or self._here
        return self.several_hosts() and here in self.members() and boolean(self._value(here, "slipway_mesh"), strict=False)

    def service_address(self, host: str = "") -> str:
        """Return the address at which the other hosts reach a host's services, by default this host's: in the mesh, or its private one."""
        here = host or self._here
        if not self.meshed(here):
            return self._outer_address(here)
        given = self._value(here, "slipway_mesh_address")
        return str(given) if given else mesh.address_in(str(self._value(here, "slipway_mesh_range")), here)

    def mesh(self) -> dict[str, Any]:
        """Return this host's part of the encrypted network, empty where it has none.

        It has the ``stack``, the name of the ``interface``, and the ``prefix`` of the range. The host and its ``peers`` each have the
        ``host``, its ``address`` in the mesh, and the ``endpoint`` and ``port`` at which its peers reach it over the network below.
        """
        if not self.meshed():
            return {}
        ends = {
            host: {
                "host": host,
                "address": self.service_address(host),
                "endpoint": self._outer_address(host),
                "port": int(self._value(host, "slipway_mesh_port")),
            }
            for host in self.members()
            if self.meshed(host)
        }
        stack, network = str(self._value(self._here, "slipway_stack")), str(self._value(self._here, "slipway_mesh_range"))
        named = {"stack": stack, "interface": interface_of(stack), "prefix": int(network.partition("/")[2])}
        return {**named, **ends.pop(self._here), "peers": list(ends.values())}

    def address(self, role: str) -> str:
        """Return where a service is, seen from here: its name on the same host, else the private address of the first host that runs it."""
        return role if self._here in self.hosts(role) else self.service_address(self.first(role))

    def addresses(self, role: str) -> list[str]:
        """Return the private addresses of all hosts that run a service."""
        return [self.service_address(host) for host in self.hosts(role)]

    def client_addresses(self, *roles: str) -> list[str]:
        """Return the addresses from which hosts that run one of some services connect: their private ones, and those in the mesh."""
        hosts = [host for role in roles for host in self.hosts(role)]
        return list(dict.fromkeys(address(host) for address in (self._outer_address, self.service_address) for host in hosts))

    def peers(self, role: str) -> list[str]:
        """Return the private addresses of the other hosts that reach a service."""
        return self._addresses(self._clients(role))

    def publish_address(self, role: str) -> str:
        """Return the address that a service of this host publishes its ports on, or "" where no other host needs it."""
        return self.service_address() if self.peers(role) else ""

    def published_ports(self) -> list[dict[str, Any]]:
        """Return what this host publishes, and for whom; without peers, everybody may connect."""
        return [port for service in self._on_host() for port in self._published(service)]

    def restricted_ports(self) -> list[dict[str, Any]]:
        """Return the ports of this host to which only some addresses may connect, as role host takes them."""
        keys = ("address", "port", "peers", "variable")
        published = [{key: port[key] for key in keys if key in port} for port in self.published_ports() if "peers" in port]
        # Where they were published until the mesh came, and are until the run that turns it on or off has moved all containers.
        outer = {self.service_address(host): self._outer_address(host) for host in self.members()} if self.meshed() else {}
        moving = [
            {**port, "address": outer[port["address"]], "peers": [outer[peer] for peer in port["peers"]]}
            for port in published
            if port["address"] in outer
        ]
        return published + moving + self.transfer_ports()

    def external_probes(self) -> list[str]:
        """Return the hosts that are none of the stack's, and from which its ports are tried."""
        return list(self._groups.get(EXTERNAL_PROBES, ()))

    def named_addresses(self) -> dict[str, list[str]]:
        """Return by host the addresses and names at which the inventory says that it is reached, by Ansible and by the other hosts."""
        names = {host: (self._value(host, "ansible_host") or host, self._outer_address(host)) for host in self.members()}
        return {host: list(dict.fromkeys(map(str, both))) for host, both in names.items()}

    def declared_ports(self) -> dict[str, list[dict[str, Any]]]:
        """Return by host the ports that may be open: those of the stack and its mesh, of Ansible's connection, and of slipway_open_ports.

        Each has its ``protocol`` and ``port``, an ``address`` unless all are meant, and ``peers`` unless everybody may connect.
        """
        return {host: Topology(self._services.values(), self._groups, host, self._value).declared_here() for host in self.members()}

    def declared_here(self) -> list[dict[str, Any]]:
        """Return what declared_ports says of this host."""
        connection = {"port": self._value(self._here, "ansible_port") or SSH_PORT}
        tunnel = [{"protocol": "udp", "port": self.mesh()["port"]}] if self.meshed() else []
        on_purpose = self._value(self._here, "slipway_open_ports") or []
        ports = [*tunnel, *self.published_ports(), *self.restricted_ports(), connection, *on_purpose]
        return [{"protocol": "tcp", **port, "port": int(port["port"])} for port in ports]

    def declared_listeners(self) -> list[dict[str, Any]]:
        """Return what may listen on this host, whoever may connect: each ``protocol`` and ``port`` at its ``address``, or "" for all."""
        keys = ("protocol", "port", "address")
        declared = dict.fromkeys((port["protocol"], port["port"], port.get("address") or "") for port in self.declared_here())
        return [dict(zip(keys, port, strict=True)) for port in declared]

    def transfer_ports(self) -> list[dict[str, Any]]:
        """Return the ports on which a backup host offers restored data to other hosts while a restore lasts, one a store and volume."""
        if not any(service.images_of_stores for service in self._on_host()):
            return []
        address = self.service_address()
        ports = [
            {"address": address, "port": self.transfer_port(store.role), "peers": self._addresses(self.hosts(store.role))}
            for store in self._kept()
        ]
        ports += [
            {"address": address, "port": transfer["port"], "peers": self._addresses([transfer["host"]])}
            for transfer in self.volume_transfers()
        ]
        return [port for port in ports if port["peers"]]

    def transfer_port(self, store: str) -> int:
        """Return the port on which a store's restored data is offered."""
        return int(self._value(self._here, "restore_port")) + [service.role for service in self._kept()].index(store)

    def needed_addresses(self) -> list[dict[str, Any]]:
        """Return the stores that this host needs and that are elsewhere."""
        found = []
        for service in (service for service in self._stores() if self.hosts(service.role)):
            variable = f"slipway_{service.role}_host"
            if not any(self._here in self.hosts(peer) for peer in service.peers):
                continue
            address = self._value(self._here, variable) or self.address(service.role)
            if address != service.role:
                port = self._value(self._here, service.ports[0]["variable"])
                found.append({"group": service.group, "address": address, "port": port, "variable": variable})
        if self._here in self._clients(EXTRA_SERVICES):
            for extra in self._extra_services():
                where = self._extra_address(extra)
                if where["host"] != extra.name:
                    found.append(
                        {"group": extra["hosts"], "address": where["host"], "port": where["port"], "variable": f"{extra.path}.hosts"}
                    )
        return found

    def extra_addresses(self) -> dict[str, dict[str, Any]]:
        """Return the ``host`` and ``port`` of each extra service, as seen from here: its name, or another host's address."""
        return {service.name: self._extra_address(service) for service in self._extra_services()}

    def extra_ports(self) -> list[dict[str, Any]]:
        """Return what this host publishes for its extra services: their ports, for hosts of the product that do not run them themselves."""
        found = []
        for service in self._extra_services():
            hosts = self._groups.get(service["hosts"], ())
            peers = self._addresses(host for host in self._clients(EXTRA_SERVICES) if host not in hosts)
            if self._here in hosts and peers:
                port = {"port": int(service["publish_port"] or service.port), "container_port": service.port, "peers": peers}
                named = {"service": service.name, "variable": f"{service.path}.publish_port"}
                found.append({"address": self.service_address(), **port, **named})
        return found

    def networks(self) -> list[str]:
        """Return the container networks of the stores on this host."""
        return list(dict.fromkeys(name for service in self._on_host() if service.store for name in service.networks))

    def probe_targets(self) -> list[dict[str, Any]]:
        """Return the balancers as the controller reaches them, with a name that a client could ask for."""
        name = concrete_server_name(self._value(self._here, "nginx_server_names") or [])
        return [
            {
                "address": self._value(host, "slipway_probe_address"),
                "port": int(self._value(host, "slipway_probe_port")),
                "server_name": name,
            }
            for host in self.hosts("nginx")
        ]

    def connections(self, host: str = "") -> list[dict[str, Any]]:
        """Return the connections of a host's services, by default this host's, to the services that they reach over published ports.

        Each has the ``client``, the ``service``, its ``server``, and the ``addresses`` to try, of which one answers: none on the same host.
        Those without the mesh are among them, as a service stays there until the run that brings the mesh.
        """
        here = host or self._here
        found = []
        for service in self._changed_by():
            for client in (peer for peer in service.peers if here in self.hosts(peer)):
                for server in self.hosts(service.role):
                    there = Topology(self._services.values(), self._groups, server, self._value)
                    ports = [] if server == here else there._published(service)
                    outer = self._outer_address(server)
                    addresses = list(dict.fromkeys(f"{address}:{port['port']}" for port in ports for address in (port["address"], outer)))
                    if addresses or server == here:
                        found.append({"client": client, "service": service.role, "server": server, "addresses": addresses})
        return found

    # What is measured

    def exporters(self) -> list[dict[str, Any]]:
        """Return the exporters that run on this host, as role exporters takes them, each with the role of the service that it is for."""
        return [
            {"role": service.role, "port": int(self._value(self._here, metrics["port"])), **self._value(self._here, metrics["exporter"])}
            for service, metrics in self._measured(self._here)
            if metrics["exporter"]
        ]

    def exporter_ports(self) -> list[dict[str, Any]]:
        """Return the ports that the exporters of this host listen on, each with the variable that holds it."""
        return [
            {"port": int(self._value(self._here, metrics["port"])), "variable": metrics["port"]}
            for _service, metrics in self._measured(self._here)
            if metrics["exporter"]
        ]

    def exporter_networks(self) -> list[str]:
        """Return the container networks on which the exporters of this host reach its services."""
        measured = [service for service, metrics in self._measured(self._here) if metrics["exporter"]]
        return list(dict.fromkeys(name for service in measured for name in service.networks))

    def metrics_files(self) -> list[dict[str, str]]:
        """Return the files with figures for Prometheus that services of this host keep in volumes: the volume and the path in it."""
        return [
            {"volume": str(self._value(self._here, service.report["volume"])), "file": service.report["metrics"]}
            for service in self._on_host()
            if service.report and service.report["metrics"]
        ]

    def scrape_targets(self) -> list[dict[str, Any]]:
        """Return what Prometheus on this host asks: the role, its host, the address as seen from here, and the path."""
        return [
            {
                "role": service.role,
                "host": host,
                "address": f"{self._measured_at(service, metrics, host)}:{int(self._value(host, metrics['port']))}",
                "path": metrics["path"],
            }
            for host in self.members()
            for service, metrics in self._measured(host)
        ]

    def scrape_networks(self) -> list[str]:
        """Return the container networks on which Prometheus reaches services of this host that answer themselves."""
        measured = [service for service, metrics in self._measured(self._here) if not metrics["exporter"]]
        return list(dict.fromkeys(name for service in measured for name in service.networks))

    def edges(self) -> list[dict[str, Any]]:
        """Return the balancers with the address of their HTTPS port as seen from a container of this host.

        Each also has ``names``: one for each of its certificates, without that of ``slipway_site_name``.
        """
        return [
            {
                "host": host,
                "names": self._names_of_certificates(host),
                "address": "nginx:8443"
                if host == self._here
                else f"{self._outer_address(host)}:{int(self._value(host, 'nginx_https_port'))}",
            }
            for host in self.hosts("nginx")
        ]

    # What is needed

    def images(self) -> list[str]:
        """Return the images that this host needs and gets from a registry by their names."""
        variables = [name for service in self._on_host() for name in service.images]
        if any(service.images_of_stores for service in self._on_host()):
            variables += [name for store in self._kept() if self.hosts(store.role) for name in store.images]
        return [image for name in variables for image in self._listed(name)]

    def builds(self) -> list[dict[str, str]]:
        """Return the images that are built where no registry has them: their name, the variable that holds it, and the folder."""
        return [
            {"name": image, "variable": variable, "folder": str(ROLES.parent / folder)}
            for service in self._services.values()
            if self.hosts(service.role)
            for variable, folder in service.builds.items()
            for image in self._listed(variable)
        ]

    def secrets(self) -> list[str]:
        """Return the secrets that the stack's services need."""
        return [
            secret["name"]
            for service in self._services.values()
            if self.hosts(service.role)
            for secret in service.secrets
            if not secret["needed_with"] or self.hosts(secret["needed_with"])
            if not secret["needed_if"] or self._value(self._here, secret["needed_if"])
        ] + ([MESH_SECRET] if any(self.meshed(host) for host in self.members()) else [])

    def reports(self, host: str = "") -> dict[str, str]:
        """Return by role the files in which services of a host, by default this one, report of themselves, as host_state names them."""
        here = host or self._here
        return {
            service.role: f"volume:{self._value(here, service.report['volume'])}/{service.report['file']}"
            for service in self._changed_by()
            if service.report and here in self.hosts(service.role)
        }

    def settings(self) -> dict[str, Any]:
        """Return what a recovery point says of the stack that it is of: the images of all services, and the groups."""
        # What the product's images are is in the record of its releases.
        variables = {service.role: f"{service.role}_image" for service in self._changed_by()}
        images = {role: self._value(self._here, name) for role, name in variables.items() if name in self._services[role].images}
        return {"images": images, "groups": self.groups()}

    # Parts

    def _service(self, role: str) -> Service:
        if role not in self._services:
            raise AnsibleError(f"no role {role} describes a service; described are: {', '.join(self._services)}")
        return self._services[role]

    def _changed_by(self, *changed_by: str) -> list[Service]:
        return [service for service in self._services.values() if service.changed_by in (changed_by or ("role", "release"))]

    def _on_host(self) -> list[Service]:
        return [service for service in self._changed_by() if self._here in self.hosts(service.role)]

    def _stores(self) -> list[Service]:
        return [service for service in self._services.values() if service.store]

    def _measured(self, host: str) -> list[tuple[Service, dict[str, str]]]:
        """Return the services of a host of which Prometheus asks figures; none where no host runs it."""
        known = self._changed_by() if self.hosts("monitoring") else []
        return [(service, service.metrics) for service in known if service.metrics and host in self.hosts(service.role)]

    def _measured_at(self, service: Service, metrics: dict[str, str], host: str) -> str:
        if host != self._here:
            return self.service_address(host)
        return EXPORTERS if metrics["exporter"] else service.role

    def _kept(self) -> list[Service]:
        return [service for service in self._stores() if service.store and service.store["in_recovery_points"]]

    def _volume_server(self, host: str) -> dict[str, Any]:
        """Return where this host reaches the server of a host's volumes."""
        if host == self._here:
            return {"address": SERVER_NAME, "port": SERVER_PORT}
        return {"address": self.service_address(host), "port": int(self._value(host, "volume_server_port"))}

    def _read_volumes(self, host: str) -> list[dict[str, Any]]:
        """Return the volumes of a host that recovery points hold, each once, as backup_volumes says."""
        groups = self._memberships(host)
        # Secrets of their environments may not exist yet.
        product = app_services.services({name: self._value(host, name, lazy=True) for name in app_services.VARIABLES})
        extra = extra_services.services(self._value(host, extra_services.VARIABLE, lazy=True))
        # Services may share one. The check of its type reports what is not a list of dictionaries.
        described = [volume for service in product.values() if app_services.runs(service, groups) for volume in service["volumes"]]
        volumes = [volume for volume in described if isinstance(volume, Mapping) and "name" in volume]
        declined = {str(volume["name"]) for volume in volumes if not app_services.is_kept(volume)}
        written = dict.fromkeys(str(volume["name"]) for volume in volumes if volume.get("mode", "rw") == "rw")
        kept = [{"name": name} for name in written if name not in declined] + [
            {**volume, "service": service.name}
            for service in extra.values()
            if app_services.runs(service, groups)
            for volume in extra_services.kept_volumes(service)
        ]
        # A service may mount one at several paths, or keep its dump next to its data.
        merged: dict[str, dict[str, Any]] = {}
        for volume in kept:
            merged[str(volume["name"])] = {**merged.get(str(volume["name"]), {}), **volume}
        return list(merged.values())

    def _memberships(self, host: str) -> list[str]:
        return [name for name, hosts in self._groups.items() if host in hosts]

    def _outer_address(self, host: str) -> str:
        """Return a host's private address, at which it is reached without the mesh."""
        return str(self._value(host, "slipway_address"))

    def _addresses(self, hosts: Iterable[str]) -> list[str]:
        """Return the private addresses of hosts, without this one's."""
        return list(dict.fromkeys(self.service_address(host) for host in dict.fromkeys(hosts) if host != self._here))

    def _clients(self, role: str) -> list[str]:
        """Return the hosts of the services that reach another one."""
        return [host for peer in self._service(role).peers for host in self.hosts(peer)]

    def _extra_services(self) -> list[app_services.Service]:
        """Return the extra services that listen on a port."""
        return [service for service in extra_services.services(self._value(self._here, extra_services.VARIABLE)).values() if service.port]

    def _extra_address(self, service: app_services.Service) -> dict[str, Any]:
        hosts = list(self._groups.get(service["hosts"], ()))
        if self._here in hosts or not hosts:
            return {"host": service.name, "port": service.port}
        return {"host": self.service_address(hosts[0]), "port": int(service["publish_port"] or service.port)}

    def _published(self, service: Service) -> list[dict[str, Any]]:
        """Return what a service of this host publishes."""
        found: list[dict[str, Any]] = []
        for port in service.ports:
            if not port["peers"]:
                number = self._value(self._here, port["variable"])
                if str(number) != "0":
                    found.append({"role": service.role, "port": number, "variable": port["variable"]})
                continue
            peers = self.peers(service.role)
            if not peers:
                continue
            value = self._value(self._here, port["variable"])
            own = value if isinstance(value, list) else [{"port": value, "variable": port["variable"]}]
            found += [{"role": service.role, "address": self.publish_address(service.role), "peers": peers, **item} for item in own]
        return found

    def _names_of_certificates(self, host: str) -> list[str]:
        redirects, certificates = (self._value(host, name) or [] for name in ("nginx_redirects", "nginx_certificates"))
        try:
            names = [*(self._value(host, "nginx_server_names") or []), *(redirect["from"] for redirect in redirects)]
            own = [certificate["names"] for certificate in certificates]
            return names_of_certificates(names, own, str(self._value(host, "slipway_site_name") or ""))
        except (KeyError, TypeError, ValueError):
            # What is not valid is reported as such.
            return []

    def _listed(self, name: str) -> list[str]:
        """Return the images that a variable holds."""
        value = self._value(self._here, name)
        return [str(image) for image in value] if isinstance(value, list) else [str(value)]
