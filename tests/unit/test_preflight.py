from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.slipway.stack.plugins.action.preflight import ActionModule as PreflightAction
from ansible_collections.slipway.stack.plugins.filter.firewall import firewall_rules
from ansible_collections.slipway.stack.plugins.plugin_utils import plan, preflight
from ansible_collections.slipway.stack.plugins.plugin_utils.plan import DeclarationError
from ansible_collections.slipway.stack.plugins.plugin_utils.preflight import Problem
from conftest import ROOT

GOOD: dict[str, Any] = {
    "host": {
        "hostname": "one",
        "machine_id": "1",
        "distribution": "debian",
        "distribution_version": "12",
        "architecture": "x86_64",
        "memory_mb": 2000,
        "disks": {"/var/lib/docker": {"total_mb": 50000, "free_mb": 40000}},
    },
    "containers": {},
    "images": {},
    "missing_images": {},
    "listening": {},
    "reach": {},
}


def texts(problems: list[Problem]) -> str:
    return "\n".join(problem.text for problem in problems)


def state(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **{key: value for key, value in changes.items() if key in GOOD}, "host": {**GOOD["host"], **changes.get("host", {})}}


def test_hosts_with_one_problem_share_its_line():
    message = preflight.message_of([Problem("b", "is small"), Problem("", "no group"), Problem("a", "is small"), Problem("a", "is small")])
    assert message.splitlines() == ["Preflight found 2 problems; nothing was touched.", "- hosts b, a: is small", "- no group"]


def test_a_good_host_has_no_problem():
    assert preflight.check_host("one", GOOD) == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"distribution": "fedora", "distribution_version": "44"}, "runs fedora 44, which is not supported; supported are Debian 12, 13"),
        ({"distribution": "debian", "distribution_version": "11"}, "runs debian 11"),
        ({"distribution": "", "distribution_version": ""}, "an unknown system"),
        ({"architecture": "armv6l"}, "architecture armv6l"),
        ({"memory_mb": 512}, "has 512 MB of memory, and slipway_minimum_memory_mb asks for 1024 MB"),
        ({"disks": {"/var/lib/docker": {"free_mb": 4000}}}, "has 4000 MB free on the disk of /var/lib/docker, and 4096 MB are needed"),
    ],
)
def test_hosts_that_cannot_do_it_are_named_with_the_reason(facts: dict[str, Any], said: str):
    problems = preflight.check_host("one", state(host=facts))
    assert len(problems) == 1
    assert said in problems[0].text


def test_a_host_that_runs_the_stack_needs_room_to_go_on_only():
    used = {"disks": {"/var/lib/docker": {"free_mb": 2000}}}
    assert preflight.check_host("one", state(host=used))
    assert not preflight.check_host("one", state(host=used, containers={"redis": {}}))
    assert preflight.check_host("one", state(host={"disks": {"/": {"free_mb": 900}}}, containers={"redis": {}}))


def test_each_disk_that_is_full_is_named_once():
    """Images that containerd stores are not on the disk of the engine's data, unless all are on one."""
    full, other = {"total_mb": 5000, "free_mb": 900}, {"total_mb": 9000, "free_mb": 900}
    where = {"/": {"total_mb": 9000, "free_mb": 8000}, "/var/lib/docker": full, "/var/lib/containerd": other}
    assert [problem.text.partition(",")[0] for problem in preflight.check_host("one", state(host={"disks": where}))] == [
        "has 900 MB free on the disk of /var/lib/containerd",
        "has 900 MB free on the disk of /var/lib/docker",
    ]
    assert len(preflight.check_host("one", state(host={"disks": dict.fromkeys(where, full)}))) == 1


def test_a_taken_port_names_who_has_it_and_the_variable():
    taken = state(listening={"443": [{"address": "0.0.0.0", "process": "apache2", "container": "", "ours": False}]})
    problems = preflight.check_ports("one", taken, [{"port": 443, "variable": "nginx_https_port"}])
    assert texts(problems) == (
        "port 443 (nginx_https_port) is taken by apache2, which is not part of the stack; stop it, or set nginx_https_port"
    )


@pytest.mark.parametrize(
    ("listener", "wanted", "taken"),
    [
        ({"address": "0.0.0.0", "ours": True}, {}, False),
        ({"address": "127.0.0.1", "ours": False}, {"address": "10.0.0.3"}, False),
        ({"address": "10.0.0.3", "ours": False}, {"address": "10.0.0.3"}, True),
        ({"address": "::", "ours": False}, {"address": "10.0.0.3"}, True),
        ({"address": "127.0.0.1", "ours": False}, {}, True),
        ({"address": "0.0.0.0", "container": "other", "ours": False}, {"address": "10.0.0.3"}, True),
        ({"address": "", "container": "other", "ours": False}, {"address": "10.0.0.3"}, True),
        ({"address": "127.0.0.1", "container": "other", "ours": False}, {"address": "10.0.0.3"}, False),
        ({"address": "10.0.0.3", "container": "other", "ours": False}, {"address": "10.0.0.3"}, True),
        ({"address": "127.0.0.1", "container": "other", "ours": False}, {"role": "nginx"}, False),
        ({"address": "10.0.0.5", "container": "other", "ours": False}, {"role": "nginx"}, True),
        ({"address": "10.0.0.5", "container": "other", "ours": False}, {"role": "another"}, True),
    ],
)
def test_a_port_is_taken_on_the_same_address_only(listener: dict[str, Any], wanted: dict[str, Any], taken: bool):
    port = {"port": 5432, "variable": "postgres_port", **wanted}
    own = {"address": wanted.get("address", ""), "ours": True}
    for listeners in ([listener], [listener, own], [own, listener], [{**listener, "address": "127.0.0.9"}, listener]):
        there = state(listening={"5432": listeners})
        taken_here = taken or ("role" not in wanted and "address" not in wanted and not listener["ours"])
        assert bool(preflight.check_ports("one", there, [port], {"nginx": "10.0.0.5"})) is taken_here


def test_a_program_that_listens_on_two_addresses_is_named_once():
    taken = [{"address": address, "process": "sshd", "container": "", "ours": False} for address in ("0.0.0.0", "::")]
    assert len(preflight.check_ports("one", state(listening={"22": taken}), [{"port": 22, "variable": "nginx_http_port"}])) == 1


def test_one_port_wanted_twice_is_reported():
    wanted = [{"port": 80, "variable": "a_port"}, {"port": 80, "variable": "b_port"}]
    assert "wanted by both a_port and b_port" in texts(preflight.check_ports("one", GOOD, wanted))
    assert not preflight.check_ports("one", GOOD, [{**wanted[0], "address": "10.0.0.1"}, {**wanted[1], "address": "10.0.0.2"}])


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_number_that_is_not_a_port_is_reported(port: int):
    problems = preflight.check_ports("one", GOOD, [{"port": port, "variable": "nginx_https_port"}])
    assert texts(problems) == f"nginx_https_port is {port}, and ports are from 1 to 65535; correct nginx_https_port"


