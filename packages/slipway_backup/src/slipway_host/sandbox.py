# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throw-away containers, volumes and a network of their own, all found again by their labels."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
import subprocess
import sys
import time
import typing as t
from pathlib import Path

JSON = dict[str, t.Any]

OUTPUT_LINES = 12
#: How long a restore waits for a run that changes the data.
LOCK_SECONDS = 600
LOCK_PAUSE = 0.2
LOCKS = Path("/run/lock")
REMOVE_SECONDS = 30
#: What programs say where the host lacks disk space or memory; SQLite has its own words, and -9 is what the kernel kills.
SHORTAGE = re.compile(r"No space left on device|database or disk is full|[Cc]annot allocate memory|out of memory|ended with -9\b")
MEMINFO = Path("/proc/meminfo")
TMPFS = "/tmp:noexec,nosuid,nodev,size=64m"  # noqa: S108 - a place of the container alone


class HostError(Exception):
    """Something on this host kept us from going on; it says nothing about the point."""


class PointError(HostError):
    """The point itself is bad."""


class BusyError(HostError):
    """Another run is doing the same."""


class AbsentError(HostError):
    """What is wanted is not on this host; it may be off-site."""


def say(text: str) -> None:
    """Print what is being done on stderr, for the journal and the operator."""
    print(text, file=sys.stderr, flush=True)


def tail(text: str, lines: int = OUTPUT_LINES) -> str:
    """Return the last lines of an output that say anything."""
    return "\n".join([line for line in text.strip().splitlines() if line.strip()][-lines:])


def docker(*arguments: str, what: str, given: str | None = None, codes: t.Container[int] = (0,)) -> subprocess.CompletedProcess[str]:
    """Run docker to its end.

    Args:
        arguments: of the command.
        what: what it does, as the start of an error message.
        given: its standard input.
        codes: exit codes that are no failure.

    Raises:
        HostError: it failed; with the last lines that it wrote.
    """
    try:
        # Without an input, its own is not for it: a person may be typing there.
        source: JSON = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, errors="replace", check=False, **source)
    except OSError as error:
        raise HostError(f"{what}: docker: {error.strerror}") from error
    if done.returncode not in codes:
        raise HostError(f"{what}: {tail(done.stderr) or tail(done.stdout) or f'docker ended with {done.returncode}'}")
    return done


