# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows from the descriptions of services and an inventory, for the collection's own services and for one that a user adds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.slipway.stack.plugins.plugin_utils.topology import Topology, described, services
from conftest import ROOT, Run, ansible, role_variable

#: A store with a port, a secret and a volume.
SEARCH = {
    "group": "search",
    "turn": 35,
    "images": ["search_image"],
    "ports": [{"variable": "search_port", "peers": ["app"]}],
    "networks": ["database"],
    "secrets": [{"name": "vault_search_key"}, {"name": "vault_search_backup_key", "needed_with": "backup"}],
    "store": {"volume": "search_volume"},
}
INPUTS: dict[str, dict[str, Any]] = {
    "search_image": {"type": "str", "default": "search:1", "description": "Image."},
    "search_port": {"type": "int", "default": 7700, "description": "Port."},
    "search_volume": {"type": "str", "default": "search_data", "description": "Volume."},
    "search_memory_mb": {"type": "int", "default": 256, "description": "Limit."},
    "search_key": {"type": "str", "required": True, "no_log": True, "description": "Key."},
}
GROUPS = {
    "balancers": ["lb1"],
    "app": ["app1", "app2"],
    "postgres": ["db1"],
    "redis": ["db1"],
    "backup": ["backup1"],
    "registry": ["lb1"],
    "external_probes": ["other1"],
}
ADDRESSES = {host: f"10.0.0.{number}" for number, host in enumerate(sorted({host for hosts in GROUPS.values() for host in hosts}), 1)}


