"""The data request of a chart, from its YAML: what a browser would ask Superset for.

Charts in `assets/` hold no query_context, since it repeats the parameters with ids of one installation: set-up writes
it beside them. Whoever runs a chart without a browser makes it here. Covers the kinds of charts that the tree uses.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any


def queries(params: dict[str, Any]) -> list[dict[str, Any]]:
    """The queries of a chart: one, or two for a mixed time series. Raises KeyError for a kind it does not know."""
    kinds: dict[str, list[Callable[[dict[str, Any]], dict[str, Any]]]] = {
        "table": [_table],
        "big_number": [_trend],
        "big_number_total": [_number],
        "bubble_v2": [_bubbles],
        "echarts_timeseries_line": [_series],
        "echarts_timeseries_bar": [_series],
        "mixed_timeseries": [_first_series, _second_series],
        "heatmap_v2": [_grid],
    }
    return [make(params) for make in kinds[params["viz_type"]]]


def payload(params: dict[str, Any], datasource_id: int, **extra: Any) -> dict[str, Any]:
    """The body of POST /api/v1/chart/data, for rows as the database gives them, asked for anew.

    `extra`: filters=[...] of a dashboard, result_format, force=False for an answer that may be kept already, and
    as_rows=False for what the page itself asks for, which is turned for the plot.
    """
    made = queries(params)
    for query in made:
        query["filters"] = extra.get("filters", []) + query["filters"]
        if extra.get("as_rows", True):
            query.pop("post_processing", None)
    return {
        "datasource": {"id": datasource_id, "type": "table"},
        "force": extra.get("force", True),
        "form_data": params,
        "queries": made,
        "result_format": extra.get("result_format", "json"),
        "result_type": "full",
    }


def errors_of(body: dict[str, Any]) -> list[str]:
    """What went wrong with the queries of a request. Raises as `answers_to` does."""
    return [str(query["error"]) for query in answers_to(body) if query.get("error")]


def answers_to(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Asks Superset for a chart's data in this process, as the user of the context; the answers to its queries.

    Raises what Superset raises, such as SupersetSecurityException.
    """
    from superset.charts.schemas import ChartDataQueryContextSchema
    from superset.commands.chart.data.get_data_command import ChartDataCommand

    command = ChartDataCommand(ChartDataQueryContextSchema().load(body))
    command.validate()
    answers: list[dict[str, Any]] = command.run()["queries"]
    return answers


