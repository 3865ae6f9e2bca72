# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action generate_secrets, which has no part that runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: generate_secrets
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Write the secrets that an environment lacks into its vault file
description:
  - Each name that neither the vault file nor any other variable of the environment sets gets a random value of 40 letters and digits.
    What is set already is kept, its comments and order too.
  - The file is encrypted as a whole with the run's vault password, and replaced atomically.
  - Where the run has no vault password and nothing in the checkout is encrypted yet, one is created in C(.vault-password) next to the
    folder of C(tools/vault-password), for its owner only.
  - Names are returned, values never.
options:
  names:
    description: Variables that must hold a secret.
    type: list
    elements: str
    required: true
  path:
    description:
      - The vault file.
      - By default C(group_vars/all/vault.yml) next to the inventory that the run was given with C(-i).
    type: path
  source:
    description:
      - Where the environment has its secrets, as C(slipway_secrets_source) says.
      - For another source than C(vault) nothing is written; it fails with the names that the source lacks.
    type: str
    default: vault
extends_documentation_fragment:
  - slipway.stack.attributes.controller
attributes:
  check_mode:
    support: full
    description: Says what it would write, and writes nothing.
  diff_mode:
    support: full
    description: Shows names only.
"""

EXAMPLES = r"""
- name: Generate the missing secrets
  slipway.stack.generate_secrets:
    names: [vault_postgres_owner_password, vault_redis_app_password]
"""

RETURN = r"""
path:
  description: The vault file.
  type: str
  returned: success
generated:
  description: Names that got a new value, or would get one.
  type: list
  elements: str
  returned: success
kept:
  description: Names that were set already.
  type: list
  elements: str
  returned: success
vault_password_file:
  description: The password file that was created, or would be; empty when a password was there.
  type: str
  returned: success
"""
