# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the secrets that an environment lacks into its encrypted file. See the documentation of generate_secrets."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret, is_encrypted, match_encrypt_secret, parse_vaulttext_envelope
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils.environment import environment_folder, write_atomically
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_sources import VAULT
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import GENERATED_LENGTH, names_in, with_new_secrets

# What tools/vault-password prints when there is no password.
NO_PASSWORD = b"slipway-has-no-vault-password"
VAULT_FILE = Path("group_vars", "all", "vault.yml")


def vault_path_next_to(sources: list[str]) -> Path:
    """Return the vault file of the inventory that a run was given.

    Raises:
        AnsibleActionFail: There is no inventory on disk, or more than one.
    """
    try:
        return environment_folder(sources) / VAULT_FILE
    except AnsibleActionFail as error:
        raise AnsibleActionFail(
            f"{error}. Name the file itself with -e slipway_secrets_file=<path> where an environment is laid out otherwise"
        ) from error


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
        text, encrypted, vault_id = self._read(path)
        set_elsewhere = self._names_set(task_vars)
        kept = [name for name in arguments["names"] if name in names_in(text) or name in set_elsewhere]
        missing = [name for name in arguments["names"] if name not in kept]
        changed = bool(missing) or (bool(text.strip()) and not encrypted)

        password_file: Path | None = None
        if changed:
            password_file, secret, vault_id = self._secret(path, vault_id)
            try:
                new_text = with_new_secrets(text, missing)
            except ValueError as error:
                raise AnsibleActionFail(str(error)) from error
            if not self._task.check_mode:
                if password_file:
                    self._create_password_file(password_file, secret)
                mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
                write_atomically(path, VaultLib().encrypt(new_text, secret, vault_id=vault_id), mode)

        result.update(
            changed=changed,
            path=str(path),
            generated=missing,
            kept=kept,
            vault_password_file=str(password_file or ""),
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

    def _read(self, path: Path) -> tuple[str, bool, str | None]:
        """Return a vault file's text, whether it was encrypted, and the label of its password."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return "", False, None
        except OSError as error:
            raise AnsibleActionFail(f"{path} cannot be read: {error.strerror}") from error
        if not is_encrypted(data):
            return data.decode(), False, None
        try:
            plain = VaultLib(self._secrets()).decrypt(data)
        except AnsibleError as error:
            raise AnsibleActionFail(
                f"{path} cannot be decrypted with the vault password of this run; nothing was written. Export "
                "SLIPWAY_VAULT_PASSWORD, write the password into .vault-password, or give --vault-password-file"
            ) from error
        return plain.decode(), True, parse_vaulttext_envelope(data)[3]

    def _secrets(self) -> list[tuple[str, VaultSecret]]:
        """Return the vault passwords of this run by label."""
        return self._loader._vault.secrets or []  # noqa: SLF001 - Ansible offers plugins no other way to them

    @staticmethod
    def _names_set(task_vars: dict[str, Any]) -> set[str]:
        """Return the variables that the inventory sets for any host."""
        hostvars = task_vars.get("hostvars") or {}
        return {name for host in hostvars for name in hostvars[host]} | {name for name in task_vars if name != "vars"}

    def _secret(self, path: Path, vault_id: str | None) -> tuple[Path | None, VaultSecret, str | None]:
        """Return the password file to create (None when there is a password), the password and its label."""
        known = [(label, secret) for label, secret in self._secrets() if secret.bytes.strip() != NO_PASSWORD]
        if known:
            wanted = vault_id if vault_id in {label for label, _unused in known} else None
            label, secret = match_encrypt_secret(known, encrypt_vault_id=wanted or C.DEFAULT_VAULT_ENCRYPT_IDENTITY)
            return None, secret, label
        script = Path(C.DEFAULT_VAULT_PASSWORD_FILE) if C.DEFAULT_VAULT_PASSWORD_FILE else None
        if script is None or not self._secrets():
            raise AnsibleActionFail(f"{path} needs a vault password; give --vault-password-file or --vault-id")
        root = script.resolve().parent.parent
        for other in sorted(root.glob(f"inventories/*/{VAULT_FILE}")):
            if is_encrypted(other.read_bytes()[:64]):
                raise AnsibleActionFail(
                    f"{other} is encrypted and its password is not known here, so no second one is created. Export "
                    f"SLIPWAY_VAULT_PASSWORD, or write the password into {root / '.vault-password'} (mode 0600)"
                )
        return root / ".vault-password", VaultSecret(secrets.token_urlsafe(48).encode()), None

    @staticmethod
    def _create_password_file(path: Path, secret: VaultSecret) -> None:
        """Write a new password for its owner only; a file that appeared meanwhile is an error, never overwritten."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise AnsibleActionFail(f"{path} cannot be created: {error.strerror}") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret.bytes + b"\n")
