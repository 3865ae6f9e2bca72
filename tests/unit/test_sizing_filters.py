from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.slipway.stack.plugins.filter.memory_share import memory_share
from ansible_collections.slipway.stack.plugins.filter.postgres_tuning import postgres_tuning


def test_small_server_follows_pgtune():
    settings = postgres_tuning(2048, cpus=2, max_connections=100)
    assert settings["shared_buffers"] == "512MB"
    assert settings["effective_cache_size"] == "1536MB"
    assert settings["maintenance_work_mem"] == "128MB"
    assert settings["wal_buffers"] == "16MB"
    assert settings["work_mem"] == "4854kB"
    assert settings["random_page_cost"] == 1.1
    assert "max_worker_processes" not in settings


def test_large_server_is_capped_and_runs_in_parallel():
    settings = postgres_tuning(131072, cpus=16, max_connections=200)
    assert settings["maintenance_work_mem"] == "2048MB"
    assert settings["wal_buffers"] == "16MB"
    assert settings["max_worker_processes"] == settings["max_parallel_workers"] == 16
    assert settings["max_parallel_workers_per_gather"] == settings["max_parallel_maintenance_workers"] == 4


@pytest.mark.parametrize("memory", [64, 100, 256, 333, 1000, 4096])
@pytest.mark.parametrize("connections", [1, 100, 5000])
def test_sizes_stay_within_memory_and_above_what_postgresql_accepts(memory: int, connections: int):
    def kilobytes(text: object) -> int:
        assert isinstance(text, str)
        return int(text[:-2]) * (1024 if text.endswith("MB") else 1)

    settings = postgres_tuning(memory, cpus=1, max_connections=connections)
    assert kilobytes(settings["work_mem"]) >= 64
    assert 32 <= kilobytes(settings["wal_buffers"]) <= 16 * 1024
    assert kilobytes(settings["maintenance_work_mem"]) >= 1024
    assert kilobytes(settings["shared_buffers"]) * 4 <= memory * 1024


@pytest.mark.parametrize(("memory", "cpus", "connections"), [(32, 1, 10), ("much", 1, 10), (1024, 0, 10), (1024, 1, 0), (None, 1, 1)])
def test_sizes_that_make_no_sense_are_refused_by_value(memory: object, cpus: int, connections: int):
    with pytest.raises(AnsibleFilterError, match=r"postgres_tuning"):
        postgres_tuning(memory, cpus=cpus, max_connections=connections)


@pytest.mark.parametrize(
    ("total", "share", "floor", "expected"), [(7950, 0.25, 64, 1984), (7945, 0.25, 64, 1984), (512, 0.1, 128, 128), (1000, 1, 64, 992)]
)
def test_share_is_a_multiple_of_16_and_at_least_the_floor(total: int, share: float, floor: int, expected: int):
    assert memory_share(total, share, floor) == expected


@pytest.mark.parametrize(("total", "share"), [(0, 0.5), (-1, 0.5), (100, 0), (100, 1.5), ("x", 0.5)])
def test_a_share_that_makes_no_sense_is_refused(total: object, share: float):
    with pytest.raises(AnsibleFilterError, match="memory_share"):
        memory_share(total, share)
