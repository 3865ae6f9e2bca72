# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What builds have recorded of the product's images, and which of them hosts lack."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible_collections.slipway.stack.plugins.module_utils.engine import normal_reference
from ansible_collections.slipway.stack.plugins.module_utils.images import IMAGE_DIGEST, ImageError, Record

#: A commit, perhaps abbreviated, with at least one letter and one digit.
COMMIT = re.compile(r"(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,40}")


def is_there(wanted: Record, images: Mapping[str, Any]) -> bool:
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


def with_shared(names: Mapping[str, str], record: Mapping[str, Record] | None) -> dict[str, Record]:
    """Return what is recorded of each service's image, also of those that share another service's: a build records an image once.

    Args:
        names: image with its tag of every service of the product, on whichever hosts it runs.
        record: what was recorded for this version, by service.
    """
    record = dict(record or {})
    known: dict[str, Record] = {}
    for service, entry in record.items():
        if service in names:
            known.setdefault(normal_reference(names[service]), entry)
    shared = {service: known.get(normal_reference(name)) for service, name in names.items()}
    return {service: entry for service, entry in shared.items() if entry} | record


def to_bring(
    names: Mapping[str, str], record: Mapping[str, Record] | None, images: Mapping[str, Any], services: Collection[str] | None = None
) -> list[Record]:
    """Return the recorded images that a host lacks, each with ``name``, ``digest``, ``id`` and ``other``.

    ``other`` says that the host has a different image under that name. Images that no build has recorded are not among them.

    Args:
        names: image with its tag of every service of the product, on whichever hosts it runs.
        record: what was recorded for this version.
        images: the host's images, as ``host_state`` lists them.
        services: services that run on the host; None for all.
    """
    known, found = with_shared(names, record), []
    for service, name in sorted(names.items()):
        entry = known.get(service) if services is None or service in services else None
        if not entry:
            continue
        wanted = {"name": name, "digest": entry["digest"], "id": entry.get("id", "")}
        if not is_there(wanted, images) and wanted not in found:
            found.append(wanted)
    return [{**item, "other": normal_reference(item["name"]) in images} for item in found]


def identities(wanted: Record, images: Mapping[str, Any]) -> set[str]:
    """Return all digests that the image under a name is known by: its id, those of registries, and those recorded where it is that one.

    Args:
        wanted: ``name`` with its tag, which the host has, and what is recorded of it, if anything.
        images: the host's images, as ``host_state`` lists them.
    """
    found = images[normal_reference(wanted["name"])]
    known = {found["id"], *(item.rpartition("@")[2] for item in found.get("digests") or [])}
    if wanted.get("digest") and is_there(wanted, images):
        known |= {wanted["digest"], wanted.get("id") or wanted["digest"]}
    return known


