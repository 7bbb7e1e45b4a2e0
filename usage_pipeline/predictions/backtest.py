"""The back-test: what would have been said in the past by what was known then, and whether it is good enough to act on.

Belongs here: origins, figures, the decision. Each origin learns from weeks whose outcome was known before its first
week of as-of (an embargo of one horizon), and is tried on the weeks that follow.

Sources: average precision as in scikit-learn (no interpolation); calibration error over ten groups of equal size;
intervals by Wilson 1927; differences and lifts by a bootstrap of accounts (Efron and Tibshirani 1993, clusters).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from usage_pipeline.config.settings import RiskSettings
from usage_pipeline.core.texts import number, shown, signed, text
from usage_pipeline.predictions.risk_models import (
    BASELINES,
    KINDS,
    Bools,
    Floats,
    Rows,
    baselines,
    best_of,
    by_rule,
    learn,
    probability_of_score,
)

# of a ranked list, what an account manager works through
_AT = 20
# below that, no fold of accounts has something to learn from
_LEAST_TO_LEARN = 20
_GROUPS = 10
_Z = 1.96
_CHUNK = 50
# a share of fewer events is no probability to tell anybody
_LEAST_EVENTS = 10


@dataclass(frozen=True)
class Trial:
    """One origin: what each contestant said of the rows of its weeks."""

    number: int
    first_week: np.datetime64
    last_week: np.datetime64
    trained_until: np.datetime64
    rows: Rows
    kind: str  # of the model that did best on the accounts held out
    score: dict[str, Floats]
    probability: dict[str, Floats]
    named_by_rule: Bools  # by the rule


@dataclass(frozen=True)
class Decision:
    """Whether the model is used, and why, in words."""

    method: str  # model or rule
    why: str
    positives: int
    negatives: int
    origins: int = 0
    positive_origins: int = 0
    best_baseline: str = ""
    difference: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class RuleLift:
    """How many times as badly those that the rule named fared, with its 95 % interval; NaN where it cannot be told."""

    lift: float
    low: float
    high: float
    has_signal: bool


def trials_of(
    rows: Rows, rules: RiskSettings, inactive_weeks: int, horizon_days: int, *, is_about_use: bool
) -> list[Trial]:
    """The origins that have something to learn from and something to be tried on, oldest first."""
    found: list[Trial] = []
    if not len(rows):
        return found
    last = rows.week.max()
    span = np.timedelta64(7 * rules.origin_weeks, "D")
    for back in reversed(range(rules.origins)):
        end = last - back * span
        test = rows[(rows.week > end - span) & (rows.week <= end)]
        if not len(test):
            continue
        train = rows[rows.week + np.timedelta64(horizon_days, "D") < test.week.min()]
        least = min(train.outcome.sum(), (~train.outcome).sum())
        if least < _LEAST_TO_LEARN or test.outcome.all() or not test.outcome.any():
            continue
        found.append(_trial(len(found) + 1, train, test, rules, inactive_weeks, is_about_use))
    return found


def _trial(number: int, train: Rows, test: Rows, rules: RiskSettings, inactive_weeks: int, is_about_use: bool) -> Trial:
    models = learn(train, rules)
    best = best_of(models)
    score: dict[str, Floats] = {}
    probability: dict[str, Floats] = {}
    for kind, model in models.items():
        score[kind] = model.log_odds(test.x)
        probability[kind] = model.probability(test.x)
    score["model"], probability["model"] = score[best.kind], probability[best.kind]
    named_by_rule = {
        name: by_rule(rows, rules, inactive_weeks, is_about_use=is_about_use)
        for name, rows in (("train", train), ("test", test))
    }
    before = baselines(train, named_by_rule["train"])
    for name, values in baselines(test, named_by_rule["test"]).items():
        score[name] = values
        probability[name] = (
            rule_probability(named_by_rule["train"], train.outcome, named_by_rule["test"])
            if name == "rule"
            else probability_of_score(before[name], train.outcome, values)
        )
    return Trial(
        number=number,
        first_week=test.week.min(),
        last_week=test.week.max(),
        trained_until=train.week.max(),
        rows=test,
        kind=best.kind,
        score=score,
        probability=probability,
        named_by_rule=named_by_rule["test"],
    )


def rule_probability(named_by_rule: Bools, outcome: Bools, asked: Bools) -> Floats:
    """The share of those that the rule named to whom it happened, and of the others; NaN where too few are known."""

    def share(of: Bools) -> float:
        return float(outcome[of].mean()) if outcome[of].sum() >= _LEAST_EVENTS else float("nan")

    found: Floats = np.where(asked, share(named_by_rule), share(~named_by_rule))
    return found


def rule_lift(rows: Rows, named_by_rule: Bools, rules: RiskSettings) -> RuleLift:
    """The share of those named to whom it happened, over that of the others, in all weeks on record.

    The rule has learned nothing, so every week tries it. It has a signal where the lift is `rules.rule_lift` or more,
    its interval clear of 1, with `rules.rule_events` accounts or applications to which it happened.
    """
    outcome = rows.outcome
    if not named_by_rule.any() or named_by_rule.all() or not outcome.any():
        return RuleLift(float("nan"), float("nan"), float("nan"), has_signal=False)
    accounts, place = np.unique(rows.account, return_inverse=True)
    # (4, accounts): named, of them with the event, the others, of them with the event
    parts = (named_by_rule, named_by_rule & outcome, ~named_by_rule, ~named_by_rule & outcome)
    sums: Floats = np.stack([np.bincount(place, part) for part in parts])

    def lift(totals: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = (totals[..., 1] / totals[..., 0]) / (totals[..., 3] / totals[..., 2])
        return found

    rng = np.random.default_rng(rules.seed)
    weight = rng.multinomial(len(accounts), np.full(len(accounts), 1 / len(accounts)), rules.bootstraps)
    drawn = lift(weight.astype(np.float64) @ sums.T)
    drawn = drawn[~np.isnan(drawn)]
    # between two draws there is nothing to be taken the mean of: one may be infinite
    low = float(np.percentile(drawn, 2.5, method="lower")) if len(drawn) else float("nan")
    high = float(np.percentile(drawn, 97.5, method="higher")) if len(drawn) else float("nan")
    found = float(lift(sums.sum(axis=1)))
    positives, _ = counts(rows)
    return RuleLift(found, low, high, found >= rules.rule_lift and low > 1 and positives >= rules.rule_events)


# ---------------------------------------------------------------- figures


def figures(trials: list[Trial]) -> pd.DataFrame:
    """A row: origin x contestant, and all origins together (origin 0)."""
    rows: list[dict[str, Any]] = []
    for trial in trials:
        rows += [{"contestant": name, **_of_trial(trial, name)} for name in trial.score]
    found = pd.DataFrame(rows)
    if len(found):
        number = found.select_dtypes("number").columns.difference(["origin"])
        pooled = found.groupby("contestant", as_index=False)[list(number)].mean()
        for name in ("rows", "positives"):
            pooled[name] = pooled["contestant"].map(found.groupby("contestant")[name].sum())
        pooled["origin"] = 0
        pooled["first_week"], pooled["last_week"] = found["first_week"].min(), found["last_week"].max()
        found = pd.concat([found, pooled], ignore_index=True)
    return found


def _of_trial(trial: Trial, name: str) -> dict[str, Any]:
    score, probability, rows = trial.score[name], trial.probability[name], trial.rows
    by_week = [_ranked(score[of], rows.outcome[of]) for of in _weeks_of(trial)]
    groups = deciles(probability, rows.outcome, rows.account)
    return {
        "origin": trial.number,
        "kind": trial.kind if name == "model" else name,
        "first_week": trial.first_week,
        "last_week": trial.last_week,
        "trained_until": trial.trained_until,
        "rows": len(rows),
        "positives": int(rows.outcome.sum()),
        "base_rate": float(rows.outcome.mean()),
        **{str(k): v for k, v in pd.DataFrame(by_week).mean().items()},
        "brier": float(np.mean((probability - rows.outcome) ** 2)),
        "calibration_error": float(np.average(np.abs(groups["said"] - groups["outcome"]), weights=groups["rows"])),
    }


def _weeks_of(trial: Trial) -> list[Bools]:
    """The rows of each week of as-of in which it happened to somebody and not to all."""
    masks = [trial.rows.week == week for week in np.unique(trial.rows.week)]
    return [of for of in masks if 0 < trial.rows.outcome[of].sum() < of.sum()]


def _ranked(score: Floats, outcome: Bools) -> dict[str, float]:
    """Of one week: what the order is worth. Those tied at the cut count by their share of the places left."""
    taken = _taken(score, min(_AT, len(score)))
    decile = _taken(score, max(1, round(len(score) / 10)))
    hits = float(taken @ outcome)
    return {
        "average_precision": float(average_precision(score, outcome, np.ones((1, len(score))))[0]),
        "auc": float(roc_auc_score(outcome, score)),
        "precision_at_20": hits / min(_AT, len(score)),
        "recall_at_20": hits / float(outcome.sum()),
        "top_decile_lift": float(decile @ outcome) / decile.sum() / float(outcome.mean()),
    }


def _taken(score: Floats, places: int) -> Floats:
    """The share of each row that is among the `places` highest, ties drawn at random."""
    cut = np.partition(score, -places)[-places]
    above, at = score > cut, score == cut
    found: Floats = above + at * (places - above.sum()) / at.sum()
    return found


def average_precision(score: Floats, outcome: Bools, weight: Floats) -> Floats:
    """(B,) for weights (B, n): the sum over distinct scores of recall gained x precision there; ties share a place.

    As sklearn.metrics.average_precision_score, for many weights of the same rows at once. NaN without an event.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    weight = weight[:, order]
    total = np.cumsum(weight, axis=1)[:, ends]
    hits = np.cumsum(weight * outcome[order], axis=1)[:, ends]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(total > 0, hits / total, 0.0)
        recall = hits / hits[:, -1:]
    found: Floats = (np.diff(recall, axis=1, prepend=0.0) * precision).sum(axis=1)
    return found


