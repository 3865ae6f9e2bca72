"""A product with all that the guestbook does without: two names, streams, large uploads into a volume, a worker and a nightly job.

Its framework, its port and its paths are not those of the support desk, and it reads its secrets from the environment only.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from environment import NAMED, Environment
from slipway_lab import JOBS_PROGRAM, Lab, wait_until
from slipway_release import Load

pytestmark = pytest.mark.extended("gallery")

#: The names of the site: that of its pages, that of the pictures, and one that is redirected.
SITE, PICTURES, WWW = "gallery.test", "pictures.gallery.test", "www.gallery.test"


class Gallery:
    """The product as its users see it, under one of its names."""

    def __init__(self, environment: Environment, name: str = SITE) -> None:
        self.environment = environment
        port = environment.lab.https_port
        self._client = httpx.Client(
            base_url=f"https://127.0.0.1:{port}", headers={"Host": f"{name}:{port}"}, verify=environment.tls(), timeout=60
        )
        self._name = name

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._client.request(method, path, extensions={"sni_hostname": self._name}, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def upload(self, content: bytes) -> int:
        """Upload a picture; return its number."""
        sent = self.request("POST", "/upload", files={"picture": ("picture.png", content)})
        assert sent.status_code == 201, sent.text
        return int(sent.json()["id"])

    def first_chunk(self, path: str) -> bytes:
        """Return what comes first of a stream."""
        with self._client.stream("GET", path, extensions={"sni_hostname": self._name}) as stream:
            return next(stream.iter_raw())

    def records(self) -> dict[int, dict[str, Any]]:
        """Return what its administrators see of each picture, by its number."""
        answer = self.get("/admin/", auth=("admin", self.environment.secrets()["vault_gallery_admin_password"]))
        assert answer.status_code == 200, answer.text
        return {item["id"]: item for item in answer.json()}

    def wait_until_measured(self, numbers: list[int]) -> None:
        def all_are() -> bool:
            records = self.records()
            return all(records[number]["digest"] for number in numbers)

        wait_until(all_are, 300, f"{len(numbers)} pictures are measured")


@pytest.fixture(scope="module")
def environment(lab: Lab) -> Iterator[Environment]:
    """The environment of the gallery, which is deployed."""
    made = Environment(
        lab, "gallery", without=("chroma",),
        slipway_public_url=f"https://{SITE}:{lab.https_port}",
        nginx_server_names=[SITE, PICTURES],
        nginx_redirects=[{"from": WWW, "to": SITE}],
    )  # fmt: skip
    try:
        made.empty_host()
        made.run(f"cp examples/gallery/slipway.yml {NAMED}/group_vars/all/20_product.yml")
        for playbook in ("build", "secrets", "site"):
            made.run(f"ansible-playbook playbooks/{playbook}.yml -i {NAMED}")
        yield made
    finally:
        made.remove()


@pytest.fixture
def gallery(environment: Environment) -> Gallery:
    return Gallery(environment)


def picture(size: int) -> bytes:
    """Return a picture that no other test has."""
    return random.randbytes(size)


def test_one_name_redirects_and_another_has_a_route_of_its_own(environment: Environment, gallery: Gallery):
    moved = Gallery(environment, WWW).get("/some/page?a=b")
    assert (moved.status_code, moved.headers["location"]) == (308, f"https://{SITE}:{environment.lab.https_port}/some/page?a=b")
    assert f"<h1>Gallery of {SITE}" in gallery.get("/").text
    path = f"/pictures/{gallery.upload(b'small')}"
    assert gallery.get(path).content == b"small"
    assert "immutable" not in gallery.get(path).headers.get("cache-control", "")
    assert "immutable" in Gallery(environment, PICTURES).get(path).headers["cache-control"]


def test_50_mb_are_uploaded_measured_and_read_back(gallery: Gallery):
    content = picture(50_000_000)
    number = gallery.upload(content)
    assert gallery.get(f"/pictures/{number}").content == content
    gallery.wait_until_measured([number])
    assert gallery.records()[number]["digest"] == hashlib.sha256(content).hexdigest()


def test_a_request_that_is_too_large_for_its_route_is_refused(gallery: Gallery):
    assert gallery.request("POST", "/", content=bytes(11_000_000)).status_code == 413
    assert gallery.request("POST", "/upload", content=bytes(64_000_000)).status_code == 413


def test_a_stream_arrives_as_it_is_sent(gallery: Gallery):
    assert gallery.first_chunk("/progress").count(b"\n") < 6


def test_further_lines_hold_for_their_route(gallery: Gallery):
    assert gallery.get("/admin/").status_code == 401
    assert gallery.request("POST", "/admin/").status_code == 403
    assert gallery.request("POST", "/").status_code == 405


def test_secrets_of_the_environment_are_not_in_what_the_engine_shows(environment: Environment):
    shown = json.dumps([container.inspect for container in environment.lab.containers()])
    assert "UPLOADS=/uploads" in shown
    assert not [name for name, value in environment.secrets().items() if value in shown]


def test_the_job_runs(environment: Environment):
    host = environment.lab.hosts["lab1"]
    uploads = host.run("docker volume inspect --format '{{.Mountpoint}}' gallery_uploads").strip()
    host.run(f"touch --date '2 hours ago' {uploads}/broken-off")
    host.run(f"{JOBS_PROGRAM} run clean-up")
    assert not host.succeeds(f"test -e {uploads}/broken-off")


def test_a_second_run_changes_nothing(environment: Environment):
    environment.run(f"ansible-playbook playbooks/site.yml -i {NAMED}")
    assert environment.report("site")["changed"] == []


@contextmanager
def uploads(gallery: Gallery) -> Iterator[list[int]]:
    """Upload pictures while the context lasts, each of which must be taken; at the end, yield their numbers."""
    numbers: list[int] = []
    ended = threading.Event()

    def upload() -> None:
        while not ended.wait(0.2):
            numbers.append(gallery.upload(picture(1000)))

    with ThreadPoolExecutor(1) as pool:
        uploading = pool.submit(upload)
        try:
            yield numbers
        finally:
            ended.set()
        uploading.result()


def test_a_release_loses_no_request_and_cuts_no_work(environment: Environment, gallery: Gallery, load: Callable[..., Load]):
    """The worker always has something to do, and must be the only one, before and after."""
    environment.run(f"ansible-playbook playbooks/build.yml -i {NAMED} -e app_version=2.0")
    large = picture(50_000_000)
    number = gallery.upload(large)
    clients = load(environment.folder, ("--rate=20", "--connections=8", "--http2-connections=2", f"--server-name={SITE}", "--path=/"), 0)
    with uploads(Gallery(environment)) as numbers:
        environment.run(f"ansible-playbook playbooks/deploy.yml -i {NAMED} -e app_version=2.0")
    counted = clients.end()
    report = environment.report("deploy")
    assert (report["outcome"], report["version"], report["prober"]["failed"]) == ("released", "2.0", 0)
    assert counted["requests"] > 0
    assert counted["failed"] == 0, counted
    assert gallery.get("/healthz").json() == {"release": "2.0"}
    gallery.wait_until_measured([number, *numbers])
    records = gallery.records()
    assert {records[each]["measured_by"] for each in numbers} == {"1.0", "2.0"}
    assert {records[each]["attempts"] for each in [number, *numbers]} == {1}
    environment.run(f"ansible-playbook playbooks/rollback.yml -i {NAMED}")
    assert gallery.get("/healthz").json() == {"release": "1.0"}
    later = gallery.upload(picture(1000))
    gallery.wait_until_measured([later])
    assert gallery.records()[later]["measured_by"] == "1.0"
    assert gallery.get(f"/pictures/{number}").content == large


def test_uploads_are_restored_with_their_rows(environment: Environment, gallery: Gallery):
    content = picture(50_000_000)
    number = gallery.upload(content)
    gallery.wait_until_measured([number])
    environment.run(f"ansible-playbook playbooks/backup.yml -i {NAMED}")
    later = gallery.upload(picture(1000))
    environment.run(f"ansible-playbook playbooks/restore.yml -i {NAMED} -e point=latest -e restore_confirm=slipway")
    assert gallery.get(f"/pictures/{number}").content == content
    assert later not in gallery.records()
