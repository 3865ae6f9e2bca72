#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove the files of a stack from a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_files
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Remove the files of a stack from a host
description:
  - Removes the stack's own folder below O(root), its systemd units and its logrotate configuration, and nothing else. The module reads
    the names itself, resolves them, and refuses to follow a link or to go into another file system.
extends_documentation_fragment:
  - slipway.stack.options.stack_folder
options:
  units:
    description: Folder of systemd's units.
    type: path
    default: /etc/systemd/system
  logrotate:
    description: Folder of logrotate's configuration.
    type: path
    default: /etc/logrotate.d
attributes:
  check_mode:
    description: Says what it would remove, and fails as it would fail otherwise.
    support: full
"""

EXAMPLES = r"""
- name: Remove the configuration and secrets
  slipway.stack.stack_files:
    stack: slipway
"""

RETURN = r"""
removed:
  description: Paths that were removed, or would be.
  returned: success
  type: list
  elements: str
units:
  description: Names of the systemd units among them.
  returned: success
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.removal import (
    RemovalError,
    removable,
    remove_entry,
    stack_problem,
    stack_units,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/etc/slipway"},
            "units": {"type": "path", "default": "/etc/systemd/system"},
            "logrotate": {"type": "path", "default": "/etc/logrotate.d"},
        },
        supports_check_mode=True,
    )
    options = module.params
    problem = stack_problem(options["stack"])
    if problem:
        module.fail_json(msg=f"Nothing was removed: {problem}")
    try:
        units = stack_units(options["stack"], options["units"])
        # The folder last: as long as it is there, an interrupted run finds the stack again.
        entries = [(options["units"], name) for name in units]
        entries += [(options["logrotate"], f"{options['stack']}-nginx"), (options["root"], options["stack"])]
        found = [(top, name, removable(top, name)) for top, name in entries]
        if not module.check_mode:
            for top, name, path in found:
                if path:
                    remove_entry(top, name)
    except (RemovalError, OSError) as error:
        module.fail_json(msg=f"The files of the stack {options['stack']} cannot be removed: {error}")
    paths = [path for _top, _name, path in found if path]
    module.exit_json(changed=bool(paths), removed=paths, units=[os.path.basename(name) for name in units])


if __name__ == "__main__":
    main()
