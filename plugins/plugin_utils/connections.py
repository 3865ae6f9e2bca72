# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to hosts: those that are not a task's own, and what keeps one from being made. On the controller."""

from __future__ import annotations

import os
import re
import typing as t
from pathlib import Path

from ansible import constants as C
from ansible.plugins.loader import connection_loader

from ansible_collections.slipway.stack.plugins.plugin_utils.tunnel import TunnelError

#: Variables that name the file of a private key.
KEY_FILES = ("ansible_ssh_private_key_file", "ansible_private_key_file")
#: Variables that hold a private key itself.
KEYS = ("ansible_ssh_private_key", "ansible_private_key")
_PLACE = "{address} port {port}"
#: What ssh says, what it means, the variables that are at fault, and what else helps. The first that fits counts.
_Cause = tuple[str, str, tuple[str, ...], str]
_UNREACHABLE: tuple[_Cause, ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        f"the host key of {_PLACE} is not the one in known_hosts: the host was installed again, or another machine answers",
        ("ansible_host", "ansible_port"),
        "or check its fingerprint on its console and remove the old key by `ssh-keygen -R '[{address}]:{port}'`",
    ),
    (
        r"Host key verification failed|No \S+ host key is known",
        f"the host key of {_PLACE} is not known",
        ("ansible_host", "ansible_port"),
        "or connect once by `ssh -p {port} {user}@{address}` and compare the fingerprint with that on its console",
    ),
    (
        r"Could not resolve hostname",
        "no address is known for the name {address}",
        ("ansible_host",),
        "or add the name to DNS or /etc/hosts",
    ),
    (
        r"Connection refused",
        f"nothing listens on {_PLACE}",
        ("ansible_host", "ansible_port"),
        "or start sshd there",
    ),
    (
        r"timed out|No route to host|Network is unreachable|Operation not permitted",
        f"{_PLACE} does not answer",
        ("ansible_host", "ansible_port"),
        "or start the host, or allow the controller in its firewall",
    ),
    (
        r"kex_exchange_identification|banner exchange|Bad packet length|Connection closed by|Connection reset",
        f"what answers on {_PLACE} ends the connection, as a program does that is not sshd",
        ("ansible_host", "ansible_port"),
        "or look at the log of sshd there",
    ),
    (
        r"Permission denied|Too many authentication failures|Load key ",
        "the host does not accept {user} with this key",
        ("ansible_user", *KEY_FILES[:1]),
        "or add the public key to ~/.ssh/authorized_keys of {user} there",
    ),
    (
        # Ansible drops what ssh reported where ssh stops reading and has not exited a millisecond later.
        r"Data could not be sent to remote host",
        f"ssh to {_PLACE} ended before it took the task, and Ansible does not know why",
        ("ansible_host", "ansible_port"),
        "or run `ssh -p {port} {user}@{address}`, which says why",
    ),
)
#: The same of a host that is reached, where nothing can be run.
_REACHED: tuple[_Cause, ...] = (
    (
        r"(?i)incorrect (sudo )?password|sorry, try again",
        "sudo does not accept this password of {user} there",
        ("ansible_become_password",),
        "or the password that --ask-become-pass or --become-password-file gives",
    ),
    (
        r"(?i)sudo: .*(password|not allowed)|(missing|incorrect) sudo password|sudoers|may not run sudo|escalation prompt",
        "{user} may not become root there without a password",
        ("ansible_user",),
        "or allow it by `{user} ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d, or give the password by --ask-become-pass",
    ),
    (r"Error processing keyword 'port'", "{port} is not a port", ("ansible_port",), "an integer from 1 to 65535"),
    (
        r"interpreter \S+ was not found|result deserialization failed",
        "{interpreter} does not exist there or is not Python",
        ("ansible_python_interpreter",),
        "or install python3 there",
    ),
)


def connection_problem(
    text: str, value: t.Callable[[str], t.Any], place: t.Callable[[str], str | None], *, reached: bool = False
) -> str | None:
    """Return what keeps a host from being reached and what to do, or None where an error is about something else.

    Args:
        text: The error, as ssh, sudo or Ansible wrote it.
        value: Returns the value of a variable of the host; None where it has none.
        place: Returns where a variable is set, where that is known.
        reached: Whether the host was reached.
    """
    for pattern, cause, variables, further in _REACHED if reached else _UNREACHABLE:
        if re.search(pattern, text):
            words = {
                "address": value("ansible_host") or value("inventory_hostname"),
                "port": value("ansible_port") or 22,
                "user": value("ansible_user") or "the user of the controller",
                "interpreter": value("ansible_python_interpreter") or C.INTERPRETER_PYTHON,
            }
            named = [f"{name} ({where})" if (where := place(name)) else name for name in variables]
            return f"{cause.format(**words)}; correct {' or '.join(named)}, {further.format(**words)}"
    return None


def key_problem(path: str) -> str | None:
    """Return what follows the name of a variable that names the file of a private key, or None where ssh can use the file."""
    file = Path(path).expanduser()
    try:
        begin, mode = file.read_bytes()[:64], file.stat()
    except OSError as error:
        return f" is {path}, which cannot be read ({error.strerror})"
    if re.match(rb"(ssh|ecdsa|sk)-", begin):
        return f" is {path}, which holds the public key; name the file of the private one"
    if not begin.startswith(b"-----BEGIN ") and not begin.startswith(b"PuTTY"):
        return f" is {path}, which holds no private key"
    if mode.st_uid == os.getuid() and mode.st_mode & 0o077:
        return f" is {path}, which others may read, so that ssh does not use it; run chmod 600 {path}"
    return None


def key_text_problem(name: str, value: object) -> str:
    """Return what follows the name of a variable that holds no private key, mostly because it names the file of one; "" where it does."""
    holds = not value or (isinstance(value, str) and value.lstrip().startswith("-----BEGIN "))
    return "" if holds else f" holds no private key; set {name}_file where it is the name of a file"


def connection_to(host: str, hostvars: t.Mapping[str, t.Any], play_context: t.Any) -> t.Any:
    """Return an SSH connection to another host than the task's, as its inventory variables describe it.

    Raises:
        TunnelError: there is no such host.
    """
    if host not in hostvars:
        raise TunnelError(f"the inventory has no host {host!r}")
    variables = hostvars[host]
    names = C.config.get_plugin_vars("connection", "ssh")
    connection = connection_loader.get("ansible.builtin.ssh", play_context, os.devnull)
    connection.set_options(var_options={name: variables[name] for name in {*names, "inventory_hostname"} if name in variables})
    return connection
