"""What a program may read: its scopes, and the accounts that it is limited to.

Belongs here: the one condition that every read of accounts goes through. Does not: who has which rights (`tokens.py`).

A limit leaves of a table the rows whose columns are within it. What is not known to be open is closed: a table without
accounts says what all accounts do together, and is empty for a limited program, unless it only tells how good data and
methods are. The same rules hold for people with limited roles (decision 0040).
"""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from usage_pipeline.core.tables import Table

Scope = Literal["read", "contacts"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
# by what a program may be limited, each a column of the published tables: what it is called by those who ask
LIMITS = {"owner": "csm", "region": "region", "segment": "segment"}
# what tells nothing of any account: the build, how well methods did
OPEN_TO_ALL = {
    ("mart", "anomaly_rates"),
    ("mart", "build"),
    ("mart", "calibration_deciles"),
    ("mart", "health_backtest"),
    ("mart", "predictions_vs_outcomes"),
    ("mart", "risk_backtest"),
    ("mart", "risk_methods"),
    ("outcomes", "reason_usefulness"),
}
# columns of rows about one account that tell what all accounts do together
_OF_ALL_ACCOUNTS = {"usage_by_week": frozenset({"application_anomaly", "platform_anomaly", "common_spread"})}
# entities of the KPI sheet that are told whole by one limit alone
_ENTITIES = {"owner": "CSM", "region": "region", "segment": "segment"}
_NOTHING = "FALSE"


@dataclass(frozen=True)
class Access:
    """A program, the scopes that it has, and the values of columns that it is limited to; no limits: all accounts."""

    program: str
    scopes: tuple[str, ...] = ("read",)
    limits: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def has(self, scope: Scope) -> bool:
        return scope in self.scopes


def rows_open_to(access: Access, table: Table) -> tuple[str, dict[str, Any]]:
    """The condition (SQL) under which a row of a table is open to a program, and the values that it binds."""
    if not access.limits or (table.schema, table.name) in OPEN_TO_ALL:
        return "TRUE", {}
    values = {f"limit_{column}": list(found) for column, found in access.limits.items()}
    within = " AND ".join(f"{column} IN (SELECT unnest($limit_{column}))" for column in access.limits)
    columns = set(table.column_names)
    if set(access.limits) <= columns:
        return within, values
    if {"entity_type", "entity_key"} <= columns:
        return _of_entities(access, within), values
    return _NOTHING, {}


def columns_closed_to(access: Access, table: Table) -> frozenset[str]:
    """Columns of a table that are null for a limited program: what all accounts do together."""
    return _OF_ALL_ACCOUNTS.get(table.name, frozenset()) if access.limits else frozenset()


def _of_entities(access: Access, within: str) -> str:
    """Accounts within the limit; CSMs, regions or segments where nothing but their name is limited."""
    accounts = f"SELECT account_id FROM mart.accounts_summary WHERE {within}"
    own = f"entity_type = 'account' AND entity_key IN ({accounts})"
    if len(access.limits) > 1:
        return own
    (column,) = access.limits
    named = f"entity_type = '{_ENTITIES[column]}' AND entity IN (SELECT unnest($limit_{column}))"
    return f"({own}) OR ({named})"
