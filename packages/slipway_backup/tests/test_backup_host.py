# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What decides on the backup host: which point is restored, and whether what came out is what went in."""

from __future__ import annotations

import fcntl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway_host import decide, restore, sandbox, stores

TABLE = {"rows": 100, "newest": "2026-11-23 02:15:00+00", "column": "created_at"}
FOUND = {"table": "public.notes", "rows": 100, "newest": "2026-11-23 02:15:00+00", "same": True, "age_s": 30.5}


def a_point(hour: int, verified: str = "verified", reason: str = "") -> dict[str, Any]:
    return {
        "name": f"20261123T{hour:02}0000Z",
        "moment": f"2026-11-23T{hour:02}:00:09.000Z",
        "stores": ["chroma", "postgres", "redis", "volumes"],
        "missing": {},
        "verified": verified,
        "reason": reason,
    }


def test_latest_is_the_newest() -> None:
    assert decide.choose([a_point(1), a_point(2, "")], "latest")["name"] == "20261123T020000Z"


def test_a_point_that_a_drill_has_failed_is_refused_and_the_one_before_is_offered() -> None:
    points = [a_point(1), a_point(2, "failed", "older"), a_point(3, "failed", "redis/dump.rdb is damaged")]
    for name in ("latest", "20261123T030000Z"):
        with pytest.raises(sandbox.HostError, match=r"redis/dump.rdb is damaged.*-e point=20261123T010000Z") as caught:
            decide.choose(points, name)
        assert "verified" in str(caught.value)


def test_nothing_is_offered_where_all_points_are_bad() -> None:
    with pytest.raises(sandbox.HostError, match="no earlier point"):
        decide.choose([a_point(1, "failed", "gone")], "latest")


def test_a_target_time_takes_the_newest_point_that_is_not_after_it() -> None:
    points = [a_point(1), a_point(2), a_point(3)]
    assert decide.choose(points, "latest", "2026-11-23 02:30:00+00:00")["name"] == "20261123T020000Z"
    assert decide.choose(points, "latest", "2026-11-23T03:30:00+01:00")["name"] == "20261123T020000Z"
    assert decide.choose(points, "latest", decide.END)["name"] == "20261123T030000Z"
    assert decide.choose(points, "20261123T010000Z", "2026-11-23 02:30:00Z")["name"] == "20261123T010000Z"


def test_a_target_time_before_all_points_is_refused() -> None:
    with pytest.raises(sandbox.HostError, match="WAL can only be replayed forward"):
        decide.choose([a_point(2)], "latest", "2026-11-23 01:00:00Z")


@pytest.mark.parametrize("text", ["2026-11-23 02:15:00", "yesterday"])
def test_a_time_without_its_zone_is_refused(text: str) -> None:
    with pytest.raises(sandbox.HostError, match=text):
        decide.choose([a_point(1)], "latest", text)


def test_a_day_alone_is_not_a_moment() -> None:
    """The shell takes the quotes from -e target_time='2026-11-23 02:15:00+00:00', and Ansible all from the space on."""
    with pytest.raises(sandbox.HostError, match="as one word, such as 2026-11-23T02:15:00"):
        decide.choose([a_point(1)], "latest", "2026-11-23")


def test_what_is_offered_instead_can_be_typed_as_it_stands() -> None:
    with pytest.raises(sandbox.HostError, match=r"-e point=20261123T010000Z -e target_time=2026-11-23T02:30:00\+00:00$"):
        decide.choose([a_point(1), a_point(2, "failed", "gone")], "latest", "2026-11-23 02:30:00Z")
    # Named with a point, a moment would concern all stores.
    with pytest.raises(sandbox.HostError, match=r"-e target_time=2026-11-23T02:30:00\+00:00 -e stores=postgres$"):
        decide.choose([a_point(1), a_point(2, "failed", "gone")], "latest", "2026-11-23 02:30:00Z", ["postgres"])


def test_a_point_that_lacks_volumes_is_offered_for_other_stores_only() -> None:
    points = [a_point(1), {**a_point(2), "missing": {"app1/uploads": "away"}}, a_point(3, "failed", "gone")]
    for wanted, name in {(): "20261123T010000Z", ("volumes",): "20261123T010000Z", ("redis",): "20261123T020000Z"}.items():
        assert f"-e point={name}" in decide.offer(points, "20261123T030000Z", "", wanted)


def test_an_unknown_point_is_refused_with_those_there_are() -> None:
    with pytest.raises(sandbox.HostError, match="there are 20261123T010000Z"):
        decide.choose([a_point(1)], "20261122T010000Z")


def test_another_major_version_is_refused() -> None:
    assert decide.major_of("postgres (PostgreSQL) 17.6 (Debian 17.6-1)\n") == 17
    decide.refuse_major("p", 17, "postgres:17-alpine", 17)
    with pytest.raises(sandbox.HostError, match="PostgreSQL 16, which image postgres:17-alpine"):
        decide.refuse_major("p", 16, "postgres:17-alpine", 17)


