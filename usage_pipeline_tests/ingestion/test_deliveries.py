"""Deliveries that cannot be right: the one before stays in force, everybody can see why, and a person can accept."""

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import ConfigError, DeliverySettings, Settings, load_settings
from usage_pipeline.config.source_schemas import SOURCE_SCHEMAS
from usage_pipeline.core.weeks import weeks_between
from usage_pipeline.ingestion import deliveries as kept
from usage_pipeline.ingestion.deliveries import (
    SOURCES,
    Comparison,
    NoDeliveryError,
    deliveries,
    find_problems,
    read_held_back,
)
from usage_pipeline.ingestion.facts import ingest_weeks
from usage_pipeline.ingestion.reference import Delivery, load_reference, take_delivery
from usage_pipeline.notifications.alerts import LOOKED_AT, look, raise_alerts
from usage_pipeline.observability.status import write_status
from usage_pipeline.operations.backup import back_up, restore
from usage_pipeline.operations.erase import erase
from usage_pipeline_tests.support.fake_smtp import Webhook, serving_webhook
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh
from usage_pipeline_tests.support.stores import BUCKET, Store, started_store

# those that are delivered whole each time; outcomes of a CRM add to what came before
REFERENCE = ("accounts", "subscriptions", "contacts", "applications", "known_causes")
KEYED = REFERENCE[:4]
NOW = datetime(2025, 3, 5, 12, tzinfo=UTC)


def ident(number: int) -> str:
    return f"A{number:05d}"


def rows_of(source: str, count: int, start: int = 0) -> pd.DataFrame:
    """`count` rows of a source, each with a key of its own, numbered from `start`."""
    numbers = range(start, start + count)
    columns: dict[str, list[Any]] = {
        "accounts": {"account_id": [ident(n) for n in numbers], "account_name": [f"Town {n}" for n in numbers]},
        "subscriptions": {
            "account_id": [ident(n) for n in numbers],
            "application": ["permits" for _ in numbers],
            "start_date": ["2024-01-01" for _ in numbers],
        },
        "contacts": {
            "account_id": [ident(n) for n in numbers],
            "user_id": [f"u{n}" for n in numbers],
            "email": [f"person{n}@town.example" for n in numbers],
        },
        "applications": {
            "application": [f"app{n}" for n in numbers],
            "application_name": [f"App {n}" for n in numbers],
        },
        "known_causes": {
            "first_day": [str(date(2025, 1, 1) + timedelta(days=n)) for n in numbers],
            "cause": [f"snow {n}" for n in numbers],
        },
    }[source]
    return pd.DataFrame(columns)


