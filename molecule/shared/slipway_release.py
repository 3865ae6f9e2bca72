"""What tests of releases share: a fleet that is released to, runs that are killed in the middle, and what must hold after each.

A pytest plugin next to slipway_lab, loaded by the tests that need it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from slipway_lab import BIN, PLAYBOOK, ROOT, Lab, LabHost, Run, operators_environment, wait_until

#: Versions of the support desk, and of a small product that starts at once.
PRODUCT, SMALL = ("1.0.0", "2.0.0"), ("3.0.0", "4.0.0")
#: Nothing is under load where this is used, so nothing has to be drained.
QUICK: dict[str, Any] = {"release_settle_seconds": 1, "release_probe_seconds": 1}
FOLDER = "/etc/slipway/slipway/release"
#: What both products consist of, and whether it runs in the slot that serves: of a job's container, its runs are copies.
SERVICES = {"backend": True, "worker": True, "prune": False, "frontend": True}
#: The steps of a release, as it prints them, in their order; the canary is asked for.
STEPS = ("lock", "preflight", "pull", "migrate", "start", "gate", "canary", "switch", "probe", "record", "retire")


class RunningPlaybook:
    """A playbook that runs in a process group of its own, and what it has printed up to now."""

    def __init__(self, lab: Lab, playbook: str, version: str = "", *, inventories: Sequence[Path] = (), **variables: Any) -> None:
        self.report = Path(tempfile.mkdtemp(dir=lab.sockets)) / f"{playbook}-latest.json"
        extra = [f"app_version={version}"] if version else []
        extra += [json.dumps(variables)] if variables else []
        self.process = subprocess.Popen(
            [*PLAYBOOK, f"playbooks/{playbook}.yml"]
            + [part for path in (lab.inventory, *inventories) for part in ("-i", str(path))]
            + [part for item in extra for part in ("--extra-vars", item)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**operators_environment(), "SLIPWAY_REPORTS_DIR": str(self.report.parent)},
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, line: str, seconds: float = 300, times: int = 1) -> None:
        """Wait until it has printed this line, or heading without its asterisks, so many times."""
        deadline = time.monotonic() + seconds
        while sum(printed.rstrip(" *") == line for printed in self.lines) < times:
            ended = self.process.poll() is not None and not self._reader.is_alive()
            assert not ended, f"ended without {line!r}:\n{self.output[-6000:]}"
            if time.monotonic() > deadline:
                # The next test has the fleet for itself.
                self.kill()
                pytest.fail(f"not within {seconds} s: {line!r}\n{self.output[-6000:]}")
            time.sleep(0.01)

    def kill(self) -> None:
        """End it as a power cut does: all of its processes, without a word."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        self._reader.join(30)

    def end(self, seconds: float = 300) -> Run:
        """Wait for its end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"has not ended within {seconds} s:\n{self.output[-6000:]}")
        self._reader.join(30)
        report = json.loads(self.report.read_text(encoding="utf-8")) if self.report.exists() else {}
        return Run(self.process.returncode, self.output, report)


class Fleet:
    """The app hosts and balancers of a lab, and what a release leaves on them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.app: list[LabHost] = lab.groups["app"]
        #: Inventories that add to the lab's.
        self.inventories: list[Path] = []
        self.members = list({host.name: host for host in self.app + lab.groups["balancers"]}.values())

    def start(self, playbook: str, version: str = "", **variables: Any) -> RunningPlaybook:
        return RunningPlaybook(self.lab, playbook, version, inventories=self.inventories, **variables)

    def deploy(self, version: str, **variables: Any) -> Run:
        """Release a version, which must succeed."""
        run = self.start("deploy", version, **variables).end()
        assert run.returncode == 0, run.excerpt
        return run

    def rollback(self, version: str = "", **variables: Any) -> Run:
        """Go back, which must succeed."""
        run = self.start("rollback", version, **variables).end()
        assert run.returncode == 0, run.excerpt
        return run

    def refused(self, version: str, playbook: str = "deploy", **variables: Any) -> Run:
        """Release a version, which must fail."""
        run = self.start(playbook, version, **variables).end()
        assert run.returncode != 0, run.excerpt
        return run

    def records(self) -> list[dict[str, Any]]:
        """Return what each host has noted."""
        return [json.loads(host.run(f"cat {FOLDER}/state.json")) for host in self.members]

    @property
    def version(self) -> str:
        return str(self.records()[0]["version"])

    def other(self, pair: tuple[str, str] = SMALL) -> str:
        """Return a version of the pair that does not serve now."""
        return pair[1] if self.version == pair[0] else pair[0]

    def begin_small(self) -> None:
        """Have one version of the small product serve, and the other kept for a rollback."""
        record = self.records()[0]
        previous = record["previous"] or {}
        kept = f"backend-{previous.get('slot')}-1"
        if {record["version"], previous.get("version")} == set(SMALL) and all(
            kept in {container.service for container in host.containers()} for host in self.app
        ):
            return
        for version in SMALL:
            self.check(version, self.deploy(version, **QUICK))

    def check(self, version: str, run: Run | None = None, standby: bool = False) -> None:
        """Check what holds after each run, whatever became of it.

        All hosts serve this version, which the report names; of the other slot nothing runs that a release does not keep, its backends
        only where they stand by; no run holds the lock; no prober is left.
        """
        if run is not None:
            assert run.report["version"] == version, json.dumps(run.report, indent=1)[:3000]
        records = self.records()
        assert all(record == records[0] for record in records), records
        record = records[0]
        assert record["version"] == version, record
        with self.lab.client() as client:
            answers = [client.get("/api/version") for _ in range(12)]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["version"] for answer in answers} == {version}
        live, previous = record["slot"], record["previous"] or {}
        for host in self.app:
            found = {
                container.service: (container.inspect["Config"]["Labels"]["slipway.version"], container.inspect["State"]["Running"])
                for container in host.containers()
                if container.kind in SERVICES
            }
            expected = {f"{service}-{live}-1": (version, runs) for service, runs in SERVICES.items()}
            # Pages are kept for those that are open; of two generations of workers one runs, whatever stands by.
            still_runs = {**SERVICES, "backend": standby, "worker": False}
            kept = {f"{service}-{previous['slot']}-1": (previous["version"], still_runs[service]) for service in SERVICES if previous}
            assert expected.items() <= found.items(), f"{host}: {found}, recorded: {record}"
            # What was kept of the slot before is gone where a release into that slot came to replace it.
            assert found.items() <= {**expected, **kept}.items(), f"{host}: {found}, recorded: {record}"
        for host in self.members:
            assert not host.succeeds(f"test -e {FOLDER}/lock.json"), f"{host}: {host.run(f'cat {FOLDER}/lock.json')}"
        wait_until(lambda: not probers(), 10, "no prober is left")


