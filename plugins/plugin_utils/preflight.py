# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a preflight looks at, as functions of plain data. No Ansible in here.

Every check returns problems: who, what is wrong with which variable, and what to do about it, in one line.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.slipway.stack.plugins.module_utils.containers import is_of_product
from ansible_collections.slipway.stack.plugins.module_utils.engine import normal_reference
from ansible_collections.slipway.stack.plugins.module_utils.images import registry_of
from ansible_collections.slipway.stack.plugins.plugin_utils.image_records import unavailable_images
from ansible_collections.slipway.stack.plugins.plugin_utils.input_names import nearest
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import spellings, without

# ID and VERSION_ID of /etc/os-release.
SUPPORTED_DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "debian": ("12", "13"),
    "ubuntu": ("22.04", "24.04", "26.04"),
}
SUPPORTED_ARCHITECTURES = ("x86_64", "aarch64", "amd64", "arm64")
PRODUCT_ROLE, JOBS_ROLE = "app", "jobs"
#: Where the program of the jobs' timers lies.
JOBS_FOLDER = r"/etc/slipway/([^/]+)/jobs/"
#: What the names of the collection's own images begin with, as their defaults give them.
OWN_IMAGES = "slipway/"
#: How engines and registries say that there is no such image, and nothing else.
ABSENT = re.compile("manifest unknown|manifest for .* not found|name unknown|not known to registry|: not found$", re.IGNORECASE)
#: What Docker Hub says of a name that does not exist, and of one that others may not see. A wrong login is "unauthorized" alone.
DENIED = re.compile("requested access to the resource is denied", re.IGNORECASE)
#: Where restore.yml notes on all hosts that it exchanges data.
RESTORE_MARK = r"/etc/slipway/[^/]+/restore/under_way\.json"
DEFAULT_MINIMUM_MEMORY_MB = 1024
DEFAULT_MINIMUM_DISK_MB = 4096

# From here on numbers are those of the user ``nobody`` and of users that systemd makes for a while.
NOBODY = 60000
# A host that runs the stack already holds its images: it needs room to go on, not room to begin.
MINIMUM_DISK_WHEN_RUNNING_MB = 1024

HIGHEST_PORT = 65535
TCP = "tcp"
#: Who has a port of which no process has the socket.
UNKNOWN = {TCP: "an unknown process", "udp": "the kernel, as for another interface of WireGuard (`wg show` lists them)"}

#: What variables begin with that belong to no role.
SHARED_PREFIX = "slipway"

#: The first nginx with keepalive_min_timeout, without which a reload loses POSTs.
OLDEST_NGINX = (1, 27, 4)

#: How like the name of one of our groups another's is that is taken for it, from 0 to 1.
LIKE_ANOTHER_GROUP = 0.8


#: A shorter one is reported as too short, and occurs in too many values that are not secret.
SHORTEST_HIDDEN = 8

_SECRET_INPUT = re.compile(r"_(password|passphrase|secret|secret_key|token)$")
_SHOWN_NEVER = re.compile(r"password|passphrase|secret|token|credential|_key$", re.IGNORECASE)
_ANY_ADDRESS = ("", "0.0.0.0", "::", "*")  # noqa: S104 - compared with, not bound to


class Problem(NamedTuple):
    """One thing that stops a run: the host that it is about ("" for the whole inventory), and a sentence.

    With a subject, the sentence goes on after it, and subjects of which it says the same share a line.
    """

    host: str
    text: str
    subject: str = ""


def message_of(problems: Iterable[Problem]) -> str:
    """Return all problems as one text, a line each; hosts with the same problem share its line."""
    hosts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for host, text, subject in problems:
        if host not in hosts[text, subject]:
            hosts[text, subject].append(host)
    subjects: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (text, subject), names in hosts.items():
        subjects[text, tuple(name for name in names if name)].append(subject)
    lines = []
    for (text, named), about in subjects.items():
        prefix = f"{'host' if len(named) == 1 else 'hosts'} {', '.join(named)}: " if named else ""
        several = f"each of {', '.join(about[:-1])} and {about[-1]}" if len(about) > 1 else about[0]
        lines.append(f"{prefix}{several} {text}" if several else prefix + text)
    count = f"{len(lines)} problem" + ("s" if len(lines) > 1 else "")
    return f"Preflight found {count}; nothing was touched.\n" + "\n".join(f"- {line}" for line in lines)


