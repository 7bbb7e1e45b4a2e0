"""Which rows of a table are open to a person whose role is limited to accounts of some CSMs, regions or segments.

The limit is a condition that Superset puts below everything it reads for that person: pages, filters, downloads, SQL of
an analyst, pages of our own. Superset's key of a kept result holds it, so that nobody gets what was made for another.

What is not known to be open is closed: a table without accounts says what all accounts do together, and is empty for
a limited person, unless it only tells how good data and methods are.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from usage_superset.roles import LIMITS, MARK, Limit, limits

# what tells nothing of any account: the build, how old the data is, how well methods did
OPEN_TO_ALL = {
    ("mart", "anomaly_rates"),
    ("mart", "build"),
    ("mart", "calibration_deciles"),
    ("mart", "health_backtest"),
    ("mart", "predictions_vs_outcomes"),
    ("mart", "risk_backtest"),
    ("mart", "risk_methods"),
    ("outcomes", "reason_usefulness"),
    ("status", "builds"),
    ("status", "health"),
    ("status", "sources"),
}
# entities of the KPI sheet that are told whole by one limit alone
_ENTITIES = {"owner": "CSM", "region": "region", "segment": "segment"}
_NOTHING = "FALSE"


class Rule(NamedTuple):
    """A rule of rows, as Superset reads it from its own table."""

    id: int
    group_key: str | None
    clause: str


def limits_of_roles(manager: Any, roles: Iterable[Any]) -> list[Limit | None]:
    """The limit of each role that has one; None for one whose limit this server does not know: it opens nothing."""
    known = limits()
    return [
        known.get(role.name)
        for role in sorted(roles, key=lambda role: str(role.name))
        if role.name in known or manager.exist_permission_on_roles(MARK[1], MARK[0], [role.id])
    ]


def rules_of(schema: str, table: str, columns: set[str], found: list[Limit | None]) -> list[Rule]:
    """What a table with these columns leaves to a person with these limits: each role opens its part of the rows."""
    if not found or (schema, table) in OPEN_TO_ALL:
        return []
    clauses = [_clause(columns, limit) for limit in found]
    return [Rule(0, None, " OR ".join(dict.fromkeys(f"({clause})" for clause in clauses)))]


def _clause(columns: set[str], limit: Limit | None) -> str:
    if limit is None:
        return _NOTHING
    if set(limit) <= columns:
        return _within(limit)
    if {"entity_type", "entity_key"} <= columns:
        return _of_entities(limit)
    return _NOTHING


def _within(limit: Limit) -> str:
    return " AND ".join(f"{column} IN ({_listed(limit[column])})" for column in LIMITS if column in limit)


def _of_entities(limit: Limit) -> str:
    """Accounts within the limit; CSMs, regions or segments where nothing but their name is limited."""
    accounts = f"SELECT account_id FROM mart.accounts_summary WHERE {_within(limit)}"
    own = f"entity_type = 'account' AND entity_key IN ({accounts})"
    if len(limit) > 1:
        return own
    ((column, values),) = limit.items()
    return f"({own}) OR (entity_type = '{_ENTITIES[column]}' AND entity IN ({_listed(values)}))"


def _listed(values: Iterable[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
