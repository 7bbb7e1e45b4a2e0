"""Spikes and drop-offs: one robust rule on complete weeks of full contract, with a relative and an absolute floor."""

from usage_pipeline.defs.tables import sql_table
from usage_pipeline.defs.usage.assets import NAMES

SPIKE_TABLES = [
    sql_table(
        "usage_flags",
        schema="core",
        group="spikes",
        deps=["pairs", "usage_grid"],
        description="Weeks far from the usual level, of a pair or of an application over all its accounts.",
    ),
    sql_table(
        "flagged_weeks",
        schema="mart",
        group="spikes",
        deps=["usage_flags", "weeks", *NAMES],
        description="The flags of the last weeks, in words.",
    ),
]
