# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter images_to_bring."""

from __future__ import annotations

DOCUMENTATION = r"""
name: images_to_bring
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Say which recorded images a host lacks
description:
  - Compares ids, on the controller alone. A name that means another image on the host by now counts as lacking.
options:
  _input:
    description: Images with their tags, by service, of all services of the product; one may be recorded with another that shares its image.
    type: dict
    required: true
  digests:
    description: What builds have recorded, by version and service.
    type: dict
    required: true
  version:
    description: Version that is wanted.
    type: str
    required: true
  images:
    description: The host's images, as M(slipway.stack.host_state) lists them.
    type: dict
    required: true
  services:
    description: Services that run on the host; all if omitted.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Say what is missing
  ansible.builtin.debug:
    msg: "{{ image_names | slipway.stack.images_to_bring(image_digests, '1.1.0', container_service_host_state.images) }}"
"""

RETURN = r"""
_value:
  description: >-
    The images that a build has recorded and this host has not, each with C(name), C(digest), C(id), and C(other), which is true where
    the host has a different image of that name.
  type: list
  elements: dict
"""

import typing as t

from ansible_collections.slipway.stack.plugins.plugin_utils.image_records import to_bring


def images_to_bring(
    names: dict[str, str], digests: dict[str, t.Any], version: t.Any, images: dict[str, t.Any], services: t.Collection[str] | None = None
) -> list[dict[str, t.Any]]:
    """Return what :func:`to_bring` says of a version."""
    return to_bring(names, (digests or {}).get(str(version)), images, services)


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter by name."""
        return {"images_to_bring": images_to_bring}
