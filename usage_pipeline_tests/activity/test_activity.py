"""Subscriptions and usage states on small tables: what a reader of the design would work out by hand."""

from datetime import date, timedelta
from typing import Any

import duckdb
import pytest

from usage_pipeline.config.settings import load_settings
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline_tests.support.histories import TABLES, make_table
from usage_pipeline_tests.support.lakes import write_config

AS_OF = date(2025, 3, 5)  # a Wednesday; the newest complete week is that of 24 February


class World:
    """Subscriptions and usage of one account `a`, taken through the activity tables."""

    def __init__(self, tmp_path: Any) -> None:
        self.settings = load_settings(write_config(tmp_path))
        self.values = sql_values(self.settings)
        self.connection = duckdb.connect()
        self.run("CREATE SCHEMA ref")
        self.run("CREATE SCHEMA core")
        self.run(
            "CREATE TABLE ref.subscriptions (account_id VARCHAR, application VARCHAR, start_date DATE, notice_date DATE, "
            "end_date DATE, end_reason VARCHAR, renewal_date DATE, seats BIGINT, annual_value DOUBLE)"
        )
        self.run("CREATE TABLE ref.subscriptions_rejected AS SELECT *, '' AS reason FROM ref.subscriptions")
        self.run(
            "CREATE TABLE core.weekly_usage (week_start DATE, account_id VARCHAR, application VARCHAR, clicks BIGINT, "
            "records_created BIGINT, active_users BIGINT, source_rows BIGINT, first_day DATE, last_day DATE)"
        )
        # one user, whose days are those of the week
        self.run(
            "CREATE VIEW core.weekly_users AS SELECT week_start, account_id, application, 'u' AS user_id, clicks, "
            "first_day, last_day FROM core.weekly_usage"
        )
        self.run(
            "CREATE TABLE core.account_days AS SELECT account_id, first_day AS day, clicks FROM core.weekly_usage LIMIT 0"
        )
        self.run(
            "CREATE TABLE core.weeks AS SELECT CAST(w AS DATE) AS week_start, TRUE AS has_arrived, "
            "w < DATE '2025-03-03' AS is_complete, w = DATE '2025-03-03' AS is_running "
            "FROM generate_series(DATE '2024-08-05', DATE '2025-03-03', INTERVAL 7 DAYS) AS s (w)"
        )

    def run(self, sql: str, *values: Any) -> None:
        self.connection.execute(sql, list(values))

    def subscription(self, start: str, end: str | None = None, application: str | None = "p", **more: Any) -> None:
        row = {"account_id": "a", "application": application, "start_date": start, "end_date": end} | more
        marks = ", ".join("?" for _ in row)
        self.run(f"INSERT INTO ref.subscriptions ({', '.join(row)}) VALUES ({marks})", *row.values())

    def used(self, first: str, last: str, clicks: int = 20, application: str = "p") -> None:
        """`clicks` in every week from that of `first` to that of `last` (Mondays)."""
        week = date.fromisoformat(first)
        while week <= date.fromisoformat(last):
            day = week + timedelta(days=1)
            self.run(
                "INSERT INTO core.weekly_usage VALUES (?, 'a', ?, ?, 0, 1, 1, ?, ?)",
                week,
                application,
                clicks,
                day,
                day,
            )
            week += timedelta(days=7)

    def build(self) -> "World":
        for name in TABLES:
            make_table(self.connection, name, self.settings, self.values)
        return self

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(query).fetchall()

    def account_application(self, columns: str) -> tuple[Any, ...]:
        (row,) = self.build().rows(f"SELECT {columns} FROM core.account_application_states")
        return row

    def subscription_periods(self) -> list[tuple[Any, ...]]:
        return self.build().rows(
            "SELECT application, period_number, start_date::VARCHAR, end_date::VARCHAR, basis FROM core.subscription_periods "
            "ORDER BY 1, 2"
        )


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def test_an_account_row_caps_its_applications(world: World) -> None:
    world.subscription("2024-01-01", "2024-12-31", application=None, end_reason="cancelled")
    world.subscription("2024-06-01")
    assert world.subscription_periods() == [("p", 1, "2024-06-01", "2024-12-31", "application")]
    assert world.rows("SELECT end_reason, ended_with FROM core.subscription_periods") == [("cancelled", "account")]


def test_account_rows_alone_give_the_applications_ever_used_from_first_use_on(world: World) -> None:
    world.subscription("2024-08-05", application=None)
    world.used("2024-10-07", "2024-10-14", application="x")
    assert world.subscription_periods() == [("x", 1, "2024-10-08", "9999-12-31", "account")]