class Lab:
    """A configuration with one reference source, which is delivered again and again."""

    def __init__(self, folder: Path, source: str = "accounts", file_format: str = "csv", **more: Any) -> None:
        self.folder, self.source, self.format = folder, source, file_format
        self.file = folder / f"{source}.{file_format}"
        self.columns = {name: name for name in rows_of(source, 0).columns}
        self.described = {"path": self.file.name, "format": file_format, "columns": self.columns} | more
        self.configure()

    def configure(self, **changes: Any) -> None:
        usage = {
            "path": "lake",
            "partitioned": True,
            "columns": {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")},
        }
        sources = {"usage": usage, self.source: self.described | changes.pop("source", {})}
        self.config = write_config(self.folder, **({"sources": sources} | changes))
        self.settings = load_settings(self.config)

    def use(self, accounts: int, applications: int = 1) -> None:
        """Usage of so many accounts, each of so many applications, in one week on record."""
        found = [
            event("2025-02-25", ident(number), f"app{application}" if applications > 1 else "permits")
            for number in range(accounts)
            for application in range(applications)
        ]
        write_week(self.folder / "lake", "year=2025/week=09", found)
        weeks = weeks_between(self.settings.clock.window_start, self.settings.clock.running_week)
        ingest_weeks(self.settings, weeks, now="2025-03-05T00:00:00")

    def deliver(self, rows: pd.DataFrame | int, day: str = "2025-03-05", start: int = 0) -> Delivery:
        """Puts rows in the place of what was delivered before, and takes them on a day."""
        rows = rows_of(self.source, rows, start) if isinstance(rows, int) else rows
        if self.format == "csv":
            rows.to_csv(self.file, index=False)
        else:
            rows.to_parquet(self.file)
        return self.take(day)

    def take(self, day: str = "2025-03-05") -> Delivery:
        self.settings = load_settings(self.config, as_of=date.fromisoformat(day))
        return take_delivery(self.settings, SOURCE_SCHEMAS[self.source])

    def loaded(self, delivery: Delivery) -> int:
        with duckdb.connect() as connection:
            connection.execute("CREATE SCHEMA ref; CREATE SCHEMA personal")
            return load_reference(connection, SOURCE_SCHEMAS[self.source], delivery).rows

    def usage_pipeline(self, *arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["deliveries", *arguments, "-c", str(self.config)])
        return done.exit_code, done.output

    @property
    def in_force(self) -> list[Path]:
        return deliveries(self.settings.home.history_dir, self.source)

    @property
    def held(self) -> list[Path]:
        return kept.held_back_files(self.settings.home.history_dir, self.source)


# ---------------------------------------------------------------- what is held back


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (3, "it has 3 rows, 10 % of the 31 before (70 % to 200 % are taken)"),
        (0, "it has no row, 0 % of the 31 before"),
        (21, "it has 21 rows, 68 % of the 31 before"),
        (63, "it has 63 rows, 203 % of the 31 before"),
        (90, "it has 90 rows, 290 % of the 31 before"),
    ],
)
@pytest.mark.parametrize("source", REFERENCE)
@pytest.mark.sample(every=8)
def test_a_delivery_that_is_cut_off_or_swollen_is_held_back_and_the_one_before_stays(
    tmp_path, source: str, rows: int, said: str, file_format: str
) -> None:
    lab = Lab(tmp_path, source, file_format)
    assert lab.deliver(31, "2025-02-26").held_back is None
    delivery = lab.deliver(rows)
    assert delivery.held_back is not None
    assert said in delivery.held_back
    assert "the delivery of Mar 5, 2025 is held back: " in delivery.held_back
    assert "the one of Feb 26, 2025 stays in force" in delivery.held_back
    assert f"`usage-pipeline deliveries accept {source}`" in delivery.held_back
    assert (delivery.rows, delivery.is_new, lab.loaded(delivery)) == (31, False, 31)
    assert [delivery.file] == lab.in_force
    assert [pq.read_metadata(file).num_rows for file in lab.held] == [rows], "kept as it came"


@pytest.mark.parametrize(
    ("before", "rows", "start"),
    [
        (31, 22, 0),
        (31, 62, 0),
        (31, 31, 6),
        (30, 21, 0),
        (19, 3, 0),
        (19, 90, 0),
        (19, 0, 0),
        (19, 19, 500),
        (1, 31, 0),
    ],
)
def test_what_can_be_right_is_taken(tmp_path, before: int, rows: int, start: int) -> None:
    # 22 of 31 are 71 %, but 9 keys of 31 would be gone: known causes have no keys
    lab = Lab(tmp_path, "known_causes" if rows in (21, 22) else "accounts")
    lab.deliver(before, "2025-02-26")
    delivery = lab.deliver(rows, start=start)
    assert delivery.held_back is None
    assert (delivery.rows, delivery.is_new, lab.loaded(delivery)) == (rows, True, rows)
    assert not lab.held


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_first_delivery_is_taken_however_small(tmp_path, rows: int) -> None:
    lab = Lab(tmp_path)
    delivery = lab.deliver(rows)
    assert (delivery.held_back, delivery.rows, lab.loaded(delivery)) == (None, rows, rows)


@pytest.mark.parametrize("source", KEYED)
def test_a_delivery_of_other_keys_is_held_back(tmp_path, source: str) -> None:
    lab = Lab(tmp_path, source)
    lab.deliver(31)
    said = lab.deliver(31, start=7).held_back or ""
    assert "7 of the 31 keys before are gone" in said
    examples = {"applications": "app0, app1, app2", "contacts": ""}.get(source, "A00000, A00001, A00002")
    assert (f"such as {examples} (up to 20 % may be)" in said) == bool(examples), "people are never named"
    assert "u0" not in said
    assert lab.deliver(31, start=6).held_back is None


def test_of_known_causes_only_the_rows_are_compared(tmp_path) -> None:
    lab = Lab(tmp_path, "known_causes")
    lab.deliver(31)
    assert lab.deliver(31, start=500).held_back is None


def test_a_new_person_of_an_account_is_a_new_key_and_another_account_of_theirs_is_too(tmp_path) -> None:
    lab = Lab(tmp_path, "contacts")
    lab.deliver(31)
    moved = rows_of("contacts", 31)
    moved["account_id"] = ident(500)
    assert "31 of the 31 keys before are gone" in (lab.deliver(moved).held_back or "")


