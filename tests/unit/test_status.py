# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a fleet is well is decided by one pure function, and shown as text."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
import re
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.slipway.stack.plugins.plugin_utils import status_page, status_text
from ansible_collections.slipway.stack.plugins.plugin_utils.status import Fleet, Service, duration, instant, judge

NOW = 1_800_000_000.0
REPORT = "volume:backup_data/report.json"
POINT = {"name": "20270115T070000Z", "age_s": 3600, "bytes": 10, "verified": "verified"}


def container(service: str, **given: Any) -> dict[str, Any]:
    """Return a container as host_state describes it: healthy for an hour and a half."""
    owner = given.pop("owner", service)
    return {
        "image": f"{service}:1",
        "image_id": "sha256:id",
        "status": "running",
        "running": True,
        "health": "healthy",
        "exit_code": 0,
        "oom_killed": False,
        "restarts": 0,
        "started_at": f"{instant(NOW - 5400)[:-1]}.123456789Z",
        "labels": {"slipway.service": service},
        "owner": owner,
        "version": "",
        "memory": 2**30,
        "memory_used": 2**28,
        "cpu_seconds": 540,
        "nano_cpus": 10**9,
        "restart_policy": "unless-stopped",
        **given,
    }


def state(*services: str, **containers: Any) -> dict[str, Any]:
    """Return what was read of a host that is well."""
    disk = {"total_mb": 1000, "free_mb": 500}
    return {
        "host": {
            "uptime_s": 7200, "time_s": NOW, "memory_mb": 1000, "memory_available_mb": 500, "cores": 2, "disks": {"/": disk, "/data": disk}
        },
        "engine": {"available": True, "version": "26", "error": ""},
        "containers": {f"s-{name}": container(name) for name in services} | {f"s-{name}": value for name, value in containers.items()},
        "images": {},
        "files": {},
        "reach": {"db:6379": "open"},
        "asked_s": NOW - 1.5,
        "answered_s": NOW + 1.5,
    }  # fmt: skip


def fleet(**given: Any) -> Fleet:
    """Return two hosts that run the product, and one with a store and the backups, all of it well."""
    states = {"a1": state("api-blue-1"), "a2": state("api-blue-1"), "db": state("redis", "backup")}
    for host in ("a1", "a2"):
        states[host]["containers"]["s-api-blue-1"]["owner"] = "app-blue"
    report = {
        "at": instant(NOW - 30), "alerts": [], "points": [POINT], "last_point": POINT, "last_verified": POINT, "wal": {"behind_bytes": 0}
    }  # fmt: skip
    states["db"]["files"][REPORT] = {"content": json.dumps(report)}
    well = Fleet(
        stack="s",
        now=NOW,
        states=states,
        services=[
            Service("app", True, {"app": ["a1", "a2"]}),
            Service("redis", True, {"redis": ["db"]}),
            Service("backup", False, {"backup": ["db"]}),
        ],
        containers={
            "a1": {"s-api-blue-1": "app"},
            "a2": {"s-api-blue-1": "app"},
            "db": {"s-redis": "redis", "s-backup": "backup"},
        },
        record={"slot": "blue", "version": "2"},
        reports={"db": {"backup": REPORT}},
        connections={
            "a1": [{"client": "app", "service": "redis", "server": "db", "addresses": ["db:6379"]}],
            "a2": [{"client": "app", "service": "redis", "server": "db", "addresses": ["db:1", "db:6379"]}],
            "db": [{"client": "backup", "service": "redis", "server": "db", "addresses": []}],
        },
    )
    return dataclasses.replace(well, **given)


def changed(host: str, path: tuple[str, ...], value: Any) -> Fleet:
    """Return the fleet with one value of what was read of a host changed."""
    found = fleet()
    *keys, last = path
    target: Any = found.states[host]
    for key in keys:
        target = target[key]
    target[last] = value
    return found


