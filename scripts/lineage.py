"""Writes usage_pipeline/defs/lineage.yaml from the SQL files: what each asset reads, and what its columns are made of.

`make lineage` writes it, `make check` runs it with --check and fails where what is committed is another.
An asset declares what it runs and makes in its head (`usage_pipeline/defs/lineage.py`); this finds out what that reads.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import sqlglot
import yaml
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node
from sqlglot.lineage import lineage as trace
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import build_scope

from usage_pipeline.config.settings import load_settings
from usage_pipeline.core.sql import PACKAGE, load_sql
from usage_pipeline.defs import lineage
from usage_pipeline.defs.lineage import FILE, REMEDY, Step

REPO = Path(__file__).parents[1]
CONFIG = REPO / "examples" / "company.yaml"
# SQL that no asset runs on the warehouse: over files of the lake, over what is published, in the status file
ELSEWHERE = {
    "crm/accounts",
    "crm/calls",
    "ingestion/usage_counted",
    "ingestion/usage_facts",
    "ingestion/usage_parts",
    "ingestion/usage_rows",
    "observability/status_health",
    "observability/status_sources",
    "observability/unmatched_users",
    "outcomes/call_figures",
    "outcomes/call_status",
}
# where names without a schema are looked for: what is registered, or made in passing
PASSING = "passing"
HEAD = "# Written by `make lineage` from the SQL files and the heads of the assets. Not to be edited.\n"


class DeclarationError(Exception):
    """What a declaration lacks; the message names the asset and the remedy."""


def declared() -> tuple[dict[str, Step], set[str]]:
    """What every asset declares, and the names of all assets; what is committed is not looked at."""
    lineage.recorded = lambda _: {"reads": {}}  # type: ignore[assignment]
    from usage_pipeline.definitions import build_definitions

    definitions = build_definitions(load_settings(CONFIG))
    names = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    return lineage.STEPS, names


# ---------------------------------------------------------------- tables


def sql_of(query: str) -> str:
    folder, _, name = query.rpartition("/")
    return load_sql(folder, name)


def tables_in(sql: str) -> set[str]:
    """The tables with a schema that a statement reads, its common table expressions looked through.

    What is on record of tables, in the schema `meta`, is none.
    """
    tables = sqlglot.parse_one(sql, dialect="duckdb").find_all(exp.Table)
    return {f"{table.db}.{table.name}" for table in tables if table.db and table.db != "meta"}


def makers_of(steps: dict[str, Step]) -> dict[str, str]:
    """The asset that makes each table. Raises DeclarationError where two do."""
    makers: dict[str, str] = {}
    for asset, step in steps.items():
        for table in sorted(step.made):
            if table in makers:
                raise DeclarationError(f"{asset} and {makers[table]} both make {table}: one asset makes a table")
            makers[table] = asset
    return makers


def reads_of(asset: str, step: Step, makers: dict[str, str], assets: set[str]) -> dict[str, list[str]]:
    """The assets that one reads, each with its tables that are read (none: its files are). Raises DeclarationError."""
    found: dict[str, set[str]] = {}
    for where, read in _named(step):
        if "." in read:
            maker = makers.get(read)
            if maker is None:
                raise DeclarationError(
                    f"{asset}: {where} reads {read}, which no asset makes: name it in the Step of its maker"
                )
            if maker != asset:
                found.setdefault(maker, set()).add(read)
        elif read in assets:
            found.setdefault(read, set())
        else:
            raise DeclarationError(
                f"{asset}: {where} names {read}, which is neither a table with its schema nor an asset"
            )
    return {name: sorted(tables) for name, tables in sorted(found.items())}


def _named(step: Step) -> Iterator[tuple[str, str]]:
    for query in step.queries:
        for table in sorted(tables_in(sql_of(query)) - set(step.passing)):
            yield f"{query}.sql", table
    for read in step.reads:
        yield "reads", read


def check_files(steps: dict[str, Step]) -> None:
    """Raises DeclarationError where a SQL file belongs to no asset, or one that is named does not exist."""
    named = {query for step in steps.values() for query in (*step.queries, *step.checks)} | ELSEWHERE
    there = {f"{file.parents[1].relative_to(PACKAGE)}/{file.stem}" for file in PACKAGE.rglob("sql/*.sql")}
    if there - named:
        raise DeclarationError(
            f"no asset runs {', '.join(sorted(there - named))}: name it in the Step of the asset that does"
        )
    if named - there:
        raise DeclarationError(f"there is no SQL file {', '.join(sorted(named - there))}")


def check_checks(steps: dict[str, Step], reads: dict[str, dict[str, list[str]]], makers: dict[str, str]) -> None:
    """Raises DeclarationError where a check reads a table that is not made by its asset or upstream of it."""
    for asset, step in steps.items():
        above = upstream(asset, reads)
        for query in step.checks:
            for table in sorted(tables_in(sql_of(query))):
                if makers.get(table) not in above:
                    raise DeclarationError(
                        f"{asset}: its check {query}.sql reads {table}, which is not made upstream of it"
                    )


def upstream(asset: str, reads: dict[str, dict[str, list[str]]]) -> set[str]:
    """An asset with all that it rests on."""
    found, open_ones = {asset}, [asset]
    while open_ones:
        for parent in reads.get(open_ones.pop(), {}):
            if parent not in found:
                found.add(parent)
                open_ones.append(parent)
    return found


# ---------------------------------------------------------------- columns


class Columns:
    """The columns of every table, in the order in which tables are made, and what each is made of."""

    def __init__(self, makers: dict[str, str]) -> None:
        self.makers = makers
        self.known: dict[str, list[str]] = {}

    def add(self, step: Step) -> dict[str, dict[str, Any]]:
        """Takes in the tables of a step; returns columns and what they are made of, or why not, of those from SQL."""
        self.known |= {table: list(columns) for table, columns in step.python.items()}
        found = {}
        for table, query in step.tables.items():
            try:
                traced = self._trace(sql_of(query), step)
            except SqlglotError as error:
                raise DeclarationError(
                    f"{self.makers[table]}: the columns of {table} cannot be read from {query}.sql "
                    f"({' '.join(str(error).split())[:160]}): write out its columns, or name them in `python`"
                ) from error
            self.known[table] = list(traced)
            found[table] = traced
        return found

    def _trace(self, sql: str, step: Step) -> dict[str, list[str]]:
        known: dict[str, dict[str, dict[str, str]]] = {}
        for table, columns in (self.known | {f"{PASSING}.{n}": c for n, c in step.passing.items()}).items():
            place, _, name = table.rpartition(".")
            if columns:
                known.setdefault(place, {})[name] = dict.fromkeys(columns, "VARCHAR")
        schema: dict[str, object] = dict(known)
        tree = qualify(sqlglot.parse_one(sql, dialect="duckdb"), dialect="duckdb", db=PASSING, schema=schema)
        nodes = trace(None, tree, schema, scope=build_scope(tree), dialect="duckdb")
        return {name: sorted(self._sources(node, step)) for name, node in nodes.items()}

    def _sources(self, node: Node, step: Step) -> set[str]:
        """Columns of other assets at the leaves: `asset.column`, or `asset.table.column` of a table beside its own."""
        found = set()
        for leaf in node.walk():
            table = leaf.source
            # a function that returns rows is a table without a schema
            if leaf.downstream or not isinstance(table, exp.Table) or table.db in ("", PASSING):
                continue
            full_name = f"{table.db}.{table.name}"
            if full_name in step.made:
                continue
            asset = self.makers[full_name]
            column = leaf.name.rpartition(".")[2].strip('"')
            found.add(f"{asset}.{column}" if table.name == asset else f"{asset}.{table.name}.{column}")
        return found


# ---------------------------------------------------------------- the file


def found_in(steps: dict[str, Step], assets: set[str]) -> dict[str, dict[str, Any]]:
    """What `lineage.yaml` should hold. Raises DeclarationError."""
    check_files(steps)
    makers = makers_of(steps)
    reads = {asset: reads_of(asset, step, makers, assets) for asset, step in steps.items()}
    check_checks(steps, reads, makers)
    try:
        order = [asset for asset in TopologicalSorter(reads).static_order() if asset in steps]
    except CycleError as error:
        raise DeclarationError(f"assets read each other in a circle: {' <- '.join(error.args[1])}") from error
    columns = Columns(makers)
    found = {}
    for asset in order:
        traced = columns.add(steps[asset])
        own = next((lines for table, lines in traced.items() if table.rpartition(".")[2] == asset), {})
        found[asset] = {"reads": reads[asset], **({"columns": own} if any(own.values()) else {})}
    return dict(sorted(found.items()))


def stale(committed: dict[str, Any], found: dict[str, Any]) -> Iterable[str]:
    """A line for each asset of which what is committed is not what was found."""
    for asset in sorted({*committed, *found}):
        before, now = committed.get(asset, {}), found.get(asset, {})
        if before != now:
            gone = [f"-{name}" for name in before.get("reads", {}) if name not in now.get("reads", {})]
            come = [f"+{name}" for name in now.get("reads", {}) if name not in before.get("reads", {})]
            yield f"{asset}: {' '.join(gone + come) or 'other columns or tables'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the file is stale")
    only_check = parser.parse_args().check
    try:
        found = found_in(*declared())
    except DeclarationError as error:
        print(f"lineage: {error}", file=sys.stderr)
        return 1
    committed = yaml.safe_load(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    lines = list(stale(committed or {}, found))
    if not only_check:
        FILE.write_text(
            HEAD + yaml.safe_dump(found, sort_keys=False, default_flow_style=None, width=118), encoding="utf-8"
        )
        return 0
    for line in lines:
        print(f"{FILE.name} is stale: {line}. {REMEDY[0].upper()}{REMEDY[1:]}", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
