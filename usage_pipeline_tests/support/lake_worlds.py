"""Draws lakes at random: what companies really deliver, and what goes wrong on the way, by a seed.

Belongs here: which weeks, files, columns, kinds, spellings and faults a lake has. Does not: what must become of it
(`lake_oracle.py`), nor bytes (`lake_writer.py`).

Odd cases: whatever the oracle is unsure of is drawn anew, and the question counted in `World.questions`; a seed always
gives the same world.
"""

import random
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from usage_pipeline_tests.support import lake_oracle as oracle
from usage_pipeline_tests.support.lake_oracle import (
    CellRules,
    Column,
    Delivery,
    ExpectedReference,
    ExpectedUsage,
    StoredFile,
    UnsureError,
    UsageLake,
    UsageRow,
)
from usage_pipeline_tests.support.lake_writer import (
    CSV_DAMAGE,
    GZIP_DAMAGE,
    PARQUET_DAMAGE,
    csv_options,
    parquet_options,
    uuid_bytes,
)

T = TypeVar("T")
WEEK = timedelta(days=7)
# fmt: off
ZONES: tuple[str, ...] = (
    "UTC", "America/New_York", "America/Denver", "Europe/Berlin", "Asia/Kolkata", "Australia/Sydney",
    "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Auckland",
)
# weeks around New Year (with and without a week 53), around changes of the clock, and week 9 with 10
ANCHORS: tuple[date, ...] = (
    date(2020, 12, 21), date(2024, 12, 23), date(2025, 12, 22), date(2026, 12, 21), date(2015, 12, 21),
    date(2022, 12, 26), date(2025, 3, 3), date(2025, 3, 24), date(2025, 10, 20), date(2025, 10, 27),
    date(2024, 2, 19), date(2023, 12, 18),
)
TEXT_IDS: tuple[str, ...] = (
    "00012", "12E3", "12345678901234567890", "NA", "null", "None", "nan", "true", "1e5", "0x1F", "2025-01-01", "-",
    "#1", "O'Brien & Co", "Zürich", "日本", "a b", "A,B", "x;y", 'say "hi"', "1.50", "inf", "-0", "ab", "AB", "tab|bar",
    "%20", "\\N", "012", "12", "1,200", "$5", "=1+1", "a/b", "00", "0",
)
GOOD_NAMES: tuple[str, ...] = (
    "part-0", "part-00001.snappy", "data 2", "part [1]", "what?", "star*", "100%", "%20", "Ünïcode", "a+b", "a#b",
    "k=v", "a&b", "it's", "semi;colon", "{a,b}", "comma,comma", "dots.in.name", "-dash", "~tilde", "[abc]", 'a\'b"c',
    "c000", "!x", "(1)", "@home",
)
HIDDEN: tuple[str, ...] = (
    "_SUCCESS", "_metadata", ".part-0.parquet.crc", "_temporary/0/part-1.parquet", ".hive-staging_1/x.parquet",
    "_committed_123", "._part-0.parquet", ".DS_Store", "_hidden.csv", "a/_b/c.parquet",
)
FOREIGN: tuple[str, ...] = (
    "part-1.parquet.tmp", "notes.md", "book.xlsx", "data.json", "x.parquet.crc", "x.orc", "part-0001.c000",
    "x.csv.bak", "x.parquet.inprogress", "x.zip",
)
# fmt: on
EXTRA_NAMES = ("note", "__index_level_0__", "Größe", "year", "week", "filename", "select", "region", "day")
RARE_EXTRA_NAME = "file_row_number"
GARBAGE_TIMES = ("never", "2025-13-45", "2025-02-30", "N/A", "?", "soon 5")
GARBAGE_NUMBERS = ("abc", "12 %", "n/a", "--", "?", "five", "12 clicks")
QUESTIONS_AT_MOST = 40


@dataclass
class Step:
    """One ingest of the world: the lake as it is then, each delivery as it is then, and what must become of them."""

    as_of: date
    usage: UsageLake | None = None
    expected_usage: ExpectedUsage | None = None
    stays: list[date] = field(default_factory=list)
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    expected: dict[str, ExpectedReference] = field(default_factory=dict)


@dataclass
class World:
    """A lake and what happens to it."""

    seed: int
    on_s3: bool
    lookback: int
    delimiter: str | None
    trailing_slash: bool
    steps: list[Step]
    siblings: dict[str, StoredFile]
    reference_paths: dict[str, str]
    questions: Counter[str]


def make_world(seed: int) -> World:
    """The world of a seed."""
    rng = random.Random(seed)
    questions: Counter[str] = Counter()
    usage = _UsageMaker(rng, questions)
    steps = usage.steps()
    world = World(
        seed=seed,
        on_s3=rng.random() < 0.15,
        lookback=usage.lookback,
        delimiter=usage.delimiter_setting,
        trailing_slash=rng.random() < 0.2,
        steps=steps,
        siblings=usage.siblings(),
        reference_paths={},
        questions=questions,
    )
    for source in _drawn_sources(rng):
        _ReferenceMaker(rng, questions, source, steps[0].usage).add_to(world)
    return world


def _drawn_sources(rng: random.Random) -> list[str]:
    """Reference sources of a world; subscriptions more often, since they hold of every kind of cell."""
    drawn = rng.sample(sorted(oracle.FAMILIES), rng.choice([0, 1, 1, 2]))
    return sorted({*drawn, *(["subscriptions"] if rng.random() < 0.5 else [])})


def _until_sure(
    questions: Counter[str], draw: Callable[[int], T], otherwise: Callable[[], T], times: int = QUESTIONS_AT_MOST
) -> T:
    """Draws until the oracle is sure; counts what it asked."""
    for attempt in range(times):
        try:
            return draw(attempt)
        except UnsureError as question:
            questions[str(question)] += 1
        except (ValueError, OverflowError):
            continue  # a value that the kind of the column cannot hold
    return otherwise()


def _shuffled_case(rng: random.Random, name: str) -> str:
    return rng.choice([name, name, name.upper(), name.lower(), name.title()])


# --- cells ---------------------------------------------------------------------------------------------------------


def _padded(rng: random.Random, text: str) -> str:
    return rng.choice([text] * 5 + [f" {text}", f"{text}  ", f"  {text} "])


