"""Predictions: nothing of the future is seen, figures equal their definitions, and a model has to earn its place."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import RiskSettings, Settings, load_settings
from usage_pipeline.core.sql import load_sql
from usage_pipeline.predictions import backtest, risk_features, risk_models, risks
from usage_pipeline.predictions.point_in_time import History, open_history
from usage_pipeline.predictions.risk_drivers import contributions, middle_of_peers, probability_text, reasons
from usage_pipeline.predictions.risk_features import FEATURES, THEMES, LeakError, features_at, matrix
from usage_pipeline.predictions.risk_models import Bools, Model, Rows, by_rule, learn, load_model, save_model
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.refreshes import run_refresh

RULES = RiskSettings()
KEY = ["account_id", "application"]


def ask(demo: Demo, sql: str) -> pd.DataFrame:
    with duckdb.connect(str(demo.settings.home.warehouse_path), read_only=True) as connection:
        return connection.execute(sql).df()


def weeks_on_record(demo: Demo) -> list[date]:
    found = ask(demo, "SELECT week_start FROM core.weeks WHERE is_complete ORDER BY 1")
    return [week.date() for week in found["week_start"]]


# ---------------------------------------------------------------- nothing of the future


def truncated(demo: Demo, folder: Path, last: date, as_of: date) -> Settings:
    """The demo as if the world had ended with a week: no later facts, and subscription rows as people knew them then."""
    home = folder / "home"
    for week in (demo.settings.home.facts_dir).glob("week=*"):
        if date.fromisoformat(week.name.removeprefix("week=")) <= last:
            shutil.copytree(week, home / "facts" / week.name)
    rows = pd.read_csv(demo.folder / "lake" / "subscriptions.csv")
    sunday = (last + timedelta(days=6)).isoformat()
    # what begins the day after is known: it renews what ends on the Sunday
    rows = rows[rows["start_date"] <= (last + timedelta(days=7)).isoformat()].copy()
    rows.loc[~(rows["end_date"] <= sunday), ["end_date", "end_reason"]] = None
    rows.loc[~(rows["notice_date"] <= sunday), "notice_date"] = None
    rows.to_csv(folder / "subscriptions.csv", index=False)
    lake = f"{demo.folder}/lake"
    text = demo.configuration(lake).replace(f"{lake}/subscriptions.csv", "subscriptions.csv")
    text = text.replace(f"as_of: {demo.settings.clock.as_of_day}", f"as_of: {as_of}")
    (folder / "sources.yaml").write_text(text, encoding="utf-8")
    settings = load_settings(folder / "sources.yaml")
    only = ["subscriptions", "weekly_usage", "weeks"]
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance, only=only).success
    return settings


def features(settings: Settings, week: date) -> pd.DataFrame:
    with open_history(settings) as history:
        return features_at(history, week).to_pandas()


@pytest.mark.long
@pytest.mark.parametrize("weeks_ago", [13, 40, 70])
@pytest.mark.sample("40")
def test_features_of_a_past_week_are_those_of_a_world_that_ended_with_it(demo: Demo, tmp_path, weeks_ago: int) -> None:
    """Facts cut at the week, subscription rows as known then, against all facts and rows: the same, to the bit."""
    week = weeks_on_record(demo)[-1 - weeks_ago]
    then = truncated(demo, tmp_path, week, demo.settings.clock.as_of_day)
    pd.testing.assert_frame_equal(features(demo.settings, week), features(then, week), check_exact=True)


@pytest.mark.long
def test_subscriptions_of_a_week_are_those_of_the_delivery_of_that_time(demo: Demo, tmp_path) -> None:
    """What was delivered then is used then, whatever a later delivery says of it."""
    week = weeks_on_record(demo)[-20]
    then = truncated(demo, tmp_path, week, week + timedelta(days=8))
    now = demo.settings.model_copy(update={"home": DataHome(tmp_path / "now")})
    shutil.copytree(demo.settings.home.root / "warehouse", now.home.root / "warehouse")
    folder = Path("history") / "reference" / "subscriptions"
    shutil.copytree(then.home.root / folder, now.home.root / folder)
    (later,) = (demo.settings.home.root / folder).glob("*.parquet")
    shutil.copy(later, now.home.root / folder / later.name.replace("00001_", "00002_"))
    pd.testing.assert_frame_equal(features(now, week), features(then, week), check_exact=True)
    # a week later than both is seen with the later one: subscriptions that ended since are gone
    newest = weeks_on_record(demo)[-1]
    pd.testing.assert_frame_equal(features(now, newest), features(demo.settings, newest), check_exact=True)


@pytest.mark.parametrize(
    ("place", "leak", "word"),
    [
        ("FROM core.subscribed\n    UNION ALL", "FROM ref.subscriptions\n    UNION ALL", "subscriptions"),
        ("    days_to_renewal\nFROM", "    days_to_renewal,\n    notice_date\nFROM", "notice_date"),
        ("FROM core.weeks\n", "FROM warehouse.core.weeks\n", "warehouse"),
        ("change - peers_change AS", "change - peers_change + (end_date IS NULL)::INTEGER AS", "end_date"),
    ],
)
def test_a_planted_leak_stops_the_build(demo: Demo, tmp_path, monkeypatch, place: str, leak: str, word: str) -> None:
    sql = load_sql("predictions", "risk_features")
    assert place in sql
    with pytest.raises(LeakError, match=f"{word}.*is no feature"):
        risk_features.refuse_leaks(sql.replace(place, leak, 1), [*risk_features.KEYS, *FEATURES])


def test_a_feature_without_a_name_in_the_catalogue_stops_the_run(demo: Demo, tmp_path, monkeypatch) -> None:
    """Through Dagster: what is published stays up, and the message names the column."""
    settings = demo.settings.model_copy(update={"home": DataHome(tmp_path / "home")})
    shutil.copytree(demo.settings.home.root, settings.home.root)
    shutil.rmtree(settings.home.models_dir)
    planted = load_sql("predictions", "risk_features").replace(
        "    season_ahead,\n    weeks_since", "    season_ahead,\n    1 AS cancelled_soon,\n    weeks_since"
    )
    assert "cancelled_soon" in planted
    monkeypatch.setattr(
        risk_features, "load_sql", lambda group, name: planted if name == "risk_features" else load_sql(group, name)
    )
    with dg.DagsterInstance.ephemeral() as instance:
        run = run_refresh(settings, instance, only=["risk_models"])
    assert not run.success
    failure = next(e for e in run.all_events if e.is_step_failure)
    assert "names cancelled_soon" in str(failure.event_specific_data.error)
    assert not settings.home.models_dir.exists()


# ---------------------------------------------------------------- features and outcomes, computed another way


def test_features_equal_pandas_on_the_raw_rows(demo: Demo) -> None:
    week = pd.Timestamp(weeks_on_record(demo)[-10])
    found = features(demo.settings, week.date()).set_index(KEY)
    weeks = [w for w in map(pd.Timestamp, weeks_on_record(demo)) if w <= week]
    rows = demo.raw()
    rows = rows[rows["week_start"].isin(weeks)]
    rows["ago"] = (week - rows["week_start"]).dt.days // 7
    recent, before = [w for w in weeks if (week - w).days < 28], [w for w in weeks if 28 <= (week - w).days < 84]
    checked = 0
    account_applications = found[
        found.index.get_level_values("application").notna() & (found["subscription_age_days"] > 700)
    ]
    for (account, application), row in account_applications.iterrows():
        own = rows[(rows["account_id"] == account) & (rows["application"] == application)]
        clicks = own.groupby("week_start")["clicks"].sum().reindex(weeks, fill_value=0)
        assert row["clicks_recent"] == clicks[recent].mean()
        assert row["clicks_before"] == clicks[before].mean()
        assert row["change"] == pytest.approx(np.log((clicks[recent].mean() + 1) / (clicks[before].mean() + 1)))
        assert row["weeks_since_use"] == min(52, own["ago"].min() if len(own) else len(weeks))
        regulars = own[own["ago"].between(4, 11)].groupby("user_id")["week_start"].nunique()
        regulars = set(regulars[regulars >= 2].index)
        gone = regulars - set(own.loc[own["ago"] < 4, "user_id"])
        assert (row["regular_users"], row["regular_users_gone"]) == (len(regulars), len(gone))
        checked += 1
    assert checked > 100
    whole = found[found.index.get_level_values("application").isna() & (found["subscription_age_days"] > 700)]
    for (account, _), row in whole.iterrows():
        owned = account_applications.index[account_applications.index.get_level_values(0) == account].get_level_values(
            1
        )
        if len(owned) == row["applications_owned"]:
            own = rows[(rows["account_id"] == account) & rows["application"].isin(owned)]
            assert row["clicks_recent"] == own.loc[own["ago"] < 4, "clicks"].sum() / len(recent)
            assert row["users_recent"] == own.loc[own["ago"] < 4, "user_id"].nunique()
            assert row["applications_used"] == own.loc[own["ago"] < 4, "application"].nunique()


@pytest.fixture(scope="module")
def history(demo: Demo) -> Iterator[History]:
    with open_history(demo.settings) as opened:
        risks.with_features(opened, risks.weeks_of_as_of(opened))
        yield opened


@pytest.mark.long
@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.sample("3")
def test_outcomes_equal_subscriptions_and_states_read_one_by_one(demo: Demo, gap: int) -> None:
    """The horizon begins after the gap; who leaves within the gap is nobody's lesson."""
    rules = demo.settings.risk.model_copy(update={"lead_weeks": gap, "every_weeks": 5})
    with open_history(demo.settings.model_copy(update={"risk": rules})) as opened:
        risks.with_features(opened, risks.weeks_of_as_of(opened))
        outcomes = opened.connection.execute("FROM past.outcomes").df()
    assert set(outcomes["target"]) == {target.key for target in risks.TARGETS}
    states = ask(demo, "SELECT * FROM core.usage_states JOIN core.account_applications USING (account_application_id)")
    words = {k: g.set_index("week_start")["usage_state"].astype(str) for k, g in states.groupby(KEY)}
    low = outcomes[outcomes["target"] == "low usage"]
    assert low["outcome"].any()
    for row in low.sample(400, random_state=1).itertuples():
        own = words[(row.account_id, row.application)]
        assert own[row.as_of_week] == "active"
        coming = [row.as_of_week + pd.Timedelta(weeks=n + gap) for n in range(1, 9)]
        assert row.outcome == own.reindex(coming).isin(["low", "inactive"]).any()
    subscription_periods = ask(demo, "SELECT * FROM core.subscription_periods WHERE basis != 'usage'")
    by_account_application = dict(list(subscription_periods.groupby(KEY)))
    leaving = outcomes[outcomes["target"] == "churn"]
    assert leaving["outcome"].any()
    for row in leaving.sample(400, random_state=2).itertuples():
        periods: Any = by_account_application[(row.account_id, row.application)]
        sunday = row.as_of_week + pd.Timedelta(days=6)
        running = periods.loc[(periods["start_date"] <= row.as_of_week) & (periods["end_date"] > sunday)]
        (subscription_period,) = running.itertuples()
        assert pd.isna(subscription_period.notice_date) or subscription_period.notice_date > sunday
        told = min(d for d in (subscription_period.notice_date, subscription_period.end_date) if not pd.isna(d))
        since = sunday + pd.Timedelta(weeks=gap)
        until = since + pd.Timedelta(days=90)
        if subscription_period.end_reason == "completed":
            assert not row.outcome and subscription_period.end_date > until
        else:
            assert told > since
            assert row.outcome == (told <= until)