def deciles(probability: Floats, outcome: Bools, account: NDArray[np.int64]) -> pd.DataFrame:
    """Ten groups of equal size by probability: what was said, what happened, and Wilson's 95 % interval of that.

    The same account comes again in every week of as-of: a group counts as many rows as would be independent (its size
    over the design effect of accounts as clusters, Kish 1965).
    """
    if np.isnan(probability).any():
        probability = np.nan_to_num(probability, nan=float(outcome.mean()))
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, _GROUPS) if len(part)]
    said, share = (np.array([values[part].mean() for part in parts]) for values in (probability, outcome))
    n = np.array([_independent_rows(outcome[part], account[part]) for part in parts])
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return pd.DataFrame(
        {
            "decile": np.arange(1, len(parts) + 1),
            "rows": [len(part) for part in parts],
            "said": said,
            "outcome": share,
            # the ends are no further than the share itself, whatever the arithmetic leaves behind
            "low": np.clip(middle - half, 0.0, share),
            "high": np.clip(middle + half, share, 1.0),
        }
    )


def _independent_rows(outcome: Bools, account: NDArray[np.int64]) -> float:
    share = float(outcome.mean())
    of_accounts = np.bincount(account, outcome - share)
    variance = float((of_accounts**2).sum()) / len(outcome) ** 2
    return min(float(len(outcome)), share * (1 - share) / variance) if variance > 0 else float(len(outcome))


