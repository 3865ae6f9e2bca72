"""Jobs on two app hosts: each time runs once, releases leave runs alone, and what fails or hangs is visible and ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from slipway_lab import JOBS_PROGRAM, ROOT, Lab, LabHost, sql, wait_until
from slipway_release import QUICK, Fleet

pytestmark = pytest.mark.extended("release-jobs")

#: They never come by themselves: tests say when.
NEVER = "2099-01-01 00:00:00 UTC"


def job(program: str, **keys: Any) -> dict[str, Any]:
    return {"image": "support-desk/backend:{{ app_version }}", "command": ["python3", "-c", program], "schedule": NEVER, **keys}


PRODUCT = yaml.safe_load((ROOT / "inventories/lab/group_vars/all/20_product.yml").read_text(encoding="utf-8"))["app_services"]
JOBS = {
    "quick": job("print('done')"),
    # It runs until a test lets it end.
    "slow": job("import os, time\nwhile not os.path.exists('/tmp/end'):\n  time.sleep(0.2)\nprint('whole')", grace_seconds=1),
    "failing": job("raise SystemExit('no space left')"),
    "hanging": job("import time; time.sleep(3600)", deadline_seconds=3, grace_seconds=1),
}
WITH_JOBS: dict[str, Any] = {**QUICK, "app_services": {**PRODUCT, **JOBS}}


@pytest.fixture(scope="module")
def jobs(fleet: Fleet) -> Iterator[Fleet]:
    """The small product with more jobs than it has; they go as they came."""
    fleet.begin_small()
    run = fleet.start("site", **WITH_JOBS).end()
    assert run.returncode == 0, run.excerpt
    yield fleet
    run = fleet.start("site", **QUICK).end()
    assert run.returncode == 0, run.excerpt
    for host in fleet.app:
        assert host.run("cd /etc/systemd/system && ls *-job.*.timer").split() == ["slipway-slipway-job.prune.timer"]
        left = host.run("ls /etc/slipway/slipway/jobs/state").split()
        assert not [name for name in left if name.partition(".")[0] in JOBS]


@pytest.fixture
def moment() -> int:
    return int(time.time())


def results(lab: Lab, job_name: str, moment: int) -> list[str]:
    """Return the results of all runs of a job for a moment."""
    query = f"select result from slipway_jobs.runs where job = '{job_name}' and moment = {moment}"
    return sql(lab.service("postgres"), query).splitlines()


def start_together(hosts: list[LabHost], job_name: str, moment: int) -> list[str]:
    """Start the programs of all hosts for one moment; return what each has printed."""
    said: list[str] = []
    barrier = threading.Barrier(len(hosts))

    def start(host: LabHost) -> None:
        barrier.wait()
        said.append(host.run(f"{JOBS_PROGRAM} run {job_name} {moment} 2>&1", check=False))

    threads = [threading.Thread(target=start, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def state(host: LabHost, job_name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.run(f"cat /etc/slipway/slipway/jobs/state/{job_name}.json"))
    return found


def copies(host: LabHost) -> list[str]:
    return [container.name for container in host.containers() if container.owner == "app-job"]


def test_a_moment_runs_on_one_of_two_hosts(jobs: Fleet, lab: Lab, moment: int):
    said = start_together(jobs.app, "quick", moment)
    assert sorted("another host has it" in text for text in said) == [False, True], said
    assert results(lab, "quick", moment) == ["succeeded"]
    # Again, it is run by neither.
    assert all("another host has it" in text for text in start_together(jobs.app, "quick", moment))
    assert not [name for host in jobs.app for name in copies(host)], "a run leaves nothing behind"


def test_a_release_and_a_rollback_do_not_stop_a_running_job(jobs: Fleet, lab: Lab, moment: int):
    host, serving = jobs.app[0], jobs.version
    host.run(f"systemd-run --collect --unit=job-of-a-test {JOBS_PROGRAM} run slow {moment}")
    wait_until(lambda: copies(host) != [], 30, "the job runs")
    other = jobs.other()
    jobs.check(other, jobs.deploy(other, **WITH_JOBS))
    jobs.check(serving, jobs.rollback(**WITH_JOBS))
    # Both slots were released into, and its own was replaced.
    (copy,) = copies(host)
    host.run(f"docker exec {copy} touch /tmp/end")
    wait_until(lambda: not copies(host), 60, "the job has ended")
    found = state(host, "slow")
    assert (found["result"], found["version"], found["log"][-1]) == ("succeeded", serving, "whole")
    assert results(lab, "slow", moment) == ["succeeded"]


def test_a_failing_job_is_visible(jobs: Fleet, moment: int):
    host = jobs.app[0]
    host.run(f"{JOBS_PROGRAM} run failing {moment}", check=False)
    run = jobs.start("site", **WITH_JOBS).end()
    assert run.returncode == 0, run.excerpt
    assert run.report["changed"] == []
    assert set(run.report["remote_calls"].values()) == {1}
    found = run.report["jobs"]["failing"]
    assert (found["host"], found["result"], found["code"], found["log"]) == (host.name, "failed", 1, ["no space left"])
    assert "job failing: the last run" in run.output
    assert 'slipway_job_last_run_success{stack="slipway",job="failing"} 0' in host.run("cat /etc/slipway/slipway/jobs/state/failing.prom")


def test_a_hanging_job_ends_at_its_deadline(jobs: Fleet, lab: Lab, moment: int):
    host = jobs.app[0]
    host.run(f"{JOBS_PROGRAM} run hanging {moment}", check=False)
    assert (state(host, "hanging")["result"], results(lab, "hanging", moment)) == ("deadline", ["deadline"])
    assert not copies(host)


def test_what_a_killed_program_left_is_removed_by_the_next(jobs: Fleet, moment: int):
    host = jobs.app[0]
    host.run(f"systemd-run --collect --unit=job-of-a-test {JOBS_PROGRAM} run slow {moment}")
    wait_until(lambda: copies(host) != [], 30, "the job runs")
    host.run("systemctl kill --signal=SIGKILL job-of-a-test.service")
    host.run(f"{JOBS_PROGRAM} run slow {moment}", check=False)
    assert not copies(host)
    assert state(host, "slow")["result"] == "interrupted"


def test_a_timer_starts_a_job(jobs: Fleet, lab: Lab):
    """That of each host, for the same times."""
    services = {**PRODUCT, **JOBS, "quick": {**JOBS["quick"], "schedule": "*:*:0/20"}}
    run = jobs.start("site", **{**WITH_JOBS, "app_services": services}).end()
    assert run.returncode == 0, run.excerpt
    began = int(sql(lab.service("postgres"), "select extract(epoch from now())::bigint"))
    query = f"select count(*) from slipway_jobs.runs where job = 'quick' and moment > {began} and moment % 20 = 0 and result = 'succeeded'"
    wait_until(lambda: int(sql(lab.service("postgres"), query)) >= 3, 150, "three times have come")