@pytest.mark.parametrize("source", ["accounts", "subscriptions", "contacts"])
@pytest.mark.parametrize("count", [12, 24])
def test_ids_that_lost_their_zeros_are_held_back(tmp_path, source: str, count: int) -> None:
    """Twelve accounts had become twenty-four, all of them never adopted."""
    lab = Lab(tmp_path, source, "parquet")
    lab.use(count)
    rows = rows_of(source, count)
    lab.deliver(rows)
    rows["account_id"] = list(range(count))
    said = lab.deliver(rows).held_back or ""
    ids = "accounts and applications" if source == "subscriptions" else "accounts"
    assert f"it knows 0 % of the {count} {ids} in use, the one before 100 %" in said
    assert ("keys before are gone" in said) == (count >= 20)


@pytest.mark.parametrize("source", ["subscriptions", "applications"])
def test_applications_that_are_written_in_another_way_are_held_back(tmp_path, source: str) -> None:
    lab = Lab(tmp_path, source)
    lab.use(3, applications=8)
    rows = pd.concat([rows_of(source, 3).assign(application=f"app{n}") for n in range(8)])
    rows = rows.drop_duplicates(["application"]) if source == "applications" else rows
    lab.deliver(rows)
    rows["application"] = rows["application"].str.upper()
    assert "it knows 0 % of the" in (lab.deliver(rows).held_back or "")


def test_a_subscription_to_the_whole_account_knows_all_of_its_applications(tmp_path) -> None:
    lab = Lab(tmp_path, "subscriptions")
    lab.use(5, applications=8)
    lab.deliver(pd.concat([rows_of("subscriptions", 5).assign(application=f"app{n}") for n in range(8)]))
    whole = pd.concat(
        [rows_of("subscriptions", 5).assign(application=None, start_date=f"202{n}-01-01") for n in range(6)]
    )
    assert lab.deliver(whole).held_back is None


_LIMITS = DeliverySettings()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Comparison(31, 31, in_use=30, matched_before=27, matched=21), []),
        (Comparison(31, 31, in_use=30, matched_before=27, matched=20), ["it knows 67 % of the 30"]),
        (Comparison(31, 31, in_use=19, matched_before=19, matched=1), []),
        (Comparison(31, 31, in_use=19, matched_before=19, matched=0), ["it knows 0 % of the 19"]),
        (Comparison(31, 31, in_use=19, matched_before=2, matched=0), []),
        (Comparison(31, 31, in_use=30, matched_before=0, matched=0), []),
        (Comparison(31, 31, in_use=30, matched_before=10, matched=30), []),
        (Comparison(20, 14, 20, 4), []),
        (Comparison(20, 14, 20, 5), ["5 of the 20 keys"]),
        (Comparison(20, 13, 20, 7), ["it has 13 rows", "7 of the 20 keys"]),
        (Comparison(19, 13, 19, 7), []),
        (Comparison(0, 0), []),
        (Comparison(0, 500), []),
    ],
)
def test_the_limits_are_where_they_are_said_to_be(found: Comparison, said: list[str]) -> None:
    problems = find_problems(_LIMITS, found)
    assert [problem for problem, words in zip(problems, said, strict=True) if words not in problem] == []


def test_each_source_has_limits_of_its_own(tmp_path) -> None:
    lab = Lab(tmp_path, deliveries={"min_share": 0.05, "max_keys_gone": 0.95})
    lab.deliver(31)
    assert lab.deliver(3).held_back is None
    lab.configure(source={"deliveries": {"min_rows": 3}})
    assert "it has no row" in (lab.deliver(0).held_back or "")


@pytest.mark.parametrize(
    ("source", "limits", "said"),
    [
        (
            "accounts",
            {"min_rows": 0},
            "sources.accounts.deliveries.min_rows: Input should be greater than or equal to 1",
        ),
        (
            "accounts",
            {"min_share": 1.5},
            "sources.accounts.deliveries.min_share: Input should be less than or equal to 1",
        ),
        (
            "accounts",
            {"max_share": 0.5},
            "sources.accounts.deliveries.max_share: Input should be greater than or equal",
        ),
        (
            "accounts",
            {"min_shares": 0.5},
            "sources.accounts.deliveries.min_shares: unknown key (did you mean min_share?)",
        ),
        ("usage", {"min_share": 0.5}, "usage.deliveries: only deliveries of reference sources are held back"),
    ],
)
def test_a_wrong_limit_is_one_sentence(tmp_path, source: str, limits: dict[str, Any], said: str) -> None:
    lab = Lab(tmp_path)
    content = yaml.safe_load(lab.config.read_text(encoding="utf-8"))
    content["sources"][source]["deliveries"] = limits
    lab.config.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_settings(lab.config)
    assert said in "\n".join(raised.value.problems)


