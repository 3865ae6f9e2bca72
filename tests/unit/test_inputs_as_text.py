# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs may come as text, as all do with -e NAME=VALUE: true and false, and numbers, must mean the same then.

Ansible refuses a string as the result of a condition, and Jinja takes "false" for true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from jinja2 import Environment, nodes

from ansible_collections.slipway.stack.plugins.plugin_utils import app_services, extra_services
from ansible_collections.slipway.stack.plugins.plugin_utils.forms import KINDS, Form, parsed
from ansible_collections.slipway.stack.plugins.plugin_utils.plan import container_options, normalize
from conftest import ROOT, ansible, balanced, plan_of, role_variable, tracked_files

ENVIRONMENT = Environment(autoescape=True, extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"])
# Bare expressions, without braces.
CONDITIONS = {"when", "changed_when", "failed_when", "until", "that"}
TOLD_SWITCH = re.compile(r"-e (\w+)=(?:true|false|yes|no)\b")
SPELLINGS = {True: ("true", "Yes"), False: ("false", "No")}


class Use(NamedTuple):
    """A place where a boolean is read as it came."""

    name: str
    line: int
    #: Whether it is all there is to the value, which then is as good as what takes it.
    whole: bool


@cache
def options(role: str) -> dict[str, dict[str, Any]]:
    read = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())
    found: dict[str, dict[str, Any]] = read["argument_specs"]["main"].get("options", {})
    return found


@cache
def boolean_inputs() -> frozenset[str]:
    """Return the roles' inputs that are true or false."""
    roles = [path.parents[1].name for path in ROOT.glob("roles/*/meta/argument_specs.yml")]
    return frozenset(name for role in roles for name, spec in options(role).items() if spec.get("type") == "bool")


@cache
def switches() -> frozenset[str]:
    """Return the roles' boolean inputs, and the variables of playbooks that documents or messages ask users to set to true or false."""
    told = [path for path in tracked_files() if path.suffix == ".md" or path.is_relative_to(ROOT / "playbooks")]
    names = {name for path in told for name in TOLD_SWITCH.findall(path.read_text())}
    for path in (ROOT / "playbooks").glob("*.yml"):
        for play in yaml.safe_load(path.read_text()):
            names |= {name for name, value in play.get("vars", {}).items() if isinstance(value, bool) and not name.startswith("__")}
    return frozenset(names | boolean_inputs())


def names_of(node: nodes.Node) -> str:
    """Return the name of the boolean that a node reads, if it does."""
    if isinstance(node, nodes.Name) and node.ctx == "load" and node.name in switches():
        return node.name
    # A host's, as hostvars has them. Names of playbooks' variables are too common for this.
    name = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", "") if isinstance(node, nodes.Getitem) else ""
    return str(name) if name in boolean_inputs() else ""


def unguarded(template: nodes.Template) -> Iterator[Use]:
    """Yield the uses of a boolean that do not go through the filter bool."""

    def visit(node: nodes.Node, above: tuple[nodes.Node, ...]) -> Iterator[Use]:
        name, inner = names_of(node), node
        if name:
            around = list(above)
            while isinstance(around[-1], nodes.Filter) and around[-1].name == "default" and around[-1].node is inner:
                inner = around.pop()
            outer = around[-1]
            made = isinstance(outer, nodes.Filter) and outer.name == "bool" and outer.node is inner
            if not made and not (isinstance(outer, nodes.Test) and outer.name == "defined"):
                yield Use(name, node.lineno, whole=isinstance(outer, nodes.Output) and template.body == [outer] and outer.nodes == [inner])
        for child in node.iter_child_nodes():
            yield from visit(child, (*above, node))

    yield from visit(template, ())


@cache
def takes_boolean(module: str, option: str) -> bool:
    """Return whether the code of one of our modules, or its action plugin, makes a boolean of an option."""
    paths = [ROOT / "plugins" / kind / f"{module.removeprefix('slipway.stack.')}.py" for kind in ("action", "modules")]
    return any(f'"{option}": {{"type": "bool"' in path.read_text() for path in paths if path.is_file())


