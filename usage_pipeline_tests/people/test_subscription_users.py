"""Who comes, seats, and on whom an account depends: against raw rows, read one at a time in plain Python."""

from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from usage_pipeline.config.settings import Settings
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import as_dicts, load_sql, run_sql
from usage_pipeline_tests.support.people_worlds import (
    AS_OF,
    NEWEST,
    Event,
    PeopleWorld,
    computed,
    monday,
    rows_of,
    settings_of,
    subscription,
)

LONG_AGO = date(2020, 1, 1)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_of(tmp_path_factory.mktemp("people"))


UNKNOWN_WITHOUT_USERS = (
    (("weekly_active_users",), range(1)),
    (("monthly_active_users", "regular_users_lost", "champion_is_silent", "users_going_on"), range(4)),
    (("regular_users", "regular_users_lost"), range(4, 12)),
    (("top_user_share", "depends_on_one"), range(13)),
    (("has_champion", "champion_is_silent", "users_going_on"), range(4, 17)),
)

# ---------------------------------------------------------------- the oracle


def weeks_ago(day: date) -> int:
    return (NEWEST - monday(day)).days // 7


def subscribed(world: PeopleWorld) -> dict[tuple[str, str], dict[str, Any]]:
    """Running subscriptions about an application; one row each in these worlds."""
    return {
        (row["account_id"], row["application"]): row
        for row in world.subscriptions
        if row["application"] and row["start_date"] <= AS_OF and (row["end_date"] or AS_OF) >= AS_OF
    }


def counts(world: PeopleWorld, event: Event, start: date) -> bool:
    """Whether an event lies in a complete week in which its user came on a subscribed day."""
    week = monday(event.day)
    last = max(other.day for other in world.events if other[:3] == event[:3] and monday(other.day) == week)
    return week in world.complete and last >= start


def users_by_hand(world: PeopleWorld) -> dict[tuple[str, str], dict[str, Any]]:
    """account x application (or 'all'): figures as a person would count them on paper."""
    owned = subscribed(world)
    whole = {row["account_id"]: row for row in world.subscriptions if not row["application"]}
    paper: dict[tuple[str, str], list[tuple[Event, bool]]] = {key: [] for key in owned}
    paper |= {(account, "all"): [] for account in {*whole, *(account for account, _ in owned)}}
    for event in world.events:
        row = owned.get((event.account, event.application))
        if row is not None and counts(world, event, row["start_date"]):
            for key in ((event.account, event.application), (event.account, "all")):
                paper[key].append((event, monday(event.day) >= row["start_date"]))
    found = {key: figures(rows, world, key) for key, rows in paper.items()}
    for (account, application), row in found.items():
        seats, takers = seats_by_hand(world, account, application, owned, whole.get(account))
        row["seats"], row["seat_utilization"] = seats, takers / seats if seats else None
        if any(is_of_nobody(world, account, app, owned) for app in seated(account, application, owned, whole)):
            row["seat_utilization"] = None
    return found


def seated(account: str, application: str, owned: dict[Any, Any], whole: dict[str, Any]) -> list[str]:
    """Applications whose users take the seats of a row."""
    if application != "all":
        return [application]
    of_whole = account in whole and whole[account]["seats"] is not None
    return [app for (other, app), row in owned.items() if other == account and (row["seats"] is not None or of_whole)]


def is_of_nobody(world: PeopleWorld, account: str, application: str, owned: dict[Any, Any]) -> bool:
    start = owned[account, application]["start_date"]
    came = (e for e in world.events if e[:2] == (account, application) and counts(world, e, start))
    return {e.user for e in came if weeks_ago(e.day) < 4} == {None}


