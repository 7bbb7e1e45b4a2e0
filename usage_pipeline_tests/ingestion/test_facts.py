"""Facts on real files: one week, a range, twice, New Year under both calendars, late rows, rejected rows, bad files."""

import base64
import io
import json
import threading
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.locks import LockTimeoutError, file_lock
from usage_pipeline.core.weeks import weeks_between
from usage_pipeline.ingestion.facts import (
    FACTS_VERSION,
    WeekManifest,
    facts_path,
    ingest_weeks,
    outdated_weeks,
    read_manifests,
)
from usage_pipeline.ingestion.lake import Lake, Listing
from usage_pipeline_tests.support.lakes import event, write_config, write_week


def ingest(settings: Settings) -> dict[date, WeekManifest | None]:
    weeks = weeks_between(settings.clock.window_start, settings.clock.running_week)
    return ingest_weeks(settings, weeks, now="now").manifests


def clicks_by_week(settings: Settings) -> dict[tuple[str, str], int]:
    """Clicks by (folder's week, week of the days)."""
    found = duckdb.execute(
        "SELECT CAST(week AS VARCHAR), CAST(week_start AS VARCHAR), sum(clicks)::INTEGER FROM read_parquet(?) GROUP BY 1, 2",
        [f"{settings.home.facts_dir}/week=*/facts.parquet"],
    ).fetchall()
    return {(folder, week): clicks for folder, week, clicks in found}


