"""Weeks go by in a demo lake: late, broken and changed deliveries, followed through checks, status and pages."""

from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pandas as pd
import pytest

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.demo.lake import add_week, write_demo_lake
from usage_pipeline.ingestion.facts import outdated_weeks, read_manifests
from usage_pipeline.observability.status import write_status
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh

pytestmark = pytest.mark.long

AS_OF = date(2026, 11, 22)


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, list[str], dg.ExecuteInProcessResult, dict]:
    """A demo lake that ran once, then a week went by with everything that can happen, and it ran again."""
    folder = tmp_path_factory.mktemp("weeks")
    write_demo_lake(folder, AS_OF, accounts=20, seed=3)
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(load_settings(folder / "sources.yaml"), instance).success
        done = add_week(folder, late=True, broken=True, changed=True)
        settings = load_settings(folder / "sources.yaml")
        outdated = outdated_weeks(settings)
        result = run_refresh(settings, instance)
        write_status(settings.home, settings.clock, settings.sources, instance)
    assert result.success
    return settings, done, result, outdated


def test_as_of_moves_on_and_exactly_what_came_is_asked_for(story) -> None:
    settings, done, _, outdated = story
    assert settings.clock.as_of_day == AS_OF + timedelta(days=7)
    assert len(done) == 4
    assert outdated == {
        date(2026, 10, 19): "changed",
        date(2026, 11, 16): "changed",
        date(2026, 11, 23): "new",
    }


def test_the_cut_off_file_makes_its_week_incomplete_wherever_it_is_shown(story) -> None:
    settings, _, result, _ = story
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    aside = checks["no_quarantined_file"]
    assert not aside.passed
    assert aside.severity == dg.AssetCheckSeverity.WARN
    (told,) = aside.metadata["files"].value
    assert told["key"].endswith("year=2026/week=47/part-1.parquet")
    assert not checks["the_newest_week_has_arrived"].passed
    assert checks["the_newest_week_has_arrived"].metadata["weeks_behind"].value == "1"
    build = settings.home.published_dir / "current" / "warehouse.duckdb"
    ((sentence,),) = rows(build, "SELECT sentence FROM mart.build")
    assert "Left out of ranks, trends and anomalies: the week of Nov 16, 2026 (files quarantined)" in str(sentence)
    ((week, file, why),) = rows(settings.home.status_path, "FROM status.quarantined_files")
    assert (week, file) == (datetime(2026, 11, 16), "year=2026/week=47/part-1.parquet")
    assert "cannot be read" in str(why)


def test_every_click_of_every_week_is_the_same_in_lake_facts_and_pages(story) -> None:
    settings, _, result, _ = story
    lake = Path(str(settings.sources.usage.path))
    for week, manifest in read_manifests(settings.home.facts_dir).items():
        iso = week.isocalendar()
        files = sorted((lake / f"year={iso.year}" / f"week={iso.week:02d}").glob("*.parquet"))
        sound = [file for file in files if file.name != "part-1.parquet"]
        raw = pd.concat([pd.read_parquet(file) for file in sound])
        assert (manifest.rows_in_files, manifest.clicks_in_files) == (len(raw), raw["clicks"].sum())
        assert manifest.lost is None
    reconciled = "FROM status.reconciled_weeks"
    sums = "SELECT sum(clicks_kept), sum(clicks_by_date), sum(clicks_published)"
    assert len(set(rows(settings.home.status_path, f"{sums} {reconciled}")[0])) == 1
    wrong = f"SELECT * {reconciled} WHERE clicks_difference <> 0 OR published_difference <> 0"
    assert rows(settings.home.status_path, wrong) == []
    said = rows(settings.home.status_path, f"SELECT DISTINCT reconciled {reconciled} ORDER BY 1")
    assert said == [("yes",), ("yes; 1 file is quarantined",)]
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert checks["every_row_read_is_accounted_for"]
    assert checks["no_click_is_lost_on_the_way_to_the_pages"]


