"""What SQL and queries of strangers are allowed, read without Superset: whatever they hold, reading raises nothing."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from usage_superset.sql_rules import conjuncts, refusal_of, template_in
from usage_superset.stored_charts import StoredCharts

from usage_pipeline_tests.support.hostile_sql import HIDDEN, TEMPLATED, nested

TABLES = {"build", "usage_by_week"}
KEYS = st.sampled_from(["sqlExpression", "col", "column", "column_name", "aggregate", "label", "operation"]) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


def query(**parts: Any) -> SimpleNamespace:
    empty: dict[str, Any] = dict.fromkeys(("columns", "metrics", "series_columns", "orderby", "filter"))
    more = {"series_limit_metric": None, "granularity": None, "extras": {}, "post_processing": []}
    return SimpleNamespace(**(empty | more | {"annotation_layers": []} | parts))


def in_sql(expression: Any) -> dict[str, Any]:
    return {"expressionType": "SQL", "sqlExpression": expression, "label": "a"}


@settings(max_examples=300, deadline=None)
@given(st.lists(JSON, max_size=3))
def test_whatever_json_charts_hold_the_others_still_teach_what_they_hold(written: list[Any]) -> None:
    """Before: a list, a number or deep nesting in one chart raised, for everybody who asked for that dataset."""
    good = json.dumps({"metrics": [in_sql("sum(clicks)")], "adhoc_filters": [{"sqlExpression": "(clicks > 0)"}]})
    stored = StoredCharts(["account"], ["clicks_sum"], [*map(json.dumps, written), good])
    assert stored.refusal_of(query(columns=["account"], metrics=[in_sql("sum(clicks)")])) is None
    assert stored.refusal_of(query(columns=["account"], extras={"where": "clicks > 0"})) is None
    assert all(isinstance(text, str) for text in stored.expressions | stored.conditions)


@pytest.mark.parametrize("written", ["", None, "null", "3", "{", "[[", nested(400, "list"), nested(400, "dict"), nested(200_000, "list"), 5, b"\xff"])  # fmt: skip
def test_a_chart_that_cannot_be_read_teaches_nothing_and_raises_nothing(written: Any) -> None:
    assert StoredCharts([], [], [written]).refusal_of(query()) is None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(vars(query()))), JSON)
def test_whatever_a_query_holds_it_is_judged_and_nothing_is_raised(part: str, value: Any) -> None:
    """Before: a list as sqlExpression was a 500."""
    stored = StoredCharts(["account"], ["clicks_sum"], [json.dumps({"metrics": [in_sql("sum(clicks)")]})])
    for asked in (query(**{part: value}), query(**{part: [value]}), query(columns=[in_sql(value)])):
        assert isinstance(stored.refusal_of(asked), str | None)
    if isinstance(value, list | dict) and value:
        assert stored.refusal_of(query(metrics=[in_sql(value)])) is not None


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet="(){}[]'\"-*/;,.= aSELCTFROMWHby0"))
def test_any_text_as_sql_is_judged_and_nothing_is_raised(text: str) -> None:
    assert isinstance(refusal_of(text, TABLES), str | None)
    assert all(isinstance(part, str) for part in conjuncts(text))


@pytest.mark.parametrize("depth", [400, 5000])
def test_sql_that_is_nested_too_deep_is_refused(depth: int) -> None:
    deep = "(" * depth + "1" + ")" * depth
    assert refusal_of(f"SELECT {deep}", TABLES) in (None, "this SQL cannot be read")
    assert conjuncts(deep) in ({deep}, {"1"})
    assert StoredCharts(["a"], [], [json.dumps(in_sql(deep))]).refusal_of(query(columns=[in_sql(deep)])) is None


@pytest.mark.parametrize("sql", TEMPLATED)
def test_a_text_in_which_a_template_begins_is_refused_before_it_is_read(sql: str) -> None:
    """Before: Superset rendered it for its own reader, and ours read what it was not."""
    assert refusal_of(sql, TABLES) == template_in(sql) == "templates are switched off: SQL holds no {{, {% or {#"


@pytest.mark.parametrize("table", ["duckdb_databases", "sqlite_master", "pragma_database_list", "pg_tables"])
@pytest.mark.parametrize("sql", HIDDEN)
def test_a_cte_opens_its_name_nowhere_but_where_it_is_in_scope(sql: str, table: str) -> None:
    """Before: a CTE's name opened that name in the whole statement, and the build's path was told."""
    reason = refusal_of(sql.format(t=table), TABLES)
    assert reason is not None and reason.startswith("there is no published table")


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT account_id FROM mart.usage_by_week) SELECT count(*) AS n FROM a",
        "WITH A AS (SELECT 1 AS x), b AS (SELECT * FROM a) SELECT * FROM B JOIN a ON a.x = b.x",
        "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a WHERE n < 5) SELECT max(n) FROM a",
        "WITH a AS (SELECT 1 AS x) SELECT * FROM (FROM a) b WHERE EXISTS (FROM a WHERE a.x = b.x) AND x IN (FROM a)",
        "WITH a AS (SELECT * FROM mart.build) SELECT * FROM a UNION ALL SELECT * FROM a",
        "WITH a AS (WITH b AS (SELECT 1 AS x) SELECT * FROM b) SELECT * FROM a",
        'WITH "My own" AS (SELECT 1) SELECT * FROM "my own"',
        "WITH a AS (SELECT 1 AS x) SELECT * FROM mart.build, LATERAL (SELECT * FROM a) AS b",
        "SELECT sum(clicks) FILTER (WHERE clicks > 1) FROM Usage_By_Week",
    ],
)
def test_ctes_are_served_where_they_are_in_scope(sql: str) -> None:
    assert refusal_of(sql, TABLES) is None