def _id_cell(rng: random.Random, word: str, kind: str) -> Any:
    """An id as a cell of a kind; ValueError where the kind cannot hold it."""
    if kind in oracle.TEXT_KINDS:
        return _padded(rng, word)
    if kind == "binary":
        return word.encode()
    if kind == "uuid":
        return uuid_bytes(word)
    number = int(word)
    if kind == "decimal":
        return Decimal(number)
    return float(number) if kind.startswith("float") else number


def _bad_id(rng: random.Random, kind: str, rules: CellRules) -> Any:
    """A cell of an id that is nothing, or cannot be read."""
    if kind in oracle.TEXT_KINDS:
        return rng.choice([None, "", "   ", *rules.null_values, *(w.upper() for w in rules.null_values)])
    if kind == "binary":
        return rng.choice([None, b"\xff\xfe", b"", b"abc\xc3"])
    if kind == "float64":
        return rng.choice([None, 1.5, float(2**53), -0.25, 1e300])
    return rng.choice([None, 2.5]) if kind == "float32" else None


def _count_text(rng: random.Random, number: int, decimal: str) -> str:
    forms = [str(number)] * 6 + [f"{number}.0", f"{number}.00", f"{number},0", f"${number}", f"{number} USD"]
    if number >= 1000:
        forms += [f"{number:,}.00", f"{number:,}".replace(",", " "), f"{number:,}".replace(",", "'")]
        forms += [f"{number:,}.00".translate(str.maketrans(",.", ".,"))]
        if decimal != "auto" and number < 1_000_000:
            forms += [f"{number:,}", f"{number:,}".replace(",", ".")]
    return _padded(rng, rng.choice(forms))


def _count_cell(rng: random.Random, number: int, kind: str, decimal: str, plain: bool) -> Any:
    """A count as a cell of a kind."""
    if kind in oracle.TEXT_KINDS:
        return str(number) if plain else _count_text(rng, number, decimal)
    if kind == "decimal":
        return Decimal(number)
    return float(number) if kind.startswith("float") else number


def _bad_count(rng: random.Random, kind: str, largest: int) -> Any:
    """A count that is negative, absurd, not whole, or no number."""
    if kind in oracle.TEXT_KINDS:
        wrong = ["-3", "(4)", "3.7", "3,70", "99999999999999999999", str(largest + 1), "-1.00"]
        return rng.choice([*wrong, *GARBAGE_NUMBERS])
    if kind == "decimal":
        return rng.choice([Decimal("3.7"), Decimal(-1), Decimal(10**15)])
    if kind == "float32":
        return rng.choice([3.5, -2.0, 2.0**40])
    if kind == "float64":
        return rng.choice([3.7, -1.0, 1e300, float("inf"), largest + 1.0, -0.5])
    return rng.choice([-1, -1000, largest + 1])


def _clock_text(rng: random.Random, moment: datetime, halves: bool = False) -> str:
    """A time of day, of 24 hours; where `halves`, at times of 12."""
    forms = ["%H:%M:%S", "%H:%M", "%H:%M:%S.%f"]
    return moment.strftime(rng.choice([*forms, "%I:%M %p", "%I:%M:%S %p"] if halves else forms))


def _zone_text(rng: random.Random, moment: datetime) -> tuple[str, datetime]:
    """An offset or a name of UTC, and the time as such a clock shows it."""
    if rng.random() < 0.4:
        return rng.choice(["Z", " UTC", " GMT", "UTC"]), moment.astimezone(UTC)
    shift = timezone(timedelta(minutes=rng.choice([0, 120, -420, 330, 345, -180, 60])))
    there = moment.astimezone(shift)
    digits = there.strftime("%z")
    forms = [digits, f"{digits[:3]}:{digits[3:]}", f" {digits[:3]}:{digits[3:]}"]
    return rng.choice([*forms, digits[:3]] if digits.endswith("00") else forms), there


def _numeric_day(rng: random.Random, day: date, order: str, mark: str) -> str:
    year = f"{day.year % 100:02d}" if rng.random() < 0.3 else str(day.year)
    width = rng.choice(["{}", "{:02d}"])
    both = (day.month, day.day) if order == "mdy" else (day.day, day.month)
    return mark.join([*(width.format(part) for part in both), year])


def _named_day(rng: random.Random, day: date) -> str:
    short, long = day.strftime("%b"), day.strftime("%B")
    forms = [f"{short} {day.day}, {day.year}", f"{day.day} {long} {day.year}", f"{day.day:02d}-{short}-{day.year}"]
    return rng.choice([*forms, f"{long} {day.day}, {day.year}", f"{day.day} {short} {day.year}"])


def _iso_day(rng: random.Random, day: date) -> str:
    return day.strftime(rng.choice(["%Y-%m-%d", "%Y-%m-%d", "%Y/%m/%d", "%Y%m%d"]))


def _time_text(rng: random.Random, moment: datetime, wall: datetime, order: str, may_lack_clock: bool) -> str:
    """A time in text: `moment` is aware, `wall` is what the clock of the writer shows."""
    style = rng.random()
    if style < 0.25 and may_lack_clock:
        return _padded(rng, rng.choice([_iso_day, _named_day])(rng, wall.date()))
    if style < 0.5 and order != "auto":
        return _padded(
            rng, f"{_numeric_day(rng, wall.date(), order, rng.choice('/.-'))} {_clock_text(rng, wall, halves=True)}"
        )
    mark = rng.choice("  T")
    if style < 0.75:
        zone, there = _zone_text(rng, moment)
        return _padded(rng, f"{there:%Y-%m-%d}{mark}{_clock_text(rng, there)}{zone}")
    day = wall.strftime(rng.choice(["%Y-%m-%d", "%Y-%m-%d", "%Y/%m/%d"]))
    return _padded(rng, f"{day}{mark}{_clock_text(rng, wall)}")


def _time_cell(rng: random.Random, moment: datetime, rules: CellRules, kind: str) -> Any:
    """A time as a cell of a kind."""
    wall = moment.astimezone(ZoneInfo(rules.naive_zone or rules.zone)).replace(tzinfo=None)
    if kind in oracle.TEXT_KINDS:
        return _time_text(rng, moment, wall, rules.date_order, rules.naive_zone in (None, rules.zone))
    if kind == "int96":
        return moment.astimezone(UTC).replace(tzinfo=None)
    if kind.startswith("tz"):
        return moment.astimezone(UTC)
    return wall.date() if kind == "date" else wall


# --- usage ---------------------------------------------------------------------------------------------------------


@dataclass
class _Draft:
    """One row as it was meant, before it is written in the kinds of a file."""

    account: str
    application: str
    user: str | None
    event: str
    moment: datetime
    clicks: int
    records: int | None