def line_in(text: str, node: yaml.ScalarNode, use: Use) -> int:
    """Return the line of a use; of a folded text the parser does not know it."""
    lines = range(node.start_mark.line, node.end_mark.line + 1)
    bare = re.compile(rf"\b{use.name}\b(?!\s*(?:\|\s*default\([^)]*\)\s*)?\|\s*bool\b)")
    return next((line for line in lines if bare.search(text.splitlines()[line])), node.start_mark.line) + 1


def yaml_misuses(text: str) -> Iterator[tuple[str, int]]:
    """Yield name and line of each misuse in a YAML file of tasks, plays or variables."""

    def visit(node: yaml.Node, keys: tuple[str, ...]) -> Iterator[tuple[str, int]]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield from visit(value, (*keys, str(key.value)))
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                yield from visit(value, keys)
        elif isinstance(node, yaml.ScalarNode):
            condition = keys[-1] in CONDITIONS
            written = f"{{{{ ({node.value}) }}}}" if condition and "{{" not in node.value else node.value
            for use in unguarded(ENVIRONMENT.parse(written)) if "{{" in written or "{%" in written else ():
                handed = use.whole and not condition and (keys[-1] in boolean_inputs() or takes_boolean(*keys[-2:]))
                if not handed:
                    yield use.name, line_in(text, node, use)

    top = yaml.compose(text, Loader=yaml.SafeLoader)
    # What an alias stands for is visited once more where it stands.
    return iter(sorted(set(visit(top, ("", ""))))) if top else iter(())


def misuses(path: Path) -> list[str]:
    """Return a sentence for each misuse in a file."""
    text = path.read_text()
    if path.suffix == ".j2":
        found: Any = [(use.name, use.line) for use in unguarded(ENVIRONMENT.parse(text))]
    else:
        found = yaml_misuses(text)
    return [f"{path.relative_to(ROOT)}:{line}: write {name} | bool, as it may be a string" for name, line in found]


def test_booleans_are_known():
    assert {"app_standby", "release_probe", "nginx_maintenance"} <= boolean_inputs()
    assert {"backup_run_full", "list", "remove", "restore_discard_old", "restore_undo", "ship"} <= switches()


def test_every_use_of_a_boolean_makes_one_of_it():
    below = {
        "roles": {"tasks", "handlers", "vars", "defaults", "templates", "shared.yml"},
        "playbooks": {"playbooks"},
        "group_vars": {"group_vars"},
    }
    files = [
        path
        for path in tracked_files()
        for top, *_rest in [path.relative_to(ROOT).parts]
        if path.suffix in {".yml", ".j2"} and below.get(top, set()) & set(path.relative_to(ROOT).parts)
    ]
    assert len(files) > 80
    found = [sentence for path in files for sentence in misuses(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ("- when: release_probe", [1]),
        ("- when:\n    - true\n    - not release_probe", [3]),
        ("- when: release_probe | default(true)", [1]),
        ("- ansible.builtin.assert:\n    that: release_probe or list", [2, 2]),
        ("x: >-\n  {{ 1 if release_probe | bool else 2 }}\n  {{ 1 if release_probe else 2 }}", [3]),
        ('x: "{{ 1 if true and nginx_maintenance else 2 }}"', [1]),
        ("x: \"{{ hostvars.one.app_standby }}{{ hostvars.one['app_migrate'] }}\"", [1, 1]),
        ('__release_on: "{{ release_probe }}"', [1]),
        ('- slipway.stack.release_plan: {rollback: "{{ release_rollback }}", folder: "{{ release_rollback }}"}', [1]),
        # Whatever comes from elsewhere is given a boolean.
        ('- ansible.builtin.file: {force: "{{ image_replace }}"}', [1]),
        ("- when: release_probe | bool and not (ship | default(false) | bool) and app_migrate is defined", []),
        ("x: \"{{ 'release_probe' ~ release_probe_targets ~ (x | list) }}\"", []),
        ('release_standby: "{{ app_standby | default(false) }}"', []),
        ('- slipway.stack.release_plan: {rollback: "{{ release_rollback }}"}', []),
    ],
)
def test_a_misuse_is_found(written: str, lines: list[int]):
    assert [line for _name, line in yaml_misuses(written)] == lines