def test_an_account_is_lost_with_the_last_of_its_applications(history: History) -> None:
    outcomes = history.connection.execute("FROM past.outcomes").df()
    account_applications = (
        outcomes[outcomes["target"] == "churn"].groupby(["as_of_week", "account_id"])["outcome"].all()
    )
    accounts = outcomes[outcomes["target"] == "account churn"].set_index(["as_of_week", "account_id"])["outcome"]
    pd.testing.assert_series_equal(accounts.sort_index(), account_applications.sort_index(), check_names=False)


# ---------------------------------------------------------------- figures


@pytest.mark.long
@hypothesis_settings(deadline=None, max_examples=200)
@given(st.data())
def test_average_precision_is_that_of_scikit_learn(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 40))
    score = np.array(data.draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)), dtype=float)
    outcome = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    weight = np.array([data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)) for _ in range(3)], dtype=float)
    for row, found in zip(weight, backtest.average_precision(score, outcome, weight), strict=True):
        if (row * outcome).sum() == 0:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(average_precision_score(outcome, score, sample_weight=row))


@hypothesis_settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 60))
def test_ties_at_the_cut_share_the_places_left(scores: list[int], places: int) -> None:
    score = np.array(scores, dtype=float)
    places = min(places, len(score))
    taken = backtest._taken(score, places)
    assert taken.sum() == pytest.approx(places)
    assert ((taken >= 0) & (taken <= 1)).all()
    assert (np.diff(taken[np.argsort(score)]) >= -1e-12).all()


