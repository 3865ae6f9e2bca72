"""The firewall of published ports: a chain for each stack, loaded where it differs, and gone where nothing is limited any more."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.filter.fleet import CHAIN_LENGTH, firewall_chain
from conftest import role_variable

PORTS = [{"address": "10.0.0.1", "port": 5432, "peers": ["10.0.0.2"], "variable": "postgres_port"}]
OTHERS = ["-N SLIPWAY-shop2", "-A DOCKER-USER -j SLIPWAY-shop2", "-A SLIPWAY-shop2 -p tcp -j RETURN"]
UNIT = "/etc/systemd/system/slipway-shop-firewall.service"
RULES = "/etc/slipway/shop/firewall.rules"
ENABLED = "/etc/systemd/system/multi-user.target.wants/slipway-shop-firewall.service"
SHARED_UNIT = "/etc/systemd/system/slipway-firewall.service"


def variable(name: str, files: dict[str, Any] | None = None, rules: list[str] | None = None, ports: Any = PORTS) -> Any:
    """Return a variable of the role on a host with these files and rules."""
    state = {
        "files": files or {},
        "firewall": ["-N DOCKER-USER", *OTHERS, *(rules or [])],
        "tools": dict.fromkeys(("docker", "dockerd", "ip", "iptables", "logrotate", "requests"), True),
        "engine": {"available": True},
    }
    return role_variable("host", name, {"host_stack": "shop", "host_restricted_ports": ports, "container_service_host_state": state})


def kept() -> dict[str, Any]:
    """Return the files with which the rules are there after the next boot, too."""
    contents = {UNIT: variable("__host_firewall_unit_content"), RULES: variable("__host_firewall_content")}
    return {path: {"content": content} for path, content in contents.items()} | {ENABLED: {"link": UNIT}}


def test_rules_are_loaded_where_they_or_their_unit_differ_and_another_stack_does_not_matter() -> None:
    listed = variable("__host_firewall_listed")
    unit = kept()
    assert listed[:2] == ["-A DOCKER-USER -j SLIPWAY-shop", "-N SLIPWAY-shop"]
    assert len(listed) == 4
    assert not variable("__host_firewall_differs", unit, listed)
    assert variable("__host_firewall_differs")
    assert variable("__host_firewall_differs", unit)
    for edited in (UNIT, RULES):
        assert variable("__host_firewall_differs", {**unit, edited: {"content": "edited"}}, listed)
    for gone in (UNIT, RULES, ENABLED):
        assert variable("__host_firewall_differs", {path: file for path, file in unit.items() if path != gone}, listed), gone
    assert variable("__host_firewall_differs", unit, [*listed, "-A SLIPWAY-shop -p tcp -j RETURN"])


def test_rules_go_when_nothing_is_limited_any_more() -> None:
    there = {UNIT: {"content": ""}}
    assert variable("__host_firewall_differs", there, ports=[])
    assert variable("__host_firewall_stale_units", there, ports=[]) == [UNIT]
    assert not variable("__host_firewall_differs", ports=[])


def test_the_chain_that_all_stacks_had_goes_once_the_own_one_is_there() -> None:
    listed = variable("__host_firewall_listed")
    files = {**kept(), SHARED_UNIT: {"content": "x"}}
    assert variable("__host_firewall_differs", files, [*listed, "-N SLIPWAY"])
    assert variable("__host_firewall_stale_units", files, listed) == [SHARED_UNIT]
    assert variable("__host_firewall_files", files)[SHARED_UNIT] == "/etc/slipway-firewall.rules"


@pytest.mark.parametrize("length", [1, 20, 21, 41])
def test_a_chain_has_a_name_that_iptables_takes(length: int) -> None:
    names = {firewall_chain("a" * length), firewall_chain("a" * (length - 1) + "b")}
    assert len(names) == 2
    assert all(name.startswith("SLIPWAY-a" if length > 1 else "SLIPWAY-") and len(name) <= CHAIN_LENGTH for name in names)
