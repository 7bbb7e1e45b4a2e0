"""What `docs/reading.md` promises, said once more in plain Python: the oracle of the fuzzer of lakes.

Belongs here: how one cell, one file name, one row, one lake and one delivery must be judged, from what was written
alone. Does not: writing files, driving the product (`lake_fuzzer.py`), or any knowledge of how the product reads.

Odd cases: `UnsureError` is raised where the promise leaves two answers open. Nothing is asserted of such a thing: the
generator draws anew, and the question is kept for a person.
"""

import re
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

FactKey = tuple[date, str, str, str | None, date | None]

ID_KINDS = ("text", "large_text", "dictionary", "int32", "int64", "float32", "float64", "decimal", "binary", "uuid")
COUNT_KINDS = ("text", "int32", "int64", "float32", "float64", "decimal")
TIME_KINDS = ("text", "ts_ms", "ts_us", "ts_ns", "tz_ms", "tz_us", "int96", "date")
YES_NO_KINDS = ("text", "bool", "int32")
TEXT_KINDS = ("text", "large_text", "dictionary")
UNTAKABLE = {
    "id": ("list", "struct", "clock", "ts_us", "date"),
    "time": ("int64", "float64", "clock", "list"),
    "count": ("ts_us", "date", "bool", "binary", "list"),
}
LARGEST_WHOLE_FLOAT = 2**53
MONTHS: tuple[str, ...] = ("january", "february", "march", "april", "may", "june")
MONTHS += ("july", "august", "september", "october", "november", "december")
ZONE_TEXT = r" ?(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)"
CLOCK_TEXT = r"[T ](?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d{1,6}))?)?"
CLOCK_TEXT += r"(?: ?(?P<half>[AaPp][Mm]))?"
ISO_DAY = r"(?P<y>\d{4})(?P<s>[-/])(?P<m>\d{2})(?P=s)(?P<d>\d{2})"
NUMERIC_DAY = r"(?P<a>\d{1,2})(?P<s>[-/.])(?P<b>\d{1,2})(?P=s)(?P<y>\d{4}|\d{2})"
CURRENCY = r"(?:[$€£¥]|USD|EUR|GBP)"
PARQUET_NAME = re.compile(r"\.(parquet|parq|pq)(\.(snappy|gz|gzip|zstd|lz4|brotli))?$", re.IGNORECASE)
CSV_NAME = re.compile(r"\.(csv|tsv|psv|txt)(\.(gz|zst))?$", re.IGNORECASE)
YES = {"yes", "true", "y", "t", "1", "x"}
NO = {"no", "false", "n", "f", "0"}
END_REASONS = {"cancelled": "cancelled", "canceled": "cancelled", "churned": "cancelled", "terminated": "cancelled"}
END_REASONS |= {"completed": "completed", "expired": "completed", "renewed": "renewed"}


class UnreadableError(Exception):
    """The promise says that this cell cannot be read."""


class UnsureError(Exception):
    """The promise leaves open what this is: the message is the question."""


@dataclass(frozen=True)
class Column:
    """One column as it is written: its name in the file, its physical kind, its cells (None is NULL)."""

    name: str
    kind: str
    values: list[Any]


@dataclass
class StoredFile:
    """One file below the path: a table with the damage done to it, or the bytes of something foreign."""

    format: str = "parquet"
    columns: list[Column] = field(default_factory=list)
    damage: str = ""
    raw: bytes | None = None
    writer: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.columns[0].values) if self.columns else 0

    def column(self, name: str) -> Column | None:
        """The column of that name, without regard to case."""
        return next((c for c in self.columns if c.name.casefold() == name.casefold()), None)

    @property
    def is_empty(self) -> bool:
        return self.damage == "zero bytes" or self.raw == b""

    @property
    def begins_as_parquet(self) -> bool:
        if self.raw is not None:
            return self.raw.startswith(b"PAR1")
        return self.format == "parquet" and self.damage not in ("zero bytes", "garbage", "encrypted")


@dataclass
class CellRules:
    """Settings of one source that say how its cells are read."""

    zone: str = "UTC"
    naive_zone: str | None = None
    null_values: list[str] = field(default_factory=list)
    date_order: str = "auto"
    decimal: str = "auto"
    end_reasons: dict[str, str] = field(default_factory=dict)


# --- cells ---------------------------------------------------------------------------------------------------------


