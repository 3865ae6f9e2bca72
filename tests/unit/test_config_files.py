# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Revisions of a service's configuration: which are kept, and the rollback to one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.slipway.stack.plugins.module_utils.config_files import RefusedError, lines_named, look_at, switch
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


def test_a_revision_whose_secrets_are_gone_is_not_made_current(folder: Path):
    """nginx opens a file of passwords for a request, and its check does not."""
    (folder / "config/b/parts").mkdir()
    (folder / "config/b/parts/servers.conf").write_text(
        "auth_basic_user_file /run/secrets/htpasswd-1;\nssl_certificate_key /run/secrets/k;\n"
    )
    (folder / "secrets").mkdir()
    (folder / "secrets/k").touch()
    engine = FakeEngine()
    with pytest.raises(RefusedError, match=r"^revision b names secrets that the host no longer has: htpasswd-1$"):
        restore(options(folder, "b"), engine)
    assert (current(folder), engine.ran) == (("e", "e"), [])
    (folder / "secrets/htpasswd-1").touch()
    assert restore(options(folder, "b"), engine) is True


def tree(folder: Path, phase: str, text: str = "new") -> dict[str, Any]:
    """Return options that give the service a sixth configuration."""
    rest = {"image": "nginx", "user": "", "non_root": False, "secrets": {}, "host_files": {}, "volumes": [], "keep": False}
    rest["config"] = {"nginx.conf": text}
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


def test_an_edit_by_hand_in_between_is_reverted_and_validated_again(folder: Path):
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


class Store:
    """A service that reads its files when it is reloaded, and refuses some; what it has read is in a file, which outlives a killed run."""

    def __init__(self, top: Path, bad: str = "bad") -> None:
        self.top, self.bad, self.place = top, bad, top.parent / "read.json"

    def files(self) -> dict[str, str]:
        config = self.top / "config" / "current"
        found = {path.name: path.read_text() for path in config.resolve().rglob("*") if path.is_file()}
        return found | {path.name: path.read_text() for path in (self.top / "secrets").iterdir()}

    def read(self) -> dict[str, str]:
        return json.loads(self.place.read_text()) if self.place.exists() else {}

    def image_user(self, _image: str, _user: str) -> tuple[int, int]:
        return 1234, 1234

    def get(self, _path: str) -> dict[str, str]:
        return {"Mountpoint": str(self.top.parent / "volume")}

    def execute(self, _container: str, argv: list[str]) -> tuple[int, str, str]:
        files = self.files()
        if argv == ["reload"] and self.bad in "".join(files.values()):
            return 1, "", "line 1: what is bad"
        if argv == ["reload"]:
            self.place.write_text(json.dumps(files))
        return 0, "", ""


def both(top: Path, text: str, revision: str, **more: Any) -> dict[str, Any]:
    """Return options that give a service a configuration and secrets, and have it read them."""
    rest = {
        "image": "redis",
        "user": "",
        "non_root": True,
        "host_files": {},
        "volumes": [],
        "validate": [],
        "phase": "whole",
        "keep": False,
    }
    secrets = {"users.acl": f"user {text}", f"{text}.key": text}
    new = {"config": {"runtime.conf": text, "parts/more.conf": "more"}, "secrets": secrets, "revision": revision}
    return {"folder": str(top), "container": "slipway-redis", "reload": ["reload"], **rest, **new, **more}


def everything(top: Path) -> dict[str, Any]:
    """Return all files and links of a service, with their modes and owners, but revisions that are not current."""
    found: dict[str, Any] = {}
    for path in sorted(top.rglob("*")):
        info, name = path.lstat(), str(path.relative_to(top))
        kept = name.split("/")[:2]
        if kept[0] == "config" and len(kept) > 1 and kept[1] not in {"loaded", "current", os.readlink(top / "config/current")}:
            continue
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[name] = (oct(info.st_mode), info.st_uid, content)
    return found


as_root = pytest.mark.skipif(os.getuid() != 0, reason="gives files to other users")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service that has read its first configuration."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    apply(both(tmp_path / "redis", "good", "a"), Store(tmp_path / "redis"))
    return tmp_path / "redis"


