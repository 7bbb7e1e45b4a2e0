"""Risks from end to end: learned and back-tested once a month, scored every week, kept as they were said.

Belongs here: which targets there are, what is learned from, what is kept beside the builds. Does not: the arithmetic
(`risk_models.py`, `backtest.py`, `risk_reasons.py`).
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, datetime
from inspect import getsource
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from usage_pipeline.config.settings import ActivitySettings, CompletenessSettings, RiskSettings, Settings
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.files import atomic_write
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline.core.texts import text
from usage_pipeline.predictions import backtest, point_in_time, risk_columns, risk_features, risk_models
from usage_pipeline.predictions.backtest import Decision, RuleLift, Trial
from usage_pipeline.predictions.point_in_time import History
from usage_pipeline.predictions.risk_columns import (
    CARD_COLUMNS,
    DECILE_COLUMNS,
    NUMBERS,
    SAID_COLUMNS,
    SCORE_COLUMNS,
    TRIAL_COLUMNS,
)
from usage_pipeline.predictions.risk_drivers import (
    contributions,
    middle_of_peers,
    probability_text,
    reasons,
    rule_reasons,
)
from usage_pipeline.predictions.risk_features import FEATURES, features_at, matrix
from usage_pipeline.predictions.risk_models import Model, Rows, best_of, by_rule, learn, load_model, save_model
from usage_pipeline.publishing.history import SCORES, Proposal, propose_newest_week

_MONDAY = date(1970, 1, 5)


@dataclass(frozen=True)
class Target:
    """What is predicted: one is never mixed with another."""

    key: str
    of_accounts: bool
    is_about_use: bool

    @property
    def slug(self) -> str:
        return self.key.replace(" ", "_")

    def horizon_days(self, rules: RiskSettings) -> int:
        """Days from the week of as-of until the outcome is known, the gap included."""
        return 7 * rules.lead_weeks + (7 * rules.low_weeks if self.is_about_use else rules.churn_days)

    def title(self, rules: RiskSettings) -> str:
        event = text(f"risk.event.{self.slug}")
        if self.is_about_use:
            told = text("risk.within_weeks", event=event, number=rules.low_weeks)
        else:
            told = text("risk.within_days", event=event, number=rules.churn_days)
        return text("risk.after_gap", risk=told, number=rules.lead_weeks) if rules.lead_weeks else told

    def definition(self, rules: RiskSettings, activity: ActivitySettings) -> str:
        if self.is_about_use:
            share, inactive = f"{100 * activity.low_share:.0f}", activity.inactive_weeks
            return text("risk.definition.low_usage", weeks=rules.low_weeks, share=share, inactive=inactive)
        return text(f"risk.definition.{self.slug}", days=rules.churn_days)


TARGETS = (
    Target("low usage", of_accounts=False, is_about_use=True),
    Target("churn", of_accounts=False, is_about_use=False),
    Target("account churn", of_accounts=True, is_about_use=False),
)


# ---------------------------------------------------------------- learning


@dataclass
class Learned:
    """What came of one target: the decision, the model or the rule, and the back-test behind it."""

    target: Target
    decision: Decision
    model: Model | None
    usual: float
    probability_by_rule: tuple[float, float]  # of those that the rule names, and of the others
    lift_of_rule: RuleLift
    span: tuple[date, date] | None
    rows: int
    trials: list[Trial]


def weeks_of_as_of(history: History) -> list[date]:
    """Weeks to learn from, oldest first: every few weeks, the same ones whenever it is asked, all complete."""
    rules = history.settings.risk
    found = history.connection.execute(
        "SELECT week_start FROM warehouse.core.weeks WHERE is_complete "
        "AND week_start >= (SELECT min(week_start) FROM warehouse.core.weeks WHERE has_arrived) + $before "
        "ORDER BY week_start",
        {"before": 7 * rules.history_weeks},
    ).fetchall()
    return [week for (week,) in found if (week - _MONDAY).days // 7 % rules.every_weeks == 0]


def learn_all(history: History, progress: Callable[[str], None] = lambda _: None) -> list[Learned]:
    """Builds features and outcomes of the past, back-tests and fits every target. Raises LeakError."""
    with_features(history, weeks_of_as_of(history), progress)
    rules, inactive_weeks = history.settings.risk, history.settings.activity.inactive_weeks
    found = []
    for target in TARGETS:
        found.append(learn_target(rows_of(history, target), target, rules, inactive_weeks))
        progress(f"{target.key}: {found[-1].decision.method}; {found[-1].decision.why}")
    return found


def with_features(history: History, weeks: list[date], progress: Callable[[str], None] = lambda _: None) -> None:
    """Makes `past.features` and `past.outcomes` of the weeks, in the connection's own memory."""
    connection = history.connection
    columns = ("clicks_before", *FEATURES)
    connection.execute("CREATE SCHEMA IF NOT EXISTS past")
    connection.execute(
        "CREATE OR REPLACE TABLE past.features (as_of_week DATE, account_id VARCHAR, application VARCHAR, "
        f"{', '.join(f'{name} FLOAT' for name in columns)})"
    )
    for number, week in enumerate(weeks, 1):
        connection.register("of_week", features_at(history, week))
        found = connection.execute(
            f"INSERT INTO past.features SELECT as_of_week, account_id, application, {', '.join(columns)} FROM of_week"
        ).fetchone()
        connection.unregister("of_week")
        progress(f"features as of {week}: {found[0] if found else 0:,} rows ({number} of {len(weeks)})")
    connection.execute("USE warehouse")
    try:
        values = sql_values(history.settings) | {"as_of_weeks": weeks}
        outcomes = run_sql(connection, load_sql("predictions", "risk_outcomes"), values).to_arrow_table()
    finally:
        connection.execute("USE memory")
    connection.register("all_outcomes", outcomes)
    connection.execute("CREATE OR REPLACE TABLE past.outcomes AS FROM all_outcomes")
    connection.unregister("all_outcomes")


