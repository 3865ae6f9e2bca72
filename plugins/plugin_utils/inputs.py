# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at all inputs of a run at once: those of the inventory, and those that were given with -e."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.slipway.stack.plugins.module_utils.containers import EXTRA_SERVICES
from ansible_collections.slipway.stack.plugins.plugin_utils import (
    app_services,
    extra_services,
    input_checks,
    mesh,
    preflight,
    secret_sources,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.ansible_names import (
    KEYWORDS,
    OF_HOSTS,
    PLUGINS,
    PREFIX,
    connection_variables,
    misspelled,
    plugin_problem,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.clear_text import secret_members, some_of, vault_name
from ansible_collections.slipway.stack.plugins.plugin_utils.connections import KEY_FILES, KEYS, key_problem, key_text_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.forms import Form, is_dns_name, kinds, parsed
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import (
    HostView,
    RoleFiles,
    inputs_of_playbooks,
    internal_variables,
    is_computed,
    names_used,
    near,
    place_of,
    playbook_forms,
    renamed_variables,
    role_folders,
    shared_forms,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.input_names import (
    KnownNames,
    argument_problems,
    command_line_problems,
    near_names,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.inventory_files import GIVE_PASSWORD
from ansible_collections.slipway.stack.plugins.plugin_utils.preflight import Problem
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import secret_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.topology import MESH_SECRET, services
from ansible_collections.slipway.stack.plugins.plugin_utils.vault_file import VAULT_FILE
from ansible_collections.slipway.stack.plugins.plugin_utils.written import changed_by_yaml, in_clear_text, is_of_a_group, places

#: The role that all others call, whose few inputs for users hold everywhere.
RUNNER = "container_service"
#: The role that runs the product's services.
PRODUCT_ROLE = "app"
#: What begins so is Ansible's, or a secret's own name.
NOT_OURS = (PREFIX, "vault_", "__")
#: What playbooks/plays/check_inputs.yml is given begins so, after two underscores.
OF_THIS_CHECK = "check"
#: Further arguments of ssh and its like; Ansible takes null for none.
ARGUMENTS = (
    "ansible_scp_extra_args", "ansible_sftp_extra_args", "ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args",
)  # fmt: skip
#: Ansible's own variables with values that would end a run in words of Ansible's, or that Ansible would take for false.
CONNECTION = {
    **dict.fromkeys(("ansible_port", "ansible_ssh_port"), parsed("port")),
    **dict.fromkeys(("ansible_host", "ansible_ssh_host"), parsed("ssh_host")),
    **dict.fromkeys(("ansible_user", "ansible_ssh_user", "ansible_become_user", "ansible_python_interpreter"), parsed("words")),
    **dict.fromkeys(("ansible_timeout", "ansible_ssh_timeout"), parsed("seconds 1..3600")),
    "ansible_ssh_retries": parsed("count 0..100"),
    "ansible_ssh_verbosity": parsed("count 0..9"),
    "ansible_ssh_transfer_method": parsed("one of sftp scp piped smart"),
    "ansible_ssh_password_mechanism": parsed("one of ssh_askpass sshpass disable"),
    **dict.fromkeys(
        (
            "ansible_become", "ansible_host_key_checking", "ansible_pipelining", "ansible_sftp_batch_mode",
            "ansible_shell_allow_world_readable_temp", "ansible_ssh_host_key_checking", "ansible_ssh_pipelining", "ansible_ssh_use_tty",
        ),
        parsed("boolean"),
    ),
    **{name: parsed("any_path") for name in KEY_FILES},
    **dict.fromkeys(
        ARGUMENTS,
        parsed("shell_words"),
    ),
    **dict.fromkeys(("ansible_scp_executable", "ansible_sftp_executable", "ansible_ssh_executable"), parsed("program")),
}  # fmt: skip
#: What Ansible says of a value that is encrypted with another password, and of facts that were not gathered.
_UNDECRYPTABLE = re.compile("(?i)undecryptable|decryption failed")
_SYNTAX = re.compile("(?i)syntax error in template")
_FACT = re.compile(
    r"'ansible_\w+' is undefined|'dict' has no attribute '(?:default_ipv[46]|hostname|fqdn|distribution\w*|mem\w+_mb|processor\w*)'"
)
#: Other words of Ansible that do not say what is wrong, and those that do.
_WORDS = (
    (r"^\W*hostvars\['([^']+)'\]\W*$", r"the inventory has no host \1"),
    (r"Type 'Undefined' is unsupported", "one of its templates results in nothing, as an if without an else"),
    (r"resolved to an Omit", "omit leaves out an argument of a task, not a variable; remove the line instead"),
    (r"Recursive loop detected", "it is made of itself"),
)
#: Values of these kinds are shown whatever their variable is called.
OPEN = {"list", "vault_name", "file", "any_path", "boolean"}


def given_problems(given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with variables of a connection after -e, by which Ansible would refuse the task that checks all others."""
    # A template is the run's to resolve.
    values = {name: value for name, value in given.items() if "{{" not in str(value)}
    found = {name: _connection_problem(name, values[name]) for name in CONNECTION if name in values}
    found |= {name: plugin_problem(name, values[name]) for name in PLUGINS if name in values}
    return [f"{name}{wrong}; correct it after -e" for name, wrong in found.items() if wrong]


def _connection_problem(name: str, value: Any) -> str | None:
    """Return what follows the name of a variable of a connection in a sentence about its value, or None."""
    return None if value is None and name in ARGUMENTS else input_checks.form_problem(CONNECTION[name], value)


class Given(NamedTuple):
    """What a run was started with.

    Attributes:
        playbook: Name of the playbook; "" where it is not one of Slipway's.
        variables: Values given with -e, as Ansible has read them.
        texts: The same as the command line has them.
        tags: Tags that were asked for; "all" for every task.
        own_tags: Tags that the check's task has, such as those of a playbook that imports one of Slipway's.
        sources: Inventories.
    """

    playbook: str = ""
    variables: Mapping[str, Any] = {}
    texts: tuple[str, ...] = ()
    tags: tuple[str, ...] = ("all",)
    own_tags: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def selects_tasks(self) -> bool:
        """Return whether the tags select tasks without tags of their own, and not only those that always run, such as the check."""
        imported = set(self.own_tags) - {"always"}
        return bool({"all", *(imported | {"tagged"} if imported else {"untagged"})} & set(self.tags))


class Inputs:
    """The inputs of all hosts."""

    def __init__(
        self,
        files: RoleFiles,
        roles: Mapping[str, list[str]],
        views: Mapping[str, HostView],
        inventory: str,
        *,
        given: Given | None = None,
        secrets: Collection[str] = (),
        hidden: Iterable[Any] = (),
    ) -> None:
        """Take what there is to look at.

        Args:
            files: The roles' files.
            roles: Roles by host.
            views: Variables by host.
            inventory: Folder of the inventory, for messages.
            given: What the run was started with.
            secrets: Variables that must hold a secret.
            hidden: Values that no message shows.
        """
        self._files, self._roles, self._views, self._inventory = files, roles, views, inventory
        self._given = given or Given()
        self._secrets, self._hidden = list(secrets), list(hidden)
        every = {RUNNER, *(role for names in roles.values() for role in names)}
        self._specs = {role: files.inputs(role) for role in sorted(every)}
        self._forms = {role: files.forms(role) for role in self._specs}
        self._shared = shared_forms()
        self._playbooks = playbook_forms()
        self._renamed = renamed_variables()
        self._internal = internal_variables()
        self._defaults = files.shared()

    # What stops a run at once, as everything else follows from it

    def first_problems(self, *, needs_shared: bool) -> list[Problem]:
        """Return what keeps all other checks from saying anything useful.

        Args:
            needs_shared: Whether the run needs the variables that environments share.
        """
        if not self._given.selects_tasks():
            selected = f"--tags {','.join(self._given.tags)} selects no task but this check"
            return [Problem("", f"{selected}: Slipway's tasks have no tags; leave it out, or use --limit for some hosts")]
        if not self._views:
            sources = ", ".join(self._given.sources) or "none was given"
            return [Problem("", f"the inventory ({sources}) has no host; give the folder of an environment, as -i inventories/prod")]
        if needs_shared and not any("slipway_secrets" in view for view in self._views.values()):
            return [
                Problem(
                    "",
                    "slipway_secrets is not set for any host, so the variables that all environments share were not read; run the "
                    "playbooks of the collection, and give the file or folder of an environment, as -i inventories/prod",
                )
            ]
        return []

    # Names

    def name_problems(self) -> list[Problem]:
        """Return what is wrong with the names of variables, those given with -e too."""
        by_prefix = self._files.known_names()
        known = KnownNames({name for names in by_prefix.values() for name in names} | set(self._shared))
        inputs = inputs_of_playbooks()
        arguments = {playbook: {*names, *inputs.get(playbook, ())} for playbook, names in self._playbooks.items()}
        everywhere = KnownNames(known.all.difference(*inputs.values()))
        own = arguments.get(self._given.playbook, set())
        problems = [Problem("", text) for text in command_line_problems(self._given.texts)]
        wrong_arguments = argument_problems(self._given.variables, self._given.playbook, arguments, everywhere, self._is_used)
        problems += [Problem("", text) for text in wrong_arguments]
        reported = {text.partition(" ")[0] for text in wrong_arguments} | own
        seen: dict[str, str] = {}
        problems += self._connection_name_problems()
        for host, view in self._views.items():
            facts = view.raw.get("ansible_facts") or {}
            names = [name for name in view.raw if name not in facts and name not in reported and not name.startswith(NOT_OURS)]
            names = self._without_computed(view, names)
            problems += [
                Problem(host, f"{name} is gone: {self._successor(name)}; correct it{_in(self._place(view, name))}")
                for name in names
                if name not in known.all and self._successor(name)
            ]
            names = [name for name in names if name in known.all or not self._successor(name)]
            problems += preflight.check_names(host, names, by_prefix, self._place_of(view))
            problems += self._steering_problems(host, view, [*by_prefix, *self._playbooks, OF_THIS_CHECK])
            new = [name for name in names if name not in known.all and name not in seen and not _has_prefix(name, by_prefix)]
            seen |= dict.fromkeys(new, "") | near_names(new, known, self._is_used)
            problems += [
                Problem(host, f"{seen[name]}; correct the name{_in(self._place(view, name))}, or give a variable of your own another one")
                for name in names
                if seen.get(name)
            ]
        return problems

    def _without_computed(self, view: HostView, names: list[str]) -> list[str]:
        """Return the names without those that an inventory plugin sets, as those of clouds do: they are of other software.

        Booleans and null bear no mark of where they come from: next to others of a plugin they are its own where no file sets them.
        """
        computed = {name for name in names if name not in self._given.variables and is_computed(view.raw[name])}
        if not computed:
            return names
        unmarked = {name for name in names if view.raw[name] is None or isinstance(view.raw[name], bool)}
        computed |= {name for name in unmarked if not self._place(view, name)}
        return [name for name in names if name not in computed]

    def _connection_name_problems(self) -> list[Problem]:
        """Return the variables whose names are nearly those by which Ansible reaches a host, so that it would reach it otherwise."""
        names: dict[str, list[str]] = {}
        known: set[str] = set()
        for host, view in self._views.items():
            facts = {f"{PREFIX}{name}" for name in view.raw.get("ansible_facts") or {}}
            for name in view.raw:
                if name.startswith(PREFIX) and name not in facts:
                    names.setdefault(name, []).append(host)
            known |= connection_variables({name: _value(view, name) for name in PLUGINS})
        wrong = misspelled(names, known, self._is_used)
        for host, view in self._views.items():
            for name in (name for name in (*KEYWORDS, *OF_HOSTS) if name in view.raw):
                place = self._place(view, name) or ""
                is_given = name in self._given.variables
                next_to_host = not is_given and not re.search("(group|host)_vars/", place) and not is_of_a_group(place, name)
                if (next_to_host or (is_given and name in KEYWORDS)) and (name in wrong or not self._is_used(name)):
                    names.setdefault(name, []).append(host)
                    wrong[name] = f"{name} is not a variable that Ansible reads (did you mean {PREFIX}{name}?)"
        return [
            Problem(
                host,
                f"{text}; correct the name{_in(self._place(self._views[host], name))}, or give a variable of your own another one",
            )
            for name, text in wrong.items()
            for host in names[name]
        ]

    def _steering_problems(self, host: str, view: HostView, prefixes: Iterable[str]) -> list[Problem]:
        """Return the variables of a host that only Slipway sets: as its own, or as what it remembers while a run goes on.

        Args:
            host: The host.
            view: Its variables.
            prefixes: What names of the latter begin with, after two underscores.
        """
        found = {name: self._internal[name] for name in view.raw if name in self._internal and self.is_set(view, name)}
        # A run before this one in the same process has left others, which no file sets.
        found |= {
            name: "a run sets it"
            for name in view.raw
            if name.startswith("__") and _has_prefix(name[2:], prefixes) and self._place(view, name)
        }
        return [
            Problem(host, f"{name} is not for an inventory, as {why}; remove it{_in(self._place(view, name))}")
            for name, why in sorted(found.items())
        ]

    def _successor(self, name: str) -> str:
        """Return what a variable of earlier versions has become, or "" for any other name."""
        if name in self._renamed:
            return f"set {self._renamed[name]}"
        found = re.fullmatch(r"app_([a-z]+)_(\w+)", name)
        known = found and found[2] in app_services.known_keys()
        return f"set the key {found[2]} of a service, as {found[1]}, in app_services" if found and known else ""

    def _is_used(self, name: str) -> bool:
        """Return whether a template of the inventory reads a variable."""
        return any(
            name in names_used(value)
            for view in self._views.values()
            for other, value in view.raw.items()
            if other != name and isinstance(value, (str, dict, list)) and other not in ("ansible_facts", "groups", "hostvars")
        )

    # Values

    def argument_problems(self) -> list[Problem]:
        """Return what is wrong with what was given to the playbook."""
        problems = []
        for name, form in self._playbooks.get(self._given.playbook, {}).items():
            if name in self._given.variables:
                value = self._given.variables[name]
                # A template is the run's to resolve.
                wrong = None if "{{" in str(value) else input_checks.form_problem(form, value, secrets=self._hidden)
                problems += [Problem("", f"{name}{wrong}; correct it after -e")] if wrong else []
        return problems

    def connection_problems(self) -> list[Problem]:
        """Return what is wrong with the addresses by which hosts are reached, alone and to each other."""
        connections, addresses, problems = {}, {}, []
        for host, view in self._views.items():
            kind = str(view.value("ansible_connection", "ssh")[0]).removeprefix("ansible.builtin.")
            for name in CONNECTION:
                value, error = view.value(name)
                # What is not set here may be set in the play that connects, and Ansible says itself what is missing.
                wrong = _connection_problem(name, value) if name in view and not error else None
                if not wrong and name in KEY_FILES and value and kind != "local":
                    wrong = key_problem(str(value))
                problems += [Problem(host, f"{name}{wrong}; {self._remedy(view, name)}")] if wrong else []
            for name, problem_of in (*dict.fromkeys(PLUGINS, plugin_problem).items(), *dict.fromkeys(KEYS, key_text_problem).items()):
                value, error = view.value(name)
                wrong = problem_of(name, value) if name in view and not error else ""
                problems += [Problem(host, f"{name}{wrong}; {self._remedy(view, name)}")] if wrong else []
            if kind != "local":
                address = view.value("ansible_host", host)[0] or host
                port = view.value("ansible_port", "22" if kind == "ssh" else "")[0]
                connections[host] = (kind, str(address), str(port))
            private, _error = view.value("slipway_address")
            if private:
                addresses[host] = str(private)
        members = {host: address for host, address in addresses.items() if self._roles.get(host)}
        # Its form reports what cannot be a name either.
        chosen = [host for host, address in members.items() if self.is_set(self._views[host], "slipway_address") and is_dns_name(address)]
        problems += input_checks.check_addresses(members, lambda host: self._place(self._views[host], "slipway_address"), chosen)
        problems += self._mesh_problems(members)
        problems += [
            problem
            for host, address in members.items()
            if len(members) > 1
            for problem in self._publish_problems(host, str(_value(self._views[host], "slipway_service_address") or address))
        ]
        return problems + preflight.check_connections(connections, addresses)

    def _mesh_problems(self, members: Iterable[str]) -> list[Problem]:
        """Return what is wrong with the mesh: all hosts are in it or none, and each has an address of its own in the one range."""
        views = {host: self._views[host] for host in members}
        switches = {host: boolean(_value(view, "slipway_mesh") or False, strict=False) for host, view in views.items()}
        if not any(switches.values()) or len(switches) < 2:
            return []
        off = [host for host, switch in switches.items() if not switch]
        ranges = {str(_value(view, "slipway_mesh_range")) for view in views.values()}
        if off:
            return [Problem(host, "slipway_mesh is false, and true for others; set it for all hosts, in group_vars/all") for host in off]
        if len(ranges) > 1:
            return [Problem("", f"slipway_mesh_range is {' and '.join(sorted(ranges))}; set one for all hosts, in group_vars/all")]
        (network,) = ranges
        if wrong := mesh.range_problem(network):
            place = _in(self._place(next(iter(views.values())), "slipway_mesh_range"))
            return [Problem("", f"slipway_mesh_range is {network}, {wrong}{place}")]
        return mesh.address_problems(network, {host: str(_value(view, "slipway_service_address")) for host, view in views.items()})

    def _publish_problems(self, host: str, address: str) -> list[Problem]:
        """Return the inputs by which a service listens where its peers do not look for it, and where the firewall does not protect it."""
        view = self._views[host]
        elsewhere = {role: f"{role}_publish_address" for role in self._roles[host]}
        elsewhere = {role: name for role, name in elsewhere.items() if _value(view, name) not in (None, "", address)}
        own = "slipway_address" if address == str(_value(view, "slipway_address")) else "slipway_mesh_address"
        for_peers = {port["role"] for port in (_value(view, "slipway_published_ports") or [])} if elsewhere else set()
        return [
            Problem(
                host,
                f"{name} is {_value(view, name)}, but other hosts connect to {address}, and the "
                f"firewall protects that one: remove {name}{_in(self._place(view, name))}, or set {own}",
            )
            for role, name in sorted(elsewhere.items())
            if role in for_peers
        ]

    def missing_secret(self, host: str, name: str) -> Problem:
        """Return the problem that a secret is not set."""
        how = self._in_manager(host, "add a key of that name") or (
            f"run `ansible-playbook playbooks/secrets.yml -i {self._inventory}`, which generates it"
        )
        without = "; or set slipway_mesh: false, if the network between the hosts is private (docs/mesh.md)" if name == MESH_SECRET else ""
        return Problem(host, f"{secret_problem(None)}; {how}{without}", name)

    def _in_manager(self, host: str, what: str) -> str:
        """Return what to do where the secrets of an environment are kept outside it, or "" where a vault file has them."""
        source = _value(self._views[host], secret_sources.SOURCE) or secret_sources.VAULT
        return "" if source == secret_sources.VAULT else f"{what} to what slipway_secrets_{source} reads"

    def required_problems(self) -> list[Problem]:
        """Return the inputs that a role cannot do without and that are not set."""
        return [
            Problem(host, f"{name} is required by role {role} and not set; {self._remedy(view, name)}")
            for host, view in self._views.items()
            for role in self._roles[host]
            for name, spec in self._specs[role].items()
            if name not in view and spec.get("required") and "default" not in spec
        ]

    def value_problems(self, reported: Collection[str]) -> list[Problem]:
        """Return what is wrong with the values that the inventory sets, alone and to each other.

        Args:
            reported: Variables whose problem has a line already.
        """
        wrong = {host: self._wrong_values(host, view) for host, view in self._views.items()}
        sources = {host: view.sources for host, view in self._views.items()}
        return preflight.causes(wrong, sources, reported) or self._together()

    def _wrong_values(self, host: str, view: HostView) -> dict[str, Problem]:
        """Return, by variable, what is wrong with the values that the inventory sets.

        A secret that only some hosts know is for the roles there to ask for.
        """
        found = {
            name: Problem(host, f"{name} {why_no_value(error)}{_in(self._place(view, name))}")
            for name, error in self._undecryptable(host, view).items()
        }
        for name in (name for name in self._secrets if name in view and name not in found):
            value, error = view.value(name)
            wrong = why_no_value(error) if error else secret_problem(value)
            if wrong and value is None and not error:
                found[name] = self.missing_secret(host, name)
            elif wrong:
                place = self._place(view, name) or f"{self._inventory}/group_vars/all/vault.yml"
                how = self._in_manager(host, "give it 32 random characters or more and add it") or (
                    f"give it 32 random characters or more in {place}, or remove its line and run playbooks/secrets.yml"
                )
                found[name] = Problem(host, f"{name} {wrong}; {how}")
        for role in (*self._roles[host], RUNNER):
            for name, spec in self._specs[role].items():
                # What stands as all environments share it is wrong by what it is made of alone.
                if name not in found and self.is_set(view, name):
                    wrong = self._wrong_value(host, view, name, spec, self._forms[role].get(name))
                    if wrong:
                        found[name] = Problem(host, wrong)
        for name, form in self._shared.items():
            if name in view and self.is_set(view, name):
                wrong = self._wrong_value(host, view, name, {"type": "raw"}, form)
                if wrong:
                    found[name] = Problem(host, wrong)
        return found

    def _undecryptable(self, host: str, view: HostView) -> dict[str, str]:
        """Return why secrets cannot be decrypted: those that Slipway reads, as what is made of one cannot be evaluated either.

        Others may be encrypted with another password, for other playbooks.
        """
        secrets = [name for name in view.raw if name.startswith(secret_sources.PREFIX)]
        errors = {name: error for name in secrets if _UNDECRYPTABLE.search(error := view.value(name)[1])}
        if not errors:
            return {}
        ours = {*self._secrets, *self._shared, *(name for role in (*self._roles[host], RUNNER) for name in self._specs[role])}
        ours |= {name for name in view.raw if name.startswith(PREFIX) and name != "ansible_facts"}
        read = ours.union(*(view.sources(name) for name in ours))
        return {name: error for name, error in errors.items() if name in read}

    def is_set(self, view: HostView, name: str) -> bool:
        """Return whether the inventory sets a variable to something else than what all environments share."""
        # For Python 6379.0 is 6379, and true is 1.
        value, default = view.raw.get(name), self._defaults.get(name)
        return name in view and not (name in self._defaults and value == default and repr(value) == repr(default))

    def _wrong_value(self, host: str, view: HostView, name: str, spec: Mapping[str, Any], form: Form | None) -> str:
        """Return what is wrong with an input that the inventory sets, and what to do, or ""."""
        value, error = view.value(name)
        if error:
            return self._not_evaluated(host, view, name, error)
        wrong = self._wrong_form(name, value, spec, form)
        return f"{name}{wrong}; {self._remedy(view, name, wrong)}" if wrong else ""

    def _not_evaluated(self, host: str, view: HostView, name: str, error: str) -> str:
        """Return which members of a variable cannot be evaluated, each with why, where it is and what to do.

        Args:
            host: The host.
            view: Its variables.
            name: The variable.
            error: Why all of it cannot.
        """
        found = list(view.failing(name)) or [("", None, error)]
        texts = []
        for path, place, why in found[: input_checks.MOST_LISTED]:
            where = place or self._place(view, name)
            missing = re.search(r"'(vault_\w+)' is undefined", why)
            how = preflight.remedy(where, self._inventory)
            if name in self._given.variables:
                how = self._remedy(view, name)
            elif missing:
                key = missing[1]
                how = self._in_manager(host, f"add a key {key}") or f"add {key} with `ansible-vault edit {self._inventory}/{VAULT_FILE}`"
                how += f", for {where}" if where else ""
            elif _SYNTAX.search(why):
                how = f"correct it{_in(where)}, or write !unsafe before the value if its braces are not Ansible's"
            texts.append(f"{name}{path} {why_no_value(why)}; {how}")
        more = len(found) - len(texts)
        return "; ".join(texts) + (f"; and {more} more" if more else "")

    def _wrong_form(self, name: str, value: Any, spec: Mapping[str, Any], form: Form | None) -> str | None:
        """Compare an input with its form and specification; return what follows its name in a sentence, or None."""
        secret = preflight.is_hidden(name, spec) and not (form and OPEN.issuperset(kinds(form)))
        if form:
            found = input_checks.form_problem(
                form, value, secret=secret, secrets=self._hidden, changed=changed_by_yaml, where=lambda key: _bracketed(place_of(key))
            )
            if found:
                return found
        if spec.get("type") == "raw":
            return None
        errors = ArgumentSpecValidator({name: spec}).validate({name: value}).error_messages
        wrong = preflight.value_problem(name, spec, value, errors, self._hidden)
        if wrong is None and preflight.is_secret_input(name, spec) and value != spec.get("default"):
            wrong = secret_problem(value)
        return wrong and f" {wrong}"

    def _together(self) -> list[Problem]:
        """Return what is wrong with inputs of a host to each other."""
        problems = []
        for host, view in self._views.items():
            forms = {name: form for role in self._roles[host] for name, form in self._forms[role].items()}
            get, is_set = partial(_value, view), partial(self.is_set, view)
            if is_set(extra_services.VARIABLE):
                forms[extra_services.VARIABLE] = self._shared[extra_services.VARIABLE]
            found = input_checks.check_together(forms, get, is_set)
            if extra_services.VARIABLE in forms:
                runner = next(service for service in services() if service.role == EXTRA_SERVICES)
                check = partial(input_checks.check_extra_services, get, runner.groups, role_folders())
                found += input_checks.attempted(check, [extra_services.VARIABLE])
            found += input_checks.check_hosts({**self._shared, **forms}, get, is_set, {*self._views, "localhost"})
            problems += [Problem(host, f"{name} {text}{_in(self._place_of_any(view, name, text))}") for name, text in found]
            problems += input_checks.check_alike(host, {name: view.value(name)[0] for name in self._secrets if name in view})
        return problems or self._in_clear_text()

    def _in_clear_text(self) -> list[Problem]:
        """Return the secrets that files of the inventory hold without encryption; none for the playbook that encrypts the vault file."""
        if self._given.playbook == "secrets":
            return []
        problems: list[Problem] = []
        files: dict[Path, dict[str, None]] = {}
        # An alias of YAML has the place of its anchor.
        first: dict[tuple[Path, int | None, str], str] = {}
        vault = f"{self._inventory}/{VAULT_FILE}"
        for host, view in self._views.items():
            forms = {name: form for role in self._roles[host] for name, form in self._forms[role].items()} | self._shared
            for name, raw in view.raw.items():
                if name in self._given.variables:
                    continue
                if name.startswith(secret_sources.PREFIX) and (place := in_clear_text(raw)):
                    files.setdefault(place[0], {})[name] = None
                elif name in forms and self.is_set(view, name):
                    for path, value in secret_members(forms[name], raw, name):
                        place = in_clear_text(value)
                        if place and first.setdefault((*place, "" if place[1] else path), path) == path:
                            new = vault_name(path)
                            how = self._in_manager(host, f"add it as {new}") or f"add it as {new} with `ansible-vault edit {vault}`"
                            where = f"{near(place[0])}:{place[1]}" if place[1] else str(near(place[0]))
                            problems.append(Problem(host, f'{path} is in clear text in {where}; {how}, and set "{{{{ {new} }}}}" here'))
        for file, names in files.items():
            how = f"move such values to {vault} with `ansible-vault edit`"
            if file.match(str(VAULT_FILE)):
                how = f"run `ansible-playbook playbooks/secrets.yml -i {self._inventory}`, which encrypts it"
            problems.append(Problem("", f"{near(file)} holds {some_of(list(names))} in clear text; {how}"))
        return problems

    # Where

    def _place(self, view: HostView, name: str) -> str | None:
        """Return where a variable is set, or None where that is not known."""
        if name in self._given.variables:
            return "the value after -e"
        # Files are read in the order of their names, so the last one holds.
        return view.place(name) or next(iter(places(Path(self._inventory), name)[::-1]), None)

    def _place_of_any(self, view: HostView, name: str, text: str) -> str | None:
        """Return where one of the inputs that a problem is about is set, itself first; of a member, its first key that it names."""
        variable, *keys = name.split(".")
        described = view.raw.get(variable)
        for key in keys:
            described = described.get(key) if isinstance(described, Mapping) else None
        named = [word for word in re.findall(r"[\w-]+", text) if isinstance(described, Mapping) and word in described]
        if (keys or named) and variable not in self._given.variables and (found := view.place(".".join([name, *named[:1]]))):
            return found
        names = sorted([variable, *re.findall(r"[a-z]\w+", text)], key=lambda other: not self.is_set(view, other))
        return next((place for place in (self._place(view, other) for other in names if other in view) if place), None)

    def _place_of(self, view: HostView) -> Any:
        return lambda name: self._place(view, name)

    def _remedy(self, view: HostView, name: str, wrong: str = "") -> str:
        """Say where to set a variable, and how where what is wrong with it is that it is a string."""
        if name in self._given.variables:
            is_string = isinstance(self._given.variables[name], str) and wrong.endswith((" must be a list", " must be a dictionary"))
            return f"after -e, name=value is a string: write -e '{{\"{name}\": …}}' in JSON" if is_string else "correct it after -e"
        return preflight.remedy(self._place(view, name), self._inventory)

    def problems(self, groups: list[Problem], *, needs_shared: bool, target: Iterable[Problem] = ()) -> list[Problem]:
        """Return all problems.

        Args:
            groups: What is wrong with the groups.
            needs_shared: Whether the run needs the variables that environments share.
            target: What is wrong with the hosts that the run reaches.
        """
        first = self.first_problems(needs_shared=needs_shared) or list(target)
        if first:
            return first
        set_on_no_host = {name for name in self._secrets if not any(name in view for view in self._views.values())}
        # Without a group, what derives from the groups is not set; without a secret, what holds it. Both have a line already.
        reported = set_on_no_host | ({"groups"} if groups else set())
        problems = [*groups, *self.connection_problems(), *self.name_problems(), *self.argument_problems()]
        problems += [self.missing_secret(host, name) for host in self._views for name in self._secrets if name in set_on_no_host]
        return problems + self.required_problems() + self.value_problems(reported)


def why_no_value(error: str) -> str:
    """Return what follows a variable's name where its value cannot be had, with what to do where Ansible's words do not say it."""
    if _UNDECRYPTABLE.search(error):
        return f"cannot be decrypted with the vault password of this run; {GIVE_PASSWORD}, or encrypt it again"
    for pattern, words in _WORDS:
        if found := re.search(pattern, error):
            return f"cannot be evaluated: {found.expand(words)}"
    hint = " (hosts are not asked for facts: give the value itself)" if _FACT.search(error) else ""
    return f"cannot be evaluated: {error}{hint}"


def _value(view: HostView, name: str) -> Any:
    """Return a variable's value; None where it has none."""
    return view.value(name)[0]


def _bracketed(place: str | None) -> str:
    """Return " (<place>)" or ""."""
    return f" ({place})" if place else ""


def _in(place: str | None) -> str:
    """Return " in <place>" or ""."""
    return f" in {place}" if place else ""


def _has_prefix(name: str, prefixes: Iterable[str]) -> bool:
    """Return whether a name begins as those of a role do, which has been looked at."""
    return any(name.startswith(f"{prefix}_") for prefix in prefixes)
