#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action image_record, which has no part that runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_record
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Write down in the inventory what a build made
description:
  - The file C(group_vars/all/30_images.yml) of the environment holds C(image_digests), by which a release pulls. It is replaced atomically.
  - Without O(built) it only says what is recorded.
options:
  version:
    description: Version of the images.
    type: str
    required: true
  built:
    description: By service, C(digest) and whatever else describes the image.
    type: dict
  store:
    description: Folder of images; by default C(.images) next to the inventory.
    type: str
    default: ""
extends_documentation_fragment:
  - slipway.stack.attributes.controller
attributes:
  check_mode:
    description: Says whether it would write.
    support: full
"""

EXAMPLES = r"""
- name: Say what is recorded
  slipway.stack.image_record: {version: 1.1.0}
  register: recorded
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
inventory:
  description: Folder of the environment's inventory.
  returned: success
  type: str
environment:
  description: >-
    With O(store), the name of the environment among those that share that folder: a random word, kept in C(.image-store-id) next to the
    inventory.
  returned: success
  type: str
store:
  description: Folder of images on the controller.
  returned: success
  type: str
recorded:
  description: What is recorded for the version, by service.
  returned: success
  type: dict
kept:
  description: Digests of all recorded versions.
  returned: success
  type: list
  elements: str
"""
