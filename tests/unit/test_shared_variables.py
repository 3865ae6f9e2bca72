# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the shared variables make of an inventory, with and without the groups that may be left out."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from ansible.parsing.dataloader import DataLoader

from ansible_collections.slipway.stack.plugins.filter.fleet import site_name
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import HostView, RoleFiles, templates_of
from ansible_collections.slipway.stack.plugins.plugin_utils.topology import shared_files
from conftest import ansible

OPTIONAL = ("postgres", "redis", "chroma", "backup")
#: What only a stack with the store has a value for.
OF_STORES = {
    "postgres": ("slipway_postgres_host", "slipway_database_url", "slipway_database_password", "slipway_sqlalchemy_owner_url"),
    "redis": ("slipway_redis_host", "slipway_redis_url"),
    "chroma": ("slipway_chroma_host", "slipway_chroma_url"),
}
#: What Slipway itself needs of every inventory.
OURS = (
    "slipway_secrets", "slipway_stores", "slipway_images", "slipway_published_ports", "slipway_restricted_ports",
    "slipway_needed_addresses",
    "slipway_site_name", "backup_postgres_host", "backup_postgres_password", "backup_redis_host",
    "backup_redis_password", "backup_chroma_url", "backup_networks", "backup_settings", "postgres_backup_user", "redis_backup_user",
    "release_restore_point_host", "postgres_synchronous_standby", "backup_volumes", "volume_server_volumes", "volume_server_networks",
)  # fmt: skip


def view(groups: dict[str, list[str]], host: str, **more: Any) -> HostView:
    """Return the variables of a host; secrets have a value where they are asked for and in no other place."""
    loader = DataLoader()
    shared = RoleFiles().shared()
    product = {"app_version": "1.0", "app_services": {"api": {"image": "b:1.0", "port": 8000}}}
    hosts = {
        name: {"slipway_address": f"10.0.0.{number}", "group_names": [group for group, members in groups.items() if name in members]}
        for number, name in enumerate(sorted({*itertools.chain(*groups.values())}), 1)
    }
    extra = {"groups": groups, "inventory_hostname": host, "hostvars": hosts, **hosts[host], **product, **more}
    secrets = HostView({**shared, **extra}, {}, {}, loader).resolve("slipway_secrets")
    return HostView({**shared, **extra}, {name: f"{name}/+@:%" for name in secrets}, {}, loader)


@pytest.mark.parametrize("one_host", [True, False], ids=["one host", "a host each"])
@pytest.mark.parametrize(
    "left",
    [set(left) for count in range(5) for left in itertools.combinations(sorted(OPTIONAL), count)],
    ids=lambda left: "without " + (" and ".join(sorted(left)) or "none"),
)
def test_a_stack_does_without_the_groups_that_it_has_not(left: set[str], one_host: bool):
    groups = {"balancers": ["web"], "app": ["web"], **{name: ["web" if one_host else name] for name in OPTIONAL if name not in left}}
    for host in {*itertools.chain(*groups.values())}:
        here = view(groups, host)
        for name in OURS:
            value, error = here.value(name)
            assert not error, f"{name} on {host}: {error}"
            if name in {"slipway_secrets", "slipway_images", "slipway_needed_addresses", "slipway_stores"}:
                assert not [group for group in left if group != "backup" and group in str(value)], f"{name} on {host}: {value}"
        for store, names in OF_STORES.items():
            for name in names:
                value, error = here.value(name)
                assert bool(error) is (store in left), f"{name} on {host}: {value}"
                assert not error or f"no host is in group {store}" in error
    assert ("vault_backup_offsite_password" in here.value("slipway_secrets")[0]) is ("backup" not in left)


@pytest.mark.parametrize(
    ("site", "route", "needed"),
    [
        ({}, {"path": "/"}, False),
        ({"nginx_limit_conn": "0", "nginx_allow": []}, {"path": "/", "limit_req_rate": "", "internal": True}, False),
        ({"nginx_limit_conn": 20}, {"path": "/"}, True),
        ({}, {"path": "/", "auth_basic": "Staff"}, True),
        ({}, "/", False),
    ],
)
def test_a_site_that_refuses_requests_needs_a_key_for_its_releases(site: dict[str, Any], route: Any, needed: bool):
    """Every host knows what the balancers do, also where one of them alone has the inputs of nginx."""
    groups = {"balancers": ["front", "edge"], "app": ["app"]}
    hostvars = {
        "front": {"slipway_address": "10.0.0.3"},
        "edge": {"slipway_address": "10.0.0.1", **site},
        "app": {"slipway_address": "10.0.0.2"},
    }
    services = {"api": {"image": "b:1.0", "port": 8000, "routes": [route]}}
    seen = view(groups, "app", hostvars=hostvars, app_services=services)
    assert ("vault_nginx_probe_key" in seen.resolve("slipway_secrets")) is needed
    assert bool(seen.resolve("slipway_probe_key")) is needed


