"""Time to first and to steady use, and stuck starts: against raw rows, walked through week by week."""

from datetime import date, timedelta
from statistics import median_low
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from usage_pipeline.config.settings import Settings
from usage_pipeline_tests.support.people_worlds import (
    AS_OF,
    NEWEST,
    WEEKS,
    Event,
    PeopleWorld,
    computed,
    monday,
    rows_of,
    settings_of,
    subscription,
)

FIRST = NEWEST - timedelta(weeks=WEEKS - 1)
FOREVER = date(9999, 12, 31)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_of(tmp_path_factory.mktemp("onboarding"))


def start_by_hand(world: PeopleWorld, row: dict[str, Any]) -> dict[str, Any]:
    start, end = row["start_date"], row["end_date"] or FOREVER
    days = sorted(
        event.day
        for event in world.events
        if event.account == row["account_id"] and event.application == (row["application"] or event.application)
    )
    inside = [day for day in days if start <= day <= end]
    steady, weeks, used = None, 0, []
    for week in sorted(world.complete):
        if start <= week and week + timedelta(6) <= end:
            weeks += 1
            used = [*used, any(monday(day) == week for day in days)][-4:]
            if steady is None and sum(used) >= 3:
                steady = week
    to_steady = None if steady is None else -((start - steady - timedelta(7)).days // 7)
    if steady is not None:
        state = "steady use"
    elif end < AS_OF:
        state = "ended before steady use"
    else:
        state = "stuck" if weeks >= 12 else "starting"
    return {
        "weeks_subscribed": weeks,
        "first_used_on": inside[0] if inside else None,
        "days_to_first_use": (inside[0] - start).days if inside else None,
        "steady_week": steady,
        "weeks_to_steady_use": to_steady,
        "onboarding_state": state,
    }


@st.composite
def worlds(draw: st.DrawFn) -> PeopleWorld:
    events, subscriptions = [], []
    for n in range(draw(st.integers(1, 14))):
        account = f"a{n:02d}"
        start = FIRST + timedelta(draw(st.integers(-20, 7 * WEEKS + 5)))
        end = draw(st.sampled_from([None, None, start + timedelta(40), start + timedelta(150)]))
        whole = draw(st.integers(0, 4)) == 0
        subscriptions.append(subscription(account, None if whole else "p", start, end))
        # one day a week, always the same: a week has one day of use, and so no use straddles a start
        weekday, share, seed = draw(st.integers(0, 6)), draw(st.sampled_from([0, 2, 5, 8])), draw(st.integers(0, 9999))
        begin = draw(st.integers(0, 12))
        for week in range(begin, WEEKS):
            if (seed * (week + 3) // 11) % 10 < share:
                events.append(Event(account, "p", "u", FIRST + timedelta(7 * week + weekday), 3))
    incomplete = {NEWEST - timedelta(weeks=ago) for ago in draw(st.sets(st.integers(1, 25), max_size=3))}
    return PeopleWorld(events, subscriptions, [], incomplete)


@examples(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(worlds())
def test_every_start_is_told_as_the_raw_rows_have_it(settings: Settings, world: PeopleWorld) -> None:
    found = {row["account_id"]: row for row in rows_of(computed(world, settings), "mart.onboarding")}
    on_record = {row["account_id"]: row for row in world.subscriptions if FIRST <= row["start_date"] <= AS_OF}
    assert set(found) == set(on_record)
    expected = {account: start_by_hand(world, row) for account, row in on_record.items()}
    for account, wanted in expected.items():
        assert {name: found[account][name] for name in wanted} == wanted, on_record[account]
    for key in ("p", "all"):
        of_key = [account for account, row in on_record.items() if (row["application"] or "all") == key]
        ran = [expected[a] for a in of_key if expected[a]["weeks_subscribed"] >= 12]
        wanted_median = None
        if len(ran) >= 8:
            middle = median_low(row["weeks_to_steady_use"] or 10**6 for row in ran)
            wanted_median = None if middle == 10**6 else middle
        for account in of_key:
            assert found[account]["peers"] == (len(ran) if len(ran) >= 8 else None)
            assert found[account]["peers_weeks_to_steady_use"] == wanted_median


def test_a_stuck_start_says_how_long_and_what_peers_take(settings: Settings) -> None:
    events = [
        Event(f"a{n}", "p", "u", date(2024, 9, 2) + timedelta(weeks=week), 3) for n in range(8) for week in range(6)
    ]
    world = PeopleWorld(
        [*events, Event("late", "p", "u", date(2024, 10, 9), 1)],
        [subscription(f"a{n}", "p", date(2024, 9, 2)) for n in range(8)]
        + [subscription("late", "p", date(2024, 9, 2))],
    )
    (row,) = [r for r in rows_of(computed(world, settings), "mart.onboarding") if r["account_id"] == "late"]
    assert row["onboarding_state"] == "stuck"
    assert row["reason"] == "26 weeks without steady use, first used on Oct 9, 2024; its peers take 3 weeks"
    assert (row["days_to_first_use"], row["peers"]) == (37, 9)


@pytest.mark.long
@pytest.mark.parametrize("whole", [False, True])
def test_use_before_the_start_in_its_own_week_is_not_its_first_use(settings: Settings, whole: bool) -> None:
    """Tried out on Monday and used from Friday on, a subscription of Wednesday was told as used on its first day."""
    monday_, start = date(2024, 9, 2), date(2024, 9, 4)
    used = [Event("a", "p", "u", monday_, 50), Event("a", "p", "u", monday_ + timedelta(days=4), 1)]
    row = subscription("a", None if whole else "p", start)

    def first(events: list[Event], **other: Any) -> tuple[Any, Any]:
        (found,) = rows_of(computed(PeopleWorld(events, [row | other]), settings), "mart.onboarding")
        return found["first_used_on"], found["days_to_first_use"]

    assert first(used) == (date(2024, 9, 6), 2)
    assert first([*used, Event("a", "p", "v", date(2024, 9, 5), 1)]) == (date(2024, 9, 5), 1)
    assert first(used[:1]) == (None, None)
    assert first(used, end_date=date(2024, 9, 5)) == (None, None), "neither of the two days lies in it"


def test_an_account_that_returns_starts_again(settings: Settings) -> None:
    events = [Event("a", "p", "u", date(2024, 9, 2) + timedelta(weeks=week), 3) for week in range(6)]
    rows = [
        subscription("a", "p", date(2024, 9, 2), date(2024, 10, 13), end_reason="cancelled"),
        subscription("a", "p", date(2025, 1, 6)),
    ]
    found = rows_of(computed(PeopleWorld(events, rows), settings), "mart.onboarding")
    assert {row["period_number"]: (row["onboarding_state"], row["days_to_first_use"]) for row in found} == {
        1: ("steady use", 0),
        2: ("starting", None),
    }


def test_what_is_inferred_from_use_has_no_start_to_measure(settings: Settings) -> None:
    world = PeopleWorld([Event("a", "p", "u", NEWEST, 3)])
    assert rows_of(computed(world, settings), "mart.onboarding") == []