def reported_problems(found: dict[str, Any]) -> list[str]:
    """Return the problems as an operator reads them."""
    return [" ".join(filter(None, [item["state"], item["host"], item["service"], item["what"]])) for item in found["problems"]]


def certificate(days: float, lifetime: int = 90) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop")])
    ends = dt.datetime.fromtimestamp(NOW, dt.timezone.utc) + dt.timedelta(days=days)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    signed = made.not_valid_before(ends - dt.timedelta(days=lifetime)).not_valid_after(ends).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def reported(**values: Any) -> str:
    return json.dumps({**json.loads(fleet().states["db"]["files"][REPORT]["content"]), **values})


API = ("containers", "s-api-blue-1")
REDIS = ("containers", "s-redis")
PEM = ("files", "/etc/slipway/s/nginx/config/current/server.pem")
ISSUED_PEM = ("files", "/etc/slipway/s/acme/state/server.pem")
RENEWAL = ("files", "/etc/slipway/s/acme/state/certificate.json")
DISK = ("host", "disks", "/data")
RESULT = {"job": "prune", "moment": "m", "finished": "f", "result": "succeeded", "log": []}
WATCHDOG = ("files", "/etc/slipway/s/watchdog/state/restarts.json")


def watched(*ages: float, gave_up: bool = False) -> dict[str, str]:
    """Return what the watchdog has written that has restarted the API so many seconds ago."""
    restarts = [[NOW - age, "s-api-blue-1", "api"] for age in ages]
    return {"content": json.dumps({"restarts": restarts, "gave_up": ["s-api-blue-1"] if gave_up else []})}


def test_a_fleet_that_is_well_has_no_problem():
    found = judge(fleet())
    assert (found["state"], found["problems"]) == ("well", [])
    assert {row["state"] for kind in ("hosts", "services", "recovery", "releases", "connections") for row in found[kind]} == {"well"}
    assert [row["detail"] for row in found["connections"]] == ["open", "open", "on the same host"]
    (redis,) = [row for row in found["services"] if row["role"] == "redis"]
    assert (redis["memory_mb"], redis["memory_limit_mb"], redis["cores"], redis["cores_limit"]) == (256, 1024, 0.1, 1)
    assert found["recovery"][0]["last_verified"]["name"] == POINT["name"]


@pytest.mark.parametrize("result", ["succeeded", "replaced"])
def test_a_job_whose_run_ended_as_it_should_is_well(result: str):
    state = {"job": "prune", "moment": "m", "finished": "f", "result": result, "log": []}
    found = judge(changed("a2", ("files", "/etc/slipway/s/jobs/state/prune.json"), {"content": json.dumps(state)}))
    assert found["state"] == "well"
    assert [row["state"] for row in found["jobs"]] == ["well"]


NOT_CLAIMED = "no host has a result of the job for 03, and a1 could not claim it"


def jobs_of(*given: tuple[str, str, str, str]) -> dict[str, Any]:
    """Return the states of hosts that have a job's results, each with its host, moment, end and result."""
    states = fleet()
    for host, moment, finished, result in given:
        state = {"job": "prune", "moment": moment, "finished": finished, "result": result, "log": []}
        states.states[host]["files"]["/etc/slipway/s/jobs/state/prune.json"] = {"content": json.dumps(state)}
    return judge(states)


@pytest.mark.parametrize(
    ("first", "second", "host", "problem"),
    [
        # Whatever the order in which they know.
        (("03", "03:05", "unclaimed"), ("03", "03:01", "succeeded"), "a2", ""),
        (("03", "03:05", "unclaimed"), ("03", "03:09", "failed"), "a2", "the last run of the job, for 03: failed"),
        (("03", "03:01", "succeeded"), ("03", "03:05", "unclaimed"), "a1", ""),
        (("03", "03:05", "unclaimed"), ("04", "04:01", "succeeded"), "a2", ""),
        (("03", "03:05", "unclaimed"), ("02", "02:01", "succeeded"), "a1", NOT_CLAIMED),
        (("03", "03:05", "unclaimed"), ("03", "03:04", "unclaimed"), "a1", NOT_CLAIMED),
        # A run that took long is not the last one.
        (("03", "09:00", "failed"), ("04", "04:01", "succeeded"), "a2", ""),
    ],
)
def test_a_job_has_the_result_of_the_host_that_ran_it_last(
    first: tuple[str, str, str], second: tuple[str, str, str], host: str, problem: str
):
    found = jobs_of(("a1", *first), ("a2", *second))
    assert [row["host"] for row in found["jobs"]] == [host]
    assert reported_problems(found) == ([f"attention {host} prune {problem}"] if problem else [])


