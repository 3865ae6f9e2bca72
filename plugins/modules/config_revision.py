#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a configuration current again that a service had before."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_revision
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Make a configuration current again that a service had before
description:
  - What M(slipway.stack.config_tree) wrote is still on the host. Going back to it does not depend on what an inventory says by now,
    which may be what did not work.
  - Where it is not there any more, names a secret that is not, or does not validate, nothing is done, and RV(restored) says so.
options:
  folder:
    description: Folder of the service, which holds C(config).
    type: path
    required: true
  container:
    description: Name of the container, which runs.
    type: str
    required: true
  revision:
    description: Name of the revision; empty restores nothing.
    type: str
    required: true
  validate:
    description: Command that checks a revision, run in the container; C({revision}) stands for its name.
    type: list
    elements: str
    required: true
  reload:
    description: Command that makes the service re-read its files, run in the container.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - slipway.stack.attributes.not_in_check_mode
"""

EXAMPLES = r"""
- name: Put nginx back
  slipway.stack.config_revision:
    folder: /etc/slipway/slipway/nginx
    container: slipway-nginx
    revision: 0123456789ab
    validate: [nginx, -t, -c, "/etc/slipway/{revision}/nginx.conf"]
    reload: [nginx, -s, reload]
"""

RETURN = r"""
restored:
  description: Whether the service has this revision now.
  returned: success
  type: bool
reason:
  description: Why it does not; empty where it does.
  returned: success
  type: str
"""

import os
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.config_files import (
    RefusedError,
    read_text,
    reload,
    run_in_container,
    switch,
    write_file,
)
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError


def missing_secrets(folder: str, revision: str) -> list[str]:
    """Return the secrets that a revision of a service names and the host no longer has: a program may open them long after its check."""
    top = os.path.join(folder, "config", revision)
    texts = [read_text(os.path.join(place, name)) or "" for place, _folders, names in os.walk(top) for name in names]
    named = {name for text in texts for name in re.findall(r"/run/secrets/([\w.-]*\w)", text)}
    return sorted(name for name in named if not os.path.exists(os.path.join(folder, "secrets", name)))


def restore(options: dict[str, t.Any], engine: Engine) -> bool:
    """Make the revision current and have it read; return whether anything changed.

    Raises:
        RefusedError: it is not there, lacks a secret, or does not validate; nothing was changed.
        EngineError: the container does not run.
    """
    folder, revision = os.path.join(options["folder"], "config"), options["revision"]
    if not revision or not os.path.isdir(os.path.join(folder, revision)):
        raise RefusedError(f"revision {revision or '(none)'} is not in {folder}")
    loaded = os.path.join(folder, "loaded")
    link = os.path.join(folder, "current")
    if os.path.islink(link) and os.readlink(link) == revision and (read_text(loaded) or "").strip() == revision:
        return False
    if missing := missing_secrets(options["folder"], revision):
        raise RefusedError(f"revision {revision} names secrets that the host no longer has: {', '.join(missing)}")
    argv = [part.replace("{revision}", revision) for part in options["validate"]]
    run_in_container(engine, options["container"], argv, "The check of the configuration before")
    switch(folder, revision)
    reload(engine, options["container"], options["reload"])
    write_file(loaded, revision + "\n", 0o644)
    return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "container": {"type": "str", "required": True},
            "revision": {"type": "str", "required": True},
            "validate": {"type": "list", "elements": "str", "required": True},
            "reload": {"type": "list", "elements": "str", "required": True},
        }
    )
    try:
        changed = restore(module.params, Engine())
    except (RefusedError, EngineError, OSError) as error:
        module.exit_json(changed=False, restored=False, reason=str(error))
    module.exit_json(changed=changed, restored=True, reason="")


if __name__ == "__main__":
    main()
