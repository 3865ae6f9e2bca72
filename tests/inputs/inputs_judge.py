"""Gives a playbook an input and judges what it does: refuse it before anything is touched, or do what its author meant.

A refusal is one clear message and an unchanged host; it names the variable, or the file, and says what to do. An accepted input leaves
every container healthy, and a second run changes nothing. Whatever is given, what ran goes on serving.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from slipway_lab import BIN, ROOT, Lab, Run, operators_environment

#: What of a host a run could change: all objects of the engine, the stack's files with modes and owners, units, firewall rules.
#: What a scheduled backup or drill starts by itself is left out.
FINGERPRINT = """
import glob, hashlib, os, re, subprocess

def output(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout

def objects(kind, listed):
    names = output("docker", *listed).split()
    return json.loads(output("docker", kind, "inspect", *names) or "[]") if names else []

found = {}
for item in objects("container", ["ps", "--all", "--quiet", "--no-trunc"]):
    if item["Config"]["Labels"].get("slipway.owner", "").startswith("backup-"):
        continue
    found["container " + item["Name"]] = [
        item["Id"], item["Image"], item["State"]["StartedAt"], item["State"]["Running"], item["RestartCount"], item["Config"],
        item["HostConfig"], sorted(item["NetworkSettings"]["Networks"]),
    ]
for item in objects("network", ["network", "ls", "--quiet", "--no-trunc"]):
    found["network " + item["Name"]] = [item["Id"], item["Options"], item["Internal"], item["Labels"], item["IPAM"]]
for item in objects("volume", ["volume", "ls", "--quiet"]):
    if not re.fullmatch("[0-9a-f]{64}", item["Name"]):
        found["volume " + item["Name"]] = [item["CreatedAt"], item["Labels"], item["Options"]]
places = ["/etc/slipway", "/etc/systemd/system", "/etc/docker", "/etc/logrotate.d", "/etc/sysctl.d", "/etc/tmpfiles.d", "/etc/cron.d"]
for place in places:
    for folder, folders, files in os.walk(place):
        # A timer of the host writes its figures there all the time.
        if folder.endswith("/watchdog/state"):
            continue
        for path in [os.path.join(folder, name) for name in folders + files]:
            state = os.lstat(path)
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = hashlib.sha256(open(path, "rb").read()).hexdigest()
            else:
                content = ""
            found["file " + path] = [oct(state.st_mode), state.st_uid, state.st_gid, content]
for path in ["/etc/passwd", "/etc/group", "/etc/hosts"]:
    found["file " + path] = hashlib.sha256(open(path, "rb").read()).hexdigest()
for line in output("systemctl", "list-units", "slipway*.timer", "slipway*.path", "--all", "--plain", "--no-legend").splitlines():
    # The state of a timer is `running` while its service runs.
    found["unit " + line.split()[0]] = [state.replace("running", "waiting") for state in line.split()[1:4]]
found["unit docker.service"] = output("systemctl", "show", "--property", "ActiveEnterTimestampMonotonic", "docker.service")
for line in output("iptables-save").splitlines():
    if line.startswith(("-A", ":")):
        found["rule " + re.sub(r"\\[[0-9:]+\\]", "", line)] = ""
print(json.dumps({name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16] for name, value in found.items()}))
"""

#: A message without one of these says what is wrong, and leaves what to do to the reader. Ansible reads -e before a plugin of Slipway, and
#: says of text that is not YAML where it is.
REMEDY = re.compile(
    r"\b(must|set|correct|quote|use|write|remove|rename|did you mean|choose|give|add|say|run|put|take|make|name|free|stop|raise|lower|"
    r"install|allow|leave|replace|encrypt|decrypt|unset|known are|one of|allowed|needs? to|check|fix|create|see|change)\b|"
    r"YAML parsing failed: .*CLI option '-e'",
    re.IGNORECASE,
)
#: Words of a program's own error that was not caught.
RAW = re.compile(
    r"Traceback \(most recent|evaluated: The filter|has no attribute '|Finalization of task args|HTTPConnectionPool|http\+docker:|"
    r"(A|The) '(when|failed_when|changed_when)' expression|Unexpected \w+Error|KeyError|Server Error for",
)
LONGEST_LINE = 2000
#: A run that takes longer hangs.
LONGEST_RUN = 900


@dataclass(frozen=True)
class Case:
    """One input: variables (with -e, or in the inventory), files of the inventory, or arguments; and what is right.

    Attributes:
        expect: refused, accepted, or either.
        files: Files of the inventory with content of their own, or null for one that is not there.
        edits: Files of the inventory in which a regular expression is replaced.
        says: Regular expressions that the message must match; by default the name of one of the variables.
        meaning: Commands on the host, with what their output must match, after an accepted run.
        dry: Run with --check alone, for what would take the stack away.
    """

    id: str
    expect: str = "either"
    playbook: str = "site"
    variables: dict[str, Any] = field(default_factory=dict)
    inventory: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str | None] = field(default_factory=dict)
    edits: dict[str, dict[str, str]] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    meaning: dict[str, str] = field(default_factory=dict)
    dry: bool = False

    @classmethod
    def of(cls, values: dict[str, Any]) -> Case:
        """Return a case as cases.yml has it."""
        given = dict(values)
        for name in ("arguments", "says"):
            given[name] = tuple(given.get(name, ()))
        return cls(**given)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Return what a refusal must say, as regular expressions."""
        names = [*self.variables, *self.inventory]
        return self.says or (("|".join(re.escape(name) for name in names),) if names else ())


