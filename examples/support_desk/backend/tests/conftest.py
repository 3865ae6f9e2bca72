"""Stores for the tests: real servers where the machine has their programs, else what a laptop would use."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from fakeredis import TcpFakeServer
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from support_desk.app import create_app
from support_desk.database import Database
from support_desk.settings import load_settings

SECRET_KEY = "a-test-key-of-a-good-length-0123456789"
REDIS_PASSWORD = "redis-test-password"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def answers_on(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


class RedisServer:
    """A Redis that tests may stop and start again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--requirepass", REDIS_PASSWORD, "--save", "", "--dir", "."],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
        )
        until(lambda: answers_on(self.port))

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("redis-server"):
        server = RedisServer(tmp_path_factory.mktemp("redis"))
        server.start()
        yield server.url
        server.stop()
        return
    fake = TcpFakeServer(("127.0.0.1", free_port()), server_type="redis")
    threading.Thread(target=fake.serve_forever, daemon=True).start()
    yield f"redis://127.0.0.1:{fake.server_address[1]}/0"
    fake.shutdown()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    if not shutil.which("redis-server"):
        pytest.skip("needs redis-server, to stop it")
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


def _postgres_programs() -> Path | None:
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    found = shutil.which("initdb")
    return Path(found).parent if found else None


@pytest.fixture(scope="session")
def postgres_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("needs PostgreSQL's programs")
    # PostgreSQL does not run as root.
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/support-desk-pg.XXXXXX"], text=True, **user).strip())
    port = free_port()
    try:
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-N"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **user,
        )
        server = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder, "-F"],
            cwd=folder,
            stderr=subprocess.DEVNULL,
            **user,
        )
        until(lambda: answers_on(port))
        yield port
        # SIGINT: do not wait for connections that a test left open.
        server.send_signal(2)
        server.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_port: int) -> Iterator[dict[str, str]]:
    """A database with an owner, and an application user that owns nothing."""
    admin = create_engine(f"postgresql+psycopg://postgres@127.0.0.1:{postgres_port}/postgres", isolation_level="AUTOCOMMIT")
    name = f"desk_{time.monotonic_ns()}"
    with admin.connect() as connection:
        for role in ("desk_owner", "desk_app"):
            if not connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": role}).scalar():
                connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(text(f"CREATE DATABASE {name} OWNER desk_owner"))
    url = f"postgresql://desk_owner@127.0.0.1:{postgres_port}/{name}"
    owner = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with owner.begin() as connection:
        connection.execute(text("ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO desk_app"))
    owner.dispose()
    yield {"owner": url, "app": url.replace("desk_owner", "desk_app")}
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/desk.db"


def migrate(url: str) -> str:
    """Upgrade a database as the release does, without a knowledge base."""

    async def run() -> str:
        database = Database(load_settings({"DATABASE_URL": url}).database_url)
        try:
            async with database.migration_lock() as connection:
                return await database.upgrade(connection)
        finally:
            await database.close()

    return asyncio.run(run())


@pytest.fixture
def start() -> Iterator[Callable[..., TestClient]]:
    """Start app instances; each runs in its own thread and event loop, as on its own host."""
    with ExitStack() as stack:

        def run(**environ: str) -> TestClient:
            environ = {"ENVIRONMENT": "development", "SECRET_KEY": SECRET_KEY, **environ}
            return stack.enter_context(TestClient(create_app(load_settings(environ))))

        yield run
