"""A zoo of Parquet files, in the spirit of apache/parquet-testing: valid and odd, broken, lying and hostile ones.

Belongs here: files, each with what `docs/reading.md` promises of it. Does not: reading them (`test_parquet_zoo.py`).

Each specimen is written into a week of its own, beside a good file. It has four rows unless it says otherwise:
accounts o1 to o4, users u1 to u4, Monday to Thursday at noon, 1 to 4 clicks. Where the promise allows for more than
one outcome, `Expected` holds all of them: a file may be refused, but never counted wrongly.
"""

import base64
import gzip
import io
import os
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

from usage_pipeline_tests.support.parquet_bytes import (
    BINARY,
    BYTE,
    I32,
    I64,
    MAGIC,
    STRUCT,
    Struct,
    body,
    chunks,
    edit_footer,
    edit_page,
    pages,
    schema_of,
    with_footer,
)

# account, application, user, days after the folder's Monday
Key = tuple[str, str, str | None, int | None]
ROWS = 4
COLUMNS = ("account_id", "application", "user_id", "event_time", "event_id", "clicks", "records_created")
ANY_REASON = ("",)


@dataclass(frozen=True)
class Reading:
    """One way in which a file may be counted: clicks and records by key, rows rejected, cells unreadable."""

    facts: Mapping[Key, int]
    rejected: int = 0
    duplicates: int = 0
    unreadable: Mapping[str, int] | None = None
    records: Mapping[Key, int | None] | None = None


@dataclass(frozen=True)
class Expected:
    """What may become of a file.

    `quarantine`: words, one of which must stand in the reason; None: it must not be quarantined. `named`: whether it may be
    listed as not read, without a fault of the week.
    """

    readings: tuple[Reading, ...] = ()
    quarantine: tuple[str, ...] | None = None
    named: bool = False
    unmentioned: bool = False

    def or_(self, other: "Expected") -> "Expected":
        """Either: the promise leaves it open."""
        words = None
        if self.quarantine is not None or other.quarantine is not None:
            words = (self.quarantine or ()) + (other.quarantine or ())
        return Expected(
            self.readings + other.readings, words, self.named or other.named, self.unmentioned or other.unmentioned
        )


@dataclass(frozen=True)
class Specimen:
    """A file to be written at a path, in the folder of the week of a Monday."""

    name: str
    write: Callable[[Path, date], None]
    expected: Expected
    file_name: str | bytes = "odd.parquet"
    beyond: str | None = None  # why nobody is blamed who reads it wrongly


def key(row: int, **changes: Any) -> Key:
    """The key of one of the four rows, counted from 0."""
    plain: dict[str, Any] = {
        "account_id": f"o{row + 1}",
        "application": "permits",
        "user_id": f"u{row + 1}",
        "day": row,
    }
    account, application, user, day = (plain | changes).values()
    return account, application, user, day


def all_rows(**columns: list[Any]) -> dict[Key, int]:
    """Facts of the four rows, with other values in some columns; None in a column that cannot be missing: no row."""
    facts: dict[Key, int] = {}
    for row in range(ROWS):
        changes = {name: values[row] for name, values in columns.items() if name != "clicks"}
        clicks = columns["clicks"][row] if "clicks" in columns else row + 1
        if clicks is None or any(changes.get(c, "") is None for c in ("account_id", "application", "day")):
            continue
        one = key(row, **changes)
        facts[one] = facts.get(one, 0) + clicks
    return facts


def read(rejected: int = 0, unreadable: Mapping[str, int] | None = None, **columns: list[Any]) -> Expected:
    return Expected((Reading(all_rows(**columns), rejected, unreadable=unreadable),))


def quarantined(*words: str) -> Expected:
    return Expected(quarantine=words or ANY_REASON)


READ = read()
NOTHING = Expected((Reading({}),))
ALL_REJECTED = Expected((Reading({}, rejected=ROWS),))
BROKEN = quarantined()
RIGHT_OR_BROKEN = READ.or_(BROKEN)
SET_APART = Expected(quarantine=ANY_REASON, named=True)


def plain(monday: date, **changes: Any) -> dict[str, Any]:
    """The four rows, as columns."""
    noon = datetime.combine(monday, time(12))
    columns = {
        "account_id": pa.array(["o1", "o2", "o3", "o4"]),
        "application": pa.array(["permits"] * ROWS),
        "user_id": pa.array(["u1", "u2", "u3", "u4"]),
        "event_time": pa.array([noon + timedelta(days=i) for i in range(ROWS)], pa.timestamp("us")),
        "event_id": pa.array([f"{monday}-o{i}" for i in range(ROWS)]),
        "clicks": pa.array([1, 2, 3, 4], pa.int64()),
        "records_created": pa.array([0, 1, 2, 3], pa.int64()),
    }
    return {name: value for name, value in (columns | changes).items() if value is not None}


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    """The bytes of a file of these columns."""
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


def good_rows(monday: date) -> dict[str, Any]:
    """The good file that lies beside each specimen."""
    noon = datetime.combine(monday, time(12))
    return {
        "account_id": ["good"] * 3,
        "application": ["permits", "permits", "fines"],
        "user_id": ["g1", "g2", "g1"],
        "event_time": pa.array([noon, noon + timedelta(days=1), noon + timedelta(days=6)], pa.timestamp("us")),
        "event_id": [f"{monday}-g{i}" for i in range(3)],
        "clicks": [10, 20, 30],
        "records_created": [0, 1, 2],
    }


GOOD_FACTS: dict[Key, int] = {
    ("good", "permits", "g1", 0): 10,
    ("good", "permits", "g2", 1): 20,
    ("good", "fines", "g1", 6): 30,
}


def _specimen(
    name: str,
    expected: Expected,
    make: Callable[[date], bytes],
    file_name: str | bytes = "odd.parquet",
) -> Specimen:
    def write(path: Path, monday: date) -> None:
        path.write_bytes(make(monday))

    return Specimen(name, write, expected, file_name)


def _columns(
    name: str,
    expected: Expected,
    change: Mapping[str, Any] | Callable[[date], Mapping[str, Any]],
    options: dict[str, Any] | None = None,
) -> Specimen:
    """A file of the four rows, with some columns exchanged; `change` may go by the Monday."""

    def make(monday: date) -> bytes:
        return parquet(plain(monday, **(change(monday) if callable(change) else change)), **(options or {}))

    return _specimen(name, expected, make)


def _patched(
    name: str, expected: Expected, change: bytes | Callable[[bytes], bytes], file_name: str | bytes = "odd.parquet"
) -> Specimen:
    """The plain file with its bytes changed, or other bytes in its place."""

    def make(monday: date) -> bytes:
        return change(parquet(plain(monday))) if callable(change) else change

    return _specimen(name, expected, make, file_name)


# ---- types: each of our columns, in every type ------------------------------------------------------------------


NOT_SCALARS: dict[str, Any] = {
    "list": pa.array([["o1"], ["o2"], [], None]),
    "large_list": pa.array([["o1"], ["o2"], [], None], pa.large_list(pa.string())),
    "fixed_size_list": pa.array([[1, 2]] * ROWS, pa.list_(pa.int64(), 2)),
    "list_of_lists": pa.array([[["o1"]], [[]], [None], None]),
    "struct": pa.array([{"id": "o1"}] * ROWS),
    "map": pa.array([[("a", 1)], [], [("b", 2)], None], pa.map_(pa.string(), pa.int64())),
}
NUMBERS: dict[str, Any] = {
    **{f"int{n}": pa.array([1, 2, 3, 4], f"int{n}") for n in (8, 16, 32, 64)},
    **{f"uint{n}": pa.array([1, 2, 3, 4], f"uint{n}") for n in (8, 16, 32, 64)},
    "float16": pa.array(np.array([1, 2, 3, 4], np.float16)),
    "float32": pa.array([1.0, 2.0, 3.0, 4.0], pa.float32()),
    "float64": pa.array([1.0, 2.0, 3.0, 4.0]),
    "decimal32": pa.array([Decimal(i) for i in range(1, 5)], pa.decimal32(5, 2)),
    "decimal64": pa.array([Decimal(i) for i in range(1, 5)], pa.decimal64(18, 4)),
    "decimal128": pa.array([Decimal(i) for i in range(1, 5)], pa.decimal128(20, 10)),
    "decimal128_38": pa.array([Decimal(i) for i in range(1, 5)], pa.decimal128(38, 10)),
}


