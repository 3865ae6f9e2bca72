# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the prober during a release, on the controller. See the documentation of release_probe."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.packages.slipway_prober.src.slipway_prober import control as prober_control
from ansible_collections.slipway.stack.packages.slipway_prober.src.slipway_prober.meter import KEPT_MARKS

try:
    import wsproto as _wsproto  # noqa: F401 - the program that is started needs it

    from ansible_collections.slipway.stack.packages.slipway_prober.src.slipway_prober.settings import Settings, SettingsError
except ImportError as error:
    MISSING = error.name
else:
    MISSING = None

# Where the program finds its package: in the collection, which pip does not install.
SOURCES = Path(prober_control.__file__).resolve().parents[1]
POLL_SECONDS = 0.02
# The prober looks for marks every 0.05 s; a loaded controller takes longer.
MARK_SECONDS = 5.0
START_SECONDS = 10.0
STOP_SECONDS = 5.0

# What the prober itself takes, as Ansible checks it; defaults are the prober's.
SETTINGS: dict[str, dict[str, Any]] = {
    "targets": {"type": "list", "elements": "dict"},
    "tls": {"type": "bool"},
    "verify": {"type": "bool"},
    "ca_file": {"type": "path"},
    "rate": {"type": "float"},
    "connections": {"type": "int"},
    "connections_max": {"type": "int"},
    "path": {"type": "str"},
    "post_share": {"type": "float"},
    "post_path": {"type": "str"},
    "post_body": {"type": "str"},
    "post_content_type": {"type": "str"},
    "headers": {"type": "dict"},
    "accepted_statuses": {"type": "list", "elements": "str"},
    "timeout_seconds": {"type": "float"},
    "version_header": {"type": "str"},
    "version_json_field": {"type": "str"},
    "websockets": {"type": "int"},
    "websocket_path": {"type": "str"},
    "websocket_ping_seconds": {"type": "float"},
    "websocket_reconnect_seconds": {"type": "list", "elements": "float"},
}


def is_missing(settings: Settings) -> bool:
    """Return whether the first target answers 404 to the path that the prober would request; no answer means False."""
    target = settings.targets[0]
    try:
        with socket.create_connection((target.address, target.port), settings.timeout_seconds) as plain:
            context = settings.context()
            asked = context.wrap_socket(plain, server_hostname=target.server_name) if context else plain
            headers = [("Host", settings.host_header(target)), ("Connection", "close"), *settings.headers]
            request = f"GET {settings.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
            asked.sendall(request.encode())
            return asked.makefile("rb").readline(1024).split()[1:2] == [b"404"]
    except OSError:
        return False


