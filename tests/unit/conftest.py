"""What the unit tests share: the repository, its plugins as Ansible names them, and throw-away checkouts to run playbooks in."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar

from forked_ansible import ForkedAnsible

ROOT = Path(__file__).resolve().parents[2]
CHECKOUT = "checkout"
BIN = Path(sys.executable).parent

# The collection's own folder in the checkout resolves ansible_collections.slipway.stack, as it does for ansible-playbook.
sys.path.insert(0, str(ROOT / "collections"))
# Once, before any test imports a plugin: Ansible's loader cannot take over names that Python has imported already.
init_plugin_loader([str(ROOT / "collections")])

Run = Callable[..., subprocess.CompletedProcess[str]]

# What starts a program, as Python's audit hooks name it.
STARTS = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.forkpty"}
in_test = False


def refuse_programs(event: str, arguments: tuple[Any, ...]) -> None:
    """Skip a test that is about to start a program: `make check` runs those that start none, `make unit` all of them."""
    # Python itself asks ldconfig for the name of a library, which Ansible's filters load.
    if in_test and event in STARTS and not str(arguments[0]).endswith("ldconfig"):
        pytest.skip(f"starts a program: {arguments[0]}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-programs", action="store_true", help="skip tests that start a program")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--no-programs"):
        sys.addaudithook(refuse_programs)
        config.pluginmanager.register(WithoutPrograms())


class WithoutPrograms:
    """Knows when a test runs, those of packages included, where hooks of this file are not called."""

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        global in_test  # noqa: PLW0603 - an audit hook cannot be removed
        in_test = True
        yield
        in_test = False


@pytest.fixture(autouse=True)
def compiled_templates() -> Iterator[None]:
    """Compile each template once for all tests of a process: half of their time was Jinja's compiler."""
    # Imported once Ansible's loader knows the collection.
    from ansible_collections.slipway.stack.plugins.plugin_utils.compiled import compiled_once  # noqa: PLC0415

    with compiled_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def stops_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder in which stops of containers are noted, which is not the machine's own."""
    from ansible_collections.slipway.stack.plugins.module_utils import stops  # noqa: PLC0415 - as above

    stops.FOLDER = str(tmp_path_factory.mktemp("stops"))
    return stops.FOLDER


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def programs(pytestconfig: pytest.Config) -> None:
    """Of a test whose programs are started by a thread, where a skip is lost."""
    if pytestconfig.getoption("--no-programs"):
        pytest.skip("starts programs")


def tracked_files() -> list[Path]:
    """Files of the repository as git knows them, new ones too, ignored ones not; links are not followed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists() and not (ROOT / name).is_symlink()]


forks = ForkedAnsible()


def pytest_unconfigure() -> None:
    forks.stop()


def ansible(program: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs in a folder, with its ansible.cfg and nothing of the user's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SLIPWAY_"))}
    variables = {**kept, "PATH": f"{BIN}:{kept['PATH']}", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false", **environment}
    configured_apart = any(name.startswith("ANSIBLE_") for name in environment)
    if (
        program == "ansible-playbook"
        and cwd.name == CHECKOUT
        and not configured_apart
        and is_as_copied(cwd)
        and forks.serves(cwd, variables)
    ):
        return forks.run(list(arguments), cwd, variables, timeout=120)
    return subprocess.run(
        [str(BIN / program), *arguments], cwd=cwd, env=variables, capture_output=True, text=True, timeout=120, check=False
    )


def has_engine() -> bool:
    """Return whether the machine's engine has the image that tests of real containers need."""
    if os.getuid() != 0 or shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "image", "inspect", "redis:7-alpine"], capture_output=True, check=False).returncode == 0


needs_engine = pytest.mark.skipif(not has_engine(), reason="needs an engine with redis:7-alpine")


#: What a checkout has of the repository.
COPIED = ("ansible.cfg", "collections", "galaxy.yml", "group_vars", "meta", "packages", "playbooks", "plugins", "roles", "tools")
#: What a process that runs of it are forked from has read.
LOADED = re.compile(r"plugins/(?!modules/)|meta/|group_vars/|roles/[^/]+/(meta|defaults|vars)/")


def contents(folder: str, prefix: str = "") -> dict[str, Any]:
    """Return all that is below a folder, by path: files by what shows that they have changed. Python's own files are left out."""
    found: dict[str, Any] = {}
    for entry in os.scandir(folder):
        name = prefix + entry.name
        if entry.name == "__pycache__":
            continue
        if entry.is_symlink():
            found[name] = os.readlink(entry)
        elif entry.is_dir():
            found |= {name: entry.stat().st_mode, **contents(entry.path, f"{name}/")}
        else:
            status = entry.stat()
            found[name] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


@functools.cache
def repository() -> dict[str, Any]:
    """Return what a checkout has of the repository, and how it is there."""
    found: dict[str, Any] = {}
    for name in COPIED:
        status = (ROOT / name).stat()
        if (ROOT / name).is_dir():
            found |= {name: status.st_mode, **contents(str(ROOT / name), f"{name}/")}
        else:
            found[name] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def renew(top: Path) -> None:
    """Make a folder the copy of the repository that it may have been: a test changes little of it."""
    there, wanted = contents(str(top)), repository()
    for name in sorted(there.keys() - wanted.keys(), reverse=True):
        remove(top / name)
    for name in (name for name in wanted if there.get(name) != wanted[name]):
        source, target = ROOT / name, top / name
        if source.is_dir() and not source.is_symlink():
            if not target.is_dir() or target.is_symlink():
                remove(target)
                target.mkdir()
            shutil.copymode(source, target)
        else:
            remove(target)
            shutil.copy2(source, target, follow_symlinks=False)