def read_text(value: Any, kind: str, rules: CellRules) -> str | None:
    """A cell as text; None where it is nothing. Holds for ids, too: they are text from the first byte."""
    if value is None:
        return None
    if kind in ("text", "large_text", "dictionary"):
        return _trimmed(value, rules)
    if kind in ("int32", "int64"):
        return str(value)
    if kind in ("float32", "float64"):
        if value != value or abs(value) == float("inf"):
            raise UnsureError("is a floating-point NaN nothing, or unreadable?")
        if value != int(value) or abs(value) >= LARGEST_WHOLE_FLOAT:
            raise UnreadableError
        return str(int(value))
    if kind == "decimal":
        if value != int(value):
            raise UnsureError("is the decimal 12.5 an id (`12.5`), or unreadable as the floating-point number is?")
        return str(int(value))
    if kind == "uuid":
        return str(uuid.UUID(bytes=value))
    if kind == "binary":
        try:
            return _trimmed(value.decode("utf-8"), rules)
        except UnicodeDecodeError:
            raise UnreadableError from None
    raise UnsureError(f"what text is a {kind}?")


def _trimmed(text: str, rules: CellRules) -> str | None:
    kept = text.strip(" ")
    if kept != kept.strip() or "\x00" in kept:
        raise UnsureError("do tabs, line ends and other white space around a text go as spaces do?")
    if not kept or kept.casefold() in {word.casefold() for word in rules.null_values}:
        return None
    return kept


@dataclass(frozen=True)
class NumberReading:
    """What a number in text may be: by a decimal point, and by a decimal comma."""

    point: Decimal
    comma: Decimal
    says: str | None = None

    @property
    def is_open(self) -> bool:
        return self.point != self.comma


def number_readings(text: str) -> NumberReading:
    """The ways in which a trimmed text can be read as a number. Raises UnreadableError and UnsureError."""
    body, sign = text, 1
    if found := re.fullmatch(r"\((.+)\)", body):
        body, sign = found[1], -1
    elif body.startswith("-"):
        body, sign = body[1:], -1
    body = re.sub(rf"^{CURRENCY} ?| ?{CURRENCY}$", "", body)
    if re.fullmatch(r"\d+", body):
        return _settled(body, sign)
    if re.fullmatch(r"\d{1,3}(?:[ ']\d{3})+", body):
        return _settled(re.sub(r"[ ']", "", body), sign)
    if re.fullmatch(r"\d{1,3}(?: \d{3})+,\d{1,2}", body):
        return _settled(body.replace(" ", "").replace(",", "."), sign, "comma")
    if re.fullmatch(r"\d{1,3}(?:'\d{3})+\.\d{1,2}", body):
        return _settled(body.replace("'", ""), sign, "point")
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+\.\d+", body):
        return _settled(body.replace(",", ""), sign, "point")
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d+", body):
        return _settled(body.replace(".", "").replace(",", "."), sign, "comma")
    if found := re.fullmatch(r"(\d+)([.,])(\d+)", body):
        return _one_sign(found[1], found[2], found[3], sign)
    if re.fullmatch(r"\d+([.,]\d+)?[eE][+-]?\d+", body):
        raise UnsureError("is `1e3` a number?")
    if not re.search(r"\d", body) or re.search(r"[A-Za-z%]", body):
        raise UnreadableError
    raise UnsureError(f"is `{text}` a number?")


def _settled(plain: str, sign: int, says: str | None = None) -> NumberReading:
    value = sign * Decimal(plain)
    return NumberReading(value, value, says)


def _one_sign(head: str, mark: str, tail: str, sign: int) -> NumberReading:
    as_decimal = sign * Decimal(f"{head}.{tail}")
    if len(tail) != 3:
        return NumberReading(as_decimal, as_decimal, "point" if mark == "." else "comma")
    if head.startswith("0") or len(head) > 3:
        raise UnsureError("do `0.125` and `1234.567` leave the decimal sign open, though no thousands are written so?")
    grouped = sign * Decimal(head + tail)
    return NumberReading(as_decimal, grouped) if mark == "." else NumberReading(grouped, as_decimal)


def column_decimal(texts: Iterable[str], setting: str) -> str | None:
    """Which sign is the decimal one in a column; None where all of its numbers leave it open."""
    if setting != "auto":
        return setting
    says, is_open = set(), False
    for text in texts:
        try:
            reading = number_readings(text)
        except UnreadableError:
            continue
        says |= {reading.says} - {None}
        is_open |= reading.is_open
    if len(says) == 2 and is_open:
        raise UnsureError("what are open numbers in a column where some say point and others comma?")
    return says.pop() if len(says) == 1 else None


def read_number(value: Any, kind: str, rules: CellRules, decimal: str | None) -> Decimal | None:
    """A cell as a number. `decimal` is what `column_decimal` says of its column."""
    if value is None:
        return None
    if kind in ("float32", "float64"):
        if value != value:
            raise UnsureError("is a floating-point NaN nothing, or unreadable?")
        if value in (float("inf"), float("-inf")):
            raise UnreadableError
        return Decimal(value)
    if kind not in TEXT_KINDS:
        return Decimal(value)
    text = _trimmed(value, rules)
    if text is None:
        return None
    reading = number_readings(text)
    if not reading.is_open:
        return reading.point
    if decimal is None:
        raise UnreadableError
    return reading.point if decimal == "point" else reading.comma