@contextlib.contextmanager
def alone(name: str, wait: float = 0) -> t.Iterator[None]:
    """Hold a lock of this host.

    Args:
        name: of the lock; what follows its last dash is what a person calls it.
        wait: seconds to wait for another process that holds it.

    Raises:
        BusyError: another process holds it.
    """
    path = LOCKS / f"slipway-{name}.lock"
    kind = name.rpartition("-")[2]
    deadline = time.monotonic() + wait
    told = False
    with path.open("a", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise BusyError(f"another {kind} runs on this host; wait for it to end") from error
                if not told:
                    say(f"another {kind} runs on this host; waiting up to {wait:.0f} s for it to end")
                    told = True
                time.sleep(LOCK_PAUSE)
        yield


def essence(log: str) -> str:
    """Return the lines of a log that say why a server ended, at most four."""
    lines = [line for line in log.strip().splitlines() if line.strip()]
    return "\n".join([line for line in lines if re.search(r"FATAL|PANIC|ERROR|[Ee]rror|[Bb]ad |[Ff]ailed", line)][-4:] or lines[-4:])


class Sandbox:
    """An isolated network in which the stores of a point are started: they reach only each other."""

    def __init__(self, config: JSON, kind: str) -> None:
        """Take what the role rendered; nothing is made yet.

        Args:
            config: backup.json.
            kind: drill, restore or inspect: part of all names, and the owner among the labels.
        """
        self.config = config
        self.kind = kind
        self.stack = str(config["stack"])
        self.prefix = f"{self.stack}-{kind}"
        #: Number of the user and the group that run all of them: the ones that the backups belong to.
        self.user = f"{config['user']}:{config['user']}"
        self.filter = ("--filter", f"label=slipway.stack={self.stack}", "--filter", f"label=slipway.owner=backup-{kind}")

    def labels(self, service: str) -> list[str]:
        """Return the options that label an object as the stack's."""
        pairs = {"slipway.stack": self.stack, "slipway.owner": f"backup-{self.kind}", "slipway.service": f"{self.kind}-{service}"}
        return [part for name, value in pairs.items() for part in ("--label", f"{name}={value}")]

    def clean(self, volumes: bool = True) -> list[str]:
        """Remove everything that carries our labels, of this run and of one that died; return the names."""
        found: list[str] = []
        kinds = [("container", ["ps", "--all", "--format", "{{.Names}}"], ["rm", "--force", "--volumes"])]
        kinds.append(("network", ["network", "ls", "--format", "{{.Name}}"], ["network", "rm"]))
        if volumes:
            kinds.append(("volume", ["volume", "ls", "--format", "{{.Name}}"], ["volume", "rm", "--force"]))
        for kind, listing, removal in kinds:
            what = f"remove each {kind} of {self.prefix}"
            names = docker(*listing, *self.filter, what=what).stdout.split()
            if names:
                deadline = time.monotonic() + REMOVE_SECONDS
                left = names
                while left:
                    # One that ends by itself at this moment goes all the same.
                    message = docker(*removal, *left, what=what, codes=(0, 1)).stderr
                    left = docker(*listing, *self.filter, what=what).stdout.split()
                    if left and time.monotonic() > deadline:
                        raise HostError(f"{what}: {', '.join(left)} is still there: {tail(message)}")
                found += names
        return found

    def network(self) -> None:
        """Create the network, which has no outbound access."""
        docker("network", "create", "--internal", *self.labels("network"), self.prefix, what="create an isolated network")

    def volume(self, name: str, service: str) -> None:
        """Make an empty volume that our user can write to."""
        docker("volume", "create", *self.labels(service), name, what=f"create the volume {name}")
        self.run_once(
            f"{service}-owner",
            self.tools_image(),
            ["-c", f"chown {self.user} /target && chmod 0700 /target"],
            volumes={name: "/target"},
            extra=["--entrypoint", "sh", "--user", "0:0", "--cap-add", "CHOWN", "--cap-add", "FOWNER", "--network", "none"],
            what=f"prepare the volume {name}",
        )

    def weight(self) -> list[str]:
        """Return the options by which a drill steps back behind the stack; a restore does not, as people wait for it."""
        shares = (self.config.get("drill") or {}).get("cpu_shares")
        return ["--cpu-shares", str(shares)] if shares and self.kind == "drill" else []

    def options(self, name: str, volumes: t.Mapping[str, str], memory_mb: int) -> list[str]:
        """Return the options that all containers share: hardened as those of the stack."""
        mounts = [
            part for source, target in volumes.items() for part in ("--mount", f"type=volume,source={source},target={target},volume-nocopy")
        ]
        return [
            "--name", f"{self.prefix}-{name}", *self.labels(name),
            "--read-only", "--tmpfs", TMPFS, "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true",
            "--memory", f"{memory_mb}m", "--memory-swap", f"{memory_mb}m", "--pids-limit", "256", "--no-healthcheck", *self.weight(),
            "--log-opt", "max-size=10m", "--env", "HOME=/tmp", *mounts,
        ]  # fmt: skip

    def start(
        self,
        name: str,
        image: str,
        command: t.Sequence[str],
        entrypoint: str,
        volumes: t.Mapping[str, str],
        memory_mb: int = 1024,
        stop_signal: str = "SIGTERM",
    ) -> str:
        """Start a container that goes on; return its name.

        Raises:
            HostError: the image is not there and cannot be pulled, or the engine refuses.
        """
        docker(
            "run", "--detach", *self.options(name, volumes, memory_mb), "--user", self.user,
            "--network", self.prefix, "--network-alias", name,
            "--stop-timeout", "120", "--stop-signal", stop_signal, "--shm-size", "128m",
            "--entrypoint", entrypoint, image, *command, what=f"start {name}",
        )  # fmt: skip
        return f"{self.prefix}-{name}"

    def run_once(
        self,
        name: str,
        image: str,
        command: t.Sequence[str],
        volumes: t.Mapping[str, str],
        what: str,
        extra: t.Sequence[str] = (),
        codes: t.Container[int] = (0,),
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end and return what it printed."""
        return docker("run", "--rm", *self.options(name, volumes, 512), *extra, image, *command, what=what, codes=codes)

    def identity(self, rights: t.Sequence[str]) -> list[str]:
        """Return the options for a container that runs as root with some rights, or as our user with none."""
        return ["--user", "0:0" if rights else self.user, *(part for right in rights for part in ("--cap-add", right))]

    def tools_image(self) -> str:
        """Return the image of the tools, as the running container has it."""
        return docker(
            "inspect", "--format", "{{.Image}}", str(self.config["container"]), what="look at the backup container"
        ).stdout.strip()

    def tools(
        self,
        *arguments: str,
        what: str,
        volumes: t.Mapping[str, str] | None = None,
        network: str = "none",
        rights: t.Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of slipway-backup with the data, in a separate container; as root with some rights, or as our user with none.

        Raises:
            BusyError: a run holds the lock of the data.
            HostError: the host lacks disk space or memory.
            PointError: it failed otherwise.
        """
        folder = Path(__file__).resolve().parents[2]
        done = self.run_once(
            f"tools-{arguments[0]}",
            self.tools_image(),
            ["--json", *arguments, "--wait", str(LOCK_SECONDS)],
            volumes={str(self.config["volume"]): "/backup", **(volumes or {})},
            extra=[*self.identity(rights), "--network", network, "--volume", f"{folder}:/etc/slipway:ro"],
            what=what,
            codes=range(256),
        )
        if done.returncode:
            raise judge(what, done.returncode, done.stderr)
        return done

    def running(self, container: str) -> bool:
        """Return whether a container runs."""
        done = docker("inspect", "--format", "{{.State.Running}}", container, what="look at a container", codes=(0, 1))
        return done.stdout.strip() == "true"

    def logs(self, container: str) -> str:
        """Return the last lines of a container's log that report errors; without errors, its last lines."""
        return essence(self.log(container))

    def log(self, container: str) -> str:
        """Return the end of a container's log."""
        done = docker("logs", "--tail", "100", container, what="read a log", codes=(0, 1))
        return done.stdout + done.stderr

    def refuse_shortage(self, container: str, message: str = "") -> None:
        """Refuse to judge a point where the host caused the trouble; called before a fault of the point is reported.

        Args:
            container: in which a store has ended, or refused something.
            message: its error.

        Raises:
            HostError: it lacked memory or disk space.
        """
        killed = docker("inspect", "--format", "{{.State.OOMKilled}}", container, what="look at a container", codes=(0, 1)).stdout
        if killed.strip() == "true":
            raise HostError(f"{container} was killed at its memory limit; this says nothing about the point")
        lines = [*self.log(container).splitlines(), *message.splitlines()]
        if found := next((line for line in lines if SHORTAGE.search(line)), ""):
            raise HostError(f"{container} lacked disk space or memory, which says nothing about the point: {found.strip()}")

    def disk(self) -> tuple[int, int]:
        """Return the bytes of the disk with the engine's volumes, and how many of them are free.

        Raises:
            HostError: they cannot be read.
        """
        root = docker("info", "--format", "{{.DockerRootDir}}", what="ask where the engine keeps its volumes").stdout.strip()
        try:
            usage = shutil.disk_usage(Path(root, "volumes"))
        except OSError as error:
            raise HostError(f"the free space of the disk with {root}/volumes cannot be read: {error.strerror}") from error
        return usage.total, usage.free


def judge(what: str, code: int, message: str) -> HostError:
    """Return the error that a failed command of slipway-backup amounts to.

    Args:
        what: what it was to do.
        code: its exit code; 3 says that the data is locked, 125 and more that the engine did not run it.
        message: what it wrote.
    """
    text = f"{what}: {tail(message).removeprefix('slipway-backup: ') or f'ended with {code}'}"
    if code == 3:
        return BusyError(text)
    if code >= 125 or SHORTAGE.search(message) or "is invalid: " in message:
        return HostError(text)
    return PointError(text)


def available_mb() -> int:
    """Return the memory in MB that this host can spare, as the kernel estimates it; 0 where it does not say."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


def answer(text: str) -> t.Any:
    """Return the JSON that a command printed as its last line.

    Raises:
        HostError: it is none.
    """
    try:
        return json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise HostError(f"no JSON: {text[-200:]!r}") from error
