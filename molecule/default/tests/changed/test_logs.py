"""Logs of the whole stack are shown from the controller."""

from __future__ import annotations

from slipway_lab import Lab, sql


def test_an_error_of_the_database_is_found_and_no_secret_is_in_any_log(lab: Lab):
    sql(lab.service("postgres"), "select not_there_at_all", check=False)
    run = lab.playbook("logs", "-e", "since=1d", "-e", "lines=100000")
    assert run.returncode == 0, run.excerpt
    assert max(run.report["remote_calls"].values()) == 1
    for name, value in lab.secrets.items():
        assert value not in run.output, name
    found = lab.playbook("logs", "-e", "service=postgres", "-e", "grep=ERROR.*not_there_at_all")
    assert f"Z {lab.groups['postgres'][0]} postgres: " in found.output
    assert "checkpoint" not in found.output
    unknown = lab.playbook("logs", "-e", "service=postgers")
    assert unknown.returncode == 2
    assert "there are backend, backup, chroma, frontend, nginx" in unknown.output
