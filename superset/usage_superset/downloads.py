"""What a download holds: texts as texts, whole numbers without `.0`, workbooks that can be read as they open."""

import io
from typing import Any

# beyond it a fraction may look whole
_EXACT = 2.0**53
# characters of a column in a workbook
_WIDEST = 60


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

    options = {"strings_to_formulas": False, "strings_to_urls": False}
    made = io.BytesIO()
    with pd.ExcelWriter(
        made, engine="xlsxwriter", engine_kwargs={"options": options}, datetime_format="mmm d, yyyy"
    ) as writer:
        quote_formulas(frame).to_excel(writer, **kwargs)
        (sheet,) = writer.sheets.values()
        left = frame.index.nlevels if kwargs.get("index", True) else 0
        sheet.freeze_panes(frame.columns.nlevels, left)
        number = writer.book.add_format({"num_format": "#,##0.##"})
        for place in range(frame.shape[1]):
            values = frame.iloc[:, place]
            longest = max([_longest(frame.columns[place]), *(_longest(value) for value in values)])
            is_number = values.dtype.kind in "iuf"
            sheet.set_column(left + place, left + place, min(longest + 2, _WIDEST), number if is_number else None)
    return made.getvalue()


def _longest(value: Any) -> int:
    return len(f"{value:,.2f}" if isinstance(value, float) else str(value))
