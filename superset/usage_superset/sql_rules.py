"""What SQL of a person may say: it only reads, from published tables, with functions that stay within them.

Belongs here: reading a text. Does not: who is asked for SQL at all (`usage_security.py`), nor what DuckDB does with
what passes (`superset_config.py`). A text has one meaning: templates, which Superset would render for one of its two
readers and not for the other, are refused before anything else; and a name is what it is at its own place: a CTE hides
a table only where it is in scope. What cannot be read is refused, whatever the reading raises.
"""

import re

import sqlglot
from sqlglot import exp
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.scope import Scope, traverse_scope

_TEMPLATE = re.compile(r"\{[{%#]")
# DESCRIBE and SHOW may stand inside a SELECT too
_STATEMENTS = (exp.Command, exp.Describe, exp.Into, exp.Pragma, exp.Set, exp.Show, exp.Summarize)
# functions that reach files, settings, or SQL hidden in a text
CLOSED_FUNCTIONS = {
    *("current_setting", "getenv", "getvariable", "glob", "query", "query_table", "read_blob", "read_text"),
    *("duckdb_databases", "duckdb_logs", "duckdb_secrets", "duckdb_settings", "pragma_database_list", "which_secret"),
}
# and of more releases than this one: whatever begins like that
_CLOSED_PREFIXES = ("duckdb_", "pragma_", "read_", "sniff_", "parquet_", "pg_", "storage_info")


def template_in(text: str) -> str | None:
    """Why a text is refused that holds the beginning of a template, in a string or a comment too; or None."""
    return "templates are switched off: SQL holds no {{, {% or {#" if _TEMPLATE.search(text) else None


def refusal_of(sql: str, tables: set[str], *, is_exact: bool = False) -> str | None:
    """Why SQL is refused, or None: it only reads, from the tables named (in small letters).

    `is_exact`: tables are named as `mart.name`, by which Superset finds the rules of their rows.
    """
    if reason := template_in(sql):
        return reason
    try:
        statements = [statement for statement in sqlglot.parse(sql, dialect="duckdb") if statement is not None]
        reasons = (_refusal_of_statement(statement, tables, is_exact) for statement in statements)
        return next((reason for reason in reasons if reason), None) if statements else "there is no SQL"
    except Exception:  # nested too deep, or a fault of the reader: what was not read is not run
        return "this SQL cannot be read"


def _refusal_of_statement(statement: exp.Expression, tables: set[str], is_exact: bool) -> str | None:
    if not isinstance(statement, exp.Query):
        return "only SELECT is served"
    if is_exact and (reason := _refusal_of_names(statement, tables)):
        return reason
    statement = normalize_identifiers(statement, dialect="duckdb")
    own = _references_to_ctes(statement)
    for node in statement.walk():
        if reason := _refusal_of_node(node, tables, own):
            return reason
    return None


def _refusal_of_names(statement: exp.Expression, tables: set[str]) -> str | None:
    """Why names are refused where rows are limited: a table by another spelling, or a name that means two things."""
    ctes = {cte.alias for cte in statement.find_all(exp.CTE)}
    if taken := sorted(name for name in ctes if name.lower() in tables):
        return f"{taken[0]} is the name of a table: give the part of your query another name"
    for table in statement.find_all(exp.Table):
        is_cte = table.name in ctes and not table.db
        if not is_cte and (table.catalog or table.db != "mart" or table.name not in tables):
            return f"write {table.name} as mart.{table.name.lower()}: your role is limited to some accounts"
    return None


def _references_to_ctes(statement: exp.Expression) -> set[int]:
    """The id() of each table in a statement that is a CTE at its place."""
    found = set()
    for scope in traverse_scope(statement):
        for node in scope.tables:
            source = scope.cte_sources.get(node.name)
            if isinstance(source, Scope) and not node.db and not node.catalog and not _names_what_it_defines(node):
                found.add(id(node))
    return found


def _names_what_it_defines(table: exp.Table) -> bool:
    """Whether a table stands in the definition of a CTE of its name, outside the arm that repeats a recursion.

    There DuckDB takes it for what the name meant before.
    """
    node, arms = table.parent, [id(table)]
    while node is not None:
        if isinstance(node, exp.CTE) and node.alias == table.name:
            union, is_recursive = node.this, bool(node.parent and node.parent.args.get("recursive"))
            # by place: the two arms may be the same text
            repeats = isinstance(union, exp.SetOperation) and id(union.expression) in arms
            return not (is_recursive and repeats)
        arms.append(id(node))
        node = node.parent
    return False


def _refusal_of_node(node: exp.Expression, tables: set[str], own: set[int]) -> str | None:
    if isinstance(node, _STATEMENTS):
        return "only SELECT is served"
    if isinstance(node, exp.Table):
        if isinstance(node.this, exp.Func):
            return f"the table function {_name_of(node.this)} is not served"
        if id(node) not in own and not _is_published(node, tables):
            return f"there is no published table {node.sql(dialect='duckdb')}"
    if isinstance(node, exp.Func):
        name = _name_of(node)
        if name in CLOSED_FUNCTIONS or name.startswith(_CLOSED_PREFIXES):
            return f"the function {name} is not served"
    return None


def _is_published(table: exp.Table, tables: set[str]) -> bool:
    place = (table.catalog.lower(), table.db.lower())
    return table.name.lower() in tables and place[0] in ("", "warehouse") and place[1] in ("", "mart")


def _name_of(function: exp.Func) -> str:
    anonymous = isinstance(function, (exp.Anonymous, exp.AnonymousAggFunc))
    return str(function.name if anonymous else function.sql_name()).lower()


def conjuncts(sql: str) -> set[str]:
    """The conditions that a clause joins by AND, each in its normal form; a text that cannot be read is itself."""
    if not sql.strip():
        return set()
    try:
        return _conjuncts(sqlglot.parse_one(sql, dialect="duckdb"))
    except Exception:  # nested too deep, or a fault of the reader
        return {sql}


def _conjuncts(condition: exp.Expression) -> set[str]:
    found, left = set(), [condition]
    while left:
        part = left.pop().unnest()
        if isinstance(part, exp.And):
            left += [part.left, part.right]
        else:
            found.add(part.sql(dialect="duckdb"))
    return found
