"""What tests of a lab share: its hosts over SSH, the containers that run there, and runs of our playbooks against it.

A pytest plugin, loaded with `-p slipway_lab`. The lab is the one that the environment variable LAB names.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import testinfra
import yaml

pytest_plugins = ["slipway_lanes"]
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# A fleet's controller is another machine. A lab's shares the processors with all the hosts, which may be one control group and then get as
# much as a single process of it: a release under load would measure that. So it gives way.
PLAYBOOK = ("nice", "-n", "15", str(BIN / "ansible-playbook"))
NETWORK = "slipway-lab"
STORES = {"postgres": 5432, "redis": 6379, "chroma": 8000}
# Lab hosts are containers on the machine that runs the tests; only a reboot and a stranger need to know.
STRANGER_IMAGE = "python:3.13-slim"
# What the timers of jobs call on app hosts.
JOBS_PROGRAM = "python3 /etc/slipway/slipway/jobs/config/current/slipway_jobs.py"
# How the application logs in, inside the container of PostgreSQL.
APP = "host=127.0.0.1 passfile=/run/secrets/pgpass user=app dbname=app"


def operators_environment() -> dict[str, str]:
    """Return the environment of an operator's shell: with the repository's ansible.cfg and reports, not with Molecule's."""
    not_theirs = ("ANSIBLE_", "MOLECULE_", "SLIPWAY_REPORTS_")
    return {key: value for key, value in os.environ.items() if not key.startswith(not_theirs)} | {"ANSIBLE_NOCOLOR": "1"}


def programs_of(name: str) -> Path:
    """Return the folder of the programs of requirements/<name>.txt, which have an environment of their own."""
    made, lock = ROOT / ".lab" / name, ROOT / f"requirements/{name}.txt"
    stamp = made / "slipway.lock"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", "--clear", made], check=True)
        install = ["install", "--quiet", "--disable-pip-version-check", "--no-compile", "--require-hashes", "--requirement", lock]
        subprocess.run([made / "bin/python", "-m", "pip", *install], check=True)
        stamp.write_bytes(lock.read_bytes())
    return made / "bin"


@dataclass
class Run:
    """What a playbook's run ended with."""

    returncode: int
    output: str
    report: dict[str, Any]

    @property
    def changed(self) -> list[str]:
        """Return `host: task` of all that changed, or would."""
        return [f"{item['host']}: {item['task']}" for item in self.report.get("changed", [])]

    @property
    def excerpt(self) -> str:
        """Return what an assertion shows: what has failed comes first, as the end of a long text is what gets lost."""
        failed = [f"{item['host']}: {item['task']}: {item['message']}" for item in self.report.get("failed", [])]
        return "\n".join([*failed, self.output[-6000:]])


