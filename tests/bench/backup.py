# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups and restores of a database of some size, compared with what a shell script would do with the same data."""

from __future__ import annotations

import json
import re
import shlex
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from lab import BenchError, Lab

MEGABYTE = 1024 * 1024
SITE = "playbooks/site.yml"
PROGRAM = "docker exec slipway-backup slipway-backup"
HOST_PROGRAM = "python3 /etc/slipway/slipway/backup/config/current/slipway_backup_host.py"
STORE_IMAGE = "postgres:17-alpine"
OWNER_PASSWORD = "/run/slipway-bench-owner"
SETTINGS = """---
# Written by the bench: runs are its own alone, and go to a repository too.
backup_schedule: never
backup_drill_schedule: never
backup_offsite_volume: backup_offsite
backup_offsite_repository: /offsite/restic
"""
# Descriptions in words, some much more frequent than others, as in a language: they compress as such rows do. Three of many thousand
# sentences make a row, so that none comes again within what gzip looks back to.
DATA = """
create or replace function pg_temp.letters(seed int) returns text language sql immutable as $$
  select string_agg(
    substr('etaoinshrdlucmfwypvbgkjqxz', (power((hashint4(seed * 13 + n) & 65535) / 65536.0::float8, 2) * 25)::int + 1, 1), '')
  from generate_series(1, 3 + (hashint4(seed) & 7)) as n
$$;
create temporary table words as select n, pg_temp.letters(n) as word from generate_series(0, 2999) as n;
create temporary table sentences as
  select s, string_agg(word, ' ' order by position) || '.' as text
  from generate_series(0, 29999) as s cross join generate_series(1, 16) as position
  join words on n = (pow((hashint4(s * 17 + position)::bigint & 1048575) / 1048576.0::float8, 2.2) * 3000)::int % 3000 group by s;
analyze sentences;
drop table if exists products;
create table products (
  id bigint not null, number uuid not null, title text not null, description text not null, price numeric(10, 2) not null,
  stock int not null, changed_at timestamptz not null
);
insert into products
  select g, md5(g::text)::uuid, split_part(a.text, ' ', 1) || ' ' || split_part(b.text, ' ', 2), a.text || ' ' || b.text || ' ' || c.text,
    (hashint4(g) & 65535) / 100.0, hashint4(g + 1) & 255, '2026-01-01'::timestamptz + g * interval '1 second'
  from generate_series(1, {rows}) as g
  join sentences a on a.s = (hashint4(g * 3)::bigint & 1073741823) % 30000
  join sentences b on b.s = (hashint4(g * 5)::bigint & 1073741823) % 30000
  join sentences c on c.s = (hashint4(g * 7)::bigint & 1073741823) % 30000;
alter table products add primary key (id);
alter table products owner to app_owner;
"""
ROW_BYTES = 490
PGBENCH_SCALE = 20
PGBENCH_CLIENTS = 8
QUIET_SECONDS = 30


def middle(values: list[float]) -> float:
    """Return the median, to the millisecond."""
    return round(statistics.median(values), 3)


