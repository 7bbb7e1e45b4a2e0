"""An S3-compatible store over HTTP: only what is needed is listed and fetched, and each error is one clear sentence."""

import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.weeks import WeekFolder, weeks_between
from usage_pipeline.ingestion.facts import ingest_weeks, read_manifests
from usage_pipeline.ingestion.lake import Lake, LakeError
from usage_pipeline.ingestion.source_check import check_sources
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh
from usage_pipeline_tests.support.servers import free_port
from usage_pipeline_tests.support.stores import BUCKET, Store, started_store


@pytest.fixture
def store(tmp_path, monkeypatch) -> Iterator[Store]:
    yield from started_store(tmp_path, monkeypatch)


def config(tmp_path: Path, store: Store, path: str = f"s3://{BUCKET}/usage", **changes: Any) -> Settings:
    """A configuration over the store; `changes` replace top-level keys, `address` those of `store`."""
    columns = {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")}
    sources = {"usage": {"path": path, "partitioned": True, "columns": columns}}
    address = {"endpoint": store.url, "region": "us-east-1", "retry_seconds": 1} | changes.pop("address", {})
    return load_settings(write_config(tmp_path, **({"sources": sources, "store": address} | changes)))


def ingest(settings: Settings) -> None:
    ingest_weeks(settings, weeks_between(settings.clock.window_start, settings.clock.running_week), now="now")


def test_only_the_prefixes_of_the_window_are_ever_asked_for(tmp_path, store: Store) -> None:
    for week in weeks_between(date(2023, 1, 2), date(2025, 3, 3)):
        iso = week.isocalendar()
        write_week(tmp_path / "raw", f"year={iso.year}/week={iso.week:02d}", [event(str(week))])
    store.upload(tmp_path / "raw", "usage")
    store.forget()
    settings = config(tmp_path, store, lookback_weeks=4)
    ingest(settings)
    wanted = {f"year=2025/week={n:02d}" for n in range(6, 11)} | {f"year=2025/week={n}" for n in range(6, 11)}
    asked = [path.replace("%3D", "=").replace("%2F", "/") for _, path, _ in store.log()]
    assert asked
    assert [path for path in asked if not any(f"usage/{week}" in path for week in wanted)] == []
    assert len(read_manifests(settings.home.facts_dir)) == 5


def test_a_second_run_lists_and_reads_nothing(tmp_path, store: Store) -> None:
    write_week(tmp_path / "raw", "year=2025/week=06", [event("2025-02-03")])
    store.upload(tmp_path / "raw", "usage")
    settings = config(tmp_path, store)
    ingest(settings)
    store.forget()
    ingest(settings)
    assert all("list-type=2" in path for _, path, _ in store.log()), "listed, and no file opened"


@pytest.mark.long
def test_of_a_wide_file_only_the_mapped_columns_are_fetched(tmp_path, store: Store) -> None:
    rows, rng = 560_000, np.random.default_rng(1)
    columns: dict[str, Any] = {f"other_{n:02d}": rng.random(rows) for n in range(35)}
    columns |= {
        "account_id": np.char.mod("a%05d", rng.integers(0, 3000, rows)),
        "application": np.char.mod("p%02d", rng.integers(0, 20, rows)),
        "user_id": np.char.mod("u%06d", rng.integers(0, 50_000, rows)),
        "event_time": np.datetime64("2025-02-03") + rng.integers(0, 6, rows).astype("timedelta64[D]"),
        "clicks": rng.integers(1, 9, rows),
    }
    file = tmp_path / "raw" / "year=2025" / "week=06" / "wide.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), file, row_group_size=100_000)
    store.upload(tmp_path / "raw", "usage")
    store.forget()
    settings = config(tmp_path, store)
    ingest(settings)
    fetched = sum(size for method, path, size in store.log() if method == "GET" and "wide.parquet" in path)
    share = fetched / file.stat().st_size
    print(f"{fetched / 1e6:.1f} of {file.stat().st_size / 1e6:.1f} MB fetched: {share:.0%}")
    assert share < 0.25
    assert read_manifests(settings.home.facts_dir)[date(2025, 2, 3)].rows_kept == rows


@pytest.mark.long
def test_a_demo_lake_in_a_bucket_gives_the_same_pages_as_in_a_folder(
    tmp_path, store: Store, demo: Demo, instance
) -> None:
    store.upload(demo.folder / "lake", "demo")
    text = demo.configuration(f"s3://{BUCKET}/demo")
    (tmp_path / "sources.yaml").write_text(f"{text}\nstore: {{endpoint: '{store.url}', region: us-east-1}}\n")
    settings = load_settings(tmp_path / "sources.yaml")
    assert check_sources(settings).problems == []
    assert run_refresh(settings, instance).success

    def total(of: Settings) -> Any:
        path = of.home.published_dir / "current" / "warehouse.duckdb"
        connection = duckdb.connect(str(path), read_only=True)
        found = connection.execute(
            "SELECT count(*), sum(clicks), sum(active_users), sum(hash(account_id, application_key, week_start)) "
            "FROM mart.usage_by_week"
        ).fetchone()
        connection.close()
        return found

    assert total(settings) == total(demo.settings)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s3://nowhere/usage", "s3://nowhere: there is no such bucket; correct the path"),
        (f"s3://{BUCKET}/elsewhere", "holds no year=YYYY/week=WW folder"),
    ],
)
def test_a_wrong_place_is_one_clear_sentence(tmp_path, store: Store, path: str, said: str) -> None:
    problems = check_sources(config(tmp_path, store, path)).problems
    assert len(problems) == 1
    assert said in problems[0]


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("AccessDenied", 403, "access is denied; give these credentials the right to list and read it"),
        ("ExpiredToken", 400, "the credentials have expired; renew them"),
        ("SignatureDoesNotMatch", 403, "the secret key is wrong"),
    ],
)
def test_what_will_not_go_away_is_asked_once(tmp_path, store: Store, code: str, status: int, said: str) -> None:
    store.forget()
    store.refuse(status, code)
    started = time.monotonic()
    with pytest.raises(LakeError, match=said):
        Lake(config(tmp_path, store).store).week_files(f"s3://{BUCKET}/usage", "parquet", WeekFolder(2025, 6))
    assert len(store.log()) == 1
    assert time.monotonic() - started < 15


