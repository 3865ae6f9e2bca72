# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup topology."""

from __future__ import annotations

DOCUMENTATION = r"""
name: topology
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: What follows for a host from the services and the inventory's groups
description:
  - Reads the C(meta/service.yml) of all roles of this collection, and of roles in Ansible's path of roles, and says what follows from these
    and the inventory for the host of the task.
  - The class C(Topology) in C(plugins/plugin_utils/topology.py) documents each answer.
options:
  _terms:
    description:
      - What is asked, by the name of a method of C(Topology), such as V(hosts), V(address), V(peers), V(published_ports) or V(secrets).
      - Its arguments follow, such as the role of a service.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the hosts of the database
  ansible.builtin.debug:
    msg: "{{ lookup('slipway.stack.topology', 'hosts', 'postgres') }}"

- name: Show what this host publishes, and for whom
  ansible.builtin.debug:
    msg: "{{ lookup('slipway.stack.topology', 'published_ports') }}"
"""

RETURN = r"""
_raw:
  description: The answer, as the only member of a list.
  type: list
  elements: raw
"""

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ansible_collections.slipway.stack.plugins.plugin_utils.compiled import compiled_once
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import topology_of
from ansible_collections.slipway.stack.plugins.plugin_utils.topology import Topology


class LookupModule(LookupBase):  # type: ignore[misc]
    """What Ansible asks for the lookup of this file."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:  # noqa: ARG002
        """Return the answer."""
        question, *arguments = terms
        if question.startswith("_") or not hasattr(Topology, question):
            raise AnsibleError(f"the topology has no answer to {question!r}; see `ansible-doc -t lookup slipway.stack.topology`")
        with compiled_once():
            return [getattr(topology_of(variables or {}, self._loader), question)(*arguments)]
