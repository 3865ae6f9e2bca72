# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the encrypted network between hosts: plugin_utils/mesh.py, with what was read of the hosts of a run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ansible_collections.slipway.stack.plugins.plugin_utils import mesh
from ansible_collections.slipway.stack.plugins.plugin_utils.digest import digest_key
from ansible_collections.slipway.stack.plugins.plugin_utils.environment import ansible_home


def differences(
    tunnel: Mapping[str, Any],
    state: Mapping[str, Any],
    keys: Mapping[str, str],
    secrets: Mapping[str, str],
    files: Mapping[str, str],
    reached: Collection[str],
) -> list[str]:
    """Return what mesh.differences returns, with the controller's key of digests."""
    return mesh.differences(tunnel, state, keys, secrets, files, reached, digest_key(str(ansible_home())))


def silences(tunnel: Mapping[str, Any], hosts: Iterable[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Return the pairs of hosts of a run that did not answer each other, a sentence each."""
    return mesh.silences(tunnel, {host: hostvars[host]["__mesh_handshakes"] for host in hosts})


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "mesh_differences": differences,
            "mesh_keys": mesh.public_keys,
            "mesh_limit_problems": mesh.limit_problems,
            "mesh_peers": mesh.peers_text,
            "mesh_secret_id": mesh.secret_id,
            "mesh_secrets": mesh.secrets_in_use,
            "mesh_silences": silences,
        }
