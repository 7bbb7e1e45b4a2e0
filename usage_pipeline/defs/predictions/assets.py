"""Predictions: models learned once a month, scores every week, what was said kept beside what came of it.

Where no model holds in the back-test, a rule stands in, and every table says so.
"""

from typing import Any

import dagster as dg

from usage_pipeline.config.settings import Settings
from usage_pipeline.defs.lineage import Step, deps_of
from usage_pipeline.defs.tables import OWNERS, POOL, code_of, count_rows, proposal_result, sql_table
from usage_pipeline.predictions import risk_columns
from usage_pipeline.predictions.point_in_time import open_history
from usage_pipeline.publishing.history import SCORES, history_locked, promote
from usage_pipeline.publishing.snapshots import Snapshots
from usage_pipeline.resources import Warehouse

ISSUED = Snapshots(SCORES, "core.score_snapshots", risk_columns.SNAPSHOT_COLUMNS)
# scikit-learn takes seconds to load: it is imported where something is learned or scored, not to list the assets


# what turns the warehouse back to a week, and the tables that this makes in a connection of its own
_PAST = (
    "activity/subscription_periods",
    "predictions/known_subscribed",
    "predictions/known_subscriptions",
    "predictions/risk_features",
)
_PASSING: dict[str, tuple[str, ...]] = {"ref.delivered": (), "core.subscribed": ()}


@dg.asset(
    group_name="predictions",
    kinds={"scikitlearn", "python"},
    owners=OWNERS,
    deps=deps_of(
        "risk_models",
        Step(
            python={
                "core.risk_methods": risk_columns.CARD_COLUMNS.names,
                "core.risk_figures": tuple(risk_columns.TRIAL_COLUMNS),
                "core.risk_deciles": tuple(risk_columns.DECILE_COLUMNS),
                "core.risk_said": tuple(risk_columns.SAID_COLUMNS),
            },
            runs=[*_PAST, "predictions/risk_outcomes"],
            reads=["core.weeks", "subscriptions"],
            passing=_PASSING,
        ),
    ),
    pool=POOL,
    code_version=code_of("predictions", "defs/predictions"),
)
def risk_models(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """A model or the rule for each target, learned once a month, back-tested on the past, kept beside the builds.

    Later runs of the month find what was learned and leave it; other settings or other code learn anew. Its back-test
    is `core.risk_methods`, `core.risk_figures`, `core.risk_deciles` and `core.risk_said`.
    """
    from usage_pipeline.predictions import risks

    folder = risks.folder_of(settings)
    is_new = not folder.exists()
    if is_new:
        with warehouse.locked(), open_history(settings) as history:
            risks.keep(risks.learn_all(history, context.log.info), folder, settings.risk, settings.activity)
            unreadable = len(history.unreadable)
        if unreadable:
            context.log.warning(
                f"{unreadable} old deliveries of subscriptions do not fit the mapping; later ones stand in"
            )
    else:
        context.log.info(f"learned before: {folder.name}")
    with warehouse.get_connection() as connection:
        risks.replace_backtest(connection, folder)
    methods = {card["title"]: f"{card['method']}: {card['why']}" for card in risks.read_cards(folder)}
    return dg.MaterializeResult(
        metadata={"version": folder.name, "is_new": is_new, "methods": dg.MetadataValue.json(methods)}
    )


@dg.asset(
    group_name="predictions",
    kinds={"duckdb", "python"},
    owners=OWNERS,
    deps=deps_of(
        "risk_scores",
        Step(
            python={"core.risk_scores": tuple(risk_columns.SCORE_COLUMNS)},
            runs=_PAST,
            reads=["core.risk_methods", "core.account_application_states", "core.weeks", "subscriptions"],
            passing=_PASSING,
        ),
    ),
    pool=POOL,
    code_version=code_of("predictions", "defs/predictions"),
)
def risk_scores(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """The probability of every target as of the newest complete week, with reasons for those listed.

    What has ended, or whose end is announced, is not scored. One row: target x account x application (none: account).
    """
    from usage_pipeline.predictions import risks

    with warehouse.locked(), open_history(settings) as history:
        scores = risks.score_newest_week(history, risks.folder_in_force(history))
    with warehouse.get_connection() as connection:
        risks.write_scores(connection, scores)
        rows = count_rows(connection, "core.risk_scores")
        listed = connection.execute(
            "SELECT target, count(*) FILTER (WHERE is_listed) FROM core.risk_scores GROUP BY target"
        ).fetchall()
    context.log.info(f"{rows:,} scores; listed: {dict(listed)}")
    return dg.MaterializeResult(metadata={"dagster/row_count": rows, "listed": dg.MetadataValue.json(dict(listed))})


@dg.asset(
    group_name="predictions",
    kinds={"parquet", "python"},
    owners=OWNERS,
    deps=deps_of(
        "score_snapshots",
        Step(
            tables={"core.snapshot_outcomes": "predictions/risk_outcomes"},
            python={ISSUED.table: ISSUED.all_columns},
            reads=["core.risk_scores", "core.weeks"],
        ),
    ),
    pool=POOL,
    code_version=code_of("predictions", "defs/predictions"),
)
def score_snapshots(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """The scores of the newest complete week as they were said, kept for good once they are published; with all before.

    One file: a complete week; written once. `core.score_snapshots` is all of them, `core.snapshot_outcomes` what came.
    """
    from usage_pipeline.predictions import risks

    with history_locked(settings.home, settings.ingest.wait_seconds):
        promote(settings.home)
        with warehouse.get_connection() as connection:
            proposal = risks.propose_score_snapshot(connection, settings.home.history_dir, settings.clock.as_of)
            weeks = ISSUED.replace(connection, settings.home.history_dir)
            risks.replace_snapshot_outcomes(connection, settings)
    context.log.info(f"{weeks} weeks of scores are on record")
    return proposal_result(context, proposal, "scores")


PREDICTION_TABLES = [
    risk_models,
    risk_scores,
    score_snapshots,
    sql_table(
        "usage_risks",
        schema="mart",
        group="predictions",
        description="The risks to look at, with probability, reasons, value and renewal.",
    ),
    sql_table(
        "risk_methods",
        schema="mart",
        group="predictions",
        description="Which method is in force for each target, and why.",
    ),
    sql_table(
        "risk_backtest",
        schema="mart",
        group="predictions",
        description="How well models, rule and simple measures would have done in the past.",
    ),
    sql_table(
        "calibration_deciles",
        schema="mart",
        group="predictions",
        description="What was said against what happened, by deciles of the probability, in the back-tests.",
    ),
    sql_table(
        "predictions_vs_outcomes",
        schema="mart",
        group="predictions",
        description="Events that were expected and that came, week by week: as issued, and in the back-test.",
    ),
]