class Run:
    """A prober that was started, as any later task finds it: by the path of its state file."""

    def __init__(self, state_file: Path) -> None:
        """Read the state file.

        Raises:
            FileNotFoundError: There is none.
        """
        self.state_file = state_file
        self.control = prober_control.Control(state_file.parent, 0)
        state = json.loads(state_file.read_text(encoding="utf-8"))
        self.pid: int = state["pid"]
        self.started: str | None = state["started"]
        self.timeout: float = state["timeout_seconds"]

    def alive(self) -> bool:
        """Return whether the process still runs, and is the one that we started."""
        now = prober_control.process_started(self.pid)
        return now is not None and (not self.started or now == self.started)

    def numbers(self) -> dict[str, Any]:
        """Return what the prober wrote last; nothing when it has not written yet."""
        try:
            numbers: dict[str, Any] = json.loads(self.control.result.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return numbers

    def log(self) -> str:
        """Return the end of the prober's log."""
        try:
            return (self.control.folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:].strip()
        except OSError:
            return ""

    def require_running(self) -> dict[str, Any]:
        """Return the numbers of a prober that still runs.

        Raises:
            AnsibleActionFail: It does not, so its numbers say nothing about now.
        """
        # Checked before the numbers: a prober that ends in between has recorded why.
        alive = self.alive()
        numbers = self.numbers()
        if numbers.get("ended") or not alive:
            how = f"has ended ({numbers['ended']})" if numbers.get("ended") else f"with pid {self.pid} has died"
            raise AnsibleActionFail(f"the release's prober {how}, so nothing watches the release any more. {self.log()}".strip())
        return numbers

    def end(self) -> dict[str, Any]:
        """End the prober and return its last numbers."""
        self.control.stop.touch()
        patience = time.monotonic() + self.timeout + STOP_SECONDS
        while self.alive() and not self.numbers().get("ended") and time.monotonic() < patience:
            time.sleep(POLL_SECONDS)
        numbers = self.numbers()
        if not numbers.get("ended") and self.alive():
            os.kill(self.pid, signal.SIGKILL)
        return numbers


def started(options: dict[str, Any], deadline_seconds: float, parent: int, wait: bool = True) -> Run:
    """Start a prober that outlives its task and ends with the process ``parent``; with ``wait``, return it when each client has an answer.

    Raises:
        AnsibleActionFail: It did not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="slipway-probe-"))
    config = folder / "config.json"
    control = {"deadline_seconds": deadline_seconds, "parent_pid": parent, "parent_started": prober_control.process_started(parent) or ""}
    prober_control.write_json(config, {"settings": options, "control": control})
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            # -P: no file of the working folder is a module.
            [sys.executable, "-P", "-m", "slipway_prober", "--config", str(config)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCES), os.environ.get("PYTHONPATH")]))},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    settings = Settings.parse(options)
    state = {"pid": process.pid, "started": prober_control.process_started(process.pid), "timeout_seconds": settings.timeout_seconds}
    prober_control.write_json(folder / "state.json", state)
    run = Run(folder / "state.json")
    patience = time.monotonic() + START_SECONDS
    while wait and time.monotonic() < patience:
        if process.poll() is not None:
            said = run.log()
            prober_control.remove_folder(folder)
            raise AnsibleActionFail(f"the release's prober did not start: {said}")
        numbers = run.numbers()
        enough = numbers.get("requests", 0) >= min(len(settings.targets), settings.rate * START_SECONDS)
        sockets = numbers.get("websockets_opened", 0) + numbers.get("websockets_refused", 0)
        if numbers and enough and sockets >= settings.websockets:
            break
        time.sleep(POLL_SECONDS)
    return run


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; no host is asked or changed."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Start, mark, read or stop a prober."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(
            argument_spec={
                "state": {"type": "str", "required": True, "choices": ["started", "marked", "read", "stopped"]},
                "state_file": {"type": "path"},
                "deadline_seconds": {"type": "float"},
                "wait": {"type": "bool", "default": True},
                "path_if_missing": {"type": "str"},
                "mark": {"type": "str"},
                **SETTINGS,
            },
            required_if=[
                ("state", "started", ["targets", "deadline_seconds"]),
                ("state", "marked", ["state_file", "mark"]),
                ("state", "read", ["state_file"]),
                ("state", "stopped", ["state_file"]),
            ],
        )
        result["changed"] = False
        if self._task.check_mode:
            # Nothing is released, so there is nothing to watch.
            result.update(state_file="", running=False, ended="", probe={}, since={})
            return result
        state: str = options["state"]
        if state == "started":
            run, numbers = self._start(options)
        elif state == "stopped":
            return {**result, **self._stop(Path(options["state_file"]))}
        else:
            run = self._find(Path(options["state_file"]))
            numbers = self._mark(run, options["mark"]) if state == "marked" else self._read(run, options["mark"])
        since = self._since(numbers, options["mark"])
        result.update(state_file=str(run.state_file), running=True, ended="", probe=numbers, since=since)
        return result

    @staticmethod
    def _start(options: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
        if MISSING:
            raise AnsibleActionFail(
                f"counting failed requests needs {MISSING} in the Python of the controller: {sys.executable} -m pip install h11 wsproto; "
                "or release without counting them: -e release_probe=false"
            )
        given = {name: options[name] for name in SETTINGS if options[name] is not None}
        deadline = options["deadline_seconds"]
        try:
            settings = Settings.parse(given)
            if options["path_if_missing"] and is_missing(settings):
                given["path"] = options["path_if_missing"]
            settings.context()
        except SettingsError as error:
            raise AnsibleActionFail(str(error)) from error
        if not 0 < deadline <= 86400:
            raise AnsibleActionFail(f"deadline_seconds cannot be {deadline:g}; a prober runs for a day at most")
        # The task runs in a fork of ansible-playbook, whose end ends the prober.
        run = started(given, deadline, os.getppid(), options["wait"])
        return run, run.numbers()

    @staticmethod
    def _find(state_file: Path) -> Run:
        try:
            return Run(state_file)
        except FileNotFoundError as error:
            raise AnsibleActionFail(f"no prober was started with the state file {state_file}, or it was stopped since") from error
        except (OSError, ValueError, KeyError) as error:
            raise AnsibleActionFail(f"{state_file} is not a prober's state file: {error}") from error

    @staticmethod
    def _mark(run: Run, name: str) -> dict[str, Any]:
        """Name this moment; return when the prober counts from it, so that what the next task does lies behind it."""
        known = len(run.require_running().get("marks", []))
        line = json.dumps({"name": name, "time": time.time()}) + "\n"
        descriptor = os.open(run.control.marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # One write: marks of two forks cannot mix.
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        patience = time.monotonic() + MARK_SECONDS
        while time.monotonic() < patience:
            numbers = run.require_running()
            if any(mark["name"] == name for mark in numbers.get("marks", [])[known:]):
                return numbers
            time.sleep(POLL_SECONDS)
        limits = f"within {MARK_SECONDS:g} s; it takes {KEPT_MARKS} at most"
        raise AnsibleActionFail(f"the prober did not take the mark {name!r} {limits}")

    @classmethod
    def _read(cls, run: Run, mark: str | None) -> dict[str, Any]:
        """Return the numbers, with an answer or failure since the mark at least.

        Raises:
            AnsibleActionFail: There is none within the time that a request may take. What was not measured is not fine.
        """
        patience = time.monotonic() + run.timeout + MARK_SECONDS
        while True:
            numbers = run.require_running()
            if mark is None or cls._since(numbers, mark).get("requests", 0):
                return numbers
            if time.monotonic() > patience:
                break
            time.sleep(POLL_SECONDS)
        flying = f"{numbers.get('in_flight', 0)} requests have no answer yet"
        raise AnsibleActionFail(
            f"nothing was measured: since the mark {mark!r} no request was answered or failed, and {flying}. {run.log()}".strip()
        )

    @staticmethod
    def _since(numbers: dict[str, Any], mark: str | None) -> dict[str, Any]:
        """Return the numbers since the last mark of this name; without a name, all of them."""
        if mark is None:
            return {name: value for name, value in numbers.items() if name not in {"marks", "failures"}}
        for known in reversed(numbers.get("marks", [])):
            if known["name"] == mark:
                since: dict[str, Any] = known["since"]
                return since
        names = ", ".join(sorted({known["name"] for known in numbers.get("marks", [])})) or "none"
        raise AnsibleActionFail(f"the prober knows no mark {mark!r}; it has: {names}")

    @staticmethod
    def _stop(state_file: Path) -> dict[str, Any]:
        """End the prober, whatever became of it before, and remove its folder."""
        try:
            run = Run(state_file)
        except (OSError, ValueError, KeyError):
            return {"state_file": str(state_file), "running": False, "ended": "not running", "probe": {}, "since": {}}
        was_over = run.numbers().get("ended")
        numbers = run.end()
        ended = numbers.get("ended") or "died"
        result: dict[str, Any] = {"state_file": str(state_file), "running": False, "ended": ended, "probe": numbers}
        result["since"] = {name: value for name, value in numbers.items() if name not in {"marks", "failures"}}
        if was_over or ended == "died":
            when = numbers.get("written", "an unknown time")
            result["warnings"] = [f"the release's prober ended on its own ({ended}) at {when}. {run.log()}".strip()]
        prober_control.remove_folder(run.control.folder)
        return result
