# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates that are compiled once: the same results, errors too, in fewer compilations, and nothing left behind in Ansible."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader
from ansible.template import Templar, trust_as_template
from jinja2 import Environment

from ansible_collections.slipway.stack.plugins.plugin_utils import compiled
from ansible_collections.slipway.stack.plugins.plugin_utils.compiled import compiled_once
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import HostView

SOURCES = [
    "{{ number + 1 }}",
    "{{ name }} and {{ name | upper }}",
    "{% for item in items %}{{ item }},{% endfor %}",
    "{{ {'a': name, 'b': items} }}",
    "{{ name | regex_replace('^(.)', '\\1\\1') }}",
    "{{ nested }}",
    "{{ lookup('ansible.builtin.vars', 'name') }}",
    "{{ missing | default('none') }}",
    "{{ [1, 2, 3] | slipway.stack.fleet_batches(2) | map(attribute='hosts') }}",
    "{{ number is ansible.builtin.truthy }}",
    "plain",
]
VALUES: list[dict[str, Any]] = [
    {"number": 1, "name": "one", "items": [1, 2], "nested": trust_as_template("{{ name }}!")},
    {"number": 2, "name": "two", "items": [], "nested": trust_as_template("{{ number }}!")},
]


@pytest.fixture(autouse=True)
def compiled_templates() -> None:
    """Nothing is kept here but by what is tested."""


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that Jinja compiles from now on, beginning with none kept."""
    sources: list[str] = []
    real = Environment.compile

    def counted(self: Environment, source: Any, *arguments: Any, **options: Any) -> Any:
        sources.append(str(source))
        return real(self, source, *arguments, **options)

    monkeypatch.setattr(Environment, "compile", counted)
    monkeypatch.setattr(compiled, "_code", {})
    return sources


def results(values: dict[str, Any]) -> list[Any]:
    templar = Templar(DataLoader(), variables=values)
    return [templar.template(trust_as_template(source)) for source in SOURCES]


def test_results_are_the_same_and_each_source_is_compiled_once(compilations: list[str]) -> None:
    """For another host with other values, too."""
    expected = [results(values) for values in VALUES]
    several = len(compilations)
    compilations.clear()
    with compiled_once():
        assert [results(values) for values in VALUES] == expected
    assert len(compilations) == len(set(compilations)) < several


def test_syntax_and_escapes_are_distinguished(compilations: list[str]) -> None:
    source = trust_as_template("{{ 'a\\tb' }}")
    templar = Templar(DataLoader(), variables={})
    with compiled_once():
        kept = templar.template(source, escape_backslashes=True)
        assert templar.template(source, escape_backslashes=False) != kept
        assert templar.template(source, escape_backslashes=True) == kept
    assert compilations


def test_errors_are_raised_each_time(compilations: list[str]) -> None:
    templar = Templar(DataLoader(), variables={})
    with compiled_once():
        for source in ("{{ missing }}", "{{ 1 + }}") * 2:
            with pytest.raises(AnsibleError):
                templar.template(trust_as_template(source))
    assert compilations


def test_ansible_is_as_before_after_the_block_and_an_error_in_it() -> None:
    environment = compiled.AnsibleEnvironment
    before, finds = environment.compile, filter_loader.get

    def fail() -> None:
        with compiled_once(), compiled_once():
            assert environment.compile is not before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert environment.compile is before
    assert filter_loader.get == finds
    assert "compile" not in vars(environment)
    assert "get" not in vars(filter_loader)


def test_a_filter_of_a_collection_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By however many environments; one that is not there is an error each time."""
    monkeypatch.setattr(compiled, "_filters", {})
    looked: list[str] = []
    real = type(filter_loader).get_with_context

    def counted(self: Any, name: str, *arguments: Any, **options: Any) -> Any:
        looked.append(name)
        return real(self, name, *arguments, **options)

    monkeypatch.setattr(type(filter_loader), "get_with_context", counted)
    for number in range(3):
        view = HostView({"value": trust_as_template("{{ [1, 2] | slipway.stack.fleet_batches(2) | length }}")}, {}, {}, DataLoader())
        assert view.resolve("value") == 1, number
    assert looked.count("slipway.stack.fleet_batches") == 1
    with pytest.raises(AnsibleError), compiled_once():
        Templar(DataLoader(), variables={}).template(trust_as_template("{{ 1 | slipway.stack.not_there }}"))


@pytest.mark.usefixtures("compilations")
def test_an_ansible_of_another_make_gives_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose insides are named otherwise: it takes longer."""
    expected = results(VALUES[0])
    monkeypatch.setattr(compiled, "AnsibleEnvironment", None)
    with compiled_once():
        assert results(VALUES[0]) == expected
    assert not compiled._code


def test_the_views_of_several_hosts_share_what_is_compiled(compilations: list[str]) -> None:
    for number in range(3):
        raw = {"value": trust_as_template("{{ number * 2 }} of this test"), "number": number}
        assert HostView(raw, {}, {}, DataLoader()).resolve("value") == f"{number * 2} of this test"
    assert len(compilations) == 1
