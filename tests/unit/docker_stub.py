"""Replaces the Docker client and its engine: keeps images in the folder FAKE_ENGINE, and finds them as one of the two image stores does.

The former one ("graphdriver") lists an image by the digest of its configuration and stores plain layers; containerd's lists it by the
digest of its manifest and stores what it gets from and gives to registries.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any, NoReturn

TOP = Path(os.environ.get("FAKE_ENGINE", "."))
CONTAINERD = os.environ.get("IMAGE_STORE") == "containerd"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def fail(message: str) -> NoReturn:
    sys.exit(f"Error response from daemon: {message}")


def keep(content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    (TOP / digest).write_bytes(content)
    return f"sha256:{digest}"


def content(digest: str) -> bytes:
    return (TOP / digest[7:]).read_bytes()


def find(state: dict[str, Any], reference: str) -> str:
    """Return an image's id."""
    found = state["names"].get(reference, reference)
    if found not in state["images"]:
        fail(f"No such image: {reference}")
    return found


def build(state: dict[str, Any], options: dict[str, str], context: Path) -> None:
    layer = (context / "payload").read_bytes()
    stored = gzip.compress(layer, mtime=0) if CONTAINERD else layer
    config = {"config": {"User": "10001"}, "rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}}
    id_of_config = keep(json.dumps(config).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": id_of_config, "size": 1},
        "layers": [{"mediaType": LAYER + ("+gzip" if CONTAINERD else ""), "digest": keep(stored), "size": len(stored)}],
    }
    id_of_manifest = keep(json.dumps(manifest, indent=2).encode())
    image = id_of_manifest if CONTAINERD else id_of_config
    state["images"][image] = {"config": id_of_config, "manifest": id_of_manifest}
    if "--tag" in options:
        state["names"][options["--tag"]] = image
    if "--iidfile" in options:
        # Whatever the image store lists it by, as docker buildx before 0.36 does.
        Path(options["--iidfile"]).write_text(id_of_config, encoding="ascii")
    if "--metadata-file" in options:
        said = {"containerimage.config.digest": id_of_config, "containerimage.digest": image}
        Path(options["--metadata-file"]).write_text(json.dumps(said), encoding="ascii")


def save(image: dict[str, str]) -> None:
    manifest = content(image["manifest"])
    document = json.loads(manifest)
    digests = [image["manifest"], image["config"], *(layer["digest"] for layer in document["layers"])]
    files = {f"blobs/sha256/{digest[7:]}": content(digest) for digest in digests}
    files["index.json"] = json.dumps({"manifests": [{"digest": image["manifest"]}]}).encode()
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def main() -> None:
    file = TOP / "state.json"
    state = json.loads(file.read_text()) if file.exists() else {"images": {}, "names": {}, "pushed": {}}
    words = sys.argv[1:]
    if words[:2] == ["buildx", "build"]:
        build(state, dict(itertools.pairwise(words)), Path(words[-1]))
    elif words[0] == "tag":
        state["names"][words[2]] = find(state, words[1])
    elif words[0] == "save":
        save(state["images"][find(state, words[1])])
    elif words[0] == "push":
        manifest = state["images"][find(state, words[1])]["manifest"]
        # The former image store makes another one for the registry.
        digest = manifest if CONTAINERD else keep(content(manifest) + b"\n")
        state["pushed"][words[1]] = digest
        print(f"1.0: digest: {digest} size: 1")
    elif words[:2] == ["image", "inspect"]:
        find(state, words[-1])
        print("linux/amd64 10001")
    elif words[:2] == ["image", "rm"]:
        image = find(state, words[2])
        state["names"].pop(words[2], None)
        if image not in state["names"].values():
            del state["images"][image]
    file.write_text(json.dumps(state), encoding="utf-8")


main()
