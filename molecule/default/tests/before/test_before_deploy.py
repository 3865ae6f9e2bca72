"""A host that nothing was deployed to: what bad input gets, what a dry run says, and the first deploy, shown as loudly as can be."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slipway_leaks
import yaml
from slipway_lab import Lab, LabHost, Run

# What the host has; a container's age is not part of it.
FINGERPRINT = """
docker ps --all --no-trunc --format '{{.ID}} {{.Status}}' | sed 's/Up .*/Up/'
docker volume ls --quiet
docker network ls --quiet
find /etc/slipway /etc/docker /etc/logrotate.d /etc/systemd/system -printf '%p %T@ %s\\n' 2>/dev/null | sort
iptables-save | grep -c SLIPWAY
"""


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    return lab.balancer


@pytest.fixture(scope="module", autouse=True)
def empty(lab: Lab, host: LabHost) -> Iterator[None]:
    """Take off the host what was deployed to it, and the lab's certificates; deploy again for the tests of the later steps."""
    deployed = bool(host.containers())
    if deployed:
        lab.destroy(host.run("docker volume ls --quiet --filter label=slipway.stack").split())
        shutil.rmtree(lab.inventory / "pki")
    yield
    if deployed:
        lab.site()


@pytest.fixture
def broken_inventory(lab: Lab) -> Iterator[Path]:
    """A copy of the lab's inventory to break."""
    copy = lab.inventory.with_name(f"{lab.name}-broken")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(lab.inventory, copy, symlinks=True)
    yield copy
    shutil.rmtree(copy)


@contextlib.contextmanager
def by_hand(host: LabHost, done: str, undone: str) -> Iterator[None]:
    """Change a host by hand, and undo it afterwards."""
    host.run(done)
    try:
        yield
    finally:
        host.run(undone)


@pytest.fixture
def untouched(host: LabHost) -> Iterator[None]:
    """Nothing on the host may change meanwhile."""
    before = host.run(FINGERPRINT, check=False)
    yield
    assert host.run(FINGERPRINT, check=False) == before


@pytest.mark.parametrize("become", ["", "sudo "], ids=["user", "root"])
def test_what_a_run_writes_here_is_closed_to_others_unless_it_sets_a_mode(host: LabHost, become: str):
    shown = subprocess.run([*host.ssh(), f"{become}sh -c umask"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "0077"


# Each with what the message must say: the variable or group, and the remedy.
INPUTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "placeholder secret": (
        {"vault_redis_app_password": "CHANGE_ME_please_change_me_now_really"},
        ["vault_redis_app_password", "32 random characters"],
    ),
    "short secret": ({"vault_app_secret_key": "abc123"}, ["vault_app_secret_key", "32 random characters"]),
    "empty secret": ({"vault_postgres_app_password": ""}, ["vault_postgres_app_password"]),
    "wrong type": ({"redis_maxmemory_mb": "plenty"}, ["redis_maxmemory_mb is 'plenty'", "integer", "correct it after -e"]),
    "unknown choice": ({"nginx_log_format": "xml"}, ["nginx_log_format is 'xml'", "json, main", "correct it after -e"]),
}
# What only a look at the host shows; each is a problem of its own.
HOSTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "too little memory": ({"slipway_minimum_memory_mb": 1000000}, ["of memory", "slipway_minimum_memory_mb asks for 1000000 MB"]),
    "too little disk": ({"slipway_minimum_disk_mb": 99999999}, ["MB free on the disk of", "slipway_minimum_disk_mb"]),
    "no such image": ({"redis_image": "redis:7-never-built"}, ["redis:7-never-built (redis_image)", "correct redis_image"]),
    # An address of the lab's network that lab/up gives to no host.
    "database out of reach": (
        {"slipway_postgres_host": "UNUSED"},
        ["UNUSED:5432 (slipway_postgres_host)", "correct slipway_postgres_host"],
    ),
    # A machine that is there, refuses, and is none that this run deploys a database to.
    "database that no run starts": (
        {"slipway_postgres_host": "registry"},
        ["cannot reach registry:5432 (slipway_postgres_host): it refuses the connection", "correct slipway_postgres_host"],
    ),
}


def refused(lab: Lab, *said: str, **options: Any) -> Run:
    """Run site.yml, which must stop before it changes anything and say all of these."""
    run = lab.playbook("site", **options)
    text = " ".join(run.output.split())
    assert run.returncode != 0
    for part in said:
        assert part in text, run.output
    assert run.changed == []
    return run


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(("variables", "said"), [*INPUTS.values(), *HOSTS.values()], ids=[*INPUTS, *HOSTS])
def test_bad_input_stops_the_run_before_anything_is_touched(lab: Lab, host: LabHost, variables: dict[str, Any], said: list[str]):
    unused = host.address.rpartition(".")[0] + ".9"
    variables = {name: unused if value == "UNUSED" else value for name, value in variables.items()}
    said = [part.replace("UNUSED", unused) for part in said]
    run = refused(lab, "lab1", *said, variables=variables)
    assert re.search(r"Preflight found \d problems?; nothing was touched\.", " ".join(run.output.split()))
    secret = [value for name, value in variables.items() if name.startswith("vault_") and value]
    assert not any(value in run.output for value in secret), "the message shows the secret"


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("variables", [{}, {"backup_start_over": "slipway"}], ids=["a point", "start over"])
def test_no_point_is_made_of_a_stack_that_is_not_there(lab: Lab, variables: dict[str, str]):
    run = lab.playbook("backup", variables=variables)
    assert run.returncode != 0
    assert "Nothing was touched: lab1 makes no backups of the stack slipway yet. Run site.yml first" in " ".join(run.output.split())
    assert run.changed == []


