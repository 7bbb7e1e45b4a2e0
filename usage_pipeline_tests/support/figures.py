"""Figures as they stand on pages, in downloads, mails, the workbook and the brief: read from each, to be compared.

Belongs here: asking each place for what it shows of a scope (all, one CSM, one account). Does not: which of them must
agree (`superset/test_figures.py`, `superset/figures.yaml`).
"""

import html
import io
import re
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from usage_superset.chart_queries import payload
from usage_superset.html_cells import as_stored

from usage_pipeline.config.settings import MailSettings, Settings
from usage_pipeline.kpis.selection import Selection, read_selection
from usage_pipeline.kpis.workbook import write_workbook
from usage_pipeline.notifications import digest as digests
from usage_pipeline.pages.dashboards import chart_uuids, load_assets
from usage_pipeline.publishing.builds import BuildStore
from usage_pipeline_tests.support.superset_client import Client, listed

# columns of a mail's workbook, by the names that they have in tables
_DIGEST = {
    "Account": "account",
    "Priority": "urgency",
    "News": "news",
    "ARR at risk": "arr_at_risk",
    "ARR": "annual_value",
    "Renewal": "renewal_date",
    "Days to renewal": "days_to_renewal",
    "Last active": "last_used_on",
}


@dataclass(frozen=True)
class Scope:
    """Whose figures: of everybody where both are empty."""

    name: str
    owner: str = ""
    account: str = ""

    @property
    def picked(self) -> dict[str, str]:
        found = {"owner": self.owner, "account": self.account}
        return {column: value for column, value in found.items() if value}


class Pages:
    """All charts of some pages, asked as the pages ask, with the filters of a scope."""

    def __init__(self, asking: Client, slugs: list[str]) -> None:
        self.asking, self.slugs = asking, slugs
        self._kept: dict[tuple[str, str, Scope], pd.DataFrame | None] = {}
        assets, _ = load_assets()
        self.stems = {uuid: assets.files[uuid].stem for uuid in assets.charts}
        self.charts = {self.stems[uuid]: chart for uuid, chart in assets.charts.items()}
        self.datasets = {dataset["uuid"]: dataset for dataset in assets.datasets.values()}
        self.dashboards = {dashboard["slug"]: dashboard for dashboard in assets.dashboards.values()}

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Superset's number of each dataset, by the table's name."""
        return {item["table_name"]: item["id"] for item in listed(self.asking, "dataset")}

    def charts_of(self, slug: str) -> list[str]:
        return [self.stems[uuid] for uuid in dict.fromkeys(chart_uuids(self.dashboards[slug]))]

    def everywhere(self) -> list[tuple[str, str]]:
        """Page and chart, of every chart of every page."""
        return [(slug, name) for slug in self.slugs for name in self.charts_of(slug)]

    def dataset_of(self, name: str) -> dict[str, Any]:
        return self.datasets[self.charts[name]["dataset_uuid"]]

    def columns_of(self, name: str) -> set[str]:
        return {column["column_name"] for column in self.dataset_of(name)["columns"]}

    def defaults(self, slug: str, name: str) -> list[dict[str, Any]]:
        """What the page's filters are set to when it opens, of those that reach the chart."""
        native = self.dashboards[slug]["metadata"]["native_filter_configuration"]
        items = [i for one in native for i in one["defaultDataMask"].get("extraFormData", {}).get("filters", [])]
        return [item for item in items if item["col"] in self.columns_of(name)]

    def request(self, slug: str, name: str, scope: Scope, result_format: str = "json") -> dict[str, Any] | None:
        """What the page asks for; None where the scope's filter does not reach the chart."""
        if not set(scope.picked) <= self.columns_of(name):
            return None
        filters = [{"col": column, "op": "IN", "val": [value]} for column, value in scope.picked.items()]
        filters += [item for item in self.defaults(slug, name) if item["col"] not in scope.picked]
        params = self.charts[name]["params"]
        number = self.numbers[self.dataset_of(name)["table_name"]]
        return payload(params, number, filters=filters, force=False, result_format=result_format)

    def answers(self, slug: str, name: str, scope: Scope) -> pd.DataFrame | None:
        """The rows of a chart (of a mixed one, of its first half): names as they are stored, days as timestamps."""
        key = (slug, name, scope)
        if key not in self._kept:
            body = self.request(slug, name, scope)
            self._kept[key] = None if body is None else self._rows(name, body)
        return self._kept[key]

    def _rows(self, name: str, body: dict[str, Any]) -> pd.DataFrame:
        answer = self.asking.post("/api/v1/chart/data", body)
        assert answer.status_code == 200, (name, answer.text[:400])
        result = answer.json()["result"][0]
        rows = pd.DataFrame(result["data"], columns=result["colnames"])
        for column, kind in zip(result["colnames"], result["coltypes"], strict=True):
            if kind == 2:  # a moment, in milliseconds
                rows[column] = pd.to_datetime(rows[column], unit="ms")
            elif rows[column].dtype.kind == "O":
                rows[column] = rows[column].map(as_stored)
        return rows

    def download(self, slug: str, name: str, scope: Scope) -> pd.DataFrame:
        """The same as CSV, texts as they stand in the file."""
        answer = self.asking.post("/api/v1/chart/data", self.request(slug, name, scope, "csv"))
        assert answer.status_code == 200, (name, answer.text[:400])
        return pd.read_csv(io.BytesIO(answer.content), keep_default_na=False, dtype=str)

    # ------------------------------------------------------------ the sheet of KPIs

    def kpi(self, title: str, scope: Scope) -> float | None:
        """A KPI of the newest complete week as its page shows it; None of one account, whose weeks it does not have."""
        entity = _entity(scope)
        if entity is None:
            return None
        chart = self.charts["kpis_of_entities"]
        picked = {"kpi_period": "week", "kpi": title, **entity, "reference": self._newest_week()}
        filters = [{"col": column, "op": "IN", "val": [value]} for column, value in picked.items()]
        body = payload(chart["params"], self.numbers["kpi_report"], filters=filters, force=False)
        (row,) = self._rows("kpis_of_entities", body).to_dict("records")
        return number_of(row["single_value"])

    def _newest_week(self) -> str:
        newest = self.answers("usage-over-time", "clicks_newest_week", Scope("all"))
        assert newest is not None
        return f"week of {newest['week_start'].max():%b %-d, %Y}"


