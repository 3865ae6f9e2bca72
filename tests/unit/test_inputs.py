"""Inputs that people really bring: each is refused before any host is asked, with its variable and what it must be."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible._internal._datatag._tags import Origin
from ansible.constants import config
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.slipway.stack.plugins.plugin_utils import input_checks
from ansible_collections.slipway.stack.plugins.plugin_utils.ansible_names import PLUGINS
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import HostView, RoleFiles, internal_variables, role_folders
from ansible_collections.slipway.stack.plugins.plugin_utils.input_names import (
    KnownNames,
    argument_problems,
    command_line_problems,
    distance,
    near_names,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.inputs import CONNECTION, Given, Inputs, given_problems, why_no_value
from ansible_collections.slipway.stack.plugins.plugin_utils.preflight import message_of
from ansible_collections.slipway.stack.plugins.plugin_utils.quoting import QuotingError
from ansible_collections.slipway.stack.plugins.plugin_utils.written import in_clear_text, is_of_a_group
from conftest import ROOT, Run

GROUPS = {
    "balancers": "nginx release",
    "app": "app release image",
    "postgres": "postgres",
    "redis": "redis",
    "chroma": "chroma",
    "backup": "backup restore",
}
LOADER = DataLoader()
PRODUCT = LOADER.load_from_file(str(ROOT / "examples/support_desk/slipway.yml"), trusted_as_template=True)
SECRETS = [
    "vault_postgres_superuser_password", "vault_postgres_owner_password", "vault_postgres_app_password", "vault_postgres_backup_password",
    "vault_redis_admin_password", "vault_redis_app_password", "vault_redis_backup_password", "vault_backup_offsite_password",
    "vault_app_secret_key",
]  # fmt: skip
GOOD = {name: f"{number}t7Hq2Lw9Zx4Nv6Bk8Mr3" for number, name in enumerate(SECRETS)}
FILES = RoleFiles()
SHARED = FILES.shared()

Judge = Callable[..., list[str]]


@pytest.fixture
def judged(tmp_path: Path) -> Judge:
    """Return what is wrong with an inventory that sets these variables and those of the example; YAML as a string, or a dictionary."""

    def judge(
        variables: str | dict[str, Any], *, hosts: int = 1, given: Given | None = None, vault: Mapping[str, Any] | None = None
    ) -> list[str]:
        path = tmp_path / "own.yml"
        path.write_text(variables if isinstance(variables, str) else json.dumps(variables, indent=1), encoding="utf-8")
        own = LOADER.load_from_file(str(path), cache="none", trusted_as_template=True)
        names = [f"h{number}" for number in range(1, hosts + 1)]
        groups = {group: names if group in ("app", "balancers") else names[:1] for group in GROUPS} | {"all": names}
        shared = {**SHARED, **PRODUCT, **GOOD, "groups": groups, "inventory_dir": "/i"}
        given = given or Given(playbook="site")
        raw = {
            name: {
                **shared,
                "inventory_hostname": name,
                "ansible_host": f"10.0.0.{number}",
                "group_names": list(GROUPS),
                **own,
                **(vault or {}),
                **given.variables,
            }
            for number, name in enumerate(names, 1)
        }
        roles = {
            name: list(dict.fromkeys(role for group in GROUPS if name in groups[group] for role in GROUPS[group].split())) for name in names
        }
        resolved = {name: {**raw[name], "slipway_address": raw[name]["ansible_host"]} for name in names}
        views = {
            name: HostView(raw[name], FILES.defaults(["container_service", *roles[name]]), {"hostvars": resolved}, LOADER) for name in names
        }
        hidden = [view.value(name)[0] for view in views.values() for name in SECRETS]
        inputs = Inputs(FILES, roles, views, str(tmp_path), given=given, secrets=SECRETS, hidden=hidden)
        problems = inputs.problems([], needs_shared=True)
        return [line.removeprefix("- ") for line in message_of(problems).splitlines()[1:]] if problems else []

    return judge


def names_that_a_run_sets() -> set[str]:
    """Return all that tasks register, set or pass on, and variables of roles: those that are no inputs."""
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            for key in ("vars", "ansible.builtin.set_fact"):
                found.update(value.get(key) or ())
            found.update(filter(None, [value.get("register"), (value.get("loop_control") or {}).get("loop_var")]))
            value = list(value.values())
        for member in value if isinstance(value, list) else ():
            look(member)

    for part in ("roles/*/tasks", "roles/*/handlers", "playbooks"):
        for path in ROOT.glob(f"{part}/**/*.yml"):
            look(LOADER.load_from_file(str(path)))
    for path in ROOT.glob("roles/*/vars/main.yml"):
        found.update(LOADER.load_from_file(str(path)))
    inputs = set().union(*FILES.known_names().values()) - set(internal_variables())
    # Of Ansible, for the connection of a task; and the secrets of a rotation, which are inputs, by names that are computed.
    return {name for name in found - inputs if not name.startswith(("ansible_", "{{"))}


def test_no_inventory_gives_a_role_another_stack_or_says_what_to_read(judged: Judge):
    """The role would work on another stack than all others."""
    inputs = set().union(*(FILES.inputs(role) for role in role_folders()))
    internal = sorted(name for name in inputs if name.endswith("_stack") or name.startswith("container_service_read_"))
    assert {"acme_stack", "exporters_stack", "watchdog_stack", "container_service_read_accept_engine"} < set(internal)
    problems = judged(dict.fromkeys(internal, "other"))
    assert [name for name in internal if not any(f"{name} is not for an inventory" in line for line in problems)] == []


@pytest.mark.parametrize("given", [False, True], ids=["inventory", "-e"])
def test_nothing_that_a_run_sets_is_taken_from_outside(judged: Judge, given: bool):
    """Or it would steer a release away from what it has read."""
    names = names_that_a_run_sets()
    assert {"__release_folder", "__release_lock", "release_plan", "release_decision", "nginx_reverted", "container_service_plan"} <= names
    values = dict.fromkeys(names, "x")
    problems = judged({}, given=Given(playbook="site", variables=values)) if given else judged(values)
    # A problem is "<host>: <name> …", or "<name> …".
    assert names - {re.split(r"[ .\[]", line.rpartition("h1: ")[2])[0] for line in problems} == set()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"nginx_server_names": ["example.com."]},
            "nginx_server_names[0] is 'example.com.', must be a server name without the dot at its end",
        ),
        (
            {"nginx_redirects": [{"from": "www.example.com.", "to": "localhost"}]},
            "nginx_redirects[0].from is 'www.example.com.', must be a server name without the dot at its end; write it as www.example.com",
        ),
        (
            {"nginx_certificates": [{"names": ["localhost."], "certificate": "a.pem", "key": "a.key"}]},
            "nginx_certificates[0].names[0] is 'localhost.', must be a server name without the dot at its end; write it as localhost",
        ),
        (
            {"app_service_overrides": {"frontend": {"routes": [{"path": "/", "host": "a.example.com."}]}}},
            "app_service_overrides.frontend.routes[0].host is 'a.example.com.', must be a server name without the dot at its end",
        ),
    ],
)
def test_a_name_with_a_dot_at_its_end_is_refused(judged: Judge, variables: dict[str, Any], said: str):
    (line,) = judged(variables)
    assert said in line


@pytest.mark.parametrize(
    "error", [KeyError("x"), TypeError("y"), ValueError("z"), AttributeError("a"), ZeroDivisionError("d"), QuotingError("q")]
)
@pytest.mark.parametrize("number", range(len(input_checks.CHECKS)))
def test_a_check_that_fails_is_a_problem_of_its_inputs(monkeypatch: pytest.MonkeyPatch, number: int, error: Exception):
    """And not the end of the run with words of Python's."""

    def fail(_get: Any) -> list[tuple[str, str]]:
        raise error

    names = input_checks.CHECKS[number][1]
    monkeypatch.setattr(input_checks, "CHECKS", ((fail, names),))
    found = input_checks.check_together({}, {"slipway_published_ports": []}.get, lambda name: name == names[-1])
    assert found == [(names[-1], f"cannot be checked: {type(error).__name__}: {error}; correct it")]


@pytest.mark.parametrize("kind", ["volume", "container_network"])
def test_a_check_of_all_inputs_of_a_kind_that_fails_is_a_problem_of_them(kind: str):
    def fail(_name: str) -> Any:
        raise TypeError("y")

    forms = {"other": input_checks.Form("port"), "one": input_checks.Form(kind)}
    found = input_checks.check_together(forms, fail, lambda name: name in {"one", "other"})
    assert found == [("one", "cannot be checked: TypeError: y; correct it")]


@pytest.mark.parametrize("playbook", ["site", "build"])
@pytest.mark.parametrize(
    ("images", "registry", "said"),
    [
        # A public image next to those that need the login.
        (("ghcr.io/shop/api:1.0", "axllent/mailpit:v1"), {}, "docker.io, ghcr.io: add registry: to it"),
        (("ghcr.io/shop/api:1.0", "axllent/mailpit:v1"), {"registry": "ghcr.io"}, ""),
        (("docker.io/shop/api:1.0", "shop/web:1.0"), {}, ""),
        (("ghcr.io/shop/api:1.0", "ghcr.io/shop/web:1.0"), {}, ""),
    ],
)
def test_a_login_that_may_be_for_several_registries_is_a_problem_of_it(
    judged: Judge, playbook: str, images: tuple[str, ...], registry: dict[str, str], said: str
):
    """With its place, and not an error of a template in the middle of the run."""
    services = {
        name: {**{key: value for key, value in service.items() if key != "build"}, "image": images[name == "frontend"]}
        for name, service in PRODUCT["app_services"].items()
    }
    login = {"username": "deploy", "password": "{{ vault_registry_password }}", **registry}
    vault = {"vault_registry_password": "p3Hq2Lw9Zx4Nv6Bk8Mr3"}
    found = judged({"image_registry_login": login, "app_services": services}, given=Given(playbook=playbook), vault=vault)
    assert len(found) == bool(said)
    if said:
        assert found[0].startswith("host h1: image_registry_login does not say which registry it is for")
        assert said in found[0]
        assert found[0].endswith("own.yml")


def test_the_example_has_no_problem(judged: Judge):
    assert judged({}) == []
    assert judged({}, hosts=3) == []


FOLLOWS = "which YAML made of"


#: A hash of the form that `htpasswd -n` prints.
APR1 = "$apr1$salt$" + "a" * 22


def route(path: Any, **keys: Any) -> dict[str, Any]:
    """Return variables that give a service a single route."""
    return {"app_service_overrides": {"backend": {"routes": [{"path": path, **keys}]}}}


def extra(**keys: Any) -> dict[str, Any]:
    """Return variables that describe a service which belongs to no version."""
    return {"slipway_extra_services": {"search": {"image": "search:1", "port": 7700, **keys}}}