def test_a_port_is_published_on_an_address_of_the_host():
    there = state(host={"addresses": ["127.0.0.1", "10.0.0.3"]})
    wanted = {"port": 5432, "variable": "postgres_port"}
    for address in ("10.0.0.3", "", "0.0.0.0", "127.0.0.2"):
        assert not preflight.check_ports("one", there, [{**wanted, "address": address}])
    said = texts(preflight.check_ports("one", there, [{**wanted, "address": "10.0.0.4"}]))
    assert "has no address 10.0.0.4" in said
    assert "correct its slipway_address" in said
    assert not preflight.check_ports("one", GOOD, [{**wanted, "address": "10.0.0.4"}])
    # A floating address that another host has at the moment.
    standby = state(host={"addresses": ["127.0.0.1", "10.0.0.3"], "nonlocal_bind": True})
    assert not preflight.check_ports("one", standby, [{**wanted, "address": "10.0.0.4"}])


@pytest.mark.parametrize(
    ("python", "requests", "refused"),
    [
        ("/opt/tools/bin/python3", False, True),
        ("/opt/tools/bin/python3", True, False),
        ("/usr/local/bin/python3", False, True),
        # For that one the role host installs it.
        ("/usr/bin/python3", False, False),
        ("", False, False),
    ],
)
def test_a_python_that_no_package_of_the_system_completes_is_refused(python: str, requests: bool, refused: bool):
    said = texts(preflight.check_python("one", {"host": {"python": python}, "tools": {"requests": requests}}))
    assert (f"its Python {python} lacks the library requests" in said) is refused
    assert ("set ansible_python_interpreter to /usr/bin/python3" in said) is refused


def test_a_limit_must_leave_a_host_on_which_the_playbook_works():
    targets = {"app": ["a1", "a2"], "balancers": ["lb"], "redis": []}
    assert not preflight.check_target("deploy", targets, {"a2", "db"}, "a2:db")
    assert not preflight.check_target("", {}, {"db"}, "db")
    said = texts(preflight.check_target("deploy", targets, {"db"}, "db"))
    assert said == "--limit db leaves out a1, a2, lb, on which deploy.yml works; leave --limit out, or name a1 or a2 or lb in it"


def test_a_container_gets_no_more_memory_than_its_host_has():
    assert not preflight.check_memory("one", GOOD, {"redis_memory_mb": 2000})
    said = texts(preflight.check_memory("one", GOOD, {"redis_memory_mb": 128, "postgres_memory_mb": 2001}))
    assert said.startswith("postgres_memory_mb asks for 2001 MB of memory, and the host has 2000 MB; lower postgres_memory_mb")


def test_a_host_is_only_judged_as_root():
    assert not preflight.check_root("one", GOOD)
    assert "set ansible_become: true" in texts(preflight.check_root("one", {"host": {"root": False}}))


def test_a_container_gets_no_more_cores_than_its_host_has():
    two = {"host": {"cores": 2}}
    assert not preflight.check_cores("one", two, {"redis_cpus": 2, "nginx_cpus": 0.5})
    said = texts(preflight.check_cores("one", two, {"redis_cpus": 1, "postgres_cpus": 2.5}))
    assert said.startswith("postgres_cpus asks for 2.5 cores, and the host has 2; lower postgres_cpus")
    # A host that says nothing has not been looked at.
    assert not preflight.check_cores("one", {}, {"redis_cpus": 1024})


def test_an_image_without_a_tag_names_its_variable_too():
    assert "correct redis_image" in texts(
        preflight.check_images("one", state(missing_images={"redis:latest": "unknown"}), {"redis": "redis_image"})
    )


def test_images_that_no_registry_has_name_their_variable():
    missing = state(missing_images={"redis:77": "manifest\n unknown", "nginx:1": ""})
    problems = preflight.check_images("one", missing, {"redis:77": "redis_image"})
    assert texts(problems).startswith(
        "image redis:77 (redis_image) is not on the host and cannot be pulled: manifest unknown; correct redis_image"
    )
    assert len(problems) == 1


#: As the engine passes it on.
HUB_DENIES = "errors:\ndenied: requested access to the resource is denied\nunauthorized: authentication required"


@pytest.mark.parametrize(
    ("image", "there", "expected"),
    [
        ("slipway/backup-tools:1", {"images": {"slipway/backup-tools:1": {"id": "sha256:1"}}}, False),
        # Whoever has that name in a registry, it is of other people.
        ("slipway/backup-tools:1", {"missing_images": {"slipway/backup-tools:1": ""}}, True),
        ("ops.example.com/tools:1", {"missing_images": {"ops.example.com/tools:1": ""}}, False),
        ("ops.example.com/tools:1", {"missing_images": {"ops.example.com/tools:1": "manifest unknown: manifest unknown"}}, True),
        # It may be there, and a build would replace it.
        ("ops.example.com/tools:1", {"missing_images": {"ops.example.com/tools:1": "unauthorized: authentication required"}}, False),
        ("ops.example.com/tools:1", {"missing_images": {"ops.example.com/tools:1": "dial tcp: i/o timeout"}}, False),
        ("ops.example.com/tools:1", {"missing_images": {"ops.example.com/tools:1": "toomanyrequests: rate limit"}}, False),
        ("slipway/backup-tools:1", {"missing_images": {"slipway/backup-tools:1": "pull access denied"}}, True),
        ("docker.io/slipway/backup-tools", {"missing_images": {"slipway/backup-tools:latest": "pull access denied"}}, True),
        # Docker Hub's answer, whether the name does not exist or is private; as nothing is pushed there, nothing is replaced.
        ("acme/tools:1", {"missing_images": {"acme/tools:1": HUB_DENIES}}, True),
        ("docker.io/acme/tools:1", {"missing_images": {"acme/tools:1": HUB_DENIES}}, False),
        ("ops.example.com/tools:1", {"missing_images": {"ops.example.com/tools:1": HUB_DENIES}}, False),
        ("acme/tools:1", {"missing_images": {"acme/tools:1": "unauthorized: incorrect username or password"}}, False),
        ("acme/tools:1", {"missing_images": {"acme/tools:1": "toomanyrequests: rate limit"}}, False),
        # No engine that could ask yet.
        ("slipway/backup-tools:1", {"engine": {"available": False}}, True),
        ("registry.example.com/backup-tools:1", {"engine": {"available": False}}, False),
        # Only a registry can have what a digest names.
        ("slipway/backup-tools@sha256:1f", {"missing_images": {"slipway/backup-tools@sha256:1f": "unknown"}}, False),
    ],
)
def test_an_image_of_the_collection_is_built_where_no_registry_has_it(image: str, there: dict[str, Any], expected: bool):
    assert preflight.must_be_built({"engine": {"available": True}, **there}, image) is expected


