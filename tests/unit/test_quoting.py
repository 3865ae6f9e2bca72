"""Values in each format: what a program reads is what was given, or the value is refused."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import html.parser
import ipaddress
import json
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.slipway.stack.plugins.filter.quoting import FORMS, FilterModule
from ansible_collections.slipway.stack.plugins.plugin_utils import quoting, server_names
from ansible_collections.slipway.stack.plugins.plugin_utils.quoting import QuotingError

WHAT = "some_input"
# Any text, and text of what has a meaning somewhere.
TEXTS = st.one_of(st.text(max_size=30), st.text(alphabet="ab1 \t\n\r\v\0\x7f\"'\\$%;{}()#:/@+-,~*^=<>&[]éü\u2028\x85", max_size=20))
BATCHES = st.lists(TEXTS, min_size=40, max_size=60)
few = settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
many = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def taken(function: Callable[[Any, str], str], texts: list[str]) -> dict[str, str]:
    """Return what a function makes of those texts that it does not refuse."""
    made = {}
    for text in dict.fromkeys(texts):
        with contextlib.suppress(QuotingError):
            made[text] = function(text, WHAT)
    return made


@functools.cache
def image(name: str) -> str:
    """Return the name of an image that is in the local engine, or skip the test."""
    if not shutil.which("docker") or subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode:
        pytest.skip(f"no engine with {name}")
    return name


# nginx, as its own words say and as it serves them.


@many
@given(TEXTS, TEXTS)
def test_a_word_for_nginx_is_one_word(one: str, two: str):
    made = taken(quoting.nginx_word, [one, two])
    assert list(quoting.nginx_words(" ".join(made.values()) + ";")) == [*('"' + text for text in made), ";"]
    assert not {text for text in {one, two} - set(made) if not set(text) & set(quoting.CONTROLS)}


@many
@given(TEXTS)
def test_a_header_is_one_line_without_variables(text: str):
    for value in taken(quoting.http_header_value, [text]).values():
        (word,) = quoting.nginx_words(value)
        assert re.sub(r"\$\{slipway_dollar\}", "$", word[1:]) == text
        assert "$" not in word.replace("${slipway_dollar}", "")
        assert not set(text) & set("\r\n\0")


@many
@given(TEXTS)
def test_configuration_of_a_users_own_stays_in_its_block(text: str):
    for extra in taken(quoting.nginx_directives, [text]).values():
        words = list(quoting.nginx_words(f"server {{\n{extra}\n}} end;"))
        assert words[:2] == ['"server', "{"]
        assert words[-3:] == ["}", '"end', ";"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("} server { listen 1;", "closes a block"),
        ("location / {", "does not close it"),
        ("add_header a 'b;", "a quote is not closed"),
        ("return 200", "must end with a semicolon"),
        ("return 200 'a'b;", "right after a closing quote"),
    ],
)
def test_configuration_that_reaches_out_of_its_block_is_refused(text: str, message: str):
    with pytest.raises(QuotingError, match=re.escape(message)):
        quoting.nginx_directives(text, WHAT)


def test_configuration_may_end_with_a_comment_and_hold_braces_in_quotes():
    assert quoting.nginx_directives('return 200 "}";  # done }', WHAT).endswith("\n") is False
    assert quoting.nginx_directives("return 204;\n# done }", WHAT).endswith("\n")
    assert quoting.nginx_directives('if ($a ~ "^.{2}$") { return 204; }', WHAT)


#: The longest words that nginx reads: bare, in quotes, with escapes, and with what stands for a dollar sign.
LONGEST = ("x" * 4094, "x" + " x" * 2045, '"' * 2046, "$" * 240)


@pytest.mark.parametrize("text", LONGEST)
def test_a_word_that_nginx_cannot_read_is_refused(text: str):
    assert taken(quoting.http_header_value, [text])
    for made in (quoting.http_header_value, quoting.nginx_value):
        with pytest.raises(QuotingError, match="of which a word holds at most 4094: shorten it"):
            made(text + text[-1] * 3, WHAT)
    with pytest.raises(QuotingError, match=f"a word of {WHAT} has "):
        quoting.nginx_directives(f"add_header a {'x' * 4095};", WHAT)


class OverSocket:
    """Requests to a server that listens on a unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, path: str) -> tuple[bytes, bytes]:
        """Return the head and the body of an answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.path))
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return head, body


@contextlib.contextmanager
def nginx(folder: Path, http: str) -> Iterator[OverSocket]:
    """Serve a configuration from the official image, without a network."""
    folder.mkdir(mode=0o777, exist_ok=True)
    folder.chmod(0o777)
    (folder / "nginx.conf").write_text(f"error_log stderr;\npid /tmp/n.pid;\nevents {{}}\nhttp {{\n{http}\n}}\n")
    temporary = "".join(f" {kind}_temp_path /tmp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    command = ["docker", "run", "--rm", "--detach", "--network", "none", "--user", "nginx", "--tmpfs", "/tmp", "-v", f"{folder}:/etc/n"]
    command += ["--entrypoint", "nginx", image("nginx:1-alpine"), "-e", "stderr", "-c", "/etc/n/nginx.conf", "-g", "daemon off;"]
    (folder / "nginx.conf").write_text((folder / "nginx.conf").read_text().replace("http {", "http {" + temporary))
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        path = folder / "n.sock"
        deadline = time.monotonic() + 10
        while not path.exists():
            log = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=False)
            assert time.monotonic() < deadline, log.stderr
            assert "[emerg]" not in log.stderr, log.stderr
            time.sleep(0.1)
        path.parent.chmod(0o777)
        yield OverSocket(path)
    finally:
        subprocess.run(["docker", "kill", name], capture_output=True, check=False)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for a socket, that every user may enter."""
    folder = Path(f"/tmp/slipway-q-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@settings(few, max_examples=1)
@given(BATCHES)
def test_nginx_serves_headers_as_they_were_given(texts: list[str]):
    image("nginx:1-alpine")
    texts += ["", "a$b", "$host", "${host}", "a\\", '"', "it's; } {", "100%", "a\\nb", "#", *LONGEST]
    values = taken(quoting.http_header_value, texts)
    paths = taken(quoting.nginx_location, [f"/p{number}/{text}" for number, text in enumerate(texts)])
    served = "".join(f"location = /h{number} {{ add_header X-V {value}; return 204; }}\n" for number, value in enumerate(values.values()))
    served += "".join(f"location {path} {{ return 200 {number}; }}\n" for number, path in enumerate(paths.values()))
    folder = Path(f"/tmp/slipway-qn-{os.getpid()}")
    try:
        with nginx(folder, f'geo $slipway_dollar {{ default "$"; }}\nserver {{ listen unix:/etc/n/n.sock;\n{served} }}') as server:
            for number, text in enumerate(values):
                head, _ = server.get(f"/h{number}")
                sent = [line.removeprefix(b"X-V: ") for line in head.split(b"\r\n") if line.startswith(b"X-V:")]
                assert sent == ([text.encode()] if text else []), text
            for number, path in enumerate(paths):
                # What nginx takes out of a path before it looks for a location is not tested here.
                if "//" not in path and "/." not in path:
                    assert server.get(urllib.parse.quote(path))[1] == str(number).encode(), path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("path", ["api/", "~ ^/x", "= /x", "^~ /x", "@x", "/x\n", "", None, True, 1.5, ["/x"]])
def test_a_bad_path_is_refused(path: Any):
    with pytest.raises(QuotingError, match=WHAT):
        quoting.nginx_location(path, WHAT)


# PostgreSQL.


def postgres_binaries() -> Path | None:
    """Return the folder of an installed server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: -int(path.parents[1].name))
    return found[0].parent if found else None


class Postgres:
    """A server with its files below a folder; only the views over its files are used."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.binaries = postgres_binaries() or Path()
        user = pwd.getpwnam("postgres")
        self.identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            os.chown(folder, user.pw_uid, user.pw_gid)
            self.identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.run("initdb", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8", "-D", str(self.data))
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        self.run("pg_ctl", "-D", str(self.data), "-w", "-l", f"{folder}/log", "-o", options, "start")

    def run(self, program: str, *arguments: str) -> str:
        """Return what a program prints."""
        command = [str(self.binaries / program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd="/", **self.identity).stdout

    def rows(self, query: str) -> list[list[Any]]:
        """Return rows of a query."""
        asked = f"select coalesce(json_agg(a), '[]') from (select json_build_array{query}) b(a)"
        found = self.run("psql", "-X", "-At", "-h", str(self.folder), "-U", "postgres", "-d", "postgres", "-c", asked)
        return list(json.loads(found))

    def stop(self) -> None:
        """Stop the server."""
        self.run("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    known = any(entry.pw_name == "postgres" for entry in pwd.getpwall())
    if postgres_binaries() is None or not known or os.geteuid() not in {0, known and pwd.getpwnam("postgres").pw_uid}:
        pytest.skip("no PostgreSQL on this machine")
    folder = Path(f"/tmp/slipway-qp-{os.getpid()}")
    folder.mkdir(mode=0o755)
    server = Postgres(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@few
@given(texts=BATCHES)
def test_names_in_pg_hba_are_read_as_they_were_given(postgres: Postgres, texts: list[str]):
    made = taken(quoting.pg_hba_name, [*texts, "all", "+a", "@a", "replication", "a,b", '"', '""', "#", "a\\", " "])
    (postgres.data / "pg_hba.conf").write_text("".join(f"host {name} {name} 10.0.0.1/32 scram-sha-256\n" for name in made.values()))
    rows = postgres.rows("(type, database, user_name, auth_method, error) from pg_hba_file_rules order by line_number")
    assert rows == [["host", [text], [text], "scram-sha-256", None] for text in made]


@pytest.mark.parametrize("name", ["", "a\nhost all all 0.0.0.0/0 trust", "a\r", "a\0", "/^.*$", "n" * 64, None, True, ["a"]])
def test_names_that_pg_hba_cannot_hold_are_refused(name: Any):
    with pytest.raises(QuotingError, match=WHAT):
        quoting.pg_hba_name(name, WHAT)


@pytest.mark.parametrize(
    ("given_network", "written"),
    [
        ("10.0.0.5", "10.0.0.5/32"),
        ("10.1.0.0/16", "10.1.0.0/16"),
        ("10.1.2.3/16", "10.1.0.0/16"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("fd00::1", "fd00::1/128"),
        ("10.0.0.1/32 trust\nhost all all 0.0.0.0/0", None),
        ("999.0.0.1", None),
        ("all", None),
        ("", None),
        (None, None),
    ],
)
def test_networks_are_networks(given_network: Any, written: str | None):
    if written is None:
        with pytest.raises(QuotingError, match=WHAT):
            quoting.pg_hba_network(given_network, WHAT)
    else:
        assert quoting.pg_hba_network(given_network, WHAT) == written
        assert ipaddress.ip_network(written)


@few
@given(
    texts=BATCHES, numbers=st.lists(st.one_of(st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False)), min_size=9)
)
def test_values_in_postgresql_conf_are_read_as_they_were_given(postgres: Postgres, texts: list[str], numbers: list[float]):
    made = list(taken(quoting.postgres_setting_value, [*texts, "%m '\nfsync = off", "a\\'b", "\\"]).items())
    made += [(number, quoting.postgres_setting_value(number, WHAT)) for number in [*numbers, 1e-05, 1e300]]
    own = "".join(f"x.a{number} = {value}\n" for number, (_, value) in enumerate(made))
    (postgres.data / "postgresql.conf").write_text(own)
    rows = postgres.rows("(name, setting, error) from pg_file_settings where sourcefile like '%/postgresql.conf' order by seqno")
    assert [row[0] for row in rows] == [f"x.a{number}" for number in range(len(made))], rows
    for (value, _), (_, setting, error) in zip(made, rows, strict=True):
        assert error is None
        assert setting == value if isinstance(value, str) else float(setting) == value


@pytest.mark.parametrize("name", ["work_mem = '4MB'\nfsync", "include", "INCLUDE_DIR", "a b", "", "a.b.c", "1a", "ä", None, 3])
def test_names_that_are_no_setting_are_refused(name: Any):
    with pytest.raises(QuotingError, match=WHAT):
        quoting.postgres_setting_name(name, WHAT)


class ConnectionOption(ctypes.Structure):
    """PQconninfoOption of libpq."""

    _fields_ = [(name, ctypes.c_char_p) for name in ("keyword", "envvar", "compiled", "val", "label", "dispchar")] + [
        ("dispsize", ctypes.c_int)
    ]


@functools.cache
def libpq() -> Any:
    """Return libpq, or skip the test."""
    name = ctypes.util.find_library("pq")
    if not name:
        pytest.skip("no libpq on this machine")
    library = ctypes.CDLL(name)
    library.PQconninfoParse.restype = ctypes.POINTER(ConnectionOption)
    library.PQconnectStart.restype = ctypes.c_void_p
    library.PQpass.restype = ctypes.c_char_p
    library.PQpass.argtypes = [ctypes.c_void_p]
    library.PQfinish.argtypes = [ctypes.c_void_p]
    return library


@settings(many, max_examples=100)
@given(TEXTS, TEXTS)
def test_libpq_reads_a_connection_string_as_it_was_given(user: str, database: str):
    made = taken(quoting.conninfo_value, [user, database])
    if user not in made or database not in made:
        assert "\0" in user + database
        return
    message = ctypes.c_char_p()
    options = libpq().PQconninfoParse(f"user={made[user]} dbname={made[database]}".encode(), ctypes.byref(message))
    assert options, message.value
    found = {}
    at = 0
    while options[at].keyword:
        if options[at].val is not None:
            found[options[at].keyword.decode()] = options[at].val.decode()
        at += 1
    libpq().PQconninfoFree(options)
    assert found == {"user": user, "dbname": database}


@settings(many, max_examples=100)
@given(text=TEXTS.filter(bool))
def test_libpq_reads_a_password_file_as_it_was_given(tmp_path_factory: pytest.TempPathFactory, text: str):
    made = taken(quoting.pgpass_field, [text])
    if not made:
        assert set(text) & set("\r\n\0")
        return
    file = tmp_path_factory.getbasetemp() / "pgpass"
    file.touch(0o600)
    file.write_text(f"127.0.0.1:5432:*:{made[text]}:{made[text]}\n")
    login = f"host=127.0.0.1 port=5432 dbname=none user={quoting.conninfo_value(text, WHAT)} passfile='{file}'"
    # No connection is waited for: the file is read before.
    connection = libpq().PQconnectStart(login.encode())
    try:
        assert (libpq().PQpass(connection) or b"").decode() == text
    finally:
        libpq().PQfinish(connection)


# Redis.


class Redis:
    """A server on a unix socket."""

    def __init__(self, folder: Path, conf: str) -> None:
        self.socket = folder / "r.sock"
        (folder / "redis.conf").write_text(f"port 0\nunixsocket {self.socket}\nsave ''\nlogfile {folder}/log\ndir {folder}\n{conf}\n")
        self.process = subprocess.Popen(["redis-server", str(folder / "redis.conf")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 10
        while not self.up():
            assert self.process.poll() is None, self.process.stdout and self.process.stdout.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def up(self) -> bool:
        """Return whether the server answers; the socket is there before that."""
        try:
            return bool(self.ask("PING") == "PONG")
        except OSError:
            return False

    def ask(self, *words: str) -> Any:
        """Return a reply."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            parts = [word.encode() for word in words]
            connection.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
            with connection.makefile("rb") as stream:
                return self._reply(stream)

    def _reply(self, stream: Any) -> Any:
        line = stream.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return stream.read(int(rest) + 2)[:-2].decode() if int(rest) >= 0 else None
        if kind == b"*":
            return [self._reply(stream) for _ in range(int(rest))]
        return rest.decode()


@contextlib.contextmanager
def redis(conf: str, **files: str) -> Iterator[Redis]:
    if not shutil.which("redis-server"):
        pytest.skip("no Redis on this machine")
    folder = Path(f"/tmp/slipway-qr-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for name, content in files.items():
        (folder / name).write_text(content)
    server = Redis(folder, conf.replace("FOLDER", str(folder)))
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait(10)
        shutil.rmtree(folder)


@settings(few, max_examples=25)
@given(TEXTS.filter(bool), TEXTS.filter(bool))
def test_redis_reads_its_settings_as_they_were_given(one: str, two: str):
    made = taken(quoting.redis_argument, [one, two])
    if not {one, two} <= set(made):
        assert "\0" in one + two
        return
    with redis(f"masteruser {made[one]}\nmasterauth {made[two]}") as server:
        assert server.ask("CONFIG", "GET", "masteruser") == ["masteruser", one]
        assert server.ask("CONFIG", "GET", "masterauth") == ["masterauth", two]


@many
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_words_of_redis_stay_the_words_of_a_list(words: list[str]):
    if "\0" in "".join(words):
        with pytest.raises(QuotingError):
            quoting.redis_arguments(words, WHAT)
        return
    line = quoting.redis_arguments(words, WHAT)
    assert "\n" not in line
    # What was written as a list can be read as a string.
    assert quoting.redis_arguments(line, WHAT) == line


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("900 1 300 10", "900 1 300 10"),
        ('""', '""'),
        ("''", '""'),
        ([""], '""'),
        (True, "yes"),
        (20, "20"),
        (1.5, "1.5"),
        ("normal 0 0 0", "normal 0 0 0"),
        ("'a\\'b' \"c\\x41\\n\"", '"a\'b" "cA\\n"'),
        ("a\nuser evil on nopass", None),
        ('"a', None),
        ("'a\\\\'", None),
        ('"\\xff"', None),
        ("", None),
        (None, None),
        ([None], None),
        ({"a": 1}, None),
    ],
)
def test_values_of_redis_settings(value: Any, written: str | None):
    if written is None:
        with pytest.raises(QuotingError, match=WHAT):
            quoting.redis_arguments(value, WHAT)
    else:
        assert quoting.redis_arguments(value, WHAT) == written


def test_redis_takes_what_is_written_for_settings_of_several_words():
    lines = {"save": "900 1 300 10", "client-output-buffer-limit": "normal 0 0 0", "oom-score-adj-values": [0, 100, 800]}
    conf = "\n".join(f"{name} {quoting.redis_arguments(value, WHAT)}" for name, value in lines.items())
    with redis(conf) as server:
        assert server.ask("CONFIG", "GET", "save")[1] == "900 1 300 10"
        assert server.ask("CONFIG", "GET", "oom-score-adj-values")[1] == "0 100 800"


@few
@given(BATCHES, st.lists(st.lists(TEXTS, max_size=3), min_size=20, max_size=20))
def test_no_name_and_no_rule_makes_another_user_in_redis(texts: list[str], rules: list[list[str]]):
    # A hash mark does not begin a comment in an ACL file, and default is a user that is always there.
    names = taken(quoting.redis_user_name, [*texts, "a b", "evil on nopass", "a\nuser evil on nopass ~* +@all"])
    lines = [f"user {name} reset on #{'0' * 64} ~* +@read" for name in names.values()]
    for number, rule in enumerate(rules):
        with contextlib.suppress(QuotingError):
            written = quoting.redis_acl_rules(rule, WHAT)
            # Commands that there are not are for Redis to refuse.
            assert not re.search(r"(^| )(nopass|on|reset|>|#)", written)
            if not re.search(r"[+()&-]|~\S*%|%", written):
                lines.append(f"user rule{number} reset on #{'0' * 64} {written}")
                names[f"rule{number}"] = ""
    with redis("aclfile FOLDER/users.acl", **{"users.acl": "\n".join(lines) + "\n"}) as server:
        assert set(server.ask("ACL", "USERS")) == {*names, "default"}
        assert not [line for line in server.ask("ACL", "LIST") if "nopass" in line and not line.startswith("user default ")]


@pytest.mark.parametrize(
    "rules",
    [
        ["+get nopass"],
        ["nopass"],
        [">x"],
        ["#" + "0" * 64],
        ["on"],
        ["reset"],
        ["~*\nuser evil on nopass"],
        ["+get\tx"],
        ["(~a +get"],
        ["(~a", "(+get)"],
        "+get",
        [None],
        [1.5],
    ],
)
def test_rules_that_are_no_rules_are_refused(rules: Any):
    with pytest.raises(QuotingError, match=WHAT):
        quoting.redis_acl_rules(rules, WHAT)


def test_rules_of_all_kinds_are_taken():
    rules = ["~cache:* &*", "%R~in:*", "+@all", "-@dangerous", "+client|setname", "allchannels", "(~a +get)", "(~b", "+set)"]
    assert quoting.redis_acl_rules(rules, WHAT) == " ".join(rules)


# systemd. No program prints what it has read of a unit that is not loaded, so its words are taken apart here as extract_first_word() does.


def systemd_words(line: str) -> list[str]:
    """Return the words of a command in a unit, specifiers and variables expanded as systemd would."""
    words, at = [], 0
    escapes = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"'}
    while at < len(line):
        assert "\n" not in line
        if line[at] != '"':
            end = line.find(" ", at)
            end = len(line) if end < 0 else end
            word, at = line[at:end], end + 1
        else:
            word, at = "", at + 1
            while line[at] != '"':
                if line[at] != "\\":
                    word, at = word + line[at], at + 1
                elif line[at + 1] == "x":
                    word, at = word + chr(int(line[at + 2 : at + 4], 16)), at + 4
                else:
                    word, at = word + escapes[line[at + 1]], at + 2
            assert line[at + 1 : at + 2] in {"", " "}
            at += 2
        assert not re.search(r"(?<!%)(%%)*%(?!%)", word), word
        assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", word), word
        words.append(word.replace("%%", "%").replace("$$", "$"))
    return words


@many
@given(TEXTS, TEXTS)
def test_an_argument_in_a_unit_is_one_argument(one: str, two: str):
    made = taken(quoting.systemd_word, [one, two])
    assert systemd_words(" ".join(made.values())) == list(made)
    assert all("\0" in text for text in {one, two} - set(made))


@few
@given(texts=BATCHES)
def test_no_value_adds_a_line_to_a_unit(tmp_path_factory: pytest.TempPathFactory, texts: list[str]):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    folder = tmp_path_factory.mktemp("units")
    texts += ["daily\n[Service]\nExecStart=/bin/evil", "100 %", "%n", "a\\", " a", "%"]
    values, words = taken(quoting.systemd_value, texts), taken(quoting.systemd_word, texts)
    for number, (value, word) in enumerate(zip(values.values(), [*words.values()][: len(values)], strict=False)):
        assert "\n" not in value + word
        unit = f"[Unit]\nDescription={value}\n[Service]\nType=oneshot\nExecStart=/bin/sh -c {word}\n"
        (folder / f"u{number}.service").write_text(unit)
    units = sorted(map(str, folder.iterdir()))
    checked = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False, timeout=60)
    assert not [line for line in checked.stderr.splitlines() if str(folder) in line], checked.stderr


@pytest.mark.parametrize("value", ["a\nb", "a\r", "a\0", "a\\", " a", "a\t", None, True, ["a"]])
def test_values_that_a_unit_cannot_hold_are_refused(value: Any):
    with pytest.raises(QuotingError, match=WHAT):
        quoting.systemd_value(value, WHAT)


# Shells, logrotate, URLs, HTML, iptables.


@few
@given(BATCHES)
def test_a_shell_prints_words_as_they_were_given(texts: list[str]):
    for function in (quoting.shell_word, quoting.logrotate_word):
        made = taken(function, texts)
        printed = subprocess.run(["sh", "-c", "printf '%s\\0' " + " ".join(made.values())], capture_output=True, check=True).stdout
        assert printed.decode().split("\0")[:-1] == list(made)
        assert function is quoting.shell_word or not [word for word in made.values() if "\n" in word]


@many
@given(TEXTS)
def test_a_path_for_logrotate_means_itself(text: str):
    for path in taken(quoting.logrotate_path, ["/" + text]).values():
        assert shlex.split(f'"{path}"') == ["/" + text]
        assert not set(path) & set("\n*?[]{}#\\")


@many
@given(TEXTS, TEXTS, TEXTS)
def test_a_url_is_taken_apart_as_it_was_put_together(user: str, password: str, database: str):
    made = taken(quoting.url_component, [user, password, database])
    if len(made) < len({user, password, database}):
        assert "\0" in user + password + database
        return
    url = f"postgresql://{made[user]}:{made[password]}@{quoting.url_host('fd00::1', WHAT)}:5432/{made[database]}"
    assert "$" not in url
    parts = urllib.parse.urlsplit(url)
    assert (parts.hostname, parts.port) == ("fd00::1", 5432)
    assert [urllib.parse.unquote(part or "") for part in (parts.username, parts.password)] == [user, password]
    assert urllib.parse.unquote(parts.path) == "/" + database
    assert not parts.query + parts.fragment


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("redis", "redis"),
        ("10.0.0.5", "10.0.0.5"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("db.example.com", "db.example.com"),
        ("a_b", "a_b"),
    ],
)
def test_hosts_in_urls(host: str, written: str):
    assert quoting.url_host(host, WHAT) == written


@pytest.mark.parametrize("host", ["my host", "a/b", "a@b", "", "a:1", "-a", None, "fe80::1%eth0", "a\nb", "x" * 254])
def test_a_bad_host_is_refused(host: Any):
    with pytest.raises(QuotingError, match=WHAT):
        quoting.url_host(host, WHAT)


class Page(html.parser.HTMLParser):
    """Collects tags and text of a page."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[str] = []

    def handle_data(self, data: str) -> None:
        self.seen.append(data)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(f"{tag}{attrs}")


@many
@given(TEXTS)
def test_a_page_shows_text_as_it_was_given(text: str):
    for written in taken(quoting.html_text, [text]).values():
        page = Page(convert_charrefs=True)
        page.feed(f"<p>{written}</p>")
        page.close()
        assert page.seen[:1] == ["p[]"]
        assert "".join(page.seen[1:]) == text


@pytest.mark.parametrize("rule", ["-A X -s 10.0.0.5\nCOMMIT", "-A X -s `id`", "-A X  -j", "-A X -m comment --comment 'a'"])
def test_rules_of_the_firewall_are_words(rule: str):
    with pytest.raises(QuotingError, match=WHAT):
        quoting.iptables_rule(rule, WHAT)


# Values that are not strings, for all formats alike.


SECRET = "s3cr3t\n\0\ud800 that must not be shown"


@pytest.mark.parametrize("name", sorted(set(FORMS) - {"concrete_server_name"}))
def test_no_refusal_shows_the_value(name: str):
    """Server names are no secret, and are named, as a list may hold many."""
    for value in (SECRET, [SECRET], {"a": SECRET}):
        with pytest.raises(AnsibleFilterError) as caught:
            FilterModule().filters()[name](value, "vault_password")
        assert "vault_password" in str(caught.value)
        assert name == "server_names" or "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(FORMS) - {"concrete_server_name"}))
def test_null_is_refused_everywhere(name: str):
    with pytest.raises(AnsibleFilterError, match="some_input"):
        FilterModule().filters()[name](None, WHAT)


def test_all_problems_of_an_input_are_reported_at_once():
    problems = FilterModule().filters()["quoting_problems"]
    assert problems(["/a", "b", "~c"], WHAT, "nginx_location") == [f"{WHAT} must begin with a slash (/)"]
    found = problems({"X-A": None, "X B": "1", "X-C": "c"}, WHAT, "http_header_value", "http_header_name")
    assert len(found) == 2
    assert f"{WHAT}: X-A is null: give it a value, or remove it" in found
    assert problems("fine", WHAT, "nginx_word") == []


# Names of a site.


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Shop.Example", "shop.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        (".example.test", ".example.test"),
        ("www.example.*", "www.example.*"),
        ("~^(?<site>.+)\\.example$", "~^(?<site>.+)\\.example$"),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("_", "_"),
    ],
)
def test_server_names_are_written_as_the_dns_has_them(name: str, written: str):
    assert server_names.server_name(name, WHAT) == written


@pytest.mark.parametrize("name", ["localhost; return 200 pwned", "a b", "", "a/b", "a..b", "~a\nb", "-a", "a.*.b", None, 1, "ä" * 300])
def test_a_bad_server_name_is_refused(name: Any):
    with pytest.raises(QuotingError, match=WHAT):
        server_names.server_name(name, WHAT)


@pytest.mark.parametrize(
    ("names", "concrete"),
    [
        ([".example.test", "localhost"], "localhost"),
        ([".example.test"], "example.test"),
        (["*.example.test"], "www.example.test"),
        (["www.example.*"], "www.example.com"),
        (["~^shop", "_", "a.example"], "a.example"),
        (["~^shop"], "localhost"),
        (["bücher.example"], "xn--bcher-kva.example"),
        ([], "localhost"),
    ],
)
def test_a_concrete_name_can_be_asked_for(names: list[str], concrete: str):
    assert server_names.concrete_server_name(names) == concrete
