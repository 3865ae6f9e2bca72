# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alert rules: each says what to do, and fires for what it is for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, role_variable

RULES = ROOT / "roles/monitoring/files/rules/slipway.yml"
CASES = ROOT / "tests/alerts/slipway.yml"


def alerts() -> list[dict[str, object]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_each_alert_has_a_runbook_and_a_case():
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) >= 30
    sections = re.findall(r"^### (\w+)$", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE)
    assert sections == names
    assert [rule["annotations"]["runbook"] for rule in alerts()] == [f"docs/alerts.md#{name.lower()}" for name in names]  # type: ignore[index]
    cases = [
        test for case in yaml.safe_load(CASES.read_text())["tests"] for test in case["alert_rule_test"] if test["alertname"] == case["name"]
    ]
    assert [test["alertname"] for test in cases if test["exp_alerts"]] == names


def test_the_heartbeat_is_sent_at_each_interval():
    """Alertmanager repeats at the first interval for which the note of the last call is older than repeat_interval."""
    services = role_variable("monitoring", "__monitoring_services", {})
    (alertmanager,) = [item for item in services if item["name"] == "alertmanager"]
    route = yaml.safe_load(alertmanager["config"]["alertmanager.yml"]["content"])["route"]["routes"][0]
    assert (route["receiver"], route["group_interval"]) == ("heartbeat", "1m")
    assert re.fullmatch(r"[1-5]\ds", route["repeat_interval"])


@pytest.mark.parametrize("alert", ["HostDown", "ContainerDown", "ContainerRemoved", "EdgeDown"])
def test_what_is_down_is_reported_within_a_minute(alert: str):
    """At worst: each part of the way has just looked when something changes, and the last one waits for others to send with it."""

    def seconds(text: str) -> int:
        return sum(int(number) * {"s": 1, "m": 60}[unit] for number, unit in re.findall(r"(\d+)([sm])", text))

    (group,) = [group for group in yaml.safe_load(RULES.read_text())["groups"] if alert in [rule["alert"] for rule in group["rules"]]]
    (rule,) = [rule for rule in group["rules"] if rule["alert"] == alert]
    services = {item["name"]: item["config"] for item in role_variable("monitoring", "__monitoring_services", {})}
    asked = seconds(yaml.safe_load(services["prometheus"]["prometheus.yml"]["content"])["global"]["scrape_interval"])
    sent = seconds(yaml.safe_load(services["alertmanager"]["alertmanager.yml"]["content"])["route"]["group_wait"])
    timer = role_variable("watchdog", "__watchdog_unit_files", {"watchdog_stack": "shop", "container_service_host_state": {"files": {}}})
    (calendar, accuracy) = re.findall(
        r"^OnCalendar=\*:\*:0/(\d+)\nAccuracySec=(\d+)s$", timer["/etc/systemd/system/slipway-shop-watchdog.timer"]["content"], re.MULTILINE
    )[0]
    # A pass itself takes less than a second.
    measured = int(calendar) + int(accuracy) + 1 if "slipway_" in rule["expr"] else 0
    assert measured + asked + seconds(group["interval"]) + seconds(rule["for"]) + sent <= 60


@pytest.fixture
def promtool(root: Path) -> list[str]:
    """Return the command that runs promtool on files of the repository."""
    if shutil.which("promtool"):
        return ["promtool"]
    image = yaml.safe_load((root / "group_vars/all.yml").read_text())["monitoring_image"]
    if not shutil.which("docker") or subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
        pytest.skip(f"neither promtool nor the image {image} is here")
    return ["docker", "run", "--rm", "--network", "none", "--volume", f"{root}:{root}:ro", image, "promtool"]


@pytest.mark.usefixtures("programs")
def test_rules_fire_for_their_cases(promtool: list[str]):
    done = subprocess.run([*promtool, "test", "rules", str(CASES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_certificate_of_a_balancer_is_probed():
    probes = [{"host": "lb1", "address": "10.0.0.1:443", "names": ["docs.example"]}, {"host": "lb2", "address": "nginx:8443"}]
    services = {
        item["name"]: item["config"] for item in role_variable("monitoring", "__monitoring_services", {"monitoring_probes": probes})
    }
    config = yaml.safe_load(services["prometheus"]["prometheus.yml"]["content"])
    modules = yaml.safe_load(services["blackbox"]["blackbox.yml"]["content"])["modules"]
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "certificate"]
    (target,) = job["static_configs"]
    assert target["labels"] == {
        "instance": "docs.example",
        "balancer": "lb1",
        "__param_target": "https://10.0.0.1:443/",
        "__param_hostname": "docs.example",
    }
    # The module must not name a host itself: it is the probe's.
    assert not {"headers", "server_name"} & {*modules[job["params"]["module"][0]]["http"], *modules["certificate"]["http"]["tls_config"]}
