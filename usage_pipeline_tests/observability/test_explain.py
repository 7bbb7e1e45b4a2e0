"""`usage-pipeline explain`: what it tells of a number, against pandas on the raw rows of the lake."""

import json
import shutil
import threading
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
from usage_pipeline.core.locks import file_lock
from usage_pipeline.core.names import Named, UnclearNameError, UnknownNameError, resolve
from usage_pipeline.observability.explain import Explanation, explain
from usage_pipeline.observability.explain_text import as_text
from usage_pipeline.resources import warehouse_of
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh

NEWEST = date(2026, 11, 9)


def explained(settings: Settings, account: str, application: str, day: date | None = None) -> Explanation:
    with warehouse_of(settings.home, settings.ingest.wait_seconds).read() as connection:
        return explain(connection, settings, account, application, day)


def text_of(found: Explanation) -> str:
    """The screen as one line, so that a sentence is found wherever it is wrapped."""
    return " ".join(" ".join(as_text(found)).split())


def rows(demo: Demo, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(demo.warehouse), read_only=True) as connection:
        return connection.execute(sql, list(values)).fetchall()


def of_raw(raw: pd.DataFrame, found: Explanation) -> pd.DataFrame:
    is_account_application = (raw["account_id"] == found.account.key) & (raw["application"] == found.application.key)
    return raw[is_account_application & (raw["week_start"] == pd.Timestamp(found.week.week_start))]


def test_numbers_days_and_users_equal_pandas_on_the_raw_rows(demo: Demo) -> None:
    raw = demo.raw()
    keys = ["account_id", "application", "week_start"]
    some = raw[raw["week_start"] <= pd.Timestamp(NEWEST)][keys].drop_duplicates().sample(25, random_state=3)
    with warehouse_of(demo.settings.home, demo.settings.ingest.wait_seconds).read() as connection:
        for account, application, week in some.itertuples(index=False):
            # any day of the week names it
            found = explain(connection, demo.settings, account, application, week.date() + timedelta(days=3))
            expected = of_raw(raw, found)
            sums = {
                "clicks": expected["clicks"].sum(),
                "records": expected["records_created"].sum(),
                "users": expected["user_id"].nunique(),
            }
            assert found.raw.sums == sums
            assert found.page.value == sums
            assert found.page.agrees == dict.fromkeys(sums, True)
            assert "they agree" in text_of(found)
            by_day = expected.groupby([expected["event_time"].dt.date, "user_id"])["clicks"].sum()
            told = {(row["day"], row["user_id"]): row["clicks"] for row in found.raw.rows}
            assert told == by_day.to_dict()


def test_rows_that_came_late_are_told_with_their_folder(demo: Demo) -> None:
    week = date.fromisoformat(demo.truth["late_week"])
    raw = demo.raw()
    end = raw[(raw["week_start"] == pd.Timestamp(week)) & (raw["event_time"] >= pd.Timestamp(week + timedelta(days=5)))]
    account, application = end[["account_id", "application"]].iloc[0]
    found = explained(demo.settings, account, application, week)
    assert {row["folder"] for row in found.raw.rows} >= {week + timedelta(days=7)}
    assert found.raw.sums["clicks"] == of_raw(raw, found)["clicks"].sum()
    assert "and count by their own date" in text_of(found)


def test_a_week_without_use_in_subscription_is_a_known_zero(demo: Demo) -> None:
    account, application, week = rows(
        demo,
        "SELECT account_id, application_key, week_start FROM mart.usage_by_week WHERE clicks = 0 AND subscribed_days = 7 "
        "AND is_complete AND clicks_last_year > 0 ORDER BY week_start DESC, account_id LIMIT 1",
    )[0]
    found = explained(demo.settings, account, application, week.date())
    assert len(of_raw(demo.raw(), found)) == 0
    assert found.page.value["clicks"] == 0
    assert all(found.page.agrees.values())
    assert found.subscription.days == 7
    assert "0 clicks, 0 records created, 0 users: nobody came, and that is known" in text_of(found)


def test_a_week_after_an_ended_subscription_has_no_zero_and_no_state(demo: Demo) -> None:
    account, application, end = rows(
        demo,
        "SELECT account_id, application_key, end_date FROM mart.ended_subscriptions WHERE clicks_outside_subscription = 0 "
        "AND end_date < TIMESTAMP '2026-09-01' ORDER BY end_date DESC LIMIT 1",
    )[0]
    found = explained(demo.settings, account, application)
    assert found.week.week_start == NEWEST
    assert (found.subscription.days, found.subscription.state) == (0, "ended")
    assert len(of_raw(demo.raw(), found)) == 0
    assert found.page.value["clicks"] is None
    assert all(found.page.agrees.values())
    assert found.state is None
    text = text_of(found)
    assert "after the subscription ended: outside a subscription there is no zero" in text
    assert f"ended on {end:%b %-d, %Y}, so it has no usage state and can be neither low nor inactive" in text
    assert "the application is not scored: the subscription has ended" in text
    # the week it ended in counts the days until then
    last = explained(demo.settings, account, application, end.date())
    assert last.subscription.days == end.weekday() + 1
    assert "it ended in this week" in text_of(last)
    # and before it began, there is none either
    began = last.subscription.subscription_periods[0]["start_date"]
    before = explained(demo.settings, account, application, began - timedelta(days=7))
    assert before.subscription.state == "not started"


