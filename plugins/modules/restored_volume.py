#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put restored data into the place of a volume's, and the volume's own aside."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restored_volume
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Put restored data into the place of a volume's, and the volume's own aside
description:
  - Nothing is copied where both lie on one file system, and nothing of the old data is deleted unless asked for by O(state=discarded).
  - A journal on the host knows how far it has come. A run that finds one of a run that died goes on from there. Half of a restored copy is
    removed then; a whole one may have been written to since, and is set aside too, where O(state=returned) does not look for the old data.
options:
  stack:
    description: Name of the stack.
    type: str
    required: true
  store:
    description: Name of the store, which names the journal.
    type: str
    required: true
  container:
    description: Container that uses the volume, stopped while its data changes and not started again.
    type: str
    required: true
  volume:
    description: The volume.
    type: str
    required: true
  staged:
    description:
      - Volume with the restored data, which is removed when that is in place. Needed for O(state=fetched) and O(state=placed).
    type: str
    default: ""
  source:
    description:
      - Address from which O(state=fetched) gets the restored data, as a tar file, where it was put together on another host.
      - Behind a C(#) stands the SHA-256 of the certificate that the other host has to show.
    type: str
    default: ""
  last:
    description: File at the top of the data that is moved first out of and last into its place, as the data counts as whole with it.
    type: str
    default: ""
  keep_owners:
    description: Whether the restored data is of several users, as in a volume of a product, instead of the user that owns the volume.
    type: bool
    default: false
  point:
    description: Kept on the volume with the old data.
    type: str
    default: ""
  restore:
    description: Name of the restore or undo, the same for all its volumes. Kept in the journal and on the volume with the old data.
    type: str
    default: ""
  returns:
    description: The O(restore) whose old data O(state=returned) takes back.
    type: str
    default: ""
  state:
    description:
      - V(fetched) creates the volume O(staged) on this host and fetches the restored data into it, while the store still runs.
      - V(placed) puts the restored data into place and the old aside.
      - V(finished) removes the journal, once the product is in service, and data that was fetched and not put into place.
      - V(kept) changes nothing.
      - V(returned) takes the data that the restore O(returns) has set aside back into its place, and sets aside what has been live since.
      - V(discarded) removes all data that was set aside.
    type: str
    required: true
    choices: [fetched, placed, finished, kept, returned, discarded]
attributes:
  check_mode:
    description: Says what it would move.
    support: full
"""

EXAMPLES = r"""
- name: Put the restored data into place
  slipway.stack.restored_volume:
    stack: slipway
    store: redis
    container: slipway-redis
    volume: redis_data
    staged: slipway-restore-redis
    state: placed
"""

RETURN = r"""
aside:
  description: Volumes with data that was set aside, oldest first.
  returned: always
  type: list
  elements: str
restores:
  description: Names of the restores whose old data is kept, oldest first; empty for one that has no name.
  returned: always
  type: list
  elements: str
removed:
  description: Volumes that O(state=discarded) removed, or would remove in check mode.
  returned: always
  type: list
  elements: str
"""

import contextlib
import errno
import hashlib
import hmac
import http.client
import json
import os
import shutil
import ssl
import subprocess
import time
import typing as t
from pathlib import Path
from urllib.parse import urlsplit

from ansible_collections.slipway.stack.plugins.module_utils.config_files import write_file
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.removal import stack_problem
from ansible_collections.slipway.stack.plugins.module_utils.secret_module import SecretModule

#: Is in the volume while its data changes: a store that is started then finds foreign data, and refuses.
GUARD = ".slipway-restoring"
OWNER = "restore-aside"
#: In the names of volumes: data from before a restore, and a restored copy whose run died when it was in place.
BEFORE = "-before-"
INTERRUPTED = "-interrupted-"
#: On a volume with old data: the restore that has set it aside.
RESTORE_LABEL = "slipway.restore"
FETCH_TIMEOUT = 300
#: What the backup host says of the data that it sends.
BYTES_HEADER = "Slipway-Bytes"
#: What must stay free on the disk for the stores that run during a transfer.
RESERVE_BYTES = 2**30


class RestoreError(Exception):
    """Something is in the way; the message says what."""


def place_of(engine: Engine, name: str) -> Path | None:
    """Return where a volume lies on the host; nothing where there is no such volume.

    Raises:
        RestoreError: it is not a plain folder of this host.
    """
    try:
        volume = engine.get(f"/volumes/{name}")
    except EngineError as error:
        if error.status == 404:
            return None
        raise
    if volume["Driver"] != "local" or (volume.get("Options") or {}).get("device"):
        raise RestoreError(
            f"volume {name} has the driver option device, so its data cannot be exchanged: restore into a plain volume, and copy the data"
        )
    return Path(volume["Mountpoint"])


def place_of_live(engine: Engine, options: dict[str, t.Any]) -> Path:
    """Return where the volume of the store lies.

    Raises:
        RestoreError: it is not there, or its data cannot be exchanged.
    """
    place = place_of(engine, options["volume"])
    if place is None:
        raise RestoreError(f"there is no volume {options['volume']} on this host: run site.yml first")
    return place


def move(source: Path, target: Path) -> None:
    """Move an entry; copy it where it goes to another file system. What a copy that was interrupted has left is replaced."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ENOTEMPTY, errno.EEXIST):
            raise
        remove(target)
        try:
            os.rename(source, target)
        except OSError as again:
            if again.errno != errno.EXDEV:
                raise
            # Called without a module.
            subprocess.run(  # pylint: disable=ansible-bad-function
                ["cp", "-a", "--", str(source), str(target)], check=True, capture_output=True
            )
            remove(source)


def remove(path: Path) -> None:
    """Remove a file or a folder that may not be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def entries(folder: Path, last: str = "", at_end: bool = True) -> list[Path]:
    """Return what lies in a folder but the guard, with one entry at the end or at the start."""
    found = sorted(path for path in folder.iterdir() if path.name not in (GUARD, last, "lost+found"))
    special = [folder / last] if last and (folder / last).exists() else []
    return found + special if at_end else special + found


def give(folder: Path, uid: int, gid: int) -> None:
    """Give a folder and all in it to a user."""
    os.chown(folder, uid, gid)
    for place, folders, files in os.walk(folder):
        for name in folders + files:
            os.chown(os.path.join(place, name), uid, gid, follow_symlinks=False)


def write_journal(path: Path, journal: dict[str, t.Any]) -> None:
    """Replace the journal, so that a crash leaves the old or the new one."""
    os.sync()
    write_file(str(path), json.dumps(journal), 0o644)


def empty_into(live: Path, aside: Path, last: str) -> None:
    """Move all that lies in a volume aside."""
    for entry in entries(live, last, at_end=False):
        move(entry, aside / entry.name)
    own_as(aside, live)


def own_as(folder: Path, other: Path) -> None:
    """Give a folder the owner and the mode of another."""
    shutil.copystat(other, folder)
    os.chown(folder, other.stat().st_uid, other.stat().st_gid)


def fill_from(live: Path, source: Path, last: str) -> None:
    """Move data into a volume, and let the store have it."""
    for entry in entries(source, last):
        move(entry, live / entry.name)
    own_as(live, source)
    os.sync()
    (live / GUARD).unlink(missing_ok=True)


def exchange(live: Path, staged: Path, aside: Path, journal_path: Path, journal: dict[str, t.Any], last: str = "") -> None:
    """Move the live data aside and the staged into its place, from wherever the journal says that a run before has come to.

    Args:
        live: folder of the volume.
        staged: folder with the restored data.
        aside: folder that gets the old data.
        journal_path: where the journal is kept.
        journal: ``phase`` is aside while old data may still be in place, and place from then on.
        last: the entry with which data counts as whole.
    """
    write_journal(journal_path, journal)
    (live / GUARD).touch()
    if journal["phase"] == "aside":
        empty_into(live, aside, last)
        journal["phase"] = "place"
        write_journal(journal_path, journal)
    else:
        # Half of what an earlier run has placed; all of it is staged again.
        for entry in entries(live, last, at_end=False):
            remove(entry)
    fill_from(live, staged, last)


def give_back(live: Path, source: Path, aside: Path | None, journal_path: Path, journal: dict[str, t.Any], last: str = "") -> None:
    """Move data that was set aside back into its place, from wherever the journal says that a run before has come to.

    Args:
        live: folder of the volume.
        source: folder with the old data.
        aside: folder that gets what has been live since; without one, that is what a restore that was interrupted has left.
        journal_path: where the journal is kept.
        journal: ``phase`` is aside while what is to go is still in place, place where that is half of a restored copy, and return from
            then on: whatever is in place belongs to the old data then.
        last: the entry with which data counts as whole.
    """
    (live / GUARD).touch()
    if journal["phase"] == "place":
        for entry in entries(live, last, at_end=False):
            remove(entry)
    elif journal["phase"] == "aside" and aside is not None:
        write_journal(journal_path, journal)
        empty_into(live, aside, last)
    journal["phase"] = "return"
    write_journal(journal_path, journal)
    fill_from(live, source, last)


def stop(engine: Engine, container: str) -> None:
    """End a container as its service wants it."""
    inspected = engine.inspect(container)
    if inspected:
        with contextlib.suppress(EngineError):
            engine.stop(inspected)
        if (engine.inspect(container) or inspected)["State"]["Running"]:
            raise RestoreError(f"container {container} does not stop")


def labelled(engine: Engine, labels: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return the labels of the volumes with these labels, by their names and in the order of these."""
    wanted = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
    found = engine.get("/volumes", filters=wanted)["Volumes"] or []
    return {item["Name"]: item.get("Labels") or {} for item in sorted(found, key=lambda item: str(item["Name"]))}


def set_aside(engine: Engine, stack: str, volume: str) -> dict[str, dict[str, str]]:
    """Return the labels of the volumes with data that was set aside, by their names and oldest first."""
    return labelled(engine, {"slipway.stack": stack, "slipway.owner": OWNER, "slipway.volume": volume})


def read_journal(path: Path) -> dict[str, t.Any]:
    """Return what a run that died has left; empty where none did."""
    try:
        return t.cast("dict[str, t.Any]", json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def placed_whole(live: Path, journal: dict[str, t.Any]) -> bool:
    """Return whether an interrupted run had placed all of the restored data: the store may have been started and written to since."""
    return journal.get("phase") == "place" and not (live / GUARD).exists()


def aside_name(options: dict[str, t.Any], kind: str = BEFORE) -> str:
    """Return the name of a new volume that takes old data."""
    return f"{options['volume']}{kind}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"


def make_aside(engine: Engine, options: dict[str, t.Any], name: str) -> Path:
    """Return the folder of a volume that takes old data, which is created unless an earlier run has.

    The journal names it by then: a volume that is not in use is old data, also if it is empty.
    """
    labels = {
        "slipway.stack": options["stack"],
        "slipway.owner": OWNER,
        "slipway.volume": options["volume"],
        "slipway.point": options["point"],
        RESTORE_LABEL: options["restore"],
    }
    engine.request("POST", "/volumes/create", body={"Name": name, "Labels": labels})
    return t.cast("Path", place_of(engine, name))


@contextlib.contextmanager
def opened(source: str) -> t.Iterator[http.client.HTTPResponse]:
    """Open an address whose certificate is known by its digest; nothing is asked for before the certificate is the one.

    Raises:
        RestoreError: another server answers, or the data is not available.
    """
    url = urlsplit(source)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Made for this transfer alone, so it is not signed by a CA: it is verified by the digest, which came over SSH.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Straight to it, whatever proxy this host has for the world: the other one is a neighbour.
    connection = http.client.HTTPSConnection(str(url.hostname), url.port, timeout=FETCH_TIMEOUT, context=context)
    with contextlib.closing(connection):
        connection.connect()
        shown = t.cast("ssl.SSLSocket", connection.sock).getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(hashlib.sha256(shown).hexdigest(), url.fragment):
            raise RestoreError(f"{url.hostname}:{url.port} has another certificate than the one that the backup host made")
        connection.request("GET", url.path)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise RestoreError(f"{url.hostname}:{url.port} answers {answer.status}")
        yield answer


def refuse_full_disk(folder: Path, needed: int) -> None:
    """Refuse data for which there is no room: a store that runs must not find its disk full.

    Args:
        folder: where the data goes.
        needed: its bytes on disk.

    Raises:
        RestoreError: there is not enough free space.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + RESERVE_BYTES:
        has, needs, reserve = (f"{count / 2**20:.0f} MB" for count in (free, needed, RESERVE_BYTES))
        raise RestoreError(
            f"the disk of {folder} has {has} free; the data needs {needs}, and {reserve} must stay free: "
            "remove old data with -e restore_discard_old=true, or give it a larger disk"
        )


def unpack(archive: t.IO[bytes] | http.client.HTTPResponse, folder: Path) -> str | None:
    """Unpack a tar file as it arrives.

    Args:
        archive: the tar file.
        folder: where its content goes.

    Returns:
        What tar reported if it failed; None if all was unpacked.

    Raises:
        OSError: the archive cannot be read.
    """
    # In memory, as the disk may be full. Not a pipe: it would stop tar once it is full, as it is read at the end only.
    with (
        open(os.memfd_create("tar"), "w+b") as output,
        # Its input is gigabytes, written as they come.
        subprocess.Popen(  # pylint: disable=ansible-bad-function
            # Of a host whose clock is behind, each file is in the future.
            ["tar", "-C", str(folder), "--numeric-owner", "--warning=no-timestamp", "-xpf", "-"],
            stdin=subprocess.PIPE,
            stderr=output,
        ) as unpacker,
    ):
        # Tar ended early, and reports why.
        with contextlib.suppress(BrokenPipeError), t.cast("t.IO[bytes]", unpacker.stdin) as stream:
            shutil.copyfileobj(archive, stream, 2**20)
        if unpacker.wait() == 0:
            return None
        output.seek(0)
        return output.read().decode(errors="replace").strip()[-500:]


def fetched_labels(options: dict[str, t.Any]) -> dict[str, str]:
    """Return the labels of a volume into which the data of the store is fetched."""
    return {"slipway.stack": options["stack"], "slipway.owner": "backup-restore", "slipway.service": f"restore-{options['store']}"}


def remove_fetched(engine: Engine, options: dict[str, t.Any]) -> None:
    """Remove what a run has fetched that ended before it put the data into place."""
    for name in labelled(engine, fetched_labels(options)):
        engine.request("DELETE", f"/volumes/{name}")


def fetch(engine: Engine, options: dict[str, t.Any]) -> None:
    """Fetch the restored data from the host that put it together.

    Raises:
        RestoreError: it did not arrive whole.
    """
    remove_fetched(engine, options)
    with contextlib.suppress(EngineError):
        engine.request("DELETE", f"/volumes/{options['staged']}")
    engine.request("POST", "/volumes/create", body={"Name": options["staged"], "Labels": fetched_labels(options)})
    folder = t.cast("Path", place_of(engine, options["staged"]))
    try:
        with opened(options["source"]) as answer:
            refuse_full_disk(folder, int(answer.headers.get(BYTES_HEADER, 0)))
            complaint = unpack(answer, folder)
        if complaint is not None:
            raise RestoreError(f"the data of {options['store']} cannot be unpacked: {complaint}")
    except (OSError, http.client.HTTPException) as error:
        raise RestoreError(f"the data of {options['store']} from {options['source'].rpartition('/')[0]} is incomplete: {error}") from error


def place(engine: Engine, options: dict[str, t.Any], journal_path: Path) -> None:
    """Put the restored data into place."""
    live, staged = place_of_live(engine, options), place_of(engine, options["staged"])
    if staged is None:
        raise RestoreError(f"there is no volume {options['staged']} on this host: stage the point first")
    # While the store still runs: it may take a while.
    if not options["keep_owners"]:
        give(staged, live.stat().st_uid, live.stat().st_gid)
        shutil.copymode(live, staged)
    stop(engine, options["container"])
    journal = read_journal(journal_path)
    if journal.get("phase") == "return":
        finish_return(engine, options, live, journal_path, journal)
    if journal.get("phase") in {"return", "returned"}:
        journal = {}
    if placed_whole(live, journal):
        journal = {"phase": "aside", "aside": aside_name(options, INTERRUPTED)}
    elif not journal:
        journal = {"phase": "aside", "aside": aside_name(options)}
    journal["id"] = options["restore"]
    write_journal(journal_path, journal)
    aside = make_aside(engine, options, journal["aside"])
    exchange(live, staged, aside, journal_path, journal, options["last"])
    engine.request("DELETE", f"/volumes/{options['staged']}")


def finish_return(engine: Engine, options: dict[str, t.Any], live: Path, journal_path: Path, journal: dict[str, t.Any]) -> None:
    """Go on with a return from where the journal says."""
    write_journal(journal_path, journal)
    source = place_of(engine, journal["source"])
    if source is not None:
        aside = make_aside(engine, options, journal["aside"]) if journal["aside"] != journal["source"] else None
        give_back(live, source, aside, journal_path, journal, options["last"])
        engine.request("DELETE", f"/volumes/{journal['source']}")
    # Until the product serves: a run that comes again, as another store has failed, finds that this one is done.
    write_journal(journal_path, {"phase": "returned"})


def returnable(engine: Engine, options: dict[str, t.Any]) -> dict[str, str]:
    """Return the volumes with data from before a restore, oldest first, each with the name of that restore."""
    interrupted = options["volume"] + INTERRUPTED
    found = set_aside(engine, options["stack"], options["volume"])
    return {name: labels.get(RESTORE_LABEL, "") for name, labels in found.items() if not name.startswith(interrupted)}


def to_return(engine: Engine, options: dict[str, t.Any]) -> str:
    """Return the volume with the data that is taken back.

    Raises:
        RestoreError: the restore has set nothing aside here.
    """
    names = [name for name, restore in returnable(engine, options).items() if restore == options["returns"]]
    if not names:
        raise RestoreError(f"this host has no old data of volume {options['volume']}: there is no restore to undo")
    return names[-1]


def take_back(engine: Engine, options: dict[str, t.Any], journal_path: Path) -> None:
    """Take the data that a restore has set aside back into its place, and set aside what has been live since."""
    live = place_of_live(engine, options)
    journal = read_journal(journal_path)
    if journal.get("phase") == "returned":
        return
    if not journal or placed_whole(live, journal):
        journal = {"phase": "aside", "source": to_return(engine, options), "aside": aside_name(options)}
    # Of a restore that died: its old data is where it was moved to.
    names = list(returnable(engine, options))
    journal.setdefault("source", names[-1] if INTERRUPTED in journal["aside"] and names else journal["aside"])
    stop(engine, options["container"])
    finish_return(engine, options, live, journal_path, journal)


def discard(engine: Engine, names: list[str], journal_path: Path) -> None:
    """Remove data that was set aside, unless a run that died needs it.

    Raises:
        RestoreError: one does.
    """
    if journal_path.exists():
        raise RestoreError("a restore was interrupted: run it again before its old data is discarded")
    for name in names:
        engine.request("DELETE", f"/volumes/{name}")


def main() -> None:
    """Run the module."""
    module = SecretModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "store": {"type": "str", "required": True},
            "container": {"type": "str", "required": True},
            "volume": {"type": "str", "required": True},
            "staged": {"type": "str", "default": ""},
            # A secret: it gives access to the data.
            "source": {"type": "str", "default": "", "no_log": True},
            "last": {"type": "str", "default": ""},
            "keep_owners": {"type": "bool", "default": False},
            "point": {"type": "str", "default": ""},
            "restore": {"type": "str", "default": ""},
            "returns": {"type": "str", "default": ""},
            "state": {"type": "str", "required": True, "choices": ["fetched", "placed", "finished", "kept", "returned", "discarded"]},
        },
        required_if=[("state", "fetched", ["staged", "source"]), ("state", "placed", ["staged"])],
        supports_check_mode=True,
    )
    options, engine = module.params, Engine(timeout=600)
    problem = stack_problem(options["stack"])
    if problem:
        module.fail_json(msg=problem)
    journal_path = Path("/etc/slipway") / options["stack"] / "restore" / f"{options['store']}.json"
    state = options["state"]
    try:
        names = list(set_aside(engine, options["stack"], options["volume"]))
        removed = names if state == "discarded" else []
        changed = {
            "fetched": True,
            "placed": True,
            "returned": True,
            "kept": False,
            "finished": journal_path.exists() or bool(labelled(engine, fetched_labels(options))),
            "discarded": bool(names),
        }[state]
        if state in {"placed", "returned"}:
            place_of_live(engine, options)
        if state == "returned" and not journal_path.exists():
            to_return(engine, options)
        if changed and not module.check_mode:
            if state == "fetched":
                fetch(engine, options)
            elif state == "placed":
                place(engine, options, journal_path)
            elif state == "returned":
                take_back(engine, options, journal_path)
            elif state == "finished":
                remove_fetched(engine, options)
                remove(journal_path)
            else:
                discard(engine, names, journal_path)
            names = list(set_aside(engine, options["stack"], options["volume"]))
        restores = list(returnable(engine, options).values())
    except (RestoreError, EngineError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, aside=names, restores=restores, removed=removed)


if __name__ == "__main__":
    main()