def test_nothing_known_of_subscriptions_is_inferred_from_use_and_marked(world: World) -> None:
    world.used("2024-10-07", "2024-10-14", application="x")
    assert world.subscription_periods() == [("x", 1, "2024-10-08", "9999-12-31", "usage")]


def test_a_subscription_that_could_not_be_read_is_not_inferred_from_use(world: World) -> None:
    """An end that could not be read left its row out, and that the application was used made a subscription without end."""
    world.used("2024-10-07", "2024-10-14", application="x")
    world.run(
        "INSERT INTO ref.subscriptions_rejected (account_id, application, reason) VALUES ('a', 'x', 'unreadable')"
    )
    assert world.subscription_periods() == []


def test_spells_closer_than_thirty_days_are_one_and_farther_ones_are_returns(world: World) -> None:
    world.subscription("2024-01-01", "2024-06-30")
    world.subscription("2024-07-30", "2024-09-30")  # 29 days between
    world.subscription("2024-10-31")  # 30 days between
    assert [row[1:4] for row in world.subscription_periods()] == [
        (1, "2024-01-01", "2024-09-30"),
        (2, "2024-10-31", "9999-12-31"),
    ]
    assert world.account_application("has_returned, subscription_state") == (True, "active subscription")


def test_a_row_that_ended_before_it_began_was_never_in_subscription(world: World) -> None:
    world.subscription("2024-10-07", "2024-09-01", application=None, end_reason="cancelled")
    world.used("2024-09-02", "2024-09-02")
    assert world.subscription_periods() == []
    assert world.account_application("subscription_state, usage_state") == ("no subscription", None)


def test_the_grid_has_zero_where_nobody_came_and_no_row_outside_the_subscription(world: World) -> None:
    world.subscription("2024-12-04", "2025-01-14", end_reason="cancelled")
    world.used("2024-12-09", "2024-12-09")
    world.used("2025-01-27", "2025-01-27")  # after the end
    world.build()
    assert world.rows(
        "SELECT week_start::VARCHAR, subscribed_days, clicks FROM core.subscription_weeks ORDER BY 1"
    ) == [
        ("2024-12-02", 5, 0),
        ("2024-12-09", 7, 20),
        ("2024-12-16", 7, 0),
        ("2024-12-23", 7, 0),
        ("2024-12-30", 7, 0),
        ("2025-01-06", 7, 0),
        ("2025-01-13", 2, 0),
    ]
    assert world.account_application("clicks_outside_subscription::INTEGER, usage_state") == (20, None)


@pytest.mark.parametrize(
    ("start", "end", "outside"),
    [
        ("2024-01-01", "2025-01-08", 20),  # the click of Tuesday lies inside, that of Thursday does not
        ("2025-01-09", None, 20),
        ("2024-01-01", None, 0),
    ],
    ids=["after the end", "before the start", "inside"],
)
@pytest.mark.parametrize("is_alone", [True, False], ids=["one application", "two"])
def test_clicks_of_the_other_days_of_a_week_subscribed_in_part_lie_outside(
    world: World, start: str, end: str | None, outside: int, is_alone: bool
) -> None:
    world.subscription(start, end, end_reason="cancelled" if end else None)
    # of one application the days are those of the account; of several, users who came on other days alone are known
    users = {"2025-01-07": "u", "2025-01-09": "u" if is_alone else "v"}
    world.run("DROP VIEW core.weekly_users")
    world.run(
        "CREATE TABLE core.weekly_users (week_start DATE, account_id VARCHAR, application VARCHAR, user_id VARCHAR, "
        "clicks BIGINT, first_day DATE, last_day DATE)"
    )
    for application in ("p",) if is_alone else ("p", "q"):
        world.run(
            "INSERT INTO core.weekly_usage VALUES ('2025-01-06', 'a', ?, 40, 0, 2, 2, '2025-01-07', '2025-01-09')",
            application,
        )
        for day in users:
            world.run("INSERT INTO core.account_days VALUES ('a', ?, 20)", day)
    for user in set(users.values()):
        days = sorted(day for day, who in users.items() if who == user)
        world.run(
            "INSERT INTO core.weekly_users VALUES ('2025-01-06', 'a', 'p', ?, ?, ?, ?)",
            user,
            20 * len(days),
            days[0],
            days[-1],
        )
    world.build()
    sql = "SELECT clicks_outside_subscription::INTEGER FROM core.account_application_states WHERE application = 'p'"
    assert world.rows(sql) == [(outside,)]


