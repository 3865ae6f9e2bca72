"""Recovery points hold what was acknowledged, and what goes wrong leaves none and says so."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from slipway_lab import ROOT, Lab, LabHost, wait_until

HOST_PROGRAM = "python3 /etc/slipway/slipway/backup/config/current/slipway_backup_host.py"
PROGRAM = "docker exec slipway-backup slipway-backup"
SECRETS = "/etc/slipway/slipway/backup/secrets"
# Root, and only what it takes to give files away: what puts data together for another user.
HELPER = (
    "docker run --rm --user 0 --cap-drop ALL --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER "
    "--volume /etc/slipway/slipway/backup/config:/etc/slipway:ro --volume /etc/slipway/slipway/backup/secrets:/run/secrets:ro"
)
# A session that writes without a pause; each line is an acknowledged row, and its moment.
WRITER = (
    "yes 'insert into acked default values returning id, extract(epoch from at);' | "
    "docker exec --interactive slipway-postgres psql --no-psqlrc --quiet --tuples-only --no-align --dbname=app >/tmp/acked 2>/dev/null"
)


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    """The backup host, with a table that the tests write to."""
    (found,) = lab.groups["backup"]
    sql(found, "create table if not exists acked (id bigserial primary key, at timestamptz not null default clock_timestamp())")
    sql(found, "alter table acked owner to app_owner")
    return found


def sql(host: LabHost, *statements: str, container: str = "slipway-postgres") -> str:
    """Return what a server answers to its superuser."""
    commands = shlex.join([f"--command={statement}" for statement in statements])
    return host.run(f"docker exec {container} psql --no-psqlrc --quiet --tuples-only --no-align --dbname=app {commands}").strip()


def names(host: LabHost) -> list[str]:
    return [point["name"] for point in json.loads(host.run(f"{PROGRAM} --json list"))]


def report(host: LabHost) -> dict[str, Any]:
    # On a full disk a line follows that says that it is not written.
    return dict(json.loads(host.run(f"{PROGRAM} --json report").splitlines()[0]))


def manifest(host: LabHost, name: str = "latest") -> dict[str, Any]:
    return dict(json.loads(host.run(f"{PROGRAM} --json show {name}")))


def run(host: LabHost, *arguments: str) -> tuple[int, str]:
    """Make a recovery point as the timer does; return the exit code and the output."""
    result = host.testinfra.run(f"{HOST_PROGRAM} run {shlex.join(arguments)}")
    return int(result.rc), str(result.stdout + result.stderr)


def write(host: LabHost) -> None:
    """Begin to write rows one by one, and to note those that are acknowledged."""
    host.run(f"systemctl reset-failed writer 2>/dev/null; systemd-run --unit writer --collect --quiet sh -c {shlex.quote(WRITER)}")
    wait_until(lambda: host.succeeds("test -s /tmp/acked"), 30, "rows are written")


def stop_writing(host: LabHost) -> None:
    """End what write() has begun, with what is still on its way to the server."""
    host.run("systemctl stop writer", check=False)
    sql(
        host,
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where query like 'insert into acked%' and pid <> pg_backend_pid()",
    )


def half_points(host: LabHost) -> list[str]:
    return host.run("docker exec slipway-backup find /backup/points -mindepth 1 -maxdepth 1 -name '.*'").split()


def leftovers(host: LabHost) -> tuple[list[str], set[str]]:
    """Return half points, and base backups that belong to no point."""
    found = host.run("docker exec slipway-backup find /backup/points -path '*/2*/manifest.json' -exec cat {} +")
    manifests = found.replace("\n}\n{", "\n},{")
    needed = {backup for found in json.loads(f"[{manifests}]") for backup in found["stores"]["postgres"]["chain"]}
    return half_points(host), set(host.run("docker exec slipway-backup ls /backup/barman/postgres/base").split()) - needed


def failed_without_a_trace(host: LabHost, cause: str, before: list[str]) -> None:
    """Check that the last run failed for this cause, and left nothing."""
    last = report(host)["last_run"]
    assert last["result"] == "failed"
    assert cause in last["reason"]
    assert names(host) == before
    assert leftovers(host) == ([], set())


@pytest.fixture
def two_points(host: LabHost) -> list[str]:
    """The names of two points or more."""
    while len(names(host)) < 2:
        assert run(host)[0] == 0
    return names(host)


@pytest.fixture
def restored(host: LabHost) -> Iterator[Callable[..., str]]:
    """A function that puts PostgreSQL together from a point and starts it, without a network; it returns the container."""

    folder = host.run("docker volume inspect --format '{{.Mountpoint}}' backup_data").strip()

    def restore(point: str, *arguments: str) -> str:
        host.run("docker rm --force drilled; docker volume rm --force drilled; docker volume create drilled", check=False)
        host.run(
            f"{HELPER} --network none --volume backup_data:/backup --volume drilled:/restore slipway/backup-tools:1 "
            f"extract postgres {point} /restore/data --owner 70:70 {shlex.join(arguments)}"
        )
        # Barman first archives what has arrived, here as root.
        host.run(f"chown --recursive --reference={folder} {folder}/barman")
        host.run(
            "docker run --detach --name drilled --network none --user postgres --volume drilled:/restore --entrypoint postgres "
            "postgres:17-alpine -D /restore/data"
        )
        ready = "docker exec drilled psql --dbname=app --command='select 1 where not pg_is_in_recovery()' | grep -q '1 row'"
        wait_until(lambda: host.succeeds(ready), 60, f"the restored server takes commands:\n{host.run('docker logs drilled', check=False)}")
        return "drilled"

    yield restore
    host.run("docker rm --force drilled; docker volume rm --force drilled", check=False)


# As it should be


def test_commits_wait_for_the_backup_host(host: LabHost):
    wal = report(host)["wal"]
    assert wal["streaming"]
    assert wal["synchronous"]
    assert wal["slot"] == "reserved"
    assert sql(host, "select application_name, sync_state from pg_stat_replication") == "slipway_backup|sync"


def test_backups_log_in_with_little(host: LabHost):
    assert sql(host, "select rolsuper, rolcreaterole, rolcreatedb, rolreplication from pg_roles where rolname = 'backup'") == "f|f|f|t"
    refused = host.run('docker exec slipway-backup psql "host=postgres user=backup dbname=app passfile=/run/secrets/pgpass" '
                       "--command='delete from acked'", check=False)  # fmt: skip
    assert "permission denied" in refused
    password = f"REDISCLI_AUTH=$(cat {SECRETS}/redis_password)"
    refused = host.run(f"{password} docker exec --env REDISCLI_AUTH slipway-redis redis-cli --user backup set a b", check=False)
    assert "NOPERM" in refused


def test_the_playbook_makes_a_point_and_reports_it(host: LabHost, lab: Lab):
    before = names(host)
    done = lab.playbook("backup")
    assert done.returncode == 0, done.output
    told = done.report["backup"]
    assert names(host) == [*before, told["last_point"]["name"]]
    assert told["last_run"]["result"] == "ok"
    assert told["last_point"]["offsite"]
    assert told["alerts"] == []
    made = manifest(host)
    assert set(made["stores"]) == {"postgres", "redis", "chroma", "volumes"}
    assert made["stores"]["postgres"]["migration_head"]
    assert made["stores"]["chroma"]["collections"][0]["records"] > 0
    assert told["last_point"]["pause_seconds"] == made["stores"]["chroma"]["pause_seconds"] == 0
    settings = made["settings"]
    assert set(settings["image_digests"]) == {
        "postgres",
        "redis",
        "chroma",
        "backup",
        "nginx",
        "backend",
        "worker",
        "prune",
        "frontend",
        "volume_server",
        "cache",
    }
    assert all(re.search(r"sha256:[0-9a-f]{64}$", digest) for digest in settings["image_digests"].values()), settings["image_digests"]
    with lab.client() as client:
        assert settings["version"] == client.get("/api/version").json()["version"]
    assert re.fullmatch(r"[0-9a-f]{64}", settings["inventory_sha256"])
    assert all(len(digest) == 64 for digest in settings["certificates"].values())
    assert "user app " in host.run(f"docker exec slipway-backup cat /backup/points/{made['name']}/redis/users.acl")
    # The magic number of zstd, little-endian.
    wal = "find /backup/barman/postgres/wals/0* -type f | head -n 1 | xargs head -c 4 | od -An -tx4"
    assert host.run(f"docker exec slipway-backup sh -c '{wal}'").strip() == "fd2fb528"
    metrics = host.run("docker exec slipway-backup cat /backup/metrics/slipway_backup.prom")
    assert 'slipway_backup_last_run_success{stack="slipway"} 1' in metrics
    assert host.succeeds(f"{PROGRAM} verify latest")


@pytest.mark.extended("backup-runs")
def test_a_second_backup_of_unchanged_data_adds_little_off_site(host: LabHost):
    sql(host, "drop table if exists bulk")
    sql(host, "create table bulk as select g, md5(g::text) as text from generate_series(1, 400000) as g")
    # Whoever reads a new row first writes a hint to its block that its transaction was committed, and the run itself counts rows. With
    # the hints written the blocks are what they stay.
    sql(host, "vacuum (freeze)")
    sql(host, "checkpoint")
    assert run(host)[0] == 0
    size = int(sql(host, "select sum(pg_database_size(oid))::bigint from pg_database"))
    assert run(host)[0] == 0
    latest = manifest(host)
    assert len(latest["stores"]["postgres"]["chain"]) > 1, "it holds the blocks that changed"
    added = report(host)["offsite"]["added_bytes"]
    # The later tests have less to carry.
    sql(host, "drop table bulk")
    assert added <= 0.02 * size, f"{added} bytes for {size}"


def test_a_point_holds_the_very_rows_that_it_counted(host: LabHost, restored: Callable[..., str]):
    # Numbers without a gap, which a crash would leave.
    sql(host, "truncate acked restart identity")
    write(host)
    try:
        code, said = run(host)
    finally:
        stop_writing(host)
    assert code == 0, said
    told = manifest(host)["stores"]["postgres"]
    counted = told["databases"]["app"]["public.acked"]["rows"]
    assert counted > 0
    server = restored("latest")
    rows = int(sql(host, "select count(*) from acked", container=server))
    assert counted <= rows <= counted + told["in_flight"]
    assert sql(host, "select count(*) = max(id) from acked", container=server) == "t", "no row in between is missing"


# Writes a record after the other to Chroma, and says of each when it was acknowledged.
CHROMA_WRITER = """
import json, time, urllib.request
server = json.load(open("/etc/slipway/current/backup.json"))["chroma"]["url"]
place = server + "/api/v2/tenants/default_tenant/databases/default_database/collections"
def call(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=60).read() or b"null")
url = place + "/" + call(place, {"name": "written", "get_or_create": True})["id"] + "/add"
# So many that it takes a while to capture them.
for first in range(0, 4000, 500):
    call(url, {"ids": [f"before-{first + n}" for n in range(500)], "embeddings": [[float(first + n), 1.0] for n in range(500)]})
