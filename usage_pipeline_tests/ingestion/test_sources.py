"""sources check: says what it found, and names every problem with its remedy."""

import pytest
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import load_settings
from usage_pipeline.config.source_schemas import REFERENCE
from usage_pipeline.ingestion.lake import connect
from usage_pipeline.ingestion.reference import load_reference, take_delivery
from usage_pipeline.ingestion.source_check import Report, check_sources
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.lakes import event, write_config, write_week


def report_of(tmp_path, **changes) -> Report:
    return check_sources(load_settings(write_config(tmp_path, **changes)))


def usage(columns: dict[str, object] | None = None, **changes: object) -> dict[str, object]:
    all_columns = {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")} | (columns or {})
    return {"sources": {"usage": {"path": "lake", "partitioned": True, "columns": all_columns} | changes}}


@pytest.fixture
def lake(tmp_path):
    for week, day in ((5, "2025-01-28"), (6, "2025-02-04"), (8, "2025-02-18")):
        write_week(tmp_path / "lake", f"year=2025/week={week:02d}", [event(day)])
    return tmp_path


def test_it_says_weeks_files_rows_and_what_matches(lake) -> None:
    report = report_of(lake)
    assert report.problems == []
    text = "\n".join(report.lines)
    assert "3 week folders, 2025-01-27 to 2025-02-17; 3 weeks in the window are read" in text
    assert "1 files, 1 rows" in text
    assert 'account_id from "account_id"' in text
    assert any("1 weeks within the window never arrived: 2025-02-10" in note for note in report.notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (usage({"account_id": "acount_id"}), "there is no column 'acount_id' (did you mean 'account_id'?)"),
        (usage({"clicks": {"sql": "nonsense + 1"}}), "sources.usage.columns.clicks.sql: Binder Error"),
        (usage(path="elsewhere"), "no such folder"),
        ({"as_of": "2030-01-01"}, "no week lies in the window"),
        (usage(format="csv"), "holds no csv file"),
    ],
)
def test_each_problem_is_named_with_its_remedy(lake, changes, said) -> None:
    problems = "\n".join(report_of(lake, **changes).problems)
    assert said in problems


@pytest.mark.parametrize("column", ["snoozed_until", "is_useful", "end_date", "seats", "last_day"])
def test_what_becomes_of_a_cell_that_cannot_be_read_is_told_as_it_will_be(lake, column: str) -> None:
    """It was said that such cells are empty, and the rows were kept aside."""
    others = {
        "crm_outcomes": {"account_id": "A", "recorded_at": "2025-02-20 09:00", "call_status": "done"},
        "subscriptions": {"account_id": "A", "application": "permits", "start_date": "2024-01-01"},
        "known_causes": {"first_day": "2025-02-01", "cause": "snow"},
    }
    (schema,) = (found for found in REFERENCE if found.name in others and column in found.names)
    row = others[schema.name] | {column: "not one"}
    (lake / "file.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n", encoding="utf-8")
    source = {"path": "file.csv", "format": "csv", "columns": {name: name for name in row}}
    settings = load_settings(write_config(lake, sources=usage()["sources"] | {schema.name: source}))
    (said,) = (line for line in check_sources(settings).notes if column in line and "cannot be read" in line)
    with connect() as connection:
        connection.execute("CREATE SCHEMA ref")
        kept = load_reference(connection, schema, take_delivery(settings, schema)).rows
    assert ("such cells are empty" if kept else "such rows are kept aside") in said


def test_a_missing_optional_column_is_noted_and_does_not_stop(lake) -> None:
    report = report_of(lake, **usage({"records_created": "records"}))
    assert report.problems == []
    assert any("there is no column 'records'" in note for note in report.notes)


def test_a_lake_by_calendar_year_is_noticed(tmp_path) -> None:
    write_week(tmp_path / "lake", "year=2024/week=01", [event("2024-12-30"), event("2024-12-31")])
    write_week(tmp_path / "lake", "year=2025/week=08", [event("2025-02-18")])
    said = "\n".join(report_of(tmp_path, lookback_weeks=60).problems)
    assert "is iso, but 2 days around New Year lie where calendar_year puts them" in said
    assert report_of(tmp_path, **usage(partition_calendar="calendar_year")).problems == []


def test_a_folder_that_no_week_has_is_named(tmp_path) -> None:
    write_week(tmp_path / "lake", "year=2025/week=53", [event("2025-02-18")])
    write_week(tmp_path / "lake", "year=2025/week=08", [event("2025-02-18")])
    assert "no day belongs to year=2025/week=53" in "\n".join(report_of(tmp_path).problems)


def test_a_flat_lake_that_is_called_partitioned_gets_the_remedy(tmp_path) -> None:
    write_week(tmp_path / "lake", "flat", [event("2025-02-18")])
    assert "say partitioned: false" in "\n".join(report_of(tmp_path).problems)


def test_a_bad_query_is_named(tmp_path) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n")
    source = {
        "files": {"x": {"path": "x.csv", "format": "csv"}},
        "query": "SELECT * FROM y",
        "columns": {"account_id": "a", "application": "a", "event_time": "a"},
    }
    assert "sources.usage.query: Catalog Error" in "\n".join(report_of(tmp_path, sources={"usage": source}).problems)


def test_the_command_says_all_that_and_fails_where_there_is_a_problem(lake, demo: Demo) -> None:
    good = CliRunner().invoke(app, ["sources", "check", "-c", str(demo.folder / "sources.yaml")])
    assert good.exit_code == 0
    assert "no problem found" in good.output
    bad = CliRunner().invoke(app, ["sources", "check", "-c", str(write_config(lake, **usage(path="elsewhere")))])
    assert bad.exit_code == 1
    assert "no such folder" in bad.output
