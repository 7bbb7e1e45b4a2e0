"""Every asset names what it reads: a run of an asset with its upstream is right, whatever changed before it.

Found out by watching: each statement that a refresh runs is kept with the step that ran it, and parsed.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import sqlglot
from sqlglot import exp

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.sql import load_sql
from usage_pipeline.defs.lineage import STEPS, Step
from usage_pipeline.defs.lineage import recorded as recorded_of
from usage_pipeline.demo.lake import write_demo_lake
from usage_pipeline_tests.support.demo_home import DEMO_AS_OF
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh, upstream_of

pytestmark = pytest.mark.long

SCHEMAS = {"ref", "core", "mart", "personal"}
_OURS = re.compile(rf"\b({'|'.join(sorted(SCHEMAS))})\.")
# what other connections call the warehouse; a build is a file of that name itself
ATTACHED = {"warehouse", "source"}
# what a connection has beside `execute` that runs a statement: none of it is seen
UNSEEN = {"query", "from_query", "view", "begin", "append"}


@dataclass
class Seen:
    """Tables of the warehouse that a step read, and those that it made."""

    read: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)


@cache
def parsed(sql: str) -> list[exp.Expression]:
    """The statements of a text that names a table of ours."""
    return [tree for tree in sqlglot.parse(sql, dialect="duckdb") if tree] if _OURS.search(sql) else []


def note(sql: str, seen: Seen, *, is_warehouse: bool) -> None:
    """Takes in what a statement reads and makes. Of another connection, only what is attached counts."""
    for tree in parsed(sql):
        assert not isinstance(tree, exp.Command), f"not understood: {sql}"
        target = tree.this if isinstance(tree, exp.Create | exp.Insert | exp.Delete | exp.Drop) else None
        target = target.this if isinstance(target, exp.Schema) else target
        for table in tree.find_all(exp.Table):
            if table.db not in SCHEMAS or (table.catalog in ATTACHED) == is_warehouse:
                continue
            (seen.made if table is target else seen.read).add(f"{table.db}.{table.name}")


class Watched:
    """A connection that notes what its statements read and make, for the step that runs them."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, is_warehouse: bool, seen: Callable[[], Seen | None]
    ) -> None:
        self._connection, self._is_warehouse, self._seen = connection, is_warehouse, seen

    def _note(self, sql: str) -> None:
        seen = self._seen()
        if sql.startswith("USE "):
            self._is_warehouse = sql == "USE warehouse"
        elif seen is not None:
            note(sql, seen, is_warehouse=self._is_warehouse)

    def execute(self, sql: str, *values: Any) -> duckdb.DuckDBPyConnection:
        self._note(sql)
        return self._connection.execute(sql, *values)

    def sql(self, sql: str, *values: Any, **options: Any) -> duckdb.DuckDBPyRelation:
        self._note(sql)
        return self._connection.sql(sql, *values, **options)

    def table(self, name: str) -> duckdb.DuckDBPyRelation:
        self._note(f"FROM {name}")
        return self._connection.table(name)

    def executemany(self, sql: str, *values: Any) -> duckdb.DuckDBPyConnection:
        self._note(sql)
        return self._connection.executemany(sql, *values)

    def cursor(self) -> "Watched":
        return Watched(self._connection.cursor(), self._is_warehouse, self._seen)

    def __getattr__(self, name: str) -> Any:
        assert name not in UNSEEN, f"statements that `{name}` runs are not seen: use `execute`"
        return getattr(self._connection, name)

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def step_that_runs() -> tuple[str, bool] | None:
    """The asset of the step that runs, and whether it is one of its checks; None outside of any step."""
    try:
        return dg.AssetExecutionContext.get().asset_key.to_user_string(), False
    except dg.DagsterInvariantViolationError:
        pass
    try:
        (check,) = dg.AssetCheckExecutionContext.get().selected_asset_check_keys
    except dg.DagsterInvariantViolationError:
        return None
    return check.asset_key.to_user_string(), True


