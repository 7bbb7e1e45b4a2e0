"""What a prediction may look at: the features of an account, or of one of its applications, as of a week.

Belongs here: the names of the features, what they stand for, and what must never be among them. How each is computed
is `sql/risk_features.sql`, which sees nothing of later weeks (`point_in_time.py`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline.predictions.point_in_time import History


class LeakError(ValueError):
    """A feature looks at what announces the end."""


@dataclass(frozen=True)
class Theme:
    """Features that tell of one thing, and are one reason: name, features, and which way each may only raise a risk.

    A direction of 1 (-1) says that a higher value can only raise (lower) the risk; 0 leaves it to the data.
    """

    name: str
    features: dict[str, int]


THEMES = (
    Theme("level", {"level_recent": 0, "level_usual": 0, "unsteadiness": 0}),
    Theme(
        "change",
        {
            "change": -1,
            "change_of_2_weeks": -1,
            "change_of_13_weeks": -1,
            "change_against_peers": -1,
            "rank_of_change": -1,
        },
    ),
    Theme("silence", {"weeks_since_use": 1, "share_of_weeks_used": -1}),
    Theme(
        "users",
        {"level_of_users": 0, "change_of_users": -1, "share_of_users_gone": 1, "top_user_share": 0, "depth": 0},
    ),
    Theme("records", {"level_of_records": 0, "change_of_records": -1}),
    Theme("breadth", {"breadth_owned": 0, "breadth_used": -1}),
    Theme("account", {"account_change": -1}),
    Theme("season", {"peers_change": 0, "season_ahead": 0}),
    Theme("subscription", {"weeks_since_first_use": 0, "subscription_age_days": 0}),
    Theme("renewal", {"days_to_renewal": 0}),
)
FEATURES = {name: direction for theme in THEMES for name, direction in theme.features.items()}
KEYS = ("as_of_week", "account_id", "application", "has_subscription")
# for words and for the rule; no model sees them
NUMBERS = (
    "has_used",
    "clicks_recent",
    "clicks_before",
    "clicks_usual",
    "users_recent",
    "regular_users",
    "regular_users_gone",
    "applications_owned",
    "applications_used",
)
# what announces an end, or lets a later week in; no word of the SQL may hold any of it
_BANNED = re.compile(
    r"\b(warehouse|outcome|target|seats|annual_value|renewal_date|next_renewal|subscriptions|subscription_periods"
    r"|left_on|issued\w*|risk_outcomes|usage_states|account_application_states|account_subscriptions"
    r"|\w*(?:end_date|end_reason|ended|notice|cancel|churn|terminat|withdr|offboard|complet(?:ed|ion))\w*)\b",
    re.IGNORECASE,
)


def refuse_leaks(sql: str, columns: Iterable[str]) -> None:
    """Raises LeakError where the SQL of the features, or one of its columns, names what announces an end.

    The `core.subscribed` that it reads holds accounts x applications without an end or notice known in that week,
    and neither date.
    """
    text = re.sub(r"--[^\n]*", "", sql)
    found = sorted({match[0] for match in _BANNED.finditer(f"{text} {' '.join(columns)}")})
    if found:
        raise LeakError(
            f"risk_features.sql names {', '.join(found)}: what announces the end, or is known only later, is no "
            "feature. Remove it; what was known in that week stands in core.subscribed, core.weekly_usage and "
            "core.weekly_users"
        )
    expected = {*KEYS, *NUMBERS, *FEATURES}
    unknown, missing = sorted(set(columns) - expected), sorted(expected - set(columns))
    if unknown or missing:
        raise LeakError(
            f"risk_features.sql and risk_features.py differ (only in the SQL: {unknown}; only in Python: {missing}): "
            "name every feature in a theme, with its direction"
        )


def features_at(history: History, week: date) -> pa.Table:
    """The features of every account and subscribed application when `week` (a Monday) had ended.

    A row: account x application, and one an account with no application. Raises LeakError.
    """
    sql = load_sql("predictions", "risk_features")
    values = sql_values(history.settings) | {"as_of_week": week}
    found = run_sql(history.at(week), sql, values).to_arrow_table()
    refuse_leaks(sql, found.column_names)
    return found


def matrix(features: pd.DataFrame) -> NDArray[np.float32]:
    """(n, len(FEATURES)), NaN where something is not known."""
    found: NDArray[np.float32] = features[list(FEATURES)].to_numpy(dtype=np.float32, na_value=np.nan)
    return found
