#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold a fleet's release lock, which is its journal too."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_lock
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Take, keep and give back the lock of a fleet's releases
description:
  - The lock is one file on one host. It contains its holder, the old and the new version of the release, and how far it has come,
    so that the next run can undo or finish what an interrupted one left.
  - A lock is taken over when it has expired, when O(stale) names the very run that holds it, or with O(takeover).
options:
  path:
    description: The lock file.
    type: path
    required: true
  state:
    description:
      - V(held) takes the lock, or notes a further O(step) where this run has it.
      - V(renewed) restarts O(lifetime) for the run that has it, and fails if another one took it over, even if that has ended.
      - V(absent) gives it back; one that another run holds stays.
    type: str
    choices: [held, renewed, absent]
    default: held
  run:
    description: Name of this run, the same in all its calls.
    type: str
    required: true
  holder:
    description: Who holds it, for people and for judging whether the holder is gone.
    type: dict
    default: {}
  journal:
    description: What the next run must know of this one.
    type: dict
    default: {}
  purpose:
    description:
      - What the lock is held for where it is not for a release, as messages name it.
      - What an interrupted release has left in the lock is kept in the meantime, and is there again once the lock is released.
    type: str
    default: ""
  step:
    description: How far the release has come.
    type: str
    default: ""
  lifetime:
    description: Seconds after which the lock expires; each record of a step restarts them.
    type: int
    default: 900
  serial:
    description:
      - Number of the record next to the lock, V(state.json), that the run has read, or that stands once it has finished an interrupted
        release. A later one is of a release since, so the run's plan is out of date and the lock is refused. V(-1) does not look.
    type: int
    default: -1
  restore_mark:
    description:
      - File that a restore keeps from before it stops the product until all data is complete. Where it exists, the lock is refused, with
        O(takeover) too. Empty does not look.
    type: path
    default: ""
  stale:
    description: Name of a run that is known to be gone.
    type: str
    default: ""
  takeover:
    description: Take the lock whoever holds it.
    type: bool
    default: false
extends_documentation_fragment:
  - slipway.stack.attributes.not_in_check_mode
"""

EXAMPLES = r"""
- name: Take the lock
  slipway.stack.release_lock:
    path: /etc/slipway/slipway/release/lock.json
    run: 20260101T120000-4711
    holder: {user: deploy, controller: ci-7, pid: 4711}
    step: prepare
"""

RETURN = r"""
refused:
  description: Whether the lock was refused, because another run holds it or has released since, or because a restore exchanges data.
  returned: failure
  type: bool
lock:
  description: The lock's content.
  returned: success
  type: dict