@pytest.mark.usefixtures("untouched")
def test_missing_secret_names_the_command_that_makes_it(lab: Lab, broken_inventory: Path):
    (broken_inventory / "group_vars/all/vault.yml").unlink()
    refused(lab, *lab.secrets, f"playbooks/secrets.yml -i inventories/{broken_inventory.name}", inventory=broken_inventory)


@pytest.mark.usefixtures("untouched")
def test_empty_group_is_named(lab: Lab, broken_inventory: Path):
    content = yaml.safe_load((broken_inventory / "hosts.yml").read_text(encoding="utf-8"))
    content["all"]["children"]["redis"] = {"hosts": {}}
    (broken_inventory / "hosts.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    refused(lab, "app_services", "no host is in group redis: add one", inventory=broken_inventory)


@pytest.mark.usefixtures("untouched")
def test_two_names_of_one_host_are_found(lab: Lab, broken_inventory: Path):
    content = yaml.safe_load((broken_inventory / "hosts.yml").read_text(encoding="utf-8"))
    hosts = content["all"]["children"]["lab_hosts"]["hosts"]
    hosts["lab2"] = dict(hosts["lab1"])
    content["all"]["children"]["app"]["hosts"]["lab2"] = None
    (broken_inventory / "hosts.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    remedy = "as host lab1 does; give each host its own ansible_host or ansible_port"
    refused(lab, "host lab2: connects to 127.0.0.1", remedy, inventory=broken_inventory)


@pytest.mark.usefixtures("untouched")
def test_port_of_a_foreign_process_is_left_to_it(lab: Lab, host: LabHost):
    with by_hand(host, "systemd-run --unit slipway-squatter --quiet python3 -m http.server 443", "systemctl stop slipway-squatter"):
        refused(lab, "port 443 (nginx_https_port) is taken by python3", "set nginx_https_port")


@pytest.mark.usefixtures("untouched")
def test_unsupported_distribution_is_refused(lab: Lab, host: LabHost):
    other = "mv /etc/os-release /root/os-release && printf 'ID=fedora\\nVERSION_ID=44\\n' >/etc/os-release"
    with by_hand(host, other, "mv --force /root/os-release /etc/os-release"):
        refused(lab, "host lab1: runs fedora 44, which is not supported; supported are Debian")


@pytest.mark.usefixtures("untouched")
def test_dry_run_on_an_empty_host_says_what_it_would_do(lab: Lab):
    run = lab.site("--check", "--diff")
    for service in ("postgres", "redis", "chroma", "backend-blue-1", "frontend-blue-1", "nginx"):
        assert f"lab1: {service}: the container does not exist" in run.output
    assert run.changed
    assert not slipway_leaks.shown(run.output, slipway_leaks.needles(lab))
    assert not (lab.inventory / "pki/ca.key").exists(), "a dry run made a certificate authority"


@pytest.mark.usefixtures("untouched")
def test_strangers_container_of_our_name_is_left_to_them(lab: Lab, host: LabHost):
    """Where the service never ran, it may hold a stranger's data: it is named, and what to do about it."""
    theirs = "tar --create --files-from /dev/null | docker import - stranger && docker create --name slipway-postgres stranger true"
    with by_hand(host, theirs, "docker rm slipway-postgres && docker rmi stranger"):
        refused(lab, "lab1: a container named slipway-postgres exists that is not of the stack slipway: rename or remove it")


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        pytest.param(
            {"routes": [{"path": "/x/", "extra_lines": ["gzzip on;"]}]},
            "gzzip on; # extra_lines of the route /x/ of backend",
            id="nginx",
            marks=pytest.mark.extended("default"),
        ),
        pytest.param({"entrypoint": ["nosuchprogram"]}, "has no program 'nosuchprogram' that its user may run", id="image"),
    ],
)
def test_what_only_a_trial_shows_is_refused_before_there_is_a_store(lab: Lab, host: LabHost, backend: dict[str, Any], said: str):
    run = lab.playbook("site", variables={"app_service_overrides": {"backend": backend}})
    assert run.returncode != 0
    assert said in " ".join(run.output.split())
    assert host.run("docker ps --all --quiet; docker volume ls --quiet; docker network ls --quiet --filter name=slipway") == ""


def test_first_deploy_shows_no_secret_however_loud_it_is(lab: Lab):
    run = lab.site("-vvv", "--diff")
    log = slipway_leaks.kept_output(lab, "first-deploy")
    log.touch(mode=0o600)
    log.write_text(run.output, encoding="utf-8")
    # The pki is there by now, so its keys are looked for too.
    assert not slipway_leaks.shown(run.output, slipway_leaks.needles(lab))
    assert not slipway_leaks.shown(json.dumps(run.report), slipway_leaks.needles(lab))
    assert "postgresql.conf" in run.output, "the run showed no diff"
    lab.wait_until_healthy(5)
