"""Value and seats by day, movements of ARR and its retention, against the days themselves."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline.core.tables import METRICS, TABLES, schema_violation
from usage_pipeline.defs.revenue.checks import broken_identities
from usage_pipeline_tests.support.revenue_oracle import Key, Revenue, Row, values_of

GAP = 30
FIRST_MONTH, AS_OF = date(2024, 1, 1), date(2025, 7, 10)
HORIZON = date(2028, 6, 1)
FIGURES = ("starting_arr", "contraction", "churned", "expansion", "reactivated", "joined", "arr")
SQL = (
    ("activity", "core", "subscription_periods"),
    ("defs/activity", "core", "subscription_terms"),
    ("defs/revenue", "core", "revenue_periods"),
    ("defs/revenue", "core", "monthly_arr"),
    ("defs/revenue", "core", "arr_movements"),
    ("defs/revenue", "core", "arr_retention"),
    ("defs/revenue", "mart", "revenue_movements"),
    ("defs/revenue", "mart", "revenue_retention"),
)


def subscribed(
    account: str,
    application: str | None,
    start: str | date,
    end: str | date | None,
    value: float | None,
    seats: int | None = None,
) -> Row:
    day = {"start_date": start, "end_date": end}
    days = {name: date.fromisoformat(d) if isinstance(d, str) else d for name, d in day.items()}
    return {"account_id": account, "application": application, **days, "seats": seats, "annual_value": value}


def computed(rows: Sequence[Row], as_of: date = AS_OF) -> duckdb.DuckDBPyConnection:
    """The tables of revenue by the product's own SQL, of subscription rows alone."""
    connection = duckdb.connect()
    connection.execute(
        "SET threads = 1; CREATE SCHEMA ref; CREATE SCHEMA core; CREATE SCHEMA mart;"
        "CREATE TABLE ref.subscriptions (account_id VARCHAR, application VARCHAR, start_date DATE, notice_date DATE, "
        "end_date DATE, end_reason VARCHAR, renewal_date DATE, seats BIGINT, annual_value DOUBLE, currency VARCHAR);"
        "CREATE TABLE ref.subscriptions_rejected AS FROM ref.subscriptions;"
        "CREATE TABLE core.weekly_usage (account_id VARCHAR, application VARCHAR, first_day DATE)"
    )
    for row in rows:
        connection.execute(
            f"INSERT INTO ref.subscriptions ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", [*row.values()]
        )
    connection.execute(
        "CREATE TABLE core.months AS SELECT CAST(m AS DATE) AS month_start "
        "FROM generate_series($1::DATE, date_trunc('month', $2::DATE), INTERVAL 1 MONTH) AS series (m)",
        [FIRST_MONTH, as_of],
    )
    connection.execute(
        "CREATE TABLE core.account_names AS SELECT DISTINCT account_id, 'Town ' || account_id AS account, "
        "'City' AS segment, 'West' AS region, 'Ana' AS owner FROM ref.subscriptions;"
        "CREATE TABLE core.application_names AS SELECT DISTINCT application AS application_key, "
        "upper(application) AS application, 'Type' AS application_type FROM ref.subscriptions "
        "WHERE application IS NOT NULL"
    )
    values = {"renewal_gap_days": GAP, "as_of_day": as_of}
    for folder, schema, name in SQL:
        run_sql(connection, f"CREATE TABLE {schema}.{name} AS {load_sql(folder, name)}", values)
    return connection


def month_ends(as_of: date = AS_OF) -> list[tuple[date, date]]:
    """Months that have ended, as first and last day."""
    months = pd.date_range(FIRST_MONTH, as_of, freq="MS")
    found = [(month.date(), (month + pd.offsets.MonthEnd(0)).date()) for month in months]
    return [(first, last) for first, last in found if last < as_of.replace(day=1)]


def cents(amount: Any) -> int:
    exact = amount * 100
    assert exact == int(exact)
    return int(exact)


Movements = dict[date, dict[tuple[Key, str], int]]


def movements(connection: duckdb.DuckDBPyConnection) -> Movements:
    found: Movements = defaultdict(dict)
    for month, account, application, movement, amount in connection.execute("FROM core.arr_movements").fetchall():
        assert ((account, application), movement) not in found[month]
        found[month][(account, application), movement] = cents(amount)
    return dict(found)