def rows_of(history: History, target: Target) -> Rows:
    """What can be learned from of one target, by week and entity."""
    names = ", ".join(f"features.{name}" for name in FEATURES)
    found = history.connection.execute(
        f"""
        SELECT
            features.as_of_week,
            dense_rank() OVER (ORDER BY features.account_id) - 1 AS account,
            dense_rank() OVER (ORDER BY features.account_id, features.application) - 1 AS entity,
            coalesce(features.clicks_before, 0) AS clicks_before,
            outcomes.outcome,
            {names}
        FROM past.features AS features
        INNER JOIN past.outcomes AS outcomes
            ON features.as_of_week = outcomes.as_of_week
            AND features.account_id = outcomes.account_id
            AND features.application IS NOT DISTINCT FROM outcomes.application
        WHERE outcomes.target = $target
        ORDER BY features.as_of_week, features.account_id, features.application
        """,
        {"target": target.key},
    ).fetchnumpy()
    x = np.empty((len(found["account"]), len(FEATURES)), dtype=np.float32)
    for place, name in enumerate(FEATURES):
        x[:, place] = np.ma.filled(np.ma.asarray(found[name], dtype=np.float32), np.nan)
    return Rows(
        week=np.asarray(found["as_of_week"]).astype("datetime64[D]"),
        account=np.asarray(found["account"]),
        entity=np.asarray(found["entity"]),
        x=x,
        clicks_before=np.ma.filled(np.ma.asarray(found["clicks_before"], dtype=np.float64), 0.0),
        outcome=np.asarray(found["outcome"]).astype(bool),
    )


