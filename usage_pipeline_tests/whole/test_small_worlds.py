"""Small worlds, counted on paper from what the documentation promises, and what one refresh of them all says.

Each account is a world of its own unless it is meant as a peer. Figures stand here as numbers: nothing is computed by the
product or by an oracle that knows it.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pytest

from usage_pipeline.core.tables import METRICS
from usage_pipeline_tests.support.small_worlds import ALWAYS, NEWEST, Lake, ahead, refreshed

pytestmark = pytest.mark.slow
SILENT = range(4, 40)  # used until four complete weeks ago: inactive since the newest week
LONG_SILENT = range(20, 40)


def day(text: str) -> date:
    return date.fromisoformat(text)


# ---------------------------------------------------------------- the worlds


def arr_at_risk(lake: Lake) -> None:
    lake.subscribe("once", "a", 1000.10, notice_date=day("2025-02-20"))
    lake.subscribe("once", "b", 2000.20)
    lake.subscribe("once", "c", 4000.40)
    lake.use("once", "a", weeks=SILENT)
    lake.use("once", "b", weeks=LONG_SILENT)
    lake.use("once", "c")
    for account, whole in (("two", None), ("whole", 500), ("part", 500)):
        lake.subscribe(account, "a", 1000)
        lake.subscribe(account, "b", 2000)
        lake.use(account, "a", weeks=SILENT)
        lake.use(account, "b", weeks=ALWAYS if account == "part" else SILENT)
        if whole:
            lake.subscribe(account, None, whole)
    lake.subscribe("two", "c", 4000)
    lake.use("two", "c")
    for account in ("only whole", "only whole, all silent"):
        lake.subscribe(account, None, 900)
        lake.use(account, "a", weeks=SILENT)
        lake.use(account, "b", weeks=SILENT if "silent" in account else ALWAYS)
    lake.subscribe("whole, notice", None, 900, notice_date=day("2025-02-25"))
    lake.subscribe("whole, notice", "a", 100)
    lake.use("whole, notice", "a")
    for account, value, days in (("order 1000", 1000, None), ("order 600", 600, 45), ("order 990", 990, 180)):
        lake.subscribe(account, "a", value, renewal_date=days and ahead(days))
        lake.subscribe(account, "c", 1)
        lake.use(account, "a", weeks=SILENT)
        lake.use(account, "c")
    lake.subscribe("decides on another", "a", 100, renewal_date=ahead(20))
    lake.subscribe("decides on another", "b", 50)
    lake.use("decides on another", "a")
    lake.use("decides on another", "b", weeks=LONG_SILENT)
    lake.subscribe("red as a whole", "a", 100, seats=4, renewal_date=ahead(20))
    lake.subscribe("red as a whole", "b", 70)
    falling(lake, "red as a whole")
    lake.use("red as a whole", "b", "x", clicks=1)


def falling(lake: Lake, account: str) -> None:
    """Two users made five clicks each; then one alone seven, for three weeks; then nobody came."""
    lake.use(account, "a", "xy", SILENT, 5)
    lake.use(account, "a", "x", [1, 2, 3], 7)


def renewals(lake: Lake) -> None:
    for days in (-1, 0, 30, 180, 181):
        lake.subscribe(f"renews {days}", "a", renewal_date=ahead(days))
        lake.use(f"renews {days}", "a")
    for days in (30, 31, 60, 61):
        lake.subscribe(f"never used, {days}", "a", renewal_date=ahead(days))
        lake.subscribe(f"never used, {days}", "c")
        lake.use(f"never used, {days}", "c")
        lake.subscribe(f"champion, {days}", "a", renewal_date=ahead(days))
        lake.use(f"champion, {days}", "a", "x", SILENT)
        lake.use(f"champion, {days}", "a", "yz")
    lake.subscribe("partial churn", "a", 100, renewal_date=ahead(40))
    lake.subscribe("partial churn", "b", 70, end_date=day("2025-02-01"), end_reason="cancelled", renewal_date=ahead(40))
    lake.use("partial churn", "a")
    lake.subscribe(
        "returned", "a", 250, end_date=day("2024-06-30"), end_reason="cancelled", renewal_date=day("2025-04-01")
    )
    lake.subscribe("returned", "a", 300, start_date=day("2025-01-01"), renewal_date=day("2025-05-01"))
    lake.use("returned", "a", weeks=range(8))
    notice = {"notice_date": day("2025-02-01"), "renewal_date": day("2025-05-01")}
    lake.subscribe("notice, over before", "a", 100, end_date=day("2025-04-30"), **notice)
    lake.subscribe("notice, over that day", "a", 100, end_date=day("2025-05-01"), **notice)
    lake.subscribe("notice, no end", "a", 100, **notice)
    for account in ("notice, over before", "notice, over that day", "notice, no end"):
        lake.use(account, "a")
    lake.subscribe("with the whole", None, 700, renewal_date=ahead(50))
    lake.subscribe("with the whole", "a", 100)
    lake.subscribe("with the whole", "b", 50, renewal_date=ahead(90))
    lake.subscribe("same day", "a", 100, renewal_date=ahead(70))
    lake.subscribe("same day", "b", 50.5, renewal_date=ahead(70))
    lake.subscribe("whole renews", None, 900, renewal_date=ahead(50))
    for account in ("with the whole", "same day", "whole renews"):
        lake.use(account, "a")
        lake.use(account, "b")
    lake.subscribe("not begun", "a", 500, start_date=ahead(1), renewal_date=ahead(100))
    for _ in range(2):
        lake.subscribe("delivered twice", "a", 100, renewal_date=ahead(40))
    lake.use("delivered twice", "a")
    for account, days, reason in (("ended", -1, "cancelled"), ("ends", 1, "cancelled"), ("runs out", 1, "completed")):
        lake.subscribe(account, "a", end_date=ahead(days), end_reason=reason)
        lake.use(account, "a")


def revenue(lake: Lake) -> None:
    def rows(account: str, *periods: tuple[str, Any, str, str | None]) -> None:
        for application, value, first, last in periods:
            end = {"end_date": day(last), "end_reason": "cancelled"} if last else {}
            lake.subscribe(account, application, value, start_date=day(first), **end)

    rows("new on the last", ("a", 120, "2025-01-31", None))
    rows("new on the first", ("a", 100, "2025-02-01", None))
    rows("expansion", ("a", 100, "2024-01-01", "2024-12-31"), ("a", 150, "2025-01-01", None))
    rows("price within", ("a", 100, "2023-01-01", "2025-01-15"), ("a", 60, "2025-01-16", None))
    rows(
        "and back",
        ("a", 100, "2023-01-01", "2025-01-10"),
        ("a", 500, "2025-01-11", "2025-01-20"),
        ("a", 100, "2025-01-21", None),
    )
    rows("adds", ("a", 100, "2023-01-01", None), ("b", 70, "2025-02-10", None))
    rows("drops", ("a", 100, "2023-01-01", None), ("b", 70, "2023-01-01", "2025-01-31"))
    rows("ends on the last", ("a", 100, "2023-01-01", "2025-01-31"))
    rows("ends on the first", ("a", 100, "2023-01-01", "2025-02-01"))
    rows("ends before the last", ("a", 100, "2023-01-01", "2025-01-30"))
    rows("gap of a day", ("a", 100, "2023-01-01", "2025-01-30"), ("a", 100, "2025-02-01", None))
    rows("gap of 29", ("a", 100, "2023-01-01", "2025-01-15"), ("a", 100, "2025-02-14", None))
    rows("gap of 30", ("a", 100, "2023-01-01", "2025-01-15"), ("a", 100, "2025-02-15", None))
    rows("back", ("a", 100, "2023-01-01", "2024-11-15"), ("a", 80, "2025-01-10", None))
    rows("early renewal", ("a", 100, "2024-01-01", "2024-12-31"), ("a", 130, "2024-12-01", None))
    rows("amended", ("a", 100, "2023-01-01", None), ("a", 150, "2024-12-10", "2025-01-20"))
    rows("no value", ("a", None, "2023-01-01", None))
    rows("value known before", ("a", 100, "2023-01-01", "2024-12-31"), ("a", None, "2025-01-01", None))
    rows("value known after", ("a", None, "2023-01-01", "2024-12-31"), ("a", 90, "2025-01-01", None))
    rows("from 0", ("a", 0, "2023-01-01", "2024-12-31"), ("a", 200, "2025-01-01", None))
    rows("to 0", ("a", 100, "2023-01-01", "2024-12-31"), ("a", 0, "2025-01-01", None))
    lake.subscribe("two wholes", None, 1000)
    lake.subscribe("two wholes", None, 200, start_date=day("2025-02-05"))
    lake.subscribe("whole without a value", None, 300, end_date=day("2024-12-31"), end_reason="renewed")
    lake.subscribe("whole without a value", None, None, start_date=day("2025-01-01"))
    lake.subscribe("capped", "a", 100)
    lake.subscribe("capped", None, None, end_date=day("2025-01-15"), end_reason="cancelled")
    rows("swap", ("a", 100, "2023-01-01", "2025-01-10"), ("b", 100, "2025-01-12", None))
    rows("swap over the month", ("a", 100, "2023-01-01", "2024-12-20"), ("b", 90, "2025-01-05", None))
    rows("cents", ("a", 0.1, "2023-01-01", "2024-12-31"), ("a", 0.3, "2025-01-01", None))


def people(lake: Lake) -> None:
    for application, seats in (("a", 4), ("b", 4), ("c", 8), ("d", 3), ("e", 4), ("f", 5)):
        lake.subscribe("seats", application, seats=seats)
    for users, weeks in (("pqr", [0]), ("pq", [1]), ("s", [2]), ("t", [3]), ("p", range(4, 40))):
        lake.use("seats", "a", users, weeks)
    for application, users in (("b", "p"), ("c", "pqr"), ("e", "pqrs"), ("f", "q")):
        lake.use("seats", application, users)

    lake.subscribe("seats of the whole", None, seats=10)
    lake.subscribe("seats of the whole", "a")
    lake.subscribe("seats of the whole", "b", seats=4)
    lake.use("seats of the whole", "a", "pq")
    lake.use("seats of the whole", "b", "pr")
    lake.subscribe("no seats", "a", seats=0)
    lake.use("no seats", "a")
    for account, known in (("nobody known", ()), ("users no longer known", SILENT)):
        lake.subscribe(account, "a", seats=4)
        lake.use(account, "a", weeks=known)
        lake.use(account, "a", [None] * 3, [ago for ago in ALWAYS if ago not in known])

    def clicks(account: str, **users: int) -> None:
        lake.subscribe(account, "a")
        for user, each in users.items():
            lake.use(account, "a", user, clicks=each)

    clicks("half of one", x=2, y=1, z=1)
    clicks("less than half", x=2, y=1, z=1)
    lake.use("less than half", "a", "w", [0], 1)
    lake.subscribe("25 clicks", "a")
    lake.use("25 clicks", "a", "x", range(12), 2)
    lake.use("25 clicks", "a", "x", [12], 1)
    clicks("26 clicks", x=2)
    for n in (3, 4):
        clicks(f"{n} weeks of one", y=2)
        lake.use(f"{n} weeks of one", "a", "x", range(n), 40)
    for account, back in (("champion", 17), ("champion elsewhere", 17), ("8 weeks", 12), ("9 weeks", 13)):
        clicks(account, y=4, z=4)
        lake.use(account, "a", "x", range(4, back), 30)
    lake.subscribe("champion elsewhere", "b")
    lake.use("champion elsewhere", "b")
    clicks("a quarter", y=4, z=4, v=4, w=3)
    clicks("less than a quarter", y=4, z=4, v=4, w=4)
    for account in ("a quarter", "less than a quarter"):
        lake.use(account, "a", "x", SILENT, 5)


def onboarding(lake: Lake) -> None:
    def start(account: str, first: str, weeks: list[int]) -> None:
        lake.subscribe(account, "start", start_date=day(first))
        lake.use(account, "start", weeks=weeks)

    start("12 full weeks", "2024-12-09", [11, 7, 3])
    start("11 full weeks", "2024-12-10", [11, 7, 3])
    start("three of four", "2024-12-09", [10, 8, 7])
    start("three of five", "2024-12-09", [10, 8, 6])
    lake.subscribe("start again", "start", end_date=day("2024-06-30"), end_reason="cancelled")
    start("start again", "2024-12-09", [11, 10, 9])
    for n in range(3):
        start(f"early {n}", "2024-12-09", [11, 10, 9])
        start(f"late {n}", "2024-12-09", [7, 6, 5])


def peers(lake: Lake) -> None:
    def member(segment: str, account: str, application: str, users: str, value: int = 100) -> None:
        lake.account(account, segment)
        lake.subscribe(account, application, value)
        lake.use(account, application, users)

    for n in range(1, 9):
        member("seven", f"seven {n}", "a", "abcdefgh"[:n])
    for n in range(1, 10):
        member("eight", f"eight {n}", "a", "abcdefghi"[:n])
    member("eight", "eight without", "b", "abc")
    for segment, having, members in (("at half", 4, 9), ("below half", 3, 9), ("too few", 7, 8)):
        for n in range(1, members + 1):
            member(segment, f"{segment} {n}", "a", "abc")
            if n <= having:
                member(segment, f"{segment} {n}", "x", "abc", 100 * n)
    lake.subscribe("at half 9", "x", 50, end_date=day("2024-06-30"), end_reason="cancelled")


def health(lake: Lake) -> None:
    lake.subscribe("steady", "a")
    lake.use("steady", "a")
    lake.subscribe("falling", "a", seats=4)
    falling(lake, "falling")
    lake.subscribe("notice today", "a", notice_date=ahead(0))
    lake.use("notice today", "a")
    lake.subscribe("not opened yet", "a")
    lake.subscribe("not opened yet", "b", start_date=day("2025-02-17"))
    lake.use("not opened yet", "a")
    lake.subscribe("unused", "a")
    lake.subscribe("unused", "b")
    lake.subscribe("unused", "c")
    lake.subscribe("unused", "d")
    for application in "abc":
        lake.use("unused", application)
    lake.subscribe("as a whole", None)
    lake.use("as a whole", "a")
    lake.use("as a whole", "b", weeks=[30])
    lake.subscribe("too young", "a", start_date=day("2025-02-10"))
    lake.use("too young", "a", weeks=range(3))


def answers(lake: Lake) -> None:
    """11 of 20 call *usage down* useless, 10 of 20 *never adopted*; of the others too few, too old, or one person's again."""

    def answer(kind: str, useless: int, of: int, moment: str, account: str = "Q{n}") -> None:
        for n in range(of):
            said = {"call_reason": kind, "is_useful": n >= useless, "why_not": "no problem" if n < useless else None}
            now = datetime.fromisoformat(moment).replace(tzinfo=UTC) + timedelta(seconds=n)
            week = str(now.date() - timedelta(days=now.weekday() + 7))
            lake.answers.append({"account_id": account.format(n=n), "now": now, "week": week, "useful": [said]})

    answer("usage down", 11, 20, "2025-02-12T09:00")
    answer("never adopted", 10, 20, "2025-02-12T10:00")
    answer("champion silent", 19, 19, "2025-02-12T11:00")
    answer("inactive", 30, 30, "2024-02-14T12:00")
    answer("notice received", 30, 30, "2025-02-12T13:00", "Q")
    for account, days in (("low", 200), ("low, renews", 60)):
        lake.subscribe(account, "a", 100, renewal_date=ahead(days))
        lake.use(account, "a", weeks=SILENT)
        lake.use(account, "a", "x", range(4))


