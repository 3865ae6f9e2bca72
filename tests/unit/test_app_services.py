# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows from the services of a product for hosts, balancers and releases."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ansible_collections.slipway.stack.plugins.plugin_utils import app_services, extra_services
from ansible_collections.slipway.stack.plugins.plugin_utils.environment_values import environment_of
from conftest import ROOT

PRODUCT: dict[str, Any] = {
    "app_services": {
        "api": {
            "image": "shop/api:1", "port": 8000, "replicas": 2, "ready_path": "/ready", "version_path": "/api/version",
            "routes": [{"path": "/api/"}, {"path": "/ws", "websocket": True}], "build": {"context": "api"},
        },
        "page": {
            "image": "shop/page:1", "port": 3000, "retire": "next", "routes": [{"path": "/"}, {"path": "/assets/", "cache": "immutable"}],
        },
        "mailer": {"image": "shop/api:1", "build": {"context": "elsewhere"}},
        "importer": {"image": "shop/tools:1", "retire": "before"},
    }
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "slot": "blue", "version": "1", "publish_address": "", "slot_port_offset": 100, "host_header": "", "start_script": "",
    "migrate": False, "host": {"memory_mb": 8000, "cores": 2},
}  # fmt: skip
HOSTVARS: dict[str, Any] = {
    name: {"slipway_service_address": address, "group_names": ["app"], **PRODUCT}
    for name, address in {"app1": "10.0.0.1", "app2": "10.0.0.2", "lb1": "10.0.0.9"}.items()
}


def servers(here: str, traffic: dict[str, Any], hostvars: dict[str, Any] = HOSTVARS) -> dict[str, Any]:
    """Return the servers of each web service, as a balancer reaches them."""
    return {name: entry["servers"] for name, entry in app_services.balanced(["app1", "app2"], hostvars, here, traffic).items()}


def test_a_balancer_reaches_its_own_host_by_name_and_others_by_address() -> None:
    assert servers("app1", {"live": "green"}) == {
        "api": ["api-green-1:8000", "api-green-2:8000", "10.0.0.2:8100", "10.0.0.2:8101"],
        "page": ["page-green-1:3000", "10.0.0.2:3100"],
    }


@pytest.mark.parametrize("key", sorted(app_services.known_keys()))
@pytest.mark.parametrize("value", ["three", 3, -1, True, [3], ["a"], [None], {"a": [1]}, {}, ""], ids=str)
def test_a_value_of_another_type_stops_nothing_before_the_inputs_are_checked(key: str, value: Any) -> None:
    """Else the run ends with a traceback's last line, and not with the name of the variable and its place."""
    product = {**PRODUCT, "app_services": {**PRODUCT["app_services"], "api": {**PRODUCT["app_services"]["api"], key: value}}}
    hostvars = {name: {**host, **product} for name, host in HOSTVARS.items()}
    app_services.published_ports(hostvars["app2"], "10.0.0.2", ["10.0.0.9"])
    app_services.balanced(["app1", "app2"], hostvars, "lb1", {"live": "green"})
    app_services.summary(product, "shop", "blue")
    app_services.images(product)
    app_services.jobs(product)
    app_services.mistakes(product)


def test_published_ports_follow_their_inputs() -> None:
    """What is asked for is where it is published, whatever the distance of the slots."""
    changed = {**HOSTVARS["app2"], "app_slot_port_offset": 200, "app_service_overrides": {"api": {"publish_port": 9000}}}
    asked = servers("lb1", {"live": "green"}, {**HOSTVARS, "app2": changed})
    assert asked == {
        "api": ["10.0.0.1:8100", "10.0.0.1:8101", "10.0.0.2:9200", "10.0.0.2:9201"],
        "page": ["10.0.0.1:3100", "10.0.0.2:3200"],
    }
    ports = app_services.published_ports(changed, "10.0.0.2", ["10.0.0.9"])
    assert [port["port"] for port in ports] == [9000, 9001, 9200, 9201, 3000, 3200]
    assert {(port["address"], *port["peers"]) for port in ports} == {("10.0.0.2", "10.0.0.9")}
    assert {port["variable"] for port in ports} == {"app_services.api.publish_port", "app_services.page.publish_port"}


