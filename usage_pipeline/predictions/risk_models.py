"""Models of risk: how one is learned, kept and asked, and the rule and the baselines it has to beat.

Belongs here: from rows of features to a probability. Does not: what the features are (`risk_features.py`), whether a
model is good enough to be used (`backtest.py`), or why a probability is high (`risk_reasons.py`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from usage_pipeline.config.settings import RiskSettings
from usage_pipeline.predictions.risk_features import FEATURES

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_FOLDS = 3
# types of scikit-learn's own that a kept model may hold beside those skops trusts
_TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor", "numpy.dtype"]
KINDS = {"logistic": "logistic regression", "boosting": "gradient boosting"}


@dataclass(frozen=True)
class Rows:
    """n rows of one target: an account, or one of its applications, as of a week, and what came of it."""

    week: NDArray[np.datetime64]  # Monday of the week of as-of
    account: NDArray[np.int64]  # a number for each account: what is resampled and held out together
    entity: NDArray[np.int64]  # a number for each account or account x application
    x: NDArray[np.float32]  # (n, len(FEATURES)), NaN where not known
    clicks_before: Floats
    outcome: Bools

    def __getitem__(self, chosen: Any) -> "Rows":
        return Rows(**{name: getattr(self, name)[chosen] for name in self.__dataclass_fields__})

    def __len__(self) -> int:
        return len(self.week)

    def feature(self, name: str) -> Floats:
        return self.x[:, list(FEATURES).index(name)].astype(np.float64)


@dataclass
class Model:
    """A fitted estimator, and the line through log odds that makes its scores probabilities."""

    kind: str
    estimator: Any
    slope: float = 1.0
    intercept: float = 0.0
    loss: float = float("nan")  # log loss of accounts it had not seen

    def log_odds(self, x: NDArray[np.float32]) -> Floats:
        return self.slope * _raw_log_odds(self.estimator, x) + self.intercept

    def probability(self, x: NDArray[np.float32]) -> Floats:
        found: Floats = expit(self.log_odds(x))
        return found


def learn(rows: Rows, rules: RiskSettings) -> dict[str, Model]:
    """A logistic regression and gradient boosting, each calibrated on accounts that it had not seen; by kind.

    The better of them (`best_of`) is the one with the smaller log loss there. All events are learned from, and a
    sample of the other rows with the weight that makes up for it.
    """
    sample, weight = _sampled(rows, rules)
    return {kind: _calibrated(kind, rows[sample], weight, rules.seed) for kind in KINDS}


def best_of(models: dict[str, Model]) -> Model:
    return min(models.values(), key=lambda model: model.loss)


def _estimator(kind: str, seed: int) -> Any:
    if kind == "logistic":
        return make_pipeline(
            SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
            StandardScaler(),
            # a few hundred events bear no more: with less shrinkage held-out slopes fall to a half
            LogisticRegression(C=0.001, max_iter=500),
        )
    return HistGradientBoostingClassifier(
        max_iter=120,
        learning_rate=0.06,
        max_leaf_nodes=12,
        min_samples_leaf=200,
        l2_regularization=50.0,
        max_features=0.5,
        monotonic_cst=list(FEATURES.values()),
        early_stopping=False,
        random_state=seed,
    )


def _calibrated(kind: str, rows: Rows, weight: Floats, seed: int) -> Model:
    """Platt's line through the log odds of accounts held out, then the estimator fitted on all rows.

    The line knows the weights, so it also undoes that events are more frequent in the sample (King and Zeng 2001).
    """
    estimator = _estimator(kind, seed)
    held_out = np.zeros(len(rows))
    folds = GroupKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(rows.x, rows.outcome, rows.account):
        held_out[test] = _raw_log_odds(_fit(clone(estimator), rows[train]), rows.x[test])
    line = LogisticRegression(C=1e6).fit(held_out[:, None], rows.outcome, sample_weight=weight)
    slope, intercept = float(line.coef_[0, 0]), float(line.intercept_[0])
    if slope <= 0:
        # nothing was learned that holds for others: the same probability for all
        share = float(np.average(rows.outcome, weights=weight))
        slope, intercept = 0.0, float(logit(share))
    loss = log_loss(rows.outcome, expit(slope * held_out + intercept), sample_weight=weight, labels=[False, True])
    return Model(kind, _fit(estimator, rows), slope, intercept, float(loss))


def _one_thread() -> Any:
    # threads that meet after every feature wait for the slowest: on a machine that does anything else besides, two of
    # them take three times as long as one
    return threadpool_limits(1)


def _fit(estimator: Any, rows: Rows) -> Any:
    # a column of which nothing is known has no thresholds; as a constant it is never split by
    x = np.where(np.isnan(rows.x).all(axis=0), np.float32(0), rows.x)
    with _one_thread():
        return estimator.fit(x, rows.outcome)


def _raw_log_odds(estimator: Any, x: NDArray[np.float32]) -> Floats:
    with _one_thread():
        found: Floats = np.asarray(estimator.decision_function(x), dtype=np.float64)
    return np.clip(found, -20, 20)


def _sampled(rows: Rows, rules: RiskSettings) -> tuple[NDArray[np.int64], Floats]:
    """Places of the rows to learn from, in order, and their weights."""
    positives, negatives = np.flatnonzero(rows.outcome), np.flatnonzero(~rows.outcome)
    rng = np.random.default_rng(rules.seed)
    if len(positives) > rules.largest_training // 2:
        return _drawn(rng, np.arange(len(rows)), rules.largest_training)
    kept, weight = _drawn(rng, negatives, rules.largest_training - len(positives))
    places = np.concatenate([positives, kept])
    order = np.argsort(places)
    return places[order], np.concatenate([np.ones(len(positives)), weight])[order]


def _drawn(rng: np.random.Generator, places: NDArray[np.int64], most: int) -> tuple[NDArray[np.int64], Floats]:
    if len(places) <= most:
        return places, np.ones(len(places))
    return np.sort(rng.choice(places, most, replace=False)), np.full(most, len(places) / most)


# ---------------------------------------------------------------- the rule and the baselines


def by_rule(rows: Rows, rules: RiskSettings, inactive_weeks: int, *, is_about_use: bool) -> Bools:
    """Whether the rule says risk: recent clicks far below the eight weeks before and below its peers' move.

    About the end of a subscription, silence is a risk too; about low usage it is what has already happened.
    """
    change, peers = rows.feature("change"), rows.feature("peers_change")
    # shares of clicks plus one, as the features are; a floor of a few clicks makes that no difference
    fell = (rows.clicks_before >= rules.floor_clicks) & (
        np.nan_to_num(change) < np.log(rules.share) + np.minimum(peers, 0)
    )
    found: Bools = fell if is_about_use else fell | (rows.feature("weeks_since_use") >= inactive_weeks)
    return found


def baselines(rows: Rows, named_by_rule: Bools) -> dict[str, Floats]:
    """Scores to beat, higher is riskier: a constant, one number each, and the rule, by its own order."""
    decline = -np.nan_to_num(rows.feature("change"))
    return {
        "prior": np.zeros(len(rows)),
        "trend": decline,
        "recency": rows.feature("weeks_since_use"),
        "rule": np.where(named_by_rule, 100.0, 0.0) + decline,
    }


BASELINES = {
    "prior": "the same for all",
    "trend": "last 4 weeks against the 8 before",
    "recency": "weeks since the last use",
    "rule": "the rule",
}


def probability_of_score(score: Floats, outcome: Bools, asked: Floats) -> Floats:
    """Probabilities for a score that only ranks: a logistic curve through what happened, to some and not to all."""
    scale = float(score.std())
    if scale == 0:
        return np.full(len(asked), float(outcome.mean()))
    curve = LogisticRegression(C=1e6).fit(score[:, None] / scale, outcome)
    found: Floats = curve.predict_proba(asked[:, None] / scale)[:, 1]
    return found


# ---------------------------------------------------------------- keeping


def save_model(model: Model, file: Path) -> None:
    skops.io.dump(vars(model), file)


def load_model(file: Path) -> Model:
    """Raises skops' UntrustedTypesFoundException where the file holds anything but a model of ours."""
    return Model(**skops.io.load(file, trusted=_TRUSTED))
