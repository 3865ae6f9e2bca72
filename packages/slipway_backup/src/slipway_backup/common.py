# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all parts of the program share: the configuration, folders, locks, and how other programs are run."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import typing as t
from datetime import datetime, timezone
from pathlib import Path

from slipway_backup import pace

CONFIG = Path(__file__).resolve().parents[1] / "backup.json"
SECRETS = Path("/run/secrets")
NAME_FORMAT = "%Y%m%dT%H%M%SZ"
PARTIAL = ".partial-"
#: Names of temporary files, which distinguish leftovers of a killed run from data.
SCRATCH = ".slipway-"
OUTPUT_LINES = 12

JSON = dict[str, t.Any]


class StepError(Exception):
    """A step failed; the message says which, why, and what to do where that is known."""


class BusyError(StepError):
    """Another run holds the lock."""


def say(text: str) -> None:
    """Print what is being done on stderr, for the journal and the operator."""
    print(text, file=sys.stderr, flush=True)


def now() -> datetime:
    """Return this moment in UTC."""
    return datetime.now(timezone.utc)


def stamp(moment: datetime) -> str:
    """Return a moment as RFC 3339 in UTC, to the millisecond."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_stamp(text: str) -> datetime:
    """Return the moment that stamp() wrote."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def point_name(moment: datetime) -> str:
    """Return the name of the point that a run begun at this moment makes."""
    return moment.astimezone(timezone.utc).strftime(NAME_FORMAT)


@dataclasses.dataclass(frozen=True)
class Config:
    """What the role rendered, and where things are."""

    stack: str
    data: Path
    postgres: JSON
    redis: JSON
    chroma: JSON
    volumes: list[JSON]
    offsite: JSON
    retention: dict[str, int]
    minimum_free_percent: float
    maximum_age_hours: float
    maximum_verified_age_hours: float
    settings: JSON
    secrets: Path = SECRETS

    @property
    def points(self) -> Path:
        """Folder of the recovery points."""
        return self.data / "points"

    @property
    def barman(self) -> Path:
        """Barman's home."""
        return self.data / "barman"

    @property
    def state(self) -> Path:
        """Folder of what the program remembers from run to run."""
        return self.data / "state"

    def secret(self, name: str) -> str:
        """Return the text of a secret file.

        Raises:
            StepError: there is none.
        """
        try:
            return (self.secrets / name).read_text().strip("\n")
        except OSError as error:
            raise StepError(f"secret {name} cannot be read: {error.strerror}") from error


