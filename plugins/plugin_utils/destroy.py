# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what destroy.yml removes, before anything is touched."""

from __future__ import annotations

from typing import Any

from ansible_collections.slipway.stack.plugins.module_utils.removal import VOLUME_NAME, kind, stack_problem


def volumes_problem(volumes: Any) -> str:
    """Return why a value cannot name the volumes to remove, or "" when it can."""
    example = """-e '{"slipway_destroy_volumes": ["redis_data"]}'"""
    if not isinstance(volumes, list):
        return f"slipway_destroy_volumes must be a list, not {kind(volumes)}: write {example}"
    wrong = [name for name in volumes if not isinstance(name, str) or not VOLUME_NAME.fullmatch(name)]
    if wrong:
        return f"slipway_destroy_volumes has {wrong[0]!r}, which is not the name of a volume: write {example}"
    return ""


def destroy_problems(stack: Any, confirmed: Any, volumes: Any) -> list[str]:
    """Return what is wrong with the inputs of destroy.yml, before any host is asked."""
    found = [problem for problem in (stack_problem(stack), volumes_problem(volumes)) if problem]
    if not found and confirmed != stack:
        other = f"slipway_destroy is {confirmed!r}, and this inventory's stack is {stack}. " if confirmed else ""
        found.append(f"{other}To take the stack off its hosts, name it: -e slipway_destroy={stack}")
    return found


def destroy_plan(stack: str, volumes: list[str], state: dict[str, Any]) -> dict[str, Any]:
    """Return what destroying a stack removes from a host, by exact names that were read there.

    Args:
        stack: name of the stack.
        volumes: names of the volumes to remove.
        state: what the host has, as host_state describes it.

    Returns:
        ``owners`` and ``containers`` (those without labels), ``networks``, ``volumes``, ``kept_volumes``,
        ``others`` (further stacks there), ``present``, and ``problems``, because of which nothing may be touched.
    """

    def label(thing: dict[str, Any]) -> str:
        return str(thing.get("labels", {}).get("slipway.stack", ""))

    problems = []
    if not state["engine"]["available"] and any(state["tools"].get(name) for name in ("docker", "dockerd")):
        problems.append(f"the Docker Engine does not answer, so that containers would stay behind: {state['engine']['error']}")
    chosen = sorted(set(volumes) & set(state["volumes"]))
    for name in chosen:
        owner = label(state["volumes"][name])
        if owner not in {"", stack}:
            problems.append(f"the volume {name} belongs to the stack {owner}: leave it out of slipway_destroy_volumes")
        users = sorted(other for other, found in state["foreign_containers"].items() if name in found.get("volumes", ()))
        if users:
            problems.append(f"the volume {name} is used by the container {users[0]}, which is not part of the stack: remove that first")
    containers = state["containers"]
    networks = sorted(name for name, network in state["networks"].items() if label(network) == stack)
    labelled = [thing for kind in ("volumes", "networks") for thing in state[kind].values()]
    return {
        "problems": problems,
        "owners": sorted({found["owner"] for found in containers.values() if label(found) == stack}),
        "containers": sorted(name for name, found in containers.items() if not label(found)),
        "networks": networks,
        "volumes": chosen,
        "kept_volumes": sorted(name for name, volume in state["volumes"].items() if label(volume) == stack and name not in chosen),
        "others": sorted({label(thing) for thing in labelled} - {"", stack}),
        "present": bool(containers or networks or chosen),
    }
