# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that run on hosts: each is of the base system or of a package that a role installs, and the hosts of a lab have no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template

from ansible_collections.slipway.stack.plugins.plugin_utils.preflight import SUPPORTED_DISTRIBUTIONS
from conftest import ROOT, role_file, role_task, role_variable, role_variables

#: Of packages that each Debian or Ubuntu has, and of systemd and Python, without which Ansible and our units do not run.
BASE = {"cat", "cp", "find", "grep", "journalctl", "printf", "python3", "sh", "sleep", "systemctl", "systemd-analyze", "systemd-run", "tar"}
#: Other programs and Python modules, with the package that contains them on a system that recommends nothing.
PACKAGES = {
    "docker": "docker-cli",
    "dockerd": "docker.io",
    "ip": "iproute2",
    "iptables": "iptables",
    "iptables-restore": "iptables",
    "logrotate": "logrotate",
    "psycopg2": "python3-psycopg2",
    "requests": "python3-requests",
    "wg": "wireguard-tools",
    "wireguard-go": "wireguard-go",
}
#: Of those that host_state reports.
REPORTED = {"docker", "dockerd", "ip", "iptables", "logrotate", "requests"}
CALLS = {"run", "call", "Popen", "run_command", "run_program", "check_output", "get_bin_path", "which"}
#: Run in containers or on the machine that builds images.
ELSEWHERE = (
    *("packages/slipway_backup/src/slipway_backup/", "packages/slipway_prober/", "packages/slipway_acme/src/slipway_acme.py"),
    "plugins/modules/image_build.py",
)
#: What runs in a container of a drill, and a command of docker.
IN_CONTAINERS = {"psql", "run"}
SHELL = [
    *("roles/host/templates/firewall.sh.j2", "roles/mesh/templates/mesh.service.j2", "roles/mesh/templates/tunnel.sh.j2"),
    "roles/nginx/templates/logrotate.j2",
]


def installed_by_roles() -> set[str]:
    """Return the packages that roles install on hosts."""
    names = {"host": ["host_packages"], "mesh": ["mesh_packages", "mesh_userspace_packages"]}
    found = {package for role, inputs in names.items() for name in inputs for package in role_file(role, "defaults")[name]}
    return found | set(role_task("jobs", "main.yml", "Install the client of PostgreSQL", "vars", {})["container_service_packages"])


def called(text: str) -> Iterator[str]:
    """Yield the programs that Python code calls by their names."""
    for node in ast.walk(ast.parse(text)):
        first: Any = None
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "docker":
                yield name
            first = node.args[0] if name in CALLS and node.args else None
        elif (
            isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("argv", "command") and isinstance(node.value, ast.List)
        ):
            first = node.value
        first = first.elts[0] if isinstance(first, (ast.List, ast.Tuple)) and first.elts else first
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


def sources() -> list[Path]:
    found = [path for folder in ("plugins/modules", "plugins/module_utils", "packages") for path in (ROOT / folder).rglob("*.py")]
    return [path for path in found if "tests" not in path.parts and not str(path.relative_to(ROOT)).startswith(ELSEWHERE)]


def test_each_program_that_code_calls_on_hosts_is_of_a_package_that_a_role_installs() -> None:
    programs = {program for path in sources() for program in called(path.read_text())}
    assert {"docker", "dockerd", "ip", "iptables", "wg", "systemd-run"} <= programs
    unknown = {program for program in programs - BASE - IN_CONTAINERS - set(PACKAGES) if re.fullmatch(r"[a-z][a-z0-9-]*", program)}
    assert unknown == set()
    assert {PACKAGES[program] for program in programs & set(PACKAGES)} <= installed_by_roles()


@pytest.mark.parametrize("path", SHELL)
def test_each_program_that_a_script_calls_on_hosts_is_of_a_package_that_a_role_installs(path: str) -> None:
    text = re.sub(r"^#.*$", "", (ROOT / path).read_text(), flags=re.MULTILINE)
    programs = {word for word in re.findall(r"[\w-]+", text) if word in PACKAGES}
    assert {PACKAGES[program] for program in programs} <= installed_by_roles()


def test_what_role_host_installs_is_what_it_asks_for() -> None:
    asked = set(role_variable("host", "__host_tools_missing", {"container_service_host_state": {"tools": {}}}))
    assert asked == REPORTED
    assert {PACKAGES[name] for name in asked} <= set(role_file("host", "defaults")["host_packages"])
    assert "ca-certificates" in role_file("host", "defaults")["host_packages"]


#: What is installed wherever anything is missing.
ALWAYS = {"ca-certificates", "iproute2", "iptables", "logrotate", "python3-requests"}


@pytest.mark.parametrize(
    ("there", "apparmor", "installed", "client"),
    [
        (set(), False, {*ALWAYS, "docker.io"}, True),
        # Without its programs, the engine of Debian 12 starts no container there.
        (set(), True, {*ALWAYS, "apparmor", "docker.io"}, True),
        # Installed without what it recommends, or by an earlier version of the role.
        (REPORTED - {"docker"}, False, ALWAYS, True),
        (REPORTED - {"logrotate"}, False, ALWAYS, False),
        # Programs of others run with that engine, and profiles would be new to them.
        (REPORTED - {"logrotate"}, True, ALWAYS, False),
    ],
)
def test_a_client_without_which_nothing_is_backed_up_is_installed_and_no_second_engine(
    there: set[str], apparmor: bool, installed: set[str], client: bool
) -> None:
    given = {"container_service_host_state": {"tools": dict.fromkeys(there, True), "host": {"apparmor": apparmor}}}
    assert set(role_variable("host", "__host_packages_missing", given)) == installed
    assert ("docker" in role_variable("host", "__host_tools_missing", given)) is client