def test_a_version_that_is_not_available_is_named_with_all_places():
    missing = state(missing_images={"desk/backend:1.9": "pull access denied", "nginx:1.9": "unknown"})
    variables = {"desk/backend:1.9": "app_services.api.image", "nginx:1.9": "nginx_image"}
    product, other = (problem.text for problem in preflight.check_images("one", missing, variables, "1.9", {"1.10": {}, "1.8": {}}))
    assert product == (
        "version 1.9 is not available: image desk/backend:1.9 (app_services.api.image) is not on the host, was never built "
        "(recorded versions: 1.8, 1.10), and cannot be pulled: pull access denied; correct app_version, build the version "
        "(make image VERSION=1.9), or load its images on the host"
    )
    assert other.startswith("image nginx:1.9 (nginx_image) is not on the host and cannot be pulled: unknown; correct nginx_image")
    assert "(recorded versions: none)" in texts(preflight.check_images("one", missing, variables, "1.9"))
    # A version that was built before the service was renamed.
    (renamed, _other) = (problem.text for problem in preflight.check_images("one", missing, variables, "1.9", {"1.9": {"old": {}}}))
    assert "is not in the record of this version, and cannot be pulled: pull access denied; build the version again (make image" in renamed
    assert "never built" not in renamed


@pytest.mark.parametrize(
    ("image", "said", "too_old"),
    [
        ("nginx:1-alpine", "", ""),
        ("nginx:1-alpine", "1.31.2", ""),
        ("nginx:1-alpine", "1.27.3", "1.27.3"),
        ("nginx:1.27.4", "", ""),
        ("nginx:1.27-alpine", "", ""),
        ("nginx:1.26-alpine", "", "1.26"),
        ("registry.example/mirror/nginx:1.26.3@sha256:aa", "", "1.26.3"),
        # The number is that of a user's own image.
        ("registry.example/edge-proxy:1.2.0", "", ""),
    ],
)
def test_an_nginx_that_loses_requests_is_named(image: str, said: str, too_old: str):
    read = state(images={image: {"id": "sha256:1", "versions": {"nginx": said}}} if said else {})
    problems = preflight.check_nginx("one", read, {"nginx_image": image, "redis_image": "redis:6"})
    if said:
        # As the engine lists it.
        listed = preflight.check_nginx("one", read, {"nginx_image": f"docker.io/library/{image}"})
        assert len(listed) == len(problems)
    if too_old:
        assert f"image {image} (nginx_image) is nginx {too_old}, which loses requests" in texts(problems)
        assert "from 1.27.4 on" in texts(problems)
    else:
        assert problems == []


def test_an_address_out_of_reach_names_its_variable():
    read = state(reach={"10.0.0.9:5432": "unreachable: timed out", "10.0.0.9:8000": "open"})
    wanted = [{"address": "10.0.0.9", "port": port, "variable": f"v{port}"} for port in (5432, 8000)]
    said = texts(preflight.check_reach("one", read, wanted, {}))
    assert said.startswith("cannot reach 10.0.0.9:5432 (v5432): timed out; correct v5432")
    assert "8000" not in said


def store(
    running: bool = True, health: str = "healthy", binding: str = "10.0.0.9:5432", peers: tuple[str, ...] = ("10.0.0.1",)
) -> dict[str, Any]:
    """What is read on a host that publishes a store for its peers."""
    published = {"address": "10.0.0.9", "port": 5432, "peers": list(peers)}
    return {
        "host": {"addresses": ["10.0.0.9", "127.0.0.1"]},
        "containers": {"slipway-postgres": {"running": running, "health": health, "ports": {"5432/tcp": [binding]}}},
        "firewall": ["-N SLIPWAY-x", "-A DOCKER-USER -j SLIPWAY-x", *firewall_rules([published], "SLIPWAY-x")],
    }


@pytest.mark.parametrize(
    ("read", "admitted"),
    [
        # Not of this run, as an address outside of the inventory, or with --limit.
        ({}, False),
        ({"postgres": []}, False),
        # The address of a host without a database.
        ({"redis": [{"host": {"addresses": ["10.0.0.9"]}}]}, False),
        ({"postgres": [{"host": {"addresses": ["10.0.0.8"]}}]}, False),
        # Nothing there yet, nothing healthy, or on another port: this run changes that.
        ({"postgres": [{"host": {"addresses": ["10.0.0.9"]}, "containers": {}, "firewall": []}]}, True),
        ({"postgres": [store(running=False)]}, True),
        ({"postgres": [store(health="starting")]}, True),
        ({"postgres": [store(binding="10.0.0.9:5433")]}, True),
        # A host that was just added to the inventory is not allowed yet.
        ({"postgres": [store(peers=("10.0.0.2",))]}, True),
        # It is up and allows this host: this run would not change the refusal.
        ({"postgres": [store()]}, False),
        ({"postgres": [store(binding="0.0.0.0:5432")]}, False),
        ({"postgres": [store(peers=("10.0.0.0/24",))]}, False),
        ({"postgres": [{**store(), "firewall": []}]}, False),
        # An address that the client has too leads it to itself.
        ({"postgres": [{"host": {"addresses": ["10.0.0.9"]}}], "own": ["10.0.0.9"]}, False),
    ],
)
def test_a_refusal_is_accepted_only_where_this_run_ends_it(read: dict[str, Any], admitted: bool):
    client = state(reach={"10.0.0.9:5432": "refused"}, host={"addresses": ["10.0.0.1", "127.0.0.1", *read.get("own", ())]})
    wanted = [{"group": "postgres", "address": "10.0.0.9", "port": 5432, "variable": "slipway_postgres_host"}]
    said = texts(preflight.check_reach("one", client, wanted, read))
    assert (said == "") is admitted
    if not admitted:
        assert "cannot reach 10.0.0.9:5432 (slipway_postgres_host): it refuses the connection" in said
        assert "correct slipway_postgres_host" in said


def test_two_names_of_one_machine_and_one_name_of_two_machines():
    one, two, three = state(), state(host={"hostname": "two"}), state(host={"machine_id": "3"})
    problems = preflight.check_identities({"a": one, "b": two, "c": three})
    assert [(problem.host, problem.text.partition(";")[0]) for problem in problems] == [
        ("b", "is the same machine (machine-id 1) as host a"),
        ("c", "calls itself one, as host a does"),
    ]
    assert preflight.check_identities({"a": state(host={"machine_id": "", "hostname": "x"}), "b": state(host={"machine_id": ""})}) == []