def usage(**changes: object) -> dict[str, object]:
    columns = {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")}
    return {"sources": {"usage": {"path": "lake", "partitioned": True, "columns": columns} | changes}}


def test_equal_rows_of_one_user_are_summed_per_day(tmp_path) -> None:
    rows = [event("2025-02-03", clicks=2), event("2025-02-03", clicks=2), event("2025-02-09", clicks=5)]
    write_week(tmp_path / "lake", "year=2025/week=06", rows)
    settings = load_settings(write_config(tmp_path))
    ingest(settings)
    rows = pq.read_table(facts_path(settings.home.facts_dir, date(2025, 2, 3))).to_pylist()
    found = {(row["week_start"], row["day"]): (row["clicks"], row["source_rows"]) for row in rows}
    monday = date(2025, 2, 3)
    assert found == {(monday, monday): (4, 2), (monday, date(2025, 2, 9)): (5, 1)}


def test_new_year_is_cut_right_by_iso(tmp_path) -> None:
    lake = tmp_path / "lake"
    write_week(lake, "year=2024/week=52", [event("2024-12-29", clicks=1)])
    write_week(lake, "year=2025/week=01", [event("2024-12-30", clicks=10), event("2025-01-05", clicks=100)])
    settings = load_settings(write_config(tmp_path))
    ingest(settings)
    assert clicks_by_week(settings) == {("2024-12-23", "2024-12-23"): 1, ("2024-12-30", "2024-12-30"): 110}


def test_new_year_is_cut_right_by_calendar_year(tmp_path) -> None:
    lake = tmp_path / "lake"
    # 2024/01 holds the first days of January 2024 and the last two of December 2024
    write_week(lake, "year=2024/week=01", [event("2024-01-03", clicks=1), event("2024-12-31", clicks=10)])
    write_week(lake, "year=2025/week=01", [event("2025-01-02", clicks=100)])
    config = write_config(tmp_path, lookback_weeks=80, **usage(partition_calendar="calendar_year"))
    settings = load_settings(config)
    ingest(settings)
    assert clicks_by_week(settings) == {("2024-01-01", "2024-01-01"): 1, ("2024-12-30", "2024-12-30"): 110}


def test_week_53_of_2026_is_read(tmp_path) -> None:
    write_week(tmp_path / "lake", "year=2026/week=53", [event("2026-12-28"), event("2027-01-03")])
    settings = load_settings(write_config(tmp_path, as_of="2027-01-20"))
    ingest(settings)
    assert clicks_by_week(settings) == {("2026-12-28", "2026-12-28"): 2}


def test_rows_up_to_two_days_late_count_under_their_own_date_and_later_ones_are_kept_aside(tmp_path) -> None:
    lake = tmp_path / "lake"
    write_week(lake, "year=2025/week=07", [event("2025-02-10"), event("2025-02-08", clicks=7), event("2025-02-07")])
    settings = load_settings(write_config(tmp_path))
    manifest = ingest(settings)[date(2025, 2, 10)]
    assert clicks_by_week(settings) == {("2025-02-10", "2025-02-10"): 1, ("2025-02-10", "2025-02-03"): 7}
    assert manifest is not None
    assert manifest.rejected == {"outside its folder's week": 1}


def test_rejected_rows_are_kept_with_their_reason(tmp_path) -> None:
    rows = [event("2025-02-10"), event("2025-02-10", account=" "), event("2025-02-10", clicks=-1)]
    rows.append(event("2025-02-10") | {"application": None})
    write_week(tmp_path / "lake", "year=2025/week=07", rows)
    settings = load_settings(write_config(tmp_path))
    manifest = ingest(settings)[date(2025, 2, 10)]
    assert manifest is not None
    assert manifest.rejected == {"no account": 1, "no application": 1, "negative count": 1}
    assert manifest.rows_read == manifest.rows_kept + manifest.rows_rejected == 4
    assert manifest.rejected_file is not None
    kept = pq.read_table(settings.home.history_dir / manifest.rejected_file).to_pylist()
    found = sorted((row["reason"], Path(row["source_file"]).name, row["source_row"]) for row in kept)
    part = "part-0.parquet"
    assert found == [("negative count", part, 3), ("no account", part, 2), ("no application", part, 4)]


def test_a_second_run_reads_nothing_and_a_changed_file_only_its_week(tmp_path) -> None:
    lake = tmp_path / "lake"
    write_week(lake, "year=2025/week=06", [event("2025-02-03")])
    write_week(lake, "year=2025/week=07", [event("2025-02-10")])
    settings = load_settings(write_config(tmp_path))
    ingest(settings)
    before = {
        week: facts_path(settings.home.facts_dir, week).stat().st_mtime_ns
        for week in read_manifests(settings.home.facts_dir)
    }
    ingest(settings)
    after = {week: facts_path(settings.home.facts_dir, week).stat().st_mtime_ns for week in before}
    assert after == before

    write_week(lake, "year=2025/week=07", [event("2025-02-11", clicks=3)])
    ingest(settings)
    changed = {week for week in before if facts_path(settings.home.facts_dir, week).stat().st_mtime_ns != before[week]}
    assert changed == {date(2025, 2, 10)}
    assert clicks_by_week(settings)["2025-02-10", "2025-02-10"] == 3


def test_weeks_outside_the_window_are_not_read_and_what_was_read_stays(tmp_path) -> None:
    lake = tmp_path / "lake"
    write_week(lake, "year=2025/week=06", [event("2025-02-03")])
    write_week(lake, "year=2024/week=10", [event("2024-03-04")])
    settings = load_settings(write_config(tmp_path))
    ingest(settings)
    assert list(read_manifests(settings.home.facts_dir)) == [date(2025, 2, 3)]
    later = load_settings(tmp_path / "sources.yaml", as_of=date(2025, 12, 1))
    ingest_weeks(later, weeks_between(date(2025, 1, 6), date(2025, 12, 1)), now="later")
    assert list(read_manifests(settings.home.facts_dir)) == [date(2025, 2, 3)]


def broken_page(whole: bytes) -> bytes:
    """A sound footer, and a first column whose pages are garbage."""
    return whole[:8] + bytes(255 for _ in range(60)) + whole[68:]


def with_wrong_checksum(_: bytes) -> bytes:
    """A sound file but for one bit of one number, which most readers take as it is."""
    table = pa.Table.from_pylist([event("2025-02-03", clicks=clicks) for clicks in range(1, 400)])
    written = io.BytesIO()
    pq.write_table(table, written, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(written.getvalue())
    content[content.index((333).to_bytes(8, "little"))] ^= 1
    assert duckdb.read_parquet(io.BytesIO(bytes(content))).aggregate("sum(clicks)").fetchall() != [(sum(range(400)),)]
    return bytes(content)


class _Keys(encryption.KmsClient):
    def wrap_key(self, key: bytes, _: str) -> str:
        return base64.b64encode(key).decode()

    def unwrap_key(self, key: str, _: str) -> bytes:
        return base64.b64decode(key)


def encrypted(_: bytes) -> bytes:
    table = pa.Table.from_pylist([event("2025-02-03")])
    factory = encryption.CryptoFactory(lambda _: _Keys())
    columns = encryption.EncryptionConfiguration(footer_key="f", column_keys={"c": ["account_id"]})
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), columns)
    written = io.BytesIO()
    with pq.ParquetWriter(written, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return written.getvalue()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda _: b"PAR1 this is no Parquet", "cannot be read"),
        (lambda _: b"", "is empty: it has no bytes"),
        (lambda whole: whole[: len(whole) // 2], "cannot be read"),
        (broken_page, "cannot be read"),
        (encrypted, "it is encrypted; deliver it as plain Parquet"),
        (with_wrong_checksum, "its checksum is wrong; deliver it again"),
    ],
    ids=["not Parquet", "zero bytes", "truncated", "broken page", "encrypted", "wrong checksum"],
)
def test_a_file_that_cannot_be_read_is_set_aside_and_the_others_go_through(tmp_path, damage, said) -> None:
    lake = tmp_path / "lake"
    whole = write_week(lake, "year=2025/week=06", [event("2025-02-03")]).read_bytes()
    (lake / "year=2025" / "week=06" / "broken.parquet").write_bytes(damage(whole))
    settings = load_settings(write_config(tmp_path))
    manifest = ingest(settings)[date(2025, 2, 3)]
    assert manifest is not None
    assert [Path(item["key"]).name for item in manifest.quarantined] == ["broken.parquet"]
    assert said in manifest.quarantined[0]["reason"]
    assert manifest.clicks == 1