def page_requests(
    native_filters: list[dict[str, Any]], charts: list[tuple[str, dict[str, Any], int]]
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """What a browser asks for that opens a dashboard, to the letter: each is the key of its answer in the cache.

    Takes the dashboard's filters as Superset keeps them, and (name, params, datasource id) of its charts. Gives name
    and body, and whether it is asked for at once (True), or when the filters' defaults are taken away.
    """
    defaults: list[dict[str, Any]] = []
    for item in native_filters:
        defaults += item["defaultDataMask"].get("extraFormData", {}).get("filters", [])
        if item["filterType"] == "filter_select":
            target = item["targets"][0]
            yield f"choices of {item['name']}", _choices(target["column"]["name"], target["datasetId"]), True
    if any(_waits_for_a_choice(item) for item in native_filters):
        return  # a page of one account or application: whose it is nobody knows before it is opened
    for name, params, datasource_id in charts:
        yield name, payload(params, datasource_id, filters=defaults, force=False, as_rows=False), True
        if defaults:
            yield name, payload(params, datasource_id, force=False, as_rows=False), False


def _waits_for_a_choice(item: dict[str, Any]) -> bool:
    """A filter that must hold a value, and has none until its choices are known."""
    return item["controlValues"].get("enableEmptyFilter", False) and not item["defaultDataMask"].get(
        "extraFormData", {}
    ).get("filters")


def _choices(column: str, datasource_id: int) -> dict[str, Any]:
    params = {"viz_type": "table", "query_mode": "aggregate", "groupby": [column], "row_limit": 10_000}
    body = payload(params, datasource_id, force=False, as_rows=False)
    body["queries"][0]["orderby"] = [[column, True]]
    return body


def _base(params: dict[str, Any], suffix: str = "") -> dict[str, Any]:
    filters: list[dict[str, Any]] = []
    written: dict[str, list[str]] = {"WHERE": [], "HAVING": []}
    for item in params.get(f"adhoc_filters{suffix}") or []:
        if item["expressionType"] == "SIMPLE":
            filters.append({"col": item["subject"], "op": item["operator"], "val": item.get("comparator")})
        else:
            written[item["clause"]].append(f"({item['sqlExpression']})")
    query = {
        "columns": [],
        "extras": {"having": " AND ".join(written["HAVING"]), "where": " AND ".join(written["WHERE"])},
        "filters": filters,
        "metrics": list(params.get(f"metrics{suffix}") or []),
        "order_desc": params.get("order_desc", True),
        "orderby": [],
        "series_limit": 0,
    }
    if limit := params.get(f"row_limit{suffix}") or params.get("row_limit"):
        query["row_limit"] = limit
    return query


def _table(params: dict[str, Any]) -> dict[str, Any]:
    query = _base(params) | {"post_processing": [], "time_offsets": []}
    if params.get("query_mode") == "raw":
        query["columns"] = list(params["all_columns"])
        query["metrics"] = None
        query["orderby"] = [json.loads(item) for item in params.get("order_by_cols") or []]
        return query
    query["columns"] = list(params.get("groupby") or [])
    if by := params.get("timeseries_limit_metric"):
        query["series_limit_metric"] = by
        query["orderby"] = [[by, not params.get("order_desc", True)]]
    elif query["metrics"]:
        query["orderby"] = [[query["metrics"][0], False]]
    return query


def _number(params: dict[str, Any]) -> dict[str, Any]:
    return _base(params) | {"metrics": [params["metric"]]}


def _trend(params: dict[str, Any]) -> dict[str, Any]:
    query = _series(params | {"metrics": [params["metric"]]}, is_mixed=True)
    for part in ("orderby", "series_columns", "time_offsets"):
        del query[part]
    return query


def _bubbles(params: dict[str, Any]) -> dict[str, Any]:
    measures = [params["x"], params["y"], params["size"]]
    return _base(params) | {"columns": [params["entity"], params["series"]], "metrics": measures}


def _axis(params: dict[str, Any]) -> dict[str, Any]:
    axis = {"columnType": "BASE_AXIS", "expressionType": "SQL", "isColumnReference": True}
    grain = {"timeGrain": params["time_grain_sqla"]} if "time_grain_sqla" in params else {}
    return axis | {"label": params["x_axis"], "sqlExpression": params["x_axis"]} | grain


def _series(params: dict[str, Any], suffix: str = "", *, is_mixed: bool = False) -> dict[str, Any]:
    groups, query = list(params.get(f"groupby{suffix}") or []), _base(params, suffix)
    metrics = query["metrics"]
    if "time_grain_sqla" in params:
        query["extras"]["time_grain_sqla"] = params["time_grain_sqla"]
    turned = {
        "index": [params["x_axis"]],
        "columns": groups,
        "aggregates": {metric: {"operator": "mean"} for metric in metrics},
        "drop_missing_columns": is_mixed or not params.get("show_empty_columns", True),
    }
    steps: list[dict[str, Any]] = [{"operation": "pivot", "options": turned}]
    if groups and len(metrics) == 1 and params.get(f"truncate_metric{suffix}", True):
        without = {"columns": {metrics[0]: None}, "level": 0, "inplace": True}
        steps.append({"operation": "rename", "options": without})
    return query | {
        "columns": [_axis(params), *groups],
        "orderby": [[metrics[0], False]],
        "post_processing": [*steps, {"operation": "flatten"}],
        "series_columns": groups,
        "time_offsets": [],
    }


def _first_series(params: dict[str, Any]) -> dict[str, Any]:
    return _series(params, is_mixed=True)


def _second_series(params: dict[str, Any]) -> dict[str, Any]:
    return _series(params, "_b", is_mixed=True)


def _grid(params: dict[str, Any]) -> dict[str, Any]:
    directions = {"alpha_asc": True, "alpha_desc": False}
    return _base(params) | {
        "columns": [_axis(params), params["groupby"]],
        "metrics": [params["metric"]],
        "orderby": [
            [params["x_axis"], directions[params["sort_x_axis"]]],
            [params["groupby"], directions[params["sort_y_axis"]]],
        ],
        "post_processing": [{"operation": "rank", "options": {"metric": params["metric"]}}],
    }
