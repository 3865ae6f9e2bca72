# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the postgres role declares, and what its SQL does to a server where one is installed."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader

from ansible_collections.slipway.stack.plugins.filter.scram_sha_256 import scram_sha_256
from conftest import ROOT, role_variable

SECRETS = {
    "postgres_superuser_password": "superuser-password-1",
    "postgres_owner_password": "owner-password-1",
    "postgres_app_password": "app:pass\\word'1",
}
ODD = {
    "postgres_database": 'it\'s a "data\\base" = ü',
    "postgres_owner_name": 'the "owner", so',
    "postgres_app_name": "all",
}


def declaration(**inputs: Any) -> dict[str, Any]:
    """Return the role's declaration as container_service gets it."""
    return dict(role_variable("postgres", "__postgres_services", {**SECRETS, **inputs})[0])


@functools.cache
def rendered(inputs: str) -> str:
    """Return a declaration that tests against a server ask for again and again."""
    return json.dumps(declaration(**json.loads(inputs)))


def hba_lines(**inputs: Any) -> list[str]:
    """Return the lines of pg_hba.conf that count."""
    content: str = declaration(**inputs)["config"]["pg_hba.conf"]["content"]
    return [line for line in content.splitlines() if line and not line.startswith("#")]


def test_superuser_logs_in_from_inside_only() -> None:
    """No line but that of the local socket accepts the superuser, and none accepts a user without proof."""
    lines = hba_lines(postgres_users=[{"name": "barman", "password": "x" * 20, "replication": True}])
    assert lines[0] == "local all postgres peer"
    assert not [line for line in lines[1:] if "postgres" in line or "trust" in line or " all " in line]
    assert all(line.endswith(" scram-sha-256") for line in lines[1:])


def test_who_logs_in_from_where() -> None:
    """Owner and application come from the containers and the named networks; a user may have places of its own."""
    lines = hba_lines(
        postgres_allowed_networks=["10.0.0.5", "fd00::1", "10.1.0.0/16"],
        postgres_users=[
            {"name": "barman", "password": "x" * 20, "replication": True, "databases": ["postgres"], "networks": ["10.0.0.9"]},
        ],
    )
    places = ["127.0.0.1/32", "samenet", "10.0.0.5/32", "10.1.0.0/16", "fd00::1/128"]
    assert [line for line in lines if '"app"' in line.split()[2]] == [f'host "app" "app" {place} scram-sha-256' for place in places]
    assert [line for line in lines if '"app_owner"' in line] == [f'host "app" "app_owner" {place} scram-sha-256' for place in places]
    assert [line for line in lines if "barman" in line] == [
        'host "postgres" "barman" 127.0.0.1/32 scram-sha-256',
        'host "postgres" "barman" samenet scram-sha-256',
        'host "postgres" "barman" 10.0.0.9/32 scram-sha-256',
        'host replication "barman" samenet scram-sha-256',
        'host replication "barman" 10.0.0.9/32 scram-sha-256',
    ]


def test_names_in_hba_are_quoted() -> None:
    """A role named all is that role, not everybody."""
    assert """host "it's a ""data\\base"" = ü" "all" samenet scram-sha-256""" in hba_lines(**ODD)
    assert """host "it's a ""data\\base"" = ü" "the ""owner"", so" samenet scram-sha-256""" in hba_lines(**ODD)


def test_only_what_needs_a_restart_restarts() -> None:
    """Settings are split by what a running server can take over, and the inventory's win."""
    config = declaration(
        postgres_settings={"shared_buffers": "1GB", "log_min_duration_statement": "2s", "pg_stat_statements.max": 500, "jit": False}
    )["config"]
    restarting, reloading = config["postgresql.conf"], config["runtime.conf"]
    assert (restarting["on_change"], reloading["on_change"]) == ("restart", "reload")
    for line in ("shared_buffers = '1GB'", "max_connections = 100", "pg_stat_statements.max = 500", "include 'runtime.conf'"):
        assert line in restarting["content"].splitlines()
        assert line not in reloading["content"].splitlines()
    for line in ("log_min_duration_statement = '2s'", "jit = off", "synchronous_commit = 'on'", "random_page_cost = 1.1"):
        assert line in reloading["content"].splitlines()
        assert line not in restarting["content"].splitlines()


def test_values_of_settings_are_quoted() -> None:
    """A quote or backslash in a value stays in it."""
    content = declaration(postgres_settings={"search_path": '"$user", pub\'lic\\'})["config"]["runtime.conf"]["content"]
    assert "search_path = '\"$user\", pub''lic\\\\'" in content.splitlines()


def test_secrets_are_in_secret_files_only() -> None:
    """No password, nor a verifier, is in a command, a config file or the environment; renderings are alike."""
    users = [{"name": "report", "password": "report-password-1"}]
    service = declaration(postgres_users=users)
    secrets = service.pop("secrets")
    for value in [*SECRETS.values(), "report-password-1", "SCRAM-SHA-256$"]:
        assert value not in json.dumps(service, ensure_ascii=False)
    verifiers = json.loads(secrets["role_verifiers"]["content"])
    assert sorted(verifiers) == ["app", "app_owner", "postgres", "report"]
    assert all(re.fullmatch(r"SCRAM-SHA-256\$4096:\S+", verifier) for verifier in verifiers.values())
    assert secrets["pgpass"]["content"] == "127.0.0.1:5432:*:app:app\\:pass\\\\word'1\n"
    assert declaration(postgres_users=users)["secrets"] == secrets


def test_extensions_that_the_running_image_lacks_are_refused_before_a_host_is_touched() -> None:
    """Of another image nothing is known yet: its own check refuses them."""

    def mistakes(image: str, image_id: str) -> list[str]:
        state = {
            "containers": {"s-postgres": {"image": "postgres:17-alpine", "image_id": image_id}},
            "images": {"postgres:17-alpine": {"id": "sha256:a"}, "postgres:17": {"id": "sha256:b"}},
            "queries": {"s-postgres": {"rc": 0, "answer": {"available_extensions": ["citext", "plpgsql"]}}},
            "volumes": {},
            "host": {"memory_mb": 8000, "cores": 4},
        }
        inputs = {"container_service_host_state": state, "postgres_image": image, "postgres_extensions": ["citext", "no_such"], **SECRETS}
        return list(role_variable("postgres", "__postgres_mistakes", inputs))

    assert mistakes("postgres:17-alpine", "sha256:a") == [
        "postgres_extensions names what postgres:17-alpine does not have: no_such; remove it, or set postgres_image to an image that has it"
    ]
    assert mistakes("postgres:17-alpine", "sha256:older") == mistakes("postgres:17", "sha256:a") == []