def test_tenths_hold_what_happened_within_their_interval() -> None:
    rng = np.random.default_rng(1)
    probability = rng.beta(1, 12, 20_000)
    honest = backtest.deciles(probability, rng.random(20_000) < probability, np.arange(20_000))
    assert ((honest["low"] <= honest["outcome"]) & (honest["outcome"] <= honest["high"])).all()
    assert ((honest["low"] <= honest["said"]) & (honest["said"] <= honest["high"])).sum() >= 8
    boastful = backtest.deciles(np.minimum(1, 2 * probability), rng.random(20_000) < probability, np.arange(20_000))
    assert ((boastful["low"] <= boastful["said"]) & (boastful["said"] <= boastful["high"])).sum() <= 3


def test_rows_of_the_same_account_are_no_new_evidence() -> None:
    """Each account four times over: intervals as wide as those of a quarter of the rows."""
    rng = np.random.default_rng(2)
    probability = rng.beta(1, 12, 5000)
    outcome, account = rng.random(5000) < probability, np.arange(5000)
    once = backtest.deciles(probability, outcome, account)
    again = backtest.deciles(*(np.tile(values, 4) for values in (probability, outcome, account)))
    np.testing.assert_allclose(again[["low", "high"]], once[["low", "high"]], atol=1e-3)


