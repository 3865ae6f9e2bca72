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
  - Has C(dockerd --validate) check the options, together with the flags that the engine was started with, before the file is replaced.
  - An engine takes some options over while it runs; for the others it is restarted. Before a restart C(live-restore) is switched on if the
    options ask for it, so that all containers live on. Where it is not on, a restart stops containers whose restart policy does not start
    them again; it is refused unless O(accept_restart) is set.
  - When the engine does not answer with the new options, the former file is put back and the engine is started with it. The module fails.
options:
  options:
    description: All options of the file.
    type: dict
    required: true
  path:
    description: The file.
    type: path
    default: /etc/docker/daemon.json
  accept_restart:
    description: Whether a restart may stop containers of others that nothing starts again.
    type: bool
    default: false
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

import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError, read_text, write_file
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.engine_options import (
    ENGINE_OPTIONS,
    RELOADABLE,
    UNIT,
    Run,
    can_live_on,
    changes,
    read_options,
    refuse_change,
    refuse_restart,
    run_program,
    text_of,
)

#: Seconds until an engine must answer.
ANSWER_TIMEOUT = 60


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


def lets_live(engine: Engine, options: dict[str, t.Any], former: dict[str, t.Any], path: str, run: Run) -> bool:
    """Return whether containers live on while the engine restarts, and switch that on before where the options ask for it."""
    if not can_live_on(engine, options):
        return False
    if not engine.get("/info").get("LiveRestoreEnabled"):
        write_file(path, text_of({**former, "live-restore": True}), 0o644)
        run("systemctl", "reload", UNIT)
        time.sleep(1)
    return bool(engine.get("/info").get("LiveRestoreEnabled"))


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


def apply(options: dict[str, t.Any], path: str, accept: bool, engine: Engine, run: Run = run_program) -> str:
    """Do what the module's documentation says; return what was done.

    Raises:
        RefusedError: the engine refuses the options, or must not be restarted; it runs with the former ones.
    """
    former_text, former = read_options(path)
    if former == options and former_text is not None:
        if answers(engine, 0):
            return "nothing"
        run("systemctl", "enable", "--now", UNIT)
        if not answers(engine, ANSWER_TIMEOUT):
            raise RefusedError(f"the engine does not start:\n{log_of(run)}")
        return "started"
    runs = answers(engine, 0)
    refuse_change(former, options, engine if runs else None, accept, run)
    changed = changes(former, options)
    reload = runs and changed <= RELOADABLE
    try:
        if runs and not reload and not lets_live(engine, options, former, path, run):
            refuse_restart(engine, changed, accept)
        write_file(path, text_of(options), 0o644)
        load(engine, "reload" if reload else "restart", run)
    except (RefusedError, EngineError) as error:
        put_back(former_text, path, engine, run, was=runs)
        raise RefusedError(f"{error}\nThe engine has its former options.") from error
    return "reloaded" if reload else "restarted"


def log_of(run: Run) -> str:
    """Return the last lines that the engine has logged."""
    return run("journalctl", "--unit", UNIT, "--lines", "8", "--no-pager", "--output", "cat")[1]


def put_back(former: str | None, path: str, engine: Engine, run: Run, was: bool) -> None:
    """Give the engine the file that it had, and start it where it ran."""
    now = read_text(path)
    if now != former:
        if former is None:
            os.unlink(path)
        else:
            write_file(path, former, 0o644)
    if not was:
        return
    if answers(engine, 0):
        # Of what was switched on for the restart it takes the former value.
        if now != former:
            run("systemctl", "reload", UNIT)
        return
    run("systemctl", "reset-failed", UNIT)
    run("systemctl", "start", UNIT)
    answers(engine, ANSWER_TIMEOUT)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "options": {"type": "dict", "required": True},
            "path": {"type": "path", "default": ENGINE_OPTIONS},
            "accept_restart": {"type": "bool", "default": False},
        }
    )
    options = module.params
    try:
        done = apply(options["options"], options["path"], options["accept_restart"], Engine())
    except (RefusedError, EngineError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=done != "nothing", done=done)


if __name__ == "__main__":
    main()