def shown(value: Any, secrets: Iterable[Any] = ()) -> str:
    """Return a value for a message, on one line, not longer than a glance, and without the secrets: cut, they could not be found in it."""
    text = repr(value) if not isinstance(value, str) else f"'{value}'"
    text = " ".join(redacted(text, secrets).split())
    return text if len(text) <= 80 else text[:77] + "…" + text[-1]


def is_secret_input(name: str, spec: Mapping[str, Any]) -> bool:
    """Return whether an input is one secret, which must be long and random."""
    return spec.get("type", "str") == "str" and bool(_SECRET_INPUT.search(name))


def is_hidden(name: str, spec: Mapping[str, Any]) -> bool:
    """Return whether an input's value must not be shown."""
    return bool(spec.get("no_log")) or bool(_SHOWN_NEVER.search(name))


def redacted(text: str, secrets: Iterable[Any]) -> str:
    """Return a string with its secrets hidden, wherever an inventory used one."""
    return without(text, spellings(secrets, SHORTEST_HIDDEN))


# Inventory


def _meant(name: str) -> str:
    """Return what a group's name comes down to, for comparing: without case, plural, and what says no more than that hosts are in it."""
    return re.sub(r"[-_]?(servers?|hosts?|nodes?|group)$|s$", "", name.lower())


def check_groups(groups: Mapping[str, Iterable[str]], required: Iterable[str], optional: Iterable[str] = ()) -> list[Problem]:
    """Every required group needs a host, and none of those that may be left out may be there under a name like it.

    Args:
        groups: The inventory's groups with their hosts.
        required: Groups without which nothing runs.
        optional: Groups that an inventory may leave out, or have without a host.
    """
    required, optional = list(required), list(optional)
    others = sorted(set(groups) - {*required, *optional, "all", "ungrouped"})
    problems = [
        Problem(
            "",
            f"group {name} has no host{nearest(name, others)}; "
            f"add one to it in the inventory's hosts file, a host may be in several groups",
        )
        for name in required
        if not list(groups.get(name, ()))
    ]
    for name in (name for name in optional if name not in groups):
        like = [
            other
            for other in others
            if list(groups[other])
            and (_meant(other) == _meant(name) or difflib.SequenceMatcher(None, other.lower(), name).ratio() >= LIKE_ANOTHER_GROUP)
        ]
        problems += [
            Problem(
                "",
                f"group {other} is none that Slipway knows (did you mean {name}?); rename it in the inventory's hosts file, "
                f"or, where the stack is to run without {name}, say so by an empty group: `{name}:`",
            )
            for other in like
        ]
    return problems


def check_target(playbook: str, targets: Mapping[str, Collection[str]], reached: Collection[str], limit: str) -> list[Problem]:
    """A run must reach a host on which its playbook works: it would do nothing, and end well.

    Args:
        playbook: Name of the playbook.
        targets: The groups on whose hosts it works, each with its hosts; none where it has no work to miss.
        reached: Hosts that the run reaches.
        limit: What was given with --limit; "" without it.
    """
    hosts = dict.fromkeys(host for members in targets.values() for host in members)
    if not targets or not set(hosts).isdisjoint(reached):
        return []
    names = f"{'group' if len(targets) == 1 else 'any of the groups'} {', '.join(targets)}, on which {playbook}.yml works"
    if not hosts:
        return [Problem("", f"no host is in {names}; add one in the inventory's hosts file, or name another environment with -i")]
    where = f"{', '.join(hosts)}, on which {playbook}.yml works"
    return [Problem("", f"--limit {limit} leaves out {where}; leave --limit out, or name {' or '.join(hosts)} in it")]


