"""Backends that are healthy and ready, and fail all the same."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from support_desk.app import create_app

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

#: Long enough for the answer to arrive, and shorter than the way from the gate to the switch.
LAST_SECONDS = 0.2
CHECKED = ("/health", "/ready")


def dying() -> Application:
    """Return an application that ends its process as soon as it has said that it is ready."""
    product = create_app()

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await product(scope, receive, send)
        if scope["type"] == "http" and scope["path"] == "/ready":
            asyncio.get_running_loop().call_later(LAST_SECONDS, os._exit, 1)

    return application


def failing() -> Application:
    """Return an application that answers its checks, and everything else with an error."""
    product = create_app()

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in CHECKED:
            await send({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"out of order\n"})
        else:
            await product(scope, receive, send)

    return application
