"""The quick way through a week whose files hold nothing out of the ordinary, which is nearly every week.

Text of Parquet lies there as a dictionary of values and a number a row: values are looked at once instead of once a
row, and rows are counted by one whole number made of theirs. Files are read once, checksums of pages included.

Belongs here: files of Parquet with plain columns of the types that the schema names. Anything else (an expression, a
null where none may be, a blank, a count out of bounds, a day outside the week, a file that cannot be read) is not
judged here: `read_fast_path` returns None, and the careful way of `usage_reader.py` says what it is. Both give the
same facts; a test compares them on made-up weeks.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from usage_pipeline.config.settings import CompletenessSettings, Source
from usage_pipeline.core.weeks import monday_of
from usage_pipeline.ingestion.lake import Lake, LakeFile

_TEXT = ("account_id", "application", "user_id")
_COUNTS = ("clicks", "records_created")
FACTS = {
    "week": pa.date32(),
    "week_start": pa.date32(),
    "account_id": pa.string(),
    "application": pa.string(),
    "user_id": pa.string(),
    "day": pa.date32(),
    "source_rows": pa.int64(),
    "clicks": pa.int64(),
    "records_created": pa.int64(),
}
# rows counted at once: what bounds the memory of a week of any size
BATCH_ROWS = 1_000_000


@dataclass
class PlainWeek:
    """What was read: rows by file, clicks, columns that nothing maps; facts, unless they were handed on in parts."""

    facts: pa.Table | None = None
    file_rows: dict[str, int] = field(default_factory=dict)
    clicks: int = 0
    ignored: list[str] = field(default_factory=list)


class _OutOfTheOrdinaryError(Exception):
    """Something that only the careful way can judge."""


def read_fast_path(
    completeness: CompletenessSettings,
    source: Source,
    lake: Lake,
    files: list[LakeFile],
    week: date,
    hand_on: Callable[[pa.Table], None],
) -> PlainWeek | None:
    """Counts the files of one week; None where anything is out of the ordinary.

    The facts of a week of more than `BATCH_ROWS` are handed on in parts, to be summed up: no more than one batch of
    rows is ever in memory.
    """
    columns = {ours: theirs for ours, theirs in source.columns.items() if isinstance(theirs, str)}
    if source.format != "parquet" or len(columns) < len(source.columns) or "event_id" in columns or source.null_values:
        return None
    found, parts = PlainWeek(), 0
    try:
        for rows in _batches(lake, source, files, columns, found):
            part, clicks = _counted(completeness, columns, rows, week)
            found.clicks += clicks
            if parts == 1 and found.facts is not None:
                hand_on(found.facts)
            if parts:
                hand_on(part)
            parts, found.facts = parts + 1, None if parts else part
    except Exception:  # whatever a library says of a file, or the way to it: the careful way tells which
        return None
    return found if parts else None


def _batches(
    lake: Lake, source: Source, files: list[LakeFile], columns: dict[str, str], found: PlainWeek
) -> Iterator[pa.Table]:
    """The rows of all files in tables of about `BATCH_ROWS`."""
    names, text = list(columns.values()), [columns[name] for name in _TEXT if name in columns]
    held, waiting = list[pa.Table](), 0
    for file in files:
        with lake.open(file) as stream:
            parquet = pq.ParquetFile(stream, read_dictionary=text, page_checksum_verification=True)
            schema = parquet.schema_arrow
            _must_be(set(names) <= set(schema.names) and len(set(schema.names)) == len(schema.names))
            _check_types(source, columns, schema, _old_times(parquet))
            found.file_rows[file.key] = parquet.metadata.num_rows
            found.ignored += [n for n in schema.names if n not in names and n not in found.ignored]
            for groups in _row_groups(parquet, BATCH_ROWS):
                held.append(parquet.read_row_groups(groups, columns=names, use_threads=False))
                waiting += held[-1].num_rows
                if waiting >= BATCH_ROWS:
                    yield pa.concat_tables(held)
                    held, waiting = [], 0
    if held:
        yield pa.concat_tables(held)


def _row_groups(parquet: pq.ParquetFile, rows: int) -> Iterator[list[int]]:
    """Numbers of row groups that hold about so many rows together."""
    groups: list[int] = []
    for number in range(parquet.num_row_groups):
        groups.append(number)
        held = sum(parquet.metadata.row_group(n).num_rows for n in groups)
        if held >= rows or number == parquet.num_row_groups - 1:
            yield groups
            groups = []


def _must_be(condition: Any) -> None:
    if not condition:
        raise _OutOfTheOrdinaryError


def _old_times(parquet: pq.ParquetFile) -> set[str]:
    """Columns of the old kind INT96: they are in UTC, and pyarrow reads them as times without a zone."""
    described = (parquet.schema.column(number) for number in range(len(parquet.schema)))
    return {column.path for column in described if column.physical_type == "INT96"}


def _check_types(source: Source, columns: dict[str, str], schema: pa.Schema, old_times: set[str]) -> None:
    for ours, theirs in columns.items():
        _must_be(theirs not in old_times)
        kind = schema.field(theirs).type
        if ours in _TEXT:
            _must_be(pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type))
        elif ours in _COUNTS:
            _must_be(pa.types.is_signed_integer(kind))
        else:
            is_local = pa.types.is_timestamp(kind) and kind.tz is None and not source.partition_timezone
            _must_be(is_local or pa.types.is_date32(kind))


def _counted(
    completeness: CompletenessSettings, columns: dict[str, str], rows: pa.Table, week: date
) -> tuple[pa.Table, int]:
    """Facts of a table of rows, and its clicks counted before they were summed up."""
    count = rows.num_rows
    values: dict[str, pa.Array] = {}
    codes: dict[str, np.ndarray[Any, Any]] = {}
    for name in (n for n in _TEXT if n in columns):
        codes[name], values[name] = _codes(rows.column(columns[name]), may_be_null=name == "user_id")
    if "event_time" in columns:
        first = week - timedelta(days=completeness.late_days)
        codes["day"], values["day"] = _days(rows.column(columns["event_time"]), first)
        _must_be(len(values["day"]) <= 7 + 2 * completeness.late_days)
    # one more than there are values: the number that stands for null
    sizes = [len(values[name]) + 1 for name in codes]
    _must_be(math.prod(sizes) < 2**62)

    key = np.zeros(count, dtype=np.int64)
    for name, size in zip(codes, sizes, strict=True):
        key = key * size + codes[name]
    group, keys = pd.factorize(key)
    largest = completeness.largest_count
    clicks = _whole(rows.column(columns["clicks"]), largest) if "clicks" in columns else np.ones(count, dtype=np.int64)
    total = {"source_rows": np.bincount(group, minlength=len(keys)), "clicks": _summed(group, clicks, len(keys))}
    if "records_created" in columns:
        records = _whole(rows.column(columns["records_created"]), largest)
        total["records_created"] = _summed(group, records, len(keys))

    facts: dict[str, pa.Array] = {}
    for name, size in reversed(list(zip(codes, sizes, strict=True))):
        keys, code = np.divmod(keys, size)
        numbers = pa.array(code.astype(np.int32), mask=code == len(values[name]))
        facts[name] = pa.DictionaryArray.from_arrays(numbers, values[name])
    return _table(week, facts | {name: pa.array(numbers) for name, numbers in total.items()}), int(clicks.sum())


def _table(week: date, columns: dict[str, pa.Array]) -> pa.Table:
    """Facts with all of their columns, as `usage_facts.sql` makes them."""
    rows = len(columns["clicks"])
    if "day" in columns:
        mondays = pa.array([monday_of(day) for day in columns["day"].dictionary.to_pylist()], pa.date32())
        week_start = pa.DictionaryArray.from_arrays(columns["day"].indices, mondays)
    else:
        week_start = pa.repeat(pa.scalar(week, pa.date32()), rows)
    whole = {"week": pa.repeat(pa.scalar(week, pa.date32()), rows), "week_start": week_start} | columns
    return pa.table({name: whole[name] if name in whole else pa.nulls(rows, kind) for name, kind in FACTS.items()})


def _codes(column: pa.ChunkedArray, *, may_be_null: bool) -> tuple[np.ndarray[Any, Any], pa.Array]:
    """A number a row and the values that the numbers stand for; one past the last stands for null."""
    column = column.unify_dictionaries()
    if column.num_chunks == 0:
        return np.zeros(0, dtype=np.int64), pa.array([], pa.string())
    values = column.chunk(0).dictionary
    _must_be(values.null_count == 0)
    # every kind of space that Unicode knows: which of them are taken away, the careful way says
    _must_be(pc.all(pc.equal(values, pc.utf8_trim_whitespace(values))).as_py() is not False)
    _must_be(not pc.any(pc.equal(values, "")).as_py())
    _must_be(may_be_null or column.null_count == 0)
    numbers = [chunk.indices.fill_null(len(values)).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(numbers).astype(np.int64, copy=False), values


def _days(column: pa.ChunkedArray, first: date) -> tuple[np.ndarray[Any, Any], pa.Array]:
    """Days since `first`, and the days that they stand for."""
    _must_be(column.null_count == 0)
    days = column.to_numpy().astype("datetime64[D]").astype(np.int64) - np.datetime64(first, "D").astype(np.int64)
    if len(days) == 0:
        return days, pa.array([], pa.date32())
    _must_be(days.min() >= 0)
    return days, pa.array([first + timedelta(days=number) for number in range(int(min(days.max(), 400)) + 1)])


def _whole(column: pa.ChunkedArray, largest: int) -> np.ndarray[Any, Any]:
    _must_be(column.null_count == 0)
    numbers: np.ndarray[Any, Any] = column.to_numpy().astype(np.int64, copy=False)
    _must_be(len(numbers) == 0 or (numbers.min() >= 0 and numbers.max() <= largest))
    return numbers


def _summed(group: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any], groups: int) -> np.ndarray[Any, Any]:
    """Sums by group; exact, since a batch of counts stays far below 2 to the power of 53."""
    return np.bincount(group, numbers, groups).astype(np.int64)