@dataclass
class Verdict:
    """What came of a case.

    Attributes:
        outcome: refused, accepted, "changed, then failed", or "accepted without effect" and other faults of an accepted run.
        faults: Sentences; none of a case that is right.
        seconds: Of the run, by the clock.
        processor: Seconds of processor time of the run, which other work on the machine does not lengthen.
        outage: Seconds in which the product did not answer, of a run that was refused.
    """

    case: Case
    outcome: str
    faults: list[str]
    seconds: float
    processor: float
    outage: float
    message: str


class Prober:
    """Asks for a page of the product, a few times a second, and notes when no proper answer comes."""

    def __init__(self, lab: Lab, interval: float = 0.4) -> None:
        self._lab, self._interval = lab, interval
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.failures: list[str] = []
        self.answers = 0
        self.last = True

    def _ask(self) -> None:
        with self._lab.client(headers={"Connection": "close"}) as client:
            while not self._end.wait(self._interval):
                try:
                    status = client.get("/api/version").status_code
                    text = "" if status < 500 else str(status)
                except Exception as error:  # noqa: BLE001 - whatever it is, no answer came
                    text = repr(error)
                self.last = not text
                self.answers += not text
                if text:
                    self.failures.append(text)

    @property
    def outage(self) -> float:
        """Return about how many seconds no answer came."""
        return len(self.failures) * self._interval

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Ask while the block runs."""
        self._thread.start()
        try:
            yield
        finally:
            self._end.set()
            self._thread.join(30)


class Judge:
    """Runs cases against a lab, one at a time, and puts it back after each that has changed it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.verdicts: list[Verdict] = []
        self._before: dict[str, dict[str, str]] | None = None
        self._copy = lab.inventory.with_name(f"{lab.name}-inputs")
        # A line for each case, there even if the run does not come to its end.
        self._log = ROOT / "reports/inputs-latest.jsonl"
        self._log.parent.mkdir(exist_ok=True)
        self._log.unlink(missing_ok=True)

    def fingerprint(self) -> dict[str, dict[str, str]]:
        """Return what each host of the lab has, by name, as digests."""
        return {name: host.python(FINGERPRINT) for name, host in self.lab.hosts.items()}

    def run(self, case: Case, inventory: Path) -> tuple[Run, float, float]:
        """Run a case's playbook on its inventory; return also its seconds by the clock and of processor time."""
        report = self.lab.reports / f"{case.playbook}-latest.json"
        report.unlink(missing_ok=True)
        command = [str(BIN / "ansible-playbook"), f"playbooks/{case.playbook}.yml", *case.arguments]
        if not any(argument in {"-i", "--inventory"} for argument in case.arguments):
            command += ["-i", str(inventory)]
        if case.dry:
            command += ["--check"]
        if case.variables:
            path = self.lab.reports.parent / "case.json"
            path.write_text(json.dumps(case.variables), encoding="utf-8")
            command += ["--extra-vars", f"@{path}"]
        began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=operators_environment() | {"SLIPWAY_REPORTS_DIR": str(self.lab.reports)},
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, timeout=LONGEST_RUN,
                preexec_fn=functools.partial(os.nice, 5),
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            done = subprocess.CompletedProcess(
                command, 124, (error.stdout or b"").decode(errors="replace"), f"still runs after {LONGEST_RUN} s"
            )
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        written = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
        return Run(done.returncode, done.stdout + done.stderr, written), seconds, processor

    @contextlib.contextmanager
    def _inventory(self, case: Case) -> Iterator[Path]:
        """Have the lab's inventory with what a case changes of it, in a folder of its own."""
        if not case.inventory and not case.files and not case.edits:
            yield self.lab.inventory
            return
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self.lab.inventory, self._copy, symlinks=True)
        try:
            if case.inventory:
                path = self._copy / "group_vars/all/zz_case.yml"
                path.write_text(yaml.safe_dump(case.inventory, allow_unicode=True), encoding="utf-8")
            for name, text in case.files.items():
                path = self._copy / name
                if text is None:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.unlink(missing_ok=True)
                    path.write_bytes(text.encode("utf-8", "surrogateescape"))
            for name, replacements in case.edits.items():
                path = self._copy / name
                text = path.read_text(encoding="utf-8")
                for pattern, replacement in replacements.items():
                    text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
                    assert count, f"{case.id}: {name} has no {pattern}"
                path.write_text(text, encoding="utf-8")
            yield self._copy
        finally:
            shutil.rmtree(self._copy, ignore_errors=True)

    def restore(self) -> None:
        """Bring the lab to what its own inventory says, unless it is known to be so."""
        if self._before is not None:
            return
        # A release that a case has made or left behind may need a run of its own to be over.
        for _ in range(3):
            run = self.lab.playbook("site")
            if run.returncode == 0 and not run.changed:
                break
        assert run.returncode == 0, f"the lab cannot be brought back to its inventory:\n{run.excerpt}"
        self.lab.wait_until_healthy()
        self._before = self.fingerprint()

    def judge(self, case: Case) -> Verdict:
        """Run a case and return its verdict."""
        self.restore()
        # Its second run finds what its first has written there, such as a certificate.
        with self._inventory(case) as inventory:
            verdict = self._verdict(case, inventory)
        self.verdicts.append(verdict)
        line = {**described(verdict), "seconds": round(verdict.seconds, 1), "processor_seconds": round(verdict.processor, 1)}
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        return verdict

    def _verdict(self, case: Case, inventory: Path) -> Verdict:
        before = self._before
        assert before is not None
        prober = Prober(self.lab)
        with prober.asking():
            run, seconds, processor = self.run(case, inventory)
        changes = difference(before, self.fingerprint())
        if changes:
            self._before = None
        faults: list[str] = []
        if run.returncode != 0:
            outcome = "changed, then failed" if changes else "refused"
            faults += [f"changed, then failed: {', '.join(changes[:8])}"] if changes else []
            faults += refusal_faults(case, run)
            if prober.failures:
                faults.append(f"an outage of about {prober.outage:.1f} s: {prober.failures[0]}")
            if case.expect == "accepted":
                faults.append("was refused, and is right")
        else:
            outcome = "accepted"
            if case.expect == "refused":
                outcome = "accepted, and is wrong" if changes else "accepted without effect, and is wrong"
                faults.append(outcome)
            faults += self._accepted_faults(case, inventory, changes)
        if not prober.last:
            faults.append("the product does not answer afterwards")
        message = "\n".join(f"{item['task']}: {item['message']}" for item in run.report.get("failed", [])) or run.output[-3000:]
        return Verdict(case, outcome, faults, seconds, processor, prober.outage if run.returncode else 0.0, message)

    def _accepted_faults(self, case: Case, inventory: Path, changes: list[str]) -> list[str]:
        faults = []
        if case.dry:
            return [f"--check has changed {', '.join(changes[:8])}"] if changes else []
        try:
            self.lab.wait_until_healthy(60)
        except AssertionError as error:
            faults.append(f"not healthy: {error}")
        for command, pattern in case.meaning.items():
            said = self.lab.balancer.run(command, check=False)
            if not re.search(pattern, said):
                faults.append(f"another meaning: {command} says {said[:300]!r}, not {pattern}")
        if changes and case.playbook == "site":
            again, _seconds, _processor = self.run(case, inventory)
            if again.returncode != 0 or again.changed:
                faults.append(f"a second run ended with {again.returncode} and changed {again.changed[:5]}")
        return faults

    def summary(self) -> dict[str, Any]:
        """Return numbers of all cases that were judged."""
        refused = sorted(verdict.seconds for verdict in self.verdicts if verdict.outcome == "refused")
        processor = sorted(verdict.processor for verdict in self.verdicts if verdict.outcome == "refused")
        outcomes: dict[str, int] = {}
        for verdict in self.verdicts:
            outcomes[verdict.outcome] = outcomes.get(verdict.outcome, 0) + 1
        return {
            "cases": len(self.verdicts),
            "right": sum(not verdict.faults for verdict in self.verdicts),
            "outcomes": outcomes,
            "changed_then_failed": outcomes.get("changed, then failed", 0),
            "outages": sum(verdict.outage > 0 or "the product does not answer afterwards" in verdict.faults for verdict in self.verdicts),
            "refusal_seconds": percentiles(refused),
            "refusal_processor_seconds": percentiles(processor),
            "load_average": round(os.getloadavg()[1], 1),
            "wrong": [described(verdict) for verdict in self.verdicts if verdict.faults],
        }


