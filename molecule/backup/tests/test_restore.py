"""A point is proven by restoring it, and anyone can bring one back: to the row, again after an interruption, and never a bad one."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import slipway_marks as marks
from slipway_lab import BIN, ROOT, Lab, LabHost, Run, wait_until

HOST_PROGRAM = "python3 /etc/slipway/slipway/backup/config/current/slipway_backup_host.py"
PROGRAM = "docker exec slipway-backup slipway-backup"
JOURNAL = "/etc/slipway/slipway/restore/postgres.json"
QUESTION = b"Type the name of the stack to continue"
THROWN_AWAY = "docker {} --filter label=slipway.owner=backup-drill --filter label=slipway.stack=slipway --quiet"


def sql(host: LabHost, statement: str, container: str = "slipway-postgres", options: str = "") -> str:
    """Return what a server answers to its superuser."""
    command = f"psql {options} --no-psqlrc --quiet --tuples-only --no-align --dbname=app --command={shlex.quote(statement)}"
    return host.run(f"docker exec {container} {command}").strip()


def points(host: LabHost) -> list[dict[str, Any]]:
    return list(json.loads(host.run(f"{PROGRAM} --json list")))


def restore(lab: Lab, *arguments: str, **variables: str) -> Run:
    """Run restore.yml as an operator who has typed the name of the stack."""
    return lab.playbook("restore", *arguments, variables={"restore_confirm": "slipway", **variables})


def typed(lab: Lab, answer: str, **variables: str) -> tuple[int, str]:
    """Run restore.yml at a terminal, as a person who types an answer when asked; return the exit code and what the terminal showed."""
    command = [str(BIN / "ansible-playbook"), "playbooks/restore.yml", "-i", str(lab.inventory), "--extra-vars", json.dumps(variables)]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
    child, terminal = pty.fork()
    if not child:
        os.chdir(ROOT)
        os.execve(command[0], command, {**kept, "ANSIBLE_NOCOLOR": "1", "SLIPWAY_REPORTS_DIR": str(lab.reports)})
    shown = b""
    answered = False
    # Reading fails when the last that holds the other end has ended.
    with contextlib.suppress(OSError), os.fdopen(terminal, "r+b", buffering=0) as screen:
        while piece := screen.read(4096):
            shown += piece
            if not answered and QUESTION in shown:
                # What is typed before the prompt listens is dropped.
                time.sleep(1)
                screen.write(answer.encode() + b"\r")
                answered = True
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode(errors="replace")


def nothing_thrown_away_is_left(host: LabHost) -> bool:
    return not "".join(host.run(THROWN_AWAY.format(kind)) for kind in ("ps --all", "network ls", "volume ls")).strip()


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    """The backup host, with a table that the tests write to, a point that holds it, and one before that."""
    (found,) = lab.groups["backup"]
    sql(found, "create table if not exists kept (id bigserial primary key, at timestamptz not null default clock_timestamp())")
    sql(found, "insert into kept select from generate_series(1, 100)")
    for _ in range(2 if len(points(found)) == 0 else 1):
        found.run(f"{HOST_PROGRAM} run --wait 300", check=False)
    assert len(points(found)) > 1, "no point could be made"
    return found


@pytest.fixture
def newest(host: LabHost) -> dict[str, Any]:
    return points(host)[-1]


@pytest.fixture
def damaged(host: LabHost, newest: dict[str, Any]) -> Iterator[str]:
    """The newest point, with a file of it changed meanwhile."""
    path = f"/backup/points/{newest['name']}/redis/dump.rdb"
    host.run(f"docker exec slipway-backup cp {path} /backup/kept.rdb")
    host.run(f"docker exec slipway-backup sh -c 'printf x | dd of={path} bs=1 seek=20 conv=notrunc'")
    yield newest["name"]
    host.run(f"docker exec slipway-backup mv /backup/kept.rdb {path}")
    # Proven again.
    host.run(f"{HOST_PROGRAM} drill {newest['name']}")


def test_a_drill_proves_the_newest_point_and_cleans_up_after_one_that_died(host: LabHost, lab: Lab, newest: dict[str, Any]):
    labels = "--label slipway.stack=slipway --label slipway.owner=backup-drill --label slipway.service=drill-redis"
    host.run(f"docker volume create {labels} slipway-drill-redis && docker network create --internal {labels} slipway-drill")
    run = lab.playbook("drill")
    assert run.returncode == 0, run.excerpt
    drill = run.report["drill"]
    assert (drill["point"], drill["result"]) == (newest["name"], "verified")
    passed = {check["name"]: check["detail"] for check in drill["checks"] if check["result"] == "passed"}
    assert {"files", "postgres starts", "pg_amcheck", "rows of app", "migration head", "redis keys", "chroma answers"} <= set(passed)
    assert passed["the schema has one version"] == "true"
    assert drill["seconds"] >= drill["restore_seconds"] > 0
    # The row that this module wrote last, unless there is a newer one of the product's.
    age = float(sql(host, "select extract(epoch from clock_timestamp() - max(at)) from kept"))
    assert 0 <= drill["newest_age_s"] <= age
    assert points(host)[-1]["verified"] == "verified"
    assert nothing_thrown_away_is_left(host)


@pytest.mark.extended("drill")
def test_a_drill_waits_for_one_that_is_going_on(host: LabHost, lab: Lab, newest: dict[str, Any]):
    host.run(f"systemd-run --unit other-drill --collect --quiet --service-type=exec {HOST_PROGRAM} drill {newest['name']}")
    wait_until(lambda: host.succeeds("docker container inspect slipway-drill-postgres"), 60, "the other drill has begun")
    networks = json.loads(host.run("docker container inspect --format '{{json .NetworkSettings.Networks}}' slipway-drill-postgres"))
    assert list(networks) == ["slipway-drill"]
    assert host.run("docker network inspect --format '{{.Internal}}' slipway-drill").strip() == "true"
    run = lab.playbook("drill")
    assert run.returncode == 0, run.excerpt
    assert "another drill runs on this host" in run.output
    assert run.report["drill"]["result"] == "verified"


@contextlib.contextmanager
def changed(host: LabHost, path: str, program: str) -> Iterator[None]:
    """A JSON file of the host, the dict ``it``, as a program has changed it meanwhile."""
    script = f"import json; path = {path!r}; it = json.load(open(path)); {program}; json.dump(it, open(path, 'w'))"
    host.run(f"cp --preserve {path} /root/kept.json && python3 -c {shlex.quote(script)}")
    try:
        yield
    finally:
        host.run(f"cp --preserve /root/kept.json {path}")


def failed_checks(lab: Lab) -> dict[str, str]:
    """Drill the newest point, which is to fail; return what failed, and why."""
    drill = lab.playbook("drill")
    assert drill.returncode != 0
    told = drill.report["drill"]
    assert told["result"] == "failed"
    found = {check["name"]: check["detail"] for check in told["checks"] if check["result"] == "failed"}
    assert all(name in told["reason"] for name in found if name != "restore"), told["reason"]
    return found


@pytest.mark.extended("drill")
def test_a_drill_fails_for_each_thing_that_is_not_as_it_was(host: LabHost, lab: Lab, newest: dict[str, Any]):
    volume = host.run("docker volume inspect --format '{{.Mountpoint}}' backup_data").strip()
    manifest = f"{volume}/points/{newest['name']}/manifest.json"
    edits = (
        "stores = it['stores']; stores['redis']['keys'] += 1; stores['postgres']['migration_head'] = '9999'; "
        "tables = stores['postgres']['databases']['app']; tables['public.kept']['rows'] += 1; "
        "stores['postgres'].update(exact=True, in_flight=0)"
    )
    with changed(host, manifest, edits):
        found = failed_checks(lab)
    assert set(found) == {"rows of app", "migration head", "redis keys"}
    assert "public.kept has" in found["rows of app"]
    with changed(host, manifest, "it['stores']['chroma']['collections'][0]['records'] += 1"):
        assert "records instead of" in failed_checks(lab)["restore"]
    checks = [
        {"name": "a wrong answer", "sql": "select count(*) from alembic_version", "expect": "2"},
        {"name": "no answer", "sql": "select * from missing"},
    ]
    with changed(host, "/etc/slipway/slipway/backup/config/current/backup.json", f"it['drill']['checks'] = {checks!r}"):
        found = failed_checks(lab)
    assert found["a wrong answer"] == "'1' instead of '2'"
    assert 'relation "missing" does not exist' in found["no answer"]
    drill = lab.playbook("drill")
    assert drill.report["drill"]["result"] == "verified", drill.excerpt


@pytest.mark.extended("drill")
def test_a_drill_finds_an_index_that_leads_to_the_wrong_rows(host: LabHost, lab: Lab):
    # An order that turns round when the index is made: as of a library whose rules for sorting text have changed.
    order = "create or replace function turned(a int, b int) returns int language sql immutable as 'select {}'"
    operators = ", ".join(f"operator {number} {sign} (int4, int4)" for number, sign in enumerate(("<", "<=", "=", ">=", ">"), start=1))
    for statement in (
        order.format("case when a < b then -1 when a > b then 1 else 0 end"),
        f"create operator class turning for type int4 using btree as {operators}, function 1 turned(int4, int4)",
        "create table turned_round as select g from generate_series(1, 1000) as g",
        "create index on turned_round (g turning)",
        order.format("case when a < b then 1 when a > b then -1 else 0 end"),
    ):
        sql(host, statement)
    try:
        host.run(f"{HOST_PROGRAM} run --wait 300")
        assert "item order invariant violated" in failed_checks(lab)["pg_amcheck"]
    finally:
        sql(host, "drop table turned_round; drop operator family turning using btree cascade; drop function turned")
    host.run(f"{HOST_PROGRAM} run --wait 300")
    assert lab.playbook("drill").report["drill"]["result"] == "verified"


@pytest.mark.extended("drill")
def test_a_drill_finds_wal_that_is_damaged(host: LabHost, lab: Lab):
    sql(host, "insert into kept default values")
    host.run(f"{HOST_PROGRAM} run --wait 300")
    chain = json.loads(host.run(f"{PROGRAM} --json show {points(host)[-1]['name']}"))["stores"]["postgres"]["chain"]
    # What recovery begins with.
    wal = host.run(f"docker exec slipway-backup sed -n s/^begin_wal=//p /backup/barman/postgres/meta/{chain[-1]}-backup.info").strip()
    path = f"/backup/barman/postgres/wals/{wal[:16]}/{wal}"
    host.run(f"docker exec slipway-backup cp -p {path} /backup/kept.wal")
    try:
        host.run(f"docker exec slipway-backup sh -c 'dd if=/dev/urandom of={path} bs=1 seek=30 count=400 conv=notrunc status=none'")
        assert "restore" in failed_checks(lab)
    finally:
        host.run(f"docker exec slipway-backup mv /backup/kept.wal {path}")
    assert lab.playbook("drill").report["drill"]["result"] == "verified"


@pytest.mark.parametrize("spoilt", ["head -c 16777216 /dev/zero | zstd -q", "head -c 5000 /dev/urandom"])
@pytest.mark.extended("drill")
def test_wal_that_cannot_be_read_up_to_its_end_is_reported(host: LabHost, lab: Lab, spoilt: str):
    """Of a segment that can be decompressed and is not what was written, and of one that cannot."""
    point = points(host)[-1]["name"]
    rows = int(sql(host, "select count(*) from kept"))
    written = []
    for _ in range(3):
        written.append(sql(host, "insert into kept default values; select pg_walfile_name(pg_current_wal_lsn())"))
        sql(host, "select pg_switch_wal()")
    path = f"/backup/barman/postgres/wals/{written[1][:16]}/{written[1]}"
    wait_until(lambda: host.succeeds(f"docker exec slipway-backup test -e {path}"), 90, "Barman has the segment")
    host.run(f"docker exec slipway-backup sh -c 'cp -p {path} /backup/kept.wal && {spoilt} >{path}'")
    inspect = {"target_time": "end", "into": "inspect"}
    count = "docker exec slipway-inspect-postgres psql -h /tmp -U postgres -qAt app -c 'select count(*) from kept'"
    try:
        run = restore(lab, **inspect)
        assert run.returncode == 0, run.excerpt
        assert f"WARNING: PostgreSQL could read its WAL up to segment {written[1]} only" in " ".join(run.output.split())
        assert int(host.run(count)) == rows + 1
        # Points before it need nothing of it.
        host.run(f"{HOST_PROGRAM} drill {point}")
    finally:
        host.run(f"docker exec slipway-backup mv /backup/kept.wal {path}")
    run = restore(lab, **inspect)
    assert "WARNING: PostgreSQL" not in run.output
    # The last of them in a segment that no other follows, which Barman does not archive yet.
    assert int(host.run(count)) == rows + 3
    assert restore(lab, into="inspect", remove="true").returncode == 0
    # As the newest point has it.
    sql(host, "delete from kept where id in (select id from kept order by id desc limit 3)")


def test_all_points_are_listed(host: LabHost, lab: Lab):
    listed = lab.playbook("restore", variables={"list": "true"})
    assert listed.returncode == 0, listed.excerpt
    assert listed.changed == []
    here, there = listed.output.split("Off-site: ", 1)
    for point in points(host):
        assert point["name"] in here
        assert point["name"] in there
    assert "verified" in here


@pytest.mark.extended("drill")
def test_a_damaged_point_is_found_by_the_drill_and_refused_with_the_one_before_offered(host: LabHost, lab: Lab, damaged: str):
    host.run(f"{HOST_PROGRAM} drill {points(host)[-2]['name']}")
    before = points(host)[-2]
    # Found by its files, before any drill.
    run = restore(lab, point="latest")
    assert run.returncode != 0
    assert "Nothing was touched" in run.output
    assert f"-e point={before['name']}" in run.output
    drill = lab.playbook("drill")
    assert drill.returncode != 0
    assert "redis/dump.rdb is damaged" in drill.report["drill"]["reason"]
    assert (points(host)[-1]["name"], points(host)[-1]["verified"]) == (damaged, "failed")
    # And from then on by its verdict.
    run = restore(lab, point="latest")
    assert run.returncode != 0
    assert f"-e point={before['name']}" in run.output
    assert nothing_thrown_away_is_left(host)
    lab.wait_until_healthy()


@pytest.mark.extended("drill")
def test_another_major_version_is_refused(host: LabHost, lab: Lab, newest: dict[str, Any]):
    path = f"/backup/points/{newest['name']}/manifest.json"
    edit = f'docker exec slipway-backup sed -i \'s/"major": {{}}/"major": {{}}/\' {path}'
    host.run(edit.format(17, 16))
    try:
        run = restore(lab, point=newest["name"], stores="postgres")
    finally:
        host.run(edit.format(16, 17))
    assert run.returncode != 0
    assert "Nothing was touched" in run.output
    assert "PostgreSQL 16" in run.output
    assert host.service("postgres").running


def test_nothing_is_touched_without_the_name_of_the_stack(host: LabHost, lab: Lab):
    started = host.service("postgres").inspect["State"]["StartedAt"]
    run = lab.playbook("restore", variables={"point": "latest", "restore_confirm": "another"})
    assert run.returncode != 0
    assert "Nothing was touched" in run.output
    code, shown = typed(lab, "another", point="latest")
    assert code != 0
    assert "of the stack slipway will be replaced by" in shown, shown[-3000:]
    assert "Nothing was touched" in shown
    assert host.service("postgres").inspect["State"]["StartedAt"] == started


def test_nothing_is_touched_by_a_run_that_passes_by_where_it_is_asked_for(host: LabHost, lab: Lab):
    started = host.service("postgres").inspect["State"]["StartedAt"]
    limited = restore(lab, "--limit", host.name, point="latest")
    assert limited.returncode != 0
    assert "run it without --limit" in limited.output
    assert host.service("postgres").inspect["State"]["StartedAt"] == started
    lab.wait_until_healthy()


@pytest.mark.parametrize(
    "variables",
    [
        {"point": "latest", "remove": "true"},
        # What it would set aside it would remove.
        {"point": "latest", "restore_discard_old": "true"},
        {"stores": "postgres", "restore_undo": "true", "restore_discard_old": "true"},
        {"stores": "postgres", "restore_undo": "true", "into": "inspect"},
        {"stores": "postgres", "restore_undo": "true", "list": "true"},
        {"stores": "redis", "target_time": "end"},
    ],
)
def test_what_does_not_go_together_is_refused(lab: Lab, variables: dict[str, str]):
    run = restore(lab, **variables)
    assert run.returncode != 0
    assert "Nothing was touched. Choose one of" in " ".join(run.output.split())
    assert run.changed == []


@pytest.mark.extended("restore")
def test_a_point_can_be_looked_at_while_the_stack_runs(host: LabHost, lab: Lab):
    stores = json.loads(host.run(f"{PROGRAM} --json show latest"))["stores"]
    rows = str(stores["postgres"]["databases"]["app"]["public.kept"]["rows"])
    sql(host, "insert into kept default values")
    run = lab.playbook("restore", variables={"point": "latest", "into": "inspect", "stores": "postgres"})
    assert run.returncode == 0, run.excerpt
    assert "docker exec -it slipway-inspect-postgres psql" in run.output
    assert sql(host, "select count(*) from kept", "slipway-inspect-postgres", "-h /tmp -U postgres") == rows
    networks = json.loads(host.run("docker inspect --format '{{json .NetworkSettings.Networks}}' slipway-inspect-postgres"))
    assert list(networks) == ["slipway-inspect"]
    assert host.run("docker network inspect --format '{{.Internal}}' slipway-inspect").strip() == "true"
    run = lab.playbook("restore", variables={"into": "inspect", "remove": "true"})
    assert run.returncode == 0, run.excerpt
    assert not host.run("docker ps --all --quiet --filter label=slipway.owner=backup-inspect").strip()


def interrupted(lab: Lab, far_enough: Callable[[], bool], **variables: str) -> str:
    """Run restore.yml and kill it once it is far enough, unless it has ended by itself; return its output."""
    arguments = ["-i", str(lab.inventory), "--extra-vars", json.dumps({"restore_confirm": "slipway", **variables})]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
    with subprocess.Popen(
        [str(BIN / "ansible-playbook"), "playbooks/restore.yml", *arguments],
        cwd=ROOT,
        env={**environment, "SLIPWAY_REPORTS_DIR": str(lab.reports)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        wait_until(lambda: far_enough() or run.poll() is not None, 300, "the restore is far enough to be interrupted")
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        return run.stdout.read() if run.stdout else ""


@pytest.mark.extended("restore-again")
@pytest.mark.parametrize("undo", [False, True], ids=["restore", "undo"])
def test_a_run_that_is_repeated_as_the_product_did_not_start_continues(host: LabHost, lab: Lab, undo: bool):
    """Its data was complete: a repetition must not take the restored copy for the old data."""
    before = sql(host, "select count(*) from kept")
    asked = {"stores": "postgres", **({"restore_undo": "true"} if undo else {"point": "latest"})}
    if undo:
        assert restore(lab, point="latest", stores="postgres").returncode == 0
        sql(host, "insert into kept default values")
    # The journal is written after the mark, and stays longer.
    complete = f"test -e {JOURNAL} && ! test -e {os.path.dirname(JOURNAL)}/under_way.json"
    output = interrupted(lab, lambda: host.succeeds(complete), **asked)
    assert host.succeeds(f"test -e {JOURNAL}"), f"the run was over before it could be interrupted: {output[-4000:]}"
    repeated = restore(lab, **asked)
    assert repeated.returncode == 0, repeated.excerpt
    assert not host.succeeds(f"test -e {JOURNAL}")
    lab.wait_until_healthy()
    if not undo:
        undone = restore(lab, restore_undo="true", stores="postgres")
        assert undone.returncode == 0, undone.excerpt
    assert sql(host, "select count(*) from kept") == before
    assert lab.playbook("restore", variables={"restore_discard_old": "true"}).returncode == 0
    host.wait_for_backups()


def test_a_named_time_is_restored_to_the_row_also_after_an_interruption(host: LabHost, lab: Lab):
    sql(host, "insert into kept select from generate_series(1, 20)")
    # In one session, without a pause: what is committed before it is wanted, and what comes next is not.
    statements = ["insert into kept default values", "select clock_timestamp()", *["insert into kept default values"] * 30]
    commands = shlex.join(f"--command={statement}" for statement in statements)
    moment = host.run(f"docker exec slipway-postgres psql --no-psqlrc --quiet --tuples-only --no-align --dbname=app {commands}").strip()
    wanted = sql(host, "select count(*) - 30 from kept")
    now = sql(host, "select count(*) from kept")
    output = interrupted(lab, lambda: host.succeeds(f"test -e {JOURNAL}"), target_time=moment)
    assert host.succeeds(f"test -e {JOURNAL}"), f"the run was over before it could be interrupted: {output[-4000:]}"
    with lab.client() as client:
        assert client.get("/api/sessions").status_code == 503
    # Whatever was written now would be in the way of the restore's repetition.
    refused = lab.playbook("site")
    assert refused.returncode != 0
    assert "a restore has begun and not ended" in refused.output
    code, shown = typed(lab, "slipway", target_time=moment)
    assert code == 0, shown[-6000:]
    assert "is healthy and holds postgres" in shown
    assert sql(host, "select count(*) from kept") == wanted
    assert not host.succeeds(f"test -e {JOURNAL}")
    lab.wait_until_healthy()
    with lab.client() as client:
        assert client.get("/api/version").status_code == 200
    # The old data is whole, whatever the interrupted run had moved of it.
    undone = restore(lab, restore_undo="true", stores="postgres")
    assert undone.returncode == 0, undone.excerpt
    assert sql(host, "select count(*) from kept") == now
    assert lab.playbook("restore", variables={"restore_discard_old": "true"}).returncode == 0
    assert not host.run("docker volume ls --quiet --filter label=slipway.owner=restore-aside").strip()
    wait_until(lambda: json.loads(host.run(f"{PROGRAM} --json report"))["wal"]["streaming"], 120, "WAL streams again")


@contextlib.contextmanager
def journal_of_redis_in_the_way(host: LabHost) -> Iterator[None]:
    """A folder has the name of Redis' journal, which cannot be written then: a fault as of a disk."""
    obstacle = "/etc/slipway/slipway/restore/redis.json"
    host.run(f"mkdir -p {obstacle}")
    yield
    host.run(f"rmdir {obstacle}")


