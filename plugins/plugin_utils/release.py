# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what a release has to do, from what the hosts of a fleet have recorded.

Pure functions. A fleet's record (``state.json``) is on every app host and balancer and is written last; the lock (``lock.json``) on
one host is the journal of the release in progress. docs/release.md describes the steps.
"""

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.containers import (
    EXTRA_SERVICES,
    JOB_LABEL,
    SLOTS,
    is_of_product,
    service_of,
    slot_owner,
)
from ansible_collections.slipway.stack.plugins.module_utils.json_files import json_object
from ansible_collections.slipway.stack.plugins.module_utils.release_locks import is_free

Record = dict[str, t.Any]


class ReleaseError(ValueError):
    """What is asked for cannot be done; nothing was touched."""


def other(slot: str) -> str:
    """Return the slot that is not this one."""
    return SLOTS[1] if slot == SLOTS[0] else SLOTS[0]


#: What to do about a record and a lock that are there and cannot be read.
DAMAGED_RECORD = "Copy it from another host of the fleet, or from a backup: without it the fleet counts as never released"
DAMAGED_LOCK = "If no run is in progress, remove it"
#: What both have that decides anything; each may lack some of it.
RECORD_OR_LOCK = {
    **dict.fromkeys(("slot", "version", "run", "step", "purpose"), (str, None)),
    **dict.fromkeys(("holder", "journal"), (dict, None)),
    "serial": (int, None),
}


def read_json(files: t.Mapping[str, t.Any], path: str, host: str, remedy: str = DAMAGED_RECORD) -> Record | None:
    """Return the record or lock that a described file holds, or None where there is no such file.

    Args:
        files: the files of a host, as host_state describes them.
        path: the file.
        host: name of the host.
        remedy: what to do where it cannot be read.

    Raises:
        ReleaseError: there is one, and it holds neither. Files are written whole, so something else has changed it.
    """
    if path not in files:
        return None
    value = json_object(files[path].get("content"), RECORD_OR_LOCK)
    if value is None:
        raise ReleaseError(f"{path} on {host} is damaged: it is not what a release writes. {remedy}")
    return value


def fleet_record(states: dict[str, dict[str, t.Any]], folder: str) -> Record | None:
    """Return the newest record that any host of the fleet holds; a run that died while recording left older ones on others.

    Raises:
        ReleaseError: one cannot be read.
    """
    records = [read_json(state["files"], f"{folder}/state.json", host) for host, state in states.items()]
    found = [record for record in records if record and "serial" in record]
    return max(found, key=lambda record: int(record["serial"])) if found else None


def fleet_lock(states: dict[str, dict[str, t.Any]], folder: str) -> Record | None:
    """Return the lock that a host of the fleet holds.

    Raises:
        ReleaseError: one cannot be read.
    """
    for host, state in states.items():
        lock = read_json(state["files"], f"{folder}/lock.json", host, DAMAGED_LOCK)
        if lock and lock.get("run"):
            return lock
    return None


def held_until(lock: Record | None, state: t.Mapping[str, t.Any], stale: str) -> str:
    """Return when a lock expires that another run has, which may still be under way; "" if any run may take it.

    Args:
        lock: the lock.
        state: what the host that has it is like, by whose clock it expires.
        stale: name of a run that is known to be gone.
    """
    if not lock or is_free(lock, {stale}, state["host"]["time_s"]):
        return ""
    return str(lock["expires_at"])


def versions_of_others(files: t.Mapping[str, t.Any], folder: str) -> set[str]:
    """Return the versions that other stacks of a host may go back to; "", which each tag contains, where that is not known of one.

    Args:
        files: the files of the host, as host_state describes them.
        folder: folder of this stack's releases.
    """
    found: set[str] = set()
    for path in files:
        if path.endswith("/release/state.json") and path != f"{folder}/state.json":
            try:
                found |= set(map(str, (read_json(files, path, "") or {}).get("history") or [""]))
            except ReleaseError:
                found.add("")
    return found


def lock_host(held_on: str, app_hosts: t.Sequence[str], reached: t.Collection[str]) -> str:
    """Return the host on which a run takes the fleet's lock, or "" where there is none: two runs must take one lock.

    Args:
        held_on: host that holds the lock, or "".
        app_hosts: all app hosts, in the inventory's order.
        reached: hosts of this run.
    """
    return held_on or next((host for host in app_hosts if host in reached), next(iter(app_hosts), ""))


def serving_images(states: dict[str, dict[str, t.Any]], slot: str) -> dict[str, dict[str, str]]:
    """Return by app host the image's id of each service that a slot runs; hosts without a container of the slot are left out."""
    found: dict[str, dict[str, str]] = {}
    for host, state in states.items():
        for container in state.get("containers", {}).values():
            if container["owner"] == slot_owner(slot) and container["running"]:
                found.setdefault(host, {})[service_of(container)] = container["image_id"]
    return {host: dict(sorted(services.items())) for host, services in sorted(found.items())}


