"""Our SQL in Spark's words.

Belongs here: translating the statements that both engines run, which are written once in DuckDB's dialect, and what
SQLGlot does not know of the difference. Does not: running them (`spark_reader.py`). Sessions have the settings of
`SETTINGS`: without them the same words would mean something else on a cluster with settings of its own.
"""

import re
from typing import Any

# DuckDB's trim takes away every kind of space that Unicode knows (category Zs), Spark's only the plain one
SPACES = "".join(map(chr, (0x20, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)))
# types that both engines read alike; anything else is left to the embedded one
TYPES = {
    "VARCHAR": "STRING",
    "TINYINT": "TINYINT",
    "SMALLINT": "SMALLINT",
    "INTEGER": "INT",
    "BIGINT": "BIGINT",
    "FLOAT": "FLOAT",
    "DOUBLE": "DOUBLE",
    "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMP_NTZ",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
}
_WHOLE = frozenset(("TINYINT", "SMALLINT", "INTEGER", "BIGINT"))
# which of them a column of ours may be made of: text of a fraction and fractions of a text differ between engines
_TAKEN = {
    "VARCHAR": _WHOLE | {"VARCHAR"},
    "BIGINT": _WHOLE | {"FLOAT", "DOUBLE"},
    "TIMESTAMP": frozenset(("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")),
}
SETTINGS = {
    # a sum that is too large is an error, as is a cast that loses
    "spark.sql.ansi.enabled": "true",
    # names match in any case, as they do in DuckDB
    "spark.sql.caseSensitive": "false",
    # times that have a zone are moved into ours by SQL, not by a setting
    "spark.sql.session.timeZone": "UTC",
    "parquet.page.verify-checksum.enabled": "true",
}
READING = {
    # a cluster can be told to leave out what it cannot read: then facts would lack it without a word
    "ignoreCorruptFiles": "false",
    "ignoreMissingFiles": "false",
    # year and week are our matter; Spark would make columns of folders
    "recursiveFileLookup": "true",
    "datetimeRebaseMode": "CORRECTED",
}


def is_alike(wanted: str, kind: str) -> bool:
    """Whether both engines make the same of a column of DuckDB's type `kind`, where ours is `wanted`."""
    return kind in _TAKEN[wanted]


def spark_sql(sql: str) -> str:
    """One statement of ours for Spark; `$name` becomes `:name`."""
    import sqlglot
    from sqlglot import exp

    def known_better(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Trim) and node.expression is None:
            return exp.Trim(this=node.this, expression=exp.Literal.string(SPACES), position="BOTH")
        return node

    tree = sqlglot.parse_one(sql, read="duckdb").transform(known_better)
    return tree.sql(dialect="spark", comments=False, unsupported_level=sqlglot.ErrorLevel.RAISE)


def named(sql: str, values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values` that a translated statement names: Spark refuses others."""
    return {key: value for key, value in values.items() if re.search(rf":{key}\b", sql)}