# ---------------------------------------------------------------- a model has to earn its place


def made_rows(seed: int = 3, *, effect: float, weeks: int = 24, accounts: int = 600) -> Rows:
    """Accounts with one application each: the odds follow a mixture of features by `effect`, and probability."""
    rng = np.random.default_rng(seed)
    n = weeks * accounts
    x = rng.normal(0, 1, (n, len(FEATURES))).astype(np.float32)
    at = {name: place for place, name in enumerate(FEATURES)}
    x[rng.random(x.shape) < 0.02] = np.nan
    # known of everybody
    x[:, at["weeks_since_use"]] = rng.integers(0, 5, n)
    drive = np.nan_to_num(x[:, at["share_of_users_gone"]] - x[:, at["change_of_13_weeks"]] + x[:, at["depth"]])
    outcome = rng.random(n) < 1 / (1 + np.exp(3.2 - effect * drive))
    account = np.tile(np.arange(accounts), weeks)
    return Rows(
        week=np.repeat(np.datetime64("2024-01-01") + 28 * np.arange(weeks), accounts).astype("datetime64[D]"),
        account=account,
        entity=account,
        x=x,
        clicks_before=rng.uniform(0, 50, n),
        outcome=outcome,
    )


@pytest.mark.long
@pytest.mark.parametrize(("effect", "method"), [(0.8, "model"), (0.0, "rule")])
def test_a_model_is_used_only_where_it_beats_the_best_simple_measure(effect: float, method: str) -> None:
    rows = made_rows(effect=effect)
    rules = RULES.model_copy(update={"minimum_positives": 50, "minimum_negatives": 5, "bootstraps": 200})
    trials = backtest.trials_of(rows, rules, 4, 56, is_about_use=True)
    assert len(trials) == 4
    for trial in trials:
        # an embargo of one horizon
        assert trial.trained_until + np.timedelta64(56, "D") < trial.first_week
    decision = backtest.decide(rows, trials, rules, 56)
    assert decision.method == method, decision.why
    assert (decision.low > 0) == (method == "model")
    assert decision.low <= decision.difference <= decision.high
    figures = backtest.figures(trials)
    assert set(figures["origin"]) == {0, 1, 2, 3, 4}
    tried = pd.DataFrame({"week": rows.week, "outcome": rows.outcome})
    tried = tried[tried["week"] >= trials[0].first_week]
    assert figures.loc[(figures["origin"] == 0) & (figures["contestant"] == "model"), "positives"].item() == (
        tried["outcome"].sum()
    )


def named_rows(named: float, others: float, share: float, accounts: int = 400, weeks: int = 10) -> tuple[Rows, Bools]:
    """Accounts over some weeks; a share of them is named by a rule, and it happens to either at a rate of its own."""
    rng = np.random.default_rng(5)
    rows = made_rows(effect=0, weeks=weeks, accounts=accounts)
    flagged = np.tile(rng.random(accounts) < share, weeks)
    outcome = rng.random(len(rows)) < np.where(flagged, named, others)
    return replace(rows, outcome=outcome), flagged


@pytest.mark.parametrize(
    ("named", "others", "share", "has_signal"),
    [
        (0.10, 0.03, 0.2, True),
        (0.05, 0.05, 0.2, False),  # no better than probability
        (0.06, 0.048, 0.5, False),  # better, and not by enough
        (0.0, 0.0, 0.92, False),  # nearly everybody named, and nothing has ever outcome
        (0.004, 0.0005, 0.2, False),  # a lift of eight, from a handful of events
        (0.05, 0.05, 1.0, False),  # everybody named
    ],
)
def test_a_rule_has_a_signal_where_those_it_names_fare_clearly_worse(
    named: float, others: float, share: float, has_signal: bool
) -> None:
    rows, flagged = named_rows(named, others, share)
    found = backtest.rule_lift(rows, flagged, RULES)
    assert found.has_signal == has_signal, found
    if named and share < 1:
        by_hand = rows.outcome[flagged].mean() / rows.outcome[~flagged].mean()
        assert found.lift == pytest.approx(by_hand)
        assert found.low <= found.lift <= found.high