def learn_target(rows: Rows, target: Target, rules: RiskSettings, inactive_weeks: int) -> Learned:
    """Back-tests and fits one target."""
    # what cannot be decided is not tried
    trials = (
        []
        if backtest.is_too_few(*backtest.counts(rows), rules)
        else backtest.trials_of(
            rows, rules, inactive_weeks, target.horizon_days(rules), is_about_use=target.is_about_use
        )
    )
    decision = backtest.decide(rows, trials, rules, target.horizon_days(rules))
    named_by_rule = by_rule(rows, rules, inactive_weeks, is_about_use=target.is_about_use)
    named, others = backtest.rule_probability(named_by_rule, rows.outcome, np.array([True, False])).tolist()
    return Learned(
        target=target,
        decision=decision,
        model=best_of(learn(rows, rules)) if decision.method == "model" else None,
        usual=float(rows.outcome.mean()) if len(rows) else np.nan,
        probability_by_rule=(named, others),
        lift_of_rule=backtest.rule_lift(rows, named_by_rule, rules),
        span=(rows.week.min().item(), rows.week.max().item()) if len(rows) else None,
        rows=len(rows),
        trials=trials,
    )


# ---------------------------------------------------------------- keeping


def fingerprint(completeness: CompletenessSettings, activity: ActivitySettings, risk: RiskSettings) -> str:
    """Of everything but the data that a model depends on."""
    modules = (point_in_time, backtest, risk_columns, risk_features, risk_models, sys.modules[__name__])
    queries = ("known_subscriptions", "known_subscribed", "risk_features", "risk_outcomes")
    parts = [getsource(module) for module in modules] + [load_sql("predictions", name) for name in queries]
    parts += [
        risk.model_dump_json(),
        activity.model_dump_json(),
        completeness.model_dump_json(),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def version_of(
    as_of_day: date, completeness: CompletenessSettings, activity: ActivitySettings, risk: RiskSettings
) -> str:
    """Models are learned once a month: the month, and what they depend on."""
    return f"{as_of_day:%Y-%m}-{fingerprint(completeness, activity, risk)}"


def folder_of(settings: Settings) -> Path:
    return settings.home.models_dir / version_of(
        settings.clock.as_of_day, settings.completeness, settings.activity, settings.risk
    )


def folder_in_force(history: History) -> Path:
    """The folder of what `core.risk_methods` tells of: what the last run learned or found."""
    found = history.connection.execute("SELECT any_value(version) FROM warehouse.core.risk_methods").fetchone()
    assert found is not None
    return history.settings.home.models_dir / str(found[0])


def keep(learned: list[Learned], folder: Path, risk: RiskSettings, activity: ActivitySettings) -> None:
    """Writes models, card and back-test into a folder, which is called as their version: whole or not at all."""
    with atomic_write(folder) as tmp_path:
        tmp_path.mkdir()
        cards = [_card(one, folder.name, risk, activity) for one in learned]
        (tmp_path / "card.json").write_text(json.dumps(cards, indent=1, default=str), encoding="utf-8")
        for one in learned:
            if one.model is not None:
                save_model(one.model, tmp_path / f"{one.target.slug}.skops")
        for name, frame in _tables(learned, risk).items():
            frame.to_parquet(tmp_path / f"{name}.parquet", index=False)
        if folder.exists():
            shutil.rmtree(folder)


def _card(one: Learned, version: str, risk: RiskSettings, activity: ActivitySettings) -> dict[str, Any]:
    return {
        "target": one.target.key,
        "title": one.target.title(risk),
        "definition": one.target.definition(risk, activity),
        "horizon_days": one.target.horizon_days(risk),
        "version": version,
        "kind": one.model.kind if one.model else None,
        "learned_from": str(one.span[0]) if one.span else None,
        "learned_until": str(one.span[1]) if one.span else None,
        "rows": one.rows,
        "base_rate": None if np.isnan(one.usual) else one.usual,
        "probability_named": None if np.isnan(one.probability_by_rule[0]) else one.probability_by_rule[0],
        "probability_of_others": None if np.isnan(one.probability_by_rule[1]) else one.probability_by_rule[1],
        **_signal(one),
        **{key: None if value != value else value for key, value in asdict(one.decision).items()},
    }


def _signal(one: Learned) -> dict[str, Any]:
    """Whether what is in force may fill a list: a model has earned it, a rule has to show that it can tell."""
    rule = one.lift_of_rule
    lifts = {"lift": rule.lift, "lift_low": rule.low, "lift_high": rule.high}
    known = {name: value if np.isfinite(value) else None for name, value in lifts.items()}
    return known | {"has_signal": one.decision.method == "model" or rule.has_signal}


def _tables(learned: list[Learned], risk: RiskSettings) -> dict[str, pd.DataFrame]:
    """The back-test as tables: figures by origin and contestant, deciles by probability, said and outcome by week."""
    found: dict[str, list[pd.DataFrame]] = {"figures": [], "deciles": [], "said": []}
    for one in learned:
        about = {"target": one.target.key, "title": one.target.title(risk)}
        method = one.decision.method
        figures = backtest.figures(one.trials)
        if len(figures):
            figures["is_in_force"] = figures["contestant"] == method
            figures["contestant"] = figures["contestant"].map(backtest.contestant_title)
            figures["kind"] = figures["kind"].map(risk_models.KINDS).fillna("")
            found["figures"].append(figures.assign(**about))
        for trial in one.trials:
            probability = trial.probability[method]
            deciles = backtest.deciles(probability, trial.rows.outcome, trial.rows.account)
            found["deciles"].append(deciles.assign(origin=trial.number, **about))
        if one.trials:
            found["said"].append(backtest.predictions_vs_outcomes(one.trials, method, risk.listed_lift).assign(**about))
    columns: dict[str, dict[str, Any]] = {"figures": TRIAL_COLUMNS, "deciles": DECILE_COLUMNS, "said": SAID_COLUMNS}
    return {name: _with_columns(frames, columns[name]) for name, frames in found.items()}


def _with_columns(frames: list[pd.DataFrame], columns: dict[str, Any]) -> pd.DataFrame:
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(columns))
    return frame[list(columns)].astype(columns)


