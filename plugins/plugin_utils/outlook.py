# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of site.yml would do to each service of each host, in one row each. Pure functions over what plan.py has compared."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping, Sequence

from ansible_collections.slipway.stack.plugins.module_utils.containers import BEFORE, NEXT, TRIAL, service_of
from ansible_collections.slipway.stack.plugins.module_utils.engine import normal_reference
from ansible_collections.slipway.stack.plugins.module_utils.engine_options import ANSWER_TIMEOUT, CONTAINERS_STOP, RESTARTS
from ansible_collections.slipway.stack.plugins.plugin_utils.plan import same_major, stale_reasons
from ansible_collections.slipway.stack.plugins.plugin_utils.release_decision import lock_reason

#: What happens to a service. Of a release, the whole product moves by its strategy, and no request is lost.
NOTHING, RELOAD, START, CREATE, RESTART, REMOVE = "nothing", "reload", "start", "create", "restart", "remove"
#: What happens to a release while another run holds the fleet's lock.
REFUSED = "refused"
COLORS = {RESTART: "yellow", REMOVE: "yellow", REFUSED: "yellow", NOTHING: ""}
MIGRATES = "a release runs it before its new containers start"
SWITCHES = "a release switches it to the other slot"
COLUMNS = ("HOST", "SERVICE", "ACTION", "AWAY", "WHY")

Row = dict[str, t.Any]
PASSING = (NEXT, BEFORE, TRIAL)
#: Fields of rows() that outlook() alone reads.
PRIVATE = {"image", "image_id", "migrates", "moves", "sentences", "of", "runs", "stop_s", "healthy_s"}
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
    if not item["exists"] and item["replaced"]:
        return CREATE
    if item["restart"] or item["keep"] or item["taken_up"]:
        return RESTART
    return START if item["starts"] and (item["replaced"] or item["stopped"]) else RELOAD


def rows(host: str, role: str, plan: dict[str, t.Any], containers: Mapping[str, Mapping[str, t.Any]]) -> list[Row]:
    """Return a row for each service of a role on a host.

    Args:
        host: The host.
        role: The role.
        plan: What plan_services compared.
        containers: The containers of the host.

    Returns:
        Each with ``host``, ``role``, ``service``, ``action``, ``reasons``, ``downtime_s`` (seconds, at most), ``data``
        (whether its data is at risk, as another image, major version or volume takes its place), ``waits`` (for ``accept=restart``), and
        ``holds_back`` (what others need of it that waits too). For outlook(): ``image`` and ``image_id`` of the container that is there,
        ``migrates`` (whether a release runs it), ``moves`` (whether the product needs a release, as release_decision.mode() decides),
        ``of`` (the product's service), ``runs`` (whether its container does now), ``stop_s`` and ``healthy_s`` (seconds that it may take to
        stop, and to be healthy), and of what is removed ``sentences``, why, as fleet_plan says it.
    """
    found = []
    for item in plan["services"]:
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
                "downtime_s": item["stop_timeout"] + item["healthy_timeout"] if action == RESTART else 0,
                "data": bool(item["interrupts"] and moved) or other,
                "waits": item in plan["waiting"],
                "holds_back": [what for what, held in HELD.items() if item in plan["waiting"] and held(item, wanted - published)],
                "image": there.get("image", ""),
                "image_id": there.get("image_id", ""),
                "moves": item["recreate"] and not item["by_hand"] and not item["one_shot"],
                "migrates": item["one_shot"],
                "of": service_of({"labels": item["options"].get("labels", {})}),
                "runs": bool(there.get("running")) and item["starts"] and not item["one_shot"],
                "stop_s": item["stop_timeout"],
                "healthy_s": item["healthy_timeout"],
            }
        )
    return found + _removals(host, role, plan, containers)


def _removals(host: str, role: str, plan: dict[str, t.Any], containers: Mapping[str, Mapping[str, t.Any]]) -> list[Row]:
    """Return the rows of what is no longer declared, a container with its folder in one."""
    found: dict[str, Row] = {}
    for name, sentence in zip([*plan["stale"], *plan["stale_folders"]], stale_reasons(plan), strict=True):
        # What an interrupted run has left is of a service that is declared.
        label = "" if name.endswith(PASSING) else containers.get(name, {}).get("labels", {}).get("slipway.service", "")
        why = sentence.partition(": ")[2]
        row = found.setdefault(label or name, {**simple_row(host, role, label or name, REMOVE, [why]), "moves": False, "sentences": []})
        row["sentences"].append(sentence)
        row["moves"] |= name in plan["stale_running"]
    return list(found.values())


def simple_row(host: str, role: str, service: str, action: str, reasons: list[str]) -> Row:
    """Return the row of what takes no service away."""
    row = {"host": host, "role": role, "service": service, "action": action, "reasons": reasons}
    return {**row, "downtime_s": 0, "data": False, "waits": False, "holds_back": []}