def test_a_service_runs_on_the_hosts_of_its_group_alone() -> None:
    """Its containers, ports, servers and images are where it runs; it takes no part in how others share a host's memory."""
    described = PRODUCT["app_services"]
    product = {
        "app_services": {**described, "page": {**described["page"], "hosts": "pages"}},
        "app_service_overrides": {"mailer": {"hosts": "all"}},
    }
    groups = {"app1": ["app"], "app2": ["app", "pages"], "lb1": ["balancers"]}
    hostvars = {name: {**HOSTVARS[name], **product, "group_names": groups[name]} for name in groups}
    assert servers("app1", {"live": "blue"}, hostvars)["page"] == ["10.0.0.2:3000"]
    before = app_services.balanced(["app1", "app2"], hostvars, "lb1", {"live": "green", "previous": "blue"})["page"]["previous_servers"]
    assert before == ["10.0.0.2:3000"]
    assert servers("lb1", {"live": "blue", "drained": ["app2"]}, hostvars)["page"] == ["10.0.0.2:3000"]
    for host, names in {"app1": ["api", "mailer", "importer"], "app2": list(described), "lb1": ["mailer"]}.items():
        found = app_services.here(product, groups[host])
        assert list(found["app_services"]) == names
        assert list(app_services.services(found)) == names
        assert {port["variable"].split(".")[1] for port in app_services.published_ports(found, "10.0.0.1", [])} == {"api", "page"} & set(
            names
        )
    state = {"images": {"shop/api:1": {"id": "sha256:a"}, "shop/page:1": {"id": "sha256:p"}}}
    seen = {name: {**values, "container_service_host_state": state} for name, values in hostvars.items()}
    assert app_services.image_ids(product, ["app1", "app2"], seen) == {
        "app1": {"api": "sha256:a", "mailer": "sha256:a"},
        "app2": {"api": "sha256:a", "page": "sha256:p", "mailer": "sha256:a"},
    }


def test_the_migration_runs_where_its_service_does() -> None:
    assert app_services.migrating_group(PRODUCT) == "app"
    importer = {**PRODUCT["app_services"]["importer"], "hosts": "tools", "migrate": {"command": ["m"]}}
    assert app_services.migrating_group({"app_services": {**PRODUCT["app_services"], "importer": importer}}) == "tools"


def test_a_canary_gets_its_share_of_what_does_not_last() -> None:
    """Open pages ask for files of their own version, so what serves these is switched at once."""
    found = servers("lb1", {"live": "blue", "canary": "green", "weight": 10})
    assert [item["server"] for item in found["api"]][::4] == ["10.0.0.1:8000", "10.0.0.1:8100"]
    assert found["api"][0]["weight"] == 9 * found["api"][4]["weight"]
    assert found["page"] == ["10.0.0.1:3000", "10.0.0.2:3000"]


def test_servers_follow_the_hosts_of_a_rolling_release() -> None:
    """A host that gets no requests is left out, one that has moved is asked in its other slot, and pages are served by all."""
    found = servers("lb1", {"live": "blue", "moved": {"app1": "green"}, "drained": ["app2"]})
    assert found == {"api": ["10.0.0.1:8100", "10.0.0.1:8101"], "page": ["10.0.0.1:3000", "10.0.0.2:3000"]}


def test_files_of_open_pages_are_asked_for_where_they_are() -> None:
    """A host that was looked at and has no such container is left out, one that was not looked at stays."""
    hostvars = {**HOSTVARS, "app1": {**HOSTVARS["app1"], "container_service_host_state": {"containers": {}}}}
    found = app_services.balanced(["app1", "app2"], hostvars, "lb1", {"live": "green", "previous": "blue"})
    assert found["page"]["previous_servers"] == ["10.0.0.2:3000"]
    assert found["api"]["previous_servers"] == []
    assert app_services.balanced(["app1"], HOSTVARS, "lb1", {"live": "blue", "previous": "blue"})["page"]["previous_servers"] == []
    assert list(app_services.upstreams(found, 3)) == ["api", "page", "page_previous"]


