"""The detector on series that were made up elsewhere, and rules that a reader would hold it to."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.spike_worlds import JUDGED_FROM, World, make_world
from usage_pipeline.config import SpikeSettings
from usage_pipeline.lib.calendars import is_known, working_days
from usage_pipeline.lib.spikes import DROP, KINDS, SHIFT_DOWN, SHIFT_UP, SPIKE, Judged, Series, judge

RULES = SpikeSettings()


def steady(mean: float, series: int = 60, weeks: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean, (series, weeks)).astype(float)


def judged(counts: np.ndarray, application: np.ndarray | None = None, days: np.ndarray | None = None) -> Judged:
    application = np.zeros(len(counts), dtype=np.int64) if application is None else application
    return judge(Series(counts, application, np.ones(counts.shape) if days is None else days), RULES)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(seed=40, events_a_week=0.02)


@pytest.fixture(scope="module")
def found(world: World) -> Judged:
    return judge(Series(world.counts, world.application, world.working_days), RULES)


def test_few_ordinary_weeks_are_flagged_and_not_more_in_weeks_with_a_holiday(world: World, found: Judged) -> None:
    ordinary, is_holiday = world.ordinary(), world.working_days < 1
    assert (found.kind > 0)[ordinary & ~is_holiday].mean() <= 0.015
    assert (found.kind > 0)[ordinary & is_holiday].mean() <= 0.015
    assert (
        np.isin(found.kind, (DROP, SHIFT_DOWN))[ordinary].mean()
        >= np.isin(found.kind, (SPIKE, SHIFT_UP))[ordinary].mean()
    ), "most of what is false may be about drops: they cost customers"


@pytest.mark.parametrize(("least", "most", "share"), [(20, np.inf, 0.9), (5, 20, 0.6)])
def test_lasting_drops_are_found(world: World, found: Judged, least: float, most: float, share: float) -> None:
    hits = []
    for event in world.events:
        span = slice(event.week, event.week + event.weeks)
        is_known = not np.isnan(world.counts[event.series, span]).any()
        is_in = least <= world.mean[event.series, span].mean() < most
        if (event.kind, event.weeks, event.factor) == ("drop", 4, 0.4) and is_known and is_in:
            hits.append(np.isin(found.kind[event.series, span], (DROP, SHIFT_DOWN)).any())
    assert len(hits) >= 10
    assert np.mean(hits) >= share


def test_nothing_is_said_where_nothing_is_known(world: World, found: Judged) -> None:
    """Weeks outside a contract, incomplete or running ones are no weeks to judge."""
    assert (found.kind[np.isnan(world.counts)] == 0).all()
    assert np.isnan(found.expected[np.isnan(world.counts)]).all()


def test_the_end_of_a_contract_is_no_drop() -> None:
    counts = steady(40)
    counts[:30, 40:] = np.nan
    assert (judged(counts).kind[:30, 36:] == 0).mean() > 0.97


def test_a_failed_upload_of_the_whole_fleet_is_one_event_and_no_flag_of_anybody() -> None:
    counts = steady(60, series=200)
    application = np.arange(200) % 4
    quiet = judged(counts, application)
    counts[:, 50] = np.round(counts[:, 50] * 0.4)
    failed = judged(counts, application)
    assert failed.together_z[50] <= -RULES.fleet_z
    assert failed.together[50] < 0.6
    assert (failed.kind[:, 50] > 0).mean() <= 0.02
    assert (failed.kind[:, 51:] > 0).mean() <= (quiet.kind[:, 51:] > 0).mean() + 0.01


def test_a_move_of_one_application_is_an_event_of_that_application() -> None:
    counts, application = steady(60, series=200), np.arange(200) % 4
    counts[application == 2, 50] *= 2
    found = judged(counts, application)
    assert found.factor_z[2, 50] >= RULES.fleet_z
    assert (np.abs(found.factor_z[[0, 1, 3], 50]) < RULES.fleet_z).all()
    assert (found.kind[:, 50] > 0).mean() <= 0.03


@pytest.mark.parametrize("factor", [0.4, 2.2])
def test_a_lasting_shift_is_told_once_and_is_then_the_usual(factor: float) -> None:
    counts = steady(50, series=80, weeks=70)
    counts[0, 40:] = np.random.default_rng(9).poisson(50 * factor, 30)
    kinds = judged(counts).kind[0, 40:]
    assert np.isin(kinds, (SHIFT_UP, SHIFT_DOWN)).sum() == 1
    assert kinds[0] == (DROP if factor < 1 else SPIKE)
    assert (kinds[RULES.shift_weeks + 2 :] > 0).sum() <= 1


def test_a_slow_decline_does_not_become_its_own_usual() -> None:
    counts = steady(100, series=80, weeks=90)
    counts[0, 50:80] = np.random.default_rng(3).poisson(np.linspace(100, 20, 30))
    counts[0, 80:] = np.random.default_rng(4).poisson(20, 10)
    kinds = [KINDS[kind] for kind in judged(counts).kind[0, 55:] if kind]
    assert kinds
    assert set(kinds) <= {"decline", "drop-off", "shift down"}


def test_a_spike_is_told_in_its_week_only() -> None:
    counts = steady(20, series=80)
    counts[0, 40] = 200
    kinds = judged(counts).kind[0]
    assert kinds[40] == SPIKE
    assert (kinds[41:46] == 0).all()


def test_small_changes_are_not_worth_a_flag() -> None:
    small, large = steady(2, series=60), steady(50_000, series=60, seed=1)
    small[0, 40] = 0
    # a tenth is far beyond chance in so large a count, and nothing to call anybody for
    large[0, 40] *= 0.9
    assert judged(small).kind[0, 40] == 0
    assert judged(large).kind[0, 40] == 0


def test_a_short_history_is_judged_by_its_peers_or_not_at_all() -> None:
    counts = steady(40, series=80)
    counts[0, :50] = np.nan
    counts[0, 50:58] = 40
    counts[0, 55] = 400
    found = judged(counts)
    assert (found.kind[0, :54] == 0).all()
    assert found.kind[0, 55] == SPIKE
    assert found.weeks_known[0, 55] < RULES.minimum_weeks


def test_a_holiday_of_one_state_is_expected_there() -> None:
    days = np.ones((80, 60))
    days[:40, 50] = 0.6
    counts = np.random.default_rng(5).poisson(100 * days).astype(float)
    found = judged(counts, days=days)
    assert (found.kind[:, 50] > 0).mean() <= 0.03
    assert abs(found.expected[:40, 50].mean() / found.expected[40:, 50].mean() - 0.6) < 0.05


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_series_means_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.uniform(1, 80, (24, 1)), (24, 40)).astype(float)
    counts[rng.random(counts.shape) < 0.03] = np.nan
    application, order = rng.integers(0, 3, 24), rng.permutation(24)
    # three applications in both, so that they keep their numbers
    application[:3] = [0, 1, 2]
    one, other = judged(counts, application), judged(counts[order], application[order])
    assert (one.kind[order] == other.kind).all()
    assert np.allclose(one.expected[order], other.expected, equal_nan=True)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(20, 39))
def test_what_comes_later_changes_nothing_said_before(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.uniform(1, 80, (24, 1)), (24, 40)).astype(float)
    whole, until = judged(counts), judged(counts[:, :cut])
    assert (whole.kind[:, :cut] == until.kind).all()
    assert np.allclose(whole.expected[:, :cut], until.expected, equal_nan=True)


def test_working_days_know_country_and_state() -> None:
    thanksgiving, pioneer_day = date(2025, 11, 24), date(2025, 7, 21)
    weeks = [thanksgiving, pioneer_day]
    assert working_days("US", "UT", weeks).tolist() == [0.8, 0.8]
    assert working_days("US", "OH", weeks)[1] == 1.0
    assert working_days("us", None, weeks).tolist() == [0.8, 1.0]
    assert working_days(None, "UT", weeks).tolist() == [1.0, 1.0]
    assert working_days("XX", None, weeks).tolist() == [1.0, 1.0]
    assert is_known("US")
    assert not is_known("XX")


def test_the_worlds_are_judged_in_their_last_year_only(world: World) -> None:
    assert min(event.week for event in world.events) >= JUDGED_FROM