def seats_by_hand(
    world: PeopleWorld, account: str, application: str, owned: dict[Any, Any], whole: dict[str, Any] | None
) -> tuple[int | None, int]:
    def month(*applications: str) -> set[str | None]:
        return {
            e.user
            for e in world.events
            if e.account == account
            and e.application in applications
            and e.user is not None
            and counts(world, e, owned[account, e.application]["start_date"])
            and weeks_ago(e.day) < 4
        }

    if application != "all":
        return owned[account, application]["seats"], len(month(application))
    of_account = {app: row for (other, app), row in owned.items() if other == account}
    with_seats = {app for app, row in of_account.items() if row["seats"] is not None}
    seats = [of_account[app]["seats"] for app in with_seats]
    takers = sum(len(month(app)) for app in with_seats)
    if whole and whole["seats"] is not None:
        seats.append(whole["seats"])
        takers += len(month(*(set(of_account) - with_seats)))
    return (sum(seats) if seats else None), takers


def figures(rows: list[tuple[Event, bool]], world: PeopleWorld, key: tuple[str, str]) -> dict[str, Any]:
    came: dict[str, set[int]] = {}
    full: dict[str, set[int]] = {}
    lately, before = Counter[str | None](), Counter[str | None]()
    for event, is_full in rows:
        ago = weeks_ago(event.day)
        # which clicks of the week of the start came before it is not known: none of them tells shares
        clicks = event.clicks if is_full else 0
        if ago < 13:
            lately[event.user] += clicks
        if 4 <= ago < 17:
            before[event.user] += clicks
        if event.user is not None:
            came.setdefault(event.user, set()).add(ago)
            if is_full:
                full.setdefault(event.user, set()).add(ago)
    regular = {user for user, weeks in full.items() if len(weeks & set(range(4, 12))) >= 2}
    month = {user: weeks & set(range(4)) for user, weeks in came.items() if weeks & set(range(4))}
    known = {user: clicks for user, clicks in lately.items() if user is not None}
    top = max(known.items(), key=lambda one: (one[1], len(came[one[0]] & set(range(13)))), default=None)
    main = min((-clicks, user) for user, clicks in before.items() if user is not None) if set(before) - {None} else None
    is_champion = (
        main is not None and len(came[main[1]] & set(range(4, 17))) >= 9 and -main[0] >= 0.25 * sum(before.values())
    )
    seen = {e.user for e in world.events if e.account == key[0] and weeks_ago(e.day) < 4}
    is_silent = is_champion and main is not None and main[1] not in seen
    found = {
        "weekly_active_users": sum(0 in weeks for weeks in came.values()),
        "monthly_active_users": len(month),
        "regular_users": len(regular),
        "regular_users_lost": sum(not came[user] & set(range(4)) for user in regular),
        "top_user_share": top[1] / sum(lately.values()) if top and any(lately.values()) else None,
        "depends_on_one": bool(
            top
            and top[1] >= 0.5 * sum(lately.values())
            and sum(lately.values()) >= 26
            and len(came[top[0]] & set(range(13))) >= 4
        ),
        "has_champion": is_champion,
        "champion_is_silent": is_silent,
        "users_going_on": len(month) if is_silent else None,
    }
    # weeks in which somebody came and nobody has a name: who came is not known
    for names, span in UNKNOWN_WITHOUT_USERS:
        if {event.user for event, _ in rows if weeks_ago(event.day) in span} == {None}:
            found |= dict.fromkeys(names)
    return found


# ---------------------------------------------------------------- against it


