# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy elsewhere: an encrypted, de-duplicated restic repository, one snapshot a recovery point."""

from __future__ import annotations

import json
import os
import tempfile
import typing as t
from datetime import datetime
from pathlib import Path

from slipway_backup import postgres
from slipway_backup.common import (
    JSON,
    Config,
    StepError,
    execute,
    now,
    parse_stamp,
    point_name,
    read_json,
    say,
    stamp,
    write_atomically,
    write_json,
)
from slipway_backup.points import MANIFEST, Point, read_points

#: restic's exit codes: docs of restic, "Exit codes".
NOT_ALL_READ, NO_REPOSITORY, LOCKED, WRONG_PASSWORD = 3, 10, 11, 12
NO_REPOSITORY_TEXT = "there is no repository at this place"
STATE = "offsite.json"
LOG = "ssh.log"
LOCK_WAIT = "10m"
#: Seconds, where the inventory does not say. restic asks a server that is away, or a bucket that is not there, for a quarter of an hour.
TIMEOUT = 180


class IncompleteError(StepError):
    """A point lacks something, or cannot be read whole; others can be copied all the same."""


def enabled(config: Config) -> bool:
    """Return whether the inventory has a repository."""
    return bool(config.offsite.get("repository"))


def environment(config: Config) -> dict[str, str]:
    """Return restic's environment: where the repository is, its password's file, and keys of the storage."""
    extra = json.loads(config.secret("offsite_environment") or "{}")
    return {
        "RESTIC_REPOSITORY": str(config.offsite["repository"]),
        "RESTIC_PASSWORD_FILE": str(config.secrets / "offsite_password"),
        "RESTIC_CACHE_DIR": str(config.data / "cache"),
        "RESTIC_PROGRESS_FPS": "0.01",
        "HOME": "/tmp",  # noqa: S108 - a place of this container alone
        **{name: str(value) for name, value in extra.items()},
    }


def options(config: Config, ssh: Path) -> list[str]:
    """Return restic's options for a repository over SSH: the key, the given host keys, and a folder for ssh's files."""
    if not str(config.offsite["repository"]).startswith("sftp:"):
        return []
    # ssh refuses a key that other users can read, or in a folder that it cannot read; this one is read-only, in a folder of its own.
    known = ssh / "known_hosts"
    known.write_text(str(config.offsite.get("known_hosts", "")) + "\n", encoding="utf-8")
    # What ssh says goes to a file: restic often ends before it has passed that on, and then says no more than that ssh has ended.
    settings = {"UserKnownHostsFile": known, "StrictHostKeyChecking": "yes", "BatchMode": "yes"}
    arguments = [f"-i {config.secrets / 'offsite_ssh_key'}", f"-E {ssh / LOG}", *(f"-o {name}={value}" for name, value in settings.items())]
    return ["-o", f"sftp.args={' '.join(arguments)}"]


def ssh_messages(folder: Path) -> str:
    """Return ssh's messages, to be appended to an error; empty if there are none."""
    log = folder / LOG
    said = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
    return f"; ssh says: {said[-600:]}" if said else ""


def words(text: str) -> str:
    """Return what restic wrote as its reason, which is JSON where it was asked for JSON."""
    found = []
    for line in text.strip().splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            told = line
        if isinstance(told, dict):
            told = told.get("message") or (told.get("error") or {}).get("message") or line
        found.append(str(told))
    return "\n".join(found)[-600:]


def restic(
    config: Config, *arguments: str, what: str, codes: t.Container[int] = (0,), timeout: float | None = None, rate: float = 0
) -> str:
    """Run restic and return what it printed.

    Raises:
        StepError: it failed; says what to do about the known reasons.
    """
    what = f"{what}: {config.offsite['repository']}"
    with tempfile.TemporaryDirectory() as folder:
        ssh = Path(folder)
        command = ["restic", "--retry-lock", LOCK_WAIT, *options(config, ssh), *arguments]
        try:
            done = execute(command, what, env=environment(config), codes=range(256), timeout=timeout, rate=rate)
        except StepError as error:
            raise StepError(f"{error}{ssh_messages(ssh)}") from error
        said = ssh_messages(ssh)
    if done.returncode in codes:
        return done.stdout
    reason = {
        WRONG_PASSWORD: "the password is not the repository's: set vault_backup_offsite_password to the one it was created with",
        NO_REPOSITORY: NO_REPOSITORY_TEXT,
        LOCKED: "another program holds the repository's lock (the lock of a program that died elsewhere expires after half an hour)",
    }.get(done.returncode, words(done.stderr) or words(done.stdout)) + said
    raise (IncompleteError if done.returncode == NOT_ALL_READ else StepError)(f"{what}: {reason}")