X1 = {"name": "x1", "path": "/x"}
#: Variables that an inventory sets, and the message about them. Those of the first deployments, and relatives of each.
DIGEST = f"sha256:{'a' * 64}"
REFUSED: list[tuple[Any, str]] = [
    # Addresses, calendars and networks
    ({"nginx_bind_address": "localhost"}, "nginx_bind_address is 'localhost', must be an IP address; set it in"),
    ({"nginx_bind_address": "10.0.0.1:80"}, "must be an IP address"),
    ({"postgres_publish_address": "db"}, "postgres_publish_address is 'db', must be an IP address, or empty"),
    ({"backup_schedule": "nonsense"}, "backup_schedule is 'nonsense', must be a calendar event of systemd"),
    ({"backup_schedule": "*-*-* 25:00"}, "must be a calendar event of systemd"),
    ({"backup_drill_schedule": "weekly\n[Service]\nExecStart=/x"}, "backup_drill_schedule is 'weekly [Service]"),
    ({"backup_schedule_jitter": -1}, "backup_schedule_jitter is -1, must be a time in seconds, an integer from 0 to 86400"),
    ({"postgres_allowed_networks": ["x"]}, "postgres_allowed_networks[0] is 'x', must be an IP address or a network as 10.0.0.0/8"),
    ({"postgres_allowed_networks": ["10.0.0.1/32 trust\nhost all all 0.0.0.0/0"]}, "must be an IP address or a network"),
    (
        {"postgres_users": [{"name": "x", "password": "Yh5kQw8Zt1Lp9Xc3Vb7N", "networks": ["999.0.0.1"]}]},
        "postgres_users[0].networks[0] is '999.0.0.1'",
    ),
    ({"nginx_trusted_proxies": ["10.0.0.1", "300.1.1.1"]}, "nginx_trusted_proxies[1] is '300.1.1.1', must be"),
    ({"nginx_tls_addresses": ["999.1.1.1"]}, "nginx_tls_addresses[0] is '999.1.1.1', must be an IP address"),
    ({"nginx_resolver": "127.0.0.11; error_log /tmp/x"}, "must be an IP address or a DNS name"),
    ({"slipway_address": "::1"}, "slipway_address is '::1', must be an IPv4 address or a DNS name"),
    ({"slipway_address": "not an address"}, "must be an IPv4 address or a DNS name"),
    ({"slipway_address": None}, "slipway_address is None, must be an IPv4 address or a DNS name; it is null: remove the line"),
    # How Ansible connects
    ({"ansible_port": "80a"}, "ansible_port is '80a', must be a port"),
    ({"ansible_become": "perhaps"}, "ansible_become is 'perhaps', must be true or false; set it in"),
    ({"ansible_become": None}, "ansible_become is None, must be true or false"),
    ({"ansible_become_user": ""}, "ansible_become_user is '', must be one line of text that is not empty"),
    ({"ansible_become_method": "sude"}, "ansible_become_method is 'sude', must be a plugin of Ansible, as sudo; set it in"),
    ({"ansible_connection": "shh"}, "ansible_connection is 'shh', must be a plugin of Ansible, as ssh"),
    ({"ansible_shell_type": ["sh"]}, "ansible_shell_type is ['sh'], must be a plugin of Ansible, as sh"),
    ({"ansible_timeout": "soon"}, "ansible_timeout is 'soon', must be a time in seconds, an integer from 1 to 3600"),
    ({"ansible_ssh_retries": -1}, "ansible_ssh_retries is -1, must be an integer from 0 to 100"),
    ({"ansible_ssh_pipelining": "often"}, "ansible_ssh_pipelining is 'often', must be true or false"),
    ({"ansible_host_key_checking": "ask"}, "ansible_host_key_checking is 'ask', must be true or false"),
    ({"ansible_ssh_transfer_method": "rsync"}, "ansible_ssh_transfer_method is 'rsync', must be one of sftp, scp, piped, smart"),
    ({"ansible_hosts": "10.0.0.9"}, "ansible_hosts is not a variable of Ansible (did you mean ansible_host?); correct the name in"),
    ({"ansible_usr": "ops"}, "ansible_usr is not a variable of Ansible (did you mean ansible_user?)"),
    ({"ansible_ports": 2222}, "ansible_ports is not a variable of Ansible (did you mean ansible_port?)"),
    ({"ansible_becom": True}, "ansible_becom is not a variable of Ansible (did you mean ansible_become?)"),
    (
        {"ansible_ssh_private_key": "~/.ssh/id"},
        "ansible_ssh_private_key holds no private key; set ansible_ssh_private_key_file where it is",
    ),
    ({"ansible_private_key": ["x"]}, "ansible_private_key holds no private key; set ansible_private_key_file"),
    ({"ansible_ssh_common_args": "-o ProxyJump='a"}, "is '-o ProxyJump='a', must be options as a shell reads them (No closing quotation)"),
    (
        {"ansible_ssh_args": ["-o", "A=b"]},
        "ansible_ssh_args is ['-o', 'A=b'], must be options as a shell reads them, a string",
    ),
    ({"ansible_ssh_executable": "/nonexistent/ssh"}, "ansible_ssh_executable is '/nonexistent/ssh', must be a program of the controller"),
    ({"become": True}, "become is not a variable that Ansible reads (did you mean ansible_become?); correct the name in"),
    ("ssh_user: ops\n", "ssh_user is not a variable that Ansible reads (did you mean ansible_ssh_user?)"),
    ("host: 10.0.0.9\n", "host is not a variable that Ansible reads (did you mean ansible_host?); correct the name in"),
    ("port: 2222\n", "port is not a variable that Ansible reads (did you mean ansible_port?)"),
    # In no network: it could not be reached, and reach nothing
    ({"app_service_overrides": {"backend": {"networks": []}}}, "app_service_overrides.backend.networks is [], must have 1 member or more"),
    ({"app_defaults": {"networks": []}}, "app_defaults.networks is [], must have 1 member or more"),
    (
        {"app_service_overrides": {"backend": {"healthcheck": ["curl", "-f", "http://localhost:8000/"]}}},
        "app_service_overrides.backend.healthcheck is ['curl', '-f', 'http://localhost:8000/'], must be a list that begins with CMD",
    ),
    (extra(healthcheck=["CMD"]), "slipway_extra_services.search.healthcheck is ['CMD'], must be CMD and a program"),
    ("app_defaults: {healthcheck: [CMD, x, 0755]}", f"app_defaults.healthcheck is ['CMD', 'x', 493], {FOLLOWS} 0755: quote the value"),
    ({"app_defaults": {"networks": ["database"]}}, "app_defaults (for backend) has routes and is in database alone, where nginx is not"),
    (extra(networks=[]), "slipway_extra_services.search.networks is [], must have 1 member or more"),
    ({"backup_networks": []}, "backup_networks is [], must have 1 member or more"),
    # What YAML makes of a value, and what a message does not show of one
    ("app_version: 2026-01-01\n", "the tag of an image; YAML reads it as a date: quote the value"),
    ("redis_port: 6379.0\n", "redis_port is 6379.0, must be a port"),
    ("slipway_mesh: 1.0\n", "slipway_mesh is 1.0, must be true or false"),
    (
        "slipway_public_url: |\n  https://a.example\n",
        "slipway_public_url is 'https://a.example ' (it ends with an end of line, which | and",
    ),
    ({"slipway_public_url": " https://a.example"}, "' https://a.example' (it begins or ends with a blank), must be an URL"),
    ({"slipway_public_url": "https://a.example#prod"}, "slipway_public_url is 'https://a.example#prod', must be an URL"),
    # Templates of which Ansible does not say what is wrong
    ({"redis_port": "{{ 6380 if false }}"}, "redis_port cannot be evaluated: one of its templates results in nothing, as an if"),
    ({"redis_port": "{{ omit }}"}, "redis_port cannot be evaluated: "),
    ({"redis_port": "{{ redis_port }}"}, "redis_port cannot be evaluated: it is made of itself; set it in"),
    ({"redis_maxmemory_mb": "{{ ansible_facts.memtotal_mb // 4 }}"}, "(hosts are not asked for facts: give the value itself)"),
    ({"redis_maxmemory_mb": "{{ ansible_memtotal_mb // 4 }}"}, "(hosts are not asked for facts: give the value itself)"),
    (
        "vault_x: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6161\napp_defaults:\n  environment: {A: '{{ vault_x }}'}\n",
        "vault_x cannot be decrypted with the vault password of this run; export SLIPWAY_VAULT_PASSWORD",
    ),
    (
        "app_host_header: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6161\n",
        "app_host_header cannot be decrypted with the vault password of this run",
    ),
    (
        "vault_x: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6161\nmine: '{{ vault_x }}'\nansible_become_password: '{{ mine }}'\n",
        "vault_x cannot be decrypted with the vault password of this run",
    ),
    # Names
    ({"postgres_volume": ""}, "postgres_volume is '', must be the name of a volume"),
    ({"postgres_volume": "/srv/pgdata"}, "postgres_volume is '/srv/pgdata', must be the name of a volume"),
    ({"redis_volume": "/etc"}, "redis_volume is '/etc', must be the name of a volume"),
    (
        {"postgres_volume": None},
        "postgres_volume is None, must be the name of a volume, two letters, digits, _, . and - or more; it is null",
    ),
    ({"postgres_volume": "redis_data"}, "redis_volume is the volume redis_data, which postgres_volume is too: two services on one volume"),
    ({"app_service_overrides": {"backend": {"volumes": [{"name": "chroma_data", "path": "/x"}]}}}, "is the volume chroma_data, which"),
    ({"nginx_log_volume": "backup_data"}, "is the volume backup_data"),
    (
        {"app_service_overrides": {"backend": {"volumes": [{"name": "xx", "path": "/x", "mode": "rwx"}]}}},
        "app_service_overrides.backend.volumes[0].mode is 'rwx', must be one of rw, ro",
    ),
    ({"app_service_overrides": {"backend": {"volumes": [{"name": "xx"}]}}}, "app_service_overrides.backend.volumes[0] lacks path"),
    ({"app_service_overrides": {"backend": {"volumes": ["xx:/x"]}}}, "volumes[0] is 'xx:/x', must be a dictionary with name and path"),
    ({"app_service_overrides": {"backend": {"volumes": [{}]}}}, "app_service_overrides.backend.volumes[0] lacks name and path"),
    (
        {"app_service_overrides": {"backend": {"volumes": [{"name": "xx", "path": "x"}]}}},
        "app_service_overrides.backend.volumes[0].path is 'x', must be the absolute path",
    ),
    (
        {"app_service_overrides": {"backend": {"volumes": [{"name": "xx", "path": "/x", "modus": "ro"}]}}},
        "app_service_overrides.backend.volumes[0].modus is unknown there, known are name, path, mode",
    ),
    ({"postgres_app_name": ""}, "postgres_app_name is '', must be a name"),
    ({"postgres_app_name": "none"}, "must be another name: PostgreSQL keeps none for itself"),
    ({"postgres_app_name": "pg_app"}, "PostgreSQL keeps names that begin with pg_ for itself"),
    ({"postgres_app_name": "app_owner"}, "postgres_app_name gives the name app_owner, which postgres_owner_name has"),
    ({"postgres_owner_name": "postgres"}, "postgres_owner_name gives the name postgres, which the superuser has"),
    ({"redis_app_name": "admin"}, "redis_app_name gives the name admin, which redis_admin_name has; give another"),
    ({"redis_app_name": "a b"}, "redis_app_name is 'a b', must be the name of a user"),
    ({"backup_redis_name": "a\nb"}, "backup_redis_name is 'a b', must be the name of a user"),
    ({"redis_app_rules": ["~*", "+@all\nuser evil on nopass ~* +@all"]}, "redis_app_rules[1] is"),
    ({"redis_app_rules": ["+@bogus"]}, "must be a rule of a category that Redis knows"),
    ({"redis_app_rules": [">secret"]}, "must be one rule of Redis' ACL"),
    (
        {"redis_app_rules": []},
        "redis_app_rules gives the product no command, so that it can do nothing in Redis: add rules as ~*, &* and +@all",
    ),
    ({"redis_app_rules": ["~*", "+@all", "-@all"]}, "redis_app_rules gives the product no command"),
    ({"redis_app_rules": ["+@all", "~app:*", "resetkeys"]}, "redis_app_rules gives the product no key or channel"),
    ({"redis_app_rules": ["(~app:* -@admin)"]}, "redis_app_rules gives the product no command"),
    # Lists that must not be empty
    ({"nginx_error_pages": [{"codes": [], "file": "/x.html"}]}, "nginx_error_pages[0].codes is [], must have 1 member or more"),
    ({"nginx_certificates": [{"names": [], "certificate": "/a", "key": "/b"}]}, "nginx_certificates[0].names is [], must have 1 member"),
    ({"backup_chroma_tenants": []}, "backup_chroma_tenants is [], must have 1 member or more"),
    ({"postgres_extensions": ["No Such"]}, "postgres_extensions[0] is 'No Such', must be the name of an extension"),
    ({"postgres_settings": {"work_mem = '4MB'\nfsync": "off"}}, "postgres_settings names"),
    ({"postgres_settings": {"log_line_prefix": "x'\nfsync = off\n#"}}, "postgres_settings.log_line_prefix is"),
    ({"postgres_settings": {"a": {"b": []}}}, "postgres_settings.a is {'b': []}, must be one line, a number or true or false"),
    # What the stack needs for itself: it would not reach the store, lose its data, or the value would have no effect.
    ({"postgres_settings": {"port": 1}}, "postgres_settings names 'port', which must be another setting: set postgres_port"),
    ({"postgres_settings": {"Listen_Addresses": "x"}}, "must be another setting: set postgres_publish_address"),
    ({"postgres_settings": {"data_directory": "/tmp"}}, "must be another setting: the stack needs its own value of this one"),
    (
        {"backup_offsite_environment": {"AWS_ACCESS_KEY_ID": " x"}},
        "backup_offsite_environment.AWS_ACCESS_KEY_ID has a value that must be a string without a blank or the end of a line at its begin",
    ),
    (
        {"backup_offsite_environment": {"AWS_SECRET_ACCESS_KEY": ""}},
        "AWS_SECRET_ACCESS_KEY has a value that must be a string that is not empty",
    ),
    (
        {"backup_offsite_ssh_key": "{{ 'ssh-ed25519 AAAAC3Nz' }}"},
        "backup_offsite_ssh_key has a value that must be a private key of SSH with all of its lines",
    ),
    (
        {"backup_offsite_known_hosts": "x"},
        "backup_offsite_known_hosts is 'x', must be lines of known_hosts, each with a name, a type and a key",
    ),
    (
        {"image_registry_login": {"registry": "r.example.com", "username": "ci", "password": "{{ 'ab\n' }}"}},
        "image_registry_login.password has a value that must be a string without a blank",
    ),
    (
        {"app_service_overrides": {"backend": {"secrets": {"KEY": "{{ 'abc\n' }}"}}}},
        "backend.secrets.KEY has a value that must be a string without a blank or the end of a line",
    ),
    ({"postgres_settings": {"wal_level": "minimal"}}, "postgres_settings.wal_level is 'minimal', must be one of replica, logical"),
    ({"postgres_settings": {"max_wal_senders": 0}}, "postgres_settings.max_wal_senders is 0, must be an integer from 3 to 262143"),
    ({"postgres_settings": {"max_replication_slots": "0"}}, "postgres_settings.max_replication_slots is '0', must be an integer from 1"),
    ({"postgres_settings": {"synchronous_standby_names": "*"}}, "must be another setting: set postgres_synchronous_standby"),
    ({"postgres_settings": {"Default_Transaction_Read_Only": True}}, "the stack needs its own value of this one"),
    # PostgreSQL and Redis read them as settings that the role has, and the later line wins.
    ({"postgres_settings": {"Shared_Buffers": "1GB"}}, "which must be in small letters: write shared_buffers"),
    ({"postgres_settings": {"TimeZone": "UTC"}}, "which must be in small letters: write timezone"),
    ({"redis_settings": {"Save": "900 1"}}, "which must be in small letters: write save"),
    *(
        ({"redis_settings": {name: value}}, f"redis_settings names '{name}', which must be another setting: the stack needs its own value")
        for name, value in (
            *(("cluster-enabled", True), ("replicaof", "a 1"), ("SlaveOf", "a 1"), ("min-replicas-to-write", 1)),
            *(("rename-command", 'SET ""'), ("tls-port", 6380), ("unixsocket", "/tmp/x"), ("logfile", "/data/log")),
        )
    ),
    ({"redis_settings": {"dir": "/tmp"}}, "redis_settings names 'dir', which must be another setting: the stack needs its own value"),
    (
        {"redis_settings": {"appendonly": False}},
        "redis_settings names 'appendonly', which must be another setting: the stack needs its own",
    ),
    ({"redis_settings": {"appenddirname": "log"}}, "redis_settings names 'appenddirname', which must be another setting"),
    ({"redis_settings": {"AppendFilename": "shop.aof"}}, "redis_settings names 'AppendFilename', which must be another setting"),
    ({"redis_settings": {"port": 1}}, "must be another setting: set redis_port"),
    ({"redis_settings": {"maxmemory-policy": "allkeys-lru"}}, "must be another setting: set redis_maxmemory_policy"),
    ({"postgres_database": "template1"}, "postgres_database is 'template1', must be another name: it is a template of PostgreSQL"),
    ({"app_service_overrides": {"backend": {"stop_signal": "SIGFOO"}}}, "backend.stop_signal is 'SIGFOO', must be a signal as SIGTERM"),
    ({"app_service_overrides": {"backend": {"stop_signal": "SIGRTMIN+16"}}}, "must be a signal as SIGTERM"),
    ({"backup_networks": ["nosuch"]}, "backup_networks names the network nosuch, which the stack does not have; known are"),
    ({"app_service_overrides": {"frontend": {"networks": ["front"]}}}, "names the network front"),
    ({"slipway_stack": ""}, "slipway_stack is '', must be a name of at most 41"),
    ({"slipway_stack": ".."}, "slipway_stack is '..', must be a name"),
    ({"slipway_stack": "Shop One"}, "slipway_stack is 'Shop One', must be a name"),
    ({"slipway_secrets": ["my_password"]}, "slipway_secrets[0] is 'my_password', must be the name of a variable that begins with vault_"),
    ({"slipway_secrets": ["1 bad"]}, "slipway_secrets[0] is '1 bad'"),
    ({"slipway_destroy_volumes": "redis_data"}, "slipway_destroy_volumes is 'redis_data', must be a list"),
    ({"slipway_destroy_volumes": {"redis_data": True}}, "slipway_destroy_volumes is {'redis_data': True}, must be a list"),
    # Hosts of the inventory
    (
        {"release_restore_point_host": "a;b"},
        "release_restore_point_host names the host 'a;b', which the inventory does not have; known are",
    ),
    ({"slipway_backup_hosts": ["nosuch"]}, "slipway_backup_hosts names the host 'nosuch'"),
    ({"image_build_host": "builder"}, "image_build_host names the host 'builder'"),
    # Images and versions
    ({"postgres_image": "postgres:17@sha256:abc"}, "postgres_image is 'postgres:17@sha256:abc', must be an image whose digest is sha256:"),
    ({"chroma_image": "ü🚀"}, "chroma_image is 'ü🚀', must be an image as repository:version"),
    ({"redis_image": "redis"}, "redis_image is 'redis', must be an image with its version"),
    ({"app_version": "a/b"}, "app_version is 'a/b', must be a version"),
    (
        {"app_version": "latest"},
        "app_version is 'latest', must be a version such as 1.4.2: latest is another image with each push, and a release of it",
    ),
    ({"app_version": "Main"}, "Main is another image with each push"),
    (
        {"redis_image": "redis:latest"},
        "redis_image is 'redis:latest', must be an image whose tag names a version, which latest does not: give one,",
    ),
    (
        extra(image="r.example.com:5000/search:edge"),
        "search.image is 'r.example.com:5000/search:edge', must be an image whose tag names a version",
    ),
    ({"app_service_overrides": {"worker": {"image": "shop:stable"}}}, "or add its digest, as shop:stable@sha256:…"),
    ({"app_version": "../1.0.0"}, "app_version is '../1.0.0', must be a version"),
    ({"app_version": None}, "app_version is None, must be a version"),
    ({"app_version": ""}, "app_version is '', must be a version"),
    # Numbers
    ({"redis_memory_mb": 0}, "redis_memory_mb is 0, must be an amount of memory in MB, an integer from 16"),
    ({"redis_maxmemory_mb": 0}, "redis_maxmemory_mb is 0, must be a size in MB, an integer from 1"),
    (
        {"redis_maxmemory_mb": 512, "redis_memory_mb": 256},
        "redis_maxmemory_mb is 512 MB and must be less than redis_memory_mb, which is 256 MB",
    ),
    ({"redis_pids": -1}, "redis_pids is -1, must be a limit of processes, an integer from 1"),
    ({"postgres_memory_mb": -1}, "postgres_memory_mb is -1, must be an amount of memory in MB, an integer from 256"),
    ({"postgres_max_connections": -5}, "postgres_max_connections is -5, must be an integer from 10"),
    ({"backup_retention": {"days": -1}}, "backup_retention.days is -1, must be an integer from 0"),
    ({"backup_cpu_shares": 0}, "backup_cpu_shares is 0, must be a weight, an integer from 2 to 262144"),
    ({"nginx_upstream_keepalive": "1e3"}, "nginx_upstream_keepalive is '1e3', must be an integer"),
    ({"nginx_maintenance_retry_after": "soon"}, "nginx_maintenance_retry_after is 'soon', must be a time in seconds"),
    ({"nginx_tmp_mb": -64}, "nginx_tmp_mb is -64, must be a size in MB"),
    (
        {"app_service_overrides": {"backend": {"tmpfs": {"/run": "size=-1m"}}}},
        "app_service_overrides.backend.tmpfs./run is 'size=-1m', must be mount options",
    ),
    (
        {"app_service_overrides": {"backend": {"replicas": 1000}}},
        "app_service_overrides.backend.replicas is 1000, must be an integer from 1 to 100",
    ),
    ({"app_service_overrides": {"backend": {"cpus": "many"}}}, "app_service_overrides.backend.cpus is 'many', must be a number of cores"),
    ({"nginx_http_port": 0}, "nginx_http_port is 0, must be a port"),
    ({"nginx_http_port": 443}, "nginx_https_port wants port 443, and nginx_http_port does too; change one of them"),
    ({"restore_port": 65534}, "restore_port is 65534, must be a port, an integer from 1 to 65525"),
    (
        {
            "restore_port": 65525,
            "app_service_overrides": {"backend": {"volumes": [{"name": name, "path": f"/{name}"} for name in ("uploads", "avatars")]}},
        },
        "restore_port is 65525, which gives the last of 2 volumes of the product port 65536; choose 65524 or less",
    ),
    # nginx
    (route("api/"), "app_service_overrides.backend.routes[0].path is 'api/', must be the beginning of a path, as /api/: decoded"),
    (route("/api/ {"), "app_service_overrides.backend.routes[0].path is '/api/ {'"),
    (route("/a b"), "app_service_overrides.backend.routes[0].path is '/a b'"),
    (route(""), "app_service_overrides.backend.routes[0].path is ''"),
    (route(None), "app_service_overrides.backend.routes[0].path is None"),
    (route("/assets/"), "app_services.frontend.routes has the path /assets/, which backend has already"),
    (route("/health"), "app_service_overrides.backend has a route /health, on which nginx itself answers"),
    ({"app_service_overrides": {"backend": {"memroy_mb": 1}}}, "backend.memroy_mb is unknown there (did you mean memory_mb?)"),
    ({"app_service_overrides": {"backend": {"prot": 1}}}, "backend.prot is unknown there (did you mean port?)"),
    # Known keys are listed where none is like it.
    (
        {"app_service_overrides": {"backend": {"memroy_mb": 1, "prot": 1}}},
        "app_service_overrides.backend.memroy_mb is unknown there (did you mean memory_mb?); .backend.prot is unknown",
    ),
    ({"app_service_overrides": {"backend": {"zzz": 1}}}, "app_service_overrides.backend.zzz is unknown there, known are enabled, image, "),
    ({"app_service_overrides": {"bakend": {}}}, "app_service_overrides names the service bakend, which app_services does not have"),
    ({"app_services": {"redis": {"image": "a:1"}}}, "must be another name: redis is the stack's own"),
    ({"app_services": {"a_b": {"image": "a:1"}}}, "which must be the name of a service"),
    ({"app_services": {"api": {"port": 80}}}, "app_services.api has no image"),
    (
        {"app_service_overrides": {"backend": {"hosts": "balancer"}}},
        "app_service_overrides.backend has hosts: balancer, a group without hosts (did you mean balancers?); add hosts of group app to it",
    ),
    ({"app_service_overrides": {"backend": {"hosts": ["h1"]}}}, "app_service_overrides.backend.hosts is ['h1'], must be a name"),
    # Services that belong to no version
    (extra(memroy_mb=1), "slipway_extra_services.search.memroy_mb is unknown there (did you mean memory_mb?); "),
    ({"slipway_extra_services": {"redis": {"image": "a:1"}}}, "slipway_extra_services names 'redis', which must be another name"),
    ({"slipway_extra_services": {"jobs": {"image": "a:1"}}}, "slipway_extra_services.jobs has a name that the stack uses itself"),
    (
        {"slipway_extra_services": {"volume-server": {"image": "a:1"}}},
        "slipway_extra_services.volume-server has a name that the stack uses",
    ),
    ({"slipway_extra_services": {"a-blue-1": {"image": "a:1"}}}, "slipway_extra_services.a-blue-1 has a name that the stack uses itself"),
    ({"slipway_extra_services": {"backend": {"image": "a:1"}}}, "slipway_extra_services.backend has the name of a service in app_services"),
    ({"slipway_extra_services": {"search": {"port": 7700}}}, "slipway_extra_services.search has no image"),
    ({"slipway_extra_sevices": {}}, "slipway_extra_sevices is not a known shared variable (did you mean slipway_extra_services?)"),
    (
        extra(routes=[{"path": "/x"}]),
        "slipway_extra_services.search has routes, which an extra service cannot have: nginx serves services of",
    ),
    (
        extra(schedule="daily"),
        "slipway_extra_services.search has schedule, which an extra service cannot have: describe a job in app_services",
    ),
    (extra(replicas=2), "slipway_extra_services.search has replicas, which an extra service cannot have: it runs once on a host"),
    (extra(hosts="serach"), "slipway_extra_services.search has hosts: serach, a group without hosts; add hosts to it, or name another"),
    (extra(hosts="chrome"), "slipway_extra_services.search has hosts: chrome, a group without hosts (did you mean chroma?)"),
    (extra(networks=["databse"]), "slipway_extra_services names the network databse, which the stack does not have"),
    (extra(volumes=[{"name": "redis_data", "path": "/data"}]), "is the volume redis_data, which"),
    (
        {"slipway_extra_services": {name: {"image": "a:1", "volumes": [{"name": "x1", "path": "/x"}]} for name in ("search", "relay")}},
        "slipway_extra_services.relay has the volume x1, which search has too: two services on one volume destroy its data",
    ),
    (
        {"app_services": {"api": {"image": "a:1", "volumes": [X1]}}, **extra(volumes=[X1])},
        "slipway_extra_services is the volume x1, which app_services is too: two services on one volume destroy its data",
    ),
    (
        {"app_service_overrides": {"frontend": {"volumes": [{"name": "search_dump", "path": "/x"}]}}}
        | {"slipway_extra_services": {"search": {"image": "search:1", "backup": {"command": ["dump"]}}}},
        "slipway_extra_services is the volume search_dump, which app_service_overrides is too: two services on one volume destroy its data",
    ),
    (
        {
            "app_service_overrides": {
                "backend": {"volumes": [{"name": "x1", "path": "/x"}]},
                "frontend": {"volumes": [{"name": "x1", "path": "/x", "backup": False}]},
            }
        },
        "app_service_overrides.frontend.volumes has x1 with backup: false, and backend has it without: say it in both of them",
    ),
    (
        {
            "slipway_extra_services": {
                "search": {
                    "image": "search:1",
                    "volumes": [{"name": "x1", "path": "/x", "backup": False}],
                    "backup": {"paths": ["/x"]},
                }
            }
        },
        "slipway_extra_services.search has the path /x in backup, whose volume has backup: false: remove one of them",
    ),
    ({"app_service_overrides": {"prune": {"schedule": []}}}, "app_service_overrides.prune.schedule is [], must have 1 member or more"),
    (
        extra(volumes=[{"name": "x1", "path": "/x"}], backup={"paths": ["/y"]}),
        "slipway_extra_services.search has the path /y in backup, where it has no volume; it has /x",
    ),
    (extra(backup={"restore_command": ["x"]}), "slipway_extra_services.search has restore_command in backup and no command"),
    (extra(backup={"comand": ["x"]}), "slipway_extra_services.search.backup.comand is unknown there (did you mean command?)"),
    (
        {"app_service_overrides": {"backend": {"backup": {"paths": ["/x"]}}}},
        "app_service_overrides.backend has paths in backup, which only a service in slipway_extra_services has",
    ),
    # What only a run may say
    ({"app_slot": "green"}, "app_slot is not for an inventory, as a release decides it; remove it in"),
    ({"app_migrate": False}, "app_migrate is not for an inventory, as a release decides it"),
    ({"release_app_hosts": ["h1"]}, "release_app_hosts is not for an inventory, as it follows from the groups of the inventory"),
    ({"release_version": "1.0"}, "release_version is not for an inventory, as it follows from app_version"),
    ({"release_plan": {"live": {"slot": "green"}}}, "release_plan is not a known input of role release"),
    ({"release_to": {"slot": "green"}}, "release_to is not a known input of role release"),
    ({"__release_lock": {"lock": {"run": "x"}}}, "__release_lock is not for an inventory, as a run sets it; remove it in"),
    ({"__nginx_balanced": {}}, "__nginx_balanced is not for an inventory, as a run sets it"),
    ({"__site_failed": []}, "__site_failed is not for an inventory, as a run sets it"),
    ({"container_service_wait": False}, "container_service_wait is not for an inventory, as a role says it to the role that runs"),
    ({"container_service_host_state": {}}, "container_service_host_state is not a known input of role container_service"),
    ({"slipway_app_ports": []}, "slipway_app_ports is not for an inventory, as it follows from the groups of the inventory"),
    ({"slipway_fleet": {"roles": []}}, "slipway_fleet is not a known shared variable"),
    ({"nginx_stack": "other"}, "nginx_stack is not for an inventory, as all roles have the name of the stack from slipway_stack"),
    # What earlier versions called otherwise
    ({"app_backend_memory_mb": 800}, "app_backend_memory_mb is gone: set the key memory_mb of a service, as backend, in app_services"),
    ({"app_migrate_command": ["x"]}, "app_migrate_command is gone: set the key migrate of a service"),
    ({"nginx_traffic": {"live": "green"}}, "nginx_traffic is not a known input of role nginx"),
    ({"nginx_backend_servers": ["10.0.0.1:1"]}, "nginx_backend_servers is gone: set nothing, as a release says"),
    (
        {"nginx_server_names": ["a.example"], "nginx_redirects": [{"from": "a.example", "to": "b.example"}]},
        "nginx_redirects redirects a.example, which nginx_server_names has too",
    ),
    (
        {"nginx_server_names": ["a.example"], "nginx_redirects": [{"from": "www.a.example", "to": "b.example"}]},
        "nginx_redirects redirects www.a.example to b.example, which does not serve",
    ),
    (
        {"nginx_server_names": ["a.example"], "nginx_redirects": [{"from": "b.example", "to": "b.example"}]},
        "nginx_redirects redirects b.example to b.example, which is redirected itself",
    ),
    (
        {"nginx_server_names": [".a.example", "A.example"]},
        "nginx_server_names has a.example, which .a.example stands for, too: remove a.example, or write *.a.example instead of .a.example",
    ),
    (
        {"nginx_server_names": ["*.a.example", ".a.example"]},
        "nginx_server_names has *.a.example, which .a.example stands for, too: remove *.a.example, or write a.example",
    ),
    ({"nginx_redirects": [{"from": "https://www.a.example", "to": "localhost"}]}, "nginx_redirects[0].from is 'https://www.a.example'"),
    ({"nginx_redirects": [{"from": "www.a.example"}]}, "nginx_redirects[0] lacks to"),
    (
        {"nginx_certificates": [{"names": ["b.example"], "certificate": "/tls/b.pem", "key": "/tls/b.key"}]},
        "nginx_certificates has a certificate for b.example, which neither nginx_server_names nor nginx_redirects has",
    ),
    ({"nginx_certificates": [{"names": ["localhost"], "certificate": "/tls/b.pem"}]}, "nginx_certificates[0] lacks key"),
    (
        {"app_services": {"api": {"image": "a:1", "port": 80, "routes": [{"path": "/", "host": "b.example"}]}}},
        "app_services.api.routes has the host b.example, which nginx_server_names lacks: add it there",
    ),
    # Who may ask, and how often
    (route("/x", limit_req_rat="10r/s"), "routes[0].limit_req_rat is unknown there (did you mean limit_req_rate?)"),
    ({"nginx_limit_req_rate": 10}, "nginx_limit_req_rate is 10, must be a number of requests a second or a minute, as 10r/s or 30r/m"),
    (route("/x", limit_req_rate="0r/s"), "routes[0].limit_req_rate is '0r/s', must be a number of requests"),
    ({"nginx_limit_conn": -1}, "nginx_limit_conn is -1, must be an integer from 0 to 65535"),
    (route("/x", auth_basic="Staff"), "app_service_overrides.backend.routes has auth_basic: Staff, a realm without users"),
    (
        {"nginx_auth_basic": "Staf", "nginx_auth_basic_users": {"Staff": {"ann": APR1}}},
        "nginx_auth_basic has auth_basic: Staf, a realm without users (did you mean Staff?): add them to nginx_auth_basic_users",
    ),
    ({"nginx_auth_basic": 'a" b'}, "nginx_auth_basic is 'a\" b', must be a name of letters, digits, blanks"),
    ({"nginx_auth_basic": False}, "nginx_auth_basic is False"),
    ({"nginx_auth_basic_users": {"Staff": {"ann": "hunter2 hunter2"}}}, "Staff.ann has a value that must be a hash as `openssl passwd -6`"),
    ({"nginx_auth_basic_users": {"Staff": {"ann": "{PLAIN}hunter2"}}}, "not the password itself, {SHA} or {PLAIN}"),
    ({"nginx_auth_basic_users": {"Staff": {"ann": "$2y$12$" + "a" * 53}}}, "must be a bcrypt hash of cost 8 or less, as nginx computes it"),
    ({"nginx_auth_basic_users": {"Staff": {"a:b": APR1}}}, "nginx_auth_basic_users.Staff names 'a:b', which must be the name of a user"),
    ({"nginx_deny": ["10.0.0.0/33"]}, "nginx_deny[0] is '10.0.0.0/33', must be an IP address or a network"),
    ({"nginx_deny": ["10.0.0.1"], "nginx_allow": ["10.0.0.1/32"]}, "nginx_allow has 10.0.0.1/32 in both allow and deny"),
    (
        route("/x", deny=["::1"], internal=True),
        "app_service_overrides.backend has the route /x, which has internal: true and a list",
    ),
    (
        {"nginx_error_pages": [{"codes": [404], "file": "/x.html"}]},
        "nginx_error_pages[0].codes[0] is 404, must be an integer from 502 to 504",
    ),
    ({"nginx_trusted_proxies": ["::/0"]}, "nginx_trusted_proxies has ::/0, which is every address: any client could claim any other"),
    ({"nginx_security_txt": "Contact: mailto:a@example.com"}, "must be text with Contact: a URI, as mailto:security@example.com, and one"),
    ({"nginx_keepalive_timeout": 1}, "nginx_keepalive_timeout is 1, must be a time in seconds, an integer from 5 to 3600"),
    ({"nginx_server_names": ["localhost; return 200 pwned"]}, "nginx_server_names[0] is 'localhost; return 200 pwned', must be a DNS name"),
    ({"nginx_server_names": ["https://localhost"]}, "must be a DNS name, without scheme, port or path"),
    ({"nginx_server_names": ["~^(("]}, "must be a valid regular expression after ~"),
    ({"nginx_server_names": ["müller.example"]}, "must be a server name in ASCII; write it as xn--mller-kva.example"),
    ({"nginx_security_headers": {"X-A": None}}, "nginx_security_headers.X-A is None, must be one line of text"),
    ({"nginx_security_headers": {"X Bad": "v"}}, "nginx_security_headers names 'X Bad', which must be the name of a header"),
    ({"nginx_security_headers": {"X-A: y\nZ": 1}}, "nginx_security_headers names"),
    ({"nginx_content_security_policy": "default-src 'self'\nadd_header X y"}, "must be one line of text in ASCII"),
    # What browsers would ignore
    (
        {"nginx_hsts": "max-age=soon"},
        "nginx_hsts is 'max-age=soon', must be max-age and a number of seconds, then perhaps includeSubDomains",
    ),
    ({"nginx_hsts": "includeSubDomains"}, "must be max-age and a number of seconds"),
    ({"nginx_content_security_policy": "default-scr 'self'"}, "directives browsers know, not default-scr (did you mean default-src?)"),
    ({"nginx_content_security_policy": "default-src self"}, "must be a policy with 'self' in single quotes in default-src"),
    (
        {"nginx_content_security_policy": "img-src a; img-src b"},
        "must be a policy with each directive once: browsers ignore the second img-src",
    ),
    (
        {"nginx_security_headers": {"X-Frame-Options": "allow"}},
        "nginx_security_headers has X-Frame-Options: allow, which browsers ignore: it must be one of deny, sameorigin",
    ),
    ({"nginx_security_headers": {"X-Content-Type-Options": "none"}}, "which browsers ignore: it must be nosniff"),
    ({"nginx_security_headers": {"Referrer-Policy": "never"}}, "which browsers ignore: it must be one of no-referrer,"),
    (
        {"nginx_security_headers": {"permissions-policy": "camera 'none'"}},
        "it must be features with their lists, joined by commas, as camera=()",
    ),
    (
        {"nginx_security_headers": {"Content-Security-Policy-Report-Only": "default-src self"}},
        "it must be a policy with 'self' in single quotes",
    ),
    (
        {"nginx_security_headers": {"Strict-Transport-Security": "max-age=1"}},
        "nginx_security_headers has Strict-Transport-Security, which has an input of its own: remove it, and set nginx_hsts",
    ),
    ({"nginx_security_headers": {"content-security-policy": "x"}}, "set nginx_content_security_policy"),
    *(
        ({"nginx_security_headers": {name: "x"}}, f"nginx_security_headers has {name}, which differs from answer to answer: remove it, or")
        for name in ("Content-Length", "Transfer-Encoding", "Set-Cookie", "location", "Server", "Content-Type", "Clear-Site-Data")
    ),
    ({"nginx_security_headers": {"Set-Cookie": ""}}, "which differs from answer to answer"),
    ({"nginx_security_headers": {"X-A": "1", "x-a": "2"}}, "nginx_security_headers has X-A and x-a, which is the same header: remove one"),
    ({"nginx_tls_curves": "X25519; ssl_protocols TLSv1"}, "must be names of key exchange groups"),
    ({"nginx_maintenance_text": ["x"]}, "nginx_maintenance_text is ['x'], must be text"),
    # Off-site
    ({"backup_offsite_repository": "rest:not a url"}, "backup_offsite_repository is 'rest:not a url', must be a repository of restic"),
    ({"backup_offsite_repository": "nonsense://x"}, "must be a repository of restic"),
    ({"backup_offsite_repository": "/srv/backup"}, "must be a folder below /offsite"),
    # What all roles read
    ({"container_service_adopt_volumes": {}}, "container_service_adopt_volumes is {}, must be true or false"),
    ({"container_service_log_lines": "all"}, "container_service_log_lines is 'all', must be an integer"),
    # Environments, and what YAML makes of values
    (
        {"app_service_overrides": {"backend": {"environment": {"A=B": "1"}}}},
        "app_service_overrides.backend.environment names 'A=B', which must be the name of a variable",
    ),
    (
        {"app_service_overrides": {"backend": {"environment": {"": "1"}}}},
        "app_service_overrides.backend.environment names '', which must be",
    ),
    (
        "app_version: 1.10",
        "app_version is 1.1, must be a version of letters, digits, _, . and -, as the tag of an image; it is a number: quote",
    ),
    ("app_version: 2026_11", f"app_version is 202611, {FOLLOWS} 2026_11: quote the value"),
    (
        "app_service_overrides: {backend: {environment: {YES: a}}}",
        "app_service_overrides.backend.environment names 'True', which must be the name of a variable",
    ),
    ("app_version:", "app_version is None, must be a version"),
    ("app_version: 010", f"app_version is 8, {FOLLOWS} 010: quote the value"),
    (
        "app_version: on",
        "app_version is True, must be a version of letters, digits, _, . and -, as the tag of an image; YAML reads it as true: quote",
    ),
    ("redis_appendfsync: no", "redis_appendfsync is False, must be one of always, everysec, no; YAML reads it as false: quote the value"),
    ("nginx_http_port: 0443", f"nginx_http_port is 291, {FOLLOWS} 0443: write it in digits alone, as 90"),
    ("nginx_proxy_read_timeout: 1:30", f"nginx_proxy_read_timeout is 90, {FOLLOWS} 1:30: write it in digits alone, as 90"),
    (
        "app_service_overrides: {backend: {environment: {A: {on: push}}}}",
        "app_service_overrides.backend.environment.A is {True: 'push'}, must be data whose keys are strings: quote on, off, yes",
    ),
    (
        "app_service_overrides: {backend: {environment: {A: {1.10: x}}}}",
        f"app_service_overrides.backend.environment.A is {{1.1: 'x'}}, {FOLLOWS} 1.10: quote the value",
    ),
    (
        "app_service_overrides:\n  backend:\n    environment:\n      A: 1.10",
        f"app_service_overrides.backend.environment.A is 1.1, {FOLLOWS} 1.10: quote the value",
    ),
    (
        "app_service_overrides: {backend: {environment: {A: 0755}}}",
        f"app_service_overrides.backend.environment.A is 493, {FOLLOWS} 0755: quote the value",
    ),
    (
        "app_service_overrides: {backend: {environment: {A: 1, B: on}}}",
        f"app_service_overrides.backend.environment.B is True, {FOLLOWS} on: quote the value",
    ),
    (
        "app_service_overrides:\n  frontend:\n    environment:\n      'B': NO\n",
        f"app_service_overrides.frontend.environment.B is False, {FOLLOWS} NO: quote the value",
    ),
    (
        "app_service_overrides: {backend: {migrate: {environment: {T: 12:30}}}}",
        f"app_service_overrides.backend.migrate.environment.T is 750, {FOLLOWS} 12:30: quote the value",
    ),
    (
        "app_defaults: {environment: {API_VERSION: 2024-06-20}}",
        "or a list or dictionary of them; YAML reads it as a date: quote the value",
    ),
    ("app_defaults: {environment: {DATES: {a: [2024-06-20 10:00:00]}}}", "of them; YAML reads it as a date: quote the value"),
    (
        {"app_service_overrides": {"backend": {"migrate": {"seconds": 1800, "command": []}}}},
        "app_service_overrides.backend has migrate with",
    ),
    # Written by hand where CI builds; what is not found in it is pulled by name, without the record's guarantee.
    (f"image_digests: {{2.10: {{backend: {{digest: {DIGEST}}}}}}}", "image_digests names '2.1', which must be a version"),
    (f"image_digests: {{2: {{backend: {{digest: {DIGEST}}}}}}}", "image_digests names 2, which is a number: quote it"),
    (f"image_digests: {{'1.0': {{backend: {DIGEST}}}}}", "must be a dictionary with digest"),
    (f"image_digests: {{'1.0': {{backend: {{id: {DIGEST}}}}}}}", "image_digests.1.0.backend lacks digest"),
    ("image_digests: {'1.0': {backend: {digest: latest}}}", "image_digests.1.0.backend.digest is 'latest', must be a digest"),
    ("image_digests: {'1.0': }", "image_digests.1.0 is None, must be a dictionary"),
    ("postgres_settings: {log_file_mode: 0640}", f"postgres_settings.log_file_mode is 416, {FOLLOWS} 0640: quote the value"),
]


