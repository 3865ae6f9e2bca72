# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands on hosts that a run ends with, in the operator's terminal. A task has none; the callback report runs them after the last one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import threading
import typing as t
from collections.abc import Callable, Mapping, Sequence

from ansible_collections.slipway.stack.plugins.plugin_utils.connections import connection_to
from ansible_collections.slipway.stack.plugins.plugin_utils.tunnel import ssh_with

#: Options of ssh for a terminal on the host, so that a command ends with its connection; that it is closed is nothing to report.
TERMINAL = ("-tt", "-o", "LogLevel=ERROR")
#: Options of ssh for a command that must not ask.
BATCH = ("-o", "BatchMode=yes", "-o", "LogLevel=ERROR")
#: Sequences that set colors or move the cursor, and other control characters.
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def on_host(host: str, argv: Sequence[str], hostvars: Mapping[str, t.Any], play_context: t.Any, *options: str) -> list[str]:
    """Return the command of the controller that runs another one on a host.

    Args:
        host: The host.
        argv: What is run there. A function of become.py has it run as root.
        hostvars: The variables of all hosts.
        play_context: That of the task or play.
        options: Of ssh, such as TERMINAL.

    Raises:
        TunnelError: the host is not reached over SSH.
    """
    if str(hostvars[host].get("ansible_connection", "")).rpartition(".")[2] == "local":
        return [*argv]
    return [*ssh_with(connection_to(host, hostvars, play_context), *options), shlex.join(argv)]


def interact(argv: Sequence[str], before: Callable[[], t.Any]) -> int:
    """Run a command in the terminal that this process was started in; return its exit status, 2 where there is no terminal.

    Args:
        argv: The command.
        before: Called once it is known that there is a terminal.
    """
    if not sys.stdin.isatty():
        sys.stderr.write("Nothing was touched. A session needs a terminal, and this run has none: give -e command=…\n")
        return 2
    before()
    # Ansible has made these three close when a program is started.
    return subprocess.run(argv, stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr, check=False).returncode


def log_line(host: str, stamp: str, service: str, text: str) -> str:
    """Return a line of a log as it is shown: the time to the millisecond, and nothing that would steer the terminal.

    The steps of a progress bar, which end with a carriage return, stay apart.
    """
    shown = CONTROL.sub("", text.replace("\r", " "))
    return f"{stamp[:23]}Z {host} {service}: {shown}"


def follow(commands: Mapping[str, Sequence[str]], grep: str, clean: Callable[[str, str], str]) -> int:
    """Show what commands print, each line a time, a service and a message, until all have ended, or Ctrl-C.

    Args:
        commands: By host.
        grep: A regular expression; lines without a match are left out.
        clean: Returns a line of a host without what must not be shown.

    Returns:
        The exit status: 1 where a command has failed.
    """
    pattern = re.compile(grep)
    # Read as bytes: as text, a carriage return ends a line too.
    running = {
        host: subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sys.stderr) for host, argv in commands.items()
    }

    def show(host: str) -> None:
        for line in running[host].stdout or ():
            stamp, _blank, rest = line.decode(errors="replace").rstrip("\r\n").partition(" ")
            service, _blank, text = rest.partition(" ")
            if pattern.search(text):
                sys.stdout.write(f"{clean(host, log_line(host, stamp, service, text))}\n")
                sys.stdout.flush()

    threads = [threading.Thread(target=show, args=(host,), daemon=True) for host in running]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        for process in running.values():
            process.terminate()
        return 0
    return int(any(process.wait() for process in running.values()))