def read_count(value: Any, kind: str, rules: CellRules, decimal: str | None) -> int | None:
    """A cell as a whole number; never rounded."""
    number = read_number(value, kind, rules, decimal)
    if number is None:
        return None
    if number != number.to_integral_value():
        raise UnreadableError
    return int(number)


def read_yes_no(value: Any, kind: str, rules: CellRules) -> bool | None:
    """A cell as yes or no."""
    if value is None or kind == "bool":
        return None if value is None else bool(value)
    text = str(value) if kind == "int32" else _trimmed(value, rules)
    if text is None:
        return None
    if text.casefold() in YES:
        return True
    if text.casefold() in NO:
        return False
    raise UnreadableError


@dataclass(frozen=True)
class DayReading:
    """What a day in text may be: month first, and day first; its clock and its zone where it has them."""

    month_first: date | None
    day_first: date | None
    mark: str = ""
    clock: time | None = None
    zone: tzinfo | None = None

    @property
    def says(self) -> str | None:
        """The order that this date alone settles."""
        if (self.month_first is None) == (self.day_first is None):
            return None
        return "mdy" if self.month_first else "dmy"

    @property
    def is_open(self) -> bool:
        return self.says is None and self.month_first != self.day_first


def day_readings(text: str) -> DayReading:
    """The ways in which a trimmed text can be read as a day or a time. Raises UnreadableError and UnsureError."""
    tail = rf"(?:{CLOCK_TEXT}(?:{ZONE_TEXT})?)?"
    if found := re.fullmatch(ISO_DAY + tail, text):
        day = _day(found["y"], found["m"], found["d"])
        return _reading(day, day, "", found)
    if found := re.fullmatch(r"(\d{4})(\d{2})(\d{2})", text):
        day = _day(found[1], found[2], found[3])
        return _reading(day, day, "", None)
    if found := re.fullmatch(NUMERIC_DAY + tail, text):
        year = _four_digits(found["y"])
        first, second = _day(year, found["a"], found["b"]), _day(year, found["b"], found["a"])
        return _reading(first, second, found["s"], found)
    if found := re.fullmatch(r"(?P<m>[A-Za-z]+) (?P<d>\d{1,2}), (?P<y>\d{4})", text) or re.fullmatch(
        r"(?P<d>\d{1,2})(?P<s>[ -])(?P<m>[A-Za-z]+)(?P=s)(?P<y>\d{4})", text
    ):
        day = _day(found["y"], _month(found["m"]), found["d"])
        return _reading(day, day, "", None)
    if re.search(r"\d", text) and not re.search(r"[A-Za-z?]", text):
        raise UnsureError(f"is `{text}` a day?")
    raise UnreadableError


def _month(name: str) -> str:
    found = [i for i, month in enumerate(MONTHS, 1) if name.casefold() in (month, month[:3])]
    if not found:
        raise UnreadableError
    return str(found[0])


def _four_digits(year: str) -> str:
    if len(year) == 4:
        return year
    return str(int(year) + (2000 if int(year) <= 68 else 1900))


def _day(year: str, month: str, day: str) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def _reading(first: date | None, second: date | None, mark: str, found: re.Match[str] | None) -> DayReading:
    if first is None and second is None:
        raise UnreadableError
    if found is None or found["hour"] is None:
        return DayReading(first, second, mark)
    return DayReading(first, second, mark, _clock(found), _offset(found["zone"]))


def _clock(found: re.Match[str]) -> time:
    hour = int(found["hour"])
    if found["half"]:
        if not 1 <= hour <= 12:
            raise UnreadableError
        hour = hour % 12 + (12 if found["half"].lower() == "pm" else 0)
    try:
        fraction = int((found["fraction"] or "").ljust(6, "0"))
        return time(hour, int(found["minute"]), int(found["second"] or 0), fraction)
    except ValueError:
        raise UnreadableError from None


def _offset(zone: str | None) -> tzinfo | None:
    if zone is None or zone in ("Z", "UTC", "GMT"):
        return UTC if zone else None
    digits = zone[1:].replace(":", "").ljust(4, "0")
    shift = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-shift if zone[0] == "-" else shift)


