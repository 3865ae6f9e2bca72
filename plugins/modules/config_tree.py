#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a service's configuration and secrets, and let the running service take them over."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_tree
short_description: Write a service's configuration and secrets, validate, switch, reload
version_added: 0.1.0
description:
  - Writes the whole configuration as a new revision next to the live one, has the running container validate it, replaces the
    link C(current) atomically, and has the container reload. A revision that does not validate is removed and nothing changes.
  - What a reload refuses does not stay, configuration and secrets alike, or the next restart of the container would meet it. A run that
    dies in between leaves a copy of what was there, in the folder C(undo), to which the next one goes back if its reload is refused.
  - Writes secrets as files that only the container's user can read, and gives that user the root of its volumes.
  - A person's edit of a file, its mode or owner is put right.
options:
  host_files:
    description: Further files of the host by absolute path, each with C(content) and C(mode).
    type: dict
    default: {}
  volumes:
    description: Volumes whose root the container's user must own.
    type: list
    elements: str
    default: []
  container:
    description: Container that validates and reloads.
    type: str
    required: true
  validate:
    description: Command that checks a revision, run in the container; C({revision}) stands for its name. Empty where none runs.
    type: list
    elements: str
    default: []
  reload:
    description: Command that makes the service re-read its files, run in the container; empty when no reload is wanted.
    type: list
    elements: str
    default: []
  keep:
    description: >-
      Whether to keep what configuration and secrets were, as M(slipway.stack.container_replace) goes back to them if the container that is
      made for the new ones does not come up.
    type: bool
    default: false
  image_command:
    description: Whether to return the entrypoint and the command of the image.
    type: bool
    default: false
  phase:
    description:
      - V(whole) does all of it.
      - V(prepare) writes the revision and has it validated, with secrets that are new. Nothing is in use before V(commit).
      - V(commit) does the rest, and has a revision validated that is not what V(prepare) has left.
    type: str
    default: whole
    choices: [whole, prepare, commit]
extends_documentation_fragment:
  - slipway.stack.options.service_files
  - slipway.stack.attributes.not_in_check_mode
attributes:
  diff_mode:
    description: Shows the texts of config files, never of secrets.
    support: full
author:
  - The Slipway authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Give nginx its configuration
  slipway.stack.config_tree:
    folder: /etc/slipway/slipway/nginx
    image: nginx:1-alpine
    container: slipway-nginx
    revision: 0123456789ab
    config:
      nginx.conf: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"
    validate: [nginx, -t, -c, "/etc/slipway/{revision}/nginx.conf"]
    reload: [nginx, -s, reload]
"""

RETURN = r"""
entrypoint:
  description: Entrypoint of the image, where O(image_command) asks for it.
  returned: when asked for
  type: list
  elements: str
command:
  description: Command of the image, where O(image_command) asks for it.
  returned: when asked for
  type: list
  elements: str
uid:
  description: Number of the container's user.
  returned: success
  type: int
gid:
  description: Number of the container's group.
  returned: success
  type: int
previous:
  description: Revision that was live before; empty when there was none.
  returned: success
  type: str
reloaded:
  description: Whether the service was made to reload its files.
  returned: success
  type: bool