def _times(monday: date) -> dict[str, Any]:
    noon = [datetime.combine(monday, time(12)) + timedelta(days=i) for i in range(ROWS)]
    naive = {f"timestamp_{unit}": pa.array(noon, pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")}
    zoned = {f"timestamp_{unit}_utc": pa.array(noon, pa.timestamp(unit, "UTC")) for unit in ("s", "ms", "us", "ns")}
    days = {
        "date32": pa.array([moment.date() for moment in noon], pa.date32()),
        "date64": pa.array([moment.date() for moment in noon], pa.date64()),
        "timestamp_of_a_zone": pa.array(noon, pa.timestamp("us", "America/Denver")),
    }
    return naive | zoned | days


def _time(monday: date, column: str, name: str) -> dict[str, Any]:
    return {column: _times(monday)[name]}


CLOCKS: dict[str, Any] = {
    "time32_s": pa.array([1, 2, 3, 4], pa.time32("s")),
    "time32_ms": pa.array([1, 2, 3, 4], pa.time32("ms")),
    "time64_us": pa.array([1, 2, 3, 4], pa.time64("us")),
    "time64_ns": pa.array([1, 2, 3, 4], pa.time64("ns")),
}
BOOLEAN = pa.array([True, False, True, False])
# 0x80 alone is nothing in UTF-8
NOT_UTF8 = b"\x80\xfe"


def _ids() -> Iterator[tuple[str, Any, list[str | None]]]:
    """Name of a type, four cells of it, and the four texts that they are; None where no id can be made of them."""
    four = ["12", "00012", "12E3", "ä b"]
    for name in ("string", "large_string", "string_view"):
        yield name, pa.array(four, getattr(pa, name)()), list(four)
    yield "dictionary", pa.array(four).dictionary_encode(), list(four)
    yield "text_of_20_digits", pa.array(["12345678901234567890"] * ROWS), ["12345678901234567890"] * ROWS
    yield "text_with_spaces", pa.array([" 12", "12 ", " 12 ", "12"]), ["12"] * ROWS
    for name, cells in NUMBERS.items():
        yield name, cells, ["1", "2", "3", "4"]
    yield (
        "int64_extremes",
        pa.array([-(2**63), 2**63 - 1, 0, -1], pa.int64()),
        ["-9223372036854775808", "9223372036854775807", "0", "-1"],
    )
    yield "uint64_extremes", pa.array([2**64 - 1, 2**63, 0, 1], pa.uint64()), [str(2**64 - 1), str(2**63), "0", "1"]
    yield "uint32_extremes", pa.array([2**32 - 1, 2**31, 0, 1], pa.uint32()), [str(2**32 - 1), str(2**31), "0", "1"]
    # 2**53 and more are no ids: neighbours cannot be told apart
    yield (
        "float64_large",
        pa.array([2.0**53 - 1, 2.0**53, -(2.0**53), 1e15]),
        ["9007199254740991", None, None, "1000000000000000"],
    )
    yield "float64_not_whole", pa.array([12.5, 7.0, 1e-9, 1e300]), [None, "7", None, None]
    yield "float64_not_numbers", pa.array([float("nan"), float("inf"), float("-inf"), 5.0]), [None, None, None, "5"]
    # from 2**24 on neighbours of this type cannot be told apart either: whether such are ids the promise does not say
    yield "float32_large", pa.array([2.0**24 - 1, 7.0, 12.5, 2.0**60], pa.float32()), ["16777215", "7", None, None]
    yield "float16_large", pa.array(np.array([2048, 65504, 0.5, 3], np.float16)), ["2048", "65504", None, "3"]
    nines = "9" * 38
    yield (
        "decimal128_38_digits",
        pa.array([Decimal(nines), Decimal("-" + nines), Decimal(0), Decimal(100)], pa.decimal128(38, 0)),
        [nines, "-" + nines, "0", "100"],
    )
    yield (
        "decimal_with_zeros",
        pa.array([Decimal(i) for i in (12, 10, 100, 1)], pa.decimal128(20, 10)),
        ["12", "10", "100", "1"],
    )
    yield "binary_utf8", pa.array([t.encode() for t in four], pa.binary()), list(four)
    yield "large_binary_utf8", pa.array([t.encode() for t in four], pa.large_binary()), list(four)
    yield (
        "fixed_binary_utf8",
        pa.array([b"abcd", b"efgh", b"ijkl", b"mnop"], pa.binary(4)),
        ["abcd", "efgh", "ijkl", "mnop"],
    )
    yield "binary_some_not_utf8", pa.array([b"abc", NOT_UTF8, b"d", b"\xff"], pa.binary()), ["abc", None, "d", None]
    uuids = [bytes([i] * 16) for i in (1, 0xAB, 0x80, 0xFF)]
    yield (
        "uuid",
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array(uuids, pa.binary(16))),
        [f"{u.hex()[:8]}-{u.hex()[8:12]}-{u.hex()[12:16]}-{u.hex()[16:20]}-{u.hex()[20:]}" for u in uuids],
    )
    yield "boolean", BOOLEAN, ["true", "false", "true", "false"]


def _of_ids(column: str) -> Iterator[Specimen]:
    for name, cells, texts in _ids():
        missing = texts.count(None)
        if column in ("account_id", "application"):
            expected = read(missing, None, **{column: texts})
        elif column == "user_id":
            expected = read(unreadable={"user_id": missing} if missing else {}, user_id=texts)
        else:
            # keys of events: rows of one key are one, the others are dropped
            first = [texts[i] is None or texts[i] not in texts[:i] for i in range(ROWS)]
            facts = {k: v for i, (k, v) in enumerate(all_rows().items()) if first[i]}
            counted = {"event_id": missing} if missing else {}
            expected = Expected((Reading(facts, duplicates=first.count(False), unreadable=counted),))
        yield _columns(f"{column}_{name}", expected, {column: cells})
    for name, cells in (NOT_SCALARS | CLOCKS).items():
        yield _columns(f"{column}_{name}", _refused(column), {column: cells})
    for name in _times(date(2025, 1, 6)):
        yield _columns(f"{column}_{name}", _refused(column), partial(_time, column=column, name=name))
    if column in ("account_id", "application"):
        empty = pa.array(["", "  ", None, "x"])
        yield _columns(f"{column}_empty", read(3, None, **{column: [None, None, None, "x"]}), {column: empty})
        nulls = ALL_REJECTED.or_(quarantined(column))
        yield _columns(f"{column}_null_type", nulls, {column: pa.nulls(ROWS)})


def _refused(column: str) -> Expected:
    """A type that cannot be what it is mapped to. Of columns that a file may lack, the promise says it less strictly."""
    if column == "user_id":
        return quarantined(column).or_(read(user_id=[None] * ROWS))
    if column == "event_id":
        return quarantined(column).or_(READ)
    if column == "records_created":
        return quarantined(column).or_(ALL_REJECTED).or_(READ)
    return quarantined(column)


def _of_times() -> Iterator[Specimen]:
    for name in _times(date(2025, 1, 6)):
        yield _columns(f"event_time_{name}", READ, partial(_time, column="event_time", name=name))
    int96 = {"use_deprecated_int96_timestamps": True}
    yield _columns("event_time_int96", READ, {}, int96)

    def texts(form: str) -> Callable[[date], dict[str, Any]]:
        return lambda m: {"event_time": [(m + timedelta(days=i)).strftime(form) for i in range(ROWS)]}

    for form in (
        "%Y-%m-%d",
        "%Y-%m-%d 12:00:00",
        "%Y-%m-%dT12:00:00.123456",
        "%Y-%m-%dT12:00:00Z",
        "%Y-%m-%dT23:00:00-00:30",
    ):
        yield _columns(f"event_time_text_{form}", READ, texts(form))
    some = read(2, day=[0, None, None, 3])
    yield _columns(
        "event_time_text_partly_unreadable",
        some,
        lambda m: {"event_time": [str(m), "soon", "2025-13-45", str(m + timedelta(days=3))]},
    )
    yield _columns(
        "event_time_missing_in_a_row",
        read(1, day=[None, 1, 2, 3]),
        lambda m: {"event_time": pa.array([None, *plain(m)["event_time"][1:].to_pylist()], pa.timestamp("us"))},
    )
    for name, cells in (NOT_SCALARS | NUMBERS | CLOCKS | {"boolean": BOOLEAN}).items():
        yield _columns(f"event_time_{name}", quarantined("event_time"), {"event_time": cells})
    # days that lie far from the folder, and beyond what other types can hold: one row each, never the file
    far: dict[str, tuple[int, Any]] = {
        "year_0001": (-62135596800 * 10**6, pa.timestamp("us")),
        "year_9999": (253402300799 * 10**6, pa.timestamp("us")),
        "before_1970": (-1, pa.timestamp("us")),
        "before_our_era": (-(10**17), pa.timestamp("us")),
        "us_smallest": (-(2**63), pa.timestamp("us")),
        "us_smallest_and_one": (-(2**63) + 1, pa.timestamp("us")),
        "us_largest": (2**63 - 1, pa.timestamp("us")),
        "us_largest_zoned": (2**63 - 1, pa.timestamp("us", "UTC")),
        "ms_largest": (2**63 - 1, pa.timestamp("ms")),
        "ms_smallest_zoned": (-(2**63), pa.timestamp("ms", "UTC")),
        "ns_largest": (2**63 - 1, pa.timestamp("ns")),
        "ns_smallest": (-(2**63), pa.timestamp("ns")),
        "ns_largest_zoned": (2**63 - 1, pa.timestamp("ns", "UTC")),
        "day_largest": (2**31 - 1, pa.date32()),
        "day_smallest": (-(2**31), pa.date32()),
        "day_0001": (-719162, pa.date32()),
    }
    for name, (value, kind) in far.items():
        yield _columns(
            f"event_time_{name}",
            # one that no reader of the format can hold makes its file one that cannot be read
            read(1, day=[0, None, 2, 3]).or_(quarantined("Timestamp")),
            partial(_with, value=value, kind=kind),
        )
    # 12 bytes: nanoseconds of a day, then a Julian day; pyarrow writes PLAIN where no dictionary is wanted
    for name, spoiled in {
        "int96_more_than_a_day": struct.pack("<qI", 2**62, 2460000),
        "int96_day_zero": struct.pack("<qI", 0, 0),
        "int96_last_day": struct.pack("<qI", 0, 2**32 - 1),
    }.items():
        yield _specimen(f"event_time_{name}", read(1, day=[0, None, 2, 3]), partial(_int96, spoiled=spoiled))


def _with(monday: date, value: int, kind: pa.DataType) -> dict[str, Any]:
    """The four times in another type, the second of them exchanged for a bare number of its storage."""
    storage = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    numbers = plain(monday)["event_time"].cast(pa.timestamp(kind.unit) if storage == pa.int64() else kind)
    cells = numbers.cast(storage).to_pylist()
    return {"event_time": pa.array([cells[0], value, *cells[2:]], storage).cast(kind)}


def _int96(monday: date, spoiled: bytes) -> bytes:
    options = {"use_deprecated_int96_timestamps": True, "use_dictionary": False, "compression": "none"}
    data = parquet(plain(monday), **options)
    page = next(page for page in pages(data) if page.column == "event_time")
    # levels come first; the four times are the last 48 bytes
    second = page.end - 36
    return data[:second] + spoiled + data[second + 12 :]


def _of_counts(column: str) -> Iterator[Specimen]:
    def cells(name: str, values: Any, counts: list[int | None]) -> Specimen:
        rejected = counts.count(None)
        if column == "clicks":
            expected = read(rejected, clicks=counts)
        else:
            kept = {k: v for i, (k, v) in enumerate(all_rows().items()) if counts[i] is not None}
            records = {key(i): count for i, count in enumerate(counts) if count is not None}
            expected = Expected((Reading(kept, rejected, records=records),))
        return _columns(f"{column}_{name}", expected, {column: values})

    for name, values in NUMBERS.items():
        yield cells(name, values, [1, 2, 3, 4])
    big = [Decimal(1), Decimal(2), Decimal(3), Decimal(4)]
    yield cells("text", pa.array(["1", " 2 ", "3.0", "+4"]), [1, 2, 3, 4])
    yield cells("text_dictionary", pa.array(["1", "2", "1", "many"]).dictionary_encode(), [1, 2, 1, None])
    yield cells("int64_negative", pa.array([-1, -(2**63), 3, 4]), [None, None, 3, 4])
    yield cells("int8_negative", pa.array([-1, -128, 3, 127], pa.int8()), [None, None, 3, 127])
    yield cells("uint8_largest", pa.array([255, 128, 0, 1], pa.uint8()), [255, 128, 0, 1])
    yield cells("uint16_largest", pa.array([65535, 32768, 0, 1], pa.uint16()), [65535, 32768, 0, 1])
    yield cells("uint32_largest", pa.array([2**32 - 1, 2**31, 3, 4], pa.uint32()), [None, None, 3, 4])
    yield cells("uint64_largest", pa.array([2**64 - 1, 2**63, 3, 4], pa.uint64()), [None, None, 3, 4])
    yield cells("int64_largest", pa.array([2**63 - 1, 2, 3, 4]), [None, 2, 3, 4])
    yield cells("float64_not_whole", pa.array([3.7, 2.0, 0.5, 4.0]), [None, 2, None, 4])
    yield cells("float64_nearly_whole", pa.array([3.0000000001, 2.0, 2.9999999999, 4.0]), [None, 2, None, 4])
    yield cells("float64_nan", pa.array([float("nan"), 2.0, 3.0, 4.0]), [None, 2, 3, 4])
    yield cells("float32_nan", pa.array([float("nan"), 2.0, 3.0, 4.0], pa.float32()), [None, 2, 3, 4])
    yield cells("float64_infinite", pa.array([float("inf"), float("-inf"), 3.0, 4.0]), [None, None, 3, 4])
    yield cells("float64_huge", pa.array([1e300, -1e300, 1e19, 4.0]), [None, None, None, 4])
    yield cells("float64_minus_zero", pa.array([-0.0, 2.0, 3.0, 4.0]), [0, 2, 3, 4])
    yield cells("float16_not_whole", pa.array(np.array([0.5, 2, 3, 4], np.float16)), [None, 2, 3, 4])
    not_whole = [Decimal("1.5"), Decimal("2.00"), Decimal("3.01"), Decimal(4)]
    for kind in (pa.decimal32(5, 2), pa.decimal64(18, 2), pa.decimal128(38, 2)):
        yield cells(f"{kind}_not_whole", pa.array(not_whole, kind), [None, 2, None, 4])
    vast = [Decimal("9" * 38), *big[1:]]
    yield cells("decimal128_vast", pa.array(vast, pa.decimal128(38, 0)), [None, 2, 3, 4])
    # no machine has an integer of so many digits: it may be refused, not bent
    wide = pa.array(big, pa.decimal256(76, 20))
    exact = cells("decimal256", wide, [1, 2, 3, 4])
    yield _columns(exact.name, exact.expected.or_(quarantined(column)), {column: wide})
    refused = NOT_SCALARS | CLOCKS | {"boolean": BOOLEAN, "binary": pa.array([b"1", b"2", b"3", b"4"])}
    for name, values in refused.items():
        yield _columns(f"{column}_{name}", _refused(column), {column: values})
    for name in _times(date(2025, 1, 6)):
        yield _columns(f"{column}_{name}", _refused(column), partial(_time, column=column, name=name))


def types() -> Iterator[Specimen]:
    """Every physical and logical type in place of each of our columns of usage."""
    for column in ("account_id", "application", "user_id", "event_id"):
        yield from _of_ids(column)
    yield from _of_times()
    for column in ("clicks", "records_created"):
        yield from _of_counts(column)
    nines = "9" * 76
    wide = pa.array([Decimal(nines), Decimal(1), Decimal(2), Decimal(3)], pa.decimal256(76, 0))
    whole = read(account_id=[nines, "1", "2", "3"]).or_(read(1, account_id=[None, "1", "2", "3"]))
    yield _columns("account_id_decimal256", whole.or_(quarantined("account_id")), {"account_id": wide})


def _relabelled(column: str, converted: int | None, logical: int | None, **columns: Any) -> Callable[[date], bytes]:
    """A file in which a column says that it is of another type; the bytes of its cells stay."""

    def make(monday: date) -> bytes:
        def change(footer: Struct) -> None:
            element = schema_of(footer, column)
            element.drop(6, 10)
            if converted is not None:
                element.put(6, I32, converted)
            if logical is not None:
                element.put(10, STRUCT, Struct({logical: (STRUCT, Struct())}))
            footer.drop(5)  # Arrow's own copy of the schema would say otherwise

        return edit_footer(parquet(plain(monday, **columns)), change)

    return make


def labels() -> Iterator[Specimen]:
    """Types that pyarrow does not write: labels put on other columns."""
    enum, json, bson, interval = (4, 4), (19, 12), (20, 13), (21, None)
    for column in ("account_id", "application", "user_id"):
        yield _specimen(f"{column}_enum", READ, _relabelled(column, *enum))
        yield _specimen(f"{column}_enum_by_old_label_only", READ, _relabelled(column, 4, None))
        yield _specimen(f"{column}_utf8_by_old_label_only", READ, _relabelled(column, 0, None))
        yield _specimen(f"{column}_utf8_by_new_label_only", READ, _relabelled(column, None, 1))
        yield _specimen(f"{column}_bytes_without_a_label", READ, _relabelled(column, None, None))
        lenient = quarantined(column).or_(READ).or_(ALL_REJECTED).or_(read(user_id=[None] * ROWS))
        # bare words are no JSON: whoever looks at it closely says so
        yield _specimen(f"{column}_json", lenient.or_(quarantined("JSON")), _relabelled(column, *json))
        yield _specimen(
            f"{column}_bson", lenient.or_(quarantined("BSON", "converted type")), _relabelled(column, *bson)
        )
        yield _specimen(f"{column}_label_that_nobody_knows", lenient.or_(BROKEN), _relabelled(column, None, 99))
        twelve = pa.array([b"abcdefghijkl"] * ROWS, pa.binary(12))
        no_id = quarantined(column).or_(ALL_REJECTED).or_(read(user_id=[None] * ROWS))
        yield _specimen(f"{column}_interval", no_id, _relabelled(column, *interval, **{column: twelve}))
    spoiled = pa.array([b"abc", NOT_UTF8, b"d", b"e"], pa.binary())
    no_text = read(1, account_id=["abc", None, "d", "e"]).or_(quarantined("account_id", "UTF-8", "utf8", "utf-8"))
    yield _specimen("account_id_text_that_is_not_utf8", no_text, _relabelled("account_id", 0, 1, account_id=spoiled))
    no_user = read(user_id=["abc", None, "d", "e"]).or_(quarantined("user_id", "UTF-8", "utf8", "utf-8"))
    yield _specimen("user_id_text_that_is_not_utf8", no_user, _relabelled("user_id", 0, 1, user_id=spoiled))
    beside = pa.array([NOT_UTF8] * ROWS, pa.binary())
    yield _specimen("text_beside_that_is_not_utf8", READ, _relabelled("remark", 0, 1, remark=beside))
    # a number that says it is a day, or a time: not the days of this week
    yield _specimen(
        "clicks_labelled_date",
        quarantined("clicks"),
        _relabelled("clicks", 6, 6, clicks=pa.array([1, 2, 3, 4], pa.int32())),
    )
    yield _specimen("clicks_labelled_time", quarantined("clicks"), _relabelled("clicks", 8, None))
    yield _specimen("event_time_without_a_label", quarantined("event_time"), _relabelled("event_time", None, None))
    yield _specimen("event_time_old_label_only", READ, _relabelled("event_time", 10, None))


# ---- encodings, compressions, shapes -----------------------------------------------------------------------------


def encodings() -> Iterator[Specimen]:
    """Every encoding and compression, in both versions of data pages, with checksums."""
    texts, numbers = ("account_id", "application", "user_id", "event_id"), ("event_time", "clicks", "records_created")
    of = {
        "plain": dict.fromkeys((*texts, *numbers), "PLAIN"),
        "delta_binary_packed": dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
        "delta_length_byte_array": dict.fromkeys(texts, "DELTA_LENGTH_BYTE_ARRAY"),
        "delta_byte_array": dict.fromkeys(texts, "DELTA_BYTE_ARRAY"),
        "byte_stream_split": dict.fromkeys(numbers, "BYTE_STREAM_SPLIT"),
    }
    codecs = ("none", "snappy", "gzip", "brotli", "lz4", "zstd")
    # of whole numbers and of bytes it is younger than many readers: it may be refused by its name
    unusual = READ.or_(quarantined("BYTE_STREAM_SPLIT"))
    for version in ("1.0", "2.0"):
        common = {"data_page_version": version, "write_page_checksum": True}
        for codec in codecs:
            yield _columns(f"dictionary_{codec}_v{version[0]}", READ, {}, {"compression": codec, **common})
            for name, columns in of.items():
                options = {"compression": codec, "use_dictionary": False, "column_encoding": columns, **common}
                expected = unusual if name == "byte_stream_split" else READ
                yield _columns(f"{name}_{codec}_v{version[0]}", expected, {}, options)
        flags = {"use_dictionary": False, "column_encoding": {"flag": "RLE"}, **common}
        yield _columns(f"rle_boolean_beside_v{version[0]}", READ, {"flag": BOOLEAN}, flags)
        yield _columns(
            f"rle_boolean_as_id_v{version[0]}",
            read(user_id=["true", "false", "true", "false"]),
            {"user_id": BOOLEAN},
            {"use_dictionary": False, "column_encoding": {"user_id": "RLE"}, **common},
        )
        for name, kind in {"float32": pa.float32(), "float64": pa.float64()}.items():
            split = {"use_dictionary": False, "column_encoding": {"clicks": "BYTE_STREAM_SPLIT"}, **common}
            cells = pa.array([1, 2, 3, 4], kind)
            yield _columns(f"byte_stream_split_{name}_v{version[0]}", READ, {"clicks": cells}, split)
        split = {"use_dictionary": False, "column_encoding": {"user_id": "BYTE_STREAM_SPLIT"}, **common}
        fixed = pa.array([b"ab", b"cd", b"ef", b"gh"], pa.binary(2))
        yield _columns(
            f"byte_stream_split_fixed_binary_v{version[0]}",
            read(user_id=["ab", "cd", "ef", "gh"]).or_(quarantined("BYTE_STREAM_SPLIT")),
            {"user_id": fixed},
            split,
        )
    as_integers = {"store_decimal_as_integer": True}
    for digits in (5, 15):
        cells = pa.array([Decimal(i) for i in range(1, 5)], pa.decimal128(digits, 2))
        yield _columns(f"decimal_stored_as_integer_{digits}", READ, {"clicks": cells}, as_integers)
    yield _columns("format_1_0", READ, {}, {"version": "1.0"})
    yield _columns("format_2_4", READ, {}, {"version": "2.4"})
    yield _columns("flavour_spark", READ, {}, {"flavor": "spark"})
    yield _columns("page_index", READ, {}, {"write_page_index": True})
    yield _columns("bloom_filter", READ, {}, {"bloom_filter_options": {"account_id": {"ndv": 10}}})
    yield _columns("no_statistics", READ, {}, {"write_statistics": False})
    yield _columns("no_arrow_schema", READ, {}, {"store_schema": False})
    for number, name in ((3, "lzo"), (5, "lz4_of_hadoop"), (42, "unknown")):
        yield _patched(f"codec_{name}", BROKEN, partial(edit_footer, change=_codec(number)))


def _codec(number: int) -> Callable[[Struct], None]:
    def change(footer: Struct) -> None:
        for _, chunk in chunks(footer):
            chunk[4] = number

    return change


def _groups(monday: date, sizes: list[int]) -> bytes:
    """The four rows in row groups of these sizes."""
    table, out, at = pa.table(plain(monday)), io.BytesIO(), 0
    with pq.ParquetWriter(out, table.schema, write_page_checksum=True) as writer:
        for size in sizes:
            writer.write_table(table.slice(at, size))
            at += size
    return out.getvalue()


def _many_groups(monday: date) -> bytes:
    table, out = pa.table(plain(monday, event_id=None)), io.BytesIO()
    with pq.ParquetWriter(out, table.schema) as writer:
        for row in range(1000):
            writer.write_table(table.slice(row % ROWS, 1))
    return out.getvalue()


def _times_over(rows: int) -> dict[Key, int]:
    return {k: v * rows for k, v in all_rows().items()}


def shapes() -> Iterator[Specimen]:
    """Row groups, sizes, nested columns, names of columns."""
    yield _specimen("a_group_a_row", READ, lambda m: _groups(m, [1, 1, 1, 1]))
    yield _specimen("empty_groups", READ, lambda m: _groups(m, [0, 2, 0, 0, 2, 0]))
    # an empty file is quarantined, says the promise; whether one of no rows is empty it does not say
    yield _specimen("no_rows", NOTHING.or_(BROKEN), lambda m: parquet({k: v[:0] for k, v in plain(m).items()}))
    yield _specimen("empty_group_alone", NOTHING.or_(BROKEN), lambda m: _groups(m, [0]))
    yield _patched("no_columns", BROKEN, parquet({}))
    yield _specimen("a_thousand_groups", Expected((Reading(_times_over(250)),)), _many_groups)
    yield _specimen(
        "a_thousand_pages",
        Expected((Reading(_times_over(2500)),)),
        lambda m: parquet(
            {k: pa.concat_arrays([v] * 2500) for k, v in plain(m, event_id=None).items()},
            data_page_size=64,
            write_batch_size=8,
            use_dictionary=False,
            write_page_checksum=True,
        ),
    )
    yield _columns("a_thousand_columns_beside", READ, {f"c{i}": [i] * ROWS for i in range(1000)})
    huge = "x" * 10_000_000
    yield _columns("huge_text_beside", READ, {"remark": [huge, "", None, "y"]})
    yield _columns("huge_user", read(user_id=[huge, "u2", "u3", "u4"]), {"user_id": [huge, "u2", "u3", "u4"]})
    swollen = ["0" * 10_000_000 + "1", "2", "3", "4"]
    # a text of one letter ten million times: small on its way, large in memory; the number that it is may be refused
    yield _columns(
        "swollen_count",
        READ.or_(read(1, clicks=[None, 2, 3, 4])).or_(BROKEN),
        {"clicks": swollen},
        {"compression": "zstd"},
    )
    yield _columns("text_with_a_zero_byte_beside", READ, {"remark": ["a\0b", "\0", "", None]})
    whole = ["o\0" + "1", "o2", "o3", "o4"]
    yield _columns(
        "text_with_a_zero_byte",
        read(account_id=whole).or_(BROKEN).or_(read(1, account_id=[None, *whole[1:]])),
        {"account_id": whole},
    )
    for name, cells in NOT_SCALARS.items():
        yield _columns(f"{name}_beside", READ, {"beside": cells})
    twins = pa.array([{"account_id": "no", "clicks": 7, "event_time": "no"}] * ROWS)
    yield _columns("struct_beside_with_our_names", READ, {"aside": twins})
    yield _specimen("struct_first_with_our_names", READ, lambda m: parquet({"aside": twins} | plain(m)))
    only_inside = {"clicks": None, "aside": twins}
    yield _columns("needed_column_only_inside_a_struct", quarantined("clicks"), only_inside)
    deep: Any = pa.array([1, 2, 3, 4])
    for _ in range(60):
        deep = pa.StructArray.from_arrays([deep], ["d"])
    yield _columns("sixty_structs_deep_beside", READ.or_(BROKEN), {"deep": deep})
    yield from _missing_columns()
    yield from _names_of_columns()


def _missing_columns() -> Iterator[Specimen]:
    for column in ("account_id", "application", "event_time", "clicks"):
        yield _columns(f"without_{column}", quarantined(column), {column: None})
    yield _columns("without_user_id", read(user_id=[None] * ROWS), {"user_id": None})
    yield _columns("without_event_id", READ, {"event_id": None})
    records = Reading(all_rows(), records={key(i): None for i in range(ROWS)})
    yield _columns("without_records_created", Expected((records,)), {"records_created": None})
    yield _columns("without_any_of_ours", quarantined("account_id"), dict.fromkeys(COLUMNS) | {"x": [1, 2]})


def _names_of_columns() -> Iterator[Specimen]:
    yield _specimen("names_in_capitals", READ, lambda m: parquet({k.upper(): v for k, v in plain(m).items()}))
    yield _specimen("names_in_mixed_case", READ, lambda m: parquet({k.title(): v for k, v in plain(m).items()}))
    yield _specimen("columns_backwards", READ, lambda m: parquet(dict(reversed(plain(m).items()))))
    odd = [
        'quo"te',
        "apo'strophe",
        "dot.ted",
        "semi;colon",
        "per%cent",
        "",
        " ",
        "new\nline",
        "ünïcode",
        "日本",
        "{brace}",
        "[0]",
        "*",
        "a,b",
        "$1",
        "?",
        "--",
        "/*",
        "\\",
        "🙂",
        "filename",
        "file_row_number",
        "rowid",
        "x" * 5000,
    ]
    yield _columns("odd_names_beside", READ, {name: [1, 2, 3, 4] for name in odd})
    yield _columns("case_twins_beside", READ, {"Foo": [1, 2, 3, 4], "foo": ["a"] * ROWS, "FOO": [None] * ROWS})
    yield _columns("folder_columns_beside", READ, {"year": [1999] * ROWS, "week": ["first"] * ROWS})
    yield _columns("file_name_columns_beside", READ, {"filename": ["x"] * ROWS, "file_row_number": [7] * ROWS})
    # which of two twins is meant nobody can tell: the file is refused, or one of both is taken whole
    other = pa.array(["t1", "t2", "t3", "t4"])
    either = quarantined("account_id").or_(READ).or_(read(account_id=["t1", "t2", "t3", "t4"]))
    yield _specimen("case_twin_of_ours", either, lambda m: parquet(plain(m) | {"Account_ID": other}))
    yield _specimen(
        "twin_of_ours", either, lambda m: _renamed(parquet(plain(m) | {"twin": other}), "twin", "account_id")
    )
    same = {"twin": pa.array(["a"] * ROWS), "other": pa.array([1, 2, 3, 4])}
    yield _specimen("twins_beside", READ, lambda m: _renamed(parquet(plain(m) | same), "other", "twin"))
    no_text = READ.or_(BROKEN)
    yield _specimen(
        "name_beside_that_is_not_utf8",
        no_text,
        lambda m: _renamed(parquet(plain(m) | {"other": other}), "other", NOT_UTF8),
    )
    yield _specimen(
        "name_of_ours_that_is_not_utf8", BROKEN, lambda m: _renamed(parquet(plain(m)), "account_id", NOT_UTF8)
    )


def _renamed(data: bytes, old: str, new: str | bytes) -> bytes:
    name = new if isinstance(new, bytes) else new.encode()

    def change(footer: Struct) -> None:
        schema_of(footer, old)[4] = name
        for _, chunk in chunks(footer):
            if chunk[3].items == [old.encode()]:
                chunk[3].items = [name]
        footer.drop(5)

    return edit_footer(data, change)


# ---- broken, lying, and what is no Parquet at all ----------------------------------------------------------------


class _ToyKms(pe.KmsClient):  # type: ignore[misc]
    """Wraps keys by writing them down: enough to make encrypted files."""

    def __init__(self, _: Any) -> None:
        pe.KmsClient.__init__(self)

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:  # noqa: ARG002
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:  # noqa: ARG002
        return base64.b64decode(wrapped_key)


def _encrypted(monday: date, columns: list[str] | None, plaintext_footer: bool, algorithm: str = "AES_GCM_V1") -> bytes:
    names = {"column_keys": {"c": columns}} if columns else {"uniform_encryption": True}
    settings = pe.EncryptionConfiguration(
        footer_key="f", plaintext_footer=plaintext_footer, encryption_algorithm=algorithm, **names
    )
    factory = pe.CryptoFactory(_ToyKms)
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), settings)
    return parquet(plain(monday, remark=["a"] * ROWS), encryption_properties=properties)


