# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for the units of systemd that a role declares."""

from __future__ import annotations

import hashlib
import json
import re
import typing as t

UNITS = "/etc/systemd/system"


def unit_files(contents: t.Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return units, of which ``contents`` has the text by name, as files of the host."""
    return {f"{UNITS}/{name}": {"content": text, "mode": "0644"} for name, text in sorted(contents.items())}


def timer_plan(files: t.Mapping[str, t.Mapping[str, t.Any]], units: t.Mapping[str, t.Any], pattern: str, record: str) -> dict[str, t.Any]:
    """Return what makes systemd run the declared timers, and no others of the role.

    Args:
        files: the host's files, as ``host_state`` lists them.
        units: the declared units by path; the timers among them are wanted.
        pattern: regular expression for the names of all units that the role ever had, without their ends.
        record: path of the link that records which units systemd has loaded, as a run may die between writing and loading them.

    Returns:
        ``timers`` (names of the wanted ones), ``stale`` (names of units that are not declared), ``units`` (a digest of what is declared),
        ``record``, and ``differs``.
    """
    known = re.compile(rf"{re.escape(UNITS)}/({pattern})\.(timer|service)")
    stale = [path.rpartition("/")[2] for path in sorted(files) if known.fullmatch(path) and path not in units]
    timers = [path.rpartition("/")[2] for path in sorted(units) if path.endswith(".timer")]
    idle = [name for name in timers if f"{UNITS}/timers.target.wants/{name}" not in files]
    digest = hashlib.sha256(json.dumps(units, sort_keys=True).encode()).hexdigest() if units else ""
    loaded = str(files.get(record, {}).get("link", ""))
    return {"timers": timers, "stale": stale, "units": digest, "record": record, "differs": bool(stale or idle) or loaded != digest}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filters by name."""
        return {"timer_plan": timer_plan, "unit_files": unit_files}
