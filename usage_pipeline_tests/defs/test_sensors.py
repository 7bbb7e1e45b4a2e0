"""The sensor on an ephemeral instance: skip, run, exactly the changed weeks, cursor moved, a failed run retried."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from usage_pipeline.config.settings import load_settings
from usage_pipeline.core.weeks import contiguous_ranges
from usage_pipeline.definitions import build_definitions
from usage_pipeline.defs.schedules import range_tags
from usage_pipeline.ingestion.facts import ingest_weeks, vanished_weeks
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.outcomes import record
from usage_pipeline_tests.support.refreshes import run_refresh


def look(settings: Any, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    """One tick of the sensor."""
    sensor = build_definitions(settings).resolve_sensor_def("lake_week_sensor")
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        return sensor(context)


def asked(result: dg.SensorResult) -> list[tuple[str, str]]:
    tags = [request.tags for request in result.run_requests or []]
    return [(t["dagster/asset_partition_range_start"], t["dagster/asset_partition_range_end"]) for t in tags]


def lake_of(tmp_path: Path, *weeks: int) -> None:
    for week in weeks:
        monday = date.fromisocalendar(2025, week, 1)
        write_week(tmp_path / "lake", f"year=2025/week={week:02d}", [event(str(monday))])


@pytest.mark.long
def test_it_asks_for_exactly_the_weeks_that_are_new_or_changed(tmp_path, instance) -> None:
    lake_of(tmp_path, 5, 6, 8)
    settings = load_settings(write_config(tmp_path))
    first = look(settings, instance)
    assert asked(first) == [("2025-01-27", "2025-02-03"), ("2025-02-17", "2025-02-17")]
    for start, end in asked(first):
        tags = {"dagster/asset_partition_range_start": start, "dagster/asset_partition_range_end": end}
        assert run_refresh(settings, instance, tags).success
    skipped = look(settings, instance, first.cursor)
    assert skipped.skip_message == "nothing new in the lake"
    write_week(tmp_path / "lake", "year=2025/week=06", [event("2025-02-04", clicks=5)], "late.parquet")
    assert asked(look(settings, instance, first.cursor)) == [("2025-02-03", "2025-02-03")]


def test_a_change_whose_runs_fail_is_asked_for_again_and_then_given_up_with_a_word(tmp_path, instance) -> None:
    lake_of(tmp_path, 6)
    settings = load_settings(write_config(tmp_path, schedule={"max_attempts": 2}))
    one = look(settings, instance)
    two = look(settings, instance, one.cursor)
    assert asked(one) == asked(two)
    assert json.loads(two.cursor)["attempts"] == 2
    three = look(settings, instance, two.cursor)
    assert "2 runs for that failed" in three.skip_message
    lake_of(tmp_path, 7)
    assert json.loads(look(settings, instance, two.cursor).cursor)["attempts"] == 1, "another change begins anew"


@pytest.mark.long
def test_a_kind_of_reason_that_moves_down_is_a_change_and_an_answer_that_moves_none_is_not(tmp_path, instance) -> None:
    """Twenty CSMs had called *inactive* useless, and until the next schedule the list said what it had said before."""
    lake_of(tmp_path, 9, 10)
    settings = load_settings(write_config(tmp_path))
    ingest_weeks(settings, [date(2025, 2, 24), date(2025, 3, 3)], now="2025-03-05T00:00:00+00:00")

    def answered(number: int, *, useful: bool) -> None:
        said = [{"call_reason": "inactive", "is_useful": useful, "why_not": None}]
        moment = datetime(2025, 3, 4, 9, number, tzinfo=UTC)
        record(settings.home.feedback_dir, f"A{number}", now=moment, week="2025-02-24", useful=said)

    def last_run_moved(*kinds: str) -> None:
        event = dg.AssetMaterialization("reason_usefulness", metadata={"moved_down": list(kinds)})
        instance.report_runless_asset_event(event)

    for n in range(20):
        answered(n, useful=False)
    assert look(settings, instance).skip_message == "nothing new in the lake", "no run has looked: nothing to compare"
    last_run_moved()
    flipped = look(settings, instance)
    assert asked(flipped) == [("2025-03-03", "2025-03-03")], "the current week, of which nothing is read anew"
    assert asked(look(settings, instance, flipped.cursor)), "until a run has looked"
    last_run_moved("inactive")
    assert look(settings, instance, flipped.cursor).skip_message == "nothing new in the lake"
    answered(20, useful=False)
    assert look(settings, instance).skip_message == "nothing new in the lake", "one more says nothing new"
    for n in range(21, 42):
        answered(n, useful=True)
    assert asked(look(settings, instance)) == [("2025-03-03", "2025-03-03")], "half of them useful: it comes back"


def test_it_waits_for_a_run_that_is_under_way(tmp_path, instance) -> None:
    lake_of(tmp_path, 6)
    settings = load_settings(write_config(tmp_path))
    job = build_definitions(settings).resolve_job_def("refresh")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert look(settings, instance).skip_message == f"run {run.run_id} is under way"


def test_a_lake_that_is_not_there_is_a_word_and_no_error(tmp_path, instance) -> None:
    source = {
        "path": "s3://x/y",
        "partitioned": True,
        "columns": {"account_id": "a", "application": "b", "event_time": "c"},
    }
    address = {"endpoint": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b"}
    settings = load_settings(write_config(tmp_path, sources={"usage": source}, store=address))
    assert "cannot be reached" in look(settings, instance).skip_message


@pytest.mark.long
def test_weeks_that_vanish_are_kept_and_told(tmp_path, instance) -> None:
    lake_of(tmp_path, 6, 7)
    settings = load_settings(write_config(tmp_path))
    assert run_refresh(settings, instance).success
    (tmp_path / "lake" / "year=2025" / "week=06" / "part-0.parquet").unlink()
    assert vanished_weeks(settings.home.facts_dir, settings.clock, settings.store, settings.sources) == [
        date(2025, 2, 3)
    ]
    result = run_refresh(settings, instance)
    assert result.success
    checks = {c.check_name: c for c in result.get_asset_check_evaluations()}
    told = checks["no_week_vanished_from_the_lake"]
    assert (told.passed, told.metadata["weeks"].value) == (False, ["2025-02-03"])
    assert look(settings, instance).skip_message == "nothing new in the lake"


def test_unbroken_runs_of_weeks() -> None:
    weeks = [date(2025, 1, 6), date(2025, 1, 13), date(2025, 2, 3)]
    assert contiguous_ranges(weeks) == [(date(2025, 1, 6), date(2025, 1, 13)), (date(2025, 2, 3), date(2025, 2, 3))]
    assert contiguous_ranges([]) == []


@pytest.mark.long
def test_a_run_that_failed_after_its_facts_were_written_is_asked_for_again(tmp_path, instance, monkeypatch) -> None:
    from usage_pipeline.core import tables

    lake_of(tmp_path, 5, 6)
    settings = load_settings(write_config(tmp_path))
    broken = tables.Table("usage_by_week", "x", ("segment",), tables.TABLES["usage_by_week"].columns)
    write_week(tmp_path / "lake", "year=2025/week=06", [event("2025-02-04", account="b")], "more.parquet")
    tags = asked(look(settings, instance))
    with monkeypatch.context() as patch:
        patch.setitem(tables.TABLES, "usage_by_week", broken)
        start, end = tags[0]
        range_of = {"dagster/asset_partition_range_start": start, "dagster/asset_partition_range_end": end}
        assert not run_refresh(settings, instance, range_of).success
    again = look(settings, instance)
    assert asked(again) == [("2025-01-27", "2025-02-03")]
    assert run_refresh(settings, instance, range_of).success
    assert look(settings, instance, again.cursor).skip_message == "nothing new in the lake"


@pytest.mark.long
def test_a_week_that_was_read_while_it_ran_is_read_again_when_it_is_over(tmp_path, instance) -> None:
    lake_of(tmp_path, 9, 10)
    settings = load_settings(write_config(tmp_path))  # as of Wednesday of week 10
    assert run_refresh(settings, instance).success
    later = load_settings(tmp_path / "sources.yaml", as_of=date(2025, 3, 10))
    assert look(later, instance).skip_message == "nothing new in the lake", "over, and not settled yet"
    settled = load_settings(tmp_path / "sources.yaml", as_of=date(2025, 3, 11))
    assert run_refresh(settled, instance, range_tags(date(2025, 2, 24), date(2025, 2, 24))).success

    def status() -> Any:
        with duckdb.connect(str(settings.home.warehouse_path), read_only=True) as connection:
            sql = "SELECT week_status FROM core.weeks WHERE week_start = '2025-03-03'"
            return connection.execute(sql).fetchone()

    assert status() == ("not read since it ended",)
    assert asked(look(settled, instance)) == [("2025-03-03", "2025-03-03")]
    assert run_refresh(settled, instance, range_tags(date(2025, 3, 3), date(2025, 3, 3))).success
    assert status() == ("complete",)
    assert look(settled, instance).skip_message == "nothing new in the lake"