for number in range(100000):
    call(url, {"ids": [str(number)], "embeddings": [[float(number), 2.0]]})
    print(number, time.time(), flush=True)
"""
REDIS_WRITER = (
    "export REDISCLI_AUTH=$(cat /run/secrets/admin_password); n=0; while n=$((n + 1)); do "
    "redis-cli -e --user admin --no-auth-warning SET written:$n 1 >/dev/null && echo $n $(date +%s.%N); done"
)


@pytest.fixture
def writers(host: LabHost) -> Iterator[None]:
    """Two that write to Chroma and to Redis all the time."""
    commands = {
        "chroma-writer": f"docker exec slipway-backup python3 -c {shlex.quote(CHROMA_WRITER)} >/tmp/chroma-written",
        "redis-writer": f"docker exec slipway-redis sh -c {shlex.quote(REDIS_WRITER)} >/tmp/redis-written",
    }
    for unit, command in commands.items():
        host.run(f"systemd-run --unit {unit} --collect --quiet sh -c {shlex.quote(command)}")
    for store in ("chroma", "redis"):
        wait_until(partial(host.succeeds, f"test $(wc -l </tmp/{store}-written) -gt 50"), 90, f"{store} is written to")
    yield
    host.run("systemctl stop chroma-writer redis-writer; pkill --full '[u]rllib.request'; pkill --full '[w]ritten:'", check=False)
    remove = "import json,urllib.request as u; s=json.load(open('/etc/slipway/current/backup.json'))['chroma']['url']; "
    remove += "p='/api/v2/tenants/default_tenant/databases/default_database/collections/written'; u.urlopen(u.Request(s+p,method='DELETE'))"
    host.run(f"docker exec slipway-backup python3 -c {shlex.quote(remove)}")
    purge = "export REDISCLI_AUTH=$(cat /run/secrets/admin_password); c='redis-cli --user admin --no-auth-warning'; "
    purge += "$c --scan --pattern 'written:*' | xargs -n 500 $c DEL >/dev/null"
    host.run(f"docker exec slipway-redis sh -c {shlex.quote(purge)}")
    host.run("docker rm --force looked-at", check=False)


def acknowledged_writes(host: LabHost, store: str) -> dict[str, float]:
    return {number: float(at) for number, at in (line.split() for line in host.run(f"cat /tmp/{store}-written").splitlines()[:-1])}


@pytest.mark.usefixtures("writers")
@pytest.mark.extended("backup-runs")
def test_what_was_acknowledged_before_the_moment_is_in_a_point_that_is_taken_while_writes_go_on(host: LabHost):
    code, said = run(host)
    assert code == 0, said
    time.sleep(1)
    made = manifest(host)
    moment, finished = (datetime.fromisoformat(made[name].replace("Z", "+00:00")).timestamp() for name in ("moment", "finished"))
    written = {store: acknowledged_writes(host, store) for store in ("chroma", "redis")}
    folder = f"/backup/points/{made['name']}"
    (file,) = [item["file"] for item in made["stores"]["chroma"]["collections"] if item["name"] == "written"]
    lines = host.run(f"docker exec slipway-backup zstd -dcq {folder}/chroma/{file}").splitlines()[1:]
    host.run(
        "docker run --detach --name looked-at --network none --user 10002 --volume backup_data:/backup:ro --entrypoint sh redis:7-alpine "
        f"-c 'cp {folder}/redis/dump.rdb /tmp/ && exec redis-server --dir /tmp --save \"\" --appendonly no'"
    )
    wait_until(lambda: host.succeeds("docker exec looked-at redis-cli PING | grep -q PONG"), 30, "Redis has loaded the copy")
    keys = host.run("docker exec looked-at redis-cli --raw KEYS 'written:*'").split()
    captured = {
        "chroma": {identifier for identifier in (json.loads(line)["id"] for line in lines) if identifier.isdigit()},
        "redis": {key.partition(":")[2] for key in keys},
    }
    assert sum(1 for line in lines if '"before-' in line) == 4000
    # The clock of the shell that writes to Redis may know seconds only.
    slack = {"chroma": 0, "redis": 1}
    for store, times in written.items():
        assert any(moment - slack[store] < at < finished for at in times.values()), f"{store} took no writes while it was captured"
        assert {number for number, at in times.items() if at < moment - slack[store]} <= captured[store], store
        # One moment for all of a store: of writes in a row, none is missing before one that is there.
        assert {int(number) for number in captured[store]} >= set(range(1, max(map(int, captured[store])))), store


@pytest.mark.extended("backup-runs")
def test_a_logical_dump_can_be_loaded_elsewhere(host: LabHost):
    change = shlex.quote('s/"logical_dump": false/"logical_dump": true/')
    host.run(f"docker exec slipway-backup sh -c {shlex.quote(f'sed {change} /etc/slipway/current/backup.json >/tmp/dump.json')}")
    host.run(f"{PROGRAM} --config /tmp/dump.json run")
    (told,) = manifest(host)["stores"]["postgres"]["dumps"].values()
    assert told["bytes"] > 0
    sql(host, "create database dumped")
    try:
        # Without owners, as on a server that does not know our users.
        folder = f"/backup/points/{manifest(host)['name']}/{told['folder']}"
        host.run(
            f"docker exec slipway-backup pg_restore --no-owner --no-privileges --file=- {folder} | "
            "docker exec --interactive slipway-postgres psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=dumped"
        )
        counted = manifest(host)["stores"]["postgres"]["databases"]["app"]
        assert counted
        for table, expected in counted.items():
            rows = host.run(f"docker exec slipway-postgres psql -qAtX --dbname=dumped --command='select count(*) from {table}'").strip()
            assert int(rows) == expected["rows"], table
    finally:
        sql(host, "drop database dumped")


@pytest.mark.extended("backup-runs")
def test_the_timer_runs_the_same(host: LabHost, lab: Lab):
    by_playbook = lab.playbook("backup").report["backup"]["last_point"]["name"]
    timer = host.run("systemctl show slipway-slipway-backup.timer --property=Persistent,RandomizedDelayUSec,ActiveState,UnitFileState")
    assert set(timer.split()) == {"Persistent=yes", "RandomizedDelayUSec=15min", "ActiveState=active", "UnitFileState=enabled"}
    unit = host.run("cat /etc/systemd/system/slipway-slipway-backup.service")
    assert f"ExecStart=/usr/bin/{HOST_PROGRAM} run --reason schedule" in unit
    before = names(host)
    host.run("systemctl start slipway-slipway-backup.service")
    assert len(names(host)) == len(before) + 1
    assert manifest(host)["reason"] == "schedule"
    # What only a controller sees is as it saw it last.
    kept = ("inventory_sha256", "version", "image_digests")
    ours, its = (manifest(host, name)["settings"] for name in ("latest", by_playbook))
    assert [ours[key] for key in kept] == [its[key] for key in kept]


@pytest.mark.extended("backup-runs")
def test_a_scheduled_run_that_was_missed_is_caught_up(host: LabHost):
    timer = "slipway-slipway-backup.timer"
    jitter = f"/run/systemd/system/{timer}.d/none.conf"
    before = names(host)
    host.run(f"mkdir -p $(dirname {jitter}) && printf '[Timer]\\nRandomizedDelaySec=0\\n' >{jitter} && systemctl daemon-reload")
    try:
        host.run(f"systemctl stop {timer} && touch --date '2 days ago' /var/lib/systemd/timers/stamp-{timer} && systemctl start {timer}")
        wait_until(lambda: len(names(host)) == len(before) + 1, 60, "the run that was missed has been made up for")
        assert manifest(host)["reason"] == "schedule"
    finally:
        host.run(f"rm -r $(dirname {jitter}) && systemctl daemon-reload && systemctl restart {timer}")
        host.wait_for_backups()
    assert len(names(host)) == len(before) + 1


# What must not break it


@pytest.mark.extended("backup-runs")
def test_two_runs_at_once_are_kept_apart(host: LabHost):
    before = names(host)
    host.run(f"systemd-run --unit first-run --collect --quiet --service-type=exec {HOST_PROGRAM} run")
    wait_until(lambda: bool(half_points(host)), 60, "the first run has begun")
    code, said = run(host)
    assert code == 3
    assert "locked by run" in said
    wait_until(lambda: not host.succeeds("systemctl is-active first-run"), 120, "the first run has ended")
    assert len(names(host)) == len(before) + 1
    assert leftovers(host) == ([], set())


def test_a_run_that_is_killed_leaves_no_point_and_the_next_one_tidies_up(host: LabHost):
    before = names(host)
    host.run(f"systemd-run --unit killed-run --collect --quiet --service-type=exec {HOST_PROGRAM} run")
    wait_until(lambda: bool(half_points(host)), 60, "the run has begun")
    # In brackets, so that it is not found in the command that looks for it.
    host.run("pkill --signal KILL --full '[p]ython3 -P -m slipway_backup run'")
    wait_until(lambda: not host.succeeds("systemctl is-active killed-run"), 60, "the run has ended")
    assert names(host) == before
    assert half_points(host)
    wait_until(lambda: not host.succeeds("pgrep pg_basebackup"), 60, "what it started has ended")
    code, said = run(host)
    assert code == 0, said
    assert len(names(host)) == len(before) + 1
    assert leftovers(host) == ([], set())


@pytest.mark.extended("backup-runs")
def test_a_run_that_is_killed_while_it_copies_off_site_is_made_up_for_by_the_next_one(host: LabHost):
    # Nothing that is known there yet, so that it takes a while.
    sql(host, "drop table if exists bulk")
    sql(host, "create table bulk as select g, sha512((g + random())::text::bytea) as noise from generate_series(1, 700000) as g")
    before = names(host)
    host.run(f"systemd-run --unit killed-run --collect --quiet --service-type=exec {HOST_PROGRAM} run --full")
    wait_until(lambda: host.succeeds("pgrep --full '[r]estic .*--files-from-verbatim'"), 90, "the copying has begun")
    # A copy that takes hours keeps no command from reading, as for a restore; one that would change the data names the command that does.
    host.run("pkill --signal STOP --full '[r]estic .*--files-from-verbatim'")
    host.run(f"{PROGRAM} verify latest")
    busy = host.run(f"{PROGRAM} prune 2>&1; echo code=$?", check=False)
    assert "code=3" in busy
    assert "locked by run" in busy
    # The run, and what it has started, which leaves its lock there and itself to the first process of the container.
    host.run("pkill --signal KILL --full '[p]ython3 -P -m slipway_backup run|[r]estic .*--files-from-verbatim'")
    wait_until(lambda: not host.succeeds("systemctl is-active killed-run"), 60, "the run has ended")
    made = names(host)
    assert len(made) == len(before) + 1, "the point itself is whole"
    assert report(host)["offsite"]["pending"] == made[-1:]
    code, said = run(host)
    assert code == 0, said
    assert report(host)["offsite"]["pending"] == []
    # An exclusive lock, as a check leaves it that is killed.
    locks = host.run("docker volume inspect --format '{{.Mountpoint}}' backup_offsite").strip() + "/restic/locks"
    assert host.run(f"ls {locks}") == ""
    check = f"systemd-run --unit killed-check --collect --quiet --service-type=exec {PROGRAM} check --read-data 100"
    kill = f"until ls {locks} | grep -q .; do sleep 0.02; done; pkill --signal KILL --full '[r]estic .*check'"
    host.run(f"{check} && timeout 60 sh -c {shlex.quote(kill)}")
    wait_until(lambda: not host.succeeds("systemctl is-active killed-check"), 60, "the check has ended")
    assert host.run(f"ls {locks}") != ""
    sql(host, "drop table bulk")
    code, said = run(host)
    assert code == 0, said
    host.run(f"{PROGRAM} check --read-data 100")


@pytest.mark.extended("backup-runs")
def test_a_run_without_its_database_fails_and_says_so(host: LabHost):
    before = names(host)
    host.run("docker stop slipway-postgres")
    try:
        code, _ = run(host)
        assert code == 1
        failed_without_a_trace(host, "PostgreSQL at postgres:5432", before)
        assert "WAL is not streaming" in " ".join(report(host)["alerts"]) or "PostgreSQL at" in " ".join(report(host)["alerts"])
    finally:
        host.run("docker start slipway-postgres")
    wait_until(lambda: report(host)["wal"]["streaming"], 90, "WAL streams again")
    assert run(host)[0] == 0
    states = host.run("docker top slipway-backup -eo pid,stat").split()
    assert not [state for state in states if state.startswith("Z")], "what the receiver left is taken leave of"


@pytest.mark.extended("backup-runs")
def test_a_run_on_a_full_disk_fails_and_leaves_nothing(host: LabHost):
    config = json.loads(host.run("cat /etc/slipway/slipway/backup/config/current/backup.json"))
    # Of PostgreSQL there is one receiver only; the stores that remain are written by programs of their own.
    config |= {"postgres": {}, "volumes": [], "offsite": {"repository": ""}, "minimum_free_percent": 0}
    host.run(f"mkdir -p /tmp/small && echo {shlex.quote(json.dumps(config))} >/tmp/small/backup.json")
    small = (
        f"{HELPER} --network slipway-database --tmpfs /small:size=65m --volume /tmp/small:/tmp/small:ro --entrypoint sh "
        "slipway/backup-tools:1 -c "
    )
    program = "slipway-backup --config /tmp/small/backup.json --data /small"
    filled = (
        f"exec 2>&1; mkdir -p /small/points; {program} run --quiet && dd if=/dev/zero of=/small/filler bs=1024 count=2048 status=none; "
        f"{program} run; echo code=$?; ls -A /small/points | wc -l"
    )
    said = host.run(small + shlex.quote(filled))
    assert "MB free; a run needs up to" in said
    assert "code=1" in said
    assert said.split()[-1] == "1"


@pytest.fixture
def small_disk(host: LabHost) -> Iterator[str]:
    """Where the backups' volume is, which is a disk of its own meanwhile: empty, and kept in memory."""
    folder = host.run("docker volume inspect --format '{{.Mountpoint}}' backup_data").strip()
    streams = "WAL streams again"
    host.run(f"docker stop slipway-backup && mount -t tmpfs -o size=1g,mode=$(stat -c %a,uid=%u,gid=%g {folder}) tmpfs {folder}")
    try:
        host.run("docker start slipway-backup")
        wait_until(lambda: report(host)["wal"]["streaming"], 90, streams)
        yield folder
    finally:
        host.run(f"docker stop slipway-backup; umount {folder}; docker start slipway-backup")
        wait_until(lambda: report(host)["wal"]["streaming"], 90, streams)
    # WAL has gone to the other disk meanwhile.
    assert run(host)[0] == 0
    assert report(host)["alerts"] == []


