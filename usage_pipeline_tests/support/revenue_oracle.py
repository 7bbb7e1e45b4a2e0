"""Revenue once more, from raw subscription rows, day by day with sets: what the tables of ARR must hold.

Nothing of the product's tables or SQL is used. Amounts are whole cents. A row: account_id, application (None: the whole
account), start_date, end_date (None: running), seats, annual_value (None: not delivered).
"""

from collections import defaultdict
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

DAY = timedelta(days=1)
Row = dict[str, Any]
# account, application (None: the whole account)
Key = tuple[str, str | None]


def days_of(row: Row, horizon: date) -> list[date]:
    last = row["end_date"] or horizon
    return [row["start_date"] + n * DAY for n in range((last - row["start_date"]).days + 1)]


def bridged(days: set[date], gap: int) -> set[date]:
    """Days with those between them, where there are fewer than `gap` of these."""
    found = set(days)
    ordered = sorted(days)
    for before, after in pairwise(ordered):
        missing = [before + n * DAY for n in range(1, (after - before).days)]
        if len(missing) < gap:
            found |= set(missing)
    return found


def runs(days: set[date]) -> list[list[date]]:
    """Unbroken runs of days."""
    found: list[list[date]] = []
    for day in sorted(days):
        if found and found[-1][-1] + DAY == day:
            found[-1].append(day)
        else:
            found.append([day])
    return found


def terms_of_application(rows: list[Row], cap: set[date] | None, gap: int, horizon: date, what: str) -> dict[date, Any]:
    """What holds on each day that an application is subscribed."""
    told: dict[date, Row] = {}

    def rank(row: Row) -> tuple[Any, ...]:
        empty = (-1 if row[name] is None else row[name] for name in ("annual_value", "seats"))
        return (row["start_date"], row["end_date"] or date.max, *empty)

    # what began last is written last
    for row in sorted(rows, key=rank):
        told |= dict.fromkeys(days_of(row, horizon), row)
    subscribed = bridged(set(told), gap)
    for day in sorted(subscribed - set(told)):
        told[day] = told[day - DAY]
    found: dict[date, Any] = {}
    for run in runs(subscribed if cap is None else subscribed & cap):
        known = None
        for day in run:
            found[day] = known = known if told[day][what] is None else told[day][what]
        for day in reversed(run):
            found[day] = known = known if found[day] is None else found[day]
    return found


def renewals_filled(rows: list[Row], gap: int, what: str) -> list[Row]:
    """Rows about one whole account, where each line of rows that follow one another alone knows what its rows say."""
    rows = sorted((dict(row) for row in rows), key=lambda row: row["start_date"])
    after: dict[int, int] = {}
    for n, row in enumerate(rows):
        begun = [m for m, other in enumerate(rows) if row["end_date"] and other["start_date"] > row["end_date"]]
        nearest = [m for m in begun if rows[m]["start_date"] == min(rows[k]["start_date"] for k in begun)]
        if len(nearest) != 1 or (rows[nearest[0]]["start_date"] - row["end_date"]).days > gap:
            continue
        ended = [m for m, other in enumerate(rows) if (other["end_date"] or date.max) < rows[nearest[0]]["start_date"]]
        if [m for m in ended if rows[m]["end_date"] == max(rows[k]["end_date"] for k in ended)] == [n]:
            after[n] = nearest[0]
    for n in range(len(rows)):
        if n in after and rows[after[n]][what] is None:
            rows[after[n]][what] = rows[n][what]
    for n in reversed(range(len(rows))):
        if n in after and rows[n][what] is None:
            rows[n][what] = rows[after[n]][what]
    return rows


def values_of(rows: list[Row], gap: int, horizon: date, what: str = "annual_value") -> dict[Key, list[dict[date, Any]]]:
    """For each account and application, or the whole account: what each of its subscriptions says on each of its days."""
    sound = [row for row in rows if row["end_date"] is None or row["end_date"] >= row["start_date"]]
    whole: dict[str, list[Row]] = defaultdict(list)
    own: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sound:
        if row["application"] is None:
            whole[row["account_id"]].append(row)
        else:
            own[row["account_id"], row["application"]].append(row)
    framed = {row["account_id"] for row in rows if row["application"] is None}
    found: dict[Key, list[dict[date, Any]]] = {}
    covered = {account: {day for row in whole[account] for day in days_of(row, horizon)} for account in framed}
    for (account, application), of_pair in own.items():
        cap = bridged(covered[account], gap) if account in framed else None
        found[account, application] = [terms_of_application(of_pair, cap, gap, horizon, what)]
    for account, of_account in whole.items():
        if not of_account:
            continue
        if account not in {of_pair for of_pair, _ in own}:
            of_account = renewals_filled(of_account, gap, what)
        found[account, None] = []
        between = bridged(covered[account], gap) - covered[account]
        for row in of_account:
            days = days_of(row, horizon)
            while days[-1] + DAY in between:
                days.append(days[-1] + DAY)
            found[account, None].append(dict.fromkeys(days, row[what]))
    return found


class Revenue:
    """ARR in cents of any day, and the run of days with ARR that an account is in."""

    def __init__(self, rows: list[Row], gap: int, horizon: date) -> None:
        self.values = values_of(rows, gap, horizon)
        paying: dict[str, set[date]] = defaultdict(set)
        for (account, _), subscriptions in self.values.items():
            for days in subscriptions:
                paying[account] |= {day for day, value in days.items() if value is not None and value > 0}
        self.period: dict[str, dict[date, int]] = {
            account: {day: number for number, run in enumerate(runs(bridged(days, gap)), 1) for day in run}
            for account, days in paying.items()
        }

    def arr(self, day: date) -> dict[Key, int]:
        """Cents of each account and application that has a value on the day."""
        found: dict[Key, int] = {}
        for key, subscriptions in self.values.items():
            told = [days[day] for days in subscriptions if days.get(day) is not None]
            if told:
                found[key] = sum(round(100 * value) for value in told)
        return found

    def place(self, account: str, day: date) -> int | None:
        return self.period.get(account, {}).get(day)

    def movements(self, before: date, now: date) -> dict[tuple[Key, str], int]:
        """What changed ARR from one day to another: cents by account and application, and movement."""
        then, today = self.arr(before), self.arr(now)
        found: dict[tuple[Key, str], int] = defaultdict(int)
        for key in then.keys() | today.keys():
            was, will = then.get(key, 0), today.get(key, 0)
            left, came = self.place(key[0], before), self.place(key[0], now)
            if left == came:
                found[key, "expansion" if will > was else "contraction"] += will - was
            else:
                found[key, "churned"] -= was
                found[key, "new" if came == 1 else "reactivated"] += will
        return {movement: cents for movement, cents in found.items() if cents}
