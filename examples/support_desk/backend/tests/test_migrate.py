from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from conftest import free_port, migrate
from support_desk.models import Base

BACKEND = Path(__file__).parents[1]


def command(url: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "support_desk.migrate", *arguments],
        cwd=BACKEND,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url, "PYTHONDONTWRITEBYTECODE": "1", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def engine(url: str):
    return create_engine(make_url(url).set(drivername="postgresql+psycopg" if "postgres" in url else "sqlite"))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("sqlite_url") if request.param == "sqlite" else request.getfixturevalue("postgres")["owner"]


def test_the_tables_are_those_of_the_models(url: str) -> None:
    assert migrate(url) == migrate(url) == "0003"
    with engine(url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_a_newer_database_is_left_alone(url: str) -> None:
    migrate(url)
    with engine(url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert migrate(url) == "9999"


def test_two_migrations_at_once_wait_for_each_other(postgres: dict[str, str]) -> None:
    runs = [command(postgres["owner"]) for _ in range(3)]
    for run in runs:
        out, err = run.communicate(timeout=60)
        assert run.returncode == 0, err
        assert "at revision 0003" in out
    assert {"sessions", "messages", "memories"} <= set(inspect(engine(postgres["owner"])).get_table_names())


def test_the_application_user_can_write_and_cannot_change_tables(postgres: dict[str, str]) -> None:
    migrate(postgres["owner"])
    with engine(postgres["app"]).connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM sessions")).scalar() == 0
        with pytest.raises(ProgrammingError, match="must be owner"):
            connection.execute(text("ALTER TABLE sessions ADD COLUMN stolen int"))


def test_a_production_migration_needs_no_secret_key(postgres: dict[str, str]) -> None:
    run = command(postgres["owner"], ENVIRONMENT="production")
    assert run.communicate(timeout=60)[1] == ""
    assert run.returncode == 0


@pytest.mark.parametrize("store", ["database", "knowledge base"])
def test_a_store_that_stays_away_fails_with_its_name(store: str, sqlite_url: str) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    run = (
        command(f"postgresql://owner:secret-word@{nowhere}/desk", "--wait", "5")
        if store == "database"
        else command(sqlite_url, "--wait", "5", CHROMA_URL=f"http://{nowhere}")
    )
    out, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert f"{store} does not answer yet" in out
    assert f"cannot migrate: {store}: " in err
    assert "secret-word" not in out + err
    assert "Traceback" not in err
