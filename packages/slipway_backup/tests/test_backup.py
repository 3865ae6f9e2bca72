# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What decides in the program of the backups: which points count, which are kept, and what a failed run leaves."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from slipway_backup import __main__ as program
from slipway_backup import chroma, common, exchange, offsite, pace, points, postgres, redis, report, restore, run, serve

RETENTION = {"days": 3, "weeks": 2, "months": 2}
NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


@pytest.fixture
def config(tmp_path: Path) -> common.Config:
    """Redis alone, so that nothing has to run."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "redis_password").write_text("redis-password-1\n")
    # As the container's first process makes it.
    (tmp_path / "data/points").mkdir(parents=True)
    return common.Config(
        stack="shop",
        data=tmp_path / "data",
        postgres={},
        redis={"host": "redis", "port": 6379, "user": "backup"},
        chroma={},
        volumes=[],
        offsite={"repository": ""},
        retention=RETENTION,
        minimum_free_percent=0,
        maximum_age_hours=26,
        maximum_verified_age_hours=192,
        settings={"images": {"redis": "redis:7-alpine"}},
        secrets=secrets,
    )


def make_point(config: common.Config, moment: datetime, verdict: str = "", text: str = "data") -> points.Point:
    """Write a point of Redis alone."""
    folder = config.points / common.point_name(moment)
    (folder / "redis").mkdir(parents=True)
    (folder / "redis/dump.rdb").write_text(text)
    manifest = {
        "schema_version": 1,
        "name": folder.name,
        "moment": common.stamp(moment),
        "stores": {"redis": {"keys": 1}},
        "files": points.describe_files(folder),
    }
    common.write_json(folder / points.MANIFEST, manifest)
    if verdict:
        points.record_verdict(config, folder.name, verdict, {"reason": "so"})
    return points.find_point(config, folder.name)


# Retention


def test_the_newest_of_each_period_is_kept():
    moments = {f"{days:03}": NOON - timedelta(days=days) for days in range(100)}
    kept = points.kept(moments, RETENTION)
    # The 23rd is a Monday: this week's newest is of today, last week's of yesterday, last month's of the 31st.
    assert kept == {"000", "001", "002", "023"}


def test_points_of_the_last_day_are_all_kept():
    moments = {f"{hours:02}": NOON - timedelta(hours=hours) for hours in range(0, 48, 6)}
    assert points.kept(moments, {"days": 1}) == {"00", "06", "12", "18"}


def test_without_a_retention_the_newest_is_kept():
    assert points.kept({"a": NOON, "b": NOON - timedelta(days=9)}, {}) == {"a"}
    assert points.kept({}, RETENTION) == set()


def test_the_last_verified_point_is_kept_however_old(config: common.Config):
    old = make_point(config, NOON - timedelta(days=300), "verified")
    older = make_point(config, NOON - timedelta(days=301), "verified")
    failed = make_point(config, NOON - timedelta(days=299), "failed")
    new = [make_point(config, NOON - timedelta(days=days)).name for days in (30, 2, 1, 0)]
    assert run.prune_here(config) == [older.name, failed.name]
    assert [point.name for point in points.read_points(config)] == [old.name, *new]


# Points


def test_a_folder_without_a_manifest_is_not_a_point(config: common.Config):
    point = make_point(config, NOON)
    (point.folder / points.MANIFEST).unlink()
    assert points.read_points(config) == []
    with pytest.raises(common.StepError, match="no recovery point"):
        points.find_point(config, "latest")


def test_latest_passes_over_a_point_that_a_drill_has_failed(config: common.Config):
    good = make_point(config, NOON - timedelta(days=1))
    bad = make_point(config, NOON, "failed")
    assert points.find_point(config, "latest").name == good.name
    assert points.find_point(config, bad.name).verdict == "failed"
    points.record_verdict(config, bad.name, "verified", {})
    assert points.find_point(config, "latest").name == bad.name
    assert [entry["result"] for entry in points.find_point(config, bad.name).verifications] == ["verified", "failed"]


def test_damage_to_a_file_is_found(config: common.Config):
    point = make_point(config, NOON)
    assert points.file_faults(point) == []
    (point.folder / "redis/dump.rdb").write_text("dat4")
    assert points.file_faults(point) == ["redis/dump.rdb is damaged: its digest differs"]
    (point.folder / "redis/dump.rdb").write_text("longer")
    assert points.file_faults(point) == ["redis/dump.rdb has 6 bytes instead of 4"]
    (point.folder / "redis/dump.rdb").unlink()
    assert points.file_faults(point) == ["redis/dump.rdb is missing"]


def test_a_damaged_store_is_not_put_together(config: common.Config, tmp_path: Path):
    point = make_point(config, NOON)
    told = restore.extract(config, "redis", "latest", tmp_path / "good")
    assert told["point"] == point.name
    assert (tmp_path / "good/dump.rdb").read_text() == "data"
    with pytest.raises(common.StepError, match="is not empty"):
        restore.extract(config, "redis", "latest", tmp_path / "good")
    (point.folder / "redis/dump.rdb").write_text("dat4")
    with pytest.raises(common.StepError, match=r"damaged: redis/dump.rdb"):
        restore.extract(config, "redis", "latest", tmp_path / "bad")
    with pytest.raises(common.StepError, match="does not contain chroma"):
        restore.extract(config, "chroma", "latest", tmp_path / "none")


def test_a_time_says_its_zone():
    assert restore.parse_time("2026-11-23 12:00:00+00:00") == NOON
    assert restore.parse_time("2026-11-23T12:00:00Z") == NOON
    assert restore.parse_time("2026-11-23 12:00:00.0+00") == NOON
    with pytest.raises(common.StepError, match="has no time zone"):
        restore.parse_time("2026-11-23 12:00:00")
    with pytest.raises(common.StepError, match="is not a time"):
        restore.parse_time("yesterday")
    with pytest.raises(common.StepError, match="as one word"):
        restore.parse_time("2026-11-23")


# A run


def capture_of(keys: int) -> Any:
    """Return a stand-in for the capture of Redis."""

    def capture(_: common.Config, folder: Path) -> dict[str, Any]:
        (folder / "redis").mkdir()
        (folder / "redis/dump.rdb").write_text("x" * keys)
        return {"keys": keys, "seconds": 0.1}

    return capture


def test_a_run_leaves_a_point_with_its_manifest(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redis, "capture", capture_of(3))
    manifest = run.run(config, "test", facts={"certificates": {"a:443": {"pem": "…", "sha256": "0a"}}})
    (point,) = points.read_points(config)
    assert point.manifest == manifest
    assert point.manifest["settings"]["certificates"] == {"a:443": "0a"}
    assert set(point.manifest["files"]) == {"redis/dump.rdb", "settings/settings.json"}
    assert points.file_faults(point) == []
    told = common.read_json(config.data / "report.json")
    assert told["last_run"]["result"] == "ok"
    assert told["last_point"]["name"] == point.name
    assert told["alerts"] == []
    assert 'slipway_backup_last_run_success{stack="shop"} 1' in (config.data / "metrics/slipway_backup.prom").read_text()


@pytest.mark.parametrize("error", [common.StepError("Redis is away"), OSError(28, "No space left on device"), SystemExit(1)])
def test_a_run_that_fails_leaves_nothing_and_says_why(config: common.Config, monkeypatch: pytest.MonkeyPatch, error: BaseException):
    def fail(_: common.Config, folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("half")
        raise error

    monkeypatch.setattr(redis, "capture", fail)
    with pytest.raises((common.StepError, SystemExit)):
        run.run(config, "test")
    assert list(config.points.iterdir()) == []
    told = common.read_json(config.data / "report.json")
    assert told["last_run"]["result"] == "failed"
    assert told["last_run"]["reason"]
    assert told["alerts"][0].startswith("the last run failed: ")


@pytest.mark.parametrize("steps", [[True], [True, False]], ids=["begins", "takes place"])
def test_a_point_of_data_from_before_and_after_an_exchange_is_not_kept(
    config: common.Config, monkeypatch: pytest.MonkeyPatch, steps: list[bool]
):
    """A drill would compare it with its own manifest, and find nothing."""
    capture = capture_of(1)
    restores = iter(steps)

    def capture_meanwhile(config: common.Config, folder: Path) -> dict[str, Any]:
        for under_way in restores:
            exchange.record(config, under_way)
        return capture(config, folder)

    monkeypatch.setattr(redis, "capture", capture_meanwhile)
    exchange.record(config, under_way=False)
    with pytest.raises(common.StepError, match=r"a restore (exchanges data since|has exchanged data while)"):
        run.run(config, "test")
    assert points.read_points(config) == []
    exchange.record(config, under_way=False)
    run.run(config, "test")
    assert len(points.read_points(config)) == 1


def test_no_point_is_begun_while_a_restore_exchanges_data(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redis, "capture", None)
    exchange.record(config, under_way=True)
    with pytest.raises(common.StepError, match=r"a restore exchanges data since .*: end it with restore[.]yml"):
        run.run(config, "test")


def test_a_run_removes_what_a_killed_one_left(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    half = config.points / f"{common.PARTIAL}20261123T000000Z"
    half.mkdir(parents=True)
    (half / "dump.rdb").write_text("half")
    monkeypatch.setattr(redis, "capture", capture_of(1))
    run.run(config, "test")
    assert not half.exists()


def test_a_point_that_is_not_off_site_yet_is_there_and_the_run_fails(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    away = common.dataclasses.replace(config, offsite={"repository": "/offsite/restic"})

    def refuse(_: common.Config) -> list[str]:
        raise common.StepError("out of reach")

    monkeypatch.setattr(redis, "capture", capture_of(1))
    monkeypatch.setattr(offsite, "ship", refuse)
    with pytest.raises(run.PartialError, match="out of reach"):
        run.run(away, "test")
    (point,) = points.read_points(away)
    told = common.read_json(away.data / "report.json")
    assert told["offsite"]["pending"] == [point.name]
    assert any("off-site lacks" in alert and "out of reach" in alert for alert in told["alerts"])


def test_a_run_that_would_fill_the_disk_prunes_first_and_is_refused_then(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    for days in range(10):
        make_point(config, NOON - timedelta(days=days))
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(run.shutil, "disk_usage", lambda _: usage(100 * 2**20, 90 * 2**20, 10 * 2**20))
    with pytest.raises(common.StepError, match=r"has 10 MB free; a run needs up to 64 MB"):
        run.run(config, "test")
    assert len(points.read_points(config)) == 3


def hold(data: Path, ready: Any, done: Any) -> None:
    """Hold the lock in a process of its own."""
    with common.locked(common.Config("shop", data, {}, {}, {}, [], {}, {}, 0, 0, 0, {})):
        ready.set()
        done.wait(30)


def test_a_point_is_named_later_than_all_there_are_whatever_the_clock_says(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "now", lambda: NOON)
    assert run.free_name(config) == "20261123T120000Z"
    make_point(config, NOON)
    assert run.free_name(config) == "20261123T120001Z"
    make_point(config, NOON + timedelta(hours=1))
    assert run.free_name(config) == "20261123T130001Z"
    offsite.remember(config, shipped={"20261123T140000Z": "1a2b3c4d"})
    assert run.free_name(config) == "20261123T140001Z"


def test_two_runs_at_once_are_kept_apart(config: common.Config):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(config.data, ready, done))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(common.BusyError, match=r"locked by .*, since 20"), common.locked(config):
            pass
        with pytest.raises(common.BusyError), common.locked(config, shared=True):
            pass
    finally:
        done.set()
        other.join(30)
    with common.locked(config), pytest.raises(common.BusyError), common.locked(config, shared=True):
        pass
    with common.locked(config, shared=True), common.locked(config, shared=True):
        pass


def test_others_may_read_while_a_run_only_adds(config: common.Config):
    with common.locked(config) as sharing:
        with sharing():
            with common.locked(config, shared=True):
                pass
            with pytest.raises(common.BusyError, match=r"locked by .*, since 20"), common.locked(config):
                pass
        with pytest.raises(common.BusyError), common.locked(config, shared=True):
            pass
    with common.locked(config):
        pass


# PostgreSQL


def test_in_flight_counts_transactions_that_may_have_ended_between_two_snapshots():
    quiet, busy, later = (postgres.Snapshot.parse(text) for text in ("10:10:", "10:12:10,11", "11:14:11,13"))
    assert postgres.in_flight(quiet, quiet, []) == 0
    assert postgres.in_flight(quiet, quiet, [10]) == 1, "one that no snapshot lists, as it is newer than the last that ended"
    assert postgres.in_flight(busy, busy, [10, 11]) == 2
    assert postgres.in_flight(busy, later, [11, 13]) == 5
    assert postgres.in_flight(quiet, busy, []) == 2
    wrapped = postgres.Snapshot.parse("4294967300:4294967302:4294967301")
    assert postgres.in_flight(wrapped, wrapped, [5]) == 1, "the same number, of the next 2^32"


BACKUPS = [
    {"id": "20261110T021500", "status": "DONE", "parent": "", "system_id": "1"},
    {"id": "20261111T021500", "status": "DONE", "parent": "20261110T021500", "system_id": "1"},
    {"id": "20261112T021500", "status": "DONE", "parent": "20261111T021500", "system_id": "1"},
    {"id": "20261113T021500", "status": "FAILED", "parent": "20261112T021500", "system_id": "1"},
]


def test_a_backup_builds_on_the_last_good_one_until_its_chain_is_too_old():
    assert postgres.chain_of("20261112T021500", BACKUPS) == ["20261110T021500", "20261111T021500", "20261112T021500"]
    assert postgres.parent_for(BACKUPS, 7, "1", "20261113T021500") == "20261112T021500"
    assert postgres.parent_for(BACKUPS, 7, "1", "20261117T021500") == ""
    assert postgres.parent_for(BACKUPS, 0, "1", "20261112T031500") == ""
    assert postgres.parent_for(BACKUPS, 7, "2", "20261113T021500") == "", "of another cluster"
    assert postgres.parent_for(BACKUPS, 7, "1", "20261109T021500") == "", "the clock was set back"
    assert postgres.parent_for([], 7, "1", "20261113T021500") == ""


def test_a_clock_behind_all_base_backups_makes_none():
    postgres.refuse_old_clock([], "20201113T021500")
    postgres.refuse_old_clock(BACKUPS, "20261111T000000")
    with pytest.raises(common.StepError, match=r"the clock of this host says 20201113T021500, before .* 20261110T021500: set it"):
        postgres.refuse_old_clock(BACKUPS, "20201113T021500")


def test_base_backups_made_with_a_wrong_clock_are_out_of_order():
    first, second, third = (
        {"id": f"2026112{day}T021500", "begin_wal": f"00000001000000000000000{wal}"} for day, wal in ((1, 2), (2, 9), (3, 5))
    )
    assert postgres.in_order([first, second])
    assert not postgres.in_order([first, second, third])
    assert postgres.in_order([first, second, third | {"begin_wal": "000000020000000000000005"}]), "a restore went back to there"
    assert postgres.in_order([first, second | {"begin_wal": "None"}, third])


@pytest.mark.parametrize(("busy", "rate"), [(18, 20_000_000), (4, 0)])
def test_only_a_busy_server_is_read_slowly(config: common.Config, monkeypatch: pytest.MonkeyPatch, busy: int, rate: int):
    looks = iter([True] * busy + [False] * postgres.LOOKS)
    monkeypatch.setattr(postgres, "connect", lambda _: Server("1"))
    monkeypatch.setattr(postgres, "ask", lambda *_: [(next(looks),)])
    monkeypatch.setattr(postgres.time, "sleep", lambda _: None)
    assert postgres.busy_rate(dataclasses.replace(config, postgres={"busy_rate_mb": 20})) == rate
    assert postgres.busy_rate(dataclasses.replace(config, postgres={"busy_rate_mb": 0})) == 0


def test_a_copy_goes_off_site_at_full_speed_where_the_database_is_away(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    def away(_: common.Config) -> int:
        raise common.StepError("PostgreSQL refuses the login")

    monkeypatch.setattr(postgres, "busy_rate", away)
    assert offsite.reading_rate(dataclasses.replace(config, postgres={"busy_rate_mb": 20})) == 0
    assert offsite.reading_rate(dataclasses.replace(config, postgres={})) == 0


#: Reads megabytes, each within a hundredth of a second or a bit more.
READER = "import time\nfile = open('/dev/zero', 'rb')\nfor _ in range({}): file.read(10**6), time.sleep(0.01)\nprint('read')"


def test_a_program_ahead_of_its_rate_is_stopped_and_continued(monkeypatch: pytest.MonkeyPatch):
    sent: list[int] = []
    send, rest = signal.pidfd_send_signal, pace.rest
    monkeypatch.setattr(pace.signal, "pidfd_send_signal", lambda child, number: (sent.append(number), send(child, number)))
    # As if no time passed: whatever it reads is ahead.
    monkeypatch.setattr(pace, "rest", lambda read, _seconds, rate: rest(read, 0, rate))
    done = common.execute([sys.executable, "-c", READER.format(40)], "read", rate=10**9)
    assert done.stdout == "read\n"
    assert sent
    assert sent == [signal.SIGSTOP, signal.SIGCONT] * (len(sent) // 2)


@pytest.mark.parametrize(("read", "seconds", "pause"), [(40, 1, 1.0), (30, 1, 0.5), (20, 1, 0), (10, 1, 0), (900, 1, pace.STOP_SECONDS)])
def test_a_pause_lasts_as_long_as_a_program_is_ahead(read: int, seconds: float, pause: float):
    assert pace.rest(read, seconds, 20) == pause


def test_a_throttled_program_is_reported_and_stopped_as_any_other():
    with pytest.raises(common.StepError, match=r"read: .* ended with 3: no"):
        common.execute([sys.executable, "-c", "import sys; sys.exit(print('no', file=sys.stderr) or 3)"], "read", rate=1)
    # At this rate it would not come to its end.
    with pytest.raises(common.StepError, match=r"read: .* was stopped after 0\.5 s"):
        common.execute([sys.executable, "-c", READER.format(1000)], "read", rate=1, timeout=0.5)


def test_a_throttled_program_ends_with_a_run_that_is_killed():
    folder = Path(common.__file__).parents[1]
    script = f"from slipway_backup import common; common.execute([{sys.executable!r}, '-c', {READER.format(1000)!r}], 'read', rate=1)"
    run = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(folder)})
    deadline = time.monotonic() + 20

    def wait_until(what: str, is_so: Callable[[], bool]) -> None:
        while not is_so():
            assert time.monotonic() < deadline, what
            time.sleep(0.05)

    def state(pid: str) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "gone"

    try:
        wait_until("it was not started", lambda: bool(Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text()))
        child = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().strip()
        wait_until("it was not held up", lambda: state(child) == "T")
    finally:
        run.kill()
        run.wait()
    # A zombie, where nothing collects them, has ended.
    wait_until("it goes on, or stands still", lambda: state(child) in {"gone", "Z"})


def test_connection_strings_take_any_text_and_no_password(config: common.Config):
    settings = {"host": "db", "port": 5432, "user": "it's a \\ role", "database": "app"}
    text = postgres.conninfo(common.dataclasses.replace(config, postgres=settings), "app")
    assert "user='it\\'s a \\\\ role'" in text
    assert "dbname='app'" in text
    assert f"passfile='{config.secrets}/pgpass'" in text


# Redis, Chroma, off-site, report


def test_a_copy_of_redis_counts_only_when_it_was_read_through():
    good = "[offset 172] \\o/ RDB looks OK! \\o/\n[info] 42 keys read\n[info] 0 expires\n"
    assert redis.keys_in(good) == 42
    with pytest.raises(common.StepError, match="does not accept"):
        redis.keys_in("--- RDB ERROR DETECTED ---\n[info] 3 keys read\n")


class Chroma:
    """Stands for a Chroma with collections of one record each, which are deleted and made while they are read."""

    def __init__(self, gone: str = "", after: int = 0, new: str = "", listed: bool = False) -> None:
        """Take which collection, or the database, is deleted after so many calls for a collection, and what is made then."""
        self.names, self.database = ["articles", "other"], True
        self.gone, self.after, self.new, self.listed = gone, after, new, listed

    def change(self) -> None:
        self.after -= 1
        if self.after == 0:
            self.database = self.gone != "default_database"
            self.names = [name for name in self.names if name != self.gone] + [self.new] * bool(self.new)

    def __call__(self, url: str, *_body: Any, **_unused: Any) -> Any:
        path = url.partition("/api/v2/")[2].partition("?")[0]
        if path == "version":
            return "1.5.9"
        if path.endswith("/databases"):
            return [{"name": "default_database"}] * self.database
        name, _slash, verb = path.partition("/collections")[2].strip("/").partition("/")
        if not self.database or (name and name not in self.names):
            raise chroma.MissingError(f"Chroma answered 404 to {url}: gone")
        if not name:
            lost = [self.gone] * (self.listed and self.gone not in self.names)
            return [{"id": name, "name": name.title(), "dimension": 1} for name in [*self.names, *lost]]
        self.change()
        if verb == "query":
            return {"ids": [["1"]], "distances": [[0.0]]}
        return {"ids": ["1"], "embeddings": [[0.5]], "documents": ["text"], "metadatas": [None], "uris": [None]}


@pytest.mark.skipif(not shutil.which("zstd"), reason="needs zstd")
@pytest.mark.parametrize(
    ("server", "captured"),
    [
        (Chroma(), ["Articles", "Other"]),
        # Before it is read, before its records are, and before the query for one of them.
        (Chroma(gone="other", after=1), ["Articles"]),
        (Chroma(gone="articles", after=1), ["Other"]),
        (Chroma(gone="articles", after=2), ["Other"]),
        (Chroma(gone="articles", after=1, new="rebuilt"), ["Other", "Rebuilt"]),
        (Chroma(gone="default_database", after=1), []),
    ],
)
def test_a_collection_that_is_deleted_meanwhile_costs_no_point(
    config: common.Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Chroma, captured: list[str]
):
    """As an index is rebuilt at night, under another name."""
    monkeypatch.setattr(chroma, "call", server)
    told = chroma.capture(dataclasses.replace(config, chroma={"url": "http://chroma:8000"}), tmp_path / "point")
    assert [collection["name"] for collection in told["collections"]] == captured
    files = {collection["file"]: collection["records"] for collection in told["collections"]}
    assert {path.name for path in (tmp_path / "point/chroma").iterdir()} == set(files)
    for file, records in files.items():
        assert len(list(common.read_lines(tmp_path / "point/chroma" / file))) == 1 + records == 2


def test_a_collection_that_is_listed_and_not_there_is_a_failure(config: common.Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(chroma, "call", Chroma(gone="other", after=1, listed=True))
    with pytest.raises(common.StepError, match="404"):
        chroma.capture(dataclasses.replace(config, chroma={"url": "http://chroma:8000"}), tmp_path / "point")


@pytest.mark.parametrize(("code", "kind"), [(404, chroma.MissingError), (500, common.StepError), (401, common.StepError)])
def test_only_404_says_that_something_is_missing(monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]):
    def refuse(request: Any, **_unused: Any) -> Any:
        raise urllib.error.HTTPError(request.full_url, code, "no", Message(), io.BytesIO(b"why"))

    monkeypatch.setattr(chroma.urllib.request, "urlopen", refuse)
    with pytest.raises(common.StepError, match=f"answered {code} .*why") as caught:
        chroma.call("http://chroma:8000/api/v2/x")
    assert type(caught.value) is kind


@pytest.mark.skipif(not shutil.which("zstd"), reason="needs zstd")
def test_records_come_back_as_they_were_written(tmp_path: Path):
    lines = [{"id": "ä\n", "embedding": [0.1, 1e-30]}, {"id": "b", "document": None}]
    common.write_lines(tmp_path / "0.jsonl.zst", lines)
    assert list(common.read_lines(tmp_path / "0.jsonl.zst")) == lines
    whole = (tmp_path / "0.jsonl.zst").read_bytes()
    (tmp_path / "0.jsonl.zst").write_bytes(whole[:-6])
    with pytest.raises(common.StepError, match="is damaged"):
        list(common.read_lines(tmp_path / "0.jsonl.zst"))


WAL = {"streaming": True, "slot": "reserved", "behind_bytes": 0, "synchronous": True, "clock_ahead_s": 0.1, "gap": "", "error": ""}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, []),
        ({"streaming": False}, ["WAL is not streaming"]),
        ({"error": "PostgreSQL at db:5432: refused"}, ["PostgreSQL at db:5432: refused"]),
        ({"slot": "lost"}, ["the WAL slot is lost: the database keeps too much WAL for the backup host, or has dropped it"]),
        ({"behind_bytes": 2**30}, ["WAL is 1024 MB behind"]),
        ({"clock_ahead_s": -3600.2}, ["the clock of this host is 3600 s behind the database's: one of the two is wrong"]),
        ({"synchronous": False}, ["commits do not wait for the backup host, although backup_wal_synchronous is set"]),
    ],
)
def test_trouble_with_wal_is_an_alert(told: dict[str, Any], said: list[str]):
    assert report.wal_alerts({**WAL, **told}, synchronous=True) == said


def test_a_point_of_the_future_and_an_old_one_are_alerts():
    point = {"name": "a", "age_s": 3600, "verified": "verified", "missing": {}}
    assert report.point_alerts(point, 26) == []
    assert report.point_alerts({**point, "age_s": -3600}, 26) == ["the last recovery point is in the future: the clock was, or is, wrong"]
    assert report.point_alerts({**point, "age_s": 27 * 3600}, 26) == ["the last recovery point is 27.0 h old"]
    assert report.point_alerts(None, 26) == ["there is no recovery point"]
    assert report.point_alerts({**point, "age_s": 9e9}, 0) == [], "as where no timer runs"


@pytest.mark.parametrize(
    ("verified", "ages", "limit", "alerts"),
    [
        (191, [500, 1], 192, []),
        (193, [500, 1], 192, ["the last verified recovery point is 193.0 h old"]),
        (500, [900, 1], 800, []),
        (None, [191, 1], 192, []),
        (None, [193, 1], 192, ["no recovery point was verified"]),
        (None, [], 192, []),
        (None, [9000], 0, []),
        (9000, [9000], 0, []),
    ],
)
def test_a_verified_point_is_wanted_as_often_as_drills_run(verified: float | None, ages: list[float], limit: float, alerts: list[str]):
    points = [{"age_s": age * 3600} for age in ages]
    assert report.verified_alerts(points, {"age_s": verified * 3600} if verified else None, limit) == alerts


@pytest.mark.parametrize(("hours", "seconds"), [(26.0, "93600.0"), (0.0, None)])
def test_the_limits_of_the_inventory_are_metrics(hours: float, seconds: str | None):
    told = {"stack": "shop", "limits": {"maximum_age_hours": hours, "maximum_verified_age_hours": hours}, "last_run": {}, "alerts": []}
    told |= {"last_point": None, "last_verified": None, "points": [], "disk": {"free_bytes": 1}, "wal": None, "offsite": None}
    text = report.metrics(told)
    for name in ("maximum_age_seconds", "maximum_verified_age_seconds"):
        assert (f'slipway_backup_{name}{{stack="shop"}} {seconds}\n' in text) is bool(seconds)
        assert (f"slipway_backup_{name}{{" in text) is bool(seconds)


def test_a_program_that_takes_too_long_is_stopped_and_its_output_reported():
    with pytest.raises(common.StepError, match=r"ask: sh was stopped after 0\.5 s: the bucket does not exist"):
        common.execute(["sh", "-c", "echo the bucket does not exist >&2; exec sleep 30"], "ask", timeout=0.5)


def test_a_configuration_that_cannot_be_used_is_named(tmp_path: Path):
    path = tmp_path / "backup.json"
    path.write_text(json.dumps({"stack": "shop"}))
    with pytest.raises(common.StepError, match=r"backup\.json is invalid"):
        common.load_config(path)


def test_pruning_off_site_removes_what_the_retention_does_not_keep(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    away = common.dataclasses.replace(config, offsite={"repository": "/offsite/restic"})
    here = make_point(away, NOON)
    days = {common.point_name(NOON - timedelta(days=days)): f"id{days}" for days in (1, 2, 100, 400)}
    common.write_json(away.state / offsite.STATE, {"shipped": {here.name: "id0", **days}})
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(offsite, "restic", lambda _, *arguments, **__: asked.append(arguments) or "")
    assert run.prune(away) == []
    # The last month but one with any is kept, what is older goes.
    assert asked == [("unlock",), ("forget", "--prune", "id400")]
    assert set(offsite.shipped(away).values()) == {"id0", "id1", "id2", "id100"}
    assert run.prune(away) == []
    assert len(asked) == 2, "nothing left to remove, nothing asked"


def test_a_copy_that_lacks_something_does_not_stay_under_its_points_name(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    away = common.dataclasses.replace(config, offsite={"repository": "/offsite/restic"})
    point = make_point(away, NOON)
    there: dict[str, Any] = {}

    def restic(_: common.Config, command: str, *arguments: str, **__: Any) -> str:
        if command == "backup":
            # As where a file cannot be read: exit code 3, and a snapshot all the same.
            there[point.name] = {"id": "half"}
            raise offsite.IncompleteError("copy it off-site: at least one source file could not be read")
        if command == "forget":
            assert arguments == ("half",)
            there.clear()
        return ""

    monkeypatch.setattr(offsite, "restic", restic)
    monkeypatch.setattr(offsite, "read_snapshots", lambda _: dict(there))
    with pytest.raises(common.StepError, match="could not be read"):
        offsite.ship(away)
    assert there == {}
    assert offsite.shipped(away) == {}


def test_a_point_without_its_base_backup_is_not_copied(config: common.Config):
    point = make_point(config, NOON)
    manifest = point.manifest | {"stores": {"postgres": {"chain": ["20261101T000000"]}}}
    with pytest.raises(common.StepError, match=r"20261101T000000.* is missing"):
        offsite.parts(config, dataclasses.replace(point, manifest=manifest))


def test_what_a_fetch_or_a_pruning_that_died_has_left_goes(config: common.Config):
    whole = make_point(config, NOON)
    (config.points / "20261101T000000Z/chroma").mkdir(parents=True)
    assert points.remove_partial(config) == ["20261101T000000Z"]
    assert [path.name for path in config.points.iterdir()] == [whole.name]


def test_a_run_that_failed_holds_the_lock_no_more(config: common.Config):
    with pytest.raises(common.StepError, match="so"), common.locked(config):
        raise common.StepError("so")
    assert (config.data / common.WRITER).read_text() == ""


def test_what_only_a_controller_sees_is_kept_by_the_runs_between(config: common.Config):
    assert run.known_of_controller(config)["version"] is None
    point = make_point(config, NOON)
    settings = {"version": "1.1.0", "inventory_sha256": "a" * 64, "image_digests": {"backend": "sha256:b"}}
    common.write_json(point.folder / points.MANIFEST, point.manifest | {"settings": settings})
    assert run.known_of_controller(config) == {**settings, "inventory_read": None}


# WAL of a restore


@pytest.fixture
def archive(config: common.Config) -> Callable[[str, str], Path]:
    """A function that writes a file below Barman's folder, compressed where it is archived."""

    def write(place: str, content: str) -> Path:
        path = config.barman / postgres.SERVER / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        if place.startswith("wals/") and not place.endswith(".history"):
            path.write_bytes(subprocess.run(["zstd", "-q", "-c", str(path)], capture_output=True, check=True).stdout)
        return path

    return write