def test_a_file_without_a_required_column_is_set_aside_with_the_columns_that_it_has(tmp_path) -> None:
    lake = tmp_path / "lake"
    write_week(lake, "year=2025/week=06", [event("2025-02-03")])
    write_week(lake, "year=2025/week=06", [{"account": "a", "application": "p"}], "other.parquet")
    settings = load_settings(write_config(tmp_path))
    manifest = ingest(settings)[date(2025, 2, 3)]
    assert manifest is not None
    (item,) = manifest.quarantined
    assert "there is no column 'account_id'" in item["reason"]
    assert "columns that exist: account, application" in item["reason"]
    assert manifest.clicks == 1


def test_a_file_without_rows_is_no_problem(tmp_path) -> None:
    lake = tmp_path / "lake"
    file = write_week(lake, "year=2025/week=06", [event("2025-02-03")])
    pq.write_table(pq.read_table(file).slice(0, 0), file.with_name("empty.parquet"))
    settings = load_settings(write_config(tmp_path))
    manifest = ingest(settings)[date(2025, 2, 3)]
    assert manifest is not None
    assert (manifest.quarantined, manifest.clicks) == ([], 1)


def test_only_week_folders_and_no_times_gives_totals_without_days(tmp_path) -> None:
    rows = [{"account_id": "a", "application": "p", "clicks": 4}]
    write_week(tmp_path / "lake", "year=2025/week=06", rows)
    config = write_config(tmp_path, **usage(columns={c: c for c in ("account_id", "application", "clicks")}))
    settings = load_settings(config)
    ingest(settings)
    (row,) = pq.read_table(facts_path(settings.home.facts_dir, date(2025, 2, 3))).to_pylist()
    assert (row["week_start"], row["clicks"], row["user_id"]) == (date(2025, 2, 3), 4, None)
    assert row["day"] is None


