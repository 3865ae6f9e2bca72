"""What building and shipping images decides, the folder that layers are kept in, and the messages for bad input."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import http.server
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader
from ansible.template import Templar, trust_as_template

from ansible_collections.slipway.stack.plugins.action import image_record
from ansible_collections.slipway.stack.plugins.action.image_build import files_of
from ansible_collections.slipway.stack.plugins.action.image_source import folder_of, image_of, problems_of
from ansible_collections.slipway.stack.plugins.module_utils import images
from ansible_collections.slipway.stack.plugins.module_utils.images import ImageError
from ansible_collections.slipway.stack.plugins.module_utils.layout import Layout, LayoutError
from ansible_collections.slipway.stack.plugins.modules import image_build
from ansible_collections.slipway.stack.plugins.plugin_utils import image_records
from ansible_collections.slipway.stack.plugins.plugin_utils.layout_server import Server
from ansible_collections.slipway.stack.plugins.plugin_utils.tunnel import TunnelError, ssh_command
from conftest import ROOT, Run

A, B, C, D = (f"sha256:{letter * 64}" for letter in "abcd")


@pytest.mark.parametrize(
    ("name", "registry", "repository", "path"),
    [
        ("shop/backend:1.0", "", "shop/backend", "shop/backend"),
        ("registry.example.com/shop/backend:1.0", "registry.example.com", "registry.example.com/shop/backend", "shop/backend"),
        ("localhost:5000/backend:1.0", "localhost:5000", "localhost:5000/backend", "backend"),
        (f"127.0.0.1:40001/shop/backend@{A}", "127.0.0.1:40001", "127.0.0.1:40001/shop/backend", "shop/backend"),
        ("backend:1.0", "", "backend", "backend"),
    ],
)
def test_names_of_images_are_taken_apart(name: str, registry: str, repository: str, path: str):
    assert (images.registry_of(name), images.repository_of(name), images.path_of(name)) == (registry, repository, path)


NAMES = {"backend": "shop/backend:1.0", "frontend": "shop/frontend:1.0"}
RECORD = {"backend": {"digest": A, "id": B}, "frontend": {"digest": C}}


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ({}, [("shop/backend:1.0", False), ("shop/frontend:1.0", False)]),
        # By the configuration's digest, and by the manifest's where the engine lists images so.
        ({"shop/backend:1.0": {"id": B}, "shop/frontend:1.0": {"id": C}}, []),
        ({"shop/backend:1.0": {"id": A}, "shop/frontend:1.0": {"id": A, "digests": [f"shop/frontend@{C}"]}}, []),
        # A tag that means another image now.
        ({"shop/backend:1.0": {"id": C, "digests": []}, "shop/frontend:1.0": {"id": C}}, [("shop/backend:1.0", True)]),
    ],
)
def test_hosts_get_the_recorded_images_that_they_lack(there: dict[str, Any], missing: list[tuple[str, bool]]):
    assert [(item["name"], item["other"]) for item in image_records.to_bring(NAMES, RECORD, there)] == missing


def test_what_no_build_recorded_is_left_to_its_name():
    assert image_records.to_bring(NAMES, None, {}) == []
    assert [item["name"] for item in image_records.to_bring(NAMES, {"backend": {"digest": A}}, {})] == ["shop/backend:1.0"]


SHARED = {"backend": "shop/backend:1.0", "worker": "docker.io/shop/backend:1.0", "frontend": "shop/frontend:1.0", "other": "other:1"}


def test_services_that_share_an_image_share_what_is_recorded_of_it():
    """A build records an image once, under the first of the services that say how it is built."""
    assert image_records.with_shared(SHARED, RECORD) == {**RECORD, "worker": RECORD["backend"]}
    # What is recorded of a service itself counts for it; what none has any more counts for none.
    own = {"backend": {"digest": A}, "worker": {"digest": C}, "gone": {"digest": B}}
    assert image_records.with_shared(SHARED, own) == own
    assert image_records.with_shared(SHARED, None) == image_records.with_shared({}, None) == {}


@pytest.mark.parametrize(
    ("services", "brought"),
    [
        (["worker"], ["docker.io/shop/backend:1.0"]),
        (["frontend"], ["shop/frontend:1.0"]),
        (["other"], []),
        ([], []),
    ],
)
def test_a_host_gets_the_recorded_images_of_its_own_services_alone(services: list[str], brought: list[str]):
    assert [item["name"] for item in image_records.to_bring(SHARED, RECORD, {}, services)] == brought
    assert [item["digest"] for item in image_records.to_bring(SHARED, RECORD, {}, ["worker"])] == [A]


def listed(identity: str, *digests: str) -> dict[str, Any]:
    """Return an image as an engine lists it."""
    return {"id": identity, "digests": [f"shop/backend@{digest}" for digest in digests]}


@pytest.mark.parametrize(
    ("record", "images", "same"),
    [
        # The same id, whatever else is known.
        ({}, [listed(A), listed(A)], True),
        ({}, [listed(A, B), listed(A, C)], True),
        ({}, [listed(A), listed(B)], False),
        # One engine lists it by its configuration, the other by its manifest or, of several platforms, by their index.
        ({}, [listed(A, B), listed(B, B)], True),
        # Two platforms of one name, each with a configuration of its own.
        ({}, [listed(A, C), listed(B, C)], True),
        ({}, [listed(A, C), listed(B, A), listed(C, B)], True),
        ({}, [listed(A, C), listed(B, D)], False),
        # An image that was loaded has no digest of a registry, but a build may have recorded both.
        ({"backend": {"digest": A, "id": B}}, [listed(A), listed(B)], True),
        ({"backend": {"digest": A, "id": B}}, [listed(B), listed(B)], True),
        ({"backend": {"digest": A, "id": B}}, [listed(A), listed(C)], False),
        ({"backend": {"digest": C}}, [listed(A, C), listed(B, C)], True),
        ({"worker": {"digest": A, "id": B}}, [listed(A), listed(B)], True),
    ],
)
def test_hosts_have_the_same_image_whatever_their_engines_list_it_by(record: dict[str, Any], images: list[Any], same: bool):
    hosts = {f"app{number}": {"shop/backend:1.0": image} for number, image in enumerate(images, 1)}
    running = {host: ["backend", "worker"] for host in hosts}
    told = image_records.differing_images({name: SHARED[name] for name in ("backend", "worker")}, record, running, hosts)
    assert bool(told) is not same
    if told:
        (sentence,) = told
        assert all(f"{image['id']} on app" in sentence for image in images)
        assert "docker image rm shop/backend:1.0" in sentence


def test_an_image_that_a_host_was_not_seen_to_have_was_not_compared():
    hosts = {"app1": {"shop/backend:1.0": listed(A)}, "app2": {}, "app3": {}}
    running = {"app1": ["backend"], "app2": ["worker"], "app3": []}
    told = image_records.differing_images(SHARED, None, running, hosts)
    assert told == ["shop/backend:1.0 is not on app2, so it was not compared; pull or load it there"]


def test_an_image_is_brought_to_all_hosts_whose_services_use_it(checkout: Path, play: Run):
    (checkout / "inventories/test/hosts.yml").write_text(
        yaml.safe_dump(
            {
                "all": {
                    "vars": {"ansible_connection": "ansible.builtin.local", "ansible_python_interpreter": sys.executable},
                    "children": {"app": {"hosts": {"one": {}}}, "workers": {"hosts": {"two": {}}}},
                }
            }
        )
    )
    services = {
        "backend": {"image": "shop/backend:1.0", "port": 8000, "build": {"context": "backend"}},
        "frontend": {"image": "shop/frontend:1.0", "port": 3000, "build": {"context": "frontend"}},
        "worker": {"image": "shop/backend:1.0", "hosts": "workers"},
    }
    variables = {"app_version": "1.0", "app_services": services, "image_digests": {"1.0": RECORD}}
    (checkout / "inventories/test/group_vars/all/20_product.yml").write_text(yaml.safe_dump(variables))
    pulls = {
        "hosts": "all",
        "gather_facts": False,
        "vars": {"container_service_host_state": {"images": {}}},
        "tasks": [{"ansible.builtin.import_role": {"name": "slipway.stack.image", "tasks_from": "pull.yml", "rolespec_validate": False}}],
    }
    (checkout / "playbooks/pulls.yml").write_text(yaml.safe_dump([pulls]))
    done = play("pulls", "--check", "-v", ANSIBLE_STDOUT_CALLBACK="ansible.builtin.minimal")
    assert done.returncode == 0, done.stdout + done.stderr
    pulled = {
        part.split()[0]: re.findall(r"shop/\w+:1\.0", part) for part in re.split(r"^(?=one |two )", done.stdout, flags=re.MULTILINE)[1:]
    }
    assert pulled == {"one": ["shop/backend:1.0", "shop/frontend:1.0"], "two": ["shop/backend:1.0"]}


def test_a_build_gets_all_its_arguments_and_shows_no_login_of_a_proxy():
    command = images.build_command(
        {
            "context": "/src/backend",
            "dockerfile": "/src/backend/Dockerfile",
            "arguments": {"APP_VERSION": "1.0"},
            "proxies": {"HTTP_PROXY": "http://user:hunter2@proxy:3128", "NO_PROXY": ""},
            "ca_file": "/etc/ca.pem",
            "platform": "linux/arm64",
            "network": "host",
            "cache_from": ["registry.example.com/shop/backend:0.9"],
        },
        "slipway-build:1",
        "/tmp/metadata",
    )
    text = " ".join(command)
    assert "hunter2" not in text
    assert "--build-arg HTTP_PROXY " in text
    assert "NO_PROXY" not in text
    assert "--secret id=ca,src=/etc/ca.pem" in text
    assert "--build-arg APP_VERSION=1.0" in text
    assert "--platform linux/arm64" in text
    assert "--cache-from type=registry,ref=registry.example.com/shop/backend:0.9 --cache-to type=inline" in text
    assert command[-3:] == ["--file", "/src/backend/Dockerfile", "/src/backend"]
    # It gets its own name when it is known that the version is free.
    assert "--tag slipway-build:1 --metadata-file /tmp/metadata" in text


def test_a_failed_build_shows_the_step_that_failed():
    failed = "------\n > [2/3] RUN false:\n0.2 boom\n------\nDockerfile:3\n--------------------\n   3 | >>> RUN false\n"
    failed += "--------------------\nERROR: failed to solve: exit code: 1\n"
    output = "#1 load\n#2 pull\n" * 40 + failed
    shown = images.failure_of(output)
    assert "boom" in shown
    assert "ERROR: failed to solve" in shown
    assert "#2 pull" not in shown
    assert images.failure_of("one\n\ntwo") == "one\ntwo"


def test_a_version_names_one_image_for_good():
    assert images.conflict("1.0", "backend", None, {"id": A, "digest": A}) == ""
    assert images.conflict("1.0", "backend", {"digest": A, "id": B}, {"id": B, "digest": C}) == ""
    assert images.conflict("1.0", "backend", {"digest": A}, {"id": B, "digest": A}) == ""
    told = images.conflict("1.0", "backend", {"digest": A, "id": B}, {"id": C, "digest": ""})
    assert B in told
    assert C in told
    assert "image_replace" in told


def test_a_push_names_its_digest():
    assert images.pushed_digest(f"1.0: digest: {A} size: 123\n") == A
    with pytest.raises(ImageError, match="reported no digest"):
        images.pushed_digest("Pushed\n")


def test_what_a_pull_says_is_counted():
    events = [
        {"status": "Pulling from shop/backend", "id": "1.0"},
        {"status": "Already exists", "id": "aaa"},
        {"status": "Downloading", "id": "bbb"},
        {"status": "Download complete", "id": "bbb"},
        {"status": "Pull complete", "id": "bbb"},
    ]
    stream = "\r\n".join(json.dumps(event) for event in events)
    assert images.pull_outcome(stream) == {"layers_moved": 1, "layers_kept": 1, "error": ""}
    assert images.pull_outcome('{"error": "manifest unknown"}\n')["error"] == "manifest unknown"


def test_the_record_is_read_as_it_was_written_and_versions_are_in_order():
    digests: dict[str, Any] = {}
    for version in ("1.10.0", "1.9.0", "1.9.0-rc1", "2"):
        digests = image_records.with_record(digests, version, {"backend": {"digest": A, "id": ""}, "frontend": {"digest": B, "id": C}})
    assert list(digests) == ["1.9.0", "1.9.0-rc1", "1.10.0", "2"]
    read = yaml.safe_load(image_records.record_text(digests))["image_digests"]
    assert list(read) == list(digests)
    assert read["2"] == {"backend": {"digest": A}, "frontend": {"digest": B, "id": C}}
    assert yaml.safe_load(image_records.record_text({}))["image_digests"] == {}
    with pytest.raises(ImageError, match="digest of the backend"):
        image_records.with_record({}, "1.0", {"backend": {"digest": "latest"}})


# What hosts do not need any more

PRODUCT_IMAGES = ["hub:5000/desk/backend:1.1.0", "docker.io/desk/frontend:v1.1.0-alpine"]


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        # Released before and not kept, recorded by a build, and pulled from its registry though no build has recorded it.
        ("hub:5000/desk/backend:0.9", True),
        ("hub:5000/desk/backend:1.2.0", True),
        ("hub:5000/desk/backend:1.10.0", True),
        ("desk/frontend:v0.9-alpine", True),
        # The version that serves, one that is kept, and one that a container uses.
        ("hub:5000/desk/backend:1.1.0", False),
        ("hub:5000/desk/backend:1.0.0", False),
        ("desk/frontend:v1.0.0-alpine", False),
        ("desk/frontend:v1.2.0-alpine", False),
        # Nothing that is not known to be another version's, or that cannot be pulled again.
        ("hub:5000/desk/backend:loaded-1.3", False),
        ("hub:5000/desk/backend:latest", False),
        ("hub:5000/desk/backend:3.0.0", False),
        ("desk/frontend:0.9", False),
        ("desk/frontend:v-alpine", False),
        ("desk/frontend:v0.9", False),
        ("other/backend:0.9", False),
        ("desk/backend:0.9", False),
        (f"hub:5000/desk/backend@{A}", False),
    ],
)
def test_images_of_versions_that_nothing_needs_are_found(name: str, goes: bool):
    repository = name.partition("@")[0].rpartition(":")[0]
    digests = [] if name.endswith(":3.0.0") else [f"{repository}@{A}"]
    found = image_records.old_images(
        PRODUCT_IMAGES,
        "1.1.0",
        kept=["1.1.0", "1.0.0"],
        retired=["0.9"],
        digests={"1.0.0": {}, "1.2.0": {}},
        images={name: {"id": A, "digests": digests}},
        used=["docker.io/desk/frontend:v1.2.0-alpine", "redis"],
    )
    assert found == ([name] if goes else [])


@pytest.mark.parametrize("name", ["desk/backend", "hub-1.1.0:5000/desk/backend", "desk/backend:stable", "desk/backend:1.1.0-1.1.0"])
def test_an_image_whose_tag_does_not_hold_the_version_once_says_nothing_of_others(name: str):
    there = {f"{image}:1.0.0": {"id": A, "digests": [f"{image}@{A}"]} for image in ("desk/backend", "hub-1.1.0:5000/desk/backend")}
    assert image_records.old_images([name], "1.1.0", [], ["1.0.0"], {}, there, []) == []


@pytest.mark.parametrize(
    ("version", "other", "same"),
    [
        ("1.9.0", "1.10.0", True),
        ("1.9.0", "1.10", False),
        ("1.9.0", "1.9.0-rc1", False),
        ("2026-11-30", "2025-01-02", True),
        ("a1b2c3d", "9f8e7d6", True),
        ("a1b2c3d", "9f8e7d6c", False),
        ("a1b2c3d", "staging", False),
        ("a1b2c3d", "defaced", False),
        ("1.9.0", "latest", False),
        ("stable", "latest", False),
    ],
)
def test_tags_of_one_form_are_versions_of_one_product(version: str, other: str, same: bool):
    assert image_records.same_form(version, other) is same


# The folder of layers


def blob(content: bytes) -> tuple[str, bytes]:
    return f"sha256:{hashlib.sha256(content).hexdigest()}", content


def saved(*layers: bytes, packed: bool = False, attested: bool = False) -> io.BytesIO:
    """Return what `docker save` writes for an image of these layers."""
    kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if packed else "")
    parts = [blob(layer) for layer in layers]
    config = blob(json.dumps({"rootfs": {"diff_ids": [digest for digest, _ in parts]}}).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config[0], "size": len(config[1])},
        "layers": [{"mediaType": kind, "digest": digest, "size": len(content)} for digest, content in parts],
    }
    parts += [config, blob(json.dumps(manifest).encode())]
    if attested:
        entries = [{"digest": parts[-1][0], "platform": {"architecture": "amd64"}}, {"digest": A, "platform": {"architecture": "unknown"}}]
        parts.append(blob(json.dumps({"manifests": entries}).encode()))
    files = {f"blobs/sha256/{digest[7:]}": content for digest, content in parts}
    files["index.json"] = json.dumps({"manifests": [{"digest": parts[-1][0]}]}).encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive.seek(0)
    return archive


def test_layers_are_kept_once_and_compressed_the_same_each_time(tmp_path: Path):
    layout = Layout(tmp_path / "images")
    base, one, two = b"base" * 5000, b"one" * 5000, b"two" * 5000
    first, config = layout.add(saved(base, one))
    assert layout.add(saved(base, one)) == (first, config)
    blobs = {path.name for path in layout.blobs.iterdir()}
    second, _ = layout.add(saved(base, two))
    # A layer, a configuration and a manifest more: the base is shared.
    assert len({path.name for path in layout.blobs.iterdir()} - blobs) == 3
    assert layout.missing(first) == layout.missing(second) == []
    again, _ = Layout(tmp_path / "elsewhere").add(saved(base, one))
    assert again == first
    contents = [gzip.decompress(layout.path(layer["digest"]).read_bytes()) for layer in layout.manifest(first)["layers"]]
    assert contents == [base, one]
    for digest in layout.parts(second):
        assert hashlib.sha256(layout.path(digest).read_bytes()).hexdigest() == digest[7:]
    assert not list(layout.folder.rglob(".new-*"))
    # git must not take it for part of the inventory.
    assert (layout.folder / ".gitignore").read_text() == "*\n"


def test_what_no_version_needs_goes(tmp_path: Path):
    layout, shop = Layout(tmp_path / "images"), str(tmp_path)
    first, _ = layout.add(saved(b"base", b"one"))
    second, _ = layout.add(saved(b"base", b"two"))
    # What a writer left that was killed.
    (layout.blobs / ".new-layer").touch()
    (layout.folder / ".save-image/blobs").mkdir(parents=True)
    assert layout.prune(shop, [second, A]) == 4
    assert layout.missing(second) == []
    assert layout.missing(first) == [first]
    assert not (layout.folder / ".save-image").exists()
    third, _ = layout.add(saved(b"base", b"one"))
    assert (third, layout.missing(third)) == (first, [])


def test_environments_that_share_a_folder_keep_what_the_others_need(tmp_path: Path):
    layout, environments = Layout(tmp_path / "images"), [tmp_path / name for name in ("prod", "staging")]
    for environment in environments:
        environment.mkdir()
    prod, staging = map(str, environments)
    first, _ = layout.add(saved(b"base", b"one"))
    layout.prune(prod, [first])
    second, _ = layout.add(saved(b"base", b"two"))
    assert layout.prune(staging, [second]) == 0
    third, _ = layout.add(saved(b"base", b"three"))
    # The former image of one's own goes, and that of the other stays.
    assert layout.prune(staging, [third]) == 3
    assert layout.missing(first) == layout.missing(third) == []
    # An environment of this controller that is gone needs nothing; one of another controller is not seen from here.
    environments[0].rmdir()
    (root,) = [path for path in (layout.folder / "roots").iterdir() if prod in path.read_text()]
    before = json.loads(root.read_text())
    root.write_text(json.dumps({**before, "controller": "another"}))
    assert layout.prune(staging, [third]) == 0
    root.write_text(json.dumps(before))
    assert layout.prune(staging, [third]) == 3
    assert (layout.missing(first), layout.missing(third)) == ([first], [])
    assert not root.exists()


def test_environments_of_one_path_on_several_controllers_keep_what_the_others_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    layout, prod = Layout(tmp_path / "images"), str(tmp_path)
    monkeypatch.setattr("socket.gethostname", lambda: "one")
    # Of before environments had a name: the first build with one takes its place.
    former, _ = layout.add(saved(b"former"))
    layout.prune(prod, [former])
    first, _ = layout.add(saved(b"first"))
    assert layout.prune(prod, [first], "a") == 3
    monkeypatch.setattr("socket.gethostname", lambda: "two")
    second, _ = layout.add(saved(b"second"))
    assert layout.prune(prod, [second], "b") == 0
    third, _ = layout.add(saved(b"third"))
    # As in CI, where each run has another name of a host.
    monkeypatch.setattr("socket.gethostname", lambda: "three")
    assert layout.prune(prod, [third], "b") == 3
    assert [layout.missing(digest) for digest in (first, second, third)] == [[], [second], []]
    # A copy of an environment has its name.
    copy = tmp_path / "copy"
    copy.mkdir()
    fourth, _ = layout.add(saved(b"fourth"))
    assert layout.prune(str(copy), [fourth], "b") == 0


@pytest.mark.parametrize("store", ["", "/srv/images"])
def test_an_environment_that_shares_a_folder_of_images_has_a_name_that_stays(store: str, tmp_path: Path):
    (tmp_path / "group_vars").mkdir()

    def recorded(*, check: bool = False) -> str:
        task = SimpleNamespace(args={"version": "1.0", "store": store}, check_mode=check, async_val=0, environment=None, diff=False)
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/none"))
        action = image_record.ActionModule(cast("Any", task), cast("Any", connection), *[cast("Any", None)] * 4)
        return str(action.run(task_vars={"ansible_inventory_sources": [str(tmp_path)]})["environment"])

    path = tmp_path / ".image-store-id"
    assert (recorded(check=True), path.exists()) == ("", False)
    first = recorded()
    assert (recorded(), recorded(check=True), path.exists(), len(first)) == (first, first, bool(store), 32 if store else 0)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"inventory": null, "controller": "c", "digests": []}'])
def test_nothing_goes_where_it_is_not_known_what_another_environment_needs(tmp_path: Path, text: str):
    layout = Layout(tmp_path / "images")
    first, _ = layout.add(saved(b"one"))
    layout.prune(str(tmp_path), [first])
    (layout.folder / "roots/other.json").write_text(text)
    with pytest.raises(LayoutError, match=r"other\.json, which says what an environment needs, cannot be read"):
        layout.prune(str(tmp_path), [])
    assert layout.missing(first) == []


def test_one_writer_waits_for_the_other(tmp_path: Path):
    layout = Layout(tmp_path / "images")
    done: list[str] = []

    def other() -> None:
        with Layout(tmp_path / "images").writing():
            done.append("other")

    with layout.writing():
        writer = threading.Thread(target=other)
        writer.start()
        writer.join(0.2)
        assert done == []
    writer.join(10)
    assert done == ["other"]


def test_an_image_of_the_collection_keeps_the_one_that_was_built_before_it(root: Path):
    """Neither is recorded, and both go to the hosts at the end."""
    (block,) = (task["block"] for task in yaml.safe_load((root / "roles/image/tasks/build.yml").read_text()) if "block" in task)
    (kept,) = (task["slipway.stack.image_build"]["kept"] for task in block if "slipway.stack.image_build" in task)
    variables: dict[str, Any] = {"__image_recorded": {"kept": ["sha256:recorded"]}}
    templar = Templar(DataLoader(), variables=variables)
    assert templar.template(trust_as_template(kept)) == ["sha256:recorded"]
    templar.available_variables = {**variables, "__image_own_built": {"exporters_image": {"digest": "sha256:exporters"}}}
    assert templar.template(trust_as_template(kept)) == ["sha256:recorded", "sha256:exporters"]


def test_compressed_layers_and_images_with_attestations_are_taken_as_they_are(tmp_path: Path):
    layout = Layout(tmp_path)
    layer = gzip.compress(b"layer")
    plain, _ = layout.add(saved(layer, packed=True))
    attested, _ = layout.add(saved(layer, packed=True, attested=True))
    assert plain == attested
    assert layout.manifest(plain)["layers"][0]["digest"] == blob(layer)[0]


def test_an_old_form_of_saved_images_is_named(tmp_path: Path):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"), io.BytesIO(b""))
    archive.seek(0)
    with pytest.raises(LayoutError, match="25 or newer"):
        Layout(tmp_path).add(archive)
    with pytest.raises(LayoutError, match="not a digest"):
        Layout(tmp_path).path("../../etc/passwd")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def test_an_engine_gets_manifests_and_layers_and_nothing_else(tmp_path: Path):
    layout = Layout(tmp_path / "images")
    digest, config = layout.add(saved(b"base" * 1000))
    layer = layout.manifest(digest)["layers"][0]["digest"]
    (tmp_path / "images/secret").write_text("no")
    path = str(tmp_path / "socket")
    with Server(layout, path) as server:
        connection = UnixConnection(path)

        def ask(method: str, target: str) -> tuple[int, dict[str, str], bytes]:
            connection.request(method, target)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

        assert ask("GET", "/v2/")[0] == 200
        status, headers, body = ask("GET", f"/v2/shop/backend/manifests/{digest}")
        assert (status, headers["Docker-Content-Digest"]) == (200, digest)
        assert headers["Content-Type"] == "application/vnd.oci.image.manifest.v1+json"
        assert json.loads(body)["config"]["digest"] == config
        assert ask("HEAD", f"/v2/shop/backend/blobs/{layer}")[2] == b""
        sent = server.bytes_sent
        assert ask("GET", f"/v2/shop/backend/blobs/{layer}")[2] == layout.path(layer).read_bytes()
        assert server.bytes_sent - sent == layout.path(layer).stat().st_size
        for target in (
            f"/v2/shop/backend/blobs/{A}",
            "/v2/shop/backend/manifests/1.0",
            "/secret",
            "/v2/../secret",
            "/v2/x/blobs/../../secret",
        ):
            assert ask("GET", target)[0] == 404, target
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        UnixConnection(path).connect()


# The way to a host


def test_a_tunnel_uses_the_settings_of_ansibles_connection_and_shares_none():
    connection = connection_loader.get("ansible.builtin.ssh", PlayContext(), "/dev/null")
    variables = {
        "ansible_host": "10.0.0.7",
        "ansible_port": 2222,
        "ansible_user": "ops",
        "ansible_ssh_private_key_file": "/keys/ops",
        "ansible_ssh_common_args": "-o ProxyJump=bastion -o LogLevel=ERROR",
    }
    connection.set_options(var_options=variables)
    command = ssh_command(connection, "-R", "127.0.0.1:0:/tmp/socket")
    text = " ".join(command)
    for part in ("Port=2222", 'User="ops"', 'IdentityFile="/keys/ops"', "ProxyJump=bastion"):
        assert part in text
    # ssh takes the first value of an option.
    assert command.index("LogLevel=INFO") < command.index("LogLevel=ERROR")
    assert command.index("ControlPath=none") < command.index("Port=2222")
    assert command[-1] == "10.0.0.7"
    with pytest.raises(TunnelError, match="local"):
        ssh_command(connection_loader.get("ansible.builtin.local", PlayContext(), "/dev/null"))


# Bad input


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """A product in a git repository, with a tag."""
    folder = tmp_path / "product"
    for tier in ("backend", "frontend"):
        (folder / tier).mkdir(parents=True)
        (folder / tier / "Dockerfile").write_text("FROM scratch\n")
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "first"],
        ["tag", "v1"],
    ):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder


def message_of(product: Path, **changes: Any) -> str:
    """Return what a build says of its inputs before it builds; "" where they will do."""
    tiers = {tier: {"name": f"shop/{tier}:1.0", "context": tier, "dockerfile": "Dockerfile"} for tier in ("backend", "frontend")}
    options: dict[str, Any] = {"source": str(product), "git_ref": "", "version": "1.0", "transport": "ssh", "images": tiers}
    options |= {"build_host": "localhost", "registry_host": ""} | {name: value for name, value in changes.items() if "_of_" not in name}
    for name, value in changes.items():
        key, of, tier = name.partition("_of_")
        if of:
            tiers[tier][key] = value
    problems = problems_of(options)
    if problems:
        return "; ".join(problems)
    try:
        folder, commit, temporary = folder_of(options["source"], options["git_ref"])
        found = {tier: image_of(tier, image, folder, options) for tier, image in tiers.items()}
    except AnsibleActionFail as error:
        return str(error)
    assert all((folder / image["dockerfile"]).read_text() == "FROM scratch\n" for image in found.values())
    assert bool(commit) == bool(temporary) == (bool(options["git_ref"]) or "://" in options["source"])
    if temporary:
        shutil.rmtree(temporary)
    return ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        ({"git_ref": "v1"}, ""),
        ({"git_ref": "v1", "source": "file://PRODUCT"}, ""),
        ({"source": "file://PRODUCT"}, ""),
        ({"git_ref": "v1", "source": "PRODUCT/backend", "context_of_backend": ".", "context_of_frontend": "."}, ""),
        ({"source": ""}, "image_source is not set"),
        ({"source": "nowhere"}, "is not a folder on the controller"),
        ({"git_ref": "v9"}, "image_git_ref is v9, which"),
        ({"git_ref": "v9", "source": "file://PRODUCT"}, "image_git_ref v9 cannot be fetched from"),
        ({"git_ref": "--output=/tmp/x"}, "image_git_ref is --output=/tmp/x, which"),
        ({"git_ref": "--upload-pack=id", "source": "file://PRODUCT"}, "image_git_ref --upload-pack=id cannot be fetched from"),
        ({"context_of_backend": "server"}, "app_services.backend.build.context is server, but there is no such folder in"),
        ({"context_of_backend": "../elsewhere"}, "app_services.backend.build.context is ../elsewhere, but there is no such folder in"),
        ({"dockerfile_of_frontend": "Other"}, "there is no frontend/Other in"),
        ({"version": "latest"}, "must not be 'latest'"),
        ({"version": "a b"}, "a version must have only letters"),
        ({"name_of_backend": "shop/backend:9"}, "app_services.backend.image is shop/backend:9, which does not end with the version"),
        ({"transport": "registry"}, "has no registry to push to"),
        ({"transport": "hosted"}, "no host runs the registry"),
        ({"build_host": "one"}, "with image_transport ssh the layers must be on the controller"),
        ({"build_host": "one", "transport": "hosted", "registry_host": "two"}, "the registry runs on two"),
    ],
)
def test_bad_input_is_refused_in_one_message_before_anything_is_built(product: Path, changes: dict[str, Any], message: str):
    changes = {name: value.replace("PRODUCT", str(product)) for name, value in changes.items()}
    said = message_of(product, **changes)
    assert message in said
    assert bool(said) == bool(message)


class GitServer(http.server.BaseHTTPRequestHandler):
    """A server of repositories below `root` for those that log in."""

    root = Path()
    login = "ci:p@ss word"

    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Basic {base64.b64encode(self.login.encode()).decode()}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        environment = {"GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query}
        environment |= {"REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers["Content-Type"] or "", "PATH": os.environ["PATH"]}
        environment |= {"HTTP_CONTENT_ENCODING": self.headers["Content-Encoding"] or "", "GIT_CONFIG_COUNT": "1"}
        environment |= {"GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, stdout=subprocess.PIPE, check=True)
        self.send_response(200)
        # What it prints begins with headers of its own.
        self.flush_headers()
        self.wfile.write(done.stdout)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        del format, args


def test_a_password_of_a_repository_is_in_no_argument(product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All users of a host see the arguments of its processes."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "git").write_text(f'#!/bin/sh\necho "$@" >>{tools}/arguments\nexec {shutil.which("git")} "$@"\n')
    (tools / "git").chmod(0o755)
    monkeypatch.setattr(GitServer, "root", tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), GitServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        place = f"127.0.0.1:{server.server_port}/product/.git"
        assert message_of(product, source=f"http://ci:p%40ss%20word@{place}", git_ref="v1") == ""
        arguments = (tools / "arguments").read_text()
        refused = message_of(product, source=f"http://ci:wrong-one@{place}", git_ref="v1")
        server.shutdown()
    assert f"fetch --quiet --depth 1 -- http://{place} v1" in arguments
    assert "ss%20word" not in arguments
    assert refused.startswith(f"image_git_ref v1 cannot be fetched from http://{place}: ")
    assert "wrong-one" not in refused


def test_a_host_that_builds_is_sent_what_git_does_not_ignore(product: Path, tmp_path: Path):
    (product / ".gitignore").write_text("node_modules/\n")
    (product / "frontend/node_modules").mkdir()
    (product / "frontend/node_modules/big").write_text("x")
    (product / "backend/new").write_text("x")
    assert files_of(product) == [".gitignore", "backend/Dockerfile", "backend/new", "frontend/Dockerfile"]
    plain = tmp_path / "plain"
    (plain / "backend").mkdir(parents=True)
    (plain / "Dockerfile").write_text("x")
    assert files_of(plain) == ["Dockerfile", "backend"]


def test_what_is_not_committed_is_not_part_of_a_reference(product: Path):
    (product / "backend/Dockerfile").write_text("FROM other\n")
    assert message_of(product, git_ref="v1") == ""


def test_a_playbook_ends_with_that_message(play: Run, tmp_path: Path):
    values = {
        "app_version": "1.0",
        "app_services": {name: {"image": f"shop/{name}:1.0", "build": {"context": name}} for name in ("backend", "frontend")},
        "image_source": "no",
    }
    (tmp_path / "values.json").write_text(json.dumps(values))
    done = play("build", "--check", "-e", f"@{tmp_path / 'values.json'}")
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "image_source is no, but" in text
    assert "is not a folder on the controller" in text
    assert "Traceback" not in text


# Logins


LOGIN = {"username": "deploy", "password": "s3cret", "registry": "registry.example.com"}


def test_a_login_is_used_for_base_images_and_caches_too_together_with_the_clients_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cli-plugins").mkdir()
    own = {"auths": {"hub.example.com": {"auth": "b3du"}, "registry.example.com": {}}, "credsStore": "vault", "proxies": {"default": {}}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with image_build.logged_in({}) as environment:
        assert environment == {}
    with image_build.logged_in(LOGIN) as environment:
        folder = Path(environment["DOCKER_CONFIG"])
        config = json.loads((folder / "config.json").read_text())
        assert (folder / "config.json").stat().st_mode & 0o777 == 0o600
        assert (folder / "cli-plugins").is_dir()
    assert not folder.exists()
    assert (tmp_path / "cli-plugins").is_dir()
    assert base64.b64decode(config["auths"]["registry.example.com"]["auth"]) == b"deploy:s3cret"
    assert (config["auths"]["hub.example.com"], config["proxies"]) == ({"auth": "b3du"}, {"default": {}})
    # What keeps the other logins is not asked for this one.
    assert (config["credHelpers"], "credsStore" in config) == ({"hub.example.com": "vault"}, False)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ImageError, match=r"config\.json cannot be read"), image_build.logged_in(LOGIN):
        pass


# Where it is built

DOCKER = """#!/bin/sh
# Replaces the client: notes what it is asked, and what is in the folder that it builds.
echo "$@" >>LOG
[ -z "$DOCKER_CONFIG" ] || echo "$1 with $(ls "$DOCKER_CONFIG")" >>LOG
case "$1" in
  buildx)
    while [ $# -gt 1 ]; do
      [ "$1" = --metadata-file ] && echo '{"containerimage.config.digest": "ID"}' >"$2"
      shift
    done
    if [ -d "$1" ]; then ls -A "$1" >>LOG; fi ;;
  push) echo "1.0: digest: ID size: 1" ;;
