# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter http_healthcheck."""

from __future__ import annotations

DOCUMENTATION = r"""
name: http_healthcheck
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Build a container health check that asks for a page with whatever the image has
description:
  - The check needs C(sh) in the image, and the first that it finds of curl, wget (GNU or BusyBox), python3, node and bash.
    A product's image need not bring a tool for us.
  - It asks 127.0.0.1, follows no redirect, writes nothing, and trusts any certificate.
  - The status must be 200 to 299, or exactly O(expect_status).
  - bash speaks plain HTTP only.
options:
  _input:
    description: Port inside the container.
    type: int
    required: true
  path:
    description: Path of the page, with its query.
    type: str
    default: /health
  expect_status:
    description: The status that is healthy; 0 means any from 200 to 299.
    type: int
    default: 0
  scheme:
    description: Protocol.
    type: str
    choices: [http, https]
    default: http
  timeout:
    description: Seconds that an answer may take.
    type: int
    default: 4
  host:
    description: Name to send as C(Host), for a product that answers to its own names only; empty sends C(127.0.0.1).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show a check of port 8000
  ansible.builtin.debug:
    msg: "{{ 8000 | slipway.stack.http_healthcheck('/health') }}"
"""

RETURN = r"""
_value:
  description: The C(test) of a health check, C(CMD-SHELL) and a script.
  type: list
  elements: str
"""

import re
from collections.abc import Callable

from ansible.errors import AnsibleFilterError

_PATH = re.compile(r"/[A-Za-z0-9._~/?&=%+,:@-]*")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]{1,5})?")

# Redirects are not followed, as the page that counts is the one asked for. wget always follows, so the first status line that it
# prints is taken; some builds of BusyBox crash on its option -T. A container's proxy must not get a question to itself.
_SCRIPT = """\
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
has() {{ command -v "$1" >/dev/null 2>&1; }}
if has timeout; then limit="timeout {timeout}"; else limit=; fi
if has curl; then
  status=$(curl -s -k -m {timeout} {curl}-o /dev/null -w '%{{http_code}}' '{url}')
elif has wget; then
  status=$(HOME=/nonexistent $limit wget -q -S -t 1 {insecure}{wget}-O /dev/null '{url}' 2>&1 |
    sed -n 's/^ *HTTP\\/[0-9.]* *\\([0-9][0-9]*\\).*/\\1/p' | head -n 1)
elif has python3; then
  status=$(python3 -IS -c '{python}')
elif has node; then
  status=$(node -e '{node}')
elif has bash; then
  status=$(bash -c '{bash}')
else
  echo 'the image has none of curl, wget, python3, node and bash'; exit 1
fi
case "$status" in {pattern}) exit 0;; esac
echo "{url} answered '$status', not {wanted}"; exit 1"""

# Sockets alone: http.client takes most of such a check's time to import, and a check runs each second while a service boots.
_PYTHON_OPEN = 'import socket, ssl; c = socket.create_connection(("127.0.0.1", {port}), {timeout}); '
_PYTHON = {
    "http": _PYTHON_OPEN.replace(", ssl", ""),
    "https": _PYTHON_OPEN + "c = ssl._create_unverified_context().wrap_socket(c); ",
}
_PYTHON_ASK = (
    'c.sendall(b"GET {path} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n"); '
    'print(c.makefile("rb").readline().split()[1].decode())'
)
_NODE = (
    'require("{scheme}").get({{host: "127.0.0.1", port: {port}, path: "{path}", timeout: {timeout}000, '
    "rejectUnauthorized: false{headers}}}, "
    "r => {{ console.log(r.statusCode); process.exit(0); }})"
    '.on("timeout", () => process.exit(1)).on("error", () => process.exit(1))'
)
_BASH = (
    'exec 3<>/dev/tcp/127.0.0.1/{port} && printf "GET {escaped} HTTP/1.0\\r\\nHost: {host}\\r\\n\\r\\n" >&3 && '
    'read -r -t {timeout} version status rest <&3 && echo "$status"'
)


def http_healthcheck(
    port: int, path: str = "/health", expect_status: int = 0, scheme: str = "http", timeout: int = 4, host: str = ""
) -> list[str]:
    """Return the test of a container health check that asks 127.0.0.1 for a page.

    Args:
        port: Port inside the container, 1 to 65535.
        path: Path of the page; letters, digits and ._~/?&=%+,:@- only, as it becomes part of a script.
        expect_status: The status that is healthy; 0 takes any from 200 to 299.
        scheme: "http" or "https".
        timeout: Seconds that an answer may take, 1 and more.
        host: Name to send as Host, with a port if it has one; "" for 127.0.0.1.

    Raises:
        AnsibleFilterError: An argument is out of its range.
    """
    try:
        port, expect_status, timeout = int(port), int(expect_status), int(timeout)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(
            f"http_healthcheck needs numbers, not port {port!r}, expect_status {expect_status!r}, timeout {timeout!r}"
        ) from error
    if not 1 <= port <= 65535:
        raise AnsibleFilterError(f"http_healthcheck: {port} is not a port")
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise AnsibleFilterError(f"http_healthcheck: path {path!r} must start with / and hold plain URL characters only")
    if scheme not in _PYTHON:
        raise AnsibleFilterError(f"http_healthcheck: scheme is {scheme!r}, must be http or https")
    if expect_status and not 100 <= expect_status <= 599:
        raise AnsibleFilterError(f"http_healthcheck: {expect_status} is not an HTTP status")
    if timeout < 1:
        raise AnsibleFilterError(f"http_healthcheck: a timeout of {timeout} s never passes")
    if not isinstance(host, str) or (host and not _HOST.fullmatch(host)):
        raise AnsibleFilterError(f"http_healthcheck: host {host!r} must be a name of letters, digits, dots and hyphens")
    values = {"host": host or "127.0.0.1", "port": port, "path": path, "scheme": scheme, "timeout": timeout}
    values["escaped"] = path.replace("%", "%%")
    script = _SCRIPT.format(
        **values,
        url=f"{scheme}://127.0.0.1:{port}{path}",
        insecure="--no-check-certificate " if scheme == "https" else "",
        # Without a name, what has always been sent: another check would make another container.
        curl=f"-H 'Host: {host}' " if host else "",
        wget=f"--header 'Host: {host}' " if host else "",
        python=(_PYTHON[scheme] + _PYTHON_ASK).format(**values),
        node=_NODE.format(**values, headers=f', headers: {{host: "{host}"}}' if host else ""),
        bash=_BASH.format(**values) if scheme == "http" else "echo bash cannot speak TLS",
        pattern=expect_status or "2[0-9][0-9]",
        wanted=expect_status or "200 to 299",
    )
    return ["CMD-SHELL", script]


class FilterModule:
    """What Ansible asks for the filters of this file."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Return the filters by name."""
        return {"http_healthcheck": http_healthcheck}