def test_an_upstream_has_weights_and_knows_addresses() -> None:
    """A lone server is never taken for dead, and a request waits for a name where no address serves."""

    def upstream(*servers: Any) -> dict[str, Any]:
        return app_services.upstreams({"api": {"servers": list(servers), "previous_servers": []}}, 3)["api"]

    assert upstream("api-1:80") == {
        "servers": [{"server": "api-1:80", "weight": 1, "is_address": False}],
        "max_fails": 0,
        "wait_port": 8081,
        "wait_for": "api-1:80",
    }
    both = upstream({"server": "api-1:80", "weight": 9}, "[fd00::1]:80")
    assert both["servers"] == [
        {"server": "api-1:80", "weight": 9, "is_address": False},
        {"server": "[fd00::1]:80", "weight": 1, "is_address": True},
    ]
    assert (both["max_fails"], both["wait_for"]) == (3, "")
    assert upstream()["wait_for"] == ""


def test_a_host_may_have_routes_of_its_own() -> None:
    """A name gets all routes without a host, and its own in their place."""
    balanced = {
        "api": {"routes": [{"path": "/"}, {"path": "/api/"}], "servers": ["a:1"], "previous_servers": []},
        "docs": {"routes": [{"path": "/", "host": "docs.example.com"}], "servers": ["b:1"], "previous_servers": []},
    }
    sites = app_services.sites(balanced, ["www.example.com", "docs.example.com"])
    assert [(site["names"], site["default"]) for site in sites] == [(["www.example.com"], True), (["docs.example.com"], False)]
    assert [[(route["path"], route["service"]) for route in site["routes"]] for site in sites] == [
        [("/", "api"), ("/api/", "api")],
        [("/", "docs"), ("/api/", "api")],
    ]


def test_who_asks_for_no_name_of_the_site_gets_its_first_one() -> None:
    """Also where each name has routes of its own, and where another one begins with an earlier letter."""
    routes = [{"path": "/", "host": "www.shop.example"}, {"path": "/", "host": "admin.shop.example"}]
    balanced = {"shop": {"routes": routes, "servers": ["a:1"], "previous_servers": []}}
    for names in (["www.shop.example", "admin.shop.example"], ["admin.shop.example", "www.shop.example"]):
        for certificates in ([], [{"names": ["www.shop.example"], "certificate": "c", "key": "k"}]):
            found = app_services.sites(balanced, names, (), certificates)
            assert [site["names"] for site in found if site["default"]] == [names[:1]]


def test_names_with_a_certificate_of_their_own_have_a_server_of_their_own() -> None:
    """A server of nginx has one certificate; redirected names are in no server with routes."""
    balanced = {"api": {"routes": [{"path": "/"}, {"path": "/x/", "host": "c"}], "servers": ["a:1"], "previous_servers": []}}
    redirects = [{"from": "WWW.a", "to": "a"}, {"from": "old", "to": "b"}, {"from": "www.old", "to": "b"}]
    own = [{"names": ["b", "c", "old"], "certificate": "server-1.pem", "key": "k1"}]
    found = app_services.sites(balanced, ["a", "b", "c", "d"], redirects, own)
    assert [(site["names"], site["certificate"], site["key"], site["redirect"], len(site["routes"])) for site in found] == [
        (["a", "d"], "", "", "", 1),
        (["b"], "server-1.pem", "k1", "", 1),
        (["c"], "server-1.pem", "k1", "", 2),
        (["www.a"], "", "", "a", 0),
        (["old"], "server-1.pem", "k1", "b", 0),
        (["www.old"], "", "", "b", 0),
    ]
    assert [site["default"] for site in found] == [True, *[False] * 5]


def test_a_release_knows_what_it_moves_and_asks() -> None:
    found = app_services.summary(PRODUCT, "shop", "green")
    assert (found["lasting"], found["web"], found["first"], found["drained"]) == (["page"], ["api"], ["importer"], ["mailer"])
    assert found["workers"] == ["mailer", "importer"]
    assert list(found["checked"]) == [
        f"shop-{name}" for name in ("api-green-1", "api-green-2", "page-green-1", "mailer-green-1", "importer-green-1")
    ]
    assert found["checked"]["shop-api-green-2"] == {
        "port": 8000, "path": "/ready", "version_path": "/api/version", "version_field": "version",
    }  # fmt: skip
    assert found["checked"]["shop-mailer-green-1"]["port"] == 0
    assert not found["migrates"]
    assert found["migrate_seconds"] == 0
    # Its time to stop, and what the engine waits until it kills it.
    assert found["stop_seconds"] == 30 + 10
    slow = {"app_services": {**PRODUCT["app_services"], "report": {"image": "x", "schedule": "daily", "grace_seconds": 7200}}}
    assert app_services.summary(slow, "shop", "green")["stop_seconds"] == 7200 + 10
    for migration, seconds in (({"command": ["migrate"], "seconds": 5000}, 5000), ({"command": ["migrate"]}, 600)):
        product = {"app_services": {"api": {**PRODUCT["app_services"]["api"], "migrate": migration}}}
        assert app_services.summary(product, "shop", "green")["migrate_seconds"] == seconds


