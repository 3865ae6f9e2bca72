# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure deploys, no-ops, releases and backups, compared with docker compose, pg_dump and cp on the same services and data; and the mesh.

Times are medians of several runs, taken in turns, so that what else the machine does weighs on all alike. The controller's CPU time
(user and system, with that of its ssh processes) and the counts depend on it less: compare those on a busy machine. A bar that is
missed is reported, and does not fail the run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import backup
import edge
import mesh
import stack

from lab import REPOSITORY, TOOLS, BenchError, Lab, Sample, run

SITE, STATUS, DESTROY, DEPLOY, ROLLBACK = (f"playbooks/{name}.yml" for name in ("site", "status", "destroy", "deploy", "rollback"))
BARS = {"noop": {"one": 4.0, "cluster": 8.0}, "calls": 3, "first": 60.0, "edit": 8.0, "release": 30.0, "rollback": 5.0, "gap_ms": 250.0}
#: Of a no-op, as a multiple of a playbook that does nothing.
NOOP_RATIO = {"one": 3.5, "cluster": 6.0}
#: How much longer status.yml may take, in seconds, which looks at more.
STATUS_MORE = 2.0
#: What Prometheus, all that is with it, and the exporters of six hosts may take, with a sample every 15 s.
MONITORING = {"memory_mb": 512.0, "cores": 0.3}
#: Few and many app hosts, how many times as long a no-op may take on the many, and the processor time of a further host in seconds.
GROWTH = {"few": 5, "many": 20, "ratio": 3.0, "cpu_s": 0.5}
#: What is asked for through the balancer, the same of an nginx without tuning, and the least share of its requests a second.
EDGE = {"proxied": ("a page that is proxied", "proxied_untuned", 1.7), "file": ("a file", "file_bare", 0.8)}
#: How many times as long honest clients may wait, by p99, while hostile requests come.
HOSTILE_P99 = 2.0
BACKUP_BARS = {"throughput": 2.0, "fewer_percent": 10.0, "restore": 2.0, "growth_percent": 2.0}
#: What is measured of releases, from taking the lock until all balancers send their requests to the new slot.
RELEASES = {
    "release": "release whose images are there, to the switch",
    "rollback": "rollback to the kept slot, to the switch",
    "release_loaded": "release under load, to the switch",
    "rollback_loaded": "rollback under load, to the switch",
    "rollback_standby": "rollback to a slot that stands by, to the switch",
}
# Versions of the example; all are on the hosts when a release between them is measured.
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
MEGABYTE = 1024 * 1024


def say(text: str) -> None:
    """Report progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def figures(samples: list[Sample]) -> dict[str, Any]:
    """Return what several runs took, and the machine's load when they began."""
    seconds, cpu = [sample.seconds for sample in samples], [sample.cpu for sample in samples]
    return {
        "runs": len(samples),
        "median_s": round(statistics.median(seconds), 3),
        "min_s": round(min(seconds), 3),
        "max_s": round(max(seconds), 3),
        "cpu_s": round(statistics.median(cpu), 3),
        "load": round(statistics.median(sample.load for sample in samples), 1),
    }


