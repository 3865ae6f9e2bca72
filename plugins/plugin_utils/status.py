# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say from what was read of a fleet whether it is well. Pure functions: nothing is read, and the clock is given.

docs/operate.md says what is judged, and docs/reports.md describes the result.
"""

from __future__ import annotations

import json
import re
import typing as t
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from ansible_collections.slipway.stack.plugins.module_utils.containers import replica_of, slot_owners
from ansible_collections.slipway.stack.plugins.module_utils.json_files import JOB, NUMBER, RENEWAL, json_object
from ansible_collections.slipway.stack.plugins.plugin_utils.certificates import read_certificates
from ansible_collections.slipway.stack.plugins.plugin_utils.outlook import waiting_text
from ansible_collections.slipway.stack.plugins.plugin_utils.plan import between_restarts
from ansible_collections.slipway.stack.plugins.plugin_utils.release import version_before

Row = dict[str, t.Any]

WELL = "well"
ATTENTION = "attention"
DOWN = "down"
#: A container that need not run now, such as those of the version before.
IDLE = "idle"
#: Exit status of a run that found the fleet so.
EXIT = {WELL: 0, ATTENTION: 1, DOWN: 2}

FREE_PERCENT = 10
MEMORY_PERCENT = 90
#: A run renews certificates of the private CA in their last 30 days, so one with fewer was missed.
CERTIFICATE_DAYS = 21
RECENT_RESTART_SECONDS = 3600
CLOCK_SECONDS = 60
#: The backups write their report every minute.
REPORT_SECONDS = 600
#: Where the program of role jobs keeps the last result of each.
JOB_STATE = re.compile(r"/jobs/state/[^/]+[.]json$")
#: Results of a job that need no attention: a run that the next one has ended, as its concurrency says, is one.
GOOD_RESULTS = ("succeeded", "replaced")
#: Result of a job on a host that did not learn whether it is to run it: its engine or the claims did not answer.
UNCLAIMED = "unclaimed"
#: Where the watchdog of a host writes what it did within the last hour, and the row of a container with which it did nothing.
WATCHDOG = "/etc/slipway/{stack}/watchdog/state/restarts.json"
LEFT_ALONE: Row = {"restarts": 0, "restarted_s": None, "gave_up": False}


def is_moment(value: t.Any) -> bool:
    """Return whether ``seconds`` reads a value."""
    try:
        seconds(value)
    except (ValueError, TypeError):
        return False
    return True


#: What the backups write of a recovery point, and of all of them.
POINT = {"name": str, "age_s": NUMBER, "bytes": NUMBER, "verified": str}
REPORT = {
    "at": is_moment,
    "alerts": [str],
    "last_point": (POINT, None),
    "last_verified": (POINT, None),
    "wal": ({"behind_bytes": (*NUMBER, None)}, None),
}
#: Configuration that a service reads; certificates are no secret.
CERTIFICATE = re.compile(r"/([^/]+)/(?:config/current|state)/([^/]+[.]pem)$")
#: What an ACME authority has issued, which nginx serves instead of the one in its configuration, and what came of the last renewal.
OWN, ISSUED, RENEWED = "/nginx/config/current/server.pem", "/acme/state/server.pem", "/acme/state/certificate.json"


@dataclass(frozen=True)
class Service:
    """A role that runs something.

    Attributes:
        role: Its name.
        essential: Whether the product needs it.
        hosts: Its hosts by the inventory's groups.
        always: Whether each of them runs a container of it, whatever is declared.
    """

    role: str
    essential: bool
    hosts: Mapping[str, list[str]]
    always: bool = True


@dataclass(frozen=True)
class Fleet:
    """What is known of a fleet.

    Attributes:
        stack: The stack's name.
        now: The controller's clock, in seconds since 1970.
        states: By host what host_state returned; without ``containers`` where the host could not be read, and then
            with why, as ``msg``, and whether it was ``unreachable``.
        services: The services that the inventory has hosts for.
        containers: By host the containers that are to run there, with their roles; not all of them where the comparison failed.
        reasons: By role and host what site.yml would change.
        waiting: Stores whose settings wait for a restart, as outlook.rows has them.
        unknown: Why the comparison with the inventory failed, or "".
        record: What the fleet serves, as release.fleet_record returns it.
        lock: The release lock, as release.fleet_lock returns it.
        reports: By host, the paths of the reports of its services, with their roles.
        history: The last runs that changed something, as history.merged returns them.
        connections: By host the connections of its services to others, as the topology has them.
    """

    stack: str
    now: float
    states: Mapping[str, Row]
    services: Iterable[Service] = ()
    containers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reasons: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)
    waiting: Iterable[Row] = ()
    unknown: str = ""
    record: Row | None = None
    lock: Row | None = None
    reports: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    history: Iterable[Row] = ()
    connections: Mapping[str, list[Row]] = field(default_factory=dict)


def judge(fleet: Fleet) -> Row:
    """Return the state of a fleet, its problems with the worst first, and a row for all that was looked at."""
    rows: dict[str, list[Row]] = {
        "hosts": [_host(name, state) for name, state in fleet.states.items()],
        "services": [row for name, state in _read(fleet).items() for row in _containers(name, state, fleet)],
        "certificates": [row for name, state in _read(fleet).items() for row in _certificates(name, state, fleet.now)],
        "recovery": [row for name, paths in fleet.reports.items() for row in _reports(name, paths, fleet)],
        "jobs": _jobs(fleet),
        "damaged": [row for name, state in _read(fleet).items() for row in _damaged(name, state["files"], fleet.reports.get(name, {}))],
        "releases": _releases(fleet),
        "history": [{**run, "state": WELL, "problems": []} for run in fleet.history],
        "drift": [
            {"host": host, "service": role, "state": ATTENTION, "reasons": reasons, "problems": [_first(reasons)]}
            for role, hosts in fleet.reasons.items()
            for host, reasons in hosts.items()
        ]
        + [
            {**{key: row[key] for key in ("host", "service", "reasons")}, "state": ATTENTION, "problems": [waiting_text(row)]}
            for row in fleet.waiting
        ],
    }
    down = {(row["host"], row["role"]) for row in rows["services"] if row["state"] == DOWN}
    rows["connections"] = list(_connections(fleet, rows["services"], down))
    problems = [
        {"state": row["state"], "host": row.get("host", ""), "service": row.get("service", ""), "what": what}
        for kind, found in rows.items()
        for row in found
        # One that is down was reported: that site.yml would start it again adds nothing.
        if kind != "drift" or (row["host"], row["service"]) not in down
        for what in row["problems"]
    ]
    if fleet.unknown:
        problems.append({"state": ATTENTION, "host": "", "service": "", "what": f"what site.yml would change is unknown: {fleet.unknown}"})
    absent = _absent(fleet, rows["services"])
    problems += [{"state": DOWN, "host": "", "service": role, "what": "no host has a container of it"} for role in absent]
    outages = (
        absent + _outages(fleet, rows["services"], rows["connections"]) + [row for row in rows["certificates"] if row["state"] == DOWN]
    )
    return {
        "stack": fleet.stack,
        "at": instant(fleet.now),
        "state": DOWN if outages or not fleet.states else ATTENTION if problems else WELL,
        "problems": sorted(problems, key=lambda problem: problem["state"] != DOWN),
        "not_read": sorted({host for service in fleet.services for hosts in service.hosts.values() for host in hosts} - set(fleet.states)),
        **{kind: [{key: value for key, value in row.items() if key != "problems"} for row in found] for kind, found in rows.items()},
    }


def _read(fleet: Fleet) -> dict[str, Row]:
    """Return the states of the hosts that were read."""
    return {name: state for name, state in fleet.states.items() if "containers" in state}


def _serves(fleet: Fleet, host: str) -> bool:
    """Return whether a host answered, and its engine too."""
    state = fleet.states.get(host, {})
    return "containers" in state and state["engine"]["available"]


def _first(reasons: list[str]) -> str:
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"site.yml would change it: {reasons[0]}{more}"


def _absent(fleet: Fleet, containers: list[Row]) -> list[str]:
    """Return the services that the product needs and that have no container, where the comparison does not say which are to run."""
    found = {row["role"] for row in containers if row["state"] != IDLE}
    return [
        service.role
        for service in fleet.services
        if fleet.unknown and service.essential and service.always and service.role not in found
        # Where no host of it serves, that was reported.
        if any(_serves(fleet, host) for hosts in service.hosts.values() for host in hosts)
    ]


def _outages(fleet: Fleet, containers: list[Row], connections: list[Row]) -> list[str]:
    """Return the services that the product needs and that no host of the run serves, or that none of their clients reaches."""
    essential = [service for service in fleet.services if service.essential]
    away = [
        service.role
        for service in essential
        for hosts in service.hosts.values()
        if (read := [host for host in hosts if host in fleet.states]) and not any(_serves(fleet, host) for host in read)
    ]
    roles = {service.role for service in essential}
    serving: dict[tuple[str, str], bool] = {}
    for row in containers:
        if row["role"] in roles and row["state"] != IDLE:
            key = (row["role"], row["replica_of"])
            serving[key] = serving.get(key, False) or row["state"] != DOWN
    for row in connections:
        if {row["client"], row["service"]} <= roles:
            key = (row["client"], f"its connection to {row['service']}")
            serving[key] = serving.get(key, False) or row["state"] != DOWN
    return away + [name for (_role, name), serves in serving.items() if not serves]


def _connections(fleet: Fleet, containers: list[Row], down: set[tuple[str, str]]) -> Iterator[Row]:
    """Yield the rows of the connections between services: to another host as the client's host has tried it, else by the server's state."""
    runs = {(row["host"], row["role"]) for row in containers if row["state"] != IDLE}
    for host, connections in fleet.connections.items():
        for connection in connections:
            server = (connection["server"], connection["service"])
            # Of a host that the run does not include, it is known whether others reach it.
            included = connection["server"] in fleet.states
            answers = not included or _serves(fleet, connection["server"])
            if "containers" not in fleet.states.get(host, {}) or (host, connection["client"]) not in runs:
                continue
            if included and answers and server not in runs:
                continue
            tried = [fleet.states[host]["reach"].get(address, "not tried") for address in connection["addresses"]]
            detail = "open" if "open" in tried else tried[0] if tried else "on the same host"
            broken = server in down if not tried else detail != "open"
            # What is down itself, or its host, was reported.
            news = broken and answers and server not in down
            yield {
                "host": host,
                "client": connection["client"],
                "service": connection["service"],
                "server": connection["server"],
                "state": DOWN if broken or not answers else WELL,
                "detail": detail,
                "problems": [f"{connection['client']} does not reach it on {connection['server']}: {detail}"] if news else [],
            }


def _host(name: str, state: Row) -> Row:
    """Return the row of a host."""
    if "containers" not in state:
        why = "does not answer" if state.get("unreachable") else "could not be read"
        return {"host": name, "state": DOWN, "problems": [f"{why}: {' '.join(str(state.get('msg', 'no task tried')).split())}"]}
    host, engine = state["host"], state["engine"]
    problems = []
    for path, disk in distinct_disks(host["disks"]).items():
        if disk["free_mb"] * 100 < FREE_PERCENT * disk["total_mb"]:
            problems.append(f"{path} has {disk['free_mb'] * 100 // disk['total_mb']} % free ({disk['free_mb']} MiB)")
    if host["memory_available_mb"] * 100 < FREE_PERCENT * host["memory_mb"]:
        problems.append(f"{host['memory_available_mb']} MiB of its memory are available")
    # It was read at some moment in between; an engine that hangs makes that long.
    if (difference := max(state["asked_s"] - host["time_s"], host["time_s"] - state["answered_s"])) > CLOCK_SECONDS:
        problems.append(f"its clock differs by {difference:.0f} s from the controller's")
    if not engine["available"]:
        problems.insert(0, f"its Docker Engine does not answer: {engine['error']}")
    return {
        "host": name,
        "state": DOWN if not engine["available"] else ATTENTION if problems else WELL,
        "problems": problems,
        "engine": engine["version"],
        **{key: host[key] for key in ("uptime_s", "memory_mb", "memory_available_mb", "cores", "disks")},
    }


def distinct_disks(disks: Mapping[str, Row]) -> dict[str, Row]:
    """Return the disks of a host, each by the first of the paths on it, which have the same numbers."""
    found: dict[str, Row] = {}
    for path, disk in sorted(disks.items()):
        if disk not in found.values():
            found[path] = disk
    return found


def _containers(host: str, state: Row, fleet: Fleet) -> Iterator[Row]:
    """Yield the rows of a host's containers, those that are to run first; a missing one is down. Without its engine, there are none."""
    if not state["engine"]["available"]:
        return
    expected = dict(fleet.containers.get(host, {}))
    if fleet.unknown:
        # Jobs, which end, have no restart policy.
        others = slot_owners((fleet.record or {}).get("slot", ""))
        found = {
            name: container["owner"].partition("-")[0]
            for name, container in state["containers"].items()
            if container["restart_policy"] not in ("", "no") and container["owner"] not in others
        }
        expected = {**found, **expected}
    watchdog = _watchdog(state, fleet.stack)
    for name in [*expected, *(name for name in sorted(state["containers"]) if name not in expected)]:
        container = between_restarts(state["containers"].get(name))
        row: Row = {"status": "missing"} if container is None else _figures(container, state)
        row["watchdog"] = watchdog.get(name, LEFT_ALONE)
        problems, judged = _container_problems(container, row) if name in expected else ([], IDLE)
        service = name.removeprefix(f"{fleet.stack}-")
        labels = (container or {"labels": {}})["labels"]
        known = {"host": host, "service": service, "role": expected.get(name, ""), "replica_of": replica_of(name, labels), "state": judged}
        yield {**known, "problems": problems, **row}


