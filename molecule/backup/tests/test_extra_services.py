"""A service that belongs to no version: what it is to the product, to strangers and to the backups."""

from __future__ import annotations

import pytest
from slipway_lab import Lab, Stranger

ASK = "python3 -c \"import socket; s = socket.create_connection(('cache', 6379), 5); s.send(b'PING\\r\\n'); print(s.recv(7))\""


def test_the_product_reaches_it_by_its_name(lab: Lab):
    assert "PONG" in lab.in_product(ASK)


def test_strangers_do_not_reach_it(lab: Lab, stranger: Stranger):
    cache = lab.service("cache")
    assert not cache.inspect["HostConfig"]["PortBindings"]
    assert not stranger.can_connect(cache.host.address, 6379)


@pytest.mark.extended("drill")
def test_a_backup_command_that_fails_is_named(lab: Lab):
    cache = lab.service("cache")
    # A value that the command cannot print.
    cache.execute("redis-cli", "del", "kept")
    cache.execute("redis-cli", "rpush", "kept", "one")
    made = lab.playbook("backup")
    cache.execute("redis-cli", "set", "kept", "before")
    assert made.returncode != 0
    assert "copy volume cache_dump of lab1" in made.excerpt
    assert "its backup command ended with exit code 1: WRONGTYPE" in made.excerpt
    repaired = lab.playbook("backup")
    assert repaired.returncode == 0, repaired.excerpt
