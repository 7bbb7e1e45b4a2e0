"""Outcomes flow back: into priorities and digests; and nothing is lost by a backup, a restore, or an erasure."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from typer.testing import CliRunner
from usage_superset import outcome_records as written_by

from usage_pipeline.cli import app
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.config.source_schemas import CRM_OUTCOMES
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline.defs.ingestion.assets import reference_asset
from usage_pipeline.defs.outreach.assets import reason_usefulness
from usage_pipeline.notifications.digest import handled_accounts, read_digests
from usage_pipeline.operations import backup
from usage_pipeline.operations.doctor import examine
from usage_pipeline.operations.erase import EraseError, erase
from usage_pipeline.operations.local import SUPERSET
from usage_pipeline.outcomes import records
from usage_pipeline.outcomes.database import renew_outcomes
from usage_pipeline.publishing.builds import store_of
from usage_pipeline.resources import warehouse_of
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.lakes import write_config
from usage_pipeline_tests.support.outcomes import MOMENT, record
from usage_pipeline_tests.support.people import WORDS, make_home, names_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(write_config(tmp_path, as_of="2026-11-22"))


def useless(folder: Path, kind: str, count: int = 20) -> None:
    for n in range(count):
        useful = [{"call_reason": kind, "is_useful": False, "why_not": "no problem"}]
        record(folder, f"A{n}", now=MOMENT + timedelta(seconds=n), useful=useful)


# outcomes of the form and of the CRM come together here
STEPS = [reference_asset(CRM_OUTCOMES), reason_usefulness]


# ---------------------------------------------------------------- priorities


def test_the_step_copies_records_and_says_which_kinds_move_down(settings: Settings) -> None:
    useless(settings.home.feedback_dir, "inactive")
    useless(settings.home.feedback_dir, "usage drop", 19)
    resources = {"warehouse": warehouse_of(settings.home, settings.ingest.wait_seconds), "settings": settings}
    for _ in range(2):  # a second run gives the same table
        result = dg.materialize(STEPS, resources=resources)
        assert result.success
        with duckdb.connect(str(settings.home.warehouse_path)) as connection:
            rows = connection.execute(
                "SELECT call_reason, reason_answers, is_moved_down FROM core.reason_usefulness ORDER BY 1"
            ).fetchall()
        assert rows == [("inactive", 20, True), ("usage drop", 19, False)]
    assert len(records.files_in(records.kept_folder(settings.home.history_dir))) == 39


def test_without_records_the_table_is_there_and_empty(settings: Settings) -> None:
    resources = {"warehouse": warehouse_of(settings.home, settings.ingest.wait_seconds), "settings": settings}
    assert dg.materialize(STEPS, resources=resources).success
    with duckdb.connect(str(settings.home.warehouse_path)) as connection:
        assert connection.execute("FROM core.reason_usefulness").fetchall() == []


def test_a_useless_kind_comes_one_priority_lower_and_nothing_else_changes(demo: Demo, tmp_path: Path) -> None:
    shutil.copy(demo.settings.home.warehouse_path, tmp_path / "warehouse.duckdb")

    def reasons(connection: duckdb.DuckDBPyConnection) -> dict[tuple[str, str, str], tuple[int, str, str]]:
        rows = run_sql(connection, load_sql("defs/outreach", "call_reasons"), sql_values(demo.settings))
        found = rows.df()
        keys = zip(found["account_id"], found["application_key"], found["call_reason"], strict=True)
        return dict(zip(keys, zip(found["urgency_rank"], found["urgency"], found["reason"], strict=True), strict=True))

    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        before = reasons(connection)
        connection.execute("INSERT INTO core.reason_usefulness (call_reason, is_moved_down) VALUES ('inactive', TRUE)")
        after = reasons(connection)
    assert before.keys() == after.keys()
    names = {1: "Urgent", 2: "This week", 3: "Watch"}
    moved = 0
    for key, (rank, urgency, reason) in before.items():
        wanted = min(3, rank + 1) if key[2] == "inactive" else rank
        moved += wanted != rank
        assert after[key] == (wanted, names[wanted], reason)
        assert urgency == names[rank]
    assert moved > 0


# ---------------------------------------------------------------- the digest


@pytest.fixture
def with_outcomes(demo: Demo, tmp_path: Path) -> Settings:
    """The demo's builds, and a home of its own for outcomes."""
    (tmp_path / "published").symlink_to(demo.settings.home.published_dir)
    return demo.settings.model_copy(update={"home": DataHome(tmp_path)})


def issued(demo: Demo, account_id: str) -> list[dict[str, Any]]:
    with duckdb.connect(str(demo.warehouse.resolve()), read_only=True) as connection:
        rows = connection.execute(
            "SELECT application_key, call_reason, CAST(CAST(reason_since AS DATE) AS VARCHAR), urgency_rank "
            "FROM mart.call_reasons WHERE account_id = ?",
            [account_id],
        ).fetchall()
    return [dict(zip(("application_key", "call_reason", "since", "urgency_rank"), row, strict=True)) for row in rows]


