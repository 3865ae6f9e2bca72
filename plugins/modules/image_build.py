#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the images of a version once, and put them where hosts get them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_build
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Build the images of a version once, and put them where hosts get them
description:
  - Builds with C(docker buildx) and the engine's own cache on the host that runs the module. The build argument C(APP_VERSION) is the
    version; the build secret C(ca) is the file of certificate authorities that this host trusts.
  - An image that differs from the one recorded for this version is refused before anything is named or sent.
  - What was built is pushed to O(push_to) or to the registry that the image's name begins with, or saved into the folder O(store).
options:
  version:
    description: Version of the images.
    type: str
    required: true
  folder:
    description: Folder on the controller with the product; it is sent to the host that builds where that is another.
    type: path
    required: true
  images:
    description: Images by service, each with C(name) and its tag, C(context) and C(dockerfile) below the folder, and C(arguments).
    type: dict
    required: true
  recorded:
    description: What was recorded for this version, by service.
    type: dict
    default: {}
  replace:
    description: Whether another image may take the place of a recorded one.
    type: bool
    default: false
  store:
    description: Folder of images to save to; without one images are pushed.
    type: path
  push_to:
    description: Address of that registry as the host that builds reaches it, which the controller finds out.
    type: str
    default: ""
  inventory:
    description: Folder of the environment's inventory, for O(store), which environments may share.
    type: str
    default: ""
  environment:
    description: Name of the environment, which no environment of the same path on another controller has.
    type: str
    default: ""
  kept:
    description: Digests of the environment's other images, whose layers stay in O(store); what no environment needs is removed.
    type: list
    elements: str
    default: []
  ca_file:
    description: File of certificate authorities for the build secret C(ca); empty looks for this host's own.
    type: str
    default: ""
  proxies:
    description: Values for C(HTTP_PROXY), C(HTTPS_PROXY) and C(NO_PROXY) inside the builds.
    type: dict
    default: {}
  platform:
    description: Platform to build for, such as C(linux/amd64); empty builds for that of the host.
    type: str
    default: ""
  network:
    description: Network of the builds.
    type: str
    default: host
  cache_from:
    description: Images whose layers serve as a cache, in addition to the engine's own.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - slipway.stack.options.registry
  - slipway.stack.options.login
attributes:
  check_mode:
    description: Says that it would build.
    support: full
"""

EXAMPLES = r"""
- name: Build
  slipway.stack.image_build:
    version: 1.1.0
    store: inventories/shop/.images
    folder: ../shop
    images:
      backend: {name: "shop/backend:1.1.0", context: backend, dockerfile: backend/Dockerfile}
"""

RETURN = r"""
built:
  description: By service, C(digest) of the manifest, C(id), the digest of the configuration, C(platform) and C(user).
  returned: success
  type: dict
seconds:
  description: Seconds of each service's build and of putting it away.
  returned: success
  type: dict
removed:
  description: Number of blobs that no environment's recorded versions need any more, and that were removed.
  returned: success
  type: int