# What the declarations need to have every part in them.
INPUTS: dict[str, dict[str, Any]] = {
    "app": {
        "app_services": {
            "backend": {
                "image": "shop/backend:2.4",
                "port": 8000,
                "command": ["serve"],
                "secrets": {"SECRET_KEY": "secret-key-1"},
                "migrate": {"command": ["migrate"]},
            },
            "frontend": {"image": "shop/frontend:2.4", "port": 3000},
        },
        "app_version": "2.4",
        "app_publish_address": "10.0.0.1",
    },
    "acme": {
        "acme_names": ["shop.example"],
        "acme_account_secret": "account-secret-1",
        "role_path": str(ROOT / "roles/acme"),
    },
    "backup": {
        "backup_postgres_host": "postgres",
        "backup_postgres_password": "postgres-password-1",
        "backup_redis_host": "redis",
        "backup_redis_password": "redis-password-1",
        "backup_chroma_url": "http://chroma:8000",
        "backup_offsite_password": "offsite-password-1",
        "backup_offsite_ssh_key": "",
        "backup_offsite_environment": {},
    },
    "chroma": {"chroma_publish_address": "10.0.0.1"},
    "exporters": {
        "exporters_programs": [{"role": "exporters", "port": 9100, "command": ["prometheus-node-exporter"]}],
        "exporters_publish_address": "10.0.0.1",
    },
    "extra_services": {"extra_services_by_name": {"search": {"image": "search:1", "port": 7700}}},
    "jobs": {"jobs_services": {"app_services": {"cleanup": {"image": "shop/backend:2.4", "schedule": "daily"}}}},
    "monitoring": {
        "monitoring_targets": [{"role": "exporters", "host": "one", "address": "exporters:9100"}],
        "monitoring_probes": [{"host": "one", "address": "nginx:8443", "names": ["docs.example"]}],
        "monitoring_webhook_urls": ["http://hooks.example/alerts"],
    },
    "nginx": {
        **balanced(servers=["10.0.0.1:8000", "10.0.0.2:8000"]),
        "nginx_server_names": ["shop.example"],
    },
    "postgres": {
        "postgres_superuser_password": "superuser-password-1",
        "postgres_owner_password": "owner-password-1",
        "postgres_app_password": "app-password-1",
        "postgres_backup_user": {"name": "backup", "password": "backup-password-1"},
        "postgres_publish_address": "10.0.0.1",
    },
    "redis": {"redis_app_password": "app-password-1", "redis_admin_password": "admin-password-1", "redis_publish_address": "10.0.0.1"},
    "registry": {},
    "volume_server": {
        "volume_server_volumes": ["uploads"],
        "volume_server_publish_address": "10.0.0.1",
        "volume_server_password": "volumes-password-1",
        "container_service_host_state": {"host": {"cores": 4}},
    },
    "watchdog": {},
}
# They concern what a release leaves running, what backup.yml does and what a run asks others, and no declaration.
BESIDE_DECLARATIONS = {"app_standby", "backup_accept_offsite_password", "backup_run_full", "acme_check_from_controller"}