@as_root
def test_passwords_that_a_change_took_away_do_not_come_back_empty(service: Path):
    """What a release has committed is undone by another way then: its inventory is rendered again."""
    old, new = ({"config": {"a.conf": f"/run/secrets/users-{name};"}, "secrets": {f"users-{name}": name}} for name in ("old", "new"))
    for text, revision, files in (("old", "b", old), ("new", "c", new)):
        apply(both(service, text, revision, **files), Store(service))
    with pytest.raises(RefusedError, match="users-old"):
        restore(options(service, "b"), FakeEngine())
    assert current(service) == ("c", "c")


@as_root
def test_files_that_a_reload_refuses_do_not_stay(service: Path):
    before = everything(service)
    with pytest.raises(RefusedError, match=r"(?s)what is bad.*files of before are in place again"):
        apply(both(service, "bad", "b"), Store(service))
    assert everything(service) == before
    assert Store(service).read() == Store(service).files()


@as_root
def test_secrets_that_a_reload_refuses_do_not_stay_where_the_configuration_is_the_same(service: Path):
    before = everything(service)
    with pytest.raises(RefusedError):
        apply(both(service, "good", "a", secrets={"users.acl": "bad"}), Store(service))
    assert everything(service) == before


@as_root
def test_new_secrets_go_with_the_configuration_that_its_check_refuses(service: Path):
    before = everything(service)
    with pytest.raises(RefusedError):
        apply(both(service, "new", "b", validate=["check", "{revision}"]), FakeEngine("b"))
    assert everything(service) == before


@as_root
def test_a_volume_of_another_user_is_refused_before_a_secret_is_given_away(service: Path):
    volume = service.parent / "volume"
    volume.mkdir()
    (volume / "PG_VERSION").write_text("17")
    before = everything(service)
    with pytest.raises(RefusedError, match="volume data holds data of user 0, but the image runs as user 1234"):
        apply(both(service, "new", "b", volumes=["data"], reload=[]), Store(service))
    assert everything(service) == before


STEPS = ("replace", "rename", "symlink", "unlink", "chown", "chmod", "mkdir", "rmdir", "utime")


def killed_at(step: int, change: Callable[[], object]) -> bool:
    """Carry out a change in a process that ends, as by SIGKILL, when it is about to touch the file system for the nth time.

    Returns:
        Whether it was killed; it had fewer steps otherwise.
    """
    process = os.fork()
    if not process:
        left = [step]

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **more: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)
                return real(*arguments, **more)

            return run

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        with contextlib.suppress(RefusedError):
            change()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9


@as_root
@pytest.mark.parametrize("text", ["new", "bad"])
def test_a_run_that_is_killed_at_any_step_is_completed_by_the_next(service: Path, text: str):
    top, step = service.parent / "copy", 0
    while True:
        step += 1
        shutil.rmtree(top, ignore_errors=True)
        shutil.copytree(service, top, symlinks=True)
        for name in ("secrets", *(f"secrets/{path.name}" for path in (service / "secrets").iterdir())):
            os.chown(top / name, 1234, 1234)
        apply(both(top, "good", "a"), Store(top))
        before = everything(top)
        if not killed_at(step, lambda: apply(both(top, text, "b"), Store(top))):
            break
        # The same again: what is good comes in, and what is not goes.
        if text == "bad":
            with pytest.raises(RefusedError):
                apply(both(top, text, "b"), Store(top))
            assert everything(top) == before, step
        else:
            apply(both(top, text, "b"), Store(top))
            assert {"runtime.conf": "new", "users.acl": "user new"}.items() <= Store(top).files().items(), step
            assert "good.key" not in Store(top).files()
            assert current(top) == ("b", "b")
        assert Store(top).files() == Store(top).read(), step
        assert sorted(path.name for path in top.iterdir()) == ["config", "secrets"], step
        # Going back instead works as well.
        shutil.rmtree(top)
    assert step > 20


