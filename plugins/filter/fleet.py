# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn the hosts of a fleet into addresses and rules."""

from __future__ import annotations

import hashlib
import ipaddress
import typing as t
from urllib.parse import urlsplit

from ansible.errors import AnsibleFilterError

from ansible_collections.slipway.stack.plugins.plugin_utils import plan, release_decision
from ansible_collections.slipway.stack.plugins.plugin_utils.release import images_that_run
from ansible_collections.slipway.stack.plugins.plugin_utils.server_names import concrete_server_name

CHAIN_LENGTH = 28


def firewall_chain(stack: str) -> str:
    """Return the name of the chain that limits a stack's ports; iptables takes 28 characters at most, and a stack's name may have 41."""
    name = f"SLIPWAY-{stack}"
    return name if len(name) <= CHAIN_LENGTH else f"{name[: CHAIN_LENGTH - 9]}-{hashlib.sha256(stack.encode()).hexdigest()[:8]}"


def firewall_rules(ports: list[dict[str, t.Any]], chain: str) -> list[str]:
    """Return the rules of a stack's chain, in the very form in which iptables lists them.

    Args:
        ports: published ports, each with ``address``, ``port`` and ``peers``.
        chain: name of the chain.

    Raises:
        AnsibleFilterError: a peer is not an IPv4 address or network.
    """
    rules = []
    for item in sorted(ports, key=lambda entry: (int(entry["port"]), entry["address"])):
        # By the address and port the client asked for: DOCKER-USER sees packets after their destination was rewritten.
        match = f"-p tcp -m conntrack --ctorigdst {item['address']} --ctorigdstport {item['port']} --ctdir ORIGINAL"
        for peer in sorted(set(item["peers"])):
            try:
                network = ipaddress.IPv4Network(peer)
            except ValueError as error:
                raise AnsibleFilterError(f"firewall_rules: port {item['port']}: {peer!r} is not an IPv4 address or network") from error
            rules.append(f"-A {chain} -s {network} {match} -j RETURN")
        # A reset instead of silence: a client that is not admitted learns it at once, and the address can be seen to be alive.
        rules.append(f"-A {chain} {match} -j REJECT --reject-with tcp-reset")
    return rules


def firewall_in_place(listed: list[str], chain: str, rules: list[str]) -> bool:
    """Return whether the kernel has a stack's rules, and asks them before a rule of others accepts a packet.

    Without rules, whether none are left. Chains of other stacks limit their own ports alone, so they may come first. On the host,
    ``firewall.sh`` of the role host decides the same.

    Args:
        listed: what ``iptables -S`` lists of DOCKER-USER and of stacks' chains, in this order.
        chain: name of the stack's chain.
        rules: its rules, as :func:`firewall_rules` returns them.
    """
    if not rules:
        return f"-N {chain}" not in listed
    jump = f"-A DOCKER-USER -j {chain}"
    called = (rule for rule in listed if rule.startswith("-A DOCKER-USER "))
    first = next((rule for rule in called if rule == jump or not rule.startswith("-A DOCKER-USER -j SLIPWAY")), "")
    own = [rule for rule in listed if rule.startswith(f"-A {chain} ")]
    return first == jump and "-A FORWARD -j DOCKER-USER" in listed and own == rules


def site_name(names: t.Sequence[str], url: str = "") -> str:
    """Return the name by which clients ask for the site, or "" where none is known.

    Args:
        names: names as ``server_name`` of nginx takes them. Those that stand for many, such as ``*.example.com``, come last.
        url: the site's address, whose host counts where no name is exact.
    """
    try:
        host = urlsplit(str(url)).hostname or ""
        return concrete_server_name(names, "", known="" if ":" in host else host)
    except ValueError:
        # A name or an address that is not valid is reported as such.
        return ""


def moved_hosts(hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Any], slot: str, others: t.Collection[str]) -> list[str]:
    """Return what the function of that name in release_decision.py returns for hosts as they were read last."""
    return release_decision.moved_hosts({host: hostvars[host]["container_service_host_state"] for host in hosts}, slot, others)


def left_behind(hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Any]) -> list[str]:
    """Return what the function of that name in plan.py returns for hosts as they were compared last."""
    plans = {host: hostvars[host]["container_service_plan"] for host in hosts if "container_service_plan" in hostvars[host]}
    return plan.left_behind(
        {host: found.get("volumes_left", {}) for host, found in plans.items()},
        {host: found.get("volumes_of_data", {}) for host, found in plans.items()},
    )


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {
            "firewall_chain": firewall_chain,
            "firewall_in_place": firewall_in_place,
            "firewall_rules": firewall_rules,
            "fleet_batches": release_decision.batches,
            "images_that_run": images_that_run,
            "left_behind": left_behind,
            "moved_hosts": moved_hosts,
            "site_name": site_name,
            "slot_containers": release_decision.slot_containers,
        }