def test_a_restore_that_died_is_ended_before_anything_else():
    mark = {"files": {"/etc/slipway/shop/restore/under_way.json": {}}}
    database = {"files": {"/etc/slipway/shop/restore/postgres.json": {}}}
    problems = preflight.check_restores({"db": database, "app1": mark, "app2": mark})
    assert [problem.host for problem in problems] == ["app1", "app2"]
    assert "restore_undo=true" in preflight.message_of(problems)
    assert preflight.check_restores({"db": database, "app1": {"files": {"/etc/slipway/shop/nginx/config/current": {}}}}) == []


def test_an_empty_group_suggests_the_one_that_was_meant():
    problems = preflight.check_groups({"all": ["a"], "balancer": ["a"], "app": []}, ["balancers", "app"])
    assert problems[0].text.startswith("group balancers has no host (did you mean balancer?)")
    assert problems[1].text.startswith("group app has no host;")


@pytest.mark.parametrize("name", ["chrma", "chromas", "Chroma", "chroma_servers", "chroma-host", "chrome"])
def test_a_group_that_may_be_left_out_is_not_left_out_by_a_slip(name: str):
    groups = {"all": ["a"], "balancers": ["a"], "app": ["a"], "redis": ["a"], name: ["a"]}
    problems = preflight.check_groups(groups, ["balancers", "app"], ["redis", "chroma"])
    assert [problem.text.partition(";")[0] for problem in problems] == [f"group {name} is none that Slipway knows (did you mean chroma?)"]


@pytest.mark.parametrize(
    "groups",
    [{}, {"chroma": []}, {"chroma": [], "chrma": ["a"]}, {"chrma": []}, {"monitoring": ["a"]}, {"cache": ["a"]}, {"lab_hosts": ["a"]}],
)
def test_a_group_may_be_left_out_or_be_empty(groups: dict[str, list[str]]):
    there = {"all": ["a"], "balancers": ["a"], "app": ["a"], **groups}
    assert preflight.check_groups(there, ["balancers", "app"], ["postgres", "redis", "chroma", "backup"]) == []


@pytest.mark.parametrize(
    ("here", "container", "group"),
    [
        ([], {"owner": "chroma", "running": True}, "chroma"),
        (["app"], {"owner": "chroma", "running": True}, "chroma"),
        (["chroma"], {"owner": "chroma", "running": True}, ""),
        ([], {"owner": "chroma", "running": False}, ""),
        (["nginx"], {"owner": "app-blue", "running": True}, "app"),
        (["nginx"], {"owner": "app-job", "running": True}, "app"),
        (["app"], {"owner": "app-blue", "running": True}, ""),
        (["app"], {"owner": "nginx", "running": True}, "balancers"),
        (["nginx"], {"owner": "extra_services", "running": True}, "extra or app"),
        # Of a drill, of a role that this run does not know, and created by hand.
        ([], {"owner": "backup-drill", "running": True}, ""),
        ([], {"owner": "search", "running": True}, ""),
        ([], {"owner": "", "running": True}, ""),
    ],
)
def test_what_runs_is_not_left_out_without_a_word(here: list[str], container: dict[str, Any], group: str):
    groups = {"app": ["app"], "nginx": ["balancers"], "chroma": ["chroma"], "extra_services": ["extra", "app"], "jobs": ["app"]}
    problems = preflight.check_left_out("a", {"containers": {"slipway-x": container}}, groups, here)
    assert [problem.text.partition(";")[0] for problem in problems] == (
        [f"container slipway-x runs, but the host is not in group {group}"] if group else []
    )


def test_a_host_that_leaves_the_product_has_all_that_goes_listed():
    """Containers that stand by and the timers of jobs too, each once; what another role runs there stays."""
    containers = {
        "slipway-api-blue-1": {"owner": "app-blue", "running": True},
        "slipway-api-green-1": {"owner": "app-green", "running": False},
        "slipway-nginx": {"owner": "nginx", "running": True},
    }
    files = {"/etc/slipway/shop/jobs/config/current": {}, "/etc/slipway/shop/jobs/timers": {}}
    groups = {"app": ["app"], "nginx": ["balancers"], "jobs": ["app"]}
    said = [problem.text for problem in preflight.check_left_out("lb1", {"containers": containers, "files": files}, groups, ["nginx"])]
    assert len(said) == 2
    assert "`docker rm --force slipway-api-blue-1 slipway-api-green-1`" in said[0]
    assert "systemctl disable --now slipway-shop-job*.timer" in said[1]
    assert "rm -r /etc/slipway/shop/jobs`" in said[1]
    assert preflight.check_left_out("lb1", {"containers": containers, "files": files}, groups, ["nginx", "app", "jobs"]) == []


def test_who_removes_a_store_reads_that_its_data_stays():
    volumes = {"chroma_data": {"path": "/data", "mode": "rw"}, "logs": {"path": "/log", "mode": "rw"}, "more": {"path": "/m", "mode": "ro"}}
    store = {"owner": "chroma", "running": True, "volumes": volumes}
    state = {
        "containers": {"slipway-chroma": store},
        "volumes": {"chroma_data": {"empty": False}, "logs": {"empty": True}, "more": {"empty": False}},
    }
    (said,) = preflight.check_left_out("a", state, {"chroma": ["chroma"]}, [])
    assert said.text.endswith(
        "(the data in chroma_data stays on this host, and chroma begins without it on another one: move it as docs/operate.md says "
        "(Move data to another host))"
    )


def test_hosts_that_share_an_address_are_found():
    problems = preflight.check_connections(
        {"a": ("ssh", "10.0.0.1", "22"), "b": ("ssh", "10.0.0.1", "22"), "c": ("ssh", "10.0.0.1", "23")}, {"a": "10.1", "c": "10.1"}
    )
    assert [(problem.host, problem.text.partition(";")[0]) for problem in problems] == [
        ("b", "connects to 10.0.0.1 port 22, as host a does"),
        ("c", "has the private address 10.1, as host a does"),
    ]


