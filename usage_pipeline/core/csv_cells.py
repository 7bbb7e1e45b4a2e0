"""Rows as CSV that a spreadsheet opens without running anything."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

# spreadsheets take a cell that begins so for a formula (OWASP, CSV injection)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(names: Sequence[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """RFC 4180, UTF-8, None as an empty cell; a text that could be a formula begins with an apostrophe."""
    made = io.StringIO(newline="")
    writer = csv.writer(made)
    writer.writerow(names)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return made.getvalue().encode()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
