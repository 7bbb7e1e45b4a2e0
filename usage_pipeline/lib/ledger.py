"""What was said, kept for good: one file a week (or month), never written twice, whatever is known of it later."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline.config import Settings
from usage_pipeline.lib.files import put_whole


@dataclass(frozen=True)
class Issued:
    """What the ledger holds of a week: its file, and whether it was written now."""

    week: date | None
    file: Path
    is_new: bool


def issued_files(settings: Settings, what: str) -> list[Path]:
    """Every week's file of `what` (flags, scores), oldest first."""
    return sorted((settings.ledger_dir / what).glob("*.parquet"))


def keep_issued(connection: duckdb.DuckDBPyConnection, settings: Settings, what: str, sql: str) -> Issued:
    """Writes the rows of `sql`, which names the newest complete week as $week, to `ledger/<what>/<week>.parquet`, once.

    Each row also carries the moment it was issued.
    """
    found = connection.execute("SELECT max(week_start) FROM core.weeks WHERE is_complete").fetchone()
    week = found[0] if found else None
    file = settings.ledger_dir / what / f"{week}.parquet"
    if week is None or file.exists():
        return Issued(week, file, is_new=False)
    rows = issued_rows(connection, settings, sql, {"week": week})
    with put_whole(file) as unfinished:
        pq.write_table(rows, unfinished, compression="zstd")
    return Issued(week, file, is_new=True)


def issued_rows(
    connection: duckdb.DuckDBPyConnection, settings: Settings, sql: str, values: dict[str, Any]
) -> pa.Table:
    """The rows of a statement, each with the moment it was issued."""
    return connection.execute(
        f"SELECT *, CAST($as_of AS TIMESTAMP) AS issued_as_of FROM ({sql})",
        values | {"as_of": settings.as_of.replace(tzinfo=None)},
    ).to_arrow_table()