def differing_images(
    names: Mapping[str, str],
    record: Mapping[str, Record] | None,
    running: Mapping[str, Collection[str]],
    images: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Return a sentence for each image of which hosts have different ones under its name, or were not seen to have it.

    Engines list one image by different ids, depending on their image stores and platforms. So two hosts have the same image if both have
    the recorded one, or if they list the same id or the same digest of a registry.

    Args:
        names: image with its tag of every service of the product, on whichever hosts it runs.
        record: what was recorded for this version.
        running: by host, the services that run there.
        images: by host, its images, as ``host_state`` lists them.
    """
    recorded = with_shared(names, record)
    wanted: dict[str, Record] = {}
    users: dict[str, list[str]] = {}
    for service, image in names.items():
        name = normal_reference(image)
        wanted[name] = {**(recorded.get(service) or {}), "name": name}
        users.setdefault(name, []).extend(host for host in running if service in running[host])
    found = []
    for name, hosts in users.items():
        if unseen := sorted({host for host in hosts if name not in images[host]}):
            found.append(f"{name} is not on {', '.join(unseen)}, so it was not compared; pull or load it there")
            continue
        # Hosts that have the same image, and all digests that it is known by.
        groups: list[tuple[list[str], set[str]]] = []
        for host in dict.fromkeys(hosts):
            members, known = [host], identities(wanted[name], images[host])
            for group in [group for group in groups if group[1] & known]:
                groups.remove(group)
                members, known = group[0] + members, group[1] | known
            groups.append((members, known))
        if len(groups) > 1:
            ids = "; ".join(f"{images[members[0]][name]['id']} on {', '.join(members)}" for members, _known in groups)
            found.append(
                f"{name} is not the same image on all app hosts: {ids}; push it once, and remove it on the hosts (docker image rm {name}), "
                "which then pull it, or record its digest in image_digests"
            )
    return found


def tag_of_version(name: str, version: str) -> tuple[str, str, str] | None:
    """Return the repository of an image, and what is before and after the version in its tag; None where the tag does not hold it once."""
    # A colon may belong to a registry's port, and a digest is one image's for good.
    repository, _colon, tag = normal_reference(name).rpartition(":")
    if "@" in name or not version or tag.count(version) != 1:
        return None
    before, _version, after = tag.partition(version)
    return repository, before, after


def same_form(version: str, other: str) -> bool:
    """Return whether two versions are of one form, as 1.9.0 and 1.10.0 are, or two commits; a tag such as latest is of another."""
    if COMMIT.fullmatch(version):
        return bool(COMMIT.fullmatch(other)) and len(version) == len(other)
    return bool(re.search(r"\d", version)) and re.sub(r"\d+", "0", version) == re.sub(r"\d+", "0", other)


def old_images(
    names: Iterable[str],
    version: str,
    kept: Collection[str],
    retired: Collection[str],
    digests: Mapping[str, Any],
    images: Mapping[str, Any],
    used: Collection[str],
) -> list[str]:
    """Return the names of a host's images that are of other versions of the product, and that nothing needs there any more.

    Of versions that were not released here, or not to the end, only images that can be pulled again are among them: those that a build has
    recorded, and those with a tag of the same form that came from their registry.

    Args:
        names: images of the product with their tags, of one version.
        version: that version.
        kept: versions whose images stay, for a rollback.
        retired: versions that were released, and are not kept.
        digests: what builds have recorded, by version.
        images: the host's images, as ``host_state`` lists them.
        used: names of images that containers use.
    """
    patterns = {pattern for pattern in (tag_of_version(name, version) for name in names) if pattern}
    used, stays, found = {normal_reference(name) for name in used}, {version, *map(str, kept)}, []
    for name, image in images.items():
        repository, _colon, tag = name.rpartition(":")
        versions = {
            tag[len(before) : len(tag) - len(after)]
            for of_product, before, after in patterns
            if repository == of_product and tag.startswith(before) and tag.endswith(after) and len(tag) > len(before) + len(after)
        }
        if "@" in name or name in used or not versions or versions & stays:
            continue
        pulled = any(item.startswith(f"{repository}@") for item in image.get("digests") or [])
        if versions & {*map(str, retired), *map(str, digests)} or (pulled and any(same_form(version, other) for other in versions)):
            found.append(name)
    return sorted(found)


def unavailable_images(missing: dict[str, str], variables: Mapping[str, str], version: str = "", recorded: Iterable[str] = ()) -> list[str]:
    """Return a sentence for each image that is neither on a host nor in a registry, with the remedy.

    Args:
        missing: images that are not on the host, each with the reason why it cannot be pulled, as ``host_state`` reports it; "" if it can.
        variables: for each image the variable that names it.
        version: the requested version of the product, which is part of the tags of its images.
        recorded: versions that builds have recorded.
    """
    # The host reports images as its engine lists them.
    known_by = {normal_reference(image): variable for image, variable in variables.items()}
    found = []
    for image, reason in sorted(missing.items()):
        if not reason:
            continue
        variable = known_by.get(normal_reference(image), "")
        named = f"{image}{f' ({variable})' if variable else ''}"
        why = f"cannot be pulled: {' '.join(str(reason).split())}"
        if version and variable.startswith("app_") and version in image.rpartition(":")[2]:
            built = sorted(map(str, recorded), key=version_key)
            known = f"was never built (recorded versions: {', '.join(built) or 'none'})"
            remedy = "correct app_version, build the version"
            if version in built:
                # The service was added or renamed after the build.
                known, remedy = "is not in the record of this version", "build the version again"
            found.append(
                f"version {version} is not available: image {named} is not on the host, {known}, and {why}; {remedy} "
                f"(make image VERSION={version}), or load its images on the host"
            )
        else:
            found.append(f"image {named} is not on the host and {why}; correct {variable or 'its name'}, or load the image on the host")
    return found


def with_record(digests: dict[str, Any], version: str, built: dict[str, Record]) -> dict[str, Any]:
    """Return the recorded versions with one more, or one replaced, sorted by version.

    Raises:
        ImageError: a digest is none.
    """
    for service, entry in built.items():
        if not IMAGE_DIGEST.fullmatch(entry["digest"]):
            raise ImageError(f"the digest of the {service} is {entry['digest']!r}")
    merged = {**digests, version: {service: dict(entry) for service, entry in built.items()}}
    return dict(sorted(merged.items(), key=lambda item: version_key(item[0])))


def version_key(version: str) -> list[tuple[int, int, str]]:
    """Return what sorts versions as people do: 1.10 after 1.9."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"[.+_-]", version)]


def record_text(digests: dict[str, Any]) -> str:
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