def _watchdog(state: Row, stack: str) -> dict[str, Row]:
    """Return by container what the watchdog of a host did within the last hour, as it wrote it last."""
    try:
        written = json.loads(state["files"][WATCHDOG.format(stack=stack)]["content"])
        moments: dict[str, list[float]] = {name: [] for name in written["gave_up"]}
        for moment, name, _service in written["restarts"]:
            moments.setdefault(name, []).append(state["host"]["time_s"] - moment)
        given_up = set(written["gave_up"])
    except (KeyError, ValueError, TypeError):
        # None has run yet, or the file is damaged: the next pass replaces it.
        return {}
    found = {}
    for name, ages in moments.items():
        recent = [int(age) for age in ages if age < RECENT_RESTART_SECONDS]
        found[name] = {
            "restarts": len(recent),
            "restarted_s": min(recent, default=None),
            "gave_up": name in given_up,
        }
    return found


def _figures(container: Row, state: Row) -> Row:
    """Return what people want to know of a container."""
    running = container["running"]
    uptime = max(0, state["host"]["time_s"] - seconds(container["started_at"])) if running else 0
    image = state["images"].get(container["image"], {})
    known = image.get("digests") if image.get("id") == container["image_id"] else []
    return {
        "status": container["status"],
        "health": container["health"],
        "version": container["version"] or container["image"].rpartition(":")[2],
        "image": container["image"],
        "digest": (known or [container["image_id"]])[0].rpartition("@")[2],
        "uptime_s": int(uptime),
        "restarts": container["restarts"],
        "exit_code": container["exit_code"],
        "memory_mb": container["memory_used"] // 2**20,
        "memory_limit_mb": container["memory"] // 2**20,
        "cores": round(container["cpu_seconds"] / uptime, 3) if uptime >= 1 else 0.0,
        "cores_limit": container["nano_cpus"] / 1e9,
        "oom_killed": container["oom_killed"],
    }


