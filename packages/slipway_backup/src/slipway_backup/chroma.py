# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chroma over its HTTP interface: all records of all collections, in a form that any version of it can take back.

Chroma goes on serving meanwhile. The identifiers are read first, in one answer, after the moment of the point: every record that
was acknowledged before is among them. Records are then read by identifier, so that writes in between shift nothing.
"""

from __future__ import annotations

import http
import json
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

from slipway_backup.common import JSON, Config, StepError, read_lines, say, write_lines

TIMEOUT = 120
BATCH = 250
PAGE = 100


class MissingError(StepError):
    """Chroma does not have what was asked for, or no longer."""


def call(url: str, body: JSON | None = None, method: str = "", timeout: float = TIMEOUT) -> t.Any:
    """Send a request and return the answer's JSON.

    Raises:
        MissingError: it is not there.
        StepError: no answer, or an error.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - the inventory's own address
        url, data=data, method=method or ("GET" if body is None else "POST"), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - as above
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        kind = MissingError if error.code == http.HTTPStatus.NOT_FOUND else StepError
        raise kind(f"Chroma answered {error.code} to {url}: {error.read(500).decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise StepError(f"Chroma at {url}: {getattr(error, 'reason', error)}") from error


def pages(url: str) -> t.Iterator[t.Any]:
    """Yield the entries of a list that comes in pages."""
    offset = 0
    while True:
        entries = call(f"{url}?limit={PAGE}&offset={offset}")
        yield from entries
        if len(entries) < PAGE:
            return
        offset += PAGE


def records(url: str, identifiers: t.Sequence[str]) -> t.Iterator[JSON]:
    """Yield the records of a collection that are still there, in the order of their identifiers."""
    for first in range(0, len(identifiers), BATCH):
        batch = identifiers[first : first + BATCH]
        answer = call(f"{url}/get", {"ids": batch, "include": ["documents", "embeddings", "metadatas", "uris"]})
        rows = {
            identifier: {
                "id": identifier,
                "embedding": (answer.get("embeddings") or [])[index] if answer.get("embeddings") else None,
                "document": (answer.get("documents") or [])[index] if answer.get("documents") else None,
                "metadata": (answer.get("metadatas") or [])[index] if answer.get("metadatas") else None,
                "uri": (answer.get("uris") or [])[index] if answer.get("uris") else None,
            }
            for index, identifier in enumerate(answer["ids"])
        }
        yield from (rows[identifier] for identifier in batch if identifier in rows)


def nearest(url: str, embedding: t.Sequence[float]) -> tuple[str, float]:
    """Return the identifier of the record nearest to an embedding, and how far it is.

    Raises:
        StepError: there is none.
    """
    answer = call(f"{url}/query", {"query_embeddings": [embedding], "n_results": 1, "include": ["distances"]})
    if not answer["ids"] or not answer["ids"][0]:
        raise StepError(f"a query returned no result: {url}")
    return str(answer["ids"][0][0]), float(answer["distances"][0][0])


def _lines(head: JSON, url: str, identifiers: list[str], seen: JSON) -> t.Iterator[JSON]:
    """Yield what a collection's file holds; count in ``seen``, and note there what a query for the first record finds."""
    yield head
    for record in records(url, identifiers):
        seen["records"] += 1
        if seen["probe"] is None and record["embedding"]:
            found, distance = nearest(url, record["embedding"])
            seen["probe"] = {"record": record["id"], "nearest": found, "distance": distance}
        yield record


def present(url: str) -> dict[str, JSON]:
    """Return the collections of a database by their identifiers; none where the database is gone."""
    try:
        return {collection["id"]: collection for collection in pages(url)}
    except MissingError:
        return {}


def capture_database(url: str, tenant: str, database: str, target: Path, described: list[JSON]) -> None:
    """Write the collections of a database into a folder, without those that are deleted meanwhile.

    Args:
        url: of the database's collections.
        tenant: of the database.
        database: its name.
        target: the folder.
        described: gets the part of the manifest for each collection, whose number in there names its file.

    Raises:
        StepError: the server is away or refuses, or does not have a collection that it lists.
    """
    known = present(url)
    waiting = list(known.values())
    for collection in waiting:
        head = {
            "tenant": tenant,
            "database": database,
            "name": collection["name"],
            "metadata": collection.get("metadata"),
            "configuration": collection.get("configuration_json"),
            "schema": collection.get("schema"),
            "dimension": collection.get("dimension"),
        }
        file = f"{len(described)}.jsonl.zst"
        place = f"{url}/{collection['id']}"
        seen: JSON = {"records": 0, "probe": None}
        try:
            identifiers = sorted(call(f"{place}/get", {"include": []})["ids"])
            write_lines(target / file, _lines(head, place, identifiers, seen))
        except MissingError:
            there = present(url)
            if collection["id"] in there:
                raise
            say(f"chroma: the collection {collection['name']} of {database} was deleted meanwhile, and is left out")
            (target / file).unlink(missing_ok=True)
            # What may have taken its place.
            waiting += [other for identifier, other in there.items() if identifier not in known]
            known |= there
            continue
        described.append({**{name: head[name] for name in ("tenant", "database", "name", "dimension")}, **seen, "file": file})


def capture(config: Config, folder: Path) -> JSON:
    """Write all collections into a folder.

    Returns:
        The part of the manifest that describes them.

    Raises:
        StepError: the server is away or refuses, or the disk is full.
    """
    began = time.monotonic()
    base = f"{str(config.chroma['url']).rstrip('/')}/api/v2"
    target = folder / "chroma"
    target.mkdir(parents=True)
    described: list[JSON] = []
    for tenant in config.chroma.get("tenants", ["default_tenant"]):
        for database in list(pages(f"{base}/tenants/{tenant}/databases")):
            url = f"{base}/tenants/{tenant}/databases/{database['name']}/collections"
            capture_database(url, tenant, database["name"], target, described)
    return {
        "version": call(f"{base}/version"),
        "pause_seconds": 0,
        "seconds": round(time.monotonic() - began, 1),
        "bytes": sum(path.stat().st_size for path in target.iterdir()),
        "collections": described,
    }


def load(url: str, folder: Path, described: t.Iterable[JSON]) -> JSON:
    """Write a point's collections into a Chroma server that has none of these names, and ask it what is known.

    Args:
        url: the server's address.
        folder: the folder ``chroma`` of a point.
        described: ``collections`` of the manifest.

    Returns:
        Records by collection.

    Raises:
        StepError: the server refuses, a file is damaged, or an answer differs from what was there.
    """
    base = f"{url.rstrip('/')}/api/v2"
    loaded: JSON = {}
    for collection in described:
        lines = read_lines(folder / collection["file"])
        head = next(lines)
        databases = f"{base}/tenants/{head['tenant']}/databases"
        if head["tenant"] != "default_tenant":
            make_missing(f"{base}/tenants", head["tenant"])
        make_missing(databases, head["database"])
        place = f"{databases}/{head['database']}/collections"
        body = {
            "name": head["name"],
            "metadata": head["metadata"],
            "configuration": settable(head["configuration"]),
            "get_or_create": False,
        }
        made = call(place, {name: value for name, value in body.items() if value is not None})
        count, batch, probe = 0, [], None
        for record in lines:
            if collection["probe"] and record["id"] == collection["probe"]["record"]:
                probe = record["embedding"]
            batch.append(record)
            if len(batch) == BATCH:
                count += add(f"{place}/{made['id']}", batch)
                batch = []
        count += add(f"{place}/{made['id']}", batch)
        if count != collection["records"]:
            raise StepError(f"the collection {head['name']} has {count} records instead of {collection['records']}")
        if probe is not None:
            found, distance = nearest(f"{place}/{made['id']}", probe)
            # Two records at the same place are equally near.
            if found != collection["probe"]["nearest"] and abs(distance - collection["probe"]["distance"]) > 1e-4:
                raise StepError(f"the collection {head['name']} answers {found} where {collection['probe']['nearest']} was nearest")
        loaded[head["name"]] = count
    return loaded


def settable(configuration: JSON | None) -> JSON | None:
    """Return what of a collection's configuration may be given when it is made: without the parts that are not set."""
    return {name: value for name, value in (configuration or {}).items() if value is not None} or None


def make_missing(url: str, name: str) -> None:
    """Make a tenant or a database that is not there yet."""
    try:
        call(f"{url}/{name}")
    except StepError:
        call(url, {"name": name})


def add(url: str, batch: t.Sequence[JSON]) -> int:
    """Add records to a collection; return how many."""
    if not batch:
        return 0
    body: JSON = {"ids": [record["id"] for record in batch]}
    for field in ("embedding", "document", "metadata", "uri"):
        values = [record[field] for record in batch]
        if any(value is not None for value in values):
            body[f"{field}s"] = values
    call(f"{url}/add", body)
    return len(batch)
