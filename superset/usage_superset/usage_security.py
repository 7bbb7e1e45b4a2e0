"""What somebody may ask Superset for, beyond the rights of `roles.yaml`: requests for data, SQL, log-ins.

Superset asks of a request for a chart's data only whether its dataset may be read: whoever may look at a page may send
columns, measures and conditions in SQL of his own. Here only those may who may explore; everybody else asks for what
the dataset names, and for the expressions that its stored charts hold. SQL is read before it runs: it names published
tables, and no function that reaches past them. Below all this stands DuckDB, locked down by `superset_config.py`,
which does not depend on how a text is read. Superset takes this in as CUSTOM_SECURITY_MANAGER.
"""

from typing import Any

from flask import g, has_request_context
from flask_appbuilder.exceptions import PasswordComplexityValidationError
from flask_appbuilder.security.sqla.models import assoc_permissionview_role
from superset.errors import ErrorLevel, SupersetError, SupersetErrorType
from superset.exceptions import SupersetSecurityException
from superset.security import SupersetSecurityManager

from usage_superset.log_ins import NewPasswordView, count_log_in, is_revoked
from usage_superset.request_limits import refusal_of_size
from usage_superset.roles import Limit
from usage_superset.row_limits import limits_of_roles, rules_of
from usage_superset.sql_rules import refusal_of
from usage_superset.sql_templates import refuse_template
from usage_superset.stored_charts import StoredCharts, sql_in

LEAST_PASSWORD = 12


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


def _refuse_templates(asked: dict[str, Any]) -> None:
    """Before anything of Superset's own reads the SQL."""
    queries = getattr(asked.get("query_context"), "queries", [])
    for text in (getattr(asked.get("query"), "sql", None), asked.get("sql"), *(t for q in queries for t in sql_in(q))):
        refuse_template(text)


class UsageSecurityManager(SupersetSecurityManager):
    """Superset's own, which refuses some more."""

    def raise_for_access(self, **asked: Any) -> None:
        """Raises SupersetSecurityException where the user may not have what he asks for."""
        _refuse_templates(asked)
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

    def limits(self) -> list[Limit | None]:
        """The limits of the person's roles; empty where every account is open to him. None opens nothing."""
        user = getattr(g, "user", None)
        return limits_of_roles(self, self.get_user_roles(user)) if user is not None else []

    def get_rls_filters(self, table: Any) -> list[Any]:
        """Superset's rules of rows, and what the person's roles are limited to (`row_limits.py`)."""
        rules, limits = super().get_rls_filters(table), self.limits()
        if not limits:
            # whoever sees all accounts waits for no look at the columns
            return list(rules)
        columns = {column.column_name for column in table.columns}
        return [*rules, *rules_of(table.schema, table.table_name, columns, limits)]

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
        if reason := refusal_of(sql, published_tables(database), is_exact=bool(self.limits())):
            _refuse(reason)

    # ------------------------------------------------------------ charts

    def _check_context(self, context: Any) -> None:
        if self._may_explore():
            if reason := refusal_of_size(context, None):
                _refuse(reason)
            for query in context.queries:
                for text in sql_in(query):
                    if not isinstance(text, str):
                        _refuse("an expression in SQL is a text")
                    if reason := refusal_of(f"SELECT {text}", set()):
                        _refuse(reason)
            return
        if context.datasource.type != "table":
            _refuse("only datasets are served")
        params = _params_of_charts(context.datasource)
        if reason := refusal_of_size(context, params):
            _refuse(reason)
        stored = _stored_charts(context.datasource, params)
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


# ---------------------------------------------------------------- what there is


def published_tables(database: Any) -> set[str]:
    """The tables of a database that its datasets show, in small letters."""
    return {table.table_name.lower() for table in database.tables}


def _params_of_charts(dataset: Any) -> list[Any]:
    """The parameters (JSON) of a dataset's managed charts; nobody but set-up can make one (`chart_guard.py`)."""
    from superset.extensions import db
    from superset.models.slice import Slice

    rows = db.session.query(Slice.params).filter_by(
        datasource_id=dataset.id, datasource_type="table", is_managed_externally=True
    )
    return [row.params for row in rows]


def _stored_charts(dataset: Any, params: list[Any]) -> StoredCharts:
    """What may be asked of a dataset whose managed charts have these parameters."""
    return StoredCharts(
        (column.column_name for column in dataset.columns), (metric.metric_name for metric in dataset.metrics), params
    )
