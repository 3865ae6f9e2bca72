"""The collection as others get it: built, installed elsewhere, and run from there."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml

from conftest import BIN, ROOT, ansible, tracked_files

sys.path.insert(0, str(ROOT / "tests"))
from docs_commands import commands, split

# What a deployment needs, and nothing else.
SHIPPED = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "SECURITY.md",
    "changelogs",
    "collections",
    "docs",
    "examples",
    "group_vars",
    "images",
    "inventories",
    "meta",
    "packages",
    "playbooks",
    "plugins",
    "requirements",
    "roles",
    "tools",
}


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    # A clone holds what git knows: what lies about in this checkout is not part of it.
    clone = folder / "clone"
    for path in tracked_files():
        target = clone / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    link = "inventories/prod/group_vars/all/20_product.yml"
    (clone / link).symlink_to((ROOT / link).readlink())
    # Environments of users, and a lab's, which links to the files of another.
    for name in ("shop", "p", "prod2", "mol-default"):
        (clone / "inventories" / name).mkdir()
        (clone / "inventories" / name / "product.yml").symlink_to("../lab/group_vars/all/20_product.yml")
    shutil.copytree(ROOT / "collections", clone / "collections", symlinks=True, dirs_exist_ok=True)
    (clone / ".vault-password").write_text("must not leave\n")
    (clone / "reports").mkdir()
    (clone / "reports/site-latest.json").write_text("{}")
    done = ansible("ansible-galaxy", "collection", "build", "--output-path", str(folder), cwd=clone)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("slipway-stack-*.tar.gz"))


@pytest.fixture(scope="module")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    done = ansible("ansible-galaxy", "collection", "install", str(tarball), "-p", str(folder / "collections"), "--no-deps", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_tarball_holds_what_a_deployment_needs_only(tarball: Path):
    with tarfile.open(tarball) as archive:
        names = archive.getnames()
    assert {name.partition("/")[0] for name in names} <= SHIPPED
    assert {"roles", "plugins", "playbooks", "meta"} <= {name.partition("/")[0] for name in names}
    assert not [name for name in names if "ansible_collections" in name or "__pycache__" in name or ".vault" in name]
    assert {name.split("/")[1] for name in names if name.startswith("inventories/")} == {"prod"}
    assert {name.split("/")[1] for name in names if name.startswith("images/")} == {"acme", "backup", "exporters", "monitoring"}
    assert {name for name in names if name.startswith("requirements/")} == {"requirements/secrets.txt"}
    # The worked example of an inventory links the product's inputs; its sources are no part of a deployment.
    sources = {name for name in names if re.match(r"examples/\w+/\w+/|examples/.*(Dockerfile|\.py|\.txt)$", name)}
    assert {name for name in sources if not name.startswith("examples/guestbook/production/")} == set()
    # What a command of a page copies or installs is there. Links to sources, which are not, are for readers of the repository.
    words = {word for item in commands() for word in split(item.command)[1]}
    copied = {word for word in words if re.match(r"(examples|inventories/prod|requirements|meta)/", word)}
    assert {word for word in copied if not word.startswith("examples/roles") and word != "requirements/lock"} <= set(names)
    # Until a release makes its page of them, the changelog names a folder.
    assert {folder.rstrip("/") for folder in re.findall(r"`([\w/]+/)`", (ROOT / "CHANGELOG.md").read_text())} <= set(names)


@pytest.mark.parametrize(("kind", "folder"), [("module", "modules"), ("filter", "filter"), ("callback", "callback"), ("lookup", "lookup")])
def test_plugins_document_themselves(installed: Path, kind: str, folder: str):
    names = [path.stem for path in (ROOT / "plugins" / folder).glob("*.py")]
    filters: dict[str, Any] = {}
    if kind == "filter":
        # A file may hold several, each of which has a page.
        for name in names:
            filters |= importlib.import_module(f"ansible_collections.slipway.stack.plugins.filter.{name}").FilterModule().filters()
        names = list(filters)
    assert names
    wanted = {f"slipway.stack.{name}" for name in names}
    # All of them in one run; it ends well also where it finds no documentation.
    done = ansible(
        "ansible-doc", "-t", kind, "--json", *sorted(wanted), cwd=installed, ANSIBLE_COLLECTIONS_PATH=str(installed / "collections")
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert {name for name, entry in shown.items() if entry.get("doc", {}).get("description")} == wanted, done.stderr
    for name, function in filters.items():
        told = set(shown[f"slipway.stack.{name}"]["doc"]["options"]) - {"_input"}
        assert told == set(list(inspect.signature(function).parameters)[1:]), name


def test_site_is_found_and_parsed_when_installed_elsewhere(installed: Path):
    inventory = installed / "prod"
    shutil.copytree(ROOT / "inventories/prod", inventory)
    done = ansible(
        "ansible-playbook",
        "slipway.stack.site",
        "--syntax-check",
        "-i",
        str(inventory),
        cwd=installed,
        ANSIBLE_COLLECTIONS_PATH=str(installed / "collections"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(installed) in done.stdout


def test_secrets_playbook_runs_when_installed_elsewhere(installed: Path):
    variables = installed / "mine/group_vars/all"
    variables.mkdir(parents=True)
    (installed / "mine/hosts.yml").write_text("all: {hosts: {one: }}\n")
    (variables / "names.yml").write_text("slipway_secrets: [vault_a]\n")
    arguments = ("slipway.stack.secrets", "-i", "mine")
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed / "collections")}
    without = ansible("ansible-playbook", *arguments, cwd=installed, **environment)
    assert without.returncode != 0
    assert "give --vault-password-file" in without.stdout
    (installed / "pass").write_text("of my own\n")
    done = ansible("ansible-playbook", *arguments, "--vault-password-file", "pass", cwd=installed, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (variables / "vault.yml").read_bytes().startswith(b"$ANSIBLE_VAULT")


def test_a_copied_environment_has_the_shared_variables(installed: Path):
    """It holds none of them itself. What its inventory file sets for all hosts is stronger."""
    shutil.copytree(ROOT / "inventories/prod", installed / "shop")
    hosts = yaml.safe_load((installed / "shop/hosts.yml").read_text())
    hosts["all"]["vars"]["slipway_product_secrets"] = ["vault_of_the_inventory_file"]
    (installed / "shop/hosts.yml").write_text(yaml.safe_dump(hosts))
    (installed / "pass").write_text("of my own\n")
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed / "collections")}
    done = ansible("ansible-playbook", "slipway.stack.secrets", "-i", "shop", "--vault-password-file", "pass", cwd=installed, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("vault_postgres_superuser_password", "vault_of_the_inventory_file"):
        assert name in done.stdout


def test_a_playbook_of_ones_own_that_imports_one_has_the_shared_variables(installed: Path):
    """Where the inventory stands next to it, too."""
    shutil.copytree(ROOT / "inventories/prod", installed / "own")
    (installed / "pass").write_text("of my own\n")
    (installed / "own/mine.yml").write_text("- ansible.builtin.import_playbook: slipway.stack.secrets\n")
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed / "collections")}
    done = ansible("ansible-playbook", "own/mine.yml", "-i", "own/hosts.yml", "--vault-password-file", "pass", cwd=installed, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "vault_postgres_superuser_password" in done.stdout


@pytest.fixture(scope="module")
def elsewhere(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """What a user has who did what docs/install.md says of an installed collection: a folder, and the settings of the environment."""
    folder = tmp_path_factory.mktemp("controller")
    page = (ROOT / "docs/install.md").read_text().partition("## An installed collection\n")[2].partition("\n## ")[0]
    settings = {"HOME": str(folder), "PATH": f"{BIN}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"}
    (folder / "ansible.cfg").write_text(textwrap.dedent(re.search(r"```ini\n(.*?)```", page, flags=re.DOTALL)[1]))
    shutil.copy2(tarball, folder)
    first = page.splitlines()[0]
    start = (ROOT / "docs/install.md").read_text().partition(first)[0].count("\n")
    for item in commands([ROOT / "docs/install.md"]):
        words = split(item.command)[1]
        if (
            not start < item.line <= start + page.count("\n")
            or re.search(r"venv|pip", item.command)
            or words[1:2] == ["slipway.stack.site"]
        ):
            continue
        # Galaxy is not asked: Ansible's package has the two others.
        command = f"{item.command} --no-deps" if words[0] == "ansible-galaxy" else item.command
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (folder / ".vault-password").stat().st_mode & 0o777 == 0o600
    assert (folder / "inventories/shop/group_vars/all/vault.yml").read_text().startswith("$ANSIBLE_VAULT")
    for name in ("pki", "tls", "hooks"):
        (folder / "inventories/shop" / name).mkdir()
        (folder / "inventories/shop" / name / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n")
    (folder / "inventories/shop/hooks/announce.yml").write_text("- ansible.builtin.debug:\n")
    own = "- ansible.builtin.import_playbook: slipway.stack.secrets\n- ansible.builtin.import_playbook: slipway.stack.status\n"
    (folder / "own.yml").write_text(own)
    return folder, settings


def test_a_stranger_gets_the_exit_status_the_output_and_the_report_of_a_checkout(elsewhere: tuple[Path, dict[str, str]]):
    folder, settings = elsewhere
    for playbook in ("slipway.stack.status", "own.yml"):
        shutil.rmtree(folder / "reports", ignore_errors=True)
        done = ansible("ansible-playbook", playbook, "-i", "inventories/shop", cwd=folder, **settings)
        # Hosts of the example do not exist: the fleet is down.
        assert done.returncode == 2, done.stdout + done.stderr
        assert "down      db1: does not answer" in done.stdout
        assert "Report: reports/status.html, reports/status-latest.json" in done.stdout
        assert "Unable to parse" not in done.stderr
        assert json.loads((folder / "reports/status-latest.json").read_text())["status"]["state"] == "down"


def test_a_stranger_gets_the_checks_of_files(elsewhere: tuple[Path, dict[str, str]]):
    """Those of an environment's other folders are no hosts, whatever ansible.cfg says."""
    folder, settings = elsewhere
    (folder / "ansible.cfg").rename(folder / "none.cfg")
    wrong = folder / "inventories/shop/group_var"
    arguments = ("slipway.stack.secrets", "-i", "inventories/shop", "--vault-password-file", ".vault-password")
    try:
        done = ansible("ansible-playbook", *arguments, cwd=folder, **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        wrong.mkdir()
        (wrong / "all.yml").write_text("slipway_stack: shop\n")
        done = ansible("ansible-playbook", *arguments, cwd=folder, **settings)
        assert done.returncode == 2
        assert "Nothing was touched. inventories/shop/group_var is not read (did you mean group_vars?)" in done.stderr
    finally:
        shutil.rmtree(wrong, ignore_errors=True)
        (folder / "none.cfg").rename(folder / "ansible.cfg")


def test_the_prober_runs_when_installed_elsewhere(installed: Path):
    target = "targets: [{address: 127.0.0.1, port: 1}], tls: false, deadline_seconds: 60"
    tasks = f"""
    - slipway.stack.release_probe: {{state: started, {target}}}
      register: probe
    - slipway.stack.release_probe: {{state: stopped, state_file: "{{{{ probe.state_file }}}}"}}
      register: totals
    - ansible.builtin.assert: {{that: [totals.ended == 'stopped', totals.probe.failed > 0, totals.probe.failed == totals.probe.requests]}}
"""
    (installed / "probe.yml").write_text(f"- hosts: localhost\n  gather_facts: false\n  tasks:{tasks}")
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed / "collections")}
    done = ansible("ansible-playbook", "probe.yml", cwd=installed, **environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_prober_needs_is_listed_for_controllers():
    project = tomllib.loads((ROOT / "packages/slipway_prober/pyproject.toml").read_text())["project"]
    assert project["version"] == yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    assert project["dependencies"]
    assert set(project["dependencies"]) <= set((ROOT / "meta/requirements.txt").read_text().splitlines())


def test_names_resolve_from_a_plain_clone():
    for name in ("site", "secrets"):
        done = ansible("ansible-playbook", f"slipway.stack.{name}", "--syntax-check", "-i", "inventories/prod", cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr


def test_versions_on_galaxy_are_those_of_the_ansible_package():
    listed = yaml.safe_load((ROOT / "collections/requirements.yml").read_text())["collections"]
    assert "community.docker" in {item["name"] for item in listed}
    carried = ansible("ansible-galaxy", "collection", "list", "--format", "yaml", cwd=ROOT, ANSIBLE_COLLECTIONS_PATH="none")
    site = next(path for path in yaml.safe_load(carried.stdout).items() if "community.docker" in path[1])[1]
    for item in listed:
        assert str(item["version"]) == site[item["name"]]["version"], item["name"]


def test_the_package_that_is_locked_is_the_one_that_is_tested():
    locked = [line for path in ROOT.glob("requirements/*.txt") for line in path.read_text().splitlines() if line.startswith("ansible==")]
    assert locked, "requirements/ pins the package ansible"
    shown = ansible("ansible-community", "--version", cwd=ROOT).stdout
    assert all(line.split("==")[1].split()[0] in shown for line in locked), (BIN, shown)


PROGRAMS = [
    path
    for path in tracked_files()
    if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in {"packages", "plugins", "roles"} and "tests" not in path.parts
]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_ansible_test_refuses_is_not_written(path: Path):
    """It takes minutes to say so (make sanity); these are what is written without a thought."""
    text = path.read_text()
    tree = ast.parse(text)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    assert "_" not in names, "ansible-test takes _ for a translation: name what is not used _unused"
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)], "raise AssertionError"
    authors = re.findall(r"^author:(?:\n  -)? *(.+)$", text, flags=re.MULTILINE)
    assert all(author.endswith("(!UNKNOWN)") for author in authors), "say author: The Slipway authors (!UNKNOWN)"