def playbook_figures(samples: list[Sample]) -> dict[str, Any]:
    """Return what runs of a playbook took, how often they called their hosts, and where the time of the median run went."""
    middle = sorted(samples, key=lambda sample: sample.seconds)[len(samples) // 2]
    return figures(samples) | {
        "changed": max(len(sample.report["changed"]) for sample in samples),
        # The first run of a series opens connections; that is not another call.
        "ssh_a_host": max(max(sample.ssh.values()) for sample in samples),
        "ssh": middle.ssh,
        "remote_calls_a_host": max(max(sample.report["remote_calls"].values(), default=0) for sample in samples),
        "remote_calls": middle.report["remote_calls"],
        "roles": middle.report["roles"],
        "slowest_tasks": middle.report["slowest_tasks"],
    }


def empty_playbook(lab: Lab) -> Path:
    """Return a playbook that does nothing on the lab's hosts."""
    path = lab.scratch / "empty.yml"
    path.write_text("---\n- name: Do nothing\n  hosts: all:!localhost\n  gather_facts: false\n  tasks: []\n", encoding="utf-8")
    return path


def looked_at(lab: Lab) -> Sample:
    """Return a run of status.yml, which may find what needs attention, as a backup that was never made."""
    return lab.playbook(STATUS, highest=1)


class OneHost:
    """What is measured on a host that has the whole stack."""

    def __init__(self, lab: Lab) -> None:
        """Prepare for a lab that is up."""
        self.lab = lab
        self.host = lab.first
        self.stack = lab.variables[self.host]["slipway_stack"]
        self.settings = lab.inventory / "group_vars" / "all" / "bench.yml"

    # Compose

    def prepare_compose(self) -> None:
        """Write down what runs on the host, with a copy of its configuration, as a project of compose."""
        lab, host, folder = self.lab, self.host, stack.FOLDER
        lab.ssh(host, "docker compose version || { apt-get -qq update && apt-get -qq -y install --no-install-recommends docker-compose; }")
        ids = f"$(docker ps --quiet --filter label=slipway.stack={self.stack})"
        containers = json.loads(lab.read(host, f"docker inspect {ids}"))
        networks = json.loads(lab.read(host, f"docker network inspect $(docker network ls -q --filter label=slipway.stack={self.stack})"))
        root = f"/etc/slipway/{self.stack}"
        lab.ssh(host, f"rm -rf {folder} && mkdir -p -m 0711 {folder}{root} && cp -a {root}/. {folder}{root}/")
        # What the migration had is gone when it has ended: what the backend has, but for the login.
        secrets = f"{folder}/migrate"
        lab.ssh(host, f"cp -a {root}/backend-blue-1/secrets {secrets}")
        lab.write(host, f"{secrets}/DATABASE_URL", f"postgresql://app_owner:{lab.owner_password}@postgres:5432/app")
        migrate = lab.variables[host]["app_services"]["backend"]["migrate"]["command"]
        text = stack.compose_file(containers, networks, root=root, migrate=migrate, secrets=secrets)
        volumes = {mount["Name"]: mount["Source"] for item in containers for mount in item["Mounts"] if mount["Type"] == "volume"}
        owners = {name: lab.read(host, f"stat -c %u:%g {path}").strip() for name, path in volumes.items()}
        services = [item["Config"]["Labels"]["slipway.service"] for item in containers]
        lab.write(host, f"{folder}/compose.yaml", text)
        lab.write(host, f"{folder}/converge.sql", (REPOSITORY / "roles/postgres/files/converge.sql").read_text(encoding="utf-8"))
        lab.write(host, f"{folder}/first.sh", stack.first_deploy(services, owners))

    def compose_down(self) -> None:
        """Remove all that compose made, and keep the files."""
        volumes = f"docker volume ls --quiet | grep '^{stack.PROJECT}_' | xargs -r docker volume rm"
        self.lab.ssh(self.host, f"cd {stack.FOLDER} && docker compose --profile '*' down --timeout 10 && {volumes}")

    # Slipway

    def destroy(self) -> None:
        """Remove containers, networks, volumes and files; images stay."""
        volumes = self.lab.read(self.host, f"docker volume ls --quiet --filter label=slipway.stack={self.stack}").split()
        self.lab.playbook(DESTROY, "-e", f"slipway_destroy={self.stack}", "-e", json.dumps({"slipway_destroy_volumes": volumes}))
        left = self.lab.read(self.host, "docker ps -aq; docker volume ls -q").split()
        if left:
            say(f"still on the host after {DESTROY}: {', '.join(left)}")

    # Editing one setting

    def limit_is(self, megabytes: int) -> bool:
        """Return whether nginx refuses a body a little above a limit, by the length that a client announces."""
        url = urlsplit(self.lab.url)
        context = ssl.create_default_context(cafile=str(self.lab.inventory / "pki" / "ca.pem"))
        head = f"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {megabytes * MEGABYTE + 1}\r\n\r\n"
        try:
            with (
                socket.create_connection(("127.0.0.1", url.port or 443), timeout=1) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as line,
            ):
                line.settimeout(0.3)
                line.sendall(head.encode())
                return b" 413 " in line.recv(64)
        except OSError:
            return False

    def untouched(self) -> dict[str, str]:
        """Return what changes when anything but nginx's own configuration is touched."""
        shown = "{{.Name}} {{.Id}} {{.State.StartedAt}} {{.RestartCount}}"
        lines = self.lab.read(self.host, f"docker inspect --format '{shown}' $(docker ps --all --quiet)").splitlines()
        found = {line.split()[0]: line for line in lines}
        # Whatever a run does, it takes the fleet's lock and leaves its line in the history; and the watchdog writes by itself.
        pruned = " ".join(f"-path '*/{self.stack}/{part}' -prune -o" for part in ("nginx/*", "watchdog/state/*"))
        files = "-type f ! -name 'lock.json*' ! -name 'history.jsonl*' -printf '%p %i %T@ %C@\\n'"
        find = f"find /etc/slipway /etc/docker/daemon.json /etc/logrotate.d {pruned} {files}"
        return found | {line.split()[0]: line for line in self.lab.read(self.host, find).splitlines()}

    def edit(self, megabytes: int) -> dict[str, Any]:
        """Change a setting of nginx in the inventory, run site.yml, and watch as a client for when it holds."""
        before = self.untouched()
        if self.limit_is(megabytes):
            raise BenchError(f"bodies above {megabytes} MB are refused before the setting was made")
        self.settings.write_text(f"---\nnginx_client_max_body_size_mb: {megabytes}\n", encoding="utf-8")
        began, seen, ended = time.monotonic(), threading.Event(), threading.Event()
        moment: list[float] = []

        def watch() -> None:
            while not (seen.is_set() or ended.is_set()):
                if self.limit_is(megabytes):
                    moment.append(time.monotonic() - began)
                    seen.set()
                time.sleep(0.1)

        client = threading.Thread(target=watch)
        client.start()
        try:
            sample = self.lab.playbook(SITE)
            # The run ends when the last worker has read it; a client may be a moment behind.
            seen.wait(10)
        finally:
            ended.set()
            client.join()
        after = self.untouched()
        return {
            "sample": sample,
            "seen_s": moment[0] if moment else None,
            "changed": [entry["task"] for entry in sample.report["changed"]],
            "touched": sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)),
        }

    # Series

    def deploys(self, rounds: int, noops: int, measured: dict[str, Any]) -> None:
        """Add first deploys and runs with nothing to do, Slipway's and compose's in turns."""
        lab = self.lab
        made: dict[str, list[Sample]] = defaultdict(list)
        empty = empty_playbook(lab)
        self.prepare_compose()
        try:
            for number in range(1, rounds + 1):
                say(f"round {number} of {rounds}: compose")
                self.destroy()
                made["compose_first"].append(lab.ssh(self.host, f"sh {stack.FOLDER}/first.sh"))
                for _ in range(noops):
                    made["compose_noop"].append(lab.ssh(self.host, f"cd {stack.FOLDER} && docker compose up --detach"))
                self.compose_down()
                say(f"round {number} of {rounds}: site.yml")
                made["first"].append(lab.playbook(SITE))
                for _ in range(noops):
                    made["noop"].append(lab.playbook(SITE))
                    made["status"].append(looked_at(lab))
                    made["floor_playbook"].append(lab.playbook(str(empty)))
                    made["floor_ssh"].append(lab.ssh(self.host, "true"))
        finally:
            measured |= {
                name: playbook_figures(samples) if name in {"first", "noop"} else figures(samples) for name, samples in made.items()
            }

    def edits(self, count: int) -> dict[str, Any]:
        """Return how long a changed setting of nginx takes to reach clients, and what else was touched."""
        try:
            results = [self.edit(9 - number) for number in range(count)]
        finally:
            self.settings.unlink(missing_ok=True)
        seen = [Sample(result["seen_s"], result["sample"].cpu, result["sample"].load) for result in results if result["seen_s"]]
        if len(seen) < len(results):
            raise BenchError("a changed setting never reached a client")
        return figures(seen) | {
            "run_s": round(statistics.median(result["sample"].seconds for result in results), 3),
            "ssh_a_host": max(max(result["sample"].ssh.values()) for result in results),
            "remote_calls_a_host": max(max(result["sample"].report["remote_calls"].values()) for result in results),
            "changed": results[-1]["changed"],
            "touched": sorted({name for result in results for name in result["touched"]}),
            "compared": len(self.untouched()),
        }


