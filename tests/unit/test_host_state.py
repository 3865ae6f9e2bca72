# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which containers host_state takes for the stack's, and which for foreign ones."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ansible_collections.slipway.stack.plugins.module_utils.sockets import Listener
from ansible_collections.slipway.stack.plugins.modules import host_state
from ansible_collections.slipway.stack.plugins.plugin_utils import plan, preflight


@pytest.mark.parametrize(
    ("name", "labels", "ours"),
    [
        ("anything", {"slipway.stack": "slipway"}, True),
        ("slipway-redis", {"slipway.stack": "another"}, False),
        # Recreated by hand, where Redis was deployed before.
        ("slipway-redis", {}, True),
        ("slipway-redis", {"maintainer": "somebody"}, True),
        # A name of the stack on a host that never had the service, and names that only look alike.
        ("slipway-chroma", {}, False),
        ("redis", {}, False),
        ("slipway-", {}, False),
        ("another-redis", {}, False),
    ],
)
def test_a_container_is_known_by_its_label_or_by_the_name_of_what_ran_here(tmp_path: Path, name: str, labels: dict[str, str], ours: bool):
    (tmp_path / "redis").mkdir()
    assert host_state.of_the_stack(name, labels, "slipway", str(tmp_path)) is ours


#: What is read of a host on which nothing runs, and the port that is looked for there.
NOTHING: dict[str, Any] = {"containers": {}, "foreign_containers": {}, "mesh": {"interface": {}}}
MESH_PORT = {"protocol": "udp", "port": 51820, "variable": "slipway_mesh_port"}


def listed(*ports: tuple[str, str, int]) -> dict[str, list[str]]:
    """Return published ports as the engine lists them with a container: each with its kind, address and number."""
    return host_state.listed_ports([{"IP": ip, "PrivatePort": 5432, "PublicPort": port, "Type": kind} for kind, ip, port in ports])


@pytest.mark.parametrize(
    ("ports", "address", "found"),
    [
        (listed(("tcp", "127.0.0.1", 5432)), None, [("tcp", "127.0.0.1", "old")]),
        # The engine's own socket.
        (listed(("tcp", "127.0.0.1", 5432)), "127.0.0.1", [("tcp", "127.0.0.1", "old")]),
        (listed(("tcp", "0.0.0.0", 5432), ("tcp", "::", 5432)), "::", [("tcp", "", "old")]),
        (listed(("tcp", "127.0.0.1", 5432)), "10.0.0.1", [("tcp", "127.0.0.1", "old"), ("tcp", "10.0.0.1", "nc")]),
        (listed(("udp", "10.0.0.1", 5432)), None, [("udp", "10.0.0.1", "old")]),
        # Another protocol's port is another one.
        (listed(("udp", "0.0.0.0", 5432)), "0.0.0.0", [("udp", "", "old"), ("tcp", "", "nc")]),
        (listed(("tcp", "10.0.0.1", 80)), None, []),
        ({}, "0.0.0.0", [("tcp", "", "nc")]),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "foreign_containers"])
def test_each_that_listens_on_a_port_is_known_with_its_address(
    kind: str, ports: dict[str, list[str]], address: str | None, found: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
):
    opened = [Listener("tcp", address, 5432, "7"), Listener("tcp", address, 22, "8")] if address else []
    monkeypatch.setattr(host_state.sockets, "listeners", lambda: opened)
    monkeypatch.setattr(host_state.sockets, "processes", lambda inodes: {"7": "nc"} if "7" in inodes else {})
    state = {**NOTHING, kind: {"old": {"ports": ports, "status": "running"}}}
    listening = host_state.listeners([5432], state).get("5432", [])
    assert [(item["protocol"], item["address"], item["container"] or item["process"]) for item in listening] == found
    assert all(item["ours"] is (item["container"] == "old" and kind == "containers") for item in listening)


