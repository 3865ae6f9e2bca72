# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter unavailable_images."""

from __future__ import annotations

DOCUMENTATION = r"""
name: unavailable_images
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Describe images that are not on a host and cannot be pulled
description:
  - Each sentence says why the image is not available, and what to do.
options:
  _input:
    description: Images that are not on the host, each with the reason why it cannot be pulled, as M(slipway.stack.host_state) reports it.
    type: dict
    required: true
  variables:
    description: For each image the variable that names it.
    type: dict
    required: true
  version:
    description: Requested version of the product.
    type: str
    required: true
  recorded:
    description: Versions that builds have recorded.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse images that are not available
  ansible.builtin.assert:
    that: __wrong | length == 0
    fail_msg: "{{ __wrong | join('; ') }}"
  vars:
    __variables: "{{ {'shop/api:1.1': 'app_services.api.image'} }}"
    __wrong: "{{ container_service_host_state.missing_images | slipway.stack.unavailable_images(__variables, app_version, image_digests) }}"
"""

RETURN = r"""
_value:
  description: A sentence for each such image.
  type: list
  elements: str
"""

import typing as t

from ansible_collections.slipway.stack.plugins.plugin_utils.image_records import unavailable_images as unavailable


def unavailable_images(missing: dict[str, str], variables: dict[str, str], version: t.Any, recorded: t.Iterable[str]) -> list[str]:
    """Return the sentences that the function of that name in images.py returns for a version."""
    return unavailable(missing, variables, str(version), recorded or ())


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter by name."""
        return {"unavailable_images": unavailable_images}
