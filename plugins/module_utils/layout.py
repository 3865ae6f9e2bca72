# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of image layers, as ``docker save`` writes them: each blob once under its digest, layers compressed.

plugin_utils/layout_server.py sends them to engines.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import re
import shutil
import socket
import tarfile
import tempfile
import typing as t
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PLAIN_LAYERS = {
    "application/vnd.oci.image.layer.v1.tar": "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
CHUNK = 1024 * 1024
#: Quick, and most of what can be won: a layer is compressed once and travels over networks between hosts.
LEVEL = 3
#: Folder with a file for each environment that says what it needs, and what the names of folders begin with in which an image is unpacked.
ROOTS, UNPACKED = "roots", ".save-"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class LayoutError(Exception):
    """An image cannot be put into the folder, or is not whole there."""


def copied(source: t.IO[bytes], target: t.IO[bytes]) -> str:
    """Copy a stream, and return the digest of what was read."""
    seen = hashlib.sha256()
    while chunk := source.read(CHUNK):
        seen.update(chunk)
        target.write(chunk)
    return f"sha256:{seen.hexdigest()}"


class Layout:
    """A folder of blobs by digest, which several environments may share. Writers replace whole files, so readers see no part of one."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; it is made when something is put there."""
        self.folder = folder
        self.blobs = folder / "blobs"

    def path(self, digest: str) -> Path:
        """Return where a blob lies.

        Raises:
            LayoutError: the digest is none.
        """
        if not _DIGEST.fullmatch(digest):
            raise LayoutError(f"{digest!r} is not a digest")
        return self.blobs / digest.partition(":")[2]

    def manifest(self, digest: str) -> dict[str, t.Any]:
        """Return a manifest.

        Raises:
            LayoutError: it is not here.
        """
        try:
            return t.cast("dict[str, t.Any]", json.loads(self.path(digest).read_bytes()))
        except (OSError, ValueError) as error:
            raise LayoutError(f"{digest} is not in {self.folder}") from error

    def parts(self, digest: str) -> set[str]:
        """Return the digests of a manifest, of its configuration and of its layers; of an index, of all that it names."""
        manifest = self.manifest(digest)
        found = {digest}
        for entry in manifest.get("manifests") or []:
            found |= self.parts(entry["digest"])
        for entry in [manifest.get("config"), *(manifest.get("layers") or [])]:
            if entry:
                found.add(entry["digest"])
        return found

    def missing(self, digest: str) -> list[str]:
        """Return the parts of an image that are not here; the manifest itself where that is not."""
        if not self.path(digest).exists():
            return [digest]
        return sorted(part for part in self.parts(digest) if not self.path(part).exists())

    def _keep(self, content: bytes) -> str:
        """Put a small blob here and return its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if not self.path(digest).exists():
            with tempfile.NamedTemporaryFile(dir=self.blobs, prefix=".new-", delete=False) as file:
                file.write(content)
            Path(file.name).replace(self.path(digest))
        return digest

    def _compress(self, source: Path, digest: str) -> tuple[str, int]:
        """Put a plain layer here, compressed, and return the digest and size of that; remember it for the next image."""
        note = self.folder / "compressed" / digest.partition(":")[2]
        if note.exists() and self.path(known := note.read_text(encoding="ascii").strip()).exists():
            return known, self.path(known).stat().st_size
        with tempfile.NamedTemporaryFile(dir=self.blobs, prefix=".new-", delete=False) as file:
            # No name and no time in it: the same layer must come out the same.
            with source.open("rb") as plain, gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=LEVEL, mtime=0) as packed:
                copied(plain, t.cast("t.IO[bytes]", packed))
            file.seek(0)
            seen = hashlib.sha256()
            while chunk := file.read(CHUNK):
                seen.update(chunk)
        result = f"sha256:{seen.hexdigest()}"
        Path(file.name).replace(self.path(result))
        note.parent.mkdir(exist_ok=True)
        note.write_text(result, encoding="ascii")
        return result, self.path(result).stat().st_size

    def add(self, saved: t.IO[bytes]) -> tuple[str, str]:
        """Put an image here and return the digests of its manifest and of its configuration.

        Args:
            saved: what ``docker save`` writes for one image.

        Raises:
            LayoutError: it is of another form, as engines before 25 write it.
        """
        self.blobs.mkdir(parents=True, exist_ok=True)
        ignore = self.folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="ascii")
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=UNPACKED) as name:
            top = Path(name)
            with tarfile.open(fileobj=saved, mode="r|") as archive:
                for member in archive:
                    source = archive.extractfile(member) if member.isfile() else None
                    if source:
                        with (top / member.name.replace("/", "_")).open("wb") as target:
                            shutil.copyfileobj(source, target, CHUNK)
            index = top / "index.json"
            if not index.exists():
                raise LayoutError("the engine saves images in an old format: builds need Docker Engine 25 or newer")
            return self._add_manifest(json.loads(index.read_bytes())["manifests"][0]["digest"], top)

    def _add_manifest(self, digest: str, saved: Path) -> tuple[str, str]:
        """Put what a manifest names here, with its layers compressed, and return its digest now and that of the configuration."""

        def blob(of: str) -> Path:
            return saved / f"blobs_sha256_{of.partition(':')[2]}"

        manifest = json.loads(blob(digest).read_bytes())
        if "manifests" in manifest:
            # An image for one platform, with a separate description of its build, which is not part of what runs.
            wanted = [item for item in manifest["manifests"] if item.get("platform", {}).get("architecture") != "unknown"]
            if len(wanted) != 1:
                raise LayoutError(f"the image is for {len(wanted)} platforms: build it for one")
            return self._add_manifest(wanted[0]["digest"], saved)
        layers = []
        for layer in manifest["layers"]:
            media = layer["mediaType"]
            if media in PLAIN_LAYERS:
                packed, size = self._compress(blob(layer["digest"]), layer["digest"])
                layers.append({"mediaType": PLAIN_LAYERS[media], "digest": packed, "size": size})
            else:
                if not self.path(layer["digest"]).exists():
                    blob(layer["digest"]).replace(self.path(layer["digest"]))
                layers.append(layer)
        config = self._keep(blob(manifest["config"]["digest"]).read_bytes())
        # Canonical, so that one image has one digest.
        document = {**manifest, "layers": layers, "mediaType": manifest.get("mediaType", MANIFEST)}
        return self._keep(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()), config

    @contextlib.contextmanager
    def writing(self) -> t.Iterator[None]:
        """Have the folder for oneself, to put images there and to remove others; readers need not."""
        self.blobs.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _root(path: Path) -> tuple[set[str], Path, bool]:
        """Return the digests that an environment needs, its folder, and whether that is on this controller.

        Raises:
            LayoutError: it cannot be read.
        """
        try:
            root = json.loads(path.read_bytes())
            return set(root["digests"]), Path(root["inventory"]), root["controller"] == socket.gethostname()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LayoutError(f"{path}, which says what an environment needs, cannot be read: {error}") from error

    def _needed(self) -> set[str]:
        """Return the digests of all images that environments need, without those that are gone from this controller.

        Raises:
            LayoutError: it is not known what one needs.
        """
        found: set[str] = set()
        for path in (self.folder / ROOTS).glob("*.json"):
            digests, inventory, here = self._root(path)
            if here and not inventory.exists():
                path.unlink()
            else:
                found |= digests
        return found

    def prune(self, inventory: str, digests: t.Iterable[str], environment: str = "") -> int:
        """Note what an environment needs, remove what none needs, and return how many blobs went. For a writer alone.

        Args:
            inventory: folder of the environment's inventory.
            digests: manifests of the images that it needs.
            environment: its name, which no environment of the same path on another controller has; empty where none shares the folder of
                images.

        Raises:
            LayoutError: it is not known what another one needs.
        """
        root = {"inventory": inventory, "controller": socket.gethostname(), "digests": sorted(set(digests))}
        # By the folder too, as an environment may be copied with what it keeps.
        unnamed, path = (
            self.folder / ROOTS / f"{hashlib.sha256(name.encode()).hexdigest()}.json"
            for name in (inventory, f"{environment}:{inventory}" if environment else inventory)
        )
        path.parent.mkdir(exist_ok=True)
        # Its own, of before it had a name.
        if path != unnamed and unnamed.exists() and self._root(unnamed)[2]:
            unnamed.unlink()
        with tempfile.NamedTemporaryFile("w", dir=self.blobs, prefix=".new-", delete=False, encoding="utf-8") as file:
            json.dump(root, file, indent=1)
        Path(file.name).replace(path)
        needed = {part for digest in self._needed() if self.path(digest).exists() for part in self.parts(digest)}
        gone = [path for path in self.blobs.iterdir() if f"sha256:{path.name}" not in needed]
        for path in gone:
            path.unlink()
        # Of writers that were killed.
        for path in self.folder.glob(f"{UNPACKED}*"):
            shutil.rmtree(path)
        return len(gone)
