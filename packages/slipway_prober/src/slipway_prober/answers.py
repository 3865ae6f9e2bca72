# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an answer says about its version, and why there was none."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping

from .settings import Settings

# A body is read to its end but only this much of it is looked at.
KEPT_BODY_BYTES = 65536


class AnswerError(Exception):
    """A request got no complete answer; the message says what happened to it."""


class UnansweredError(AnswerError):
    """A connection ended before the first byte of an answer."""


def version_in(settings: Settings, headers: Mapping[str, str], body: bytes | bytearray) -> str:
    """Return what an answer says about the version that gave it, or nothing."""
    if settings.version_header:
        return headers.get(settings.version_header.lower(), "")
    if not settings.version_json_field:
        return ""
    try:
        value = json.loads(bytes(body))
        for part in settings.version_json_field.split("."):
            value = value[part]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(value)


def explained(error: BaseException) -> str:
    """Return what went wrong with a connection, in a few words."""
    if isinstance(error, AnswerError):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"
