"""Every asset names what it reads: a run of an asset with its upstream is right, whatever changed before it.

Found out by watching: each statement that a refresh runs is kept with the asset that ran it.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from usage_pipeline.config.settings import load_settings
from usage_pipeline.demo.lake import write_demo_lake
from usage_pipeline_tests.conftest import DEMO_AS_OF, event, run_refresh, upstream_of, write_config, write_week

_TABLE = re.compile(r"(?<![.\w])(warehouse\.)?((?:ref|core|mart|personal)\.\w+)")
_WRITTEN = re.compile(
    r"(?:CREATE (?:OR REPLACE )?TABLE(?: IF NOT EXISTS)?|INSERT INTO|DELETE FROM) ((?:ref|core|mart|personal)\.\w+)"
)


class Watched:
    """A connection that notes its statements."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, is_warehouse: bool, said: set[str]) -> None:
        self._connection, self._said = connection, said
        # a history is a connection of its own, to which the warehouse is attached; its own tables are nobody's
        self._prefix = "" if is_warehouse else "history "

    def execute(self, sql: str, *values: Any) -> duckdb.DuckDBPyConnection:
        self._said.add(self._prefix + re.sub(r"--[^\n]*", "", sql))
        return self._connection.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def asset_of_step() -> str | None:
    """The asset that is made or checked by the step that runs; None outside of any step."""
    try:
        return dg.AssetExecutionContext.get().asset_key.to_user_string()
    except dg.DagsterInvariantViolationError:
        pass
    try:
        (check,) = dg.AssetCheckExecutionContext.get().selected_asset_check_keys
    except dg.DagsterInvariantViolationError:
        return None
    return check.asset_key.to_user_string()


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, set[str]]]:
    """The statements of each asset, its checks' among them, in a refresh of a demo lake."""
    write_demo_lake(tmp_path, DEMO_AS_OF, accounts=12, seed=3)
    settings = load_settings(tmp_path / "sources.yaml")
    found: dict[str, set[str]] = defaultdict(set)
    connect = duckdb.connect

    def watched(database: Any = ":memory:", *args: Any, **options: Any) -> Any:
        connection = connect(database, *args, **options)
        asset = asset_of_step()
        if asset is None:
            return connection
        return Watched(connection, str(database) == str(settings.warehouse_path), found[asset])

    monkeypatch.setattr(duckdb, "connect", watched)
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance).success
    yield found


def test_every_table_that_an_asset_or_its_checks_read_is_made_upstream_of_it(
    tmp_path, said: dict[str, set[str]]
) -> None:
    made_by = {
        table: asset
        for asset, statements in said.items()
        for sql in statements
        if not sql.startswith("history ")
        for table in _WRITTEN.findall(sql)
    }
    assert made_by["core.subscription_weeks"] == "subscription_weeks"
    assert made_by["core.weekly_users"] == "weekly_usage"
    small = load_settings(write_config(tmp_path))
    upstream = {asset: upstream_of(small, asset) for asset in said}
    read = {
        (asset, table)
        for asset, statements in said.items()
        for sql in statements
        for attached, table in _TABLE.findall(sql)
        if bool(attached) == sql.startswith("history ")
    }
    assert ("risk_scores", "core.account_application_states") in read, (
        "what is read through the history is seen as well"
    )
    unnamed = sorted(
        f"{asset} reads {table}, which {made_by.get(table, 'nobody')} makes"
        for asset, table in read
        if made_by.get(table) not in upstream[asset]
    )
    assert not unnamed, "name them as dependencies: " + "; ".join(unnamed)


def test_the_grid_with_its_upstream_after_a_new_account_gives_each_account_its_own_clicks(tmp_path, instance) -> None:
    """A new account renumbers the accounts x applications; the subscription weeks once read the numbers of the run before."""
    for week, folder in (("2025-02-10", "07"), ("2025-02-17", "08"), ("2025-02-24", "09")):
        write_week(
            tmp_path / "lake", f"year=2025/week={folder}", [event(week, "m", clicks=3), event(week, "z", clicks=70)]
        )
    settings = load_settings(write_config(tmp_path, lookback_weeks=6))
    assert run_refresh(settings, instance).success
    write_week(tmp_path / "lake", "year=2025/week=09", [event("2025-02-25", "a", clicks=500)], "new.parquet")
    assert run_refresh(settings, instance, only=upstream_of(settings, "subscription_weeks")).success
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as connection:
        found = connection.execute(
            "SELECT account_applications.account_id, subscription_weeks.clicks FROM core.subscription_weeks AS subscription_weeks INNER JOIN core.account_applications AS account_applications "
            "ON subscription_weeks.account_application_id = account_applications.account_application_id WHERE subscription_weeks.week_start = DATE '2025-02-24' ORDER BY 1"
        ).fetchall()
    assert found == [("a", 500), ("m", 3), ("z", 70)]
