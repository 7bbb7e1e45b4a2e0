"""The quick way through a week gives the facts of the careful one, or leaves the week to it."""

import datetime as dt
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usage_pipeline.config.settings import load_settings
from usage_pipeline.ingestion import fast_path, usage_reader
from usage_pipeline.ingestion.facts import facts_path, ingest_weeks
from usage_pipeline_tests.support.lakes import write_config

WEEK = dt.date(2025, 2, 3)
SCHEMA = pa.schema(
    {
        "account_id": pa.string(),
        "application": pa.string(),
        "user_id": pa.string(),
        "event_time": pa.timestamp("ms"),
        "clicks": pa.int32(),
        "records_created": pa.int64(),
    }
)
noon = dt.datetime(2025, 2, 3, 12)
plain_row = st.fixed_dictionaries(
    {
        "account_id": st.sampled_from(["a", "b", "c"]),
        "application": st.sampled_from(["p", "q"]),
        "user_id": st.sampled_from(["u", "v", None]),
        "event_time": st.integers(-2, 8).map(lambda days: noon + dt.timedelta(days=days)),
        "clicks": st.integers(0, 5),
        "records_created": st.integers(0, 2),
    }
)
odd_row = st.fixed_dictionaries(
    {
        "account_id": st.sampled_from(["a", " a", "\u00a0a", "", None]),
        "application": st.sampled_from(["p", "p ", "\tp", None]),
        "user_id": st.sampled_from(["u", " ", None]),
        "event_time": st.one_of(st.none(), st.integers(-9, 12).map(lambda days: noon + dt.timedelta(days=days))),
        "clicks": st.one_of(st.none(), st.sampled_from([-1, 1, 2_000_000_000])),
        "records_created": st.one_of(st.none(), st.sampled_from([-1, 1, 9 * 10**15])),
    }
)


def ingested(folder: Path, files: list[list[dict[str, Any]]], way: str) -> tuple[list[Any], dict[str, Any]]:
    """Facts in order, and the manifest, of one week read one way; with `quick`, says whether it came through."""
    for number, rows in enumerate(files):
        file = folder / "lake" / "year=2025" / "week=06" / f"part-{number}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file, row_group_size=3)
    columns = {name: name for name in SCHEMA.names}
    source = {"path": "lake", "partitioned": True, "columns": columns}
    configured = load_settings(write_config(folder, home=way, sources={"usage": source}))
    manifest = ingest_weeks(configured, [WEEK], now="now").manifests[WEEK]
    assert manifest is not None
    assert manifest.lost is None
    facts = pq.read_table(facts_path(configured.home.facts_dir, WEEK)).to_pylist()
    told = (manifest.rows_read, manifest.rows_kept, manifest.rejected, manifest.clicks, manifest.clicks_in_files)
    return sorted(facts, key=repr), dict(zip(("read", "kept", "rejected", "clicks", "in files"), told, strict=True))


@pytest.mark.parametrize("batch_rows", [4, 1_000_000], ids=["in parts", "at once"])
@settings(max_examples=25, deadline=None)
@given(plain=st.lists(st.lists(plain_row, max_size=9), min_size=1, max_size=3), odd=st.lists(odd_row, max_size=2))
@pytest.mark.long
def test_both_ways_give_the_same_facts_and_the_same_counts(batch_rows: int, plain, odd) -> None:
    for files in (plain, [*plain, odd] if odd else plain):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(fast_path, "BATCH_ROWS", batch_rows):
            quick = ingested(Path(folder), files, "quick")
            with mock.patch.object(usage_reader, "read_fast_path", return_value=None):
                careful = ingested(Path(folder), files, "careful")
        assert quick == careful


def test_a_plain_week_goes_the_quick_way_and_an_odd_one_does_not(tmp_path) -> None:
    plain = {"account_id": "a", "application": "p", "user_id": None, "event_time": noon, "clicks": 1}
    plain["records_created"] = 0
    read = fast_path.read_fast_path
    came = []

    def watched(*arguments: Any) -> Any:
        found = read(*arguments)
        came.append(found is not None)
        return found

    with mock.patch.object(usage_reader, "read_fast_path", watched):
        ingested(tmp_path / "plain", [[plain]], "home")
        ingested(tmp_path / "odd", [[plain, plain | {"account_id": " a"}]], "home")
    assert came == [True, False]


@pytest.mark.long
def test_an_id_with_a_space_of_another_kind_is_the_same_in_both_ways(tmp_path) -> None:
    """The quick way looked for plain spaces only: one such row more, and an account had another name."""
    row = {"account_id": "a\u00a0", "application": "p", "user_id": "u", "event_time": noon, "clicks": 1}
    facts, _ = ingested(tmp_path, [[row | {"records_created": 0}]], "home")
    assert [fact["account_id"] for fact in facts] == ["a"]
