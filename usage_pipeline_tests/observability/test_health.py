"""The data status: what the status file says after good, troubled and failed runs, and the page that shows it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pytest
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.formatting import cause_of_failure, duration, found_as_text, without_values
from usage_pipeline.core.tables import STATUS_TABLES, schema_violation
from usage_pipeline.demo.lake import add_week
from usage_pipeline.ingestion.facts import read_manifests
from usage_pipeline.observability.status import write_status
from usage_pipeline.publishing.builds import store_of
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh
from usage_pipeline_tests.support.servers import SupersetServer, copy_superset, serve_superset
from usage_pipeline_tests.support.superset_client import PERIOD, Client, data_of, log_in, open_dashboard

pytestmark = pytest.mark.long

TROUBLED_WEEK = pd.Timestamp("2026-11-02")
BROKEN_WEEK = pd.Timestamp("2026-11-16")


def ask(file: Path, sql: str) -> pd.DataFrame:
    with duckdb.connect(str(file.resolve()), read_only=True) as connection:
        return connection.execute(sql).df()


def health_of(file: Path) -> Any:
    return ask(file, "FROM status.health").iloc[0]


@dataclass(frozen=True)
class Story:
    """A copy of the demo in which a week went by with every trouble, and the run after that failed."""

    folder: Path
    settings: Settings
    after_trouble: Path
    after_failure: Path
    shown_before_failure: str


@pytest.fixture(scope="module")
def story(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("health") / "demo"
    demo.copied_to(folder)
    add_week(folder, late=True, broken=True)
    week = folder / "lake" / "usage" / "year=2026" / "week=45" / "part-0.parquet"
    rows = pd.read_parquet(week)
    rows.loc[:39, "clicks"] = -3
    rows.loc[40:60, "account_id"] = None
    rows.loc[70:75, "account_id"] = "STRANGER"
    rows.to_parquet(week)
    settings = load_settings(folder / "sources.yaml")
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance).success
        write_status(settings.home, settings.clock, settings.sources, instance)
        after_trouble = settings.home.status_path.resolve()
        shown = store_of(settings.home, settings.publish).current()
        accounts = folder / "lake" / "accounts.csv"
        accounts.write_text(accounts.read_text().replace("account_id", "customer", 1))
        # as if none had been taken before: otherwise the delivery before would stay in force
        shutil.rmtree(settings.home.history_dir / "reference" / "accounts")
        assert not run_refresh(settings, instance).success
        write_status(settings.home, settings.clock, settings.sources, instance)
    assert shown is not None
    return Story(folder, settings, after_trouble, settings.home.status_path.resolve(), shown.build_id)


@pytest.fixture(scope="module")
def server(
    story: Story, superset: SupersetServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SupersetServer]:
    """The same Superset, set up once, serving the copy."""
    folder = tmp_path_factory.mktemp("superset-health")
    copy_superset(superset.folder, folder)
    with serve_superset(story.settings, folder) as serving:
        yield serving


def shown_on(browser: Any, server: SupersetServer, slug: str) -> str:
    """The text of a page, as a viewer without contacts sees it at 1400 pixels."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    log_in(page, server, "viewer")
    open_dashboard(page, server, slug)
    assert page.locator(".ant-alert-error, [data-test=error-message]").count() == 0
    text = str(page.inner_text("body"))
    context.close()
    return text


# ---------------------------------------------------------------- the file


def test_the_tables_are_those_of_the_catalogue_after_good_and_failed_runs(demo: Demo, story: Story) -> None:
    for file in (demo.settings.home.status_path.resolve(), story.after_trouble, story.after_failure):
        with duckdb.connect(str(file), read_only=True) as connection:
            assert [broken.problem for t in STATUS_TABLES if (broken := schema_violation(connection, t))] == []


def test_after_a_good_run_all_is_well(demo: Demo) -> None:
    health = health_of(demo.settings.home.status_path)
    assert health["summary"] == "All is well as of Nov 22, 2026"
    assert health["data_through"] == pd.Timestamp("2026-11-15")
    assert health["run_result"] == "succeeded"
    assert "Data through Nov 15, 2026, as of Nov 22, 2026 at 00:00. Shown: build 00001-" in health["health_sentence"]
    assert (health["checks_failed"], health["files_quarantined"], health["weeks_wrong"]) == (0, 0, 0)


