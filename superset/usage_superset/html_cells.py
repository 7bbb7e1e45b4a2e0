"""What comes from data is text wherever it is drawn: on pages, in SQL Lab, in downloads.

Superset draws a cell, a name in a legend or a tooltip that looks like HTML as HTML, so whoever names an account could
put pictures and links on everybody's pages. Only the link columns of our marts (LINK_COLUMNS) hold HTML, and only
links to pages of ours, and the status file holds a dot in a color; letter by letter as they are written there. In all
else each `<` that could begin a tag is followed by a character that is not seen (a word joiner), in data as in the
names of columns that data became: no browser finds a tag there, and no check for one. A page's filter that sends such
a name back means the name as it is stored.

Downloads hold data as it is: texts are texts (no formulas, no links of their own), a link is its whole address.
"""

import html
import io
import re
from collections.abc import Callable
from functools import wraps
from typing import Any

LINK_COLUMNS = frozenset({"account_page", "application_page", "contacts", "health_link", "record_outcome"})
_LINK = re.compile(
    r'<a href="(/(?:account|application|contacts|call-list|outcome)/[A-Za-z0-9._~%-]*|/superset/dashboard/health/)">'
    r"(?:open|contacts|data status|record)</a>"
)
_DOT = re.compile(r'<span style="font-size: 22px; line-height: 16px; color: #[0-9a-f]{6}">&#9679;</span>')
# the HTML that a column may hold
_OURS = dict.fromkeys(LINK_COLUMNS, _LINK) | {"status_color": _DOT}
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_UNSEEN = "\u2060"


def as_text(value: Any) -> Any:
    """A value in which no tag begins; numbers and the like as they are."""
    return _TAG.sub("<" + _UNSEEN, value) if isinstance(value, str) and "<" in value else value


def as_stored(value: Any) -> Any:
    """What `as_text` was given: a value, or a list of them, as a page's filter sends it."""
    if isinstance(value, list):
        return [as_stored(item) for item in value]
    return value.replace("<" + _UNSEEN, "<") if isinstance(value, str) else value


def as_address(value: Any, host: str) -> Any:
    """A cell of a link column in a download: the address that it leads to; what is no link of ours is itself."""
    found = _LINK.fullmatch(value) if isinstance(value, str) else None
    return host.rstrip("/") + html.unescape(found[1]) if found else value


def cell(column: Any, value: Any) -> Any:
    """What a page is given of a column's value: HTML of ours, or text."""
    ours = _OURS.get(column)
    return value if ours and isinstance(value, str) and ours.fullmatch(value) else as_text(value)


def drawn(frame: Any) -> Any:
    """A frame as a page may draw it: the same shape, with texts and names of columns that hold no tag."""
    made = frame.copy(deep=False)
    for place, name in enumerate(frame.columns):
        if frame.dtypes.iloc[place].hasobject:
            made.isetitem(place, [cell(name, value) for value in frame.iloc[:, place]])
    if frame.columns.nlevels == 1:
        made.columns = frame.columns.map(as_text)
    return made


def taken_away(frame: Any, host: str) -> Any:
    """A frame as a download holds it: links as addresses."""
    made = frame.copy(deep=False)
    for place, name in enumerate(frame.columns):
        if name in LINK_COLUMNS:
            made.isetitem(place, [as_address(value, host) for value in frame.iloc[:, place]])
    return made


# ---------------------------------------------------------------- where Superset draws and writes


def draw_data_as_text() -> None:
    """Puts this around Superset's own answers to charts, SQL Lab and downloads."""
    import superset.dataframe
    import superset.sql_lab
    from superset.common.query_context_processor import QueryContextProcessor
    from superset.common.query_object_factory import QueryObjectFactory
    from superset.utils import csv, excel

    QueryContextProcessor.get_df_payload = _of_charts(QueryContextProcessor.get_df_payload)
    QueryObjectFactory.create = _with_stored_values(QueryObjectFactory.create)
    superset.dataframe.df_to_records = superset.sql_lab.df_to_records = _of_sql_lab(superset.dataframe.df_to_records)
    csv.df_to_escaped_csv = _of_downloads(csv.df_to_escaped_csv)
    excel.df_to_excel = _of_downloads(workbook)


def _of_charts(payload_of: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    @wraps(payload_of)
    def payload(processor: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        from superset.common.chart_data import ChartDataResultFormat

        made = payload_of(processor, *args, **kwargs)
        if made.get("df") is None:
            return made
        if processor._query_context.result_format in ChartDataResultFormat.table_like():
            # here, where columns have their own names still, and not those that are shown
            return made | {"df": taken_away(made["df"], _host())}
        labels = {as_text(name): [as_text(part) for part in parts] for name, parts in made["label_map"].items()}
        return made | {"df": drawn(made["df"]), "label_map": labels}

    return payload


def _with_stored_values(create: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(create)
    def created(factory: Any, *args: Any, **kwargs: Any) -> Any:
        if filters := kwargs.get("filters"):
            kwargs["filters"] = [item | {"val": as_stored(item["val"])} if "val" in item else item for item in filters]
        return create(factory, *args, **kwargs)

    return created


def _of_sql_lab(records_of: Callable[[Any], list[dict[str, Any]]]) -> Callable[[Any], list[dict[str, Any]]]:
    @wraps(records_of)
    def records(frame: Any) -> list[dict[str, Any]]:
        # the names of columns are drawn as text there, and rows are found by them
        return [{name: cell(name, value) for name, value in row.items()} for row in records_of(frame)]

    return records


def _of_downloads(export: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(export)
    def exported(frame: Any, *args: Any, **kwargs: Any) -> Any:
        return export(taken_away(frame, _host()), *args, **kwargs)

    return exported


def _host() -> str:
    from flask import request

    return str(request.host_url)


def workbook(frame: Any, **kwargs: Any) -> bytes:
    """A frame as XLSX: texts are texts, whatever they begin with; addresses of our own pages can be clicked."""
    import pandas as pd
    from superset.utils.excel import quote_formulas

    texts = {"strings_to_formulas": False, "strings_to_urls": False}
    page = re.compile(
        re.escape(_host()) + r"(?:account|application|contacts|call-list|outcome|superset)/[A-Za-z0-9._~%/-]*"
    )
    made = io.BytesIO()
    with pd.ExcelWriter(made, engine="xlsxwriter", engine_kwargs={"options": texts}) as writer:
        quote_formulas(frame).to_excel(writer, **kwargs)
        (sheet,) = writer.sheets.values()
        left = frame.index.nlevels if kwargs.get("index", True) else 0
        for place in range(frame.shape[1]):
            for row, value in enumerate(frame.iloc[:, place], frame.columns.nlevels):
                if isinstance(value, str) and page.fullmatch(value):
                    sheet.write_url(row, left + place, value)
    return made.getvalue()
