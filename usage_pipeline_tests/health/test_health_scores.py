"""Health against a computation in plain Python on raw rows of users and weeks, and what must hold of it whatever comes."""

import statistics
import tempfile
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from usage_pipeline.config.settings import HealthFactor, HealthSettings, load_settings
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline_tests.support.histories import TABLES, make_table
from usage_pipeline_tests.support.lakes import write_config

FIRST, NEWEST = date(2024, 8, 5), date(2025, 2, 24)  # Mondays; as_of is Mar 5, 2025
WEEKS = [FIRST + timedelta(weeks=n) for n in range((NEWEST - FIRST).days // 7 + 1)]
# account, application, user, week: clicks
Use = dict[tuple[str, str, str, date], int]
NOBODY: Any = None  # in the place of a user: the row has none
# account, application (None: whole account), start, notice, seats
Row = tuple[str, str | None, date, date | None, int | None]
WEIGHTS = {"adoption": 20, "use": 20, "users": 15, "seats": 10, "recency": 15, "breadth": 10, "trend": 10}
ENDS = {"adoption": (0.5, 1), "use": (0.4, 1), "users": (0.5, 1), "seats": (0, 0.7), "recency": (4, 0)} | {
    "breadth": (0, 0.5),
    "trend": (0.6, 1),
}


def computed(rows: list[Row], use: Use, **changes: Any) -> dict[tuple[str, str | None], float | None]:
    """Health of the newest week, by the product's own SQL."""
    return {key: row[0] for key, row in scored(rows, use, **changes).items()}


def scored(rows: list[Row], use: Use, **changes: Any) -> dict[tuple[str, str | None], tuple[float | None, str]]:
    connection, _ = in_tables(rows, use, **changes)
    found = connection.execute(
        f"SELECT account_id, application, health, health_color FROM core.health_scores WHERE as_of_week = DATE '{NEWEST}'"
    ).fetchall()
    return {(account, application): (health, color) for account, application, health, color in found}


def in_tables(rows: list[Row], use: Use, **changes: Any) -> tuple[duckdb.DuckDBPyConnection, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        configured = load_settings(write_config(Path(folder), **changes))
    values = sql_values(configured)
    connection = duckdb.connect()
    connection.execute("CREATE SCHEMA ref; CREATE SCHEMA core")
    connection.execute(
        "CREATE TABLE ref.subscriptions (account_id VARCHAR, application VARCHAR, start_date DATE, notice_date DATE, "
        "end_date DATE, end_reason VARCHAR, renewal_date DATE, seats BIGINT, annual_value DOUBLE)"
    )
    connection.execute("CREATE TABLE ref.subscriptions_rejected AS SELECT *, '' AS reason FROM ref.subscriptions")
    for account, application, start, notice, seats in rows:
        connection.execute(
            "INSERT INTO ref.subscriptions VALUES (?, ?, ?, ?, NULL, NULL, NULL, ?, NULL)",
            [account, application, start, notice, seats],
        )
    connection.execute(
        "CREATE TABLE core.weekly_users (week_start DATE, account_id VARCHAR, application VARCHAR, user_id VARCHAR, "
        "clicks BIGINT, first_day DATE, last_day DATE)"
    )
    if use:
        connection.executemany(
            "INSERT INTO core.weekly_users VALUES (?, ?, ?, ?, ?, ?, ?)",
            [[week, a, p, u, clicks, week, week + timedelta(days=4)] for (a, p, u, week), clicks in use.items()],
        )
    connection.execute(
        "CREATE TABLE core.weekly_usage AS SELECT week_start, account_id, application, sum(clicks)::BIGINT AS clicks, "
        "0::BIGINT AS records_created, count(*) AS active_users, 1::BIGINT AS source_rows, min(first_day) AS first_day, "
        "max(last_day) AS last_day FROM core.weekly_users GROUP BY 1, 2, 3"
    )
    connection.execute("CREATE TABLE core.account_days (account_id VARCHAR, day DATE, clicks BIGINT)")
    connection.execute(
        "CREATE TABLE core.weeks AS SELECT CAST(w AS DATE) AS week_start, TRUE AS has_arrived, "
        f"w <= DATE '{NEWEST}' AS is_complete, w > DATE '{NEWEST}' AS is_running "
        f"FROM generate_series(DATE '{FIRST}', DATE '{NEWEST}' + 7, INTERVAL 7 DAYS) AS s (w)"
    )
    for name in TABLES:
        make_table(connection, name, configured, values)
    for name in ("health_inputs", "health_factors", "health_scores"):
        run_sql(connection, f"CREATE TABLE core.{name} AS {load_sql('defs/health', name)}", values)
    return connection, values


def test_points_and_arithmetic_add_up_to_health_with_a_notice_too() -> None:
    """Beside a health of 20 stood points of 100, and weights that added up to 99 %."""
    use = {("a", p, user, week): 20 for p in "pq" for user in "uv" for week in WEEKS}
    rows: list[Row] = [("a", "p", date(2020, 1, 1), date(2025, 2, 1), 3), ("a", "q", date(2020, 1, 1), None, None)]
    connection, values = in_tables(rows, use)
    connection.execute(
        "CREATE SCHEMA mart; CREATE TABLE core.account_names AS SELECT 'a' AS account_id, 'A' AS account, '' AS segment, "
        "'' AS region, '' AS owner, '' AS account_page; CREATE TABLE core.application_names AS SELECT "
        "unnest(['p', 'q']) AS application_key, application_key AS application, '' AS application_type; "
        "CREATE TABLE core.issued_health (as_of_week DATE, account_id VARCHAR, application_key VARCHAR, health DOUBLE)"
    )
    for name in ("health_factor_points", "account_health"):
        run_sql(connection, f"CREATE TABLE mart.{name} AS {load_sql('defs/health', name)}", values)
    found = connection.execute(
        "SELECT application_key, any_value(health), sum(points), 100 - sum(points_missing), any_value(health_arithmetic), "
        "any_value(biggest_factor) "
        "FROM mart.account_health JOIN mart.health_factor_points USING (account_id, application_key) GROUP BY 1"
    ).fetchall()
    assert len(found) == 3
    for key, health, points, kept, arithmetic, biggest in found:
        assert points == pytest.approx(health, abs=0.5)
        assert kept == pytest.approx(points)
        terms, _, weights = arithmetic.removeprefix("(").partition(") / ")
        parts = [term.rsplit(" ", 3)[1:] for term in terms.split(" + ")]
        total = float(weights.partition(";")[0])
        assert sum(float(weight) for _, _, weight in parts) == total
        score = sum(float(one) * float(weight) for one, _, weight in parts) / total
        if key == "p":
            assert (health, biggest) == (20, "notice")
            assert arithmetic.endswith("; at most 20 with a notice received")
        assert min(score, 20 if key == "p" else 100) == pytest.approx(health, abs=1)


def test_a_notice_of_after_the_newest_complete_week_holds_health_down_too() -> None:
    """The call list said 'notice received' beside a health of 100."""
    use = {("a", "p", user, week): 20 for user in "uv" for week in WEEKS}
    for notice, health in ((date(2025, 3, 5), 20), (date(2025, 3, 6), 100), (None, 100)):
        assert computed([("a", "p", date(2020, 1, 1), notice, None)], use)["a", "p"] == health


# ---------------------------------------------------------------- by hand


def by_hand(rows: list[Row], use: Use) -> dict[tuple[str, str | None], float | None]:
    """Health of the newest week: sets and loops over raw rows."""
    running = [row for row in rows if row[1] is not None and row[2] <= NEWEST + timedelta(days=6)]
    found: dict[tuple[str, str | None], float | None] = {}
    for account in {row[0] for row in running}:
        of_account = [facts_of(row, use) for row in running if row[0] == account]
        for facts in of_account:
            found[account, facts["application"]] = None if facts["unopened"] else mean_of(facts, "application")
        found[account, None] = account_health(account, of_account, rows, use)
    return found


def facts_of(row: Row, use: Use) -> dict[str, Any]:
    account, application, start, notice, seats = row
    assert application is not None
    weekly: dict[date, int] = defaultdict(int)
    people: dict[str, dict[date, int]] = defaultdict(dict)
    for (a, p, user, week), clicks in use.items():
        if (a, p) == (account, application):
            weekly[week] += clicks
            # from Monday to Friday: who came before it began only is nobody's user
            if week + timedelta(days=4) >= start:
                people[user][week] = clicks
    full = [week for week in WEEKS if week >= start]
    clicks = [weekly[week] for week in full]
    recent = statistics.fmean(clicks[-4:]) if clicks else None
    usual = statistics.median(clicks[-30:-4]) if len(clicks) > 4 else None
    is_new = len(full) <= 4
    used = [n for n, of_week in enumerate(clicks) if of_week]
    # use in the week in which the subscription began counts, though the week is not full
    began_used = any(weekly[w] for w in WEEKS if w <= start <= w + timedelta(days=4) and w not in full)
    return {
        "application": application,
        "start": start,
        "notice": notice is not None,
        "seats": seats,
        "unopened": is_new and not recent,
        "active": bool(recent),
        "recent": recent if usual is not None and usual >= 5 else None,
        "usual": usual if usual is not None and usual >= 5 else None,
        "idle": len(clicks) - 1 - used[-1] if used else (len(clicks) if is_new or began_used else 4),
        "quarters": (sum(clicks[-13:]), sum(clicks[-26:-13])) if len(clicks) >= 26 else None,
        "people": people,
    }


def blocks_of(people: dict[str, dict[date, int]], start: date) -> tuple[int, float | None, float]:
    """Active users of the last four weeks, their mean over those of three blocks before that are subscribed from their
    first Monday on, and clicks a week of all but the most active of the last four."""
    ends = [NEWEST - timedelta(weeks=4 * n) for n in range(4)]
    counts = [
        sum(any(end - timedelta(weeks=4) < week <= end for week in weeks) for weeks in people.values()) for end in ends
    ]
    lately = [sum(c for week, c in weeks.items() if week > NEWEST - timedelta(weeks=4)) for weeks in people.values()]
    others = (sum(lately) - max(lately)) / 4 if lately else 0
    before = [c for c, end in zip(counts, ends, strict=True) if start <= end - timedelta(weeks=3)]
    before = before[1:] if len(before) else []
    return counts[0], sum(before) / len(before) if before else None, others


def mean_of(facts: dict[str, Any], level: str) -> float | None:
    now, usually, others = blocks_of(facts["people"], facts["start"])
    usual, quarters = facts["usual"], facts["quarters"]
    measured = {
        "adoption": facts.get("adoption"),
        "use": facts["recent"] / usual if usual else None,
        "users": now / usually if usually is not None and usually >= 1 else None,
        "seats": facts["seat_use"] if "seat_use" in facts else now / facts["seats"] if facts["seats"] else None,
        "recency": facts["idle"],
        "breadth": others / usual if usual else None,
        "trend": quarters[0] / quarters[1] if quarters and quarters[1] >= 65 else None,
    }
    known = {name: value for name, value in measured.items() if value is not None}
    possible = sum(weight for name, weight in WEIGHTS.items() if name != "adoption" or level == "account")
    total = sum(WEIGHTS[name] for name in known)
    if not total or total / possible < 0.5 - 1e-12:
        return None
    score = sum(
        WEIGHTS[n] * 100 * min(1, max(0, (v - ENDS[n][0]) / (ENDS[n][1] - ENDS[n][0]))) for n, v in known.items()
    )
    return min(score / total, 20 if facts["notice"] else 100)


def account_health(account: str, of_account: list[dict[str, Any]], rows: list[Row], use: Use) -> float | None:
    opened = [facts for facts in of_account if not facts["unopened"]]
    if not opened:
        return None
    subscribed = {facts["application"] for facts in of_account}
    people: dict[str, dict[date, int]] = defaultdict(lambda: defaultdict(int))
    for (a, p, user, week), clicks in use.items():
        starts = [facts["start"] for facts in of_account if facts["application"] == p]
        if a == account and p in subscribed and week + timedelta(days=4) >= min(starts):
            people[user][week] += clicks
    usual = [facts["usual"] for facts in of_account if facts["usual"] is not None]
    quarters = [facts["quarters"] for facts in of_account if facts["quarters"] is not None]
    with_seats = [facts for facts in of_account if facts["seats"]]
    whole = sum(row[4] or 0 for row in rows if row[0] == account and row[1] is None)
    without = {user for f in of_account if f["seats"] is None for user, weeks in f["people"].items() if lately(weeks)}
    seats = sum(facts["seats"] for facts in with_seats) + whole
    taken = sum(min(blocks_of(facts["people"], facts["start"])[0], facts["seats"]) for facts in with_seats)
    return mean_of(
        {
            "people": people,
            "start": min(facts["start"] for facts in of_account),
            "notice": all(facts["notice"] for facts in of_account),
            "adoption": sum(facts["active"] for facts in opened) / len(opened),
            "usual": sum(usual) if usual else None,
            "recent": sum(facts["recent"] for facts in of_account if facts["recent"] is not None),
            "idle": min(facts["idle"] for facts in opened),
            "quarters": (sum(q[0] for q in quarters), sum(q[1] for q in quarters)) if quarters else None,
            "seat_use": (taken + min(len(without), whole)) / seats if seats else None,
            "seats": None,
        },
        "account",
    )


def lately(weeks: dict[date, int]) -> bool:
    return any(week > NEWEST - timedelta(weeks=4) for week in weeks)


# ---------------------------------------------------------------- worlds


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Row], Use]:
    """One or two accounts, each with up to three applications, seats here or there, some new, some silent."""
    rows: list[Row] = []
    use: Use = {}
    rng = draw(st.randoms(use_true_random=False))
    for account in draw(st.sampled_from([["a"], ["a", "b"]])):
        for application in ["p", "q", "r"][: draw(st.integers(1, 3))]:
            starts = [FIRST, FIRST + timedelta(weeks=12), NEWEST - timedelta(weeks=2), NEWEST - timedelta(weeks=9)]
            # on a Monday, or on a day in the middle of a week of use or after it
            start = draw(st.sampled_from(starts)) + timedelta(days=draw(st.sampled_from([0, 0, 2, 5])))
            since = start - timedelta(weeks=draw(st.sampled_from([0, 2])))
            notice = draw(st.sampled_from([None, None, None, NEWEST - timedelta(days=3)]))
            rows.append((account, application, start, notice, draw(st.sampled_from([None, 2, 10]))))
            level, until = (
                draw(st.sampled_from([0, 2, 20, 60])),
                draw(st.sampled_from([WEEKS[-1], WEEKS[-3], WEEKS[-8]])),
            )
            for user in ["x", "y", "z"][: draw(st.integers(1, 3))]:
                for week in WEEKS:
                    if level and since <= week <= until and rng.random() < 0.7:
                        use[account, application, f"{account}{user}", week] = 1 + rng.randrange(level)
        if draw(st.booleans()):
            rows.append((account, None, FIRST, None, draw(st.sampled_from([None, 3, 20]))))
    return rows, use


@given(worlds())
@settings(max_examples=15, deadline=None, phases=[Phase.generate])
def test_health_is_what_raw_rows_give(world: tuple[list[Row], Use]) -> None:
    rows, use = world
    found, expected = computed(rows, use), by_hand(rows, use)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == (None if value is None else pytest.approx(value, abs=0.5 + 1e-9)), key


@pytest.mark.long
@given(worlds())
@settings(max_examples=200, deadline=None)
def test_health_is_what_raw_rows_give_in_many_worlds(world: tuple[list[Row], Use]) -> None:
    rows, use = world
    found, expected = computed(rows, use), by_hand(rows, use)
    for key, value in expected.items():
        assert found[key] == (None if value is None else pytest.approx(value, abs=0.5 + 1e-9)), key


@given(worlds(), st.data())
@settings(max_examples=10, deadline=None, phases=[Phase.generate])
def test_taking_use_away_never_improves_health(world: tuple[list[Row], Use], data: st.DataObject) -> None:
    """Of the last four weeks: what was before them is what they are compared with. Some rows have no user, and who comes
    must not become unknown by it.
    """
    rows, use = world
    hidden = data.draw(st.sets(st.sampled_from(sorted({key[:3] for key in use})))) if use else set()
    use = {
        (a, p, NOBODY if (a, p, user) in hidden else user, week): clicks for (a, p, user, week), clicks in use.items()
    }
    recent = [key for key in use if key[3] > NEWEST - timedelta(weeks=4)]
    gone = data.draw(st.sets(st.sampled_from(recent), min_size=1)) if recent else set()
    before, after = computed(rows, use), computed(rows, {key: clicks for key, clicks in use.items() if key not in gone})
    for key, value in after.items():
        was = before[key]
        assert value is None or was is None or value <= was, key


def test_where_no_row_has_a_user_factors_of_users_leave_the_weights() -> None:
    """Breadth of an account without users was 0 of 50 % and its seats none of four; q, which names users, keeps its own."""
    use: Use = {("a", application, NOBODY, week): 10 for application in "pq" for week in WEEKS}
    use |= {("a", "q", user, week): 10 for user in "xyz" for week in WEEKS}
    found = computed([("a", "p", FIRST, None, 4), ("a", "q", FIRST, None, 4)], use)
    assert (found["a", "p"], found["a", "q"], found["a", None]) == (100, 100, 100)


# ---------------------------------------------------------------- single cases


def test_who_came_before_the_subscription_began_takes_no_seat_and_is_no_usual_user() -> None:
    """It began on the Saturday of a week in which forty people had looked at it from Monday to Friday: the two who use
    it were told as two of forty, and its seats as taken by forty.
    """
    start = NEWEST - timedelta(weeks=7) + timedelta(days=5)
    crowd = {("a", "p", f"trial{n}", NEWEST - timedelta(weeks=7 + n % 4)): 1 for n in range(40)}
    use = crowd | {("a", "p", f"u{n}", week): 10 for n in range(2) for week in WEEKS if week >= start}
    assert computed([("a", "p", start, None, 4)], use) == computed([("a", "p", start, None, 4)], {k: c for k, c in use.items() if k not in crowd})  # fmt: skip
    late = NEWEST - timedelta(days=2)
    seats = {"factors": {"recency": {"weight": 0, "zero_at": 4, "full_at": 0}}, "known_share": 0.01}
    begun = {("a", "p", f"u{n}", week): 10 for n in range(4) for week in WEEKS if week <= NEWEST - timedelta(weeks=1)}
    assert computed([("a", "p", late, None, 4)], begun, health=seats)["a", "p"] is None, "nobody has come since"


def test_what_an_account_merely_used_once_is_no_adoption() -> None:
    """Of one vendor every subscription was about the account: 82 of its accounts were red for features tried once."""
    tried = {("a", f"f{n}", "u", WEEKS[n]): 1 for n in range(12)}
    row: list[Row] = [("a", None, FIRST, None, 3)]
    assert scored(row, tried | steady())["a", None] == (100, "green"), "eleven of twelve were tried once, and no more"
    columns = {c: c for c in ("account_id", "application", "event_time", "clicks")}
    flat = {"usage": {"path": "lake", "partitioned": True, "columns": columns}}
    gone = {key: clicks for key, clicks in steady().items() if key[3] < NEWEST - timedelta(weeks=9)}
    whole: list[Row] = [("a", None, FIRST, None, None)]
    assert scored(whole, tried | gone, sources=flat)["a", None] == (0, "red"), "all of its steady use is gone"
    assert scored(whole, tried, sources=flat)["a", None] == (None, "not known"), "twelve clicks tell nothing"
    by_name: list[Row] = [("a", name, FIRST, None, None) for name in ("p", "q", "r")]
    assert scored(by_name, gone, sources=flat)["a", None][1] == "red", "three were bought, and none is used"


def test_a_score_of_which_most_is_unknown_is_none() -> None:
    """Recency and use alone, without users, seats and a quarter to compare with: 35 of 80."""
    columns = {c: c for c in ("account_id", "application", "event_time", "clicks")}
    flat = {"usage": {"path": "lake", "partitioned": True, "columns": columns}}
    start = NEWEST - timedelta(weeks=12)
    use = {key: clicks for key, clicks in steady().items() if start <= key[3] < NEWEST - timedelta(weeks=3)}
    assert scored([("a", "p", start, None, None)], use, sources=flat)["a", "p"] == (None, "not known")
    low = scored([("a", "p", start, None, None)], use, sources=flat, health={"known_share": 0.4})
    assert low["a", "p"] == (0, "red")


def steady(account: str = "a", application: str = "p", users: int = 3, clicks: int = 10) -> Use:
    return {(account, application, f"u{n}", week): clicks for n in range(users) for week in WEEKS}


def test_a_customer_who_works_as_always_is_green() -> None:
    assert scored([("a", "p", FIRST, None, 3)], steady())["a", None] == (100, "green")


def test_a_notice_caps_health_however_much_is_used() -> None:
    found = scored([("a", "p", FIRST, NEWEST, 3), ("a", "q", FIRST, None, 3)], steady() | steady(application="q"))
    assert found["a", "p"] == (20, "red")
    assert found["a", "q"] == found["a", None] == (100, "green"), "one of two applications is no whole account"


def test_one_person_who_does_it_all_takes_points() -> None:
    together, alone = steady(users=3), dict.fromkeys(steady(users=1), 28) | steady(users=3, clicks=1)
    alone = {key: (28 if key[2] == "u0" else 1) for key in alone}
    rows: list[Row] = [("a", "p", FIRST, None, None)]
    assert (computed(rows, alone)["a", "p"] or 0) < (computed(rows, together)["a", "p"] or 0)


def test_what_nobody_opened_in_its_first_weeks_says_nothing() -> None:
    found = scored([("a", "p", FIRST, None, 3), ("a", "q", NEWEST - timedelta(weeks=2), None, 5)], steady())
    assert found["a", "q"] == (None, "not known")
    assert found["a", None][1] == "green"


def test_a_factor_of_no_weight_is_left_out_and_a_straight_line_needs_two_ends() -> None:
    factors = {"seats": {"weight": 0, "zero_at": 0, "full_at": 1}}
    few: list[Row] = [("a", "p", FIRST, None, 100)]
    assert (computed(few, steady())["a", "p"] or 0) < 100
    assert computed(few, steady(), health={"factors": factors})["a", "p"] == 100
    with pytest.raises(ValueError, match="a score needs a way"):
        HealthFactor(weight=1, zero_at=1, full_at=1)
    with pytest.raises(ValueError, match="amber_from has to be below green_from"):
        HealthSettings(green_from=40, amber_from=50)


def test_without_users_only_what_is_delivered_is_weighed() -> None:
    columns = {c: c for c in ("account_id", "application", "event_time", "clicks")}
    usage = {"path": "lake", "partitioned": True, "columns": columns}
    found = computed([("a", "p", FIRST, None, 100)], steady(), sources={"usage": usage})
    assert found["a", "p"] == 100, "seats are known, who came is not"
