#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring images to a host by their digests, and give them their readable names."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_pull
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Bring images to a host by their digests
description:
  - Pulls each image by its digest, so that what arrives is what was built whatever a tag says by now, looks at what arrived, and gives
    it the name with the tag. Layers that the host has are not sent.
  - With O(transport=registry) the host pulls from the registry that the image's name begins with. With O(transport=ssh) it pulls from
    the controller's folder of images, and with O(transport=hosted) from the registry on O(registry_host), both through an SSH tunnel
    that the controller opens to the host's loopback and closes again.
  - All in one remote call a host; several hosts pull at once, as tasks do.
options:
  images:
    description: Images, each with C(name) and its tag, C(digest) of its manifest, and C(id), the digest of its configuration, or "".
    type: list
    elements: dict
    default: []
  names:
    description: Names of images that are pulled from the registry that each names, unless the host has an image of that name.
    type: list
    elements: str
    default: []
  transport:
    description: Where the images come from.
    type: str
    choices: [registry, ssh, hosted]
    default: registry
  store:
    description: Folder of images on the controller, for O(transport=ssh).
    type: path
  timeout:
    description: Seconds that the engine may be silent while it pulls.
    type: int
    default: 600
extends_documentation_fragment:
  - slipway.stack.options.registry
  - slipway.stack.options.login
attributes:
  check_mode:
    description: Says which images it would pull.
    support: full
"""

EXAMPLES = r"""
- name: Bring the backend
  slipway.stack.image_pull:
    transport: ssh
    store: inventories/shop/.images
    images:
      - name: shop/backend:1.1.0
        digest: sha256:4bd6b8b9b1f3f3d4a0f5ee6d9d4b1f8a3b6d7c5b0b0c1d2e3f4a5b6c7d8e9f00
        id: sha256:0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9
"""

RETURN = r"""
pulled:
  description: Of each image its C(name), C(id) on this host, and numbers C(layers_moved) and C(layers_kept).
  returned: success
  type: list
  elements: dict
bytes_sent:
  description: Bytes that went to this host; for O(transport=ssh) only.
  returned: when known
  type: int
"""

import typing as t
from urllib.parse import quote

from ansible_collections.slipway.stack.plugins.module_utils import images
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError, normal_reference
from ansible_collections.slipway.stack.plugins.module_utils.logins import LOGIN_HEADER, LOGIN_OPTIONS, host_login
from ansible_collections.slipway.stack.plugins.module_utils.secret_module import SecretModule


def reason(error: str, source: str) -> str:
    """Return an engine's refusal with what to do about it."""
    lowered = error.lower()
    if any(word in lowered for word in ("unauthorized", "denied", "authentication required", "no basic auth")):
        return f"{error}: the registry refuses the login; correct image_registry_login, or the host's own (docker login)"
    if any(word in lowered for word in ("manifest unknown", "not found", "not_found")):
        return f"{error}: it does not exist, or was built for another image_transport; build the version again with playbooks/build.yml"
    if any(word in lowered for word in ("connection refused", "no such host", "i/o timeout", "timeout", "no route")):
        return f"{error}: this host cannot reach {images.registry_of(source) or 'Docker Hub'}; check name, network and proxy"
    if "no space left" in lowered:
        return f"{error}: free disk space where the engine keeps its data (docker info)"
    return error


def fetch(engine: Engine, source: str, query: dict[str, str], reference: str, login: str, timeout: int) -> dict[str, t.Any]:
    """Pull one image with a login, or else with the host's own, and return C(id), C(layers_moved) and C(layers_kept).

    Args:
        engine: the host's.
        source: name that says which registry has it.
        query: what the engine is asked for.
        reference: name that the engine gives it.
        login: header, or "".
        timeout: seconds that the engine may be silent.

    Raises:
        EngineError: it cannot be pulled.
    """
    login = login or host_login(source)
    headers = {LOGIN_HEADER: login} if login else {}
    try:
        stream = engine.request("POST", "/images/create", query, timeout=timeout, more_headers=headers)
    except EngineError as error:
        raise EngineError(reason(str(error), source), error.status) from error
    outcome = images.pull_outcome(stream.decode("utf-8", "replace"))
    if outcome["error"]:
        raise EngineError(reason(outcome["error"], source))
    arrived = engine.get(f"/images/{quote(reference, safe='')}/json")
    return {"id": arrived["Id"], "layers_moved": outcome["layers_moved"], "layers_kept": outcome["layers_kept"]}


