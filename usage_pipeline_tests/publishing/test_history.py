"""What is kept for good: only what was published and shown, named by its build, and withdrawn with a reason."""

import json
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.publishing import history
from usage_pipeline.publishing.builds import store_of
from usage_pipeline.publishing.history import ANOMALIES, CALLS, HEALTH, MONTHS, SCORES, HistoryError
from usage_pipeline.publishing.kept_tables import kept_builds
from usage_pipeline.publishing.snapshots import Snapshots
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import keep_as_published, run_refresh

WEEK = "2025-02-24"
_SNAPSHOTS = ("anomaly_snapshots", "score_snapshots", "health_snapshots", "call_snapshots")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(write_config(tmp_path))


def propose(settings: Settings, kind: str, **periods: int) -> None:
    """Proposes periods (`_` for `-`) of so many rows."""
    rows = {name.strip("w").replace("_", "-"): pa.table({"n": list(range(count))}) for name, count in periods.items()}
    with history.history_locked(settings.home, settings.ingest.wait_seconds):
        history.propose(settings.home.history_dir, settings.clock.as_of, kind, rows)


def kept(settings: Settings, kind: str = SCORES) -> list[str]:
    return [file.stem for file in history.kept_files(settings.home.history_dir, kind)]


def readable(settings: Settings, kind: str = SCORES) -> list[str]:
    return [file.stem for file in history.readable_files(settings.home.history_dir, kind)]


def command(settings: Settings, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["history", *words, "-c", str(settings.home.root.parent / "sources.yaml")])
    return done.exit_code, " ".join(done.output.split())


# ---------------------------------------------------------------- from a run to history


def test_what_is_proposed_is_read_and_kept_only_once_it_is_published(settings: Settings) -> None:
    propose(settings, SCORES, w2025_02_17=1)
    assert (kept(settings), readable(settings)) == ([], ["2025-02-17"])
    build = keep_as_published(settings)
    assert (kept(settings), readable(settings)) == (["2025-02-17"], ["2025-02-17"])
    (entry,) = history.entries(settings.home.history_dir)
    assert (entry.kind, entry.period, entry.rows, entry.build_id) == (SCORES, "2025-02-17", 1, build.build_id)
    assert entry.issued_as_of == settings.as_of


def test_what_an_earlier_run_proposed_and_nobody_published_is_forgotten(settings: Settings) -> None:
    """A run three days ahead proposed a week too much, and failed."""
    propose(settings, SCORES, w2025_03_03=1)
    propose(settings, SCORES, w2025_02_24=1)
    keep_as_published(settings)
    assert readable(settings) == kept(settings) == ["2025-02-24"]


def test_what_is_kept_is_never_written_again(settings: Settings) -> None:
    propose(settings, SCORES, w2025_02_24=1)
    keep_as_published(settings)
    (file,) = history.kept_files(settings.home.history_dir, SCORES)
    before = file.read_bytes()
    propose(settings, SCORES, w2025_02_24=5)
    assert pq.read_metadata(history.readable_files(settings.home.history_dir, SCORES)[0]).num_rows == 1
    keep_as_published(settings)
    assert file.read_bytes() == before


def test_of_a_build_behind_a_rollback_nothing_is_kept_until_it_is_released(settings: Settings) -> None:
    first = keep_as_published(settings)
    store = store_of(settings.home, settings.publish)
    store.rollback(first.build_id)
    propose(settings, SCORES, w2025_02_24=1)
    keep_as_published(settings)
    assert kept(settings) == []
    assert (
        CliRunner().invoke(app, ["rollback", "--release", "-c", str(settings.home.root.parent / "sources.yaml")])
    ).output
    assert kept(settings) == [WEEK]


def test_whoever_was_killed_before_an_entry_was_kept_is_made_good_from_the_build(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(settings, SCORES, w2025_02_24=3)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "copyfile", killed)
        keep_as_published(settings)
    # the next run sees other numbers of that week; people saw these
    with history.history_locked(settings.home, settings.ingest.wait_seconds):
        assert [entry.period for entry in history.promote(settings.home)] == [WEEK]
    propose(settings, SCORES, w2025_02_24=9)
    keep_as_published(settings)
    (entry,) = history.entries(settings.home.history_dir)
    assert entry.rows == 3


