"""What a reader picks of the KPI sheet of a published build, as on the page: entities, KPIs, one period."""

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from usage_pipeline.core.names import meant
from usage_pipeline.core.texts import text

if TYPE_CHECKING:
    # what only asks which periods there are starts without it
    import pandas as pd

PERIODS = ("month", "3 months", "6 months", "12 months", "year to date", "week")
# columns that may be picked by, with what a person calls them
_PICKED = {
    "entity_type": "entity type",
    "entity_group": "entity group",
    "entity": "entity",
    "kpi_group": "KPI group",
    "kpi": "KPI",
}


class SelectionError(ValueError):
    """There is nothing of what was picked; the message names it, and what there is."""


@dataclass(frozen=True)
class Selection:
    """What is picked; an empty list picks everything. `month`: any day of it (of the week); default the newest."""

    period: str = "month"
    month: date | None = None
    entity_type: tuple[str, ...] = ()
    entity_group: tuple[str, ...] = ()
    entity: tuple[str, ...] = ()
    kpi_group: tuple[str, ...] = ()
    kpi: tuple[str, ...] = ()

    def as_text(self) -> list[tuple[str, str]]:
        """Each filter with what it is set to."""
        everything = text("workbook.all_picked")
        picked = [
            (text(f"workbook.picked.{column}"), ", ".join(getattr(self, column)) or everything) for column in _PICKED
        ]
        return [(text("workbook.picked.period"), self.period), *picked]


@dataclass(frozen=True)
class Sheet:
    """The rows of a selection, and the build that they are of.

    rows: a row an entity x KPI; months: a row a KPI x entity x complete month (24 at most); reported: closed months.
    """

    selection: Selection
    rows: "pd.DataFrame"
    months: "pd.DataFrame"
    reported: "pd.DataFrame"
    build_id: str
    sentence: str
    as_of: datetime
    data_through: datetime

    @property
    def reference(self) -> str:
        return str(self.rows["reference"].iloc[0])


def read_selection(build: Path, selection: Selection) -> Sheet:
    """Reads `warehouse.duckdb` of a build's folder. Raises SelectionError."""
    connection = duckdb.connect(str((build / "warehouse.duckdb").resolve()), read_only=True)
    try:
        _check(connection, selection)
        period = _period_of(connection, selection)
        where, values = _where(selection)
        of_period = f"{where} AND kpi_period = $period AND reference_month = $reference"
        values |= {"period": selection.period, "reference": period}
        rows = connection.execute(
            "SELECT *, value - value_year_ago AS difference, (value - value_year_ago) / nullif(value_year_ago, 0) AS "
            "percent, (value - value_before) / nullif(value_before, 0) AS percent_before FROM mart.kpi_report "
            f"WHERE {of_period} ORDER BY entity_type, lower(entity), entity_key, kpi_rank",
            values,
        ).df()
        if rows.empty:
            raise SelectionError(f"nothing was in use or subscribed of what is picked, in that {selection.period}")
        reported = connection.execute(
            f"FROM mart.kpi_reported WHERE {of_period} ORDER BY entity_type, lower(entity), entity_key, kpi_rank",
            values,
        ).df()
        months = connection.execute(
            f"SELECT kpi, entity_type, entity_key, entity, month_start, value FROM mart.kpi_months WHERE {where} "
            "AND month_start <= $last AND month_start > $last - INTERVAL 24 MONTH ORDER BY ALL",
            {k: v for k, v in values.items() if k in where} | {"last": rows["period_to"].iloc[0]},
        ).df()
        found = connection.execute("SELECT build_id, as_of, data_through, sentence FROM mart.build").fetchone()
    finally:
        connection.close()
    assert found is not None
    build_id, as_of, data_through, sentence = found
    return Sheet(selection, rows, months, reported, build_id, sentence, as_of, data_through)


def _where(selection: Selection) -> tuple[str, dict[str, object]]:
    picked = {column: list(getattr(selection, column)) for column in _PICKED if getattr(selection, column)}
    return " AND ".join(["true", *(f"{column} IN (SELECT unnest(${column}))" for column in picked)]), dict(picked)


def _check(connection: duckdb.DuckDBPyConnection, selection: Selection) -> None:
    if selection.period not in PERIODS:
        raise SelectionError(f"there is no aggregation '{selection.period}'; there are {', '.join(PERIODS)}")
    for column, name in _PICKED.items():
        if picked := getattr(selection, column):
            known = [k for (k,) in connection.execute(f"SELECT DISTINCT {column} FROM mart.kpi_report").fetchall()]
            for wanted in picked:
                if wanted not in known:
                    raise SelectionError(f"there is no {name} '{wanted}'{meant(wanted, known)}")


def _period_of(connection: duckdb.DuckDBPyConnection, selection: Selection) -> datetime:
    """The reference month that is meant, or the newest complete one."""
    found = connection.execute(
        "SELECT DISTINCT reference_month FROM mart.kpi_report WHERE kpi_period = $period AND is_complete_period "
        "ORDER BY reference_month",
        {"period": selection.period},
    ).fetchall()
    known: list[datetime] = [month for (month,) in found]
    if not known:
        raise SelectionError(f"no {selection.period} is complete yet")
    if selection.month is None:
        return known[-1]
    is_week = selection.period == "week"
    for month in known:
        days = (selection.month - month.date()).days
        if 0 <= days < 7 if is_week else (month.year, month.month) == (selection.month.year, selection.month.month):
            return month
    shown = "%Y-%m-%d" if is_week else "%Y-%m"
    raise SelectionError(
        f"no complete {selection.period} ends with {selection.month:{shown}}; there are those that end with "
        f"{known[0]:{shown}} to {known[-1]:{shown}}"
    )