@pytest.mark.parametrize(
    ("host", "path", "value", "overall", "problem"),
    [
        # One of two replicas leaves the product serving, the only store does not, and without backups it serves too.
        ("a1", (*API, "health"), "unhealthy", "attention", "down a1 api-blue-1 the container is unhealthy"),
        ("db", (*REDIS, "health"), "unhealthy", "down", "down db redis the container is unhealthy"),
        ("db", ("containers", "s-backup", "health"), "unhealthy", "attention", "down db backup the container is unhealthy"),
        ("db", ("containers",), {}, "down", "down db redis the container does not exist"),
        (
            "db",
            REDIS,
            container("redis", running=False, status="exited", exit_code=137, oom_killed=True),
            "down",
            "down db redis the container is exited (exit code 137, out of memory)",
        ),
        # It is between two starts, whatever the engine says at this moment.
        ("db", REDIS, container("redis", health="starting", restarts=9), "down", "down db redis the container is restarting (exit code 0)"),
        ("a1", (*API, "health"), "starting", "attention", "attention a1 api-blue-1 the container is not healthy yet"),
        (
            "db",
            REDIS,
            container("redis", restarts=2, started_at=instant(NOW - 600)),
            "attention",
            "attention db redis the engine has restarted it 2 times, last 10 min ago",
        ),
        (
            "a1",
            WATCHDOG,
            watched(1800, 600),
            "attention",
            "attention a1 api-blue-1 it was unhealthy, and the watchdog has restarted it 2 times, last 10 min ago",
        ),
        ("a1", (*API, "memory_used"), 950 * 2**20, "attention", "attention a1 api-blue-1 it takes 950 of 1024 MiB of memory"),
        (
            "a1",
            ("engine",),
            {"available": False, "version": "", "error": "refused"},
            "attention",
            "down a1 its Docker Engine does not answer: refused",
        ),
        ("a1", ("host", "time_s"), NOW - 90, "attention", "attention a1 its clock differs by 88 s from the controller's"),
        ("a1", ("host", "time_s"), NOW + 90, "attention", "attention a1 its clock differs by 88 s from the controller's"),
        ("a1", ("host", "memory_available_mb"), 99, "attention", "attention a1 99 MiB of its memory are available"),
        ("a1", DISK, {"total_mb": 1000, "free_mb": 99}, "attention", "attention a1 /data has 9 % free (99 MiB)"),
        ("a1", PEM, {"content": certificate(20.5)}, "attention", "attention a1 nginx its certificate server.pem expires in 20 days"),
        ("a1", PEM, {"content": certificate(-1)}, "down", "down a1 nginx its certificate server.pem has expired"),
        ("a1", ISSUED_PEM, {"content": certificate(1, 6)}, "attention", "attention a1 acme its certificate server.pem expires in 1 days"),
        ("db", ("files",), {}, "attention", "attention db backup there is no report of recovery points"),
        (
            "db",
            ("files", REPORT, "content"),
            reported(alerts=["WAL is not streaming"]),
            "attention",
            "attention db backup WAL is not streaming",
        ),
        ("db", ("files", REPORT, "content"), reported(at=instant(NOW - 3600)), "attention", "attention db backup its report is 60 min old"),
        (
            "a2",
            ("files", "/etc/slipway/s/jobs/state/prune.json"),
            {"content": json.dumps({"job": "prune", "moment": "m", "finished": "f", "result": "deadline", "log": []})},
            "attention",
            "attention a2 prune the last run of the job, for m: deadline",
        ),
    ],
)
def test_what_needs_attention_is_named_with_its_place(host: str, path: tuple[str, ...], value: Any, overall: str, problem: str):
    found = judge(changed(host, path, value))
    assert problem in reported_problems(found)
    assert found["state"] == overall


