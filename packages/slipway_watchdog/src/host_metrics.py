# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a host that belong to no container: who holds the release lock, and what other programs of the stack write for Prometheus."""

from __future__ import annotations

import contextlib
import json
import typing as t
from datetime import datetime, timezone
from pathlib import Path

LOCK = "slipway_release_lock_since_seconds"


def lock_since(stack: Path) -> float | None:
    """Return when the release lock of this host was taken, in seconds since 1970, or None where no run holds it."""
    try:
        since = str(json.loads((stack / "release/lock.json").read_text())["since"])
        return datetime.strptime(since, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
    except (OSError, ValueError, KeyError, TypeError):
        return None


def texts(stack: Path, folder: Path, files: t.Iterable[str]) -> dict[str, str]:
    """Return the figures by the name of the file that node_exporter reads them from.

    Args:
        stack: the stack's folder on the host.
        folder: that of the files for node_exporter.
        files: those of other programs that are outside of the stack's folder.
    """
    since = lock_since(stack)
    found = {} if since is None else {"release.prom": f'# TYPE {LOCK} gauge\n{LOCK}{{stack="{stack.name}"}} {since:.0f}\n'}
    own = [path for part in ("state", "config/current") for path in stack.glob(f"*/{part}/*.prom") if path.parent != folder]
    named = [(path.relative_to(stack).parts[0], path) for path in own] + [(path.parts[-3], path) for path in map(Path, files)]
    for name, path in named:
        # One file that is not UTF-8 must not stop the figures of all others.
        with contextlib.suppress(OSError, ValueError):
            found[f"{name}-{path.name}"] = path.read_text()
    return found
