"""The last tab of every dashboard: what each of its figures and words means, and whether it can be added up.

Belongs here: making that text, as ids, from the catalogue and the dashboard's own charts. `make format` writes it into
the YAML.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from usage_pipeline.core.tables import COLUMNS, METRICS, NOTE_IDS, Column, Metric
from usage_pipeline.core.texts import slug
from usage_pipeline.kpis.catalogue import KPIS, text_ids

_KPI_TABLE = "kpi_report"
TAB, TEXT, TITLE = "TAB-help", "MARKDOWN-help", "{help.tab}"
_ADDED_UP = "{help.can_it_be_added_up}"
# a row of the table, in the units of Superset's grid, and what stands above and below
_ROW, _AROUND = 6.5, 60


def help_text(charts: list[tuple[str, set[str]]]) -> str:
    """Markdown with ids in place of texts, for charts of (table, names of the columns and metrics shown), in the
    order of the page.
    """
    figures, words = _figures(charts), _words(charts)
    lines = ["#### {help.how_to_read}", "", *(f"- {{{note}}}" for note in NOTE_IDS), ""]
    if figures:
        lines += ["#### {help.figures}", "", _row("{help.figure}", "{help.meaning_of_figure}", _ADDED_UP), _rule(3)]
        lines += [_figure(entry) for entry in figures]
    if any(table == _KPI_TABLE for table, _ in charts):
        head = _row("{help.kpi}", "{help.meaning_of_figure}", "{help.unit}", _ADDED_UP)
        lines += ["", "#### {help.kpis}", "", head, _rule(4), *_kpis()]
    if words:
        lines += ["", "#### {help.words}", "", "| | {help.word} | {help.meaning} |", _rule(3)]
        lines += [
            _row(f"{{{c.text_id}.title}}", f"**{word}**", f"{{{c.text_id}.word.{slug(word)}}}")
            for c in words
            for word in c.words
        ]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns


def _figure(entry: Column | Metric) -> str:
    adds_up = f"{{help.aggregation.{entry.aggregation}}}"
    return _row(f"**{{{entry.text_id}.title}}**", f"{{{entry.text_id}.description}}", adds_up)


def _kpis() -> Iterator[str]:
    for name, kpi in yaml.load(KPIS.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["kpis"].items():
        ids = {field: f"{{{key}}}" for field, key in text_ids(name, kpi["unit"], kpi["group"]).items()}
        adds_up = f"{{help.aggregation.{kpi['aggregation']}}}"
        yield _row(f"**{ids['title']}**", ids["description"], ids["unit"], adds_up)


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


def _words(charts: list[tuple[str, set[str]]]) -> list[Column | Metric]:
    named = {name for _, names in charts for name in names}
    columns = [column for name, column in COLUMNS.items() if name in named and column.words]
    metrics = {(table, name): METRICS.get(table, {}).get(name) for table, names in charts for name in names}
    return [*columns, *(metric for _, metric in sorted(metrics.items()) if metric is not None and metric.words)]


def _entries(table: str, names: set[str]) -> Iterator[Column | Metric]:
    metrics = METRICS.get(table, {})
    yield from (metrics[name] for name in sorted(names) if name in metrics)
    yield from (COLUMNS[name] for name in sorted(names) if name in COLUMNS and name not in metrics)
