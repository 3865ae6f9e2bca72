# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring secrets to the next stage of their rotation. See the documentation of secret_rotation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from ansible_collections.slipway.stack.plugins.plugin_utils import app_services
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import write_atomically
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import names_used
from ansible_collections.slipway.stack.plugins.plugin_utils.rotation import (
    ACCEPTED,
    SECRETS,
    STEADY,
    RotationError,
    Values,
    advanced,
    begun,
    names_of,
    undone,
    values_in,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_sources import VAULT
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import names_in, new_secret, secret_problem, with_values
from ansible_collections.slipway.stack.plugins.plugin_utils.vault_file import VaultFile, vault_path_next_to

#: What a product that verifies with a second key has among its secrets.
SECOND_KEY = "slipway_secret_key_accepted"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; no host is asked or changed."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the variables of the stage that is to be brought about now."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            {
                "what": {"type": "str", "required": True, "choices": [*SECRETS, "all"]},
                "known": {"type": "list", "elements": "str", "required": True},
                "step": {"type": "str", "required": True, "choices": ["begin", "advance"]},
                "undo": {"type": "bool", "default": False},
                "end_sessions": {"type": "bool", "default": False},
                "differs": {"type": "bool", "default": False},
                "source": {"type": "str", "default": VAULT},
                "path": {"type": "path"},
            }
        )
        try:
            names = names_of(arguments["what"], arguments["known"])
            before = {name: values_in(self._variables(task_vars), name) for name in names}
            if arguments["step"] == "begin":
                self._refuse(names, before, arguments, task_vars)
                after = {name: self._begun(name, values, arguments) for name, values in before.items()}
            else:
                after = {
                    name: Values(values.current) if arguments["undo"] and values.stage == ACCEPTED else advanced(name, values)
                    for name, values in before.items()
                }
        except RotationError as error:
            raise AnsibleActionFail(f"{error}. Nothing was touched") from None
        file = Path(arguments["path"]) if arguments["path"] else None
        if arguments["source"] == VAULT:
            path = file or vault_path_next_to(task_vars.get("ansible_inventory_sources") or [])
            self._write(VaultFile(path, self._loader), before, after, first=arguments["step"] == "begin")
        variables = {name: value for values in (values.variables(name) for name, values in after.items()) for name, value in values.items()}
        result.update(
            changed=before != after,
            variables=variables,
            stages={name: values.stage for name, values in after.items()},
            refused={name: values.previous for name, values in before.items() if arguments["step"] == "advance" and values.previous},
        )
        return result

    def _variables(self, task_vars: Mapping[str, Any]) -> dict[str, str]:
        """Return the secrets as the hosts have them."""
        return {name: str(self._templar.template(value)) for name, value in task_vars.items() if name.startswith("vault_") and value}

    def _refuse(self, names: list[str], before: Mapping[str, Values], arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        """Raise why no rotation begins, or goes on."""
        if limit := task_vars.get("ansible_limit"):
            raise RotationError(f"--limit {limit} would leave out hosts that use the secrets: leave it out")
        extra = load_extra_vars(self._loader)
        given = [name for name in extra if any(name in (secret, f"{secret}_next", f"{secret}_previous") for secret in names)]
        if given:
            raise RotationError(f"{', '.join(given)} after -e would stay the same through all stages: write it where the secrets are")
        if arguments["differs"] and all(values.stage == STEADY for values in before.values()):
            raise RotationError("hosts differ from the inventory: run site.yml first, which also completes the last stage of a rotation")
        if "vault_app_secret_key" in names and not arguments["end_sessions"] and not arguments["undo"]:
            used = set().union(*(names_used(task_vars.get(name)) for name in app_services.VARIABLES))
            if SECOND_KEY not in used:
                raise RotationError(
                    f"the product has no secret that is made of {SECOND_KEY}, so what it signed with the old key would be refused: give it "
                    "one, as docs/rotation.md shows, or accept that all sessions end with -e end_sessions=true"
                )

    def _begun(self, name: str, values: Values, arguments: Mapping[str, Any]) -> Values:
        """Return the values of a secret's first stage."""
        if arguments["undo"]:
            return undone(name, values)
        if arguments["source"] != VAULT and values.stage == STEADY:
            raise RotationError(
                f"there is no new value: add {name}_next to what slipway_secrets_{arguments['source']} reads, and run this again"
            )
        after = begun(values, new_secret)
        if wrong := secret_problem(after.following or after.current):
            raise RotationError(f"{name}_next {wrong}")
        return after

    def _write(self, file: VaultFile, before: Mapping[str, Values], after: Mapping[str, Values], *, first: bool) -> None:
        """Write the values of the next stage; the file as it was before the rotation is kept until the end."""
        if elsewhere := [name for name in before if name not in names_in(file.text)]:
            raise AnsibleActionFail(f"{', '.join(elsewhere)} is not set in {file.path}, which is the file that is written: move it there")
        kept = file.path.with_name(f"{file.path.name}.before_rotation")
        if self._task.check_mode:
            return
        if before != after:
            file.prepare()
            if first and not kept.exists():
                write_atomically(kept, file.path.read_bytes(), file.path.stat().st_mode & 0o777)
            file.write(
                with_values(file.text, {name: value for key, values in after.items() for name, value in values.variables(key).items()})
            )
        if all(values.stage == STEADY for values in after.values()):
            kept.unlink(missing_ok=True)
