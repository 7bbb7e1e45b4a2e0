"""Small bars of the last 13 weeks, worked out by hand from the weeks that are subscribed."""

import math

import duckdb
import pytest

from usage_pipeline_tests.support.demo_home import Demo

BARS = "▁▂▃▄▅▆▇█"


@pytest.fixture(scope="module")
def warehouse(demo: Demo) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(demo.settings.home.warehouse_path), read_only=True)


def test_each_bar_is_the_clicks_of_its_week_against_the_most(warehouse: duckdb.DuckDBPyConnection) -> None:
    weeks = [w for (w,) in warehouse.execute("SELECT week_start FROM core.weeks WHERE is_complete").fetchall()]
    recent = sorted(weeks)[-13:]
    clicks: dict[tuple[str, str], dict[object, int]] = {}
    rows = warehouse.execute(
        "SELECT account_id, application, week_start, clicks FROM core.subscription_weeks "
        "INNER JOIN core.account_applications USING (account_application_id)"
    ).fetchall()
    for account, application, week, number in rows:
        for key in (application, "all"):
            of_subject = clicks.setdefault((account, key), {})
            if week in recent and number is not None:
                of_subject[week] = of_subject.get(week, 0) + number
    expected = {}
    for subject, found in clicks.items():
        if not found:
            continue
        most = max(found.values())
        expected[subject] = "".join(
            " " if week not in found else BARS[math.ceil(7 * found[week] / most) if found[week] else 0]
            for week in recent
        )
    shown = warehouse.execute("SELECT account_id, application_key, usage_trend FROM core.usage_trends").fetchall()
    assert {(account, key): trend for account, key, trend in shown} == expected
    assert any(" " in trend for trend in expected.values()) and any("▁" in trend for trend in expected.values())


def test_lists_show_the_trend_of_what_their_row_is_about(warehouse: duckdb.DuckDBPyConnection) -> None:
    trends = {(account, key): trend for account, key, trend in warehouse.execute("FROM core.usage_trends").fetchall()}
    for account, trend in warehouse.execute("SELECT account_id, usage_trend FROM mart.call_list").fetchall():
        assert trend == trends.get((account, "all"))
    overview = "SELECT account_id, application_key, usage_trend FROM mart.subscription_overview"
    for account, key, trend in warehouse.execute(overview).fetchall():
        assert trend == trends.get((account, key))
