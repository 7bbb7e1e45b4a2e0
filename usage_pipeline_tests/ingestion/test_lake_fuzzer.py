"""Lakes drawn at random are read as `docs/reading.md` promises; and the oracle says what the promise's examples say."""

import csv
import gzip
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from usage_pipeline_tests.support import lake_oracle as oracle
from usage_pipeline_tests.support.lake_fuzzer import HELD_OUT_SEEDS, compare_reference, compare_usage, fuzz, s3_server
from usage_pipeline_tests.support.lake_oracle import CellRules, Column, StoredFile, UnreadableError, UnsureError
from usage_pipeline_tests.support.lake_worlds import Step, World, make_world
from usage_pipeline_tests.support.lake_writer import to_bytes

SEEDS = range(20)


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.sample(every=10, rest="soak")
def test_a_lake_is_read_as_promised(seed: int, tmp_path: Path, s3_address: str) -> None:
    report = fuzz(seed, tmp_path, s3_address)
    assert not report.differences, str(report)


@pytest.mark.soak
@pytest.mark.parametrize("first", HELD_OUT_SEEDS[::50])
def test_lakes_that_nobody_tuned_by_are_read_as_promised(first: int, tmp_path: Path, s3_address: str) -> None:
    reports = []
    for seed in range(first, first + 50):
        folder = tmp_path / str(seed)
        folder.mkdir()
        reports.append(fuzz(seed, folder, s3_address))
    assert not [str(report) for report in reports if report.differences]


# --- the oracle says what the promise says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1234", "1234"),
        ("1234.5", "1234.5"),
        ("-5", "-5"),
        ("$1,200.00", "1200"),
        ("1.234,50 €", "1234.5"),
        ("1 234,50", "1234.5"),
        ("1'234.50", "1234.5"),
        ("(1,200.00)", "-1200"),
        ("1234,50", "1234.5"),
    ],
)
def test_numbers_of_the_promise(text: str, number: str) -> None:
    reading = oracle.number_readings(text)
    assert reading.point == reading.comma == Decimal(number)


def test_a_number_that_leaves_its_decimal_sign_open_takes_it_from_its_column_or_is_unreadable() -> None:
    assert oracle.column_decimal(["1,200", "7,5"], "auto") == "comma"
    assert oracle.column_decimal(["1,200", "3"], "auto") is None
    assert oracle.read_number("1,200", "text", CellRules(), "comma") == Decimal("1.2")
    assert oracle.read_number("1,200", "text", CellRules(), "point") == 1200
    for text in ("1,200", "12 %", "abc"):
        with pytest.raises(UnreadableError):
            oracle.read_number(text, "text", CellRules(), None)


@pytest.mark.parametrize(
    "text",
    [
        "2025-11-05",
        "2025/11/05",
        "20251105",
        "Nov 5, 2025",
        "5 November 2025",
        "05-Nov-2025",
        "11/5/25",
        "11/5/25 3:04 PM",
    ],
)
def test_days_of_the_promise(text: str) -> None:
    assert oracle.DateOrder(None).day(oracle.day_readings(text)) == date(2025, 11, 5)


def test_the_dates_of_a_source_settle_each_other() -> None:
    settled = oracle.date_order(["31/10/2025", "11/5/25"], "auto")
    assert settled.day(oracle.day_readings("11/5/25")) == date(2025, 5, 11)
    open_order = oracle.date_order(["11/5/25", "5.11.25"], "auto")
    assert {open_order.day(oracle.day_readings(text)) for text in ("11/5/25", "5.11.25")} == {date(2025, 11, 5)}
    contradicting = oracle.date_order(["31/10/2025", "10/31/2025"], "auto")
    assert contradicting.day(oracle.day_readings("10/31/2025")) == date(2025, 10, 31)
    with pytest.raises(UnreadableError):
        contradicting.day(oracle.day_readings("11/5/25"))
    with pytest.raises(UnsureError):
        contradicting.day(oracle.day_readings("05/05/2025"))


