# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watchdog of a host: what it writes for Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import container_metrics
import host_metrics
import slipway_watchdog
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine
from conftest import needs_engine, role_variable


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


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a stack on the machine's own engine, of whose containers nothing is left."""
    name = f"watch{uuid.uuid4().hex[:8]}"
    (tmp_path / name / "watchdog").mkdir(parents=True)
    (tmp_path / "watchdog.json").write_text(json.dumps({"stack": name, "metrics_files": []}))
    monkeypatch.setattr(slipway_watchdog, "STACKS", tmp_path)
    monkeypatch.setattr(slipway_watchdog, "CONFIG", tmp_path / "watchdog.json")
    yield name
    made = subprocess.run(["docker", "ps", "-aq", "--filter", f"name={name}-"], capture_output=True, text=True, check=True).stdout.split()
    if made:
        subprocess.run(["docker", "rm", "--force", *made], capture_output=True, check=True)


def run(stack: str, service: str, *options: str) -> str:
    """Start a container of a stack; return its name."""
    name = f"{stack}-{service}"
    labels = {"slipway.stack": stack, "slipway.service": service, "slipway.owner": service}
    named = [f"--label={key}={value}" for key, value in labels.items()]
    command = ["docker", "run", "--detach", "--network=none", f"--name={name}", *named, *options]
    subprocess.run([*command, "redis:7-alpine", "sh", "-c", "while :; do sleep 1; done"], capture_output=True, check=True)
    return name


@needs_engine
def test_figures_of_a_container_are_the_kernels_own(stack: str, tmp_path: Path) -> None:
    name = run(stack, "cache", "--memory=64m", "--pids-limit=50", "--cpus=0.5")
    subprocess.run(["docker", "run", "--detach", "--name", f"{stack}-foreign", "redis:7-alpine"], capture_output=True, check=True)
    assert slipway_watchdog.main() == 0
    text = (tmp_path / stack / "watchdog/state/containers.prom").read_text()
    found = values(text, container=name, service="cache")
    assert f"{stack}-foreign" not in text
    assert (found["memory_limit_bytes"], found["pids_limit"], found["cpu_limit_cores"]) == (64 * 2**20, 50, 0.5)
    assert 0 < found["memory_bytes"] < found["memory_limit_bytes"]
    assert found["pids"] in (1, 2)
    assert found["cpu_seconds_total"] > 0
    assert {"cpu_throttled_seconds_total", "oom_kills_total", "start_time_seconds"} <= set(found)
    assert set(found) == set(container_metrics.METRICS)


@needs_engine
def test_a_stack_that_was_removed_gets_no_folder_again(stack: str, tmp_path: Path) -> None:
    (tmp_path / stack / "watchdog").rmdir()
    assert slipway_watchdog.main() == 0
    assert not list((tmp_path / stack).iterdir())


def test_an_engine_that_does_not_answer_leaves_the_last_figures(stack: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slipway_watchdog, "Engine", lambda timeout: Engine("/nonexistent", timeout))
    assert slipway_watchdog.main() == 1
    assert not (tmp_path / stack / "watchdog/state").exists()


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
    (jobs / "torn.prom").write_bytes(b"\xff\n")
    (volume / "slipway_backup.prom").write_text("b 2\n")
    files = [str(volume / "slipway_backup.prom"), str(tmp_path / "gone/metrics/x.prom")]
    assert host_metrics.texts(tmp_path / "shop", folder, files) == {"jobs-nightly.prom": "a 1\n", "data-slipway_backup.prom": "b 2\n"}


@pytest.mark.parametrize(
    ("lock", "since"), [(None, None), ("{", None), ("{}", None), ("null", None), ('{"since": "2027-01-15T08:00:00Z"}', 1800000000.0)]
)
def test_a_release_lock_is_measured_while_a_run_holds_it(tmp_path: Path, lock: str | None, since: float | None) -> None:
    (tmp_path / "release").mkdir()
    if lock is not None:
        (tmp_path / "release/lock.json").write_text(lock)
    assert host_metrics.lock_since(tmp_path) == since
    assert ("release.prom" in host_metrics.texts(tmp_path, tmp_path / "watchdog/state", [])) is bool(since)
