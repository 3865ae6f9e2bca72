# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watchdog of a host: what it writes for Prometheus, and what it restarts."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader

import container_metrics
import drift
import host_metrics
import oom_kills
import restarts
import slipway_watchdog
from ansible_collections.slipway.stack.plugins.module_utils import history_file, stops
from ansible_collections.slipway.stack.plugins.module_utils.config_files import switch, write_file
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine
from ansible_collections.slipway.stack.plugins.module_utils.revision import revision_of_files
from ansible_collections.slipway.stack.plugins.plugin_utils.plan import revision_of
from ansible_collections.slipway.stack.plugins.plugin_utils.topology import services
from conftest import ROOT, needs_engine, role_task, role_variable

LIMITS = restarts.Limits(60, 3)


def container(name: str, status: str = "running", policy: str = "unless-stopped", **labels: str) -> dict[str, Any]:
    """Return a container of the stack "shop", as the engine describes it."""
    named = {"slipway.service": name, **{f"slipway.{key}": value for key, value in labels.items()}}
    return {
        "Name": f"/shop-{name}",
        "State": {"Status": status, "Pid": 0},
        "Config": {"Image": "shop/api:2.4", "Labels": named},
        "HostConfig": {"RestartPolicy": {"Name": policy}},
        "RestartCount": 2,
    }


def values(text: str, **labels: str) -> dict[str, float]:
    """Return by name the values of the samples that have these labels."""
    found = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"slipway_(?:container_)?(\w+)\{(.*)\} (\S+)", line):
            pairs = dict(re.findall(r'(\w+)="((?:\\.|[^"\\])*)"', match[2]))
            if pairs.items() >= labels.items():
                found[match[1]] = float(match[3])
    return found


def written(found: list[dict[str, Any]], slot: str = "") -> str:
    return container_metrics.text(sample for item in found for sample in container_metrics.samples("shop", item, slot))


@pytest.mark.parametrize(
    ("item", "slot", "expected"),
    [
        (container("redis"), "", 1),
        (container("api-blue-1", owner="app-blue", slot="blue"), "blue", 1),
        (container("api-green-1", owner="app-green", slot="green"), "blue", 0),
        # Before the first version serves, whatever runs is to run.
        (container("api-blue-1", owner="app-blue", slot="blue"), "", 1),
        (container("migrate-blue", policy="no", owner="app-blue", slot="blue"), "blue", 0),
    ],
)
def test_a_container_is_expected_to_run_in_the_slot_that_serves(item: dict[str, Any], slot: str, expected: int) -> None:
    assert values(written([item], slot))["expected"] == expected


def test_a_container_that_does_not_run_has_a_state_and_no_usage() -> None:
    found = written([container("api-blue-1", "exited", owner="app-blue", slot="blue", version="2.3")])
    labels = {"stack": "shop", "service": "api", "slot": "blue", "container": "shop-api-blue-1", "version": "2.3"}
    assert values(found, state="exited", **labels) == {"state": 1}
    assert set(values(found, **labels)) == {"state", "health", "expected", "restarts_total"}


def test_a_container_that_has_ended_meanwhile_has_no_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_metrics.control_groups, "PROCESSES", "/nonexistent")
    item = container("redis")
    item["State"] |= {"Pid": 7, "StartedAt": "2026-11-22T22:11:38.123456789Z"}
    assert set(values(written([item]))) == {"state", "health", "expected", "restarts_total"}


def test_whatever_is_in_a_label_stays_in_it() -> None:
    text = written([container("redis", version='1"} 1\n# \\')])
    assert r'version="1\"} 1\n# \\"' in text
    assert all(line.startswith(("# HELP ", "# TYPE ", "slipway_container_")) for line in text.splitlines())


def test_each_metric_is_described_once_before_its_samples() -> None:
    lines = written([container("redis"), container("postgres")]).splitlines()
    described = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(described) == len(set(described))
    assert [line.partition("{")[0] for line in lines if not line.startswith("#")] == [name for name in described for _ in range(2)]


