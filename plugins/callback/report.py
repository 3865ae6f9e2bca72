# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leave a report of every run, and end it with a summary that a person can read."""

from __future__ import annotations

DOCUMENTATION = r"""
name: report
type: aggregate
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Leave a JSON report of every run, and print a short summary
description:
  - Writes C(<playbook>-latest.json) at the end of every run of a playbook of this collection, failed ones too. It is replaced
    atomically. A playbook that imports one of them leaves the report of that one. Other playbooks leave none.
  - A copy of it stays as C(<playbook>-<start>.json), those of the last runs of each playbook.
  - A run that changed hosts also leaves a line on each of these, the history that history.yml shows.
  - Secrets are never in it, as censored results have no message, and the values of variables C(vault_*), and of those that are encrypted
    one by one (C(!vault)), are taken out of the others.
  - A playbook adds fields of its own by ansible.builtin.set_stats, as a dictionary C(slipway_report). It ends as a dictionary
    C(slipway_ending) says, by the C(exit_status) of a run that did not fail, the C(failed_status) of one that did, C(lines) to print, each
    a C(text) and its C(color), C(files) to write next to the report, each name with its text, a command C(interact) that gets the terminal
    after all else, and C(session_on), the host whose history gets a line before, or commands C(follow), by host,
    whose lines are shown if C(grep) finds something in them.
  - C(remote_calls) counts, for each host, the tasks and loop items whose action needs a connection to a host that is not the controller.
    An action may return C(remote_calls) where it made another number than one.
options:
  reports_dir:
    description: Folder of the reports, relative to the working directory.
    type: str
    default: reports
    env:
      - name: SLIPWAY_REPORTS_DIR
    ini:
      - section: callback_slipway_report
        key: reports_dir
  reports_kept:
    description: Number of runs of each playbook whose reports are kept, from 0 to 10000. With 0, only the newest report is there.
    # As an integer, a wrong value would have Ansible leave out the plugin with a warning.
    type: str
    default: "30"
    env:
      - name: SLIPWAY_REPORTS_KEPT
    ini:
      - section: callback_slipway_report
        key: reports_kept
notes:
  - Playbooks of this collection, and those that import one, enable it themselves. It may also be in C(callbacks_enabled).
"""

import atexit
import contextlib
import functools
import json
import os
import re
import signal
import socket
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import action_loader, connection_loader, filter_loader, lookup_loader, shell_loader, test_loader
from ansible.utils.vars import load_extra_vars
from ansible.vars.hostvars import HostVars