@pytest.mark.parametrize(("interface", "taken"), [({"port": 51820}, False), ({"port": 51821}, True), ({}, True)])
def test_the_port_of_the_mesh_is_taken_by_all_but_the_mesh(interface: dict[str, int], taken: bool, monkeypatch: pytest.MonkeyPatch):
    """The kernel's WireGuard has sockets that belong to no process."""
    opened = [Listener("udp", "0.0.0.0", 51820, "7"), Listener("udp", "::", 51820, "8"), Listener("tcp", "0.0.0.0", 51820, "9")]
    monkeypatch.setattr(host_state.sockets, "listeners", lambda: opened)
    monkeypatch.setattr(host_state.sockets, "processes", lambda _inodes: {})
    listening = host_state.listeners([51820], {**NOTHING, "mesh": {"interface": interface}})
    problems = preflight.check_ports("one", {"listening": listening}, [MESH_PORT])
    said = (
        "UDP port 51820 (slipway_mesh_port) is taken by the kernel, as for another interface of WireGuard (`wg show` lists them), which is"
    )
    assert [problem.text.partition(" not part of the stack")[0] for problem in problems] == taken * [said]


def test_a_program_with_the_port_of_the_mesh_is_named():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))
        port = own.getsockname()[1]
        (problem,) = preflight.check_ports("one", {"listening": host_state.listeners([port], NOTHING)}, [{**MESH_PORT, "port": port}])
    name = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    assert problem.text.startswith(f"UDP port {port} (slipway_mesh_port) is taken by {name}, which is not part of the stack")


def test_addresses_of_both_kinds_are_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host_state.sockets, "public_ipv6", lambda: ["2001:db8::1"])
    assert "127.0.0.1" in host_state.own_addresses()
    assert host_state.own_addresses()[-1] == "2001:db8::1"


class Engine:
    """One that keeps its data in a folder."""

    def __init__(self, folder: str, **info: Any) -> None:
        self.info = {"DockerRootDir": folder, **info}

    def get(self, path: str) -> dict[str, Any]:
        assert path == "/info"
        return self.info


def containerd(address: str = "") -> dict[str, Any]:
    """Return what an engine reports whose images containerd stores; before API 1.46, not at which address that is."""
    status = [["driver-type", "io.containerd.snapshotter.v1"]]
    return {"Driver": "overlayfs", "DriverStatus": status, **({"Containerd": {"Address": address}} if address else {})}


