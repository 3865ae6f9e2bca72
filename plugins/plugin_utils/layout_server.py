# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The little server that an engine pulls images from, out of a folder of layers.

It speaks the part of the registry's protocol that a pull uses, over a unix socket that only its user can reach, and runs as long as a
task ships an image. https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import http.server
import os
import re
import socketserver
import threading
from typing import Any, Self

from ansible_collections.slipway.stack.plugins.module_utils.layout import CHUNK, MANIFEST, Layout

_REQUEST = re.compile(r"/v2/(.+)/(manifests|blobs)/(sha256:[0-9a-f]{64})")


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers an engine that pulls by digest."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Send a manifest or a blob."""
        self._answer(send=True)

    def do_HEAD(self) -> None:
        """Say whether there is a manifest or a blob."""
        self._answer(send=False)

    def _answer(self, *, send: bool) -> None:
        if self.path.rstrip("/") == "/v2":
            self._head(200, "application/json", 2)
            if send:
                self.wfile.write(b"{}")
            return
        wanted = _REQUEST.fullmatch(self.path)
        layout = self.server.layout
        path = layout.path(wanted[3]) if wanted else None
        if wanted is None or path is None or not path.exists():
            body = b'{"errors":[{"code":"NOT_FOUND","message":"not in the folder of images"}]}'
            self._head(404, "application/json", len(body))
            if send:
                self.wfile.write(body)
            return
        media = layout.manifest(wanted[3]).get("mediaType", MANIFEST) if wanted[2] == "manifests" else "application/octet-stream"
        self._head(200, media, path.stat().st_size, wanted[3])
        if not send:
            return
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                # Before: who has read the last byte must find it counted.
                self.server.count(len(chunk))
                self.wfile.write(chunk)

    def _head(self, status: int, media: str, size: int, digest: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(size))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()

    def log_message(self, *_unused: Any) -> None:
        """Say nothing: what matters is in the engine's own messages."""

    def address_string(self) -> str:
        """Return a name for the other end, which has no address."""
        return "tunnel"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves a folder of images on a unix socket while the context lasts, and counts the bytes of what it sends."""

    daemon_threads = True

    def __init__(self, layout: Layout, socket_path: str) -> None:
        """Listen on a socket that must not exist yet."""
        self.layout = layout
        self.bytes_sent = 0
        self._lock = threading.Lock()
        super().__init__(socket_path, _Handler)
        os.chmod(socket_path, 0o600)

    def count(self, number: int) -> None:
        """Count bytes that were sent."""
        with self._lock:
            self.bytes_sent += number

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing where an engine hangs up; it says why itself."""

    def __enter__(self) -> Self:
        """Begin to answer."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return self

    def __exit__(self, *_unused: object) -> None:
        """Stop to answer."""
        self.shutdown()
        self.server_close()
