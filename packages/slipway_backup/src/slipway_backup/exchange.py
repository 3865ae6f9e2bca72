# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps runs and restores apart: data that a run captures while a restore exchanges the stack's is of no moment.

No lock: a restore does not wait for a run of hours. The run fails instead, and the restore starts another one at its end.
"""

from __future__ import annotations

from slipway_backup.common import JSON, Config, StepError, now, read_json, stamp, write_json

STATE = "exchange.json"


def record(config: Config, under_way: bool) -> None:
    """Record that a restore begins to exchange data, or has ended to."""
    config.state.mkdir(parents=True, exist_ok=True)
    write_json(config.state / STATE, {"under_way": under_way, "since": stamp(now())})


def state(config: Config) -> JSON:
    """Return what the last restore has recorded, for ``refuse_mixed``.

    Raises:
        StepError: one exchanges data now.
    """
    last: JSON = read_json(config.state / STATE, {})
    if last.get("under_way"):
        raise StepError(f"a restore exchanges data since {last['since']}: end it with restore.yml, which makes a new point")
    return last


def refuse_mixed(config: Config, before: JSON) -> None:
    """Refuse a point that would hold data from before an exchange and from after it.

    Args:
        config: names the data.
        before: what ``state`` returned when the run began to capture.

    Raises:
        StepError: a restore has exchanged data since, or does now.
    """
    if state(config) != before:
        raise StepError("a restore has exchanged data while the point was made")
