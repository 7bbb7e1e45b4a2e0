"""Who reads of other people: lists of users and roles, which Superset serves to everybody who may look at anything.

`related/owners`, `related/roles` and their like belong to each kind of thing; here they are closed by what they list,
whichever thing asks. Who is no administrator finds himself among users, and no role. No list carries a mail address.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any


def close_user_lists() -> None:
    """Puts this between the decorator that asks for rights and Superset's own lists; before any of them is served."""
    import superset.charts.schemas
    import superset.datasets.schemas
    from flask_appbuilder.api import protect
    from superset.views.base_api import BaseSupersetModelRestApi

    served = BaseSupersetModelRestApi.related
    BaseSupersetModelRestApi.related = protect()(_of_oneself(served.__wrapped__))
    BaseSupersetModelRestApi.related._urls = served._urls
    BaseSupersetModelRestApi._init_properties = _without_addresses(BaseSupersetModelRestApi._init_properties)
    for schemas in (superset.charts.schemas, superset.datasets.schemas):
        # a schema holds its fields in its class
        schemas.UserSchema._declared_fields.pop("email")


def _of_oneself(related: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(related)
    def answered(api: Any, column_name: str, **kwargs: Any) -> Any:
        from flask_login import current_user

        from superset import security_manager

        is_listed = column_name in api.allowed_rel_fields and column_name in api.datamodel.list_properties
        if not is_listed or security_manager.is_admin():
            return related(api, column_name, **kwargs)
        listed = api.datamodel.get_related_model(column_name)
        people = (security_manager.user_model, security_manager.role_model, security_manager.group_model)
        if not issubclass(listed, people):
            return related(api, column_name, **kwargs)
        own = issubclass(listed, security_manager.user_model) and current_user.is_authenticated
        found = [{"value": current_user.id, "text": str(current_user), "extra": {}}] if own else []
        return api.response(200, count=len(found), result=found)

    return answered


def _without_addresses(init: Callable[[Any], None]) -> Callable[[Any], None]:
    """For the columns of every list and every thing, as each kind of thing names them when it is made."""

    @wraps(init)
    def made(api: Any) -> None:
        for name in ("list_columns", "list_select_columns", "show_columns", "show_select_columns"):
            if columns := getattr(api, name, None):
                setattr(api, name, [c for c in columns if not c.endswith((".email", ".username"))])
        init(api)

    return made
