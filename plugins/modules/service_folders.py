#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove the folders of services that have no container, or none for long."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_folders
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Remove the folders of services that have no container
description:
  - A service has a folder with its configuration and secrets on its host, which is written before its container is created. This removes
    those of a slot whose container never came, or is gone.
extends_documentation_fragment:
  - slipway.stack.options.stack_folder
options:
  owner:
    description: Value of the label C(slipway.owner) of the slot's containers; others than slots have no such folders.
    type: str
    required: true
  names:
    description: Names of folders that are removed whether they have a container or not; empty takes those of a slot that have none.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Says what it would remove.
    support: full
"""

EXAMPLES = r"""
- name: Remove what a failed release has written
  slipway.stack.service_folders:
    stack: slipway
    owner: app-green
"""

RETURN = r"""
removed:
  description: Names of the folders that were removed, or would be.
  returned: success
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.removal import RemovalError, folders_without_service, remove_entry


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/etc/slipway"},
            "owner": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    top = os.path.join(options["root"], options["stack"])
    try:
        names = os.listdir(top) if os.path.isdir(top) else []
        found = sorted(set(names) & set(options["names"]))
        if not options["names"]:
            containers = {name.lstrip("/") for short in Engine().containers() for name in short["Names"]}
            found = folders_without_service(names, containers, options["stack"], options["owner"])
        for name in [] if module.check_mode else found:
            remove_entry(top, name)
    except (EngineError, RemovalError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(found), removed=found)


if __name__ == "__main__":
    main()
