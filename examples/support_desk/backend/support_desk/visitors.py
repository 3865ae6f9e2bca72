"""A visitor is a browser: an id in a signed cookie, so that no visitor lists another's sessions by making one up."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Iterable

COOKIE = "support_desk_visitor"
COOKIE_SECONDS = 365 * 24 * 3600


def _signature(visitor_id: uuid.UUID, secret_key: str) -> str:
    return hmac.new(secret_key.encode(), b"visitor:" + visitor_id.bytes, hashlib.sha256).hexdigest()


def sign(visitor_id: uuid.UUID, secret_key: str) -> str:
    """Return the cookie's value."""
    return f"{visitor_id}.{_signature(visitor_id, secret_key)}"


def verify(value: str | None, secret_keys: Iterable[str]) -> uuid.UUID | None:
    """Return the visitor of a cookie, or None where there is none or it was signed with none of the keys."""
    text, _, signature = (value or "").partition(".")
    try:
        visitor_id = uuid.UUID(text)
    except ValueError:
        return None
    # As bytes: comparing text outside ASCII is an error.
    given = signature.encode(errors="replace")
    known = any(hmac.compare_digest(given, _signature(visitor_id, key).encode()) for key in secret_keys)
    return visitor_id if known else None
