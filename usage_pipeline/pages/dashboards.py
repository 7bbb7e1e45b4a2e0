"""The dashboards as code: `superset/assets/`, read and checked without Superset.

Belongs here: loading the YAML, the checks that every reference resolves and every column exists, and keeping datasets
and help tabs equal to the catalogue of `core/tables.py`. Does not: importing them (`usage_superset/bootstrap.py`).

The files hold ids in place of texts (`core/texts.py`). What is checked and written is as it stands in the files; what
others read has its texts.

Superset's own importer skips a chart that it cannot find without a word, and draws an error box for a column that
is gone: both are found here, before anything is imported.
"""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import yaml

from usage_pipeline.core.tables import COLUMNS, METRICS, OUTCOME_TABLES, TABLES, Column, Metric, Table
from usage_pipeline.core.texts import ID, filled, section, texts
from usage_pipeline.pages.help_tab import TEXT as HELP
from usage_pipeline.pages.help_tab import help_text, place_help
from usage_pipeline.pages.page_frame import LINE, empty_css, place_frame
from usage_pipeline.privacy.encryption import open_database

ASSETS = Path(__file__).parents[2] / "superset" / "assets"
_UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
# ids that Superset gives out: they differ in every installation and never belong into a file
_INSTANCE_KEYS = {"chartsInScope", "chartId", "slice_id", "datasource_id", "dashboard_id", "query_context", "id_column"}

# the chart of the data's state, on top of every page
STATE_CHART = "e2a0a5c7-3d0c-5d57-9c11-6a7c6f2f8a10"


@dataclass
class Assets:
    """Every file of the tree by kind, as loaded; `files` gives the file of each uuid."""

    databases: dict[str, dict[str, Any]] = field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    charts: dict[str, dict[str, Any]] = field(default_factory=dict)
    dashboards: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def kinds(self) -> dict[str, dict[str, dict[str, Any]]]:
        return {
            "databases": self.databases,
            "datasets": self.datasets,
            "charts": self.charts,
            "dashboards": self.dashboards,
        }


class AssetsError(Exception):
    """The dashboards are not there; the message says where they should be, and the remedy."""


def load_assets(folder: Path = ASSETS) -> tuple[Assets, list[str]]:
    """Every asset by uuid, with its texts, and the problems of the files (not YAML, no uuid, one uuid twice).

    Raises AssetsError where a folder of them is missing, as it is beside a wheel, and TextError where a text is.
    """
    assets, problems = _read_assets(folder)
    for kind in assets.kinds.values():
        kind.update({uuid: filled(content) for uuid, content in kind.items()})
    return assets, problems


def _read_assets(folder: Path) -> tuple[Assets, list[str]]:
    """The same as it stands in the files, with ids in place of texts."""
    assets, problems = Assets(), []
    for kind, found in assets.kinds.items():
        if not (folder / kind).is_dir():
            remedy = (
                "run from a checkout of the repository (git clone, make setup): a wheel does not hold the dashboards"
            )
            raise AssetsError(f"{folder / kind}: no such folder; {remedy}")
        for file in sorted((folder / kind).rglob("*.yaml")):
            shown = file.relative_to(folder)
            try:
                # the parser in C: a hundred files are read for every check
                content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
            except yaml.YAMLError as error:
                problems.append(f"{shown}: not readable as YAML: {' '.join(str(error).split())}")
                continue
            uuid = str(content.get("uuid", "")) if isinstance(content, dict) else ""
            if not _UUID.match(uuid):
                problems.append(f"{shown}: uuid is missing or malformed; give it a fixed one")
            elif uuid in assets.files:
                problems.append(f"{shown}: has the same uuid as {assets.files[uuid].relative_to(folder)}")
            else:
                found[uuid], assets.files[uuid] = content, file
    return assets, problems


def chart_uuids(dashboard: dict[str, Any]) -> list[str]:
    """The charts of a dashboard, in the order of its layout."""
    cells = dashboard.get("position", {}).values()
    return [c["meta"]["uuid"] for c in cells if isinstance(c, dict) and c.get("type") == "CHART"]