def leave_free(disk: str, megabytes: int) -> str:
    """Return the command that gives a disk in memory this much room in addition to what is on it."""
    return f"mount -o remount,size=$(($(df --output=used --block-size=1 {disk} | tail -n 1) + {megabytes * 2**20})) {disk}"


@pytest.mark.extended("backup-runs")
def test_a_base_backup_that_meets_a_full_disk_leaves_nothing_and_wal_streams_on_when_there_is_room(
    host: LabHost, small_disk: str, restored: Callable[..., str]
):
    code, said = run(host)
    assert code == 0, said
    before = names(host)
    bases = f"ls {small_disk}/barman/postgres/base"
    (there,) = host.run(bases).split()
    fill = f"until {bases} | grep -qv {there}; do sleep 0.01; done; {leave_free(small_disk, 4)}"
    host.run(f"systemd-run --unit filled-disk --collect --quiet sh -c {shlex.quote(fill)}")
    code, said = run(host, "--full")
    assert code == 1
    assert "No space left on device" in said
    failed_without_a_trace(host, "No space left on device", before)
    # Now WAL meets it too. Commits would wait for what cannot be received.
    host.run(leave_free(small_disk, 0))
    for _ in range(2):
        sql(host, "set synchronous_commit = local", "insert into acked default values", "select pg_switch_wal()")
    wait_until(lambda: not report(host)["wal"]["streaming"], 60, "the receiver has met the full disk")
    told = report(host)
    assert "WAL is not streaming" in told["alerts"]
    assert any(alert.startswith("the backup disk has 0 % free") for alert in told["alerts"]), told["alerts"]
    code, said = run(host)
    assert code == 1
    assert "MB free; a run needs up to" in said
    host.run(f"mount -o remount,size=1g {small_disk}")
    wait_until(lambda: report(host)["wal"]["streaming"], 90, "WAL streams again")
    rows = sql(host, "insert into acked default values", "select count(*) from acked")
    server = restored("latest", "--target-time", "end")
    assert sql(host, "select count(*) from acked", container=server) == rows, "no WAL is missing"
    code, said = run(host)
    assert code == 0, said
    assert report(host)["alerts"] == []
    assert leftovers(host) == ([], set())


