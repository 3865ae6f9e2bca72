# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the stores of a point in a sandbox, and looks at what is in them."""

from __future__ import annotations

import time
import typing as t

from slipway_host import decide
from slipway_host.sandbox import JSON, HostError, PointError, Sandbox, answer, docker

#: Where the image keeps its data; a volume mounted elsewhere would leave an unnamed one behind.
POSTGRES_DATA = "/var/lib/postgresql/data"
CHROMA_PORT = 8000
START_SECONDS = 180
#: WAL of a busy week takes a while.
RECOVERY_SECONDS = 6 * 3600
SAVE_SECONDS = 3600
SUPERUSER = "postgres"
#: Exit code of pg_isready that made no attempt.
NOT_ASKED = 3
#: What Barman writes for the recovery alone; the server would keep it.
RECOVERY_SETTINGS = (
    "restore_command",
    "recovery_end_command",
    "archive_cleanup_command",
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_inclusive",
    "recovery_target_action",
    "recovery_target_timeline",
)


def wait_for(sandbox: Sandbox, container: str, ready: t.Callable[[], bool], seconds: float) -> None:
    """Wait until a store answers.

    Raises:
        HostError: it lacked memory or disk space.
        PointError: it ended otherwise, or took too long; with its last log lines.
    """
    deadline = time.monotonic() + seconds
    trouble = ""
    while not ready():
        if not sandbox.running(container):
            trouble = "does not start"
        elif time.monotonic() > deadline:
            trouble = f"is not ready after {seconds:.0f} s"
        if trouble:
            sandbox.refuse_shortage(container)
            raise PointError(f"{container.removeprefix(sandbox.prefix + '-')} {trouble}: {sandbox.logs(container)}")
        time.sleep(0.3)


def stop(container: str) -> None:
    """End a container as its service wants it, so that its data is whole."""
    docker("stop", container, what=f"stop {container}")
    done = docker("inspect", "--format", "{{.State.ExitCode}}", container, what="look at a container")
    if done.stdout.strip() not in {"0", "143"}:
        raise HostError(f"{container} ended with {done.stdout.strip()}")
    docker("rm", "--volumes", container, what=f"remove {container}")