def test_clients_reach_the_paths_that_routes_take() -> None:
    versions = [{"path": "/api/version", "field": "version"}]
    assert app_services.public_paths(PRODUCT) == {"versions": versions, "websockets": ["/ws"], "page": "/"}
    hidden = {"app_services": {**PRODUCT["app_services"], "api": {**PRODUCT["app_services"]["api"], "routes": []}}}
    assert app_services.public_paths(hidden) == {"versions": [], "websockets": [], "page": "/"}


def named(host: str, **keys: Any) -> dict[str, Any]:
    """Return a product each of whose services has a name of its own."""
    routes = {"shop": [{"path": "/", "host": host}], "docs": [{"path": "/", "host": "docs.test"}]}
    return {"app_services": {name: {"image": "x:1", "port": 80, "routes": found, **keys} for name, found in routes.items()}}


def test_clients_encode_the_paths_that_nginx_compares_decoded() -> None:
    """A prober could not ask for the route as it is written."""
    routes = [{"path": "/café/"}, {"path": "/été/ws", "websocket": True}]
    service = {"image": "x:1", "port": 80, "routes": routes, "version_path": "/caf%C3%A9/version", "health_path": ""}
    found = app_services.public_paths({"app_services": {"shop": service}})
    assert found["versions"] == [{"path": "/caf%C3%A9/version", "field": "version"}]
    assert (found["page"], found["websockets"]) == ("/caf%C3%A9/", ["/%C3%A9t%C3%A9/ws"])
    other = {"image": "x:1", "port": 80, "routes": [{"path": "/café/version"}]}
    assert app_services.public_paths({"app_services": {"shop": service, "other": other}})["versions"] == []


def test_clients_reach_the_routes_of_their_name() -> None:
    """A service of another name answers at its own paths only."""
    product = named("shop.test", version_path="/version")
    assert app_services.public_paths(product, "shop.test")["versions"] == [{"path": "/version", "field": "version"}]
    assert app_services.public_paths(product, "www.test")["versions"] == []


@pytest.mark.parametrize(("written", "served"), [("Shop.TEST", "shop.test"), ("bücher.test", "xn--bcher-kva.test"), ("0:0::1", "[::1]")])
def test_a_host_is_the_name_that_nginx_has(written: str, served: str) -> None:
    """However it is written: another server would have the name, and routes without the host's limits."""
    product = named(written, version_path="/version")
    hosts = {"lb1": {**product, "group_names": ["app"]}}
    found = app_services.balanced([], hosts, "lb1", {"live": "blue"})
    own = [{"names": [served], "certificate": "server-1.pem", "key": "k1"}]
    sites = app_services.sites(found, ["docs.test", served], [], own)
    assert {tuple(site["names"]): (len(site["routes"]), site["certificate"]) for site in sites if site["names"]} == {
        (served,): (1, "server-1.pem"),
        ("docs.test",): (1, ""),
    }
    assert app_services.public_paths(product, served)["versions"] == [{"path": "/version", "field": "version"}]
    twice = {"app_services": {**product["app_services"], "more": {"image": "x:1", "port": 80, "routes": [{"path": "/", "host": served}]}}}
    assert ("app_services.more.routes", "has the path /, which shop has already; remove one of them") in app_services.mistakes(twice)


@pytest.mark.parametrize(
    ("routes", "keys", "page"),
    [
        ([{"path": "/"}], {"health_path": "/healthz"}, "/"),
        ([{"path": "/api/"}], {"health_path": "/api/health"}, "/api/health"),
        ([{"path": "/ws", "websocket": True}, {"path": "/v1/"}], {"health_path": "/healthz"}, "/v1/"),
        ([{"path": "/", "host": "docs.test"}, {"path": "/v1/"}], {}, "/v1/"),
    ],
)
def test_a_product_without_a_start_page_is_asked_for_what_it_has(routes: list[dict[str, Any]], keys: dict[str, Any], page: str) -> None:
    """What answers 404 before a release would measure nothing during it."""
    product = {"app_services": {"api": {"image": "x:1", "port": 80, "routes": routes, **keys}}}
    assert app_services.public_paths(product, "shop.test")["page"] == page