def test_an_application_that_was_never_used_is_told_so(demo: Demo) -> None:
    account, application = rows(
        demo,
        "SELECT account_id, application_key FROM mart.subscription_overview WHERE usage_state = 'never adopted' "
        "AND reason NOT LIKE '%used before%' ORDER BY ALL LIMIT 1",
    )[0]
    raw = demo.raw()
    assert not ((raw["account_id"] == account) & (raw["application"] == application)).any()
    found = explained(demo.settings, account, application)
    assert found.raw.rows == []
    assert found.state is not None
    assert found.state["usage_state"] == "never adopted"
    assert "not used in the subscription that runs" in text_of(found)


def test_an_account_without_known_subscription_is_told_so(demo: Demo) -> None:
    account = demo.truth["without_subscription"][0]
    raw = demo.raw()
    application = raw[raw["account_id"] == account]["application"].iloc[0]
    found = explained(demo.settings, account, application)
    assert found.subscription.delivered == []
    assert not found.subscription.is_known
    text = text_of(found)
    assert "as delivered: nothing; whether this account has a subscription is not known" in text
    assert "inferred from use alone: no subscription was delivered" in text
    assert all(found.page.agrees.values())


def test_the_subscription_rows_are_those_that_were_delivered(demo: Demo) -> None:
    delivered = pd.read_csv(demo.folder / "lake" / "subscriptions.csv")
    account, application = demo.truth["returned"][0]
    found = explained(demo.settings, account, application)
    of_account = delivered[delivered["account_id"] == account]
    own = of_account[of_account["application"].isna() | (of_account["application"] == application)]
    assert sorted(str(row["start_date"]) for row in found.subscription.delivered) == sorted(own["start_date"])
    assert [
        subscription_period["period_number"] for subscription_period in found.subscription.subscription_periods
    ] == [
        1,
        2,
    ]
    assert "subscription no. 2" in text_of(found)


