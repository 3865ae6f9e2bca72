# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the redis role declares, and what its scripts do to a server where one is installed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, role_variable

SECRETS = {"redis_app_password": "app-password $1", "redis_admin_password": "admin \"password' 1"}
ADMIN = {"user": "admin", "password": SECRETS["redis_admin_password"]}


def declaration(**inputs: Any) -> dict[str, Any]:
    """Return the role's declaration as container_service gets it."""
    return dict(role_variable("redis", "__redis_services", {**SECRETS, **inputs})[0])


def test_default_user_is_off_unless_it_is_the_applications() -> None:
    """No client logs in without a name and a password."""
    users = declaration()["secrets"]["users.acl"]["content"].splitlines()
    assert [line.split()[:4] for line in users] == [
        ["user", "default", "reset", "off"],
        ["user", "app", "reset", "on"],
        ["user", "admin", "reset", "on"],
    ]
    assert "nopass" not in " ".join(users)
    users = declaration(redis_app_name="default")["secrets"]["users.acl"]["content"].splitlines()
    assert [line.split()[:4] for line in users] == [["user", "default", "reset", "on"], ["user", "admin", "reset", "on"]]


def test_backups_have_a_user_that_cannot_read_or_write_a_key() -> None:
    """It copies everything as a replica does, and nothing else."""
    service = declaration(redis_backup_user={"name": "backup", "password": "backup-password-1"})
    line = service["secrets"]["users.acl"]["content"].splitlines()[-1].split()
    assert line[:4] == ["user", "backup", "reset", "on"]
    assert set(line[5:]) == {"+ping", "+info", "+sync", "+psync", "+replconf", "+acl|list"}
    assert "backup-password-1" not in json.dumps(service)


def test_passwords_are_in_secret_files_only() -> None:
    """Neither command nor config nor environment has one."""
    service = declaration()
    secrets = service.pop("secrets")
    for value in SECRETS.values():
        assert value not in json.dumps(service)
        assert json.dumps(value)[1:-1] not in json.dumps(service)
        assert value not in secrets["users.acl"]["content"]


def test_memory_follows_the_limit() -> None:
    """A quarter of the container's memory is left for rewriting the append-only file, and the policy is as asked for."""
    content = declaration(redis_memory_mb=400, redis_maxmemory_policy="noeviction")["config"]["runtime.conf"]["content"]
    assert f"maxmemory {300 * 2**20}" in content.splitlines()
    assert "maxmemory-policy noeviction" in content.splitlines()


def test_what_a_change_costs() -> None:
    """Users, memory and flushing reload; the administrator's password and everything else restart."""
    plain = declaration()
    other = declaration(redis_app_password="other", redis_memory_mb=400, redis_appendfsync="always", redis_app_rules=["~*", "+get"])
    changed = {(kind, name) for kind in ("config", "secrets") for name in plain[kind] if plain[kind][name] != other[kind][name]}
    assert changed == {("config", "runtime.conf"), ("config", "rules"), ("secrets", "users.acl"), ("secrets", "app_password")}
    assert {plain[kind][name]["on_change"] for kind, name in changed} == {"reload", "none"}
    other = declaration(redis_admin_password="other", redis_settings={"hz": 20, "lazyfree-lazy-expire": False})
    assert other["secrets"]["admin_password"]["on_change"] == "restart"
    lines = other["config"]["redis.conf"]["content"].splitlines()
    assert {"hz 20", "lazyfree-lazy-expire no", "appendonly yes"} <= set(lines)
    # The last one wins.
    assert lines[-1] == "include /etc/slipway/current/runtime.conf"


needs_server = pytest.mark.skipif(not (shutil.which("redis-server") and shutil.which("redis-cli")), reason="no Redis on this machine")


