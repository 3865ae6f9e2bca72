# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile each template once in a task that evaluates the same ones for every host.

ansible-core keeps no compiled template: each evaluation parses and compiles its source again, which was most of the time of a run with
nothing to do. Here compiled code is kept by source while a block lasts. What it does to Ansible is replaced by nothing where Ansible's
insides are not as expected: results are the same, and take longer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

try:
    # Internal to Ansible: its environment, what tells it from Jinja's, and whether backslashes are escaped while it compiles.
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


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Keep compiled templates by their sources while the block lasts, and for the next such block of this process."""
    if AnsibleEnvironment is None or getattr(AnsibleEnvironment.compile, "__name__", "") == "compile_once":
        yield
        return
    own = "compile" in vars(AnsibleEnvironment)
    before = AnsibleEnvironment.compile
    AnsibleEnvironment.compile = _keeping(before)
    try:
        yield
    finally:
        if own:
            AnsibleEnvironment.compile = before
        else:
            del AnsibleEnvironment.compile
