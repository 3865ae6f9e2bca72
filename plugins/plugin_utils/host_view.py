# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of any host of the inventory, seen from one task on the controller.

A task for each host and role costs a fork each; looking at all of them from one task costs one.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import EncryptedString
from ansible.template import Templar
from jinja2 import Environment, TemplateSyntaxError, nodes

from ansible_collections.slipway.stack.plugins.plugin_utils import app_services
from ansible_collections.slipway.stack.plugins.plugin_utils.compiled import compiled_once, evaluate_once
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import plain_yaml
from ansible_collections.slipway.stack.plugins.plugin_utils.forms import Form, parsed
from ansible_collections.slipway.stack.plugins.plugin_utils.input_checks import form_of
from ansible_collections.slipway.stack.plugins.plugin_utils.preflight import SHARED_PREFIX
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import spellings
from ansible_collections.slipway.stack.plugins.plugin_utils.topology import ROLES, Topology, services, shared_files

try:
    # Says which file and line set a variable. Internal to Ansible, so messages do without it where it is not found.
    from ansible._internal._datatag._tags import Origin
except ImportError:
    Origin = None

# Forms of variables that belong to no role, and of what is given to playbooks.
FORMS = ROLES.parent / "meta" / "forms.yml"
STATE = "container_service_host_state"
# What a task knows and the inventory does not.
TASK_VARIABLES = (
    "hostvars",
    "playbook_dir",
    "ansible_play_hosts",
    "ansible_play_hosts_all",
    "ansible_check_mode",
    "ansible_playbook_python",
)
# Which roles run where, as the fragment options.roles of the documentation describes it.
ROLES_OPTION: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "required": True,
    "options": {"group": {"type": "str", "required": True}, "role": {"type": "str", "required": True}},
}


def plain(value: Any) -> Any:
    """Return a copy of a templated value with nothing left to template; Ansible resolves members when they are read."""
    if isinstance(value, Mapping):
        return {plain(key): plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(member) for member in value]
    return value


def encrypted_in(value: Any) -> Iterator[EncryptedString]:
    """Yield the strings of an inventory that were encrypted one by one, the rest of their file being in clear text."""
    if isinstance(value, EncryptedString):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from encrypted_in(member)
    elif isinstance(value, list):
        for member in value:
            yield from encrypted_in(member)


def names_used(value: Any) -> set[str]:
    """Return the names that the templates in a value read; names of their own are among them."""
    # Of what Ansible adds, such as hostvars, the members are no templates, and reading them all is dear.
    if isinstance(value, dict):
        return set().union(*map(names_used, value), *map(names_used, value.values()))
    if isinstance(value, list):
        return set().union(*map(names_used, value))
    if not isinstance(value, str) or "{" not in value:
        return set()
    try:
        return {node.name for node in Environment(autoescape=True).parse(value).find_all(nodes.Name)}
    except TemplateSyntaxError:
        return set()


def shared_forms() -> dict[str, Form]:
    """Return the forms of the variables that belong to no role; one that is like a role's input names both, as like app app_services."""
    found = {}
    for name, form in plain_yaml(FORMS)["shared"].items():
        role, other = form["like"].split() if isinstance(form, dict) and "like" in form else ("", "")
        found[name] = RoleFiles().forms(role)[other] if other else parsed(form)
    return found


def playbook_forms() -> dict[str, dict[str, Form]]:
    """Return, for each playbook, the forms of what is given to it with -e."""
    return {playbook: {name: parsed(form) for name, form in names.items()} for playbook, names in plain_yaml(FORMS)["playbooks"].items()}


def inputs_of_playbooks() -> dict[str, set[str]]:
    """Return, for each playbook, the inputs of roles that it alone reads."""
    return {playbook: set(names) for playbook, names in plain_yaml(FORMS)["inputs_of_playbooks"].items()}


def internal_variables() -> dict[str, str]:
    """Return the variables that no inventory sets, each with why."""
    inputs = [name for role in role_folders() for name in RoleFiles().inputs(role)]
    declared = {name: reason for reason, names in plain_yaml(FORMS)["internal"].items() for name in names}
    matched = {name: reason for pattern, reason in declared.items() for name in fnmatch.filter(inputs, pattern)}
    return {name: reason for name, reason in declared.items() if "*" not in name} | matched


def renamed_variables() -> dict[str, str]:
    """Return what takes the place of variables that earlier versions had."""
    return dict(plain_yaml(FORMS)["renamed"])


def near(path: Path) -> Path:
    """Return a path relative to the working directory where it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def place_of(value: Any) -> str | None:
    """Return the file and line where a value is written, relative to here where it is below, or None where that is not known."""
    # Errors in YAML have the place itself.
    origin = (value if isinstance(value, Origin) else Origin.get_tag(value)) if Origin else None
    if origin is None or not origin.path:
        return None
    path = near(Path(origin.path))
    return f"{path}:{origin.line_num}" if origin.line_num else str(path)


def is_computed(value: Any) -> bool:
    """Return whether an inventory plugin or a script has set a variable to a value, which no file holds."""
    origin = Origin.get_tag(value) if Origin else None
    return origin is not None and not origin.path


@functools.cache
def role_folders() -> dict[str, Path]:
    """Return the folders of the collection's roles, and of others that describe a service."""
    own = {path.name: path for path in ROLES.iterdir() if (path / "meta/argument_specs.yml").is_file()}
    return {**{service.role: service.folder for service in services()}, **own}