def test_misspelled_inputs_suggest_the_nearest_and_others_are_left_alone():
    known = {"redis": ["redis_maxmemory_policy"], "redis_cache": ["redis_cache_size"], "slipway": ["slipway_address"]}
    names = ["redis_maxmemroy_policy", "redis_cache_size", "redis_cache_sise", "slipway_address", "slipway_adress", "my_redis_port"]
    said = [problem.text for problem in preflight.check_names("a", names, known, {"redis_cache_sise": "x.yml:3"}.get)]
    assert said[0].startswith(
        "redis_cache_sise is not a known input of role redis_cache (did you mean redis_cache_size?); correct the name in x.yml:3"
    )
    assert said[1].startswith("redis_maxmemroy_policy is not a known input of role redis (did you mean redis_maxmemory_policy?)")
    assert said[2].startswith("slipway_adress is not a known shared variable (did you mean slipway_address?); correct the name, or begin")
    assert len(said) == 3


def wrong(*names: str) -> dict[str, Problem]:
    """Problems of some variables, whose text is their name."""
    return {name: Problem("a", name) for name in names}


@pytest.mark.parametrize(
    ("problems", "made_of", "told", "said"),
    [
        # A cause, what is made of it, and something else.
        (("port", "url", "flag"), {"url": {"host", "port"}}, (), "port flag"),
        # Of each other: one of them at least must be reported.
        (("a", "b"), {"a": {"a", "b"}, "b": {"a", "b"}}, (), "a b"),
        (("url",), {"url": {"vault_password"}}, {"vault_password"}, ""),
        # Which variables of other hosts it is made of is not known.
        (("servers", "port"), {"servers": {"hostvars"}}, (), "port"),
        (("servers", "others"), {"servers": {"hostvars"}, "others": {"hostvars"}}, (), "servers others"),
        (("servers",), {"servers": {"hostvars"}}, {"groups"}, ""),
    ],
)
def test_what_is_derived_from_a_wrong_value_is_not_reported_with_it(problems: Any, made_of: Any, told: Any, said: str):
    def sources(name: str) -> set[str]:
        return made_of.get(name, set())

    found = preflight.causes({"a": wrong(*problems), "b": {}}, {"a": sources, "b": sources}, told)
    assert " ".join(problem.text for problem in found) == said


def test_secrets_are_taken_out_of_a_message():
    assert preflight.redacted("is 'abcdefghij', and x", ["abcdefghij", "x", None, 5]) == "is '(secret)', and x"


# The action itself, run by Ansible

ROLE = {
    "demo_policy": {"type": "str", "choices": ["a", "b"], "default": "a"},
    "demo_port": {"type": "int", "default": 1},
    "demo_flag": {"type": "bool", "default": True},
    "demo_text": {"type": "str", "default": "x"},
    "demo_names": {"type": "list", "elements": "str", "default": []},
    "demo_numbers": {"type": "list", "elements": "int", "default": []},
    "demo_map": {"type": "dict", "default": {}},
    "demo_items": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"name": {"type": "str", "required": True}, "mode": {"type": "str", "choices": ["ro", "rw"]}},
    },
    "demo_owner_password": {"type": "str", "required": True},
    "demo_image": {"type": "str", "default": "redis:77"},
}
OWNER = "t7Hq2Lw9Zx4Nv6Bk8Mr3"
FINE = {
    "demo_owner_password": "{{ vault_owner }}",
    "vault_owner": f"{{{{ '{OWNER}' }}}}",
    "slipway_address": "10.0.0.1{{ 0 if inventory_hostname == 'one' else 1 }}",
}


@pytest.fixture
def says(checkout: Path, play):
    """Run preflight over a role with the given variables, and return its message, one line a problem."""
    for folder, data in (
        ("meta", {"argument_specs": {"main": {"options": ROLE}}}),
        ("defaults", {name: spec["default"] for name, spec in ROLE.items() if "default" in spec}),
    ):
        path = checkout / "roles/demo" / folder / ("argument_specs.yml" if folder == "meta" else "main.yml")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(data))

    def run(variables: dict[str, Any], *, facts: dict[str, Any] | None = None, **arguments: Any) -> list[str]:
        (checkout / "inventories/test/group_vars/all/own.yml").write_text(json.dumps({**FINE, **variables}, indent=1))
        asked = {"roles": [{"group": "stores", "role": "demo"}], "secrets": ["vault_owner"], **arguments}
        tasks: list[dict[str, Any]] = [{"name": "Check", "slipway.stack.preflight": asked, "run_once": True}]
        if facts:
            tasks.insert(0, {"name": "Read", "ansible.builtin.set_fact": {"container_service_host_state": facts}})
        (checkout / "playbooks/check.yml").write_text(
            json.dumps([{"name": "Check", "hosts": "all", "gather_facts": False, "tasks": tasks}])
        )
        done = play("check", ANSIBLE_STDOUT_CALLBACK="ansible.posix.json")
        # The report's summary follows.
        output, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])
        result = output["plays"][0]["tasks"][-1]["hosts"]["one"]
        assert bool(result.get("failed")) is bool(done.returncode), done.stderr
        return result["msg"].splitlines()[1:] if result.get("failed") else []

    return run


def test_good_inputs_pass(says):
    assert says({"demo_port": "6379", "demo_flag": "yes", "demo_items": [{"name": "a", "mode": "ro"}], "my_own": "{{ unknown }}"}) == []


