# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of restore.yml does, from what was asked for and what an interrupted run has left. No Ansible in here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

Mode = Literal["list", "inspect", "end_inspection", "replace", "undo", "discard_old"]
#: Modes that exchange the data of the running stack.
IN_PLACE: tuple[Mode, ...] = ("replace", "undo")
#: The store whose data can be restored to a moment between two points.
WITH_WAL = "postgres"
#: The file on all hosts that says that data is being exchanged; all others in its folder are journals.
MARK = "under_way"
#: Phases of a journal of data that is being replaced.
PLACED = ("aside", "place")
#: What the journals of the product's volumes begin with; they belong to the store of that name.
VOLUMES = "volumes"


class RestoreError(ValueError):
    """A restore that is refused before anything is touched; the message is for the operator."""


class Asked(NamedTuple):
    """What a run was asked for; roles/restore/meta/argument_specs.yml describes each."""

    point: str = ""
    target_time: str = ""
    stores: str | Sequence[str] = ""
    into: str = "place"
    list: bool = False
    remove: bool = False
    undo: bool = False
    discard_old: bool = False


class Decision(NamedTuple):
    """What a run does.

    Attributes:
        mode: What is done.
        stores: Stores that are concerned.
        point: Name of the recovery point, or latest.
        target_time: Moment up to which PostgreSQL is restored, end, or "" for the moment of the point.
    """

    mode: Mode
    stores: list[str]
    point: str
    target_time: str

    @property
    def in_place(self) -> bool:
        """Whether the data of the running stack is exchanged."""
        return self.mode in IN_PLACE


class HostPlan(NamedTuple):
    """What follows from a decision for one host.

    Attributes:
        completed: Journals of a restore that has completed, to be removed.
        exchanges: The host's data that is exchanged.
        roles: Roles that run what uses the data, whether it is exchanged or was stopped for an exchange that did not begin.
    """

    completed: list[str]
    exchanges: list[dict[str, Any]]
    roles: list[str]


class Chosen(NamedTuple):
    """Which restore a run is.

    Attributes:
        id: The name that all of its data has in common. It is of the run that is continued, if there is one.
        returns: Of an undo, the restore whose old data is taken back, for each store that has any.
    """

    id: str
    returns: dict[str, str]


def decide(asked: Asked, known: Sequence[str], *, limited: bool) -> Decision:
    """Return what a run does.

    Args:
        asked: What it was asked for.
        known: Stores of the stack.
        limited: Whether --limit leaves hosts out.

    Raises:
        RestoreError: Nothing was asked for, or options that cannot be combined.
    """
    stores = _stores(asked, known)
    mode = _mode(asked)
    if mode is None or not set(stores) <= set(known) or (asked.target_time and WITH_WAL not in stores):
        raise RestoreError(
            "Nothing was touched. Choose one of: -e list=true; -e point=latest, or the name of a point; "
            "-e target_time=2026-11-23T02:15:00+00:00, or end; -e restore_undo=true -e stores=… to undo the last restore; "
            f"-e restore_discard_old=true to remove the old data. With a point or target_time: -e stores={','.join(known)} or some of "
            f"these (a target_time needs {WITH_WAL}), and -e into=inspect for a separate copy, which -e into=inspect -e remove=true "
            "removes."
        )
    decision = Decision(mode, stores, asked.point or "latest", asked.target_time)
    if limited and decision.in_place:
        raise RestoreError("Nothing was touched. A restore changes all hosts; run it without --limit")
    return decision


def _stores(asked: Asked, known: Sequence[str]) -> list[str]:
    """Return the stores that are concerned: a moment between points is PostgreSQL's alone, unless others are named."""
    if asked.stores:
        return [name.strip() for name in asked.stores.split(",")] if isinstance(asked.stores, str) else list(asked.stores)
    return [WITH_WAL] if asked.target_time and not asked.point else list(known)


def _mode(asked: Asked) -> Mode | None:
    """Return what was asked for; None for nothing, and for options that cannot be combined: a run does only what was confirmed."""
    wanted = bool(asked.point or asked.target_time)
    inspect = asked.into == "inspect"
    if asked.into not in ("place", "inspect") or (asked.remove and not inspect):
        return None
    if asked.undo or asked.discard_old:
        if (asked.undo and asked.discard_old) or wanted or inspect or asked.list or (asked.undo and not asked.stores):
            return None
        return "undo" if asked.undo else "discard_old"
    if asked.list:
        return None if asked.remove else "list"
    if asked.remove:
        return "end_inspection"
    if not wanted:
        return None
    return "inspect" if inspect else "replace"