def a_world(draw: Callable[[Any], Any]) -> PeopleWorld:
    """Two accounts with up to three applications: steady users, rare ones, some who leave, rows without a user."""
    number = st.integers
    events, subscriptions = [], []
    for account in ("a", "b"):
        for application in ("p", "q", "r")[: draw(number(1, 3))]:
            start = draw(st.sampled_from([LONG_AGO, date(2024, 11, 6), date(2025, 2, 12)]))
            end = draw(st.sampled_from([None, None, None, date(2025, 1, 15)]))
            seats = draw(st.sampled_from([None, 1, 2, 5]))
            subscriptions.append(subscription(account, application, start, end, seats=seats))
            for user in ("u1", "u2", "u3", None)[: draw(number(1, 4))]:
                share, last = draw(st.sampled_from([0, 1, 3, 10])), draw(st.sampled_from([-2, 0, 3, 4, 5, 9]))
                noise = draw(number(0, 10**6))
                for ago in range(last, 20):
                    if (noise * (ago + 7) // 13) % 10 < share:
                        day = NEWEST - timedelta(weeks=ago) + timedelta(days=noise % 3)
                        if day <= AS_OF:
                            events.append(Event(account, application, user, day, 1 + (noise + ago) % 9))
        if draw(st.booleans()):
            subscriptions.append(subscription(account, None, LONG_AGO, seats=draw(st.sampled_from([None, 3]))))
    incomplete = {NEWEST - timedelta(weeks=ago) for ago in draw(st.sets(number(1, 18), max_size=3))}
    return PeopleWorld(events, subscriptions, [], incomplete)


@examples(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(st.data())
def test_every_figure_is_that_of_the_raw_rows(settings: Settings, data: st.DataObject) -> None:
    world = a_world(data.draw)
    found = {
        (row["account_id"], row["application_key"]): row
        for row in rows_of(computed(world, settings), "mart.subscription_users")
    }
    expected = users_by_hand(world)
    running = {account for account, _ in subscribed(world)} | {
        row["account_id"] for row in world.subscriptions if not row["application"]
    }
    assert set(found) == {key for key in expected if key[0] in running}
    for key, row in found.items():
        wanted = expected[key]
        assert {name: row[name] for name in wanted} == pytest.approx(wanted), key


def steady(user: str | None, weeks: range, clicks: int = 5, account: str = "a", application: str = "p") -> list[Event]:
    return [Event(account, application, user, NEWEST - timedelta(weeks=n), clicks) for n in weeks]


def only(world: PeopleWorld, settings: Settings, application: str = "p") -> dict[str, Any]:
    (row,) = [
        row
        for row in rows_of(computed(world, settings), "mart.subscription_users")
        if row["application_key"] == application
    ]
    return row


def test_more_people_than_seats_are_seen(settings: Settings) -> None:
    """Seat utilization was capped at the seats: nobody could tell who was due for more."""
    events = [event for n in range(6) for event in steady(f"u{n}", range(4))]
    world = PeopleWorld(events, [subscription("a", "p", LONG_AGO, seats=4)])
    assert only(world, settings)["seat_utilization"] == 1.5
    assert only(world, settings, "all")["seat_utilization"] == 1.5


def test_a_champion_who_left_is_told_and_one_who_moved_to_another_application_is_not(settings: Settings) -> None:
    events = steady("main", range(5, 20), 20) + steady("other", range(20), 3)
    world = PeopleWorld(events, [subscription("a", "p", LONG_AGO), subscription("a", "q", LONG_AGO)])
    row = only(world, settings)
    assert (row["champion_is_silent"], row["users_going_on"]) == (True, 1)
    assert row["what_of_users"].startswith("the main user was last seen on Jan 20, 2025, one other user goes on")
    moved = world.but(events=[*events, *steady("main", range(2), 1, application="q")])
    assert not only(moved, settings)["champion_is_silent"]
    # that somebody came is known at once, of a week that still runs too
    back = world.but(events=[*events, *steady("main", range(-1, 0))])
    assert not only(back, settings)["champion_is_silent"]


def test_who_left_was_last_seen_in_whatever_application_came_last(settings: Settings) -> None:
    events = steady("main", range(8, 20), 20) + steady("main", range(6, 20), 5, application="q")
    world = PeopleWorld(events, [subscription("a", "p", LONG_AGO), subscription("a", "q", LONG_AGO)])
    days = {only(world, settings, key)["champion_last_used_on"] for key in ("p", "q", "all")}
    assert days == {max(event.day for event in events)}


def test_who_never_was_steady_is_no_champion(settings: Settings) -> None:
    world = PeopleWorld(
        steady("burst", range(5, 11), 50) + steady("other", range(20), 3), [subscription("a", "p", LONG_AGO)]
    )
    assert not only(world, settings)["has_champion"]


def test_half_the_clicks_by_one_is_a_dependence_and_a_few_clicks_are_none(settings: Settings) -> None:
    world = PeopleWorld(steady("one", range(13)) + steady("two", range(13)), [subscription("a", "p", LONG_AGO)])
    assert only(world, settings)["depends_on_one"]
    less = world.but(events=steady("one", range(13)) + steady("two", range(13), 6) + steady("three", range(13), 2))
    assert not only(less, settings)["depends_on_one"]
    few = world.but(events=steady("one", range(5)))
    assert not only(few, settings)["depends_on_one"]


def test_clicks_before_the_start_make_nobody_the_one_it_depends_on(settings: Settings) -> None:
    """Somebody tried it out on the Monday, it began on the Wednesday, and they came once more on the Friday."""
    start = NEWEST - timedelta(weeks=6)
    week = [Event("a", "p", "trial", start + timedelta(days=n), clicks) for n, clicks in ((0, 500), (4, 1))]
    world = PeopleWorld(
        [*week, *steady("one", range(6)), *steady("two", range(6)), *steady("three", range(6))],
        [subscription("a", "p", start + timedelta(days=2))],
    )
    row = only(world, settings)
    assert (row["top_user_share"], row["depends_on_one"]) == (pytest.approx(1 / 3), False)


def test_without_users_everything_about_them_is_empty(settings: Settings) -> None:
    world = PeopleWorld(steady("u", range(20)), [subscription("a", "p", LONG_AGO, seats=4)], has_users=False)
    row = only(world, settings)
    names = "weekly_active_users monthly_active_users stickiness seat_utilization regular_users regular_users_lost "
    names += "top_user_share depends_on_one has_champion champion_is_silent users_going_on"
    assert {name: row[name] for name in names.split()} == dict.fromkeys(names.split())
    assert row["seats"] == 4
    assert rows_of(computed(world, settings), "mart.expansion") == []


def test_a_whole_account_that_nobody_uses_has_a_row_of_its_own(settings: Settings) -> None:
    world = PeopleWorld([], [subscription("a", None, LONG_AGO, seats=10)])
    row = only(world, settings, "all")
    assert (row["monthly_active_users"], row["seats"], row["seat_utilization"], row["stickiness"]) == (0, 10, 0, None)


def test_risks_and_people_count_the_same_regular_users(settings: Settings) -> None:
    """Of one account it was said that 5 of 8 users stopped, and that all 11 regular users still come."""
    events = [e for n in range(9) for e in steady(f"u{n}", range(n % 6, 20, 1 + n % 4))]
    world = PeopleWorld(
        [*events, *steady("r", range(8, 14)), *steady(None, range(6))],
        [subscription("a", "p", LONG_AGO), subscription("a", "q", date(2025, 1, 1))],
        incomplete={NEWEST - timedelta(weeks=6)},
    )
    connection = computed(world, settings)
    connection.execute(
        "CREATE TABLE core.subscribed AS SELECT account_id, application, TRUE AS has_subscription, start_date AS "
        "customer_since, 100 AS days_to_renewal FROM core.subscription_periods"
    )
    values = sql_values(settings) | {"as_of_week": NEWEST}
    found = as_dicts(run_sql(connection, load_sql("predictions", "risk_features"), values))
    of_risks = {row["application"] or "all": (row["regular_users"], row["regular_users_gone"]) for row in found}
    of_people = {
        row["application_key"]: (row["regular_users"], row["regular_users_lost"])
        for row in rows_of(connection, "mart.subscription_users")
    }
    assert of_people == of_risks
    assert of_people["p"][1] > 0
