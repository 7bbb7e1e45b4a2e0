"""What a download holds: texts as texts, whole numbers without `.0`, workbooks that can be read as they open.

A workbook of a chart says on its first sheet what it is, of when, and what its columns mean; its numbers are written
as the page writes them.
"""

import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from usage_superset.texts import number, text
from usage_superset.words import as_word

# beyond it a fraction may look whole
_EXACT = 2.0**53
# characters of a column in a workbook, and of a text that is read
_WIDEST, _READABLE = 60, 100
_PLAIN_NUMBER = "#,##0.##"
# D3's formats of numbers, as far as charts use them: sign, currency, thousands, decimals, no zeros at the end, kind
_D3 = re.compile(r"(\+?)(\$?)(,?)(?:\.(\d+))?(~?)([dfs%]?)")


@dataclass(frozen=True)
class About:
    """What the first sheet of a chart's workbook says."""

    title: str
    facts: list[tuple[str, str]]
    columns: list[tuple[str, str]]  # title of a column, what it is
    formats: Mapping[str, str] = field(default_factory=dict)  # title of a column, its numbers in D3's words


_about: ContextVar[About | None] = ContextVar("about", default=None)


def as_whole_numbers(frame: Any) -> Any:
    """A frame whose columns of whole numbers are written without `.0`: one empty cell made them fractions."""
    made = frame.copy(deep=False)
    for place, kind in enumerate(frame.dtypes):
        if kind.kind != "f":
            continue
        known = frame.iloc[:, place].dropna()
        if len(known) and (known.abs() < _EXACT).all() and (known % 1 == 0).all():
            made.isetitem(place, frame.iloc[:, place].astype("Int64"))
    return made


def workbook(frame: Any, **kwargs: Any) -> bytes:
    """A frame as XLSX: texts are texts, whatever they begin with; the head stays in sight, columns are wide enough."""
    import pandas as pd
    from superset.utils.excel import quote_formulas

    about = _about.get()
    options = {"strings_to_formulas": False, "strings_to_urls": False}
    made = io.BytesIO()
    with pd.ExcelWriter(
        made, engine="xlsxwriter", engine_kwargs={"options": options}, datetime_format="mmm d, yyyy"
    ) as writer:
        if about is not None:
            _write_about(writer.book, about)
        quote_formulas(frame).to_excel(writer, **({"sheet_name": text("download.data")} | kwargs))
        sheet = list(writer.sheets.values())[-1]
        left = frame.index.nlevels if kwargs.get("index", True) else 0
        sheet.freeze_panes(frame.columns.nlevels, left)
        for place in range(frame.shape[1]):
            title, values = frame.columns[place], frame.iloc[:, place]
            longest = max([_longest(title), *(_longest(value) for value in values)])
            written = excel_format(about.formats.get(str(title), "") if about else "")
            form = writer.book.add_format({"num_format": written}) if values.dtype.kind in "iuf" else None
            sheet.set_column(left + place, left + place, min(longest + 2, _WIDEST), form)
    return made.getvalue()


def excel_format(d3: str) -> str:
    """A format of numbers of D3, as Excel writes it; the plain one where D3's says something else."""
    from flask import current_app

    found = _D3.fullmatch(d3)
    if not d3 or found is None:
        return _PLAIN_NUMBER
    sign, money, thousands, decimals, trimmed, kind = found.groups()
    made = "#,##0" if thousands else "0"
    if int(decimals or 0) and kind not in ("d", "s"):
        made += "." + ("#" if trimmed else "0") * int(decimals)
    if kind == "%":
        made += "%"
    if money:
        before, after = current_app.config["D3_FORMAT"]["currency"]
        made = f"{_quoted(before)}{made}{_quoted(after)}"
    return f"+{made};-{made};{made}" if sign else made


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "") + '"' if text else ""


def with_about(get_data: Callable[..., Any]) -> Callable[..., Any]:
    """Around the writing of a chart's download: the workbook learns which chart it is of."""

    @wraps(get_data)
    def data(processor: Any, df: Any, coltypes: Any) -> Any:
        from superset.common.chart_data import ChartDataResultFormat

        if processor._query_context.result_format != ChartDataResultFormat.XLSX:
            return get_data(processor, df, coltypes)
        token = _about.set(_about_chart(processor, df))
        try:
            return get_data(processor, df, coltypes)
        finally:
            _about.reset(token)

    return data


def _about_chart(processor: Any, frame: Any) -> About:
    context, dataset = processor._query_context, processor._qc_datasource
    titles = dataset.data.get("verbose_map", {})
    chart, form = context.slice_, context.form_data or {}
    said = {item.column_name: item.description for item in dataset.columns}
    said |= {item.metric_name: item.description for item in dataset.metrics}
    formats = {item.metric_name: item.d3format for item in dataset.metrics if item.d3format}
    formats |= {
        name: shown["d3NumberFormat"]
        for name, shown in (form.get("column_config") or {}).items()
        if shown.get("d3NumberFormat")
    }
    return About(
        title=chart.slice_name if chart else str(dataset.table_name),
        facts=[
            *_what_and_when(chart, len(frame)),
            *((text("download.filter"), told) for told in _filters(context, titles)),
        ],
        columns=[(str(titles.get(name, name)), said.get(name) or "") for name in frame.columns],
        formats={str(titles.get(name, name)): formats[name] for name in frame.columns if name in formats},
    )


def _what_and_when(chart: Any, rows: int) -> Iterator[tuple[str, str]]:
    from usage_superset.rows import rows_of

    if chart is not None and chart.description:
        yield text("download.what"), chart.description
    for build in rows_of("build", ["sentence", "build_id"]):
        yield text("download.data"), build["sentence"]
        yield text("download.build"), str(build["build_id"])
    yield text("download.rows"), number(rows)


_WORDS = {
    "==": "is",
    "!=": "is_not",
    "IN": "is_one_of",
    "NOT IN": "is_none_of",
    "IS NOT NULL": "is_known",
    "TEMPORAL_RANGE": "in",
}


def _filters(context: Any, titles: Mapping[str, str]) -> Iterator[str]:
    """What left rows out, in words; each once."""
    told = set()
    for query in context.queries:
        for item in query.filter or []:
            operator, value = str(item["op"]), item.get("val")
            if operator == "TEMPORAL_RANGE" and value in (None, "No filter"):
                continue
            column = item["col"] if isinstance(item["col"], str) else item["col"].get("label", "")
            several = value if isinstance(value, list | tuple) else [] if value is None else [value]
            values = ", ".join(str(as_word(column, one)) for one in several)
            word = text(f"download.{_WORDS[operator]}") if operator in _WORDS else operator.lower()
            said = f"{titles.get(column, column)} {word} {values}".strip()
            if said not in told:
                told.add(said)
                yield said


def _write_about(book: Any, about: About) -> None:
    page = book.add_worksheet(text("workbook.about"))
    name, wrapped = book.add_format({"bold": True, "valign": "top"}), book.add_format({"text_wrap": True})
    page.set_column(0, 0, 30)
    page.set_column(1, 1, _READABLE)
    page.write_string(0, 0, about.title, book.add_format({"bold": True, "font_size": 14}))
    row = 2
    for part in (about.facts, [(text("download.columns"), text("download.what_they_mean")), *about.columns]):
        for what, said in part:
            page.write_string(row, 0, what, name)
            page.write_string(row, 1, said, wrapped)
            row += 1
        row += 1


def _longest(value: Any) -> int:
    return len(f"{value:,.2f}" if isinstance(value, float) else str(value))