def check_left_out(host: str, state: Mapping[str, Any], groups: Mapping[str, Iterable[str]], here: Collection[str]) -> list[Problem]:
    """What runs on a host that has left a service's group would go on unmanaged, the product with an old version and its jobs.

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        groups: By role, the groups whose hosts run it. Containers of other owners, such as of a drill, are left alone.
        here: The roles of this host.
    """
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, container in sorted((state.get("containers") or {}).items()):
        owner = container.get("owner") or ""
        found.setdefault(PRODUCT_ROLE if is_of_product(owner) else owner, {})[name] = container
    timers = {matched[1] for path in state.get("files") or {} if JOBS_ROLE not in here and (matched := re.match(JOBS_FOLDER, path))}
    problems = []
    for role in (role for role in groups if role not in here):
        containers = found.get(role) or {}
        running = [name for name, container in containers.items() if container.get("running")]
        stacks = sorted(timers) if role == JOBS_ROLE else []
        if not running and not stacks:
            continue
        what = f"container {', '.join(running)} runs" if running else "timers of jobs run"
        commands = [f"docker rm --force {' '.join(containers)}"] if running else []
        for stack in stacks:
            commands += [
                f"cd /etc/systemd/system && systemctl disable --now slipway-{stack}-job*.timer && rm slipway-{stack}-job*",
                f"systemctl daemon-reload && rm -r /etc/slipway/{stack}/jobs",
            ]
        members = " or ".join(groups[role])
        volumes = state.get("volumes") or {}
        mounted = {
            name for container in containers.values() for name, mount in (container.get("volumes") or {}).items() if mount["mode"] == "rw"
        }
        filled = sorted(name for name in mounted if (volumes.get(name) or {}).get("empty") is False)
        stays = (
            f"the data in {', '.join(filled)} stays on this host, and {role} begins without it on another one: move it as docs/operate.md "
            "says (Move data to another host)"
            if filled
            else "volumes stay"
        )
        problems.append(
            Problem(
                host,
                f"{what}, but the host is not in group {members}; add it to the group, or, where it is to run without {role}, remove "
                f"this first, for the product once other hosts run it: `{' && '.join(commands)}` ({stays})",
            )
        )
    return problems


def check_connections(connections: Mapping[str, tuple[str, str, str]], addresses: Mapping[str, str]) -> list[Problem]:
    """Two names for one machine make two hosts of it that undo each other's work.

    Args:
        connections: For each host the kind of connection, its address and its port.
        addresses: For each host its private address, where it has one.
    """
    problems = []
    for what, values, variable in (
        ("connects to {1} port {2}", connections, "ansible_host or ansible_port"),
        ("has the private address {0}", {host: (address,) for host, address in addresses.items()}, "slipway_address"),
    ):
        seen: dict[tuple[str, ...], str] = {}
        for host, value in values.items():
            if seen.setdefault(value, host) != host:
                problems.append(
                    Problem(host, f"{what.format(*value)}, as host {seen[value]} does; give each host its own {variable} in the inventory")
                )
    return problems


def check_names(host: str, names: Iterable[str], known: Mapping[str, Iterable[str]], where: Callable[[str], str | None]) -> list[Problem]:
    """A variable that begins as those of Slipway do must be one of them.

    Args:
        host: The host.
        names: Variables that the inventory sets for it.
        known: Variables by what they begin with: the inputs of each role, and those that roles share, which begin with slipway.
        where: Returns the place that sets a variable, where it is known.
    """
    every = {name for group in known.values() for name in group}
    problems = []
    # The longest prefix decides: a role may be named as another and more.
    prefixes = sorted(known, key=len, reverse=True)
    for name in sorted(set(names) - every):
        prefix = next((prefix for prefix in prefixes if name.startswith(f"{prefix}_")), None)
        if prefix is not None:
            what = "shared variable" if prefix == SHARED_PREFIX else f"input of role {prefix}"
            problems.append(
                Problem(
                    host,
                    f"{name} is not a known {what}{nearest(name, known[prefix])}; correct the name{_at(where(name))}, "
                    f"or begin a variable of your own otherwise",
                )
            )
    return problems


def causes(
    wrong: Mapping[str, Mapping[str, Problem]], sources: Mapping[str, Callable[[str], set[str]]], reported: Collection[str]
) -> list[Problem]:
    """Return the problems of variables that are not derived from another one with a problem, here or on another host: one fix serves both.

    Args:
        wrong: For each host the variables whose value is wrong or cannot be had, each with its problem.
        sources: For each host what returns the variables that one is derived from.
        reported: Variables of any host whose problem has been reported before.
    """
    suspects = {name for problems in wrong.values() for name in problems} | set(reported)
    kept = []
    for host, problems in wrong.items():
        for name, problem in problems.items():
            made_of = sources[host](name)
            # Two that are made of each other would hide each other.
            behind = [other for other in (made_of & suspects) - {name} if name not in sources[host](other)]
            if not behind:
                kept.append((problem, "hostvars" in made_of))
    # Which variables of other hosts one is made of cannot be seen. If anything else is wrong at all, that may be what is behind it.
    alone = not reported and all(of_others for _unused, of_others in kept)
    return [problem for problem, of_others in kept if alone or not of_others]


def _at(place: str | None) -> str:
    """Return " in <place>" or ""."""
    return f" in {place}" if place else ""


