# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a host's history, to which runs of a controller and programs of the host add lines.

docs/operate.md describes the fields of a line.
"""

from __future__ import annotations

import json
import typing as t

#: Where host_state reads it with the release's records, below the stack's folder.
FILE = "release/history.jsonl"
#: The same of restarts by the watchdog, which may be many: in the same file, they would push out what is known of runs.
RESTARTS = "release/restarts.jsonl"
#: Lines that a host keeps of each file, the newest.
KEPT = 150
#: Playbooks that leave all containers as they are, and the watchdog, whose restarts were in the file of runs before they had their own. A
#: container that is gone after one of these was not removed by it.
KEEPING = ("backup", "drill", "psql", "redis", "run", "shell", "watchdog")
#: A stack that was destroyed has no history. Writers wait for each other; without flock, one may lose the other's line, and damages none.
SCRIPT = """
cd "/etc/slipway/$1" 2>/dev/null || exit 0
mkdir -p release && exec 9<release || exit
flock -w 5 9 2>/dev/null
trap 'rm -f "release/.history.$$"' EXIT
{ tail -n "$4" "$3" 2>/dev/null; printf '%s\\n' "$2"; } >"release/.history.$$" && mv "release/.history.$$" "$3"
"""

Row = dict[str, t.Any]


def argv(stack: str, row: Row, file: str = FILE) -> list[str]:
    """Return the command that adds a line on a host, and removes the oldest ones."""
    return ["sh", "-c", SCRIPT, "sh", stack, json.dumps(row), file, str(KEPT - 1)]
