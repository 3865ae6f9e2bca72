# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop a run before it touches a host with inputs that cannot work. See the documentation of preflight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.inventory.manager import split_host_pattern
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from ansible_collections.slipway.stack.plugins.module_utils.engine import normal_reference
from ansible_collections.slipway.stack.plugins.module_utils.mesh import interface_of
from ansible_collections.slipway.stack.plugins.plugin_utils import (
    app_services,
    extra_services,
    hook_files,
    mesh,
    preflight,
    reporting,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.compiled import compiled_once, write_compiled
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import ansible_home
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import ROLES_OPTION, HostView, RoleFiles, near, plain
from ansible_collections.slipway.stack.plugins.plugin_utils.image_records import with_shared
from ansible_collections.slipway.stack.plugins.plugin_utils.inputs import PRODUCT_ROLE, RUNNER, Given, Inputs
from ansible_collections.slipway.stack.plugins.plugin_utils.preflight import Problem

CONTROLLER = "localhost"
#: Whether what serves may be restarted.
ACCEPT_RESTART = f"{RUNNER}_accept_restart"


def is_number(value: Any) -> bool:
    """Return whether a value is a number, or a string that holds nothing else."""
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
                "playbook": {"type": "str", "default": ""},
                "shared_variables": {"type": "bool", "default": False},
                "works_on": {"type": "list", "elements": "str", "default": []},
                "required_groups": {"type": "list", "elements": "str", "default": []},
                "optional_groups": {"type": "list", "elements": "str", "default": []},
                "secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
                "secrets_variable": {"type": "str", "default": "", "no_log": False},
                "states": {"type": "bool", "default": False},
                "left_out": {"type": "bool", "default": False},
                "brings_mesh": {"type": "bool", "default": False},
                "mesh_only": {"type": "bool", "default": False},
                "ports": {"type": "str", "default": ""},
                "reach": {"type": "str", "default": ""},
                "images": {"type": "str", "default": ""},
                "builds": {"type": "list", "elements": "dict", "default": []},
            }
        )
        groups: dict[str, list[str]] = task_vars["groups"]
        self._inventory = inventory_folder(task_vars.get("ansible_inventory_sources") or [])
        self._files = RoleFiles()
        self._specs = {item["role"]: self._files.inputs(item["role"]) for item in arguments["roles"]}
        self._roles = {
            # A role of several groups is once on a host that is in all of them.
            host: list(dict.fromkeys(item["role"] for item in arguments["roles"] if host in groups.get(item["group"], ())))
            for host in groups["all"]
        }
        views = {host: self._view(host, task_vars) for host in groups["all"]}

        listed, wrong_list = self._secrets(arguments["secrets_variable"], task_vars)
        arguments["secrets"] += listed

        # Also those that no role asks for here: an input that is wrong may be made of one.
        self._hidden = [
            secret for view in views.values() for secret in (*view.secrets(), *(view.value(name)[0] for name in arguments["secrets"]))
        ]
        self._to_build: dict[str, dict[str, Any]] = {}
        problems = self._check_states(views, groups, arguments) if arguments["states"] else self._check_inputs(views, arguments, task_vars)
        # Mostly it is made of an input that cannot be evaluated either, which has a message with its place.
        problems = problems or wrong_list
        write_compiled(ansible_home())
        result.update(changed=False, to_build=list(self._to_build.values()))
        if problems:
            result.update(failed=True, msg=preflight.redacted(preflight.message_of(problems), self._hidden))
        return result

    # What there is to look at

    def _secrets(self, variable: str, task_vars: Mapping[str, Any]) -> tuple[list[str], list[Problem]]:
        """Return the secrets that a variable lists, and why it cannot be evaluated; Ansible would end with that alone."""
        if variable not in task_vars:
            return [], []
        try:
            with compiled_once():
                return list(plain(self._templar.template(task_vars[variable]))), []
        except (AnsibleError, TypeError) as error:
            return [], [Problem("", f"{variable} cannot be evaluated: {' '.join(str(error).split())}; correct what it is made of")]

    def _view(self, host: str, task_vars: Mapping[str, Any]) -> HostView:
        """Return a host's variables over the defaults of its roles."""
        hostvars = task_vars["hostvars"]
        return HostView(hostvars.raw_get(host), self._files.defaults([RUNNER, *self._roles[host]]), {"hostvars": hostvars}, self._loader)

    # Inputs

    def _check_inputs(self, views: Mapping[str, HostView], arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> list[Problem]:
        """Look at the inventory and the command line alone."""
        if not reporting.is_followed():
            return [Problem("", reporting.NOT_FOLLOWED)]
        given = Given(
            playbook=arguments["playbook"],
            variables=load_extra_vars(self._loader),
            texts=tuple(str(text) for text in context.CLIARGS.get("extra_vars") or ()),
            tags=tuple(task_vars.get("ansible_run_tags") or ("all",)),
            own_tags=tuple(self._task.tags),
            sources=tuple(str(source) for source in task_vars.get("ansible_inventory_sources") or ()),
        )
        inputs = Inputs(self._files, self._roles, views, self._inventory, given=given, secrets=arguments["secrets"], hidden=self._hidden)
        groups = preflight.check_groups(task_vars["groups"], arguments["required_groups"], arguments["optional_groups"])
        target = self._check_target(arguments, task_vars)
        return inputs.problems(groups, needs_shared=arguments["shared_variables"], target=target) or self._check_hooks(views)

    def _check_hooks(self, views: Mapping[str, HostView]) -> list[Problem]:
        """Return the problems of files at which Ansible would end a run that has begun."""
        named = {host: view.value("slipway_hooks")[0] or {} for host, view in views.items()}
        files = {path for hooks in named.values() for path in hooks.values()}
        wrong = {path: hook_files.problem(path, self._task.get_play(), self._loader) for path in sorted(files)}
        return [
            Problem(host, f"slipway_hooks.{hook} names a file that Ansible cannot run, {wrong[path]}")
            for host, hooks in named.items()
            for hook, path in hooks.items()
            if wrong[path]
        ]

    @staticmethod
    def _check_target(arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> list[Problem]:
        """Return the problem that a run reaches none of the hosts on which its playbook works, so that it would do nothing."""
        limit = str(task_vars.get("ansible_limit") or "")
        reached = set(task_vars["ansible_play_hosts_all"]) if limit else set(task_vars["groups"]["all"])
        if not limit or CONTROLLER in split_host_pattern(limit):
            reached.add(CONTROLLER)
        groups = {**task_vars["groups"], CONTROLLER: [CONTROLLER]}
        targets = {name: list(groups.get(name, ())) for name in arguments["works_on"]}
        return preflight.check_target(arguments["playbook"], targets, reached, limit)

    # Hosts

    def _check_states(self, views: Mapping[str, HostView], groups: Mapping[str, list[str]], arguments: Mapping[str, Any]) -> list[Problem]:
        """Look at what was read from the hosts."""
        states = {host: state for host, view in views.items() if (state := view.state())}
        problems = self._check_mesh(views, states, arguments)
        if arguments["mesh_only"]:
            return problems
        problems += preflight.check_identities(states) + preflight.check_restores(states)
        tunnels = {host: str(view.value("slipway_service_address")[0]) for host, view in views.items() if self._roles[host]}
        tunnels = {host: address for host, address in tunnels.items() if address != str(views[host].value("slipway_address")[0])}
        run_by: dict[str, list[str]] = {}
        for item in arguments["roles"]:
            run_by.setdefault(item["role"], []).append(item["group"])
        read = {group: [states[host] for host in hosts if host in states] for group, hosts in groups.items()}
        for host, state in states.items():
            if no_root := preflight.check_root(host, state):
                # What was read there is not all that there is.
                problems += no_root
                continue
            view = views[host]
            if host in tunnels:
                network, stack = (str(view.value(name)[0]) for name in ("slipway_mesh_range", "slipway_stack"))
                problems += mesh.overlap_problems(host, state, network, interface_of(stack))
                problems += mesh.support_problems(host, state)
            memory = int(view.value("slipway_minimum_memory_mb", preflight.DEFAULT_MINIMUM_MEMORY_MB)[0])
            disk = int(view.value("slipway_minimum_disk_mb", preflight.DEFAULT_MINIMUM_DISK_MB)[0])
            problems += preflight.check_host(host, state, memory, disk)
            problems += preflight.check_python(host, state)
            problems += preflight.check_engine_options(host, state)
            problems += preflight.check_memory(host, state, self._memory_limits(host, view))
            problems += preflight.check_cores(host, state, self._core_limits(host, view))
            bind_addresses = {"nginx": str(view.value("nginx_bind_address")[0])} if "nginx_bind_address" in view else {}
            for role, address in bind_addresses.items():
                problems += preflight.check_bind_address(host, state, f"{role}_bind_address", address)
            if arguments["left_out"]:
                problems += preflight.check_left_out(host, state, run_by, self._roles[host])
            tunnel = {"protocol": "udp", "port": view.value("slipway_mesh_port")[0], "variable": "slipway_mesh_port"}
            ports = [*self._list(view, arguments["ports"]), *([tunnel] if host in tunnels else [])]
            problems += preflight.check_ports(host, state, ports, bind_addresses)
            images = self._image_variables(host, view)
            version, recorded = view.value("app_version", "")[0] or "", view.value("image_digests")[0] or {}
            built = self._note_builds(host, state, self._list(view, arguments["images"]), arguments["builds"])
            lacking = {image: reason for image, reason in (state.get("missing_images") or {}).items() if image not in built}
            # Of services that share an image, the first is named.
            by_image = {image: name for name, image in reversed(images.items())}
            problems += preflight.check_images(host, {**state, "missing_images": lacking}, by_image, str(version), recorded)
            of_version = with_shared(self._product_images(host, view), dict(recorded).get(str(version)))
            problems += preflight.check_users(host, state, images, self._user_inputs(host, view), of_version)
            problems += preflight.check_platforms(host, state, images, of_version)
            problems += preflight.check_nginx(host, state, images)
            if "postgres" in self._roles[host]:
                problems += preflight.check_superuser(host, state, str(view.value("postgres_volume")[0]), self._database_roles(view))
            brought = list(tunnels.values()) if arguments["brings_mesh"] else []
            problems += preflight.check_reach(host, state, self._list(view, arguments["reach"]), read, brought)
        return problems

    @staticmethod
    def _database_roles(view: HostView) -> list[tuple[str, str]]:
        """Return the roles of PostgreSQL that the inventory names, each with the variable that does."""
        named = [(variable, view.value(variable)[0]) for variable in ("postgres_owner_name", "postgres_app_name")]
        users = [("postgres_users", user) for user in view.value("postgres_users")[0] or ()]
        users += [(name, view.value(name)[0]) for name in ("postgres_backup_user", "postgres_monitoring_user", "postgres_jobs_user")]
        return [(name, str(value)) for name, value in named] + [(name, str(user.get("name"))) for name, user in users if user]

    def _check_mesh(
        self, views: Mapping[str, HostView], states: Mapping[str, Mapping[str, Any]], arguments: Mapping[str, Any]
    ) -> list[Problem]:
        """Return why the mesh that hosts have, and the one that they are to have, do not go together in this run."""
        meshed = self._hosts_of_mesh(views, states, arguments["ports"])
        if not arguments["brings_mesh"]:
            return mesh.pending_problems(meshed)
        accepted = all(boolean(views[end.host].value(ACCEPT_RESTART)[0], strict=False) for end in meshed)
        return mesh.unasked_problems(meshed) + ([] if accepted else mesh.moved_problems(meshed))

    def _hosts_of_mesh(self, views: Mapping[str, HostView], states: Mapping[str, Mapping[str, Any]], ports: str) -> list[mesh.Found]:
        """Return the stack's hosts that were read, with the mesh that they have and are to have."""
        default = self._files.shared()["slipway_mesh"]
        return [
            mesh.Found(
                host,
                state,
                stack=str(views[host].value("slipway_stack")[0]),
                outer=str(views[host].value("slipway_address")[0]),
                address=str(views[host].value("slipway_service_address")[0]),
                ports=self._list(views[host], ports),
                chosen=views[host].raw.get("slipway_mesh", default) != default,
            )
            for host, state in states.items()
            if self._roles[host]
        ]

    def _note_builds(self, host: str, state: Mapping[str, Any], needed: list[Any], builds: list[dict[str, str]]) -> set[str]:
        """Note which of the collection's own images must be built for a host, and return their names."""
        wanted = {normal_reference(image) for image in needed}
        found = set()
        for build in builds:
            name = normal_reference(build["name"])
            if name in wanted and preflight.must_be_built(state, build["name"]):
                platform = next(iter((state.get("host") or {}).get("platforms") or ()), "")
                self._to_build.setdefault(name, {**build, "platform": platform, "hosts": []})["hosts"].append(host)
                found.add(name)
        return found

    def _list(self, view: HostView, variable: str) -> list[dict[str, Any]]:
        """Return the list that a variable holds for a host."""
        value, error = view.value(variable) if variable else ([], "")
        if error:
            raise AnsibleActionFail(f"{variable}: {error}")
        return value or []

    def _named(self, host: str, view: HostView, *words: str) -> dict[str, Any]:
        """Return the values of a host's inputs whose names end in one of some words, and of its services' keys of these names."""
        names = [name for role in self._roles[host] for name in self._specs[role] if name.endswith(tuple(f"_{word}" for word in words))]
        values = {name: value for name, (value, error) in ((name, view.value(name)) for name in names) if not error}
        described = list(extra_services.services(view.value(extra_services.VARIABLE, {})[0]).values())
        if PRODUCT_ROLE in self._roles[host]:
            described += app_services.services({name: view.value(name)[0] for name in app_services.VARIABLES}).values()
        return values | {
            f"{service.path}.{word}": service[word]
            for service in described
            if app_services.runs(service, view.raw["group_names"])
            for word in words
            if word in service and service[word] is not None
        }

    def _memory_limits(self, host: str, view: HostView) -> dict[str, int]:
        """Return the inputs that limit a container's memory and have a value, in MB."""
        found = self._named(host, view, "memory_mb")
        return {name: int(value) for name, value in found.items() if "_minimum_" not in name and str(value).isdecimal()}

    def _user_inputs(self, host: str, view: HostView) -> dict[str, Any]:
        """Return the inputs that say who containers run as, and which defaults of the house they do without."""
        return self._named(host, view, "user", "hardening_exceptions")

    def _core_limits(self, host: str, view: HostView) -> dict[str, float]:
        """Return the inputs that limit a container's cores and have a value."""
        return {name: float(value) for name, value in self._named(host, view, "cpus").items() if is_number(value)}

    def _product_images(self, host: str, view: HostView) -> dict[str, str]:
        """Return the image of each service of the product, where the host runs some of them."""
        if PRODUCT_ROLE not in self._roles[host]:
            return {}
        return app_services.images({name: view.value(name)[0] for name in app_services.VARIABLES})

    def _image_variables(self, host: str, view: HostView) -> dict[str, str]:
        """Return the images that inputs name, by input."""
        return {name: str(image) for name, image in self._named(host, view, "image").items()}