@dataclass(frozen=True)
class Retained:
    """What became of the ARR of a year before, in cents."""

    starting_arr: int
    contraction: int
    churned: int
    expansion: int
    reactivated: int
    joined: int
    arr: int


def retention(connection: duckdb.DuckDBPyConnection) -> dict[date, dict[Key, Retained]]:
    found: dict[date, dict[Key, Retained]] = defaultdict(dict)
    columns = ", ".join(FIGURES)
    sql = f"SELECT month_start, account_id, application, {columns} FROM core.arr_retention WHERE arr IS NOT NULL"
    for month, account, application, *amounts in connection.execute(sql).fetchall():
        found[month][account, application] = Retained(*(cents(amount) for amount in amounts))
    return dict(found)


def retained(revenue: Revenue, before: date, now: date) -> dict[Key, Retained]:
    """What became of the ARR of a day until another, by the days themselves."""
    then, today, found = revenue.arr(before), revenue.arr(now), {}
    for key in then.keys() | today.keys():
        was, will = then.get(key, 0), today.get(key, 0)
        started, runs = revenue.place(key[0], before), revenue.place(key[0], now)
        stayed, left = started == runs, started is not None and started != runs
        found[key] = Retained(
            starting_arr=was,
            contraction=max(was - will, 0) if stayed else 0,
            churned=was if left else 0,
            expansion=max(will - was, 0) if stayed else 0,
            reactivated=will if left else 0,
            joined=0 if stayed or left else will,
            arr=will,
        )
    return found


# ---------------------------------------------------------------- worked out by hand


def test_a_renewal_changes_value_and_seats_from_its_day_on() -> None:
    connection = computed(
        [
            subscribed("a", "p", "2023-01-01", "2024-02-29", 100, 3),
            subscribed("a", "p", "2024-03-01", "2025-02-28", 150, 3),
            # nine days later: one subscription, and the former value until then
            subscribed("a", "p", "2025-03-10", None, 120, 5),
        ]
    )
    terms = connection.execute(
        "SELECT start_date, nullif(end_date, DATE '9999-12-31'), seats, annual_value FROM core.subscription_terms"
    ).fetchall()
    assert [(str(start), str(end), seats, float(value)) for start, end, seats, value in terms] == [
        ("2023-01-01", "2024-02-29", 3, 100.0),
        ("2024-03-01", "2025-03-09", 3, 150.0),
        ("2025-03-10", "None", 5, 120.0),
    ]
    assert movements(connection) == {
        date(2024, 3, 1): {(("a", "p"), "expansion"): 5000},
        date(2025, 3, 1): {(("a", "p"), "contraction"): -3000},
    }


def test_of_rows_that_overlap_the_one_that_began_last_holds() -> None:
    connection = computed(
        [subscribed("a", "p", "2023-01-01", None, 100), subscribed("a", "p", "2024-05-10", "2024-08-20", 180)]
    )
    found = connection.execute("SELECT start_date, annual_value FROM core.subscription_terms").fetchall()
    assert [(str(day), float(value)) for day, value in found] == [
        ("2023-01-01", 100.0),
        ("2024-05-10", 180.0),
        ("2024-08-21", 100.0),
    ]


def test_who_drops_one_of_five_applications_has_not_churned_and_who_adds_one_is_not_new() -> None:
    rows = [subscribed("a", name, "2023-01-01", None, 100) for name in "pqrs"]
    rows += [subscribed("a", "t", "2023-01-01", "2024-03-15", 100), subscribed("a", "u", "2024-06-10", None, 70)]
    connection = computed(rows)
    assert movements(connection) == {
        date(2024, 3, 1): {(("a", "t"), "contraction"): -10000},
        date(2024, 6, 1): {(("a", "u"), "expansion"): 7000},
    }
    of_t = retention(connection)[date(2024, 6, 1)]["a", "t"]
    assert (of_t.starting_arr, of_t.contraction, of_t.churned) == (10000, 10000, 0)


