"""Assets that are one table made by one SQL file: what they all have in common is written here once.

A row of such a table is what the first line of its SQL file says. A second run leaves the table as it is where nothing
that it is made of changed (`keep_or_make`), and else replaces it.
"""

import hashlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from usage_pipeline.config.settings import Settings
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core import made_of
from usage_pipeline.core.made_of_slices import Slices, keep_or_make_slices
from usage_pipeline.core.sql import literal, load_sql, named_values, run_sql
from usage_pipeline.core.tables import TABLES, schema_violation
from usage_pipeline.defs.lineage import STEPS, Step, column_lineage, deps_of, recorded
from usage_pipeline.privacy.encryption import PERSONAL
from usage_pipeline.publishing.history import Proposal
from usage_pipeline.resources import Warehouse

_PACKAGE = Path(__file__).parents[1]
# what rows depend on beside our own code
_LIBRARIES = ("duckdb", "holidays", "numpy", "pandas", "pyarrow")
_CODE = (".py", ".sql", ".yaml")
OWNERS = ["team:data"]
_LEFT = "left as it is: nothing that it is made of changed"
# DuckDB has one writer: steps of all runs that write the warehouse take turns
POOL = "warehouse"


@cache
def library_versions() -> tuple[str, ...]:
    return tuple(map(importlib.metadata.version, _LIBRARIES))