def test_hosts_of_a_lab_have_the_packages_that_roles_install_and_none_that_hides_a_missing_one() -> None:
    text = (ROOT / "lab/recipes/lab_host/Dockerfile").read_text().replace("\\\n", " ")
    system, roles = (set(names.split()) for names in re.findall(r"--no-install-recommends\s+([^&]+)", text))
    # Its kernel is that of the machine, which loads profiles for it.
    assert roles == installed_by_roles() - {"apparmor"}
    assert system.isdisjoint(roles)


def test_a_program_that_is_missing_after_the_packages_were_installed_ends_the_run() -> None:
    tasks = yaml.safe_load((ROOT / "roles/host/tasks/prepare.yml").read_text())
    last = tasks[-1]
    assert last["ansible.builtin.assert"]["that"] == "__host_tools_missing | length == 0"
    assert "Read the state of the host again" in tasks[-2]["name"]


def test_programs_share_what_replaces_a_file() -> None:
    files = [path for name in ("acme", "jobs", "watchdog") for path in (ROOT / f"packages/slipway_{name}/src").rglob("*.py")]
    assert [path.name for path in files if "os.replace(" in path.read_text()] == ["state_files.py"]


#: Modules and programs that may remove packages on a host.
INSTALLERS = re.compile(r"\b(ansible\.builtin\.(apt|deb822|dnf|package|yum)\b|apt-get|apt |dpkg\b)")


def test_only_one_task_installs_packages_and_it_removes_none() -> None:
    files = [path for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*.yml")]
    tasks = {path for path in files if {"tasks", "handlers", "playbooks", "plays"} & set(path.parts)}
    found = {path.relative_to(ROOT).as_posix() for path in tasks if INSTALLERS.search(path.read_text())}
    assert found == {"roles/container_service/tasks/packages.yml"}
    install, *_others = yaml.safe_load((ROOT / "roles/container_service/tasks/packages.yml").read_text())
    assert install["ansible.builtin.apt"]["fail_on_autoremove"] is True


#: What apt-get prints before it fails, as one of Debian 12 and 13 does.
REMOVED = """Reading package lists...
The following additional packages will be installed:
  containerd runc
The following packages will be REMOVED:
  containerd.io podman-docker
  docker-ce-cli
The following NEW packages will be installed:
  containerd docker.io runc
"""
REFUSED = {
    "failed": True,
    "rc": 100,
    "stdout": REMOVED,
    "stderr": "E: Packages need to be removed but remove is disabled.\n",
    "msg": "failed",
}
ABSENT = {"failed": True, "msg": "No package matching 'docker-cli' is available"}


@pytest.mark.parametrize(
    ("result", "optional", "fails", "refuses"),
    [
        ({"failed": False}, False, False, False),
        ({"failed": False, "stdout": REMOVED, "stderr": ""}, False, False, False),
        # It is not tried three times, and says what to do.
        (REFUSED, False, False, True),
        (REFUSED, True, False, True),
        (ABSENT, True, False, False),
        (ABSENT, False, True, False),
        ({"failed": True, "msg": "Failed to update apt cache", "stderr": ""}, True, True, False),
    ],
)
def test_packages_that_others_need_stay_and_are_named(result: dict[str, Any], optional: bool, fails: bool, refuses: bool) -> None:
    given = {
        "container_service_packages": ["docker.io", "iptables"],
        "container_service_packages_optional": optional,
        "__container_service_installed": result,
    }
    install, refuse = yaml.safe_load((ROOT / "roles/container_service/tasks/packages.yml").read_text())
    templar, _variables = role_variables("container_service", given)

    def holds(condition: str) -> bool:
        return bool(templar.template(trust_as_template(f"{{{{ {condition} }}}}")))

    assert all(map(holds, install["failed_when"])) is fails
    assert holds(refuse["when"]) is refuses
    if refuses:
        said = role_task("container_service", "packages.yml", refuse["name"], "ansible.builtin.fail", given)["msg"]
        assert "On one, installing docker.io, iptables would remove containerd.io, podman-docker, docker-ce-cli, which" in said
        assert "apt-get remove containerd.io podman-docker docker-ce-cli. Then run again." in said


#: What Python has from 3.11 on. Ruff knows syntax of a version, and no names.
NEWER = re.compile(
    r"\b(file_digest|tomllib|ExceptionGroup|add_note|StrEnum|datetime\.UTC|import UTC|contextlib\.chdir|itertools\.batched"
    r"|(t|typing)\.(Self|Never|assert_never|override|LiteralString)|asyncio\.(TaskGroup|timeout)|Path\.walk|\.is_junction)\b"
)


def test_code_on_hosts_runs_on_the_oldest_python_of_a_supported_host() -> None:
    assert NEWER.search("hashlib.file_digest(file)")
    found = {path.relative_to(ROOT).as_posix(): match[0] for path in sources() if (match := NEWER.search(path.read_text()))}
    # The tools of backups run in an image that has a newer one.
    assert {path: name for path, name in found.items() if "/slipway_backup/src/slipway_backup/" not in f"/{path}"} == {}


def test_each_role_names_the_systems_that_preflight_accepts() -> None:
    versions = {"12": "bookworm", "13": "trixie", "22.04": "jammy", "24.04": "noble", "26.04": "resolute"}
    supported = {name: [versions[number] for number in numbers] for name, numbers in SUPPORTED_DISTRIBUTIONS.items()}
    for path in (ROOT / "roles").glob("*/meta/main.yml"):
        platforms = yaml.safe_load(path.read_text())["galaxy_info"]["platforms"]
        assert {platform["name"].lower(): platform["versions"] for platform in platforms} == supported, path