def images_that_run(states: dict[str, dict[str, t.Any]], folder: str) -> dict[str, t.Any]:
    """Return which version serves, and by service the digest of the image that runs, as its registry knows it, or else the image's id.

    Args:
        states: what hosts have, as host_state describes it.
        folder: where the fleet's record lies on them.

    Returns:
        ``version``, empty where none is recorded, or the record is damaged, and ``image_digests``.
    """
    record: Record = {}
    # A backup is made all the same.
    with contextlib.suppress(ReleaseError):
        record = fleet_record(states, folder) or {}
    found = {}
    for state in states.values():
        for container in state["containers"].values():
            owner = container["owner"]
            # A job's container is there to be copied.
            if not (container["running"] or JOB_LABEL in container["labels"]) or not owner or owner.startswith("backup-"):
                continue
            if is_of_product(owner):
                if owner != slot_owner(record.get("slot", "")):
                    continue
                owner = service_of(container)
            elif owner == EXTRA_SERVICES:
                owner = container["labels"].get("slipway.service", owner)
            image = state["images"].get(container["image"], {})
            known = image.get("digests") if image.get("id") == container["image_id"] else []
            found[owner] = (known or [container["image_id"]])[0]
    return {"version": str(record.get("version", "")), "image_digests": dict(sorted(found.items()))}


def revisions_before(states: dict[str, dict[str, t.Any]], folder: str, lock: Record | None) -> dict[str, str]:
    """Return by host the revision that is current in a service's folder, or will be once an interrupted release was undone."""
    if recovery(lock) == "undo":
        return dict((lock or {})["journal"].get("revisions") or {})
    links = {host: state["files"].get(f"{folder}/config/current", {}).get("link", "") for host, state in states.items()}
    return {host: link for host, link in sorted(links.items()) if link}


def kept_hosts(states: dict[str, dict[str, t.Any]], slot: str, version: str, lock: Record | None, services: t.Collection[str]) -> list[str]:
    """Return the app hosts on which a slot holds containers of a version, or will once an interrupted release was undone.

    Args:
        states: what hosts have, as host_state describes it.
        slot: the slot.
        version: the version.
        lock: what an interrupted release left.
        services: services that a release stops; those that run on say nothing of what was kept.
    """
    if recovery(lock) == "undo":
        undone = (lock or {})["journal"]
        # Of another version, the interrupted release has replaced what was kept.
        return list(undone.get("kept") or []) if undone["to"] == {"slot": slot, "version": version} else []
    return sorted(
        {
            host
            for host, state in states.items()
            for container in state.get("containers", {}).values()
            if container["owner"] == slot_owner(slot)
            and container["labels"].get("slipway.version") == version
            and service_of(container) in services
        }
    )


def recovery(lock: Record | None) -> str:
    """Return what an interrupted release needs: nothing (""), ``undo`` or ``finish``.

    Its lock notes the steps ``prepare``, ``switch`` and ``commit``; up to ``switch`` it is undone, from ``commit`` on it is finished.
    """
    journal = (lock or {}).get("journal") or {}
    if not lock or not journal.get("to"):
        return ""
    return "finish" if lock.get("step") == "commit" else "undo"


def journal_of(lock: Record | None) -> Record:
    """Return what an interrupted release left for the next run, or nothing."""
    journal = (lock or {}).get("journal") or {}
    return {"revisions": {}, "rolling": False, "kept": [], **journal} if journal else {}


def after_recovery(record: Record | None, lock: Record | None) -> Record | None:
    """Return the record as it will stand once an interrupted release was undone or finished."""
    if recovery(lock) == "finish":
        return t.cast("Record", (lock or {})["journal"]["record"])
    return record


