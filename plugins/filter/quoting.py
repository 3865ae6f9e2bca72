# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters through which templates write values: one for each format. Each has its documentation in a file of its name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.slipway.stack.plugins.plugin_utils import quoting, server_names


def as_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose refusals are those of a filter."""

    @functools.wraps(function)
    def filtered(*arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except quoting.QuotingError as error:
            raise AnsibleFilterError(str(error)) from error

    return filtered


FUNCTIONS: tuple[Callable[..., Any], ...] = (
    quoting.conninfo_value,
    quoting.html_text,
    quoting.htpasswd,
    quoting.http_header_name,
    quoting.http_header_value,
    quoting.iptables_rule,
    quoting.logrotate_path,
    quoting.logrotate_word,
    quoting.nginx_directive,
    quoting.nginx_directives,
    quoting.nginx_location,
    quoting.nginx_value,
    quoting.nginx_word,
    quoting.pg_hba_name,
    quoting.pg_hba_network,
    quoting.pgpass_field,
    quoting.postgres_setting_name,
    quoting.postgres_setting_value,
    quoting.redis_acl_rules,
    quoting.redis_argument,
    quoting.redis_arguments,
    quoting.redis_setting_name,
    quoting.redis_user_name,
    quoting.shell_word,
    quoting.systemd_value,
    quoting.systemd_word,
    quoting.url_component,
    quoting.url_host,
    server_names.concrete_server_name,
    server_names.server_names,
)


FORMS = {function.__name__: function for function in FUNCTIONS}


def quoting_problems(value: Any, what: str, form: str, names: str = "") -> list[str]:
    """Return a sentence for each value that a format cannot represent, so that a run can list all of them before anything is touched.

    Args:
        value: a value, a list of values, or a dictionary of them.
        what: name of the input.
        form: name of the filter for the values.
        names: name of the filter for the keys of a dictionary.
    """
    problems = []
    parts: list[tuple[Any, str, str]] = [(value, what, form)]
    if isinstance(value, dict):
        parts = [(name, what, names) for name in value] + [(item, f"{what}: {name}", form) for name, item in value.items()]
    elif isinstance(value, (list, tuple)) and form not in {"redis_acl_rules", "server_names"}:
        parts = [(item, what, form) for item in value]
    for item, of, filter_name in parts:
        try:
            FORMS[filter_name](item, of)
        except quoting.QuotingError as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {**{name: as_filter(function) for name, function in FORMS.items()}, "quoting_problems": quoting_problems}
