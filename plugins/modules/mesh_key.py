#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a host its key for the encrypted network between hosts. The private key never leaves the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mesh_key
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Give a host its key for the encrypted network between hosts
description:
  - Generates a private key where there is none, writes the public one next to it, and returns that. The private key stays on the host.
extends_documentation_fragment:
  - slipway.stack.options.stack_folder
options:
  next:
    description: >-
      Whether to generate a key that takes the place of the one in use once M(slipway.stack.mesh_switch) says so, and to return its public
      key. One that an interrupted run has left is replaced, as it may be old.
    type: bool
    default: false
  secret_id:
    description: >-
      Which pre-shared secret the key in use belongs to, as the filter P(slipway.stack.mesh_secret_id#filter) says. Written next to the
      key.
    type: str
    default: ""
attributes:
  check_mode:
    description: Not called in check mode, as the public key is not known before there is a private one.
    support: none
"""

EXAMPLES = r"""
- name: Create the host's key
  slipway.stack.mesh_key:
    stack: slipway
  register: __mesh_key
"""

RETURN = r"""
public_key:
  description: The public key, in base64.
  returned: success
  type: str
secret_id:
  description: What was given.
  returned: success
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.config_files import read_text, write_file
from ansible_collections.slipway.stack.plugins.module_utils.mesh import (
    NEXT_KEY,
    PRIVATE_KEY,
    PUBLIC_KEY,
    SECRET_ID,
    MeshError,
    call,
    folder_of,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/etc/slipway"},
            "next": {"type": "bool", "default": False},
            "secret_id": {"type": "str", "default": "", "no_log": False},
        },
    )
    options = module.params
    folder = folder_of(options["stack"], options["root"])
    path = os.path.join(folder, NEXT_KEY if options["next"] else PRIVATE_KEY)
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.chmod(os.path.dirname(path), 0o700)
        kept = "" if options["next"] else (read_text(path) or "").strip()
        private = kept or call(["wg", "genkey"]).strip()
        # One that is there gets its mode and owner back.
        changed = write_file(path, f"{private}\n", 0o600, 0, 0)
        public = call(["wg", "pubkey"], private).strip()
        if not options["next"] and (read_text(os.path.join(folder, PUBLIC_KEY)) or "").strip() != public:
            write_file(os.path.join(folder, PUBLIC_KEY), f"{public}\n", 0o644, 0, 0)
            changed = True
        if options["secret_id"] and not options["next"]:
            changed |= write_file(os.path.join(folder, SECRET_ID), f"{options['secret_id']}\n", 0o600, 0, 0)
    except (MeshError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, public_key=public, secret_id=options["secret_id"])


if __name__ == "__main__":
    main()