class Postgres:
    """A throw-away PostgreSQL."""

    def __init__(self, sandbox: Sandbox, volume: str, image: str) -> None:
        """Take where the data goes and which image serves it; nothing is started yet."""
        self.sandbox, self.volume, self.image = sandbox, volume, image
        self.container = f"{sandbox.prefix}-postgres"

    def extract(self, point: str, target_time: str) -> JSON:
        """Put the data together; return ``target`` in words, and ``newest_wal`` for all that has arrived."""
        self.sandbox.volume(self.volume, "postgres")
        target = ["--target-time", target_time] if target_time else []
        # At the path that the server sees it at: the recovery's commands name it.
        done = self.sandbox.tools(
            "extract",
            "postgres",
            point,
            POSTGRES_DATA,
            *target,
            volumes={self.volume: POSTGRES_DATA},
            what=f"put PostgreSQL of {point} together",
        )
        return dict(answer(done.stdout))

    def start(self, durable: bool) -> None:
        """Start the server, and wait until it has replayed its WAL up to the target.

        Args:
            durable: whether the data is kept afterwards.
        """
        settings = {
            "config_file": "/tmp/postgresql.conf",  # noqa: S108 - a place of the container alone
            "data_directory": POSTGRES_DATA,
            "hba_file": "/tmp/pg_hba.conf",  # noqa: S108 - as above
            "unix_socket_directories": "/tmp",  # noqa: S108 - as above
            "listen_addresses": "",
            # Else the server wants the limits that the original had.
            "hot_standby": "off",
            "fsync": "on" if durable else "off",
            "shared_buffers": "128MB",
            "max_wal_size": "1GB",
            "timezone": "UTC",
        }
        arguments = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        script = f"cd /tmp && touch postgresql.conf pg_ident.conf && echo 'local all all trust' > pg_hba.conf && exec postgres {arguments}"
        self.sandbox.start(
            "postgres", self.image, ["-c", script], entrypoint="sh", volumes={self.volume: POSTGRES_DATA}, stop_signal="SIGINT"
        )
        wait_for(self.sandbox, self.container, self.answers, RECOVERY_SECONDS)

    def answers(self) -> bool:
        """Return whether the server accepts commands, which it does after recovery.

        Raises:
            HostError: it cannot be asked.
        """
        # Named, as our number has no name in the image.
        command = ["pg_isready", "-q", "-h", "/tmp", "-U", SUPERUSER]  # noqa: S108 - as above
        code = docker("exec", self.container, *command, what="ask PostgreSQL", codes=range(256)).returncode
        if code == NOT_ASKED:
            raise HostError("the readiness of PostgreSQL cannot be checked")
        return code == 0

    def sql(self, database: str, query: str, fatal: bool = True) -> str:
        """Return what a query prints.

        Raises:
            HostError: the server lacked memory or disk space.
            PointError: it refuses the query.
        """
        stop_on_error = ["--set=ON_ERROR_STOP=1"] if fatal else []
        command = ["psql", "--no-psqlrc", "-qAt", *stop_on_error, "-h", "/tmp", "-U", SUPERUSER, "-d", database, "-f", "-"]  # noqa: S108
        done = docker("exec", "--interactive", self.container, *command, what="ask PostgreSQL", given=query, codes=range(256))
        # A query that may fail does so with 0, if the server is still there.
        if done.returncode or done.stderr.strip():
            self.sandbox.refuse_shortage(self.container, done.stderr)
        if done.returncode and fatal:
            raise PointError(f"PostgreSQL refused: {done.stderr.strip()}")
        return done.stdout.strip()

    def last_write(self) -> str:
        """Return when the last transaction was committed that was replayed, in UTC; empty where none was."""
        return self.sql(
            "postgres",
            "select coalesce(to_char(pg_last_xact_replay_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), '')",
        )

    def reached(self) -> str:
        """Return the segment in which the server's recovery has ended, as the history of its new timeline says."""
        # Its last line: the timeline before, where it ended, why.
        return self.sql(
            "postgres",
            "with history (content) as (select pg_read_file('pg_wal/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '.history')) "
            "select pg_walfile_name(substring(content from E'.*\\t([0-9A-F]+/[0-9A-F]+)\\t')::pg_lsn) from history",
        )

    def amcheck(self) -> str:
        """Check all tables and indexes; return what is wrong.

        Raises:
            HostError: the server lacked memory or disk space.
        """
        command = ["pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--jobs=2", "-h", "/tmp", "-U", SUPERUSER]  # noqa: S108
        done = docker("exec", self.container, *command, what="check all tables and indexes", codes=range(256))
        if done.returncode == 0:
            return ""
        self.sandbox.refuse_shortage(self.container, done.stdout + done.stderr)
        return (done.stdout.strip() or done.stderr.strip())[:1000]

    def settle(self) -> None:
        """Forget what was for the recovery alone, and stop."""
        self.sql("postgres", "".join(f"alter system reset {name};\n" for name in RECOVERY_SETTINGS))
        stop(self.container)


class Redis:
    """A throw-away Redis."""

    def __init__(self, sandbox: Sandbox, volume: str, image: str) -> None:
        """Take where the data goes and which image serves it; nothing is started yet."""
        self.sandbox, self.volume, self.image = sandbox, volume, image
        self.container = f"{sandbox.prefix}-redis"

    def extract(self, point: str) -> None:
        """Copy the data."""
        self.sandbox.volume(self.volume, "redis")
        self.sandbox.tools("extract", "redis", point, "/target", volumes={self.volume: "/target"}, what=f"copy Redis of {point}")

    def start(self, memory_mb: int) -> None:
        """Start the server, and wait until it has read its file."""
        command = ["--dir", "/data", "--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", "6379"]
        # In the form that the role's Redis keeps.
        command += ["--appenddirname", "appendonlydir", "--aof-use-rdb-preamble", "yes"]
        self.sandbox.start("redis", self.image, command, entrypoint="redis-server", volumes={self.volume: "/data"}, memory_mb=memory_mb)
        wait_for(self.sandbox, self.container, lambda: self.ask("PING", codes=range(256)) == "PONG", START_SECONDS)

    def ask(self, *arguments: str, codes: t.Container[int] = (0,)) -> str:
        """Return the reply to a command."""
        return docker("exec", self.container, "redis-cli", "-e", *arguments, what="ask Redis", codes=codes).stdout.strip()

    def settle(self) -> None:
        """Turn the file into the append-only file that the role's Redis reads, and stop."""
        self.ask("CONFIG", "SET", "appendonly", "yes")
        deadline = time.monotonic() + SAVE_SECONDS
        while True:
            info = self.ask("INFO", "persistence")
            if "aof_rewrite_in_progress:0" in info and "aof_rewrite_scheduled:0" in info and "aof_last_bgrewrite_status:ok" in info:
                break
            if "aof_last_bgrewrite_status:err" in info or time.monotonic() > deadline:
                raise HostError(f"Redis cannot rewrite its data: {self.sandbox.logs(self.container)}")
            time.sleep(0.2)
        docker("exec", self.container, "rm", "-f", "/data/dump.rdb", "/data/users.acl", what="remove what is not read")
        stop(self.container)


