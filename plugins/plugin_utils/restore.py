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


def host_plan(
    decision: Decision,
    host: str,
    data: Sequence[Mapping[str, Any]],
    *,
    left: Collection[str],
    left_by_undo: bool,
    serving: bool,
    staged: Collection[str],
) -> HostPlan:
    """Return what a host has to do.

    Args:
        decision: What the run does.
        host: Its name.
        data: Its stores and volumes of the product, each with its store, its journal, its key in a point, and the role that runs it.
        left: Names of the files that an earlier run has left in the folder of restores.
        left_by_undo: Whether that run was an undo.
        serving: Whether the product is in service. If it is not, a restore whose data is complete goes on: its repetition must not take the
            restored data for the data from before.
        staged: Keys of the data that was restored next to the running stack.

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
    if decision.mode == "undo" and interrupted and not left_by_undo:
        # For others the restore had stopped the product, but not moved their data: it stays where it is.
        exchanges = [item for item in concerned if item["journal"] in journals]
    roles = list(dict.fromkeys(item["role"] for item in concerned))
    return HostPlan(journals if serving and not interrupted else [], exchanges, roles)
