"""A fleet that has seen one version only."""

from __future__ import annotations

import pytest
from slipway_release import PRODUCT, Fleet


@pytest.fixture(autouse=True)
def first(fleet: Fleet) -> None:
    """Begin with the first version, and no other: as the scenario does, or deployed again where others have served since."""
    if any(record["previous"] or record["version"] != PRODUCT[0] for record in fleet.records()):
        fleet.lab.destroy()
        fleet.lab.site()


def test_there_is_nothing_to_go_back_to(fleet: Fleet):
    before = fleet.records()
    run = fleet.refused("", "rollback")
    assert "There is no previous version to roll back to" in " ".join(run.output.split())
    assert (run.report["version"], run.report["previous"], run.report["outcome"]) == (PRODUCT[0], "", "refused")
    assert fleet.records() == before
    fleet.check(PRODUCT[0], run)
