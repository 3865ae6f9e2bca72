"""Rules of this repository that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import RoleFiles
from ansible_collections.slipway.stack.plugins.plugin_utils.topology import SHARED, VALUES, shared_files
from conftest import ROOT, tracked_files

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = {path.name for path in (ROOT / "playbooks").glob("*.yml")}
DOCUMENTS = [path for path in tracked_files() if path.suffix == ".md"]
IMAGE = re.compile(r"^[a-z0-9][\w./-]*(:\d+)?[\w./-]*:(?!latest$)[\w][\w.-]*(@sha256:[0-9a-f]{64})?$")


class Loader(yaml.SafeLoader):
    """Reads Ansible's YAML; the values of its own tags do not matter here."""


Loader.add_multi_constructor("!", lambda _loader, suffix, _node: suffix)


@cache
def read(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=Loader)


def specs(role: str) -> dict[str, dict[str, Any]]:
    return read(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]["main"].get("options", {})


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Roles


def test_the_roles_are_there():
    assert {"container_service", "host", "postgres", "redis", "chroma", "app", "nginx"} <= set(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_defaults_equal_the_argument_specification(role: str):
    path = ROOT / "roles" / role / "defaults/main.yml"
    defaults = (read(path) or {}) if path.exists() else {}
    optional = {name: spec for name, spec in specs(role).items() if not spec.get("required")}
    assert list(defaults) == list(optional), "same inputs in the same order"
    assert {name: spec.get("default") for name, spec in optional.items()} == defaults


@pytest.mark.parametrize("role", ROLES)
def test_every_input_is_described_in_one_sentence(role: str):
    for name, spec in specs(role).items():
        description = spec.get("description")
        assert isinstance(description, str), name
        assert description.endswith("."), name
        assert not re.search(r"\.\s+[A-Z]", description), f"{name}: one sentence"


@pytest.mark.parametrize("role", ROLES)
def test_inputs_are_named_after_their_role_and_required_ones_have_no_default(role: str):
    for name, spec in specs(role).items():
        assert name.startswith(f"{role}_"), name
        assert not (spec.get("required") and "default" in spec), name


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_what_their_inputs_take(role: str):
    for name, spec in specs(role).items():
        if "default" in spec and "{{" not in str(spec["default"]):
            assert not ArgumentSpecValidator({name: spec}).validate({name: spec["default"]}).error_messages


@pytest.mark.parametrize("role", ROLES)
def test_documented_entry_points_exist(role: str):
    folder = ROOT / "roles" / role
    # Keys of a dictionary among the inputs are described as the options of a role are; nothing can be called by that name.
    told = set(read(folder / "meta/argument_specs.yml")["argument_specs"]) - {"service"}
    page = folder / "README.md"
    if page.is_file():
        told |= set(re.findall(r"^- `(\w+)`", page.read_text().partition("## Entry points")[2].partition("\n## ")[0], flags=re.MULTILINE))
    assert told <= {path.stem for path in (folder / "tasks").glob("*.yml")}


def names_that_tasks_set(value: Any) -> Iterator[str]:
    """Yield the variables that tasks set, by whichever keyword."""
    if isinstance(value, list):
        for member in value:
            yield from names_that_tasks_set(member)
    elif isinstance(value, dict):
        for key in ("vars", "ansible.builtin.set_fact"):
            yield from value.get(key) or ()
        yield from filter(None, [value.get("register"), (value.get("loop_control") or {}).get("loop_var")])
        yield from names_that_tasks_set(list(value.values()))


#: Results of a role's tasks that other roles, plugins and playbooks read.
RESULTS = {"container_service_host_state", "container_service_plan", "nginx_reverted", "release_decision", "release_plan", "restore_plan"}


def test_what_tasks_set_is_an_input_of_an_entry_point_or_internal():
    known = set(RESULTS)
    for role in ROLES:
        for entry in read(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"].values():
            known |= set(entry.get("options", {}))
        variables = ROOT / "roles" / role / "vars/main.yml"
        known |= set(read(variables)) if variables.exists() else set()
    wrong = {
        f"{name_of(path)}: {name}"
        for part in ("roles/*/tasks", "roles/*/handlers", "playbooks")
        for path in ROOT.glob(f"{part}/**/*.yml")
        for name in names_that_tasks_set(read(path))
        if name.startswith(tuple(f"{role}_" for role in ROLES)) and name not in known
    }
    assert not wrong


@pytest.mark.parametrize("role", ROLES)
def test_inputs_have_an_effect(role: str):
    files = [path for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*") if path.is_file()]
    own = [ROOT / "roles" / role / name for name in ("README.md", "defaults/main.yml", "meta/argument_specs.yml", SHARED)]
    code = "\n".join(path.read_text(errors="replace") for path in files if path not in own)
    defaults = "\n".join(str(value) for value in read(own[1]).values())
    assert not [name for name in specs(role) if not re.search(rf"\b{name}\b", f"{code}\n{defaults}")]


@pytest.mark.parametrize("role", ROLES)
def test_no_role_names_a_group(role: str):
    names = re.compile(r"\bgroups\s*(?:[\[.|]|\bis\b)|\bin groups\b|\bgroup_names\b|^\s*-?\s*hosts:\s")
    for path in (ROOT / "roles" / role).rglob("*"):
        # What is described there may be called so, as the key hosts of a service is.
        if path.suffix in (".yml", ".j2") and (path.parent.name != "meta" or path.match(SHARED)):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                assert not names.search(line.split("#", 1)[0]), f"{name_of(path)}:{number}: {line.strip()}"


def test_images_are_repository_and_version():
    images: dict[str, str] = {}
    for role in ROLES:
        images |= {
            f"{role}: {name}": spec["default"] for name, spec in specs(role).items() if name.endswith("_image") and spec.get("default")
        }
    images |= {f"{VALUES.name}: {name}": value for name, value in read(VALUES).items() if name.endswith("_image")}
    assert images
    wrong = {name: value for name, value in images.items() if "{{" not in value and not IMAGE.match(value)}
    assert not wrong


def test_values_shared_by_roles_are_read_in_defaults_only():
    for role in ROLES:
        for folder in ("tasks", "templates", "vars", "handlers"):
            for path in (ROOT / "roles" / role / folder).rglob("*"):
                if path.is_file():
                    # In quotes it is the name of a package.
                    found = re.findall(r"\{\{[^}]*(?<!')\bslipway_\w+", path.read_text(errors="replace"))
                    assert not found, f"{name_of(path)} reads {found}"


def constants(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and value of each string of a program, without documentation."""
    tree = ast.parse(source)
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    told = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    told += [node.value for node in assigned if getattr(node.targets[0], "id", "") in ("DOCUMENTATION", "EXAMPLES", "RETURN")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in told:
            yield node.lineno, node.value


def test_no_service_of_a_product_is_known_by_name():
    """A product is a map of services. The networks are called backend and frontend, too, and Docker has an option firewall-backend."""
    folders = ("tasks", "vars", "defaults", "templates", "handlers")
    files = [
        path for folder in folders for path in (ROOT / "roles").glob(f"*/{folder}/**/*") if path.is_file() and "files" not in path.parts
    ]
    lines = [
        (path, number, line)
        for path in [*files, *(ROOT / "playbooks").rglob("*.yml"), *shared_files()]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if not re.search(r"networks:|^  (backend|frontend): \{\}$", line)
    ]
    for folder in ("plugins", "playbooks/vars_plugins"):
        lines += [
            (path, number, text)
            for path in (ROOT / folder).rglob("*.py")
            for number, text in constants(path.read_text())
            if not re.match(r"[A-Z_]*NETWORKS = ", path.read_text().splitlines()[number - 1])
        ]
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path, number, line in lines
        if re.search(r"(?<!firewall-)\b(backends?|frontends?)\b", line)
    ]
    assert not found


def test_shared_variables_have_a_place():
    # Those of a task or of a play, and what a playbook registers. A name that ends in an ellipsis stands for several.
    own = {"slipway_checked", "slipway_ending", "slipway_fleet", "slipway_report"}
    used: set[str] = set()
    for path in [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/*/defaults/*.yml"), *shared_files()]:
        used |= set(re.findall(r"(?<![\w'/])slipway_\w+\b(?!\.py|…)", path.read_text()))
    known = RoleFiles().known_names()["slipway"]
    assert used - own == known


# Playbooks

#: Lines of playbooks whose work is that of one role; all others may have a few tasks of their own.
SHORT = {"restore.yml": 60, "drill.yml": 60}
LONGEST = 120


@pytest.mark.parametrize("name", sorted(PLAYBOOKS))
def test_a_playbook_says_who_does_what_in_which_order_and_roles_say_how(name: str):
    lines = len((ROOT / "playbooks" / name).read_text().splitlines())
    assert lines <= SHORT.get(name, LONGEST), "move tasks to the roles that they belong to, or to playbooks/tasks"


# The repository


def test_links_lead_somewhere_inside():
    links = [
        path for path in ROOT.rglob("*") if path.is_symlink() and not {".venv", ".git", "node_modules", ".lab", ".cache"} & set(path.parts)
    ]
    assert len(links) >= 6
    for link in links:
        target = link.readlink()
        assert not target.is_absolute(), name_of(link)
        assert link.resolve().is_relative_to(ROOT), name_of(link)
        assert link.exists(), f"{name_of(link)} leads to no file"


def test_no_environment_holds_a_shared_variable_as_it_stands():
    shared = RoleFiles().shared()
    folders = [ROOT / "inventories" / name for name in ("lab", "prod")]
    files = [path for folder in folders for path in folder.rglob("*.yml")]
    assert {path.name for path in files} >= {"10_environment.yml", "20_product.yml"}
    for path in files:
        values = read(path)
        # Of a lab that is up there is an encrypted file, too.
        if isinstance(values, dict):
            assert not {name for name, value in values.items() if name in shared and shared[name] == value}, name_of(path)


def test_only_the_topology_knows_which_hosts_are_in_a_group():
    """Roles have a test of their own, test_no_role_names_a_group."""
    names = re.compile(r"\bgroups\s*[\[|.]|\bin groups\b|\bgroup_names\b")
    for path in [*ROOT.glob("playbooks/**/*.yml"), *shared_files()]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not names.search(line.partition("#")[0]), f"{name_of(path)}:{number}: {line.strip()}"


def test_no_file_holds_a_path_of_this_machine_or_a_registry_host():
    # Written so that the rule does not find itself.
    hosts = ("deb.debian" + ".org", "security.debian" + ".org", "pypi" + ".org", "pythonhosted" + ".org", "registry.npm" + "js")
    pattern = "|".join([re.escape("/" + "work/"), *map(re.escape, hosts)])
    found = subprocess.run(["git", "grep", "-nIE", "--untracked", pattern], cwd=ROOT, capture_output=True, text=True, check=False)
    # 1 says that nothing was found; an error would say nothing either.
    assert found.returncode == 1, found.stdout + found.stderr


def test_no_secret_in_plain_text_is_tracked():
    for path in tracked_files():
        assert path.name not in (".vault-password", ".env"), name_of(path)
        if path.name == "vault.yml":
            assert path.read_bytes().startswith(b"$ANSIBLE_VAULT"), name_of(path)


def test_python_files_say_their_license():
    for path in tracked_files():
        if path.suffix == ".py" and "tests" not in path.parts and any(map(path.is_relative_to, (ROOT / "plugins", ROOT / "packages"))):
            assert "SPDX-License-Identifier: GPL-3.0-or-later" in path.read_text(), name_of(path)


def imported_plugins(path: Path) -> set[Path]:
    """Return the collection's own files that a plugin imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ansible_collections.slipway.stack."):
            names = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
            files = [ROOT.joinpath(*str(name).split(".")[3:]).with_suffix(".py") for name in names]
            found |= {file for file in files if file.is_file()}
    return found


def test_module_utils_holds_host_code_only():
    """What runs on the controller alone is in plugin_utils or a package of its own; what runs on hosts imports none of that."""
    travels: set[Path] = set()
    packages = [ROOT / "packages" / name / "src" for name in ("slipway_backup", "slipway_jobs", "slipway_watchdog")]
    programs = {path for package in packages for path in package.rglob("*.py")}
    wanted = {*(ROOT / "plugins/modules").glob("*.py"), *programs}
    while wanted:
        travels |= wanted
        wanted = set().union(*map(imported_plugins, wanted)) - travels
    imported = {path for path in travels if path.parent.name == "module_utils"}
    assert not {name_of(path) for path in travels - programs if path.parent.name in {"plugin_utils", "action"} or "packages" in path.parts}
    assert set((ROOT / "plugins/module_utils").glob("*.py")) == imported


def test_templates_say_who_manages_the_file_and_hold_no_time():
    # Formats without comments, what clients get, what is hashed as it stands, and a part of other templates.
    silent = {".json", "health_conninfo", "maintenance.html", "pgpass", "settings", "users.acl"}
    templates = [path for path in tracked_files() if path.suffix == ".j2" and path.is_relative_to(ROOT / "roles")]
    assert len(templates) > 10
    for path in templates:
        text = path.read_text()
        assert not re.search(r"ansible_date_time|\bnow\(", text), name_of(path)
        if not {path.stem, Path(path.stem).suffix} & silent:
            assert "ansible_managed" in text.splitlines()[0] + text.splitlines()[1], name_of(path)


# Documentation


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_of_documents_are_valid(path: Path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        linked = (path.parent / place).resolve() if place else path
        assert linked.exists(), f"{name_of(path)} links {target}"
        if anchor:
            headings = re.findall(r"^#+\s+(.*)$", linked.read_text(), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{name_of(path)} links {target}"


def test_there_is_a_readme():
    assert ROOT / "README.md" in DOCUMENTS


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_of_documents_exist(path: Path):
    text = path.read_text()
    code = "\n".join(re.findall(r"```.*?```|`[^`]+`|^(?: {4}|\t).*$", text, flags=re.DOTALL | re.MULTILINE))
    for playbook in re.findall(r"ansible-playbook\s+(?:playbooks/(\S+\.yml)|slipway\.stack\.(\w+))", code):
        name = playbook[0] or f"{playbook[1]}.yml"
        assert name in PLAYBOOKS, f"{name_of(path)} runs {name}"
    wanted = set(re.findall(r"(?:^|[`\s;&])make\s+([a-z][\w-]*)", code, flags=re.MULTILINE))
    if wanted:
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
        assert wanted <= targets, f"{name_of(path)} makes {wanted - targets}"
