# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transfers a restored folder to another host: once, encrypted, to the client that knows the one-time word."""

from __future__ import annotations

import hashlib
import http.server
import secrets
import ssl
import subprocess
import tempfile
import time
import typing as t
from pathlib import Path

from slipway_backup.common import StepError, execute

PIECE = 2**20
#: Bytes that the folder takes on a disk.
BYTES_HEADER = "Slipway-Bytes"
#: How long to wait for the client, which may have to wait for transfers to other hosts. What is left behind ends with the next restore.
PATIENCE_SECONDS = 24 * 3600


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """Make a key and a certificate for this transfer alone; return what serves with them, and the certificate's SHA-256."""
    key, made = folder / "key.pem", folder / "certificate.pem"
    execute(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2",
            "-subj", "/CN=slipway-restore", "-keyout", str(key), "-out", str(made),
        ],
        "create a certificate",
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(made, key)
    return context, hashlib.sha256(ssl.PEM_cert_to_DER_cert(made.read_text())).hexdigest()


def send(folder: Path, port: int) -> None:
    """Print a word and the digest of a certificate, and serve the folder as a tar file under the word until a client has all of it.

    Raises:
        StepError: no client fetched it in time.
    """
    word = secrets.token_urlsafe(32)
    done: list[bool] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        # Sent in pieces: who gets no last one knows that something is missing.
        protocol_version = "HTTP/1.1"
        # Who connects and says nothing must not keep others out.
        timeout = 120

        def do_GET(self) -> None:
            """Answer with the folder."""
            if not secrets.compare_digest(self.path.lstrip("/").encode(), word.encode()):
                self.send_error(404)
                return
            # Takes minutes for millions of files; the client waits longer than whoever starts this program.
            needed = execute(["du", "--summarize", "--block-size=1", str(folder)], f"measure {folder}").stdout.split()[0]
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header(BYTES_HEADER, needed)
            self.send_header("Connection", "close")
            self.end_headers()
            with subprocess.Popen(
                ["tar", "-C", str(folder), "--numeric-owner", "--sparse", "-cf", "-", "."], stdout=subprocess.PIPE
            ) as packer:
                stream = t.cast("t.IO[bytes]", packer.stdout)
                while piece := stream.read(PIECE):
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            if packer.returncode == 0:
                self.wfile.write(b"0\r\n\r\n")
                done.append(True)

        def log_message(self, format: str, *arguments: t.Any) -> None:  # noqa: A002 - the name is inherited
            """Keep the word out of the log."""

    with tempfile.TemporaryDirectory() as place:
        context, digest = certificate(Path(place))
    with http.server.HTTPServer(("", port), Handler) as server:
        # The handshake is the handler's, and so is its timeout.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.timeout = 5
        print(f"{word}#{digest}", flush=True)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not done:
            server.handle_request()
            if not done and time.monotonic() > deadline:
                raise StepError(f"no host has fetched {folder} within {PATIENCE_SECONDS} s")
