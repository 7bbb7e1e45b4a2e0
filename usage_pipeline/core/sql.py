"""Loading SQL files and running them with bound values.

Every statement of more than a few lines lives beside what runs it, as `sql/<name>.sql`; values are bound as `$name`.
`$text__call__notice` is the text `call.notice`: its values are filled in with `format`, in the order in which the
English text names them.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from usage_pipeline.core.texts import positional

PACKAGE = Path(__file__).parents[1]
_PARAMETER = re.compile(r"\$([a-z_]+)")
_TEXT = "text__"


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
    return {key: value for key, value in values.items() if key in named} | told


def as_dicts(found: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """The rows of a statement that was run, by the names of its columns."""
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def literal(text: object) -> str:
    """Text as SQL, for the places that take no bound value: views, settings, secrets, ATTACH."""
    return "'" + str(text).replace("'", "''") + "'"


def _without_comments(sql: str) -> str:
    return re.sub(r"--[^\n]*", "", sql)