"""

import contextlib
import os
import shutil
import subprocess
import typing as t

from ansible_collections.slipway.stack.plugins.module_utils.config_files import (
    FOLDER_MODE,
    SERVICE_FILES,
    TEMPORARY,
    RefusedError,
    container_user,
    forget_files,
    keep_files,
    lines_named,
    look_at,
    make_folder,
    read_text,
    reload,
    restore_files,
    run_in_container,
    switch,
    volume_to_give,
    write_file,
)
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.secret_module import SecretModule

#: Revisions that are kept in addition to the live and the previous one: a release that fails after its canary goes back by two.
OLDER_KEPT = 2


def add_secrets(folder: str, secrets: dict[str, str], uid: int, gid: int) -> list[str]:
    """Write the secrets whose names are new, as a new configuration may speak of them; return their names."""
    new = sorted(set(secrets) - set(os.listdir(folder) if os.path.isdir(folder) else []))
    if new:
        make_folder(folder, 0o500, uid, gid)
    for name in new:
        write_file(os.path.join(folder, name), secrets[name], 0o400, uid, gid)
    return new


def remove_secrets(folder: str, names: list[str]) -> None:
    """Take away secrets that ``add_secrets`` has written, and their folder if it held no others."""
    for name in names:
        os.unlink(os.path.join(folder, name))
    if names and not os.listdir(folder):
        os.rmdir(folder)


def write_secrets(folder: str, secrets: dict[str, str], uid: int, gid: int) -> bool:
    """Make the folder of secrets hold these files and no others, readable by one user; return whether anything changed."""
    if not secrets and not os.path.isdir(folder):
        return False
    changed = make_folder(folder, 0o500, uid, gid)
    for name, content in secrets.items():
        changed |= write_file(os.path.join(folder, name), content, 0o400, uid, gid)
    for name in sorted(set(os.listdir(folder)) - set(secrets)):
        os.unlink(os.path.join(folder, name))
        changed = True
    info = os.lstat(folder)
    if (info.st_mode & 0o7777, info.st_uid, info.st_gid) != (0o500, uid, gid):
        os.chown(folder, uid, gid)
        os.chmod(folder, 0o500)
        changed = True
    return changed


def write_revision(folder: str, revision: str, config: dict[str, str]) -> bool:
    """Make a revision's folder hold exactly these files; return whether anything changed."""
    target = os.path.join(folder, revision)
    changed = make_folder(target)
    for name, content in config.items():
        changed |= write_file(os.path.join(target, name), content, 0o644)
    # An earlier version left folders to the umask, and with 077 the container's user could not read them.
    for place in [folder, *(place for place, _folders, _names in os.walk(target))]:
        if os.stat(place).st_mode & 0o7777 != FOLDER_MODE:
            os.chmod(place, FOLDER_MODE)
            changed = True
    for place, _folders, names in os.walk(target):
        for name in names:
            path = os.path.join(place, name)
            if os.path.relpath(path, target) not in config:
                os.unlink(path)
                changed = True
    return changed


def prune(folder: str, keep: set[str]) -> None:
    """Remove revisions but those named and the OLDER_KEPT that were current last, and what a run that died was writing."""
    found = [os.path.join(folder, name) for name in os.listdir(folder) if name not in keep]
    revisions = [path for path in found if os.path.isdir(path) and not os.path.islink(path)]
    for path in found:
        if os.path.basename(path).startswith(TEMPORARY):
            os.unlink(path)
    for path in sorted(revisions, key=os.path.getmtime, reverse=True)[OLDER_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def check_timers(host_files: dict[str, t.Any]) -> None:
    """Refuse a timer whose calendar systemd does not understand: it would never run, and say so in the journal only.

    Raises:
        RefusedError: there is one.
    """
    program = shutil.which("systemd-analyze")
    for path, item in host_files.items():
        for line in item["content"].splitlines():
            name, _equals, value = line.partition("=")
            if program is None or not path.endswith(".timer") or name.strip() != "OnCalendar":
                continue
            calendar = value.strip().replace("%%", "%")
            # Called without a module.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                [program, "calendar", calendar], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RefusedError(
                    f"{os.path.basename(path)}: systemd does not understand the time {calendar!r}: {done.stderr.strip()}. "
                    "Nothing was changed; `systemd-analyze calendar` shows what it makes of one, such as `*-*-* 02:15`"
                )


def differences(live: str, config: dict[str, str]) -> list[dict[str, str]]:
    """Return what changes in the live revision, as Ansible shows it with --diff."""
    found = []
    for name, content in config.items():
        path = os.path.join(live, name)
        before = read_text(path) or ""
        if before != content:
            found.append({"before": before, "after": content, "before_header": path, "after_header": path})
    return found


def main() -> None:
    """Run the module."""
    module = SecretModule(
        argument_spec={
            **SERVICE_FILES,
            "host_files": {"type": "dict", "default": {}},
            "volumes": {"type": "list", "elements": "str", "default": []},
            "container": {"type": "str", "required": True},
            "validate": {"type": "list", "elements": "str", "default": []},
            "reload": {"type": "list", "elements": "str", "default": []},
            "keep": {"type": "bool", "default": False},
            "image_command": {"type": "bool", "default": False},
            "phase": {"type": "str", "default": "whole", "choices": ["whole", "prepare", "commit"]},
        }
    )
    try:
        module.exit_json(**apply(module.params, Engine()))
    except RefusedError as error:
        named = lines_named(str(error), module.params["config"])
        module.fail_json(msg=f"{error}{named}{look_at(module.params['judged_inputs'])}")
    except (EngineError, OSError) as error:
        module.fail_json(msg=str(error))


