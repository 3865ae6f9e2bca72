# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare declared services with what a host has, and say what makes them agree.

Pure functions: the declaration and the fact of ``host_state`` go in, a plan comes out; nothing is read or sent.
docs/architecture.md describes the declaration.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import re
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.config_files import another_owner
from ansible_collections.slipway.stack.plugins.module_utils.containers import BEFORE, CPU_SHARES, NEXT, TRIAL, is_of_product
from ansible_collections.slipway.stack.plugins.module_utils.engine import normal_reference
from ansible_collections.slipway.stack.plugins.module_utils.health import RESTARTS_MEANING_FAILURE
from ansible_collections.slipway.stack.plugins.module_utils.removal import folders_without_service
from ansible_collections.slipway.stack.plugins.module_utils.revision import revision_of_files
from ansible_collections.slipway.stack.plugins.plugin_utils.digest import keyed_digest
from ansible_collections.slipway.stack.plugins.plugin_utils.environment_values import environment_of

Declaration = dict[str, t.Any]
State = dict[str, t.Any]

#: What a declaration may say, with the value of what it leaves out; None marks what it must say.
FIELDS: dict[str, t.Any] = {
    "name": None,
    "image": None,
    "user": "",
    "wrapper": [],
    "not_copied": {},
    "entrypoint": [],
    "command": [],
    "environment": {},
    "config": {},
    "secrets": {},
    "host_files": {},
    "host_folders": {},
    "volumes": [],
    "tmpfs": {},
    "ulimits": {},
    "networks": [],
    "aliases": [],
    "ports": [],
    "healthcheck": {},
    "healthy_timeout": 120,
    "memory_mb": None,
    "cpus": None,
    "cpu_shares": CPU_SHARES,
    "starting_cpu_shares": 0,
    "pids": 256,
    "shm_size_mb": 0,
    "stop_timeout": 10,
    "stop_signal": "",
    "capabilities": [],
    "labels": {},
    "validate": [],
    "trial": [],
    "reload": [],
    "converge": {},
    "judged_inputs": [],
    "one_shot": False,
    "container": "running",
    "hardening_exceptions": [],
}
#: Folder on the hosts in which each stack has its own.
STACKS = "/etc/slipway"
#: A declaration's container runs; is created and never started, for the runs of a job to be copies of it; or is none, for files alone.
CONTAINERS = ("running", "created", "none")
WITHOUT_CONTAINER = {"image": "", "memory_mb": 0, "cpus": 0}
#: Defaults of the house that a declaration may do without, if it says why.
EXEMPTIBLE = {"read_only", "non_root", "no_new_privileges", "capabilities"}
ON_CHANGE = {"restart", "reload", "none"}
#: The engine takes start_interval, which makes a first health check quick, from this API version on, and not up to the one before it.
START_INTERVAL_API, FORMER_API = "1.44", "1.43"
#: Seconds since the last write to a volume that show that it may be in use; an idle server writes every few minutes at most.
RECENT, RECENT_WITH_LOCK = 60, 600
STARTING = "the container is not healthy yet"
CHANGED = "its declaration changed"
#: The labels of a container that contain the hash of its declaration, and what it is made of, and the longest value that the latter shows.
HASHED = "slipway.declaration"
DESCRIBED = "slipway.described"
SHOWN_VALUE = 120
#: What to do instead, and how to go on all the same, where a service would begin without its data.
MOVE_DATA = "move the data as docs/operate.md says (Move data to another host)"
BEGIN_EMPTY = "To begin without it, on purpose or to restore it afterwards: playbooks/site.yml -e accept=empty"
TWO_SERVERS = "two servers on one volume destroy its data"
#: What all owners of the product's containers count as, where it does not matter which of them it is.
PRODUCT = "app"
LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}


class DeclarationError(ValueError):
    """A declaration is wrong, or a container, volume or network of the host that is not the stack's is in its way."""


def normalize(declared: Declaration) -> Declaration:
    """Return the declaration with every field there.

    Raises:
        DeclarationError: a field is unknown, missing, or of another form than FIELDS says.
    """
    name = declared.get("name", "?")
    unknown = sorted(set(declared) - set(FIELDS))
    if unknown:
        raise DeclarationError(f"service {name}: unknown field {', '.join(unknown)}; known are {', '.join(FIELDS)}")
    full: Declaration = {}
    for field, default in {**FIELDS, **(WITHOUT_CONTAINER if declared.get("container") == "none" else {})}.items():
        value = declared.get(field, default)
        if value is None or (default is None and value == ""):
            raise DeclarationError(f"service {name}: field {field} is missing")
        if isinstance(default, (dict, list)) and not isinstance(value, type(default)):
            raise DeclarationError(f"service {name}: field {field} must be a {type(default).__name__}, not {type(value).__name__}")
        full[field] = value
    for kind in ("config", "secrets"):
        for file, item in full[kind].items():
            if item.get("on_change") not in ON_CHANGE:
                raise DeclarationError(f"service {name}: {kind} {file}: on_change must be restart, reload or none")
            if item["on_change"] == "reload" and not full["reload"]:
                raise DeclarationError(f"service {name}: {kind} {file} asks for a reload, but reload has no command")
    for item in full["hardening_exceptions"]:
        if item.get("what") not in EXEMPTIBLE or not item.get("why"):
            raise DeclarationError(f"service {name}: hardening_exceptions needs what (one of {', '.join(sorted(EXEMPTIBLE))}) and why")
    refuse_container(full)
    return full


def refuse_container(service: Declaration) -> None:
    """Refuse what no container can be.

    Raises:
        DeclarationError: it runs without a health check, or is of no known kind.
    """
    if service["container"] not in CONTAINERS:
        raise DeclarationError(f"service {service['name']}: container must be one of {', '.join(CONTAINERS)}")
    if not service["healthcheck"].get("test") and not service["one_shot"] and service["container"] == "running":
        raise DeclarationError(f"service {service['name']}: field healthcheck needs a test")


def fingerprint(value: t.Any, length: int = 64) -> str:
    """Return a hexadecimal digest of any JSON-like value, the same for equal values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:length]


def revision_of(service: Declaration) -> str:
    """Return the name of the folder that holds this configuration, a digest of its content."""
    return revision_of_files({file: str(item["content"]) for file, item in service["config"].items()})


def create_time_files(service: Declaration) -> dict[str, str]:
    """Return the digests of all files whose change needs a new container."""
    return {
        f"{kind}/{file}": hashlib.sha256(str(item["content"]).encode()).hexdigest()
        for kind in ("config", "secrets")
        for file, item in service[kind].items()
        if item["on_change"] == "restart"
    }


def numbers_of(api_version: str) -> tuple[int, ...]:
    """Return the version of an engine's API in a form that compares; of one that is not known, less than any."""
    return tuple(int(part) for part in (api_version or "0.0").split("."))