@dataclass
class Refresh:
    """A refresh of a demo lake: what each asset, and what its checks, read and made."""

    settings: Settings
    assets: dict[str, Seen]
    checks: dict[str, Seen]
    lineage: dict[str, dg.TableColumnLineage]

    def columns_of(self, table: str) -> list[str]:
        is_personal = table.startswith("personal.")
        file = self.settings.home.private_contacts_path if is_personal else self.settings.home.warehouse_path
        with duckdb.connect(str(file), read_only=True) as connection:
            wanted = table.split(".")[1] if is_personal else table
            return [column for column, *_ in connection.execute(f"DESCRIBE {wanted}").fetchall()]


@pytest.fixture(scope="module")
def refresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refresh]:
    folder = tmp_path_factory.mktemp("watched")
    write_demo_lake(folder, DEMO_AS_OF, accounts=12, seed=3)
    settings = load_settings(folder / "sources.yaml")
    found = Refresh(settings, defaultdict(Seen), defaultdict(Seen), {})
    connect = duckdb.connect

    def seen() -> Seen | None:
        step = step_that_runs()
        return (found.checks if step[1] else found.assets)[step[0]] if step else None

    def watched(database: Any = ":memory:", *args: Any, **options: Any) -> Any:
        return Watched(connect(database, *args, **options), str(database) == str(settings.home.warehouse_path), seen)

    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setattr(duckdb, "connect", watched)
        result = run_refresh(settings, instance)
    assert result.success, [event.message for event in result.filter_events(lambda event: event.is_failure)]
    for event_ in result.get_asset_materialization_events():
        lineage = event_.materialization.metadata.get("dagster/column_lineage")
        if lineage is not None:
            found.lineage[event_.asset_key.to_user_string()] = lineage.value  # type: ignore[union-attr]
    yield found


def test_an_asset_makes_the_tables_that_it_declares_and_no_other(refresh: Refresh) -> None:
    made = {asset: seen.made for asset, seen in refresh.assets.items() if seen.made}
    assert made == {asset: step.made for asset, step in STEPS.items() if step.made}


def test_an_asset_reads_only_tables_of_assets_that_it_depends_on(refresh: Refresh) -> None:
    makers = {table: asset for asset, step in STEPS.items() for table in step.made}
    assert "core.account_application_states" in refresh.assets["risk_scores"].read, "what is attached is seen as well"
    assert "core.account_applications" in refresh.assets["risk_models"].read, "and what is read after USE"
    wrong = sorted(
        f"{asset} reads {table}, which {makers.get(table, 'nobody')} makes"
        for asset, seen in refresh.assets.items()
        for table in seen.read
        if makers.get(table) not in {asset, *(recorded_of(asset)["reads"] if asset in STEPS else ())}
    )
    assert not wrong, "name the SQL file or the table in the asset's Step: " + "; ".join(wrong)


def test_checks_read_only_tables_that_are_made_upstream(tmp_path: Path, refresh: Refresh) -> None:
    makers = {table: asset for asset, step in STEPS.items() for table in step.made}
    small = load_settings(write_config(tmp_path))
    wrong = sorted(
        f"a check of {asset} reads {table}, which {makers.get(table, 'nobody')} makes"
        for asset, seen in refresh.checks.items()
        for table in seen.read
        if makers.get(table) not in upstream_of(small, asset)
    )
    assert not wrong, "; ".join(wrong)


def test_an_asset_depends_on_nothing_that_it_does_not_read(refresh: Refresh) -> None:
    """But on files of another, and on what it reads only where there is something to learn or to tell."""
    unused = {
        (asset, table)
        for asset, step in STEPS.items()
        for tables in recorded_of(asset)["reads"].values()
        for table in tables
        if table not in refresh.assets[asset].read
    }
    # subscriptions turned back to a week are those of deliveries, which the asset `subscriptions` takes in
    assert unused <= {
        (asset, table)
        for asset in ("risk_models", "risk_scores")
        for table in ("ref.subscriptions", "ref.subscriptions_rejected", "core.subscription_periods")
    }, unused


