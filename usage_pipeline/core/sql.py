"""Loading SQL files and running them with bound values.

Every statement of more than a few lines lives beside what runs it, as `sql/<name>.sql`; values are bound as `$name`.
`$text__call__notice` is the text `call.notice`: its values are filled in with `format`, in the order in which the
English text names them. `$words__week_status[week_status]` is what people read for that code of a column.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from usage_pipeline.core.texts import positional, section

PACKAGE = Path(__file__).parents[1]
_PARAMETER = re.compile(r"\$([a-z_]+)")
_TEXT, _WORDS = "text__", "words__"


@cache
def load_sql(folder: str, name: str) -> str:
    """The text of `<folder>/sql/<name>.sql` below the package, such as `kpis` or `defs/usage`."""
    return (PACKAGE / folder / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def run_sql(connection: duckdb.DuckDBPyConnection, sql: str, values: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    """Runs one statement, binding those of `values` that it names."""
    return connection.execute(sql, named_values(sql, values))


def named_values(sql: str, values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values` that a statement names, and the texts that it names."""
    named = set(_PARAMETER.findall(_without_comments(sql)))
    told = {name: positional(name.removeprefix(_TEXT).replace("__", ".")) for name in named if name.startswith(_TEXT)}
    words = {name: _words(name.removeprefix(_WORDS)) for name in named if name.startswith(_WORDS)}
    return {key: value for key, value in values.items() if key in named} | told | words


def _words(column: str) -> dict[str, list[str]]:
    """Words by code of a column, as DuckDB takes a map."""
    found = section(f"value.{column}")
    return {"key": list(found), "value": list(found.values())}


def as_dicts(found: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """The rows of a statement that was run, by the names of its columns."""
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def literal(text: object) -> str:
    """Text as SQL, for the places that take no bound value: views, settings, secrets, ATTACH."""
    return "'" + str(text).replace("'", "''") + "'"


def _without_comments(sql: str) -> str:
    return re.sub(r"--[^\n]*", "", sql)