def configure(folder: Path, stack: str, limits: restarts.Limits) -> None:
    """Write the configuration of the watchdog of a stack."""
    config = {"stack": stack, "metrics_files": [], "declared": [], "restarts": limits._asdict()}
    (folder / "watchdog.json").write_text(json.dumps(config))


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a stack on the machine's own engine, of whose containers nothing is left."""
    name = f"watch{uuid.uuid4().hex[:8]}"
    (tmp_path / name / "watchdog").mkdir(parents=True)
    configure(tmp_path, name, LIMITS)
    monkeypatch.setattr(slipway_watchdog, "STACKS", tmp_path)
    monkeypatch.setattr(slipway_watchdog, "CONFIG", tmp_path / "watchdog.json")
    yield name
    # Without an engine, none was made.
    with contextlib.suppress(OSError):
        listed = subprocess.run(["docker", "ps", "-aq", "--filter", f"name={name}-"], capture_output=True, text=True, check=False)
        if made := listed.stdout.split():
            subprocess.run(["docker", "rm", "--force", *made], capture_output=True, check=True)


def run(stack: str, service: str, *options: str, command: str = "while :; do sleep 1; done") -> str:
    """Start a container of a stack; return its name."""
    name = f"{stack}-{service}"
    labels = {"slipway.stack": stack, "slipway.service": service, "slipway.owner": service}
    named = [f"--label={key}={value}" for key, value in labels.items()]
    argv = ["docker", "run", "--detach", "--network=none", f"--name={name}", *named, *options]
    subprocess.run([*argv, "redis:7-alpine", "sh", "-c", command], capture_output=True, check=True)
    return name


@needs_engine
def test_figures_of_a_container_are_the_kernels_own(stack: str, tmp_path: Path) -> None:
    name = run(stack, "nginx", "--restart=unless-stopped", "--memory=64m", "--pids-limit=50", "--cpus=0.5")
    subprocess.run(["docker", "run", "--detach", "--name", f"{stack}-foreign", "redis:7-alpine"], capture_output=True, check=True)
    assert slipway_watchdog.main() == 0
    text = (tmp_path / stack / "watchdog/state/containers.prom").read_text()
    found = values(text, container=name, service="nginx")
    assert f"{stack}-foreign" not in text
    assert (found["memory_limit_bytes"], found["pids_limit"], found["cpu_limit_cores"]) == (64 * 2**20, 50, 0.5)
    assert 0 < found["memory_bytes"] < found["memory_limit_bytes"]
    assert found["pids"] in (1, 2)
    assert found["cpu_seconds_total"] > 0
    assert {"cpu_throttled_seconds_total", "oom_kills_total", "start_time_seconds"} <= set(found)
    assert set(found) == set(container_metrics.METRICS)
    assert found["watchdog_restarts_total"] == found["watchdog_gave_up"] == 0


@needs_engine
def test_a_stack_that_was_removed_gets_no_folder_again(stack: str, tmp_path: Path) -> None:
    (tmp_path / stack / "watchdog").rmdir()
    assert slipway_watchdog.main() == 0
    assert not list((tmp_path / stack).iterdir())


def test_an_engine_that_does_not_answer_leaves_the_last_figures(stack: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slipway_watchdog, "Engine", lambda timeout: Engine("/nonexistent", timeout))
    assert slipway_watchdog.main() == 1
    assert not (tmp_path / stack / "watchdog/state").exists()


# Drift


