"""The last tab of every dashboard: what each of its figures and words means, and whether it can be added up.

Belongs here: making that text from the catalogue and the dashboard's own charts. `make format` writes it into the YAML.
"""

from collections.abc import Iterator
from typing import Any

from usage_pipeline.core.tables import COLUMNS, METRICS, NOTES, Column, Metric
from usage_pipeline.kpis.catalogue import read_kpis

_KPI_TABLE = "kpi_report"
TAB, TEXT, TITLE = "TAB-help", "MARKDOWN-help", "Definitions"
_AGGREGATION = {
    "additive": "yes",
    "semi_additive": "over accounts and applications; not over weeks or periods",
    "non_additive": "no",
}
# a row of the table, in the units of Superset's grid, and what stands above and below
_ROW, _AROUND = 6.5, 60


def help_text(charts: list[tuple[str, set[str]]]) -> str:
    """Markdown for charts of (table, names of the columns and metrics that it shows), in the order of the page."""
    figures, words = _figures(charts), _words(charts)
    lines = ["#### How to read this page", "", *(f"- {note}" for note in NOTES), ""]
    if figures:
        lines += ["#### Figures", "", "| figure | what it means | can it be added up? |", "|---|---|---|"]
        lines += [f"| **{e.title}** | {_cell(e.description)} | {_AGGREGATION[str(e.aggregation)]} |" for e in figures]
    if any(table == _KPI_TABLE for table, _ in charts):
        lines += ["", "#### KPIs", "", "| KPI | what it means | unit | can it be added up? |", "|---|---|---|---|"]
        lines += [
            f"| **{k.title}** | {_cell(k.description)} | {k.unit} | {_AGGREGATION[k.aggregation]} |"
            for k in read_kpis().kpis
        ]
    if words:
        lines += ["", "#### Words", "", "| | word | meaning |", "|---|---|---|"]
        lines += [f"| {c.title} | **{word}** | {_cell(text)} |" for c in words for word, text in c.words.items()]
    return "\n".join(lines) + "\n"


def place_help(dashboard: dict[str, Any], text: str) -> None:
    """Puts the text into the help tab of a dashboard's layout; makes the tab where there is none yet."""
    position = dashboard["position"]
    tabs = next((cell for cell in position.values() if isinstance(cell, dict) and cell.get("type") == "TABS"), None)
    if tabs is None:
        tabs = _with_tabs(position, dashboard["dashboard_title"])
    parents = [*tabs["parents"], tabs["id"]]
    tabs["children"] = [*(tab for tab in tabs["children"] if tab != TAB), TAB]
    position[TAB] = _tab(TAB, TITLE, ["ROW-help"], parents)
    inside = [*parents, TAB]
    height = _AROUND + round(_ROW * text.count("\n| "))
    position["ROW-help"] = {
        "children": [TEXT],
        "id": "ROW-help",
        "meta": {"background": "BACKGROUND_TRANSPARENT"},
        "parents": inside,
        "type": "ROW",
    }
    position[TEXT] = {
        "children": [],
        "id": TEXT,
        "meta": {"code": text, "height": height, "width": 12},
        "parents": [*inside, "ROW-help"],
        "type": "MARKDOWN",
    }


def _with_tabs(position: dict[str, Any], title: str) -> dict[str, Any]:
    """Moves the rows of a layout without tabs into a first one."""
    grid, here = position["GRID_ID"], ["ROOT_ID", "GRID_ID"]
    rows, grid["children"] = grid["children"], ["TABS-1"]
    for cell in position.values():
        if isinstance(cell, dict) and cell.get("parents", [])[:2] == here:
            cell["parents"] = [*here, "TABS-1", "TAB-page", *cell["parents"][2:]]
    position["TAB-page"] = _tab("TAB-page", title, rows, [*here, "TABS-1"])
    position["TABS-1"] = {"children": ["TAB-page"], "id": "TABS-1", "meta": {}, "parents": here, "type": "TABS"}
    made: dict[str, Any] = position["TABS-1"]
    return made


def _tab(key: str, title: str, children: list[str], parents: list[str]) -> dict[str, Any]:
    meta = {"text": title, "defaultText": "Tab title", "placeholder": "Tab title"}
    return {"children": children, "id": key, "meta": meta, "parents": parents, "type": "TAB"}


def _figures(charts: list[tuple[str, set[str]]]) -> list[Column | Metric]:
    """Numbers, each once: by its title and what it means."""
    found: dict[tuple[str, str], Column | Metric] = {}
    for table, names in charts:
        for entry in _entries(table, names):
            if entry.aggregation is not None:
                found.setdefault((entry.title, entry.description), entry)
    return list(found.values())


def _words(charts: list[tuple[str, set[str]]]) -> list[Column]:
    named = {name for _, names in charts for name in names}
    return [column for name, column in COLUMNS.items() if name in named and column.words]


def _entries(table: str, names: set[str]) -> Iterator[Column | Metric]:
    metrics = METRICS.get(table, {})
    yield from (metrics[name] for name in sorted(names) if name in metrics)
    yield from (COLUMNS[name] for name in sorted(names) if name in COLUMNS and name not in metrics)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
