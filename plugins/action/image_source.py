# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find what images are built from, and say what is wrong with it before anything is built. See the documentation of image_source."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import typing as t
import urllib.parse
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.path import unfrackpath

from ansible_collections.slipway.stack.plugins.module_utils import images

VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
#: A login in the address of a repository.
LOGIN = re.compile(r"([a-z+]+://)[^/\s]+@")
ADDRESS = re.compile(r"[a-z+]+://|[^/]+@[^/]+:")


def git(*arguments: str, folder: Path | None = None, environment: t.Mapping[str, str] | None = None) -> str:
    """Return what git says.

    Raises:
        AnsibleActionFail: git is missing or fails.
    """
    # It must fail rather than wait for a password.
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")}
    try:
        done = subprocess.run(
            ["git", *(["-C", str(folder)] if folder else []), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **quiet, **(environment or {})},
        )
    except FileNotFoundError as error:
        raise AnsibleActionFail("git is not installed on the controller; install it, or build a folder without image_git_ref") from error
    if done.returncode != 0:
        raise AnsibleActionFail(" ".join((done.stderr or done.stdout).split()))
    return done.stdout.strip()


def problems_of(options: dict[str, t.Any]) -> list[str]:
    """Return what is wrong with the inputs, a sentence each."""
    problems = []
    version = options["version"]
    if not options["images"]:
        problems.append("no service in app_services has the key build: add it, as build: {context: .}, to those whose images are built")
    if not options["source"]:
        problems.append("image_source is not set: give the folder or the git repository with the product's Dockerfiles")
    if not VERSION.fullmatch(version) or version == "latest":
        problems.append(f"app_version is {version!r}: a version must have only letters, digits, dots and dashes, and must not be 'latest'")
    for service, image in sorted(options["images"].items()):
        name, variable = image["name"], image.get("variable") or f"app_services.{service}.image"
        if not name.endswith(f":{version}"):
            problems.append(f"{variable} is {name}, which does not end with the version: end it with ':{{{{ app_version }}}}'")
        if options["transport"] == "registry" and not images.registry_of(name):
            problems.append(
                f"{variable} is {name}, which has no registry to push to: begin it with the registry's host, "
                "or set image_transport to ssh or hosted"
            )
    if options["transport"] == "hosted" and not options["registry_host"]:
        problems.append("image_transport is hosted, but no host runs the registry: add one to group registry of the inventory")
    if options["transport"] == "ssh" and options["build_host"] != "localhost":
        problems.append(
            f"image_build_host is {options['build_host']}, but with image_transport ssh the layers must be on the controller: "
            "build there, or set image_transport to registry or hosted"
        )
    if options["transport"] == "hosted" and options["build_host"] not in {"localhost", options["registry_host"]}:
        problems.append(
            f"image_build_host is {options['build_host']} and the registry runs on {options['registry_host']}: build there, or on localhost"
        )
    return problems


def shown(source: str) -> str:
    """Return the address of a repository without the login that may be in it."""
    return LOGIN.sub(r"\1", source)


def without_password(source: str) -> tuple[str, dict[str, str]]:
    """Return the address of a repository without a login that has a password, and the environment with which git logs in.

    All users of a host see the arguments of its processes.
    """
    parts = urllib.parse.urlsplit(source)
    login, _at, host = parts.netloc.rpartition("@")
    if parts.scheme not in ("http", "https") or ":" not in login:
        return source, {}
    plain = parts._replace(netloc=host).geturl()
    words = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
    number = os.environ.get("GIT_CONFIG_COUNT") or "0"
    return plain, {
        "GIT_CONFIG_COUNT": str(int(number) + 1),
        f"GIT_CONFIG_KEY_{number}": f"http.{plain}.extraHeader",
        f"GIT_CONFIG_VALUE_{number}": f"Authorization: Basic {words}",
    }


def folder_of(source: str, ref: str) -> tuple[Path, str, str]:
    """Return the folder with the product, its commit, and the folder to remove afterwards ("" for the user's own)."""
    if not ADDRESS.match(source):
        folder = Path(unfrackpath(source, follow=False, basedir=str(Path.cwd())))
        if not folder.is_dir():
            raise AnsibleActionFail(f"image_source is {source}, but {folder} is not a folder on the controller")
        if not ref:
            return folder, "", ""
        return checked_out(folder, source, ref)
    with tempfile.TemporaryDirectory(prefix="slipway-git-") as clone:
        git("init", "--quiet", "--bare", clone)
        address, login = without_password(source)
        try:
            git("fetch", "--quiet", "--depth", "1", "--", address, ref or "HEAD", folder=Path(clone), environment=login)
        except AnsibleActionFail as error:
            raise AnsibleActionFail(f"image_git_ref {ref or 'HEAD'} cannot be fetched from {shown(source)}: {shown(str(error))}") from error
        return checked_out(Path(clone), source, "FETCH_HEAD")


def checked_out(repository: Path, source: str, ref: str) -> tuple[Path, str, str]:
    """Return the files of a commit in a separate folder: uncommitted files of a checkout are not part of it."""
    try:
        commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", folder=repository)
    except AnsibleActionFail:
        # Git itself says nothing of it.
        raise AnsibleActionFail(
            f"image_git_ref is {ref}, which is not a branch, tag or commit of {shown(source)}: correct it, or fetch it there first"
        ) from None
    folder = tempfile.mkdtemp(prefix="slipway-source-")
    archive = Path(folder) / ".archive.tar"
    try:
        # In a folder below the repository's root git takes that folder alone, with paths relative to it.
        git("archive", "--format", "tar", "--output", str(archive), commit, folder=repository)
        with tarfile.open(archive) as files:
            files.extractall(folder, filter="data")
        archive.unlink()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Path(folder), commit, folder


def image_of(service: str, image: dict[str, t.Any], folder: Path, options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return an image with its context and Dockerfile as paths below the folder, which must exist."""
    where = f"{shown(options['source'])}{' at ' + options['git_ref'] if options['git_ref'] else ''}"
    context = image["context"].strip("/") or "."
    dockerfile = f"{context}/{image['dockerfile']}" if image["dockerfile"] else f"{context}/Dockerfile"
    if not (folder / context).is_dir():
        raise AnsibleActionFail(f"app_services.{service}.build.context is {context}, but there is no such folder in {where}")
    if not (folder / dockerfile).is_file():
        raise AnsibleActionFail(
            f"there is no {dockerfile} in {where}: correct app_services.{service}.build.dockerfile, which is relative to its context"
        )
    return {**image, "context": context, "dockerfile": dockerfile}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller; no host is asked or changed."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the folder, the commit where there is one, and the images with their contexts below the folder."""
        result: dict[str, t.Any] = super().run(tmp, task_vars or {})
        _unused, options = self.validate_argument_spec(
            {
                "source": {"type": "str", "required": True},
                "git_ref": {"type": "str", "default": ""},
                "version": {"type": "str", "required": True},
                "images": {"type": "dict", "required": True},
                "transport": {"type": "str", "required": True},
                "build_host": {"type": "str", "default": "localhost"},
                "registry_host": {"type": "str", "default": ""},
            }
        )
        result["changed"] = False
        problems = problems_of(options)
        if problems:
            raise AnsibleActionFail("; ".join(problems))
        folder, commit, temporary = folder_of(options["source"], options["git_ref"])
        try:
            found = {service: image_of(service, dict(image), folder, options) for service, image in sorted(options["images"].items())}
        except AnsibleActionFail:
            if temporary:
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        result.update(folder=str(folder), commit=commit, temporary=temporary, images=found)
        return result