def write_role(folder: Path, description: Any) -> Path:
    """Write a role that describes a service, and whose declaration is what the other roles' are."""
    service = {
        "name": "search",
        "image": "{{ search_image }}",
        "networks": ["database"],
        "volumes": [{"name": "{{ search_volume }}", "path": "/data", "variable": "search_volume"}],
        "healthcheck": {"test": ["CMD", "true"]},
        "memory_mb": "{{ search_memory_mb }}",
    }
    files = {
        "meta/service.yml": description,
        "meta/argument_specs.yml": {"argument_specs": {"main": {"short_description": "Run search.", "options": INPUTS}}},
        "defaults/main.yml": {name: spec["default"] for name, spec in INPUTS.items() if "default" in spec},
        "vars/main.yml": {"__search_services": [service]},
        "tasks/main.yml": [{"name": "Run search", "ansible.builtin.debug": {"msg": "search"}}],
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def topology(here: str, values: dict[str, Any] | None = None, **more: list[str]) -> Topology:
    """Return the topology that a host sees, with a port, a volume and an image for each service."""
    known = {"search_port": 7700, "postgres_port": 5432, "redis_port": 6379, "restore_port": 8790, **(values or {})}

    def value(host: str, name: str, **_how: Any) -> Any:
        if name == "slipway_address":
            return ADDRESSES[host]
        return known.get(name, name if name.endswith(("_image", "_volume")) else [] if name.endswith(("_ports", "_images")) else None)

    return Topology(services(), {**GROUPS, **more}, here, value)


def test_a_service_is_reached_by_name_on_its_host_and_by_address_from_others():
    assert topology("db1").address("postgres") == "postgres"
    assert topology("app1").address("postgres") == ADDRESSES["db1"]


@pytest.mark.parametrize(("port", "published"), [(0, []), ("0", []), (8444, [8444])])
def test_a_port_of_zero_is_not_published(port: object, published: list[object]):
    values = {"slipway_open_ports": [], "nginx_http_port": 80, "nginx_https_port": 443, "nginx_proxy_protocol_port": port}
    found = topology("lb1", values).published_ports()
    assert [item["port"] for item in found if item["variable"] == "nginx_proxy_protocol_port"] == published


def test_a_port_is_published_for_the_hosts_that_need_it_alone():
    (found,) = [port for port in topology("db1").published_ports() if port["variable"] == "postgres_port"]
    assert (found["address"], found["port"]) == (ADDRESSES["db1"], 5432)
    assert found["peers"] == [ADDRESSES[host] for host in ("app1", "app2", "backup1")]
    everywhere = {group: ["db1"] for group in GROUPS}
    alone = topology("db1", **everywhere)
    assert alone.publish_address("postgres") == ""
    assert not [port for port in alone.published_ports() if port["variable"] == "postgres_port"]


@pytest.mark.parametrize("here", ["db1", "backup1"])
def test_restricted_ports_are_what_the_role_of_the_firewall_takes(root: Path, here: str):
    """Role host refuses a key that it does not know, once the run has begun to change hosts."""
    specification = yaml.safe_load((root / "roles/host/meta/argument_specs.yml").read_bytes())["argument_specs"]["main"]
    ports = topology(here).restricted_ports()
    assert ports
    assert not ArgumentSpecValidator(specification["options"]).validate({"host_restricted_ports": ports}).error_messages


def test_the_inventory_names_a_host_where_ansible_and_the_other_hosts_reach_it():
    found = topology("db1", {"ansible_host": "shop.example"}).named_addresses()
    assert found["app1"] == ["shop.example", ADDRESSES["app1"]]
    assert set(found) == set(ADDRESSES) - {"other1"}
    assert topology("db1").named_addresses()["app1"] == ["app1", ADDRESSES["app1"]]


def test_a_host_needs_the_images_of_its_services_and_a_backup_host_those_of_the_stores():
    assert topology("db1").images() == ["postgres_image", "redis_image"]
    assert topology("backup1").images() == ["backup_image", "postgres_image", "redis_image"]
    assert topology("other1").images() == []


MESH = {"slipway_mesh": True, "slipway_mesh_range": "10.210.0.0/16", "slipway_mesh_port": 51820, "slipway_stack": "shop"}


def test_services_listen_in_the_mesh_and_their_former_address_stays_closed_to_others():
    here = topology("db1", MESH)
    own = here.service_address()
    assert own.startswith("10.210.")
    assert topology("app1", MESH).address("postgres") == own
    assert here.publish_address("postgres") == own
    ports = [port for port in here.restricted_ports() if port["port"] == 5432]
    assert [port["address"] for port in ports] == [own, ADDRESSES["db1"]]
    assert ports[0]["peers"] == [here.service_address(host) for host in ("app1", "app2", "backup1")]
    assert ports[1]["peers"] == [ADDRESSES[host] for host in ("app1", "app2", "backup1")]
    assert set(here.client_addresses("app")) == {*ports[0]["peers"][:2], *ports[1]["peers"][:2]}


def test_an_address_in_the_mesh_stays_while_other_hosts_come_and_go():
    assert topology("db1", MESH).service_address() == topology("db1", MESH, app=["app0", "app1"], backup=[]).service_address()
    assert topology("db1", {**MESH, "slipway_mesh_address": "10.210.0.7"}).service_address() == "10.210.0.7"


def test_the_owners_of_slots_are_named_in_one_place_alone():
    """A slot that a list of its own leaves out is neither stopped by a restore nor asked whether it is healthy."""
    assert topology("app1").slot_owners() == ["app-blue", "app-green"]
    assert topology("app1").slot_owners("green") == ["app-blue"]
    files = [*ROOT.glob("roles/**/*.yml"), *ROOT.glob("plugins/*_utils/*.py"), *ROOT.glob("playbooks/**/*.yml")]
    literal = re.compile(r"app-(blue|green)\b|f\"app-|\(\"blue\", \"green\"\)")
    found = [str(path.relative_to(ROOT)) for path in files if literal.search(path.read_text(encoding="utf-8"))]
    assert found == ["plugins/module_utils/containers.py"]


def test_the_mesh_has_all_hosts_that_run_a_service_and_one_host_alone_has_none():
    here = topology("db1", MESH).mesh()
    assert (here["interface"], here["prefix"], here["endpoint"], here["port"]) == ("sw-shop", 16, ADDRESSES["db1"], 51820)
    assert {peer["host"] for peer in here["peers"]} == {"lb1", "app1", "app2", "backup1"}
    ports = {"slipway_open_ports": [], "nginx_http_port": 80, "nginx_https_port": 443, "nginx_proxy_protocol_port": 0}
    assert {"protocol": "udp", "port": 51820} in topology("db1", {**MESH, **ports}).declared_ports()["app1"]
    assert {"protocol": "udp", "port": 51820, "address": ""} in topology("app1", {**MESH, **ports}).declared_listeners()
    assert "vault_mesh_preshared_secret" in topology("db1", MESH).secrets()
    for alone in (topology("db1"), topology("db1", MESH, **{group: ["db1"] for group in GROUPS}), topology("other1", MESH)):
        assert alone.mesh() == {}
    assert "vault_mesh_preshared_secret" not in topology("db1").secrets()


def test_hosts_of_other_groups_do_not_make_a_stack_of_several():
    alone = {group: ["db1"] for group in GROUPS}
    assert topology("db1").several_hosts()
    assert not topology("db1", **{**alone, "registry": ["lb1"], "external_probes": ["other1"]}).several_hosts()


def test_ways_are_tried_with_and_without_the_mesh_that_a_run_is_to_bring():
    (redis,) = [connection for connection in topology("app1", MESH).connections("backup1") if connection["service"] == "redis"]
    assert redis["addresses"] == [f"{topology('db1', MESH).service_address()}:6379", f"{ADDRESSES['db1']}:6379"]


def test_what_is_built_where_no_registry_has_it_belongs_to_a_service_with_a_host():
    (build,) = topology("app1").builds()
    assert (build["name"], build["variable"]) == ("backup_image", "backup_image")
    assert (Path(build["folder"]) / "Dockerfile").is_file()
    assert topology("app1", backup=[]).builds() == []


def test_who_runs_what_has_each_service_with_a_host_and_the_group_of_each():
    found = {item["role"]: item for item in topology("app1").who_runs_what()}
    assert found["redis"] == {"role": "redis", "essential": True, "hosts": {"redis": ["db1"]}, "always": True}
    assert {role for role in found if not found[role]["always"]} >= {"jobs", "watchdog"}
    assert found["backup"]["essential"] is False
    assert "registry" not in found
    assert "redis" not in [item["role"] for item in topology("app1", redis=[]).who_runs_what()]


def test_each_host_runs_the_exporters_of_its_services_once_a_host_monitors():
    ports = {f"slipway_{name}_exporter_port": port for port, name in enumerate(["node", "nginx", "postgres", "redis"], 9100)}
    commands = {f"slipway_{name}_exporter": {"command": [name]} for name in ["node", "nginx", "postgres", "redis"]}
    values = {**ports, **commands}
    assert topology("db1", values).exporters() == []
    db = topology("db1", values, monitoring=["backup1"])
    assert [item["command"] for item in db.exporters()] == [["postgres"], ["redis"], ["node"]]
    assert db.exporter_networks() == ["database"]
    assert [port["port"] for port in db.exporter_ports()] == [9102, 9103, 9100]
    assert db.peers("exporters") == [ADDRESSES["backup1"]]
    seen = topology("backup1", values, monitoring=["backup1"]).scrape_targets()
    assert {item["host"] for item in seen if item["role"] == "exporters"} == {host for host in ADDRESSES if host != "other1"}
    assert {item["address"] for item in seen if item["host"] == "backup1"} == {"exporters:9100"}
    (postgres,) = [item for item in seen if item["role"] == "postgres"]
    assert postgres == {"role": "postgres", "host": "db1", "address": f"{ADDRESSES['db1']}:9102", "path": "/metrics"}


def test_a_service_reports_of_itself_on_its_host():
    assert topology("app1").reports() == {}
    assert topology("app1").reports("backup1") == topology("backup1").reports() == {"backup": "volume:backup_volume/report.json"}


def test_ways_lead_to_the_published_ports_of_other_hosts_and_on_one_host_to_none():
    found = [(connection["client"], connection["service"], connection["server"]) for connection in topology("app1").connections()]
    assert ("app", "redis", "db1") in found
    (redis,) = [connection for connection in topology("app1").connections("backup1") if connection["service"] == "redis"]
    assert redis == {"client": "backup", "service": "redis", "server": "db1", "addresses": [f"{ADDRESSES['db1']}:6379"]}
    alone = topology("db1", **{group: ["db1"] for group in GROUPS}).connections()
    assert ("nginx", "app") in {(connection["client"], connection["service"]) for connection in alone}
    assert {address for connection in alone for address in connection["addresses"]} == set()


def test_a_secret_is_needed_where_its_service_and_the_other_one_have_a_host():
    names = topology("app1").secrets()
    assert {"vault_postgres_backup_password", "vault_backup_offsite_password"} <= set(names)
    assert not {"vault_postgres_backup_password", "vault_backup_offsite_password"} & set(topology("app1", backup=[]).secrets())
    assert not [name for name in topology("app1", redis=[]).secrets() if "redis" in name]


@pytest.mark.parametrize(
    ("volume", "kept"),
    [
        ({"name": "uploads", "path": "/u"}, True),
        ({"name": "uploads", "path": "/u", "mode": "rw", "backup": True}, True),
        ({"name": "uploads", "path": "/u", "backup": False}, False),
        ({"name": "uploads", "path": "/u", "backup": "no"}, False),
        ({"name": "uploads", "path": "/u", "mode": "ro"}, False),
        ("uploads:/u", False),
    ],
)
def test_what_the_product_writes_is_backed_up_unless_the_inventory_says_no(volume: Any, kept: bool):
    # A second service that only reads it changes nothing.
    described = {"api": {"volumes": [volume]}, "worker": {"volumes": [{"name": "uploads", "path": "/u", "mode": "ro"}]}}
    values = {"app_services": described, "volume_server_port": 9873}
    expected = [
        {"host": "app1", "name": "uploads", "address": "volume-server", "port": 8873},
        {"host": "app2", "name": "uploads", "address": ADDRESSES["app2"], "port": 9873},
    ]
    seen = topology("app1", values)
    assert seen.backup_volumes() == expected * kept
    assert ("volumes" in seen.stores()) is kept
    assert topology("app1", values, backup=[]).backup_volumes() == []


@pytest.mark.parametrize("variable", ["app_services", "app_defaults", "app_service_overrides", "slipway_extra_services"])
@pytest.mark.parametrize(
    "value",
    [
        7,
        "text",
        ["api"],
        {"api": 7},
        {"api": {"volumes": 7, "backup": "x", "hosts": []}},
        {"api": {"volumes": "uploads:/u"}},
        {"api": {"volumes": [7, {}, {"path": "/u"}, {"name": "u", "path": "/u", "backup": [1]}]}},
        {"api": {"backup": {"command": ["dump"], "seconds": "soon", "paths": 7}, "volumes": [{"name": "u", "path": "/u"}]}},
    ],
)
def test_what_has_another_type_is_left_to_the_check_of_inputs(variable: str, value: Any):
    """Which asks for the secrets and groups first."""
    seen = topology("app1", {"app_services": {"api": {}}, "volume_server_port": 9873, variable: value})
    assert seen.secrets()
    assert seen.required_groups()
    assert seen.data_hosts()
    assert seen.data()
    assert seen.quiesced_volumes() == {}


def test_a_service_is_quiesced_for_volumes_that_are_copied_and_it_writes_to():
    volumes = [
        {"name": "uploads", "path": "/u"},
        {"name": "cache", "path": "/c", "backup": False},
        {"name": "shared", "path": "/s", "mode": "ro"},
    ]
    commands = {"before": ["freeze"], "after": ["thaw"]}
    writer = {"volumes": [{"name": "shared", "path": "/s"}]}
    values = {"app_services": {"api": {"volumes": volumes, "backup": commands}, "other": writer}, "volume_server_port": 9873}
    assert topology("app1", values).quiesced_volumes() == {"uploads": {"services": {"api": "api_quiesce"}, "seconds": 60}}
    assert topology("db1", values).quiesced_volumes() == {}
    # By what services learn of a copy is left out.
    assert [item["name"] for item in topology("app1", values).backup_volumes() if item["host"] == "app1"] == ["uploads", "shared"]


def test_services_that_share_a_volume_are_quiesced_together():
    shared, own = {"name": "uploads", "path": "/u"}, {"name": "index", "path": "/i"}
    commands = {"before": ["freeze"], "after": ["thaw"]}
    described = {
        "api": {"volumes": [shared], "backup": {**commands, "seconds": 20}},
        "worker": {"volumes": [shared, own], "backup": {**commands, "seconds": 90}},
        "reader": {"volumes": [{**shared, "mode": "ro"}, own], "backup": commands},
        "mailer": {"volumes": [shared]},
    }
    assert topology("app1", {"app_services": described, "volume_server_port": 9873}).quiesced_volumes() == {
        "uploads": {"services": {"api": "api_quiesce", "worker": "worker_quiesce"}, "seconds": 90},
        "index": {"services": {"worker": "worker_quiesce", "reader": "reader_quiesce"}, "seconds": 90},
    }
    # Another stack of the host has services of these names.
    described["worker"]["backup"]["volume"] = "shop2_worker"
    named = topology("app1", {"app_services": described, "volume_server_port": 9873}).quiesced_volumes()
    assert named["uploads"]["services"] == {"api": "api_quiesce", "worker": "shop2_worker"}
    (server,) = role_variable(
        "volume_server", "__volume_server_services", {"volume_server_volumes": ["uploads", "index"], "volume_server_quiesced": named}
    )
    assert {volume["name"]: volume["path"] for volume in server["volumes"]} == {
        **{name: f"/volumes/{name}" for name in ("uploads", "index")},
        "api_quiesce": "/quiesced/api",
        "shop2_worker": "/quiesced/worker",
        "reader_quiesce": "/quiesced/reader",
    }


def test_volumes_of_extra_services_are_backed_up_and_restored_with_their_service():
    volumes = [{"name": "search_data", "path": "/d"}, {"name": "search_tmp", "path": "/t", "backup": False}]
    dumped = {"command": ["dump"], "restore_command": ["load"]}
    described = {"search": {"hosts": "external_probes", "volumes": volumes}, "mails": {"hosts": "external_probes", "backup": dumped}}
    values = {"slipway_extra_services": described, "volume_server_port": 9873}
    groups = {"extra": ["other1"]}
    data, dump = topology("backup1", values, **groups).backup_volumes()
    assert data == {"host": "other1", "name": "search_data", "service": "search", "address": ADDRESSES["other1"], "port": 9873}
    assert (dump["name"], dump["service"]) == ("mails_dump", "mails")
    of_data, of_dump = topology("other1", values, **groups).volumes()
    assert (of_data["key"], of_data["container"], of_data["restore_command"]) == ("volumes/other1/search_data", "search", [])
    assert (of_dump["container"], of_dump["role"], of_dump["restore_command"]) == ("mails", "slipway.stack.extra_services", ["load"])
    # From the tenth port on, which the backup host opens for that host alone.
    opened = {port["port"]: port["peers"] for port in topology("backup1", values, **groups).transfer_ports()}
    assert {8800: [ADDRESSES["other1"]], 8801: [ADDRESSES["other1"]]}.items() <= opened.items()
    assert [of_data["port"], of_dump["port"]] == [8800, 8801]


def test_which_hosts_hold_data_is_known_without_backups():
    volumes = [
        {"name": "uploads", "path": "/u"},
        {"name": "cache", "path": "/c", "backup": False},
        {"name": "logs", "path": "/l", "mode": "ro"},
    ]
    dumped = {"hosts": "extra", "volumes": [{"name": "search_data", "path": "/d"}], "backup": {"command": ["dump"]}}
    values = {"app_services": {"api": {"volumes": volumes}}, "slipway_extra_services": {"search": dumped}}
    seen = topology("lb1", values, extra=["other1"], backup=[])
    stores = {role: seen.hosts(role) for role in ("postgres", "redis")}
    assert seen.data() == {**stores, "search_data": ["other1"], "uploads": ["app1", "app2"]}
    assert "redis" not in topology("lb1", values, redis=[]).data()


@pytest.mark.parametrize(
    ("backup", "dumped"),
    [({}, {}), ({"paths": ["/a", "/b"]}, {}), ({"command": ["dump"], "volume": "twice", "paths": ["/a"]}, {"seconds": 600})],
)
def test_a_volume_is_backed_up_once_however_often_it_is_mounted(backup: dict[str, Any], dumped: dict[str, Any]):
    """The copy of it would find the folder of the first one, and the server of the volumes a mount of the same name."""
    twice = [{"name": "twice", "path": "/a"}, {"name": "twice", "path": "/b"}]
    values = {"app_services": {"api": {"volumes": [{**volume, "name": "uploads"} for volume in twice]}}, "volume_server_port": 9873}
    described = {"search": {"hosts": "external_probes", "volumes": twice, "backup": backup}}
    found = topology("other1", {**values, "slipway_extra_services": described}, extra=["other1"]).backup_volumes()
    assert [(item["host"], item["name"]) for item in found] == [("app1", "uploads"), ("app2", "uploads"), ("other1", "twice")]
    assert found[-1] == {"host": "other1", "name": "twice", "service": "search", "address": "volume-server", "port": 8873, **dumped}


def test_what_build_brings_is_removed_with_the_stack_and_no_part_of_it_otherwise():
    seen = topology("lb1")
    assert "lb1" in seen.hosts("registry")
    assert "registry" not in [item["role"] for item in seen.turns()] + seen.service_groups() + [item["role"] for item in seen.roles()]
    assert "registry" in seen.service_groups("role", "release", "build")
    assert "other1" not in seen.members("role", "release", "build")


#: Services that belong to no version: on a host of its own, on one of the product's hosts, on all of them, and one without a port.
EXTRA = {
    "search": {"port": 7700, "publish_port": 17700, "hosts": "external_probes"},
    "mails": {"port": 25, "hosts": "first"},
    "cache": {"port": 6379},
    "agent": {"hosts": "external_probes"},
}


def extra_topology(here: str) -> Topology:
    return topology(here, {"slipway_extra_services": EXTRA}, first=["app1"], extra=["other1"])


def test_an_extra_service_is_reached_by_name_on_its_host_and_by_address_from_others():
    assert extra_topology("other1").extra_addresses()["search"] == {"host": "search", "port": 7700}
    seen = extra_topology("app2").extra_addresses()
    assert seen == {
        "search": {"host": ADDRESSES["other1"], "port": 17700},
        "mails": {"host": ADDRESSES["app1"], "port": 25},
        "cache": {"host": "cache", "port": 6379},
    }
    needed = [(item["address"], item["port"]) for item in extra_topology("app2").needed_addresses()]
    assert {(ADDRESSES["other1"], 17700), (ADDRESSES["app1"], 25)} <= set(needed)
    assert not [item for item in extra_topology("lb1").needed_addresses() if "extra" in item["variable"]]


def test_an_extra_service_is_published_for_hosts_of_the_product_that_do_not_run_it():
    (search,) = extra_topology("other1").extra_ports()
    assert (search["address"], search["port"], search["container_port"]) == (ADDRESSES["other1"], 17700, 7700)
    assert search["peers"] == [ADDRESSES["app1"], ADDRESSES["app2"]]
    assert search["variable"] == "slipway_extra_services.search.publish_port"
    (mails,) = extra_topology("app1").extra_ports()
    assert (mails["service"], mails["peers"]) == ("mails", [ADDRESSES["app2"]])
    assert extra_topology("app2").extra_ports() == []


@pytest.mark.parametrize("here", ["app1", "other1"])
def test_restricted_ports_of_extra_services_are_what_the_role_of_the_firewall_takes(root: Path, here: str):
    specification = yaml.safe_load((root / "roles/host/meta/argument_specs.yml").read_bytes())["argument_specs"]["main"]
    values = {"slipway_extra_services": EXTRA, "slipway_extra_ports": extra_topology(here).extra_ports()}
    ports = topology(here, values, first=["app1"], extra=["other1"]).restricted_ports()
    assert {port["port"] for port in values["slipway_extra_ports"]} <= {port["port"] for port in ports}
    assert not ArgumentSpecValidator(specification["options"]).validate({"host_restricted_ports": ports}).error_messages


def test_hosts_of_group_extra_run_the_services_of_that_group():
    roles = {(item["group"], item["role"]) for item in extra_topology("lb1").roles()}
    assert {("extra", "extra_services"), ("app", "extra_services"), ("extra", "host"), ("extra", "volume_server")} <= roles
    assert "other1" in extra_topology("lb1").members()


def test_a_service_that_runs_everywhere_runs_on_all_hosts_of_other_services():
    seen = topology("app1", registry=["registry1"])
    assert set(seen.hosts("watchdog")) == set(seen.members()) == {"lb1", "app1", "app2", "db1", "backup1"}


def test_a_service_without_a_description_is_named():
    with pytest.raises(AnsibleError, match="no role serach describes a service; described are: postgres, redis"):
        topology("app1").address("serach")


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (["search"], "must be a dictionary"),
        ({"turn": 1}, "missing required arguments: group"),
        ({**SEARCH, "prots": []}, "prots"),
        ({**SEARCH, "turn": "early"}, "turn"),
        ({**SEARCH, "changed_by": "hand"}, "must be one of: role, release, build"),
        ({**SEARCH, "ports": [{"peers": ["app"]}]}, "missing required arguments: variable"),
        ({**SEARCH, "store": {"volume": "search_volume", "in_recovery_points": True}}, "the backup program cannot read the store search"),
    ],
)
def test_a_description_that_is_wrong_is_refused_with_its_file(tmp_path: Path, description: Any, expected: str):
    with pytest.raises(AnsibleError) as caught:
        described(write_role(tmp_path / "search", description))
    assert str(tmp_path / "search/meta/service.yml") in str(caught.value)
    assert expected in str(caught.value)


