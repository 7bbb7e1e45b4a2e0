"""Fingerprints of tables by their rows, in any order, as a whole and slice by slice.

Belongs here: `meta.slices`, which has on record what each slice of a table contains. Does not: what tables were made of
(`made_of.py`, `made_of_slices.py`).

A fingerprint is a sum over rows, so that of a table is the sum of those of its slices. What is on record of slices
counts only as long as it adds up to what is on record of the table.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import duckdb

SLICES = """
CREATE SCHEMA IF NOT EXISTS meta;
CREATE TABLE IF NOT EXISTS meta.slices (
    name VARCHAR, cut_by VARCHAR, slice VARCHAR, row_count BIGINT, row_hashes HUGEINT, made_of VARCHAR, passed VARCHAR
);
"""
# sums of floating-point numbers differ in the last digits from run to run
_ROUNDED = ("DOUBLE", "FLOAT")


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def fingerprint(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """The fingerprint of a table's columns and rows."""
    columns = _columns(connection, table)
    found = connection.execute(f"SELECT count(*), sum({_row_hash(columns)}) FROM {table}").fetchone()
    return digest(columns, found)


def look(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """The same; where slices of it are on record, those are looked at, and rows are read once for both."""
    cuts = connection.execute("SELECT DISTINCT cut_by FROM meta.slices WHERE name = ?", [table]).fetchall()
    for (by,) in cuts:
        look_at_slices(connection, table, by)
    added = sum_of_slices(connection, table, cuts[0][0]) if cuts else None
    return added or fingerprint(connection, table)


def look_at_slices(
    connection: duckdb.DuckDBPyConnection, table: str, by: str, only: Sequence[str] | None = None
) -> None:
    """Puts on record what the slices of a table contain, cut by a column: all of them, or `only` some.

    What they were made of is forgotten.
    """
    columns = _columns(connection, table)
    which: dict[str, Any] = {"name": table, "cut_by": by}
    recorded, wanted = "name = $name AND cut_by = $cut_by", "TRUE"
    if only is not None:
        which["slices"] = list(only)
        recorded += " AND slice IN (SELECT unnest(CAST($slices AS VARCHAR[])))"
        wanted = is_in_slices(connection, table, by)
    connection.execute(f"DELETE FROM meta.slices WHERE {recorded}", which)
    connection.execute(
        f"INSERT INTO meta.slices SELECT $name, $cut_by, CAST({by} AS VARCHAR), count(*), sum({_row_hash(columns)}), "
        f"NULL, NULL FROM {table} WHERE {wanted} GROUP BY {by}",
        which,
    )


def sum_of_slices(connection: duckdb.DuckDBPyConnection, table: str, by: str) -> str | None:
    """The fingerprint of a table as its slices on record add up to it; None where there is none."""
    found = connection.execute(
        "SELECT sum(row_count), sum(row_hashes) FROM meta.slices WHERE name = ? AND cut_by = ?", [table, by]
    ).fetchone()
    if found is None or not found[0]:
        return None
    return digest(_columns(connection, table), (int(found[0]), int(found[1])))


def is_in_slices(connection: duckdb.DuckDBPyConnection, table: str, by: str) -> str:
    """The condition that a row of a table lies in one of `$slices`, a list of text."""
    return f"{by} IN (SELECT CAST(unnest(CAST($slices AS VARCHAR[])) AS {dict(_columns(connection, table))[by]}))"


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
    return [(name, kind) for name, kind, *_ in connection.execute(f"DESCRIBE {table}").fetchall()]


def _row_hash(columns: list[tuple[str, str]]) -> str:
    stable = ", ".join(f'round("{name}", 6)' if kind in _ROUNDED else f'"{name}"' for name, kind in columns)
    return f"CAST(hash({stable}) AS HUGEINT)"
