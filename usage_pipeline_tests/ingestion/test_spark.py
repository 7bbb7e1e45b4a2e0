"""The engine `spark`: what it refuses, how SQL is translated, and the same facts from a real standalone cluster.

The cluster's tests are heavy (`make soak`): they want `.venv-spark`, the client and Java 17, and say so where they skip.
"""

import datetime as dt
import importlib.util
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
import yaml

from benchmarks.lake import COLUMNS, FIRST_WEEK, write_lake
from usage_pipeline.config.settings import ConfigError, Settings, load_settings
from usage_pipeline.core.sql import load_sql
from usage_pipeline.core.weeks import WEEK, weeks_between
from usage_pipeline.demo.lake import write_demo_lake
from usage_pipeline.ingestion import spark_reader
from usage_pipeline.ingestion.facts import WeekManifest, facts_path, ingest_weeks, read_manifests
from usage_pipeline.ingestion.spark_reader import EngineError
from usage_pipeline.ingestion.spark_sql import SPACES, spark_sql
from usage_pipeline_tests.support.demo_home import DEMO_AS_OF
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.servers import free_port
from usage_pipeline_tests.support.spark_cluster import Cluster, running_cluster, spark_home
from usage_pipeline_tests.support.stores import BUCKET, Store

MAPPED = {c: c for c in COLUMNS}


def on_spark(config: Path, address: str, **more: Any) -> Settings:
    """A configuration with the other engine and a home of its own."""
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content |= {
        "home": "home-spark",
        "ingest": {"engine": "spark", "spark": {"connect": address, "wait_seconds": 120} | more},
    }
    file = config.with_name("spark.yaml")
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_settings(file)


def ingest(settings: Settings, say: Callable[[str], None] = print) -> dict[dt.date, WeekManifest | None]:
    weeks = weeks_between(settings.clock.window_start, settings.clock.running_week)
    return ingest_weeks(settings, weeks, now="now", progress=say).manifests


# ---------------------------------------------------------------- without a cluster


def test_sql_of_a_week_is_translated_and_parses_as_sparks() -> None:
    for name in ("usage_rows", "usage_counted"):
        sqlglot.parse_one(spark_sql(load_sql("ingestion", name)), read="spark")
    rows = spark_sql(load_sql("ingestion", "usage_rows"))
    assert "DATEDIFF(DAY, CAST(:week AS DATE), day)" in rows


def test_what_the_engines_would_read_differently_is_said_out_loud() -> None:
    # spaces of every kind, the place of nothing in an order, times without a zone, days of a time with one
    assert f"TRIM(BOTH '{SPACES}' FROM `a`)" in spark_sql('SELECT trim("a") FROM x')
    assert "ORDER BY day NULLS LAST" in spark_sql("SELECT row_number() OVER (PARTITION BY k ORDER BY day) FROM x")
    assert "TRY_CAST(`t` AS TIMESTAMP_NTZ)" in spark_sql('SELECT TRY_CAST("t" AS TIMESTAMP) FROM x')
    in_denver = "SELECT CAST(\"t\" AT TIME ZONE 'America/Denver' AS DATE) FROM x"
    assert "CAST(FROM_UTC_TIMESTAMP(`t`, 'America/Denver') AS DATE)" in spark_sql(in_denver)


def test_duckdb_takes_away_the_spaces_that_spark_is_told_of() -> None:
    every = [chr(n) for n in range(1, 0x10000) if not 0xD800 <= n < 0xE000]
    found = duckdb.execute("SELECT c FROM (SELECT unnest($every) AS c) WHERE trim(c) = ''", {"every": every}).fetchall()
    assert {row[0] for row in found} == set(SPACES)


def refused(folder: Path, ingest: dict[str, Any], **usage: Any) -> str:
    source = {"path": "lake", "partitioned": True, "columns": MAPPED} | usage
    with pytest.raises(ConfigError) as error:
        load_settings(write_config(folder, ingest=ingest, sources={"usage": source}))
    return str(error.value)