# A service of a user's own


@pytest.fixture
def added(checkout: Path, tmp_path: Path) -> Path:
    """The checkout with a role in a folder of its own, and an inventory that has a host for it."""
    write_role(tmp_path / "roles/search", SEARCH)
    (checkout / "inventories/test/group_vars/all/10_environment.yml").unlink()
    groups = {"balancers": "web", "app": "web", "search": "search1"}
    hosts = {group: {"hosts": {host: {}}} for group, host in groups.items()}
    addresses = {"web": "10.0.0.1", "search1": "10.0.0.2"}
    inventory = {
        "all": {
            "vars": {"slipway_mesh": False, "ansible_connection": "local", "vault_app_secret_key": "t7Hq2Lw9Zx4Nv6Bk8Mr3"},
            "hosts": {host: {"slipway_address": address} for host, address in addresses.items()},
            "children": hosts,
        }
    }
    (checkout / "inventories/test/hosts.yml").write_text(yaml.safe_dump(inventory))
    return tmp_path / "roles"


def answers(checkout: Path, added: Path, host: str, **asked: str) -> dict[str, Any]:
    """Return what expressions are on a host."""
    task = {"name": "Ask", "ansible.builtin.copy": {"content": "{{ asked | to_json }}", "dest": "{{ playbook_dir }}/answers.json"}}
    play = {"hosts": host, "gather_facts": False, "vars": {"asked": asked}, "tasks": [task]}
    (checkout / "playbooks/ask.yml").write_text(json.dumps([play]))
    done = ansible("ansible-playbook", "playbooks/ask.yml", "-i", "inventories/test", cwd=checkout, ANSIBLE_ROLES_PATH=str(added))
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((checkout / "playbooks/answers.json").read_text())
    return found


