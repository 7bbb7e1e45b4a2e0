"""What follows from outcomes: what became of a row of the call list, how useful each kind of reason is, who answers.

Belongs here: the rules, as pure functions on records. Does not: reading records (`records.py`), nor tables of them
(`database.py`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from math import sqrt
from statistics import NormalDist, median
from typing import Literal

from usage_pipeline.config.settings import OutcomeSettings
from usage_pipeline.core.weeks import WEEK
from usage_pipeline.outcomes.records import Reason, Record

CallStatus = Literal["open", "done", "snoozed"]
_RENEWAL = "upcoming renewal"
_Z = NormalDist().inv_cdf(0.975)
_DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Standing:
    """What became of a row: its status, the record that says so, and whether something new opened it again."""

    status: CallStatus
    record: Record | None
    is_reopened: bool = False


@dataclass(frozen=True)
class Usefulness:
    """How useful a kind of reason was: answers, of them useful, Wilson's 95 % interval of that share, and why not."""

    answers: int
    useful: int
    share: float | None
    low: float | None
    high: float | None
    is_moved_down: bool
    why_not: str


@dataclass(frozen=True)
class Responses:
    """How a CSM answers: rows of the list now, of them with an outcome; and days from issue to first outcome."""

    calls: int
    answered: int
    share: float | None
    median_days: float | None


# ---------------------------------------------------------------- the row


def latest(records: Iterable[Record]) -> dict[str, Record]:
    """The newest record of each account; of two at the same moment, the one whose id is higher."""
    found: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: (record.recorded_at, record.id)):
        found[record.account_id] = record
    return found


def standing(record: Record | None, reasons: Iterable[Reason], day: date) -> Standing:
    """What became of a row whose reasons are these, on a day.

    What is done stays so, and what is snoozed until its day, as long as no reason is new. That a renewal comes near is
    new, for on that day the customer decides whatever was done before; but not to whoever named a day: they had the
    renewal's date before them. Where it raises a priority, that is new to them too.
    """
    if record is None or record.status == "open":
        return Standing("open", record)
    ignored = _RENEWAL if record.snoozed_until is not None else None
    if any(is_new(reason, record.reasons) for reason in reasons if reason.call_reason != ignored):
        return Standing("open", record, is_reopened=True)
    is_over = record.snoozed_until is not None and record.snoozed_until <= day
    return Standing("open" if is_over else record.status, record)


def is_new(reason: Reason, answered: Sequence[Reason]) -> bool:
    """Whether a reason was not there when the outcome was recorded: another kind or application, one that began later,
    or a higher priority.
    """
    same = [r for r in answered if (r.application_key, r.call_reason) == (reason.application_key, reason.call_reason)]
    if not same:
        return True
    (known,) = same[:1]
    began_later = reason.since is not None and known.since is not None and reason.since > known.since
    return began_later or reason.urgency_rank < known.urgency_rank


# ---------------------------------------------------------------- kinds of reasons


def usefulness(records: Iterable[Record], as_of_day: date, settings: OutcomeSettings) -> dict[str, Usefulness]:
    """By kind of reason, of the answers of the last weeks. An account counts once a kind and week: the newest answer.

    Interval: E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    first = as_of_day - settings.window_weeks * WEEK
    newest: dict[tuple[str, str, date], tuple[bool, str]] = {}
    for record in sorted(records, key=lambda record: (record.recorded_at, record.id)):
        if record.week < first:
            continue
        for said in record.useful:
            newest[record.account_id, said.call_reason, record.week] = (said.is_useful, said.why_not or "")
    by_kind: dict[str, list[tuple[bool, str]]] = {}
    for (_, kind, _), answer in newest.items():
        by_kind.setdefault(kind, []).append(answer)
    return {kind: _of_kind(answers, settings) for kind, answers in by_kind.items()}


def moved_down(records: Iterable[Record], as_of_day: date, settings: OutcomeSettings) -> list[str]:
    """The kinds of reasons that people call useless so often that they come one priority lower: all of an outcome that
    a refresh depends on.
    """
    return sorted(kind for kind, found in usefulness(records, as_of_day, settings).items() if found.is_moved_down)


def _of_kind(answers: list[tuple[bool, str]], settings: OutcomeSettings) -> Usefulness:
    count, useful = len(answers), sum(said for said, _ in answers)
    low, high = wilson(useful, count)
    useless_share = (count - useful) / count
    why = Counter(reason for said, reason in answers if not said and reason)
    words = ", ".join(f"{reason} ({times})" for reason, times in sorted(why.items(), key=lambda w: (-w[1], w[0])))
    moved = count >= settings.min_answers and useless_share > settings.useless_share
    return Usefulness(count, useful, useful / count, low, high, moved, words)


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share. Raises ValueError without trials."""
    if trials < 1:
        raise ValueError("an interval of no trials")
    share, square = hits / trials, _Z**2
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = _Z * sqrt(share * (1 - share) / trials + square / (4 * trials**2)) / (1 + square / trials)
    # at the ends exactly: rounding would put the share itself outside
    return max(0.0, middle - half) if hits else 0.0, min(1.0, middle + half) if hits < trials else 1.0


# ---------------------------------------------------------------- people


def responses(
    owners: Mapping[str, str | None], standings: Mapping[str, Standing], records: Iterable[Record], since: date
) -> dict[str, Responses]:
    """By CSM; `owners` and `standings` are those of the rows of the list now, by account.

    A row is answered where its newest outcome is about its reasons: nothing new has come since. Days count from the
    moment that the build looked at the data from (as_of) to the first outcome of that account and week, since a day.
    """
    first: dict[tuple[str, date], Record] = {}
    for record in sorted(records, key=lambda record: (record.recorded_at, record.id)):
        if record.week >= since:
            first.setdefault((record.account_id, record.week), record)
    days: dict[str, list[float]] = {}
    for record in first.values():
        if record.owner:
            days.setdefault(record.owner, []).append(_days(record.as_of, record.recorded_at))
    names = {owner for owner in owners.values() if owner} | set(days)
    found = {}
    for name in names:
        calls = [account for account, owner in owners.items() if owner == name]
        answered = sum(standings[a].record is not None and not standings[a].is_reopened for a in calls)
        share = answered / len(calls) if calls else None
        found[name] = Responses(len(calls), answered, share, median(days[name]) if name in days else None)
    return found


def _days(start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds() / _DAY_SECONDS)