@pytest.mark.parametrize(("variables", "said"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_bad_input_is_refused_in_one_line(judged: Judge, variables: Any, said: str):
    lines = judged(variables)
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert "host h1: " in lines[0]
    assert ".yml" in lines[0] or "reads" in said


@pytest.mark.parametrize(
    ("value", "path", "said"),
    [
        (
            '{F: "{{.Name}}"}',
            "environment.F",
            r"Syntax error in template: .*; correct it in \S+own.yml:4, or write !unsafe before the value if its braces are not Ansible's",
        ),
        (
            '{F: "{% if %}"}',
            "environment.F",
            r"Syntax error in template: \S.*; correct it in \S+own.yml:4, or write !unsafe before the value",
        ),
        (
            '{PIN: "{{ vault_pin }}"}',
            "environment.PIN",
            r"'vault_pin' is undefined; add vault_pin with `ansible-vault edit \S+group_vars/all/vault.yml`, for \S+own.yml:4",
        ),
        ('{L: [a, "{{ my_domain }}"]}', r"environment.L\[1\]", r"'my_domain' is undefined; set it in \S+own.yml:4"),
        ('{D: {d: {e: "{{ my_domain }}"}}}', "environment.D.d.e", r"'my_domain' is undefined; set it in \S+own.yml:4"),
    ],
)
def test_a_member_that_cannot_be_evaluated_is_named_with_its_line(judged: Judge, value: str, path: str, said: str):
    (line,) = judged(
        f'app_service_overrides:\n  backend:\n    memory_mb: 600\n    environment: {value}\n    files: {{a: "{{{{ 1 + 1 }}}}"}}\n'
    )
    assert re.fullmatch(rf"host h1: app_service_overrides\.backend\.{path} cannot be evaluated: {said}.*", line), line


def test_all_members_that_cannot_be_evaluated_are_listed(judged: Judge):
    (line,) = judged({"app_defaults": {"environment": dict.fromkeys("ABCDE", "{{ vault_pin }}")}})
    assert [name for name in "ABCDE" if f"app_defaults.environment.{name} cannot be evaluated" in line] == ["A", "B", "C"]
    assert line.endswith("; and 2 more")


def test_a_member_after_e_that_cannot_be_evaluated_is_corrected_there(judged: Judge, tmp_path: Path):
    text = json.dumps({"app_defaults": {"environment": {"A": "{{ vault_pin }}"}}})
    path = tmp_path / "given.yml"
    path.write_text(text)
    given = Given("site", variables=LOADER.load_from_file(str(path), cache="none", trusted_as_template=True))
    (line,) = judged({}, given=given)
    assert line.endswith("app_defaults.environment.A cannot be evaluated: 'vault_pin' is undefined; correct it after -e")


#: Odd, and what its author means.
TAKEN: list[Any] = [
    {
        "app_defaults": {
            "environment": {"A": "x", "B": True, "C": [1, 2], "D": {"a": None}, "E": None, "F": 5, "G": "1.10", "H": ""},
        }
    },
    "app_service_overrides: {backend: {environment: {RATIO: 1.5, YES_: true, 'QUOTED': \"on\", N: -3}}}",
    "app_version: 2",
    {"nginx_http_port": "8080", "nginx_https_port": "{{ 8443 }}"},
    {"backup_schedule": "never", "backup_drill_schedule": "after"},
    {"nginx_server_names": [".example.test", "localhost", "*.example.com", "10.0.0.1"]},
    {"nginx_hsts": "max-age=63072000; includeSubDomains; preload", "nginx_content_security_policy": ""},
    {"nginx_security_headers": {"X-Frame-Options": "SAMEORIGIN", "Referrer-Policy": "no-referrer, strict-origin", "X-Of-Mine": "x"}},
    {"nginx_security_headers": {"Permissions-Policy": 'camera=*, usb=("https://a.example" self)', "Cross-Origin-Opener-Policy": ""}},
    {"postgres_settings": {"work_mem": "4MB", "autovacuum": False, "random_page_cost": 1.1, "app.x": "it's a \\ \"test\""}},
    {"redis_settings": {"activedefrag": True, "hz": 20}, "redis_app_name": "default"},
    {"app_service_overrides": {"backend": {"stop_signal": "SIGRTMIN+3"}, "worker": {"stop_signal": "SIGUSR1"}}},
    {"app_service_overrides": {"backend": {"secrets": {"KEY": "{{ '-----BEGIN KEY-----\nabc\n-----END KEY-----\n' }}", "NONE": ""}}}},
    {"postgres_users": [{"name": "reader", "password": "{{ 'Yh5kQw8Zt1Lp9Xc3Vb7N' }}", "access": "read"}]},
    {"app_version": "latest-2026", "redis_image": "redis:latest@sha256:" + "0" * 64},
    {"redis_app_rules": ["~*", "nocommands", "+get"]},
    {"redis_app_rules": ["&news:*", "+subscribe"]},
    {"redis_app_rules": ["-@all", "(%R~app:* +get)"]},
    {"ansible_become": "yes", "ansible_become_method": "ansible.builtin.su", "ansible_timeout": "30", "ansible_connection": "ssh"},
    "ansible_ssh_common_args: >\n  -o ProxyJump=bastion\n  -o ControlPersist=60s\n",
    "ansible_ssh_common_args: |\n  -o ProxyJump=bastion\n\n  -o ControlPersist=60s\n\nansible_ssh_args:\nansible_ssh_extra_args: ''\n",
    {"ansible_ssh_args": "-C\t-4 \n", "ansible_sftp_extra_args": "   ", "ansible_ssh_common_args": "-o ProxyCommand='ssh -W %h:%p b'"},
    {"ansible_python_interpreter": "auto_silent", "domain": "example.org", "ansible_host": "{{ inventory_hostname }}.{{ domain }}"},
    {"ansible_become_password": "{{ vault_sudo }}", "vault_sudo": "{{ 'x' }}", "tags": {"Name": "web", "aws:x": "y"}},
    # Of another password, for another playbook.
    "vault_x: !vault |\n  $ANSIBLE_VAULT;1.2;AES256;office\n  6161\noffice: {password: '{{ vault_x }}'}\n",
    {"my_own": "{{ unknown }}", "company_domain": "x", "product_name": 1.10, "deploy_user": None, "region": "eu"},
    # Nearly an input's name, but the inventory reads it.
    {"App_version": "3.0.0", "app_version": "{{ App_version }}"},
    {"nginx_client_max_body_size_mb": 0, "app_canary_weight": 0, "ansible_host": "db1.example.com"},
    {"app_service_overrides": {"backend": {"replicas": 3, "command": ["sh", "-c", "a\nb"], "user": 1000}}},
    {"nginx_allow": ["fd00::/8", "10.0.0.1"], "nginx_auth_basic_users": {"A b": {"c d": APR1}}},
    {"nginx_deny": [], "nginx_limit_conn": 0, "nginx_limit_req_rate": "", "nginx_auth_basic": "", "nginx_limit_req_burst": 9},
    {"image_build_host": "localhost", "release_restore_point_host": ""},
    {"image_digests": {"1.0": {"backend": {"digest": DIGEST, "id": "", "user": "10001"}, "gone": {"digest": DIGEST}}}},
    {"backup_offsite_repository": "sftp:u@backup.example.com:/x", "backup_retention": {"days": 3}},
    extra(volumes=[{"name": "x1", "path": "/x"}], backup={"paths": ["/x"]}, publish_port=17700, health_path="/health", hosts="chroma"),
]  # fmt: skip


@pytest.mark.parametrize("variables", TAKEN, ids=lambda value: str(value)[:60])
def test_an_odd_input_with_a_meaning_is_taken(judged: Judge, variables: Any):
    assert judged(variables) == []


@pytest.mark.parametrize(
    "name",
    [
        "postgre_port", "App_version", "APP_VERSION", "redis_prot", "ngnix_http_port", "bakcup_schedule", "slipwey_stack",
        "ap_version", "appp_version", "posgre_port", "psotgres_port", "chrom_port", "slip_way_stack", "nginx_htpp_prot", "rdis_memory_mb",
    ],
)  # fmt: skip
def test_a_name_that_is_nearly_an_inputs_is_never_ignored(judged: Judge, name: str):
    (line,) = judged({name: "1"})
    assert f"{name} is " in line
    assert "did you mean" in line
    assert "own.yml" in line


#: Of programs that are none of Slipway's, as variables of an inventory that other playbooks share.
OF_OTHERS = [
    *(f"{name}_version" for name in ("php", "api", "pip", "ntp", "aws", "ops", "map", "apk", "amp", "asp", "web", "apt", "npm", "pg")),
    *("api_services", "api_port", "cache_volume", "cache_memory_mb", "chrony_port", "chrony_user", "postgresql_users", "postgresql_port"),
    *("docker_users", "redmine_port", "mysql_port", "ngrok_image"),
]


def test_variables_of_other_programs_are_taken(judged: Judge):
    assert judged(dict.fromkeys(OF_OTHERS, "1")) == []


#: As the inventory plugins of clouds name them, some of which begin as inputs do.
OF_CLOUDS: dict[str, Any] = {
    "image_id": "ami-1", "image_name": "debian", "image_os_flavor": "debian", "image": {"id": 1}, "app_protection": "on", "host_id": "h",
    "watchdog_enabled": True, "backup_window": None, "nginx_enabled": False, "backups": {"enabled": True}, "app_versio": "1",
}  # fmt: skip


def test_variables_of_an_inventory_plugin_are_taken(judged: Judge):
    origin = Origin(description="<inventory plugin 'amazon.aws.aws_ec2' with source 'aws_ec2.yml'>")
    computed = {name: value if value is None or isinstance(value, bool) else origin.tag(value) for name, value in OF_CLOUDS.items()}
    assert judged({}, vault=computed) == []


def test_those_that_a_file_or_the_command_line_sets_are_still_looked_at(judged: Judge):
    """Also next to those of a plugin, and a boolean, which bears no mark of where it comes from."""
    computed = {"image_id": Origin(description="<inventory plugin 'a' with source 'b'>").tag("ami-1")}
    lines = judged({"nginx_enabled": True, "app_versio": "1"}, vault=computed)
    assert sorted(line.partition(" is ")[0].rpartition(" ")[2] for line in lines) == ["app_versio", "nginx_enabled"]
    assert "image_id" in judged({}, given=Given("site", variables={"image_id": "1"}))[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value + "\n", "begins or ends with a blank"),
        (lambda value: f" {value}", "begins or ends with a blank"),
        (lambda value: f"{value[:8]}\r{value[8:]}", "holds a control character"),
        (lambda _value: "changeme-changeme-changeme", "is a placeholder"),
        (lambda _value: 12345678901234567890, "must be a string, not int: quote the value"),
    ],
)
def test_every_secret_is_looked_at(judged: Judge, change: Callable[[str], Any], said: str):
    lines = judged({name: change(GOOD[name]) for name in SECRETS})
    assert len(lines) == len(SECRETS)
    for name in SECRETS:
        assert any(f"{name} {said}" in line for line in lines)
    assert "t7Hq2Lw9Zx4Nv6Bk8Mr3" not in "".join(lines)