def _entity(scope: Scope) -> dict[str, str] | None:
    if scope.account:
        return None
    return {"entity_type": "CSM", "entity": scope.owner} if scope.owner else {"entity_type": "all"}


def number_of(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


# ---------------------------------------------------------------- what leaves the pages


def kpis_of_workbook(settings: Settings, scope: Scope, folder: Path) -> pd.Series | None:
    """Values of the newest complete week by title of the KPI, as the workbook holds them."""
    entity = _entity(scope)
    if entity is None:
        return None
    picked = {column: (value,) for column, value in entity.items()}
    file = folder / f"{scope.name}.xlsx"
    write_workbook(read_selection(settings.home.published_dir / "current", Selection("week", **picked)), file)
    return pd.read_excel(file, sheet_name="KPIs of each entity").set_index("KPI")["Value"]


def calls_of_mails(settings: Settings) -> pd.DataFrame:
    """Every call that CSMs are told of by mail, from the workbooks that are attached, with the CSM as `owner`."""
    mail = MailSettings.model_validate({"from_address": "u@example.com", "pages_url": "https://usage.example.com"})
    store = BuildStore(settings.home.published_dir)
    build = store.current()
    assert build is not None
    found, _ = digests.read_digests(store, build)
    sheets = []
    for one in found:
        made = digests.write(mail, "Usage", one, "somebody@example.com")
        (attached,) = [part for part in made.walk() if part.get_content_disposition() == "attachment"]
        sheet = pd.read_excel(io.BytesIO(attached.get_content()))
        sheets.append(sheet.rename(columns=_DIGEST)[list(_DIGEST.values())].assign(owner=one.owner))
    return pd.concat(sheets, ignore_index=True)


class _Cells(HTMLParser):
    """The rows of all tables of a page, each a list of the texts of its cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, _attributes: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


@dataclass(frozen=True)
class Brief:
    """The brief of an account: texts of its tiles by label, and rows of its tables."""

    tiles: dict[str, str]
    rows: list[list[str]]

    def number(self, label: str) -> float:
        """The first number of a tile; of `5 of 6` the share."""
        numbers = [float(text.replace(",", "")) for text in re.findall(r"[\d,]*\d(?:\.\d+)?", self.tiles[label])]
        return numbers[0] / numbers[1] if " of " in self.tiles[label] else numbers[0]


def brief_of(visitor: Any, account: str) -> Brief:
    page = visitor.get(f"/brief/{quote(account, safe='')}").text
    tiles = re.findall(r"<dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", page, re.DOTALL)
    texts = {label: html.unescape(re.sub(r"<[^>]+>", "", text)).strip() for label, text in tiles}
    return Brief(texts, _Cells(page).rows)