def _charts_of(dashboard: dict[str, Any], assets: Assets) -> list[dict[str, Any]]:
    """Those that are there: what is missing is a problem of its own."""
    return [assets.charts[uuid] for uuid in chart_uuids(dashboard) if uuid in assets.charts]


def as_list(value: Any) -> list[Any]:
    """What a chart's parameter holds: some take one column, some a list of them."""
    return value if isinstance(value, list) else [value] if value else []


def used_columns(params: dict[str, Any]) -> set[str]:
    """The physical columns that a chart's parameters name."""
    used: set[str] = set()
    for key in ("groupby", "all_columns", "columns", "groupby_b", "groupbyColumns", "groupbyRows"):
        used |= {c for c in as_list(params.get(key)) if isinstance(c, str)}
    for key in ("x_axis", "granularity_sqla", "entity", "series"):
        if isinstance(params.get(key), str):
            used.add(params[key])
    for key in ("adhoc_filters", "adhoc_filters_b"):
        for item in params.get(key) or []:
            if item.get("expressionType") == "SIMPLE":
                used.add(item["subject"])
    return used


_METRIC_KEYS = (
    *("metrics", "metrics_b", "percent_metrics", "timeseries_limit_metric", "metric", "x_axis_sort"),
    # of bubbles
    *("x", "y", "size"),
)


def used_metrics(params: dict[str, Any]) -> set[str]:
    """The saved metrics that a chart's parameters name."""
    used: set[str] = set()
    for key in _METRIC_KEYS:
        value = params.get(key)
        used |= {m for m in (value if isinstance(value, list) else [value]) if isinstance(m, str)}
    return used


def problems_of(folder: Path = ASSETS) -> list[str]:
    """Everything that is wrong with the tree, a sentence each, naming the file and the remedy."""
    assets, problems = _read_assets(folder)

    def name(uuid: str) -> str:
        return str(assets.files[uuid].relative_to(folder))

    for uuid, dataset in assets.datasets.items():
        problems += [f"{name(uuid)}: {p}" for p in _dataset_problems(dataset, assets)]
    for uuid, chart in assets.charts.items():
        problems += [f"{name(uuid)}: {p}" for p in _chart_problems(chart, assets)]
    placed: set[str] = set()
    for uuid, dashboard in assets.dashboards.items():
        placed |= set(chart_uuids(dashboard))
        problems += [f"{name(uuid)}: {p}" for p in _dashboard_problems(dashboard, assets)]
    stems = {assets.files[uuid].stem for uuid in assets.charts}
    if folder == ASSETS:
        problems += [
            f"the text empty.{stem}: no chart has that file; delete the text or name another"
            for stem in sorted(set(section("empty")) - stems)
        ]
    problems += [
        f"{name(uuid)}: is on no dashboard; place it or delete the file" for uuid in assets.charts if uuid not in placed
    ]
    for uuid in assets.files:
        content = next(kind[uuid] for kind in assets.kinds.values() if uuid in kind)
        problems += [
            f"{name(uuid)}: holds {key}, an id of one installation; delete the key"
            for key in sorted(_keys_below(content) & _INSTANCE_KEYS)
        ]
        problems += [f"{name(uuid)}: {problem}" for problem in _text_problems(content)]
        if assets.files[uuid].read_text(encoding="utf-8") != dump(content):
            problems.append(f"{name(uuid)}: not in the normal form; run `make format`")
    return problems


# where a file says something to readers, it holds an id; what Superset adds to days is a format
_TEXT_KEYS = {
    *("slice_name", "sliceName", "dashboard_title", "description", "verbose_name", "text", "code", "compare_suffix"),
    *("subheader", "x_axis_label", "y_axis_label", "x_axis_title", "y_axis_title", "table_timestamp_format"),
}
_WORD, _DAY = re.compile(r"[^\W\d_]{2,}"), re.compile(r"%-?[A-Za-z]")


def _text_problems(content: dict[str, Any]) -> Iterator[str]:
    """Ids that no text has, and texts that stand in a file; what `make format` makes is compared as a whole."""
    made = {key: value for key, value in content.get("position", {}).items() if key not in (HELP, LINE)}
    for key, value in _strings(content | {"position": made}):
        for name in ID.findall(value):
            if name not in texts():
                yield f"{key}: there is no text {name}; add it to usage_pipeline/texts, or name another id"
        if key in _TEXT_KEYS and _WORD.search(_DAY.sub("", ID.sub("", value))):
            yield f"{key}: holds the text {value[:60]!r}; put it into usage_pipeline/texts, and its id in braces here"