@pytest.mark.long
def test_a_run_keeps_what_it_published_and_what_failed_or_ran_ahead_keeps_nothing(tmp_path: Path) -> None:
    for number in range(5, 11):
        week = date.fromisocalendar(2025, number, 1)
        write_week(tmp_path / "lake", f"year=2025/week={number:02d}", [event(str(week), clicks=number)])
    settings = load_settings(write_config(tmp_path))
    ahead = settings.model_copy(update={"as_of": settings.as_of + timedelta(days=6)})
    with dg.DagsterInstance.ephemeral() as instance:
        # in the way of the publish
        settings.home.published_dir.parent.mkdir(parents=True)
        settings.home.published_dir.write_text("no folder")
        assert not run_refresh(ahead, instance).success
        settings.home.published_dir.unlink()
        assert history.entries(settings.home.history_dir) == []
        assert readable(settings) == ["2025-03-03"]
        assert run_refresh(settings, instance).success
        build = store_of(settings.home, settings.publish).current()
        assert build is not None
        told = [(entry.kind, entry.period, entry.build_id) for entry in history.entries(settings.home.history_dir)]
        assert told == [(kind, WEEK, build.build_id) for kind in (ANOMALIES, SCORES, HEALTH, CALLS)]

        # nothing changed: nothing is published, and nothing is to be kept
        assert run_refresh(settings, instance, only=[*_SNAPSHOTS, "published_build"]).success
        assert store_of(settings.home, settings.publish).builds() == [build]
        # withdrawn, and issued anew with a build of its own
        assert command(settings, "withdraw", "anomalies", WEEK, "--reason", "made by the wrong settings")[0] == 0
        assert run_refresh(settings, instance, only=["anomaly_snapshots", "published_build"]).success
    first, second = history.entries(settings.home.history_dir, [ANOMALIES])
    assert (first.is_withdrawn, second.is_withdrawn) == (True, False)
    assert second.build_id != build.build_id


# ---------------------------------------------------------------- listing, withdrawing, restoring


def test_an_entry_is_listed_withdrawn_with_a_reason_and_restored(settings: Settings) -> None:
    propose(settings, SCORES, w2025_02_17=1, w2025_02_24=2)
    build = keep_as_published(settings)
    (settings.home.root / "inputs").write_text("a stamp")
    code, said = command(settings, "withdraw", "scores", "2025-02-27", "--reason", "clock  was ahead")
    assert code == 0, said
    assert f"scores of {WEEK} withdrawn" in said
    assert kept(settings) == readable(settings) == ["2025-02-17"]
    assert not (settings.home.root / "inputs").exists(), "or the next refresh would find that nothing changed"
    listed = command(settings, "list")[1]
    assert f"scores 2025-02-17 as of 2025-03-05 00:00 build {build.build_id} 1 rows" in listed
    assert f"scores {WEEK} as of 2025-03-05 00:00 build {build.build_id} 2 rows withdrawn 2" in listed
    assert listed.endswith(": clock was ahead")
    (file,) = (settings.home.history_dir / "scores" / "withdrawn").glob("*.parquet")
    about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    assert about["build"] == build.build_id and about["withdrawn_by"]
    assert pq.read_metadata(file).num_rows == 2

    # its own build does not bring it back
    with history.history_locked(settings.home, settings.ingest.wait_seconds):
        assert history.promote(settings.home) == []
    assert command(settings, "restore", "scores", WEEK)[0] == 0
    assert kept(settings) == ["2025-02-17", WEEK]
    assert not list((settings.home.history_dir / "scores" / "withdrawn").iterdir())


def test_a_withdrawn_week_can_be_issued_anew_and_then_the_old_one_stays_aside(settings: Settings) -> None:
    propose(settings, SCORES, w2025_02_24=2)
    keep_as_published(settings)
    history.withdraw(settings.home, settings.ingest.wait_seconds, SCORES, WEEK, "wrong settings")
    propose(settings, SCORES, w2025_02_24=4)
    assert readable(settings) == [WEEK]
    keep_as_published(settings)
    assert [(entry.rows, entry.is_withdrawn) for entry in history.entries(settings.home.history_dir)] == [
        (2, True),
        (4, False),
    ]
    with pytest.raises(HistoryError, match="were issued anew since: withdraw that entry first"):
        history.restore(settings.home, settings.ingest.wait_seconds, SCORES, WEEK)
    history.withdraw(settings.home, settings.ingest.wait_seconds, SCORES, WEEK, "again")
    assert history.restore(settings.home, settings.ingest.wait_seconds, SCORES, WEEK).rows == 4, (
        "the one that was withdrawn last"
    )