def services(role: str, **inputs: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = role_variable(role, f"__{role}_services", {**INPUTS[role], **inputs})
    return found


def test_all_roles_with_declarations_are_compared():
    declare = [path for path in ROOT.glob("roles/*/vars/main.yml") if re.search(r"^__\w+_services:", path.read_text(), re.MULTILINE)]
    assert set(INPUTS) == {path.parents[1].name for path in declare}


@pytest.mark.parametrize(("role", "name"), [(role, name) for role in INPUTS for name in options(role) if name in boolean_inputs()])
def test_a_boolean_given_as_text_declares_the_same(role: str, name: str):
    declared = {value: services(role, **{name: value}) for value in (True, False)}
    assert (declared[True] != declared[False]) is (name not in BESIDE_DECLARATIONS)
    for value, texts in SPELLINGS.items():
        for text in texts:
            assert services(role, **{name: text}) == declared[value], text


def test_a_users_replication_given_as_text_declares_the_same():
    def declared(replication: Any, limit: Any) -> list[dict[str, Any]]:
        user = {"name": "report", "password": "report-password-1", "access": "read", "replication": replication, "connection_limit": limit}
        return services("postgres", postgres_users=[user])

    assert declared(True, 5) != declared(False, 5)
    for value, texts in SPELLINGS.items():
        for text in texts:
            assert declared(text, "5") == declared(value, 5), text


def typed_members(form: Form, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield where a form has booleans and numbers inside of it; "" stands for each member of a list or map."""
    if form.kind == "boolean" or (form.kind in KINDS and KINDS[form.kind].number):
        yield path
    if form.members:
        yield from typed_members(form.members, (*path, ""))
    for name, member in form.fields.items():
        yield from typed_members(member, (*path, name))


MEMBERS = list(typed_members(app_services.form_of_service()))
#: What a service needs for its members to mean something, by what they are in.
AROUND: dict[str, dict[str, Any]] = {
    "volumes": {"name": "uploads", "path": "/srv"},
    "routes": {"path": "/", "limit_req_rate": "10r/s"},
    "migrate": {"command": ["m"]},
    "backup": {"before": ["b"], "after": ["a"]},
}
WEB: dict[str, Any] = {
    "image": "shop/api:1", "port": 8000, "secrets": {"KEY": "x"}, "routes": [{"path": "/"}], "volumes": [{"name": "data", "path": "/data"}],
}  # fmt: skip


def service_with(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return the keys of a service of which one, or a member of one, has a value."""
    key, *inner = path
    if inner:
        value = {**AROUND[key], inner[-1]: value}
    return {**WEB, key: [value] if "" in inner else value, **({"schedule": "daily", "port": None} if key == "deadline_seconds" else {})}


def follows_from(service: dict[str, Any]) -> str:
    """Return all that follows from a service: what runs, what nginx serves to whom, what clients reach, what is copied and refused."""
    settings: dict[str, Any] = {
        "slot": "blue", "version": "1", "publish_address": "10.0.0.1", "slot_port_offset": 100, "host_header": "", "migrate": True,
        "start_script": "", "quiesce_script": "", "backup_script": "", "host": {"memory_mb": 4096, "cores": 2},
    }  # fmt: skip
    product = {"app_services": {"api": service}}
    values = {**product, "slipway_service_address": "10.0.0.1", "group_names": ["app"]}
    hostvars = {"one": values, "elsewhere": values}
    balanced_services = app_services.balanced(["one"], hostvars, "elsewhere", {"live": "blue", "previous": "green"})
    extra = {"api": {**service, "hosts": "app"}}
    declared = app_services.declarations(product, settings) + extra_services.declarations(extra, ["app"], [], settings)
    return json.dumps(
        [
            [container_options(normalize(item), "shop", "/etc/slipway", "app", "1.45") for item in declared],
            [item["volumes"] for item in declared],
            app_services.sites(balanced_services, ["a.example"], access={**app_services.ACCESS_KEYS, "auth_basic": "Staff"}),
            app_services.published_ports(values, "10.0.0.1", []),
            app_services.limits_clients(product),
            app_services.public_paths(product),
            app_services.summary(product, "shop", "blue"),
            app_services.jobs(product),
            app_services.mistakes(product),
            [extra_services.kept_volumes(item) for item in extra_services.services(extra).values()],
            [item.backup_seconds(60) for item in app_services.services(product).values()],
            [declaration["wrapper"] for declaration in declared],
        ],
        default=str,
        sort_keys=True,
    )


@pytest.mark.parametrize("path", MEMBERS, ids=".".join)
def test_a_member_of_a_service_given_as_text_means_the_same(path: tuple[str, ...]):
    """`internal: "{{ shop_internal }}"` with -e shop_internal=false must not open a protected site."""
    is_boolean = kind_of(path) == "boolean"
    texts: dict[Any, tuple[str, ...]] = (
        {True: ("true", "Yes", "on", "1"), False: ("false", "No", "off", "0")} if is_boolean else {32: ("32",), 64: ("64",)}
    )
    meant = {value: follows_from(service_with(path, value)) for value in texts}
    assert len(set(meant.values())) == len(texts)
    for value, written in texts.items():
        for text in written:
            assert follows_from(service_with(path, text)) == meant[value], text


def kind_of(path: tuple[str, ...]) -> str:
    """Return the kind of a member of a service's form."""
    form = app_services.form_of_service()
    for name in path:
        form = form.fields[name] if name else form.members  # type: ignore[assignment]
    return form.kind


# Of roles' inputs with booleans and numbers inside: what reads each of them makes numbers and booleans of them.
MEMBERS_READ_BY_ROLES = {
    *("backup_retention", "backup_volumes", "container_service_read_ports", "exporters_programs", "host_restricted_ports"),
    *("nginx_error_pages", "postgres_settings", "postgres_users", "release_probe_targets", "volume_server_dumps", "volume_server_quiesced"),
}


def test_no_other_input_has_members_that_may_come_as_text():
    """A new one must go through `typed`, or convert them where it is read."""
    found = set()
    for path in ROOT.glob("roles/*/meta/forms.yml"):
        for name, declared in (yaml.safe_load(path.read_text()) or {}).items():
            if isinstance(declared, dict) and "" not in declared and any(typed_members(parsed(declared))):
                found.add(name)
    assert found - set(app_services.VARIABLES) == MEMBERS_READ_BY_ROLES


def numbers(role: str) -> dict[str, Any]:
    """Return a number for each of a role's inputs that takes one: its default where that is a plain one."""
    found: dict[str, Any] = {}
    for name, spec in options(role).items():
        kind = spec.get("type")
        if kind in {"int", "float"}:
            default = spec.get("default")
            found[name] = default if isinstance(default, (int, float)) else 300 if kind == "int" else 1.5
        elif kind == "dict" and isinstance(spec.get("default"), dict) and set(map(type, spec["default"].values())) == {int}:
            found[name] = spec["default"]
    return found


# Those of the other two need the state of a host.
@pytest.mark.parametrize("role", [role for role in INPUTS if role not in ("jobs", "extra_services")])
def test_nothing_of_a_declaration_is_left_to_template(role: str):
    """Ansible does not template the keys of a dictionary."""
    for item in services(role):
        options = container_options(normalize(item), "shop", "/etc/slipway", role, "1.45")
        assert "{{" not in json.dumps([options["name"], options["volumes"], options["published_ports"], list(item.get("host_files", {}))])


# Of the inputs of these roles none is a number.
@pytest.mark.parametrize("role", [role for role in INPUTS if role not in ("jobs", "extra_services")])
def test_a_number_given_as_text_plans_the_same(role: str):
    """Of the declarations themselves, ports and the like may be either: what counts is what is made of them."""
    given = numbers(role)
    texts = {
        name: {key: str(part) for key, part in value.items()} if isinstance(value, dict) else str(value) for name, value in given.items()
    }
    assert len(given) > 1
    wanted, found = services(role, **given), services(role, **texts)
    assert plan_of(found) == plan_of(wanted)
    assert [item.get("converge") for item in found] == [item.get("converge") for item in wanted]


def test_no_shared_memory_given_as_text_is_none():
    plan = plan_of(services("postgres", postgres_shm_mb="0"))
    assert "shm_size" not in plan["services"][0]["options"]


def test_conditions_take_a_string(checkout: Path):
    """As users give them: what is switched off is skipped, and no condition fails."""
    (checkout / "playbooks/switched_off.yml").write_text(
        "- hosts: one\n  gather_facts: false\n  tasks:\n"
        + "".join(
            f"    - ansible.builtin.include_role:\n        {{name: slipway.stack.{role}, tasks_from: {tasks}, rolespec_validate: false}}\n"
            for role, tasks in (("release", "preflight/prober"), ("app", "migrate"))
        )
    )
    told = [
        "-e",
        "release_probe=false",
        "-e",
        "app_migrate=no",
        "-e",
        json.dumps({"release_probe_targets": [{}], "app_migrate_command": ["x"]}),
    ]
    done = ansible("ansible-playbook", "playbooks/switched_off.yml", "-i", "inventories/test", *told, "-e", "app_version=1", cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"ok=3 +changed=0 .* skipped=5 ", done.stdout), done.stdout