"""

import contextlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import typing as t
import uuid
from pathlib import Path

from ansible_collections.slipway.stack.plugins.module_utils import images
from ansible_collections.slipway.stack.plugins.module_utils.images import ImageError
from ansible_collections.slipway.stack.plugins.module_utils.layout import Layout, LayoutError
from ansible_collections.slipway.stack.plugins.module_utils.logins import LOGIN_OPTIONS
from ansible_collections.slipway.stack.plugins.module_utils.secret_module import SecretModule

#: The client's configuration, with its logins, in its folder.
CLIENT_CONFIG = "config.json"
#: Repository of the names that images have while it is not known whether they may have their own.
TEMPORARY = "slipway-build"
CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def client(argv: list[str], environment: dict[str, str] | None = None) -> str:
    """Run the Docker client and return what it says.

    Raises:
        ImageError: it fails; the message is what it says.
    """
    # Called by functions that tests call too, without a module.
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        raise ImageError(done.stdout)
    return done.stdout


@contextlib.contextmanager
def logged_in(login: dict[str, str]) -> t.Iterator[dict[str, str]]:
    """Yield the environment in which the client is logged in to a registry too, with all else that its user has set up."""
    if not login.get("username"):
        yield {}
        return
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    with tempfile.TemporaryDirectory(prefix="slipway-login-") as folder:
        for entry in own.iterdir() if own.is_dir() else ():
            if entry.name != CLIENT_CONFIG:
                (Path(folder) / entry.name).symlink_to(entry)
        config = Path(folder) / CLIENT_CONFIG
        config.touch(mode=0o600)
        before = own / CLIENT_CONFIG
        text = before.read_text(encoding="utf-8") if before.is_file() else "{}"
        config.write_text(images.client_config(login, text), encoding="utf-8")
        yield {"DOCKER_CONFIG": folder}


def check_client() -> None:
    """Refuse where images cannot be built.

    Raises:
        ImageError: no client, engine or buildx answers.
    """
    if not shutil.which("docker"):
        raise ImageError("the Docker client is not installed; install it, or set image_build_host to another host")
    for argv, what in (
        (["docker", "version"], "the Docker Engine does not answer"),
        (["docker", "buildx", "version"], "docker buildx is not installed"),
    ):
        try:
            client(argv)
        except ImageError as error:
            last = str(error).strip().splitlines()[-1:] or ["no message"]
            raise ImageError(f"{what} ({last[0]}); fix this, or set image_build_host to another host") from error


def ca_bundle(given: str) -> str:
    """Return the file of certificate authorities for the builds, "" where this host has none.

    Raises:
        ImageError: the file that was given does not exist.
    """
    if given:
        if not Path(given).is_file():
            raise ImageError(f"image_ca_file is {given}, which does not exist")
        return given
    candidates = (os.environ.get("SSL_CERT_FILE", ""), *CA_FILES)
    return next((path for path in candidates if path and Path(path).is_file()), "")


def build(service: str, image: dict[str, t.Any], name: str, options: dict[str, t.Any]) -> images.Record:
    """Build one image under a name and return what identifies it, as images.built_digests says it.

    Raises:
        ImageError: it cannot be built.
    """
    arguments = {"APP_VERSION": options["version"], **(image.get("arguments") or {})}
    proxies = {name: value for name, value in options["proxies"].items() if value}
    # What it is built from, and the cache, may be as private as what is pushed.
    with tempfile.TemporaryDirectory(prefix="slipway-build-") as folder, logged_in(options["login"]) as login:
        metadata = Path(folder) / "metadata.json"
        command = images.build_command({**options, **image, "arguments": arguments, "proxies": proxies}, name, str(metadata))
        try:
            # Without its own description of the build, which differs from one build to the next.
            client(command, {**proxies, **login, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"})
        except ImageError as error:
            raise ImageError(f"the {service} cannot be built from {image['context']}:\n{images.failure_of(str(error))}") from error
        return images.built_digests(metadata.read_text(encoding="utf-8"))


@contextlib.contextmanager
def temporary_name() -> t.Iterator[str]:
    """Yield a name for an image that may not have its own yet, and remove it: an image store may find an image by nothing else."""
    name = f"{TEMPORARY}:{uuid.uuid4().hex}"
    try:
        yield name
    finally:
        # Without it where the build has failed.
        with contextlib.suppress(ImageError):
            client(["docker", "image", "rm", name])


def save(name: str, layout: Layout) -> str:
    """Save an image into the folder of images and return the digest of its manifest there.

    Raises:
        ImageError: it cannot be saved.
    """
    # Its output is gigabytes, read as it comes.
    with subprocess.Popen(  # pylint: disable=ansible-bad-function
        ["docker", "save", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            return layout.add(t.cast("t.IO[bytes]", process.stdout))[0]
        except (LayoutError, OSError, ValueError, tarfile.TarError) as error:
            process.kill()
            said = t.cast("t.IO[bytes]", process.stderr).read().decode("utf-8", "replace").strip()
            raise ImageError(f"the image cannot be saved to {layout.folder}: {said or error}") from error


def forget(layout: Layout, kept: list[str], options: dict[str, t.Any]) -> int:
    """Remove the blobs of the folder of images that no environment needs, and return their number.

    Raises:
        ImageError: it is not known what one needs.
    """
    try:
        return layout.prune(options["inventory"], kept, options["environment"])
    except (LayoutError, OSError) as error:
        raise ImageError(f"what no version needs any more cannot be removed from {layout.folder}: {error}") from error


def push(name: str, built: str, options: dict[str, t.Any]) -> str:
    """Push an image, by its own name or to O(push_to), and return the digest of its manifest.

    Args:
        name: the image's own name.
        built: the name that it has.
        options: options of the module.

    Raises:
        ImageError: the registry does not take it.
    """
    target = f"{options['push_to']}/{images.path_of(name)}:{name.rpartition(':')[2]}" if options["push_to"] else name
    client(["docker", "tag", built, target])
    with logged_in(options["login"]) as login:
        try:
            return images.pushed_digest(client(["docker", "push", target], login))
        except ImageError as error:
            reason = " ".join(str(error).strip().splitlines()[-1:])
            lowered = reason.lower()
            refused = any(word in lowered for word in ("denied", "unauthorized", "no basic auth", "authentication"))
            remedy = "correct image_registry_login" if refused else "check its name, the network and the proxy"
            raise ImageError(f"{name} cannot be pushed to {images.registry_of(target) or 'Docker Hub'}: {reason}; {remedy}") from error
        finally:
            if target != name:
                client(["docker", "image", "rm", target])


def run(options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Build all images, and only then put them away.

    Raises:
        ImageError: one cannot be built, or may not be.
    """
    check_client()
    options = {**options, "ca_file": ca_bundle(options["ca_file"])}
    seconds, names, made = {}, {}, {}
    with contextlib.ExitStack() as temporary:
        for service, image in sorted(options["images"].items()):
            began = time.monotonic()
            names[service] = temporary.enter_context(temporary_name())
            made[service] = build(service, image, names[service], options)
            seconds[service] = round(time.monotonic() - began, 1)
        refusals = [
            images.conflict(options["version"], service, options["recorded"].get(service), digests)
            for service, digests in sorted(made.items())
            if not options["replace"]
        ]
        if any(refusals):
            raise ImageError("; ".join(filter(None, refusals)))
        began, built, layout, removed = time.monotonic(), {}, None, 0
        if options["store"]:
            layout = Layout(Path(options["store"]))
            temporary.enter_context(layout.writing())
        for service, name in sorted(names.items()):
            own = options["images"][service]["name"]
            client(["docker", "tag", name, own])
            digest = save(name, layout) if layout else push(own, name, options)
            # A release refuses root, and hosts of another platform, before anything is touched, when no host has the image yet.
            described = client(["docker", "image", "inspect", "--format", "{{.Os}}/{{.Architecture}} {{.Config.User}}", name])
            platform, _blank, user = described.strip().partition(" ")
            built[service] = {"digest": digest, "id": made[service]["id"], "platform": platform, "user": user or "root"}
        if layout:
            removed = forget(layout, [*options["kept"], *(item["digest"] for item in built.values())], options)
    seconds["kept"] = round(time.monotonic() - began, 1)
    return {"built": built, "seconds": seconds, "removed": removed}