def test_a_container_that_restarts_do_not_help_is_named_with_them():
    broken = changed("a1", (*API, "health"), "unhealthy")
    broken.states["a1"]["files"][WATCHDOG[1]] = watched(1200, 600, 300, gave_up=True)
    found = judge(broken)
    assert reported_problems(found) == [
        "down a1 api-blue-1 the container is unhealthy, although the watchdog has restarted it 3 times within an hour"
    ]
    (row,) = [row for row in found["services"] if row["host"] == "a1"]
    assert row["watchdog"] == {"restarts": 3, "restarted_s": 300, "gave_up": True}
    table = [" ".join(line["text"].split()) for line in status_text.lines(found)]
    assert "api-blue-1 a1 down running, unhealthy 1 id 90 min 0, watchdog 3 256 of 1024 MiB 0.1 of 1" in table
    assert "0, watchdog 3" in status_page.page(found)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", "{}x", pytest.param("[" * 100_000, id="deep"), None])
@pytest.mark.parametrize(
    ("service", "path"), [("jobs", "/etc/slipway/s/jobs/state/prune.json"), ("acme", RENEWAL[1]), ("backup", REPORT)], ids=lambda name: name
)
def test_a_damaged_file_is_named_and_all_others_are_judged(service: str, path: str, text: str | None):
    broken = changed("db", ("files", path), {} if text is None else {"content": text})
    broken.states["db"]["files"][PEM[1]] = {"content": certificate(60)}
    broken.states["a2"]["files"]["/etc/slipway/s/jobs/state/sync.json"] = {"content": json.dumps({**RESULT, "job": "sync"})}
    found = judge(broken)
    assert found["state"] == "attention"
    assert reported_problems(found) == [
        f"down db {service} {path} is damaged, so what it says is unknown; remove it, the service writes it again"
    ]
    assert [row["service"] for row in found["jobs"]] == ["sync"]
    assert [row["state"] for row in found["certificates"]] == ["well"]
    shown = status_text.lines(found)
    assert shown[1]["color"] == "red"
    assert [path, service, "db"] in [line["text"].split() for line in shown]
    assert path in status_page.page(found)


@pytest.mark.parametrize(
    ("path", "well", "wrong"),
    [
        *[("/etc/slipway/s/jobs/state/prune.json", RESULT, {name: value}) for name in RESULT for value in (None, 1, [1], {})],
        *[(RENEWAL[1], {"error": ""}, wrong) for wrong in ({"error": ["x"]}, {"names": "x"}, {"ends": "x"})],
        *[
            (REPORT, json.loads(fleet().states["db"]["files"][REPORT]["content"]), wrong)
            for wrong in (
                {"at": "yesterday"},
                {"at": 5},
                {"alerts": "x"},
                {"alerts": [1]},
                {"last_point": []},
                {"last_point": {**POINT, "age_s": "x"}},
                {"last_verified": {"name": "x"}},
                {"wal": {"behind_bytes": "x"}},
                {"wal": 5},
            )
        ],
    ],
)
def test_a_file_with_a_wrong_member_is_damaged(path: str, well: dict[str, Any], wrong: dict[str, Any]):
    """It may be of another kind in each file: what is shown, compared or sorted must be what it is taken for."""
    assert judge(changed("db", ("files", path), {"content": json.dumps(well)}))["damaged"] == []
    found = judge(changed("db", ("files", path), {"content": json.dumps({**well, **wrong})}))
    assert [row["file"] for row in found["damaged"]] == [path]
    status_text.lines(found)


def test_a_failed_renewal_is_reported_with_the_certificate_that_serves_meanwhile():
    found = fleet()
    files = found.states["a1"]["files"]
    files |= {PEM[1]: {"content": certificate(60)}, RENEWAL[1]: {"content": '{"error": "refused"}'}}
    assert reported_problems(judge(found)) == ["attention a1 nginx no certificate was issued: refused"]
    files |= {PEM[1]: {"content": certificate(-1)}, ISSUED_PEM[1]: {"content": certificate(60)}}
    assert reported_problems(judge(found)) == ["attention a1 acme no certificate was issued: refused"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # What is the same disk as "/" would be reported twice, what is idle need not run, and a stack is young before its first drill.
        (DISK, {"total_mb": 1000, "free_mb": 100}),
        (("containers", "s-api-green-1"), container("api-green-1", owner="app-green", running=False, status="exited")),
        (("containers", "s-redis", "restarts"), 7),
        (("files", REPORT, "content"), reported(last_verified=None)),
        (PEM, {"content": certificate(22)}),
        (PEM, {"content": "no certificate"}),
        (ISSUED_PEM, {"content": certificate(2, 6)}),
        # Such as that of a host whose watchdog does not run any more.
        (WATCHDOG, watched(3600)),
        (WATCHDOG, {"content": "{"}),
        (WATCHDOG, {"content": "[]"}),
        (WATCHDOG, {"content": '{"restarts": []}'}),
        (WATCHDOG, {}),
    ],
)
def test_what_needs_no_attention_is_not_a_problem(path: tuple[str, ...], value: Any):
    assert reported_problems(judge(changed("db", path, value))) == []


