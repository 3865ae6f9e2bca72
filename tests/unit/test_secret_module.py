# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module returns that was given secrets: found data as it is, and no secret."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

from ansible_collections.slipway.stack.plugins.module_utils.engine import EngineError
from ansible_collections.slipway.stack.plugins.module_utils.logins import LOGIN_OPTIONS
from ansible_collections.slipway.stack.plugins.module_utils.secret_module import SecretModule
from ansible_collections.slipway.stack.plugins.modules import host_state
from ansible_collections.slipway.stack.plugins.plugin_utils import release

MODULES = Path(__file__).resolve().parents[2] / "plugins/modules"
SPEC = {
    "options": {"type": "json", "no_log": True},
    "headers": {"type": "dict", "no_log": True},
    "login": {"type": "dict", "options": LOGIN_OPTIONS},
}
ARGUMENTS = {"options": "{}", "headers": {"x-try": "1"}, "login": {"username": "me", "password": "registry"}}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basic.AnsibleModule, "_log_invocation", lambda _self: None)


def test_what_is_found_is_returned_as_it_is(capsys: pytest.CaptureFixture[str]):
    found = {"text": '{"journal": {}}', "image": "registry:2", "registry": ["registry"], "uid": 1001, "seconds": 1.1}
    with patch_module_args({**ARGUMENTS, "_ansible_inject_invocation": True}), pytest.raises(SystemExit):
        SecretModule(argument_spec=SPEC).exit_json(changed=False, diff={"before": "registry", "after": ""}, **found)
    result = json.loads(capsys.readouterr().out)
    # What only people read.
    shown, diff = result.pop("invocation")["module_args"], result.pop("diff")
    assert [shown["login"]["password"], shown["options"], diff["before"]] == ["VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"] * 3
    assert result == {"changed": False, **found}


def test_a_failure_shows_no_secret(capsys: pytest.CaptureFixture[str]):
    with patch_module_args(ARGUMENTS), pytest.raises(SystemExit):
        SecretModule(argument_spec=SPEC).fail_json(msg="wrong password registry")
    assert json.loads(capsys.readouterr().out)["msg"] == "wrong password ********"


class MadeError(Exception):
    """A module was made; holds its class and its specification."""


def hides(spec: dict[str, Any]) -> bool:
    """Return whether a specification has an option that is not logged."""
    return any(option.get("no_log") or hides(option.get("options") or {}) for option in spec.values())


def modules() -> list[str]:
    """Return the names of modules that run on hosts; others are documentation of an action."""
    trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES.glob("*.py")}
    return sorted(name for name, tree in trees.items() if any(isinstance(item, ast.FunctionDef) for item in tree.body))


@pytest.mark.parametrize("name", modules())
def test_each_module_that_is_given_secrets_returns_what_it_found(name: str, monkeypatch: pytest.MonkeyPatch):
    """Ansible replaces secrets in a result, whatever they happen to be part of there."""

    def made(self: basic.AnsibleModule, argument_spec: dict[str, Any], **_more: Any) -> None:
        raise MadeError(isinstance(self, SecretModule), hides(argument_spec))

    module = importlib.import_module(f"ansible_collections.slipway.stack.plugins.modules.{name}")
    monkeypatch.setattr(basic.AnsibleModule, "__init__", made)
    with pytest.raises(MadeError) as found:
        module.main()
    is_ours, has_secrets = found.value.args
    assert is_ours or not has_secrets


def test_modules_with_secrets_are_among_those_that_are_looked_at():
    assert {"host_state", "engine_options", "image_build", "image_pull", "config_tree", "http_answers"} <= set(modules())


def test_no_option_of_the_engine_and_no_password_changes_what_was_read_of_a_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """``{}`` was replaced in the record of releases, so that the fleet counted as never released."""

    def away(_engine: Any) -> None:
        raise EngineError("no engine")

    folder = tmp_path / "shop/release"
    folder.mkdir(parents=True)
    record = release.next_record(None, "blue", "1.0", "1.0", 3)
    lock = {"run": "1", "journal": {}}
    (folder / "state.json").write_text(json.dumps(record))
    (folder / "lock.json").write_text(json.dumps(lock))
    monkeypatch.setattr(host_state.Engine, "version", away)
    monkeypatch.setattr(host_state, "refused_change", lambda *_unused: "")
    given = {
        "stack": "shop",
        "root": str(tmp_path),
        "digest_key": "k",
        "engine_options": "{}",
        "login": {"username": "me", "password": "blue"},
    }
    with patch_module_args(given), pytest.raises(SystemExit):
        host_state.main()
    states = {"one": json.loads(capsys.readouterr().out)}
    assert release.fleet_record(states, str(folder)) == record
    assert release.fleet_lock(states, str(folder)) == lock