def segment(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}{number:016X}"


def archived(number: int, timeline: int = 1) -> str:
    return f"wals/{segment(number, timeline)[:16]}/{segment(number, timeline)}"


@pytest.fixture
def laid(config: common.Config, tmp_path: Path) -> Callable[..., tuple[str, dict[str, str]]]:
    """A function that gives a server its WAL: the newest segment that there is, and what the server gets."""

    def lay(first: int, last: str = "", strict: bool = False, timeline: int = 1) -> tuple[str, dict[str, str]]:
        folder = tmp_path / "wal"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        base = {"begin_wal": segment(first), "segment_bytes": len("whole 1")}
        newest = restore.lay_wal(config, folder, timeline, base, last, strict)
        return newest, {path.name: path.read_text() for path in folder.iterdir()}

    return lay


def test_a_server_gets_all_wal_that_has_arrived_archived_or_not(archive: Any, laid: Any):
    for number in (3, 4, 5):
        archive(archived(number), f"whole {number}")
    # What was arriving when a history ended; complete, and not archived yet; arriving; on a timeline that was begun later.
    archive(f"superseded/{segment(5)}.partial", "piece 5")
    archive(f"streaming/{segment(6)}", "whole 6")
    archive(f"streaming/{segment(7)}.partial", "piece 7")
    archive(f"streaming/{segment(8, 2)}.partial", "piece 8")
    archive("wals/00000002.history", "1")
    assert laid(4) == (segment(7), {segment(number): f"{'piece' if number == 7 else 'whole'} {number}" for number in (4, 5, 6, 7)})
    assert laid(4, last=segment(5)) == (segment(5), {segment(4): "whole 4", segment(5): "whole 5"})


