"""Where an account stands among its peers, and what peers have that it lacks: against plain counting, and invariants."""

from datetime import date, timedelta
from statistics import median
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from usage_pipeline.config.settings import Settings
from usage_pipeline_tests.support.people_worlds import (
    NEWEST,
    Event,
    PeopleWorld,
    computed,
    rows_of,
    settings_of,
    subscription,
)

LONG_AGO = date(2020, 1, 1)
MEASURES = ("clicks a week per seat", "clicks a week per active user", "monthly active users", "adoption")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_of(tmp_path_factory.mktemp("peers"))


def use(account: str, application: str, users: int, clicks: int) -> list[Event]:
    """`clicks` of each user in each of the last eight weeks."""
    weeks = [NEWEST - timedelta(weeks=ago) for ago in range(8)]
    return [Event(account, application, f"u{n}", week, clicks) for n in range(users) for week in weeks if clicks]


@st.composite
def worlds(draw: st.DrawFn) -> PeopleWorld:
    events, subscriptions, accounts = [], [], []
    has_sizes = draw(st.booleans())
    for n in range(draw(st.integers(3, 30))):
        account = f"a{n:02d}"
        segment = draw(st.sampled_from(["Town", "Town", "Town", "City", None]))
        size = draw(st.sampled_from([None, 100, 200, 500, 900, 4000])) if has_sizes else None
        accounts.append({"account_id": account, "segment": segment, "size": size})
        if draw(st.integers(0, 6)) == 0:
            subscriptions.append(subscription(account, None, LONG_AGO))
            events += use(account, "p", draw(st.integers(0, 3)), 4)
            continue
        for application in ("p", "q", "r"):
            kind = draw(st.sampled_from(["none", "runs", "runs", "runs", "ended", "to come"]))
            if kind == "none":
                continue
            start = date(2025, 6, 1) if kind == "to come" else LONG_AGO
            end = date(2025, 1, 12) if kind == "ended" else None
            seats, value = draw(st.sampled_from([None, 2, 5, 8])), draw(st.sampled_from([None, 100.0, 250.0, 900.0]))
            subscriptions.append(subscription(account, application, start, end, seats=seats, annual_value=value))
            events += use(account, application, draw(st.integers(0, 5)), draw(st.integers(1, 6)))
    return PeopleWorld(events, subscriptions, accounts)


# ---------------------------------------------------------------- the oracle


def running(world: PeopleWorld) -> dict[tuple[str, str], dict[str, Any]]:
    """Applications in force: delivered, or ever used where the whole account is subscribed."""
    found = {
        (row["account_id"], row["application"]): row
        for row in world.subscriptions
        if row["application"] and row["start_date"] == LONG_AGO and row["end_date"] is None
    }
    whole = {row["account_id"] for row in world.subscriptions if not row["application"]}
    for event in world.events:
        if event.account in whole:
            found[event.account, event.application] = subscription(event.account, event.application, LONG_AGO)
    return found


def customers(world: PeopleWorld) -> set[str]:
    whole = {row["account_id"] for row in world.subscriptions if not row["application"]}
    return whole | {account for account, _ in running(world)}


