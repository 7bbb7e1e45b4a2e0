"""The call list with its outcomes: made anew for an answer, another build or another day, and for nothing else."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.locks import file_lock
from usage_pipeline.core.tables import OUTCOME_TABLES, schema_violation
from usage_pipeline.defs.sensors import outcome_sensor
from usage_pipeline.operations.data_home import clean, unknown
from usage_pipeline.outcomes import records
from usage_pipeline.outcomes.database import OtherVersionError, renew_outcomes
from usage_pipeline.publishing.builds import Build, store_of
from usage_pipeline_tests.support.lakes import write_config
from usage_pipeline_tests.support.outcomes import MOMENT, record, shown_build

SINCE = datetime(2026, 10, 19)


def renew(settings: Settings) -> bool:
    return renew_outcomes(settings.home, settings.clock, settings.outcomes)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(write_config(tmp_path, as_of="2026-11-22"))


def publish(settings: Settings, number: int, calls: dict[str, list[tuple[str, str, datetime, int]]]) -> Build:
    """A build whose list holds these accounts, each with reasons: application, kind, since, priority."""
    with shown_build(settings, number) as (build, connection):
        for rank, (account, reasons) in enumerate(calls.items(), 1):
            connection.execute(
                "INSERT INTO mart.call_list (rank, account_id, account, owner, urgency_rank) VALUES (?, ?, ?, ?, ?)",
                [rank, account, f"Town of {account}", "Dana", min(r[3] for r in reasons)],
            )
            connection.execute(
                "INSERT INTO mart.accounts_summary (account_id, account) VALUES (?, ?)", [account, f"Town of {account}"]
            )
            for reason in reasons:
                connection.execute(
                    "INSERT INTO mart.call_reasons (account_id, application_key, call_reason, reason_since, "
                    "urgency_rank) VALUES (?, ?, ?, ?, ?)",
                    [account, *reason],
                )
    return build


def shown(settings: Settings, table: str = "outcomes.call_status") -> list[dict[str, Any]]:
    with duckdb.connect(str(settings.home.outcomes_path.resolve()), read_only=True) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY ALL").df().to_dict("records")


def statuses(settings: Settings) -> dict[str, str]:
    return {row["account_id"]: row["call_status_text"] for row in shown(settings)}


USUAL = [("permits", "inactive", SINCE, 1)]


def test_before_the_first_build_there_is_nothing(settings: Settings) -> None:
    assert not renew(settings)
    assert not settings.home.outcomes_path.exists()


def test_without_any_answer_it_is_there_with_the_columns_of_the_catalogue(settings: Settings) -> None:
    publish(settings, 1, {"A1": USUAL, "A/2 <b>": USUAL})
    assert renew(settings)
    assert statuses(settings) == {"A1": "Open", "A/2 <b>": "Open"}
    (kind,) = shown(settings, "outcomes.reason_usefulness")
    assert (kind["call_reason"], kind["reason_answers"], kind["is_moved_down"]) == ("inactive", 0, False)
    assert kind["useful_share"] != kind["useful_share"], "not known is not 0"
    with duckdb.connect(str(settings.home.outcomes_path.resolve()), read_only=True) as connection:
        assert [broken.problem for t in OUTCOME_TABLES if (broken := schema_violation(connection, t))] == []


def test_an_empty_list_has_the_same_columns(settings: Settings) -> None:
    publish(settings, 1, {})
    assert renew(settings)
    with duckdb.connect(str(settings.home.outcomes_path.resolve()), read_only=True) as connection:
        assert [broken.problem for t in OUTCOME_TABLES if (broken := schema_violation(connection, t))] == []


def test_it_is_written_for_an_answer_another_build_or_another_day_only(settings: Settings) -> None:
    publish(settings, 1, {"A1": USUAL, "A2": USUAL, "A3": USUAL})
    assert [renew(settings) for _ in range(3)] == [True, False, False]
    record(settings.home.feedback_dir, "A1", reasons=_as_issued())
    record(settings.home.feedback_dir, "A2", status="snoozed", snoozed_until="2026-11-30", reasons=_as_issued())
    assert [renew(settings) for _ in range(3)] == [True, False, False]
    assert statuses(settings) == {"A1": "Done Nov 24, 2026", "A2": "Snoozed until Nov 30, 2026", "A3": "Open"}
    later = settings.model_copy(update={"as_of": settings.as_of + timedelta(days=8)})
    assert renew(later)
    assert statuses(settings)["A2"] == "Open: snoozed until Nov 30, 2026"
    publish(settings, 2, {"A1": [*USUAL, ("tax", "inactive", SINCE, 2)]})
    assert renew(later)
    assert statuses(settings) == {"A1": "Open: something new since Nov 24, 2026"}


def _as_issued() -> list[dict[str, Any]]:
    return [{"application_key": "permits", "call_reason": "inactive", "urgency_rank": 1, "since": str(SINCE.date())}]


def test_after_a_rollback_the_rows_are_those_of_the_older_build_and_every_answer_is_there(settings: Settings) -> None:
    older = publish(settings, 1, {"A1": USUAL, "A2": USUAL})
    publish(settings, 2, {"A2": USUAL})
    record(settings.home.feedback_dir, "A2", reasons=_as_issued())
    renew(settings)
    assert statuses(settings) == {"A2": "Done Nov 24, 2026"}
    store_of(settings.home, settings.publish).rollback(older.build_id)
    assert renew(settings)
    assert statuses(settings) == {"A1": "Open", "A2": "Done Nov 24, 2026"}


def test_a_build_of_another_version_says_so_and_what_was_shown_stays(settings: Settings) -> None:
    """After an upgrade, or a rollback over one, a column was missing and nobody said why."""
    publish(settings, 1, {"A1": USUAL})
    assert renew(settings)
    before = settings.home.outcomes_path.resolve()
    build = publish(settings, 2, {"A1": USUAL, "A2": USUAL})
    with duckdb.connect(str(settings.home.published_dir / build.build_id / "warehouse.duckdb")) as connection:
        connection.execute("ALTER TABLE mart.call_list DROP COLUMN health_change")
    with pytest.raises(OtherVersionError, match=f"build {build.build_id} was made by another version"):
        renew(settings)
    assert settings.home.outcomes_path.resolve() == before
    assert set(statuses(settings)) == {"A1"}


def test_records_are_kept_in_history_unless_a_run_holds_it_and_nobody_waits(settings: Settings) -> None:
    publish(settings, 1, {"A1": USUAL})
    file = record(settings.home.feedback_dir, "A1", reasons=_as_issued())
    with file_lock(settings.home.history_lock, 1, what="history"):
        assert renew(settings)
    assert statuses(settings) == {"A1": "Done Nov 24, 2026"}, "the pages do not wait for the copy"
    kept = records.kept_folder(settings.home.history_dir) / file.name
    assert not kept.exists()
    renew(settings)
    assert kept.read_bytes() == file.read_bytes()
    file.unlink()
    renew(settings)
    assert statuses(settings) == {"A1": "Done Nov 24, 2026"}, "what was kept counts, whatever becomes of the file"


def test_useless_kinds_and_responses_are_counted(settings: Settings) -> None:
    publish(settings, 1, {f"A{n}": USUAL for n in range(25)})
    for n in range(25):
        useful = [{"call_reason": "inactive", "is_useful": n < 5, "why_not": None if n < 5 else "known already"}]
        record(
            settings.home.feedback_dir, f"A{n}", now=MOMENT + timedelta(minutes=n), useful=useful, reasons=_as_issued()
        )
    renew(settings)
    (kind,) = shown(settings, "outcomes.reason_usefulness")
    assert (kind["reason_answers"], kind["useful_answers"], kind["useful_share"]) == (25, 5, 0.2)
    assert kind["is_moved_down"] and kind["why_not_useful"] == "known already (20)"
    assert (round(kind["useful_low"], 4), round(kind["useful_high"], 4)) == (0.0886, 0.3913)
    (dana,) = shown(settings, "responses.csm_responses")
    assert (dana["owner"], dana["calls_listed"], dana["calls_answered"], dana["answered_share"]) == ("Dana", 25, 25, 1)
    assert dana["days_to_answer"] == pytest.approx((MOMENT.timestamp() - datetime.fromisoformat("2026-11-22T00:00:00+00:00").timestamp() + 12 * 60) / 86400)  # fmt: skip


def issue(settings: Settings, build: Build, week: str, issued_as_of: str, accounts: list[str]) -> None:
    """Puts a list that was issued for a week into a build."""
    with duckdb.connect(str(settings.home.published_dir / build.build_id / "warehouse.duckdb")) as connection:
        for account in accounts:
            connection.execute(
                "INSERT INTO mart.call_list_history (as_of_week, account_id, urgency, call_reasons, issued_as_of) "
                "VALUES (?, ?, 'Urgent', 'inactive / permits', ?)",
                [week, account, issued_as_of],
            )


def test_tiles_compare_with_the_list_of_the_week_before_as_it_stood_when_it_was_issued(settings: Settings) -> None:
    build = publish(settings, 1, {"A1": USUAL, "A2": USUAL, "A3": USUAL})
    # A1 was answered before that list was issued and nothing was new on it; A2 on the day after
    record(settings.home.feedback_dir, "A1", now=MOMENT - timedelta(days=20), reasons=_as_issued())
    record(settings.home.feedback_dir, "A2", now=MOMENT, reasons=_as_issued())
    issue(settings, build, "2026-11-02", "2026-11-15", ["A1", "A2"])
    issue(settings, build, "2026-10-26", "2026-11-08", ["A1", "A2", "A3"])
    renew(settings)
    found = {
        (f"{row['as_of_week']:%m-%d}", row["account_id"]): row["call_status"]
        if isinstance(row["call_status"], str)
        else None
        for row in shown(settings, "outcomes.call_figures")
    }
    assert found == {
        ("11-02", "A1"): "done",
        ("11-02", "A2"): "open",
        ("11-02", "A3"): None,
        ("11-09", "A1"): "done",
        ("11-09", "A2"): "done",
        ("11-09", "A3"): "open",
    }
    assert {row["is_newest_week"] for row in shown(settings, "outcomes.call_figures")} == {True, False}


def test_a_list_is_issued_by_the_clock_of_the_zone_and_answers_before_it_count(tmp_path: Path) -> None:
    settings = load_settings(write_config(tmp_path, as_of="2026-11-22", timezone="America/Denver"))
    build = publish(settings, 1, {"A1": USUAL, "A2": USUAL})
    midnight = datetime(2026, 11, 15, 7, tzinfo=UTC)
    record(settings.home.feedback_dir, "A1", now=midnight - timedelta(hours=2), reasons=_as_issued())
    record(settings.home.feedback_dir, "A2", now=midnight + timedelta(hours=2), reasons=_as_issued())
    issue(settings, build, "2026-11-02", "2026-11-15", ["A1", "A2"])
    renew(settings)
    before = [row for row in shown(settings, "outcomes.call_figures") if not row["is_newest_week"]]
    assert {row["account_id"]: row["call_status"] for row in before} == {"A1": "done", "A2": "open"}


def test_without_a_list_of_the_week_before_there_is_nothing_to_compare_with(settings: Settings) -> None:
    build = publish(settings, 1, {"A1": USUAL})
    issue(settings, build, "2026-10-26", "2026-11-08", ["A1"])
    renew(settings)
    (row,) = shown(settings, "outcomes.call_figures")
    assert (row["account_id"], row["is_newest_week"]) == ("A1", True)


def test_no_note_is_in_the_file(settings: Settings) -> None:
    publish(settings, 1, {"A1": USUAL})
    record(settings.home.feedback_dir, "A1", "Mrs. Secretly asked for a discount", recorded_by="quirkyname")
    renew(settings)
    content = settings.home.outcomes_path.resolve().read_bytes()
    assert b"Secretly" not in content and b"quirkyname" in content
    (row,) = shown(settings, "outcomes.account_outcomes")
    assert row["has_note"]


def test_the_outcomes_of_an_account_are_a_table_whether_it_is_on_the_list_or_not(settings: Settings) -> None:
    """Every record of every account, each as it was given; beside the file as Superset wrote it."""
    publish(settings, 1, {"A/2 <b>": USUAL})
    both = [
        {"application_key": "tax", "call_reason": "usage drop", "urgency_rank": 3, "since": None},
        {"application_key": "permits", "call_reason": "inactive", "urgency_rank": 1, "since": "2026-10-19"},
        {"application_key": "tax", "call_reason": "inactive", "urgency_rank": 1, "since": "2026-10-19"},
    ]
    useful = [
        {"call_reason": "inactive", "is_useful": True, "why_not": None},
        {"call_reason": "usage drop", "is_useful": False, "why_not": "known already"},
    ]
    record(settings.home.feedback_dir, "A1", reasons=both, useful=useful, was_reached=False)
    later = {"status": "snoozed", "was_reached": None, "recorded_by": "ben", "owner": None}
    record(settings.home.feedback_dir, "A1", "a note", MOMENT + timedelta(hours=1), snoozed_until="2026-12-24", **later)
    record(settings.home.feedback_dir, "A/2 <b>", now=MOMENT + timedelta(hours=2), **later)
    record(settings.home.feedback_dir, "A1", now=MOMENT + timedelta(hours=3), status="open")
    renew(settings)
    with duckdb.connect(str(settings.home.outcomes_path.resolve()), read_only=True) as connection:
        columns = (
            "account_id, owner, recorded_by, reached, outcome, answered_reasons, usefulness, has_note, "
            "date_diff('hour', TIMESTAMP '2026-11-24 09:30:00', recorded_at)"
        )
        rows = connection.execute(f"SELECT {columns} FROM outcomes.account_outcomes").fetchall()
    assert rows == [
        ("A1", "Dana", "anna", True, "Kept on the list", "inactive", "", False, 3),
        ("A/2 <b>", None, "ben", None, "Snoozed until something new", "inactive", "", False, 2),
        ("A1", None, "ben", None, "Snoozed until Dec 24, 2026", "inactive", "", True, 1),
        ("A1", "Dana", "anna", False, "Done", "inactive, usage drop", "inactive: useful; usage drop: not useful (known already)", False, 0),
    ]  # fmt: skip


def test_the_sensor_brings_answers_and_says_what_stands_in_its_way(settings: Settings) -> None:
    sensor = outcome_sensor(lambda: settings)
    assert sensor.minimum_interval_seconds is not None and sensor.minimum_interval_seconds <= 30

    def tick() -> str:
        with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance) as context:
            return str(sensor(context).skip_message)

    assert tick() == "nothing new"
    publish(settings, 1, {"A1": USUAL})
    assert tick() == "brought to the pages"
    record(settings.home.feedback_dir, "A1")
    assert tick() == "brought to the pages"
    with duckdb.connect(str(settings.home.published_dir / "current" / "warehouse.duckdb")) as connection:
        connection.execute("DROP TABLE mart.call_list")
    record(settings.home.feedback_dir, "A1", now=MOMENT + timedelta(days=1))
    assert "call_list" in tick()
    assert statuses(settings) == {"A1": "Done Nov 24, 2026"}, "what was shown stays"


def test_the_data_home_knows_its_places_and_cleans_what_was_killed(settings: Settings) -> None:
    publish(settings, 1, {"A1": USUAL})
    record(settings.home.feedback_dir, "A1")
    for _ in range(2):
        renew(settings)
    records.note_restored(Path("/nowhere"), settings.home.history_dir)
    assert unknown(settings.home.root) == []
    folder = settings.home.outcomes_path.parent.parent
    left = [folder / "999999-aaaaaaaa", folder / ".current.999999-aaaaaaaa"]
    left[0].mkdir()
    left[1].symlink_to("999999-aaaaaaaa")
    clean(settings.home)
    assert not any(path.exists() or path.is_symlink() for path in left)
    assert statuses(settings) == {"A1": "Done Nov 24, 2026"}
    assert date(2026, 11, 9) == records.read_records(settings.home.feedback_dir, settings.home.history_dir)[0].week