def predictions_vs_outcomes(trials: list[Trial], method: str, lift: float) -> pd.DataFrame:
    """A row: week of as-of: events expected of the method in force, events that came, and what the list held."""
    rows = []
    for trial in trials:
        for week in np.unique(trial.rows.week):
            of = trial.rows.week == week
            probability, outcome = trial.probability[method][of], trial.rows.outcome[of]
            listed = is_listed(probability, lift) if method == "model" else trial.named_by_rule[of]
            rows.append(
                {
                    "as_of_week": week,
                    "scored": int(of.sum()),
                    "expected": float(probability.sum()),
                    "outcomes": int(outcome.sum()),
                    "listed": int(listed.sum()),
                    "listed_outcomes": int((outcome & listed).sum()),
                }
            )
    return pd.DataFrame(rows)


def is_listed(probability: Floats, lift: float) -> Bools:
    """Far above the mean of the week: a season that threatens all is no reason to call one of them."""
    found: Bools = probability >= lift * probability.mean() if len(probability) else np.zeros(0, dtype=bool)
    return found


# ---------------------------------------------------------------- the decision


def decide(rows: Rows, trials: list[Trial], rules: RiskSettings, horizon_days: int) -> Decision:
    """The model is used where it beats the best baseline by more than luck, and in three of four origins."""
    positives, negatives = counts(rows)
    if is_too_few(positives, negatives, rules):
        why = text(
            "decision.too_little",
            positives=number(positives),
            negatives=number(negatives),
            least_positives=number(rules.minimum_positives),
            least_negatives=number(rules.minimum_negatives),
        )
        return Decision("rule", why, positives, negatives)
    if len(trials) < rules.origins:
        weeks = rules.history_weeks + rules.origins * rules.origin_weeks + 2 * horizon_days // 7
        why = text("decision.too_short", possible=len(trials), wanted=rules.origins, weeks=weeks)
        return Decision("rule", why, positives, negatives, origins=len(trials))
    best, difference, low, high, positive = _difference(trials, rules)
    told = text(
        "decision.compared",
        points=signed(100 * difference),
        measure=shown("contestant", BASELINES[best]),
        low=signed(100 * low),
        high=signed(100 * high),
        better=positive,
        trials=len(trials),
    )
    is_better = low > 0 and positive >= 0.75 * len(trials)
    method, why = ("model", told) if is_better else ("rule", text("decision.not_better", told=told))
    return Decision(method, why, positives, negatives, len(trials), positive, best, difference, low, high)


