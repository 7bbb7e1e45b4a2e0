"""What SQL puts together has an order of its own, so that two runs over the same rows say the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

import usage_pipeline

SQL = sorted(Path(usage_pipeline.__file__).parent.rglob("*.sql"))
JOINED = exp.GroupConcat | exp.ArrayAgg | exp.First | exp.Last


def without_order(sql: str) -> Iterator[str]:
    for tree in sqlglot.parse(sql, dialect="duckdb"):
        if tree is not None:
            yield from (found.sql() for found in tree.find_all(exp.Func) if _is_joined_in_any_order(found))


def _is_joined_in_any_order(found: exp.Func) -> bool:
    return isinstance(found, JOINED) and not isinstance(found.this, exp.Order)


def test_what_has_no_order_is_found() -> None:
    assert list(
        without_order("SELECT string_agg(DISTINCT a, ', ') FILTER (WHERE b), string_agg(a, '' ORDER BY a) FROM t")
    )
    assert not list(without_order("SELECT string_agg(DISTINCT a, ', ' ORDER BY a) FILTER (WHERE b) FROM t"))


@pytest.mark.parametrize("file", SQL, ids=lambda file: file.stem)
def test_texts_and_lists_are_joined_in_an_order(file: Path) -> None:
    assert list(without_order(file.read_text(encoding="utf-8"))) == []