def config(stack: Path, service: str, files: dict[str, str]) -> Path:
    """Write the configuration of a service as a run does; return its folder."""
    folder = stack / service / "config" / revision_of_files(files)
    for name, content in files.items():
        write_file(str(folder / name), content, 0o644)
    switch(str(folder.parent), folder.name)
    return folder


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The folder of a stack whose last run was a deployment."""
    (tmp_path / "shop/release").mkdir(parents=True)
    ran(tmp_path / "shop", "deploy")
    return tmp_path / "shop"


def ran(stack: Path, playbook: str, started: str = "2027-01-15T08:00:00Z") -> None:
    """Add a run to the history of a host."""
    with (stack / history_file.FILE).open("a") as file:
        file.write(json.dumps({"playbook": playbook, "started": started}) + "\n")


def drifts(stack: Path, **containers: bool) -> dict[tuple[str, str], int]:
    """Return what a pass measures that sees these containers, by service and kind."""
    text = drift.text(stack, stack / "expected.json", {f"shop-{name}": expected for name, expected in containers.items()})
    found = re.findall(r'slipway_drift\{stack="shop",service="(.*)",what="(.*)"\} (\d)', text)
    assert len(found) == len(text.splitlines()) - 2
    return {(service, what): int(value) for service, what, value in found}


def edit(folder: Path) -> None:
    (folder / "nginx.conf").write_text("worker_processes 2;\n")


def remove(folder: Path) -> None:
    (folder / "more/mime.types").unlink()


def add(folder: Path) -> None:
    (folder / "own.conf").write_text("")


def relink(folder: Path) -> None:
    switch(str(folder.parent), "0123456789ab")


@pytest.mark.parametrize("change", [edit, remove, add, relink])
def test_configuration_that_was_edited_on_its_host_is_drift(shop: Path, change: Callable[[Path], None]) -> None:
    folder = config(shop, "nginx", {"nginx.conf": "# über\r\nworker_processes 1;\n", "more/mime.types": ""})
    config(shop, "redis", {"redis.conf": "maxmemory 1mb\n"})
    assert drifts(shop) == {("nginx", "configuration"): 0, ("redis", "configuration"): 0}
    change(folder)
    assert drifts(shop) == {("nginx", "configuration"): 1, ("redis", "configuration"): 0}


def test_the_configuration_of_a_plan_has_the_name_of_its_files(tmp_path: Path) -> None:
    declared = {"config": {name: {"content": text} for name, text in {"b.conf": "ü\n", "a/c.json": "{}"}.items()}}
    folder = config(tmp_path, "api", {"b.conf": "ü\n", "a/c.json": "{}"})
    assert revision_of(declared) == folder.name


def test_a_container_that_is_removed_is_drift_until_a_run_changes_the_host(shop: Path) -> None:
    assert drifts(shop, redis=True, nginx=True) == {("redis", "container"): 0, ("nginx", "container"): 0}
    for _ in range(2):
        assert drifts(shop, nginx=True) == {("redis", "container"): 1, ("nginx", "container"): 0}
    assert drifts(shop, redis=True, nginx=True)["redis", "container"] == 0
    assert drifts(shop, nginx=True)["redis", "container"] == 1
    for playbook in ("psql", "run", "watchdog"):
        ran(shop, playbook, "2027-01-15T09:30:00Z")
        assert drifts(shop, nginx=True)["redis", "container"] == 1
    ran(shop, "site", "2027-01-15T10:00:00Z")
    assert drifts(shop, nginx=True) == {("nginx", "container"): 0}


@pytest.mark.parametrize("left", [None, "", "{\n", "[]\n", '{"playbook": "site"}\n'])
def test_a_container_stays_missed_while_the_history_cannot_be_read(shop: Path, left: str | None) -> None:
    drifts(shop, redis=True)
    (shop / history_file.FILE).unlink()
    if left is not None:
        (shop / history_file.FILE).write_text(left)
    for _ in range(2):
        assert drifts(shop) == {("redis", "container"): 1}
    ran(shop, "site", "2027-01-15T10:00:00Z")
    assert drifts(shop) == {}


def test_what_need_not_run_any_more_may_be_removed(shop: Path) -> None:
    """Such as the version before, and what a replacement leaves for some seconds."""
    names = {"api-blue-1": True, "redis": True, "redis-before": True, "redis-next": True, "redis-trial": True}
    assert set(drifts(shop, **names)) == {("api-blue-1", "container"), ("redis", "container")}
    assert drifts(shop, **{"api-blue-1": False, "redis": True}) == {("redis", "container"): 0}
    assert drifts(shop, redis=True) == {("redis", "container"): 0}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"run": 1}', '{"run": "deploy 2027-01-15T08:00:00Z", "containers": 1}'])
def test_a_damaged_note_of_containers_is_as_none(shop: Path, text: str) -> None:
    (shop / "expected.json").write_text(text)
    assert drifts(shop, redis=True) == {("redis", "container"): 0}
    assert drifts(shop) == {("redis", "container"): 1}


@needs_engine
def test_a_pass_reports_a_container_that_is_gone(stack: str, tmp_path: Path) -> None:
    name = run(stack, "cache", "--restart=unless-stopped")
    shown = tmp_path / stack / "watchdog/state/drift.prom"
    assert slipway_watchdog.main() == 0
    assert values(shown.read_text(), service="cache") == {"drift": 0}
    subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=True)
    assert slipway_watchdog.main() == 0
    assert values(shown.read_text(), service="cache") == {"drift": 1}


# Processes that were killed for their memory


def killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, now: float, events: tuple[str, ...], groups: dict[str, tuple[str, int]]
) -> dict[str, int]:
    """Return the totals after a pass that finds these events, and by container the start and the kernel's count of its control group."""
    asked: list[dict[str, str]] = []

    def request(_method: str, _path: str, query: dict[str, str]) -> bytes:
        asked.append(query)
        return b"".join(json.dumps({"Actor": {"Attributes": {"name": name}}}).encode() + b"\n" for name in events)

    found = [
        {"Name": f"/{name}", "State": {"Pid": number, "StartedAt": started}}
        for number, (name, (started, _count)) in enumerate(groups.items(), 1)
    ]
    counts = [0, *(count for _started, count in groups.values())]
    monkeypatch.setattr(oom_kills.control_groups, "oom_kills", lambda pid: counts[pid])
    kills = oom_kills.Kills(folder / "oom_kills.json")
    engine: Any = SimpleNamespace(request=request)
    kills.see(engine, "shop", found, now)
    kills.write()
    assert float(asked[0]["until"]) == now >= float(asked[0]["since"])
    return kills.totals