def test_an_extra_service_on_another_host_is_open_to_the_product_alone_and_backed_up():
    search = {"image": "search:1", "port": 7700, "hosts": "search", "volumes": [{"name": "search_data", "path": "/data"}]}
    groups = {"balancers": ["lb"], "app": ["web"], "extra": ["s1"], "search": ["s1"], "backup": ["web"]}
    described = {"slipway_extra_services": {"search": search}, "slipway_mesh": False}
    shared = {"app_services": {}, "volume_server_port": 8873, **described}
    hosts = {
        host: {"slipway_address": f"10.0.0.{number}", "group_names": [group for group in groups if host in groups[group]], **shared}
        for number, host in enumerate(("lb", "s1", "web"), 1)
    }
    seen = {host: view(groups, host, **described, hostvars=hosts).value for host in hosts}
    # The volume's server is open to the backup host.
    opened = [(item["address"], item["port"], item["peers"]) for item in seen["s1"]("slipway_restricted_ports")[0]]
    assert opened == [("10.0.0.2", 7700, ["10.0.0.3"]), ("10.0.0.2", 8873, ["10.0.0.3"])]
    assert seen["s1"]("slipway_images")[0] == ["search:1", "slipway/backup-tools:1"]
    assert seen["s1"]("volume_server_volumes")[0] == ["search_data"]
    assert seen["web"]("slipway_extra_addresses")[0] == {"search": {"host": "10.0.0.2", "port": 7700}}
    assert "search:1" not in seen["lb"]("slipway_images")[0]


def test_the_database_is_given_as_a_url_that_any_driver_takes_and_in_parts():
    here = view({"balancers": ["web"], "app": ["web"], "postgres": ["db"]}, "web", postgres_app_name="us/er", postgres_database="a b")
    value = {
        name: here.value(f"slipway_{name}")[0]
        for name in ("database_url", "database_host", "database_port", "database_name", "database_user", "database_password")
    }
    url = urlsplit(value["database_url"])
    assert (url.scheme, url.hostname, url.port, unquote(url.path)) == ("postgresql", "10.0.0.1", 5432, "/a b")
    assert (value["database_host"], value["database_port"], value["database_name"]) == ("10.0.0.1", 5432, "a b")
    assert (unquote(url.username or ""), unquote(url.password or "")) == (value["database_user"], value["database_password"])
    assert value["database_password"] == "vault_postgres_app_password/+@:%"
    for kind in ("", "owner_"):
        plain, sqlalchemy = (here.value(name)[0] for name in (f"slipway_database_{kind}url", f"slipway_sqlalchemy_{kind}url"))
        assert sqlalchemy == plain.replace("postgresql://", "postgresql+psycopg://")


@pytest.mark.parametrize(
    ("values", "user", "used", "of_the_role", "of_the_second_login", "further"),
    [
        (("old", "", ""), "app", "old", "old", None, []),
        (("old", "new", ""), "app", "old", "old", "new", ["new"]),
        (("new", "", "old"), "app_next", "new", "old", "new", ["old"]),
        (("new", "new", ""), "app", "new", "new", "new", ["new"]),
    ],
    ids=["steady", "accepted", "used", "settling"],
)
def test_what_the_product_logs_in_with_is_valid_in_each_stage_of_a_rotation(
    values: tuple[str, str, str], user: str, used: str, of_the_role: str, of_the_second_login: str | None, further: list[str]
):
    """And in the stages before and after, where stores and product change one after the other."""
    secrets = ("vault_postgres_app_password", "vault_redis_app_password", "vault_app_secret_key")
    given = {f"{secret}{end}": value for secret in secrets for end, value in zip(("", "_next", "_previous"), values, strict=True)}
    here = HostView({**view({name: ["web"] for name in ("balancers", "app", *OPTIONAL)}, "web").raw, **given}, {}, {}, DataLoader())
    seen = {name: here.value(name) for name in (
        "slipway_database_user", "slipway_database_password", "postgres_app_password", "postgres_second_logins",
        "slipway_redis_password", "redis_app_further_passwords", "slipway_secret_key_accepted",
    )}  # fmt: skip
    assert not [error for _value, error in seen.values() if error]
    assert {name: value for name, (value, _error) in seen.items()} == {
        "slipway_database_user": user,
        "slipway_database_password": used,
        "postgres_app_password": of_the_role,
        "postgres_second_logins": [{"role": "app", "password": of_the_second_login}] if of_the_second_login else [],
        "slipway_redis_password": used,
        "redis_app_further_passwords": further,
        "slipway_secret_key_accepted": "".join(further),
    }
    valid = {"app": of_the_role, "app_next": of_the_second_login}
    assert valid[user] == used


