# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write down in the inventory what a build made. See the documentation of image_record."""

from __future__ import annotations

import secrets
import typing as t
from pathlib import Path

import yaml
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.module_utils import images
from ansible_collections.slipway.stack.plugins.plugin_utils import image_records
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import environment_folder, write_atomically

RECORD = Path("group_vars", "all", "30_images.yml")
STORE = ".images"
#: File with a random word, which distinguishes environments that share a folder of images.
IDENTITY = ".image-store-id"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; no host is asked or changed."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return what is recorded, with what was built when that is given."""
        task_vars = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(
            {"version": {"type": "str", "required": True}, "built": {"type": "dict"}, "store": {"type": "str", "default": ""}}
        )
        folder = environment_folder(task_vars.get("ansible_inventory_sources") or [], further=True)
        path = folder / RECORD
        digests = self._read(path)
        changed = False
        if options["built"]:
            try:
                wanted = image_records.with_record(digests, options["version"], options["built"])
            except images.ImageError as error:
                raise AnsibleActionFail(str(error)) from error
            changed, digests = wanted != digests, wanted
            if changed and not self._task.check_mode:
                write_atomically(path, image_records.record_text(digests).encode(), 0o644)
        result.update(
            changed=changed,
            path=str(path),
            inventory=str(folder.resolve()),
            environment=self._identity(folder) if options["store"] else "",
            store=options["store"] or str(folder.absolute() / STORE),
            recorded=digests.get(options["version"]) or {},
            kept=sorted({entry["digest"] for services in digests.values() for entry in services.values()}),
        )
        return result

    def _identity(self, folder: Path) -> str:
        """Return the name of this environment among those of all controllers; it is made once, and stays with its inventory."""
        path = folder / IDENTITY
        try:
            found = path.read_text(encoding="ascii").strip() if path.exists() else ""
            if not found and not self._task.check_mode:
                found = secrets.token_hex(16)
                write_atomically(path, f"{found}\n".encode(), 0o644)
        except (OSError, ValueError) as error:
            raise AnsibleActionFail(f"{path} cannot be read or written: {error}") from error
        return found

    @staticmethod
    def _read(path: Path) -> dict[str, t.Any]:
        """Return what the file of this environment records; other files may have more, which this does not rewrite."""
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            return {}
        except (OSError, yaml.YAMLError) as error:
            raise AnsibleActionFail(f"{path} cannot be read: {' '.join(str(error).split())}") from error
        return t.cast("dict[str, t.Any]", content.get("image_digests") or {})
