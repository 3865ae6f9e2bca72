# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of Ansible's own variables: those that say how a host is reached, and what a misspelled one was meant for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import ansible
from ansible import constants as C
from ansible.plugins.loader import become_loader, connection_loader, shell_loader
from ansible.utils.collection_loader import AnsibleCollectionConfig

from ansible_collections.slipway.stack.plugins.plugin_utils.input_names import KnownNames

PREFIX = "ansible_"
PYTHON = "ansible_python_interpreter"
#: Variables that name a plugin of Ansible, with what has these, and the usual one.
PLUGINS = {
    "ansible_connection": (connection_loader, "ssh"),
    "ansible_become_method": (become_loader, "sudo"),
    "ansible_shell_type": (shell_loader, "sh"),
}
#: Kinds of plugins whose options variables of a host set.
KINDS = ("connection", "become", "shell", "cliconf", "httpapi", "netconf")
#: Keywords of plays and options of ssh, which are such a mistake next to a host in its hosts file and after -e. Other roles may read them.
KEYWORDS = (
    "become", "become_method", "become_pass", "become_password", "become_user", "connection", "private_key_file", "python_interpreter",
    "ssh_common_args", "ssh_host", "ssh_pass", "ssh_port", "ssh_private_key_file", "ssh_user",
)  # fmt: skip
#: Further ones, which are such a mistake next to a host alone.
OF_HOSTS = ("host", "password", "port", "timeout", "user")
#: What Ansible sets for each task, so that another value is left out, or steers a run.
MAGIC = {
    *(name for name in C.INTERNAL_STATIC_VARS if name.startswith((PREFIX, "inventory_"))), "ansible_check_mode", "group_names", "groups",
    "hostvars", "playbook_dir",
} - {"ansible_facts"}  # fmt: skip
#: What templates call: one that is hidden by a variable fails.
FUNCTIONS = ("dict", "lookup", "namespace", "now", "omit", "q", "query", "range", "undef")
#: A variable of an option in a plugin's documentation.
_DOCUMENTED = re.compile(r"\bname: *[\"']?(ansible_\w+)")
_INTERPRETER = re.compile(r"ansible_(\w+)_interpreter")
#: Interpreters whose names are nearly Python's.
_LIKE_PYTHON = ("bpython", "cython", "ipython", "jython", "python", "pypy")


def plugin_problem(name: str, value: object) -> str:
    """Return what follows the name of a variable that names no plugin of Ansible, or "" where it does."""
    loader, usual = PLUGINS[name]
    found = isinstance(value, str) and value and loader.find_plugin(value)
    return "" if found else f" is {value!r}, must be a plugin of Ansible, as {usual}"


def connection_variables(values: Mapping[str, object]) -> set[str]:
    """Return the variables that the plugins by which a host is reached read, as their documentation has them.

    Args:
        values: The host's values of the variables that name such plugins, where it has one.
    """
    found = {*C.COMMON_CONNECTION_VARS, *PLUGINS, PYTHON}
    found.update(name for names in C.MAGIC_VARIABLE_MAPPING.values() for name in names)
    for variable, (loader, usual) in PLUGINS.items():
        for plugin in dict.fromkeys((usual, str(values.get(variable) or usual))):
            if loaded := loader.get(plugin, class_only=True):
                found.update(C.config.get_plugin_vars(loader.type, loaded._load_name))  # noqa: SLF001 - no public name
    return {name for name in found if name.startswith(PREFIX)}


def installed_variables() -> set[str]:
    """Return the variables that any installed plugin of these kinds documents, and the names of facts.

    Its files are searched, not loaded: some need libraries that are not there, and warn.
    """
    # Imports some sixty modules.
    from ansible.module_utils.facts.default_collectors import collectors

    found = {f"{PREFIX}{name}" for collector in collectors for name in (collector.name, *collector._fact_ids)}  # noqa: SLF001 - no public name
    folders = [Path(ansible.__file__).parent / "plugins"]
    for path in AnsibleCollectionConfig.collection_paths:
        folders += Path(path, "ansible_collections").glob("*/*/plugins")
    for folder in folders:
        for kind in (*KINDS, "doc_fragments"):
            for file in (folder / kind).glob("**/*.py"):
                found.update(_DOCUMENTED.findall(file.read_text(encoding="utf-8", errors="replace")))
    return found


def reserved_problem(name: str) -> str:
    """Return what is wrong with the name of a variable that Ansible or its templates have for something else, or ""."""
    if name in FUNCTIONS:
        return f"{name} is a function of templates, which a variable of this name hides from Slipway's; rename it"
    if name in MAGIC:
        return f"{name} is set by Ansible itself, so that this value is left out; remove or rename it"
    if name == "vars":
        return "vars is only a part of a group in a hosts file; in a file of variables, write what is below it without vars"
    return ""


def misspelled(names: Iterable[str], connection: Collection[str], is_used: Callable[[str], bool]) -> dict[str, str]:
    """Return what is wrong with variables whose names are nearly those of Ansible's connections, by name.

    Args:
        names: Variables that an inventory sets.
        connection: Variables that say how its hosts are reached.
        is_used: Returns whether a template of the inventory reads a variable: then it is one of the user's own.
    """
    known = KnownNames(connection)
    meant = {name: near[0] for name in names if name.startswith(PREFIX) and (near := known.near(name)) and not _is_interpreter(name)}
    meant = {name: other for name, other in meant.items() if not is_used(name)}
    # Reading the files of all plugins takes a while.
    real = installed_variables() if meant else ()
    return {name: f"{name} is not a variable of Ansible (did you mean {other}?)" for name, other in meant.items() if name not in real}


def _is_interpreter(name: str) -> bool:
    """Return whether a variable names the interpreter of modules in some language, which may be any."""
    found = _INTERPRETER.fullmatch(name)
    language = found[1].rstrip("0123456789_") if found else ""
    return bool(found) and (language in _LIKE_PYTHON or not KnownNames(["python"]).near(language))