class Backups:
    """What is measured on a host that has the whole stack and its backups."""

    def __init__(self, lab: Lab, say: Callable[[str], None]) -> None:
        """Prepare for a lab that is up."""
        self.lab, self.host, self.say = lab, lab.first, say
        self.settings = lab.inventory / "group_vars" / "all" / "bench.yml"

    # The host

    def read(self, script: str) -> str:
        """Return what a script prints on the host."""
        return self.lab.read(self.host, script)

    def timed(self, script: str) -> float:
        """Return how many seconds a script takes on the host, measured there."""
        output = "/tmp/bench.output"
        whole = f"b=$(date +%s%N); {{ {script}\n}} >{output} 2>&1 || {{ tail -n 20 {output} >&2; exit 1; }}; echo $(( $(date +%s%N) - b ))"
        return int(self.read(whole)) / 1e9

    def sql(self, text: str) -> str:
        """Return what PostgreSQL answers to its superuser."""
        command = "docker exec --interactive slipway-postgres psql --no-psqlrc -qAt --set=ON_ERROR_STOP=1 --dbname=app"
        return self.read(f"{command} <<'SQL'\n{text}\nSQL").strip()

    def report(self) -> dict[str, Any]:
        """Return the report of the backups."""
        return dict(json.loads(self.read(f"{PROGRAM} --json report")))

    def prepare(self, megabytes: int) -> dict[str, Any]:
        """Deploy, and fill the database; returns its size."""
        self.settings.write_text(SETTINGS, encoding="utf-8")
        self.say("backups: deploying, with images")
        self.lab.playbook(SITE)
        self.lab.write(self.host, OWNER_PASSWORD, self.lab.owner_password)
        self.say(f"backups: writing {megabytes} MB")
        self.sql(
            "set synchronous_commit = off; set max_parallel_workers_per_gather = 0;" + DATA.format(rows=megabytes * MEGABYTE // ROW_BYTES)
        )
        self.settle()
        size = int(self.sql("select sum(pg_database_size(oid))::bigint from pg_database"))
        return {"database_bytes": size, "table_bytes": int(self.sql("select pg_table_size('products')"))}

    def settle(self) -> None:
        """Leave nothing to the database to do later on: no hints to write, nothing to vacuum, and all WAL has arrived."""
        self.sql("vacuum (freeze, analyze)")
        self.sql("checkpoint; select pg_switch_wal();")
        deadline = time.monotonic() + 300
        waiting = "docker exec slipway-backup sh -c 'ls /backup/barman/postgres/streaming | grep -vc partial || true'"
        while int(self.read(waiting).strip() or 0) or (self.report()["wal"]["behind_bytes"] or 0) > MEGABYTE:
            if time.monotonic() > deadline:
                raise BenchError("WAL does not arrive")
            time.sleep(2)
        self.read("sync")

    def run(self, *arguments: str) -> dict[str, Any]:
        """Make a recovery point as the timer does; returns what it says of itself and how long it took."""
        seconds = self.timed(f"{HOST_PROGRAM} run --reason bench {shlex.join(arguments)}")
        manifest = json.loads(self.read(f"{PROGRAM} --json show latest"))
        report = self.report()
        if report["last_run"]["result"] != "ok":
            raise BenchError(f"the run failed: {report['last_run']['reason']}")
        begun, ended = (datetime.fromisoformat(manifest[name]) for name in ("started", "finished"))
        point_seconds = (ended - begun).total_seconds()
        return {
            "seconds": round(seconds, 3),
            "point_seconds": round(point_seconds, 3),
            "base_seconds": manifest["stores"]["postgres"]["seconds"],
            "offsite_seconds": round(seconds - point_seconds, 3),
            "added_bytes": report["offsite"]["added_bytes"],
            "name": manifest["name"],
        }

    # Series

    def dump(self) -> dict[str, Any]:
        """Dump the same data as a shell script does, where the backups run, and put it on their disk."""
        login = "host=postgres user=backup dbname=app passfile=/run/secrets/pgpass"
        script = f"pg_dump '{login}' | gzip >/backup/bench.sql.gz && sync /backup/bench.sql.gz"
        seconds = self.timed(f"docker exec slipway-backup bash -o pipefail -c {shlex.quote(script)}")
        size = int(self.read("docker exec slipway-backup stat -c %s /backup/bench.sql.gz"))
        self.read("docker exec slipway-backup rm /backup/bench.sql.gz")
        return {"seconds": round(seconds, 3), "bytes": size}

    def throughput(self, rounds: int) -> dict[str, Any]:
        """Return what full backups and dumps take, in turns."""
        dumps, runs = [], []
        for number in range(1, rounds + 1):
            self.say(f"backups: a dump and a full backup, {number} of {rounds}")
            dumps.append(self.dump())
            runs.append(self.run("--full"))
        return {
            "dump_s": middle([each["seconds"] for each in dumps]),
            "dump_bytes": dumps[-1]["bytes"],
            "run_s": middle([each["seconds"] for each in runs]),
            "point_s": middle([each["point_seconds"] for each in runs]),
            "base_s": middle([each["base_seconds"] for each in runs]),
            "dumps": dumps,
            "runs": runs,
        }

    def growth(self) -> dict[str, Any]:
        """Return what a second backup of unchanged data adds off-site."""
        self.say("backups: a second one of unchanged data")
        self.settle()
        self.run()
        return self.run()

    def forget(self, *volumes: str) -> None:
        """Have the machine's memory forget the files of volumes: what is restored from was not read a minute ago."""
        program = (
            "import os, sys\n"
            "for top in sys.argv[1:]:\n"
            " for place, _, names in os.walk(top):\n"
            "  for name in names:\n"
            "   handle = os.open(os.path.join(place, name), os.O_RDONLY)\n"
            "   os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)\n"
            "   os.close(handle)\n"
        )
        self.read(f"sync; python3 -c {shlex.quote(program)} {' '.join(self.folder(volume) for volume in volumes)}")

    @staticmethod
    def folder(volume: str) -> str:
        """Return a word of a script that becomes the folder of a volume."""
        return f"$(docker volume inspect --format '{{{{.Mountpoint}}}}' {volume})"

    def restore(self, rounds: int) -> dict[str, Any]:
        """Return what a restore of a proven point takes until the database has served, and a copy of its files, in turns."""
        copies, stages = [], []
        point = self.run("--full")["name"]
        self.read(f"{HOST_PROGRAM} drill {point}")
        for number in range(1, rounds + 1):
            self.say(f"backups: a copy of the files and a restore, {number} of {rounds}")
            self.read("docker volume rm --force bench_copy; docker volume create bench_copy")
            self.forget("postgres_data")
            source, target = self.folder("postgres_data"), self.folder("bench_copy")
            copies.append(self.timed(f"cp -a {source}/. {target}/ && sync -f {target}"))
            self.read("docker volume rm --force bench_copy")
            self.forget("backup_data")
            stages.append(self.timed(f"{HOST_PROGRAM} stage {point} --stores postgres && sync -f /var/lib/docker"))
            self.read(f"{HOST_PROGRAM} unstage")
        return {"copy_s": middle(copies), "restore_s": middle(stages), "copies": copies, "restores": stages}

    # While the database is busy

    def pgbench(self, name: str, arguments: str) -> str:
        """Return a script that runs pgbench in a container of its own, as the product is, and logs in as the owner."""
        return (
            f"export PGPASSWORD=$(cat {OWNER_PASSWORD}); exec docker run --rm --name {name} "
            f"--network slipway-database --env PGPASSWORD --entrypoint pgbench {STORE_IMAGE} --host=postgres --username=app_owner "
            f"{arguments} app 2>&1"
        )

    def load(self, seconds: int) -> subprocess.Popen[str]:
        """Start clients that do as much as they can."""
        options = f"--client={PGBENCH_CLIENTS} --jobs=2 --protocol=prepared --no-vacuum --progress=1 --progress-timestamp --time={seconds}"
        return self.lab.start(self.host, self.pgbench("bench-load", options))

    def while_busy(self, pairs: int) -> dict[str, Any]:
        """Return transactions a second without and with a full backup running, in turns."""
        self.say("backups: preparing pgbench")
        self.read(self.pgbench("bench-fill", f"--initialize --scale={PGBENCH_SCALE} --quiet"))
        self.settle()
        quiet: list[float] = []
        busy: list[float] = []
        rounds = []
        for number in range(1, pairs + 1):
            self.say(f"backups: transactions without and with a backup, {number} of {pairs}")
            samples: list[tuple[float, float]] = []
            process = self.load(3600)

            def listen(stream: Any = process.stdout, into: list[tuple[float, float]] = samples) -> None:
                lines = (re.match(r"progress: ([\d.]+) s, ([\d.]+) tps", line) for line in stream)
                into.extend((float(found[1]), float(found[2])) for found in lines if found)

            reader = threading.Thread(target=listen, daemon=True)
            reader.start()
            try:
                time.sleep(QUIET_SECONDS + 5)
                began = float(self.read("date +%s.%N"))
                run = self.run("--full")
                ended = float(self.read("date +%s.%N"))
                time.sleep(QUIET_SECONDS)
            finally:
                self.read("docker rm --force bench-load")
                reader.join(10)
                process.wait(30)
            # What is before it and after it, without the seconds in which it begins and ends.
            outside = [tps for at, tps in samples[3:] if began - QUIET_SECONDS <= at <= began or ended + 2 <= at <= ended + QUIET_SECONDS]
            inside = [tps for at, tps in samples if began + 1 <= at <= ended]
            if not outside or not inside:
                raise BenchError("pgbench did not say how many transactions it did")
            rounds.append({"without": statistics.mean(outside), "with": statistics.mean(inside), "run": run, "samples": samples})
            quiet.append(rounds[-1]["without"])
            busy.append(rounds[-1]["with"])
        return {
            "tps_without": round(statistics.median(quiet), 1),
            "tps_with": round(statistics.median(busy), 1),
            "fewer_percent": round(100 * (1 - statistics.median(with_ / without for with_, without in zip(busy, quiet, strict=True))), 1),
            "rounds": [{key: value for key, value in each.items() if key != "samples"} for each in rounds],
        }


def measure(lab: Lab, megabytes: int, rounds: int, measured: dict[str, Any], say: Callable[[str], None]) -> None:
    """Add the figures of backups, as they come."""
    bench = Backups(lab, say)
    try:
        measured["data"] = bench.prepare(megabytes)
        measured["throughput"] = bench.throughput(rounds)
        measured["growth"] = bench.growth()
        measured["restore"] = bench.restore(rounds)
        measured["while_busy"] = bench.while_busy(rounds)
    finally:
        bench.settings.unlink(missing_ok=True)