@pytest.mark.parametrize(
    ("away", "overall"), [(["a1"], "attention"), (["a1", "a2"], "down"), (["db"], "down"), (["a1", "a2", "db"], "down"), ([], "well")]
)
def test_a_host_that_does_not_answer_is_down_and_the_stack_where_no_other_runs_the_same(away: list[str], overall: str):
    well = fleet()
    found = judge(
        fleet(
            states={
                host: {"msg": "no route\nto host", "unreachable": True} if host in away else state for host, state in well.states.items()
            }
        )
    )
    assert found["state"] == overall
    assert reported_problems(found) == [f"down {host} does not answer: no route to host" for host in away]
    assert [row["host"] for row in found["hosts"]] == list(well.states)


def test_a_host_whose_read_failed_is_down_with_what_failed_and_the_others_are_judged():
    found = judge(fleet(states={**fleet().states, "a1": {"failed": True, "msg": "No space left\non device"}}))
    assert (found["state"], reported_problems(found)) == ("attention", ["down a1 could not be read: No space left on device"])


def test_a_way_that_one_client_cannot_take_needs_attention_and_without_any_the_product_is_down():
    broken = changed("a1", ("reach", "db:6379"), "refused")
    found = judge(broken)
    assert (found["state"], reported_problems(found)) == ("attention", ["down a1 redis app does not reach it on db: refused"])
    broken.states["a2"]["reach"] = {}
    assert judge(broken)["state"] == "down"


def test_a_way_to_what_is_down_is_down_and_not_a_problem_of_its_own():
    broken = changed("a1", ("reach", "db:6379"), "refused")
    broken.states["db"]["containers"]["s-redis"]["health"] = "unhealthy"
    found = judge(broken)
    assert reported_problems(found) == ["down db redis the container is unhealthy"]
    assert [row["state"] for row in found["connections"]] == ["down", "well", "down"]
    broken.states["db"].clear()
    assert {row["state"] for row in judge(broken)["connections"]} == {"down"}


def test_a_fleet_of_which_nothing_was_read_is_down():
    assert judge(Fleet(stack="s", now=NOW, states={}))["state"] == "down"