def is_too_few(positives: int, negatives: int, rules: RiskSettings) -> bool:
    return positives < rules.minimum_positives or negatives < rules.minimum_negatives


def counts(rows: Rows) -> tuple[int, int]:
    """Accounts or applications with an event on record, and those to which none happened lately."""
    newest = np.full(int(rows.entity.max(initial=-1)) + 1, np.datetime64("0001-01-01"))
    np.maximum.at(newest, rows.entity, rows.week)
    is_newest = rows.week == newest[rows.entity]
    return len(np.unique(rows.entity[rows.outcome])), int((is_newest & ~rows.outcome).sum())


def _difference(trials: list[Trial], rules: RiskSettings) -> tuple[str, float, float, float, int]:
    """Best baseline, mean paired difference in average precision, its interval, and origins where it is positive."""

    def precision(trial: Trial, name: str, weight: Floats) -> Floats:
        """(B,): mean over the trial's weeks."""
        found = [
            average_precision(trial.score[name][of], trial.rows.outcome[of], weight[:, trial.rows.account[of]])
            for of in _weeks_of(trial)
        ]
        mean: Floats = np.nanmean(found, axis=0)
        return mean

    accounts = 1 + max(int(trial.rows.account.max()) for trial in trials)
    one = np.ones((1, accounts))
    plain = {name: [float(precision(t, name, one)[0]) for t in trials] for name in ("model", *BASELINES)}
    best = max(BASELINES, key=lambda name: float(np.mean(plain[name])))
    differences = np.subtract(plain["model"], plain[best])
    there = np.unique(np.concatenate([trial.rows.account for trial in trials]))
    rng = np.random.default_rng(rules.seed)
    drawn: list[NDArray[np.float64]] = []
    for start in range(0, rules.bootstraps, _CHUNK):
        size = min(_CHUNK, rules.bootstraps - start)
        weight = np.zeros((size, accounts))
        weight[:, there] = rng.multinomial(len(there), np.full(len(there), 1 / len(there)), size)
        both = [precision(t, "model", weight) - precision(t, best, weight) for t in trials]
        drawn.append(np.nanmean(both, axis=0))
    low, high = np.nanpercentile(np.concatenate(drawn), [2.5, 97.5])
    return best, float(differences.mean()), float(low), float(high), int((differences > 0).sum())


def contestant_title(name: str) -> str:
    return {"model": "the model", **KINDS, **BASELINES}[name]