def _strings(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, text) of every text below."""
    if isinstance(content, str):
        yield key, content
    elif isinstance(content, dict):
        for inner, value in content.items():
            yield from _strings(value, str(inner))
            yield from _strings(str(inner), "a key")
    elif isinstance(content, list):
        for value in content:
            yield from _strings(value, key)


def _keys_below(content: Any) -> set[str]:
    if isinstance(content, dict):
        return set(content).union(*(_keys_below(value) for value in content.values()))
    if isinstance(content, list):
        return set().union(*(_keys_below(value) for value in content)) if content else set()
    return set()


def _dataset_problems(dataset: dict[str, Any], assets: Assets) -> list[str]:
    problems = []
    if dataset.get("database_uuid") not in assets.databases:
        problems.append(f"database_uuid {dataset.get('database_uuid')} is that of no file under databases/")
    if dataset.get("sql"):
        problems.append("is a virtual dataset (sql); row-level security fails open on those: publish a table instead")
    table = TABLES.get(str(dataset.get("table_name")))
    if table is None:
        return [*problems, f"table_name {dataset.get('table_name')} is not a table of core/tables.py"]
    if dataset.get("schema") != table.schema:
        problems.append(f"schema is {dataset.get('schema')}, the table lies in {table.schema}")
    if dataset.get("columns") != dataset_columns(table):
        problems.append("columns are not those of catalogue.yaml; run `make format`")
    if not dataset.get("description"):
        problems.append("has no description; say what one row is")
    if dataset.get("metrics") != dataset_metrics(table):
        problems.append("metrics are not those of catalogue.yaml; run `make format`")
    problems += _metric_problems(dataset, table)
    return problems


def _metric_problems(dataset: dict[str, Any], table: Table) -> list[str]:
    """Runs every metric of a dataset against an empty table with its columns."""
    connection = duckdb.connect()
    try:
        columns = ", ".join(f"{c.name} {c.type}" for c in table.columns)
        connection.execute(f"CREATE TABLE {table.name} ({columns})")
        problems = []
        for metric in dataset.get("metrics", []):
            try:
                connection.execute(f"SELECT {metric['expression']} FROM {table.name}")
            except duckdb.Error as error:
                first = str(error).strip().splitlines()[0]
                problems.append(f"metric {metric['metric_name']} cannot be computed: {first}")
        return problems
    finally:
        connection.close()


def _chart_problems(chart: dict[str, Any], assets: Assets) -> list[str]:
    dataset = assets.datasets.get(str(chart.get("dataset_uuid")))
    if dataset is None:
        return [f"dataset_uuid {chart.get('dataset_uuid')} is that of no file under datasets/"]
    columns = {column["column_name"] for column in dataset["columns"]}
    metrics = {metric["metric_name"] for metric in dataset.get("metrics", [])}
    params = chart.get("params") or {}
    problems = [
        f"uses the column {column}, which {dataset['table_name']} does not have"
        for column in sorted(used_columns(params) - columns - metrics)
    ]
    problems += [
        f"uses the metric {metric}, which the dataset {dataset['table_name']} does not define"
        for metric in sorted(used_metrics(params) - metrics - columns)
    ]
    problems += _comparator_problems(params)
    problems += _color_problems(params, METRICS.get(dataset["table_name"], {}))
    if params.get("viz_type") != chart.get("viz_type"):
        problems.append("viz_type and params.viz_type differ")
    if not chart.get("description"):
        problems.append("has no description; say what a reader learns from it")
    title = _shown(chart.get("slice_name"))
    if sum(_shown(other.get("slice_name")) == title for other in assets.charts.values()) > 1:
        problems.append(f"slice_name {title!r} is that of another chart too; say how they differ")
    return problems


def _shown(title: Any) -> str:
    """A title with the texts that there are."""
    return ID.sub(lambda found: texts().get(found[1], found[0]), str(title))


def _comparator_problems(params: dict[str, Any]) -> list[str]:
    """Filters that can match nothing: they compare with a value that the catalogue does not have for the column."""
    compared = [
        (COLUMNS[item["subject"]], value)
        for item in params.get("adhoc_filters", [])
        if item.get("operator") in ("==", "!=", "IN", "NOT IN") and item.get("subject") in COLUMNS
        for value in as_list(item.get("comparator"))
    ]
    return [
        f"compares {column.name} with {value!r}, which is none of its values: {', '.join(column.words)}"
        for column, value in compared
        if column.words and value not in column.words
    ]


def _color_problems(params: dict[str, Any], metrics: dict[str, Metric]) -> list[str]:
    """Colors that nobody will see: of a column that the table does not list, or of a word that it never holds."""
    listed = {
        name
        for key in ("all_columns", "groupby", "metrics")
        for name in as_list(params.get(key))
        if isinstance(name, str)
    }
    problems = []
    for rule in params.get("conditional_formatting") or []:
        name, value = rule["column"], rule.get("targetValue")
        words = entry.words if (entry := metrics.get(name) or COLUMNS.get(name)) else {}
        if listed and name not in listed:
            problems.append(f"colors the column {name}, which it does not list; list it or delete the rule")
        elif isinstance(value, str) and words and value not in words:
            problems.append(f"colors {name} where it is {value!r}, which is none of its values: {', '.join(words)}")
    return problems


def _dashboard_problems(dashboard: dict[str, Any], assets: Assets) -> list[str]:
    problems = [f"has no {key}" for key in ("slug", "description") if not dashboard.get(key)]
    help_cell = dashboard.get("position", {}).get("MARKDOWN-help", {})
    if help_cell.get("meta", {}).get("code") != help_of(dashboard, assets):
        problems.append("the tab that says what the figures mean is not up to date; run `make format`")
    if dashboard.get("css") != empty_css(empty_texts(dashboard, assets)):
        problems.append("what its charts say without a row is not up to date; run `make format`")
    if not _has_frame(dashboard, assets):
        problems.append("the line on top or the order of the filters is not that of all pages; run `make format`")
    for uuid in chart_uuids(dashboard):
        if uuid not in assets.charts:
            problems.append(f"shows the chart {uuid}, which is that of no file under charts/")
    for native in dashboard.get("metadata", {}).get("native_filter_configuration", []):
        for target in native.get("targets", []):
            if not target:
                continue
            dataset = assets.datasets.get(str(target.get("datasetUuid")))
            column = (target.get("column") or {}).get("name")
            if dataset is None:
                problems.append(f"the filter {native.get('name')} points to no file under datasets/")
            elif column and column not in {c["column_name"] for c in dataset["columns"]}:
                problems.append(
                    f"the filter {native.get('name')} uses the column {column}, "
                    f"which {dataset['table_name']} does not have"
                )
    schemas = schemas_of(dashboard, assets)
    if "personal" in schemas and schemas != {"personal"}:
        # Superset lists a dashboard to everybody who may see any chart of it
        problems.append("mixes personal data with other charts; contacts have dashboards of their own")
    if "responses" in schemas and schemas != {"responses"}:
        problems.append("mixes how CSMs answer with other charts; that has a dashboard of its own, for their head")
    return problems


def _has_frame(dashboard: dict[str, Any], assets: Assets) -> bool:
    made = copy.deepcopy(dashboard)
    try:
        place_frame(made, assets.charts[STATE_CHART])
    except (KeyError, ValueError):  # not of the form of a page, or no line leads to it
        return False
    return made == dashboard


def dataset_columns(table: Table) -> list[dict[str, Any]]:
    """The columns of a dataset as Superset's importer takes them."""
    return [_dataset_column(column) for column in table.columns]