def test_limits_of_reference_sources_and_facts_have_nothing_to_do_with_each_other(tmp_path) -> None:
    from usage_pipeline.ingestion.facts import mapping_fingerprint

    settings = Lab(tmp_path).settings
    assert "min_rows" not in mapping_fingerprint(settings.sources.usage, settings.timezone, settings.completeness)


# ---------------------------------------------------------------- again, and good again


def test_the_same_delivery_again_stays_held_back_for_the_same_reason_and_is_kept_once(tmp_path) -> None:
    lab = Lab(tmp_path)
    lab.deliver(31, "2025-02-26")
    first, files = lab.deliver(3, "2025-03-05").held_back, lab.held
    written = files[0].stat().st_mtime_ns
    assert lab.take("2025-03-06").held_back == first
    assert lab.held == files
    assert files[0].stat().st_mtime_ns == written
    lab.deliver(4, "2025-03-07")
    (newest,) = lab.held
    assert pq.read_metadata(newest).num_rows == 4, "only the newest is kept"


@pytest.mark.parametrize("rows", [31, 33], ids=["as it was before", "a new one"])
def test_a_delivery_that_is_fine_again_clears_what_was_held_back(tmp_path, rows: int) -> None:
    lab = Lab(tmp_path)
    lab.deliver(31)
    lab.deliver(3)
    assert read_held_back(lab.settings.home.history_dir, lab.settings.sources, "accounts") is not None
    delivery = lab.deliver(rows)
    assert (delivery.held_back, delivery.rows) == (None, rows)
    assert read_held_back(lab.settings.home.history_dir, lab.settings.sources, "accounts") is None
    assert not lab.held
    assert len(lab.in_force) == (1 if rows == 31 else 2)


def test_a_cut_off_delivery_does_not_become_the_measure_of_the_next(tmp_path) -> None:
    """Thirty-one subscriptions had become three, then none, and both were published."""
    lab = Lab(tmp_path, "subscriptions")
    lab.deliver(31)
    lab.deliver(3)
    assert "it has no row, 0 % of the 31 before" in (lab.deliver(0).held_back or "")


def test_where_the_mapping_no_longer_fits_the_delivery_before_only_rows_are_compared(tmp_path) -> None:
    lab = Lab(tmp_path)
    lab.deliver(31)
    lab.configure(source={"columns": {"account_id": "id"}})
    renamed = rows_of("accounts", 31, start=500).rename(columns={"account_id": "id"})
    assert lab.deliver(renamed).held_back is None
    with pytest.raises(NoDeliveryError, match="The one in force cannot be read as configured now"):
        lab.configure(source={"columns": {"account_id": "key"}})
        lab.deliver(renamed.head(3).rename(columns={"id": "key"}))


# ---------------------------------------------------------------- missing


def _no_file(lab: Lab) -> None:
    lab.file.unlink()


def _empty_folder(lab: Lab) -> None:
    lab.file.unlink()
    lab.file.mkdir()


def _broken(lab: Lab) -> None:
    lab.file.write_bytes(b"\x00\xff" * 40)