def measure_one(lab: Lab, options: argparse.Namespace, measured: dict[str, Any]) -> None:
    """Add the figures of one host, as they come."""
    say("one host: deploying, with images")
    lab.playbook(SITE)
    bench = OneHost(lab)
    if options.rounds:
        bench.deploys(options.rounds, options.noops, measured)
    if options.requests:
        edge.measure(lab, options.requests, 5, measured, say)
    if options.hostile:
        say(f"one host: {options.hostile} hostile requests")
        measured["hostile"] = edge.measure_hostile(lab, options.hostile)
    if options.edits:
        say("one host: editing a setting")
        measured["edit"] = bench.edits(options.edits)


def measure_cluster(lab: Lab, options: argparse.Namespace, measured: dict[str, Any]) -> None:
    """Add the figures of six hosts."""
    say("six hosts: deploying, with images")
    first = lab.playbook(SITE)
    say("six hosts: nothing to do")
    empty = str(empty_playbook(lab))
    turns = [(lab.playbook(SITE), looked_at(lab), lab.playbook(empty)) for _ in range(max(1, options.rounds * options.noops))]
    sites, looks, floors = zip(*turns, strict=True)
    measured |= {
        "deploy_with_pulls": playbook_figures([first]),
        "noop": playbook_figures(list(sites)),
        "status": figures(list(looks)),
        "floor_playbook": figures(list(floors)),
        "floor_ssh": figures([lab.ssh(lab.first, "true") for _ in range(options.noops)]),
    }
    if options.releases:
        measured |= measure_releases(lab, options.releases)
    if options.monitored:
        measured["monitoring"] = measure_monitoring(lab, options.monitored)


