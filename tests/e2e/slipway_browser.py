"""Headless Chromium, and what axe-core finds in a page, for tests of all kinds."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """Yield a browser that is started with these arguments too. While it is open, its thread may run no event loop."""
    assert PROGRAM, "no Chromium is installed: apt-get install chromium"
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start as root, and in most containers.
        made = playwright.chromium.launch(executable_path=PROGRAM, args=[*ARGUMENTS, *arguments], chromium_sandbox=os.geteuid() != 0)
        yield made
        made.close()


def violations(page: Page) -> list[str]:
    """Return the violations of accessibility rules that axe-core finds in a page, of any impact: which rule, and where."""
    # With the rules that passed too: an empty page must not pass.
    found = Axe().run(page, options={}).response
    assert "color-contrast" in {rule["id"] for rule in found["passes"] + found["violations"]}, "axe-core found nothing to look at"
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: {node['html']}: {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