def test_a_main_process_that_was_killed_counts_although_its_control_group_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(now: float, *events: str, **groups: tuple[str, int]) -> dict[str, int]:
        return killed(tmp_path, monkeypatch, now, events, groups)

    assert seen(10, redis=("a", 0), api=("a", 0)) == {"redis": 0, "api": 0}
    # Started again at once, in a new control group.
    assert seen(20, "redis", redis=("b", 0), api=("a", 0)) == {"redis": 1, "api": 0}
    # A child, of which both know, and one of which the engine does not.
    assert seen(30, "api", redis=("b", 0), api=("a", 1)) == {"redis": 1, "api": 1}
    assert seen(40, redis=("b", 0), api=("a", 3)) == {"redis": 1, "api": 3}
    # Twice between two passes; a clock that was set back; a container that is gone.
    assert seen(35, "redis", "redis", "other", redis=("d", 0)) == {"redis": 3}
    assert seen(45, redis=("d", 0), api=("e", 0)) == {"redis": 3, "api": 0}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"until": 1}', '{"until": 1, "groups": [], "totals": 1}'])
def test_a_damaged_note_of_kills_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "oom_kills.json").write_text(text)
    assert killed(tmp_path, monkeypatch, 10, (), {"redis": ("a", 2)}) == {"redis": 2}


@needs_engine
def test_a_container_that_is_killed_at_its_limit_and_started_again_is_counted(stack: str, tmp_path: Path) -> None:
    # The shell is replaced, so that the main process is the one that is killed.
    limits = ["--restart=unless-stopped", "--memory=16m", "--memory-swap=16m"]
    script = "test -e /tmp/killed || { until test -e /tmp/fill; do sleep 0.1; done; touch /tmp/killed; exec tail /dev/zero; }; sleep 60"
    name = run(stack, "cache", *limits, command=script)
    shown = tmp_path / stack / "watchdog/state/containers.prom"

    def figures() -> tuple[float, float]:
        found = values(shown.read_text(), container=name)
        return found["oom_kills_total"], found["restarts_total"]

    assert slipway_watchdog.main() == 0
    assert figures() == (0, 0)
    subprocess.run(["docker", "exec", name, "touch", "/tmp/fill"], check=True, capture_output=True)
    deadline = time.monotonic() + 60
    while figures() != (1, 1):
        assert time.monotonic() < deadline, figures()
        time.sleep(0.5)
        assert slipway_watchdog.main() == 0


# Restarts


def ill(name: str, owner: str = "app-blue", identity: str = "", **more: Any) -> dict[str, Any]:
    """Return a container that is unhealthy."""
    slot = owner.removeprefix("app-") if owner.startswith("app-") else ""
    item = container(name, owner=owner, slot=slot)
    item["State"]["Health"] = {"Status": "unhealthy"}
    return {**item, "Id": identity or name, "Mounts": [], **more}


@pytest.fixture
def memory(tmp_path: Path) -> restarts.Memory:
    return restarts.Memory(tmp_path / "restarts.json")


