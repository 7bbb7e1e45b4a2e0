"""Superset's functions that we replace and private interfaces that we lean on, in one list, checked at start.

An upgrade that moves one fails here, with its name, and on no page. Whoever replaces another one adds it here. Beside
each stand the parameters that we pass or take; () where only its being there counts.
"""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

INTERFACES: dict[str, tuple[str, ...]] = {
    # response_cache.py
    "superset.charts.data.api:ChartDataRestApi.data.__wrapped__": ("self",),
    "superset.charts.data.api:ChartDataRestApi.data._urls": (),
    "superset.extensions:cache_manager.data_cache": (),
    # build_cache.py
    "flask_caching.backends.filesystemcache:FileSystemCache._get_filename": ("key",),
    "flask_caching.backends.filesystemcache:FileSystemCache._prune": (),
    # chart_guard.py
    "superset.models.slice:Slice.is_managed_externally": (),
    "superset.models.slice:Slice.datasource_id": (),
    "superset.models.slice:Slice.datasource_type": (),
    "superset.models.slice:Slice.params": (),
    # event_log.py
    "superset.utils.log:DBEventLogger.log": ("user_id", "action"),
    # downloads.py
    "superset.common.query_context_processor:QueryContextProcessor.get_data": ("df", "coltypes"),
    "superset.common.query_context:QueryContext.slice_": (),
    # html_cells.py
    "superset.common.query_context_processor:QueryContextProcessor.get_df_payload": ("query_obj", "force_cached"),
    "superset.common.query_object_factory:QueryObjectFactory.create": ("kwargs",),
    "superset.common.chart_data:ChartDataResultFormat.table_like": (),
    "superset.dataframe:df_to_records": ("dframe",),
    "superset.sql_lab:df_to_records": ("dframe",),
    "superset.utils.csv:df_to_escaped_csv": ("df", "kwargs"),
    "superset.utils.excel:df_to_excel": ("df", "kwargs"),
    "superset.utils.excel:quote_formulas": ("df",),
    # page_links.py
    "superset.commands.dashboard.filter_state.get:GetFilterStateCommand": ("cmd_params",),
    "superset.commands.temporary_cache.parameters:CommandParameters": ("resource_id", "key"),
    "superset.commands.temporary_cache.exceptions:TemporaryCacheGetFailedError": (),
    # log_ins.py and request_limits.py
    "flask_appbuilder.security.sqla.models:User.password": (),
    "flask_appbuilder.security.forms:ResetPasswordForm": (),
    "flask_appbuilder.security.views:ResetMyPasswordView.form_post": ("form",),
    "flask_jwt_extended:decode_token": ("encoded_token",),
    # user_lists.py
    "superset.views.base_api:BaseSupersetModelRestApi.related.__wrapped__": ("self", "column_name"),
    "superset.views.base_api:BaseSupersetModelRestApi.related._urls": (),
    "superset.views.base_api:BaseSupersetModelRestApi._init_properties": (),
    "superset.views.base_api:BaseSupersetModelRestApi.allowed_rel_fields": (),
    "superset.charts.schemas:UserSchema._declared_fields": (),
    "superset.datasets.schemas:UserSchema._declared_fields": (),
    # sql_templates.py
    "superset.sql.parse:process_jinja_sql": ("sql", "database", "template_params"),
    "superset.security.manager:process_jinja_sql": ("sql", "database", "template_params"),
    "superset.models.sql_lab:process_jinja_sql": ("sql", "database", "template_params"),
    # usage_security.py
    "superset.security:SupersetSecurityManager.raise_for_access": ("query", "sql", "database", "viz", "query_context"),
    "superset.security:SupersetSecurityManager.is_item_public": ("permission_name", "view_name"),
    "superset.security:SupersetSecurityManager.exist_permission_on_roles": (
        *("view_name", "permission_name", "role_ids"),
    ),
    "superset.security:SupersetSecurityManager.get_rls_filters": ("table",),
    "superset.security:SupersetSecurityManager.get_rls_cache_key": ("datasource",),
    "superset.security:SupersetSecurityManager.get_user_roles": ("user",),
    "superset.security:SupersetSecurityManager.auth_user_db": ("username", "password"),
    "superset.security:SupersetSecurityManager.create_jwt_manager": ("app",),
    "superset.security:SupersetSecurityManager.resetmypasswordview": (),
    "superset.security:SupersetSecurityManager.can_access_all_datasources": (),
    "superset.security:SupersetSecurityManager.can_access_datasource": ("datasource",),
    "superset.security:SupersetSecurityManager.is_admin": (),
    "superset.security:SupersetSecurityManager.is_owner": ("resource",),
    "superset.security:SupersetSecurityManager.user_view_menu_names": ("permission_name",),
    "flask_appbuilder.security.sqla.models:assoc_permissionview_role": (),
    "superset.common.query_object:QueryObject": (
        *("columns", "metrics", "series_columns", "orderby", "filters", "series_limit_metric", "granularity"),
        *("extras", "post_processing", "annotation_layers"),
    ),
    # chart_queries.py, bootstrap.py and cache_warmup.py
    "superset.charts.schemas:ChartDataQueryContextSchema": (),
    "superset.commands.chart.data.get_data_command:ChartDataCommand": ("query_context",),
    "superset.commands.chart.data.get_data_command:ChartDataCommand.run": (),
    "superset.commands.importers.v1.assets:ImportAssetsCommand": ("contents",),
    "superset.utils.core:override_user": ("user",),
}


class InternalsError(Exception):
    """Superset is not as this version of ours knows it; the message names every difference."""


def check_internals() -> None:
    """Raises InternalsError where an interface of the list is not there, or does not take what we pass.

    To be asked before anything is replaced, and inside an application.
    """
    problems = [problem for name, parameters in INTERFACES.items() for problem in _problems_of(name, parameters)]
    if problems:
        version = importlib.import_module("importlib.metadata").version("apache-superset")
        remedy = "install the versions that superset/requirements.lock names, or adapt what leans on these"
        raise InternalsError("\n".join([*problems, f"Superset {version} is installed, which has changed: {remedy}"]))


def _problems_of(name: str, parameters: tuple[str, ...]) -> Iterator[str]:
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        yield f"{name} is missing: {error}"
        return
    if parameters:
        known = inspect.signature(found).parameters
        yield from (f"{name} takes no {parameter}" for parameter in parameters if parameter not in known)
