# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop a run before it touches a host with inputs that cannot work. See the documentation of preflight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.module_utils import preflight
from ansible_collections.slipway.stack.plugins.module_utils.preflight import Problem
from ansible_collections.slipway.stack.plugins.module_utils.secret_values import secret_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import ROLES_OPTION, HostView, RoleFiles, near

#: Variables of no role that are read here, and must have a value of this kind.
READ_HERE: dict[str, dict[str, Any]] = {
    "slipway_stack": {"type": "raw"},
    "slipway_address": {"type": "str"},
    "slipway_minimum_memory_mb": {"type": "int"},
    "slipway_minimum_disk_mb": {"type": "int"},
}


#: Whose hosts keep recovery points.
BACKUP_GROUP = "backup"


def is_number(value: Any) -> bool:
    """Tell whether a value is a number, or a text that is nothing else."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def inventory_folder(sources: Iterable[str]) -> str:
    """Return the folder of the inventory that a run was given, for messages."""
    for path in map(Path, sources):
        if path.exists():
            return str(near(path if path.is_dir() else path.parent))
    return "the inventory"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; no host is asked or changed."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return no problems, or fail with all of them."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            {
                "roles": ROLES_OPTION,
                "required_groups": {"type": "list", "elements": "str", "default": []},
                "optional_groups": {"type": "list", "elements": "str", "default": []},
                "secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
                "states": {"type": "bool", "default": False},
                "ports": {"type": "str", "default": ""},
                "reach": {"type": "str", "default": ""},
            }
        )
        groups: dict[str, list[str]] = task_vars["groups"]
        self._inventory = inventory_folder(task_vars.get("ansible_inventory_sources") or [])
        self._files = RoleFiles(self._loader)
        self._specs = {item["role"]: self._files.inputs(item["role"]) for item in arguments["roles"]}
        self._roles = {
            host: [item["role"] for item in arguments["roles"] if host in groups.get(item["group"], ())] for host in groups["all"]
        }
        views = {host: self._view(host, task_vars) for host in groups["all"]}

        # Also those that nobody asks for here: an input that is wrong may be made of one.
        self._hidden = [
            view.value(name)[0]
            for view in views.values()
            for name in {*arguments["secrets"], *(name for name in view.raw if name.startswith("vault_"))}
        ]
        problems = self._check_states(views, groups, arguments) if arguments["states"] else self._check_inputs(views, groups, arguments)
        result.update(changed=False)
        if problems:
            result.update(failed=True, msg=preflight.redacted(preflight.message_of(problems), self._hidden))
        return result

    # What there is to look at

    def _view(self, host: str, task_vars: Mapping[str, Any]) -> HostView:
        """Return a host's variables over the defaults of its roles."""
        hostvars = task_vars["hostvars"]
        return HostView(hostvars.raw_get(host), self._files.defaults(self._roles[host]), {"hostvars": hostvars}, self._loader)

    # Inputs

    def _check_inputs(self, views: Mapping[str, HostView], groups: Mapping[str, list[str]], arguments: Mapping[str, Any]) -> list[Problem]:
        """Look at the inventory alone."""
        problems = preflight.check_groups(groups, arguments["required_groups"], arguments["optional_groups"])
        set_on_no_host = {name for name in arguments["secrets"] if not any(name in view for view in views.values())}
        # Without a group, what derives from the groups has no value; without a secret, what holds it. Both have a line already.
        told = set_on_no_host | ({"groups"} if problems else set())
        for host, view in views.items():
            problems += preflight.check_stack(host, view.value("slipway_stack", "slipway")[0], view.place("slipway_stack"))
        problems += self._check_connections(views)
        problems += [self._missing_secret(host, name) for host in views for name in arguments["secrets"] if name in set_on_no_host]
        known = self._files.known_names()
        for host, view in views.items():
            set_here = [name for name in view.raw if name not in (view.raw.get("ansible_facts") or {})]
            problems += preflight.check_names(host, set_here, known, view.place)
            for role in self._roles[host]:
                problems += self._check_required(host, role, view)
                if groups.get(BACKUP_GROUP):
                    problems += self._check_volumes(host, role, view)
        wrong = {host: self._wrong_values(host, view, arguments["secrets"]) for host, view in views.items()}
        return problems + preflight.causes(wrong, {host: view.sources for host, view in views.items()}, told)

    def _check_connections(self, views: Mapping[str, HostView]) -> list[Problem]:
        """Compare the addresses by which hosts are reached."""
        connections, addresses = {}, {}
        for host, view in views.items():
            kind = str(view.value("ansible_connection", "ssh")[0])
            if kind != "local":
                address = view.value("ansible_host", host)[0] or host
                port = view.value("ansible_port", "22" if kind == "ssh" else "")[0]
                connections[host] = (kind, str(address), str(port))
            private, _error = view.value("slipway_address")
            if private:
                addresses[host] = str(private)
        return preflight.check_connections(connections, addresses)

    def _missing_secret(self, host: str, name: str) -> Problem:
        """Return the problem that a secret is not set."""
        how = f"run `ansible-playbook playbooks/secrets.yml -i {self._inventory}`, which generates it"
        return Problem(host, f"{name} {secret_problem(None)}; {how}")

    def _check_required(self, host: str, role: str, view: HostView) -> list[Problem]:
        """Every input that a role cannot do without must be set."""
        return [
            Problem(host, f"{name} is required by role {role} and not set; {self._remedy(view, name)}")
            for name, spec in self._specs[role].items()
            if name not in view and spec.get("required") and "default" not in spec
        ]

    def _wrong_values(self, host: str, view: HostView, secrets: Iterable[str]) -> dict[str, Problem]:
        """Return, by variable, what is wrong with the values that the inventory sets.

        A secret that only some hosts know is for the roles there to ask for.
        """
        found: dict[str, Problem] = {}
        for name in (name for name in secrets if name in view):
            value, error = view.value(name)
            wrong = f"has no value: {error}" if error else secret_problem(value)
            if wrong and value is None and not error:
                found[name] = self._missing_secret(host, name)
            elif wrong:
                place = view.place(name) or f"{self._inventory}/group_vars/all/vault.yml"
                how = f"give it 32 random characters or more in {place}, or remove its line and run playbooks/secrets.yml"
                found[name] = Problem(host, f"{name} {wrong}; {how}")
        specs = READ_HERE | {name: spec for role in self._roles[host] for name, spec in self._specs[role].items()}
        for name, spec in specs.items():
            wrong = self._wrong_value(view, name, spec) if name in view else None
            if wrong:
                found[name] = Problem(host, f"{name} {wrong}; {self._remedy(view, name)}")
        return found

    def _wrong_value(self, view: HostView, name: str, spec: Mapping[str, Any]) -> str | None:
        """Compare an input that the inventory sets with its specification; return the rest of a sentence, or None."""
        value, error = view.value(name)
        if error:
            return f"has no value: {error}"
        errors = ArgumentSpecValidator({name: spec}).validate({name: value}).error_messages
        wrong = preflight.value_problem(name, spec, value, errors, self._hidden)
        if wrong is None and preflight.is_secret_input(name, spec) and value != spec.get("default"):
            return secret_problem(value)
        return wrong

    def _check_volumes(self, host: str, role: str, view: HostView) -> list[Problem]:
        """Volumes of the product are backed up by whoever has it."""
        names = [name for name, spec in self._specs[role].items() if name.endswith("_volumes") and spec.get("type") == "list"]
        values = {name: view.value(name)[0] for name in names if name in view}
        return [
            problem for name, value in values.items() for problem in preflight.check_volumes(host, name, value, self._remedy(view, name))
        ]

    def _remedy(self, view: HostView, name: str) -> str:
        """Say where to set a variable."""
        return preflight.remedy(view.place(name), self._inventory)

    # Hosts

    def _check_states(self, views: Mapping[str, HostView], groups: Mapping[str, list[str]], arguments: Mapping[str, Any]) -> list[Problem]:
        """Look at what was read from the hosts."""
        states = {host: state for host, view in views.items() if (state := view.state())}
        problems = preflight.check_identities(states) + preflight.check_restores(states)
        read = {group: [states[host] for host in hosts if host in states] for group, hosts in groups.items()}
        for host, state in states.items():
            view = views[host]
            memory = int(view.value("slipway_minimum_memory_mb", preflight.DEFAULT_MINIMUM_MEMORY_MB)[0])
            disk = int(view.value("slipway_minimum_disk_mb", preflight.DEFAULT_MINIMUM_DISK_MB)[0])
            problems += preflight.check_host(host, state, memory, disk)
            problems += preflight.check_memory(host, state, self._memory_limits(host, view))
            problems += preflight.check_cores(host, state, self._core_limits(host, view))
            problems += preflight.check_left_out(host, state, groups, arguments["optional_groups"])
            problems += preflight.check_ports(host, state, self._list(view, arguments["ports"]))
            images = self._image_variables(host, view)
            version, recorded = view.value("app_version", "")[0] or "", view.value("image_digests")[0] or {}
            problems += preflight.check_images(host, state, images, str(version), recorded)
            problems += preflight.check_users(
                host, state, images, self._user_inputs(host, view), dict(recorded or {}).get(str(version)) or {}
            )
            problems += preflight.check_nginx(host, state, images)
            problems += preflight.check_reach(host, state, self._list(view, arguments["reach"]), read)
        return problems

    def _list(self, view: HostView, variable: str) -> list[dict[str, Any]]:
        """Return the list that a variable holds for a host."""
        value, error = view.value(variable) if variable else ([], "")
        if error:
            raise AnsibleActionFail(f"{variable}: {error}")
        return value or []

    def _memory_limits(self, host: str, view: HostView) -> dict[str, int]:
        """Return the inputs that limit a container's memory and have a value, in MB."""
        names = [
            name for role in self._roles[host] for name in self._specs[role] if name.endswith("_memory_mb") and "_minimum_" not in name
        ]
        values = {name: view.value(name) for name in names}
        return {name: int(value) for name, (value, error) in values.items() if not error and str(value).isdecimal()}

    def _user_inputs(self, host: str, view: HostView) -> dict[str, Any]:
        """Return the inputs that say who containers run as, and which defaults of the house they do without."""
        names = [name for role in self._roles[host] for name in self._specs[role] if name.endswith(("_user", "_hardening_exceptions"))]
        return {name: value for name, (value, error) in ((name, view.value(name)) for name in names) if not error}

    def _core_limits(self, host: str, view: HostView) -> dict[str, float]:
        """Return the inputs that limit a container's cores and have a value."""
        names = [name for role in self._roles[host] for name in self._specs[role] if name.endswith("_cpus")]
        values = {name: view.value(name) for name in names}
        return {name: float(value) for name, (value, error) in values.items() if not error and is_number(value)}

    def _image_variables(self, host: str, view: HostView) -> dict[str, str]:
        """Return the inputs that name images, by image."""
        names = [name for role in self._roles[host] for name in self._specs[role] if name.endswith("_image")]
        return {str(view.value(name)[0]): name for name in names}