def _cut_in_two(lab: Lab) -> None:
    content = lab.file.read_bytes()
    lab.file.write_bytes(content[: len(content) // 2])


def _other_columns(lab: Lab) -> None:
    rows = rows_of("accounts", 31).rename(columns={"account_id": "customer"})
    rows.to_parquet(lab.file) if lab.format == "parquet" else rows.to_csv(lab.file, index=False)


@pytest.mark.parametrize(
    ("file_format", "spoil", "said"),
    [
        ("csv", _no_file, "no such file or folder"),
        ("parquet", _no_file, "no such file or folder"),
        ("csv", _empty_folder, "holds no csv file"),
        ("parquet", _empty_folder, "holds no parquet file"),
        ("parquet", _broken, "cannot be read"),
        ("parquet", _cut_in_two, "cannot be read"),
        ("csv", _other_columns, "there is no column 'account_id'"),
        ("parquet", _other_columns, "there is no column 'account_id'"),
    ],
)
def test_a_source_that_is_missing_for_a_day_leaves_the_delivery_before_in_force(
    tmp_path, file_format: str, spoil: Any, said: str
) -> None:
    lab = Lab(tmp_path, "accounts", file_format)
    lab.deliver(31, "2025-02-26")
    spoil(lab)
    delivery = lab.take("2025-03-05")
    assert delivery.held_back is not None
    assert delivery.held_back.startswith("no delivery since Mar 5, 2025: ")
    assert said in delivery.held_back
    assert delivery.held_back.endswith("the one of Feb 26, 2025 stays in force; deliver it again")
    assert "\n" not in delivery.held_back
    assert lab.loaded(delivery) == 31
    assert lab.take("2025-03-06").held_back == delivery.held_back, "since the same day"
    shutil.rmtree(lab.file) if lab.file.is_dir() else lab.file.unlink(missing_ok=True)
    assert lab.deliver(31, "2025-03-07").held_back is None
    assert read_held_back(lab.settings.home.history_dir, lab.settings.sources, "accounts") is None


def test_an_expression_that_fails_on_a_row_holds_the_delivery_back_without_repeating_the_value(tmp_path) -> None:
    lab = Lab(
        tmp_path, "contacts", "parquet", columns={"account_id": "account_id", "user_id": {"sql": "CAST(n AS INT)"}}
    )
    rows = rows_of("contacts", 31).assign(n=[str(n) for n in range(31)])
    lab.deliver(rows)
    rows.loc[7, "n"] = "anna"
    said = lab.deliver(rows).held_back or ""
    assert "Could not convert string" in said
    assert "anna" not in said


def test_what_was_held_back_before_a_source_went_missing_can_still_be_accepted(tmp_path) -> None:
    lab = Lab(tmp_path)
    lab.deliver(31, "2025-02-26")
    lab.deliver(3, "2025-03-05")
    lab.file.unlink()
    said = lab.take("2025-03-06").held_back or ""
    assert said.startswith("no delivery since Mar 6, 2025: ")
    assert "the delivery of Mar 5, 2025 is held back: it has 3 rows" in said
    assert lab.usage_pipeline("accept", "accounts")[0] == 0
    delivery = lab.take("2025-03-07")
    assert (delivery.rows, len(lab.in_force)) == (3, 2)
    assert "the one of Mar 5, 2025 stays in force" in (delivery.held_back or "")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        yield from started_store(tmp_path_factory.mktemp("s3"), patch)


def lab_in(store: Store, folder: Path, source: str, file_format: str) -> Lab:
    """A source that is a folder of one file in a bucket; `deliver` writes it to a file that `put` sends there."""
    lab = Lab(folder, source, file_format)
    lab.described["path"] = f"s3://{BUCKET}/{folder.name}/{source}"
    lab.configure(store={"endpoint": store.url, "region": "us-east-1"})
    return lab


def put(store: Store, lab: Lab, rows: int) -> Delivery:
    frame = rows_of(lab.source, rows)
    frame.to_csv(lab.file, index=False) if lab.format == "csv" else frame.to_parquet(lab.file)
    store.client.upload_file(str(lab.file), BUCKET, f"{lab.folder.name}/{lab.source}/part.{lab.format}")
    return lab.take()


@pytest.mark.long
@pytest.mark.parametrize(("source", "file_format"), zip(REFERENCE, ["csv", "parquet"] * 3, strict=False))
@pytest.mark.sample("subscriptions-parquet")
def test_the_same_holds_in_a_bucket(tmp_path, store: Store, source: str, file_format: str) -> None:
    lab = lab_in(store, tmp_path, source, file_format)
    assert put(store, lab, 31).held_back is None
    for rows in (3, 0, 90):
        delivery = put(store, lab, rows)
        assert "of the 31 before" in (delivery.held_back or "")
        assert lab.loaded(delivery) == 31
    store.client.delete_object(Bucket=BUCKET, Key=f"{tmp_path.name}/{source}/part.{file_format}")
    assert f"s3://{BUCKET}/{tmp_path.name}/{source}: holds no {file_format} file" in (lab.take().held_back or "")
    assert put(store, lab, 32).held_back is None


def test_a_store_that_refuses_or_is_away_leaves_the_delivery_before_in_force(tmp_path, store: Store) -> None:
    lab = lab_in(store, tmp_path, "subscriptions", "parquet")
    put(store, lab, 31)
    store.refuse(403, "AccessDenied")
    try:
        assert "access is denied" in (lab.take().held_back or "")
    finally:
        (store.folder / "answer.json").unlink()
    lab.configure(store={"endpoint": "http://127.0.0.1:9", "region": "us-east-1", "retry_seconds": 1})
    assert "cannot be reached" in (lab.take().held_back or "")


# ---------------------------------------------------------------- a first run


def test_a_source_that_is_missing_in_a_first_run_is_one_sentence(tmp_path, instance) -> None:
    lab = Lab(tmp_path)
    result = run_refresh(lab.settings, instance, only=["accounts"])
    assert not result.success
    error = result.failure_data_for_node("accounts").error
    assert error.cls_name == "Failure"
    assert error.cause is None
    write_status(lab.settings.home, lab.settings.clock, lab.settings.sources, instance)
    with duckdb.connect(str(lab.settings.home.status_path), read_only=True) as connection:
        (failure,) = connection.execute("SELECT failure FROM status.runs").fetchall()[0]
    assert failure == (
        "accounts: no delivery of accounts can be read, and there is none before it: accounts.csv: no such file or "
        "folder. Deliver it, or take sources.accounts out of the configuration"
    )


@pytest.mark.long
def test_the_command_says_it_in_a_few_lines_and_writes_the_status(tmp_path) -> None:
    """It was a traceback of 63 lines."""
    lab = Lab(tmp_path)
    lab.file.with_name("lake").mkdir()
    command = [sys.executable, "-m", "usage_pipeline.cli", "refresh", "-c", str(lab.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Traceback" not in output
    assert output.count("no such file or folder") == 1
    assert len(output.splitlines()) < 20
    assert lab.settings.home.status_path.exists()


def test_a_first_delivery_without_a_row_is_taken_and_noted(tmp_path, instance) -> None:
    lab = Lab(tmp_path)
    rows_of("accounts", 0).to_csv(lab.file, index=False)
    assert run_refresh(lab.settings, instance, only=["accounts"]).success
    found = instance.get_latest_materialization_event(dg.AssetKey("accounts")).asset_materialization
    assert found.metadata["dagster/row_count"].value == 0
    assert "the delivery of accounts holds no row" in found.metadata["notes"].value[0]


# ---------------------------------------------------------------- accepting


def test_an_accepted_delivery_is_in_force_at_the_next_run(tmp_path) -> None:
    lab = Lab(tmp_path)
    lab.deliver(31, "2025-02-26")
    lab.deliver(3, "2025-03-05")
    assert (
        "accounts: in force is the delivery of Feb 26, 2025, 31 rows; 1 delivery kept" in lab.usage_pipeline("list")[1]
    )
    assert "the delivery of Mar 5, 2025 is held back: it has 3 rows" in lab.usage_pipeline("list")[1]
    inputs = lab.settings.home.root / "inputs"
    inputs.write_text("what the last good run depended on")
    status, said = lab.usage_pipeline("accept", "accounts")
    assert (status, inputs.exists()) == (0, False), "a refresh --if-changed runs"
    assert "is in force; `usage-pipeline refresh` brings it onto the pages" in said
    delivery = lab.take("2025-03-06")
    assert (delivery.held_back, delivery.rows, delivery.is_new) == (None, 3, False)
    assert lab.loaded(delivery) == 3
    assert [pq.read_metadata(file).num_rows for file in lab.in_force] == [31, 3]
    said = lab.usage_pipeline("list")[1]
    assert "accounts: in force is the delivery of Mar 5, 2025, 3 rows; 2 deliveries kept" in said
    assert "held back" not in said
    assert "contacts: not configured" in said


def test_what_cannot_be_accepted_is_one_sentence(tmp_path) -> None:
    lab = Lab(tmp_path)
    lab.deliver(31)
    for name, said in (
        ("accounts", "nothing of accounts is held back: there is nothing to accept"),
        ("known_causes", "nothing of known causes is held back"),
        ("accunts", "'accunts' is no reference source: name one of accounts, subscriptions"),
    ):
        status, output = lab.usage_pipeline("accept", name)
        assert (status, output.count("\n")) == (1, 1)
        assert said in output
    lab.file.unlink()
    lab.take()
    status, output = lab.usage_pipeline("accept", "accounts")
    assert status == 1
    assert "there is nothing to accept of accounts: no delivery since" in output


def test_an_acceptance_that_was_killed_half_way_has_happened(tmp_path) -> None:
    lab = Lab(tmp_path)
    lab.deliver(31)
    lab.deliver(3)
    (file,) = lab.held
    file.replace(file.parents[1] / file.name)
    assert read_held_back(lab.settings.home.history_dir, lab.settings.sources, "accounts") is None
    delivery = lab.take()
    assert (delivery.rows, delivery.held_back) == (3, None)
    assert not file.parent.exists()


def test_what_is_held_back_is_part_of_a_backup(tmp_path) -> None:
    lab = Lab(tmp_path)
    lab.deliver(31)
    said = lab.deliver(3).held_back
    archive = io.BytesIO()
    back_up(lab.settings.home, lab.settings.ingest.wait_seconds, archive)
    archive.seek(0)
    restore(tmp_path / "elsewhere", archive)
    elsewhere = load_settings(
        write_config(tmp_path, home="elsewhere", sources=yaml.safe_load(lab.config.read_text())["sources"])
    )
    assert str(read_held_back(elsewhere.home.history_dir, elsewhere.sources, "accounts")) == said


# ---------------------------------------------------------------- people


@pytest.mark.long
def test_erased_people_do_not_count_as_gone(tmp_path) -> None:
    lab = Lab(tmp_path, "contacts")
    lab.deliver(31)
    for number in range(12):
        erase(lab.settings, ident(number), f"u{number}")
    delivery = lab.deliver(31, start=12)
    assert delivery.held_back is None, "31 new rows beside 19, none of which is gone"
    assert "of the 31 before" in (lab.deliver(3, start=12).held_back or "")


@pytest.mark.long
def test_an_erasure_reaches_what_is_held_back(tmp_path) -> None:
    lab = Lab(tmp_path, "contacts", "parquet")
    lab.deliver(31)
    lab.deliver(3)
    seen = erase(lab.settings, ident(1), "u1", dry=True)
    assert seen.places == {"contacts as delivered (history)": 2}
    assert erase(lab.settings, ident(1), "u1").places == {"contacts as delivered (history)": 2}
    for file in (*lab.in_force, *lab.held):
        assert "u1" not in pq.read_table(file)["user_id"].to_pylist()
    assert all(b"person1@" not in f.read_bytes() for f in lab.settings.home.root.rglob("*") if f.is_file())
    assert "it has 2 rows, 7 % of the 30 before" in (lab.take().held_back or "")
    assert lab.usage_pipeline("accept", "contacts")[0] == 0
    assert lab.loaded(lab.take()) == 2


# ---------------------------------------------------------------- alerts


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with serving_webhook() as found:
        yield found


def test_each_source_is_told_once_when_it_is_held_back_and_once_when_that_is_over(tmp_path, hook: Webhook) -> None:
    lab = Lab(tmp_path)
    subscriptions = tmp_path / "subscriptions.csv"
    columns = {c: c for c in rows_of("subscriptions", 0).columns}
    described = {"path": subscriptions.name, "format": "csv", "columns": columns}
    content = yaml.safe_load(lab.config.read_text(encoding="utf-8"))
    content["sources"]["subscriptions"] = described
    content["mail"] = {"webhook": hook.url}
    lab.config.write_text(yaml.safe_dump(content), encoding="utf-8")

    def deliver(accounts: int, rows: int) -> list[tuple[str, str]]:
        rows_of("subscriptions", rows).to_csv(subscriptions, index=False)
        lab.deliver(accounts)
        take_delivery(lab.settings, SOURCE_SCHEMAS["subscriptions"])
        before, settings = len(hook.bodies), lab.settings
        for _ in range(2):
            findings = [f for f in look(lab.settings, NOW) if f.about in ("accounts", "subscriptions")]
            raise_alerts(settings.home, settings.mail, settings.notify, settings.name, findings, LOOKED_AT, NOW, print)
        return [(body["about"], body["state"]) for body in hook.bodies[before:]]

    with dg.DagsterInstance.ephemeral() as made:
        write_status(lab.settings.home, lab.settings.clock, lab.settings.sources, made)
    assert deliver(31, 31) == []
    assert deliver(31, 3) == [("subscriptions", "open")]
    assert "it has 3 rows, 10 % of the 31 before" in hook.bodies[-1]["text"]
    assert "usage-pipeline deliveries accept subscriptions" in hook.bodies[-1]["text"]
    assert deliver(3, 3) == [("accounts", "open")]
    assert deliver(0, 0) == []
    assert deliver(31, 0) == [("accounts", "over")]
    assert deliver(31, 31) == [("subscriptions", "over")]


# ---------------------------------------------------------------- the whole graph


def query(file: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(file.resolve()), read_only=True) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, dg.DagsterInstance]]:
    """A good run, and one after which subscriptions are cut off while accounts know one more that uses something."""
    folder = tmp_path_factory.mktemp("graph")
    weeks = [date(2025, 1, 27) + timedelta(days=7 * n) for n in range(5)]
    for week in weeks:
        used = [event(str(week), ident(n), user=f"u{n}", clicks=5) for n in range(31)]
        write_week(folder / "lake", f"year=2025/week={week.isocalendar().week:02d}", used)
    sources: dict[str, Any] = {}
    for source in ("accounts", "subscriptions"):
        rows_of(source, 31).to_csv(folder / f"{source}.csv", index=False)
        columns = {c: c for c in rows_of(source, 0).columns}
        sources[source] = {"path": f"{source}.csv", "format": "csv", "columns": columns}
    config = write_config(folder)
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content["sources"] |= sources
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    settings = load_settings(config)
    with dg.DagsterInstance.ephemeral() as made:
        assert run_refresh(settings, made).success
        write_status(settings.home, settings.clock, settings.sources, made)
        assert query(settings.home.status_path, "SELECT count(*) FROM status.sources WHERE held_back IS NOT NULL") == [
            (0,)
        ]
        rows_of("subscriptions", 3).to_csv(folder / "subscriptions.csv", index=False)
        rows_of("accounts", 32).to_csv(folder / "accounts.csv", index=False)
        write_week(folder / "lake", "year=2025/week=09", [event(str(weeks[-1]), ident(31))], "part-1.parquet")
        assert run_refresh(settings, made).success
        write_status(settings.home, settings.clock, settings.sources, made)
        yield settings, made


@pytest.mark.long
def test_pages_keep_the_subscriptions_of_the_delivery_before(cut_off: tuple[Settings, dg.DagsterInstance]) -> None:
    build = cut_off[0].home.published_dir / "current" / "warehouse.duckdb"
    states = "SELECT subscription_state, is_inferred, count(*) FROM mart.subscription_overview GROUP BY ALL ORDER BY 2"
    # the new account waits for its subscription: it uses something, and is taken to be subscribed since then
    assert query(build, states) == [("active subscription", False, 31), ("active subscription", True, 1)]
    ((sentence,),) = query(build, "SELECT sentence FROM mart.build")
    assert "Held back: subscriptions; those of Mar 5, 2025 are shown." in sentence


@pytest.mark.long
def test_the_status_says_what_is_held_back_and_why(cut_off: tuple[Settings, dg.DagsterInstance]) -> None:
    file = cut_off[0].home.status_path
    ((summary, sentence),) = query(file, "SELECT summary, health_sentence FROM status.health")
    assert summary == "A delivery is held back: the one before stays in force"
    assert "Subscriptions: the delivery of Mar 5, 2025 is held back: it has 3 rows, 10 % of the 31 before" in sentence
    rows = query(file, "SELECT source, delivery, rows_kept, held_back FROM status.sources WHERE rows_kept IS NOT NULL")
    found = {source: (delivery, rows, said) for source, delivery, rows, said in rows}
    assert found["accounts"] == ("delivered", 32, None)
    assert found["subscriptions"][:2] == ("held back", 31)
    assert "`usage-pipeline deliveries accept subscriptions`" in found["subscriptions"][2]
    checks = query(file, "SELECT statement, check_result FROM status.checks WHERE statement LIKE '%delivery is taken'")
    assert {statement for statement, result in checks if result == "warns"} == {"subscriptions delivery is taken"}
    assert len(checks) == len(SOURCES)


@pytest.mark.long
def test_a_missing_source_is_named_on_the_page_without_its_place(cut_off: tuple[Settings, dg.DagsterInstance]) -> None:
    settings, made = cut_off
    file = Path(settings.sources.accounts.path)  # type: ignore[union-attr,arg-type]
    file.rename(file.with_suffix(".away"))
    try:
        assert take_delivery(settings, SOURCE_SCHEMAS["accounts"]).held_back
        write_status(settings.home, settings.clock, settings.sources, made)
        ((said,),) = query(settings.home.status_path, "SELECT held_back FROM status.sources WHERE source = 'accounts'")
        assert "accounts.csv: no such file or folder" in said
        assert str(file.parent) not in said
    finally:
        file.with_suffix(".away").rename(file)