def remedy(place: str | None, inventory: str) -> str:
    """Say where to set a variable: where it is set now, or where it may be."""
    return f"set it in {place or f'{inventory}/group_vars or host_vars'}"


# Values


#: The texts that Ansible's filter bool knows. An option of a module takes more, such as y, which the filter takes for false.
_SWITCHES = {"true", "yes", "on", "1", "false", "no", "off", "0"}


def _plain_type_problem(kind: str, value: Any) -> str | None:
    """Return what Ansible's conversions would accept: a dictionary as a string, a string as a list, a y as a boolean."""
    if value is None:
        return None
    if kind in ("str", "path") and isinstance(value, (dict, list, tuple, set)):
        return "must be a string"
    if kind == "list" and not isinstance(value, (list, tuple)):
        return "must be a list"
    if kind == "dict" and not isinstance(value, dict):
        return "must be a dictionary"
    if kind == "int" and isinstance(value, bool):
        return "must be an integer"
    if kind == "bool" and isinstance(value, str) and value.lower() not in _SWITCHES:
        return "must be true or false"
    return None


_TYPE_NAMES = {
    "bool": "true or false",
    "dict": "a dictionary",
    "float": "a number",
    "int": "an integer",
    "list": "a list",
    "path": "a path",
    "str": "a string",
}


def value_problem(name: str, spec: Mapping[str, Any], value: Any, errors: Iterable[str], secrets: Iterable[Any] = ()) -> str | None:
    """Say in a few words what is wrong with an input's value, or None.

    Args:
        name: The input.
        spec: Its entry in the role's argument specification.
        value: Its value, templates resolved.
        errors: What Ansible's ArgumentSpecValidator says about it.
        secrets: What must not be shown of the value.

    Returns:
        The rest of a sentence after the input's name. A secret's value is not in it.
    """
    kind = str(spec.get("type", "str"))
    secret = is_hidden(name, spec)
    has = "has a value that" if secret else f"is {shown(value, secrets)},"
    messages = list(errors)
    plain = _plain_type_problem(kind, value)
    if plain:
        return f"{has} {plain}"
    if name.endswith("_image") and not value:
        return "is empty, must be an image with its version"
    if not messages:
        return None
    choices = spec.get("choices")
    if choices and kind != "list":
        return f"{has} must be one of {', '.join(map(str, choices))}"
    if any("unable to convert" in message and f"argument '{name}'" in message for message in messages):
        return f"{has} must be {_TYPE_NAMES.get(kind, kind)}"
    if secret:
        return "has a value that does not fit its description"
    details = "; ".join(_nested(message, name) for message in messages)
    return f"does not fit: {details}"


def _nested(message: str, name: str) -> str:
    """Return a message of Ansible's validator about something inside an input, on one line and shorter."""
    text = " ".join(str(message).split()).rstrip(".")
    text = re.sub(r"^(\S+?)\. Supported parameters include: ?(.*)$", r"\1 is unknown there, known are \2", text)
    text = re.sub(r" found in .*$", "", text)
    text = re.sub(
        r"^Elements value for option '?[\w.]+'? is of type (?:<class ')?(\w+)(?:'>)? and we were unable to convert to (\w+).*$",
        lambda match: f"each element must be {_TYPE_NAMES.get(match[2], match[2])}, not {match[1]}",
        text,
    )
    text = re.sub(
        r"^argument '?([\w.]+)'? is of type <?(?:class )?'?(\w+)'?>? and we were unable to convert to (\w+).*$",
        lambda match: f"{match[1]} must be {_TYPE_NAMES.get(match[3], match[3])}",
        text,
    )
    text = text.replace("missing required arguments:", "it lacks")
    return text.replace(f"{name}.", "")


# What hosts are


def check_root(host: str, state: Mapping[str, Any]) -> list[Problem]:
    """Modules must run as root: others neither see whose the ports are, nor read what is deployed."""
    if (state.get("host") or {}).get("root", True):
        return []
    return [Problem(host, "Ansible does not run as root there: set ansible_become: true, and in ansible_user a user who may use sudo")]


def check_python(host: str, state: Mapping[str, Any]) -> list[Problem]:
    """Modules need the library requests, which the role host installs for the Python of the system alone."""
    python = str((state.get("host") or {}).get("python") or "")
    if (state.get("tools") or {}).get("requests", True) or not python or python.startswith("/usr/bin/"):
        return []
    return [
        Problem(
            host,
            f"its Python {python} lacks the library requests: install it (`{python} -m pip install requests`), "
            "or set ansible_python_interpreter to /usr/bin/python3, for which Slipway installs it",
        )
    ]


