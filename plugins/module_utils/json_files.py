# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read JSON that a program of a host has left for others: a crash of the host, a full disk or a person may have damaged it.

A shape says what a reader needs of a value: a type; a list of a shape, for a list of any length; a dictionary, for an object with at least
these members; a tuple, for one of several shapes; None, for null or a missing member; a function that says whether a value will do.
"""

from __future__ import annotations

import json
import typing as t

Shape = t.Any

NUMBER = (int, float)
#: What the program of role jobs leaves of the last run of a job.
JOB: Shape = {"job": str, "moment": str, "finished": str, "result": str, "log": [str]}
#: What the program of role acme leaves of the last renewal: after a failed first one, there is no certificate.
RENEWAL: Shape = {
    "error": (str, None),
    "names": ([str], None),
    "directory_url": (str, None),
    "begins": (*NUMBER, None),
    "ends": (*NUMBER, None),
}


def json_object(text: str | bytes | None, shape: Shape) -> dict[str, t.Any] | None:
    """Return the object that a string of JSON holds, or None if it holds none of this shape, or there is no string."""
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _fits(value, shape) else None


def _fits(value: t.Any, shape: Shape) -> bool:
    """Return whether a value has a shape."""
    if isinstance(shape, tuple):
        return any(_fits(value, one) for one in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(member, shape[0]) for member in value)
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(_fits(value.get(name), of) for name, of in shape.items())
    if isinstance(shape, type):
        return isinstance(value, shape)
    return value is None if shape is None else bool(shape(value))
