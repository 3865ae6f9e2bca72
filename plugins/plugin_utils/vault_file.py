# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The encrypted file with an environment's secrets: where it is, what it holds, and how it is replaced."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret, is_encrypted, match_encrypt_secret, parse_vaulttext_envelope

from ansible_collections.slipway.stack.plugins.plugin_utils.environment import environment_folder, write_atomically

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


class VaultFile:
    """A vault file.

    Attributes:
        path: Where it is.
        text: What it holds; "" where there is none.
        encrypted: Whether it was.
        password_file: The file that write creates with a new password, None where there is a password; known once prepare was called.
    """

    def __init__(self, path: Path, loader: Any) -> None:
        """Read the file.

        Raises:
            AnsibleActionFail: It cannot be read or decrypted.
        """
        self.path = path
        self.password_file: Path | None = None
        self._created = False
        self._passwords: list[tuple[str, VaultSecret]] = loader._vault.secrets or []  # noqa: SLF001 - Ansible offers plugins no other way
        self.text, self.encrypted, self._label = self._read()

    def _read(self) -> tuple[str, bool, str | None]:
        """Return the file's text, whether it was encrypted, and the label of its password."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return "", False, None
        except OSError as error:
            raise AnsibleActionFail(f"{self.path} cannot be read: {error.strerror}") from error
        if not is_encrypted(data):
            return data.decode(), False, None
        try:
            plain = VaultLib(self._passwords).decrypt(data)
        except AnsibleError as error:
            raise AnsibleActionFail(
                f"{self.path} cannot be decrypted with the vault password of this run; nothing was written. Export "
                "SLIPWAY_VAULT_PASSWORD, write the password into .vault-password, or give --vault-password-file"
            ) from error
        return plain.decode(), True, parse_vaulttext_envelope(data)[3]

    def prepare(self) -> None:
        """Choose the password to encrypt with.

        Raises:
            AnsibleActionFail: There is none, and none may be created.
        """
        known = [(label, secret) for label, secret in self._passwords if secret.bytes.strip() != NO_PASSWORD]
        if known:
            wanted = self._label if self._label in {label for label, _unused in known} else None
            self._label, self._password = match_encrypt_secret(known, encrypt_vault_id=wanted or C.DEFAULT_VAULT_ENCRYPT_IDENTITY)
            return
        script = Path(C.DEFAULT_VAULT_PASSWORD_FILE) if C.DEFAULT_VAULT_PASSWORD_FILE else None
        if script is None or not self._passwords:
            raise AnsibleActionFail(f"{self.path} needs a vault password; give --vault-password-file or --vault-id")
        root = script.resolve().parent.parent
        for other in sorted(root.glob(f"inventories/*/{VAULT_FILE}")):
            if is_encrypted(other.read_bytes()[:64]):
                raise AnsibleActionFail(
                    f"{other} is encrypted and its password is not known here, so no second one is created. Export "
                    f"SLIPWAY_VAULT_PASSWORD, or write the password into {root / '.vault-password'} (mode 0600)"
                )
        self.password_file, self._password = root / ".vault-password", VaultSecret(secrets.token_urlsafe(48).encode())
        self._label = None

    def write(self, text: str) -> None:
        """Replace the file, or create it, encrypted; prepare was called before."""
        self._encrypt(self.path, text)
        self.text = text

    def copy(self, path: Path) -> None:
        """Write what the file holds to another one, encrypted; prepare was called before."""
        self._encrypt(path, self.text)

    def _encrypt(self, path: Path, text: str) -> None:
        if self.password_file and not self._created:
            self._create_password_file(self.password_file)
            self._created = True
        mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o600
        write_atomically(path, VaultLib().encrypt(text, self._password, vault_id=self._label), mode)

    def _create_password_file(self, path: Path) -> None:
        """Write a new password for its owner only; a file that appeared meanwhile is an error, never overwritten."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise AnsibleActionFail(f"{path} cannot be created: {error.strerror}") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(self._password.bytes + b"\n")