def test_a_service_of_ones_own_is_one_role(checkout: Path, added: Path):
    """The product's host reaches it and no other; it is published for that host, run in its turn, and its host is prepared."""
    asked = {
        "address": "{{ lookup('slipway.stack.topology', 'address', 'search') }}",
        "needed": "{{ slipway_needed_addresses }}",
        "secrets": "{{ slipway_secrets }}",
        "turns": "{{ lookup('slipway.stack.topology', 'turns') }}",
        "roles": "{{ lookup('slipway.stack.topology', 'roles') }}",
    }
    seen = answers(checkout, added, "web", **asked)
    assert seen["address"] == "10.0.0.2"
    assert [(item["group"], item["address"], item["port"]) for item in seen["needed"]] == [("search", "10.0.0.2", 7700)]
    assert "vault_search_key" in seen["secrets"]
    assert "vault_search_backup_key" not in seen["secrets"]
    assert {"role": "search", "name": "search", "essential": True} in seen["turns"]
    assert all({"group": "search", "role": role} in seen["roles"] for role in ("search", "host", "watchdog"))
    there = answers(checkout, added, "search1", firewall="{{ slipway_restricted_ports }}", images="{{ slipway_images }}")
    assert [(port["address"], port["port"], port["peers"]) for port in there["firewall"]] == [("10.0.0.2", 7700, ["10.0.0.1"])]
    assert there["images"] == ["search:1"]


