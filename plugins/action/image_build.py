# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of ``image_build``: copies the source to the host that builds, and opens a tunnel to Slipway's registry."""

from __future__ import annotations

import contextlib
import subprocess
import tarfile
import tempfile
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.plugin_utils.connections import connection_to
from ansible_collections.slipway.stack.plugins.plugin_utils.tunnel import Tunnel, TunnelError, answers, free_port


def files_of(folder: Path) -> list[str]:
    """Return the files of a folder to send: those that git does not ignore, or outside a checkout all except .git."""
    listed = subprocess.run(
        ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        return sorted({name for name in listed.stdout.split("\0") if name and (folder / name).exists()})
    return sorted(path.name for path in folder.iterdir() if path.name != ".git")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Run the module where the images are built."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the module's result."""
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        folder = Path(str(arguments.get("folder", ".")))
        registry_host = str(arguments.get("registry_host", "") or "")
        registry_port = int(arguments.get("registry_port", 5000))
        builder = str(self._task.delegate_to or task_vars.get("inventory_hostname"))
        local = self._connection.transport == "local"
        place = folder.absolute()
        with contextlib.ExitStack() as open_ways:
            if not self._task.check_mode:
                if registry_host:
                    arguments["push_to"] = self._way(registry_host, registry_port, builder, task_vars, open_ways)
                if not local:
                    place = self._send(folder, task_vars)
            arguments["folder"] = str(place)
            arguments["images"] = {
                service: {**image, "context": f"{place}/{image['context']}", "dockerfile": f"{place}/{image['dockerfile']}"}
                for service, image in arguments["images"].items()
            }
            result: dict[str, t.Any] = self._execute_module(
                module_name="slipway.stack.image_build", module_args=arguments, task_vars=task_vars
            )
            if place != folder.absolute():
                # As the user who unpacked it; the rest of the temporary folder is Ansible's to remove.
                gone = {"path": str(place), "state": "absent"}
                self._execute_module(module_name="ansible.builtin.file", module_args=gone, task_vars=task_vars)
        # The login is in the arguments, which -vvv shows.
        result.pop("invocation", None)
        return result

    def _way(self, host: str, port: int, builder: str, task_vars: dict[str, t.Any], ways: contextlib.ExitStack) -> str:
        """Return the address under which the host that builds reaches our registry."""
        if host == builder:
            return f"127.0.0.1:{port}"
        near = free_port()
        try:
            there = connection_to(host, task_vars["hostvars"], self._play_context)
            ways.enter_context(Tunnel(there, "-L", f"127.0.0.1:{near}:127.0.0.1:{port}", ready=lambda: answers(near)))
        except TunnelError as error:
            raise AnsibleActionFail(f"the registry on {host} cannot be reached: {error}") from error
        return f"127.0.0.1:{near}"

    def _send(self, folder: Path, task_vars: dict[str, t.Any]) -> Path:
        """Send the files of a folder to the host that builds, and return where they are."""
        # Ansible has made one, as this plugin says that it transfers files, and removes it at the end.
        top = self._connection._shell.tmpdir or self._make_tmp_path()  # noqa: SLF001 - as Ansible's own action plugins do
        with tempfile.TemporaryDirectory(prefix="slipway-send-") as name:
            archive = Path(name) / "source.tar.gz"
            with tarfile.open(archive, "w:gz", compresslevel=3) as files:
                for path in files_of(folder):
                    files.add(folder / path, arcname=path)
            self._transfer_file(str(archive), f"{top}/source.tar.gz")
        place = f"{top}/source"
        for module, options in (
            ("ansible.builtin.file", {"path": place, "state": "directory", "mode": "0700"}),
            ("ansible.builtin.unarchive", {"src": f"{top}/source.tar.gz", "dest": place, "remote_src": True}),
        ):
            done = self._execute_module(module_name=module, module_args=options, task_vars=task_vars)
            if done.get("failed"):
                raise AnsibleActionFail(f"the source cannot be sent: {done.get('msg')}")
        return Path(place)