class LabHost:
    """A host of the lab, as root over SSH."""

    def __init__(self, lab: Lab, name: str, variables: dict[str, Any]) -> None:
        self.lab, self.name, self.port, self.address = lab, name, int(variables["ansible_port"]), str(variables["slipway_address"])
        self._options = [
            "-o", f"UserKnownHostsFile={lab.state / 'known_hosts'}",
            "-o", "StrictHostKeyChecking=yes",
            "-o", "IdentitiesOnly=yes",
            "-o", "LogLevel=ERROR",
            "-o", "ControlMaster=auto",
            "-o", "ControlPersist=60s",
            "-o", f"ControlPath={lab.sockets}/%C",
            "-o", "ServerAliveInterval=5",
        ]  # fmt: skip
        self.testinfra = testinfra.get_host(
            f"ssh://ops@127.0.0.1:{self.port}",
            ssh_identity_file=str(lab.state / "id_ed25519"),
            ssh_extra_args=shlex.join(self._options),
            sudo=True,
        )

    def __repr__(self) -> str:
        return self.name

    def run(self, command: str, check: bool = True) -> str:
        """Return the output of a shell command; it must succeed unless ``check`` is false."""
        # Files that a test makes are often for containers; those that a run makes get the umask of the host, which is 077.
        result = self.testinfra.run(f"umask 022; {command}")
        output = result.stdout + result.stderr
        assert result.rc == 0 or not check, f"{self.name}: {command}\nended with {result.rc}:\n{output}"
        return output

    def ssh(self, *options: str) -> list[str]:
        """Return the command that connects to this host; the first value of an option wins."""
        return ["ssh", *options, *self._options, "-i", str(self.lab.state / "id_ed25519"), "-p", str(self.port), "ops@127.0.0.1"]

    def succeeds(self, command: str) -> bool:
        return bool(self.testinfra.run(command).rc == 0)

    def python(self, program: str, **values: Any) -> Any:
        """Run a program that prints JSON. Its text and values go over standard input, where no process list shows them."""
        given = f"import json\nV = json.loads({json.dumps(json.dumps(values))})\n"
        result = subprocess.run(
            [*self.ssh(), "sudo python3 -"],
            input=given + program, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert result.returncode == 0, f"{self.name}: {result.stderr}"
        return json.loads(result.stdout)

    def containers(self) -> list[Container]:
        """Return all containers of the stack on this host, as they are now."""
        done = self.testinfra.run("docker ps --all --quiet --filter label=slipway.stack | xargs --no-run-if-empty docker inspect")
        # One that a drill throws away may be gone by the time it is looked at.
        unexpected = [line for line in done.stderr.splitlines() if line.strip() and "No such object" not in line]
        assert not unexpected, f"{self.name}: {unexpected}"
        return [Container(self, item) for item in json.loads(done.stdout or "[]")]

    def service(self, service: str) -> Container:
        """Return the container of a service, as it is now."""
        found = [container for container in self.containers() if container.service == service]
        assert len(found) == 1, f"{self.name} has {len(found)} containers of {service}"
        return found[0]

    def need(self, *packages: str) -> None:
        """Have packages of the distribution installed that a test uses, and that no deployment needs."""
        missing = [name for name in packages if not self.succeeds(f"dpkg-query --status {name}")]
        if missing:
            install = f"apt-get -qq install --no-install-recommends --yes {shlex.join(missing)}"
            self.run(f"export DEBIAN_FRONTEND=noninteractive; {install} || {{ apt-get -qq update && {install}; }}")

    def can_connect(self, address: str, port: int, pid: int | None = None) -> bool:
        """Try a TCP connection from the host, or from inside the network of a process."""
        inside = f"nsenter --target {pid} --net " if pid else ""
        program = f"import socket; socket.create_connection(({address!r}, {port}), 2).close()"
        return self.succeeds(f"{inside}python3 -c {shlex.quote(program)}")

    def wait_for_backups(self) -> str:
        """Wait for the end of the scheduled run, and its drill, that the timer or a restore has begun; return systemd's word for it."""
        state = "systemctl show --property ActiveState --value slipway-slipway-backup.service"
        wait_until(lambda: self.run(state).strip() in {"inactive", "failed"}, 300, "that run has ended")
        return self.run(state).strip()

    def reboot(self) -> None:
        subprocess.run(["docker", "restart", "--time", "60", f"{self.lab.name}-{self.name}"], check=True, capture_output=True)
        wait_until(self._answers, 90, f"{self.name} answers after its reboot")

    @contextlib.contextmanager
    def unreachable(self) -> Iterator[None]:
        """Refuse SSH for a while, on connections that are open, too."""

        def refuse(action: str) -> None:
            rule = ["INPUT", "--protocol", "tcp", "--dport", "22", "--jump", "REJECT", "--reject-with", "tcp-reset"]
            command = ["docker", "exec", f"{self.lab.name}-{self.name}", "iptables", "--wait", "5", action, *rule]
            subprocess.run(command, check=True, capture_output=True)

        refuse("--insert")
        try:
            yield
        finally:
            refuse("--delete")

    def _answers(self) -> bool:
        try:
            return self.succeeds("docker info")
        except RuntimeError:
            return False


@dataclass
class Container:
    """A container of the stack."""

    host: LabHost
    inspect: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.inspect["Name"]).lstrip("/")

    @property
    def service(self) -> str:
        return str(self.inspect["Config"]["Labels"]["slipway.service"])

    @property
    def owner(self) -> str:
        return str(self.inspect["Config"]["Labels"].get("slipway.owner", ""))

    @property
    def kind(self) -> str:
        """The service without its slot and number."""
        return self.service.partition("-")[0]

    @property
    def slot(self) -> str:
        """The slot of a release, for containers of the product."""
        return str(self.inspect["Config"]["Labels"].get("slipway.slot", ""))

    @property
    def running(self) -> bool:
        return bool(self.inspect["State"]["Running"])

    @property
    def of_job(self) -> bool:
        """Whether it is a job's: created and never started, for the job's runs to be copies of it, or such a copy."""
        return "slipway.job" in self.inspect["Config"]["Labels"]

    @property
    def pid(self) -> int:
        return int(self.inspect["State"]["Pid"])

    @property
    def health(self) -> str:
        return str(self.inspect["State"].get("Health", {}).get("Status", "none"))

    @property
    def networks(self) -> dict[str, str]:
        """Addresses by network."""
        return {name: network["IPAddress"] for name, network in self.inspect["NetworkSettings"]["Networks"].items()}

    def execute(self, *command: str, check: bool = True) -> str:
        return self.host.run(f"docker exec {self.name} {shlex.join(command)}", check)