def test_mistakes_in_the_configuration_are_sentences_with_the_remedy(tmp_path) -> None:
    spark = {"engine": "spark", "spark": {"connect": "sc://somewhere:15002"}}
    assert "add spark: {connect: sc://host:15002}" in refused(tmp_path, {"engine": "spark"})
    assert "ingest.spark.connect" in refused(tmp_path, {"engine": "spark", "spark": {"connect": "spark://m:7077"}})
    assert "set tls: true" in refused(tmp_path, {"engine": "spark", "spark": {"connect": "sc://m", "token": "t"}})
    wanted = {
        "is CSV": {"format": "csv"},
        "is read whole": {"partitioned": False},
        "partition_timezone": {"partition_timezone": "Europe/Zurich"},
        "usage.columns.clicks is an expression": {"columns": MAPPED | {"clicks": {"sql": "a + b"}}},
        "usage.columns.clicks (earlier) is an expression": {
            "earlier": [{"until": "2025-01-05", "columns": {"clicks": {"sql": "a + b"}}}]
        },
        "takes for a pattern": {"path": "lake[1]"},
    }
    for why, usage in wanted.items():
        said = refused(tmp_path, spark, **usage)
        assert why in said and "needs the embedded engine" in said and "set ingest.engine: embedded" in said, said


def test_a_cluster_that_is_away_is_told_at_once_and_nothing_is_written(tmp_path) -> None:
    for week in range(6, 10):
        write_week(
            tmp_path / "lake", f"year=2025/week={week:02d}", [event(str(dt.date.fromisocalendar(2025, week, 1)))]
        )
    settings = on_spark(write_config(tmp_path), f"sc://127.0.0.1:{free_port()}")
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"week 2025-02-03: the Spark cluster at sc://127.* cannot be reached"):
        ingest(settings)
    assert time.monotonic() - started < 10
    assert read_manifests(settings.home.facts_dir) == {}


def test_where_the_client_is_not_installed_it_is_said_how_to(tmp_path) -> None:
    write_week(tmp_path / "lake", "year=2025/week=06", [event("2025-02-03")])
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = on_spark(write_config(tmp_path), f"sc://127.0.0.1:{server.getsockname()[1]}")
        away = mock.patch.dict(sys.modules, {"pyspark": None, "pyspark.errors": None})
        with away, pytest.raises(EngineError, match=r"make setup-spark, or pip install"):
            ingest(settings)


def test_a_run_with_nothing_to_read_asks_no_cluster(tmp_path) -> None:
    settings = on_spark(write_config(tmp_path), f"sc://127.0.0.1:{free_port()}")
    assert not any(ingest(settings).values())


# ---------------------------------------------------------------- with one


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if spark_home() is None or importlib.util.find_spec("pyspark") is None:
        pytest.skip("Spark is not installed: `make soak` installs it into .venv-spark, and the client beside the rest")
    if shutil.which("java") is None:
        pytest.skip("Java is missing: install it (Debian: apt-get install openjdk-17-jre-headless)")
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def must_be_identical(embedded: Settings, spark: Settings) -> dict[str, int]:
    """Facts to the row, their columns and types, rejected rows, manifests; what is compared is counted."""
    ours, theirs = read_manifests(embedded.home.facts_dir), read_manifests(spark.home.facts_dir)
    assert list(ours) == list(theirs)
    counted = {"weeks": len(ours), "facts": 0, "rejected": 0, "duplicates": 0}
    for week, manifest in ours.items():
        other = theirs[week]
        differ = {"seconds", "rejected_file", "ingested_at"}
        assert {k: v for k, v in vars(manifest).items() if k not in differ} == {
            k: v for k, v in vars(other).items() if k not in differ
        }
        assert manifest.lost is None
        counted["facts"] += same_rows(facts_path(embedded.home.facts_dir, week), facts_path(spark.home.facts_dir, week))
        counted["duplicates"] += manifest.duplicates
        assert (manifest.rejected_file is None) == (other.rejected_file is None)
        if manifest.rejected_file and other.rejected_file:
            files = embedded.home.history_dir / manifest.rejected_file, spark.home.history_dir / other.rejected_file
            counted["rejected"] += same_rows(*files)
    return counted


def same_rows(one: Path, other: Path) -> int:
    files = {"one": str(one), "other": str(other)}
    described = [duckdb.execute("DESCRIBE FROM read_parquet($f)", {"f": f}).fetchall() for f in files.values()]
    assert described[0] == described[1]
    for first, second in (("one", "other"), ("other", "one")):
        left = duckdb.execute(
            f"SELECT count(*) FROM (FROM read_parquet(${first}) EXCEPT ALL FROM read_parquet(${second}))", files
        ).fetchall()
        assert left == [(0,)], duckdb.execute(
            f"FROM read_parquet(${first}) EXCEPT ALL FROM read_parquet(${second}) LIMIT 5", files
        ).fetchall()
    return int(pq.read_metadata(one).num_rows)