# Each is wrong by itself, and what the message says of it.
BAD_INPUTS: list[tuple[dict[str, Any], str]] = [
    ({"demo_policy": "lots"}, "demo_policy is 'lots', must be one of a, b; set it in inventories/test/group_vars/all/own.yml"),
    ({"demo_port": "6379x"}, "demo_port is '6379x', must be an integer; set it in"),
    ({"demo_port": True}, "demo_port is True, must be an integer"),
    ({"demo_flag": "y"}, "demo_flag is 'y', must be true or false; set it in"),
    ({"demo_flag": "maybe"}, "demo_flag is 'maybe', must be true or false"),
    ({"demo_text": {"a": 1}}, "demo_text is {'a': 1}, must be a string"),
    ({"demo_names": "a,b"}, "demo_names is 'a,b', must be a list"),
    ({"demo_numbers": [1, "x"]}, "demo_numbers does not fit: each element must be an integer, not str"),
    ({"demo_map": ["a"]}, "demo_map is ['a'], must be a dictionary"),
    ({"demo_items": [{"mode": "ro"}]}, "demo_items does not fit: it lacks name"),
    ({"demo_items": [{"name": "a", "mode": "rx"}]}, "demo_items does not fit: value of mode must be one of: ro, rw, got: rx"),
    ({"demo_items": [{"name": "a", "modus": 1}]}, "demo_items does not fit: modus is unknown there, known are mode, name"),
    ({"demo_text": "{{ no_such_thing.inside }}"}, "demo_text cannot be evaluated: 'no_such_thing' is undefined; set it in"),
    ({"demo_map": {"a": ["{{ no_such_thing }}"]}}, "demo_map.a[0] cannot be evaluated: 'no_such_thing' is undefined"),
    (
        {"demo_polciy": "a"},
        "demo_polciy is not a known input of role demo (did you mean demo_policy?)",
    ),
    ({"demo_image": ""}, "demo_image is empty, must be an image with its version; set it in inventories/test/"),
    # What is derived from it is wrong too, but fixed with it.
    ({"demo_port": "many", "mine": "{{ demo_port }}1", "demo_numbers": ["{{ mine }}"]}, "demo_port is 'many', must be an integer"),
    ({"demo_port": "many", "demo_text": "{{ hostvars['two'].demo_port * 1.5 }}"}, "demo_port is 'many', must be an integer"),
    ({"demo_text": "{{ unknown }}", "demo_map": {"a": "{{ demo_text }}"}}, "demo_text cannot be evaluated: 'unknown' is undefined"),
    (
        {"slipway_adress": "10.0.0.1"},
        "slipway_adress is not a known shared variable (did you mean slipway_address?); correct the",
    ),
    (
        {"container_service_adopt_volume": True},
        "container_service_adopt_volume is not a known input of role container_service",
    ),
    ({"slipway_minimum_disk_mb": "lots"}, "slipway_minimum_disk_mb is 'lots', must be an integer from 0 to 1073741824; set it in"),
    ({"slipway_stack": "{{ unknown }}"}, "slipway_stack cannot be evaluated: 'unknown' is undefined; set it in"),
    ({"demo_owner_password": "hunter22"}, "demo_owner_password is too short"),
    ({"vault_owner": "CHANGE_ME"}, "vault_owner is a placeholder; give it 32 random characters or more in inventories/test/"),
    ({"slipway_address": "10.0.0.9"}, "has the private address 10.0.0.9, as host one does"),
    ({"ansible_host": "[fd00::1]"}, "ansible_host is '[fd00::1]', must be an IP address or a name as ssh takes it, without brackets"),
    (
        {"ansible_private_key_file": "/nonexistent", "ansible_connection": "ssh"},
        "ansible_private_key_file is /nonexistent, which cannot be",
    ),
    ({"ansible_host": "10.0.0.9", "ansible_connection": "ssh"}, "connects to 10.0.0.9 port 22, as host one does"),
]


def together(cases: list[tuple[dict[str, Any], str]]) -> list[list[tuple[dict[str, Any], str]]]:
    """Return the cases in as few inventories as hold them, each of which sets a variable once.

    A case of several variables is about what they make of each other, and so stays alone.
    """
    inventories = [[case] for case in cases if len(case[0]) > 1]
    for case in (case for case in cases if len(case[0]) == 1):
        free = [found for found in inventories if not any(len(other) > 1 or case[0].keys() & other.keys() for other, _ in found)]
        if not free:
            free = [[]]
            inventories += free
        free[0].append(case)
    return inventories


@pytest.mark.parametrize("cases", together(BAD_INPUTS), ids=lambda cases: f"{len(cases)} inputs")
def test_a_bad_input_is_one_line_with_host_variable_and_remedy(says, cases: list[tuple[dict[str, Any], str]]):
    lines = says({name: value for variables, _ in cases for name, value in variables.items()})
    assert len(lines) == len(cases), lines
    for _, line in cases:
        found = [what for who, _, what in (said.partition(": ") for said in lines) if who in ("- hosts one, two", "- host two")]
        assert sum(what.startswith(line) for what in found) == 1, f"{line}: {lines}"


def test_what_the_run_builds_itself_is_not_missed(says):
    build = {"name": "tools:1", "variable": "demo_image", "folder": "/tools"}
    asked = {"states": True, "images": "needed_images", "secrets": []}
    facts = state(missing_images={"tools:1": "pull access denied", "other:1": "pull access denied"})
    variables = {"needed_images": ["tools:1", "other:1"]}
    both, unneeded = {"tools:1", "other:1"}, {**build, "name": "unneeded:1"}
    for builds, missed in (([], both), ([build], {"other:1"}), ([unneeded], both)):
        lines = says(variables, facts=facts, builds=builds, **asked)
        assert {image for image in both if f"image {image} is not on the host" in " ".join(lines)} == missed


def test_what_the_run_builds_itself_is_for_the_hosts_that_lack_it():
    action, built = PreflightAction.__new__(PreflightAction), {"name": "tools:1", "variable": "demo_image", "folder": "/tools"}
    action._to_build = {}
    for host, platforms in (("one", ["linux/arm64", "linux/arm"]), ("two", ["linux/arm64", "linux/arm"])):
        lacks = state(missing_images={"tools:1": "pull access denied"}, host={"platforms": platforms})
        assert action._note_builds(host, lacks, ["tools:1"], [built]) == {"tools:1"}
    assert list(action._to_build.values()) == [{**built, "platform": "linux/arm64", "hosts": ["one", "two"]}]


@pytest.fixture
def fleet(checkout: Path, says):
    """Run preflight over what was read of a balancer and an app host, which serves it at its private address."""
    hosts = {"balancers": "one", "app": "two"}
    groups = {group: {"hosts": {host: {"ansible_connection": "local"}}} for group, host in hosts.items()}
    (checkout / "inventories/test/hosts.yml").write_text(json.dumps({"all": {"children": groups}}))
    product = {
        "app_services": {"api": {"image": "api:1", "port": 8000, "routes": [{"path": "/"}]}},
        "slipway_secrets": ["vault_mesh_preshared_secret"],
    }

    def run(variables: dict[str, Any], address: str = "", read: dict[str, Any] | None = None, **arguments: Any) -> list[str]:
        containers = {"slipway-api-blue": {"ports": {"8000/tcp": [f"{address}:8000"] if address else []}}}
        facts = {**state(), "containers": containers, "files": {}, **(read or {})}
        return says(
            {**product, **variables}, facts=facts, secrets=[], roles=[{"group": group, "role": "demo"} for group in hosts], **arguments
        )

    return run


def test_a_fleet_without_a_mesh_is_asked_before_services_move(fleet):
    asked = {"states": True, "mesh_only": True, "ports": "slipway_published_ports"}
    outside = "10.0.0.11"
    for brings in (True, False):
        (line,) = fleet({}, outside, brings_mesh=brings, **asked)
        assert "this stack runs without a mesh" in line
        assert ("slipway-api-blue on two would move" in line) is brings
        assert fleet({"slipway_mesh": False}, outside, brings_mesh=brings, **asked) == []
    assert fleet({"slipway_mesh": True}, outside, brings_mesh=True, **asked) == []
    assert fleet({}, brings_mesh=True, **asked) == []
    (line,) = fleet({"slipway_mesh": True}, outside, **asked)
    assert line.startswith("- hosts one, two: has no mesh yet")