@pytest.mark.extended("backup-runs")
def test_a_wrong_password_of_the_repository_is_named(host: LabHost):
    host.run(f"cp --preserve {SECRETS}/offsite_password /root/kept && echo some-other-secret-1 >{SECRETS}/offsite_password")
    try:
        code, said = run(host)
        assert code == 2
        assert "the password is not the repository's" in said
        told = report(host)
        assert told["offsite"]["pending"] == [told["last_point"]["name"]]
        assert any("off-site lacks" in alert for alert in told["alerts"])
        assert "some-other-secret-1" not in json.dumps(told) + said
    finally:
        host.run(f"cat /root/kept >{SECRETS}/offsite_password && rm /root/kept")
    host.run(f"{PROGRAM} ship")
    assert report(host)["offsite"]["pending"] == []
    assert report(host)["alerts"] == []


@pytest.mark.usefixtures("two_points")
def test_damage_is_found_and_the_point_before_is_offered(host: LabHost):
    run(host, "--full")
    newest, before = names(host)[-1], names(host)[-2]
    (backup,) = manifest(host, newest)["stores"]["postgres"]["chain"]
    path = f"/backup/barman/postgres/base/{backup}/data/global/pg_filenode.map"
    host.run(f"docker exec slipway-backup sh -c 'cp {path} /backup/kept && printf X | dd of={path} bs=1 seek=100 conv=notrunc status=none'")
    said = host.run(f"{PROGRAM} verify {newest}; echo code=$?", check=False)
    assert "pg_filenode.map" in said
    assert "code=1" in said
    host.run(f"{PROGRAM} verify {before}")
    host.run(f"""echo '{{"reason": "damaged"}}' | docker exec --interactive slipway-backup slipway-backup mark {newest} failed""")
    assert manifest(host)["name"] == before
    assert f"the drill of {newest} failed: damaged" in report(host)["alerts"]
    # Off-site it is whole: fetching it again repairs it.
    host.run(f"{PROGRAM} fetch {newest}")
    host.run(f"{PROGRAM} verify {newest}")
    host.run(f"echo '{{}}' | docker exec --interactive slipway-backup slipway-backup mark {newest} verified")
    assert report(host)["last_verified"]["name"] == newest


