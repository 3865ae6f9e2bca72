# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What building and shipping images decides, as functions of plain data. Nothing is read or sent in here.

A build records what it made (``image_digests``): for each version and service the ``digest`` of the manifest, by which hosts pull, and the
``id`` of the configuration. Both cover every byte of the image. Engines list an image by the latter or, with containerd's image store, by
the former.
"""

from __future__ import annotations

import base64
import json
import re
import typing as t

#: Build arguments that BuildKit knows by itself, and keeps out of the image's history.
PROXY_ARGUMENTS = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
IMAGE_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: What Docker's client and engines call the registry of names that begin with none.
DOCKER_HUB = "https://index.docker.io/v1/"
_PUSHED = re.compile(r"digest: (sha256:[0-9a-f]{64})")

Record = dict[str, t.Any]


class ImageError(ValueError):
    """An image cannot be built or shipped as asked for."""


def repository_of(reference: str) -> str:
    """Return an image's name without its tag and digest."""
    name = reference.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}"


def registry_of(reference: str) -> str:
    """Return the registry that an image's name begins with, or "" where it names none."""
    first, slash, _rest = repository_of_path(reference)
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""


def login_server(registry: str) -> str:
    """Return the name under which logins to a registry are kept, which the engine takes too.

    Args:
        registry: as image names begin with it, or "".
    """
    return DOCKER_HUB if registry in {"", "docker.io", "index.docker.io", "registry-1.docker.io"} else registry


def login_applies(login: dict[str, str], reference: str) -> bool:
    """Return whether there is a login to the registry that an image's name begins with. It is never shown to another one.

    Args:
        login: ``username``, ``password`` and ``registry``.
        reference: name of the image.
    """
    return bool(login.get("username")) and login_server(login.get("registry") or "") == login_server(registry_of(reference))


def repository_of_path(reference: str) -> tuple[str, str, str]:
    """Return the first part of an image's name, the slash behind it, and the rest."""
    return reference.partition("@")[0].partition("/")


def path_of(reference: str) -> str:
    """Return an image's name as in Slipway's registry: without registry, tag and digest."""
    host = registry_of(reference)
    return repository_of(reference[len(host) + 1 :] if host else reference)


def build_command(options: dict[str, t.Any], name: str, metadata_file: str) -> list[str]:
    """Return the command that builds one image.

    It contains the values of build arguments, but not of proxies, which may contain a login: the client reads those from its environment.

    Args:
        options: ``context``, ``dockerfile``, ``arguments``, ``ca_file``, ``proxies``, ``platform``, ``network`` and
            ``cache_from``.
        name: the image's name until it has its own.
        metadata_file: where the client writes what it built.
    """
    command = ["docker", "buildx", "build", "--progress", "plain", "--load", "--tag", name, "--metadata-file", metadata_file]
    if options.get("platform"):
        command += ["--platform", options["platform"]]
    if options.get("network"):
        command += ["--network", options["network"]]
    if options.get("ca_file"):
        command += ["--secret", f"id=ca,src={options['ca_file']}"]
    for proxy in PROXY_ARGUMENTS:
        if (options.get("proxies") or {}).get(proxy):
            command += ["--build-arg", proxy]
    for argument, value in sorted((options.get("arguments") or {}).items()):
        command += ["--build-arg", f"{argument}={value}"]
    for reference in options.get("cache_from") or []:
        command += ["--cache-from", f"type=registry,ref={reference}"]
    if options.get("cache_from"):
        # What is pushed can then serve as the cache of a builder that has none.
        command += ["--cache-to", "type=inline"]
    return [*command, "--file", options["dockerfile"], options["context"]]


def failure_of(output: str, lines: int = 30) -> str:
    """Return the part of a build's output that says why it failed: the output of the failing step, or the last lines."""
    rows = [line.rstrip() for line in output.splitlines() if line.strip()]
    # BuildKit repeats the output of the failing step at its end, between two such lines.
    begin = next((number for number, row in enumerate(rows) if row == "------"), None)
    told = rows[begin:] if begin is not None else rows
    return "\n".join(told[-lines:])


