# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a hook's file is one that Ansible runs. If not, Ansible ends the run there, past every rescue: a release would keep its lock."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.playbook.helpers import load_list_of_blocks
from ansible.playbook.role import Role
from ansible.playbook.role.include import RoleInclude
from ansible.playbook.role_include import IncludeRole
from ansible.playbook.task_include import TaskInclude

from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import place_of

#: Those that do not end the play, for a host or for all.
META = ("clear_facts", "clear_host_errors", "flush_handlers", "noop", "refresh_inventory", "reset_connection")


def problem(path: str, play: Any, loader: Any) -> str:
    """Return where and why Ansible would end a run at a hook's file, or at one that it includes, or "".

    What a template names is not known yet. What is missing fails its task alone.

    Args:
        path: The file, as the inventory names it.
        play: A play of the run.
        loader: Ansible's loader.
    """
    try:
        _Files(play, loader).look_at_hook(os.path.realpath(os.path.expanduser(path)))
    except AnsibleError as error:
        causes: list[BaseException] = [error]
        while causes[-1].__cause__:
            causes.append(causes[-1].__cause__)
        places = [place for cause in causes if (place := place_of(getattr(cause, "obj", None)))]
        return f"{(places or [path])[-1]}: {' '.join(error.message.split())}"
    return ""


class _Files:
    """The files of one hook, each looked at once."""

    def __init__(self, play: Any, loader: Any) -> None:
        self._play, self._loader, self._variables = play, loader, play.get_variable_manager()
        self._seen: set[str] = set()
        runner = RoleInclude.load("slipway.stack.container_service", play=play, variable_manager=self._variables, loader=loader)
        self._runner = Role.load(runner, play, from_files={"tasks": "hook.yml"}, validate=False)

    def look_at_hook(self, file: str) -> None:
        """Load a hook's file by the task that includes it, as what Ansible finds depends on that task's role.

        Raises:
            AnsibleError: Ansible would end the run at it.
        """
        tasks = (task for block in self._runner.compile(play=self._play) for task in block.get_tasks())
        self._look_at(file, next(task for task in tasks if isinstance(task, TaskInclude)))

    def _look_at(self, file: str, include: TaskInclude) -> None:
        if file in self._seen:
            return
        self._seen.add(file)
        tasks = self._loader.load_from_file(file, trusted_as_template=True)
        if not isinstance(tasks, list) or not tasks:
            raise AnsibleParserError("it is not a list of tasks", obj=tasks)
        for task in tasks:
            # Ansible skips an empty one.
            if not isinstance(task, dict) or not task:
                raise AnsibleParserError("a task is a dictionary with a module", obj=task)
        # What this file includes is next to it.
        include.args["_raw_params"] = file
        role = include._role  # noqa: SLF001 - Ansible has no public name for it
        parent = include.build_parent_block()
        self._look_at_blocks(
            load_list_of_blocks(
                tasks, play=self._play, parent_block=parent, role=role, variable_manager=self._variables, loader=self._loader
            )
        )

    def _look_at_blocks(self, blocks: Iterable[Any]) -> None:
        # Ansible itself ends each role with a task.
        for task in (task for block in blocks for task in block.get_tasks() if not task.implicit):
            of_hook = task._role is self._runner  # noqa: SLF001 - as above
            meta = str(task.args.get("_raw_params")) if task.action in C._ACTION_META else ""  # noqa: SLF001 - as above
            if meta and meta not in META and (of_hook or meta != "end_role"):
                raise AnsibleParserError(f"meta: {meta} would end the run in the middle of what it does", obj=task.get_ds())
            if of_hook and task.notify:
                raise AnsibleParserError("notify would end the run, as a hook has no handlers", obj=task.get_ds())
            if not isinstance(task, TaskInclude) or task.statically_loaded or "{{" in str(task.args):
                continue
            if isinstance(task, IncludeRole):
                self._look_at_role(task)
            elif found := self._included(task):
                self._look_at(found, task)

    def _look_at_role(self, task: IncludeRole) -> None:
        try:
            blocks, _handlers = task.get_block_list(play=self._play, variable_manager=self._variables, loader=self._loader)
        except AnsibleParserError:
            raise
        except AnsibleError:
            # There is no such role, and a rescue follows.
            return
        self._look_at_blocks(blocks)

    def _included(self, task: TaskInclude) -> str:
        """Return the file that Ansible finds for a task that includes one: in its role, or next to a file around it; "" for none."""
        name, role, folder = str(task.args["_raw_params"]), task._role, ""  # noqa: SLF001 - as above
        in_role = os.path.join(role._role_path, "tasks", name)  # noqa: SLF001 - as above
        if os.path.isfile(in_role):
            if role is self._runner and not os.path.isabs(name):
                raise AnsibleParserError(
                    f"{name} is a file of Slipway, which Ansible takes first; give yours another name", obj=task.get_ds()
                )
            return in_role
        parent = task._parent  # noqa: SLF001 - as above
        while parent:
            if isinstance(parent, TaskInclude) and not isinstance(parent, IncludeRole):
                folder = os.path.join(os.path.dirname(parent.args["_raw_params"]), folder)
                if os.path.isfile(path := os.path.join(folder, name)):
                    return os.path.normpath(path)
            parent = parent._parent  # noqa: SLF001 - as above
        return ""