def measure_monitoring(lab: Lab, seconds: int) -> dict[str, Any]:
    """Return what monitoring takes on all hosts, once it has run for so long; the stores are idle."""
    host = "backup1"
    group = {"all": {"children": {"monitoring": {"hosts": {host: {}}}}}}
    (lab.inventory / "monitoring.yml").write_text(json.dumps(group), encoding="utf-8")
    run([str(TOOLS / "ansible-playbook"), "-i", str(lab.inventory), "playbooks/secrets.yml"], environment=lab.environment)
    say("six hosts: deploying Prometheus and the exporters")
    lab.playbook(SITE)
    say(f"six hosts: what monitoring takes within {seconds} s")
    time.sleep(seconds)
    labels = 'service=~"exporters|prometheus|alertmanager|blackbox"'

    def asked(expression: str) -> dict[str, float]:
        query = f"curl -sSf --get http://127.0.0.1:9090/api/v1/query --data-urlencode {shlex.quote('query=' + expression)}"
        rows = json.loads(lab.read(host, query))["data"]["result"]
        return {f"{row['metric']['instance']} {row['metric']['service']}": float(row["value"][1]) for row in rows}

    memory = asked(f"slipway_container_memory_bytes{{{labels}}} / {MEGABYTE}")
    cores = asked(f"rate(slipway_container_cpu_seconds_total{{{labels}}}[{seconds // 2}s])")
    if not len(memory) == len(cores) == len(lab.hosts) + 3:
        raise BenchError(f"figures of {len(memory)} and {len(cores)} containers of monitoring, not of {len(lab.hosts) + 3}")
    each = {name: {"memory_mb": round(memory[name], 1), "cores": round(cores[name], 4)} for name in sorted(memory)}
    return {"memory_mb": round(sum(memory.values()), 1), "cores": round(sum(cores.values()), 3), "each": each}


def measure_growth(lab: Lab, options: argparse.Namespace, measured: dict[str, Any]) -> None:
    """Add the figures of runs with nothing to do on few and on many app hosts."""
    for name in ("few", "many"):
        count = int(GROWTH[name])
        say(f"{count} app hosts: deploying, with images")
        lab.up(count)
        lab.playbook(SITE)
        say(f"{count} app hosts: nothing to do")
        measured[name] = playbook_figures([lab.playbook(SITE) for _ in range(max(1, options.rounds * options.noops))])


def measure_backup(lab: Lab, options: argparse.Namespace, measured: dict[str, Any]) -> None:
    """Add the figures of backups and restores."""
    backup.measure(lab, options.megabytes, options.backups, measured, say)


def measure_mesh(lab: Lab, options: argparse.Namespace, measured: dict[str, Any]) -> None:
    """Add the figures of the encrypted network between hosts."""
    (lab.inventory / "group_vars" / "all" / "bench.yml").write_text("---\nslipway_mesh: true\n", encoding="utf-8")
    run([str(TOOLS / "ansible-playbook"), "-i", str(lab.inventory), "playbooks/secrets.yml"], environment=lab.environment)
    say("mesh: deploying, with images")
    lab.playbook(SITE)
    mesh.measure(lab, options.transfers, 256, measured, say)


def to_the_switch(samples: list[Sample]) -> dict[str, Any]:
    """Return what releases took from taking the lock until all balancers sent their requests to the new slot, and what clients lost."""
    made = []
    for sample in samples:
        steps = sample.report["steps"]
        until = list(steps)[: list(steps).index("switch") + 1]
        made.append(Sample(sum(steps[step] for step in until), sample.cpu, sample.load))
    probers = [sample.report["prober"] for sample in samples]
    return figures(made) | {
        "run_s": round(statistics.median(sample.seconds for sample in samples), 3),
        "steps": samples[-1].report["steps"],
        "requests": sum(prober["requests"] for prober in probers),
        "failed": sum(prober["failed"] for prober in probers),
        "longest_gap_ms": max(prober["longest_gap_ms"] for prober in probers),
        "reasons": reasons(failure for prober in probers for failure in prober["failures"]),
    }