def check_host(
    host: str,
    state: Mapping[str, Any],
    minimum_memory_mb: int = DEFAULT_MINIMUM_MEMORY_MB,
    minimum_disk_mb: int = DEFAULT_MINIMUM_DISK_MB,
) -> list[Problem]:
    """The system, memory and disk of a host must suffice.

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        minimum_memory_mb: Least memory in MB.
        minimum_disk_mb: Least free disk in MB, on a host that does not run the stack yet.
    """
    facts = state.get("host") or {}
    problems = []
    distribution, version = str(facts.get("distribution", "")), str(facts.get("distribution_version", ""))
    if version not in SUPPORTED_DISTRIBUTIONS.get(distribution, ()):
        supported = "; ".join(f"{name.capitalize()} {', '.join(versions)}" for name, versions in SUPPORTED_DISTRIBUTIONS.items())
        problems.append(
            Problem(host, f"runs {distribution or 'an unknown system'} {version}, which is not supported; supported are {supported}")
        )
    architecture = str(facts.get("architecture", ""))
    if architecture not in SUPPORTED_ARCHITECTURES:
        problems.append(
            Problem(host, f"has the architecture {architecture or '(unknown)'}, for which the images are not built; use x86_64 or aarch64")
        )
    memory = int(facts.get("memory_mb") or 0)
    if memory < minimum_memory_mb:
        problems.append(
            Problem(
                host,
                f"has {memory} MB of memory, and slipway_minimum_memory_mb asks for {minimum_memory_mb} MB; "
                "use a larger host, or lower that variable",
            )
        )
    wanted = min(minimum_disk_mb, MINIMUM_DISK_WHEN_RUNNING_MB) if state.get("containers") else minimum_disk_mb
    seen = []
    for path, disk in sorted((facts.get("disks") or {}).items()):
        free = int(disk.get("free_mb") or 0)
        # Paths on one disk have the same numbers.
        if free < wanted and disk not in seen:
            seen.append(disk)
            problems.append(
                Problem(
                    host,
                    f"has {free} MB free on the disk of {path}, and {wanted} MB are needed; free some, for example with "
                    "`docker image prune --all`, which keeps what containers use, or lower slipway_minimum_disk_mb",
                )
            )
    return problems


def check_engine_options(host: str, state: Mapping[str, Any]) -> list[Problem]:
    """The engine must take its options; host_state has asked it."""
    refused = (state.get("engine") or {}).get("options_refused") or ""
    return [Problem(host, " ".join(refused.split()))] if refused else []


def check_memory(host: str, state: Mapping[str, Any], limits: Mapping[str, Any]) -> list[Problem]:
    """No container may have more memory than its host.

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        limits: For each input that sets a container's memory its value in MB.
    """
    memory = int((state.get("host") or {}).get("memory_mb") or 0)
    return [
        Problem(host, f"{name} asks for {limit} MB of memory, and the host has {memory} MB; lower {name}, or use a larger host")
        for name, limit in limits.items()
        if memory and int(limit) > memory
    ]


def check_cores(host: str, state: Mapping[str, Any], limits: Mapping[str, float]) -> list[Problem]:
    """No container may have more cores than its host: the engine creates none that asks for more.

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        limits: For each input that sets a container's cores its value.
    """
    cores = float((state.get("host") or {}).get("cores") or 0)
    return [
        Problem(host, f"{name} asks for {limit:g} cores, and the host has {cores:g}; lower {name}, or use a larger host")
        for name, limit in limits.items()
        if cores and limit > cores
    ]