def named(found: Iterator[dict[str, Any]]) -> str:
    return " ".join(map(restarts.name_of, found))


VOLUME = {"Mounts": [{"Type": "volume", "RW": True}]}


@pytest.mark.parametrize(
    ("item", "stores", "may"),
    [
        (ill("api-blue-1"), (), True),
        (ill("api-blue-1", **VOLUME), (), True),
        # It belongs to a release, or to the version before.
        (ill("api-green-1", owner="app-green"), (), False),
        (ill("nginx", owner="nginx", **VOLUME), (), True),
        (ill("volume-server", owner="volume_server", **VOLUME), (), True),
        (ill("exporters", owner="exporters", Mounts=[{"Type": "bind", "RW": False}]), (), True),
        (ill("postgres", owner="postgres", **VOLUME), (), False),
        (ill("redis", owner="redis", **VOLUME), ("chroma",), False),
        (ill("chroma", owner="chroma", **VOLUME), ("chroma",), True),
        (ill("backup", owner="backup", **VOLUME), ("chroma", "postgres", "redis"), False),
        # It reads its log before it is ready, too.
        (ill("prometheus", owner="monitoring", **VOLUME), (), False),
        # Of a role of the user's own.
        (ill("mysql", owner="mysql", **VOLUME), (), False),
        (ill("mysql", owner="mysql", Mounts=[{"Type": "bind", "RW": True}]), (), False),
        (ill("gateway", owner="gateway", Mounts=[{"Type": "volume", "RW": False}]), (), True),
        (ill("mailer", owner="extra_services", Mounts=[{"Type": "bind", "RW": False}, {"Type": "tmpfs", "RW": True}]), (), True),
        (ill("search", owner="extra_services", **VOLUME), (), False),
        # What ends by itself, such as a migration.
        (ill("migrate-blue", HostConfig={"RestartPolicy": {"Name": "no"}}), (), False),
    ],
)
def test_what_may_be_restarted_is_what_keeps_nothing_that_a_restart_takes(item: dict[str, Any], stores: tuple[str, ...], may: bool) -> None:
    assert restarts.may_restart(item, "blue", stores) is may


def test_every_store_has_a_volume_by_which_it_is_known() -> None:
    described = {service.role: service for service in services()}
    for role in (service.role for service in described.values() if service.store):
        assert role not in restarts.STATELESS
        (declared,) = DataLoader().load_from_file(str(ROOT / f"roles/{role}/vars/main.yml"))[f"__{role}_services"]
        assert [volume for volume in declared["volumes"] if volume.get("data") and volume.get("mode", "rw") == "rw"]
    assert set(restarts.STATELESS) <= set(described)


def test_a_first_release_waits_for_its_containers_by_itself() -> None:
    assert not restarts.may_restart(ill("api-blue-1"), "", ())
    assert restarts.may_restart(ill("nginx", owner="nginx"), "", ())


def test_a_container_is_restarted_once_it_has_been_unhealthy_for_long_enough(memory: restarts.Memory) -> None:
    item = ill("api-blue-1")
    for now, expected in ((1000, ""), (1059, ""), (1060, "shop-api-blue-1")):
        memory.see([item], now)
        assert named(restarts.due([item], memory, LIMITS, "blue", now)) == expected
    # Once it is healthy, time begins again; so it does where the clock is set back.
    item["State"]["Health"]["Status"] = "healthy"
    memory.see([item], 1061)
    item["State"]["Health"]["Status"] = "unhealthy"
    for now in (1070, 1129, 900, 959):
        memory.see([item], now)
        assert not named(restarts.due([item], memory, LIMITS, "blue", now))
    memory.see([item], 960)
    assert named(restarts.due([item], memory, LIMITS, "blue", 960)) == "shop-api-blue-1"


@pytest.mark.parametrize(
    ("start", "streak", "since"),
    [
        ("2027-01-15T08:00:30.123456789Z", 1, 1800000030),
        ("2027-01-15T09:00:30.1+01:00", 1, 1800000030),
        ("2027-01-15T08:00:30Z", 3, 1800000010),
        # The engine keeps five; the last pass has noted it.
        ("2027-01-15T08:00:30Z", 30, 1800000000),
        ("2027-01-15T09:59:30Z", 1, 1800000090),
    ],
)
def test_time_counts_from_the_first_check_that_failed(memory: restarts.Memory, start: str, streak: int, since: float) -> None:
    item = ill("api-blue-1")
    before = [f"2027-01-15T08:00:{second}Z" for second in ("00", "10", "20")]
    item["State"]["Health"] |= {"FailingStreak": streak, "Log": [{"Start": moment} for moment in (*before, start)]}
    memory.see([item], 1800000090)
    assert memory.unhealthy == {"api-blue-1": since}


