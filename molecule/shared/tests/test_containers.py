"""What holds for every container of a stack. There is no list of services here, so that none can be forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from slipway_lab import STORES, Container, Lab, wait_until

# On hosts that share the tiers these hold as on one that has all of them.
pytestmark = pytest.mark.extended("cluster", scenario="cluster")
# Capabilities that a service keeps, each with its reason. None does.
CAPABILITIES: dict[str, int] = {}
DRIFT = "/etc/slipway/slipway/watchdog/state/drift.prom"
STATUS = r"""
import os, subprocess
pids = subprocess.run(["docker", "top", V["container"], "-o", "pid"], capture_output=True, text=True, check=True).stdout.split()[1:]
found = {}
for pid in pids:
    try:
        lines = open(f"/proc/{pid}/status").read().splitlines()
    except FileNotFoundError:
        continue
    found[pid] = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
print(json.dumps(found))
"""


def test_every_service_runs(lab: Lab):
    kinds = {group: {container.kind for host in hosts for container in host.containers()} for group, hosts in lab.groups.items()}
    expected = {
        "balancers": {"nginx"},
        "app": {"backend", "worker", "prune", "frontend"},
        "postgres": {"postgres"},
        "redis": {"redis"},
        "chroma": {"chroma"},
    }
    expected["backup"] = {"backup"}
    assert not {group: names - kinds[group] for group, names in expected.items() if names - kinds[group]}


def test_container_is_healthy_and_was_never_restarted(server: Container):
    assert server.inspect["State"]["Status"] == "running"
    assert server.health == "healthy", server.inspect["State"].get("Health")
    assert server.inspect["RestartCount"] == 0


def test_processes_have_no_privileges(server: Container):
    processes = server.host.python(STATUS, container=server.name)
    assert str(server.pid) in processes
    for pid, status in processes.items():
        who = f"process {pid} ({status['Name']}) of {server.name}"
        assert all(int(uid) != 0 for uid in status["Uid"].split()), f"{who} runs as root"
        assert status["NoNewPrivs"] == "1", f"{who} may gain privileges"
        assert status["Seccomp"] == "2", f"{who} may make any system call"
        for kind in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
            assert int(status[kind], 16) == CAPABILITIES.get(server.kind, 0), f"{who} has {kind} {status[kind]}"


def test_root_file_system_is_read_only(container: Container):
    assert container.inspect["HostConfig"]["ReadonlyRootfs"] is True
    if container.of_job:
        return
    # As root of the machine, inside: what even a process that broke out of its user cannot change.
    said = container.host.run(f"nsenter --target {container.pid} --mount --root touch /slipway-probe", check=False)
    assert "Read-only file system" in said, said


def test_resources_are_limited(container: Container):
    limits = container.inspect["HostConfig"]
    memory = int(container.host.run("awk '/^MemTotal/ {print $2 * 1024}' /proc/meminfo | xargs printf %.0f"))
    assert 0 < limits["Memory"] <= memory
    assert limits["MemorySwap"] == limits["Memory"], "swap lets it use more than its share"
    assert limits["NanoCpus"] > 0
    assert 0 < limits["PidsLimit"] <= 2048


def test_limits_are_the_kernels(server: Container):
    read = f"""
import glob, os
groups = dict(line.rstrip().split(":", 2)[1:] for line in open("/proc/{server.pid}/cgroup"))
def value(controller, v1, v2):
    path = "/sys/fs/cgroup" + (groups[""] + "/" + v2 if "" in groups and os.path.exists("/sys/fs/cgroup/cgroup.controllers")
                               else "/" + controller + groups[controller] + "/" + v1)
    return open(path).read().strip()