def described(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as a report has it."""
    return {"case": verdict.case.id, "outcome": verdict.outcome, "faults": verdict.faults, "message": verdict.message[:1500]}


def difference(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> list[str]:
    """Return what differs between two fingerprints, as `host: thing`."""
    return [
        f"{host}: {name}"
        for host in sorted({*before, *after})
        for name in sorted({*before.get(host, {}), *after.get(host, {})})
        if before.get(host, {}).get(name) != after.get(host, {}).get(name)
    ]


def refusal_faults(case: Case, run: Run) -> list[str]:
    """Return what is wrong with the words of a refusal."""
    failed = run.report.get("failed", [])
    # What Ansible itself refuses ends before a report.
    text = "\n".join(item["message"] for item in failed) or run.output
    flat = " ".join(text.split())
    faults = [f"does not say {pattern}" for pattern in case.wanted if not re.search(pattern, flat)]
    if not REMEDY.search(flat):
        faults.append("names no remedy")
    if raw := RAW.search(run.output):
        faults.append(f"raw words of a program: {raw[0]}")
    if (longest := max((len(line) for line in run.output.splitlines()), default=0)) > LONGEST_LINE:
        faults.append(f"a line of {longest} characters")
    if not run.output.strip():
        faults.append("says nothing")
    return faults


def percentiles(values: list[float]) -> dict[str, float]:
    """Return the median, the 95th percentile and the highest of sorted values."""
    if not values:
        return {}
    at = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {name: round(values[min(len(values) - 1, int(len(values) * share))], 1) for name, share in at.items()}
