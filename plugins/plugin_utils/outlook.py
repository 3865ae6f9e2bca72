# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of site.yml would do to each service of each host, in one row each. Pure functions over what plan.py has compared."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping, Sequence

from ansible_collections.slipway.stack.plugins.plugin_utils.plan import same_major, stale_reasons

#: What happens to a service. Of a release, the whole product moves by its strategy, and no request is lost.
NOTHING, RELOAD, START, CREATE, RESTART, REMOVE = "nothing", "reload", "start", "create", "restart", "remove"
COLORS = {RESTART: "yellow", REMOVE: "yellow", NOTHING: ""}
COLUMNS = ("HOST", "SERVICE", "ACTION", "AWAY", "WHY")

Row = dict[str, t.Any]
#: What others use of a store, by whether it waits with a service: a run that applied the rest would leave these without it.
HELD: dict[str, t.Callable[[Row, set[str]], bool]] = {
    "a port for other hosts": lambda _item, missing: bool(missing),
    "passwords": lambda item, _missing: any("/secrets/" in reason for reason in item["reasons"]),
}


def action_of(item: Mapping[str, t.Any]) -> str:
    """Return what happens to a service.

    Args:
        item: The service as plan_service compared it; of one that waits, what would happen.
    """
    if item["wait_only"] or not item["reasons"]:
        return NOTHING
    if not item["exists"] and item["starts"]:
        return CREATE
    if item["restart"] or item["keep"]:
        return RESTART
    return START if item["starts"] and (item["replaced"] or item["resume"]) else RELOAD


def rows(host: str, role: str, plan: dict[str, t.Any], containers: Mapping[str, Mapping[str, t.Any]]) -> list[Row]:
    """Return a row for each service of a role on a host.

    Args:
        host: The host.
        role: The role.
        plan: What plan_services compared.
        containers: The containers of the host.

    Returns:
        Each with ``host``, ``role``, ``service``, ``action``, ``reasons``, ``away_s`` (the seconds that it may be away, at most), ``data``
        (whether its data is at risk, as another major version or another volume takes its place), ``waits`` (for ``accept=restart``), and
        ``holds_back`` (what others need of it that waits too). Rows of containers that run and are removed have ``serves``.
    """
    found = []
    for item in plan["services"]:
        if item["one_shot"] and not item["needed"]:
            continue
        action = action_of(item)
        there = containers.get(item["container"]) or {}
        moved = [name for name, mount in there.get("volumes", {}).items() if mount["mode"] == "rw" and name not in item["owned_volumes"]]
        published = {binding for bindings in there.get("ports", {}).values() for binding in bindings}
        wanted = {address.rpartition(":")[0] for address in item["options"].get("published_ports", ())}
        other = bool(there) and action == RESTART and item["interrupts"] and not same_major(there["image"], item["options"]["image"])
        found.append(
            {
                "host": host,
                "role": role,
                "service": item["name"],
                "action": action,
                "reasons": item["reasons"] if action != NOTHING else [],
                "away_s": item["stop_timeout"] + item["healthy_timeout"] if action == RESTART else 0,
                "data": bool(item["interrupts"] and moved) or other,
                "waits": item in plan["waiting"],
                "holds_back": [what for what, held in HELD.items() if item in plan["waiting"] and held(item, wanted - published)],
            }
        )
    removed = [simple_row(host, role, reason.partition(":")[0], REMOVE, [reason]) for reason in stale_reasons(plan)]
    return found + [{**row, "serves": True} if row["service"] in plan["stale_running"] else row for row in removed]


def simple_row(host: str, role: str, service: str, action: str, reasons: list[str]) -> Row:
    """Return the row of what takes no service away."""
    row = {"host": host, "role": role, "service": service, "action": action, "reasons": reasons}
    return {**row, "away_s": 0, "data": False, "waits": False, "holds_back": []}


def outlook(
    compared: Sequence[Row], reasons: Mapping[str, Mapping[str, list[str]]], release: Mapping[str, t.Any], product: str = "app"
) -> list[Row]:
    """Return all rows, those of the product as the release does it.

    Args:
        compared: The rows of all hosts.
        reasons: By role and host what else differs.
        release: The plan of the release.
        product: The role that runs the product.
    """
    strategy = "rolling" if release["inputs"]["rolling"] else "blue_green"
    recreated = any(row["role"] == product and (row["action"] == RESTART or row.get("serves")) for row in compared)
    moves = bool(release["record"]) and (release["moves"] or recreated)
    versions = [f"version {release['record']['version']} becomes {release['version']}"] if release["moves"] and release["record"] else []
    found = [
        {**row, "action": strategy, "away_s": 0, "reasons": row["reasons"] or versions or ["it moves with the product's other services"]}
        if moves and row["role"] == product and row["action"] != REMOVE
        else {key: value for key, value in row.items() if key != "serves"}
        for row in compared
    ]
    known = {(row["host"], reason) for row in found for reason in _sentences(row)}
    others = [
        simple_row(host, role, role, RELOAD, left)
        for role, hosts in reasons.items()
        for host, sentences in hosts.items()
        if (left := [sentence for sentence in sentences if (host, sentence) not in known and not (moves and role == "release")])
        if role != product or not moves
    ]
    return found + others


def _sentences(row: Row) -> list[str]:
    """Return a row's reasons as fleet_plan says them."""
    return [reason if row["action"] == REMOVE else f"{row['service']}: {reason}" for reason in row["reasons"]]


def lines(found: Sequence[Row]) -> list[dict[str, str]]:
    """Return the rows for a terminal, each line with its ``text`` and ``color``."""
    cells = [COLUMNS]
    for row in found:
        away = f"at most {row['away_s']} s" if row["away_s"] else "-"
        risk = ["another major version or volume: its data stays where it is"] if row["data"] else []
        cells.append((row["host"], row["service"], row["action"], away, "; ".join([*row["reasons"], *risk]) or "-"))
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    colors = ["", *(COLORS.get(row["action"], "green") for row in found)]
    return [{"text": text, "color": color} for text, color in zip(texts, colors, strict=True)]


def waiting_text(row: Row) -> str:
    """Return what a service waits for and how to accept it."""
    return (
        f"waits for a restart, of at most {row['away_s']} s: {'; '.join(row['reasons'])}. Accept it: playbooks/site.yml -e accept=restart"
    )