def test_the_same_few_accounts_again_and_again_are_no_signal() -> None:
    """Forty events of two accounts are what happened twice: accounts are drawn, not rows."""
    rows, flagged = named_rows(0.0, 0.02, 0.1)
    mine = rows.account == rows.account[flagged][0]
    found = backtest.rule_lift(replace(rows, outcome=rows.outcome | mine), flagged, RULES)
    assert found.low < 1 and not found.has_signal


def test_too_few_events_are_counted_and_said() -> None:
    rows = made_rows(effect=0.5, weeks=4, accounts=90)
    decision = backtest.decide(rows, [], RULES, 90)
    assert decision.method == "rule"
    assert f"{decision.positives} with the outcome" in decision.why
    assert "200 and 500 are needed" in decision.why


def test_too_short_a_history_is_said() -> None:
    rows = made_rows(effect=0.5, weeks=8, accounts=900)
    rules = RULES.model_copy(update={"minimum_negatives": 5})
    trials = backtest.trials_of(rows, rules, 4, 90, is_about_use=True)
    decision = backtest.decide(rows, trials, rules, 90)
    assert decision.method == "rule" and "too short a history" in decision.why


def test_chances_are_calibrated_though_only_a_sample_is_learned_from() -> None:
    rows = made_rows(effect=0.6, weeks=30, accounts=1000)
    learned, unseen = rows[rows.account % 2 == 0], rows[rows.account % 2 == 1]
    rules = RULES.model_copy(update={"largest_training": 6000})
    for model in learn(learned, rules).values():
        probability = model.probability(unseen.x)
        assert probability.mean() == pytest.approx(unseen.outcome.mean(), rel=0.1)
        deciles = backtest.deciles(probability, unseen.outcome, unseen.account)
        assert ((deciles["low"] <= deciles["said"]) & (deciles["said"] <= deciles["high"])).sum() >= 6


def test_a_model_is_the_same_from_the_same_seed_and_after_it_was_kept(tmp_path) -> None:
    rows = made_rows(effect=0.6, weeks=8)
    first, second = learn(rows, RULES), learn(rows, RULES)
    for kind, model in first.items():
        save_model(model, tmp_path / kind)
        kept = load_model(tmp_path / kind)
        np.testing.assert_array_equal(model.probability(rows.x), second[kind].probability(rows.x))
        np.testing.assert_array_equal(model.probability(rows.x), kept.probability(rows.x))
        assert (kept.kind, kept.slope) == (model.kind, model.slope)


# ---------------------------------------------------------------- why


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return learn(made_rows(effect=0.8), RULES)


@pytest.mark.parametrize("kind", ["logistic", "boosting"])
def test_what_the_themes_add_is_the_whole_difference(models: dict[str, Model], kind: str) -> None:
    rows = made_rows(seed=9, effect=0.8, weeks=1)
    middle = np.tile(np.nanmedian(rows.x, axis=0), (len(rows), 1)).astype(np.float32)
    model = models[kind]
    added = contributions(model.log_odds, rows.x, middle, seed=1)
    whole = model.log_odds(rows.x) - model.log_odds(middle)
    np.testing.assert_allclose(added.sum(axis=1), whole, atol=1e-6)


def test_each_theme_is_exact_for_the_linear_model(models: dict[str, Model]) -> None:
    rows = made_rows(seed=9, effect=0.8, weeks=1)
    x = np.nan_to_num(rows.x)
    model, middle = models["logistic"], np.zeros_like(x)
    scale, line = model.estimator.named_steps["standardscaler"], model.estimator.named_steps["logisticregression"]
    weight = model.slope * line.coef_[0][: len(FEATURES)] / scale.scale_[: len(FEATURES)]
    added = contributions(model.log_odds, x, middle, seed=1)
    names = list(FEATURES)
    for place, theme in enumerate(THEMES):
        of = [names.index(name) for name in theme.features]
        np.testing.assert_allclose(added[:, place], x[:, of] @ weight[of], atol=1e-5)