class Server:
    """A server that runs the declaration's own files, with the container's paths put below a folder."""

    def __init__(self, folder: Path) -> None:
        """Take an empty folder."""
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        for name in ("etc/current", "secrets", "data"):
            (folder / name).mkdir(parents=True)
        self.process: subprocess.Popen[str] | None = None

    def here(self, text: str) -> str:
        """Return a configuration with the container's paths replaced."""
        for there, name in (("/etc/slipway/", "etc/"), ("/run/secrets/", "secrets/")):
            text = text.replace(there, f"{self.folder}/{name}")
        return re.sub(r"^(dir )?/data$", rf"\g<1>{self.folder}/data", text, flags=re.MULTILINE)

    def declare(self, **inputs: Any) -> None:
        """Write the files of a declaration, as config_tree does."""
        self.service = declaration(redis_port=self.port, **inputs)
        for kind, target in (("config", "etc/current"), ("secrets", "secrets")):
            for name, item in self.service[kind].items():
                content = self.here(item["content"]) if kind == "config" else item["content"]
                (self.folder / target / name).write_text(content)

    def start(self) -> None:
        """Start the server and wait until it is healthy."""
        log = (self.folder / "log").open("a")
        command = [self.here(part) for part in [*self.service["entrypoint"], *self.service["command"]]]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
        deadline = time.monotonic() + 20
        while self.health() != "":
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the server as the engine does."""
        if self.process:
            self.process.terminate()
            assert self.process.wait(20) == 0

    def run(self, argv: list[str], **environment: str) -> tuple[int, str]:
        """Run one of the declaration's commands; return its status and what it printed."""
        ended = subprocess.run(
            [self.here(part) for part in argv],
            env={"PATH": os.environ["PATH"], **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
        return ended.returncode, ended.stdout.strip()

    def health(self) -> str:
        """Run the health check; return what it printed when it failed."""
        status, printed = self.run(self.service["healthcheck"]["test"][1:])
        return "" if status == 0 else printed or "failed"

    def ask(self, *words: str, user: str = "app", password: str = SECRETS["redis_app_password"]) -> str:
        """Return the answer to a command."""
        argv = ["redis-cli", "-p", str(self.port), "--user", user, "--no-auth-warning", *words]
        return self.run(argv, REDISCLI_AUTH=password)[1]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return a running server."""
    running = Server(tmp_path)
    running.declare()
    try:
        running.start()
        yield running
    finally:
        running.stop()


@needs_server
def test_application_may_cache_and_publish_but_not_administrate(server: Server) -> None:
    """What a cache and a message channel need is allowed; what endangers others' data or the server is not."""
    allowed = [
        ("set", "a", "1"),
        ("get", "a"),
        ("expire", "a", "9"),
        ("publish", "c", "m"),
        ("ping",),
        ("info",),
        ("client", "setname", "x"),
    ]
    allowed += [("eval", "return 1", "0"), ("scan", "0"), ("xadd", "s", "*", "f", "v"), ("multi",)]
    for words in allowed:
        answer = server.ask(*words)
        assert not re.match(r"[A-Z]+ |Could not", answer), f"{words}: {answer}"
    denied = [("flushall",), ("keys", "*"), ("config", "get", "maxmemory"), ("acl", "list"), ("shutdown",), ("client", "kill", "id", "1")]
    for words in [*denied, ("replicaof", "no", "one"), ("monitor",), ("save",)]:
        assert server.ask(*words).startswith("NOPERM")
    assert server.run(["redis-cli", "-p", str(server.port), "ping"])[1] == "NOAUTH Authentication required."


@needs_server
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        # The form of redis_settings refuses these before.
        ({"cluster-enabled": True}, "CLUSTERDOWN"),
        ({"replicaof": "127.0.0.1 1"}, "READONLY"),
        ({"min-replicas-to-write": 1}, "NOREPLICAS"),
        ({"no-such-setting": 1}, "Bad directive"),
    ],
)
def test_a_server_that_takes_no_writes_is_not_begun_with(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    """It answers PING, so that the health check finds nothing, and the server that it was to replace has ended."""
    there = Server(tmp_path)
    there.declare(redis_settings=settings)
    status, printed = there.run([part.replace("/tmp", str(tmp_path)) for part in there.service["trial"]])
    assert (status == 0, said in printed) == (not said, True), printed


@needs_server
@pytest.mark.parametrize("settings", [{}, {"dbfilename": "shop.rdb"}])
def test_snapshot_of_another_server_is_read(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Its data is there, also after the append-only file has been rewritten and the server has started again."""
    other = Server(tmp_path)
    other.declare(redis_settings=settings)
    snapshot = settings.get("dbfilename", "dump.rdb")
    arguments = ["--port", str(other.port), "--save", "", "--dir", str(tmp_path / "data"), "--dbfilename", snapshot]
    with subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL) as process:
        while other.run(["redis-cli", "-e", "-p", str(other.port), "set", "kept", "1"])[0] != 0:
            time.sleep(0.1)
        other.run(["redis-cli", "-p", str(other.port), "save"])
        process.terminate()
    try:
        other.start()
        assert other.ask("get", "kept") == "1"
        assert other.ask("set", "new", "2") == "OK"
        if not settings:
            other.ask("bgrewriteaof", **ADMIN)
            other.stop()
            other.start()
            assert [other.ask("get", "kept"), other.ask("get", "new")] == ["1", "2"]
            assert (other.folder / "log").read_text().count("begins with the snapshot") == 1
    finally:
        other.stop()


def test_a_restore_writes_to_where_the_server_reads() -> None:
    """The throw-away server of a restore has no input of the role's."""
    settings = role_variable("redis", "__redis_settings", SECRETS)
    restore = (ROOT / "packages/slipway_backup/src/slipway_host/stores.py").read_text()
    assert f'"--appenddirname", "{settings["appenddirname"]}"' in restore
    # Redis' default.
    assert "--appendfilename" not in restore
    assert settings["appendfilename"] == "appendonly.aof"


@needs_server
@pytest.mark.parametrize(
    ("other", "kept"),
    [
        (["--appenddirname", "log"], "log/appendonly.aof.manifest"),
        (["--appendfilename", "shop.aof"], "appendonlydir/shop.aof.manifest"),
        (["--appenddirname", "log", "--appendfilename", "shop.aof", "--save", "900 1"], "log/shop.aof.manifest"),
    ],
)
def test_an_append_only_file_of_another_name_is_not_passed_over(tmp_path: Path, other: list[str], kept: str) -> None:
    """The server does not begin empty; renamed as it says, the data is there."""
    there = Server(tmp_path)
    there.declare()
    arguments = ["--port", str(there.port), "--dir", str(tmp_path / "data"), "--appendonly", "yes", *other]
    with subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL) as process:
        while there.run(["redis-cli", "-e", "-p", str(there.port), "set", "kept", "1"])[0] != 0:
            time.sleep(0.1)
        process.terminate()
    start = [*there.service["entrypoint"], *there.service["command"]]
    status, printed = there.run(start)
    assert status == 1
    assert f"{tmp_path}/data/{kept}, and this server reads {tmp_path}/data/appendonlydir/appendonly.aof.manifest:" in printed
    folder = (tmp_path / "data" / kept).parent.rename(tmp_path / "data/appendonlydir")
    (folder / Path(kept).name).rename(folder / "appendonly.aof.manifest")
    try:
        there.start()
        assert there.ask("get", "kept") == "1"
        there.ask("bgrewriteaof", **ADMIN)
        there.stop()
        there.start()
        assert there.ask("get", "kept") == "1"
    finally:
        there.stop()


@needs_server
def test_a_file_of_a_server_before_7_is_not_passed_over(tmp_path: Path) -> None:
    """One of the role's name is read by the server itself, one of another name is refused."""
    there = Server(tmp_path)
    there.declare()
    # Of a start that was interrupted, which holds nothing.
    for folder, name in (("appendonlydir.new", "appendonly.aof.manifest"), ("appendonlydir", "temp-appendonly.aof.manifest")):
        (tmp_path / "data" / folder).mkdir()
        (tmp_path / "data" / folder / name).touch()
    (tmp_path / "data/shop.aof").write_text("*3\r\n$3\r\nSET\r\n$4\r\nkept\r\n$1\r\n1\r\n")
    status, printed = there.run([*there.service["entrypoint"], *there.service["command"]])
    assert status == 1
    assert f"{tmp_path}/data/shop.aof, and this server reads {tmp_path}/data/appendonly.aof:" in printed
    (tmp_path / "data/shop.aof").rename(tmp_path / "data/appendonly.aof")
    try:
        there.start()
        assert there.ask("get", "kept") == "1"
    finally:
        there.stop()


@needs_server
def test_a_copy_of_the_append_only_file_in_the_volume_does_no_harm(server: Server) -> None:
    """The server has its own file."""
    server.ask("set", "a", "kept")
    server.stop()
    shutil.copytree(server.folder / "data/appendonlydir", server.folder / "data/copy")
    server.start()
    assert server.ask("get", "a") == "kept"


@needs_server
def test_health_check_writes_nothing_and_minds_the_password(server: Server) -> None:
    """It logs in as the application, and no key comes of it."""
    assert server.health() == ""
    assert server.ask("dbsize") == "0"
    (server.folder / "secrets/app_password").write_text("wrong")
    assert "WRONGPASS" in server.health()


@needs_server
def test_reload_takes_over_password_and_memory(server: Server) -> None:
    """The process stays, the data stays, the old password is refused."""
    server.ask("set", "a", "1")
    process = server.ask("info", "server")
    server.declare(redis_app_password="new-password", redis_maxmemory_mb=50, redis_maxmemory_policy="volatile-lfu")
    status, printed = server.run(server.service["reload"])
    assert status == 0, printed
    assert server.health() == ""
    assert server.ask("get", "a", password="new-password") == "1"
    assert "WRONGPASS" in server.ask("get", "a")
    admin = {"user": "admin", "password": SECRETS["redis_admin_password"]}
    assert server.ask("config", "get", "maxmemory", **admin) == f"maxmemory\n{50 * 2**20}"
    assert server.ask("config", "get", "maxmemory-policy", **admin) == "maxmemory-policy\nvolatile-lfu"
    run_id = next(line for line in process.splitlines() if line.startswith("run_id"))
    assert run_id in server.ask("info", "server", password="new-password")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Return the file that has the arguments of each redis-cli that is found next to it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "redis-cli").write_text(f'#!/bin/sh\necho "$@" >>{folder}/arguments\nexec {shutil.which("redis-cli")} "$@"\n')
    (folder / "redis-cli").chmod(0o755)
    return folder / "arguments"


