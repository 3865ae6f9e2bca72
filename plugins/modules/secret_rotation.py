# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action secret_rotation, which has no part that runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_rotation
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Bring secrets to the next stage of their rotation
description:
  - Returns the secrets of the stage, which an ordinary run then brings about, and writes them into the vault file.
  - The variables of a secret say how far it has come, so that a run that was interrupted can be repeated.
  - Works on the controller alone. What it returns are secrets, and is hidden as by C(no_log); why it fails is shown.
options:
  what:
    description: What is rotated.
    type: str
    required: true
    choices: [redis_app, secret_key, postgres_app, postgres_owner, backup, mesh, all]
  known:
    description: Secrets that the environment has; V(all) means those of them that can be rotated.
    type: list
    elements: str
    required: true
  step:
    description: Whether to go on from where the secrets are, or to the stage after that, or to end what was rotated.
    type: str
    required: true
    choices: [begin, advance, end]
  undo:
    description: Go back to the old secrets, as long as they are valid.
    type: bool
    default: false
  end_sessions:
    description: Rotate the product's key although the product does not verify with a second one.
    type: bool
    default: false
  differs:
    description: Whether hosts differ from the inventory, in which case no rotation begins.
    type: bool
    default: false
  source:
    description: Where the environment has its secrets, as C(slipway_secrets_source) says. Only V(vault) is written to.
    type: str
    default: vault
  path:
    description:
      - The vault file.
      - By default C(group_vars/all/vault.yml) next to the inventory that the run was given with C(-i).
    type: path
extends_documentation_fragment:
  - slipway.stack.attributes.controller
attributes:
  check_mode:
    support: full
    description: Writes nothing.
  diff_mode:
    support: none
    description: Shows nothing.
"""

EXAMPLES = r"""
- name: Begin
  slipway.stack.secret_rotation:
    what: redis_app
    known: "{{ slipway_secrets }}"
    step: begin
"""

RETURN = r"""
variables:
  description: The variables of the secrets in this stage. An empty one is not set.
  returned: success
  type: dict
stages:
  description: By secret V(steady), V(accepted), V(used), V(settling) or V(retired).
  returned: success
  type: dict
retired:
  description: By secret the value that is refused once this stage has been brought about.
  returned: success
  type: dict
"""