def container_options(service: Declaration, stack: str, root: str, owner: str, api_version: str) -> dict[str, t.Any]:
    """Return the options of community.docker.docker_container for a service, hash label included."""
    exempt = {item["what"] for item in service["hardening_exceptions"]}
    folder = f"{root}/{stack}/{service['name']}"
    check = service["healthcheck"]
    # nocopy: the engine would otherwise give an empty volume to the owner of the image's folder, often root.
    mounts = [f"{volume['name']}:{volume['path']}:{volume.get('mode', 'rw')},nocopy" for volume in service["volumes"]]
    if service["config"]:
        mounts.append(f"{folder}/config:/etc/slipway:ro")
    mounts += [f"{source}:{path}:ro" for source, path in sorted(service["host_folders"].items())]
    if service["secrets"]:
        mounts.append(f"{folder}/secrets:/run/secrets:ro")
    # A folder of the image keeps its mode, often root's 0755. The user's number is not known here, and no one else is in the container.
    asked = {
        path: more if path == "/tmp" or "mode=" in more else ",".join(filter(None, [more, "mode=1777"]))  # noqa: S108
        for path, more in service["tmpfs"].items()
    }
    tmpfs = {"/tmp": "size=64m", **asked}  # noqa: S108 - a place inside the container
    options: dict[str, t.Any] = {
        "name": f"{stack}-{service['name']}",
        "image": str(service["image"]),
        "env": environment_of(service["environment"]),
        "volumes": mounts,
        "tmpfs": [f"{path}:{','.join(filter(None, ['noexec,nosuid,nodev', more]))}" for path, more in sorted(tmpfs.items())],
        "published_ports": [f"{port['address']}:{port['port']}:{port['container_port']}" for port in service["ports"]],
        "pids_limit": int(service["pids"]),
        "stop_timeout": int(service["stop_timeout"]),
        "cap_drop": ["ALL"],
        "capabilities": sorted(service["capabilities"]),
        "security_opts": [] if "no_new_privileges" in exempt else ["no-new-privileges:true"],
        "read_only": "read_only" not in exempt,
        "log_driver": "json-file",
        "log_options": LOG_OPTIONS,
        "networks_cli_compatible": True,
    }
    if check.get("test"):
        # Each check starts a process in the container. Where the engine checks every second while a container starts, it can be rare after.
        quick_start = numbers_of(api_version) >= numbers_of(START_INTERVAL_API)
        options["healthcheck"] = {
            "test": check["test"],
            "interval": f"{check.get('interval', 30 if quick_start else 10)}s",
            "timeout": f"{check.get('timeout', 5)}s",
            "retries": int(check.get("retries", 3)),
            "start_period": f"{check.get('start_period', 60)}s",
        }
        if quick_start:
            options["healthcheck"]["start_interval"] = "1s"
    for field, option in (("user", "user"), ("entrypoint", "entrypoint"), ("command", "command"), ("stop_signal", "stop_signal")):
        if service[field]:
            value = service[field]
            options[option] = [str(part) for part in value] if isinstance(value, list) else str(value)
    if service["wrapper"]:
        # It takes the place of the entrypoint, which becomes a part of the command together with what the image brings along.
        options["wrapper"] = [str(part) for part in service["wrapper"]]
    if service["ulimits"]:
        options["ulimits"] = [f"{name}:{int(limit)}:{int(limit)}" for name, limit in sorted(service["ulimits"].items())]
    if int(service["shm_size_mb"]):
        options["shm_size"] = f"{int(service['shm_size_mb'])}M"
    labels = {
        "slipway.stack": stack,
        "slipway.service": service["name"],
        "slipway.owner": owner,
        **{name: str(value) for name, value in service["labels"].items()},
    }
    if service["converge"]:
        labels["slipway.query"] = json.dumps(service["converge"]["query"])
    hashed = {**options, "labels": labels, "files": create_time_files(service)}
    options["labels"] = {**labels, HASHED: fingerprint(hashed), DESCRIBED: json.dumps(described(hashed), sort_keys=True)}
    if service["wrapper"]:
        # For runs of commands, which follow from the above.
        left_out = int(service["not_copied"].get("wrapper_words", 0))
        options["copied"] = {"wrapper": len(service["wrapper"]) - left_out, "without": list(service["not_copied"].get("volumes", ()))}
    # What follows can be changed on a living container, so it stays out of the hash and is compared as it is.
    options["memory"] = f"{int(service['memory_mb'])}M"
    options["memory_swap"] = options["memory"]
    options["cpus"] = round(float(service["cpus"]), 2)
    options["cpu_shares"] = int(service["cpu_shares"])
    options["starting_cpu_shares"] = int(service["starting_cpu_shares"])
    options["restart_policy"] = "no" if service["one_shot"] or service["container"] == "created" else "unless-stopped"
    options["networks"] = [
        {"name": f"{stack}-{network}", "aliases": sorted({service["name"], *service["aliases"]})} for network in service["networks"]
    ]
    return options


def declared_alike(service: Declaration, stack: str, root: str, owner: str, label: str) -> bool:
    """Return whether a container with this hash of its declaration is of this one, whichever version of the engine it was created for.

    An update of the engine does not replace all containers: they get what the engine can do now when something else replaces them.
    """
    versions = (START_INTERVAL_API, FORMER_API)
    return label in (container_options(service, stack, root, owner, version)["labels"][HASHED] for version in versions)


def described(options: dict[str, t.Any]) -> dict[str, str]:
    """Return what a container is made of, by field, in a few characters each: a long value, and one of the environment, as its digest.

    Without its files, whose differences are found in the files themselves, and which may be secrets.
    """
    fields = {name: value for name, value in options.items() if name not in ("env", "labels", "files", "image")}
    fields |= {f"the label {name}": value for name, value in options["labels"].items() if name not in ("slipway.stack", "slipway.query")}
    texts = {name: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for name, value in fields.items()}
    short = {name: text if len(text) <= SHOWN_VALUE else "" for name, text in texts.items()}
    digests = {name: texts[name] for name, text in short.items() if not text and texts[name]}
    digests |= {f"the environment's {name}": str(value) for name, value in options["env"].items()}
    return {**short, **{name: f"sha256:{fingerprint(text, 8)}" for name, text in digests.items()}}


def changed_fields(label: str, wanted: str) -> list[str]:
    """Return what differs between what two containers are made of, as their labels describe it."""
    try:
        before, after = json.loads(label), json.loads(wanted)
    except ValueError:
        return []
    found = []
    for name in sorted({*before, *after}):
        old, new = (str(values.get(name, "")) for values in (before, after))
        if old != new:
            hidden = any(text.startswith("sha256:") for text in (old, new))
            found.append(f"{name} changes" if hidden else f"{name} {old or '(none)'} becomes {new or '(none)'}")
    return found