class _UsageMaker:
    """Draws one usage lake and what happens to it."""

    def __init__(self, rng: random.Random, questions: Counter[str]) -> None:
        self.rng, self.questions = rng, questions
        self.format = "parquet" if rng.random() < 0.7 else "csv"
        self.delimiter = rng.choice([",", ",", ";", "\t", "|"])
        self.delimiter_setting = self.delimiter if rng.random() < 0.4 else None
        self.calendar = "calendar_year" if rng.random() < 0.25 else "iso"
        self.partitioned = rng.random() < 0.92
        self.weeks = self._draw_weeks()
        self.lookback = len(self.weeks) + rng.randint(1, 4)
        self.as_of = self.weeks[-1] + WEEK + timedelta(days=4)
        self.events = 0
        self.pools = {name: self._pool(size) for name, size in (("account", 6), ("application", 3), ("user", 8))}
        self.event_style = rng.choice(["number", "zeros", "text", "uuid"])
        self.dirt = rng.choice([0, 0.05, 0.2])
        self.drafts: dict[date, list[tuple[_Draft, UsageRow]]] = {}

    def _draw_weeks(self) -> list[date]:
        anchor = self.rng.choice(ANCHORS)
        if self.rng.random() < 0.4:
            anchor = oracle.monday(date(2018, 1, 1) + timedelta(days=self.rng.randrange(3000)))
        return [anchor + i * WEEK for i in range(self.rng.randint(2, 6))]

    def _pool(self, size: int) -> tuple[str, list[str]]:
        """Ids of one column, and of what sort they are."""
        sort = self.rng.choice(["number", "number", "text", "text", "uuid"])
        if sort == "number":
            return sort, [str(n) for n in self.rng.sample(range(1, 100_000), size)]
        if sort == "uuid":
            return sort, [str(uuid.UUID(int=self.rng.getrandbits(128), version=4)) for _ in range(size)]
        return sort, self.rng.sample(TEXT_IDS, size)

    def steps(self) -> list[Step]:
        """The lake at first, and after what happened to it."""
        lake = _until_sure(self.questions, lambda _: self._whole_lake(), self._plainest_lake, times=12)
        first = Step(self.as_of, lake, oracle.expect_usage(lake))
        if self.rng.random() < 0.6:
            return [first]
        return [first, _until_sure(self.questions, lambda _: self._changed(first), lambda: self._again(first))]

    def _whole_lake(self) -> UsageLake:
        lake = self._empty_lake()
        self.drafts = {}
        for week in self.weeks:
            for number in range(self.rng.choice([1, 1, 2, 3, 4])):
                self._add_file(lake, week, number)
        self._add_strays(lake)
        if self.partitioned:
            self._add_odd_folders(lake)
        oracle.expect_usage(lake)
        return lake

    def _plainest_lake(self) -> UsageLake:
        lake = self._empty_lake()
        self.dirt, self.drafts = 0, {}
        for week in self.weeks:
            self._add_file(lake, week, 0)
        return lake

    def _empty_lake(self) -> UsageLake:
        rng = self.rng
        names = {"account_id": "Customer ID", "application": "app", "user_id": "Person", "event_time": "happened_at"}
        names |= {"event_id": "key", "clicks": "nr clicks", "records_created": "created"}
        ours = ["account_id", "application"]
        optional = {"user_id": 0.85, "event_time": 0.9, "event_id": 0.6, "clicks": 0.85, "records_created": 0.6}
        ours += [name for name, share in optional.items() if rng.random() < share]
        if "event_time" not in ours and (not self.partitioned or self.calendar == "calendar_year"):
            ours.append("event_time")
        zone = rng.choice(ZONES)
        rules = CellRules(
            zone=zone,
            naive_zone=rng.choice(ZONES) if rng.random() < 0.25 else None,
            null_values=rng.choice([[], [], ["NA", "null"], ["-"], ["none"]]),
            date_order=rng.choice(["auto", "auto", "mdy", "dmy"]),
            decimal=rng.choice(["auto", "auto", "point", "comma"]),
        )
        same = rng.random() < 0.5
        return UsageLake(
            columns={name: name if same else names[name] for name in ours},
            rules=rules,
            format=self.format,
            calendar=self.calendar,
            partitioned=self.partitioned,
            late_days=rng.choice([2, 2, 2, 0, 1, 3]),
            largest_count=rng.choice([10_000_000, 10_000_000, 5000]),
            first_week=oracle.monday(self.as_of) - self.lookback * WEEK,
            last_week=oracle.monday(self.as_of),
        )

    def _add_file(self, lake: UsageLake, week: date, number: int) -> None:
        folder, days = self._folder(week)
        file = StoredFile(self.format, writer=self._writer())
        kinds = {ours: self._kind(lake, ours) for ours in lake.columns}
        left_out = {c for c in ("user_id", "event_id", "records_created") if self.rng.random() < 0.08}
        rows = [self._row(lake, folder, week, days, kinds) for _ in range(self.rng.choice([1, 3, 8, 20]))]
        for ours, theirs in lake.columns.items():
            if ours not in left_out:
                name = _shuffled_case(self.rng, theirs) if self.rng.random() < 0.3 else theirs
                file.columns.append(Column(name, kinds[ours], [row[ours] for row in rows]))
        self._add_extra_columns(file, len(rows))
        self.rng.shuffle(file.columns)
        prefix = f"{folder}/" if folder else ""
        nested = self.rng.choice(["region=EU/", "sub folder/", "day=3/"]) if self.rng.random() < 0.08 else ""
        lake.files[f"{prefix}{nested}{self._file_name(file, number)}"] = file
        if self.partitioned and self.rng.random() < 0.08:
            self._spoil(lake, file)

    def _folder(self, week: date) -> tuple[str, list[date]]:
        """A folder that days of the week lie in, and those days."""
        if not self.partitioned:
            return "", [week + timedelta(days=i) for i in range(7)]
        day = week + timedelta(days=self.rng.randrange(7))
        iso = day.isocalendar()
        year = iso.year if self.calendar == "iso" else day.year
        days = [d for d in oracle.days_of_folder(year, iso.week, self.calendar) if oracle.monday(d) == week]
        # one spelling a week: two of them are drawn on purpose, among the oddities
        spelled = f"{iso.week:02d}" if week.toordinal() % 3 else str(iso.week)
        return f"year={year}/week={spelled}", days

    def _writer(self) -> dict[str, Any]:
        return parquet_options(self.rng) if self.format == "parquet" else csv_options(self.rng, self.delimiter)

    def _kind(self, lake: UsageLake, ours: str) -> str:
        if self.format == "csv":
            return "text"
        if ours == "event_time":
            # a day without a time, and its zone, are a question
            days = ["date"] if lake.rules.naive_zone in (None, lake.rules.zone) else []
            return self.rng.choice([kind for kind in oracle.TIME_KINDS if kind != "date"] + days)
        if ours in ("clicks", "records_created"):
            return self.rng.choice(oracle.COUNT_KINDS)
        names = {"account_id": "account", "application": "application", "user_id": "user"}
        sort = self.event_style if ours == "event_id" else self.pools[names[ours]][0]
        texts = ["text", "large_text", "dictionary", "binary"]
        if sort == "number":
            return self.rng.choice([*texts, "int32", "int64", "float32", "float64", "decimal"])
        return self.rng.choice([*texts, "uuid"] if sort == "uuid" else texts)

    def _file_name(self, file: StoredFile, number: int) -> str:
        name = self.rng.choice(GOOD_NAMES) if self.rng.random() < 0.5 else "part"
        stem = f"{name}-{number}"
        if self.rng.random() < 0.06 and "." not in name:
            return stem
        if self.format == "parquet":
            codec = self.rng.choice(["", "", "", ".snappy", ".gz", ".zstd", ".lz4"])
            return stem + _shuffled_case(self.rng, self.rng.choice([".parquet"] * 4 + [".parq", ".pq"]) + codec)
        codec = self.rng.choice(["", "", "", "gz", "zst"])
        file.writer["codec"] = codec
        return stem + self.rng.choice([".csv"] * 4 + [".tsv", ".psv", ".txt", ".CSV"]) + (f".{codec}" if codec else "")

    def _row(self, lake: UsageLake, folder: str, week: date, days: list[date], kinds: dict[str, str]) -> dict[str, Any]:
        """The cells of one row, of which the oracle is sure."""
        place = oracle.folder_of_key(f"{folder}/x")

        def judged(draft: _Draft, cells: dict[str, Any]) -> UsageRow:
            columns = [Column(theirs, kinds[ours], [cells[ours]]) for ours, theirs in lake.columns.items()]
            return oracle.judge_row(lake, place, StoredFile(self.format, columns), 0)

        def draw(_: int) -> dict[str, Any]:
            again = self._drawn_before(week)
            draft = again[0] if again else self._draft(lake, days)
            cells = self._cells(lake, draft, kinds)
            row = judged(draft, cells)
            if again and row != again[1]:
                raise ValueError("it would say something else in this file")
            if not again and self.rng.random() < self.dirt:
                self._soil(lake, cells, kinds, week)
                row = judged(draft, cells)
            if not again and row.reject is None and not row.unreadable:
                self.drafts.setdefault(week, []).append((draft, row))
            return cells

        def plain() -> dict[str, Any]:
            noon = datetime.combine(self.rng.choice(days), time(12), ZoneInfo(lake.rules.zone))
            draft = replace(self._draft(lake, days), moment=noon, clicks=1, records=None)
            return self._cells(lake, draft, kinds, plain=True)

        return _until_sure(self.questions, draw, plain)

    def _drawn_before(self, week: date) -> tuple[_Draft, UsageRow] | None:
        before = self.drafts.get(week)
        return self.rng.choice(before) if before and self.rng.random() < 0.08 else None

    def _draft(self, lake: UsageLake, days: list[date]) -> _Draft:
        rng = self.rng
        self.events += 1
        event = {
            "number": str(self.events),
            "zeros": f"{self.events:06d}",
            "text": f"e-{self.events}",
            "uuid": str(uuid.UUID(int=self.events + 2**100, version=4)),
        }[self.event_style]
        user = None if rng.random() < 0.05 else rng.choice(self.pools["user"][1])
        clicks = rng.choice([0, 1, 1, 2, 3, 17, 250, 1200, 4999])
        records = rng.choice([None, 0, 1, 5, 1000])
        account, application = (rng.choice(self.pools[name][1]) for name in ("account", "application"))
        return _Draft(account, application, user, event, self._moment(lake, days), clicks, records)

    def _moment(self, lake: UsageLake, days: list[date]) -> datetime:
        day = self.rng.choice(days)
        if self.partitioned and self.rng.random() < 0.06:
            day = self.rng.choice([days[0] - timedelta(days=1), days[-1] + timedelta(days=self.rng.randint(1, 3))])
        clock = self.rng.choice([time(0), time(23, 59, 59), time(23, 30), time(0, 30), time(1, 30), time(2, 30)])
        if self.rng.random() < 0.7:
            clock = time(self.rng.randrange(24), self.rng.randrange(60), self.rng.randrange(60))
        return datetime.combine(day, clock, ZoneInfo(lake.rules.naive_zone or lake.rules.zone))

    def _cells(self, lake: UsageLake, draft: _Draft, kinds: dict[str, str], plain: bool = False) -> dict[str, Any]:
        words = {"account_id": draft.account, "application": draft.application, "user_id": draft.user}
        words["event_id"] = draft.event
        counts = {"clicks": draft.clicks, "records_created": draft.records}
        cells: dict[str, Any] = {}
        for ours in lake.columns:
            if ours in words:
                word = words[ours]
                cells[ours] = None if word is None else _id_cell(self.rng, word, kinds[ours])
            elif ours in counts:
                count = counts[ours]
                decimal = lake.rules.decimal
                cells[ours] = None if count is None else _count_cell(self.rng, count, kinds[ours], decimal, plain)
            elif plain and kinds[ours] == "text":
                cells[ours] = draft.moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            else:
                cells[ours] = _time_cell(self.rng, draft.moment, lake.rules, kinds[ours])
        return cells

    def _soil(self, lake: UsageLake, cells: dict[str, Any], kinds: dict[str, str], week: date) -> None:
        """Makes one cell of a row wrong, at times two."""
        for _ in range(self.rng.choice([1, 1, 1, 1, 2])):
            ours = self.rng.choice(list(lake.columns))
            kind = kinds[ours]
            if ours in ("clicks", "records_created"):
                cells[ours] = _bad_count(self.rng, kind, lake.largest_count)
            elif ours != "event_time":
                cells[ours] = _bad_id(self.rng, kind, lake.rules)
            elif kind == "text" and self.rng.random() < 0.5:
                cells[ours] = self.rng.choice(GARBAGE_TIMES)
            else:
                far = datetime.combine(week + timedelta(days=self.rng.choice([-40, -9, 16, 400])), time(12), UTC)
                cells[ours] = _time_cell(self.rng, far, lake.rules, kind)

    def _add_extra_columns(self, file: StoredFile, rows: int) -> None:
        rare = [RARE_EXTRA_NAME] if self.rng.random() < 0.005 else []
        for name in [*self.rng.sample(EXTRA_NAMES, self.rng.choice([0, 0, 1, 2])), *rare]:
            values: list[Any] = [
                self.rng.choice([None, "x", "1", 'a "quote"', "two\nlines", "a,b;c"]) for _ in range(rows)
            ]
            file.columns.append(Column(name, "text", values))

    def _spoil(self, lake: UsageLake, file: StoredFile) -> None:
        """Makes a file one that must be quarantined."""
        key = next(k for k, f in lake.files.items() if f is file)
        if "." not in key.split("/")[-1]:
            return  # without an ending it would be named, or another question
        how = self.rng.random()
        if how < 0.6:
            gzipped = GZIP_DAMAGE if file.writer.get("codec") == "gz" else CSV_DAMAGE
            file.damage = self.rng.choice(PARQUET_DAMAGE if self.format == "parquet" else gzipped)
            account = lake.columns["account_id"].casefold()
            file.columns.sort(key=lambda column: column.name.casefold() != account)
            return
        theirs, family = self.rng.choice(list(lake.needed.items()))
        column = file.column(theirs)
        assert column
        place = file.columns.index(column)
        if how < 0.8 or self.format == "csv":
            del file.columns[place]
        else:
            kind = self.rng.choice(oracle.UNTAKABLE[family])
            file.columns[place] = Column(column.name, kind, [_untakable(kind)] * len(column.values))

    def _add_strays(self, lake: UsageLake) -> None:
        """Files that must be named."""
        folders = self._folders(lake)
        places = [*folders, *folders, folders[0].split("/")[0], ""] if self.partitioned else [""]
        for _ in range(self.rng.choice([0, 0, 2, 4])):
            name = self.rng.choice([*HIDDEN, *FOREIGN])
            self._add(lake, f"{self.rng.choice(places)}/{name}".lstrip("/"), self._stray(lake, name))

    def _folders(self, lake: UsageLake) -> list[str]:
        return sorted(
            {f"{key.split('/')[0]}/{f.spelled}" for key in lake.files if (f := oracle.folder_of_key(key))} or {""}
        )

    def _add_odd_folders(self, lake: UsageLake) -> None:
        """Markers, and folders that are misspelled."""
        folders = self._folders(lake)
        if self.rng.random() < 0.15:
            self._add(lake, f"{folders[0]}_$folder$", StoredFile(raw=b""))
        if self.rng.random() < 0.15 and self.format == "parquet":
            self._add(lake, f"{folders[-1]}/README", StoredFile(raw=b"not a table"))
        if self.rng.random() < 0.2:
            ending = "parquet" if self.format == "parquet" else "csv"
            self._add(lake, f"{self._odd_folder()}/odd.{ending}", self._copy(lake))
        if self.rng.random() < 0.25:
            self._spell_twice(lake)

    def _add(self, lake: UsageLake, key: str, file: StoredFile) -> None:
        lake.files.setdefault(key, file)

    def _copy(self, lake: UsageLake) -> StoredFile:
        """A sound table: were it counted, it would show."""
        sound = [f for f in lake.files.values() if f.columns and not f.damage]
        return self.rng.choice(sound) if sound else StoredFile(raw=b"x")

    def _stray(self, lake: UsageLake, name: str) -> StoredFile:
        if name == "_SUCCESS":
            return StoredFile(raw=b"")
        if name.endswith((".parquet", ".csv", ".tmp", ".c000", ".inprogress")):
            return self._copy(lake)
        return StoredFile(raw=self.rng.choice([b"", b"something"]))

    def _odd_folder(self) -> str:
        week = self.rng.choice(self.weeks)
        year, number = week.isocalendar()[:2]
        odd = [f"week=W{number}", f"week={number}.0", "week=__HIVE_DEFAULT_PARTITION__", "week=60", "week=0", "week=00"]
        odd += [
            f"week={number:03d}",
            f"Week={number}",
            f"WEEK={number}",
            f"{number}",
            f"week={number} ",
            "week=",
            "week=-1",
        ]
        odd += [f"week={number}-{number + 1}", "month=11"]
        if not oracle.days_of_folder(year, 53, self.calendar):
            odd.append("week=53")
        years = [f"Year={year}", f"year={year % 100}", f"{year}", "year=__HIVE_DEFAULT_PARTITION__", f"year={year}.0"]
        years += [f"_year={year}", f".year={year}", f"yr={year}"]
        if self.rng.random() < 0.6:
            return f"year={year}/{self.rng.choice(odd)}"
        return f"{self.rng.choice(years)}/week={number:02d}"

    def _spell_twice(self, lake: UsageLake) -> None:
        """Both week=9 and week=09."""
        folders = [folder for folder in self._folders(lake) if int(folder.split("week=")[1]) < 10]
        if not folders:
            return
        year, week = self.rng.choice(folders).split("/")
        number = int(week.removeprefix("week="))
        other = f"week={number}" if week == f"week={number:02d}" else f"week={number:02d}"
        ending = "parquet" if self.format == "parquet" else "csv"
        here = [f for k, f in lake.files.items() if k.startswith(f"{year}/{week}/") and f.columns and not f.damage]
        if here:
            plain = {name: value for name, value in here[0].writer.items() if name != "codec"}
            copy = replace(here[0], writer=plain)
            self._add(lake, f"{year}/{other}/again.{ending}", copy)

    def siblings(self) -> dict[str, StoredFile]:
        """Files beside the path whose names begin like it: they are no business of the source."""
        if self.rng.random() < 0.7:
            return {}
        return {
            "lake-old/year=2025/week=45/part.parquet": StoredFile(raw=b"x"),
            "lake2/notes.txt": StoredFile(raw=b"x"),
        }

    # --- what happens to a lake between two ingests

    def _again(self, first: Step) -> Step:
        assert first.usage
        return Step(first.as_of + timedelta(days=1), first.usage, oracle.expect_usage(first.usage))

    def _changed(self, first: Step) -> Step:
        assert first.usage
        lake = replace(first.usage, files=dict(first.usage.files))
        what = self.rng.choice(
            ["nothing", "repaired", "broken", "more", "zone", "renamed", "gone", "settings", "words"]
        )
        if what == "repaired":
            self._repair(lake)
        elif what == "more":
            self._add_file(lake, self.rng.choice(self.weeks), 9)
        elif what == "zone":
            lake.rules = replace(lake.rules, zone=self.rng.choice(ZONES))
        elif what == "renamed" and "user_id" in lake.columns:
            lake.columns = lake.columns | {
                "application": lake.columns["user_id"],
                "user_id": lake.columns["application"],
            }
        elif what == "broken" and self.partitioned:
            self._break(lake)
        elif what == "words":
            lake.rules = replace(lake.rules, null_values=["NA", "null", "-", "00012"])
        elif what == "settings":
            lake.late_days, lake.largest_count = self.rng.choice([0, 3]), 4998
        elif what == "gone" and self.partitioned and self.calendar == "iso":
            return self._without_a_week(first, lake)
        return Step(first.as_of + timedelta(days=1), lake, oracle.expect_usage(lake))

    def _repair(self, lake: UsageLake) -> None:
        for key, file in lake.files.items():
            if file.damage:
                lake.files[key] = replace(file, damage="")

    def _break(self, lake: UsageLake) -> None:
        sound = [
            key for key, file in lake.files.items() if "." in key.split("/")[-1] and file.columns and not file.damage
        ]
        if sound:
            key = self.rng.choice(sound)
            lake.files[key] = replace(lake.files[key], damage="garbage")

    def _without_a_week(self, first: Step, lake: UsageLake) -> Step:
        assert first.expected_usage
        week = self.rng.choice(self.weeks)
        lake.files = {
            key: file
            for key, file in lake.files.items()
            if not (folder := oracle.folder_of_key(key)) or week not in folder.weeks(lake.calendar)
        }
        expected = oracle.expect_usage(lake)
        before = first.expected_usage
        expected.facts.update({key: clicks for key, clicks in before.facts.items() if key[0] == week})
        expected.records |= {key: records for key, records in before.records.items() if key[0] == week}
        return Step(first.as_of + timedelta(days=1), lake, expected, stays=[week])


