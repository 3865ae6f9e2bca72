# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide how a release goes: what is missing before it, and then its mode, its batches, what each host does, and how it is undone.

Pure functions over what was read from the hosts. release.py says which version is wanted; the tasks of the role release carry out what is
decided here; docs/release.md describes the steps.
"""

from __future__ import annotations

import typing as t
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.slipway.stack.plugins.module_utils.containers import JOB_LABEL, service_of, slot_owner
from ansible_collections.slipway.stack.plugins.module_utils.engine import normal_reference
from ansible_collections.slipway.stack.plugins.module_utils.images import repository_of
from ansible_collections.slipway.stack.plugins.plugin_utils import app_services
from ansible_collections.slipway.stack.plugins.plugin_utils.image_records import old_images, to_bring
from ansible_collections.slipway.stack.plugins.plugin_utils.release import Record, read_json, versions_of_others

#: Memory in MB that a slot takes however little is known of it.
LEAST_SLOT_MB = 256


@dataclass(frozen=True)
class Inputs:
    """How the inventory wants the product to be released.

    Attributes:
        app_hosts: All hosts that run the product, in the inventory's order.
        stack: Name of the stack.
        folder: Where the record is on each host.
        rolling: Whether batches of hosts stop the old slot before they start the new one.
        batch: Number of hosts in a batch.
        canary_weight: Per cent of the requests that the new slot gets first.
        rollback: Whether the version before is asked for.
        minimum_memory_mb: Memory that a second slot needs; 0 for what the serving one takes.
        digests: Images that builds have recorded, by version.
        host_header: Name of the site, which clients ask for.
        lock_lifetime: Seconds that the fleet's lock stands beyond what a release waits for.
        canary_seconds: Seconds that the canary takes.
        gate_seconds: Seconds that a batch may take to answer once it is healthy, and to drain.
    """

    app_hosts: Sequence[str]
    stack: str = "slipway"
    folder: str = ""
    rolling: bool = False
    batch: int = 1
    canary_weight: int = 0
    rollback: bool = False
    minimum_memory_mb: int = 0
    digests: Mapping[str, t.Any] = field(default_factory=dict)
    host_header: str = ""
    lock_lifetime: int = 900
    canary_seconds: int = 0
    gate_seconds: int = 0


@dataclass(frozen=True)
class Host:
    """What is known of a host of this run.

    Attributes:
        state: What was read from it, as host_state describes it.
        product: The services that it runs; empty for a host that only balances.
        compared: How its live slot differs, as service_plan says it; empty where it was not compared.
        images: Images of all services of the product, by service, those of other hosts too.
    """

    state: Mapping[str, t.Any]
    product: Mapping[str, t.Any] = field(default_factory=dict)
    compared: Mapping[str, t.Any] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)


def batches(hosts: Iterable[str], size: int) -> list[dict[str, list[str]]]:
    """Return the batches in which hosts take their turn, each with ``hosts``, and those whose turn is ``before`` and ``after``.

    Args:
        hosts: names of the hosts, in their order.
        size: number of hosts in a batch, 1 or more.
    """
    hosts = list(hosts)
    return [
        {"hosts": hosts[at : at + int(size)], "before": hosts[:at], "after": hosts[at + int(size) :]}
        for at in range(0, len(hosts), int(size))
    ]


def slot_containers(
    containers: Mapping[str, dict[str, t.Any]],
    slot: str,
    services: Collection[str] | None = None,
    except_services: Collection[str] = (),
    running: bool | None = None,
) -> list[str]:
    """Return the names of a slot's containers on a host, without those of jobs, which never start.

    Args:
        containers: the stack's containers on the host, as ``host_state`` lists them.
        slot: the slot.
        services: services that are meant; None for all.
        except_services: services that are not meant.
        running: whether they run; None for either.
    """
    return sorted(
        name
        for name, container in containers.items()
        if container["owner"] == slot_owner(slot)
        and JOB_LABEL not in container["labels"]
        and service_of(container) not in except_services
        and (services is None or service_of(container) in services)
        and running in (None, container["running"])
    )


def slot_memory(containers: Mapping[str, Mapping[str, t.Any]], slot: str) -> int:
    """Return the MB of memory that a slot's containers take now, and ``LEAST_SLOT_MB`` at least, as for one that is not up.

    Args:
        containers: the stack's containers on a host, as ``host_state`` lists them.
        slot: the slot, or "" for one of which nothing is known.
    """
    used = sum(container.get("memory_used", 0) for container in containers.values() if container["owner"] == slot_owner(slot))
    return max(LEAST_SLOT_MB, -(-used // 2**20))


def moved_hosts(states: Mapping[str, Mapping[str, t.Any]], slot: str, others: Collection[str]) -> list[str]:
    """Return the hosts that a rolling release has stopped or moved, the last one first: not all containers of the slot before run there.

    Args:
        states: what the app hosts have now, in the order in which they took their turns.
        slot: the slot before.
        others: services that a host's turn does not stop: those that last, and workers that were stopped everywhere before the first turn.
    """
    return [
        host
        for host, state in reversed(list(states.items()))
        if slot_containers(state["containers"], slot, except_services=others, running=False)
    ]


def mistakes(inputs: Inputs) -> list[str]:
    """Return what is wrong with the inputs, taken together."""
    found = []
    if inputs.rolling and inputs.batch >= len(inputs.app_hosts):
        found.append(
            f"a rolling release takes app_release_batch ({inputs.batch}) hosts out at a time, and group app has {len(inputs.app_hosts)}, "
            "but one must go on serving: lower it, or, with a single host, set app_release_strategy to blue_green"
        )
    if inputs.batch < 1:
        found.append("app_release_batch must be 1 or more")
    if inputs.rolling and inputs.canary_weight > 0:
        found.append("a rolling release has no canary: set app_canary_weight to 0, or app_release_strategy to blue_green")
    return found


def lock_seconds(services: Mapping[str, t.Any], inputs: Inputs) -> int:
    """Return how long the fleet's lock stands, which no step renews: as long as all that a release waits for may take, and its lifetime.

    Args:
        services: the product's services, as app_services.summary says them.
        inputs: how the product is released.
    """
    turns = -(-len(inputs.app_hosts) // max(inputs.batch, 1)) if inputs.rolling else 1
    canary = inputs.canary_seconds if inputs.canary_weight > 0 else 0
    # A batch stops what it ran before; workers stop before the first start, or once requests go to the new slot; and the old slot retires.
    stops = (turns if inputs.rolling else 0) + bool(services["first"]) + bool(services["drained"]) + 1
    waits = int(services["migrate_seconds"]) + canary + turns * (int(services["start_seconds"]) + inputs.gate_seconds)
    return inputs.lock_lifetime + waits + stops * int(services["stop_seconds"])


def moves(plan: Record) -> bool:
    """Return whether another version is to run than the one that serves."""
    return bool(plan["record"]) and plan["version"] != plan["record"]["version"]


def missing_images(host: Host, plan: Record, inputs: Inputs) -> dict[str, t.Any]:
    """Return the images that a host needs for the version that is to run, and which of them it lacks.

    Returns:
        ``all`` (by service), ``recorded`` (those that a build has recorded, as to_bring says it), and ``named`` (the names of others, as
        the engine lists them).
    """
    names = app_services.images(host.product)
    there = host.state["images"]
    recorded = to_bring({**host.images, **names}, inputs.digests.get(str(plan["version"])), there, services=names)
    brought = {normal_reference(item["name"]) for item in recorded}
    named = [name for name in dict.fromkeys(map(normal_reference, names.values())) if name not in there and name not in brought]
    return {"all": names, "recorded": recorded, "named": named}


def unneeded_images(host: Host, plan: Record, inputs: Inputs) -> list[str]:
    """Return the names of the images of other versions that a host does not need once the fleet has moved to the other slot.

    Another stack of the host may run the same product, and keep other versions of it.
    """
    replaced = slot_owner(plan["idle"]["slot"])
    ours = [item for item in host.state["containers"].values() if item["owner"] != replaced]
    foreign = [item.get("image", "") for item in host.state.get("foreign_containers", {}).values()]
    used = [*(item.get("image", "") for item in ours), *foreign]
    next_record = plan["next_record"]
    names = {**host.images, **app_services.images(host.product)}.values()
    versions = (str(plan["version"]), next_record["history"], next_record["retired"])
    found = old_images(names, *versions, inputs.digests, host.state["images"], used)
    shared, kept = {repository_of(normal_reference(image)) for image in foreign}, versions_of_others(host.state["files"], inputs.folder)
    return [name for name in found if repository_of(name) not in shared or not any(version in name.rpartition(":")[2] for version in kept)]


def is_recorded(plan: Record) -> bool:
    """Return whether the fleet's record is as this run would write it if nothing moves."""
    record, kept = plan["record"], plan["kept_record"]
    return bool(record) and all(record.get(part) == kept[part] for part in ("version", "declared", "data"))


