# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent, where, how fast, and what counts as an answer; checked before anything is sent."""

from __future__ import annotations

import dataclasses
import math
import ssl
from collections.abc import Mapping
from typing import Any

import h11


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names it and its value."""


@dataclasses.dataclass(frozen=True)
class Target:
    """Where requests go: an address and port, and the name that is asked for there (SNI, Host, certificate)."""

    address: str
    port: int
    server_name: str

    def __str__(self) -> str:
        """Return address:port."""
        return f"{bracketed(self.address)}:{self.port}"


def bracketed(host: str) -> str:
    """Return a host as it is written in a URL or Host header: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is sent, where, how fast, and what counts as an answer."""

    targets: tuple[Target, ...]
    tls: bool = True
    verify: bool = True
    ca_file: str = ""
    rate: float = 10.0
    connections: int = 4
    connections_max: int = 0
    path: str = "/health"
    post_share: float = 0.0
    post_path: str = ""
    post_body: str = ""
    post_content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    accepted_statuses: tuple[tuple[int, int], ...] = ((200, 399),)
    timeout_seconds: float = 10.0
    version_header: str = ""
    version_json_field: str = ""
    websockets: int = 0
    websocket_path: str = "/ws"
    websocket_ping_seconds: float = 5.0
    websocket_reconnect_seconds: tuple[float, float] = (0.05, 1.0)

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Settings:
        """Return checked settings.

        Raises:
            SettingsError: A setting is unknown, missing, of a wrong type or out of range.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise SettingsError(f"unknown setting: {', '.join(unknown)}")
        values = {name: value for name, value in given.items() if value is not None}
        values["targets"] = tuple(_target(item) for item in values.get("targets") or [])
        values["headers"] = tuple((str(name), str(value).strip()) for name, value in dict(values.get("headers") or {}).items())
        if "accepted_statuses" in values:
            values["accepted_statuses"] = tuple(_statuses(item) for item in values["accepted_statuses"])
        if "websocket_reconnect_seconds" in values:
            low, high = _numbers("websocket_reconnect_seconds", values["websocket_reconnect_seconds"], 2)
            values["websocket_reconnect_seconds"] = (low, high)
        for name, kind in (("rate", float), ("post_share", float), ("timeout_seconds", float), ("websocket_ping_seconds", float)):
            if name in values:
                values[name] = kind(_numbers(name, [values[name]], 1)[0])
        for name in ("connections", "connections_max", "websockets"):
            if name in values:
                values[name] = int(_numbers(name, [values[name]], 1)[0])
        settings = cls(**values)
        settings._check()
        return settings

    def _check(self) -> None:
        wrong = {
            "targets": not self.targets,
            "rate": not 0 <= self.rate <= 10_000,
            "connections": not 1 <= self.connections <= 10_000,
            "post_share": not 0 <= self.post_share <= 1,
            "post_path": self.post_share > 0 and not self.post_path.startswith("/"),
            "path": not self.path.startswith("/"),
            "websocket_path": not self.websocket_path.startswith("/"),
            "timeout_seconds": not 0 < self.timeout_seconds <= 600,
            "websockets": not 0 <= self.websockets <= 10_000,
            "websocket_ping_seconds": self.websocket_ping_seconds <= 0,
            "websocket_reconnect_seconds": not 0 <= self.websocket_reconnect_seconds[0] <= self.websocket_reconnect_seconds[1],
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise SettingsError(f"{name} cannot be {getattr(self, name)!r}")
        for target in self.targets:
            for method, path in (("GET", self.path), ("GET", self.websocket_path), ("POST", self.post_path or "/")):
                self.request(target, method, path)

    def request(self, target: Target, method: str, path: str) -> h11.Request:
        """Return the head of a request.

        Raises:
            SettingsError: HTTP does not allow a path or header like this.
        """
        headers = [("Host", self.host_header(target))]
        given = {name.lower() for name, _unused in self.headers}
        headers += [(name, value) for name, value in (("User-Agent", "slipway-prober"), ("Accept", "*/*")) if name.lower() not in given]
        headers += self.headers
        if method == "POST":
            headers += [("Content-Type", self.post_content_type), ("Content-Length", str(len(self.post_body.encode())))]
        try:
            return h11.Request(method=method, target=path, headers=[(name.encode(), value.encode("latin-1")) for name, value in headers])
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise SettingsError(f"HTTP does not allow this path or one of the headers: {path!r}: {error}") from error

    def host_header(self, target: Target) -> str:
        """Return what a browser would call this target."""
        default = 443 if self.tls else 80
        name = bracketed(target.server_name)
        return name if target.port == default else f"{name}:{target.port}"

    @property
    def most_connections(self) -> int:
        """Return how many connections there may be while answers are late."""
        return max(self.connections_max, self.connections) if self.connections_max else self.connections * 5

    def accepts(self, status: int) -> bool:
        """Return whether an answer with this status is a success."""
        return any(low <= status <= high for low, high in self.accepted_statuses)

    def context(self, *protocols: str) -> ssl.SSLContext | None:
        """Return what connections are encrypted with, or None for plain ones."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise SettingsError(f"ca_file {self.ca_file} cannot be read: {error}") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(list(protocols))
        return context


def _numbers(name: str, values: Any, count: int) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise SettingsError(f"{name} cannot be {values!r}")
    return numbers


def _target(item: Any) -> Target:
    try:
        target = Target(str(item["address"]), int(item["port"]), str(item.get("server_name") or item["address"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(f"a target needs an address, a port and a server_name; this one has not: {item!r}") from error
    if not 0 < target.port < 65536:
        raise SettingsError(f"a target's port cannot be {target.port}")
    return target


def _statuses(item: Any) -> tuple[int, int]:
    first, _unused, last = str(item).partition("-")
    try:
        return int(first), int(last or first)
    except ValueError as error:
        raise SettingsError(f"accepted_statuses cannot hold {item!r}; it takes 204 or 200-399") from error
