# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of ``image_pull``: opens the way on which a host gets images, and closes it again."""

from __future__ import annotations

import contextlib
import tempfile
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.slipway.stack.plugins.module_utils import images
from ansible_collections.slipway.stack.plugins.module_utils.layout import Layout, LayoutError
from ansible_collections.slipway.stack.plugins.module_utils.logins import LOGIN_OPTIONS
from ansible_collections.slipway.stack.plugins.plugin_utils.connections import connection_to
from ansible_collections.slipway.stack.plugins.plugin_utils.layout_server import Server
from ansible_collections.slipway.stack.plugins.plugin_utils.tunnel import Tunnel, TunnelError

AGAIN = "build the version again with playbooks/build.yml"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Run the module between opening and closing of a tunnel."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the module's result, with the bytes that were sent where we sent them."""
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(
            {
                "images": {"type": "list", "elements": "dict", "default": []},
                "names": {"type": "list", "elements": "str", "default": []},
                "transport": {"type": "str", "choices": ["registry", "ssh", "hosted"], "default": "registry"},
                "store": {"type": "path"},
                "registry_host": {"type": "str", "default": ""},
                "registry_port": {"type": "int", "default": 5000},
                "login": {"type": "dict", "default": {}, "options": LOGIN_OPTIONS},
                "timeout": {"type": "int", "default": 600},
            }
        )
        if not options["images"] and not options["names"]:
            return {"changed": False, "pulled": []}
        with contextlib.ExitStack() as open_ways:
            try:
                prefix, server = self._open(options, task_vars, open_ways)
            except (TunnelError, LayoutError) as error:
                host = task_vars.get("inventory_hostname", "?")
                raise AnsibleActionFail(
                    f"images cannot be transferred to {host} (image_transport: {options['transport']}): {error}"
                ) from error
            wanted = [self._with_source(image, prefix) for image in options["images"]]
            result: dict[str, t.Any] = self._execute_module(
                module_name="slipway.stack.image_pull",
                module_args={**options, "images": wanted, "login": {} if prefix else options["login"]},
                task_vars=task_vars,
            )
            if server is not None:
                result["bytes_sent"] = server.bytes_sent
        # The login is in the arguments, which -vvv shows.
        result.pop("invocation", None)
        return result

    @staticmethod
    def _with_source(image: dict[str, t.Any], prefix: str) -> dict[str, t.Any]:
        """Return an image with the name under which the host finds it."""
        name = image["name"]
        return {**image, "source": f"{prefix}/{images.path_of(name)}" if prefix else images.repository_of(name)}

    def _open(self, options: dict[str, t.Any], task_vars: dict[str, t.Any], ways: contextlib.ExitStack) -> tuple[str, Server | None]:
        """Open the way for a transport; return the registry's name on the host ("" for a registry of its own), and our server."""
        if options["transport"] == "registry" or self._task.check_mode or not options["images"]:
            return "", None
        folder = ways.enter_context(tempfile.TemporaryDirectory(prefix="slipway-images-"))
        socket_path = f"{folder}/registry"
        server = None
        if options["transport"] == "ssh":
            layout = Layout(Path(options["store"]))
            for image in options["images"]:
                if layout.missing(image["digest"]):
                    raise LayoutError(f"{image['name']} is not complete in {layout.folder}: {AGAIN}")
            server = ways.enter_context(Server(layout, socket_path))
        else:
            if not options["registry_host"]:
                raise TunnelError("no host runs the registry: add one to group registry of the inventory")
            if options["registry_host"] == task_vars["inventory_hostname"]:
                return f"127.0.0.1:{options['registry_port']}", None
            there = connection_to(options["registry_host"], task_vars["hostvars"], self._play_context)
            forward = f"{socket_path}:127.0.0.1:{options['registry_port']}"
            ways.enter_context(Tunnel(there, "-L", forward, ready=lambda: Path(socket_path).exists()))
        tunnel = ways.enter_context(Tunnel(self._connection, "-R", f"127.0.0.1:0:{socket_path}"))
        return f"127.0.0.1:{tunnel.port}", server
