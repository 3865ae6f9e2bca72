from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SECRET_KEY
from support_desk.settings import SettingsError, load_settings

BACKEND = Path(__file__).parents[1]
GOOD = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": SECRET_KEY,
    "DATABASE_URL": "postgresql://app:pw-of-the-app@db:5432/desk",
}


def test_a_laptop_needs_no_settings() -> None:
    settings = load_settings({})
    assert settings.database_url.drivername == "sqlite+aiosqlite"
    assert settings.redis_url is None


def test_good_production_settings_are_taken() -> None:
    settings = load_settings(GOOD | {"CORS_ORIGINS": "https://a.example/, https://b.example"})
    assert settings.database_url.drivername == "postgresql+psycopg"
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert "pw-of-the-app" not in repr(settings)
    assert SECRET_KEY not in repr(settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY is missing"),
        ({"SECRET_KEY": "CHANGE_ME_TO_SOMETHING_RANDOM_AND_LONG"}, "SECRET_KEY is a placeholder"),
        ({"SECRET_KEY": "x" * 64}, "SECRET_KEY is a placeholder"),
        ({"SECRET_KEY": "s3cretly-short"}, "SECRET_KEY is too short"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is missing"),
        ({"DATABASE_URL": "postgresql://app:CHANGE_ME@db/desk"}, "DATABASE_URL holds a placeholder"),
        ({"DATABASE_URL": "sqlite:///desk.db"}, "DATABASE_URL names SQLite"),
        ({"DATABASE_URL": "mysql://app:pw@db/desk"}, "DATABASE_URL names 'mysql'"),
        ({"DATABASE_URL": "not a url"}, "DATABASE_URL is not a URL"),
        ({"DEBUG": "true"}, "DEBUG must be false"),
        ({"DEBUG": "perhaps"}, "DEBUG must be true or false, not 'perhaps'"),
        ({"ENVIRONMENT": "prod"}, "ENVIRONMENT must be one of"),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL must be one of"),
        ({"REDIS_URL": "cache:6379"}, "REDIS_URL must begin with"),
        ({"CHROMA_URL": "chroma:8000"}, "CHROMA_URL must begin with"),
        ({"SECRET_KEY_FILE": "/run/secrets/other"}, "SECRET_KEY and SECRET_KEY_FILE are both set"),
        ({"SECRET_KEY": "", "SECRET_KEY_FILE": "/missing/key"}, "SECRET_KEY_FILE: cannot read /missing/key"),
    ],
)
def test_bad_settings_are_refused_by_name(change: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(GOOD | change)
    lines = [line for line in str(caught.value).split("\n") if said in line]
    assert len(lines) == 1, caught.value
    assert "pw-of-the-app" not in str(caught.value)


def test_every_setting_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET_KEY + "\n")
    (tmp_path / "url").write_text(GOOD["DATABASE_URL"] + "\n")
    settings = load_settings({"ENVIRONMENT": "production", "SECRET_KEY_FILE": f"{tmp_path}/key", "DATABASE_URL_FILE": f"{tmp_path}/url"})
    assert settings.secret_key == SECRET_KEY
    assert settings.database_url.password == "pw-of-the-app"


def test_an_empty_secret_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")
    with pytest.raises(SettingsError, match="key is empty"):
        load_settings(GOOD | {"SECRET_KEY": "", "SECRET_KEY_FILE": f"{tmp_path}/key"})


@pytest.mark.parametrize(
    "command", [["uvicorn", "--factory", "support_desk.app:create_app"], ["support_desk.migrate"]], ids=["app", "migrate"]
)
def test_the_process_refuses_to_start_with_one_message(command: list[str]) -> None:
    environ = {"PATH": os.environ["PATH"], "ENVIRONMENT": "production", "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-m", *command], cwd=BACKEND, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 78
    assert "DATABASE_URL is missing" in run.stderr
    assert "Traceback" not in run.stderr