def main() -> None:
    """Run the module."""
    module = SecretModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "folder": {"type": "path", "required": True},
            "images": {"type": "dict", "required": True},
            "recorded": {"type": "dict", "default": {}},
            "replace": {"type": "bool", "default": False},
            "store": {"type": "path"},
            "push_to": {"type": "str", "default": ""},
            "inventory": {"type": "str", "default": ""},
            "environment": {"type": "str", "default": ""},
            "kept": {"type": "list", "elements": "str", "default": []},
            "ca_file": {"type": "str", "default": ""},
            "proxies": {"type": "dict", "default": {}, "no_log": True},
            "platform": {"type": "str", "default": ""},
            "network": {"type": "str", "default": "host"},
            "cache_from": {"type": "list", "elements": "str", "default": []},
            "login": {"type": "dict", "default": {}, "options": LOGIN_OPTIONS},
            # The controller opens the way to it.
            "registry_host": {"type": "str", "default": ""},
            "registry_port": {"type": "int", "default": 5000},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, built={}, seconds={}, removed=0)
    try:
        result = run(module.params)
    except ImageError as error:
        module.fail_json(msg=str(error).strip())
    recorded = module.params["recorded"]
    same = all((recorded.get(service) or {}).get("digest") == item["digest"] for service, item in result["built"].items())
    module.exit_json(changed=not same, **result)


if __name__ == "__main__":
    main()
