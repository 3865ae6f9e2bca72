#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write down on a host what the fleet serves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_record
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Write down on a host what the fleet serves
description:
  - Replaces the record atomically, in one remote call.
options:
  path:
    description: The record.
    type: path
    required: true
  record:
    description: Its content.
    type: dict
    required: true
attributes:
  check_mode:
    description: Says whether the record would change.
    support: full
"""

EXAMPLES = r"""
- name: Record the release
  slipway.stack.release_record:
    path: /etc/slipway/slipway/release/state.json
    record: {serial: 3, slot: green, version: 1.1.0}
"""

RETURN = r""" # """

import json

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.config_files import write_file


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}, "record": {"type": "dict", "required": True}},
        supports_check_mode=True,
    )
    path, text = module.params["path"], json.dumps(module.params["record"], indent=1, sort_keys=True) + "\n"
    try:
        with open(path, encoding="utf-8") as file:
            before = file.read()
    except OSError:
        before = ""
    if before != text and not module.check_mode:
        write_file(path, text, 0o644)
    module.exit_json(changed=before != text)


if __name__ == "__main__":
    main()
