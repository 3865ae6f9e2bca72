"""A host of group monitoring: what it measures, reports and refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from slipway_lab import ROOT, Lab, LabHost, Run, Stranger, wait_until

pytestmark = pytest.mark.extended("monitoring")
Play = Callable[..., Run]
RECEIVER_PORT = 9999
RECEIVED = "/run/slipway-alerts.jsonl"
#: Alerts that these tests do not wait for as long as people do: tests/alerts/slipway.yml has how long that is.
AT_ONCE = ("EdgeErrors", "DiskFull", "BackupFailed")
#: The only folder of the host that the exporters see, as the host's own disks are the machine's.
SMALL_DISK = "/etc/slipway/slipway/watchdog/state"
SMALL_DISK_FREE = 'node_filesystem_avail_bytes{device=~"/dev/loop.*"} / node_filesystem_size_bytes'
RECEIVER = f"""
import http.server
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        with open({RECEIVED!r}, "ab") as file:
            file.write(self.rfile.read(int(self.headers["Content-Length"])) + b"\\n")
        self.send_response(200)
        self.end_headers()
http.server.ThreadingHTTPServer(("", {RECEIVER_PORT}), Hook).serve_forever()
"""


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    return lab.balancer


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the user's own rules: AT_ONCE as they are, but without a wait."""
    shipped = yaml.safe_load((ROOT / "roles/monitoring/files/rules/slipway.yml").read_text(encoding="utf-8"))["groups"]
    rules = [{**rule, "for": "0s"} for group in shipped for rule in group["rules"] if rule["alert"] in AT_ONCE]
    assert [rule["alert"] for rule in rules] == list(AT_ONCE)
    path = tmp_path_factory.mktemp("rules") / "at_once.yml"
    path.write_text(json.dumps({"groups": [{"name": "at once", "interval": "5s", "rules": rules}]}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def play(lab: Lab, host: LabHost, at_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    """Run site.yml with an inventory that has a host for monitoring; at the end the stack is as it was."""
    inventory = tmp_path_factory.mktemp("monitoring") / "hosts.yml"
    inventory.write_text(json.dumps({"all": {"children": {"monitoring": {"hosts": {host.name: {}}}}}}), encoding="utf-8")
    host.run(f": >{RECEIVED}; cat >/run/receiver.py <<'END'\n{RECEIVER}\nEND")
    host.run("systemd-run --unit slipway-receiver --quiet python3 /run/receiver.py")
    given = {
        "vault_postgres_monitoring_password": "Ck7pW2mRx9Tz4LqV8sNd",
        "vault_redis_monitoring_password": "Wx3nB8vTq5Hs2KdM7jRf",
        "monitoring_webhook_urls": [f"http://{host.address}:{RECEIVER_PORT}/people"],
        "monitoring_heartbeat_url": f"http://{host.address}:{RECEIVER_PORT}/heartbeat",
        "monitoring_rules_files": [str(at_once)],
    }

    def run(*arguments: str, **variables: object) -> Run:
        return lab.playbook("site", "-i", str(inventory), *arguments, variables={**given, **variables})

    yield run
    containers = " ".join(f"slipway-{name}" for name in ("prometheus", "alertmanager", "blackbox"))
    host.run(f"systemctl stop slipway-receiver; docker rm --force {containers}")
    host.run("docker volume rm --force monitoring_data monitoring_data_alerts")
    lab.site()


@pytest.fixture(scope="module", autouse=True)
def deployed(play: Play) -> Run:
    run = play()
    assert run.returncode == 0, run.excerpt
    return run


def asked(host: LabHost, question: str) -> Any:
    """Return what Prometheus answers to a query."""
    return json.loads(host.run(f"curl -sSf --get http://127.0.0.1:9090/api/v1/query --data-urlencode 'query={question}'"))["data"]["result"]


def received(host: LabHost, alert: str, status: str) -> list[dict[str, Any]]:
    """Return the alerts of a name and a status that the receiver got."""
    messages = [json.loads(line) for line in host.run(f"cat {RECEIVED}").splitlines() if line]
    found = [item for message in messages for item in message["alerts"]]
    return [item for item in found if (item["labels"]["alertname"], item["status"]) == (alert, status)]


def test_all_that_is_asked_answers(host: LabHost):
    jobs = {"exporters", "nginx", "postgres", "redis", "edge", "prometheus", "alertmanager"}
    wait_until(lambda: {item["metric"]["job"] for item in asked(host, "up == 1")} >= jobs, 60, "all jobs answer")
    wait_until(lambda: not asked(host, "up == 0 or pg_up == 0 or redis_up == 0 or probe_success == 0"), 60, "nothing is down")
    # From the host's own files, of every container of the stack.
    wait_until(lambda: bool(asked(host, "slipway_container_expected")), 60, "figures of containers")
    running = {item["metric"]["container"] for item in asked(host, 'slipway_container_state{state="running"}')}
    assert running == {container.name for container in host.containers() if container.running}


def test_a_port_that_is_not_declared_is_measured_and_those_of_the_stack_are_not(host: LabHost):
    """The tests' own receiver of alerts listens on one."""
    question = f'slipway_undeclared_port{{port="{RECEIVER_PORT}"}}'
    wait_until(lambda: bool(asked(host, question)), 60, "the port is measured")
    assert [item["metric"]["owner"] for item in asked(host, question)] == ["process python3"]
    assert not asked(host, 'slipway_undeclared_port{owner=~"container slipway-.*"}')


def test_nothing_of_it_is_reached_from_outside(host: LabHost, stranger: Stranger):
    assert stranger.can_connect(host.address, 443)
    for port in (9090, 9093, 9100, 9113, 9115, 9121, 9187):
        assert not stranger.can_connect(host.address, port), port


def test_a_second_run_changes_nothing(play: Play):
    run = play()
    assert (run.returncode, run.changed) == (0, []), run.excerpt
    assert set(run.report["remote_calls"].values()) == {1}


def test_a_stopped_container_is_reported_and_so_is_its_return(host: LabHost):
    host.run("docker stop slipway-chroma")
    try:
        wait_until(lambda: bool(received(host, "ContainerDown", "firing")), 90, "the alert")
    finally:
        host.run("docker start slipway-chroma")
    (alert, *_more) = received(host, "ContainerDown", "firing")
    assert alert["labels"]["container"] == "slipway-chroma"
    assert alert["annotations"]["runbook"] == "docs/alerts.md#containerdown"
    wait_until(lambda: bool(received(host, "ContainerDown", "resolved")), 120, "the end of the alert")


def test_requests_that_fail_are_counted_and_reported(lab: Lab, host: LabHost):
    """Those that send something: the page, which the probes ask for, is served all the time."""
    name = next(container.name for container in host.containers() if container.kind == "backend" and container.running)
    failed = 'sum(slipway_edge_requests_total{method="POST",status="5xx"})'
    wait_until(lambda: bool(asked(host, 'slipway_edge_requests_total{method="GET",status="2xx"} > 0')), 60, "requests are counted")
    before = float(asked(host, failed)[0]["value"][1])
    host.run(f"docker stop {name}")
    try:
        with lab.client() as client:
            statuses = [client.post("/api/sessions", json={}).status_code for _ in range(20)]
    finally:
        host.run(f"docker start {name}")
    assert all(status >= 500 for status in statuses), statuses
    wait_until(lambda: bool(received(host, "EdgeErrors", "firing")), 90, "the alert")
    (alert, *_more) = received(host, "EdgeErrors", "firing")
    assert (alert["labels"]["instance"], alert["labels"]["method"]) == (host.name, "POST")
    assert float(asked(host, failed)[0]["value"][1]) == before + 20
    assert not asked(host, 'ALERTS{alertname="EdgeFiguresMissing"}')
    lab.wait_until_healthy(120)


def test_a_container_that_was_removed_is_reported_until_a_run_makes_it_again(play: Play, host: LabHost):
    name = next(container.name for container in host.containers() if container.kind == "frontend" and container.running)
    file = "/etc/slipway/slipway/redis/config/current/redis.conf"
    # Its first pass after a run notes the containers that the run has left.
    host.run("systemctl start slipway-slipway-watchdog.service")
    host.run(f"echo '# by hand' >>{file}; docker rm --force {name}")
    try:
        # A run that ended just before may have removed it, as far as the rule knows.
        wait_until(lambda: bool(received(host, "ContainerRemoved", "firing")), 240, "the alert")
        (alert, *_more) = received(host, "ContainerRemoved", "firing")
        assert alert["labels"]["service"] == name.removeprefix("slipway-")
        (drift,) = asked(host, 'slipway_drift{what="configuration"} == 1')
        assert drift["metric"]["service"] == "redis"
    finally:
        run = play()
    assert run.returncode == 0, run.excerpt
    wait_until(lambda: not asked(host, "slipway_drift == 1"), 60, "nothing differs")
    wait_until(lambda: bool(received(host, "ContainerRemoved", "resolved")), 120, "the end of the alert")


def test_a_container_that_hangs_is_restarted_by_its_host_and_reported(lab: Lab, host: LabHost):
    name = next(container.name for container in host.containers() if container.kind == "backend" and container.running)

    def state(field: str) -> str:
        return host.run(f"docker inspect --format '{{{{.State.{field}}}}}' {name}").strip()

    before = state("StartedAt")
    host.run(f"kill -STOP {state('Pid')}")
    wait_until(lambda: state("StartedAt") != before and state("Health.Status") == "healthy", 90, "the container is replaced")
    wait_until(lambda: bool(received(host, "ContainerRestartedByWatchdog", "firing")), 90, "the alert")
    line = json.loads(host.run("tail -n 1 /etc/slipway/slipway/release/restarts.jsonl"))
    assert (line["playbook"], line["version"], line["result"]) == ("watchdog", name, "restarted")
    problems = {item["service"]: item["what"] for item in lab.playbook("status").report["status"]["problems"]}
    assert "the watchdog has restarted it 1 time," in problems[name.removeprefix("slipway-")]


def test_while_alerting_works_the_heartbeat_says_so(host: LabHost):
    wait_until(lambda: bool(received(host, "AlertingWorks", "firing")), 90, "the heartbeat")
    before = len(received(host, "AlertingWorks", "firing"))
    wait_until(lambda: len(received(host, "AlertingWorks", "firing")) >= before + 2, 130, "a call each minute")


@pytest.fixture
def small_disk(host: LabHost) -> Iterator[str]:
    """A disk of 16 MiB that the exporters see."""
    host.need("e2fsprogs")
    host.run("truncate --size 16M /run/small && mkfs.ext4 -q -m 0 /run/small")
    host.run(f"mount -o loop /run/small {SMALL_DISK} && docker restart slipway-exporters")
    try:
        wait_until(lambda: bool(asked(host, f"{SMALL_DISK_FREE} > 0.5")), 60, "the exporters see the disk")
        yield SMALL_DISK
    finally:
        host.run(f"docker stop slipway-exporters; umount --lazy {SMALL_DISK}; rm /run/small; docker start slipway-exporters")


def test_a_disk_that_fills_is_reported_and_so_is_room_on_it(host: LabHost, small_disk: str):
    # Not to its end, as the figures are on it.
    host.run(f"fallocate --length $(($(df --output=avail --block-size=1 {small_disk} | tail -n 1) - 1048576)) {small_disk}/filler")
    wait_until(lambda: bool(received(host, "DiskFull", "firing")), 90, "the alert")
    (alert, *_more) = received(host, "DiskFull", "firing")
    assert alert["labels"]["device"].startswith("/dev/loop")
    host.run(f"rm {small_disk}/filler")
    wait_until(lambda: bool(received(host, "DiskFull", "resolved")), 120, "the end of the alert")


def test_a_certificate_of_another_name_is_looked_at_by_that_name(play: Play, host: LabHost, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("certificate")
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=docs.example"
    files = ["-addext", "subjectAltName=DNS:docs.example", "-out", f"{folder}/docs.pem", "-keyout", f"{folder}/docs.key"]
    subprocess.run([*make.split(), *files], check=True, capture_output=True)
    own = {"names": ["docs.example"], "certificate": f"{folder}/docs.pem", "key": f"{folder}/docs.key"}
    try:
        run = play(nginx_server_names=["localhost", "docs.example"], nginx_certificates=[own])
        assert run.returncode == 0, run.excerpt
        ends = 'probe_ssl_earliest_cert_expiry{job="certificate"} - time()'
        wait_until(lambda: bool(asked(host, ends)), 90, "the certificate is looked at")
        (found,) = asked(host, ends)
    finally:
        run = play()
    assert run.returncode == 0, run.excerpt
    assert (found["metric"]["instance"], found["metric"]["balancer"]) == ("docs.example", host.name)
    assert 29 * 86400 < float(found["value"][1]) < 30 * 86400


def test_a_certificate_near_its_end_is_reported_until_a_run_renews_it(play: Play, lab: Lab, host: LabHost):
    (lab.inventory / "pki/server.pem").unlink()
    try:
        run = play(nginx_tls_days=10, nginx_tls_renew_days=5)
        assert run.returncode == 0, run.excerpt
        # With this as a certificate of the user's own, no run renews it.
        pki = lab.inventory / "pki"
        run = play(nginx_tls_certificate_file=str(pki / "server.pem"), nginx_tls_key_file=str(pki / "server.key"))
        assert run.returncode == 0, run.excerpt
        wait_until(lambda: bool(received(host, "CertificateExpires", "firing")), 90, "the alert")
    finally:
        run = play()
    assert run.returncode == 0, run.excerpt
    (alert, *_more) = received(host, "CertificateExpires", "firing")
    assert alert["labels"]["instance"] == host.name
    assert "expires in 9d" in alert["annotations"]["summary"]
    wait_until(lambda: bool(received(host, "CertificateExpires", "resolved")), 120, "the end of the alert")
    assert not received(host, "CertificateExpiresSoon", "firing")


def test_a_backup_that_fails_is_reported_until_one_succeeds(host: LabHost):
    backup = "python3 /etc/slipway/slipway/backup/config/current/slipway_backup_host.py run"
    host.run("docker stop slipway-chroma")
    try:
        assert not host.succeeds(backup)
    finally:
        host.run("docker start slipway-chroma")
    wait_until(lambda: bool(received(host, "BackupFailed", "firing")), 90, "the alert")
    host.run(backup)
    wait_until(lambda: bool(received(host, "BackupFailed", "resolved")), 120, "the end of the alert")


def test_rules_that_promtool_refuses_replace_nothing(play: Play, host: LabHost, at_once: Path, tmp_path_factory: pytest.TempPathFactory):
    rules = tmp_path_factory.mktemp("rules") / "own.yml"
    rules.write_text("groups:\n  - name: own\n    rules:\n      - {alert: Bad, expr: 'up ==('}\n", encoding="utf-8")
    run = play(monitoring_rules_files=[str(at_once), str(rules)])
    assert run.returncode != 0
    assert "monitoring_rules_files" in run.output, run.excerpt
    assert not asked(host, "prometheus_config_last_reload_successful == 0")
    rules.write_text("groups:\n  - name: own\n    rules:\n      - {alert: Own, expr: vector(1)}\n", encoding="utf-8")
    run = play(monitoring_rules_files=[str(at_once), str(rules)])
    assert run.returncode == 0, run.excerpt
    wait_until(lambda: bool(asked(host, 'ALERTS{alertname="Own"}')), 60, "the rule of the user's own")


def test_its_memory_is_bounded(host: LabHost):
    names = "|".join(f"slipway-{name}" for name in ("prometheus", "alertmanager", "blackbox", "exporters"))
    (total,) = asked(host, f'sum(slipway_container_memory_bytes{{container=~"{names}"}})')
    assert float(total["value"][1]) < 300 * 2**20


def test_no_secret_is_shown(host: LabHost):
    for service in ("exporters", "prometheus", "alertmanager"):
        container = host.service(service)
        text = json.dumps(container.inspect) + container.execute("cat", "/proc/1/environ")
        assert "Ck7pW2mRx9Tz4LqV8sNd" not in text
        assert "Wx3nB8vTq5Hs2KdM7jRf" not in text
        assert f":{RECEIVER_PORT}/" not in text
