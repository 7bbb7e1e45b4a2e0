"""Who may store a chart, and on what: asked where a chart is written to the metadata, whatever door it came through.

Pages learn from managed charts what their readers may ask for (`stored_charts.py`), so none is made or changed but by
an administrator, set-up's account among them. Nobody stores a chart on a dataset that they may not read, and nobody
changes the chart of somebody else: Superset itself takes a chart's `query_context` from anybody who may write charts.
"""

from typing import Any

from flask import has_request_context
from sqlalchemy.exc import SQLAlchemyError


class NotYoursError(SQLAlchemyError):
    """A chart may not be written by who wants to; an error of the database, so that each door of Superset answers."""


def guard_charts() -> None:
    """Puts the guard before every writing of a chart."""
    from sqlalchemy import event
    from superset.models.slice import Slice

    event.listen(Slice, "before_insert", _may_insert)
    event.listen(Slice, "before_update", _may_update)


def _may_insert(_mapper: Any, _connection: Any, chart: Any) -> None:
    _check(chart)


def _may_update(_mapper: Any, _connection: Any, chart: Any) -> None:
    from sqlalchemy.orm import object_session

    # a chart whose tags or dashboards change is marked too, and is not written
    if object_session(chart).is_modified(chart, include_collections=False):
        _check(chart, is_new=False)


def _check(chart: Any, *, is_new: bool = True) -> None:
    """Raises NotYoursError where the person of the request may not write this chart."""
    from sqlalchemy import inspect
    from superset.connectors.sqla.models import SqlaTable
    from superset.extensions import db

    from superset import security_manager

    if not has_request_context() or security_manager.is_admin():
        return
    managed = inspect(chart).attrs.is_managed_externally
    if any([chart.is_managed_externally, *(managed.history.deleted or ())]):
        raise NotYoursError("managed charts come with the project: store one of your own")
    with db.session.no_autoflush:
        is_table = chart.datasource_type == "table"
        dataset = db.session.get(SqlaTable, chart.datasource_id) if is_table and chart.datasource_id else None
        if dataset is None or not security_manager.can_access_datasource(dataset):
            raise NotYoursError("a chart is stored on a dataset that its author may read")
        if not (is_new or security_manager.is_owner(chart)):
            raise NotYoursError("a chart is changed by who owns it")
