"""Builds on engines with each of the image stores, by which an image has different ids."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from ansible_collections.slipway.stack.plugins.module_utils.images import ImageError
from ansible_collections.slipway.stack.plugins.module_utils.layout import Layout
from ansible_collections.slipway.stack.plugins.modules import image_build, image_pull
from ansible_collections.slipway.stack.plugins.plugin_utils import image_records
from conftest import ansible

STORES = ["graphdriver", "containerd"]
#: Where images go: into a folder on the controller, to the registry of their names, or to one of Slipway's.
TRANSPORTS = ["ssh", "registry", "hosted"]


class Builder:
    """A machine that builds, whose engine the tests choose."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top, self._monkeypatch = top, monkeypatch
        (top / "bin").mkdir()
        (top / "backend").mkdir()
        docker = top / "bin/docker"
        stub = f'exec {sys.executable} -I -S {Path(__file__).parent / "docker_stub.py"} "$@"'
        docker.write_text(f'#!/bin/sh\ncase "$*" in *version) exit 0 ;; esac\n{stub}\n', encoding="utf-8")
        docker.chmod(0o755)
        monkeypatch.setenv("PATH", f"{top / 'bin'}:/usr/bin:/bin")
        self.use("graphdriver")

    def use(self, store: str) -> None:
        """Have an engine with one of the image stores."""
        self.engine = self.top / store
        self.engine.mkdir(exist_ok=True)
        self._monkeypatch.setenv("FAKE_ENGINE", str(self.engine))
        self._monkeypatch.setenv("IMAGE_STORE", store)

    @property
    def state(self) -> dict[str, Any]:
        """What the engine has and has pushed."""
        found: dict[str, Any] = json.loads((self.engine / "state.json").read_text(encoding="utf-8"))
        return found

    def build(self, payload: str, transport: str, recorded: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Build the backend, and return what is recorded of it."""
        (self.top / "backend/payload").write_text(payload, encoding="utf-8")
        image = {"name": "registry.example.com/shop/backend:1.0", "context": str(self.top / "backend"), "dockerfile": "Dockerfile"}
        result = image_build.run(
            {
                "version": "1.0",
                "images": {"backend": image},
                "recorded": {"backend": recorded} if recorded else {},
                "replace": False,
                "store": str(self.top / "store") if transport == "ssh" else "",
                "push_to": "127.0.0.1:40001" if transport == "hosted" else "",
                "inventory": str(self.top),
                "environment": "",
                "kept": [],
                "ca_file": "",
                "proxies": {},
                "login": {},
                **options,
            }
        )
        built: dict[str, Any] = result["built"]["backend"]
        return built


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    return Builder(tmp_path, monkeypatch)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("store", STORES)
def test_what_a_build_records_does_not_depend_on_the_engines_image_store(builder: Builder, store: str, transport: str):
    builder.use(store)
    recorded = builder.build("one", transport)
    (image,) = builder.state["images"].values()
    assert recorded["id"] == image["config"]
    assert (recorded["platform"], recorded["user"]) == ("linux/amd64", "10001")
    if transport == "ssh":
        assert Layout(builder.top / "store").manifest(recorded["digest"])["config"]["digest"] == image["config"]
    else:
        (pushed,) = builder.state["pushed"].items()
        address = "127.0.0.1:40001" if transport == "hosted" else "registry.example.com"
        assert pushed == (f"{address}/shop/backend:1.0", recorded["digest"])
    # No name is left that the image has only while it is built, or on the way to Slipway's registry.
    assert list(builder.state["names"]) == ["registry.example.com/shop/backend:1.0"]
    # The same source is the same version, also on an engine with the other store.
    assert builder.build("one", transport, recorded) == recorded
    builder.use(next(name for name in STORES if name != store))
    assert builder.build("one", transport, recorded)["id"] == recorded["id"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("store", STORES)
def test_another_image_under_a_recorded_version_is_neither_named_nor_sent(builder: Builder, store: str, transport: str):
    builder.use(store)
    recorded = builder.build("one", transport)
    before = builder.state
    with pytest.raises(ImageError, match=f"is recorded with {recorded['id']}, and this build made sha256:"):
        builder.build("two", transport, recorded)
    assert builder.state == before
    assert builder.build("two", transport, recorded, replace=True)["id"] != recorded["id"]


def test_a_record_that_names_the_manifest_alone_is_compared_where_the_image_store_has_it(builder: Builder):
    """As one that was written by hand, or by a build with containerd's image store before the configuration was recorded."""
    builder.use("containerd")
    digest = builder.build("one", "registry")["digest"]
    for recorded in ({"digest": digest}, {"digest": digest, "id": digest}):
        assert builder.build("one", "registry", recorded)["digest"] == digest


@pytest.mark.parametrize("listed_by", ["id", "digest"])
def test_hosts_take_what_was_built_whatever_their_own_image_store(listed_by: str):
    recorded = {"name": "registry.example.com/shop/backend:1.0", "id": f"sha256:{'a' * 64}", "digest": f"sha256:{'b' * 64}"}
    listed = recorded[listed_by]

    class Engine:
        """The host's engine, once it has pulled the image."""

        removed = ""

        def request(self, method: str, path: str, *_unused: Any, **_options: Any) -> bytes:
            if method == "DELETE":
                self.removed = unquote(path)
            return b"{}"

        def get(self, _path: str) -> dict[str, str]:
            return {"Id": listed}

    source, engine = {**recorded, "source": "registry.example.com/shop/backend"}, Engine()
    assert image_pull.pull(engine, source, "", 1)["id"] == listed
    # With containerd's image store, all names in a repository would go together with the one that has the digest.
    assert engine.removed == ""
    address = "127.0.0.1:40001/shop/backend"
    image_pull.pull(engine, {**source, "source": address}, "", 1)
    assert engine.removed == f"/images/{address}@{recorded['digest']}"
    # As builds recorded it before: what was pulled by its digest is what was built.
    assert image_pull.pull(Engine(), {**source, "id": recorded["digest"]}, "", 1)["id"] == listed
    with pytest.raises(ValueError, match="was recorded"):
        image_pull.pull(Engine(), {**source, "id": f"sha256:{'f' * 64}", "digest": f"sha256:{'e' * 64}"}, "", 1)
    assert image_records.is_there(recorded, {recorded["name"]: {"id": listed, "digests": []}})


def test_a_build_keeps_what_other_environments_have_in_the_same_folder_of_images(builder: Builder):
    environments = [builder.top / name for name in ("prod", "staging")]
    for environment in environments:
        environment.mkdir()
    prod = builder.build("one", "ssh", inventory=str(environments[0]))
    first = builder.build("two", "ssh", inventory=str(environments[1]))
    second = builder.build("three", "ssh", inventory=str(environments[1]))
    layout = Layout(builder.top / "store")
    assert [bool(layout.missing(built["digest"])) for built in (prod, first, second)] == [False, True, False]


def test_a_build_that_cannot_know_what_others_need_removes_nothing(builder: Builder):
    first = builder.build("one", "ssh")
    (builder.top / "store/roots/other.json").write_text("torn")
    with pytest.raises(ImageError, match=r"what no version needs any more cannot be removed from .*other\.json"):
        builder.build("two", "ssh")
    assert Layout(builder.top / "store").missing(first["digest"]) == []


def test_an_image_that_cannot_be_saved_is_reported_with_what_the_engine_says(builder: Builder):
    with pytest.raises(ImageError, match=r"cannot be saved to .*store: Error response from daemon: No such image: shop/backend:9"):
        image_build.save("shop/backend:9", Layout(builder.top / "store"))


def test_a_client_that_does_not_say_what_it_built_is_refused(builder: Builder):
    docker = builder.top / "bin/docker"
    docker.write_text(
        '#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = --metadata-file ] && echo "{}" >"$2"; shift; done\nexit 0\n', encoding="utf-8"
    )
    with pytest.raises(ImageError, match="update docker buildx"):
        builder.build("one", "ssh")


def test_the_playbook_says_whose_images_it_keeps(builder: Builder, checkout: Path):
    """Two environments build their own versions into one folder."""
    versions, product = {"test": "1.0", "staging": "1.1"}, builder.top
    (product / "backend/Dockerfile").write_text("FROM scratch\n", encoding="utf-8")
    for environment, version in versions.items():
        inventory = checkout / "inventories" / environment
        if environment != "test":
            shutil.copytree(checkout / "inventories/test", inventory)
        variables = {
            "app_version": version,
            "app_services": {"backend": {"image": f"shop/backend:{version}", "build": {"context": "backend"}}},
            "image_source": str(product),
            "image_store": str(builder.top / "store"),
        }
        (inventory / "group_vars/all/20_product.yml").write_text(yaml.safe_dump(variables), encoding="utf-8")
    for environment, version in versions.items():
        (product / "backend/payload").write_text(version, encoding="utf-8")
        done = ansible("ansible-playbook", "playbooks/build.yml", "-i", f"inventories/{environment}", cwd=checkout, PATH=os.environ["PATH"])
        assert done.returncode == 0, done.stdout + done.stderr
    layout = Layout(builder.top / "store")
    for environment, version in versions.items():
        record = (checkout / "inventories" / environment / "group_vars/all/30_images.yml").read_text(encoding="utf-8")
        (entry,) = yaml.safe_load(record)["image_digests"][version].values()
        assert layout.missing(entry["digest"]) == []