@dataclass(frozen=True)
class DateOrder:
    """What a source's dates say together: an order, none (all leave it open), or both."""

    order: str | None
    conflict: bool = False
    has_open: bool = False
    is_set: bool = False

    def day(self, reading: DayReading) -> date:
        """The day that a reading is, under this order."""
        if reading.says:
            if self.is_set and reading.says != self.order:
                raise UnsureError("does `date_order: mdy` read 31/10/2025, which is a day in one way only?")
            return reading.month_first or reading.day_first or date.max
        if not reading.is_open:
            if self.conflict and reading.mark:
                raise UnsureError("is 05/05/2025 read where other dates of the source contradict each other?")
            assert reading.month_first
            return reading.month_first
        if self.conflict:
            raise UnreadableError
        order = self.order or ("dmy" if reading.mark == "." else "mdy")
        found = reading.month_first if order == "mdy" else reading.day_first
        assert found
        return found


def date_order(texts: Iterable[str], setting: str) -> DateOrder:
    """Which comes first in the dates of a source, day or month."""
    says, has_open = set(), False
    for text in texts:
        try:
            reading = day_readings(text)
        except UnreadableError:
            continue
        says |= {reading.says} - {None}
        has_open |= reading.is_open
    if setting != "auto":
        return DateOrder(setting, has_open=has_open, is_set=True)
    if len(says) == 2:
        return DateOrder(None, conflict=True, has_open=has_open)
    return DateOrder(says.pop() if says else None, has_open=has_open)


@dataclass(frozen=True)
class Moment:
    """A time as it is shown, in the configured zone, and the day of it in the zone that folders are cut in."""

    day: date
    folder_day: date


def read_moment(value: Any, kind: str, rules: CellRules, order: DateOrder) -> Moment | None:
    """A cell as a time in the configured zone. Raises UnreadableError and UnsureError."""
    if value is None:
        return None
    if kind == "date":
        return _bare_day(value, rules)
    if kind in ("ts_ms", "ts_us", "ts_ns"):
        return _naive(value, rules)
    if kind in ("tz_ms", "tz_us"):
        return _aware(value, rules)
    if kind == "int96":
        return _aware(value.replace(tzinfo=UTC), rules)
    text = _trimmed(value, rules)
    if text is None:
        return None
    reading = day_readings(text)
    day = order.day(reading)
    if reading.clock is None:
        return _bare_day(day, rules)
    moment = datetime.combine(day, reading.clock)
    return _aware(moment.replace(tzinfo=reading.zone), rules) if reading.zone else _naive(moment, rules)


def _bare_day(day: date, rules: CellRules) -> Moment:
    if rules.naive_zone not in (None, rules.zone):
        raise UnsureError("does partition_timezone move a day without a time (its midnight) into another day?")
    return Moment(day, day)


def _naive(moment: datetime, rules: CellRules) -> Moment:
    if rules.naive_zone in (None, rules.zone):
        return Moment(moment.date(), moment.date())
    assert rules.naive_zone
    both = {_aware(moment.replace(tzinfo=ZoneInfo(rules.naive_zone), fold=fold), rules) for fold in (0, 1)}
    if len(both) > 1:
        raise UnsureError("which of two is a time of partition_timezone that the clock shows twice, or never?")
    return Moment(both.pop().day, moment.date())


def _aware(moment: datetime, rules: CellRules) -> Moment:
    folders = ZoneInfo(rules.naive_zone or rules.zone)
    return Moment(moment.astimezone(ZoneInfo(rules.zone)).date(), moment.astimezone(folders).date())


# --- folders and files ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1000)
def days_of_folder(year: int, week: int, calendar: str) -> list[date]:
    """The days that a writer puts into `year=/week=`."""
    if not 1 <= year <= 9998:
        return []
    around = (date(year, 1, 1) + timedelta(days=i) for i in range(-7, 373))
    return [
        d
        for d in around
        if d.isocalendar().week == week and (d.isocalendar().year if calendar == "iso" else d.year) == year
    ]


def monday(day: date) -> date:
    """The Monday of the week that a day lies in."""
    return day - timedelta(days=day.weekday())


@dataclass(frozen=True)
class Folder:
    """A week folder as it is spelled in a key."""

    year: int
    week: int
    spelled: str

    def weeks(self, calendar: str) -> list[date]:
        """Mondays of the weeks whose days lie in the folder."""
        return sorted({monday(day) for day in days_of_folder(self.year, self.week, calendar)})


def folder_of_key(key: str) -> Folder | None:
    """The week folder that a key lies in; None where it lies in none that is spelled as promised."""
    parts = key.split("/")
    if len(parts) < 3:
        return None
    year, week = re.fullmatch(r"year=(\d{4})", parts[0]), re.fullmatch(r"week=(\d{1,2})", parts[1])
    return Folder(int(year[1]), int(week[1]), parts[1]) if year and week else None