def test_what_is_done_or_snoozed_leaves_the_digest_until_something_new_comes(
    demo: Demo, with_outcomes: Settings
) -> None:
    settings, store = with_outcomes, store_of(with_outcomes.home, with_outcomes.publish)
    build = store.current()
    assert build is not None

    def told() -> list[str]:
        digests, _ = read_digests(store, build, handled_accounts(settings.home, settings.clock.as_of_day, store, build))
        return sorted(call["account_id"] for digest in digests for call in digest.calls)

    all_of = told()
    done, snoozed, kept, changed = all_of[:4]
    record(settings.home.feedback_dir, done, reasons=issued(demo, done))
    record(settings.home.feedback_dir, snoozed, status="snoozed", reasons=issued(demo, snoozed))
    record(settings.home.feedback_dir, kept, status="open", reasons=issued(demo, kept))
    record(settings.home.feedback_dir, changed, reasons=issued(demo, changed)[1:])
    assert told() == sorted(set(all_of) - {done, snoozed})
    renew_outcomes(settings.home, settings.clock, settings.outcomes)
    with duckdb.connect(str(settings.home.outcomes_path.resolve()), read_only=True) as connection:
        rows = dict(connection.execute("SELECT account_id, call_status FROM outcomes.call_status").fetchall())
    assert {account for account, status in rows.items() if status != "open"} == {done, snoozed}, "as on the page"


# ---------------------------------------------------------------- backup and restore


def test_a_restore_merges_and_never_replaces(settings: Settings, tmp_path: Path) -> None:
    first = record(settings.home.feedback_dir, "A1", "as it was")
    packed = BytesIO()
    backup.back_up(settings.home, settings.ingest.wait_seconds, packed)
    assert b"as it was" in packed.getvalue(), "its copy was made for the backup"
    later = record(settings.home.feedback_dir, "A2", now=MOMENT + timedelta(hours=1))
    new_home = tmp_path / "new"
    shutil.copytree(settings.home.feedback_dir, new_home / "feedback")
    content = later.read_bytes()
    (new_home / "feedback" / first.name).unlink()
    packed.seek(0)
    backup.restore(new_home, packed)
    restored = settings.model_copy(update={"home": DataHome(new_home)})
    found = records.read_records(restored.home.feedback_dir, restored.home.history_dir)
    assert [one.account_id for one in found] == ["A1", "A2"]
    assert (new_home / "feedback" / later.name).read_bytes() == content
    assert (new_home / "feedback" / first.name).read_bytes() == first.read_bytes()
    assert records.problems(restored.home.feedback_dir, restored.home.history_dir) == []


