"""What tables of the warehouse were made of: a table is left as it is where nothing of that changed.

Belongs here: the record, `meta.made_of`, which is written in the transaction that makes the tables, so it never claims
more than is there. Does not: what an asset reads and takes (`defs/tables.py`), nor tables that are made slice by slice
(`made_of_slices.py`).

A table is told by its content, not by when it was made: one that was made again with equal rows has nothing after it
made again. Only tables that are made through `keep_or_make` keep their content on record from run to run; any other is
looked at once a run, by the first that reads it. Whoever changes rows in another way calls `forget_all` in the same
transaction.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import duckdb

from usage_pipeline.core.fingerprints import SLICES, digest, look

# `made_of` is empty where a table was only looked at, by the run `run_id`; `passed`: the schema that it has kept
_TABLES = f"""
{SLICES}
CREATE TABLE IF NOT EXISTS meta.made_of (
    name VARCHAR, content VARCHAR, made_of VARCHAR, run_id VARCHAR, passed VARCHAR
);
CREATE TABLE IF NOT EXISTS meta.origin (origin VARCHAR);
"""


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
    make_record(connection)
    made_of = made_of_now(connection, recipe, run_id)
    if made_of is not None and all(recorded(connection, table) == made_of for table in recipe.tables):
        return False
    make()
    for table in recipe.tables:
        put_on_record(connection, table, made_of, run_id)
    return True


def make_record(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(_TABLES)


def content_of(connection: duckdb.DuckDBPyConnection, table: str, run_id: str) -> str:
    """The fingerprint of a table's columns and rows, in any order; from the record where it holds."""
    make_record(connection)
    found = connection.execute(
        "SELECT content FROM meta.made_of WHERE name = $name AND (made_of IS NOT NULL OR run_id = $run_id)",
        {"name": table, "run_id": run_id},
    ).fetchone()
    return str(found[0]) if found else put_on_record(connection, table, None, run_id)


def content_on_record(connection: duckdb.DuckDBPyConnection, table: str) -> str | None:
    """The fingerprint that is on record of a table, whether or not it is still that."""
    found = connection.execute("SELECT content FROM meta.made_of WHERE name = ?", [table]).fetchone()
    return found[0] if found else None


def origin_of(connection: duckdb.DuckDBPyConnection) -> str:
    """What tells this record from one that was begun anew: nothing of before is copied on."""
    make_record(connection)
    found = connection.execute("SELECT origin FROM meta.origin").fetchone()
    if found is None:
        found = (uuid4().hex,)
        connection.execute("INSERT INTO meta.origin VALUES (?)", list(found))
    return str(found[0])


def forget_all(connection: duckdb.DuckDBPyConnection) -> None:
    """Has every table made again by the next run, and the next build written anew."""
    connection.execute("DROP SCHEMA IF EXISTS meta CASCADE")


def not_passed(connection: duckdb.DuckDBPyConnection, table: str, schema: str) -> tuple[str, list[str]] | None:
    """What of the rows that are there has not passed the check of this schema before.

    A column and those of its values whose rows have not; None where that is all of them.
    """
    passed = "passed IS NOT DISTINCT FROM $schema"
    which = {"table": table, "schema": schema}
    try:
        slices = connection.execute(
            f"SELECT cut_by, slice, {passed} FROM meta.slices WHERE name = $table AND made_of IS NOT NULL", which
        ).fetchall()
        found = connection.execute(
            f"SELECT {passed} FROM meta.made_of WHERE name = $table AND made_of IS NOT NULL", which
        ).fetchone()
    except duckdb.CatalogException:
        return None
    if found == (True,):
        return "", []
    if not any(is_passed for *_, is_passed in slices):
        return None
    return slices[0][0], [name for _, name, is_passed in slices if not is_passed]


def has_now_passed(connection: duckdb.DuckDBPyConnection, table: str, schema: str) -> None:
    make_record(connection)
    for record in ("made_of", "slices"):
        connection.execute(
            f"UPDATE meta.{record} SET passed = ? WHERE name = ? AND made_of IS NOT NULL", [schema, table]
        )


def made_of_now(connection: duckdb.DuckDBPyConnection, recipe: Recipe, run_id: str) -> str | None:
    """What the tables would be made of now; None where that cannot be told."""
    if recipe.inputs is None:
        return None
    inputs = [(table, content_of(connection, table, run_id)) for table in sorted(recipe.inputs)]
    values = json.dumps(recipe.values, sort_keys=True, default=str)
    return digest(recipe.code, values, inputs)


def recorded(connection: duckdb.DuckDBPyConnection, table: str) -> str | None:
    """What a table that is there was made of."""
    schema, name = table.split(".")
    found = connection.execute(
        "SELECT made_of FROM meta.made_of WHERE name = $table AND EXISTS (FROM duckdb_tables() "
        "WHERE database_name = current_database() AND schema_name = $schema AND table_name = $name)",
        {"table": table, "schema": schema, "name": name},
    ).fetchone()
    return found[0] if found else None


def put_on_record(
    connection: duckdb.DuckDBPyConnection, table: str, made_of: str | None, run_id: str, content: str | None = None
) -> str:
    """Puts a table on record as it is now; `content`: its fingerprint, where that is known. Returns that."""
    content = content or look(connection, table)
    connection.execute("DELETE FROM meta.made_of WHERE name = ?", [table])
    connection.execute("INSERT INTO meta.made_of VALUES (?, ?, ?, ?, NULL)", [table, content, made_of, run_id])
    return content