def container_differences(
    options: dict[str, t.Any], actual: dict[str, t.Any], state: State, is_alike: t.Callable[[str], bool]
) -> tuple[list[str], list[str]]:
    """Return why a container must be re-created, and what can be changed on it while it runs.

    Args:
        options: What it is to have.
        actual: What it has.
        state: What ``host_state`` read.
        is_alike: Whether another hash in its label is of its declaration too.
    """
    recreate: list[str] = []
    update: list[str] = []
    if "slipway.stack" not in actual["labels"]:
        return ["it was created by hand"], update
    label = actual["labels"].get(HASHED, "")
    if label != options["labels"][HASHED] and not is_alike(label):
        changed = changed_fields(actual["labels"].get(DESCRIBED, ""), options["labels"][DESCRIBED])
        recreate.append(": ".join(filter(None, [CHANGED, ", ".join(changed)])))
    if not actual["labels"].get("slipway.uid"):
        recreate.append("its user is unknown")
    image = normal_reference(options["image"])
    known = state["images"].get(image)
    if image != actual["image"]:
        recreate.append(f"image {actual['image']} becomes {image}")
    elif known and known["id"] != actual["image_id"]:
        recreate.append(f"image {image} was updated")
    # docker_container would remove what runs before it creates another: unlike memory, it does not change this limit of a living one.
    if actual["nano_cpus"] != round(options["cpus"] * 1e9):
        recreate.append(f"CPU limit {actual['nano_cpus'] / 1e9:g} becomes {options['cpus']:g}")
    wanted_memory = int(options["memory"][:-1]) * 2**20
    if actual["memory"] != wanted_memory:
        update.append(f"memory limit {actual['memory'] // 2**20} MiB becomes {wanted_memory // 2**20} MiB")
    # The engine says 0 for its default. Of one that starts, who waits for it sets them.
    if not options["starting_cpu_shares"] and (actual["cpu_shares"] or CPU_SHARES) != options["cpu_shares"]:
        update.append(f"CPU shares {actual['cpu_shares'] or CPU_SHARES} become {options['cpu_shares']}")
    if actual["restart_policy"] != options["restart_policy"]:
        update.append(f"restart policy {actual['restart_policy']} becomes {options['restart_policy']}")
    wanted = {network["name"]: network["aliases"] for network in options["networks"]}
    update += [f"joins network {name}" for name in sorted(set(wanted) - set(actual["networks"]))]
    update += [f"leaves network {name}" for name in sorted(set(actual["networks"]) - set(wanted))]
    update += [
        f"gets its names on network {name} again"
        for name in sorted(set(wanted) & set(actual["networks"]))
        if not set(wanted[name]) <= set(actual["networks"][name])
    ]
    return recreate, update


def config_differences(service: Declaration, folder: str, files: dict[str, t.Any], key: str) -> t.Iterator[tuple[str, str]]:
    """Yield the name of each config file of the live revision that differs, and why."""
    revision, live = revision_of(service), files.get(f"{folder}/config/current", {}).get("link", "")
    top, differs = f"{folder}/config/{live}/", False
    for file, item in service["config"].items():
        before = files.get(top + file) if live else None
        if not before:
            why = "is missing"
        elif before.get("digest") != keyed_digest(key, str(item["content"])):
            why = "differs"
        elif before["mode"] != "0644":
            why = "has another mode"
        else:
            continue
        differs = True
        yield file, why
    for path in sorted(files):
        if live and path.startswith(top) and path.removeprefix(top) not in service["config"]:
            differs = True
            yield path.removeprefix(top), "is not declared"
    if live != revision and not differs:
        yield "", "names another revision"


def secret_differences(
    service: Declaration, folder: str, files: dict[str, t.Any], key: str, uid: int | None
) -> t.Iterator[tuple[str, str]]:
    """Yield the name of each secret that differs, and why; the empty name stands for their folder."""
    for file, item in service["secrets"].items():
        there = files.get(f"{folder}/secrets/{file}")
        if not there:
            yield file, "is missing"
        elif there.get("digest") != keyed_digest(key, str(item["content"])):
            yield file, "differs"
        elif there["mode"] != "0400" or there["uid"] != (there["uid"] if uid is None else uid):
            yield file, "has another owner or mode"
    holder = files.get(f"{folder}/secrets")
    if service["secrets"] and holder and (holder["mode"] != "0500" or holder["uid"] != (holder["uid"] if uid is None else uid)):
        yield "", "has another owner or mode"
    for path in sorted(files):
        file = path.removeprefix(f"{folder}/secrets/")
        if file not in {path, *service["secrets"]}:
            yield file, "is not declared"


def file_differences(service: Declaration, folder: str, state: State, key: str, uid: int | None) -> list[dict[str, t.Any]]:
    """Return the files of a service that differ, each with ``path``, ``why``, ``kind`` and ``file``; no content of a secret.

    Args:
        service: the declaration, normalized.
        folder: the service's folder on the host.
        state: what ``host_state`` read.
        key: the key of the digests in ``state``.
        uid: number of the user that must own the secrets, or None where no container shows it.
    """
    files = state["files"]
    found: list[dict[str, t.Any]] = []
    if service["config"]:
        for file, why in config_differences(service, folder, files, key):
            path = f"{folder}/config/current/{file}".rstrip("/")
            found.append({"kind": "config", "file": file, "path": path, "why": why})
    for file, why in secret_differences(service, folder, files, key, uid):
        found.append({"kind": "secrets", "file": file, "path": f"{folder}/secrets/{file}".rstrip("/"), "why": why})
    for path, item in service["host_files"].items():
        there = files.get(path)
        same = there and there.get("digest") == keyed_digest(key, str(item["content"])) and there["mode"] == item.get("mode", "0644")
        if not same:
            found.append({"kind": "host_files", "file": path, "path": path, "why": "differs" if there else "is missing"})
    return found


def file_diffs(service: Declaration, differing: list[dict[str, t.Any]], folder: str, state: State) -> list[dict[str, str]]:
    """Return what Ansible prints with --diff: texts of config files, and of secrets the names only."""
    diffs = []
    live = state["files"].get(f"{folder}/config/current", {}).get("link", "")
    for item in differing:
        if item["kind"] == "secrets" or not item["file"]:
            diffs.append({"prepared": f"{item['path']}: {item['why']}\n"})
            continue
        declared = service[item["kind"]].get(item["file"])
        place = item["file"] if item["kind"] == "host_files" else f"{folder}/config/{live}/{item['file']}"
        before = state["files"].get(place, {}).get("content", "")
        after = str(declared["content"]) if declared else ""
        text = "".join(
            difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), item["path"], item["path"], n=2)
        )
        diffs.append({"prepared": text or f"{item['path']}: {item['why']}\n"})
    return diffs


def converge_difference(service: Declaration, container: str, state: State) -> str:
    """Return why the state inside a service must be brought in line, or an empty string."""
    converge = service["converge"]
    if not converge:
        return ""
    query = state["queries"].get(container)
    if query is None:
        return "its inner state is not known yet"
    if query["rc"] != 0:
        return f"its inner state cannot be read: {query['error'] or query['rc']}"
    desired, answer = converge["desired"], query["answer"]
    parts = sorted(key for key in desired if desired[key] != answer.get(key))
    return f"its inner state differs in {', '.join(parts)}" if parts else ""


