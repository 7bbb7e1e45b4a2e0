"""Cells: what one value of somebody else's column is as a value of ours, by the rules of `docs/reading.md`.

Belongs here: the SQL that converts a column of a type of theirs into a type of ours, the Python behind it for text that
can be written in many ways, and what a whole column says of cells that could be read in two ways. Does not: which
column is meant (`sources.py`), or what becomes of a row whose cell cannot be read (`usage_rows.sql`, `reference.py`).

A cell that cannot be read becomes NULL; `Cells.unreadable` tells it from one that holds nothing.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from zoneinfo import ZoneInfo

import duckdb
from duckdb import sqltypes
from duckdb.func import FunctionNullHandling

from usage_pipeline.config.settings import CurrencySettings, Source
from usage_pipeline.config.source_schemas import CALL_STATUSES, END_REASONS, SourceColumn
from usage_pipeline.core.sql import literal

NOTHING = '"NULL"'
_WHOLE = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")
)
# of these, what fits a count of ours is not all
_WIDER = frozenset(("HUGEINT", "UBIGINT", "UHUGEINT"))
FLOATING = {"DOUBLE": 2**53, "FLOAT": 2**24}
_WITHOUT_ZONE = frozenset(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"))
_WITH_ZONE = "TIMESTAMP WITH TIME ZONE"
_TIMES = _WITHOUT_ZONE | {_WITH_ZONE, "DATE"}
# columns that name something: a number with a fraction names nothing
KEYS = ("account_id", "application", "user_id", "event_id")
_SPELLINGS = {"canceled": "cancelled", "churned": "cancelled", "terminated": "cancelled", "expired": "completed"}
# of the tasks and calls of Salesforce and HubSpot
_STATUS_SPELLINGS = {
    **dict.fromkeys(("completed", "complete", "closed"), "done"),
    **dict.fromkeys(("deferred", "rescheduled", "waiting", "waiting on someone else"), "snoozed"),
    **dict.fromkeys(("not started", "not_started", "in progress", "in_progress", "scheduled", "no_show"), "open"),
}
_YES, _NO = ("yes", "true", "y", "t", "1", "x"), ("no", "false", "n", "f", "0")
# columns that hold one of a few words of ours: these, and other spellings of them
WORDS = {"end_reason": (END_REASONS, _SPELLINGS), "call_status": (CALL_STATUSES, _STATUS_SPELLINGS)}
# the one form that DuckDB reads right by itself
ISO = r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?)?"
PLAIN_WHOLE = r"[+-]?\d{1,18}"
# letters of a text from which on it is neither a time nor a number
_LONGEST = 100
# words that often mean that there is nothing, which `sources check` asks about
SUSPECT_WORDS = ("na", "n/a", "null", "none", "-", "--", "nan", "nil", "#n/a", "\\n")


@dataclass(frozen=True)
class Reading:
    """How the cells of one source are read: what the configuration says, and what whole columns have settled.

    `day_order` is mdy, dmy, only (what can be read in one way alone) or open (nothing settles it). `decimals` holds
    point, comma or open for a column of ours, `words` what each word of theirs means in one. `currency` is that of
    amounts of money, None where there are none.
    """

    timezone: str
    partition_timezone: str | None = None
    null_values: tuple[str, ...] = ()
    date_order: str = "auto"
    decimal: str = "auto"
    day_order: str = "open"
    decimals: dict[str, str] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    currency: CurrencySettings | None = None

    @classmethod
    def of(cls, timezone: str, source: Source, currency: CurrencySettings | None = None) -> "Reading":
        return cls(
            timezone,
            source.partition_timezone,
            tuple(word.strip().lower() for word in source.null_values),
            source.date_order,
            source.decimal,
            words={"end_reason": source.end_reasons, "call_status": source.call_statuses},
            currency=currency,
        )

    def settled(self, day_order: str, decimals: dict[str, str]) -> "Reading":
        return replace(self, day_order=day_order, decimals=decimals)


# ---------------------------------------------------------------- types


def refused(column: SourceColumn, kind: str) -> str | None:
    """Why a column of theirs, of a DuckDB type, cannot be a column of ours, with the remedy; None where it can."""
    if kind == NOTHING:
        return None
    wanted, is_text = column.type, kind in ("VARCHAR", "JSON") or kind.startswith("ENUM")
    is_number = kind in _WHOLE or kind in FLOATING or (kind.startswith("DECIMAL(") and not kind.endswith("]"))
    if wanted in ("TIMESTAMP", "DATE"):
        if kind in _TIMES or is_text:
            return None
        remedy = (
            "if it counts seconds since 1970, map {sql: to_timestamp(column)}" if is_number else "map an expression"
        )
        return f"is {kind} and no day or time; {remedy}"
    if wanted == "VARCHAR":
        if is_text or is_number or kind in ("UUID", "BOOLEAN", "BLOB"):
            return None
        return f"is {kind} and no text or id; map an expression that makes it one"
    if wanted == "BOOLEAN":
        return (
            None if is_text or kind == "BOOLEAN" or kind in _WHOLE else f"is {kind} and no yes or no; map an expression"
        )
    return None if is_text or is_number else f"is {kind} and no number; map an expression that makes it one"


def is_exact_count(kind: str) -> bool:
    """Whether every value of a type is a whole number."""
    return kind in _WHOLE


# ---------------------------------------------------------------- SQL


def without_zeros(decimal: str) -> str:
    """SQL of a decimal number as text, without zeros that say nothing."""
    return f"regexp_replace(CAST({decimal} AS VARCHAR), '\\.0*$|(\\.\\d*[1-9])0+$', '\\1')"


def whole_text(expression: str, kind: str, other: str) -> str:
    """SQL of a number of floating point as text; `other` where it is not whole, or too large to be the one meant."""
    is_whole = f"{expression} = floor({expression}) AND abs({expression}) < {FLOATING[kind]}"
    return f"CASE WHEN {is_whole} THEN CAST(CAST({expression} AS HUGEINT) AS VARCHAR) ELSE {other} END"


@dataclass(frozen=True)
class Cell:
    """One column of theirs (an SQL expression of a DuckDB type) as a column of ours."""

    column: SourceColumn
    expression: str
    kind: str
    reading: Reading

    @property
    def is_text(self) -> bool:
        return self.kind in ("VARCHAR", "JSON", "BLOB") or self.kind.startswith("ENUM")

    @property
    def given(self) -> str:
        """SQL of what stands there: NULL where that is nothing. Text without the spaces around it."""
        if not self.is_text:
            return self.expression
        plain = self.expression if self.kind == "VARCHAR" else f"CAST({self.expression} AS VARCHAR)"
        if self.kind == "BLOB":
            plain = f"try(decode({self.expression}))"
        text = f"nullif(trim({plain}), '')"
        if self.reading.null_values:
            words = ", ".join(literal(word) for word in self.reading.null_values)
            text = f"CASE WHEN lower(trim({plain})) NOT IN ({words}) THEN {text} END"
        return text

    @property
    def value(self) -> str:
        """SQL of our value, of our type; NULL where there is none, or where it cannot be read."""
        wanted = self.column.type
        if self.kind == NOTHING:
            return f"CAST(NULL AS {wanted})"
        if wanted == "TIMESTAMP":
            return self._time(self.reading.timezone)
        if wanted == "DATE":
            return f"CAST({self._time(self.reading.timezone)} AS DATE)"
        if wanted == "VARCHAR":
            if self.column.name == "currency":
                return f"upper({self._text()})"
            return self._word() if self.column.name in WORDS else self._text()
        if wanted == "BIGINT":
            return self._count()
        if wanted == "DOUBLE":
            return self._amount()
        return self._boolean()

    @property
    def day(self) -> str:
        """SQL of the day, in our zone, that a time lies in."""
        if self.kind == NOTHING:
            return "CAST(NULL AS DATE)"
        return f"CAST({self._time(self.reading.timezone)} AS DATE)"

    @property
    def unreadable(self) -> str:
        """SQL of whether something stands there that cannot be read."""
        may_be_too_large = self.kind in _WIDER and self.column.type == "BIGINT"
        is_exact = self.kind in _WHOLE and self.column.type != "BOOLEAN" and not may_be_too_large
        if is_exact or self.kind in (NOTHING, "BOOLEAN", "UUID"):
            return "FALSE"
        if self.column.type == "VARCHAR" and self.column.name not in WORDS and self.kind == "VARCHAR":
            return "FALSE"
        not_ours = f"(({self.given}) IS NOT NULL AND ({self.value}) IS NULL)"
        if self.kind == "BLOB":
            return f"({self.expression} IS NOT NULL AND try(decode({self.expression})) IS NULL OR {not_ours})"
        return not_ours

    def _text(self) -> str:
        expression = self.expression
        if self.is_text:
            return self.given
        if self.kind in FLOATING:
            return whole_text(
                expression, self.kind, "NULL" if self.column.name in KEYS else f"CAST({expression} AS VARCHAR)"
            )
        if self.kind.startswith("DECIMAL"):
            return without_zeros(expression)
        return f"CAST({expression} AS VARCHAR)"

    def _time(self, zone: str) -> str:
        expression, ours = self.expression, literal(zone)
        theirs = self.reading.partition_timezone
        if self.kind == _WITH_ZONE:
            return f"CAST({expression} AT TIME ZONE {ours} AS TIMESTAMP)"
        if self.kind == "DATE":
            return f"TRY_CAST({expression} AS TIMESTAMP)"
        moved = f" AT TIME ZONE {literal(theirs)} AT TIME ZONE {ours}" if theirs else ""
        if self.kind in _WITHOUT_ZONE:
            # of another unit, a time can lie beyond what ours holds
            held = "CAST" if self.kind == "TIMESTAMP" else "TRY_CAST"
            return f"CAST({held}({expression} AS TIMESTAMP){moved} AS TIMESTAMP)"
        text, order = self.given, literal(self.reading.day_order)
        iso = f"CAST(TRY_CAST({text} AS TIMESTAMP){moved} AS TIMESTAMP)"
        other = f"cell_time({text}, {order}, {ours}, {literal(theirs or '')})"
        return f"CASE WHEN regexp_full_match({text}, '{ISO}') THEN {iso} ELSE {other} END"

    def _count(self) -> str:
        expression = self.expression
        if self.kind in _WHOLE:
            return f"TRY_CAST({expression} AS BIGINT)"
        if self.kind in FLOATING:
            # engines cast what is too large for a count in ways of their own
            is_whole = f"{expression} = floor({expression}) AND abs({expression}) < 9.2e18"
            return f"CASE WHEN {is_whole} THEN CAST({expression} AS BIGINT) END"
        if self.kind.startswith("DECIMAL"):
            return f"CASE WHEN {expression} = floor({expression}) THEN TRY_CAST({expression} AS BIGINT) END"
        text = self.given
        plain = f"regexp_full_match({text}, '{PLAIN_WHOLE}')"
        return f"CASE WHEN {plain} THEN CAST({text} AS BIGINT) ELSE cell_count({text}, {self._decimal}) END"

    def _amount(self) -> str:
        if not self.is_text:
            value = f"CAST({self.expression} AS DOUBLE)"
            return f"CASE WHEN isfinite({value}) THEN {value} END" if self.kind in FLOATING else value
        text = self.given
        plain = f"regexp_full_match({text}, '{PLAIN_WHOLE}')"
        return f"CASE WHEN {plain} THEN CAST({text} AS DOUBLE) ELSE cell_amount({text}, {self._decimal}) END"

    @property
    def _decimal(self) -> str:
        return literal(self.reading.decimals.get(self.column.name, "open"))

    def _boolean(self) -> str:
        if self.kind == "BOOLEAN":
            return self.expression
        if self.kind in _WHOLE:
            return f"CASE {self.expression} WHEN 1 THEN TRUE WHEN 0 THEN FALSE END"
        yes, no = (", ".join(literal(word) for word in words) for words in (_YES, _NO))
        text = f"lower({self.given})"
        return f"CASE WHEN {text} IN ({yes}) THEN TRUE WHEN {text} IN ({no}) THEN FALSE END"

    def _word(self) -> str:
        ours, spellings = WORDS[self.column.name]
        theirs = self.reading.words.get(self.column.name, {})
        known = {word: word for word in ours} | spellings
        known |= {word.strip().lower(): meant for word, meant in theirs.items()}
        cases = " ".join(f"WHEN {literal(word)} THEN {literal(meant)}" for word, meant in known.items())
        return f"CASE lower({self._text()}) {cases} END"


def install(connection: duckdb.DuckDBPyConnection) -> None:
    """Gives a connection the functions that the SQL of a `Cell` calls; a second time does nothing."""
    known = connection.execute("SELECT 1 FROM duckdb_functions() WHERE function_name = 'cell_time'").fetchone()
    if known:
        return
    text, nulls = sqltypes.VARCHAR, FunctionNullHandling.SPECIAL
    connection.create_function("cell_time", time_of, [text] * 4, sqltypes.TIMESTAMP, null_handling=nulls)
    connection.create_function("cell_count", count_of, [text] * 2, sqltypes.BIGINT, null_handling=nulls)
    connection.create_function("cell_amount", amount_of, [text] * 2, sqltypes.DOUBLE, null_handling=nulls)


# ---------------------------------------------------------------- days and times in text

_CLOCK = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"\s*(?P<half>[ap]\.?m\.?)?"
)
_BASIC = r"(?P<hh>\d{2})(?P<mm>\d{2})(?:(?P<ss>\d{2})(?:[.,]\d{1,9})?)?"
_ZONE = r"(?P<zone>z|utc|gmt|[+-]\d{2}(?::?\d{2})?)"
_MOMENT = re.compile(rf"(?P<day>.*?)(?:(?:(?:\s*t\s*|,?\s+){_CLOCK}\s*|t{_BASIC}){_ZONE}?)?", re.IGNORECASE)
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
_EIGHT = re.compile(r"(\d{4})(\d{2})(\d{2})")
_NUMBERS = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})")
_MONTHS = {
    name: number
    for number, names in enumerate(
        [
            "jan january",
            "feb february",
            "mar march",
            "apr april",
            "may",
            "jun june",
            "jul july",
            "aug august",
            "sep sept september",
            "oct october",
            "nov november",
            "dec december",
        ],
        1,
    )
    for name in names.split()
}
_NAMED = (
    re.compile(r"(?P<month>[a-z]+)\.?[\s-]*(?P<day>\d{1,2})(?:st|nd|rd|th)?,?[\s-]+(?P<year>\d{4}|\d{2})"),
    re.compile(r"(?P<day>\d{1,2})(?:st|nd|rd|th)?\.?[\s-]*(?P<month>[a-z]+)\.?,?[\s-]*(?P<year>\d{4}|\d{2})"),
    re.compile(r"(?P<year>\d{4})[\s-]+(?P<month>[a-z]+)\.?[\s-]+(?P<day>\d{1,2})"),
)
_WEEKDAY = re.compile(r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+")


@lru_cache(maxsize=100_000)
def time_of(text: str | None, order: str, zone: str, written_in: str) -> datetime | None:
    """The time of our zone that a text says, without a zone; None where it cannot be read.

    `order` is that of day and month (`Reading.day_order`), `written_in` the zone of times that name none, empty for
    ours.
    """
    parts = _MOMENT.fullmatch(text.strip()) if text and len(text) <= _LONGEST else None
    if parts is None:
        return None
    day, clock = _day_of(parts["day"].strip(), order), _clock_of(parts)
    if day is None or clock is None:
        return None
    moment = day + clock
    if offset := parts["zone"]:
        if re.match(r"[+-](?:2[4-9]|[3-9])", offset):
            return None
        return _moved(moment.replace(tzinfo=_offset_of(offset)), zone)
    return _moved(moment.replace(tzinfo=ZoneInfo(written_in)), zone) if written_in else moment


def _moved(moment: datetime, zone: str) -> datetime | None:
    try:
        return moment.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    except OverflowError:
        return None


def _offset_of(text: str) -> timezone:
    if text[0] not in "+-":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return timezone(timedelta(minutes=minutes if text[0] == "+" else -minutes))


def _clock_of(parts: re.Match[str]) -> timedelta | None:
    if parts["hh"]:
        hour, minute, second, micro, half = int(parts["hh"]), int(parts["mm"]), int(parts["ss"] or 0), 0, None
    elif parts["hour"]:
        hour, minute, second = int(parts["hour"]), int(parts["minute"]), int(parts["second"] or 0)
        micro, half = int((parts["fraction"] or "")[:6].ljust(6, "0")), (parts["half"] or "").lower().replace(".", "")
    else:
        return timedelta()
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "pm" else 0)
    try:
        clock = time(hour, minute, second, micro)
    except ValueError:
        return None
    return timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second, microseconds=clock.microsecond)


def _day_of(text: str, order: str) -> datetime | None:
    """Midnight of the day that a text without a time says."""
    if found := _YEAR_FIRST.fullmatch(text):
        return _date(found[1], found[3], found[4])
    if found := _EIGHT.fullmatch(text):
        return _date(*found.groups())
    if found := _NUMBERS.fullmatch(text):
        return _in_order(found, order)
    named = _WEEKDAY.sub("", text.lower(), count=1)
    for form in _NAMED:
        if (found := form.fullmatch(named)) and (month := _MONTHS.get(found["month"])):
            return _date(found["year"], str(month), found["day"])
    return None


def _in_order(found: re.Match[str], order: str) -> datetime | None:
    first, separator, second, year = found.groups()
    month_first, day_first = _date(year, first, second), _date(year, second, first)
    if order == "open":
        order = "dmy" if separator == "." else "mdy"
    if order == "only":
        one_way = [day for day in (month_first, day_first) if day is not None]
        return one_way[0] if len(set(one_way)) == 1 else None
    return month_first if order == "mdy" else day_first


def _date(year: str, month: str, day: str) -> datetime | None:
    if len(year) == 2:
        year = f"{'20' if int(year) < 69 else '19'}{year}"
    try:
        return datetime(int(year), int(month), int(day))
    except ValueError:
        return None


def day_order_of(texts: Iterable[str]) -> tuple[str, str | None]:
    """What all days of a source say of their order (`Reading.day_order`), and one that leaves it open, if any does.

    The order is empty where no day is written in numbers that begin with day or month.
    """
    said: Counter[str] = Counter()
    example = None
    for text in texts:
        parts = _MOMENT.fullmatch(text.strip()) if len(text) <= _LONGEST else None
        found = _NUMBERS.fullmatch(parts["day"].strip()) if parts else None
        if found is None:
            continue
        first, second = int(found[1]), int(found[3])
        if first > 12 and second <= 12:
            said["dmy"] += 1
        elif second > 12 and first <= 12:
            said["mdy"] += 1
        elif first <= 12 and second <= 12:
            said["open"] += 1
            example = example or (text if first != second else None)
    if said["dmy"] and said["mdy"]:
        return "only", example
    if said["dmy"] or said["mdy"]:
        return ("dmy" if said["dmy"] else "mdy"), example
    return ("open" if said["open"] else ""), example


# ---------------------------------------------------------------- numbers in text

_CODES = "usd|eur|gbp|jpy|chf|cad|aud|nzd|sek|nok|dkk|pln|inr|brl|mxn"
_CURRENCY = re.compile(rf"(?:us|ca|au|nz|hk|r)?[$€£¥₹]|\b(?:{_CODES})\b", re.IGNORECASE)
_SIGN_CODES = {"€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR"}
_DOLLARS = {"us$": "USD", "ca$": "CAD", "au$": "AUD", "nz$": "NZD", "hk$": "HKD", "r$": "BRL"}
_SPACES = re.compile(r"(?<=\d)[\s'\u2019](?=\d{3}(?!\d))")
_SCIENTIFIC = re.compile(r"[+-]?\d+(\.\d+)?e[+-]?\d{1,3}", re.IGNORECASE)
_SIGNS = re.compile(r"\d+(?:[.,]\d+)*|\.\d+|,\d+")


@dataclass(frozen=True)
class _Number:
    """The digits of a number, its sign, and which of point and comma it takes for the decimal sign, if it tells."""

    body: str
    is_negative: bool
    says: str | None

    def value(self, decimal: str) -> Decimal | None:
        sign = {"point": ".", "comma": ","}.get(self.says or decimal)
        if sign is None and not re.fullmatch(r"\d+", self.body):
            return None
        if sign is None:
            digits = self.body
        else:
            other = "," if sign == "." else "."
            whole, _, fraction = self.body.partition(sign)
            if other in fraction or not _is_grouped(whole, other):
                return None
            digits = f"{whole.replace(other, '') or '0'}.{fraction or '0'}"
        try:
            number = Decimal(digits)
        except InvalidOperation:
            return None
        return -number if self.is_negative else number


def _is_grouped(whole: str, sign: str) -> bool:
    groups = whole.split(sign)
    if len(groups) == 1:
        return True
    return 1 <= len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:])


def _number_of(text: str) -> _Number | None:
    if len(text) > _LONGEST:
        return None
    body = text.strip()
    is_negative = body.startswith("(") and body.endswith(")")
    if is_negative:
        body = body[1:-1]
    stripped = _CURRENCY.sub("", body).replace("\u2212", "-").strip()
    speaks_english = stripped != body.strip() and re.search(r"[$£]|usd|gbp", body, re.IGNORECASE) is not None
    if stripped[:1] in "+-" and stripped:
        is_negative, stripped = is_negative != (stripped[0] == "-"), stripped[1:].strip()
    elif stripped.endswith("-"):
        is_negative, stripped = not is_negative, stripped[:-1].strip()
    stripped = _SPACES.sub("", stripped)
    if not _SIGNS.fullmatch(stripped):
        return None
    return _Number(stripped, is_negative, _decimal_of(stripped) or ("point" if speaks_english else None))


def _decimal_of(body: str) -> str | None:
    """Which sign a number itself shows to be its decimal sign; None where it leaves that open."""
    points, commas = body.count("."), body.count(",")
    if points and commas:
        last = "." if body.rindex(".") > body.rindex(",") else ","
        return None if body.count(last) > 1 else ("point" if last == "." else "comma")
    if points > 1 or commas > 1:
        return "comma" if points else "point"
    if not points and not commas:
        return None
    sign, name = (".", "point") if points else (",", "comma")
    before, after = body.split(sign)
    is_open = len(after) == 3 and 1 <= len(before) <= 3 and not before.startswith("0")
    return None if is_open else name


@lru_cache(maxsize=100_000)
def amount_of(text: str | None, decimal: str) -> float | None:
    """The number that a text says; None where it says none, or leaves open which sign is the decimal one."""
    if text is None or len(text) > _LONGEST:
        return None
    if _SCIENTIFIC.fullmatch(text.strip()):
        value = float(text)
        return value if abs(value) < 1e300 else None
    number = _number_of(text)
    found = number.value(decimal) if number else None
    return float(found) if found is not None else None


def currency_of(text: str, ours: str) -> str | None:
    """The ISO code of the currency that an amount is written in; None where it names none.

    A bare $ is the configured currency `ours` where that is a dollar, else that of the United States.
    """
    found = _CURRENCY.search(text)
    if found is None:
        return None
    written = found[0].lower()
    if written == "$":
        return ours if ours in _DOLLARS.values() else "USD"
    return _DOLLARS.get(written) or _SIGN_CODES.get(written[-1]) or written.upper()


def count_of(text: str | None, decimal: str) -> int | None:
    """The whole number that a text says, likewise; None where it is not whole."""
    if text is None or len(text) > _LONGEST:
        return None
    if _SCIENTIFIC.fullmatch(text.strip()):
        found: Decimal | None = Decimal(text.strip())
    else:
        number = _number_of(text)
        found = number.value(decimal) if number else None
    if found is None or abs(found) >= 2**63 or found != found.to_integral_value():
        return None
    return int(found)


def decimal_of(texts: Iterable[str]) -> tuple[str, str | None]:
    """What all numbers of a column say of their decimal sign (point, comma, open), and one that leaves it open.

    The first is empty where no number has a sign in it.
    """
    said: Counter[str] = Counter()
    example = None
    for text in texts:
        number = _number_of(text)
        if number is None or re.fullmatch(r"\d+", number.body):
            continue
        said[number.says or "open"] += 1
        example = example or (text if number.says is None else None)
    if said["point"] and said["comma"]:
        return "open", example
    return ("point" if said["point"] else "comma" if said["comma"] else "open" if said["open"] else ""), example