def is_as_copied(top: Path) -> bool:
    """Return whether a checkout has what a process that runs of it are forked from has read."""
    there, wanted = ({name: value for name, value in found.items() if LOADED.match(name)} for found in (contents(str(top)), repository()))
    return there == wanted


@pytest.fixture
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with the environment "test", whose hosts are the controller under two names.

    It has the same path in all tests of a process, as what Ansible reads of its configuration holds for one folder.
    """
    top = tmp_path_factory.getbasetemp() / CHECKOUT
    top.mkdir(exist_ok=True)
    renew(top)
    variables = top / "inventories/test/group_vars/all"
    variables.mkdir(parents=True)
    # What marks an environment of Slipway; a test's own file, read after it, wins.
    address = "192.0.2.{{ groups['all'].index(inventory_hostname) + 1 if inventory_hostname in groups['all'] else 254 }}"
    (variables / "10_environment.yml").write_text(f'---\nslipway_secrets: []\nslipway_address: "{address}"\n', encoding="utf-8")
    (top / "inventories/test/hosts.yml").write_text(
        "all:\n  vars:\n    ansible_connection: ansible.builtin.local\n"
        f"    ansible_python_interpreter: {sys.executable}\n"
        "  children:\n    stores:\n      hosts:\n        one:\n        two:\n"
    )
    return top


@pytest.fixture
def play(checkout: Path) -> Run:
    """Run a playbook of the throw-away checkout against its environment."""

    def run(playbook: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return ansible("ansible-playbook", f"playbooks/{playbook}.yml", "-i", "inventories/test", *arguments, cwd=checkout, **environment)

    return run


def balanced(routes: Any = (), servers: Any = ("backend-blue-1:8000",), previous: Any = ()) -> dict[str, Any]:
    """Return what nginx has to serve: a backend with these routes and its own, and a frontend."""
    own = [{"path": "/api/", "cache": "no-store"}, {"path": "/ws", "websocket": True}]
    page = {"routes": [{"path": "/"}, {"path": "/assets/", "cache": "immutable"}], "servers": ["frontend-blue-1:3000"]}
    return {
        "__nginx_balanced": {
            "backend": {"routes": [*own, *routes], "servers": list(servers), "previous_servers": []},
            "frontend": {**page, "previous_servers": list(previous)},
        }
    }


def plan_of(declared: list[dict[str, Any]], containers: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the plan for declarations on a host that has these containers of the stack "s"."""
    # Imported once Ansible's loader knows the collection.
    from ansible_collections.slipway.stack.plugins.plugin_utils.plan import plan_services  # noqa: PLC0415

    state: dict[str, Any] = {name: {} for name in ("foreign_containers", "networks", "volumes", "images", "files", "queries")}
    state |= {"engine": {"api_version": "1.45"}, "containers": containers or {}}
    networks: dict[str, Any] = {name: {} for name in ("frontend", "backend", "database", "peers", "backup", "monitoring")}
    return plan_services(declared, state, stack="s", root="/etc/slipway", owner="app-blue", key="k", networks=networks, adopt=False)


@functools.cache
def role_file(role: str, part: str) -> Any:
    """Return a YAML file of a role with its templates, which a test must not change."""
    return DataLoader().load_from_file(str(ROOT / "roles" / role / part / "main.yml"), trusted_as_template=True)


def role_variables(role: str, inputs: dict[str, Any]) -> tuple[Templar, dict[str, Any]]:
    """Return the variables of a role on a host of 8 GB and four cores where nothing runs yet, and what resolves their templates."""
    loader, folder = DataLoader(), ROOT / "roles" / role
    variables: dict[str, Any] = {
        "ansible_search_path": [str(folder)],
        "ansible_managed": "Managed by Ansible",
        "inventory_dir": "/nonexistent",
        "inventory_hostname": "one",
        "groups": {"app": ["one"]},
        "container_service_host_state": {"host": {"memory_mb": 8000, "cores": 4, "data_root": "/var/lib/docker"}, "volumes": {}},
    }
    for part in ("defaults", "vars"):
        variables |= role_file(role, part)
    return Templar(loader, variables=variables | inputs), variables


def role_variable(role: str, name: str, inputs: dict[str, Any]) -> Any:
    """Return a variable of a role as its tasks see it."""
    templar, variables = role_variables(role, inputs)
    # Members of a templated container are resolved when they are read; a copy through JSON reads all of them.
    return json.loads(json.dumps(templar.template(variables[name])))


def role_task(role: str, file: str, name: str, key: str, inputs: dict[str, Any]) -> Any:
    """Return what a task of a role is given under a key, as it sees it: arguments of its module, or its variables."""
    tasks = DataLoader().load_from_file(str(ROOT / "roles" / role / "tasks" / file), trusted_as_template=True)
    (found,) = [task for task in tasks if task["name"] == name]
    templar, _ = role_variables(role, {**(found.get("vars") or {}), **inputs})
    return json.loads(json.dumps(templar.template(found[key])))
