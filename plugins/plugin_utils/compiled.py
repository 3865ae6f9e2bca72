# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile each template once in a task that evaluates the same ones for every host.

ansible-core keeps no compiled template: each evaluation parses and compiles its source again, which was most of the time of a run with
nothing to do. Here compiled code is kept by source while a block lasts, and so are the filters and tests of collections, which each
templating environment would look for again. Where Ansible's insides are not as expected, nothing is kept: results are the same, and take
longer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ansible.plugins.loader import filter_loader, test_loader

try:
    # Internal to Ansible: its environment, how it differs from Jinja's, and whether backslashes are escaped while it compiles.
    from ansible._internal._templating._jinja_bits import (
        _TEMPLATE_OVERRIDE_FIELD_NAMES as SYNTAX,
    )
    from ansible._internal._templating._jinja_bits import (
        AnsibleEnvironment,
        _TemplateCompileContext,
    )
except ImportError:
    AnsibleEnvironment = None

_Compile = Callable[..., Any]
_code: dict[tuple[Any, ...], Any] = {}
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
            type(self),
            context.escape_backslashes if context else None,
            tuple(getattr(self, field) for field in SYNTAX),
        )
        if key not in _code:
            _code[key] = compile_(self, source, name, filename, raw, defer_init)
        return _code[key]

    return compile_once


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
