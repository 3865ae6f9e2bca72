#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give the Docker Engine other options, and the former ones back when it does not come up with them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_options
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Change the Docker Engine's daemon.json, and undo it where the engine does not start
description:
  - Lays the options over those of the file's owner. Options that this module wrote before, that are no longer wanted and that have
    not been changed since are removed; with another log driver all options of the former one are.
  - Has C(dockerd --validate) check them, together with the flags that the engine was started with, before the file is replaced. A file
    behind a symbolic link stays there, and it keeps its mode and owner.
  - An engine takes some options over while it runs; for the others it is restarted. Before a restart C(live-restore) is switched on if the
    options ask for it, so that all containers live on. Where it is not on, a restart stops containers; O(accept) says how much of that
    is accepted.
  - When the engine does not answer with the new options, the former file is put back and the engine is started with it. The module fails.
    A change that was interrupted is finished or undone by the next call.
options:
  options:
    description: Options that the file is to have, as JSON. Not logged, as a proxy may have a password.
    type: json
    required: true
  path:
    description: The file.
    type: path
    default: /etc/docker/daemon.json
  accept:
    description:
      - What a restart may stop; nothing (V(nothing)), containers that the engine starts again by their restart policy (V(restart)), or any
        container (V(stop)).
    type: str
    choices: [nothing, restart, stop]
    default: nothing
extends_documentation_fragment:
  - slipway.stack.attributes.not_in_check_mode
"""

EXAMPLES = r"""
- name: Let containers live on while the engine restarts
  slipway.stack.engine_options:
    options: {live-restore: true}
"""

RETURN = r"""
done:
  description: V(nothing), V(started), V(reloaded) or V(restarted).
  returned: success
  type: str
"""

import json
import os
import time
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError, read_text, write_file
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.engine_options import (
    ACCEPTED,
    ANSWER_TIMEOUT,
    ENGINE_OPTIONS,
    RELOADABLE,
    STARTED_AGAIN,
    UNACCEPTED,
    UNIT,
    UNNAMED,
    WRITTEN,
    Found,
    Options,
    Run,
    can_live_on,
    flags_of,
    pending,
    read_found,
    refuse_change,
    refuse_restart,
    restart_policy,
    run_program,
    running,
    target_of,
    text_of,
)
from ansible_collections.slipway.stack.plugins.module_utils.secret_module import SecretModule

#: Seconds to wait until the containers that a restart has stopped run again and are healthy.
BACK_TIMEOUT = 120


def answers(engine: Engine, seconds: float) -> bool:
    """Wait until the engine answers; return whether it does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            engine.version()
        except EngineError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
        else:
            return True


def write(path: str, text: str) -> None:
    """Replace the file where it really is, with the mode and the owner that it has."""
    place = os.path.realpath(path)
    try:
        info = os.stat(place)
    except FileNotFoundError:
        # Proxies may have a login in their URLs.
        write_file(place, text, 0o600)
    else:
        write_file(place, text, info.st_mode & 0o7777, info.st_uid, info.st_gid)


def lets_live(engine: Engine, options: Options, found: Found, path: str, run: Run) -> bool:
    """Return whether containers live on while the engine restarts, and switch that on before where the options ask for it."""
    if not can_live_on(engine, options):
        return False
    if not engine.get("/info").get("LiveRestoreEnabled"):
        write(path, text_of({**found.accepted, "live-restore": True}))
        run("systemctl", "reload", UNIT)
        time.sleep(1)
    return bool(engine.get("/info").get("LiveRestoreEnabled"))


def leaves_live_restore(engine: Engine, options: Options, run: Run) -> bool:
    """Return whether the engine has live-restore, and is to be without it. A flag stays."""
    has = engine.get("/info").get("LiveRestoreEnabled") and not options.get("live-restore")
    return bool(has) and not any(flag.startswith("--live-restore") for flag in flags_of(run))


def load(engine: Engine, how: str, run: Run) -> None:
    """Have the engine read its file, by ``reload`` or ``restart``.

    Raises:
        RefusedError: it does not run after that.
    """
    run("systemctl", "enable", UNIT)
    # Failed starts of before count against the ones to come.
    run("systemctl", "reset-failed", UNIT)
    status, printed = run("systemctl", how, UNIT)
    if status or not answers(engine, ANSWER_TIMEOUT):
        raise RefusedError(f"the engine does not run with its new options: {printed}\n{log_of(run)}")


