"""Commands of psql, redis-cli and a shell are run where the service is, and read only unless writing is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from slipway_lab import Lab, Run


def run(lab: Lab, playbook: str, command: str, **variables: Any) -> Run:
    done = lab.playbook(playbook, variables={"command": command, **variables})
    for name, value in lab.secrets.items():
        assert value not in done.output, name
    return done


@pytest.mark.parametrize(
    ("playbook", "reads", "answer", "writes"),
    [
        ("psql", "SELECT current_user", "slipway_reader", "CREATE TABLE written (a int); DROP TABLE written"),
        # What leads back to the session's role leads back to one that reads.
        ("psql", "RESET ROLE; SELECT current_user", "slipway_reader", "RESET ROLE; CREATE TABLE written (a int); DROP TABLE written"),
        # Sessions of other roles are seen whole.
        (
            "psql",
            "SELECT 'hidden: ' || count(*) FROM pg_stat_activity WHERE query = '<insufficient privilege>'",
            "hidden: 0",
            "CREATE TABLE written (a int); DROP TABLE written",
        ),
        ("redis", "INFO memory", "used_memory_human", "SETEX 'written by a test' 1 x"),
    ],
)
def test_a_session_reads_and_the_owners_writes(lab: Lab, playbook: str, reads: str, answer: str, writes: str):
    read = run(lab, playbook, reads)
    assert read.returncode == 0, read.excerpt
    assert answer in read.output
    assert not read.changed
    refused = run(lab, playbook, writes)
    assert refused.returncode == 2, refused.excerpt
    written = run(lab, playbook, writes, write=True)
    assert written.returncode == 0, written.excerpt
    assert len(written.changed) == 1


def test_a_session_of_redis_leaves_no_user(lab: Lab):
    assert "slipway-reader" not in run(lab, "redis", "ACL USERS", write=True).output


def test_a_shell_is_in_the_container_that_serves(lab: Lab):
    done = run(lab, "shell", "cat /proc/1/cmdline | tr '\\0' ' '", service="backend")
    assert "uvicorn" in done.output, done.excerpt
    unknown = run(lab, "shell", "id", service="backed")
    assert "Nothing was touched. service is 'backed', of which no container runs; there are backend," in unknown.output