esac
"""
# Replaces the connection to another host: runs there what comes last.
SSH = """#!/bin/sh
for last; do :; done
echo ssh >>LOG
exec sh -c "$last"
"""


@pytest.mark.parametrize("host", ["localhost", "builder"])
def test_images_are_built_and_pushed_where_it_is_asked_for_with_the_cache_that_is_named(
    checkout: Path, play: Run, product: Path, tmp_path: Path, host: str
):
    (product / "backend/ignored").write_text("x")
    (product / ".gitignore").write_text("ignored\n")
    log, programs = tmp_path / "log", tmp_path / "bin"
    programs.mkdir()
    for name, text in (("docker", DOCKER), ("ssh-there", SSH)):
        (programs / name).write_text(text.replace("LOG", str(log)).replace("ID", A))
        (programs / name).chmod(0o755)
    hosts = checkout / "inventories/test/hosts.yml"
    inventory = yaml.safe_load(hosts.read_text())
    inventory["all"]["children"]["builders"] = {
        "hosts": {
            "builder": {
                "ansible_connection": "ansible.builtin.ssh", "ansible_ssh_executable": str(programs / "ssh-there"),
                "ansible_ssh_transfer_method": "piped",
            }
        }
    }  # fmt: skip
    hosts.write_text(yaml.safe_dump(inventory))
    values = {
        "app_version": "1.0",
        "app_services": {
            name: {"image": f"registry.example.com/shop/{name}:1.0", "build": {"context": name}} for name in ("backend", "frontend")
        },
        "image_source": str(product),
        "image_transport": "registry",
        "image_build_host": host,
        "image_cache_from": ["registry.example.com/shop/backend:0.9"],
        "image_registry_login": {"username": "deploy", "password": "s3cret"},
    }
    (tmp_path / "values.json").write_text(json.dumps(values))
    done = play("build", "-e", f"@{tmp_path / 'values.json'}", PATH=f"{programs}:{os.environ['PATH']}", HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    asked = log.read_text()
    assert ("ssh" in asked.splitlines()) == (host == "builder")
    cached = "--cache-from type=registry,ref=registry.example.com/shop/backend:0.9 --cache-to type=inline"
    for tier in ("backend", "frontend"):
        (build,) = [line for line in asked.splitlines() if line.startswith("buildx build") and line.endswith(f"/{tier}")]
        assert cached in build
        # Another host is sent the source, in a folder that goes when it is done.
        context = Path(build.split()[-1])
        assert (context == product / tier) == (host == "localhost")
        assert context.exists() == (host == "localhost")
        assert f"push registry.example.com/shop/{tier}:1.0" in asked
    assert asked.count("buildx with config.json") == asked.count("push with config.json") == 2
    assert "s3cret" not in asked + done.stdout + done.stderr
    assert ("ignored" in asked.splitlines()) == (host == "localhost")
    recorded = yaml.safe_load((checkout / "inventories/test/group_vars/all/30_images.yml").read_text())["image_digests"]["1.0"]
    assert {entry["digest"] for entry in recorded.values()} == {A}


# Images that site.yml builds where hosts lack them, by the folder that each is built from.
OWN_IMAGES = {"acme-client": "acme", "backup-tools": "backup", "exporters": "exporters", "monitoring": "monitoring"}
IMAGE_TAGS = ROOT / "tests/image_tags.yml"


def content_of(folder: Path) -> str:
    """Return a digest of the names, the modes and the contents of a folder's files."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        executable = bool(path.stat().st_mode & 0o100)
        found.update(f"{path.relative_to(folder)}\0{executable}\0{len(path.read_bytes())}\0".encode() + path.read_bytes())
    return found.hexdigest()


