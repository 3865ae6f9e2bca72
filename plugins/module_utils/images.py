# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What building and shipping images decides, as functions of plain data. Nothing is read or sent in here.

A build records what it made (``image_digests``): for each version and service the ``digest`` of the manifest, by which hosts pull, and the
``id`` of the configuration, by which engines list it. Both cover every byte of the image.
"""

from __future__ import annotations

import base64
import json
import re
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.engine import normal_reference

#: Build arguments that BuildKit knows by itself, and keeps out of the image's history.
PROXY_ARGUMENTS = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
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


def repository_of_path(reference: str) -> tuple[str, str, str]:
    """Return the first part of an image's name, the slash behind it, and the rest."""
    return reference.partition("@")[0].partition("/")


def path_of(reference: str) -> str:
    """Return an image's name as in Slipway's registry: without registry, tag and digest."""
    host = registry_of(reference)
    return repository_of(reference[len(host) + 1 :] if host else reference)


def is_there(wanted: Record, images: dict[str, t.Any]) -> bool:
    """Return whether a host has the recorded image under its name.

    Args:
        wanted: ``name`` with its tag, ``digest``, and ``id`` where it is known.
        images: the host's images, as ``host_state`` lists them.
    """
    found = images.get(normal_reference(wanted["name"]))
    if not found:
        return False
    # Engines list an image by its configuration's digest or, with containerd's store, by its manifest's.
    if found["id"] in {wanted["digest"], wanted.get("id") or wanted["digest"]}:
        return True
    return any(item.endswith(f"@{wanted['digest']}") for item in found.get("digests") or [])


def to_bring(names: dict[str, str], record: dict[str, Record] | None, images: dict[str, t.Any]) -> list[Record]:
    """Return the recorded images that a host lacks, each with ``name``, ``digest``, ``id`` and ``other``.

    ``other`` says that the host has a different image under that name. Images that no build has recorded are not among them.

    Args:
        names: each service's image with its tag.
        record: what was recorded for this version.
        images: the host's images, as ``host_state`` lists them.
    """
    found = []
    for service, name in sorted(names.items()):
        entry = (record or {}).get(service)
        if not entry:
            continue
        wanted = {"name": name, "digest": entry["digest"], "id": entry.get("id", "")}
        if not is_there(wanted, images) and wanted not in found:
            found.append(wanted)
    return [{**item, "other": normal_reference(item["name"]) in images} for item in found]


def unavailable_images(
    missing: dict[str, str], variables: t.Mapping[str, str], version: str = "", recorded: t.Iterable[str] = ()
) -> list[str]:
    """Return a sentence for each image that is neither on a host nor in a registry, with the remedy.

    Args:
        missing: images that are not on the host, each with the reason why it cannot be pulled, as ``host_state`` reports it; "" if it can.
        variables: for each image the variable that names it.
        version: the requested version of the product, which is part of the tags of its images.
        recorded: versions that builds have recorded.
    """
    found = []
    for image, reason in sorted(missing.items()):
        if not reason:
            continue
        # The host adds the tag that a name without one means.
        variable = variables.get(image) or variables.get(image.removesuffix(":latest")) or ""
        named = f"{image}{f' ({variable})' if variable else ''}"
        why = f"cannot be pulled: {' '.join(str(reason).split())}"
        if version and variable.startswith("app_") and version in image.rpartition(":")[2]:
            known = ", ".join(sorted(recorded, key=version_key)) or "none"
            found.append(
                f"version {version} is not available: image {named} is not on the host, was never built (recorded versions: {known}), "
                f"and {why}; correct app_version, build the version (make image VERSION={version}), or load its images on the host"
            )
        else:
            found.append(f"image {named} is not on the host and {why}; correct {variable or 'its name'}, or load the image on the host")
    return found


def build_command(options: dict[str, t.Any], identity_file: str) -> list[str]:
    """Return the command that builds one image.

    It contains the values of build arguments, but not of proxies, which may contain a login: the client reads those from its environment.

    Args:
        options: ``context``, ``dockerfile``, ``arguments``, ``ca_file``, ``proxies``, ``network`` and ``cache_from``.
        identity_file: where the client writes the image's id.
    """
    command = ["docker", "buildx", "build", "--progress", "plain", "--load", "--iidfile", identity_file]
    if options.get("network"):
        command += ["--network", options["network"]]
    if options.get("ca_file"):
        command += ["--secret", f"id=ca,src={options['ca_file']}"]
    for name in PROXY_ARGUMENTS:
        if (options.get("proxies") or {}).get(name):
            command += ["--build-arg", name]
    for name, value in sorted((options.get("arguments") or {}).items()):
        command += ["--build-arg", f"{name}={value}"]
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


def conflict(version: str, service: str, recorded: Record | None, identity: str) -> str:
    """Return why a build may not take this version, or "" where it may: a version names one image for good."""
    if not recorded or identity in {recorded.get("id"), recorded["digest"]}:
        return ""
    return (
        f"version {version} of the {service} is recorded with {recorded.get('id') or recorded['digest']}, and this build made {identity}: "
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


def registry_login(login: dict[str, str], server: str) -> str:
    """Return the header with which an engine logs in to a registry for one pull; empty without a user name."""
    if not login.get("username"):
        return ""
    return login_header({"username": str(login["username"]), "password": str(login.get("password", "")), "serveraddress": server})


def login_header(login: dict[str, str]) -> str:
    """Return a login as an engine takes it in a header."""
    return base64.urlsafe_b64encode(json.dumps(login).encode()).decode()


def client_config(login: dict[str, str], server: str, own: str = "{}") -> str:
    """Return the configuration with which a Docker client is logged in to a registry, in addition to its own configuration.

    Raises:
        ImageError: its own configuration is invalid.
    """
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


def with_record(digests: dict[str, t.Any], version: str, built: dict[str, Record]) -> dict[str, t.Any]:
    """Return the recorded versions with one more, or one replaced, sorted by version.

    Raises:
        ImageError: a digest is none.
    """
    for service, entry in built.items():
        if not _DIGEST.fullmatch(entry["digest"]):
            raise ImageError(f"the digest of the {service} is {entry['digest']!r}")
    merged = {**digests, version: {service: dict(entry) for service, entry in built.items()}}
    return dict(sorted(merged.items(), key=lambda item: version_key(item[0])))


def version_key(version: str) -> list[tuple[int, int, str]]:
    """Return what sorts versions as people do: 1.10 after 1.9."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"[.+_-]", version)]


def record_text(digests: dict[str, t.Any]) -> str:
    """Return the variables' file that holds the recorded versions."""
    lines = [
        "---",
        "# Written by playbooks/build.yml: what each version's images are, by which releases pull them. Keep it.",
    ]
    lines.append("image_digests:" if digests else "image_digests: {}")
    for version, services in digests.items():
        lines.append(f"  {json.dumps(version)}:")
        for service, entry in sorted(services.items()):
            lines.append(f"    {service}:")
            lines += [f"      {name}: {json.dumps(value)}" for name, value in sorted(entry.items()) if value != ""]
    return "\n".join(lines) + "\n"