def patience(config: Config) -> float:
    """Return for how many seconds a repository that does not answer is asked again."""
    return float(config.offsite.get("timeout", TIMEOUT))


def open_repository(config: Config) -> dict[str, JSON]:
    """Return the snapshots of this stack by the point that each holds; where there is no repository, make one.

    Raises:
        StepError: the place is out of reach, or the password is another one.
    """
    try:
        return read_snapshots(config)
    except StepError as error:
        if NO_REPOSITORY_TEXT not in str(error):
            raise
        # Never over one that was there: an empty place may be a disk that is not mounted. A place that is new may be empty.
        known = read_json(config.state / STATE, {})
        if known.get("shipped") and known.get("repository", config.offsite["repository"]) == config.offsite["repository"]:
            raise StepError(
                f"the off-site repository {config.offsite['repository']} has vanished: restore it (is a disk not mounted?), "
                f"or remove {config.state / STATE} to create a new one"
            ) from error
        say("offsite: creating a new repository")
        restic(config, "init", what="create the off-site repository", timeout=patience(config))
        return {}


def parts(config: Config, point: Point) -> list[str]:
    """Return what a point is restored from, relative to the data's folder.

    Raises:
        IncompleteError: a part of it is missing.
    """
    home = f"{config.barman.name}/{postgres.SERVER}"
    found = [f"points/{point.name}"]
    if point.chain:
        found += [f"{home}/base/{backup}" for backup in point.chain]
        found += [f"{home}/meta/{backup}-backup.info" for backup in point.chain]
        found += [f"{home}/wals", f"{home}/identity.json"]
    missing = [name for name in found if not (config.data / name).exists()]
    if missing:
        raise IncompleteError(f"the point {point.name} cannot be copied off-site: {' and '.join(missing)} is missing in {config.data}")
    return found


def unlock(config: Config) -> None:
    """Remove the stale locks of the repository, such as one that was killed has left: nothing else can be done there before."""
    restic(config, "unlock", what="unlock the off-site repository")


def reading_rate(config: Config) -> int:
    """Return how many bytes per second a copy may read while clients keep the database busy; 0 for no limit, or if it is down."""
    if not config.postgres:
        return 0
    try:
        return postgres.busy_rate(config)
    except StepError:
        return 0


def ship(config: Config) -> list[str]:
    """Copy to the repository all points that it lacks; return their names.

    Raises:
        StepError: the repository is out of reach or refuses; what was copied before counts.
    """
    there = {name: snapshot["short_id"] for name, snapshot in open_repository(config).items()}
    unlock(config)
    remember(config, repository=config.offsite["repository"], shipped=there, error="")
    new, incomplete = [], []
    for point in read_points(config):
        if point.name in there:
            continue
        rate = reading_rate(config)
        say(f"offsite: copying {point.name}{f', reading at most {rate / 10**6:g} MB/s as the server is busy' if rate else ''}")
        listing = config.state / "offsite-files"
        # Read verbatim, one name a line; our names hold no line ends.
        previous = os.getcwd()
        os.chdir(config.data)
        try:
            write_atomically(listing, "".join(f"{name}\n" for name in parts(config, point)))
            output = restic(
                config, "backup", "--json", "--host", config.stack, "--tag", f"point={point.name}", "--group-by", "host",
                "--files-from-verbatim", str(listing), what=f"copy {point.name} off-site", rate=rate,
            )  # fmt: skip
        except IncompleteError as error:
            say(f"offsite: {error}")
            incomplete.append(str(error))
            # restic keeps a copy that lacks what it could not read, under the point's name.
            if snapshot := read_snapshots(config).get(point.name):
                restic(config, "forget", str(snapshot["id"]), what=f"remove the half copy of {point.name}")
            continue
        finally:
            os.chdir(previous)
        told = json.loads(output.strip().splitlines()[-1])
        there[point.name] = told.get("snapshot_id", "")[:8]
        new.append(point.name)
        remember(config, shipped=there, added_bytes=told.get("data_added_packed", told.get("data_added")), at=stamp(now()))
    if incomplete:
        raise StepError("; ".join(incomplete))
    return new


def read_snapshots(config: Config) -> dict[str, JSON]:
    """Return the repository's snapshots of this stack by the point that each holds."""
    # Without a lock: it would wait for another program's pruning, which does not affect a list.
    output = restic(
        config, "snapshots", "--json", "--no-lock", "--host", config.stack, what="list the off-site repository", timeout=patience(config)
    )
    found = {}
    for snapshot in json.loads(output or "[]") or []:
        for tag in snapshot.get("tags") or []:
            if tag.startswith("point="):
                found[tag.removeprefix("point=")] = snapshot
    return found


