from __future__ import annotations

import pytest

from ansible_collections.slipway.stack.plugins.plugin_utils.environment_values import environment_of
from conftest import plan_of

VALUES = {
    "TEXT": ("1.10", "1.10"),
    "EMPTY": ("", ""),
    "NUMBER": (5, "5"),
    "YES": (True, "true"),
    "NO": (False, "false"),
    "LIST": ([1, "ä", None, True], '[1, "ä", null, true]'),
    "DICTIONARY": ({"b": 1, "a": {}}, '{"a": {}, "b": 1}'),
    "LINES": ("a\nb", "a\nb"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_reaches_the_container_as_it_was_meant(name: str):
    value, text = VALUES[name]
    assert environment_of({name: value}) == {name: text}


def test_null_is_not_set():
    assert environment_of({"A": None, "B": "b"}) == {"B": "b"}


def test_the_plan_of_a_container_has_these_values():
    service = {
        "name": "web",
        "image": "shop/web:1",
        "memory_mb": 64,
        "cpus": 1,
        "pids": 10,
        "networks": ["backend"],
        "environment": {**{name: value for name, (value, _text) in VALUES.items()}, "UNSET": None},
        "healthcheck": {"test": ["CMD", "true"]},
    }
    (planned,) = plan_of([service])["services"]
    assert planned["options"]["env"] == {name: text for name, (_value, text) in VALUES.items()}