def reasons(failures: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Return how many of the failures that were kept, the first 50 of a client, had which reason."""
    return dict(Counter(f"{failure['kind']} {failure['request']}: {failure['reason']}".strip() for failure in failures))


@contextlib.contextmanager
def load(lab: Lab) -> Iterator[dict[str, Any]]:
    """Have the load generator ask for what the tests ask for; what they counted is in the mapping when they have ended."""
    file, found = lab.scratch / "load.json", {}
    command = ["tests/load/load.py", "@tests/load/support_desk.txt", "--target", urlsplit(lab.url).netloc.replace("localhost", "127.0.0.1")]
    # Ends by itself, should the benchmark be killed.
    command += ["--ca-file", str(lab.inventory / "pki" / "ca.pem"), "--seconds", "1800", "--result-file", str(file)]
    clients = subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        # Connections are opened, and the first requests answered.
        time.sleep(5)
        yield found
    finally:
        clients.terminate()
        clients.wait(60)
    found |= json.loads(file.read_text(encoding="utf-8"))


def measure_releases(lab: Lab, rounds: int) -> dict[str, Any]:
    """Return the figures of releases and rollbacks on two app hosts, all of whose images are there: alone, and under load."""
    for version in (VERSIONS[2], VERSIONS[1]):
        images = [f"support-desk/{tier}:{version}" for tier in ("backend", "frontend")]
        run(["lab/images", *images], environment={"DEMO_VERSION": version})
        lab.playbook(DEPLOY, "-e", f"app_version={version}")
    measured = release_series(lab, rounds, "alone")
    with load(lab) as clients:
        under_load = release_series(lab, rounds, "under load")
    counted = {key: clients[key] for key in ("requests", "failed", "longest_gap_ms", "websockets_cut", "websockets_closed", "seconds")}
    counted["reasons"] = reasons(clients["failures"])
    standby = release_series(lab, rounds, "the version before stands by", "-e", json.dumps({"app_standby": True}))
    return (
        measured
        | {f"{name}_loaded": made | {"clients": counted} for name, made in under_load.items()}
        | {"rollback_standby": standby["rollback"]}
    )


def release_series(lab: Lab, rounds: int, how: str, *settings: str) -> dict[str, Any]:
    """Return the figures of several releases, each with its rollback."""
    deploys, rollbacks = [], []
    for number in range(rounds):
        say(f"two app hosts: release and rollback, {how}, {number + 1} of {rounds}")
        # The idle slot holds what the round before went back from: its containers are recreated for a third version.
        deploys.append(lab.playbook(DEPLOY, "-e", f"app_version={VERSIONS[number % 2 * 2]}", *settings))
        if settings:
            # What stands by boots first.
            time.sleep(15)
        rollbacks.append(lab.playbook(ROLLBACK, *settings))
    return {"release": to_the_switch(deploys), "rollback": to_the_switch(rollbacks)}


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each bar that was measured, and whether it is met."""
    bars: list[dict[str, Any]] = []

    def add(what: str, value: float, bar: float, unit: str) -> None:
        bars.append({"what": what, "value": value, "bar": bar, "unit": unit, "met": value <= bar})

    for topology, hosts in (("one", "one host"), ("cluster", "six hosts")):
        if not (noop := results.get(topology, {}).get("noop")):
            continue
        add(f"no-op site.yml, {hosts}", noop["median_s"], BARS["noop"][topology], "s")
        if empty := results[topology].get("floor_playbook"):
            ratio = round(noop["median_s"] / empty["median_s"], 2)
            add(f"no-op site.yml, {hosts}, as a multiple of an empty playbook", ratio, NOOP_RATIO[topology], "x")
        add(f"remote calls a host, no-op, {hosts}", max(noop["ssh_a_host"], noop["remote_calls_a_host"]), BARS["calls"], "")
        add(f"changes of a no-op, {hosts}", noop["changed"], 0, "")
        if status := results[topology].get("status"):
            add(f"status.yml, {hosts}, beyond a no-op", round(status["median_s"] - noop["median_s"], 2), STATUS_MORE, "s")
    cluster = results.get("cluster", {})
    for name, text in RELEASES.items():
        if name in cluster:
            add(f"{text}, two app hosts", cluster[name]["median_s"], BARS[name.partition("_")[0]], "s")
            add(f"failed requests of {cluster[name]['requests']} of the prober in that", cluster[name]["failed"], 0, "")
            add("longest gap between two of its answers", cluster[name]["longest_gap_ms"], BARS["gap_ms"], "ms")
    if clients := cluster.get("release_loaded", {}).get("clients"):
        add(f"failed requests of {clients['requests']} of the load", clients["failed"], 0, "")
        add("its WebSockets that were cut", clients["websockets_cut"], 0, "")
        add("longest gap between two of its answers", clients["longest_gap_ms"], BARS["gap_ms"], "ms")
    if monitoring := cluster.get("monitoring"):
        add("memory of monitoring, six hosts", monitoring["memory_mb"], MONITORING["memory_mb"], "MB")
        add("cores that it uses", monitoring["cores"], MONITORING["cores"], "")
    return bars + judge_one(results.get("one", {})) + judge_growth(results.get("growth", {})) + judge_backup(results.get("backup", {}))


def judge_one(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the bars of one host that were measured, but for those of a no-op."""
    bars: list[dict[str, Any]] = []

    def add(what: str, value: float, bar: float, unit: str) -> None:
        bars.append({"what": what, "value": value, "bar": bar, "unit": unit, "met": value <= bar})

    if "first" in measured:
        add("first deploy, images present, one host", measured["first"]["median_s"], BARS["first"], "s")
    if "edge" in measured:
        for ours, (text, theirs, bar) in EDGE.items():
            ratio = round(measured["edge"][ours] / measured["edge"][theirs], 2)
            bars.append({"what": f"requests/s for {text}, untuned nginx: 1", "value": ratio, "bar": bar, "unit": "x", "met": ratio >= bar})
    if "hostile" in measured:
        honest = measured["hostile"]
        add("p99 of honest clients while hostile requests come, as a multiple of that before", honest["p99_ratio"], HOSTILE_P99, "x")
        add(f"failed requests of {honest['requests']} of theirs", honest["failed"], 0, "")
    if "edit" in measured:
        add("a changed nginx setting reaches clients", measured["edit"]["median_s"], BARS["edit"], "s")
        add("other things touched by that", len(measured["edit"]["touched"]), 0, "")
    return bars


def judge_growth(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the bars of many app hosts, where they were measured."""
    if "many" not in measured:
        return []
    few, many = measured["few"], measured["many"]
    hosts = f"{GROWTH['many']} app hosts"
    further = (many["cpu_s"] - few["cpu_s"]) / (GROWTH["many"] - GROWTH["few"])
    values = [
        (f"no-op site.yml, {hosts}, as a multiple of {GROWTH['few']}", many["median_s"] / few["median_s"], GROWTH["ratio"], "x"),
        ("processor time of a further app host", further, GROWTH["cpu_s"], "s"),
        (f"remote calls a host, no-op, {hosts}", max(many["ssh_a_host"], many["remote_calls_a_host"]), BARS["calls"], ""),
        (f"changes of a no-op, {hosts}", many["changed"], 0, ""),
    ]
    return [{"what": what, "value": round(value, 2), "bar": bar, "unit": unit, "met": value <= bar} for what, value, bar, unit in values]


def judge_backup(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the bars of backups that were measured."""
    bars: list[dict[str, Any]] = []

    def add(what: str, value: float, bar: float, unit: str, met: bool) -> None:
        bars.append({"what": what, "value": round(value, 2), "bar": bar, "unit": unit, "met": met})

    if "throughput" in measured:
        took = measured["throughput"]
        ratio, bar = took["dump_s"] / took["point_s"], BACKUP_BARS["throughput"]
        add("throughput of a full backup, as a multiple of pg_dump | gzip", ratio, bar, "x", ratio >= bar)
    if "growth" in measured:
        share, bar = 100 * measured["growth"]["added_bytes"] / measured["data"]["database_bytes"], BACKUP_BARS["growth_percent"]
        add("what an unchanged second backup adds off-site", share, bar, "%", share <= bar)
    if "restore" in measured:
        ratio, bar = measured["restore"]["restore_s"] / measured["restore"]["copy_s"], BACKUP_BARS["restore"]
        add("restore, as a multiple of copying the files", ratio, bar, "x", ratio <= bar)
    if "while_busy" in measured:
        fewer, bar = measured["while_busy"]["fewer_percent"], BACKUP_BARS["fewer_percent"]
        add("fewer transactions/s while a backup runs", fewer, bar, "%", fewer <= bar)
    return bars


def ratios(results: dict[str, Any]) -> dict[str, float]:
    """Return our times as multiples of compose's and of the floor's."""
    one = results.get("one", {})
    if "noop" not in one:
        return {}
    pairs = {
        "no-op site.yml / ssh host docker compose up -d": ("noop", "compose_noop"),
        "no-op site.yml / empty playbook": ("noop", "floor_playbook"),
        "first deploy / the same by docker compose": ("first", "compose_first"),
    }
    return {text: round(one[ours]["median_s"] / one[theirs]["median_s"], 2) for text, (ours, theirs) in pairs.items()}


def row(name: str, found: dict[str, Any]) -> str:
    """Return the figures of several runs as a line for a person."""
    counts = f"{found['ssh_a_host']:>6}{found['remote_calls_a_host']:>7}" if "ssh_a_host" in found else ""
    times = f"{found['median_s']:>9.2f}{found['min_s']:>9.2f}{found['max_s']:>9.2f}{found['cpu_s']:>8.2f}{found['load']:>7.1f}"
    return f"  {name:52}{times}{counts}"


def table(results: dict[str, Any]) -> list[str]:
    """Return all figures as lines for a person."""
    names = {
        "noop": "no-op site.yml",
        "status": "status.yml",
        "compose_noop": "no-op: ssh host docker compose up -d",
        "floor_playbook": "an empty playbook",
        "floor_ssh": "ssh host true",
        "first": "first deploy: site.yml",
        "compose_first": "first deploy: docker compose up -d --wait",
        "edit": "an nginx setting reaches clients",
        "deploy_with_pulls": "deploy, with pulls where needed",
    } | RELEASES
    head = f"{'':54}{'median':>9}{'min':>9}{'max':>9}{'CPU':>8}{'load':>7}{'ssh':>6}{'calls':>7}"
    lines = []
    for topology, title in (("one", "One host"), ("cluster", "Six hosts")):
        if topology not in results:
            continue
        lines += ["", title, head]
        for key, name in names.items():
            if key in results[topology]:
                lines.append(row(name, results[topology][key]))
        if not (noop := results[topology].get("noop")):
            continue
        shares = ", ".join(f"{role} {seconds:.2f}" for role, seconds in list(noop["roles"].items())[:7])
        lines += [f"  Where a no-op's time goes, by role (s): {shares}"]
        lines += [f"    {entry['seconds']:6.2f}  {entry['role']}: {entry['task']}" for entry in noop["slowest_tasks"][:5]]
    if growth := results.get("growth"):
        lines += ["", "A balancer, a host of the stores, and app hosts", head]
        lines += [row(f"no-op site.yml, {GROWTH[name]} app hosts", growth[name]) for name in ("few", "many") if name in growth]
    if measured := results.get("one", {}).get("edge"):
        lines += ["", "Requests/s through the balancer, and those of an nginx without tuning on the same host"]
        lines += [f"  {measured[ours]:8.1f} and {measured[theirs]:.1f}: {text}" for ours, (text, theirs, _bar) in EDGE.items()]
    if found := results.get("one", {}).get("hostile"):
        lines += ["", f"Honest clients: p99 of {found['p99_before_ms']:.1f} ms, and {found['p99_ms']:.1f} ms while hostile requests come"]
    if found := results.get("cluster", {}).get("monitoring"):
        lines += ["", f"Monitoring of six hosts: {found['memory_mb']:.0f} MB and {found['cores']:.3f} cores"]
        lines += [f"  {taken['memory_mb']:8.1f} MB {taken['cores']:8.4f} cores  {name}" for name, taken in found["each"].items()]
    lines += backup_table(results.get("backup", {}))
    lines += mesh_table(results.get("mesh", {}))
    lines += ["", "Ratios", *(f"  {value:8.2f}  {text}" for text, value in results["ratios"].items())]
    if touched := results.get("one", {}).get("edit", {}).get("touched"):
        lines += ["", f"The changed setting touched: {', '.join(touched)}"]
    lines += lost(results.get("cluster", {}))
    lines += ["", "Bars"]
    for bar in results["bars"]:
        lines.append(f"  {'met   ' if bar['met'] else 'MISSED'} {bar['value']:8.2f} of {bar['bar']:g} {bar['unit']:2} {bar['what']}")
    return lines


def lost(measured: dict[str, Any]) -> list[str]:
    """Return why requests failed while releases were measured, as lines for a person; none where none did."""
    found: Counter[str] = Counter()
    clients = [measured[name] for name in RELEASES if name in measured]
    for counted in [*clients, measured.get("release_loaded", {}).get("clients", {})]:
        found.update(counted.get("reasons", {}))
    return ["", "Why requests failed", *(f"  {count:>8}  {reason}" for reason, count in found.most_common())] if found else []


def backup_table(measured: dict[str, Any]) -> list[str]:
    """Return the figures of backups as lines for a person."""
    if "data" not in measured:
        return []
    lines = ["", f"Backups of {measured['data']['database_bytes'] / MEGABYTE:.0f} MB"]
    if "throughput" in measured:
        took = measured["throughput"]
        lines += [
            f"  {took['dump_s']:8.2f} s  pg_dump | gzip, {took['dump_bytes'] / MEGABYTE:.0f} MB",
            f"  {took['point_s']:8.2f} s  a full recovery point of all stores, of that the base backup {took['base_s']:.2f} s",
            f"  {took['run_s']:8.2f} s  the whole run, with its copy off-site",
        ]
    if "growth" in measured:
        grown = measured["growth"]
        lines.append(f"  {grown['seconds']:8.2f} s  a second run, unchanged: {grown['added_bytes'] / MEGABYTE:.2f} MB more off-site")
    if "restore" in measured:
        took = measured["restore"]
        lines += [
            f"  {took['copy_s']:8.2f} s  copying the files",
            f"  {took['restore_s']:8.2f} s  restoring the point, until the server has served",
        ]
    if "while_busy" in measured:
        found = measured["while_busy"]
        lines.append(f"  {found['tps_without']:8.1f} transactions/s, and {found['tps_with']:.1f} while a full backup runs")
    return lines


def mesh_table(measured: dict[str, Any]) -> list[str]:
    """Return the figures of the mesh as lines for a person."""
    if "kernel" not in measured:
        return []
    names = {"mesh": f"through the mesh ({'WireGuard of the kernel' if measured['kernel'] else 'wireguard-go'})", "outside": "without it"}
    lines = ["", "TCP from an app host to that of the database, throughput and round trip"]
    return lines + [f"  {measured[way]['mb_s']:8.1f} MB/s {measured[way]['round_trip_ms']:8.3f} ms  {name}" for way, name in names.items()]


def write(results: dict[str, Any]) -> Path:
    """Write the report; a reader sees the old or the new one."""
    path = REPOSITORY / "reports" / "bench-latest.json"
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    new.replace(path)
    return path


#: What can be measured alone, the lab's topology for it and the end of the lab's name, and the function that does.
PARTS = (
    ("one", "one", "", measure_one),
    ("cluster", "cluster", "c", measure_cluster),
    ("growth", "fleet", "g", measure_growth),
    ("backup", "one", "b", measure_backup),
    ("mesh", "fleet", "m", measure_mesh),
)


def main() -> int:
    """Measure, report, and leave no lab behind that was not there before."""
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--part", choices=[name for name, *_ in PARTS], action="append", help="measure this alone, several if given again; all by default"
    )
    parser.add_argument("--lab", default="bench", help="name of the lab of one host; others have a letter behind it")
    parser.add_argument("--rounds", type=int, default=3, help="first deploys, each with as many no-ops as --noops says; 0 for none")
    parser.add_argument("--noops", type=int, default=3, help="runs with nothing to do in each round")
    parser.add_argument("--requests", type=int, default=3, help="rounds of requests through the balancer; 0 for none")
    parser.add_argument("--hostile", type=int, default=10_000, help="hostile requests to the balancer; 0 for none")
    parser.add_argument("--edits", type=int, default=3, help="changes of a setting, at most 8; 0 for none")
    parser.add_argument("--releases", type=int, default=3, help="releases and rollbacks on six hosts; 0 for none")
    parser.add_argument("--monitored", type=int, default=300, help="seconds for which six hosts are monitored, at least 120; 0 for none")
    parser.add_argument("--backups", type=int, default=3, help="rounds of full backups, restores, and backups while the database is busy")
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the table that is backed up")
    parser.add_argument("--transfers", type=int, default=5, help="rounds of transfers between two hosts, through the mesh and outside")
    parser.add_argument("--keep", action="store_true", help="leave the labs running")
    options = parser.parse_args()
    results: dict[str, Any] = {
        "schema_version": 1,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout.strip(),
        "cpus": os.cpu_count(),
    }
    failed = False
    for part, topology, suffix, measure in PARTS:
        if options.part and part not in options.part:
            continue
        lab = Lab(options.lab + suffix, topology)
        try:
            say(f"bringing up the lab {lab.name}")
            lab.up()
            measure(lab, options, results.setdefault(part, {}))
        except BenchError as error:
            # What was measured before it is worth a table all the same.
            say(str(error))
            failed = True
        finally:
            if not options.keep:
                lab.down()
            shutil.rmtree(lab.scratch, ignore_errors=True)
    results |= {"bars": judge(results), "ratios": ratios(results)}
    path = write(results)
    print("\n".join([*table(results), "", f"Report: {path.relative_to(REPOSITORY)}"]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