class Lab:
    """A lab: its hosts, their groups, and the front door on this machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inventory = ROOT / "inventories" / name
        self.state = ROOT / ".lab" / name
        self.sockets = tempfile.mkdtemp(prefix="slipway-")
        self.reports = Path(self.sockets) / "reports"
        content = yaml.safe_load((self.inventory / "hosts.yml").read_text(encoding="utf-8"))["all"]["children"]
        self.hosts = {host: LabHost(self, host, variables) for host, variables in content["lab_hosts"]["hosts"].items()}
        self.groups = {group: [self.hosts[host] for host in content[group]["hosts"]] for group in content if group != "lab_hosts"}
        variables = yaml.safe_load((self.inventory / "group_vars/all/lab.yml").read_text(encoding="utf-8"))
        self.url = str(variables["slipway_public_url"])
        self.https_port = int(self.url.rpartition(":")[2])
        self.http_port = int(os.environ.get("LAB_HTTP_PORT", "8080"))
        self.ca = self.inventory / "pki/ca.pem"

    @property
    def balancer(self) -> LabHost:
        return self.groups["balancers"][0]

    def containers(self) -> list[Container]:
        return [container for host in self.hosts.values() for container in host.containers()]

    def service(self, service: str) -> Container:
        """Return the one container of a service, wherever it runs."""
        found = [container for container in self.containers() if container.service == service]
        assert len(found) == 1, f"{len(found)} containers of {service}"
        return found[0]

    def in_product(self, command: str) -> str:
        """Return what a command of a shell prints in a backend that serves, as its user."""
        backend = next(container for container in self.containers() if container.kind == "backend" and container.running)
        return backend.execute("sh", "-c", command).strip()

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.tls(), timeout=20, trust_env=False, **options)

    @functools.cached_property
    def secrets(self) -> dict[str, str]:
        """The values of the lab's vault."""
        return self.secrets_of(self.inventory)

    def secrets_of(self, inventory: Path) -> dict[str, str]:
        """Return the values of an environment's vault."""
        path = inventory / "group_vars/all/vault.yml"
        text = self._command(str(BIN / "ansible-vault"), "view", str(path)).stdout
        values = yaml.safe_load(text)
        assert values, f"{path} holds no secret"
        return {name: str(value) for name, value in values.items()}

    def encrypt(self, path: Path) -> None:
        """Encrypt a file of an environment as its vault is."""
        done = self._command(str(BIN / "ansible-vault"), "encrypt", str(path))
        assert done.returncode == 0, done.stderr

    def _command(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**operators_environment(), "SLIPWAY_REPORTS_DIR": str(self.reports), **environment},
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip

    def playbook(
        self,
        playbook: str,
        *arguments: str,
        variables: dict[str, Any] | None = None,
        inventory: Path | None = None,
        roles: Path | None = None,
    ) -> Run:
        """Run one of Slipway's playbooks, with further roles from a folder; variables go in a file, as their values may be secret."""
        report = self.reports / f"{playbook}-latest.json"
        report.unlink(missing_ok=True)
        extra: list[str] = []
        if variables:
            path = Path(self.sockets) / "variables.json"
            path.write_text(json.dumps(variables), encoding="utf-8")
            path.chmod(0o600)
            extra = ["--extra-vars", f"@{path}"]
        environment = {"ANSIBLE_ROLES_PATH": str(roles)} if roles else {}
        inventories = ["-i", str(inventory or self.inventory)]
        done = self._command(*PLAYBOOK, f"playbooks/{playbook}.yml", *inventories, *arguments, *extra, **environment)
        written = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
        return Run(done.returncode, done.stdout + done.stderr, written)

    def site(self, *arguments: str, **options: Any) -> Run:
        """Run site.yml, which must succeed."""
        run = self.playbook("site", *arguments, **options)
        assert run.returncode == 0, run.excerpt
        return run

    def destroy(self, volumes: Sequence[str] = ()) -> None:
        """Take the stack off the hosts, and these volumes with it."""
        run = self.playbook("destroy", variables={"slipway_destroy": "slipway", "slipway_destroy_volumes": list(volumes)})
        assert run.returncode == 0, run.excerpt

    def wait_until_healthy(self, seconds: float = 180) -> None:
        def sick() -> list[str]:
            # What a drill throws away is none of the product's.
            found = [item for item in self.containers() if not item.owner.startswith("backup-") and not item.of_job]
            live = {item.slot for item in found if item.kind == "backend" and item.running}
            # Those of the slot before a release are retired: stopped, and meant to be.
            expected = [item for item in found if item.kind not in {"backend", "worker"} or not live or item.slot in live]
            return [f"{item.host}: {item.name} is {item.health}" for item in expected if item.health != "healthy"]

        deadline = time.monotonic() + seconds
        while (found := sick()) and time.monotonic() < deadline:
            time.sleep(1)
        assert not found, f"after {seconds} s: {', '.join(found)}"


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something holds.

    Raises:
        AssertionError: it does not within these seconds.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.5)