def dataset_metrics(table: Table) -> list[dict[str, Any]]:
    """The metrics of a dataset as Superset's importer takes them."""
    return [_dataset_metric(metric) for metric in METRICS.get(table.name, {}).values()]


def _dataset_metric(metric: Metric) -> dict[str, Any]:
    return {
        "d3format": metric.format,
        "description": f"{{{metric.text_id}.description}}",
        "expression": metric.expression,
        "metric_name": metric.name,
        "verbose_name": f"{{{metric.text_id}.title}}",
    }


def _dataset_column(column: Column) -> dict[str, Any]:
    return {
        "column_name": column.name,
        "description": f"{{{column.text_id}.description}}",
        "filterable": True,
        "groupby": column.type != "DOUBLE",
        "is_active": True,
        "is_dttm": column.type == "TIMESTAMP",
        "type": column.type,
        "verbose_name": f"{{{column.text_id}.title}}",
    }


def empty_texts(dashboard: dict[str, Any], assets: Assets) -> dict[str, str]:
    """What the charts of a dashboard say without a row, by title, as ids; those that there is a text for."""
    stems = {uuid: assets.files[uuid].stem for uuid in chart_uuids(dashboard) if uuid in assets.charts}
    known = section("empty")
    return {assets.charts[uuid]["slice_name"]: f"{{empty.{stem}}}" for uuid, stem in stems.items() if stem in known}