def test_an_image_that_services_share_is_built_once() -> None:
    assert app_services.builds(PRODUCT) == {"api": {"name": "shop/api:1", "context": "api", "dockerfile": "Dockerfile", "arguments": {}}}
    assert set(app_services.images(PRODUCT).values()) == {"shop/api:1", "shop/page:1", "shop/tools:1"}


@pytest.mark.parametrize("value", [False, "false", "no"])
def test_a_service_that_is_not_enabled_is_in_nothing(value: Any) -> None:
    """It needs no image either, and is known by its name, as other environments run it."""
    product = {**PRODUCT, "app_service_overrides": {"mailer": {"enabled": value, "retire": "next"}}}
    without = {**PRODUCT, "app_services": {name: keys for name, keys in PRODUCT["app_services"].items() if name != "mailer"}}
    assert app_services.mistakes(product) == []
    assert app_services.summary(product, "shop", "blue") == app_services.summary(without, "shop", "blue")
    assert app_services.images(product) == app_services.images(without)
    assert list(app_services.here(product, ["app"])["app_services"]) == list(app_services.here(without, ["app"])["app_services"])
    # Of one environment or host, by what is set there last.
    again = {**product, "app_defaults": {"enabled": False}, "app_service_overrides": {"mailer": {"enabled": True}}}
    assert list(app_services.services(again)) == ["mailer"]
    assert list(extra_services.services({"search": {"enabled": value}, "mails": {"enabled": True}, "relay": {}})) == ["mails", "relay"]


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ({"image": None}, "app_services.api has no image"),
        ({"port": None, "ready_path": None, "version_path": None}, "app_services.api has routes and no port"),
        ({"port": None, "ready_path": None, "routes": []}, "app_services.api has version_path and no port"),
        ({"environment": {"A": "1"}, "secrets": {"A": "2"}}, "app_services.api has A in both environment and secrets"),
        ({"routes": [{"path": "/assets/"}]}, "app_services.page.routes has the path /assets/, which api has already"),
        ({"retire": "before"}, "app_services.api has retire: before, which a web service cannot have: set drain or next"),
        ({"routes": [{"path": "/health"}]}, "app_services.api has a route /health, on which nginx itself answers"),
        ({"replicas": 101}, "app_services.api.replicas is 101, more than app_slot_port_offset (100)"),
        ({"migrate": {"seconds": 1800}}, "app_services.api has migrate with seconds and no command: add the command"),
        ({"migrate": {"command": ["a"]}}, "app_services has a migration in api and mailer"),
        ({"concurrency": "allow"}, "app_services.api has concurrency, which only a job has: add a schedule"),
    ],
)
def test_services_that_contradict_each_other_are_named(service: dict[str, Any], said: str) -> None:
    described = PRODUCT["app_services"]
    mailer = {**described["mailer"], "migrate": {"command": ["b"]}} if "migrate" in service else described["mailer"]
    product = {"app_services": {**described, "api": {**described["api"], **service}, "mailer": mailer}}
    problems = app_services.mistakes(product, "10.0.0.1")
    assert [f"{where} {text}".startswith(said) for where, text in problems] == [True], problems


