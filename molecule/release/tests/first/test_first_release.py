"""A fleet that has seen one version only."""

from __future__ import annotations

from slipway_release import PRODUCT, Fleet


def test_there_is_nothing_to_go_back_to(fleet: Fleet):
    before = fleet.records()
    run = fleet.refused("", "rollback")
    assert "There is no previous version to roll back to" in " ".join(run.output.split())
    assert (run.report["version"], run.report["previous"], run.report["outcome"]) == (PRODUCT[0], "", "refused")
    assert fleet.records() == before
    fleet.check(PRODUCT[0], run)
