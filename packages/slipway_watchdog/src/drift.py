# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs on a host from what runs have left there, as far as the host itself can see. status.yml compares everything.

- A folder of configuration is named after its content, so an edited file shows.
- Containers that are to run are noted until another run has changed the host: one that is gone meanwhile was removed by hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import typing as t
from pathlib import Path

import state_files
from ansible_collections.slipway.stack.plugins.module_utils.containers import BEFORE, NEXT, TRIAL
from ansible_collections.slipway.stack.plugins.module_utils.history_file import FILE as HISTORY
from ansible_collections.slipway.stack.plugins.module_utils.history_file import KEEPING
from ansible_collections.slipway.stack.plugins.module_utils.revision import revision_of_files
from container_metrics import escaped

METRIC = "slipway_drift"
HELP = "Whether something of a service differs from what runs have left: its configuration was edited, or its container was removed."
#: Of a replacement, which takes seconds.
PASSING = (NEXT, BEFORE, TRIAL)


def edited(stack: Path) -> dict[str, bool]:
    """Return by service whether its live configuration differs from what was written; ``stack`` is the stack's folder on the host."""
    found = {}
    for link in sorted(stack.glob("*/config/current")):
        with contextlib.suppress(OSError):
            revision = os.readlink(link)
            top = link.parent / revision
            files = {str(path.relative_to(top)): path.read_bytes().decode("utf-8", "replace") for path in top.rglob("*") if path.is_file()}
            found[link.parts[-3]] = revision_of_files(files) != revision
    return found


def last_run(stack: Path) -> str:
    """Return what identifies the last run that may have changed containers of this host, or "" where none is known."""
    with contextlib.suppress(OSError):
        for line in reversed((stack / HISTORY).read_text().splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                run = json.loads(line)
                if run["playbook"] not in KEEPING:
                    return f"{run['playbook']} {run['started']}"
    return ""


def removed(file: Path, run: str, containers: t.Mapping[str, bool]) -> dict[str, bool]:
    """Return by container that was to run since the last run whether it is gone.

    Args:
        file: where the names are kept from pass to pass; one that is missing or damaged is as none.
        run: the last run that changed this host, or "" where none is known; then it is the one that was noted.
        containers: those that are there, by name, and whether each is to run.
    """
    try:
        before = json.loads(file.read_text())
        # Without the history, a container that is missing must not count as removed by a run.
        run = run or str(before["run"])
        noted = {str(name) for name in before["containers"]} if before["run"] == run else set()
    except (OSError, ValueError, KeyError, TypeError):
        before, noted = None, set()
    # One that need not run any more, such as that of the version before, is removed by a later run.
    noted = {name for name in noted if containers.get(name, True)}
    noted |= {name for name, expected in containers.items() if expected and not name.endswith(PASSING)}
    wanted = {"run": run, "containers": sorted(noted)}
    if wanted != before:
        state_files.write(file, json.dumps(wanted))
    return {name: name not in containers for name in sorted(noted)}


def text(stack: Path, file: Path, containers: t.Mapping[str, bool]) -> str:
    """Return the figures as Prometheus' node_exporter reads them; the arguments are those of ``edited`` and ``removed``."""
    rows = [(service, "configuration", differs) for service, differs in edited(stack).items()]
    gone = removed(file, last_run(stack), containers)
    rows += [(name.removeprefix(f"{stack.name}-"), "container", is_gone) for name, is_gone in gone.items()]
    samples = (
        f'{METRIC}{{stack="{escaped(stack.name)}",service="{escaped(service)}",what="{what}"}} {differs:d}\n'
        for service, what, differs in rows
    )
    return f"# HELP {METRIC} {HELP}\n# TYPE {METRIC} gauge\n{''.join(samples)}"
