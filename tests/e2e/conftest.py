"""Headless Chromium for tests of the page, through the balancer."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, BrowserContext, Page
from slipway_browser import chromium

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "reports"


@pytest.fixture(scope="session")
def place() -> tuple[str, Path]:
    """The address to open and the authority to trust: SLIPWAY_URL and SLIPWAY_CA, or those of the lab that LAB names."""
    if "SLIPWAY_URL" in os.environ:
        return os.environ["SLIPWAY_URL"], Path(os.environ["SLIPWAY_CA"])
    inventory = ROOT / "inventories" / os.environ.get("LAB", "lab")
    line = (inventory / "group_vars/all/lab.yml").read_text(encoding="utf-8").partition("slipway_public_url: ")[2]
    return line.split()[0], inventory / "pki/ca.pem"


def trusted_key(url: str, authority: Path) -> str:
    """Return the key of the certificate at an address as Chromium names it; the authority must have issued the certificate."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection((parts.hostname, parts.port or 443), 10) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as line,
    ):
        certificate = x509.load_der_x509_certificate(line.getpeercert(binary_form=True) or b"")
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


# Of this module alone: while it is open, no other test may run an event loop.
@pytest.fixture(scope="module")
def browser(place: tuple[str, Path]) -> Iterator[Browser]:
    REPORTS.mkdir(exist_ok=True)
    # The one key that the lab's authority vouches for is trusted; any other certificate is an error, as for a person.
    with chromium(f"--ignore-certificate-errors-spki-list={trusted_key(*place)}") as made:
        yield made


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1200, "height": 800})
    yield made
    # The way a test left the page, for whoever asks why it failed.
    for number, page in enumerate(made.pages):
        page.screenshot(path=REPORTS / f"e2e-end-{number}.png")
    made.close()


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(context: BrowserContext, complaints: list[str]) -> Page:
    made = context.new_page()
    # A breach of the content security policy is an error of the console, as is a script that failed.
    made.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    made.on("pageerror", lambda error: complaints.append(str(error)))
    return made
