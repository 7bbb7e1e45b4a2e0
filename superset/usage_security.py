"""What somebody may ask Superset for, beyond the rights of `roles.yaml`: requests for data, SQL, log-ins.

Superset asks of a request for a chart's data only whether its dataset may be read: whoever may look at a page may send
columns, measures and conditions in SQL of his own. Here only those may who may explore; everybody else asks for what
the dataset names, and for the expressions that its stored charts hold. SQL is read before it runs: it names published
tables, and no function that reaches past them. Below all this stands DuckDB, locked down by `superset_config.py`,
which does not depend on how a text is read. Superset takes this in as CUSTOM_SECURITY_MANAGER.
"""

import json
from typing import Any

import sqlglot
from flask import g, has_request_context
from flask_appbuilder.exceptions import PasswordComplexityValidationError
from flask_appbuilder.security.sqla.models import assoc_permissionview_role
from log_ins import NewPasswordView, count_log_in, is_revoked
from request_limits import refusal_of_size
from sqlglot import exp
from superset.errors import ErrorLevel, SupersetError, SupersetErrorType
from superset.exceptions import SupersetSecurityException
from superset.security import SupersetSecurityManager

LEAST_PASSWORD = 12

# what a page does with rows once they are read; resampling to nanoseconds would fill any memory
_POST_PROCESSING = {
    *("aggregate", "compare", "contribution", "cum", "diff", "flatten", "pivot"),
    *("rank", "rename", "rolling", "select", "sort"),
}
_AGGREGATES = {"AVG", "COUNT", "COUNT_DISTINCT", "MAX", "MIN", "SUM"}
# DESCRIBE and SHOW may stand inside a SELECT too
_STATEMENTS = (exp.Command, exp.Describe, exp.Into, exp.Pragma, exp.Set, exp.Show, exp.Summarize)
# functions that reach files, settings, or SQL hidden in a text
CLOSED_FUNCTIONS = {
    *("current_setting", "getenv", "getvariable", "glob", "query", "query_table", "read_blob", "read_text"),
    *("duckdb_databases", "duckdb_logs", "duckdb_secrets", "duckdb_settings", "pragma_database_list", "which_secret"),
}
# and of more releases than this one: whatever begins like that
_CLOSED_PREFIXES = ("duckdb_", "pragma_", "read_", "sniff_", "parquet_", "pg_", "storage_info")


def is_long_enough(password: str) -> None:
    """Raises PasswordComplexityValidationError for a password that is too short."""
    if len(password) < LEAST_PASSWORD:
        raise PasswordComplexityValidationError(f"a password has at least {LEAST_PASSWORD} characters")


def _refuse(message: str) -> None:
    raise SupersetSecurityException(
        SupersetError(
            message=message, error_type=SupersetErrorType.DATASOURCE_SECURITY_ACCESS_ERROR, level=ErrorLevel.WARNING
        )
    )