def wait_until_back(engine: Engine, stopped: list[dict[str, t.Any]], seconds: float) -> None:
    """Wait until the containers that a restart has stopped run again, and are healthy: the next host's turn comes then."""
    waiting = {inspected["Id"] for inspected in stopped if restart_policy(inspected) in STARTED_AGAIN}
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        for name in sorted(waiting):
            state = (engine.inspect(name) or {}).get("State")
            if state is None or (state.get("Running") and (state.get("Health") or {}).get("Status", "healthy") == "healthy"):
                waiting.discard(name)
        if waiting:
            time.sleep(1)


def apply(options: Options, path: str, accept: str, engine: Engine, run: Run = run_program) -> str:
    """Do what the module's documentation says; return what was done.

    Raises:
        RefusedError: the engine refuses the options, or must not be restarted; it runs with the former ones.
    """
    found = read_found(path)
    target = target_of(found, options)
    changed = pending(found, target)
    runs = answers(engine, 0)
    refuse_change(found, target, engine if runs else None, accept, run)
    if not changed and not found.interrupted:
        if runs:
            return "nothing"
        run("systemctl", "enable", "--now", UNIT)
        if not answers(engine, ANSWER_TIMEOUT):
            raise RefusedError(f"the engine does not start:\n{log_of(run)}")
        return "started"
    reload = runs and changed <= RELOADABLE
    # Until the engine has accepted them: a run that dies leaves it to the next one.
    write_file(path + UNACCEPTED, text_of({"former": found.text, "options": target}), 0o600)
    restarted, stopped = False, []
    try:
        if runs and not reload and not lets_live(engine, target, found, path, run):
            refuse_restart(engine, changed, accept)
            stopped = running(engine)
        leaves = runs and leaves_live_restore(engine, target, run)
        off = {name: UNNAMED[name] for name in changed & {*UNNAMED} - {*target}} | ({"live-restore": False} if leaves else {})
        restarted = not reload
        if reload:
            write(path, text_of({**target, **off}))
            load(engine, "reload", run)
        else:
            # An engine that comes back without it stops the containers that have lived on, and starts none of them again.
            first = {**target, "live-restore": True} if leaves else target
            write(path, text_of(first))
            load(engine, "restart", run)
            if leaves:
                write_file(path + UNACCEPTED, text_of({"former": text_of(first), "options": target}), 0o600)
                write(path, text_of({**target, "live-restore": False}))
                load(engine, "reload", run)
        write(path, text_of(target))
    except (RefusedError, EngineError) as error:
        # An interrupted change may be what the engine does not run with.
        came_back = put_back(found.text, path, engine, run, was=runs or found.interrupted, restarted=restarted)
        os.unlink(path + UNACCEPTED)
        after = "The engine has its former options." if came_back else f"It does not run with its former options either:\n{log_of(run)}"
        raise RefusedError(f"{error}\n{after}") from error
    write_file(path + WRITTEN, text_of(options), 0o600)
    os.unlink(path + UNACCEPTED)
    wait_until_back(engine, stopped, BACK_TIMEOUT)
    return "reloaded" if reload else "restarted"


def log_of(run: Run) -> str:
    """Return the last lines that the engine has logged."""
    return run("journalctl", "--unit", UNIT, "--lines", "8", "--no-pager", "--output", "cat")[1]


def put_back(former: str | None, path: str, engine: Engine, run: Run, *, was: bool, restarted: bool) -> bool:
    """Give the engine the file that it had, and start it where it ran; return whether it answers, if it did."""
    now = read_text(path)
    if now != former:
        if former is None:
            os.unlink(os.path.realpath(path))
        else:
            write(path, former)
    if not was:
        return True
    if answers(engine, 0):
        # It may have come up with the new ones after all, and late. Of what was switched on for the restart it takes the former value.
        if restarted or now != former:
            run("systemctl", "restart" if restarted else "reload", UNIT)
    else:
        run("systemctl", "reset-failed", UNIT)
        run("systemctl", "start", UNIT)
    return answers(engine, ANSWER_TIMEOUT)


def main() -> None:
    """Run the module."""
    module = SecretModule(
        argument_spec={
            "options": {"type": "json", "required": True, "no_log": True},
            "path": {"type": "path", "default": ENGINE_OPTIONS},
            "accept": {"type": "str", "choices": list(ACCEPTED), "default": ACCEPTED[0]},
        }
    )
    options = module.params
    try:
        done = apply(json.loads(options["options"]), options["path"], options["accept"], Engine())
    except (RefusedError, EngineError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=done != "nothing", done=done)


if __name__ == "__main__":
    main()