def test_secrets_that_are_missing_share_a_line(judged: Judge):
    (line,) = judged(dict.fromkeys(SECRETS))
    assert all(name in line.partition(" is not set; run ")[0] for name in SECRETS)


def test_secrets_that_are_alike_are_refused(judged: Judge):
    (line,) = judged(dict.fromkeys(SECRETS, "t7Hq2Lw9Zx4Nv6Bk8Mr3"))
    assert all(name in line for name in SECRETS)
    assert "have the same value; give each its own" in line
    (line,) = judged({SECRETS[1]: GOOD[SECRETS[4]]})
    assert line == (
        "host h1: vault_postgres_owner_password and vault_redis_admin_password have the same value; give each its own, "
        "or remove their lines and run playbooks/secrets.yml"
    )


def test_secrets_of_further_users_are_looked_at_and_not_shown(judged: Judge):
    (line,) = judged({"postgres_users": [{"name": "x", "password": "Yh5kQw8Zt1Lp9Xc3Vb7N\n"}]})
    assert "postgres_users[0].password begins or ends with a blank" in line
    assert "Yh5k" not in line


@pytest.mark.parametrize("value", [["nosuch://t7Hq2Lw9Zx4Nv6Bk8Mr3"], "nosuch://t7Hq2Lw9Zx4Nv6Bk8Mr3"])
def test_a_notification_url_is_refused_with_its_place_and_not_shown(judged: Judge, value: Any):
    lines = judged({"slipway_notify": value}, hosts=2)
    assert lines
    assert all("slipway_notify" in line and "own.yml" in line and "must be " in line for line in lines)
    assert "t7Hq" not in "".join(lines)


