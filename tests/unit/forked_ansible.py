# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ansible-playbook in forks of a process that has imported Ansible and the collection: most of a short run are imports.

`ForkedAnsible` is what tests use; the program below it is the process that is forked. Ansible reads its configuration when it is
imported, so a process serves runs of one ansible.cfg, one folder and one set of Ansible's variables; its caller answers for the
collection's plugins and the roles' descriptions in that folder being those of the first run.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

#: What a run imports late, apart from plugins, each of which its loader must find by itself.
LATE = (
    "ansible.executor.process.worker",
    "ansible.module_utils.connection",
    "ansible.module_utils.urls",
    "ansible.parsing.yaml.dumper",
    "ansible.playbook.handler_task_include",
    "ansible.playbook.role_include",
    "ansible.utils._junit_xml",
    "ansible.utils.encrypt",
    "cryptography.hazmat.primitives.serialization.pkcs12",
    "cryptography.x509",
    "multiprocessing.popen_fork",
    "multiprocessing.synchronize",
    "pty",
    "tomllib",
)


class ForkedAnsible:
    """Starts the process with its first run, in that run's folder and with its environment."""

    def __init__(self) -> None:
        """Start nothing."""
        self._process: subprocess.Popen[str] | None = None
        self._configured: object = None

    @staticmethod
    def _configuration(cwd: Path, environment: dict[str, str]) -> object:
        """Return all that Ansible's configuration follows from."""
        variables = {key: value for key, value in environment.items() if key.startswith("ANSIBLE_") or key == "HOME"}
        return cwd, (cwd / "ansible.cfg").read_text(encoding="utf-8"), variables

    def serves(self, cwd: Path, environment: dict[str, str]) -> bool:
        """Return whether a run in a folder has the configuration of the runs before; the first one decides."""
        if not (cwd / "ansible.cfg").is_file():
            return False
        configured = self._configuration(cwd, environment)
        self._configured = self._configured or configured
        return self._configured == configured

    def run(self, arguments: list[str], cwd: Path, environment: dict[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Run ansible-playbook, as subprocess.run does; kills it after ``timeout`` seconds."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__], cwd=cwd, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin
        assert self._process.stdout
        with tempfile.TemporaryDirectory() as folder:
            output, errors = Path(folder, "stdout"), Path(folder, "stderr")
            request = {"arguments": arguments, "cwd": str(cwd), "environment": environment, "timeout": timeout}
            print(json.dumps({**request, "stdout": str(output), "stderr": str(errors)}), file=self._process.stdin, flush=True)
            status = int(self._process.stdout.readline())
            said = output.read_text(encoding="utf-8"), errors.read_text(encoding="utf-8")
        return subprocess.CompletedProcess(["ansible-playbook", *arguments], status, *said)

    def stop(self) -> None:
        """End the process, if it was started."""
        if self._process:
            self._process.communicate()


# The process that is forked.


def run(request: dict[str, Any]) -> None:
    """Be ansible-playbook, in a fork."""
    # Those of the process before are not this run's to clean up after.
    atexit._clear()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, request["stdout"], os.O_WRONLY), (2, request["stderr"], os.O_WRONLY)):
        opened = os.open(path, flags | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = ["ansible-playbook", *request["arguments"]]
    status: object = 0
    try:
        playbook.main()
    except SystemExit as ended:
        status = ended.code
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # An interpreter's own end takes as long as a short run.
    os._exit(status if isinstance(status, int) else 1)


def forked(request: dict[str, Any]) -> int:
    """Return how ansible-playbook ended in a fork, as subprocess.run does."""
    child = os.fork()
    if child == 0:
        run(request)
    descriptor = os.pidfd_open(child)
    ended, _, _ = select.select([descriptor], [], [], request["timeout"])
    os.close(descriptor)
    if not ended:
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Fork for each request on the standard input, a line of JSON, and answer with the run's exit status."""
    for name in LATE:
        importlib.import_module(name)
    # The last thing that a run imports, and most of it: the collection.
    init_plugin_loader()
    cli.init_plugin_loader = lambda *_: None
    report = importlib.import_module("ansible_collections.slipway.stack.plugins.callback.report")
    report.load_for_forks()
    # Else each fork copies what the collector only looks at.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        # A test may have moved the folder, and another one made a new one.
        os.chdir(request["cwd"])
        # What the runs before had to compile.
        report.read_compiled(report.ansible_home())
        print(forked(request), flush=True)


if __name__ == "__main__":
    # Here, as they read the configuration of the folder.
    from ansible import cli
    from ansible.cli import playbook
    from ansible.plugins.loader import init_plugin_loader

    main()
