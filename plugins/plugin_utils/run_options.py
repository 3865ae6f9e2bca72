# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of ansible-playbook by which a run would leave out its checks, or hosts that were meant, or do nothing at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.inventory.manager import split_host_pattern

from ansible_collections.slipway.stack.plugins.plugin_utils.input_names import nearest

START_AT_TASK = (
    "--start-at-task leaves out the tasks that check the inputs and read the hosts, which all others need; "
    "run the whole playbook: what is done already is left as it is"
)
#: Tags of all tasks, or of those that check the inputs.
_EVERY_TASK = ("all", "always", "untagged")


def option_problems(arguments: Mapping[str, Any], inventory: Any) -> list[str]:
    """Return what is wrong with the options that a run was started with.

    Args:
        arguments: The options, by Ansible's names for them.
        inventory: The inventory as Ansible has read it.
    """
    problems = [START_AT_TASK] if arguments.get("start_at_task") else []
    skipped = [tag for tag in arguments.get("skip_tags") or () if tag in _EVERY_TASK]
    if skipped:
        problems.append(f"--skip-tags {','.join(skipped)} leaves out the tasks that check the inputs, or all others; leave it out")
    return problems + _limit_problems(arguments.get("subset"), inventory)


def _limit_problems(limit: str | None, inventory: Any) -> list[str]:
    """Return which parts of a --limit select no host: Ansible warns of them, and goes on with the others.

    A group without hosts may be excluded, as one for maintenance, which has some from time to time.
    """
    if limit is None:
        return []
    if not limit.strip():
        return ["--limit is empty, so that all hosts would be selected; name hosts or groups in it, or leave it out"]
    known = ["localhost", *inventory.groups, *inventory.hosts]
    # A file of names, as Ansible writes one of hosts that failed, may have any.
    parts = [part for part in split_host_pattern(limit) if not part.startswith("@")]
    problems = []
    for part in parts:
        name = part.lstrip("!&")
        if name in ("localhost", "127.0.0.1", "::1") or inventory.get_hosts(name, ignore_limits=True):
            continue
        if name not in inventory.groups:
            what = f"the inventory has neither such a host nor such a group{nearest(name, known)}"
            problems.append(f"--limit has {name}, and {what}; correct it")
        elif not part.startswith("!"):
            problems.append(f"--limit has {name}, and this group has no host; add one to it, or leave it out")
    return problems