@pytest.mark.extended("restore")
def test_postgres_alone_goes_back_to_an_older_point_and_on_to_the_last_row_from_there(host: LabHost, lab: Lab):
    host.wait_for_backups()
    host.run(f"{HOST_PROGRAM} run --wait 300")
    older = points(host)[-1]["name"]
    rows = int(sql(host, "select count(*) from kept"))
    marks.redis(lab, "SET", "since:older", "1")
    sql(host, "insert into kept default values")
    host.run(f"{HOST_PROGRAM} run --wait 300")
    # In no point, and in no segment that is whole.
    sql(host, "insert into kept default values")
    run = restore(lab, point=older, stores="postgres")
    assert run.returncode == 0, run.excerpt
    assert f"holds postgres of recovery point {older}" in run.output
    assert run.report["restore"]["point"] == older
    assert run.report["restore"]["moment"] in run.output
    assert int(sql(host, "select count(*) from kept")) == rows
    assert marks.redis(lab, "GET", "since:older") == "1", "the other stores are as they were"
    lab.wait_until_healthy()
    host.wait_for_backups()
    # What was there before it: the end of a history that was given up.
    run = restore(lab, point=older, target_time="end", stores="postgres,redis")
    assert run.returncode == 0, run.excerpt
    assert int(sql(host, "select count(*) from kept")) == rows + 2
    assert marks.redis(lab, "GET", "since:older") == ""
    lab.wait_until_healthy()
    host.wait_for_backups()
    assert json.loads(host.run(f"{PROGRAM} --json report"))["alerts"] == []
    # Twice set aside: the last is what was there before the second one. It goes back in two runs, as the first ends at the second store.
    with journal_of_redis_in_the_way(host):
        undone = restore(lab, restore_undo="true", stores="postgres, redis")
    assert undone.returncode != 0
    assert "run the same command again" in undone.output
    refused = restore(lab, restore_undo="true", stores="redis")
    assert refused.returncode != 0
    assert "it had begun with postgres" in " ".join(refused.output.split())
    undone = restore(lab, restore_undo="true", stores="postgres, redis")
    assert undone.returncode == 0, undone.excerpt
    assert (int(sql(host, "select count(*) from kept")), marks.redis(lab, "GET", "since:older")) == (rows, "1")
    lab.wait_until_healthy()
    discarded = lab.playbook("restore", variables={"restore_discard_old": "true"})
    assert discarded.returncode == 0, discarded.excerpt
    assert re.search(r": removed .*-before-", " ".join(discarded.output.split()))
    host.wait_for_backups()


