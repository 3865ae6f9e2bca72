# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter postgres_tuning."""

from __future__ import annotations

DOCUMENTATION = r"""
name: postgres_tuning
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Derive postgresql.conf settings from memory and cores
description:
  - The formulas are pgtune's for a web application on solid state disks (U(https://pgtune.leopard.in.ua),
    U(https://github.com/le0pard/pgtune)), save that C(huge_pages) is left to PostgreSQL.
  - C(shared_buffers) is a quarter of memory, C(effective_cache_size) three quarters, C(maintenance_work_mem) a
    sixteenth and at most 2 GB. C(wal_buffers) is 3 % of C(shared_buffers) and at most 16 MB.
  - C(work_mem) is the memory without C(shared_buffers), for three sorts or hashes at once in each connection and worker process,
    and at least 64 kB. With fewer than four cores the parallel settings keep PostgreSQL's defaults, and count as 8 worker processes.
  - Memory is the container's limit, not the host's.
options:
  _input:
    description: Memory that PostgreSQL may use, in MB.
    type: int
    required: true
  cpus:
    description: Cores that PostgreSQL may use; parts of a core count down.
    type: float
    required: true
  max_connections:
    description: Connections that clients may open.
    type: int
    default: 100
  min_wal_size_mb:
    description: WAL in MB that is kept and recycled rather than removed.
    type: int
    default: 1024
  max_wal_size_mb:
    description: WAL in MB after which a checkpoint starts; the disk needs room for it.
    type: int
    default: 4096
"""

EXAMPLES = r"""
- name: Show the settings for 2 GB and two cores
  ansible.builtin.debug:
    msg: "{{ 2048 | slipway.stack.postgres_tuning(cpus=2, max_connections=100) }}"
"""

RETURN = r"""
_value:
  description: Settings of postgresql.conf by name, sizes with their unit.
  type: dict
"""

from collections.abc import Callable

from ansible.errors import AnsibleFilterError

KB_PER_MB = 1024
DEFAULT_WORKER_PROCESSES = 8


def _size(kilobytes: int) -> str:
    """Return a size as postgresql.conf takes it, in MB where that is exact."""
    if kilobytes % KB_PER_MB == 0:
        return f"{kilobytes // KB_PER_MB}MB"
    return f"{kilobytes}kB"


def _wal_buffers_kb(shared_buffers_kb: int) -> int:
    """Return 3 % of shared_buffers, at least 32 kB, at most a WAL segment, which 14 MB and more are rounded up to."""
    size = shared_buffers_kb * 3 // 100
    if size > 14 * KB_PER_MB:
        return 16 * KB_PER_MB
    return max(32, size)


def postgres_tuning(
    memory_mb: float,
    cpus: float,
    max_connections: int = 100,
    *,
    min_wal_size_mb: int = 1024,
    max_wal_size_mb: int = 4096,
) -> dict[str, str | int | float]:
    """Return settings of postgresql.conf by name, by pgtune's formulas for a web application on solid state disks.

    Args:
        memory_mb: Memory that PostgreSQL may use, in MB, at least 64.
        cpus: Cores that it may use.
        max_connections: Connections that clients may open.
        min_wal_size_mb: WAL in MB that is recycled rather than removed.
        max_wal_size_mb: WAL in MB after which a checkpoint starts.

    Raises:
        AnsibleFilterError: An argument is not a number, or out of its range.
    """
    try:
        memory_kb, cores, connections = int(float(memory_mb) * KB_PER_MB), int(float(cpus)), int(max_connections)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(
            f"postgres_tuning needs numbers, not memory {memory_mb!r}, cpus {cpus!r}, max_connections {max_connections!r}"
        ) from error
    if memory_kb < 64 * KB_PER_MB:
        raise AnsibleFilterError(f"postgres_tuning: {memory_mb} MB of memory is too little; PostgreSQL needs at least 64 MB")
    if float(cpus) <= 0 or connections < 1:
        raise AnsibleFilterError(f"postgres_tuning: {cpus} cores and {max_connections} connections must both be above zero")
    shared_kb = memory_kb // 4
    parallel: dict[str, str | int | float] = {}
    workers = DEFAULT_WORKER_PROCESSES
    if cores >= 4:
        workers = cores
        helpers = min(4, -(-cores // 2))
        parallel = {
            "max_worker_processes": workers,
            "max_parallel_workers": workers,
            "max_parallel_workers_per_gather": helpers,
            "max_parallel_maintenance_workers": helpers,
        }
    work_kb = (memory_kb - shared_kb) // ((connections + workers) * 3)
    return {
        "max_connections": connections,
        "shared_buffers": _size(shared_kb),
        "effective_cache_size": _size(memory_kb * 3 // 4),
        "maintenance_work_mem": _size(min(memory_kb // 16, 2 * KB_PER_MB * KB_PER_MB)),
        "work_mem": _size(max(64, work_kb)),
        "wal_buffers": _size(_wal_buffers_kb(shared_kb)),
        "min_wal_size": f"{int(min_wal_size_mb)}MB",
        "max_wal_size": f"{int(max_wal_size_mb)}MB",
        "checkpoint_completion_target": 0.9,
        "default_statistics_target": 100,
        "random_page_cost": 1.1,
        "effective_io_concurrency": 200,
        **parallel,
    }


class FilterModule:
    """What Ansible asks for the filters of this file."""

    def filters(self) -> dict[str, Callable[..., dict[str, str | int | float]]]:
        """Return the filters by name."""
        return {"postgres_tuning": postgres_tuning}
