# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a command outside of tasks becomes root on a host, as tasks do there. On the controller."""

from __future__ import annotations

import shlex
import typing as t
from collections.abc import Mapping, Sequence

from ansible import constants as C
from ansible import context
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.loader import become_loader


class BecomeError(Exception):
    """A command cannot become root; the message says what to set."""


class Become(t.NamedTuple):
    """How a host's tasks become root."""

    #: The plugin's name without its collection; "" where tasks run as the user who connects.
    method: str = ""
    #: The program that it calls.
    program: str = ""
    #: "" where none is asked for.
    password: str = ""


def become_of(host: str, hostvars: Mapping[str, t.Any], play_context: t.Any) -> Become:
    """Return how a host's tasks become root: by its variables, or else by the command line, ansible.cfg and the environment.

    Args:
        host: The host.
        hostvars: The variables of all hosts.
        play_context: That of the task or play, which has the password of --ask-become-pass.

    Raises:
        BecomeError: there is no such method.
    """
    variables = hostvars[host]
    given = variables.get("ansible_become")
    if not boolean(context.CLIARGS.get("become", C.DEFAULT_BECOME) if given is None else given, strict=False):
        return Become()
    name = str(variables.get("ansible_become_method") or context.CLIARGS.get("become_method") or C.DEFAULT_BECOME_METHOD)
    plugin = become_loader.get(name)
    if plugin is None:
        raise BecomeError(f"ansible_become_method is {name}, which Ansible does not have; correct it")
    known = C.config.get_plugin_vars("become", plugin._load_name)  # noqa: SLF001 - as Ansible's own callers do
    keywords = {"become_pass": getattr(play_context, "become_pass", None) or None}
    plugin.set_options(task_keys=keywords, var_options={key: variables[key] for key in known if key in variables})
    method = name.rpartition(".")[2]
    return Become(method, str(plugin.get_option("become_exe") or method), str(plugin.get_option("become_pass") or ""))


def in_terminal(become: Become, argv: Sequence[str]) -> list[str]:
    """Return the command that runs another one as root, and asks for a password in its terminal where one is needed.

    Raises:
        BecomeError: the method has no such command.
    """
    return _as_root(become, argv)


def unattended(become: Become, argv: Sequence[str]) -> list[str]:
    """Return the command that runs another one as root, and fails where a password is needed.

    Raises:
        BecomeError: a password is needed, or the method has no such command.
    """
    if become.method and become.password:
        raise BecomeError(f"{become.method} needs a password there, which only a task can give; allow the user to use sudo without one")
    return _as_root(become, argv, "-n")


def with_password(become: Become, argv: Sequence[str]) -> tuple[list[str], str]:
    """Return the command that runs another one as root, and what it reads from its standard input.

    Raises:
        BecomeError: the method takes a password from a terminal alone, or has no such command.
    """
    if not become.method or not become.password:
        return unattended(become, argv), ""
    if become.method != "sudo":
        raise BecomeError(f"{become.method} takes a password from a terminal only; set ansible_become_method: sudo, or connect as root")
    return _as_root(become, argv, "-S", "-p", ""), f"{become.password}\n"


def _as_root(become: Become, argv: Sequence[str], *options: str) -> list[str]:
    """Return the command of a method; the options are those of sudo, of which doas has the same."""
    if not become.method:
        return [*argv]
    if become.method in ("sudo", "doas"):
        return [*shlex.split(become.program), *options, "--", *argv]
    if become.method == "su":
        return [*shlex.split(become.program), "root", "-c", shlex.join(argv)]
    raise BecomeError(f"ansible_become_method is {become.method}, and this needs sudo, doas or su")
