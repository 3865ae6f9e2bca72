# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calendar events of systemd, as systemd.time(7) describes them: whether a timer takes one, and whether it ever comes. No Ansible in here.

The usual forms are judged here, as a controller need not have systemd, and starting a program takes longer than all other checks.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import itertools
import re
import shutil
import subprocess
import zoneinfo
from typing import NamedTuple

WORDS = ("minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "semiannually", "yearly", "annually")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
#: Years that systemd knows, and after how many of them a day of the week and the 29th of February have met.
FIRST_YEAR, LAST_YEAR, LONGEST_CYCLE = 1970, 2199, 41
#: What is wrong with an event that has no time to come.
NEVER = "a calendar event with a time to come, which this one has not"


class Dates(NamedTuple):
    """The dates on which an event comes: numbers of days of the week from 0 for Monday, years, months, and days of the month."""

    weekdays: frozenset[int]
    years: frozenset[int]
    months: frozenset[int]
    days: frozenset[int]


ALWAYS = Dates(frozenset(range(7)), frozenset(range(FIRST_YEAR, LAST_YEAR + 1)), frozenset(range(1, 13)), frozenset(range(1, 32)))


def _numbers(text: str, low: int, high: int) -> frozenset[int]:
    """Return the numbers of a field: of ``*``, or of a list of numbers and ranges, each perhaps with a step behind a slash.

    Raises:
        ValueError: It is none.
    """
    if text == "*":
        return frozenset(range(low, high + 1))
    found: set[int] = set()
    for item in text.split(","):
        parts = re.fullmatch(r"(\d{1,4})(?:\.\.(\d{1,4}))?(?:/(\d{1,4}))?", item, re.ASCII)
        if not parts:
            raise ValueError(f"{item} is not a number or a range")
        first, step = int(parts[1]), int(parts[3] or 0)
        last = int(parts[2]) if parts[2] else high if step else first
        if not low <= first <= last <= high or (parts[3] and not 0 < step <= last - first):
            raise ValueError(f"{item} is not between {low} and {high}")
        found.update(range(first, last + 1, step or 1))
    return frozenset(found)


def _weekday(name: str) -> int:
    """Return the number of a day of the week, by its name or the first three letters.

    Raises:
        ValueError: There is no such day.
    """
    for number, day in enumerate(DAYS):
        if name.lower() in (day, day[:3]):
            return number
    raise ValueError(f"{name} is not a day of the week")


def _is_zone(word: str) -> bool:
    """Return whether a word is a time zone."""
    if word == "UTC":
        return True
    try:
        return bool(re.fullmatch(r"[A-Z][\w+-]*(?:/[\w+-]+)+", word, re.ASCII)) and bool(zoneinfo.ZoneInfo(word))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False


def dates_of(text: str) -> Dates:
    """Return the dates on which an event comes.

    Raises:
        ValueError: The text is not an event, or of a form that only systemd knows.
    """
    words = text.split()
    if len(words) > 1 and _is_zone(words[-1]):
        words = words[:-1]
    if len(words) == 1 and words[0].lower() in WORDS:
        return ALWAYS
    found = ALWAYS
    if words and words[0][:1].isalpha():
        weekdays: set[int] = set()
        for item in words.pop(0).split(","):
            first, *last = map(_weekday, item.split("..", 1))
            if last and last[0] <= first:
                raise ValueError(f"{item} is not a range")
            weekdays.update(range(first, (last or [first])[0] + 1))
        found = found._replace(weekdays=frozenset(weekdays))
        words = words or ["00:00"]
    if words and "-" in words[0]:
        *year, month, day = words.pop(0).split("-")
        if len(year) > 1:
            raise ValueError("a date has a year, a month and a day")
        years = _numbers(year[0], FIRST_YEAR, LAST_YEAR) if year else found.years
        found = found._replace(years=years, months=_numbers(month, 1, 12), days=_numbers(day, 1, 31))
        words = words or ["00:00"]
    if len(words) != 1 or words[0].count(":") not in (1, 2):
        raise ValueError("there is no time, or something behind it")
    for part, high in zip(words[0].split(":"), (23, 59, 59), strict=False):
        _numbers(part, 0, high)
    return found


def comes(dates: Dates, today: dt.date) -> bool:
    """Return whether one of some dates is today or later."""
    years = [year for year in sorted(dates.years) if year >= today.year][:LONGEST_CYCLE]
    for year, month, day in itertools.product(years, sorted(dates.months), sorted(dates.days)):
        try:
            date = dt.date(year, month, day)
        except ValueError:
            continue
        if date >= today and date.weekday() in dates.weekdays:
            return True
    return False


def range_problem(text: str) -> str:
    """Return what an event must be where a range of its days of the week ends before it begins, or "": systemd's week begins on Monday."""
    items = (text.split() or [""])[0].split(",")
    for item in items:
        first, _unused, last = item.partition("..")
        with contextlib.suppress(ValueError):
            if _weekday(first) <= _weekday(last):
                continue
            before = first if first.lower().startswith("sun") else f"{first}..Sun"
            behind = last if last.lower().startswith("mon") else f"Mon..{last}"
            return f"a calendar event in whose ranges Monday is the first day: write {before},{behind} for {item}"
    return ""


@functools.lru_cache(maxsize=64)
def is_calendar(text: str) -> bool | str:
    """Return whether systemd accepts a string for OnCalendar, and starts the timer at some time, or what it must be.

    Unusual forms are for systemd to judge where it is installed, and refused elsewhere.
    """
    if not text.isprintable() or text.startswith("-"):
        return False
    if wrong := range_problem(text):
        return wrong
    try:
        dates = dates_of(text)
    except ValueError:
        return _asked(text)
    # The date of the farthest zone: that a time of today is over is for the timer.
    today = (dt.datetime.now(dt.timezone.utc) - dt.timedelta(hours=12)).date()
    return comes(dates, today) or NEVER


def _asked(text: str) -> bool | str:
    """Return what systemd says of an event; False where it is not installed."""
    program = shutil.which("systemd-analyze")
    if not program:
        return False
    try:
        done = subprocess.run([program, "calendar", "--", text], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0 and (NEVER if re.search(r"(?m)^\s*Next elapse: never", done.stdout) else True)
