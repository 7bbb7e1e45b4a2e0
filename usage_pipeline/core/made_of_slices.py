"""Tables that are made slice by slice, by week or by period: only slices that read something else are made again.

Belongs here: which slices those are, and the record of them in `meta.slices`, written in the transaction that makes
them. Does not: how the rows of slices are made, which the asset knows.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from usage_pipeline.core.fingerprints import digest, is_in_slices, look_at_slices, sum_of_slices
from usage_pipeline.core.made_of import (
    Recipe,
    content_of,
    content_on_record,
    made_of_now,
    make_record,
    put_on_record,
    recorded,
)

# where more slices than this share of all are due, making the table as a whole costs less, and puts it in order
_AS_A_WHOLE = 0.5


@dataclass(frozen=True)
class Slices:
    """How a table is made slice by slice.

    `table` is cut by the values of its column `by`, which is part of its key. `reads` is SQL whose rows say what each
    slice that there should be reads: (slice, content) as text, any number of rows a slice. It speaks for the tables
    `inputs`, and no other: one that is itself looked at by slices has the column that cuts it, and `meta.slices` holds
    what they contain; the others have None. Of all other inputs of the recipe a slice reads everything. `prepare`
    makes what `reads` names beside tables.
    """

    table: str
    by: str
    reads: str
    inputs: Mapping[str, str | None]
    prepare: Callable[[], object] = lambda: None


def keep_or_make_slices(
    connection: duckdb.DuckDBPyConnection,
    recipe: Recipe,
    slices: Slices,
    run_id: str,
    make: Callable[[list[str] | None], object],
) -> list[str] | None:
    """Runs `make` for the slices that changed, and for none where the tables are there, made of the same.

    `make` gets the slices whose rows are to be put in, those that were there are gone; None: the table is to be
    replaced as a whole. Returns what it got. The caller's transaction holds the tables and the record of them.
    """
    make_record(connection)
    of_all = made_of_now(connection, recipe, run_id)
    if of_all is not None and all(recorded(connection, table) == of_all for table in recipe.tables):
        return []
    wanted = _made_of_now(connection, recipe, slices, run_id)
    known = _on_record(connection, recipe, slices)
    due = sorted(name for name, of in wanted.items() if known.get(name) != of)
    is_whole = not known or len(due) > _AS_A_WHOLE * len(wanted)
    if is_whole:
        make(None)
        look_at_slices(connection, slices.table, slices.by)
        found = connection.execute(
            "SELECT slice FROM meta.slices WHERE name = ? AND cut_by = ?", [slices.table, slices.by]
        ).fetchall()
        # of rows in a slice that nobody asked for it is not known what they were made of: all is made again next time
        _put_on_record(connection, slices, wanted if {name for (name,) in found} <= wanted.keys() else {})
    else:
        other = {"slices": [*due, *sorted(known.keys() - wanted.keys())]}
        where = is_in_slices(connection, slices.table, slices.by)
        connection.execute(f"DELETE FROM {slices.table} WHERE {where}", other)
        make(due)
        look_at_slices(connection, slices.table, slices.by, other["slices"])
        _put_on_record(connection, slices, {name: wanted[name] for name in due})
    for table in recipe.tables:
        content = sum_of_slices(connection, table, slices.by) if table == slices.table else None
        put_on_record(connection, table, of_all, run_id, content)
    return None if is_whole else due


def slices_made(connection: duckdb.DuckDBPyConnection, tables: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of tables that are made slice by slice: `by`, the column that cuts them, and `slices`, the content of each."""
    found: dict[str, dict[str, Any]] = {}
    for table in tables:
        rows = connection.execute(
            "SELECT cut_by, slice, row_count, row_hashes FROM meta.slices WHERE name = ? AND made_of IS NOT NULL "
            "ORDER BY slice",
            [table],
        ).fetchall()
        if rows:
            contents = {name: digest(count, hashes)[:16] for _, name, count, hashes in rows}
            found[table] = {"by": rows[0][0], "slices": contents}
    return found


def _made_of_now(connection: duckdb.DuckDBPyConnection, recipe: Recipe, slices: Slices, run_id: str) -> dict[str, str]:
    """Of every slice that there should be, what it would be made of now."""
    assert recipe.inputs is not None
    read_whole = sorted({*recipe.inputs} - slices.inputs.keys())
    common = digest(
        recipe.code,
        json.dumps(recipe.values, sort_keys=True, default=str),
        [(table, content_of(connection, table, run_id)) for table in read_whole],
        (slices.by, slices.reads),
    )
    for table, by in slices.inputs.items():
        if by is not None and sum_of_slices(connection, table, by) != content_of(connection, table, run_id):
            look_at_slices(connection, table, by)
    slices.prepare()
    reads: dict[str, list[str]] = defaultdict(list)
    for name, content in connection.execute(slices.reads).fetchall():
        reads[name].append(content)
    return {name: digest(common, sorted(contents)) for name, contents in reads.items()}


def _on_record(connection: duckdb.DuckDBPyConnection, recipe: Recipe, slices: Slices) -> dict[str, str]:
    """What the slices that are there were made of; nothing where that is not known of all."""
    if any(recorded(connection, table) is None for table in recipe.tables):
        return {}
    if sum_of_slices(connection, slices.table, slices.by) != content_on_record(connection, slices.table):
        return {}
    rows = connection.execute(
        "SELECT slice, made_of FROM meta.slices WHERE name = ? AND cut_by = ?", [slices.table, slices.by]
    ).fetchall()
    return dict(rows) if all(made_of is not None for _, made_of in rows) else {}


def _put_on_record(connection: duckdb.DuckDBPyConnection, slices: Slices, made_of: dict[str, str]) -> None:
    """Puts on record what slices were made of, those without a row as well."""
    which = {"name": slices.table, "cut_by": slices.by}
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE made_now AS SELECT unnest(CAST($slices AS VARCHAR[])) AS slice, "
        "unnest(CAST($made_of AS VARCHAR[])) AS made_of",
        {"slices": list(made_of), "made_of": list(made_of.values())},
    )
    connection.execute(
        "UPDATE meta.slices AS slices SET made_of = made_now.made_of FROM made_now "
        "WHERE slices.name = $name AND slices.cut_by = $cut_by AND slices.slice = made_now.slice",
        which,
    )
    connection.execute(
        "INSERT INTO meta.slices SELECT $name, $cut_by, slice, 0, 0, made_of, NULL FROM made_now "
        "WHERE slice NOT IN (SELECT slice FROM meta.slices WHERE name = $name AND cut_by = $cut_by)",
        which,
    )
    connection.execute("DROP TABLE made_now")
