# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that runs a product's jobs: for which moment, on which host, and from which container."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import claims
import slipway_jobs
from ansible_collections.slipway.stack.plugins.filter.timer_plan import timer_plan
from ansible_collections.slipway.stack.plugins.module_utils import config_files, container_copy
from ansible_collections.slipway.stack.plugins.module_utils.engine import EngineError
from ansible_collections.slipway.stack.plugins.modules import container_run
from ansible_collections.slipway.stack.plugins.plugin_utils import app_services, status
from conftest import ROOT, role_variable

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
#: Takes what a program does with the claims, for Pythons that have the client of PostgreSQL.
BEGIN = """
import contextlib, json, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
import claims
claims.LEASE_SECONDS = float(sys.argv[2])
config, folder, method, *arguments = json.load(sys.stdin)
"""
#: Runs a method of the claims.
CALL = f"""{BEGIN}
print(json.dumps(getattr(claims.Claims(config, Path(folder)), method)(*arguments)))
"""

#: Does so after one whose answer was lost when it was committed; prints whether it was, too.
LOST_ANSWER = f"""{BEGIN}
class Lossy(claims.Claims):
    lost = False
    @contextlib.contextmanager
    def _transaction(self):
        with super()._transaction() as found:
            yield found
        if not self.lost:
            self.lost = True
            raise claims.ClaimError("server closed the connection unexpectedly")
made = Lossy(config, Path(folder))
with contextlib.suppress(claims.ClaimError):
    getattr(made, method)(*arguments)
print(json.dumps([made.lost, getattr(made, method)(*arguments)]))
"""
#: Prints the result of a run.
RESULT = f"""{BEGIN}
with claims.Claims(config, Path(folder))._transaction() as (rows, now):
    print(json.dumps(rows.first("select result from runs where job = ? and moment = ?", *arguments)[0]))
"""


class Host:
    """The claims as the program of one host sees them, each call in a process of its own."""

    lease = claims.LEASE_SECONDS

    def __init__(self, name: str, folder: Path, settings: dict[str, Any], python: str) -> None:
        self.folder, self.config, self.python = folder, {**SETTINGS, **settings, "host": name}, python

    def call(self, method: str, *arguments: Any, program: str = CALL) -> Any:
        given = json.dumps([self.config, str(self.folder), method, *arguments])
        argv = [self.python, "-c", program, f"{ROOT}/packages/slipway_jobs/src:{ROOT}/collections", str(self.lease)]
        done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def claim(self, moment: int, concurrency: str = "forbid") -> Any:
        return self.call("claim", "cleanup", moment, concurrency)

    def result(self, moment: int) -> Any:
        return self.call("result", "cleanup", moment, program=RESULT)


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
    barrier = threading.Barrier(8)

    def attempt(number: int) -> str:
        barrier.wait()
        return hosts[number % 2].claim(1000)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(8)))
    assert sorted(answers) == sorted([claims.CLAIMED] + [claims.TAKEN] * 7)


@pytest.mark.parametrize("concurrency", ["forbid", "allow", "replace"])
def test_a_claim_whose_answer_was_lost_is_still_the_own_one(hosts: list[Host], concurrency: str) -> None:
    first, second = hosts
    assert second.claim(940) == claims.CLAIMED
    lossy = first.call("claim", "cleanup", 1000, concurrency, program=LOST_ANSWER)
    assert lossy == [True, claims.BUSY if concurrency == "forbid" else claims.CLAIMED]
    assert second.call("is_replaced", "cleanup", 940) is (concurrency == "replace")
    for host in hosts:
        assert host.claim(1000, concurrency) == claims.TAKEN, "also for a later program of the same host"


def test_the_first_result_of_a_run_stays(hosts: list[Host]) -> None:
    """Who removes what is left of it later knows less."""
    first, second = hosts
    first.claim(1000)
    second.lease = -1
    second.claim(1060)
    for result in ("deadline", "interrupted"):
        first.call("end", "cleanup", 1000, result)
    assert first.result(1000) == "deadline", "it was counted as lost in between"


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