def test_several_hosts_need_addresses(judged: Judge):
    lines = judged({"slipway_address": "my host"}, hosts=2)
    assert any("slipway_address is 'my host', must be an IPv4 address, at which the other hosts reach this one" in line for line in lines)
    lines = judged({"slipway_address": "{{ inventory_hostname }}.example.com"}, hosts=2)
    assert len(lines) == 2
    assert "own.yml" in lines[0]


@pytest.mark.parametrize("address", ["somewhere", "db1.example.com", "{{ ansible_host }}.example.com"])
def test_an_address_that_is_set_is_one_although_no_other_host_needs_it(judged: Judge, address: str):
    """No port could be published on a name, and the next host that the inventory gets would need it."""
    (line,) = judged({"slipway_address": address})
    assert "must be an IPv4 address" in line
    assert line.endswith("own.yml, or remove it, as there are no other hosts")
    assert not judged({"slipway_address": "{{ ansible_host }}"})


@pytest.mark.parametrize("address", ["10.9.9.9", "0.0.0.0", "127.0.0.1"])
@pytest.mark.parametrize(("role", "hosts"), [("app", 2), ("postgres", 2), ("postgres", 3)])
def test_a_service_listens_where_other_hosts_look_for_it(judged: Judge, role: str, hosts: int, address: str):
    lines = judged({f"{role}_publish_address": address, "slipway_mesh": False}, hosts=hosts)
    said = f"{role}_publish_address is {address}, but other hosts connect to 10.0.0.1"
    assert said in lines[0]
    assert "own.yml" in lines[0]
    assert judged({f"{role}_publish_address": "10.0.0.1"}) == []
    meshed = judged({f"{role}_publish_address": address}, hosts=hosts)[0]
    assert f"{role}_publish_address is {address}, but other hosts connect to 10.210." in meshed
    assert meshed.endswith("or set slipway_mesh_address")