def test_what_site_would_change_needs_attention_except_for_what_is_down_already():
    found = judge(fleet(reasons={"redis": {"db": ["redis: x differs", "y", "z"]}}))
    assert reported_problems(found) == ["attention db redis site.yml would change it: redis: x differs, and 2 more"]
    assert found["drift"][0]["reasons"] == ["redis: x differs", "y", "z"]
    broken = changed("db", (*REDIS, "health"), "unhealthy")
    stopped = judge(dataclasses.replace(broken, reasons={"redis": {"db": ["redis: the container is unhealthy"]}}))
    assert reported_problems(stopped) == ["down db redis the container is unhealthy"]


def test_without_the_comparison_containers_that_the_engine_starts_are_judged():
    """Those of the slot that serves, not those of the other one; the comparison's failure is a problem of its own."""
    broken = changed("a1", (*API, "running"), False)
    broken.states["a1"]["containers"]["s-api-green-1"] = container("api-green-1", owner="app-green", running=False, status="exited")
    found = judge(dataclasses.replace(broken, containers={}, unknown="port 1 is in use"))
    assert reported_problems(found) == [
        "down a1 api-blue-1 the container is running (exit code 0)",
        "attention what site.yml would change is unknown: port 1 is in use",
    ]


@pytest.mark.parametrize("known", [True, False], ids=["compared", "not compared"])
@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (
            ("containers",),
            {"s-backup": container("backup")},
            {True: "db redis the container does not exist", False: "redis no host has a container of it"},
        ),
        (("engine", "available"), False, dict.fromkeys((True, False), "db its Docker Engine does not answer: ")),
    ],
)
def test_the_only_store_or_its_engine_is_missed_where_the_comparison_failed(
    path: tuple[str, ...], value: Any, problem: dict[bool, str], known: bool
):
    """Whether the comparison came as far as to say what is to run there, or not."""
    broken = changed("db", path, value)
    broken = dataclasses.replace(broken, containers=broken.containers if known else {}, unknown="redis is to restart")
    if path[0] == "engine":
        # As host_state returns it.
        broken.states["db"]["containers"] = {}
    found = judge(broken)
    assert found["state"] == "down"
    assert reported_problems(found) == [f"down {problem[known]}", "attention what site.yml would change is unknown: redis is to restart"]


def test_services_that_need_not_be_on_their_hosts_are_not_missed():
    services = [*fleet().services, Service("jobs", True, {"app": ["a1", "a2"]}, always=False)]
    found = judge(fleet(services=services, containers={}, unknown="a mistake"))
    assert (found["state"], len(found["problems"])) == ("attention", 1)


@pytest.mark.parametrize(
    ("hosts", "reached", "overall", "not_read"),
    [
        (["a1"], "open", "well", ["a2", "db"]),
        (["a1", "a2"], "open", "well", ["db"]),
        (["db"], "open", "well", ["a1", "a2"]),
        # Whether the hosts of the run reach the others is known.
        (["a1"], "refused", "down", ["a2", "db"]),
    ],
)
def test_hosts_that_the_run_does_not_include_are_not_judged(hosts: list[str], reached: str, overall: str, not_read: list[str]):
    """As with --limit."""
    whole = changed("a1", ("reach", "db:6379"), reached)
    found = judge(dataclasses.replace(whole, states={host: whole.states[host] for host in hosts}, reports={}))
    assert (found["state"], found["not_read"]) == (overall, not_read)
    assert reported_problems(found) == ([] if overall == "well" else ["down a1 redis app does not reach it on db: refused"])
    said = f"Not read, as the run does not include them: {', '.join(not_read)}"
    assert said in status_text.lines(found)[1 + len(found["problems"])]["text"]
    assert said in status_page.page(found)


@pytest.mark.parametrize(("broken", "overall"), [("a1", "down"), ("a2", "well")])
def test_what_the_hosts_of_a_limited_run_do_not_serve_is_down(broken: str, overall: str):
    whole = changed(broken, (*API, "health"), "unhealthy")
    assert judge(dataclasses.replace(whole, states={"a1": whole.states["a1"]}, reports={}))["state"] == overall