@pytest.mark.parametrize(
    ("entrypoint", "copied", "command", "run"),
    [
        # As the image says, behind what exports secrets.
        (["sh", "export"], {"wrapper": 2, "entrypoint": ["python", "manage.py"], "without": []}, ["migrate"],
         ["sh", "export", "python", "manage.py", "migrate"]),
        (["sh", "export"], {"wrapper": 2, "entrypoint": ["python", "manage.py"], "without": []}, [],
         ["sh", "export", "python", "manage.py", "serve"]),
        (["sh", "export"], {"wrapper": 2, "entrypoint": [], "without": []}, ["migrate"], ["sh", "export", "migrate"]),
        # What runs while volumes are copied is left out, also where nothing else is in front of the program.
        (["sh", "export", "sh", "quiesce", "a", "b"], {"wrapper": 2, "entrypoint": ["python"], "without": ["api_quiesce"]}, ["migrate"],
         ["sh", "export", "python", "migrate"]),
        (["sh", "quiesce", "a", "b"], {"wrapper": 0, "entrypoint": [], "without": ["api_quiesce"]}, ["migrate", "--all"],
         ["migrate", "--all"]),
    ],
)  # fmt: skip
def test_a_copy_starts_its_command_as_the_service_starts_its_own(
    entrypoint: list[str], copied: dict[str, Any], command: list[str], run: list[str]
) -> None:
    inspected = {
        "Image": "sha256:1",
        "Config": {
            "Entrypoint": entrypoint,
            "Cmd": ["python", "manage.py", "serve"],
            "Labels": {container_copy.COPIED: json.dumps(copied)},
        },
        "HostConfig": {},
        "NetworkSettings": {"Networks": {}},
    }
    body = container_copy.body_of(inspected, [], {}, command)
    assert body["Entrypoint"] + body["Cmd"] == run
    assert body["Entrypoint"], "with none, the engine would take the image's"


def test_a_copy_does_without_the_volume_by_which_its_service_is_quiesced(tmp_path: Path) -> None:
    asked: list[Any] = []

    def request(_method: str, path: str, _query: Any = None, body: Any = None) -> bytes:
        asked.append((path, body))
        return b'{"Id": "1"}'

    inspected = {
        "Image": "sha256:1",
        "Config": {
            "Entrypoint": ["sh", "quiesce"],
            "Cmd": ["serve"],
            "Labels": {container_copy.COPIED: json.dumps({"wrapper": 0, "entrypoint": [], "without": ["api_quiesce"]})},
        },
        "HostConfig": {"Binds": ["uploads:/uploads:rw,nocopy", "api_quiesce:/slipway/backup:rw,nocopy"]},
        "NetworkSettings": {"Networks": {}},
    }
    engine: Any = SimpleNamespace(inspect=lambda _name: inspected, request=request)
    container_copy.start_copy(engine, "shop-api-blue-1", "shop-run-api-1", {}, str(tmp_path), ["migrate"])
    assert asked[0][1]["HostConfig"]["Binds"] == ["uploads:/uploads:rw,nocopy"]


def test_a_command_whose_run_has_ended_is_noticed() -> None:
    """By Ctrl-C, a cancelled job or a lost connection: SSH closes its end."""
    for reading, writing in (os.pipe(), tuple(end.detach() for end in socket.socketpair())):
        assert not container_run.reader_is_gone(writing)
        os.close(reading)
        assert container_run.reader_is_gone(writing)
        os.close(writing)
    with open(os.devnull, "wb") as file:
        assert not container_run.reader_is_gone(file.fileno())


