"""The zoo of Parquet files against the promise of `docs/reading.md`: read right, or set apart with the reason.

Every specimen lies beside a good file of its week, whose rows must arrive whatever it is; two weeks hold good files alone.
Reading happens in processes of their own: a file that hangs or kills the reader is named, and fails alone.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from usage_pipeline_tests.support.lake_probe import ReferenceOutcome, UsageOutcome, read_reference, read_usage
from usage_pipeline_tests.support.lakes import write_config
from usage_pipeline_tests.support.own_process import DiedError, RaisedError, apart
from usage_pipeline_tests.support.parquet_reading import RUNNING_WEEK, WEEK, facts_of, folder_of, usage_source
from usage_pipeline_tests.support.parquet_zoo import (
    COLUMNS,
    GOOD_FACTS,
    ROWS,
    Expected,
    Key,
    Reading,
    Specimen,
    good_rows,
    plain,
    zoo,
)

AS_OF = date(2025, 3, 5)
ZOO = zoo()


@dataclass
class Visit:
    """What became of the week of a specimen; or how the run ended."""

    monday: date
    outcome: UsageOutcome
    ended: str | None = None


def write_good_file(lake: Path, monday: date) -> None:
    file = lake / folder_of(monday) / "good.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(good_rows(monday)), file)


def write_lake(home: Path, specimens: list[Specimen]) -> tuple[Path, dict[str, date], list[date]]:
    """A lake of a week a specimen, between two weeks that are all good; the configuration, and where each lies."""
    weeks = [RUNNING_WEEK - WEEK * (i + 1) for i in range(len(specimens) + 2)]
    for monday in weeks:
        write_good_file(home / "lake", monday)
    places = {}
    for specimen, monday in zip(specimens, weeks[1:-1], strict=True):
        name = specimen.file_name if isinstance(specimen.file_name, str) else os.fsdecode(specimen.file_name)
        specimen.write(home / "lake" / folder_of(monday) / name, monday)
        places[specimen.name] = monday
    config = write_config(home, lookback_weeks=len(weeks) + 1, sources={"usage": usage_source()})
    return config, places, [weeks[0], weeks[-1]]


def visit(home: Path, specimens: list[Specimen]) -> dict[str, Visit]:
    """Reads specimens together; where that ends the run, halves them until the culprit is alone."""
    home.mkdir()
    config, places, good_weeks = write_lake(home, specimens)
    try:
        outcome = apart(read_usage, config, seconds=30 + 5 * len(specimens))
    except (DiedError, RaisedError) as error:
        if len(specimens) == 1:
            ended = f"{type(error).__name__}: {error}"
            return {specimens[0].name: Visit(places[specimens[0].name], UsageOutcome(), ended)}
        half = len(specimens) // 2
        return visit(home / "a", specimens[:half]) | visit(home / "b", specimens[half:])
    for monday in good_weeks:
        assert facts_of(outcome, monday) == GOOD_FACTS
    return {name: Visit(monday, outcome) for name, monday in places.items()}


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Specimen], Visit]:
    """Reads the zoo by fifties, when one of the fifty is first asked for."""
    found: dict[str, Visit] = {}

    def ask(specimen: Specimen) -> Visit:
        if specimen.name not in found:
            at = ZOO.index(specimen) // 50 * 50
            folder = tmp_path_factory.mktemp(f"zoo-{at}")
            found.update(visit(folder / "lake", ZOO[at : at + 50]))
        return found[specimen.name]

    return ask


def complaint(specimen: Specimen, visited: Visit) -> str | None:
    """What the promise does not allow in what became of a specimen; None where all is well."""
    if visited.ended is not None:
        return f"the run ended: {visited.ended}"
    outcome, monday, expected = visited.outcome, visited.monday, specimen.expected
    facts = facts_of(outcome, monday)
    good = {k: facts.pop(k, None) for k in GOOD_FACTS}
    if good != GOOD_FACTS:
        return f"the good file beside it came in as {good}"
    if monday in outcome.not_read:
        return f"no network is at fault, and the week was not read: {outcome.not_read[monday]}"
    if monday in outcome.does_not_add_up:
        return f"the week does not add up: {outcome.does_not_add_up[monday]}"
    reasons = {k: r for k, r in outcome.quarantined.get(monday, {}).items() if "good.parquet" not in Path(k).name[:12]}
    name = specimen.file_name if isinstance(specimen.file_name, str) else os.fsdecode(specimen.file_name)
    listed = [why for place, why in outcome.named.items() if f"{folder_of(monday)}/{name}" in place]
    rejected = sum(outcome.rejected.get(monday, {}).values())
    if reasons or listed:
        return _set_apart(expected, reasons, listed, facts, rejected)
    found = f"counted as {facts}, {outcome.rejected.get(monday)} rejected, {outcome.duplicates.get(monday)} duplicates"
    if not expected.readings and not expected.unmentioned:
        return f"{found}, and named nowhere"
    if any(_is_reading(reading, facts, outcome, monday, rejected) for reading in expected.readings):
        return None
    return f"{found}, unreadable {outcome.unreadable.get(monday)}; wanted {expected.readings}"


def _set_apart(
    expected: Expected, reasons: dict[str, str], listed: list[str], facts: dict[Key, int], rejected: int
) -> str | None:
    if facts or rejected:
        return f"set apart ({reasons or listed}), and yet {facts} and {rejected} rejected rows came of it"
    if reasons:
        if expected.quarantine is None:
            return f"quarantined: {reasons}"
        if not all(len(why) > 5 and any(word in why for word in expected.quarantine) for why in reasons.values()):
            return f"the reason does not name what is wrong ({' or '.join(expected.quarantine)}): {reasons}"
        return None
    return None if expected.named and all(listed) else f"named, and not read: {listed}"


def _is_reading(reading: Reading, facts: dict[Key, int], outcome: UsageOutcome, monday: date, rejected: int) -> bool:
    unreadable = {c: n for c, n in outcome.unreadable.get(monday, {}).items() if n}
    records = {
        (account, application, user, None if day is None else (day - monday).days): count
        for (week, account, application, user, day), count in outcome.records.items()
        if week == monday and account != "good"
    }
    return (
        facts == dict(reading.facts)
        and rejected == reading.rejected
        and outcome.duplicates.get(monday, 0) == reading.duplicates
        and (reading.unreadable is None or unreadable == dict(reading.unreadable))
        and (reading.records is None or records == dict(reading.records))
    )


def _param(specimen: Specimen) -> Any:
    beyond = [pytest.mark.xfail(reason=specimen.beyond, strict=False)] if specimen.beyond else []
    return pytest.param(specimen, id=specimen.name, marks=beyond)


@pytest.mark.parametrize("specimen", [_param(specimen) for specimen in ZOO])
@pytest.mark.sample(
    "application_string", "clicks_int8", "plain_lz4_v1", "wrong_checksum_user_id_zstd_v2", "lie_no_schema_plain"
)
def test_a_file_is_read_right_or_set_apart_with_the_reason(
    specimen: Specimen, visits: Callable[[Specimen], Visit]
) -> None:
    assert (problem := complaint(specimen, visits(specimen))) is None, problem


# ---- times and zones ---------------------------------------------------------------------------------------------


# cells, options of the writer, days after Monday in Denver
Zoned = tuple[Any, dict[str, Any], int]


def _zoned_files(monday: date) -> dict[str, Zoned]:
    """Wednesday 02:00 in several types, by name."""
    moment = datetime.combine(monday + timedelta(days=2), datetime.min.time()) + timedelta(hours=2)
    units = ("ms", "us", "ns")
    naive: dict[str, Zoned] = {f"naive_{u}": (pa.array([moment], pa.timestamp(u)), {}, 2) for u in units}
    zoned: dict[str, Zoned] = {f"utc_{u}": (pa.array([moment], pa.timestamp(u, "UTC")), {}, 1) for u in units}
    other: dict[str, Zoned] = {
        # the type says the moment; in which zone it was written stands beside it, and changes nothing
        "of_tokyo": (pa.array([moment], pa.timestamp("us", "Asia/Tokyo")), {}, 1),
        "int96": (pa.array([moment], pa.timestamp("us")), {"use_deprecated_int96_timestamps": True}, 1),
        "day": (pa.array([moment.date()], pa.date32()), {}, 2),
        "text_naive": (pa.array([moment.isoformat()]), {}, 2),
        "text_z": (pa.array([moment.isoformat() + "Z"]), {}, 1),
        "text_utc": (pa.array([moment.strftime("%Y-%m-%d %H:%M:%S UTC")]), {}, 1),
        "text_gmt": (pa.array([moment.strftime("%Y-%m-%d %H:%M:%S GMT")]), {}, 1),
        "text_of_denver": (pa.array([moment.isoformat() + "-07:00"]), {}, 2),
        "text_short_offset": (pa.array([moment.isoformat() + "+09"]), {}, 1),
        "text_offset_without_colon": (pa.array([moment.isoformat() + "-0700"]), {}, 2),
    }
    return naive | zoned | other


@pytest.mark.parametrize("name", _zoned_files(RUNNING_WEEK))
def test_a_time_that_has_a_zone_is_moved_and_another_is_taken_as_it_stands(name: str, tmp_path: Path) -> None:
    monday = RUNNING_WEEK - WEEK
    cells, options, day = _zoned_files(monday)[name]
    file = tmp_path / "lake" / folder_of(monday) / "odd.parquet"
    file.parent.mkdir(parents=True)
    columns = {name: value[:1] for name, value in plain(monday, event_time=None).items()}
    pq.write_table(pa.table(columns | {"event_time": cells}), file, **options)
    config = write_config(tmp_path, timezone="America/Denver", sources={"usage": usage_source()})
    assert facts_of(apart(read_usage, config), monday) == {("o1", "permits", "u1", day): 1}


ODD_NAMES = ['quo"te', "apo'strophe", "dot.ted", "semi;colon", "per%cent", "new\nline", "ünïcode", "日本", "{brace}", "[0]", "*", "a,b", "$1", "SELECT", "back\\slash", "two words"]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("column", ["account_id", "event_time", "clicks"])
@pytest.mark.sample(every=6)
def test_a_column_may_have_any_name(name: str, column: str, tmp_path: Path) -> None:
    monday = RUNNING_WEEK - WEEK
    file = tmp_path / "lake" / folder_of(monday) / "odd.parquet"
    file.parent.mkdir(parents=True)
    columns = plain(monday)
    columns[name] = columns.pop(column)
    pq.write_table(pa.table(columns), file)
    config = write_config(tmp_path, sources={"usage": usage_source(columns={c: c for c in COLUMNS} | {column: name})})
    outcome = apart(read_usage, config)
    assert facts_of(outcome, monday) == {(f"o{i + 1}", "permits", f"u{i + 1}", i): i + 1 for i in range(ROWS)}


# ---- reference sources -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delivery:
    """A column of a reference source in some type: its cells, what they are to us, how many cannot be read.

    `refused`: whether the source has to be refused; None: whether it is, the promise leaves open.
    """

    name: str
    source: str
    column: str
    cells: Any
    wanted: list[Any]
    unreadable: int = 0
    refused: bool | None = False


BASES: dict[str, dict[str, Any]] = {
    "accounts": {"account_id": ["a", "b", "c", "d"], "segment": ["s"] * ROWS},
    "subscriptions": {
        "account_id": ["a", "b", "c", "d"],
        "start_date": pa.array([date(2024, 1, i + 1) for i in range(ROWS)]),
        "seats": [1, 2, 3, 4],
        "annual_value": [1.5, 2.5, 3.5, 4.5],
        "renewal_date": pa.array([date(2026, 1, i + 1) for i in range(ROWS)]),
    },
    "contacts": {
        "account_id": ["a", "b", "c", "d"],
        "user_id": ["u", "v", "w", "x"],
        "is_primary": [True, False, True, False],
    },
}
NO_TIMES = {
    "list": pa.array([[1], [2], [], None]),
    "struct": pa.array([{"x": 1}] * ROWS),
    "map": pa.array([[("a", 1)], [], [], None], pa.map_(pa.string(), pa.int64())),
    "time": pa.array([1, 2, 3, 4], pa.time64("us")),
}


def _days() -> dict[str, tuple[Any, list[date]]]:
    far = [date(1, 1, 1), date(1931, 5, 17), date(1969, 12, 31), date(9999, 12, 31)]
    near = [date(1969, 12, 31), date(1970, 1, 1), date(2024, 2, 29), date(2025, 1, 1)]
    midnights = [datetime(d.year, d.month, d.day) for d in near]
    far_midnights = [datetime(d.year, d.month, d.day) for d in far]
    return {
        "date32": (pa.array(far, pa.date32()), far),
        "date64": (pa.array(far, pa.date64()), far),
        "timestamp_ms_far": (pa.array(far_midnights, pa.timestamp("ms")), far),
        "timestamp_us_far": (pa.array(far_midnights, pa.timestamp("us")), far),
        **{f"timestamp_{u}": (pa.array(midnights, pa.timestamp(u)), near) for u in ("s", "ms", "us", "ns")},
        **{f"timestamp_{u}_utc": (pa.array(midnights, pa.timestamp(u, "UTC")), near) for u in ("ms", "us", "ns")},
        "text": (pa.array([str(d) for d in far]), far),
        "text_with_time": (pa.array([f"{d}T23:59:59" for d in near]), near),
        "dictionary": (pa.array([str(d) for d in near]).dictionary_encode(), near),
    }


def _deliveries() -> list[Delivery]:
    found = []
    for name, (cells, days) in _days().items():
        found += [Delivery(name, "subscriptions", c, cells, days) for c in ("start_date", "renewal_date")]
    numbers = {
        f"{t}": pa.array([1, 2, 3, 4], t)
        for t in (pa.int8(), pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(9, 2))
    }
    for name, cells in numbers.items():
        found += [
            Delivery(name, "subscriptions", "seats", cells, [1, 2, 3, 4]),
            Delivery(name, "subscriptions", "annual_value", cells, [1.0, 2.0, 3.0, 4.0]),
            Delivery(name, "accounts", "account_id", cells, ["1", "2", "3", "4"]),
            Delivery(name, "accounts", "segment", cells, ["1", "2", "3", "4"]),
            Delivery(name, "subscriptions", "start_date", cells, [], refused=True),
            Delivery(name, "subscriptions", "renewal_date", cells, [None] * ROWS, ROWS, refused=None),
        ]
    shares = [Decimal("0.1"), Decimal("0.25"), Decimal("-1"), Decimal("1234567.89")]
    floats = [float(s) for s in shares]
    found += [
        Delivery(
            "float32",
            "subscriptions",
            "annual_value",
            pa.array([0.5, 0.25, -1, 4], pa.float32()),
            [0.5, 0.25, -1.0, 4.0],
        ),
        Delivery("decimal", "subscriptions", "annual_value", pa.array(shares, pa.decimal128(20, 4)), floats),
        Delivery(
            "decimal256", "subscriptions", "annual_value", pa.array(shares, pa.decimal256(50, 4)), floats, refused=None
        ),
        Delivery("text", "subscriptions", "annual_value", pa.array(["0.1", "0.25", "-1", "$1,234,567.89"]), floats),
        Delivery(
            "not_whole", "subscriptions", "seats", pa.array([1.5, 2.0, math.nan, math.inf]), [None, 2, None, None], 3
        ),
        Delivery(
            "not_whole_decimal",
            "subscriptions",
            "seats",
            pa.array(shares, pa.decimal128(20, 4)),
            [None, None, -1, None],
            3,
        ),
        Delivery(
            "past_64_bits", "subscriptions", "seats", pa.array([2**64 - 1, 2, 3, 4], pa.uint64()), [None, 2, 3, 4], 1
        ),
        Delivery("boolean", "contacts", "is_primary", pa.array([True, False, None, True]), [True, False, None, True]),
        Delivery("words", "contacts", "is_primary", pa.array(["Yes", "n", "x", "T"]), [True, False, True, True]),
        Delivery("other_words", "contacts", "is_primary", pa.array(["ja", "n", "", "1"]), [None, False, None, True], 1),
        Delivery(
            "dictionary",
            "contacts",
            "is_primary",
            pa.array(["Yes", "no", "Yes", "no"]).dictionary_encode(),
            [True, False] * 2,
        ),
    ]
    for kind in (pa.int8(), pa.uint8(), pa.int64()):
        found.append(
            Delivery(str(kind), "contacts", "is_primary", pa.array([1, 0, 2, 1], kind), [True, False, None, True], 1)
        )
    for name, cells in NO_TIMES.items():
        count = ROWS - cells.null_count
        found.append(Delivery(name, "accounts", "account_id", cells, [], refused=True))
        found.append(Delivery(name, "subscriptions", "start_date", cells, [], refused=True))
        for source, column in (("accounts", "segment"), ("subscriptions", "seats"), ("contacts", "is_primary")):
            found.append(Delivery(name, source, column, cells, [None] * ROWS, count, refused=None))
    return found


DELIVERIES = _deliveries()


def _read_all(configs: list[tuple[Path, str]]) -> list[ReferenceOutcome | str]:
    """Each delivery, or the words in which the source was refused."""
    found: list[ReferenceOutcome | str] = []
    for config, source in configs:
        try:
            found.append(read_reference(config, source))
        except Exception as error:  # whatever is raised has to be judged by its words
            found.append(f"{type(error).__name__}: {error}")
    return found


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> list[ReferenceOutcome | str]:
    configs = []
    for delivery in DELIVERIES:
        home = tmp_path_factory.mktemp("delivery")
        write_good_file(home / "lake", RUNNING_WEEK - WEEK)
        columns = BASES[delivery.source] | {delivery.column: delivery.cells}
        pq.write_table(pa.table(columns), home / f"{delivery.source}.parquet")
        source = {"path": f"{delivery.source}.parquet", "columns": {c: c for c in columns}}
        sources = {"usage": usage_source(), delivery.source: source}
        configs.append((write_config(home, sources=sources), delivery.source))
    return apart(_read_all, configs, seconds=180)


@pytest.mark.parametrize("index", range(len(DELIVERIES)), ids=[f"{d.source}-{d.column}-{d.name}" for d in DELIVERIES])
@pytest.mark.long
def test_a_column_of_a_reference_source_is_read_by_its_type(
    index: int, delivered: list[ReferenceOutcome | str]
) -> None:
    delivery, found = DELIVERIES[index], delivered[index]
    refusal = found if isinstance(found, str) else found.held_back
    if refusal is not None:
        assert delivery.refused is not False, refusal
        assert delivery.column in refusal
        return
    assert not isinstance(found, str)
    assert delivery.refused is not True, found.rows
    cells = [row[delivery.column] for row in sorted(found.rows, key=lambda row: str(row["account_id"]))]
    assert cells == delivery.wanted
    assert [type(c) for c in cells] == [type(c) for c in delivery.wanted]
    assert found.unreadable.get(delivery.column, 0) == delivery.unreadable
    assert found.kept_aside == []


def test_a_day_of_a_subscription_that_comes_as_a_time_with_a_zone_is_moved_and_cut(tmp_path: Path) -> None:
    late = datetime(2025, 1, 1, 2, tzinfo=UTC)
    kinds = {
        "zoned": (pa.array([late], pa.timestamp("us", "UTC")), {}),
        "naive": (pa.array([late.replace(tzinfo=None)], pa.timestamp("us")), {}),
        "int96": (pa.array([late.replace(tzinfo=None)], pa.timestamp("us")), {"use_deprecated_int96_timestamps": True}),
        "text": (pa.array(["2025-01-01T02:00:00Z"]), {}),
    }
    wanted = {
        "zoned": date(2024, 12, 31),
        "naive": date(2025, 1, 1),
        "int96": date(2024, 12, 31),
        "text": date(2024, 12, 31),
    }
    assert late.astimezone(ZoneInfo("America/Denver")).date() == wanted["zoned"]
    for kind, (cells, options) in kinds.items():
        home = tmp_path / kind
        write_good_file(home / "lake", RUNNING_WEEK - WEEK)
        pq.write_table(pa.table({"account_id": ["a"], "start_date": cells}), home / "subscriptions.parquet", **options)
        source = {"path": "subscriptions.parquet", "columns": {"account_id": "account_id", "start_date": "start_date"}}
        config = write_config(
            home, timezone="America/Denver", sources={"usage": usage_source(), "subscriptions": source}
        )
        (row,) = apart(read_reference, config, "subscriptions").rows
        assert (kind, row["start_date"]) == (kind, wanted[kind])


@pytest.mark.parametrize(
    "specimen", [s for s in ZOO if s.name.startswith(("cut_off", "really", "encrypted_footer"))], ids=lambda s: s.name
)
@pytest.mark.sample(every=4)
def test_a_reference_file_that_cannot_be_read_holds_the_delivery_back(specimen: Specimen, tmp_path: Path) -> None:
    write_good_file(tmp_path / "lake", RUNNING_WEEK - WEEK)
    folder = tmp_path / "accounts"
    folder.mkdir()
    pq.write_table(pa.table({"account_id": ["a", "b"]}), folder / "good.parquet")
    source = {"path": "accounts", "columns": {"account_id": "account_id"}}
    config = write_config(tmp_path, sources={"usage": usage_source(), "accounts": source})
    before = apart(read_reference, config, "accounts")
    assert (sorted(row["account_id"] for row in before.rows), before.held_back) == (["a", "b"], None)
    specimen.write(folder / "odd.parquet", RUNNING_WEEK - WEEK)
    after = apart(read_reference, config, "accounts")
    assert sorted(row["account_id"] for row in after.rows) == ["a", "b"]
    assert after.held_back is not None
    assert "odd.parquet" in after.held_back
