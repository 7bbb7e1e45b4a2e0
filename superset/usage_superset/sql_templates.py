"""Superset renders templates in SQL where it looks for tables, although they are switched off: it refuses them here."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from superset.errors import ErrorLevel, SupersetError, SupersetErrorType
from superset.exceptions import SupersetSecurityException

from usage_superset.sql_rules import template_in


def refuse_template(text: Any) -> None:
    """Raises SupersetSecurityException for a text in which a template begins."""
    if isinstance(text, str) and (reason := template_in(text)):
        raise SupersetSecurityException(
            SupersetError(
                message=reason, error_type=SupersetErrorType.QUERY_SECURITY_ACCESS_ERROR, level=ErrorLevel.WARNING
            )
        )


def render_no_templates() -> None:
    """Puts the refusal before each of Superset's readers that would render."""
    import superset.models.sql_lab
    import superset.security.manager
    import superset.sql.parse

    refusing = _refusing(superset.sql.parse.process_jinja_sql)
    for reader in (superset.sql.parse, superset.security.manager, superset.models.sql_lab):
        reader.process_jinja_sql = refusing


def _refusing(process: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(process)
    def processed(sql: str, *args: Any, **kwargs: Any) -> Any:
        refuse_template(sql)
        return process(sql, *args, **kwargs)

    return processed