@pytest.mark.parametrize("zone", ["UTC", "America/Denver"])
def test_times_with_a_zone_are_moved_into_ours(tmp_path, zone: str) -> None:
    import datetime as dt

    moment = dt.datetime(2025, 2, 3, 3, 0, tzinfo=dt.UTC)  # still Sunday the 2nd in Denver
    write_week(tmp_path / "lake", "year=2025/week=06", [event("2025-02-03") | {"event_time": moment}])
    settings = load_settings(write_config(tmp_path, timezone=zone))
    ingest(settings)
    week = "2025-02-03" if zone == "UTC" else "2025-01-27"
    assert clicks_by_week(settings) == {("2025-02-03", week): 1}


def test_folders_cut_in_another_zone_are_understood(tmp_path) -> None:
    write_week(tmp_path / "lake", "year=2025/week=06", [event("2025-02-03") | {"event_time": "2025-02-03 03:00:00"}])
    config = write_config(tmp_path, timezone="America/Denver", **usage(partition_timezone="UTC"))
    settings = load_settings(config)
    ingest(settings)
    assert clicks_by_week(settings) == {("2025-02-03", "2025-01-27"): 1}


def test_a_csv_that_is_not_partitioned_and_a_query_over_two_files_give_the_same_facts(tmp_path) -> None:
    (tmp_path / "usage.csv").write_text("sub;day;n\ns1;2025-02-03;2\ns1;2025-02-11;3\ns2;2025-02-11;5\n")
    (tmp_path / "subs.csv").write_text("sub,account,app\ns1,a,permits\ns2,b,permits\n")
    source = {
        "files": {
            "events": {"path": "usage.csv", "format": "csv", "delimiter": ";"},
            "subs": {"path": "subs.csv", "format": "csv"},
        },
        "query": "SELECT * FROM events INNER JOIN subs USING (sub)",
        "columns": {
            "account_id": "account",
            "application": "app",
            "event_time": "day",
            "clicks": {"sql": "CAST(n AS BIGINT) * 1"},
        },
    }
    settings = load_settings(write_config(tmp_path, sources={"usage": source}))
    ingest(settings)
    assert clicks_by_week(settings) == {("2025-02-03", "2025-02-03"): 2, ("2025-02-10", "2025-02-10"): 8}


