# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn published ports into the rules of a stack's firewall."""

from __future__ import annotations

import hashlib
import ipaddress
import typing as t

from ansible.errors import AnsibleFilterError

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


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {
            "firewall_chain": firewall_chain,
            "firewall_in_place": firewall_in_place,
            "firewall_rules": firewall_rules,
        }