@pytest.mark.extended("backup-runs")
def test_pruning_takes_a_point_with_all_that_only_it_needed_and_nothing_else(host: LabHost, restored: Callable[..., str]):
    rows = []
    for _ in range(3):
        sql(host, "insert into acked default values")
        assert run(host, "--full")[0] == 0
        rows.append(sql(host, "select count(*) from acked"))
    # Two of one day, long ago: the newer of them is the month's newest, and is kept.
    day = datetime.now(timezone.utc) - timedelta(days=40)
    aged = [day.replace(hour=hour).strftime("%Y%m%dT%H0000Z") for hour in (1, 2)]
    bases = [manifest(host, name)["stores"]["postgres"]["backup_id"] for name in names(host)[-3:]]
    for name, older in zip(names(host)[-3:-1], aged, strict=True):
        moment = f"{older[:4]}-{older[4:6]}-{older[6:8]}T{older[9:11]}:00:00.000Z"
        age = (
            f"import json, os; old, new = '/backup/points/{name}', '/backup/points/{older}'; os.rename(old, new); "
            f"made = json.load(open(new + '/manifest.json')); made.update(name='{older}', moment='{moment}'); "
            "open(new + '/manifest.json', 'w').write(json.dumps(made, indent=2) + '\\n')"
        )
        host.run(f"docker exec slipway-backup python3 -c {shlex.quote(age)}")
    assert names(host)[:2] == aged
    code, said = run(host)
    assert code == 0, said
    assert f"prune: removed {aged[0]}" in said
    assert f"offsite: removing {aged[0]}" in said
    assert names(host)[0] == aged[1]
    left = set(host.run("docker exec slipway-backup ls /backup/barman/postgres/base").split())
    assert left & set(bases) == set(bases[1:])
    assert leftovers(host) == ([], set())
    there = [point["name"] for point in json.loads(host.run(f"{PROGRAM} --json list --offsite"))]
    assert aged[0] not in there
    assert set(names(host)) <= set(there)
    host.run(f"{PROGRAM} check --read-data 100")
    # With the WAL that it needs.
    host.run(f"{PROGRAM} verify {aged[1]}")
    assert sql(host, "select count(*) from acked", container=restored(aged[1])) == rows[1]