def foreign_container(container: str, stack: str, state: State) -> None:
    """Refuse to touch a container that is not of the stack.

    Raises:
        DeclarationError: a container of that name exists, and is not of this stack.
    """
    if container in state["foreign_containers"]:
        raise DeclarationError(
            f"a container named {container} exists that is not of the stack {stack}: rename or remove it, or set slipway_stack"
        )


def absent_addresses(service: Declaration, state: State) -> None:
    """Refuse to publish a port on an address that the host has not; the engine would say so when the former container is gone.

    Raises:
        DeclarationError: there is such a port.
    """
    host = state.get("host", {})
    addresses = host.get("addresses")
    if not addresses or host.get("nonlocal_bind"):
        return
    for port in service["ports"]:
        address = str(port["address"])
        # Of IPv6 the host does not say which it has.
        if ":" not in address and address not in ("0.0.0.0", *addresses) and not address.startswith("127."):  # noqa: S104 - compared only
            raise DeclarationError(
                f"service {service['name']}: port {port['port']} is to be published on {address}, which is none of this host's addresses "
                f"({', '.join(addresses)}): change {port.get('variable') or 'the address in the declaration'}"
            )


def refuse_networks(service: Declaration, networks: dict[str, t.Any]) -> None:
    """Refuse networks that are not declared.

    Raises:
        DeclarationError: the service asks for one.
    """
    unknown = sorted(set(service["networks"]) - set(networks))
    if unknown:
        raise DeclarationError(f"service {service['name']}: unknown network {', '.join(unknown)}")


def refuse_volumes(service: Declaration, container: str, stack: str, state: State, adopt: bool) -> None:
    """Refuse to touch a volume that another container uses, or that does not fit.

    Raises:
        DeclarationError: there is one; the message holds all reasons.
    """
    clashes = volume_clashes(service, container, stack, state, adopt)
    if clashes:
        raise DeclarationError("\n".join(clashes))


def volume_clashes(service: Declaration, container: str, stack: str, state: State, adopt: bool) -> list[str]:
    """Return why a service may not have its volumes, all reasons at once, each with what to do."""
    actual = state["containers"].get(container)
    found: list[str] = []
    for volume in (volume for volume in service["volumes"] if not volume.get("shared")):
        name, there = volume["name"], state["volumes"].get(volume["name"])
        if there is None:
            continue
        variable, found_before = volume.get("variable") or "the declaration", len(found)
        # One that was taken over has no label of the stack, but the stack's container.
        mounting = [actual] if actual and name in actual.get("volumes", {}) else []
        ours = any(item["labels"].get("slipway.stack") == stack for item in [there, *mounting])
        found += [
            f"volume {name} is used by the container {user['name']} ({user['status']}), which is not of the stack {stack}. Two servers on "
            f"one volume destroy its data: remove that container (`docker rm -f {user['name']}` keeps the volume), or name another volume "
            f"in {variable}"
            for user in users_of_volume(name, volume, ours, state)
        ]
        if not ours and len(found) == found_before:
            found += adoption_clashes(name, variable, there, stack, adopt)
        uid = wanted_uid(service, state)
        if uid is not None and there.get("uid") not in (None, uid) and there.get("empty") is False and volume.get("mode", "rw") == "rw":
            by_number = str(service["user"]).partition(":")[0].isdigit()
            # As backup_volume is, or the key of a service's volumes.
            found.append(another_owner(name, there["uid"], uid, f"{variable.rpartition('volume')[0]}user" if by_number else ""))
    return found


def users_of_volume(name: str, volume: dict[str, t.Any], ours: bool, state: State) -> list[dict[str, t.Any]]:
    """Return the containers that are not the stack's and may write to a volume, now or once they are started."""
    found = []
    for other, container in sorted(state["foreign_containers"].items()):
        mode = container.get("volumes", {}).get(name)
        # A second reader, such as a shipper of logs, does no harm. A volume that is not the stack's belongs to whatever mounts it.
        if mode is None or (ours and (mode == "ro" or not volume.get("data") or not container.get("running"))):
            continue
        found.append({"name": other, "status": container.get("status", "unknown")})
    return found


def adoption_clashes(name: str, variable: str, there: dict[str, t.Any], stack: str, adopt: bool) -> list[str]:
    """Return why a volume without our label cannot be taken over."""
    owner = there["labels"].get("slipway.stack")
    if owner or not adopt:
        whose = f"is that of the stack {owner}" if owner else f"is not of the stack {stack}"
        more = "" if owner else ", or set container_service_adopt_volumes: true to take it over with its data"
        return [f"volume {name} exists and {whose}: name another in {variable}{more}"]
    written, lock = there.get("written_s"), there.get("lock", "")
    recent = RECENT_WITH_LOCK if lock else RECENT
    if written is not None and written < recent:
        signs = f"its file {lock} says that a server uses it, and" if lock else "it may be in use:"
        message = (
            f"volume {name} cannot be taken over: {signs} the last write was {written} s ago. Stop what uses it, and run this again "
            f"{recent - written} s later; or name another volume in {variable}"
        )
        return [message]
    return []


def runs_elsewhere(service: Declaration, volume: dict[str, t.Any], state: State, stack: str) -> str:
    """Return the other volume that a service runs on, in the place of a declared one, or ""."""
    actual = state["containers"].get(f"{stack}-{service['name']}") or {}
    former = next((name for name, mount in actual.get("volumes", {}).items() if mount["path"] == volume["path"]), "")
    return former if actual.get("running") and former != volume["name"] else ""


def unintended_moves(declared: list[Declaration], state: State, stack: str) -> list[str]:
    """Return why a store that runs may not be given an empty volume in place of the one with its data, a sentence for each.

    Whatever its image: that its version is another one, which cannot read the data, is not known of each image.
    """
    return [
        f"{item['name']} runs on the volume {former}, and {volume.get('variable') or 'its declaration'} names {volume['name']}, which is "
        f"empty: the product would be without its data. Set it back to {former}. {BEGIN_EMPTY}"
        for item in declared
        for volume in item.get("volumes", ())
        if volume.get("data") and (former := runs_elsewhere(item, volume, state, stack))
        if state["volumes"].get(volume["name"], {}).get("empty") is not False
    ]