def test_the_disk_that_counts_is_the_one_of_the_engines_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder need not be there yet, and whoever moved it has most room elsewhere."""
    sizes = {"/": (90, 80), str(tmp_path): (5000, 600)}
    usage = {path: SimpleNamespace(total=total * 2**20, free=free * 2**20) for path, (total, free) in sizes.items()}
    monkeypatch.setattr(host_state.shutil, "disk_usage", usage.get)
    root, images = host_state.roots(Engine(f"{tmp_path}/docker/data", DriverStatus=[["Backing Filesystem", "extfs"]]))
    assert images == root
    found = host_state.describe_host(root, images)
    assert found["data_root"] == f"{tmp_path}/docker/data"
    assert found["disks"] == {"/": {"total_mb": 90, "free_mb": 80}, root: {"total_mb": 5000, "free_mb": 600}}


@pytest.mark.parametrize(
    ("info", "config", "images"),
    [
        (containerd(), "", "/var/lib/containerd"),
        (containerd("/run/containerd/containerd.sock"), 'version = 2\n#root = "/a"\n', "/var/lib/containerd"),
        (containerd("/run/containerd/containerd.sock"), "root = '/srv/images' # more room\n[plugins]\nroot = '/b'\n", "/srv/images"),
        (containerd("/run/containerd/containerd.sock"), '[plugins]\n  root = "/b"\n', "/var/lib/containerd"),
        # One that the engine runs itself.
        (containerd("/var/run/docker/containerd/containerd.sock"), "root = '/srv/images'", "/var/lib/docker"),
        ({"DriverStatus": None}, "root = '/srv/images'", "/var/lib/docker"),
    ],
)
def test_images_that_containerd_stores_are_on_its_disk(
    info: dict[str, Any], config: str, images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, read = tmp_path / "config.toml", host_state.containerd_root
    path.write_text(config)
    monkeypatch.setattr(host_state, "containerd_root", lambda: read(str(path)))
    assert host_state.roots(Engine("/var/lib/docker", **info)) == ("/var/lib/docker", images)
    described = host_state.describe_host("/var/lib/docker", images)
    assert described["image_root"] == images
    assert set(described["disks"]) == {"/", "/var/lib/docker", images}


def test_an_engine_that_is_not_there_will_keep_its_data_where_its_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "daemon.json"
    monkeypatch.setattr(host_state, "ENGINE_OPTIONS", str(path))
    assert host_state.roots(None) == ("/var/lib/docker", "/var/lib/docker")
    path.write_text(json.dumps({"data-root": "/srv/docker"}))
    assert host_state.roots(None) == ("/srv/docker", "/srv/docker")
    path.write_text("{")
    assert host_state.roots(None) == ("/var/lib/docker", "/var/lib/docker")
    assert host_state.describe_host("docker", "docker")["disks"]["docker"]["total_mb"] == shutil.disk_usage("/").total // 2**20


def test_the_users_of_an_image_are_read_from_its_uppermost_layer_that_has_them(tmp_path: Path):
    for layer, text in (("base", "root:x:0:0:::\n"), ("app", "root:x:0:0:::\nshop:x:1000:1000:::\n\nbroken\n"), ("top", "")):
        (tmp_path / layer / "etc").mkdir(parents=True)
        (tmp_path / layer / "etc/passwd").write_text(text)
    layers = {"UpperDir": f"{tmp_path}/top", "LowerDir": f"{tmp_path}/app:{tmp_path}/base"}
    assert host_state.users_of(layers) == {"root": 0, "shop": 1000}
    assert host_state.users_of({}) == {}


class Containerd(host_state.Engine):
    """An engine whose images containerd stores: no folder has their files."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def request(self, method: str, path: str, *_arguments: Any, **_options: Any) -> bytes:
        self.asked.append(f"{method} {path}")
        if method == "GET" and path.endswith("/json"):
            return json.dumps({"Config": {"User": "postgres"}, "GraphDriver": {"Name": "overlayfs", "Data": None}}).encode()
        if path == "/containers/create":
            return b'{"Id": "new"}'
        if path.endswith("/archive"):
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as archive:
                content = b"root:x:0:0:::\nadmin:x:0:0:::\npostgres:x:70:70:::\n"
                member = tarfile.TarInfo("passwd")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            return packed.getvalue()
        return b""


def test_the_users_of_an_image_that_containerd_stores_are_read_from_a_container_of_it():
    images = {name: {"id": f"sha256:{name[0]}"} for name in ("postgres:17", "postgres:latest", "redis:7")}
    there = {"slipway-postgres": {"id": "one", "image_id": "sha256:p"}, "slipway-other": {"id": "two", "image_id": "sha256:x"}}
    engine = Containerd()
    host_state.describe_images(engine, images, list(images), there)
    users = {"root": 0, "admin": 0, "postgres": 70}
    assert [image["users"] for image in images.values()] == [users] * 3
    # An image once, whatever its names, and a container is made only where there is none.
    assert [asked for asked in engine.asked if not asked.startswith("GET /images/")] == [
        "GET /containers/one/archive",
        "POST /containers/create",
        "GET /containers/new/archive",
        "DELETE /containers/new",
    ]
    # What follows from them.
    state = {"images": images, "engine": {"available": True}}
    assert plan.wanted_uid({"image": "postgres:17", "user": ""}, state) == 70
    assert plan.wanted_uid({"image": "postgres:17", "user": "postgres"}, state) == 70
    named = {"postgres_user": "nosuchuser"}
    (problem,) = preflight.check_users("one", state, {"postgres_image": "postgres:17"}, named, {})
    assert "has no user nosuchuser; it has postgres" in problem.text
    (problem,) = preflight.check_users("one", state, {"postgres_image": "postgres:17"}, {"postgres_user": "admin"}, {})
    assert "asks for root" in problem.text