@needs_server
def test_reload_shows_no_hash_of_a_password_in_arguments(server: Server, recorded: Path) -> None:
    """All users of a host see the arguments of its processes; rules with what a shell or redis-cli would read arrive as they are."""
    rules = ["~it's:\"a\\b*", "~$HOME:*", "&*", "+get", "+ping", "(+set ~a?[b-c])"]
    server.declare(redis_app_password="new-password", redis_app_rules=rules)
    status, printed = server.run(server.service["reload"], PATH=f"{recorded.parent}:{os.environ['PATH']}")
    assert status == 0, printed
    arguments = recorded.read_text()
    assert "CONFIG SET" in arguments
    assert not re.search("[0-9a-f]{64}", arguments)
    admin = {"user": "admin", "password": SECRETS["redis_admin_password"]}
    users = server.ask("acl", "list", **admin)
    assert "~$HOME:*" in users
    server.stop()
    server.start()
    # Whatever the order in which it lists commands.
    assert sorted(server.ask("acl", "list", **admin).split()) == sorted(users.split()), "as the server reads the file itself"


@needs_server
def test_a_rotated_password_ends_no_connection(server: Server) -> None:
    """Two passwords are valid meanwhile; a request that waits for its answer gets it, whatever is reloaded."""
    wait = ["redis-cli", "-p", str(server.port), "--user", "app", "--no-auth-warning", "blpop", "queue", "20"]
    with subprocess.Popen(
        wait, env={"PATH": os.environ["PATH"], "REDISCLI_AUTH": SECRETS["redis_app_password"]}, stdout=-1, text=True
    ) as waiting:
        while "blocked_clients:1" not in server.ask("info", "clients"):
            time.sleep(0.05)
        server.declare(redis_app_further_passwords=["new-password"])
        assert server.run(server.service["reload"])[0] == 0
        assert [server.ask("ping"), server.ask("ping", password="new-password")] == ["PONG", "PONG"]
        server.declare(redis_app_password="new-password")
        assert server.run(server.service["reload"])[0] == 0
        assert "WRONGPASS" in server.ask("ping")
        assert server.ask("rpush", "queue", "answer", password="new-password") == "1"
        assert waiting.communicate(timeout=20)[0].split() == ["queue", "answer"]


