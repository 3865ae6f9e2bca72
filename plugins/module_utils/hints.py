# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to change in an inventory, derived from the log of a product's container that ended."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.containers import EXTRA_SERVICES, is_of_product, service_of

#: How programs say that they may not write, each with the path. A denied permission alone says no such thing: it may be about reading.
_NOT_WRITABLE = (
    # nginx: mkdir() "/var/cache/nginx/client_temp" failed (30: Read-only file system)
    re.compile(r"""["'](?P<path>/[^"']+)["'] failed \(30: """),
    re.compile(r"""["'](?P<path>/(?:var/cache/nginx|var/lib/nginx|run|var/run)/[^"']+)["'] failed \(13: """),
    # Python: [Errno 30] Read-only file system: '/app/cache'; Node: EROFS: read-only file system, open '/app/cache'
    re.compile(r"""(?:Read-only file system|EROFS)[^"'\n]*["'](?P<path>/[^"']+)["']""", re.IGNORECASE),
    # mkdir: cannot create directory '/data': Read-only file system
    re.compile(r"""["']?(?P<path>/[^\s"':]+)["']?: Read-only file system""", re.IGNORECASE),
    re.compile(r"""(?:mkdir|touch|create)\b[^\n]*?["'](?P<path>/[^"']+)["']: Permission denied""", re.IGNORECASE),
)
_UNKNOWN_HOST = re.compile(r"Invalid HTTP_HOST header: ['\"]?(?P<host>[\w.:-]+)|Blocked hosts?: (?P<blocked>[\w.:-]+)", re.IGNORECASE)
_LOW_PORT = re.compile(r"bind\(?\)?.{0,40}:(?P<port>\d+).{0,20}\(?13: |listen EACCES: permission denied \S*?:(?P<low>\d+)")
_STATUS = re.compile(r"http://[^/\s]+(?P<path>/\S*) answered '(?P<status>[0-9]*)', not")
#: Folders that a program needs as a whole, whatever file in them it names first.
_KNOWN_FOLDERS = ("/var/cache/nginx", "/var/lib/nginx", "/run", "/var/run", "/var/log/nginx")


def _folder(path: str) -> str:
    """Return the folder to make writable for a path that could not be written, or "" where that would be the root."""
    for known in _KNOWN_FOLDERS:
        if path == known or path.startswith(f"{known}/"):
            return {"/var/run": "/run", "/var/lib/nginx": "/var/cache/nginx"}.get(known, known)
    parent, _unused, name = path.rpartition("/")
    return parent if "." in name else path


def described_at(labels: t.Mapping[str, str]) -> str:
    """Return where an inventory describes the service of a container, by its labels, as app_services.api, or "" for any other container."""
    owner = labels.get("slipway.owner", "")
    if owner == EXTRA_SERVICES:
        return f"slipway_extra_services.{labels['slipway.service']}"
    return f"app_services.{labels.get('slipway.migrates') or service_of({'labels': labels})}" if is_of_product(owner) else ""


def hints(log_lines: t.Iterable[str], check: str = "", service: str = "app_services.<service>", uid: str = "") -> list[str]:
    """Return sentences with lines to paste into the inventory, for causes that a log shows.

    Args:
        log_lines: what the container wrote last.
        check: what its last health check wrote.
        service: where the inventory describes the service, whose keys are named.
        uid: number of the container's user, or "" where it is not known.
    """
    lines = list(log_lines)
    found: list[str] = []
    folders = dict.fromkeys(
        _folder(match["path"]) for line in lines for pattern in _NOT_WRITABLE for match in [pattern.search(line)] if match
    )
    if "/var/cache/nginx" in folders:
        folders["/run"] = None
    for useless in ("", "/tmp"):  # noqa: S108 - a place in a container
        folders.pop(useless, None)
    if folders:
        options = ",".join(["size=16m", *([f"uid={uid}"] if uid else [])])
        variable, _unused, name = service.partition(".")
        pasted = "\n".join([f"{variable}:", f"  {name}:", "    tmpfs:", *(f"      {folder}: {options}" for folder in sorted(folders))])
        found.append(
            "The file system of containers is read-only. To make these folders writable, in memory, set, or volumes for data that must "
            f"last:\n{pasted}"
        )
    hosts = {match["host"] or match["blocked"] for line in lines for match in [_UNKNOWN_HOST.search(line)] if match}
    if hosts:
        found.append(
            f"The product does not accept the name {', '.join(sorted(hosts))} as Host: add it to the product's list, "
            "or set app_host_header to a name that it accepts."
        )
    ports = {match["port"] or match["low"] for line in lines for match in [_LOW_PORT.search(line)] if match}
    if ports:
        found.append(f"Its user may not listen on port {', '.join(sorted(ports))}: use one above 1023, and set {service}.port to it.")
    asked = _STATUS.search(check)
    if asked and asked["status"] == "404":
        found.append(f"{asked['path']} does not exist: set {service}.health_path to a path that answers 2xx while the process works.")
    elif asked and asked["status"] == "400" and not hosts:
        found.append(
            "A product that checks Host answers 400 to names that it does not know: set app_host_header to one that it accepts "
            "(default: the first of nginx_server_names, else the host of slipway_public_url)."
        )
    elif asked and asked["status"][:1] == "3":
        found.append(f"{asked['path']} redirects: set {service}.health_path to a path that answers 2xx by itself.")
    elif asked and not asked["status"]:
        found.append(f"Nothing answers on that port: set {service}.port to the port that the product listens on, on all addresses.")
    return found
