"""Outcomes from a CRM: they count like those of the form, each once, and whatever cannot count is said."""

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pytest
from usage_superset.outcome_records import name_of

from usage_pipeline.config.settings import ConfigError, Settings, load_settings
from usage_pipeline.config.source_schemas import CRM_OUTCOMES
from usage_pipeline.ingestion.lake import connect
from usage_pipeline.ingestion.reference import load_reference, take_delivery
from usage_pipeline.outcomes import from_crm
from usage_pipeline.outcomes.database import renew_outcomes
from usage_pipeline.outcomes.from_crm import NO_BUILD, Taken, take_crm_outcomes
from usage_pipeline.outcomes.records import files_in, keep, kept_folder, problems, read_records
from usage_pipeline_tests.support.lakes import write_config
from usage_pipeline_tests.support.outcomes import record, shown_build

USAGE = {"path": "lake", "partitioned": True, "columns": {c: c for c in ("account_id", "application", "clicks")}}
SINCE = datetime(2026, 10, 19)
# lists of two weeks: Springfield is on both, Riverton on the second alone
ISSUED = [
    (date(2026, 11, 2), datetime(2026, 11, 12, 7), "A1", 2, "inactive / permits"),
    (date(2026, 11, 9), datetime(2026, 11, 19, 7), "A1", 1, "inactive / permits, drop / signs"),
    (date(2026, 11, 9), datetime(2026, 11, 19, 7), "A2", 3, "drop / permits"),
]
NOW = [
    ("A1", "permits", "inactive", SINCE, 1),
    ("A1", "signs", "drop", datetime(2026, 11, 16), 2),
    ("A2", "permits", "drop", datetime(2026, 11, 9), 3),
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    source = {
        "path": "outcomes.csv",
        "format": "csv",
        "columns": {
            "account_id": "Account",
            "recorded_at": "Last Modified",
            "call_status": "Status",
            "snoozed_until": "Due",
            "was_reached": "Reached",
            "is_useful": "Useful",
            "recorded_by": "Owner",
        },
        "call_statuses": {"Parked": "snoozed"},
    }
    sources = {"usage": USAGE, "crm_outcomes": source}
    return load_settings(write_config(tmp_path, as_of="2026-11-24", timezone="America/Denver", sources=sources))


def publish(settings: Settings) -> None:
    with shown_build(settings) as (_, connection):
        for rank, account in enumerate(("A1", "A2"), 1):
            connection.execute(
                "INSERT INTO mart.accounts_summary (account_id, account, owner) VALUES (?, ?, 'Dana')",
                [account, f"Town of {account}"],
            )
            connection.execute(
                "INSERT INTO mart.call_list (rank, account_id, account, owner, urgency_rank) VALUES (?, ?, ?, 'Dana', 1)",
                [rank, account, f"Town of {account}"],
            )
        connection.execute("INSERT INTO mart.accounts_summary (account_id, account) VALUES ('A3', 'Town of A3')")
        for row in ISSUED:
            connection.execute(
                "INSERT INTO mart.call_list_history (as_of_week, issued_as_of, account_id, urgency_rank, call_reasons) "
                "VALUES (?, ?, ?, ?, ?)",
                list(row),
            )
        for row in NOW:
            connection.execute(
                "INSERT INTO mart.call_reasons (account_id, application_key, call_reason, reason_since, urgency_rank) "
                "VALUES (?, ?, ?, ?, ?)",
                list(row),
            )


def deliver(settings: Settings, *rows: dict[str, Any]) -> None:
    file = Path(settings.sources.crm_outcomes.path)  # type: ignore[union-attr,arg-type]
    columns = ["Account", "Last Modified", "Status", "Due", "Reached", "Useful", "Owner"]
    pd.DataFrame(rows, columns=columns).to_csv(file, index=False)


def row(account: str, moment: str, status: str, **other: Any) -> dict[str, Any]:
    return {"Account": account, "Last Modified": moment, "Status": status} | other


@pytest.fixture
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as connection:
        connection.execute("CREATE SCHEMA ref")
        yield connection


def take(settings: Settings, warehouse: duckdb.DuckDBPyConnection) -> Taken:
    load_reference(warehouse, CRM_OUTCOMES, take_delivery(settings, CRM_OUTCOMES))
    return take_crm_outcomes(warehouse, settings.home, settings.clock)


def statuses(settings: Settings) -> dict[str, str]:
    renew_outcomes(settings.home, settings.clock, settings.outcomes)
    with duckdb.connect(str(settings.home.outcomes_path.resolve()), read_only=True) as connection:
        return dict(connection.execute("SELECT account_id, call_status_text FROM outcomes.call_status").fetchall())


def test_outcomes_of_a_crm_stand_in_the_rows_they_answer(
    settings: Settings, warehouse: duckdb.DuckDBPyConnection
) -> None:
    publish(settings)
    deliver(
        settings,
        row("A1", "2026-11-19 15:00", "Completed", Reached="yes", Useful="no", Owner="Dana"),
        row("A2", "2026-11-20 10:30", "Parked", Due="2026-12-01"),
    )
    assert take(settings, warehouse) == Taken(2, 0, {})
    assert statuses(settings) == {"A1": "Done Nov 19, 2026", "A2": "Snoozed until Dec 1, 2026"}
    first, second = read_records(settings.home.feedback_dir, settings.home.history_dir)
    # 15:00 in Denver
    assert first.recorded_at.isoformat() == "2026-11-19T22:00:00+00:00"
    assert (first.account, first.owner, first.recorded_by, first.was_reached) == ("Town of A1", "Dana", "Dana", True)
    assert {(r.application_key, r.call_reason, r.since, r.urgency_rank) for r in first.reasons} == {
        ("permits", "inactive", date(2026, 10, 19), 1),
        ("signs", "drop", date(2026, 11, 16), 2),
    }
    assert {said.call_reason: said.is_useful for said in first.useful} == {"inactive": False, "drop": False}
    assert (second.recorded_by, second.useful, second.week) == ("CRM", (), date(2026, 11, 9))
    for file in files_in(kept_folder(settings.home.history_dir)):
        assert file.name == name_of(json.loads(file.read_text(encoding="utf-8"))), "as the form names its own"


def test_what_came_after_the_outcome_is_new(settings: Settings, warehouse: duckdb.DuckDBPyConnection) -> None:
    """A1 was done in the week before: the drop of signs was not on that list. A2 was on no list then."""
    publish(settings)
    deliver(settings, row("A1", "2026-11-13", "done"), row("A2", "2026-11-13", "done"))
    assert take(settings, warehouse).new == 2
    assert statuses(settings) == {
        "A1": "Open: something new since Nov 13, 2026",
        "A2": "Open: something new since Nov 13, 2026",
    }


def test_the_same_every_night_is_taken_once_and_nothing_is_missed(
    settings: Settings, warehouse: duckdb.DuckDBPyConnection
) -> None:
    publish(settings)
    deliver(settings, row("A1", "2026-11-20", "done"))
    assert take(settings, warehouse) == Taken(1, 0, {})
    deliver(settings, row("A1", "2026-11-20", "done"), row("A2", "2026-11-21", "open"))
    assert take(settings, warehouse) == Taken(1, 1, {})
    # an export of the last day alone: what came before stays
    deliver(settings, row("A2", "2026-11-22", "done"))
    assert take(settings, warehouse) == Taken(1, 0, {})
    record(settings.home.feedback_dir, "A2")
    assert keep(settings.home.feedback_dir, settings.home.history_dir) == 1
    assert len(read_records(settings.home.feedback_dir, settings.home.history_dir)) == 4
    assert problems(settings.home.feedback_dir, settings.home.history_dir) == []


def test_what_cannot_count_is_said_and_the_rest_counts(
    settings: Settings, warehouse: duckdb.DuckDBPyConnection
) -> None:
    publish(settings)
    deliver(settings, row("A1", "2026-11-20", "done"))
    take(settings, warehouse)
    deliver(
        settings,
        row("A1", "2026-11-20", "open"),
        row("A1", "2026-11-21", "done"),
        row("A9", "2026-11-21", "done"),
        row("A2", "2026-12-24", "done"),
    )
    assert take(settings, warehouse) == Taken(1, 0, {from_crm.CHANGED: 1, from_crm.STRANGER: 1, from_crm.AHEAD: 1})


def test_of_two_rows_of_one_moment_the_first_counts_and_the_other_is_kept_aside(
    settings: Settings, warehouse: duckdb.DuckDBPyConnection
) -> None:
    publish(settings)
    deliver(settings, row("A1", "2026-11-20", "done"), row("A1", "2026-11-20", "open"))
    assert take(settings, warehouse) == Taken(1, 0, {})
    (kept,) = read_records(settings.home.feedback_dir, settings.home.history_dir)
    assert kept.status == "done"
    assert warehouse.sql("SELECT count(*) FROM ref.crm_outcomes_rejected").fetchall() == [(1,)]


def test_before_the_first_build_rows_wait(settings: Settings, warehouse: duckdb.DuckDBPyConnection) -> None:
    deliver(settings, row("A1", "2026-11-20", "done"))
    assert take(settings, warehouse) == Taken(0, 0, {from_crm.NO_BUILD: 1})
    publish(settings)
    assert take(settings, warehouse) == Taken(1, 0, {})


def test_what_was_recorded_before_the_first_list_was_issued_is_left_by_the_clock_of_the_zone(
    settings: Settings, warehouse: duckdb.DuckDBPyConnection
) -> None:
    """It counted, and hours apart: a list of Monday 0:00 in Denver answered what was recorded at 6:00 UTC before it."""
    publish(settings)
    first = min(issued for _, issued, *_ in ISSUED)
    deliver(
        settings,
        row("A1", "2020-01-01 09:00", "Completed"),
        row("A1", str(first - timedelta(minutes=1)), "Completed"),
        row("A1", str(first), "Completed"),
    )
    assert take(settings, warehouse) == Taken(1, 0, {NO_BUILD: 2})
    (taken,) = read_records(settings.home.feedback_dir, settings.home.history_dir)
    assert taken.as_of == first.replace(tzinfo=ZoneInfo(settings.timezone))


def test_an_outcome_of_the_hours_before_a_list_answers_the_one_before(
    settings: Settings, warehouse: duckdb.DuckDBPyConnection
) -> None:
    publish(settings)
    first, second = sorted({issued for _, issued, *_ in ISSUED})
    # in UTC it is hours after the second list was issued by the clock of the zone
    deliver(settings, row("A1", str(second - timedelta(hours=4)), "Completed"))
    assert take(settings, warehouse) == Taken(1, 0, {})
    (taken,) = read_records(settings.home.feedback_dir, settings.home.history_dir)
    assert taken.as_of == first.replace(tzinfo=ZoneInfo(settings.timezone))


def test_a_word_without_a_meaning_is_kept_aside_with_the_setting(
    settings: Settings, warehouse: duckdb.DuckDBPyConnection
) -> None:
    deliver(settings, row("A1", "2026-11-20", "On ice"), row("A1", "2026-11-21", "In Progress"))
    loaded = load_reference(warehouse, CRM_OUTCOMES, take_delivery(settings, CRM_OUTCOMES))
    assert (loaded.rows, loaded.rejected) == (1, {"no call_status, or one that cannot be read": 1})
    (note,) = loaded.notes
    assert "'On ice' (1 rows) is none of done, snoozed, open; the rows are kept aside" in note
    assert note.endswith("say which it is under sources.crm_outcomes.call_statuses")


def test_other_sources_have_no_words_for_calls(tmp_path: Path) -> None:
    config = write_config(tmp_path, sources={"usage": USAGE | {"call_statuses": {"Parked": "snoozed"}}})
    with pytest.raises(ConfigError, match=r"usage\.call_statuses: only calls of crm_outcomes have one"):
        load_settings(config)