from ansible_collections.slipway.stack.plugins.module_utils import history_file
from ansible_collections.slipway.stack.plugins.plugin_utils import history, notifications, reporting, terminal
from ansible_collections.slipway.stack.plugins.plugin_utils.ansible_names import reserved_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.become import BecomeError, become_of, with_password
from ansible_collections.slipway.stack.plugins.plugin_utils.compiled import read_compiled
from ansible_collections.slipway.stack.plugins.plugin_utils.connections import connection_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import ansible_home, user_name, write_atomically
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import HostView, hidden_of, read_role_files
from ansible_collections.slipway.stack.plugins.plugin_utils.input_names import OPTIONS
from ansible_collections.slipway.stack.plugins.plugin_utils.inventory_files import (
    folders_of,
    host_problems,
    hosts_problems,
    ignored_files,
    repeated_arguments,
    unreadable,
    variable_files,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.run_options import option_problems
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import without
from ansible_collections.slipway.stack.plugins.plugin_utils.status import GOOD_RESULTS, instant, job_results, last_results
from ansible_collections.slipway.stack.plugins.plugin_utils.tunnel import TunnelError

SCHEMA_VERSION = 1
#: Exit status of ansible-playbook where a host has failed.
FAILED = 2
#: Of a job that is cancelled, and of a terminal that is closed. At these, Ansible ends without running what is registered for its end.
SIGNALS = (signal.SIGTERM, signal.SIGHUP)
PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
MESSAGE_LIMIT = 4000
SHOWN_LIMIT = 10
SHOWN_CHARACTERS = 1200
#: Of a message with more lines than SHOWN_LIMIT, those at its end: a program's last words are why it ended.
SHOWN_LAST = 6
SHOWN_JOB_LINES = 3
TOP_TASKS = 10
CONTROLLER = ("localhost", "127.0.0.1", "::1")
# They look at which version serves, and move none.
NO_RELEASES = ("maintenance", "restore", "status")
# Handled by the strategy itself; there is no action plugin to ask.
NO_ACTION = ("include_role", "include_tasks", "import_role", "import_tasks", "include", "meta", "group_by", "add_host")


# One plugin of each file that our tasks load most often.
OFTEN_USED = (
    (filter_loader, "ansible.builtin.combine", "ansible.builtin.intersect", "ansible.builtin.urlsplit"),
    (filter_loader, "slipway.stack.fleet_batches", "slipway.stack.http_healthcheck", "slipway.stack.memory_share"),
    (filter_loader, "community.crypto.x509_certificate_info", "community.crypto.openssl_privatekey_info"),
    (test_loader, "ansible.builtin.match", "ansible.builtin.file", "ansible.builtin.subset"),
    (lookup_loader, "ansible.builtin.file", "slipway.stack.rendered", "slipway.stack.topology"),
    (action_loader, "ansible.builtin.normal", "ansible.builtin.fail", "slipway.stack.service_plan", "slipway.stack.release_step"),
    (action_loader, "slipway.stack.preflight", "slipway.stack.fleet_plan", "slipway.stack.release_plan"),
    (action_loader, "slipway.stack.release_decision"),
    (connection_loader, "ansible.builtin.ssh"),
    (shell_loader, "ansible.builtin.sh"),
)


def load_for_forks() -> list[str]:
    """Load what most tasks use: each runs in a fork of this process, and would load for itself what is not here yet.

    Returns:
        Names of what could not be loaded. The task that needs one can say why.
    """
    missing = []
    for loader, *names in OFTEN_USED:
        for name in names:
            try:
                found = loader.get(name, class_only=True)
            except Exception:  # noqa: BLE001 - whatever the import of another collection's plugin raises
                found = None
            missing += [] if found else [name]
    # A description that is wrong is refused by the first task that asks for it.
    with contextlib.suppress(AnsibleError):
        read_role_files()
    read_compiled(ansible_home())
    return missing


def refusals(loader: Any, arguments: Mapping[str, Any], inventory: Any) -> tuple[list[str], list[str]]:
    """Return why a run cannot begin: files of the inventory that cannot be read, or an option that leaves out all checks; and warnings.

    Args:
        loader: Ansible's loader.
        arguments: What the run was started with.
        inventory: The inventory as Ansible has read it.
    """
    warnings: list[str] = []
    if problems := checked(warnings, option_problems, arguments, inventory):
        return problems, warnings
    sources = [str(source) for source in arguments.get("inventory") or ()]
    processed = inventory._inventory.processed_sources  # noqa: SLF001 - Ansible has no public name for it
    problems = [*checked(warnings, hosts_problems, loader, sources, processed)]
    names = {"group_vars": list(inventory.groups), "host_vars": [*inventory.hosts, *CONTROLLER[:1]]}
    folders = folders_of(sources)
    files = checked(warnings, variable_files, loader, folders, names)
    problems += checked(warnings, unreadable, loader, files)
    # Without its hosts, no file is known to be named after one.
    if not problems:
        mistakes, others = checked(warnings, ignored_files, folders, names, files) or ([], [])
        problems = [*mistakes, *checked(warnings, host_problems, inventory)]
        warnings += others
    problems += checked(warnings, repeated_arguments, arguments.get("extra_vars") or ())
    return problems + checked(warnings, names_given, load_extra_vars(loader)), warnings


def names_given(given: Mapping[Any, Any]) -> list[str]:
    """Return what is wrong with the names of variables after -e, and with the values of those by which hosts are reached."""
    no_string = "is not the name of a variable, as YAML reads no string; correct it after -e"
    problems = [f"{name} {no_string}" for name in given if not isinstance(name, str)]
    names = [name for name in given if isinstance(name, str)]
    problems += [f"{wrong}; correct the name after -e" for name in names if (wrong := reserved_problem(name)) and name not in OPTIONS]
    if any(name.startswith("ansible_") for name in names):
        from ansible_collections.slipway.stack.plugins.plugin_utils.inputs import given_problems

        problems += given_problems(given)
    return problems


def checked(warnings: list[str], check: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a check of the inventory returns; where it fails itself, nothing, and a warning: the run is Ansible's to judge.

    Args:
        warnings: Gets the warning.
        check: The check.
        arguments: What it is called with.
    """
    try:
        return check(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever a check does not know
        warnings.append(f"The check {check.__name__} of the inventory failed ({raised(error)}), and the run goes on without it; report it")
        return []


def raised(error: Exception) -> str:
    """Return what kind of exception was raised, and where; what it says may show a value."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"


def name_of(playbook: Any) -> str:
    """Return the name of a playbook of this collection, or of the one that another playbook imports; "" of others.

    Of several that are imported, it is the first whose runs are notified, as it changes most.
    """
    path = Path(playbook._file_name).resolve()  # noqa: SLF001 - Ansible has no public name for it
    if path.parent == PLAYBOOKS:
        return path.stem
    # Each begins with a play that checks the inputs, and has its name.
    imported = [str(play.vars["__check_playbook"]) for play in playbook.get_plays() if "__check_playbook" in play.vars]
    return next((name for name in imported if name in notifications.EVENTS), imported[-1] if imported else "")


def needs_host(action: str) -> bool:
    """Return whether an action connects to a host, by its plugin; a module without one does."""
    if action.rpartition(".")[2] in NO_ACTION:
        return False
    plugin = action_loader.get(action, class_only=True)
    return bool(getattr(plugin, "_requires_connection", True))


def calls_of(result: dict[str, Any]) -> int:
    """Return how often a task's result says that its host was asked: once, for each item and for each attempt."""
    items = result.get("results")
    if isinstance(items, list) and items and all(isinstance(item, dict) for item in items):
        return sum(calls_of(item) for item in items)
    if result.get("skipped") or "skip_reason" in result:
        return 0
    return int(result.get("remote_calls", result.get("attempts", 1)))


def changed_labels(result: dict[str, Any]) -> list[str]:
    """Return how a loop calls those of its items that changed something; none where the items are hidden."""
    items = result.get("results")
    if not isinstance(items, list) or result.get("censored"):
        return []
    return [
        str(item["_ansible_item_label"])
        for item in items
        if isinstance(item, dict) and item.get("changed") and "_ansible_item_label" in item
    ]


def message_of(results: list[dict[str, Any]], hidden: list[str]) -> str:
    """Return why a task, or those of its loop's items that failed, did so.

    Args:
        results: What came of each.
        hidden: What must not be shown: of a message that is cut, a part could not be found.
    """
    texts = [str(result.get(key) or "").strip() for result in results for key in ("msg", "stderr", "module_stderr")]
    found = list(dict.fromkeys(text for text in texts if text))
    # Of a command that printed why, this says nothing.
    text = without("\n".join([text for text in found if not text.rstrip(".").endswith("non-zero return code")] or found), hidden)
    return text if len(text) <= MESSAGE_LIMIT else f"{text[: MESSAGE_LIMIT // 2 - 1]}…{text[-MESSAGE_LIMIT // 2 :]}"


def shown_lines(message: str) -> list[str]:
    """Return the lines of a message that a summary shows: all of a short one, else its beginning and its end."""
    lines, half = message.splitlines(), SHOWN_CHARACTERS // 2
    if len(lines) > SHOWN_LIMIT:
        message = "\n".join([*lines[: SHOWN_LIMIT - SHOWN_LAST], "…", *lines[-SHOWN_LAST:]])
    if len(message) > SHOWN_CHARACTERS:
        # Not in the middle of a line, unless a line is longer than that.
        beginning, end = message[:half], message[-half:]
        message = f"{beginning.rpartition(chr(10))[0] or beginning}\n…\n{end.partition(chr(10))[2] or end}"
    return message.splitlines()


def keep_copy(folder: Path, playbook: str, started: float, text: str, kept: int) -> None:
    """Keep a copy of a run's report, and remove those of the oldest runs of the playbook.

    Args:
        folder: That of the reports.
        playbook: Its name.
        started: When the run began, in seconds since 1970.
        text: The report.
        kept: Number of copies of this playbook that may stay.
    """
    if kept:
        # To the millisecond: two environments may share a folder.
        name = f"{playbook}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime(started))}.{int(started % 1 * 1000):03}Z.json"
        write_atomically(folder / name, text.encode(), 0o644)
    copies = sorted(path for path in folder.iterdir() if re.fullmatch(rf"{playbook}-\d{{8}}T\d{{6}}\.\d{{3}}Z\.json", path.name))
    for path in copies[: max(0, len(copies) - kept)]:
        path.unlink(missing_ok=True)


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Collects what happens in a run of one of our playbooks."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "slipway.stack.report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Start without a playbook."""
        super().__init__()
        self._playbook = ""
        self._process = os.getpid()
        self._needs_host: dict[str, bool] = {}
        self._broken = False
        # A run that ends with an exception or by Ctrl-C sends no statistics.
        atexit.register(self._write_interrupted)

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Begin a report, if the playbook is one of this collection, or imports one."""
        self._playbook = name_of(playbook) if reporting.follow(self) else ""
        if self._playbook:
            self._handle_signals()
            load_for_forks()
        self._started = time.time()
        self._clock = time.monotonic()
        self._changed: list[dict[str, str]] = []
        self._release: dict[str, Any] = {}
        self._held_lock = False
        self._jobs: dict[str, dict[str, Any]] = {}
        self._waiting: list[str] = []
        self._added: dict[str, Any] = {}
        self._ending: dict[str, Any] = {}
        self._play_context: Any = None
        self._failed: list[dict[str, str]] = []
        self._failed_items: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self._calls: defaultdict[str, int] = defaultdict(int)
        self._tasks: dict[str, dict[str, Any]] = {}
        if self._playbook:
            inventory = playbook.get_plays()[0].get_variable_manager()._inventory  # noqa: SLF001 - Ansible has no public name for it
            problems, warnings = refusals(playbook._loader, context.CLIARGS, inventory)  # noqa: SLF001
            for warning in warnings:
                self._display.warning(warning)
            kept = str(self.get_option("reports_kept"))
            if not re.fullmatch(r"\d{1,4}|10000", kept):
                problems.append(
                    f"reports_kept is {kept!r}, must be an integer from 0 to 10000; correct it in ansible.cfg, or SLIPWAY_REPORTS_KEPT"
                )
            self._reports_kept = int(kept) if kept.isdecimal() else 0
            self._loader = playbook._loader  # noqa: SLF001
            self._hostvars: Any = {}
            self._refuse(problems)
            self._hostvars = HostVars(inventory, playbook.get_plays()[0].get_variable_manager(), playbook._loader)  # noqa: SLF001

    def _handle_signals(self) -> None:
        """Have a run that is cancelled, or whose terminal is closed, leave what one leaves that is interrupted by Ctrl-C."""
        for number in SIGNALS:
            # As nohup sets it.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, frame: Any) -> None:
        """Write the report, and let the signal end the process."""
        try:
            # Ansible's workers are copies of this process.
            if os.getpid() == self._process:
                with contextlib.suppress(KeyboardInterrupt):
                    # At Ctrl-C, Ansible stops its workers, and may then wait without end for one that it has stopped.
                    if callable(stop_workers := signal.getsignal(signal.SIGINT)):
                        stop_workers(signal.SIGINT, frame)
                self._write_interrupted()
        finally:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _refuse(self, problems: list[str]) -> None:
        """End the run before its first play, with the exit status of a failed one."""
        if not problems:
            return
        for problem in problems:
            self._display.error(f"Nothing was touched. {problem}", wrap_text=False)
        self._failed = [{"host": "localhost", "task": "Read the inventory", "role": "", "message": problem} for problem in problems]
        self._finish({}, failed=True)
        # No task can say so: the variables of a host cannot be read, or the tasks that would look are left out.
        raise SystemExit(FAILED)

    def set_play_context(self, play_context: Any) -> None:
        """Remember how hosts are connected to."""
        self._play_context = play_context

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        """Start a task's clock."""
        self._begin(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Start a handler's clock."""
        self._begin(task)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Count a result."""
        self._end(result)
        if self._playbook and result.is_changed():
            self._changed.append(self._entry(result))
        self._follow_release(str(result.task.action).rpartition(".")[2], result.result)
        self._follow_jobs(result)
        if self._playbook and str(result.task.action).rpartition(".")[2] == "fleet_plan":
            self._waiting = result.result["waiting"]

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Count a failure and keep its message."""
        self._end(result)
        self._follow_release(str(result.task.action).rpartition(".")[2], result.result)
        if self._playbook and result.is_changed():
            # Such as a container that was stopped, and runs again because its successor did not come up.
            self._changed.append(self._entry(result))
        if self._playbook and not ignore_errors:
            self._failed.append({**self._entry(result), "message": self._without_secrets(result)})

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Keep the message of a loop's item; the loop's own says only that items failed."""
        if self._playbook:
            self._failed_items[str(result.host.name), result.task._uuid].append(dict(result.result))  # noqa: SLF001

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Count a host that does not answer."""
        self._end(result)
        if self._playbook:
            self._failed.append({**self._entry(result), "message": self._without_secrets(result, reached=False)})

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Stop a task's clock."""
        self._end(result, ran=False)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the report and print the summary."""
        if self._playbook:
            given = (stats.custom or {}).get("_run", {})
            self._added, self._ending = (dict(given.get(name) or {}) for name in ("slipway_report", "slipway_ending"))
            hosts = {host: self._numbers(stats.summarize(host)) for host in sorted(stats.processed)}
            failed = any(numbers["failed"] or numbers["unreachable"] for numbers in hosts.values())
            self._finish(hosts, failed=failed)
            status = int(self._ending.get("failed_status") or 0) if failed else self._tried(self._end_as_asked) or 0
            if status or self._broken:
                # Ansible itself knows no other exit status than those of failed and unreachable hosts.
                raise SystemExit(status or FAILED)

    def _tried(self, part: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return what a part of the end of a run returns. One that fails has the run fail, and costs it no other part.

        Ansible only warns of an exception here.
        """
        try:
            return part(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - whatever a part does not know
            self._broken = True
            self._display.error(f"{part.__name__.strip('_')}, a part of the end of the run, failed ({raised(error)}); report it")
            return None

    def _end_as_asked(self) -> int:
        """Do what a playbook has left for the end of its run, and return the exit status."""
        if self._ending.get("interact"):
            return terminal.interact(self._ending["interact"], functools.partial(self._tried, self._write_session))
        if self._ending.get("follow"):
            hidden = {host: self._hidden(host) for host in self._ending["follow"]}
            return terminal.follow(self._ending["follow"], self._ending.get("grep", ""), lambda host, text: without(text, hidden[host]))
        return int(self._ending.get("exit_status") or 0)

    # Collecting

    def _begin(self, task: Any) -> None:
        """Start a task's clock, once: a strategy may announce it for each host."""
        if self._playbook:
            now = time.monotonic()
            self._tasks.setdefault(task._uuid, {"task": self._name(task), "role": self._role(task), "start": now, "end": now})  # noqa: SLF001

    def _end(self, result: Any, *, ran: bool = True) -> None:
        """Stop a task's clock and count its calls."""
        if not self._playbook:
            return
        task = result.task
        if task._uuid in self._tasks:  # noqa: SLF001
            self._tasks[task._uuid]["end"] = time.monotonic()  # noqa: SLF001
        action = str(task.resolved_action or task.action)
        if action not in self._needs_host:
            self._needs_host[action] = needs_host(action)
        delegated = (result.result.get("_ansible_delegated_vars") or {}).get("ansible_delegated_host")
        host = str(delegated or result.host.name)
        if ran and self._needs_host[action] and host not in CONTROLLER and task.connection != "local":
            self._calls[host] += calls_of(dict(result.result))

    @staticmethod
    def _name(task: Any) -> str:
        """Return a task's name without its role."""
        return str(task.name or task.action)

    @staticmethod
    def _role(task: Any) -> str:
        """Return the short name of the role that a task belongs to, the outermost where one includes another; "" without one."""
        if task._role is None:  # noqa: SLF001
            return ""
        chain = task.get_dep_chain() or []
        outermost = chain[0] if chain else task._role  # noqa: SLF001
        return str(outermost.get_name()).removeprefix("slipway.stack.")

    def _entry(self, result: Any) -> dict[str, str]:
        """Return who did what, and with which of a loop's items."""
        labels = [] if result.is_failed() else changed_labels(result.result)
        task = self._name(result.task) + (f": {', '.join(labels)}" if labels else "")
        return {"host": str(result.host.name), "task": task, "role": self._role(result.task)}

    def _without_secrets(self, result: Any, *, reached: bool = True) -> str:
        """Return a failure's message without the value of any secret of its host, after what it means for the connection to it."""
        items = self._failed_items.get((str(result.host.name), result.task._uuid))  # noqa: SLF001
        host = str(result.host.name)
        hidden = self._hidden(host)
        text = message_of(items or [dict(result.result)], hidden)
        view = HostView(self._hostvars.raw_get(host), {}, {}, None)
        if problem := connection_problem(text, lambda name: view.value(name)[0], view.place, reached=reached):
            text = f"{host}: {problem}\n{text}"
        return without(text, hidden)

    def _hidden(self, host: str) -> list[str]:
        """Return what must not be shown of a host."""
        return hidden_of([self._hostvars.raw_get(host)], self._hostvars, self._loader)

    @staticmethod
    def _numbers(summary: dict[str, int]) -> dict[str, int]:
        """Return a host's statistics under the names of the report."""
        return {
            "ok": summary["ok"],
            "changed": summary["changed"],
            "failed": summary["failures"],
            "skipped": summary["skipped"],
            "unreachable": summary["unreachable"],
        }

    def _follow_release(self, action: str, result: Any) -> None:
        """Keep what a release says of itself: what was there before it began, then that it moves, then how it ended."""
        if self._playbook in ("", *NO_RELEASES) or action not in ("release_plan", "release_step", "release_lock"):
            return
        if action == "release_lock":
            # One that is refused says no lock.
            self._held_lock = self._held_lock or bool(result.get("lock"))
        elif result.get("report"):
            self._release = dict(result["report"])
        elif action == "release_step" and self._release and result.get("step") != "lock":
            self._release["outcome"] = "unfinished"

    def _follow_jobs(self, result: Any) -> None:
        """Keep the last result of each job, of the hosts that were read."""
        if not self._playbook or str(result.task.action).rpartition(".")[2] != "host_state":
            return
        states = job_results(result.result.get("files") or {})
        host = str(result.host.name)
        hidden = self._hidden(host) if states else []
        found = [{**state, "host": host, "log": [without(line, hidden) for line in state["log"]]} for state in states]
        self._jobs = last_results([*self._jobs.values(), *found])

    # Reporting

    def _release_report(self, *, failed: bool) -> dict[str, Any]:
        """Return the fields that a run has beyond those of all others when it looked at which version serves."""
        if not self._release:
            return {}
        # A run that puts right what another one left touches the hosts before it moves anything itself.
        touched = self._held_lock and self._release.get("recovered")
        outcome = ("unfinished" if touched else "refused") if failed else "unchanged"
        # What an earlier run left is as it was where this one was refused.
        recovered = "" if outcome == "refused" and "outcome" not in self._release else self._release.get("recovered", "")
        return {"outcome": outcome, **self._release, "recovered": recovered}

    def _write_interrupted(self) -> None:
        """Write the report of a run that ended by itself neither well nor with a failed task."""
        # Ansible's workers are copies of this process.
        if self._playbook and os.getpid() == self._process:
            for number in SIGNALS:
                # Whoever cancels a job may send another one soon.
                signal.signal(number, lambda *_unused: None)
            # Before the first task, what the run was to evaluate was wrong.
            self._finish({}, failed=True, interrupted=bool(self._tasks))

    def _report(self, hosts: dict[str, dict[str, int]], *, failed: bool) -> dict[str, Any]:
        """Return the report."""
        duration = time.monotonic() - self._clock
        roles: defaultdict[str, float] = defaultdict(float)
        for task in self._tasks.values():
            roles[task["role"]] += task["end"] - task["start"]
        slowest = sorted(self._tasks.values(), key=lambda task: task["start"] - task["end"])[:TOP_TASKS]
        failing = {host for host, numbers in hosts.items() if numbers["failed"] or numbers["unreachable"]}
        return {
            "schema_version": SCHEMA_VERSION,
            "playbook": self._playbook,
            "inventory": [str(source) for source in context.CLIARGS.get("inventory") or []],
            "check_mode": bool(context.CLIARGS.get("check")),
            "started": instant(self._started),
            "finished": instant(self._started + duration),
            "duration_s": round(duration, 3),
            "result": "failed" if failed else "ok",
            "hosts": hosts,
            "changed": self._changed,
            # A failure that a rescue handled does not fail the run.
            "failed": [entry for entry in self._failed if not hosts or entry["host"] in failing],
            "roles": {role: round(seconds, 3) for role, seconds in sorted(roles.items(), key=lambda item: -item[1]) if role},
            "slowest_tasks": [
                {"task": task["task"], "role": task["role"], "seconds": round(task["end"] - task["start"], 3)} for task in slowest
            ],
            **self._release_report(failed=failed),
            "jobs": self._jobs,
            "waiting": self._waiting,
            **self._added,
            "remote_calls": {host: self._calls.get(host, 0) for host in sorted({*hosts, *self._calls} - set(CONTROLLER))},
        }

    def _finish(self, hosts: dict[str, dict[str, int]], *, failed: bool, interrupted: bool = False) -> None:
        """Write the report and print the summary, once."""
        summary = self._tried(self._leave, hosts, failed=failed, interrupted=interrupted) or []
        self._playbook = ""
        for line in [*self._ending.get("lines", ()), *({"text": text, "color": ""} for text in summary)]:
            self._display.display(line["text"], color=line["color"] or None)

    def _leave(self, hosts: dict[str, dict[str, int]], *, failed: bool, interrupted: bool) -> list[str]:
        """Leave what is to stay of a run, and return its summary."""
        report = self._report(hosts, failed=failed)
        self._playbook = ""
        row = history.entry(report, user_name(), socket.gethostname(), interrupted=interrupted)
        where = self._tried(self._write_report, report)
        self._row = row
        changed = [] if report["check_mode"] else [entry["host"] for entry in report["changed"] if entry["host"] not in CONTROLLER]
        self._tried(self._write_history, changed, row)
        self._tried(self._notify, report, row)
        return [*self._summary(report, interrupted=interrupted), where or "No report"]

    def _write_report(self, report: dict[str, Any]) -> str:
        """Write the report, and what a playbook has left to be written next to it; return where it is."""
        folder, files = Path(self.get_option("reports_dir")), self._ending.get("files", {})
        files[f"{report['playbook']}-latest.json"] = f"{json.dumps(report, indent=2)}\n"
        try:
            for name, text in files.items():
                write_atomically(folder / name, text.encode(), 0o644)
            keep_copy(folder, report["playbook"], self._started, files[f"{report['playbook']}-latest.json"], self._reports_kept)
            return f"Report: {', '.join(str(folder / name) for name in files)}"
        except OSError as error:
            return f"No report: {folder} cannot be written ({error.strerror})"

    def _write_session(self) -> None:
        """Leave a line where a session is opened that may change something; whether it does is not known here."""
        if host := self._ending.get("session_on"):
            self._write_history([host], {**self._row, "result": "session", "changes": 1})

    def _write_history(self, hosts: list[str], row: history_file.Row) -> None:
        """Leave a line on hosts that were changed."""
        commands, failed = {}, {}
        for host in dict.fromkeys(hosts):
            try:
                argv = history_file.argv(str(self._hostvars[host]["slipway_stack"]), row)
                argv, given = with_password(become_of(host, self._hostvars, self._play_context), argv)
                commands[host] = (terminal.on_host(host, argv, self._hostvars, self._play_context, *terminal.BATCH), given)
            except (AnsibleError, BecomeError, TunnelError, KeyError) as error:
                failed[host] = str(error)
        failed |= history.write(commands)
        if failed:
            reasons = (f"{host} ({reason})" for host, reason in failed.items())
            self._display.warning(f"The history was not written on {', '.join(reasons)}")

    def _notify(self, report: dict[str, Any], row: history_file.Row) -> None:
        """Send the notification of the run, if it has one. By now it holds no lock, and nothing waits for it on any host."""
        # Without a task, variables could not be evaluated, and this one neither.
        if not self._tasks or not notifications.is_sent(report):
            return
        try:
            hosts = [self._hostvars[host] for host in self._hostvars]
            stack = next((str(variables["slipway_stack"]) for variables in hosts if "slipway_stack" in variables), "")
            given = [variables.get("slipway_notify") for variables in hosts]
            # Another value than a list was refused.
            targets = list(dict.fromkeys(str(url) for urls in given if isinstance(urls, list) for url in urls))
        except AnsibleError as error:
            self._display.warning(f"No notification was sent: slipway_notify cannot be evaluated ({type(error).__name__})")
            return
        for number, reason in notifications.send(targets, notifications.message(report, row, stack)).items():
            self._display.warning(f"slipway_notify[{number}] ({notifications.kind_of(targets[number])}) was not notified: {reason}")

    @staticmethod
    def _summary(report: dict[str, Any], *, interrupted: bool) -> list[str]:
        """Return the summary's lines."""
        changed = report["changed"]
        # Without statistics, the hosts that are known of are those that were changed.
        names = {entry["host"] for entry in changed} if interrupted else set(report["hosts"])
        hosts = len(names - set(CONTROLLER))
        where = f" on {hosts} host{'' if hosts == 1 else 's'}"
        if not hosts:
            where = " on the controller" if names else ""
        verb = "would change" if report["check_mode"] else "changed"
        calls = max(report["remote_calls"].values(), default=0)
        first = (
            f"{report['playbook']}: {'interrupted after' if interrupted else report['result'] + ' in'} {report['duration_s']:.1f} s, "
            f"{len(changed)} {verb}{where}, at most {calls} remote call{'' if calls == 1 else 's'} a host"
        )
        lines = [first]
        if "outcome" in report and report["playbook"] != "site":
            # What was refused may have nothing to do with the version.
            requested = f", version {report['wanted']} was requested" if report["wanted"] != report["version"] else ""
            lines.append(f"  {report['outcome']}: version {report['version']} serves{requested}")
        lines += [f"  {verb} {entry['host']}: {entry['task']}" for entry in changed[:SHOWN_LIMIT]]
        if len(changed) > SHOWN_LIMIT:
            lines.append(f"  … and {len(changed) - SHOWN_LIMIT} more")
        for job, state in sorted(report["jobs"].items()):
            if state["result"] not in GOOD_RESULTS:
                lines.append(f"  job {job}: the last run, for {state['moment']} on {state['host']}, has the result {state['result']}")
                lines += [f"    {line}" for line in state["log"][-SHOWN_JOB_LINES:]]
        lines += [f"  {sentence}" for sentence in report["waiting"]]
        for entry in report["failed"][:SHOWN_LIMIT]:
            lines.append(f"  failed {entry['host']}: {entry['task']}")
            # All of it was printed where the task failed, which may be far above.
            lines += [f"    {line}" for line in shown_lines(entry["message"])]
        return lines