@pytest.mark.parametrize("zone", ["Z", " UTC", " GMT", "+00", "+0000", "+00:00"])
def test_a_time_with_a_zone_is_moved_into_the_configured_one(zone: str) -> None:
    rules, order = CellRules(zone="America/Denver"), oracle.DateOrder(None)
    for value, kind in ((f"2025-11-05T03:00:00{zone}", "text"), (datetime(2025, 11, 5, 3), "int96")):
        moment = oracle.read_moment(value, kind, rules, order)
        assert moment and moment.day == date(2025, 11, 4)
    stands = oracle.read_moment("2025-11-05T03:00:00", "text", rules, order)
    assert stands and stands.day == date(2025, 11, 5)


def test_ids_are_text_from_the_first_byte() -> None:
    read = [
        ("00012", "text"),
        ("12E3", "text"),
        (12.0, "float64"),
        (Decimal("1.0000000000"), "decimal"),
        (b"a", "binary"),
    ]
    assert [oracle.read_text(*cell, CellRules()) for cell in read] == ["00012", "12E3", "12", "1", "a"]
    for value, kind in ((float(2**53), "float64"), (1.5, "float64"), (b"\xff", "binary")):
        with pytest.raises(UnreadableError):
            oracle.read_text(value, kind, CellRules())


@pytest.mark.parametrize(
    ("key", "is_read"),
    [
        ("a.PARQUET", True),
        ("a.parquet.snappy", True),
        ("a.pq", True),
        ("plain", True),
        ("a.csv", False),
        ("_a.parquet", False),
        ("_b/a.parquet", False),
        ("a.parquet.tmp", False),
    ],
)
def test_names_of_parquet_files(key: str, is_read: bool) -> None:
    assert oracle.is_read(key, StoredFile(columns=[Column("a", "text", ["x"])]), "parquet") is is_read


# --- the generator writes what it says -----------------------------------------------------------------------------


def _cell(value: Any, kind: str) -> Any:
    """A cell of the generator as a reader gives it."""
    if value is None:
        return None
    if kind in ("tz_ms", "tz_us"):
        return value.astimezone(UTC)
    return value.replace(microsecond=0) if kind == "ts_ms" else value


def _read_back(file: StoredFile) -> dict[str, list[Any]]:
    """The cells of a stored file by pyarrow, or by Python's own reader of CSV."""
    data = to_bytes(file)
    if file.format == "parquet":
        table = pq.ParquetFile(io.BytesIO(data)).read()
        return {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}
    if file.writer.get("codec") == "gz":
        data = gzip.decompress(data)
    if file.writer.get("codec") == "zst":
        data = pa.CompressedInputStream(pa.py_buffer(data), "zstd").read()
    lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=file.writer["delimiter"]))
    return {name: list(cells) for name, cells in zip(lines[0], zip(*lines[1:], strict=True), strict=True)}


def _sound_files(world: World) -> list[StoredFile]:
    lakes = [step.usage.files for step in world.steps if step.usage]
    lakes += [delivery.files for step in world.steps for delivery in step.deliveries.values()]
    return [file for lake in lakes for file in lake.values() if file.columns and not file.damage]


@pytest.mark.parametrize("seed", range(0, 100, 5))
def test_files_hold_what_the_oracle_judges(seed: int) -> None:
    for file in _sound_files(make_world(seed)):
        found = _read_back(file)
        assert list(found) == [column.name for column in file.columns]
        for column in file.columns:
            if column.kind in ("uuid", "float32", "struct"):
                continue
            if file.format == "csv":
                written = [value or "" for value in column.values]
            else:
                written = [_cell(value, column.kind) for value in column.values]
            read = [
                value.astimezone(UTC) if column.kind.startswith("tz") and value and value.tzinfo else value
                for value in found[column.name]
            ]
            if column.kind.startswith(("ts", "tz", "int96")):
                read = [_without_zone(value) for value in read]
                written = [_without_zone(value) for value in written]
            assert read == written, (column.name, column.kind)


def _without_zone(value: Any) -> Any:
    if value is None:
        return None
    moment = value.to_pydatetime() if hasattr(value, "to_pydatetime") else value
    return moment.replace(tzinfo=None)