def test_a_stack_of_several_hosts_has_a_mesh_unless_it_says_otherwise(checkout: Path, added: Path):
    asked = {"mesh": "{{ slipway_mesh }}", "secrets": "{{ slipway_secrets }}", "address": "{{ slipway_service_address }}"}
    off = answers(checkout, added, "web", **asked)
    assert (off["mesh"], off["address"]) == (False, "10.0.0.1")
    assert "vault_mesh_preshared_secret" not in off["secrets"]
    hosts = checkout / "inventories/test/hosts.yml"
    inventory = yaml.safe_load(hosts.read_text())
    del inventory["all"]["vars"]["slipway_mesh"]
    hosts.write_text(yaml.safe_dump(inventory))
    several = answers(checkout, added, "web", **asked)
    assert several["mesh"] is True
    assert several["address"].startswith("10.210.")
    assert "vault_mesh_preshared_secret" in several["secrets"]
    # The other host is none of the stack's any more.
    inventory["all"]["children"]["external_probes"] = inventory["all"]["children"].pop("search")
    hosts.write_text(yaml.safe_dump(inventory))
    alone = answers(checkout, added, "web", **asked)
    assert (alone["mesh"], alone["address"]) == (False, "10.0.0.1")


@pytest.mark.parametrize("playbook", ["site", "destroy"])
def test_playbooks_work_on_the_hosts_of_a_service_of_ones_own(play: Run, added: Path, playbook: str):
    done = play(playbook, "--list-hosts", ANSIBLE_ROLES_PATH=str(added))
    assert "search1" in done.stdout, done.stdout + done.stderr


