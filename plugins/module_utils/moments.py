# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a date and time as people paste it: of RFC 3339, a log's nanoseconds, or psql, which writes +00 and no zeros at the end."""

from __future__ import annotations

import re
from datetime import datetime

MOMENT = re.compile(r"(?a:(\d{4}-\d\d-\d\d)[T ]((?:[01]\d|2[0-3]):\d\d)(:\d\d)?(?:[.](\d{1,9}))?\s?(?:(Z)|([+-]\d\d):?(\d\d)?)?)")


def parse_moment(text: str) -> datetime:
    """Return a date and time, without a zone if the text has none.

    Raises:
        ValueError: it is none, or there is no such moment.
    """
    found = MOMENT.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not a time such as 2026-11-23T02:15:00+00:00")
    day, minute, second, fraction, utc, hours, minutes = found.groups("")
    zone = "+00:00" if utc else f"{hours}:{minutes or '00'}" if hours else ""
    # Python 3.10 of a host reads fractions of three or six digits, and zones with a colon.
    return datetime.fromisoformat(f"{day}T{minute}{second or ':00'}.{fraction[:6]:0<6}{zone}")