@pytest.mark.parametrize("status", ["paused", "exited", "restarting", "created"])
def test_what_does_not_run_is_not_restarted(memory: restarts.Memory, status: str) -> None:
    item = ill("api-blue-1")
    item["State"]["Status"] = status
    memory.see([item], 0)
    memory.see([item], 1000)
    assert not named(restarts.due([item], memory, LIMITS, "blue", 1000))


def test_restarts_within_an_hour_are_limited_and_counted(memory: restarts.Memory) -> None:
    item = ill("api-blue-1")
    made = []
    for now in range(0, 7200, 10):
        memory.see([item], now)
        if named(restarts.due([item], memory, LIMITS, "blue", now)):
            memory.add(item, now)
            made.append(now)
        figures = restarts.figures(item, memory, LIMITS, "blue")
        within = sum(now - when < 3600 for when in made)
        assert figures == {"watchdog_restarts_total": len(made), "watchdog_gave_up": within == 3}
        assert within <= 3
    assert made == [60, 130, 200, 3660, 3730, 3800]
    assert not named(restarts.due([item], memory, restarts.Limits(60, 0), "blue", 100_000))
    assert restarts.figures(item, memory, restarts.Limits(60, 0), "blue") == {}


def test_replicas_of_a_service_are_restarted_one_after_the_other(memory: restarts.Memory) -> None:
    items = [ill("api-blue-1"), ill("api-blue-2"), ill("page-blue-1")]
    made = []
    for now in range(0, 200, 10):
        memory.see(items, now)
        if found := next(restarts.due(items, memory, LIMITS, "blue", now), None):
            memory.add(found, now)
            found["State"]["Health"]["Status"] = "starting"
            made.append((now, restarts.name_of(found)))
    assert made == [(60, "shop-api-blue-1"), (70, "shop-page-blue-1"), (120, "shop-api-blue-2")]


def test_the_next_pass_knows_of_this_one_and_not_of_what_is_gone(memory: restarts.Memory, tmp_path: Path) -> None:
    items = [ill("api-blue-1"), ill("page-blue-1")]
    memory.see(items, 1000)
    memory.add(items[0], 1060)
    memory.write()
    again = restarts.Memory(tmp_path / "restarts.json")
    assert (again.unhealthy, again.totals) == ({"page-blue-1": 1000}, {"shop-api-blue-1": 1})
    assert again.restarts == [(1060, "shop-api-blue-1", "api")]
    again.see(items[1:], 5000)
    assert (again.unhealthy, again.totals, again.restarts) == ({"page-blue-1": 1000}, {}, [])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"unhealthy": 1}', '{"unhealthy": {}, "restarts": [1], "totals": {}}'])
def test_a_file_that_is_damaged_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "restarts.json").write_text(text)
    memory = restarts.Memory(tmp_path / "restarts.json")
    memory.see([ill("api-blue-1")], 5)
    memory.write()
    assert json.loads((tmp_path / "restarts.json").read_text())["unhealthy"] == {"api-blue-1": 5}