def test_an_image_of_which_no_container_can_be_made_has_no_known_users(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_arguments: Any) -> list[str]:
        raise host_state.EngineError("denied", 403)

    monkeypatch.setattr(Containerd, "image_files", refuse)
    images = {"redis:7": {"id": "sha256:r"}}
    host_state.describe_images(Containerd(), images, ["redis:7"], {})
    assert images["redis:7"]["users"] == {}


@pytest.mark.parametrize(
    ("environment", "versions"),
    [
        (["PATH=/bin", "NGINX_VERSION=1.29.1"], {"nginx": "1.29.1"}),
        (["PG_MAJOR=17", "PG_VERSION=17.2-1.pgdg120+1"], {"pg": "17.2-1.pgdg120+1", "pg_major": "17"}),
        (["PG_MAJOR=16"], {"pg_major": "16"}),
        (None, {}),
    ],
)
def test_an_image_is_described_with_the_versions_that_it_names(environment: list[str] | None, versions: dict[str, str]):
    class Engine:
        def get(self, path: str) -> dict[str, Any]:
            assert path == "/images/postgres:17/json"
            return {"Config": {"Env": environment}, "Os": "linux", "Architecture": "amd64", "GraphDriver": {"Data": {"UpperDir": "/none"}}}

    images: dict[str, Any] = {"postgres:17": {"id": "sha256:a"}, "redis:7": {"id": "sha256:b"}}
    host_state.describe_images(cast("host_state.Engine", Engine()), images, ["docker.io/library/postgres:17", "chroma:1"], {})
    assert images["postgres:17"]["versions"] == versions
    assert "versions" not in images["redis:7"]


def test_a_volume_is_described_with_its_content_and_its_users(tmp_path: Path):
    volume = tmp_path / "volume"
    (volume / "lost+found").mkdir(parents=True)
    assert host_state.describe_volume(str(volume), ours=False) == {
        "uid": os.getuid(),
        "empty": True,
        "pg_version": "",
        "lock": "",
        "written_s": None,
    }
    (volume / "pg_wal").mkdir()
    for name in ("PG_VERSION", "postmaster.pid", "pg_wal/1"):
        (volume / name).write_text("17\n")
        os.utime(volume / name, (1000, 1000))
    found = host_state.describe_volume(str(volume), ours=False)
    assert (found["empty"], found["pg_version"], found["lock"]) == (False, "17", "postmaster.pid")
    assert found["written_s"] > 10**6
    os.utime(volume / "pg_wal/1")
    assert host_state.describe_volume(str(volume), ours=False)["written_s"] < 60
    assert "lock" not in host_state.describe_volume(str(volume), ours=True)
    # A server that ended well has removed it.
    (volume / "postmaster.pid").unlink()
    assert host_state.describe_volume(str(volume), ours=False)["written_s"] is None
    assert host_state.describe_volume(str(tmp_path / "elsewhere"), ours=False)["empty"] is None


def test_a_volume_of_redis_is_in_use_while_a_process_works_in_it(tmp_path: Path):
    (tmp_path / "dump.rdb").write_text("REDIS")
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path) as server:
        assert host_state.describe_volume(str(tmp_path), ours=False)["written_s"] < 60
        server.kill()
    assert host_state.describe_volume(str(tmp_path), ours=False)["written_s"] is None


