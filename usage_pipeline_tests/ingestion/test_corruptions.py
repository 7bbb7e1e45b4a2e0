"""Files damaged at random: none stops a run, and none is counted wrongly where anybody could have noticed.

Parquet is written with page checksums, CSV in gzip, which has one over all. Whatever the damage, the file is quarantined,
or it hit bytes that mean nothing and the true rows come out. Checksums of Parquet leave out its footer and the headers of its
pages: where pyarrow, with checksums, reads other rows from a damaged file without complaint, it has become another valid
file, and only the run and the good file beside it are asked for. Such cases have to be few.
"""

import gzip
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from usage_pipeline_tests.support.lake_probe import UsageOutcome, read_usage
from usage_pipeline_tests.support.lakes import write_config
from usage_pipeline_tests.support.own_process import DiedError, RaisedError, apart
from usage_pipeline_tests.support.parquet_bytes import pages
from usage_pipeline_tests.support.parquet_reading import RUNNING_WEEK, WEEK, facts_of, folder_of, usage_source
from usage_pipeline_tests.support.parquet_zoo import GOOD_FACTS, good_rows

ROWS = 200
# of damaged Parquet files, how many may be other valid ones; measured: none of 340
OTHER_SHARE = 0.02


def true_rows(monday: date) -> dict[str, Any]:
    """Rows in which no two cells of a column are alike: a cell in another's place would show."""
    moments = [datetime.combine(monday, time(1)) + timedelta(minutes=40 * i) for i in range(ROWS)]
    return {
        "account_id": [f"account-{i:04}" for i in range(ROWS)],
        "application": [f"app-{i % 7}" for i in range(ROWS)],
        "user_id": [f"user-{i * 7919 % 10007:05}" for i in range(ROWS)],
        "event_time": pa.array(moments, pa.timestamp("us")),
        "event_id": [f"{monday}-{i}" for i in range(ROWS)],
        "clicks": [i + 1 for i in range(ROWS)],
        "records_created": [i % 3 for i in range(ROWS)],
    }


def true_facts(monday: date) -> dict[Any, int]:
    rows = pa.table(true_rows(monday)).to_pylist()
    return {
        (r["account_id"], r["application"], r["user_id"], (r["event_time"].date() - monday).days): r["clicks"]
        for r in rows
    }


# ---- what can happen to a file on its way ------------------------------------------------------------------------