def test_who_returns_is_reactivated_and_never_new_and_their_first_arr_was_not_kept() -> None:
    connection = computed(
        [subscribed("a", "p", "2023-01-01", "2024-02-10", 100), subscribed("a", "q", "2024-08-05", None, 130)]
    )
    assert movements(connection) == {
        date(2024, 2, 1): {(("a", "p"), "churned"): -10000},
        date(2024, 8, 1): {(("a", "q"), "reactivated"): 13000},
    }
    of_december = retention(connection)[date(2024, 12, 1)]
    assert of_december["a", "p"] == Retained(10000, 0, 10000, 0, 0, 0, 0)
    assert of_december["a", "q"] == Retained(0, 0, 0, 0, 13000, 0, 13000)
    ((gross, net),) = connection.execute(
        f"SELECT {metric('retained_gross')}, {metric('retained_net')} FROM mart.revenue_retention "
        "WHERE month_start = DATE '2024-12-01'"
    ).fetchall()
    assert (gross, net) == (0, 1.3)


@pytest.mark.parametrize(
    ("before", "after", "back", "told"),
    [
        # 29 days without: one subscription, whose value goes on
        ("p", "p", "2024-03-11", []),
        (None, None, "2024-03-11", []),
        # of two applications nothing goes on, and the account has not left
        ("p", "q", "2024-03-11", ["contraction", "expansion"]),
        # 30 days: the account was gone
        ("p", "p", "2024-03-12", ["churned", "reactivated"]),
        (None, None, "2024-03-12", ["churned", "reactivated"]),
        ("p", "q", "2024-03-12", ["churned", "reactivated"]),
    ],
)
def test_an_account_has_left_after_as_many_days_as_make_two_subscriptions_of_one(
    before: str | None, after: str | None, back: str, told: list[str]
) -> None:
    rows = [subscribed("a", before, "2023-01-01", "2024-02-10", 100), subscribed("a", after, back, None, 100)]
    found = movements(computed(rows))
    assert [movement for _, of_month in sorted(found.items()) for _, movement in of_month] == told


def test_a_short_gap_between_two_applications_is_no_churn() -> None:
    connection = computed(
        [subscribed("a", "p", "2023-01-01", "2024-02-25", 100), subscribed("a", "q", "2024-03-10", None, 130)]
    )
    assert movements(connection) == {
        date(2024, 2, 1): {(("a", "p"), "contraction"): -10000},
        date(2024, 3, 1): {(("a", "q"), "expansion"): 13000},
    }


def test_subscriptions_about_whole_accounts_count_for_the_account_side_by_side_and_for_no_application() -> None:
    connection = computed(
        [
            subscribed("a", None, "2023-01-01", None, 1000),
            subscribed("a", None, "2024-02-01", "2024-05-31", 300),
            subscribed("a", "p", "2023-01-01", None, None),
        ]
    )
    assert movements(connection) == {
        date(2024, 2, 1): {(("a", None), "expansion"): 30000},
        date(2024, 6, 1): {(("a", None), "contraction"): -30000},
    }
    named = connection.execute(
        "SELECT DISTINCT application_key, application, application_type FROM mart.revenue_movements"
    ).fetchall()
    assert named == [("all", "all applications", "all applications")]


@pytest.mark.parametrize(
    ("first", "second"), [(900, None), (None, 900)], ids=["the renewal is empty", "the first is empty"]
)
def test_a_renewal_of_the_whole_account_without_a_value_goes_on_with_the_one_known(
    first: float | None, second: float | None
) -> None:
    """An empty cell of the renewal was told as an account that churned."""
    rows = [
        subscribed("a", None, "2024-01-10", "2024-12-31", first),
        subscribed("a", None, "2025-01-15", None, second),
        # runs beside it, and neither renews it nor is renewed
        subscribed("a", None, "2024-01-10", None, 100),
    ]
    assert movements(computed(rows)) == {date(2024, 1, 1): {(("a", None), "new"): 100_000}}


def test_an_empty_row_beside_applications_or_of_two_renewals_says_nothing() -> None:
    framed = [
        subscribed("a", None, "2024-01-10", "2024-12-31", 900),
        subscribed("a", None, "2025-01-01", None, None),
        subscribed("a", "p", "2025-01-01", None, 700),
    ]
    assert sum(movements(computed(framed))[date(2025, 1, 1)].values()) == -20_000
    two = [
        subscribed("a", None, "2024-01-10", "2024-12-31", 900),
        subscribed("a", None, "2025-01-01", None, None),
        subscribed("a", None, "2025-01-01", None, 300),
    ]
    assert movements(computed(two))[date(2025, 1, 1)] == {(("a", None), "contraction"): -60_000}