def test_the_inputs_of_a_service_of_ones_own_are_checked(checkout: Path, play: Run, added: Path):
    """Its secret and its inputs, their names too, before a host is asked."""
    own = checkout / "inventories/test/group_vars/all/own.yml"
    own.write_text(json.dumps({"search_port": "many", "search_memroy_mb": 1}))
    done = play("site", ANSIBLE_ROLES_PATH=str(added))
    told = " ".join(done.stdout.split())
    assert done.returncode != 0
    for expected in ("vault_search_key", "search_key is required by role search", "search_port", "search_memroy_mb"):
        assert expected in told, told


def test_each_certificate_of_a_balancer_is_probed_by_a_name():
    values = {
        "nginx_https_port": "443",
        "slipway_site_name": "shop.example",
        "nginx_server_names": ["shop.example", "docs.example"],
        "nginx_redirects": [{"from": "old.example", "to": "shop.example"}],
        "nginx_certificates": [{"names": ["docs.example"]}, {"names": ["old.example"]}],
    }
    here = {"monitoring": ["backup1"], "balancers": ["lb1", "app1"]}
    assert topology("backup1", values, **here).edges() == [
        {"host": host, "address": f"{ADDRESSES[host]}:443", "names": ["docs.example", "old.example"]} for host in ("lb1", "app1")
    ]
    # Reported by the check of the inputs.
    for wrong in ([{}], ["docs.example"], [{"names": ["not a name"]}]):
        assert topology("backup1", {**values, "nginx_certificates": wrong}, **here).edges()[0]["names"] == []


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        ([], "localhost"),
        (["shop.example", "localhost"], "shop.example"),
        ([".example.test", "localhost"], "localhost"),
        ([".example.test"], "example.test"),
        (["*.example.test"], "www.example.test"),
        (["~^shop", "_"], "localhost"),
    ],
)
def test_the_prober_asks_for_a_name_that_a_client_could_ask_for(names: list[str], asked: str):
    values = {"slipway_probe_address": "10.0.0.1", "slipway_probe_port": "443", "nginx_server_names": names}
    (target,) = topology("app1", values, balancers=["lb1"]).probe_targets()
    assert target == {"address": "10.0.0.1", "port": 443, "server_name": asked}