def probers() -> list[str]:
    """Return the probers of releases that run on this machine for this lab's runs."""
    listed = subprocess.run(["ps", "axeww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "-m slipway_prober " in line and f"PYTHONPATH={ROOT}/" in line]


class Load:
    """The load generator, each of whose requests and connections counts; they end by themselves."""

    def __init__(self, lab: Lab, inventory: Path, arguments: Sequence[str], websockets: int) -> None:
        """Start it, and wait until it has so many WebSockets; the inventory is that of the private CA."""
        self._file = Path(tempfile.mkdtemp(dir=lab.sockets)) / "load.json"
        self._process = subprocess.Popen(
            [str(BIN / "python"), "tests/load/load.py", *arguments, "--target", f"127.0.0.1:{lab.https_port}",
             "--ca-file", str(inventory / "pki/ca.pem"), "--seconds", "900", "--result-file", str(self._file)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_until(lambda: self.numbers().get("websockets") == websockets, 30, f"the load has its {websockets} WebSockets")

    def numbers(self) -> dict[str, Any]:
        """Return what it has counted up to now."""
        assert self._process.poll() is None or self._process.returncode == 0, self._process.stderr
        try:
            found: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def end(self) -> dict[str, Any]:
        """End it in order and return what it has counted."""
        assert self._process.poll() is None, "the load ended before what was to be measured"
        self._process.terminate()
        _, said = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, said
        return self.numbers()


@pytest.fixture(scope="session")
def fleet(lab: Lab) -> Fleet:
    return Fleet(lab)


@pytest.fixture
def load(lab: Lab) -> Iterator[Callable[..., Load]]:
    """Start the load, by default that of the support desk; it ends with the test."""
    started: list[Load] = []

    # The POSTs are refused by the product once it has read them: two cores cannot write 100 rows a second during ten releases.
    def start(inventory: Path = lab.inventory, arguments: Sequence[str] = ("@tests/load/support_desk.txt",), websockets: int = 50) -> Load:
        started.append(Load(lab, inventory, arguments, websockets))
        return started[-1]

    yield start
    for item in started:
        item._process.kill()  # noqa: SLF001 - no other test needs it
        item._process.wait(10)  # noqa: SLF001