def volumes_left(declared: list[Declaration], state: State, stack: str, owner: str) -> dict[str, dict[str, str]]:
    """Return the volumes with data that an owner's services no longer have on this host.

    Args:
        declared: What is to run on the host, of one owner.
        state: What was read from the host.
        stack: Name of the stack.
        owner: Whose services these are. Both slots of the product count as one.

    Returns:
        By name of the volume, of those that a running container writes to, its ``path`` there, and the ``container``. Both are empty for
        those of the stack that no such container has; other owners may declare these.
    """
    slots = any("slipway.slot" in item.get("labels", {}) for item in declared)
    named = {volume["name"] for item in declared for volume in item.get("volumes", ())}
    filled = {name: there for name, there in state["volumes"].items() if name not in named and there.get("empty") is False}
    written = {
        name: {"path": mount["path"], "container": container}
        for container, there in sorted(state["containers"].items())
        if there.get("running") and (there["labels"].get("slipway.owner") == owner or (slots and "slipway.slot" in there["labels"]))
        for name, mount in there.get("volumes", {}).items()
        if mount["mode"] == "rw" and name in filled
    }
    ours = (name for name, there in filled.items() if there.get("labels", {}).get("slipway.stack") == stack)
    return {name: {"path": "", "container": ""} for name in ours} | written


def volumes_of_data(declared: list[Declaration], state: State) -> dict[str, dict[str, t.Any]]:
    """Return the declared volumes with data: those of stores, and those that recovery points hold.

    Returns:
        By name of the volume, its ``path`` in the container, the ``variable`` that names it, ``store`` (the service, where it is a store,
        or ""), ``empty``, ``used`` (whether a running container has it: a service may have nothing to keep yet), and ``there`` (whether it
        exists).
    """
    used = {name for there in state["containers"].values() if there.get("running") for name in there.get("volumes", {})}
    return {
        volume["name"]: {
            "path": volume["path"],
            "variable": volume.get("variable") or "the declaration",
            "store": item["name"] if volume.get("data") else "",
            "empty": state["volumes"].get(volume["name"], {"empty": True}).get("empty") is True,
            "used": volume["name"] in used,
            "there": volume["name"] in state["volumes"],
        }
        for item in declared
        for volume in item.get("volumes", ())
        if volume.get("kept") or volume.get("data")
    }


def emptied(declared: list[Declaration], state: State, stack: str, owner: str) -> list[str]:
    """Return why the product may not be given an empty volume in place of one with its files, a sentence for each.

    unintended_moves says it of stores.
    """
    left = volumes_left(declared, state, stack, owner)
    return [
        f"{there['container']} runs on the volume {former}, and {wanted['variable']} names {name}, which is empty: the product would be "
        f"without its files. Set it back to {former}, or copy them first. {BEGIN_EMPTY}"
        for name, wanted in volumes_of_data(declared, state).items()
        if wanted["empty"] and not wanted["store"]
        for former, there in left.items()
        if there["path"] == wanted["path"]
    ]


def left_behind(
    left: t.Mapping[str, t.Mapping[str, dict[str, str]]], wanted: t.Mapping[str, t.Mapping[str, dict[str, t.Any]]]
) -> list[str]:
    """Return why a service may not move to a host that has an empty volume of the name, a sentence for each, beginning with the host.

    What no container uses any more may have been left there long ago: it says nothing where the volume is in use, or another host has it
    with data.

    Args:
        left: By host, what volumes_left says of it.
        wanted: By host, what volumes_of_data says of it.
    """
    filled = {name for volumes in wanted.values() for name, volume in volumes.items() if not volume["empty"]}
    return [
        f"{host}: the volume {name} is empty here, and its data is on {other}"
        + (f", where {there[name]['container']} would be removed" if there[name]["container"] else ", where no container uses it any more")
        + f": the product would be without it. Keep the service on {other}, or {MOVE_DATA}. {BEGIN_EMPTY}"
        for host, volumes in wanted.items()
        for name, volume in volumes.items()
        if volume["empty"]
        for other, there in left.items()
        if other != host and name in there and (there[name]["container"] or not (volume["used"] or name in filled))
    ]


def begun_empty(
    wanted: t.Mapping[str, t.Mapping[str, dict[str, t.Any]]],
    recorded: t.Mapping[str, t.Collection[str]],
    left_out: t.Collection[str] = (),
    *,
    filled: t.Mapping[str, t.Collection[str]] | None = None,
    complete: bool = True,
) -> list[str]:
    """Return why the product may not go on with volumes that are empty, a sentence for each, beginning with the host.

    A host that has failed, or has left the inventory, cannot be asked: that its data is missing is seen by what a release has recorded.
    Each host has data of its own: that of one is missing, whatever others have, unless as many new ones have it.

    Args:
        wanted: By host, what volumes_of_data says of it, for the services of one owner.
        recorded: Of a stack that was released, which hosts have data, by service of a store and by volume.
        left_out: Hosts that run services of this owner too, and were not read.
        filled: Which hosts had something in a volume of the product, which may be empty until something is uploaded.
        complete: Whether all of that was recorded. Otherwise it is of stores that were seen; one more may be new, or be on a lost host.
    """
    begins: list[tuple[str, str, str, dict[str, t.Any]]] = []
    goes_on: dict[str, set[str]] = {}
    for host, volumes in wanted.items():
        for name, volume in volumes.items():
            known = volume["store"] or name
            kept = not volume["store"] and volume["there"] and host in recorded.get(name, ()) and host not in (filled or {}).get(name, ())
            if volume["empty"] and not volume["used"] and not kept:
                begins.append((host, name, known, volume))
            else:
                goes_on.setdefault(known, set()).add(host)
    found = []
    for host, name, known, volume in begins:
        had = set(recorded.get(known, ())) if complete or volume["store"] else set()
        have = goes_on.get(known, set())
        lost = had - have - set(left_out)
        missing = f"{host}: the volume {name} {'is empty' if volume['there'] else 'does not exist'} here, and "
        if host in lost or len(lost) > len(have - had):
            on = ", ".join(sorted(lost))
            found.append(
                f"{missing}the product that was released has had this data on {on}: it would be without it. Bring that volume back, or "
                f"{MOVE_DATA}. {BEGIN_EMPTY}"
            )
        elif not complete and volume["store"] and not had and not have:
            found.append(
                f"{missing}it is not known whether the product that was released has had data of {known}: an earlier version of Slipway "
                f"has recorded no data, and no host that was read has anything else of {known}. If it is new, first run site.yml without "
                f"it, which records the others. If its host or volume is lost, bring the volume back, or {MOVE_DATA}. {BEGIN_EMPTY}"
            )
    return found


def service_folders(state: State, stack: str, root: str) -> set[str]:
    """Return the names of the services of which a host has configuration or secrets."""
    return {path.removeprefix(f"{root}/{stack}/").partition("/")[0] for path in state["files"] if path.startswith(f"{root}/{stack}/")}


def services_there(state: State, stack: str, root: str) -> set[str]:
    """Return the names of the services of which a host has a container or files."""
    labels = (container["labels"] for container in state["containers"].values())
    return service_folders(state, stack, root) | {item.get("slipway.service", "") for item in labels if item.get("slipway.stack") == stack}


def holds_data(service: Declaration) -> bool:
    """Return whether a service is a store, whose data others wait for while it is away."""
    return any(volume.get("data") for volume in service["volumes"])