@pytest.mark.parametrize(
    ("volumes", "tmpfs", "said"),
    [
        (["/a", "/a/"], {}, "mounts /a twice in volumes and tmpfs"),
        (["/a"], {"/a": "size=1m"}, "mounts /a twice in volumes and tmpfs"),
        (["/run/secrets"], {}, "mounts /run/secrets, and /run/secrets holds its secrets"),
        ([], {"/etc/slipway/": ""}, "mounts /etc/slipway, and /etc/slipway holds its configuration"),
        (["/etc/slipway/current"], {}, "mounts /etc/slipway/current, and /etc/slipway holds its configuration"),
        ([], {"/run/secrets/TOKEN": ""}, "mounts /run/secrets/TOKEN, and /run/secrets holds its secrets"),
        (["/slipway/backup"], {}, "mounts /slipway/backup, and /slipway/backup holds what backups ask of it"),
        (["/tmp"], {}, "has a volume at /tmp, which is in memory"),
        (["/a", "/a/b", "/run"], {"/tmp": "size=9m", "/run/x": ""}, ""),
    ],
)
def test_folders_that_the_engine_cannot_mount_are_refused(volumes: list[str], tmpfs: dict[str, str], said: str) -> None:
    """Else a run ends when it creates the container."""
    mounts = {"volumes": [{"name": f"v{number}", "path": path} for number, path in enumerate(volumes)], "tmpfs": tmpfs}
    product = {"app_services": {**PRODUCT["app_services"], "mailer": {"image": "shop/api:1", **mounts}}}
    texts = [text for _where, text in app_services.mistakes(product)]
    assert [text.partition(":")[0] for text in texts] == ([said] if said else [])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"port": 8000}, "app_services.cleanup has a schedule and port, which a job cannot have"),
        ({"routes": [{"path": "/x"}]}, "app_services.cleanup has a schedule and routes, which a job cannot have"),
        ({"replicas": 2}, "app_services.cleanup has replicas: 2, and a job runs once"),
        ({"migrate": {"command": ["a"]}}, "app_services.cleanup has a schedule and migrate, which a job cannot have"),
        ({"image": None}, "app_services.cleanup has no image"),
    ],
)
def test_a_job_is_refused_what_it_cannot_have(more: dict[str, Any], said: str) -> None:
    product = {"app_services": {**PRODUCT["app_services"], "cleanup": {"image": "shop/tools:1", "schedule": "daily", **more}}}
    problems = app_services.mistakes(product)
    assert [f"{where} {text}".startswith(said) for where, text in problems] == [True], problems


def service_of(*parts: Any) -> app_services.Service:
    """Return a service by app_defaults, app_services and app_service_overrides."""
    named = zip(app_services.VARIABLES, ({"api": parts[1]}, parts[0], {"api": parts[2]} if len(parts) > 2 else {}), strict=True)
    return app_services.services(dict(named))["api"]


@pytest.mark.parametrize(
    ("parts", "environment"),
    [
        (({"environment": {"LOG": "x", "B": "y"}}, {"environment": {"LOG": None}}), {"B": "y"}),
        (({"environment": {"LOG": "x"}}, {"environment": {"LOG": None}}, {"environment": {"LOG": "z"}}), {"LOG": "z"}),
        (({"environment": {"LOG": "x"}}, {"environment": {"LOG": "z"}}, {"environment": {"LOG": None}}), {}),
        (({"environment": {"A": {"a": 1}}}, {"environment": {"A": None}}, {"environment": {"A": {"b": 2}}}), {"A": '{"b": 2}'}),
        # A section without a line, such as one whose lines are all comments.
        (({"environment": {"LOG": "x"}}, {"environment": None}), {"LOG": "x"}),
    ],
)
def test_a_variable_that_is_null_is_not_set(parts: tuple[Any, ...], environment: dict[str, str]) -> None:
    assert environment_of(service_of(*parts)["environment"]) == environment


def test_a_variable_that_is_null_may_be_a_secret() -> None:
    service = service_of({"environment": {"A": "x"}}, {"image": "a:1", "environment": {"A": None}, "secrets": {"A": "y"}})
    assert app_services.container_mistakes(service) == []


def test_values_for_migrations_that_all_services_share_are_not_a_migration() -> None:
    product = {**PRODUCT, "app_defaults": {"migrate": {"seconds": 1800}}, "app_service_overrides": {"api": {"migrate": {"command": ["m"]}}}}
    assert app_services.mistakes(product) == []
    [(where, text)] = app_services.mistakes({**PRODUCT, "app_service_overrides": {"mailer": {"migrate": {"seconds": 1800}}}})
    assert f"{where} {text}".startswith("app_service_overrides.mailer has migrate with seconds and no command")


