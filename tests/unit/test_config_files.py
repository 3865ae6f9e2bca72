# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Revisions of a service's configuration: which are kept, and the way back to one."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError, switch
from ansible_collections.slipway.stack.plugins.modules.config_revision import restore
from ansible_collections.slipway.stack.plugins.modules.config_tree import apply, prune


class FakeEngine:
    """Takes commands; those that speak of a revision named here fail, and so many reloads."""

    def __init__(self, bad: str = "", refused: int = 0) -> None:
        self.bad, self.refused, self.ran = bad, refused, []

    def image_user(self, _image: str, _user: str) -> tuple[int, int]:
        return os.getuid(), os.getgid()

    def execute(self, _container: str, argv: list[str]) -> tuple[int, str, str]:
        self.ran.append(argv)
        if argv == ["reload"] and self.refused:
            self.refused -= 1
            return 1, "", "invalid PID number"
        return (1, "", "unknown directive") if self.bad and any(self.bad in part for part in argv) else (0, "", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A service that has had five configurations, one after the other."""
    config = tmp_path / "config"
    config.mkdir()
    for number, name in enumerate("abcde"):
        (config / name).mkdir()
        switch(str(config), name)
        os.utime(config / name, (1000 + number, 1000 + number))
    (config / "loaded").write_text("e\n")
    return tmp_path


def options(folder: Path, revision: str) -> dict[str, Any]:
    check, reload = ["check", "/etc/slipway/{revision}/nginx.conf"], ["reload"]
    return {"folder": str(folder), "container": "slipway-nginx", "revision": revision, "validate": check, "reload": reload}


def current(folder: Path) -> tuple[str, str]:
    return os.readlink(folder / "config/current"), (folder / "config/loaded").read_text().strip()


def test_the_revisions_that_were_current_last_are_kept(folder: Path):
    prune(str(folder / "config"), {"e", "d"})
    assert {path.name for path in (folder / "config").iterdir() if path.is_dir() and not path.is_symlink()} == {"b", "c", "d", "e"}


def test_a_revision_becomes_current_again(folder: Path):
    engine = FakeEngine()
    assert restore(options(folder, "b"), engine) is True
    assert current(folder) == ("b", "b")
    assert engine.ran == [["check", "/etc/slipway/b/nginx.conf"], ["reload"]]
    assert restore(options(folder, "b"), engine) is False
    assert len(engine.ran) == 2


def test_a_reload_that_comes_too_early_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    engine = FakeEngine(refused=2)
    assert restore(options(folder, "b"), engine) is True
    assert engine.ran[1:] == [["reload"]] * 3
    assert current(folder) == ("b", "b")


def test_a_reload_that_is_refused_again_and_again_is_still_to_be_done(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with pytest.raises(RefusedError, match=r"^The reload .* invalid PID number$"):
        restore(options(folder, "b"), FakeEngine(refused=9))
    assert current(folder) == ("b", "e")


def test_a_revision_that_was_not_read_yet_is_read(folder: Path):
    (folder / "config/loaded").write_text("a\n")
    engine = FakeEngine()
    assert restore(options(folder, "e"), engine) is True
    assert engine.ran[-1] == ["reload"]


@pytest.mark.parametrize(("revision", "bad"), [("never", ""), ("", ""), ("b", "b")])
def test_what_is_not_there_or_not_valid_is_not_made_current(folder: Path, revision: str, bad: str):
    with pytest.raises(RefusedError):
        restore(options(folder, revision), FakeEngine(bad and f"/{bad}/"))
    assert current(folder) == ("e", "e")


def tree(folder: Path, phase: str, text: str = "new") -> dict[str, Any]:
    """Return options that give the service a sixth configuration."""
    rest = {"image": "nginx", "user": "", "non_root": False, "secrets": {}, "host_files": {}, "volumes": [], "config": {"nginx.conf": text}}
    return {**options(folder, "f"), **rest, "phase": phase}


def test_what_is_prepared_is_valid_and_not_in_use(folder: Path):
    engine = FakeEngine()
    assert apply(tree(folder, "prepare"), engine)["changed"]
    assert engine.ran == [["check", "/etc/slipway/f/nginx.conf"]]
    assert (folder / "config/f/nginx.conf").read_text() == "new"
    assert current(folder) == ("e", "e")


def test_what_is_committed_was_validated_before(folder: Path):
    apply(tree(folder, "prepare"), FakeEngine())
    engine = FakeEngine()
    done = apply(tree(folder, "commit"), engine)
    assert (done["previous"], done["reloaded"]) == ("e", True)
    assert engine.ran == [["reload"]]
    assert current(folder) == ("f", "f")


def test_what_somebody_edited_in_between_is_put_right_and_validated_again(folder: Path):
    apply(tree(folder, "prepare"), FakeEngine())
    (folder / "config/f/nginx.conf").write_text("edited")
    engine = FakeEngine()
    apply(tree(folder, "commit"), engine)
    assert engine.ran == [["check", "/etc/slipway/f/nginx.conf"], ["reload"]]
    assert (folder / "config/f/nginx.conf").read_text() == "new"


def test_what_cannot_be_prepared_leaves_nothing(folder: Path):
    with pytest.raises(RefusedError):
        apply(tree(folder, "prepare"), FakeEngine("/f/"))
    assert not (folder / "config/f").exists()
    assert current(folder) == ("e", "e")
