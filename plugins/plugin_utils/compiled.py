# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile each template once in a task that evaluates the same ones for every host, and those of the collection once for all runs.

ansible-core keeps no compiled template: each evaluation parses and compiles its source again, which was most of the time of a run with
nothing to do. Here compiled code is kept by source while a block lasts, and so are the filters and tests of collections, which each
templating environment would look for again. A variable of a host is evaluated once, not again wherever another one uses it. Where Ansible's
insides are not as expected, nothing is kept: results are the same, and take longer.

The code of templates that the collection's own files hold is also written below Ansible's home, as Python writes the code of its modules,
and read by the next run. Templates of an inventory are not: one may hold a secret.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import stat
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
from ansible.plugins.loader import filter_loader, test_loader
from ansible.release import __version__ as ansible_version

from ansible_collections.slipway.stack.plugins.plugin_utils.environment import write_atomically
from ansible_collections.slipway.stack.plugins.plugin_utils.topology import ROLES

try:
    # Internal to Ansible: where a value was read, its environment, how that differs from Jinja's, and whether backslashes are escaped.
    from ansible._internal._datatag._tags import Origin
    from ansible._internal._templating import _jinja_bits
    from ansible._internal._templating._jinja_bits import (
        _TEMPLATE_OVERRIDE_FIELD_NAMES as SYNTAX,
    )
    from ansible._internal._templating._jinja_bits import (
        AnsibleEnvironment,
        _TemplateCompileContext,
    )
    from ansible._internal._templating._utils import TemplateContext

    _flatten = _jinja_bits._flatten_and_lazify_vars  # noqa: SLF001
except (ImportError, AttributeError):
    AnsibleEnvironment = None

_Compile = Callable[..., Any]
_code: dict[tuple[Any, ...], Any] = {}
# Of templates that are files of the collection: what was read from the last run, and what this process compiled.
_read: dict[tuple[Any, ...], Any] = {}
_compiled: dict[tuple[Any, ...], Any] = {}
KEPT_IN = "slipway_templates"
# Code runs with the versions that made it.
MADE_BY = (sys.implementation.cache_tag, ansible_version, jinja2.__version__)
# Sources that have changed leave their code behind; so much is a few times what all templates need.
KEPT_LIMIT = 2000
# Variables that do not change, and the values that they have got, by what they are evaluated with.
_constant: dict[int, dict[str, Any]] = {}
_values: dict[int, dict[int, Any]] = {}
_filters: dict[str, Any] = {}
_tests: dict[str, Any] = {}


def _keeping(compile_: _Compile) -> _Compile:
    """Return a function that compiles as the given one does, and keeps the code of each source."""

    def compile_once(self: Any, source: Any, name: Any = None, filename: Any = None, raw: bool = False, defer_init: bool = False) -> Any:
        if not isinstance(source, str) or raw or defer_init or self._debuggable_template_source:
            return compile_(self, source, name, filename, raw, defer_init)
        context = _TemplateCompileContext.current(optional=True)
        # The code depends on what is here and on nothing else: names, filters and values are looked up when it runs.
        key = (
            str(source),
            name,
            filename,
            f"{type(self).__module__}.{type(self).__qualname__}",
            context.escape_backslashes if context else None,
            tuple(getattr(self, field) for field in SYNTAX),
        )
        if key not in _code:
            own = _of_collection(source)
            _code[key] = (_read.get(key) if own else None) or compile_(self, source, name, filename, raw, defer_init)
            if own and key not in _read:
                _compiled[key] = _code[key]
        return _code[key]

    return compile_once


def _of_collection(source: str) -> bool:
    """Return whether a template is known to be in a file of the collection."""
    origin = Origin.get_tag(source)
    return bool(origin and origin.path and Path(origin.path).is_relative_to(ROLES))


def read_compiled(home: Path) -> None:
    """Read what earlier runs have compiled of the collection's templates.

    A file that another user may write, that is damaged, or that other versions made, is not read.

    Args:
        home: A folder of the user who runs Ansible, such as Ansible's home.
    """
    _read.clear()
    with contextlib.suppress(OSError, EOFError, ValueError, TypeError), (home / KEPT_IN).open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return
        made_by, code = marshal.load(file)  # noqa: S302 - only this user can write the file, as with Python's own
        if made_by == MADE_BY:
            _read.update(code)


def write_compiled(home: Path) -> None:
    """Write for the next run what this process had to compile; where that is not possible, the next run compiles again.

    Args:
        home: A folder of the user who runs Ansible, such as Ansible's home.
    """
    if not _compiled:
        return
    # Another task of this run may have written its own.
    read_compiled(home)
    code = {**(_read if len(_read) < KEPT_LIMIT else {}), **_compiled}
    with contextlib.suppress(OSError):
        write_atomically(home / KEPT_IN, marshal.dumps((MADE_BY, code)), 0o600)


def evaluate_once(variables: dict[str, Any], owner: object) -> None:
    """Keep the value that a variable gets in compiled_once, as long as an object lives; Ansible evaluates it wherever it is used.

    Args:
        variables: The variables of one host, which must not change from now on.
        owner: The object.
    """
    _constant[id(variables)] = variables
    for kept in (_constant, _values):
        weakref.finalize(owner, kept.pop, id(variables), None)


def _flatten_once(mapping: Any) -> Iterator[Any]:
    """Yield what Ansible does of variables: containers that hold a value once it was asked for; of constant ones, the same each time."""
    if id(mapping) not in _constant:
        yield from _flatten(mapping)
        return
    templar = TemplateContext.current().templar
    values = _values.setdefault(id(mapping), {})
    if id(templar) not in values:
        # It refers to the templar, whose identity nothing else gets meanwhile.
        (values[id(templar)],) = _flatten(mapping)
    yield values[id(templar)]


def _finding(get: Callable[..., Any], found: dict[str, Any]) -> Callable[..., Any]:
    """Return a function that finds a plugin as the given one does, and keeps those of collections."""

    def get_once(name: str, *arguments: Any, **options: Any) -> Any:
        if name.count(".") < 2 or arguments or options:
            return get(name, *arguments, **options)
        if name not in found:
            plugin = get(name)
            if plugin is None:
                return None
            found[name] = plugin
        return found[name]

    return get_once


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Keep compiled templates by their sources while the block lasts, and for the next such block of this process."""
    if AnsibleEnvironment is None or getattr(AnsibleEnvironment.compile, "__name__", "") == "compile_once":
        yield
        return
    with contextlib.ExitStack() as undo:
        _replace(undo, AnsibleEnvironment, "compile", _keeping(AnsibleEnvironment.compile))
        _replace(undo, _jinja_bits, "_flatten_and_lazify_vars", _flatten_once)
        for loader, found in ((filter_loader, _filters), (test_loader, _tests)):
            _replace(undo, loader, "get", _finding(loader.get, found))
        yield


def _replace(undo: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    """Set an attribute until the stack unwinds; one that was inherited is inherited again then."""
    if name in vars(owner):
        undo.callback(setattr, owner, name, vars(owner)[name])
    else:
        undo.callback(delattr, owner, name)
    setattr(owner, name, value)