@as_root
@pytest.mark.parametrize("step", range(1, 60, 3))
def test_a_run_that_is_killed_can_be_followed_by_one_that_goes_back(service: Path, step: int):
    before = everything(service)
    killed_at(step, lambda: apply(both(service, "new", "b"), Store(service)))
    apply(both(service, "good", "a"), Store(service))
    assert everything(service) == before
    assert Store(service).files() == Store(service).read()


@as_root
def test_a_container_s_user_can_read_what_is_written_under_any_umask(tmp_path: Path):
    before = os.umask(0o077)
    try:
        top, unit = tmp_path / "etc/slipway/redis", tmp_path / "etc/units/slipway.timer"
        apply(both(top, "good", "a", host_files={str(unit): {"content": "x", "mode": "0644"}}), Store(top))
    finally:
        os.umask(before)
    for folder in (top, top.parent, top / "config", top / "config/a", top / "config/a/parts", unit.parent):
        assert oct(folder.stat().st_mode & 0o7777) == "0o755", folder
    assert [oct(path.stat().st_mode & 0o7777) for path in (top / "config/a/parts/more.conf", unit)] == ["0o644", "0o644"]
    secret = (top / "secrets/users.acl").stat()
    assert [oct((top / "secrets").stat().st_mode & 0o7777), oct(secret.st_mode & 0o7777), secret.st_uid] == ["0o500", "0o400", 1234]


@as_root
def test_folders_that_an_earlier_version_left_to_the_umask_are_opened(service: Path):
    for name in ("config", "config/a", "config/a/parts"):
        (service / name).chmod(0o700)
    assert apply(both(service, "good", "a", reload=[]), Store(service))["changed"]
    assert {oct((service / name).stat().st_mode & 0o7777) for name in ("config", "config/a", "config/a/parts")} == {"0o755"}


def test_a_refusal_by_the_service_names_the_inputs_that_it_judges():
    assert look_at([]) == ""
    assert look_at(["redis_settings"]) == "\nCorrect what it names; it comes from redis_settings."
    assert "one of redis_app_rules, redis_settings" in look_at(["redis_app_rules", "redis_settings"])


def test_a_refusal_shows_the_lines_that_it_names():
    """The revision's file is gone when the message is read."""
    config = {"servers.conf": "server {\n    gzzip on;  # of a route\n}\n"}
    said = 'nginx: [emerg] unknown directive "gzzip" in /etc/slipway/0123/servers.conf:2, servers.conf:99 and other.conf:1'
    assert lines_named(said, config) == "\nLine 2 of servers.conf is: gzzip on;  # of a route"
    assert lines_named("Error at 12:30:00", config) == ""
    assert lines_named("app.conf:2", {"app.conf": "# a\x0cb\u2028c\nbad\n"}) == "\nLine 2 of app.conf is: bad", "as programs count lines"
    assert lines_named("servers.conf:1", {"servers.conf": "x" * 5000}) == f"\nLine 1 of servers.conf is: {'x' * 300} …"


def test_inputs_that_a_service_judges_are_inputs_of_its_role(root: Path):
    def judged(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(judged, node))
        if not isinstance(node, dict):
            return set()
        return set(node.get("judged_inputs", [])).union(*map(judged, node.values()))

    found = {path.parts[-3]: judged(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in root.glob("roles/*/vars/main.yml")}
    declared = {role: names for role, names in found.items() if names}
    assert {"nginx", "postgres", "redis"} <= set(declared)
    for role, names in declared.items():
        specs = yaml.safe_load((root / f"roles/{role}/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
        # Locations of nginx are made of the routes of a product's services.
        assert names <= {*specs["main"]["options"], "app_services"}, role


@as_root
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_a_timer_that_systemd_does_not_understand_is_refused_before_anything_is_written(service: Path):
    before = everything(service)
    timer = {str(service.parent / "slipway.timer"): {"content": "[Timer]\nOnCalendar=sometimes\n", "mode": "0644"}}
    with pytest.raises(RefusedError, match=r"slipway\.timer: systemd does not understand the time 'sometimes'"):
        apply(both(service, "new", "b", host_files=timer), Store(service))
    assert everything(service) == before
    assert not (service.parent / "slipway.timer").exists()