def test_data_of_another_major_version_is_refused_on_its_volume_alone() -> None:
    """A new volume that a newer server has filled is what a move to its version ends with, while the old server's container is there."""

    def mistakes(wanted: str, version: str, container: str = "postgres_data") -> list[str]:
        state = {
            "containers": {"s-postgres": {"image": "postgres:17-alpine", "volumes": {container: {"path": "/x", "mode": "rw"}}}},
            "images": {},
            "queries": {},
            "volumes": {"postgres_data": {"pg_version": "17"}, "postgres_data_18": {"pg_version": version}},
            "host": {"memory_mb": 8000, "cores": 4},
        }
        inputs = {"container_service_host_state": state, "postgres_image": "postgres:18", "postgres_volume": wanted, **SECRETS}
        return list(role_variable("postgres", "__postgres_mistakes", inputs))

    (said,) = mistakes("postgres_data", "18")
    assert "the volume postgres_data holds data of PostgreSQL 17, and postgres_image is postgres:18" in said
    assert mistakes("postgres_data_18", "18") == []
    (said,) = mistakes("postgres_data_18", "17")
    assert "the volume postgres_data_18 holds data of PostgreSQL 17, and postgres_image is postgres:18" in said
    assert "set postgres_image to version 17" in said


@pytest.mark.parametrize(
    ("roles", "volume", "answer", "unknown"),
    [
        (["pg_monitor", "crew", "report", "app_owner", "slipway_reader"], "postgres_data", {"known_roles": ["crew", "pg_monitor"]}, ""),
        (["pg_monitor", "pg_maintain", "crewe"], "postgres_data", {"known_roles": ["crew", "pg_monitor"]}, "crewe, pg_maintain"),
        # Of another volume, of a server that answers as its former files say, and of one that does not answer, nothing is known.
        (["crewe"], "postgres_other", {"known_roles": ["crew"]}, ""),
        (["crewe"], "postgres_data", {}, ""),
        (["crewe"], "postgres_data", None, ""),
    ],
)
def test_roles_that_the_server_lacks_are_refused_before_anything_changes(
    roles: list[str], volume: str, answer: dict[str, Any] | None, unknown: str
) -> None:
    state = {
        "containers": {"s-postgres": {"image": "postgres:17", "volumes": {"postgres_data": {"path": "/x", "mode": "rw"}}}},
        "queries": {"s-postgres": {"rc": 0, "answer": answer}},
        "host": {"memory_mb": 8000, "cores": 4},
        "images": {},
        "volumes": {},
    }
    users = [{"name": "report", "password": "report-password-1"}, {"name": "reader", "password": "reader-password-1", "roles": roles}]
    inputs = {"container_service_host_state": state, "postgres_users": users, "postgres_volume": volume, **SECRETS}
    expected = [f"postgres_users names roles that PostgreSQL does not have: {unknown}; remove or correct them"] if unknown else []
    assert role_variable("postgres", "__postgres_mistakes", inputs) == expected


@pytest.mark.parametrize(
    ("stage", "there", "refused"),
    [
        # A manager's values after the rotation, or after one that was killed in its third stage.
        ({"": "old", "_next": "new"}, "new", True),
        ({"": "new", "_previous": "old"}, "new", True),
        # The first two stages themselves, the third one as it comes and again, and what is to be done after a refusal.
        ({"": "old", "_next": "new"}, "old", False),
        ({"": "new", "_previous": "old"}, "old", False),
        ({"": "new", "_next": "new", "_retired": "old"}, "old", False),
        ({"": "new", "_next": "new"}, "new", False),
        # An ordinary change, a password that was set by hand, and a server that does not say it.
        ({"": "old"}, "new", False),
        ({"": "old", "_next": "new"}, "by hand", False),
        ({"": "old", "_next": "new"}, "", False),
    ],
)
@pytest.mark.parametrize(("role", "kind"), [("app", "app"), ("app_owner", "owner")])
def test_a_password_that_the_product_uses_is_not_taken_from_its_role(
    role: str, kind: str, stage: dict[str, str], there: str, refused: bool
) -> None:
    """As the values of a stage come to the role, by the variables of its service."""
    name = f"vault_postgres_{kind}_password"
    shared = DataLoader().load_from_file(str(ROOT / "roles/postgres/meta/shared.yml"), trusted_as_template=True)
    vault = {"vault_postgres_app_password": "a", "vault_postgres_owner_password": "o"} | {name + end: value for end, value in stage.items()}
    made = hashlib.sha256(scram_sha_256(there, salt=f"app/{role}").encode()).hexdigest()[:8] if there else ""
    state = {
        "containers": {"s-postgres": {"image": "postgres:17", "volumes": {}}},
        "queries": {"s-postgres": {"rc": 0, "answer": {"password_ids": {role: made}} if there else None}},
        "host": {"memory_mb": 8000, "cores": 4},
        "images": {},
        "volumes": {},
    }
    inputs = {
        **SECRETS,
        **vault,
        **{key: shared[key] for key in ("postgres_owner_password", "postgres_app_password", "postgres_second_logins")},
        "container_service_host_state": state,
    }
    mistakes = role_variable("postgres", "__postgres_mistakes", inputs)
    assert bool(mistakes) is refused
    if refused:
        (said,) = mistakes
        assert f"role {role} already has the new password" in said
        assert f"set {name} and {name}_next to the new value" in said


def test_users_change_neither_container_nor_commands() -> None:
    """What is fixed at creation does not depend on users, grants, extensions or networks."""
    plain = declaration()
    other = declaration(
        postgres_users=[{"name": "report", "password": "report-password-1", "access": "read"}],
        postgres_extensions=["citext"],
        postgres_allowed_networks=["10.0.0.5"],
        postgres_owner_name="other",
    )
    changing = {name for name in plain["config"] if plain["config"][name] != other["config"][name]}
    assert changing == {"pg_hba.conf", "desired.json"}
    assert {plain["config"][name]["on_change"] for name in changing} == {"reload"}
    plain["converge"].pop("desired"), other["converge"].pop("desired")
    for service in (plain, other):
        del service["config"], service["secrets"]
    assert plain == other


def test_published_only_when_asked() -> None:
    """Without an address the store is on the internal network alone."""
    assert (declaration()["networks"], declaration()["ports"]) == (["database"], [])
    published = declaration(postgres_publish_address="10.0.0.4", postgres_port=5433)
    assert published["networks"] == ["database", "peers"]
    assert published["ports"] == [{"address": "10.0.0.4", "port": 5433, "container_port": 5433, "variable": "postgres_publish_address"}]


# From here on against a real server.


