# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which major version of PostgreSQL an image and a volume have, and what the role refuses for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.module_utils.engine import normal_reference
from ansible_collections.slipway.stack.plugins.plugin_utils.postgres import data_major, image_major, major_mistakes
from conftest import role_variable

SECRETS = {"postgres_superuser_password": "a" * 20, "postgres_owner_password": "b" * 20, "postgres_app_password": "c" * 20}
PRODUCTS = [
    "postgres:17-bookworm",
    "timescale/timescaledb:2.17.2-pg17",
    "pgvector/pgvector:pg17",
    "pgvector/pgvector:0.8.0-pg17-trixie",
    "registry.example.com:5000/acme/postgres:1.4.0",
    "acme/postgres:2026.11",
    "postgres@sha256:aa",
    "postgres:17@sha256:aa",
    "bitnami/postgresql:17.2.0",
    "acme/database",
]


def state(running: str = "", *, data: str | None = "17", images: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what is read of a host whose volume holds data, None where it cannot be read, and that has a container of an image."""
    mounts = {"postgres_data": {"path": "/var/lib/postgresql/data", "mode": "rw"}}
    container = {"image": normal_reference(running), "image_id": "sha256:a", "running": True, "labels": {}, "volumes": mounts}
    there = {"labels": {"slipway.stack": "slipway"}, "empty": None if data is None else not data, "pg_version": data or ""}
    return {
        "host": {"memory_mb": 8000, "cores": 4, "data_root": "/var/lib/docker"},
        "containers": {"slipway-postgres": container} if running else {},
        "images": {normal_reference(name): {"id": "sha256:a", **more} for name, more in (images or {}).items()},
        "volumes": {"postgres_data": there},
        "queries": {},
    }


def mistakes(found: dict[str, Any], image: str) -> list[str]:
    """Return why an image is refused."""
    return major_mistakes(found, image, "postgres_data")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("postgres:17", 17),
        ("postgres:17-alpine@sha256:16", 17),
        ("docker.io/postgres:16.4", 16),
        ("docker.io/library/postgres:16.4-bookworm", 16),
        ("registry.example.com:5000/library/postgres:18rc1", 18),
        ("registry.example.com:5000/postgres:16", 16),
        ("registry.example.com/postgres:16.4-alpine@sha256:aa", 16),
        ("localhost/postgres:16", 16),
        ("mirror.example.com/dockerhub/library/postgres:16", 16),
        ("postgis/postgis:17-3.5", 17),
        ("registry.example.com/postgis/postgis:17-3.5", 17),
        ("timescale/timescaledb:2.17.2-pg17", 17),
        ("timescale/timescaledb-ha:pg16.6-ts2.17.2", 16),
        ("pgvector/pgvector:pg16", 16),
        ("pgvector/pgvector:0.8.0-pg17-trixie", 17),
        # A version of its own, and nothing.
        ("acme/postgres:17.0.0", 0),
        ("registry.example.com:5000/acme/postgres:1.4.0", 0),
        ("registry.example.com:5000/postgres", 0),
        ("acme/postgres:2026.11", 0),
        ("postgres:2026.11", 0),
        ("bitnami/postgresql:17.2.0", 0),
        ("postgres@sha256:1717", 0),
        ("postgres:latest", 0),
        ("postgres", 0),
    ],
)
def test_a_name_says_its_version_where_it_follows_a_custom(image: str, expected: int):
    assert image_major(image, {}) == expected


@pytest.mark.parametrize("image", PRODUCTS)
@pytest.mark.parametrize("versions", [{"pg_major": "16"}, {"pg": "16.4-1.pgdg120+1"}, {"pg_major": "16", "pg": "17"}])
def test_an_image_knows_its_version_better_than_its_name(image: str, versions: dict[str, str]):
    assert image_major(image, {normal_reference(image): {"versions": versions}}) == 16


@pytest.mark.parametrize("image", PRODUCTS)
@pytest.mark.parametrize("said", [{}, {"versions": {}}, {"versions": {"pg_major": "17"}}, {"versions": {"pg_major": "16"}}, None])
@pytest.mark.parametrize("data", ["17", "16", None])
def test_an_unchanged_image_is_never_refused(image: str, said: dict[str, Any] | None, data: str | None):
    """Whatever the image says of itself, with a version that is unlike its data at that, and where another program has removed its name."""
    images = {} if said is None else {image: said}
    assert mistakes(state(image, data=data, images=images), image) == []


@pytest.mark.parametrize("image", PRODUCTS)
def test_an_image_of_the_same_version_takes_over(image: str):
    for former in PRODUCTS:
        images = {image: {"versions": {"pg_major": "17"}, "id": "sha256:b"}}
        assert mistakes(state(former, images=images), image) == mistakes(state(former), image) == []


@pytest.mark.parametrize("former", PRODUCTS)
@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("postgres:18", None),
        ("pgvector/pgvector:pg18", None),
        ("timescale/timescaledb:2.17.2-pg18", None),
        ("acme/postgres:1.4.0", {"versions": {"pg_major": "18"}, "id": "sha256:b"}),
        ("postgres@sha256:bb", {"versions": {"pg": "18.0"}, "id": "sha256:b"}),
        # The same name, built again.
        ("pgvector/pgvector:pg17", {"versions": {"pg_major": "18"}, "id": "sha256:b"}),
    ],
)
def test_an_image_of_another_version_is_refused(former: str, image: str, said: dict[str, Any] | None):
    found = state(former, images={image: said} if said else {})
    (message,) = mistakes(found, image)
    assert message.startswith(
        f"the volume postgres_data holds data of PostgreSQL 17, and postgres_image is {image}, of PostgreSQL 18, which "
    )
    # Without a container, and where the host cannot read the volume, of which its container speaks.
    assert mistakes({**found, "containers": {}}, image) == [message]
    if image_major(normal_reference(former), {}):
        assert mistakes(state(former, data=None, images={image: said} if said else {}), image) == [message]


def test_the_role_refuses_what_cannot_read_the_data():
    inputs = {**SECRETS, "postgres_image": "postgres:18", "container_service_host_state": state("postgres:17")}
    assert role_variable("postgres", "__postgres_mistakes", inputs) == mistakes(state("postgres:17"), "postgres:18") != []


def test_another_version_begins_on_an_empty_volume():
    found = state("postgres:17")
    found["volumes"]["postgres_18"] = {"labels": {"slipway.stack": "slipway"}, "empty": True, "pg_version": ""}
    inputs = {**SECRETS, "postgres_image": "postgres:18", "container_service_host_state": found}
    for volume in ("postgres_18", "postgres_new"):
        assert role_variable("postgres", "__postgres_mistakes", {**inputs, "postgres_volume": volume}) == []
    found["volumes"]["postgres_18"] |= {"empty": False, "pg_version": "18"}
    assert role_variable("postgres", "__postgres_mistakes", {**inputs, "postgres_volume": "postgres_18"}) == []


def test_what_is_delivered_does_not_depend_on_what_is_known_of_the_image():
    """It becomes known when the image comes, or the data: a second run would change what the first one has made."""
    backups = {"postgres_backup_user": {"name": "backup", "password": "d" * 20}}
    made = set()
    for image in PRODUCTS:
        for said in ({}, {image: {"versions": {"pg_major": "16"}}}, {image: {"versions": {"pg_major": "17"}}}):
            for found in (state(data="", images=said), state(image, data="16", images=said), state(image, data=None, images=said)):
                inputs = {**SECRETS, **backups, "postgres_image": image, "container_service_host_state": found}
                (service,) = role_variable("postgres", "__postgres_services", inputs)
                # The trial alone gets the version of the data.
                made.add(json.dumps({**service, "image": "", "trial": ""}, sort_keys=True))
    assert len(made) == 1


def test_nothing_is_known_of_a_host_without_an_engine():
    assert data_major({}, "postgres_data") == 0
    assert major_mistakes({}, "postgres:17", "postgres_data") == []