def test_the_segment_that_was_arriving_when_a_history_ended_is_of_use(archive: Any, laid: Any):
    archive(archived(7), "whole 7")
    for timeline in (1, 2):
        archive(f"superseded/{segment(8, timeline)}.partial", f"piece {timeline}")
    assert laid(7) == (segment(8), {segment(7): "whole 7", segment(8): "piece 1"})


@pytest.mark.parametrize("damage", ["rubbish", "shorter"])
def test_a_segment_that_cannot_be_read_is_left_out_unless_the_point_needs_it(archive: Any, laid: Any, damage: str):
    for number in (3, 4, 5):
        archive(archived(number), f"whole {number}")
    path = archive(archived(4), "4")
    if damage == "rubbish":
        path.write_bytes(path.read_bytes()[:8])
    assert laid(3) == (segment(5), {segment(3): "whole 3", segment(5): "whole 5"}), "the server stops before it"
    assert laid(3, last=segment(3), strict=True) == (segment(3), {segment(3): "whole 3"}), "a point before it does not need it"
    with pytest.raises(common.StepError, match=f"the WAL segment {segment(4)} is damaged: "):
        laid(3, last=segment(5), strict=True)
    with pytest.raises(common.StepError, match=f"the WAL segment {segment(4)} is damaged: "):
        laid(4)
    with pytest.raises(common.StepError, match=f"the WAL segment {segment(2)} is damaged: it is missing"):
        laid(2)