def test_an_exact_point_must_come_back_to_the_row() -> None:
    tables = {"public.notes": TABLE}
    assert decide.compare_rows(tables, {"public.notes": FOUND}, 0) == []
    assert decide.compare_rows(tables, {"public.notes": {**FOUND, "rows": 99}}, 0) == ["public.notes has 99 rows instead of 100"]
    assert "newest row" in decide.compare_rows(tables, {"public.notes": {**FOUND, "same": False}}, 0)[0]
    assert decide.compare_rows(tables, {}, 0) == ["public.notes cannot be read"]


def test_transactions_in_progress_allow_for_some_rows_and_not_for_an_empty_table() -> None:
    tables = {"public.notes": {**TABLE, "rows": 5000}}
    assert decide.compare_rows(tables, {"public.notes": {**FOUND, "rows": 5100, "same": False}}, 1) == []
    assert decide.compare_rows(tables, {"public.notes": {**FOUND, "rows": 0, "same": False}}, 1)


def test_a_table_that_was_not_counted_has_only_to_be_there() -> None:
    assert decide.compare_rows({"public.notes": {**TABLE, "rows": None}}, {"public.notes": FOUND}, 0) == []


def test_names_and_values_are_quoted() -> None:
    query = decide.count_query({'public.no"te': {"rows": 1, "newest": "it's", "column": 'a"t'}})
    assert '"public"."no""te"' in query
    assert 'max("a""t")' in query
    assert "E'it''s'" in query


def test_answers_are_found_among_other_lines() -> None:
    assert list(decide.answers('{"table": "public.a\u2028\x85b", "rows": 1}\n')) == ["public.a\u2028\x85b"]
    assert decide.answers('NOTICE\n{"table": "public.notes", "rows": 1}\n') == {"public.notes": {"table": "public.notes", "rows": 1}}


def test_the_newest_age_leaves_out_what_is_to_come() -> None:
    assert decide.newest_age([{"age_s": -3600}, {"age_s": 12.34}, {"age_s": None}, {"age_s": 90}]) == 12.3
    assert decide.newest_age([{"age_s": None}]) is None


def test_chroma_gets_memory_for_all_vectors() -> None:
    assert decide.chroma_memory_mb([]) == 1024
    assert decide.chroma_memory_mb([{"records": 0, "dimension": None}, {"records": 1_000_000, "dimension": 1536}]) == 1024 + 17578


def test_redis_counts_keys_whose_time_has_passed_too() -> None:
    assert decide.loaded_keys("rdb_last_load_keys_expired:2\r\nrdb_last_load_keys_loaded:40\r\n") == 42
    with pytest.raises(sandbox.PointError):
        decide.loaded_keys("redis_version:7.0\r\n")


def test_a_users_query_is_one_value_as_text() -> None:
    assert decide.scalar("select count(*) > 5 from notes;\n") == "select (select count(*) > 5 from notes)::text"


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (1, "slipway-backup: redis/dump.rdb is damaged", sandbox.PointError),
        (1, "cp: No space left on device", sandbox.HostError),
        (1, "slipway-backup: verify the base backup a: pg_verifybackup ended with -9: no output", sandbox.HostError),
        (1, "slipway-backup: copy volumes/app1/uploads: rsync ended with -90", sandbox.PointError),
        (3, "the backups are locked by run", sandbox.BusyError),
        (125, "docker: no such image", sandbox.HostError),
    ],
)
def test_only_a_points_own_fault_counts_against_it(code: int, message: str, kind: type[Exception]) -> None:
    error = sandbox.judge("verify", code, message)
    assert type(error) is kind
    assert message.removeprefix("slipway-backup: ") in str(error)


class Engine:
    """Stands for the command docker: what it answers about a container, and by a program in it."""

    def __init__(self, *, running: bool = False, killed: bool = False, log: str = "", code: int = 0, error: str = "") -> None:
        self.state = {"{{.State.Running}}": running, "{{.State.OOMKilled}}": killed}
        self.log, self.code, self.error = log, code, error
        self.begun: list[str] = []

    def __call__(self, *arguments: str, what: str, given: str | None = None, codes: Any = (0,)) -> subprocess.CompletedProcess[str]:
        del what, given, codes
        if arguments[0] == "inspect":
            return subprocess.CompletedProcess(arguments, 0, str(self.state[arguments[2]]).lower() + "\n", "")
        if arguments[0] == "logs":
            return subprocess.CompletedProcess(arguments, 0, "", self.log)
        self.begun.append(arguments[0])
        return subprocess.CompletedProcess(arguments, self.code, "", self.error)