def pull(engine: Engine, image: dict[str, t.Any], login: str, timeout: int) -> dict[str, t.Any]:
    """Pull one image by its digest and name it.

    Raises:
        EngineError: it cannot be pulled.
        ValueError: what arrived is not what was recorded.
    """
    source, digest, name = image["source"], image["digest"], image["name"]
    exact = f"{source}@{digest}"
    arrived = fetch(engine, source, {"fromImage": source, "tag": digest}, exact, login, timeout)
    # Engines list an image by the digest of its configuration or, with containerd's image store, of its manifest. A record with the latter
    # alone says nothing of the former.
    if image.get("id", "") not in {"", digest, arrived["id"]} and arrived["id"] != digest:
        raise ValueError(f"{exact} arrived as {arrived['id']}, but {image['id']} was recorded")
    tag = name.rpartition(":")[2]
    engine.request("POST", f"/images/{quote(exact, safe='')}/tag", {"repo": images.repository_of(name), "tag": tag})
    if source != images.repository_of(name):
        # The tunnel's name of it means nothing later, and would keep the image when its own name goes.
        engine.request("DELETE", f"/images/{quote(exact, safe='')}", {"noprune": 1})
    return {"name": name, **arrived}


def is_there(engine: Engine, name: str) -> bool:
    """Return whether the host has an image of this name."""
    try:
        engine.get(f"/images/{quote(normal_reference(name), safe='')}/json")
    except EngineError as error:
        if error.status != 404:
            raise
        return False
    return True


def pull_named(engine: Engine, name: str, login: str, timeout: int) -> dict[str, t.Any]:
    """Pull one image by its name.

    Raises:
        EngineError: it cannot be pulled.
    """
    reference = normal_reference(name)
    return {"name": name, **fetch(engine, name, {"fromImage": reference}, reference, login, timeout)}


def main() -> None:
    """Run the module."""
    module = SecretModule(
        argument_spec={
            "images": {"type": "list", "elements": "dict", "default": []},
            "names": {"type": "list", "elements": "str", "default": []},
            # The controller opens the way that these name.
            "transport": {"type": "str", "choices": ["registry", "ssh", "hosted"], "default": "registry"},
            "store": {"type": "path"},
            "registry_host": {"type": "str", "default": ""},
            "registry_port": {"type": "int", "default": 5000},
            "login": {"type": "dict", "default": {}, "options": LOGIN_OPTIONS},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    options, engine, pulled = module.params, Engine(), []
    try:
        missing = [*options["images"], *({"name": name} for name in dict.fromkeys(options["names"]) if not is_there(engine, name))]
    except EngineError as error:
        module.fail_json(msg=f"Reading the Docker Engine failed: {error}")
    if module.check_mode:
        module.exit_json(changed=bool(missing), pulled=[{"name": image["name"]} for image in missing])
    for image in missing:
        named = "digest" not in image
        try:
            login = images.registry_login(options["login"], image["name"] if named else image["source"])
            pulled.append(
                pull_named(engine, image["name"], login, options["timeout"]) if named else pull(engine, image, login, options["timeout"])
            )
        except (EngineError, ValueError) as error:
            module.fail_json(msg=f"{image['name']} cannot be pulled{'' if named else ' as ' + image['digest']}: {error}", pulled=pulled)
    module.exit_json(changed=bool(pulled), pulled=pulled)


if __name__ == "__main__":
    main()