def one_account(**numbers: float) -> pd.DataFrame:
    """An ordinary application of an ordinary account, but for `numbers`, among forty ordinary peers."""
    usual = dict.fromkeys([*risk_features.NUMBERS, *FEATURES], 0.0) | {
        "has_used": True, "clicks_recent": 30, "clicks_before": 30, "clicks_usual": 30, "users_recent": 5,
        "regular_users": 5, "applications_owned": 4, "applications_used": 4, "breadth_used": 1.0,
        "share_of_weeks_used": 1.0, "subscription_age_days": 900, "days_to_renewal": 200,
    }  # fmt: skip
    frame = pd.DataFrame([usual | numbers, *[usual] * 40])
    return frame.assign(account_id="A1", application="permits", as_of_week=date(2025, 1, 6), has_subscription=True)


@pytest.mark.parametrize("kind", ["logistic", "boosting"])
@pytest.mark.parametrize(
    ("numbers", "theme", "words"),
    [
        (
            {"share_of_users_gone": 2.5, "regular_users_gone": 4},
            "users",
            "4 of 5 regular users did not come in the last 4 weeks",
        ),
        (
            {"change_of_13_weeks": -2.5, "change": -0.9, "clicks_recent": 12, "change_against_peers": -0.9},
            "change",
            "12 clicks a week in the last 4 weeks, 30 clicks in the 8 before, -60 %",
        ),
    ],
)
def test_reasons_point_the_right_way(models: dict[str, Model], kind: str, numbers, theme: str, words: str) -> None:
    frame = one_account(**numbers)
    middle = middle_of_peers(frame)
    model = models[kind]
    added = contributions(model.log_odds, matrix(frame), middle.to_numpy(np.float32), seed=1)
    place = [t.name for t in THEMES].index(theme)
    assert added[0].argmax() == place and added[0, place] > 0.5
    np.testing.assert_allclose(added[1:], 0, atol=1e-5)
    assert reasons(frame, middle, added)["reason_1"][0].startswith(words)
    # the opposite speaks against it
    better = one_account(**{name: -value for name, value in numbers.items() if name in FEATURES})
    added = contributions(model.log_odds, matrix(better), middle.to_numpy(np.float32), seed=1)
    assert added[0].argmin() == place


@given(st.sets(st.sampled_from([*risk_features.NUMBERS[1:], *FEATURES])), st.sampled_from(["row", "peers"]))
@pytest.mark.long
def test_a_number_that_is_not_known_is_not_talked_about(unknown: set[str], of: str) -> None:
    """A source need not deliver users or records, and no account has a history in its first weeks."""
    frame = one_account(weeks_since_use=0, change=-0.5, account_change=-0.5, season_ahead=-0.2)
    rows = frame.assign(**dict.fromkeys(unknown, np.nan)) if of == "row" else frame
    added = np.full((len(frame), len(THEMES)), 1.0)
    middle = middle_of_peers(frame) if of == "row" else middle_of_peers(frame.assign(**dict.fromkeys(unknown, np.nan)))
    for sign in (1, -1):
        said = reasons(rows.head(1), middle.head(1), sign * added[:1]).iloc[0]
        assert not [text for text in said if "nan" in text], said.tolist()


def test_what_speaks_against_must_look_good() -> None:
    """A model may lean on silence in its own way; no page calls it a good sign."""
    frame = one_account(weeks_since_use=6)
    added = np.zeros((len(frame), len(THEMES)))
    added[0, [t.name for t in THEMES].index("silence")] = -2
    assert reasons(frame, middle_of_peers(frame), added)["positive_signal"][0] == ""


@pytest.mark.parametrize(
    ("probability", "words"),
    [(0.26, "about 1 in 4"), (0.66, "about 2 in 3"), (0.97, "almost certain"), (0.001, "less than 1 in 200")],
)
def test_chances_are_said_as_people_say_them(probability: float, words: str) -> None:
    assert probability_text(probability) == words


def test_the_rule_names_a_fall_that_the_peers_did_not_share() -> None:
    frame = one_account(change=np.log(0.6))
    rows = made_rows(effect=0, weeks=1, accounts=len(frame))
    rows = replace(rows, x=matrix(frame), clicks_before=frame["clicks_before"].to_numpy(float))
    flagged = by_rule(rows, RULES, 4, is_about_use=True)
    assert flagged[0] and not flagged[1:].any()
    summer = matrix(frame)
    summer[:, list(FEATURES).index("peers_change")] = np.log(0.6)
    assert not by_rule(replace(rows, x=summer), RULES, 4, is_about_use=True).any()
    silent = matrix(one_account(weeks_since_use=4))
    assert by_rule(replace(rows, x=silent), RULES, 4, is_about_use=False)[0]


# ---------------------------------------------------------------- on the page, and in the history