def without_record(hosts: Mapping[str, Host], plan: Record, inputs: Inputs) -> list[str]:
    """Return the hosts whose record is not the fleet's."""
    path = f"{inputs.folder}/state.json"
    return [name for name, host in hosts.items() if not is_recorded(plan) or read_json(host.state["files"], path, name) != plan["record"]]


def lock_reason(plan: Mapping[str, t.Any]) -> str:
    """Return what a run does about a lock of the fleet that another one holds or has left, in a sentence; "" where there is none."""
    if not plan["locked_on"]:
        return ""
    if plan["held_until"]:
        return f"another run holds the fleet's lock on {plan['locked_on']}: wait until it ends. The lock expires at {plan['held_until']}"
    if not plan["recover"]:
        return f"an interrupted run has left the fleet's lock on {plan['locked_on']}"
    ends = [plan["interrupted"][end] for end in ("from", "to")]
    before, after = reversed(ends) if plan["recover"] == "undo" else ends
    return (
        f"an interrupted release is {'undone' if plan['recover'] == 'undo' else 'finished'}: version {before['version']} in slot "
        f"{before['slot']} becomes {after['version']} in slot {after['slot']}"
    )


def reasons(hosts: Mapping[str, Host], plan: Record, inputs: Inputs) -> dict[str, list[str]]:
    """Return by host why a run has something to do in addition to the containers that are compared."""
    found: dict[str, list[str]] = {}
    stale = without_record(hosts, plan, inputs)
    for name, host in hosts.items():
        said = [lock_reason(plan)] if plan["locked_on"] else []
        if moves(plan):
            said.append(f"version {plan['record']['version']} becomes {plan['version']}")
        else:
            said += [f"{item['name']} will be pulled by its digest" for item in missing_images(host, plan, inputs)["recorded"]]
        if name in stale:
            said.append(f"version {plan['version']} will be recorded, with the hosts that hold data")
        found[name] = said
    return found


