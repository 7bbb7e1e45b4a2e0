"""The walk of figures: what stands in two places is the same, for all, for one CSM and for one account.

Three ways find what has to agree: `figures.yaml` names figures and their places (tiles, tables, the KPI sheet and its
workbook, mails, the brief); charts that share a metric, its dataset and its filters; and columns of tables, of which one
name means one thing, about the same account and application.
"""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
import yaml

from usage_pipeline.core.tables import METRICS
from usage_pipeline.pages.dashboards import load_assets
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.figures import (
    Brief,
    Pages,
    Scope,
    brief_of,
    calls_of_mails,
    kpis_of_workbook,
    number_of,
)
from usage_pipeline_tests.support.servers import SupersetServer
from usage_pipeline_tests.support.superset_client import Client
from usage_pipeline_tests.support.visitors import Visitor

pytestmark = [pytest.mark.superset, pytest.mark.long]

_TOLD = yaml.safe_load(Path(__file__).with_name("figures.yaml").read_text(encoding="utf-8"))
FIGURES: dict[str, list[dict[str, Any]]] = _TOLD["figures"]
APART: dict[str, str] = _TOLD["another in each table"]
KEY = ["account", "application"]


@pytest.fixture(scope="module")
def pages(superset: SupersetServer) -> Pages:
    """Every page, as somebody who may read contacts: what is theirs alone stands in two places too."""
    slugs = [d["slug"] for d in load_assets()[0].dashboards.values()]
    return Pages(Client(superset, "manager"), [slug for slug in slugs if slug != "responses"])


@pytest.fixture(scope="module")
def scopes(demo: Demo) -> dict[str, Scope]:
    """All, a CSM with urgent calls, and an account of theirs with ARR at risk."""
    with duckdb.connect(str(demo.warehouse), read_only=True) as connection:
        found = connection.execute(
            "SELECT owner, account FROM mart.call_list WHERE urgency = 'Urgent' AND arr_at_risk > 0 ORDER BY rank"
        ).fetchone()
    assert found is not None
    scopes = (Scope("all"), Scope("CSM", owner=found[0]), Scope("account", account=found[1]))
    return {scope.name: scope for scope in scopes}


@pytest.fixture(scope="module")
def calls(demo: Demo) -> pd.DataFrame:
    return calls_of_mails(demo.settings)


@pytest.fixture(scope="module")
def brief(superset: SupersetServer, scopes: dict[str, Scope]) -> Brief:
    return brief_of(Visitor(superset, "viewer"), scopes["account"].account)


