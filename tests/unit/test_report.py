from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from ansible_collections.slipway.stack.plugins.callback.report import CallbackModule, keep_copy, load_for_forks, message_of, shown_lines
from conftest import BIN

SECRET = "t7Hq2Lw9Zx4Nv6Bk8Mr3"


@pytest.fixture
def report(checkout: Path, play):
    """Run tasks as a playbook of Slipway, and return its report and what it printed."""
    (checkout / "inventories/test/group_vars/all/own.yml").write_text(json.dumps({"vault_owner": SECRET}))
    for role, tasks in (
        ("outer", [{"name": "Include", "ansible.builtin.include_role": {"name": "slipway.stack.inner"}}]),
        ("inner", [{"name": "Do it", "ansible.builtin.command": "true"}]),
    ):
        folder = checkout / "roles" / role / "tasks"
        folder.mkdir(parents=True)
        (folder / "main.yml").write_text(json.dumps(tasks))

    def run(tasks: list[dict[str, Any]], *arguments: str, hosts: str = "all", **environment: str) -> tuple[dict[str, Any], str]:
        playbook = [{"name": "Play", "hosts": hosts, "gather_facts": False, "tasks": tasks}]
        (checkout / "playbooks/test.yml").write_text(json.dumps(playbook))
        done = play("test", *arguments, **environment)
        path = checkout / environment.get("SLIPWAY_REPORTS_DIR", "reports") / "test-latest.json"
        return json.loads(path.read_text()), done.stdout

    return run


def test_a_run_that_changes_nothing(report):
    found, printed = report([{"name": "Say it", "ansible.builtin.debug": {"msg": "x"}}])
    assert found["schema_version"] == 1
    assert (found["playbook"], found["result"], found["check_mode"]) == ("test", "ok", False)
    assert found["hosts"]["one"] == {"ok": 1, "changed": 0, "failed": 0, "skipped": 0, "unreachable": 0}
    assert found["changed"] == found["failed"] == []
    assert found["remote_calls"] == {"one": 0, "two": 0}
    assert found["started"] <= found["finished"]
    assert found["duration_s"] > 0
    assert "test: ok in " in printed
    assert "Report: reports/test-latest.json" in printed


def test_plugins_that_most_tasks_use_are_there_before_the_first():
    assert load_for_forks() == []


def test_a_playbook_adds_fields_of_its_own(report):
    found, _ = report([{"name": "Add", "ansible.builtin.set_stats": {"data": {"slipway_report": {"backup": {"points": 2}}}}}])
    assert found["backup"] == {"points": 2}
    assert found["result"] == "ok"


