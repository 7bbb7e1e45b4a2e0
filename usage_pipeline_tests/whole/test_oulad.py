"""Real data in somebody else's shape, by configuration alone; every figure against pandas on the files themselves."""

import os
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from usage_pipeline.config.settings import Settings
from usage_pipeline.config.source_schemas import SUBSCRIPTIONS
from usage_pipeline.ingestion.source_check import check_sources
from usage_pipeline.pages.dashboards import load_assets, missing_columns
from usage_pipeline.predictions import backtest, risks
from usage_pipeline.predictions.point_in_time import open_history
from usage_pipeline.predictions.risk_models import best_of, learn
from usage_pipeline_tests.support.kpi_oracle import World
from usage_pipeline_tests.support.kpi_worlds import differences, risks_of
from usage_pipeline_tests.support.selections import check_selections, expected_of
from usage_pipeline_tests.support.servers import serve_superset
from usage_pipeline_tests.support.superset_client import Client

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def raw(oulad: Settings) -> pd.DataFrame:
    folder = Path(os.environ["USAGE_PIPELINE_REAL_DATA"]) / "oulad" / "clicks"
    frames = [pd.read_parquet(file) for file in sorted(folder.rglob("*.parquet"))]
    rows = pd.concat(frames, ignore_index=True)
    rows["day"] = pd.to_datetime(rows["day"])
    return rows


@pytest.fixture(scope="module")
def registrations(oulad: Settings) -> pd.DataFrame:
    file = Path(os.environ["USAGE_PIPELINE_REAL_DATA"]) / "oulad" / "registrations.csv"
    rows = pd.read_csv(file, parse_dates=["withdrew_on", "presentation_end"])
    is_2013 = rows["enrolment"].str.contains("-2013J-")
    rows["start"] = is_2013.map({True: pd.Timestamp("2013-10-07"), False: pd.Timestamp("2014-10-06")})
    rows["end"] = rows["withdrew_on"].fillna(rows["presentation_end"])
    return rows.set_index("enrolment")


def ask(settings: Settings, sql: str) -> pd.DataFrame:
    connection = duckdb.connect(str(settings.home.warehouse_path), read_only=True)
    try:
        return connection.execute(sql).df()
    finally:
        connection.close()


def test_the_sources_are_found_sound(oulad: Settings) -> None:
    report = check_sources(oulad)
    assert report.problems == []
    assert any("84 week folders, 2013-09-23 to 2015-06-29" in line for line in report.lines)


def test_clicks_users_and_weeks_equal_pandas(oulad: Settings, raw: pd.DataFrame) -> None:
    found = ask(oulad, "SELECT sum(clicks) AS clicks, count(DISTINCT week_start) AS weeks FROM core.weekly_usage").iloc[
        0
    ]
    assert found["clicks"] == raw["sum_click"].sum()
    mondays = raw["day"] - pd.to_timedelta(raw["day"].dt.weekday, "D")
    assert found["weeks"] == mondays.nunique()
    users = ask(oulad, "SELECT count(DISTINCT (account_id, user_id)) AS n FROM core.weekly_users")["n"][0]
    assert users == len(raw[["enrolment", "id_student"]].drop_duplicates())
    students = ask(oulad, "SELECT count(DISTINCT user_id) AS n FROM core.weekly_users")["n"][0]
    assert students == raw["id_student"].nunique()
    pages = ask(oulad, "SELECT sum(clicks) AS clicks FROM mart.usage_by_week")
    assert pages["clicks"][0] == raw["sum_click"].sum()


def test_every_pair_and_week_equals_pandas(oulad: Settings, raw: pd.DataFrame) -> None:
    mondays = (raw["day"] - pd.to_timedelta(raw["day"].dt.weekday, "D")).rename("week_start")
    expected = raw.groupby(["enrolment", "activity_type", mondays])["sum_click"].sum()
    found = ask(oulad, "SELECT account_id, application, week_start, clicks FROM core.weekly_usage")
    found["week_start"] = pd.to_datetime(found["week_start"])
    found = found.set_index(["account_id", "application", "week_start"])["clicks"].sort_index()
    assert len(found) == len(expected)
    assert (found.to_numpy() == expected.sort_index().to_numpy()).all()


def test_withdrawals_are_cancelled_and_the_others_completed(oulad: Settings, registrations: pd.DataFrame) -> None:
    accounts = ask(oulad, "SELECT * FROM mart.accounts_summary").set_index("account_id")
    withdrawn = registrations["withdrew_on"].notna()
    assert withdrawn.sum() == 126
    assert set(accounts.loc[registrations.index[withdrawn]]["end_reason"]) == {"cancelled"}
    others = accounts.loc[registrations.index[~withdrawn]]
    assert len(others) == 622
    assert set(others["end_reason"]) == {"completed"}
    assert set(others["subscription_state"]) == {"ended"}


