"""Calendar events are judged as systemd judges them, also on a controller without it."""

from __future__ import annotations

import datetime as dt
import shutil

import pytest

from ansible_collections.slipway.stack.plugins.plugin_utils import calendar_events
from ansible_collections.slipway.stack.plugins.plugin_utils.calendar_events import NEVER, comes, dates_of, is_calendar

#: Usual schedules, which need no systemd on the controller.
USUAL = [
    *("*-*-* 02:15:00", "daily", "DAILY", "Mon..Fri *-*-* 22:30", "Sun 03:00", "Mon,Thu *-2-29 02:00 UTC", "Fri", "1:2", "03:00"),
    *("*:0/5", "*-*-* *:*:00", "*-*-* *:00/15:00", "*-*-* 00,12:00", "*-*-* 03:00:00 Europe/Berlin", "daily UTC", "*-*-01 03:00:00 UTC"),
    *("*:0/30", "*:*:59", "*:1,2,3..5/2", "Mon,Tue..Thu 1..5:0/10", "hourly America/Argentina/Buenos_Aires", "*-01..03-01", "*-*-1/2"),
    *("11-23", "*-2,4-30", "Sat..Sun 4:00", "Monday..Friday 9:00", "*-*-31 0:00", "*-02-29", "2199-01-01", "weekly Etc/GMT+3"),
]
#: What systemd refuses.
WRONG = [
    *(
        "nonsense",
        "",
        "*-*-* 25:00:00",
        "99:99",
        "Moonday 03:00",
        "*-13-* 03:00",
        "24:00",
        "*-0-1 3:00",
        "Mon..Xyz 3:00",
        "*:0/60",
        "*:0/0",
    ),
    *("*-*-*/2", "*:*:60", "2200-01-01", "*-*-32", "*-*-0", "*-*-* 03:00 europe/berlin", "UTC", "3", "a b c"),
    *(
        "*-*-* 1:2:3:4",
        "*-*-*-*",
        "1:2 3:4",
        "*:9..5",
        "*: 0",
        "--help",
        "*-*-* 02:15:00\n[Service]",
        "daily weekly",
        "1:00 Europe/Atlantis",
    ),
]
#: What it refuses, or starts never: its week begins on Monday.
BACKWARD = {
    "Sun..Thu 03:00": "Sun,Mon..Thu", "Sat..Mon": "Sat..Sun,Mon", "Fri..Mon 03:00": "Fri..Sun,Mon", "Sat..Tue *:0/5": "Sat..Sun,Mon..Tue",
    "sunday..thursday 1:00 UTC": "sunday,Mon..thursday",
}  # fmt: skip
PAST = [
    "2020-01-01",
    "*-02-31 00:00",
    "*-2-30,31",
    "*-4,6,9,11-31",
    "2027-02-29",
    "2020..2024-*-* 3:00",
    "1970-01-01 00:00 UTC",
    "Mon 2127-02-29",
]


@pytest.fixture(params=["with", "without"])
def systemd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the controller has systemd, where it may be asked at all."""
    if request.param == "without":
        monkeypatch.setattr(shutil, "which", lambda _name: None)
    elif shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return str(request.param)


@pytest.mark.parametrize("text", USUAL)
def test_usual_events_are_taken_without_systemd(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(calendar_events, "_asked", lambda _text: pytest.fail("systemd is asked"))
    assert is_calendar.__wrapped__(text) is True


@pytest.mark.parametrize("text", WRONG)
def test_what_systemd_refuses_is_refused(systemd: str, text: str):
    assert is_calendar.__wrapped__(text) is False, systemd


@pytest.mark.parametrize("text", PAST)
def test_an_event_that_never_comes_is_refused(systemd: str, text: str):
    assert is_calendar.__wrapped__(text) == NEVER, systemd


@pytest.mark.parametrize("text", BACKWARD)
def test_a_range_of_days_that_ends_before_it_begins_is_refused_with_what_to_write(systemd: str, text: str):
    wanted = BACKWARD[text]
    problem = is_calendar.__wrapped__(text)
    assert f"write {wanted} for " in str(problem), systemd
    assert is_calendar.__wrapped__(text.replace(str(problem).rpartition(" for ")[2], wanted)) is True


@pytest.mark.parametrize("text", ["Mon *-*~1", "*-*-* 03:00:00.5", "Mon, 3:00", "*:1..2/9"])
def test_unusual_events_are_for_systemd_to_judge(systemd: str, text: str):
    assert is_calendar.__wrapped__(text) is (systemd == "with")


@pytest.mark.parametrize("text", [*USUAL, *WRONG, *BACKWARD, *PAST])
def test_no_event_is_judged_otherwise_than_by_systemd(text: str):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    assert (calendar_events._asked(text) is True) is (text in USUAL)


@pytest.mark.parametrize(("today", "found"), [(dt.date(2026, 11, 30), True), (dt.date(2026, 12, 1), False)])
def test_an_event_of_today_may_still_come(today: dt.date, found: bool):
    assert comes(dates_of("2026-11-30 23:00"), today) is found