def test_a_small_fleet_gets_the_rule_and_the_page_says_why(demo: Demo) -> None:
    methods = ask(demo, "FROM mart.risk_methods").set_index("target")
    assert set(methods["method_in_force"]) == {"rule"}
    assert methods["why"].str.contains("too little to learn from").all()
    low = ask(demo, "FROM mart.usage_risks WHERE target = 'low usage'")
    assert len(low) == methods.loc["low usage", "listed"] > 0
    # independently: the last four weeks far below the eight before, and below what the peers did
    by_hand = features(demo.settings, weeks_on_record(demo)[-1])
    fell = (by_hand["clicks_before"] >= 5) & (by_hand["change"] < np.log(0.7) + np.minimum(by_hand["peers_change"], 0))
    named = set(map(tuple, by_hand.loc[fell & by_hand["application"].notna(), KEY].to_numpy()))
    states = ask(
        demo,
        "FROM core.account_application_states WHERE usage_state = 'active' AND subscription_state = 'active subscription'",
    )
    assert set(map(tuple, low[["account_id", "application_key"]].to_numpy())) == named & set(
        map(tuple, states[KEY].to_numpy())
    )
    assert (low["driver"] != "").all()


def test_nothing_that_ended_or_is_about_to_end_is_scored(demo: Demo) -> None:
    scored = ask(
        demo,
        "SELECT states.subscription_state, count(*) AS n FROM core.risk_scores AS scores "
        "JOIN core.account_application_states AS states USING (account_id, application) GROUP BY 1",
    )
    assert scored["subscription_state"].tolist() == ["active subscription"]
    ended = ask(demo, "FROM mart.ended_subscriptions")
    assert len(ended) and not set(map(tuple, ended[["account_id", "application_key"]].to_numpy())) & set(
        map(tuple, ask(demo, "FROM core.risk_scores")[KEY].to_numpy())
    )


def test_scores_are_kept_as_issued_and_meet_what_came(demo: Demo, tmp_path) -> None:
    """A file a week, never written twice; twelve weeks later the page shows what was said beside what happened."""
    settings = demo.settings.model_copy(update={"home": DataHome(tmp_path / "home")})
    shutil.copytree(demo.settings.home.root, settings.home.root)
    newest = weeks_on_record(demo)[-1]
    (file,) = (settings.home.history_dir / "scores").glob("*.parquet")
    assert file.stem == str(newest)
    before = file.read_bytes()
    past = weeks_on_record(demo)[-15]
    with open_history(settings) as history:
        scores = risks.score_week(history, past, risks.folder_of(settings))
    # as it would have been issued then
    scores["as_of_week"] = past
    scores.to_parquet(file.with_name(f"{past}.parquet"))
    with dg.DagsterInstance.ephemeral() as instance:
        only = ["score_snapshots", "predictions_vs_outcomes", "usage_risks"]
        assert run_refresh(settings, instance, only=only).success
    assert file.read_bytes() == before
    copy = replace(demo, settings=settings)
    found = ask(copy, "FROM mart.predictions_vs_outcomes WHERE basis = 'as issued'").set_index("target")
    assert set(found["as_of_week"]) == {pd.Timestamp(past)}
    states = ask(demo, "SELECT * FROM core.usage_states JOIN core.account_applications USING (account_application_id)")
    states = states[
        states["week_start"].between(
            pd.Timestamp(past) + pd.Timedelta(weeks=1), pd.Timestamp(past) + pd.Timedelta(weeks=8)
        )
    ]
    hit = set(map(tuple, states.loc[states["usage_state"].isin(["low", "inactive"]), KEY].to_numpy()))
    full = states.groupby(KEY).size()
    stayed = set(full[full == 8].index)
    said = scores[scores["target"] == "low usage"]
    was_active = ask(
        demo,
        f"SELECT * FROM core.usage_states JOIN core.account_applications USING (account_application_id) WHERE week_start = DATE '{past}'",
    )
    active = set(map(tuple, was_active.loc[was_active["usage_state"] == "active", KEY].to_numpy()))
    judged = {key for key in map(tuple, said[KEY].to_numpy()) if key in stayed and key in active}
    assert found.loc["low usage", "outcomes"] == len(judged & hit)
    listed = set(map(tuple, said.loc[said["is_listed"], KEY].to_numpy())) & judged
    assert found.loc["low usage", "listed_outcomes"] == len(listed & hit)