def help_of(dashboard: dict[str, Any], assets: Assets) -> str:
    """The text of a dashboard's help tab."""
    shown = []
    for chart in _charts_of(dashboard, assets):
        dataset = assets.datasets.get(str(chart["dataset_uuid"]))
        if dataset is not None:
            shown.append((dataset["table_name"], used_columns(chart["params"]) | used_metrics(chart["params"])))
    return help_text(shown)


def dump(content: dict[str, Any]) -> str:
    """The normal form of a file: sorted keys, one style."""
    return yaml.safe_dump(content, sort_keys=True, allow_unicode=True, width=110)


def normalise(folder: Path = ASSETS) -> list[Path]:
    """Writes every file in the normal form: datasets and help tabs as the catalogue says; returns what changed."""
    assets, _ = _read_assets(folder)
    changed = []
    for kind in assets.kinds.values():
        for uuid, content in kind.items():
            table = TABLES.get(str(content.get("table_name")))
            if table is not None:
                content["columns"] = dataset_columns(table)
                content["metrics"] = dataset_metrics(table)
            if uuid in assets.dashboards:
                place_frame(content, assets.charts[STATE_CHART])
                place_help(content, help_of(content, assets))
                content["css"] = empty_css(empty_texts(content, assets))
            file, text = assets.files[uuid], dump(content)
            if file.read_text(encoding="utf-8") != text:
                file.write_text(text, encoding="utf-8")
                changed.append(file)
    return changed


def schemas_of(dashboard: dict[str, Any], assets: Assets) -> set[str]:
    """The schemas that a dashboard's charts read."""
    charts = _charts_of(dashboard, assets)
    return {assets.datasets[c["dataset_uuid"]]["schema"] for c in charts if c["dataset_uuid"] in assets.datasets}


@lru_cache(maxsize=4)
def _columns_by_table(file: Path, _written_at: int) -> dict[str, set[str]]:
    """The columns of each table and view of a database, by `schema.table`; asked once for all pages of a build."""
    with open_database(file) as connection:
        sql = "SELECT schema_name || '.' || table_name, list(column_name) FROM duckdb_columns() GROUP BY ALL"
        return {table: set(columns) for table, columns in connection.execute(sql).fetchall()}


def missing_columns(dashboard: dict[str, Any], assets: Assets, build: Path, status: Path, outcomes: Path) -> list[str]:
    """The columns that a dashboard's charts use and that neither a published build nor a file beside it has."""
    files = {
        "personal": build / "contacts.duckdb",
        "status": status,
        **{table.schema: outcomes for table in OUTCOME_TABLES},
    }
    missing = []
    for uuid in chart_uuids(dashboard):
        chart = assets.charts[uuid]
        dataset = assets.datasets[chart["dataset_uuid"]]
        file = files.get(dataset["schema"], build / "warehouse.duckdb").resolve()
        columns = _columns_by_table(file, file.stat().st_mtime_ns).get(f"{dataset['schema']}.{dataset['table_name']}")
        if columns is None:
            missing.append(f"{dataset['schema']}.{dataset['table_name']}")
            continue
        metrics = {metric["metric_name"] for metric in dataset.get("metrics", [])}
        params = chart["params"]
        used = used_columns(params) | (used_metrics(params) - metrics)
        missing += [f"{dataset['table_name']}.{column}" for column in sorted(used - columns - metrics)]
    return missing
