# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The major versions of PostgreSQL in images and volumes. Pure functions over what host_state has read."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.engine import normal_reference
from ansible_collections.slipway.stack.plugins.module_utils.images import registry_of, repository_of

#: Images whose tags begin with PostgreSQL's version, after a registry, which may be a copy. Another one's tag is that of the image.
OFFICIAL = re.compile(r"(.*/)?(library/postgres|postgis/postgis)|postgres")
#: Variables of an image that name its version, as the official ones and those that are built from them have them.
NAMED_IN = ("pg_major", "pg")


def image_major(reference: str, images: t.Mapping[str, t.Mapping[str, t.Any]]) -> int:
    """Return the major version of an image's PostgreSQL, 0 where neither the image nor its name says it.

    Args:
        reference: The image.
        images: The images of the host, as host_state describes them.
    """
    versions = images.get(normal_reference(reference), {}).get("versions", {})
    for name in NAMED_IN:
        if found := re.match(r"[1-9]\d", versions.get(name, "")):
            return int(found[0])
    repository = repository_of(reference)
    tag = reference.partition("@")[0].removeprefix(repository).removeprefix(":")
    official = OFFICIAL.fullmatch(repository.removeprefix(f"{registry_of(reference)}/"))
    beginning = r"([1-9]\d)(?!\d)" if official else r"(?:.*[-_.])?pg([1-9]\d)(?!\d)"
    stated = re.match(beginning, tag)
    return int(stated[1]) if stated else 0


def container_of(state: t.Mapping[str, t.Any], volume: str) -> dict[str, t.Any]:
    """Return the container of the stack that may write to a volume, empty where there is none."""
    containers = state.get("containers", {}).values()
    return next((item for item in containers if item.get("volumes", {}).get(volume, {}).get("mode") == "rw"), {})


def data_major(state: t.Mapping[str, t.Any], volume: str) -> int:
    """Return the major version of a volume's data, 0 where it holds no cluster or that is not known.

    Args:
        state: What host_state has read.
        volume: Name of the volume.
    """
    there = state.get("volumes", {}).get(volume, {})
    if str(there.get("pg_version", "")).isdigit():
        return int(there["pg_version"])
    if there and there.get("empty") is None:
        # Of a driver that keeps it where the host cannot read it.
        container = container_of(state, volume)
        # An image that was built again says nothing of the one before.
        images = {name: image for name, image in state.get("images", {}).items() if image.get("id") == container.get("image_id")}
        return image_major(container.get("image", ""), images)
    return 0


def major_mistakes(state: t.Mapping[str, t.Any], image: str, volume: str) -> list[str]:
    """Return why an image cannot read the data of a volume, no sentence where it can or that is not known.

    What a container has already is not refused: nothing would be stopped for it.

    Args:
        state: What host_state has read.
        image: The wanted image.
        volume: Name of the volume.
    """
    images = state.get("images", {})
    wanted, found = image_major(image, images), data_major(state, volume)
    if not wanted or not found or wanted == found:
        return []
    there = container_of(state, volume)
    here = images.get(normal_reference(image), {}).get("id")
    if there and (there.get("image_id") == here if here else there["image"] == normal_reference(image)):
        return []
    message = (
        f"the volume {volume} holds data of PostgreSQL {found}, and postgres_image is {image}, of PostgreSQL {wanted}, which cannot "
        f"read it: set postgres_image to version {found}, or move the data as docs/backup.md says under "
        '"Another major version of PostgreSQL"'
    )
    return [message]
