# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that runs a product's jobs: for which moment, on which host, and from which container."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import claims
import slipway_jobs
from ansible_collections.slipway.stack.plugins.filter.timer_plan import timer_plan
from ansible_collections.slipway.stack.plugins.module_utils import container_copy
from ansible_collections.slipway.stack.plugins.module_utils.engine import EngineError
from ansible_collections.slipway.stack.plugins.plugin_utils import app_services
from conftest import ROOT

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def seconds(text: str) -> int:
    """Return a time in UTC as seconds since 1970."""
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp())


@needs_systemd
@pytest.mark.parametrize(
    ("calendars", "now", "moment"),
    [
        (["*-*-* 03:00:00 UTC"], "2026-03-01 03:00:00", "2026-03-01 03:00:00"),
        (["*-*-* 03:00:00 UTC"], "2026-03-01 02:59:59", "2026-02-28 03:00:00"),
        (["*-*-* *:*:00 UTC"], "2026-03-01 12:34:56", "2026-03-01 12:34:00"),
        (["*-*-* *:*:* UTC"], "2026-03-01 12:34:56", "2026-03-01 12:34:56"),
        (["Mon *-*-* 06:30:00 UTC", "*-*-15 00:00:00 UTC"], "2026-03-17 00:00:00", "2026-03-16 06:30:00"),
        # Many times in one window, the last of which is not among the first that systemd names.
        (["*-*-* 10..11:*:00 UTC"], "2026-03-01 23:00:00", "2026-03-01 11:59:00"),
        (["2024-02-29 00:00:00 UTC"], "2026-03-01 00:00:00", "2024-02-29 00:00:00"),
        (["2030-01-01 00:00:00 UTC"], "2026-03-01 00:00:00", None),
        (["*-*-* 03:00:00 Europe/Berlin"], "2026-07-01 12:00:00", "2026-07-01 01:00:00"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_the_moment_is_the_last_time_of_the_calendar(
    monkeypatch: pytest.MonkeyPatch, calendars: list[str], now: str, moment: str | None, zone: str
) -> None:
    """Whatever the time zone of the host, and however long ago."""
    monkeypatch.setenv("TZ", zone)
    assert slipway_jobs.last_moment(calendars, seconds(now) + 0.5) == (seconds(moment) if moment else None)


@needs_systemd
@pytest.mark.parametrize(
    ("calendars", "moment"),
    [
        (["*-*-* 03:00:00 UTC"], "2026-03-02 03:00:00"),
        (["Mon *-*-* 06:30:00 UTC", "*-*-15 00:00:00 UTC"], "2026-03-02 06:30:00"),
        (["2024-02-29 00:00:00 UTC"], None),
    ],
)
def test_the_next_run_is_at_the_next_time_of_the_calendar(calendars: list[str], moment: str | None) -> None:
    assert slipway_jobs.next_moment(calendars, seconds("2026-03-01 12:00:00")) == (seconds(moment) if moment else None)


SETTINGS: dict[str, Any] = {"postgres": {}, "postgres_container": "", "postgres_network": ""}
#: Runs a method of the claims, for Pythons that have the client of PostgreSQL.
CALL = """
import json, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
import claims
claims.LEASE_SECONDS = float(sys.argv[2])
config, folder, method, *arguments = json.load(sys.stdin)
print(json.dumps(getattr(claims.Claims(config, Path(folder)), method)(*arguments)))
"""


class Host:
    """The claims as the program of one host sees them, each call in a process of its own."""

    lease = claims.LEASE_SECONDS

    def __init__(self, name: str, folder: Path, settings: dict[str, Any], python: str) -> None:
        self.folder, self.config, self.python = folder, {**SETTINGS, **settings, "host": name}, python

    def call(self, method: str, *arguments: Any) -> Any:
        given = json.dumps([self.config, str(self.folder), method, *arguments])
        argv = [self.python, "-c", CALL, f"{ROOT}/packages/slipway_jobs/src:{ROOT}/collections", str(self.lease)]
        done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def claim(self, moment: int, concurrency: str = "forbid") -> Any:
        return self.call("claim", "cleanup", moment, concurrency)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A PostgreSQL as role postgres leaves it for jobs: a role that owns a schema, and nothing else; with a Python that has its client."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    pythons = [
        path
        for path in (sys.executable, "/usr/bin/python3")
        if subprocess.run([path, "-c", "import psycopg2"], check=False).returncode == 0
    ]
    if not programs or not pythons or (os.geteuid() == 0 and not shutil.which("runuser")):
        pytest.skip("needs PostgreSQL and psycopg2")
    folder = tmp_path_factory.mktemp("postgres")
    # The server does not run as root, and its socket's path is short.
    place = Path(tempfile.mkdtemp(prefix="pg"))
    shutil.chown(place, "postgres") if os.geteuid() == 0 else None
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def run(*argv: str, given: str = "") -> None:
        subprocess.run([*user, str(programs[-1] / argv[0]), *argv[1:]], input=given, text=True, check=True, capture_output=True, cwd="/")

    data = place / "data"
    run("initdb", f"--pgdata={data}", "--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync")
    run(
        "pg_ctl",
        f"--pgdata={data}",
        "--wait",
        f"--log={place}/log",
        f"--options=-c listen_addresses= -c unix_socket_directories={place} -c fsync=off",
        "start",
    )
    try:
        declared = (
            "create role slipway_jobs login; create schema slipway_jobs authorization slipway_jobs; revoke all on schema public from public"
        )
        run("psql", f"--host={place}", "--username=postgres", "--dbname=postgres", "--set=ON_ERROR_STOP=1", given=declared)
        (folder / "secrets").mkdir()
        (folder / "secrets/postgres_password").write_text("unused")
        yield {
            "python": pythons[0],
            "folder": folder,
            "settings": {"postgres": {"host": str(place), "port": 5432, "dbname": "postgres", "user": "slipway_jobs"}},
            "empty": lambda: run(
                "psql", f"--host={place}", "--username=postgres", "--dbname=postgres", given="drop table if exists slipway_jobs.runs"
            ),
        }
    finally:
        run("pg_ctl", f"--pgdata={data}", "--mode=immediate", "--wait", "stop")
        shutil.rmtree(place)


@pytest.fixture(params=["sqlite", "postgres"])
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> list[Host]:
    """Two programs with the same claims."""
    if request.param == "sqlite":
        return [Host(name, tmp_path, {}, sys.executable) for name in ("app1", "app2")]
    found = request.getfixturevalue("server")
    found["empty"]()
    return [Host(name, found["folder"], found["settings"], found["python"]) for name in ("app1", "app2")]


def test_a_moment_is_claimed_once_by_programs_that_start_together(hosts: list[Host]) -> None:
    answers: list[str] = []
    barrier = threading.Barrier(8)

    def attempt(host: Host) -> None:
        barrier.wait()
        answers.append(host.claim(1000))

    threads = [threading.Thread(target=attempt, args=(hosts[number % 2],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted([claims.CLAIMED] + [claims.TAKEN] * 7)


def test_a_moment_is_not_run_again_however_the_run_ended(hosts: list[Host]) -> None:
    assert hosts[0].claim(1000) == claims.CLAIMED
    hosts[0].call("end", "cleanup", 1000, "failed")
    assert hosts[1].claim(1000) == claims.TAKEN
    assert hosts[1].claim(1060) == claims.CLAIMED
    assert hosts[0].call("claim", "other", 1000, "forbid") == claims.CLAIMED, "of another job"


@pytest.mark.parametrize(("concurrency", "answer"), [("forbid", claims.BUSY), ("allow", claims.CLAIMED), ("replace", claims.CLAIMED)])
def test_a_run_that_has_not_ended_counts_as_the_job_says(hosts: list[Host], concurrency: str, answer: str) -> None:
    first, second = hosts
    assert first.claim(1000, concurrency) == claims.CLAIMED
    assert second.claim(1060, concurrency) == answer
    assert first.call("is_replaced", "cleanup", 1000) is (concurrency == "replace")
    assert first.claim(1060, concurrency) == claims.TAKEN, "what was left out is not made up for"
    assert second.call("others_run", "cleanup", 1060) is True
    first.call("end", "cleanup", 1000, "succeeded")
    assert second.call("others_run", "cleanup", 1060) is False


def test_a_run_replaces_runs_for_times_before_only(hosts: list[Host]) -> None:
    """Claims wait for a database or a restore, and come in any order then."""
    first, second = hosts
    assert first.claim(1060, "replace") == claims.CLAIMED
    assert second.claim(1000, "replace") == claims.LATE
    assert first.call("is_replaced", "cleanup", 1060) is False
    assert second.claim(1120, "replace") == claims.CLAIMED
    assert first.call("is_replaced", "cleanup", 1060) is True


def test_a_run_without_signs_of_life_does_not_prevent_the_next(hosts: list[Host]) -> None:
    assert hosts[0].claim(1000) == claims.CLAIMED
    hosts[1].lease = -1
    assert hosts[1].claim(1060) == claims.CLAIMED
    assert hosts[1].claim(1000) == claims.TAKEN, "its own moment stays its own"


def test_a_copy_has_the_options_of_its_container_and_nothing_that_outlives_it() -> None:
    inspected: dict[str, Any] = {
        "Image": "sha256:1",
        "Config": {"User": "10001", "Env": ["A=1"], "Entrypoint": ["run"], "Cmd": ["serve"], "StopSignal": "SIGINT", "StopTimeout": 40},
        "HostConfig": {
            "Memory": 5, "CapDrop": ["ALL"], "ReadonlyRootfs": True, "RestartPolicy": {"Name": "unless-stopped"},
            "PortBindings": {"80/tcp": [{"HostPort": "80"}]},
        },
        "NetworkSettings": {"Networks": {"shop-backend": {"Aliases": ["api"]}, "shop-database": {}}},
    }  # fmt: skip
    body = container_copy.body_of(inspected, ["data:/data:rw"], {"a": "b"}, ["migrate", "--fake"])
    assert body["Image"] == "sha256:1"
    assert (body["Entrypoint"], body["Cmd"]) == (["run"], ["migrate", "--fake"])
    host = body["HostConfig"]
    assert (host["Memory"], host["CapDrop"], host["ReadonlyRootfs"], host["Binds"]) == (5, ["ALL"], True, ["data:/data:rw"])
    assert (host["RestartPolicy"]["Name"], host["PortBindings"], host["NetworkMode"]) == ("no", {}, "shop-backend")
    assert body["NetworkingConfig"] == {"EndpointsConfig": {"shop-backend": {}}}, "under no name of the service"
    assert container_copy.body_of(inspected, [], {})["Cmd"] == ["serve"]


def test_a_progress_bar_of_a_copy_is_one_of_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_copy, "COPIES", str(tmp_path))
    log = "first\nsecond\r\n1 %\r2 %\r3 %\nlast\n"
    engine: Any = SimpleNamespace(
        inspect=lambda _name: {}, stop=lambda _found: None, logs=lambda *_unused: log, remove=lambda *_unused, **_also: None
    )
    assert container_copy.end_copy(engine, "shop-prune-1", 3) == ["second", "1 %\r2 %\r3 %", "last"]


def test_a_copy_reads_files_of_its_own(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "KEY").write_text("old")
    (secrets / "KEY").chmod(0o400)
    (secrets / "current").symlink_to("KEY")
    copies = tmp_path / "copies"
    copies.mkdir()
    binds = container_copy.copied_binds([f"{secrets}:/run/secrets:ro", "data:/data:rw,nocopy"], str(copies))
    assert binds == [f"{copies}/secrets:/run/secrets:ro", "data:/data:rw,nocopy"]
    (secrets / "KEY").unlink()
    (secrets / "KEY").write_text("new")
    assert (copies / "secrets/current").read_text() == "old"
    assert (copies / "secrets/KEY").stat().st_mode & 0o777 == 0o400


UNITS = {
    "/etc/systemd/system/slipway-shop-job.a.timer": {"content": "x"},
    "/etc/systemd/system/slipway-shop-job.a.service": {"content": "y"},
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {"stale": [], "differs": True}),
        ({"wanted": {}, "record": {"link": "digest"}}, {"stale": [], "differs": False}),
        ({"record": {"link": "digest"}}, {"stale": [], "differs": True}),
        ({"wanted": {}, "record": {"link": "another"}}, {"stale": [], "differs": True}),
        ({"wanted": {}, "record": {"link": "digest"}, "b.timer": {}}, {"stale": ["slipway-shop-job.b.timer"], "differs": True}),
    ],
)
def test_timers_are_loaded_when_they_differ(files: dict[str, Any], expected: dict[str, Any]) -> None:
    pattern, record = r"slipway-shop-job[.][a-z]+", "/etc/slipway/shop/jobs/timers"
    digest = timer_plan({}, UNITS, pattern, record)["units"]
    places = {
        "wanted": "/etc/systemd/system/timers.target.wants/slipway-shop-job.a.timer", "record": record,
        "b.timer": "/etc/systemd/system/slipway-shop-job.b.timer",
    }  # fmt: skip
    there = {places[name]: {"link": digest} if item.get("link") == "digest" else item for name, item in files.items()}
    found = timer_plan(there | {path: {} for path in UNITS}, UNITS, pattern, record)
    assert {key: found[key] for key in expected} == expected
    assert found["timers"] == ["slipway-shop-job.a.timer"]
    assert timer_plan({}, {}, pattern, record)["differs"] is False


def test_a_command_that_names_no_service_runs_where_migrations_do() -> None:
    page, mailer = {"image": "shop/page:1", "port": 80}, {"image": "shop/api:1"}
    api = {"image": "shop/api:1", "port": 8000, "migrate": {"command": ["migrate"]}}
    found = app_services.command_service({"app_services": {"mailer": mailer, "page": page, "api": {**api, "hosts": "first"}}})
    assert found == {"name": "api", "hosts": "first"}
    product = {"app_services": {"mailer": mailer, "page": page}}
    assert [app_services.command_service(product, name).get("name") for name in ("", "mailer", "mailr")] == ["page", "mailer", None]
    assert app_services.command_service({"app_services": {"mailer": mailer}})["name"] == "mailer"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> slipway_jobs.Run:
    """A run of a job on a host whose stack has this folder."""
    monkeypatch.setattr(slipway_jobs, "STACKS", tmp_path)
    (tmp_path / "shop/jobs").mkdir(parents=True)
    config = {**SETTINGS, "stack": "shop", "host": "a", "jobs": {"nightly": {"concurrency": "forbid", "deadline_seconds": 60}}}
    return slipway_jobs.Run(config, "nightly", 1_700_000_000)


def test_a_job_waits_for_the_end_of_a_restore(run: slipway_jobs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            run.restore.unlink()

    monkeypatch.setattr(slipway_jobs.time, "sleep", pause)
    run.wait_for_restore()
    assert not pauses
    run.restore.parent.mkdir(parents=True)
    run.restore.write_text("{}")
    run.wait_for_restore()
    assert pauses == [slipway_jobs.RESTORE_PAUSE] * 3


def test_a_restore_ends_a_job_that_runs(run: slipway_jobs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would write into data of two times; its result says why."""
    ended = []

    def follow(_engine: Any, _identity: str, _seconds: float, stopped: Any) -> tuple[str, int | None]:
        run.restore.parent.mkdir(parents=True)
        run.restore.write_text("{}")
        stopped()
        raise AssertionError

    monkeypatch.setattr(slipway_jobs.container_copy, "start_copy", lambda *_unused: "id")
    monkeypatch.setattr(slipway_jobs.container_copy, "follow_copy", follow)
    monkeypatch.setattr(slipway_jobs.container_copy, "end_copy", lambda _engine, name, _lines: ended.append(name) or ["half"])
    found = run.carry_out("shop-nightly-blue-1", "1.0", "/run/job")
    assert (found["result"], found["log"]) == ("failed", ["half", "a restore has begun"])
    assert ended == [run.name]


def test_a_run_that_waits_to_replace_another_is_replaced_itself(run: slipway_jobs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose times come faster than the one before ends would wait for each other, and none would run again."""
    run.settings = {**run.settings, "concurrency": "replace"}
    for moment in (run.moment - 60, run.moment, run.moment + 60):
        assert run.claims.claim(run.job, moment, "replace") == claims.CLAIMED
    monkeypatch.setattr(slipway_jobs.container_copy, "end_copy", lambda *_unused: [])
    found = run.carry_out("shop-nightly-blue-1", "1.0", "/run/job")
    assert (found["result"], found["code"]) == ("replaced", None)


def test_a_run_of_a_stack_that_is_removed_leaves_nothing(run: slipway_jobs.Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither secrets of the copy, which destroy.yml removes meanwhile, nor a folder that says that the stack is there."""

    def gone(*_unused: Any) -> str:
        raise EngineError("container which is dead or marked for removal")

    monkeypatch.setattr(slipway_jobs.container_copy, "COPIES", str(tmp_path / "copies"))
    for method, answer in {
        "inspect": lambda *_unused: {"State": {"Status": "removing"}},
        "stop": lambda *_unused: None,
        "logs": gone,
    }.items():
        monkeypatch.setattr(type(run.engine), method, answer)
    with container_copy.following(run.name) as folder:
        Path(folder, "secret").write_text("x")
        assert container_copy.end_copy(run.engine, run.name, 20) == []
    assert container_copy.left_copies(run.name) == []
    shutil.rmtree(tmp_path / "shop")
    slipway_jobs.conclude(run, {"result": "interrupted", "code": None, "seconds": 1.0, "version": "1.0", "log": []})
    assert not (tmp_path / "shop").exists()


def test_a_job_that_runs_here_for_this_time_is_left_alone(
    run: slipway_jobs.Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slipway_jobs, "Run", lambda *_unused: run)
    monkeypatch.setattr(slipway_jobs.container_copy, "COPIES", str(tmp_path / "copies"))
    monkeypatch.setattr(slipway_jobs.container_copy, "serving_container", lambda *_unused: ("shop-nightly-blue-1", "1.0"))
    monkeypatch.setattr(type(run.engine), "inspect", lambda *_unused: {})
    with container_copy.following(run.name):
        assert slipway_jobs.do_run({"stack": "shop"}, argparse.Namespace(job="nightly", moment=run.moment)) == 0
    assert "runs on this host already" in capsys.readouterr().err


@needs_systemd
def test_a_new_schedule_is_the_one_that_prometheus_expects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of the last run stays; of a job that has not run, nothing is expected, as before."""
    monkeypatch.setattr(slipway_jobs, "STACKS", tmp_path)
    monkeypatch.setattr(slipway_jobs.time, "time", lambda: seconds("2026-03-02 12:00:00"))
    state = tmp_path / "shop/jobs/state"
    state.mkdir(parents=True)
    last = slipway_jobs.gauges("shop", "nightly", {"last_run_success": 1, "last_run_timestamp_seconds": seconds("2026-03-02 03:00:00")})
    (state / "nightly.prom").write_text(last + slipway_jobs.gauges("shop", "nightly", {"next_run_timestamp_seconds": 5}))

    def expected(*calendars: str) -> str:
        schedule = {"schedule": list(calendars)}
        config = {"stack": "shop", "jobs": {"nightly": schedule, "new": schedule}}
        assert slipway_jobs.do_reschedule(config, argparse.Namespace()) == 0
        assert [path.name for path in state.iterdir()] == ["nightly.prom"]
        text = (state / "nightly.prom").read_text()
        assert text.startswith(last)
        return text.removeprefix(last)

    for calendar, moment in (("*-*-01 03:00:00 UTC", "2026-04-01 03:00:00"), ("*-*-* 04:00:00 UTC", "2026-03-03 04:00:00")):
        assert expected(calendar) == slipway_jobs.gauges("shop", "nightly", {"next_run_timestamp_seconds": seconds(moment)})
    assert expected("2024-01-01 00:00:00 UTC") == ""