def mode(hosts: Iterable[Host], plan: Record, inputs: Inputs) -> str:
    """Return what a run does with the product once what an interrupted release left was undone or finished.

    Returns:
        ``nothing``, ``in_place`` (the slot that serves is changed), or ``blue_green`` or ``rolling`` (the fleet moves to the other slot).
        It moves if a container is replaced, or if one that runs is removed: balancers still send it requests, and it holds its port.
    """
    compared = [host.compared for host in hosts if host.compared]
    recreated = any(service["recreate"] and not service["by_hand"] for found in compared for service in found["services"])
    removed = any(found["stale_running"] for found in compared)
    if plan["record"] and (moves(plan) or recreated or removed):
        return "rolling" if inputs.rolling else "blue_green"
    differs = any(found[part] for found in compared for part in ("needed", "stale", "stale_folders"))
    return "in_place" if differs else "nothing"


def is_ready(host: Host, starting: Collection[str]) -> bool:
    """Return whether a slot is as declared once some of its containers have started.

    Args:
        host: the host, whose slot was compared.
        starting: names of the containers.
    """
    needed = [item for item in host.compared["needed"] if not item["wait_only"] and item["container"] not in starting]
    changes = [item for item in host.compared["needed"] if item["files"] or item["make"] or item["converge"]]
    return not (host.compared["stale"] or needed or changes)


