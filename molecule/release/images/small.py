"""A backend that offers what a release asks for and nothing else, so that it starts at once; or one that misbehaves.

python3 small.py [dies|errors|sours|unready]
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Long enough for the answer to arrive, and shorter than the way from the gate to the switch.
LAST_SECONDS = 0.2
#: Longer than the way from a client's first request to the last one of the probe, on a slow machine too.
GOOD_SECONDS = 6
CHECKED = ("/health", "/ready")
FAULT = sys.argv[1] if len(sys.argv) > 1 else ""


first_request: list[float] = []


def status_of(path: str) -> int:
    """Return what a path is answered with."""
    if FAULT == "unready" and path == "/ready":
        return 503
    if path in CHECKED:
        return 200
    first_request.append(time.monotonic())
    return 500 if FAULT == "errors" or (FAULT == "sours" and time.monotonic() - first_request[0] > GOOD_SECONDS) else 200


class Handler(BaseHTTPRequestHandler):
    """Answers every request with the version."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer; a version that dies does so as soon as it has answered that it is ready."""
        status = status_of(self.path)
        body = json.dumps({"version": os.environ["APP_VERSION"], "instance": socket.gethostname(), "status": "ready"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if FAULT == "dies" and self.path == "/ready":
            threading.Timer(LAST_SECONDS, os._exit, [1]).start()

    def log_message(self, *_: object) -> None:
        """Say nothing: probes are all that comes."""


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
