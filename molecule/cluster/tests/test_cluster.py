"""What only a fleet can show: spread requests, events that cross hosts, and ports that are open to peers alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import websockets
from slipway_lab import Container, Lab, Stranger, wait_until
from slipway_release import Load


def backends(lab: Lab) -> list[Container]:
    return [container for container in lab.containers() if container.kind == "backend"]


def test_each_tier_is_on_its_host(lab: Lab):
    kinds = {name: {container.kind for container in host.containers()} for name, host in lab.hosts.items()}
    assert kinds == {
        "lb1": {"nginx"},
        "app1": {"backend", "worker", "prune", "frontend"},
        "app2": {"backend", "worker", "prune", "frontend"},
        "db1": {"postgres"},
        "cache1": {"redis", "chroma"},
        "backup1": {"backup"},
    }


def test_requests_are_spread_over_both_app_hosts(lab: Lab, client: httpx.Client):
    instances = {client.get("/api/version").json()["instance"] for _ in range(20)}
    assert instances == {container.inspect["Config"]["Hostname"] for container in backends(lab)}
    assert len(instances) == 2


def test_an_event_of_one_app_host_reaches_clients_of_the_other(lab: Lab, client: httpx.Client):
    session = client.post("/api/sessions", json={}).json()["id"]

    async def line_to(instance: str | None) -> tuple[Any, str]:
        """Connect until another instance than this one answers."""
        for _ in range(20):
            line = await websockets.connect(f"wss://localhost:{lab.https_port}/ws", ssl=lab.tls(), origin=lab.url, proxy=None)
            hello = json.loads(await line.recv())
            if hello["instance"] != instance:
                return line, hello["instance"]
            await line.close()
        pytest.fail(f"twenty connections all went to {instance}")

    async def until(line: Any, kind: str) -> dict[str, Any]:
        while (event := json.loads(await line.recv()))["type"] != kind:
            assert event["type"] != "error", event
        return event

    async def scenario() -> tuple[dict[str, Any], str, str]:
        asking, one = await line_to(None)
        watching, other = await line_to(one)
        await watching.send(json.dumps({"type": "join", "session_id": session}))
        await until(watching, "joined")
        await asking.send(json.dumps({"type": "ask", "session_id": session, "content": "How do I invite a colleague?"}))
        event = await until(watching, "answer")
        await asking.close()
        await watching.close()
        return event, one, other

    event, one, other = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert one != other
    assert event["message"]["instance"] == one
    assert event["message"]["content"]


def test_ports_of_the_application_admit_the_balancer_only(lab: Lab, stranger: Stranger):
    for container in lab.containers():
        if container.kind not in {"backend", "frontend"}:
            continue
        binding = next(iter(container.inspect["HostConfig"]["PortBindings"].values()))[0]
        address, port = container.host.address, int(binding["HostPort"])
        assert lab.hosts["lb1"].can_connect(address, port), f"{container.name} on {container.host}"
        for name in ("db1", "cache1", "backup1"):
            assert not lab.hosts[name].can_connect(address, port), f"{name} reaches {container.name} on {container.host}"
        assert not stranger.can_connect(address, port)


def test_nothing_is_open_that_is_not_declared(lab: Lab):
    run = lab.playbook("exposure")
    assert run.returncode == 0, run.excerpt
    assert (run.report["exposure"], run.changed) == ([], [])
    assert run.report["exposure_unknown"] == [], "all reach all addresses"
    assert set(run.report["remote_calls"].values()) == {2}


def test_a_port_that_was_opened_by_hand_is_found_with_its_process(lab: Lab):
    host = lab.hosts["cache1"]
    host.run("systemd-run --collect --unit=open-port python3 -m http.server 9000")
    wait_until(lambda: lab.hosts["db1"].can_connect(host.address, 9000), 10, "the port is open")
    try:
        run = lab.playbook("exposure")
    finally:
        host.run("systemctl stop open-port")
    assert run.returncode == 1, run.excerpt
    (problem,) = run.report["exposure"]
    assert (problem["host"], problem["protocol"], problem["port"], problem["owner"]) == ("cache1", "tcp", 9000, "process python3")
    assert set(problem["sources"]) == {"the controller", *lab.hosts} - {"cache1"}
    assert "add {port: 9000} to slipway_open_ports" in run.output


def test_app_hosts_answer_alone(lab: Lab, client: httpx.Client):
    """One app host is stopped: the other one answers all."""
    running = [container for container in lab.hosts["app1"].containers() if container.running]
    for container in running:
        container.host.run(f"docker stop {container.name}")
    try:
        answers = [client.get("/api/version") for _ in range(20)]
        pages = [client.get("/") for _ in range(10)]
    finally:
        for container in running:
            container.host.run(f"docker start {container.name}")
    assert {answer.status_code for answer in answers + pages} == {200}
    assert len({answer.json()["instance"] for answer in answers}) == 1
    lab.wait_until_healthy(120)


@pytest.mark.extended("cluster")
@pytest.mark.parametrize("count", [1, 2])
def test_backends_that_hang_are_replaced_by_their_hosts(lab: Lab, load: Callable[..., Load], count: int):
    """The other host answers all the time; where both hang, each of them helps itself."""
    before = backends(lab)
    hung = before[:count]
    arguments = [
        "--rate",
        "10",
        "--http2-share",
        "0",
        "--timeout-seconds",
        "5",
        "--path",
        "/api/version",
        "--version-json-field",
        "instance",
    ]
    clients = load(arguments=arguments, websockets=0)

    def answers() -> dict[str, int]:
        return {instance: counts["answers"] for instance, counts in clients.numbers().get("versions", {}).items()}

    wait_until(lambda: len(answers()) == 2, 30, "both hosts answer")
    started = {container.host.name: container.inspect["State"]["StartedAt"] for container in hung}
    for container in hung:
        container.host.run(f"kill -STOP {container.pid}")

    def replaced() -> bool:
        now = {container.host.name: container for container in backends(lab)}
        return all(now[name].inspect["State"]["StartedAt"] != at and now[name].health == "healthy" for name, at in started.items())

    wait_until(replaced, 100, "what hangs is replaced")
    gap = clients.numbers()["longest_gap_ms"]
    assert gap < (3000 if count == 1 else 100_000)
    # Those that were sent to what hung have been given up by then.
    time.sleep(6)
    failed, answered = clients.numbers()["failed"], answers()
    wait_until(lambda: all(answers()[name] >= seen + 10 for name, seen in answered.items()), 30, "both hosts answer again")
    assert clients.end()["failed"] == failed
    lines = [json.loads(container.host.run("tail -n 1 /etc/slipway/slipway/release/restarts.jsonl")) for container in hung]
    assert [(line["playbook"], line["version"], line["result"]) for line in lines] == [
        ("watchdog", container.name, "restarted") for container in hung
    ]
    lab.wait_until_healthy(120)


@pytest.mark.extended("cluster")
def test_doors_stay_shut_after_an_engine_restart(lab: Lab, stranger: Stranger):
    """Containers live on, and so must the rules: a stranger tries all the time."""
    host = lab.hosts["db1"]
    host.run("systemd-run --collect --unit=restart-engine systemctl restart docker")
    while host.run("systemctl is-active restart-engine || true").strip() == "active":
        assert not stranger.can_connect(host.address, 5432)
    lab.wait_until_healthy(180)
    assert lab.hosts["app1"].can_connect(host.address, 5432)
    assert not lab.hosts["lb1"].can_connect(host.address, 5432)
    assert not stranger.can_connect(host.address, 5432)
    assert lab.site().changed == []


@pytest.mark.extended("cluster")
@pytest.mark.parametrize(
    "change",
    [
        "iptables -F DOCKER-USER",
        "iptables -F SLIPWAY-slipway",
        "iptables -I DOCKER-USER -p tcp -j ACCEPT",
        "systemctl stop slipway-slipway-firewall.service && iptables -F DOCKER-USER",
    ],
)
def test_doors_that_a_change_of_rules_opens_are_shut_again(lab: Lab, stranger: Stranger, change: str):
    """As a reload of ufw or firewalld may, and without a run."""
    host = lab.hosts["db1"]
    host.run(change)
    try:
        wait_until(lambda: not stranger.can_connect(host.address, 5432), 30, "the port is closed")
        assert lab.hosts["app1"].can_connect(host.address, 5432)
        assert lab.site().changed == []
    finally:
        host.run("iptables -D DOCKER-USER -p tcp -j ACCEPT || true")


@pytest.mark.extended("cluster")
def test_doors_that_the_next_boot_would_open_are_a_difference(lab: Lab, stranger: Stranger):
    host = lab.hosts["db1"]
    host.run("systemctl disable slipway-slipway-firewall.service")
    host.run("sed -i '/5432/d' /etc/slipway/slipway/firewall.rules")
    assert not stranger.can_connect(host.address, 5432)
    assert {change.partition(":")[0] for change in lab.site().changed} == {"db1"}
    host.run("systemctl is-enabled slipway-slipway-firewall.service")
    assert "5432" in host.run("cat /etc/slipway/slipway/firewall.rules")
    assert not stranger.can_connect(host.address, 5432)
    assert lab.site().changed == []