class Chroma:
    """A throw-away Chroma."""

    def __init__(self, sandbox: Sandbox, volume: str, image: str) -> None:
        """Take where the data goes and which image serves it; nothing is started yet."""
        self.sandbox, self.volume, self.image = sandbox, volume, image
        self.container = f"{sandbox.prefix}-chroma"

    def start(self, memory_mb: int) -> None:
        """Start an empty server."""
        self.sandbox.volume(self.volume, "chroma")
        command = ["run", "--host", "0.0.0.0", "--port", str(CHROMA_PORT), "--path", "/data"]  # noqa: S104 - inside an isolated network
        self.sandbox.start("chroma", self.image, command, entrypoint="chroma", volumes={self.volume: "/data"}, memory_mb=memory_mb)
        wait_for(self.sandbox, self.container, self.answers, START_SECONDS)

    def answers(self) -> bool:
        """Return whether the server accepts requests; checked from another container, as its own may lack Python."""
        look = f"import urllib.request as r; r.urlopen('http://chroma:{CHROMA_PORT}/api/v2/heartbeat', timeout=5)"
        done = self.sandbox.run_once(
            "chroma-ready", self.sandbox.tools_image(), ["-c", look], volumes={}, what="ask Chroma", codes=range(256),
            extra=["--entrypoint", "python3", "--network", self.sandbox.prefix],
        )  # fmt: skip
        return done.returncode == 0

    def load(self, point: str) -> JSON:
        """Write a point's collections into it; return the records by collection.

        Raises:
            HostError: the server lacked memory or disk space.
            PointError: the point does not hold what its manifest says.
        """
        try:
            done = self.sandbox.tools(
                "load-chroma", point, f"http://chroma:{CHROMA_PORT}", network=self.sandbox.prefix, what=f"load Chroma of {point}"
            )
        except PointError as error:
            self.sandbox.refuse_shortage(self.container, str(error))
            raise
        return t.cast("JSON", answer(done.stdout))

    def settle(self) -> None:
        """Stop it."""
        stop(self.container)


class Volume:
    """A throw-away copy of a volume of the product."""

    #: What it takes to give files to the users that they belong to.
    RIGHTS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")

    def __init__(self, sandbox: Sandbox, volume: str, name: str) -> None:
        """Take where the data goes, and the data set as host/volume; nothing is made yet."""
        self.sandbox, self.volume, self.name = sandbox, volume, name

    def extract(self, point: str) -> None:
        """Copy the data, and compare it with the list of the point.

        Raises:
            PointError: it differs.
        """
        docker("volume", "create", *self.sandbox.labels("volume"), self.volume, what=f"create the volume {self.volume}")
        self.sandbox.tools(
            "extract", f"volumes/{self.name}", point, "/target", volumes={self.volume: "/target"}, rights=self.RIGHTS,
            what=f"copy the volume {self.name} of {point}",
        )  # fmt: skip


def image_major(sandbox: Sandbox, image: str) -> int:
    """Return the major version of an image's PostgreSQL."""
    done = sandbox.run_once(
        "version", image, ["--version"], volumes={}, extra=["--entrypoint", "postgres", "--user", sandbox.user, "--network", "none"],
        what=f"look which PostgreSQL {image} has",
    )  # fmt: skip
    return decide.major_of(done.stdout)