def load_config(path: Path = CONFIG, data: str = "") -> Config:
    """Read the configuration.

    Args:
        path: the file that the role rendered.
        data: folder of the data, where it is not the one of the file.

    Raises:
        StepError: it is missing or no JSON.
    """
    try:
        raw = json.loads(path.read_text())
        return Config(
            stack=raw["stack"],
            data=Path(data or raw["data"]),
            postgres=raw["postgres"],
            redis=raw["redis"],
            chroma=raw["chroma"],
            volumes=raw["volumes"],
            offsite=raw["offsite"],
            retention={name: int(raw["retention"].get(name, 0)) for name in ("days", "weeks", "months")},
            minimum_free_percent=float(raw["minimum_free_percent"]),
            maximum_age_hours=float(raw["maximum_age_hours"]),
            maximum_verified_age_hours=float(raw["maximum_verified_age_hours"]),
            settings=raw["settings"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise StepError(f"the configuration {path} is invalid: {error!r}") from error


def tail(text: str, lines: int = OUTPUT_LINES) -> str:
    """Return the last lines of an output that say anything."""
    return "\n".join([line for line in text.strip().splitlines() if line.strip()][-lines:])


def execute(
    command: t.Sequence[str],
    what: str,
    env: dict[str, str] | None = None,
    timeout: float | None = None,
    codes: t.Container[int] = (0,),
    rate: float = 0,
) -> subprocess.CompletedProcess[str]:
    """Run another program to its end.

    Args:
        command: the program and its arguments.
        what: what it does, as the start of an error message.
        env: variables in addition to those of this process.
        timeout: seconds, after which it is killed.
        codes: exit codes that are no failure.
        rate: bytes a second that it may read at most; 0 for no limit.

    Raises:
        StepError: it could not be started, took too long, or failed; with the last lines that it wrote.
    """
    try:
        process = subprocess.Popen(
            list(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", env={**os.environ, **(env or {})},
            # Stopped when we are killed, it would hold what it has locked for ever. A run has no other threads at that moment.
            preexec_fn=pace.die_with_parent if rate else None,  # noqa: PLW1509
        )  # fmt: skip
        with process:
            try:
                with pace.limited(process.pid, rate):
                    written, told = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(process.args, process.returncode, written, told)
    except subprocess.TimeoutExpired as error:
        # Bytes, whatever was asked for.
        said = tail(error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else error.stderr or "", 2)
        raise StepError(f"{what}: {command[0]} was stopped after {timeout:g} s{': ' if said else ''}{said}") from error
    except OSError as error:
        raise StepError(f"{what}: {command[0]}: {error.strerror}") from error
    if done.returncode not in codes:
        raise StepError(f"{what}: {command[0]} ended with {done.returncode}: {tail(done.stderr) or tail(done.stdout) or 'no output'}")
    return done


def write_atomically(path: Path, text: str, mode: int = 0o640) -> None:
    """Write a file so that a reader, or the next start after a crash, sees the old or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=SCRATCH)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: t.Any) -> None:
    """Write a value as JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def read_json(path: Path, default: t.Any = None) -> t.Any:
    """Return the value of a JSON file; the default when there is none or it is damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return default


def write_lines(path: Path, lines: t.Iterable[t.Any]) -> None:
    """Write values as lines of JSON, compressed.

    Raises:
        StepError: the file cannot be written.
    """
    with path.open("wb") as file, subprocess.Popen(["zstd", "-q", "-3", "-c"], stdin=subprocess.PIPE, stdout=file) as packer:
        try:
            # zstd writes no word to its end but a failure's, so nothing else has to be read meanwhile.
            with t.cast("t.IO[bytes]", packer.stdin) as stream:
                for line in lines:
                    stream.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass") + b"\n")
        except BrokenPipeError as error:
            packer.wait()
            raise StepError(f"{path} cannot be written: zstd ended with {packer.returncode}; is the disk full?") from error
        except BaseException:
            packer.kill()
            raise
    if packer.returncode != 0:
        raise StepError(f"{path} cannot be written: zstd ended with {packer.returncode}; is the disk full?")


def read_lines(path: Path) -> t.Iterator[t.Any]:
    """Yield the values that write_lines wrote.

    Raises:
        StepError: the file is damaged.
    """
    with subprocess.Popen(["zstd", "-q", "-d", "-c", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as unpacker:
        for line in t.cast("t.IO[bytes]", unpacker.stdout):
            try:
                yield json.loads(line)
            except ValueError as error:
                # The end of what zstd could still read.
                raise StepError(f"{path.name} is damaged: {error}") from error
        message = t.cast("t.IO[bytes]", unpacker.stderr).read().decode(errors="replace")
    if unpacker.returncode != 0:
        raise StepError(f"{path.name} is damaged: {message.strip()}")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Make all files below a folder survive a power failure."""
    for place, _unused, files in os.walk(folder):
        for name in files:
            handle = os.open(Path(place, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(place))


def sha256_of(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Return the bytes of all files below a folder, or of a file."""
    if path.is_file():
        return path.stat().st_size
    return sum(Path(place, name).lstat().st_size for place, _unused, files in os.walk(path) for name in files)


#: Of whoever changes the data, for as long as it is at it: one at a time.
WRITER = "writer.lock"
#: Shared by all that read the data; whoever changes what they may read holds it alone, for just that.
DATA = "lock"


def take(config: Config, path: Path, kind: int, deadline: float) -> t.IO[str]:
    """Return an open file that holds a lock.

    Raises:
        BusyError: another run holds it; says which.
    """
    file = path.open("a+", encoding="utf-8")
    try:
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    writer = config.data / WRITER
                    holder = (writer.read_text().strip() if writer.exists() else "") or "another run"
                    raise BusyError(f"the backups are locked by {holder}; wait for it to end") from error
                time.sleep(0.2)
    except BaseException:
        file.close()
        raise
    return file


@contextlib.contextmanager
def locked(config: Config, shared: bool = False, wait: float = 0) -> t.Iterator[t.Callable[[], t.ContextManager[None]]]:
    """Hold the lock of the data.

    Args:
        config: names the data.
        shared: several may hold it together, as long as no one holds it alone.
        wait: seconds to wait for it.

    Yields:
        A context in which others may read meanwhile, for whoever only adds to the data; its end waits for them.

    Raises:
        BusyError: another run holds it; says which.
    """
    config.data.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    with contextlib.ExitStack() as held:
        if not shared:
            writer = held.enter_context(take(config, config.data / WRITER, fcntl.LOCK_EX, deadline))
            # Shown to other runs that wait. The lock itself ends with the process, and a full disk must not prevent a run.
            with contextlib.suppress(OSError):
                (config.data / WRITER).write_text(f"{' '.join(sys.argv[1:3])}, since {stamp(now())}\n")
            held.callback(writer.truncate, 0)
        data = held.enter_context(take(config, config.data / DATA, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, deadline))

        @contextlib.contextmanager
        def sharing() -> t.Iterator[None]:
            # In between it is free for a moment; readers may take it, and writers wait for the other lock.
            fcntl.flock(data, fcntl.LOCK_SH)
            yield
            fcntl.flock(data, fcntl.LOCK_EX)

        yield sharing
