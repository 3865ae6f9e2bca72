# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands outside of tasks become root as tasks do, whichever way the operator has set it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import context
from ansible.utils.context_objects import CLIArgs

from ansible_collections.slipway.stack.plugins.plugin_utils import history
from ansible_collections.slipway.stack.plugins.plugin_utils.become import (
    Become,
    BecomeError,
    become_of,
    in_terminal,
    unattended,
    with_password,
)

ARGV = ["sh", "-c", "echo $1 'x y'"]
ASKED = SimpleNamespace(become_pass="asked")

#: A sudo that takes the password "secret" from its standard input, or none with -n, and notes what it runs.
FAKE_SUDO = """#!/bin/sh
refuse() { echo "sudo: $1" >&2; exit 1; }
while :; do
  case $1 in
    -p) printf %s "$2" >&2; shift 2 ;;
    -u) shift 2 ;;
    -n) refuse "a password is required" ;;
    --) shift; break ;;
    -*) shift ;;
    *) break ;;
  esac
done
echo "$*" >> "$0.calls"
IFS= read -r password
[ "$password" = secret ] || refuse "1 incorrect password attempt"
exec "$@"
"""


@pytest.fixture
def sudo(tmp_path: Path) -> str:
    path = tmp_path / "sudo"
    path.write_text(FAKE_SUDO)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("variables", "options", "play_context", "found"),
    [
        ({}, {}, None, Become()),
        ({"ansible_become": False}, {"become": True}, ASKED, Become()),
        ({"ansible_become": "no", "ansible_become_method": "su"}, {}, None, Become()),
        ({"ansible_become": True}, {}, None, Become("sudo", "sudo")),
        # --become, or become in ansible.cfg.
        ({}, {"become": True, "become_method": "sudo"}, None, Become("sudo", "sudo")),
        ({}, {"become": True, "become_method": "su"}, None, Become("su", "su")),
        ({"ansible_become_method": "sudo"}, {"become": True, "become_method": "su"}, None, Become("sudo", "sudo")),
        ({"ansible_become": True, "ansible_become_method": "ansible.builtin.su"}, {}, None, Become("su", "su")),
        ({"ansible_become": True, "ansible_become_exe": "/opt/sudo"}, {}, None, Become("sudo", "/opt/sudo")),
        # --ask-become-pass.
        ({"ansible_become": True}, {}, ASKED, Become("sudo", "sudo", "asked")),
        ({"ansible_become": True, "ansible_become_password": "own"}, {}, ASKED, Become("sudo", "sudo", "own")),
        ({"ansible_become": True, "ansible_become_pass": "own"}, {}, None, Become("sudo", "sudo", "own")),
        ({"ansible_become": True, "ansible_become_method": "su", "ansible_su_pass": "own"}, {}, None, Become("su", "su", "own")),
    ],
)
def test_a_host_says_how_its_tasks_become_root(
    variables: dict[str, Any], options: dict[str, Any], play_context: Any, found: Become, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(context, "CLIARGS", CLIArgs(options))
    assert become_of("one", {"one": variables}, play_context) == found


def test_a_method_that_does_not_exist_is_named():
    with pytest.raises(BecomeError, match="ansible_become_method is sude"):
        become_of("one", {"one": {"ansible_become": True, "ansible_become_method": "sude"}}, None)


@pytest.mark.parametrize(
    ("become", "terminal", "alone", "fed"),
    [
        (Become(), ARGV, ARGV, (ARGV, "")),
        (Become("sudo", "sudo"), ["sudo", "--", *ARGV], ["sudo", "-n", "--", *ARGV], (["sudo", "-n", "--", *ARGV], "")),
        (Become("sudo", "sudo", "s"), ["sudo", "--", *ARGV], None, (["sudo", "-S", "-p", "", "--", *ARGV], "s\n")),
        (Become("doas", "doas"), ["doas", "--", *ARGV], ["doas", "-n", "--", *ARGV], (["doas", "-n", "--", *ARGV], "")),
        (Become("su", "su", "s"), ["su", "root", "-c", """sh -c 'echo $1 '"'"'x y'"'"''"""], None, None),
        (Become("runas", "runas"), None, None, None),
    ],
)
def test_a_password_is_asked_for_in_a_terminal_or_given_or_the_reason_is_named(
    become: Become, terminal: list[str] | None, alone: list[str] | None, fed: tuple[list[str], str] | None
):
    for make, expected in ((in_terminal, terminal), (unattended, alone), (with_password, fed)):
        if expected is None:
            with pytest.raises(BecomeError, match=f"{become.method}.*sudo"):
                make(become, ARGV)
        else:
            assert make(become, ARGV) == expected


def test_no_command_contains_the_password():
    for method in ("sudo", "doas", "su"):
        for make in (in_terminal, unattended, with_password):
            try:
                made = make(Become(method, method, "s3cr3t"), ARGV)
            except BecomeError as error:
                made = str(error)
            assert "s3cr3t" not in str(made[0] if isinstance(made, tuple) else made)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(
    ("password", "reason"), [("secret", ""), ("wrong", "sudo: 1 incorrect password attempt"), ("", "sudo: a password is required")]
)
def test_the_history_is_written_with_the_password_or_the_reason_is_known(sudo: str, password: str, reason: str, tmp_path: Path):
    argv = ["sh", "-c", 'printf %s "$1" > "$2"', "sh", "a line", str(tmp_path / "written")]
    assert history.write({"one": with_password(Become("sudo", sudo, password), argv)}) == ({"one": reason} if reason else {})
    assert (tmp_path / "written").exists() is not bool(reason)
