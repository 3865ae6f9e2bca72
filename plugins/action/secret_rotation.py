# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring secrets to the next stage of their rotation. See the documentation of secret_rotation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from ansible_collections.slipway.stack.plugins.plugin_utils import app_services
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import names_used
from ansible_collections.slipway.stack.plugins.plugin_utils.rotation import (
    ENDS,
    NAMES,
    SECRETS,
    SETTLING,
    STEADY,
    RotationError,
    Values,
    advanced,
    begun,
    ended,
    names_of,
    undone,
    values_in,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_sources import VAULT
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import is_template, new_secret, secret_problem, with_values
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
                "step": {"type": "str", "required": True, "choices": ["begin", "advance", "end"]},
                "undo": {"type": "bool", "default": False},
                "end_sessions": {"type": "bool", "default": False},
                "differs": {"type": "bool", "default": False},
                "source": {"type": "str", "default": VAULT},
                "path": {"type": "path"},
            }
        )
        undo, step = arguments["undo"], arguments["step"]
        try:
            names = names_of(arguments["what"], arguments["known"])
            before = {name: values_in(self._variables(task_vars), name) for name in names}
            if step == "begin":
                self._refuse(names, before, arguments, task_vars)
                self._require_new_values(before, arguments)
                after = {name: self._begun(name, values, arguments) for name, values in before.items()}
            elif step == "advance":
                after = {name: advanced(name, values, undo=undo) for name, values in before.items()}
            else:
                after = {name: ended(values) for name, values in before.items()}
            variables = {variable: value for name, values in after.items() for variable, value in values.variables(name).items()}
            if arguments["source"] == VAULT:
                path = (
                    Path(arguments["path"]) if arguments["path"] else vault_path_next_to(task_vars.get("ansible_inventory_sources") or [])
                )
                self._write(VaultFile(path, self._loader), before, variables)
        except RotationError as error:
            raise AnsibleActionFail(str(error) + (". Nothing was touched" if step == "begin" else "")) from None
        result.update(
            changed=before != after,
            variables=variables,
            stages={name: values.stage for name, values in after.items()},
            retired={name: values.retired for name, values in after.items() if values.retired},
        )
        # Not the task: why it fails holds no secret, and must be seen.
        result["_ansible_no_log"] = True
        return result

    def _variables(self, task_vars: Mapping[str, Any]) -> dict[str, str]:
        """Return the secrets as the hosts have them."""
        return {name: str(self._templar.template(value)) for name, value in task_vars.items() if name.startswith("vault_") and value}

    def _refuse(self, names: list[str], before: Mapping[str, Values], arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        """Raise why no rotation begins, or goes on."""
        if limit := task_vars.get("ansible_limit"):
            raise RotationError(f"--limit {limit} would leave out hosts that use the secrets: leave it out")
        extra = load_extra_vars(self._loader)
        given = sorted({f"{name}{end}" for name in names for end in ENDS} & set(extra))
        if given:
            raise RotationError(f"{', '.join(given)} after -e would stay the same through all stages: write it where the secrets are")
        if all(values.stage == STEADY for values in before.values()):
            if arguments["undo"]:
                raise RotationError(f"no rotation of {', '.join(names)} is under way, so there is nothing to undo")
            if arguments["differs"]:
                raise RotationError("hosts differ from the inventory: run site.yml first, so that the rotation changes nothing else")
        if "vault_app_secret_key" in names and not arguments["end_sessions"] and not arguments["undo"]:
            used = set().union(*(names_used(task_vars.get(name)) for name in app_services.VARIABLES))
            if SECOND_KEY not in used:
                raise RotationError(
                    f"the product has no secret that is made of {SECOND_KEY}, so what it signed with the old key would be refused: give it "
                    "one, as docs/rotation.md shows, or accept that all sessions end with -e end_sessions=true"
                )

    def _require_new_values(self, before: Mapping[str, Values], arguments: Mapping[str, Any]) -> None:
        """Raise which new values a manager does not have, or are in use already, all at once."""
        # An own last stage has the retired value too.
        same = [f"{name}_next" for name, values in before.items() if values.stage == SETTLING and not values.retired]
        if same:
            raise RotationError(
                f"{', '.join(same)} {'is' if len(same) == 1 else 'are each'} the value in use: add another one, or remove it"
            )
        missing = [f"{name}_next" for name, values in before.items() if values.stage == STEADY]
        if missing and arguments["source"] != VAULT and not arguments["undo"]:
            raise RotationError(
                f"there is no new value: add {', '.join(missing)} to what slipway_secrets_{arguments['source']} reads, and run this again"
            )

    def _begun(self, name: str, values: Values, arguments: Mapping[str, Any]) -> Values:
        """Return the values of a secret's first stage."""
        if arguments["undo"]:
            return undone(name, values)
        after = begun(values, new_secret)
        if wrong := secret_problem(after.following or after.current):
            raise RotationError(f"{name}_next {wrong}")
        return after

    def _write(self, file: VaultFile, before: Mapping[str, Values], variables: Mapping[str, str]) -> None:
        """Write the variables of the next stage; the file as it was before the rotation is kept until the end."""
        present = self._values_in(file.text)
        now = {variable: value for name, values in before.items() for variable, value in values.variables(name).items() if value}
        if elsewhere := [variable for variable in now if variable not in present]:
            raise RotationError(f"{', '.join(elsewhere)} is not set in {file.path}, which is the file that is written: move it there")
        if other := [variable for variable, value in now.items() if not is_template(present[variable]) and str(present[variable]) != value]:
            raise RotationError(f"{', '.join(other)} has another value than in {file.path}: set it in no other place")
        text = with_values(file.text, variables)
        after = self._values_in(text)
        if any(str(after.get(name) or "") != value for name, value in variables.items()) or set(present) - set(after) - set(variables):
            raise RotationError(f"{file.path} cannot be rewritten: give each variable of it lines of its own, without anchors of YAML")
        if self._task.check_mode or file.text == text:
            return
        file.prepare()
        kept = file.path.with_name(f".{file.path.name}.before_rotation")
        if not kept.exists() or all(values.stage == STEADY for values in before.values()):
            file.copy(kept)
        file.write(text)
        if all(values_in(after, name).stage == STEADY for name in NAMES):
            kept.unlink(missing_ok=True)

    def _values_in(self, text: str) -> dict[str, Any]:
        """Return what the text of a file of variables sets; empty where it cannot be read."""
        try:
            found = self._loader.load(text, show_content=False)
        except AnsibleError:
            return {}
        return dict(found) if isinstance(found, Mapping) else {}
