"""What comes from data is text wherever it is drawn: on pages, in SQL Lab, in downloads.

Superset draws a cell, a name in a legend or a tooltip that looks like HTML as HTML, so whoever names an account could
put pictures and links on everybody's pages. In what is drawn each `<` that could begin a tag is followed by a character
that is not seen (a word joiner), in data as in the names of columns that data became: no browser finds a tag there, and
no check for one. A page's filter that sends such a name back means the name as it is stored.

Values that are codes are drawn as words (`words.py`), and a filter means the code again.

No mart holds HTML. Names become links where a table is drawn (LINKS), and what a click on one filters by is the name
again; the status file alone writes a dot in a color. So filters and downloads know plain names only.

The box that searches a table in the browser looks at the whole cell, tag and all. So no word stands in the tag that is
not in the name: the names of its attributes hold characters that are not seen, which Superset's own cleaning of HTML
takes away before it is drawn, and the addresses are of one letter (`page_addresses.LETTERS`).
"""

import html
import re
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import quote

from usage_superset.downloads import as_whole_numbers, with_about, workbook
from usage_superset.page_addresses import LETTERS
from usage_superset.words import as_code, as_word, words_of

# a column of a table -> the page that its cells lead to, and the column of the same row that names what is shown there
LINKS = {
    "account": ("account", "account"),
    "application": ("application", "application"),
    "contacts": ("contacts", "account"),
    "call_status_text": ("record", "account"),
    "summary": ("data-status", None),
}
# rows about all of them have no page
_NO_PAGES = {"all accounts", "all applications", ".", ".."}
_UNSEEN = "\u2060"
_TITLE, _HREF = (_UNSEEN.join(attribute) for attribute in ("title", "href"))
_LINK = re.compile(rf'<a {_TITLE}="([^"<>]*)" {_HREF}="/[a-z]/[A-Za-z0-9._~%, -]*">[^<>]*</a>')
_DOT = re.compile(r'<span style="font-size: 22px; line-height: 16px; color: #[0-9a-f]{6}">&#9679;</span>')
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
# characters of names that an address takes as they are: their numbers (%20) would be found too
_AS_THEY_ARE = " ,"


def as_text(value: Any) -> Any:
    """A value in which no tag begins; numbers and the like as they are."""
    return _TAG.sub("<" + _UNSEEN, value) if isinstance(value, str) and "<" in value else value


def as_stored(value: Any) -> Any:
    """What `as_text` or `link` was given: a value, or a list of them, as a page's filter sends it."""
    if isinstance(value, list):
        return [as_stored(item) for item in value]
    if not isinstance(value, str):
        return value
    if found := _LINK.fullmatch(value):
        return html.unescape(found[1])
    return value.replace("<" + _UNSEEN, "<")


def link(text: Any, page: str, name: Any = "") -> Any:
    """A cell as a link to a page of ours; a text that names nothing stays a text.

    The text stands first, in `title`: by it a table is sorted in the browser.
    """
    if not (isinstance(text, str) and isinstance(name, str)) or not text or {text, name} & _NO_PAGES:
        return as_text(text)
    shown = html.escape(text)
    return f'<a {_TITLE}="{shown}" {_HREF}="/{LETTERS[page]}/{quote(name, safe=_AS_THEY_ARE)}">{shown}</a>'


def cell(column: Any, value: Any) -> Any:
    """What a page is given of a column's value where it is no link: a dot of ours, or text."""
    is_dot = column == "status_color" and isinstance(value, str) and _DOT.fullmatch(value)
    return value if is_dot else as_text(value)


def drawn(frame: Any, pages: frozenset[str] = frozenset()) -> Any:
    """A frame as a page may draw it: the same shape, with texts and names of columns that hold no tag of others.

    Names are links to those of `pages`; a chart that is no table has none.
    """
    made = frame.copy(deep=False)
    for place, column in enumerate(frame.columns):
        if frame.dtypes.iloc[place].kind != "O":
            continue
        values = frame.iloc[:, place]
        page, named_by = LINKS.get(column, ("", None)) if isinstance(column, str) else ("", None)
        if page not in pages:
            made.isetitem(place, [cell(column, value) for value in values])
        elif named_by is None:
            made.isetitem(place, [link(value, page) for value in values])
        elif named_by in frame.columns:
            names = frame[named_by]
            made.isetitem(place, [link(value, page, name) for value, name in zip(values, names, strict=True)])
        else:
            made.isetitem(place, [as_text(value) for value in values])
    if frame.columns.nlevels == 1:
        made.columns = frame.columns.map(as_text)
    return in_words(made)


