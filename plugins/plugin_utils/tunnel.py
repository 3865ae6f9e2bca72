# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH forwards in addition to Ansible's own connection, with the same settings; for action plugins, on the controller."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import subprocess
import time
import typing as t

_ALLOCATED = re.compile(rb"Allocated port (\d+) for remote forward")
START_SECONDS = 30.0


class TunnelError(Exception):
    """A forward could not be opened."""


def ssh_command(connection: t.Any, *forwards: str) -> list[str]:
    """Return the command that opens forwards over a connection of its own, with all settings of Ansible's connection to that host.

    A connection of its own, because one that is shared would keep the forwards after we end.

    Args:
        connection: Ansible's connection of the type ssh, with its options set.
        forwards: options of ssh such as ``-R`` with their values.

    Raises:
        TunnelError: the host is not reached over SSH.
    """
    ours = ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "LogLevel=INFO", "-o", "ExitOnForwardFailure=yes"]
    ours += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4", "-N", *forwards]
    return ssh_with(connection, *ours)


def ssh_with(connection: t.Any, *options: str) -> list[str]:
    """Return the command that connects to a host with further options, and with all settings of Ansible's connection to it.

    Args:
        connection: Ansible's connection of the type ssh, with its options set.
        options: of ssh; they win over those of the connection, as ssh uses the first value of an option.

    Raises:
        TunnelError: the host is not reached over SSH.
    """
    kind = str(getattr(connection, "transport", ""))
    if kind != "ssh":
        raise TunnelError(f"its connection type is {kind or 'unknown'}, but this needs ssh")
    program = connection.get_option("ssh_executable")
    built = connection._build_command(program, "ssh")  # noqa: SLF001 - nothing else knows all of a connection's settings
    words = [word.decode() if isinstance(word, bytes) else str(word) for word in built]
    return [words[0], *options, *words[1:], str(connection.get_option("host") or connection.host)]


def _environment(connection: t.Any) -> dict[str, str]:
    """Return the environment in which ssh asks Ansible for a password, where there is one."""
    prepare = getattr(connection, "_init_shm", None)
    more: dict[str, t.Any] = (prepare() or {}) if prepare else {}
    return {**os.environ, **(more.get("env") or {})}


def free_port() -> int:
    """Return a free port of the loopback."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether something listens on a port of the loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Tunnel:
    """Forwards that stay open while the context lasts."""

    def __init__(self, connection: t.Any, *forwards: str, ready: t.Callable[[], bool] | None = None) -> None:
        """Describe the forwards.

        Args:
            connection: Ansible's connection to the host.
            forwards: options of ssh.
            ready: returns whether a local forward answers; for a remote one ssh itself reports it.
        """
        self.command = ssh_command(connection, *forwards)
        self.environment = _environment(connection)
        self.port = 0
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Tunnel:  # noqa: PYI034 - typing.Self is newer than the oldest Python that our code runs on
        """Open the forwards.

        Raises:
            TunnelError: they do not open; the message is what ssh says.
        """
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        """Wait until the forwards are open."""
        process, said = self._process, b""
        if process is None or process.stderr is None:
            raise AssertionError("the tunnel was not begun")
        deadline = time.monotonic() + START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(process.stderr, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                if selector.select(0.05):
                    chunk = os.read(process.stderr.fileno(), 4096)
                    said += chunk
                    if not chunk:
                        process.wait(5)
                        raise TunnelError(self._reason(said))
                allocated = _ALLOCATED.search(said)
                if allocated:
                    self.port = int(allocated[1])
                    return
                if self._ready is not None and self._ready():
                    return
        raise TunnelError(f"the SSH tunnel was not open after {START_SECONDS:g} s: {self._reason(said)}")

    @staticmethod
    def _reason(said: bytes) -> str:
        text = " ".join(said.decode("utf-8", "replace").split())
        if "forwarding" in text.lower():
            return f"{text}; its SSH server must allow it (AllowTcpForwarding yes)"
        return text or "ssh ended without a message"

    def __exit__(self, *_unused: object) -> None:
        """Close the forwards."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(5)
        if self._process.stderr:
            self._process.stderr.close()
        self._process = None