def test_each_source_says_what_came_and_when(demo: Demo) -> None:
    sources = ask(demo.settings.home.status_path, "FROM status.sources").set_index("source")
    lake = demo.folder / "lake"
    assert list(sources.index) == [
        "usage",
        "accounts",
        "subscriptions",
        "contacts",
        "applications",
        "known causes",
        "crm outcomes",
    ]
    assert sources.at["usage", "newest"] == "week of Nov 16, 2026"
    assert sources.at["usage", "rows_kept"] == len(demo.raw())
    assert sources.at["accounts", "rows_kept"] == len(pd.read_csv(lake / "accounts.csv"))
    assert sources.at["contacts", "rows_kept"] == len(pd.read_parquet(lake / "contacts.parquet"))
    assert sources.at["crm outcomes", "delivery"] == "not delivered"
    delivered = sources.drop("crm outcomes")
    assert set(delivered["ingested_at"]) == {pd.Timestamp("2026-11-22")}
    assert set(delivered["age_days"]) == {0}


def test_a_source_that_is_not_configured_is_not_delivered(tmp_path, instance) -> None:
    settings = load_settings(write_config(tmp_path))
    write_status(settings.home, settings.clock, settings.sources, instance)
    sources = ask(settings.home.status_path, "FROM status.sources").set_index("source")
    assert sources.at["usage", "delivery"] == "nothing taken in yet"
    assert set(sources.drop("usage")["delivery"]) == {"not delivered"}
    health = health_of(settings.home.status_path)
    assert health["summary"] == "Nothing is published yet"
    assert health["health_sentence"].startswith("No numbers are on the pages yet. No run has ended yet.")


def test_after_a_run_with_troubles_the_page_warns_and_counts_them(story: Story) -> None:
    health = health_of(story.after_trouble)
    assert health["summary"] == "Up to date, with warnings"
    assert (health["files_quarantined"], health["rows_rejected"], health["weeks_wrong"]) == (1, 61, 0)
    aside = ask(story.after_trouble, "FROM status.quarantined_files").iloc[0]
    assert (aside["week_start"], aside["file"]) == (BROKEN_WEEK, "year=2026/week=47/part-1.parquet")
    checks = ask(story.after_trouble, "FROM status.checks ORDER BY check_rank")
    assert health["checks_warning"] == (checks["check_result"] == "warns").sum() > 0
    told = checks.set_index("statement").at["no quarantined file", "found"]
    assert told.startswith("files: key: year=2026/week=47/part-1.parquet, reason: cannot be read")


def test_rows_rejected_are_those_of_the_ledger(story: Story) -> None:
    found = ask(story.after_trouble, "FROM status.rejected_rows")
    assert set(found["week_start"]) == {TROUBLED_WEEK}
    history = pd.read_parquet(story.settings.home.root / found["kept_in"][0])
    assert found.set_index("rejected_because")["rows_rejected"].to_dict() == history["reason"].value_counts().to_dict()


def test_every_click_of_the_raw_files_is_found_week_by_week(story: Story) -> None:
    weeks = ask(story.after_trouble, "FROM status.reconciled_weeks").set_index("week_start")
    monday: Any
    for monday, row in weeks.iterrows():
        iso = monday.isocalendar()
        folder = story.folder / "lake" / "usage" / f"year={iso.year}" / f"week={iso.week:02d}"
        sound = [file for file in folder.glob("*.parquet") if file.name != "part-1.parquet"]
        raw = pd.concat([pd.read_parquet(file) for file in sound])
        assert row["clicks_in_files"] == raw["clicks"].sum()
        assert row["clicks_kept"] == raw.loc[raw["account_id"].notna() & (raw["clicks"] >= 0), "clicks"].sum()
    assert (weeks["clicks_difference"] == 0).all()
    assert (weeks["clicks_by_date"] == weeks["clicks_published"]).all()
    assert weeks["clicks_kept"].sum() == weeks["clicks_published"].sum()
    # rows that came late lie in the next week's folder and count in their own week
    assert weeks.at[BROKEN_WEEK, "clicks_by_date"] > weeks.at[BROKEN_WEEK, "clicks_kept"]


