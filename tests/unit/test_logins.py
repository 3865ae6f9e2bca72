# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The login that a host has by `docker login`: what asks its engine for an image must send it along, as engines know of none."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils.engine import EngineError
from ansible_collections.slipway.stack.plugins.module_utils.images import ImageError, client_config, registry_login
from ansible_collections.slipway.stack.plugins.module_utils.logins import host_login
from ansible_collections.slipway.stack.plugins.modules import host_state, image_pull
from ansible_collections.slipway.stack.plugins.plugin_utils import app_services

IMAGE = "registry.example.com/shop/backend:1.0"
WORDS = base64.b64encode(b"deploy:s3:cret").decode()


def decoded(header: str) -> dict[str, str]:
    return dict(json.loads(base64.urlsafe_b64decode(header))) if header else {}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, and its folder of programs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / ".docker").mkdir()
    return tmp_path


def write(home: Path, config: Any) -> None:
    (home / ".docker/config.json").write_text(config if isinstance(config, str) else json.dumps(config))


@pytest.mark.parametrize(
    ("image", "config", "login"),
    [
        (IMAGE, {"auths": {"registry.example.com": {"auth": WORDS}}}, {"username": "deploy", "password": "s3:cret"}),
        (IMAGE, {"auths": {"https://registry.example.com/v2/": {"auth": WORDS}}}, {"username": "deploy", "password": "s3:cret"}),
        (IMAGE, {"auths": {"registry.example.com": {"auth": WORDS, "identitytoken": "t0ken"}}}, {"identitytoken": "t0ken"}),
        ("redis:7", {"auths": {"https://index.docker.io/v1/": {"auth": WORDS}}}, {"username": "deploy", "password": "s3:cret"}),
        (IMAGE, {"auths": {"registry.example.com:5000": {"auth": WORDS}}}, {}),
        (IMAGE, {"credsStore": "absent", "auths": {"registry.example.com": {}}}, {}),
        (IMAGE, {}, {}),
        (IMAGE, "{", {}),
        (IMAGE, [], {}),
    ],
)
def test_a_login_is_the_one_of_the_images_registry(home: Path, image: str, config: Any, login: dict[str, str]):
    write(home, config)
    found = decoded(host_login(image))
    server = "https://index.docker.io/v1/" if image == "redis:7" else "registry.example.com"
    assert found == ({**login, "serveraddress": server} if login else {})


def test_a_program_that_keeps_logins_is_asked(home: Path):
    program = home / "docker-credential-vault"
    program.write_text('#!/bin/sh\nread -r server\necho "{\\"Username\\": \\"$server\\", \\"Secret\\": \\"$1\\"}"\n')
    program.chmod(0o755)
    write(home, {"credHelpers": {"registry.example.com": "vault"}})
    assert decoded(host_login(IMAGE)) == {"username": "registry.example.com", "password": "get", "serveraddress": "registry.example.com"}
    assert host_login("other.example.com/shop/backend:1.0") == ""


class Engine:
    """An engine whose registry wants a login."""

    def request(self, _method: str, path: str, _query: Any = None, more_headers: dict[str, str] | None = None, **_: Any) -> bytes:
        asks_registry = path.startswith(("/distribution/", "/images/create"))
        if asks_registry and decoded((more_headers or {}).get("X-Registry-Auth", "")).get("username") != "deploy":
            raise EngineError("unauthorized", 401)
        return b"{}"

    def get(self, _path: str) -> dict[str, str]:
        return {"Id": "sha256:a"}


LOGIN = {"username": "deploy", "password": "s3:cret"}


@pytest.mark.parametrize(
    ("registry", "image", "server"),
    [
        ("registry.example.com", IMAGE, "registry.example.com"),
        # Another one is not shown the password.
        ("registry.example.com", "ghcr.io/shop/backend:1.0", ""),
        ("registry.example.com", "redis:7", ""),
        ("registry.example.com", "registry.example.com:5000/shop/backend:1.0", ""),
        # Logins to it are kept under a name that no image has.
        ("docker.io", "docker.io/shop/backend:1.0", "https://index.docker.io/v1/"),
        ("docker.io", "shop/backend:1.0", "https://index.docker.io/v1/"),
        ("", "index.docker.io/shop/backend:1.0", "https://index.docker.io/v1/"),
    ],
)
def test_a_login_is_for_one_registry(registry: str, image: str, server: str):
    found = decoded(registry_login({**LOGIN, "registry": registry}, image))
    assert found == ({**LOGIN, "serveraddress": server} if server else {})


def test_the_client_knows_a_login_to_docker_hub_by_its_own_name():
    assert json.loads(client_config({**LOGIN, "registry": "docker.io"}))["auths"] == {"https://index.docker.io/v1/": {"auth": WORDS}}


def product(*images: str, built: tuple[str, ...] = ()) -> dict[str, Any]:
    services = {
        f"s{number}": {"image": image, **({"build": {"context": "."}} if image in built else {})} for number, image in enumerate(images)
    }
    return {"app_services": services, "app_defaults": {}, "app_service_overrides": {}}


def test_a_login_without_a_registry_is_for_the_one_of_the_products_images():
    mirrored = "mirror.example.com/worker:1.0"
    assert app_services.registry_login(product(IMAGE), LOGIN)["registry"] == "registry.example.com"
    assert app_services.registry_login(product(IMAGE, mirrored, built=(IMAGE,)), LOGIN)["registry"] == "registry.example.com"
    assert app_services.registry_login(product("shop/backend:1.0"), LOGIN)["registry"] == ""
    # Names of one registry.
    assert app_services.registry_login(product("docker.io/shop/backend:1.0", "shop/web:1.0"), LOGIN)["registry"] in ("", "docker.io")
    named = {**LOGIN, "registry": "mirror.example.com"}
    assert app_services.registry_login(product(IMAGE, mirrored), named) == named
    assert app_services.registry_login(product(IMAGE, mirrored), {}) == {}
    with pytest.raises(ImageError, match=r"mirror\.example\.com, registry\.example\.com: add registry"):
        app_services.registry_login(product(IMAGE, mirrored), LOGIN)


@pytest.mark.usefixtures("home")
def test_a_private_image_is_found_and_pulled_by_a_login_of_the_inventory():
    """Of any service, and of a version that no build has recorded."""
    login = {**LOGIN, "registry": "registry.example.com"}
    assert host_state.missing_images(Engine(), {}, [IMAGE], login) == {IMAGE: ""}
    with pytest.raises(EngineError, match="correct image_registry_login, or the host's own"):
        image_pull.pull_named(Engine(), IMAGE, "", 1)
    assert image_pull.pull_named(Engine(), IMAGE, registry_login(login, IMAGE), 1)["name"] == IMAGE


def test_a_private_image_is_found_and_pulled_by_the_hosts_own_login(home: Path):
    image = {"name": IMAGE, "source": IMAGE.removesuffix(":1.0"), "digest": "sha256:a"}
    write(home, {})
    assert host_state.missing_images(Engine(), {}, [IMAGE]) == {IMAGE: "unauthorized"}
    with pytest.raises(EngineError, match="correct image_registry_login, or the host's own"):
        image_pull.pull(Engine(), image, "", 1)
    write(home, {"auths": {"registry.example.com": {"auth": WORDS}}})
    assert host_state.missing_images(Engine(), {}, [IMAGE]) == {IMAGE: ""}
    assert image_pull.pull(Engine(), image, "", 1)["name"] == IMAGE
