# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read an environment's secrets from a manager or a file of age, instead of a vault file. They stay in memory.

docs/configure.md describes the variables. No message holds what a manager has printed: it may hold secrets.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.slipway.stack.plugins.plugin_utils.forms import Form
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import near, shared_forms
from ansible_collections.slipway.stack.plugins.plugin_utils.input_checks import form_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import TOP_LEVEL_KEY

SOURCE = "slipway_secrets_source"
VAULT = "vault"
PREFIX = "vault_"
#: A manager that waits to be unlocked must not hold up a run for ever.
SECONDS = 60


class SourceError(Exception):
    """Why there are no secrets, and what to do."""


def settings_in(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables that say where secrets come from.

    Raises:
        SourceError: One of them is missing, no valid value, or a template, which is not evaluated this early.
    """
    source = variables.get(SOURCE, VAULT)
    needed = [SOURCE] if source == VAULT else [SOURCE, f"slipway_secrets_{source}"]
    forms: dict[str, Form] = {name: form for name, form in shared_forms().items() if name in needed}
    for name, form in forms.items():
        value = variables.get(name, VAULT if name == SOURCE else None)
        if value is None:
            raise SourceError(f"{SOURCE} is {source}, and {name} is not set: set it with {SOURCE}")
        if "{{" in str(value):
            raise SourceError(f"{name} is a template: secrets are read before templates are evaluated; write the value itself")
        if wrong := form_problem(form, value):
            raise SourceError(f"{name}{wrong}; correct it")
    return {name: variables.get(name, VAULT) for name in forms}


def read_secrets(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the secrets of an environment by name.

    Args:
        settings: What settings_in has returned, for another source than the vault.
        folder: The environment's folder: commands run there, and paths are relative to it.

    Raises:
        SourceError: The source gives none.
    """
    source = settings[SOURCE]
    name = f"slipway_secrets_{source}"
    readers: dict[str, Callable[[Any, Path], Any]] = {"command": _from_command, "hashicorp": _from_hashicorp, "age": _from_age}
    try:
        found = readers[source](settings[name], folder)
    except ImportError as error:
        raise SourceError(
            f"{SOURCE} is {source}, which needs the Python library {error.name}: install requirements/secrets.txt for the Python of Ansible"
        ) from None
    except SourceError as error:
        raise SourceError(f"{name}: {error}") from None
    return _named(found, name)


def _named(found: Any, origin: str) -> dict[str, Any]:
    """Return what is a secret among what a source has, under the names that variables have."""
    if not isinstance(found, Mapping):
        raise SourceError(f"{origin} gives no dictionary of names and values")
    pairs = list(found.items())
    if isinstance(found.get("fields"), list):
        # An item of 1Password or Bitwarden.
        pairs = [(field.get("label") or field.get("name"), field.get("value")) for field in found["fields"] if isinstance(field, Mapping)]
    secrets: dict[str, Any] = {}
    for key, value in pairs:
        # Doppler has names in capital letters.
        name = str(key).lower()
        if name.startswith(PREFIX):
            if name in secrets:
                raise SourceError(f"{origin} gives {name} twice: remove one")
            secrets[name] = value
    if not secrets:
        raise SourceError(f"{origin} gives no secret: names begin with {PREFIX}, as vault_app_secret_key")
    return secrets


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dictionary of JSON, each of whose names stands once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _unused in pairs]
        raise SourceError(f"it gives {next(name for name in names if names.count(name) > 1)} twice: remove one")
    return found


def _from_command(command: list[str], folder: Path) -> Any:
    """Return the JSON that a command prints."""
    by_hand = f"run it by hand in {near(folder)} to see why"
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise SourceError(f"{command[0]} did not end within {SECONDS} seconds: unlock the manager first, or {by_hand}") from None
    except OSError as error:
        raise SourceError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode < 0:
        raise SourceError(f"{command[0]} was ended by signal {-done.returncode}: {by_hand}")
    if done.returncode:
        raise SourceError(f"{command[0]} ended with status {done.returncode}: {by_hand}")
    try:
        return json.loads(done.stdout, object_pairs_hook=_each_once)
    except ValueError:
        raise SourceError(f"{command[0]} printed no JSON: {by_hand}, and ask for JSON, as with --format json") from None