def count_rows(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert found is not None
    return int(found[0])


def code_version(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def code_of(*packages: str) -> str:
    """The code version of an asset that Python makes: all files of the packages that it rests on, and of `core`."""
    files = (file for package in (*packages, "core") for file in (_PACKAGE / package).rglob("*"))
    return code_version(*(f.read_text(encoding="utf-8") for f in sorted(files) if f.suffix in _CODE))


def table_metadata(name: str) -> dict[str, Any]:
    """The columns of a published table, for the Dagster UI."""
    table = TABLES.get(name)
    if table is None:
        return {}
    columns = [dg.TableColumn(c.name, c.type, description=c.description) for c in table.columns]
    return {"dagster/column_schema": dg.TableSchema(columns=columns)}


@dataclass(frozen=True)
class Cut:
    """How a table of one SQL file is made slice by slice: the TIMESTAMP that cuts it, and what slices read.

    The query `sql/<reads>.sql` beside that of the table says it, of the tables in `inputs` (`Slices`).
    """

    by: str
    reads: str
    inputs: Mapping[str, str | None]


def sql_table(
    name: str,
    *,
    schema: str,
    group: str,
    description: str,
    folder: str | None = None,
    checks: Sequence[str] = (),
    cut: Cut | None = None,
) -> dg.AssetsDefinition:
    """An asset `name` that replaces `schema.name` with the rows of `sql/<name>.sql` in `folder` or `defs/<group>`.

    `checks`: SQL files that its checks run. `cut`: how it is made slice by slice.
    """
    place = folder or f"defs/{group}"
    sql = load_sql(place, name)
    runs = [f"{place}/{cut.reads}"] if cut else []
    step = Step(tables={f"{schema}.{name}": f"{place}/{name}"}, runs=runs, checks=checks)

    @dg.asset(
        key=name,
        group_name=group,
        kinds={"duckdb", "sql"},
        owners=OWNERS,
        deps=deps_of(name, step),
        pool=POOL,
        code_version=code_version(sql),
        metadata=table_metadata(name),
        description=f"{description}\n\nGrain: {sql.splitlines()[0].removeprefix('-- grain: ')}",
    )
    def table(
        context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[Any]:
        values = sql_values(settings)

        def make() -> None:
            run_sql(connection, f"CREATE OR REPLACE TABLE {schema}.{name} AS {sql}", values)

        def make_slices(due: list[str] | None) -> None:
            if due is None:
                make()
            elif due and cut:
                # constants, which the planner carries to where rows are read
                wanted = f"{cut.by} IN ({', '.join(f'CAST({literal(s)} AS TIMESTAMP)' for s in due)})"
                run_sql(connection, f"INSERT INTO {schema}.{name} FROM ({sql}) WHERE {wanted}", values)

        with warehouse.get_connection(with_contacts=schema == PERSONAL) as connection:
            if schema == PERSONAL:
                # a file of its own, so no transaction holds both the table and what is on record of it
                make()
            elif cut:
                slices = Slices(f"{schema}.{name}", cut.by, load_sql(place, cut.reads), cut.inputs)
                keep_or_make_slices_of(context, connection, settings, slices, make_slices)
            else:
                keep_or_make(context, connection, settings, make)
            rows = count_rows(connection, f"{schema}.{name}")
        context.log.info(f"{rows:,} rows")
        return dg.MaterializeResult(metadata={"dagster/row_count": rows, **column_lineage(name)})

    return table


def keep_or_make(
    context: dg.AssetExecutionContext,
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    make: Callable[[], object],
    values: Mapping[str, Any] | None = None,
) -> bool:
    """Runs `make` unless the asset's tables are there, made of the same; returns whether it ran.

    What they read is in `lineage.yaml`; where that is more than tables, they are made each time. `values`: what `make`
    takes beside the values that its SQL files name.
    """
    is_made = made_of.keep_or_make(connection, _recipe(context, settings, values), context.run_id, make)
    if not is_made:
        context.log.info(_LEFT)
    return is_made


def keep_or_make_slices_of(
    context: dg.AssetExecutionContext,
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    slices: Slices,
    make: Callable[[list[str] | None], object],
    values: Mapping[str, Any] | None = None,
) -> None:
    """The same, slice by slice: `make` gets those that something changed of, or None for the table as a whole."""
    made = keep_or_make_slices(connection, _recipe(context, settings, values), slices, context.run_id, make)
    if made is not None:
        context.log.info(f"slices made again: {', '.join(made)}" if made else _LEFT)


def _recipe(context: dg.AssetExecutionContext, settings: Settings, values: Mapping[str, Any] | None) -> made_of.Recipe:
    asset = context.asset_key.to_user_string()
    step = STEPS[asset]
    reads = list(recorded(asset)["reads"].values())
    sql = "\n".join(load_sql(*query.rsplit("/", 1)) for query in step.queries)
    return made_of.Recipe(
        tables=sorted(step.made),
        inputs=[table for tables in reads for table in tables] if all(reads) else None,
        code=code_version(
            str(context.assets_def.code_versions_by_key[context.asset_key]),
            *library_versions(),
        ),
        values={**named_values(sql, sql_values(settings)), **(values or {})},
    )


def proposal_result(context: dg.AssetExecutionContext, proposal: Proposal, what: str) -> dg.MaterializeResult[Any]:
    """What is there to say of an asset that proposes a week for history."""
    state = "are kept once they are published" if proposal.is_new else "were kept before"
    context.log.info(f"{what} of the week of {proposal.period} {state}")
    return dg.MaterializeResult(
        metadata={"week": str(proposal.period), "file": str(proposal.file), "is_new": proposal.is_new}
    )


def warning(passed: bool, metadata: dict[str, Any], description: str | None = None) -> dg.AssetCheckResult:
    """The result of a check that warns and holds nothing back."""
    return dg.AssetCheckResult(
        passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata=metadata, description=description
    )


def no_rows(warehouse: Warehouse, sql: str) -> dg.AssetCheckResult:
    """The result of a check that a query finds nothing; what it finds stands in the metadata."""
    with warehouse.read() as connection:
        rows = connection.execute(sql).fetchall()
    return dg.AssetCheckResult(passed=not rows, metadata={"rows": dg.MetadataValue.json([list(r) for r in rows])})


def schema_check(name: str) -> dg.AssetChecksDefinition:
    """A blocking check that a published table keeps the schema of `core/tables.py`."""

    @dg.asset_check(
        asset=name,
        name=f"{name}_schema",
        blocking=True,
        description=f"Columns and types are those of the catalogue, and {', '.join(TABLES[name].key)} is unique.",
    )
    def check(warehouse: Warehouse) -> dg.AssetCheckResult:
        table, schema = TABLES[name], code_version(repr(TABLES[name]))
        with warehouse.read(with_contacts=table.schema == PERSONAL) as connection:
            open_rows = None if table.schema == PERSONAL else made_of.not_passed(connection, table.full_name, schema)
            broken = schema_violation(connection, table, open_rows)
        if broken is None:
            if table.schema != PERSONAL:
                with warehouse.get_connection() as connection:
                    made_of.has_now_passed(connection, table.full_name, schema)
            return dg.AssetCheckResult(passed=True)
        metadata: dict[str, Any] = {"problem": broken.problem, "rows": dg.MetadataValue.json(broken.rows)}
        return dg.AssetCheckResult(passed=False, description=broken.problem, metadata=metadata)

    return check
