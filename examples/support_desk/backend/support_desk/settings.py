"""Settings from the environment; each one may also come from a file, as secrets do."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

NAMES = (
    "ENVIRONMENT",
    "DEBUG",
    "DATABASE_URL",
    "REDIS_URL",
    "CHROMA_URL",
    "CORS_ORIGINS",
    "SECRET_KEY",
    "SECRET_KEY_ACCEPTED",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_MODEL",
    "LOG_LEVEL",
    "APP_VERSION",
    "INSTANCE",
)
ENVIRONMENTS = ("development", "test", "staging", "production")
# Where other people's data is: no default may replace a secret there.
GUARDED = ("staging", "production")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SECRET_KEY_MINIMUM = 32
# What people leave in a copied example file.
PLACEHOLDERS = ("change_me", "changeme", "change-me", "placeholder", "your-secret", "your_secret", "insecure")
DEVELOPMENT_DATABASE = "sqlite+aiosqlite:///support_desk.db"
DEVELOPMENT_SECRET_KEY = "insecure-development-key-never-used-in-production"  # noqa: S105 - refused in production


class SettingsError(Exception):
    """The environment cannot be used; the text says what to set, one problem a line."""


@dataclass(frozen=True)
class Settings:
    """What the application was configured with; secrets are left out of its text form."""

    environment: str
    debug: bool
    database_url: URL = field(repr=False)
    redis_url: str | None = field(repr=False)
    chroma_url: str | None = field(repr=False)
    cors_origins: tuple[str, ...]
    secret_key: str = field(repr=False)
    secret_key_accepted: str | None = field(repr=False)
    openai_api_key: str | None = field(repr=False)
    openai_base_url: str
    openai_model: str
    log_level: str
    app_version: str
    instance: str


def _values(environ: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name in NAMES:
        value, path = environ.get(name, "").strip(), environ.get(f"{name}_FILE", "").strip()
        if value and path:
            problems.append(f"{name} and {name}_FILE are both set: set one of them")
        if not value and path:
            try:
                value = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
                problems.append(f"{name}_FILE: cannot read {path}: {reason}")
                continue
            if not value:
                problems.append(f"{name}_FILE: {path} is empty")
        if value:
            values[name] = value
    return values


def _is_placeholder(value: str) -> bool:
    lowered = value.lower()
    return any(word in lowered for word in PLACEHOLDERS)


def _boolean(name: str, value: str, problems: list[str]) -> bool:
    lowered = value.lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered not in {"0", "false", "no", "off"}:
        problems.append(f"{name} must be true or false, not {value!r}")
    return False


def database_url(text: str) -> URL:
    """Return the URL with a driver that speaks asyncio.

    Raises:
        SettingsError: the text is not a URL, or names a database that is not supported. The text is not shown, as it
            holds a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise SettingsError("DATABASE_URL is not a URL like postgresql+psycopg://user:password@host:5432/db") from error
    kind = url.get_backend_name()
    if kind in {"postgresql", "postgres"}:
        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite":
        return url.set(drivername="sqlite+aiosqlite")
    raise SettingsError(f"DATABASE_URL names {kind!r}: postgresql and sqlite are supported")


def _check_production(values: Mapping[str, str], problems: list[str]) -> None:
    secret = values.get("SECRET_KEY", "")
    if not secret:
        problems.append("SECRET_KEY is missing: set SECRET_KEY or SECRET_KEY_FILE to a random value")
    elif _is_placeholder(secret) or len(set(secret)) < 8:
        problems.append("SECRET_KEY is a placeholder: set a random value")
    elif len(secret) < SECRET_KEY_MINIMUM:
        problems.append(f"SECRET_KEY is too short: {len(secret)} characters, at least {SECRET_KEY_MINIMUM} are needed")
    url = values.get("DATABASE_URL", "")
    if not url:
        problems.append("DATABASE_URL is missing: set DATABASE_URL or DATABASE_URL_FILE")
    elif _is_placeholder(url):
        problems.append("DATABASE_URL holds a placeholder: set the real address and password")
    elif url.startswith("sqlite"):
        problems.append("DATABASE_URL names SQLite, which several app instances cannot share: use PostgreSQL")


def load_settings(environ: Mapping[str, str] | None = None, *, needs_secret_key: bool = True) -> Settings:
    """Read and check the settings.

    Args:
        environ: The variables to read, by default those of the process.
        needs_secret_key: False for a command that signs nothing, such as the migration.

    Raises:
        SettingsError: with every problem found, so that one start shows them all.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    values = _values(environ, problems)
    environment = values.get("ENVIRONMENT", "development").lower()
    if environment not in ENVIRONMENTS:
        problems.append(f"ENVIRONMENT must be one of {', '.join(ENVIRONMENTS)}, not {environment!r}")
    log_level = values.get("LOG_LEVEL", "INFO").upper()
    if log_level not in LOG_LEVELS:
        problems.append(f"LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}, not {log_level!r}")
    debug = _boolean("DEBUG", values.get("DEBUG", "false"), problems)
    if environment in GUARDED:
        unread = [problem.partition("_FILE:")[0] for problem in problems]
        checked: list[str] = []
        _check_production(values, checked)
        for problem in checked:
            name = problem.split(" ", 1)[0]
            if name not in unread and (needs_secret_key or name != "SECRET_KEY"):
                problems.append(problem)
        if debug:
            problems.append(f"DEBUG must be false in {environment}")
    url = make_url(DEVELOPMENT_DATABASE)
    try:
        url = database_url(values.get("DATABASE_URL", DEVELOPMENT_DATABASE))
    except SettingsError as error:
        problems.append(str(error))
    for name, schemes in (("REDIS_URL", ("redis", "rediss", "unix")), ("CHROMA_URL", ("http", "https"))):
        if name in values and values[name].partition("://")[0] not in schemes:
            problems.append(f"{name} must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if problems:
        raise SettingsError("\n".join(problems))
    return Settings(
        environment=environment,
        debug=debug,
        database_url=url,
        redis_url=values.get("REDIS_URL"),
        chroma_url=values.get("CHROMA_URL"),
        cors_origins=tuple(part.strip().rstrip("/") for part in values.get("CORS_ORIGINS", "").split(",") if part.strip()),
        secret_key=values.get("SECRET_KEY", DEVELOPMENT_SECRET_KEY),
        secret_key_accepted=values.get("SECRET_KEY_ACCEPTED"),
        openai_api_key=values.get("OPENAI_API_KEY"),
        openai_base_url=values.get("OPENAI_BASE_URL", "https://api.openai.com/v1").rstrip("/"),
        openai_model=values.get("OPENAI_MODEL", "gpt-4o-mini"),
        log_level=log_level,
        app_version=values.get("APP_VERSION", "dev"),
        instance=values.get("INSTANCE", socket.gethostname()),
    )
