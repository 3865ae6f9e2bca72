# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say from the fleet's records what is live, what is wanted, and what an interrupted release needs. See its documentation."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from ansible_collections.slipway.stack.plugins.module_utils.containers import SLOTS
from ansible_collections.slipway.stack.plugins.plugin_utils import app_services, release
from ansible_collections.slipway.stack.plugins.plugin_utils import release_decision as decision
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import user_name
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import STATE
from ansible_collections.slipway.stack.plugins.plugin_utils.release import ReleaseError
from ansible_collections.slipway.stack.plugins.plugin_utils.release_decision import Inputs
from ansible_collections.slipway.stack.plugins.plugin_utils.release_hosts import ReleaseHosts

INPUTS = {
    "stack": {"type": "str", "required": True},
    "rolling": {"type": "bool", "required": True},
    "batch": {"type": "int", "required": True},
    "canary_weight": {"type": "int", "required": True},
    "minimum_memory_mb": {"type": "int", "required": True},
    "digests": {"type": "dict", "required": True},
    "host_header": {"type": "str", "required": True},
    "lock_lifetime": {"type": "int", "required": True},
    "canary_seconds": {"type": "int", "required": True},
    "gate_seconds": {"type": "int", "required": True},
}


def boot_id() -> str:
    """Return what identifies this boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def holder_is_gone(holder: dict[str, Any]) -> bool:
    """Return whether the run that holds a lock was started on this machine and has ended."""
    if not holder or holder.get("boot_id") != boot_id():
        return False
    return not Path(f"/proc/{holder.get('pid')}").exists()


class ActionModule(ActionBase):  # type: ignore[misc]
    """Reads records that were read before; asks no host."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the plan of the release."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={
                "app_hosts": {"type": "list", "elements": "str", "required": True},
                "balancers": {"type": "list", "elements": "str", "required": True},
                "folder": {"type": "str", "required": True},
                "version": {"type": "str", "default": ""},
                "lock_only": {"type": "bool", "default": False},
                "rollback": {"type": "bool", "default": False},
                "takeover": {"type": "bool", "default": False},
                "first": {"type": "bool", "default": True},
                "kept": {"type": "int", "default": 3},
                "data": {"type": "dict"},
                "release": {"type": "dict", "options": INPUTS},
            }
        )
        hostvars = task_vars["hostvars"]
        members = list(dict.fromkeys([*options["app_hosts"], *options["balancers"]]))
        raw = {host: hostvars.raw_get(host).get(STATE) for host in members}
        states = {host: state for host, state in raw.items() if state and "files" in state}
        try:
            lock = release.fleet_lock(states, options["folder"])
            known = None if options["lock_only"] else release.fleet_record(states, options["folder"])
        except ReleaseError as error:
            return {**result, "failed": True, "msg": f"Nothing was touched: {error}"}
        # The process that all workers of this run come of: a later run on this machine can see whether it still lives.
        parent = os.getppid()
        result.update(
            changed=False,
            run=f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{parent}",
            holder={"user": user_name(), "controller": socket.gethostname(), "pid": parent, "boot_id": boot_id()},
            stale=lock["run"] if lock and holder_is_gone(lock.get("holder") or {}) else "",
            locked_on=next((host for host, state in states.items() if release.fleet_lock({host: state}, options["folder"])), ""),
        )
        result["lock_host"] = release.lock_host(result["locked_on"], options["app_hosts"], task_vars["ansible_play_hosts_all"])
        if options["lock_only"]:
            return result
        explicit = "app_version" in load_extra_vars(self._loader)
        record = release.after_recovery(known, lock)
        live_slot = record["slot"] if record else SLOTS[0]
        images = release.serving_images(states, live_slot)
        # What a report of this run says as long as nothing has moved.
        report = {
            "version": record["version"] if record else "",
            "wanted": options["version"],
            "previous": release.version_before(record),
            "recovered": release.recovery(lock),
            "slots": dict.fromkeys(images, live_slot),
            "digests": images,
        }
        if record is None and not options["first"] and not options["rollback"]:
            hosts = ", ".join(sorted(states)) or ", ".join(members)
            why = f"Nothing was touched: no version was ever released on {hosts}, so stores may not run yet. Run site.yml first"
            return {**result, "failed": True, "msg": why, "report": report}
        try:
            version = release.wanted_version(record, options["version"], lock, explicit=explicit, rollback=options["rollback"])
        except ReleaseError as error:
            return {**result, "failed": True, "msg": str(error), "report": report}
        filled = None
        if options["data"] is not None:
            # Extra services have volumes on other hosts too.
            read = {host: hostvars.raw_get(host).get(STATE) for hosts in options["data"].values() for host in hosts}
            filled = release.filled_volumes(options["data"], {host: state for host, state in read.items() if state}, record)
        declared = release.declared_version(record, options["version"], explicit=explicit or options["rollback"])
        result.update(
            record=record,
            seen=bool(states),
            # Where balancers send requests as long as no release moves them.
            traffic={"live": live_slot, "previous": ((record or {}).get("previous") or {}).get("slot", "")},
            live={"slot": live_slot, "version": record["version"] if record else ""},
            idle={"slot": release.other(live_slot), "version": version},
            version=version,
            declared=declared,
            recover=release.recovery(lock),
            held_until="" if options["takeover"] else release.held_until(lock, states.get(result["locked_on"], {}), result["stale"]),
            interrupted=release.journal_of(lock),
            next_record=release.next_record(record, release.other(live_slot), version, declared, options["kept"], options["data"], filled),
            kept_record=release.next_record(record, live_slot, version, declared, options["kept"], options["data"], filled),
            # Configurations that balancers have once an interrupted release was undone or finished, by host, for a rollback.
            revisions=release.revisions_before(states, f"{Path(options['folder']).parent}/nginx", lock),
            report={**report, "version": report["version"] or version, "wanted": version},
        )
        if options["release"]:
            inputs = Inputs(app_hosts=options["app_hosts"], folder=options["folder"], rollback=options["rollback"], **options["release"])
            result.update(self._product(result, states, lock, inputs, ReleaseHosts(task_vars, self._loader, version), members))
        return result

    @staticmethod
    def _product(
        plan: dict[str, Any],
        states: dict[str, dict[str, Any]],
        lock: dict[str, Any] | None,
        inputs: Inputs,
        hosts: ReleaseHosts,
        members: list[str],
    ) -> dict[str, Any]:
        """Return what a release has to know of the product before it compares a slot of it."""
        product = hosts.product(inputs.app_hosts[0]) if inputs.app_hosts else {}
        services = app_services.summary(product, inputs.stack, plan["idle"]["slot"])
        stopped = services["web"] + services["workers"]
        kept = release.kept_hosts(states, plan["idle"]["slot"], plan["version"], lock, stopped) if inputs.rollback else []
        seen = hosts.seen(members, inputs)
        return {
            "inputs": dataclasses.asdict(inputs),
            "services": {name: value for name, value in services.items() if name != "checked"},
            "paths": app_services.public_paths(product, inputs.host_header),
            # Where a rollback finds what it needs; it stays there, whatever becomes of the rollback.
            "kept": kept,
            "moves": decision.moves(plan),
            "images": {name: decision.missing_images(host, plan, inputs) for name, host in seen.items() if name in inputs.app_hosts},
            "lock_seconds": decision.lock_seconds(services, inputs),
            "mistakes": decision.mistakes(inputs),
            "reasons": decision.reasons(seen, plan, inputs),
        }