def test_without_other_hosts_a_service_listens_where_its_user_says(judged: Judge):
    assert judged({"postgres_publish_address": "127.0.0.1"}) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            Given("site", texts=("app_version = 9",)),
            "-e 'app_version = 9' sets nothing: Ansible leaves out what is not name=value; write -e app_version=9",
        ),
        (Given("site", texts=("app_version",)), "-e 'app_version' sets nothing"),
        (
            Given("run", texts=("command=python -m shop.admin list",)),
            "Ansible ends a value at a blank, and leaves out the rest; write -e \"command='python -m shop.admin list'\"",
        ),
        (Given("site", variables={"version": "9"}), "version is not a variable of Slipway (did you mean app_version"),
        (Given("deploy", variables={"APP_VERSION": "9"}), "APP_VERSION is not a variable of Slipway (did you mean app_version?)"),
        (Given("build", variables={"image_sorce": "/x"}), "image_sorce is not a variable of Slipway (did you mean image_source"),
        (Given("build", variables={"shipp": "true"}), "shipp is not a variable of Slipway (did you mean ship?); correct the name after -e"),
        (Given("backup", variables={"backup_run_full": "maybe"}), "backup_run_full is 'maybe', must be true or false; correct it after -e"),
        (Given("drill", variables={"drill_wait": "abc"}), "drill_wait is 'abc', must be a time in seconds"),
        (Given("drill", variables={"point": "--help"}), "point is '--help', must be the name of a recovery point"),
        (Given("restore", variables={"target_time": "yesterday"}), "target_time is 'yesterday', must be a date and time"),
        (Given("restore", variables={"stores": "mysql"}), "stores is 'mysql', must be a list of stores"),
        (Given("restore", variables={"store": "redis"}), "store is not a variable of Slipway (did you mean stores?)"),
        (Given("site", variables={"app_slot": "green"}), "app_slot is not for an inventory, as a release decides it"),
        (Given("site", variables={"__release_to": {"slot": "green"}}), "__release_to is not for an inventory, as a run sets it"),
        (Given("site", variables={"restore_undo": True}), "restore_undo is an argument of restore.yml, not of site.yml"),
        (Given("backup", variables={"restore_point": "latest"}), "restore_point is an argument of restore.yml, not of backup.yml"),
        (Given("backup", variables={"point": "latest"}), "point is an argument of drill.yml and restore.yml, not of backup.yml"),
        (Given("maintenance", variables={"state": "of"}), "state is 'of', must be true or false"),
        (Given("maintenance", variables={"State": "on"}), "State is not a variable of Slipway (did you mean state?)"),
        (Given("maintenance", variables={"nginx_maintenance_txt": "x"}), "nginx_maintenance_txt is not a variable of Slipway"),
        (
            Given("secrets", variables={"slipway_secret_file": "/x"}),
            "slipway_secret_file is not a variable of Slipway (did you mean slipway_secrets_file?)",
        ),
        (Given("deploy", variables={"app_version": ""}), "app_version is '', must be a version"),
        (
            Given("deploy", variables={"nginx_http_port": "1e3"}),
            "nginx_http_port is '1e3', must be a port, an integer from 1 to 65535; correct it after -e",
        ),
        (Given("site", tags=("nosuch",)), "--tags nosuch selects no task"),
        (Given("site", tags=("always",)), "--tags always selects no task but this check"),
        (Given("site", tags=("tagged", "always"), own_tags=("always",)), "--tags tagged,always selects no task but this check"),
        (Given("site", tags=("untagged",), own_tags=("always", "product")), "--tags untagged selects no task but this check"),
    ],
)
def test_the_command_line_is_looked_at(judged: Judge, given: Given, said: str):
    lines = judged({}, given=given)
    assert len(lines) == 1, lines
    assert said in lines[0]