def session(server: Server, command: str, mode: str = "read", **environment: str) -> tuple[int, str]:
    """Return the exit status of a session of redis.yml, and what it printed."""
    script = server.here((ROOT / "playbooks/files/redis_session.sh").read_text())
    argv = ["sh", "-c", f"echo {shlex.quote(command)} | sh -c {shlex.quote(script)} {server.port} admin {mode}"]
    return server.run(argv, **environment)


@needs_server
def test_a_session_shows_no_password_in_arguments(server: Server, recorded: Path) -> None:
    """And a command that failed fails the session."""
    user = "acl setuser report on >report-password-1 '~a*' +@read"
    assert session(server, user, "write", PATH=f"{recorded.parent}:{os.environ['PATH']}") == (0, "OK")
    assert "report-password-1" not in recorded.read_text()
    assert server.ask("get", "ab", user="report", password="report-password-1") == ""
    assert session(server, " CONFIG GET maxmemory-policy", "write")[0] == 0
    assert session(server, "ACL WHOAMI", "write") == (0, "admin")
    for wrong in ("ACL SETUSER report +bogus", "CONFIG SET nosuch 1", "HELLO 9", "ACL NOSUCH", "CONFIG GET"):
        status, printed = session(server, wrong, "write")
        assert (status, printed.partition(" ")[0] in ("ERR", "NOPROTO")) == (1, True), f"{wrong}: {printed}"