@pytest.mark.extended("backup-runs")
def test_a_point_that_is_fetched_takes_nothing_from_newer_ones(host: LabHost, two_points: list[str], restored: Callable[..., str]):
    older = two_points[-1]
    rows = []
    for _ in range(2):
        sql(host, "insert into acked default values", "select pg_switch_wal()")
        assert run(host)[0] == 0
        rows.append(sql(host, "select count(*) from acked"))
    host.run(f"docker exec slipway-backup rm -r /backup/points/{older}")
    host.run(f"{PROGRAM} fetch {older}")
    host.run(f"{PROGRAM} verify {older}")
    for name, count in zip(names(host)[-2:], rows, strict=True):
        assert sql(host, "select count(*) from acked", container=restored(name)) == count


@pytest.mark.extended("backup-losses")
def test_a_moment_that_no_point_here_leads_to_is_restored_from_the_one_off_site_that_does(host: LabHost, lab: Lab, two_points: list[str]):
    *older, newest = two_points
    wanted = older[-1]
    moment = manifest(host, wanted)["moment"]
    # As after the loss of the host, whose timer has made a point since.
    move = "mkdir -p /backup/hidden && cd /backup/points && mv {} /backup/hidden"
    host.run(f"docker exec slipway-backup sh -c '{move.format(' '.join(older))}'")
    try:
        assert names(host) == [newest]
        run = lab.playbook("restore", variables={"target_time": moment, "into": "inspect"})
        assert run.returncode == 0, run.excerpt
        assert f"Recovery point {wanted} of" in run.output
        assert names(host) == [wanted, newest]
        assert lab.playbook("restore", variables={"into": "inspect", "remove": "true"}).returncode == 0
    finally:
        back = f"rm -rf /backup/points/{wanted} && mv /backup/hidden/* /backup/points/ && rmdir /backup/hidden"
        host.run(f"docker exec slipway-backup sh -c '{back}'")


@pytest.mark.extended("backup-losses")
def test_wal_that_the_database_had_to_drop_is_an_alert_and_the_next_backup_a_full_one(host: LabHost):
    host.run("docker stop slipway-backup")
    try:
        for _ in range(6):
            # Commits would wait for the receiver that is stopped.
            sql(
                host,
                "set synchronous_commit = local",
                "create table filler as select g, repeat(md5(g::text), 20) from generate_series(1, 200000) g",
                "drop table filler",
                "select pg_switch_wal()",
                "checkpoint",
            )
            if sql(host, "select wal_status from pg_replication_slots") == "lost":
                break
        else:
            pytest.fail("the server keeps all WAL")
    finally:
        host.run("docker start slipway-backup")
    wait_until(lambda: report(host)["wal"]["streaming"], 90, "WAL streams again")
    assert any("WAL was lost at" in alert for alert in report(host)["alerts"])
    assert run(host)[0] == 0
    assert len(manifest(host)["stores"]["postgres"]["chain"]) == 1
    assert report(host)["alerts"] == []