def test_what_may_go_away_is_tried_again(tmp_path, store: Store) -> None:
    write_week(tmp_path / "raw", "year=2025/week=06", [event("2025-02-03")])
    store.upload(tmp_path / "raw", "usage")
    store.refuse(503, "SlowDown", times=2)
    found = Lake(config(tmp_path, store).store).week_files(f"s3://{BUCKET}/usage", "parquet", WeekFolder(2025, 6)).files
    assert len(found) == 1


def test_a_store_that_does_not_answer_is_given_up_within_fifteen_seconds(tmp_path, store: Store) -> None:
    settings = config(tmp_path, store, address={"endpoint": f"http://127.0.0.1:{free_port()}"})
    started = time.monotonic()
    problems = check_sources(settings).problems
    assert time.monotonic() - started < 15
    assert "cannot be reached; check store.endpoint and the network" in problems[0]


def test_without_credentials_the_remedy_is_named(tmp_path, store: Store, monkeypatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    problems = check_sources(config(tmp_path, store)).problems
    assert "no credentials were found" in problems[0]


def test_credentials_of_the_configuration_come_from_the_environment(tmp_path, store: Store, monkeypatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("OUR_KEY", "k'ey")
    monkeypatch.setenv("OUR_SECRET", "secret")
    write_week(tmp_path / "raw", "year=2025/week=06", [event("2025-02-03")])
    store.upload(tmp_path / "raw", "usage")
    keys = {"access_key_id": "${OUR_KEY}", "secret_access_key": "${OUR_SECRET}"}
    settings = config(tmp_path, store, address=keys)
    ingest(settings)
    assert read_manifests(settings.home.facts_dir)[date(2025, 2, 3)].clicks == 1


def test_a_store_lost_while_reading_quarantines_no_file(tmp_path, store: Store) -> None:
    write_week(tmp_path / "raw", "year=2025/week=06", [event("2025-02-03")])
    store.upload(tmp_path / "raw", "usage")
    store.refuse(503, "SlowDown", but="list-type=2")
    settings = config(tmp_path, store)
    with pytest.raises(LakeError, match="SlowDown"):
        ingest(settings)
    assert read_manifests(settings.home.facts_dir) == {}


def test_a_file_that_may_not_be_read_is_quarantined_with_the_remedy(tmp_path, store: Store) -> None:
    write_week(tmp_path / "raw", "year=2025/week=06", [event("2025-02-03")])
    store.upload(tmp_path / "raw", "usage")
    store.refuse(403, "AccessDenied", but="list-type=2")
    settings = config(tmp_path, store)
    ingest(settings)
    (item,) = read_manifests(settings.home.facts_dir)[date(2025, 2, 3)].quarantined
    assert "access is denied; give these credentials the right to read it" in item["reason"]