def encrypted() -> Iterator[Specimen]:
    """Encrypted by Parquet's own means: footers, all columns, some columns."""
    said = quarantined("encrypt", "Encrypt")
    for algorithm in ("AES_GCM_V1", "AES_GCM_CTR_V1"):
        small = algorithm.lower()
        yield _specimen(
            f"encrypted_footer_{small}",
            said,
            partial(_encrypted, columns=None, plaintext_footer=False, algorithm=algorithm),
        )
        yield _specimen(
            f"encrypted_count_{small}",
            said,
            partial(_encrypted, columns=["clicks"], plaintext_footer=True, algorithm=algorithm),
        )
    yield _specimen(
        "encrypted_columns_and_footer", said, partial(_encrypted, columns=["clicks", "user_id"], plaintext_footer=False)
    )
    yield _specimen("encrypted_user", said, partial(_encrypted, columns=["user_id"], plaintext_footer=True))
    # ours are all there to be read
    yield _specimen(
        "encrypted_column_beside", said.or_(READ), partial(_encrypted, columns=["remark"], plaintext_footer=True)
    )


def _flip(data: bytes, at: int, mask: int = 0x10) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def _spoiled_page(monday: date, column: str, options: dict[str, Any], index: int = -1) -> bytes:
    """A page with a bit turned, below a checksum that says so."""
    data = parquet(plain(monday, remark=["a", "b", "c", "d"]), write_page_checksum=True, **options)
    page = [page for page in pages(data) if page.column == column][index]
    return _flip(data, page.end - 1)