def _container_problems(container: Row | None, figures: Row) -> tuple[list[str], str]:
    """Return what is wrong with a container that is to run, and its state."""
    if container is None:
        return ["the container does not exist"], DOWN
    if not container["running"]:
        killed = ", out of memory" if container["oom_killed"] else ""
        return [f"the container is {container['status']} (exit code {container['exit_code']}{killed})"], DOWN
    if container["health"] == "unhealthy":
        tried = _times(figures["watchdog"]["restarts"])
        gave_up = f", although the watchdog has restarted it {tried} within an hour" if figures["watchdog"]["gave_up"] else ""
        return [f"the container is unhealthy{gave_up}"], DOWN
    problems = []
    if container["health"] == "starting":
        problems.append("the container is not healthy yet")
    if container["restarts"] and figures["uptime_s"] < RECENT_RESTART_SECONDS:
        problems.append(f"the engine has restarted it {_times(container['restarts'])}, last {duration(figures['uptime_s'])} ago")
    if watchdog := figures["watchdog"]["restarts"]:
        ago = duration(figures["watchdog"]["restarted_s"])
        problems.append(f"it was unhealthy, and the watchdog has restarted it {_times(watchdog)}, last {ago} ago")
    if figures["memory_limit_mb"] and figures["memory_mb"] * 100 >= MEMORY_PERCENT * figures["memory_limit_mb"]:
        problems.append(f"it takes {figures['memory_mb']} of {figures['memory_limit_mb']} MiB of memory")
    return problems, ATTENTION if problems else WELL