def test_ids_that_nobody_knows_are_counted_and_users_are_not_named(story: Story) -> None:
    found = ask(story.after_trouble, "FROM status.unmatched_ids").set_index("unmatched_kind")
    assert found.at["accounts", "unmatched"] == 1
    assert found.at["accounts", "examples"].startswith("STRANGER (")
    assert found.at["applications", "unmatched"] == 0
    lake = story.folder / "lake" / "usage"
    files = [f for f in lake.rglob("*.parquet") if f.name != "part-1.parquet"]
    rows = pd.concat([pd.read_parquet(f) for f in files])
    weeks = [pd.Timestamp(week) for week in read_manifests(story.settings.home.facts_dir)]
    rows = rows[rows["account_id"].notna() & (rows["clicks"] >= 0) & (rows["event_time"] >= min(weeks))]
    used = rows[["account_id", "user_id"]].dropna().drop_duplicates()
    people = pd.read_parquet(story.folder / "lake" / "contacts.parquet")[["account_id", "user_id"]].drop_duplicates()
    unknown = used.merge(people, how="left", indicator=True)["_merge"].eq("left_only").sum()
    assert found.at["users", "unmatched"] == unknown > 0
    assert not any(user in found.at["users", "examples"] for user in used["user_id"])


def test_no_person_stands_in_the_status_file(story: Story) -> None:
    text = ""
    for file in (story.after_trouble, story.after_failure):
        for table in STATUS_TABLES:
            text += ask(file, f"FROM {table.full_name}").to_csv()
    people = pd.read_parquet(story.folder / "lake" / "contacts.parquet")
    for column in ("name", "email", "phone", "user_id"):
        assert [value for value in people[column].dropna() if str(value) in text] == []
    assert str(story.folder) not in text, "and no path of the machine"


def test_a_file_that_nobody_writes_any_more_does_not_say_that_all_is_fresh(demo: Demo, tmp_path) -> None:
    old = tmp_path / "usage_status.duckdb"
    shutil.copyfile(demo.settings.home.status_path.resolve(), old)
    with duckdb.connect(str(old)) as connection:
        connection.execute("UPDATE written.clock SET last_run_at = last_run_at - INTERVAL 12 DAYS, pinned_as_of = NULL")
        connection.execute("UPDATE written.sources SET ingested_at = now()::TIMESTAMP - INTERVAL 12 DAYS")
    assert health_of(old)["summary"] == "Nothing has run for 12 days"
    assert "see whether Dagster and its daemon are up" in health_of(old)["health_sentence"]
    assert set(ask(old, "FROM status.sources")["age_days"]) <= {11, 12, 13}


def test_facts_that_cannot_be_read_are_told_and_stop_nothing(tmp_path, instance) -> None:
    settings = load_settings(write_config(tmp_path))
    broken = settings.home.facts_dir / "week=2025-01-06" / "facts.parquet"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"PAR1 and then nothing")
    write_status(settings.home, settings.clock, settings.sources, instance)
    assert "The facts cannot be read: " in health_of(settings.home.status_path)["health_sentence"]


def test_old_files_are_taken_away_and_the_newest_is_shown(tmp_path, instance) -> None:
    settings = load_settings(write_config(tmp_path))
    written = []
    for _ in range(7):
        write_status(settings.home, settings.clock, settings.sources, instance)
        written.append(settings.home.status_path.resolve())
    assert len(set(written)) == 7, "a path never changes its content"
    assert [file.exists() for file in written] == [False] * 2 + [True] * 5
    assert {item.name for item in settings.home.status_path.parents[1].iterdir() if item.is_dir()} == {
        *(file.parent.name for file in written[-5:]),
        "current",
    }


def test_a_rollback_is_told_at_once(tmp_path, instance, monkeypatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    for number in range(8):
        monday = date(2025, 1, 6) + timedelta(weeks=number)
        folder = f"year=2025/week={monday.isocalendar().week:02d}"
        write_week(tmp_path / "lake", folder, [event(str(monday), clicks=5)])
    config = write_config(tmp_path)
    settings = load_settings(config)
    assert run_refresh(settings, instance).success
    write_week(tmp_path / "lake", "year=2025/week=07", [event("2025-02-10", clicks=9)])
    assert run_refresh(settings, instance).success
    newest = store_of(settings.home, settings.publish).builds()[-1].build_id
    assert CliRunner().invoke(app, ["rollback", "-c", str(config)]).exit_code == 0
    health = health_of(settings.home.status_path)
    assert health["summary"] == "An older build is held: new numbers are not shown"
    assert f"held by a rollback; the newest is {newest}" in health["health_sentence"]
    weeks = ask(settings.home.status_path, "FROM status.reconciled_weeks").set_index("week_start")
    assert weeks.at[pd.Timestamp("2025-02-10"), "reconciled"] == "not yet: an older build is held"
    assert CliRunner().invoke(app, ["rollback", "--release", "-c", str(config)]).exit_code == 0
    builds = ask(settings.home.status_path, "FROM status.builds").set_index("build_id")
    assert builds.at[newest, "build_state"] == "shown"


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("step", "kind", "message", "said"),
    [
        ("accounts", "SourceError", "x.y.SourceError: sources.accounts: no column", "accounts: sources.accounts: no column"),
        ("weeks", "KeyError", "KeyError: 'a'\nTraceback", "weeks: KeyError: 'a'"),
        ("contacts", "ConversionException", "Jane Doe", "contacts: ConversionException; what it says could hold"),
        ("usage_facts", "LakeError", "for jane.doe@town.gov: no", "usage_facts: for (e-mail address): no"),
        ("weeks", "ConversionException", 'Could not convert string "Jane D" to INT64', 'string (left out) to INT64'),
    ],
)  # fmt: skip
def test_a_cause_is_told_in_words_and_without_persons(step: str, kind: str, message: str, said: str) -> None:
    told = cause_of_failure(step, kind, message)
    assert said in told
    assert "Jane" not in told


