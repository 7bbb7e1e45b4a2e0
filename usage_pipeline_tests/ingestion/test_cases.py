"""Small inputs that once came out wrong, and others of their kind: endings, folders, zones, ids, days, amounts, reasons.

The inputs of `shared/cases` lie beside the repository; where they do not, only the others run.
"""

import gzip
import os
import shutil
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from usage_pipeline_tests.support.lake_probe import UsageOutcome, check, read_reference, read_usage
from usage_pipeline_tests.support.lakes import event, write_config, write_week

CASES = Path(os.environ.get("USAGE_PIPELINE_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")).parent / "cases"
WEEK = date(2025, 11, 3)


@pytest.fixture
def case(tmp_path, request) -> Path:
    """A copy of one handed case, since a run writes beside it."""
    if not CASES.is_dir():
        pytest.skip(f"{CASES} is not there")
    folder = CASES / str(request.param)
    shutil.copytree(folder, tmp_path / "case")
    return tmp_path / "case" / "sources.yaml"


@pytest.fixture(params=["UTC", "America/Los_Angeles", "Asia/Kolkata"])
def machine_zone(request, monkeypatch) -> Iterator[str]:
    """The machine's own zone, which must not matter."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def clicks(found: UsageOutcome) -> dict[date, int]:
    """Clicks by the week of their day."""
    weeks: dict[date, int] = {}
    for (folder, _, _, _, day), count in found.facts.items():
        week = day - timedelta(days=day.weekday()) if day else folder
        weeks[week] = weeks.get(week, 0) + count
    return weeks


def weeks_of(*counts: int, first: date = WEEK) -> dict[date, int]:
    return {first + timedelta(weeks=number): count for number, count in enumerate(counts) if count}


# ---------------------------------------------------------------- the handed cases


@pytest.mark.parametrize("case", ["brackets-in-file-names"], indirect=True)
def test_brackets_in_a_file_name_are_letters(case: Path) -> None:
    found = read_usage(case)
    assert clicks(found) == weeks_of(300, 300, 300, 300)
    assert found.rejected[WEEK] == {"no account": 1}
    assert not found.does_not_add_up


@pytest.mark.parametrize("case", ["contract-days-with-zone"], indirect=True)
def test_days_stored_as_instants_are_days_of_our_zone(case: Path, machine_zone: str) -> None:
    rows = read_reference(case, "subscriptions").rows
    days = {(row["account_id"], row["start_date"], row["end_date"]) for row in rows}
    assert {first for _, first, _ in days} == {date(2025, 1, 1)}
    assert {last for account, _, last in days if account == "A1"} == {date(2025, 11, 30)}
    assert {last for account, _, last in days if account == "A2"} == {date(2025, 11, 17)}


@pytest.mark.parametrize("case", ["csv-ids-as-numbers"], indirect=True)
def test_ids_are_text_from_the_first_byte(case: Path) -> None:
    used = {account for _, account, *_ in read_usage(case).facts}
    for source in ("accounts", "subscriptions"):
        found = read_reference(case, source)
        assert {row["account_id"] for row in found.rows} >= used
        assert not found.kept_aside


@pytest.mark.parametrize("case", ["dates-read-in-two-ways"], indirect=True)
def test_days_that_can_be_read_in_two_ways_are_noted(case: Path) -> None:
    found = read_reference(case, "subscriptions")
    assert {(row["start_date"], row["end_date"]) for row in found.rows} == {(date(2025, 3, 1), date(2025, 11, 5))}
    said = "\n".join(check(case))
    assert "days can be read in two ways" in said
    assert "'03/01/2025' read as 2025-03-01" in said
    assert "date_order: dmy" in said


@pytest.mark.parametrize("case", ["decimal-comma"], indirect=True)
def test_a_decimal_comma_is_read(case: Path) -> None:
    assert {row["annual_value"] for row in read_reference(case, "subscriptions").rows} == {1234.5}


@pytest.mark.parametrize("case", ["end-date-unreadable"], indirect=True)
def test_an_end_that_cannot_be_read_keeps_its_row_aside(case: Path) -> None:
    found = read_reference(case, "subscriptions")
    ends = {(row["account_id"], row["application"]): row["end_date"] for row in found.rows}
    assert ends["A1", "forms"] == date(2025, 10, 31), "31.10.2025 can be read in one way only"
    assert [(row["account_id"], row["application"], row["reason"]) for row in found.kept_aside] == [
        ("A2", "maps", "end_date cannot be read")
    ]
    assert any("end_date: 1 of" in line and "'2025-31-10'" in line for line in check(case))


@pytest.mark.parametrize("case", ["end-reason-spelling"], indirect=True)
def test_the_reason_of_an_end_has_no_case_and_common_words_are_known(case: Path) -> None:
    found = read_reference(case, "subscriptions")
    assert {r["end_reason"] for r in found.rows if r["account_id"] == "A1"} == {"cancelled"}
    assert not found.kept_aside


@pytest.mark.parametrize("case", ["file-endings"], indirect=True)
def test_parquet_is_read_by_what_it_is(case: Path) -> None:
    assert clicks(read_usage(case)) == weeks_of(300, 300, 300, 300)


@pytest.mark.parametrize("case", ["one-file-of-another-time-type"], indirect=True)
def test_a_file_whose_times_are_numbers_is_quarantined_with_the_remedy(case: Path) -> None:
    found = read_usage(case)
    ((key, reason),) = [item for week in found.quarantined.values() for item in week.items()]
    assert key.endswith(".parquet")
    assert "is BIGINT and no day or time" in reason
    assert "to_timestamp" in reason
    assert len(clicks(found)) == 4
    assert any(key in line and "to_timestamp" in line for line in check(case))


@pytest.mark.parametrize("case", ["sunday-weeks"], indirect=True)
def test_weeks_that_begin_on_sunday_are_said(case: Path) -> None:
    said = "\n".join(check(case))
    assert "do not lie in the week that their folder names (they fit weeks that begin on Sunday" in said
    assert "partitioned: false" in said
    # the remedy works
    text = case.read_text(encoding="utf-8").replace("partitioned: true", "partitioned: false")
    case.write_text(text, encoding="utf-8")
    found = read_usage(case)
    assert not any(found.rejected.values())


@pytest.mark.parametrize("case", ["temporary-folders"], indirect=True)
def test_what_a_job_left_behind_is_named_and_not_counted(case: Path) -> None:
    found = read_usage(case)
    assert clicks(found) == weeks_of(300, 300, 300, 300)
    assert len(found.named) == 2
    assert all("never counted" in reason for reason in found.named.values())


@pytest.mark.parametrize("case", ["utc-as-text-or-int96"], indirect=True)
def test_times_in_utc_are_moved_however_they_are_written(case: Path, machine_zone: str) -> None:
    assert clicks(read_usage(case)) == weeks_of(70, 70, 70, 70)


# ---------------------------------------------------------------- others of their kind


def usage_config(folder: Path, **source: Any) -> Path:
    columns = {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")}
    usage = {"path": "lake", "partitioned": True, "columns": columns} | source
    return write_config(folder, as_of="2025-11-25", lookback_weeks=3, sources={"usage": usage})


@pytest.mark.parametrize(
    "name",
    ["p.PARQUET", "p.pq", "p.parq.gz", "p.parquet.zstd", "part-00000", "a b.parquet", "ü%20#;.parquet", "q?.parquet"],
)
def test_a_parquet_file_of_any_usual_name_is_read(tmp_path, name: str) -> None:
    file = write_week(tmp_path / "lake", "year=2025/week=45", [event("2025-11-03"), event("2025-11-03", account="")])
    file.rename(file.with_name(name))
    found = read_usage(usage_config(tmp_path))
    assert clicks(found) == {WEEK: 1}
    assert found.rejected[WEEK] == {"no account": 1}


@pytest.mark.parametrize("name", ["u.csv", "u.CSV", "u.txt", "u.tsv", "u.csv.gz", "part-00000", "u[1].csv"])
def test_a_csv_file_of_any_usual_name_is_read(tmp_path, name: str) -> None:
    text = (
        "\ufeffaccount_id,application,user_id,event_time,clicks\r\n0012,p,u,2025-11-03,3\r\n12E3,p,u,2025-11-04,4\r\n"
    )
    file = tmp_path / "lake" / "year=2025" / "week=45" / name
    file.parent.mkdir(parents=True)
    raw = text.replace(",", "\t").encode() if name.endswith("tsv") else text.encode()
    file.write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    found = read_usage(usage_config(tmp_path, format="csv"))
    assert {(account, count) for (_, account, *_), count in found.facts.items()} == {("0012", 3), ("12E3", 4)}


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("year=2025/week=45/_temporary/0/p.parquet", "the folder _temporary begins with _"),
        ("year=2025/week=45/.hidden.parquet", "its name begins with ."),
        ("year=2025/week=45/notes.txt", "is no parquet file by its ending"),
        ("year=2025/week=45/readme", "has no ending, and does not begin as a Parquet file does"),
        ("year=2025/week=W46/p.parquet", "is not spelled week=WW"),
        ("year=2025/week=46.0/p.parquet", "is not spelled week=WW"),
        ("year=2025/week=__HIVE_DEFAULT_PARTITION__/p.parquet", "is not spelled week=WW"),
        ("Year=2025/week=46/p.parquet", "is not spelled year=YYYY"),
        ("year=2025/week=54/p.parquet", "no day belongs to it"),
        ("year=2025/p.parquet", "lies beside the week folders"),
        ("p.parquet", "lies beside the week folders"),
    ],
)
@pytest.mark.sample(every=4)
def test_what_is_not_read_is_named_and_not_counted(tmp_path, place: str, said: str) -> None:
    whole = write_week(tmp_path / "lake", "year=2025/week=45", [event("2025-11-03")])
    other = tmp_path / "lake" / place
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_bytes(b"no Parquet" if place.endswith(("txt", "readme")) else whole.read_bytes())
    found = read_usage(config := usage_config(tmp_path))
    assert clicks(found) == {WEEK: 1}
    (reason,) = found.named.values()
    assert said in reason
    assert any(said in line for line in check(config))


def test_a_week_in_two_spellings_is_not_doubled(tmp_path) -> None:
    for folder in ("year=2025/week=6", "year=2025/week=06"):
        write_week(tmp_path / "lake", folder, [event("2025-02-03")])
    columns = {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")}
    source = {"usage": {"path": "lake", "partitioned": True, "columns": columns}}
    found = read_usage(write_config(tmp_path, as_of="2025-02-20", lookback_weeks=3, sources=source))
    assert clicks(found) == {date(2025, 2, 3): 1}
    (reason,) = found.quarantined[date(2025, 2, 3)].values()
    assert "whether it was delivered twice cannot be told" in reason


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([1762160400]), "is BIGINT and no day or time"),
        (pa.array([timedelta(hours=3)], pa.duration("us")), "no day or time"),
        (pa.array([[1, 2]]), "no day or time"),
        (pa.array([{"at": 1}]), "no day or time"),
        (pa.array([datetime(2025, 11, 3).time()]), "is TIME and no day or time"),
    ],
    ids=["epoch", "duration", "list", "struct", "time of day"],
)
def test_a_file_with_another_type_of_time_is_quarantined_alone(tmp_path, column: pa.Array, said: str) -> None:
    whole = write_week(tmp_path / "lake", "year=2025/week=45", [event("2025-11-03")])
    table = pa.Table.from_pylist([event("2025-11-03")])
    odd = table.set_column(table.schema.get_field_index("event_time"), "event_time", column)
    pq.write_table(odd, whole.with_name("odd.parquet"))
    found = read_usage(usage_config(tmp_path))
    assert clicks(found) == {WEEK: 1}
    ((key, reason),) = found.quarantined[WEEK].items()
    assert key.endswith("odd.parquet")
    assert said in reason


def test_files_whose_types_differ_are_each_read_by_their_own(tmp_path) -> None:
    moment = datetime(2025, 11, 3, 12)
    kinds: list[dict[str, Any]] = [
        {"account_id": 12, "clicks": 1, "event_time": moment},
        {"account_id": 12.0, "clicks": 2.0, "event_time": moment.date()},
        {"account_id": "12", "clicks": "4", "event_time": "2025-11-03T12:00:00"},
        {"account_id": b"12", "clicks": "8", "event_time": "11/03/2025 12:00 PM"},
    ]
    for number, kind in enumerate(kinds):
        write_week(tmp_path / "lake", "year=2025/week=45", [event("2025-11-03") | kind], f"{number}.parquet")
    found = read_usage(usage_config(tmp_path))
    assert {(account, day, n) for (_, account, _, _, day), n in found.facts.items()} == {("12", WEEK, 15)}
    assert not found.quarantined[WEEK]


@pytest.mark.parametrize(("decimal", "of_text"), [("auto", None), ("comma", 1.2), ("point", 1200.0)])
@pytest.mark.parametrize("kind", [pa.float64(), pa.decimal128(9, 2)])
def test_a_number_says_nothing_of_how_the_texts_of_another_file_are_read(
    tmp_path, decimal: str, of_text: float | None, kind: pa.DataType
) -> None:
    """1234.5 of a file of numbers settled that '1,200' of a file of texts was 1200; with comma it was not read itself."""
    config = reference_config(tmp_path, "accounts", "account_id;account_name;size\nA1;a;1\n")
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["sources"]["accounts"] |= {"path": "accounts", "format": "parquet", "decimal": decimal}
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    (tmp_path / "accounts").mkdir()
    parts = (pa.array([1234.5, 7]).cast(kind), ["1,200", "12"])
    for number, sizes in enumerate(parts):
        names = [f"{number}-{row}" for row in range(2)]
        table = pa.table({"account_id": names, "account_name": names, "size": sizes})
        pq.write_table(table, tmp_path / "accounts" / f"{number}.parquet")
    found = read_reference(config, "accounts")
    sizes = {row["account_id"]: row["size"] for row in found.rows}
    assert sizes == {"0-0": 1234.5, "0-1": 7, "1-0": of_text, "1-1": 12}
    assert any("two ways" in note for note in found.notes) == (of_text is None)


@pytest.mark.parametrize("first", [b"\xff\xfe", "plain"])
def test_bytes_that_are_no_text_are_told_beside_a_file_of_text(tmp_path, first: bytes | str) -> None:
    config = reference_config(tmp_path, "accounts", "account_id;account_name\nA1;a\n")
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["sources"]["accounts"] |= {"path": "accounts", "format": "parquet"}
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    (tmp_path / "accounts").mkdir()
    names = (
        [first, "b" if isinstance(first, str) else b"b"],
        ["c", "d"] if isinstance(first, bytes) else [b"\xff", b"d"],
    )
    for number, column in enumerate(names):
        ids = [f"A{number}{row}" for row in range(2)]
        pq.write_table(
            pa.table({"account_id": ids, "account_name": column}), tmp_path / "accounts" / f"{number}.parquet"
        )
    found = read_reference(config, "accounts")
    assert len(found.rows) == 4
    assert found.unreadable == {"account_name": 1}
    assert {row["account_name"] for row in found.rows} >= {None, "d"}


@pytest.mark.parametrize("beside", [["A1"], [7], [b"A1"]])
def test_a_number_that_is_no_id_is_none_beside_a_file_of_another_type(tmp_path, beside: list[Any]) -> None:
    config = reference_config(tmp_path, "accounts", "account_id;account_name\nA1;a\n")
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["sources"]["accounts"] |= {"path": "accounts", "format": "parquet"}
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    (tmp_path / "accounts").mkdir()
    for number, ids in enumerate(([14.0, 1.5, 9007199254740992.0, None], beside)):
        rows = {"account_id": ids, "account_name": [f"name {n}" for n in range(len(ids))]}
        pq.write_table(pa.table(rows), tmp_path / "accounts" / f"{number}.parquet")
    found = read_reference(config, "accounts")
    first = beside[0].decode() if isinstance(beside[0], bytes) else str(beside[0])
    assert {row["account_id"] for row in found.rows} == {"14", first}
    assert len(found.kept_aside) == 3
    assert any("columns.account_id: 2 of 5 values cannot be read" in line for line in check(config)), "one is empty"


@pytest.mark.parametrize("rows", [["#1", "2"], ["2", "#1"], ["#1", "#2"], ["//1", "2"]])
def test_no_sign_begins_a_comment_in_csv(tmp_path, rows: list[str]) -> None:
    text = "account_id;account_name\n" + "".join(f"{key};name\n" for key in rows)
    found = read_reference(reference_config(tmp_path, "accounts", text), "accounts")
    assert {row["account_id"] for row in found.rows} == set(rows)
    folder = tmp_path / "csv" / "year=2025" / "week=45"
    folder.mkdir(parents=True)
    lines = "".join(f"{key},Permits,2025-11-03,1\n" for key in rows)
    (folder / "u.csv").write_text("account_id,application,event_time,clicks\n" + lines, encoding="utf-8")
    columns = {name: name for name in ("account_id", "application", "event_time", "clicks")}
    config = usage_config(tmp_path, path="csv", format="csv", columns=columns)
    assert {account for _, account, *_ in read_usage(config).facts} == set(rows)


def test_the_source_check_looks_into_every_week_of_a_short_lake(tmp_path) -> None:
    for week in range(40, 46):
        write_week(tmp_path / "lake", f"year=2025/week={week}", [event(str(date.fromisocalendar(2025, week, 1)))])
    (tmp_path / "lake" / "year=2025" / "week=44" / "broken.parquet").write_bytes(b"PAR1 and no more PAR1")
    config = usage_config(tmp_path)
    config.write_text(config.read_text(encoding="utf-8").replace("lookback_weeks: 3", "lookback_weeks: 8"))
    assert any("week=44/broken.parquet is quarantined by a run" in line for line in check(config))


def test_the_folder_settles_which_of_day_and_month_comes_first(tmp_path) -> None:
    rows = [event("2025-11-03") | {"event_time": f"{day:02d}/11/2025"} for day in range(3, 10)]
    write_week(tmp_path / "lake", "year=2025/week=45", rows)
    assert clicks(read_usage(usage_config(tmp_path))) == {WEEK: 7}


def reference_config(folder: Path, name: str, text: str, **source: Any) -> Path:
    """A configuration with a small usage lake, and one reference source of CSV."""
    write_week(folder / "lake", "year=2025/week=45", [event("2025-11-03")])
    (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    config = yaml.safe_load(usage_config(folder).read_text(encoding="utf-8"))
    columns = {column: column for column in text.splitlines()[0].split(";")}
    config["sources"][name] = {"path": f"{name}.csv", "format": "csv", "columns": columns} | source
    (folder / "sources.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "sources.yaml"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("$1,200.00", 1200.0),
        ("1234,50", 1234.5),
        ("1.234,50 €", 1234.5),
        ("(1,200.00)", -1200.0),
        ("1200", 1200.0),
        ("$1,200", 1200.0),
        ("1,200", None),
        ("12 %", None),
        ("about 12", None),
    ],
)
def test_amounts_of_the_usual_forms_are_read(tmp_path, written: str, value: float | None) -> None:
    text = f"account_id;start_date;annual_value\nA1;2025-01-01;{written}\n"
    found = read_reference(reference_config(tmp_path, "subscriptions", text), "subscriptions")
    assert [row["annual_value"] for row in found.rows] == [value]
    assert found.unreadable == ({} if value is not None else {"annual_value": 1})


def test_one_amount_settles_how_the_column_is_read(tmp_path) -> None:
    text = "account_id;start_date;annual_value\nA1;2025-01-01;1.200\nA2;2025-01-01;12,5\n"
    found = read_reference(config := reference_config(tmp_path, "subscriptions", text), "subscriptions")
    assert sorted(row["annual_value"] for row in found.rows) == [12.5, 1200.0]
    text = text.replace("12,5", "12")
    config = reference_config(tmp_path, "subscriptions", text)
    found = read_reference(config, "subscriptions")
    assert found.unreadable == {"annual_value": 1}
    assert any("say decimal: point or decimal: comma" in line for line in check(config))
    config = reference_config(tmp_path, "subscriptions", text, decimal="comma")
    assert sorted(row["annual_value"] for row in read_reference(config, "subscriptions").rows) == [12.0, 1200.0]


def test_words_for_nothing_are_told_and_then_nothing(tmp_path) -> None:
    text = "account_id;start_date;end_date\nA1;2025-01-01;NA\nA2;2025-01-01;-\nA3;2025-01-01;\n"
    config = reference_config(tmp_path, "subscriptions", text)
    assert len(read_reference(config, "subscriptions").kept_aside) == 2
    assert any("list it under sources.subscriptions.null_values" in line for line in check(config))
    config = reference_config(tmp_path, "subscriptions", text, null_values=["na", "-"])
    assert [row["end_date"] for row in read_reference(config, "subscriptions").rows] == [None] * 3


def test_a_word_for_the_end_that_nobody_knows_keeps_its_days_and_is_told(tmp_path) -> None:
    text = "account_id;start_date;end_date;end_reason\nA1;2025-01-01;2025-03-01;moved away\nA2;2025-01-01;;\n"
    config = reference_config(tmp_path, "subscriptions", text)
    found = read_reference(config, "subscriptions")
    ended = next(row for row in found.rows if row["account_id"] == "A1")
    assert (ended["end_date"], ended["end_reason"]) == (date(2025, 3, 1), None)
    assert found.unreadable == {"end_reason": 1}
    assert any("'moved away'" in note for note in found.notes)
    config = reference_config(tmp_path, "subscriptions", text, end_reasons={"Moved away": "cancelled"})
    assert {row["end_reason"] for row in read_reference(config, "subscriptions").rows} == {"cancelled", None}


def test_days_that_contradict_each_other_are_read_only_where_one_way_is_left(tmp_path) -> None:
    text = "account_id;start_date\nA1;31/01/2025\nA2;01/31/2025\nA3;03/01/2025\n"
    found = read_reference(reference_config(tmp_path, "subscriptions", text), "subscriptions")
    assert {row["account_id"]: row["start_date"] for row in found.rows} == {
        "A1": date(2025, 1, 31),
        "A2": date(2025, 1, 31),
    }
    assert [row["account_id"] for row in found.kept_aside] == ["A3"]


def test_an_id_column_that_is_mostly_empty_is_a_problem(tmp_path) -> None:
    text = "account_id;account_name\nA1;a\n;b\n;c\n"
    config = reference_config(tmp_path, "accounts", text)
    assert any("is empty in 2 of 3 rows" in line for line in check(config))


def test_a_time_zone_of_the_text_counts_for_reference_data_too(tmp_path, machine_zone: str) -> None:
    text = "account_id;start_date;end_date\nA1;2025-01-01T05:00:00Z;2025-06-30T23:30:00-07:00\n"
    config = reference_config(tmp_path, "subscriptions", text)
    raw = yaml.safe_load(config.read_text(encoding="utf-8")) | {"timezone": "America/New_York"}
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    (row,) = read_reference(config, "subscriptions").rows
    assert (row["start_date"], row["end_date"]) == (date(2025, 1, 1), date(2025, 7, 1))
