"""Activity over 100,000 random histories: what must always hold, and an independent oracle on a sample of them."""

import itertools
from collections.abc import Iterator

import duckdb
import numpy as np
import pandas as pd
import pytest

from usage_pipeline.activity.usage_states import replace_usage_states
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.defs.activity.checks import broken_identities
from usage_pipeline_tests.support.histories import (
    GRID,
    USAGE_STATES,
    Fleet,
    computed,
    histories_of,
    make_accounts,
    states_of,
)
from usage_pipeline_tests.support.lakes import write_config

HISTORIES = 100_000
STATES = (
    "week_start, account_id, subscription_state, usage_state, weeks_without_use, came_back, recent_clicks, usual_clicks"
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(write_config(tmp_path_factory.mktemp("histories")))


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return make_accounts(HISTORIES, seed=1)


@pytest.fixture(scope="module")
def world(fleet: Fleet, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = computed(fleet, settings)
    yield connection
    connection.close()


def one(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple:
    (row,) = connection.execute(sql).fetchall()
    return row


@pytest.mark.long
def test_there_is_enough_of_everything(world: duckdb.DuckDBPyConnection) -> None:
    found = dict(world.execute(f"SELECT usage_state, count(*) FROM {USAGE_STATES} GROUP BY 1").fetchall())
    assert set(found) == {"never adopted", "new", "active", "low", "inactive"}
    assert min(found.values()) > 10_000
    ends = dict(
        world.execute("SELECT subscription_state, count(*) FROM core.account_application_states GROUP BY 1").fetchall()
    )
    assert set(ends) == {"active subscription", "notice received", "ended", "not started", "no subscription"}
    print(found, ends)


@pytest.mark.long
def test_no_ended_pair_week_is_ever_judged(world: duckdb.DuckDBPyConnection) -> None:
    """Every judged week lies, with all of its seven days, in a subscription period of its account x application, and is complete."""
    judged = one(
        world,
        "SELECT count(*), count(*) FILTER (WHERE states.subscription_state NOT IN ('active subscription', 'notice received')), "
        "count(*) FILTER (WHERE NOT EXISTS (SELECT 1 FROM core.subscription_periods AS s WHERE s.account_id = states.account_id "
        "AND s.start_date <= states.week_start AND s.end_date >= states.week_start + 6)), "
        "count(*) FILTER (WHERE NOT weeks.is_complete) "
        f"FROM {USAGE_STATES} AS states INNER JOIN core.weeks AS weeks USING (week_start)",
    )
    assert judged[0] > 1_000_000
    assert judged[1:] == (0, 0, 0)
    ended = one(world, "SELECT count(usage_state), count(recent_clicks), count(trend_4_weeks), count(rank_in_application) "
                       "FROM core.account_application_states WHERE subscription_state NOT IN ('active subscription', 'notice received')")  # fmt: skip
    assert ended == (0, 0, 0, 0)


@pytest.mark.long
def test_zero_unknown_and_absent_never_mix(world: duckdb.DuckDBPyConnection) -> None:
    """Inside the subscription and known: a number. Not known: what came or NULL. Outside: no row."""
    found = one(
        world,
        "SELECT count(*) FILTER (WHERE weeks.is_complete AND subscription_weeks.clicks IS NULL), "
        "count(*) FILTER (WHERE NOT weeks.is_complete AND subscription_weeks.clicks = 0), "
        "count(*) FILTER (WHERE NOT weeks.has_arrived AND subscription_weeks.clicks IS NOT NULL), "
        "count(*) FILTER (WHERE subscription_weeks.subscribed_days NOT BETWEEN 1 AND 7), "
        "count(*) FILTER (WHERE subscription_weeks.clicks IS DISTINCT FROM usage.clicks AND NOT (subscription_weeks.clicks = 0 AND usage.clicks IS NULL)) "
        f"FROM {GRID} AS subscription_weeks INNER JOIN core.weeks AS weeks USING (week_start) "
        "LEFT JOIN core.weekly_usage AS usage USING (week_start, account_id, application)",
    )
    assert found == (0, 0, 0, 0, 0)
    days = one(
        world,
        f"SELECT (SELECT sum(subscribed_days) FROM {GRID}), "
        "(SELECT sum(greatest(0, date_diff('day', greatest(start_date, w.first), least(end_date, w.last)) + 1)) "
        "FROM core.subscription_periods, (SELECT min(week_start) AS first, max(week_start) + 6 AS last FROM core.weeks) AS w)",
    )
    assert days[0] == days[1], "every subscribed day lies in exactly one row of the subscription_weeks"


@pytest.mark.long
def test_growth_identities_hold_to_the_unit(world: duckdb.DuckDBPyConnection) -> None:
    assert broken_identities(world) == []
    growth = world.execute(
        "SELECT period_start, unit, change, sum(number) AS n FROM core.growth_events GROUP BY ALL"
    ).df()
    users = growth[growth["unit"] == "user"].pivot_table(index="period_start", columns="change", values="n").fillna(0)
    account_applications = growth[growth["unit"] == "application of an account"]
    account_applications = account_applications.pivot_table(index="period_start", columns="change", values="n").fillna(
        0
    )
    assert (users == account_applications).all().all(), "with one user an application, users and applications go alike"
    subscription_weeks = world.execute(
        f"SELECT week_start, account_id FROM {GRID} WHERE is_complete AND clicks > 0"
    ).df()
    weeks = sorted(subscription_weeks["week_start"].unique())
    used = {week: set(rows["account_id"]) for week, rows in subscription_weeks.groupby("week_start")}
    seen: set[str] = set(used[weeks[0]])
    for before, now in itertools.pairwise(weeks):
        row = account_applications.loc[now]
        assert row["new"] == len(used[now] - seen)
        assert row["kept"] == len(used[now] & used[before])
        assert row["reactivated"] == len((used[now] & seen) - used[before])
        lost = row["lapsed"] + row["churned"] + row["expired"]
        assert lost == len(used[before] - used[now])
        seen |= used[now]


@pytest.mark.long
def test_what_is_lost_to_an_end_had_ended_and_the_rest_had_not(world: duckdb.DuckDBPyConnection) -> None:
    wrong = one(
        world,
        "SELECT count(*) FILTER (WHERE change IN ('churned', 'expired') AND subscribed), "
        "count(*) FILTER (WHERE change = 'lapsed' AND NOT subscribed), count(*) FROM ("
        "SELECT change, EXISTS (SELECT 1 FROM core.subscription_periods AS s WHERE s.account_id = g.account_id "
        "AND s.start_date <= g.period_start + 6 AND s.end_date >= g.period_start + 6) AS subscribed "
        "FROM core.growth_events AS g WHERE unit = 'account' AND change NOT IN ('new', 'kept', 'reactivated'))",
    )
    assert wrong[:2] == (0, 0)
    assert wrong[2] > 10_000


def test_a_week_later_everything_is_a_week_later(settings: Settings) -> None:
    fleet = make_accounts(5_000, seed=2)
    order = "ORDER BY ALL"
    with computed(fleet, settings) as now, computed(fleet.shifted(1), settings) as later:
        for table, columns in (
            (USAGE_STATES, STATES),
            ("core.subscription_periods", "start_date, end_date, account_id, period_number, notice_date"),
        ):
            if table == USAGE_STATES:
                shifted = columns.replace("week_start,", "week_start - 7 AS week_start,")
            else:
                open_end = "CASE WHEN end_date = DATE '9999-12-31' THEN end_date ELSE end_date - 7 END AS end_date"
                shifted = columns.replace("start_date,", "start_date - 7 AS start_date,", 1)
                shifted = shifted.replace(" end_date,", f" {open_end},").replace("notice_date", "notice_date - 7 AS n")
            a = now.execute(f"SELECT {columns} FROM {table} {order}").fetchall()
            b = later.execute(f"SELECT {shifted} FROM {table} {order}").fetchall()
            assert len(a) > 1000
            assert a == b


@pytest.mark.long
def test_more_use_in_the_weeks_judged_never_makes_a_pair_less_active(settings: Settings) -> None:
    """Use is added in the last four weeks of every history; inactive < low < active, and new stays new."""
    fleet = make_accounts(20_000, seed=3)
    complete = fleet.weeks[fleet.weeks["is_complete"]]["week_start"]
    recent = complete.iloc[-settings.activity.recent_weeks :]
    accounts = sorted(set(fleet.subscriptions["account_id"]) & set(fleet.usage["account_id"]))
    rng = np.random.default_rng(3)
    more = pd.MultiIndex.from_product([recent, accounts], names=["week_start", "account_id"]).to_frame(index=False)
    more["added"] = rng.integers(0, 20, len(more))
    usage = fleet.usage.merge(more, on=["week_start", "account_id"], how="outer")
    usage["clicks"] = (usage["clicks"].fillna(0) + usage["added"].fillna(0)).astype(int)
    usage = usage[usage["clicks"] > 0].drop(columns="added")
    for column, value in {"application": "p", "records_created": 0, "active_users": 1, "source_rows": 1}.items():
        usage[column] = usage[column].fillna(value)
    for column in ("first_day", "last_day"):
        usage[column] = usage[column].fillna(usage["week_start"])
    order = {"never adopted": 0, "inactive": 1, "low": 2, "active": 3, "new": 4}
    sql = f"SELECT account_id, usage_state FROM {USAGE_STATES} WHERE week_start = '{recent.iloc[-1].date()}'"
    with (
        computed(fleet, settings) as before,
        computed(Fleet(fleet.subscriptions, usage, fleet.weeks, fleet.as_of), settings) as after,
    ):
        was, now = dict(before.execute(sql).fetchall()), dict(after.execute(sql).fetchall())
    # an inferred subscription begins with the first use, which is the same in both
    assert set(was) == set(now)
    assert len(was) > 5_000
    worse = {a: (was[a], now[a]) for a in was if order[now[a]] < order[was[a]]}
    assert worse == {}


@pytest.mark.long
def test_the_order_of_subscription_rows_means_nothing(settings: Settings) -> None:
    fleet = make_accounts(20_000, seed=4)
    mixed = fleet.subscriptions.sample(frac=1, random_state=5).reset_index(drop=True)
    with (
        computed(fleet, settings) as one_order,
        computed(Fleet(mixed, fleet.usage, fleet.weeks, fleet.as_of), settings) as another,
    ):
        sql = "SELECT * FROM core.subscription_periods ORDER BY ALL"
        found = one_order.execute(sql).fetchall()
        assert len(found) > 10_000
        assert found == another.execute(sql).fetchall()


@pytest.mark.parametrize("accounts", [200, 2_000])
@pytest.mark.sample("200")
def test_an_oracle_in_plain_python_agrees_on_every_state(settings: Settings, accounts: int) -> None:
    fleet = make_accounts(accounts, seed=6)
    expected = {
        (account, week): state
        for account, history in histories_of(fleet).items()
        for week, state in states_of(history, fleet, settings).items()
    }
    with computed(fleet, settings) as world:
        rows = world.execute(
            "SELECT account_id, week_start, subscription_state, usage_state, weeks_without_use, came_back, recent_clicks, "
            f"usual_clicks FROM {USAGE_STATES}"
        ).fetchall()
    found = {(account, week): tuple(state) for account, week, *state in rows}
    assert len(expected) > 10 * accounts
    different = {key: (expected.get(key), found.get(key)) for key in expected.keys() | found.keys()
                 if expected.get(key) != found.get(key)}  # fmt: skip
    assert different == {}, list(different.items())[:5]
    assert {state[1] for state in expected.values()} == {"never adopted", "new", "active", "low", "inactive"}
    assert sum(state[3] for state in expected.values()) > accounts / 20


def test_states_are_the_same_whatever_order_usage_and_grid_come_in(settings: Settings) -> None:
    fleet = make_accounts(2_000, seed=7)
    mixed = Fleet(fleet.subscriptions, fleet.usage.sample(frac=1, random_state=1), fleet.weeks, fleet.as_of)
    with computed(fleet, settings) as a, computed(mixed, settings) as b:
        sql = f"SELECT {STATES} FROM {USAGE_STATES} ORDER BY ALL"
        assert a.execute(sql).fetchall() == b.execute(sql).fetchall()
        judged = a.execute(sql).fetchall()
        a.execute(
            "CREATE OR REPLACE TABLE core.subscription_weeks AS FROM core.subscription_weeks ORDER BY hash(account_application_id, week_start)"
        )
        replace_usage_states(a, settings.activity)
        assert a.execute(sql).fetchall() == judged
