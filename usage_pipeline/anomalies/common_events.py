"""What many accounts did together: moves of an application or of all, and applications that are lost slowly.

Belongs here: sums over accounts, beside what each of them was expected to do. A robust ratio says that many moved
together; it is no total: one large account that stayed as it was keeps the total where it was.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from usage_pipeline.anomalies.detector import Judged
from usage_pipeline.config.settings import AnomalySettings

Floats = NDArray[np.float64]
_YEAR = 52


@dataclass(frozen=True)
class Together:
    """What accounts taken together did, (groups, weeks): sums over the series that were judged in the week."""

    observed: Floats
    expected: Floats
    variance: Floats
    below: Floats  # accounts at less than three quarters of what was expected of them
    above: Floats  # at more than four thirds
    accounts: Floats

    @classmethod
    def of(cls, judged: Judged, counts: Floats, group: NDArray[Any], groups: int) -> "Together":
        expected = judged.expected_before
        there = ~np.isnan(expected) & ~np.isnan(counts)
        # the variance is that of a count around what was expected with the others known
        scale = np.where(there, expected / np.maximum(np.nan_to_num(judged.expected, nan=1.0), 1e-9), 0.0)
        ratio = counts / np.maximum(expected, 1e-9)

        def total(values: Floats) -> Floats:
            found = np.zeros((groups, counts.shape[1]))
            np.add.at(found, group, np.where(there, values, 0.0))
            return found

        return cls(
            total(counts),
            total(expected),
            total(np.nan_to_num(judged.variance) * scale**2),
            total((ratio < 0.75).astype(float)),
            total((ratio > 4 / 3).astype(float)),
            total(there.astype(float)),
        )


def usual_error(logarithms: Floats) -> float:
    return 1.4826 * float(np.median(np.abs(logarithms[~np.isnan(logarithms)])))


def common_moves(
    together: Together, ratio: Floats, z: Floats, far: NDArray[np.bool_], spread: Floats, rules: AnomalySettings
) -> pd.DataFrame:
    """Moves of many accounts together, a row a week: what all of them did, against the sum of what was expected."""
    group, week = at = np.nonzero(far & _is_borne_out(together, ratio, rules))
    expected = together.expected[at]
    frame = pd.DataFrame(
        {
            "group": group,
            "week": week,
            "kind": np.where(ratio[at] > 1, "spike", "usage drop"),
            "confidence": "high",
            "weeks": 1,
            "observed": together.observed[at],
            "expected": expected,
            # chance in every account's count, and what all of them usually err by together
            "variance": together.variance[at] + (spread[group] * expected) ** 2,
            "z": z[at],
            "basis": "own level",
            "accounts": together.accounts[at],
            "accounts_moved": np.where(ratio[at] > 1, together.above[at], together.below[at]),
        }
    )
    return _as_events(frame, far.shape[1])


def _is_borne_out(together: Together, ratio: Floats, rules: AnomalySettings) -> NDArray[np.bool_]:
    """Where the total went as far, or most accounts did and it went no such way against them.

    Of rare use a robust ratio says little; and one large account that stayed as it was may hold the total where it was.
    """
    is_up = ratio > 1
    change = np.where(is_up, 1, -1) * (together.observed / np.maximum(together.expected, 1e-9) - 1)
    most = np.where(is_up, together.above, together.below) > together.accounts / 2
    found: NDArray[np.bool_] = (change >= rules.common_share) | (most & (change > -rules.common_share))
    return found


def _as_events(frame: pd.DataFrame, weeks: int) -> pd.DataFrame:
    """One event a happening: weeks of one direction with no more than one between them belong together."""
    frame = frame.sort_values(["group", "week"], kind="stable").reset_index(drop=True)
    same = (frame["group"].diff() == 0) & (frame["week"].diff() <= 2) & (frame["kind"] == frame["kind"].shift())
    event = (~same).cumsum()
    frame["first"] = frame.groupby(event)["week"].transform("min")
    frame["last"] = frame.groupby(event)["week"].transform("max")
    frame["is_new"] = frame["week"] == frame["first"]
    frame["state"] = np.select([frame["first"] == weeks - 1, frame["last"] >= weeks - 2], ["new", "ongoing"], "ended")
    return frame


# an application is lost slowly over half a year or a year: the same accounts, eight weeks against eight
_LOSS_SPANS, _LOSS_WEEKS, _LOSS_KNOWN = (52, 26), 8, 6
# so many applications tell what is of one of them
_APPLICATIONS = 3


def slow_losses(
    judged: Judged,
    counts: Floats,
    application: NDArray[Any],
    together: Together,
    moved: NDArray[np.bool_],
    rules: AnomalySettings,
) -> pd.DataFrame:
    """Applications that lost slowly, told once: what the same accounts use against what they used before.

    A year ago is the same season. Where there is no such year, half a year ago has to do. A week in which the
    application `moved` has its row already: the loss is told after it.
    """
    weeks, groups = counts.shape[1], len(together.expected)
    level = _of_eight_weeks(np.where(np.isnan(judged.expected), np.nan, counts))
    ratio = {span: _of_same_accounts(level, application, groups, span, rules) for span in _LOSS_SPANS}
    if groups >= _APPLICATIONS:
        # half a year apart are other seasons: what all applications did in that time is no loss of one
        ratio[26] = ratio[26] / np.clip(_of_the_others(level, application, groups), 0.1, 1.0)
    rows = []
    for group in range(groups):
        told = -_YEAR
        for week in range(_LOSS_WEEKS + _LOSS_SPANS[1], weeks):
            year, half = ratio[52][group, week], ratio[26][group, week]
            limit = 1 - rules.decline_share
            found = year <= limit or (half <= limit and (np.isnan(year) or year <= 1 - rules.decline_share / 2))
            still = half <= ratio[26][group, week - 1] or half < limit
            if found and still and half < 1 and week - told >= _YEAR and not moved[group, week]:
                span = 52 if year <= limit else 26
                rows.append(_loss(together, group, week, span, ratio[span][group, week]))
                told = week
    frame = pd.DataFrame(rows, columns=_LOSS_COLUMNS)
    frame["state"] = np.where(frame["week"] >= weeks - _LOSS_WEEKS, "ongoing", "ended")
    return frame


def _of_eight_weeks(counts: Floats) -> Floats:
    """Mean of the eight weeks up to each, NaN where too few are known."""
    known = np.cumsum(~np.isnan(counts), axis=1, dtype=float)
    total = np.cumsum(np.nan_to_num(counts), axis=1)
    before = ((0, 0), (_LOSS_WEEKS, 0))
    known, total = (x - np.pad(x, before)[:, : x.shape[1]] for x in (known, total))
    found: Floats = np.where(known >= _LOSS_KNOWN, total / np.maximum(known, 1), np.nan)
    return found


def _of_same_accounts(
    level: Floats, application: NDArray[Any], groups: int, span: int, rules: AnomalySettings
) -> Floats:
    """What the accounts known now and `span` weeks before use now, as a share: (groups, weeks), NaN where too few."""
    found = np.full((groups, level.shape[1]), np.nan)
    for week in range(span + _LOSS_WEEKS - 1, level.shape[1]):
        both = ~np.isnan(level[:, week]) & ~np.isnan(level[:, week - span])
        accounts = np.bincount(application[both], minlength=groups)
        now = np.bincount(application[both], level[both, week], groups)
        before = np.bincount(application[both], level[both, week - span], groups)
        enough = (accounts >= rules.platform_accounts) & (before > 0)
        # an application is lost by most of its accounts: one large account is a loss of its own
        lost = both & (level[:, week] < (1 - rules.decline_share / 2) * level[:, week - span])
        most = np.bincount(application[lost], minlength=groups) > accounts / 2
        ratio = now / np.maximum(before, 1e-9)
        found[enough, week] = np.where(most, ratio, np.maximum(ratio, 1.0))[enough]
    return found


def _of_the_others(level: Floats, application: NDArray[Any], groups: int) -> Floats:
    """What the accounts of all other applications use, against half a year before: (groups, weeks), 1 where none is."""
    now, before = level[:, 26:], level[:, :-26]
    both = ~np.isnan(now) & ~np.isnan(before)
    sums = []
    for values in (now, before):
        of_group = np.zeros((groups, now.shape[1]))
        np.add.at(of_group, application, np.where(both, values, 0.0))
        # without its own: the largest application is no measure for itself
        sums.append(of_group.sum(axis=0) - of_group)
    found = np.ones((groups, level.shape[1]))
    found[:, 26:] = np.where(sums[1] > 0, sums[0] / np.maximum(sums[1], 1e-9), 1.0)
    return found


_LOSS_COLUMNS = (
    *("group", "week", "kind", "confidence", "weeks", "observed", "expected", "variance", "z", "basis"),
    *("accounts", "accounts_moved", "first", "last", "is_new"),
)


def _loss(together: Together, group: int, week: int, span: int, ratio: float) -> tuple[Any, ...]:
    recent = slice(week + 1 - _LOSS_WEEKS, week + 1)
    observed, variance = float(together.observed[group, recent].sum()), float(together.variance[group, recent].sum())
    expected = observed / max(ratio, 0.01)
    z = (observed - expected) / max(np.sqrt(variance), 1e-9)
    accounts = float(together.accounts[group, week])
    first = week + 1 - span
    what = (group, week, "slow decline", "high", _LOSS_WEEKS, observed, expected, variance, z, "own level")
    return (*what, accounts, np.nan, first, week, True)
