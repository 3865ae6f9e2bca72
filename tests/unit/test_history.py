# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that changes hosts leaves a line on each of them, and the lines of all hosts are one history."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils import history_file
from ansible_collections.slipway.stack.plugins.plugin_utils import history
from conftest import Run
from restarts import history_row as restarts_row
from test_become import FAKE_SUDO

REPORT = {"started": "s", "finished": "f", "playbook": "site", "result": "ok", "changed": [{"host": "one"}]}


@pytest.mark.parametrize(
    ("given", "interrupted", "found"),
    [
        ({}, False, {"version": "", "result": "ok", "requests_lost": None}),
        ({"result": "failed"}, False, {"result": "failed"}),
        # A failure before anything was released is that of the run.
        ({"result": "failed", "outcome": "refused", "version": "1"}, False, {"result": "failed", "version": "1"}),
        (
            {"outcome": "released", "version": "2", "prober": {"failed": 3}},
            False,
            {"result": "released", "version": "2", "requests_lost": 3},
        ),
        ({"result": "failed", "outcome": "rolled_back", "version": "1", "prober": {"failed": 0}}, False, {"result": "rolled_back"}),
        ({"outcome": "unfinished"}, True, {"result": "interrupted"}),
    ],
)
def test_a_line_has_the_result_of_the_run_and_what_clients_lost(given: dict[str, Any], interrupted: bool, found: dict[str, Any]):
    row = history.entry({**REPORT, **given}, "ann", "desk", interrupted=interrupted)
    assert {name: row[name] for name in found} == found
    assert (row["user"], row["controller"], row["playbook"], row["changes"]) == ("ann", "desk", "site", 1)


def command(folder: Path, number: int, file: str = history_file.FILE) -> list[str]:
    return [word.replace("/etc/slipway", str(folder)) for word in history_file.argv("s", {"number": number}, file)]


def test_the_newest_lines_are_kept_and_none_without_the_stack(tmp_path: Path):
    subprocess.run(command(tmp_path, 0), check=True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "s").mkdir()
    file = tmp_path / "s" / history_file.FILE
    subprocess.run(command(tmp_path, 0), check=True)
    file.write_text("".join(f'{{"number": {number}}}\n' for number in range(history_file.KEPT + 50)))
    subprocess.run(command(tmp_path, 999), check=True)
    numbers = [json.loads(line)["number"] for line in file.read_text().splitlines()]
    assert numbers == [*range(51, history_file.KEPT + 50), 999]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_restarts_by_the_watchdog_push_out_no_run(tmp_path: Path):
    """A container that is never healthy for long is restarted so often within two days."""
    (tmp_path / "s/release").mkdir(parents=True)
    subprocess.run(command(tmp_path, 0), check=True)
    restarts = tmp_path / "s" / history_file.RESTARTS
    restarts.write_text("{}\n" * history_file.KEPT)
    subprocess.run(command(tmp_path, 1, history_file.RESTARTS), check=True)
    assert (tmp_path / "s" / history_file.FILE).read_text() == '{"number": 0}\n'
    assert restarts.read_text().splitlines() == ["{}"] * (history_file.KEPT - 1) + ['{"number": 1}']


@pytest.mark.parametrize("locks", [True, False])
def test_writers_at_the_same_time_lose_no_line_and_without_locks_damage_none(tmp_path: Path, locks: bool):
    """As the end of a run, the watchdog, and another operator's run."""
    file, tools, count = tmp_path / "s" / history_file.FILE, tmp_path / "bin", 20
    file.parent.mkdir(parents=True)
    tools.mkdir()
    for name in ("sh", "mkdir", "tail", "mv", "rm", *(("flock",) if locks else ())):
        (tools / name).symlink_to(str(shutil.which(name)))
    file.write_text("".join(f'{{"number": {-number - 1}}}\n' for number in range(100)))
    writers = [subprocess.Popen(command(tmp_path, number), env={"PATH": str(tools)}) for number in range(count)]
    assert {writer.wait() for writer in writers} == {0}
    numbers = {json.loads(line)["number"] for line in file.read_text().splitlines()}
    assert numbers >= set(range(-100, 0)) | (set(range(count)) if locks else set())
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.usefixtures("programs")
def test_a_host_that_is_away_is_named_and_holds_up_no_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(history, "SECONDS", 3.0)
    refused = ["sh", "-c", "echo some; echo 'ssh: refused' >&2; echo >&2; exit 255"]
    commands = {"one": ["true"], "two": ["sleep", "60"], "three": ["false"], "four": refused, "five": ["/nonexistent"]}
    failed = history.write({host: (command, "") for host, command in commands.items()})
    assert "/nonexistent" in failed.pop("five")
    assert failed == {"two": "no answer within 3 s", "three": "exit status 1", "four": "ssh: refused"}


