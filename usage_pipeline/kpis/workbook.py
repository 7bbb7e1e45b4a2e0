"""The KPI sheet to take away: a workbook with definitions, data date and filters, and a picture of each KPI's months.

Figures are those of the page, of the same build. Differences say in words which way they go; colour only repeats it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from usage_pipeline.core.files import atomic_write
from usage_pipeline.core.formatting import currency, day, day_and_time
from usage_pipeline.core.texts import number, shown, text
from usage_pipeline.kpis.catalogue import Kpi, read_kpis
from usage_pipeline.kpis.selection import Sheet

# entities that one chart can tell apart
LINES = 8
# told apart by most colour-blind readers (Okabe and Ito), and each with a mark of its own
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_EXCEL_MARKS = ("circle", "square", "triangle", "diamond", "plus", "x", "star", "long_dash")
_NUMBERS = {",d": "#,##0", ",.1f": "#,##0.0", ",.2f": "#,##0.00"}
_PERCENT = "+0.0%;-0.0%;0.0%"
_IMPROVED, _DECLINED = ("#D9F0E2", "#0B5D33"), ("#FADCE0", "#8C1C2B")


@dataclass(frozen=True)
class _Column:
    """A column of a sheet: where it comes from, its width in characters, and how its numbers are written."""

    source: str
    width: int
    written: str = ""  # "own": as the KPI's numbers; "signed": likewise with a sign; else a format of Excel
    head: str = ""  # id of its head, where that is not the name of what it comes from

    @property
    def title(self) -> str:
        return text(f"workbook.head.{self.head or self.source}")


_ENTITY = [_Column("entity_type", 15), _Column("entity", 28)]
_KPI = [_Column("kpi", 34), _Column("kpi_unit", 22)]
_FIGURES = [
    _Column("value", 14, "own"),
    _Column("value_year_ago", 14, "own"),
    _Column("difference", 14, "signed"),
    _Column("percent", 12, _PERCENT),
    _Column("change_is", 13),
    _Column("value_before", 14, "own"),
    _Column("percent_before", 12, _PERCENT),
    _Column("per_active_account", 12, "#,##0.00"),
    _Column("active_accounts", 10, "#,##0"),
]
_REPORTED = [
    _Column("value_reported", 14, "own"),
    _Column("year_ago_reported", 14, "own"),
    _Column("value", 14, "own", head="current_value"),
    _Column("why_revised", 70),
]
_CHANGES = [_Column("big_change", 90), _Column("change_is", 13)]


def write_workbook(sheet: Sheet, file: Path) -> None:
    """Writes the workbook, whole or not at all; a second run replaces it."""
    import xlsxwriter

    # row after row to the disk: 3,000 accounts are 120,000 rows
    options = {"constant_memory": True, "default_date_format": "d mmm yyyy"}
    with atomic_write(file) as tmp_path, xlsxwriter.Workbook(str(tmp_path), options) as book:
        book.set_properties({"title": text("workbook.title", month=sheet.reference), "created": sheet.as_of})
        formats = _Formats(book)
        _about(book, formats, sheet)
        by_kpi = sheet.rows.sort_values(["kpi_rank", "entity_type"], kind="stable")
        _table(book, formats, text("workbook.sheet.kpis"), sheet.rows, [*_ENTITY, *_KPI, *_FIGURES])
        _table(book, formats, text("workbook.sheet.entities"), by_kpi, [*_KPI, *_ENTITY, *_FIGURES])
        changes = sheet.rows[sheet.rows["is_big_change"]]
        changes = changes.sort_values("percent", key=lambda share: share.abs(), ascending=False)
        _table(book, formats, text("workbook.sheet.changes"), changes, [*_CHANGES, *_KPI[:1], *_ENTITY, _FIGURES[3]])
        if len(sheet.reported):
            _table(book, formats, text("workbook.sheet.reported"), sheet.reported, [*_ENTITY, *_KPI, *_REPORTED])
        _charts(book, formats, sheet)
        _definitions(book, formats)


def write_charts(sheet: Sheet, folder: Path, progress: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Writes a PNG for each KPI of the selection: its months, for up to eight entities. Returns the files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    files = []
    for kpi, lines, told in _lines(sheet):
        figure = Figure(figsize=(11, 5.5), dpi=150, layout="constrained")
        _plot(figure, kpi, lines, told, sheet)
        file = folder / f"{kpi.name}.png"
        with atomic_write(file) as tmp_path:
            FigureCanvasAgg(figure).print_png(str(tmp_path))  # type: ignore[no-untyped-call]
        progress(f"{file} written")
        files.append(file)
    return files


def _lines(sheet: Sheet) -> Iterator[tuple[Kpi, pd.DataFrame, str]]:
    """Of each KPI its months (index) by entity (columns), at most eight, and which those are in words.

    Entities of one type: all accounts beside one account would be a line and a floor.
    """
    types = sheet.rows["entity_type"].unique()
    of_type = "application" if "application" in types else types[0]
    months, told_type = sheet.months[sheet.months["entity_type"] == of_type], shown("entity_type", of_type)
    for kpi in read_kpis().kpis:
        of_kpi = months[(months["kpi"] == kpi.title) & months["value"].notna()]
        if of_kpi.empty:
            continue
        wide = of_kpi.pivot_table(index="month_start", columns="entity", values="value", sort=True)
        wide = wide.reindex(pd.date_range(wide.index.min(), wide.index.max(), freq="MS"))
        largest = wide.ffill().iloc[-1].nlargest(LINES).index
        if wide.shape[1] > LINES:
            told = text("workbook.largest", entity_type=told_type, lines=LINES, entities=number(wide.shape[1]))
        else:
            told = text("workbook.all", entity_type=told_type)
        yield kpi, wide[largest], told


def _plot(figure: Any, kpi: Kpi, lines: pd.DataFrame, told: str, sheet: Sheet) -> None:
    from matplotlib.dates import DateFormatter
    from matplotlib.ticker import StrMethodFormatter

    axes = figure.add_subplot()
    for (label, values), colour, mark in zip(lines.items(), _COLOURS, _MARKS, strict=False):
        axes.plot(
            lines.index,
            values,
            color=colour,
            marker=mark,
            markersize=4,
            linewidth=1.6,
            label=str(label).replace("$", r"\$"),
        )
    axes.set_title(f"{kpi.title} {told}", loc="left", fontsize=13, fontweight="bold")
    axes.set_ylabel(kpi.unit)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}" if lines.max().max() >= 10 else "{x:,.2f}"))
    axes.xaxis.set_major_formatter(DateFormatter("%b %Y"))  # type: ignore[no-untyped-call]
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    figure.supxlabel(f"{kpi.description}\n{_source(sheet)}", fontsize=8, color="#555555", x=0.01, ha="left")


def _source(sheet: Sheet) -> str:
    return text("workbook.source", day=day(sheet.data_through), build=sheet.build_id)


# ---------------------------------------------------------------- sheets of the workbook


class _Formats:
    """The formats of a workbook, each made once."""

    def __init__(self, book: Any) -> None:
        self._book = book
        self._made: dict[str, Any] = {}

    def number(self, excel: str) -> Any:
        return self.of(f"number {excel}", num_format=excel)

    def of(self, name: str, **properties: Any) -> Any:
        if name not in self._made:
            self._made[name] = self._book.add_format({"valign": "top", **properties})
        return self._made[name]

    @property
    def head(self) -> Any:
        return self.of("head", bold=True, bg_color="#1B6CA8", font_color="#FFFFFF", text_wrap=True)


def _page(book: Any, name: str) -> Any:
    """A sheet that prints as wide as its paper."""
    page = book.add_worksheet(name)
    page.set_landscape()
    page.set_paper(9)  # A4
    page.fit_to_pages(1, 0)
    return page


def _about(book: Any, formats: _Formats, sheet: Sheet) -> None:
    first, entities = sheet.rows.iloc[0], len(sheet.rows[["entity_type", "entity_key"]].drop_duplicates())
    period = {"first": day(first["period_from"]), "last": day(first["period_to"])}
    rows = [
        (text("workbook.about_row.data_of"), sheet.sentence),
        (text("workbook.about_row.through"), text("workbook.last_complete_week", day=day(sheet.data_through))),
        (text("workbook.about_row.as_of"), day_and_time(sheet.as_of)),
        (text("workbook.about_row.build"), sheet.build_id),
        (text("workbook.about_row.period"), text("workbook.from_to", **period)),
        *sheet.selection.as_text(),
        (
            text("workbook.about_row.rows"),
            text("workbook.figures_of_entities", figures=number(len(sheet.rows)), entities=number(entities)),
        ),
        *(
            (text(f"workbook.about_row.{row}"), text(f"workbook.about_text.{row}"))
            for row in ("additive", "last_year", "averages", "colors")
        ),
    ]
    page = _page(book, text("workbook.about"))
    page.set_column(0, 0, 16)
    page.set_column(1, 1, 110)
    page.hide_gridlines(2)
    title = text("workbook.title_of_period", period=shown("kpi_period", sheet.selection.period), month=sheet.reference)
    page.write_string(0, 0, title, formats.of("title", bold=True, font_size=16))
    page.set_row(2, 32)  # the sentence about the data takes two lines
    for place, (name, said) in enumerate(rows, 2):
        page.write_string(place, 0, name, formats.of("name", bold=True))
        page.write_string(place, 1, said, formats.of("text", text_wrap=True))


def _table(book: Any, formats: _Formats, name: str, rows: pd.DataFrame, columns: list[_Column]) -> None:
    page = _page(book, name)
    page.freeze_panes(1, 0)
    page.repeat_rows(0)
    page.set_row(0, 32)
    for place, column in enumerate(columns):
        page.set_column(place, place, column.width)
        page.write_string(0, place, column.title, formats.head)
    page.autofilter(0, 0, max(len(rows), 1), len(columns) - 1)
    _colour(page, formats, columns, len(rows))
    if rows.empty:
        page.write_string(1, 0, text("workbook.nothing_picked"))
    written = [_number(form) for form in rows["number_format"]]
    values = [[None if pd.isna(v) else v for v in rows[column.source].tolist()] for column in columns]
    for nth, row in enumerate(zip(*values, strict=True)):
        for place, (value, column) in enumerate(zip(row, columns, strict=True)):
            if value is None:
                continue
            if isinstance(value, str):
                page.write_string(nth + 1, place, _word(column.source, value), formats.of("word", indent=1))
            else:
                page.write_number(nth + 1, place, value, formats.number(_excel(column.written, written[nth])))


def _word(column: str, value: str) -> str:
    """What people read for a value; an entity may be all accounts."""
    return shown("account" if column == "entity" else column, value)


def _excel(written: str, own: str) -> str:
    return {"own": own, "signed": f"+{own};-{own};{own}"}.get(written, written)


def _colour(page: Any, formats: _Formats, columns: list[_Column], rows: int) -> None:
    place = next((n for n, column in enumerate(columns) if column.source == "change_is"), None)
    if place is None:
        return
    for word, (background, ink) in {"improved": _IMPROVED, "declined": _DECLINED}.items():
        style = formats.of(word, bg_color=background, font_color=ink)
        rule = {"type": "cell", "criteria": "==", "value": f'"{shown("change_is", word)}"', "format": style}
        page.conditional_format(1, place, max(rows, 1), place, rule)


def _charts(book: Any, formats: _Formats, sheet: Sheet) -> None:
    """A chart of each KPI; its numbers stand on the sheet Months."""
    months = text("workbook.sheet.months")
    page, numbers = _page(book, text("workbook.sheet.charts")), _page(book, months)
    page.hide_gridlines(2)
    month = formats.of("month", num_format="mmm yyyy", align="left")
    numbers.set_column(0, 0, 12)
    numbers.set_column(1, LINES, 20)
    row = 0
    for place, (kpi, lines, told) in enumerate(_lines(sheet)):
        numbers.write_string(row, 0, kpi.title, formats.of("name", bold=True))
        for at, head in enumerate([text("workbook.month"), *map(str, lines.columns)]):
            # write_row would make formulas and links of names
            numbers.write_string(row + 1, at, head, formats.head)
        for nth, (start, values) in enumerate(lines.iterrows()):
            numbers.write_datetime(row + 2 + nth, 0, pd.Timestamp(str(start)).to_pydatetime(), month)
            for at, value in enumerate(values, 1):
                if pd.notna(value):
                    numbers.write_number(row + 2 + nth, at, value, formats.number(_number(kpi.format)))
        chart = book.add_chart({"type": "line"})
        last = row + 1 + len(lines)
        for at in range(lines.shape[1]):
            chart.add_series(
                {
                    "name": [months, row + 1, at + 1],
                    "categories": [months, row + 2, 0, last, 0],
                    "values": [months, row + 2, at + 1, last, at + 1],
                    "line": {"color": _COLOURS[at], "width": 1.75},
                    "marker": {"type": _EXCEL_MARKS[at], "size": 5, "fill": {"color": _COLOURS[at]}},
                }
            )
        chart.set_title({"name": f"{kpi.title} {told}", "name_font": {"size": 12}, "overlay": False})
        chart.set_x_axis({"num_format": "mmm yyyy", "num_font": {"rotation": -45}})
        chart.set_y_axis(
            {
                "name": kpi.unit,
                "min": 0,
                "num_format": "#,##0",
                "major_gridlines": {"visible": True, "line": {"color": "#DDDDDD"}},
            }
        )
        chart.set_legend({"position": "right"})
        chart.set_size({"width": 1100, "height": 380})
        page.insert_chart(place * 20, 0, chart)
        row = last + 2
    if row == 0:
        page.write_string(0, 0, text("workbook.no_month"))


def _definitions(book: Any, formats: _Formats) -> None:
    page = _page(book, text("workbook.sheet.definitions"))
    page.freeze_panes(1, 0)
    wrapped = formats.of("text", text_wrap=True)
    widths = {"kpi": 34, "meaning": 80, "unit": 22, "group": 14, "adds_up": 22, "good": 9, "big_change": 44}
    for place, (head, width) in enumerate(widths.items()):
        page.set_column(place, place, width)
        page.write_string(0, place, text(f"workbook.definition.{head}"), formats.head)
    for nth, kpi in enumerate(read_kpis().kpis, 1):
        share, floor = f"{100 * kpi.big_change.share:g}", f"{kpi.big_change.floor:,g}"
        big = text("workbook.big_change", share=share, floor=floor, unit=kpi.unit)
        texts = (kpi.title, kpi.description, kpi.unit, kpi.group, kpi.aggregation, kpi.good, big)
        for place, said in enumerate(texts):
            page.write_string(nth, place, said, wrapped)


def _number(form: str) -> str:
    """A number format of the catalogue (d3) as Excel writes it."""
    return f'"{currency()}"#,##0' if form == "$,.0f" else _NUMBERS[form]
