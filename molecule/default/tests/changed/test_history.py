"""Runs that change something are remembered on the hosts that they changed."""

from __future__ import annotations

from slipway_lab import Lab


def test_a_run_that_changes_something_is_in_the_history_and_no_other(lab: Lab):
    redis = lab.service("redis")
    redis.host.run(f"docker rm --force {redis.name}")
    changed = lab.site()
    unchanged = lab.site()
    run = lab.playbook("history")
    for name, value in lab.secrets.items():
        assert value not in run.output, name
    last = run.report["history"][-1]
    assert (last["playbook"], last["result"], last["finished"]) == ("site", "ok", changed.report["finished"])
    assert last["changes"] == len(changed.changed)
    assert str(redis.host) in last["hosts"]
    assert f"{last['finished']}  site" in run.output
    assert unchanged.report["finished"] not in run.output