def _untakable(kind: str) -> Any:
    moment = datetime(2025, 1, 1, 12)
    values = {"list": [1], "struct": {"x": 1}, "clock": time(12), "ts_us": moment, "date": moment.date()}
    return (values | {"int64": 20250101, "float64": 1.5, "bool": True, "binary": b"1"})[kind]


# --- reference -----------------------------------------------------------------------------------------------------


@dataclass
class _Style:
    """How one delivery writes its days and amounts."""

    days: str
    mark: str
    order: str
    amounts: str
    dirt: float
    open_days: bool


class _ReferenceMaker:
    """Draws the deliveries of one reference source."""

    def __init__(self, rng: random.Random, questions: Counter[str], source: str, usage: UsageLake | None) -> None:
        self.rng, self.questions, self.source = rng, questions, source
        self.format = rng.choice(["csv", "csv", "parquet"])
        self.delimiter = rng.choice([",", ";", "\t", "|"])
        self.zone = usage.rules.zone if usage else "UTC"
        self.columns = self._draw_columns()
        self.used: frozenset[str] = frozenset()
        self.path_kind = rng.choice(["file", "folder", "glob"])
        self.sort = rng.choice(["number", "text", "text"])
        self.settings = CellRules(
            zone=self.zone,
            null_values=rng.choice([[], [], ["NA", "n/a"], ["null"]]),
            date_order=rng.choice(["auto", "auto", "auto", "mdy", "dmy"]),
            decimal=rng.choice(["auto", "auto", "auto", "point", "comma"]),
            end_reasons=rng.choice([{}, {"left": "cancelled", "Done": "completed"}])
            if source == "subscriptions"
            else {},
        )

    def _draw_columns(self) -> dict[str, str]:
        wanted = oracle.WANTED[self.source]
        ours = [c for c in oracle.FAMILIES[self.source] if c in wanted or c == "cause" or self.rng.random() < 0.75]
        odd = self.rng.random() < 0.4
        return {name: f"Their {name.replace('_', ' ')}" if odd else name for name in ours}

    def add_to(self, world: World) -> None:
        """Puts a delivery into each step of the world; a sequence makes the world longer."""
        zones = [step.usage.rules.zone for step in world.steps if step.usage]
        # where the zone changes, so do days, and with them what may be the key of a subscription
        follows = self.rng.random() < 0.45 and (len(set(zones)) == 1 or "start_date" not in self.columns)
        follows &= self.source != "known_causes"
        # where usage changes, so may what it matches, between two deliveries
        follows &= len([step for step in world.steps if step.expected_usage]) == 1
        if world.on_s3 and self.path_kind == "glob":
            self.path_kind = "folder"
        self.used = oracle.used_keys(self.source, world.steps[0].expected_usage)
        deliveries = self._sequence() if follows else [self._content()]
        last = world.steps[0].as_of
        before: ExpectedReference | None = None
        usage: ExpectedUsage | None = None
        for number, delivery in enumerate(deliveries):
            if number == len(world.steps):
                world.steps.append(Step(last + timedelta(days=number)))
            delivery.rules = replace(delivery.rules, zone=zones[min(number, len(zones) - 1)])
            usage = world.steps[number].expected_usage or usage
            expected = oracle.expect_delivery(delivery, before, oracle.used_keys(self.source, usage))
            world.steps[number].deliveries[self.source] = delivery
            world.steps[number].expected[self.source] = expected
            before = replace(expected, held_back=False, notes_about=[]) if expected.held_back else expected
        world.reference_paths[self.source] = self._path()

    def _path(self) -> str:
        base = f"ref/{self.source}"
        ending = "csv" if self.format == "csv" else "parquet"
        return {"file": f"{base}/{self._file_name(0)}", "folder": base, "glob": f"{base}/part*.{ending}"}[
            self.path_kind
        ]

    def _file_name(self, number: int) -> str:
        ending = "csv" if self.format == "csv" else "parquet"
        return f"part [1].{ending}" if self.path_kind == "file" else f"part-{number}.{ending}"

    # --- one delivery with all that can be wrong in its cells

    def _content(self) -> Delivery:
        def draw(attempt: int) -> Delivery:
            style = self._style(attempt)
            count = self.rng.randint(3, 14)
            delivery = self._delivery(self._rows(count, style), style)
            oracle.expect_delivery(delivery, None)
            return delivery

        return _until_sure(self.questions, draw, self._plain)

    def _style(self, attempt: int) -> _Style:
        rng = self.rng
        return _Style(
            days=rng.choice(["iso", "numeric", "numeric", "named", "mixed", "contradicting"]),
            mark=rng.choice("/.-"),
            order=rng.choice(["mdy", "dmy"]),
            amounts=rng.choice(["plain", "point", "comma", "open", "open", "signs", "space", "apostrophe"]),
            dirt=rng.choice([0, 0.2, 0.6]) / (1 + attempt // 6),
            open_days=rng.random() < 0.25,
        )

    def _plain(self) -> Delivery:
        style = _Style("iso", "-", "mdy", "plain", 0, False)
        return self._delivery(self._rows(5, style, clean=True), style, clean=True)

    def _delivery(self, rows: list[dict[str, Any]], style: _Style, clean: bool = False) -> Delivery:
        delivery = Delivery(self.source, self.columns, self.settings, self.format)
        parts = 1 if self.path_kind == "file" or self.rng.random() < 0.6 else 2
        for number in range(parts):
            share = rows[number::parts]
            if share:
                delivery.files[self._file_name(number)] = self._file(share, style, clean)
        if self.path_kind == "folder" and self.rng.random() < 0.4:
            delivery.files[self.rng.choice(["_SUCCESS", ".hidden.csv", "notes.md", "book.xlsx"])] = StoredFile(raw=b"")
        return delivery

    def _file(self, rows: list[dict[str, Any]], style: _Style, clean: bool) -> StoredFile:
        kinds = {ours: self._kind(ours) for ours in self.columns}
        if any(kind == "int96" for kind in kinds.values()):
            # a writer of INT96 writes every timestamp so
            kinds = {ours: "int96" if kind.startswith(("ts_", "tz_")) else kind for ours, kind in kinds.items()}
        cells = [
            {ours: self._cell(ours, row[ours], kinds[ours], style, clean) for ours in self.columns} for row in rows
        ]
        columns = [
            Column(_shuffled_case(self.rng, theirs), kinds[ours], [row[ours] for row in cells])
            for ours, theirs in self.columns.items()
        ]
        self.rng.shuffle(columns)
        options = csv_options(self.rng, self.delimiter) if self.format == "csv" else parquet_options(self.rng)
        return StoredFile(self.format, columns, writer=options)

    def _kind(self, ours: str) -> str:
        family = oracle.FAMILIES[self.source][ours]
        if self.format == "csv":
            return "text"
        if family == "day":
            return self.rng.choice(["text", "text", "date", "ts_ms", "ts_us", "ts_ns", "tz_us", "int96"])
        if family in ("count", "amount"):
            return self.rng.choice(["text", "int64", "float64", "decimal"])
        if family == "yes_no":
            return self.rng.choice(oracle.YES_NO_KINDS)
        if ours.endswith("_id") and self.sort == "number":
            return self.rng.choice(["text", "int32", "int64", "float64", "decimal", "binary"])
        return self.rng.choice(["text", "large_text", "dictionary", "binary"])

    def _rows(self, count: int, style: _Style, clean: bool = False, first: int = 1) -> list[dict[str, Any]]:
        """Rows as they are meant: ids differ, so that no row is a second one of another."""
        words = [w for w in TEXT_IDS if w.casefold() not in {n.casefold() for n in self.settings.null_values}]
        rows = []
        for number in range(first, first + count):
            if self.sort == "number":
                key = str(number * 7)
            else:
                key = f"K{number:04d}" if clean or self.rng.random() < 0.6 else words[number % len(words)]
            rows.append({ours: self._meant(ours, key, style) for ours in self.columns})
        return rows

    def _meant(self, ours: str, key: str, style: _Style) -> Any:
        rng, family = self.rng, oracle.FAMILIES[self.source][ours]
        if family == "day":
            return self._day(ours, style)
        if family == "count":
            return rng.choice([None, 1, 25, 300, 1200])
        if family == "amount":
            return rng.choice(
                [None, Decimal("0"), Decimal("1234.50"), Decimal("99.9"), Decimal(12000), Decimal("1250000.25")]
            )
        if family == "yes_no":
            return rng.choice([None, True, False])
        if family == "reason":
            return rng.choice(
                [None, "cancelled", "Canceled", "CHURNED", "terminated", "completed", "Expired", "renewed"]
            )
        if ours == oracle.WANTED[self.source][0]:
            return key
        if ours == "account_id":
            return "77" if self.sort == "number" else "Account 7"
        if ours == "cause":
            return rng.choice(["storm", "Move to a new office", "test, twice"])
        if ours == "phone":
            return rng.choice(["004912345", "+1 555 0100", None])
        if ours == "application":
            return rng.choice([None, "permits", "Work Orders"])
        return rng.choice([None, "North", "O'Neil", "a, b", "Zürich", "1.50", "007"])

    def _day(self, ours: str, style: _Style) -> date | None:
        # years apart, so that no order of day and month puts an end before its start
        years = {"start_date": 2021, "first_day": 2021, "notice_date": 2023, "end_date": 2024, "last_day": 2024}
        year = years.get(ours, 2026)
        if ours not in ("start_date", "first_day") and self.rng.random() < 0.4:
            return None
        if style.open_days:
            month, day = self.rng.sample(range(1, 13), 2)
            return date(year, month, day)
        return date(year, self.rng.randint(1, 12), self.rng.randint(1, 28))

    def _cell(self, ours: str, meant: Any, kind: str, style: _Style, clean: bool) -> Any:
        family = oracle.FAMILIES[self.source][ours]
        if not clean and ours != "cause" and self.rng.random() < style.dirt / len(self.columns) * 2:
            bad = self._bad(family, kind)
            if bad is not None:
                return bad
        if meant is None:
            return self.rng.choice([None, "", " "]) if kind == "text" else None
        if family == "day":
            return self._day_cell(meant, kind, style)
        if family == "count":
            return _count_cell(self.rng, meant, kind, "auto", plain=clean)
        if family == "amount":
            return self._amount_cell(meant, kind, style)
        if family == "yes_no":
            return self._yes_no_cell(meant, kind)
        return _id_cell(self.rng, meant, kind)

    def _bad(self, family: str, kind: str) -> Any:
        """A cell that is nothing, or cannot be read."""
        rng, words = self.rng, self.settings.null_values
        if kind in oracle.TEXT_KINDS:
            by_family = {"day": GARBAGE_TIMES, "count": (*GARBAGE_NUMBERS, "3.7"), "amount": GARBAGE_NUMBERS}
            by_family |= {"yes_no": ("maybe", "2", "ok"), "reason": ("left", "moved away", "Done")}
            return rng.choice([*by_family.get(family, ()), *words, ""])
        if family == "text" and kind in ("binary", "float64"):
            return _bad_id(rng, kind, self.settings)
        if family == "count" and kind in ("float64", "decimal"):
            return 3.7 if kind == "float64" else Decimal("3.7")
        return 2 if family == "yes_no" and kind == "int32" else None

    def _day_cell(self, day: date, kind: str, style: _Style) -> Any:
        rng = self.rng
        if kind == "date":
            return day
        moment = datetime.combine(day, rng.choice([time(0), time(23, 30), time(9, 5)]), ZoneInfo(self.zone))
        if kind == "int96":
            return moment.astimezone(UTC).replace(tzinfo=None)
        if kind.startswith("tz"):
            return moment.astimezone(UTC)
        if kind.startswith("ts"):
            return moment.replace(tzinfo=None)
        return _padded(rng, self._day_text(day, moment, style))

    def _day_text(self, day: date, moment: datetime, style: _Style) -> str:
        rng = self.rng
        days = rng.choice(["iso", "numeric", "named"]) if style.days == "mixed" else style.days
        if days == "iso":
            if rng.random() < 0.3:
                zone, there = _zone_text(rng, moment)
                return f"{there:%Y-%m-%d}T{_clock_text(rng, there)}{zone}"
            return _iso_day(rng, day)
        if days == "named":
            return _named_day(rng, day)
        order = rng.choice(["mdy", "dmy"]) if days == "contradicting" else style.order
        text = _numeric_day(rng, day, order, style.mark)
        return f"{text} {_clock_text(rng, moment, halves=True)}" if rng.random() < 0.2 else text

    def _amount_cell(self, amount: Decimal, kind: str, style: _Style) -> Any:
        if kind == "int64":
            return int(amount)
        if kind == "decimal":
            return amount
        if kind == "float64":
            return float(amount)
        return _padded(self.rng, self._amount_text(amount, style.amounts))

    def _amount_text(self, amount: Decimal, form: str) -> str:
        point = f"{amount:,.2f}"
        comma = point.translate(str.maketrans(",.", ".,"))
        if form == "plain":
            return str(amount)
        if form == "point":
            return point
        if form == "comma":
            return self.rng.choice([comma, f"{comma} €", f"EUR {comma}"])
        if form == "open":
            return self.rng.choice([f"{int(amount) % 1_000_000:,}", "1,200", self.rng.choice(["7.500", "12", "9,50"])])
        if form == "signs":
            # of one currency: several in one column are refused
            return self.rng.choice(
                [f"${point}", f"({point})", f"-{point}", f"{point} USD", f"$ {point}", f"USD {point}"]
            )
        if form == "space":
            return comma.replace(".", " ")
        return point.replace(",", "'")

    def _yes_no_cell(self, answer: bool, kind: str) -> Any:
        if kind == "bool":
            return answer
        if kind == "int32":
            return int(answer)
        return self.rng.choice(
            ["yes", "Yes", "true", "TRUE", "y", "t", "1", "x"] if answer else ["no", "false", "N", "f", "0"]
        )

    # --- deliveries that follow each other: clean, so that only their size and their keys matter

    def _sequence(self) -> list[Delivery]:
        return _until_sure(self.questions, lambda _: self._drawn_sequence(), lambda: [self._plain()])

    def _drawn_sequence(self) -> list[Delivery]:
        style = _Style("iso", "-", "mdy", "plain", 0, False)
        nulls = {word.casefold() for word in self.settings.null_values}
        matching = self.source in ("accounts", "applications") and not nulls & {w.casefold() for w in self.used}
        if matching and self.used and self.rng.random() < 0.4:
            deliveries = self._matching_usage(style)
        else:
            first = self._rows(self.rng.choice([5, 12, 20, 40, 50]), style, clean=True)
            deliveries = [self._delivery(first, style, clean=True)]
            deliveries += [self._next(first, style) for _ in range(self.rng.choice([1, 1, 2]))]
        before: ExpectedReference | None = None
        for delivery in deliveries:
            expected = oracle.expect_delivery(delivery, before, self.used)
            before = replace(expected, held_back=False)
        return deliveries

    def _matching_usage(self, style: _Style) -> list[Delivery]:
        """Few rows, so that only what they match in usage matters: all ids that are used, spelled so, and otherwise."""
        self.sort, key = "text", oracle.WANTED[self.source][0]
        words = sorted(self.used)
        first = [row | {key: word} for row, word in zip(self._rows(len(words), style, clean=True), words, strict=True)]
        respelled = [row | {key: f"id-{row[key]}"} for row in first]
        more = self._rows(1, style, clean=True, first=900)
        after = self.rng.choice([[first], [respelled], [respelled, first], [first + more]])
        return [self._delivery(rows, style, clean=True) for rows in [first, *after]]

    def _next(self, first: list[dict[str, Any]], style: _Style) -> Delivery:
        size = len(first)
        what = self.rng.choice(
            ["same", "shrunk", "a fifth gone", "more gone", "grown", "doubled", "keys", "missing", "broken"]
        )
        more = self._rows(size + 5, style, clean=True, first=1000)
        rows = {
            "shrunk": first[: size * 6 // 10],
            "a fifth gone": first[: size - size // 5],
            "more gone": first[: size - size // 5 - 1],
            "grown": first + more[: size + 1],
            "doubled": first + more[:size],
            "keys": first[: size // 2] + more[: size - size // 2],
        }.get(what, first)
        delivery = self._delivery(rows, style, clean=True)
        if what == "missing":
            delivery.files = {}
        if what == "broken":
            self._break(delivery)
        return delivery

    def _break(self, delivery: Delivery) -> None:
        key = self._file_name(0)
        if self.format == "parquet":
            delivery.files[key] = replace(delivery.files[key], damage="truncated")
        elif self.path_kind == "folder":
            whole = delivery.files[key]
            broken = replace(whole, writer=whole.writer | {"codec": "gz"}, damage="gzip cut")
            delivery.files["part-9.csv.gz"] = broken
        else:
            delivery.files = {}