@pytest.mark.parametrize("name", ["ssh_port", "become", "connection", "user", "port"])
@pytest.mark.parametrize(
    ("place", "lines"),
    [
        ("inventories/x/group_vars/all/own.yml:3", 0),
        ("inventories/x/host_vars/h1.yml:1", 0),
        ("inventory.py", 0),
        ("{}/own.yml:1", 1),
    ],
)
def test_a_name_without_ansible_is_a_mistake_next_to_a_host(
    judged: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str, lines: int
):
    monkeypatch.setattr(HostView, "place", lambda _view, _name: place.format(tmp_path))
    assert len(judged(f"{name}: 1\n")) == lines


@pytest.mark.parametrize(
    ("file", "text", "of_a_group"),
    [
        ("hosts.yml", "app:\n  hosts:\n    web1:\n      port: 1\n", False),
        ("hosts.yml", "app:\n  hosts:\n    web1: {port: 1}\n", False),
        ("hosts.yml", "app:\n  vars:\n    # Of another role.\n\n    port: 1\n", True),
        ("hosts.yml", "app:\n  vars: {a: 1, port: 1}\n", True),
        ("hosts", "[app]\nweb1 port=1\n", False),
        ("hosts", "[app:vars]\nport=1\n", True),
    ],
)
def test_a_variable_of_a_group_in_a_file_of_hosts_differs_from_one_of_a_host(tmp_path: Path, file: str, text: str, of_a_group: bool):
    (tmp_path / file).write_text(text)
    number = next(number for number, line in enumerate(text.splitlines(), 1) if "port" in line)
    assert is_of_a_group(f"{tmp_path / file}:{number}", "port") == of_a_group
    assert is_of_a_group(f"{tmp_path / file}:99", "port")
    assert is_of_a_group(str(tmp_path / file), "port")


@pytest.mark.parametrize(("name", "lines"), [("ssh_port", 1), ("become", 1), ("deploy_host", 0)])
def test_a_keyword_after_e_is_a_mistake(judged: Judge, name: str, lines: int):
    assert len(judged({}, given=Given("site", variables={name: "1"}))) == lines


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("x: a b", "write -e '{x: a b}', or -e \"x='a b'\""),
        ("x: it's b", 'write -e \'{"x": "it\'"\'"\'s b"}\''),
        ("x: 1", "write -e '{x: 1}', or -e x=1"),
        ("x: a: b", "write -e \"x='a: b'\""),
        ("a=[1, 2] b=3", "write -e '{a: [1, 2]}' -e b=3"),
        ("a=[1, 2", "write -e \"a='[1, 2'\""),
        ("a=['x', 'y z']", 'write -e \'{a: ["x", "y z"]}\''),
        ("a={b: 1, c: 2} d=x e", "write -e \"a='{b: 1, c: 2} d=x e'\""),
        ('a=say "x" $HOME', 'write -e \'{"a": "say \\\\"x\\\\" $HOME"}\''),
    ],
)
def test_the_advice_on_what_to_write_after_e_is_accepted_itself(text: str, advice: str):
    (line,) = command_line_problems([text])
    said = line.partition("; write ")[2]
    assert f"write {said}" == advice.replace("\\\\", "\\")
    texts = [word for way in said.split(", or ") for word in shlex.split(way) if word != "-e"]
    assert command_line_problems(texts) == []
    assert all(yaml.safe_load(word) for word in texts if word.startswith("{"))


@pytest.mark.parametrize(
    "given",
    [
        Given("site", texts=("app_version=9 x='a b'", "@file.yml", '{"a": 1}', "a: 1")[:3]),
        Given("deploy", variables={"app_version": "9.9.9", "my_reason": "x", "ci_job": "3"}),
        Given("restore", variables={"point": "latest", "stores": "postgres,redis", "into": "inspect"}),
        Given("maintenance", variables={"state": "on"}),
        Given("backup", variables={"backup_run_full": True}),
        Given("site", tags=("mine",), own_tags=("mine", "always")),
    ],
)
def test_a_good_command_line_passes(judged: Judge, given: Given):
    assert judged({}, given=given) == []


def test_an_inventory_without_hosts_or_shared_variables_says_so():
    given = Given("site", sources=("/dev/null",))
    (problem,) = Inputs(FILES, {}, {}, "x", given=given).problems([], needs_shared=True)
    assert problem.text == "the inventory (/dev/null) has no host; give the folder of an environment, as -i inventories/prod"
    views = {"a": HostView({"inventory_hostname": "a"}, {}, {}, LOADER)}
    (problem,) = Inputs(FILES, {"a": []}, views, "inventories/x", given=given).problems([], needs_shared=True)
    assert "the variables that all environments share were not read" in problem.text


@pytest.mark.parametrize(
    ("one", "other", "far"),
    [
        ("port", "port", 0),
        ("prot", "port", 1),
        ("postgre", "postgres", 1),
        ("abc", "bca", 2),
        ("abcd", "wxyz", 3),
        ("", "ab", 2),
        ("a", "abcd", 3),
    ],
)
def test_distance_counts_letters_and_exchanges(one: str, other: str, far: int):
    assert distance(one, other) == distance(other, one) == far


def test_short_names_and_names_in_use_are_the_users_own():
    known = KnownNames(["app_version", "state", "ship"])
    assert near_names(["stage", "host", "shop"], known, lambda _name: False) == {
        "stage": "stage is not a variable of Slipway (did you mean state?)"
    }
    assert near_names(["stage", "App_version"], known, lambda _name: True) == {}
    assert argument_problems(["version"], "deploy", {"deploy": []}, known, lambda _name: True) == []
    for name, option in {"check": "--check", "dry_run": "--check", "ansible_check_mode": "--check", "limit": "--limit <host>"}.items():
        (problem,) = argument_problems([name], "deploy", {"deploy": []}, known, lambda _name: False)
        assert problem == f"{name} after -e is not an option of Ansible, and has no effect; give {option} instead"
        assert argument_problems([name], "deploy", {"deploy": [name]}, known, lambda _name: False) == []
    assert command_line_problems(["a=1 b=2", "@x.yml", "{}", ""]) == []
    # What a playbook takes after -e are a few names.
    (problem,) = argument_problems(["grap"], "logs", {"logs": ["grep"]}, known, lambda _name: False)
    assert "(did you mean grep?)" in problem


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("  hosts: workers", "app_defaults (for api) has hosts: workers, a group without hosts; .* in \\S+own.yml:4"),
        ("  retire: before", "app_defaults (for api) has retire: before, which a web service cannot have: .* in \\S+own.yml:4"),
        ("app_service_overrides:\n api:\n  retire: before", "app_service_overrides.api has retire: before, .* in \\S+own.yml:6"),
        ("app_service_overrides:\n web:\n  memory_mb: 300", "app_service_overrides names the service web, .* in \\S+own.yml:5"),
        ("app_service_overrides:\n api:\n  replicas: 3\n  pids: 99\napp_publish_address: 10.0.0.1\napp_slot_port_offset: 2",
         "app_service_overrides.api.replicas is 3, more than .* in \\S+own.yml:6"),
    ],
)  # fmt: skip
def test_a_message_names_the_variable_that_gives_a_service_its_value(judged: Judge, keys: str, line: str):
    """And its line, whatever else describes the service elsewhere."""
    own = f"app_services: {{api: {{image: 'a/b:1', port: 80}}}}\napp_defaults:\n  memory_mb: 300\n{keys}\n"
    if keys.startswith("  "):
        own += "app_service_overrides: {api: {memory_mb: 400}}\n"
    (found,) = judged(own)
    assert re.fullmatch("host h1: " + line.replace("(for api)", r"\(for api\)"), found), found


@pytest.mark.parametrize(
    ("service", "batch", "said"),
    [
        ({"port": 80}, 9, ""),
        ({"port": 80, "hosts": "web"}, 1, ""),
        ({"port": 80, "hosts": "web"}, 2, "has hosts: web, a group of 2, and app_release_batch is 2"),
        ({"hosts": "web"}, 2, ""),
        ({"port": 80, "hosts": "web", "retire": "next"}, 2, ""),
        ({"hosts": "stores"}, 0, "has hosts: stores, a group with db1, not in group app; add it there, or take it from stores"),
        ({"hosts": "empty"}, 0, "has hosts: empty, a group without hosts; add hosts of group app to it"),
    ],
)
def test_a_service_runs_on_hosts_of_the_product(service: dict[str, Any], batch: int, said: str):
    groups = {"app": ["a1", "a2", "a3"], "web": ["a1", "a3"], "stores": ["a1", "db1"], "empty": []}
    (described,) = input_checks.app_services.services({"app_services": {"api": service}}).values()
    found = input_checks.hosts_problem(described, groups, batch)
    assert found.startswith(said)
    assert bool(found) == bool(said)


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ({}, ""),
        ({"hosts": "search", "volumes": [{"name": "x1", "path": "/x"}]}, ""),
        ({"hosts": "stores"}, "has hosts: stores, a group with db1, not in group extra or app; add it to group extra"),
        (
            {"volumes": [{"name": "x1", "path": "/x"}]},
            "keeps data, and would have other data on each of a1, a2; set hosts to a group of one",
        ),
        # A cache, of which each host may have its own.
        ({"volumes": [{"name": "x1", "path": "/x", "backup": False}]}, ""),
        ({"volumes": [{"name": "x1", "path": "/x", "mode": "ro"}]}, ""),
    ],
)
def test_an_extra_service_keeps_its_data_on_one_host(service: dict[str, Any], said: str):
    groups = {"app": ["a1", "a2"], "extra": ["s1"], "search": ["s1"], "stores": ["a1", "db1"]}
    (described,) = input_checks.extra_services.services({"search": service}).values()
    found = input_checks.extra_hosts_problem(described, groups, ["extra", "app"])
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_ports_of_one_address_meet_and_of_two_do_not():
    def ports(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
        return [{"port": 80, "variable": variable, "address": address} for variable, address in pairs]

    assert input_checks.check_published(ports(("a", "10.0.0.1"), ("b", "10.0.0.2"))) == []
    assert input_checks.check_published(ports(("a", ""), ("b", "10.0.0.2")))[0][0] == "b"
    assert input_checks.check_published(ports(("a", ""), ("a", ""))) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("hostvars['gone']", "cannot be evaluated: the inventory has no host gone"),
        ("A template was resolved to an Omit scalar.", "cannot be evaluated: omit leaves out an argument of a task"),
        ("'my_domain' is undefined", "cannot be evaluated: 'my_domain' is undefined"),
        ("object of type 'dict' has no attribute 'mian'", "cannot be evaluated: object of type 'dict' has no attribute 'mian'"),
        ("Attempt to use undecryptable variable", "cannot be decrypted with the vault password of this run; export"),
    ],
)
def test_why_a_variable_cannot_be_evaluated(error: str, said: str):
    assert why_no_value(error).startswith(said)