def _wrong_checksum(monday: date, column: str, options: dict[str, Any]) -> bytes:
    """A whole page below a checksum of another."""

    def change(header: Struct) -> None:
        header[4] = header[4] ^ 0x100

    return edit_page(parquet(plain(monday), write_page_checksum=True, **options), column, change)


def checksums() -> Iterator[Specimen]:
    """Pages that do not match their checksums."""
    said = quarantined("checksum", "CRC", "crc")
    ways: dict[str, dict[str, Any]] = {
        "dictionary_v1": {},
        "dictionary_v2": {"data_page_version": "2.0"},
        "plain_v1": {"use_dictionary": False, "compression": "none"},
        "plain_v2": {"use_dictionary": False, "compression": "none", "data_page_version": "2.0"},
        "zstd_v2": {"use_dictionary": False, "compression": "zstd", "data_page_version": "2.0"},
    }
    for way, options in ways.items():
        for column in COLUMNS:
            # where the page is compressed, taking it apart may fail before anybody looks at the checksum
            expected = said if options.get("compression") == "none" else BROKEN
            make = partial(_spoiled_page, column=column, options=options)
            yield _specimen(f"spoiled_{column}_{way}", expected, make)
            right = partial(_wrong_checksum, column=column, options=options)
            yield _specimen(f"wrong_checksum_{column}_{way}", said, right)
    yield _specimen("spoiled_dictionary", BROKEN, lambda m: _spoiled_page(m, "account_id", {}, 0))
    # a column that nobody reads
    yield _specimen("spoiled_column_beside", said.or_(READ), lambda m: _spoiled_page(m, "remark", ways["plain_v1"]))