@pytest.mark.extended("backup-losses")
def test_a_clock_that_is_wrong_by_an_hour_costs_neither_order_nor_moments(host: LabHost, restored: Callable[..., str]):
    host.need("faketime")
    folder = host.run("docker volume inspect --format '{{.Mountpoint}}' backup_data").strip() + "/wrong"
    host.run(f"mkdir -p {folder} && cp /usr/lib/*/faketime/libfaketime.so.1 {folder}/")
    # With the allocator of these the library waits for itself.
    for tool in ("redis-cli", "redis-check-rdb"):
        script = shlex.quote(f'#!/bin/sh\nunset LD_PRELOAD\nexec /usr/bin/{tool} "$@"\n')
        host.run(f"printf %s {script} >{folder}/{tool} && chmod 0755 {folder}/{tool}")
    sql(host, "truncate acked restart identity")

    def wrong(offset: str, command: str, check: bool = True) -> str:
        settings = f"LD_PRELOAD=/backup/wrong/libfaketime.so.1 FAKETIME={offset} FAKETIME_DONT_FAKE_MONOTONIC=1 PATH=/backup/wrong:$PATH"
        return host.run(f"docker exec slipway-backup sh -c '{settings} exec slipway-backup --json {command}'", check)

    sql(host, "insert into acked default values")
    made = [json.loads(wrong("+1h", "run --full").splitlines()[0])]
    alerts = json.loads(wrong("+1h", "report").splitlines()[0])["alerts"]
    assert any("3600 s ahead of the database's" in alert for alert in alerts), alerts
    # Barman would take it for the first of all, and drop the WAL that the others need.
    before = names(host)
    assert "set it" in wrong("-1d", "run", check=False)
    failed_without_a_trace(host, "before the oldest base backup", before)
    sql(host, "insert into acked default values")
    assert run(host)[0] == 0
    made.append(manifest(host))
    sql(host, "insert into acked default values")
    time.sleep(1.5)
    moment = sql(host, "select clock_timestamp()")
    time.sleep(1.5)
    sql(host, "insert into acked default values")
    assert run(host)[0] == 0
    assert report(host)["alerts"] == []
    made.append(manifest(host))
    assert [point["name"] for point in made] == names(host)[-3:], "the newest is the last one"
    assert [point["moment"] for point in made] == sorted(point["moment"] for point in made), "by the clock of the database"
    for point in made:
        host.run(f"{PROGRAM} verify {point['name']}")
    host.run(f"rm -r {folder}")
    server = restored("latest", "--target-time", moment)
    assert sql(host, "select count(*) from acked", container=server) == "3"


@pytest.mark.extended("backup-losses")
def test_another_cluster_is_not_mixed_in_and_backups_start_over_when_asked_by_name(host: LabHost, lab: Lab, two_points: list[str]):
    identity = "/backup/barman/postgres/identity.json"
    before = two_points
    host.run(f"docker exec slipway-backup cp -p {identity} {identity}.kept")
    host.run(f'docker exec slipway-backup sed -i \'s/"systemid": "[0-9]*/"systemid": "1/\' {identity}')
    try:
        code, said = run(host)
        assert code == 1
        assert "-e backup_start_over=slipway" in said
        assert "give the name of this stack: slipway, not another" in host.run(f"{PROGRAM} start-over --cluster another", check=False)
        assert names(host) == before
    except AssertionError:
        host.run(f"docker exec slipway-backup mv {identity}.kept {identity}")
        raise
    done = lab.playbook("backup", variables={"backup_start_over": "slipway"})
    assert done.returncode == 0, done.excerpt
    assert done.report["backup"]["alerts"] == []
    assert names(host) == [done.report["backup"]["last_point"]["name"]]
    assert len(manifest(host)["stores"]["postgres"]["chain"]) == 1
    # What was there can still be restored from.
    aside = host.run("docker exec slipway-backup sh -c 'echo /backup/aside/*'").strip()
    kept = [point["name"] for point in json.loads(host.run(f"{PROGRAM} --data {aside} --json list"))]
    assert kept == before
    host.run(f"{PROGRAM} --data {aside} verify {before[-1]}")
    host.run(f"docker exec slipway-backup rm -r {aside}")


# Loss


def lose_the_database(host: LabHost, restored: Callable[..., str]) -> tuple[dict[int, float], set[int]]:
    """Kill the database while it takes rows; return the moments of those that were acknowledged, and those that could be restored."""
    sql(host, "truncate acked restart identity")
    assert run(host)[0] == 0
    write(host)
    time.sleep(5)
    host.run("docker kill slipway-postgres; systemctl stop writer || true")
    try:
        acknowledged = {int(row): float(at) for row, at in re.findall(r"^(\d+)\|(\d+\.\d+)$", host.run("cat /tmp/acked"), re.MULTILINE)}
        assert len(acknowledged) > 100
        server = restored("latest", "--target-time", "end")
        found = {int(line) for line in sql(host, "select id from acked", container=server).splitlines()}
    finally:
        host.run("docker start slipway-postgres")
    return acknowledged, found


def test_the_loss_of_the_database_loses_nothing_that_was_acknowledged(host: LabHost, restored: Callable[..., str]):
    acknowledged, found = lose_the_database(host, restored)
    assert set(acknowledged) - found == set()
    wait_until(lambda: report(host)["wal"]["synchronous"], 120, "commits wait for the backup host again")


