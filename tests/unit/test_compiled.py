# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates that are compiled once: the same results, errors too, in fewer compilations, and nothing left behind in Ansible."""

from __future__ import annotations

import marshal
from collections.abc import Callable
from pathlib import Path
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
from ansible_collections.slipway.stack.plugins.plugin_utils.topology import ROLES

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
    assert compiled._jinja_bits._flatten_and_lazify_vars is compiled._flatten
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


def looked_up(path: Path) -> dict[str, Any]:
    """Return variables of which two use a third, whose value changes with each evaluation."""
    lines = {
        "line": f"lookup('ansible.builtin.pipe', 'echo x >> {path}; wc -l < {path}')",
        "first": "line",
        "second": "[line, line] | list",
    }
    return {name: trust_as_template(f"{{{{ {source} }}}}") for name, source in lines.items()}


def test_a_variable_of_a_host_is_evaluated_once_and_each_hosts_apart(tmp_path: Path) -> None:
    first, second = (HostView(looked_up(tmp_path / name), {}, {}, DataLoader()) for name in ("one", "two"))
    assert [first.resolve(name) for name in ("first", "second")] == ["1", ["1", "1"]]
    assert second.resolve("second") == ["1", "1"]
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() == "x\n"


def test_a_variable_without_a_value_is_an_error_each_time() -> None:
    view = HostView({"value": trust_as_template("{{ other }}"), "other": trust_as_template("{{ missing }}")}, {}, {}, DataLoader())
    for _time in range(2):
        for name in ("value", "other"):
            with pytest.raises(AnsibleError, match="missing"):
                view.resolve(name)


def test_variables_that_may_change_are_evaluated_each_time(tmp_path: Path) -> None:
    templar = Templar(DataLoader(), variables=looked_up(tmp_path / "one"))
    with compiled_once():
        assert [templar.template(trust_as_template("{{ line }}")) for _time in range(2)] == ["1", "2"]


def test_values_are_kept_as_long_as_the_view_of_the_host() -> None:
    view = HostView({"value": trust_as_template("{{ 1 + 1 }}")}, {}, {}, DataLoader())
    before = len(compiled._values)
    assert view.resolve("value") == 2
    assert len(compiled._values) == before + 1
    del view
    assert len(compiled._values) == before


OWN = ROLES / "nginx/defaults/main.yml"


def tagged(source: str, file: Path) -> Any:
    """Return a template that says that it was read from a file."""
    return trust_as_template(compiled.Origin(path=str(file), line_num=1).tag(source))


@pytest.fixture
def next_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compilations: list[str]) -> Callable[..., list[str]]:
    """Evaluates templates in a new run with this home; returns which of them it had to compile."""

    def evaluate(*templates: Any) -> list[str]:
        for kept in ("_code", "_read", "_compiled"):
            monkeypatch.setattr(compiled, kept, {})
        compilations.clear()
        compiled.read_compiled(tmp_path)
        with compiled_once():
            assert [Templar(DataLoader(), variables={"number": 1}).template(template) for template in templates] == [2] * len(templates)
        compiled.write_compiled(tmp_path)
        return list(compilations)

    return evaluate


def test_templates_of_the_collection_are_compiled_once_for_all_runs(next_run: Callable[..., list[str]], tmp_path: Path) -> None:
    first, second = tagged("{{ number + 1 }}", OWN), tagged("{{ number * 2 }}", OWN)
    assert next_run(first) == [first]
    assert next_run(first, second) == [second]
    assert next_run(second, first) == []
    assert (tmp_path / compiled.KEPT_IN).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("where", ["/srv/shop/group_vars/all/vault.yml", None])
def test_a_template_that_may_hold_a_secret_is_never_written(next_run: Callable[..., list[str]], tmp_path: Path, where: str | None) -> None:
    source = "{{ number + 1 if 'hunter2' else 0 }}"
    template = tagged(source, Path(where)) if where else trust_as_template(source)
    assert next_run(template, tagged("{{ number + 1 }}", OWN))
    assert b"hunter2" not in (tmp_path / compiled.KEPT_IN).read_bytes()
    assert next_run(template) == [source]


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def let_others_write(file: Path) -> None:
    file.chmod(0o660)


def made_by_other_versions(file: Path) -> None:
    _made_by, code = marshal.loads(file.read_bytes())
    file.write_bytes(marshal.dumps((("cpython-39", "2.15.0", "3.0.0"), code)))


@pytest.mark.parametrize("spoil", [damage, let_others_write, made_by_other_versions, Path.unlink])
def test_code_that_cannot_be_trusted_is_compiled_again_and_replaced(
    next_run: Callable[..., list[str]], tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    template = tagged("{{ number + 1 }}", OWN)
    next_run(template)
    spoil(tmp_path / compiled.KEPT_IN)
    assert next_run(template) == [template]
    assert next_run(template) == []


def test_sources_that_have_changed_do_not_pile_up(
    next_run: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "KEPT_LIMIT", 2)
    for number in range(4):
        next_run(tagged(f"{{{{ number + 1 + 0 * {number} }}}}", OWN))
    _made_by, code = marshal.loads((tmp_path / compiled.KEPT_IN).read_bytes())
    assert len(code) <= 2


def test_a_home_that_cannot_be_written_costs_nothing_else(next_run: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / compiled.KEPT_IN).mkdir()
    template = tagged("{{ number + 1 }}", OWN)
    assert next_run(template) == next_run(template) == [template]