def wanted_uid(service: Declaration, state: State) -> int | None:
    """Return the number of the user that a container will run as, or None where that is not known before it is made."""
    image = state["images"].get(normal_reference(str(service["image"]))) or {}
    name = (str(service["user"]) or image.get("user", "")).partition(":")[0]
    return int(name) if name.isdigit() else (image.get("users") or {}).get(name)


def same_major(one: str, other: str) -> bool:
    """Return whether two images, named as the engine lists them, are of the same repository and major version, as far as their tags say.

    A version 0 changes with its second number, and a digest says nothing.
    """
    if "@" in one + other:
        return one == other
    majors = []
    for image in (one, other):
        repository, _colon, tag = image.rpartition(":")
        found = re.match(r"v?(0\.\d+|[1-9]\d*)", tag)
        majors.append((repository, found[1] if found else tag))
    return majors[0] == majors[1]


def between_restarts(actual: dict[str, t.Any] | None) -> dict[str, t.Any] | None:
    """Return a container as it is between two starts, where its restart policy starts it again and again and this was a short life of it.

    Nothing can be asked of such a one: it ends at any moment.
    """
    if actual and actual["running"] and actual["health"] == "starting" and actual.get("restarts", 0) >= RESTARTS_MEANING_FAILURE:
        return {**actual, "running": False, "status": "restarting"}
    return actual


