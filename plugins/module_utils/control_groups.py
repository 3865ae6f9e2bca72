# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's control groups, of version 1 or 2, say of a container. The engine would take a second for each."""

from __future__ import annotations

# Where the kernel lists processes and control groups.
PROCESSES = "/proc"
CONTROL_GROUPS = "/sys/fs/cgroup"


def read_text(path: str) -> str:
    """Return a file's text, or an empty string when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def numbers(path: str) -> dict[str, int]:
    """Return the lines of a file, each a name and a number; empty when it cannot be read."""
    return {name: int(value) for name, value in (line.split(" ", 1) for line in read_text(path).splitlines())}


def folder_of(pid: int, controller: str) -> tuple[str, bool]:
    """Return the folder of a process' control group that has a controller, and whether it is one of version 1.

    Of a process that has ended, one that does not exist: without its group it would be that of the whole host.
    """
    groups = dict(line.split(":", 2)[1:] for line in read_text(f"{PROCESSES}/{pid}/cgroup").splitlines())
    former = next((controllers for controllers in groups if controller in controllers.split(",")), "")
    return f"{CONTROL_GROUPS}/{former}".rstrip("/") + groups.get(former, "/nonexistent"), bool(former)


def is_running(pid: int) -> bool:
    """Return whether a process is there, so that all that was read of it until now was its own."""
    return bool(read_text(f"{PROCESSES}/{pid}/cgroup"))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that the container of a process has taken since it was started; 0 if the control groups do not have it."""
    folder, former = folder_of(pid, "cpuacct")
    if former:
        return int(read_text(f"{folder}/cpuacct.usage") or 0) / 1e9
    return numbers(f"{folder}/cpu.stat").get("usage_usec", 0) / 1e6


def throttled_seconds(pid: int) -> float:
    """Return for how long the container of a process had to wait, as it had used its cores up; 0 if the control groups do not have it."""
    folder, former = folder_of(pid, "cpu")
    found = numbers(f"{folder}/cpu.stat")
    return found.get("throttled_time", 0) / 1e9 if former else found.get("throttled_usec", 0) / 1e6


def memory_used(pid: int) -> int:
    """Return the bytes that the container of a process takes, as ``docker stats`` counts them: without files that it read once.

    0 if the control groups do not have it.
    """
    folder, former = folder_of(pid, "memory")
    current, inactive = ("memory.usage_in_bytes", "total_inactive_file") if former else ("memory.current", "inactive_file")
    try:
        return int(read_text(f"{folder}/{current}")) - numbers(f"{folder}/memory.stat")[inactive]
    except (KeyError, ValueError):
        return 0


def oom_kills(pid: int) -> int:
    """Return how many processes of a process' container were killed at its memory limit; 0 if the control groups do not have it."""
    folder, former = folder_of(pid, "memory")
    return numbers(f"{folder}/{'memory.oom_control' if former else 'memory.events'}").get("oom_kill", 0)


def pids(pid: int) -> int:
    """Return the number of processes and threads of a process' container; 0 if the control groups do not have it."""
    return int(read_text(f"{folder_of(pid, 'pids')[0]}/pids.current") or 0)
