# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what is declared for all hosts with what was read from them, in one task. See the documentation of fleet_plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils import outlook
from ansible_collections.slipway.stack.plugins.plugin_utils.compiled import write_compiled
from ansible_collections.slipway.stack.plugins.plugin_utils.digest import digest_key
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import ansible_home
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import (
    ROLES_OPTION,
    TASK_VARIABLES,
    HostView,
    RoleFiles,
    role_folders,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.plan import (
    BEGIN_EMPTY,
    STACKS,
    DeclarationError,
    begun_empty,
    family,
    left_behind,
    plan_services,
    services_there,
    stale_reasons,
    written_by_others,
    written_volumes,
)

RUNNER = "container_service"


def private(role: str, noun: str) -> str:
    """Return the name by which a role says something to this plugin alone."""
    return f"__{role}_{noun}"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Reads variables and what was read before; asks no host."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the roles that have something to do on any host, and why."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            {
                "roles": ROLES_OPTION,
                "variables": {"type": "dict", "default": {}},
                "found": {"type": "dict", "default": {}},
                "release": {"type": "dict", "options": {"seen": {"type": "bool", "required": True}, "record": {"type": "dict"}}},
            }
        )
        self._files = RoleFiles()
        self._extra = {name: task_vars[name] for name in TASK_VARIABLES if name in task_vars}
        self._key = digest_key(str(ansible_home()))
        reasons: dict[str, dict[str, list[str]]] = {}
        self._rows: list[outlook.Row] = []
        # Of each host, the containers that are to run there, with their roles.
        self._containers: dict[str, dict[str, str]] = {}
        # Of each host, the volumes with data that it is to lose, and those that it is to have, by role.
        self._left: dict[str, dict[str, dict[str, str]]] = {}
        self._declared: dict[str, set[str]] = {}
        self._wanted: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
        # The hosts on which something of a service is there.
        self._there: dict[str, set[str]] = {}
        views = {
            (host, role): view
            for host in task_vars["ansible_play_hosts_all"]
            for role in dict.fromkeys(item["role"] for item in arguments["roles"] if host in task_vars["groups"].get(item["group"], ()))
            if (view := self._view(host, role, arguments["variables"].get(role, {}), task_vars)).state() is not None
        }
        # All of them first: declarations are rendered for a while, and mistakes may be why one cannot be.
        self._starting: dict[str, dict[str, dict[str, list[str]]]] = {}
        self._written: dict[str, dict[str, set[str]]] = {}
        known = arguments["found"]
        mistakes = [
            f"{host}: {text}"
            for (host, role), view in views.items()
            for text in [*known.get(role, {}).get("mistakes", ()), *self._list(host, view, private(role, "mistakes"))]
        ]
        for (host, role), view in () if mistakes else views.items():
            try:
                found = [*known.get(role, {}).get("reasons", {}).get(host, ()), *self._list(host, view, private(role, "reasons"))]
                found += self._differences(host, role, view)
            except DeclarationError as error:
                mistakes += [f"{host}: {line}{self._place(view, line)}" for line in str(error).splitlines()]
                continue
            if found:
                reasons.setdefault(role, {})[host] = found
        # Whatever else is applied, those who use it would not reach it.
        mistakes += [
            f"{row['host']}: {row['service']} is to get {' and '.join(row['holds_back'])}, and other changes of it need a restart, "
            f"of at most {row['downtime_s']} s: accept it (playbooks/site.yml -e accept=restart), or apply them one after the other"
            for row in self._rows
            if row["holds_back"]
        ]
        if not mistakes:
            states = {host: view.state() or {} for (host, _role), view in views.items()}
            mistakes = self._without_data(arguments, task_vars["groups"]) + [
                f"{host}: {text}"
                for host, starting in self._starting.items()
                for text in written_by_others(starting, self._written[host], states[host])
            ]
        write_compiled(ansible_home())
        result.update(changed=False, roles=list(reasons), reasons=reasons, containers=self._containers, services=self._rows)
        result["waiting"] = [f"{row['service']} on {row['host']} {outlook.waiting_text(row)}" for row in self._rows if row["waits"]]
        if mistakes:
            result.update(failed=True, msg="\n".join(mistakes))
        return result

    def _without_data(self, arguments: Mapping[str, Any], groups: Mapping[str, list[str]]) -> list[str]:
        """Return why a service may not begin with an empty volume: its data is on another host, or was known to a release."""
        left = {
            host: {name: there for name, there in volumes.items() if name not in self._declared[host]}
            for host, volumes in self._left.items()
        }
        wanted: dict[str, dict[str, dict[str, Any]]] = {}
        for hosts in self._wanted.values():
            for host, volumes in hosts.items():
                wanted.setdefault(host, {}).update(volumes)
        found = left_behind(left, wanted)
        release = arguments["release"]
        if release is None or found:
            return found
        if not release["seen"]:
            return [
                f"{host}: the volume {name} is empty, and this run leaves out the app hosts and balancers, which know whether the product "
                f"has data: run again without --limit. {BEGIN_EMPTY}"
                for host, volumes in wanted.items()
                for name, volume in volumes.items()
                if volume["store"] and volume["empty"] and not volume["used"]
            ]
        if not release["record"]:
            return []
        recorded = release["record"].get("data")
        for role, hosts in self._wanted.items():
            members = {host for item in arguments["roles"] if item["role"] == role for host in groups.get(item["group"], ())}
            found += begun_empty(
                hosts,
                self._there if recorded is None else recorded,
                members - set(hosts),
                filled=release["record"].get("filled"),
                complete=recorded is not None,
            )
        return found

    def _view(self, host: str, role: str, variables: Mapping[str, Any], task_vars: Mapping[str, Any]) -> HostView:
        """Return a host's variables as the tasks of a role there would see them."""
        extra = {
            **self._files.read(role, "vars/main.yml", required=False),
            **self._extra,
            "role_path": str(role_folders()[role]),
            "ansible_search_path": [str(role_folders()[role]), str(task_vars.get("playbook_dir", ""))],
            **variables,
        }
        return HostView(task_vars["hostvars"].raw_get(host), self._files.defaults([RUNNER, role]), extra, self._loader)

    @staticmethod
    def _value(host: str, view: HostView, name: str) -> Any:
        """Return a variable's value, or say on which host it has none."""
        try:
            return view.resolve(name)
        except AnsibleError as error:
            raise AnsibleActionFail(f"{host}: {name} cannot be evaluated: {' '.join(str(error).split())}") from error

    @staticmethod
    def _place(view: HostView, text: str) -> str:
        """Return in brackets where the inventory sets the input that a sentence says to change, or ""."""
        named = re.search(r" in ([a-z]+_\w+(?:\.[\w-]+)*)", text)
        place = view.place(named[1]) if named else None
        return f" ({place})" if place else ""

    def _list(self, host: str, view: HostView, name: str) -> list[str]:
        """Return the sentences that a role holds in a variable; it need not have one."""
        return list(self._value(host, view, name)) if view.known(name) else []

    def _differences(self, host: str, role: str, view: HostView) -> list[str]:
        """Return why the containers of a role are not as declared.

        Raises:
            DeclarationError: a declaration is wrong, or conflicts with an object that is not part of the stack.
        """
        services = private(role, "services")
        if not view.known(services):
            return []
        state, declared = view.state() or {}, self._value(host, view, services)
        owner = self._value(host, view, private(role, "owner")) if view.known(private(role, "owner")) else role
        stack = self._value(host, view, f"{RUNNER}_stack")
        plan = plan_services(
            declared,
            state,
            stack=stack,
            root=STACKS,
            owner=owner,
            key=self._key,
            networks=self._value(host, view, f"{RUNNER}_networks"),
            adopt=boolean(self._value(host, view, f"{RUNNER}_adopt_volumes"), strict=False),
            accept_restart=boolean(self._value(host, view, f"{RUNNER}_accept_restart"), strict=False),
            accept_empty=boolean(self._value(host, view, f"{RUNNER}_accept_empty"), strict=False),
        )
        self._starting.setdefault(host, {})[owner] = plan["begins_on"]
        self._written.setdefault(host, {}).setdefault(family(owner), set()).update(written_volumes(declared))
        left = self._left.setdefault(host, {})
        left.update({name: there for name, there in plan["volumes_left"].items() if there["container"] or name not in left})
        self._declared.setdefault(host, set()).update(plan["volumes_declared"])
        self._wanted.setdefault(role, {})[host] = plan["volumes_of_data"]
        for service in services_there(state, stack, STACKS):
            self._there.setdefault(service, set()).add(host)
        self._rows += outlook.rows(host, role, plan, state["containers"])
        running = {item["container"]: role for item in plan["services"] if item["starts"] and not item["one_shot"]}
        self._containers.setdefault(host, {}).update(running)
        # A one-shot service follows from what others need.
        needed = [item for item in plan["needed"] if not item["one_shot"]]
        sentences = [f"{item['name']}: {reason}" for item in needed for reason in item["reasons"]]
        return sentences + stale_reasons(plan)