@needs_server
def test_a_session_reads_keys_and_what_the_server_measures(server: Server) -> None:
    server.ask("set", "some:key", "1")
    documented = re.findall(r"playbooks/redis\.yml .*-e \"command='(.+)'\"", (ROOT / "docs/operate.md").read_text())
    assert documented
    for command in [*documented, "TTL some:key", "MEMORY USAGE some:key", "SLOWLOG GET 5", "SCAN 0", "PING", "COMMAND COUNT"]:
        status, printed = session(server, command)
        assert status == 0, f"{command}: {printed}"
    refused = [
        "DEL some:key",
        "SET a 1",
        "KEYS *",
        "CONFIG GET *",
        "SLOWLOG RESET",
        "ACL LIST",
        "CLIENT LIST",
        "SHUTDOWN",
        "MONITOR",
    ]
    for command in refused:
        status, printed = session(server, command)
        assert (status != 0, printed.partition(" ")[0]) == (True, "NOPERM"), f"{command}: {printed}"
    assert session(server, "DEL some:key", "write") == (0, "1")
    assert session(server, "ACL USERS", "write") == (0, "admin\napp\ndefault"), "a reader is left"


@needs_server
def test_a_user_that_is_taken_from_the_inventory_is_deleted(server: Server) -> None:
    admin = {"user": "admin", "password": SECRETS["redis_admin_password"]}
    server.declare(redis_backup_user={"name": "backup", "password": "backup-password-1"})
    assert server.run(server.service["reload"])[0] == 0
    assert server.ask("acl", "users", **admin).split() == ["admin", "app", "backup", "default"]
    server.declare()
    assert server.run(server.service["reload"])[0] == 0
    assert server.ask("acl", "users", **admin).split() == ["admin", "app", "default"]


@needs_server
def test_reload_fails_on_a_mistake(server: Server) -> None:
    """A rule that Redis does not know ends the reload with an error, and users stay as they were."""
    server.declare(redis_app_rules=["~*", "+@nothing"])
    status, printed = server.run(server.service["reload"])
    assert status != 0
    assert "ERR" in printed
    assert server.health() == ""


@needs_server
@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (None, ""),
        (["~cache:*", "&*", "+get", "+config|get", "-@all", "(+set ~a)"], ""),
        (["~*", "+bogus"], "redis_app_rules: Error in applying operation '+bogus': Unknown command or category name in ACL"),
        (["+get|nosuch|more"], "redis_app_rules: Error in applying operation '+get|nosuch|more'"),
    ],
)
def test_rules_are_checked_before_the_server_gets_them(tmp_path: Path, rules: list[str] | None, said: str) -> None:
    """The check needs no server that runs, so that it is the same before a reload and before another container."""
    there = Server(tmp_path)
    there.declare(**({} if rules is None else {"redis_app_rules": rules}))
    status, printed = there.run([part.replace("{revision}", "current") for part in there.service["validate"]])
    assert (status == 0) == (not said), printed
    assert said in printed


def fill(server: Server, megabytes: int) -> None:
    """Write keys without an expiry, as of a queue: ten for each megabyte."""
    for number in range(megabytes * 10):
        assert server.ask("set", f"job:{number}", "x" * 100_000) == "OK"


def test_no_key_that_was_meant_to_stay_is_evicted_by_default() -> None:
    assert "maxmemory-policy volatile-lru" in declaration()["config"]["runtime.conf"]["content"].splitlines()


