"""Wrong settings are refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from slipway_prober.settings import Settings, SettingsError


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"targets": []}, "targets"),
        ({"targets": [{"address": "127.0.0.1"}]}, "target"),
        ({"targets": [{"address": "127.0.0.1", "port": 70000}]}, "70000"),
        ({"rate": -1}, "rate"),
        ({"rate": "many"}, "rate cannot be .*many"),
        ({"post_share": 0.5}, "post_path"),
        ({"post_share": 2}, "post_share"),
        ({"path": "/x\r\nEvil: 1"}, "Illegal target"),
        ({"path": "/a b"}, "Illegal target"),
        ({"websocket_path": "/ü"}, "this path or one of the headers: '/ü'"),
        ({"headers": {"X": "a\r\nEvil: 1"}}, "Illegal header value"),
        ({"headers": {"X Y": "a"}}, "Illegal header name"),
        ({"headers": {"Host": "another"}}, "Found multiple Host"),
        ({"accepted_statuses": ["2xx"]}, "2xx"),
        ({"speed": 3}, "unknown setting: speed"),
        ({"websocket_reconnect_seconds": [2, 1]}, "websocket_reconnect_seconds"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], named: str):
    with pytest.raises(SettingsError, match=named):
        Settings.parse({"targets": [{"address": "127.0.0.1", "port": 443}], **wrong})