@functools.cache
def templates_of(path: Path) -> dict[str, Any]:
    """Return what a YAML file of a role holds, whose values know where they come from; an empty dictionary where there is none.

    Read once a process, and not again by the processes that are forked for tasks.
    """
    if not path.is_file():
        return {}
    # Unsafe means that it returns what it has read and no deep copy, which takes as long as reading. Nothing changes it here.
    return DataLoader().load_from_file(str(path), cache="none", unsafe=True, trusted_as_template=True) or {}


class RoleFiles:
    """The YAML files of roles."""

    def read(self, role: str, name: str, *, required: bool = True) -> dict[str, Any]:
        """Return what a file of a role holds.

        Args:
            role: The role's name without the collection's.
            name: Path of the file below the role's folder.
            required: Whether a role must have it; an empty one stands for it otherwise.

        Raises:
            AnsibleActionFail: It is required and not there.
        """
        return templates_of(self._path(role, name, required=required))

    @staticmethod
    def _path(role: str, name: str, *, required: bool) -> Path:
        path = role_folders().get(role, ROLES / role) / name
        if required and not path.is_file():
            raise AnsibleActionFail(f"{path} does not exist; roles are named as their folders in {ROLES}")
        return path

    def inputs(self, role: str) -> dict[str, Any]:
        """Return a role's inputs as its specification describes them."""
        specifications = plain_yaml(self._path(role, "meta/argument_specs.yml", required=True))
        options: dict[str, Any] = specifications["argument_specs"]["main"].get("options", {})
        return options

    def known_names(self) -> dict[str, set[str]]:
        """Return all variables of Slipway that an inventory may set, by what they begin with: inputs of roles, and shared ones."""
        known = {role: set(self.inputs(role)) for role in role_folders()}
        known[SHARED_PREFIX] = {name for name in shared_forms() if name.startswith(f"{SHARED_PREFIX}_")}
        return known

    def forms(self, role: str) -> dict[str, Form]:
        """Return the forms of a role's inputs, those of booleans and choices too."""
        path = role_folders().get(role, ROLES / role) / "meta/forms.yml"
        declared = plain_yaml(path) if path.is_file() else {}
        forms = {name: form_of(spec, declared.get(name)) for name, spec in self.inputs(role).items()}
        return {name: form for name, form in forms.items() if form}

    def shared(self) -> dict[str, Any]:
        """Return the variables that all environments share, as they stand."""
        merged: dict[str, Any] = {}
        for path in shared_files():
            merged |= templates_of(path)
        return merged

    def defaults(self, roles: Iterable[str]) -> dict[str, Any]:
        """Return the defaults of several roles as they stand."""
        merged: dict[str, Any] = {}
        for role in roles:
            merged |= self.read(role, "defaults/main.yml", required=False)
        return merged


