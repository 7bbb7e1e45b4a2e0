"""The whole graph on demo lakes: its numbers against pandas on the raw rows, twice the same, failures that hurt nothing."""

import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pytest

from usage_pipeline.anomalies.detector import VERSION
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.tables import TABLES
from usage_pipeline.observability.status import write_status
from usage_pipeline.publishing.builds import store_of
from usage_pipeline_tests.support.demo_home import DEMO_AS_OF, Demo, make_demo
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh, upstream_of


def query(path: Path, sql: str) -> pd.DataFrame:
    connection = duckdb.connect(str(path), read_only=True)
    try:
        return connection.execute(sql).df()
    finally:
        connection.close()


def all_tables(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    connection = duckdb.connect(str(settings.home.warehouse_path), read_only=True)
    try:
        names = connection.execute(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables "
            "WHERE table_name <> 'build' AND table_schema <> 'meta'"
        ).fetchall()
        return {name: sorted(connection.execute(f"FROM {name}").fetchall(), key=repr) for (name,) in names}
    finally:
        connection.close()


def test_weekly_clicks_records_and_users_equal_pandas_on_the_raw_rows(demo: Demo) -> None:
    raw = demo.raw()
    keys = ["week_start", "account_id", "application"]
    expected = raw.groupby(keys, as_index=False).agg(
        clicks=("clicks", "sum"), records_created=("records_created", "sum"), active_users=("user_id", "nunique")
    )
    found = query(
        demo.warehouse,
        "SELECT week_start, account_id, application_key AS application, clicks, records_created, active_users "
        "FROM mart.usage_by_week WHERE clicks > 0",
    )
    merged = expected.merge(found, on=keys, how="outer", suffixes=("_raw", ""), indicator=True)
    assert (merged["_merge"] == "both").all()
    for column in ("clicks", "records_created", "active_users"):
        assert (merged[column] == merged[f"{column}_raw"]).all(), column


def test_the_late_week_end_counts_in_its_own_week(demo: Demo) -> None:
    week = pd.Timestamp(demo.truth["late_week"])
    raw = demo.raw()
    expected = raw[raw["week_start"] == week]["clicks"].sum()
    assert demo.truth["late_rows"] > 0
    sql = f"SELECT sum(clicks) AS n FROM mart.usage_by_week WHERE week_start = '{week}'"
    assert query(demo.warehouse, sql)["n"][0] == expected


def test_users_of_a_period_are_counted_once_and_equal_pandas(demo: Demo) -> None:
    raw = demo.raw()
    newest = pd.Timestamp("2026-11-09")
    recent = raw[(raw["week_start"] <= newest) & (raw["week_start"] > newest - pd.Timedelta(days=28))]
    expected = recent.groupby("account_id")["user_id"].nunique()
    found = query(
        demo.warehouse,
        "SELECT account_id, max(account_active_users) AS users FROM mart.usage_by_period "
        "WHERE period = 'Last 4 weeks' GROUP BY 1",
    ).set_index("account_id")["users"]
    assert (found == expected.reindex(found.index).fillna(0)).all()
    total = query(
        demo.warehouse,
        "SELECT count(DISTINCT user_key) AS n FROM mart.user_weeks "
        "WHERE week_start > '2026-10-12' AND week_start <= '2026-11-09'",
    )
    assert total["n"][0] == len(recent[["account_id", "user_id"]].drop_duplicates())


def test_last_year_is_the_same_iso_week(demo: Demo) -> None:
    raw = demo.raw()
    iso = raw["week_start"].dt.isocalendar()
    by_week = raw.groupby([iso["year"], iso["week"]])["clicks"].sum()
    found = query(
        demo.warehouse,
        "SELECT isoyear(week_start) AS year, weekofyear(week_start) AS week, sum(clicks_last_year) AS n "
        "FROM mart.usage_by_week GROUP BY 1, 2 HAVING n IS NOT NULL",
    )
    assert len(found) >= 52
    for row in found.itertuples():
        assert row.n == by_week[row.year - 1, min(row.week, 52)]


def test_what_was_planted_is_found(demo: Demo) -> None:
    states = query(demo.warehouse, "SELECT * FROM mart.subscription_overview").set_index(
        ["account_id", "application_key"]
    )
    planted = pd.DataFrame(demo.truth["events"])

    def states_of(kind: str) -> "pd.Series[str]":
        # without a subscription and without use nothing is known of an account x application
        rows = planted[(planted["kind"] == kind) & ~planted["account_id"].isin(demo.truth["without_subscription"])]
        return states.loc[list(zip(rows["account_id"], rows["application"], strict=True))]["usage_state"]

    assert set(states_of("never_used")) == {"never adopted"}
    assert set(states_of("silent")) <= {"inactive", "never adopted"}
    ended = states[states["subscription_state"] == "ended"]
    assert len(ended) > 0
    assert ended["usage_state"].isna().all()
    accounts = query(demo.warehouse, "SELECT account_id, subscription_state FROM mart.accounts_summary").set_index(
        "account_id"
    )
    assert set(accounts.loc[demo.truth["ended_accounts"]]["subscription_state"]) <= {"ended"}
    # a return within an account that had gone before is no subscription, and has no row
    returned = states.index.intersection([tuple(account_application) for account_application in demo.truth["returned"]])
    if len(returned):
        assert states.loc[returned]["has_returned"].any()


def planted(demo: Demo, kind: str) -> list[dict[str, Any]]:
    """Events of accounts that are large enough, after the first weeks of the window."""
    since = demo.settings.clock.window_start + timedelta(weeks=12)
    events = [e for e in demo.truth["events"] if e["kind"] == kind and e["weekly_mean"] >= 20]
    return [e for e in events if date.fromisoformat(e["first_week"]) >= since]


def anomalous_account_applications(demo: Demo, direction: str) -> set[tuple[str, str, str]]:
    anomalies = query(
        demo.settings.home.warehouse_path,
        "SELECT account_id, application, CAST(week_start AS VARCHAR) AS week FROM core.anomalies "
        f"WHERE scope = 'account' AND measure = 'clicks' AND z {direction} 0",
    )
    return set(anomalies.itertuples(index=False, name=None))


def weeks_of_event(e: dict[str, Any]) -> list[str]:
    first, last = date.fromisoformat(e["first_week"]), date.fromisoformat(e["last_week"])
    return [(first + timedelta(weeks=n)).isoformat() for n in range((last - first).days // 7 + 1)]


def test_strong_planted_spikes_and_drops_are_flagged(demo: Demo) -> None:
    for kind, direction in (("spike", ">"), ("drop", "<")):
        anomalous, events = anomalous_account_applications(demo, direction), planted(demo, kind)
        found = [
            e for e in events if any((e["account_id"], e["application"], w) in anomalous for w in weeks_of_event(e))
        ]
        assert len(found) >= 0.8 * len(events), kind


def test_moves_of_the_fleet_are_events_of_their_own(demo: Demo) -> None:
    events = query(
        demo.settings.home.warehouse_path,
        "SELECT scope, application, CAST(week_start AS VARCHAR) AS week, kind FROM core.anomalies "
        "WHERE scope != 'account' AND measure = 'clicks'",
    )
    outage = next(m for m in demo.truth["common_moves"] if m["kind"] == "outage")
    assert (("all", outage["week"], "usage drop")) in set(
        zip(events["scope"], events["week"], events["kind"], strict=True)
    )
    in_outage = query(
        demo.settings.home.warehouse_path,
        "SELECT count(*) AS anomalous FROM core.anomalies WHERE scope = 'account' AND measure = 'clicks' AND is_new "
        f"AND week_start = DATE '{outage['week']}'",
    )["anomalous"][0]
    judged = query(
        demo.settings.home.warehouse_path,
        f"SELECT count(*) AS n FROM core.expected_usage WHERE week_start = DATE '{outage['week']}'",
    )["n"][0]
    assert in_outage <= 0.04 * judged


def test_every_flag_is_told_in_words(demo: Demo) -> None:
    anomalies = query(demo.warehouse, "SELECT * FROM mart.anomaly_weeks")
    assert len(anomalies) > 0
    assert anomalies["what_happened"].str.contains(", expected ([0-9,]+ to |about )[0-9,]+").all()
    assert set(anomalies["confidence"]) <= {"high", "medium", "explained"}
    assert set(anomalies["anomaly_status"]) <= {"new", "ongoing", "ended"}
    outage = next(m["week"] for m in demo.truth["common_moves"] if m["kind"] == "outage")
    known = anomalies[(anomalies["week_start"] == outage) & (anomalies["scope"] == "all")]
    assert list(known["cause"]) == ["the service was down for two days"]
    assert list(known["confidence"]) == ["explained"]


def test_numbers_of_a_flag_are_those_of_the_raw_rows(demo: Demo) -> None:
    raw = demo.raw()
    weekly = raw.groupby(["account_id", "application", "week_start"])["clicks"].sum()
    anomalies = query(
        demo.settings.home.warehouse_path,
        "SELECT * FROM core.anomalies WHERE scope = 'account' AND measure = 'clicks' AND weeks = 1",
    )
    assert len(anomalies) > 10
    observed = [weekly.get((r.account_id, r.application, r.week_start), 0) for r in anomalies.itertuples()]
    assert list(anomalies["observed"]) == observed


def test_flags_are_kept_as_they_were_issued(demo: Demo) -> None:
    files = sorted((demo.settings.home.history_dir / "anomalies").glob("*.parquet"))
    newest = query(demo.settings.home.warehouse_path, "SELECT max(week_start) AS w FROM core.weeks WHERE is_complete")[
        "w"
    ][0]
    assert [f.stem for f in files] == [str(newest.date())]
    issued = pd.read_parquet(files[0])
    now = query(demo.settings.home.warehouse_path, f"SELECT * FROM core.anomalies WHERE week_start = '{newest}'")
    assert len(issued) == len(now)
    assert set(issued["method"]) <= {VERSION}


def test_ranks_hold_only_pairs_in_subscription_with_use(demo: Demo) -> None:
    ranked = query(
        demo.warehouse,
        "SELECT p.* FROM mart.usage_by_period AS p INNER JOIN mart.subscription_overview AS a "
        "USING (account_id, application_key) WHERE p.rank_in_application IS NOT NULL "
        "AND (a.subscription_state NOT IN ('active subscription', 'notice received') OR p.clicks < 1)",
    )
    assert ranked.empty


@pytest.mark.long
def test_the_lake_is_the_same_for_the_same_seed_and_another_for_another(tmp_path) -> None:
    from usage_pipeline.demo.lake import write_demo_lake

    def content(folder: Path) -> dict[str, bytes]:
        return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}

    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        write_demo_lake(tmp_path / name, DEMO_AS_OF, accounts=12, seed=seed)
    assert content(tmp_path / "one") == content(tmp_path / "again")
    assert content(tmp_path / "one") != content(tmp_path / "two")


def test_a_notice_past_the_newest_week_stops_no_lake(tmp_path) -> None:
    from usage_pipeline.demo.lake import write_demo_lake

    write_demo_lake(tmp_path, DEMO_AS_OF, accounts=60, seed=50)  # a young subscription ends soon
    assert (tmp_path / "truth" / "truth.json").is_file()


@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.soak
def test_other_seeds_go_through_and_keep_every_click(tmp_path, seed: int) -> None:
    demo = make_demo(tmp_path, seed=seed, accounts=30)
    found = query(
        demo.warehouse, "SELECT sum(clicks) AS clicks, sum(records_created) AS records FROM mart.usage_by_week"
    )
    raw = demo.raw()
    assert (found["clicks"][0], found["records"][0]) == (raw["clicks"].sum(), raw["records_created"].sum())
    test_what_was_planted_is_found(demo)
    test_strong_planted_spikes_and_drops_are_flagged(demo)


def small(tmp_path: Path) -> Settings:
    """Twelve weeks of one account, without reference data."""
    week = date(2024, 12, 9)
    for number in range(12):
        monday = week + timedelta(days=7 * number)
        year, iso_week, _ = monday.isocalendar()
        rows = [event(str(monday + timedelta(days=d)), user=f"u{d}", clicks=10 + number) for d in range(3)]
        write_week(tmp_path / "lake", f"year={year}/week={iso_week:02d}", rows)
    return load_settings(write_config(tmp_path))


@pytest.mark.long
def test_one_week_a_range_and_the_same_week_twice_give_the_same_tables(tmp_path, instance) -> None:
    settings = small(tmp_path)
    assert run_refresh(settings, instance).success
    whole = all_tables(settings)
    one = {"dagster/partition": "2025-01-06"}
    part = {"dagster/asset_partition_range_start": "2024-12-30", "dagster/asset_partition_range_end": "2025-01-13"}
    for tags in (one, one, part):
        assert run_refresh(settings, instance, tags).success
        assert all_tables(settings) == whole


@pytest.mark.long
def test_weeks_one_by_one_give_the_same_tables_as_all_at_once(tmp_path, instance) -> None:
    partitioned = ["usage_facts", "weekly_usage"]
    (tmp_path / "a").mkdir()
    at_once = small(tmp_path / "a")
    assert run_refresh(at_once, instance, only=partitioned).success
    (tmp_path / "b").mkdir()
    one_by_one = small(tmp_path / "b")
    for monday in ("2024-12-09", "2024-12-16", "2024-12-30", "2024-12-23"):
        assert run_refresh(one_by_one, instance, {"dagster/partition": monday}, partitioned).success
    weekly = all_tables(one_by_one)["core.weekly_usage"]
    assert weekly == [row for row in all_tables(at_once)["core.weekly_usage"] if row[0] <= date(2024, 12, 30)]


@pytest.mark.long
def test_a_second_refresh_publishes_nothing(tmp_path, instance) -> None:
    settings = small(tmp_path)
    assert run_refresh(settings, instance).success
    assert run_refresh(settings, instance).success
    assert len(store_of(settings.home, settings.publish).builds()) == 1


@pytest.mark.long
def test_without_reference_data_the_pages_say_so(tmp_path, instance) -> None:
    settings = small(tmp_path)
    assert run_refresh(settings, instance).success
    path = settings.home.published_dir / "current" / "warehouse.duckdb"
    assert "subscriptions are unknown for all of them" in query(path, "SELECT sentence FROM mart.build")["sentence"][0]
    account_application = query(path, "SELECT * FROM mart.subscription_overview").iloc[0]
    assert (
        account_application["account"],
        account_application["is_inferred"],
        account_application["subscription_state"],
    ) == ("a", True, "active subscription")
    assert query(path, "SELECT sum(records_created) AS n FROM mart.usage_by_week")["n"].isna().all()


@pytest.mark.long
def test_a_broken_table_blocks_the_publish_and_yesterdays_numbers_stay(tmp_path, instance, monkeypatch) -> None:
    from usage_pipeline.core import tables

    settings = small(tmp_path)
    assert run_refresh(settings, instance).success
    shown = store_of(settings.home, settings.publish).current()
    write_week(tmp_path / "lake", "year=2025/week=09", [event("2025-02-24", clicks=99)])
    # the table loses what its key promises
    broken = tables.Table("usage_by_week", "x", ("account_id",), tables.TABLES["usage_by_week"].columns)
    monkeypatch.setitem(tables.TABLES, "usage_by_week", broken)
    result = run_refresh(settings, instance)
    assert not result.success
    assert store_of(settings.home, settings.publish).current() == shown
    write_status(settings.home, settings.clock, settings.sources, instance)
    runs = query(settings.home.status_path, "SELECT run_result, failure FROM status.runs ORDER BY started_at")
    assert list(runs["run_result"]) == ["succeeded", "failed"]
    assert "usage_by_week_schema" in runs["failure"][1]
    checks = query(settings.home.status_path, "SELECT statement FROM status.checks WHERE check_result = 'failed'")
    assert list(checks["statement"]) == ["usage by week schema"]


@pytest.mark.long
def test_a_collapse_of_rows_is_not_published_and_the_status_says_why(tmp_path, instance) -> None:
    settings = small(tmp_path)
    assert run_refresh(settings, instance).success
    shown = store_of(settings.home, settings.publish).current()
    shutil.rmtree(settings.home.facts_dir)
    settings.home.warehouse_path.unlink()
    for folder in sorted((tmp_path / "lake").glob("year=*/week=*"))[:-2]:
        shutil.rmtree(folder)
    assert not run_refresh(settings, instance).success
    assert store_of(settings.home, settings.publish).current() == shown
    write_status(settings.home, settings.clock, settings.sources, instance)
    error = query(settings.home.status_path, "SELECT failure FROM status.runs WHERE run_result = 'failed'")["failure"][
        0
    ]
    assert "usage_by_week has" in error
    assert "the build before had" in error


def test_an_empty_lake_fails_with_the_remedy(tmp_path, instance) -> None:
    (tmp_path / "lake").mkdir()
    settings = load_settings(write_config(tmp_path))
    assert not run_refresh(settings, instance).success
    write_status(settings.home, settings.clock, settings.sources, instance)
    error = query(settings.home.status_path, "SELECT failure FROM status.runs")["failure"][0]
    assert "no complete week of usage" in error
    assert "sources check" in error


@pytest.mark.long
def test_every_delivery_of_reference_data_stays_in_the_ledger_and_an_equal_one_is_not_repeated(
    tmp_path, instance
) -> None:
    from usage_pipeline.ingestion.deliveries import deliveries

    settings = small(tmp_path)
    source = {"path": "accounts.csv", "format": "csv", "columns": {"account_id": "id", "account_name": "name"}}
    sources = {"usage": settings.sources.usage.model_dump(exclude_none=True, exclude={"files"}), "accounts": source}
    accounts = tmp_path / "accounts.csv"
    settings = load_settings(write_config(tmp_path, sources=sources))
    for content, count in (("id,name,x\na,Old,1\n", 1), ("id,name,x\na,Old,1\n", 1), ("id,name,x\na,New,1\n", 2)):
        accounts.write_text(content)
        assert run_refresh(settings, instance).success
        assert len(deliveries(settings.home.history_dir, "accounts")) == count
    first = pd.read_parquet(deliveries(settings.home.history_dir, "accounts")[0])
    assert list(first.columns) == ["id", "name", "x"], "as delivered, in the source's own columns"
    path = settings.home.published_dir / "current" / "warehouse.duckdb"
    assert query(path, "SELECT account FROM mart.accounts_summary")["account"][0] == "New"


@pytest.mark.long
def test_the_instance_shows_weeks_and_row_counts(tmp_path, instance) -> None:
    settings = small(tmp_path)
    assert run_refresh(settings, instance).success
    assert len(instance.get_materialized_partitions(dg.AssetKey("usage_facts"))) == 31
    event_ = instance.get_latest_materialization_event(dg.AssetKey("weekly_usage"))
    assert event_ is not None
    assert event_.asset_materialization is not None
    assert event_.asset_materialization.metadata["dagster/row_count"].value == 12


@pytest.mark.long
def test_the_sensor_writes_the_status_after_a_failed_run_of_the_ui(tmp_path, instance) -> None:
    from usage_pipeline.definitions import build_definitions

    (tmp_path / "lake").mkdir()
    settings = load_settings(write_config(tmp_path))
    result = run_refresh(settings, instance)
    assert not result.success
    assert not settings.home.status_path.exists()
    (event_,) = [e for e in result.all_events if e.is_run_failure]
    sensor = build_definitions(settings).resolve_sensor_def("status_after_failure")
    context = dg.build_run_status_sensor_context(
        sensor_name="status_after_failure",
        dagster_event=event_,
        dagster_instance=instance,
        dagster_run=result.dagster_run,
    )
    sensor(context)
    assert list(query(settings.home.status_path, "SELECT run_result FROM status.runs")["run_result"]) == ["failed"]


WEEKS_0 = ("2025-02-03", "2025-02-10", "2025-02-17", "2025-02-24", "2025-03-03")


def folder_of_day(day: str) -> str:
    year, week, _ = date.fromisoformat(day).isocalendar()
    return f"year={year}/week={week:02d}"


def published(settings: Settings, sql: str) -> pd.DataFrame:
    return query(settings.home.published_dir / "current" / "warehouse.duckdb", sql)


@pytest.mark.long
def test_rows_of_the_days_before_the_first_folder_are_published_in_a_week_that_does_not_count(
    tmp_path, instance
) -> None:
    """The oldest folder holds a row of the day before: the first refresh never published, and said no remedy."""
    for week in WEEKS_0[:-1]:
        write_week(tmp_path / "lake", folder_of_day(week), [event(week, clicks=5)])
    write_week(tmp_path / "lake", folder_of_day(WEEKS_0[0]), [event("2025-02-02", clicks=7)], "late.parquet")
    settings = load_settings(write_config(tmp_path, lookback_weeks=4))
    assert settings.clock.window_start == date(2025, 2, 3)
    result = run_refresh(settings, instance)
    assert result.success
    weeks = published(
        settings,
        "SELECT CAST(CAST(week_start AS DATE) AS VARCHAR) AS week, sum(clicks) AS clicks, any_value(week_status) AS status, "
        "any_value(is_complete) AS is_complete FROM mart.usage_by_week GROUP BY 1 ORDER BY 1",
    )
    assert weeks.iloc[0].tolist() == ["2025-01-27", 7, "only late rows", False]
    assert weeks.iloc[1].tolist() == ["2025-02-03", 5, "complete", True]
    assert weeks["clicks"].sum() == 27
    assert published(settings, "SELECT min(weeks_subscribed) AS n FROM mart.usage_by_period")["n"][0] == 4
    months = query(settings.home.warehouse_path, "SELECT month_start, is_complete FROM core.months ORDER BY 1")
    assert not months["is_complete"].any(), "February begins in the week of which only late rows are known"
    account_application = published(
        settings, "SELECT usage_state, CAST(last_used_on AS DATE) AS used FROM mart.subscription_overview"
    )
    assert account_application["usage_state"][0] == "new"
    write_status(settings.home, settings.clock, settings.sources, instance)
    row = query(settings.home.status_path, "SELECT * FROM status.reconciled_weeks ORDER BY week_start").iloc[0]
    assert (row["reconciled"], row["clicks_by_date"], row["published_difference"]) == (
        "yes; only late rows, from the folder beside",
        7,
        0,
    )


@pytest.mark.long
def test_a_lake_cut_in_utc_is_published_west_of_it(tmp_path, instance) -> None:
    """The evening of every Sunday in Denver lies in the folder of the week that UTC has begun."""
    for week in WEEKS_0:
        rows = [
            event(week, clicks=5) | {"event_time": pd.Timestamp(f"{week} {at}").to_pydatetime()}
            for at in ("03:00", "18:00")
        ]
        write_week(tmp_path / "lake", folder_of_day(week), rows)
    usage = {
        "path": "lake",
        "partitioned": True,
        "partition_timezone": "UTC",
        "columns": {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")},
    }
    config = write_config(tmp_path, lookback_weeks=4, timezone="America/Denver", sources={"usage": usage})
    settings = load_settings(config)
    assert run_refresh(settings, instance).success
    weeks = published(
        settings,
        "SELECT CAST(CAST(week_start AS DATE) AS VARCHAR) AS week, sum(clicks) AS clicks, any_value(week_status) AS status "
        "FROM mart.usage_by_week GROUP BY 1 ORDER BY 1",
    )
    assert weeks.iloc[0].tolist() == ["2025-01-27", 5, "only late rows"]
    assert weeks.iloc[1].tolist() == ["2025-02-03", 10, "complete"]
    assert weeks.iloc[-1].tolist() == ["2025-03-03", 5, "running"]
    assert weeks["clicks"].sum() == 50


def counted_by_week(settings: Settings) -> dict[str, int]:
    weeks = query(
        settings.home.warehouse_path,
        "SELECT CAST(CAST(week_start AS DATE) AS VARCHAR) AS week, sum(clicks) AS clicks FROM mart.usage_by_week "
        "GROUP BY 1 HAVING sum(clicks) > 0 ORDER BY 1",
    )
    return dict(zip(weeks["week"], weeks["clicks"].astype(int), strict=True))


@pytest.mark.long
def test_what_is_dated_after_as_of_is_counted_from_its_day_on_and_said_until_then(tmp_path, instance) -> None:
    for week in WEEKS_0:
        write_week(tmp_path / "lake", folder_of_day(week), [event(week, clicks=5)])
    ahead = [event("2025-03-06", clicks=100), event("2025-03-07", "b", clicks=1000), event("2025-03-11", clicks=10_000)]
    write_week(tmp_path / "lake", folder_of_day(WEEKS_0[-1]), ahead, "ahead.parquet")
    config = write_config(tmp_path, lookback_weeks=4)
    past = dict.fromkeys(WEEKS_0[:-1], 5)
    on_days: list[tuple[str, dict[str, int], int]] = [
        ("2025-03-07", {"2025-03-03": 1105}, 1),
        # as_of moved back: what was counted waits again
        ("2025-03-05", {"2025-03-03": 5}, 3),
        ("2025-03-06", {"2025-03-03": 105}, 2),
        # the rows of the next week came early, and its own folder has not come by then
        ("2025-03-13", {"2025-03-03": 1105, "2025-03-10": 10_000}, 0),
        ("2025-03-04", {"2025-03-03": 5}, 3),
    ]
    for day, expected, waiting in on_days:
        settings = load_settings(config, as_of=date.fromisoformat(day))
        # the last is the first to be published: a build of an earlier as_of than the one before is not shown
        only = upstream_of(settings, "usage_by_week") if day != "2025-03-04" else None
        result = run_refresh(settings, instance, only=only)
        assert result.success, day
        assert counted_by_week(settings) == past | expected, day
        (said,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "no_row_is_dated_after_as_of"]
        assert (said.passed, said.metadata["rows"].value) == (waiting == 0, waiting), day
        users = query(settings.home.warehouse_path, "SELECT sum(clicks) AS n FROM core.monthly_users")["n"][0]
        assert users == sum((past | expected).values()), day
    known = published(settings, "SELECT account_id FROM mart.accounts_summary")
    assert list(known["account_id"]) == ["a"], "an account whose only row lies ahead is not there yet"


@pytest.mark.long
def test_an_account_is_worth_its_subscriptions_about_applications_and_about_itself_each_once(
    tmp_path, instance
) -> None:
    for week in WEEKS_0:
        write_week(
            tmp_path / "lake", folder_of_day(week), [event(week), event(week, application="roads"), event(week, "b")]
        )
    (tmp_path / "subscriptions.csv").write_text(
        "account_id,application,start_date,end_date,renewal_date,seats,annual_value\n"
        "a,,2024-01-01,,2025-03-20,10,1000\n"  # two about the account run side by side
        "a,,2025-01-01,2025-12-31,,5,500\n"
        "a,,2024-01-01,2024-12-31,,100,10000\n"  # over
        "a,permits,2024-01-01,,,2,20\n"
        "a,permits,2025-02-01,,,3,30\n"  # overlaps: what reaches furthest
        "a,roads,2024-01-01,,,,\n"
        "b,,2024-01-01,,,7,70\n"
        "c,,2024-01-01,,,9,90\n"  # pays, and never came
    )
    usage = {"path": "lake", "partitioned": True, "columns": {c: c for c in event("2025-01-01")}}
    columns = ("account_id", "application", "start_date", "end_date", "renewal_date", "seats", "annual_value")
    subscriptions = {"path": "subscriptions.csv", "format": "csv", "columns": {c: c for c in columns}}
    settings = load_settings(
        write_config(tmp_path, lookback_weeks=4, sources={"usage": usage, "subscriptions": subscriptions})
    )
    assert run_refresh(settings, instance).success
    accounts = published(settings, "SELECT account_id, seats, annual_value FROM mart.accounts_summary ORDER BY 1")
    assert accounts.to_numpy().tolist() == [["a", 18, 1530.0], ["b", 7, 70.0], ["c", 9, 90.0]]
    owned = published(settings, "SELECT account_id, application, seats, annual_value FROM mart.subscription_overview")
    worth = {(r.account_id, r.application): r.annual_value for r in owned.itertuples() if not pd.isna(r.annual_value)}
    assert worth == {("a", "permits"): 30.0}
    history = published(
        settings,
        "SELECT account_id, subscription_state, sum(annual_value) AS value FROM mart.subscription_history "
        "WHERE application_key = 'all' GROUP BY ALL ORDER BY ALL",
    )
    assert history.to_numpy().tolist() == [
        ["a", "active subscription", 1500.0],
        ["a", "ended", 10000.0],
        ["b", "active subscription", 70.0],
        ["c", "active subscription", 90.0],
    ]
    # the renewal is that of the account: of its applications, and of its own subscriptions
    (renewal,) = published(settings, "SELECT * FROM mart.renewals").itertuples()
    assert (renewal.account_id, renewal.renewing) == ("a", "permits, roads, and the account as a whole")
    assert (renewal.arr_renewing, renewal.renewal_priority) == (1030.0, "no reason to call"), (
        "one of the two about the account renews"
    )
    assert published(settings, "SELECT * FROM mart.call_list").empty, "a calm renewal is no call"
    sheet = published(
        settings,
        "SELECT kpi, entity_key, value FROM mart.kpi_report WHERE kpi_period = 'month' AND entity_type IN "
        "('all', 'account', 'application') AND reference_month = '2025-03-01' AND kpi IN ('ARR', 'Seats')",
    )
    values = sheet.pivot(index="entity_key", columns="kpi", values="value").fillna(-1)
    assert values.to_dict("index") == {
        "all": {"ARR": 1690, "Seats": 34},
        "a": {"ARR": 1530, "Seats": 18},
        "b": {"ARR": 70, "Seats": 7},
        "c": {"ARR": 90, "Seats": 9},
        "permits": {"ARR": 30, "Seats": 3},
        # subscribed at no known price
        "roads": {"ARR": -1, "Seats": -1},
    }


def test_values_are_those_that_the_pages_explain(demo: Demo) -> None:
    """A filter of a chart compares with them, so one that is renamed on one side would empty the chart in silence."""
    for table in TABLES.values():
        for column in table.columns:
            if column.words and table.schema == "mart":
                found = query(demo.warehouse, f"SELECT DISTINCT {column.name} AS value FROM {table.full_name}")["value"]
                assert set(found.dropna()) - {""} <= set(column.words), f"{table.name}.{column.name}"