def flip_a_bit(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def flip_some_bits(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(2, 20)):
        data = flip_a_bit(data, chance)
    return data


def zero_a_run(data: bytes, chance: random.Random) -> bytes:
    length = chance.choice([1, 8, 64, 512])
    at = chance.randrange(max(1, len(data) - length))
    return data[:at] + bytes(len(data[at : at + length])) + data[at + length :]


def cut_off(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def lose_the_beginning(data: bytes, chance: random.Random) -> bytes:
    return data[chance.randrange(1, len(data)) :]


def swap_blocks(data: bytes, chance: random.Random) -> bytes:
    length = chance.choice([4, 32, 256, 1024])
    first, second = sorted(chance.sample(range(len(data) // length), 2)) if len(data) >= 2 * length else (0, 0)
    a, b = first * length, second * length
    return data[:a] + data[b : b + length] + data[a + length : b] + data[a : a + length] + data[b + length :]


def insert_bytes(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.choice([1, 4, 100])) + data[at:]


def lose_bytes(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.choice([1, 4, 100]) :]


def repeat_a_block(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    block = data[at : at + chance.choice([16, 256])]
    return data[:at] + block + data[at:]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_a_bit,
    flip_some_bits,
    zero_a_run,
    cut_off,
    lose_the_beginning,
    swap_blocks,
    insert_bytes,
    lose_bytes,
    repeat_a_block,
)


def whole_parquet(monday: date, chance: random.Random) -> bytes:
    """A file in one of several shapes, all with checksums."""
    out = io.BytesIO()
    shape: dict[str, Any] = {
        "compression": chance.choice(["none", "snappy", "zstd", "gzip"]),
        "use_dictionary": chance.random() < 0.5,
        "data_page_version": chance.choice(["1.0", "2.0"]),
        "row_group_size": chance.choice([50, 1000]),
        "write_statistics": chance.random() < 0.8,
    }
    pq.write_table(pa.table(true_rows(monday)), out, write_page_checksum=True, **shape)
    return out.getvalue()


def as_csv(rows: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(rows), out)
    return gzip.compress(out.getvalue(), mtime=0)


def whole_csv(monday: date, _: random.Random) -> bytes:
    return as_csv(true_rows(monday))


# ---- what is made of it ------------------------------------------------------------------------------------------


@dataclass
class Damaged:
    """A damaged file, and what it can be said to hold."""

    name: str
    monday: date
    file: Path
    unnoticed: bool


def _peer(files: list[Path]) -> list[list[dict[str, Any]] | None]:
    """What pyarrow reads of each with checksums, None where it complains."""
    found: list[list[dict[str, Any]] | None] = []
    for file in files:
        try:
            with pq.ParquetFile(file, page_checksum_verification=True) as opened:
                found.append(opened.read().to_pylist())
        except Exception:  # it complains in many ways
            found.append(None)
    return found


def _unnoticed(files: list[Path], mondays: list[date]) -> list[bool]:
    """Of which files pyarrow takes other rows for valid; where it dies of one, that is no opinion."""
    try:
        read = apart(_peer, files, seconds=60)
    except DiedError:
        read = [rows for file in files for rows in _alone(file)]
    true = [pa.table(true_rows(monday)).to_pylist() for monday in mondays]
    return [rows is not None and rows != wanted for rows, wanted in zip(read, true, strict=True)]


def _alone(file: Path) -> list[list[dict[str, Any]] | None]:
    try:
        return apart(_peer, [file], seconds=10)
    except DiedError:
        return [None]


def damaged_lake(home: Path, seeds: range, form: str) -> tuple[Path, list[Damaged]]:
    """A lake of a week a seed: a good file and a damaged one; the configuration, and what was done."""
    made, files = [], []
    for number, seed in enumerate(seeds):
        monday, chance = RUNNING_WEEK - WEEK * (number + 1), random.Random(seed)
        folder = home / "lake" / folder_of(monday)
        folder.mkdir(parents=True)
        if form == "parquet":
            pq.write_table(pa.table(good_rows(monday)), folder / "good.parquet")
            data, file = whole_parquet(monday, chance), folder / "damaged.parquet"
        else:
            (folder / "good.csv.gz").write_bytes(as_csv(good_rows(monday)))
            data, file = whole_csv(monday, chance), folder / "damaged.csv.gz"
        damage = DAMAGES[seed % len(DAMAGES)]
        file.write_bytes(damage(data, chance))
        files.append(file)
        made.append(Damaged(f"{damage.__name__} of seed {seed}", monday, file, unnoticed=False))
    if form == "parquet":
        for one, unnoticed in zip(made, _unnoticed(files, [d.monday for d in made]), strict=True):
            one.unnoticed = unnoticed
    source = usage_source(**({} if form == "parquet" else {"format": "csv"}))
    return write_config(home, lookback_weeks=len(made) + 2, sources={"usage": source}), made


def complaint(one: Damaged, outcome: UsageOutcome) -> str | None:
    """What is not as promised; None where all is well."""
    facts = facts_of(outcome, one.monday)
    good = {k: facts.pop(k, None) for k in GOOD_FACTS}
    if good != GOOD_FACTS:
        return f"{one.name}: the good file beside it came in as {good}"
    if one.monday in outcome.not_read:
        return f"{one.name}: not read, as if the network were at fault: {outcome.not_read[one.monday]}"
    if one.unnoticed:
        return None
    reasons = {Path(k).name: why for k, why in outcome.quarantined.get(one.monday, {}).items()}
    if reasons:
        whole = facts == {} and set(reasons) == {one.file.name} and all(reasons.values())
        return None if whole else f"{one.name}: quarantined {reasons}, and yet {len(facts)} facts"
    rejected = sum(outcome.rejected.get(one.monday, {}).values())
    if facts == true_facts(one.monday) and not rejected and not outcome.duplicates.get(one.monday):
        return None
    wrong = set(facts.items()) ^ set(true_facts(one.monday).items())
    return f"{one.name}: neither quarantined nor right: {len(wrong)} facts differ, {rejected} rejected: {sorted(wrong, key=str)[:3]}"


def _problems(home: Path, seeds: range, form: str) -> tuple[list[str], int]:
    """What is not as promised, and how many files became other valid ones; a file that ends a run is found by halves."""
    config, made = damaged_lake(home, seeds, form)
    try:
        outcome = apart(read_usage, config, seconds=60 + 3 * len(seeds))
    except (DiedError, RaisedError) as error:
        if len(seeds) == 1:
            return [f"{made[0].name} ended the run: {error}"], 0
        middle = seeds.start + len(seeds) // 2
        first, one = _problems(home / "a", range(seeds.start, middle), form)
        second, other = _problems(home / "b", range(middle, seeds.stop), form)
        return first + second, one + other
    return [problem for one in made if (problem := complaint(one, outcome))], sum(one.unnoticed for one in made)


def _prove(home: Path, seeds: range, form: str) -> None:
    problems, unnoticed = _problems(home, seeds, form)
    assert not problems, "\n".join(problems)
    assert unnoticed <= max(1, OTHER_SHARE * len(seeds))


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_damaged_file_is_quarantined_or_read_right(form: str, tmp_path: Path) -> None:
    _prove(tmp_path, range(40), form)


@pytest.mark.soak
@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize("first", [1000, 1100, 1200])
def test_hundreds_of_damaged_files_are_quarantined_or_read_right(form: str, first: int, tmp_path: Path) -> None:
    _prove(tmp_path, range(first, first + 100), form)


def test_bytes_below_a_checksum_are_never_changed_unnoticed(tmp_path: Path) -> None:
    """The yardstick itself: of damage within pages, pyarrow notices every one."""
    monday, files = RUNNING_WEEK - WEEK, []
    for seed in range(60):
        chance = random.Random(seed)
        data = whole_parquet(monday, chance)
        page = chance.choice([page for page in pages(data) if page.end > page.body])
        at = chance.randrange(page.body, page.end)
        files.append(tmp_path / f"{seed}.parquet")
        files[-1].write_bytes(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
    assert apart(_peer, files) == [None] * len(files)