def _times(count: int) -> str:
    return f"{count} time{'' if count == 1 else 's'}"


def _certificates(host: str, state: Row, now: float) -> Iterator[Row]:
    """Yield the rows of the certificates that a host's services have."""
    files = state["files"]
    renewals = [json_object(file.get("content"), RENEWAL) or {} for path, file in files.items() if path.endswith(RENEWED)]
    errors = [renewal["error"] for renewal in renewals if renewal.get("error")]
    for path, file in sorted(files.items()):
        place = CERTIFICATE.search(path)
        chain = read_certificates(file.get("content", "").encode(), path)[0] if place else []
        if not place or not chain or (path.endswith(OWN) and path.replace(OWN, ISSUED) in files):
            continue
        ends = min(certificate.not_valid_after_utc.timestamp() for certificate in chain)
        days = int((ends - now) // 86400)
        # Some are issued for a week.
        least = min(CERTIFICATE_DAYS, (ends - chain[0].not_valid_before_utc.timestamp()) / 86400 / 4)
        judged = DOWN if ends <= now else ATTENTION if (ends - now) / 86400 < least else WELL
        problems = [] if judged == WELL else [f"its certificate {place[2]} " + (f"expires in {days} days" if ends > now else "has expired")]
        if errors and path.endswith((OWN, ISSUED)):
            problems.append(f"no certificate was issued: {errors[0]}")
            judged = DOWN if judged == DOWN else ATTENTION
        named = {"host": host, "service": place[1], "file": place[2], "days_left": days, "expires": instant(ends)}
        yield {**named, "state": judged, "problems": problems}


def _reports(host: str, paths: Mapping[str, str], fleet: Fleet) -> Iterator[Row]:
    """Yield the rows of what services of a host report of themselves, which is of recovery points."""
    state = fleet.states[host]
    for role, path in paths.items() if "containers" in state else ():
        row: Row = {"host": host, "service": role, "last_point": None, "last_verified": None, "wal_behind_bytes": None}
        report = json_object(state["files"].get(path, {}).get("content"), REPORT)
        if report is None:
            # One that is damaged has a row of its own.
            missing = [] if path in state["files"] else ["there is no report of recovery points"]
            yield {**row, "state": ATTENTION, "problems": missing}
            continue
        problems = list(report["alerts"])
        # By the clock that both are of.
        if (age := state["host"]["time_s"] - seconds(report["at"])) > REPORT_SECONDS:
            problems.append(f"its report is {duration(age)} old")
        yield {
            **row,
            "state": ATTENTION if problems else WELL,
            "problems": problems,
            "last_point": _point(report["last_point"]),
            "last_verified": _point(report["last_verified"]),
            "wal_behind_bytes": (report["wal"] or {}).get("behind_bytes"),
        }


def _point(point: Row | None) -> Row | None:
    return {key: point[key] for key in ("name", "age_s", "bytes", "verified")} if point else None


def _damaged(host: str, files: Mapping[str, Row], reports: Mapping[str, str]) -> Iterator[Row]:
    """Yield the rows of those of a host's files by which services are judged that cannot be read.

    Args:
        host: Its name.
        files: Its files, as host_state describes them.
        reports: The paths of the reports of its services, with their roles.
    """
    of_reports = {path: role for role, path in reports.items()}
    for path, file in sorted(files.items()):
        if path in of_reports:
            role, shape = of_reports[path], REPORT
        elif JOB_STATE.search(path):
            role, shape = "jobs", JOB
        elif path.endswith(RENEWED):
            role, shape = "acme", RENEWAL
        else:
            continue
        if json_object(file.get("content"), shape) is None:
            problem = f"{path} is damaged, so what it says is unknown; remove it, the service writes it again"
            yield {"host": host, "service": role, "file": path, "state": DOWN, "problems": [problem]}


def job_results(files: Mapping[str, Row]) -> list[Row]:
    """Return the last results of jobs that the described files of a host hold, without those that are damaged."""
    found = [json_object(file.get("content"), JOB) for path, file in files.items() if JOB_STATE.search(path)]
    return [result for result in found if result is not None]


def last_results(results: Iterable[Row]) -> dict[str, Row]:
    """Return the last result of each job by name, of the results that all hosts have.

    It is that for the last time. Where a host did not learn whether it has the claim, and another one ran the job, it is that run's.
    """
    ranked = sorted(results, key=lambda result: (result["moment"], result["result"] != UNCLAIMED, result["finished"]))
    return {result["job"]: result for result in ranked}


def _jobs(fleet: Fleet) -> list[Row]:
    """Return the rows of the jobs: of each the last result of all hosts."""
    states = _read(fleet)
    results = [{**result, "host": host} for host, state in states.items() for result in job_results(state["files"])]
    return [
        {
            "host": result["host"],
            "service": name,
            "state": WELL if result["result"] in GOOD_RESULTS else ATTENTION,
            "problems": _job_problems(result),
            **{key: result[key] for key in ("result", "moment", "finished")},
        }
        for name, result in sorted(last_results(results).items())
    ]


def _job_problems(result: Row) -> list[str]:
    """Return what is wrong with the last result of a job."""
    if result["result"] == UNCLAIMED:
        return [f"no host has a result of the job for {result['moment']}, and {result['host']} could not claim it"]
    return [] if result["result"] in GOOD_RESULTS else [f"the last run of the job, for {result['moment']}: {result['result']}"]


def _releases(fleet: Fleet) -> list[Row]:
    """Return the row of the version that serves, with the lock that a run holds or has left."""
    record, lock = fleet.record, fleet.lock
    if not record and not lock:
        return []
    holder = (lock or {}).get("holder") or {}
    who = f"{holder.get('user', '?')} on {holder.get('controller', '?')}"
    # Its step is the last one that was written down, which says what an interrupted release needs, and not how far it came.
    purpose = f" for {lock['purpose']}" if lock and lock.get("purpose") else ""
    held = [f"the release lock is held by {who}{purpose}; wait for that run, or repeat it if it was interrupted"] if lock else []
    return [
        {
            "host": "",
            "service": "release",
            "state": ATTENTION if held else WELL,
            "problems": held,
            "version": (record or {}).get("version", ""),
            "slot": (record or {}).get("slot", ""),
            "previous": version_before(record),
        }
    ]


def seconds(text: str) -> float:
    """Return a time as the engine and the backups write it, in UTC with parts of a second, in seconds since 1970."""
    return datetime.fromisoformat(f"{text[:19]}+00:00").timestamp()


def instant(moment: float) -> str:
    """Return seconds since 1970 as UTC in RFC 3339, to the second."""
    return datetime.fromtimestamp(moment, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(given: float) -> str:
    """Return seconds as people say them, in the largest unit of which there are two."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if given >= 2 * length:
            return f"{given // length:.0f} {unit}"
    return f"{given:.0f} s"