def test_variables_of_a_connection_after_e_are_refused_before_a_task():
    """Ansible would refuse the task that checks all others."""
    wrong = {"ansible_become": "perhaps", "ansible_pipelining": "{{ x }}", "ansible_user": "ops", "app_version": ""}
    assert given_problems(wrong) == ["ansible_become is 'perhaps', must be true or false; correct it after -e"]
    for name, (_loader, usual) in PLUGINS.items():
        assert given_problems({name: "shh"}) == [f"{name} is 'shh', must be a plugin of Ansible, as {usual}; correct it after -e"]
        assert given_problems({name: usual}) == given_problems({name: "{{ x }}"}) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[localhost]", "must be a list; after -e, name=value is a string: write -e '{\"nginx_server_names\": …}' in JSON"),
        ("localhost", "must be a list; after -e, name=value is a string"),
        ({"a": 1}, "must be a list; correct it after -e"),
        ([1], "nginx_server_names[0] is 1, "),
    ],
)
def test_a_list_after_e_has_the_way_to_write_it(judged: Judge, value: Any, said: str):
    (line,) = judged({}, given=Given(playbook="site", variables={"nginx_server_names": value}))
    assert said in line


def test_all_options_of_a_connection_that_ansible_converts_have_a_form():
    """Of ssh, sudo and sh, as this version of Ansible describes them."""
    described = {}
    for kind, (loader, usual) in {"connection": PLUGINS["ansible_connection"], "become": PLUGINS["ansible_become_method"]}.items():
        loader.get(usual, class_only=True)
        described |= config.get_configuration_definitions(kind, usual)
    converted = [
        option for option in described.values() if option.get("type", "string") not in ("string", "str", "path") or "choices" in option
    ]
    names = {variable["name"] for option in converted for variable in option.get("vars", ())}
    assert "ansible_pipelining" in names
    assert names <= set(CONNECTION)


SECRET = "Yh5kQw8Zt1Lp9Xc3Vb7N"


@pytest.mark.parametrize(
    ("own", "path", "new"),
    [
        (
            {"app_service_overrides": {"backend": {"secrets": {"API_KEY": SECRET}}}},
            "app_service_overrides.backend.secrets.API_KEY",
            "api_key",
        ),
        ({"app_defaults": {"migrate": {"secrets": {"KEY": SECRET}}}}, "app_defaults.migrate.secrets.KEY", "key"),
        (extra(secrets={"KEY": SECRET}), "slipway_extra_services.search.secrets.KEY", "key"),
        ({"postgres_users": [{"name": "x", "password": SECRET}]}, "postgres_users[0].password", "password"),
        ({"redis_app_password": SECRET}, "redis_app_password", "redis_app_password"),
        ({"slipway_database_password": SECRET}, "slipway_database_password", "slipway_database_password"),
        ({"nginx_probe_key": SECRET}, "nginx_probe_key", "nginx_probe_key"),
        (
            {"backup_offsite_environment": {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_DEFAULT_REGION": "eu", "AWS_SECRET_ACCESS_KEY": SECRET}},
            "backup_offsite_environment.AWS_SECRET_ACCESS_KEY",
            "aws_secret_access_key",
        ),
    ],
)
def test_a_secret_in_clear_text_is_refused_and_not_shown(judged: Judge, own: dict[str, Any], path: str, new: str):
    (line,) = judged(own)
    assert SECRET not in line
    assert re.search(
        rf"{re.escape(path)} is in clear text in \S*own.yml; add it as vault_{new} with `ansible-vault edit \S+vault.yml`", line
    )
    assert line.endswith(f'and set "{{{{ vault_{new} }}}}" here')


def test_a_secret_is_in_clear_text_once_for_all_hosts_and_aliases(judged: Judge):
    text = f"app_service_overrides: {{backend: {{secrets: &one {{KEY: {SECRET}}}}}, worker: {{secrets: *one}}}}"
    (line,) = judged(text, hosts=2)
    assert re.match(r"hosts h1, h2: app_service_overrides.backend.secrets.KEY is in clear text in \S+own.yml:1; ", line)


def test_a_manager_is_named_for_a_secret_in_clear_text(judged: Judge):
    own = {"slipway_secrets_source": "command", "slipway_secrets_command": ["x"], "redis_app_password": SECRET}
    assert "add it as vault_redis_app_password to what slipway_secrets_command reads, and set" in judged(own)[0]


def test_a_secret_after_e_or_encrypted_is_not_in_clear_text(judged: Judge, tmp_path: Path):
    assert judged({}, given=Given("site", variables={"redis_app_password": SECRET, "vault_app_secret_key": SECRET})) == []
    loader, password = DataLoader(), VaultSecret(b"x")
    loader.set_vault_secrets([("default", password)])
    path = tmp_path / "vault.yml"
    path.write_bytes(VaultLib().encrypt(f"vault_a: {SECRET}", password))
    assert in_clear_text(loader.load_from_file(str(path))["vault_a"]) is None
    path = tmp_path / "mixed.yml"
    inline = "\n  ".join(VaultLib().encrypt(SECRET, password).decode().splitlines())
    path.write_text(f"vault_a: !vault |\n  {inline}\nvault_b: {SECRET}\n")
    found = loader.load_from_file(str(path), cache="none")
    assert (in_clear_text(found["vault_a"]), in_clear_text(found["vault_b"])) == (None, (path, path.read_text().count("\n")))


@pytest.mark.parametrize("written", ["0123", "01730", "12:30", "1_000", "0x1F", "123", "1.10"])
def test_a_number_in_an_encrypted_file_is_refused_where_a_string_is_meant(judged: Judge, tmp_path: Path, written: str):
    """YAML makes 83 of 0123, and the file does not say so: the product would have another secret than its author gave it."""
    loader, password = DataLoader(), VaultSecret(b"x")
    loader.set_vault_secrets([("default", password)])
    (tmp_path / "vault.yml").write_bytes(VaultLib().encrypt(f"vault_pin: {written}\nvault_text: '{written}'\nvault_port: 8080", password))
    vault = loader.load_from_file(str(tmp_path / "vault.yml"), trusted_as_template=True)
    keys = {"secrets": {"PIN": "{{ vault_pin }}"}, "migrate": {"command": ["m"], "secrets": {"PIN": "{{ vault_pin }}"}}}
    for name, key in keys.items():
        (line,) = judged({"app_service_overrides": {"backend": {name: key}}}, vault=vault)
        assert re.search(r"PIN has a value that must be a string without NUL; it is a number: quote the value", line), line
    (line,) = judged({"app_defaults": {"environment": {"PIN": "{{ vault_pin }}"}}}, vault=vault)
    assert re.search(rf"PIN is \S+, {FOLLOWS} a number (in an encrypted file|with decimals): quote the value", line), line
    good = {"environment": {"TEXT": "{{ vault_text }}"}, "secrets": {"PIN": "{{ vault_text }}"}}
    assert judged({"app_defaults": good, "nginx_http_port": "{{ vault_port }}"}, vault=vault) == []


@pytest.mark.parametrize("mark", ["&v", "!!float", "&v !!float", "!!float &v"])
def test_an_anchor_or_a_tag_hides_nothing(judged: Judge, mark: str):
    (line,) = judged(f"app_defaults: {{environment: {{A: {mark} 1.10}}}}")
    assert f"app_defaults.environment.A is 1.1, {FOLLOWS} 1.10: quote the value" in line


def test_an_anchor_of_a_boolean_hides_nothing(judged: Judge):
    (line,) = judged("app_defaults: {environment: {A: &v on, B: *v}}")
    assert f"app_defaults.environment.A is True, {FOLLOWS} on: quote the value" in line


def test_a_file_of_secrets_that_is_not_encrypted_is_refused(judged: Judge, tmp_path: Path):
    own = {f"vault_{name}": f"{SECRET}{name}" for name in "abcde"}
    (line,) = judged(own)
    assert re.search(
        r"own.yml holds vault_a, vault_b, vault_c and 2 more in clear text; move such values to \S+vault.yml with `ansible-vault edit`",
        line,
    )
    assert SECRET not in line
    path = tmp_path / "group_vars/all/vault.yml"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(own))
    given = LOADER.load_from_file(str(path), cache="none", trusted_as_template=True)
    views = {"h1": HostView({**SHARED, **PRODUCT, **GOOD, **given, "groups": {"all": ["h1"]}}, {}, {}, LOADER)}

    def found(playbook: str) -> list[str]:
        return [problem.text for problem in Inputs(FILES, {"h1": []}, views, "i", given=Given(playbook)).value_problems(())]

    (line,) = found("site")
    assert "vault.yml holds vault_a, vault_b, vault_c and 2 more in clear text; run `ansible-playbook playbooks/secrets.yml -i i`" in line
    assert found("secrets") == []


MESH = {"slipway_mesh": True, "vault_mesh_preshared_secret": "{{ 't7Hq2Lw9Zx4Nv6Bk8Mr3' }}"}


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"slipway_mesh_range": "10.210.0.0/30"}, "slipway_mesh_range is 10.210.0.0/30, must be a network of /24 or larger"),
        ({"slipway_mesh_range": "10.210.0.1/16"}, "has host bits set"),
        ({"slipway_mesh_range": "{{ '10.210.0.0/16' if inventory_hostname == 'h1' else '10.211.0.0/16' }}"}, "set one for all hosts"),
        ({"slipway_mesh": "{{ inventory_hostname == 'h1' }}"}, "slipway_mesh is false, and true for others"),
        ({"slipway_mesh_address": "10.210.0.1"}, "has the mesh address 10.210.0.1, as host h1 does"),
        ({"slipway_mesh_address": "10.211.0.1"}, "slipway_mesh_address is 10.211.0.1, must be that of a host in 10.210.0.0/16"),
    ],
)
def test_a_mesh_that_cannot_work_is_refused(judged: Judge, own: dict[str, Any], said: str):
    assert any(said in line for line in judged({**MESH, **own}, hosts=2))


def test_a_mesh_of_two_hosts_needs_no_more_than_its_secret(judged: Judge):
    assert judged(MESH, hosts=2) == []


@pytest.mark.parametrize("value", ["{{ 5 * }}", "{{ {} | nosuchfilter }}", "{{ app_services }}", "{{ nosuch }}"])
def test_an_input_that_the_list_of_secrets_is_made_of_has_its_own_message(play: Run, checkout: Path, value: str):
    """Ansible evaluates the arguments of the check itself, and would end with that."""
    (checkout / "inventories/test/group_vars/app.yml").write_text(
        json.dumps({"app_services": value, "slipway_secrets": "{{ lookup('slipway.stack.topology', 'secrets') }}"})
    )
    hosts = checkout / "inventories/test/hosts.yml"
    hosts.write_text(hosts.read_text().replace("stores:", "app:"))
    done = play("site")
    assert done.returncode == 2
    assert "app_services cannot be evaluated: " in done.stdout
    assert "Finalization" not in done.stdout + done.stderr


def test_a_list_of_secrets_that_cannot_be_evaluated_is_refused(play: Run, checkout: Path):
    (checkout / "inventories/test/group_vars/all/own.yml").write_text('slipway_secrets: "{{ 5 * }}"\n')
    hosts = checkout / "inventories/test/hosts.yml"
    hosts.write_text(hosts.read_text().replace("stores:", "app:"))
    done = play("site")
    assert done.returncode == 2
    assert "slipway_secrets cannot be evaluated: " in done.stdout
    assert "Finalization" not in done.stdout + done.stderr