class UsageSecurityManager(SupersetSecurityManager):
    """Superset's own, which refuses some more."""

    def raise_for_access(self, **asked: Any) -> None:
        """Raises SupersetSecurityException where the user may not have what he asks for."""
        super().raise_for_access(**asked)
        if self.can_access_all_datasources():
            return
        if (query := asked.get("query")) is not None:
            self._check_sql(query.database, query.sql)
        elif asked.get("sql") and asked.get("database"):
            self._check_sql(asked["database"], asked["sql"])
        if asked.get("viz") is not None and not self._may_explore():
            _refuse("charts of the old kind are not served")
        if (context := asked.get("query_context")) is not None:
            self._check_context(context)

    def raise_for_database(self, schema: str) -> None:
        """Raises SupersetSecurityException unless the user of this request may read the schema of a database."""
        if getattr(g, "user", None) is None:
            _refuse("nobody is logged in")
        if not (self.can_access_all_datasources() or self.can_access("schema_access", schema)):
            _refuse("this database is not open to you")

    def is_item_public(self, *_: str) -> bool:
        """Nothing is open to somebody who is not logged in, whatever the role Public was given."""
        return False

    def exist_permission_on_roles(self, view_name: str, permission_name: str, role_ids: list[int]) -> bool:
        """A request reads its user's rights once; Superset would ask its metadata for each of a dozen."""
        if not has_request_context():
            return bool(super().exist_permission_on_roles(view_name, permission_name, role_ids))
        known, roles = g.setdefault("usage_rights", {}), frozenset(role_ids)
        if roles not in known:
            known[roles] = self._rights_of(roles)
        return (permission_name, view_name) in known[roles]

    def _rights_of(self, roles: frozenset[int]) -> set[tuple[str, str]]:
        rights = (
            self.session.query(self.permission_model.name, self.viewmenu_model.name)
            .select_from(assoc_permissionview_role)
            .join(
                self.permissionview_model,
                self.permissionview_model.id == assoc_permissionview_role.c.permission_view_id,
            )
            .join(self.permission_model)
            .join(self.viewmenu_model)
            .filter(assoc_permissionview_role.c.role_id.in_(roles))
        )
        return {(permission, view) for permission, view in rights}

    def _may_explore(self) -> bool:
        return bool(self.can_access("can_read", "Explore"))

    # ------------------------------------------------------------ SQL

    def _check_sql(self, database: Any, sql: str) -> None:
        if not self.can_access("can_execute_sql_query", "SQLLab"):
            _refuse("SQL of your own needs the role of an analyst")
        # without a table in its text, Superset would let any SQL pass on any database
        if not any(
            name.startswith(f"[{database.database_name}].") for name in self.user_view_menu_names("schema_access")
        ):
            _refuse(f"the database {database.database_name} is not open to you")
        if reason := refusal_of(sql, published_tables(database)):
            _refuse(reason)

    # ------------------------------------------------------------ charts

    def _check_context(self, context: Any) -> None:
        if reason := refusal_of_size(context, may_explore=self._may_explore()):
            _refuse(reason)
        if self._may_explore():
            for query in context.queries:
                for text in _expressions(query):
                    if reason := refusal_of(f"SELECT {text}", set()):
                        _refuse(reason)
            return
        if context.datasource.type != "table":
            _refuse("only datasets are served")
        stored = _Stored(context.datasource)
        for query in context.queries:
            if reason := stored.refusal_of(query):
                _refuse(reason)

    # ------------------------------------------------------------ log-ins

    resetmypasswordview = NewPasswordView

    def create_jwt_manager(self, app: Any) -> Any:
        manager = super().create_jwt_manager(app)
        manager.token_in_blocklist_loader(is_revoked)
        return manager

    def auth_user_db(self, username: str, password: str) -> Any:
        """The user whose name and password these are, or None; either is counted."""
        user = super().auth_user_db(username, password)
        count_log_in(self, username or "", user is not None)
        return user


# ---------------------------------------------------------------- what SQL says


def published_tables(database: Any) -> set[str]:
    """The tables of a database that its datasets show, in small letters."""
    return {table.table_name.lower() for table in database.tables}


def refusal_of(sql: str, tables: set[str]) -> str | None:
    """Why SQL is refused, or None: it only reads, from the tables named, with functions that stay within them."""
    try:
        statements = [statement for statement in sqlglot.parse(sql, dialect="duckdb") if statement is not None]
    except sqlglot.errors.SqlglotError:
        return "this SQL cannot be read"
    if not statements:
        return "there is no SQL"
    for statement in statements:
        if not isinstance(statement, exp.Query):
            return "only SELECT is served"
        own = {cte.alias_or_name.lower() for cte in statement.find_all(exp.CTE)}
        for node in statement.walk():
            if reason := _refusal_of_node(node, tables | own):
                return reason
    return None


def _refusal_of_node(node: exp.Expression, tables: set[str]) -> str | None:
    if isinstance(node, _STATEMENTS):
        return "only SELECT is served"
    if isinstance(node, exp.Table):
        if isinstance(node.this, exp.Func):
            return f"the table function {_name_of(node.this)} is not served"
        name = node.name.lower()
        if name not in tables or node.catalog.lower() not in ("", "warehouse") or node.db.lower() not in ("", "mart"):
            return f"there is no published table {node.sql(dialect='duckdb')}"
    if isinstance(node, exp.Func):
        name = _name_of(node)
        if name in CLOSED_FUNCTIONS or name.startswith(_CLOSED_PREFIXES):
            return f"the function {name} is not served"
    return None


