# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small Docker Engine API client that needs nothing but Python's standard library.

``host_state`` must run on a host that has no Docker and no Python packages yet, and its successors must not pay for the import
of an SDK on each call. Only what our own modules ask of an engine is here; containers are made by community.docker's modules.
API reference: https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import tarfile
import time
import typing as t
from urllib.parse import quote, urlencode

from ansible_collections.slipway.stack.plugins.module_utils import stops

DEFAULT_SOCKET = "/var/run/docker.sock"
#: Seconds that an engine may take over a stop beyond the container's own stop timeout.
STOP_GRACE = 30


class EngineError(Exception):
    """The engine could not be reached, or it refused a request.

    Attributes:
        status: the HTTP status, or 0 when no engine answered.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        """Keep the message and the HTTP status."""
        super().__init__(message)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the engine's socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def normal_reference(reference: str) -> str:
    """Return an image reference as the engine lists it: no default registry, a tag unless there is a digest, never both."""
    for prefix in ("docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/", "library/"):
        if reference.startswith(prefix):
            reference = reference[len(prefix) :]
            break
    name, at, digest = reference.partition("@")
    folder, slash, last = name.rpartition("/")
    if at:
        return f"{folder}{slash}{last.partition(':')[0]}@{digest}"
    return name if ":" in last else f"{name}:latest"


def demultiplex(stream: bytes) -> tuple[str, str]:
    """Split the engine's attached-stream format into standard output and standard error.

    Each frame is one byte of stream number, three of padding, four of big-endian length, and the payload.
    """
    out, err = bytearray(), bytearray()
    position = 0
    while position + 8 <= len(stream):
        kind = stream[position]
        length = int.from_bytes(stream[position + 4 : position + 8], "big")
        payload = stream[position + 8 : position + 8 + length]
        (err if kind == 2 else out).extend(payload)
        position += 8 + length
    return out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def lines_of(text: str) -> list[str]:
    """Return the lines of a log or file, as programs count them: a line feed ends one, alone or after carriage returns.

    For str.splitlines so do a carriage return, as of a progress bar, a form feed, and separators of Unicode that JSON may hold.
    """
    *lines, rest = text.split("\n")
    return [line.rstrip("\r") for line in ([*lines, rest] if rest else lines)]


class Engine:
    """One Docker Engine, reached over its unix socket."""

    def __init__(self, socket_path: str = DEFAULT_SOCKET, timeout: float = 60.0) -> None:
        """Remember where the engine listens; ``timeout`` is in seconds and holds for each request."""
        self.socket_path = socket_path
        self.timeout = timeout

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, t.Any] | None = None,
        body: t.Any = None,
        timeout: float | None = None,
        more_headers: dict[str, str] | None = None,
    ) -> bytes:
        """Send one request and return the body of the answer.

        Raises:
            EngineError: no engine answers, or it answers with a status of 400 and more.
        """
        if query:
            path += "?" + urlencode(query)
        connection = _UnixConnection(self.socket_path, self.timeout if timeout is None else timeout)
        headers, payload = dict(more_headers or {}), None
        if body is not None:
            headers["Content-Type"] = "application/json"
            payload = json.dumps(body).encode()
        try:
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"Docker Engine at {self.socket_path}: {error}") from error
        finally:
            connection.close()
        if response.status >= 400:
            try:
                message = json.loads(content).get("message", "")
            except ValueError:
                message = content.decode("utf-8", "replace")
            raise EngineError(message.strip() or f"HTTP {response.status}", response.status)
        return content

    def get(self, path: str, timeout: float | None = None, **query: t.Any) -> t.Any:
        """Return the decoded JSON that a GET request answers."""
        return json.loads(self.request("GET", path, query or None, timeout=timeout))

    def version(self) -> dict[str, str]:
        """Return the engine's version document."""
        return t.cast("dict[str, str]", self.get("/version"))

    def containers(self) -> list[dict[str, t.Any]]:
        """Return the short description of every container, running or not."""
        return t.cast("list[dict[str, t.Any]]", self.get("/containers/json", all="1"))

    def inspect(self, container: str) -> dict[str, t.Any] | None:
        """Return a container's description, or None when there is no such container."""
        try:
            return t.cast("dict[str, t.Any]", self.get(f"/containers/{quote(container)}/json"))
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    def stop(self, inspected: dict[str, t.Any]) -> None:
        """End a container as its service wants it, within its own stop timeout; the watchdog does not restart it meanwhile.

        Raises:
            EngineError: it does not end in time, or there is no such container.
        """
        timeout = inspected["Config"].get("StopTimeout") or 10
        with stops.stopping(inspected["Id"], timeout + STOP_GRACE):
            self.request("POST", f"/containers/{inspected['Id']}/stop", timeout=timeout + STOP_GRACE)

    def remove(self, container: str, *, volumes: bool = False, timeout: float = 30.0) -> None:
        """Remove a container, running or not, and return once it is gone; one that is not there is gone.

        Args:
            container: its name or identity.
            volumes: whether volumes without a name go with it.
            timeout: seconds to wait for whoever removes it already, as the engine does with one that was started to be removed at its end.

        Raises:
            EngineError: it is still there.
        """
        try:
            self.request("DELETE", f"/containers/{quote(container)}", {"force": 1, "v": int(volumes)})
        except EngineError as error:
            if error.status == 404:
                return
            deadline = time.monotonic() + timeout
            while self.inspect(container) is not None:
                if error.status != 409 or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def execute(self, container: str, argv: list[str], user: str = "", timeout: float = 30.0) -> tuple[int, str, str]:
        """Run a command in a running container; return its exit status, standard output and standard error."""
        created = json.loads(
            self.request(
                "POST",
                f"/containers/{quote(container)}/exec",
                body={"AttachStdout": True, "AttachStderr": True, "Cmd": argv, "User": user},
            )
        )
        stream = self.request("POST", f"/exec/{created['Id']}/start", body={"Detach": False, "Tty": False}, timeout=timeout)
        out, err = demultiplex(stream)
        code = self.get(f"/exec/{created['Id']}/json").get("ExitCode")
        return (1 if code is None else int(code)), out, err

    def logs(self, container: str, lines: int | str, **query: t.Any) -> str:
        """Return the last lines that a container wrote, both streams in their order.

        Args:
            container: its name or identity.
            lines: how many, or ``all``.
            query: what else the engine's API takes, as ``since`` and ``timestamps``.
        """
        stream = self.request("GET", f"/containers/{quote(container)}/logs", {"stdout": 1, "stderr": 1, "tail": lines, **query})
        text, position = bytearray(), 0
        # Unlike demultiplex, keep the two streams interleaved: a log is read in the order of its events.
        while position + 8 <= len(stream):
            length = int.from_bytes(stream[position + 4 : position + 8], "big")
            text.extend(stream[position + 8 : position + 8 + length])
            position += 8 + length
        return text.decode("utf-8", "replace")

    def image_id(self, image: str) -> str:
        """Return the ID of the image of a name, or an empty string where there is none."""
        try:
            return str(self.get(f"/images/{quote(image, safe='')}/json")["Id"])
        except EngineError as error:
            if error.status == 404:
                return ""
            raise

    def image_command(self, image: str) -> tuple[list[str], list[str]]:
        """Return the entrypoint and the command that an image brings along; empty where it has none.

        Raises:
            EngineError: the image does not exist.
        """
        config = self.get(f"/images/{quote(image, safe='')}/json").get("Config") or {}
        return list(config.get("Entrypoint") or []), list(config.get("Cmd") or [])

    def image_user(self, image: str, user: str) -> tuple[int, int]:
        """Resolve the user a container of ``image`` runs as to numbers.

        ``user`` is a name or number, with an optional group behind a colon; empty means the image's own user. Names are looked up
        in the image's /etc/passwd.

        Raises:
            EngineError: the image or the user does not exist.
        """
        user = user or self.get(f"/images/{quote(image, safe='')}/json")["Config"].get("User", "") or "0"
        name, _colon, group = user.partition(":")
        if name.isdigit() and group.isdigit():
            return int(name), int(group)
        passwd, groups = self.image_files(image, ["/etc/passwd", "/etc/group"])
        entries = [line.split(":") for line in lines_of(passwd) if line.count(":") >= 6]
        entry = next((item for item in entries if name in (item[0], item[2])), None)
        if entry is None and not name.isdigit():
            raise EngineError(f"image {image} has no user {name!r} in its /etc/passwd", 404)
        uid = int(entry[2]) if entry else int(name)
        gid = int(entry[3]) if entry else 0
        if group:
            rows = [line.split(":") for line in lines_of(groups) if line.count(":") >= 3]
            row = next((item for item in rows if group in (item[0], item[2])), None)
            if row is None and not group.isdigit():
                raise EngineError(f"image {image} has no group {group!r} in its /etc/group", 404)
            gid = int(row[2]) if row else int(group)
        return uid, gid

    def image_files(self, image: str, paths: list[str], container: str = "") -> list[str]:
        """Return the texts of files of an image, empty for those that it lacks.

        They are read from ``container``, one of this image, or from one that is created, never started, and removed, which takes longer.

        Raises:
            EngineError: the image does not exist.
        """
        created = ""
        if not container:
            created = json.loads(self.request("POST", "/containers/create", body={"Image": image, "Cmd": ["true"]}))["Id"]
        try:
            return [self._read_file(container or created, path) for path in paths]
        finally:
            if created:
                self.remove(created, volumes=True)

    def _read_file(self, container: str, path: str) -> str:
        """Return a file's text out of a container; empty when there is none."""
        try:
            archive = self.request("GET", f"/containers/{quote(container)}/archive", {"path": path})
        except EngineError as error:
            if error.status == 404:
                return ""
            raise
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.extractfile(tar.getmembers()[0])
            return member.read().decode("utf-8", "replace") if member else ""