def built_digests(metadata: str) -> Record:
    """Return what identifies an image that was built, whatever the engine's image store lists it by.

    Args:
        metadata: what ``docker buildx build --metadata-file`` writes.

    Returns:
        ``id``, the digest of its configuration, and ``digest``, that of its manifest where the store has one.

    Raises:
        ImageError: the client does not say it.
    """
    said = json.loads(metadata)
    config = str(said.get("containerimage.config.digest", ""))
    if not IMAGE_DIGEST.fullmatch(config):
        raise ImageError("docker buildx did not report the digest of the image's configuration; update docker buildx")
    return {"id": config, "digest": str(said.get("containerimage.digest", ""))}


def conflict(version: str, service: str, recorded: Record | None, built: Record) -> str:
    """Return why a build may not take this version, or "" where it may: a version names one image for good.

    Args:
        version: version that was built.
        service: service whose image it is.
        recorded: what was recorded for it.
        built: what was built, as built_digests says it.
    """
    if not recorded or {built["id"], built["digest"]} & {recorded.get("id"), recorded["digest"]}:
        return ""
    before = recorded.get("id") or recorded["digest"]
    return (
        f"version {version} of the {service} is recorded with {before}, and this build made {built['id']}: "
        "build it under a new version, or replace the recorded one with -e image_replace=true"
    )


def pushed_digest(output: str) -> str:
    """Return the digest that ``docker push`` names.

    Raises:
        ImageError: it names none.
    """
    found = _PUSHED.search(output)
    if not found:
        raise ImageError(f"the registry reported no digest: {output.strip()[-500:]}")
    return found[1]


def registry_login(login: dict[str, str], reference: str) -> str:
    """Return the header with which an engine logs in for one pull; empty without a login to the image's registry.

    Args:
        login: ``username``, ``password`` and ``registry``.
        reference: name of the image.
    """
    if not login_applies(login, reference):
        return ""
    server = login_server(registry_of(reference))
    return login_header({"username": str(login["username"]), "password": str(login.get("password") or ""), "serveraddress": server})


def login_header(login: dict[str, str]) -> str:
    """Return a login as an engine takes it in a header."""
    return base64.urlsafe_b64encode(json.dumps(login).encode()).decode()


def client_config(login: dict[str, str], own: str = "{}") -> str:
    """Return the configuration with which a Docker client is logged in to a registry, in addition to its own configuration.

    Args:
        login: ``username``, ``password`` and ``registry``.
        own: text of its own configuration.

    Raises:
        ImageError: its own configuration is invalid.
    """
    server = login_server(login.get("registry") or "")
    words = base64.b64encode(f"{login['username']}:{login.get('password', '')}".encode()).decode()
    try:
        config = {**json.loads(own)}
    except (TypeError, ValueError) as error:
        raise ImageError(f"the Docker client's own config.json cannot be read: {error}") from error
    logins, store = config.get("auths") or {}, config.pop("credsStore", "")
    # A program that keeps logins would be asked for this one too, so it is named for the others one by one.
    helpers = {**(dict.fromkeys(logins, store) if store else {}), **(config.get("credHelpers") or {})}
    helpers.pop(server, None)
    return json.dumps({**config, "credHelpers": helpers, "auths": {**logins, server: {"auth": words}}})


def pull_outcome(stream: str) -> dict[str, t.Any]:
    """Return what an engine says while it pulls: ``layers_moved``, ``layers_kept`` and the ``error``, "" without one.

    Args:
        stream: JSON documents, a line each.
    """
    moved, kept, error = set(), set(), ""
    for line in stream.splitlines():
        if not line.strip():
            continue
        event = json.loads(line)
        if event.get("error"):
            error = str(event["error"])
        elif event.get("status") == "Already exists":
            kept.add(event.get("id"))
        elif event.get("status") in ("Download complete", "Pull complete"):
            moved.add(event.get("id"))
    return {"layers_moved": len(moved), "layers_kept": len(kept), "error": error}