def outlook(
    compared: Sequence[Row],
    reasons: Mapping[str, Mapping[str, list[str]]],
    release: Mapping[str, t.Any],
    product: str = "app",
    balancer: str = "nginx",
) -> list[Row]:
    """Return all rows, those of the product and its balancers as the release does it.

    Args:
        compared: The rows of all hosts.
        reasons: By role and host what else differs.
        release: The plan of the release.
        product: The role that runs the product.
        balancer: The role that sends it requests.
    """
    strategy = "rolling" if release["inputs"]["rolling"] else "blue_green"
    compared = [{**row, **_built_again(row, release)} if row["role"] == product else row for row in compared]
    moves = bool(release["record"]) and (release["moves"] or any(row["role"] == product and row.get("moves") for row in compared))
    versions = [f"version {release['record']['version']} becomes {release['version']}"] if release["moves"] and release["record"] else []
    locked = lock_reason(release)
    recovers = "" if release["held_until"] else release["recover"]
    engines = {host: text for host, texts in reasons.get("host", {}).items() for text in texts if CONTAINERS_STOP in text}
    found = []
    for row in compared:
        released = moves and row["role"] == product and row["action"] != REMOVE
        if row.get("migrates") and row["action"] == NOTHING and not released:
            continue
        shown = {name: value for name, value in row.items() if name not in PRIVATE}
        if released:
            why = [MIGRATES] if row.get("migrates") else row["reasons"] or versions or ["it moves with the product's other services"]
            shown |= {"action": strategy, "downtime_s": _between_slots(row, release), "reasons": why}
        elif recovers and row["role"] == product and row["action"] == NOTHING:
            shown |= {"action": recovers, "reasons": [locked]}
        elif moves and row["role"] == balancer and row["action"] != REMOVE:
            shown |= {"action": RELOAD if row["action"] == NOTHING else row["action"], "reasons": [*row["reasons"], SWITCHES]}
        if row["host"] in engines and row.get("runs") and row["action"] in (NOTHING, RELOAD, RESTART):
            shown |= {"action": strategy if released else RESTART, "reasons": [*shown["reasons"], engines[row["host"]]]}
            shown["downtime_s"] += _without_engine(row, compared)
        found.append(shown)
    known = {(row["host"], reason) for row in compared for reason in _sentences(row)}
    others = []
    for role, hosts in reasons.items():
        # The product's own rows say why it moves.
        told = moves and role in (product, "release")
        for host, texts in hosts.items():
            if left := [text for text in texts if (text == locked if told else (host, text) not in known)]:
                action = RESTART if any(text.startswith(RESTARTS) for text in left) else RELOAD
                if locked in left:
                    action = REFUSED if release["held_until"] else recovers or RELOAD
                engine = engines.get(host)
                away = [row["downtime_s"] for row in found if row["host"] == host and engine in left and engine in row["reasons"]]
                others.append({**simple_row(host, role, role, action, left), "downtime_s": max(away, default=0)})
    return found + others


def _without_engine(row: Row, compared: Sequence[Row]) -> int:
    """Return the seconds at most for which a restart of the engine stops a service: the engine waits for the slowest to stop."""
    slowest = max(other["stop_s"] for other in compared if other["host"] == row["host"] and other.get("runs"))
    return int(slowest + ANSWER_TIMEOUT + row["healthy_s"])


def _between_slots(row: Row, release: Mapping[str, t.Any]) -> int:
    """Return the seconds at most for which a release stops a service on a host before it starts it in the other slot.

    Requests go to other hosts meanwhile. A worker that must be alone stops on all hosts before the first of them has its turn.
    """
    services, inputs = release["services"], release["inputs"]
    first = row.get("of") in services["first"]
    if not row.get("runs") or not (first or (inputs["rolling"] and row["of"] in services["workers"])):
        return 0
    stop, start = services["stop_seconds"], services["start_seconds"]
    earlier = 0
    if first and inputs["rolling"]:
        turns = inputs["app_hosts"].index(row["host"]) // inputs["batch"]
        earlier = turns * (inputs["gate_seconds"] + stop + start) + inputs["gate_seconds"] + stop
    return int(earlier + stop + row["healthy_s"])


def _built_again(row: Row, release: Mapping[str, t.Any]) -> Row:
    """Return what a release knows in addition of a row: a run pulls the image that was built last, and then replaces the container."""
    if release["moves"] or not row.get("image"):
        return {}
    names = [
        item["name"]
        for item in release["images"].get(row["host"], {}).get("recorded", ())
        if normal_reference(item["name"]) == row["image"] and row["image_id"] not in {item["digest"], item["id"]}
    ]
    return {"moves": True, "reasons": [*row["reasons"], *(f"image {name} was built again" for name in names)]} if names else {}


def _sentences(row: Row) -> list[str]:
    """Return a row's reasons as fleet_plan says them."""
    return list(row.get("sentences", ())) or [f"{row['service']}: {reason}" for reason in row["reasons"]]


def lines(found: Sequence[Row]) -> list[dict[str, str]]:
    """Return the rows for a terminal, each line with its ``text`` and ``color``."""
    cells = [COLUMNS]
    for row in found:
        away = f"at most {row['downtime_s']} s" if row["downtime_s"] else "-"
        risk = ["another image, major version or volume: its data stays where it is"] if row["data"] else []
        cells.append((row["host"], row["service"], row["action"], away, "; ".join([*row["reasons"], *risk]) or "-"))
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    colors = ["", *(COLORS.get(row["action"], "green") for row in found)]
    return [{"text": text, "color": color} for text, color in zip(texts, colors, strict=True)]


def waiting_text(row: Row) -> str:
    """Return what a service waits for and how to accept it."""
    reasons = "; ".join(row["reasons"])
    return f"waits for a restart, of at most {row['downtime_s']} s: {reasons}. Accept it: playbooks/site.yml -e accept=restart"
