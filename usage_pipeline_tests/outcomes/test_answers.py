"""What follows from outcomes, beside computations that were written without looking at the rules' code."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usage_pipeline.config.settings import OutcomeSettings
from usage_pipeline.outcomes.answers import is_new, latest, responses, standing, usefulness, wilson
from usage_pipeline.outcomes.records import Reason, Record
from usage_pipeline_tests.support.outcomes import answer

DAY = date(2026, 11, 24)
MOMENT = datetime(2026, 11, 24, 9, tzinfo=UTC)


def reason(application: str = "permits", kind: str = "inactive", since: date | None = date(2026, 10, 19), rank: int = 2) -> Reason:  # fmt: skip
    return Reason(application_key=application, call_reason=kind, since=since, urgency_rank=rank)


def made(number: int = 0, **other: Any) -> Record:
    about: dict[str, Any] = {
        "schema": 1,
        "id": f"{number:032x}",
        "previous": "",
        "recorded_at": MOMENT,
        "note_digest": None,
        "note": None,
    }
    return Record(**(answer() | about | {"reasons": (reason(),)} | other))


# ---------------------------------------------------------------- the row


@pytest.mark.parametrize(
    ("now", "is_open_again"),
    [
        ([reason()], False),
        ([], False),
        ([reason(rank=3)], False),
        ([reason(since=None)], False),
        ([reason(since=date(2026, 10, 12))], False),
        ([reason(rank=1)], True),
        ([reason(since=date(2026, 10, 26))], True),
        ([reason(), reason("tax")], True),
        ([reason(), reason(kind="usage drop")], True),
        ([reason("all", "upcoming renewal")], True),
    ],
)
@pytest.mark.parametrize("status", ["done", "snoozed"])
def test_what_is_handled_stays_so_until_something_new_comes(
    now: list[Reason], is_open_again: bool, status: str
) -> None:
    found = standing(made(status=status), now, DAY)
    assert (found.status, found.is_reopened) == (("open", True) if is_open_again else (status, False))


def test_a_snooze_ends_on_its_day() -> None:
    record = made(status="snoozed", snoozed_until=DAY)
    assert standing(record, [reason()], DAY - timedelta(days=1)).status == "snoozed"
    assert standing(record, [reason()], DAY).status == "open"
    assert not standing(record, [reason()], DAY).is_reopened


_RENEWS = reason("tax", "upcoming renewal", date(2026, 11, 20), 3)


def test_a_renewal_that_comes_near_is_new_but_to_whoever_named_a_day() -> None:
    """What was done in spring may not hold when the customer decides; a day was chosen with that date in sight."""
    near = [reason(), _RENEWS]
    day = date(2026, 12, 15)
    assert standing(made(status="done"), near, DAY).is_reopened
    assert standing(made(status="snoozed"), near, DAY).is_reopened
    assert standing(made(status="snoozed", snoozed_until=day), near, DAY).status == "snoozed"
    assert standing(made(status="snoozed", snoozed_until=day), near, day).status == "open", "and not a day longer"


def test_a_renewal_that_makes_a_row_more_urgent_opens_it_whatever_day_was_named() -> None:
    record = made(status="snoozed", snoozed_until=date(2026, 12, 15))
    assert standing(record, [reason(rank=1), _RENEWS], DAY).is_reopened
    assert standing(record, [reason(), _RENEWS, reason("tax", "usage drop")], DAY).is_reopened


def test_without_an_outcome_or_kept_on_the_list_a_row_is_open() -> None:
    assert standing(None, [reason()], DAY).status == "open"
    assert standing(made(status="open"), [reason("tax")], DAY).status == "open"


def test_the_newest_outcome_counts_and_whoever_took_it_back_is_heard() -> None:
    records = [
        made(3, status="done", recorded_at=MOMENT),
        made(1, status="open", recorded_at=MOMENT + timedelta(seconds=1)),
        made(2, account_id="A2", status="snoozed"),
    ]
    for order in (records, records[::-1]):
        found = latest(order)
        assert {account: record.status for account, record in found.items()} == {"A1": "open", "A2": "snoozed"}


_REASONS = st.lists(
    st.builds(
        reason,
        st.sampled_from("ab"),
        st.sampled_from(["inactive", "usage drop"]),
        st.none() | st.dates(date(2026, 1, 1), date(2026, 1, 9)),
        st.integers(1, 3),
    ),
    max_size=5,
    unique_by=lambda r: (r.application_key, r.call_reason),
)


@settings(deadline=None)
@given(_REASONS, _REASONS, st.sampled_from(["done", "snoozed"]))
def test_fewer_reasons_never_open_a_row_again(answered: list[Reason], now: list[Reason], status: str) -> None:
    record = made(reasons=tuple(answered), status=status)
    assert standing(record, answered, DAY).status == status, "the row itself is nothing new"
    if standing(record, now, DAY).status == status:
        assert all(standing(record, now[:n], DAY).status == status for n in range(len(now)))
    assert standing(record, now, DAY).is_reopened == any(is_new(one, answered) for one in now)


# ---------------------------------------------------------------- kinds of reasons


@settings(deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_where_the_test_of_a_share_just_holds(counted: tuple[int, int]) -> None:
    """The ends are the shares p at which (hits/trials - p)^2 = z^2 p (1 - p) / trials."""
    hits, trials = counted
    share, z2 = hits / trials, 1.959963984540054**2
    roots = np.sort(np.roots([1 + z2 / trials, -2 * share - z2 / trials, share**2]).real)
    assert wilson(hits, trials) == pytest.approx(tuple(np.clip(roots, 0, 1)), abs=1e-6)


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no trials"):
        wilson(0, 0)


_ANSWERS = st.lists(
    st.tuples(
        st.sampled_from(["A1", "A2", "A3"]),
        st.sampled_from(["inactive", "usage drop"]),
        st.integers(0, 4),
        st.booleans(),
        st.sampled_from([None, "known already", "other"]),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(_ANSWERS, st.integers(1, 4), st.integers(1, 6), st.sampled_from([0.3, 0.5, 0.7]))
def test_precision_in_use_is_what_sql_counts(
    given_answers: list[tuple[str, str, int, bool, str | None]], window: int, least: int, share: float
) -> None:
    weeks = [date(2026, 11, 23) - timedelta(weeks=n) for n in range(5)]
    records = [
        made(
            number,
            account_id=account,
            week=weeks[week],
            recorded_at=MOMENT + timedelta(minutes=number),
            useful=[{"call_reason": kind, "is_useful": said, "why_not": None if said else why}],
        )
        for number, (account, kind, week, said, why) in enumerate(given_answers)
    ]
    rules = OutcomeSettings(window_weeks=window, min_answers=least, useless_share=share)
    found = usefulness(reversed(records), DAY, rules)
    frame = pd.DataFrame(
        [(a, k, weeks[w], n, s, None if s else y) for n, (a, k, w, s, y) in enumerate(given_answers)],
        columns=["account", "kind", "week", "nth", "said", "why"],
    ).astype({"nth": int, "said": bool, "why": object})
    with duckdb.connect() as connection:
        connection.register("answers", frame)
        rows = connection.execute(
            "WITH last AS (SELECT * FROM answers WHERE CAST(week AS DATE) >= $first "
            "QUALIFY nth = max(nth) OVER (PARTITION BY account, kind, week)) "
            "SELECT kind, count(*), count(*) FILTER (WHERE said), "
            "count(*) >= $least AND count(*) FILTER (WHERE NOT said) / count(*) > $share FROM last GROUP BY kind",
            {"first": DAY - timedelta(weeks=window), "least": least, "share": share},
        ).fetchall()
    assert {kind: (u.answers, u.useful, u.is_moved_down) for kind, u in found.items()} == {
        kind: tuple(rest) for kind, *rest in rows
    }
    for one in found.values():
        assert one.low is not None and one.high is not None and one.share is not None
        assert 0 <= one.low <= one.share <= one.high <= 1


def test_a_kind_moves_down_only_with_enough_answers_and_beyond_the_half() -> None:
    def moved(useless: int, useful: int) -> bool:
        records = [
            made(
                n, account_id=f"A{n}", useful=[{"call_reason": "inactive", "is_useful": n >= useless, "why_not": None}]
            )
            for n in range(useless + useful)
        ]
        return usefulness(records, DAY, OutcomeSettings())["inactive"].is_moved_down

    assert not moved(19, 0), "19 answers are too few"
    assert moved(20, 0)
    assert not moved(10, 10), "half is not more than half"
    assert moved(11, 10)


# ---------------------------------------------------------------- people


def test_coverage_and_days_by_csm() -> None:
    as_of = datetime(2026, 11, 22, tzinfo=UTC)
    records = [
        made(1, account_id="A1", owner="Dana", as_of=as_of, recorded_at=as_of + timedelta(days=1)),
        # a second one of the same week is no response time
        made(2, account_id="A1", owner="Dana", as_of=as_of, recorded_at=as_of + timedelta(days=6)),
        made(3, account_id="A2", owner="Dana", as_of=as_of, recorded_at=as_of + timedelta(days=4)),
        made(
            4, account_id="A9", owner="Gone", as_of=as_of, recorded_at=as_of + timedelta(days=2), week=date(2020, 1, 6)
        ),
        made(5, account_id="A8", owner="Left", as_of=as_of, recorded_at=as_of + timedelta(days=2)),
    ]
    newest = latest(records)
    owners = {"A1": "Dana", "A2": "Dana", "A3": "Dana", "A4": "Eli", "A5": None}
    now = {"A2": [reason("tax")]}
    standings = {a: standing(newest.get(a), now.get(a, [reason()]), DAY) for a in owners}
    found = responses(owners, standings, records, date(2026, 1, 1))
    assert set(found) == {"Dana", "Eli", "Left"}
    dana, eli, left = found["Dana"], found["Eli"], found["Left"]
    assert (dana.calls, dana.answered, dana.median_days) == (3, 1, 2.5), "A2 has something new: not answered"
    assert dana.share == pytest.approx(1 / 3)
    assert (eli.calls, eli.answered, eli.share, eli.median_days) == (1, 0, 0, None)
    assert (left.calls, left.share, left.median_days) == (0, None, 2)