def test_those_that_ended_before_the_start_never_started(oulad: Settings, registrations: pd.DataFrame) -> None:
    accounts = ask(oulad, "SELECT account_id, subscription_state FROM mart.accounts_summary").set_index("account_id")
    before = registrations["end"] < registrations["start"]
    assert before.sum() == 20
    never = accounts[accounts["subscription_state"] == "never started"]
    assert set(never.index) == set(registrations.index[before])
    assert set(accounts.drop(never.index)["subscription_state"]) == {"ended"}


def test_from_the_week_of_its_end_on_no_pair_is_low_or_inactive(oulad: Settings, registrations: pd.DataFrame) -> None:
    states = ask(
        oulad,
        "SELECT account_id, week_start, usage_state FROM core.usage_states JOIN core.account_applications USING (account_application_id)",
    )
    assert len(states) > 100_000
    end = registrations["end"].loc[states["account_id"]].to_numpy()
    assert (pd.to_datetime(states["week_start"]).to_numpy() + pd.Timedelta(days=6) <= end).all()
    pages = ask(oulad, "SELECT count(*) AS n FROM mart.subscription_overview WHERE usage_state IS NOT NULL")
    assert pages["n"][0] == 0


def test_clicks_after_a_withdrawal_are_counted_and_make_nobody_active(
    oulad: Settings, raw: pd.DataFrame, registrations: pd.DataFrame
) -> None:
    withdrew = registrations["withdrew_on"].dropna()
    after = raw[raw["enrolment"].isin(withdrew.index)]
    after = after[after["day"].to_numpy() > withdrew.loc[after["enrolment"]].to_numpy()]
    assert after["enrolment"].nunique() == 14
    outside = ask(oulad, "SELECT account_id FROM mart.subscription_overview WHERE usage_state IS NOT NULL")
    assert outside.empty


def test_silence_before_a_withdrawal_is_told_in_days(
    oulad: Settings, raw: pd.DataFrame, registrations: pd.DataFrame
) -> None:
    accounts = ask(oulad, "SELECT * FROM mart.accounts_summary").set_index("account_id")
    withdrew = registrations["withdrew_on"].dropna()
    before = raw[raw["enrolment"].isin(withdrew.index)]
    before = before[before["day"].to_numpy() <= withdrew.loc[before["enrolment"]].to_numpy()]
    silent = (withdrew - before.groupby("enrolment")["day"].max()).dt.days
    found = accounts.loc[withdrew.index]["days_silent_before_end"]
    assert (found.fillna(-1).to_numpy() == silent.reindex(withdrew.index).fillna(-1).to_numpy()).all()
    assert (found > 28).sum() == 9
    never = ~withdrew.index.isin(raw["enrolment"])
    assert never.sum() == 13
    assert set(accounts.loc[withdrew.index[never]]["use_before_end"]) == {"never adopted while subscribed"}
    assert accounts.loc[withdrew.index]["use_before_end"].str.contains("clicks after it").sum() == 14


def test_what_is_not_delivered_is_empty_and_not_zero(oulad: Settings) -> None:
    found = ask(oulad, "SELECT count(records_created) AS records, count(DISTINCT owner) AS owners, min(owner) AS owner "
                       "FROM mart.usage_by_week")  # fmt: skip
    assert found["records"][0] == 0
    assert found["owner"][0] == "no CSM"


def test_every_dashboard_finds_its_columns_in_the_build(oulad: Settings) -> None:
    assets, _ = load_assets()
    build = oulad.home.published_dir / "current"
    for dashboard in assets.dashboards.values():
        assert missing_columns(dashboard, assets, build, oulad.home.status_path, oulad.home.outcomes_path) == []


def test_withdrawal_within_28_days_learned_in_one_year_and_tried_in_the_next(oulad: Settings) -> None:
    """Trained on presentation 2013J, tested on 2014J, against weeks since the last use: reported, whatever it is.

    A quick reference, trained on another module, reached AUC 0.60 to 0.62; recency alone 0.60; about 2 % positives.
    """
    rules = oulad.risk.model_copy(update={"churn_days": 28, "every_weeks": 1, "history_weeks": 1})
    settings = oulad.model_copy(update={"risk": rules})
    target = next(t for t in risks.TARGETS if t.of_accounts)
    with open_history(settings) as history:
        risks.with_features(history, risks.weeks_of_as_of(history))
        rows = risks.rows_of(history, target)
    summer = np.datetime64("2014-08-01")
    train, test = rows[rows.week < summer], rows[rows.week > summer]
    # nobody of the first presentation is in the second
    assert not set(train.account) & set(test.account)
    models = learn(train, rules)
    model = best_of(models)
    recency = float(roc_auc_score(test.outcome, test.feature("weeks_since_use")))
    found = {kind: float(roc_auc_score(test.outcome, m.log_odds(test.x))) for kind, m in models.items()}
    chance = model.probability(test.x)
    precision = [
        float(backtest.average_precision(score, test.outcome, np.ones((1, len(test))))[0])
        for score in (chance, test.feature("weeks_since_use"))
    ]
    print(
        f"2013J to 2014J: {len(test):,} rows, {test.outcome.mean():.2%} withdraw within 28 days; AUC {found}, "
        f"chosen {model.kind}, recency {recency:.3f}; average precision {precision[0]:.3f}, recency {precision[1]:.3f}; "
        f"said {chance.mean():.2%}"
    )
    assert 0.01 < test.outcome.mean() < 0.04
    assert recency == pytest.approx(0.60, abs=0.06)
    assert 0.55 < found[model.kind] < 0.75
    assert chance.mean() == pytest.approx(test.outcome.mean(), rel=0.5)