@needs_engine
def test_a_container_that_hangs_is_restarted_and_its_history_says_so(
    stack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(tmp_path, stack, restarts.Limits(1, 1))
    monkeypatch.setattr(restarts.history_file, "SCRIPT", restarts.history_file.SCRIPT.replace("/etc/slipway", str(tmp_path)))
    healthy = ["--health-cmd=test -e /tmp/well", "--health-interval=1s", "--health-retries=1", "--restart=unless-stopped", "--init"]
    # The volume of the image counts as well.
    name, other = run(stack, "nginx", *healthy), run(stack, "mysql", *healthy)

    def started(container: str) -> str:
        shown = ["docker", "inspect", "--format", "{{.State.StartedAt}} {{.State.Health.Status}}", container]
        return subprocess.run(shown, capture_output=True, text=True, check=True).stdout.strip()

    deadline = time.monotonic() + 30
    while not all(started(container).endswith(" unhealthy") for container in (name, other)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    before = started(name), started(other)
    assert slipway_watchdog.main() == 0
    time.sleep(1.1)
    assert slipway_watchdog.main() == 0
    assert started(name).split()[0] != before[0].split()[0]
    assert started(other) == before[1]
    assert f"{name} failed its health checks for" in capfd.readouterr().err
    (row,) = map(json.loads, (tmp_path / stack / "release/restarts.jsonl").read_text().splitlines())
    assert (row["playbook"], row["version"], row["result"]) == ("watchdog", name, "restarted")
    # The limit is reached.
    while not started(name).endswith(" unhealthy"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    restarted = started(name)
    for _ in range(2):
        assert slipway_watchdog.main() == 0
        time.sleep(1.1)
    assert started(name) == restarted
    found = values((tmp_path / stack / "watchdog/state/containers.prom").read_text(), container=name)
    assert (found["watchdog_restarts_total"], found["watchdog_gave_up"]) == (1, 1)
    # For status.yml.
    memory = json.loads((tmp_path / stack / "watchdog/state/restarts.json").read_text())
    assert ([restart[1] for restart in memory["restarts"]], memory["gave_up"]) == ([name], [name])


class Hung:
    """An engine whose containers stay unhealthy; it notes which it restarts."""

    def __init__(self, *names: str) -> None:
        self.found = {name: ill(name, owner="nginx") for name in names}
        for item in self.found.values():
            item["State"]["StartedAt"] = "2027-01-15T08:00:00Z"
        self.restarted: list[str] = []

    def get(self, _path: str, **_query: str) -> list[dict[str, Any]]:
        return list(self.found.values())

    def inspect(self, identity: str) -> dict[str, Any]:
        return self.found[identity]

    def request(self, method: str, path: str, *_rest: Any, **_more: Any) -> bytes:
        if method == "GET":
            return b""
        self.restarted.append(path.split("/")[2])
        return b""


@pytest.fixture
def hung(stack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hung:
    """An engine with two services that hang, of which a pass restarts one."""
    engine = Hung("one", "two")
    configure(tmp_path, stack, restarts.Limits(0, 3))
    monkeypatch.setattr(slipway_watchdog, "Engine", lambda **_more: engine)
    monkeypatch.setattr(restarts, "subprocess", SimpleNamespace(run=lambda *_argv, **_more: None))
    return engine


def test_a_pass_leaves_what_is_being_stopped_alone_and_restarts_another(hung: Hung, tmp_path: Path, stack: str) -> None:
    with stops.stopping("one", 600):
        assert slipway_watchdog.main() == 0
    assert hung.restarted == ["two"]
    memory = restarts.Memory(tmp_path / stack / "watchdog/state/restarts.json")
    assert memory.totals == {"shop-two": 1}
    assert slipway_watchdog.main() == 0
    assert hung.restarted == ["two", "one"]


def test_nothing_is_restarted_while_a_restore_exchanges_data(hung: Hung, tmp_path: Path, stack: str) -> None:
    plan = {"mode": "replace", "point": "20270115T080000Z", "target_time": ""}
    inputs = {"restore_stack": stack, "restore_plan": plan, "__restore_run": {"id": "1", "returns": {}}}
    made = role_task("restore", "mark.yml", "mark | Record that data is being exchanged", "ansible.builtin.copy", inputs)
    mark = tmp_path / Path(made["dest"]).relative_to("/etc/slipway")
    mark.parent.mkdir()
    mark.write_text(made["content"])
    assert slipway_watchdog.main() == 0
    assert hung.restarted == []
    mark.unlink()
    assert slipway_watchdog.main() == 0
    assert hung.restarted == ["one"]


@needs_engine
@pytest.mark.parametrize("first", ["stop", "restart"])
def test_a_container_that_a_run_stops_stays_stopped(stack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    """Whichever of the two comes first: the engine would start the container again after the stop has returned."""
    configure(tmp_path, stack, restarts.Limits(0, 1))
    monkeypatch.setattr(restarts, "subprocess", SimpleNamespace(run=lambda *_argv, **_more: None))
    # Without --init, a shell without a trap ignores SIGTERM.
    name = run(stack, "nginx", "--health-cmd=false", "--health-interval=1s", "--health-retries=1", "--restart=always", "--stop-timeout=3")
    engine, deadline = Engine(), time.monotonic() + 30

    def state() -> dict[str, Any]:
        found = engine.inspect(name)
        assert found
        return dict(found["State"])

    while state()["Health"]["Status"] != "unhealthy":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    inspected, started = engine.inspect(name), state()["StartedAt"]
    assert inspected
    steps: list[Callable[[], Any]] = [lambda: engine.stop(inspected), slipway_watchdog.main]
    threads = [threading.Thread(target=step) for step in (steps if first == "stop" else reversed(steps))]
    for thread in threads:
        thread.start()
        time.sleep(1)
    for thread in threads:
        thread.join()
    time.sleep(1)
    assert (state()["Status"], state()["StartedAt"] == started) == ("exited", first == "stop")


# The role


def role(name: str, files: dict[str, Any] | None = None, **inputs: Any) -> Any:
    """Return a variable of the role on a host with these files."""
    return role_variable("watchdog", name, {"watchdog_stack": "shop", "container_service_host_state": {"files": files or {}}, **inputs})


def test_the_timer_starts_the_program_with_all_that_it_imports(tmp_path: Path) -> None:
    (service,) = role("__watchdog_services")
    for name, item in service["config"].items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(item["content"])
    content = service["host_files"]["/etc/systemd/system/slipway-shop-watchdog.service"]["content"]
    (command,) = [line.partition("=")[2] for line in content.splitlines() if line.startswith("ExecStart=")]
    started = command.replace("/etc/slipway/shop/watchdog/config/current", str(tmp_path)).replace("/run/", f"{tmp_path}/")
    done = subprocess.run(started.split(), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or "Docker Engine" in done.stderr
    assert list(tmp_path.glob("slipway-shop-watchdog/**/engine.*.pyc"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for path, item in role("__watchdog_unit_files").items():
        (tmp_path / Path(path).name).write_text(item["content"])
    argv = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_host_with_the_units_needs_nothing() -> None:
    wanted = role("__watchdog_timer_plan")
    assert (wanted["timers"], wanted["differs"]) == (["slipway-shop-watchdog.timer"], True)
    units = {path: {"content": item["content"]} for path, item in role("__watchdog_unit_files").items()}
    enabled = {"/etc/systemd/system/timers.target.wants/slipway-shop-watchdog.timer": {}, wanted["record"]: {"link": wanted["units"]}}
    assert role("__watchdog_reasons", units | enabled) == []


def test_what_others_write_for_prometheus_is_copied_as_long_as_it_is_there(tmp_path: Path) -> None:
    folder, jobs, volume = tmp_path / "shop/watchdog/state", tmp_path / "shop/jobs/state", tmp_path / "data/metrics"
    for path in (folder, jobs, volume):
        path.mkdir(parents=True)
    (folder / "containers.prom").write_text("c 3\n")
    (jobs / "nightly.prom").write_text("a 1\n")
    current = tmp_path / "shop/nginx/config/current"
    current.mkdir(parents=True)
    (current / "certificate.prom").write_text("d 4\n")
    (jobs / "torn.prom").write_bytes(b"\xff\n")
    (volume / "slipway_backup.prom").write_text("b 2\n")
    files = [str(volume / "slipway_backup.prom"), str(tmp_path / "gone/metrics/x.prom")]
    assert host_metrics.texts(tmp_path / "shop", folder, files) == {
        "jobs-nightly.prom": "a 1\n",
        "nginx-certificate.prom": "d 4\n",
        "data-slipway_backup.prom": "b 2\n",
    }


@pytest.mark.parametrize(
    ("lock", "since"), [(None, None), ("{", None), ("{}", None), ("null", None), ('{"since": "2027-01-15T08:00:00Z"}', 1800000000.0)]
)
def test_a_release_lock_is_measured_while_a_run_holds_it(tmp_path: Path, lock: str | None, since: float | None) -> None:
    (tmp_path / "release").mkdir()
    if lock is not None:
        (tmp_path / "release/lock.json").write_text(lock)
    assert host_metrics.lock_since(tmp_path) == since
    assert ("release.prom" in host_metrics.texts(tmp_path, tmp_path / "watchdog/state", [])) is bool(since)