@pytest.mark.parametrize(
    ("names", "url", "name"),
    [
        (["www.example.com", "example.com"], "https://other.example", "www.example.com"),
        ([".example.com", "*.example.com", "www.example.*", "~^www", "_", "localhost"], "", "localhost"),
        (["*.example.com"], "https://shop.example.com:8443/x", "shop.example.com"),
        (["*.example.com"], "", "www.example.com"),
        ([".example.com"], "", "example.com"),
        (["~^shop"], "", ""),
        (["bad name;"], "", ""),
        ([], "https://shop.example.com", "shop.example.com"),
        ([], "", ""),
        ([], "https://[::1]/", ""),
        ([], "https://[", ""),
    ],
)
def test_the_site_is_asked_by_a_name_of_its_own(names: list[str], url: str, name: str):
    assert site_name(names, url) == name


@pytest.mark.parametrize("store", ["postgres", "redis", "chroma"])
def test_an_address_that_a_user_sets_is_asked_for_before_anything_changes(store: str):
    """Also on a host of the store's own group, where it is reached by its name otherwise."""
    groups = {name: ["web"] for name in ("balancers", "app", *OPTIONAL)}
    assert view(groups, "web").value("slipway_needed_addresses") == ([], "")
    needed, error = view(groups, "web", **{f"slipway_{store}_host": "192.0.2.9"}).value("slipway_needed_addresses")
    assert not error
    assert [(item["group"], item["address"]) for item in needed] == [(store, "192.0.2.9")]


def test_all_that_an_environment_sets_is_stronger_than_what_all_share(checkout: Path):
    environment = checkout / "inventories/test"
    (environment / "hosts.yml").write_text(
        "all:\n  vars: {nginx_http_port: 1, chroma_port: 1}\n  children:\n    stores:\n"
        "      vars: {redis_port: 2, postgres_port: 2, chroma_port: 2, app_canary_seconds: 2}\n      hosts: {one: {app_standby: 3}}\n"
        "    others: {hosts: {two: }}\n"
    )
    (environment / "group_vars/all/own.yml").write_text("postgres_port: 4\n")
    (environment / "group_vars/stores.yml").write_text("app_canary_seconds: 5\n")
    done = ansible("ansible-inventory", "-i", "inventories/test", "--list", cwd=checkout)
    found = json.loads(done.stdout)["_meta"]["hostvars"]
    names = ("nginx_http_port", "chroma_port", "redis_port", "postgres_port", "app_canary_seconds", "app_standby", "nginx_https_port")
    assert [found["one"].get(name) for name in names] == [1, 2, 2, 4, 5, 3, 443]
    assert [found["two"].get(name) for name in names] == [1, 1, 6379, 4, 30, False, 443]


def test_a_variable_is_shared_by_one_file():
    names = [name for path in shared_files() for name in templates_of(path)]
    assert len(names) == len(set(names))


def test_a_role_of_ones_own_that_describes_a_service_has_shared_variables_too(checkout: Path, tmp_path: Path):
    for role, files in {"search": ("service.yml", "shared.yml"), "stranger": ("shared.yml",)}.items():
        meta = tmp_path / f"roles/{role}/meta"
        meta.mkdir(parents=True)
        for file in files:
            (meta / file).write_text(f"{role}_url: http://{role}\n" if file == "shared.yml" else "group: search\nturn: 35\n")
    done = ansible("ansible-inventory", "-i", "inventories/test", "--host", "one", cwd=checkout, ANSIBLE_ROLES_PATH=str(tmp_path / "roles"))
    found = json.loads(done.stdout)
    assert found["search_url"] == "http://search"
    assert "stranger_url" not in found
