"""The data request of a chart, from its YAML: what a browser would ask Superset for.

Charts in `assets/` hold no query_context, since it repeats the parameters with ids of one installation. Whoever runs a
chart without a browser (set-up, tests, benchmarks) makes it here. Covers the kinds of charts that the tree uses.
"""

import json
from typing import Any


def queries(params: dict[str, Any]) -> list[dict[str, Any]]:
    """The queries of a chart: one, or two for a mixed time series. Raises KeyError for a kind it does not know."""
    kinds = {
        "table": [_table],
        "big_number_total": [_number],
        "echarts_timeseries_line": [_series],
        "echarts_timeseries_bar": [_series],
        "mixed_timeseries": [_series, _second_series],
        "heatmap_v2": [_grid],
    }
    return [make(params) for make in kinds[params["viz_type"]]]


def payload(params: dict[str, Any], datasource_id: int, **extra: Any) -> dict[str, Any]:
    """The body of POST /api/v1/chart/data. `extra` goes into each query, such as filters=[...] of a dashboard."""
    made = queries(params)
    for query in made:
        query["filters"] = query["filters"] + extra.get("filters", [])
    return {
        "datasource": {"id": datasource_id, "type": "table"},
        "force": True,
        "form_data": params,
        "queries": made,
        "result_format": extra.get("result_format", "json"),
        "result_type": "full",
    }


def _base(params: dict[str, Any], suffix: str = "") -> dict[str, Any]:
    filters, where = [], []
    for item in params.get(f"adhoc_filters{suffix}") or []:
        if item["expressionType"] == "SIMPLE":
            filters.append({"col": item["subject"], "op": item["operator"], "val": item.get("comparator")})
        else:
            where.append(f"({item['sqlExpression']})")
    return {
        "columns": [],
        "extras": {"having": "", "where": " AND ".join(where)},
        "filters": filters,
        "metrics": list(params.get(f"metrics{suffix}") or []),
        "orderby": [],
        "row_limit": params.get(f"row_limit{suffix}") or params.get("row_limit") or 10_000,
    }


def _table(params: dict[str, Any]) -> dict[str, Any]:
    query = _base(params)
    if params.get("query_mode") == "raw":
        query["columns"] = list(params["all_columns"])
        query["metrics"] = None
        query["orderby"] = [json.loads(item) for item in params.get("order_by_cols") or []]
        return query
    query["columns"] = list(params.get("groupby") or [])
    if by := params.get("timeseries_limit_metric"):
        query["orderby"] = [[by, not params.get("order_desc", True)]]
    return query


def _number(params: dict[str, Any]) -> dict[str, Any]:
    return _base(params) | {"metrics": [params["metric"]]}


def _series(params: dict[str, Any], suffix: str = "") -> dict[str, Any]:
    grain = params.get("time_grain_sqla")
    axis = params["x_axis"]
    column: Any = (
        {"columnType": "BASE_AXIS", "expressionType": "SQL", "label": axis, "sqlExpression": axis, "timeGrain": grain}
        if grain
        else axis
    )
    query = _base(params, suffix)
    query["columns"] = [column, *(params.get(f"groupby{suffix}") or [])]
    return query


def _second_series(params: dict[str, Any]) -> dict[str, Any]:
    return _series(params, "_b")


def _grid(params: dict[str, Any]) -> dict[str, Any]:
    return _base(params) | {"columns": [params["x_axis"], params["groupby"]], "metrics": [params["metric"]]}
