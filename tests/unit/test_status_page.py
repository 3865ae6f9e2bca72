# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of status.yml is read by everybody: in headless Chromium, on a desk and on a phone, in light and in dark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser
from slipway_browser import PROGRAM, chromium, violations

from ansible_collections.slipway.stack.plugins.plugin_utils import status_page
from ansible_collections.slipway.stack.plugins.plugin_utils.status import Fleet, judge
from test_status import API, PEM, REDIS, certificate, changed, fleet

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")

RUN = {
    "finished": "2027-01-15T07:00:00Z", "playbook": "deploy", "version": "2", "result": "blue_green", "changes": 12, "requests_lost": 0,
    "user": "ann", "controller": "desk",
}  # fmt: skip
JOB = {"job": "prune", "moment": "m", "finished": "2027-01-15T07:00:00Z", "log": []}


def full(found: Fleet, result: str) -> Fleet:
    """Return the fleet with a row of all that a page can show."""
    found.states["a2"]["files"] |= {
        "/etc/slipway/s/jobs/state/prune.json": {"content": json.dumps({**JOB, "result": result})},
        PEM[1]: {"content": certificate(60)},
    }
    return replace(found, history=[RUN])


def well() -> Fleet:
    return full(fleet(), "succeeded")


def degraded() -> Fleet:
    found = full(changed("a1", (*API, "health"), "unhealthy"), "failed")
    found.states["a1"]["reach"] = {"db:6379": "refused"}
    lock = {"run": "r", "step": "switch", "holder": {"user": "ann", "controller": "desk"}}
    return replace(found, reasons={"redis": {"db": ["redis: maxmemory differs"]}}, lock=lock)


def down() -> Fleet:
    found = full(changed("db", (*REDIS, "health"), "unhealthy"), "succeeded")
    found.states["a1"] = {"msg": "no route to host"}
    return found


@pytest.fixture(scope="module")
def browser(pytestconfig: pytest.Config) -> Iterator[Browser]:
    if pytestconfig.getoption("--no-programs"):
        pytest.skip("starts Chromium")
    with chromium() as made:
        yield made


@pytest.mark.parametrize(("width", "height", "scheme"), [(1200, 900, "light"), (360, 740, "dark")])
@pytest.mark.parametrize(("shown", "state"), [(well, "well"), (degraded, "attention"), (down, "down")])
def test_the_page_is_accessible(
    browser: Browser, tmp_path: Path, shown: Callable[[], Fleet], state: str, width: int, height: int, scheme: Literal["light", "dark"]
):
    status = judge(shown())
    assert status["state"] == state
    assert all(status[kind] for kind in ("hosts", "services", "certificates", "recovery", "jobs", "releases", "history", "connections"))
    file = tmp_path / "status.html"
    file.write_text(status_page.page(status), encoding="utf-8")
    asked: list[str] = []
    complaints: list[str] = []
    with browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, offline=True) as context:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than the screen"
        assert violations(page) == []
        page.screenshot(path=tmp_path / "status.png", full_page=True)
        assert (asked, complaints) == ([file.as_uri()], [])