@pytest.mark.parametrize(("name", "folder"), OWN_IMAGES.items())
def test_the_tag_of_an_image_follows_its_content(name: str, folder: str):
    """What a host has is not built again: with another content under the same tag, an upgraded program would run in the old image."""
    recorded = yaml.safe_load(IMAGE_TAGS.read_text())[f"slipway/{name}"]
    sources = [*ROOT.glob("roles/*/defaults/main.yml"), *ROOT.glob("roles/*/meta/argument_specs.yml"), ROOT / "group_vars/all.yml"]
    tags = {tag for path in [*sources, ROOT / "lab/images"] for tag in re.findall(rf"slipway/{name}:([\w.-]+)", path.read_text())}
    assert len(tags) == 1, f"one tag everywhere, not {sorted(tags)}"
    how = f"give slipway/{name} a tag that was never used, in roles, group_vars and lab/images, and add it to {IMAGE_TAGS.name} with"
    assert recorded.get(tags.pop()) == content_of(ROOT / "images" / folder), f"{how} {content_of(ROOT / 'images' / folder)}"
    assert len(set(recorded.values())) == len(recorded), "a content has one tag"
    # What was once recorded may be on hosts, and stays as it is.
    history = subprocess.run(
        ["git", "log", "-p", "-U9999", "--format=", "--", str(IMAGE_TAGS)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    image, before = "", set()
    for line in history.stdout.splitlines():
        if found := re.match(r"[ +-]slipway/([\w-]+):$", line):
            image = found[1]
        elif image == name and (found := re.match(r"[+-] +\"([\w.-]+)\": (\w+)$", line)):
            before.add((found[1], found[2]))
    assert before <= set(recorded.items()), f"a tag that was recorded stays: {before - set(recorded.items())}"


def test_the_folders_that_images_are_built_from_are_all_recorded():
    built = {
        folder
        for path in ROOT.glob("roles/*/meta/service.yml")
        for folder in (yaml.safe_load(path.read_text()).get("builds") or {}).values()
    }
    assert built == {f"images/{folder}" for folder in OWN_IMAGES.values()}
    assert set(yaml.safe_load(IMAGE_TAGS.read_text())) == {f"slipway/{name}" for name in OWN_IMAGES}
