"""A vendor's flat CSV files by configuration alone: a join, no partitions, and their known defects found."""

import os
from pathlib import Path

import dagster as dg
import duckdb
import pandas as pd
import pytest

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.ingestion.facts import read_manifests
from usage_pipeline_tests.support.refreshes import run_refresh


@pytest.fixture(scope="module")
def ravenstack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, dg.ExecuteInProcessResult]:
    folder = os.environ.get("USAGE_PIPELINE_REAL_DATA")
    if not folder:
        pytest.skip("USAGE_PIPELINE_REAL_DATA is not set: this data set is not checked")
    if not (Path(folder) / "ravenstack").is_dir():
        pytest.fail(f"USAGE_PIPELINE_REAL_DATA is {folder}, and {folder}/ravenstack is not there")
    os.environ["USAGE_PIPELINE_RAVENSTACK_HOME"] = str(tmp_path_factory.mktemp("ravenstack"))
    settings = load_settings(Path(__file__).parents[2] / "examples" / "ravenstack.yaml")
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_refresh(settings, instance)
    assert result.success
    return settings, result


@pytest.mark.long
def test_every_row_is_accounted_for_and_duplicate_ids_are_dropped(ravenstack) -> None:
    settings, _ = ravenstack
    usage = pd.read_csv(Path(os.environ["USAGE_PIPELINE_REAL_DATA"]) / "ravenstack" / "ravenstack_feature_usage.csv")
    manifests = read_manifests(settings.home.facts_dir).values()
    assert sum(m.rows_read for m in manifests) == len(usage) == 25_000
    assert sum(m.duplicates for m in manifests) == usage["usage_id"].duplicated().sum() == 21
    assert sum(m.rows_kept for m in manifests) == usage["usage_id"].nunique()


@pytest.mark.long
def test_users_are_not_delivered_and_not_zero(ravenstack) -> None:
    settings, _ = ravenstack
    connection = duckdb.connect(str(settings.home.warehouse_path), read_only=True)
    found = connection.execute("SELECT count(active_users), count(*) FROM mart.usage_by_week").fetchone()
    connection.close()
    assert found is not None
    assert found[0] == 0
    assert found[1] > 0


@pytest.mark.long
def test_value_and_seats_of_subscriptions_about_accounts_are_on_the_pages_once_and_of_no_application(
    ravenstack,
) -> None:
    """All of its subscriptions are about whole accounts, several of each side by side; none of their value was published."""
    settings, _ = ravenstack
    rows = pd.read_csv(
        Path(os.environ["USAGE_PIPELINE_REAL_DATA"]) / "ravenstack" / "ravenstack_subscriptions.csv",
        parse_dates=["start_date", "end_date"],
    )
    day = pd.Timestamp(settings.clock.as_of_day)
    in_force = rows[(rows["start_date"] <= day) & (rows["end_date"].isna() | (rows["end_date"] >= day))]
    expected = in_force.groupby("account_id")[["arr_amount", "seats"]].sum()
    assert (expected["arr_amount"].sum(), expected["seats"].sum()) == (121_915_296, 134_758)
    with duckdb.connect(str(settings.home.warehouse_path), read_only=True) as connection:
        accounts = connection.execute("SELECT account_id, annual_value, seats FROM mart.accounts_summary").df()
        sheet = connection.execute(
            "SELECT kpi, entity_type, sum(value) AS value FROM mart.kpi_report WHERE kpi_period = 'month' "
            "AND reference_month = '2025-01-01' AND kpi IN ('ARR', 'Seats') GROUP BY ALL"
        ).df()
        applications = connection.execute("SELECT count(annual_value) FROM mart.subscription_overview").fetchone()
        history = connection.execute(
            "SELECT sum(annual_value), sum(seats) FROM mart.subscription_history "
            "WHERE application_key = 'all' AND subscription_state = 'active subscription'"
        ).fetchone()
    found = accounts.set_index("account_id").reindex(expected.index)
    assert (found["annual_value"] == expected["arr_amount"]).all()
    assert (found["seats"] == expected["seats"]).all()
    assert accounts["annual_value"].sum() == 121_915_296
    values = sheet.pivot(index="entity_type", columns="kpi", values="value")
    for kind in ("all", "account", "segment", "region", "CSM"):
        assert values.loc[kind].to_list() == [121_915_296, 134_758], kind
    assert values.loc[["application", "application type"]].isna().all(axis=None) or not values.loc[
        ["application", "application type"]
    ].any(axis=None)
    assert applications == (0,)
    assert history == (121_915_296, 134_758)


@pytest.mark.long
def test_that_most_use_lies_outside_every_subscription_is_said(ravenstack) -> None:
    _, result = ravenstack
    (told,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "little_use_outside_subscriptions"]
    assert not told.passed
    assert told.metadata["share_outside_subscriptions"].value == pytest.approx(0.569, abs=0.0005)
    assert "56.9% of the usage rows lie on days outside every subscription of their account" in str(told.description)


@pytest.mark.long
def test_what_does_not_follow_from_usage_gets_the_rule_and_says_so(ravenstack) -> None:
    """Synthetic, its ends independent of usage: no model of an end may be used."""
    settings, _ = ravenstack
    with duckdb.connect(str(settings.home.warehouse_path), read_only=True) as connection:
        methods = connection.execute("SELECT target, method_in_force, why FROM mart.risk_methods").fetchall()
    for target, method, why in methods:
        print(f"{target}: {method}; {why}")
    ends = {target: (method, why) for target, method, why in methods if target != "low usage"}
    assert set(ends) == {"churn", "account churn"}
    for method, why in ends.values():
        assert method == "rule"
        assert "A rule, no model" in why
        assert "Why: " in why
