# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hints for a product that does not start. The lines are those of real programs."""

from __future__ import annotations

import pytest
import yaml

from ansible_collections.slipway.stack.plugins.module_utils.hints import described_at, hints


@pytest.mark.parametrize(
    ("line", "folders"),
    [
        ('[emerg] 1#1: mkdir() "/var/cache/nginx/client_temp" failed (30: Read-only file system)', ["/run", "/var/cache/nginx"]),
        ('[emerg] 1#1: mkdir() "/var/lib/nginx/body" failed (13: Permission denied)', ["/run", "/var/cache/nginx"]),
        ('nginx: [emerg] open() "/run/nginx.pid" failed (30: Read-only file system)', ["/run"]),
        ('nginx: [emerg] open() "/var/run/nginx.pid" failed (13: Permission denied)', ["/run"]),
        ("OSError: [Errno 30] Read-only file system: '/app/cache'", ["/app/cache"]),
        ("OSError: [Errno 30] Read-only file system: '/app/cache/x.db'", ["/app/cache"]),
        ("Error: EROFS: read-only file system, mkdir '/app/.next/cache'", ["/app/.next/cache"]),
        ("mkdir: cannot create directory '/data': Read-only file system", ["/data"]),
        ("mkdir: can't create directory '/data/x': Permission denied", ["/data/x"]),
        ("touch: /var/lib/app/state: Read-only file system", ["/var/lib/app/state"]),
    ],
)
def test_folders_that_must_be_writable_come_as_lines_to_paste(line: str, folders: list[str]):
    (told,) = hints(["something else", line], service="app_services.page", uid="101")
    pasted = yaml.safe_load(told.partition(":\n")[2])
    assert pasted == {"app_services": {"page": {"tmpfs": dict.fromkeys(folders, "size=16m,uid=101")}}}


@pytest.mark.parametrize(
    "line",
    [
        "sh: /docker-entrypoint.sh: Permission denied",
        "PermissionError: [Errno 13] Permission denied: '/run/secrets/KEY'",
        "/docker-entrypoint.d/10-listen.sh: info: can not modify /etc/nginx/conf.d/default.conf (read-only file system?)",
        "mkdir: cannot create directory '/tmp': Read-only file system",
        "touch: /file.txt: Read-only file system",
        "a line without any meaning",
    ],
)
def test_other_lines_say_nothing_of_folders(line: str):
    assert hints([line]) == []


@pytest.mark.parametrize(
    ("lines", "check", "part"),
    [
        (["Invalid HTTP_HOST header: '127.0.0.1:8000'. You may need to add"], "", "does not accept the name 127.0.0.1:8000 as Host"),
        (["[emerg] bind() to 0.0.0.0:80 failed (13: Permission denied)"], "", "may not listen on port 80"),
        (["Error: listen EACCES: permission denied 0.0.0.0:443"], "", "may not listen on port 443"),
        ([], "http://127.0.0.1:8000/health answered '404', not 200 to 299", "/health does not exist: set app_services.page.health_path"),
        ([], "http://127.0.0.1:8000/health answered '400', not 200 to 299", "set app_host_header"),
        ([], "http://127.0.0.1:8000/health answered '301', not 200 to 299", "/health redirects"),
        ([], "http://127.0.0.1:8000/health answered '', not 200 to 299", "set app_services.page.port"),
    ],
)
def test_a_known_error_comes_with_the_input_that_fixes_it(lines: list[str], check: str, part: str):
    (told,) = hints(lines, check, "app_services.page")
    assert part in told


def test_a_check_that_fails_otherwise_says_nothing():
    assert hints([], "http://127.0.0.1:8000/health answered '503', not 200 to 299") == []


@pytest.mark.parametrize(
    ("labels", "service"),
    [
        ({"slipway.owner": "app-blue", "slipway.service": "api-v2-blue-12"}, "app_services.api-v2"),
        ({"slipway.owner": "app-migrate", "slipway.service": "migrate-green", "slipway.migrates": "api"}, "app_services.api"),
        ({"slipway.owner": "extra_services", "slipway.service": "search"}, "slipway_extra_services.search"),
        ({"slipway.owner": "redis", "slipway.service": "redis"}, ""),
        ({}, ""),
    ],
)
def test_the_keys_of_the_right_service_are_named(labels: dict[str, str], service: str):
    assert described_at(labels) == service
