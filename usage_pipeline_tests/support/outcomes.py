"""Outcomes as Superset's form writes them, without Superset; and builds made by hand that they are about."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from usage_superset.outcome_records import write_record

from usage_pipeline.config.settings import Settings
from usage_pipeline.core.tables import TABLES
from usage_pipeline.publishing.builds import Build, store_of

MOMENT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def answer(account_id: str = "A1", **other: Any) -> dict[str, Any]:
    """What the form hands over, of an account with one reason."""
    reason = {"application_key": "permits", "call_reason": "inactive", "urgency_rank": 1, "since": "2026-10-19"}
    return {
        "recorded_by": "anna",
        "account_id": account_id,
        "account": f"Town of {account_id}",
        "owner": "Dana",
        "build_id": "00001-2026-11-22-abcdef01",
        "as_of": "2026-11-22T00:00:00+00:00",
        "week": "2026-11-09",
        "urgency_rank": 1,
        "reasons": [reason],
        "was_reached": True,
        "status": "done",
        "snoozed_until": None,
        "useful": [],
    } | other


def record(folder: Path, account_id: str = "A1", note: str = "", now: datetime = MOMENT, **other: Any) -> Path:
    """Writes a record; returns its file."""
    written = write_record(folder, answer(account_id, **other), note, now)
    return next(folder.glob(f"*-{written['id']}.json"))


@contextmanager
def shown_build(settings: Settings, number: int = 1) -> Iterator[tuple[Build, duckdb.DuckDBPyConnection]]:
    """A build and its tables of calls, empty, to be filled; it is shown after that."""
    build = Build(f"{number:05d}-2026-11-22-abcdef01", "2026-11-22T00:00:00+00:00", "2026-11-09", "x", {})
    folder = settings.home.published_dir / build.build_id
    folder.mkdir(parents=True)
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        connection.execute("CREATE SCHEMA mart")
        for name in ("accounts_summary", "build", "call_list", "call_list_history", "call_reasons"):
            columns = ", ".join(f"{column.name} {column.type}" for column in TABLES[name].columns)
            connection.execute(f"CREATE TABLE mart.{name} ({columns})")
        connection.execute("INSERT INTO mart.build (newest_week) VALUES (TIMESTAMP '2026-11-09')")
        yield build, connection
    (folder / "build.json").write_text(json.dumps(asdict(build)))
    store_of(settings.home, settings.publish).rollback(build.build_id)
    store_of(settings.home, settings.publish).release()