def _name_of(function: exp.Func) -> str:
    anonymous = isinstance(function, (exp.Anonymous, exp.AnonymousAggFunc))
    return str(function.name if anonymous else function.sql_name()).lower()


# ---------------------------------------------------------------- what a chart asks


def _expressions(query: Any) -> list[str]:
    """All SQL that a query of a chart carries."""
    made = [query.extras.get("where"), query.extras.get("having")]
    for item in _items_of(query):
        if isinstance(item, dict):
            made.append(item.get("sqlExpression"))
    return [text for text in made if text]


def _items_of(query: Any) -> list[Any]:
    """Columns, measures, and what is sorted and filtered by: names, or dictionaries with SQL in them."""
    return [
        *(query.columns or []),
        *(query.metrics or []),
        *(query.series_columns or []),
        *(item[0] for item in query.orderby or []),
        # a page filters all its charts, and Superset leaves out the columns that a chart's dataset does not have
        *(item["col"] for item in query.filter or [] if not isinstance(item.get("col"), str)),
        *([query.series_limit_metric] if query.series_limit_metric else []),
        *([query.granularity] if query.granularity else []),
    ]


class _Stored:
    """What a dataset names, and the expressions in SQL that its stored charts hold."""

    def __init__(self, dataset: Any) -> None:
        from superset.extensions import db
        from superset.models.slice import Slice

        self.columns = {column.column_name for column in dataset.columns}
        self.names = self.columns | {metric.metric_name for metric in dataset.metrics}
        self.expressions: set[str] = set()
        self.conditions: set[str] = set()
        of_dataset = db.session.query(Slice).filter_by(datasource_id=dataset.id, datasource_type="table")
        for chart in of_dataset:
            self._learn(json.loads(chart.params or "{}"))

    def _learn(self, value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                self._learn(item)
        elif isinstance(value, dict):
            if value.get("sqlExpression"):
                self.expressions.add(value["sqlExpression"])
                self.conditions |= _conjuncts(value["sqlExpression"])
            for item in value.values():
                self._learn(item)

    def refusal_of(self, query: Any) -> str | None:
        """Why a query is refused, or None."""
        for item in _items_of(query):
            if not self._knows(item):
                return f"the page has no {json.dumps(item)[:200]}"
        for clause in ("where", "having"):
            for condition in _conjuncts(query.extras.get(clause) or ""):
                if condition not in self.conditions:
                    return f"the page has no condition {condition[:200]}"
        for step in query.post_processing:
            if step.get("operation") not in _POST_PROCESSING:
                return f"the page does not {step.get('operation')}"
        return "pages have no annotations" if query.annotation_layers else None

    def _knows(self, item: Any) -> bool:
        if isinstance(item, str):
            return item in self.names
        if not isinstance(item, dict):
            return False
        if item.get("sqlExpression"):  # the axis of a time series is a column in the clothes of SQL
            return item["sqlExpression"] in self.columns | self.expressions
        column = item.get("column")
        return (
            isinstance(column, dict)
            and column.get("column_name") in self.columns
            and item.get("aggregate") in _AGGREGATES
        )


def _conjuncts(sql: str) -> set[str]:
    """The conditions that a clause joins by AND, each in its normal form; a text that cannot be read is itself."""
    if not sql.strip():
        return set()
    try:
        parsed = sqlglot.parse_one(sql, dialect="duckdb")
    except sqlglot.errors.SqlglotError:
        return {sql}
    parts = [part.unnest() for part in parsed.unnest().flatten()] if isinstance(parsed.unnest(), exp.And) else [parsed]
    found: set[str] = set()
    for part in parts:
        if isinstance(part.unnest(), exp.And):
            found |= _conjuncts(part.unnest().sql(dialect="duckdb"))
        else:
            found.add(part.unnest().sql(dialect="duckdb"))
    return found
