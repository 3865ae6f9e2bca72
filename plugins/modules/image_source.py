#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action image_source, which has no part that runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_source
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Find what images are built from, on the controller
description:
  - Looks at a folder, or takes the files of a git reference out of a repository, and fails with one message where a folder, a reference
    or a Dockerfile is missing, or an image's name cannot be used.
  - A reference is fetched alone, without its history. Submodules are not part of it.
options:
  source:
    description: Folder on the controller, relative to the working directory, or address of a git repository.
    type: str
    required: true
  git_ref:
    description: Branch, tag or commit; empty takes the folder as it is, or the repository's HEAD.
    type: str
    default: ""
  version:
    description: Version that is to be built.
    type: str
    required: true
  images:
    description: Images by service, each with C(name), and C(context) and C(dockerfile) below the folder.
    type: dict
    required: true
  transport:
    description: How hosts get the images; for C(registry) their names must begin with one.
    type: str
    required: true
  build_host:
    description: Host that is to build.
    type: str
    default: localhost
  registry_host:
    description: Host that runs our own registry, for O(transport=hosted).
    type: str
    default: ""
extends_documentation_fragment:
  - slipway.stack.attributes.controller
attributes:
  check_mode:
    description: Makes no difference, as only a temporary folder is written.
    support: full
"""

EXAMPLES = r"""
- name: Find the product
  slipway.stack.image_source:
    source: https://git.example.com/shop.git
    git_ref: v1.1.0
    version: 1.1.0
    transport: ssh
    images:
      backend: {name: "shop/backend:1.1.0", context: backend, dockerfile: Dockerfile}
  register: source
"""

RETURN = r"""
folder:
  description: Folder with the files.
  returned: success
  type: str
commit:
  description: The commit, "" for a folder as it is.
  returned: success
  type: str
temporary:
  description: Folder to remove afterwards, "" where there is none.
  returned: success
  type: str
images:
  description: The images, contexts and Dockerfiles relative to the folder.
  returned: success
  type: dict
"""