def server_binaries() -> Path | None:
    """Return the folder of an installed server of version 15 or later."""
    found = [Path(path).parent for path in [shutil.which("initdb") or ""] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    for folder in found:
        if (folder / "initdb").exists() and (folder / "psql").exists():
            version = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
            if int(re.findall(r"\d+", version)[0]) >= 15:
                return folder
    return None


def can_become_postgres() -> bool:
    """Return whether a server can be run as the operating system's user postgres, which peer authentication asks for."""
    try:
        return os.geteuid() in (0, pwd.getpwnam("postgres").pw_uid)
    except KeyError:
        return False


needs_server = pytest.mark.skipif(
    server_binaries() is None or not can_become_postgres(), reason="no PostgreSQL 15 or later, or no user postgres, on this machine"
)


class Server:
    """A server that runs the declaration's own files, with the container's paths put below a folder."""

    def __init__(self, folder: Path) -> None:
        """Take an empty folder that others may enter."""
        self.folder = folder
        self.inputs: dict[str, Any] = {}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        for name in ("etc/current", "secrets", "socket", "data"):
            (folder / name).mkdir(parents=True)
        self.process: subprocess.Popen[str] | None = None
        self.log = folder / "log"

    def here(self, text: str) -> str:
        """Return a configuration with the container's paths replaced."""
        for there, name in (("/etc/slipway/", "etc/"), ("/run/secrets/", "secrets/"), ("/var/run/postgresql", "socket")):
            text = text.replace(there, f"{self.folder}/{name}")
        return text

    def declare(self, **inputs: Any) -> None:
        """Write the files of a declaration, as config_tree does."""
        arguments = ["--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        inputs |= {"postgres_port": self.port, "postgres_initdb_arguments": arguments, "postgres_memory_mb": 256}
        self.service: dict[str, Any] = json.loads(rendered(json.dumps(inputs)))
        for name, item in self.service["config"].items():
            (self.folder / "etc/current" / name).write_text(self.here(item["content"]))
        for name, item in self.service["secrets"].items():
            path = self.folder / "secrets" / name
            path.unlink(missing_ok=True)
            path.write_text(item["content"])
            path.chmod(0o400)
        if os.geteuid() == 0:
            for path in (self.folder, *self.folder.glob("**/*")):
                if not path.is_relative_to(self.folder / "data") or path == self.folder / "data":
                    shutil.chown(path, "postgres", "postgres")

    def popen(self, argv: list[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command as the container's user."""
        environment = {
            "PATH": f"{server_binaries()}:/usr/bin:/bin",
            "PGDATA": str(self.folder / "data"),
            "PGHOST": str(self.folder / "socket"),
            "PGPORT": str(self.port),
            "PGOPTIONS": "",
            "LC_ALL": "C.UTF-8",
        }
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        return subprocess.Popen([self.here(part) for part in argv], env=environment, text=True, cwd="/", **options)

    def run(self, argv: list[str], stdin: str = "") -> tuple[int, str]:
        """Run a command as the container's user; return its status and what it printed."""
        process = self.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        printed, _ = process.communicate(stdin, timeout=60)
        return process.returncode, printed

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        with self.log.open("a") as log:
            self.process = self.popen([*self.service["entrypoint"], *self.service["command"]], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while self.run(self.service["converge"]["ready"])[0] != 0:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop the server as the engine does."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(2)
            assert self.process.wait(60) == 0

    def differences(self) -> set[str]:
        """Return the parts in which the state differs from what is declared."""
        status, printed = self.run(self.service["converge"]["query"])
        assert status == 0, printed
        answer, desired = json.loads(printed), self.service["converge"]["desired"]
        return {key for key in desired if answer.get(key) != desired[key]}

    def converge(self) -> None:
        """Apply the declared state."""
        status, printed = self.run(self.service["converge"]["apply"], self.here(self.service["converge"]["apply_input"]))
        assert (status, printed) == (0, ""), f"{printed}\n{self.log.read_text()[-2000:]}"

    def sql(self, statement: str, database: str = "app", **login: str) -> tuple[int, str]:
        """Run a statement as the superuser, or by name and password over TCP."""
        quoted = database.replace("\\", "\\\\").replace("'", "\\'")
        target = f"dbname='{quoted}'"
        if login:
            name, password = (login[key].replace("\\", "\\\\").replace("'", "\\'") for key in ("name", "password"))
            target += f" host=127.0.0.1 user='{name}' password='{password}'"
        return self.run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", target, "-c", statement])

    def health(self) -> str:
        """Run the health check; return what it printed when it failed."""
        status, printed = self.run(self.service["healthcheck"]["test"][1:])
        return "" if status == 0 else printed


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    # Below /tmp, because other users cannot enter pytest's own folders, and a socket's path must be short.
    folder = Path(f"/tmp/slipway-pg-{os.getpid()}")
    folder.mkdir(mode=0o755)
    server = Server(folder)
    try:
        server.declare()
        server.start()
        yield server
        server.stop()
    finally:
        if server.process and server.process.poll() is None:
            server.process.kill()
        shutil.rmtree(folder)


@pytest.fixture
def server(running: Server) -> Server:
    """Return a server on which the plain declaration has been applied, and is applied again where a test has left another one."""
    left = getattr(running, "service", None)
    running.declare()
    if left != running.service:
        status, printed = running.run(running.service["reload"])
        assert status == 0, printed
    if running.differences():
        running.converge()
    return running


APP = {"name": "app", "password": SECRETS["postgres_app_password"]}
OWNER = {"name": "app_owner", "password": SECRETS["postgres_owner_password"]}


@needs_server
def test_first_start_then_nothing_left_to_do(running: Server) -> None:
    """An empty cluster differs, converges once, and then agrees; the health check passes only from then on."""
    running.declare()
    running.run(["dropdb", "--if-exists", "app"])
    assert "database" in running.differences()
    assert running.health()
    running.converge()
    assert running.differences() == set()
    assert running.health() == ""
    running.converge()
    assert running.differences() == set()


@needs_server
def test_application_has_what_it_needs_and_no_more(server: Server) -> None:
    """The application reads and writes the owner's tables and makes its own; it cannot alter, grant or leave its database."""
    assert server.sql("drop table if exists notes cascade; create table notes (id serial primary key, t text)", **OWNER)[0] == 0
    assert server.sql("insert into notes (t) values ('a'); update notes set t = 'b'; delete from notes", **APP)[0] == 0
    assert server.sql("create table own (x int); drop table own", **APP)[0] == 0
    assert server.sql("select uuid_generate_v4()", **APP)[0] == 0
    for statement in ("drop table notes", "truncate notes", "alter table notes add y int", "create role x", "create schema x"):
        status, printed = server.sql(statement, **APP)
        assert status != 0
        assert "permission denied" in printed or "must be owner" in printed
    assert "no pg_hba.conf entry" in server.sql("select 1", "postgres", **APP)[1]
    assert "no pg_hba.conf entry" in server.sql("select 1", name="postgres", password=SECRETS["postgres_superuser_password"])[1]
    assert "password authentication failed" in server.sql("select 1", name="app", password="wrong")[1]


def session(server: Server, command: str, *, write: bool = False) -> tuple[int, str]:
    """Return the exit status of a session of psql.yml, and what it printed."""
    play = yaml.safe_load((ROOT / "playbooks/psql.yml").read_text())[-1]
    names = {"postgres_owner_name": "app_owner", "postgres_database": "app", "__shell_changes": write}
    given = play["tasks"][0]["vars"]
    names["__psql_role"] = jinja2.Template(given["__psql_role"]).render(names)
    return server.run([jinja2.Template(word).render(names) for word in given["__shell_argv"]], command)


@needs_server
def test_a_session_reads_all_tables_and_sees_the_sessions_of_all_roles(server: Server) -> None:
    assert server.sql("drop table if exists notes cascade; create table notes (id serial primary key, t text)", **OWNER)[0] == 0
    for statement in ("select count(*) from notes", "RESET ROLE; select count(*) from notes"):
        status, printed = session(server, statement)
        assert status == 0, printed
    for statement in ("create table written ()", "RESET ROLE; insert into notes (t) values ('a')"):
        assert session(server, statement)[0] == 3, statement
    assert session(server, "create table written (); drop table written", write=True)[0] == 0
    runbook = re.search(r"### PostgresTransactionOpen\n.*?`(select .+?)`", (ROOT / "docs/alerts.md").read_text(), re.DOTALL)
    assert runbook is not None
    conninfo = (
        f"host=127.0.0.1 dbname=app user=app password='{APP['password'].replace(chr(92), chr(92) * 2).replace(chr(39), chr(92) + chr(39))}'"
    )
    with server.popen(["psql", "-X", "-q", "-d", conninfo], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as open_one:
        assert open_one.stdin is not None
        assert open_one.stdout is not None
        open_one.stdin.write("begin;\nselect 'left open';\n")
        open_one.stdin.flush()
        while "left open" not in open_one.stdout.readline():
            pass
        status, printed = session(server, runbook[1])
        open_one.stdin.close()
    assert status == 0, printed
    assert re.search(r"\| app +\| idle in transaction \| select 'left open';", printed), printed


@needs_server
@pytest.mark.parametrize(
    ("by_hand", "part"),
    [
        ("alter role app password 'changed'", "roles"),
        ("alter role app superuser", "roles"),
        ("alter role app_owner connection limit 3", "roles"),
        ("grant pg_read_all_data to app", "roles"),
        ("alter role slipway_reader login superuser", "roles"),
        ("alter database app owner to app", "database"),
        ("grant connect on database app to public", "database_privileges"),
        ("revoke create on schema public from app", "schema_privileges"),
        ("grant create on schema public to public", "schema_privileges"),
        ("alter schema public owner to postgres", "schema_owner"),
        ("alter default privileges for role app_owner in schema public revoke select on tables from app", "default_privileges"),
        ('drop extension "uuid-ossp"', "extensions"),
        ("drop table if exists loaded; create table loaded (id serial, t text)", "foreign_objects"),
        ("drop table if exists loaded; create table loaded (id int) partition by range (id)", "foreign_objects"),
        ("drop view if exists shown; create view shown as select 1 as x", "foreign_objects"),
        ("drop sequence if exists counted; create sequence counted", "foreign_objects"),
        ('drop schema if exists other cascade; create schema other create table other."T t" ()', "foreign_objects"),
        ("create or replace function f(x int) returns int language sql as 'select x'", "foreign_objects"),
        ("drop type if exists mood; create type mood as enum ('well')", "foreign_objects"),
        ("drop type if exists pair; create type pair as (x int, y int)", "foreign_objects"),
        ("drop domain if exists small; create domain small as int", "foreign_objects"),
        (
            "drop role if exists former; create role former login; create table formers (); alter table formers owner to former",
            "foreign_objects",
        ),
        (
            "drop table if exists t; create table t (); alter table t owner to app_owner; revoke select on t from app",
            "missing_table_privileges",
        ),
    ],
)
def test_changes_by_hand_are_found_and_reverted(server: Server, by_hand: str, part: str) -> None:
    """Each is one difference before, and none after."""
    status, printed = server.sql(by_hand)
    assert status == 0, printed
    assert part in server.differences()
    server.converge()
    assert server.differences() == set()
    assert server.health() == ""


@needs_server
def test_password_in_the_inventory_reaches_the_database(server: Server) -> None:
    """The old one is refused afterwards, and nothing of either is in the server's log."""
    server.declare(postgres_app_password="new-password-1")
    assert server.differences() == {"roles"}
    server.converge()
    assert server.differences() == set()
    assert server.sql("select 1", name="app", password="new-password-1")[0] == 0
    assert server.sql("select 1", **APP)[0] != 0
    assert "SCRAM" not in server.log.read_text()
    assert "new-password-1" not in server.log.read_text()


@needs_server
def test_a_server_that_notes_each_statement_notes_no_secret() -> None:
    """In its log, as it does by default of those that are slow, and in what others than the superuser read."""
    settings = {"log_statement": "all", "log_transaction_sample_rate": 1, "log_statement_sample_rate": 1, "log_min_duration_sample": 0}
    settings |= {"log_min_duration_statement": 0, "log_lock_waits": True, "shared_preload_libraries": "pg_stat_statements"}
    with cluster_of_another("postgres") as other:
        other.declare(postgres_settings=settings, postgres_extensions=["pg_stat_statements"])
        other.start()
        other.converge()
        other.declare(postgres_settings=settings, postgres_extensions=["pg_stat_statements"], postgres_app_password="new-password-2")
        assert other.run(other.service["reload"])[0] == 0
        held = other.popen(["psql", "-Xq", "-d", "app"], stdin=subprocess.PIPE)
        assert held.stdin
        held.stdin.write("begin;\nalter role app connection limit 7;\n")
        held.stdin.flush()
        apply = other.service["converge"]["apply"]
        converging = other.popen(apply, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert converging.stdin
        converging.stdin.write(other.here(other.service["converge"]["apply_input"]))
        converging.stdin.close()
        deadline = time.monotonic() + 60
        while other.sql("select count(*) from pg_locks where not granted")[1] == "0\n":
            assert time.monotonic() < deadline
        noted = other.sql("select coalesce(query, '') from pg_stat_activity")[1]
        while "still waiting for" not in other.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        held.stdin.write("rollback;\n")
        held.stdin.close()
        assert (held.wait(60), converging.wait(60)) == (0, 0)
        assert other.differences() == set()
        noted += other.sql("select query from pg_stat_statements")[1] + other.log.read_text()
        assert "password_as_declared" in noted, "the server notes statements"
        assert "alter role app connection limit" in noted
        assert "SCRAM-SHA-256$" not in noted
        assert "new-password-2" not in noted


@needs_server
def test_further_users_come_change_and_go(server: Server) -> None:
    """A reader reads what the owner and the application made; once taken from the list it is locked, and its tables stay."""
    server.sql("drop table if exists made_by_owner; create table made_by_owner (x int)", **OWNER)
    server.sql("drop table if exists made_by_app; create table made_by_app (x int)", **APP)
    report = {"name": "re'port", "password": "report-password-1"}
    server.declare(postgres_users=[{**report, "access": "read", "roles": ["pg_monitor"], "connection_limit": 2}])
    server.converge()
    server.run(server.service["reload"])
    assert server.differences() == set()
    server.sql("drop table if exists later; create table later (x int)", **APP)
    read = "select count(*) from made_by_owner, made_by_app, later, pg_stat_activity"
    assert server.sql(read, **report)[0] == 0
    assert "permission denied" in server.sql("insert into made_by_app values (1)", **report)[1]
    assert "permission denied" in server.sql("create table x ()", **report)[1]

    server.declare(postgres_users=[{**report, "access": "write"}])
    server.converge()
    assert server.differences() == set()
    assert server.sql("insert into made_by_app values (1)", **report)[0] == 0

    server.declare()
    assert "undeclared_roles" in server.differences()
    server.converge()
    assert server.differences() == set()
    assert server.sql("select 1", **report)[0] != 0
    assert server.sql("select rolname from pg_roles where rolname = 're''port' and not rolcanlogin")[1] == "re'port\n"


@needs_server
def test_a_second_login_is_the_role_and_is_locked_with_the_rotation(server: Server) -> None:
    """Both passwords log in meanwhile; what the second login makes belongs to the role, which may do all with it."""
    later = {"name": "app_next", "password": "later-password-1"}
    server.declare(postgres_second_logins=[{"role": "app", "password": later["password"]}])
    assert {"roles", "second_logins"} <= server.differences()
    server.converge()
    server.run(server.service["reload"])
    assert server.differences() == set()
    server.sql("drop table if exists made_meanwhile", **APP)
    assert server.sql("create table made_meanwhile (x int); select current_user", **later) == (0, "app\n")
    assert server.sql("alter table made_meanwhile add y int", **APP)[0] == 0
    assert server.sql("create role x", **later)[0] != 0

    def password_ids() -> dict[str, str]:
        return dict(json.loads(server.run(server.service["converge"]["query"])[1])["password_ids"])

    def made_of(password: str) -> str:
        return hashlib.sha256(scram_sha_256(password, salt="app/app").encode()).hexdigest()[:8]

    # By these a run knows which password the role has.
    assert password_ids()["app"] == made_of(SECRETS["postgres_app_password"])
    assert set(password_ids()) == {"app", "app_owner"}

    server.declare(postgres_app_password=later["password"])
    server.converge()
    server.run(server.service["reload"])
    assert server.differences() == set()
    assert password_ids()["app"] == made_of(later["password"])
    assert server.sql("select 1", **later)[0] != 0
    assert server.sql("select 1", **APP)[0] != 0
    assert server.sql("drop table made_meanwhile", name="app", password=later["password"])[0] == 0


@needs_server
def test_new_owner_takes_over_the_tables(server: Server) -> None:
    """Renaming the owner in the inventory leaves no table that the new owner cannot migrate."""
    server.sql("drop table if exists inherited; create table inherited (x int)", **OWNER)
    server.declare(postgres_owner_name="second_owner")
    server.converge()
    server.run(server.service["reload"])
    assert server.differences() == set()
    assert server.sql("alter table inherited add y int", name="second_owner", password=OWNER["password"])[0] == 0
    assert server.sql("select * from inherited", **APP)[0] == 0


@needs_server
def test_a_new_application_has_the_tables_of_the_former_one(server: Server) -> None:
    """Renaming the application in the inventory leaves no table that it cannot read and write, and no migration change."""
    # As after a rotation of its password.
    locked = "create role app_next in role app; comment on role app_next is 'Managed by Slipway'"
    server.sql(f"do $$ begin if not exists (select from pg_roles where rolname = 'app_next') then {locked}; end if; end $$")
    server.sql("drop table if exists of_former; create table of_former (id serial primary key)", **APP)
    server.declare(postgres_app_name="shop")
    server.converge()
    server.run(server.service["reload"])
    assert server.differences() == set()
    assert server.sql("insert into of_former default values returning id", name="shop", password=APP["password"]) == (0, "1\n")
    assert server.sql("alter table of_former add y int", **OWNER)[0] == 0


@needs_server
def test_a_role_that_was_made_by_hand_keeps_a_schema_of_its_own(server: Server) -> None:
    server.sql("create role charts login; create schema charts authorization charts")
    server.sql("create table charts.a (); alter table charts.a owner to charts")
    assert server.differences() == set()
    server.converge()
    assert server.sql("select tableowner from pg_tables where schemaname = 'charts'") == (0, "charts\n")


@needs_server
def test_a_group_of_declared_roles_keeps_its_tables(server: Server) -> None:
    server.sql("create role crew; grant crew to app; create table crews (x int); alter table crews owner to crew")
    server.declare(postgres_users=[{"name": "report", "password": "report-password-1", "roles": ["crew"]}])
    server.converge()
    assert server.differences() == set()
    assert server.sql("select tableowner from pg_tables where tablename = 'crews'") == (0, "crew\n")


@needs_server
def test_odd_names_and_passwords(server: Server) -> None:
    """Quotes, backslashes, blanks, keywords and other alphabets are names like others."""
    server.declare(**ODD)
    server.run(server.service["reload"])
    server.converge()
    assert server.differences() == set()
    assert server.health() == ""
    assert server.sql("select 1", ODD["postgres_database"], name="all", password=APP["password"])[0] == 0


@needs_server
def test_a_mistake_stops_the_reload(server: Server) -> None:
    """The message has the place, and the server goes on as before."""
    for name, line, message in (
        ("pg_hba.conf", "host app app unknown/99 scram-sha-256", "pg_hba.conf, line"),
        ("runtime.conf", "work_mem = 'much'", "runtime.conf, line"),
    ):
        server.declare()
        path = server.folder / "etc/current" / name
        path.write_text(f"{path.read_text()}\n{line}\n")
        status, printed = server.run(server.service["reload"])
        assert status != 0
        assert message in printed
        assert server.health() == ""
    check = [part.replace("{revision}", "current") for part in server.service["validate"]]
    status, printed = server.run(check)
    assert status != 0
    assert "work_mem" in printed
    server.declare()
    assert server.run(server.service["reload"])[0] == 0
    assert server.run(check)[0] == 0


@needs_server
def test_the_check_refuses_data_of_another_major_version(server: Server) -> None:
    """In a trial, whatever the image is called, and before anything else that the other version would refuse; none without data."""
    image_major = server.run(["postgres", "--version"])[1].split()[2].partition(".")[0]
    folder = f"{server.folder}/etc/current"
    status, printed = server.run(["sh", f"{folder}/check.sh", folder, "9", "postgres_data"])
    assert status == 1
    assert printed.startswith(f"the volume postgres_data holds data of PostgreSQL 9, and the image has PostgreSQL {image_major}, which ")
    for version in ("0", image_major):
        assert server.run(["sh", f"{folder}/check.sh", folder, version, "postgres_data"])[0] == 0


@needs_server
def test_settings_that_the_data_does_not_allow_are_refused_while_the_server_runs(server: Server) -> None:
    """A cluster without data, as that of the trial, starts with them; the server would not."""

    def checked(**settings: Any) -> tuple[int, str]:
        server.declare(postgres_settings=settings)
        return server.run([part.replace("{revision}", "current") for part in server.service["validate"]])

    server.declare(postgres_settings={"wal_level": "logical", "max_prepared_transactions": 2})
    server.stop()
    server.start()
    try:
        for statement in (
            "select pg_create_physical_replication_slot('backup')",
            "select pg_create_logical_replication_slot('theirs', 'pgoutput')",
            "begin; create table prepared (); prepare transaction 'one'",
        ):
            assert server.sql(statement)[0] == 0
        good: dict[str, Any] = {"wal_level": "logical", "max_prepared_transactions": 1, "max_replication_slots": 2}
        assert checked(**good)[0] == 0
        for wrong, said in (
            ({"max_replication_slots": 1}, "max_replication_slots is 1, and the server has 2 replication slots: backup, theirs"),
            ({"wal_level": "replica"}, "wal_level is replica, and the server has logical replication slots: theirs"),
            ({"max_prepared_transactions": 0}, "max_prepared_transactions is 0, and the server has 1 prepared transactions"),
        ):
            status, printed = checked(**good | wrong)
            assert (status, said in printed) == (1, True), printed
            server.stop()
            with pytest.raises(AssertionError, match="FATAL"):
                server.start()
            server.declare(postgres_settings=good)
            server.start()
    finally:
        for statement in ("rollback prepared 'one'", "select pg_drop_replication_slot(slot_name) from pg_replication_slots"):
            server.sql(statement)
        server.stop()
        server.declare()
        server.start()


def trial(server: Server, data: str, *arguments: str) -> tuple[int, str]:
    """Run the declaration's trial with these arguments of initdb, for a volume with data of a major version, "" for none."""
    volumes = {"postgres_data": {"empty": not data, "pg_version": data}}
    state = {"host": {"memory_mb": 8000, "cores": 4, "data_root": "/"}, "volumes": volumes}
    argv = declaration(container_service_host_state=state, postgres_initdb_arguments=list(arguments), postgres_port=server.port)["trial"]
    place = server.folder / "tmp"
    place.mkdir()
    place.chmod(0o777)
    try:
        return server.run(
            [
                part.replace("{revision}", "current")
                .replace("/tmp/trial", f"{place}/trial")
                .replace("=/tmp", f"={place}")
                .replace("/tmp/initdb.log", f"{place}/log")
                for part in argv
            ]
        )
    finally:
        shutil.rmtree(place)


@needs_server
def test_the_trial_makes_the_cluster_as_the_start_of_an_empty_volume_will(server: Server) -> None:
    """Whatever initdb refuses is known before anything of a first deployment is there."""
    image_major = server.run(["postgres", "--version"])[1].split()[2].partition(".")[0]
    good = ["--data-checksums", "--locale-provider=builtin", "--locale=C.UTF-8", "--wal-segsize=64", "--auth-local=scram-sha-256"]
    assert trial(server, "", *good)[0] == 0
    for bad in (["--no-such"], ["--locale-provider=no_such"], ["--locale=no_such"], ["--encoding=no_such"]):
        status, printed = trial(server, "", *good, *bad)
        assert (status, bad[0].partition("=")[0].lstrip("-") in printed or "no_such" in printed) == (1, True), printed
        # They are of no use where there is data, and of no harm.
        assert trial(server, image_major, *good, *bad)[0] == 0
    status, printed = trial(server, "9", *good)
    assert (status, "holds data of PostgreSQL 9" in printed) == (1, True)


@needs_server
def test_roles_that_the_version_lacks_are_refused_in_the_trial(server: Server) -> None:
    users = [{"name": "report", "password": "report-password-1", "roles": ["pg_monitor", "pg_no_such", "crew_of_the_data"]}]
    server.declare(postgres_users=users)
    try:
        status, printed = trial(server, "", "--locale=C.UTF-8")
    finally:
        server.declare()
    assert (status, printed.splitlines()[-1]) == (
        1,
        "postgres_users names roles that this version of PostgreSQL does not have: pg_no_such; remove or correct them",
    )


@needs_server
def test_a_role_that_cannot_be_given_leaves_all_as_it_was(server: Server) -> None:
    """Also where nothing could be known of it before, as the server did not answer."""
    roles = "select rolname, rolcanlogin, rolpassword, rolconnlimit from pg_authid order by 1"
    before = server.sql(roles)
    users = [{"name": "analyst", "password": "analyst-password-1", "roles": ["pg_monitor", "pg_no_such"], "connection_limit": 3}]
    server.declare(postgres_users=users, postgres_app_password="another-password-1")
    status, printed = server.run(server.service["converge"]["apply"], server.here(server.service["converge"]["apply_input"]))
    assert (status, 'role "pg_no_such" does not exist' in printed) == (3, True)
    assert server.sql(roles) == before
    status, printed = server.run(server.service["converge"]["query"])
    assert {"pg_monitor", "app", "postgres"} <= set(json.loads(printed)["known_roles"])


def test_initdb_has_the_same_arguments_in_the_trial_as_in_the_start() -> None:
    service = declaration()
    assert service["command"][1:] == service["trial"][-4:]
    assert "postgres_initdb_arguments" in service["judged_inputs"]


@pytest.mark.parametrize(
    ("version", "newer"),
    [
        ("postgres (PostgreSQL) 15.16 (Debian 15.16-0+deb12u1)", False),
        ("postgres (PostgreSQL) 16.4", False),
        ("postgres (PostgreSQL) 17.2", True),
        ("postgres (PostgreSQL) 18rc1", True),
    ],
)
def test_a_cluster_has_the_builtin_collation_and_its_server_the_settings_of_its_version(tmp_path: Path, version: str, newer: bool) -> None:
    """As the image itself says its version: its name need not."""
    for name, line in (("postgres", f"echo '{version}'"), ("initdb", 'for part do echo "$part"; done')):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    script = tmp_path / "version.sh"
    script.write_text((ROOT / "roles/postgres/files/version.sh").read_text().replace("/var/run/postgresql", str(tmp_path)))
    arguments = ["--pgdata=a b", "--locale-provider=builtin", "--locale=C.UTF-8"]
    run = subprocess.run(
        ["sh", "-euc", '. "$0"; create_cluster "$@"; include_settings /etc/made', str(script), *arguments],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [part for part in arguments if newer or part != "--locale-provider=builtin"]
    assert run.stdout.splitlines()[-len(arguments) :][-len(expected) :] == expected
    assert ("--locale-provider=builtin" in run.stdout.splitlines()) is newer
    link = tmp_path / "from_17.conf"
    assert (str(link.readlink()) if link.is_symlink() else "") == ("/etc/made/from_17.conf" if newer else "")


@needs_server
def test_start_refuses_data_that_it_cannot_read(server: Server) -> None:
    """Data of another major version, and a volume that holds something else, are left as they are, with a sentence that says so."""
    server.declare()
    command = [*server.service["entrypoint"], *server.service["command"]]
    for name, expected in (
        ("PG_VERSION", "the volume holds data of PostgreSQL 9"),
        ("letter.txt", "the volume holds letter.txt but no PG_VERSION"),
    ):
        other = server.folder / "other"
        other.mkdir()
        (other / name).write_text("9\n")
        os.chmod(other / name, 0o644)
        if os.geteuid() == 0:
            shutil.chown(other, "postgres")
        process = server.popen(["env", f"PGDATA={other}", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        printed, _ = process.communicate(timeout=30)
        assert process.returncode == 1
        assert expected in printed
        assert [path.name for path in other.iterdir()] == [name]
        shutil.rmtree(other)


@needs_server
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of another user")
@pytest.mark.parametrize("whole", [True, False])
def test_start_refuses_data_of_another_user(server: Server, whole: bool) -> None:
    """The images of two families number their users otherwise, which shows as files that cannot be read."""
    other = server.folder / "foreign"
    other.mkdir(mode=0o700)
    (other / "PG_VERSION").write_text("17")
    (other / "PG_VERSION").chmod(0o600)
    if not whole:
        shutil.chown(other, "postgres")
    process = server.popen(
        ["env", f"PGDATA={other}", *server.service["entrypoint"], *server.service["command"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    printed, _ = process.communicate(timeout=30)
    shutil.rmtree(other)
    assert process.returncode == 1
    assert "belongs to user 0" in printed


@contextmanager
def cluster_of_another(superuser: str, password: str = "") -> Iterator[Server]:
    """Give a server that has not started yet, whose cluster another program has created."""
    folder = Path(f"/tmp/slipway-adopt-{os.getpid()}")
    folder.mkdir(mode=0o755)
    other = Server(folder)
    try:
        other.declare()
        (folder / "given").write_text(f"{password}\n")
        options = [f"--pwfile={folder}/given"] if password else []
        status, printed = other.run(
            ["initdb", f"--username={superuser}", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", *options]
        )
        assert status == 0, printed
        yield other
        other.stop()
    finally:
        if other.process and other.process.poll() is None:
            other.process.kill()
        shutil.rmtree(folder)


def alone(server: Server, database: str, *statements: str) -> None:
    """Run statements on a server that is down, which needs no role."""
    single = ["postgres", "--single", "-D", str(server.folder / "data"), "-c", "exit_on_error=on", database]
    status, printed = server.run(single, "\n".join(filter(None, statements)) + "\n")
    assert status == 0, printed


@needs_server
@pytest.mark.parametrize(
    ("by_hand", "owner"), [("", "cs_user"), ("create role postgres login", "cs_user"), ("create role shop login", "shop")]
)
def test_cluster_of_another_superuser_is_taken_over(by_hand: str, owner: str) -> None:
    """Its bootstrap role has another name, or a role of the old product has the tables: the application reads and writes them."""
    with cluster_of_another("cs_user") as other:
        alone(other, "template1", "create database app", by_hand)
        alone(
            other,
            "app",
            "create table letters (id serial primary key, t text)",
            "insert into letters (t) values ('kept')",
            f"alter table letters owner to {owner}",
        )
        other.start()
        other.converge()
        assert other.differences() == set()
        assert other.sql("insert into letters (t) values ('new'); select count(*) from letters", **APP) == (0, "2\n")
        assert other.sql("alter table letters add x int", **OWNER)[0] == 0
        other.stop()
        other.start()
        assert other.log.read_text().count("taken over") == 1


@needs_server
def test_an_adopted_superuser_keeps_its_password() -> None:
    """POSTGRES_USER is postgres unless it is set: the old product logs in with it again after an undo."""
    kept = "select rolpassword from pg_authid where rolname = 'postgres'"
    with cluster_of_another("postgres", "of-the-old-product") as other:
        other.start()
        before = other.sql(kept, "postgres")
        assert before[1].startswith("SCRAM-SHA-256$")
        assert "roles" in other.differences()
        for _again in range(2):
            other.converge()
            assert other.differences() == set()
        assert other.sql(kept, "postgres") == before
        assert other.sql("alter role postgres nobypassrls", "postgres")[0] == 0
        assert other.differences() == {"roles"}
        assert other.sql("alter role app password 'changed'; alter role postgres bypassrls", "postgres")[0] == 0
        assert other.differences() == {"roles"}


@needs_server
@pytest.mark.parametrize(("superuser", "variable"), [("app", "postgres_app_name"), ("app_owner", "postgres_owner_name")])
def test_start_refuses_a_role_with_the_name_of_the_first_superuser(superuser: str, variable: str) -> None:
    """It stays a superuser, whatever one wants: nothing is changed, and the old product runs on."""
    with cluster_of_another(superuser) as other:
        with pytest.raises(AssertionError, match=rf"POSTGRES_USER\) is named {superuser}, as is a role of the inventory: set {variable}"):
            other.start()
        assert not (other.folder / "data/slipway.superuser").exists()
        other.declare(**{variable: "another"})
        other.start()
        assert other.sql("select oid from pg_roles where rolname = 'postgres'", "postgres")[1] != "10\n"


@needs_server
def test_the_old_product_has_its_privileges_again_after_the_statements_of_the_page() -> None:
    """docs/adopt.md, "Undo": a role of its own, not a superuser, has its tables, and makes and reads others."""
    undo = (ROOT / "docs/adopt.md").read_text().partition("\n## Undo\n")[2]
    statements = [text.replace("guestbook_admin", "shop").replace("guestbook", "app") for text in re.findall(r"(?m)^ +-c '(.+)'", undo)]
    assert len(statements) == 3
    with cluster_of_another("postgres") as other:
        alone(other, "template1", "create role shop login", "create role shop_reader login", "create database app owner shop")
        made = "create table letters (id serial primary key, t text)"
        alone(other, "app", "set role shop", made, "grant select on letters to shop_reader")
        other.start()
        other.converge()
        assert other.sql("create table made_by_app (x int)", **APP)[0] == 0
        assert other.sql("create table made_by_owner (x int)", **OWNER)[0] == 0
        assert other.sql("set role shop; select * from letters")[0] != 0
        assert other.sql("select has_database_privilege('shop', 'app', 'connect')") == (0, "f\n")
        for statement in statements:
            assert other.sql(statement) == (0, "")
        uses = "insert into letters (t) values ('a'); select * from made_by_app, made_by_owner; alter table letters add x int"
        assert other.sql(f"set role shop; {uses}; create table more ()") == (0, "")
        assert other.sql("set role shop_reader; select t from letters") == (0, "a\n")
        for role in ("shop", "shop_reader"):
            assert other.sql(f"select has_database_privilege('{role}', 'app', 'connect')") == (0, "t\n")


@needs_server
def test_a_cluster_that_another_one_was_dumped_into_is_complete(server: Server) -> None:
    """docs/backup.md, "Another major version": the new server has all of the old one's roles and data, and nothing is left to converge."""
    assert server.sql("drop table if exists letters; create table letters (id serial primary key, t text)", **OWNER)[0] == 0
    assert server.sql("insert into letters (t) values ('kept')", **APP)[0] == 0
    assert server.sql("drop role if exists by_hand; create role by_hand login password 'of-the-role-1'")[0] == 0
    status, dump = server.run(["pg_dumpall"])
    assert status == 0, dump
    with cluster_of_another("postgres", "for-the-load-alone") as other:
        with other.log.open("a") as log:
            loading = other.popen(["postgres", "-k", str(other.folder / "socket"), "-c", "listen_addresses="], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while other.run(["pg_isready", "--quiet"])[0] != 0:
            assert time.monotonic() < deadline, other.log.read_text()
            time.sleep(0.2)
        load = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]
        status, printed = other.run(load, dump.replace("\nCREATE ROLE postgres;\n", "\n"))
        assert status == 0, printed
        loading.send_signal(2)
        assert loading.wait(60) == 0
        other.start()
        # The new server's marker says that it was taken over; the superuser's password came with the dump.
        assert other.differences() == set()
        assert other.sql("insert into letters (t) values ('new'); select t from letters order by id", **APP) == (0, "kept\nnew\n")
        assert other.sql("select count(*) from pg_roles where rolname = 'by_hand'") == (0, "1\n")


BACKUP = {"name": "backup", "password": "backup-password-1"}


def test_backups_have_a_role_that_reads_and_replicates() -> None:
    service = declaration(postgres_backup_user=BACKUP)
    desired = json.loads(service["config"]["desired.json"]["content"])
    role = desired["roles"]["backup"]
    assert (role["superuser"], role["replication"]) == (False, True)
    assert role["member_of"] == ["pg_checkpoint", "pg_monitor", "pg_read_all_data"]
    assert desired["wal_markers"] == ["backup"]
    assert 'host replication "backup" samenet scram-sha-256' in hba_lines(postgres_backup_user=BACKUP)
    assert "backup-password-1" not in json.dumps(service)
    assert json.loads(declaration()["config"]["desired.json"]["content"])["wal_markers"] == []


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({}, {}),
        (
            {"postgres_backup_user": BACKUP},
            {"from_17": "'on'", "max_slot_wal_keep_size": "'8192MB'", "synchronous_standby_names": "''"},
        ),
        (
            {"postgres_backup_user": BACKUP, "postgres_settings": {"summarize_wal": False}, "postgres_synchronous_standby": "copy"},
            {"from_17": "'on'", "max_slot_wal_keep_size": "'8192MB'", "summarize_wal": "off", "synchronous_standby_names": "'copy'"},
        ),
    ],
)
def test_wal_is_kept_for_a_receiver_and_summed_up_where_the_server_can(inputs: dict[str, Any], expected: dict[str, str]) -> None:
    config = declaration(**inputs)["config"]
    lines = [line.split(" = ") for line in config["runtime.conf"]["content"].splitlines() if " = " in line]
    newer = config["from_17.conf"]["content"].replace("summarize_wal", "from_17")
    lines += [line.split(" = ") for line in newer.splitlines() if " = " in line]
    names = {"from_17", "max_slot_wal_keep_size", "summarize_wal", "synchronous_standby_names"}
    assert {name: value for name, value in lines if name in names} == expected
    # So that postgres_settings overrides it.
    first, *_others = (line for line in config["runtime.conf"]["content"].splitlines() if line and not line.startswith("#"))
    assert first == "include_if_exists '/var/run/postgresql/from_17.conf'"


@needs_server
def test_a_running_server_takes_over_the_settings_of_its_version(server: Server) -> None:
    """Older ones do not read them, and start."""
    version = int(server.sql("show server_version_num")[1])
    for inputs in ({}, {"postgres_backup_user": BACKUP}, {}):
        server.declare(**inputs)
        assert server.run(server.service["reload"])[0] == 0
        expected = "" if version < 170000 else "on" if inputs else "off"
        assert server.sql("select coalesce(current_setting('summarize_wal', true), '')") == (0, f"{expected}\n")


@needs_server
def test_the_slot_of_the_backups_is_dropped_though_a_receiver_uses_it(server: Server) -> None:
    """destroy.yml leaves the volume: a server that runs on it without the backups would keep WAL until the disk is full."""
    drop, left = (ROOT / "playbooks/files/drop_slot.sql").read_text(), "select count(*) from pg_replication_slots"
    assert server.sql(drop) == (0, "")
    server.declare(postgres_backup_user=BACKUP)
    server.converge()
    assert server.run(server.service["reload"])[0] == 0
    folder = server.folder / "received"
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    login = f"host=127.0.0.1 user={BACKUP['name']} password={BACKUP['password']}"
    for used in (False, True):
        assert server.sql("select pg_create_physical_replication_slot('slipway_backup', true)")[0] == 0
        receive = ["pg_receivewal", "-D", str(folder), "--slot=slipway_backup", "--no-loop", "-d", login]
        receiver = server.popen(receive, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) if used else None
        deadline = time.monotonic() + 30
        while used and server.sql("select active from pg_replication_slots") != (0, "t\n"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert server.sql(drop) == (0, "")
        assert server.sql(left) == (0, "0\n")
        if receiver:
            receiver.wait(30)