print(json.dumps([value("memory", "memory.limit_in_bytes", "memory.max"), value("pids", "pids.max", "pids.max")]))
"""
    limits = server.inspect["HostConfig"]
    assert server.host.python(read) == [str(limits["Memory"]), str(limits["PidsLimit"])]


def test_logs_are_bounded(container: Container):
    log = container.inspect["HostConfig"]["LogConfig"]
    assert log["Type"] in {"json-file", "local"}
    assert log["Config"].get("max-size")
    assert int(log["Config"].get("max-file", 0)) >= 1


def test_container_comes_back_and_stops_in_its_own_time(container: Container):
    assert container.inspect["HostConfig"]["RestartPolicy"]["Name"] == ("no" if container.of_job else "unless-stopped")
    # The engine's ten seconds kill a database in its checkpoint.
    least = 60 if container.kind in {"postgres", "redis"} else 10
    assert (container.inspect["Config"].get("StopTimeout") or 0) >= least


def test_health_check_is_there_and_asks_often_enough(server: Container):
    check = server.inspect["Config"]["Healthcheck"]
    assert check["Test"][0] in {"CMD", "CMD-SHELL"}
    assert len(check["Test"]) > 1
    assert 0 < check["Interval"] <= 60e9
    assert 0 < check["Timeout"] <= check["Interval"]


def test_container_is_alone_in_its_namespaces(container: Container):
    host = container.inspect["HostConfig"]
    assert host["Privileged"] is False
    assert not host["CapAdd"]
    assert not host["Devices"]
    assert host["PidMode"] == ""
    assert host["IpcMode"] in {"private", "none"}
    assert host["UTSMode"] == ""
    assert host["NetworkMode"] not in {"host", "default", "bridge"}


def test_mounts_are_folders_and_volumes_of_the_stack(container: Container):
    expected: dict[str, Any] = {"/etc/slipway": ("bind", False), "/run/secrets": ("bind", False)}
    stack = container.inspect["Config"]["Labels"]["slipway.stack"]
    for mount in container.inspect["Mounts"]:
        kind, writable = expected.get(mount["Destination"], ("volume", True))
        where = f"{container.name}: {mount['Source']} at {mount['Destination']}"
        assert (mount["Type"], mount["RW"]) == (kind, writable), where
        assert not mount["Source"].endswith(".sock"), f"{where} is a socket"
        if kind == "bind":
            # A folder: a single file goes stale when it is replaced.
            assert mount["Source"].startswith(f"/etc/slipway/{stack}/{container.service}/"), where
            assert container.host.succeeds(f"test -d {mount['Source']}"), where
        else:
            assert len(mount["Name"]) < 64, f"{where} has no name, and would be lost with its container"
    for path, options in (container.inspect["HostConfig"]["Tmpfs"] or {}).items():
        assert {"noexec", "nosuid", "nodev"} <= set(options.split(",")), f"{path} of {container.name}"
        assert "size=" in options, f"{path} of {container.name} may fill the memory"


def test_secrets_are_readable_by_their_user_only(server: Container):
    user = server.host.run(f"awk '/^Uid/ {{print $2}}' /proc/{server.pid}/status").strip()
    stack = server.inspect["Config"]["Labels"]["slipway.stack"]
    folder = f"/etc/slipway/{stack}/{server.service}/secrets"
    if not any(mount["Destination"] == "/run/secrets" for mount in server.inspect["Mounts"]):
        assert not server.host.succeeds(f"test -e {folder}")
        return
    listed = server.host.run(f"stat -c '%a %u' {folder}; stat -c '%a %u' {folder}/*").splitlines()
    assert listed[0] == f"500 {user}"
    assert set(listed[1:]) == {f"400 {user}"}


def test_networks_are_those_of_its_neighbours(container: Container, lab: Lab):
    stack = container.inspect["Config"]["Labels"]["slipway.stack"]
    tiers = {
        "nginx": {"frontend", "backend"},
        "frontend": {"frontend"},
        "backend": {"backend", "database"},
        "worker": {"backend", "database"},
        "prune": {"backend", "database"},
        "backup": {"backup"} | ({"database"} if len(lab.hosts) == 1 else set()),
        **{store: {"database"} | ({"peers"} if len(lab.hosts) > 1 else set()) for store in STORES},
    }
    assert set(container.networks) == {f"{stack}-{name}" for name in tiers[container.kind]}


def test_stores_have_no_outbound_access(server: Container):
    if server.kind not in STORES:
        pytest.skip("products may call other services")
    registry = server.host.run("getent hosts registry | awk '{print $1}'").strip()
    assert server.host.can_connect(registry, 5000), "the host itself reaches the lab's registry"
    assert not server.host.can_connect(registry, 5000, pid=server.pid)


def test_published_ports_are_those_of_the_inventory(container: Container, lab: Lab):
    bindings = {
        (binding["HostIp"], int(binding["HostPort"]))
        for published in (container.inspect["HostConfig"]["PortBindings"] or {}).values()
        for binding in published
    }
    if container.kind == "nginx":
        assert bindings == {("0.0.0.0", 80), ("0.0.0.0", 443)}
    elif len(lab.hosts) == 1 or container.kind in {"backup", "worker", "prune"}:
        assert bindings == set()
    else:
        assert len(bindings) == 1
        assert {address for address, _ in bindings} == {container.host.address}


def test_volumes_are_labelled_and_named(lab: Lab):
    for group, volumes in {
        "postgres": ["postgres_data"],
        "redis": ["redis_data"],
        "chroma": ["chroma_data"],
        "balancers": ["nginx_logs"],
        "backup": ["backup_data"],
    }.items():
        for host in lab.groups[group]:
            for volume in volumes:
                label = host.run(f"docker volume inspect --format '{{{{index .Labels \"slipway.stack\"}}}}' {volume}").strip()
                assert label == "slipway"


def test_no_host_measures_drift(lab: Lab):
    wait_until(lambda: all(host.succeeds(f"test -s {DRIFT}") for host in lab.hosts.values()), 60, "a pass of each watchdog")
    for host in lab.hosts.values():
        samples = [line for line in host.run(f"cat {DRIFT}").splitlines() if not line.startswith("#")]
        assert any('what="configuration"' in line for line in samples)
        assert any('what="container"' in line for line in samples)
        assert [line for line in samples if not line.endswith(" 0")] == []