@pytest.mark.parametrize(("fails", "status"), [(False, 1), (True, 2)])
def test_a_playbook_chooses_how_a_run_ends_that_did_not_fail(checkout: Path, play, fails: bool, status: int):
    ending = {"exit_status": 1, "lines": [{"text": "look here", "color": "red"}], "files": {"test.html": "<p>"}}
    tasks = [{"ansible.builtin.set_stats": {"data": {"slipway_ending": ending}}}, {"ansible.builtin.assert": {"that": [not fails]}}]
    (checkout / "playbooks/test.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    done = play("test")
    assert done.returncode == status
    assert done.stdout.index("PLAY RECAP") < done.stdout.index("look here") < done.stdout.index("Report: ")
    assert (checkout / "reports/test.html").read_text() == "<p>"


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """End a run of a playbook that left an exit status; return the run's own, what was printed, and the report."""

    def end(exit_status: int, **further: Any) -> tuple[int, str, Path]:
        callback = CallbackModule()
        # It shows each error once a process.
        callback._display._errors.clear()
        callback.v2_playbook_on_start(SimpleNamespace(_file_name="/other.yml", get_plays=list))
        callback._playbook, callback._reports_kept = "status", 0
        monkeypatch.setattr(callback, "get_option", {"reports_dir": str(tmp_path)}.get)
        ending = {"exit_status": exit_status, "lines": [{"text": "look here", "color": ""}], **further}
        numbers = dict.fromkeys(("ok", "changed", "failures", "skipped", "unreachable"), 0)
        stats = SimpleNamespace(custom={"_run": {"slipway_ending": ending}}, processed={"one": 1}, summarize=lambda _host: numbers)
        try:
            callback.v2_playbook_on_stats(stats)
        except SystemExit as error:
            return int(error.code or 0), "".join(capsys.readouterr()), tmp_path / "status-latest.json"
        return 0, "".join(capsys.readouterr()), tmp_path / "status-latest.json"

    return end


@pytest.mark.parametrize("nameless", [KeyError("getpwuid(): uid not found: 12345"), OSError("No username set in the environment")])
def test_a_run_by_a_number_without_a_name_ends_as_any_other(ended, monkeypatch: pytest.MonkeyPatch, nameless: Exception):
    """As in a container that runs as any user."""
    monkeypatch.setattr("getpass.getuser", Mock(side_effect=nameless))
    rows = []
    monkeypatch.setattr(CallbackModule, "_write_history", lambda _self, _hosts, row: rows.append(row))
    status, printed, written = ended(3)
    assert (status, rows[0]["user"]) == (3, f"uid {os.getuid()}")
    assert printed.index("look here") < printed.index("status: ok in ") < printed.index(f"Report: {written}")


@pytest.mark.parametrize(("host", "terminal", "hosts"), [("two", True, ["two"]), ("", True, []), ("two", False, [])])
def test_a_session_that_may_change_something_leaves_a_line_before_it_opens(
    ended, monkeypatch: pytest.MonkeyPatch, host: str, terminal: bool, hosts: list[str]
):
    """Not one that only reads, nor one that cannot be opened."""
    done: list[Any] = []
    monkeypatch.setattr("sys.stdin", Mock(isatty=lambda: terminal))
    monkeypatch.setattr("subprocess.run", lambda _argv, **_streams: done.append("session") or Mock(returncode=7))
    monkeypatch.setattr(CallbackModule, "_write_history", lambda _self, hosts, row: done.extend((name, row) for name in hosts))
    status, _printed, _written = ended(0, interact=["psql"], session_on=host)
    assert status == (7 if terminal else 2)
    assert [name for name, _row in done[: len(hosts)]] == hosts
    assert done[len(hosts) :] == (["session"] if terminal else [])
    for _name, row in done[: len(hosts)]:
        assert (row["playbook"], row["result"], row["changes"]) == ("status", "session", 1)


@pytest.mark.parametrize(
    ("part", "named", "lost"),
    [
        ("_report", "leave", ("status: ok in ", "Report: ")),
        ("_write_report", "write_report", ("Report: ",)),
        ("_write_history", "write_history", ()),
        ("_notify", "notify", ()),
        ("_summary", "leave", ("status: ok in ", "Report: ")),
        ("_end_as_asked", "end_as_asked", ()),
    ],
)
@pytest.mark.parametrize("exit_status", [0, 3])
def test_a_part_of_the_end_that_fails_costs_no_other_and_never_ends_well(
    ended, monkeypatch: pytest.MonkeyPatch, part: str, named: str, lost: tuple[str, ...], exit_status: int
):
    """Ansible only warns of an exception in a callback, and a stack that is down would be one that is well."""
    monkeypatch.setattr(CallbackModule, part, Mock(side_effect=TypeError(SECRET), __name__=part))
    status, printed, _written = ended(exit_status)
    assert status == (exit_status if part != "_end_as_asked" and exit_status else 2)
    assert "look here" in printed
    assert f"{named}, a part of the end of the run, failed (TypeError in " in " ".join(printed.split())
    assert SECRET not in printed
    assert tuple(text for text in ("status: ok in ", "Report: ") if text not in printed) == lost


def test_a_playbook_chooses_the_exit_status_of_a_run_that_failed(checkout: Path, play):
    tasks = [{"ansible.builtin.set_stats": {"data": {"slipway_ending": {"failed_status": 3}}}}, {"ansible.builtin.fail": {"msg": "no"}}]
    (checkout / "playbooks/test.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    assert play("test").returncode == 3
    assert json.loads((checkout / "reports/test-latest.json").read_text())["result"] == "failed"


def test_the_last_result_of_each_job_is_reported(report, checkout: Path):
    """That of the host that ran it last, and without secrets that it printed."""
    states = {
        "one": {
            "job": "cleanup",
            "moment": "2026-11-28T03:00:00Z",
            "finished": "2026-11-28T03:00:04Z",
            "result": "succeeded",
            "log": ["old"],
        },
        "two": {
            "job": "cleanup",
            "moment": "2026-11-29T03:00:00Z",
            "finished": "2026-11-29T03:00:09Z",
            "result": "failed",
            "log": [f"as {SECRET}"],
        },
    }
    for host, state in states.items():
        place = checkout / "hosts" / host / "slipway/jobs/state/cleanup.json"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps(state))
    task = {
        "name": "Read",
        "slipway.stack.host_state": {"stack": "slipway", "root": str(checkout / "hosts") + "/{{ inventory_hostname }}"},
    }
    found, printed = report([task])
    assert found["jobs"] == {"cleanup": {**states["two"], "host": "two", "log": ["as (secret)"]}}
    assert "  job cleanup: the last run, for 2026-11-29T03:00:00Z on two, has the result failed" in printed
    assert "    as (secret)" in printed


def test_changes_name_host_task_and_outermost_role(report):
    found, printed = report([{"name": "Run outer", "ansible.builtin.include_role": {"name": "slipway.stack.outer"}}])
    assert sorted(found["changed"], key=lambda entry: entry["host"]) == [
        {"host": host, "task": "Do it", "role": "outer"} for host in ("one", "two")
    ]
    assert found["roles"]["outer"] > 0
    assert found["slowest_tasks"][0]["task"] == "Do it"
    assert "  changed one: Do it" in printed


def test_remote_calls_count_items_attempts_and_delegation_and_nothing_that_stays_here(report):
    found, _ = report(
        [
            {"name": "Set", "ansible.builtin.set_fact": {"x": 1}},
            {"name": "Assert", "ansible.builtin.assert": {"that": ["x == 1"]}},
            {"name": "Skip", "ansible.builtin.ping": None, "when": "x == 2"},
            {"name": "Loop", "ansible.builtin.command": "true", "loop": [1, 2, 3], "when": "item != 2"},
            {"name": "Here", "ansible.builtin.ping": None, "delegate_to": "localhost"},
            {"name": "There", "ansible.builtin.ping": None, "delegate_to": "two"},
            {
                "name": "Again",
                "ansible.builtin.command": "true",
                "register": "again",
                "until": "again.attempts | default(1) == 2",
                "retries": 3,
                "delay": 0,
                "when": "inventory_hostname == 'one'",
            },
        ]
    )
    # one: two items and two attempts; two: two items, and both hosts' task There.
    assert found["remote_calls"] == {"one": 4, "two": 4}


def test_failures_have_their_messages_without_secrets(report):
    found, printed = report(
        [
            {
                "name": "Rescued",
                "block": [{"name": "Break", "ansible.builtin.fail": {"msg": "rescued"}}],
                "rescue": [{"name": "Rescue", "ansible.builtin.debug": {"msg": "ok"}}],
            },
            {"name": "Ignore", "ansible.builtin.fail": {"msg": "ignored"}, "ignore_errors": True, "when": "inventory_hostname == 'one'"},
            {"name": "Fail", "ansible.builtin.fail": {"msg": "user has {{ vault_owner }}"}, "when": "inventory_hostname == 'two'"},
        ]
    )
    assert found["result"] == "failed"
    assert {"host": "two", "task": "Fail", "role": "", "message": "user has (secret)"} in found["failed"]
    assert {entry["host"] for entry in found["failed"]} == {"two"}
    assert SECRET not in json.dumps(found)
    assert "  failed two: Fail\n    user has (secret)\n" in printed


def test_a_command_that_failed_says_what_it_printed(report):
    found, printed = report([{"name": "Run", "ansible.builtin.command": {"argv": ["sh", "-c", "echo it is full >&2; exit 3"]}}])
    assert {entry["message"] for entry in found["failed"]} == {"it is full"}
    assert "  failed two: Run\n    it is full\n" in printed


def test_hidden_failures_stay_hidden(report):
    found, _ = report([{"name": "Fail", "ansible.builtin.fail": {"msg": "xyzzy"}, "no_log": True}])
    assert "xyzzy" not in json.dumps(found)
    assert len(found["failed"]) == 2


def test_a_failed_item_says_why(report):
    found, _ = report([{"name": "Loop", "ansible.builtin.command": "sh -c 'echo item {{ item }} >&2; exit {{ item }}'", "loop": [0, 3]}])
    assert "item 3" in found["failed"][0]["message"]
    assert "item 0" not in found["failed"][0]["message"]


def test_check_mode_is_reported(report):
    found, printed = report([{"name": "Would", "ansible.builtin.file": {"path": "/tmp/slipway-never", "state": "touch"}}], "--check")
    assert found["check_mode"] is True
    assert "2 would change on 2 hosts" in printed


@pytest.mark.parametrize(("hosts", "said"), [("localhost", "the controller"), ("localhost,one", "1 host,"), ("all,localhost", "2 hosts,")])
def test_the_controller_is_not_a_host_of_the_fleet(report, hosts: str, said: str):
    found, printed = report([{"name": "Say it", "ansible.builtin.debug": {"msg": "x"}}], hosts=hosts)
    assert "localhost" in found["hosts"]
    assert f"0 changed on {said}" in printed


@pytest.mark.parametrize(
    ("signals", "first", "said"),
    [
        ("INT", "command", ", 2 changed on 2 hosts, "),
        ("INT", "debug", ", 0 changed, "),
        ("TERM", "command", ", 2 changed on 2 hosts, "),
        # A closed terminal may send two, and who cancels a job one after the other.
        ("HUP HUP", "debug", ", 0 changed, "),
        ("INT TERM", "debug", ", 0 changed, "),
    ],
)
def test_an_interruption_is_reported_with_what_was_done_until_then(report, signals: str, first: str, said: str):
    """As by Ctrl-C, of a job that is cancelled, or by a terminal that is closed: Ansible ends without statistics."""
    done = {"ansible.builtin.command": "true"} if first == "command" else {"ansible.builtin.debug": {"msg": "x"}}
    # A task runs in a process that the run itself has started.
    run = "{{ lookup('file', '/proc/self/stat').rpartition(')')[2].split()[1] }}"
    interrupt = " && ".join(f"kill -{name} {run}" for name in signals.split())
    found, printed = report(
        [
            {"name": "Do it", **done},
            {"name": "Interrupt", "ansible.builtin.shell": interrupt, "run_once": True, "changed_when": False},
            {"name": "Wait", "ansible.builtin.command": "sleep 30"},
        ]
    )
    assert (found["result"], found["hosts"]) == ("failed", {})
    assert re.search(r"^test: interrupted after \d+\.\d s" + said, printed, re.MULTILINE), printed


def test_a_terminal_that_is_closed_leaves_a_report(checkout: Path):
    """The kernel sends the signal, and nothing that the run prints from then on can be written."""
    tasks = [{"name": "Do it", "ansible.builtin.command": "true"}, {"name": "Wait", "ansible.builtin.command": "sleep 600"}]
    (checkout / "playbooks/test.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    command = [str(BIN / "ansible-playbook"), "playbooks/test.yml", "-i", "inventories/test"]
    terminal, of_the_run = os.openpty()
    # Makes it the terminal of the run, whose hangup is a signal then.
    run = subprocess.Popen(["setsid", "--ctty", *command], cwd=checkout, stdin=of_the_run, stdout=of_the_run, stderr=of_the_run)
    os.close(of_the_run)
    shown = b""
    while shown.count(b"changed: [") < 2:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert run.wait() == -signal.SIGHUP
    found = json.loads((checkout / "reports/test-latest.json").read_text())
    # What was shown last need not have been counted yet.
    assert (found["result"], found["changed"][0]["task"]) == ("failed", "Do it")


def test_reports_go_where_they_are_asked_to(report, checkout: Path):
    report([{"name": "Say it", "ansible.builtin.debug": {"msg": "x"}}], SLIPWAY_REPORTS_DIR="elsewhere/deep")
    assert not (checkout / "reports").exists()
    assert {re.sub(r"\d", "0", path.name) for path in (checkout / "elsewhere/deep").iterdir()} == {
        "test-latest.json",
        "test-00000000T000000.000Z.json",
    }


def test_reports_of_the_last_runs_of_a_playbook_are_kept(report, checkout: Path):
    folder = checkout / "reports"
    folder.mkdir()
    others = ["test-latest.json", "status.html", "notes-20261101T000000.000Z.json", "test-20261101T000000.000Z.json.bak"]
    former = [f"test-202611{day:02}T000000.000Z.json" for day in range(1, 6)]
    for name in [*others, *former]:
        (folder / name).write_text("{}")
    newest, _ = report([{"name": "Say it", "ansible.builtin.debug": {"msg": "x"}}], SLIPWAY_REPORTS_KEPT="3")
    kept = sorted(path.name for path in folder.glob("test-2*Z.json"))
    assert kept[:-1] == former[-2:]
    assert json.loads((folder / kept[-1]).read_text()) == newest
    assert {path.name for path in folder.iterdir()} == {*others, *kept}
    report([{"name": "Say it", "ansible.builtin.debug": {"msg": "x"}}], SLIPWAY_REPORTS_KEPT="0")
    assert {path.name for path in folder.iterdir()} == set(others)


@pytest.mark.parametrize("kept", [0, 1, 2, 5, 30])
def test_the_number_of_reports_grows_to_those_that_are_kept(tmp_path: Path, kept: int):
    names = []
    for run in range(2 * kept + 3):
        keep_copy(tmp_path, "site", 1_800_000_000.5 + run, "{}", kept)
        names.append(f"site-20270115T08{run // 60:02}{run % 60:02}.500Z.json")
        assert sorted(path.name for path in tmp_path.iterdir()) == names[max(0, len(names) - kept) :]


def test_a_wrong_number_of_reports_to_keep_ends_the_run_before_its_first_task(play):
    done = play("history", SLIPWAY_REPORTS_KEPT="many")
    assert done.returncode == 2
    assert "Nothing was touched. reports_kept is 'many', must be an integer from 0 to 10000" in done.stderr
    assert "TASK" not in done.stdout


def test_syntax_check_and_playbooks_of_others_leave_none(checkout: Path, play):
    task = {"name": "Say it", "ansible.builtin.debug": {"msg": "x"}}
    text = json.dumps([{"name": "Play", "hosts": "all", "gather_facts": False, "tasks": [task]}])
    (checkout / "playbooks/test.yml").write_text(text)
    (checkout / "playbooks/deeper").mkdir()
    (checkout / "playbooks/deeper/other.yml").write_text(text)
    assert play("test", "--syntax-check").returncode == 0
    assert play("deeper/other").returncode == 0
    assert not (checkout / "reports").exists()


def test_a_playbook_that_imports_another_is_followed_as_that_one(checkout: Path, play):
    imports = "- ansible.builtin.import_playbook: {}/secrets.yml\n- ansible.builtin.import_playbook: {}/history.yml\n"
    (checkout / "own.yml").write_text(imports.format("playbooks", "playbooks"))
    done = play("../own", "--skip-tags", "always")
    assert done.returncode == 2, "as of history.yml itself"
    assert "--skip-tags always leaves out the tasks that check the inputs" in done.stderr
    assert json.loads((checkout / "reports/history-latest.json").read_text())["result"] == "failed"


def test_one_report_is_left_where_the_callback_is_also_enabled(report):
    _found, printed = report([{"name": "Say it", "ansible.builtin.debug": {"msg": "x"}}], ANSIBLE_CALLBACKS_ENABLED="slipway.stack.report")
    assert printed.count("Report: ") == 1


def test_a_run_is_refused_that_the_callback_does_not_follow(checkout: Path, play):
    (checkout / "playbooks/callback_plugins/slipway_report.py").unlink()
    done = play("secrets")
    assert done.returncode == 2
    assert "the callback slipway.stack.report does not follow this run" in done.stdout + done.stderr
    assert "needs callbacks_enabled = slipway.stack.report below [defaults] in ansible.cfg" in done.stdout + done.stderr
    assert play("secrets", ANSIBLE_CALLBACKS_ENABLED="slipway.stack.report").returncode == 0


def test_a_release_reports_what_serves_and_how_it_ended(report):
    step = {"name": "Step", "slipway.stack.release_step": {"run": "x", "name": "pull"}, "run_once": True}
    told = {"version": "2.0", "wanted": "2.0", "previous": "1.0", "outcome": "released", "prober": {"requests": 9, "failed": 0}}
    end = {"name": "End", "slipway.stack.release_step": {"run": "x", "name": "report", "report": told}, "run_once": True}
    found, printed = report([step, end])
    assert {key: found[key] for key in told} == told
    assert found["result"] == "ok"
    # Each step is seen when it begins, and with its time when it is over.
    assert re.search(r"^release: pull$.*^release: pull took \d+\.\d s$", printed, re.MULTILINE | re.DOTALL), printed
    assert list(found["steps"]) == ["pull"]
    assert found["seconds"] >= found["steps"]["pull"]


def test_what_a_failed_task_has_changed_is_counted(report):
    """Such as a container that was stopped, and started again because its successor did not come up."""
    found, printed = report([{"name": "Break", "ansible.builtin.command": "false", "when": "inventory_hostname == 'one'"}])
    assert found["changed"] == [{"host": "one", "task": "Break", "role": ""}]
    assert ", 1 changed on " in printed


@pytest.mark.parametrize(("lines", "cut"), [(1, False), (4, False), (40, True)])
def test_the_summary_shows_all_of_a_message_that_is_not_long(report, lines: int, cut: bool):
    message = "\n".join(f"- problem {number}" for number in range(lines))
    _, printed = report([{"name": "Refuse", "ansible.builtin.fail": {"msg": message}, "when": "inventory_hostname == 'one'"}])
    summary = printed.rpartition("  failed one: Refuse\n")[2]
    expected = message.splitlines() if not cut else message.splitlines()[:4] + message.splitlines()[-6:]
    assert [line.strip() for line in summary.splitlines() if "problem" in line] == expected
    assert ("    …\n" in summary) == cut


@pytest.mark.parametrize(("lines", "width"), [(1, 5000), (9, 500), (10, 1), (11, 1), (400, 3), (20, 500), (1000, 100)])
def test_a_long_message_keeps_its_end_with_the_last_words_of_a_program(lines: int, width: int):
    words = [f"first {'x' * width}", *(["more " * (width // 5)] * (lines - 2)), f"{'y' * width} last"][:lines]
    message = message_of([{"msg": "\n".join(words)}], [])
    shown = shown_lines(message)
    assert shown[0].startswith("first")
    assert len(message) <= 4000
    assert len(shown) <= 13
    assert sum(map(len, shown)) <= 1202
    assert ("…" in shown) == (lines > 10 or len(message) > 1200)
    # Lines are whole where they can be.
    assert width > 500 or all(line in message.splitlines() for line in shown if line != "…")
    if lines > 1:
        assert shown[-1].endswith("last")


@pytest.mark.parametrize("before", range(1985, 2001))
def test_no_part_of_a_secret_is_left_where_a_long_message_is_cut(before: int):
    message = message_of([{"msg": f"{'x' * before}{SECRET}{'y' * 4000}"}], [SECRET])
    assert "…" in message
    assert not {SECRET[:4], SECRET[-4:]} & {message[start : start + 4] for start in range(len(message))}


@pytest.mark.parametrize(
    ("steps", "fails", "outcome"),
    [([], False, "unchanged"), (["lock"], True, "refused"), (["lock", "pull"], True, "unfinished")],
)
def test_a_run_without_a_release_reports_what_serves_all_the_same(report, steps: list[str], fails: bool, outcome: str):
    plan = {"app_hosts": ["one", "two"], "balancers": [], "folder": "/missing", "version": "1.0"}
    tasks: list[dict[str, Any]] = [{"name": "Plan", "slipway.stack.release_plan": plan, "run_once": True}]
    tasks += [{"name": "Step", "slipway.stack.release_step": {"run": "y", "name": name}, "run_once": True} for name in steps]
    tasks += [{"name": "Fail", "ansible.builtin.fail": None}] if fails else []
    found, printed = report(tasks)
    # Another version was not asked for.
    assert f"  {outcome}: version 1.0 serves\n" in printed
    assert (found["version"], found["wanted"], found["previous"], found["outcome"]) == ("1.0", "1.0", "", outcome)
    assert found["result"] == ("failed" if fails else "ok")
