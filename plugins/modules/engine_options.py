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

import json
import os
import shutil
import subprocess
import tempfile
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError, read_text, write_file
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError

#: Options that a running engine takes over upon SIGHUP. https://docs.docker.com/reference/cli/dockerd/#configuration-reload-behavior
RELOADABLE = {
    *("debug", "labels", "live-restore", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts"),
    *("default-runtime", "runtimes", "authorization-plugins", "insecure-registries", "registry-mirrors", "shutdown-timeout", "features"),
}
#: Options with which an engine has other images, containers and volumes, or none. One that fails to start with them also takes the file
#: systems away from containers that live on.
FOUNDATIONS = {"data-root", "storage-driver", "storage-opts", "exec-root", "userns-remap", "containerd"}
#: Policies by which the engine starts a container again when it comes back itself.
STARTED_AGAIN = {"always", "unless-stopped"}
#: Seconds until an engine must answer.
ANSWER_TIMEOUT = 60
UNIT = "docker.service"

Run = t.Callable[..., tuple[int, str]]


def run_program(*argv: str) -> tuple[int, str]:
    """Run a program of the host; return its exit status and all that it printed."""
    # Called without a module.
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout.strip()


def text_of(options: dict[str, t.Any]) -> str:
    """Return the text of the file."""
    return json.dumps(options, indent=4, sort_keys=True) + "\n"


def flags_of(run: Run) -> list[str]:
    """Return the flags of the engine that runs; without those of sockets that systemd hands over."""
    _status, pid = run("systemctl", "show", UNIT, "--property=MainPID", "--value")
    text = read_text(f"/proc/{pid}/cmdline") if pid.isdigit() and pid != "0" else ""
    return [part for part in (text or "").split("\0")[1:] if part]


def check(options: dict[str, t.Any], run: Run) -> None:
    """Have the engine's program check the options.

    Raises:
        RefusedError: it refuses them.
    """
    if not shutil.which("dockerd", path="/usr/sbin:/usr/bin:/usr/local/bin:/sbin:/bin"):
        return
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = os.path.join(folder, "daemon.json")
        write_file(path, text_of(options), 0o600, os.getuid(), os.getgid())
        status, printed = run("dockerd", *flags_of(run), "--validate", f"--config-file={path}")
    # An engine before 23 has no such flag.
    if status and "unknown flag: --validate" not in printed:
        raise RefusedError(
            f"the engine refuses its options: {printed[-1500:].replace(path, 'daemon.json')}\n"
            "Nothing was changed. Correct host_engine_options; an option that the engine's unit sets as a flag cannot be set here, too: "
            "remove the flag (systemctl cat docker), or the option"
        )


def stopped_for_good(engine: Engine) -> list[str]:
    """Return the names of running containers that a restart without live-restore ends, and nothing starts again."""
    found = []
    for short in engine.containers():
        inspected = engine.inspect(short["Id"])
        if inspected and inspected["State"].get("Running"):
            policy = (inspected["HostConfig"].get("RestartPolicy") or {}).get("Name") or "no"
            if policy not in STARTED_AGAIN:
                found.append(f"{inspected['Name'].lstrip('/')} (restart policy {policy})")
    return sorted(found)


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
    info = engine.get("/info")
    if info.get("LiveRestoreEnabled"):
        return True
    if not options.get("live-restore"):
        return False
    if (info.get("Swarm") or {}).get("LocalNodeState") not in (None, "", "inactive"):
        raise RefusedError(
            "this host is a node of a swarm, and the engine does not start with live-restore there: leave the swarm (docker swarm leave), "
            "or set host_engine_options without live-restore. Nothing was changed"
        )
    write_file(path, text_of({**former, "live-restore": True}), 0o644)
    run("systemctl", "reload", UNIT)
    time.sleep(1)
    return bool(engine.get("/info").get("LiveRestoreEnabled"))


def refuse_restart(engine: Engine, changed: set[str], accept: bool) -> None:
    """Refuse a restart that stops what nothing starts again.

    Raises:
        RefusedError: there is such a container, and the caller has not accepted that.
    """
    stopped = [] if accept else stopped_for_good(engine)
    if stopped:
        why = f"{', '.join(sorted(changed - RELOADABLE))} in daemon.json can only be changed by a restart of the engine"
        raise RefusedError(
            f"{why}. It stops containers that nothing starts again: {', '.join(stopped)}. Give them a restart policy "
            "(docker update --restart unless-stopped …), or accept that with host_accept_engine_restart: true"
        )


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
    former_text = read_text(path)
    try:
        former = json.loads(former_text or "{}")
    except ValueError as error:
        raise RefusedError(f"{path} is not valid JSON: {error}. Correct it, or remove it; nothing was changed") from error
    if former == options and former_text is not None:
        if answers(engine, 0):
            return "nothing"
        run("systemctl", "enable", "--now", UNIT)
        if not answers(engine, ANSWER_TIMEOUT):
            raise RefusedError(f"the engine does not start:\n{log_of(run)}")
        return "started"
    check(options, run)
    changed = {name for name in {*former, *options} if former.get(name) != options.get(name)}
    runs = answers(engine, 0)
    if runs and changed & FOUNDATIONS and engine.containers():
        raise RefusedError(
            f"{', '.join(sorted(changed & FOUNDATIONS))} in host_engine_options differs from daemon.json, and the engine has containers, "
            "which it would not find again. Nothing was changed: move the engine's data by hand, and change daemon.json then"
        )
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
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
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
