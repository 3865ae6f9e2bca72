"""A visitor is a browser: an id in a signed cookie, so that no visitor lists another's sessions by making one up."""

from __future__ import annotations

import hashlib
import hmac
import uuid

COOKIE = "support_desk_visitor"
COOKIE_SECONDS = 365 * 24 * 3600


def _signature(visitor_id: uuid.UUID, secret_key: str) -> str:
    return hmac.new(secret_key.encode(), b"visitor:" + visitor_id.bytes, hashlib.sha256).hexdigest()


def sign(visitor_id: uuid.UUID, secret_key: str) -> str:
    """Return the cookie's value."""
    return f"{visitor_id}.{_signature(visitor_id, secret_key)}"


def verify(value: str | None, secret_key: str) -> uuid.UUID | None:
    """Return the visitor of a cookie, or None where there is none or this server did not sign it."""
    text, _, signature = (value or "").partition(".")
    try:
        visitor_id = uuid.UUID(text)
    except ValueError:
        return None
    # As bytes: comparing text outside ASCII is an error.
    given, wanted = signature.encode(errors="replace"), _signature(visitor_id, secret_key).encode()
    return visitor_id if hmac.compare_digest(given, wanted) else None
