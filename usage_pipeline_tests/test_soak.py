"""Heavy proofs, run by `make soak`: a fleet of 1,500 accounts keeps every click, and what was planted in it is found."""

import pytest

from usage_pipeline_tests import test_pipeline as proofs
from usage_pipeline_tests.conftest import make_demo

pytestmark = pytest.mark.soak


def test_a_large_fleet_goes_through(tmp_path) -> None:
    demo = make_demo(tmp_path, seed=21, accounts=1500)
    proofs.test_weekly_clicks_records_and_users_equal_pandas_on_the_raw_rows(demo)
    proofs.test_what_was_planted_is_found(demo)
    proofs.test_strong_planted_spikes_are_flagged(demo)
    proofs.test_ranks_hold_only_pairs_in_contract_with_use(demo)