def test_flags_and_risks_are_those_of_the_pages_and_as_issued(demo: Demo) -> None:
    account, application, sentence = rows(
        demo,
        "SELECT account_id, application_key, what_happened FROM mart.anomaly_weeks WHERE scope = 'account' "
        "AND week_start = ? LIMIT 1",
        NEWEST,
    )[0]
    found = explained(demo.settings, account, application)
    text = text_of(found)
    assert sentence in text
    assert found.anomalies_as_published
    assert "as issued, and kept: " in text
    account, application, probability = rows(
        demo, "SELECT account_id, application_key, probability FROM mart.usage_risks WHERE target = 'low usage' LIMIT 1"
    )[0]
    found = explained(demo.settings, account, application)
    low = next(risk for risk in found.risks if risk["target"] == "low usage")
    assert (low["probability"], low["is_listed"]) == (probability, True)
    assert any(
        risk["target"] == "low usage" and risk["probability"] == probability for risk in found.scores_as_published or []
    )
    assert low["reason_1"] in text_of(found)
    assert len(as_text(found)) <= 45, "a screen"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Account `a` with permits from 27 January 2025 on; the week of 10 February was never delivered. Nobody changes it."""
    tmp_path = tmp_path_factory.mktemp("small")
    for week, folder in (("2025-01-27", 5), ("2025-02-03", 6), ("2025-02-17", 8), ("2025-02-24", 9)):
        found = [event(f"{date.fromisoformat(week) + timedelta(days=1)}", user=f"u{n}", clicks=n) for n in (1, 2, 3)]
        found += [event(week, account="b", clicks=5)]
        if folder == 9:
            found += [event(week, clicks=-4), event(week, application="other", clicks=-1)]
        write_week(tmp_path / "lake", f"year=2025/week={folder:02d}", found)
    (tmp_path / "lake" / "year=2025" / "week=08" / "part-1.parquet").write_bytes(b"PAR1 cut off")
    (tmp_path / "subscriptions.csv").write_text("account_id,application,start_date\na,permits,2025-01-27\n")
    (tmp_path / "accounts.csv").write_text("account_id,account_name\na,Springfield\nb,Shelbyville\nc,Springfield\n")
    config = write_config(tmp_path)
    text = config.read_text(encoding="utf-8")
    more = (
        "  subscriptions: {path: subscriptions.csv, format: csv, columns: {account_id: account_id, "
        "application: application, start_date: start_date}}\n"
        "  accounts: {path: accounts.csv, format: csv, columns: {account_id: account_id, account_name: account_name}}\n"
    )
    text = text.replace("sources:\n", f"sources:\n{more}")
    config.write_text(text.replace("collapse_share: 0", "collapse_share: 0\n  rejected_share: 1"), encoding="utf-8")
    settings = load_settings(config)
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance).success
    return settings


@pytest.mark.long
def test_a_week_that_was_never_delivered_is_not_known_and_is_no_zero(small: Settings) -> None:
    found = explained(small, "a", "permits", date(2025, 2, 12))
    assert found.week.status == "never arrived"
    assert found.week.manifest is None
    assert found.page.value["clicks"] is None
    text = text_of(found)
    assert "what came is not known, and is not 0" in text
    assert "Raw rows not known: the week's facts are not there" in text
    assert "7 of 7 subscribed days" in text
    ahead = explained(small, "a", "permits", date(2026, 2, 12))
    assert "not complete (has not begun)" in text_of(ahead)


@pytest.mark.long
def test_rejected_rows_files_set_aside_and_what_is_not_delivered_are_told(small: Settings) -> None:
    found = explained(small, "a", "permits", date(2025, 2, 24))
    assert [(row["reason"], row["application"]) for row in found.raw.rejected] == [
        ("negative count", "permits"),
        ("negative count", "other"),
    ]
    text = text_of(found)
    assert "1 negative count, permits, 1 negative count, other" in text
    assert "part-0.parquet row 5" in text
    assert "6 clicks, records not delivered, 3 users" in text
    assert "they agree" in text
    aside = text_of(explained(small, "a", "permits", date(2025, 2, 17)))
    assert "not complete (files quarantined)" in aside
    assert "part-1.parquet: cannot be read" in aside


@pytest.mark.long
def test_a_page_that_shows_an_older_build_is_told(small: Settings, instance: dg.DagsterInstance, tmp_path) -> None:
    shutil.copytree(small.home.root.parent, tmp_path / "copy", symlinks=True)
    small = load_settings(tmp_path / "copy" / "sources.yaml")
    lake = Path(small.sources.usage.path or "")
    write_week(lake, "year=2025/week=09", [event("2025-02-25", user="u9", clicks=10)], name="part-1.parquet")
    store = small.home.published_dir
    (store / "pinned").write_text(next(store.glob("0*")).name, encoding="utf-8")
    assert run_refresh(small, instance).success
    found = explained(small, "a", "permits")
    assert found.week.week_start == date(2025, 2, 24)
    assert found.page.value["clicks"] == 6
    assert found.warehouse.value["clicks"] == 16
    assert found.shown.differences["clicks"] == [6, 16]
    text = text_of(found)
    assert "THEY DO NOT AGREE in clicks, users" in text
    assert "the page shows an older build" in text
    assert "pinned by a rollback until" in text
    assert "THE PAGE DIFFERS from the warehouse" in text


@pytest.mark.long
def test_names_are_found_in_any_case_and_others_get_what_comes_near(small: Settings) -> None:
    assert explained(small, "SHELBYVILLE", "Permits").account.key == "b"
    with pytest.raises(
        UnclearNameError, match=r"'springfield' is the name of 2: Springfield \(a\), Springfield \(c\); give"
    ):
        explained(small, "springfield", "permits")
    with pytest.raises(UnknownNameError, match=r"there is no account 'Shelby'; near: Shelbyville \(b\)"):
        explained(small, "Shelby", "permits")
    with pytest.raises(UnknownNameError, match="there is no application 'permit'; near: permits"):
        explained(small, "a", "permit")


def test_an_id_wins_over_a_name_and_a_label_over_half_of_it() -> None:
    known = [Named("1", "2"), Named("2", "Town (2)", ("Town",)), Named("3", "Town (3)", ("Town",))]
    assert resolve("account", "2", known).key == "2"
    assert resolve("account", "town (3)", known).key == "3"


@pytest.mark.long
def test_the_command_line_prints_a_screen_or_json_changes_nothing_and_takes_its_turn(small: Settings) -> None:
    config = ["-c", str(small.home.root.parent / "sources.yaml")]
    before = small.home.warehouse_path.stat().st_mtime_ns
    shown = CliRunner().invoke(app, ["explain", "b", "permits", *config])
    assert shown.exit_code == 0, shown.output
    assert "permits at Shelbyville (b), week of Feb 24, 2025 to Mar 2, 2025" in shown.output
    told = json.loads(CliRunner().invoke(app, ["explain", "b", "permits", "2025-02-25", "--json", *config]).output)
    assert told["raw"]["sums"] == {"clicks": 5, "records": None, "users": 1}
    assert told["week"]["manifest"]["rows_kept"] == 4
    for week, said in (("soon", "soon is no day: write it as YYYY-MM-DD"), ("2025-02-25", "there is no account 'z'")):
        failed = CliRunner().invoke(app, ["explain", "z", "permits", week, *config])
        assert failed.exit_code == 1
        assert said in failed.output
    assert small.home.warehouse_path.stat().st_mtime_ns == before

    done: list[int] = []
    reader = threading.Thread(target=lambda: done.append(explained(small, "b", "permits").subscription.days))
    with file_lock(small.home.warehouse_path.with_suffix(".lock"), 5, what="the warehouse"):
        reader.start()
        reader.join(timeout=1)
        assert not done, "a run that writes is waited for"
    reader.join(timeout=20)
    assert done
