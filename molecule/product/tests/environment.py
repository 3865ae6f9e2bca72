"""An environment for a foreign product on the lab's host, in which the commands of a page are run as a reader runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml
from slipway_lab import BIN, ROOT, Lab, LabHost, operators_environment

sys.path.insert(0, str(ROOT / "tests"))
import docs_commands

# What the pages call their environment.
NAMED = "inventories/shop"


def page_commands(page: Path, heading: str = "") -> list[docs_commands.Command]:
    """Return a page's commands on the controller and on hosts, in its order: all, or those below a heading and its subheadings."""
    found = [item for item in docs_commands.commands([page]) if item.kind in ("command", "host")]
    if not heading:
        return found
    level = len(heading.partition(" ")[0])
    first = last = 0
    fenced = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fenced ^= line.startswith("```")
        if line == heading:
            first = number
        elif first and not last and not fenced and re.match(rf"#{{1,{level}}} ", line):
            last = number
    assert first, f"{page} has no {heading}"
    return [item for item in found if first < item.line and (not last or item.line < last)]


class Environment:
    """An environment folder with what a reader writes by hand: hosts and the site's name. All else comes from the page's commands."""

    def __init__(self, lab: Lab, name: str, without: tuple[str, ...], **settings: Any) -> None:
        """Create the folder; the groups in ``without`` are left out, and the settings are those of the environment."""
        self.lab = lab
        of_lab = ROOT / "inventories" / lab.name
        self.folder = ROOT / "inventories" / f"{lab.name}-{name}"
        # Not in the environment's folder, all of which Ansible reads as an inventory.
        self.reports = ROOT / ".lab" / lab.name / f"reports-{name}"
        variables = self.folder / "group_vars/all"
        self.remove()
        variables.mkdir(parents=True)
        (self.folder / ".gitignore").write_text("*\n")
        hosts = yaml.safe_load((of_lab / "hosts.yml").read_text())
        for group in without:
            del hosts["all"]["children"][group]
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False))
        shutil.copy(of_lab / "group_vars/all/lab.yml", variables / "10_environment.yml")
        # As on the hosts of a reader, which no registry offers it to.
        settings["backup_image"] = "slipway/backup-tools:1-built"
        (variables / "15_environment.yml").write_text(yaml.safe_dump(settings))

    def run(self, command: str, fails: bool = False, *, may_say: str = "") -> str:
        """Run a command of a page for this environment; return what it printed. It may fail if it then prints ``may_say``."""
        done = subprocess.run(
            command.replace(NAMED, f"inventories/{self.folder.name}"),
            shell=True,
            cwd=ROOT,
            env=operators_environment() | {"PATH": f"{BIN}:{os.environ['PATH']}", "SLIPWAY_REPORTS_DIR": str(self.reports)},
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        as_expected = (done.returncode != 0) == fails or (may_say and may_say in " ".join(output.split()))
        assert as_expected, f"{command}\n{output[-6000:]}"
        return output

    def empty_host(self) -> LabHost:
        """Return the host, after everything that another test left there is gone."""
        host = self.lab.hosts["lab1"]
        if host.containers():
            self.run(f"ansible-playbook playbooks/destroy.yml -i {NAMED} -e slipway_destroy=slipway")
        host.run("docker ps --all --quiet | xargs --no-run-if-empty docker rm --force")
        host.run("docker volume ls --quiet | xargs --no-run-if-empty docker volume rm")
        return host

    def report(self, playbook: str) -> dict[str, Any]:
        """Return the report of a playbook's last run."""
        return dict(json.loads((self.reports / f"{playbook}-latest.json").read_text()))

    def secrets(self) -> dict[str, str]:
        """Return the values of its vault."""
        return self.lab.secrets_of(self.folder)

    def tls(self) -> ssl.SSLContext:
        """Return what its clients trust: the private CA alone."""
        return ssl.create_default_context(cafile=str(self.folder / "pki/ca.pem"))

    def site(self) -> httpx.Client:
        """Return the site as a browser has it."""
        return httpx.Client(base_url=self.lab.url, verify=False, timeout=30)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