def test_each_partition_says_what_became_of_its_files(tmp_path, instance) -> None:
    lake = tmp_path / "lake"
    write_week(lake, "year=2025/week=06", [event("2025-02-03"), event("2025-02-04", clicks=-1)])
    write_week(lake, "year=2025/week=07", [event("2025-02-10")] * 3)
    result = run_refresh(load_settings(write_config(tmp_path)), instance)
    found = {m.partition: m.metadata for m in result.asset_materializations_for_node("usage_facts")}
    first, second = found["2025-02-03"], found["2025-02-10"]
    assert first["rows_read"].value == 2
    assert first["dagster/partition_row_count"].value == 1
    assert first["rows_rejected"].value == {"negative count": 1}
    assert second["rows_read"].value == 3
    assert second["bytes"].value > 0
    assert found["2025-01-27"]["files"].value == 0
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert not checks["few_rows_are_rejected"].passed
    assert checks["facts_schema"].passed


def test_ids_that_no_reference_data_knows_are_kept_counted_and_shown(tmp_path, instance) -> None:
    weeks = [date(2025, 1, 6) + timedelta(weeks=n) for n in range(8)]
    for week in weeks:
        known, unknown = event(str(week), clicks=9), event(str(week), account="stranger", application="novel")
        write_week(tmp_path / "lake", f"year=2025/week={week.isocalendar().week:02d}", [known, unknown])
    (tmp_path / "accounts.csv").write_text("account_id,account_name\na,Town of A\n")
    columns = {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")}
    sources = {
        "usage": {"path": "lake", "partitioned": True, "columns": columns},
        "accounts": {
            "path": "accounts.csv",
            "format": "csv",
            "columns": {"account_id": "account_id", "account_name": "account_name"},
        },
    }
    settings = load_settings(write_config(tmp_path, sources=sources))
    result = run_refresh(settings, instance)
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["accounts_are_known"].metadata["most_clicks"].value == {"stranger": 8}
    assert checks["accounts_are_known"].metadata["share_of_clicks"].value == pytest.approx(0.1)
    assert not checks["accounts_are_known"].passed
    assert checks["applications_are_known"].passed, "no source of applications: nothing to compare"
    build = settings.home.published_dir / "current" / "warehouse.duckdb"
    shown = rows(build, "SELECT DISTINCT account, application FROM mart.usage_by_week ORDER BY 1")
    assert shown == [("Town of A", "permits"), ("stranger", "novel")]


@pytest.mark.parametrize(("share", "status"), [(0.2, "far fewer rows than usual"), (4, "far more rows than usual")])
def test_a_week_far_from_its_usual_size_is_told_and_left_out(tmp_path, instance, share: float, status: str) -> None:
    weeks = [date(2025, 1, 6) + timedelta(weeks=n) for n in range(8)]
    for number, week in enumerate(weeks):
        count = int(200 * (share if number == 6 else 1))
        write_week(
            tmp_path / "lake", f"year=2025/week={week.isocalendar().week:02d}", [event(str(week), clicks=1)] * count
        )
    settings = load_settings(write_config(tmp_path, completeness={}))
    result = run_refresh(settings, instance)
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert set(checks["weeks_are_of_their_usual_size"].metadata["weeks"].value) == {"2025-02-17"}
    found = rows(settings.home.warehouse_path, "SELECT week_status FROM core.weeks WHERE week_start = '2025-02-17'")
    assert found == [(status,)]


def test_what_a_long_running_code_server_asks_for_follows_the_clock(tmp_path, instance) -> None:
    from usage_pipeline.definitions import build_definitions

    write_week(tmp_path / "lake", "year=2025/week=06", [event("2025-02-03")])
    file = write_config(tmp_path)
    definitions = build_definitions(load_settings(file), lambda: load_settings(file, as_of=date(2025, 3, 20)))
    schedule = definitions.resolve_schedule_def("weekly_refresh")
    with dg.build_schedule_context(instance=instance) as context:
        (request,) = schedule.evaluate_tick(context).run_requests
    assert request.tags["dagster/asset_partition_range_end"] == "2025-03-17"


def test_a_broken_configuration_stops_no_sensor(tmp_path, instance) -> None:
    from usage_pipeline.definitions import build_definitions

    file = write_config(tmp_path)
    definitions = build_definitions(load_settings(file), lambda: load_settings(file))
    file.write_text("name: [")
    with dg.build_sensor_context(instance=instance) as context:
        skipped = definitions.resolve_sensor_def("lake_week_sensor")(context)
    assert "not readable as YAML" in skipped.skip_message
