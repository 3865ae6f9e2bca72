# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis: a consistent copy as a replica gets it, and the users without their passwords."""

from __future__ import annotations

import re
import time
from pathlib import Path

from slipway_backup.common import JSON, Config, StepError, execute, write_atomically

TRANSFER_SECONDS = 3600


def command(config: Config, *arguments: str) -> list[str]:
    """Return the call of redis-cli; the password goes by the environment."""
    place = ["-h", str(config.redis["host"]), "-p", str(config.redis["port"])]
    # -e makes an error reply, such as a refused login, an exit status.
    return ["redis-cli", "-e", *place, "--user", str(config.redis["user"]), "--no-auth-warning", *arguments]


def ask(config: Config, *arguments: str, what: str, timeout: float = 30) -> str:
    """Send a command and return the reply.

    Raises:
        StepError: the server is away or refuses.
    """
    return execute(command(config, *arguments), what, env={"REDISCLI_AUTH": config.secret("redis_password")}, timeout=timeout).stdout


def keys_in(report: str) -> int:
    """Return how many keys redis-check-rdb has read.

    Raises:
        StepError: it does not say.
    """
    found = re.search(r"\[info\] (\d+) keys read", report)
    if not found or "RDB looks OK" not in report:
        raise StepError(f"redis-check-rdb does not accept the copy: {report.strip()[-300:]}")
    return int(found[1])


def check(path: Path) -> int:
    """Read an RDB file through; return its keys."""
    return keys_in(execute(["redis-check-rdb", str(path)], "check the copy of Redis", timeout=TRANSFER_SECONDS).stdout)


def capture(config: Config, folder: Path) -> JSON:
    """Copy all keys and users into a folder.

    Returns:
        The part of the manifest that describes them.

    Raises:
        StepError: the server is away or refuses, or the copy is damaged.
    """
    began = time.monotonic()
    target = folder / "redis" / "dump.rdb"
    target.parent.mkdir(parents=True)
    version = re.search(r"redis_version:(\S+)", ask(config, "INFO", "server", what="ask Redis for its version"))
    if not version:
        raise StepError("Redis does not say which version it is")
    ask(config, "--rdb", str(target), what="copy Redis", timeout=TRANSFER_SECONDS)
    # The file is compressed: it does not say how much memory a server needs to read it.
    used = re.search(r"used_memory:(\d+)", ask(config, "INFO", "memory", what="ask Redis for the memory that it uses"))
    keys = check(target)
    # Passwords are hashes in there.
    write_atomically(target.with_name("users.acl"), ask(config, "ACL", "LIST", what="read the users of Redis"), mode=0o600)
    return {
        "version": version[1],
        "keys": keys,
        "bytes": target.stat().st_size,
        "used_memory": int(used[1]) if used else 0,
        "seconds": round(time.monotonic() - began, 1),
    }