def test_a_month_that_is_withdrawn_takes_its_workbook_along(settings: Settings) -> None:
    propose(settings, MONTHS, w2025_01=2)
    keep_as_published(settings)
    workbook = settings.home.published_dir / "kpi-sheets" / "2025-01" / "kpi-sheet-2025-01.xlsx"
    workbook.parent.mkdir(parents=True)
    workbook.write_bytes(b"figures")
    assert command(settings, "withdraw", "months", "2025-01", "--reason", "a week was missing")[0] == 0
    assert not workbook.exists(), "pages offer what lies there"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["withdraw", "flags", WEEK, "--reason", "x"],
            "there is no history of 'flags': it is one of anomalies, scores",
        ),
        (["withdraw", "scores", "week 9", "--reason", "x"], "'week 9' is not a day: write it as YYYY-MM-DD"),
        (["withdraw", "months", "2025", "--reason", "x"], "'2025' is not a month: write it as YYYY-MM"),
        (
            ["withdraw", "months", "2025-01", "--reason", "x"],
            "nothing is kept of months of 2025-01: nothing of that kind",
        ),
        (["withdraw", "scores", "2025-03-03", "--reason", "x"], "of 2025-03-03: kept are 2025-02-17 to 2025-02-17 (1)"),
        (["withdraw", "scores", "2025-02-17"], "say why, with --reason"),
        (["restore", "scores", "2025-02-17"], "nothing of scores of 2025-02-17 was withdrawn"),
        (["withdraw", "scores", WEEK, "--reason", "x"], f"scores of {WEEK} were withdrawn by"),
    ],
)
def test_what_does_not_exist_is_said_with_what_does(settings: Settings, words: list[str], said: str) -> None:
    propose(settings, SCORES, w2025_02_17=1, w2025_02_24=2)
    keep_as_published(settings)
    history.withdraw(settings.home, settings.ingest.wait_seconds, SCORES, WEEK, "wrong")
    code, output = command(settings, *words)
    assert code == 1
    assert said in output


def test_a_home_without_history_says_so(settings: Settings) -> None:
    assert "nothing is kept yet" in command(settings, "list")[1]


# ---------------------------------------------------------------- tables of what was issued, and of builds


def test_a_table_of_what_was_issued_lacks_no_week(settings: Settings) -> None:
    """An older entry without a column of today is read all the same, and has the default where there is one."""
    columns = {"n": "BIGINT", "of_today": "VARCHAR", "is_shown": "BOOLEAN DEFAULT TRUE"}
    issued = Snapshots(SCORES, "issued", columns)
    propose(settings, SCORES, w2025_02_17=2)
    keep_as_published(settings)
    propose(settings, SCORES, w2025_02_24=1)
    connection = duckdb.connect()
    with history.history_locked(settings.home, settings.ingest.wait_seconds):
        assert issued.replace(connection, settings.home.history_dir) == 2
        rows = connection.execute("SELECT n, of_today, is_shown FROM issued ORDER BY n").fetchall()
        assert rows == [(0, None, True), (0, None, True), (1, None, True)]
        assert issued.replace(connection, settings.home.history_dir, before=date(2025, 2, 24)) == 1


@pytest.mark.long
def test_small_tables_of_each_build_stay_when_the_build_has_gone(tmp_path: Path) -> None:
    write_week(tmp_path / "lake", "year=2025/week=09", [event("2025-02-25")])
    settings = load_settings(write_config(tmp_path, publish={"keep_builds": 1}))
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance).success
        first = store_of(settings.home, settings.publish).current()
        write_week(tmp_path / "lake", "year=2025/week=09", [event("2025-02-25"), event("2025-02-26", "b")])
        assert run_refresh(settings, instance).success
    assert first and not store_of(settings.home, settings.publish).path(first.build_id).exists()
    old, new = kept_builds(settings.home.history_dir)
    assert old.name == first.build_id
    accounts = [pq.read_table(folder / "accounts_summary.parquet").num_rows for folder in (old, new)]
    assert accounts == [1, 2]
    assert not (new / "usage_by_week.parquet").exists(), "large tables can be computed again"
    done = CliRunner().invoke(
        app, ["history", "show", "accounts_summary", "2025-03-05", "-c", str(tmp_path / "sources.yaml")]
    )
    assert done.exit_code == 0 and new.name in done.output
    for words, said in (
        (["accounts_summary", "2025-03-04"], "no build was shown on 2025-03-04: the first is of 2025-03-05"),
        (["nothing", "2025-03-05"], "kept no table 'nothing'"),
        (["accounts_summary", "yesterday"], "'yesterday' is not a day: write it as YYYY-MM-DD"),
    ):
        done = CliRunner().invoke(app, ["history", "show", *words, "-c", str(tmp_path / "sources.yaml")])
        assert done.exit_code == 1 and said in " ".join(done.output.split())