@pytest.fixture
def unsynchronised(host: LabHost, lab: Lab) -> Iterator[None]:
    """Commits that do not wait for the backup host, by the inventory."""
    settings = lab.inventory / "group_vars/all/50_backup.yml"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace("backup_wal_synchronous: true", "backup_wal_synchronous: false"), encoding="utf-8")
    lab.site()
    # The receiver reads its configuration again.
    wait_until(lambda: report(host)["wal"]["streaming"], 60, "WAL streams again")
    yield
    settings.write_text(text, encoding="utf-8")
    lab.site()
    wait_until(lambda: report(host)["wal"]["synchronous"], 120, "commits wait for the backup host again")


@pytest.mark.usefixtures("unsynchronised")
@pytest.mark.extended("backup-losses")
def test_the_loss_of_a_database_that_waits_for_no_receiver_loses_the_last_second_at_most(host: LabHost, restored: Callable[..., str]):
    assert sql(host, "select sync_state from pg_stat_replication") == "async"
    assert report(host)["alerts"] == []
    host.run("docker pause slipway-backup")
    try:
        host.run("timeout 10 docker exec slipway-postgres psql --dbname=app --command='insert into acked default values'")
    finally:
        host.run("docker unpause slipway-backup")
    acknowledged, found = lose_the_database(host, restored)
    lost = sorted(max(acknowledged.values()) - at for row, at in acknowledged.items() if row not in found)
    assert all(age < 1 for age in lost), f"{len(lost)} rows are lost, of up to {lost[-1]:.3f} s before the end"
    wait_until(lambda: report(host)["wal"]["streaming"], 120, "WAL streams again")


# Where Slipway has not set the server up


@pytest.fixture
def foreign(host: LabHost) -> Iterator[str]:
    """A server as a provider runs one: we may log in, read and replicate. Returns the command of its backups' program."""
    folder = "/root/foreign"
    remove = f"docker rm --force --volumes foreign foreign-backup; docker volume rm --force foreign_backup; rm -rf {folder}"
    host.run(remove, check=False)
    host.run(
        "docker run --detach --name foreign --network slipway-database --env POSTGRES_PASSWORD=foreign-password-1 --env POSTGRES_DB=shop "
        "postgres:17-alpine"
    )
    as_owner = (
        "docker exec foreign psql --username=postgres --dbname=shop --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1"
    )
    # The server that the image starts to set itself up listens on no address.
    over_tcp = as_owner.replace("exec", "exec --env PGPASSWORD=foreign-password-1")
    wait_until(lambda: host.succeeds(f"{over_tcp} --host=127.0.0.1 --command='select 1'"), 60, "the server is up")
    (grants,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/backup.md").read_text(encoding="utf-8"), re.DOTALL)
    host.run(f"{as_owner} --command={shlex.quote(grants.replace('…', 'backup-password-1'))}")
    host.run("docker exec --user postgres foreign sh -c 'echo host replication backup all scram-sha-256 >>$PGDATA/pg_hba.conf'")
    host.run(f"{as_owner} --command='select pg_reload_conf()' --command='create table kept as select g from generate_series(1, 1000) as g'")
    config = json.loads(host.run("cat /etc/slipway/slipway/backup/config/current/backup.json"))
    config |= {"redis": {}, "chroma": {}, "volumes": [], "offsite": {"repository": ""}, "minimum_free_percent": 0}
    config["postgres"] |= {"host": "foreign", "database": "shop", "user": "backup", "migration_query": "", "synchronous": False}
    host.run(f"mkdir -p {folder}/secrets && echo {shlex.quote(json.dumps(config))} >{folder}/backup.json")
    login = f"{folder}/secrets/pgpass"
    host.run(f"echo '*:*:*:backup:backup-password-1' >{login} && chmod 0400 {login} && chown -R 10002:10002 {folder}")
    host.run(
        "docker volume create foreign_backup && chown 10002:10002 $(docker volume inspect --format '{{.Mountpoint}}' foreign_backup) && "
        "docker run --detach --name foreign-backup --network slipway-database --user 10002 --cap-drop ALL "
        f"--volume foreign_backup:/backup --volume {folder}/backup.json:/config/backup.json:ro --volume {folder}/secrets:/run/secrets:ro "
        "--volume /etc/slipway/slipway/backup/config:/etc/slipway:ro --env HOME=/tmp "
        "slipway/backup-tools:1 --config /config/backup.json serve"
    )
    yield "docker exec foreign-backup slipway-backup --config /config/backup.json"
    host.run(remove, check=False)


@pytest.mark.extended("backup-losses")
def test_a_server_that_slipway_did_not_deploy_is_restored_to_the_last_row(host: LabHost, foreign: str):
    rows = "docker exec {} psql --username=postgres --dbname=shop --no-psqlrc --quiet --tuples-only --no-align --command={}"
    wait_until(lambda: host.succeeds(f"{foreign} --json report | grep -q '\"streaming\": true'"), 90, "WAL streams")
    host.run(f"{foreign} run")
    host.run(rows.format("foreign", shlex.quote("insert into kept select g from generate_series(1001, 1500) as g")))
    host.run(f"{foreign} run")
    chain = json.loads(host.run(f"{foreign} --json show latest"))["stores"]["postgres"]["chain"]
    # The blocks that changed only where the provider has set summarize_wal.
    assert len(chain) == 1
    host.run(rows.format("foreign", shlex.quote("insert into kept select g from generate_series(1501, 1600) as g")))
    time.sleep(1)
    host.run("docker kill foreign")
    host.run(f"{foreign} extract postgres latest /backup/restored --target-time end")
    folder = host.run("docker volume inspect --format '{{.Mountpoint}}' foreign_backup").strip() + "/restored"
    # At the place it was put together for, where its WAL lies too.
    host.run(
        f"chown -R 70:70 {folder} && docker rm --force foreign && docker run --detach --name foreign --network none --user postgres "
        f"--volume {folder}:/backup/restored --entrypoint postgres postgres:17-alpine -D /backup/restored"
    )
    count = rows.format("foreign", shlex.quote("select count(*) from kept where not pg_is_in_recovery()"))
    wait_until(lambda: host.succeeds(f"{count} | grep -q 1600"), 60, "all rows are there")