def is_read(key: str, file: StoredFile, source_format: str) -> bool:
    """Whether a file that lies where it may lie is read; else it is named."""
    parts = key.split("/")
    if any(part.startswith(("_", ".")) for part in parts):
        return False
    if parts[-1].endswith("_$folder$") and file.is_empty:
        return False
    if "." not in parts[-1]:
        return source_format == "csv" or file.begins_as_parquet
    return bool((CSV_NAME if source_format == "csv" else PARQUET_NAME).search(parts[-1]))


# --- usage ---------------------------------------------------------------------------------------------------------


@dataclass
class UsageLake:
    """A usage source: its settings, and its files by key below the path."""

    columns: dict[str, str]
    rules: CellRules
    format: str = "parquet"
    calendar: str = "iso"
    partitioned: bool = True
    late_days: int = 2
    largest_count: int = 10_000_000
    first_week: date = date.min
    last_week: date = date.max
    files: dict[str, StoredFile] = field(default_factory=dict)

    @property
    def needed(self) -> dict[str, str]:
        """Columns of theirs that a file must hold, with the family of kinds that they must be of."""
        families = {"account_id": "id", "application": "id", "event_time": "time", "clicks": "count"}
        return {self.columns[ours]: family for ours, family in families.items() if ours in self.columns}