def test_a_seed_gives_the_same_world() -> None:
    assert repr(make_world(11)) == repr(make_world(11))


@pytest.mark.long
def test_worlds_hold_of_everything() -> None:
    worlds = [make_world(seed) for seed in range(150)]
    usage = [step.expected_usage for world in worlds for step in world.steps if step.expected_usage]
    deliveries = [expected for world in worlds for step in world.steps for expected in step.expected.values()]
    assert all(
        any(getattr(expected, what) for expected in usage)
        for what in ("facts", "rejected", "duplicates", "quarantined", "named", "unreadable")
    )
    assert all(
        any(getattr(expected, what) for expected in deliveries)
        for what in ("rows", "kept_aside", "unreadable", "notes_about", "held_back")
    )
    assert {world.on_s3 for world in worlds} == {True, False}
    assert {len(world.steps) for world in worlds} >= {1, 2}


# --- the comparison sees what differs ------------------------------------------------------------------------------


def _as_promised(step: Step) -> SimpleNamespace:
    """What a reader would show that keeps the promise to the letter."""
    expected = step.expected_usage
    assert expected
    quarantined: dict[date, dict[str, str]] = {}
    for key, weeks in expected.quarantined.items():
        quarantined.setdefault(weeks[0], {})[f"/anywhere/lake/{key}"] = "broken"
    return SimpleNamespace(
        facts=dict(expected.facts),
        records=dict(expected.records),
        rejected={week: dict(counts) for week, counts in expected.rejected.items()},
        duplicates=dict(expected.duplicates),
        quarantined=quarantined,
        named={f"/anywhere/lake/{key}": "no table" for key in expected.named},
        not_read={},
        unreadable={week: dict(cells) for week, cells in expected.unreadable.items()},
        does_not_add_up={},
    )


def _step_with(what: str) -> Step:
    steps = (make_world(seed).steps[0] for seed in range(200))
    return next(step for step in steps if getattr(step.expected_usage, what))


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("facts", "facts"),
        ("rejected", "rejected"),
        ("duplicates", "duplicates"),
        ("quarantined", "not quarantined"),
        ("named", "not named"),
        ("unreadable", "unreadable cells"),
    ],
)
def test_what_is_missing_is_a_difference(what: str, kind: str) -> None:
    step = _step_with(what)
    assert step.expected_usage
    found = _as_promised(step)
    assert not compare_usage(step.expected_usage, found, [])
    setattr(found, what, {})
    assert kind in {difference.kind for difference in compare_usage(step.expected_usage, found, [])}


def test_a_sound_file_that_is_named_or_quarantined_is_a_difference() -> None:
    step = _step_with("facts")
    expected = step.expected_usage
    assert expected
    found, key = _as_promised(step), sorted(expected.read)[0]
    found.named[f"s3://bucket/lake/{key}"] = "foreign"
    found.quarantined.setdefault(date(2025, 1, 6), {})[key] = "broken"
    kinds = {difference.kind for difference in compare_usage(expected, found, [])}
    assert kinds == {"named, though to be read", "quarantined, against the promise"}


def test_reference_rows_that_differ_are_a_difference() -> None:
    worlds = (make_world(seed) for seed in range(200))
    step = next(step for world in worlds for step in world.steps if any(e.rows for e in step.expected.values()))
    source, expected = next(iter(step.expected.items()))
    delivery = step.deliveries[source]
    rows = [dict(zip(delivery.columns, row, strict=True)) for row in expected.rows]
    aside: list[dict[str, Any]] = [{}] * expected.kept_aside
    found = SimpleNamespace(
        rows=rows, kept_aside=aside, unreadable=expected.unreadable, notes=list(expected.notes_about), held_back=None
    )
    assert not compare_reference(delivery, expected, found)
    found.rows = rows[1:]
    assert [difference.kind for difference in compare_reference(delivery, expected, found)] == [
        f"{source}: rows missing"
    ]
    found.held_back = "too few"
    assert [difference.kind for difference in compare_reference(delivery, expected, found)] == ["held back"]