def check_identities(states: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """Each host of the inventory must be another machine, and have a name of its own."""
    problems = []
    for field, what, how in (
        (
            "machine_id",
            "is the same machine (machine-id {value}) as host {other}",
            "remove one from the inventory; if they are clones, run `systemd-machine-id-setup` on one after emptying /etc/machine-id",
        ),
        ("hostname", "calls itself {value}, as host {other} does", "give one another name with `hostnamectl hostname`"),
    ):
        seen: dict[str, str] = {}
        for host, state in states.items():
            value = str((state.get("host") or {}).get(field) or "")
            if value and seen.setdefault(value, host) != host:
                problems.append(Problem(host, f"{what.format(value=value, other=seen[value])}; {how}"))
    return problems


def check_restores(states: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """A restore that died must be ended before anything else brings the product back: what that wrote would be in its way."""
    return [
        Problem(
            host,
            "a restore has begun and not ended: run it again with playbooks/restore.yml, or go back with -e restore_undo=true "
            "-e stores=… (docs/restore.md); the product stays out of service until then",
        )
        for host, state in states.items()
        if any(re.fullmatch(RESTORE_MARK, path) for path in state.get("files") or {})
    ]


def _is_elsewhere(address: str, facts: Mapping[str, Any]) -> bool:
    """Return whether an IPv4 address is none of a host's own, where these are known, and the engine could not listen on it.

    With ``net.ipv4.ip_nonlocal_bind`` it can: a floating address may be on another host until that one fails.
    """
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    known = facts.get("addresses") or ()
    return bool(known) and not facts.get("nonlocal_bind") and not (parsed.is_unspecified or parsed.is_loopback) and address not in known


def check_bind_address(host: str, state: Mapping[str, Any], name: str, address: Any) -> list[Problem]:
    """An address to listen on must be one of the host's.

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        name: The input that sets it.
        address: Its value.
    """
    facts = state.get("host") or {}
    if not _is_elsewhere(str(address), facts):
        return []
    own = ", ".join(sorted(facts["addresses"]))
    return [
        Problem(
            host,
            f"has no address {address}, on which {name} wants to listen; it has {own}: correct {name}, or, if another host may hand the "
            "address over, set the sysctl net.ipv4.ip_nonlocal_bind to 1",
        )
    ]


def check_ports(
    host: str, state: Mapping[str, Any], wanted: Iterable[Mapping[str, Any]], bind_addresses: Mapping[str, str] | None = None
) -> list[Problem]:
    """A port to publish must be free, or published by the stack already, and wanted once.

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        wanted: Ports, each with the variable that sets it, the address where it is not every address, and the protocol where it is not TCP.
        bind_addresses: By role the address of its ports that have none.
    """
    problems = []
    seen: dict[tuple[str, int, str], str] = {}
    listening = state.get("listening") or {}
    for item in wanted:
        port, variable, address = int(item["port"]), str(item.get("variable") or "port"), str(item.get("address") or "")
        protocol = str(item.get("protocol", TCP))
        if not 1 <= port <= HIGHEST_PORT:
            problems.append(Problem(host, f"{variable} is {port}, and ports are from 1 to {HIGHEST_PORT}; correct {variable}"))
            continue
        if _is_elsewhere(address, state.get("host") or {}):
            problems.append(
                Problem(
                    host,
                    f"has no address {address}, on which port {port} ({variable}) is wanted by other hosts; correct its slipway_address",
                )
            )
        other = seen.setdefault((protocol, port, address), variable)
        if other != variable:
            problems.append(Problem(host, f"port {port} is wanted by both {other} and {variable}; change one of them"))
        bound_to = address or (bind_addresses or {}).get(str(item.get("role")), "")
        # One that listens on two of its addresses is named once.
        owners = dict.fromkeys(
            f"container {listener['container']}" if listener.get("container") else (listener.get("process") or UNKNOWN[protocol])
            for listener in listening.get(str(port)) or ()
            if not listener.get("ours")
            and listener.get("protocol", TCP) == protocol
            and (bound_to in _ANY_ADDRESS or str(listener["address"]) in (bound_to, *_ANY_ADDRESS))
        )
        kind = "" if protocol == TCP else f"{protocol.upper()} "
        problems += [
            Problem(host, f"{kind}port {port} ({variable}) is taken by {owner}, which is not part of the stack; stop it, or set {variable}")
            for owner in owners
        ]
    return problems


def must_be_built(state: Mapping[str, Any], image: str) -> bool:
    """Return whether a host lacks an image, and no registry has it. One with a digest cannot be built.

    The collection's own names are in no registry: what has one of them there is of other people. A registry that does not answer, or wants
    another login, may have the image: it is not built, which would replace it there. An image whose name begins with no registry is pushed
    to none, so it is built where Docker Hub does not say which of the two it is, and where no engine is installed yet that could ask.

    Args:
        state: What host_state read there.
        image: Its name.
    """
    if "@" in image or normal_reference(image) in (state.get("images") or {}):
        return False
    if normal_reference(image).startswith(OWN_IMAGES):
        return True
    if not (state.get("engine") or {}).get("available"):
        return not registry_of(image)
    reason = (state.get("missing_images") or {}).get(normal_reference(image)) or ""
    return bool(ABSENT.search(reason) or (DENIED.search(reason) and not registry_of(image)))


def check_images(
    host: str, state: Mapping[str, Any], variables: Mapping[str, str], version: str = "", recorded: Iterable[str] = ()
) -> list[Problem]:
    """An image that is not on the host must be in a registry.

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        variables: For each image the variable that names it.
        version: The product's version that is wanted.
        recorded: Versions that builds have recorded.
    """
    return [Problem(host, text) for text in unavailable_images(state.get("missing_images") or {}, variables, version, recorded)]


def check_users(
    host: str, state: Mapping[str, Any], variables: Mapping[str, str], inputs: Mapping[str, Any], recorded: Mapping[str, Any]
) -> list[Problem]:
    """No container runs as root unless its role has an input that says why, and none as a user whom its image does not know.

    What an image says of its user is known where the host has it, or where a build has recorded it.

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        variables: For each variable, such as ``nginx_image``, or key, such as ``app_services.api.image``, the image that it names.
        inputs: Values of the inputs of the host's roles whose names end in ``user`` or ``hardening_exceptions``.
        recorded: What a build has recorded of the wanted version's images, by service.
    """
    problems = []
    for variable, image in variables.items():
        # As nginx_ or app_services.api. is, with which its other inputs or keys begin too.
        of_service = variable.removesuffix("image")
        built = recorded.get(of_service.strip(".").rpartition(".")[2]) or {}
        known = (state.get("images") or {}).get(normal_reference(image)) or built
        asked, exceptions = str(inputs.get(f"{of_service}user") or ""), inputs.get(f"{of_service}hardening_exceptions")
        name, numbers = (asked or str(known.get("user") or "")).partition(":")[0], known.get("users") or {}
        if not name or any(isinstance(item, Mapping) and item.get("what") == "non_root" for item in exceptions or []):
            continue
        if numbers and not name.isdigit() and name not in numbers:
            users = ", ".join(sorted(user for user, number in numbers.items() if number and number < NOBODY))
            remedy = f"set {of_service}user to one of them, or to a number" if f"{of_service}user" in inputs else "name a user that it has"
            problems.append(Problem(host, f"image {image} ({variable}) has no user {name}; it has {users or 'root only'}: {remedy}"))
        elif name == "root" or (name.isdigit() and int(name) == 0) or numbers.get(name) == 0:
            remedy = f'give it a user of the image, or a number: {of_service}user: "1000"'
            if exceptions is not None:
                remedy += f', or keep root, and say why: {of_service}hardening_exceptions: [{{what: non_root, why: "…"}}]'
            whose = f"{of_service}user asks for root" if asked else f"image {image} ({variable}) runs as root"
            problems.append(Problem(host, f"{whose}, which a container may not; {remedy}"))
    return problems


def check_platforms(host: str, state: Mapping[str, Any], variables: Mapping[str, str], recorded: Mapping[str, Any]) -> list[Problem]:
    """An image must be for the host's platform: a program for another one ends with "exec format error".

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        variables: For each variable or key the image that it names.
        recorded: What a build has recorded of the wanted version's images, by service.
    """
    here = (state.get("host") or {}).get("platforms") or []
    problems = []
    for variable, image in variables.items():
        service = variable.removesuffix("image").strip(".").rpartition(".")[2]
        built = recorded.get(service) or {}
        known = (built or (state.get("images") or {}).get(normal_reference(image)) or {}).get("platform", "")
        if known and here and "/".join(known.split("/")[:2]) not in here:
            remedy = f"build it with -e image_platform={here[0]}" if built else f"correct {variable}, or load the image for {here[0]}"
            problems.append(Problem(host, f"image {image} ({variable}) is for {known}, and the host runs {here[0]}: {remedy}"))
    return problems


def check_superuser(host: str, state: Mapping[str, Any], volume: str, roles: Iterable[tuple[str, str]]) -> list[Problem]:
    """No role may have the name of the superuser that a cluster was created with: it stays one, whatever the inventory says.

    It is known while the container of another program is there that uses the cluster, so before that one has to be removed.

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        volume: Name of the volume with the cluster.
        roles: Roles of PostgreSQL that the inventory names, each with the variable that does.
    """
    superuser = ((state.get("volumes") or {}).get(volume) or {}).get("superuser")
    return [
        Problem(
            host,
            f"the superuser that the cluster in the volume {volume} was created with (POSTGRES_USER) is named {name}, as is a role of the "
            f"inventory: set {variable} to another name",
        )
        for variable, name in roles
        if name == superuser
    ]


def check_nginx(host: str, state: Mapping[str, Any], variables: Mapping[str, str]) -> list[Problem]:
    """The image of nginx must know all that the configuration says.

    Its version is what the image says of itself where it is on the host, or else what its tag says; an image that says neither is taken.

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        variables: For each variable the image that it names.
    """
    problems = []
    for image in (image for variable, image in variables.items() if variable == "nginx_image"):
        said = ((state.get("images") or {}).get(normal_reference(image)) or {}).get("versions", {}).get("nginx", "")
        found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", said) or re.search(r"(?:^|/)nginx:(\d+)\.(\d+)(?:\.(\d+))?", image)
        if found is None:
            continue
        numbers = tuple(int(number) for number in found.groups() if number is not None)
        # A tag of two numbers follows the last release of its line.
        if numbers < OLDEST_NGINX[: len(numbers)]:
            version, oldest = ".".join(map(str, numbers)), ".".join(map(str, OLDEST_NGINX))
            problems.append(
                Problem(
                    host,
                    f"image {image} (nginx_image) is nginx {version}, which loses requests whenever it reloads: keepalive_min_timeout, "
                    f"which prevents that, came with {oldest}; take nginx:1-alpine, or any other from {oldest} on",
                )
            )
    return problems


def check_reach(
    host: str,
    state: Mapping[str, Any],
    wanted: Iterable[Mapping[str, Any]],
    read: Mapping[str, Iterable[Mapping[str, Any]]],
    mesh: Collection[str] = (),
) -> list[Problem]:
    """A host must reach the addresses that its services use, or this run must be what allows that.

    Args:
        host: Its name in the inventory.
        state: What host_state read there.
        wanted: Addresses and ports, each with the variable that sets it and the group whose hosts may serve it.
        read: For each group what host_state read on those of its hosts that take part in this run.
        mesh: Addresses in the encrypted network, which the run brings up and tries before anything moves there.
    """
    reach = state.get("reach") or {}
    problems = []
    for item in wanted:
        target = f"{item['address']}:{item['port']}"
        result = str(reach.get(target, "open"))
        variable = item.get("variable") or "the address"
        if result.startswith("unreachable") and item["address"] in mesh:
            continue
        if result.startswith("unreachable"):
            reason = result.partition(":")[2].strip() or "no answer"
            problems.append(
                Problem(host, f"cannot reach {target} ({variable}): {reason}; correct {variable}, or the route and firewall between them")
            )
        elif result == "refused" and not any(
            _will_serve(store, str(item["address"]), int(item["port"]), state) for store in read.get(str(item.get("group")), ())
        ):
            problems.append(
                Problem(
                    host,
                    f"cannot reach {target} ({variable}): it refuses the connection, and this run starts nothing there; "
                    f"correct {variable}, or start what should answer there and allow this host in its firewall",
                )
            )
    return problems


def _will_serve(store: Mapping[str, Any], address: str, port: int, client: Mapping[str, Any]) -> bool:
    """Return whether a refusal is one that a run ends: nothing healthy is published there yet, or its firewall knows the client not yet."""
    own = (client.get("host") or {}).get("addresses", ())
    # An address that both have, as that of the engine's bridge, leads the client to itself.
    if address not in (store.get("host") or {}).get("addresses", ()) or (address in own and store is not client):
        return False
    ends = {f"{any_or_one}:{port}" for any_or_one in (address, *_ANY_ADDRESS)}
    served = any(
        ends.intersection(binding for bindings in container["ports"].values() for binding in bindings)
        for container in store.get("containers", {}).values()
        if container["running"] and container["health"] == "healthy"
    )
    return not served or not _admits(store.get("firewall") or (), address, port, own)


def _admits(rules: Iterable[str], address: str, port: int, clients: Iterable[str]) -> bool:
    """Return whether the chain of a stack lets one of a client's addresses through to a published port."""
    ours = [rule for rule in rules if f"--ctorigdst {address} --ctorigdstport {port} " in rule]
    peers = [ipaddress.ip_network(found[1]) for rule in ours if (found := re.search(r" -s (\S+) .* -j RETURN$", rule))]
    return not ours or any(ipaddress.ip_address(client) in peer for client in clients for peer in peers)
