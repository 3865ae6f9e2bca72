"""What a product need not have for a release, and what a release need not do: each leaves a check out, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from slipway_release import QUICK, Fleet

pytestmark = pytest.mark.extended("release-ways")


@pytest.fixture(scope="module", autouse=True)
def small(fleet: Fleet) -> None:
    """Begin with the small product."""
    fleet.begin_small()


def test_a_release_without_a_prober(fleet: Fleet):
    """Its canary gets its share for its time all the same."""
    wanted = fleet.other()
    run = fleet.deploy(wanted, **QUICK, release_probe=False, app_canary_weight=20, app_canary_seconds=5)
    fleet.check(wanted, run)
    assert run.report["outcome"] == "released"
    assert run.report["prober"] == {}
    assert run.report["steps"]["canary"] >= 5


@pytest.mark.parametrize(
    "lacks",
    [
        {"ready_path": ""},
        {"version_field": ""},
        {"version_path": ""},
        {"ready_path": "", "version_field": "", "version_path": ""},
    ],
    ids=" ".join,
)
def test_a_product_that_lacks_something_is_released(fleet: Fleet, lacks: dict[str, Any]):
    wanted = fleet.other()
    run = fleet.deploy(wanted, **QUICK, app_service_overrides={"backend": lacks})
    fleet.check(wanted, run)
    assert run.report["outcome"] == "released"
    assert run.report["prober"]["requests"] > 0
    assert run.report["prober"]["failed"] == 0, str(run.report["prober"])


def test_what_no_version_field_costs(fleet: Fleet):
    """A wrong image is noticed by the version that it reports, and by nothing else."""
    serving, wrong = fleet.version, "5.0.0-other-version"
    run = fleet.deploy(wrong, **QUICK, app_service_overrides={"backend": {"version_field": ""}})
    assert (run.report["outcome"], run.report["version"], fleet.version) == ("released", wrong, wrong)
    fleet.check(serving, fleet.rollback(**QUICK))