CONFIG = {"stack": "shop", "user": "10002", "minimum_free_percent": 10, "settings": {}, "container": "shop-backup", "postgres": {}}
NO_ROOM = """\
2026-11-23 02:20:01 UTC [1] LOG:  redo starts at 0/5000028
2026-11-23 02:20:09 UTC [27] PANIC:  could not write to file "pg_wal/xlogtemp.27": No space left on device
2026-11-23 02:20:09 UTC [1] LOG:  startup process (PID 27) was terminated by signal 6: Aborted
2026-11-23 02:20:09 UTC [1] FATAL:  one
2026-11-23 02:20:09 UTC [1] FATAL:  two
2026-11-23 02:20:09 UTC [1] FATAL:  three
2026-11-23 02:20:09 UTC [1] FATAL:  four
"""
#: What the host lacked, or nothing, and the error that any trouble amounts to then.
SHORTAGES: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"killed": True}, sandbox.HostError),
    ({"log": NO_ROOM}, sandbox.HostError),
    ({"log": "sqlite3.OperationalError: database or disk is full"}, sandbox.HostError),
    ({"log": "ERROR:  out of memory"}, sandbox.HostError),
    ({"log": "PANIC:  could not locate a valid checkpoint record"}, sandbox.PointError),
    ({}, sandbox.PointError),
]


@pytest.fixture
def make_sandbox(monkeypatch: pytest.MonkeyPatch) -> Callable[..., sandbox.Sandbox]:
    """A function that returns a sandbox of an engine that answers as given."""

    def make(**told: Any) -> sandbox.Sandbox:
        docker = Engine(**told)
        for module in (sandbox, stores, restore):
            monkeypatch.setattr(module, "docker", docker)
        return sandbox.Sandbox(CONFIG, "drill")

    return make


@pytest.mark.parametrize(("told", "kind"), SHORTAGES)
def test_a_shortage_of_the_host_does_not_count_against_a_point(
    make_sandbox: Callable[..., sandbox.Sandbox], told: dict[str, Any], kind: type[Exception]
):
    """A point that is marked failed for it would be refused by restores."""

    def refuse(*_unused: Any, **_also: Any) -> Any:
        raise sandbox.PointError("load Chroma: it answered 500")

    ways: list[tuple[bool, Callable[[sandbox.Sandbox], Any]]] = [
        (False, lambda made: stores.wait_for(made, "shop-drill-redis", lambda: False, 60)),
        (True, lambda made: stores.wait_for(made, "shop-drill-redis", lambda: False, -1)),
        (True, lambda made: stores.Postgres(made, "v", "postgres:17").sql("app", "select 1")),
    ]
    for running, way in ways:
        with pytest.raises(sandbox.HostError) as caught:
            way(make_sandbox(running=running, code=2, error="server closed the connection unexpectedly", **told))
        assert type(caught.value) is kind

    made = make_sandbox(running=True, code=2, **told)
    made.tools = refuse  # type: ignore[method-assign,assignment]
    with pytest.raises(sandbox.HostError) as caught:
        stores.Chroma(made, "v", "chroma:1").load("latest")
    assert type(caught.value) is kind


@pytest.mark.parametrize(("told", "kind"), SHORTAGES)
def test_a_check_that_lacked_memory_or_space_finds_nothing(
    make_sandbox: Callable[..., sandbox.Sandbox], told: dict[str, Any], kind: type[Exception]
):
    server = stores.Postgres(make_sandbox(running=True, code=2, error="no connection", **told), "v", "postgres:17")
    if kind is sandbox.PointError:
        assert server.amcheck() == "no connection"
        assert server.sql("app", "select 1", fatal=False) == ""
        return
    for check in (server.amcheck, lambda: server.sql("app", "select 1", fatal=False)):
        with pytest.raises(sandbox.HostError, match="says nothing about the point"):
            check()


def test_what_a_query_lacked_is_seen_where_psql_goes_on(make_sandbox: Callable[..., sandbox.Sandbox]):
    error = 'psql:<stdin>:1: ERROR:  could not write to file "base/pgsql_tmp/pgsql_tmp1.0": No space left on device'
    with pytest.raises(sandbox.HostError, match="lacked disk space"):
        stores.Postgres(make_sandbox(running=True, error=error), "v", "postgres:17").sql("app", "select 1", fatal=False)


