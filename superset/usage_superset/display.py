"""How days, numbers and amounts of money are written on pages; the pipeline's texts follow the same three variables."""

import os
from typing import Any

from usage_superset.texts import number, text

# of the assets; language and USAGE_DATE_FORMAT may ask for another one
DATE_FORMAT = "%b %-d, %Y"


def date_format() -> str:
    return os.environ.get("USAGE_DATE_FORMAT") or text("format.day")


def currency() -> str:
    return os.environ.get("USAGE_CURRENCY") or "$"


def money(amount: float) -> str:
    return f"{currency()}{number(amount)}"


def d3_format() -> dict[str, Any]:
    """The same for numbers that Superset writes."""
    signs = {"decimal": text("format.decimal"), "thousands": text("format.thousands"), "grouping": [3]}
    return signs | {"currency": [currency(), ""]}


def d3_time_format() -> dict[str, Any]:
    """Names of days and months as Superset writes them on axes."""
    names = {"days": "days", "shortDays": "short_days", "months": "months", "shortMonths": "short_months"}
    forms = {"dateTime": "%x, %X", "date": "%-m/%-d/%Y", "time": "%-I:%M:%S %p", "periods": ["AM", "PM"]}
    return forms | {part: text(f"format.{name}").split() for part, name in names.items()}