def test_a_full_disk_is_not_reported_as_damage(archive: Any):
    with Path("/dev/full").open("wb") as full, pytest.raises(OSError, match="No space left on device"):
        restore.decompress(archive(archived(3), "whole 3"), full)


def test_room_is_what_a_restore_writes(config: common.Config, archive: Any):
    """Of an incremental backup the size of the databases, and not that of the changes; with the WAL up to the target."""
    for number in (3, 4, 5):
        archive(archived(number), f"whole {number}")
    for name, parent, size in (("a", "None", 1000), ("b", "a", 10)):
        archive(f"base/{name}/data/x", "x" * size)
        archive(f"meta/{name}{postgres.INFO}", f"status=DONE\nparent_backup_id={parent}\nbegin_wal={segment(4)}\nxlog_segment_size=100\n")
    stores = {
        "postgres": {"chain": ["a", "b"], "bytes": 10, "timeline": 1, "wal": segment(4), "database_bytes": 5000},
        "redis": {"bytes": 7},
        "chroma": {"bytes": 3},
        "volumes": {"sets": {}, "bytes": 20000},
    }
    point = make_point(config, NOON)
    common.write_json(point.folder / points.MANIFEST, point.manifest | {"stores": stores})
    every = ["postgres", "redis", "chroma", "volumes"]
    assert restore.room(config, point.name, every) == 5000 + 100 + 2 * 7 + 4 * 3 + 20000
    assert restore.room(config, point.name, ["postgres"], restore.END) == 5000 + 200
    assert restore.room(config, point.name, ["redis"]) == 14
    # A point of before, which does not say how large the databases were.
    del stores["postgres"]["database_bytes"]
    common.write_json(point.folder / points.MANIFEST, point.manifest | {"stores": stores})
    assert restore.room(config, point.name, ["postgres"]) == 1010 + 100
    shutil.rmtree(config.barman / postgres.SERVER)
    assert restore.room(config, point.name, ["postgres"]) == 0


