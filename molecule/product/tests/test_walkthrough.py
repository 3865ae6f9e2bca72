"""What docs/product.md leads through: a product that was not made for Slipway, from nothing to its page, a release and a restore.

The commands are those of the page, in its order; only the name of the environment is another one.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from environment import NAMED, Environment, page_commands
from slipway_lab import ROOT, Lab, wait_until

pytestmark = pytest.mark.extended("walkthrough")
WITHOUT = ("redis", "chroma")
#: What a run may end with after a move of the data, until the backups start over.
OTHER_CLUSTER = "PostgreSQL is another database cluster"
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


def test_the_data_moves_to_another_server_as_the_page_on_backups_says(environment: Environment, site: httpx.Client, lab: Lab):
    """docs/backup.md, "Another major version": no registry of a lab has a newer server, so the image stays, and the volume is a new one."""
    host, page = lab.hosts["lab1"], ROOT / "docs/backup.md"
    entries = [*ENTRIES, {"name": "Eve", "text": "before the new server"}]
    site.post("/api/entries", json=entries[-1]).raise_for_status()
    host.run("docker exec slipway-postgres psql -X -d postgres -c \"create role by_hand login password 'of-the-role-1'\"")
    inputs = environment.folder / "group_vars/all/40_volume.yml"

    def follow(heading: str) -> None:
        for item in page_commands(page, heading):
            if item.kind == "host":
                host.run(item.command.replace("postgres:18-alpine", "postgres:17-alpine"))
                continue
            if "playbooks/site.yml" in item.command:
                inputs.write_text("postgres_volume: postgres_data_18\n")
            command = f"{item.command.replace('inventories/prod', NAMED)} -e app_version=1.1"
            environment.run(command, may_say=OTHER_CLUSTER if "playbooks/site.yml" in command else "")

    follow("### Before")
    # It was given up half way: the old server serves again.
    for item in page_commands(page, "### Move")[:5]:
        host.run(item.command.replace("postgres:18-alpine", "postgres:17-alpine"))
    assert site.get("/api/entries").status_code >= 500
    follow("### If a step fails, or to go back")
    wait_until(lambda: site.get("/api/entries").status_code == 200, 60, "the product serves from the old server again")
    follow("### Move")
    assert site.get("/api/entries").json()["entries"] == entries
    mounts = "docker inspect slipway-postgres --format '{{range .Mounts}}{{.Name}} {{end}}'"
    assert host.run(mounts).split() == ["postgres_data_18"]
    roles = (
        "docker exec slipway-postgres psql -X -q -A -t -d postgres -c \"select rolname from pg_roles where rolname in ('by_hand', 'app')\""
    )
    assert sorted(host.run(roles).split()) == ["app", "by_hand"]
    environment.run(f"ansible-playbook playbooks/site.yml -i {NAMED} -e app_version=1.1")
    assert environment.report("site")["changed"] == []
    # And back, to the data of before the move.
    site.post("/api/entries", json={"name": "Mallory", "text": "after the move"}).raise_for_status()
    inputs.unlink()
    environment.run(f"ansible-playbook playbooks/site.yml -i {NAMED} -e app_version=1.1 -e accept=restart", may_say=OTHER_CLUSTER)
    assert site.get("/api/entries").json()["entries"] == entries