def test_a_volume_is_found_behind_a_folder_of_the_host_too():
    places = {"data": "/var/lib/docker/volumes/data/_data", "data2": "/var/lib/docker/volumes/data2/_data"}
    mounts = [
        {"Type": "volume", "Name": "data2", "Source": places["data2"], "RW": False},
        {"Type": "bind", "Source": places["data"] + "/sub", "RW": True},
        {"Type": "bind", "Source": "/etc", "RW": True},
    ]
    assert host_state.volumes_of(mounts, places) == {"data": "rw", "data2": "ro"}


@pytest.mark.parametrize(
    ("version", "environment", "superuser"),
    [
        ("17", ["PATH=/bin", "POSTGRES_USER=shop=admin", "POSTGRES_PASSWORD=secret"], "shop=admin"),
        ("17", ["POSTGRES_PASSWORD=secret"], None),
        ("17", None, None),
        # Another program's volume, whatever its variables say.
        ("", ["POSTGRES_USER=shop"], None),
    ],
)
def test_a_clusters_superuser_is_what_its_container_names(tmp_path: Path, version: str, environment: Any, superuser: str | None):
    if version:
        (tmp_path / "PG_VERSION").write_text(version)
    volume = {"Name": "db", "Mountpoint": str(tmp_path), "Driver": "local", "Labels": None}
    engine = SimpleNamespace(get=lambda _path: {"Volumes": [volume]}, inspect=lambda _name: {"Config": {"Env": environment}})
    state: dict[str, Any] = {"volumes": {}, "foreign_containers": {"old-db": {"mounts": [{"Name": "db", "RW": True}]}}}
    host_state.read_volumes(engine, "shop", state)
    assert state["foreign_containers"]["old-db"]["volumes"] == {"db": "rw"}
    assert state["volumes"]["db"].get("superuser") == superuser
    assert "secret" not in json.dumps(state)


@pytest.mark.parametrize(
    ("machine", "handlers", "expected"),
    [
        ("x86_64", ["register", "status"], ["linux/amd64", "linux/386"]),
        ("aarch64", None, ["linux/arm64", "linux/arm"]),
        # An emulator runs images of other platforms too; of an unknown machine nothing is claimed.
        ("x86_64", ["qemu-aarch64", "status"], []),
        ("aarch64", ["rosetta"], []),
        ("riscv64", [], []),
    ],
)
def test_platforms_are_those_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, handlers: list[str] | None, expected: list[str]
):
    folder = tmp_path / "binfmt_misc"
    for name in handlers or []:
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    monkeypatch.setattr(host_state, "EMULATORS", str(folder))
    monkeypatch.setattr(host_state.platform, "machine", lambda: machine)
    assert host_state.platforms() == expected


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        (["arm64"], "it is for linux/arm64, and this host runs linux/amd64"),
        (["arm", "arm64"], "it is for linux/arm, linux/arm64, and this host runs linux/amd64"),
        (["arm64", "amd64"], ""),
        (["386"], ""),
        # Descriptions of a build have no platform, and an old registry names none.
        (["", "amd64"], ""),
        ([""], ""),
        ([], ""),
    ],
)
def test_an_image_that_a_registry_has_for_other_platforms_only_cannot_be_pulled(offered: list[str], expected: str):
    answer = {"Platforms": [{"os": "linux", "architecture": name} for name in offered]}
    assert host_state.wrong_platform(answer, ["linux/amd64", "linux/386"]) == expected
    assert host_state.wrong_platform(answer, []) == ""


def test_a_file_of_a_volume_is_described_under_the_name_that_was_asked_for(tmp_path: Path):
    (tmp_path / "report.json").write_text("{}")
    names = ["volume:data/report.json", "volume:data/absent.json", "volume:other/report.json"]
    found = host_state.describe_files_of_volumes(names, {"data": {"mountpoint": str(tmp_path)}}, b"key")
    assert list(found) == names[:1]
    assert found[names[0]]["content"] == "{}"