@dataclass
class ExpectedUsage:
    """What must become of usage. `quarantined` holds for each key the weeks that it may be listed under."""

    facts: Counter[FactKey] = field(default_factory=Counter)
    records: dict[FactKey, int | None] = field(default_factory=dict)
    rejected: dict[date, Counter[str]] = field(default_factory=dict)
    duplicates: Counter[date] = field(default_factory=Counter)
    quarantined: dict[str, list[date]] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    unreadable: dict[date, Counter[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class UsageRow:
    """The verdict on one row: the fact it adds to, or why it is rejected."""

    week: date
    reject: str | None = None
    account: str = ""
    application: str = ""
    user: str | None = None
    day: date | None = None
    clicks: int = 0
    records: int | None = None
    event: str | None = None
    unreadable: tuple[str, ...] = ()

    @property
    def key(self) -> FactKey:
        return (self.week, self.account, self.application, self.user, self.day)


def judge_row(lake: UsageLake, folder: Folder | None, file: StoredFile, number: int) -> UsageRow:
    """What must become of one row of a file. Raises UnsureError."""
    cells = {}
    for ours, theirs in lake.columns.items():
        column = file.column(theirs)
        cells[ours] = (column.values[number], column.kind) if column else (None, "text")
    faults: list[str] = []
    unreadable: list[str] = []
    moment, fault = _usage_moment(lake, cells)
    faults += [fault] if fault else []
    week, outside = _week_of_row(lake, folder, moment)
    faults += ["time"] if outside else []
    account, application = (_needed_id(lake, cells, name, faults) for name in ("account_id", "application"))
    clicks, records = (_usage_count(lake, cells, name, faults) for name in ("clicks", "records_created"))
    user, event = (_optional_id(lake, cells, name, unreadable) for name in ("user_id", "event_id"))
    if faults:
        return UsageRow(week, reject=faults[0] if len(set(faults)) == 1 else "several", event=event)
    assert account and application
    day = moment.day if moment else None
    clicks = 1 if clicks is None else clicks
    return UsageRow(week, None, account, application, user, day, clicks, records, event, tuple(unreadable))


def _usage_moment(lake: UsageLake, cells: dict[str, tuple[Any, str]]) -> tuple[Moment | None, str | None]:
    if "event_time" not in cells:
        return None, None
    value, kind = cells["event_time"]
    texts = [value] if kind in TEXT_KINDS and value else []
    try:
        order = date_order([text.strip(" ") for text in texts], lake.rules.date_order)
        if lake.rules.date_order == "auto" and order.has_open:
            raise UnsureError("usage is read week by week: which dates are all dates of that source?")
        moment = read_moment(value, kind, lake.rules, order)
    except UnreadableError:
        return None, "time"
    if moment is None:
        raise UnsureError("is a row without an event time rejected, or counted in its folder's week without a day?")
    return moment, None


def _week_of_row(lake: UsageLake, folder: Folder | None, moment: Moment | None) -> tuple[date, bool]:
    """The week that a row is counted in, and whether it lies too far outside."""
    if folder is None:
        if moment is None:
            raise UnsureError("which week is told of a row without a day, where usage is not partitioned?")
        return _in_window(lake, monday(moment.day)), False
    weeks = folder.weeks(lake.calendar)
    if moment is None:
        if len(weeks) > 1:
            raise UnsureError("which of two weeks of a folder by calendar year is a row without a day counted in?")
        return _in_window(lake, weeks[0]), False
    verdicts = {_week_of_day(lake, folder, weeks, day) for day in (moment.day, moment.folder_day)}
    if len(verdicts) > 1:
        raise UnsureError("is a row outside its folder's week in `timezone`, or in `partition_timezone`?")
    week, outside = verdicts.pop()
    return _in_window(lake, week), outside


def _week_of_day(lake: UsageLake, folder: Folder, weeks: list[date], day: date) -> tuple[date, bool]:
    if day in days_of_folder(folder.year, folder.week, lake.calendar):
        return monday(day), False
    if monday(day) in weeks:
        raise UnsureError(
            "is a day late that lies in the folder's week, but in the other folder of it by calendar year?"
        )
    near = [week for week in weeks if -lake.late_days <= (day - week).days <= 6 + lake.late_days]
    if len(near) == 1:
        return near[0], False
    if len(weeks) > 1:
        raise UnsureError("which of two weeks of a folder by calendar year is told of a row outside both?")
    return weeks[0], True


def _in_window(lake: UsageLake, week: date) -> date:
    if not lake.first_week <= week <= lake.last_week:
        raise UnsureError("what becomes of rows of a week outside the window, in a folder or a file that is read?")
    return week


def _needed_id(lake: UsageLake, cells: dict[str, tuple[Any, str]], name: str, faults: list[str]) -> str | None:
    try:
        found = read_text(*cells[name], lake.rules)
    except UnreadableError:
        found = None
    if found is None:
        faults.append(name)
    return found


def _optional_id(lake: UsageLake, cells: dict[str, tuple[Any, str]], name: str, unreadable: list[str]) -> str | None:
    if name not in cells:
        return None
    try:
        return read_text(*cells[name], lake.rules)
    except UnreadableError:
        unreadable.append(name)
        return None


def _usage_count(lake: UsageLake, cells: dict[str, tuple[Any, str]], name: str, faults: list[str]) -> int | None:
    if name not in cells:
        return None
    value, kind = cells[name]
    try:
        if lake.rules.decimal == "auto" and kind in TEXT_KINDS and value and number_readings(value.strip(" ")).is_open:
            raise UnsureError("usage is read week by week: which numbers are all numbers of that column?")
        setting = None if lake.rules.decimal == "auto" else lake.rules.decimal
        count = read_count(value, kind, lake.rules, setting)
    except UnreadableError:
        faults.append("count")
        return None
    if count is None and name == "clicks":
        raise UnsureError("is a row with an empty cell of clicks 1 click, 0 clicks, or rejected?")
    if count is not None and not 0 <= count <= lake.largest_count:
        faults.append("count")
    return count


def expect_usage(lake: UsageLake) -> ExpectedUsage:
    """What must become of a whole lake. Raises UnsureError where two rows of one event say different things."""
    expected = ExpectedUsage()
    seen: dict[tuple[date, str], UsageRow] = {}
    for key, folder, file in _files_to_count(lake, expected):
        for number in range(file.rows):
            _count(expected, judge_row(lake, folder, file, number), seen)
        expected.read.add(key)
    return expected


def _files_to_count(lake: UsageLake, expected: ExpectedUsage) -> list[tuple[str, Folder | None, StoredFile]]:
    """Sorts files into those to count, and (into `expected`) those that are named or quarantined."""
    found: list[tuple[str, Folder | None, StoredFile]] = []
    spellings = Counter[tuple[int, int]]()
    folders = {f for key in lake.files if (f := folder_of_key(key))}
    spellings.update((folder.year, folder.week) for folder in folders)
    for key, file in sorted(lake.files.items()):
        folder = folder_of_key(key) if lake.partitioned else None
        lies_well = not lake.partitioned or (folder is not None and folder.weeks(lake.calendar))
        if not lies_well or not is_read(key, file, lake.format):
            expected.named.add(key)
        elif folder and (fault_of(lake, file) or _second_spelling(folder, spellings)):
            expected.quarantined[key] = folder.weeks(lake.calendar)
        elif fault_of(lake, file):
            raise UnsureError(
                "is a broken file of usage that is not partitioned quarantined, or is the source refused?"
            )
        else:
            found.append((key, folder, file))
    return found


def _second_spelling(folder: Folder, spellings: Counter[tuple[int, int]]) -> bool:
    return spellings[folder.year, folder.week] > 1 and folder.spelled == f"week={folder.week}" and folder.week < 10


def fault_of(lake: UsageLake, file: StoredFile) -> str | None:
    """Why a file of a usage source is quarantined."""
    if file.damage or file.raw is not None or file.format != lake.format:
        return file.damage or "cannot be read"
    for theirs, family in lake.needed.items():
        column = file.column(theirs)
        if column is None:
            return f"lacks {theirs}"
        if column.kind in UNTAKABLE[family]:
            return f"{theirs} is {column.kind}"
    return None


def _count(expected: ExpectedUsage, row: UsageRow, seen: dict[tuple[date, str], UsageRow]) -> None:
    if row.event is not None:
        before = seen.setdefault((row.week, row.event), row)
        if before is not row:
            if before != row or row.reject or row.unreadable:
                raise UnsureError("which of two rows of one event_id is kept, where they differ or one is rejected?")
            expected.duplicates[row.week] += 1
            return
    if row.reject:
        expected.rejected.setdefault(row.week, Counter())[row.reject] += 1
        return
    expected.facts[row.key] += row.clicks
    known = expected.records.get(row.key)
    expected.records[row.key] = known if row.records is None else (known or 0) + row.records
    if row.unreadable:
        expected.unreadable.setdefault(row.week, Counter()).update(row.unreadable)


# --- reference -----------------------------------------------------------------------------------------------------

FAMILIES: dict[str, dict[str, str]] = {
    "accounts": dict.fromkeys(("account_id", "account_name", "segment", "region", "country", "state", "owner"), "text")
    | {"size": "amount"},
    "subscriptions": {
        "account_id": "text",
        "application": "text",
        "start_date": "day",
        "notice_date": "day",
        "end_date": "day",
        "end_reason": "reason",
        "renewal_date": "day",
        "seats": "count",
        "annual_value": "amount",
    },
    "contacts": dict.fromkeys(("user_id", "account_id", "name", "email", "phone", "role"), "text")
    | {"is_primary": "yes_no"},
    "applications": dict.fromkeys(("application", "application_type", "application_name"), "text"),
    "known_causes": dict.fromkeys(("account_id", "application", "cause"), "text")
    | {"first_day": "day", "last_day": "day"},
}
KEEPS_ASIDE = {
    "accounts": ("account_id",),
    "subscriptions": ("account_id", "start_date", "end_date", "notice_date"),
    "contacts": ("user_id", "account_id"),
    "applications": ("application",),
    "known_causes": ("first_day", "last_day"),
}
WANTED = {
    "accounts": ("account_id",),
    "subscriptions": ("account_id", "start_date"),
    "contacts": ("user_id", "account_id"),
    "applications": ("application",),
    "known_causes": ("first_day",),
}


@dataclass
class Delivery:
    """One delivery of a reference source: its settings, and its files; none where it is missing."""

    source: str
    columns: dict[str, str]
    rules: CellRules
    format: str = "csv"
    files: dict[str, StoredFile] = field(default_factory=dict)


@dataclass
class ExpectedReference:
    """What must become of a delivery. `notes_about` are words that a note must hold."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    kept_aside: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    notes_about: list[str] = field(default_factory=list)
    held_back: bool = False

    def keys(self, delivery: Delivery) -> set[tuple[Any, ...]]:
        """The keys of its rows, by the columns that say who or what a row is about, and not since when."""
        names = ("account_id",) if delivery.source == "subscriptions" else WANTED[delivery.source]
        place = [list(delivery.columns).index(name) for name in names]
        return {tuple(row[i] for i in place) for row in self.rows}


def used_keys(source: str, usage: ExpectedUsage | None) -> frozenset[str]:
    """The ids of usage that keys of a reference source are compared with."""
    place = {"accounts": 1, "subscriptions": 1, "applications": 2}.get(source)
    if usage is None or place is None:
        return frozenset()
    return frozenset(str(key[place]) for key in usage.facts)


def expect_delivery(
    delivery: Delivery, before: ExpectedReference | None, used: frozenset[str] = frozenset()
) -> ExpectedReference:
    """What must become of a delivery where `before` is in force, and `used` is in usage. Raises UnsureError."""
    read = {key: file for key, file in delivery.files.items() if is_read(key, file, delivery.format)}
    broken = any(file.damage or file.raw is not None for file in read.values())
    if not read or broken:
        if before is None:
            raise UnsureError("what becomes of a first delivery that is missing, or that cannot be read?")
        return _held(before)
    found = _read_delivery(delivery, list(read.values()))
    if before is not None and (
        _cannot_be_right(delivery, before, found) or _matches_less(delivery, before, found, used)
    ):
        return _held(before)
    return found


def _held(before: ExpectedReference) -> ExpectedReference:
    return ExpectedReference(before.rows, before.kept_aside, before.unreadable, [], held_back=True)


def _cannot_be_right(delivery: Delivery, before: ExpectedReference, found: ExpectedReference) -> bool:
    rows_before, rows = len(before.rows), len(found.rows)
    if rows_before < 20 <= rows:
        raise UnsureError("`from 20 rows on`: of the delivery before, or of either?")
    if rows_before < 20:
        return False
    keys = before.keys(delivery)
    gone = len(keys - found.keys(delivery)) > len(keys) * Decimal("0.2")
    return rows < rows_before * Decimal("0.7") or rows > rows_before * 2 or gone


def _matches_less(
    delivery: Delivery, before: ExpectedReference, found: ExpectedReference, used: frozenset[str]
) -> bool:
    """Whether keys match usage by 20 points less: of the keys delivered, and of those used, alike.

    Below 20 ids in use a share says little: where none is known of at least three.
    """
    if not used:
        return False
    old, new = ({str(key[0]) for key in rows.keys(delivery)} for rows in (before, found))
    if len(used) < 20:
        return len(old & used) >= 3 and not new & used
    drops = {
        len(old & used) / len(old) - len(new & used) / len(new),
        (len(old & used) - len(new & used)) / len(used),
    }
    verdicts = {drop > 0.2 for drop in drops}
    if len(verdicts) > 1 or any(abs(drop - 0.2) < 1e-6 for drop in drops):
        raise UnsureError("keys match usage by 20 points less: of the keys delivered, or of the ids used?")
    return verdicts.pop()


def _texts(delivery: Delivery, files: Sequence[StoredFile], ours: str) -> list[str]:
    """The cells of a column that are text, trimmed, over all files."""
    columns = [c for file in files if (c := file.column(delivery.columns[ours])) and c.kind in TEXT_KINDS]
    return [text for c in columns for value in c.values if value and (text := _trimmed(value, delivery.rules))]


def _read_delivery(delivery: Delivery, files: Sequence[StoredFile]) -> ExpectedReference:
    families = {ours: FAMILIES[delivery.source][ours] for ours in delivery.columns}
    days = [text for ours in delivery.columns if families[ours] == "day" for text in _texts(delivery, files, ours)]
    order = date_order(days, delivery.rules.date_order)
    decimals = {
        ours: column_decimal(_texts(delivery, files, ours), delivery.rules.decimal)
        for ours in delivery.columns
        if families[ours] in ("count", "amount")
    }
    found = ExpectedReference()
    for file in files:
        for number in range(file.rows):
            _read_reference_row(delivery, file, number, order, decimals, found)
    if order.has_open and order.order is None and not order.conflict:
        found.notes_about.append("date_order")
    if any(_all_open(_texts(delivery, files, ours), mode) for ours, mode in decimals.items()):
        found.notes_about.append("decimal")
    return found


def _all_open(texts: list[str], mode: str | None) -> bool:
    if mode is not None:
        return False
    readings = []
    for text in texts:
        try:
            readings.append(number_readings(text))
        except UnreadableError:
            continue
    return any(reading.is_open for reading in readings)


def _read_reference_row(
    delivery: Delivery,
    file: StoredFile,
    number: int,
    order: DateOrder,
    decimals: dict[str, str | None],
    found: ExpectedReference,
) -> None:
    row: dict[str, Any] = {}
    unreadable: list[str] = []
    for ours, theirs in delivery.columns.items():
        column = file.column(theirs)
        value, kind = (column.values[number], column.kind) if column else (None, "text")
        try:
            row[ours] = _read_reference_cell(delivery, ours, value, kind, order, decimals)
        except UnreadableError:
            row[ours] = None
            unreadable.append(ours)
            if FAMILIES[delivery.source][ours] == "reason":
                found.notes_about.append(str(value).strip(" "))
    if {"application", "account_id"} & set(unreadable) - set(KEEPS_ASIDE[delivery.source]):
        raise UnsureError(
            "does an unreadable application make a subscription or a known cause one of the whole account?"
        )
    bad = set(unreadable) & set(KEEPS_ASIDE[delivery.source])
    if bad or any(row.get(ours) is None for ours in WANTED[delivery.source]):
        if set(unreadable) - bad:
            raise UnsureError("are other unreadable cells of a row that is kept aside counted?")
        found.kept_aside += 1
        return
    found.rows.append(tuple(row.values()))
    found.unreadable.update(unreadable)


def _read_reference_cell(
    delivery: Delivery, ours: str, value: Any, kind: str, order: DateOrder, decimals: dict[str, str | None]
) -> Any:
    family, rules = FAMILIES[delivery.source][ours], delivery.rules
    if family == "day":
        moment = read_moment(value, kind, rules, order)
        return moment.day if moment else None
    if family == "count":
        return read_count(value, kind, rules, decimals[ours])
    if family == "amount":
        number = read_number(value, kind, rules, decimals[ours])
        return None if number is None else float(number)
    if family == "yes_no":
        return read_yes_no(value, kind, rules)
    text = read_text(value, kind, rules)
    return _end_reason(text, rules) if family == "reason" and text else text


def _end_reason(word: str, rules: CellRules) -> str:
    known = END_REASONS | {own.casefold(): ours for own, ours in rules.end_reasons.items()}
    if word.casefold() not in known:
        raise UnreadableError
    return known[word.casefold()]
