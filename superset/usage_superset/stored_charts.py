"""What pages ask for: the names of a dataset, and the expressions in SQL that its managed charts hold.

Belongs here: learning from stored charts, and judging a query by it. Does not: which charts those are, nor whom it is
asked of (`usage_security.py`). Both sides are written by others: whatever JSON they hold, a chart that cannot be read
teaches nothing and is nobody else's trouble, and a query that cannot be read is refused.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from usage_superset.sql_rules import conjuncts

# what a page does with rows once they are read; resampling to nanoseconds would fill any memory
_POST_PROCESSING = {
    *("aggregate", "compare", "contribution", "cum", "diff", "flatten", "pivot"),
    *("rank", "rename", "rolling", "select", "sort"),
}
_AGGREGATES = {"AVG", "COUNT", "COUNT_DISTINCT", "MAX", "MIN", "SUM"}


class StoredCharts:
    """What may be asked of one dataset, made of its names and of the parameters (JSON) of its managed charts."""

    def __init__(self, columns: Iterable[str], metrics: Iterable[str], params: Iterable[Any]) -> None:
        self.columns = set(columns)
        self.names = self.columns | set(metrics)
        self.expressions: set[str] = set()
        self.conditions: set[str] = set()
        for written in params:
            for expression in _expressions_in(written):
                self.expressions.add(expression)
                self.conditions |= conjuncts(expression)

    def refusal_of(self, query: Any) -> str | None:
        """Why a query is refused, or None. Raises nothing, whatever a query holds."""
        try:
            return self._refusal_of(query)
        except Exception:  # not of the form of a query at all
            return "this query cannot be read"

    def _refusal_of(self, query: Any) -> str | None:
        for item in items_of(query):
            if not self._knows(item):
                return f"the page has no {json.dumps(item)[:200]}"
        for clause in ("where", "having"):
            for condition in conjuncts(query.extras.get(clause) or ""):
                if condition not in self.conditions:
                    return f"the page has no condition {condition[:200]}"
        for step in query.post_processing:
            if step.get("operation") not in _POST_PROCESSING:
                return f"the page does not {step.get('operation')}"
        return "pages have no annotations" if query.annotation_layers else None

    def _knows(self, item: Any) -> bool:
        if isinstance(item, str):
            return item in self.names
        if not isinstance(item, dict):
            return False
        if item.get("sqlExpression"):  # the axis of a time series is a column in the clothes of SQL
            return item["sqlExpression"] in self.columns | self.expressions
        column = item.get("column")
        return (
            isinstance(column, dict)
            and column.get("column_name") in self.columns
            and item.get("aggregate") in _AGGREGATES
        )


def _expressions_in(written: Any) -> Iterator[str]:
    """All SQL in the parameters of a chart: only what is a text; nothing of what cannot be read."""
    try:
        left = [json.loads(written or "{}")]
    except (TypeError, ValueError, RecursionError):
        return
    while left:
        value = left.pop()
        if isinstance(value, dict):
            expression = value.get("sqlExpression")
            if isinstance(expression, str) and expression.strip():
                yield expression
            left += value.values()
        elif isinstance(value, list):
            left += value


def items_of(query: Any) -> list[Any]:
    """Columns, measures, and what is sorted and filtered by: names, or dictionaries with SQL in them."""
    return [
        *(query.columns or []),
        *(query.metrics or []),
        *(query.series_columns or []),
        *(item[0] for item in query.orderby or []),
        # a page filters all its charts, and Superset leaves out the columns that a chart's dataset does not have
        *(item["col"] for item in query.filter or [] if not isinstance(item.get("col"), str)),
        *([query.series_limit_metric] if query.series_limit_metric else []),
        *([query.granularity] if query.granularity else []),
    ]


def sql_in(query: Any) -> list[Any]:
    """All SQL that a query carries; what stands in its place and is no text, too."""
    made = [query.extras.get("where"), query.extras.get("having")]
    made += [item.get("sqlExpression") for item in items_of(query) if isinstance(item, dict)]
    return [text for text in made if text]
