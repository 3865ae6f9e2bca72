# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The logins to registries that a host has by ``docker login``: an engine does not look for them by itself, only its client does."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.images import login_header, login_server, registry_of

#: Header in which an engine takes a login.
LOGIN_HEADER = "X-Registry-Auth"
#: How a module takes a login.
LOGIN_OPTIONS = {
    "username": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "registry": {"type": "str", "default": ""},
}
HELPER_SECONDS = 20


def host_login(reference: str) -> str:
    """Return the header with which an engine pulls an image as the client of this user would; empty without a login.

    Args:
        reference: name of the image.
    """
    server = login_server(registry_of(reference))
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    try:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        helper = (config.get("credHelpers") or {}).get(server) or config.get("credsStore")
        login = _from_helper(helper, server) if helper else {}
        entries = {_bare(name): entry for name, entry in (config.get("auths") or {}).items()}
        login = login or _from_entry(entries.get(_bare(server)) or {})
    except (OSError, ValueError, AttributeError):
        # A login that the client cannot read does not count.
        return ""
    return login_header({**login, "serveraddress": server}) if login else ""


def _bare(server: str) -> str:
    """Return a registry's name without the scheme and path that some entries have."""
    return server.partition("://")[2].partition("/")[0] if "://" in server else server.partition("/")[0]


def _from_entry(entry: dict[str, t.Any]) -> dict[str, str]:
    """Return the login that an entry of the client's configuration holds."""
    if entry.get("identitytoken"):
        return {"identitytoken": str(entry["identitytoken"])}
    name, colon, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    return {"username": name, "password": password} if colon else {}


def _from_helper(helper: str, server: str) -> dict[str, str]:
    """Return the login that a program of the client's keeps."""
    try:
        # The helper reads the server's name from its standard input, and no module is here that could run it.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            [f"docker-credential-{helper}", "get"], input=server, capture_output=True, text=True, timeout=HELPER_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    found = json.loads(done.stdout)
    if found.get("Username") == "<token>":
        return {"identitytoken": str(found["Secret"])}
    return {"username": str(found.get("Username", "")), "password": str(found.get("Secret", ""))}
