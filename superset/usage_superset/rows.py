"""Rows of a dataset as a chart would read them, for the person of the request: pages of our own ask here.

Superset's own way asks for every right, and for row rules: what somebody may not read, is not there for them.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import text

from usage_superset.chart_queries import answers_to
from usage_superset.html_cells import as_stored
from usage_superset.words import as_code

# what a page may ask for at once
_MOST_ROWS = 10_000
_RIGHT = text("SELECT schema_perm FROM tables WHERE table_name = :table AND schema = :schema")


def rows_of(
    table: str,
    columns: list[str],
    filters: dict[str, Any] | None = None,
    *,
    schema: str = "mart",
    limit: int = 1000,
    offset: int = 0,
    is_distinct: bool = False,
) -> list[dict[str, Any]]:
    """Rows of a dataset, texts as they are stored, days as ISO texts, None for what is not known.

    `filters` gives a value by column; `is_distinct` gives each row once, in order. Empty where the person may not read
    the dataset, or there is none.
    """
    from superset.connectors.sqla.models import SqlaTable
    from superset.exceptions import SupersetSecurityException
    from superset.extensions import db

    dataset = db.session.query(SqlaTable).filter_by(table_name=table, schema=schema).one_or_none()
    if dataset is None:
        return []
    query = {
        "columns": columns,
        "metrics": [] if is_distinct else None,
        "orderby": [[column, True] for column in columns] if is_distinct else [],
        "filters": [{"col": column, "op": "==", "val": value} for column, value in (filters or {}).items()],
        "row_limit": limit,
        "row_offset": offset,
    }
    asked = {
        "datasource": {"id": dataset.id, "type": "table"},
        "queries": [query],
        "result_format": "json",
        "result_type": "full",
    }
    try:
        (found,) = answers_to(asked)
    except SupersetSecurityException:
        return []
    return [{name: as_code(name, _plain(row[name])) for name in columns} for row in found["data"]]


def may_read(table: str, schema: str) -> bool:
    """Whether the person of the request may read a dataset; asked once in a request."""
    from flask import g
    from superset.extensions import db

    from superset import security_manager

    known = g.setdefault("usage_may_read", {})
    if (table, schema) not in known:
        right = db.session.execute(_RIGHT, {"table": table, "schema": schema}).scalar()
        known[table, schema] = bool(right) and bool(security_manager.can_access("schema_access", right))
    return bool(known[table, schema])


# which dataset has all names of a column
_NAMED_IN = {"account": "accounts_summary", "owner": "accounts_summary", "application": "subscription_overview"}


def is_name(column: str, name: str) -> bool:
    """Whether an account, application or CSM of that name is there for the person of the request."""
    return bool(rows_of(_NAMED_IN[column], [column], {column: name}, limit=1))


def names_of(column: str) -> list[str]:
    """All names of accounts, applications or CSMs that the person of the request may read, sorted."""
    names: list[str] = []
    while True:
        found = rows_of(_NAMED_IN[column], [column], limit=_MOST_ROWS, offset=len(names), is_distinct=True)
        names += [row[column] for row in found if row[column]]
        if len(found) < _MOST_ROWS:
            return names


def _plain(value: Any) -> Any:
    """A value as JSON holds it: days as text, what is not known as None, text as it is stored."""
    import pandas as pd

    if value is None or value is pd.NaT or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, str):
        return as_stored(value)
    if isinstance(value, datetime):
        return value.date().isoformat()
    return value.item() if hasattr(value, "item") else value
