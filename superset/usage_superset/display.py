"""How days and amounts of money are written on pages; the pipeline's texts follow the same two variables."""

import os

# of the assets; USAGE_DATE_FORMAT may ask for another one
DATE_FORMAT = "%b %-d, %Y"


def date_format() -> str:
    return os.environ.get("USAGE_DATE_FORMAT") or DATE_FORMAT


def currency() -> str:
    return os.environ.get("USAGE_CURRENCY") or "$"