def test_which_method_is_in_force_is_said_with_its_counts(oulad: Settings) -> None:
    methods = ask(oulad, "FROM mart.risk_methods").set_index("target")
    print(methods[["method_in_force", "why"]].to_dict())
    assert (methods["method_in_force"] == "rule").all()
    # 106 withdrew after the start, some of them before there was anything to learn from
    assert 60 < methods.loc["account churn", "positives"] <= 106
    assert (
        "86 with the outcome and 622 without are on record, 200 and 500 are needed"
        in (methods.loc["account churn", "why"])
    )


NOT_DELIVERED = {"Records created", "ARR", "Seats", "Seat utilization a month"}


def world_of_oulad(oulad: Settings, raw: pd.DataFrame, registrations: pd.DataFrame) -> World:
    folder = Path(os.environ["USAGE_PIPELINE_REAL_DATA"]) / "oulad"
    names = {"enrolment": "account_id", "activity_type": "application", "id_student": "user_id", "sum_click": "clicks"}
    rows = raw.rename(columns=names).assign(day=raw["day"].dt.date, records_created=0)
    enrolments = pd.read_csv(folder / "enrolments.csv").rename(columns={"enrolment": "account_id"})
    subscriptions = [
        dict.fromkeys(SUBSCRIPTIONS.names)
        | {"account_id": account, "start_date": row.start.date(), "end_date": row.end.date()}
        | {"end_reason": "completed" if pd.isna(row.withdrew_on) else "cancelled"}
        for account, row in registrations.iterrows()
    ]
    first = oulad.clock.history_start
    mondays = [first + timedelta(weeks=n) for n in range((oulad.clock.as_of_day - first).days // 7 + 1)]
    counts = rows.groupby([day - timedelta(day.weekday()) for day in rows["day"]]).size().reindex(mondays)
    rules, before = oulad.completeness, counts.shift(1).rolling(8, min_periods=1).median()
    collapsed = (before >= rules.collapse_floor_rows) & (counts < rules.collapse_share * before)
    is_whole = counts.notna() & ~collapsed
    return World(
        rows=rows[["account_id", "application", "user_id", "day", "clicks", "records_created"]],
        subscriptions=subscriptions,
        accounts=enrolments.assign(
            account=enrolments["account_id"], segment=enrolments["presentation"], owner="no CSM"
        ).fillna({"region": "not delivered"}),
        applications=pd.DataFrame(
            {"application": sorted(set(rows["application"])), "application_type": "not delivered"}
        ),
        weeks={week: bool(is_whole[week]) and week + timedelta(8) <= oulad.clock.as_of_day for week in mondays},
        as_of=oulad.clock.as_of_day,
        rules=oulad.activity,
        risks=risks_of(oulad),
    )


def test_the_kpi_sheet_is_that_of_the_raw_files(
    oulad: Settings, raw: pd.DataFrame, registrations: pd.DataFrame
) -> None:
    """Every KPI, entity and period; what is not delivered is empty in all of them."""
    sheet = ask(oulad, "FROM mart.kpi_report")
    assert sheet.loc[sheet["kpi"].isin(NOT_DELIVERED), "value"].isna().all()
    assert len(sheet) > 100_000
    assert differences(sheet, world_of_oulad(oulad, raw, registrations), without=NOT_DELIVERED) == []


@pytest.mark.soak
def test_page_csv_xlsx_and_workbook_are_those_of_the_raw_files(
    oulad: Settings, raw: pd.DataFrame, registrations: pd.DataFrame, tmp_path: Path
) -> None:
    expected = expected_of(oulad, world_of_oulad(oulad, raw, registrations), NOT_DELIVERED)
    with serve_superset(oulad, tmp_path) as server:
        assert check_selections(Client(server, "viewer"), oulad, expected, tmp_path) > 2000