def test_a_second_row_of_the_same_event_is_dropped_and_counted_and_equal_rows_are_summed(tmp_path) -> None:
    rows = [event("2025-02-03", clicks=2) | {"id": key} for key in ("x", "x", "y", None, None)]
    write_week(tmp_path / "lake", "year=2025/week=06", rows)
    columns = {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")} | {"event_id": "id"}
    settings = load_settings(write_config(tmp_path, **usage(columns=columns)))
    manifest = ingest(settings)[date(2025, 2, 3)]
    assert manifest is not None
    assert (manifest.rows_read, manifest.rows_kept, manifest.duplicates, manifest.clicks) == (5, 4, 1, 8)


def test_rows_without_a_day_of_a_flat_source_are_rejected_and_not_lost(tmp_path) -> None:
    (tmp_path / "usage.csv").write_text("a,p,day,n\na,p,2025-02-03,2\na,p,,3\na,p,soon,5\n")
    source = {
        "path": "usage.csv",
        "format": "csv",
        "columns": {"account_id": "a", "application": "p", "event_time": "day", "clicks": "n"},
    }
    settings = load_settings(write_config(tmp_path, sources={"usage": source}))
    manifests = [m for m in ingest(settings).values() if m]
    assert sum(m.rows_read for m in manifests) == 3
    assert {r: n for m in manifests for r, n in m.rejected.items()} == {"no day, or one that cannot be read": 2}


def test_facts_of_an_older_version_are_kept_outside_the_window_and_read_again_inside(tmp_path) -> None:
    lake = tmp_path / "lake"
    write_week(lake, "year=2025/week=06", [event("2025-02-03")])
    write_week(lake, "year=2025/week=07", [event("2025-02-10")])
    settings = load_settings(write_config(tmp_path))
    ingest(settings)
    for week in (date(2025, 2, 3), date(2025, 2, 10)):
        file = facts_path(settings.home.facts_dir, week)
        table = pq.read_table(file)
        manifest = json.loads(pq.read_metadata(file).metadata[b"manifest"])
        manifest |= {"version": 1, "of_another_time": True}
        del manifest["duplicates"]
        pq.write_table(table.replace_schema_metadata({b"manifest": json.dumps(manifest).encode()}), file)
    later = load_settings(tmp_path / "sources.yaml", as_of=date(2025, 9, 10))  # the window begins on 10 February
    ingest(later)
    versions = {week: m.version for week, m in read_manifests(settings.home.facts_dir).items()}
    assert versions == {date(2025, 2, 3): 1, date(2025, 2, 10): FACTS_VERSION}


def test_sound_checksums_are_no_problem(tmp_path) -> None:
    file = write_week(tmp_path / "lake", "year=2025/week=06", [event("2025-02-03")])
    pq.write_table(pq.read_table(file), file, write_page_checksum=True)
    settings = load_settings(write_config(tmp_path))
    manifest = ingest(settings)[date(2025, 2, 3)]
    assert manifest is not None
    assert (manifest.quarantined, manifest.clicks, manifest.lost) == ([], 1, None)


def test_a_file_written_while_it_is_read_is_set_aside_and_read_again_next_time(tmp_path, monkeypatch) -> None:
    lake = tmp_path / "lake"
    write_week(lake, "year=2025/week=06", [event("2025-02-03")])
    write_week(lake, "year=2025/week=06", [event("2025-02-03", clicks=10)], "late.parquet")
    settings = load_settings(write_config(tmp_path))
    listed, times = Lake.week_files, []

    def list_and_write(self: Lake, *place: object) -> Listing:
        found = listed(self, *place)  # type: ignore[arg-type]
        if any("week=06" in file.key for file in found.files) and not times:
            times.append(1)
            write_week(lake, "year=2025/week=06", [event("2025-02-03", clicks=n) for n in (10, 20)], "late.parquet")
        return found

    monkeypatch.setattr(Lake, "week_files", list_and_write)
    manifest = ingest(settings)[date(2025, 2, 3)]
    assert manifest is not None
    assert [Path(item["key"]).name for item in manifest.quarantined] == ["late.parquet"]
    assert "was written while it was read" in manifest.quarantined[0]["reason"]
    assert manifest.clicks == 1
    again = ingest(settings)[date(2025, 2, 3)]
    assert again is not None
    assert (again.quarantined, again.clicks) == ([], 31)


def test_columns_renamed_half_way_through_are_read_by_two_mappings(tmp_path) -> None:
    lake = tmp_path / "lake"
    old = event("2025-02-03", clicks=4)
    old["nr_clicks"], old["who"] = old.pop("clicks"), old.pop("user_id")
    write_week(lake, "year=2025/week=06", [old])
    write_week(lake, "year=2025/week=07", [event("2025-02-10", clicks=5)])
    settings = load_settings(write_config(tmp_path))
    manifests = ingest(settings)
    first = manifests[date(2025, 2, 3)]
    assert first is not None
    assert "say so under sources.usage.earlier" in first.quarantined[0]["reason"]

    earlier = [{"until": "2025-02-05", "columns": {"clicks": "nr_clicks", "user_id": "who"}}]
    settings = load_settings(write_config(tmp_path, **usage(earlier=earlier)))
    before = facts_path(settings.home.facts_dir, date(2025, 2, 10)).stat().st_mtime_ns
    ingest(settings)
    assert clicks_by_week(settings) == {("2025-02-03", "2025-02-03"): 4, ("2025-02-10", "2025-02-10"): 5}
    assert facts_path(settings.home.facts_dir, date(2025, 2, 10)).stat().st_mtime_ns == before, (
        "read as before: left alone"
    )


def test_other_types_are_converted_and_what_would_lose_something_is_rejected(tmp_path) -> None:
    lake = tmp_path / "lake"
    write_week(lake, "year=2025/week=06", [event("2025-02-03", clicks=2) | {"account_id": 12}])
    odd = [
        event("2025-02-03") | {"account_id": account, "CLICKS": clicks, "event_time": "2025-02-04"}
        for account, clicks in ((12.0, "3"), (12.5, "4"), (12.0, "3.7"), (12.0, "many"))
    ]
    for row in odd:
        del row["clicks"]
    write_week(lake, "year=2025/week=06", odd, "odd.parquet")
    settings = load_settings(write_config(tmp_path))
    manifest = ingest(settings)[date(2025, 2, 3)]
    assert manifest is not None
    facts = pq.read_table(facts_path(settings.home.facts_dir, date(2025, 2, 3))).to_pylist()
    assert {(row["account_id"], row["clicks"]) for row in facts} == {("12", 2), ("12", 3)}
    assert manifest.rejected == {"no clicks, or not a whole number": 2, "no account": 1}
    assert any("'CLICKS' is VARCHAR and is converted" in note for note in manifest.notes)


def test_absurd_counts_are_rejected_and_extra_columns_are_noted(tmp_path) -> None:
    rows = [event("2025-02-03") | {"page": "x"}, event("2025-02-03", clicks=9 * 10**18) | {"page": "y"}]
    write_week(tmp_path / "lake", "year=2025/week=06", rows)
    settings = load_settings(write_config(tmp_path))
    manifest = ingest(settings)[date(2025, 2, 3)]
    assert manifest is not None
    assert (manifest.rejected, manifest.clicks, manifest.lost) == ({"absurd count": 1}, 1, None)
    assert manifest.notes == ["columns that nothing maps: page"]


def test_another_limit_of_counts_reads_the_weeks_again(tmp_path) -> None:
    write_week(tmp_path / "lake", "year=2025/week=06", [event("2025-02-03", clicks=500), event("2025-02-04")])
    settings = load_settings(write_config(tmp_path))
    ingest(settings)
    assert outdated_weeks(settings) == {}
    narrower = load_settings(write_config(tmp_path, completeness={"largest_count": 100}))
    assert outdated_weeks(narrower) == {date(2025, 2, 3): "read in another way"}


def test_rejected_rows_of_csv_files_are_found_again_by_file_and_row(tmp_path) -> None:
    lake, columns = tmp_path / "lake", "account_id,application,user_id,event_time,clicks\n"
    for name, bad in (("a.csv", 50_000), ("b.csv", 7)):
        lines = [f"a,p,u,2025-02-03,{-1 if row == bad else 1}\n" for row in range(1, 60_001)]
        file = lake / "year=2025" / "week=06" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(columns + "".join(lines))
    settings = load_settings(write_config(tmp_path, **usage(format="csv")))
    manifest = ingest(settings)[date(2025, 2, 3)]
    assert manifest is not None
    assert manifest.rejected_file is not None
    rows = pq.read_table(settings.home.history_dir / manifest.rejected_file).to_pylist()
    assert sorted((Path(r["source_file"]).name, r["source_row"]) for r in rows) == [("a.csv", 50_000), ("b.csv", 7)]


def test_a_second_run_waits_for_the_first_and_says_for_whom(tmp_path) -> None:
    write_week(tmp_path / "lake", "year=2025/week=06", [event("2025-02-03")])
    settings = load_settings(write_config(tmp_path, ingest={"wait_seconds": 0}))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with file_lock(settings.home.facts_dir / ".lock", 0, what="facts", who="run 1234abcd"):
            held.set()
            done.wait()

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    try:
        with pytest.raises(LockTimeoutError, match=r"is held by run 1234abcd \(process \d+\)"):
            ingest(settings)
    finally:
        done.set()
        other.join()
    assert ingest(settings)[date(2025, 2, 3)] is not None