def in_words(frame: Any) -> Any:
    """A frame with words in place of codes; the same frame where none of its columns has any."""
    told = {place: column for place, column in enumerate(frame.columns) if words_of(column)}
    if not told:
        return frame
    made = frame.copy(deep=False)
    for place, column in told.items():
        made.isetitem(place, [as_word(column, value) for value in frame.iloc[:, place]])
    return made


def _series_in_words(made: dict[str, Any], columns: list[Any]) -> dict[str, Any]:
    """An answer whose series are values of columns: their names in words, in the frame as in the labels."""
    turned = (column for column in columns if isinstance(column, str) and column not in made["df"].columns)
    groups = [column for column in turned if words_of(column)]
    if not groups:
        return made

    def word(part: Any) -> Any:
        return next((found for group in groups if (found := as_word(group, part)) != part), part)

    names = {name: ", ".join(map(str, map(word, parts))) for name, parts in made["label_map"].items() if len(parts) > 0}
    labels = {names[name]: [word(part) for part in parts] for name, parts in made["label_map"].items() if name in names}
    return made | {"df": made["df"].rename(columns=names), "label_map": labels}


# ---------------------------------------------------------------- where Superset draws and writes


def draw_data_as_text() -> None:
    """Puts this around Superset's own answers to charts, SQL Lab and downloads."""
    import superset.dataframe
    import superset.sql_lab
    from superset.common.query_context_processor import QueryContextProcessor
    from superset.common.query_object_factory import QueryObjectFactory
    from superset.utils import excel

    QueryContextProcessor.get_df_payload = _of_charts(QueryContextProcessor.get_df_payload)
    QueryObjectFactory.create = _with_stored_values(QueryObjectFactory.create)
    superset.dataframe.df_to_records = superset.sql_lab.df_to_records = _of_sql_lab(superset.dataframe.df_to_records)
    QueryContextProcessor.get_data = with_about(QueryContextProcessor.get_data)
    excel.df_to_excel = workbook


def _of_charts(payload_of: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    @wraps(payload_of)
    def payload(processor: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        from superset.common.chart_data import ChartDataResultFormat

        made = payload_of(processor, *args, **kwargs)
        if made.get("df") is None:
            return made
        context = processor._query_context
        if context.result_format in ChartDataResultFormat.table_like():
            return made | {"df": in_words(as_whole_numbers(_without_colors(made["df"])))}
        is_table = (context.form_data or {}).get("viz_type") == "table"
        made = _series_in_words(made, list(args[0].columns if args else kwargs["query_obj"].columns))
        labels = {as_text(name): [as_text(part) for part in parts] for name, parts in made["label_map"].items()}
        return made | {"df": drawn(made["df"], open_pages() if is_table else frozenset()), "label_map": labels}

    return payload


def _without_colors(frame: Any) -> Any:
    """A frame to take away: a dot of ours is a dot, and its color stands in the words beside it."""
    if "status_color" not in frame.columns:
        return frame
    return frame.assign(status_color=[_DOT.sub("\u25cf", value) for value in frame["status_color"]])


def _with_stored_values(create: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(create)
    def created(factory: Any, *args: Any, **kwargs: Any) -> Any:
        if filters := kwargs.get("filters"):
            kwargs["filters"] = [
                item | {"val": as_code(item.get("col"), as_stored(item["val"]))} if "val" in item else item
                for item in filters
            ]
        return create(factory, *args, **kwargs)

    return created


def _of_sql_lab(records_of: Callable[[Any], list[dict[str, Any]]]) -> Callable[[Any], list[dict[str, Any]]]:
    @wraps(records_of)
    def records(frame: Any) -> list[dict[str, Any]]:
        # the names of columns are drawn as text there, and rows are found by them
        return [{name: cell(name, value) for name, value in row.items()} for row in records_of(frame)]

    return records


def open_pages() -> frozenset[str]:
    """The pages that names lead to for the person of this request: contacts for their role alone."""
    from superset import security_manager
    from usage_superset.page_links import may_see_contacts

    everywhere = {"account", "application", "data-status"}
    if may_see_contacts():
        everywhere.add("contacts")
    if security_manager.is_admin() or security_manager.can_access("can_record", "Outcome"):
        everywhere.add("record")
    return frozenset(everywhere)