def test_a_renewal_that_has_passed_hides_none_that_comes_and_is_no_next_one(world: World) -> None:
    world.subscription("2024-01-01", renewal_date="2024-12-01")
    world.subscription("2024-01-01", application="q", renewal_date="2025-03-20")
    world.subscription("2024-01-01", application=None, renewal_date="2025-01-01")
    world.subscription("2024-01-02", application=None, renewal_date="2025-06-01")
    world.build()
    world.run("CREATE TABLE core.account_names AS SELECT 'a' AS account_id")
    sql = load_sql("defs/activity", "account_subscriptions")
    run_sql(world.connection, f"CREATE TABLE core.account_subscriptions AS {sql}", world.values)
    found = world.rows("SELECT application, renewal_date FROM core.account_application_states ORDER BY 1")
    assert found == [("p", None), ("q", date(2025, 3, 20))]
    assert world.rows("SELECT renewal_date FROM core.account_subscriptions") == [(date(2025, 6, 1),)]


def test_a_week_that_never_arrived_is_unknown_and_not_zero(world: World) -> None:
    world.subscription("2024-12-02")
    world.run("UPDATE core.weeks SET has_arrived = FALSE, is_complete = FALSE WHERE week_start = '2024-12-09'")
    world.build()
    assert world.rows("SELECT clicks FROM core.subscription_weeks WHERE week_start = '2024-12-09'") == [(None,)]
    assert world.rows("SELECT count(*) FROM core.usage_states WHERE week_start = '2024-12-09'") == [(0,)]


@pytest.mark.parametrize(
    ("uses", "state", "since"),
    [
        ([], "never adopted", "2024-09-02"),
        ([("2024-08-05", "2025-02-24", 20)], "active", "2024-09-02"),
        ([("2024-08-05", "2025-01-27", 20)], "inactive", "2025-02-03"),
        ([("2024-08-05", "2025-02-03", 20)], "low", "2025-02-24"),
        ([("2024-08-05", "2025-01-27", 20), ("2025-02-03", "2025-02-24", 4)], "low", "2025-02-17"),
        # below the volume floor nothing is called low
        ([("2024-08-05", "2025-01-27", 4), ("2025-02-03", "2025-02-24", 1)], "active", "2024-09-02"),
    ],
)
def test_usage_states_by_what_was_used(world: World, uses: list[tuple[str, str, int]], state: str, since: str) -> None:
    world.subscription("2024-08-05")
    for first, last, clicks in uses:
        world.used(first, last, clicks)
    assert world.account_application("usage_state, usage_state_since::VARCHAR") == (state, since)


def test_a_subscription_of_four_weeks_is_new_whatever_its_use(world: World) -> None:
    world.subscription("2025-02-03")
    assert world.account_application("usage_state") == ("new",)


def test_use_again_after_silence_is_told(world: World) -> None:
    world.subscription("2024-08-05")
    world.used("2024-08-05", "2024-11-25")
    world.used("2025-02-10", "2025-02-24")
    assert world.account_application("usage_state, came_back") == ("active", True)


@pytest.mark.parametrize(
    ("subscription", "state"),
    [
        ({"start": "2024-08-05"}, "active subscription"),
        ({"start": "2024-08-05", "end": "2025-04-30", "notice_date": "2025-02-01"}, "notice received"),
        ({"start": "2024-08-05", "end": "2025-03-05"}, "active subscription"),
        ({"start": "2024-08-05", "end": "2025-03-04"}, "ended"),
        ({"start": "2025-03-06"}, "not started"),
    ],
)
def test_subscription_states_on_the_day_of_as_of(world: World, subscription: dict[str, str], state: str) -> None:
    world.subscription(**subscription)
    found, usage_state = world.account_application("subscription_state, usage_state")
    assert found == state
    assert (usage_state is None) == (state in ("ended", "not started"))


def test_after_its_end_a_pair_is_never_low_or_inactive(world: World) -> None:
    world.subscription("2024-08-05", "2025-01-12", end_reason="cancelled")
    world.used("2024-08-05", "2024-10-28")
    world.build()
    judged = world.rows("SELECT max(week_start)::VARCHAR FROM core.usage_states")
    assert judged == [("2025-01-06",)], "the last full subscribed week is the last that is judged"


def test_without_subscriptions_and_use_there_is_nothing_to_judge(world: World) -> None:
    world.build()
    assert world.rows("SELECT count(*) FROM core.usage_states") == [(0,)]
    assert world.rows("SELECT count(*) FROM core.account_application_states") == [(0,)]


