# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab to measure on: its hosts, its runs of playbooks, and what each run cost."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import socket
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = REPOSITORY / ".venv" / "bin"
# A fleet's controller is another machine. Here it shares the processors with all the hosts, which may be one control group and then get as
# much as a single process of it. So it gives way.
PLAYBOOK = ("nice", "-n", "15", str(TOOLS / "ansible-playbook"))


class BenchError(Exception):
    """Something that is needed to measure failed; the message says what."""


@dataclass
class Sample:
    """One run: how long it took, and what it cost the controller."""

    seconds: float
    cpu: float
    load: float
    ssh: dict[str, int] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str], *, environment: dict[str, str] | None = None, log: Path | None = None, highest: int = 0) -> Sample:
    """Run a program to its end.

    Raises:
        BenchError: It failed, with an exit status above the highest; the message holds the end of its output.
    """
    before, load, began = resource.getrusage(resource.RUSAGE_CHILDREN), os.getloadavg()[0], time.monotonic()
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | (environment or {}), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if log:
        log.write_text(done.stdout, encoding="utf-8")
    if not 0 <= done.returncode <= highest:
        raise BenchError(f"{shlex.join(command)} ended with status {done.returncode}:\n{done.stdout[-4000:]}")
    return Sample(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, load)


class Lab:
    """A lab of one topology, made by lab/up where it is not there yet."""

    def __init__(self, name: str, topology: str) -> None:
        """Describe the lab; nothing is made before ``up``."""
        self.name, self.topology = name, topology
        self.existed = bool(self._containers())
        self.inventory = REPOSITORY / "inventories" / name
        self.scratch = Path(tempfile.mkdtemp(prefix="slipway-bench-"))
        self.reports = self.scratch / "reports"
        self.calls = self.scratch / "calls"
        self.environment = {
            "ANSIBLE_FORCE_COLOR": "0",
            "SLIPWAY_REPORTS_DIR": str(self.reports),
            # Connections of its own: the first run opens them, and the later ones find them open, as an operator's do.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.scratch / "cp"),
        }
        for program in ("ssh", "sftp", "scp"):
            path = self.scratch / program
            path.write_text(f'#!/bin/sh\necho "{program} $*" >>{self.calls}\nexec {program} "$@"\n', encoding="utf-8")
            path.chmod(0o755)
            self.environment[f"ANSIBLE_{program.upper()}_EXECUTABLE"] = str(path)

    def _containers(self) -> list[str]:
        """Return the names of the lab's hosts that are there."""
        command = ["docker", "ps", "--quiet", "--filter", f"label=slipway.lab.name={self.name}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    def up(self, app_hosts: int = 2) -> None:
        """Bring the hosts up and write their secrets; again, with more app hosts, it adds those."""
        ports = {} if self._containers() else {"LAB_HTTPS_PORT": str(free_port()), "LAB_HTTP_PORT": str(free_port())}
        sizes = {"TOPOLOGY": self.topology, "LAB_APP_HOSTS": str(app_hosts), "LAB_SSH_BASE": "2401"}
        run(["lab/up"], environment={"LAB": self.name, **sizes, **ports})
        run([str(TOOLS / "ansible-playbook"), "-i", str(self.inventory), "playbooks/secrets.yml"], environment=self.environment)
        listed = subprocess.run(
            [str(TOOLS / "ansible-inventory"), "-i", str(self.inventory), "--list"], cwd=REPOSITORY, capture_output=True, check=True
        )
        self.variables: dict[str, dict[str, Any]] = json.loads(listed.stdout)["_meta"]["hostvars"]
        self.hosts = {host: values["ansible_port"] for host, values in self.variables.items() if "ansible_port" in values}
        self.first = next(iter(self.hosts))
        self.url = str(self.variables[self.first]["slipway_public_url"])
        self.owner_password = str(self.variables[self.first]["vault_postgres_owner_password"])

    def down(self) -> None:
        """Remove the lab, if it was made here."""
        for host in getattr(self, "hosts", {}):
            subprocess.run(self._ssh(host, "-O", "exit"), capture_output=True, check=False)
        if not self.existed:
            run(["lab/down"], environment={"LAB": self.name})

    def _ssh(self, host: str, *options: str) -> list[str]:
        """Return an ssh command for a host, over the same kept-open kind of connection as Ansible's."""
        state = REPOSITORY / ".lab" / self.name
        return [
            "ssh", "-C", "-o", "ControlMaster=auto", "-o", "ControlPersist=10m", "-o", f"ControlPath={self.scratch}/c-%C",
            "-o", f"UserKnownHostsFile={state / 'known_hosts'}", "-o", "IdentitiesOnly=yes", "-i", str(state / "id_ed25519"),
            "-p", str(self.hosts[host]), *options, "ops@127.0.0.1",
        ]  # fmt: skip

    def ssh(self, host: str, script: str) -> Sample:
        """Run a script on a host as root, and say how long it took."""
        return run([*self._ssh(host), f"sudo sh -c {shlex.quote(script)}"])

    def read(self, host: str, script: str) -> str:
        """Return what a script prints on a host, as root."""
        done = subprocess.run([*self._ssh(host), f"sudo sh -c {shlex.quote(script)}"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{host}: {script}\n{done.stderr}")
        return done.stdout

    def start(self, host: str, script: str) -> subprocess.Popen[str]:
        """Start a script on a host, as root; what it prints can be read as it comes."""
        command = [*self._ssh(host), f"sudo sh -c {shlex.quote(script)}"]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def write(self, host: str, path: str, text: str) -> None:
        """Write a file on a host, for root alone."""
        script = f"umask 077 && cat >{shlex.quote(path)}"
        subprocess.run([*self._ssh(host), f"sudo sh -c {shlex.quote(script)}"], input=text, text=True, check=True)

    def playbook(self, path: str, *arguments: str, highest: int = 0) -> Sample:
        """Run a playbook against the lab; counts what it did by itself, apart from the playbook's own report."""
        self.calls.unlink(missing_ok=True)
        name = Path(path).stem
        report = self.reports / f"{name}-latest.json"
        report.unlink(missing_ok=True)
        sample = run(
            [*PLAYBOOK, "-i", str(self.inventory), path, *arguments],
            environment=self.environment, log=self.scratch / f"{name}.log", highest=highest,
        )  # fmt: skip
        if report.exists():
            sample.report = json.loads(report.read_text(encoding="utf-8"))
        elif Path(path).parent == Path("playbooks"):
            said = (self.scratch / f"{name}.log").read_text(encoding="utf-8")
            raise BenchError(f"{path} left no report:\n{said[-2000:]}")
        sample.ssh = self.counted()
        return sample

    def counted(self) -> dict[str, int]:
        """Return how often ssh, sftp and scp were started for each host."""
        lines = self.calls.read_text(encoding="utf-8").splitlines() if self.calls.exists() else []
        ports = [match.group(1) for line in lines if (match := re.search(r"\bPort=(\d+)", line))]
        counts = Counter(ports)
        return {host: counts.get(str(port), 0) for host, port in self.hosts.items()}