def start_reasons(actual: dict[str, t.Any] | None, taken_up: bool, start: bool) -> list[str]:
    """Return why a container must be started, other than that it is declared otherwise."""
    if actual is None:
        return ["the container does not exist"]
    if taken_up:
        return ["its replacement was interrupted"]
    return [f"the container is {actual['status']}"] if start else []


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a host has of one service, compared with its declaration.

    Attributes:
        actual: The service's container, or the one that a run, which was killed, has stopped to replace it.
        former: The container before ``actual``, where both are there and ``actual`` is not healthy yet.
        moved: Whether ``actual`` has lost its name, and its successor has not got it yet.
        failing: Whether the container runs without doing its work.
        starting: Whether its first health check has not passed yet.
        differing: What differs in the service's files.
        secrets_differ: Whether secrets are among it.
        foreign_volumes: Names of volumes of its own that belong to another user.
        recreate: Why the container is replaced.
        update: What is changed of it while it runs.
        taken_up: Whether a replacement goes on that a run, which was killed, has begun.
        start: Whether a container that has stopped is started as it is.
        replaced: Whether a new container is created.
        loaded: The revision of the configuration that the process has read.
        interrupted: Whether a run was killed while it changed the service's files.
        inner: What differs in the state inside the service, a sentence or "".
    """

    actual: dict[str, t.Any] | None
    former: dict[str, t.Any] | None
    moved: bool
    failing: bool
    starting: bool
    differing: list[dict[str, t.Any]]
    secrets_differ: bool
    foreign_volumes: list[str]
    recreate: list[str]
    update: list[str]
    taken_up: bool
    start: bool
    replaced: bool
    loaded: str
    interrupted: bool
    inner: str

    @property
    def begins(self) -> bool:
        """Whether the service starts, with all its files read."""
        return self.replaced or self.start or self.taken_up

    @property
    def serves(self) -> bool:
        """Whether its container runs and does its work, as far as is known."""
        return self.actual is not None and self.actual["running"] and not self.failing


def see(service: Declaration, options: dict[str, t.Any], state: State, *, stack: str, root: str, owner: str, key: str) -> Seen:
    """Return what a host has of a service whose container would have these options."""
    runs, files_alone = service["container"] == "running", service["container"] == "none"
    container, folder = f"{stack}-{service['name']}", f"{root}/{stack}/{service['name']}"
    own = between_restarts(state["containers"].get(container))
    before = state["containers"].get(container + BEFORE)
    actual = own or before
    moved = actual is not None and not own
    uid_label = (actual or {}).get("labels", {}).get("slipway.uid", "")
    uid = int(uid_label) if uid_label else None
    differing = file_differences(service, folder, state, key, uid)
    is_alike = functools.partial(declared_alike, service, stack, root, owner)
    recreate, update = container_differences(options, actual, state, is_alike) if actual else ([], [])
    if moved:
        recreate, update = ["its replacement was interrupted"], []
    running, health = bool(actual and actual["running"]), actual["health"] if actual else ""
    # It has its name, but is not up, and the one before it is still there. What is declared otherwise by now takes its place.
    former = before if runs and own and not ((running and health == "healthy") or service["one_shot"]) else None
    taken_up = bool(former) and not recreate and not differing
    start = runs and bool(actual) and not running and not recreate and not taken_up
    replaced = not files_alone and (not actual or bool(recreate))
    return Seen(
        actual=actual,
        former=former,
        moved=moved,
        # A container that its restart policy starts again and again is running for the engine, and waits longer each time.
        failing=bool(actual) and (actual["status"] == "restarting" or (running and health == "unhealthy")),
        starting=running and health == "starting",
        differing=differing,
        secrets_differ=any(item["kind"] == "secrets" for item in differing),
        foreign_volumes=[
            volume["name"]
            for volume in service["volumes"]
            if volume.get("mode", "rw") == "rw"
            # Another service of the stack owns what is shared.
            and not volume.get("shared")
            and uid is not None
            and state["volumes"].get(volume["name"], {}).get("uid", uid) not in {uid, None}
        ],
        recreate=recreate,
        update=update,
        taken_up=taken_up,
        start=start,
        replaced=replaced,
        loaded=state["files"].get(f"{folder}/config/loaded", {}).get("content", "").strip(),
        # What config_tree keeps until the service has taken a change over.
        interrupted=f"{folder}/undo/journal.json" in state["files"],
        inner="" if replaced or start or taken_up else converge_difference(service, container, state),
    )


def must_reload(service: Declaration, seen: Seen, revision: str) -> bool:
    """Return whether a process that goes on reads its files again."""
    if not service["reload"] or seen.begins:
        return False
    asked = any(
        service[item["kind"]].get(item["file"], {}).get("on_change", "reload") == "reload"
        for item in seen.differing
        if item["kind"] in ("config", "secrets")
    )
    return asked or seen.interrupted or (bool(revision) and seen.loaded != revision)


def must_converge(service: Declaration, seen: Seen) -> bool:
    """Return whether the state inside a service is brought in line."""
    if not service["converge"]:
        return False
    secrets = seen.secrets_differ and service["converge"].get("on_secrets", True)
    return bool(seen.begins or seen.inner or seen.failing or secrets)


def must_restart(service: Declaration, seen: Seen) -> bool:
    """Return whether a container that fails is started again as it is."""
    # A login that fails because of a changed password is fixed by converge, and needs no restart.
    converges = bool(seen.inner) or (seen.secrets_differ and bool(service["converge"]))
    return seen.failing and not seen.recreate and not seen.taken_up and not converges


def reasons_of(service: Declaration, seen: Seen, reload: bool, revision: str) -> list[str]:
    """Return what differs, in sentences for people."""
    files_alone = service["container"] == "none"
    # Where nothing was ever deployed, a list of all its files says no more than that.
    reasons = [f"{item['path']} {item['why']}" for item in seen.differing if seen.actual or files_alone or item["why"] != "is missing"]
    reasons += [] if files_alone else start_reasons(seen.actual, seen.taken_up, seen.start)
    reasons += seen.recreate + seen.update
    reasons += [f"volume {name} belongs to another user" for name in seen.foreign_volumes]
    if seen.actual and seen.failing and not seen.recreate and not seen.taken_up and seen.actual["status"] != "restarting":
        reasons.append("the container is unhealthy")
    if seen.starting and not reasons:
        reasons.append(STARTING)
    if reload and not seen.differing and seen.loaded != revision:
        reasons.append("its configuration was not loaded yet")
    if seen.interrupted:
        reasons.append("a change of its files was interrupted")
    if seen.inner and not seen.starting:
        reasons.append(seen.inner)
    return reasons


def can_judge(seen: Seen, reload: bool) -> bool:
    """Return whether the container that runs can say whether the service would take its new configuration."""
    # For its successor, only where both are of one image.
    alike = len(seen.recreate) == 1 and seen.recreate[0].startswith(CHANGED)
    return reload or (alike and seen.actual is not None and seen.actual["running"])


def can_return(service: Declaration, seen: Seen, image: str) -> bool:
    """Return whether the container before can go on after its successor has written to its volumes."""
    before = seen.former or seen.actual
    return not service["volumes"] or (before is not None and same_major(before["image"], image))


def plan_service(
    declared: Declaration, state: State, *, stack: str, root: str, owner: str, key: str, networks: dict[str, t.Any], adopt: bool = False
) -> dict[str, t.Any]:
    """Return what brings one service in line.

    The plan's ``needed`` says whether anything differs; ``reasons`` are sentences for people; the other keys are what the tasks of
    container_service act on. It holds no secret.

    Raises:
        DeclarationError: the declaration is wrong, or something that is not the stack's is in its way.
    """
    service = normalize(declared)
    refuse_networks(service, networks)
    runs, files_alone = service["container"] == "running", service["container"] == "none"
    options = {} if files_alone else container_options(service, stack, root, owner, state["engine"]["api_version"])
    image = normal_reference(options["image"]) if options else ""
    container, folder = f"{stack}-{service['name']}", f"{root}/{stack}/{service['name']}"
    foreign_container(container, stack, state)
    refuse_volumes(service, container, stack, state, adopt)
    absent_addresses(service, state)
    seen = see(service, options, state, stack=stack, root=root, owner=owner, key=key)
    revision = revision_of(service) if service["config"] else ""
    reload, restart = must_reload(service, seen, revision), must_restart(service, seen)
    reasons = reasons_of(service, seen, reload, revision)
    recreate, lasts = bool(seen.recreate), not service["one_shot"]
    return {
        "name": service["name"],
        "container": container,
        "folder": folder,
        "needed": bool(reasons),
        # Someone else has started it, as after a reboot: nothing is changed, only waited for.
        "wait_only": reasons == [STARTING],
        "reasons": reasons,
        "exists": seen.actual is not None,
        "recreate": recreate,
        # What runs goes on, or runs again, unless its successor is known to run.
        "keep": lasts and recreate and (seen.moved or seen.serves),
        # Its successor is waited for again, or gives its place back.
        "taken_up": seen.taken_up,
        # A store that serves is stopped for a while: some want to say when.
        "interrupts": holds_data(service) and recreate and not seen.moved and seen.serves,
        "stop_timeout": int(service["stop_timeout"]),
        "trial": service["trial"],
        "judged_inputs": service["judged_inputs"],
        # Arguments of container_replace, where it replaces the container.
        "replacement": {
            "name": container,
            "folder": folder,
            "ready": service["converge"].get("ready", []),
            "timeout": int(service["healthy_timeout"]),
            "returns": can_return(service, seen, image),
        },
        # What runs there is not what was released: there is nothing to keep alive while another takes its place.
        "by_hand": seen.actual is not None and "slipway.stack" not in seen.actual["labels"],
        "replaced": seen.replaced,
        "restart": restart,
        # Only what container_group stops is safe from the watchdog, which restarts what is unhealthy.
        "stop": lasts and seen.failing and (recreate or restart),
        "stopped": seen.start,
        # Stopped and otherwise as declared, or to be created, changed or restarted.
        "resume": seen.start and not seen.update,
        "make": lasts and not seen.taken_up and (seen.replaced or restart or bool(seen.update)),
        # A reload leaves the health as it is.
        "wait": runs and lasts and (seen.begins or restart or seen.failing or seen.starting),
        "pull": not files_alone and image not in state["images"],
        # What config_tree has kept belongs to the former container until the other one is up.
        "files": not seen.taken_up and (bool(seen.differing) or reload or seen.replaced or seen.interrupted or bool(seen.foreign_volumes)),
        "reload": reload,
        "converge": must_converge(service, seen),
        "revision": revision,
        "config": {file: str(item["content"]) for file, item in service["config"].items()},
        "host_files": {
            path: {"content": str(item["content"]), "mode": item.get("mode", "0644")} for path, item in service["host_files"].items()
        },
        "validate": service["validate"] if can_judge(seen, reload) else [],
        "reload_command": service["reload"],
        "ready_command": service["converge"].get("ready", []),
        "apply_command": service["converge"].get("apply", []),
        "options": options,
        "starts": runs,
        "user": str(service["user"]),
        "image": str(service["image"]),
        "non_root": not files_alone and "non_root" not in {item["what"] for item in service["hardening_exceptions"]},
        "networks": [
            {"name": f"{stack}-{name}", **networks[name]} for name in service["networks"] if f"{stack}-{name}" not in state["networks"]
        ],
        "volumes": [volume["name"] for volume in service["volumes"] if volume["name"] not in state["volumes"]],
        "owned_volumes": [volume["name"] for volume in service["volumes"] if volume.get("mode", "rw") == "rw" and not volume.get("shared")],
        "healthy_timeout": int(service["healthy_timeout"]),
        "one_shot": service["one_shot"],
        "diff": file_diffs(service, seen.differing, folder, state),
    }


def begins_on(plans: list[dict[str, t.Any]]) -> dict[str, list[str]]:
    """Return the volumes that services of a plan write to once they start, each with the containers that do."""
    found: dict[str, list[str]] = {}
    for plan in plans:
        if plan["needed"] and plan["starts"] and not plan["one_shot"] and (plan["replaced"] or plan["stopped"] or plan["taken_up"]):
            for name in plan["owned_volumes"]:
                found.setdefault(name, []).append(plan["container"])
    return found


def written_volumes(declared: t.Iterable[Declaration]) -> set[str]:
    """Return the volumes that services are declared to write to."""
    return {volume["name"] for item in declared for volume in item.get("volumes", ()) if volume.get("mode", "rw") == "rw"}


def writers(name: str, state: State) -> dict[str, dict[str, t.Any]]:
    """Return the stack's running containers that can write to a volume, by name."""
    return {
        other: there
        for other, there in sorted(state["containers"].items())
        if there.get("running") and there.get("volumes", {}).get(name, {}).get("mode") == "rw"
    }


