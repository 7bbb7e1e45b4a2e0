"""What tables of the warehouse were made of: a table is left as it is where nothing of that changed.

Belongs here: the record, `meta.made_of`, which is written in the transaction that makes the tables, so it never claims
more than is there. Does not: what an asset reads and takes (`defs/tables.py`).

A table is told by its content, not by when it was made: one that was made again with equal rows has nothing after it
made again. Only tables that are made through `keep_or_make` keep their content on record from run to run; any other is
looked at once a run, by the first that reads it. Whoever changes rows in another way calls `forget_all` in the same
transaction.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import duckdb

# `made_of` is empty where a table was only looked at, by the run `run_id`; `passed`: the schema that it has kept
_TABLES = """
CREATE SCHEMA IF NOT EXISTS meta;
CREATE TABLE IF NOT EXISTS meta.made_of (
    name VARCHAR, content VARCHAR, made_of VARCHAR, run_id VARCHAR, passed VARCHAR
);
CREATE TABLE IF NOT EXISTS meta.origin (origin VARCHAR);
"""
# sums of floating-point numbers differ in the last digits from run to run
_ROUNDED = ("DOUBLE", "FLOAT")


@dataclass(frozen=True)
class Recipe:
    """What tables are made of: `inputs` are tables (None: something else too, so they are made each time), `code` the
    version of what makes them, `values` the settings and parts of `as_of` that they take.
    """

    tables: Sequence[str]
    inputs: Sequence[str] | None
    code: str
    values: Mapping[str, Any]


def keep_or_make(
    connection: duckdb.DuckDBPyConnection, recipe: Recipe, run_id: str, make: Callable[[], object]
) -> bool:
    """Runs `make` unless the tables are there, made of the same; returns whether it ran.

    The caller's transaction holds the tables and the record of them.
    """
    connection.execute(_TABLES)
    made_of = _made_of(connection, recipe, run_id)
    if made_of is not None and all(_recorded(connection, table) == made_of for table in recipe.tables):
        return False
    make()
    for table in recipe.tables:
        _record(connection, table, made_of, run_id)
    return True


def content_of(connection: duckdb.DuckDBPyConnection, table: str, run_id: str) -> str:
    """The fingerprint of a table's columns and rows, in any order; from the record where it holds."""
    connection.execute(_TABLES)
    found = connection.execute(
        "SELECT content FROM meta.made_of WHERE name = $name AND (made_of IS NOT NULL OR run_id = $run_id)",
        {"name": table, "run_id": run_id},
    ).fetchone()
    return str(found[0]) if found else _record(connection, table, None, run_id)


def fingerprint(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """The same, of the rows as they are."""
    columns = connection.execute(f"DESCRIBE {table}").fetchall()
    stable = ", ".join(f'round("{name}", 6)' if kind in _ROUNDED else f'"{name}"' for name, kind, *_ in columns)
    found = connection.execute(f"SELECT count(*), sum(CAST(hash({stable}) AS HUGEINT)) FROM {table}").fetchone()
    return _digest([(name, kind) for name, kind, *_ in columns], found)


def origin_of(connection: duckdb.DuckDBPyConnection) -> str:
    """What tells this record from one that was begun anew: nothing of before is copied on."""
    connection.execute(_TABLES)
    found = connection.execute("SELECT origin FROM meta.origin").fetchone()
    if found is None:
        found = (uuid4().hex,)
        connection.execute("INSERT INTO meta.origin VALUES (?)", list(found))
    return str(found[0])


def forget_all(connection: duckdb.DuckDBPyConnection) -> None:
    """Has every table made again by the next run, and the next build written anew."""
    connection.execute("DROP SCHEMA IF EXISTS meta CASCADE")


def has_passed(connection: duckdb.DuckDBPyConnection, table: str, schema: str) -> bool:
    """Whether the rows that are there have passed the check of this schema before."""
    try:
        found = connection.execute(
            "SELECT passed FROM meta.made_of WHERE name = ? AND made_of IS NOT NULL", [table]
        ).fetchone()
    except duckdb.CatalogException:
        return False
    return found is not None and found[0] == schema


def has_now_passed(connection: duckdb.DuckDBPyConnection, table: str, schema: str) -> None:
    connection.execute(_TABLES)
    connection.execute("UPDATE meta.made_of SET passed = ? WHERE name = ? AND made_of IS NOT NULL", [schema, table])


def _made_of(connection: duckdb.DuckDBPyConnection, recipe: Recipe, run_id: str) -> str | None:
    if recipe.inputs is None:
        return None
    inputs = [(table, content_of(connection, table, run_id)) for table in sorted(recipe.inputs)]
    values = json.dumps(recipe.values, sort_keys=True, default=str)
    return _digest(recipe.code, values, inputs)


def _recorded(connection: duckdb.DuckDBPyConnection, table: str) -> str | None:
    """What a table that is there was made of."""
    schema, name = table.split(".")
    found = connection.execute(
        "SELECT made_of FROM meta.made_of WHERE name = $table AND EXISTS (FROM duckdb_tables() "
        "WHERE database_name = current_database() AND schema_name = $schema AND table_name = $name)",
        {"table": table, "schema": schema, "name": name},
    ).fetchone()
    return found[0] if found else None


def _record(connection: duckdb.DuckDBPyConnection, table: str, made_of: str | None, run_id: str) -> str:
    content = fingerprint(connection, table)
    connection.execute("DELETE FROM meta.made_of WHERE name = ?", [table])
    connection.execute("INSERT INTO meta.made_of VALUES (?, ?, ?, ?, NULL)", [table, content, made_of, run_id])
    return content


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