@pytest.mark.extended("restore")
def test_a_restore_while_the_scheduled_run_is_in_progress_makes_a_point_of_what_it_restored(host: LabHost, lab: Lab):
    host.wait_for_backups()
    point = points(host)[-1]["name"]
    marks.redis(lab, "SET", "since:point", "1")
    host.run("systemctl start --no-block slipway-slipway-backup.service")
    run = restore(lab, point=point, stores="redis")
    assert run.returncode == 0, run.excerpt
    ended = json.loads(host.run("docker exec slipway-backup cat /backup/state/exchange.json"))
    assert not ended["under_way"]
    assert host.wait_for_backups() == "inactive"
    newest = points(host)[-1]
    assert json.loads(host.run(f"{PROGRAM} --json show {newest['name']}"))["moment"] > ended["since"]
    assert newest["verified"] == "verified"
    assert json.loads(host.run(f"{PROGRAM} --json report"))["alerts"] == []
    assert marks.redis(lab, "GET", "since:point") == ""
    assert lab.playbook("restore", variables={"restore_discard_old": "true"}).returncode == 0


@pytest.mark.extended("restore")
def test_an_exchange_that_fails_says_what_to_run_next(host: LabHost, lab: Lab):
    rows = sql(host, "select count(*) from kept")
    with journal_of_redis_in_the_way(host):
        run = restore(lab, point="latest", stores="redis")
    assert run.returncode != 0
    assert "Is a directory" in run.output
    assert "-e restore_undo=true -e stores=redis" in run.output
    with lab.client() as client:
        assert client.get("/api/sessions").status_code == 503
    # That command, as it stands, brings the product back with what was there.
    undone = restore(lab, restore_undo="true", stores="redis")
    assert undone.returncode == 0, undone.excerpt
    lab.wait_until_healthy()
    assert sql(host, "select count(*) from kept") == rows
    assert lab.playbook("restore", variables={"restore_discard_old": "true"}).returncode == 0