def test_a_fleet_is_asked_before_its_addresses_in_the_mesh_change_and_has_its_port(fleet):
    read = {
        "files": {"/etc/slipway/slipway/mesh/tunnel": {"content": "#!/bin/sh\naddress=10.210.0.9\n"}},
        "listening": {"51820": [{"protocol": "udp", "address": "", "process": "openvpn", "container": "", "ours": False}]},
    }
    asked = {"states": True, "brings_mesh": True, "ports": "slipway_published_ports"}
    for accepted in (False, True):
        said = "\n".join(fleet({"slipway_mesh": True, "slipway_accept_restart": accepted}, read=read, **asked))
        assert ("addresses in the mesh change (one from 10.210.0.9 to 10.210." in said) is not accepted
        assert "hosts one, two: UDP port 51820 (slipway_mesh_port) is taken by openvpn" in said


def test_the_port_of_the_mesh_is_read_from_hosts():
    read, *_checks = yaml.safe_load((ROOT / "playbooks/tasks/check_hosts.yml").read_text())
    variables = {"slipway_published_ports": [{"port": 443}], "slipway_mesh_port": 51820}
    expression = trust_as_template(read["vars"]["container_service_read_ports"])
    assert Templar(DataLoader(), variables=variables).template(expression) == [443, 51820]


def test_what_a_build_says_of_an_image_counts_for_all_services_that_share_it(checkout: Path, says):
    """A build records an image once, and the service that it is recorded with may run on other hosts."""
    groups = {group: {"hosts": {host: {"ansible_connection": "local"}}} for group, host in (("app", "one"), ("workers", "two"))}
    (checkout / "inventories/test/hosts.yml").write_text(json.dumps({"all": {"children": groups}}))
    variables = {
        "app_version": "1.0",
        "app_services": {
            "api": {"image": "shop/api:1.0", "port": 8000, "user": "1000"},
            "mailer": {"image": "docker.io/shop/api:1.0", "hosts": "workers"},
        },
        "image_digests": {"1.0": {"api": {"digest": f"sha256:{'a' * 64}", "user": "root", "platform": "linux/arm64"}}},
        "slipway_mesh": False,
    }
    facts = state(host={"hostname": "{{ inventory_hostname }}", "machine_id": "{{ inventory_hostname }}", "platforms": ["linux/amd64"]})
    said = says(variables, facts=facts, states=True, secrets=[], roles=[{"group": group, "role": "app"} for group in groups])
    assert [re.split(r" runs as root| is for linux/arm64", line)[0] for line in said] == [
        "- host one: image shop/api:1.0 (app_services.api.image)",
        "- host two: image docker.io/shop/api:1.0 (app_services.mailer.image)",
        "- host two: image docker.io/shop/api:1.0 (app_services.mailer.image)",
    ]


def test_the_secret_of_the_mesh_can_be_generated_or_done_without(says):
    (line,) = says({}, secrets=["vault_owner", "vault_mesh_preshared_secret"])
    assert "vault_mesh_preshared_secret is not set" in line
    assert "run `ansible-playbook playbooks/secrets.yml -i inventories/test`, which generates it" in line
    assert "or set slipway_mesh: false, if the network between the hosts is private" in line


def test_a_missing_secret_is_reported_once_with_the_command_that_makes_it(says):
    lines = says({"demo_owner_password": "{{ vault_other }}"}, secrets=["vault_owner", "vault_other"])
    assert lines == [
        "- hosts one, two: vault_other is not set; run `ansible-playbook playbooks/secrets.yml -i inventories/test`, which generates it"
    ]


def test_secrets_of_the_same_remedy_share_a_line(says):
    """An environment without its vault file lacks all of them."""
    lines = says(
        {"demo_owner_password": "{{ vault_a }}{{ vault_b }}"}, secrets=["vault_owner", "vault_a", "vault_b", "vault_mesh_preshared_secret"]
    )
    assert [line.split("; ")[0] for line in lines] == [
        "- hosts one, two: each of vault_a and vault_b is not set",
        "- hosts one, two: vault_mesh_preshared_secret is not set",
    ]


def test_a_required_input_that_is_not_set_is_reported(says, checkout: Path):
    specs = checkout / "roles/demo/meta/argument_specs.yml"
    specs.write_text(json.dumps({"argument_specs": {"main": {"options": {**ROLE, "demo_needed": {"type": "str", "required": True}}}}}))
    assert says({})[0].startswith(
        "- hosts one, two: demo_needed is required by role demo and not set; set it in inventories/test/group_vars"
    )


def test_all_problems_come_at_once_and_a_secret_used_elsewhere_is_not_shown(says):
    lines = says({"demo_port": "{{ vault_owner }}", "demo_flag": "maybe"}, required_groups=["balancers"])
    assert len(lines) == 3
    assert OWNER not in "".join(lines)
    assert "demo_port is '(secret)', must be an integer" in "".join(lines)


@pytest.mark.parametrize("value", ["{{ vault_own }}", "{{ vault_own }} and more", ["{{ vault_own }}"]])
def test_a_secret_that_no_role_asks_for_is_not_shown_nor_a_part_of_it(says, value: Any):
    key = "-----BEGIN KEY-----\n" + 30 * "MC4CAQAwBQYDK2VwBCIE\n"
    lines = says({"vault_own": key, "demo_port": value})
    assert len(lines) == 1
    assert "(secret)" in lines[0]
    assert "BEGIN" not in lines[0]


def test_what_hosts_are_is_checked_from_what_was_read(says):
    facts = state(
        host={"hostname": "{{ inventory_hostname }}", "machine_id": "{{ inventory_hostname }}", "memory_mb": 100},
        missing_images={"redis:77": "manifest unknown"},
        listening={"443": [{"address": "0.0.0.0", "process": "apache2", "container": "", "ours": False}]},
    )
    ports = "{{ [{'port': 443, 'variable': 'nginx_https_port'}] if inventory_hostname == 'one' else [] }}"
    lines = says({"my_ports": ports}, facts=facts, states=True, ports="my_ports")
    assert [line.partition(";")[0] for line in lines] == [
        "- hosts one, two: has 100 MB of memory, and slipway_minimum_memory_mb asks for 1024 MB",
        "- host one: port 443 (nginx_https_port) is taken by apache2, which is not part of the stack",
        "- hosts one, two: image redis:77 (demo_image) is not on the host and cannot be pulled: manifest unknown",
    ]


USERS = {"root": 0, "nobody": 65534, "nginx": 101, "www": 33}
REASON = [{"what": "non_root", "why": "binds port 80"}]