def test_where_superset_alone_may_write_the_form_has_the_notes_of_before_after_a_restore(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Docker Compose the pipeline mounts the folder read-only: after a restore the form said "Nothing yet".

    What it has is piped to Superset, which writes it; what people recorded meanwhile stays.
    """
    first = record(settings.home.feedback_dir, "A1", "as it was\nin two lines, \u2028 and é")
    packed = BytesIO()
    backup.back_up(settings.home, settings.ingest.wait_seconds, packed)
    new_home, feedback = tmp_path / "new", tmp_path / "new" / "feedback"

    def read_only(folder: Path) -> None:
        raise OSError(30, "Read-only file system", str(folder))

    packed.seek(0)
    with monkeypatch.context() as patch:
        patch.setattr(records, "make_folder", read_only)
        backup.restore(new_home, packed)
    assert written_by.records_of(feedback, "A1") == []
    (tmp_path / "c").mkdir()
    config = write_config(tmp_path / "c", home=str(new_home))

    def brought() -> str:
        sent = CliRunner().invoke(app, ["outcomes", "export", "-c", str(config)])
        assert sent.exit_code == 0
        done = subprocess.run(
            [sys.executable, "-m", "usage_superset.outcome_records", "bring-back"],
            input=sent.stdout,
            env={"USAGE_FEEDBACK": str(feedback), "PYTHONPATH": str(SUPERSET)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert brought() == "superset: 1 outcomes of the backup are on the form again"
    (found,) = written_by.records_of(feedback, "A1")
    assert found == json.loads(first.read_text())
    later = record(feedback, "A1", "since then", now=MOMENT + timedelta(days=1))
    assert brought() == "superset: 0 outcomes of the backup are on the form again"
    assert later.exists() and len(written_by.records_of(feedback, "A1")) == 2
    assert records.problems(feedback, new_home / "history") == []
    # what is Superset's again can be missing again
    records.keep(feedback, new_home / "history")
    (feedback / first.name).unlink()
    assert [p.name for p in records.problems(feedback, new_home / "history")] == [first.name]


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"id": "../../x", "recorded_at": "2026-11-24", "account_id": "A1"}'])
def test_what_is_no_record_is_not_brought_back(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match="line 1 is no record"):
        written_by.bring_back(tmp_path / "feedback", [line])
    assert list((tmp_path / "feedback").iterdir()) == []


def test_a_note_that_was_erased_since_the_backup_stays_erased_where_it_is(settings: Settings, tmp_path: Path) -> None:
    file = record(settings.home.feedback_dir, "A1", "Anna Archer called")
    packed = BytesIO()
    backup.back_up(settings.home, settings.ingest.wait_seconds, packed)
    new_home = tmp_path / "new"
    shutil.copytree(settings.home.feedback_dir, new_home / "feedback")
    records.forget_note(new_home / "feedback" / file.name)
    packed.seek(0)
    backup.restore(new_home, packed)
    assert "Archer" not in (new_home / "feedback" / file.name).read_text()
    (problem,) = records.problems(new_home / "feedback", new_home / "history")
    assert "lost its note" in problem.words, (
        "the backup brought it back, as it does all of a person: said, to erase again"
    )


# ---------------------------------------------------------------- erasing a person


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with contacts. Nobody changes it."""
    return make_home(tmp_path_factory.mktemp("people"))


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Settings:
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    return load_settings(tmp_path / "copy" / "sources.yaml")


@pytest.mark.long
def test_an_erased_person_is_gone_from_notes_and_the_chain_stays_whole(home: Settings) -> None:
    notes = ["Anna Archer wants a call", "mail to ANNA@springfield.example", "u-anna is new", "nobody in particular"]
    for n, note in enumerate(notes):
        record(home.home.feedback_dir, "a", note, MOMENT + timedelta(minutes=n))
    # of another account, a name may be somebody else's
    record(home.home.feedback_dir, "b", "Anna Archer of Shelbyville", MOMENT + timedelta(hours=1))
    with dg.DagsterInstance.ephemeral():
        records.keep(home.home.feedback_dir, home.home.history_dir)
    seen = erase(home, "a", "u-anna", dry=True)
    assert seen.places["notes on outcomes"] == 6, "each with its copy"
    done = erase(home, "a", "u-anna")
    assert done.places["notes on outcomes"] == 6
    left = [one.note.text for one in records.read_records(home.home.feedback_dir, home.home.history_dir) if one.note]
    assert left == ["nobody in particular", "Anna Archer of Shelbyville"]
    assert records.problems(home.home.feedback_dir, home.home.history_dir) == []
    assert [found for found in names_of(home.home.root, WORDS[:2]) if "feedback" in found or "outcomes" in found] == []
    assert "notes on outcomes" not in erase(home, "a", "u-anna").places, "a second run finds nothing"


@pytest.mark.long
def test_where_superset_alone_may_write_the_command_for_it_is_named(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = record(home.home.feedback_dir, "a", "u-anna called")

    def read_only(_: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("usage_pipeline.operations.erase.forget_note", read_only)
    with pytest.raises(EraseError, match=f"usage forget-notes {file.stem[-32:]}"):
        erase(home, "a", "u-anna")


# ---------------------------------------------------------------- what is changed or missing is said


def test_doctor_and_verify_say_what_was_changed_or_is_missing(settings: Settings, tmp_path: Path) -> None:
    config = tmp_path / "sources.yaml"
    files = [record(settings.home.feedback_dir, f"A{n}", now=MOMENT + timedelta(minutes=n)) for n in range(3)]
    records.keep(settings.home.feedback_dir, settings.home.history_dir)

    def said() -> list[tuple[str, str]]:
        found = examine(settings, config, datetime.now(UTC))
        return [(finding.level, finding.words) for finding in found if finding.about == "outcomes"]

    assert said() == [("ok", "3 recorded, none changed or missing")]
    run = CliRunner().invoke(app, ["outcomes", "verify", "-c", str(config)])
    assert run.exit_code == 0 and "3 records, none changed or missing" in run.output
    files[0].write_text(json.dumps(json.loads(files[0].read_text()) | {"status": "open"}))
    files[2].unlink()
    assert [(level, words.partition(" ")[0]) for level, words in said()] == [
        ("failed", files[0].name),
        ("failed", files[2].name),
    ]
    run = CliRunner().invoke(app, ["outcomes", "verify", "-c", str(config)])
    assert run.exit_code != 0 and files[0].name in run.output and "is missing" in run.output


def test_the_list_tells_who_recorded_what_and_no_note(settings: Settings, tmp_path: Path) -> None:
    useful = [{"call_reason": "inactive", "is_useful": False, "why_not": "other"}]
    record(settings.home.feedback_dir, "A1", "quite secret", useful=useful)
    run = CliRunner().invoke(app, ["outcomes", "list", "-c", str(tmp_path / "sources.yaml")])
    assert "2026-11-24 09:30  anna  A1 Town of A1  done, reached; inactive: useless" in run.output
    assert "secret" not in run.output