def test_a_copy_of_redis_says_how_much_memory_its_keys_took(config: common.Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    told = {"INFO server": "redis_version:7.2.4\r\n", "INFO memory": "used_memory:4096\r\nused_memory_rss:9999\r\n"}

    def ask(_: common.Config, *arguments: str, **_unused: Any) -> str:
        if arguments[0] == "--rdb":
            Path(arguments[1]).write_text("data")
        return told.get(" ".join(arguments), "")

    monkeypatch.setattr(redis, "ask", ask)
    monkeypatch.setattr(redis, "check", lambda _unused: 3)
    assert redis.capture(config, tmp_path / "point").items() >= {"keys": 3, "bytes": 4, "used_memory": 4096}.items()


def test_a_segment_that_has_just_begun_to_arrive_is_none(archive: Any, laid: Any):
    archive(archived(3), "whole 3")
    archive(f"streaming/{segment(4)}.partial", "")
    assert laid(3)[1] == {segment(3): "whole 3"}


def test_a_segment_that_is_archived_meanwhile_is_found_again(archive: Any, laid: Any, monkeypatch: pytest.MonkeyPatch):
    archive(archived(3), "whole 3")
    arriving = archive(f"streaming/{segment(4)}.partial", "piece 4")
    copy = restore.copy_segment

    def move_before(source: Path, folder: Path) -> str:
        if source == arriving and arriving.exists():
            arriving.unlink()
            archive(archived(4), "whole 4")
        return copy(source, folder)

    monkeypatch.setattr(restore, "copy_segment", move_before)
    assert laid(3) == (segment(4), {segment(3): "whole 3", segment(4): "whole 4"})


def test_a_point_after_a_moment_says_which_wal_leads_there(config: common.Config):
    found = []
    for hour, timeline in ((0, 1), (1, 1), (2, 2)):
        point = make_point(config, NOON + timedelta(hours=hour))
        part = {"chain": ["a"], "timeline": timeline, "wal": segment(hour, timeline)}
        common.write_json(point.folder / points.MANIFEST, point.manifest | {"stores": {"postgres": part}})
        found.append(points.find_point(config, point.name))
    half = timedelta(minutes=30)
    assert restore.last_segment(found, 1, NOON + half) == segment(1)
    assert restore.last_segment(found, 1, NOON + half * 3) == "", "the next point is of another history"
    assert restore.last_segment(found, 2, NOON + half) == segment(2, 2)


# Histories and clusters


def a_superseded(config: common.Config, *names: str) -> Path:
    """Write ends of histories that were given up; return their folder."""
    folder = config.barman / postgres.SERVER / postgres.SUPERSEDED
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_the_end_of_a_history_is_kept_as_long_as_a_point_leads_to_it(config: common.Config):
    ends = ["00000001000000000000000A.partial", "00000002000000000000000C.partial", "000000020000000000000003.partial"]
    folder = a_superseded(config, *ends)
    first = {"timeline": 1, "wal": "000000010000000000000007"}
    second = {"timeline": 2, "wal": "00000002000000000000000B"}
    assert postgres.prune_superseded(config, [first, second]) == [ends[2]], "no kept point lies before it"
    assert postgres.prune_superseded(config, [second]) == [ends[0]], "no point is of its history any more"
    assert [path.name for path in folder.iterdir()] == [ends[1]]


class Server:
    """Answers what a server of some cluster does."""

    def __init__(self, identity: str) -> None:
        self.identity = identity

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def cluster(config: common.Config, monkeypatch: pytest.MonkeyPatch) -> common.Config:
    """Backups of the cluster 1, and a server that is the cluster 2."""
    common.write_json(config.barman / postgres.SERVER / "identity.json", {"systemid": "1", "version": "17"})
    config.state.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(postgres, "connect", lambda _: Server("2"))
    monkeypatch.setattr(postgres, "ask", lambda connection, *_: [(connection.identity,)])
    return config


def test_a_half_base_backup_goes_also_where_barman_cannot_write(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    home = config.barman / postgres.SERVER
    (home / "base/20261123T020000").mkdir(parents=True)
    (home / "meta").mkdir()
    (home / f"meta/20261123T020000{postgres.INFO}").write_text("status=FAILED\nbegin_wal=None\n")

    def full(*_: object, what: str) -> str:
        raise common.StepError(f"{what}: No space left on device")

    monkeypatch.setattr(postgres, "barman", full)
    assert postgres.remove_unknown(config, set()) == ["20261123T020000"]
    assert postgres.backups(config) == []
    assert list((home / "base").iterdir()) == []


def test_another_cluster_is_refused_with_the_way_on(cluster: common.Config):
    with pytest.raises(common.StepError, match=r"another database cluster \(2\).*\(1\).*-e backup_start_over=shop"):
        postgres.refuse_other_cluster(cluster, Server("2"))
    postgres.refuse_other_cluster(cluster, Server("1"))


def test_start_over_wants_the_name_of_the_stack_and_another_cluster(cluster: common.Config, monkeypatch: pytest.MonkeyPatch):
    arguments = program.parser().parse_args(["start-over", "--cluster", "another"])
    with pytest.raises(common.StepError, match="give the name of this stack: shop"):
        program.do_start_over(cluster, arguments)
    monkeypatch.setattr(postgres, "connect", lambda _: Server("1"))
    arguments.cluster = "shop"
    with pytest.raises(common.StepError, match="no reason to start over"):
        program.do_start_over(cluster, arguments)
    assert not (cluster.state / serve.START_OVER).exists()


def test_start_over_that_was_not_done_in_time_is_not_done_later(cluster: common.Config):
    common.write_atomically(cluster.state / serve.START_OVER, "20261123T120000Z")
    with pytest.raises(common.StepError, match="nothing was moved aside"):
        serve.wait_until_obeyed(cluster, seconds=0)
    assert not (cluster.state / serve.START_OVER).exists()


def test_start_over_sets_points_and_base_backups_aside_together(cluster: common.Config, monkeypatch: pytest.MonkeyPatch):
    point = make_point(cluster, NOON)
    # What the first process of the container does at its next turn.
    monkeypatch.setattr(serve, "wait_until_obeyed", lambda config: serve.Supervisor(config).obey())
    arguments = program.parser().parse_args(["start-over", "--cluster", "shop"])
    offsite.remember(cluster, shipped={point.name: "1a2b3c4d"})
    aside = Path(program.do_start_over(cluster, arguments)["aside"])
    assert not points.read_points(cluster)
    assert postgres.other_cluster(cluster, Server("2")) == ""
    assert not (cluster.state / serve.START_OVER).exists()
    # Still a folder of data that the program can be pointed at.
    kept = dataclasses.replace(cluster, data=aside)
    assert [(found["name"], found["offsite"]) for found in map(points.summary, points.read_points(kept))] == [(point.name, True)]
    assert postgres.other_cluster(kept, Server("1")) == ""


@pytest.mark.parametrize(("theirs", "set_aside"), [("1", False), ("2", True), ("2", False)])
def test_a_point_of_another_cluster_is_not_fetched_among_those_here(
    cluster: common.Config, monkeypatch: pytest.MonkeyPatch, theirs: str, set_aside: bool
):
    here = make_point(cluster, NOON)
    manifest = here.manifest | {"stores": {"postgres": {"chain": ["a"], "system_identifier": "1"}}}
    common.write_json(here.folder / points.MANIFEST, manifest)
    there = manifest | {"name": "20261101T000000Z", "stores": {"postgres": {"chain": ["b"], "system_identifier": theirs}}}
    monkeypatch.setattr(serve, "wait_until_obeyed", lambda config: serve.Supervisor(config).obey())
    monkeypatch.setattr(offsite, "read_snapshots", lambda _: {there["name"]: {"id": "s"}})

    refused = theirs == "2" and not set_aside

    def restic(config: common.Config, command: str, *_: str, what: str) -> str:
        if command == "restore":
            assert not refused
            # What is here has gone before anything comes.
            assert [point.name for point in points.read_points(config)] == ([] if set_aside else [here.name])
        return json.dumps(there) if command == "dump" else what

    monkeypatch.setattr(offsite, "restic", restic)
    arguments = program.parser().parse_args(["fetch", there["name"], *(["--set-aside"] if set_aside else [])])
    if refused:
        with pytest.raises(common.StepError, match=f"another database cluster .* -e restore_confirm={cluster.stack}"):
            program.do_fetch(cluster, arguments)
        assert [point.name for point in points.read_points(cluster)] == [here.name]
        return
    program.do_fetch(cluster, arguments)
    assert [point.name for point in points.read_points(cluster)] == [there["name"]] + ([] if set_aside else [here.name])
    kept = [path.name for path in cluster.data.glob("aside/*/points/*")]
    assert kept == ([here.name] if set_aside else [])


def test_another_place_than_the_last_one_may_be_empty_and_the_same_may_not(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    made = []

    def restic(_: common.Config, command: str, *__: str, what: str, timeout: float | None = None) -> str:
        if command == "init":
            made.append(timeout)
            return ""
        raise common.StepError(f"{what}: {offsite.NO_REPOSITORY_TEXT}")

    monkeypatch.setattr(offsite, "restic", restic)
    offsite.remember(config, repository="rest:there", shipped={"p": "s"})
    with pytest.raises(common.StepError, match="has vanished"):
        offsite.open_repository(dataclasses.replace(config, offsite={"repository": "rest:there"}))
    assert offsite.open_repository(dataclasses.replace(config, offsite={"repository": "rest:elsewhere", "timeout": 7})) == {}
    assert made == [7]


@pytest.mark.parametrize("password", ["", "one\ntwo"])
def test_a_password_of_the_repository_is_one_line(config: common.Config, monkeypatch: pytest.MonkeyPatch, password: str):
    monkeypatch.setattr(offsite, "restic", lambda *_unused, **_also: pytest.fail("asked"))
    with pytest.raises(common.StepError, match="has to be one line"):
        offsite.add_password(config, password)


def test_a_password_is_added_by_a_file_and_no_argument(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    """Arguments of a process are shown to others."""
    asked: list[str] = []

    def restic(_: common.Config, *arguments: str, what: str) -> str:
        asked.extend(arguments)
        assert Path(arguments[-1]).read_text(encoding="utf-8") == "new-password-1"
        assert Path(arguments[-1]).stat().st_mode & 0o077 == 0
        return what

    monkeypatch.setattr(offsite, "restic", restic)
    monkeypatch.setattr(sys, "stdin", io.StringIO("new-password-1\n"))
    program.do_add_password(config, argparse.Namespace())
    assert asked[:3] == ["key", "add", "--new-password-file"]
    assert not Path(asked[3]).exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Fatal: wrong\nsecond\n", "Fatal: wrong\nsecond"),
        ('{"message_type":"exit_error","code":1,"message":"Fatal: no server"}\n', "Fatal: no server"),
        ('{"message_type":"error","error":{"message":"permission denied"},"item":"/f"}\nFatal: end', "permission denied\nFatal: end"),
        ('{"message_type":"other"}', '{"message_type":"other"}'),
        ("7", "7"),
        ("", ""),
    ],
)
def test_the_reason_that_restic_gives_is_reported_in_its_words(text: str, words: str) -> None:
    assert offsite.words(text) == words


def test_the_output_of_ssh_is_reported(config: common.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def execute(command: list[str], *_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        arguments = command[command.index("-o") + 1].removeprefix("sftp.args=").split()
        log = Path(arguments[arguments.index("-E") + 1])
        log.write_text("Host key verification failed.\n", encoding="utf-8")
        seen.append((log.parent / "known_hosts").read_text(encoding="utf-8"))
        return subprocess.CompletedProcess(command, 1, "", "Fatal: unexpected EOF")

    monkeypatch.setattr(offsite, "execute", execute)
    monkeypatch.setattr(offsite, "environment", lambda _: {})
    behind = dataclasses.replace(config, offsite={"repository": "sftp:keeper@there:restic", "known_hosts": "there ssh-ed25519 AAAA"})
    with pytest.raises(common.StepError, match=r"restic: Fatal: unexpected EOF; ssh says: Host key verification failed\.$"):
        offsite.restic(behind, "snapshots", what="list")
    assert seen == ["there ssh-ed25519 AAAA\n"]


@pytest.mark.parametrize(("before", "fetched"), [(None, 14), (13.5, 13), (13.0, 12), (11.0, None)])
def test_the_point_that_leads_to_a_moment_is_fetched(
    config: common.Config, monkeypatch: pytest.MonkeyPatch, before: float | None, fetched: int | None
):
    # Begun on the hour, and of a moment that is ten seconds later.
    there = {f"20261123T{hour}0000Z": {"id": str(hour)} for hour in (12, 13, 14)}
    monkeypatch.setattr(offsite, "read_snapshots", lambda _: there)

    def restic(_: common.Config, command: str, *arguments: str, what: str) -> str:
        if command != "dump":
            return what
        name = Path(arguments[1]).parent.name
        return json.dumps({"name": name, "moment": f"2026-11-23T{arguments[0]}:00:10.000Z"})

    monkeypatch.setattr(offsite, "restic", restic)
    moment = NOON + timedelta(hours=before - 12) if before else None
    if fetched is None:
        with pytest.raises(common.StepError, match=r"no point that leads to 2026-11-23 11:00:00\+00:00; it has 2026.*, 20261123T140000Z"):
            offsite.fetch(config, "latest", before=moment)
    else:
        assert offsite.fetch(config, "latest", before=moment) == f"20261123T{fetched}0000Z"


def test_a_copy_that_is_made_up_for_ends_the_alert_of_the_run(config: common.Config, monkeypatch: pytest.MonkeyPatch):
    away = dataclasses.replace(config, offsite={"repository": "/offsite/restic"})
    away.state.mkdir(parents=True, exist_ok=True)
    failed = {"name": "p", "result": "failed", "reason": "the point p is there, but: the disk is away"}

    def ship(config: common.Config) -> list[str]:
        offsite.remember(config, error="")
        return ["p"]

    monkeypatch.setattr(offsite, "ship", ship)
    for remembered, result in (("the disk is away", "ok"), ("", "failed")):
        offsite.remember(away, error=remembered)
        common.write_json(away.state / "run.json", failed)
        assert run.make_up(away) == ["p"]
        assert common.read_json(away.state / "run.json")["result"] == result
