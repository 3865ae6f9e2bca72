"""Pictures that people upload: the site, the worker that measures them, and the nightly clean-up.

All settings are environment variables. `gunicorn gallery:app` is the site; `python gallery.py migrate|worker|clean-up` is the rest.
"""

import hashlib
import hmac
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import redis
from flask import Flask, Response, abort, jsonify, request, send_file

UPLOADS = Path(os.environ.get("UPLOADS", "uploads"))
QUEUE, AT_WORK = "gallery:to-measure", "gallery:at-work"

app = Flask(__name__)
queue = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost"), decode_responses=True)


def database() -> psycopg.Connection:
    """Return a connection to the database."""
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)


@app.get("/healthz")
def health() -> Response:
    """Answer while the process works."""
    return jsonify(release=os.environ.get("RELEASE"))


@app.get("/readyz")
def ready() -> str:
    """Answer while both stores do."""
    queue.ping()
    with database() as connection:
        connection.execute("SELECT FROM pictures LIMIT 1")
    return "ready"


@app.get("/")
def page() -> str:
    """Show all pictures."""
    with database() as connection:
        pictures = connection.execute("SELECT id, name FROM pictures ORDER BY id").fetchall()
    items = "".join(f"<li data-id={number}>{name}</li>" for number, name in pictures)
    return f"<!doctype html><title>Gallery</title><h1>Gallery of {request.host}</h1><ul>{items}</ul>"


@app.post("/upload")
def upload() -> tuple[Response, int]:
    """Keep a picture; the worker measures it later."""
    sent = request.files["picture"]
    stored = uuid.uuid4().hex
    UPLOADS.mkdir(exist_ok=True)
    sent.save(UPLOADS / f"{stored}.new")
    (UPLOADS / f"{stored}.new").rename(UPLOADS / stored)
    with database() as connection:
        row = connection.execute("INSERT INTO pictures (name, stored) VALUES (%s, %s) RETURNING id", (sent.filename, stored)).fetchone()
    queue.rpush(QUEUE, row[0])
    return jsonify(id=row[0]), 201


@app.get("/pictures/<int:number>")
def picture(number: int) -> Response:
    """Return a picture as it was uploaded."""
    with database() as connection:
        row = connection.execute("SELECT name, stored FROM pictures WHERE id = %s", (number,)).fetchone()
    if row is None:
        abort(404)
    return send_file(UPLOADS / row[1], download_name=row[0])


@app.get("/progress")
def progress() -> Response:
    """Stream how many pictures wait to be measured, a line each half second."""

    def lines() -> Iterator[str]:
        for _ in range(6):
            yield f"{queue.llen(QUEUE) + queue.llen(AT_WORK)}\n"
            time.sleep(0.5)

    return Response(lines(), mimetype="text/plain")


@app.get("/admin/")
def admin() -> Response | tuple[str, int, dict[str, str]]:
    """List all pictures with their digests, for those who know the password."""
    login = request.authorization
    if not login or not hmac.compare_digest(login.password or "", os.environ["ADMIN_PASSWORD"]):
        return "log in", 401, {"WWW-Authenticate": "Basic"}
    with database() as connection:
        rows = connection.execute("SELECT id, digest, measured_by, attempts FROM pictures ORDER BY id").fetchall()
    return jsonify([dict(zip(("id", "digest", "measured_by", "attempts"), row, strict=True)) for row in rows])


def migrate() -> None:
    """Create the table."""
    with database() as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS pictures"
            " (id bigserial PRIMARY KEY, name text NOT NULL, stored text NOT NULL, digest text, measured_by text)"
        )
        connection.execute("ALTER TABLE pictures ADD COLUMN IF NOT EXISTS attempts int NOT NULL DEFAULT 0")


def worker() -> None:
    """Measure pictures one after the other; it must be the only one.

    On SIGTERM it finishes the picture that it is at. A picture that a killed worker was at is measured again.
    """
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    while queue.lmove(AT_WORK, QUEUE, "LEFT", "LEFT"):
        pass
    while not stopping.is_set():
        if number := queue.blmove(QUEUE, AT_WORK, 1):
            measure(int(number))
            queue.lrem(AT_WORK, 1, number)


def measure(number: int) -> None:
    """Note the digest of a picture, and that there was an attempt."""
    with database() as connection:
        row = connection.execute("UPDATE pictures SET attempts = attempts + 1 WHERE id = %s RETURNING stored", (number,)).fetchone()
        time.sleep(float(os.environ.get("SECONDS_PER_PICTURE", "0")))
        with (UPLOADS / row[0]).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        connection.execute("UPDATE pictures SET digest = %s, measured_by = %s WHERE id = %s", (digest, os.environ.get("RELEASE"), number))


def clean_up() -> None:
    """Remove files that no picture names, such as those of uploads that broke off an hour ago and more."""
    with database() as connection:
        kept = {stored for (stored,) in connection.execute("SELECT stored FROM pictures")}
    removed = [file for file in UPLOADS.iterdir() if file.name not in kept and file.stat().st_mtime < time.time() - 3600]
    for file in removed:
        file.unlink()
    print(f"removed {len(removed)} files")


if __name__ == "__main__":
    {"migrate": migrate, "worker": worker, "clean-up": clean_up}[sys.argv[1]]()