@pytest.mark.parametrize(("needed", "enough"), [(800, True), (1001, False), (5000, False)])
@pytest.mark.parametrize("kind", ["drill", "restore", "inspect"])
def test_a_disk_is_not_filled(
    make_sandbox: Callable[..., sandbox.Sandbox], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, needed: int, enough: bool
):
    """The stack writes there too, and the receiver of WAL. A restore that a person waits for may take more of it."""
    name = a_point(1)["name"]
    free, reserve = (3000, "10 % must stay free (backup_minimum_free_percent)") if kind == "drill" else (2024, "1024 MB must stay free")
    asked: list[tuple[str, ...]] = []
    parts = {"redis": {"bytes": 1}, "postgres": {"bytes": 1, "major": 17}, "volumes": {"sets": {}, "missing": {}}}
    answers = {"list": [a_point(1)], "show": {"stores": parts, "settings": {}}, "room": {"bytes": needed * 2**20}}

    def program(_config: Any, *arguments: str, **_unused: Any) -> Any:
        asked.append(arguments)
        return answers[arguments[0]]

    def stop(*_unused: Any) -> None:
        raise InterruptedError

    made = make_sandbox()
    monkeypatch.setattr(sandbox, "LOCKS", tmp_path)
    monkeypatch.setattr(restore, "slipway_backup", program)
    monkeypatch.setattr(sandbox.Sandbox, "clean", lambda *_unused, **_also: [])
    monkeypatch.setattr(sandbox.Sandbox, "disk", lambda _unused: (20000 * 2**20, free * 2**20))
    monkeypatch.setattr(restore.Restored, "refuse_major", stop)
    act = restore.drill if kind == "drill" else lambda config, point: restore.stage(config, kind, point, ["redis", "postgres"], "")
    with pytest.raises(InterruptedError if enough else sandbox.HostError) as caught:
        act(made.config, name)
    if not enough:
        assert f"{free} MB free" in str(caught.value)
        assert f"{needed} MB there, and {reserve}" in str(caught.value)
    assert asked[-1][:3] == ("room", name, "--stores")
    assert set(asked[-1][3].split(",")) >= {"postgres", "redis"}


def test_the_disk_is_the_one_of_the_engines_volumes(
    make_sandbox: Callable[..., sandbox.Sandbox], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    told = lambda *arguments, **_unused: subprocess.CompletedProcess(arguments, 0, f"{tmp_path}\n", "")  # noqa: E731
    made = make_sandbox()
    monkeypatch.setattr(sandbox, "docker", told)
    with pytest.raises(sandbox.HostError, match="cannot be read: No such file"):
        made.disk()
    (tmp_path / "volumes").mkdir()
    total, free = made.disk()
    assert total >= free > 0


def test_redis_gets_the_memory_that_its_keys_took():
    """Its file is compressed: JSON takes eight times as much memory."""
    small, large = {"bytes": 2**20, "used_memory": 8 * 2**20}, {"bytes": 200 * 2**20, "used_memory": 1700 * 2**20}
    assert decide.redis_memory_mb(small, 0) == 1024
    assert decide.redis_memory_mb(large, 0) == 3400
    # Of a point that does not say it.
    assert decide.redis_memory_mb({"bytes": 200 * 2**20}, 8000) == 6000
    assert decide.redis_memory_mb({"bytes": 200 * 2**20}, 0) == 1024
    assert sandbox.available_mb() > 0


def test_a_log_is_cut_down_to_its_cause() -> None:
    log = "\n".join(["LOG: starting", "FATAL: no room", *["LOG: closing"] * 9])
    assert sandbox.essence(log) == "FATAL: no room"
    assert sandbox.essence("one\ntwo\n") == "one\ntwo"


def test_a_drill_waits_for_another_one_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sandbox, "LOCKS", tmp_path)
    with (tmp_path / "slipway-shop-drill.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(sandbox.BusyError, match="another drill runs"), sandbox.alone("shop-drill"):
            pass
        assert not capsys.readouterr().err
        threading.Timer(0.5, fcntl.flock, (held, fcntl.LOCK_UN)).start()
        with sandbox.alone("shop-drill", wait=30):
            assert "another drill runs on this host; waiting up to 30 s" in capsys.readouterr().err


def test_drills_step_back_where_processors_are_short_and_restores_do_not() -> None:
    config = {"stack": "shop", "user": "10002", "drill": {"cpu_shares": 128}}
    assert "--cpu-shares 128" in " ".join(sandbox.Sandbox(config, "drill").options("redis", {}, 64))
    assert "--cpu-shares" not in sandbox.Sandbox(config, "restore").options("redis", {}, 64)


@pytest.mark.parametrize(
    ("newest", "reached", "warned"),
    [
        ("000000010000000000000005", "000000020000000000000005", False),
        ("000000010000000000000005", "000000020000000000000006", False),
        ("000000010000000000000007", "000000020000000000000005", True),
        ("000000010000000100000000", "0000000200000000000000FF", True),
    ],
)
def test_unreadable_wal_is_a_warning(newest: str, reached: str, warned: bool) -> None:
    warnings = decide.unread_wal(newest, reached, "2026-11-23T02:15:00.000Z")
    assert [("up to segment 00000001" in line, "Commits after 2026-11-23T02:15" in line) for line in warnings] == [(True, True)] * warned
