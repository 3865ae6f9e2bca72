"""What docs/product.md leads through: a product that was not made for Slipway, from nothing to its page, a release and a restore.

The commands are those of the page, in its order; only the name of the environment is another one.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from environment import NAMED, Environment, page_commands
from slipway_lab import ROOT, Lab

pytestmark = pytest.mark.extended("product")
WITHOUT = ("redis", "chroma")
ENTRIES = [{"name": "Ada", "text": "fine"}]


@pytest.fixture(scope="module")
def environment(lab: Lab) -> Iterator[Environment]:
    """The environment as the page leaves it, with an entry that was written after the first deployment."""
    made = Environment(lab, "guestbook", WITHOUT)
    try:
        made.empty_host()
        for item in page_commands(ROOT / "docs/product.md"):
            output = made.run(item.command)
            if "playbooks/site.yml" in item.command:
                assert "<h1>Guestbook</h1>" in made.site().get("/").text
                assert made.site().post("/api/entries", json=ENTRIES[0]).json() == {"entries": ENTRIES}
            if "playbooks/deploy.yml" in item.command:
                assert "no version is reported, so it is judged by the image" in " ".join(output.split())
        yield made
    finally:
        made.remove()


@pytest.fixture
def site(environment: Environment) -> httpx.Client:
    return environment.site()


def test_the_page_leads_to_a_page_and_to_a_release(environment: Environment, site: httpx.Client):
    """No command of the page fails, and the release lost nothing."""
    report = environment.report("deploy")
    assert (report["outcome"], report["version"]) == ("released", "1.1")
    assert report["prober"]["requests"] > 0
    assert report["prober"]["failures"] == []
    assert report["prober"]["failed"] == 0
    assert site.get("/api/entries").json()["entries"] == ENTRIES


@pytest.mark.usefixtures("environment")
def test_a_stack_without_redis_and_chroma_runs_neither(lab: Lab):
    names = lab.hosts["lab1"].run("docker ps --format '{{.Names}}'").split()
    assert {"slipway-postgres", "slipway-backup", "slipway-nginx"} <= set(names)
    assert not [name for name in names if any(store in name for store in WITHOUT)]


def test_a_second_run_changes_nothing(environment: Environment):
    environment.run(f"ansible-playbook playbooks/site.yml -i {NAMED} -e app_version=1.1")
    assert environment.report("site")["changed"] == []


def test_a_point_without_redis_and_chroma_is_restored(environment: Environment, site: httpx.Client):
    site.post("/api/entries", json={"name": "Bob", "text": "after the point"})
    environment.run(f"ansible-playbook playbooks/restore.yml -i {NAMED} -e point=latest -e restore_confirm=slipway")
    assert site.get("/api/entries").json()["entries"] == ENTRIES
