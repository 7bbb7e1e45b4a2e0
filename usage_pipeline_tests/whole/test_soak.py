"""Heavy proofs, run by `make soak`: a large fleet, and an ingest killed at any moment."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from usage_pipeline.config.settings import load_settings
from usage_pipeline.ingestion.facts import facts_path, read_manifests
from usage_pipeline.predictions import risks
from usage_pipeline.predictions.point_in_time import open_history
from usage_pipeline.predictions.risk_features import features_at, matrix
from usage_pipeline.predictions.risk_models import best_of, learn
from usage_pipeline_tests.support.demo_home import make_demo
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.whole import test_pipeline as proofs

pytestmark = pytest.mark.soak


def test_a_fleet_of_1500_accounts_keeps_every_click_and_what_was_planted_is_found(tmp_path) -> None:
    demo = make_demo(tmp_path, seed=21, accounts=1500)
    proofs.test_weekly_clicks_records_and_users_equal_pandas_on_the_raw_rows(demo)
    proofs.test_what_was_planted_is_found(demo)
    proofs.test_strong_planted_spikes_and_drops_are_flagged(demo)
    proofs.test_ranks_hold_only_pairs_in_subscription_with_use(demo)


def test_what_was_planted_in_demo_lakes_is_flagged(tmp_path) -> None:
    """Of three lakes together: in one there are some 16 spikes, of which three more or less decide."""
    found: Counter[tuple[str, int]] = Counter()
    there: Counter[tuple[str, int]] = Counter()
    for seed in (31, 32, 33):
        demo = make_demo(tmp_path / str(seed), seed=seed, accounts=300, only=["anomalies"])
        proofs.test_moves_of_the_fleet_are_events_of_their_own(demo)
        for kind, direction in (("spike", ">"), ("drop", "<"), ("decline", "<"), ("silent", "<")):
            flagged = proofs.anomalous_account_applications(demo, direction)
            since = demo.settings.clock.window_start + timedelta(weeks=12)
            for e in demo.truth["events"]:
                if e["kind"] == kind and e["weekly_mean"] >= 5 and date.fromisoformat(e["first_week"]) >= since:
                    size = 20 if e["weekly_mean"] >= 20 else 5
                    there[kind, size] += 1
                    weeks = proofs.weeks_of_event(e)
                    found[kind, size] += any((e["account_id"], e["application"], week) in flagged for week in weeks)
    for kind, size in sorted(there):
        print(f"{kind}, from {size} clicks a week: {found[kind, size]} of {there[kind, size]} found")
    for kind in ("spike", "drop"):
        assert found[kind, 20] >= 0.8 * there[kind, 20], kind


def test_risks_of_3000_accounts(tmp_path) -> None:
    """What usage tells of is learned, chances hold, and what was planted is ranked above chance."""
    demo = make_demo(tmp_path, seed=7, accounts=3000)
    with duckdb.connect(str(demo.settings.home.warehouse_path), read_only=True) as connection:
        methods = connection.execute("FROM mart.risk_methods").df().set_index("target")
        deciles = connection.execute("FROM mart.calibration_deciles").df()
        figures = connection.execute(
            "SELECT target, backtest, contestant, average_precision, precision_at_20, top_decile_lift, auc, "
            "calibration_error FROM mart.risk_backtest ORDER BY ALL"
        ).df()
    print(methods[["method_in_force", "why"]].to_dict("index"))
    print(figures.to_string())
    assert methods.loc[["low usage", "churn"], "method_in_force"].str.startswith("model").all()
    later = deciles[(deciles["backtest_number"] >= 3) & deciles["target"].isin(["low usage", "churn"])]
    held = (later["share_low"] <= later["mean_probability"]) & (later["mean_probability"] <= later["share_high"])
    print(held.groupby([later["target"], later["backtest_number"]]).sum())
    error = (
        (later["mean_probability"] - later["observed_share"]).abs().groupby([later["target"], later["backtest_number"]])
    )
    assert (error.mean() < 0.03).all()

    # slow declines that go on to this day, seen eight weeks ago by what was learned before
    rules = demo.settings.risk
    target = risks.TARGETS[0]
    with open_history(demo.settings) as history:
        newest = history.connection.execute("SELECT max(week_start) FROM warehouse.core.weeks WHERE is_complete")
        then = newest.fetchone()[0] - timedelta(weeks=8)
        risks.with_features(history, risks.weeks_of_as_of(history))
        rows = risks.rows_of(history, target)
        known = rows[rows.week + np.timedelta64(target.horizon_days(rules), "D") < np.datetime64(then)]
        model = best_of(learn(known, rules))
        seen = (
            history.connection.register("f", features_at(history, then))
            .execute(
                "SELECT f.* FROM f INNER JOIN warehouse.core.account_applications USING (account_id, application) "
                "INNER JOIN warehouse.core.usage_states AS s USING (account_application_id) "
                "WHERE s.week_start = f.as_of_week AND s.usage_state = 'active'"
            )
            .df()
        )
    planted = {(e["account_id"], e["application"]) for e in demo.truth["events"] if e["kind"] == "decline"}
    is_planted = np.array([key in planted for key in zip(seen["account_id"], seen["application"], strict=True)])
    probability = model.probability(matrix(seen))
    auc = roc_auc_score(is_planted, probability)
    top = np.argsort(-probability)[: len(probability) // 10]
    print(
        f"planted slow declines as of {then}: {is_planted.sum()} among {len(seen):,} active; AUC {auc:.3f}; "
        f"{is_planted[top].sum()} in the top decile"
    )
    # a decline of half a year is not yet low use eight weeks before: above chance is what can be asked
    assert auc > 0.58
    assert is_planted[top].sum() > 1.5 * is_planted.mean() * len(top)


def test_a_fleet_whose_usage_tells_nothing_of_its_ends_gets_the_rule(tmp_path) -> None:
    demo = make_demo(tmp_path, seed=11, accounts=3000, with_signs=False)
    with duckdb.connect(str(demo.settings.home.warehouse_path), read_only=True) as connection:
        methods = dict(
            connection.execute("SELECT target, method_in_force || ': ' || why FROM mart.risk_methods").fetchall()
        )
    print(methods)
    assert methods["churn"].startswith("rule") and "not reliably better" in methods["churn"]
    assert methods["account churn"].startswith("rule")


_INGEST = """
import sys
from usage_pipeline.config.settings import load_settings
from usage_pipeline.predictions import risks
from usage_pipeline.predictions.point_in_time import open_history
from usage_pipeline.ingestion.facts import ingest_weeks
from usage_pipeline.core.weeks import weeks_between
settings = load_settings(sys.argv[1])
ingest_weeks(settings, weeks_between(settings.clock.window_start, settings.clock.running_week), now="now")
"""


def test_killed_at_any_moment_each_week_is_the_old_or_the_new_one(tmp_path) -> None:
    weeks = [date.fromisocalendar(2025, number, 1) for number in range(2, 10)]
    settings = load_settings(write_config(tmp_path))

    def write_lake(clicks: int) -> None:
        for week in weeks:
            rows = [event(str(week), account=f"a{n:04d}", clicks=clicks) for n in range(3000)]
            write_week(tmp_path / "lake", f"year=2025/week={week.isocalendar().week:02d}", rows)

    def ingest(kill_at: date | None = None, then: float = 0) -> None:
        """Runs an ingest; with `kill_at`, kills it so many seconds after that week was replaced."""
        command = [sys.executable, "-W", "ignore", "-c", _INGEST, str(tmp_path / "sources.yaml")]
        process = subprocess.Popen(command)
        if kill_at is not None:
            file = facts_path(settings.home.facts_dir, kill_at)
            old = file.stat().st_ino
            while file.stat().st_ino == old and process.poll() is None:
                pass
            time.sleep(then)
            process.send_signal(signal.SIGKILL)
        process.wait()

    def found(week: date) -> int:
        file = facts_path(settings.home.facts_dir, week)
        clicks = sum(pq.read_table(file, columns=["clicks"]).column("clicks").to_pylist())
        assert read_manifests(settings.home.facts_dir)[week].clicks == clicks, "facts and manifest agree"
        return clicks

    write_lake(1)
    ingest()
    dice, mixed = random.Random(5), 0
    for round_ in range(2, 14):
        write_lake(round_)
        before = {week: found(week) for week in weeks}
        ingest(dice.choice(weeks), dice.uniform(0, 0.02))
        after = {week: found(week) for week in weeks}
        assert all(after[week] in (before[week], 3000 * round_) for week in weeks)
        mixed += len(set(after.values())) > 1
        ingest()  # the next run needs no help
        assert {found(week) for week in weeks} == {3000 * round_}
    print(f"12 kills, {mixed} of them between two weeks of a run")
    assert mixed > 2, "the kills fell into the work"
    leftovers = [f for f in Path(settings.home.facts_dir).rglob(".*") if f.is_file()]
    print(f"{len(leftovers)} unfinished files left behind, read by nobody")