def test_models_are_learned_once_a_month_and_kept_beside_the_builds(demo: Demo, tmp_path) -> None:
    settings = demo.settings.model_copy(update={"home": DataHome(tmp_path / "home")})
    shutil.copytree(demo.settings.home.root, settings.home.root)
    folder = risks.folder_of(settings)
    assert folder.is_dir() and folder.name.startswith("2026-11-")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert {c["target"] for c in card} == {t.key for t in risks.TARGETS}
    marked = (folder / "card.json").stat().st_mtime_ns
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance, only=["risk_models"]).success
    assert (folder / "card.json").stat().st_mtime_ns == marked
    later = settings.model_copy(update={"as_of": settings.as_of + timedelta(days=14)})
    assert risks.folder_of(later) != folder
    other = settings.model_copy(update={"risk": RULES.model_copy(update={"low_weeks": 6})})
    assert risks.folder_of(other) != folder


def test_the_card_says_what_is_in_force_and_how_well_it_did(demo: Demo, tmp_path) -> None:
    from typer.testing import CliRunner

    from usage_pipeline.cli import app

    config = ["-c", str(demo.folder / "sources.yaml")]
    done = CliRunner().invoke(app, ["model", "card", *config, "--out", str(tmp_path / "model.md")])
    assert done.exit_code == 0, done.output
    card = (tmp_path / "model.md").read_text(encoding="utf-8")
    for word in (
        "## Low usage within 8 weeks",
        "**In force: the rule.**",
        "too little to learn from",
        "subscribed without",
    ):
        assert word in card.replace("Too little", "too little")
    (tmp_path / "sources.yaml").write_text((demo.folder / "sources.yaml").read_text(), encoding="utf-8")
    done = CliRunner().invoke(app, ["model", "card", "-c", str(tmp_path / "sources.yaml")])
    assert done.exit_code == 1 and "no build yet; run `usage-pipeline refresh` first" in done.output.replace("\n", " ")


@pytest.mark.long
def test_a_rule_without_a_signal_fills_no_list_and_the_page_says_so_in_a_line(demo: Demo, tmp_path) -> None:
    """It once named 92 % of all customers, with no event on record."""
    # more events are asked for than there can be
    rules = demo.settings.risk.model_copy(update={"rule_events": 10**6})
    settings = demo.settings.model_copy(update={"home": DataHome(tmp_path / "home"), "risk": rules})
    shutil.copytree(demo.settings.home.root, settings.home.root)
    shutil.rmtree(settings.home.history_dir / "scores")
    only = ["risk_models", "risk_scores", "score_snapshots", "usage_risks", "risk_methods", "kpi_base_periods"]
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance, only=only).success
    copy = replace(demo, settings=settings)
    assert ask(copy, "FROM mart.usage_risks").empty
    scores = ask(copy, "FROM core.risk_scores")
    assert len(scores) == len(ask(demo, "FROM core.risk_scores")) and not scores["is_listed"].any()
    methods = ask(copy, "FROM mart.risk_methods")
    assert (methods["listed"] == 0).all() and not methods["has_signal"].any()
    assert methods["why"].str.startswith("No signal yet, so nothing is listed: ").all()
    assert not ask(copy, "SELECT bool_or(is_risk_known) AS known FROM core.kpi_base_periods")["known"][0]


def test_with_a_model_in_force_every_listed_risk_has_chance_and_reasons(demo: Demo, history: History, tmp_path) -> None:
    """The demo is too small for a model to be used; here one is put in force all the same."""
    target = risks.TARGETS[0]
    settings = demo.settings
    rows = risks.rows_of(history, target)
    learned = risks.learn_target(rows, target, settings.risk, settings.activity.inactive_weeks)
    model = risk_models.best_of(learn(rows, settings.risk))
    in_force = replace(learned, model=model, decision=replace(learned.decision, method="model"))
    others = [
        risks.learn_target(rows[:0], other, settings.risk, settings.activity.inactive_weeks)
        for other in risks.TARGETS[1:]
    ]
    folder = risks.folder_of(settings.model_copy(update={"home": DataHome(tmp_path)}))
    risks.keep([in_force, *others], folder, settings.risk, settings.activity)
    scores = risks.score_week(history, weeks_on_record(demo)[-1], folder)
    low = scores[scores["target"] == "low usage"]
    assert (low["method"] == "model").all() and low["probability"].between(0, 1).all()
    listed = low[low["is_listed"]]
    assert 0 < len(listed) < len(low) / 2
    assert (listed["probability"] >= 2 * low["probability"].mean()).all()
    assert (listed["reason_1"] != "").mean() > 0.9
    assert low.loc[~low["is_listed"], "reason_1"].isna().all()
    assert rows.outcome.mean() == pytest.approx(low["probability"].mean(), abs=0.1)