@pytest.mark.parametrize("hung", ["db", "a1"])
def test_a_host_that_is_slow_to_answer_makes_no_clock_wrong(hung: str):
    """As where its engine hangs: the others were read long before the last one, and this one's clock at any time of that."""
    slow = changed(hung, ("answered_s",), NOW + 900)
    assert judge(dataclasses.replace(slow, now=NOW + 900))["state"] == "well"
    slow.states[hung]["host"]["time_s"] = int(NOW + 870)
    assert not [problem for problem in judge(dataclasses.replace(slow, now=NOW + 900))["problems"] if "clock" in problem["what"]]


def test_a_lock_that_is_held_names_its_holder():
    lock = {"run": "r", "step": "switch", "holder": {"user": "ann", "controller": "desk"}}
    assert reported_problems(judge(fleet(lock=lock))) == [
        "attention release the release lock is held by ann on desk; wait for that run, or repeat it if it was interrupted"
    ]


def test_the_text_says_first_what_needs_attention_and_colors_lines_by_their_state():
    broken = changed("db", (*REDIS, "health"), "unhealthy")
    broken.states["a1"].clear()
    shown = status_text.lines(judge(broken))
    assert [(line["text"], line["color"]) for line in shown[:3]] == [
        ("s at 2027-01-15T08:00:00Z: down", "red"),
        ("  down      a1: could not be read: no task tried", "red"),
        ("  down      db redis: the container is unhealthy", "red"),
    ]
    table = [" ".join(line["text"].split()) for line in shown]
    assert "a1 down - - - - -" in table
    assert "a2 well 2 h 500 of 1000 MiB 2 / 0 of 1 GiB 26" in table
    assert "redis db down running, unhealthy 1 id 90 min 0 256 of 1024 MiB 0.1 of 1" in table


@pytest.mark.parametrize(
    ("given", "shown"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (200000, "2 d")]
)
def test_durations_are_in_the_largest_unit_that_says_enough(given: float, shown: str):
    assert duration(given) == shown


def test_the_page_needs_no_other_file_and_escapes_what_it_shows():
    broken = changed("db", (*REDIS, "status"), "<script>alert(1)</script>")
    broken.states["db"]["containers"]["s-redis"]["running"] = False
    text = status_page.page(judge(broken))
    assert "<script" not in text
    assert "db redis</b>: the container is &lt;script&gt;alert(1)&lt;/script&gt; (exit code 0)" in text
    assert not re.search(r"https?:|url\(|\bsrc=|\bhref=|@import", text)


def test_the_picture_shows_each_state_by_a_sign_too():
    broken = changed("db", (*REDIS, "health"), "unhealthy")
    broken.states["a1"].clear()
    text = status_page.page(judge(broken))
    for sign in ("✕ a1<", "✓ a2<", "✓ db<", "✕ redis<", "✓ backup<", "✓ api-blue-1<"):
        assert sign in text, sign
    assert "app on a2 to redis on db: open" in text


def test_the_picture_leads_from_clients_on_the_left_to_stores_on_the_right_without_an_overlap():
    picture = status_page.picture(judge(fleet()))
    boxes = {(band.host, box.role): box for band in picture.bands for box in band.boxes}
    assert set(boxes) == {("a1", "app"), ("a2", "app"), ("db", "redis"), ("db", "backup")}
    assert len(picture.connections) == 3
    assert all(connection["x1"] < connection["x2"] for connection in picture.connections)
    for above, below in itertools.pairwise(picture.bands):
        assert above.y + above.height < below.y
    assert all(band.y < box.y and box.y + box.height < band.y + band.height for band in picture.bands for box in band.boxes)
    assert picture.bands[-1].host == "db"


def test_services_that_reach_each_other_are_drawn_too():
    """As a hub of the product may call the balancer that serves it."""
    connections = {"a1": [{"client": "app", "service": "app", "server": "a2", "addresses": ["x"]}]}
    connections["a2"] = [{"client": "app", "service": "app", "server": "a1", "addresses": ["x"]}]
    assert len(status_page.picture(judge(fleet(connections=connections))).connections) == 2
