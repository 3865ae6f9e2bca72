"""Inputs that once wrote another line, user or directive into a file: the templates by themselves refuse them, or write what was meant.

The checks of inputs refuse nearly all of these before. They are left out here, so that either wall holds alone.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleError

from conftest import balanced, role_variable

SECRET = "Yh5kQw8Zt1Lp9Xc3Vb7N"
BASE: dict[str, dict[str, Any]] = {
    "nginx": balanced(),
    "redis": {"redis_app_password": SECRET, "redis_admin_password": SECRET},
    "postgres": {"postgres_superuser_password": SECRET, "postgres_owner_password": SECRET, "postgres_app_password": SECRET},
    "backup": {
        "backup_postgres_host": "postgres",
        "backup_postgres_password": SECRET,
        "backup_redis_host": "redis",
        "backup_redis_password": SECRET,
        "backup_chroma_url": "http://chroma:8000",
        "backup_offsite_password": SECRET,
        "backup_offsite_ssh_key": "",
        "backup_offsite_environment": {},
    },
}


def services(role: str, inputs: dict[str, Any]) -> str:
    """Return all that a role declares, as text."""
    return json.dumps(role_variable(role, f"__{role}_services", {**BASE[role], **inputs}), ensure_ascii=False)


@pytest.mark.parametrize(
    ("role", "inputs", "told"),
    [
        ("nginx", {"nginx_server_names": ["localhost; return 200 pwned"]}, "nginx_server_names"),
        ("nginx", {"nginx_redirects": [{"from": "a; return 200 pwned", "to": "b"}]}, "nginx_redirects"),
        ("nginx", {"nginx_tls_curves": "auto;\nssl_protocols TLSv1"}, "nginx_tls_curves"),
        ("nginx", {"nginx_security_headers": {"X-A": None}}, "nginx_security_headers: X-A is null"),
        ("nginx", {"nginx_security_headers": {"X-A": False}}, "nginx_security_headers: X-A must be a string"),
        ("nginx", {"nginx_security_headers": {"X-A always; add_header X-B": "1"}}, "nginx_security_headers"),
        ("nginx", {"nginx_hsts": "max-age=1\r\nSet-Cookie: a=b"}, "nginx_security_headers: Strict-Transport-Security"),
        ("nginx", balanced([{"path": "~ ^/"}]), "routes of backend"),
        ("nginx", balanced([{"path": "/ws {}\nlocation /x"}]), "routes of backend"),
        ("nginx", balanced([{"path": "/x/", "extra_lines": ["gzip off; } server {"]}]), "extra_lines of a route"),
        ("nginx", {"nginx_server_extra": "} server { listen 1;"}, "nginx_server_extra closes a block"),
        ("nginx", {"nginx_log_volume": "x\n}\n/etc/*"}, "nginx_log_volume"),
        ("redis", {"redis_app_name": "app on nopass ~* +@all\nuser evil"}, "redis_app_name"),
        ("redis", {"redis_app_rules": ["~*", "+get\nuser evil on nopass ~* +@all"]}, "redis_app_rules"),
        ("redis", {"redis_app_rules": ["nopass"]}, "redis_app_rules"),
        ("redis", {"redis_backup_user": {"name": "b on nopass", "password": SECRET}}, "redis_backup_user"),
        ("redis", {"redis_settings": {"hz 10\nappendonly": "no"}}, "redis_settings"),
        ("redis", {"redis_settings": {"hz": "10\nappendonly no"}}, "redis_settings: hz"),
        ("redis", {"redis_settings": {"hz": None}}, "redis_settings: hz"),
        ("postgres", {"postgres_allowed_networks": ["10.0.0.1/32 trust\nhost all all 0.0.0.0/0"]}, "postgres_allowed_networks"),
        ("postgres", {"postgres_app_name": "a\nhost all all all trust"}, "the name of a PostgreSQL role"),
        ("postgres", {"postgres_database": "/.*"}, "the name of a PostgreSQL database"),
        ("postgres", {"postgres_settings": {"work_mem = '4MB'\nfsync": "off"}}, "postgres_settings"),
        ("postgres", {"postgres_settings": {"include": "/etc/passwd"}}, "postgres_settings"),
        ("postgres", {"postgres_settings": {"work_mem": None}}, "postgres_settings: work_mem"),
        ("backup", {"backup_schedule": "daily\n\n[Service]\nExecStart=/bin/evil"}, "backup_schedule"),
        ("backup", {"backup_schedule": "daily\\"}, "backup_schedule"),
        ("backup", {"backup_drill_schedule": "daily\n[Install]"}, "backup_drill_schedule"),
        ("backup", {"backup_postgres_password": f"{SECRET}\n*:*:*:*:other"}, "backup_postgres_password"),
    ],
)
def test_a_template_refuses_what_its_format_cannot_hold(role: str, inputs: dict[str, Any], told: str):
    with pytest.raises(AnsibleError) as caught:
        services(role, inputs)
    message = " ".join(str(caught.value).split())
    assert told in message
    assert SECRET not in message
    assert "evil" not in message


@pytest.mark.parametrize(
    ("role", "inputs", "written", "absent"),
    [
        (
            "postgres",
            {"postgres_settings": {"log_line_prefix": "%m '\nfsync = off"}},
            "log_line_prefix = '%m ''\\\\nfsync = off'",
            "'\\nfsync",
        ),
        ("redis", {"redis_settings": {"save": "900 1 300 10"}}, "\\nsave 900 1 300 10\\n", '"900 1'),
        ("nginx", {"nginx_security_headers": {"X-A": 'a"; b $host'}}, 'X-A \\"a\\\\\\"; b ${slipway_dollar}host\\" always', "b $host"),
        ("nginx", {"nginx_server_names": ["bücher.example"]}, "server_name xn--bcher-kva.example;", "ü"),
        ("nginx", {"nginx_maintenance": True, "nginx_maintenance_text": "<b>& \"'"}, "&lt;b&gt;&amp; &quot;&#x27;", "<b>"),
    ],
)
def test_a_template_writes_what_was_meant(role: str, inputs: dict[str, Any], written: str, absent: str):
    text = services(role, inputs)
    assert written in text
    assert absent not in text


def test_all_problems_are_reported_at_once_and_before_anything_is_touched():
    inputs = {
        "nginx_server_names": ["a b"],
        **balanced([{"path": "api/"}]),
        "nginx_security_headers": {"X-A": None},
        "nginx_server_extra": "}",
    }
    mistakes = role_variable("nginx", "__nginx_mistakes", {**BASE["nginx"], **inputs})
    for part in ("nginx_server_names must", "a path in routes of app_services must", "X-A is null", "nginx_server_extra closes"):
        assert [mistake for mistake in mistakes if part in mistake], part


@pytest.mark.parametrize(
    ("role", "inputs", "told"),
    [
        (
            "redis",
            {"redis_settings": {"save": '"a', "include": "/x", "hz": 20}},
            ["redis_settings: save holds a quote", "must not set include"],
        ),
        ("redis", {"redis_app_rules": ["~*", "nopass"]}, ["redis_app_rules must hold rules"]),
        (
            "postgres",
            {"postgres_settings": {"include": "x", "work_mem": None, "jit": False}},
            ["must not include other files", "work_mem is null"],
        ),
    ],
)
def test_bad_settings_are_mistakes(role: str, inputs: dict[str, Any], told: list[str]):
    state = {"host": {"memory_mb": 8000, "cores": 4}, "volumes": {}, "containers": {}}
    mistakes = role_variable(role, f"__{role}_mistakes", {**BASE[role], **inputs, "container_service_host_state": state})
    assert len(mistakes) == len(told)
    for part in told:
        assert [mistake for mistake in mistakes if part in mistake], mistakes