WORLDS = (arr_at_risk, renewals, revenue, people, onboarding, peers, health, answers)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    lake = Lake()
    lake.subscribe("keeper", "keeper")
    lake.use("keeper", "keeper", weeks=range(60))
    for world in WORLDS:
        world(lake)
    _, connection = refreshed(tmp_path_factory.mktemp("worlds"), lake)
    yield connection
    connection.close()


def rows(warehouse: duckdb.DuckDBPyConnection, sql: str, *values: Any) -> dict[Any, Any]:
    """First column, or pairs of the first two where there are three or more: the rest of its row."""
    found = warehouse.execute(sql, values).fetchall()
    return {row[0]: row[1] if len(row) == 2 else row[1:] for row in found}


# ---------------------------------------------------------------- money

AT_RISK = {
    "once": ("Urgent", 1000.10, 1, 3, 7000.70),
    "two": ("Urgent", 3000, 2, 3, 7000),
    "whole": ("Urgent", 3500, 2, 2, 3500),
    "part": ("Urgent", 1000, 1, 2, 3500),
    "only whole": ("Urgent", None, 1, 2, 900),
    "only whole, all silent": ("Urgent", 900, 2, 2, 900),
    "whole, notice": ("Urgent", 1000, 1, 1, 1000),
    "decides on another": ("Urgent", 50, 1, 2, 150),
    "red as a whole": ("Urgent", 170, 2, 2, 170),
    "seats": ("Watch", 100, 1, 6, 600),
    "champion": ("This week", 100, 1, 1, 100),
}


