"""What a selection of filters must show, computed apart."""

import io
import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from usage_superset.chart_queries import payload

from usage_pipeline.config.settings import Settings
from usage_pipeline.kpis.catalogue import read_kpis
from usage_pipeline.kpis.selection import PERIODS, Selection, read_selection
from usage_pipeline.kpis.workbook import write_workbook
from usage_pipeline_tests.support import kpi_oracle
from usage_pipeline_tests.support.kpi_oracle import World
from usage_pipeline_tests.support.superset_client import CHARTS, Client

FIGURES = ["value", "value_year_ago", "value_before", "active_accounts"]


SHOWN = ["single_value", "single_year_ago", "single_before", "single_active_accounts"]


def expected_of(settings: Settings, world: World, without: Collection[str] = ()) -> pd.DataFrame:
    """The sheet from raw files: a row an entity (by its name on the page) x KPI x period."""
    file = settings.home.published_dir / "current" / "warehouse.duckdb"
    connection = duckdb.connect(str(file.resolve()), read_only=True)
    names = connection.execute(
        "SELECT DISTINCT entity_type, entity_key, entity, entity_group FROM mart.kpi_report"
    ).df()
    connection.close()
    told = kpi_oracle.sheet_of(world).items()
    rows = [(*key, *(values[name] for name in FIGURES)) for key, values in told if values["is_complete"]]
    keys = ["kpi", "entity_type", "entity_key", "kpi_period", "reference_day"]
    sheet = pd.DataFrame(rows, columns=[*keys, *FIGURES]).merge(names, on=["entity_type", "entity_key"])
    sheet = sheet.astype(dict.fromkeys(FIGURES, float))
    # what is not delivered is empty
    sheet.loc[sheet["kpi"].isin(list(without)), FIGURES[:3]] = np.nan
    return sheet


def combinations(expected: pd.DataFrame, count: int) -> list[tuple[Selection, pd.DataFrame]]:
    """What somebody may pick, with the rows that are left, at random; every entity type and period comes up."""
    dice, found = random.Random(11), []
    types, titles = sorted(expected["entity_type"].unique()), [kpi.title for kpi in read_kpis().kpis]
    while len(found) < count:
        period, entity_type = PERIODS[len(found) % len(PERIODS)], types[len(found) % len(types)]
        rows = expected[(expected["kpi_period"] == period) & (expected["entity_type"] == entity_type)]
        if rows.empty:  # the weeks of single accounts are not on the sheet
            period = "month"
            rows = expected[(expected["kpi_period"] == period) & (expected["entity_type"] == entity_type)]
        day = dice.choice(sorted(rows["reference_day"].unique()))
        rows = rows[rows["reference_day"] == day]
        picked: dict[str, tuple[str, ...]] = {"entity_type": (entity_type,)}
        if dice.random() < 0.6:
            picked["kpi"] = tuple(dice.sample(titles, dice.randint(1, 6)))
            rows = rows[rows["kpi"].isin(picked["kpi"])]
        if dice.random() < 0.5:
            names = sorted(rows["entity"].unique())
            picked["entity"] = tuple(dice.sample(names, dice.randint(1, min(8, len(names)))))
            rows = rows[rows["entity"].isin(picked["entity"])]
        elif dice.random() < 0.3:
            picked["entity_group"] = (dice.choice(sorted(rows["entity_group"].unique())),)
            rows = rows[rows["entity_group"].isin(picked["entity_group"])]
        found.append((Selection(period, day, **picked), rows))
    return found


def same(found: pd.DataFrame, rows: pd.DataFrame, told: str) -> None:
    """Every figure, and no row more or less."""
    wanted = rows.set_index(["entity", "kpi"])[FIGURES].sort_index()
    given = found.set_index(["entity", "kpi"])[FIGURES].astype(float).sort_index()
    assert list(given.index) == list(wanted.index), told
    assert np.isclose(given, wanted, rtol=1e-12, atol=1e-9, equal_nan=True).all(), told


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns that are compared, of a table as it was delivered, in the order of the chart."""
    chart = CHARTS["kpis_of_entities"]["params"]
    rows.columns = [*chart["groupby"], *chart["metrics"]]
    return rows.rename(columns=dict(zip(SHOWN, FIGURES, strict=True)))


def check_selections(viewer: Client, settings: Settings, expected: pd.DataFrame, folder: Path) -> int:
    """Compares 50 selections on the page, as CSV, XLSX and workbook; returns the figures compared."""
    chart = CHARTS["kpis_of_entities"]
    dataset = viewer.charts()[chart["slice_name"]]
    build, cells = settings.home.published_dir / "current", 0
    for selection, rows in combinations(expected, 50):
        told = str(selection)
        reference = (
            f"week of {selection.month:%b %-d, %Y}" if selection.period == "week" else f"{selection.month:%b %Y}"
        )
        picked = {name: list(getattr(selection, name)) for name in ("entity_type", "entity_group", "entity", "kpi")}
        picked |= {"kpi_period": [selection.period], "reference": [reference]}
        filters = [{"col": name, "op": "IN", "val": values} for name, values in picked.items() if values]

        def ask(kind: str, filters: Any = filters) -> Any:
            body = payload(chart["params"], dataset, filters=filters, result_format=kind)
            answer = viewer.post("/api/v1/chart/data", body)
            assert answer.status_code == 200, answer.text
            return answer

        same(table_of(pd.DataFrame(ask("json").json()["result"][0]["data"])), rows, told)
        same(table_of(pd.read_csv(io.BytesIO(ask("csv").content))), rows, told)
        same(table_of(pd.read_excel(io.BytesIO(ask("xlsx").content), sheet_name="Data")), rows, told)
        file = folder / "kpi-sheet.xlsx"
        write_workbook(read_selection(build, selection), file)
        for name in ("KPIs of each entity", "Entities of each KPI"):
            found = pd.read_excel(file, sheet_name=name).rename(
                columns={
                    "Entity": "entity",
                    "KPI": "kpi",
                    "Value": "value",
                    "Last year": "value_year_ago",
                    "Previous period": "value_before",
                    "Active accounts": "active_accounts",
                }
            )
            same(found, rows, f"{name}: {told}")
        cells += len(rows)
    return cells