def test_never_used_means_never_in_the_subscription_that_runs(world: World) -> None:
    """It once stood beside a day of last use that was before the subscription, or counted a use of before it began."""
    world.subscription("2024-10-03")  # a Thursday
    world.used("2024-09-02", "2024-09-30")  # on Tuesdays, the last in the week that it began in
    assert world.account_application("usage_state, last_used_on, used_before_on::VARCHAR, last_used_ever::VARCHAR") == (
        "never adopted",
        None,
        "2024-10-01",
        "2024-10-01",
    )


def test_a_subscription_that_returned_and_is_not_used_is_never_used_whatever_was_before(world: World) -> None:
    world.subscription("2024-08-05", "2024-10-20", end_reason="cancelled")
    world.subscription("2024-12-02")
    world.used("2024-08-05", "2024-10-14")
    assert world.account_application(
        "usage_state, usage_state_since::VARCHAR, last_used_on, used_before_on::VARCHAR"
    ) == (
        "never adopted",
        "2024-12-30",
        None,
        "2024-10-15",
    )


@pytest.mark.parametrize(("until", "judged", "weeks"), [("2025-01-27", "inactive", 4), (None, "never adopted", None)])
def test_who_came_in_the_running_week_is_neither_silent_nor_never_there(
    world: World, until: str | None, judged: str, weeks: int | None
) -> None:
    """An account that bought in the last days of the running week was said to be no longer used."""
    world.subscription("2024-08-05")
    if until:
        world.used("2024-08-05", until)
    world.used("2025-03-03", "2025-03-03")
    columns = "usage_state, state_of_newest_week, usage_state_since::VARCHAR, last_used_on::VARCHAR, is_used_since"
    assert world.account_application(columns) == ("active", judged, "2025-03-03", "2025-03-04", True)
    if weeks:
        assert world.rows("SELECT weeks_without_use FROM core.account_application_states") == [(weeks,)]


def test_a_use_is_known_of_a_week_that_is_not_complete(world: World) -> None:
    world.subscription("2024-08-05")
    world.used("2024-12-09", "2024-12-09")
    world.run("UPDATE core.weeks SET is_complete = FALSE WHERE week_start = '2024-12-09'")
    assert world.account_application("usage_state, last_used_on::VARCHAR, weeks_without_use") == (
        "inactive",
        "2024-12-10",
        11,
    )


def test_a_day_without_a_click_is_no_day_of_use(world: World) -> None:
    world.subscription("2024-08-05")
    world.used("2024-12-09", "2024-12-09", clicks=0)
    assert world.account_application("usage_state, last_used_on") == ("never adopted", None)


def test_a_cancellation_with_a_day_to_come_is_a_notice_whose_date_nobody_gave(world: World) -> None:
    """It gave no reason to call: the account was in contract until the day it had left."""
    world.subscription("2024-08-05", "2025-05-31", end_reason="cancelled")
    assert world.account_application("subscription_state, notice_date") == ("notice received", None)


@pytest.mark.parametrize("end_reason", ["completed", "renewed", None])
def test_a_day_to_come_without_a_cancellation_is_no_notice(world: World, end_reason: str | None) -> None:
    world.subscription("2024-08-05", "2025-05-31", end_reason=end_reason)
    assert world.account_application("subscription_state") == ("active subscription",)


def account_state(world: World) -> str:
    world.build()
    world.run("CREATE TABLE core.account_names AS SELECT 'a' AS account_id")
    make_table(world.connection, "account_subscriptions", world.settings, world.values)
    ((state,),) = world.rows("SELECT subscription_state FROM core.account_subscriptions")
    return str(state)


def test_an_account_that_gave_notice_for_all_it_has_is_leaving_whatever_its_last_day(world: World) -> None:
    """Without a last day it stood as an active subscription."""
    world.subscription("2024-08-05", notice_date="2025-02-01")
    world.subscription("2024-08-05", application="q", notice_date="2025-02-02")
    assert account_state(world) == "notice received"


def test_an_account_that_keeps_one_of_two_applications_is_not_leaving(world: World) -> None:
    world.subscription("2024-08-05", notice_date="2025-02-01")
    world.subscription("2024-08-05", application="q")
    assert account_state(world) == "active subscription"


def test_a_notice_for_the_whole_account_counts_though_an_application_runs_on(world: World) -> None:
    world.subscription("2024-08-05", "2025-06-30", application=None, notice_date="2025-02-01")
    world.subscription("2024-08-05")
    assert account_state(world) == "notice received"
