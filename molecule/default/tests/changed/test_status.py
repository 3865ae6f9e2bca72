"""status.yml reports a stack that is well, and one that is down."""

from __future__ import annotations

from slipway_lab import Lab, Run


def status(lab: Lab) -> Run:
    """Run status.yml, whose output holds no secret."""
    run = lab.playbook("status")
    for name, value in lab.secrets.items():
        assert value not in run.output, name
        assert value not in str(run.report), name
        assert value not in page(lab), name
    return run


def page(lab: Lab) -> str:
    return (lab.reports / "status.html").read_text(encoding="utf-8")


def test_a_stack_is_well_until_a_container_is_stopped_and_again_after(lab: Lab):
    lab.site()
    made = lab.playbook("backup")
    assert made.returncode == 0, made.excerpt
    redis = lab.service("redis")
    # Other tests have containers restarted, which needs attention for an hour.
    for host in lab.hosts.values():
        host.run("rm -f /etc/slipway/slipway/watchdog/state/restarts.json")
    well = status(lab)
    assert (well.returncode, well.report["status"]["problems"]) == (0, []), well.excerpt
    assert max(well.report["remote_calls"].values()) == 1
    assert not well.changed
    assert "Nothing needs attention" in page(lab)
    try:
        redis.host.run(f"docker stop {redis.name}")
        down = status(lab)
        assert down.returncode == 2, down.excerpt
        assert f"{redis.host} redis: the container is exited" in down.output
        assert down.report["status"]["state"] == "down"
        assert f"✕ <b>{redis.host} redis</b>: the container is exited" in page(lab)
    finally:
        redis.host.run(f"docker start {redis.name}")
        lab.wait_until_healthy()
    assert status(lab).returncode == 0
