# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which options a Docker Engine can be given, known before its file is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError, read_text, write_file
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError

#: Where the engine reads them.
ENGINE_OPTIONS = "/etc/docker/daemon.json"
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
            f"the engine refuses its options: {printed[-1500:].replace(path, 'daemon.json')}. "
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


def read_options(path: str) -> tuple[str | None, dict[str, t.Any]]:
    """Return the text of the file, None where there is none, and its options.

    Raises:
        RefusedError: it is not valid.
    """
    text = read_text(path)
    try:
        options = json.loads(text or "{}")
        wrong = "" if isinstance(options, dict) else "it is not an object"
    except ValueError as error:
        options, wrong = {}, str(error)
    if wrong:
        raise RefusedError(f"{path} is not valid JSON: {wrong}. Correct it, or remove it; nothing was changed")
    return text, options


def merged(former: dict[str, t.Any], options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return options with others over them, those of dictionaries one by one, as Ansible's filter combine does with recursive=true."""
    both = {name: merged(former[name], value) for name, value in options.items() if _are_dicts(former.get(name), value)}
    return {**former, **options, **both}


def _are_dicts(one: t.Any, other: t.Any) -> bool:
    return isinstance(one, dict) and isinstance(other, dict)


def changes(former: dict[str, t.Any], options: dict[str, t.Any]) -> set[str]:
    """Return the names of the options that differ."""
    return {name for name in {*former, *options} if former.get(name) != options.get(name)}


def can_live_on(engine: Engine, options: dict[str, t.Any]) -> bool:
    """Return whether containers can live on while the engine restarts, because it has live-restore or the options ask for it.

    Raises:
        RefusedError: they ask for it, and the engine would not start with it.
    """
    info = engine.get("/info")
    if info.get("LiveRestoreEnabled") or not options.get("live-restore"):
        return bool(info.get("LiveRestoreEnabled"))
    if (info.get("Swarm") or {}).get("LocalNodeState") not in (None, "", "inactive"):
        raise RefusedError(
            "this host is a node of a swarm, and the engine does not start with live-restore there: leave the swarm (docker swarm leave), "
            "or set host_engine_options without live-restore. Nothing was changed"
        )
    return True


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


def refuse_change(former: dict[str, t.Any], options: dict[str, t.Any], engine: Engine | None, accept: bool, run: Run) -> None:
    """Refuse what can be known to fail, or to stop containers of others, before anything is changed.

    Args:
        former: The options of the file.
        options: Those that it is to have.
        engine: The engine, where one runs.
        accept: Whether a restart may stop containers that nothing starts again.
        run: Runs a program.

    Raises:
        RefusedError: there is something.
    """
    changed = changes(former, options)
    if not changed:
        return
    check(options, run)
    if engine is None:
        return
    if changed & FOUNDATIONS and engine.containers():
        raise RefusedError(
            f"{', '.join(sorted(changed & FOUNDATIONS))} in host_engine_options differs from daemon.json, and the engine has containers, "
            "which it would not find again. Nothing was changed: move the engine's data by hand, and change daemon.json then"
        )
    if not changed <= RELOADABLE and not can_live_on(engine, options):
        refuse_restart(engine, changed, accept)


def refused_change(
    options: dict[str, t.Any], engine: Engine | None, accept: bool, path: str = ENGINE_OPTIONS, run: Run = run_program
) -> str:
    """Return why the file cannot get these options in addition to its own, or "" where it can, or has them."""
    try:
        _text, former = read_options(path)
        refuse_change(former, merged(former, options), engine, accept, run)
    except (RefusedError, EngineError) as error:
        return str(error)
    return ""