class HostView:
    """The variables of one host as its tasks will see them: those of the inventory over the defaults of its roles."""

    def __init__(self, raw: dict[str, Any], defaults: Mapping[str, Any], extra: Mapping[str, Any], loader: Any) -> None:
        """Take a host's variables with their templates unresolved."""
        self.raw = raw
        self._variables = {**defaults, **raw, **extra}
        evaluate_once(self._variables, self)
        self._templar = Templar(loader=loader, variables=self._variables)
        self._values: dict[str, tuple[Any, str]] = {}

    def __contains__(self, name: str) -> bool:
        """Return whether the inventory sets a variable."""
        return name in self.raw

    def known(self, name: str) -> bool:
        """Return whether the inventory, a role or the task sets a variable."""
        return name in self._variables

    def resolve(self, name: str) -> Any:
        """Return a variable's value.

        Raises:
            AnsibleError: It has none.
        """
        return plain(self.templated(name))

    def templated(self, name: str) -> Any:
        """Return a variable's value as Ansible has it, without a copy."""
        with compiled_once():
            return self._templar.template(self._variables[name])

    def value(self, name: str, default: Any = None) -> tuple[Any, str]:
        """Return a variable's value, and why it has none ("" when it has one)."""
        if name not in self._variables:
            return default, ""
        if name not in self._values:
            try:
                self._values[name] = (self.resolve(name), "")
            except AnsibleError as error:
                self._values[name] = (default, " ".join(str(error).split()))
        return self._values[name]

    def failing(self, name: str) -> Iterator[tuple[str, str | None, str]]:
        """Yield the members of a variable that cannot be evaluated: the path in it, "" for all of it, where it is written, and why."""

        def look(value: Any, path: str, place: str | None) -> Iterator[tuple[str, str | None, str]]:
            if isinstance(value, Mapping):
                for key, member in value.items():
                    yield from look(member, f"{path}.{key}", place_of(key) or place)
            elif isinstance(value, (list, tuple)):
                for number, member in enumerate(value):
                    yield from look(member, f"{path}[{number}]", place)
            elif isinstance(value, str):
                try:
                    with compiled_once():
                        plain(self._templar.template(value))
                except AnsibleError as error:
                    yield path, place_of(value) or place, " ".join(str(error).split())

        yield from look(self._variables[name], "", self.place(name))

    def sources(self, name: str) -> set[str]:
        """Return the variables that a variable's value is made of, those behind them too."""
        found: set[str] = set()
        ahead = [name]
        while ahead:
            # Of other hosts, a template reads single variables, not all.
            further = names_used(self._variables.get(other)) - found if (other := ahead.pop()) != "hostvars" else set()
            found |= further
            ahead += further
        return found

    def secrets(self) -> list[Any]:
        """Return the values that must not be shown: of variables ``vault_*``, and those that were encrypted alone (``!vault``)."""
        found = [self.value(name)[0] for name in self.raw if name.startswith("vault_")]
        for encrypted in encrypted_in([value for name, value in self.raw.items() if name != STATE]):
            # One that cannot be decrypted was not used either.
            with contextlib.suppress(AnsibleError):
                found.append(str(encrypted))
        return found

    def state(self) -> dict[str, Any] | None:
        """Return what was read from the host, or None where it was not, or could not be.

        An address in the mesh is among its own: the run that brings the mesh gives it before anything listens there.
        """
        state: dict[str, Any] | None = self.raw.get(STATE) or (self.raw.get("ansible_facts") or {}).get(STATE)
        if not state or "containers" not in state:
            return None
        if not boolean(self.value("slipway_mesh", default=False)[0], strict=False):
            return state
        own = state["host"].get("addresses") or []
        return {**state, "host": {**state["host"], "addresses": sorted({*own, str(self.value("slipway_service_address")[0])})}}

    def place(self, name: str) -> str | None:
        """Return the file and line that set a variable, relative to here where it is below, or None where that is not known.

        Of a member, such as app_services.api.volumes, it is where the innermost of its keys is written.
        """
        variable, *keys = name.split(".")
        value = self.raw.get(variable)
        found = place_of(value)
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                break
            found = place_of(next(other for other in value if other == key)) or found
            value = value[key]
        return found


def hidden_of(hosts: Iterable[dict[str, Any]], hostvars: Any, loader: Any) -> list[str]:
    """Return all that a string may show of the secrets of some hosts.

    Args:
        hosts: The variables of each, with their templates unresolved.
        hostvars: Those of all hosts.
        loader: Ansible's loader.
    """
    return spellings([HostView(raw, _defaults(), {"hostvars": hostvars}, loader).secrets() for raw in hosts])


def states_of(task_vars: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what was read of each host of the play, in its order; of one that could not be read, why, as ``msg``, if anything."""
    hostvars = task_vars["hostvars"]
    return {host: hostvars.raw_get(host).get(STATE) or {} for host in task_vars["ansible_play_hosts_all"]}


#: Views of other hosts, and topologies as hosts see them, in a process that was forked for one task, which changes no variable.
_views: dict[tuple[int, str], HostView] = {}
_topologies: dict[tuple[int, str], Topology] = {}


@functools.cache
def _defaults() -> dict[str, Any]:
    """Return the defaults of all roles that describe a service."""
    return RoleFiles().defaults(service.role for service in services())


def read_role_files() -> None:
    """Read the files of all roles that tasks look at, so that processes that are forked from this one need not.

    Raises:
        AnsibleError: One of them is not as it must be.
    """
    files = RoleFiles()
    _defaults()
    app_services.known_keys()
    for role in role_folders():
        files.inputs(role)
        files.read(role, "vars/main.yml", required=False)


def topology_of(variables: dict[str, Any], loader: Any) -> Topology:
    """Return what follows from the services and the inventory for the host whose variables these are.

    Args:
        variables: The variables of a task or a play, with their templates unresolved.
        loader: Ansible's loader.
    """
    here, hostvars = str(variables.get("inventory_hostname", "")), variables.get("hostvars") or {}
    kept = multiprocessing.parent_process() is not None
    if kept and (id(hostvars), here) in _topologies:
        return _topologies[id(hostvars), here]
    own = HostView(variables, _defaults(), {}, loader)

    def view_of(host: str) -> HostView:
        key = (id(hostvars), host)
        if key in _views:
            return _views[key]
        raw = getattr(hostvars, "raw_get", hostvars.__getitem__)(host)
        view = HostView(raw, _defaults(), {"hostvars": hostvars}, loader)
        if kept:
            _views[key] = view
        return view

    variables_of = functools.cache(lambda host: hostvars[host])

    def value(host: str, name: str, *, lazy: bool = False) -> Any:
        if lazy:
            return variables_of(host).get(name)
        found, error = (own if host == here else view_of(host)).value(name)
        if error:
            raise AnsibleError(error if host == here else f"{name} of {host}: {error}")
        return found

    topology = Topology(services(), variables.get("groups") or {}, here, value)
    if kept:
        _topologies[id(hostvars), here] = topology
    return topology