@pytest.mark.parametrize("name", ["mode", "backup"])
def test_a_member_of_a_volume_that_is_null_has_its_default(name: str) -> None:
    """`mode:` without a value would mount it with the mode None, and `backup:` leave it out of recovery points."""
    volume = {"name": "uploads", "path": "/srv"}
    (plain,), (declared,) = (
        app_services.declarations({"app_services": {"api": {"image": "a:1", "volumes": [item]}}}, SETTINGS)
        for item in (volume, {**volume, name: None})
    )
    assert declared["volumes"] == plain["volumes"]
    assert declared["volumes"][0]["kept"]


@pytest.mark.parametrize(
    ("key", "member"),
    [
        (key, name)
        for key, form in app_services.form_of_service().fields.items()
        for name in (form.members or form).fields
        if name != "path"
    ],
)
def test_a_member_that_is_null_is_left_out(key: str, member: str) -> None:
    found = service_of({}, {key: [{member: None}] if app_services.known_keys()[key]["type"] == "list" else {member: None}})[key]
    assert found in ({}, [{}])


def test_a_service_may_be_where_nginx_reaches_it_or_have_no_routes() -> None:
    assert f"networks: [{', '.join(app_services.BALANCER_NETWORKS)}]" in (ROOT / "roles/nginx/vars/main.yml").read_text()
    known = ("frontend", "backend", "database", "peers")

    def unreached(name: str, **keys: Any) -> list[tuple[str, str]]:
        described = PRODUCT["app_services"]
        return app_services.unreached({"app_services": {**described, name: {**described[name], **keys}}}, known)

    how = "alone, where nginx is not: add frontend or backend to networks"
    assert unreached("api", networks=["database"]) == [("app_services.api", f"has routes and is in database {how}")]
    assert unreached("api", networks=["database", "peers"]) == [("app_services.api", f"has routes and is in database and peers {how}")]
    assert unreached("api", networks=["frontend"]) == unreached("api", networks=["database", "backend"]) == []
    assert unreached("api", networks=["database"], routes=[]) == unreached("mailer", networks=["database"]) == []


def test_a_job_of_several_hosts_without_a_database_is_refused() -> None:
    groups = {"app": ["app1", "app2"], "night": ["app2"]}
    jobs = {name: {"image": "shop/tools:1", "schedule": "daily", "hosts": name} for name in groups}
    product = {"app_services": {**PRODUCT["app_services"], **jobs}}
    assert [where for where, _text in app_services.unclaimed_jobs(product, groups, shared=False)] == ["app_services.app.schedule"]
    assert app_services.unclaimed_jobs(product, groups, shared=True) == []


def test_a_release_does_not_wait_for_a_job() -> None:
    """Values that all services share, such as a port, do not make it a web service."""
    job = {"image": "shop/tools:1", "schedule": ["Mon 03:00", "daily"], "deadline_seconds": 60}
    product = {"app_services": {**PRODUCT["app_services"], "cleanup": job}, "app_defaults": {"retire": "drain"}}
    assert app_services.mistakes(product) == []
    assert app_services.summary(product, "shop", "blue") == app_services.summary(PRODUCT, "shop", "blue")
    assert app_services.published_ports(product, "10.0.0.2", []) == app_services.published_ports(PRODUCT, "10.0.0.2", [])
    assert app_services.jobs(product) == {"cleanup": {"schedule": ["Mon 03:00", "daily"], "concurrency": "forbid", "deadline_seconds": 60}}
    declared = app_services.declarations(product, SETTINGS)
    assert declared[:-1] == app_services.declarations(PRODUCT, SETTINGS), "it takes no memory of the others"
    assert (declared[-1]["name"], declared[-1]["container"], declared[-1]["labels"]["slipway.job"]) == (
        "cleanup-blue-1",
        "created",
        "cleanup",
    )


def test_overrides_of_no_service_and_a_product_without_one_are_refused() -> None:
    assert app_services.mistakes(PRODUCT, "10.0.0.1") == []
    [(where, text)] = app_services.mistakes({**PRODUCT, "app_service_overrides": {"apj": {}}})
    assert (where, text.partition(",")[0]) == ("app_service_overrides", "names the service apj")
    assert app_services.mistakes({"app_services": {}})[0][0] == "app_services"


def test_each_key_of_a_service_has_a_form() -> None:
    """What is documented is what is checked, in the same order."""
    forms = yaml.safe_load((ROOT / "roles/app/meta/forms.yml").read_text())["app_services"]["map"]["values"]["fields"]
    assert list(forms) == list(app_services.known_keys())