def apply(options: dict[str, t.Any], engine: Engine) -> dict[str, t.Any]:
    """Do what the module's documentation says; return its result."""
    uid, gid = container_user(engine, options["image"], options["user"], options["non_root"])
    check_timers(options["host_files"])
    # Whatever may refuse comes before whatever writes: secrets that another user owns already would be lost to the running container.
    given = [place for place in (volume_to_give(engine, volume, uid) for volume in options["volumes"]) if place]
    top, revision, config = options["folder"], options["revision"], options["config"]
    folder, secrets_folder = os.path.join(top, "config"), os.path.join(top, "secrets")
    result: dict[str, t.Any] = {"uid": uid, "gid": gid, "previous": "", "reloaded": False}
    if options.get("image_command"):
        result["entrypoint"], result["command"] = engine.image_command(options["image"])
    preparing = options["phase"] == "prepare"
    result["diff"] = [] if preparing else differences(os.path.join(folder, "current"), config)
    changed = make_folder(top)
    if not preparing and (options["reload"] or options["validate"] or options["keep"]):
        keep_files(top)
    added = add_secrets(secrets_folder, options["secrets"], uid, gid)
    changed |= bool(added)
    if revision:
        fresh = not os.path.isdir(os.path.join(folder, revision))
        written = write_revision(folder, revision, config)
        changed |= written
        if options["validate"] and (written or options["phase"] != "commit"):
            argv = [part.replace("{revision}", revision) for part in options["validate"]]
            try:
                run_in_container(engine, options["container"], argv, "The check of the new configuration")
            except (RefusedError, EngineError):
                # What was refused leaves nothing behind.
                if fresh:
                    shutil.rmtree(os.path.join(folder, revision), ignore_errors=True)
                if preparing:
                    remove_secrets(secrets_folder, added)
                restore_files(top)
                raise
    if preparing:
        return {"changed": changed, **result}
    changed |= take_over(options, engine, result, given)
    for path, item in options["host_files"].items():
        changed |= write_file(path, item["content"], int(item["mode"], 8))
    return {"changed": changed, **result}


def take_over(options: dict[str, t.Any], engine: Engine, result: dict[str, t.Any], given: list[str]) -> bool:
    """Make configuration and secrets the current ones and have the service read them; return whether anything changed.

    Args:
        options: the module's options.
        engine: the host's engine.
        result: the module's result, of which ``uid`` and ``gid`` are read, and ``previous`` and ``reloaded`` are set.
        given: folders of volumes that become the container's user's.

    Raises:
        RefusedError: the service refuses them, and has those of before again.
        EngineError: the service cannot be reloaded; it has the previous files again.
    """
    top, revision = options["folder"], options["revision"]
    folder, uid, gid = os.path.join(top, "config"), result["uid"], result["gid"]
    try:
        changed = write_secrets(os.path.join(top, "secrets"), options["secrets"], uid, gid)
        if revision:
            result["previous"] = switch(folder, revision)
            changed |= result["previous"] != revision
        if options["reload"]:
            reload(engine, options["container"], options["reload"])
            result["reloaded"] = changed = True
    except (RefusedError, EngineError, OSError) as error:
        if not restore_files(top):
            raise
        if options["reload"]:
            # It may have read a part of them. If it cannot be reloaded with the previous files either, it has read nothing.
            with contextlib.suppress(RefusedError, EngineError):
                run_in_container(engine, options["container"], options["reload"], "The reload of the files before")
        raise RefusedError(f"{error}\nThe files of before are in place again, and {options['container']} goes on with them.") from error
    for place in given:
        os.chown(place, uid, gid)
        changed = True
    # Without a reload the container is about to be made or started, and reads what is current then.
    if revision:
        changed |= write_file(os.path.join(folder, "loaded"), revision + "\n", 0o644)
        prune(folder, {revision, result["previous"]})
    # Otherwise whoever replaces the container goes back to what is kept, or drops it.
    return changed if options["keep"] else changed | forget_files(top)


if __name__ == "__main__":
    main()