def filled_volumes(
    data: t.Mapping[str, t.Sequence[str]], states: t.Mapping[str, t.Mapping[str, t.Any]], record: Record | None
) -> dict[str, list[str]]:
    """Return on which hosts there is something in a volume, as was recorded last for hosts that were not read.

    Args:
        data: which hosts hold the stack's data, by service of a store and by volume.
        states: what was read, by host.
        record: the fleet's record, None where nothing was released yet.
    """
    before = (record or {}).get("filled") or {}
    found: dict[str, list[str]] = {}
    for name, hosts in data.items():
        for host in hosts:
            if host in states:
                full = states[host].get("volumes", {}).get(name, {"empty": True}).get("empty") is not True
            else:
                full = host in before.get(name, ())
            if full:
                found.setdefault(name, []).append(host)
    return found


def next_record(
    record: Record | None,
    slot: str,
    version: str,
    declared: str,
    kept: int,
    data: dict[str, list[str]] | None = None,
    filled: dict[str, list[str]] | None = None,
) -> Record:
    """Return the record of a release that succeeds.

    Args:
        record: the record before it, None for a fleet's first.
        slot: the slot that serves now.
        version: its version.
        declared: the version that the inventory names.
        kept: number of versions before this one that are remembered, and whose images stay.
        data: which hosts hold the stack's data, by service of a store and by volume; None leaves that part as it is.
        filled: which of them have something in a volume; None leaves that part as it is.
    """
    before = {"slot": record["slot"], "version": record["version"]} if record else None
    same = bool(record) and record is not None and (record["slot"], record["version"]) == (slot, version)
    history = [version] + [item for item in (record or {}).get("history", []) if item != version]
    remembered = history[: kept + 1]
    # The slot before held the last one's images when that one was retired.
    gone = [*history[kept + 1 :], ((record or {}).get("previous") or {}).get("version", "")]
    return {
        "serial": int((record or {}).get("serial", 0)) + 1,
        "slot": slot,
        "version": version,
        "declared": declared,
        "previous": (record or {}).get("previous") if same else before,
        # Before a release's migration, where backups mark it; the release adds it.
        "restore_point": (record or {}).get("restore_point", {}) if same else {},
        # By these a later run knows that an empty volume is not a beginning.
        "data": (record or {}).get("data") if data is None else data,
        "filled": (record or {}).get("filled") if filled is None else filled,
        "history": remembered,
        "retired": [item for item in dict.fromkeys(gone) if item and item not in remembered],
    }


def version_before(record: Record | None) -> str:
    """Return the last other version that served before the one that serves now, or "" where none is recorded.

    One that was released again, as changed settings and rotations do, has itself in the slot before.
    """
    if not record:
        return ""
    versions = [(record.get("previous") or {}).get("version", ""), *record.get("history", [])]
    return next((str(version) for version in versions if version and version != record["version"]), "")


def wanted_version(record: Record | None, declared: str, lock: Record | None = None, *, explicit: bool, rollback: bool) -> str:
    """Return the version that is to run.

    The inventory's version is released when it changes. Until then the fleet keeps what was last released, so that ``site.yml`` does not
    take back what ``deploy.yml -e app_version=…`` brought.

    Args:
        record: the fleet's record, as it stands after an interrupted release was undone or finished.
        declared: the value of ``app_version`` in this run.
        lock: what an interrupted release left.
        explicit: whether it was given with ``-e``.
        rollback: whether the version before is asked for.

    Raises:
        ReleaseError: there is no previous version.
    """
    if rollback and not explicit and record and recovery(lock) == "undo" and not (lock or {})["journal"].get("rollback"):
        # Whoever takes back a release that died half-way wants what served before it, which is what undoing it leaves.
        return str(record["version"])
    if rollback and not explicit:
        if version := version_before(record):
            return version
        raise ReleaseError("There is no previous version to roll back to: none is recorded. Give the version with -e app_version=…")
    if record is None or explicit:
        return declared
    return str(record["version"]) if record["declared"] in ("", declared) else declared


def declared_version(record: Record | None, version: str, *, explicit: bool) -> str:
    """Return the inventory's version as far as this run can know it: a version given with -e hides it."""
    return str((record or {}).get("declared", "")) if explicit else version


def canary_weights(weight: int, live: int, canary: int) -> tuple[int, int]:
    """Return the weight of each live and of each canary server, so that the canary gets ``weight`` per cent of the requests.

    Args:
        weight: per cent, 1 to 99.
        live: number of servers in the live slot.
        canary: number of servers in the new slot.
    """
    return (100 - weight) * canary, weight * live