def test_columns_that_are_declared_or_derived_are_those_of_the_tables(refresh: Refresh) -> None:
    wrong = {}
    for asset, step in STEPS.items():
        known = {table: list(columns) for table, columns in step.python.items() if columns}
        for table in step.tables:
            if table.endswith(f".{asset}") and "columns" in recorded_of(asset):
                known[table] = list(recorded_of(asset)["columns"])
        wrong |= {
            table: (columns, refresh.columns_of(table))
            for table, columns in known.items()
            if columns != refresh.columns_of(table)
        }
    assert wrong == {}


def test_tables_made_by_sql_carry_the_lineage_of_their_columns(refresh: Refresh) -> None:
    assert set(refresh.lineage) == {asset for asset in STEPS if "columns" in recorded_of(asset)}
    clicks = refresh.lineage["subscription_weeks"].deps_by_column["clicks"]
    assert [(dep.asset_key.to_user_string(), dep.column_name) for dep in clicks] == [
        ("weekly_usage", "clicks"),
        ("weeks", "is_complete"),
    ]
    # of a table beside that of its asset
    key = refresh.lineage["user_weeks"].deps_by_column["user_key"]
    assert ("weekly_usage", "weekly_users.user_id") in [
        (dep.asset_key.to_user_string(), dep.column_name) for dep in key
    ]


def numbers_of(settings: Settings) -> dict[tuple[str, str], int]:
    with duckdb.connect(str(settings.home.warehouse_path), read_only=True) as connection:
        rows = connection.execute(
            "SELECT account_id, application, account_application_id FROM core.account_applications"
        ).fetchall()
    return {(account, application): number for account, application, number in rows}


def test_subscription_weeks_with_their_upstream_after_a_new_account_give_each_account_its_own_clicks(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """A new account once renumbered all others, and subscription weeks read the numbers of the run before."""
    for week, folder in (("2025-02-10", "07"), ("2025-02-17", "08"), ("2025-02-24", "09")):
        write_week(
            tmp_path / "lake", f"year=2025/week={folder}", [event(week, "m", clicks=3), event(week, "z", clicks=70)]
        )
    settings = load_settings(write_config(tmp_path, lookback_weeks=6))
    assert run_refresh(settings, instance).success
    before = numbers_of(settings)
    write_week(tmp_path / "lake", "year=2025/week=09", [event("2025-02-25", "a", clicks=500)], "new.parquet")
    only = upstream_of(settings, "subscription_weeks")
    assert run_refresh(settings, instance, only=only).success
    with duckdb.connect(str(settings.home.warehouse_path), read_only=True) as connection:
        found = connection.execute(
            "SELECT keys.account_id, weeks.clicks FROM core.subscription_weeks AS weeks "
            "INNER JOIN core.account_applications AS keys "
            "ON weeks.account_application_id = keys.account_application_id "
            "WHERE weeks.week_start = DATE '2025-02-24' ORDER BY 1"
        ).fetchall()
    assert found == [("a", 500), ("m", 3), ("z", 70)]
    after = numbers_of(settings)
    assert before == {("m", "permits"): 1, ("z", "permits"): 2}
    assert after == before | {("a", "permits"): 3}
    settings.home.warehouse_path.unlink()
    assert run_refresh(settings, instance, only=only).success
    assert numbers_of(settings) == after


def test_what_a_statement_reads_and_makes_is_told_apart() -> None:
    seen = Seen()
    note(
        "CREATE TABLE core.x AS WITH y AS (FROM ref.a) FROM y JOIN warehouse.core.b USING (c)", seen, is_warehouse=True
    )
    note("INSERT INTO core.x (c) SELECT c FROM mart.d WHERE c IN (SELECT c FROM core.x)", seen, is_warehouse=True)
    assert (seen.read, seen.made) == ({"ref.a", "mart.d", "core.x"}, {"core.x"})
    attached = Seen()
    note("SELECT * FROM warehouse.core.b, core.own", attached, is_warehouse=False)
    assert (attached.read, attached.made) == ({"core.b"}, set())


def test_every_query_of_a_step_is_there() -> None:
    for step in STEPS.values():
        assert isinstance(step, Step)
        for query in (*step.queries, *step.checks):
            folder, _, name = query.rpartition("/")
            assert load_sql(folder, name).startswith("-- ")