def of_host(name: str, host: Host, plan: Record, inputs: Inputs) -> dict[str, t.Any]:
    """Return what an app host does when the fleet moves to the other slot.

    Returns:
        ``resumes`` (whether containers of the version are there, and only start), ``starts`` (whether any of these has to), ``ready``
        (whether nothing else is to be made), ``awaited`` (by container of a slot that is ready, the seconds until it must be healthy),
        ``stands_by`` (whether they run already, with their memory), ``memory_mb`` (that a second slot needs), ``images``,
        ``unneeded_images``, and ``checked`` (what the containers of the new slot answer on).
    """
    live, idle = plan["live"], plan["idle"]
    services = app_services.summary(host.product, inputs.stack, idle["slot"])
    containers = host.state["containers"]
    resumes = name in plan["kept"] and not inputs.rolling
    stands_by = bool(slot_containers(containers, idle["slot"], services["web"], running=True))
    starts = resumes and (not stands_by or bool(services["workers"]))
    # Workers that must be alone start once those before them have stopped.
    stopped = slot_containers(containers, idle["slot"], except_services=services["lasting"] + services["first"], running=False)
    starting = [item for item in stopped if starts and containers[item]["labels"].get("slipway.version") == idle["version"]]
    return {
        "resumes": resumes,
        "starts": starts,
        "ready": resumes and bool(host.compared) and is_ready(host, starting),
        "awaited": {item["container"]: item["healthy_timeout"] for item in host.compared.get("needed", []) if item["wait"]},
        "stands_by": stands_by,
        # The version before is the best guess at what a version takes; but a rollback may be from one that takes too much, and to one
        # that ran here before.
        "memory_mb": inputs.minimum_memory_mb or slot_memory(containers, "" if inputs.rollback else live["slot"]),
        "images": missing_images(host, plan, inputs),
        "unneeded_images": unneeded_images(host, plan, inputs),
        "checked": services["checked"],
    }


def decide(hosts: Mapping[str, Host], plan: Record, inputs: Inputs) -> dict[str, t.Any]:
    """Return all that the tasks of a release carry out.

    Args:
        hosts: the hosts of this run, app hosts in the inventory's order.
        plan: which version is wanted, and what is recorded, as release_plan says it.
        inputs: how the product is released.

    Returns:
        ``mode``; ``batches`` (in which app hosts start, all at once if not rolling); ``hosts`` (of_host, for each app host);
        ``only_resumes`` (whether all app hosts start what they have, and nothing else); ``prepares`` (whether balancers have their next
        configuration validated before the switch); ``journal`` (what the next run must know if this one dies, and what undoing needs if a
        step fails), whose ``record`` stands once the release has succeeded; and ``record`` and ``record_hosts`` (what is recorded where, if
        nothing moves).
    """
    here = [name for name in inputs.app_hosts if name in hosts]
    record = plan["record"] if is_recorded(plan) else plan["kept_record"]
    return {
        "mode": mode((hosts[name] for name in here), plan, inputs),
        "batches": batches(here, inputs.batch if inputs.rolling else max(len(here), 1)),
        "hosts": {name: of_host(name, hosts[name], plan, inputs) for name in here},
        "only_resumes": len(plan["kept"]) == len(inputs.app_hosts) and not inputs.rolling,
        # Where nothing else is declared there meanwhile.
        "prepares": not inputs.rolling and inputs.canary_weight == 0,
        "journal": {
            "from": plan["live"],
            "to": plan["idle"],
            "record": _written(plan["next_record"]),
            "rollback": inputs.rollback,
            "revisions": plan["revisions"],
            "rolling": inputs.rolling,
            "kept": plan["kept"],
        },
        "record": _written(record),
        "record_hosts": without_record(hosts, plan, inputs),
    }


def _written(record: Record) -> Record:
    """Return a record as it is written to hosts, which need not know whose images go."""
    return {key: value for key, value in record.items() if key != "retired"}
