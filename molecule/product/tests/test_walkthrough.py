"""What docs/product.md leads through: a product that was not made for Slipway, from nothing to its page, a release and a restore.

The commands are those of the page, in its order; only the name of the environment is another one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from slipway_lab import BIN, ROOT, Lab, operators_environment

sys.path.insert(0, str(ROOT / "tests"))
import docs_commands

pytestmark = pytest.mark.extended("product")
PAGE = ROOT / "docs/product.md"
NAMED = "inventories/shop"
WITHOUT = ("redis", "chroma")


@pytest.fixture(scope="module")
def environment(lab: Lab) -> Iterator[Path]:
    """An environment folder with what a reader writes by hand: hosts and the site's name. All else comes from the page's commands."""
    folder = ROOT / "inventories" / f"{lab.name}-guestbook"
    shutil.rmtree(folder, ignore_errors=True)
    variables = folder / "group_vars/all"
    variables.mkdir(parents=True)
    (folder / ".gitignore").write_text("*\n")
    hosts = yaml.safe_load((ROOT / "inventories" / lab.name / "hosts.yml").read_text())
    for group in WITHOUT:
        del hosts["all"]["children"][group]
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False))
    shutil.copy(ROOT / "inventories" / lab.name / "group_vars/all/lab.yml", variables / "10_environment.yml")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def site(environment: Path) -> Iterator[httpx.Client]:
    """The site as a browser has it."""
    known = yaml.safe_load((environment / "group_vars/all/10_environment.yml").read_text())
    with httpx.Client(base_url=known["slipway_public_url"], verify=False, timeout=30) as client:
        yield client


def commands() -> list[str]:
    """Return the page's commands on the controller."""
    return [item.command for item in docs_commands.commands([PAGE]) if item.kind == "command"]


def reports_of(environment: Path) -> Path:
    """Return where reports go: not into the environment, all of which Ansible reads as an inventory."""
    return ROOT / ".lab" / environment.name.removesuffix("-guestbook") / "reports-guestbook"


def run(command: str, environment: Path) -> str:
    """Run a command of the page as a reader does, for this environment; return what it printed."""
    done = subprocess.run(
        command.replace(NAMED, f"inventories/{environment.name}"),
        shell=True,
        cwd=ROOT,
        env=operators_environment() | {"PATH": f"{BIN}:{os.environ['PATH']}", "SLIPWAY_REPORTS_DIR": str(reports_of(environment))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{(done.stdout + done.stderr)[-6000:]}"
    return done.stdout


def test_the_page_leads_to_a_page_and_to_a_release(environment: Path, site: httpx.Client):
    """No command of the page fails, and after the first deployment the product works."""
    told: dict[str, str] = {}
    for command in commands():
        told[command] = run(command, environment)
        if "playbooks/site.yml" in command:
            assert "<h1>Guestbook</h1>" in site.get("/").text
            assert site.post("/api/entries", json={"name": "Ada", "text": "fine"}).json() == {"entries": [{"name": "Ada", "text": "fine"}]}
    assert sum("playbooks/site.yml" in command for command in told) == 1
    release = next(output for command, output in told.items() if "playbooks/deploy.yml" in command)
    assert "the product does not report its version (404 from /api/version)" in " ".join(release.split())
    report = json.loads((reports_of(environment) / "deploy-latest.json").read_text())
    assert (report["outcome"], report["version"]) == ("released", "1.1")
    assert report["prober"]["requests"] > 0
    assert report["prober"]["failures"] == []
    assert report["prober"]["failed"] == 0
    assert site.get("/api/entries").json()["entries"] == [{"name": "Ada", "text": "fine"}]


@pytest.mark.usefixtures("environment")
def test_a_stack_without_redis_and_chroma_runs_neither(lab: Lab):
    names = lab.hosts["lab1"].run("docker ps --format '{{.Names}}'").split()
    assert {"slipway-postgres", "slipway-backup", "slipway-nginx"} <= set(names)
    assert not [name for name in names if any(store in name for store in WITHOUT)]


def test_a_second_run_changes_nothing(environment: Path):
    run(f"ansible-playbook playbooks/site.yml -i {NAMED} -e app_version=1.1", environment)
    report = json.loads((reports_of(environment) / "site-latest.json").read_text())
    assert report["changed"] == []


def test_a_point_without_redis_and_chroma_is_restored(environment: Path, site: httpx.Client):
    site.post("/api/entries", json={"name": "Bob", "text": "after the point"})
    run(f"ansible-playbook playbooks/restore.yml -i {NAMED} -e point=latest -e restore_confirm=slipway", environment)
    assert site.get("/api/entries").json()["entries"] == [{"name": "Ada", "text": "fine"}]