def handed_over(plans: list[dict[str, t.Any]], stale: t.Collection[str], state: State) -> list[dict[str, str]]:
    """Return the containers that go and must stop before another one starts on their volume: two servers on it destroy its data.

    Slots of the product share what they write to.

    Returns:
        Each with ``container``, the ``volume``, and the container that it is handed ``to``.
    """
    return [
        {"container": other, "volume": name, "to": container}
        for name, containers in begins_on(plans).items()
        for container in containers
        for other, there in writers(name, state).items()
        if other in stale and "slipway.slot" not in there["labels"]
    ]


def exchanged(declared: list[Declaration], plans: list[dict[str, t.Any]], state: State) -> list[str]:
    """Return why services may not start on volumes that other ones still write to, which are to have another one, a sentence for each."""
    wanted = {plan["container"]: written_volumes([item]) for plan, item in zip(plans, declared, strict=True)}
    return [
        f"{container} is to write to the volume {name}, on which {other} runs: {TWO_SERVERS}. Leave one of them out of the inventory, run "
        "site.yml, which removes its container, and add it then"
        for name, containers in begins_on(plans).items()
        for container in containers
        for other in writers(name, state)
        if other != container and other in wanted and name not in wanted[other]
    ]


def written_by_others(
    starting: t.Mapping[str, t.Mapping[str, list[str]]], declared: t.Mapping[str, t.Collection[str]], state: State
) -> list[str]:
    """Return why services may not start on volumes that containers of other owners write to, and are not declared to any more.

    Args:
        starting: By owner, what begins_on says of it.
        declared: By owner, the volumes that its services are declared to write to. Both slots of the product, and what runs as copies of
            its containers, are of one owner.
        state: What was read from the host.
    """
    return [
        f"{container} is to write to the volume {name}, on which {other} of {whose} runs: {TWO_SERVERS}. Leave "
        f"{container} out of the inventory, run site.yml, which removes {other}, and add it then"
        for owner, volumes in starting.items()
        for name, containers in volumes.items()
        for container in containers
        for other, there in writers(name, state).items()
        if (whose := family(there["labels"].get("slipway.owner", ""))) not in ("", family(owner)) and other != container
        if name not in declared.get(whose, ())
    ]


def family(owner: str) -> str:
    """Return an owner of containers, and of all those of the product's, one."""
    return PRODUCT if is_of_product(owner) else owner


def stale_reasons(plan: dict[str, t.Any]) -> list[str]:
    """Return why containers and folders go that are not declared."""
    left = {name: name.endswith((NEXT, BEFORE, TRIAL)) for name in plan["stale"]}
    reasons = [f"{name}: " + ("was left by an interrupted run" if left[name] else "is no longer declared") for name in left]
    return reasons + [f"folder {name}: its service has no container" for name in plan["stale_folders"]]


def plan_services(
    declared: list[Declaration],
    state: State,
    *,
    stack: str,
    root: str,
    owner: str,
    key: str,
    networks: dict[str, t.Any],
    adopt: bool,
    run_one_shots: bool = False,
    accept_restart: bool = True,
    accept_empty: bool = False,
) -> dict[str, t.Any]:
    """Return the plans of all services of one owner, in the order given, and its containers and folders that are not declared.

    A store that would be stopped is ``waiting`` and not ``needed``, without ``accept_restart``: nothing of it changes. A one-shot service
    is needed exactly when a container of another service of the list is about to be created, or with ``run_one_shots``. With
    ``accept_empty``, an empty volume may take the place of one with data.

    Raises:
        DeclarationError: see plan_service.
    """
    plans, wrong = [], []
    for item in declared:
        try:
            plans.append(plan_service(item, state, stack=stack, root=root, owner=owner, key=key, networks=networks, adopt=adopt))
        except DeclarationError as error:
            wrong.append(str(error))
    if not accept_empty:
        wrong += unintended_moves(declared, state, stack) + emptied(declared, state, stack, owner)
    if wrong:
        raise DeclarationError("\n".join(wrong))
    waiting = [plan for plan in plans if plan["interrupts"] and not accept_restart]
    for plan in waiting:
        plan["needed"] = False
    names = [plan["name"] for plan in plans]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise DeclarationError(f"service {', '.join(double)} is declared twice")
    replaced = [plan["name"] for plan in plans if plan["replaced"] and not plan["one_shot"] and plan not in waiting]
    for plan in plans:
        if plan["one_shot"]:
            plan["needed"] = bool(replaced) or run_one_shots
            plan["reasons"] = [f"{', '.join(replaced)} will be made" if replaced else "it was asked for"] if plan["needed"] else []
    if found := exchanged(declared, plans, state):
        raise DeclarationError("\n".join(found))
    kinds: set[str] = set()
    for plan, item in zip(plans, declared, strict=True):
        plan["try"] = plan["keep"]
        if plan["needed"] and plan["replaced"]:
            # Replicas differ in nothing that a trial shows.
            kind = fingerprint({field: value for field, value in item.items() if field not in ("name", "ports")})
            plan["try"] |= kind not in kinds
            kinds.add(kind)
    # What a run that was killed has left of a one-shot service goes where it is not to run again.
    containers = {plan["container"] for plan in plans if plan["needed"] or not plan["one_shot"]}
    containers |= {name + BEFORE for name in containers if name not in state["containers"]}
    containers |= {plan["container"] + BEFORE for plan in plans if plan["taken_up"]}
    stale = sorted(
        name
        for name, container in state["containers"].items()
        if container["labels"].get("slipway.owner") == owner and name not in containers
    )
    # That of a one-shot service goes with its container.
    staying = set(state["containers"]) - set(stale) | {plan["container"] for plan in plans if not plan["one_shot"]}
    folders = service_folders(state, stack, root)
    return {
        "services": plans,
        "needed": [plan for plan in plans if plan["needed"]],
        "begins_on": begins_on(plans),
        "handed_over": handed_over(plans, stale, state),
        "waiting": waiting,
        "stale": stale,
        "stale_running": [name for name in stale if state["containers"][name].get("running") and not name.endswith((NEXT, BEFORE, TRIAL))],
        "volumes_left": volumes_left(declared, state, stack, owner),
        "volumes_declared": sorted({volume["name"] for item in declared for volume in item.get("volumes", ())}),
        "volumes_of_data": {} if accept_empty else volumes_of_data(declared, state),
        "stale_folders": sorted(
            {*folders_without_service(folders, staying, stack, owner), *(folder for folder in folders if f"{stack}-{folder}" in stale)}
        ),
    }
