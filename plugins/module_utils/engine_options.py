# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which options a Docker Engine can be given, known before its file is touched."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError, read_text, write_file
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.sockets import public_ipv6

Options = dict[str, t.Any]
Run = t.Callable[..., tuple[int, str]]

#: Where the engine reads them.
ENGINE_OPTIONS = "/etc/docker/daemon.json"
#: Files next to it: a change that the engine has not accepted yet, with the former text, and the options that Slipway wrote last.
UNACCEPTED, WRITTEN = ".slipway-unaccepted", ".slipway-written"
#: Options that a running engine takes over upon SIGHUP. https://docs.docker.com/reference/cli/dockerd/#configuration-reload-behavior
RELOADABLE = {
    *("debug", "labels", "live-restore", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts"),
    *("default-runtime", "runtimes", "authorization-plugins", "insecure-registries", "registry-mirrors", "shutdown-timeout", "features"),
}
#: Those that a reload leaves as they are where the file does not name them any more, and what they are without it.
UNNAMED: Options = {
    "debug": False,
    "insecure-registries": [],
    "labels": [],
    "live-restore": False,
    "registry-mirrors": [],
    "shutdown-timeout": 15,
}
#: Options with which an engine has other images, containers and volumes, or none. One that fails to start with them also takes the file
#: systems away from containers that live on.
FOUNDATIONS = {"data-root", "storage-driver", "storage-opts", "exec-root", "userns-remap", "containerd"}
DEFAULT_LOG_DRIVER = "json-file"
#: Options of log drivers. The engine does not start with others, and ``dockerd --validate`` does not look at them. Driver none takes any.
LOG_OPTIONS = {
    "json-file": {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"},
    "local": {"max-size", "max-file", "compress"},
    "journald": {"labels", "labels-regex", "env", "env-regex", "tag"},
}
#: Those of all drivers, and what others of all drivers begin with.
COMMON_LOG_OPTIONS, CACHE_LOG_OPTIONS = {"mode", "max-buffer-size"}, "cache-"
#: Policies by which the engine starts a container again when it comes back itself.
STARTED_AGAIN = {"always", "unless-stopped"}
UNIT = "docker.service"
#: How an engine says that it maps the users of containers to others of the host.
USER_NAMESPACES = "name=userns"
#: Where the engine of Docker's snap keeps its data.
SNAP_DATA = "/var/snap/"
DOCKERD_PATH = "/usr/sbin:/usr/bin:/usr/local/bin:/sbin:/bin"
#: Seconds that a program of the host may take, such as a restart of the engine, whose unit has no limit.
PROGRAM_TIMEOUT = 300
#: Seconds until an engine must answer.
ANSWER_TIMEOUT = 60
#: What the reason for a change begins with where the engine restarts for it, and what it contains where that stops containers.
RESTARTS, CONTAINERS_STOP = "the engine restarts", "its containers stop meanwhile"
#: How much a restart of the engine may stop: nothing, containers that it starts again, or any container.
ACCEPTED = ("nothing", "restart", "stop")


class Found(t.NamedTuple):
    """The file of the engine's options as it is on a host."""

    #: Its text, or that before a change which was interrupted; None where there is no file.
    text: str | None
    #: The options that the engine has accepted.
    accepted: Options
    #: Those of the file.
    current: Options
    #: Those that Slipway wrote last.
    written: Options
    #: Whether a change was interrupted before the engine accepted it.
    interrupted: bool


def run_program(*argv: str) -> tuple[int, str]:
    """Run a program of the host; return its exit status and all that it printed, as a shell does where there is no such program."""
    try:
        # Called without a module.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=PROGRAM_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return 124, f"{' '.join(argv)} has not ended after {PROGRAM_TIMEOUT} s"
    except OSError as error:
        return 127, f"{argv[0]}: {error.strerror}"
    return done.returncode, done.stdout.strip()


def text_of(options: Options) -> str:
    """Return the text of the file."""
    return json.dumps(options, indent=4, sort_keys=True) + "\n"


def main_process(run: Run) -> str:
    """Return the number of the engine's process, or "" where its unit does not run."""
    _status, pid = run("systemctl", "show", UNIT, "--property=MainPID", "--value")
    return pid if pid.isdigit() and pid != "0" else ""


def flags_of(run: Run) -> list[str]:
    """Return the flags of the engine that runs; without those of sockets that systemd hands over."""
    pid = main_process(run)
    text = read_text(f"/proc/{pid}/cmdline") if pid else ""
    return [part for part in (text or "").split("\0")[1:] if part]


def check(options: Options, run: Run) -> None:
    """Have the engine's program check the options, and check what it does not.

    Raises:
        RefusedError: it refuses them.
    """
    check_log_options(options)
    program = shutil.which("dockerd", path=DOCKERD_PATH)
    if not program:
        return
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = os.path.join(folder, "daemon.json")
        write_file(path, text_of(options), 0o600, os.getuid(), os.getgid())
        status, printed = run(program, *flags_of(run), "--validate", f"--config-file={path}")
    # An engine before 23 has no such flag.
    if status and "unknown flag: --validate" not in printed:
        raise RefusedError(
            f"the engine refuses its options: {printed[-1500:].replace(path, 'daemon.json')}. "
            "Nothing was changed. Correct host_engine_options; an option that the engine's unit sets as a flag cannot be set here, too: "
            "remove the flag (systemctl cat docker), or the option"
        )


def check_log_options(options: Options) -> None:
    """Check that the log driver knows its options, as far as drivers are known.

    Raises:
        RefusedError: it does not.
    """
    driver = options.get("log-driver", DEFAULT_LOG_DRIVER)
    known = LOG_OPTIONS.get(driver)
    unknown = [] if known is None else sorted(set(options.get("log-opts") or {}) - known - COMMON_LOG_OPTIONS)
    if unknown := [name for name in unknown if not name.startswith(CACHE_LOG_OPTIONS)]:
        raise RefusedError(
            f"the engine would not start: its log driver {driver} has no option {', '.join(unknown)}. Nothing was changed. Remove it from "
            "log-opts in host_engine_options, or in daemon.json if it is only there"
        )


def refuse_other_engine(info: Options, run: Run) -> None:
    """Refuse an engine that this module could not restart: a second one would be installed or started next to it.

    Args:
        info: What the engine says of itself.
        run: Runs a program.

    Raises:
        RefusedError: it is of a snap, of another program, or not of its unit.
    """
    remedy = "Move what it runs away, remove it, and install docker.io or docker-ce, or have site.yml install docker.io"
    root = str(info.get("DockerRootDir") or "")
    if root.startswith(SNAP_DATA):
        raise RefusedError(
            f"the engine is Docker's snap (its data is in {root}), whose options Slipway cannot set. {remedy}: snap remove docker"
        )
    if not shutil.which("dockerd", path=DOCKERD_PATH):
        raise RefusedError(
            "an engine answers on /run/docker.sock, but there is no program dockerd, so it is another one (podman-docker, or a snap). "
            f"{remedy}"
        )
    if not main_process(run):
        raise RefusedError(
            f"an engine answers on /run/docker.sock, but {UNIT} does not run, so it was started by something else (ps -C dockerd -o args). "
            f"Stop it, and run `systemctl enable --now {UNIT}`. {remedy}, if it is another one"
        )


def refuse_other_firewall(options: Options, run: Run) -> None:
    """Refuse options with which the engine makes no chain DOCKER-USER, so that published ports could not be restricted.

    Raises:
        RefusedError: there is one, in the file or among the flags.
    """
    flags = flags_of(run)
    for name, is_wrong, flag in (
        ("iptables: false", options.get("iptables") is False, "--iptables=false"),
        ("firewall-backend: nftables", options.get("firewall-backend") == "nftables", "--firewall-backend=nftables"),
    ):
        if is_wrong or flag in flags:
            raise RefusedError(
                f"the engine has {name}, with which no rule of Slipway restricts published ports. Remove {name.partition(':')[0]} from "
                "daemon.json and from the engine's flags (systemctl cat docker); what it was to prevent, firewall rules do "
                "(docs/configure.md, Networks, ports and firewall)"
            )


def refuse_user_namespaces(info: Options, options: Options, changed: set[str]) -> None:
    """Refuse an engine whose containers have other users than the host: they could not read the files that belong to their user.

    Args:
        info: What the engine says of itself, nothing where none runs.
        options: Those that it is to have.
        changed: The names of those that it may not have yet.

    Raises:
        RefusedError: it maps users, or is to map them.
    """
    has = USER_NAMESPACES in (info.get("SecurityOptions") or [])
    if options.get("userns-remap") or (has and "userns-remap" not in changed):
        raise RefusedError(
            "the engine has userns-remap, with which a container's users have other numbers on the host, and could not read their secrets. "
            "Use another host, or remove userns-remap from host_engine_options, from daemon.json and from the engine's flags "
            "(systemctl cat docker), and restart the engine: it then has none of the images, containers and volumes that it has now, so "
            "move their data first"
        )


def running(engine: Engine) -> list[dict[str, t.Any]]:
    """Return the descriptions of the containers that run."""
    found = [engine.inspect(short["Id"]) for short in engine.containers()]
    return [inspected for inspected in found if inspected and inspected["State"].get("Running")]


def restart_policy(inspected: dict[str, t.Any]) -> str:
    """Return a container's restart policy."""
    return (inspected["HostConfig"].get("RestartPolicy") or {}).get("Name") or "no"


def name_of(inspected: dict[str, t.Any]) -> str:
    """Return a container's name."""
    return str(inspected["Name"]).lstrip("/")


def needs_proxy(inspected: dict[str, t.Any]) -> bool:
    """Return whether a foreign container publishes a port on IPv6 and has no such address: only the engine's proxy leads to it."""
    if "slipway.stack" in (inspected["Config"].get("Labels") or {}):
        return False
    networks = inspected["NetworkSettings"]
    published = [binding for bindings in (networks.get("Ports") or {}).values() for binding in bindings or []]
    own = any((network or {}).get("GlobalIPv6Address") for network in (networks.get("Networks") or {}).values())
    return not own and any(":" in (binding.get("HostIp") or "") for binding in published)


def read_options(path: str) -> tuple[str | None, Options]:
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


def read_found(path: str) -> Found:
    """Return what is known of the file.

    Raises:
        RefusedError: it is not valid.
    """
    text, current = read_options(path)
    written, change = {}, {}
    # Of an interrupted write, or edited by hand: as if there were none.
    with contextlib.suppress(RefusedError):
        written = read_options(path + WRITTEN)[1]
        change = read_options(path + UNACCEPTED)[1]
    if change:
        accepted = json.loads(change["former"] or "{}")
        # Otherwise its owner has edited it since.
        if _is_of_change(current, accepted) or _is_of_change(current, change["options"]):
            return Found(change["former"], accepted, current, written, True)
    return Found(text, current, current, written, False)


def _is_of_change(current: Options, options: Options) -> bool:
    """Return whether the file has these options, together with what a change writes for a while."""
    names = {name for name, value in UNNAMED.items() if name not in options and current.get(name) == value}
    return all(current.get(name) == options.get(name) for name in {*current, *options} - names - {"live-restore"})


def target_of(found: Found, options: Options) -> Options:
    """Return the options that the file is to have: its owner's, with those that are wanted over them.

    What Slipway wrote before, is not wanted any more and still has that value, goes. Options of another log driver go with it.
    """
    target = merged(_without(found.accepted, found.written, options), options)
    if target.get("log-driver", DEFAULT_LOG_DRIVER) != found.accepted.get("log-driver", DEFAULT_LOG_DRIVER):
        target = {name: value for name, value in target.items() if name != "log-opts"}
        if "log-opts" in options:
            target["log-opts"] = options["log-opts"]
    return target


def _without(former: Options, written: Options, options: Options) -> Options:
    """Return options without those that were written and are no longer wanted, those of dictionaries one by one."""
    kept = {}
    for name, value in former.items():
        if _are_dicts(value, written.get(name)):
            wanted = options.get(name)
            inner = _without(value, written[name], wanted if isinstance(wanted, dict) else {})
            if inner or name in options:
                kept[name] = inner
        elif name in options or name not in written or value != written[name]:
            kept[name] = value
    return kept


def merged(former: Options, options: Options) -> Options:
    """Return options with others over them, those of dictionaries one by one, as Ansible's filter combine does with recursive=true."""
    both = {name: merged(former[name], value) for name, value in options.items() if _are_dicts(former.get(name), value)}
    return {**former, **options, **both}


def _are_dicts(one: t.Any, other: t.Any) -> bool:
    return isinstance(one, dict) and isinstance(other, dict)


def changes(former: Options, options: Options) -> set[str]:
    """Return the names of the options that differ."""
    return {name for name in {*former, *options} if former.get(name) != options.get(name)}


def pending(found: Found, target: Options) -> set[str]:
    """Return the names of options that the engine may not have yet: after an interrupted change it may have either."""
    return changes(found.accepted, target) | changes(found.current, target)


def can_live_on(engine: Engine, options: Options) -> bool:
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


def refuse_restart(engine: Engine, changed: set[str], accept: str) -> None:
    """Refuse a restart that stops containers, unless the caller accepts it, and one that stops for good what nothing starts again.

    Raises:
        RefusedError: there is such a container.
    """
    stopped = {name_of(inspected): restart_policy(inspected) for inspected in running(engine)}
    lost = [f"{name} (restart policy {policy})" for name, policy in sorted(stopped.items()) if policy not in STARTED_AGAIN]
    why = f"{', '.join(sorted(changed - RELOADABLE))} in daemon.json can only be changed by a restart of the engine"
    if lost and accept != "stop":
        raise RefusedError(
            f"{why}. It stops containers that nothing starts again: {', '.join(lost)}. Give them a restart policy "
            "(docker update --restart unless-stopped …), or accept that with host_accept_engine_restart: true"
        )
    if stopped and accept == "nothing":
        raise RefusedError(
            f"{why}, which without live-restore stops its containers meanwhile ({len(stopped)} run). Accept it, one host after the other: "
            "playbooks/site.yml -e accept=restart; or set live-restore: true in host_engine_options, with which they go on"
        )


def refuse_without_proxy(engine: Engine, found: Found, target: Options, accept: str) -> None:
    """Refuse to take the engine's proxy away from ports of others that nothing else leads to.

    Raises:
        RefusedError: there is such a container, and the caller has not accepted that.
    """
    had, has = (options.get("userland-proxy", True) for options in (found.accepted, target))
    if has or not had or accept == "stop" or not public_ipv6():
        return
    if cut_off := sorted(name_of(inspected) for inspected in running(engine) if needs_proxy(inspected)):
        raise RefusedError(
            "userland-proxy: false makes ports unreachable over IPv6 that containers without an IPv6 address publish: "
            f"{', '.join(cut_off)}. Nothing was changed. Set userland-proxy: true in host_engine_options, publish them on an IPv4 address, "
            "or accept that with host_accept_engine_restart: true"
        )


def refuse_change(found: Found, target: Options, engine: Engine | None, accept: str, run: Run) -> None:
    """Refuse what can be known to fail, or to stop containers of others, before anything is changed.

    Args:
        found: What is known of the file.
        target: The options that it is to have.
        engine: The engine, where one runs.
        accept: Of ACCEPTED, what a restart may stop.
        run: Runs a program.

    Raises:
        RefusedError: there is something.
    """
    info: Options = {}
    if engine is not None:
        info = engine.get("/info")
        refuse_other_engine(info, run)
    refuse_other_firewall(target, run)
    changed = pending(found, target)
    refuse_user_namespaces(info, target, changed)
    if not changed:
        return
    check(target, run)
    if engine is None:
        return
    if changed & FOUNDATIONS and engine.containers():
        raise RefusedError(
            f"{', '.join(sorted(changed & FOUNDATIONS))} in host_engine_options differs from daemon.json, and the engine has containers, "
            "which it would not find again. Nothing was changed: move the engine's data by hand, and change daemon.json then"
        )
    refuse_without_proxy(engine, found, target, accept)
    if not changed <= RELOADABLE and not can_live_on(engine, target):
        refuse_restart(engine, changed, accept)


def refused_change(options: Options, engine: Engine | None, accept: str, path: str = ENGINE_OPTIONS, run: Run = run_program) -> str:
    """Return why the file cannot get these options in addition to its own, or "" where it can, or has them."""
    try:
        found = read_found(path)
        refuse_change(found, target_of(found, options), engine, accept, run)
    except (RefusedError, EngineError) as error:
        return str(error)
    return ""


def describe(engine: Engine | None, path: str = ENGINE_OPTIONS) -> dict[str, t.Any]:
    """Return what the controller must know of the options to compare them.

    Returns:
        Fields of Found without its text and logins, whether the engine ``runs``, and whether ``containers_live_on`` while it restarts.
    """
    try:
        found = read_found(path)
        lives_on = engine is None or bool(engine.get("/info").get("LiveRestoreEnabled")) or not running(engine)
    except (RefusedError, EngineError):
        # What is wrong, refused_change says.
        return {}
    shown = {name: _without_logins(getattr(found, name)) for name in ("accepted", "current", "written")}
    return {
        **shown,
        "interrupted": found.interrupted,
        "runs": engine is not None,
        "containers_live_on": lives_on,
    }


def stops_containers(described: t.Mapping[str, t.Any], options: Options) -> bool:
    """Return whether a host's engine has to be restarted for these options, and its containers stop meanwhile."""
    found, live_on = _found_of(described)
    target = target_of(found, _without_logins(options))
    return not (live_on or target.get("live-restore") or pending(found, target) <= RELOADABLE)


def reasons(described: t.Mapping[str, t.Any], options: Options) -> list[str]:
    """Return how the engine's options differ and what follows, in a sentence, or nothing.

    Args:
        described: What describe() returned on the host.
        options: The options that are wanted.
    """
    found, _live_on = _found_of(described)
    target = target_of(found, _without_logins(options))
    changed = pending(found, target)
    names = f"its options: {', '.join(sorted(changed))}" if changed else "its options"
    after = "; an earlier change was interrupted" if found.interrupted else ""
    if not changed and not found.interrupted:
        return []
    if not described.get("runs"):
        return [f"the engine starts with {names}{after}"]
    if changed <= RELOADABLE:
        return [f"the engine reloads {names}{after}"]
    meanwhile = CONTAINERS_STOP if stops_containers(described, options) else "containers keep running"
    return [f"{RESTARTS} for {names}; {meanwhile}{after}"]


def _without_logins(options: Options) -> Options:
    """Return options with a digest in place of the proxies, whose URLs may hold a login: with -v all that a host returns is shown."""
    if "proxies" not in options:
        return options
    return {**options, "proxies": hashlib.sha256(text_of(options["proxies"]).encode()).hexdigest()}


def _found_of(described: t.Mapping[str, t.Any]) -> tuple[Found, bool]:
    """Return what describe() has found; of a file that is not valid or not read, as of an empty one."""
    found = Found(
        **{"text": None, "accepted": {}, "current": {}, "written": {}, "interrupted": False}
        | {name: value for name, value in described.items() if name in Found._fields}
    )
    return found, bool(described.get("containers_live_on", True))