def test_what_a_check_found_is_told_in_words() -> None:
    found = found_as_text({"weeks_wrong": {}, "rows_rejected": 1234, "files": [{"key": "a", "reason": "b"}]})
    assert found == "rows rejected: 1,234; files: key: a, reason: b"
    assert [duration(s) for s in (None, 0.2, 83, 3723)] == [None, "less than 1 s", "1 min 23 s", "1 h 2 min"]
    assert without_values("of 'a.b@c.de'") == "of '(e-mail address)'"


# ---------------------------------------------------------------- the page


@pytest.mark.superset
def test_the_page_says_that_all_is_well(superset: SupersetServer, browser: Any, demo: Demo) -> None:
    text = shown_on(browser, superset, "health")
    assert "All is well as of Nov 22, 2026" in text
    assert "Data through Nov 15, 2026" in text
    assert "<span" not in text and "font-size" not in text, "the light is drawn, not written"
    viewer = Client(superset, "viewer")
    weeks = data_of(viewer, "weeks_reconciled").set_index("week_start")
    weeks.index = pd.to_datetime(weeks.index, unit="ms")
    clicks = demo.raw().groupby("week_start")["clicks"].sum()
    assert weeks["clicks_published"].sort_index().to_dict() == clicks.to_dict()


@pytest.mark.superset
@pytest.mark.soak
def test_every_other_page_leads_to_it(superset: SupersetServer, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    log_in(page, superset, "viewer")
    open_dashboard(page, superset, "low-inactive")
    link = page.locator("td a[href='/d/']").first.get_attribute("href")
    page.goto(superset.url + link)
    page.wait_for_selector("text=Source freshness")
    context.close()


@pytest.mark.superset
def test_after_a_failed_run_the_page_says_why_and_the_other_pages_stay(
    story: Story, server: SupersetServer, browser: Any
) -> None:
    shown = store_of(story.settings.home, story.settings.publish).current()
    assert shown is not None
    assert shown.build_id == story.shown_before_failure
    text = shown_on(browser, server, "health")
    assert "The last run failed: older numbers stay up" in text
    assert "sources.accounts.columns.account_id: there is no column 'account_id'" in text
    since = health_of(story.after_failure)["shown_since"]
    stay = f"The numbers of before stay up, as they have stood since {since:%b %-d, %Y} at {since:%H:%M}"
    assert stay in text
    assert "year=2026/week=47/part-1.parquet" in text
    viewer = Client(server, "viewer")
    build = story.settings.home.published_dir / story.shown_before_failure / "warehouse.duckdb"
    clicks = ask(build, "SELECT sum(clicks) AS n FROM mart.usage_by_period WHERE period = 'Last 4 weeks'")["n"][0]
    assert data_of(viewer, "clicks_in_period", PERIOD).iloc[0, 0] == clicks
    assert f"{int(clicks):,}" in shown_on(browser, server, "applications-accounts")
    runs = data_of(viewer, "last_runs")
    assert list(runs["run_result"]) == ["failed", "succeeded"]


@pytest.mark.superset
def test_a_status_that_is_replaced_is_seen_at_the_next_look(story: Story, server: SupersetServer, instance) -> None:
    viewer = Client(server, "viewer")
    state = "build_state"
    assert "shown" in set(data_of(viewer, "builds_kept")[state])
    pinned = story.settings.home.published_dir / "pinned"
    pinned.write_text(story.shown_before_failure)
    try:
        write_status(story.settings.home, story.settings.clock, story.settings.sources, instance)
        assert "shown, held by a rollback" in set(data_of(viewer, "builds_kept")[state])
    finally:
        pinned.unlink()