def _exported(name: str) -> str | None:
    """Return what the environment has for the client of HashiCorp Vault, or of OpenBao; None where it has neither, or an empty value."""
    return os.environ.get(f"VAULT_{name}") or os.environ.get(f"BAO_{name}") or None


def _from_hashicorp(settings: Mapping[str, Any], _folder: Path) -> Any:
    """Return a secret of the key-value store, version 2, of HashiCorp Vault or OpenBao.

    Address, namespace, token and authority come from VAULT_ADDR and so on, or BAO_ADDR, where the settings have none; a role's secret_id
    from VAULT_SECRET_ID.
    """
    import hvac
    import requests

    path, mount = settings["path"], settings.get("mount", "secret")
    url = settings.get("url") or _exported("ADDR") or hvac.constants.client.DEFAULT_URL
    log_in = "log in, and check the token's policy"
    try:
        client = hvac.Client(
            url=url,
            # hvac itself reads VAULT_TOKEN, and the file of `vault login`.
            token=_exported("TOKEN"),
            namespace=settings.get("namespace") or _exported("NAMESPACE"),
            verify=_exported("CACERT") or _exported("CAPATH") or True,
            timeout=SECONDS,
        )
        if settings.get("role_id"):
            log_in = "check role_id, VAULT_SECRET_ID, and the role's policy"
            client.auth.approle.login(role_id=settings["role_id"], secret_id=_exported("SECRET_ID"))
        return client.secrets.kv.v2.read_secret_version(path=path, mount_point=mount, raise_on_deleted_version=True)["data"]["data"]
    except hvac.exceptions.InvalidPath:
        raise SourceError(
            f"there is no secret at {path} of the key-value store {mount}: correct path, which has neither the store nor data/, or mount; "
            "the store must have version 2"
        ) from None
    except (hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized, hvac.exceptions.InvalidRequest):
        raise SourceError(f"{url} refuses to read {path}: {log_in}") from None
    except (hvac.exceptions.VaultError, requests.RequestException, OSError) as error:
        raise SourceError(
            f"{url} gives no answer to use ({type(error).__name__}): check its address, VAULT_CACERT, and whether it is sealed"
        ) from None
    except (KeyError, TypeError, AttributeError):
        # Such as a proxy's page of HTML, with status 200.
        raise SourceError(f"{url} does not answer as a key-value store, version 2: check its address, and mount") from None


def _from_age(settings: Mapping[str, Any], folder: Path) -> Any:
    """Return the dictionary, as YAML or JSON, that a file encrypted with age holds."""
    import pyrage

    texts = {}
    for key in ("file", "identity"):
        path = folder / Path(settings[key]).expanduser()
        try:
            texts[key] = path.read_bytes()
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    if not texts["file"].startswith((b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----")):
        raise SourceError(f"{settings['file']} is not encrypted with age: encrypt it by `age --recipient`")
    lines = [line.strip() for line in texts["identity"].decode(errors="replace").splitlines()]
    try:
        if b"PRIVATE KEY" in texts["identity"]:
            identities = [pyrage.ssh.Identity.from_buffer(texts["identity"])]
        else:
            identities = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
        text = pyrage.decrypt(texts["file"], identities)
        names = [match["name"] for match in TOP_LEVEL_KEY.finditer(text.decode())]
        found = yaml.safe_load(text)
    except pyrage.IdentityError:
        raise SourceError(
            f"{settings['identity']} holds no identity of age, AGE-SECRET-KEY-1…, and no private key of ssh without a passphrase: name one"
        ) from None
    except pyrage.DecryptError:
        raise SourceError(
            f"{settings['file']} cannot be decrypted with {settings['identity']}: name another identity, or encrypt it for this one too"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SourceError(f"{settings['file']} holds neither YAML nor JSON") from None
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise SourceError(f"{settings['file']} gives {twice} twice: remove one")
    return found