def sql(postgres: Container, statement: str, connection: str = "dbname=app", check: bool = True) -> str:
    """Return what PostgreSQL answers, to its superuser by default."""
    return postgres.execute("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", connection, "-c", statement, check=check).strip()


def access_log(lab: Lab) -> str:
    """Return nginx' access log as it stands."""
    path = lab.balancer.run("docker volume inspect --format '{{.Mountpoint}}' nginx_logs").strip()
    return lab.balancer.run(f"cat {path}/access.log")


def logged(lab: Lab, marker: str) -> list[str]:
    """Return the lines of the access log about requests with this marker in their address, once there are some."""
    wait_until(lambda: marker in access_log(lab), 10, f"{marker} is in the access log")
    return [line for line in access_log(lab).splitlines() if marker in line]


class Stranger:
    """A machine on the lab's network that the lab's inventory does not name."""

    def __init__(self, lab: Lab, name: str = "stranger") -> None:
        self.name = f"{lab.name}-{name}"
        self._docker("rm", "--force", self.name)
        # With the lab's label, so that lab/down removes it if the tests are killed.
        started = self._docker(
            "run", "--detach", "--rm", "--name", self.name, "--network", NETWORK, "--label", f"slipway.lab.name={lab.name}",
            STRANGER_IMAGE, "sleep", "3600",
        )  # fmt: skip
        assert started.returncode == 0, started.stderr
        self.address = self._docker(
            "inspect", "--format", '{{(index .NetworkSettings.Networks "' + NETWORK + '").IPAddress}}', self.name
        ).stdout.strip()

    @staticmethod
    def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=120)

    def run(self, program: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program there."""
        return self._docker("exec", self.name, "python3", "-c", program)

    def can_connect(self, address: str, port: int) -> bool:
        return self.run(f"import socket; socket.create_connection(({address!r}, {port}), 2).close()").returncode == 0

    def remove(self) -> None:
        self._docker("rm", "--force", self.name)


@functools.cache
def the_lab() -> Lab:
    return Lab(os.environ["LAB"])


@pytest.fixture(scope="session")
def lab() -> Lab:
    return the_lab()


@pytest.fixture(scope="session")
def stranger(lab: Lab) -> Iterator[Stranger]:
    made = Stranger(lab)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def client(lab: Lab) -> Iterator[httpx.Client]:
    with lab.client() as made:
        yield made


@pytest.fixture(scope="session")
def page_assets(client: httpx.Client) -> list[str]:
    """Paths of the scripts and styles that the page names."""
    text = client.get("/").text
    found = [part.partition('"')[0] for part in text.split('="')[1:] if part.startswith("/assets/")]
    assert found, f"the page names no assets:\n{text}"
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for a container every one of the stack's, on whatever host: a new service cannot forget one.

    One that asks for a server gets those that run all the time.
    """
    for argument in {"container", "server"} & set(metafunc.fixturenames):
        found = [item for item in the_lab().containers() if argument == "container" or not item.of_job]
        assert found, "no container of the stack runs anywhere in the lab"
        metafunc.parametrize(argument, found, ids=[f"{item.host}-{item.service}" for item in found])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:  # noqa: ARG001 - the hook's signature
    """Show the containers' last log lines with a failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        names = "docker ps --all --filter label=slipway.stack --format '{{.Names}}'"
        show = f'{names} | while read -r name; do echo "== $name: $(docker ps -a -f "name=^$name$" --format "{{{{.Status}}}}")"; '
        show += 'docker logs --tail 6 "$name" 2>&1; done'
        for host in the_lab().hosts.values():
            try:
                report.sections.append((f"containers of {host}", host.run(show, check=False)))
            except (RuntimeError, OSError) as error:
                report.sections.append((f"containers of {host}", f"cannot be read: {error}"))
