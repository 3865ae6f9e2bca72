# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives every environment the variables that all share, so that none needs a copy of them.

Ansible finds this plugin next to the playbooks, those of an installed collection too. Variables of the environment are stronger, whether
its inventory file sets them for all hosts or for one, or files in group_vars and host_vars next to it do.

It also gives an environment the secrets that a manager keeps. They are read once, before Ansible forks: what is forked has them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.inventory.group import Group
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.vars import BaseVarsPlugin
from ansible.utils.vars import load_extra_vars

from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import RoleFiles, place_of
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_sources import SOURCE, VAULT, SourceError, read_secrets, settings_in

shared_variables = functools.cache(RoleFiles().shared)


@functools.cache
def is_first_inventory(folder: str) -> bool:
    """Return whether a folder is that of this run's first inventory.

    Ansible also asks for the folders of further inventories, and for that of the playbook: what it is given there wins against the files of
    the first one.
    """
    # A list of hosts has a comma, and no folder.
    sources = [Path(source) for source in context.CLIARGS.get("inventory") or () if "," not in str(source)]
    return bool(sources) and Path(folder).resolve() == (sources[0] if sources[0].is_dir() else sources[0].parent).resolve()


@functools.cache
def set_in_files(folder: Path, loader: DataLoader) -> dict[str, Any]:
    """Return what an environment's files set for all hosts."""
    # Ansible has read them, or reads them next: they come out of its cache.
    files = loader.find_vars_files(str(folder / "group_vars"), "all")
    contents = [loader.load_from_file(path, cache="all", unsafe=True, trusted_as_template=True) for path in files]
    return {name: value for content in contents if isinstance(content, dict) for name, value in content.items()}


@functools.cache
def managed_secrets(all_hosts: Group, folder: Path, loader: DataLoader) -> dict[str, Any]:
    """Return the secrets that another source than the vault file has; asked once a run, as managers take a second or want a finger.

    Raises:
        AnsibleError: There are none, or the environment sets one of them too.
    """
    own = {**all_hosts.get_vars(), **set_in_files(folder, loader)}
    try:
        settings = settings_in({**shared_variables(), **own, **load_extra_vars(loader)})
        if settings[SOURCE] == VAULT:
            return {}
        secrets = read_secrets(settings, folder)
    except SourceError as error:
        raise AnsibleError(f"{error}. Nothing was touched") from None
    if twice := sorted(set(own) & set(secrets)):
        places = ", ".join(sorted({place_of(own[name]) or str(folder) for name in twice}))
        raise AnsibleError(
            f"{', '.join(twice)} of slipway_secrets_{settings[SOURCE]} would not count, as {places} sets the same: remove it there. "
            "Nothing was touched"
        )
    return secrets


class VarsModule(BaseVarsPlugin):  # type: ignore[misc]
    """What Ansible asks for variables; it asks this plugin before it reads the files of the environment."""

    def get_vars(self, loader: Any, path: str, entities: Any) -> dict[str, Any]:
        """Return the shared variables for the group of all hosts, and for other groups what the inventory file sets of them.

        What an inventory file sets for a group is weaker for Ansible than files for all hosts, of which the shared one is none: it is given
        again, unless the environment's own files set it.
        """
        super().get_vars(loader, path, entities)
        groups = [entity for entity in (entities if isinstance(entities, list) else [entities]) if isinstance(entity, Group)]
        if not groups or not is_first_inventory(path):
            return {}
        shared = shared_variables()
        folder = Path(path) if Path(path).is_dir() else Path(path).parent
        found: dict[str, Any] = {}
        for group in groups:
            own = group.get_vars()
            if group.name == "all":
                found |= {name: value for name, value in shared.items() if name not in own}
                found |= managed_secrets(group, folder, loader)
            elif given := {name: value for name, value in own.items() if name in shared}:
                found |= {name: value for name, value in given.items() if name not in set_in_files(folder, loader)}
        return found