def replace_backtest(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Brings what is kept of the back-test into the warehouse: `core.risk_methods`, `risk_figures` and so on."""
    for name in ("figures", "deciles", "said"):
        connection.execute(
            f"CREATE OR REPLACE TABLE core.risk_{name} AS FROM read_parquet($file)",
            {"file": str(folder / f"{name}.parquet")},
        )
    cards = pa.Table.from_pylist(read_cards(folder), CARD_COLUMNS)
    connection.register("cards", cards)
    connection.execute("CREATE OR REPLACE TABLE core.risk_methods AS FROM cards")
    connection.unregister("cards")


def read_cards(folder: Path) -> list[dict[str, Any]]:
    cards: list[dict[str, Any]] = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    return cards


# ---------------------------------------------------------------- scoring

_SCORABLE = """
SELECT
    features.*,
    states.state_of_newest_week AS usage_state
FROM features
LEFT JOIN warehouse.core.account_application_states AS states
    ON features.account_id = states.account_id AND features.application = states.application
-- never one that has ended, or whose end is announced by today
WHERE
    states.subscription_state = 'active subscription'
    OR features.application IS NULL AND features.account_id IN (
        SELECT account_id FROM warehouse.core.account_application_states
        WHERE subscription_state = 'active subscription'
    )
ORDER BY features.account_id, features.application
"""


def score_newest_week(history: History, folder: Path) -> pd.DataFrame:
    """`score_week` of the newest complete week; nothing where there is none."""
    found = history.connection.execute("SELECT max(week_start) FROM warehouse.core.weeks WHERE is_complete").fetchone()
    week = found[0] if found else None
    return score_week(history, week, folder) if week else pd.DataFrame()


def score_week(history: History, week: date, folder: Path) -> pd.DataFrame:
    """Probabilities of every target as of `week`, with reasons for those that are listed: a row, target x entity."""
    connection = history.connection
    connection.register("features", features_at(history, week))
    features = connection.execute(_SCORABLE).df()
    connection.unregister("features")
    features["application"] = features["application"].astype(object).where(features["application"].notna(), None)
    cards = {card["target"]: card for card in read_cards(folder)}
    rules, inactive_weeks = history.settings.risk, history.settings.activity.inactive_weeks
    found = [_scored(features, target, cards[target.key], folder, rules, inactive_weeks) for target in TARGETS]
    return pd.concat([frame for frame in found if len(frame)] or found[:1], ignore_index=True)


def _scored(
    features: pd.DataFrame,
    target: Target,
    card: dict[str, Any],
    folder: Path,
    rules: RiskSettings,
    inactive_weeks: int,
) -> pd.DataFrame:
    of_target = features["application"].isna() == target.of_accounts
    if target.is_about_use:
        of_target &= features["usage_state"] == "active"
    else:
        of_target &= features["has_subscription"]
    rows = features[of_target]
    x = matrix(rows)
    model = load_model(folder / f"{target.slug}.skops") if card["method"] == "model" else None
    if model is not None:
        strength = model.log_odds(x)
        probability = model.probability(x)
        listed = backtest.is_listed(probability, rules.listed_lift)
    else:
        as_rows = _as_rows(rows, x)
        named_by_rule = by_rule(as_rows, rules, inactive_weeks, is_about_use=target.is_about_use)
        named, others = (np.nan if card[c] is None else card[c] for c in ("probability_named", "probability_of_others"))
        probability = np.where(named_by_rule, named, others)
        strength = risk_models.baselines(as_rows, named_by_rule)["rule"]
        # what the rule names may be nearly everybody: where it has shown no lift, it fills no list
        listed = named_by_rule & bool(card["has_signal"])
    told = rows[listed]
    middle = middle_of_peers(rows).loc[told.index] if len(rows) else rows
    if model is not None:
        added = contributions(model.log_odds, matrix(told), middle.to_numpy(dtype=np.float32), rules.seed)
        why = reasons(told, middle, added)
    else:
        why = rule_reasons(told, middle)
    scored = rows[["as_of_week", "account_id", "application", *NUMBERS]].assign(
        target=target.key,
        horizon_days=target.horizon_days(rules),
        probability=probability,
        probability_text=[probability_text(c) for c in probability],
        base_rate=np.mean(probability) if len(probability) else np.nan,
        is_listed=listed,
        has_signal=bool(card["has_signal"]),
        strength=strength,
        method=card["method"],
        version=card["version"],
    )
    return scored.join(why)


def _as_rows(features: pd.DataFrame, x: Any) -> Rows:
    nothing = np.zeros(len(features), dtype=np.int64)
    return Rows(
        week=features["as_of_week"].to_numpy().astype("datetime64[D]"),
        account=nothing,
        entity=nothing,
        x=x,
        clicks_before=features["clicks_before"].fillna(0).to_numpy(dtype=np.float64),
        outcome=nothing.astype(bool),
    )


def write_scores(connection: duckdb.DuckDBPyConnection, scores: pd.DataFrame) -> None:
    """Replaces `core.risk_scores`."""
    columns = ", ".join(f"{name} {kind}" for name, kind in SCORE_COLUMNS.items())
    connection.execute(f"CREATE OR REPLACE TABLE core.risk_scores ({columns})")
    if len(scores):
        connection.register("scores", scores)
        values = ", ".join(
            f"nullif(CAST({name} AS DOUBLE), 'NaN'::DOUBLE) AS {name}" if kind == "DOUBLE" else name
            for name, kind in SCORE_COLUMNS.items()
        )
        connection.execute(f"INSERT INTO core.risk_scores SELECT {values} FROM scores")
        connection.unregister("scores")


def propose_score_snapshot(connection: duckdb.DuckDBPyConnection, history_dir: Path, as_of: datetime) -> Proposal:
    """Proposes the newest week's scores for history; the caller holds it."""
    sql = "FROM core.risk_scores WHERE as_of_week = $week ORDER BY target, account_id, application"
    return propose_newest_week(connection, history_dir, as_of, SCORES, sql)


def replace_snapshot_outcomes(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Replaces `core.snapshot_outcomes` by what came of the weeks in `core.score_snapshots`."""
    found = connection.execute("SELECT DISTINCT as_of_week FROM core.score_snapshots ORDER BY as_of_week").fetchall()
    weeks = [week for (week,) in found]
    values = sql_values(settings) | {"as_of_weeks": weeks}
    run_sql(
        connection,
        f"CREATE OR REPLACE TABLE core.snapshot_outcomes AS {load_sql('predictions', 'risk_outcomes')}",
        values,
    )