@pytest.mark.parametrize(
    ("known", "recorded", "inputs", "told"),
    [
        ({"user": "nginx", "users": USERS}, {}, {}, ""),
        ({"user": "1000:1000"}, {}, {}, ""),
        (
            {"user": "root"},
            {},
            {},
            r'app_services.frontend.image\) runs as root.*app_services.frontend.user: "1000", or keep root.*non_root, why',
        ),
        ({"user": "0:0"}, {}, {}, "runs as root"),
        ({"user": "toor", "users": {"toor": 0}}, {}, {}, "runs as root"),
        ({"user": "root"}, {}, {"app_services.frontend.user": "101"}, ""),
        ({"user": "root"}, {}, {"app_services.frontend.hardening_exceptions": REASON}, ""),
        ({"user": "nginx", "users": USERS}, {}, {"app_services.frontend.user": "root"}, "app_services.frontend.user asks for root"),
        (
            {"user": "nginx", "users": USERS},
            {},
            {"app_services.frontend.user": "nginxx"},
            "has no user nginxx; it has nginx, www: set app_services.frontend.user",
        ),
        # Where the layers cannot be read, a name is taken.
        ({"user": "nginx", "users": {}}, {}, {"app_services.frontend.user": "nginxx"}, ""),
        # No host has it yet, and the build has recorded it.
        ({}, {"frontend": {"user": "root"}}, {}, "runs as root"),
        ({}, {"frontend": {"user": "app"}}, {}, ""),
        ({}, {}, {}, ""),
    ],
)
def test_an_image_that_runs_as_root_is_known_before_anything_is_touched(
    known: dict[str, Any], recorded: dict[str, Any], inputs: dict[str, Any], told: str
):
    inputs = {"app_services.frontend.user": "", "app_services.frontend.hardening_exceptions": [], **inputs}
    read = {"images": {"shop/frontend:2": known} if known else {}}
    problems = preflight.check_users("one", read, {"app_services.frontend.image": "shop/frontend:2"}, inputs, recorded)
    if told:
        assert len(problems) == 1
        assert re.search(told, texts(problems))
    else:
        assert not problems


@pytest.mark.parametrize(
    ("platform", "here", "told"),
    [
        ("linux/arm64", ["linux/amd64", "linux/386"], "is for linux/arm64, and the host runs linux/amd64"),
        ("linux/arm64/v8", ["linux/arm64", "linux/arm"], ""),
        ("linux/arm/v7", ["linux/arm64", "linux/arm"], ""),
        ("linux/amd64", ["linux/arm64", "linux/arm"], "is for linux/amd64, and the host runs linux/arm64"),
        ("linux/arm64", [], ""),
        ("", ["linux/amd64"], ""),
    ],
)
@pytest.mark.parametrize("is_recorded", [True, False])
def test_an_image_for_another_platform_is_known_before_anything_is_touched(platform: str, here: list[str], told: str, is_recorded: bool):
    known = {"platform": platform}
    read = {"host": {"platforms": here}, "images": {} if is_recorded else {"shop/frontend:2": known}}
    recorded = {"frontend": known} if is_recorded else {}
    said = texts(preflight.check_platforms("one", read, {"app_services.frontend.image": "shop/frontend:2"}, recorded))
    assert (told in said) if told else not said
    if told:
        assert (f"-e image_platform={here[0]}" if is_recorded else "correct app_services.frontend.image") in said


def test_an_image_that_two_services_share_needs_the_user_of_each():
    read = {"images": {"redis:7": {"users": {"redis": 999}}}}
    users = {"redis_user": "redis", "nginx_user": "nginx"}
    (problem,) = preflight.check_users("one", read, {"redis_image": "redis:7", "nginx_image": "redis:7"}, users, {})
    assert "image redis:7 (nginx_image) has no user nginx; it has redis: set nginx_user to one of them" in problem.text


def test_a_role_without_exceptions_is_not_offered_any():
    problems = preflight.check_users("one", {"images": {"nginx:1": {"user": "root"}}}, {"nginx_image": "nginx:1"}, {"nginx_user": ""}, {})
    assert "nginx_user" in texts(problems)
    assert "hardening_exceptions" not in texts(problems)


@pytest.mark.parametrize(
    ("address", "good"), [("0.0.0.0", True), ("127.0.0.1", True), ("10.0.0.1", True), ("::", True), ("1.2.3.4", False)]
)
def test_a_balancer_listens_on_an_address_of_its_host_or_one_that_it_may_take_over(address: str, good: bool):
    facts = {"addresses": ["10.0.0.1", "127.0.0.1"]}
    problems = preflight.check_bind_address("one", state(host=facts), "nginx_bind_address", address)
    assert bool(problems) is not good
    for problem in problems:
        assert "has no address 1.2.3.4, on which nginx_bind_address wants to listen; it has 10.0.0.1, 127.0.0.1" in problem.text
        assert "correct nginx_bind_address, or" in problem.text
        assert "net.ipv4.ip_nonlocal_bind" in problem.text
    assert not preflight.check_bind_address("one", state(host={**facts, "nonlocal_bind": True}), "nginx_bind_address", address)


def test_preflight_and_plan_agree_on_which_addresses_can_be_published():
    """What one accepts and the other refuses ends a run half-way, or keeps it from beginning."""
    for address in ("0.0.0.0", "127.0.0.1", "10.0.0.1", "10.0.0.9", "::1"):
        for nonlocal_bind in (True, False):
            for addresses in ([], ["10.0.0.1"]):
                host = {"addresses": addresses, "nonlocal_bind": nonlocal_bind}
                try:
                    plan.absent_addresses({"name": "nginx", "ports": [{"port": 80, "address": address}]}, {"host": host})
                    refused = False
                except DeclarationError:
                    refused = True
                problems = preflight.check_bind_address("one", state(host=host), "nginx_bind_address", address)
                assert bool(problems) is refused, (address, host)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"superuser": "app"}, "(POSTGRES_USER) is named app, as is a role of the inventory: set postgres_app_name to another name"),
        ({"superuser": "report"}, "(POSTGRES_USER) is named report, as is a role of the inventory: set postgres_users to another name"),
        ({"superuser": "shop"}, ""),
        ({}, ""),
    ],
)
def test_a_role_with_the_name_of_another_programs_superuser_is_refused_before_that_is_removed(there: dict[str, str], said: str):
    roles = [("postgres_owner_name", "app_owner"), ("postgres_app_name", "app"), ("postgres_users", "report")]
    here = {"volumes": {"db": {"pg_version": "17", **there}, "other": {"superuser": "app"}}}
    found = texts(preflight.check_superuser("one", here, "db", roles))
    assert said in found
    assert bool(said) == bool(found)
