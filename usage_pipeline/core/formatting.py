"""What machines say, in words for people who read pages: codes, durations, what checks found, why a run failed.

Everybody who may see the pages reads these words, and not everybody may see contacts: values that could be a person's
are left out here, once, for every text of the status file.
"""

import os
import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from usage_pipeline.core.texts import number, text

RUN_RESULTS = {
    "SUCCESS": "succeeded",
    "FAILURE": "failed",
    "CANCELED": "cancelled",
    "CANCELING": "being cancelled",
    "STARTED": "running",
    "STARTING": "starting",
    "QUEUED": "waiting",
    "NOT_STARTED": "waiting",
    "MANAGED": "waiting",
}
# steps that read personal data, and their checks: what an error that is none of ours repeats of it, nobody can tell
_PERSONAL = ("contacts", "account_contacts")
# their messages name files, keys, columns and checks, never the content of a row
_OURS = {
    "LockTimeoutError",
    "ConfigError",
    "DagsterAssetCheckFailedError",
    "EngineError",
    "Failure",
    "LakeError",
    "PublishError",
    "SourceError",
}
_E_MAIL = re.compile(r"[^\s'\"<>(),;:=]+@[^\s'\"<>(),;:=]+\.[^\s'\"<>(),;:=]+")
# DuckDB repeats the value that it could not convert
_VALUE = re.compile(r"""(string|value|input) (?P<quote>['"]).*?(?P=quote)""", re.IGNORECASE)
_LONGEST = 600


def without_values(said: str) -> str:
    """A text without e-mail addresses and without the values that an error of DuckDB repeats."""
    return _VALUE.sub(r"\1 (left out)", _E_MAIL.sub("(e-mail address)", said))


def cause_of_failure(step: str, error_class: str, message: str) -> str:
    """Why a step failed: what our own errors say as it stands, of any other its first line."""
    said = re.sub(rf"^(\w+\.)*{re.escape(error_class)}: ", "", message.strip())
    if error_class in _OURS:
        return shortened(f"{step}: {without_values(' '.join(said.split()))}")
    if step.startswith(_PERSONAL):
        return f"{step}: {error_class}; what it says could hold personal data, and stands in the Dagster UI only"
    first = said.splitlines()[0] if said else ""
    return shortened(f"{step}: {error_class}: {without_values(first)}")


def shortened(said: str, longest: int = _LONGEST) -> str:
    return said if len(said) <= longest else f"{said[: longest - 4].rstrip()} ..."


def as_text(name: str) -> str:
    """A name of ours as words: `no_quarantined_file` as `no quarantined file`."""
    return name.replace("_", " ")


def found_as_text(metadata: Mapping[str, Any]) -> str:
    """What a check found: `key: value` for each entry that holds anything, nested ones in a row."""
    parts = [f"{as_text(key)}: {_value(value)}" for key, value in metadata.items() if value not in ({}, [], "", None)]
    return without_values("; ".join(parts))


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6f}".rstrip("0").rstrip(".")
    return str(value)


def duration(seconds: float | None) -> str | None:
    """3723 as `1 h 2 min`, 83 as `1 min 23 s`, 0.4 as `less than 1 s`."""
    if seconds is None:
        return None
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole} s" if whole else "less than 1 s"


def counted(count: int, one: str, many: str) -> str:
    """`no file`, `1 file`, `1,234 files`."""
    return f"{count:,} {one if count == 1 else many}" if count else f"no {one}"


def date_format() -> str:
    """How days are written on pages, in mails and messages: strftime's, $USAGE_DATE_FORMAT or the language's."""
    return os.environ.get("USAGE_DATE_FORMAT") or text("format.day")


def currency() -> str:
    """The sign before amounts of money, from $USAGE_CURRENCY; amounts are taken to be in one currency."""
    return os.environ.get("USAGE_CURRENCY") or "$"


def money(amount: float) -> str:
    return f"{currency()}{number(amount)}"


def day(moment: date) -> str:
    return moment.strftime(date_format())


def day_and_time(moment: datetime) -> str:
    return f"{day(moment)} at {moment:%H:%M}"


def weeks_as_text(first: datetime, last: datetime) -> str:
    """Weeks by their Mondays: `Nov 9, 2026`, or `Nov 9, 2026 to Nov 22, 2026`, the last one's Sunday."""
    return f"{day(first)} to {day(last + timedelta(days=6))}"