@pytest.fixture(scope="module")
def workbooks(demo: Demo, scopes: dict[str, Scope], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("workbooks")
    return {name: kpis_of_workbook(demo.settings, scope, folder) for name, scope in scopes.items()}


# ---------------------------------------------------------------- figures that are named


def taken(rows: pd.DataFrame, place: dict[str, Any]) -> float | None:
    """What a place says of the rows of its chart; None where it says nothing."""
    if where := place.get("where"):
        rows = rows.query(where)
    if place.get("rows"):
        return float(len(rows))
    if column := place.get("total"):
        return float(pd.to_numeric(rows[column]).sum())
    if column := place.get("one"):
        return number_of(rows[column].iloc[0]) if len(rows) == 1 else None
    times = rows.select_dtypes("datetime")
    newest = rows[times.iloc[:, 0] == times.iloc[:, 0].max()]
    return number_of(pd.to_numeric(newest[place["newest"]]).sum(min_count=1))


@pytest.mark.parametrize(
    "scope_name", ["all", *(pytest.param(name, marks=pytest.mark.soak) for name in ("CSM", "account"))]
)
def test_a_figure_is_the_same_wherever_it_stands(
    pages: Pages,
    scopes: dict[str, Scope],
    calls: pd.DataFrame,
    brief: Brief,
    workbooks: dict[str, Any],
    scope_name: str,
) -> None:
    scope = scopes[scope_name]
    mailed = calls.query(
        " and ".join(f"{column} == {value!r}" for column, value in scope.picked.items()) or "index >= 0"
    )
    wrong, compared = [], 0
    for figure, places in FIGURES.items():
        found: dict[str, tuple[float, int | None]] = {}
        for place in places:
            if place.get("scope", scope_name) != scope_name:
                continue
            if name := place.get("chart"):
                for slug in [slug for slug, chart in pages.everywhere() if chart == name]:
                    rows = pages.answers(slug, name, scope)
                    value = None if rows is None else taken(rows, place)
                    if value is not None:
                        found[f"{slug}: {name}"] = (value, None)
            elif title := place.get("kpi"):
                if (value := pages.kpi(title, scope)) is not None:
                    found["KPI sheet"] = (value, None)
                    found["its workbook"] = (float(workbooks[scope_name][title]), None)
            elif column := place.get("digest"):
                listed = mailed.query(place["where"])
                found["mails"] = (float(len(listed) if column == "count" else listed[column].sum()), None)
            elif scope.account:
                found["brief"] = (brief.number(place["brief"]), place["round"])
        exact = [value for value, places_kept in found.values() if places_kept is None]
        compared += len(found)
        for where, (value, kept) in found.items():
            wanted = exact[0] if kept is None else round(exact[0], kept)
            if not math.isclose(value, wanted, rel_tol=1e-9, abs_tol=10.0 ** -(kept or 9)):
                wrong.append(f"{figure}, {where}: {value:,}; others: {found}")
    assert not wrong, "\n".join(wrong)
    assert compared > 50


def test_every_tile_is_in_the_walk(pages: Pages) -> None:
    """A tile that stands in one place only is compared with the rows that it counts."""
    told = {place["chart"] for places in FIGURES.values() for place in places if "chart" in place}
    tiles = {name for _, name in pages.everywhere() if pages.charts[name]["viz_type"].startswith("big_number")}
    assert tiles <= told, tiles - told
    assert all(len(places) >= 2 for places in FIGURES.values())
    assert told <= set(pages.charts), "a chart that is there no more"


# ---------------------------------------------------------------- charts of one metric


def figures_of(pages: Pages, slug: str, name: str, scope: Scope) -> dict[tuple[str, ...], pd.Series]:
    """Values of a chart's metrics by time (one where it has none), by what has to be the same for them to be compared."""
    params, table = pages.charts[name]["params"], pages.dataset_of(name)["table_name"]
    rows = pages.answers(slug, name, scope)
    if rows is None or rows.empty or len(rows) >= params.get("row_limit", 1e9) or params.get("query_mode") == "raw":
        return {}
    conditions = sorted(str(item) for item in _conditions(pages, slug, name))
    times = list(rows.select_dtypes("datetime").columns)
    found = {}
    for column in rows.columns:
        metric = METRICS.get(table, {}).get(column)
        groups = [c for c in rows.columns if c not in METRICS.get(table, {}) and c not in times]
        if metric is None or rows[column].dtype.kind not in "if" or (groups and metric.aggregation == "non_additive"):
            continue
        key = (table, column, *times, *conditions)
        found[key] = rows.groupby(times[0])[column].sum() if times else pd.Series([float(rows[column].sum())])
    return found


def _conditions(pages: Pages, slug: str, name: str) -> list[Any]:
    own = pages.charts[name]["params"].get("adhoc_filters") or []
    told = [(f.get("subject"), f.get("operator"), str(f.get("comparator")), f.get("sqlExpression")) for f in own]
    return [item for item in told if item[1] != "TEMPORAL_RANGE"] + pages.defaults(slug, name)


def test_charts_that_share_a_metric_show_the_same(pages: Pages, scopes: dict[str, Scope]) -> None:
    shown: dict[tuple[Any, ...], dict[str, pd.Series]] = defaultdict(dict)
    for slug, name in pages.everywhere():
        for scope in scopes.values():
            for key, values in figures_of(pages, slug, name, scope).items():
                shown[scope.name, *key][f"{slug}: {name}"] = values
    shared = {key: places for key, places in shown.items() if len({place.split(": ")[1] for place in places}) > 1}
    wrong = []
    for key, places in shared.items():
        first, *others = places.items()
        for where, values in others:
            both = pd.concat([first[1], values], axis=1, join="inner").dropna()
            if both.empty or not all(math.isclose(a, b, rel_tol=1e-9) for a, b in both.itertuples(index=False)):
                wrong.append(f"{key}: {first[0]} and {where}")
    assert not wrong, "\n".join(wrong)
    assert len(shared) >= 12


# ---------------------------------------------------------------- columns of tables


def cells_of(rows: pd.DataFrame, scope: Scope) -> dict[tuple[str, str, str], str]:
    """Texts of a table by account, application and column, of columns with one value about each."""
    if "account" not in rows.columns:
        if not scope.account:
            return {}
        rows = rows.assign(account=scope.account)
    if "application" not in rows.columns:
        rows = rows.assign(application="")
    rows = rows.assign(application=rows["application"].replace("all applications", "").fillna(""))
    found = {}
    for column in rows.columns.difference(KEY):
        about = rows.groupby(KEY)[column]
        if about.nunique(dropna=False).max() == 1:
            found |= {(*key, column): _told(value) for key, value in about.first().items()}
    return found


def _told(value: Any) -> str:
    if value is None or pd.isna(value):
        return ""
    return f"{value:.9g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def test_a_column_says_the_same_of_an_account_in_every_table(
    pages: Pages, scopes: dict[str, Scope], calls: pd.DataFrame
) -> None:
    """Before: *Expansion* gave the account's next renewal for an application that renews on a day of its own."""
    told: dict[tuple[str, str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    columns: set[str] = set()
    for slug, name in pages.everywhere():
        if pages.charts[name]["viz_type"] != "table" or pages.charts[name]["params"].get("query_mode") != "raw":
            continue
        for scope in scopes.values():
            rows = pages.answers(slug, name, scope)
            if rows is not None and len(rows):
                for key, text in cells_of(rows, scope).items():
                    told[key][text].add(f"{slug}: {name}")
    for key, text in cells_of(calls, scopes["all"]).items():
        told[key][text].add("mails")
    shared = {key: texts for key, texts in told.items() if len(set().union(*texts.values())) > 1}
    wrong = []
    for key, texts in shared.items():
        columns.add(key[2])
        if len(texts) > 1 and not any(_is_apart(key, names) for names in texts.values()):
            wrong.append(f"{key}: {dict(texts)}")
    assert not wrong, "\n".join(wrong)
    assert len(shared) > 200 and len(columns) > 10


def _is_apart(key: tuple[str, str, str], names: set[str]) -> bool:
    return key[2] in APART or any(f"{name.split(': ')[-1]}.{key[2]}" in APART for name in names)


# ---------------------------------------------------------------- what is taken away


def test_a_download_holds_what_the_table_shows(pages: Pages, scopes: dict[str, Scope]) -> None:
    """Every table of every page as CSV: the rows, names without HTML, whole numbers without `.0`."""
    wrong = []
    for slug, name in pages.everywhere():
        shown = pages.answers(slug, name, scopes["all"])
        if pages.charts[name]["viz_type"] != "table" or shown is None or len(shown) >= 10_000:
            continue
        got = pages.download(slug, name, scopes["all"])
        if got.shape != shown.shape and len(shown):
            wrong.append(f"{slug}: {name}: {got.shape} instead of {shown.shape}")
            continue
        if got.apply(lambda column: column.str.contains("<a |<span")).any(axis=None):
            wrong.append(f"{slug}: {name}: HTML")
        if any(column[column != ""].str.fullmatch(r"-?\d+\.0").all() and column.any() for _, column in got.items()):
            wrong.append(f"{slug}: {name}: whole numbers with .0")
        for place, column in enumerate(shown.columns):
            texts = sorted(map(_told, shown[column])) if shown[column].dtype.kind in "iuf" else None
            if texts and texts != sorted(_told(float(t)) if t else "" for t in got.iloc[:, place]):
                wrong.append(f"{slug}: {name}: {column}")
    assert not wrong, "\n".join(wrong)


def test_the_brief_says_of_each_application_what_the_page_says(
    pages: Pages, scopes: dict[str, Scope], brief: Brief
) -> None:
    shown = pages.answers("account", "applications_of_account", scopes["account"])
    assert shown is not None
    running = shown[shown["subscription_state"] != "ended"]
    rows = {row[0].split(" (")[0]: row for row in brief.rows if len(row) == 8}
    assert len(running) > 1
    for one in running.itertuples():
        row = rows[one.application]
        assert row[1] == one.usage_state
        assert row[3:5] == [f"{one.recent_clicks:,.1f}", f"{one.usual_clicks:,.1f}"], one.application
        assert row[5:7] == [f"{one.seats:,.0f}", f"${one.annual_value:,.0f}"], one.application
        assert row[7] == f"{one.renewal_date:%b %-d, %Y}", one.application