def remembered(*rows: dict[str, Any], file: str = history_file.FILE) -> dict[str, Any]:
    return {"files": {f"/s/{file}": {"content": "".join(f"{json.dumps(row)}\n" for row in rows)}}}


def test_the_history_of_all_hosts_has_each_run_once_in_the_order_of_time():
    first = history.entry({**REPORT, "finished": "2027-01-01T00:00:00Z"}, "ann", "desk", interrupted=False)
    second = {**first, "finished": "2027-01-02T00:00:00Z", "version": "2", "result": "released", "requests_lost": 0, "changes": 4}
    states = {"one": remembered(second), "two": remembered(first, second), "three": {"files": {}}}
    states["one"]["files"][f"/s/{history_file.FILE}"]["content"] += '{"cut of'
    assert history.lines(history.merged(states, "/s")) == [
        "2027-01-01T00:00:00Z  site: ok, 1 change on two  (ann on desk)",
        "2027-01-02T00:00:00Z  site 2: released, 4 changes on one, two, 0 requests lost  (ann on desk)",
    ]


@pytest.mark.parametrize("file", [history_file.FILE, history_file.RESTARTS])
@pytest.mark.parametrize("line", ["{", "[]", "5", "null", "", '{"job": "x"}', '{"finished": 5}'])
def test_a_damaged_line_is_named_and_all_others_are_shown(line: str, file: str):
    row = history.entry({**REPORT, "finished": "2027-01-01T00:00:00Z"}, "ann", "desk", interrupted=False)
    states = {"one": remembered(row, file=file), "two": remembered(row)}
    states["one"]["files"][f"/s/{file}"]["content"] += f"{line}\n"
    (shown,) = history.with_restarts(states, "/s", 1)[:1]
    assert shown["playbook"] == "site"
    assert history.damaged(states, "/s") == [f"/s/{file} on one is damaged: lines missing here: 1"]
    assert history.damaged({"two": remembered(row)}, "/s") == []


def test_neither_restarts_nor_other_runs_hide_a_release():
    run = history.entry({**REPORT, "finished": "2027-01-01T00:00:00Z"}, "ann", "desk", interrupted=False)
    release = {**run, "version": "2", "result": "released"}
    later = [{**run, "finished": f"2027-01-01T00:00:{second:02}Z"} for second in range(1, 9)]
    restarts = [restarts_row("shop-api-blue-1", "restarted", 1_800_000_000 + second) for second in range(9)]
    states = {"one": remembered(release, *later)}
    states["one"]["files"] |= remembered(*restarts, file=history_file.RESTARTS)["files"]
    runs = history.merged(states, "/s")
    assert len(runs) == 9, "restarts are none"
    assert [row["finished"] for row in history.newest(runs, 3)] == [row["finished"] for row in (release, *later[-3:])]
    assert history.newest(runs[:2], 3) == runs[:2]
    shown = history.lines(history.with_restarts(states, "/s", 3))
    assert [line.split()[1] for line in shown] == ["site:"] * 3 + ["watchdog"] * 3
    assert "2027-01-15T08:00:08Z  watchdog shop-api-blue-1: restarted, 1 change on one" in shown[-1]


@pytest.mark.parametrize(
    ("arguments", "password", "left"), [((), "", 1), (("--check",), "", 0), ((), "secret", 1)], ids=["run", "check", "password"]
)
def test_a_run_leaves_a_line_on_the_host_that_it_changed(checkout: Path, play: Run, arguments: tuple[str, ...], password: str, left: int):
    """Also one that failed, or was given sudo's password; not a dry run."""
    environment = {}
    if password:
        (checkout / "sudo").write_text(FAKE_SUDO)
        (checkout / "sudo").chmod(0o755)
        (checkout / "password").write_text(password)
        arguments = ("--become", "--become-password-file", str(checkout / "password"))
        environment = {"ANSIBLE_BECOME_EXE": str(checkout / "sudo")}
    stack, started = checkout / "stack", checkout / "stack/release/history.jsonl"
    stack.mkdir()
    code = checkout / "plugins/module_utils/history_file.py"
    code.write_text(code.read_text().replace('cd "/etc/slipway/$1"', f'cd "{stack}"'))
    tasks = [
        {"ansible.builtin.command": "true", "when": "inventory_hostname == 'one'"},
        {"ansible.builtin.file": {"path": str(checkout / "new"), "state": "directory"}, "run_once": True},
        {"ansible.builtin.fail": {"msg": "broken"}},
    ]
    (checkout / "playbooks/test.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    done = play("test", *arguments, **environment)
    assert done.returncode == 2
    rows = [json.loads(line) for line in started.read_text().splitlines()] if started.exists() else []
    assert len(rows) == left, done.stdout + done.stderr
    for row in rows:
        assert (row["playbook"], row["result"], row["user"]) == ("test", "failed", getpass.getuser())
    if password:
        assert "history.jsonl" in (checkout / "sudo.calls").read_text(), "written by the way that tasks become root"
