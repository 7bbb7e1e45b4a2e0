"""Whole answers to a page's requests for data, kept beside the results that they were made from.

For a result that is kept, Superset still reads the request through its schemas, looks up dataset and chart, and writes
all rows as JSON: five times the work of giving the bytes. They are given to readers, who may only ask for what stored
charts hold (usage_security.py). At each request it is asked anew who it is and whether he may ask
for data (Superset's own decorator stands before this), whether he may not explore, whether he may read the schema of
the dataset: that is all that Superset itself would find out. The key holds the request to the byte, the build,
the language, the pages that names may be links to, which rows are open to the person, and when a chart or a dataset was
last changed. What was read from another database than the warehouse is never kept (build_cache.py).
"""

import gzip
import hashlib
import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Response, request
from sqlalchemy import text
from superset.extensions import cache_manager, db

from superset import security_manager
from usage_superset.html_cells import open_pages
from usage_superset.texts import language

# what an answer depends on beside request and build: datasets and charts as they are now
_WATCHED = ("tables", "table_columns", "sql_metrics", "slices")
_STATE = text(
    "SELECT (SELECT schema_perm FROM tables WHERE id = :dataset) AS schema_perm, "
    + ", ".join(f"(SELECT max(changed_on) FROM {t}), (SELECT count(*) FROM {t})" for t in _WATCHED)
)
_GZIP_LEVEL = 4


def keep_answers() -> None:
    """Puts this between the decorator that asks for rights and Superset's own answer."""
    from flask_appbuilder.api import protect
    from superset.charts.data.api import ChartDataRestApi

    served = ChartDataRestApi.data
    ChartDataRestApi.data = protect()(_keeping(served.__wrapped__))
    ChartDataRestApi.data._urls = served._urls


def _keeping(answer: Callable[[Any], Response]) -> Callable[[Any], Response]:
    @wraps(answer)
    def data(api: Any) -> Response:
        key = _key()
        if key is None:
            return answer(api)
        kept = cache_manager.data_cache.get(key)
        if kept is not None:
            return _response(kept)
        fresh = answer(api)
        if _may_be_kept(fresh):
            cache_manager.data_cache.set(key, gzip.compress(fresh.get_data(), _GZIP_LEVEL))
        return fresh

    return data


def _key() -> str | None:
    """None for those whose answers are made anew: who may explore, or see everything, or not this dataset."""
    asked = request.get_json(silent=True)
    if not isinstance(asked, dict) or asked.get("force") or (asked.get("result_format") or "json") != "json":
        return None
    source = asked.get("datasource")
    if not isinstance(source, dict) or source.get("type") != "table" or not isinstance(source.get("id"), int):
        return None
    state = db.session.execute(_STATE, {"dataset": source["id"]}).one()
    if not state.schema_perm or not security_manager.can_access("schema_access", state.schema_perm):
        return None
    if security_manager.can_access("can_read", "Explore") or security_manager.can_access_all_datasources():
        return None
    # names are links to the pages that are open to the person
    links = ",".join(sorted(open_pages())).encode()
    told = b"\n".join(
        [
            repr(tuple(state)).encode(),
            language().encode(),
            links,
            _rows_of(source["id"]),
            request.query_string,
            request.get_data(),
        ]
    )
    return "answer " + hashlib.sha256(told).hexdigest()


def _rows_of(dataset: int) -> bytes:
    """Which rows of a dataset are open to the person: the conditions that Superset puts below its queries."""
    from superset.connectors.sqla.models import SqlaTable

    return repr(security_manager.get_rls_cache_key(db.session.get(SqlaTable, dataset))).encode()


def _may_be_kept(fresh: Response) -> bool:
    """Only what came from kept results, as the next would: it says of itself that it did."""
    if fresh.status_code != 200 or fresh.mimetype != "application/json" or fresh.is_streamed:
        return False
    results = json.loads(fresh.get_data()).get("result") or []
    return bool(results) and all(result.get("is_cached") for result in results)


def _response(kept: bytes) -> Response:
    packed = bool(request.accept_encodings["gzip"])
    response = Response(kept if packed else gzip.decompress(kept), mimetype="application/json")
    response.headers["X-Usage-Kept"] = "answer"
    response.headers["Vary"] = "Accept-Encoding"
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    return response
