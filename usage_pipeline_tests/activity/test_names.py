"""Labels of accounts and applications: pages filter and link by them, so no two may be alike, whatever the names are."""

from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usage_pipeline.core.sql import load_sql, run_sql

# few and short, so that names meet each other, ids, and names with an id behind them
NAMES = st.none() | st.sampled_from(["a", "b", "a (1)", "a (2)", "b (x)", "a (1) (1)", "1", "x (1)"])
ROWS = st.dictionaries(st.sampled_from(["1", "2", "3", "x", "a", "a (1)"]), NAMES, min_size=1)


def labels(table: str, names: dict[str, str | None]) -> dict[str, str]:
    """The label by account id or application key, where the reference data give these names."""
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA ref; CREATE SCHEMA core")
        connection.execute(
            "CREATE TABLE ref.accounts (account_id VARCHAR, account_name VARCHAR, segment VARCHAR, region VARCHAR, "
            "country VARCHAR, state VARCHAR, owner VARCHAR);"
            "CREATE TABLE ref.applications (application VARCHAR, application_name VARCHAR, application_type VARCHAR);"
            "CREATE TABLE ref.subscriptions (account_id VARCHAR, application VARCHAR);"
            "CREATE TABLE core.weekly_usage (account_id VARCHAR, application VARCHAR)"
        )
        for key, name in names.items():
            connection.execute("INSERT INTO ref.accounts (account_id, account_name) VALUES (?, ?)", [key, name])
            connection.execute("INSERT INTO ref.applications VALUES (?, ?, NULL)", [key, name])
        values: dict[str, Any] = {"has_contacts": False} if table == "account_names" else {}
        found = run_sql(connection, load_sql("defs/usage", table), values).to_arrow_table().to_pylist()
    key, label = {"account_names": ("account_id", "account")}.get(table, ("application_key", "application"))
    return {row[key]: row[label] for row in found}


@pytest.mark.parametrize("table", ["account_names", "application_names"])
@settings(deadline=None)
@given(names=ROWS)
@pytest.mark.sample("account_names")
def test_no_two_labels_are_alike(table: str, names: dict[str, str | None]) -> None:
    found = labels(table, names)
    assert found.keys() == names.keys()
    assert len(set(found.values())) == len(found), found


@pytest.mark.parametrize("table", ["account_names", "application_names"])
def test_a_name_of_its_own_stands_alone_and_a_shared_one_with_its_id(table: str) -> None:
    found = labels(table, {"1": "Springfield", "2": "Springfield", "3": "Dover", "4": None})
    assert found == {"1": "Springfield (1)", "2": "Springfield (2)", "3": "Dover", "4": "4"}
