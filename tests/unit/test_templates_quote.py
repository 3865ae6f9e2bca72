"""No template writes a value as it is: each goes through the quoting function of the format, or is a number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Environment, nodes

from ansible_collections.slipway.stack.plugins.filter.quoting import FORMS
from conftest import ROOT

ENVIRONMENT = Environment(autoescape=True, extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"])
# Not formats: names of sites are lists, and a path in logrotate's quotes is one.
QUOTING = {f"slipway.stack.{name}" for name in FORMS if name not in {"concrete_server_name", "server_names"}}
# What gives numbers, JSON, and hexadecimal digits alone.
SAFE = {"int", "to_json", "to_nice_json", "slipway.stack.redis_password_hash"}
TEMPLATES = sorted(ROOT.glob("roles/*/templates/*"))


def quoted(node: nodes.Node, names: set[str]) -> bool:
    """Return whether what a node gives can be written."""
    if isinstance(node, nodes.TemplateData | nodes.Const):
        return True
    if isinstance(node, nodes.Filter):
        if node.name == "comment":
            return isinstance(node.node, nodes.Name) and node.node.name == "ansible_managed"
        return node.name in QUOTING | SAFE
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Mul | nodes.Add):
        # Numbers: a string times a number would be one too.
        return all(quoted(side, names) for side in (node.left, node.right))
    # A template within a template is one of those that are looked at, and so is a macro of its own.
    called = isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name)
    if called and node.node.name in names:
        return True
    return (
        called and node.node.name == "lookup" and isinstance(node.args[0], nodes.Const) and node.args[0].value == "slipway.stack.rendered"
    )


def unquoted(text: str) -> Iterator[int]:
    """Yield the lines of a template that write a value as it is."""
    template = ENVIRONMENT.parse(text)
    assigned = list(template.find_all(nodes.Assign))
    names = {node.target.name for node in assigned if isinstance(node.target, nodes.Name) and quoted(node.node, set())}
    # A name that is given something else in another place does not count.
    names -= {node.target.name for node in assigned if isinstance(node.target, nodes.Name) and not quoted(node.node, set())}
    names |= {macro.name for macro in template.find_all(nodes.Macro)}
    for output in template.find_all(nodes.Output):
        yield from (part.lineno for part in output.nodes if not quoted(part, names))


def test_there_are_templates():
    assert len(TEMPLATES) > 25


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "roles")))
def test_no_template_writes_a_value_as_it_is(path: Path):
    found = [
        f"{path.relative_to(ROOT)}:{line}: put the value through the filter of its format (plugins/filter/quoting.py)"
        for line in unquoted(path.read_text())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\n{{ name }}", [2]),
        ("{{ name | string }}", [1]),
        ("{{ name | slipway.stack.nginx_word('x') }}", []),
        ("{{ name | slipway.stack.nginx_word('x') | upper }}", [1]),
        ("{{ port | int * 2 + 64 }}", []),
        ("{{ port * 2 }}", [1]),
        ("{{ 'a' if name else name }}", [1]),
        ("{% set a = name | slipway.stack.pg_hba_name('x') %}{{ a }}", []),
        ("{% set a = name %}{{ a }}", [1]),
        ("{% if a %}{% for b in c %}{{ b }}{% endfor %}{% endif %}", [1]),
        ("{{ ansible_managed | comment }}{{ other | comment }}", [1]),
    ],
)
def test_a_value_that_is_written_as_it_is_is_found(text: str, lines: list[int]):
    assert list(unquoted(text)) == lines


def test_no_template_loses_an_error():
    """Ansible makes a value of an error in an argument; what an unused result holds is never looked at, and the part is missing."""
    lost = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in TEMPLATES
        for node in ENVIRONMENT.parse(path.read_text()).find_all(nodes.Assign)
        if isinstance(node.target, nodes.Name) and node.target.name.startswith("_")
    ]
    assert not lost, f"keep what is made in a namespace, with combine() or +: {', '.join(lost)}"