def test_a_command_whose_run_has_ended_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_copy, "COPIES", str(tmp_path))
    monkeypatch.setattr(container_copy, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(container_copy, "serving_container", lambda *_unused: ("shop-api-blue-1", "1.0"))
    monkeypatch.setattr(container_copy, "start_copy", lambda *_unused: "1")
    monkeypatch.setattr(container_run, "reader_is_gone", lambda: True)
    stopped: list[str] = []
    engine: Any = SimpleNamespace(
        containers=list,
        inspect=lambda name: {"Id": name, "State": {"Running": True, "Status": "running"}},
        request=lambda *_unused, **_also: b"",
        stop=lambda found: stopped.append(found["Id"]),
        logs=lambda *_unused: "",
        remove=lambda *_unused, **_also: None,
    )
    options = {"stack": "shop", "root": "/", "service": "api", "command": ["sleep", "3600"], "timeout": 3600}
    began = time.monotonic()
    assert container_run.run(engine, options)["code"] is None
    assert time.monotonic() - began < 60
    assert len(stopped) == 1


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


CURRENT = "/etc/slipway/shop/jobs/config/current"
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


def test_what_a_reboot_leaves_is_removed_where_a_host_has_jobs() -> None:
    def units(scheduled: dict[str, Any]) -> dict[str, Any]:
        return dict(role_variable("jobs", "__jobs_unit_files", {"jobs_stack": "shop", "__jobs_scheduled": scheduled}))

    files = units({"nightly": {"schedule": ["*-*-* 03:00:00 UTC"]}})
    prefix = "/etc/systemd/system/slipway-shop-job"
    assert sorted(files) == [f"{prefix}.nightly.service", f"{prefix}.nightly.timer", f"{prefix}s.service", f"{prefix}s.timer"]
    assert {item["mode"] for item in files.values()} == {"0644"}
    assert "OnBootSec=" in files[f"{prefix}s.timer"]["content"]
    assert f"ExecStart=/usr/bin/python3 {CURRENT}/slipway_jobs.py clean" in files[f"{prefix}s.service"]["content"]
    assert units({}) == {}
    there = {f"{prefix}s.timer": {}, f"{prefix}.nightly.timer": {}, "/etc/systemd/system/slipway-shop-2-jobs.timer": {}}
    found = {"jobs_stack": "shop", "jobs_services": {}, "__jobs_scheduled": {}, "container_service_host_state": {"files": there}}
    stale = ["slipway-shop-job.nightly.timer", "slipway-shop-jobs.timer"]
    assert role_variable("jobs", "__jobs_timer_plan", found)["stale"] == stale


def test_a_command_that_names_no_service_runs_where_migrations_do() -> None:
    page, mailer = {"image": "shop/page:1", "port": 80}, {"image": "shop/api:1"}
    api = {"image": "shop/api:1", "port": 8000, "migrate": {"command": ["migrate"]}}
    found = app_services.command_service({"app_services": {"mailer": mailer, "page": page, "api": {**api, "hosts": "first"}}})
    assert found == {"name": "api", "hosts": "first"}
    product = {"app_services": {"mailer": mailer, "page": page}}
    assert [app_services.command_service(product, name).get("name") for name in ("", "mailer", "mailr")] == ["page", "mailer", None]
    assert app_services.command_service({"app_services": {"mailer": mailer}})["name"] == "mailer"


class Clock:
    """What stands for the module time: it goes on during a sleep, and things happen at their seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.events: dict[float, Callable[[], object]] = {}

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return MOMENT + self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        for due in sorted(due for due in self.events if due <= self.now):
            self.events.pop(due)()


class FakeEngine:
    """An engine whose containers end when a test says so, and which may be away."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Any]] = {}
        self.away = False
        self.refuses_to_wait = False
        self.ends_at_once = False
        self.stopping: Callable[[], object] = lambda: None
        self.add("shop-nightly-blue-1", "app-blue")

    def add(self, name: str, owner: str = "app-job", *, running: bool = False) -> None:
        self.made[name] = {
            "Id": name,
            "Image": "sha256:1",
            "Config": {"Labels": {"slipway.owner": owner, "slipway.version": "1.0"}},
            "HostConfig": {},
            "NetworkSettings": {"Networks": {}},
            "State": {"Running": running, "Status": "running" if running else "exited", "ExitCode": 0},
        }

    def end(self, name: str, code: int = 0) -> None:
        self.made[name]["State"].update({"Running": False, "Status": "exited", "ExitCode": code})

    def answer(self) -> None:
        if self.away:
            raise EngineError("Docker Engine at /var/run/docker.sock: [Errno 2] No such file or directory")

    def containers(self) -> list[dict[str, Any]]:
        self.answer()
        return [{"Names": [f"/{name}"], "Labels": made["Config"]["Labels"]} for name, made in self.made.items()]

    def inspect(self, name: str) -> dict[str, Any] | None:
        self.answer()
        return self.made.get(name)

    def request(self, _method: str, path: str, query: Any = None, _body: Any = None, **_options: Any) -> bytes:
        self.answer()
        if path.endswith("/wait") and self.refuses_to_wait:
            raise EngineError("server error", 500)
        if path.endswith("/create"):
            self.add(query["name"], running=not self.ends_at_once)
            return json.dumps({"Id": query["name"]}).encode()
        return b""

    def stop(self, inspected: dict[str, Any]) -> None:
        self.answer()
        self.stopping()
        self.end(inspected["Id"], 143)

    def logs(self, *_unused: Any) -> str:
        self.answer()
        return "its last words"

    def remove(self, name: str, **_options: Any) -> None:
        self.answer()
        del self.made[name]


MOMENT = 1_700_000_000
CONFIG: dict[str, Any] = {
    **SETTINGS,
    "stack": "shop",
    "host": "a",
    "jobs": {"nightly": {"concurrency": "forbid", "deadline_seconds": 60, "schedule": []}},
}


@pytest.fixture(autouse=True)
def owned_by_whoever_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """On hosts, the program writes as root."""
    if os.geteuid() != 0:
        monkeypatch.setattr(config_files.os, "chown", lambda *_arguments: None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (slipway_jobs, container_copy):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeEngine:
    """The engine of a host where version 1.0 serves."""
    made = FakeEngine()
    monkeypatch.setattr(slipway_jobs, "Engine", lambda: made)
    monkeypatch.setattr(container_copy, "COPIES", str(tmp_path / "copies"))
    monkeypatch.setattr(container_copy, "serving_container", lambda *_unused: ("shop-nightly-blue-1", "1.0"))
    return made


@pytest.fixture
def sigterm() -> Iterator[Callable[[], object]]:
    """Have the program end where it is asked to, as its main function does; returns what asks it."""
    before = signal.signal(signal.SIGTERM, lambda *_unused: sys.exit(1))
    yield lambda: signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> slipway_jobs.Run:
    """A run of a job on a host whose stack has this folder."""
    monkeypatch.setattr(slipway_jobs, "STACKS", tmp_path)
    (tmp_path / "shop/jobs").mkdir(parents=True)
    made = slipway_jobs.Run(CONFIG, "nightly", MOMENT)
    assert made.engine is engine  # type: ignore[comparison-overlap]
    return made


def do_run(moment: int = MOMENT, **settings: Any) -> int:
    config = {**CONFIG, "jobs": {"nightly": {**CONFIG["jobs"]["nightly"], **settings}}}
    return slipway_jobs.do_run(config, argparse.Namespace(job="nightly", moment=moment))


def kept() -> dict[str, Any]:
    """Return the result that the host has of the job."""
    found: dict[str, Any] = json.loads((slipway_jobs.STACKS / "shop/jobs/state/nightly.json").read_text())
    return found


def row(moment: int = MOMENT) -> str | None:
    """Return the result of a run as the claims have it."""
    with contextlib.closing(sqlite3.connect(slipway_jobs.STACKS / "shop/jobs/state/claims.sqlite")) as connection:
        return connection.execute("select result from runs where moment = ?", [moment]).fetchone()[0]  # type: ignore[no-any-return]


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

    def follow(_engine: Any, _identity: str, _seconds: float, stopped: Any) -> tuple[str, int | None]:
        run.restore.parent.mkdir(parents=True)
        run.restore.write_text("{}")
        stopped()
        raise AssertionError

    monkeypatch.setattr(slipway_jobs.container_copy, "follow_copy", follow)
    assert do_run() == 1
    assert (kept()["result"], kept()["log"]) == ("failed", ["its last words", "a restore has begun"])
    assert container_copy.left_copies(run.engine, run.prefix, "app-job") == []


def test_a_run_that_waits_to_replace_another_is_replaced_itself(run: slipway_jobs.Run) -> None:
    """Runs whose times come faster than the one before ends would wait for each other, and none would run again."""
    run.settings = {**run.settings, "concurrency": "replace"}
    for moment in (run.moment - 60, run.moment, run.moment + 60):
        assert run.claims.claim(run.job, moment, "replace") == claims.CLAIMED
    assert run.carry_out("shop-nightly-blue-1", "1.0", "/run/job") == "replaced"
    assert (kept()["result"], kept()["code"]) == ("replaced", None)


def test_a_run_of_a_stack_that_is_removed_leaves_nothing(run: slipway_jobs.Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither secrets of the copy, which destroy.yml removes meanwhile, nor a folder that says that the stack is there."""

    def gone(*_unused: Any) -> str:
        raise EngineError("container which is dead or marked for removal")

    for method, answer in {
        "inspect": lambda *_unused: {"State": {"Status": "removing"}},
        "stop": lambda *_unused: None,
        "logs": gone,
    }.items():
        monkeypatch.setattr(type(run.engine), method, answer)
    with container_copy.following(run.name) as folder:
        Path(folder, "secret").write_text("x")
        assert container_copy.end_copy(run.engine, run.name, 20) == []
    assert container_copy.copy_folders(run.name) == []
    shutil.rmtree(tmp_path / "shop")
    slipway_jobs.conclude(run, {"result": "interrupted", "code": None, "seconds": 1.0, "version": "1.0", "log": []})
    assert not (tmp_path / "shop").exists()


@pytest.mark.parametrize("left", ["", "{", "[]", "{}", '{"result": "failed", "moment": 5, "finished": 5}'])
def test_a_damaged_result_of_a_job_is_replaced(run: slipway_jobs.Run, tmp_path: Path, left: str) -> None:
    file = tmp_path / "shop/jobs/state" / f"{run.job}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(left)
    slipway_jobs.conclude(run, {"result": "unclaimed", "code": None, "seconds": None, "log": []})
    assert json.loads(file.read_text())["result"] == "unclaimed"
    assert file.stat().st_mode & 0o777 == 0o600, "its log may hold a secret"


def test_a_job_that_runs_here_for_this_time_is_left_alone(run: slipway_jobs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    with container_copy.following(run.name):
        assert do_run() == 0
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


def test_a_run_that_notes_new_schedules_reports_a_change() -> None:
    tasks = yaml.safe_load((ROOT / "roles/jobs/tasks/main.yml").read_text())
    assert [task["changed_when"] for task in tasks if "reschedule" in (task.get("ansible.builtin.command") or {}).get("argv", [])] == [True]


@pytest.mark.parametrize("gone", ["away", "refuses_to_wait"])
def test_an_engine_that_is_away_is_asked_at_the_pace_of_the_others(engine: FakeEngine, clock: Clock, gone: str) -> None:
    """The question whether the run is replaced is a connection of PostgreSQL each time."""
    engine.add("copy", running=True)
    setattr(engine, gone, True)
    looks = 0

    def is_replaced() -> bool:
        nonlocal looks
        looks += 1
        assert looks <= 60 / container_copy.LOOK_SECONDS
        return False

    assert container_copy.follow_copy(engine, "copy", 60, is_replaced) == ("deadline", None)  # type: ignore[arg-type]
    assert looks > 0
    assert clock.now == pytest.approx(60, abs=1)
    clock.events = {clock.now + 20: lambda: setattr(engine, gone, False), clock.now + 10: lambda: engine.end("copy")}
    assert container_copy.follow_copy(engine, "copy", 60) == ("succeeded", 0)


@pytest.mark.usefixtures("run")
def test_an_engine_that_is_away_at_the_time_of_a_job_is_waited_for(engine: FakeEngine, clock: Clock) -> None:
    engine.away = engine.ends_at_once = True
    clock.events[100] = lambda: setattr(engine, "away", False)
    assert do_run() == 0
    assert (kept()["result"], kept()["version"], row()) == ("succeeded", "1.0", "succeeded")
    assert list(engine.made) == ["shop-nightly-blue-1"]


@pytest.mark.parametrize("what", ["engine", "claims"])
def test_a_job_that_cannot_be_claimed_is_visible_and_may_be_run_by_another_host(
    run: slipway_jobs.Run, engine: FakeEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    engine.ends_at_once = True
    do_run(MOMENT - 60)
    figures = (slipway_jobs.STACKS / "shop/jobs/state/nightly.prom").read_text()
    assert run.claims.claim(run.job, MOMENT, "forbid") == claims.CLAIMED, "by another host"

    def fail(*_unused: Any) -> str:
        raise claims.ClaimError("the database is away")

    with monkeypatch.context() as patched:
        engine.away = what == "engine"
        if what == "claims":
            patched.setattr(claims.Claims, "claim", fail)
        with pytest.raises(slipway_jobs.JobError, match=r"away|No such file"):
            do_run()
    engine.away = False
    assert clock.now == pytest.approx(slipway_jobs.ANSWER_SECONDS, abs=10)
    assert kept()["result"] == slipway_jobs.UNCLAIMED == status.UNCLAIMED
    assert row() is None, "the other host's run has not ended"
    assert (slipway_jobs.STACKS / "shop/jobs/state/nightly.prom").read_text() == figures, "what was not run here has not failed"
    assert container_copy.copy_folders(run.prefix) == []
    # Where no host had it, it can be run later.
    engine.ends_at_once = True
    assert do_run(MOMENT + 1, concurrency="allow") == 0
    assert kept()["result"] == "succeeded"


@pytest.mark.parametrize("back", [200, 10_000])
def test_a_run_whose_engine_went_away_has_a_result(run: slipway_jobs.Run, engine: FakeEngine, clock: Clock, back: int) -> None:
    clock.events = {10: lambda: setattr(engine, "away", True), back: lambda: setattr(engine, "away", False)}
    assert do_run() == 1
    assert (kept()["result"], row()) == ("deadline", "deadline")
    clock.sleep(10_000)
    slipway_jobs.do_clean(CONFIG, argparse.Namespace())
    assert list(engine.made) == ["shop-nightly-blue-1"]
    assert container_copy.copy_folders(run.prefix) == []
    assert (kept()["result"], row()) == ("deadline", "deadline"), "its removal does not change the result"


def test_a_run_that_a_reboot_has_ended_is_interrupted(run: slipway_jobs.Run, engine: FakeEngine) -> None:
    """Nothing is left of it but its container: what follows copies is in memory."""
    engine.ends_at_once = True
    do_run(MOMENT - 86400)
    assert run.claims.claim(run.job, MOMENT, "forbid") == claims.CLAIMED
    others = {"shop-nightly-blue-1": "app-blue", "shop-nightly-7": "app-run", "shop-nightly-x-1": "app-job", "shop-2-nightly-7": "app-job"}
    for name, owner in {**others, run.name: "app-job"}.items():
        engine.add(name, owner)
    slipway_jobs.do_clean(CONFIG, argparse.Namespace())
    assert sorted(engine.made) == sorted(others)
    assert (kept()["result"], kept()["version"], kept()["log"]) == ("interrupted", "1.0", ["its last words"])
    assert row() == "interrupted"
    assert "last_run_success{" in (figures := (slipway_jobs.STACKS / "shop/jobs/state/nightly.prom").read_text())
    assert f'last_run_timestamp_seconds{{stack="shop",job="nightly"}} {MOMENT}' in figures


def test_a_run_that_a_reboot_has_ended_does_not_hide_a_later_one(run: slipway_jobs.Run, engine: FakeEngine) -> None:
    """The timer that missed its time fires at once, and may be faster."""
    engine.ends_at_once = True
    with container_copy.following(run.name):
        engine.add(run.name)
        assert do_run(MOMENT + 60) == 0
    slipway_jobs.do_clean(CONFIG, argparse.Namespace())
    assert list(engine.made) == ["shop-nightly-blue-1"]
    assert (kept()["result"], kept()["moment"]) == ("succeeded", slipway_jobs.instant(MOMENT + 60))


@pytest.mark.usefixtures("clock")
def test_a_result_of_a_clock_that_was_wrong_does_not_stay(run: slipway_jobs.Run, engine: FakeEngine) -> None:
    engine.ends_at_once = True
    do_run(MOMENT + 10**8)
    engine.add(run.name)
    slipway_jobs.do_clean(CONFIG, argparse.Namespace())
    assert kept()["result"] == "interrupted"


def test_a_program_that_was_killed_before_its_claim_leaves_no_result(run: slipway_jobs.Run) -> None:
    """Its time may be another host's."""
    assert run.claims.claim(run.job, MOMENT, "forbid") == claims.CLAIMED
    (Path(container_copy.COPIES) / run.name).mkdir(parents=True)
    slipway_jobs.do_clean(CONFIG, argparse.Namespace())
    assert container_copy.copy_folders(run.prefix) == []
    assert not (slipway_jobs.STACKS / "shop/jobs/state/nightly.json").exists()
    assert row() is None


@pytest.mark.usefixtures("engine")
def test_a_shutdown_ends_a_job_before_its_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[list[str]] = []
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(slipway_jobs, "UNITS", tmp_path)
    monkeypatch.setattr(slipway_jobs, "last_moment", lambda *_unused: 2**40)
    monkeypatch.setattr(slipway_jobs.subprocess, "run", lambda argv, **_options: called.append(argv) or done)
    (tmp_path / "slipway-shop-job.nightly.timer").touch()
    assert slipway_jobs.do_fire(CONFIG, argparse.Namespace(job="nightly")) == 0
    assert "--property=After=docker.service" in called[0]


@pytest.mark.usefixtures("run")
def test_a_run_that_a_shutdown_ends_is_interrupted(engine: FakeEngine, clock: Clock, sigterm: Callable[[], object]) -> None:
    """Also where the engine does not answer at that moment."""
    clock.events = {12: lambda: (setattr(engine, "away", True), sigterm()), 30: lambda: setattr(engine, "away", False)}
    assert do_run() == 1
    assert (kept()["result"], kept()["log"], row()) == ("interrupted", ["its last words"], "interrupted")
    assert list(engine.made) == ["shop-nightly-blue-1"]


@pytest.mark.usefixtures("run", "clock")
def test_a_shutdown_while_a_run_ends_changes_nothing_of_its_result(engine: FakeEngine, sigterm: Callable[[], object]) -> None:
    engine.stopping = sigterm
    with pytest.raises(slipway_jobs.JobError, match="was asked to end"):
        do_run()
    assert (kept()["result"], row()) == ("deadline", "deadline")
    assert list(engine.made) == ["shop-nightly-blue-1"]


def test_a_run_that_a_shutdown_ends_before_its_claim_is_visible(run: slipway_jobs.Run, clock: Clock, sigterm: Callable[[], object]) -> None:
    run.restore.parent.mkdir(parents=True)
    run.restore.write_text("{}")
    clock.events[30] = sigterm
    with pytest.raises(slipway_jobs.JobError, match="was asked to end"):
        do_run()
    assert kept()["result"] == slipway_jobs.UNCLAIMED
    assert container_copy.copy_folders(run.prefix) == []


def test_one_run_waits_for_a_restore_however_long_it_takes(
    run: slipway_jobs.Run, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the last time; its job may run alone, or together with others."""
    engine.ends_at_once = True
    run.restore.parent.mkdir(parents=True)
    run.restore.write_text("{}")
    monkeypatch.setattr(slipway_jobs, "RESTORE_PAUSE", 0.01)
    threads = [threading.Thread(target=do_run, args=(MOMENT + 60 * number,), kwargs={"concurrency": "allow"}) for number in range(5)]
    for number, thread in enumerate(threads):
        thread.start()
        if number:
            threads[number - 1].join(timeout=30)
            assert not threads[number - 1].is_alive()
    run.restore.unlink()
    threads[-1].join(timeout=30)
    assert (kept()["result"], kept()["moment"]) == ("succeeded", slipway_jobs.instant(MOMENT + 240))
    assert row(MOMENT + 240) == "succeeded"
    with contextlib.closing(sqlite3.connect(slipway_jobs.STACKS / "shop/jobs/state/claims.sqlite")) as connection:
        assert connection.execute("select count(*) from runs").fetchone() == (1,)
    assert container_copy.copy_folders(run.prefix) == []


@pytest.mark.parametrize(("ended", "success"), [("succeeded", 1), ("replaced", 1), ("failed", 0), ("deadline", 0)])
@pytest.mark.usefixtures("run")
def test_a_run_that_was_replaced_has_not_failed(monkeypatch: pytest.MonkeyPatch, ended: str, success: int) -> None:
    """For Prometheus, the exit status and the status of the fleet."""
    monkeypatch.setattr(slipway_jobs.container_copy, "follow_copy", lambda *_unused: (ended, None))
    assert do_run() == 1 - success
    assert (
        f'slipway_job_last_run_success{{stack="shop",job="nightly"}} {success}\n'
        in (slipway_jobs.STACKS / "shop/jobs/state/nightly.prom").read_text()
    )
    assert (ended in status.GOOD_RESULTS) == success


@pytest.mark.parametrize("method", ["claim", "others_run", "end"])
@pytest.mark.usefixtures("run", "clock")
def test_one_lost_answer_of_the_database_costs_nothing(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    engine.ends_at_once = True
    ask, lost = getattr(claims.Claims, method), []

    def lose(*arguments: Any) -> Any:
        answer = ask(*arguments)
        if not lost:
            lost.append(method)
            raise claims.ClaimError("server closed the connection unexpectedly")
        return answer

    monkeypatch.setattr(claims.Claims, method, lose)
    assert do_run(concurrency="replace") == 0
    assert (lost, kept()["result"], row()) == ([method], "succeeded", "succeeded")