def groups_by_hand(world: PeopleWorld) -> dict[str, tuple[Any, ...]]:
    """Account: what its peers have in common with it; thirds by size, those of one size in one third."""
    known = {a["account_id"]: a for a in world.accounts if a["segment"] and a["account_id"] in customers(world)}
    found: dict[str, tuple[Any, ...]] = {}
    for account, row in known.items():
        if row["size"] is None:
            found[account] = (row["segment"], None)
            continue
        sizes = [a["size"] for a in known.values() if a["segment"] == row["segment"] and a["size"] is not None]
        smaller = sum(size < row["size"] for size in sizes)
        found[account] = (row["segment"], 3 * smaller // len(sizes))
    return found


def values_by_hand(world: PeopleWorld) -> dict[tuple[str, str, str], float | None]:
    found: dict[tuple[str, str, str], float | None] = {}
    owned = running(world)
    for account in customers(world):
        applications = [app for other, app in owned if other == account]
        lately = [e for e in world.events if e.account == account and (NEWEST - e.day).days < 28]
        for key, mine, seats in [
            *((app, [e for e in lately if e.application == app], owned[account, app]["seats"]) for app in applications),
            (
                "all",
                [e for e in lately if e.application in applications],
                sum(owned[account, app]["seats"] or 0 for app in applications) or None,
            ),
        ]:
            clicks, people = sum(e.clicks for e in mine) / 4, len({e.user for e in mine})
            known = bool(applications)
            found[account, key, MEASURES[0]] = clicks / seats if seats and known else None
            if known:
                found[account, key, MEASURES[1]] = clicks / people if people else 0
            found[account, key, MEASURES[2]] = people
        used = {e.application for e in lately if e.application in applications}
        found[account, "all", MEASURES[3]] = len(used) / len(applications) if applications else None
    return found


@examples(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(worlds())
def test_every_percentile_is_the_one_counted_by_hand(settings: Settings, world: PeopleWorld) -> None:
    found = {
        (row["account_id"], row["application_key"], row["peer_measure"]): row
        for row in rows_of(computed(world, settings), "mart.peers")
    }
    values, groups = values_by_hand(world), groups_by_hand(world)
    assert set(found) == set(values)
    for (account, application, measure), value in values.items():
        row = found[account, application, measure]
        assert row["peer_value"] == pytest.approx(value)
        peers = [
            other_value
            for (other, app, name), other_value in values.items()
            if (app, name) == (application, measure)
            and other != account
            and other_value is not None
            and groups.get(other, other) == groups.get(account)
        ]
        if account not in groups or value is None:
            assert (row["peers"], row["percentile"]) == (None, None)
            continue
        assert row["peers"] == len(peers)
        if len(peers) < 8:
            assert row["percentile"] is None
            assert row["why_no_percentile"]
        else:
            share = sum((p < value) + (p == value) / 2 for p in peers) / len(peers)
            assert row["percentile"] == pytest.approx(share)
            assert row["group_median"] == pytest.approx(median([*peers, value]))


@examples(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(worlds())
@pytest.mark.long
def test_a_gap_is_what_half_of_the_peers_have(settings: Settings, world: PeopleWorld) -> None:
    rows = [r for r in rows_of(computed(world, settings), "mart.expansion") if r["expansion_kind"] == "expansion gap"]
    groups = groups_by_hand(world)
    owned = {
        (row["account_id"], row["application"]): row["annual_value"]
        for row in world.subscriptions
        if row["application"] and row["start_date"] == LONG_AGO and row["end_date"] is None
    }
    sold = {(row["account_id"], row["application"]) for row in world.subscriptions if row["start_date"] != LONG_AGO}
    # of whom the whole account is subscribed, nobody knows what they lack
    known = {account for account, _ in owned if account in groups}
    expected = {}
    for account in known:
        peers = {other for other in known if other != account and groups[other] == groups[account]}
        for application in ("p", "q", "r"):
            have = [owned[peer, application] for peer in peers if (peer, application) in owned]
            if (account, application) in owned or (account, application) in sold or len(peers) < 8:
                continue
            if len(have) >= len(peers) / 2:
                values = [value for value in have if value is not None]
                expected[account, application] = (len(have) / len(peers), median(values) if values else None)
    assert {(r["account_id"], r["application_key"]): (r["peers_share"], r["peers_annual_value"]) for r in rows} == {
        key: (pytest.approx(share), value) for key, (share, value) in expected.items()
    }


# ---------------------------------------------------------------- invariants


def fixed(count: int, **told: Any) -> PeopleWorld:
    """`count` towns with p, the n-th with n + 1 users of n + 1 clicks; one has q too."""
    subscriptions = [subscription(f"a{n:02d}", "p", LONG_AGO, seats=10, annual_value=100.0) for n in range(count)]
    events = [event for n in range(count) for event in use(f"a{n:02d}", "p", n + 1, n + 1)]
    accounts = [{"account_id": f"a{n:02d}", "segment": "Town", "size": None} for n in range(count)]
    return PeopleWorld(
        [*events, *use("a00", "q", 2, 5)],
        [*subscriptions, subscription("a00", "q", LONG_AGO, seats=4)],
        accounts,
    ).but(**told)


def percentiles(world: PeopleWorld, settings: Settings) -> dict[tuple[str, str, str], float | None]:
    return {
        (row["account_id"], row["application_key"], row["peer_measure"]): row["percentile"]
        for row in rows_of(computed(world, settings), "mart.peers")
    }


@pytest.mark.long
@examples(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(worlds(), st.integers(0, 29), st.sampled_from(["users", "clicks"]))
def test_taking_use_away_never_improves_a_percentile(settings: Settings, world: PeopleWorld, n: int, what: str) -> None:
    account = f"a{n % len(world.accounts):02d}"
    # fewer users: by seat and users; fewer clicks of as many users: by everything
    if what == "users":
        less = [event for event in world.events if event.account != account or event.user in ("u0", "u1")]
    else:
        less = [
            event if event.account != account else event._replace(clicks=max(1, event.clicks - 2))
            for event in world.events
        ]
    before, after = percentiles(world, settings), percentiles(world.but(events=less), settings)
    compared = MEASURES if what == "clicks" else (MEASURES[0], MEASURES[2], MEASURES[3])
    for key, was in before.items():
        if key[0] == account and key[2] in compared and was is not None and after.get(key) is not None:
            assert after[key] <= was + 1e-12, key


def test_who_does_not_have_the_application_is_no_zero(settings: Settings) -> None:
    found = percentiles(fixed(12), settings)
    assert found["a00", "q", MEASURES[2]] is None, "nobody else has q"
    assert found["a11", "p", MEASURES[2]] == 1
    assert found["a00", "p", MEASURES[2]] == 0


@pytest.mark.parametrize(("count", "compared"), [(8, False), (9, True)])
def test_fewer_than_eight_peers_are_none(settings: Settings, count: int, compared: bool) -> None:
    rows = [r for r in rows_of(computed(fixed(count), settings), "mart.peers") if r["application_key"] == "p"]
    assert all((row["percentile"] is not None) == compared for row in rows)
    assert all(row["why_no_percentile"] == ("" if compared else "only 7 peers (Town)") for row in rows)


def test_without_segments_nobody_is_compared(settings: Settings) -> None:
    world = fixed(12, accounts=[])
    rows = rows_of(computed(world, settings), "mart.peers")
    assert {row["why_no_percentile"] for row in rows} == {"segment not delivered"}
    assert {row["expansion_kind"] for row in rows_of(computed(world, settings), "mart.expansion")} <= {
        "seats used up",
        "shelfware",
    }


def test_without_users_what_is_counted_by_users_is_empty(settings: Settings) -> None:
    rows = rows_of(computed(fixed(12, has_users=False), settings), "mart.peers")
    for row in rows:
        assert (row["peer_value"] is None) == (row["peer_measure"] in (MEASURES[1], MEASURES[2])), row


def test_seats_used_up_and_shelfware_are_told_and_a_new_subscription_is_no_shelfware(settings: Settings) -> None:
    subscriptions = [
        subscription("a", "p", LONG_AGO, seats=2),
        subscription("b", "p", LONG_AGO, seats=8),
        subscription("c", "p", date(2025, 2, 20), seats=8),
        subscription("d", None, LONG_AGO, seats=20),
        subscription("e", "p", LONG_AGO, seats=3),
        # who comes beyond the seats is known at once, and of no seats too
        subscription("f", "p", date(2025, 2, 17), seats=2),
        subscription("g", "p", LONG_AGO, seats=0),
        subscription("h", "p", LONG_AGO, seats=0),
    ]
    events = [*use("a", "p", 3, 2), *use("b", "p", 2, 2), *use("d", "p", 1, 1), *use("f", "p", 3, 2)]
    events += use("g", "p", 4, 2)
    rows = rows_of(computed(PeopleWorld(events, subscriptions), settings), "mart.expansion")
    found = {(r["account_id"], r["application_key"]): (r["expansion_kind"], r["reason"]) for r in rows}
    assert found == {
        ("a", "p"): ("seats used up", "3 users in 28 days, 2 seats"),
        ("b", "p"): ("shelfware", "2 users in 28 days, 8 seats"),
        ("d", "all"): ("shelfware", "1 user in 28 days, 20 seats"),
        ("f", "p"): ("seats used up", "3 users in 28 days, 2 seats"),
        ("g", "p"): ("seats used up", "4 users in 28 days, 0 seats"),
    }


@pytest.mark.parametrize(("value", "gaps"), [(500.0, 0), (None, 1)])
def test_what_is_sold_as_a_whole_for_a_price_has_no_gaps_and_what_only_frames_has(
    settings: Settings, value: float | None, gaps: int
) -> None:
    world = fixed(12)
    rest = [row for row in world.subscriptions if row["account_id"] != "a05"]
    of_account = [subscription("a05", "q", LONG_AGO), subscription("a05", None, LONG_AGO, annual_value=value)]
    rows = rows_of(computed(world.but(subscriptions=[*rest, *of_account]), settings), "mart.expansion")
    assert sum(r["expansion_kind"] == "expansion gap" and r["account_id"] == "a05" for r in rows) == gaps


def test_an_application_that_was_cancelled_is_a_gap_that_says_so(settings: Settings) -> None:
    world = fixed(12)
    ended = subscription("a05", "p", LONG_AGO, date(2025, 1, 12), end_reason="cancelled")
    rest = [row for row in world.subscriptions if row["account_id"] != "a05"]
    world = world.but(subscriptions=[*rest, ended, subscription("a05", "q", LONG_AGO)])
    rows = rows_of(computed(world, settings), "mart.expansion")
    (gap,) = [r for r in rows if r["expansion_kind"] == "expansion gap"]
    assert (gap["account_id"], gap["application_key"], gap["peers_annual_value"]) == ("a05", "p", 100.0)
    assert gap["reason"] == "11 of 11 peers have it (Town); subscribed until Jan 12, 2025"