def _on_footer(change: Callable[[Struct], None], **options: Any) -> Callable[[date], bytes]:
    return lambda monday: edit_footer(parquet(plain(monday), **options), change)


def _on_page(column: str, change: Callable[[Struct], None], **options: Any) -> Callable[[date], bytes]:
    return lambda monday: edit_page(parquet(plain(monday), use_dictionary=False, **options), column, change)


def _set(struct: Callable[[Struct], Struct], number: int, value: Any) -> Callable[[Struct], None]:
    def change(footer: Struct) -> None:
        found = struct(footer)
        found[number] = value(found[number]) if callable(value) else value

    return change


def _group(footer: Struct) -> Struct:
    found: Struct = footer[4].items[0]
    return found


def _chunk(column: str) -> Callable[[Struct], Struct]:
    return lambda footer: next(chunk for name, chunk in chunks(footer) if name == column)


def lies() -> Iterator[Specimen]:
    """Footers and page headers that are well-formed, and do not tell the truth."""
    changes: dict[str, Callable[[Struct], None]] = {
        "fewer_rows_in_the_file": _set(lambda f: f, 3, 3),
        "more_rows_in_the_file": _set(lambda f: f, 3, 5),
        "rows_below_zero": _set(lambda f: f, 3, -4),
        "fewer_rows_in_the_group": _set(_group, 3, 3),
        "more_rows_in_the_group": _set(_group, 3, 5),
        "endless_rows_in_the_group": _set(_group, 3, 2**62),
        "rows_of_the_group_below_zero": _set(_group, 3, -1),
        "fewer_values_in_a_chunk": _set(_chunk("clicks"), 5, 3),
        "more_values_in_a_chunk": _set(_chunk("clicks"), 5, 5),
        "chunk_shorter": _set(_chunk("clicks"), 7, lambda size: size // 2),
        "chunk_of_no_bytes": _set(_chunk("clicks"), 7, 0),
        "chunk_below_zero": _set(_chunk("clicks"), 7, -1),
        "chunk_past_the_end": _set(_chunk("clicks"), 7, 2**40),
        "chunk_swollen": _set(_chunk("clicks"), 6, 2**60),
        "page_past_the_end": _set(_chunk("clicks"), 9, 2**40),
        "page_below_zero": _set(_chunk("clicks"), 9, -100),
        "page_in_the_magic": _set(_chunk("clicks"), 9, 0),
        "page_a_byte_late": _set(_chunk("clicks"), 9, lambda at: at + 1),
        "type_of_no_kind": _set(lambda f: schema_of(f, "clicks"), 1, 77),
        "repetition_of_no_kind": _set(lambda f: schema_of(f, "clicks"), 3, 9),
        "more_children": _set(lambda f: f[2].items[0], 5, lambda n: n + 1),
        "fewer_children": _set(lambda f: f[2].items[0], 5, lambda n: n - 1),
        "endless_children": _set(lambda f: f[2].items[0], 5, 2**30),
        "no_groups": lambda f: f.drop(4),
        "no_schema": lambda f: f.drop(2),
        "no_columns_in_the_group": lambda f: _group(f).drop(1),
        "group_without_a_chunk": lambda f: _group(f)[1].items.pop(),
        "chunk_in_another_file": lambda f: _group(f)[1].items[5].put(1, BINARY, b"/etc/passwd"),
        "chunk_without_metadata": lambda f: _group(f)[1].items[5].drop(3),
        "schema_that_bites_its_tail": lambda f: schema_of(f, "clicks").put(5, I32, 1),
        "our_column_repeated": _set(lambda f: schema_of(f, "clicks"), 3, 2),
        "our_column_required": _set(lambda f: schema_of(f, "clicks"), 3, 0),
    }
    for name, change in changes.items():
        yield _specimen(f"lie_{name}", RIGHT_OR_BROKEN, _on_footer(change))
        plain_options = {"use_dictionary": False, "compression": "none"}
        lie = _specimen(f"lie_{name}_plain", RIGHT_OR_BROKEN, _on_footer(change, **plain_options))
        # its levels are taken for cells: for DuckDB a file like any other, for pyarrow a broken one
        yield replace(lie, beyond="the schema lies") if name == "our_column_required" else lie
    headers: dict[str, Callable[[Struct], None]] = {
        "page_of_fewer_values": lambda h: h[5].__setitem__(1, 3),
        "page_of_more_values": lambda h: h[5].__setitem__(1, 5),
        "page_of_no_values": lambda h: h[5].__setitem__(1, 0),
        "page_of_another_encoding": lambda h: h[5].__setitem__(2, 5),
        "page_of_an_unknown_encoding": lambda h: h[5].__setitem__(2, 60),
        "page_of_no_kind": lambda h: h.__setitem__(1, 50),
        "page_that_ends_early": lambda h: h.__setitem__(3, h[3] - 1),
        "page_that_ends_late": lambda h: h.__setitem__(3, h[3] + 1),
        "page_below_zero": lambda h: h.__setitem__(3, -1),
        "page_swollen": lambda h: h.__setitem__(2, h[2] + 1),
        "page_shrunken": lambda h: h.__setitem__(2, h[2] - 1),
    }
    for column in ("account_id", "clicks"):
        for name, change in headers.items():
            with_checksums = _on_page(column, change, write_page_checksum=True)
            yield _specimen(f"lie_{name}_{column}", RIGHT_OR_BROKEN, with_checksums)
            bare = _specimen(f"lie_{name}_{column}_without_checksums", RIGHT_OR_BROKEN, _on_page(column, change))
            # what has checksums is read by pyarrow too, which notices; DuckDB alone reads on past the cells
            unnoticed = name in ("page_of_fewer_values", "page_of_no_values")
            yield replace(bare, beyond="page headers lie, and no checksum says so" if unnoticed else None)


def _statistics(column: str, smallest: bytes, largest: bytes, nulls: int = 0) -> Callable[[Struct], None]:
    def change(footer: Struct) -> None:
        said = _chunk(column)(footer)[12]
        said.drop(1, 2)
        said.put(3, I64, nulls)
        said.put(5, BINARY, largest)
        said.put(6, BINARY, smallest)

    return change


def statistics() -> Iterator[Specimen]:
    """Statistics that leave out what matters, honestly or not: rows are judged by their cells."""

    yield _columns(
        "statistics_know_no_nan",
        read(2, clicks=[1, None, None, 4]),
        {"clicks": pa.array([1.0, float("nan"), float("nan"), 4.0])},
    )
    nothing = pa.array(["o1", None, "o3", None])
    yield _columns(
        "no_statistics_and_nulls",
        read(2, account_id=["o1", None, "o3", None]),
        {"account_id": nothing},
        {"write_statistics": False},
    )
    negative = pa.array([1, -2, 3, 4])
    one = struct.pack("<q", 1), struct.pack("<q", 4)

    def make(change: Callable[[Struct], None], **columns: Any) -> Callable[[date], bytes]:
        return lambda m: edit_footer(parquet(plain(m, **columns)), change)

    yield _specimen(
        "statistics_hide_a_negative",
        read(1, clicks=[1, None, 3, 4]).or_(BROKEN),
        make(_statistics("clicks", *one), clicks=negative),
    )
    yield _specimen(
        "statistics_hide_nulls",
        read(2, account_id=["o1", None, "o3", None]).or_(BROKEN),
        make(_statistics("account_id", b"o1", b"o4"), account_id=nothing),
    )
    yield _specimen("statistics_say_all_null", RIGHT_OR_BROKEN, make(_statistics("clicks", *one, nulls=ROWS)))
    yield _specimen("statistics_say_nothing_fits", RIGHT_OR_BROKEN, make(_statistics("clicks", one[1], one[0])))

    def other_week(monday: date) -> bytes:
        first = datetime.combine(monday, time(12)) - datetime(1970, 1, 1)
        begin = int(first.total_seconds()) * 10**6
        bounds = struct.pack("<q", begin), struct.pack("<q", begin + 3 * 86_400_000_000)
        late = plain(monday)["event_time"].to_pylist()
        late[1] += timedelta(days=70)
        spoiled = parquet(plain(monday, event_time=pa.array(late, pa.timestamp("us"))))
        return edit_footer(spoiled, _statistics("event_time", *bounds))

    yield _specimen("statistics_hide_another_week", read(1, day=[0, None, 2, 3]).or_(BROKEN), other_week)

    def old_ones(footer: Struct) -> None:
        for _, chunk in chunks(footer):
            said = chunk[12]
            said.drop(5, 6, 7, 8)
            said.put(1, BINARY, b"\xff" * 8)
            said.put(2, BINARY, b"\0" * 8)

    yield _specimen("statistics_of_old", READ, make(old_ones))
    yield _specimen("statistics_of_odd_sizes", RIGHT_OR_BROKEN, make(_statistics("clicks", b"", b"\1\2\3")))


def broken() -> Iterator[Specimen]:
    """What is cut off, filled up, or no Parquet."""

    yield _patched("empty_file", quarantined("empty", "Empty", "no bytes", "0 bytes"), b"")
    for share in (0.01, 0.2, 0.5, 0.8, 0.999):
        yield _patched(f"cut_off_at_{share}", BROKEN, partial(_cut, share=share))
    yield _patched("magic_alone", BROKEN, b"PAR1")
    yield _patched("magic_twice", BROKEN, b"PAR1PAR1")
    yield _patched("magic_and_no_footer", BROKEN, b"PAR1" + struct.pack("<I", 0) + b"PAR1")
    yield _patched("magic_of_another_kind", BROKEN, lambda whole: whole[:-4] + b"PAR2")
    yield _patched("magic_of_encryption", BROKEN, lambda whole: whole[:-4] + b"PARE")
    yield _patched("first_magic_gone", RIGHT_OR_BROKEN, lambda whole: b"\0\0\0\0" + whole[4:])
    for length in (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 50_000):
        yield _patched(f"footer_says_{length}", BROKEN, partial(_footer_says, length=length))
    for less in (1, 10):
        yield _patched(f"footer_says_{less}_less", BROKEN, partial(_footer_says, less=less))
    footers = {
        "of_zeros": b"\0" * 500,
        "of_ones": b"\xff" * 500,
        "without_a_floor": b"\x1c" * 100_000,  # a struct in a struct in a struct ...
        "with_an_endless_list": b"\x19\xfc\xff\xff\xff\xff\x07" + b"\0" * 50,  # two thousand million structs
        "with_an_endless_text": b"\x28\xff\xff\xff\xff\x07" + b"a" * 50,
    }
    for name, footer in footers.items():
        yield _patched(f"footer_{name}", BROKEN, partial(_with_other_footer, footer=footer))
    yield _patched("footer_with_a_field_of_the_future", READ, partial(edit_footer, change=_of_the_future))
    yield _patched("bytes_before", BROKEN, lambda whole: b"\0" * 100 + whole)
    yield _patched("bytes_behind", BROKEN, lambda whole: whole + b"\n")
    yield _patched("zeros_behind", BROKEN, lambda whole: whole + b"\0" * 4096)
    yield _specimen("middle_of_zeros", BROKEN, lambda m: _zeroed(parquet(plain(m), write_page_checksum=True)))
    others = {
        "csv": b"account_id,application,event_time,clicks\no1,permits,2025-01-01,1\n",
        "json": b'{"account_id": "o1"}\n',
        "xml_of_a_store": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "html": b"<!doctype html><title>Log in</title>",
        "zeros": b"\0" * 10_000,
        "orc": b"ORC" + b"\0" * 100 + b"\x03ORC",
        "avro": b"Obj\x01" + b"\0" * 100,
        "sqlite": b"SQLite format 3\0" + b"\0" * 100,
        "pointer_of_git_lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n",
    }
    for name, data in others.items():
        yield _patched(f"really_{name}", BROKEN, data)
    yield _patched("really_gzip", BROKEN, gzip.compress)
    yield _patched("really_zip", BROKEN, _zipped)
    yield _specimen("really_arrow", BROKEN, _feather)
    yield _patched("really_text_of_base64", BROKEN, base64.b64encode)
    yield _patched("as_text_with_other_line_ends", RIGHT_OR_BROKEN, lambda whole: whole.replace(b"\n", b"\r\n"))


def _cut(whole: bytes, share: float) -> bytes:
    return whole[: int(len(whole) * share)]


def _footer_says(whole: bytes, length: int | None = None, less: int = 0) -> bytes:
    (told,) = struct.unpack("<I", whole[-8:-4])
    return whole[:-8] + struct.pack("<I", told - less if length is None else length) + MAGIC


def _with_other_footer(whole: bytes, footer: bytes) -> bytes:
    return with_footer(body(whole), footer)


def _of_the_future(footer: Struct) -> None:
    footer.put(200, BYTE, 7)


def _zeroed(data: bytes) -> bytes:
    page = next(page for page in pages(data) if page.column == "clicks")
    return data[: page.body] + bytes(page.end - page.body) + data[page.end :]


def _zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("odd.parquet", data)
    return out.getvalue()


def _feather(monday: date) -> bytes:
    out = io.BytesIO()
    table = pa.table(plain(monday))
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


# ---- what a folder can hold --------------------------------------------------------------------------------------


def file_names() -> Iterator[Specimen]:
    """Names that some layer could take for a pattern, a path, a quote or an address."""

    def make(monday: date) -> bytes:
        return parquet(plain(monday))

    names = [
        "it's.parquet",
        'quo"te.parquet',
        "a b.parquet",
        "[0].parquet",
        "*.parquet",
        "?.parquet",
        "{a,b}.parquet",
        "a,b.parquet",
        "100%.parquet",
        "%20.parquet",
        "a#b.parquet",
        "a+b&c=d.parquet",
        "back\\slash.parquet",
        "semi;colon.parquet",
        "$HOME.parquet",
        "~.parquet",
        "-rf.parquet",
        "é.parquet",
        "e\u0301.parquet",
        "日本🙂.parquet",
        "new\nline.parquet",
        "account_id=evil.parquet",
        "year=1999.parquet",
        "x" * 240 + ".parquet",
        "s3:.parquet",
        "odd.parquet.parquet",
    ]
    for name in names:
        yield _specimen(f"named_{name[:30]!r}", READ, make, name)
    endings = [
        "odd.PARQUET",
        "odd.parq",
        "odd.pq",
        "odd.Pq",
        "odd.parquet.snappy",
        "odd.parquet.gz",
        "odd.parquet.zstd",
        "odd.snappy.parquet",
        "odd.parq.snappy",
        "part-00000-abc.c000",
        "odd",
    ]
    for name in endings:
        expected = SET_APART if name.endswith(".c000") else READ
        yield _specimen(f"ending_of_{name}", expected, make, name)
    yield _patched("without_an_ending_and_no_parquet", Expected(named=True), b"hello", "README")
    for name in ("odd.parquet.crc", "odd.parquet.tmp", "odd.csv", "odd.json", "odd.parquet~", "odd.orc"):
        yield _specimen(f"ending_of_{name}", Expected(named=True), make, name)
    for name in ("_SUCCESS", "_metadata", "_odd.parquet", ".odd.parquet", ".odd.parquet.crc", "._odd.parquet"):
        yield _specimen(f"hidden_{name}", Expected(named=True), make, name)
    # no text in any encoding of today: listed as somebody's mistake, or read
    yield _specimen("named_in_latin_1", READ.or_(SET_APART), make, b"m\xfcll.parquet")


def _folder_of_parts(path: Path, monday: date) -> None:
    path.mkdir()
    table = pa.table(plain(monday))
    for part in range(2):
        pq.write_table(table.slice(part * 2, 2), path / f"part-{part}.parquet")


def _unreadable(path: Path, monday: date) -> None:
    path.write_bytes(parquet(plain(monday)))
    path.chmod(0)


def _link_to_whole(path: Path, monday: date) -> None:
    whole = path.parents[3] / f"elsewhere-{monday}.bin"
    whole.write_bytes(parquet(plain(monday)))
    path.symlink_to(whole)


def _socket(path: Path, _: date) -> None:
    # its path may have a hundred bytes or so: bound by a short one, from where it lies
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def _sparse(path: Path, monday: date) -> None:
    """A thousand million zeros on the way to a footer: a few blocks on the disk."""
    whole = parquet(plain(monday))
    with path.open("wb") as file:
        file.write(whole[:4])
        file.seek(10**9)
        file.write(whole[-200:])


def _sparse_footer(path: Path, _: date) -> None:
    """A footer that says it has nearly all of two thousand million bytes."""
    with path.open("wb") as file:
        file.write(b"PAR1")
        file.seek(2 * 10**9)
        file.write(struct.pack("<I", 2 * 10**9 - 100) + b"PAR1")


def in_folders() -> Iterator[Specimen]:
    """What else a folder can hold: other kinds of files, links, folders."""
    yield Specimen("fifo", lambda path, _: os.mkfifo(path), SET_APART)
    yield Specimen("socket", _socket, SET_APART)
    yield Specimen("link_to_nothing", lambda path, _: path.symlink_to("gone.parquet"), SET_APART)
    yield Specimen("link_to_itself", lambda path, _: path.symlink_to(path.name), SET_APART)
    yield Specimen("link_to_the_null_device", lambda path, _: path.symlink_to("/dev/null"), SET_APART)
    yield Specimen("link_to_a_whole_file", _link_to_whole, READ)
    # files in it would be the good ones once more, without end
    loop = Expected((Reading({}),), quarantine=ANY_REASON, named=True, unmentioned=True)
    yield Specimen("link_to_its_own_folder", lambda path, _: path.symlink_to("."), loop)
    yield Specimen("folder_named_like_a_file", lambda path, _: path.mkdir(), loop)
    parts = READ.or_(Expected(named=True))
    yield Specimen("folder_of_parts_named_like_a_file", _folder_of_parts, parts)
    yield Specimen("folder_of_parts_below_the_week", _folder_of_parts, parts, "batch-1")
    yield Specimen("folder_of_parts_with_our_column_in_its_name", _folder_of_parts, parts, "account_id=evil")
    yield Specimen("hidden_folder_of_parts", _folder_of_parts, Expected(named=True), "_temporary")
    yield Specimen("sparse_file", _sparse, BROKEN)
    yield Specimen("sparse_footer", _sparse_footer, BROKEN)
    if os.geteuid() != 0:
        yield Specimen("without_the_right_to_read", _unreadable, SET_APART)


def zoo() -> list[Specimen]:
    """All specimens that are read under the plain mapping of our own names."""
    kinds = (types, labels, encodings, shapes, encrypted, checksums, lies, statistics, broken, file_names, in_folders)
    found = [specimen for kind in kinds for specimen in kind()]
    twice = {s.name for s in found if [t.name for t in found].count(s.name) > 1}
    assert not twice, twice
    return found
