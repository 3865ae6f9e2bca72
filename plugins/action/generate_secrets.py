# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the secrets that an environment lacks into its encrypted file. See the documentation of generate_secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils.secret_sources import VAULT
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import GENERATED_LENGTH, names_in, with_new_secrets
from ansible_collections.slipway.stack.plugins.plugin_utils.vault_file import VaultFile, vault_path_next_to


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; no host is asked or changed."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was generated and kept, by name."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            {
                "names": {"type": "list", "elements": "str", "required": True},
                "path": {"type": "path"},
                "source": {"type": "str", "default": VAULT},
            }
        )
        if arguments["source"] != VAULT:
            return {**result, **self._look_up(arguments["names"], arguments["source"], task_vars)}
        path = Path(arguments["path"]) if arguments["path"] else vault_path_next_to(task_vars.get("ansible_inventory_sources") or [])
        if arguments["path"] and not path.parent.is_dir():
            raise AnsibleActionFail(f"there is no folder {path.parent} for {path}; correct slipway_secrets_file, or create the folder")
        file = VaultFile(path, self._loader)
        set_elsewhere = self._names_set(task_vars)
        kept = [name for name in arguments["names"] if name in names_in(file.text) or name in set_elsewhere]
        missing = [name for name in arguments["names"] if name not in kept]
        changed = bool(missing) or (bool(file.text.strip()) and not file.encrypted)

        if changed:
            file.prepare()
            try:
                new_text = with_new_secrets(file.text, missing)
            except ValueError as error:
                raise AnsibleActionFail(str(error)) from error
            if not self._task.check_mode:
                file.write(new_text)

        result.update(
            changed=changed,
            path=str(path),
            generated=missing,
            kept=kept,
            vault_password_file=str(file.password_file or ""),
        )
        if self._task.diff and missing:
            result["diff"] = {
                "before_header": str(path),
                "after_header": str(path),
                "before": "",
                "after": "".join(f"{name}: (generated)\n" for name in missing),
            }
        return result

    def _look_up(self, names: list[str], source: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return that a manager has all secrets; it is not written to."""
        set_there = self._names_set(task_vars)
        if missing := [name for name in names if name not in set_there]:
            raise AnsibleActionFail(
                f"slipway_secrets_{source} has no {', '.join(missing)}: create these keys there, each with a random value of "
                f"{GENERATED_LENGTH} letters and digits. secrets.yml writes vault files alone"
            )
        return {"changed": False, "path": f"slipway_secrets_{source}", "generated": [], "kept": names, "vault_password_file": ""}

    @staticmethod
    def _names_set(task_vars: dict[str, Any]) -> set[str]:
        """Return the variables that the inventory sets for any host."""
        hostvars = task_vars.get("hostvars") or {}
        return {name for host in hostvars for name in hostvars[host]} | {name for name in task_vars if name != "vars"}