def choose_restore(
    decision: Decision, new: str, left: Sequence[Mapping[str, Mapping[str, Any]]], kept: Sequence[Mapping[str, Any]]
) -> Chosen:
    """Return which restore a run is, and which it undoes; the same for all hosts.

    Args:
        decision: What the run does.
        new: A name for it, later than all others in the order of text.
        left: For each host with data, the files that an earlier run has left in the folder of restores, by their names. Without those of a
            restore that has completed.
        kept: Of an undo, all data of the stores, each with its ``store`` and the ``restores`` whose old data is kept.

    Raises:
        RestoreError: There is no restore to undo.
    """
    found = [(name, content) for host in left for name, content in host.items()]
    marks = [content for name, content in found if name == MARK]
    if decision.mode != "undo":
        begun = [mark for mark in marks if mark.get("restore") != "undo"]
        begun += [content for name, content in found if name != MARK and content.get("phase") in PLACED and "source" not in content]
        return Chosen(min((str(content["id"]) for content in begun if content.get("id")), default=new), {})
    interrupted = [mark for mark in marks if mark.get("restore") != "undo"]
    if interrupted:
        # What it has not moved stays where it is, also on hosts that it had not reached.
        return Chosen(new, dict.fromkeys(decision.stores, str(interrupted[0].get("id", ""))))
    returns: dict[str, str] = {}
    for item in kept:
        if item["restores"]:
            returns[item["store"]] = max(returns.get(item["store"], ""), *item["restores"])
    if marks:
        # What that undo has taken back is not kept any more, and what it has set aside is.
        return Chosen(str(marks[0].get("id") or new), {**returns, **marks[0].get("returns", {})})
    missing = [store for store in decision.stores if store not in returns]
    if missing:
        raise RestoreError(f"Nothing was touched. No old data of {', '.join(missing)} is kept: there is no restore to undo")
    return Chosen(new, returns)


def host_plan(
    decision: Decision,
    host: str,
    data: Sequence[Mapping[str, Any]],
    *,
    left: Mapping[str, Mapping[str, Any]],
    serving: bool,
    staged: Collection[str] = (),
    returns: Mapping[str, str] | None = None,
    kept: Mapping[str, Collection[str]] | None = None,
) -> HostPlan:
    """Return what a host has to do.

    Args:
        decision: What the run does.
        host: Its name.
        data: Its stores and volumes of the product, each with its store, its journal, its key in a point, and the role that runs it.
        left: Files that an earlier run has left in the folder of restores, by their names.
        serving: Whether the product is in service. If it is not, a restore whose data is complete goes on: its repetition must not take the
            restored data for the data from before.
        staged: Keys of the data that was restored next to the running stack.
        returns: Of an undo, the restore whose old data is taken back, for each store.
        kept: Of an undo, the restores whose old data is kept on this host, by the key of the data.

    Raises:
        RestoreError: A restore was interrupted that had begun with other stores: their journals would be read as this run's.
    """
    journals = sorted(set(left) - {MARK})
    # The mark is removed first when all data is complete.
    interrupted = MARK in left
    begun = sorted({VOLUMES if journal.startswith(f"{VOLUMES}.") else journal for journal in journals})
    if decision.in_place and interrupted and set(begun) - set(decision.stores):
        raise RestoreError(
            f"Nothing was touched. On {host}, a restore was interrupted; it had begun with {', '.join(begun)}. "
            "Give all of these with -e stores=…"
        )
    concerned = [dict(item) for item in data if (item["store"] in decision.stores if decision.mode == "undo" else item["key"] in staged)]
    exchanges = concerned
    if decision.mode == "undo":
        # Data that the restore did not replace stays where it is.
        exchanges = [
            item
            for item in concerned
            if item["journal"] in journals or (returns or {}).get(item["store"]) in (kept or {}).get(item["key"], ())
        ]
    roles = list(dict.fromkeys(item["role"] for item in concerned))
    return HostPlan(journals if serving and not interrupted else [], exchanges, roles)