def test_each_application_at_risk_counts_once(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(
        warehouse,
        "SELECT account_id, urgency, arr_at_risk, applications_at_risk, applications_owned, annual_value "
        "FROM mart.call_list",
    )
    for account, (urgency, *figures) in AT_RISK.items():
        assert (account, found[account][0]) == (account, urgency)
        assert list(found[account][1:]) == figures, f"{account}, to the cent and without a remainder of floating point"


def test_what_renews_soon_weighs_up_to_twice(warehouse: duckdb.DuckDBPyConnection) -> None:
    """600 in 45 days weigh 600 x (1 + 135 / 180) = 1050; what renews in 180 days weighs no more than it is."""
    found = rows(warehouse, "SELECT account_id, rank FROM mart.call_list")
    wanted = ["whole", "two", "order 600", "once", "order 1000", "order 990", "only whole, all silent"]
    assert sorted(wanted, key=found.__getitem__) == wanted


def test_who_is_called_and_when(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(warehouse, "SELECT account_id, urgency FROM mart.call_list")
    calm = ("renews 0", "renews 30", "renews 180", "partial churn", "returned", "same day", "steady", "half of one")
    gone = ("ended", "not begun", "ends on the last", "capped")
    assert not {*calm, *gone, "runs out"} & set(found)
    never = {days: found[f"never used, {days}"] for days in (30, 31, 60, 61)}
    assert never == {30: "Urgent", 31: "This week", 60: "This week", 61: "Watch"}
    assert found["ends"] == found["notice, over before"] == found["notice today"] == "Urgent"


def test_a_kind_that_more_than_half_of_twenty_call_useless_comes_later(warehouse: duckdb.DuckDBPyConnection) -> None:
    kinds = rows(
        warehouse, "SELECT call_reason, reason_answers, useful_answers, is_moved_down FROM core.reason_usefulness"
    )
    assert kinds == {
        "usage down": (20, 9, True),
        "never adopted": (20, 10, False),
        "champion silent": (19, 0, False),
        "notice received": (1, 0, False),
    }
    found = rows(
        warehouse,
        "SELECT account_id || ': ' || call_reason, urgency FROM mart.call_reasons WHERE account_id IN "
        "('low', 'low, renews', 'champion', 'champion, 60', 'champion, 61', 'two')",
    )
    assert found["low: usage down"] == "Watch"
    assert found["low, renews: usage down"] == "This week"
    assert found["champion: champion silent"] == found["champion, 61: champion silent"] == "This week"
    assert found["champion, 60: champion silent"] == "Urgent"
    assert found["two: inactive"] == "Urgent"


RENEWALS = {
    ("renews 0", 0): (1, 100, "open", "no reason to call"),
    ("renews 30", 30): (1, 100, "open", "no reason to call"),
    ("renews 180", 180): (1, 100, "open", "no reason to call"),
    ("partial churn", 40): (1, 100, "open", "no reason to call"),
    ("returned", 57): (1, 300, "open", "no reason to call"),
    ("notice, over that day", 57): (1, 100, "notice received", "Urgent"),
    ("notice, no end", 57): (1, 100, "notice received", "Urgent"),
    ("with the whole", 50): (1, 800, "open", "no reason to call"),
    ("with the whole", 90): (1, 50, "open", "no reason to call"),
    ("same day", 70): (2, 150.5, "open", "no reason to call"),
    ("whole renews", 50): (2, 900, "open", "no reason to call"),
    ("delivered twice", 40): (1, 100, "open", "no reason to call"),
    ("never used, 30", 30): (1, 100, "open", "Urgent"),
    ("never used, 61", 61): (1, 100, "open", "Watch"),
}


def test_renewals_of_the_next_180_days(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = {
        row[:2]: row[2:]
        for row in warehouse.execute(
            "SELECT account_id, days_to_renewal, applications_renewing, arr_renewing, renewal_status, renewal_priority "
            "FROM mart.renewals"
        ).fetchall()
    }
    assert {key: found[key] for key in RENEWALS if key in found} == RENEWALS
    accounts = {account for account, _ in RENEWALS} | {"renews -1", "renews 181", "notice, over before", "not begun"}
    assert {key for key in found if key[0] in accounts} == set(RENEWALS)


MOVEMENTS = {
    "new on the last": {("2025-01", "a", "new"): 120},
    "new on the first": {("2025-02", "a", "new"): 100},
    "expansion": {("2025-01", "a", "expansion"): 50},
    "price within": {("2025-01", "a", "contraction"): -40},
    "and back": {},
    "adds": {("2025-02", "b", "expansion"): 70},
    "drops": {("2025-02", "b", "contraction"): -70},
    "ends on the last": {("2025-02", "a", "churned"): -100},
    "ends on the first": {("2025-02", "a", "churned"): -100},
    "ends before the last": {("2025-01", "a", "churned"): -100},
    "gap of a day": {},
    "gap of 29": {},
    "gap of 30": {("2025-01", "a", "churned"): -100, ("2025-02", "a", "reactivated"): 100},
    "back": {("2024-11", "a", "churned"): -100, ("2025-01", "a", "reactivated"): 80},
    "early renewal": {("2024-12", "a", "expansion"): 30},
    "amended": {("2024-12", "a", "expansion"): 50, ("2025-01", "a", "contraction"): -50},
    "no value": {},
    "value known before": {},
    "value known after": {},
    "from 0": {("2025-01", "a", "new"): 200},
    "to 0": {("2025-01", "a", "churned"): -100},
    "two wholes": {("2025-02", "all", "expansion"): 200},
    "whole without a value": {},
    "capped": {("2025-01", "a", "churned"): -100},
    "swap": {("2025-01", "a", "contraction"): -100, ("2025-01", "b", "expansion"): 100},
    "swap over the month": {("2024-12", "a", "contraction"): -100, ("2025-01", "b", "expansion"): 90},
    "cents": {("2025-01", "a", "expansion"): 0.2},
}
# 12 months to February 2025: ARR before, contraction, churned, expansion, reactivated, of accounts that had none
RETENTION = {
    "new on the last": (0, 0, 0, 0, 0, 120),
    "new on the first": (0, 0, 0, 0, 0, 100),
    "expansion": (100, 0, 0, 50, 0, 0),
    "price within": (100, 40, 0, 0, 0, 0),
    "and back": (100, 0, 0, 0, 0, 0),
    "adds": (100, 0, 0, 70, 0, 0),
    "drops": (170, 70, 0, 0, 0, 0),
    "ends on the last": (100, 0, 100, 0, 0, 0),
    "ends on the first": (100, 0, 100, 0, 0, 0),
    "ends before the last": (100, 0, 100, 0, 0, 0),
    "gap of a day": (100, 0, 0, 0, 0, 0),
    "gap of 29": (100, 0, 0, 0, 0, 0),
    "gap of 30": (100, 0, 100, 0, 100, 0),
    "back": (100, 0, 100, 0, 80, 0),
    "early renewal": (100, 0, 0, 30, 0, 0),
    "amended": (100, 0, 0, 0, 0, 0),
    "no value": (None, None, None, None, None, None),
    "value known before": (100, 0, 0, 0, 0, 0),
    "value known after": (90, 0, 0, 0, 0, 0),
    "from 0": (0, 0, 0, 0, 0, 200),
    "to 0": (100, 0, 100, 0, 0, 0),
    "two wholes": (1000, 0, 0, 200, 0, 0),
    "whole without a value": (300, 0, 0, 0, 0, 0),
    "capped": (100, 0, 100, 0, 0, 0),
    "swap": (100, 100, 0, 100, 0, 0),
    "swap over the month": (100, 100, 0, 90, 0, 0),
    "cents": (0.1, 0, 0, 0.2, 0, 0),
}


def test_movements_of_revenue(warehouse: duckdb.DuckDBPyConnection) -> None:
    found: dict[str, Any] = {account: {} for account in MOVEMENTS}
    for account, month, *rest, change in warehouse.execute(
        "SELECT account_id, strftime(month_start, '%Y-%m'), application_key, arr_movement, arr_change "
        "FROM mart.revenue_movements WHERE month_start >= '2024-06-01'"
    ).fetchall():
        found.get(account, {})[month, *rest] = change
    assert found == MOVEMENTS


def test_revenue_retained_over_twelve_months(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(
        warehouse,
        "SELECT account_id, sum(starting_arr), sum(arr_contraction), sum(arr_churned), sum(arr_expansion), "
        "sum(arr_reactivated), sum(arr_joined) FROM mart.revenue_retention WHERE month_start = '2025-02-01' GROUP BY 1",
    )
    assert {account: found[account] for account in RETENTION} == pytest.approx(RETENTION)


def test_gross_and_net_revenue_retention_of_some_accounts(warehouse: duckdb.DuckDBPyConnection) -> None:
    """Of 470 that were there 40, 70 and 100 are lost; the same accounts pay 50 and 80 beside it."""
    metrics = METRICS["revenue_retention"]
    accounts = ["expansion", "price within", "drops", "back", "new on the last"]
    gross, net = warehouse.execute(
        f"SELECT {metrics['retained_gross'].expression}, {metrics['retained_net'].expression} FROM mart.revenue_retention "
        "WHERE month_start = '2025-02-01' AND account_id IN (SELECT unnest(?))",
        [accounts],
    ).fetchall()[0]
    assert (gross, net) == pytest.approx((260 / 470, 390 / 470))


# ---------------------------------------------------------------- people


def test_seats_and_who_takes_them(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(
        warehouse,
        "SELECT account_id || ': ' || application_key, weekly_active_users, monthly_active_users, stickiness, seats, "
        "seat_utilization FROM mart.subscription_users",
    )
    assert found["seats: a"] == pytest.approx((3, 5, 0.35, 4, 1.25))  # (3 + 2 + 1 + 1) / 4 weeks / 5 users
    assert found["seats: b"] == (1, 1, 1, 4, 0.25)
    assert found["seats: all"][1:] == pytest.approx((5, 0.85, 28, 14 / 28))
    assert found["seats of the whole: all"] == pytest.approx((3, 3, 1, 14, 4 / 14))
    assert found["no seats: a"] == (3, 3, 1, 0, None)


def test_seats_used_up_and_shelfware(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(
        warehouse,
        "SELECT account_id || ': ' || application_key, expansion_kind FROM mart.expansion "
        "WHERE expansion_kind != 'expansion gap' AND account_id NOT LIKE '%whole'",
    )
    used_up = {"seats: a", "seats: e", "no seats: a"}
    shelfware = {"seats: b", "seats: f", "falling: a"}
    assert found == dict.fromkeys(used_up, "seats used up") | dict.fromkeys(shelfware, "shelfware")


def test_on_whom_an_application_depends_and_who_went_silent(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(
        warehouse,
        "SELECT account_id, depends_on_one, has_champion, champion_is_silent, users_going_on, "
        "CAST(champion_last_used_on AS DATE) FROM mart.subscription_users WHERE application_key = 'a'",
    )
    depends = ("half of one", "26 clicks", "4 weeks of one", "champion")
    assert {name for name in (*depends, "less than half", "25 clicks", "3 weeks of one") if found[name][0]} == {
        *depends
    }
    last = NEWEST - timedelta(weeks=4) + timedelta(days=2)
    for name, going_on in (("champion", 2), ("9 weeks", 2), ("a quarter", 4)):
        assert found[name][1:] == (True, True, going_on, last), name
    assert found["champion elsewhere"][1:] == (True, False, None, None)
    for name in ("8 weeks", "less than a quarter"):
        assert found[name][1:] == (False, False, None, None), name


def test_users_are_not_known_where_no_row_has_one(warehouse: duckdb.DuckDBPyConnection) -> None:
    """Seats of an account whose rows carry no user were called shelfware, and its health lacked breadth."""
    names = "monthly_active_users, seat_utilization, regular_users, depends_on_one, has_champion, champion_is_silent"
    found = rows(
        warehouse,
        f"SELECT account_id, {names} FROM mart.subscription_users WHERE application_key = 'a' AND account_id IN "
        "('nobody known', 'users no longer known')",
    )
    assert found["nobody known"] == (None,) * 6
    assert found["users no longer known"] == (None, None, 3, False, True, None)
    health = rows(
        warehouse,
        "SELECT account_id, health, factors_not_known FROM mart.account_health WHERE application_key = 'a'",
    )
    assert health["nobody known"] == (100, "breadth, seats, users")


def test_starts_that_are_stuck(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(
        warehouse,
        "SELECT account_id, period_number, onboarding_state, days_to_first_use, weeks_to_steady_use, weeks_subscribed, "
        "peers, peers_days_to_first_use, peers_weeks_to_steady_use FROM mart.onboarding WHERE application_key = 'start'",
    )
    # first use after 2, 2, 2, 2, 9, 9, 30, 30, 30 days; steady after 3, 3, 3, 5, 7, 7, 7 weeks and two never
    peers = (9, 9, 7)
    assert found["12 full weeks"] == (1, "stuck", 2, None, 12, *peers)
    assert found["three of five"] == (1, "stuck", 9, None, 12, *peers)
    assert found["11 full weeks"] == (1, "starting", 1, None, 11, *peers)
    assert found["three of four"] == (1, "steady use", 9, 5, 12, *peers)
    assert found["early 0"] == (1, "steady use", 2, 3, 12, *peers)
    assert found["late 0"] == (1, "steady use", 30, 7, 12, *peers)
    assert found["start again"][:4] == (2, "steady use", 2, 3)


# ---------------------------------------------------------------- peers


def test_eight_peers_or_none(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(
        warehouse,
        "SELECT account_id || ': ' || application_key, peers, percentile, group_median FROM mart.peers "
        "WHERE peer_measure = 'monthly active users'",
    )
    for n in range(1, 9):
        assert found[f"seven {n}: a"] == (7, None, None)
    for n in range(1, 10):
        assert found[f"eight {n}: a"] == (8, (n - 1) / 8, 5)
    # the account without the application is a peer of the accounts as a whole, with three users
    assert found["eight 3: all"] == pytest.approx((9, 2.5 / 9, 4.5))
    assert found["eight 4: all"] == pytest.approx((9, 4 / 9, 4.5))
    assert found["eight without: b"] == (0, None, None)


def test_gaps_at_exactly_half_of_the_peers(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(
        warehouse,
        "SELECT account_id, application_key, peers, peers_share, peers_annual_value, reason FROM mart.expansion "
        "WHERE expansion_kind = 'expansion gap'",
    )
    assert set(found) == {f"at half {n}" for n in range(5, 10)} | {"eight without"}
    assert found["at half 5"] == ("x", 8, 0.5, 250, "4 of 8 peers have it (at half)")
    assert found["at half 9"][-1].endswith("subscribed until Jun 30, 2024")


# ---------------------------------------------------------------- health


def test_health_on_paper(warehouse: duckdb.DuckDBPyConnection) -> None:
    found = rows(
        warehouse,
        "SELECT account_id || ': ' || application_key, health, health_color, biggest_factor, factors_not_known "
        "FROM mart.account_health",
    )
    assert found["steady: a"] == (100, "green", None, "seats")
    # use (21 / 40 - 0.4) / 0.6 = 21, recency 75, seats (1 / 4) / 0.7 = 36, trend (111 / 130 - 0.6) / 0.4 = 63, others 0
    assert found["falling: a"] == (32, "red", "use", "")  # (21 x 20 + 75 x 15 + 36 x 10 + 63 x 10) / 80
    assert found["falling: all"] == (45, "red", "use", "")  # with adoption 100 x 20, / 100
    assert found["notice today: a"] == (20, "red", "notice", "seats")
    assert found["not opened yet: all"] == (100, "green", None, "seats")
    assert found["not opened yet: b"] == (None, "not known", None, "")
    assert found["unused: all"] == (89, "green", "adoption", "seats")  # (50 x 20 + 100 x 70) / 90
    assert found["as a whole: all"] == (100, "green", None, "seats")
    assert found["too young: a"][:2] == (None, "not known")


def test_points_add_up_to_health(warehouse: duckdb.DuckDBPyConnection) -> None:
    apart = warehouse.execute(
        "SELECT health.account_id, health.application_key, health.health, sum(points.points) "
        "FROM mart.account_health AS health INNER JOIN mart.health_factor_points AS points "
        "USING (account_id, application_key) WHERE health.health IS NOT NULL "
        "GROUP BY ALL HAVING abs(sum(points.points) - health.health) > 1"
    ).fetchall()
    assert apart == []
