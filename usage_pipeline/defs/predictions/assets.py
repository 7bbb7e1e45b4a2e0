"""Predictions: so far one rule, and called a rule wherever it is shown."""

from usage_pipeline.defs.tables import sql_table
from usage_pipeline.defs.usage.assets import NAMES

PREDICTION_TABLES = [
    sql_table(
        "low_usage_risks",
        schema="mart",
        group="predictions",
        deps=["pairs", "usage_grid", "pair_states", "weeks", *NAMES],
        description="Active applications whose use fell well below that of the weeks before, by one rule.",
    ),
]