def test_an_account_without_any_value_counts_for_nothing_and_the_share_of_subscriptions_says_so() -> None:
    connection = computed(
        [
            subscribed("a", "p", "2023-01-01", None, 100),
            subscribed("a", None, "2023-01-01", None, None),
            subscribed("b", "p", "2023-01-01", None, None),
            subscribed("c", None, "2023-01-01", None, None),
        ]
    )
    ((share, arr, known),) = connection.execute(
        f"SELECT {metric('share_with_value')}, {metric('arr_sum')}, count(arr) FROM mart.revenue_retention "
        "WHERE month_start = DATE '2024-12-01'"
    ).fetchall()
    # the row about the whole of `a` frames what is sold as `p`; that of `c` is all there is of it
    assert (share, arr, known) == (pytest.approx(1 / 3), 100, 1)


def test_where_no_value_is_delivered_there_is_nothing() -> None:
    connection = computed(
        [subscribed("a", "p", "2023-01-01", None, None), subscribed("a", None, "2023-01-01", None, None)]
    )
    for table in ("mart.revenue_movements", "mart.revenue_retention"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_the_month_that_runs_is_left_out() -> None:
    rows = [subscribed("a", "p", "2024-03-05", None, 100)]
    on_the_last_day = computed(rows, date(2024, 3, 31))
    assert movements(on_the_last_day) == {}
    assert movements(computed(rows, date(2024, 4, 1))) == {date(2024, 3, 1): {(("a", "p"), "new"): 10000}}


def metric(name: str) -> str:
    return METRICS["revenue_retention"][name].expression


# ---------------------------------------------------------------- whatever the rows


@st.composite
def row_of(draw: st.DrawFn) -> list[Row]:
    """A subscription with up to two renewals, at once or some days later."""
    account, application = draw(st.sampled_from("ab")), draw(st.sampled_from(["p", "q", "r", None]))
    start, found = date(2022, 10, 1) + timedelta(draw(st.integers(0, 1000))), []
    for is_last in [False] * draw(st.integers(0, 2)) + [True]:
        length = draw(st.sampled_from([-3, 12, 40, 365, None] if is_last else [40, 90, 365]))
        end = None if length is None else start + timedelta(length)
        value = draw(st.sampled_from([None, 0.0, 0.01, 99.99, 100.0, 1234.5]))
        found.append(subscribed(account, application, start, end, value, draw(st.sampled_from([None, 1, 5]))))
        if end is not None:
            start = end + timedelta(draw(st.sampled_from([1, 1, 10, 30, 31, 70])))
    return found


histories = st.lists(row_of(), min_size=1, max_size=5).map(lambda found: [row for rows in found for row in rows])


def differing(rows: list[Row]) -> list[str]:
    """Where the tables are not what the days say."""
    connection, revenue = computed(rows), Revenue(rows, GAP, HORIZON)
    found, kept, wrong = movements(connection), retention(connection), []
    for first, last in month_ends():
        expected = revenue.movements(first - timedelta(1), last)
        if found.get(first, {}) != expected:
            wrong.append(f"movements of {first}: {found.get(first, {})}, and by days {expected}")
        year_ago = (pd.Timestamp(last) - pd.DateOffset(months=12) + pd.offsets.MonthEnd(0)).date()
        by_days = retained(revenue, year_ago, last)
        if kept.get(first, {}) != by_days:
            wrong.append(f"retention of {first}: {kept.get(first, {})}, and by days {by_days}")
    if set(found) - {first for first, _ in month_ends()}:
        wrong.append("a month that has not ended has movements")
    if broken_identities(connection):
        wrong.append("the check of the identities fails")
    return wrong


def seats_by_day(rows: list[Row]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Seats of each application on the 10th of each month: of the table, and by the days."""
    connection = computed(rows)
    days = [date(year, month, 10) for year in (2023, 2024, 2025) for month in range(1, 13)]
    found = {
        (account, application, day): seats
        for day in days
        for account, application, seats in connection.execute(
            "SELECT account_id, application, sum(seats) FROM core.subscription_terms "
            "WHERE ? BETWEEN start_date AND end_date GROUP BY ALL HAVING count(seats) > 0",
            [day],
        ).fetchall()
    }
    expected: dict[Any, Any] = {}
    for (account, application), subscriptions in values_of(rows, GAP, HORIZON, "seats").items():
        for day in days:
            told = [of_days[day] for of_days in subscriptions if of_days.get(day) is not None]
            if told:
                expected[account, application, day] = sum(told)
    return found, expected


QUICK, THOROUGH = (
    hypothesis_settings(deadline=None, max_examples=10),
    hypothesis_settings(deadline=None, max_examples=250),
)


@QUICK
@given(histories)
def test_movements_and_retention_are_what_the_days_say(rows: list[Row]) -> None:
    assert differing(rows) == []


@THOROUGH
@given(histories)
@pytest.mark.long
def test_movements_and_retention_are_what_the_days_say_of_many(rows: list[Row]) -> None:
    assert differing(rows) == []
    found, expected = seats_by_day(rows)
    assert found == expected


@QUICK
@given(histories)
def test_rules_that_hold_of_every_history(rows: list[Row]) -> None:
    connection = computed(rows)
    found = movements(connection)
    for name in ("revenue_movements", "revenue_retention"):
        assert schema_violation(connection, TABLES[name]) is None
    # they add up to the change of ARR, to the cent
    months, revenue = month_ends(), Revenue(rows, GAP, HORIZON)
    change = sum(revenue.arr(months[-1][1]).values()) - sum(revenue.arr(months[0][0] - timedelta(1)).values())
    assert sum(amount for of_month in found.values() for amount in of_month.values()) == change
    # who returns is not new: an account is new in one month at most, and before anything else
    for account in {row["account_id"] for row in rows}:
        told = [
            (month, movement)
            for month, of_month in sorted(found.items())
            for ((who, _), movement), _ in of_month.items()
            if who == account
        ]
        new = {month for month, movement in told if movement == "new"}
        assert len(new) <= 1
        assert not new or min(month for month, _ in told) == min(new)
    # what is of a whole account is never spread over applications
    with_value = {(row["account_id"], row["application"]) for row in rows if row["annual_value"]}
    assert {key for of_month in found.values() for key, _ in of_month} <= with_value
    # who drops some of what they have has not churned
    for month, of_month in found.items():
        for (account, _), movement in of_month:
            if movement == "churned":
                last = next(last for first, last in months if first == month)
                assert all(key[0] != account for key, amount in revenue.arr(last).items() if amount) or any(
                    key[0] == account and kind == "reactivated" for key, kind in of_month
                )
    for retained in retention(connection).values():
        for kept in retained.values():
            lost, won = kept.contraction + kept.churned, kept.expansion + kept.reactivated
            assert 0 <= lost <= kept.starting_arr
            assert kept.starting_arr - lost + won + kept.joined == kept.arr


@QUICK
@given(histories, st.randoms(use_true_random=False))
def test_the_order_of_rows_means_nothing_and_twice_the_value_is_twice_of_everything(
    rows: list[Row], random: Any
) -> None:
    found = movements(computed(rows))
    shuffled = random.sample(rows, len(rows))
    assert movements(computed(shuffled)) == found
    doubled = [row | {"annual_value": row["annual_value"] and 2 * row["annual_value"]} for row in rows]
    assert movements(computed(doubled)) == {
        month: {key: 2 * amount for key, amount in of_month.items()} for month, of_month in found.items()
    }


@QUICK
@given(histories)
def test_what_the_page_computes_is_sums_over_sums_under_any_filter(rows: list[Row]) -> None:
    connection = computed(rows)
    kept = retention(connection)
    for where, chosen in (
        ("TRUE", lambda _: True),
        ("application_key = 'p'", lambda key: key[1] == "p"),
        ("account_id = 'a'", lambda key: key[0] == "a"),
    ):
        found = {
            month.date(): (gross, net, arr)
            for month, gross, net, arr in connection.execute(
                f"SELECT month_start, {metric('retained_gross')}, {metric('retained_net')}, {metric('arr_sum')} "
                f"FROM mart.revenue_retention WHERE {where} AND arr IS NOT NULL GROUP BY month_start"
            ).fetchall()
        }
        for month, of_month in kept.items():
            rows_of = [of_key for key, of_key in of_month.items() if chosen(key)]
            start = sum(row.starting_arr for row in rows_of)
            lost = sum(row.contraction + row.churned for row in rows_of)
            won = sum(row.expansion + row.reactivated for row in rows_of)
            if rows_of:
                gross, net, arr = found[month]
                assert arr == pytest.approx(sum(row.arr for row in rows_of) / 100)
                assert gross == (pytest.approx((start - lost) / start) if start else None)
                assert net == (pytest.approx((start - lost + won) / start) if start else None)