def odd_rows(rng: np.random.Generator, monday: dt.date, count: int) -> list[dict[str, Any]]:
    """Rows of a week with about everything that may be wrong with one."""

    def pick(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    noon = dt.datetime.combine(monday, dt.time(12))
    rows = []
    for number in range(count):
        odd = rng.random() < 0.2
        moment = noon + dt.timedelta(days=int(rng.integers(-2, 8)), seconds=int(rng.integers(-43_000, 43_000)))
        row = {
            "account_id": pick("a", "b", "ä'\\", "c d"),
            "application": pick("p", "q"),
            "user_id": pick("u", "v", "w", None),
            "event_time": moment,
            "event_id": f"{monday}-{number}",
            "clicks": float(rng.integers(0, 5)),
            "records_created": int(rng.integers(0, 3)),
        }
        if odd:
            name = pick(*row)
            row[name] = {
                "account_id": pick(" a", "\u00a0a\u3000", "", " ", "\ta", None),
                "application": pick("p ", None, "\u2003"),
                "user_id": pick(" ", "\u00a0", "u "),
                "event_time": pick(None, moment + dt.timedelta(days=9), moment - dt.timedelta(days=12)),
                "event_id": pick(None, f"{monday}-{number // 2}", " ", f" {monday}-{number // 3}"),
                "clicks": pick(None, -1.0, 2.5, 2e9, 9.3e18, float("nan"), float("inf"), -0.0, 2.0**63),
                "records_created": pick(None, -1, 9 * 10**15, 2**62),
            }[name]
        rows.append(row)
    return rows


def odd_schema(time: pa.DataType) -> pa.Schema:
    text = {name: pa.string() for name in ("account_id", "application", "user_id", "event_id")}
    kinds = text | {"event_time": time, "clicks": pa.float64(), "records_created": pa.int64()}
    return pa.schema([(name, kinds[name]) for name in (*COLUMNS, "event_id")])


def odd_lake(folder: Path, time: pa.DataType, years: str = "iso") -> None:
    """Weeks around New Year of several files each, among them broken ones and some without a column."""
    rng = np.random.default_rng(11)
    for number in range(6):
        monday = dt.date(2024, 12, 9) + number * WEEK
        iso = monday.isocalendar()
        name = f"year={iso.year}/week={iso.week:02d}"
        if years == "calendar_year" and iso.week == 1:
            name = "year=2024/week=01"
        for part in range(3):
            table = pa.Table.from_pylist(odd_rows(rng, monday, 400), odd_schema(time))
            if part == 2:
                table = table.drop_columns(["records_created"] if number % 2 else ["user_id"])
            table = table.append_column(f"extra_{part % 2}", pa.nulls(len(table), pa.int32()))
            file = folder / name / f"part {part}%20+ä.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, file, row_group_size=150, write_page_checksum=number == 4)
        if number == 2:
            (folder / name / "broken.parquet").write_bytes(b"PAR1 no more")
        if number == 3:  # a footer that is sound, and a page that is not
            whole = bytearray(file.read_bytes())
            whole[60:400] = bytes(340)
            (folder / name / "rotten.parquet").write_bytes(whole)
        if number == 4:  # a value that was changed after it was written
            whole = bytearray(file.read_bytes())
            whole[len(whole) // 2] ^= 0xFF
            file.write_bytes(whole)


@pytest.mark.soak
@pytest.mark.parametrize("calendar", ["iso", "calendar_year"])
@pytest.mark.parametrize("time", [pa.timestamp("us"), pa.timestamp("ms", tz="UTC"), pa.date32()], ids=str)
def test_odd_weeks_are_read_alike(tmp_path, cluster: Cluster, time: pa.DataType, calendar: str) -> None:
    odd_lake(tmp_path / "lake", time, calendar)
    usage = {"path": "lake", "partitioned": True, "partition_calendar": calendar}
    usage |= {"columns": MAPPED | {"event_id": "EVENT_ID"}}
    config = write_config(tmp_path, sources={"usage": usage}, timezone="America/Denver")
    embedded, spark, said = load_settings(config), on_spark(config, cluster.address), []
    ingest(embedded)
    ingest(spark, said.append)
    counted = must_be_identical(embedded, spark)
    print(counted, *said, sep="\n")
    assert counted["rejected"] > 300 and counted["duplicates"] > 50
    # a file that Spark cannot read is named by the embedded engine; all other weeks came from the cluster
    left = [line for line in said if "left to the embedded engine" in line]
    assert sum(int(line.split()[0]) for line in left) == 2, said


@pytest.mark.soak
def test_types_that_engines_read_in_ways_of_their_own_are_left_to_the_embedded_one(tmp_path, cluster: Cluster) -> None:
    row = {
        "account_id": "a",
        "application": "p",
        "user_id": "u",
        "event_time": dt.datetime(2025, 2, 4),
        "clicks": "3.0",
    }
    write_week(tmp_path / "lake", "year=2025/week=06", [row])
    old = pa.Table.from_pylist([row | {"clicks": 2}])
    file = tmp_path / "lake" / "year=2025" / "week=07" / "part-0.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(old, file, use_deprecated_int96_timestamps=True)
    write_week(tmp_path / "lake", "year=2025/week=08", [row | {"clicks": 2}], "a.parquet")
    write_week(tmp_path / "lake", "year=2025/week=08", [row | {"clicks": 2.0}], "b.parquet")
    wrong = pa.array([b"a\xff"], pa.binary()).cast(pa.string(), safe=False)
    table = pa.table({"account_id": wrong} | {n: [v] for n, v in (row | {"clicks": 1}).items() if n != "account_id"})
    file = tmp_path / "lake" / "year=2025" / "week=09" / "part-0.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(table, file)
    config, said = write_config(tmp_path), []
    embedded, spark = load_settings(config), on_spark(config, cluster.address)
    ingest(embedded)
    ingest(spark, said.append)
    must_be_identical(embedded, spark)
    left = " ".join(line for line in said if "left to the embedded engine" in line)
    for why in ("clicks is VARCHAR", "'event_time' is a time of an old kind", "INVALID_UTF8_STRING"):
        assert why in left, left


@pytest.mark.soak
def test_the_demo_is_read_alike(tmp_path, cluster: Cluster) -> None:
    write_demo_lake(tmp_path, DEMO_AS_OF, accounts=60, seed=7)
    embedded, said = load_settings(tmp_path / "sources.yaml"), []
    spark = on_spark(tmp_path / "sources.yaml", cluster.address)
    ingest(embedded)
    ingest(spark, said.append)
    print(must_be_identical(embedded, spark), *said, sep="\n")
    assert not any("left to the embedded engine" in line for line in said)


def large_lake(folder: Path, events: int, weeks: int) -> Path:
    write_lake(folder / "lake", weeks=weeks, events_a_week=events // weeks)
    usage = {"path": "lake", "partitioned": True, "columns": MAPPED}
    as_of = (FIRST_WEEK + weeks * WEEK).isoformat()
    return write_config(folder, as_of=as_of, lookback_weeks=weeks, sources={"usage": usage})


@pytest.mark.soak
def test_25_million_events_are_read_alike(tmp_path, cluster: Cluster) -> None:
    config = large_lake(tmp_path, 25_000_000, 104)
    for settings in (embedded := load_settings(config), spark := on_spark(config, cluster.address)):
        started = time.monotonic()
        ingest(settings, lambda _: None)
        print(f"{settings.ingest.engine}: {time.monotonic() - started:.1f} s")
    print(must_be_identical(embedded, spark))


def while_reading(settings: Settings, weeks: int, do: Callable[[], None]) -> list[BaseException]:
    """Ingests, and does something once so many weeks are written; returns what was raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            ingest(settings)
        except BaseException as error:
            raised.append(error)

    reading = threading.Thread(target=run)
    reading.start()
    while reading.is_alive() and len(list(settings.home.facts_dir.glob("week=*/facts.parquet"))) < weeks:
        time.sleep(0.02)
    assert reading.is_alive(), "it was over before anything could be done"
    do()
    reading.join(600)
    assert not reading.is_alive()
    return raised


@pytest.mark.soak
def test_a_killed_worker_changes_nothing(tmp_path, cluster: Cluster) -> None:
    config = large_lake(tmp_path, 8_000_000, 40)
    embedded, spark = load_settings(config), on_spark(config, cluster.address)
    ingest(embedded)
    try:
        assert while_reading(spark, 8, lambda: cluster.kill("worker-0")) == []
        assert "Removed" in cluster.log("server") or "Lost executor" in cluster.log("server")
    finally:
        cluster.add_worker("worker-0")
    print(must_be_identical(embedded, spark))


@pytest.mark.soak
def test_a_server_that_goes_away_leaves_good_weeks_and_the_next_run_mends(tmp_path, cluster: Cluster) -> None:
    config = large_lake(tmp_path, 8_000_000, 40)
    embedded, spark = load_settings(config), on_spark(config, cluster.address)
    ingest(embedded)
    started = time.monotonic()
    try:
        raised = while_reading(spark, 8, lambda: cluster.kill("server"))
        took = time.monotonic() - started
    finally:
        cluster.start_server()
    print(f"{took:.0f} s: {raised}")
    assert (
        len(raised) == 1 and isinstance(raised[0], EngineError) and "went away while it was counting" in str(raised[0])
    )
    assert took < 120
    kept = {w: facts_path(spark.home.facts_dir, w).stat().st_mtime_ns for w in read_manifests(spark.home.facts_dir)}
    assert 8 <= len(kept) < 40
    ingest(spark)
    assert all(facts_path(spark.home.facts_dir, w).stat().st_mtime_ns == at for w, at in kept.items())
    print(must_be_identical(embedded, spark))


@pytest.mark.soak
def test_a_cluster_without_a_worker_is_given_up(tmp_path, cluster: Cluster) -> None:
    for week in range(6, 10):  # read side by side: the cluster is asked once, not for each of them
        write_week(
            tmp_path / "lake", f"year=2025/week={week:02d}", [event(str(dt.date.fromisocalendar(2025, week, 1)))]
        )
    with running_cluster(tmp_path / "idle", workers=0) as idle:
        settings = on_spark(write_config(tmp_path), idle.address, wait_seconds=15)
        started = time.monotonic()
        with pytest.raises(EngineError, match="has no worker free; start workers"):
            ingest(settings)
        assert time.monotonic() - started < 35


@pytest.mark.soak
def test_a_folder_that_only_this_machine_sees_is_told(tmp_path, cluster: Cluster, monkeypatch) -> None:
    # below /proc/self each process has a place of its own: the cluster's is another
    write_week(tmp_path / "lake", "year=2025/week=06", [event("2025-02-03")])
    monkeypatch.chdir(tmp_path)
    columns = {c: c for c in ("account_id", "application", "event_time")}
    usage = {"path": "/proc/self/cwd/lake", "partitioned": True, "columns": columns}
    settings = on_spark(write_config(tmp_path, sources={"usage": usage}), cluster.address)
    with pytest.raises(EngineError, match="does not see files of /proc/self/cwd/lake; server and workers must see"):
        ingest(settings)


@pytest.mark.soak
def test_a_cluster_without_the_connector_lacks_s3_access(tmp_path, cluster: Cluster, monkeypatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    write_week(tmp_path / "lake", "year=2025/week=06", [event("2025-02-03")])
    store = Store(tmp_path / "store")
    try:
        store.client.create_bucket(Bucket=BUCKET)
        store.upload(tmp_path / "lake", "usage")
        columns = {c: c for c in ("account_id", "application", "event_time")}
        usage = {"path": f"s3://{BUCKET}/usage", "partitioned": True, "columns": columns}
        config = write_config(tmp_path, sources={"usage": usage}, store={"endpoint": store.url})
        with pytest.raises(EngineError, match=r"lacks S3 access: it has no S3 connector for s3://.*; put hadoop-aws"):
            ingest(on_spark(config, cluster.address))
    finally:
        store.stop()


@pytest.mark.soak
def test_rejected_rows_beyond_what_is_gathered_are_written_by_the_embedded_engine(tmp_path, cluster: Cluster) -> None:
    odd_lake(tmp_path / "lake", pa.timestamp("us"))
    usage = {"path": "lake", "partitioned": True, "columns": MAPPED | {"event_id": "event_id"}}
    config = write_config(tmp_path, sources={"usage": usage})
    embedded, spark = load_settings(config), on_spark(config, cluster.address)
    ingest(embedded)
    with mock.patch.object(spark_reader, "_MOST_REJECTED", 10):
        ingest(spark)
    must_be_identical(embedded, spark)