@needs_server
def test_a_queue_that_is_full_refuses_jobs_and_loses_none(server: Server) -> None:
    server.declare(redis_maxmemory_mb=8)
    assert server.run(server.service["reload"])[0] == 0
    assert server.ask("set", "page", "x" * 100_000, "ex", "600") == "OK"
    answers = [server.ask("rpush", "celery", "y" * 100_000) for _ in range(90)]
    assert answers[-1].startswith("OOM")
    assert server.ask("llen", "celery") == str(sum(answer.isdecimal() for answer in answers))
    assert server.ask("exists", "page") == "0", "a key with an expiry makes room"


@needs_server
def test_a_limit_below_what_the_data_takes_is_refused_before_it_is_set(server: Server) -> None:
    fill(server, 8)
    validate = [part.replace("{revision}", "current") for part in server.service["validate"]]
    for policy, status in (("allkeys-lru", 0), ("volatile-lru", 1), ("noeviction", 1)):
        server.declare(redis_maxmemory_mb=5, redis_maxmemory_policy=policy)
        found, said = server.run(validate)
        assert found == status, said
        assert not status or re.match(r"redis_maxmemory_mb: 5 MB are less than the \d+ MB that the data takes: with ", said)
    server.declare(redis_maxmemory_mb=20)
    assert server.run(validate) == (0, "")


@needs_server
def test_a_full_cache_is_not_turned_into_a_server_that_refuses_writes(server: Server) -> None:
    validate = [part.replace("{revision}", "current") for part in server.service["validate"]]
    server.declare(redis_maxmemory_mb=5, redis_maxmemory_policy="allkeys-lru")
    assert server.run(server.service["reload"])[0] == 0
    server.declare(redis_maxmemory_mb=5)
    assert server.run(validate) == (0, ""), "nothing was evicted"
    fill(server, 8)
    status, said = server.run(validate)
    assert (status, "redis_maxmemory_policy: the server is full and has evicted " in said) == (1, True), said
    assert "set it to allkeys-lru if every key may be lost" in said
    for inputs in ({"redis_maxmemory_mb": 10}, {"redis_maxmemory_mb": 5, "redis_maxmemory_policy": "allkeys-lfu"}):
        server.declare(**inputs)
        assert server.run(validate) == (0, ""), inputs
    # Turned already, by hand: nothing is changed.
    assert server.ask("config", "set", "maxmemory-policy", "volatile-lru", **ADMIN) == "OK"
    server.declare(redis_maxmemory_mb=5)
    assert server.run(validate) == (0, "")


@needs_server
def test_data_that_is_larger_than_the_limit_is_not_served(server: Server) -> None:
    """That of another server, or of a restore. None of it is lost, and with a higher limit it is there."""
    fill(server, 8)
    server.stop()
    (server.folder / "data/.fits_maxmemory").unlink()
    server.declare(redis_maxmemory_mb=5)
    with pytest.raises(AssertionError, match=r"the data takes \d+ MB of memory, and redis_maxmemory_mb is 5: with volatile-lru, keys"):
        server.start()
    log, fits = server.folder / "log", server.folder / "data/.fits_maxmemory"
    server.declare(redis_maxmemory_mb=20)
    for known in (False, True):
        # Measured or known to fit, it is read once: its reading may take as long as a start may.
        log.write_text("")
        assert fits.exists() is known
        server.start()
        assert server.ask("dbsize") == "80"
        assert server.ask("config", "get", "maxmemory", **ADMIN).split()[-1] == str(20 * 1024 * 1024)
        server.stop()
        assert log.read_text().count("DB loaded from append only file") == 1
    # It is measured again below the limit that it was found to fit into.
    server.declare(redis_maxmemory_mb=5)
    with pytest.raises(AssertionError, match="redis_maxmemory_mb is 5"):
        server.start()
    server.declare(redis_maxmemory_mb=5, redis_maxmemory_policy="allkeys-lru")
    server.start()


@needs_server
def test_data_survives_a_restart(server: Server) -> None:
    """The append-only file brings it back."""
    server.ask("set", "a", "kept")
    assert server.process is not None
    server.process.terminate()
    assert server.process.wait(20) == 0
    server.start()
    assert server.ask("get", "a") == "kept"