def shipped(config: Config) -> dict[str, str]:
    """Return the snapshot of each point that was in the repository when it was last looked at."""
    return dict(read_json(config.state / STATE, {}).get("shipped", {}))


def last_error(config: Config) -> str:
    """Return why the last copying failed; empty where it did not."""
    return str(read_json(config.state / STATE, {}).get("error", ""))


def remember(config: Config, **values: t.Any) -> None:
    """Keep what the report says about the repository."""
    write_json(config.state / STATE, {**read_json(config.state / STATE, {}), **values})


def forget(config: Config, keep: t.Container[str]) -> list[str]:
    """Remove from the repository the points that are not kept, with the data that only they had; return their names.

    Which there are is what the last copying saw.

    Raises:
        StepError: the repository is out of reach or refuses.
    """
    there = shipped(config)
    gone = sorted(name for name in there if name not in keep)
    if gone:
        say(f"offsite: removing {', '.join(gone)}")
        unlock(config)
        restic(config, "forget", "--prune", *(there[name] for name in gone), what="prune the off-site repository")
        remember(config, shipped={name: snapshot for name, snapshot in there.items() if name in keep})
    return gone


def add_password(config: Config, password: str) -> None:
    """Let another password open the repository; those that do so go on to.

    Raises:
        StepError: the password is empty or more than a line, or the repository is out of reach or refuses.
    """
    if len(password.splitlines()) != 1:
        raise StepError("the new password has to be one line, and not empty")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(password)
        file.flush()
        restic(config, "key", "add", "--new-password-file", file.name, what="add a password to the off-site repository")


def check(config: Config, percent: int = 0) -> None:
    """Check the repository's structure, and that share of its data.

    Raises:
        StepError: it is damaged, or out of reach.
    """
    share = [f"--read-data-subset={percent}%"] if percent else []
    restic(config, "check", *share, what="check the off-site repository")


def fetch(config: Config, name: str, make_way: t.Callable[[JSON], None] = lambda _unused: None, before: datetime | None = None) -> str:
    """Bring a point back with all that it is restored from; return its name.

    Args:
        config: names the repository.
        name: of the point; ``latest`` for the newest there.
        make_way: given the point's manifest, before anything is written.
        before: with ``latest``: the newest whose moment is not after this one.

    Raises:
        StepError: there is no such point, or the repository is out of reach or damaged.
    """
    snapshots = read_snapshots(config)
    latest = name == "latest"
    # A point is named when it is begun, and its moment is a little later.
    names = sorted((known for known in snapshots if not before or known <= point_name(before)), reverse=True) if latest else [name]
    config.data.mkdir(parents=True, exist_ok=True)
    text, content = "", {}
    while names and names[0] in snapshots:
        text = restic(config, "dump", str(snapshots[names[0]]["id"]), f"/points/{names[0]}/{MANIFEST}", what="fetch a manifest")
        content = json.loads(text)
        if not latest or not before or parse_stamp(content["moment"]) <= before:
            break
        del names[0]
    if not names or names[0] not in snapshots:
        wanted = f"that leads to {before}" if latest and before else name
        raise StepError(f"the off-site repository has no point {wanted}; it has {', '.join(sorted(snapshots)[-10:]) or 'none'}")
    name = names[0]
    if content.get("name") != name:
        raise StepError(f"the manifest of {name} in the off-site repository is another point's")
    snapshot, manifest = str(snapshots[name]["id"]), f"points/{name}/{MANIFEST}"
    unlock(config)
    make_way(content)
    # The names in a snapshot are relative to the data's folder. The manifest comes last: a fetch that was interrupted leaves no point.
    home = f"{config.barman.name}/{postgres.SERVER}"
    left_out = [f"/{manifest}", f"/{home}/wals/{postgres.WAL_LIST}"]
    excludes = [argument for path in left_out for argument in ("--exclude", path)]
    restic(config, "restore", snapshot, "--sparse", "--target", str(config.data), *excludes, what=f"fetch {name}")
    if (config.data / home / "wals").is_dir():
        # The list that was copied may be older than the WAL that is here, and newer than the WAL that was copied with it.
        postgres.barman(config, "rebuild-xlogdb", postgres.SERVER, what="list the WAL that is here")
    write_atomically(config.data / manifest, text)
    return name