"""

import contextlib
import fcntl
import json
import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.config_files import make_folder, write_file
from ansible_collections.slipway.stack.plugins.module_utils.release_locks import is_free


def read_lock(path: str) -> dict[str, t.Any] | None:
    """Return the content of the lock, or of the record next to it, None if there is none; an incomplete file counts as none."""
    try:
        with open(path, encoding="utf-8") as file:
            return t.cast("dict[str, t.Any]", json.load(file))
    except (OSError, ValueError):
        return None


def write_lock(path: str, lock: dict[str, t.Any]) -> None:
    """Replace the lock atomically."""
    write_file(path, json.dumps(lock, indent=1, sort_keys=True), 0o644)


def refusal(lock: dict[str, t.Any]) -> str:
    """Return who holds the lock, for what, since when, and what to do."""
    what = lock.get("purpose") or "A release"
    holder = lock.get("holder", {})
    who = f"{holder.get('user', 'an unknown user')} on {holder.get('controller', 'another machine')} (process {holder.get('pid', '?')})"
    return (
        f"{what} is in progress: {who} holds the lock since {lock.get('since')}, step {lock.get('step')}. It expires at "
        f"{lock.get('expires_at')}. Wait until it ends. If you know that it no longer runs, take the lock over with "
        "-e release_lock_takeover=true"
    )


def newer_release(path: str, serial: int) -> str:
    """Return why a run's plan is out of date: another run has recorded a release since; "" if it is not.

    Args:
        path: the lock file.
        serial: the record's number that the run knows.
    """
    record = read_lock(os.path.join(os.path.dirname(path), "state.json")) or {}
    if serial < 0 or int(record.get("serial", 0)) <= serial:
        return ""
    return (
        f"Another run has released version {record.get('version')} since this one read the hosts, so what this one has planned is out of "
        "date: run it again"
    )


def lost(lock: dict[str, t.Any] | None) -> str:
    """Return why a run can no longer change the fleet, which has lost its lock."""
    now = refusal(lock) if lock and lock.get("run") else "The other run has ended: run this again"
    return f"The lock of this run had expired or was taken over, and another run has changed the fleet. {now}"


def restoring(mark: str) -> str:
    """Return why a run must not start the product: a restore exchanges data; "" if none does.

    A run that read the hosts before the restore began has not seen its mark.
    """
    if not mark or not os.path.exists(mark):
        return ""
    return (
        "A restore has begun and not ended: wait until it ends. If it was interrupted, run it again with playbooks/restore.yml, or go back "
        "with -e restore_undo=true -e stores=… (docs/restore.md)"
    )


def interrupted(lock: dict[str, t.Any] | None) -> dict[str, t.Any]:
    """Return the lock of a release that died, which the next release needs; empty where there is none."""
    kept = (lock or {}).get("interrupted") or lock or {}
    return kept if (kept.get("journal") or {}).get("to") else {}


def taken(lock: dict[str, t.Any] | None, options: dict[str, t.Any], now: float) -> dict[str, t.Any]:
    """Return the lock as this run holds it.

    Args:
        lock: the lock as it is.
        options: the module's.
        now: the time, in seconds since the epoch.
    """
    ours = bool(lock) and lock is not None and lock.get("run") == options["run"]
    left = interrupted(lock) if options["purpose"] else {}
    new = {
        "run": options["run"],
        "since": lock["since"] if ours and lock else stamp(now),
        "holder": options["holder"] or (lock or {}).get("holder", {}),
        "journal": options["journal"] or (lock or {}).get("journal", {}),
        "step": left.get("step", options["step"]),
        "expires": now + options["lifetime"],
        "expires_at": stamp(now + options["lifetime"]),
    }
    if options["purpose"]:
        # Should this run die too, a release finds the journal where it looks for it.
        new |= {"purpose": options["purpose"], "journal": left.get("journal", {}), "interrupted": left}
    return new


def stamp(seconds: float) -> str:
    """Return a time as UTC text."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["held", "renewed", "absent"], "default": "held"},
            "run": {"type": "str", "required": True},
            "holder": {"type": "dict", "default": {}},
            "journal": {"type": "dict", "default": {}},
            "purpose": {"type": "str", "default": ""},
            "step": {"type": "str", "default": ""},
            "lifetime": {"type": "int", "default": 900},
            "serial": {"type": "int", "default": -1},
            "restore_mark": {"type": "path", "default": ""},
            "stale": {"type": "str", "default": ""},
            "takeover": {"type": "bool", "default": False},
        }
    )
    options = module.params
    if options["state"] == "absent" and not os.path.isdir(os.path.dirname(options["path"])):
        # Never deployed, or just destroyed.
        module.exit_json(changed=False, lock={})
    make_folder(os.path.dirname(options["path"]))
    # The kernel decides between two runs that start at once, not the order of their reads.
    with open(f"{options['path']}.guard", "w", encoding="ascii") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        lock, now = read_lock(options["path"]), time.time()
        ours = (lock or {}).get("run", "") == options["run"]
        if options["state"] == "absent":
            left = (lock or {}).get("interrupted")
            if ours and left:
                write_lock(options["path"], left)
            elif ours:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(options["path"])
            module.exit_json(changed=ours, lock={})
        if options["state"] == "renewed" and not ours:
            module.fail_json(msg=lost(lock), refused=True)
        if lock and not is_free(lock, {options["run"], options["stale"]}, now) and not options["takeover"]:
            module.fail_json(msg=refusal(lock), refused=True)
        if not ours and (why := restoring(options["restore_mark"]) or newer_release(options["path"], options["serial"])):
            module.fail_json(msg=why, refused=True)
        new = taken(lock, options, now)
        write_lock(options["path"], new)
    module.exit_json(changed=True, lock=new)


if __name__ == "__main__":
    main()
